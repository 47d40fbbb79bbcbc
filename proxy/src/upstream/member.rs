//! One upstream: a pod, an edge of another region, an external provider, or the edge's own pod.
//! Its state is shared by checks, attempts and routing.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use arc_swap::ArcSwapOption;
use nearhop_routing::{
    Baseline, Breaker, BreakerSettings, Change, Class, Evidence, Offers, Pass, Reason, Slowness,
    Standing, UpstreamId,
};
use nearhop_wire::PodReport;
use pingora::upstreams::peer::HttpPeer;
use prometheus::{IntCounterVec, core::Collector as _};
use tokio::sync::watch;

use super::{orca::Reported, provider::Provider};
use crate::metrics::EdgeMetrics;

/// What an upstream is, and what its requests look like.
#[derive(Debug, Clone)]
pub(crate) enum Role {
    /// A pod of this region.
    Pod,
    /// An edge of that region.
    Region(Arc<str>),
    /// An external provider.
    Provider(Arc<Provider>),
    /// The edge's own pod, on loopback.
    Local,
}

impl Role {
    pub(crate) const fn class(&self) -> Class {
        match self {
            Self::Pod => Class::Pod,
            Self::Region(_) => Class::Region,
            Self::Provider(_) => Class::Provider,
            Self::Local => Class::Local,
        }
    }

    pub(crate) fn provider(&self) -> Option<&Provider> {
        match self {
            Self::Provider(provider) => Some(provider),
            Self::Pod | Self::Region(_) | Self::Local => None,
        }
    }
}

/// An upstream.
pub(crate) struct Upstream {
    pub(crate) id: UpstreamId,
    /// In headers, metrics and logs.
    pub(crate) name: String,
    /// What egress policies call it.
    pub(crate) policy: Arc<str>,
    pub(crate) role: Role,
    /// Where it was found. A provider's addresses change with its name's.
    pub(crate) address: SocketAddr,
    /// As the `host` header has it.
    pub(crate) host: String,
    /// How it is connected to; another one when certificates or addresses change, none while a
    /// name has no address.
    pub(crate) peer: ArcSwapOption<HttpPeer>,
    state: Mutex<State>,
    in_flight: AtomicUsize,
    /// Whether its first check has ended, well or not.
    checked: AtomicBool,
    /// Tells whenever it is taken out: attempts that wait on it give up.
    ejections: watch::Sender<Ejections>,
    /// What it is counted by in metrics that have a third label, until it is gone.
    counted: Mutex<Counted>,
    pub(super) metrics: EdgeMetrics,
}

/// How often an upstream was taken out, and why the last time.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Ejections {
    times: u64,
    last: Option<Reason>,
}

impl Ejections {
    /// Whether nothing can be expected of it any more, though connections may be open.
    pub(crate) fn hangs(self) -> bool {
        matches!(self.last, Some(Reason::Silent | Reason::Checks | Reason::Slow))
    }
}

/// Third labels that were used, by metric; `None` once the upstream is gone and counts nothing more.
type Counted = Option<Vec<(IntCounterVec, &'static str)>>;

/// What is known of an upstream.
pub(crate) struct State {
    pub(crate) breaker: Breaker,
    pub(crate) report: Option<Arc<PodReport>>,
    /// Its load, as it last said, and when.
    reported: Option<(Reported, Instant)>,
    slowness: Slowness,
    /// When it was last seen how slow it is.
    timed: Instant,
    pub(crate) baseline: Baseline,
    /// Since when it is ready.
    ready_since: Option<Instant>,
    /// Until when it takes nothing, by its own word.
    paused: Option<Instant>,
    /// When anything last came from it.
    heard: Instant,
    /// When a request last timed out on it.
    slow: Option<Instant>,
    /// Checks that failed, in a row.
    pub(super) failed_checks: usize,
}

/// What routing sees of an upstream, whoever asks.
#[derive(Debug, Clone)]
pub(crate) struct Look {
    pub(crate) standing: Standing,
    pub(crate) report: Option<Arc<PodReport>>,
    pub(crate) in_flight: usize,
    /// Requests that run there, and those that wait there, by its own word of just now.
    pub(crate) running: usize,
    pub(crate) queued: usize,
    pub(crate) slowness: f64,
    pub(crate) ready_for: Option<Duration>,
    pub(crate) paused: bool,
    /// Whether it gets requests only because the last one may not be taken out.
    pub(crate) doubted: bool,
}

/// A request in progress on an upstream; counted until dropped.
pub(crate) struct InFlight(Arc<Upstream>);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::AcqRel);
        self.0.unless_gone(|upstream| {
            upstream.metrics.upstream_in_flight.with_label_values(&upstream.labels()).dec();
        });
    }
}

