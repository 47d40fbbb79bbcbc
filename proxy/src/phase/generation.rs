//! An answer that has begun: its events as they come, in this edge's words, trusting nobody.

use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, Instant},
};

use nearhop_admin::clock;
use nearhop_routing::Class;
use nearhop_wire::{Chunk, ChunkChoice, Delta, Head as AnswerHead, Usage};
use tokio::sync::watch;

use super::{Shared, admit::Admitted, limit, running::Running};
use crate::{
    event::Event,
    upstream::{
        exchange::{Exchange, Outgoing},
        member::{Ejections, Upstream},
        outcome::{Failed, Outcome},
    },
};

/// Pieces without a text before the first that has one.
const BEFORE_CONTENT_MAX: usize = 256;

/// An answer that has begun.
pub(crate) struct Generation<'a> {
    pub(super) next_token: Duration,
    pub(super) upstream: Arc<Upstream>,
    /// The model's name, as it was asked for there.
    pub(super) model: String,
    /// Whether that is the model that the client asked for.
    pub(super) as_asked: bool,
    pub(super) exchange: Exchange<'a>,
    pub(super) events: Events,
    pub(super) ejections: watch::Receiver<Ejections>,
    pub(super) running: Running<'a>,
    pub(super) admitted: &'a Admitted,
}

/// Whether a time-out at `now` is the request's own affair.
pub(super) fn out_of_time(admitted: &Admitted, now: Instant) -> bool {
    admitted.hurried || now >= admitted.deadline
}

