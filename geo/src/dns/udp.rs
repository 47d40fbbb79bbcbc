//! UDP: a thread a core, each with a socket of its own on the same address.

#[cfg(target_os = "linux")]
mod batch;
#[cfg(not(target_os = "linux"))]
#[path = "udp/single.rs"]
mod batch;

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

use self::batch::Batch;
use super::{
    Answer, Transport,
    answer::{answer, cut},
    live::{Counted, Live},
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
    let mut batch = Batch::new();
    while !stop.load(Ordering::Relaxed) {
        // Else nothing came, or an ICMP error of an earlier answer did.
        let Ok(came) = batch.receive(socket) else { continue };
        let (state, now) = (live.state(), clock::now());
        let context = state.context();
        let mut counted = Counted::default();
        for at in 0..came {
            let Some((query, peer, out)) = batch.query(at) else { continue };
            let start = out.len();
            let short = state.prepared.answer(query, peer.ip(), &context, out);
            let proven = short.or_else(|| {
                let Answer { bytes, proven } = answer(query, peer.ip(), Transport::Udp, &context)?;
                out.extend(bytes);
                Some(proven)
            });
            counted.answer(proven.map(|_| &out[start..]));
            let Some(proven) = proven else { continue };
            // Whoever showed our cookie is no victim.
            let verdict = match proven {
                true => Verdict::Send,
                false => limiter.judge(peer.ip(), kind(&out[start..]), now),
            };
            live.limited(verdict);
            match verdict {
                Verdict::Send => batch.answer(at, start),
                Verdict::Slip => {
                    let slipped = cut(&out[start..]);
                    out.truncate(start);
                    if let Some(slipped) = slipped {
                        out.extend(slipped);
                        batch.answer(at, start);
                    }
                }
                Verdict::Drop => out.truncate(start),
            }
        }
        batch.send(socket);
        live.count(Transport::Udp, &counted);
    }
}

/// What an answer is to the limiter: its code, and whether anything is in it.
fn kind(answer: &[u8]) -> Kind {
    let good = answer[3] & 0xf == 0 && answer[6..8] != [0, 0];
    if good { Kind::Answer } else { Kind::Nothing }
}
