//! Connections to upstreams: opened, pooled, and a request sent over one.
//!
//! Over HTTP/1.1 a request's header and body leave in one write. Pingora's client session flushes
//! the header by itself, which costs a second packet and wakes the pod twice; reading answers is
//! left to it.

use std::{any::Any, net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use nearhop_admin::tls::{Identity, TlsError, mutual_files, peer_name, read_certificates};
use nearhop_conf::{MutualTls, Protocol, Upstream};
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
        tls::CaType,
    },
    tls::ssl::SslRef,
    upstreams::peer::{HttpPeer, Peer as _},
    utils::tls::CertKey,
};
use tokio::io::AsyncWriteExt as _;

use super::{member::Role, provider::NOWHERE};

/// As many as a pod's server allows.
const H2_STREAMS_MAX: usize = 256;
/// Finds a connection that died without a word.
pub(super) const H2_PING: Duration = Duration::from_secs(5);
/// A longer body is not copied behind its header.
const ONE_WRITE_MAX: usize = 64 << 10;

/// How each kind of upstream is connected to.
pub(crate) struct Links {
    upstream: Upstream,
    /// What this edge shows other regions', and who they are.
    peers: Option<MutualTls>,
}

impl Links {
    pub(crate) fn new(upstream: &Upstream, peers: Option<&MutualTls>) -> Self {
        Self { upstream: upstream.clone(), peers: peers.cloned() }
    }

    /// Whether the certificates that are configured can be used.
    ///
    /// # Errors
    /// [`TlsError`] of the first that cannot.
    pub(crate) fn check(&self) -> Result<(), TlsError> {
        self.pod(NOWHERE)?;
        if self.peers.is_some() {
            self.region(NOWHERE)?;
        }
        Ok(())
    }

    /// Files whose change makes other connections necessary.
    pub(crate) fn files(&self) -> Vec<PathBuf> {
        [&self.upstream.tls, &self.peers].into_iter().flatten().flat_map(mutual_files).collect()
    }

    /// An address with all that Pingora must know to connect to it.
    ///
    /// # Errors
    /// [`TlsError`] where a certificate or key cannot be used.
    pub(crate) fn peer(&self, role: &Role, address: SocketAddr) -> Result<HttpPeer, TlsError> {
        let mut peer = match role {
            Role::Pod => self.pod(address)?,
            Role::Local => HttpPeer::new(address, false, String::new()),
            Role::Region(_) => self.region(address)?,
            Role::Provider(provider) => provider.peer(address)?,
        };
        let options = &mut peer.options;
        let connect = role.provider().map_or(self.upstream.connect, |provider| provider.connect);
        options.connection_timeout = Some(connect);
        options.total_connection_timeout = Some(connect);
        options.write_timeout = Some(self.upstream.next_token);
        options.idle_timeout = Some(self.upstream.idle_timeout);
        options.max_h2_streams = H2_STREAMS_MAX;
        Ok(peer)
    }

    fn pod(&self, address: SocketAddr) -> Result<HttpPeer, TlsError> {
        let tls = self.upstream.tls.as_ref();
        let name = tls.and_then(|tls| tls.names.first());
        let mut peer = HttpPeer::new(address, name.is_some(), name.cloned().unwrap_or_default());
        if let Some(tls) = tls {
            identify(&mut peer, tls)?;
        }
        if self.upstream.protocol == Protocol::H2 {
            multiplex(&mut peer);
        }
        Ok(peer)
    }

    /// Another region's edge is whoever shows one of the names: which is asked of its certificate
    /// after the handshake, since the names may be patterns and the address a bare one.
    fn region(&self, address: SocketAddr) -> Result<HttpPeer, TlsError> {
        // A region is only found where this is configured.
        let tls = self.peers.as_ref().ok_or(TlsError::NoIdentity)?;
        let asked = tls.names.first().map_or("", |name| name.trim_start_matches("*."));
        let mut peer = HttpPeer::new(address, true, asked.to_owned());
        identify(&mut peer, tls)?;
        multiplex(&mut peer);
        let names = tls.names.clone();
        believe(&mut peer, move |ssl| peer_name(ssl, &names).is_some());
        Ok(peer)
    }
}

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

/// Shows our certificate, and believes those that its authorities vouch for.
fn identify(peer: &mut HttpPeer, tls: &MutualTls) -> Result<(), TlsError> {
    let Identity { chain, key } = Identity::read(&tls.own)?;
    peer.client_cert_key = Some(Arc::new(CertKey::new(chain, key)));
    let authorities: CaType = read_certificates(&tls.ca)?.into_boxed_slice();
    peer.options.ca = Some(Arc::new(authorities));
    // Connections of another certificate are not shared; nor are those of other authorities.
    peer.group_key = fastrand::u64(..);
    Ok(())
}

fn multiplex(peer: &mut HttpPeer) {
    peer.options.set_http_version(2, 2);
    peer.options.h2_ping_interval = Some(H2_PING);
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