/// What an upstream is made of.
pub(crate) struct Making {
    pub(crate) id: UpstreamId,
    pub(crate) name: String,
    pub(crate) role: Role,
    pub(crate) address: SocketAddr,
    pub(crate) host: String,
    pub(crate) peer: Option<HttpPeer>,
    pub(crate) breaker: BreakerSettings,
    pub(crate) metrics: EdgeMetrics,
}

/// A report older than that says nothing of now.
const REPORT_FRESH: Duration = Duration::from_secs(2);

impl Upstream {
    pub(crate) fn new(making: Making, now: Instant) -> Self {
        let Making { id, name, role, address, host, peer, breaker, metrics } = making;
        let policy: Arc<str> = match &role {
            Role::Region(region) => Arc::clone(region),
            _ => name.as_str().into(),
        };
        // Who is never checked is known as well as ever.
        let checked = matches!(role, Role::Provider(_));
        let state = State {
            breaker: Breaker::new(breaker),
            report: None,
            reported: None,
            slowness: Slowness::default(),
            timed: now,
            baseline: Baseline::new(),
            ready_since: None,
            paused: None,
            heard: now,
            slow: None,
            failed_checks: 0,
        };
        Self {
            id,
            name,
            policy,
            role,
            address,
            host,
            peer: ArcSwapOption::from(peer.map(Arc::new)),
            state: Mutex::new(state),
            in_flight: AtomicUsize::new(0),
            checked: AtomicBool::new(checked),
            ejections: watch::Sender::new(Ejections::default()),
            counted: Mutex::new(Some(Vec::new())),
            metrics,
        }
    }

    pub(crate) const fn class(&self) -> Class {
        self.role.class()
    }

    /// Its labels in metrics.
    pub(super) fn labels(&self) -> [&str; 2] {
        [&self.name, self.class().name()]
    }

    /// Reads or changes its state.
    pub(crate) fn state<R>(&self, act: impl FnOnce(&mut State) -> R) -> R {
        // Nothing in here can panic half-way; a poisoned lock still holds a whole state.
        act(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Counts a request in.
    pub(crate) fn enter(self: &Arc<Self>) -> InFlight {
        self.in_flight.fetch_add(1, Ordering::AcqRel);
        self.unless_gone(|upstream| {
            upstream.metrics.upstream_in_flight.with_label_values(&upstream.labels()).inc();
        });
        InFlight(Arc::clone(self))
    }

    pub(crate) fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::Acquire)
    }

    /// Changes when it is taken out.
    pub(crate) fn ejections(&self) -> watch::Receiver<Ejections> {
        self.ejections.subscribe()
    }

    /// Something came from it.
    pub(crate) fn heard(&self, now: Instant) {
        self.state(|state| state.heard_of(now));
    }

    /// An answer of it begins: whatever else is late there, it is not silent.
    pub(crate) fn begins_to_answer(&self, pass: Pass, now: Instant) -> (Pass, Option<Change>) {
        self.state(|state| state.breaker.begins(pass, now))
    }

    /// It said how busy it is.
    pub(crate) fn reported(&self, reported: Reported, now: Instant) {
        self.state(|state| state.reported = Some((reported, now)));
    }