impl Generation<'_> {
    /// What the answer begins with, in this edge's words: who answered with which weights, as far
    /// as that is known.
    pub(crate) fn head(&self, admitted: &Admitted) -> AnswerHead {
        let head = self.events.head.clone().unwrap_or_default();
        let is_asked = self.model == admitted.name_at_pod();
        let model = if is_asked { &admitted.model.name } else { &self.model };
        let fingerprint = match self.upstream.class() {
            // It must not pass for weights of ours.
            Class::Provider => format!("{}/{}", self.upstream.name, self.model),
            Class::Pod | Class::Region | Class::Local => head.fingerprint,
        };
        AnswerHead {
            id: if head.id.is_empty() { "cmpl-external".to_owned() } else { head.id },
            created: match head.created {
                0 => clock::since_epoch().as_secs(),
                created => created,
            },
            model: model.clone(),
            fingerprint,
            endpoint: admitted.request.endpoint,
        }
    }

    /// Who answers.
    pub(crate) fn upstream(&self) -> &Upstream {
        &self.upstream
    }

    /// Whether it could be gone on with elsewhere: others have its weights, and it tells its tokens.
    pub(crate) fn tells_tokens(&self) -> bool {
        self.as_asked && matches!(self.upstream.class(), Class::Pod | Class::Region)
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

    /// The next piece. Nothing comes after [`Event::Done`] or an error. Where its upstream is taken
    /// out, it is lost, unless `kept` says that it is worth waiting for all the same.
    pub(crate) async fn next(&mut self, kept: impl Fn() -> bool) -> Result<Event, Outcome> {
        loop {
            if let Some(event) = self.events.next() {
                return Ok(event);
            }
            let now = clock::now();
            let until = (now + self.next_token).min(self.admitted.deadline);
            let data = tokio::select! {
                data = self.exchange.next(until) => {
                    data.map_err(|outcome| outcome.excused(out_of_time(self.admitted, clock::now())))?
                }
                // A connection that breaks says so itself; one that hangs says nothing.
                _ = self.ejections.changed() => {
                    let hangs = self.ejections.borrow_and_update().hangs();
                    match !hangs || kept() {
                        true => continue,
                        false => return Err(Outcome::Failed(Failed::Ejected)),
                    }
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

    /// [`Self::read`], for what it says.
    pub(crate) async fn text(self) -> Result<String, Outcome> {
        let mut text = String::new();
        let read = self.read(|event| {
            if let Event::Delta(delta) = event {
                text.push_str(&delta.text);
            }
        });
        read.await?;
        Ok(text)
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
pub(super) struct Events {
    head: Option<EventHead>,
    queue: VecDeque<Event>,
    /// What has to be known of a provider's stream.
    foreign: Option<Foreign>,
}

/// An event that says that it went wrong; every provider has its own words for why.
#[derive(serde::Deserialize)]
struct Told {
    #[serde(rename = "error")]
    _error: serde::de::IgnoredAny,
}

/// A provider's stream: some tell no usage, some tell it with each piece, and some say something
/// more after a choice's end.
#[derive(Debug)]
struct Foreign {
    /// As it was told last, or a guess; said at the end, once.
    usage: Usage,
    told: bool,
    /// Choices that have ended.
    ended: Vec<usize>,
}

impl Foreign {
    /// The piece, where anything is in it: behind a choice's end most have nothing more to say.
    fn take(&mut self, delta: Delta) -> Option<Delta> {
        let again = self.ended.contains(&delta.index) && delta.text.is_empty();
        if delta.finish.is_some() && !again {
            self.ended.push(delta.index);
        }
        (!again).then_some(delta)
    }
}

#[derive(Debug, Clone, Default)]
struct EventHead {
    id: String,
    created: u64,
    fingerprint: String,
}

impl Events {
    fn of(upstream: &Upstream, admitted: &Admitted) -> Self {
        let foreign = upstream.class() == Class::Provider;
        let prompt = usize::try_from(limit::prompt_guess(admitted)).unwrap_or(usize::MAX);
        let usage = Usage { prompt_tokens: prompt, ..Usage::default() };
        let foreign = foreign.then(|| Foreign { usage, told: false, ended: Vec::new() });
        Self { foreign, ..Self::default() }
    }

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
            let usage = self.foreign.take().map(|foreign| foreign.usage);
            self.queue.extend(usage.map(Event::Usage));
            self.queue.push_back(Event::Done);
            return Ok(());
        }
        let Ok(chunk) = serde_json::from_slice::<Chunk<'_>>(data) else {
            return Err(match serde_json::from_slice::<Told>(data) {
                Ok(_) => Outcome::Failed(Failed::ServerError),
                Err(_) => Outcome::Failed(Failed::Garbage),
            });
        };
        self.head.get_or_insert_with(|| EventHead {
            id: chunk.id.clone().into_owned(),
            created: chunk.created,
            fingerprint: chunk.system_fingerprint.clone().unwrap_or_default().into_owned(),
        });
        let usage = chunk.usage();
        let deltas = chunk.choices.into_iter().map(ChunkChoice::into_delta);
        let Some(foreign) = &mut self.foreign else {
            self.queue.extend(deltas.map(Event::Delta));
            self.queue.extend(usage.map(Event::Usage));
            return Ok(());
        };
        for delta in deltas {
            foreign.usage.completion_tokens += usize::from(!foreign.told);
            self.queue.extend(foreign.take(delta).map(Event::Delta));
        }
        if let Some(usage) = usage {
            (foreign.usage, foreign.told) = (usage, true);
        }
        Ok(())
    }
}

/// An exchange with its first content.
pub(super) async fn open<'a>(
    shared: &'a Shared,
    admitted: &Admitted,
    (upstream, outgoing): (&Arc<Upstream>, &Outgoing),
    until: Instant,
) -> Result<(Exchange<'a>, Events), Outcome> {
    let mut exchange = shared.exchanges.open(upstream, outgoing, until).await?;
    let mut events = Events::of(upstream, admitted);
    while !events.has_content() {
        if events.queue.len() > BEFORE_CONTENT_MAX {
            return Err(Outcome::Failed(Failed::Garbage));
        }
        let data = exchange.next(until).await.map_err(|outcome| match outcome {
            Outcome::Failed(Failed::TokenTimeout) => Outcome::Failed(Failed::FirstByteTimeout),
            outcome => outcome,
        })?;
        // A stream that ends without its terminator broke off.
        events.push(&data.ok_or(Outcome::Failed(Failed::Reset))?)?;
    }
    Ok((exchange, events))
}

#[cfg(test)]
mod tests {
    use super::*;

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
