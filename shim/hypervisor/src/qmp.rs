//! A client for QEMU's machine protocol, as small as four commands allow.
//!
//! The monitor is one end of a socket pair that QEMU inherits: nobody else can reach it, and no
//! path is left behind. One task owns our end, answers requests in order and notes the events
//! that say why a VM ends. QEMU is of our choosing but runs hostile guests, so lines are bounded
//! and every answer has a deadline. Format: QEMU Machine Protocol Specification 2.1, sections
//! 2.2 to 2.5.

use std::{collections::VecDeque, time::Duration};

use serde::Deserialize;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::UnixStream,
    sync::{mpsc, oneshot, watch},
};

use crate::vm::VmExitCause;

/// Longest line accepted from the monitor; the answers we ask for are far shorter.
const MAX_LINE: usize = 64 * 1024;
/// Requests waiting for the task; callers issue one at a time.
const QUEUE: usize = 4;
/// Pause between two questions for a device's state.
const DEVICE_PAUSE: Duration = Duration::from_millis(25);

/// Why the monitor did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum QmpError {
    /// A line went on without end.
    #[error("the monitor sent a line of more than {MAX_LINE} bytes")]
    LineTooLong,
    /// A line is not a message.
    #[error("the monitor sent a line that is not a QMP message")]
    Malformed(#[source] serde_json::Error),
    /// A message came that nobody waits for.
    #[error("the monitor sent an answer to no question")]
    Unexpected,
    /// The command failed.
    #[error("the monitor refused {command}: {reason}")]
    Refused {
        /// The command.
        command: &'static str,
        /// QEMU's words.
        reason: String,
    },
    /// The VM is there but its CPUs do not run.
    #[error("the VM does not run: {status}")]
    NotRunning {
        /// The answer to `query-status`.
        status: String,
    },
    /// The connection is gone.
    #[error("the monitor closed the connection")]
    Closed,
    /// No answer in time.
    #[error("the monitor did not answer {command} within {} s", waited.as_secs())]
    Deadline {
        /// The command.
        command: &'static str,
        /// The deadline that passed.
        waited: Duration,
    },
    /// The socket failed.
    #[error("cannot talk to the monitor")]
    Io(#[source] std::io::Error),
}

/// Handle on the task that owns the connection; cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Qmp {
    requests: mpsc::Sender<Request>,
    cause: watch::Receiver<Option<VmExitCause>>,
}

#[derive(Debug)]
struct Request {
    command: &'static str,
    arguments: serde_json::Value,
    reply: oneshot::Sender<Result<serde_json::Value, QmpError>>,
}

impl Qmp {
    /// Takes over a fresh connection; the task ends with it or with the last handle.
    pub(crate) fn new(stream: UnixStream) -> Self {
        let (requests, queue) = mpsc::channel(QUEUE);
        let (cause_sender, cause) = watch::channel(None);
        let connection = Connection {
            stream,
            received: Vec::new(),
            // The greeting is the answer to nothing, and nobody waits for it.
            waiting: VecDeque::new(),
            cause: cause_sender,
        };
        tokio::spawn(async move {
            if let Err(error) = connection.run(queue).await {
                tracing::debug!(%error, "monitor connection ended");
            }
        });
        Self { requests, cause }
    }

    /// Leaves negotiation mode, then asks whether the CPUs run.
    pub(crate) async fn negotiate(&self, deadline: Duration) -> Result<(), QmpError> {
        self.execute("qmp_capabilities", deadline).await?;
        let status = self.execute("query-status", deadline).await?;
        if status.get("running").and_then(serde_json::Value::as_bool) == Some(true) {
            return Ok(());
        }
        Err(QmpError::NotRunning {
            status: status.to_string(),
        })
    }

    /// Runs a command without arguments.
    pub(crate) async fn execute(
        &self,
        command: &'static str,
        deadline: Duration,
    ) -> Result<serde_json::Value, QmpError> {
        self.ask(command, serde_json::json!({}), deadline).await
    }

    /// Waits until the guest's driver has started the vhost device at `path`; each question has
    /// the deadline `patience`.
    ///
    /// # Errors
    /// When the monitor does not know, as before QEMU 7.2.
    pub(crate) async fn vhost_started(
        &self,
        path: &str,
        patience: Duration,
    ) -> Result<(), QmpError> {
        loop {
            let which = serde_json::json!({ "path": path });
            let status = self.ask("x-query-virtio-status", which, patience).await?;
            let started = status.get("vhost-started");
            if started.and_then(serde_json::Value::as_bool) == Some(true) {
                return Ok(());
            }
            tokio::time::sleep(DEVICE_PAUSE).await;
        }
    }

    async fn ask(
        &self,
        command: &'static str,
        arguments: serde_json::Value,
        deadline: Duration,
    ) -> Result<serde_json::Value, QmpError> {
        let (reply, answer) = oneshot::channel();
        let request = Request {
            command,
            arguments,
            reply,
        };
        let exchange = async {
            self.requests
                .send(request)
                .await
                .map_err(|_| QmpError::Closed)?;
            answer.await.map_err(|_| QmpError::Closed)?
        };
        tokio::time::timeout(deadline, exchange)
            .await
            .map_err(|_| QmpError::Deadline {
                command,
                waited: deadline,
            })?
    }

