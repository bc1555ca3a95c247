//! Time, behind a trait: expiries, backoff and deadlines are tested without waiting for them.

use std::time::{Duration, Instant, SystemTime};

use async_trait::async_trait;

/// What time it is, and waiting.
#[async_trait]
pub trait Clock: Send + Sync + std::fmt::Debug {
    /// The time of day, for what others put a date on (signed URLs, `Retry-After`).
    fn now(&self) -> SystemTime;

    /// Time since some fixed moment; never goes back.
    fn elapsed(&self) -> Duration;

    /// Waits.
    async fn sleep(&self, wait: Duration);
}

/// The machine's clock.
#[derive(Debug, Clone, Copy)]
pub struct SystemClock {
    start: Instant,
}

impl Default for SystemClock {
    fn default() -> Self {
        Self { start: Instant::now() }
    }
}

#[async_trait]
impl Clock for SystemClock {
    fn now(&self) -> SystemTime {
        SystemTime::now()
    }

    fn elapsed(&self) -> Duration {
        self.start.elapsed()
    }

    async fn sleep(&self, wait: Duration) {
        tokio::time::sleep(wait).await;
    }
}
