//! One exchange with an upstream over Pingora's connectors: request out, events in.
//!
//! Headers are written from an allow-list, never copied from the client; a provider gets none of
//! ours but the request's id. A finished exchange gives its connection back; one that is dropped
//! closes it, and with it the generation stops.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::{Bytes, BytesMut};
use http::{HeaderName, HeaderValue, Method, StatusCode, header};
use nearhop_admin::clock;
use nearhop_conf::Upstream as Settings;
use nearhop_routing::Class;
use nearhop_wire::{ApiError, Kind, PREFIX_CACHE_PURGE_PATH, SseReader};
use pingora::{ErrorType, connectors::http::Connector, upstreams::peer::HttpPeer};
use serde_json::Value;
use tokio::time::timeout_at;

use crate::trace::{TRACEPARENT, TRACESTATE};

use super::{
    connections::{Asked, Connection, Connections, Session, Unanswered, Unconnected, is_believed},
    member::{Role, Upstream},
    orca::Reported,
    outcome::{Failed, OurFault, Outcome, Refused},
    provider,
};

/// An event holds one token's text; far more is not an answer.
const EVENT_BYTES_MAX: usize = 1 << 20;
/// An error's body.
const ERROR_BYTES_MAX: usize = 64 << 10;
/// Vectors of a few texts.
const ANSWER_BYTES_MAX: usize = 1 << 20;
/// When whoever refused without a time may be asked again.
const SOON: Duration = Duration::from_secs(1);
/// What one edge asks another.
pub(crate) const VIEW_PATH: &str = "/peer/v1/view";
/// Names the region that a request came from: it goes no further.
pub(crate) const HOP: &str = "x-nearhop-hop";
/// A pooled connection may have been closed while it lay there; that is no fault of the pod.
const STALE_RETRIES: usize = 2;

/// What is sent to an upstream.
#[derive(Debug, Clone)]
pub(crate) struct Outgoing {
    pub(crate) path: String,
    pub(crate) body: Bytes,
    pub(crate) request_id: String,
    pub(crate) traceparent: HeaderValue,
    pub(crate) tracestate: Option<HeaderValue>,
    /// When the whole answer must be there; pods and regions are told.
    pub(crate) deadline: Instant,
    /// Whose turn it is at the pod, and whose prefixes it may find there.
    pub(crate) tenant: HeaderValue,
    pub(crate) kind: Kind,
    /// This edge's region: a request that names one goes no further.
    pub(crate) from: HeaderValue,
}

impl Outgoing {
    /// A tenant's name as a header's value. Names come from tokens of others too: what no header
    /// can say is escaped.
    pub(crate) fn tenant_value(tenant: &str) -> HeaderValue {
        let escaped = || HeaderValue::try_from(tenant.escape_default().to_string());
        HeaderValue::from_bytes(tenant.as_bytes())
            .or_else(|_unsayable| escaped())
            .expect("escaped text is plain ASCII")
    }
}

/// Makes exchanges; owns the connections.
pub(crate) struct Exchanges {
    connections: Connections,
    /// Those of the checks. Never pooled: a fresh one proves more, and a pooled one's events are
    /// handled by the thread that opened it, which must not be that of the checks.
    probing: Connector,
}

/// An exchange whose answer has begun.
pub(crate) struct Exchange<'a> {
    exchanges: &'a Exchanges,
    upstream: Arc<Upstream>,
    /// As it was connected to: where the connection goes back to.
    peer: Arc<HttpPeer>,
    session: Session,
    events: SseReader,
}

impl Exchanges {
    pub(crate) fn new(settings: &Settings) -> Self {
        Self { connections: Connections::new(settings), probing: Connector::new(None) }
    }

