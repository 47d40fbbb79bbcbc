//! The answer to the client, and into the cache after its terminator.

mod collect;
mod headers;

use bytes::{Bytes, BytesMut};
use http::{HeaderValue, StatusCode, header};
use nearhop_admin::clock;
use nearhop_wire::{
    Answer, ApiError, Choice, CompletionRequest, Delta, ErrorKind, EventWriter, Finish,
    Head as AnswerHead, Usage,
};
use serde_json::json;

use self::{
    collect::Collector,
    headers::{
        Headers, JSON, NO_STORE, SHOULD_RETRY, SOURCE, SSE, answer_headers, common, origin_headers,
        standing_headers, timing,
    },
};
use super::{
    admit::Admitted,
    attempt::{Committed, Event, Generation},
    lookup::{Hit, Ticket},
    record::{Record, Source},
};
use crate::{
    client::{Client, Gone, ResponseHead},
    reject::Reject,
    upstream::outcome::Outcome,
};

/// What follows a begun generation.
pub(crate) enum Next {
    /// The client has its answer, or is gone, or knows that the answer broke off.
    Answered,
    /// It was lost before the client saw any of it.
    Again(Outcome),
}

/// `/health`: whether this edge would answer.
pub(crate) async fn health(client: &mut impl Client, record: &mut Record<'_>) -> Result<(), Gone> {
    let (status, word) = match record.shared.pods.any_ready() {
        true => (StatusCode::OK, "ok"),
        false => (StatusCode::SERVICE_UNAVAILABLE, "no pod is ready"),
    };
    let mut said = json!({ "status": word });
    if let Some(load) = record.shared.load() {
        // DNS passes clients on when a region is full.
        said["load"] = load;
    }
    let body = Bytes::from(said.to_string());
    let mut headers = common(record);
    headers.push((header::CONTENT_TYPE, JSON));
    headers.push((header::CACHE_CONTROL, NO_STORE));
    if status == StatusCode::SERVICE_UNAVAILABLE {
        headers.push((header::RETRY_AFTER, HeaderValue::from_static("1")));
    }
    send(client, record, status, headers, body).await
}

/// `/v1/models`: what the pods serve.
pub(crate) async fn models(client: &mut impl Client, record: &mut Record<'_>) -> Result<(), Gone> {
    let created = record.shared.started_unix;
    let data: Vec<_> = record
        .shared
        .pods
        .models()
        .into_iter()
        .map(|model| {
            json!({
                "id": model.name,
                "object": "model",
                "created": created,
                "owned_by": "nearhop",
                "revision": model.revision,
                "context_length": model.context_length,
            })
        })
        .collect();
    let body = Bytes::from(json!({ "object": "list", "data": data }).to_string());
    let mut headers = common(record);
    headers.push((header::CONTENT_TYPE, JSON));
    send(client, record, StatusCode::OK, headers, body).await
}

/// Tabby's `/v1/health`: its plug-ins look there whether there is a model.
pub(crate) async fn tabby_health(
    client: &mut impl Client,
    record: &mut Record<'_>,
) -> Result<(), Gone> {
    let Some(model) = record.shared.pods.model(None) else {
        return reject(client, record, &Reject::NoPods).await;
    };
    let mut headers = common(record);
    headers.push((header::CONTENT_TYPE, JSON));
    send(client, record, StatusCode::OK, headers, nearhop_wire::tabby_health(&model.name)).await
}

/// No.
pub(crate) async fn reject(
    client: &mut impl Client,
    record: &mut Record<'_>,
    reject: &Reject,
) -> Result<(), Gone> {
    let (head, body) = rejection(record, reject);
    client.send_head(head).await?;
    client.send_body(body, true).await
}

/// What is told of a rejection.
pub(crate) fn rejection(record: &mut Record<'_>, reject: &Reject) -> (ResponseHead, Bytes) {
    let mut headers = common(record);
    headers.push((header::CONTENT_TYPE, JSON));
    if let Some(seconds) = reject.retry_after() {
        headers.push((header::RETRY_AFTER, HeaderValue::from(seconds)));
    }
    if reject.retry_hurts(record.kind) {
        headers.push((SHOULD_RETRY, HeaderValue::from_static("false")));
    }
    if let Reject::Limited(limited) = reject {
        headers.extend(standing_headers(&limited.standing));
    }
    let body = reject.error().body();
    let status = reject.status();
    record.answered(status);
    (ResponseHead { status, headers, length: Some(body.len()) }, body)
}

/// Whether a browser's page may ask: a 204 that says so.
pub(crate) async fn preflight(
    client: &mut impl Client,
    record: &mut Record<'_>,
    answer: Headers,
) -> Result<(), Gone> {
    let headers = common(record).into_iter().chain(answer).collect();
    send(client, record, StatusCode::NO_CONTENT, headers, Bytes::new()).await
}

