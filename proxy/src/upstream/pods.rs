//! The pods of this region: their state, shared by checks, attempts and routing.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Instant,
};

use nearhop_wire::{ModelReport, PodReport};
use tokio::sync::watch;

use super::{
    health::{Health, Reason, Standing},
    outcome::Outcome,
};
use crate::metrics::EdgeMetrics;

/// One pod.
pub(crate) struct Pod {
    pub(crate) name: String,
    pub(crate) address: SocketAddr,
    state: Mutex<State>,
    in_flight: AtomicUsize,
    /// Raised by one whenever the pod is taken out: attempts that wait on it give up.
    ejections: watch::Sender<u64>,
    metrics: EdgeMetrics,
}

struct State {
    health: Health,
    report: Option<Arc<PodReport>>,
    /// When anything last came from it.
    heard: Instant,
}

/// What routing sees of a pod.
#[derive(Debug, Clone)]
pub(crate) struct PodView {
    pub(crate) standing: Standing,
    /// What it serves; unknown until its first check succeeds.
    pub(crate) report: Option<Arc<PodReport>>,
    pub(crate) in_flight: usize,
}

/// A request in progress on a pod; counted until dropped.
pub(crate) struct InFlight(Arc<Pod>);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::AcqRel);
        self.0.metrics.pod_in_flight.with_label_values(&[&self.0.name]).dec();
    }
}

impl Pod {
    fn state<R>(&self, act: impl FnOnce(&mut State) -> R) -> R {
        // Nothing in here can panic half-way; a poisoned lock still holds a whole state.
        act(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Counts a request in.
    pub(crate) fn enter(self: &Arc<Self>) -> InFlight {
        self.in_flight.fetch_add(1, Ordering::AcqRel);
        self.metrics.pod_in_flight.with_label_values(&[&self.name]).inc();
        InFlight(Arc::clone(self))
    }

    /// Changes when the pod is taken out.
    pub(crate) fn ejections(&self) -> watch::Receiver<u64> {
        self.ejections.subscribe()
    }

    /// Something came from it.
    pub(crate) fn heard(&self, now: Instant) {
        self.state(|state| state.heard = state.heard.max(now));
    }

    pub(crate) fn view(&self) -> PodView {
        let in_flight = self.in_flight.load(Ordering::Acquire);
        self.state(|state| PodView {
            standing: state.health.standing(),
            report: state.report.clone(),
            in_flight,
        })
    }

    fn is_ready(&self) -> bool {
        self.state(|state| state.report.is_some() && state.health.standing() == Standing::Ready)
    }

    fn changed(&self, ejected: Option<Reason>) {
        if let Some(reason) = ejected {
            tracing::warn!(pod = self.name, reason = reason.name(), "pod taken out");
            self.metrics.ejections.with_label_values(&[&self.name, reason.name()]).inc();
            self.ejections.send_modify(|count| *count += 1);
        }
        let ready = i64::from(self.is_ready());
        self.metrics.pod_ready.with_label_values(&[&self.name]).set(ready);
    }
}

/// All pods of the configuration, in its order.
pub(crate) struct Pods(Vec<Arc<Pod>>);

impl Pods {
    pub(crate) fn new(pods: &[nearhop_conf::Pod], metrics: &EdgeMetrics, now: Instant) -> Self {
        let make = |pod: &nearhop_conf::Pod| {
            let state = State { health: Health::default(), report: None, heard: now };
            Arc::new(Pod {
                name: pod.name.clone(),
                address: pod.address,
                state: Mutex::new(state),
                in_flight: AtomicUsize::new(0),
                ejections: watch::Sender::new(0),
                metrics: metrics.clone(),
            })
        };
        Self(pods.iter().map(make).collect())
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Arc<Pod>> {
        self.0.iter()
    }

    pub(crate) fn get(&self, at: usize) -> &Arc<Pod> {
        &self.0[at]
    }

    pub(crate) fn views(&self) -> Vec<PodView> {
        self.0.iter().map(|pod| pod.view()).collect()
    }

    pub(crate) fn any_ready(&self) -> bool {
        self.0.iter().any(|pod| pod.is_ready())
    }

    fn is_last(&self, pod: &Pod) -> bool {
        !self.0.iter().any(|other| other.address != pod.address && other.is_ready())
    }

    /// An attempt on `pod` ended.
    pub(crate) fn attempted(&self, pod: &Pod, outcome: &Outcome, now: Instant) {
        let (evidence, last) = (outcome.evidence(), self.is_last(pod));
        let ejected = pod.state(|state| state.health.attempt(evidence, last, now));
        pod.metrics.attempts.with_label_values(&[&pod.name, outcome.name()]).inc();
        if ejected.is_some() {
            pod.changed(ejected);
        }
    }

    /// A check of `pod` that began at `began` succeeded.
    pub(crate) fn probe_succeeded(
        &self,
        pod: &Pod,
        report: PodReport,
        began: Instant,
        now: Instant,
    ) {
        let back = pod.state(|state| {
            state.heard = state.heard.max(now);
            if state.report.as_deref() != Some(&report) {
                state.report = Some(Arc::new(report));
            }
            state.health.probe_succeeded(began)
        });
        if back {
            tracing::info!(pod = pod.name, "pod is back");
        }
        pod.metrics.probe_seconds.with_label_values(&[&pod.name]).set((now - began).as_secs_f64());
        pod.changed(None);
    }

    /// A check of `pod` that began at `began` failed.
    pub(crate) fn probe_failed(&self, pod: &Pod, began: Instant, now: Instant) {
        let last = self.is_last(pod);
        let owes = pod.in_flight.load(Ordering::Acquire) > 0;
        let ejected = pod.state(|state| {
            let silent = owes && state.heard < began;
            state.health.probe_failed(silent, last, now)
        });
        pod.changed(ejected);
    }

    /// The verdict over `pod`'s checks changed. The last pod is not taken out by checks alone: on
    /// a starved machine they would take out all.
    pub(crate) fn probed(&self, pod: &Pod, up: bool) {
        let last = self.is_last(pod);
        let ejected = pod.state(|state| state.health.probed(up));
        if last && ejected.is_some() {
            tracing::warn!(pod = pod.name, "checks fail on the last pod; it stays the last resort");
            pod.changed(None);
        } else {
            pod.changed(ejected);
        }
    }

    /// What serves `model`, as the pods say; the most widely served revision where they differ, so
    /// that a request's key and its pods agree.
    pub(crate) fn model(&self, model: &str) -> Option<ModelReport> {
        let reports: Vec<ModelReport> = self
            .0
            .iter()
            .filter_map(|pod| pod.state(|state| state.report.clone()))
            .flat_map(|report| report.models.clone())
            .filter(|report| report.name == model)
            .collect();
        let same = |a: &ModelReport| {
            reports.iter().filter(|b| a.revision == b.revision && a.template == b.template).count()
        };
        let widest = |a: &&ModelReport| (same(a), a.revision.clone(), a.template.clone());
        reports.iter().max_by_key(widest).cloned()
    }

    /// Every model some pod serves, by name.
    pub(crate) fn models(&self) -> Vec<ModelReport> {
        let mut names: Vec<String> = self
            .0
            .iter()
            .filter_map(|pod| pod.state(|state| state.report.clone()))
            .flat_map(|report| {
                report.models.iter().map(|model| model.name.clone()).collect::<Vec<_>>()
            })
            .collect();
        names.sort();
        names.dedup();
        names.iter().filter_map(|name| self.model(name)).collect()
    }
}
