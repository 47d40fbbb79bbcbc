//! Walks the pods under one deadline until one begins to answer.

use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use nearhop_admin::clock;
use nearhop_wire::{Chunk, Head as AnswerHead, forward_body};
use prometheus::IntGauge;
use tokio::sync::watch;

use super::{
    Shared,
    admit::Admitted,
    route::{self, Tried as Place},
    tries::{Tried, Tries},
};
use crate::{
    event::Event,
    live::Live,
    reject::Reject,
    trace::Trace,
    upstream::{
        exchange::{Exchange, Outgoing},
        outcome::{Failed, Outcome, Refused, Then},
        pods::{InFlight, Pod, Pods},
    },
};

/// The attempts of one request.
pub(crate) struct Attempts<'a> {
    shared: &'a Shared,
    live: &'a Live,
    admitted: &'a Admitted,
    outgoing: Outgoing,
    /// By the pods' places.
    places: Vec<Place>,
    /// What was tried.
    tried: Tries,
    trace: Trace,
    /// The pod of the last attempt.
    at: usize,
    made: usize,
    /// How the last attempt ended.
    last: Option<Outcome>,
}

impl<'a> Attempts<'a> {
    pub(crate) fn new(
        shared: &'a Shared,
        live: &'a Live,
        admitted: &'a Admitted,
        (request_id, trace): (&str, &Trace),
        tried: Tries,
    ) -> Result<Self, Reject> {
        let body = forward_body(&admitted.request, &admitted.body, &admitted.name_at_pod())
            .map_err(Reject::Invalid)?;
        let outgoing = Outgoing {
            path: admitted.request.pod_path(),
            body: Bytes::from(body),
            request_id: request_id.to_owned(),
            traceparent: trace.header(),
            tracestate: trace.state().cloned(),
            deadline: admitted.deadline,
            tenant: Outgoing::tenant_value(&admitted.head.caller.tenant),
            kind: admitted.kind,
        };
        let places = vec![Place::No; shared.pods.iter().count()];
        let trace = trace.clone();
        Ok(Self {
            shared,
            live,
            admitted,
            outgoing,
            places,
            tried,
            trace,
            at: 0,
            made: 0,
            last: None,
        })
    }

    /// The next pod that begins to answer.
    pub(crate) async fn begin(&mut self) -> Result<Generation<'a>, Reject> {
        let _waiting = Waiting::new(&self.shared.metrics.queue_depth);
        loop {
            let now = clock::now();
            if now >= self.admitted.deadline {
                return Err(Reject::Deadline);
            }
            let candidate = (self.made < self.live.waits.attempts)
                .then(|| {
                    let views = self.shared.pods.views();
                    let model = (self.admitted.model.as_ref(), self.admitted.pinned());
                    route::choose(&views, &self.places, model, fastrand::u64(..))
                })
                .flatten();
            let Some(candidate) = candidate else { return Err(self.exhausted()) };
            tracing::debug!(pod = candidate.pod, why = ?candidate.why, "attempt");
            self.at = candidate.pod;
            self.made += 1;
            let until = first_byte(
                now,
                self.admitted.deadline,
                self.live.waits.first_byte,
                candidate.others && self.made < self.live.waits.attempts,
            );
            let pod = self.shared.pods.get(candidate.pod);
            let span = fastrand::u64(1..);
            self.outgoing.traceparent = self.trace.header_under(span);
            // Written down first: this may be dropped where the client goes away.
            let (began, pod_tried) = (now, Arc::clone(pod));
            let tried = Tried { pod: pod_tried, span, began, ended: now, outcome: "dropped" };
            self.tried.with(|all| all.push(tried));
            let attempted = self.attempt(pod, until).await;
            self.tried.with(|all| {
                if let Some(tried) = all.last_mut() {
                    tried.ended = clock::now();
                    tried.outcome = attempted.as_ref().map_or_else(Outcome::name, |_| "begun");
                }
            });
            match attempted {
                Ok(generation) => return Ok(generation),
                Err(Outcome::ClientFault { status, error }) => {
                    return Err(Reject::ClientFault { status, error });
                }
                Err(outcome) => self.lost(outcome),
            }
        }
    }

    /// An attempt was lost and another may follow.
    pub(crate) fn lost(&mut self, outcome: Outcome) {
        debug_assert_eq!(outcome.then(), Then::Next, "{outcome:?}");
        tracing::info!(
            request_id = self.outgoing.request_id,
            outcome = outcome.name(),
            attempts = self.made,
            "attempt lost"
        );
        self.places[self.at] = match outcome {
            Outcome::Refused(_) | Outcome::OurFault(_) => Place::Refused,
            _ => Place::Lost,
        };
        self.last = Some(outcome);
    }

    /// What to tell the client when no pod is left to try.
    fn exhausted(&self) -> Reject {
        match &self.last {
            None => Reject::NoPods,
            Some(Outcome::Refused(Refused::Busy { retry_after })) => {
                Reject::AllBusy { retry_after: *retry_after }
            }
            Some(Outcome::Refused(Refused::Connection)) => Reject::NoPods,
            Some(_) => Reject::AllFailed,
        }
    }

    async fn attempt(&self, pod: &Arc<Pod>, until: Instant) -> Result<Generation<'a>, Outcome> {
        let mut running = Running::new(&self.shared.pods, pod);
        let mut ejections = pod.ejections();
        let opened = tokio::select! {
            opened = self.open(pod, until) => opened,
            _ = ejections.changed() => Err(Outcome::Failed(Failed::Ejected)),
        };
        match opened {
            Ok((exchange, events)) => Ok(Generation {
                next_token: self.live.waits.next_token,
                pod: Arc::clone(pod),
                exchange,
                events,
                ejections,
                running,
                admitted: self.admitted,
            }),
            Err(outcome) => {
                let outcome = outcome.excused(out_of_time(self.admitted));
                running.end(&outcome);
                Err(outcome)
            }
        }
    }

    /// An exchange with its first content.
    async fn open(
        &self,
        pod: &Arc<Pod>,
        until: Instant,
    ) -> Result<(Exchange<'a>, Events), Outcome> {
        let mut exchange = self.shared.exchanges.open(pod, &self.outgoing, until).await?;
        let mut events = Events::default();
        while !events.has_content() {
            let data = exchange.next(until).await.map_err(|outcome| match outcome {
                Outcome::Failed(Failed::TokenTimeout) => Outcome::Failed(Failed::FirstByteTimeout),
                outcome => outcome,
            })?;
            // A stream that ends without its terminator broke off.
            events.push(&data.ok_or(Outcome::Failed(Failed::Reset))?)?;
        }
        Ok((exchange, events))
    }
}