    /// Sends `outgoing` to `upstream` and waits, until `first_byte`, for the head of its answer.
    pub(crate) async fn open(
        &self,
        upstream: &Arc<Upstream>,
        outgoing: &Outgoing,
        first_byte: Instant,
    ) -> Result<Exchange<'_>, Outcome> {
        // A name that has no address is nobody who listens.
        let Some(peer) = upstream.peer.load_full() else {
            return Err(Outcome::Refused(Refused::Connection));
        };
        let opened = timeout_at(first_byte.into(), self.begin(upstream, &peer, outgoing)).await;
        let session = opened.unwrap_or(Err(Outcome::Failed(Failed::FirstByteTimeout)))?;
        let status = session.status();
        listen(upstream, &session);
        let streams = is_event_stream(&session);
        let events = SseReader::new(EVENT_BYTES_MAX);
        let upstream = Arc::clone(upstream);
        let exchange = Exchange { exchanges: self, upstream, peer, session, events };
        match status {
            Some(StatusCode::OK) if streams => Ok(exchange),
            Some(StatusCode::OK) | None => Err(Outcome::Failed(Failed::Garbage)),
            Some(status) => Err(Box::pin(exchange.refusal(status, first_byte)).await),
        }
    }

    async fn begin(
        &self,
        upstream: &Upstream,
        peer: &HttpPeer,
        outgoing: &Outgoing,
    ) -> Result<Session, Outcome> {
        let mut stale = 0;
        loop {
            let asked = asked(upstream, outgoing)?;
            let connected = self.connections.connect(upstream.class(), peer).await;
            let (connection, reused) =
                connected.map_err(|error| connect_outcome(upstream.class(), &error))?;
            match connection.send(&asked, &outgoing.body).await {
                Ok(session) => {
                    upstream.heard(clock::now());
                    return Ok(session);
                }
                Err(_) if reused && stale < STALE_RETRIES => stale += 1,
                Err(Unanswered::RefusedStream) => {
                    return Err(Outcome::Refused(Refused::Busy { retry_after: SOON }));
                }
                Err(Unanswered::Broken(_) | Unanswered::Session(_)) => {
                    return Err(Outcome::Failed(Failed::Reset));
                }
            }
        }
    }

    /// Opens a connection to another region's edge, or finds it open, over those that requests use:
    /// the first of them need not wait for handshakes. The caller sets the deadline.
    pub(crate) async fn warm(&self, upstream: &Upstream) -> Result<(), String> {
        let Some(peer) = upstream.peer.load_full() else { return Ok(()) };
        let headers = vec![host(upstream).map_err(|error| error.to_string())?];
        let asked = Asked { method: &Method::GET, path: VIEW_PATH, headers };
        let connected = self.connections.connect(upstream.class(), &peer).await;
        let (connection, _) = connected
            .map_err(|error| connect_outcome(upstream.class(), &error).name().to_owned())?;
        let sent = connection.send(&asked, &Bytes::new()).await;
        let mut session = sent.map_err(|error| error.to_string())?;
        if read_to_end(&mut session, ERROR_BYTES_MAX).await.is_some() {
            self.connections.release(session, &peer).await;
        }
        Ok(())
    }

    /// Closes connections that lay idle for too long, or that pods have closed.
    pub(crate) fn sweep(&self, now: Instant) {
        self.connections.sweep(now);
    }

    /// What an upstream says of itself when it is checked, or in words why there is nothing. The
    /// caller sets the deadline.
    pub(crate) async fn readyz(&self, upstream: &Upstream) -> Result<Bytes, String> {
        let path = match upstream.role {
            Role::Region(_) => VIEW_PATH,
            Role::Pod | Role::Local | Role::Provider(_) => "/readyz",
        };
        self.small(upstream, (&Method::GET, path), None).await
    }

    /// Tells a pod what to drop of its prefix cache. The caller sets the deadline.
    pub(crate) async fn purge(&self, pod: &Upstream, what: &Value) -> Result<Bytes, String> {
        let body = Bytes::from(what.to_string());
        self.small(pod, (&Method::POST, PREFIX_CACHE_PURGE_PATH), Some(body)).await
    }

    /// The body of a 200 to a POST, over the connections that requests use, or in words why there is
    /// none. The caller sets the deadline.
    pub(crate) async fn post(
        &self,
        upstream: &Upstream,
        path: &str,
        body: &Bytes,
    ) -> Result<Bytes, String> {
        let peer = upstream.peer.load_full().ok_or("it cannot be connected to")?;
        let mut stale = 0;
        let mut session = loop {
            let mut headers = vec![host(upstream).map_err(|error| error.to_string())?];
            headers.push((header::CONTENT_TYPE, JSON));
            headers.push((header::CONTENT_LENGTH, HeaderValue::from(body.len())));
            let asked = Asked { method: &Method::POST, path, headers };
            let connected = self.connections.connect(upstream.class(), &peer).await;
            let (connection, reused) = connected
                .map_err(|error| connect_outcome(upstream.class(), &error).name().to_owned())?;
            match connection.send(&asked, body).await {
                Ok(session) => break session,
                Err(_) if reused && stale < STALE_RETRIES => stale += 1,
                Err(error) => return Err(error.to_string()),
            }
        };
        let status = session.status();
        let read = read_to_end(&mut session, ANSWER_BYTES_MAX).await;
        if read.is_some() {
            self.connections.release(session, &peer).await;
        }
        match (status, read) {
            (Some(StatusCode::OK), Some(body)) => Ok(body),
            (status, _) => Err(format!("it answered {status:?}")),
        }
    }

    /// The body of a 200 to a small request, or in words why there is none.
    async fn small(
        &self,
        upstream: &Upstream,
        (method, path): (&Method, &str),
        body: Option<Bytes>,
    ) -> Result<Bytes, String> {
        let peer = upstream.peer.load_full().ok_or("it cannot be connected to")?;
        let mut peer = HttpPeer::clone(&peer);
        if upstream.class() == Class::Region {
            // Over HTTP/2 the connector keeps a connection though nobody gives it back: checks would
            // see an old certificate, and wait on a network that is gone.
            peer.options.set_http_version(1, 1);
        }
        let connected = self.probing.get_http_session(&peer).await;
        let (session, _reused) = connected.map_err(|error| error.to_string())?;
        if upstream.class() == Class::Region && !is_believed(&session) {
            return Err("its certificate has none of the names in edge.peer.tls.names".to_owned());
        }
        let mut headers = vec![host(upstream).map_err(|error| error.to_string())?];
        if let Some(body) = &body {
            headers.push((header::CONTENT_TYPE, JSON));
            headers.push((header::CONTENT_LENGTH, HeaderValue::from(body.len())));
        }
        let asked = Asked { method, path, headers };
        let connection = Connection::Any(Box::new(session));
        let sent = connection.send(&asked, &body.unwrap_or_default()).await;
        let mut session = sent.map_err(|error| error.to_string())?;
        let status = session.status();
        match (status, read_to_end(&mut session, ERROR_BYTES_MAX).await) {
            (Some(StatusCode::OK), Some(body)) => Ok(body),
            (status, _) => Err(format!("it answered {status:?}")),
        }
    }
}

