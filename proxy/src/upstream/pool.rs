//! All upstreams: found, lost, judged, and what they serve together.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use nearhop_admin::{Events, tls::TlsError};
use nearhop_conf::{Breaker as Limits, Edge};
use nearhop_routing::{
    Affinity, BreakerSettings, Chain, Change, Class, Evidence, Forced, Limit, LimitSettings, Pace,
    Pass, Reason, UpstreamId, View, outlier,
};
use nearhop_wire::{ModelReport, PodReport};
use serde_json::json;

use super::{
    blame::Blame,
    catalog::Catalog,
    links::Links,
    member::{Making, Role, Upstream},
    outcome::{Failed, Outcome, Refused},
};
use crate::metrics::EdgeMetrics;

/// Who says that an upstream is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Source {
    /// `edge.pods`.
    Configured,
    /// An item of `edge.pods_from`, by its place.
    Discovered(usize),
    /// Peers of a region, by the place of their entry.
    Peers(Arc<str>, usize),
    /// `edge.providers`.
    Providers,
    /// The edge's own pod.
    Local,
}

/// An upstream that somebody says is there.
#[derive(Debug, Clone)]
pub(crate) struct Found {
    pub(crate) name: String,
    pub(crate) address: SocketAddr,
    pub(crate) role: Role,
}

impl Source {
    const fn is_discovered(&self) -> bool {
        matches!(self, Self::Discovered(_))
    }
}

impl Found {
    /// Whether it is that upstream, or would be mistaken for it.
    fn is(&self, upstream: &Upstream) -> bool {
        let provider = matches!(self.role, Role::Provider(_));
        self.role.class() == upstream.class()
            && (self.name == upstream.name || !provider && self.address == upstream.address)
    }
}

/// All upstreams, in the order in which they were found.
pub(crate) struct Upstreams {
    all: ArcSwap<Vec<Arc<Upstream>>>,
    /// What each source said last.
    sources: Mutex<Vec<(Source, Vec<Found>)>>,
    /// Made anew when one reports something new, so that requests only read it.
    catalog: ArcSwap<Catalog>,
    links: Links,
    settings: Settings,
    /// First-token times of pods, with the prompt's length taken out.
    pace: Mutex<Pace>,
    /// Which pod has the beginning of which prompt.
    affinity: Option<Mutex<Affinity>>,
    blame: Mutex<Blame>,
    /// How much pods are given at once that do not say how much they compute.
    limit: Mutex<Limit>,
    next: AtomicU64,
    metrics: EdgeMetrics,
    events: Events,
}

struct Settings {
    pod: BreakerSettings,
    provider: BreakerSettings,
    /// The most pods that evidence which may be our own slowness takes out at once.
    share: f64,
    /// Whether there are to be pods of this region.
    has_pods: bool,
    /// Sources of pods that have to be heard of first, and for how long.
    discovered: usize,
    patience: Instant,
}

/// How long sources of pods are waited for at the start; one that is down must not keep the rest.
const PATIENCE: Duration = Duration::from_secs(10);
/// What pods are given at once before anything is known of them.
const LIMIT_BEFORE: usize = 16;
/// A time-out says nothing of a pod while most of the others have them too.
const WIDESPREAD: Duration = Duration::from_secs(10);

