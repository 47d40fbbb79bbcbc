//! Generations under way: who may join one, and which request has made an older one pointless.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use nearhop_edge_cache::Place;
use nearhop_wire::Kind;
use tokio::sync::Notify;

use crate::flight::{Asking, Flight, Reader};

/// Generations under way.
#[derive(Default)]
pub(crate) struct Flights {
    under_way: Mutex<HashMap<Place, Vec<Weak<Flight>>>>,
    /// Flights that have landed: one that did while somebody looked has left its answer in the
    /// cache.
    landed: AtomicU64,
    documents: Mutex<HashMap<Document, Waiting>>,
}

/// Whose cursor it is: without session and document, colleagues who share a key would give each
/// other's requests up.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Document {
    pub(crate) tenant: String,
    pub(crate) key: String,
    pub(crate) session: String,
    pub(crate) document: String,
    pub(crate) kind: Kind,
}

struct Waiting {
    /// When it came: an older request never supersedes a newer one.
    arrived: Instant,
    flight: Weak<Flight>,
    superseded: Arc<Notify>,
}

/// What a request found.
pub(crate) enum Boarded {
    /// A flight that was under way.
    Joined(Reader),
    /// None: this is the first reader of a new one, which has to be driven.
    New(Reader),
    /// One has landed meanwhile: its answer is in the cache.
    LookAgain,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What is in it is whole at every moment.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Flights {
    /// How many have landed: to be asked before the cache is.
    pub(crate) fn landed(&self) -> u64 {
        self.landed.load(Ordering::Acquire)
    }

    /// Joins a flight that would answer, or begins one that others may join, at `places`. What is
    /// compared under the lock are digests. `landed` is how many had when the cache was asked;
    /// `None` begins one in any case.
    pub(crate) fn board(
        &self,
        asking: &Asking<'_>,
        places: &[Place],
        landed: Option<u64>,
    ) -> Boarded {
        let mut under_way = locked(&self.under_way);
        let mut candidates = places.iter().filter_map(|place| under_way.get(place)).flatten();
        if let Some(reader) = candidates.find_map(|flight| flight.upgrade()?.join(asking)) {
            return Boarded::Joined(reader);
        }
        if landed.is_some_and(|landed| self.landed() != landed) {
            return Boarded::LookAgain;
        }
        let flight = Flight::new(Some(asking.asked.clone()), asking.terms);
        for place in places {
            under_way.entry(*place).or_default().push(Arc::downgrade(&flight));
        }
        Boarded::New(flight.lead())
    }

    /// A flight is over, or nobody drives it any more.
    pub(crate) fn land(&self, flight: &Arc<Flight>, places: &[Place]) {
        if places.is_empty() {
            return;
        }
        let mut under_way = locked(&self.under_way);
        self.landed.fetch_add(1, Ordering::AcqRel);
        for place in places {
            if let Some(flights) = under_way.get_mut(place) {
                flights.retain(|other| other.strong_count() > 0 && !is(other, flight));
                if flights.is_empty() {
                    under_way.remove(place);
                }
            }
        }
    }

    /// A request of a document waits for a flight. An older one that alone waits for another is
    /// told to give up: its text is not what the user has any more.
    pub(crate) fn wait(
        self: &Arc<Self>,
        document: Document,
        (reader, arrived): (&Reader, Instant),
    ) -> Watched {
        let flight = reader.flight();
        let superseded = reader.superseded();
        let mut documents = locked(&self.documents);
        if documents.get(&document).is_none_or(|waiting| waiting.arrived <= arrived) {
            let (weak, give_up) = (Arc::downgrade(flight), Arc::clone(&superseded));
            let waiting = Waiting { arrived, flight: weak, superseded: give_up };
            let older = documents.insert(document.clone(), waiting);
            drop(documents);
            if let Some(older) = older
                && let Some(old) = older.flight.upgrade()
                && !Arc::ptr_eq(&old, flight)
                && old.readers() == 1
            {
                older.superseded.notify_one();
            }
        }
        Watched { flights: Arc::clone(self), document, superseded }
    }
}

fn is(weak: &Weak<Flight>, flight: &Arc<Flight>) -> bool {
    std::ptr::eq(weak.as_ptr(), Arc::as_ptr(flight))
}

/// A request that can be superseded, until this is dropped.
pub(crate) struct Watched {
    flights: Arc<Flights>,
    document: Document,
    superseded: Arc<Notify>,
}

impl Drop for Watched {
    fn drop(&mut self) {
        let mut documents = locked(&self.flights.documents);
        let own = documents.get(&self.document);
        if own.is_some_and(|waiting| Arc::ptr_eq(&waiting.superseded, &self.superseded)) {
            documents.remove(&self.document);
        }
    }
}
