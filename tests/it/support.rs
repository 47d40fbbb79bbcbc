//! What the specifications stand on.

pub(crate) mod certificates;
pub(crate) mod client;
pub(crate) mod cutter;
pub(crate) mod dice;
pub(crate) mod fake_pod;
pub(crate) mod frames;
pub(crate) mod issuer;
pub(crate) mod keep_alive;
pub(crate) mod mutator;
pub(crate) mod neighbours;
pub(crate) mod process;
pub(crate) mod provider;
pub(crate) mod questions;
pub(crate) mod rules;
pub(crate) mod scene;
pub(crate) mod semantic;
pub(crate) mod stalling;
pub(crate) mod steady;
pub(crate) mod tasks;
pub(crate) mod typist;

use std::{
    future::Future,
    time::{Duration, Instant},
};

/// Waits until `condition` gives something; fails the test after `limit`.
pub(crate) async fn eventually<T, F: Future<Output = Option<T>>>(
    what: &str,
    limit: Duration,
    mut condition: impl FnMut() -> F,
) -> T {
    let deadline = now() + limit;
    loop {
        if let Some(found) = condition().await {
            return found;
        }
        assert!(now() < deadline, "{what}: not within {limit:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

pub(crate) fn now() -> Instant {
    nearhop_admin::clock::now()
}

/// A number no other request of this run has.
pub(crate) fn unique() -> String {
    use std::sync::atomic::{AtomicU64, Ordering};
    static NEXT: AtomicU64 = AtomicU64::new(0);
    format!("{}_{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}
