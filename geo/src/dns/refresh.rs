//! Keeps what is answered with up to date: the configuration, the databases and keys that it names,
//! signatures before they end, and how the regions are. Built whole and swapped; what cannot be built
//! changes nothing and is told.

use std::{io, path::PathBuf, sync::Arc, time::Duration};

use nearhop_admin::{
    Metrics,
    tls::{Files, mutual_acceptor, read_certificates},
};
use nearhop_conf::{Config, Dns, Loaded, source::process_env};
use tokio::{
    sync::Notify,
    task::{AbortHandle, JoinHandle},
    time::{MissedTickBehavior, interval},
};

use super::{
    DnsError, Secret, Signer, Zone,
    dnssec::read_keys,
    fast::Prepared,
    live::{Live, State, now},
};
use crate::{Post, Vantage, VantageMetrics, World, world_of};

/// How often files are looked at.
const LOOK: Duration = Duration::from_secs(1);
/// A refused file is tried again, where it may lack another that nobody watches yet.
const AGAIN: u32 = 5;
/// A zone that cannot be signed anew is tried again after so many seconds.
const SIGN_AGAIN_S: u32 = 60;

/// A configuration as it is answered with.
///
/// # Errors
/// [`DnsError`], naming the field.
pub(super) fn state(config: &Config, dns: &Dns, own: [u8; 16]) -> Result<State, DnsError> {
    let now = now();
    let (zone, world) = (Zone::new(dns, now)?, world_of(&config.regions, dns)?);
    let secrets: Vec<[u8; 16]> = dns.cookie_secrets.iter().map(|secret| secret.0).collect();
    let secret = match secrets.split_first() {
        None => Secret::new(own, Vec::new()),
        Some((first, others)) => Secret::new(*first, others.to_vec()),
    };
    let signer = match &dns.dnssec {
        None => None,
        Some(dnssec) => {
            let denials = u32::try_from(dnssec.denials).unwrap_or(u32::MAX);
            let signer = Signer::new(read_keys(dnssec)?, &zone, &world, now, denials)?;
            Some(Arc::new(signer))
        }
    };
    // What only a new connection would find out.
    if let Some(peer) = &dns.peer {
        mutual_acceptor(&peer.tls)?;
    }
    if let Some(ca) = config.health.as_ref().and_then(|health| health.ca.as_ref()) {
        read_certificates(ca)?;
    }
    let ttl_s = dns.ttl.as_secs();
    Ok(prepared(State { zone, world, secret, signer, ttl_s, prepared: Arc::default() }))
}

/// With its answers made beforehand.
fn prepared(mut state: State) -> State {
    state.prepared = Arc::new(Prepared::new(&state.context()));
    state
}

/// Whether a DNS server could start with a configuration, sockets aside.
///
/// # Errors
/// [`DnsError`], naming the field.
pub fn check(config: &Config) -> Result<(), DnsError> {
    let dns = config.dns.as_ref().ok_or(DnsError::NoDns)?;
    state(config, dns, [0; 16]).map(drop)
}

/// The vantage point that a configuration describes, where it has one.
fn post(config: &Config) -> Option<Post> {
    let settings = config.health.clone()?;
    let peer = config.dns.as_ref()?.peer.clone()?;
    let regions = config.regions.clone();
    Some(Post { settings, regions, name: peer.name, tls: peer.tls })
}

/// The same world as its regions are now.
fn as_known(world: &World, vantage: Option<&Vantage>) -> World {
    let Some(vantage) = vantage else { return world.clone() };
    let states = world.regions().iter().map(|region| vantage.state(region.id.as_str()));
    world.with_states(states.collect())
}

/// The one who refreshes.
pub(super) struct Refresh {
    live: Arc<Live>,
    loaded: Loaded,
    /// With what it was started: sockets stay as they are.
    booted: Dns,
    /// What cookies are made with where the configuration names no secret.
    own_secret: [u8; 16],
    metrics: VantageMetrics,
    /// Told by the vantage point.
    changed: Arc<Notify>,
    watching: Option<AbortHandle>,
    refused: Option<String>,
}

