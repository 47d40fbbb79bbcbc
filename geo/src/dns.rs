//! The DNS server: authoritative for one zone, whose services are answered with the nearest region.
//!
//! ```text
//! udp, tcp ──▶ answer(query, zone, world) ──▶ decide ──▶ bytes
//! ```
//!
//! [`answer`] is pure; sockets, threads and what changes are in `udp`, `tcp` and `server`.

mod answer;
mod server;
mod tcp;
mod udp;
mod zone;

pub use answer::{Transport, answer};
pub use server::{DnsError, Ready, Server};
pub use zone::{Zone, ZoneError};
