//! The Pingora shell: one HTTP session after another, and the client's side of each.
//!
//! Requests are answered by our own phases, so Pingora's proxying layer, with its dozen hooks and
//! its own answers to bad requests, is not between: a session's header is read here, under our
//! limits, and what is wrong with it is told in the contract's shape.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Method, Version, header};
use nearhop_admin::clock;
use nearhop_conf::Limits;
use pingora::{
    ErrorType,
    apps::{HttpPersistentSettings, HttpServerApp, HttpServerOptions, ReusedHttpStream},
    http::ResponseHeader,
    protocols::http::{
        ServerSession,
        v2::server::{H2Options, default_h2_options},
    },
    server::ShutdownWatch,
};
use tokio::time::{timeout, timeout_at};

use crate::{
    buffer::Held,
    client::{BodyError, Client, Gone, ResponseHead, Side},
    framing,
    listener::connection::{Connection, Phase},
    phase::{self, Shared},
};

/// Answers the requests of a listener.
pub(crate) struct Gateway {
    shared: Arc<Shared>,
    side: Side,
    options: HttpServerOptions,
    h2: H2Options,
}

impl Gateway {
    pub(crate) fn new(shared: &Arc<Shared>, side: Side, limits: &Limits) -> Self {
        let mut options = HttpServerOptions::default();
        options.h2c = true;
        options.h2_idle_timeout = Some(limits.keepalive);
        let mut h2 = default_h2_options();
        h2.max_header_list_size(u32::try_from(limits.headers.0).unwrap_or(u32::MAX));
        h2.max_concurrent_streams(u32::try_from(limits.h2_streams).unwrap_or(u32::MAX));
        // Resets that arrive before we saw the request, and those we answer with: more of either
        // end the connection (CVE-2023-44487 and its kin).
        h2.max_pending_accept_reset_streams(limits.h2_streams);
        h2.max_local_error_reset_streams(Some(1024));
        Self { shared: Arc::clone(shared), side, options, h2 }
    }
}

#[async_trait]
impl HttpServerApp for Gateway {
    async fn process_new_http(
        self: &Arc<Self>,
        mut session: ServerSession,
        shutdown: &ShutdownWatch,
    ) -> Option<ReusedHttpStream> {
        let connection = connection_of(&session)?;
        if !session.is_http2() && connection.phase() == Phase::Open {
            connection.set_phase(Phase::Idle);
        }
        let read = session.read_request().await;
        connection.set_phase(Phase::Open);
        match read {
            Ok(true) => {}
            Ok(false) => return None,
            Err(error) => {
                // Else the connection is broken, and nobody listens.
                if *error.etype() == ErrorType::InvalidHTTPHeader {
                    refuse(&mut session, &self.shared).await;
                }
                session.shutdown().await;
                return None;
            }
        }
        let judged = session.as_http1().map_or(Ok(()), |session| {
            let head = session.req_header();
            framing::judge(&session.get_headers_raw_bytes(), &head.headers, head.version)
        });
        if let Err(reason) = judged {
            tracing::debug!(reason, "ambiguous request");
            refuse(&mut session, &self.shared).await;
            session.shutdown().await;
            return None;
        }
        let live = self.shared.live.load_full();
        prepare(&mut session, &live.limits);
        let mut client = Downstream {
            session: &mut session,
            connection: &connection,
            side: self.side,
            shutdown,
            write: live.limits.client_write,
            given_up: false,
        };
        phase::run(&self.shared, &live, &mut client).await;
        if client.given_up {
            if session.is_http2() {
                connection.given_up(live.limits.h2_resets, clock::now());
            }
            // Dropped, which resets it: finishing would make what was cut off look whole.
            return None;
        }
        // A connection whose last answer did not say `close` gets one more, which does.
        let settings = HttpPersistentSettings::for_session(&session);
        let within = live.limits.client_write + LINGER;
        let reusable = timeout(within, session.finish()).await.ok()?.ok().flatten()?;
        Some(ReusedHttpStream::from_reusable_stream(reusable, settings))
    }

    fn server_options(&self) -> Option<&HttpServerOptions> {
        Some(&self.options)
    }

    fn h2_options(&self) -> Option<H2Options> {
        Some(self.h2.clone())
    }
}

