//! The attempts that were made for a request, for its record.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use crate::upstream::member::Upstream;

/// One attempt, for the record.
pub(crate) struct Tried {
    pub(crate) upstream: Arc<Upstream>,
    pub(crate) span: u64,
    pub(crate) began: Instant,
    /// Until its first content, or its end without any.
    pub(crate) ended: Instant,
    pub(crate) outcome: &'static str,
}

/// The attempts that were made, for the record of who began them.
#[derive(Clone, Default)]
pub(crate) struct Tries(Arc<Mutex<Vec<Tried>>>);

impl Tries {
    pub(super) fn with<R>(&self, act: impl FnOnce(&mut Vec<Tried>) -> R) -> R {
        // What is in it is whole at every moment.
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// One begins; its number. Written down first: it may be dropped where the client goes away.
    pub(super) fn begin(&self, upstream: &Arc<Upstream>, span: u64, now: Instant) -> usize {
        let upstream = Arc::clone(upstream);
        let tried = Tried { upstream, span, began: now, ended: now, outcome: "dropped" };
        self.with(|all| {
            all.push(tried);
            all.len() - 1
        })
    }

    /// The one of that number began to answer, or ended without.
    pub(super) fn end(&self, number: usize, outcome: &'static str, now: Instant) {
        self.with(|all| {
            if let Some(tried) = all.get_mut(number) {
                (tried.ended, tried.outcome) = (now, outcome);
            }
        });
    }
}