/// How long an attempt may wait for its first content: half of what remains, so that a silent pod
/// always leaves time for another; all of it where there is no other.
fn first_byte(now: Instant, deadline: Instant, cap: Duration, others: bool) -> Instant {
    let left = deadline.saturating_duration_since(now);
    now + if others { left / 2 } else { left }.min(cap)
}

/// An answer that has begun.
pub(crate) struct Generation<'a> {
    next_token: Duration,
    pod: Arc<Pod>,
    exchange: Exchange<'a>,
    events: Events,
    ejections: watch::Receiver<u64>,
    running: Running<'a>,
    admitted: &'a Admitted,
}

/// Whether a time-out now is the request's own affair.
fn out_of_time(admitted: &Admitted) -> bool {
    admitted.hurried || clock::now() >= admitted.deadline
}

impl Generation<'_> {
    /// What the answer begins with, in this edge's words.
    pub(crate) fn head(&self, admitted: &Admitted) -> AnswerHead {
        let head = self.events.head.clone().unwrap_or_default();
        AnswerHead {
            id: head.id,
            created: head.created,
            model: admitted.model.name.clone(),
            fingerprint: head.fingerprint,
            endpoint: admitted.request.endpoint,
        }
    }

    /// The name of the pod that answers.
    pub(crate) fn pod(&self) -> &str {
        &self.pod.name
    }

    /// The next piece, if it has arrived already: what came together is sent on together.
    pub(crate) fn arrived(&mut self) -> Result<Option<Event>, Outcome> {
        loop {
            if let Some(event) = self.events.next() {
                return Ok(Some(event));
            }
            match self.exchange.arrived()? {
                Some(data) => self.events.push(&data)?,
                None => return Ok(None),
            }
        }
    }

    /// The next piece. Nothing comes after [`Event::Done`] or an error. Where its pod is ejected, it
    /// is lost, unless `kept` says that somebody has sent some of it.
    pub(crate) async fn next(&mut self, kept: impl Fn() -> bool) -> Result<Event, Outcome> {
        loop {
            if let Some(event) = self.events.next() {
                return Ok(event);
            }
            let now = clock::now();
            let until = (now + self.next_token).min(self.admitted.deadline);
            let data = tokio::select! {
                data = self.exchange.next(until) => {
                    data.map_err(|outcome| outcome.excused(out_of_time(self.admitted)))?
                }
                _ = self.ejections.changed(), if !kept() => match kept() {
                    true => continue,
                    false => return Err(Outcome::Failed(Failed::Ejected)),
                },
            };
            self.events.push(&data.ok_or(Outcome::Failed(Failed::Reset))?)?;
        }
    }

    /// Reads it to its end, for nobody who waits; the pod is judged by how it ended.
    pub(crate) async fn read(mut self, mut take: impl FnMut(Event)) -> Result<(), Outcome> {
        loop {
            match self.next(|| true).await {
                Ok(Event::Done) => {
                    self.finish().await;
                    return Ok(());
                }
                Ok(event) => take(event),
                Err(outcome) => {
                    self.lost(&outcome);
                    return Err(outcome);
                }
            }
        }
    }

    /// It ended well: the pod is judged so, and the connection given back.
    pub(crate) async fn finish(mut self) {
        self.running.end(&Outcome::Done);
        self.exchange.finish().await;
    }

    /// It was lost: the pod is judged so, and the connection closed. Dropping a generation without
    /// a word abandons it, which stops the pod's work and says nothing of the pod.
    pub(crate) fn lost(mut self, outcome: &Outcome) {
        self.running.end(outcome);
    }
}

