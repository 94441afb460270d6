//! One pod from its first call to its last.
//!
//! Everything that waits can be interrupted: before the containers run a signal lets
//! the call that is being made end, and the pod is removed; after that it stops the
//! containers with their grace period while their output is still copied. Whatever the end, the sandbox is
//! looked up by the pod's uid and removed, so that one that was just being made is
//! found too.

use std::{
    future::Future,
    io,
    pin::pin,
    time::{Duration, Instant},
};

use k8s_cri::v1::{ContainerState, ContainerStatus};
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    time::sleep,
};

use crate::{
    RunError,
    config::{Making, Setting, log_path},
    credentials::Credentials,
    cri::{Cri, CriError},
    documents::Documents,
    environment::{Facts, environment},
    images::pull_all,
    logs::{Follower, Look},
    pod::{Container, RestartPolicy},
    progress::Progress,
    volumes::Volumes,
};

/// How often output and states are looked at.
const POLL: Duration = Duration::from_millis(100);

/// Kubernetes' default.
const GRACE_SECONDS: u32 = 30;

/// A container that fails is started again this often.
const RESTARTS: u32 = 5;

/// Before the first restart; doubled for each further one.
const BACKOFF: Duration = Duration::from_secs(1);

/// How long a call that a signal interrupts may still take.
const PATIENCE: Duration = Duration::from_secs(60);

/// How long a sandbox is looked for that was being made when a signal came.
const SEARCH: Duration = Duration::from_secs(10);

/// How a pod ended.
#[derive(Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Every container ended with 0.
    Succeeded,
    /// This container was the first to fail for good.
    Failed {
        /// Its name in the pod.
        container: String,
        /// Its exit code.
        code: u8,
        /// What the runtime says, where it says more.
        why: String,
    },
    /// A signal ended it.
    Stopped {
        /// Its number.
        signal: u8,
    },
    /// It ran longer than its activeDeadlineSeconds.
    TooLong {
        /// That limit.
        seconds: u64,
    },
}

/// The signals that end the pod.
pub(crate) struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    pub(crate) fn watch() -> io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
        })
    }

    /// The number of the next one.
    async fn next(&mut self) -> u8 {
        tokio::select! {
            _ = self.interrupt.recv() => 2,
            _ = self.terminate.recv() => 15,
        }
    }
}

/// A pod that is being run.
pub(crate) struct Life<'a> {
    pub(crate) cri: Cri,
    pub(crate) setting: &'a Setting<'a>,
    pub(crate) documents: &'a Documents,
    pub(crate) volumes: &'a Volumes,
    pub(crate) credentials: &'a Credentials,
    pub(crate) node: &'a str,
    pub(crate) progress: Progress,
    pub(crate) signals: Signals,
}

/// How long each step took.
#[derive(Debug, Default)]
struct Timing {
    pull: Duration,
    sandbox: Duration,
    containers: Duration,
}

/// The sandbox and what its containers are told about it.
struct Sandbox {
    id: String,
    addresses: Vec<String>,
}

/// What a step came to: its result, or a signal before it.
enum Step<T> {
    Done(T),
    Signal(u8),
}

/// Ends the surrounding function with the signal's outcome.
macro_rules! step {
    ($step:expr) => {
        match $step {
            Step::Done(result) => result?,
            Step::Signal(signal) => return Ok(Outcome::Stopped { signal }),
        }
    };
}

