//! What one vantage point says of one region. Pure: told what it saw, with `now`, it votes.
//!
//! A few failures in a row are the region's, one is the network's; a region that comes back must do so
//! a few times in a row, and one that keeps falling waits longer each time. Votes are what nodes
//! exchange, so that damping here is the same for all who count them.

use std::time::{Duration, Instant};

use nearhop_conf::Spill;

use crate::spill;

/// How many looks change a mind.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Thresholds {
    /// Failed looks in a row to down.
    pub(crate) fall: u32,
    /// Good looks in a row to up.
    pub(crate) rise: u32,
    /// What a second fall waits longer; doubles with each.
    pub(crate) hold: Duration,
    /// When a region passes clients on.
    pub(crate) spill: Spill,
}

/// The longest that falls make a region wait.
const HOLD_MAX: Duration = Duration::from_secs(300);
/// A fall this long after the last one is a first one.
const FORGIVEN: Duration = Duration::from_secs(600);

/// What a look at a region showed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Look {
    /// It answers; with its use, running and queued over capacity, where it says it.
    Well(Option<f64>),
    /// It does not.
    Failed,
    /// Neither it nor any witness answers: it is this node that is cut off.
    Blind,
}

/// What a vantage point says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Vote {
    /// It answers.
    Up,
    /// It does not.
    Down,
    /// Nothing: it has not looked often enough, or cannot see.
    Abstain,
}

/// One region as one vantage point has watched it.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Watched {
    /// What it is held to be; `None` before that is known.
    up: Option<bool>,
    /// Looks in a row that said otherwise.
    against: u32,
    blind: bool,
    falls: u32,
    fell: Option<Instant>,
    looked: Option<Instant>,
    used: Option<f64>,
    moved: f64,
}

impl Watched {
    /// One of which it is known how much it passes on, from before a restart.
    pub(crate) fn with_moved(moved: f64) -> Self {
        Self { moved, ..Self::default() }
    }

    /// Takes in a look that ended at `now`.
    pub(crate) fn look(&mut self, look: Look, limits: &Thresholds, now: Instant) {
        self.looked = Some(now);
        self.blind = look == Look::Blind;
        let well = match look {
            Look::Blind => return,
            Look::Well(used) => {
                self.used = used;
                self.moved = match used {
                    Some(used) => spill::next(&limits.spill, self.moved, used),
                    // It says nothing any more: clients come back, a step at a time.
                    None => (self.moved - limits.spill.step).max(0.0),
                };
                true
            }
            Look::Failed => {
                self.used = None;
                false
            }
        };
        if self.up == Some(well) {
            self.against = 0;
            return;
        }
        self.against = self.against.saturating_add(1);
        match (self.up, well) {
            // Nothing spoke against it yet.
            (None, true) => self.turn(true),
            (_, true) => {
                if self.against >= limits.rise && self.held_until(limits.hold) <= Some(now) {
                    self.turn(true);
                }
            }
            (_, false) => {
                if self.against >= limits.fall {
                    self.turn(false);
                    let lately = self.fell.is_some_and(|fell| now.duration_since(fell) < FORGIVEN);
                    self.falls = if lately { self.falls.saturating_add(1) } else { 1 };
                    self.fell = Some(now);
                }
            }
        }
    }

    fn turn(&mut self, up: bool) {
        self.up = Some(up);
        self.against = 0;
    }

    /// Before this it does not come back.
    fn held_until(&self, hold: Duration) -> Option<Instant> {
        let doublings = self.falls.saturating_sub(2).min(16);
        let wait =
            if self.falls < 2 { Duration::ZERO } else { hold.saturating_mul(1 << doublings) };
        self.fell.map(|fell| fell + wait.min(HOLD_MAX))
    }

    /// What it says now.
    #[must_use]
    pub(crate) fn vote(&self) -> Vote {
        match (self.blind, self.up) {
            (true, _) | (_, None) => Vote::Abstain,
            (_, Some(true)) => Vote::Up,
            (_, Some(false)) => Vote::Down,
        }
    }

    /// How long ago it looked.
    #[must_use]
    pub(crate) fn age(&self, now: Instant) -> Option<Duration> {
        self.looked.map(|looked| now.saturating_duration_since(looked))
    }

    /// The region's use, where it said it at the last look.
    #[must_use]
    pub(crate) fn used(&self) -> Option<f64> {
        self.used
    }

    /// The share of the region's clients that is to go elsewhere.
    #[must_use]
    pub(crate) fn moved(&self) -> f64 {
        self.moved
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Thresholds = Thresholds {
        fall: 3,
        rise: 2,
        hold: Duration::from_secs(30),
        spill: Spill { start: 0.8, stop: 0.65, step: 0.1 },
    };
    const WELL: Look = Look::Well(None);

    struct Region {
        watched: Watched,
        now: Instant,
    }

    impl Region {
        fn new() -> Self {
            Self { watched: Watched::default(), now: nearhop_admin::clock::now() }
        }

        /// Looks every five seconds; the votes after each.
        fn votes(&mut self, looks: &[Look]) -> Vec<Vote> {
            let mut votes = Vec::new();
            for look in looks {
                self.now += Duration::from_secs(5);
                self.watched.look(*look, &LIMITS, self.now);
                votes.push(self.watched.vote());
            }
            votes
        }
    }

    #[test]
    fn a_few_failures_in_a_row_are_a_fall_and_fewer_are_not() {
        use Vote::{Abstain, Down, Up};
        let mut region = Region::new();
        assert_eq!(region.watched.vote(), Abstain, "it has not looked");
        let (well, bad) = (WELL, Look::Failed);
        assert_eq!(
            region.votes(&[well, bad, bad, well, bad, bad, bad]),
            [Up, Up, Up, Up, Up, Up, Down]
        );
        assert_eq!(region.votes(&[well, bad, well, well]), [Down, Down, Down, Up]);
        let mut region = Region::new();
        assert_eq!(region.votes(&[bad, bad, bad]), [Abstain, Abstain, Down]);
    }

    #[test]
    fn who_sees_nothing_at_all_says_nothing_and_remembers() {
        let mut region = Region::new();
        region.votes(&[WELL]);
        assert_eq!(region.votes(&[Look::Blind; 5]), [Vote::Abstain; 5]);
        assert_eq!(region.votes(&[WELL, Look::Failed]), [Vote::Up, Vote::Up]);
    }

    #[test]
    fn a_region_that_keeps_falling_waits_longer_each_time() {
        let mut region = Region::new();
        let waited = |region: &mut Region| {
            region.votes(&[Look::Failed; 3]);
            let before = region.now;
            while region.votes(&[WELL]) != [Vote::Up] {}
            (region.now - before).as_secs()
        };
        region.votes(&[WELL]);
        let waits: Vec<u64> = (0..6).map(|_| waited(&mut region)).collect();
        assert_eq!(waits, [10, 30, 60, 120, 240, 300]);
        // Ten quiet minutes make up for it.
        for _ in 0..121 {
            region.votes(&[WELL]);
        }
        assert_eq!(waited(&mut region), 10);
    }

    #[test]
    fn a_full_region_passes_clients_on_by_steps() {
        let mut region = Region::new();
        region.votes(&[Look::Well(Some(2.0)); 3]);
        assert!((region.watched.moved() - 0.3).abs() < 1e-9);
        region.votes(&[Look::Failed]);
        assert!((region.watched.moved() - 0.3).abs() < 1e-9, "silence says nothing of its load");
        assert_eq!(region.watched.used(), None);
        region.votes(&[WELL; 2]);
        assert!((region.watched.moved() - 0.1).abs() < 1e-9, "without its load they come back");
    }
}
