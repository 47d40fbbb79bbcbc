//! The answer to the client.

mod headers;

use std::{pin::pin, sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use http::{HeaderValue, StatusCode, header};
use nearhop_admin::clock;
use nearhop_routing::Class;
use nearhop_wire::{
    Answer, ApiError, Choice, ErrorKind, EventWriter, Finish, Head as AnswerHead, Kind, Usage,
};
use serde_json::json;
use tokio::time::{timeout, timeout_at};

use self::headers::{
    Headers, JSON, NO_STORE, SHOULD_RETRY, SOURCE, SSE, answer_headers, common, pod_header,
    standing_headers, timing,
};
use super::{
    admit::Admitted,
    lookup::{self, Hit, Ticket},
    record::{Record, Source},
};
use crate::{
    client::{Client, Gone, ResponseHead},
    event::Event,
    flight::{Origin, Reader, Step},
    reject::Reject,
    upstream::outcome::{Failed, Outcome},
};

/// What follows a generation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Next {
    /// The client has its answer, or is gone, or knows that the answer broke off.
    Answered,
    /// It is not for this request after all.
    Alone,
}

/// `/health`: whether this edge would answer.
pub(crate) async fn health(client: &mut impl Client, record: &mut Record<'_>) -> Result<(), Gone> {
    let (status, word) = match record.shared.upstreams.any_ready(clock::now()) {
        true => (StatusCode::OK, "ok"),
        false => (StatusCode::SERVICE_UNAVAILABLE, "no pod is ready"),
    };
    let mut said = json!({ "status": word });
    if let Some(load) = record.shared.load(clock::now()) {
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

/// `/v1/models`: what there is.
pub(crate) async fn models(client: &mut impl Client, record: &mut Record<'_>) -> Result<(), Gone> {
    let created = record.shared.started_unix;
    let data: Vec<_> = record
        .shared
        .upstreams
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
    let Some(model) = record.shared.upstreams.model(None) else {
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
    if record.is_open {
        return client.send_body(reject.error().event(), true).await;
    }
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
    if reject.is_shed() {
        let kind = record.kind.map_or("none", Kind::name);
        record.shared.metrics.shed.with_label_values(&[kind]).inc();
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

/// What other edges are told: whether this region's pods answer, for which models, and how busy
/// they are.
pub(crate) async fn view(client: &mut impl Client, record: &mut Record<'_>) -> Result<(), Gone> {
    let (shared, now) = (record.shared, clock::now());
    let pods = shared.upstreams.of(Class::Pod);
    let ready = pods.iter().filter(|pod| pod.is_ready(now)).count();
    let in_flight: usize = pods.iter().map(|pod| pod.in_flight()).sum();
    let report = shared.upstreams.report(now);
    let body = json!({
        "region": shared.region.to_str().unwrap_or_default(),
        "ready": ready > 0,
        "pods": pods.len(),
        "pods_ready": ready,
        "in_flight": in_flight,
        "in_progress": shared.crowd.total(),
        "models": report.models,
        "kept": report.kept,
        "slots": report.slots,
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
    (hit, source): (&Hit, Source),
) -> Result<(), Reject> {
    let (request, answer) = (&admitted.request, hit.answer());
    let (content_type, body) = match request.stream {
        true => (SSE, answer.stream(request)),
        false => (JSON, answer.body_for(request)),
    };
    record.content(source, clock::now());
    record.used(answer.usage);
    let mut headers = answer_headers(record, source, content_type, hit.cache_status());
    headers.push(timing(record, source.name()));
    if send(client, record, StatusCode::OK, headers, body).await.is_err() {
        record.client_gone();
    }
    Ok(())
}

/// An answer without text: a warm-up's, which has no source, and what there is where nothing can
/// answer.
pub(crate) async fn nothing(
    client: &mut impl Client,
    record: &mut Record<'_>,
    admitted: &Admitted,
    source: Option<Source>,
) -> Result<(), Reject> {
    text(client, record, admitted, ("", source)).await
}

/// A text that no model generated: none at all, or what a chat is told where nothing can answer.
pub(crate) async fn text(
    client: &mut impl Client,
    record: &mut Record<'_>,
    admitted: &Admitted,
    (text, source): (&str, Option<Source>),
) -> Result<(), Reject> {
    let head = AnswerHead {
        id: format!("cmpl-{}", record.request_id),
        created: clock::since_epoch().as_secs(),
        model: admitted.model.name.clone(),
        fingerprint: String::new(),
        endpoint: admitted.request.endpoint,
    };
    let finish = if text.is_empty() { Finish::Length } else { Finish::Stop };
    let choices = vec![Choice { text: text.to_owned(), finish, logprobs: Vec::new() }];
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
    (ticket, mut reader): (&Ticket, Reader),
) -> Result<Next, Reject> {
    let mut writer = StreamWriter::default();
    let mut sent = false;
    loop {
        let mut take = |head: (&AnswerHead, u32), event: &Event| writer.take(admitted, head, event);
        let next = reader.next(sent, &mut take);
        let Some(step) = waited_aloud(client, record, admitted, next).await else {
            record.client_gone();
            return Ok(Next::Answered);
        };
        let end = match step {
            Step::Pieces if writer.out.is_empty() => continue,
            Step::Pieces => None,
            Step::Done(answer) => Some(answer),
            Step::Broken(outcome) => return Ok(broken(client, record, writer.out, &outcome).await),
            Step::Failed(Reject::Deadline) if sent => {
                let outcome = Outcome::Failed(Failed::OutOfTime);
                return Ok(broken(client, record, writer.out, &outcome).await);
            }
            Step::Failed(reject) => return Err(reject),
            Step::Alone => return Ok(Next::Alone),
            Step::Superseded => return superseded(client, record, admitted).await,
        };
        if !sent && !reader.commit() {
            writer = StreamWriter::default();
            continue;
        }
        if let Some(answer) = &end {
            record.used(answer.usage);
            writer.done(admitted, &answer.head);
        }
        let bytes = writer.out.split().freeze();
        // An answer that is complete before anything was sent has a length, and is one write.
        let length = end.as_ref().map(|_| bytes.len());
        if !sent && begin_stream(client, record, (ticket, &reader), length).await.is_err()
            || client.send_body(bytes, end.is_some()).await.is_err()
        {
            record.client_gone();
            return Ok(Next::Answered);
        }
        sent = true;
        if end.is_some() {
            return Ok(Next::Answered);
        }
    }
}

async fn begin_stream(
    client: &mut impl Client,
    record: &mut Record<'_>,
    (ticket, reader): (&Ticket, &Reader),
    length: Option<usize>,
) -> Result<(), Gone> {
    let headers = generated_headers(record, (ticket, reader), SSE);
    record.answered(StatusCode::OK);
    if record.is_open {
        return Ok(());
    }
    record.is_open = true;
    client.send_head(ResponseHead { status: StatusCode::OK, headers, length }).await
}

/// The headers of a generation, whose content begins now.
fn generated_headers(
    record: &mut Record<'_>,
    (ticket, reader): (&Ticket, &Reader),
    content_type: HeaderValue,
) -> Headers {
    let (joined, origin) = (reader.joined(), reader.origin());
    let (source, status) = match (&origin, joined) {
        (_, Some(_)) => (Source::Joined, ticket.cache_status(joined)),
        (Some(Origin::L2(rule)), None) => (Source::L2, lookup::l2_status(*rule)),
        (Some(Origin::L3(how, ttl)), None) => (Source::L3, lookup::l3_status(*how, *ttl)),
        (Some(Origin::Upstream(class, _)), None) => {
            (Source::of_class(*class), ticket.cache_status(None))
        }
        // Nothing of it came yet: it is an answer of no choices.
        (None, None) => (Source::Origin, ticket.cache_status(None)),
    };
    record.content(source, clock::now());
    let mut headers = answer_headers(record, source, content_type, status);
    if let Some(Origin::Upstream(Class::Pod, pod)) = origin {
        headers.extend(pod_header(&pod));
    }
    headers.push(timing(record, source.name()));
    headers
}

/// Pieces of a generation to the bytes of a stream.
#[derive(Default)]
struct StreamWriter {
    events: Option<EventWriter>,
    /// What was written and not sent yet.
    out: BytesMut,
}

impl StreamWriter {
    fn events(
        &mut self,
        admitted: &Admitted,
        head: &AnswerHead,
    ) -> (&mut EventWriter, &mut BytesMut) {
        let events = self.events.get_or_insert_with(|| {
            // Who joined may speak another shape than who began.
            let head = AnswerHead { endpoint: admitted.request.endpoint, ..head.clone() };
            EventWriter::new(head, &admitted.request)
        });
        (events, &mut self.out)
    }

    fn take(&mut self, admitted: &Admitted, (head, resumed): (&AnswerHead, u32), event: &Event) {
        let (events, out) = self.events(admitted, head);
        events.resumed(resumed);
        match event {
            Event::Delta(delta) => events.delta(delta, out),
            Event::Usage(usage) => events.usage(*usage, out),
            Event::Done => {}
        }
    }

    fn done(&mut self, admitted: &Admitted, head: &AnswerHead) {
        let (events, out) = self.events(admitted, head);
        events.done(out);
    }
}

/// What a stream begins with where nothing is known of its answer.
pub(super) async fn begin_relay(
    client: &mut impl Client,
    record: &mut Record<'_>,
) -> Result<(), Gone> {
    let mut headers = common(record);
    headers.push((header::CONTENT_TYPE, SSE));
    headers.push((header::CACHE_CONTROL, NO_STORE));
    record.answered(StatusCode::OK);
    client.send_head(ResponseHead { status: StatusCode::OK, headers, length: None }).await
}

/// What a stream ends with that broke off.
pub(super) fn broken_event() -> Bytes {
    let message = "the answer broke off here and cannot be continued; ask again";
    ApiError::new(ErrorKind::Server, "stream_broken", message).event()
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
    unsent.extend_from_slice(&broken_event());
    // Whether the client still listens changes nothing any more.
    let _ = client.send_body(unsent.freeze(), true).await;
    Next::Answered
}

/// Waits for the whole of a generation and answers in one piece.
pub(crate) async fn whole(
    client: &mut impl Client,
    record: &mut Record<'_>,
    admitted: &Admitted,
    (ticket, mut reader): (&Ticket, Reader),
) -> Result<Next, Reject> {
    let Some(step) = waited(client, admitted, reader.whole()).await else {
        record.client_gone();
        return Ok(Next::Answered);
    };
    let answer = match step {
        Step::Done(answer) => answer,
        Step::Failed(reject) => return Err(reject),
        Step::Superseded => return superseded(client, record, admitted).await,
        Step::Pieces | Step::Alone | Step::Broken(_) => return Ok(Next::Alone),
    };
    record.used(answer.usage);
    let mut answer = Arc::unwrap_or_clone(answer);
    answer.head.endpoint = admitted.request.endpoint;
    let headers = generated_headers(record, (ticket, &reader), JSON);
    let body = answer.body_for(&admitted.request);
    if send(client, record, StatusCode::OK, headers, body).await.is_err() {
        record.client_gone();
    }
    Ok(Next::Answered)
}

/// What a flight has for this request, within its own time; `None` where the client has gone away.
async fn waited(
    client: &mut impl Client,
    admitted: &Admitted,
    step: impl Future<Output = Step>,
) -> Option<Step> {
    tokio::select! {
        step = timeout_at(admitted.deadline.into(), step) => {
            Some(step.unwrap_or(Step::Failed(Reject::Deadline)))
        }
        () = client.gone() => None,
    }
}

/// How long a client of a chat hears nothing, at most, while its answer is worked on.
const SILENCE: Duration = Duration::from_secs(10);

/// As [`waited`]; whoever waits for a chat is told now and then that somebody works on it, because
/// load balancers and clients give up connections that are silent.
async fn waited_aloud(
    client: &mut impl Client,
    record: &mut Record<'_>,
    admitted: &Admitted,
    step: impl Future<Output = Step>,
) -> Option<Step> {
    if admitted.kind.is_code() {
        return waited(client, admitted, step).await;
    }
    let mut step = pin!(step);
    loop {
        if let Ok(step) = timeout(SILENCE, waited(client, admitted, step.as_mut())).await {
            return step;
        }
        comment(client, record).await.ok()?;
    }
}

/// A comment (WHATWG HTML, section 9.2.6), which is no content: the answer may still fail over, but
/// its status is sent, and headers that tell who answers cannot be any more.
async fn comment(client: &mut impl Client, record: &mut Record<'_>) -> Result<(), Gone> {
    if !record.is_open {
        begin_relay(client, record).await?;
        record.is_open = true;
    }
    client.send_body(Bytes::from_static(b": working on it\n\n"), false).await
}

/// No text, and no error: clients try errors again, and two requests could supersede each other
/// for ever.
async fn superseded(
    client: &mut impl Client,
    record: &mut Record<'_>,
    admitted: &Admitted,
) -> Result<Next, Reject> {
    nothing(client, record, admitted, Some(Source::Superseded)).await?;
    Ok(Next::Answered)
}

async fn send(
    client: &mut impl Client,
    record: &mut Record<'_>,
    status: StatusCode,
    headers: Headers,
    body: Bytes,
) -> Result<(), Gone> {
    record.answered(status);
    if !record.is_open {
        let head = ResponseHead { status, headers, length: Some(body.len()) };
        client.send_head(head).await?;
    }
    client.send_body(body, true).await
}