impl Life<'_> {
    /// Runs the pod to its end, and removes it.
    pub(crate) async fn run(mut self, timing: bool) -> Result<Outcome, RunError> {
        let mut times = Timing::default();
        let outcome = self.live(&mut times).await;
        self.progress.step("removing the pod");
        let interrupted = matches!(outcome, Ok(Outcome::Stopped { .. }));
        let removed = self.remove(interrupted).await;
        self.progress.done();
        if timing {
            eprintln!(
                "timing: image pull {:.2} s, sandbox start {:.2} s, container start {:.2} s",
                times.pull.as_secs_f64(),
                times.sandbox.as_secs_f64(),
                times.containers.as_secs_f64()
            );
        }
        // The first thing that went wrong is the one to tell.
        let outcome = outcome?;
        removed?;
        Ok(outcome)
    }

    async fn live(&mut self, times: &mut Timing) -> Result<Outcome, RunError> {
        let (setting, mut cri) = (self.setting, self.cri.clone());
        let spec = &setting.pod.spec;
        let begun = Instant::now();
        let deadline = spec.active_deadline_seconds.map(Duration::from_secs);
        let deadline = deadline.map(|limit| begun + limit);
        let progress = self.progress.clone();
        step!(
            self.or_signal(pull_all(&mut cri, setting, self.credentials, &progress))
                .await
        );
        times.pull = begun.elapsed();

        self.progress.step("starting the pod");
        let begun = Instant::now();
        let sandbox = step!(self.finishing(start_sandbox(&mut cri, setting)).await);
        times.sandbox = begun.elapsed();

        for container in &spec.init_containers {
            let running = vec![step!(self.start(&sandbox, container, 0, times).await)];
            match self.supervise(&sandbox, running, deadline, times).await? {
                Outcome::Succeeded => {}
                other => return Ok(other),
            }
        }
        let mut running = Vec::new();
        for container in &spec.containers {
            running.push(step!(self.start(&sandbox, container, 0, times).await));
        }
        self.supervise(&sandbox, running, deadline, times).await
    }

    /// Gives up the work at a signal.
    async fn or_signal<T>(&mut self, work: impl Future<Output = T>) -> Step<T> {
        tokio::select! {
            done = work => Step::Done(done),
            signal = self.signals.next() => Step::Signal(signal),
        }
    }

    /// Lets the work end after a signal: a runtime whose client goes away in the middle
    /// of a call leaves half of what it made behind. A second signal does not wait.
    async fn finishing<T>(&mut self, work: impl Future<Output = T>) -> Step<T> {
        let mut work = pin!(work);
        let signal = tokio::select! {
            done = &mut work => return Step::Done(done),
            signal = self.signals.next() => signal,
        };
        tokio::select! {
            _ = work => {}
            _ = self.signals.next() => {}
            () = sleep(PATIENCE) => {}
        }
        Step::Signal(signal)
    }

    async fn start(
        &mut self,
        sandbox: &Sandbox,
        container: &Container,
        attempt: u32,
        times: &mut Timing,
    ) -> Step<Result<Running, RunError>> {
        self.progress
            .step(&format!("starting container {}", container.name));
        let begun = Instant::now();
        let facts = Facts {
            pod: self.setting.pod,
            uid: self.setting.uid,
            node: self.node,
            addresses: &sandbox.addresses,
        };
        let environment = environment(container, &facts, self.documents);
        let environment = match environment {
            Ok(environment) => environment,
            Err(source) => {
                let container = container.name.clone();
                return Step::Done(Err(RunError::Value { container, source }));
            }
        };
        let files = match self.setting.kubelet_files(container, &sandbox.addresses) {
            Ok(files) => files,
            Err(error) => return Step::Done(Err(error)),
        };
        let config = self.setting.container(Making {
            container,
            attempt,
            environment,
            volumes: self.volumes,
            files,
        });
        let (setting, mut cri, name) = (self.setting, self.cri.clone(), container.name.clone());
        let started = self
            .finishing(async {
                let id = cri.create(&sandbox.id, config, &setting.sandbox()).await?;
                cri.start(&id, &name).await?;
                Ok::<_, CriError>(id)
            })
            .await;
        times.containers += begun.elapsed();
        self.progress.done();
        let path = setting.log_directory.join(log_path(&name, attempt));
        let progress = self.progress.clone();
        match started {
            Step::Signal(signal) => Step::Signal(signal),
            Step::Done(Err(error)) => Step::Done(Err(cause(name, error))),
            Step::Done(Ok(id)) => Step::Done(Ok(Running {
                log: Follower::new(path, &name, progress),
                container: container.clone(),
                id,
                attempt,
                state: State::Runs,
            })),
        }
    }

    /// Copies output and restarts what failed, until all containers have ended.
    async fn supervise(
        &mut self,
        sandbox: &Sandbox,
        mut running: Vec<Running>,
        deadline: Option<Instant>,
        times: &mut Timing,
    ) -> Result<Outcome, RunError> {
        let mut ending: Option<Outcome> = None;
        let mut failed: Option<Outcome> = None;
        loop {
            let mut more = false;
            for one in &mut running {
                more |= one.look(&mut self.cri).await?;
                if let Some(outcome) = self.settle(one, ending.is_some()) {
                    failed.get_or_insert(outcome);
                }
            }
            if running.iter().all(|one| one.state == State::Ended) {
                return Ok(ending.or(failed).unwrap_or(Outcome::Succeeded));
            }
            for one in &mut running {
                if ending.is_none() && one.is_due() {
                    self.cri.remove_container(&one.id).await?;
                    let attempt = one.attempt + 1;
                    *one = step!(
                        self.start(sandbox, &one.container.clone(), attempt, times)
                            .await
                    );
                }
            }
            let wait = if more { Duration::ZERO } else { POLL };
            let too_long = deadline.is_some_and(|at| Instant::now() >= at);
            tokio::select! {
                biased;
                signal = self.signals.next() => {
                    let again = ending.is_some();
                    ending = Some(Outcome::Stopped { signal });
                    self.stop(&mut running, again);
                }
                () = sleep(wait) => {}
            }
            if too_long && ending.is_none() {
                let seconds = self.setting.pod.spec.active_deadline_seconds;
                let seconds = seconds.unwrap_or_default();
                ending = Some(Outcome::TooLong { seconds });
                self.stop(&mut running, false);
            }
        }
    }

    /// Decides what becomes of a container that has ended.
    fn settle(&self, one: &mut Running, ending: bool) -> Option<Outcome> {
        let State::Exited(outcome) = &one.state else {
            return None;
        };
        let policy = self.setting.pod.spec.restart_policy.unwrap_or_default();
        let outcome = outcome.clone();
        if outcome.is_some() && !ending && policy != RestartPolicy::Never && one.attempt < RESTARTS
        {
            let name = &one.container.name;
            let wait = BACKOFF * 2_u32.pow(one.attempt);
            let _clear = self.progress.clear();
            eprintln!(
                "kata-cc: container {name} failed, starting it again in {} s",
                wait.as_secs()
            );
            one.state = State::Waits(Instant::now() + wait);
            return None;
        }
        one.state = State::Ended;
        outcome.map(|(code, why)| Outcome::Failed {
            container: one.container.name.clone(),
            code,
            why,
        })
    }

    /// Asks all containers to end; their states tell when they have.
    fn stop(&self, running: &mut [Running], at_once: bool) {
        let seconds = self.setting.pod.spec.termination_grace_period_seconds;
        let grace = if at_once {
            0
        } else {
            seconds.unwrap_or(GRACE_SECONDS)
        };
        for one in running {
            match one.state {
                State::Waits(_) => one.state = State::Ended,
                State::Runs => {
                    let (mut cri, id) = (self.cri.clone(), one.id.clone());
                    let grace = Duration::from_secs(grace.into());
                    // Its failure shows when the sandbox is removed.
                    tokio::spawn(async move { cri.stop(&id, grace).await.ok() });
                }
                State::Drains(_) | State::Exited(_) | State::Ended => {}
            }
        }
    }

    /// Removes the pod; after an interruption also one that comes to be only now.
    async fn remove(&mut self, interrupted: bool) -> Result<(), CriError> {
        let until = Instant::now() + SEARCH;
        let mut empty = 0;
        loop {
            let found = self.cri.sandboxes(self.setting.uid).await?;
            for sandbox in &found {
                self.cri.remove_sandbox(sandbox).await?;
            }
            empty = if found.is_empty() { empty + 1 } else { 0 };
            let sure = !interrupted || empty > 2;
            if found.is_empty() && sure || Instant::now() >= until {
                return Ok(());
            }
            sleep(POLL).await;
        }
    }
}

