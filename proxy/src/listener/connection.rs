//! One client connection, as its requests and its stream see it.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr, SocketAddr},
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use nearhop_admin::clock;
use tokio::sync::Notify;

use crate::metrics::EdgeMetrics;

/// Where in a request a connection is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Between two requests: the next byte begins a header.
    Idle,
    /// In a header. A new connection is at once: it was opened to ask something.
    Header,
    /// Past it: requests have their own deadlines.
    Open,
}

/// A client connection.
#[derive(Debug)]
pub(crate) struct Connection {
    /// The client, behind a trusted load balancer the one that it names.
    pub(crate) client: SocketAddr,
    peer: OnceLock<String>,
    opened: Instant,
    phase: AtomicU8,
    corked: AtomicBool,
    resets: Resets,
    ended: Notify,
    why: OnceLock<&'static str>,
    metrics: EdgeMetrics,
    _place: Place,
}

impl Connection {
    pub(crate) fn new(client: SocketAddr, place: Place, metrics: EdgeMetrics) -> Self {
        metrics.connections.inc();
        Self {
            client,
            peer: OnceLock::new(),
            opened: clock::now(),
            phase: AtomicU8::new(Phase::Header as u8),
            corked: AtomicBool::new(false),
            resets: Resets::default(),
            ended: Notify::new(),
            why: OnceLock::new(),
            metrics,
            _place: place,
        }
    }

    pub(super) fn identify(&self, peer: String) {
        // Set once, before the first request.
        let _ = self.peer.set(peer);
    }

    /// The name of the edge at the other end, where its certificate said so.
    pub(crate) fn peer(&self) -> Option<&str> {
        self.peer.get().map(String::as_str)
    }

    pub(crate) fn phase(&self) -> Phase {
        match self.phase.load(Ordering::Relaxed) {
            0 => Phase::Idle,
            1 => Phase::Header,
            _ => Phase::Open,
        }
    }

    pub(crate) fn set_phase(&self, phase: Phase) {
        self.phase.store(phase as u8, Ordering::Relaxed);
    }

    /// Whether what is written waits for what follows it. Whoever sets it unsets it, and flushes.
    pub(crate) fn cork(&self, corked: bool) {
        self.corked.store(corked, Ordering::Relaxed);
    }

    pub(super) fn is_corked(&self) -> bool {
        self.corked.load(Ordering::Relaxed)
    }

    /// A request of this connection was given up before its answer. Over `limit` a minute ends the
    /// connection: what a client throws away by the hundred costs us and not it.
    pub(crate) fn given_up(&self, limit: usize, now: Instant) {
        if self.resets.count(now.saturating_duration_since(self.opened)) > limit as u64 {
            self.end("h2_resets");
        }
    }

    /// Ends the connection.
    pub(crate) fn end(&self, why: &'static str) {
        let _ = self.why.set(why);
        self.ended.notify_one();
    }

    /// A limit that the stream itself enforced.
    pub(super) fn broke(&self, why: &'static str) {
        let _ = self.why.set(why);
    }

    pub(super) fn broken_limit(&self) -> Option<&'static str> {
        self.why.get().copied()
    }

    pub(super) async fn ended(&self) -> &'static str {
        self.ended.notified().await;
        self.why.get().copied().unwrap_or("ended")
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.metrics.connections.dec();
    }
}

/// Counts in the current minute of a connection's life: the minute in the upper half, the count in
/// the lower.
#[derive(Debug, Default)]
struct Resets(AtomicU64);

impl Resets {
    fn count(&self, age: Duration) -> u64 {
        let minute = age.as_secs() / 60;
        let next = |packed: u64| match packed >> 32 == minute {
            true => packed + 1,
            false => (minute << 32) + 1,
        };
        let before =
            self.0.fetch_update(Ordering::AcqRel, Ordering::Acquire, |packed| Some(next(packed)));
        next(before.unwrap_or_else(|packed| packed)) & u64::from(u32::MAX)
    }
}

/// Open connections by client address; an IPv6 client is its /64, which it has all of.
#[derive(Debug, Default)]
pub(crate) struct Addresses(Mutex<HashMap<IpAddr, usize>>);

impl Addresses {
    /// A place for one more connection of `address`, where it has fewer than `limit`.
    pub(crate) fn enter(self: &Arc<Self>, address: IpAddr, limit: usize) -> Option<Place> {
        let network = network(address);
        let mut open = self.open();
        let count = open.entry(network).or_default();
        if *count >= limit {
            return None;
        }
        *count += 1;
        drop(open);
        Some(Place { addresses: Arc::clone(self), network })
    }

    fn open(&self) -> std::sync::MutexGuard<'_, HashMap<IpAddr, usize>> {
        // Nothing in here can panic half-way.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => {
            let [a, b, c, d, ..] = v6.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
        v4 => v4,
    }
}

/// A connection's place under its address; given back when dropped.
#[derive(Debug)]
pub(crate) struct Place {
    addresses: Arc<Addresses>,
    network: IpAddr,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut open = self.addresses.open();
        if let Some(count) = open.get_mut(&self.network) {
            *count -= 1;
            if *count == 0 {
                open.remove(&self.network);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_so_many_places_and_gets_them_back() {
        let addresses = Arc::new(Addresses::default());
        let enter = |text: &str| addresses.enter(text.parse().unwrap(), 2);
        let (a, _b) = (enter("10.0.0.1"), enter("10.0.0.1"));
        assert!(enter("10.0.0.1").is_none() && enter("::ffff:10.0.0.1").is_none());
        assert!(enter("10.0.0.2").is_some());
        drop(a);
        assert!(enter("10.0.0.1").is_some());
        let (_c, _d) = (enter("2001:db8:1:2::1"), enter("2001:db8:1:2:ffff::2"));
        assert!(enter("2001:db8:1:2::3").is_none(), "one /64 is one client");
        drop((_c, _d, _b));
        assert!(addresses.open().is_empty());
    }

    #[test]
    fn resets_are_counted_by_the_minute() {
        let resets = Resets::default();
        let at = |seconds| resets.count(Duration::from_secs(seconds));
        assert_eq!((at(0), at(59), at(60), at(61), at(200)), (1, 2, 1, 2, 1));
    }
}