impl Exchange<'_> {
    /// The data of the next event, if it has arrived already.
    pub(crate) fn arrived(&mut self) -> Result<Option<Bytes>, Outcome> {
        self.events.next_event().map_err(|_too_long| Outcome::Failed(Failed::Garbage))
    }

    /// The data of the next event, until `deadline`; `None` at the end of the stream.
    pub(crate) async fn next(&mut self, deadline: Instant) -> Result<Option<Bytes>, Outcome> {
        loop {
            if let Some(data) = self.arrived()? {
                return Ok(Some(data));
            }
            let events = &mut self.events;
            let read = self.session.read(|bytes| events.push(bytes));
            match timeout_at(deadline.into(), read).await {
                Err(_elapsed) => return Err(Outcome::Failed(Failed::TokenTimeout)),
                Ok(Err(_broken)) => return Err(Outcome::Failed(Failed::Reset)),
                Ok(Ok(false)) => return Ok(None),
                Ok(Ok(true)) => self.upstream.heard(clock::now()),
            }
        }
    }

    /// Gives the connection back after the terminator: reads what is left, which is the end of the
    /// framing, and closes where a pod has more to say.
    pub(crate) async fn finish(mut self) {
        const REST: Duration = Duration::from_millis(200);
        let ended = self.session.has_ended() || {
            let rest = tokio::time::timeout(REST, self.session.read(|_more| ())).await;
            matches!(rest, Ok(Ok(false)))
        };
        if ended {
            self.exchanges.connections.release(self.session, &self.peer).await;
        }
    }

    /// What a status other than 200 means; its body is read so that the connection can go on.
    async fn refusal(mut self, status: StatusCode, deadline: Instant) -> Outcome {
        let retry_after = self.session.headers().and_then(provider::retry_after);
        let read = read_to_end(&mut self.session, ERROR_BYTES_MAX);
        let body = timeout_at(deadline.into(), read).await.ok().flatten();
        let error = body.as_deref().and_then(ApiError::parse);
        let class = self.upstream.class();
        if body.is_some() {
            self.exchanges.connections.release(self.session, &self.peer).await;
        }
        Outcome::of_status(class, status, error, retry_after)
    }
}

/// Reads a body of at most `limit` bytes; `None` where it is longer or breaks off.
async fn read_to_end(session: &mut Session, limit: usize) -> Option<Bytes> {
    let mut all = BytesMut::new();
    while session.read(|bytes| all.extend_from_slice(bytes)).await.ok()? {
        if all.len() > limit {
            return None;
        }
    }
    Some(all.freeze())
}

const JSON: HeaderValue = HeaderValue::from_static("application/json");
const EVENT_STREAM: HeaderValue = HeaderValue::from_static("text/event-stream");
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const TIMEOUT: HeaderName = HeaderName::from_static("x-nearhop-timeout-ms");
const TENANT: HeaderName = HeaderName::from_static("x-nearhop-tenant");
const KIND: HeaderName = HeaderName::from_static("x-nearhop-kind");

