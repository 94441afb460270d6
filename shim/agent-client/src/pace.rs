//! How often the guest may make the shim do something.

use std::time::Duration;

use tokio::time::Instant;

/// Lets a number of things happen at once, and then one in each interval.
#[derive(Debug)]
pub struct Pace {
    /// How far ahead of the steady rate one may be.
    ahead: Duration,
    interval: Duration,
    /// When the next thing would be due at the steady rate.
    due: Instant,
}

impl Pace {
    /// The first `burst` things need not wait.
    #[must_use]
    pub fn new(burst: u32, interval: Duration) -> Self {
        Self {
            ahead: interval.saturating_mul(burst.saturating_sub(1)),
            interval,
            due: Instant::now(),
        }
    }

    /// Waits until the next thing may happen.
    pub async fn next(&mut self) {
        let now = Instant::now();
        let due = self.due.max(now);
        self.due = due + self.interval;
        let wait = due.saturating_duration_since(now);
        tokio::time::sleep(wait.saturating_sub(self.ahead)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_burst_passes_and_then_one_in_each_interval() {
        let second = Duration::from_secs(1);
        let mut pace = Pace::new(3, second);
        let start = Instant::now();
        for waited in [0, 0, 0, 1, 2] {
            pace.next().await;
            assert_eq!(start.elapsed().as_secs(), waited);
        }
        // Silence earns a burst again, and no more than one.
        tokio::time::sleep(100 * second).await;
        let start = Instant::now();
        for waited in [0, 0, 0, 1] {
            pace.next().await;
            assert_eq!(start.elapsed().as_secs(), waited);
        }
    }
}
