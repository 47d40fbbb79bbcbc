//! How long answers take once a pod works on them, by kind: who has less time left than that does
//! not take a place that another could use.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use nearhop_routing::Quantiles;
use nearhop_wire::Kind;

/// The latest times of each kind.
#[derive(Debug)]
pub(crate) struct ServiceTimes([Mutex<Quantiles>; 4]);

/// How far back they count.
const WINDOW: Duration = Duration::from_secs(60);
/// Fewer say nothing.
const SAMPLES: u64 = 10;

impl Default for ServiceTimes {
    fn default() -> Self {
        Self(std::array::from_fn(|_| Mutex::new(Quantiles::new(WINDOW))))
    }
}

impl ServiceTimes {
    fn of<R>(&self, kind: Kind, act: impl FnOnce(&mut Quantiles) -> R) -> R {
        // Nothing in here can panic half-way.
        act(&mut self.0[kind as usize].lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// One took so long.
    pub(crate) fn took(&self, kind: Kind, took: Duration, now: Instant) {
        self.of(kind, |times| times.add(took, now));
    }

    /// What half of them need at most; nothing while that is not known.
    pub(crate) fn needs(&self, kind: Kind, now: Instant) -> Duration {
        self.of(kind, |times| match times.count(now) {
            SAMPLES.. => times.quantile(0.5, now).unwrap_or_default(),
            _ => Duration::ZERO,
        })
    }
}
