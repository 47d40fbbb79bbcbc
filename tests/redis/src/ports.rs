//! Ports of a cluster's own.

use std::net::TcpListener;

/// A port is taken if it, or the bus's 10,000 higher, is.
const BUS: u16 = 10_000;
/// Both lie below the ports that Linux hands out by itself, which begin at 32,768.
const FIRST: u16 = 11_000;
const LAST: u16 = 22_000;

/// So many free ports. Somebody may take one before the server does: then it ends, and its starter asks
/// for others.
pub(crate) fn free(count: usize) -> Vec<u16> {
    let mut ports = vec![];
    let mut port = fastrand::u16(FIRST..LAST);
    for _ in FIRST..LAST {
        port = if port + 1 < LAST { port + 1 } else { FIRST };
        let free = |port| TcpListener::bind(("127.0.0.1", port)).is_ok();
        if free(port) && free(port + BUS) {
            ports.push(port);
            if ports.len() == count {
                break;
            }
        }
    }
    ports
}
