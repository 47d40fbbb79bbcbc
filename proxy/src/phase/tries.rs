//! The attempts that were made for a request, for its record.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use crate::upstream::pods::Pod;

/// One attempt, for the record.
pub(crate) struct Tried {
    pub(crate) pod: Arc<Pod>,
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
}
