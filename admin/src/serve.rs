//! A HTTP/1.1 and HTTP/2 server with limits, plain or with client certificates: admin listeners and pods stand on it.

use std::{future::Future, pin::Pin, sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use axum::Router;
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::{conn::auto, graceful::GracefulShutdown},
    service::TowerToHyperService,
};
use openssl::ssl::{Ssl, SslAcceptor};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    time::{sleep, timeout},
};
use tokio_openssl::SslStream;

use crate::tls::peer_name;

/// What one listener may hold.
#[derive(Debug, Clone, Copy)]
pub struct ServeLimits {
    /// Open connections; more wait in the kernel's backlog.
    pub connections: usize,
    /// To the end of a request's header, idle time before it included.
    pub header_read: Duration,
    /// How long running requests may go on after `shutdown`.
    pub drain: Duration,
}

/// How connections of a listener are secured.
#[derive(Clone)]
pub struct ServeTls {
    /// The acceptor of the moment; a new one is for new connections.
    pub acceptor: Arc<ArcSwap<SslAcceptor>>,
    /// DNS names of which a client's certificate must have one.
    pub names: Arc<[String]>,
}

/// Serves `router` on a listener of [`crate::bind`] until `shutdown` ends; then stops accepting and
/// lets running requests finish. Must run inside a Tokio runtime.
pub async fn serve(
    listener: std::net::TcpListener,
    router: Router,
    limits: ServeLimits,
    tls: Option<ServeTls>,
    shutdown: impl Future<Output = ()>,
) {
    let listener = TcpListener::from_std(listener).expect("a non-blocking listener, in a runtime");
    let slots = Arc::new(Semaphore::new(limits.connections));
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.header_read)
        .pipeline_flush(true);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(256)
        .keep_alive_interval(Some(Duration::from_secs(20)));
    let graceful = GracefulShutdown::new();
    tokio::pin!(shutdown);
    loop {
        let accepted = tokio::select! {
            accepted = accept(&listener, &slots) => accepted,
            () = &mut shutdown => break,
        };
        let (stream, slot) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of file descriptors, mostly; accepting again at once would only spin.
                tracing::warn!(%error, "cannot accept a connection");
                sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let service = TowerToHyperService::new(router.clone());
        match &tls {
            None => {
                let connection = builder.serve_connection(TokioIo::new(stream), service);
                let connection = graceful.watch(connection.into_owned());
                tokio::spawn(async move {
                    // A client that breaks off is its own affair.
                    let _ = connection.await;
                    drop(slot);
                });
            }
            Some(tls) => {
                let (tls, builder, watcher) = (tls.clone(), builder.clone(), graceful.watcher());
                tokio::spawn(async move {
                    let shaken = timeout(limits.header_read, handshake(stream, &tls)).await;
                    if let Ok(Some(stream)) = shaken {
                        let connection = builder.serve_connection(TokioIo::new(stream), service);
                        let _ = watcher.watch(connection.into_owned()).await;
                    }
                    drop(slot);
                });
            }
        }
    }
    drop(listener);
    let _ = timeout(limits.drain, graceful.shutdown()).await;
}

async fn accept(
    listener: &TcpListener,
    slots: &Arc<Semaphore>,
) -> std::io::Result<(TcpStream, tokio::sync::OwnedSemaphorePermit)> {
    let slot = Arc::clone(slots).acquire_owned().await.expect("the semaphore is never closed");
    let (stream, _) = listener.accept().await?;
    // Tokens are small; waiting to fill a packet would delay each by up to 40 ms.
    stream.set_nodelay(true)?;
    Ok((stream, slot))
}

/// The secured connection, where the client is somebody who may connect.
async fn handshake(stream: TcpStream, tls: &ServeTls) -> Option<SslStream<TcpStream>> {
    let ssl = Ssl::new(tls.acceptor.load().context()).ok()?;
    let mut stream = SslStream::new(ssl, stream).ok()?;
    if let Err(error) = Pin::new(&mut stream).accept().await {
        tracing::debug!(%error, "TLS handshake failed");
        return None;
    }
    if peer_name(stream.ssl(), &tls.names).is_none() {
        tracing::warn!("a client's certificate has none of the names that may connect");
        return None;
    }
    Some(stream)
}
