//! An engine, or a loud skip.

use std::io::Write;

use crate::{Error, Options, Qdrant};

/// An engine; or none and a loud word where it is not installed, unless `NEARHOP_REQUIRE_CLIENTS` says
/// that it must be there.
///
/// # Panics
///
/// It must be there and is not, or it does not come up.
#[must_use]
#[expect(clippy::panic, reason = "a test without its engine has failed")]
pub fn start_or_skip(options: Options) -> Option<Qdrant> {
    match Qdrant::start(options) {
        Ok(qdrant) => Some(qdrant),
        Err(error @ Error::Missing(_)) => {
            assert!(!required(), "NEARHOP_REQUIRE_CLIENTS is set, and {error}");
            // Said aloud: what `eprintln!` says is heard of failed tests only.
            let _ =
                writeln!(std::io::stderr(), "\n*** SKIPPED: Qdrant was NOT tested: {error} ***\n");
            None
        }
        Err(error) => panic!("no Qdrant: {error}"),
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "this crate stands below `conf`; its one look at the environment"
)]
fn required() -> bool {
    std::env::var_os("NEARHOP_REQUIRE_CLIENTS").is_some()
}
