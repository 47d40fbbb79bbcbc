//! The pods: which there are, how well they are, and how one is talked to.

pub(crate) mod connections;
pub(crate) mod exchange;
pub(crate) mod health;
pub(crate) mod outcome;
pub(crate) mod pods;
pub(crate) mod probe;
