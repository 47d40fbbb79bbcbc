//! What the tests' real servers share: why one is not there, certificates, and a loud skip.

mod certificates;
mod error;
mod skip;

pub use certificates::certificates;
pub use error::Error;
pub use skip::or_skip;