    /// It asked not to be asked until then.
    pub(crate) fn pause(&self, until: Instant) {
        self.state(|state| state.paused = state.paused.max(Some(until)));
    }

    pub(crate) fn look(&self, now: Instant) -> Look {
        let (in_flight, is_reachable) = (self.in_flight(), self.is_reachable());
        self.state(|state| {
            let fresh = state.reported.filter(|(_, at)| now.duration_since(*at) < REPORT_FRESH);
            let reported = fresh.map_or_else(Reported::default, |(reported, _)| reported);
            Look {
                standing: match is_reachable {
                    true => state.breaker.standing(now),
                    false => Standing::Out(Reason::Dead),
                },
                report: state.report.clone(),
                in_flight,
                running: reported.running,
                queued: reported.waiting,
                slowness: state.slowness_at(now),
                ready_for: state.ready_since.map(|since| now.duration_since(since)),
                paused: state.paused.is_some_and(|until| until > now),
                doubted: state.breaker.is_doubted(),
            }
        })
    }

    /// Models that it answers for.
    pub(crate) fn offers(&self, report: Option<&Arc<PodReport>>) -> Offers {
        match (&self.role, report) {
            (Role::Provider(provider), _) => Offers::Names(Arc::clone(&provider.models_taken)),
            (_, Some(report)) => Offers::Report(Arc::clone(report)),
            (_, None) => Offers::Unknown,
        }
    }

    /// Whether it gets traffic.
    pub(crate) fn is_ready(&self, now: Instant) -> bool {
        self.is_reachable() && self.state(|state| state.is_ready(&self.role, now))
    }

    /// Whether it can be connected to at all: its name has an address, our certificates are good.
    fn is_reachable(&self) -> bool {
        self.peer.load().is_some()
    }

    /// Whether it can be relied on: it was asked, or checked, since it was last out.
    pub(crate) fn is_believed(&self, now: Instant) -> bool {
        let believed =
            |state: &mut State| state.is_known(&self.role) && state.breaker.is_believed(now);
        self.is_reachable() && self.state(believed)
    }

    /// Whether its first check has ended.
    pub(crate) fn is_checked(&self) -> bool {
        self.checked.load(Ordering::Acquire)
    }

    pub(super) fn was_checked(&self) {
        self.checked.store(true, Ordering::Release);
    }

    /// Begins an attempt; `anyway` also where it is out. `None` where it takes none at the moment.
    pub(crate) fn begin(&self, anyway: bool, now: Instant) -> Option<(Pass, Option<Change>)> {
        self.state(|state| match state.breaker.begin(now) {
            Some(begun) => Some(begun),
            None => anyway.then(|| (state.breaker.insist(), None)),
        })
    }

    /// An attempt ended. `soft` is whether evidence that may be our own slowness may take it out.
    pub(super) fn finish(
        &self,
        pass: Pass,
        evidence: Evidence,
        soft: bool,
        now: Instant,
    ) -> Option<Change> {
        self.state(|state| state.breaker.finish(pass, evidence, soft, now))
    }

    /// A request timed out on it.
    pub(super) fn was_late(&self, now: Instant) {
        self.state(|state| state.slow = Some(now));
    }

    /// Whether a request timed out on it after `since`.
    pub(super) fn slow_since(&self, since: Instant) -> bool {
        self.state(|state| state.slow.is_some_and(|at| at > since))
    }

    /// Whether requests wait on it and nothing came since `began`.
    pub(super) fn is_silent_since(&self, began: Instant) -> bool {
        self.in_flight() > 0 && self.state(|state| state.heard < began)
    }

    /// Frees the attempts that wait on it.
    pub(super) fn eject(&self, reason: Reason) {
        self.count(&self.metrics.ejections, reason.name());
        self.ejections.send_modify(|ejections| {
            ejections.times += 1;
            ejections.last = Some(reason);
        });
    }

