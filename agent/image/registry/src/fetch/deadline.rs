//! The time a pull may take.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

/// Why there is no time left.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Over {
    /// The pull took as long as it may.
    #[error("the time for the whole pull, {} seconds, is over; raise the limit", .0.as_secs())]
    Late(Duration),
    /// Another part of the same pull failed.
    #[error("another part of the pull failed")]
    Cancelled,
}

/// How soon a pause notices that it is in vain.
const CANCELLED_WITHIN: Duration = Duration::from_millis(200);

/// When the pull must be over, or whether it already is.
#[derive(Debug)]
pub struct Deadline {
    at: Instant,
    whole: Duration,
    cancelled: AtomicBool,
}

impl Deadline {
    /// A deadline that begins now.
    #[must_use]
    pub fn within(whole: Duration) -> Self {
        Self {
            at: Instant::now() + whole,
            whole,
            cancelled: AtomicBool::new(false),
        }
    }

    /// Ends all that still runs under this deadline.
    pub fn cancel(&self) {
        self.cancelled.store(true, Ordering::Relaxed);
    }

    /// The time that is left.
    ///
    /// # Errors
    /// None is, or the deadline was cancelled.
    pub fn check(&self) -> Result<Duration, Over> {
        if self.cancelled.load(Ordering::Relaxed) {
            return Err(Over::Cancelled);
        }
        let left = self.at.saturating_duration_since(Instant::now());
        if left.is_zero() {
            Err(Over::Late(self.whole))
        } else {
            Ok(left)
        }
    }

    /// Waits before another try, as long as the deadline allows.
    pub(super) fn pause(&self, wanted: Duration) -> Result<(), Over> {
        let over = Instant::now() + wanted.min(self.check()?);
        loop {
            let left = over.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return self.check().map(|_| ());
            }
            std::thread::sleep(left.min(CANCELLED_WITHIN));
            self.check()?;
        }
    }
}
