//! Whether a route has earned that it serves: what it would have served, or did, was compared with
//! what the model said. Pure.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use crate::wilson::{UNDER_95, UNDER_99_5, wilson};

/// What a route has to show.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Demand {
    /// The most of its answers that may be wrong.
    pub wrong: f64,
    /// Comparisons before it may serve.
    pub judged: usize,
}

/// How far a route is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Stage {
    /// It has not shown enough.
    #[default]
    Proving,
    /// It may serve.
    Proven,
    /// It was wrong too often, and is off until somebody begins it anew.
    Off,
}

impl Stage {
    /// For people and metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Proving => "proving",
            Self::Proven => "proven",
            Self::Off => "off",
        }
    }
}

/// The comparisons of a route.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trial {
    /// Whether each of the latest was wrong, the oldest first.
    recent: VecDeque<bool>,
    stage: Stage,
    /// All comparisons, and how many were wrong.
    judged: u64,
    wrong: u64,
}

/// Comparisons that count: what a route did long ago says little of what it does.
const RECENT_MAX: usize = 500;
/// What a model that has just changed is known by.
const LATEST: usize = 20;

impl Trial {
    /// Counts a comparison; the stage where that changed.
    pub fn count(&mut self, wrong: bool, demand: Demand) -> Option<Stage> {
        if self.recent.len() >= RECENT_MAX.max(demand.judged) {
            self.recent.pop_front();
        }
        self.recent.push_back(wrong);
        self.judged += 1;
        self.wrong += u64::from(wrong);
        let stage = self.next(demand);
        let changed = stage != self.stage;
        self.stage = stage;
        changed.then_some(stage)
    }

    fn next(&self, demand: Demand) -> Stage {
        let twice = 2.0 * demand.wrong;
        match self.stage {
            Stage::Off => Stage::Off,
            Stage::Proving => {
                let enough = self.recent.len() >= demand.judged;
                let holds = enough && self.bound() <= demand.wrong;
                if holds && !self.has_turned(twice) { Stage::Proven } else { Stage::Proving }
            }
            Stage::Proven if self.bound() > twice || self.has_turned(twice) => Stage::Off,
            Stage::Proven => Stage::Proven,
        }
    }

    /// The most of its answers that are wrong, with a confidence of 95 %, by the latest comparisons.
    #[must_use]
    pub fn bound(&self) -> f64 {
        wilson(wrong_in(self.recent.iter()), self.recent.len() as u64, UNDER_95).1
    }

    /// Whether the very latest are too wrong for certain, whatever was before them.
    fn has_turned(&self, limit: f64) -> bool {
        let latest = self.recent.iter().rev().take(LATEST);
        let n = latest.len() as u64;
        wilson(wrong_in(latest), n, UNDER_99_5).0 > limit
    }

    /// How far it is.
    #[must_use]
    pub const fn stage(&self) -> Stage {
        self.stage
    }

    /// All comparisons, and how many were wrong.
    #[must_use]
    pub const fn totals(&self) -> (u64, u64) {
        (self.judged, self.wrong)
    }

    /// Those that the bound is made of, and how many were wrong.
    #[must_use]
    pub fn recent(&self) -> (u64, u64) {
        (self.recent.len() as u64, wrong_in(self.recent.iter()))
    }
}

fn wrong_in<'a>(of: impl Iterator<Item = &'a bool>) -> u64 {
    of.filter(|wrong| **wrong).count() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEMAND: Demand = Demand { wrong: 0.02, judged: 300 };

    /// Counts `n` comparisons of which each `every`-th is wrong; when which stage came.
    fn run(trial: &mut Trial, n: usize, every: usize) -> Option<(usize, Stage)> {
        (1..=n).find_map(|at| Some((at, trial.count(at % every == 0, DEMAND)?)))
    }

    #[test]
    fn a_route_serves_after_enough_that_were_right() {
        let mut trial = Trial::default();
        assert_eq!(run(&mut trial, 299, usize::MAX), None);
        assert_eq!(trial.count(false, DEMAND), Some(Stage::Proven));
        assert!(trial.bound() < 0.01);
    }

    #[test]
    fn one_that_is_wrong_too_often_never_serves() {
        let mut trial = Trial::default();
        assert_eq!(run(&mut trial, 5000, 40), None);
        assert_eq!(trial.stage(), Stage::Proving);
        assert!(trial.bound() > 0.02);
    }

    #[test]
    fn what_was_wrong_at_first_is_outlived() {
        let mut trial = Trial::default();
        run(&mut trial, 100, 10);
        let (at, stage) = run(&mut trial, 1000, usize::MAX).unwrap();
        assert_eq!(stage, Stage::Proven);
        assert!(at > 300, "{at}");
    }

    #[test]
    fn a_model_that_turns_is_off_within_a_few_comparisons_and_stays_off() {
        let mut trial = Trial::default();
        run(&mut trial, 300, usize::MAX);
        assert_eq!(run(&mut trial, 100, 1), Some((4, Stage::Off)));
        assert_eq!(run(&mut trial, 1000, usize::MAX), None);
    }

    #[test]
    fn one_that_decays_is_off_when_its_bound_passes_twice_the_limit() {
        let mut trial = Trial::default();
        run(&mut trial, 500, usize::MAX);
        let (at, stage) = run(&mut trial, 2000, 25).unwrap();
        assert_eq!(stage, Stage::Off);
        let (n, wrong) = trial.recent();
        assert!(wilson(wrong, n, UNDER_95).1 > 0.04, "{at}");
        assert!(wilson(wrong - 1, n, UNDER_95).1 <= 0.04, "{at}");
    }

    #[test]
    fn at_the_limit_it_goes_on() {
        let mut trial = Trial::default();
        run(&mut trial, 500, usize::MAX);
        assert_eq!(run(&mut trial, 3000, 100), None);
        assert_eq!(trial.stage(), Stage::Proven);
    }
}