/// Answers what is no request of HTTP. The connection ends with it: where the next one would begin
/// is anybody's guess.
async fn refuse(session: &mut ServerSession, shared: &Arc<Shared>) {
    let (head, body) = phase::unreadable(shared);
    let response = build(head, false);
    let answered = timeout(LINGER, session.write_error_response(response, body)).await;
    tracing::debug!(answered = matches!(answered, Ok(Ok(()))), "unreadable request");
}

/// Every connection of ours has one; see [`crate::listener`].
fn connection_of(session: &ServerSession) -> Option<Arc<Connection>> {
    let digest = session.digest()?.proxy_digest.as_ref()?;
    digest.user_data.as_ref()?.downcast_ref::<Arc<Connection>>().cloned()
}

/// Sets what Pingora leaves open: idle connections live for ever, pipelined requests are dropped
/// and a byte after a body cancels the answer, reads and writes may take for ever.
fn prepare(session: &mut ServerSession, limits: &Limits) {
    session.set_pipelining_enabled(true);
    // Only where the client's version and `Connection` header left it on. A chunked request is the
    // last of its connection: the parser takes an empty chunk size for the last chunk, and what
    // followed would be a request that others take for its body. Clients of ours send a length.
    // So is a CONNECT, whose client takes all that follows for its tunnel's.
    let head = session.req_header();
    let last =
        head.headers.contains_key(header::TRANSFER_ENCODING) || head.method == Method::CONNECT;
    if session.get_keepalive().is_some() {
        session.set_keepalive((!last).then_some(limits.keepalive.as_secs()));
    }
    // A net under the deadline of the whole body, which must be first: what it ends is answered.
    session.set_read_timeout(Some(2 * limits.body_read));
    session.set_write_timeout(Some(limits.client_write));
    session.set_total_drain_timeout(Some(LINGER));
}

/// How long, and for how many bytes, a client that still sends is listened to after its answer.
const LINGER: Duration = Duration::from_secs(2);
const LINGER_BYTES_MAX: usize = 32 << 20;

struct Downstream<'a> {
    session: &'a mut ServerSession,
    connection: &'a Connection,
    side: Side,
    shutdown: &'a ShutdownWatch,
    /// One write to it.
    write: Duration,
    given_up: bool,
}

impl Downstream<'_> {
    async fn read_body(&mut self, limit: usize, held: &mut Held) -> Result<Bytes, BodyError> {
        let session = &mut *self.session;
        let head = session.req_header();
        // A client of HTTP/1.0 knows no interim answers (RFC 9110, section 10.1.1).
        let expects = head.headers.get(header::EXPECT).filter(|_| head.version != Version::HTTP_10);
        if expects.is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue")) {
            session.write_continue_response().await.map_err(|_gone| BodyError::Broken)?;
        }
        let mut first: Option<Bytes> = None;
        let mut all = BytesMut::new();
        while let Some(bytes) =
            session.read_request_body().await.map_err(|error| body_error(&error))?
        {
            let length = first.as_ref().map_or(0, Bytes::len) + all.len() + bytes.len();
            if length > limit {
                return Err(BodyError::TooLarge);
            }
            // Twice: a pod is sent a copy of it.
            if !held.grow(2 * bytes.len()) {
                return Err(BodyError::NoRoom);
            }
            // A body mostly comes in one piece, which is then not copied.
            match &first {
                None if all.is_empty() => first = Some(bytes),
                _ => {
                    if let Some(first) = first.take() {
                        all.extend_from_slice(&first);
                    }
                    all.extend_from_slice(&bytes);
                }
            }
        }
        Ok(first.unwrap_or_else(|| all.freeze()))
    }
}

