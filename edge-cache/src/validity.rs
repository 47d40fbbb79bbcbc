//! How long an entry may be served: its age, what was purged, and the session it was asked in.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use quick_cache::sync::Cache;

use crate::{
    entry::{Born, Entry},
    tags::{Generation, Purge, Purges, Tags},
};

/// What may be done with an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It may be served for that much longer.
    Fresh(Duration),
    /// It is that old: past its time, and of use only where nothing else answers.
    Stale(Duration),
    /// It must not be served any more, ever.
    Gone,
}

/// Judges entries. Shared by all tiers of a process.
#[derive(Debug)]
pub struct Validity {
    ttl: Duration,
    purges: Mutex<Purges>,
    /// When each session was last heard of.
    sessions: Cache<u64, Duration>,
}

/// An entry of a session that was idle for so long is not served (the spec's session cache).
pub const SESSION_IDLE_MAX: Duration = Duration::from_secs(30 * 60);
/// Sessions that are remembered; one that is forgotten counts from its entries' own age.
const SESSIONS_MAX: usize = 100_000;

impl Validity {
    /// Entries are fresh for `ttl`.
    #[must_use]
    pub fn new(ttl: Duration) -> Self {
        Self { ttl, purges: Mutex::default(), sessions: Cache::new(SESSIONS_MAX) }
    }

    fn purges(&self) -> MutexGuard<'_, Purges> {
        // What is in it is whole at every moment.
        self.purges.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A request of that session came.
    pub fn heard_of(&self, tags: &Tags, now: Duration) {
        if tags.session != 0 {
            self.sessions.insert(tags.session, now);
        }
    }

    /// The log of purges as it is now.
    pub fn generation(&self) -> Generation {
        self.purges().latest()
    }

    /// Takes a purge of this process, which is the latest that it knows of.
    pub fn purge(&self, purge: Purge, now: Duration) -> Generation {
        self.purges().take_own(purge, now)
    }

    /// Counts on from there.
    pub fn reached(&self, generation: Generation) {
        self.purges().reached(generation);
    }

    /// Takes a purge of the common log.
    pub fn learn(&self, purge: Purge, generation: Generation, now: Duration) {
        self.purges().take(purge, generation, now);
    }

    /// Forgets purges that no entry can be older than, which is never served past `kept`.
    pub fn forget(&self, kept: Duration, now: Duration) {
        self.purges().forget(kept, now);
    }

    /// What may be done with an entry now.
    #[must_use]
    pub fn judge(&self, entry: &Entry, now: Duration) -> Standing {
        self.standing(&entry.born, self.ttl, now)
    }

    /// What may be done with what was made then, and is fresh for `ttl`.
    pub(crate) fn standing(&self, born: &Born, ttl: Duration, now: Duration) -> Standing {
        if self.purges().cover(&born.tags, born.generation) {
            return Standing::Gone;
        }
        if born.tags.session != 0 {
            let heard = self.sessions.get(&born.tags.session).unwrap_or_default().max(born.stored);
            if now.saturating_sub(heard) > SESSION_IDLE_MAX {
                return Standing::Gone;
            }
        }
        let age = now.saturating_sub(born.stored);
        match ttl.checked_sub(age) {
            Some(left) if !left.is_zero() => Standing::Fresh(left),
            _ => Standing::Stale(age),
        }
    }
}
