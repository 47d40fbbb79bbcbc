//! The budget of bytes that requests and answers may hold, over all of them.
//!
//! Each request has its own limits; without a common one, many requests within theirs would still
//! take the memory of the machine.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use prometheus::IntGauge;

/// What is held, and what may be.
#[derive(Debug)]
pub(crate) struct Room {
    held: AtomicUsize,
    gauge: IntGauge,
}

impl Room {
    pub(crate) fn new(gauge: IntGauge) -> Self {
        Self { held: AtomicUsize::new(0), gauge }
    }

    fn change(&self, by: isize) -> usize {
        let before = self.held.fetch_add(by.cast_unsigned(), Ordering::AcqRel);
        let after = before.wrapping_add_signed(by);
        self.gauge.set(i64::try_from(after).unwrap_or(i64::MAX));
        after
    }
}

/// What one request holds; given back when dropped.
#[derive(Debug)]
pub(crate) struct Held {
    budget: Arc<Room>,
    limit: usize,
    bytes: usize,
}

impl Held {
    /// Nothing yet; all requests together may hold `limit` bytes.
    pub(crate) fn new(budget: &Arc<Room>, limit: usize) -> Self {
        Self { budget: Arc::clone(budget), limit, bytes: 0 }
    }

    /// Holds so many more, where there is room.
    pub(crate) fn grow(&mut self, bytes: usize) -> bool {
        self.hold(bytes) <= self.limit || {
            self.bytes -= bytes;
            self.budget.change(-bytes.cast_signed());
            false
        }
    }

    /// Holds so many more, room or not: of an answer that is being received, whose end frees more
    /// than giving it up would. Gives what all hold then.
    pub(crate) fn hold(&mut self, bytes: usize) -> usize {
        self.bytes += bytes;
        self.budget.change(bytes.cast_signed())
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.budget.change(-self.bytes.cast_signed());
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_held_is_within_the_limit_and_all_given_back(sizes in prop::collection::vec(0usize..100, 0..50)) {
            let budget = Arc::new(Room::new(IntGauge::new("held", "held").unwrap()));
            let mut all = Vec::new();
            for size in sizes {
                let before = budget.held.load(Ordering::Acquire);
                let mut held = Held::new(&budget, 500);
                prop_assert_eq!(held.grow(size), before + size <= 500);
                prop_assert!(budget.held.load(Ordering::Acquire) <= 500);
                all.push(held);
            }
            drop(all);
            prop_assert_eq!(budget.held.load(Ordering::Acquire), 0);
        }
    }
}
