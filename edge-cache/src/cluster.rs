//! Redis Cluster, as the cache uses it: bytes in, bytes out, and never anybody's condition for going on.
//!
//! ```text
//!   a call ──▶ entries, log, sweep: which commands, how long
//!                  │
//!                route: the slot's master, at most two redirects
//!                  │
//!                node: breaker ─▶ connection ─▶ answers, or a named Trouble
//!
//!   keeper (one task): connections to every node, the map of slots, dead and paused nodes
//! ```
//!
//! Every call has a limit and ends in an answer or a [`Trouble`]. A call never connects, never waits for a
//! connection and is never queued for later: what cannot be sent now fails now. Each master has a breaker
//! of its own, so that a lost shard costs the others nothing.
//!
//! The servers should say `cluster-require-full-coverage no`, or one lost master stops all of them until
//! its replica is promoted, and need Redis 7 or Valkey. The ACL user needs
//! `~PREFIX:* &PREFIX:* +hvals +hset +get +set +del +unlink +incrby +pexpire +xadd +xrange +publish
//! +subscribe +wait +scan +multi +exec +asking +ping +cluster|nodes`.
//!
//! Absent on purpose: what an entry is, when it is fresh, and reading from replicas, which may answer with
//! what was purged.

mod connect;
mod entries;
mod keeper;
mod log;
mod node;
mod route;
mod settings;
mod slot;
mod sweep;
mod topology;

#[cfg(test)]
pub(crate) mod tests;

use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio::{
    runtime::Handle,
    sync::{Mutex, Notify, watch},
    task::JoinSet,
    time::Instant,
};

pub use entries::{FIELDS, Place, Tenant};
pub use log::{Appended, LogId, Records, Wakeups};
pub use settings::{ClusterError, Password, Settings, Tls, Trouble};
pub use sweep::Swept;

/// A Redis Cluster. Clones are the same one; its connections end with the last.
#[derive(Clone)]
pub struct Cluster {
    inner: Arc<Inner>,
    patience: std::time::Duration,
    _tasks: Arc<JoinSet<()>>,
}

impl std::fmt::Debug for Cluster {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cluster").field("shards", &self.shards()).finish_non_exhaustive()
    }
}

/// What calls and the background tasks share.
pub(crate) struct Inner {
    prefix: String,
    /// The way in, as configured; the cluster may know the same nodes by other addresses.
    seeds: Vec<Arc<node::Node>>,
    login: connect::Login,
    map: ArcSwap<keeper::Map>,
    /// Something looks wrong: look now.
    nudge: Notify,
    appender: Mutex<log::Appender>,
    wake: watch::Sender<()>,
}

/// One master, for the operator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shard {
    /// Its address.
    pub address: String,
    /// How many of the 16,384 slots are its.
    pub slots: usize,
    /// Is there a connection?
    pub connected: bool,
    /// Is its breaker open?
    pub open: bool,
}

impl Cluster {
    /// Begins to connect, in the background, and goes on for as long as it exists. Redis may be away.
    ///
    /// # Errors
    ///
    /// Settings that can never work, or no runtime around this call.
    pub fn new(settings: &Settings) -> Result<Self, ClusterError> {
        let runtime = Handle::try_current().map_err(|_none| ClusterError::NoRuntime)?;
        if settings.nodes.is_empty() {
            return Err(ClusterError::NoNodes);
        }
        let prefix = &settings.prefix;
        let odd =
            |char: char| char.is_whitespace() || char.is_control() || "{}*?[]\\".contains(char);
        if prefix.is_empty() || prefix.chars().count() > 64 || prefix.chars().any(odd) {
            return Err(ClusterError::Prefix(settings::bounded(prefix)));
        }
        let inner = Arc::new(Inner {
            prefix: prefix.clone(),
            seeds: settings.nodes.iter().map(seed).collect(),
            login: connect::Login::new(settings)?,
            map: ArcSwap::default(),
            nudge: Notify::new(),
            appender: Mutex::default(),
            wake: watch::channel(()).0,
        });
        let mut tasks = JoinSet::new();
        tasks.spawn_on(keeper::keep(Arc::clone(&inner)), &runtime);
        tasks.spawn_on(log::listen(Arc::clone(&inner)), &runtime);
        Ok(Self { inner, patience: settings.patience, _tasks: Arc::new(tasks) })
    }

    /// The masters that are known.
    #[must_use]
    pub fn shards(&self) -> Vec<Shard> {
        let map = self.inner.map.load();
        let masters = map.masters();
        let shard = |(node, slots): (&Arc<node::Node>, usize)| Shard {
            address: node.address.to_string(),
            slots,
            connected: node.link().is_some(),
            open: node.is_open(),
        };
        masters.into_iter().map(shard).collect()
    }

    /// Why some node is not connected, in words for the operator. None while all are.
    #[must_use]
    pub fn problem(&self) -> Option<String> {
        self.inner.problem()
    }

    fn deadline(&self) -> Instant {
        Instant::from_std(nearhop_admin::clock::now() + self.patience)
    }
}

impl Inner {
    fn problem(&self) -> Option<String> {
        let map = self.map.load();
        if map.nodes.is_empty() {
            return self.seeds.first().map(|node| node.trouble());
        }
        map.nodes.iter().find(|node| node.link().is_none()).map(|node| node.trouble())
    }
}

fn seed((host, port): &(String, u16)) -> Arc<node::Node> {
    let address = topology::Address { host: host.clone(), port: *port };
    Arc::new(node::Node::new(address, None))
}
