//! Connections to pods: opened, pooled, and a request sent over one.
//!
//! Over HTTP/1.1 a request's header and body leave in one write. Pingora's client session flushes
//! the header by itself, which costs a second packet and wakes the pod twice; reading answers is
//! left to it.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use nearhop_admin::tls::{Identity, TlsError, read_certificates};
use nearhop_conf::{Protocol, Upstream};
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
        tls::CaType,
    },
    upstreams::peer::{HttpPeer, Peer as _},
    utils::tls::CertKey,
};
use tokio::io::AsyncWriteExt as _;

/// As many as a pod's server allows.
const H2_STREAMS_MAX: usize = 256;
/// Finds a connection that died without a word.
const H2_PING: Duration = Duration::from_secs(5);
/// A longer body is not copied behind its header.
const ONE_WRITE_MAX: usize = 64 << 10;

/// A pod's address with all that Pingora must know to connect to it.
///
/// # Errors
/// [`TlsError`] where a certificate or key cannot be used.
pub(crate) fn peer(address: SocketAddr, upstream: &Upstream) -> Result<HttpPeer, TlsError> {
    let name = upstream.tls.as_ref().and_then(|tls| tls.names.first());
    let mut peer = HttpPeer::new(address, name.is_some(), name.cloned().unwrap_or_default());
    if let Some(tls) = &upstream.tls {
        let Identity { chain, key } = Identity::read(&tls.own)?;
        peer.client_cert_key = Some(Arc::new(CertKey::new(chain, key)));
        let authorities: CaType = read_certificates(&tls.ca)?.into_boxed_slice();
        peer.options.ca = Some(Arc::new(authorities));
        // Connections of another certificate are not shared; nor are those of other authorities.
        peer.group_key = fastrand::u64(..);
    }
    let options = &mut peer.options;
    options.connection_timeout = Some(upstream.connect);
    options.total_connection_timeout = Some(upstream.connect);
    options.write_timeout = Some(upstream.next_token);
    options.idle_timeout = Some(upstream.idle_timeout);
    if upstream.protocol == Protocol::H2 {
        options.set_http_version(2, 2);
        // Pingora's default of one would open a connection for each request.
        options.max_h2_streams = H2_STREAMS_MAX;
        options.h2_ping_interval = Some(H2_PING);
    }
    Ok(peer)
}

/// The pool.
pub(super) struct Connections {
    kind: Kind,
    idle_timeout: Duration,
}

enum Kind {
    Http1(Box<TransportConnector>),
    H2(Box<Connector>),
}

/// A connection, or a stream of one, for one request.
pub(super) enum Connection {
    Http1(Stream),
    H2(Box<HttpSession>),
}

impl Connections {
    pub(super) fn new(upstream: &Upstream) -> Self {
        let options = Some(ConnectorOptions::new(upstream.idle_connections));
        let kind = match upstream.protocol {
            Protocol::Http1 => Kind::Http1(Box::new(TransportConnector::new(options))),
            Protocol::H2 => Kind::H2(Box::new(Connector::new(options))),
        };
        Self { kind, idle_timeout: upstream.idle_timeout }
    }

    /// A connection, and whether it was used before.
    pub(super) async fn connect(&self, peer: &HttpPeer) -> pingora::Result<(Connection, bool)> {
        match &self.kind {
            Kind::Http1(transport) => {
                let (stream, reused) = transport.get_stream(peer).await?;
                Ok((Connection::Http1(stream), reused))
            }
            Kind::H2(connector) => {
                let (session, reused) = connector.get_http_session(peer).await?;
                Ok((Connection::H2(Box::new(session)), reused))
            }
        }
    }

    /// Gives a connection back whose answer was read to its end.
    pub(super) async fn release(&self, session: HttpSession, peer: &HttpPeer) {
        let idle = Some(self.idle_timeout);
        match (&self.kind, session) {
            (Kind::Http1(transport), HttpSession::H1(mut session)) => {
                session.respect_keepalive();
                if let Some(stream) = session.reuse().await {
                    transport.release_stream(stream, peer.reuse_hash(), idle);
                }
            }
            (Kind::H2(connector), session) => {
                connector.release_http_session(session, peer, idle).await;
            }
            // A session of another kind than its pool cannot be; closing it would be right.
            (Kind::Http1(_), _) => {}
        }
    }
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
            Self::H2(mut session) => {
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