/// What other edges are told: whether this region answers, and how busy it is.
pub(crate) async fn view(client: &mut impl Client, record: &mut Record<'_>) -> Result<(), Gone> {
    let shared = record.shared;
    let views = shared.pods.views();
    let ready = views.iter().filter(|view| view.is_ready()).count();
    let in_flight: usize = views.iter().map(|view| view.in_flight).sum();
    let body = json!({
        "region": shared.region.to_str().unwrap_or_default(),
        "ready": ready > 0,
        "pods": views.len(),
        "pods_ready": ready,
        "in_flight": in_flight,
        "in_progress": shared.crowd.total(),
    });
    let mut headers = common(record);
    headers.push((header::CONTENT_TYPE, JSON));
    headers.push((header::CACHE_CONTROL, NO_STORE));
    send(client, record, StatusCode::OK, headers, Bytes::from(body.to_string())).await
}

/// What this vantage point says of regions.
pub(crate) async fn votes(client: &mut impl Client, record: &mut Record<'_>) -> Result<(), Gone> {
    let view = record.shared.vantage.as_ref().and_then(|vantage| vantage.view());
    let Some(view) = view else { return reject(client, record, &Reject::NotFound).await };
    let mut headers = common(record);
    headers.push((header::CONTENT_TYPE, JSON));
    headers.push((header::CACHE_CONTROL, NO_STORE));
    send(client, record, StatusCode::OK, headers, Bytes::from(view)).await
}

/// A stored answer.
pub(crate) async fn hit(
    client: &mut impl Client,
    record: &mut Record<'_>,
    admitted: &Admitted,
    hit: &Hit,
) -> Result<(), Reject> {
    let request = &admitted.request;
    let (content_type, body) = match request.stream {
        true => (SSE, hit.entry.answer.stream(request)),
        false if request.takes_full_body() => (JSON, hit.entry.body.clone()),
        false => (JSON, hit.entry.answer.body_for(request)),
    };
    record.content(Source::L1, clock::now());
    record.cached(hit.entry.answer.usage);
    let mut headers = answer_headers(record, Source::L1, content_type, hit.cache_status());
    headers.push(timing(record, "l1"));
    if send(client, record, StatusCode::OK, headers, body).await.is_err() {
        record.client_gone();
    }
    Ok(())
}

/// An answer without text: a warm-up's, which has no source, and what there is at the end of a
/// time that the client named.
pub(crate) async fn nothing(
    client: &mut impl Client,
    record: &mut Record<'_>,
    admitted: &Admitted,
    source: Option<Source>,
) -> Result<(), Reject> {
    let head = AnswerHead {
        id: format!("cmpl-{}", record.request_id),
        created: clock::since_epoch().as_secs(),
        model: admitted.model.name.clone(),
        fingerprint: String::new(),
        endpoint: admitted.request.endpoint,
    };
    let choices =
        vec![Choice { text: String::new(), finish: Finish::Length, logprobs: Vec::new() }];
    let answer = Answer { head, choices, usage: Usage::default() };
    let (content_type, body) = match admitted.request.stream {
        true => (SSE, answer.stream(&admitted.request)),
        false => (JSON, answer.body_for(&admitted.request)),
    };
    let mut headers = common(record);
    headers.push((header::CONTENT_TYPE, content_type));
    headers.push((header::CACHE_CONTROL, NO_STORE));
    if let Some(source) = source {
        record.content(source, clock::now());
        headers.push((SOURCE, source.header()));
    }
    if send(client, record, StatusCode::OK, headers, body).await.is_err() {
        record.client_gone();
    }
    Ok(())
}

/// Streams a generation as it comes. Once something was sent, what breaks is told as an `error`
/// event without `[DONE]`.
pub(crate) async fn stream(
    client: &mut impl Client,
    record: &mut Record<'_>,
    admitted: &Admitted,
    ticket: &Ticket,
    mut generation: Generation<'_>,
) -> Next {
    let mut writer = StreamWriter::new(generation.head(admitted), &admitted.request);
    let mut begun = false;
    loop {
        let committed = if begun { Committed::Yes } else { Committed::No };
        let Some(event) = next(client, &mut generation, committed).await else {
            record.client_gone();
            return Next::Answered;
        };
        let taken = event.and_then(|event| writer.take(event)).and_then(|()| {
            while let Some(event) = generation.arrived()? {
                writer.take(event)?;
            }
            Ok(())
        });
        record.saw(std::mem::take(&mut writer.tokens));
        match taken {
            Err(outcome) if !begun => return again(generation, outcome),
            Err(outcome) => {
                generation.lost(&outcome);
                return broken(client, record, writer.out, &outcome).await;
            }
            Ok(()) => {}
        }
        let answer = writer.answer.take();
        if let Some(answer) = &answer {
            record.generated(answer.usage);
            ticket.store(record.shared, &admitted.model, answer, clock::now());
        }
        let bytes = writer.out.split().freeze();
        // The answer is kept until its end, for the cache.
        record.held.hold(bytes.len());
        // An answer that is complete before anything was sent has a length, and is one write.
        let length = answer.as_ref().map(|_| bytes.len());
        if !begun && begin_stream(client, record, ticket, &generation, length).await.is_err()
            || client.send_body(bytes, answer.is_some()).await.is_err()
        {
            record.client_gone();
            return Next::Answered;
        }
        begun = true;
        if answer.is_some() {
            generation.finish().await;
            return Next::Answered;
        }
    }
}

