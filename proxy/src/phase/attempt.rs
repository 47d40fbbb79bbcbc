//! Walks the plan under one deadline until somebody begins to answer.
//!
//! Each attempt but the first is paid for from a budget that all requests share, so that trying
//! again never becomes the load that breaks what is left. Where the first is late while pods have
//! nothing else to do, a second is made beside it, and the faster one answers.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::HeaderValue;
use nearhop_admin::clock;
use nearhop_routing::{Candidate, Chain, Level, Rung, Tried, UpstreamId, Why};
use nearhop_wire::{Receiver, Resume, forward_body};
use prometheus::IntGauge;
use tokio::time::sleep_until;

use super::{
    Shared,
    admit::Admitted,
    generation::{Generation, open, out_of_time},
    route::{self, BACKUP, Constraints, Routed},
    running::Running,
    tries::Tries,
    under_way::UnderWay,
};
use crate::{
    live::Live,
    reject::Reject,
    trace::Trace,
    upstream::{
        exchange::Outgoing,
        member::{Role, Upstream},
        outcome::{Failed, Outcome, Refused, Then},
    },
};

/// The attempts of one request.
pub(crate) struct Attempts<'a> {
    shared: &'a Shared,
    live: &'a Live,
    admitted: &'a Admitted,
    request_id: String,
    tenant: HeaderValue,
    chain: Option<Chain>,
    constraints: Constraints,
    /// What the client has of the answer already.
    resume: Option<Resume>,
    /// The last body that was made, and for whom.
    body: Option<(Made, Bytes)>,
    /// Who was tried.
    tried: Vec<(UpstreamId, Tried)>,
    /// The same, for the record.
    tries: Tries,
    trace: Trace,
    made: usize,
    /// How the last attempt ended.
    last: Option<Outcome>,
    /// The shortest time after which one that was busy may not be.
    busy: Option<Duration>,
    seed: u64,
    /// Whether the budget knows of this request.
    counted: bool,
}

/// For whom a body is: under which name the model goes there, and whether that is a provider.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Made {
    model: String,
    provider: bool,
}

/// What follows.
enum Next<'a> {
    Try(Box<Start<'a>>),
    /// Whoever would take it is being tried again by others just now.
    Wait,
    Nothing,
}

/// An attempt about to be made.
struct Start<'a> {
    upstream: Arc<Upstream>,
    running: Running<'a>,
    outgoing: Outgoing,
    until: Instant,
    number: usize,
    next_token: Duration,
    /// The model's name as the answer will have it.
    model: String,
    /// When a second attempt is made beside it.
    hedge: Option<Instant>,
    /// Whether it is asked what was asked for: another model's limits are not the client's fault.
    as_asked: bool,
}

/// While whoever would take a request is being tried again by others.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

impl<'a> Attempts<'a> {
    pub(crate) fn new(
        shared: &'a Shared,
        live: &'a Live,
        admitted: &'a Admitted,
        (request_id, trace): (&str, &Trace),
        tries: Tries,
    ) -> Self {
        Self {
            shared,
            live,
            admitted,
            request_id: request_id.to_owned(),
            tenant: Outgoing::tenant_value(&admitted.head.caller.tenant),
            chain: route::chain(shared, admitted),
            constraints: Constraints::default(),
            resume: None,
            body: None,
            tried: Vec::new(),
            tries,
            trace: trace.clone(),
            made: 0,
            last: None,
            busy: None,
            seed: fastrand::u64(..),
            counted: false,
        }
    }

    /// Another region asks: one attempt, on a pod of this one.
    pub(crate) fn for_region(mut self) -> Self {
        self.constraints.from_region = true;
        self.resume.clone_from(&self.admitted.request.resume);
        self.constraints.resuming = self.resume.is_some();
        self
    }

    /// Nobody waits for it: a pod of this region is asked, or nobody.
    pub(crate) fn at_leisure(mut self) -> Self {
        self.constraints.at_leisure = true;
        self
    }

    /// Whether another could go on with an answer that breaks off on `upstream` now.
    pub(crate) fn could_resume(&self, upstream: UpstreamId, now: Instant) -> bool {
        let tried: Vec<_> = self
            .tried
            .iter()
            .filter(|(id, tried)| *id != upstream && *tried != Tried::Refused)
            .copied()
            .chain([(upstream, Tried::Refused)])
            .collect();
        let constraints = Constraints { resuming: true, ..self.constraints };
        let (known, at) = ((self.chain.as_ref(), tried.as_slice()), (now, self.seed));
        let routed = route::plan(self.shared, self.admitted, known, constraints, at);
        !routed.plan.candidates.is_empty()
            && self.shared.budget(|budget| budget.allows(self.tenant(), now))
    }

