//! A client's connections: kept, reused, opened anew. Of one thread, as a worker is.

use std::{
    cell::RefCell, collections::HashMap, net::SocketAddr, path::Path, rc::Rc, time::Duration,
};

use bytes::Bytes;
use http_body_util::Full;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use nearhop_conf::{Protocol, Target};
use openssl::ssl::{SslConnector, SslMethod};
use tokio::{net::TcpStream, time::timeout};

use crate::places::host_of;

/// A client waits no longer for a connection.
const CONNECT_PATIENCE: Duration = Duration::from_secs(5);

pub(crate) type Body = Full<Bytes>;

/// One request's way to a server.
#[derive(Debug)]
pub(crate) enum Sender {
    Http1(http1::SendRequest<Body>),
    Http2(http2::SendRequest<Body>),
}

/// A region, and one of its addresses.
type Place = (usize, SocketAddr);

/// The connections of one worker to all regions.
#[derive(Debug)]
pub(crate) struct Connections {
    protocol: Protocol,
    /// For each region: the name in certificates and requests, and whether it speaks TLS.
    hosts: Vec<(String, bool)>,
    tls: Option<SslConnector>,
    idle: RefCell<HashMap<Place, Vec<http1::SendRequest<Body>>>>,
    shared: RefCell<HashMap<Place, http2::SendRequest<Body>>>,
}

impl Connections {
    /// # Errors
    /// The certificates of `target.ca` cannot be read.
    pub(crate) fn new(target: &Target) -> Result<Rc<Self>, String> {
        let of = |url: &str| (host_of(url).unwrap_or_default().0, url.starts_with("https://"));
        let hosts: Vec<(String, bool)> = target.regions.iter().map(|one| of(&one.url)).collect();
        let tls = hosts.iter().any(|(_, tls)| *tls);
        let tls = tls.then(|| connector(target.ca.as_deref(), target.protocol)).transpose()?;
        Ok(Rc::new(Self {
            protocol: target.protocol,
            hosts,
            tls,
            idle: RefCell::default(),
            shared: RefCell::default(),
        }))
    }

    pub(crate) const fn is_http2(&self) -> bool {
        matches!(self.protocol, Protocol::H2)
    }

    pub(crate) fn scheme(&self, region: usize) -> &'static str {
        if self.hosts[region].1 { "https" } else { "http" }
    }

    /// A connection to a region at an address that was used before; or a new one, `true`.
    ///
    /// # Errors
    /// What the connection could not be opened for.
    pub(crate) async fn open(
        self: &Rc<Self>,
        region: usize,
        address: SocketAddr,
    ) -> Result<(Sender, bool), String> {
        let key = (region, address);
        match self.protocol {
            Protocol::Http1 => loop {
                let kept = self.idle.borrow_mut().get_mut(&key).and_then(Vec::pop);
                match kept {
                    Some(sender) if sender.is_ready() => return Ok((Sender::Http1(sender), false)),
                    Some(_closed) => {}
                    None => break,
                }
            },
            Protocol::H2 => {
                let kept = self.shared.borrow().get(&key).cloned();
                if let Some(sender) = kept.filter(|sender| !sender.is_closed()) {
                    return Ok((Sender::Http2(sender), false));
                }
            }
        }
        let opened = timeout(CONNECT_PATIENCE, self.connect(region, address)).await;
        let sender = opened.map_err(|_late| format!("no connection to {address} in time"))??;
        if let Sender::Http2(sender) = &sender {
            self.shared.borrow_mut().insert(key, sender.clone());
        }
        Ok((sender, true))
    }

    /// Keeps a connection whose answer was read to its end.
    pub(crate) fn keep(&self, region: usize, address: SocketAddr, sender: Sender) {
        if let Sender::Http1(sender) = sender {
            self.idle.borrow_mut().entry((region, address)).or_default().push(sender);
        }
    }

    async fn connect(&self, region: usize, address: SocketAddr) -> Result<Sender, String> {
        let told = |error: &dyn std::fmt::Display| format!("{address}: {error}");
        let stream = TcpStream::connect(address).await.map_err(|error| told(&error))?;
        stream.set_nodelay(true).map_err(|error| told(&error))?;
        let (host, secure) = &self.hosts[region];
        match self.tls.as_ref().filter(|_| *secure) {
            None => self.speak(stream).await.map_err(|error| told(&error)),
            Some(tls) => {
                let ssl = tls.configure().and_then(|tls| tls.into_ssl(host));
                let ssl = ssl.map_err(|error| told(&error))?;
                let mut stream =
                    tokio_openssl::SslStream::new(ssl, stream).map_err(|error| told(&error))?;
                std::pin::Pin::new(&mut stream).connect().await.map_err(|error| told(&error))?;
                self.speak(stream).await.map_err(|error| told(&error))
            }
        }
    }

    async fn speak<S>(&self, stream: S) -> hyper::Result<Sender>
    where
        S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
    {
        let io = TokioIo::new(stream);
        match self.protocol {
            Protocol::Http1 => {
                let (sender, connection) = http1::handshake(io).await?;
                // It ends with its sender; how is told to whoever uses it.
                drop(tokio::task::spawn_local(connection));
                Ok(Sender::Http1(sender))
            }
            Protocol::H2 => {
                let (sender, connection) = http2::handshake(TokioExecutor::new(), io).await?;
                drop(tokio::task::spawn_local(connection));
                Ok(Sender::Http2(sender))
            }
        }
    }
}

impl Sender {
    pub(crate) async fn send(
        &mut self,
        request: http::Request<Body>,
    ) -> hyper::Result<http::Response<hyper::body::Incoming>> {
        match self {
            Self::Http1(sender) => sender.send_request(request).await,
            Self::Http2(sender) => sender.send_request(request).await,
        }
    }
}

fn connector(ca: Option<&Path>, protocol: Protocol) -> Result<SslConnector, String> {
    let told = |error: openssl::error::ErrorStack| error.to_string();
    let mut builder = SslConnector::builder(SslMethod::tls_client()).map_err(told)?;
    if let Some(ca) = ca {
        let read = builder.set_ca_file(ca);
        read.map_err(|error| format!("target.ca: {} cannot be read: {error}", ca.display()))?;
    }
    if protocol == Protocol::H2 {
        builder.set_alpn_protos(b"\x02h2").map_err(told)?;
    }
    Ok(builder.build())
}
