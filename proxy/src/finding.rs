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
use nearhop_discovery::{Resolver, source};
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
            let mut known = source(from, &self.resolver);
            let shared = Arc::clone(shared);
            runtime.spawn(async move {
                loop {
                    let found = known.next().await.into_iter();
                    let found = found.map(|pod| Found {
                        name: pod.name,
                        address: pod.address,
                        role: Role::Pod,
                    });
                    let found: Vec<Found> = found.collect();
                    shared.upstreams.set(&Source::Discovered(at), found, clock::now());
                }
            });
        }
        for (at, (region, peer)) in self.peers.into_iter().enumerate() {
            if peer.parse::<SocketAddr>().is_ok() {
                continue;
            }
            // As the configuration's reader has it.
            let Some((name, port)) = peer.rsplit_once(':') else { continue };
            let Ok(port) = port.parse() else { continue };
            let from = PodSource::Addresses { name: name.to_owned(), port };
            let (mut known, shared) = (source(&from, &self.resolver), Arc::clone(shared));
            runtime.spawn(async move {
                loop {
                    let found = known.next().await.into_iter();
                    let found: Vec<Found> =
                        found.map(|edge| peer_of(&region, edge.address)).collect();
                    let source = Source::Peers(Arc::clone(&region), at);
                    shared.upstreams.set(&source, found, clock::now());
                }
            });
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

fn peer_of(region: &Arc<str>, address: SocketAddr) -> Found {
    Found { name: format!("{region}/{address}"), address, role: Role::Region(Arc::clone(region)) }
}
