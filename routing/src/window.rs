//! What was seen of late: durations and outcomes over a sliding window of time.
//!
//! A window is cut into ten slots, and its oldest slot is forgotten as a whole: what is added counts
//! for nine tenths of the window at least, and never longer than the window. Memory is bounded
//! whatever the traffic: a slot holds counts, no values. Absent on purpose: averages, which one
//! outlier owns.

use std::time::{Duration, Instant};

const SLOTS: usize = 10;

/// A ring of slots of equal length, the oldest reused for the newest.
#[derive(Debug, Clone)]
pub(crate) struct Slots<T> {
    length: Duration,
    /// The first moment anything was added; slots are counted from there.
    origin: Option<Instant>,
    newest: u64,
    /// Each with the number of the slot it was last used for.
    ring: Vec<(u64, T)>,
}

impl<T: Default> Slots<T> {
    pub(crate) fn new(window: Duration) -> Self {
        // Of no length, all of time would be one slot that never ends.
        let length = (window / 10).max(Duration::from_nanos(1));
        let ring = (0..SLOTS as u64).map(|number| (number, T::default())).collect();
        Self { length, origin: None, newest: 0, ring }
    }

    /// The slot of `now`. Threads read the clock before they take turns, so that `now` may lie a
    /// little before the newest slot: then it is the newest.
    pub(crate) fn at(&mut self, now: Instant) -> &mut T {
        self.origin.get_or_insert(now);
        self.newest = self.number(now);
        let (number, slot) = &mut self.ring[place(self.newest)];
        if *number != self.newest {
            (*number, *slot) = (self.newest, T::default());
        }
        slot
    }

    /// The slots within the window, oldest first.
    pub(crate) fn live(&self, now: Instant) -> impl Iterator<Item = &T> {
        let newest = self.number(now);
        let oldest = (newest + 1).saturating_sub(SLOTS as u64);
        (oldest..=newest)
            .map(|number| (number, &self.ring[place(number)]))
            .filter_map(|(number, (used, slot))| (number == *used).then_some(slot))
    }

    /// As [`Self::live`], after the slot of `now` was begun.
    pub(crate) fn live_mut(&mut self, now: Instant) -> impl Iterator<Item = &mut T> {
        self.at(now);
        let newest = self.newest;
        let oldest = (newest + 1).saturating_sub(SLOTS as u64);
        let (after, until) = self.ring.split_at_mut(place(newest) + 1);
        until
            .iter_mut()
            .chain(after)
            .filter_map(move |(number, slot)| (oldest..=newest).contains(number).then_some(slot))
    }

    /// When the slot of `now` ends.
    pub(crate) fn end(&self, now: Instant) -> Instant {
        let origin = self.origin.unwrap_or(now);
        let slots = u32::try_from(self.number(now) + 1).unwrap_or(u32::MAX);
        origin + self.length.saturating_mul(slots)
    }

    pub(crate) fn clear(&mut self) {
        for (_, slot) in &mut self.ring {
            *slot = T::default();
        }
    }

    fn number(&self, now: Instant) -> u64 {
        let passed =
            self.origin.map_or(Duration::ZERO, |origin| now.saturating_duration_since(origin));
        let number =
            u64::try_from(passed.as_nanos() / self.length.as_nanos()).unwrap_or(u64::MAX - 1);
        number.max(self.newest)
    }
}

fn place(number: u64) -> usize {
    usize::try_from(number % SLOTS as u64).expect("it is under ten")
}

/// The upper edges of the buckets in microseconds: from 1 ms to over 5 min, none more than a tenth
/// above the one before it.
const EDGES: [u64; 134] = {
    let mut edges = [1000; 134];
    let mut at = 1;
    while at < edges.len() {
        edges[at] = edges[at - 1] * 11 / 10;
        at += 1;
    }
    edges
};
const _: () = assert!(EDGES[EDGES.len() - 1] >= 300_000_000, "five minutes must have a bucket");