impl Refresh {
    pub(super) fn new(
        live: Arc<Live>,
        (loaded, dns): (Loaded, Dns),
        own_secret: [u8; 16],
        metrics: &Metrics,
    ) -> Self {
        let metrics = VantageMetrics::new(metrics);
        let (changed, watching, refused) = (Arc::default(), None, None);
        Self { live, loaded, booted: dns, own_secret, metrics, changed, watching, refused }
    }

    /// Has the regions watched, and answered by what was known of them before. Must be called inside
    /// a Tokio runtime, before the first query is read.
    pub(super) fn begin(&mut self) {
        self.watch();
        self.restate();
    }

    /// Never returns.
    pub(super) async fn run(mut self) {
        let mut paths = self.files();
        let mut files = Files::new(paths.clone());
        let mut tick = interval(LOOK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut pending, mut waited, mut building) = (false, 0, None);
        let mut signing = now().wrapping_sub(SIGN_AGAIN_S);
        loop {
            let changed = Arc::clone(&self.changed);
            tokio::select! {
                _ = tick.tick() => {
                    self.live.count_signatures();
                    pending |= files.changed();
                    waited = if self.refused.is_some() { waited + 1 } else { 0 };
                    let stale = now().wrapping_sub(signing) >= SIGN_AGAIN_S
                        && self.live.state().is_stale(now());
                    if stale {
                        signing = now();
                        self.sign_again().await;
                    }
                    if building.is_none() && (pending || waited >= AGAIN) {
                        // What is only tried again is not told again.
                        let told = if pending { None } else { self.refused.clone() };
                        building = Some(Building { told, task: self.build() });
                        (pending, waited) = (false, 0);
                    }
                }
                (told, built) = finished(&mut building) => {
                    building = None;
                    self.take(told, built);
                    let now = self.files();
                    if now != paths {
                        paths = now;
                        files = Files::new(paths.clone());
                    }
                }
                // Also while a large database is read.
                () = changed.notified() => self.restate(),
            }
        }
    }

    fn files(&self) -> Vec<PathBuf> {
        let dns = self.loaded.config.dns.as_ref();
        let named = dns.into_iter().flat_map(|dns| {
            let keys = dns.dnssec.iter().flat_map(|dnssec| &dnssec.keys);
            dns.mmdb.iter().chain(&dns.asn_mmdb).chain(keys)
        });
        self.loaded.files().into_iter().chain(named.cloned()).collect()
    }

    /// Answers by how the regions are now.
    fn restate(&self) {
        let mut state = (**self.live.state()).clone();
        state.world = as_known(&state.world, self.live.vantage.load().as_deref());
        self.live.replace(state);
    }

    /// Has the regions watched as the configuration says now.
    fn watch(&mut self) {
        let Some(post) = post(&self.loaded.config) else {
            self.stop();
            self.live.vantage.store(None);
            return;
        };
        let before = self.live.vantage.load_full();
        let vantage = match before {
            Some(before) if *before.post() == post => return,
            Some(before) => before.successor(post),
            None => Vantage::new(post, &self.metrics),
        };
        self.stop();
        let (vantage, changed) = (Arc::new(vantage), Arc::clone(&self.changed));
        self.live.vantage.store(Some(Arc::clone(&vantage)));
        let task = tokio::spawn(vantage.run(move || changed.notify_one()));
        self.watching = Some(task.abort_handle());
    }

    fn stop(&mut self) {
        if let Some(task) = self.watching.take() {
            task.abort();
        }
    }

