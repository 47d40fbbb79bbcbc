//! Which pod has a prompt's beginning, learned from what was sent where, and which pod to send to.
//!
//! ```text
//! prompt ──▶ chain ──▶ affinity: share of it that each pod has ──┐
//! load of each pod ──────────────────────────────────────────────┴──▶ pick: a pod, and why
//! ```
//!
//! Absent on purpose: news from the pods. What they dropped is guessed, by dropping as they do; a
//! wrong guess costs one computation and is right from then on. Absent too: counts of what is in
//! flight. Whoever sends keeps them, and gives them as `load`.

mod chain;
mod known;
mod pick;
#[cfg(test)]
mod replay;
#[cfg(test)]
mod tests;

use std::collections::HashMap;

use self::known::Known;
pub use self::{
    chain::Chain,
    pick::{Choosable, Pick, pick},
};
use crate::UpstreamId;

/// Pods that are remembered: more than a region has. It only matters where pods come and go and
/// nobody says so.
const PODS: usize = 256;

/// What each pod is believed to have, by what was sent to it.
///
/// A block costs 35 to 71 bytes: 16 in a list by use and 17 in an index of it, and room to grow.
pub struct Affinity {
    pods: HashMap<UpstreamId, Pod>,
    blocks_per_pod: usize,
    sent: u64,
}

struct Pod {
    known: Known,
    /// When it was last sent something, in what was sent.
    used: u64,
}

impl Affinity {
    /// Remembers `blocks_per_pod` blocks of 64 bytes of each pod: as many as it has room for. Where that
    /// is not known, rather too many: on the replayed trace twice as many, or all, find as much, and
    /// half as many a quarter less, for what is forgotten here is computed again elsewhere.
    #[must_use]
    pub fn new(blocks_per_pod: usize) -> Self {
        Self { pods: HashMap::new(), blocks_per_pod, sent: 0 }
    }

    /// The share of the prompt that `pod` is believed to have, 0 to 1.
    #[must_use]
    pub fn matched(&self, chain: &Chain, pod: UpstreamId) -> f64 {
        self.pods.get(&pod).map_or(0.0, |pod| chain.share(|name| pod.known.has(name)))
    }

    /// It was sent to `pod`, which has it from now on: what follows it there waits behind it.
    pub fn sent(&mut self, chain: &Chain, pod: UpstreamId) {
        if self.pods.len() >= PODS && !self.pods.contains_key(&pod) {
            let unused = self.pods.iter().min_by_key(|(_, pod)| pod.used).map(|(id, _)| *id);
            unused.map(|id| self.pods.remove(&id));
        }
        self.sent += 1;
        let new = || Pod { known: Known::new(self.blocks_per_pod), used: 0 };
        let pod = self.pods.entry(pod).or_insert_with(new);
        pod.used = self.sent;
        pod.known.use_chain(chain);
    }

    /// `pod` is gone, or begins anew.
    pub fn forget(&mut self, pod: UpstreamId) {
        self.pods.remove(&pod);
    }
}
