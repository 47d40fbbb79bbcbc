//! Qdrant's own engine behind its REST API, on this machine: for tests that must see real filters, a
//! restart, and everything that a server can do wrong.
//!
//! ```no_run
//! use nearhop_test_qdrant::{Options, Qdrant};
//!
//! # fn main() -> Result<(), nearhop_test_qdrant::Error> {
//! let qdrant = Qdrant::start(Options::default())?;
//! qdrant.fault(r#"{"hang": true}"#)?; // see server.py for what else can go wrong
//! qdrant.fault("{}")?;
//! # Ok(())
//! # }
//! ```
//!
//! There is no program `qdrant-server` to be had where these tests run. `server.py`, beside this, puts the
//! embedded engine behind HTTP; what it cannot show is a cluster: shards, replicas, their consistency.
//!
//! It needs `.venv/` with `qdrant-edge-py`, and `openssl` for TLS. [`Error::Missing`] says which is not
//! there, so that a test can be skipped aloud: [`start_or_skip`].

mod qdrant;

pub use nearhop_test_server::Error;
pub use qdrant::{Options, Qdrant, Seen};

/// An engine, or a loud skip: [`nearhop_test_server::or_skip`].
///
/// # Panics
///
/// It must be there and is not, or it does not come up.
#[must_use]
pub fn start_or_skip(options: Options) -> Option<Qdrant> {
    nearhop_test_server::or_skip("Qdrant", Qdrant::start(options))
}
