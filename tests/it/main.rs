//! End-to-end specifications: the real binary as child processes on loopback ports, real clients,
//! and pods that fail on command. No sleeps: every wait is for a condition, with a deadline.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on should stop here")]

mod support;

mod admission;
mod answers;
mod benches;
mod bodies;
mod changes;
mod chaos;
mod command_line;
mod deploy;
mod disconnects;
mod discovered;
mod editors;
mod endurance;
mod failover;
mod floods;
mod full_disk;
mod hedging;
mod hops;
mod ladder;
mod leaks;
mod load;
mod local;
mod matrix;
mod must_miss;
mod nearest;
mod observed;
mod overload;
mod providers;
mod purging;
mod questions;
mod regions;
mod resuming;
mod reuse;
mod semantic;
mod shared_cache;
mod sharing;
mod smuggling;
mod soak;
mod transport;
mod typing;
mod typing_model;
mod world;
