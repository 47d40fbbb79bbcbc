//! What a generation consists of, whoever gives it.

use nearhop_wire::{Delta, Usage};

/// A piece of a generation.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Event {
    Delta(Delta),
    Usage(Usage),
    Done,
}