/// Events that have arrived and were not taken yet.
#[derive(Debug, Default)]
struct Events {
    head: Option<EventHead>,
    queue: VecDeque<Event>,
}

#[derive(Debug, Clone, Default)]
struct EventHead {
    id: String,
    created: u64,
    fingerprint: String,
}

impl Events {
    fn next(&mut self) -> Option<Event> {
        self.queue.pop_front()
    }

    /// Whether anything that a client would see is there.
    fn has_content(&self) -> bool {
        self.queue.iter().any(|event| match event {
            Event::Delta(delta) => !delta.text.is_empty() || delta.finish.is_some(),
            Event::Usage(_) => false,
            Event::Done => true,
        })
    }

    fn push(&mut self, data: &[u8]) -> Result<(), Outcome> {
        if data == b"[DONE]" {
            self.queue.push_back(Event::Done);
            return Ok(());
        }
        let Ok(chunk) = serde_json::from_slice::<Chunk<'_>>(data) else {
            return Err(match nearhop_wire::ApiError::parse(data) {
                Some(_) => Outcome::Failed(Failed::ServerError),
                None => Outcome::Failed(Failed::Garbage),
            });
        };
        self.head.get_or_insert_with(|| EventHead {
            id: chunk.id.clone().into_owned(),
            created: chunk.created,
            fingerprint: chunk.system_fingerprint.clone().unwrap_or_default().into_owned(),
        });
        let usage = chunk.usage();
        self.queue
            .extend(chunk.choices.into_iter().map(|choice| Event::Delta(choice.into_delta())));
        self.queue.extend(usage.map(Event::Usage));
        Ok(())
    }
}

/// An attempt in progress: counted on its pod, and judged exactly once, however it ends.
struct Running<'a> {
    pods: &'a Pods,
    pod: Arc<Pod>,
    in_flight: Option<InFlight>,
}

impl<'a> Running<'a> {
    fn new(pods: &'a Pods, pod: &Arc<Pod>) -> Self {
        Self { pods, pod: Arc::clone(pod), in_flight: Some(pod.enter()) }
    }

    fn end(&mut self, outcome: &Outcome) {
        if self.in_flight.take().is_some() {
            self.pods.attempted(&self.pod, outcome, clock::now());
        }
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.end(&Outcome::Abandoned);
    }
}

/// A request that waits for a pod's first content.
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

    #[test]
    fn only_what_a_client_would_see_is_content() {
        let mut events = Events::default();
        events.push(br#"{"id":"1","created":1,"choices":[{"index":0,"delta":{"role":"assistant","content":""}}]}"#).unwrap();
        assert!(!events.has_content());
        events
            .push(br#"{"id":"1","created":1,"choices":[{"index":0,"delta":{"content":"a"}}]}"#)
            .unwrap();
        assert!(events.has_content());
    }

    #[test]
    fn an_error_event_is_the_pods_failure_and_anything_else_garbage() {
        let mut events = Events::default();
        let error = nearhop_wire::ApiError::invalid("x", "y").body();
        assert_eq!(events.push(&error), Err(Outcome::Failed(Failed::ServerError)));
        assert_eq!(events.push(b"<html>"), Err(Outcome::Failed(Failed::Garbage)));
    }
}