/// A container of the pod.
struct Running {
    container: Container,
    id: String,
    attempt: u32,
    state: State,
    log: Follower,
}

/// What a container is doing.
#[derive(Clone, Debug, PartialEq, Eq)]
enum State {
    Runs,
    /// It ended; containerd says so before its logger has written the last lines.
    Drains(Option<(u8, String)>),
    /// It ended, with a code and a reason if that was a failure.
    Exited(Option<(u8, String)>),
    /// It failed and starts again then.
    Waits(Instant),
    /// It ended for good.
    Ended,
}

impl Running {
    /// Copies new output and looks whether the container has ended; true when there is more of
    /// its output already.
    async fn look(&mut self, cri: &mut Cri) -> Result<bool, RunError> {
        match &self.state {
            State::Runs => self.look_at_running(cri).await,
            State::Drains(failure) => {
                let failure = failure.clone();
                let look = self.log.follow().map_err(|source| self.log_error(source))?;
                if look == Look::Nothing {
                    let finished = self.log.finish();
                    finished.map_err(|source| self.log_error(source))?;
                    self.state = State::Exited(failure);
                }
                Ok(look == Look::Part)
            }
            State::Exited(_) | State::Waits(_) | State::Ended => Ok(false),
        }
    }

    async fn look_at_running(&mut self, cri: &mut Cri) -> Result<bool, RunError> {
        let name = self.container.name.clone();
        let status = cri.status(&self.id, &name).await?;
        let look = self.log.follow().map_err(|source| self.log_error(source))?;
        match status.state() {
            ContainerState::ContainerExited => self.state = State::Drains(failure(&status)),
            // Lost: there is nothing to wait for.
            ContainerState::ContainerUnknown => {
                self.state = State::Drains(Some((u8::MAX, "state unknown".to_owned())));
            }
            ContainerState::ContainerCreated | ContainerState::ContainerRunning => {
                self.rotate_log(cri, &name).await?;
            }
        }
        Ok(look == Look::Part)
    }

