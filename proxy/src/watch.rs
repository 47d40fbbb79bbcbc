//! What changes beside requests: who is found, how far service is degraded, who is slower than its
//! peers. Decisions are `nearhop-routing`'s and `nearhop-discovery`'s; here they are fed and their
//! verdicts told.

use std::{
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use nearhop_admin::{clock, tls::keep_fresh};
use nearhop_conf::{Config, Edge, PodSource};
use nearhop_discovery::{Resolver, source};
use nearhop_routing::{Class, Component, Level, Seen, Standing, Step};
use serde_json::json;
use tokio::{runtime::Handle, time::interval};

use crate::{
    phase::Shared,
    upstream::{
        member::Role,
        pool::{Found, Source, Upstreams},
        provider::{self, NOWHERE, Provider},
    },
};

/// Where upstreams are found.
pub(crate) struct Finding {
    pods: Vec<Found>,
    providers: Vec<Found>,
    from: Vec<PodSource>,
    /// Peers of other regions, each `host:port`, with the region.
    peers: Vec<(Arc<str>, String)>,
    resolver: Arc<Resolver>,
}

/// How often providers' names are looked up.
const RESOLVE: Duration = Duration::from_secs(15);

impl Finding {
    pub(crate) fn new(config: &Config, edge: &Edge) -> Self {
        let pods = edge.pods.iter().map(|pod| Found {
            name: pod.name.clone(),
            address: pod.address,
            role: Role::Pod,
        });
        let providers = edge.providers.iter().filter_map(|settings| {
            let provider = Arc::new(Provider::new(settings)?);
            let role = Role::Provider(provider);
            Some(Found { name: settings.name.clone(), address: NOWHERE, role })
        });
        let others = config.regions.iter().filter(|region| region.name != config.region);
        let peers = others.flat_map(|region| {
            let name: Arc<str> = region.name.as_str().into();
            region.peers.iter().map(move |peer| (Arc::clone(&name), peer.clone()))
        });
        Self {
            pods: pods.collect(),
            providers: providers.collect(),
            from: edge.pods_from.clone(),
            peers: peers.collect(),
            resolver: Arc::new(Resolver::new(edge.resolver)),
        }
    }

    /// Whether there are other regions to ask.
    pub(crate) fn has_regions(&self) -> bool {
        !self.peers.is_empty()
    }

    /// What needs no looking for.
    pub(crate) fn known(&self, upstreams: &Upstreams, now: Instant) {
        upstreams.set(&Source::Configured, &self.pods, now);
        upstreams.set(&Source::Providers, &self.providers, now);
        for (at, (region, peer)) in self.peers.iter().enumerate() {
            if let Ok(address) = peer.parse() {
                let found = peer_of(region, address);
                upstreams.set(&Source::Peers(Arc::clone(region), at), &[found], now);
            }
        }
    }

    /// Looks for the others for ever.
    pub(crate) fn run(self, runtime: &Handle, shared: &Arc<Shared>) {
        for (at, from) in self.from.iter().enumerate() {
            let mut source = source(from, &self.resolver);
            let shared = Arc::clone(shared);
            runtime.spawn(async move {
                loop {
                    let found = source.next().await.into_iter();
                    let found = found.map(|pod| Found {
                        name: pod.name,
                        address: pod.address,
                        role: Role::Pod,
                    });
                    let found: Vec<Found> = found.collect();
                    shared.upstreams.set(&Source::Discovered(at), &found, clock::now());
                }
            });
        }
        for (at, (region, peer)) in self.peers.into_iter().enumerate() {
            if peer.parse::<std::net::SocketAddr>().is_ok() {
                continue;
            }
            // As the configuration's reader has it.
            let Some((name, port)) = peer.rsplit_once(':') else { continue };
            let Ok(port) = port.parse() else { continue };
            let from = PodSource::Addresses { name: name.to_owned(), port };
            let (mut source, shared) = (source(&from, &self.resolver), Arc::clone(shared));
            runtime.spawn(async move {
                loop {
                    let found = source.next().await.into_iter();
                    let found: Vec<Found> =
                        found.map(|edge| peer_of(&region, edge.address)).collect();
                    let source = Source::Peers(Arc::clone(&region), at);
                    shared.upstreams.set(&source, &found, clock::now());
                }
            });
        }
        let (resolving, resolver) = (Arc::clone(shared), self.resolver);
        runtime.spawn(async move {
            let mut tick = interval(RESOLVE);
            loop {
                tick.tick().await;
                provider::resolve(&resolving.upstreams, &resolver).await;
            }
        });
        let files = shared.upstreams.links().files();
        let upstreams = Arc::clone(&shared.upstreams);
        let nothing = Arc::new(ArcSwap::from_pointee(()));
        runtime.spawn(async move {
            keep_fresh(files, nothing, move || upstreams.connect_anew()).await;
        });
    }
}

fn peer_of(region: &Arc<str>, address: std::net::SocketAddr) -> Found {
    Found { name: format!("{region}/{address}"), address, role: Role::Region(Arc::clone(region)) }
}

/// How often the level is judged.
const JUDGE: Duration = Duration::from_millis(500);

/// Judges how far service is degraded, and who is slower than its peers, for ever.
pub(crate) async fn level(shared: Arc<Shared>) {
    let mut tick = interval(JUDGE);
    loop {
        tick.tick().await;
        let now = clock::now();
        shared.upstreams.judge_latency(now);
        shared.upstreams.show(now);
        // Before everybody was looked at, nothing is known to be out.
        if shared.upstreams.all_checked() {
            let seen = seen(&shared, now);
            let step = shared.ladder(|ladder| ladder.step(&seen, now));
            tell(&shared, step);
        }
    }
}

/// The operator holds the level, or lets it go.
pub(crate) fn hold(shared: &Shared, level: Option<Level>) {
    let step = shared.ladder(|ladder| ladder.force(level, clock::now()));
    tell(shared, step);
}

fn tell(shared: &Shared, step: Option<Step>) {
    let Some(Step { from, to, cause }) = step else { return };
    let number = Level::ALL.iter().position(|level| *level == to).unwrap_or_default();
    shared.level.store(u8::try_from(number).unwrap_or_default(), Ordering::Relaxed);
    shared.metrics.level.set(i64::try_from(number).unwrap_or_default());
    shared.metrics.level_changes.with_label_values(&[to.name(), cause.name()]).inc();
    if to > from {
        tracing::warn!(from = from.name(), to = to.name(), cause = cause.name(), "degraded");
    } else {
        tracing::info!(from = from.name(), to = to.name(), cause = cause.name(), "recovers");
    }
    let detail = json!({ "from": from.name(), "cause": cause.name() });
    shared.events.emit("level", to.name(), detail);
}

/// How the parts of the service are.
pub(crate) fn seen(shared: &Shared, now: Instant) -> Seen {
    let upstreams = &shared.upstreams;
    // Where this many wait, more comes than is done.
    let crowded = shared.gate.waiting() > shared.gate.places();
    let of = |class: Class, configured: bool| {
        let all = upstreams.of(class);
        let usable = |one: &&Arc<_>| is_usable(shared, one, now);
        let (mut any, mut strained) = (false, true);
        for one in all.iter().filter(usable) {
            any = true;
            strained &= one.look(now).paused;
        }
        match (all.is_empty() && !configured, any) {
            (true, _) => Component::Absent,
            (false, false) => Component::Out,
            (false, true) if strained || (class == Class::Pod && crowded) => Component::Strained,
            (false, true) => Component::Well,
        }
    };
    let local = upstreams.of(Class::Local);
    Seen {
        pods: of(Class::Pod, upstreams.has_pods()),
        regions: of(Class::Region, false),
        providers: of(Class::Provider, false),
        local: local.iter().any(|one| one.is_ready(now)),
    }
}

fn is_usable(shared: &Shared, upstream: &crate::upstream::member::Upstream, now: Instant) -> bool {
    let up = match (&upstream.role, &shared.vantage) {
        (Role::Region(region), Some(vantage)) => {
            vantage.state(region).health != nearhop_geo::Health::Down
        }
        _ => true,
    };
    let full = upstream.look(now).standing == Standing::Full;
    up && (upstream.is_ready(now) || full)
}
