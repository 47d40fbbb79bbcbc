//! Reuse audits itself: what is served is now and then generated again and compared, rule by rule.
//! Pure; whoever generates hands in what came.
//!
//! Models are not perfectly repeatable, so that even exact repetitions differ sometimes: each rule
//! is held against that, and is off where it is worse, for certain, by more than its limit.

use crate::{
    fit::Rule,
    wilson::{BETWEEN_95, wilson},
};

/// How one rule has done.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Tally {
    /// Answers that were generated again.
    pub compared: u64,
    /// Of those, how many differed.
    pub differing: u64,
}

/// Before so many comparisons nothing is certain.
const COMPARED_MIN: u64 = 50;
/// Older comparisons count half when there are so many, so that a rule is judged by what it does now.
const COMPARED_MAX: u64 = 2000;

impl Tally {
    /// Counts a comparison.
    pub fn count(&mut self, differs: bool) {
        if self.compared >= COMPARED_MAX {
            self.compared /= 2;
            self.differing /= 2;
        }
        self.compared += 1;
        self.differing += u64::from(differs);
    }

    /// Within what the share of differing answers lies, with a confidence of 95 %.
    #[must_use]
    pub fn bounds(self) -> (f64, f64) {
        wilson(self.differing, self.compared, BETWEEN_95)
    }
}

/// How all rules have done.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Audit {
    tallies: [Tally; Rule::ALL.len()],
}

impl Audit {
    /// How a rule has done.
    #[must_use]
    pub const fn tally(&self, rule: Rule) -> Tally {
        self.tallies[rule as usize]
    }

    /// Counts a comparison; whether the rule should be off from now on.
    pub fn count(&mut self, rule: Rule, differs: bool, limit: f64) -> bool {
        self.tallies[rule as usize].count(differs);
        self.is_bad(rule, limit)
    }

    /// Whether a rule differs, for certain, by over `limit` more often than exact repetitions do.
    #[must_use]
    pub fn is_bad(&self, rule: Rule, limit: f64) -> bool {
        let tally = self.tally(rule);
        let (least, _) = tally.bounds();
        // Exact repetitions have nothing to be held against but the limit itself, and neither has a
        // rule as long as there are few of them.
        let exact = self.tally(Rule::Exact);
        let usual = match rule {
            Rule::Exact => 0.0,
            _ if exact.compared < COMPARED_MIN => 0.0,
            _ => exact.bounds().1,
        };
        tally.compared >= COMPARED_MIN && least > usual + limit
    }
}

/// Whether a fresh answer is another than what was served: one that was cut off at its length limit
/// may go on in the fresh one.
#[must_use]
pub fn differs(served: &str, cut: bool, fresh: &str) -> bool {
    if cut { !fresh.starts_with(served) } else { fresh != served }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn bounds_are_wilsons() {
        let check = |differing, compared, low: f64, high: f64| {
            let (least, most) = Tally { compared, differing }.bounds();
            assert!((least - low).abs() < 5e-4 && (most - high).abs() < 5e-4, "{least} {most}");
        };
        check(0, 0, 0.0, 1.0);
        check(0, 100, 0.0, 0.0370);
        check(5, 100, 0.0215, 0.1118);
        check(50, 100, 0.4038, 0.5962);
        check(100, 100, 0.9630, 1.0);
    }

    #[test]
    fn a_rule_that_differs_for_certain_goes_off() {
        let mut audit = Audit::default();
        let mut off = None;
        for n in 1.. {
            if audit.count(Rule::TypeAhead, n % 4 != 0, 0.5) {
                off = Some(n);
                break;
            }
        }
        assert!(off >= Some(COMPARED_MIN), "{off:?}");
        assert!(!audit.is_bad(Rule::Normalised, 0.5), "others stay");
    }

    #[test]
    fn what_exact_repetitions_do_as_well_is_no_fault_of_a_rule() {
        let mut audit = Audit::default();
        for n in 0..1000 {
            audit.count(Rule::Exact, n % 2 == 0, 1.0);
            assert!(!audit.count(Rule::Window, n % 2 == 0, 0.1));
        }
    }

    #[test]
    fn a_cut_answer_may_go_on() {
        assert!(!differs("a", true, "abc") && differs("a", false, "abc"));
        assert!(differs("x", true, "abc") && !differs("abc", false, "abc"));
    }

    proptest! {
        #[test]
        fn bounds_hold_the_share(compared in 1u64..5000, differing in 0u64..5000) {
            let tally = Tally { compared, differing: differing.min(compared) };
            let (least, most) = tally.bounds();
            let share = tally.differing as f64 / compared as f64;
            prop_assert!(least <= share + 1e-9 && share <= most + 1e-9);
            prop_assert!((0.0..=1.0).contains(&least) && (0.0..=1.0).contains(&most));
        }
    }
}
