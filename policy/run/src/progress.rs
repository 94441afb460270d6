//! One line that says what is being waited for, when somebody looks at a terminal.

use std::{
    io::{self, IsTerminal as _, Write as _},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

/// Often enough to look alive.
const REDRAW: Duration = Duration::from_millis(200);

/// Erases the line that the cursor is in (ECMA-48 EL).
const ERASE: &str = "\r\x1b[2K";

/// The line; silent when standard error is no terminal.
#[derive(Clone, Debug)]
pub(crate) struct Progress(Option<Arc<Mutex<State>>>);

#[derive(Debug)]
struct State {
    since: Instant,
    step: Option<String>,
    drawn: bool,
}

/// Keeps the line away while something else is written.
pub(crate) struct Cleared<'a>(
    #[expect(dead_code, reason = "held, not read")] Option<MutexGuard<'a, State>>,
);

impl Progress {
    /// A line on standard error if that is a terminal, drawn until [`Self::done`].
    pub(crate) fn start() -> Self {
        if !io::stderr().is_terminal() {
            return Self::silent();
        }
        let progress = Self(Some(Arc::new(Mutex::new(State {
            since: Instant::now(),
            step: None,
            drawn: false,
        }))));
        let drawn = progress.clone();
        tokio::spawn(async move {
            loop {
                drawn.draw();
                tokio::time::sleep(REDRAW).await;
            }
        });
        progress
    }

    /// No line.
    pub(crate) fn silent() -> Self {
        Self(None)
    }

    /// Says what is waited for now.
    pub(crate) fn step(&self, step: &str) {
        if let Some(mut state) = self.lock() {
            state.step = Some(step.to_owned());
        }
        self.draw();
    }

    /// Nothing is waited for any more.
    pub(crate) fn done(&self) {
        if let Some(mut state) = self.lock() {
            state.step = None;
            state.erase();
        }
    }

    /// Takes the line away for as long as the answer lives.
    pub(crate) fn clear(&self) -> Cleared<'_> {
        Cleared(self.lock().map(|mut state| {
            state.erase();
            state
        }))
    }

    fn lock(&self) -> Option<MutexGuard<'_, State>> {
        let state = self.0.as_ref()?;
        Some(state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// A terminal that cannot be written to is no reason to end the pod.
    fn draw(&self) {
        let Some(mut state) = self.lock() else {
            return;
        };
        if let Some(step) = &state.step {
            let seconds = state.since.elapsed().as_secs_f32();
            write!(io::stderr(), "{ERASE}{seconds:5.1} s  {step}").ok();
            state.drawn = true;
        }
    }
}

impl State {
    fn erase(&mut self) {
        if std::mem::take(&mut self.drawn) {
            write!(io::stderr(), "{ERASE}").ok();
        }
    }
}
