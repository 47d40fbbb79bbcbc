//! The answer to the client, and into the cache after its terminator.

mod collect;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, StatusCode, header};
use nearhop_admin::clock;
use nearhop_wire::{ApiError, DONE, ErrorKind};
use serde_json::json;

use self::collect::Collector;
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

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const SOURCE: HeaderName = HeaderName::from_static("x-nearhop-source");
const REGION: HeaderName = HeaderName::from_static("x-nearhop-region");
const POD: HeaderName = HeaderName::from_static("x-nearhop-pod");
const CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");
const SERVER_TIMING: HeaderName = HeaderName::from_static("server-timing");
const JSON: HeaderValue = HeaderValue::from_static("application/json");
const SSE: HeaderValue = HeaderValue::from_static("text/event-stream; charset=utf-8");
/// Answers are somebody's code: no cache between here and the editor keeps them.
const NO_STORE: HeaderValue = HeaderValue::from_static("no-store");

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
    let body = Bytes::from(json!({ "status": word }).to_string());
    let mut headers = common(record);
    headers.push((header::CONTENT_TYPE, JSON));
    if status == StatusCode::SERVICE_UNAVAILABLE {
        headers.push((header::RETRY_AFTER, HeaderValue::from_static("1")));
    }
    send(client, record, status, headers, body).await
}

/// `/v1/models`: what the pods serve.
pub(crate) async fn models(client: &mut impl Client, record: &mut Record<'_>) -> Result<(), Gone> {
    let created = clock::since_epoch().as_secs();
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

/// No.
pub(crate) async fn reject(
    client: &mut impl Client,
    record: &mut Record<'_>,
    reject: &Reject,
) -> Result<(), Gone> {
    let mut headers = common(record);
    headers.push((header::CONTENT_TYPE, JSON));
    if let Some(seconds) = reject.retry_after() {
        headers.push((header::RETRY_AFTER, HeaderValue::from(seconds)));
    }
    let body = reject.error().body();
    let status = reject.status();
    record.answered(status);
    let head = ResponseHead { status, headers, length: Some(body.len()) };
    client.send_head(head).await?;
    client.send_body(body, true).await
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
        true => (SSE, hit.entry.answer.stream(request.include_usage)),
        false => (JSON, hit.entry.body.clone()),
    };
    record.content(Source::L1, clock::now());
    let mut headers = answer_headers(record, Source::L1, content_type, hit.cache_status());
    headers.push(timing(record, "l1"));
    if send(client, record, StatusCode::OK, headers, body).await.is_err() {
        record.client_gone();
    }
    Ok(())
}

/// Streams a generation as it comes. From the first content on, the client has seen some of it,
/// and what breaks is told as an `error` event without `[DONE]`.
pub(crate) async fn stream(
    client: &mut impl Client,
    record: &mut Record<'_>,
    admitted: &Admitted,
    ticket: &Ticket,
    mut generation: Generation<'_>,
) -> Next {
    let answer_head = generation.head(admitted);
    let n = admitted.request.sampling.n;
    let mut collector = Collector::new(answer_head.clone(), n);
    let mut begun = vec![false; n];
    let mut headers = answer_headers(record, Source::Origin, SSE, ticket.cache_status());
    headers.extend(origin_headers(record, &generation));
    record.content(Source::Origin, clock::now());
    record.answered(StatusCode::OK);
    let head = ResponseHead { status: StatusCode::OK, headers, length: None };
    if client.send_head(head).await.is_err() {
        record.client_gone();
        return Next::Answered;
    }
    loop {
        let event = tokio::select! {
            event = generation.next(Committed::Yes) => event,
            () = client.gone() => {
                record.client_gone();
                return Next::Answered;
            }
        };
        let collected = event.and_then(|event| collector.take(&event).map(|()| event));
        let sent = match collected {
            Ok(Event::Delta(delta)) => {
                let first = !std::mem::replace(&mut begun[delta.index], true);
                let delta = nearhop_wire::Delta { token_ids: Vec::new(), ..delta };
                client.send_body(answer_head.delta_event(&delta, first), false).await
            }
            Ok(Event::Usage(usage)) => {
                record.generated(usage);
                match admitted.request.include_usage {
                    true => client.send_body(answer_head.usage_event(usage), false).await,
                    false => Ok(()),
                }
            }
            Ok(Event::Done) => match collector.finish() {
                Ok(answer) => {
                    ticket.store(record.shared, &answer, clock::now());
                    let sent = client.send_body(Bytes::from_static(DONE), true).await;
                    if sent.is_err() {
                        record.client_gone();
                    }
                    generation.finish().await;
                    return Next::Answered;
                }
                Err(outcome) => return broken(client, record, generation, &outcome).await,
            },
            Err(outcome) => return broken(client, record, generation, &outcome).await,
        };
        if sent.is_err() {
            record.client_gone();
            return Next::Answered;
        }
    }
}

