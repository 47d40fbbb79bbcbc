//! What many vantage points say of a region together. Pure.
//!
//! A region is down when a majority of those who have a fresh vote say so, two at least. With fewer
//! the last known state stands: a node that is cut off from all others is a majority of one.

use std::time::Duration;

use crate::{Health, vote::Vote};

/// What a vantage point said, and how long ago it looked.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Ballot {
    /// Up, down or nothing.
    pub(crate) vote: Vote,
    /// Since it looked.
    pub(crate) age: Duration,
    /// The share of the region's clients that it would pass on.
    pub(crate) moved: f64,
    /// The region's use, where it was told.
    pub(crate) used: Option<f64>,
}

/// Votes of the configured vantage points.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tally {
    /// Fresh ones that say up.
    pub up: usize,
    /// Fresh ones that say down.
    pub down: usize,
    /// Vantage points that said nothing, or nothing fresh.
    pub silent: usize,
}

/// Votes that must be there for anything to change.
const LEAST: usize = 2;

impl Tally {
    /// What these votes make of a region that was `before`.
    #[must_use]
    pub(crate) fn judge(self, before: Health) -> Health {
        let fresh = self.up + self.down;
        if fresh < LEAST {
            before
        } else if 2 * self.down > fresh {
            Health::Down
        } else if 2 * self.up > fresh {
            Health::Up
        } else {
            before
        }
    }
}

/// What the vantage points say together; one ballot for each that is configured, `None` where
/// nothing was heard of it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Count {
    /// For and against.
    pub(crate) tally: Tally,
    /// The median of what the fresh ones would pass on; `None` where there are fewer than two.
    pub(crate) moved: Option<f64>,
    /// The median of the use that the fresh ones were told.
    pub(crate) used: Option<f64>,
}

/// Counts ballots no older than `fresh`.
pub(crate) fn count(ballots: impl IntoIterator<Item = Option<Ballot>>, fresh: Duration) -> Count {
    let mut tally = Tally::default();
    let (mut moved, mut used) = (Vec::new(), Vec::new());
    for ballot in ballots {
        let counts = ballot.filter(|ballot| ballot.age <= fresh && ballot.vote != Vote::Abstain);
        let Some(ballot) = counts else {
            tally.silent += 1;
            continue;
        };
        match ballot.vote {
            Vote::Down => tally.down += 1,
            Vote::Up | Vote::Abstain => tally.up += 1,
        }
        moved.push(ballot.moved);
        used.extend(ballot.used);
    }
    let enough = moved.len() >= LEAST;
    Count { tally, moved: median(moved).filter(|_| enough), used: median(used) }
}

/// The lower one of two in the middle: one that is wrong alone decides nothing.
fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    values.get(values.len().checked_sub(1)? / 2).copied()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const FRESH: Duration = Duration::from_secs(15);

    fn ballot(vote: Vote, age_s: u64) -> Option<Ballot> {
        Some(Ballot { vote, age: Duration::from_secs(age_s), moved: 0.0, used: None })
    }

    fn check(votes: &str, before: Health, expected: Health) {
        let ballots = votes.chars().map(|vote| match vote {
            'u' => ballot(Vote::Up, 0),
            'd' => ballot(Vote::Down, 15),
            'a' => ballot(Vote::Abstain, 0),
            'o' => ballot(Vote::Down, 16),
            _ => None,
        });
        assert_eq!(count(ballots, FRESH).tally.judge(before), expected, "{votes} {before:?}");
    }

    #[test]
    fn a_majority_of_fresh_votes_decides_and_fewer_than_two_do_not() {
        use Health::{Down, Unknown, Up};
        check("ddu", Up, Down);
        check("duu", Down, Up);
        check("dd-", Up, Down);
        check("du-", Up, Up);
        check("du-", Down, Down);
        check("d--", Up, Up);
        check("u--", Down, Down);
        check("u--", Unknown, Unknown);
        check("doo", Up, Up);
        check("daa", Up, Up);
        check("ddaaa", Up, Down);
        check("dduu", Down, Down);
        check("---", Down, Down);
    }

    #[test]
    fn what_is_passed_on_is_the_median() {
        let ballots = [0.0, 0.4, 1.0].map(|moved| {
            Some(Ballot { vote: Vote::Up, age: Duration::ZERO, moved, used: Some(moved) })
        });
        let counted = count(ballots, FRESH);
        assert_eq!((counted.moved, counted.used), (Some(0.4), Some(0.4)));
        assert_eq!(count([ballots[2], None, None], FRESH).moved, None, "one alone moves nobody");
    }

    proptest! {
        /// Whoever is wrong alone, and says whatever, changes nothing that the others agree on.
        #[test]
        fn one_liar_turns_no_majority(honest in 2usize..6, up: bool, lie in "[uda-]") {
            let truth = if up { Vote::Up } else { Vote::Down };
            let lie = match lie.as_str() {
                "u" => ballot(Vote::Up, 0),
                "d" => ballot(Vote::Down, 0),
                "a" => ballot(Vote::Abstain, 0),
                _ => None,
            };
            let expected = if up { Health::Up } else { Health::Down };
            let ballots = std::iter::repeat_n(ballot(truth, 1), honest).chain([lie]);
            prop_assert_eq!(count(ballots, FRESH).tally.judge(expected), expected);
        }
    }
}
