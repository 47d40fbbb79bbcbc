//! The in-process tier (L1): places with a few entries each, bounded in bytes.

use std::{sync::Arc, time::Duration};

use quick_cache::{Weighter, sync::Cache};

use crate::{
    admission::Skip,
    entry::Entry,
    fit::{Fit, Rule, Unfit, fit},
    question::{Around, Place, Question},
    validity::{Standing, Validity},
};

/// An entry that answers.
#[derive(Debug, Clone)]
pub struct Found {
    /// The entry.
    pub entry: Arc<Entry>,
    /// How it answers.
    pub fit: Fit,
    /// How old it is.
    pub standing: Standing,
}

/// An entry that was looked at.
#[derive(Debug, Clone)]
pub struct Considered {
    /// The entry.
    pub entry: Arc<Entry>,
    /// How it answers, or why it does not.
    pub fit: Result<Fit, Unfit>,
    /// How old it is.
    pub standing: Standing,
}

/// Entries of one place, the newest first.
type Bucket = Arc<[Arc<Entry>]>;

/// Entries of one place: a line that somebody types has about as many keystrokes.
const BUCKET_MAX: usize = 32;
/// The table's slot with its key, and the bucket's own header.
const BUCKET_BYTES: usize = 96;
/// A pointer to an entry, and the counters before it.
const POINTER_BYTES: usize = 24;

#[derive(Clone)]
struct ByBytes;

impl Weighter<Place, Bucket> for ByBytes {
    fn weight(&self, _: &Place, bucket: &Bucket) -> u64 {
        let entries: usize = bucket.iter().map(|entry| entry.bytes() + POINTER_BYTES).sum();
        (BUCKET_BYTES + entries) as u64
    }
}

/// The in-process cache. Shared between threads by reference.
pub struct Memory {
    buckets: Cache<Place, Bucket, ByBytes>,
    entry_bytes_max: usize,
    validity: Arc<Validity>,
}

/// What of an entry's age is content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// Fresh entries, by these rules.
    Fresh([bool; Rule::ALL.len()]),
    /// Whatever there is, up to that age, where nothing else answers.
    Anything(Duration),
}

impl Memory {
    /// A cache of at most `bytes` bytes.
    #[must_use]
    pub fn new(bytes: usize, validity: Arc<Validity>) -> Self {
        // Half a kilobyte an entry, and a few entries a place: the estimate only sizes the table.
        let estimate = (bytes / 1024).max(16);
        Self {
            buckets: Cache::with_weighter(estimate, bytes as u64, ByBytes),
            entry_bytes_max: bytes / 16,
            validity,
        }
    }

    /// The best entry that answers, by the surest rule, the newest where several do.
    #[must_use]
    pub fn find(
        &self,
        (question, around): (&Question, Around<'_>),
        need: Need,
        now: Duration,
    ) -> Option<Found> {
        question.sites(around.prefix).find_map(|site| {
            let bucket = self.buckets.get(&site.place)?;
            best(bucket.iter(), need, (&self.validity, now), |entry| {
                fit((&entry.asked, &entry.text), (question, around), &site)
            })
        })
    }

    /// Stores an entry at its places, instead of an older one of the same cursor.
    ///
    /// # Errors
    /// Why it was not stored.
    pub fn put(&self, places: &[Place], entry: &Arc<Entry>, now: Duration) -> Result<(), Skip> {
        if entry.bytes() > self.entry_bytes_max {
            return Err(Skip::TooLarge);
        }
        if self.validity.judge(entry, now) == Standing::Gone {
            return Err(Skip::Purged);
        }
        for place in places {
            let old = self.buckets.get(place);
            let others = old.iter().flat_map(|bucket| bucket.iter());
            let others = others.filter(|other| !other.is_of(&entry.asked)).take(BUCKET_MAX - 1);
            let bucket = std::iter::once(entry).chain(others).cloned().collect();
            self.buckets.insert(*place, bucket);
        }
        Ok(())
    }

    /// Drops what must not be served any more, so that it is not only hidden; how many entries that
    /// were.
    pub fn sweep(&self, now: Duration) -> usize {
        let mut dropped = 0;
        for (place, bucket) in self.buckets.iter() {
            let stays = |entry: &&Arc<Entry>| self.validity.judge(entry, now) != Standing::Gone;
            let left: Bucket = bucket.iter().filter(stays).cloned().collect();
            dropped += bucket.len() - left.len();
            if left.is_empty() {
                self.buckets.remove(&place);
            } else if left.len() < bucket.len() {
                self.buckets.insert(place, left);
            }
        }
        dropped
    }

    /// Every entry that lies where a request looks, the cursor's own line first, with how it
    /// answers or why it does not.
    #[must_use]
    pub fn explain(
        &self,
        (question, around): (&Question, Around<'_>),
        now: Duration,
    ) -> Vec<Considered> {
        let mut considered = Vec::new();
        for site in question.sites(around.prefix) {
            let bucket = self.buckets.get(&site.place);
            considered.extend(bucket.iter().flat_map(|bucket| bucket.iter()).map(|entry| {
                Considered {
                    fit: fit((&entry.asked, &entry.text), (question, around), &site),
                    standing: self.validity.judge(entry, now),
                    entry: Arc::clone(entry),
                }
            }));
        }
        considered
    }

    /// Everything that is held.
    pub fn entries(&self) -> impl Iterator<Item = (Place, Arc<Entry>)> {
        // The oldest of a place first, so that whoever stores them again ends with their order.
        let each = |(place, bucket): (Place, Bucket)| {
            let entries: Vec<_> = bucket.iter().rev().cloned().collect();
            entries.into_iter().map(move |entry| (place, entry))
        };
        self.buckets.iter().flat_map(each)
    }

    /// Bytes held, as they are counted against the limit.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.buckets.weight()
    }

    /// Places held.
    #[must_use]
    pub fn places(&self) -> usize {
        self.buckets.len()
    }
}

/// The best of the entries at one place, whichever tier they come from.
pub fn best<'e>(
    entries: impl Iterator<Item = &'e Arc<Entry>>,
    need: Need,
    (validity, now): (&Validity, Duration),
    fit: impl Fn(&Entry) -> Result<Fit, Unfit>,
) -> Option<Found> {
    let found = entries.filter_map(|entry| {
        // First what is cheap: most entries of a place have another text.
        let fit = fit(entry).ok()?;
        let standing = validity.judge(entry, now);
        let served = match (standing, need) {
            (Standing::Gone, _) | (Standing::Stale(_), Need::Fresh(_)) => false,
            (Standing::Stale(age), Need::Anything(limit)) => age <= limit,
            (Standing::Fresh(_), Need::Anything(_)) => true,
            (Standing::Fresh(_), Need::Fresh(rules)) => rules[fit.rule as usize],
        };
        served.then(|| Found { entry: Arc::clone(entry), fit, standing })
    });
    // The first of equals: they come newest first.
    found.min_by_key(|found| found.fit.rule)
}

#[cfg(test)]
mod tests;
