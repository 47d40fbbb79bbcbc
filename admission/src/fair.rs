//! Whose turn it is: a bounded number of places, shared between tenants.
//!
//! While places are free everybody enters at once. Beyond, requests wait, and a place that gets
//! free goes to the tenant that holds fewest: a tenant that floods waits behind itself, whatever
//! order its requests came in. Inside a tenant the earlier class goes first, then the earlier
//! request; of typed ones the later, where they wait for long ([`mod@line`] says why).
//!
//! Nobody waits for nothing. A request whose turn would come too late, by how fast places become
//! free and who goes before it, is refused at once and told when to come again; one that has too
//! little time left when its turn comes gives it up. So the places always work on answers that
//! somebody still waits for, however many ask. How many wait is bounded as well, and where the
//! bound is reached the tenant that has most gives up its last: a flood cannot keep others from
//! waiting either.
//!
//! A free place is given whatever a request needs. Nobody else wants it, and needs are learned from
//! those that were served: were all refused because pods have become slow, nobody would ever see
//! that they are fast again.
//!
//! Absent on purpose: a clock in decisions, and any promise. Who waits may be overtaken, by an
//! earlier class or another tenant's fair share, and is then told so when its time is over.

mod line;
mod pace;
mod shares;

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use nearhop_admin::clock;
use tokio::{sync::oneshot, time::timeout_at};

use self::shares::{Asked, Next, Shares, Shed, Turn, Wish};

/// Why there is no place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoPlace {
    /// Too many wait, or its turn would come too late.
    Full {
        /// When one like it would be served, as places become free now.
        retry_after: Duration,
    },
    /// None got free in time.
    Late,
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
        let now = clock::now();
        refuse(self.shares(|shares| shares.resize(places, waiting_max, now)));
        self.admit(now);
    }

    /// Places there are, held or free.
    #[must_use]
    pub fn places(&self) -> usize {
        self.shares(|shares| shares.places)
    }

    /// Requests that wait.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.shares(|shares| shares.waiting)
    }

    /// Places that become free a second while all are taken, as learned of late; 0 where nothing is
    /// known yet.
    #[must_use]
    pub fn rate(&self) -> f64 {
        let now = clock::now();
        self.shares(|shares| shares.rate(now)).unwrap_or_default()
    }

    /// Requests that ask for a place a second, at least. Where they are more than [`Self::rate`],
    /// more comes than is done; [`Self::waiting`] does not say so, since in a flood few wait.
    #[must_use]
    pub fn demand(&self) -> f64 {
        let now = clock::now();
        self.shares(|shares| shares.arrivals.a_second(now))
    }

    /// A place for a request of `tenant` that shall be answered until `deadline`, which usually
    /// `needs` so long from its place on. `class` 0 goes first inside a tenant; it and 1 come from
    /// typing.
    ///
    /// # Errors
    /// [`NoPlace`].
    pub async fn enter(
        &self,
        tenant: &str,
        class: u8,
        deadline: Instant,
        needs: Duration,
    ) -> Result<Permit, NoPlace> {
        let now = clock::now();
        let (sender, receiver) = oneshot::channel();
        // The clock may not reach back as far as what is needed: then it is late now.
        let start_by = deadline.checked_sub(needs).unwrap_or(now);
        let wish = Wish { class, start_by };
        let (asked, shed) = self.shares(|shares| shares.ask(tenant, wish, sender, now));
        refuse(shed);
        let turn = match asked {
            Asked::Entered => return Ok(self.permit(tenant.to_owned())),
            Asked::Full(_, retry_after) => return Err(NoPlace::Full { retry_after }),
            Asked::Late(_) => return Err(NoPlace::Late),
            Asked::Waits(turn) => turn,
        };
        // However this ends, the turn is given up; a permit that was sent meanwhile is dropped
        // with the receiver, which gives its place back.
        let _turn = Leaving { gate: self, tenant, turn };
        match timeout_at(start_by.into(), receiver).await {
            Ok(Ok(answer)) => answer,
            // Its time is over; or nobody will answer, which is the same to it.
            Ok(Err(_)) | Err(_) => Err(NoPlace::Late),
        }
    }

    fn permit(&self, tenant: String) -> Permit {
        Permit { gate: self.clone(), tenant, held: true }
    }

    /// Lets those in whose turn it is.
    fn admit(&self, now: Instant) {
        while let Some(next) = self.shares(|shares| shares.next(now)) {
            match next {
                Next::Enters(tenant, waiter) => {
                    if let Err(Ok(mut permit)) = waiter.send(Ok(self.permit(tenant))) {
                        // It has gone away; its place is the next one's. Given back here: dropping
                        // the permit would come back to this loop, once for each that has gone.
                        permit.held = false;
                        self.shares(|shares| shares.vacate(&permit.tenant));
                    }
                }
                // It may have gone away meanwhile.
                Next::Late(waiter) => drop(waiter.send(Err(NoPlace::Late))),
            }
        }
    }
}

/// Tells those that there is no place for them. They may have gone away meanwhile.
fn refuse(shed: Vec<Shed<Waiter>>) {
    for (waiter, retry_after) in shed {
        drop(waiter.send(Err(NoPlace::Full { retry_after })));
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if self.held {
            let now = clock::now();
            self.gate.shares(|shares| shares.release(&self.tenant, now));
            self.gate.admit(now);
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
        // What waited is dropped outside the lock: it may wake somebody.
        drop(self.gate.shares(|shares| shares.leave(self.tenant, self.turn)));
    }
}

#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;
