//! Assembles the server: sockets, threads, the operator's listener, and what is answered with.

use std::{
    future::Future,
    io,
    net::SocketAddr,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use axum::{
    Json, Router,
    extract::Query as Parameters,
    http::StatusCode,
    response::{IntoResponse as _, Response},
    routing::get,
};
use nearhop_admin::{
    BindError, Check, Checks, Metrics, ServeLimits, admin_router, api_error, bind, clock, serve,
    tls::Files,
};
use nearhop_conf::{Dns, Region};
use nearhop_wire::ApiError;
use serde::Deserialize;
use tokio::{net::TcpListener, time::interval};

use super::{
    DnssecError, Secret, Signer, Zone, ZoneError,
    dnssec::read_keys,
    live::{Live, State, now},
    rate::{Limiter, Rates},
    tcp, udp,
};
use crate::{ConfiguredError, Query, Source, decide, explanation, narration, world_of};

/// Why a server cannot start.
#[derive(Debug, thiserror::Error)]
pub enum DnsError {
    /// A name of the zone.
    #[error(transparent)]
    Zone(#[from] ZoneError),
    /// The regions or a database.
    #[error(transparent)]
    Configured(#[from] ConfiguredError),
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
}

/// A server that is put together; [`Server::run`] serves it.
pub struct Server {
    live: Arc<Live>,
    regions: Vec<Region>,
    dns: Dns,
    sockets: Vec<std::net::UdpSocket>,
    listeners: Vec<std::net::TcpListener>,
    admin: std::net::TcpListener,
    metrics: Metrics,
    ready: Ready,
}

impl Server {
    /// Puts a server together and opens its sockets. Port 0 takes any port that is free by UDP and
    /// TCP.
    ///
    /// # Errors
    /// [`DnsError`].
    pub fn new(regions: Vec<Region>, dns: Dns) -> Result<Self, DnsError> {
        let (one, two) = (random()?.to_le_bytes(), random()?.to_le_bytes());
        let secret = std::array::from_fn(|at| if at < 8 { one[at] } else { two[at - 8] });
        let state = state(&regions, &dns, Secret::new(secret))?;
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
        let ready = Ready { listen, admin: admin.local_addr()? };
        let metrics = Metrics::default();
        let live = Arc::new(Live::new(state, &metrics));
        Ok(Self { live, regions, dns, sockets, listeners, admin, metrics, ready })
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
        tasks.spawn(watch(Arc::clone(&self.live), self.regions, self.dns.clone()));
        let fine: Check = Arc::new(|| Ok(()));
        let checks = Checks { live: Arc::clone(&fine), ready: fine };
        let routes = routes(Arc::clone(&self.live));
        let app = admin_router(checks, self.metrics, self.dns.admin.token.as_ref(), routes);
        let limits = ServeLimits {
            connections: 64,
            header_read: Duration::from_secs(30),
            drain: Duration::from_secs(1),
        };
        serve(self.admin, app, limits, None, shutdown).await;
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

fn state(regions: &[Region], dns: &Dns, secret: Secret) -> Result<State, DnsError> {
    let serial = u32::try_from(clock::since_epoch().as_secs()).unwrap_or(u32::MAX);
    let (zone, world) = (Zone::new(dns, serial)?, world_of(regions, dns)?);
    let signer = match &dns.dnssec {
        None => None,
        Some(dnssec) => {
            let denials = u32::try_from(dnssec.denials).unwrap_or(u32::MAX);
            let signer = Signer::new(read_keys(dnssec)?, &zone, &world, now(), denials)?;
            Some(Arc::new(signer))
        }
    };
    Ok(State { zone, world, secret, signer, ttl_s: dns.ttl.as_secs() })
}

/// A zone that cannot be signed anew is tried again after so many seconds.
const SIGN_AGAIN_S: u32 = 60;

/// Takes databases and keys up again when they are replaced, and signs anew before signatures end; a
/// bad file changes nothing.
async fn watch(live: Arc<Live>, regions: Vec<Region>, dns: Dns) {
    let keys = dns.dnssec.iter().flat_map(|dnssec| &dnssec.keys);
    let paths: Vec<PathBuf> = dns.mmdb.iter().chain(&dns.asn_mmdb).chain(keys).cloned().collect();
    let mut files = Files::new(paths);
    let mut tick = interval(Duration::from_secs(1));
    let mut tried = now().wrapping_sub(SIGN_AGAIN_S);
    loop {
        tick.tick().await;
        live.count_signatures();
        let now = now();
        let stale = now.wrapping_sub(tried) >= SIGN_AGAIN_S && live.state().is_stale(now);
        if !files.changed() && !stale {
            continue;
        }
        tried = now;
        let (regions, dns) = (regions.clone(), dns.clone());
        let secret = live.state().secret.clone();
        // Away from the queries: a large one takes seconds.
        let built = tokio::task::spawn_blocking(move || state(&regions, &dns, secret)).await;
        let result = match built.map_err(|panicked| DnsError::System(io::Error::other(panicked))) {
            Ok(Ok(state)) => {
                live.replace(state);
                tracing::info!("databases and keys were taken up");
                "taken"
            }
            Ok(Err(error)) | Err(error) => {
                tracing::error!(%error, "a changed file is not taken; the old one stays");
                "refused"
            }
        };
        live.reloaded(result);
    }
}

/// What the operator may ask below `/admin/v1`.
fn routes(live: Arc<Live>) -> Router {
    Router::new().route(
        "/explain/dns",
        get(move |asked: Parameters<Asked>| async move { explain(&live, &asked) }),
    )
}

#[derive(Deserialize)]
struct Asked {
    client: String,
    name: Option<String>,
    /// In words rather than as JSON.
    #[serde(default)]
    words: bool,
}

fn explain(live: &Live, asked: &Asked) -> Response {
    let state = live.state();
    let Ok(address) = asked.client.parse() else {
        let error = ApiError::invalid("client", "client must be an IP address");
        return api_error(StatusCode::BAD_REQUEST, &error);
    };
    let service = state.zone.service(asked.name.as_deref());
    let query = Query { service: &service, address, source: Source::Client };
    let decision = decide(&query, &state.world);
    match asked.words {
        true => narration(&query, &state.world, &decision, state.ttl_s).into_response(),
        false => Json(explanation(&query, &state.world, &decision, state.ttl_s)).into_response(),
    }
}
