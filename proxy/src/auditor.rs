//! A share of what is served is generated again, while pods have nothing else to do, and compared.
//! Nobody waits for it and nobody pays for it; a rule that differs too much goes off.

use std::sync::{Arc, Mutex, PoisonError};

use nearhop_admin::clock;
use nearhop_conf::Audit as Settings;
use nearhop_edge_cache::{
    Rule,
    audit::{Audit, Tally, differs},
};
use nearhop_wire::Finish;
use serde_json::json;
use tokio::sync::mpsc;

use crate::{
    live::Live,
    phase::{Shared, admit::Admitted, leisure},
    trace::Trace,
};

/// Judges rules by what was generated again.
pub(crate) struct Auditor {
    settings: Settings,
    audit: Mutex<Audit>,
    jobs: mpsc::Sender<Job>,
}

/// Something that was served.
pub(crate) struct Job {
    admitted: Arc<Admitted>,
    live: Arc<Live>,
    trace: Trace,
    rule: Rule,
    text: String,
    cut: bool,
}

/// A longer request would hold much while it waits.
const BODY_BYTES_MAX: usize = 256 << 10;
/// What waits to be generated again; more is not audited.
const WAITING_MAX: usize = 64;

impl Auditor {
    pub(crate) fn new(settings: Settings) -> (Self, mpsc::Receiver<Job>) {
        let (jobs, taken) = mpsc::channel(WAITING_MAX);
        (Self { settings, audit: Mutex::default(), jobs }, taken)
    }

    fn audit<R>(&self, act: impl FnOnce(&mut Audit) -> R) -> R {
        // What is in it is whole at every moment.
        act(&mut self.audit.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// How a rule has done.
    pub(crate) fn tally(&self, rule: Rule) -> Tally {
        self.audit(|audit| audit.tally(rule))
    }

    /// What of the configured share is to be generated again; `draw` is from 0 to 1.
    pub(crate) fn served(
        &self,
        (admitted, live, trace): (&Arc<Admitted>, &Arc<Live>, &Trace),
        (rule, text, finish): (Rule, &str, Finish),
        draw: f64,
    ) {
        if draw >= self.settings.share || admitted.body.len() > BODY_BYTES_MAX {
            return;
        }
        let job = Job {
            admitted: Arc::clone(admitted),
            live: Arc::clone(live),
            trace: trace.clone(),
            rule,
            text: text.to_owned(),
            cut: finish == Finish::Length,
        };
        // Where too many wait, it is not audited.
        let _ = self.jobs.try_send(job);
    }

    /// Counts what came; where that makes a rule bad, it is off.
    fn compare(&self, shared: &Shared, job: &Job, fresh: &str) {
        let differs = differs(&job.text, job.cut, fresh);
        let (limit, rule) = (self.settings.limit, job.rule);
        let bad = self.audit(|audit| audit.count(rule, differs, limit));
        let result = if differs { "differs" } else { "equal" };
        shared.metrics.audits.with_label_values(&[rule.name(), result]).inc();
        let (_, most) = self.tally(rule).bounds();
        shared.metrics.audit_bound.with_label_values(&[rule.name()]).set(most);
        if bad && shared.rules.switch_off(rule) {
            let Tally { compared, differing } = self.tally(rule);
            tracing::error!(
                rule = rule.name(),
                compared,
                differing,
                limit,
                "a rule of reuse differs too often from fresh answers and is off until a restart"
            );
            shared.metrics.rule_serves.with_label_values(&[rule.name()]).set(0);
            let detail = json!({ "compared": compared, "differing": differing, "limit": limit });
            shared.events.emit("reuse_rule_off", rule.name(), detail);
        }
    }
}

/// Generates again what was served, one at a time, whenever the pods are idle.
pub(crate) async fn run(shared: Arc<Shared>, mut jobs: mpsc::Receiver<Job>) {
    while let Some(job) = jobs.recv().await {
        let fresh = again(&shared, &job).await;
        if let Some(fresh) = &fresh {
            shared.auditor.compare(&shared, &job, fresh);
        } else {
            shared.metrics.audits.with_label_values(&[job.rule.name(), "skipped"]).inc();
        }
    }
}

/// What a pod says to the same prompt now; `None` where none is idle, or none answers.
async fn again(shared: &Arc<Shared>, job: &Job) -> Option<String> {
    if shared.gate.waiting() > 0 || shared.upstreams.all().iter().any(|one| one.in_flight() > 0) {
        return None;
    }
    let admitted = job.admitted.for_later(clock::now());
    let asked = ("audit", &job.trace);
    let begun = leisure::begin((shared, &job.live), &admitted, asked, admitted.deadline).await;
    let (_place, generation) = begun.ok()?;
    if generation.head(&admitted).fingerprint != admitted.model.fingerprint() {
        return None;
    }
    generation.text().await.ok()
}
