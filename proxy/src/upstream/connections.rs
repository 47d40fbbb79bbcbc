//! Connections to upstreams: opened, pooled, and a request sent over one. Pods that speak HTTP/1.1
//! are spoken to by [`http1`], everybody else by Pingora's sessions.

use std::{
    any::Any,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Version};
use nearhop_admin::clock;
use nearhop_conf::{Protocol, Upstream};
use nearhop_routing::Class;
use pingora::{
    Error,
    connectors::{ConnectorOptions, TransportConnector, http::Connector},
    http::RequestHeader,
    protocols::{Stream, http::client::HttpSession},
    tls::ssl::SslRef,
    upstreams::peer::{HttpPeer, Peer as _},
};

use super::http1::{self, Broken, idle::Idle};

/// Finds a connection that died without a word.
pub(super) const H2_PING: Duration = Duration::from_secs(5);
/// Where an upstream stands that has no address yet.
pub(crate) const NOWHERE: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);
/// The other side's certificate has a name that is believed, where we look ourselves.
#[derive(Debug)]
struct Believed;

/// Connections are used only where `is_named` holds of them.
pub(super) fn believe(
    peer: &mut HttpPeer,
    is_named: impl Fn(&SslRef) -> bool + Send + Sync + 'static,
) {
    peer.options.verify_hostname = false;
    peer.options.upstream_tls_handshake_complete_hook = Some(Arc::new(move |ssl| {
        is_named(ssl).then(|| Arc::new(Believed) as Arc<dyn Any + Send + Sync>)
    }));
}

/// The pools.
pub(super) struct Connections {
    /// Opens those to pods that speak HTTP/1.1, which wait in `idle`.
    http1: TransportConnector,
    idle: Idle<Stream>,
    /// For everybody else, by whichever version they choose.
    any: Connector,
    pods: Protocol,
    idle_timeout: Duration,
}

/// A connection, or a stream of one, for one request.
pub(super) enum Connection {
    Http1(Stream),
    Any(Box<HttpSession>),
}

/// A request that was sent, whose answer has begun.
pub(super) enum Session {
    Http1(http1::Session),
    Any(Box<HttpSession>),
}

/// What a request's head says, less its length.
#[derive(Debug)]
pub(super) struct Asked<'a> {
    pub(super) method: &'a Method,
    pub(super) path: &'a str,
    pub(super) headers: Vec<(HeaderName, HeaderValue)>,
}

/// Why a request had no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unanswered {
    /// RFC 9113, section 8.7: nothing was done for it, and it may be sent again.
    #[error("the other side takes no more streams")]
    RefusedStream,
    #[error(transparent)]
    Broken(#[from] Broken),
    #[error("{0}")]
    Session(Box<Error>),
}

impl From<Box<Error>> for Unanswered {
    fn from(error: Box<Error>) -> Self {
        if refused_stream(&error) { Self::RefusedStream } else { Self::Session(error) }
    }
}

/// Why there is no connection.
pub(super) enum Unconnected {
    /// Pingora says so.
    Failed(Box<Error>),
    /// Its certificate has none of the names that are believed.
    Unbelieved,
}

impl Connections {
    pub(super) fn new(upstream: &Upstream) -> Self {
        let options = |idle| Some(ConnectorOptions::new(idle));
        Self {
            http1: TransportConnector::new(options(0)),
            idle: Idle::new(upstream.idle_connections, upstream.idle_timeout),
            any: Connector::new(options(upstream.idle_connections)),
            pods: upstream.protocol,
            idle_timeout: upstream.idle_timeout,
        }
    }

    fn is_http1(&self, class: Class) -> bool {
        match class {
            Class::Pod => self.pods == Protocol::Http1,
            Class::Local => true,
            Class::Region | Class::Provider => false,
        }
    }

    /// A connection, and whether it was used before.
    pub(super) async fn connect(
        &self,
        class: Class,
        peer: &HttpPeer,
    ) -> Result<(Connection, bool), Unconnected> {
        if !self.is_http1(class) {
            // What is rare, or large anyway, is not a part of every attempt's future.
            return Box::pin(self.connect_any(peer)).await;
        }
        if let Some(stream) = self.idle.take(peer.reuse_hash(), clock::now()) {
            return Ok((Connection::Http1(stream), true));
        }
        let opened = Box::pin(self.http1.new_stream(peer)).await;
        Ok((Connection::Http1(opened.map_err(Unconnected::Failed)?), false))
    }