    /// The next attempts go on with an answer of which the client has so much.
    pub(crate) fn resuming(&mut self, resume: Resume) {
        self.constraints.resuming = true;
        self.resume = Some(resume);
        self.body = None;
        // Who was busy then may not be now.
        self.tried.retain(|(_, tried)| *tried != Tried::Refused);
        // It made progress: those before are not held against what is to come.
        self.made = self.made.min(1);
    }

    /// The next one that begins to answer.
    pub(crate) async fn begin(&mut self) -> Result<Generation<'a>, Reject> {
        let _waiting = Waiting::new(&self.shared.metrics.queue_depth);
        let mut running = UnderWay::default();
        // Those under way, and since when.
        let mut waiting: Vec<(Arc<Upstream>, Instant)> = Vec::new();
        let mut hedge = None;
        loop {
            let now = clock::now();
            if now >= self.admitted.deadline {
                return Err(Reject::Deadline);
            }
            if running.is_empty() {
                match self.next(now)? {
                    Next::Try(start) => {
                        hedge = start.hedge;
                        waiting.push((Arc::clone(&start.upstream), now));
                        running.push(self.attempt(*start));
                    }
                    Next::Wait => {
                        sleep_until((now + LOOK_AGAIN).min(self.admitted.deadline).into()).await;
                        continue;
                    }
                    Next::Nothing => return Err(self.exhausted()),
                }
            }
            let late = sleep_until(hedge.unwrap_or(self.admitted.deadline).into());
            tokio::select! {
                (upstream, number, attempted) = running.next() => {
                    let outcome = attempted.as_ref().map_or_else(Outcome::name, |_| "begun");
                    self.tries.end(number, outcome, clock::now());
                    waiting.retain(|(waiting, _)| waiting.id != upstream);
                    match attempted {
                        Ok(generation) => {
                            self.outrun(&waiting);
                            // Streams wait for long, and few are gone on with: it would be made anew.
                            self.body = None;
                            return Ok(generation);
                        }
                        Err(Outcome::ClientFault { status, error }) => {
                            return Err(Reject::ClientFault { status, error });
                        }
                        Err(outcome) => self.lost(upstream, outcome),
                    }
                }
                () = late, if hedge.is_some() => {
                    hedge = None;
                    let now = clock::now();
                    if let Some(start) = self.hedge(now)? {
                        waiting.push((Arc::clone(&start.upstream), now));
                        running.push(self.attempt(*start));
                    }
                }
            }
        }
    }

    /// Who is asked next, and paid for.
    fn next(&mut self, now: Instant) -> Result<Next<'a>, Reject> {
        let most = if self.constraints.from_region { 1 } else { self.live.waits.attempts };
        if self.made >= most {
            return Ok(Next::Nothing);
        }
        let routed = self.routed(now);
        let Some(candidate) = routed.plan.candidates.first().copied() else {
            return Ok(if routed.plan.full { Next::Wait } else { Next::Nothing });
        };
        // The first is what budgets are made of; that of another region's request is in its own.
        match self.made {
            0 if self.counted || self.constraints.from_region => {}
            0 => {
                self.counted = true;
                self.shared.budget(|budget| budget.request(self.tenant(), now));
            }
            _ if !self.shared.budget(|budget| budget.retry(self.tenant(), now)) => {
                self.shared.metrics.retries_denied.inc();
                return Ok(Next::Nothing);
            }
            _ => {}
        }
        let start = self.start(&routed, candidate, now)?;
        // It filled up meanwhile.
        Ok(start.map_or(Next::Wait, |start| Next::Try(Box::new(start))))
    }

    /// A second attempt beside one that is late, where that is worth it.
    fn hedge(&mut self, now: Instant) -> Result<Option<Box<Start<'a>>>, Reject> {
        let routed = self.routed(now);
        let first = routed.plan.candidates.first().copied();
        let another =
            |candidate: &Candidate| candidate.rung == Rung::Pods && candidate.why != Why::Again;
        let Some(candidate) = first.filter(another) else { return Ok(None) };
        let busy = routed.queues() || self.shared.gate.waiting() > 0;
        if busy || !self.shared.budget(|budget| budget.hedge(self.tenant(), now)) {
            return Ok(None);
        }
        self.shared.metrics.hedges.inc();
        Ok(self.start(&routed, candidate, now)?.map(Box::new))
    }

    /// Another was faster than those that wait. They took at least as long as they did so far; left
    /// out, whoever is slow would vanish from what is known, and second attempts come ever sooner.
    fn outrun(&self, waiting: &[(Arc<Upstream>, Instant)]) {
        let (now, bytes) = (clock::now(), self.admitted.request.input.bytes());
        for (upstream, began) in waiting {
            self.shared.upstreams.first_content(upstream, (bytes, now - *began), now);
        }
    }

    fn tenant(&self) -> &str {
        &self.admitted.head.caller.tenant
    }

    fn routed(&self, now: Instant) -> Routed {
        let known = (self.chain.as_ref(), self.tried.as_slice());
        // One draw for a whole request: what one of many may do, it does at every step.
        let at = (now, self.seed);
        route::plan(self.shared, self.admitted, known, self.constraints, at)
    }

    /// Gets an attempt ready; `None` where whoever was chosen takes none any more.
    fn start(
        &mut self,
        routed: &Routed,
        candidate: Candidate,
        now: Instant,
    ) -> Result<Option<Start<'a>>, Reject> {
        let upstream = Arc::clone(&routed.upstreams[candidate.at]);
        let begun = upstream.begin(candidate.why == Why::LastResort, now);
        let Some((pass, change)) = begun else { return Ok(None) };
        self.shared.upstreams.changed(&upstream, change, now);
        let pass = (pass, self.tenant());
        let running = Running::new(&self.shared.upstreams, &upstream, pass);
        tracing::debug!(upstream = upstream.name, why = candidate.why.name(), "attempt");
        self.made += 1;
        self.tried.retain(|(id, _)| *id != upstream.id);
        // Until it is known better: nobody asks it twice at once.
        self.tried.push((upstream.id, Tried::Lost));
        let (made, path) = self.addressed(&upstream, candidate.rung, now);
        let body = self.body_for(&made)?;
        let span = fastrand::u64(1..);
        let number = self.tries.begin(&upstream, span, now);
        let others = routed.plan.candidates.len() > 1 && self.made < self.live.waits.attempts;
        let waits = upstream.role.provider().map(|provider| provider.waits());
        let (first, next_token) =
            waits.unwrap_or((self.live.waits.first_byte, self.live.waits.next_token));
        if let Some(chain) = &self.chain {
            self.shared.upstreams.sent(chain, &upstream);
        }
        let outgoing = Outgoing {
            path,
            body,
            request_id: self.request_id.clone(),
            traceparent: self.trace.header_under(span),
            tracestate: self.trace.state().cloned(),
            deadline: self.admitted.deadline,
            tenant: self.tenant.clone(),
            kind: self.admitted.kind,
            from: self.shared.region.clone(),
        };
        let hedge = self.hedge_at(routed, candidate, now);
        let until = first_byte(now, self.admitted.deadline, first, others);
        let model = made.model;
        let as_asked =
            matches!(candidate.rung, Rung::Pods | Rung::Regions) && self.resume.is_none();
        let start = Start {
            upstream,
            running,
            outgoing,
            until,
            number,
            next_token,
            model,
            hedge,
            as_asked,
        };
        Ok(Some(start))
    }

    /// When a second attempt is made beside the first, if at all.
    fn hedge_at(&self, routed: &Routed, candidate: Candidate, now: Instant) -> Option<Instant> {
        let worth = self.live.hedge
            && self.made == 1
            && candidate.rung == Rung::Pods
            && routed.plan.candidates.len() > 1
            && self.constraints == Constraints::default()
            && self.shared.level() < Level::L1
            && !routed.queues();
        let bytes = self.admitted.request.input.bytes();
        let after = worth.then(|| self.shared.upstreams.hedge_after(bytes)).flatten()?;
        Some(now + after)
    }

    /// Under which name the model goes there, and at which path it is asked for.
    fn addressed(&self, upstream: &Upstream, rung: Rung, now: Instant) -> (Made, String) {
        let path = self.admitted.request.pod_path();
        let asked = &self.admitted.model.name;
        let pods = |model: String| (Made { model, provider: false }, path.to_owned());
        match (&upstream.role, rung) {
            (Role::Provider(provider), _) => {
                let model = provider.model(&self.admitted.model).to_owned();
                (Made { model, provider: true }, provider.path(path))
            }
            (Role::Local, _) => {
                let look = upstream.look(now);
                let first = look.report.as_ref().and_then(|report| report.models.first());
                pods(first.map_or_else(|| asked.clone(), |model| model.name.clone()))
            }
            (Role::Pod | Role::Region(_), Rung::Backup) => {
                let backup = self.shared.upstreams.model(Some(BACKUP));
                pods(backup.map_or_else(|| asked.clone(), |model| model.name.clone()))
            }
            (Role::Pod | Role::Region(_), _) => pods(self.admitted.name_at_pod()),
        }
    }

    fn body_for(&mut self, made: &Made) -> Result<Bytes, Reject> {
        if let Some((last, body)) = &self.body
            && last == made
        {
            return Ok(body.clone());
        }
        let receiver = match made.provider {
            true => Receiver::Provider,
            false => Receiver::Pod { resume: self.resume.as_ref() },
        };
        let (request, sent) = (&self.admitted.request, &self.admitted.body);
        let body = forward_body(request, sent, &made.model, receiver).map_err(Reject::Invalid)?;
        let body = Bytes::from(body);
        self.body = Some((made.clone(), body.clone()));
        Ok(body)
    }

    /// An attempt was lost, begun or not, and another may follow.
    pub(crate) fn lost(&mut self, upstream: UpstreamId, outcome: Outcome) {
        debug_assert_eq!(outcome.then(), Then::Next, "{outcome:?}");
        tracing::info!(
            request_id = self.request_id,
            outcome = outcome.name(),
            attempts = self.made,
            "attempt lost"
        );
        let tried = match outcome {
            Outcome::Refused(_) | Outcome::OurFault(_) => Tried::Refused,
            _ => Tried::Lost,
        };
        self.tried.retain(|(id, _)| *id != upstream);
        self.tried.push((upstream, tried));
        if let Outcome::Refused(Refused::Busy { retry_after }) = outcome {
            let least = self.busy.map_or(retry_after, |busy| busy.min(retry_after));
            self.busy = Some(least);
        }
        self.last = Some(outcome);
    }

    /// What to tell the client when nobody is left to try.
    fn exhausted(&self) -> Reject {
        match (&self.last, self.busy) {
            // Whoever failed beside: it is worth to come back.
            (_, Some(retry_after)) => Reject::AllBusy { retry_after },
            (None | Some(Outcome::Refused(_)), None) => Reject::NoPods,
            (Some(_), None) => Reject::AllFailed,
        }
    }

    /// Makes an attempt.
    fn attempt(
        &self,
        start: Start<'a>,
    ) -> impl Future<Output = (UpstreamId, usize, Result<Generation<'a>, Outcome>)> + use<'a> {
        let (shared, admitted) = (self.shared, self.admitted);
        let resuming = self.constraints.resuming;
        async move {
            let Start { upstream, mut running, outgoing, until, number, .. } = start;
            let (next_token, model, as_asked) = (start.next_token, start.model, start.as_asked);
            let id = upstream.id;
            let (mut ejections, began) = (upstream.ejections(), clock::now());
            let opened = tokio::select! {
                opened = open(shared, admitted, (&upstream, &outgoing), until) => opened,
                _ = ejections.changed() => Err(Outcome::Failed(Failed::Ejected)),
            };
            let attempted = match opened {
                Ok((exchange, events)) => {
                    let now = clock::now();
                    running.begins();
                    let sample = (admitted.request.input.bytes(), now - began);
                    shared.upstreams.first_content(&upstream, sample, now);
                    Ok(Generation {
                        next_token,
                        upstream,
                        model,
                        as_asked,
                        exchange,
                        events,
                        ejections,
                        running,
                        admitted,
                    })
                }
                Err(outcome) => {
                    let outcome = match outcome.excused(out_of_time(admitted, clock::now())) {
                        // Nor is that the client's fault which a part of it was taken as good.
                        Outcome::ClientFault { .. } if !as_asked || resuming => {
                            Outcome::Refused(Refused::Unfit)
                        }
                        outcome => outcome,
                    };
                    running.end(&outcome);
                    Err(outcome)
                }
            };
            (id, number, attempted)
        }
    }
}

/// How long an attempt may wait for its first content: half of what remains, so that a silent pod
/// always leaves time for another; all of it where there is no other.
fn first_byte(now: Instant, deadline: Instant, cap: Duration, others: bool) -> Instant {
    let left = deadline.saturating_duration_since(now);
    now + if others { left / 2 } else { left }.min(cap)
}

/// A request that waits for its first content.
pub(super) struct Waiting<'a>(&'a IntGauge);

impl<'a> Waiting<'a> {
    pub(super) fn new(gauge: &'a IntGauge) -> Self {
        gauge.inc();
        Self(gauge)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.dec();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_silent_pod_leaves_time_for_another() {
        let now = clock::now();
        let second = Duration::from_secs(1);
        let wait = |others| first_byte(now, now + 8 * second, 30 * second, others) - now;
        assert_eq!((wait(true), wait(false)), (4 * second, 8 * second));
        assert_eq!(first_byte(now, now + 100 * second, 30 * second, true) - now, 30 * second);
        assert_eq!(first_byte(now + second, now, second, false), now + second);
    }
}