    /// Why the VM ended, as far as QEMU told before it closed the connection.
    pub(crate) async fn last_words(&self, deadline: Duration) -> Option<VmExitCause> {
        let mut cause = self.cause.clone();
        // The sender is dropped when the connection is read to its end.
        let closed = async { while cause.changed().await.is_ok() {} };
        // Unread words are no words: the process is gone by now.
        let _elapsed = tokio::time::timeout(deadline, closed).await;
        *self.cause.borrow()
    }
}

struct Connection {
    stream: UnixStream,
    received: Vec<u8>,
    waiting: VecDeque<Request>,
    cause: watch::Sender<Option<VmExitCause>>,
}

impl Connection {
    async fn run(mut self, mut queue: mpsc::Receiver<Request>) -> Result<(), QmpError> {
        let mut open = true;
        loop {
            tokio::select! {
                request = queue.recv(), if open => match request {
                    Some(request) => self.send(request).await?,
                    None => open = false,
                },
                read = self.stream.read_buf(&mut self.received) => {
                    if read.map_err(QmpError::Io)? == 0 {
                        return Ok(());
                    }
                    self.take_lines()?;
                }
            }
        }
    }

    async fn send(&mut self, request: Request) -> Result<(), QmpError> {
        let (command, arguments) = (request.command, &request.arguments);
        let line = format!("{{\"execute\":\"{command}\",\"arguments\":{arguments}}}\n");
        self.waiting.push_back(request);
        self.stream
            .write_all(line.as_bytes())
            .await
            .map_err(QmpError::Io)
    }

    fn take_lines(&mut self) -> Result<(), QmpError> {
        while let Some(end) = self.received.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.received.drain(..=end).collect();
            self.take(Message::parse(&line)?)?;
        }
        if self.received.len() > MAX_LINE {
            Err(QmpError::LineTooLong)
        } else {
            Ok(())
        }
    }

    fn take(&mut self, message: Message) -> Result<(), QmpError> {
        let answer = match message {
            Message::Greeting => return Ok(()),
            Message::Event(event) => {
                if let Some(cause) = event.cause() {
                    self.cause.send_if_modified(|known| worse(known, cause));
                }
                return Ok(());
            }
            Message::Return(value) => Ok(value),
            Message::Error(reason) => Err(reason),
        };
        let request = self.waiting.pop_front().ok_or(QmpError::Unexpected)?;
        let command = request.command;
        // A caller that gave up has dropped its end.
        let _abandoned = request
            .reply
            .send(answer.map_err(|reason| QmpError::Refused { command, reason }));
        Ok(())
    }
}

/// A panic is followed by a reset; the panic is the news.
fn worse(known: &mut Option<VmExitCause>, cause: VmExitCause) -> bool {
    if known.is_none() || cause == VmExitCause::GuestPanicked {
        *known = Some(cause);
        return true;
    }
    false
}

/// One line from the monitor.
#[derive(Debug, PartialEq)]
enum Message {
    Greeting,
    Return(serde_json::Value),
    Error(String),
    Event(Event),
}

#[derive(Debug, PartialEq, Deserialize)]
struct Event {
    event: String,
    #[serde(default)]
    data: EventData,
}

