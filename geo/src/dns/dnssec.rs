//! DNSSEC: signatures over everything that is answered, made before anybody asks.
//!
//! ```text
//! keys, zone, regions ──▶ Signer: every set that can be answered, signed ──▶ answer() looks it up
//!                                    └─▶ NSEC of a name that is not there: signed live, by a budget
//! ```
//!
//! What can be answered is finite: the names of services times the regions' addresses, the zone's own
//! records, and for each name that it has no other types. So no positive answer costs a signature
//! when it is asked for. Pure but for the budget and the store of denials, which answers share, and
//! the random numbers inside every signature; `now` is passed in.
//!
//! Deliberately not here: NSEC3 (there is nothing to hide by it: names that exist are the
//! configuration's, and compact denials cannot be walked), key generation on a schedule, and CDS.

mod denial;
mod key;
mod signer;

use std::{io, path::PathBuf};

use nearhop_conf::Dnssec;

pub(super) use denial::{Asker, NXNAME};
pub use key::{KeyError, ZoneKey};
pub use signer::Signer;

/// Why a zone cannot be signed.
#[derive(Debug, thiserror::Error)]
pub enum DnssecError {
    /// A key file cannot be read.
    #[error("dns.dnssec.keys: {} cannot be read: {error}", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// A key file is none.
    #[error("dns.dnssec.keys: {} {error}", path.display())]
    Key {
        /// Which.
        path: PathBuf,
        /// What is wrong with it.
        error: KeyError,
    },
    /// Validators could not tell two keys apart.
    #[error(
        "dns.dnssec.keys: two keys have the tag {0}; write each file once, or make another key"
    )]
    SameTag(u16),
    /// There is no key.
    #[error("dns.dnssec.keys: there is no key; make one with `nearhop dns keys generate`")]
    NoKey,
    /// Nothing comes right behind a name that is this long.
    #[error("dns.services: `{0}` is too long for a signed zone; shorten it by two characters")]
    Name(String),
    /// A signature could not be made.
    #[error("dns.dnssec: {0}")]
    Sign(#[from] KeyError),
}

/// Reads the keys of a configuration.
pub(super) fn read_keys(dnssec: &Dnssec) -> Result<Vec<ZoneKey>, DnssecError> {
    let read = |path: &PathBuf| {
        let text = std::fs::read(path);
        let text = text.map_err(|error| DnssecError::Read { path: path.clone(), error })?;
        ZoneKey::from_pem(&text).map_err(|error| DnssecError::Key { path: path.clone(), error })
    };
    dnssec.keys.iter().map(read).collect()
}

#[cfg(test)]
mod tests;
