//! Assembles an edge: listeners, checks, admin; and stops it in order.

use std::{
    net::{SocketAddr, TcpListener},
    sync::{Arc, Mutex, atomic::Ordering},
    time::Duration,
};

use async_trait::async_trait;
use http::HeaderValue;
use nearhop_admin::{
    BindError, Checks, Metrics, ServeLimits, admin_router, bind, clock, reserve, serve,
};
use nearhop_conf::Config;
use nearhop_edge_cache::Memory;
use nearhop_geo::RegionId;
use pingora::{
    proxy::http_proxy_service,
    server::{
        RunArgs, Server, ShutdownSignal, ShutdownSignalWatch, ShutdownWatch,
        configuration::ServerConf,
    },
    services::background::{BackgroundService, background_service},
};
use tokio::{
    net::TcpStream,
    signal::unix::{SignalKind, signal},
    sync::watch,
    time::{interval, sleep, timeout},
};

use crate::{
    gateway::Gateway,
    keys::Keys,
    metrics::EdgeMetrics,
    operator,
    phase::Shared,
    upstream::{exchange::Exchanges, pods::Pods, probe},
};

/// Why an edge cannot start.
#[derive(Debug, thiserror::Error)]
pub enum EdgeError {
    /// The configuration describes no edge.
    #[error("the configuration has no `edge` section; `nearhop config default` shows one")]
    NoEdge,
    /// The region's name cannot stand in a header.
    #[error("the region `{0}` must be letters, digits, `-`, `_` and `.`")]
    Region(String),
    /// A listener could not be opened.
    #[error(transparent)]
    Bind(#[from] BindError),
}

/// Where an edge listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ready {
    /// For clients.
    pub listen: SocketAddr,
    /// For the operator.
    pub admin: SocketAddr,
}

/// An edge that is put together; [`Edge::run`] serves it.
pub struct Edge {
    shared: Arc<Shared>,
    ready: Ready,
    admin: TcpListener,
    admin_app: axum::Router,
    draining: watch::Sender<bool>,
    drain: Duration,
    threads: usize,
    probes: nearhop_conf::Probes,
}

impl Edge {
    /// Puts an edge together and checks that its addresses are free.
    ///
    /// # Errors
    /// [`EdgeError`].
    pub fn new(config: &Config) -> Result<Self, EdgeError> {
        let edge = config.edge.as_ref().ok_or(EdgeError::NoEdge)?;
        let region = RegionId::new(&config.region)
            .and_then(|region| HeaderValue::try_from(region.as_str()).ok())
            .ok_or_else(|| EdgeError::Region(config.region.clone()))?;
        let admin = bind(edge.admin.listen, "the edge's admin listener", "edge.admin.listen")?;
        let admin_address = admin.local_addr().unwrap_or(edge.admin.listen);
        let listen = reserve(edge.listen, "the edge", "edge.listen")?;
        let now = clock::now();
        let metrics = Metrics::default();
        let edge_metrics = EdgeMetrics::new(&metrics);
        let shared = Arc::new(Shared {
            region,
            limits: edge.limits.clone(),
            deadlines: edge.deadlines.clone(),
            upstream: edge.upstream.clone(),
            keys: Keys::new(&config.keys),
            l1: Memory::new(edge.l1.bytes.0, edge.l1.ttl),
            pods: Arc::new(Pods::new(&edge.pods, &edge.upstream, &edge_metrics, now)),
            exchanges: Arc::new(Exchanges::new(&edge.upstream)),
            metrics: edge_metrics,
            started: now,
            started_unix: clock::since_epoch().as_secs(),
            in_progress: 0.into(),
        });
        let (draining, drained) = watch::channel(false);
        let pods = Arc::clone(&shared.pods);
        let checks = Checks {
            live: Arc::new(|| Ok(())),
            ready: Arc::new(move || match (*drained.borrow(), pods.any_ready()) {
                (true, _) => Err("stopping".to_owned()),
                (false, false) => Err("no pod is ready".to_owned()),
                (false, true) => Ok(()),
            }),
        };
        let routes = operator::routes(&shared);
        let admin_app = admin_router(checks, metrics, edge.admin.token.as_ref(), routes);
        Ok(Self {
            shared,
            ready: Ready { listen, admin: admin_address },
            admin,
            admin_app,
            draining,
            drain: edge.drain,
            threads: edge.threads.get(),
            probes: edge.probes.clone(),
        })
    }

