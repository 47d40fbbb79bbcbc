//! A real Redis Cluster on this machine: three masters, a replica each, for tests that must see what a
//! killed, a paused and a resharded one looks like.
//!
//! ```no_run
//! use nearhop_test_redis::{Options, Redis};
//!
//! # fn main() -> Result<(), nearhop_test_redis::Error> {
//! let redis = Redis::start(Options::default())?;
//! let master = redis.master_of(b"some key")?;
//! redis.pause(master)?; // its sockets stay open and answer nothing
//! redis.resume(master)?;
//! # Ok(())
//! # }
//! ```
//!
//! All nodes are on 127.0.0.1: with an address each, the cluster's bus would use the first for all. Ports
//! lie below those that the system hands out, as do the bus's, which are 10,000 higher. Nothing is kept on
//! disk but what [`Redis::dump`] asks for. Every method waits for its effect, with a limit. Processes are
//! ended by their ids when the cluster is dropped.
//!
//! It needs the programs `redis-server`, `redis-cli` and, for TLS, `openssl`. [`Error::Missing`] says
//! which is not there, so that a test can be skipped aloud: [`start_or_skip`].

mod files;
mod ports;
mod redis;

pub use nearhop_test_server::Error;
pub use redis::{NODES, Options, PASSWORD, Redis, USER};

/// A cluster, or a loud skip: [`nearhop_test_server::or_skip`].
///
/// # Panics
///
/// It must be there and is not, or it does not come up.
#[must_use]
pub fn start_or_skip(options: Options) -> Option<Redis> {
    nearhop_test_server::or_skip("Redis", Redis::start(options))
}
