//! The pods of this region: their state, shared by checks, attempts and routing.

use std::{
    collections::{BTreeMap, HashMap},
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Instant,
};

use arc_swap::ArcSwap;
use nearhop_admin::tls::{TlsError, keep_fresh, mutual_files};
use nearhop_conf::Upstream;
use nearhop_wire::{ModelReport, PodReport};
use pingora::upstreams::peer::HttpPeer;
use tokio::sync::watch;

use super::{
    connections,
    health::{Health, Reason, Standing},
    outcome::Outcome,
};
use crate::metrics::EdgeMetrics;

/// One pod.
pub(crate) struct Pod {
    pub(crate) name: String,
    pub(crate) address: SocketAddr,
    /// The address as the `host` header has it.
    pub(crate) host: String,
    /// How it is connected to; another one when the certificates change.
    pub(crate) peer: ArcSwap<HttpPeer>,
    state: Mutex<State>,
    in_flight: AtomicUsize,
    /// Whether its first check has ended, well or not.
    checked: AtomicBool,
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

impl PodView {
    /// Whether it gets traffic.
    pub(crate) fn is_ready(&self) -> bool {
        self.report.is_some() && self.standing == Standing::Ready
    }
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

/// All pods of the configuration, in its order, and what they serve together.
pub(crate) struct Pods {
    pods: Vec<Arc<Pod>>,
    upstream: Upstream,
    /// Made anew when a pod reports something new, so that requests only read it.
    catalog: ArcSwap<Catalog>,
}

/// Models by what requests call them.
#[derive(Debug, Default)]
struct Catalog {
    /// By name.
    models: BTreeMap<String, Arc<ModelReport>>,
    /// By alias, and by `name@revision`.
    others: BTreeMap<String, Arc<ModelReport>>,
}

/// What `reports` serve together: of each name the most widely served revision, so that a
/// request's key and its pods agree while a new revision is rolled out.
fn catalog(reports: &[Arc<PodReport>]) -> Catalog {
    let active = || reports.iter().flat_map(|report| &report.models);
    let all = || active().chain(reports.iter().flat_map(|report| &report.kept));
    let names = active().map(|report| (report.name.clone(), report));
    let aliases =
        active().flat_map(|report| report.aliases.iter().map(move |alias| (alias.clone(), report)));
    let revisions = all().map(|report| (report.fingerprint(), report));
    Catalog { models: widest(names.collect()), others: widest(aliases.chain(revisions).collect()) }
}

/// Of each name the report that the most pods agree on.
fn widest(named: Vec<(String, &ModelReport)>) -> BTreeMap<String, Arc<ModelReport>> {
    let means = |(name, report): &(String, &ModelReport)| {
        (name.clone(), report.name.clone(), report.revision.clone(), report.template.clone())
    };
    let mut pods: HashMap<_, usize> = HashMap::new();
    for named in &named {
        *pods.entry(means(named)).or_default() += 1;
    }
    let mut ranked: Vec<_> =
        named.iter().map(|named| (pods[&means(named)], means(named), named)).collect();
    // The last of a name stays.
    ranked.sort_by(|a, b| (a.0, &a.1).cmp(&(b.0, &b.1)));
    ranked
        .into_iter()
        .map(|(_, _, (name, report))| (name.clone(), Arc::new((*report).clone())))
        .collect()
}

impl Pods {
    pub(crate) fn new(
        pods: &[nearhop_conf::Pod],
        upstream: &Upstream,
        metrics: &EdgeMetrics,
        now: Instant,
    ) -> Result<Self, TlsError> {
        let make = |pod: &nearhop_conf::Pod| {
            let state = State { health: Health::default(), report: None, heard: now };
            Ok(Arc::new(Pod {
                name: pod.name.clone(),
                address: pod.address,
                host: pod.address.to_string(),
                peer: ArcSwap::from_pointee(connections::peer(pod.address, upstream)?),
                state: Mutex::new(state),
                in_flight: AtomicUsize::new(0),
                checked: AtomicBool::new(false),
                ejections: watch::Sender::new(0),
                metrics: metrics.clone(),
            }))
        };
        let pods = pods.iter().map(make).collect::<Result<_, TlsError>>()?;
        Ok(Self { pods, upstream: upstream.clone(), catalog: ArcSwap::default() })
    }

