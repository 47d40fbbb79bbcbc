//! The emulator's one reader of the clock; it is light enough not to depend on the product's.

use std::time::Instant;

#[expect(clippy::disallowed_methods, reason = "the emulator's one reader of the monotonic clock")]
pub(crate) fn now() -> Instant {
    Instant::now()
}
