//! Who waits of one tenant and class, and from which end they are served.
//!
//! Oldest first, as anybody expects. Where requests come from typing and the oldest has waited for
//! longer than it takes to type on, newest first, until nobody waits: what was asked a keystroke
//! ago is worth less than what is asked now, and where not all can be served, oldest first would
//! serve each of them just before it is too late. Who waits for a conversation's answer has asked
//! one thing and waits for that: there the oldest stays first, and who comes too late is refused.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use super::pace::Arrivals;

/// After so long, who types has typed on: the mean between keystrokes is 240 ms (Dhakal et al.,
/// "Observations on typing from 136 million keystrokes", 2018).
const KEYSTROKE: Duration = Duration::from_millis(250);

/// One that waits.
#[derive(Debug)]
pub(super) struct Waiting<W> {
    pub(super) waiter: W,
    pub(super) since: Instant,
    /// Later, a place would be wasted on it.
    pub(super) start_by: Instant,
}

#[derive(Debug)]
pub(super) struct Line<W> {
    pub(super) arrivals: Arrivals,
    waiting: BTreeMap<u64, Waiting<W>>,
    newest_first: bool,
}

impl<W> Default for Line<W> {
    fn default() -> Self {
        Self { arrivals: Arrivals::default(), waiting: BTreeMap::new(), newest_first: false }
    }
}

impl<W> Line<W> {
    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Whether the newest goes first now.
    pub(super) fn newest_first(&mut self, typed: bool, now: Instant) -> bool {
        self.newest_first = typed
            && self.waiting.first_key_value().is_some_and(|(_, oldest)| {
                self.newest_first || now.saturating_duration_since(oldest.since) > KEYSTROKE
            });
        self.newest_first
    }

    pub(super) fn insert(&mut self, number: u64, waiting: Waiting<W>) {
        self.waiting.insert(number, waiting);
    }

    pub(super) fn remove(&mut self, number: u64) -> Option<Waiting<W>> {
        self.waiting.remove(&number)
    }

    /// Whose turn it is.
    pub(super) fn pop_next(&mut self) -> Option<Waiting<W>> {
        let next =
            if self.newest_first { self.waiting.pop_last() } else { self.waiting.pop_first() };
        Some(next?.1)
    }

    /// The one whose turn would come last, by its number.
    pub(super) fn last(&self) -> Option<u64> {
        let last = if self.newest_first {
            self.waiting.first_key_value()
        } else {
            self.waiting.last_key_value()
        };
        Some(*last?.0)
    }
}
