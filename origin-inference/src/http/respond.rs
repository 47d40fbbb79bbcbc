//! A job's events to an answer: whole, or as server-sent events.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{
    body::{Body, Bytes},
    http::{StatusCode, header},
    response::{IntoResponse as _, Response},
};
use futures_util::stream;
use nearhop_admin::clock;
use nearhop_wire::{Answer, ApiError, Choice, DONE, Delta, ErrorKind, Finish, Head, Usage};
use prometheus::{Histogram, IntCounterVec};
use tokio::{
    sync::mpsc::{Receiver, channel},
    time::timeout_at,
};

use super::Refusal;
use crate::{
    queue::{Event, Failure},
    registry::Served,
};

/// An answer on its way.
pub(super) struct Reply {
    pub(super) events: Receiver<Event>,
    pub(super) head: Head,
    /// Choices.
    pub(super) n: usize,
    /// Choices that have not ended.
    pub(super) open: usize,
    pub(super) prompt_tokens: usize,
    /// Of them, those that were found in the prefix cache; known when the first choice begins.
    pub(super) cached_tokens: Option<usize>,
    /// Tokens so far; those that were resumed count.
    pub(super) completion_tokens: usize,
    pub(super) left_out: usize,
    pub(super) arrived: Instant,
    pub(super) deadline: Instant,
    pub(super) tokens: IntCounterVec,
    pub(super) duration_seconds: Histogram,
    /// Keeps the engine while this answer is on its way.
    pub(super) _served: Arc<Served>,
}

/// The answer broke off.
enum Broken {
    Engine,
    NotFinite,
    Deadline,
}

/// The request's deadline passed.
pub(super) fn late() -> Refusal {
    let message = "the answer was not finished within its deadline";
    Refusal::new(StatusCode::GATEWAY_TIMEOUT, ErrorKind::Server, "deadline_exceeded", message)
}

impl Broken {
    fn refusal(&self) -> Refusal {
        match self {
            Self::Engine => {
                let message = "the model failed while it computed this answer";
                let status = StatusCode::INTERNAL_SERVER_ERROR;
                Refusal::new(status, ErrorKind::Server, "engine_failed", message)
            }
            Self::NotFinite => {
                let message = "the model computed numbers that are none (NaN) for this request; the others are unharmed. If it repeats, load the model with another precision";
                let status = StatusCode::INTERNAL_SERVER_ERROR;
                Refusal::new(status, ErrorKind::Server, "model_not_finite", message)
            }
            Self::Deadline => late(),
        }
    }

    fn error(&self) -> ApiError {
        self.refusal().error
    }
}

impl Reply {
    async fn next(&mut self) -> Result<Delta, Broken> {
        loop {
            return match timeout_at(self.deadline.into(), self.events.recv()).await {
                Ok(Some(Event::Begun { cached })) => {
                    // Other choices find the prompt that the first one computed.
                    self.cached_tokens.get_or_insert(cached);
                    continue;
                }
                Ok(Some(Event::Delta(delta))) => {
                    self.completion_tokens += delta.token_ids.len();
                    self.open -= usize::from(delta.finish.is_some());
                    Ok(delta)
                }
                Ok(Some(Event::Failed(Failure::NotFinite))) => Err(Broken::NotFinite),
                // A channel that ends early is a worker that died.
                Ok(Some(Event::Failed(Failure::Step)) | None) => Err(Broken::Engine),
                Err(_elapsed) => Err(Broken::Deadline),
            };
        }
    }

    /// Counts a finished answer.
    fn finish(&self) -> Usage {
        let usage = Usage {
            prompt_tokens: self.prompt_tokens,
            completion_tokens: self.completion_tokens,
            cached_tokens: self.cached_tokens.unwrap_or(0).min(self.prompt_tokens),
            truncated_tokens: self.left_out,
        };
        self.tokens.with_label_values(&["input"]).inc_by(usage.prompt_tokens as u64);
        self.tokens.with_label_values(&["output"]).inc_by(usage.completion_tokens as u64);
        self.duration_seconds.observe((clock::now() - self.arrived).as_secs_f64());
        usage
    }

    /// The whole answer as one JSON body.
    pub(super) async fn whole(mut self) -> Result<Response, Refusal> {
        let mut choices =
            vec![
                Choice { text: String::new(), finish: Finish::Length, logprobs: Vec::new() };
                self.n
            ];
        while self.open > 0 {
            let delta = self.next().await.map_err(|broken| broken.refusal())?;
            let choice = &mut choices[delta.index];
            choice.text.push_str(&delta.text);
            choice.logprobs.extend(delta.logprobs);
            if let Some(finish) = delta.finish {
                choice.finish = finish;
            }
        }
        let usage = self.finish();
        let body = Answer { head: self.head, choices, usage }.body();
        Ok(([(header::CONTENT_TYPE, "application/json")], body).into_response())
    }

    /// Server-sent events: a piece each, the usage where asked for, `[DONE]`; after an error, an
    /// `error` event and no `[DONE]`.
    ///
    /// A task of its own makes them, which ends soon after the deadline whether or not anybody
    /// reads: a reader that stands still would hold the answer and its model for ever.
    pub(super) fn stream(self, include_usage: bool, return_token_ids: bool) -> Response {
        let until = self.deadline + UNREAD_MAX;
        let mut state = Some(Stream {
            begun: vec![false; self.n],
            reply: self,
            include_usage,
            return_token_ids,
        });
        let (pieces, read) = channel(PIECES_AHEAD);
        tokio::spawn(async move {
            while let Some(stream) = state {
                let (bytes, next) = tokio::select! {
                    step = stream.step() => step,
                    () = pieces.closed() => return,
                };
                if !matches!(timeout_at(until.into(), pieces.send(bytes)).await, Ok(Ok(()))) {
                    return;
                }
                state = next;
            }
        });
        let events = stream::unfold(read, |mut read| async {
            let bytes = read.recv().await?;
            Some((Ok::<_, std::convert::Infallible>(bytes), read))
        });
        let headers = [
            (header::CONTENT_TYPE, "text/event-stream; charset=utf-8"),
            (header::CACHE_CONTROL, "no-store"),
        ];
        (headers, Body::from_stream(events)).into_response()
    }
}

/// Pieces of an answer that wait for its reader.
const PIECES_AHEAD: usize = 8;
/// How long after the deadline they may still wait.
const UNREAD_MAX: Duration = Duration::from_secs(5);

struct Stream {
    reply: Reply,
    include_usage: bool,
    return_token_ids: bool,
    /// Choices that have had a piece.
    begun: Vec<bool>,
}

impl Stream {
    /// The next bytes, and what comes after them.
    async fn step(mut self) -> (Bytes, Option<Self>) {
        let mut delta = match self.reply.next().await {
            Ok(delta) => delta,
            Err(broken) => return (broken.error().event(), None),
        };
        if !self.return_token_ids {
            delta.token_ids.clear();
        }
        let first = !std::mem::replace(&mut self.begun[delta.index], true);
        let event = self.reply.head.delta_event(&delta, first);
        if self.reply.open > 0 {
            return (event, Some(self));
        }
        let usage = self.reply.finish();
        let mut end = event.to_vec();
        if self.include_usage {
            end.extend_from_slice(&self.reply.head.usage_event(usage));
        }
        end.extend_from_slice(DONE);
        (end.into(), None)
    }
}