    /// Connects with what the certificates' files say now, whenever they change. Never returns.
    pub(crate) async fn keep_fresh(self: Arc<Self>) {
        let Some(tls) = &self.upstream.tls else { return };
        let peers = Arc::new(ArcSwap::from_pointee(()));
        keep_fresh(mutual_files(tls), peers, || {
            for pod in &self.pods {
                let peer = connections::peer(pod.address, &self.upstream)?;
                pod.peer.store(Arc::new(peer));
            }
            Ok(())
        })
        .await;
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Arc<Pod>> {
        self.pods.iter()
    }

    pub(crate) fn get(&self, at: usize) -> &Arc<Pod> {
        &self.pods[at]
    }

    pub(crate) fn views(&self) -> Vec<PodView> {
        self.pods.iter().map(|pod| pod.view()).collect()
    }

    pub(crate) fn any_ready(&self) -> bool {
        self.pods.iter().any(|pod| pod.is_ready())
    }

    /// Whether every pod was looked at: before that, a request could find only a part of them.
    pub(crate) fn all_checked(&self) -> bool {
        self.pods.iter().all(|pod| pod.checked.load(Ordering::Acquire))
    }

    /// How many sequences the ready pods compute together; `None` where one does not say.
    pub(crate) fn slots(&self) -> Option<usize> {
        let ready = self.pods.iter().map(|pod| pod.view()).filter(PodView::is_ready);
        let slots = ready.map(|view| view.report.map_or(0, |report| report.slots));
        slots.map(|slots| (slots > 0).then_some(slots)).sum()
    }

    fn is_last(&self, pod: &Pod) -> bool {
        !self.pods.iter().any(|other| other.address != pod.address && other.is_ready())
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
        let (back, news) = pod.state(|state| {
            state.heard = state.heard.max(now);
            let news = state.report.as_deref() != Some(&report);
            if news {
                state.report = Some(Arc::new(report));
            }
            (state.health.probe_succeeded(began), news)
        });
        if news {
            // Done again where another pod's news came in between.
            self.catalog.rcu(|_| {
                let reports: Vec<_> =
                    self.pods.iter().filter_map(|pod| pod.view().report).collect();
                catalog(&reports)
            });
        }
        if back {
            tracing::info!(pod = pod.name, "pod is back");
        }
        pod.checked.store(true, Ordering::Release);
        pod.metrics.probes.with_label_values(&[&pod.name, "ok"]).inc();
        pod.metrics.probe_seconds.with_label_values(&[&pod.name]).set((now - began).as_secs_f64());
        pod.changed(None);
    }

    /// A check of `pod` that began at `began` failed.
    pub(crate) fn probe_failed(&self, pod: &Pod, began: Instant, now: Instant) {
        pod.checked.store(true, Ordering::Release);
        pod.metrics.probes.with_label_values(&[&pod.name, "failed"]).inc();
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

    /// The model that a request names, at the revision that will answer: by name, by alias, or as
    /// `name@revision`. Without a name the alias `default`, or else the first of them, for clients
    /// that have no setting for it.
    pub(crate) fn model(&self, asked: Option<&str>) -> Option<Arc<ModelReport>> {
        let catalog = self.catalog.load();
        let named = |name: &str| catalog.models.get(name).or_else(|| catalog.others.get(name));
        match asked {
            Some(name) => named(name).cloned(),
            None => named("default").or_else(|| catalog.models.values().next()).cloned(),
        }
    }

    /// Every model some pod serves, by name.
    pub(crate) fn models(&self) -> Vec<Arc<ModelReport>> {
        self.catalog.load().models.values().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(models: &[(&str, &str)]) -> Arc<PodReport> {
        let models = models.iter().map(|(name, revision)| ModelReport {
            name: (*name).to_owned(),
            revision: (*revision).to_owned(),
            template: "t".to_owned(),
            temperature: 0.0,
            max_tokens: 64,
            context_length: 1024,
            aliases: Vec::new(),
        });
        Arc::new(PodReport { models: models.collect(), kept: Vec::new(), slots: 8 })
    }

    fn check(reports: &[Arc<PodReport>], expected: &[(&str, &str)]) {
        let catalog = catalog(reports);
        let got: Vec<(&str, &str)> = catalog
            .models
            .values()
            .map(|report| (report.name.as_str(), report.revision.as_str()))
            .collect();
        assert_eq!(got, expected);
    }

    #[test]
    fn the_most_widely_served_revision_is_pinned() {
        let (old, new) = (report(&[("m", "1")]), report(&[("m", "2"), ("n", "1")]));
        check(&[], &[]);
        check(&[old.clone(), new.clone(), old.clone()], &[("m", "1"), ("n", "1")]);
        check(&[old.clone(), new.clone(), new.clone()], &[("m", "2"), ("n", "1")]);
        check(&[old, new], &[("m", "2"), ("n", "1")]);
    }

    #[test]
    fn an_alias_and_a_kept_revision_are_found() {
        let mut pod = (*report(&[("m", "2"), ("n", "1")])).clone();
        pod.models[0].aliases = vec!["default".to_owned(), "n".to_owned()];
        pod.kept = report(&[("m", "1")]).models.clone();
        let catalog = catalog(&[report(&[("m", "1")]), Arc::new(pod)]);
        let revision = |name: &str| {
            let found = catalog.others.get(name).map(|report| report.fingerprint());
            found.unwrap_or_default()
        };
        assert_eq!(revision("default"), "m@2", "the alias is of the pod that has it");
        assert_eq!((revision("m@1"), revision("m@2")), ("m@1".to_owned(), "m@2".to_owned()));
        assert_eq!(catalog.models["n"].name, "n", "a name goes before an alias");
        assert_eq!(catalog.models["m"].revision, "2", "what is kept aside is no candidate");
    }
}