async fn begin_stream(
    client: &mut impl Client,
    record: &mut Record<'_>,
    ticket: &Ticket,
    generation: &Generation<'_>,
    length: Option<usize>,
) -> Result<(), Gone> {
    let mut headers = answer_headers(record, Source::Origin, SSE, ticket.cache_status());
    headers.extend(origin_headers(record, generation));
    record.content(Source::Origin, clock::now());
    record.answered(StatusCode::OK);
    client.send_head(ResponseHead { status: StatusCode::OK, headers, length }).await
}

/// Pieces of a generation to the bytes of a stream, and to the answer that they add up to.
struct StreamWriter {
    events: EventWriter,
    collector: Collector,
    /// What was written and not sent yet.
    out: BytesMut,
    /// Tokens that came since somebody counted.
    tokens: usize,
    /// The whole answer, after the terminator.
    answer: Option<Answer>,
}

impl StreamWriter {
    fn new(head: AnswerHead, request: &CompletionRequest) -> Self {
        Self {
            collector: Collector::new(head.clone(), request.sampling.n),
            events: EventWriter::new(head, request),
            out: BytesMut::new(),
            tokens: 0,
            answer: None,
        }
    }

    fn take(&mut self, event: Event) -> Result<(), Outcome> {
        self.collector.take(&event)?;
        match event {
            Event::Delta(delta) => {
                self.tokens += delta.token_ids.len().max(1);
                let delta = Delta { token_ids: Vec::new(), ..delta };
                self.events.delta(&delta, &mut self.out);
            }
            Event::Usage(usage) => self.events.usage(usage, &mut self.out),
            Event::Done => {
                self.answer = Some(self.collector.finish()?);
                self.events.done(&mut self.out);
            }
        }
        Ok(())
    }
}

async fn broken(
    client: &mut impl Client,
    record: &mut Record<'_>,
    mut unsent: BytesMut,
    outcome: &Outcome,
) -> Next {
    tracing::warn!(
        request_id = record.request_id,
        outcome = outcome.name(),
        "a stream broke after its first byte"
    );
    record.broken();
    let message = "the answer broke off here and cannot be continued; ask again";
    let error = ApiError::new(ErrorKind::Server, "stream_broken", message);
    unsent.extend_from_slice(&error.event());
    // Whether the client still listens changes nothing any more.
    let _ = client.send_body(unsent.freeze(), true).await;
    Next::Answered
}

/// Collects a generation and answers in one piece. Until it is complete it can be lost and done
/// again elsewhere.
pub(crate) async fn whole(
    client: &mut impl Client,
    record: &mut Record<'_>,
    admitted: &Admitted,
    ticket: &Ticket,
    mut generation: Generation<'_>,
) -> Next {
    let mut collector = Collector::new(generation.head(admitted), admitted.request.sampling.n);
    loop {
        let Some(event) = next(client, &mut generation, Committed::No).await else {
            record.client_gone();
            return Next::Answered;
        };
        match event.and_then(|event| collector.take(&event).map(|()| event)) {
            Ok(Event::Done) => break,
            Ok(Event::Delta(delta)) => {
                record.held.hold(delta.text.len());
                record.saw(delta.token_ids.len().max(1));
            }
            Ok(Event::Usage(_)) => {}
            Err(outcome) => return again(generation, outcome),
        }
    }
    let answer = match collector.finish() {
        Ok(answer) => answer,
        Err(outcome) => return again(generation, outcome),
    };
    record.generated(answer.usage);
    ticket.store(record.shared, &admitted.model, &answer, clock::now());
    record.content(Source::Origin, clock::now());
    let mut headers = answer_headers(record, Source::Origin, JSON, ticket.cache_status());
    headers.extend(origin_headers(record, &generation));
    let body = answer.body_for(&admitted.request);
    if send(client, record, StatusCode::OK, headers, body).await.is_err() {
        record.client_gone();
    }
    generation.finish().await;
    Next::Answered
}

/// The next piece; `None` where the client has gone away.
async fn next(
    client: &mut impl Client,
    generation: &mut Generation<'_>,
    committed: Committed,
) -> Option<Result<Event, Outcome>> {
    tokio::select! {
        event = generation.next(committed) => Some(event),
        () = client.gone() => None,
    }
}

fn again(generation: Generation<'_>, outcome: Outcome) -> Next {
    generation.lost(&outcome);
    Next::Again(outcome)
}

async fn send(
    client: &mut impl Client,
    record: &mut Record<'_>,
    status: StatusCode,
    headers: Headers,
    body: Bytes,
) -> Result<(), Gone> {
    record.answered(status);
    let head = ResponseHead { status, headers, length: Some(body.len()) };
    client.send_head(head).await?;
    client.send_body(body, true).await
}
