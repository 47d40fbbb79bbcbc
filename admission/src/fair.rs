//! Whose turn it is: a bounded number of places, shared between tenants.
//!
//! While places are free everybody enters at once. Beyond, requests wait, and a place that gets
//! free goes to the tenant that holds fewest: a tenant that floods waits behind itself, whatever
//! order its requests came in. Inside a tenant the earlier class goes first, then the earlier
//! request. Who waits is bounded, and where the bound is reached the longest queue gives up its
//! last: a flood cannot keep others from waiting either.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use tokio::{sync::oneshot, time::timeout_at};

/// Why there is no place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoPlace {
    /// Too many wait.
    Full,
    /// None got free in time.
    Late,
}

/// The order inside a tenant: class, then arrival.
type Turn = (u8, u64);

/// Who holds and who waits. Pure: what a waiter is, its caller decides.
#[derive(Debug)]
struct Shares<W> {
    places: usize,
    waiting_max: usize,
    held: usize,
    waiting: usize,
    next: u64,
    tenants: HashMap<String, Share<W>>,
}

#[derive(Debug)]
struct Share<W> {
    held: usize,
    queue: BTreeMap<Turn, W>,
}

/// What comes of asking for a place.
#[derive(Debug, PartialEq, Eq)]
enum Asked<W> {
    Entered,
    /// It waits; who gave up its turn for it, if somebody had to.
    Waits(Turn, Option<W>),
    /// It is itself the last of the longest queue.
    Full(W),
}

impl<W> Shares<W> {
    fn new(places: usize, waiting_max: usize) -> Self {
        Self { places, waiting_max, held: 0, waiting: 0, next: 0, tenants: HashMap::new() }
    }

    fn share(&mut self, tenant: &str) -> &mut Share<W> {
        if !self.tenants.contains_key(tenant) {
            let share = Share { held: 0, queue: BTreeMap::new() };
            self.tenants.insert(tenant.to_owned(), share);
        }
        self.tenants.get_mut(tenant).expect("it was just put in")
    }

    fn ask(&mut self, tenant: &str, class: u8, waiter: W) -> Asked<W> {
        if self.held < self.places && self.waiting == 0 {
            self.held += 1;
            self.share(tenant).held += 1;
            return Asked::Entered;
        }
        let turn = (class, self.next);
        self.next += 1;
        self.share(tenant).queue.insert(turn, waiter);
        self.waiting += 1;
        let mut gave_up = None;
        if self.waiting > self.waiting_max {
            let longest = self.tenants.iter_mut().max_by_key(|(_, share)| share.queue.len());
            let (loser, share) = longest.expect("somebody waits");
            let own = loser == tenant;
            let (last, waiter) = share.queue.pop_last().expect("the longest queue is not empty");
            self.waiting -= 1;
            if own && last == turn {
                self.forget(tenant);
                return Asked::Full(waiter);
            }
            gave_up = Some(waiter);
        }
        Asked::Waits(turn, gave_up)
    }

    /// A waiter does not want its turn any more.
    fn leave(&mut self, tenant: &str, turn: Turn) {
        if let Some(share) = self.tenants.get_mut(tenant)
            && share.queue.remove(&turn).is_some()
        {
            self.waiting -= 1;
        }
        self.forget(tenant);
    }

    /// A place of `tenant` is free again.
    fn release(&mut self, tenant: &str) {
        self.held -= 1;
        if let Some(share) = self.tenants.get_mut(tenant) {
            share.held -= 1;
        }
        self.forget(tenant);
    }

    /// Who enters next, where a place is free; that one holds it now.
    fn next(&mut self) -> Option<(String, W)> {
        if self.held >= self.places || self.waiting == 0 {
            return None;
        }
        let fewest = self
            .tenants
            .iter_mut()
            .filter_map(|(tenant, share)| {
                let first = share.queue.first_key_value()?.0.1;
                Some(((share.held, first), tenant, share))
            })
            .min_by_key(|(rank, _, _)| *rank);
        let (_, tenant, share) = fewest?;
        let (_, waiter) = share.queue.pop_first()?;
        share.held += 1;
        self.held += 1;
        self.waiting -= 1;
        Some((tenant.clone(), waiter))
    }

