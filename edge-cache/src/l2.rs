//! The shared tier (L2): the same entries in Redis Cluster, sealed.
//!
//! An entry lies at its places, as in the process, eight to a place. What is read is judged by the
//! same rules; a value that does not open is none. Nothing here is waited for without a limit, and
//! nothing depends on it.

mod purges;

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use nearhop_admin::clock;
use quick_cache::sync::Cache;
use tokio::sync::{Notify, mpsc};

pub use self::purges::{Applied, Published};
use crate::{
    cluster::{self, Cluster, Tenant, Trouble},
    digest::Digest,
    entry::Entry,
    fit::fit,
    memory::{Found, Need, best},
    pack::{pack, unpack},
    question::{Around, Place, Question},
    seal::Key,
    tags::Purge,
    validity::{Standing, Validity},
};

/// The shared tier of one edge.
pub struct Shared {
    cluster: Cluster,
    secret: Key,
    /// How long Redis keeps an entry.
    keep: Duration,
    validity: Arc<Validity>,
    /// Each tenant's key, as Redis has it.
    keys: Cache<Tenant, Arc<Keys>>,
    writes: mpsc::Sender<Write>,
    /// What is not in the common log yet.
    unpublished: Mutex<Vec<Purge>>,
    /// The log may have grown.
    look: Notify,
}

/// A tenant's keys: one for places, one for values.
struct Keys {
    places: Key,
    values: Key,
    /// When Redis said so: it may have dropped them since.
    read: Instant,
}

/// How long a tenant's keys are believed to be those in Redis.
const KEYS_TTL: Duration = Duration::from_secs(60);

/// An entry on its way to Redis.
pub struct Write {
    places: Vec<Place>,
    entry: Arc<Entry>,
}

/// Tenants whose keys are remembered.
const KEYS_MAX: usize = 10_000;
/// Entries that wait to be written; more are dropped.
const WRITES_MAX: usize = 1024;

impl Shared {
    /// The tier over a cluster; with what has to be written, which [`Shared::write_behind`] takes.
    #[must_use]
    pub fn new(
        cluster: Cluster,
        secret: &[u8],
        keep: Duration,
        validity: Arc<Validity>,
    ) -> (Self, mpsc::Receiver<Write>) {
        let (writes, written) = mpsc::channel(WRITES_MAX);
        let shared = Self {
            cluster,
            secret: Key::of_secret(secret),
            keep,
            validity,
            keys: Cache::new(KEYS_MAX),
            writes,
            unpublished: Mutex::default(),
            look: Notify::new(),
        };
        (shared, written)
    }

