//! Listeners: sockets to requests.
//!
//! Each accepted connection is counted against its address, says who it is (PROXY protocol, TLS,
//! a peer's certificate), and is then Pingora's: its HTTP/1.1 and HTTP/2 sessions read from a
//! [`guard::Guarded`] stream, which bounds what Pingora leaves open. Pingora's own listener is not
//! used: it knows no limit of connections, gives a handshake a minute and hands sockets over by
//! two fixed sleeps.

pub(crate) mod connection;
mod guard;
mod proxy_protocol;

use std::{
    net::{SocketAddr, TcpListener as StdListener},
    pin::Pin,
    sync::Arc,
    time::Duration,
};

use arc_swap::ArcSwap;
use nearhop_admin::{clock, tls::peer_name};
use pingora::{
    apps::ServerApp,
    protocols::{l4::stream::Stream as L4Stream, tls::SslStream},
    server::ShutdownWatch,
    tls::ssl::{Ssl, SslAcceptor},
};
use socket2::SockRef;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    time::{sleep, timeout},
};

use self::{
    connection::{Addresses, Connection, Phase},
    guard::Guarded,
};
use crate::{gateway::Gateway, live::Live, metrics::EdgeMetrics};

/// The kernel's buffer for what a client has not read yet, bytes; the kernel doubles it. An answer
/// of a thousand tokens is a tenth of it.
const SEND_BUFFER: usize = 64 << 10;

/// Who may connect to a listener, and how.
#[derive(Clone)]
pub(crate) enum Security {
    /// Anybody, in plain text.
    Plain,
    /// Anybody, over TLS.
    Tls(Arc<ArcSwap<SslAcceptor>>),
    /// Who shows a certificate with one of these names.
    Mutual(Arc<ArcSwap<SslAcceptor>>, Arc<[String]>),
}

/// A listener that is open.
pub(crate) struct Listener {
    pub(crate) socket: StdListener,
    pub(crate) security: Security,
    pub(crate) gateway: Arc<Gateway>,
}

/// What the listeners of an edge share.
#[derive(Clone)]
pub(crate) struct Doorkeeper {
    pub(crate) live: Arc<ArcSwap<Live>>,
    pub(crate) metrics: EdgeMetrics,
    pub(crate) addresses: Arc<Addresses>,
    /// Open connections; what is over it waits in the kernel.
    pub(crate) slots: Arc<Semaphore>,
    /// Set when the edge stops: running requests finish, connections close.
    pub(crate) shutdown: ShutdownWatch,
}

/// Accepts until `stopped` ends. The socket is closed then; where another process has it too, that
/// one goes on accepting.
pub(crate) async fn accept(
    listener: Listener,
    keeper: Doorkeeper,
    stopped: impl Future<Output = ()> + Send,
) {
    let socket =
        TcpListener::from_std(listener.socket).expect("a non-blocking socket, in a runtime");
    tokio::pin!(stopped);
    loop {
        let accepted = tokio::select! {
            accepted = next(&socket, &keeper.slots) => accepted,
            () = &mut stopped => return,
        };
        let (stream, address, slot) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of file descriptors, mostly; accepting again at once would only spin.
                tracing::warn!(%error, "cannot accept a connection");
                sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let (security, gateway) = (listener.security.clone(), Arc::clone(&listener.gateway));
        let keeper = keeper.clone();
        tokio::spawn(async move {
            let reason = match welcome(stream, address, &security, &keeper).await {
                Ok(Welcomed { stream, connection }) => {
                    converse(stream, &connection, &gateway, &keeper.shutdown).await
                }
                Err(reason) => Some(reason),
            };
            if let Some(reason) = reason {
                keeper.metrics.connections_refused.with_label_values(&[reason]).inc();
            }
            drop(slot);
        });
    }
}

