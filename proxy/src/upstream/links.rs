//! How each kind of upstream is connected to: what it is shown, and who is believed to be it.

use std::{net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use nearhop_admin::tls::{Identity, TlsError, mutual_files, peer_name, read_certificates};
use nearhop_conf::{MutualTls, Protocol, Upstream};
use pingora::{protocols::tls::CaType, upstreams::peer::HttpPeer, utils::tls::CertKey};

use super::{
    connections::{H2_PING, NOWHERE, believe},
    member::Role,
};

/// As many as a pod's server allows.
const H2_STREAMS_MAX: usize = 256;
/// The least that a connection to another region is waited for: TCP and TLS take two round trips, of
/// 0.3 s to the other side of the earth. One is kept from then on.
const FAR_CONNECT: Duration = Duration::from_secs(2);

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
        let connect = match role {
            Role::Provider(provider) => provider.connect,
            Role::Region(_) => self.upstream.connect.max(FAR_CONNECT),
            Role::Pod | Role::Local => self.upstream.connect,
        };
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
