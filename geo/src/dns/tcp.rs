//! TCP (RFC 7766): queries one after another, within limits of time and number.

use std::{
    collections::HashMap,
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

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
use crate::ClientPrefix;

/// From one query's end to the next one's; and where most places are taken.
const IDLE: Duration = Duration::from_secs(10);
const IDLE_BUSY: Duration = Duration::from_secs(1);
/// However busy it is, a connection gives its place to others then.
const LIFE: Duration = Duration::from_secs(60);
/// A client that takes its answer more slowly is given up.
const WRITE: Duration = Duration::from_secs(5);
/// Queries of one connection; resolvers ask a few.
const QUERIES_MAX: usize = 1000;

/// Open connections by network: one that takes more than a quarter of all leaves none to others.
#[derive(Default)]
struct Networks(Mutex<HashMap<ClientPrefix, usize>>);

/// A connection's place among those of its network; given back when dropped.
struct Seat(Arc<Networks>, ClientPrefix);

impl Networks {
    fn enter(self: &Arc<Self>, peer: SocketAddr, most: usize) -> Option<Seat> {
        let network = ClientPrefix::of(peer.ip());
        let mut open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = open.entry(network).or_default();
        if *count >= most {
            return None;
        }
        *count += 1;
        Some(Seat(Arc::clone(self), network))
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut open = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = open.get_mut(&self.1) {
            *count -= 1;
            if *count == 0 {
                open.remove(&self.1);
            }
        }
    }
}

/// Answers connections until it is dropped.
pub(super) async fn serve(listener: TcpListener, live: Arc<Live>, connections: usize) {
    let places = Arc::new(Semaphore::new(connections));
    let (networks, most) = (Arc::new(Networks::default()), connections.div_ceil(4));
    loop {
        let place = Arc::clone(&places).acquire_owned().await;
        let place = place.expect("the semaphore is never closed");
        match listener.accept().await {
            Ok((stream, peer)) => {
                // What is over its network's share is closed, and may come by UDP.
                let Some(seat) = networks.enter(peer, most) else { continue };
                let live = Arc::clone(&live);
                let busy = places.available_permits() < connections / 4;
                let idle = if busy { IDLE_BUSY } else { IDLE };
                tokio::spawn(async move {
                    // A client that breaks off is its own affair.
                    let _ = timeout(LIFE, answer_all(stream, (peer, idle), &live)).await;
                    drop((place, seat));
                });
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

async fn answer_all(
    mut stream: TcpStream,
    (peer, idle): (SocketAddr, Duration),
    live: &Live,
) -> io::Result<()> {
    stream.set_nodelay(true)?;
    for _ in 0..QUERIES_MAX {
        let Ok(query) = timeout(idle, read(&mut stream)).await else { return Ok(()) };
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_has_its_share_and_gives_it_back() {
        let networks = Arc::new(Networks::default());
        let enter = |peer: &str| networks.enter(peer.parse().unwrap(), 2);
        let held = (enter("192.0.2.1:1"), enter("192.0.2.9:1"));
        assert!(held.0.is_some() && held.1.is_some() && enter("192.0.2.77:1").is_none());
        assert!(enter("192.0.3.1:1").is_some());
        drop(held);
        assert!(enter("192.0.2.77:1").is_some());
        assert!(networks.0.lock().unwrap().is_empty(), "nothing stays of those who went");
    }
}
