//! Assembles the server: sockets, threads, the operator's listener, and what is answered with.

use std::{
    future::Future,
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use nearhop_admin::{
    BindError, Check, Checks, Metrics, ServeLimits, ServeTls, admin_router, bind, clock, serve,
    tls::{TlsError, keep_fresh, mutual_acceptor, mutual_files},
};
use nearhop_conf::{ConfigError, Dns, Loaded, MutualTls};
use tokio::net::TcpListener;

use super::{
    DnssecError, ZoneError,
    live::Live,
    operator,
    rate::{Limiter, Rates},
    refresh::{self, Refresh},
    tcp, udp,
};
use crate::ConfiguredError;

/// Why a server cannot start.
#[derive(Debug, thiserror::Error)]
pub enum DnsError {
    /// A name of the zone.
    #[error(transparent)]
    Zone(#[from] ZoneError),
    /// The regions or a database.
    #[error(transparent)]
    Configured(#[from] ConfiguredError),
    /// The file.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// It describes no DNS server.
    #[error("the configuration has no `dns` section; docs/dns.md shows one")]
    NoDns,
    /// A certificate or key cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The zone cannot be signed.
    #[error(transparent)]
    Dnssec(#[from] DnssecError),
    /// A listener could not be opened.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// A listener for queries could not be opened.
    #[error("dns.listen: {address} cannot be used: {error}")]
    Listen {
        /// Which.
        address: SocketAddr,
        /// What the system said.
        error: io::Error,
    },
    /// The operating system refused something else, such as a thread.
    #[error("the DNS server cannot run: {0}")]
    System(#[from] io::Error),
}

/// Where a server listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ready {
    /// For queries.
    pub listen: Vec<SocketAddr>,
    /// For the operator.
    pub admin: SocketAddr,
    /// For other vantage points, where it does.
    pub peer: Option<SocketAddr>,
}

/// A server that is put together; [`Server::run`] serves it.
pub struct Server {
    live: Arc<Live>,
    loaded: Loaded,
    dns: Dns,
    own_secret: [u8; 16],
    sockets: Vec<std::net::UdpSocket>,
    listeners: Vec<std::net::TcpListener>,
    admin: std::net::TcpListener,
    peer: Option<(std::net::TcpListener, MutualTls)>,
    metrics: Metrics,
    ready: Ready,
}

/// Other vantage points and their connections, a few each.
const PEER_CONNECTIONS: usize = 256;

impl Server {
    /// Puts a server together and opens its sockets. Port 0 takes any port that is free by UDP and
    /// TCP.
    ///
    /// # Errors
    /// [`DnsError`].
    pub fn new(loaded: Loaded) -> Result<Self, DnsError> {
        let (one, two) = (random()?.to_le_bytes(), random()?.to_le_bytes());
        let own_secret = std::array::from_fn(|at| if at < 8 { one[at] } else { two[at - 8] });
        let dns = loaded.config.dns.clone().ok_or(DnsError::NoDns)?;
        let state = refresh::state(&loaded.config, &dns, own_secret)?;
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let (mut sockets, mut listeners, mut listen) = (Vec::new(), Vec::new(), Vec::new());
        for address in &dns.listen {
            let named = |error| DnsError::Listen { address: *address, error };
            let listener = std::net::TcpListener::bind(address).map_err(named)?;
            listener.set_nonblocking(true)?;
            let address = listener.local_addr()?;
            let named = |error| DnsError::Listen { address, error };
            for _ in 0..threads {
                sockets.push(udp::bind(address).map_err(named)?);
            }
            listeners.push(listener);
            listen.push(address);
        }
        let admin = bind(dns.admin.listen, "the DNS server's admin listener", "dns.admin.listen")?;
        let open = |peer: &nearhop_conf::Peer| {
            let what = "the DNS server's listener for other vantage points";
            let socket = bind(peer.listen, what, "dns.peer.listen")?;
            Ok::<_, BindError>((socket, peer.tls.clone()))
        };
        let peer = dns.peer.as_ref().map(open).transpose()?;
        let ready = Ready {
            listen,
            admin: admin.local_addr()?,
            peer: peer.as_ref().map(|(socket, _)| socket.local_addr()).transpose()?,
        };
        let metrics = Metrics::default();
        let live = Arc::new(Live::new(state, &metrics));
        Ok(Self { live, loaded, dns, own_secret, sockets, listeners, admin, peer, metrics, ready })
    }

    /// Where it listens.
    #[must_use]
    pub fn ready(&self) -> &Ready {
        &self.ready
    }

    /// Serves until `shutdown` ends. Must run inside a Tokio runtime.
    ///
    /// # Errors
    /// [`DnsError::System`].
    pub async fn run(
        self,
        shutdown: impl Future<Output = ()> + Send + 'static,
    ) -> Result<(), DnsError> {
        let stop = Arc::new(AtomicBool::new(false));
        let mut threads = Vec::new();
        // The system spreads queries over the sockets of an address by their ports, so that each
        // sees a part of a network's.
        let share = self.sockets.len() / self.dns.listen.len().max(1);
        let part = |rate: usize| u32::try_from(rate.div_ceil(share.max(1))).unwrap_or(u32::MAX);
        let rates = Rates {
            answers: part(self.dns.rate_limit.answers),
            nothing: part(self.dns.rate_limit.nothing),
        };
        let live = Arc::clone(&self.live);
        let configured = (self.loaded, self.dns.clone());
        let mut refresh = Refresh::new(live, configured, self.own_secret, &self.metrics);
        refresh.begin();
        for socket in self.sockets {
            let (live, stop) = (Arc::clone(&self.live), Arc::clone(&stop));
            let key = (random()?, random()?);
            let limiter = Limiter::new(rates, key, clock::now());
            let thread = std::thread::Builder::new().name("dns".to_owned());
            threads.push(thread.spawn(move || udp::serve(&socket, &live, limiter, &stop))?);
        }
        let mut tasks = tokio::task::JoinSet::new();
        for listener in self.listeners {
            let listener = TcpListener::from_std(listener)?;
            tasks.spawn(tcp::serve(listener, Arc::clone(&self.live), self.dns.tcp_connections));
        }
        if let Some((socket, tls)) = self.peer {
            let acceptor = Arc::new(ArcSwap::from_pointee(mutual_acceptor(&tls)?));
            let names = tls.names.clone().into();
            let secured = ServeTls { acceptor: Arc::clone(&acceptor), names };
            let limits = limits(PEER_CONNECTIONS);
            let app = operator::votes(Arc::clone(&self.live));
            tasks.spawn(serve(socket, app, limits, Some(secured), std::future::pending()));
            let files = mutual_files(&tls);
            tasks.spawn(keep_fresh(files, acceptor, move || mutual_acceptor(&tls)));
        }
        tasks.spawn(refresh.run());
        let fine: Check = Arc::new(|| Ok(()));
        let checks = Checks { live: Arc::clone(&fine), ready: fine };
        let routes = operator::routes(Arc::clone(&self.live));
        let app = admin_router(checks, self.metrics, self.dns.admin.token.as_ref(), routes);
        serve(self.admin, app, limits(64), None, shutdown).await;
        stop.store(true, Ordering::Relaxed);
        drop(tasks);
        let joined = tokio::task::spawn_blocking(move || {
            threads.into_iter().for_each(|thread| drop(thread.join()));
        });
        // They look five times a second.
        let _ = tokio::time::timeout(Duration::from_secs(1), joined).await;
        Ok(())
    }
}

/// Bits that nobody can guess.
fn random() -> Result<u64, DnsError> {
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes).map_err(|error| io::Error::other(error.to_string()))?;
    Ok(u64::from_le_bytes(bytes))
}

fn limits(connections: usize) -> ServeLimits {
    let (header_read, drain) = (Duration::from_secs(30), Duration::from_secs(1));
    ServeLimits { connections, header_read, drain }
}