#[derive(Debug, Default, PartialEq, Deserialize)]
struct EventData {
    reason: Option<String>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Line {
    Greeting {
        #[serde(rename = "QMP")]
        _greeting: serde::de::IgnoredAny,
    },
    Error {
        error: Refusal,
    },
    Event(Event),
    Return {
        #[serde(rename = "return")]
        value: serde_json::Value,
    },
}

#[derive(Deserialize)]
struct Refusal {
    desc: String,
}

impl Message {
    fn parse(line: &[u8]) -> Result<Self, QmpError> {
        Ok(
            match agent_documents::parse_json(line).map_err(QmpError::Malformed)? {
                Line::Greeting { .. } => Self::Greeting,
                Line::Error { error } => Self::Error(error.desc),
                Line::Event(event) => Self::Event(event),
                Line::Return { value } => Self::Return(value),
            },
        )
    }
}

impl Event {
    /// What the event says about the end of the VM. Names: QAPI `ShutdownCause`.
    fn cause(&self) -> Option<VmExitCause> {
        match (self.event.as_str(), self.data.reason.as_deref()) {
            ("GUEST_PANICKED", _) | ("SHUTDOWN", Some("guest-panic")) => {
                Some(VmExitCause::GuestPanicked)
            }
            ("SHUTDOWN", Some("guest-reset")) => Some(VmExitCause::GuestReset),
            ("SHUTDOWN", Some("guest-shutdown")) => Some(VmExitCause::GuestShutdown),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const GREETING: &[u8] = b"{\"QMP\": {\"version\": {}, \"capabilities\": [\"oob\"]}}\r\n";

    async fn read_line(stream: &mut UnixStream) -> String {
        let mut line = Vec::new();
        while line.last() != Some(&b'\n') {
            line.push(stream.read_u8().await.unwrap());
        }
        String::from_utf8(line).unwrap()
    }

    #[tokio::test]
    async fn negotiation_sends_capabilities_then_asks_for_the_status() {
        let (ours, mut monitor) = UnixStream::pair().unwrap();
        let qmp = Qmp::new(ours);
        let server = async {
            monitor.write_all(GREETING).await.unwrap();
            assert_eq!(
                read_line(&mut monitor).await,
                "{\"execute\":\"qmp_capabilities\",\"arguments\":{}}\n"
            );
            monitor.write_all(b"{\"return\": {}}\r\n").await.unwrap();
            assert_eq!(
                read_line(&mut monitor).await,
                "{\"execute\":\"query-status\",\"arguments\":{}}\n"
            );
            monitor
                .write_all(b"{\"event\":\"RESUME\",\"timestamp\":{}}\r\n{\"return\": {\"running\": true}}\r\n")
                .await
                .unwrap();
        };
        let (running, ()) = tokio::join!(qmp.negotiate(SECOND), server);
        running.unwrap();
    }

    #[tokio::test]
    async fn a_device_has_started_only_when_the_monitor_says_so() {
        let (ours, mut monitor) = UnixStream::pair().unwrap();
        let qmp = Qmp::new(ours);
        let server = async {
            for started in [false, true] {
                let question = read_line(&mut monitor).await;
                assert!(question.contains("\"path\":\"/machine/x\""), "{question}");
                let answer = format!("{{\"return\": {{\"vhost-started\": {started}}}}}\r\n");
                monitor.write_all(answer.as_bytes()).await.unwrap();
            }
        };
        let (started, ()) = tokio::join!(qmp.vhost_started("/machine/x", SECOND), server);
        started.unwrap();
    }

    #[tokio::test]
    async fn a_refusal_carries_the_command_and_the_reason() {
        let (ours, mut monitor) = UnixStream::pair().unwrap();
        monitor
            .write_all(b"{\"error\": {\"class\": \"GenericError\", \"desc\": \"no\"}}\n")
            .await
            .unwrap();
        // The answer is there before the question: that ends the connection.
        assert!(matches!(
            Qmp::new(ours).execute("quit", SECOND).await,
            Err(QmpError::Closed | QmpError::Refused { .. })
        ));
        let (ours, mut monitor) = UnixStream::pair().unwrap();
        let qmp = Qmp::new(ours);
        let server = async {
            read_line(&mut monitor).await;
            monitor
                .write_all(b"{\"error\": {\"desc\": \"no\"}}\n")
                .await
                .unwrap();
        };
        let (answer, ()) = tokio::join!(qmp.execute("quit", SECOND), server);
        assert_eq!(
            answer.unwrap_err().to_string(),
            "the monitor refused quit: no"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_monitor_meets_the_deadline() {
        let (ours, _monitor) = UnixStream::pair().unwrap();
        assert!(matches!(
            Qmp::new(ours).execute("quit", SECOND).await,
            Err(QmpError::Deadline {
                command: "quit",
                ..
            })
        ));
    }

    #[tokio::test]
    async fn an_endless_line_and_garbage_end_the_connection() {
        for bytes in [vec![b'x'; MAX_LINE + 1], b"not json\n".to_vec()] {
            let (ours, mut monitor) = UnixStream::pair().unwrap();
            let qmp = Qmp::new(ours);
            let server = async {
                // The other end may hang up before everything is written.
                let _written = monitor.write_all(&bytes).await;
            };
            let (answer, ()) = tokio::join!(qmp.execute("quit", SECOND), server);
            assert!(matches!(answer, Err(QmpError::Closed)), "{answer:?}");
        }
    }

    #[tokio::test]
    async fn the_last_words_survive_the_connection() {
        for (events, cause) in [
            ("", None),
            (
                r#"{"event":"SHUTDOWN","data":{"guest":true,"reason":"guest-shutdown"}}"#,
                Some(VmExitCause::GuestShutdown),
            ),
            (
                r#"{"event":"SHUTDOWN","data":{"guest":true,"reason":"guest-reset"}}"#,
                Some(VmExitCause::GuestReset),
            ),
            (
                r#"{"event":"SHUTDOWN","data":{"guest":false,"reason":"host-qmp-quit"}}"#,
                None,
            ),
            (
                "{\"event\":\"GUEST_PANICKED\",\"data\":{\"action\":\"pause\"}}\n{\"event\":\"SHUTDOWN\",\"data\":{\"reason\":\"guest-reset\"}}",
                Some(VmExitCause::GuestPanicked),
            ),
        ] {
            let (ours, mut monitor) = UnixStream::pair().unwrap();
            let qmp = Qmp::new(ours);
            monitor
                .write_all(format!("{events}\n").trim_start().as_bytes())
                .await
                .unwrap();
            drop(monitor);
            assert_eq!(qmp.last_words(SECOND).await, cause, "{events}");
        }
    }
}