    fn forget(&mut self, tenant: &str) {
        let idle = |share: &Share<W>| share.held == 0 && share.queue.is_empty();
        if self.tenants.get(tenant).is_some_and(idle) {
            self.tenants.remove(tenant);
        }
    }
}

type Waiter = oneshot::Sender<Result<Permit, NoPlace>>;

/// Places, and who waits for them.
#[derive(Debug, Clone)]
pub struct Gate(Arc<Mutex<Shares<Waiter>>>);

/// A place, given back when dropped.
#[derive(Debug)]
pub struct Permit {
    gate: Gate,
    tenant: String,
    /// Whether its place is still to be given back.
    held: bool,
}

impl Gate {
    /// So many places, for which so many may wait.
    #[must_use]
    pub fn new(places: usize, waiting_max: usize) -> Self {
        Self(Arc::new(Mutex::new(Shares::new(places, waiting_max))))
    }

    fn shares<R>(&self, act: impl FnOnce(&mut Shares<Waiter>) -> R) -> R {
        // Nothing in here can panic half-way.
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Changes the number of places, and of those that may wait. Those that are held stay held.
    pub fn resize(&self, places: usize, waiting_max: usize) {
        let changed = self.shares(|shares| {
            shares.waiting_max = waiting_max;
            std::mem::replace(&mut shares.places, places) != places
        });
        if changed {
            self.admit();
        }
    }

    /// Places, taken or not.
    #[must_use]
    pub fn places(&self) -> usize {
        self.shares(|shares| shares.places)
    }

    /// Requests that wait.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.shares(|shares| shares.waiting)
    }

    /// A place for a request of `tenant`, until `deadline`. `class` 0 goes first inside a tenant.
    ///
    /// # Errors
    /// [`NoPlace`].
    pub async fn enter(
        &self,
        tenant: &str,
        class: u8,
        deadline: Instant,
    ) -> Result<Permit, NoPlace> {
        let (sender, receiver) = oneshot::channel();
        let turn = match self.shares(|shares| shares.ask(tenant, class, sender)) {
            Asked::Entered => return Ok(self.permit(tenant)),
            Asked::Full(_) => return Err(NoPlace::Full),
            Asked::Waits(turn, gave_up) => {
                if let Some(gave_up) = gave_up {
                    // It may have gone away meanwhile.
                    let _ = gave_up.send(Err(NoPlace::Full));
                }
                turn
            }
        };
        // However this ends, the turn is given up; a permit that was sent meanwhile is dropped
        // with the receiver, which gives its place back.
        let _turn = Leaving { gate: self, tenant, turn };
        match timeout_at(deadline.into(), receiver).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => Err(NoPlace::Full),
            Err(_) => Err(NoPlace::Late),
        }
    }

    fn permit(&self, tenant: &str) -> Permit {
        Permit { gate: self.clone(), tenant: tenant.to_owned(), held: true }
    }

    /// Lets those in whose turn it is.
    fn admit(&self) {
        while let Some((tenant, waiter)) = self.shares(Shares::next) {
            let permit = Permit { gate: self.clone(), tenant, held: true };
            if let Err(Ok(mut permit)) = waiter.send(Ok(permit)) {
                // It has gone away; its place is the next one's. Given back here: dropping the
                // permit would come back to this loop, once for each that has gone.
                permit.held = false;
                self.shares(|shares| shares.release(&permit.tenant));
            }
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if self.held {
            self.gate.shares(|shares| shares.release(&self.tenant));
            self.gate.admit();
        }
    }
}

struct Leaving<'a> {
    gate: &'a Gate,
    tenant: &'a str,
    turn: Turn,
}

impl Drop for Leaving<'_> {
    fn drop(&mut self) {
        self.gate.shares(|shares| shares.leave(self.tenant, self.turn));
    }
}

#[cfg(test)]
mod tests;
