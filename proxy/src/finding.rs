//! Where upstreams are found: what the configuration names, what its sources know, and the addresses
//! of names. What each source says is [`Upstreams::set`]'s affair.

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use nearhop_admin::{clock, tls::keep_fresh};
use nearhop_conf::{Config, Edge, PodSource};
use nearhop_discovery::{Found as Discovered, Resolver, source};
use tokio::{runtime::Handle, time::interval};

use crate::{
    phase::Shared,
    upstream::{
        connections::NOWHERE,
        member::Role,
        pool::{Found, Source, Upstreams},
        provider::Provider,
        resolve::resolve,
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
        upstreams.set(&Source::Configured, self.pods.clone(), now);
        upstreams.set(&Source::Providers, self.providers.clone(), now);
        for (at, (region, peer)) in self.peers.iter().enumerate() {
            if let Ok(address) = peer.parse() {
                let found = peer_of(region, address);
                upstreams.set(&Source::Peers(Arc::clone(region), at), vec![found], now);
            }
        }
    }

    /// Looks for the others for ever.
    pub(crate) fn run(self, runtime: &Handle, shared: &Arc<Shared>) {
        for (at, from) in self.from.iter().enumerate() {
            let pod =
                |pod: Discovered| Found { name: pod.name, address: pod.address, role: Role::Pod };
            let known = source(from, &self.resolver);
            runtime.spawn(follow(Arc::clone(shared), known, Source::Discovered(at), pod));
        }
        for (at, (region, peer)) in self.peers.into_iter().enumerate() {
            if peer.parse::<SocketAddr>().is_ok() {
                continue;
            }
            // As the configuration's reader has it.
            let Some((name, port)) = peer.rsplit_once(':') else { continue };
            let Ok(port) = port.parse() else { continue };
            let from = PodSource::Addresses { name: name.to_owned(), port };
            let (known, peers) =
                (source(&from, &self.resolver), Source::Peers(Arc::clone(&region), at));
            let edge = move |edge: Discovered| peer_of(&region, edge.address);
            runtime.spawn(follow(Arc::clone(shared), known, peers, edge));
        }
        let (resolving, resolver) = (Arc::clone(shared), self.resolver);
        runtime.spawn(async move {
            let mut tick = interval(RESOLVE);
            loop {
                tick.tick().await;
                resolve(&resolving.upstreams, &resolver).await;
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

/// Passes on what a source knows, for ever.
async fn follow(
    shared: Arc<Shared>,
    mut known: Box<dyn nearhop_discovery::Source>,
    from: Source,
    upstream: impl Fn(Discovered) -> Found,
) {
    loop {
        let found = known.next().await.into_iter().map(&upstream).collect();
        shared.upstreams.set(&from, found, clock::now());
    }
}

fn peer_of(region: &Arc<str>, address: SocketAddr) -> Found {
    Found { name: format!("{region}/{address}"), address, role: Role::Region(Arc::clone(region)) }
}