    async fn connect_any(&self, peer: &HttpPeer) -> Result<(Connection, bool), Unconnected> {
        let got = self.any.get_http_session(peer).await;
        let (session, reused) = got.map_err(Unconnected::Failed)?;
        let looked_at = peer.options.upstream_tls_handshake_complete_hook.is_some();
        match looked_at && !is_believed(&session) {
            true => Err(Unconnected::Unbelieved),
            false => Ok((Connection::Any(Box::new(session)), reused)),
        }
    }

    /// Gives a connection back whose answer was read to its end.
    pub(super) async fn release(&self, session: Session, peer: &HttpPeer) {
        match session {
            Session::Http1(session) => {
                if let Some(stream) = session.into_stream() {
                    self.idle.put(peer.reuse_hash(), stream, clock::now());
                }
            }
            Session::Any(session) => {
                let idle = Some(self.idle_timeout);
                Box::pin(self.any.release_http_session(*session, peer, idle)).await;
            }
        }
    }

    /// Closes what lay idle for too long; Pingora sees to its own.
    pub(super) fn sweep(&self, now: Instant) {
        self.idle.sweep(now);
    }
}

/// Whether the other side is who it should be, where we look ourselves.
pub(super) fn is_believed(session: &HttpSession) -> bool {
    let digest = session.digest().and_then(|digest| digest.ssl_digest.as_ref());
    digest.is_some_and(|digest| digest.extension.get::<Believed>().is_some())
}

impl Connection {
    /// Sends a request and reads the head of its answer. The caller sets the deadline.
    pub(super) async fn send(self, asked: &Asked<'_>, body: &Bytes) -> Result<Session, Unanswered> {
        match self {
            Self::Http1(stream) => {
                let Asked { method, path, headers } = asked;
                let sent = http1::send(stream, (method, path), headers, body).await;
                Ok(Session::Http1(sent?))
            }
            Self::Any(session) => Box::pin(send_any(session, asked, body)).await,
        }
    }
}

async fn send_any(
    mut session: Box<HttpSession>,
    asked: &Asked<'_>,
    body: &Bytes,
) -> Result<Session, Unanswered> {
    let path = asked.path.as_bytes();
    let mut header = RequestHeader::build(asked.method.clone(), path, Some(asked.headers.len()))?;
    header.set_version(Version::HTTP_11);
    for (name, value) in &asked.headers {
        header.insert_header(name, value)?;
    }
    session.write_request_header(Box::new(header)).await?;
    session.write_request_body(body.clone(), true).await?;
    session.finish_request_body().await?;
    session.read_response_header().await?;
    Ok(Session::Any(session))
}

impl Session {
    pub(super) fn status(&self) -> Option<StatusCode> {
        match self {
            Self::Http1(session) => Some(session.head().status),
            Self::Any(session) => session.response_header().map(|head| head.status),
        }
    }

    pub(super) fn headers(&self) -> Option<&HeaderMap> {
        match self {
            Self::Http1(session) => Some(&session.head().headers),
            Self::Any(session) => session.response_header().map(|head| &head.headers),
        }
    }

    /// Gives more of the body to `take`; `false` at its end.
    pub(super) async fn read(&mut self, mut take: impl FnMut(&[u8])) -> Result<bool, Broken> {
        match self {
            Self::Http1(session) => session.read(take).await,
            Self::Any(session) => {
                let read = session.read_response_body().await.map_err(|_broken| Broken)?;
                let more = read.is_some();
                if let Some(bytes) = read {
                    take(&bytes);
                }
                Ok(more)
            }
        }
    }

    /// Whether it is known that all of the body was read.
    pub(super) fn has_ended(&self) -> bool {
        match self {
            Self::Http1(session) => session.has_ended(),
            Self::Any(_) => false,
        }
    }
}

fn refused_stream(error: &Error) -> bool {
    let mut cause =
        error.cause.as_ref().map(|cause| &**cause as &(dyn std::error::Error + 'static));
    while let Some(error) = cause {
        let text = error.to_string();
        if text.contains("refused stream") || text.contains("REFUSED_STREAM") {
            return true;
        }
        cause = error.source();
    }
    false
}