    async fn rotate_log(&mut self, cri: &mut Cri, name: &str) -> Result<(), RunError> {
        if self.log.rotate().map_err(|source| self.log_error(source))? {
            cri.reopen_log(&self.id, name).await?;
            let rotated = self.log.rotated();
            rotated.map_err(|source| self.log_error(source))?;
        }
        Ok(())
    }

    fn log_error(&self, source: io::Error) -> RunError {
        let container = self.container.name.clone();
        RunError::Log { container, source }
    }

    fn is_due(&self) -> bool {
        matches!(self.state, State::Waits(at) if Instant::now() >= at)
    }
}

/// The exit code, and what the runtime says beside it.
fn failure(status: &ContainerStatus) -> Option<(u8, String)> {
    if status.exit_code == 0 {
        return None;
    }
    let code = u8::try_from(status.exit_code).unwrap_or(u8::MAX);
    let said = [status.reason.as_str(), status.message.as_str()];
    let said = said.into_iter().filter(|s| !s.is_empty() && *s != "Error");
    Some((code, said.collect::<Vec<_>>().join(": ")))
}

/// containerd looks users up in files of the image, which the node does not have.
fn cause(container: String, error: CriError) -> RunError {
    match error {
        CriError::Call { message, .. }
            if message.contains("mount callback failed")
                && ["/etc/passwd", "/etc/group"]
                    .iter()
                    .any(|file| message.contains(file)) =>
        {
            RunError::UserName(container)
        }
        error => error.into(),
    }
}

async fn start_sandbox(cri: &mut Cri, setting: &Setting<'_>) -> Result<Sandbox, CriError> {
    let id = cri.run_sandbox(&setting.sandbox(), setting.handler).await?;
    let addresses = cri.addresses(&id).await?;
    Ok(Sandbox { id, addresses })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_has_a_code_and_says_what_the_runtime_says() {
        let status = |exit_code, reason: &str| ContainerStatus {
            exit_code,
            reason: reason.to_owned(),
            ..ContainerStatus::default()
        };
        assert_eq!(failure(&status(0, "Completed")), None);
        assert_eq!(failure(&status(3, "Error")), Some((3, String::new())));
        assert_eq!(
            failure(&status(137, "OOMKilled")),
            Some((137, "OOMKilled".to_owned()))
        );
        assert_eq!(failure(&status(-1, "")), Some((255, String::new())));
    }
}
