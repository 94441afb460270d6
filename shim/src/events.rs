//! Task events for containerd, in order.
//!
//! One task forwards events to containerd's ttrpc service at `TTRPC_ADDRESS`, each
//! tried again while containerd restarts. The queue is bounded: when containerd
//! stays away for long, new events are dropped and said so in the log (containerd
//! asks for states when it comes back). Without an address events are only logged.

use std::{env, time::Duration};

use containerd_shim_protos::{
    api::ForwardRequest,
    events::task::{
        TaskCreate, TaskDelete, TaskExecAdded, TaskExecStarted, TaskExit, TaskIO, TaskOOM,
        TaskPaused, TaskResumed, TaskStart,
    },
    protobuf::{
        MessageFull,
        well_known_types::{any::Any, timestamp::Timestamp},
    },
    shim::event::Envelope,
    shim_async::EventsClient,
    topics,
};
use tokio::{
    sync::{
        mpsc::{self, Receiver, Sender},
        oneshot,
    },
    time::{sleep, timeout},
};
use ttrpc::{asynchronous::Client, context};

const QUEUE: usize = 2048;
const ATTEMPTS: u32 = 12;
const ATTEMPT_DEADLINE: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_secs(1);

/// A task event with its topic.
pub(crate) trait Event: MessageFull {
    /// containerd's topic.
    const TOPIC: &'static str;
}

macro_rules! event {
    ($($type:ty => $topic:ident,)*) => {
        $(impl Event for $type { const TOPIC: &'static str = topics::$topic; })*
    };
}

event! {
    TaskCreate => TASK_CREATE_EVENT_TOPIC,
    TaskStart => TASK_START_EVENT_TOPIC,
    TaskExit => TASK_EXIT_EVENT_TOPIC,
    TaskDelete => TASK_DELETE_EVENT_TOPIC,
    TaskOOM => TASK_OOM_EVENT_TOPIC,
    TaskExecAdded => TASK_EXEC_ADDED_EVENT_TOPIC,
    TaskExecStarted => TASK_EXEC_STARTED_EVENT_TOPIC,
    TaskPaused => TASK_PAUSED_EVENT_TOPIC,
    TaskResumed => TASK_RESUMED_EVENT_TOPIC,
}

/// The entry of the queue; clones share it.
#[derive(Debug, Clone)]
pub(crate) struct Events {
    namespace: String,
    queue: Sender<Item>,
}

#[derive(Debug)]
enum Item {
    Event(Box<Envelope>),
    /// Answered when everything before it has been dealt with.
    Flush(oneshot::Sender<()>),
}

impl Events {
    /// Starts the forwarding task. It ends when the last [`Events`] is gone and the
    /// queue is empty.
    pub(crate) fn start(namespace: String) -> Self {
        let (queue, receiver) = mpsc::channel(QUEUE);
        let address = env::var("TTRPC_ADDRESS")
            .ok()
            .filter(|text| !text.is_empty());
        tokio::spawn(forward_all(address, receiver));
        Self { namespace, queue }
    }

    /// Waits until all events so far are forwarded, or the deadline has passed.
    pub(crate) async fn flush(&self, deadline: Duration) {
        let (done, flushed) = oneshot::channel();
        let flush = async {
            if self.queue.send(Item::Flush(done)).await.is_ok() {
                let _ = flushed.await;
            }
        };
        if timeout(deadline, flush).await.is_err() {
            tracing::warn!("events left behind: containerd does not take them");
        }
    }

    /// Queues an event; never waits.
    pub(crate) fn publish<E: Event>(&self, event: &E) {
        let value = match event.write_to_bytes() {
            Ok(value) => value,
            Err(error) => {
                tracing::error!(topic = E::TOPIC, %error, "event not encoded");
                return;
            }
        };
        let envelope = Envelope {
            timestamp: Some(Timestamp::now()).into(),
            namespace: self.namespace.clone(),
            topic: E::TOPIC.to_owned(),
            event: Some(Any {
                type_url: E::descriptor().full_name().to_owned(),
                value,
                ..Any::default()
            })
            .into(),
            ..Envelope::default()
        };
        if self
            .queue
            .try_send(Item::Event(Box::new(envelope)))
            .is_err()
        {
            tracing::error!(topic = E::TOPIC, "event dropped: the queue is full");
        }
    }
}

/// The stdio part of a create event.
pub(crate) fn task_io(stdin: &str, stdout: &str, stderr: &str, terminal: bool) -> TaskIO {
    TaskIO {
        stdin: stdin.to_owned(),
        stdout: stdout.to_owned(),
        stderr: stderr.to_owned(),
        terminal,
        ..TaskIO::default()
    }
}

async fn forward_all(address: Option<String>, mut queue: Receiver<Item>) {
    let address = address.map(|address| {
        if address.contains("://") {
            address
        } else {
            format!("unix://{address}")
        }
    });
    let mut client = None;
    while let Some(item) = queue.recv().await {
        let envelope = match item {
            Item::Event(envelope) => *envelope,
            Item::Flush(done) => {
                let _ = done.send(());
                continue;
            }
        };
        let Some(address) = &address else {
            tracing::info!(topic = envelope.topic, "event");
            continue;
        };
        let topic = envelope.topic.clone();
        let request = ForwardRequest {
            envelope: Some(envelope).into(),
            ..ForwardRequest::default()
        };
        if !forward(address, &mut client, &request).await {
            tracing::error!(topic, address, "event dropped: containerd did not take it");
        }
    }
}

async fn forward(
    address: &str,
    client: &mut Option<EventsClient>,
    request: &ForwardRequest,
) -> bool {
    for attempt in 0..ATTEMPTS {
        if attempt > 0 {
            sleep(PAUSE).await;
        }
        let Some(connected) = connect(address, client).await else {
            continue;
        };
        match connected
            .forward(context::with_duration(ATTEMPT_DEADLINE), request)
            .await
        {
            Ok(_) => return true,
            Err(error) => {
                tracing::debug!(%error, "event not forwarded yet");
                *client = None;
            }
        }
    }
    false
}

async fn connect<'a>(
    address: &str,
    client: &'a mut Option<EventsClient>,
) -> Option<&'a EventsClient> {
    if client.is_none() {
        let connecting = timeout(ATTEMPT_DEADLINE, Client::connect(address)).await;
        *client = Some(EventsClient::new(connecting.ok()?.ok()?));
    }
    client.as_ref()
}