    /// Shows whether it is ready, after anything that may have changed that.
    pub(super) fn show(&self, now: Instant) {
        let is_reachable = self.is_reachable();
        let (ready, state) = self.state(|state| {
            let ready = is_reachable && state.is_ready(&self.role, now);
            state.ready_since = match ready {
                true => state.ready_since.or(Some(now)),
                false => None,
            };
            let breaker = match state.breaker.view(now).state {
                "closed" => 0,
                "half_open" => 1,
                _ => 2,
            };
            (ready, breaker)
        });
        self.unless_gone(|upstream| {
            let (metrics, labels) = (&upstream.metrics, upstream.labels());
            metrics.upstream_ready.with_label_values(&labels).set(i64::from(ready));
            metrics.breaker_state.with_label_values(&labels).set(state);
        });
    }

    /// A check of it took so long.
    pub(super) fn checked_in(&self, took: Duration) {
        self.unless_gone(|upstream| {
            let seconds = &upstream.metrics.probe_seconds;
            seconds.with_label_values(&upstream.labels()).set(took.as_secs_f64());
        });
    }

    /// Counts one in a metric whose third label is `what`.
    pub(super) fn count(&self, metric: &IntCounterVec, what: &'static str) {
        let [name, class] = self.labels();
        let mut counted = self.counted();
        if let Some(counted) = &mut *counted {
            metric.with_label_values(&[name, class, what]).inc();
            let same = |(other, label): &(IntCounterVec, &str)| {
                *label == what && other.desc()[0].fq_name == metric.desc()[0].fq_name
            };
            if !counted.iter().any(same) {
                counted.push((metric.clone(), what));
            }
        }
    }

    /// Shows something of it, unless its series are gone: they would come back, and stay.
    fn unless_gone(&self, show: impl FnOnce(&Self)) {
        if self.counted().is_some() {
            show(self);
        }
    }

    fn counted(&self) -> std::sync::MutexGuard<'_, Counted> {
        // Nothing in here can panic half-way.
        self.counted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes its series out of the metrics: it is no more.
    pub(super) fn forget(&self) {
        let labels = self.labels();
        let counted = self.counted().take();
        for (metric, what) in counted.into_iter().flatten() {
            let _ = metric.remove_label_values(&[labels[0], labels[1], what]);
        }
        let metrics = &self.metrics;
        let _ = metrics.upstream_ready.remove_label_values(&labels);
        let _ = metrics.upstream_in_flight.remove_label_values(&labels);
        let _ = metrics.breaker_state.remove_label_values(&labels);
        let _ = metrics.probe_seconds.remove_label_values(&labels);
    }
}

/// What was seen of its slowness counts for half after so long: who gets nothing cannot show that it
/// is better now.
const SLOWNESS_HALF: Duration = Duration::from_secs(20);

impl State {
    /// It took `ratio` times as long as was expected.
    pub(super) fn took(&mut self, ratio: f64, now: Instant) {
        self.slowness.add(ratio);
        self.timed = now;
    }

    /// What made it an outlier must not do so again when it is back.
    pub(super) fn forget_slowness(&mut self) {
        self.slowness.forget();
    }

    /// How slow it is beside its peers, as far as that is still known.
    pub(super) fn slowness_at(&self, now: Instant) -> f64 {
        let halves = now.duration_since(self.timed).as_secs_f64() / SLOWNESS_HALF.as_secs_f64();
        1.0 + (self.slowness.ratio() - 1.0) * 0.5_f64.powf(halves)
    }

    /// The same, with the answers that it is known by.
    pub(super) fn pace(&self, now: Instant) -> (f64, u32) {
        (self.slowness_at(now), self.slowness.samples())
    }

    pub(super) fn heard_of(&mut self, now: Instant) {
        self.heard = self.heard.max(now);
    }

    fn is_known(&self, role: &Role) -> bool {
        let serves = self.report.as_ref().is_some_and(|report| !report.models.is_empty());
        serves || matches!(role, Role::Provider(_))
    }

    fn is_ready(&self, role: &Role, now: Instant) -> bool {
        self.is_known(role) && !matches!(self.breaker.standing(now), Standing::Out(_))
    }
}