fn host(upstream: &Upstream) -> Result<(HeaderName, HeaderValue), http::Error> {
    Ok((header::HOST, HeaderValue::try_from(upstream.host.as_str())?))
}

/// A completion's head.
fn asked<'a>(upstream: &Upstream, outgoing: &'a Outgoing) -> Result<Asked<'a>, Outcome> {
    let invalid = |_invalid| Outcome::Failed(Failed::Garbage);
    let mut headers = Vec::with_capacity(10);
    headers.push(host(upstream).map_err(invalid)?);
    headers.push((header::CONTENT_TYPE, JSON));
    headers.push((header::CONTENT_LENGTH, HeaderValue::from(outgoing.body.len())));
    let id = HeaderValue::try_from(outgoing.request_id.as_str());
    headers.push((REQUEST_ID, id.map_err(|error| invalid(error.into()))?));
    let asked = |headers| Asked { method: &Method::POST, path: &outgoing.path, headers };
    if let Role::Provider(provider) = &upstream.role {
        headers.push((header::ACCEPT, EVENT_STREAM));
        if let Some(authorization) = provider.authorization() {
            headers.push((header::AUTHORIZATION, authorization));
        }
        return Ok(asked(headers));
    }
    let left = outgoing.deadline.saturating_duration_since(clock::now()).as_millis().max(1);
    headers.push((TIMEOUT, HeaderValue::from(u64::try_from(left).unwrap_or(u64::MAX))));
    headers.push((TENANT, outgoing.tenant.clone()));
    headers.push((KIND, HeaderValue::from_static(outgoing.kind.name())));
    if matches!(upstream.role, Role::Region(_)) {
        headers.push((HeaderName::from_static(HOP), outgoing.from.clone()));
    }
    headers.push((TRACEPARENT, outgoing.traceparent.clone()));
    headers.extend(outgoing.tracestate.clone().map(|state| (TRACESTATE, state)));
    Ok(asked(headers))
}

/// What the head of an answer says of its sender's load and limits.
fn listen(upstream: &Upstream, session: &Session) {
    let Some(headers) = session.headers() else { return };
    let now = clock::now();
    match upstream.class() {
        Class::Provider => {
            let busy = session.status() == Some(StatusCode::TOO_MANY_REQUESTS);
            if let Some(pause) = provider::pause(headers).or(busy.then_some(SOON)) {
                upstream.pause(now + pause);
            }
        }
        Class::Pod | Class::Local | Class::Region => {
            let said = headers.get("endpoint-load-metrics");
            let said = said.and_then(|value| Reported::parse(value.to_str().ok()?));
            if let Some(reported) = said {
                upstream.reported(reported, now);
            }
        }
    }
}

fn is_event_stream(session: &Session) -> bool {
    let header = session.headers().and_then(|headers| headers.get(header::CONTENT_TYPE));
    header.is_some_and(|value| value.as_bytes().starts_with(b"text/event-stream"))
}

fn connect_outcome(class: Class, error: &Unconnected) -> Outcome {
    let Unconnected::Failed(error) = error else {
        return Outcome::OurFault(OurFault::Certificate);
    };
    match error.etype() {
        ErrorType::ConnectTimedout | ErrorType::TLSHandshakeTimedout => {
            Outcome::Failed(Failed::ConnectTimeout)
        }
        ErrorType::TLSHandshakeFailure if broke_off(error) => Outcome::Failed(Failed::Reset),
        // Pods and regions refuse our certificate so; a provider sees none, and says with any alert
        // that it cannot just now.
        ErrorType::TLSHandshakeFailure if class == Class::Provider && !is_untrusted(error) => {
            Outcome::Refused(Refused::Connection)
        }
        ErrorType::InvalidCert | ErrorType::TLSHandshakeFailure => {
            Outcome::OurFault(OurFault::Certificate)
        }
        _ => Outcome::Refused(Refused::Connection),
    }
}

/// Whether a handshake ended because the connection did, which every restart of a server does.
/// OpenSSL says so in words alone.
fn broke_off(error: &pingora::Error) -> bool {
    let words = error.to_string().to_ascii_lowercase();
    ["unexpected eof", "connection reset", "broken pipe"].iter().any(|word| words.contains(word))
}

/// Whether a handshake ended because we do not believe the certificate.
fn is_untrusted(error: &pingora::Error) -> bool {
    error.to_string().to_ascii_lowercase().contains("certificate verify failed")
}
