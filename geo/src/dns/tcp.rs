//! TCP (RFC 7766): queries one after another, within limits of time and number.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    time::{sleep, timeout},
};

use super::{
    Answer, Transport, answer,
    live::{Counted, Live},
};

/// From one query's end to the next one's.
const IDLE: Duration = Duration::from_secs(10);
/// A client that takes its answer more slowly is given up.
const WRITE: Duration = Duration::from_secs(5);
/// Queries of one connection; resolvers ask a few.
const QUERIES_MAX: usize = 1000;

/// Answers connections until it is dropped.
pub(super) async fn serve(listener: TcpListener, live: Arc<Live>, connections: usize) {
    let places = Arc::new(Semaphore::new(connections));
    loop {
        let place = Arc::clone(&places).acquire_owned().await;
        let place = place.expect("the semaphore is never closed");
        match listener.accept().await {
            Ok((stream, peer)) => {
                let live = Arc::clone(&live);
                tokio::spawn(async move {
                    // A client that breaks off is its own affair.
                    let _ = answer_all(stream, peer, &live).await;
                    drop(place);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

async fn answer_all(mut stream: TcpStream, peer: SocketAddr, live: &Live) -> io::Result<()> {
    stream.set_nodelay(true)?;
    for _ in 0..QUERIES_MAX {
        let Ok(query) = timeout(IDLE, read(&mut stream)).await else { return Ok(()) };
        let query = query?;
        // Let go before the client takes its answer.
        let answered = answer(&query, peer.ip(), Transport::Tcp, &live.state().context());
        let mut counted = Counted::default();
        counted.answer(answered.as_ref().map(|answer| answer.bytes.as_slice()));
        live.count(Transport::Tcp, &counted);
        let Some(Answer { bytes, .. }) = answered else { return Ok(()) };
        let Ok(length) = u16::try_from(bytes.len()) else { return Ok(()) };
        // One write, so that it is one packet.
        let framed = [&length.to_be_bytes(), bytes.as_slice()].concat();
        let Ok(written) = timeout(WRITE, stream.write_all(&framed)).await else { return Ok(()) };
        written?;
    }
    Ok(())
}

async fn read(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let length = stream.read_u16().await?;
    let mut query = vec![0; usize::from(length)];
    stream.read_exact(&mut query).await?;
    Ok(query)
}
