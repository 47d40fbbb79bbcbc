//! A cluster, or a loud skip.

use std::io::Write;

use crate::{Error, Options, Redis};

/// A cluster; or none and a loud word where its programs are missing, unless `NEARHOP_REQUIRE_CLIENTS`
/// says that they must be there.
///
/// # Panics
///
/// They must be there and are not, or the cluster does not come up.
#[must_use]
#[expect(clippy::panic, reason = "a test without its cluster has failed")]
pub fn start_or_skip(options: Options) -> Option<Redis> {
    match Redis::start(options) {
        Ok(redis) => Some(redis),
        Err(error @ Error::Missing(_)) => {
            assert!(!required(), "NEARHOP_REQUIRE_CLIENTS is set, and {error}");
            // Said aloud: what `eprintln!` says is heard of failed tests only.
            let _ =
                writeln!(std::io::stderr(), "\n*** SKIPPED: Redis was NOT tested: {error} ***\n");
            None
        }
        Err(error) => panic!("no Redis Cluster: {error}"),
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "this crate stands below `conf`; its one look at the environment"
)]
fn required() -> bool {
    std::env::var_os("NEARHOP_REQUIRE_CLIENTS").is_some()
}