async fn next(
    socket: &TcpListener,
    slots: &Arc<Semaphore>,
) -> std::io::Result<(TcpStream, SocketAddr, tokio::sync::OwnedSemaphorePermit)> {
    let slot = Arc::clone(slots).acquire_owned().await.expect("the semaphore is never closed");
    let (stream, address) = socket.accept().await?;
    // Tokens are small; waiting to fill a packet would delay each by up to 40 ms.
    stream.set_nodelay(true)?;
    // Else the kernel keeps megabytes for each client that does not read.
    SockRef::from(&stream).set_send_buffer_size(SEND_BUFFER)?;
    Ok((stream, address, slot))
}

struct Welcomed {
    stream: pingora::protocols::Stream,
    connection: Arc<Connection>,
}

/// From a socket to a stream of HTTP whose other side is known; or in a word why not.
async fn welcome(
    mut socket: TcpStream,
    address: SocketAddr,
    security: &Security,
    keeper: &Doorkeeper,
) -> Result<Welcomed, &'static str> {
    let live = keeper.live.load_full();
    let limits = &live.limits;
    let opened = clock::now();
    let deadline = opened + limits.header_read;
    let trusted = live.proxy_protocol.iter().any(|net| net.contains(&address.ip().to_canonical()));
    let mut client = address;
    if trusted && !matches!(security, Security::Mutual(..)) {
        let left = deadline.saturating_duration_since(clock::now());
        let header = timeout(left, proxy_protocol::read(&mut socket)).await;
        match header {
            Ok(Ok(named)) => client = named.unwrap_or(address),
            Ok(Err(_)) => return Err("proxy_protocol"),
            Err(_) => return Err("slow_handshake"),
        }
    }
    let place = keeper.addresses.enter(client.ip(), limits.connections_per_address);
    let Some(place) = place else { return Err("address_limit") };
    let connection = Arc::new(Connection::new(client, place, keeper.metrics.clone()));
    let l4 = L4Stream::from(socket);
    let stream: pingora::protocols::Stream = match security {
        Security::Plain => Box::new(Guarded::new(l4, &connection, limits, deadline)),
        Security::Tls(acceptor) | Security::Mutual(acceptor, _) => {
            let ssl = Ssl::new(acceptor.load().context()).map_err(|_openssl| "tls")?;
            let mut stream = SslStream::new(ssl, l4).map_err(|_openssl| "tls")?;
            let left = deadline.saturating_duration_since(clock::now());
            match timeout(left, Pin::new(&mut stream).accept()).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => {
                    tracing::debug!(%client, %error, "TLS handshake failed");
                    return Err("tls");
                }
                Err(_) => return Err("slow_handshake"),
            }
            if let Security::Mutual(_, names) = security {
                let Some(name) = peer_name(stream.ssl(), names) else {
                    tracing::warn!(%client, "a peer's certificate has none of the names that may connect");
                    return Err("peer_name");
                };
                connection.identify(name);
            }
            Box::new(Guarded::new(stream, &connection, limits, deadline))
        }
    };
    Ok(Welcomed { stream, connection })
}

/// Serves the connection to its end; in a word why we ended it, where we did.
async fn converse(
    stream: pingora::protocols::Stream,
    connection: &Arc<Connection>,
    gateway: &Arc<Gateway>,
    shutdown: &ShutdownWatch,
) -> Option<&'static str> {
    tokio::select! {
        // First: bytes that have come are a request, which is not thrown away.
        biased;
        _ = gateway.process_new(stream, shutdown) => connection.broken_limit(),
        reason = connection.ended() => Some(reason),
        () = idle_too_long(connection, shutdown) => None,
    }
}

/// Resolves when the edge stops and the connection has lain idle for a moment: it may still send a
/// request, which is answered with `Connection: close`. Closing at once would race it. HTTP/2 says
/// GOAWAY by itself.
async fn idle_too_long(connection: &Connection, shutdown: &ShutdownWatch) {
    const LAST_CHANCE: Duration = Duration::from_secs(1);
    let mut shutdown = shutdown.clone();
    let _ = shutdown.wait_for(|stopping| *stopping).await;
    sleep(LAST_CHANCE).await;
    while connection.phase() != Phase::Idle {
        sleep(Duration::from_millis(50)).await;
    }
}
