//! UDP: a thread a core, each with a socket of its own on the same address.

use std::{
    io,
    net::{SocketAddr, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use nearhop_admin::clock;
use socket2::{Domain, Protocol, Socket, Type};

use super::{
    Transport,
    answer::{answer, cut},
    live::Live,
    rate::{Kind, Limiter, Verdict},
};

/// The largest query that is read; what is longer is cut, and then malformed.
const QUERY_MAX: usize = 4096;
/// How soon a thread notices that it is to stop.
const LOOK: Duration = Duration::from_millis(200);
/// So that a burst waits in the kernel and is not lost.
const BUFFER: usize = 4 << 20;

/// A socket that others may share the address with.
pub(super) fn bind(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_reuse_port(true)?;
    if address.is_ipv6() {
        // IPv4 has sockets of its own, where it is listed.
        socket.set_only_v6(true)?;
    }
    // The system's limit may be lower; what it gives is taken.
    let _ = socket.set_recv_buffer_size(BUFFER);
    socket.bind(&address.into())?;
    socket.set_read_timeout(Some(LOOK))?;
    Ok(socket.into())
}

/// Answers until `stop`, no network faster than `limiter` lets it.
pub(super) fn serve(socket: &UdpSocket, live: &Arc<Live>, mut limiter: Limiter, stop: &AtomicBool) {
    let mut query = [0; QUERY_MAX];
    while !stop.load(Ordering::Relaxed) {
        // Else nothing came, or an ICMP error of an earlier answer did.
        let Ok((length, peer)) = socket.recv_from(&mut query) else { continue };
        let state = live.state();
        let answered = answer(&query[..length], peer.ip(), Transport::Udp, &state.context());
        live.count(Transport::Udp, answered.as_ref());
        let Some(answered) = answered else { continue };
        // Whoever showed our cookie is no victim.
        let verdict = match answered.proven {
            true => Verdict::Send,
            false => limiter.judge(peer.ip(), kind(&answered.bytes), clock::now()),
        };
        live.limited(verdict);
        let bytes = match verdict {
            Verdict::Send => Some(answered.bytes),
            Verdict::Slip => cut(&answered.bytes),
            Verdict::Drop => None,
        };
        if let Some(bytes) = bytes {
            // A client that cannot be reached asks again, or not.
            let _ = socket.send_to(&bytes, peer);
        }
    }
}

/// What an answer is to the limiter: its code, and whether anything is in it.
fn kind(answer: &[u8]) -> Kind {
    let good = answer[3] & 0xf == 0 && answer[6..8] != [0, 0];
    if good { Kind::Answer } else { Kind::Nothing }
}