#[derive(Debug, Clone)]
struct Histogram {
    total: u64,
    buckets: [u32; EDGES.len()],
}

impl Default for Histogram {
    fn default() -> Self {
        Self { total: 0, buckets: [0; EDGES.len()] }
    }
}

/// Durations over a sliding window, for quantiles of them.
///
/// A quantile is wrong by one bucket at most, a tenth of its value between 1 ms and 5 min. What is
/// shorter or longer counts as the first or last of these.
#[derive(Debug, Clone)]
pub struct Quantiles {
    slots: Slots<Histogram>,
}

impl Quantiles {
    /// Nothing seen yet.
    #[must_use]
    pub fn new(window: Duration) -> Self {
        Self { slots: Slots::new(window) }
    }

    /// Something took so long.
    pub fn add(&mut self, took: Duration, now: Instant) {
        let took = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let bucket = EDGES.partition_point(|edge| *edge < took).min(EDGES.len() - 1);
        let slot = self.slots.at(now);
        slot.total += 1;
        slot.buckets[bucket] = slot.buckets[bucket].saturating_add(1);
    }

    /// How many are in the window.
    #[must_use]
    pub fn count(&self, now: Instant) -> u64 {
        self.slots.live(now).map(|slot| slot.total).sum()
    }

    /// What `share` of them, 0 to 1, did not exceed; `None` where there are none.
    #[must_use]
    pub fn quantile(&self, share: f64, now: Instant) -> Option<Duration> {
        let mut buckets = [0; EDGES.len()];
        for slot in self.slots.live(now) {
            for (sum, count) in buckets.iter_mut().zip(&slot.buckets) {
                *sum += u64::from(*count);
            }
        }
        let mut rank = rank(share, buckets.iter().sum())?;
        let mut below = 0;
        for (edge, count) in EDGES.into_iter().zip(buckets) {
            if rank <= count {
                return Some(within(below, edge, (rank, count)));
            }
            rank -= count;
            below = edge;
        }
        None
    }
}

/// The nearest rank, from 1.
fn rank(share: f64, count: u64) -> Option<u64> {
    #[expect(
        clippy::cast_possible_truncation,
        reason = "a share of a count, clamped to it below; a negative or no number becomes 0"
    )]
    let rank = (share * count as f64).ceil() as u64;
    (count > 0).then(|| rank.clamp(1, count.max(1)))
}

/// Values of a bucket are taken to lie evenly in it: without that, all of them would seem to be its
/// upper edge, and a limit be passed a tenth too soon.
fn within(below: u64, edge: u64, (rank, count): (u64, u64)) -> Duration {
    let width = u128::from(edge - below) * 1000;
    let into = width * u128::from(2 * rank - 1) / u128::from(2 * count);
    Duration::from_micros(below) + Duration::from_nanos(u64::try_from(into).unwrap_or(u64::MAX))
}

#[derive(Debug, Clone, Default)]
struct Tally {
    good: u64,
    bad: u64,
}

/// Good and bad outcomes over a sliding window.
#[derive(Debug, Clone)]
pub struct Counts {
    slots: Slots<Tally>,
}

impl Counts {
    /// Nothing seen yet.
    #[must_use]
    pub fn new(window: Duration) -> Self {
        Self { slots: Slots::new(window) }
    }

    /// One more.
    pub fn add(&mut self, bad: bool, now: Instant) {
        let slot = self.slots.at(now);
        if bad {
            slot.bad += 1;
        } else {
            slot.good += 1;
        }
    }

    /// Good and bad ones in the window.
    #[must_use]
    pub fn totals(&self, now: Instant) -> (u64, u64) {
        self.slots.live(now).fold((0, 0), |(good, bad), slot| (good + slot.good, bad + slot.bad))
    }

    /// Forgets all of them.
    pub fn clear(&mut self) {
        self.slots.clear();
    }
}

#[cfg(test)]
mod tests;