fn breaker(base: BreakerSettings, limits: &Limits) -> BreakerSettings {
    BreakerSettings {
        failures: limits.failures,
        window: limits.window,
        rate: limits.rate,
        successes: limits.successes,
        open_max: limits.open,
        half_open: limits.half_open,
        open: if base.checked { base.open.min(limits.open) } else { limits.open },
        ..base
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    // What is in it is whole at every moment.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Upstreams {
    pub(crate) fn new(
        edge: &Edge,
        links: Links,
        (metrics, events): (&EdgeMetrics, &Events),
        now: Instant,
    ) -> Self {
        let affinity = edge.affinity.enabled.then(|| Affinity::new(edge.affinity.blocks));
        Self {
            all: ArcSwap::default(),
            sources: Mutex::default(),
            catalog: ArcSwap::default(),
            links,
            settings: Settings {
                pod: breaker(BreakerSettings::POD, &edge.breaker),
                provider: breaker(BreakerSettings::PROVIDER, &edge.breaker),
                share: edge.ejection.share,
                has_pods: !edge.pods.is_empty() || !edge.pods_from.is_empty(),
                discovered: edge.pods_from.len(),
                patience: now + PATIENCE,
            },
            pace: Mutex::new(Pace::new()),
            affinity: affinity.map(Mutex::new),
            blame: Mutex::default(),
            limit: Mutex::new(Limit::new(LimitSettings {
                initial: LIMIT_BEFORE,
                min: 1,
                max: edge.limits.requests,
            })),
            next: AtomicU64::new(1),
            metrics: metrics.clone(),
            events: events.clone(),
        }
    }

    /// What `source` says is there now: who is new gets in, and who is gone gets nothing more; what
    /// runs on it ends by itself. Whom two sources know is one upstream, for as long as either does.
    pub(crate) fn set(&self, source: &Source, found: Vec<Found>, now: Instant) {
        let mut sources = lock(&self.sources);
        match sources.iter_mut().find(|(known, _)| known == source) {
            Some((_, known)) => *known = found,
            None => sources.push((source.clone(), found)),
        }
        let before = Arc::clone(&self.all());
        let mut all: Vec<Arc<Upstream>> = Vec::new();
        for found in sources.iter().flat_map(|(_, found)| found) {
            if let Some(other) = all.iter().find(|listed| found.is(listed)) {
                if other.address != found.address {
                    let (address, taken) = (found.address, other.address);
                    tracing::warn!(name = found.name, %address, %taken, "a name is taken; left out");
                }
                continue;
            }
            let known = before.iter().find(|known| {
                found.is(known) && (&found.name, found.address) == (&known.name, known.address)
            });
            all.push(known.map_or_else(|| Arc::new(self.make(found, now)), Arc::clone));
        }
        let is_in = |upstream: &Arc<Upstream>, list: &[Arc<Upstream>]| {
            list.iter().any(|other| other.id == upstream.id)
        };
        let gone: Vec<_> = before.iter().filter(|one| !is_in(one, &all)).collect();
        let new: Vec<_> = all.iter().filter(|one| !is_in(one, &before)).cloned().collect();
        if gone.is_empty() && new.is_empty() {
            return;
        }
        for upstream in gone {
            upstream.forget();
            if let Some(affinity) = &self.affinity {
                lock(affinity).forget(upstream.id);
            }
            lock(&self.blame).forget(upstream.id);
            self.tell(upstream, "upstream_gone", json!({}));
        }
        for upstream in new {
            upstream.show(now);
            self.tell(&upstream, "upstream_found", json!({ "address": upstream.address }));
        }
        self.all.store(Arc::new(all));
        drop(sources);
        self.take_stock();
    }

    fn make(&self, found: &Found, now: Instant) -> Upstream {
        let peer = match found.role {
            // It gets one when its name was resolved.
            Role::Provider(_) => None,
            _ => match self.links.peer(&found.role, found.address) {
                Ok(peer) => Some(peer),
                Err(error) => {
                    tracing::error!(upstream = found.name, %error, "it cannot be connected to");
                    None
                }
            },
        };
        let host = match &found.role {
            Role::Provider(provider) => provider.host.clone(),
            _ => found.address.to_string(),
        };
        let breaker = match found.role.class() {
            Class::Provider => self.settings.provider,
            Class::Pod | Class::Region | Class::Local => self.settings.pod,
        };
        let making = Making {
            id: UpstreamId(self.next.fetch_add(1, Ordering::Relaxed)),
            name: found.name.clone(),
            role: found.role.clone(),
            address: found.address,
            host,
            peer,
            breaker,
            metrics: self.metrics.clone(),
        };
        Upstream::new(making, now)
    }

    /// Connects with what the certificates' files say now.
    ///
    /// # Errors
    /// [`TlsError`] where one cannot be used: everybody is connected to as before.
    pub(crate) fn connect_anew(&self) -> Result<(), TlsError> {
        let all = self.all();
        // Providers have no certificate of ours.
        let ours = all.iter().filter(|one| one.class() != Class::Provider);
        let made = ours.map(|one| Ok((one, self.links.peer(&one.role, one.address)?)));
        for (upstream, peer) in made.collect::<Result<Vec<_>, TlsError>>()? {
            upstream.peer.store(Some(Arc::new(peer)));
        }
        Ok(())
    }

    pub(crate) fn links(&self) -> &Links {
        &self.links
    }

    /// A provider's name has this address now.
    pub(crate) fn resolved(&self, upstream: &Upstream, address: SocketAddr) {
        let same = |peer: &Arc<pingora::upstreams::peer::HttpPeer>| {
            peer._address.as_inet() == Some(&address)
        };
        if upstream.peer.load().as_ref().is_some_and(same) {
            return;
        }
        match self.links.peer(&upstream.role, address) {
            Ok(peer) => upstream.peer.store(Some(Arc::new(peer))),
            Err(error) => tracing::error!(upstream = upstream.name, %error, "not connected to"),
        }
    }

    pub(crate) fn all(&self) -> arc_swap::Guard<Arc<Vec<Arc<Upstream>>>> {
        self.all.load()
    }

    /// Those of a class.
    pub(crate) fn of(&self, class: Class) -> Vec<Arc<Upstream>> {
        self.all().iter().filter(|upstream| upstream.class() == class).cloned().collect()
    }

    pub(crate) fn by_address(&self, address: SocketAddr) -> Option<Arc<Upstream>> {
        let is = |upstream: &&Arc<Upstream>| upstream.address == address;
        self.all().iter().find(is).cloned()
    }

    pub(crate) fn by_name(&self, name: &str) -> Option<Arc<Upstream>> {
        self.all().iter().find(|upstream| upstream.name == name).cloned()
    }

    /// Whether this region answers: a pod of it is ready; for a region that is to have none,
    /// another region's edge.
    pub(crate) fn any_ready(&self, now: Instant) -> bool {
        let class = if self.settings.has_pods { Class::Pod } else { Class::Region };
        self.all().iter().any(|upstream| upstream.class() == class && upstream.is_ready(now))
    }

    /// Whether anything can generate.
    pub(crate) fn can_generate(&self, now: Instant) -> bool {
        self.all().iter().any(|upstream| upstream.is_ready(now))
    }

    /// Whether this region is to have pods.
    pub(crate) fn has_pods(&self) -> bool {
        self.settings.has_pods
    }

    /// Whether every one was looked at: before that, a request could find only a part of them. The
    /// edge's own pod comes later, and nobody waits for it.
    pub(crate) fn all_checked(&self, now: Instant) -> bool {
        if lock(&self.sources).iter().filter(|(source, _)| source.is_discovered()).count()
            < self.settings.discovered
            && now < self.settings.patience
        {
            return false;
        }
        let counts = |upstream: &&Arc<Upstream>| upstream.class() != Class::Local;
        self.all().iter().filter(counts).all(|upstream| upstream.is_checked())
    }

    /// How many sequences the ready ones that answer first compute together; `None` where one does
    /// not say.
    pub(crate) fn slots(&self, now: Instant) -> Option<usize> {
        self.slots_of(self.first_class(), now)
    }

    /// Who answers first here.
    const fn first_class(&self) -> Class {
        if self.settings.has_pods { Class::Pod } else { Class::Region }
    }

    fn slots_of(&self, class: Class, now: Instant) -> Option<usize> {
        let all = self.all();
        let ready = all.iter().filter(|one| one.class() == class && one.is_ready(now));
        let slots = ready.map(|one| one.look(now).report.map_or(0, |report| report.slots));
        slots.map(|slots| (slots > 0).then_some(slots)).sum()
    }

    /// How many requests upstreams may have at once; twice what they compute where they say how much
    /// that is, so that each always has its next, and else as many as they turn out to do well with.
    /// Where no pod is ready the other regions are meant: none would be let through, though they
    /// could be answered there.
    pub(crate) fn capacity(&self, requests: usize, now: Instant) -> usize {
        let ready =
            |class: &Class| self.all().iter().any(|one| one.class() == *class && one.is_ready(now));
        let first = self.first_class();
        let class = [first, Class::Region].into_iter().find(ready);
        match class.and_then(|class| self.slots_of(class, now)) {
            Some(slots) => 2 * slots,
            // What is learned is learned of pods; whoever stands in for them has limits of its own.
            None if class == Some(Class::Pod) => lock(&self.limit).limit(),
            None => requests / 2,
        }
    }

    /// Whether evidence that may be our own slowness may take `upstream` out: it never takes the
    /// last pod, nor more than a share of them.
    fn soft(&self, upstream: &Upstream, now: Instant) -> bool {
        if upstream.class() != Class::Pod {
            return true;
        }
        let all = self.all();
        let pods = all.iter().filter(|other| other.class() == Class::Pod);
        let (mut others_ready, mut out, mut total) = (0_u32, 0_u32, 0_u32);
        for pod in pods {
            let other = pod.id != upstream.id;
            let ready = pod.is_ready(now);
            others_ready += u32::from(other && ready);
            out += u32::from(other && !ready);
            total += 1;
        }
        others_ready > 0 && f64::from(out + 1) <= (self.settings.share * f64::from(total)).max(1.0)
    }

    /// An attempt on `upstream`, for `tenant`, ended.
    pub(crate) fn ended(
        &self,
        upstream: &Upstream,
        pass: Pass,
        (outcome, tenant): (&Outcome, &str),
        now: Instant,
    ) {
        let who = (tenant, upstream.id);
        let evidence = lock(&self.blame).weigh(who, outcome.evidence(), now);
        let late = evidence == Evidence::Slow;
        let evidence = match late && self.is_widespread(upstream, now) {
            true => Evidence::Neutral,
            false => evidence,
        };
        if late {
            upstream.was_late(now);
        }
        // Nothing else asks for it.
        let soft = matches!(evidence, Evidence::Slow | Evidence::Failure);
        let soft = soft && self.soft(upstream, now);
        let change = upstream.finish(pass, evidence, soft, now);
        if let (Class::Pod, Outcome::Refused(Refused::Busy { .. })) = (upstream.class(), outcome) {
            lock(&self.limit).refused(now);
        }
        if let (
            Some(provider),
            Outcome::Refused(Refused::Connection) | Outcome::Failed(Failed::ConnectTimeout),
        ) = (upstream.role.provider(), outcome)
        {
            provider.lost();
        }
        upstream.count(&self.metrics.attempts, outcome.name());
        self.changed(upstream, change, now);
    }

    /// Whether at least half of the other pods timed out just now as well.
    fn is_widespread(&self, upstream: &Upstream, now: Instant) -> bool {
        let since = now.checked_sub(WIDESPREAD).unwrap_or(now);
        let all = self.all();
        let others: Vec<_> = all
            .iter()
            .filter(|other| other.class() == upstream.class() && other.id != upstream.id)
            .collect();
        let slow = others.iter().filter(|other| other.slow_since(since)).count();
        upstream.class() == Class::Pod && slow > 0 && 2 * slow >= others.len()
    }

    /// The first content came after `took`, of a prompt of so many bytes.
    pub(crate) fn first_content(
        &self,
        upstream: &Upstream,
        (bytes, took): (usize, Duration),
        now: Instant,
    ) {
        match upstream.class() {
            Class::Pod => {
                let ratio = lock(&self.pace).add(bytes, took);
                upstream.state(|state| state.took(ratio, now));
                let all = self.all();
                let pods = all.iter().filter(|one| one.class() == Class::Pod);
                lock(&self.limit).sample(took, pods.map(|pod| pod.in_flight()).sum());
            }
            Class::Provider => upstream.state(|state| state.baseline.add(bytes, took, now)),
            Class::Region | Class::Local => {}
        }
    }

    /// Whether it is known which pod has the beginning of which prompt.
    pub(crate) fn has_affinity(&self) -> bool {
        self.affinity.is_some()
    }

    /// Fills in how much of a prompt each pod has computed.
    pub(crate) fn matched(&self, chain: &Chain, views: &mut [View]) {
        let Some(affinity) = &self.affinity else { return };
        let affinity = lock(affinity);
        for view in views.iter_mut().filter(|view| view.class == Class::Pod) {
            view.matched = affinity.matched(chain, view.id);
        }
    }

    /// A prompt was sent there.
    pub(crate) fn sent(&self, chain: &Chain, upstream: &Upstream) {
        if let (Some(affinity), Class::Pod) = (&self.affinity, upstream.class()) {
            lock(affinity).sent(chain, upstream.id);
        }
    }

    /// After how long without content a second pod is asked, where enough is known.
    pub(crate) fn hedge_after(&self, bytes: usize) -> Option<Duration> {
        lock(&self.pace).hedge_after(bytes)
    }

    /// Takes out who is an outlier among its peers, or slower than its own baseline.
    pub(crate) fn judge_latency(&self, now: Instant) {
        let all = self.all();
        let pods: Vec<_> = all.iter().filter(|one| one.class() == Class::Pod).collect();
        let paces: Vec<_> = pods.iter().map(|pod| pod.state(|state| state.pace(now))).collect();
        let outliers = pods.iter().enumerate().filter(|(at, _)| outlier(&paces, *at));
        let providers = all.iter().filter(|one| {
            one.class() == Class::Provider && one.state(|state| state.baseline.is_high(now))
        });
        for upstream in outliers.map(|(_, pod)| *pod).chain(providers) {
            let soft = self.soft(upstream, now);
            let change = upstream.state(|state| {
                let change = state.breaker.too_slow(soft, now);
                if change.is_some() {
                    // The minute that opened it must not open it again.
                    state.baseline.forget_recent();
                    state.forget_slowness();
                }
                change
            });
            self.changed(upstream, change, now);
        }
    }

    /// Shows how everybody is: time alone makes some of them ready again.
    pub(crate) fn show(&self, now: Instant) {
        self.all().iter().for_each(|upstream| upstream.show(now));
    }

    /// A check of `upstream` that began at `began` succeeded.
    pub(crate) fn check_passed(
        &self,
        upstream: &Upstream,
        report: PodReport,
        began: Instant,
        now: Instant,
    ) {
        let (changes, news) = upstream.state(|state| {
            state.heard_of(now);
            state.failed_checks = 0;
            let news = state.report.as_deref() != Some(&report);
            if news {
                state.report = Some(Arc::new(report));
            }
            let up = state.breaker.checks(true, true, now);
            ([up, state.breaker.check_passed(began, now)], news)
        });
        if news {
            self.take_stock();
        }
        upstream.was_checked();
        upstream.count(&self.metrics.probes, "ok");
        upstream.checked_in(now - began);
        upstream.show(now);
        changes.into_iter().for_each(|change| self.changed(upstream, change, now));
    }

    /// A check of `upstream` that began at `began` failed; `most` in a row take it out. The last pod
    /// is not taken out by checks alone: on a starved machine they would take out all.
    pub(crate) fn check_failed(
        &self,
        upstream: &Upstream,
        most: usize,
        began: Instant,
        now: Instant,
    ) {
        upstream.was_checked();
        upstream.count(&self.metrics.probes, "failed");
        let silent = upstream.is_silent_since(began);
        let soft = self.soft(upstream, now);
        let changes = upstream.state(|state| {
            state.failed_checks += 1;
            let silent = state.breaker.check_failed(silent, soft, now);
            let down = state.failed_checks >= most;
            [silent, down.then(|| state.breaker.checks(false, soft, now)).flatten()]
        });
        changes.into_iter().for_each(|change| self.changed(upstream, change, now));
    }

    /// The operator holds a breaker open or closed, or lets it go.
    pub(crate) fn force(&self, upstream: &Upstream, forced: Option<Forced>, now: Instant) {
        let change = upstream.state(|state| state.breaker.force(forced, now));
        self.changed(upstream, change, now);
    }

    /// A change of a breaker, told to whoever wants to know.
    pub(crate) fn changed(&self, upstream: &Upstream, change: Option<Change>, now: Instant) {
        let Some(change) = change else { return };
        match change {
            Change::Opened(reason) => {
                tracing::warn!(upstream = upstream.name, reason = reason.name(), "taken out");
                upstream.eject(reason);
                self.tell(upstream, "upstream_out", json!({ "reason": reason.name() }));
                if reason == Reason::Misconfigured {
                    tracing::error!(
                        upstream = upstream.name,
                        "it refuses our credentials or does not know what we ask for"
                    );
                }
            }
            Change::HalfOpened => {
                tracing::info!(upstream = upstream.name, "tried again");
                self.tell(upstream, "upstream_probing", json!({}));
            }
            Change::Closed => {
                tracing::info!(upstream = upstream.name, "back");
                self.tell(upstream, "upstream_back", json!({}));
            }
        }
        upstream.show(now);
    }

    fn tell(&self, upstream: &Upstream, kind: &'static str, mut detail: serde_json::Value) {
        detail["class"] = json!(upstream.class().name());
        self.events.emit(kind, &upstream.name, detail);
    }

    /// What they serve together, counted anew.
    fn take_stock(&self) {
        // Done again where another's news came in between.
        self.catalog.rcu(|before| {
            let all = self.all();
            let of = |class: Class| -> Vec<Arc<PodReport>> {
                let reports = all.iter().filter(|one| one.class() == class);
                reports.filter_map(|one| one.state(|state| state.report.clone())).collect()
            };
            let foreign: Vec<Arc<PodReport>> = all
                .iter()
                .filter_map(|one| match &one.role {
                    Role::Provider(provider) => Some(Arc::new(provider.report())),
                    _ => None,
                })
                .collect();
            let (near, far) = (of(Class::Pod), of(Class::Region));
            let mut catalog = Catalog::of(&near, &far, &foreign);
            if near.is_empty() {
                // They are gone, which does not make their models unknown.
                catalog.keep(before);
            }
            Arc::new(catalog)
        });
    }

    /// The model that a request names; see [`Catalog::find`].
    pub(crate) fn model(&self, asked: Option<&str>) -> Option<Arc<ModelReport>> {
        self.catalog.load().find(asked)
    }

    /// Every model that somebody serves, by name.
    pub(crate) fn models(&self) -> Vec<Arc<ModelReport>> {
        self.catalog.load().models().cloned().collect()
    }

    /// What other regions are told: what this region's own pods serve.
    pub(crate) fn report(&self, now: Instant) -> PodReport {
        self.own(now).report(self.slots(now).unwrap_or(0))
    }

    /// A model that this region's own pods serve now.
    pub(crate) fn own_model(&self, asked: &str, now: Instant) -> Option<Arc<ModelReport>> {
        self.own(now).find(Some(asked))
    }

    fn own(&self, now: Instant) -> Catalog {
        let all = self.all();
        let near: Vec<_> = all
            .iter()
            .filter(|one| one.class() == Class::Pod && one.is_ready(now))
            .filter_map(|one| one.look(now).report)
            .collect();
        Catalog::of(&near, &[], &[])
    }
}
