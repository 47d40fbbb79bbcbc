//! To come.

/// What a choice between ready pods is made by.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Choosable {
    /// What a request would wait there, relative to the others: over 0.
    pub load: f64,
    /// The share of the prompt that it is believed to have computed already, 0 to 1.
    pub matched: f64,
}

/// Why a pod was chosen among others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pick {
    /// It has the prompt's beginning.
    Prefix,
    /// The less loaded of two drawn.
    LessLoaded,
    /// There is no other.
    Only,
}

/// Which of `pods`; `None` where there is none.
#[must_use]
pub fn pick(pods: &[Choosable], seed: u64) -> Option<(usize, Pick)> {
    let mut random = fastrand::Rng::with_seed(seed);
    let first = random.usize(..pods.len().max(1));
    let second = random.usize(..pods.len().max(1));
    match pods {
        [] => None,
        [_] => Some((0, Pick::Only)),
        pods if pods[second].load < pods[first].load => Some((second, Pick::LessLoaded)),
        _ => Some((first, Pick::LessLoaded)),
    }
}
