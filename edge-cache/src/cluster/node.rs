//! One node: its connection, its breaker, and how many wait for it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nearhop_admin::clock;
use redis::{Pipeline, Value};
use tokio::{
    sync::Semaphore,
    time::{Instant, timeout_at},
};

use super::{
    connect::{Link, Login},
    settings::Trouble,
    topology::Address,
};
use crate::breaker::{Breaker, Outcome, Verdict};

/// So many calls wait for one node at a time. What an abandoned call sent still waits in the connection,
/// but after three of those the breaker is open.
const WAITING: usize = 512;

pub(crate) struct Node {
    pub(crate) address: Address,
    /// What its certificate must bear, where that is not its host.
    pub(crate) name: Option<String>,
    link: Mutex<Option<Arc<Link>>>,
    breaker: Mutex<Breaker>,
    trouble: Mutex<String>,
    room: Semaphore,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Node {
    pub(crate) fn new(address: Address, name: Option<String>) -> Self {
        Self {
            trouble: Mutex::new(format!("Redis at {address}: not connected yet")),
            address,
            name,
            link: Mutex::default(),
            breaker: Mutex::default(),
            room: Semaphore::new(WAITING),
        }
    }

    /// The open connection, if there is one.
    pub(crate) fn link(&self) -> Option<Arc<Link>> {
        locked(&self.link).clone().filter(|link| !link.is_closed())
    }

    /// Connects anew. Calls that run on the old connection end with it.
    pub(crate) async fn connect(&self, login: &Login) -> bool {
        let made = login.link(&self.address, self.name.as_deref()).await;
        let made = made.map(Arc::new).map_err(|why| *locked(&self.trouble) = why).ok();
        let connected = made.is_some();
        *locked(&self.link) = made;
        connected
    }

    /// Gives this connection up, unless another took its place.
    pub(crate) fn disconnect(&self, link: &Arc<Link>, why: &str) {
        let mut current = locked(&self.link);
        if current.as_ref().is_some_and(|current| Arc::ptr_eq(current, link)) {
            *current = None;
            *locked(&self.trouble) = format!("Redis at {}: {why}", self.address);
        }
    }

    pub(crate) fn is_open(&self) -> bool {
        locked(&self.breaker).is_open()
    }

    /// The last reason for which there was no connection.
    pub(crate) fn trouble(&self) -> String {
        locked(&self.trouble).clone()
    }

    /// Sends commands if the breaker lets them. What the answers say is the caller's to read: it tells the
    /// [`Asked`] whether the shard serves.
    pub(crate) async fn send(
        self: &Arc<Self>,
        commands: &Pipeline,
        deadline: Instant,
    ) -> Result<(Vec<Value>, Asked), Trouble> {
        let asked = self.ask()?;
        let Ok(_room) = self.room.try_acquire() else { return Err(Trouble::Busy) };
        let Some(link) = self.link() else {
            asked.tell(Outcome::Failed);
            return Err(Trouble::Away(self.trouble()));
        };
        match timeout_at(deadline, link.send(commands)).await {
            Ok(Ok(answers)) => Ok((answers, asked)),
            Ok(Err(why)) => {
                asked.tell(Outcome::Failed);
                Err(Trouble::Failed(why))
            }
            Err(_) => {
                asked.tell(Outcome::Failed);
                Err(Trouble::Late)
            }
        }
    }

    /// Asks the breaker.
    pub(crate) fn ask(self: &Arc<Self>) -> Result<Asked, Trouble> {
        match locked(&self.breaker).ask(clock::now()) {
            Verdict::Refused => Err(Trouble::Open),
            verdict => Ok(Asked { node: Arc::clone(self), verdict, told: false }),
        }
    }
}

/// A call that was let through. When its caller goes away, it says so.
pub(crate) struct Asked {
    node: Arc<Node>,
    verdict: Verdict,
    told: bool,
}

impl Asked {
    pub(crate) fn tell(mut self, outcome: Outcome) {
        self.told = true;
        locked(&self.node.breaker).tell(self.verdict, outcome, clock::now());
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        if !self.told {
            locked(&self.node.breaker).tell(self.verdict, Outcome::Unknown, clock::now());
        }
    }
}