impl Client for Downstream<'_> {
    fn method(&self) -> &Method {
        &self.session.req_header().method
    }

    fn path(&self) -> &str {
        self.session.req_header().uri.path()
    }

    fn headers(&self) -> &HeaderMap {
        &self.session.req_header().headers
    }

    fn address(&self) -> std::net::IpAddr {
        self.connection.client.ip()
    }

    fn side(&self) -> Side {
        self.side
    }

    fn peer(&self) -> Option<&str> {
        self.connection.peer()
    }

    fn protocol(&self) -> &'static str {
        match self.session.req_header().version {
            Version::HTTP_2 => "HTTP/2",
            Version::HTTP_11 => "HTTP/1.1",
            _ => "HTTP/1.0",
        }
    }

    async fn body(
        &mut self,
        limit: usize,
        deadline: Duration,
        held: &mut Held,
    ) -> Result<Bytes, BodyError> {
        let until = clock::now() + deadline;
        let declared = self.headers().get(header::CONTENT_LENGTH);
        let declared = declared.and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
        // Told before it is read, a client that asked first need not send it at all.
        if declared.is_some_and(|length| length > limit as u64) {
            return Err(BodyError::TooLarge);
        }
        let read = timeout_at(until.into(), self.read_body(limit, held)).await;
        let read = read.unwrap_or(Err(BodyError::TooSlow));
        self.given_up |= read == Err(BodyError::Broken);
        if read == Err(BodyError::Malformed) {
            // Where the next request would begin is anybody's guess.
            self.session.set_keepalive(None);
        }
        read
    }

    async fn gone(&mut self) {
        // Bytes of a pipelined request are kept by Pingora and are no reason to stop.
        while self.session.read_body_or_idle(true).await.is_ok() {}
        self.given_up = true;
    }

    async fn send_head(&mut self, head: ResponseHead) -> Result<(), Gone> {
        // HTTP/2 frames by itself; HTTP/1.0 knows no chunks, its stream ends with the connection.
        let chunked = self.session.req_header().version == Version::HTTP_11;
        if *self.shutdown.borrow() {
            // Said in this answer, so that the client opens another connection for its next one.
            self.session.set_keepalive(None);
        }
        let response = build(head, chunked);
        // It leaves with the first of its body, which follows at once; over HTTP/2 many answers share
        // the connection. Pingora limits the writes of bodies only.
        self.connection.cork(!self.session.is_http2());
        let sent =
            timeout(self.write, self.session.write_response_header(Box::new(response))).await;
        self.connection.cork(false);
        let sent = matches!(sent, Ok(Ok(())));
        self.given_up |= !sent;
        sent.then_some(()).ok_or(Gone)
    }

    async fn send_body(&mut self, bytes: Bytes, end: bool) -> Result<(), Gone> {
        if bytes.is_empty() && !end {
            // An empty chunk would be the end of a chunked body.
            return Ok(());
        }
        let (session, connection) = (&mut *self.session, self.connection);
        let sending = async {
            if session.is_http2() || !end || bytes.is_empty() {
                return session.write_response_body(bytes, end).await;
            }
            // With the end of the framing.
            connection.cork(true);
            let written = session.write_response_body(bytes, false).await;
            connection.cork(false);
            written?;
            session.write_response_body(Bytes::new(), true).await
        };
        let sent = timeout(self.write, sending).await;
        connection.cork(false);
        let sent = matches!(sent, Ok(Ok(())));
        self.given_up |= !sent;
        sent.then_some(()).ok_or(Gone)
    }

    async fn linger(&mut self) {
        if self.session.is_body_done() {
            return;
        }
        let mut left = LINGER_BYTES_MAX;
        let rest = async {
            while let Ok(Some(bytes)) = self.session.read_request_body().await {
                match left.checked_sub(bytes.len()) {
                    Some(rest) => left = rest,
                    None => return,
                }
            }
        };
        // What is still coming after that is no client that listens.
        let _ = timeout(LINGER, rest).await;
    }
}

/// Why a body could not be read: its client has gone, or what it sent is no body.
fn body_error(error: &pingora::Error) -> BodyError {
    match error.etype() {
        ErrorType::ReadTimedout => BodyError::TooSlow,
        ErrorType::ReadError | ErrorType::ConnectionClosed | ErrorType::H2Error => {
            BodyError::Broken
        }
        _ => BodyError::Malformed,
    }
}

fn build(head: ResponseHead, chunked: bool) -> ResponseHeader {
    // Pingora adds two. Made of plain parts: headers of ours are lower case already.
    let mut headers = HeaderMap::with_capacity(head.headers.len() + 3);
    for (name, value) in head.headers {
        headers.append(name, value);
    }
    let framing = match head.length {
        Some(length) => Some((header::CONTENT_LENGTH, HeaderValue::from(length))),
        None if chunked => Some((header::TRANSFER_ENCODING, HeaderValue::from_static("chunked"))),
        None => None,
    };
    headers.extend(framing);
    let (mut parts, ()) = http::Response::new(()).into_parts();
    (parts.status, parts.headers) = (head.status, headers);
    parts.into()
}