    /// Serves until SIGINT (at once) or SIGTERM (after running requests, within the configured
    /// time). Calls `on_ready` once, when it listens and a pod is ready.
    pub fn run(self, on_ready: impl FnOnce(Ready) + Send + Sync + 'static) {
        let conf = ServerConf {
            threads: self.threads,
            upstream_keepalive_pool_size: self.shared.upstream.idle_connections,
            // We wait ourselves, for as long as requests run; Pingora would sleep its time in full.
            grace_period_seconds: Some(0),
            graceful_shutdown_timeout_seconds: Some(1),
            ..ServerConf::default()
        };
        let mut server = Server::new_with_opt_and_conf(None, conf);
        server.bootstrap();
        let gateway = Gateway(Arc::clone(&self.shared));
        let mut public = http_proxy_service(&server.configuration, gateway);
        public.add_tcp(&self.ready.listen.to_string());
        server.add_service(public);
        let checks = probe::service(&self.shared.pods, &self.probes, &self.shared.exchanges);
        let mut checks = background_service("checks", checks);
        checks.threads = Some(1);
        server.add_service(checks);
        let admin = AdminService(Mutex::new(Some((self.admin, self.admin_app))));
        let mut admin = background_service("admin", admin);
        admin.threads = Some(1);
        server.add_service(admin);
        let announce = Announce {
            shared: Arc::clone(&self.shared),
            ready: self.ready,
            on_ready: Mutex::new(Some(Box::new(on_ready))),
        };
        let mut announce = background_service("announce", announce);
        announce.threads = Some(1);
        server.add_service(announce);
        let stop = Stop { shared: self.shared, draining: self.draining, drain: self.drain };
        server.run(RunArgs { shutdown_signal: Box::new(stop) });
    }
}

/// The admin listener, inside Pingora's server.
struct AdminService(Mutex<Option<(TcpListener, axum::Router)>>);

#[async_trait]
impl BackgroundService for AdminService {
    async fn start(&self, mut shutdown: ShutdownWatch) {
        let taken = self.0.lock().ok().and_then(|mut app| app.take());
        let Some((listener, app)) = taken else { return };
        let limits = ServeLimits {
            connections: 64,
            header_read: Duration::from_secs(30),
            drain: Duration::from_secs(1),
        };
        let stopped = async move {
            let _ = shutdown.wait_for(|stopping| *stopping).await;
        };
        serve(listener, app, limits, stopped).await;
    }
}

type OnReady = Box<dyn FnOnce(Ready) + Send + Sync>;

/// Says once that the edge serves.
struct Announce {
    shared: Arc<Shared>,
    ready: Ready,
    on_ready: Mutex<Option<OnReady>>,
}

#[async_trait]
impl BackgroundService for Announce {
    async fn start(&self, shutdown: ShutdownWatch) {
        let mut tick = interval(Duration::from_millis(20));
        while !*shutdown.borrow() {
            tick.tick().await;
            let second = Duration::from_secs(1);
            let open = timeout(second, TcpStream::connect(self.ready.listen)).await;
            if matches!(open, Ok(Ok(_))) && self.shared.pods.any_ready() {
                let taken = self.on_ready.lock().ok().and_then(|mut on_ready| on_ready.take());
                if let Some(on_ready) = taken {
                    on_ready(self.ready);
                }
                return;
            }
        }
    }
}

/// Turns signals into an orderly stop.
struct Stop {
    shared: Arc<Shared>,
    draining: watch::Sender<bool>,
    drain: Duration,
}

#[async_trait]
impl ShutdownSignalWatch for Stop {
    async fn recv(&self) -> ShutdownSignal {
        let (Ok(mut interrupt), Ok(mut terminate)) =
            (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
        else {
            tracing::error!("signals cannot be heard; only SIGKILL will stop this edge");
            return std::future::pending().await;
        };
        tokio::select! {
            _ = interrupt.recv() => return ShutdownSignal::FastShutdown,
            _ = terminate.recv() => {}
        }
        // Readiness fails first, so that nothing new is sent here; what runs may finish.
        self.draining.send_replace(true);
        let idle = async {
            while self.shared.in_progress.load(Ordering::Acquire) > 0 {
                sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::select! {
            _ = timeout(self.drain, idle) => {}
            _ = interrupt.recv() => {}
        }
        ShutdownSignal::FastShutdown
    }
}