    /// Signs anew what is answered with, whatever the files say by now: signatures must not end
    /// because a file is wrong.
    async fn sign_again(&self) {
        let old = Arc::clone(&self.live.state());
        let renewed =
            tokio::task::spawn_blocking(move || {
                let signer = old.signer.as_ref()?;
                let signed = signer.renewed(&old.zone, &old.world, now());
                Some(signed.map(|signer| {
                    prepared(State { signer: Some(Arc::new(signer)), ..(*old).clone() })
                }))
            });
        match renewed.await {
            Ok(Some(Ok(state))) => {
                self.live.replace(state);
                self.restate();
                tracing::info!("the zone is signed anew");
            }
            Ok(Some(Err(error))) => {
                tracing::error!(%error, "the zone cannot be signed anew; its signatures will end");
            }
            Ok(None) => {}
            Err(error) => tracing::error!(%error, "signing ended in a panic"),
        }
    }

    /// Reads the files and makes what they say, away from the queries.
    fn build(&self) -> JoinHandle<Result<(Loaded, State), DnsError>> {
        let (before, own_secret) = (self.loaded.clone(), self.own_secret);
        tokio::task::spawn_blocking(move || {
            let loaded = match before.files().is_empty() {
                // From standard input, which cannot be read again; its databases can.
                true => before,
                false => Loaded::read(before.path(), &process_env)?,
            };
            let dns = loaded.config.dns.as_ref().ok_or(DnsError::NoDns)?;
            let state = state(&loaded.config, dns, own_secret)?;
            Ok((loaded, state))
        })
    }

    /// Takes what the files say, or keeps what there is and says why, where that is news.
    fn take(&mut self, told: Option<String>, built: Result<(Loaded, State), DnsError>) {
        let (loaded, mut state) = match built {
            Ok(built) => built,
            Err(error) => {
                let error = error.to_string();
                if told.as_ref() != Some(&error) {
                    tracing::error!(error, "the changed files are not taken; the old ones stay");
                    self.live.reloaded("refused");
                }
                self.refused = Some(error);
                return;
            }
        };
        for change in self.loaded.changes(&loaded) {
            tracing::info!(%change, "configuration changed");
        }
        self.loaded = loaded;
        self.refused = None;
        self.say_what_stays();
        self.watch();
        state.world = as_known(&state.world, self.live.vantage.load().as_deref());
        self.live.replace(state);
        self.live.reloaded("taken");
        tracing::info!("configuration and databases are taken up");
    }

    fn say_what_stays(&self) {
        let Some(dns) = &self.loaded.config.dns else { return };
        let old = &self.booted;
        let stays = [
            ("dns.listen", old.listen != dns.listen),
            ("dns.admin", old.admin != dns.admin),
            ("dns.peer.listen", peer_listen(old) != peer_listen(dns)),
            ("dns.peer.tls (its files are read again)", peer_tls(old) != peer_tls(dns)),
            ("dns.tcp_connections", old.tcp_connections != dns.tcp_connections),
            ("dns.rate_limit", old.rate_limit != dns.rate_limit),
        ];
        let stays: Vec<&str> =
            stays.iter().filter(|(_, differs)| *differs).map(|(name, _)| *name).collect();
        if !stays.is_empty() {
            let stays = stays.join(", ");
            tracing::warn!(stays, "these change only with a new process");
        }
    }
}

fn peer_listen(dns: &Dns) -> Option<std::net::SocketAddr> {
    dns.peer.as_ref().map(|peer| peer.listen)
}

fn peer_tls(dns: &Dns) -> Option<&nearhop_conf::MutualTls> {
    dns.peer.as_ref().map(|peer| &peer.tls)
}

/// What is being made of changed files.
struct Building {
    /// The error that was told of them before.
    told: Option<String>,
    task: JoinHandle<Result<(Loaded, State), DnsError>>,
}

/// What was made, when it is; never where nothing is being made.
async fn finished(
    building: &mut Option<Building>,
) -> (Option<String>, Result<(Loaded, State), DnsError>) {
    match building {
        None => std::future::pending().await,
        Some(Building { told, task }) => {
            let built = task.await;
            let built = built.map_err(|panicked| DnsError::System(io::Error::other(panicked)));
            (told.take(), built.and_then(|built| built))
        }
    }
}
