//! A thread that shows that it moves.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

/// Shows that the worker moves. Milliseconds since it was made, at the last step.
#[derive(Debug, Clone)]
pub(crate) struct Heartbeat {
    started: Instant,
    last_ms: Arc<AtomicU64>,
}

/// How long the worker waits for a job before it shows again that it moves.
pub(crate) const IDLE_BEAT: Duration = Duration::from_millis(250);

impl Heartbeat {
    pub(crate) fn new(now: Instant) -> Self {
        Self { started: now, last_ms: Arc::default() }
    }

    pub(crate) fn beat(&self, now: Instant) {
        let since = u64::try_from((now - self.started).as_millis()).unwrap_or(u64::MAX);
        self.last_ms.store(since, Ordering::Relaxed);
    }

    /// How long ago the worker last moved.
    pub(crate) fn silence(&self, now: Instant) -> Duration {
        let last = Duration::from_millis(self.last_ms.load(Ordering::Relaxed));
        (now - self.started).saturating_sub(last)
    }
}
