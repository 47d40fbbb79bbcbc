//! Connections to upstreams: opened, pooled, and a request sent over one.
//!
//! Over HTTP/1.1 a request's header and body leave in one write. Pingora's client session flushes
//! the header by itself, which costs a second packet and wakes the pod twice; reading answers is
//! left to it.

use std::{
    any::Any,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use nearhop_conf::{Protocol, Upstream};
use nearhop_routing::Class;
use pingora::{
    Error, ErrorType, OrErr as _,
    connectors::{ConnectorOptions, TransportConnector, http::Connector},
    http::RequestHeader,
    protocols::{
        Stream,
        http::{
            client::HttpSession,
            v1::client::{HttpSession as Http1Session, http_req_header_to_wire},
        },
    },
    tls::ssl::SslRef,
    upstreams::peer::{HttpPeer, Peer as _},
};
use tokio::io::AsyncWriteExt as _;

/// Finds a connection that died without a word.
pub(super) const H2_PING: Duration = Duration::from_secs(5);
/// Where an upstream stands that has no address yet.
pub(crate) const NOWHERE: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);
/// A longer body is not copied behind its header.
const ONE_WRITE_MAX: usize = 64 << 10;

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
    /// For pods that speak HTTP/1.1: see the module's words.
    http1: TransportConnector,
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

/// Why there is no connection.
pub(super) enum Unconnected {
    /// Pingora says so.
    Failed(Box<Error>),
    /// Its certificate has none of the names that are believed.
    Unbelieved,
}

impl Connections {
    pub(super) fn new(upstream: &Upstream) -> Self {
        let options = || Some(ConnectorOptions::new(upstream.idle_connections));
        Self {
            http1: TransportConnector::new(options()),
            any: Connector::new(options()),
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
        if self.is_http1(class) {
            let got = self.http1.get_stream(peer).await;
            let (stream, reused) = got.map_err(Unconnected::Failed)?;
            return Ok((Connection::Http1(stream), reused));
        }
        let got = self.any.get_http_session(peer).await;
        let (session, reused) = got.map_err(Unconnected::Failed)?;
        let looked_at = peer.options.upstream_tls_handshake_complete_hook.is_some();
        match looked_at && !is_believed(&session) {
            true => Err(Unconnected::Unbelieved),
            false => Ok((Connection::Any(Box::new(session)), reused)),
        }
    }

    /// Gives a connection back whose answer was read to its end.
    pub(super) async fn release(&self, class: Class, session: HttpSession, peer: &HttpPeer) {
        let idle = Some(self.idle_timeout);
        match (self.is_http1(class), session) {
            (true, HttpSession::H1(mut session)) => {
                session.respect_keepalive();
                if let Some(stream) = session.reuse().await {
                    self.http1.release_stream(stream, peer.reuse_hash(), idle);
                }
            }
            (false, session) => self.any.release_http_session(session, peer, idle).await,
            // A session of another kind than its pool cannot be; closing it would be right.
            (true, _) => {}
        }
    }
}

/// Whether the other side is who it should be, where we look ourselves.
pub(super) fn is_believed(session: &HttpSession) -> bool {
    let digest = session.digest().and_then(|digest| digest.ssl_digest.as_ref());
    digest.is_some_and(|digest| digest.extension.get::<Believed>().is_some())
}

impl Connection {
    /// Sends a request and reads the head of its answer. The caller sets the deadline.
    pub(super) async fn send(
        self,
        peer: &HttpPeer,
        header: Box<RequestHeader>,
        body: &Bytes,
    ) -> pingora::Result<HttpSession> {
        let mut session = match self {
            Self::Http1(mut stream) => {
                write_http1(&mut stream, &header, body).await?;
                HttpSession::H1(Http1Session::new_with_options(stream, peer))
            }
            Self::Any(mut session) => {
                session.write_request_header(header).await?;
                session.write_request_body(body.clone(), true).await?;
                session.finish_request_body().await?;
                *session
            }
        };
        session.read_response_header().await?;
        Ok(session)
    }
}

async fn write_http1(
    stream: &mut Stream,
    header: &RequestHeader,
    body: &Bytes,
) -> pingora::Result<()> {
    let invalid = || Error::explain(ErrorType::InvalidHTTPHeader, "a header of ours is not one");
    let mut wire: BytesMut = http_req_header_to_wire(header).ok_or_else(invalid)?;
    let broken = |written: std::io::Result<()>| {
        written.or_err(ErrorType::WriteError, "while sending a request")
    };
    if body.len() <= ONE_WRITE_MAX {
        wire.extend_from_slice(body);
        broken(stream.write_all(&wire).await)?;
    } else {
        broken(stream.write_all(&wire).await)?;
        broken(stream.write_all(body).await)?;
    }
    broken(stream.flush().await)
}
