//! What a vantage point tells the others, as JSON: its own votes, and how old they are. Ages and not
//! times: no two clocks have to agree. What it heard from others it does not repeat.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};

use crate::{
    quorum::Ballot,
    vote::{Vote, Watched},
};

/// The path at peer listeners.
pub const VOTES_PATH: &str = "/peer/v1/votes";
/// A view of a thousand regions is a tenth of it.
pub(super) const VIEW_BYTES_MAX: usize = 1 << 20;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct View {
    pub(super) name: String,
    pub(super) regions: BTreeMap<String, Opinion>,
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(super) struct Opinion {
    vote: Word,
    age_ms: u64,
    moved: f64,
    used: Option<f64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Word {
    Up,
    Down,
    Abstain,
}

impl Opinion {
    pub(super) fn of(watched: &Watched, now: Instant) -> Option<Self> {
        let vote = match watched.vote() {
            Vote::Up => Word::Up,
            Vote::Down => Word::Down,
            Vote::Abstain => Word::Abstain,
        };
        let age_ms = u64::try_from(watched.age(now)?.as_millis()).unwrap_or(u64::MAX);
        Some(Self { vote, age_ms, moved: watched.moved(), used: watched.used() })
    }

    /// As a ballot, where it came `since` ago. A share that is none counts as nothing.
    pub(super) fn ballot(self, since: Duration) -> Ballot {
        let vote = match self.vote {
            Word::Up => Vote::Up,
            Word::Down => Vote::Down,
            Word::Abstain => Vote::Abstain,
        };
        let moved = if self.moved.is_finite() { self.moved.clamp(0.0, 1.0) } else { 0.0 };
        let used = self.used.filter(|used| used.is_finite() && *used >= 0.0);
        let age = Duration::from_millis(self.age_ms).saturating_add(since);
        Ballot { vote, age, moved, used }
    }
}

/// What a region's `/health` says beside that it is well.
#[derive(Debug, Default, Deserialize)]
struct Told {
    load: Option<Load>,
}

#[derive(Debug, Deserialize)]
struct Load {
    running: u32,
    queued: u32,
    capacity: u32,
}

/// A region's use, where the body of its `/health` says it.
pub(super) fn used(body: &[u8]) -> Option<f64> {
    let told: Told = serde_json::from_slice(body).unwrap_or_default();
    let load = told.load.filter(|load| load.capacity > 0)?;
    Some((f64::from(load.running) + f64::from(load.queued)) / f64::from(load.capacity))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_view_is_read_as_it_was_written_and_nonsense_is_harmless() {
        let text =
            r#"{"name":"a","regions":{"r":{"vote":"down","age_ms":5,"moved":7.0,"used":-1.0}}}"#;
        let view: View = serde_json::from_str(text).unwrap();
        assert_eq!(serde_json::to_string(&view).unwrap(), text);
        let ballot = view.regions["r"].ballot(Duration::from_millis(10));
        let expected =
            Ballot { vote: Vote::Down, age: Duration::from_millis(15), moved: 1.0, used: None };
        assert_eq!(ballot, expected);
        let old = text.replace("\"age_ms\":5", &format!("\"age_ms\":{}", u64::MAX));
        let view: View = serde_json::from_str(&old).unwrap();
        assert!(view.regions["r"].ballot(Duration::MAX).age > Duration::from_secs(1 << 40));
    }

    #[test]
    fn a_regions_use_is_all_its_work_over_what_it_can_do() {
        let said = |text: &str| used(text.as_bytes());
        assert_eq!(said(r#"{"load":{"running":6,"queued":3,"capacity":8}}"#), Some(1.125));
        assert_eq!(said(r#"{"status":"ok"}"#), None);
        assert_eq!(said(r#"{"load":{"running":6,"queued":3,"capacity":0}}"#), None);
        assert_eq!(said(r#"{"load":{"running":-6,"queued":3,"capacity":8}}"#), None);
        assert_eq!(said("ok"), None);
    }
}