    /// The cluster, for who wants to know how it is.
    #[must_use]
    pub fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    /// The best entry that answers, and the places where it belongs in the process.
    ///
    /// # Errors
    /// No answer: go on without.
    pub async fn find(
        &self,
        (question, around): (&Question, Around<'_>),
        need: Need,
        now: Duration,
    ) -> Result<Option<Found>, Trouble> {
        let tenant = tenant(question);
        let Some(keys) = self.keys(tenant, Create::No).await? else { return Ok(None) };
        let mut missed = None;
        // The surest place first: a text of one line has one of its own.
        for site in question.own_sites(around.prefix) {
            let place = keys.place(tenant, site.place);
            let sealed = match self.cluster.bucket(&place).await {
                Ok(sealed) => sealed,
                Err(trouble) => {
                    missed = Some(trouble);
                    continue;
                }
            };
            let entries: Vec<Arc<Entry>> = sealed
                .iter()
                .filter_map(|sealed| keys.open(sealed, &place))
                .map(Arc::new)
                .collect();
            let newest = entries.iter().map(|entry| entry.generation()).max();
            if newest > Some(self.validity.generation()) {
                // Somebody knows of purges that we do not.
                self.look.notify_one();
            }
            let found = best(entries.iter(), need, (&self.validity, now), |entry| {
                fit((&entry.asked, &entry.text), (question, around), &site)
            });
            if found.is_some() {
                return Ok(found);
            }
        }
        missed.map_or(Ok(None), Err)
    }

    /// Has an entry written, later; `false` where too many wait already.
    #[must_use]
    pub fn put(&self, places: &[Place], entry: &Arc<Entry>) -> bool {
        let write = Write { places: places.to_vec(), entry: Arc::clone(entry) };
        self.writes.try_send(write).is_ok()
    }

    /// Writes what is to be written, some at once, for as long as anybody writes; says of each how it
    /// went.
    pub async fn write_behind(
        self: &Arc<Self>,
        mut writes: mpsc::Receiver<Write>,
        done: impl Fn(Result<(), Trouble>) + Send + Sync + 'static,
    ) {
        const AT_ONCE: usize = 16;
        let (slots, done) = (Arc::new(tokio::sync::Semaphore::new(AT_ONCE)), Arc::new(done));
        while let Some(write) = writes.recv().await {
            let Ok(slot) = Arc::clone(&slots).acquire_owned().await else { return };
            let (shared, done) = (Arc::clone(self), Arc::clone(&done));
            tokio::spawn(async move {
                done(shared.write(write).await);
                drop(slot);
            });
        }
    }

    /// Adds what was used of a limit in a minute, and gives what all edges have used in it.
    ///
    /// # Errors
    /// No answer: what was added may count or not.
    pub async fn count(
        &self,
        owner: &[&str],
        minute: u64,
        used: [u64; 2],
    ) -> Result<[u64; 2], Trouble> {
        const TTL: Duration = Duration::from_secs(180);
        let mut name = Digest::new("nearhop limits");
        name.list(owner.iter().copied());
        name.number(minute);
        let name = self.secret.name(&name.finish());
        let mut totals = [0; 2];
        for (kind, (total, used)) in (0u8..).zip(totals.iter_mut().zip(used)) {
            let key: Vec<u8> = name.iter().copied().chain([kind]).collect();
            *total = self.cluster.count(&key, used, TTL).await?;
        }
        Ok(totals)
    }

    async fn write(&self, Write { places, entry }: Write) -> Result<(), Trouble> {
        if self.validity.judge(&entry, clock::since_epoch()) == Standing::Gone {
            // Purged while it waited: it would make a new key for a tenant that has none any more.
            return Ok(());
        }
        let tenant = Tenant(entry.tags().tenant.to_le_bytes());
        let keys = self.keys(tenant, Create::Yes).await?;
        let keys = keys.ok_or_else(|| Trouble::Failed("the tenant's key does not open".into()))?;
        let packed = pack(&entry);
        for place in places {
            let place = keys.place(tenant, place);
            let unsealed = || Trouble::Failed("the value cannot be sealed".to_owned());
            let sealed = keys.values.seal(&packed, &place.key).ok_or_else(unsealed)?;
            let field = entry.asked.before[0] ^ entry.asked.lead.bytes().fold(0, u8::wrapping_add);
            self.cluster.put(&place, field % cluster::FIELDS, sealed.into(), self.keep).await?;
        }
        Ok(())
    }

    /// A tenant's keys; `None` where it has none yet and none is to be made, or where they were
    /// sealed with another secret.
    async fn keys(&self, tenant: Tenant, create: Create) -> Result<Option<Arc<Keys>>, Trouble> {
        let now = clock::now();
        if let Some(keys) = self.keys.get(&tenant).filter(|keys| now < keys.read + KEYS_TTL) {
            return Ok(Some(keys));
        }
        let name = key_name(tenant);
        let wrapped = match (self.cluster.get(&name).await?, create) {
            (Some(wrapped), _) => wrapped,
            (None, Create::No) => return Ok(None),
            (None, Create::Yes) => {
                let wrapped = Key::random().and_then(|key| key.wrap(&self.secret, &tenant.0));
                let none = || Trouble::Failed("no random key can be had".to_owned());
                let wrapped = wrapped.ok_or_else(none)?;
                self.cluster.set_if_absent(&name, wrapped.into()).await?
            }
        };
        let keys = Key::unwrap(&wrapped, &self.secret, &tenant.0).map(|key| {
            let (places, values) = (key.derive("places"), key.derive("values"));
            Arc::new(Keys { places, values, read: now })
        });
        if let Some(keys) = &keys {
            self.keys.insert(tenant, Arc::clone(keys));
        }
        Ok(keys)
    }

    fn unpublished<R>(&self, act: impl FnOnce(&mut Vec<Purge>) -> R) -> R {
        // What is in it is whole at every moment.
        act(&mut self.unpublished.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Create {
    Yes,
    No,
}

impl Keys {
    fn place(&self, tenant: Tenant, place: Place) -> cluster::Place {
        cluster::Place { tenant, key: self.places.name(&place.0) }
    }

    fn open(&self, sealed: &[u8], place: &cluster::Place) -> Option<Entry> {
        unpack(&self.values.open(sealed, &place.key)?)
    }
}

fn tenant(question: &Question) -> Tenant {
    Tenant(question.tags.tenant.to_le_bytes())
}

fn key_name(tenant: Tenant) -> String {
    format!("key:{:016x}", u64::from_be_bytes(tenant.0))
}

#[cfg(test)]
mod tests;