#[cfg(test)]
pub(crate) mod tests {
    use containerd_shim_protos::protobuf::Message;

    use super::*;

    #[test]
    fn type_urls_are_those_that_containerd_knows() {
        assert_eq!(
            TaskExit::descriptor().full_name(),
            "containerd.events.TaskExit"
        );
        assert_eq!(TaskOOM::TOPIC, "/tasks/oom");
    }

    impl Events {
        /// A queue whose topics a test reads.
        pub(crate) fn recorded() -> (Self, Recorded) {
            let (queue, receiver) = mpsc::channel(QUEUE);
            let events = Self {
                namespace: "test".into(),
                queue,
            };
            (events, Recorded(receiver))
        }
    }

    /// The other end of [`Events::recorded`].
    pub(crate) struct Recorded(Receiver<Item>);

    impl Recorded {
        /// Topics of all events so far, in order.
        pub(crate) fn topics(&mut self) -> Vec<String> {
            let mut topics = Vec::new();
            while let Ok(item) = self.0.try_recv() {
                match item {
                    Item::Event(envelope) => topics.push(envelope.topic),
                    Item::Flush(done) => drop(done),
                }
            }
            topics
        }
    }

    impl Recorded {
        /// The container of the next event that one is out of memory.
        pub(crate) async fn out_of_memory(&mut self) -> String {
            loop {
                let item = self.0.recv().await.unwrap();
                if let Item::Event(envelope) = item
                    && envelope.topic == TaskOOM::TOPIC
                {
                    let event = TaskOOM::parse_from_bytes(&envelope.event.value);
                    return event.unwrap().container_id;
                }
            }
        }
    }

    #[tokio::test]
    async fn a_full_queue_drops_instead_of_waiting() {
        let (queue, _receiver) = mpsc::channel(1);
        let events = Events {
            namespace: "n".into(),
            queue,
        };
        events.publish(&TaskOOM::default());
        events.publish(&TaskOOM::default());
    }
}
