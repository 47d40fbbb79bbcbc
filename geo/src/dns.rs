//! The DNS server: authoritative for one zone, whose services are answered with the nearest region.
//!
//! ```text
//! udp, tcp ──▶ answer(query, zone, world) ──▶ decide ──▶ signatures ──▶ bytes
//! ```
//!
//! [`answer()`] is pure, and so are cookies, DNSSEC and the limit of the response rate; sockets, threads and
//! what changes are in `udp`, `tcp`, `live`, `refresh` and `server`.

#[cfg(test)]
mod against_gdnsd;
mod answer;
mod cookie;
mod dnssec;
mod fast;
mod live;
mod operator;
mod opt;
mod rate;
mod refresh;
mod server;
mod tcp;
mod udp;
mod zone;

pub use answer::{Answer, Context, Transport, answer};
pub use cookie::Secret;
pub use dnssec::{DnssecError, KeyError, Signer, ZoneKey};
pub use refresh::check;
pub use server::{DnsError, Ready, Server};
pub use zone::{Zone, ZoneError};
