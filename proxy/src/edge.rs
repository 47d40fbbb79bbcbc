//! Assembles an edge: listeners, checks, admin, what is watched; and stops it in order.
//!
//! Two runtimes: requests have one to themselves, so that checks, admin and files are answered in
//! time however busy it is.

use std::{
    net::{SocketAddr, TcpListener},
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU8, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use http::HeaderValue;
use nearhop_admin::{
    BindError, Checks, Events, Metrics, admin_router, bind, clock,
    tls::{TlsError, acceptor, keep_fresh, mutual_acceptor, mutual_files},
};
use nearhop_admission::{Gate, Jwks, Limiter, Usage, UsageError};
use nearhop_conf::{Loaded, Probes};
use nearhop_edge_cache::{
    Memory, Namer, Rule, Validity,
    cluster::{Cluster, ClusterError, Password, Settings, Tls},
    l2, snapshot,
};
use nearhop_geo::{Post, RegionId, Vantage, VantageMetrics};
use nearhop_routing::{Budget, BudgetSettings, Ladder, LadderSettings};
use pingora::services::background::BackgroundService as _;
use sd_notify::NotifyState;
use tokio::{
    runtime::{Builder, Handle, Runtime},
    sync::{Semaphore, mpsc, watch},
    task::JoinSet,
    time::{interval, sleep, timeout},
};

use crate::{
    auditor::{self, Auditor},
    background::{
        close_idle, count_tasks, fetch_keys, keep_warm, reload, serve_admin, serve_l2,
        share_limits, size_gate, watch_files,
    },
    buffer::Room,
    client::Side,
    export::Exporter,
    finding::Finding,
    gateway::Gateway,
    handover::{self, Inherited, Remember, Successor},
    level,
    listener::{self, Doorkeeper, Listener, Security, connection::Addresses},
    live::Live,
    local::Local,
    metrics::EdgeMetrics,
    operator,
    phase::{Shared, places, route::Regions, warm_up},
    reload::{Reloader, SetLevel},
    rules::Rules,
    semantic::{self, Lesson, Semantic, SemanticError},
    service_times::ServiceTimes,
    signals::{Heard, Signals},
    upstream::{exchange::Exchanges, links::Links, pool::Upstreams, probe},
    webhook,
};

/// Why an edge cannot start.
#[derive(Debug, thiserror::Error)]
pub enum EdgeError {
    /// The configuration describes no edge.
    #[error("the configuration has no `edge` section; `nearhop config default` shows one")]
    NoEdge,
    /// The edge's own pod reads the same file, and standard input can be read once.
    #[error("edge.local needs a configuration file; standard input cannot be read again")]
    NoFile,
    /// The region's name cannot stand in a header.
    #[error("the region `{0}` must be letters, digits, `-`, `_` and `.`")]
    Region(String),
    /// A listener could not be opened.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// A certificate or key cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The shared cache cannot be spoken to as it is configured.
    #[error("edge.l2: {0}")]
    L2(#[from] ClusterError),
    /// Conversations cannot be looked up as it is configured.
    #[error(transparent)]
    Semantic(#[from] SemanticError),
    /// The file of the accounts cannot be used.
    #[error(transparent)]
    Usage(#[from] UsageError),
    /// The operating system refused something else, such as a thread.
    #[error("the edge cannot run: {0}")]
    System(#[from] std::io::Error),
}

/// Where an edge listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ready {
    /// For clients.
    pub listen: SocketAddr,
    /// For the operator.
    pub admin: SocketAddr,
    /// For other edges, where it does.
    pub peer: Option<SocketAddr>,
}

/// What an edge is started with.
pub struct Start {
    /// Its configuration, with the file to watch.
    pub loaded: Loaded,
    /// Listeners that are open already.
    pub inherited: Inherited,
    /// How to start the process that takes over.
    pub successor: Successor,
    /// Sets what is logged.
    pub set_level: SetLevel,
}

/// An edge that is put together; [`Edge::run`] serves it.
pub struct Edge {
    shared: Arc<Shared>,
    ready: Ready,
    public: TcpListener,
    security: Security,
    peer: Option<Peer>,
    admin: TcpListener,
    admin_app: axum::Router,
    reloader: Arc<Reloader>,
    draining: watch::Sender<bool>,
    lame_duck: Duration,
    drain: Duration,
    threads: usize,
    probes: Probes,
    inherited: Inherited,
    successor: Successor,
    exporting: Option<Background>,
    local: Option<Arc<Local>>,
    operations: Arc<Runtime>,
    l2_writes: Option<mpsc::Receiver<l2::Write>>,
    audits: mpsc::Receiver<auditor::Job>,
    lessons: Option<mpsc::Receiver<Lesson>>,
    share_limits: bool,
    finding: Finding,
    webhook: nearhop_conf::Events,
}

type Background = Pin<Box<dyn Future<Output = ()> + Send>>;

struct Peer {
    socket: TcpListener,
    tls: nearhop_conf::MutualTls,
    acceptor: Arc<ArcSwap<pingora::tls::ssl::SslAcceptor>>,
}

impl Edge {
    /// Puts an edge together and opens its listeners.
    ///
    /// # Errors
    /// [`EdgeError`].
    pub fn new(start: Start) -> Result<Self, EdgeError> {
        let Start { loaded, mut inherited, successor, set_level } = start;
        let config = &loaded.config;
        let edge = config.edge.as_ref().ok_or(EdgeError::NoEdge)?;
        let region = RegionId::new(&config.region)
            .and_then(|region| HeaderValue::try_from(region.as_str()).ok())
            .ok_or_else(|| EdgeError::Region(config.region.clone()))?;
        let mut open = |name, address, what, setting| match inherited.listener(name, address) {
            Some(socket) => Ok(socket),
            None => bind(address, what, setting),
        };
        let admin = edge.admin.listen;
        let admin = open(handover::ADMIN, admin, "the edge's admin listener", "edge.admin.listen")?;
        let public = open(handover::PUBLIC, edge.listen, "the edge", "edge.listen")?;
        let peer = match &edge.peer {
            None => None,
            Some(peer) => {
                let what = "the edge's listener for other edges";
                let socket = open(handover::PEER, peer.listen, what, "edge.peer.listen")?;
                let acceptor = Arc::new(ArcSwap::from_pointee(mutual_acceptor(&peer.tls)?));
                Some(Peer { socket, tls: peer.tls.clone(), acceptor })
            }
        };
        let ready = Ready {
            listen: public.local_addr()?,
            admin: admin.local_addr()?,
            peer: peer.as_ref().map(|peer| peer.socket.local_addr()).transpose()?,
        };
        let acceptor = edge.tls.as_ref().map(|tls| acceptor(tls).map(ArcSwap::from_pointee));
        let acceptor = acceptor.transpose()?.map(Arc::new);
        let now = clock::now();
        let metrics = Metrics::default();
        let edge_metrics = EdgeMetrics::new(&metrics);
        if edge.local.is_some() && loaded.files().is_empty() {
            return Err(EdgeError::NoFile);
        }
        let events = Events::new(edge.events.keep);
        let links = Links::new(&edge.upstream, edge.peer.as_ref().map(|peer| &peer.tls));
        links.check()?;
        let upstreams = Arc::new(Upstreams::new(edge, links, (&edge_metrics, &events), now));
        let finding = Finding::new(config, edge);
        finding.known(&upstreams, now);
        let local = edge.local.clone().map(|local| {
            let told = (edge_metrics.clone(), Arc::clone(&upstreams));
            Arc::new(Local::new(local, loaded.path(), told))
        });
        let live = Arc::new(ArcSwap::from_pointee(Live::new(config, edge)));
        let (exporter, exporting) = config
            .traces
            .clone()
            .map(|traces| {
                let spans = edge_metrics.spans.clone();
                Exporter::new(traces.endpoint, traces.sample, config.region.clone(), spans)
            })
            .unzip();
        let post = config.health.clone().zip(edge.peer.clone()).map(|(settings, peer)| {
            let regions = config.regions.clone();
            Post { settings, regions, name: peer.name, tls: peer.tls }
        });
        let vantage = post.map(|post| Vantage::new(post, &VantageMetrics::new(&metrics)));
        let validity = Arc::new(Validity::new(edge.l1.ttl));
        let (auditor, audits) = Auditor::new(edge.reuse.audit.clone());
        let operations = runtime("operations", 1)?;
        // Its connections live beside requests, as checks and files do.
        let entered = operations.enter();
        let (l2, l2_writes) =
            edge.l2.as_ref().map(|l2| open_l2(l2, &validity)).transpose()?.unzip();
        drop(entered);
        let exchanges = Arc::new(Exchanges::new(&edge.upstream));
        let (l3, lessons) = edge
            .l3
            .as_ref()
            .map(|l3| Semantic::new(l3, &validity, (&upstreams, &exchanges), &edge_metrics))
            .transpose()?
            .unzip();
        let l3_bytes = edge.l3.as_ref().map_or(0, |l3| l3.bytes.0);
        let namer = edge
            .l2
            .as_ref()
            .map_or_else(Namer::default, |l2| Namer::new(l2.secret.reveal().as_bytes()));
        let shared = Arc::new(Shared {
            region,
            live: Arc::clone(&live),
            jwks: Jwks::default(),
            limiter: Limiter::default(),
            usage: Usage::open(config.access.usage_file.as_deref())?,
            gate: Gate::new(places(None, edge.limits.requests), edge.limits.requests / 4),
            service_times: ServiceTimes::default(),
            buffered: Arc::new(Room::new(edge_metrics.buffered.clone())),
            l1: Memory::new(edge.l1.bytes.0 - l3_bytes, Arc::clone(&validity)),
            l2,
            l3,
            l2_start_after: edge.l2.as_ref().map_or(Duration::ZERO, |l2| l2.start_after),
            validity,
            namer,
            rules: Rules::new(&edge.reuse.rules),
            handing_over: AtomicBool::new(false),
            auditor,
            flights: Arc::default(),
            upstreams: Arc::clone(&upstreams),
            budget: Mutex::new(Budget::new(budget(edge), now)),
            ladder: Mutex::new(Ladder::new(ladder(edge))),
            level: AtomicU8::new(0),
            regions: finding
                .has_regions()
                .then(|| Regions::new(&config.regions, &config.region))
                .flatten(),
            events: events.clone(),
            exchanges,
            metrics: edge_metrics.clone(),
            started: now,
            started_unix: clock::since_epoch().as_secs(),
            crowd: Arc::default(),
            warm_ups: warm_up::places(),
            vantage: vantage.map(Arc::new),
            exporter,
        });
        for (rule, _) in Rule::ALL.iter().zip(shared.rules.allowed()).filter(|(_, serves)| *serves)
        {
            edge_metrics.rule_serves.with_label_values(&[rule.name()]).set(1);
        }
        let mut taker = snapshot::Taker::default();
        let now = clock::since_epoch();
        inherited.remember(|message| {
            taker.take(message, (&shared.l1, &shared.validity, &shared.namer), now)
        });
        if taker.taken() > 0 {
            tracing::info!(entries = taker.taken(), "the old process had these cached");
        }
        if let Some(semantic) = &shared.l3 {
            semantic.load();
        }
        let (draining, drained) = watch::channel(false);
        let answering = Arc::clone(&upstreams);
        let checks = Checks {
            live: Arc::new(|| Ok(())),
            ready: Arc::new(move || {
                match (*drained.borrow(), answering.can_generate(clock::now())) {
                    (true, _) => Err("stopping".to_owned()),
                    (false, false) => Err("nothing is ready that could answer".to_owned()),
                    (false, true) => Ok(()),
                }
            }),
        };
        let security = acceptor.clone().map_or(Security::Plain, Security::Tls);
        let (lame_duck, drain) = (edge.lame_duck.unwrap_or_default(), edge.drain);
        let (threads, probes) = (edge.threads.get(), edge.probes.clone());
        let share_limits = edge.l2.as_ref().is_some_and(|l2| l2.share_limits);
        let token = edge.admin.token.clone();
        let edge_events = edge.events.clone();
        let reloader = Reloader::new(loaded, live, acceptor, set_level, edge_metrics);
        let reloader = Arc::new(reloader);
        let routes = operator::routes(&shared, &reloader, local.clone());
        let admin_app = admin_router(checks, metrics, token.as_ref(), routes);
        Ok(Self {
            shared,
            ready,
            public,
            security,
            peer,
            admin,
            admin_app,
            reloader,
            draining,
            lame_duck,
            drain,
            threads,
            probes,
            inherited,
            successor,
            exporting: exporting.map(|exporting| -> Background { Box::pin(exporting) }),
            local,
            operations: Arc::new(operations),
            l2_writes,
            audits,
            lessons,
            share_limits,
            finding,
            webhook: edge_events,
        })
    }

    /// Serves until SIGINT (at once) or SIGTERM (after running requests, within the configured
    /// time); SIGHUP reads the configuration again, SIGUSR2 hands over to a new process. Calls
    /// `on_ready` once, when it listens, every pod was looked at and one is ready.
    ///
    /// # Errors
    /// [`EdgeError::System`].
    pub fn run(self, on_ready: impl FnOnce(Ready) + Send + 'static) -> Result<(), EdgeError> {
        let requests = runtime("edge", self.threads)?;
        let (shared, operations) = (Arc::clone(&self.shared), Arc::clone(&self.operations));
        let stopped = requests.block_on(self.serve(&operations, on_ready));
        shared.usage.close();
        if let Ok(operations) = Arc::try_unwrap(operations) {
            operations.shutdown_timeout(Duration::from_millis(200));
        }
        requests.shutdown_timeout(Duration::from_secs(1));
        stopped
    }

    async fn serve(
        mut self,
        operations: &Runtime,
        on_ready: impl FnOnce(Ready) + Send + 'static,
    ) -> Result<(), EdgeError> {
        let mut signals = Signals::new()?;
        let handles = self.handles()?;
        let (stopping, stopping_seen) = watch::channel(false);
        let (closing, closing_seen) = watch::channel(false);
        let limits = self.shared.live.load().limits.clone();
        let keeper = Doorkeeper {
            live: Arc::clone(&self.shared.live),
            metrics: self.shared.metrics.clone(),
            addresses: Arc::new(Addresses::default()),
            slots: Arc::new(Semaphore::new(limits.connections)),
            shutdown: stopping_seen.clone(),
        };
        let closed = |mut closing: watch::Receiver<bool>| async move {
            let _ = closing.wait_for(|closing| *closing).await;
        };
        let mut accepting = JoinSet::new();
        let public = Listener {
            socket: self.public,
            security: self.security,
            gateway: Arc::new(Gateway::new(&self.shared, Side::Public, &limits)),
        };
        accepting.spawn(listener::accept(public, keeper.clone(), closed(closing_seen.clone())));
        if let Some(peer) = self.peer {
            let names = peer.tls.names.clone().into();
            let listener = Listener {
                socket: peer.socket,
                security: Security::Mutual(Arc::clone(&peer.acceptor), names),
                gateway: Arc::new(Gateway::new(&self.shared, Side::Peer, &limits)),
            };
            // Places of their own: clients that take all of theirs must not cut regions off.
            let slots = Arc::new(Semaphore::new(PEER_CONNECTIONS));
            let keeper = Doorkeeper { slots, ..keeper.clone() };
            accepting.spawn(listener::accept(listener, keeper, closed(closing_seen)));
            let paths = mutual_files(&peer.tls);
            operations.spawn(keep_fresh(paths, peer.acceptor, move || mutual_acceptor(&peer.tls)));
        }
        let checks = probe::service(&self.shared.upstreams, &self.probes, &self.shared.exchanges);
        let runtimes = [Handle::current(), operations.handle().clone()];
        operations.spawn(count_tasks(runtimes, self.shared.metrics.tasks.clone()));
        let seen = stopping_seen.clone();
        operations.spawn(async move { checks.start(seen).await });
        if let Some(local) = self.local.take() {
            // As long as anything may still ask it.
            let closing = closing.subscribe();
            operations.spawn(async move { local.supervise(closing).await });
        }
        operations.spawn(serve_admin(self.admin, self.admin_app, closed(stopping_seen)));
        if let Some(exporting) = self.exporting.take() {
            operations.spawn(exporting);
        }
        if let Some(vantage) = &self.shared.vantage {
            operations.spawn(Arc::clone(vantage).run(|| {}));
        }
        if let Some(writes) = self.l2_writes.take() {
            operations.spawn(serve_l2(Arc::clone(&self.shared), writes));
            if self.share_limits {
                operations.spawn(share_limits(Arc::clone(&self.shared)));
            }
        }
        // With the requests: it talks to pods as they do.
        tokio::spawn(auditor::run(Arc::clone(&self.shared), self.audits));
        let keeping = self.lessons.map(|lessons| {
            tokio::spawn(semantic::learn(Arc::clone(&self.shared), lessons));
            operations.spawn(semantic::keep(Arc::clone(&self.shared), closing.subscribe()))
        });
        operations.spawn(size_gate(Arc::clone(&self.shared)));
        operations.spawn(fetch_keys(Arc::clone(&self.shared)));
        operations.spawn(close_idle(Arc::clone(&self.shared)));
        operations.spawn(watch_files(Arc::clone(&self.reloader)));
        self.finding.run(operations.handle(), &self.shared);
        operations.spawn(level::judge(Arc::clone(&self.shared)));
        operations.spawn(webhook::tell(Arc::clone(&self.shared), self.webhook));
        // With the requests, which use the connections that it keeps open.
        tokio::spawn(keep_warm(Arc::clone(&self.shared)));

        // Ready, and then until something says stop.
        let mut tick = interval(Duration::from_millis(20));
        let mut on_ready = Some(on_ready);
        let leaving = loop {
            tokio::select! {
                _ = tick.tick(), if on_ready.is_some() => {
                    let upstreams = &self.shared.upstreams;
                    let now = clock::now();
                    let ready = upstreams.can_generate(now) && upstreams.all_checked(now);
                    if ready && let Some(on_ready) = on_ready.take() {
                        self.inherited.ready();
                        handover::notify(&[NotifyState::Ready]);
                        on_ready(self.ready);
                    }
                }
                heard = signals.next() => match heard {
                    Heard::Stop => break Leaving::Stop,
                    Heard::StopNow => return Ok(()),
                    Heard::Reload => reload(Arc::clone(&self.reloader)).await,
                    Heard::HandOver => match hand_over(&self.shared, &self.successor, &handles).await {
                        Some(pid) => break Leaving::HandedOver(pid),
                        None => continue,
                    },
                },
            }
        };
        // Readiness fails first, so that nothing new is sent here; what runs may finish.
        self.draining.send_replace(true);
        if let Leaving::HandedOver(pid) = leaving {
            handover::notify(&[NotifyState::MainPid(pid)]);
        } else {
            handover::notify(&[NotifyState::Stopping]);
            tokio::select! {
                () = sleep(self.lame_duck) => {}
                () = signals.stop() => return Ok(()),
            }
        }
        drop(handles);
        stopping.send_replace(true);
        if matches!(leaving, Leaving::HandedOver(_)) {
            // The successor accepts from now on, on the same sockets.
            closing.send_replace(true);
        }
        let idle = idle(&self.shared, &keeper);
        tokio::select! {
            idle = timeout(self.drain, idle) => if idle.is_err() {
                let left = self.shared.crowd.total();
                tracing::warn!(left, "stopped with requests in progress");
            },
            () = signals.stop() => tracing::warn!("stopped at once"),
        }
        closing.send_replace(true);
        if let Some(keeping) = keeping {
            // It writes a last time.
            let _ = timeout(LAST_SNAPSHOT, keeping).await;
        }
        Ok(())
    }

    /// The listeners once more, for a successor.
    fn handles(&self) -> std::io::Result<Vec<(&'static str, TcpListener)>> {
        let mut handles = vec![
            (handover::PUBLIC, self.public.try_clone()?),
            (handover::ADMIN, self.admin.try_clone()?),
        ];
        if let Some(peer) = &self.peer {
            handles.push((handover::PEER, peer.socket.try_clone()?));
        }
        Ok(handles)
    }
}

fn budget(edge: &nearhop_conf::Edge) -> BudgetSettings {
    BudgetSettings {
        share: edge.retries.share,
        per_second: edge.retries.per_second,
        hedges: edge.hedge.share,
        ..BudgetSettings::default()
    }
}

fn ladder(edge: &nearhop_conf::Edge) -> LadderSettings {
    let nearhop_conf::Ladder { slow, window, samples, hold } = edge.ladder;
    LadderSettings { slow, window, samples, hold }
}

/// What is cached is written within that, or the next process begins with less.
const LAST_SNAPSHOT: Duration = Duration::from_secs(5);

/// Connections of other edges; a region has a few of them, each with one or two.
const PEER_CONNECTIONS: usize = 256;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Leaving {
    Stop,
    HandedOver(u32),
}

/// The cache that edges share, and what is to be written to it. That Redis is away is no reason not
/// to start.
fn open_l2(
    l2: &nearhop_conf::L2,
    validity: &Arc<Validity>,
) -> Result<(Arc<l2::Shared>, mpsc::Receiver<l2::Write>), ClusterError> {
    let cluster = Cluster::new(&Settings {
        nodes: l2.nodes.clone(),
        username: l2.username.clone(),
        password: l2.password.as_ref().map(|password| Password::new(password.reveal())),
        tls: l2.tls.clone().map(|tls| Tls { ca: tls.ca }),
        prefix: l2.prefix.clone(),
        patience: l2.patience,
    })?;
    let secret = l2.secret.reveal().as_bytes();
    let (shared, writes) = l2::Shared::new(cluster, secret, l2.keep, Arc::clone(validity));
    Ok((Arc::new(shared), writes))
}

fn runtime(name: &str, threads: usize) -> std::io::Result<Runtime> {
    Builder::new_multi_thread()
        .worker_threads(threads)
        .thread_name(format!("nearhop-{name}"))
        .enable_all()
        .build()
}

/// Until no connection is open, or nothing is in progress and the idle ones had their last chance.
async fn idle(shared: &Shared, keeper: &Doorkeeper) {
    const LAST_CHANCE: Duration = Duration::from_millis(1200);
    let began = clock::now();
    let mut tick = interval(Duration::from_millis(20));
    loop {
        tick.tick().await;
        let busy = shared.crowd.total() > 0;
        let open = keeper.metrics.connections.get() > 0;
        if !open || (!busy && clock::now() - began > LAST_CHANCE) {
            return;
        }
    }
}

/// Starts the successor; `None` where it does not serve, and this process goes on.
async fn hand_over(
    shared: &Arc<Shared>,
    successor: &Successor,
    handles: &[(&'static str, TcpListener)],
) -> Option<u32> {
    let listeners: std::io::Result<Vec<_>> = handles
        .iter()
        .map(|(name, listener)| listener.try_clone().map(|listener| (*name, listener)))
        .collect();
    let successor = successor.clone();
    tracing::info!(binary = %successor.binary.display(), "handing over to a new process");
    if let Some(semantic) = &shared.l3 {
        // The successor reads it when it starts.
        semantic.retire(true);
    }
    let (remembered, now) = (Arc::clone(shared), clock::since_epoch());
    let remember: Remember = Box::new(move |send| {
        let names = (&*remembered.validity, &remembered.namer);
        snapshot::send(&remembered.l1, names, now, send)
    });
    shared.handing_over.store(true, Ordering::Release);
    let started = tokio::task::spawn_blocking(move || successor.start(listeners?, remember)).await;
    if !matches!(started, Ok(Ok(_))) {
        shared.handing_over.store(false, Ordering::Release);
        if let Some(semantic) = &shared.l3 {
            semantic.retire(false);
        }
    }
    match started {
        Ok(Ok(pid)) => {
            tracing::info!(pid, "the new process serves; this one finishes what runs");
            Some(pid)
        }
        Ok(Err(error)) => {
            tracing::error!(%error, "the new process does not serve; this one goes on");
            None
        }
        Err(_) => None,
    }
}
