//! Proof: load scenarios against a running service, chaos beside them, and reports of what was measured.

pub mod action;
pub mod control;
pub mod world;