async fn broken(
    client: &mut impl Client,
    record: &mut Record<'_>,
    generation: Generation<'_>,
    outcome: &Outcome,
) -> Next {
    generation.lost(outcome);
    tracing::warn!(
        request_id = record.request_id,
        outcome = outcome.name(),
        "a stream broke after its first byte"
    );
    record.broken();
    let message = "the answer broke off here and cannot be continued; ask again";
    let error = ApiError::new(ErrorKind::Server, "stream_broken", message);
    // Whether the client still listens changes nothing any more.
    let _ = client.send_body(error.event(), true).await;
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
        let event = tokio::select! {
            event = generation.next(Committed::No) => event,
            () = client.gone() => {
                record.client_gone();
                return Next::Answered;
            }
        };
        match event.and_then(|event| collector.take(&event).map(|()| event)) {
            Ok(Event::Done) => break,
            Ok(Event::Delta(_) | Event::Usage(_)) => {}
            Err(outcome) => return again(generation, outcome),
        }
    }
    let answer = match collector.finish() {
        Ok(answer) => answer,
        Err(outcome) => return again(generation, outcome),
    };
    record.generated(answer.usage);
    ticket.store(record.shared, &answer, clock::now());
    record.content(Source::Origin, clock::now());
    let mut headers = answer_headers(record, Source::Origin, JSON, ticket.cache_status());
    headers.extend(origin_headers(record, &generation));
    if send(client, record, StatusCode::OK, headers, answer.body()).await.is_err() {
        record.client_gone();
    }
    generation.finish().await;
    Next::Answered
}

fn again(generation: Generation<'_>, outcome: Outcome) -> Next {
    generation.lost(&outcome);
    Next::Again(outcome)
}

type Headers = Vec<(HeaderName, HeaderValue)>;

/// On every answer, good or bad.
fn common(record: &Record<'_>) -> Headers {
    let mut headers = Headers::with_capacity(10);
    let id = HeaderValue::try_from(record.request_id.as_str());
    headers.push((REQUEST_ID, id.expect("a request id is plain ASCII")));
    headers.push((REGION, record.shared.region.clone()));
    headers
}

fn answer_headers(
    record: &Record<'_>,
    source: Source,
    content_type: HeaderValue,
    cache_status: HeaderValue,
) -> Headers {
    let mut headers = common(record);
    headers.push((header::CONTENT_TYPE, content_type));
    headers.push((header::CACHE_CONTROL, NO_STORE));
    headers.push((SOURCE, source.header()));
    headers.push((CACHE_STATUS, cache_status));
    headers
}

fn origin_headers(record: &Record<'_>, generation: &Generation<'_>) -> Headers {
    let pod = HeaderValue::try_from(generation.pod());
    let mut headers: Headers = pod.ok().map(|pod| (POD, pod)).into_iter().collect();
    headers.push(timing(record, "origin"));
    headers
}

/// Time since the request's header, under the name of what it was spent on (W3C Server Timing).
fn timing(record: &Record<'_>, what: &str) -> (HeaderName, HeaderValue) {
    let millis = (clock::now() - record.arrived).as_secs_f64() * 1e3;
    let value = HeaderValue::try_from(format!("{what};dur={millis:.3}"));
    (SERVER_TIMING, value.expect("plain ASCII"))
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
