//! A server, or a loud skip.

use std::io::Write;

use crate::Error;

/// The server called `name`; or none and a loud word where something of it is not installed, unless
/// `NEARHOP_REQUIRE_CLIENTS` says that it must be there.
///
/// # Panics
///
/// It must be there and is not, or it did not come up.
#[must_use]
#[expect(clippy::panic, reason = "a test without its server has failed")]
pub fn or_skip<T>(name: &str, started: Result<T, Error>) -> Option<T> {
    match started {
        Ok(server) => Some(server),
        Err(error @ Error::Missing(_)) => {
            assert!(!required(), "NEARHOP_REQUIRE_CLIENTS is set, and {error}");
            // Said aloud: what `eprintln!` says is heard of failed tests only.
            let _ =
                writeln!(std::io::stderr(), "\n*** SKIPPED: {name} was NOT tested: {error} ***\n");
            None
        }
        Err(error) => panic!("no {name}: {error}"),
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "this crate stands below `conf`; its one look at the environment"
)]
fn required() -> bool {
    std::env::var_os("NEARHOP_REQUIRE_CLIENTS").is_some()
}
