//! What is known of one answer: how often it was right for a question that was nearly its own.
//! Pure.
//!
//! The less alike two questions are, the more often is the answer to one wrong for the other. So
//! what was right for a farther question speaks for a nearer one, and what was wrong for a nearer
//! one speaks against a farther; never the other way about.

use serde::{Deserialize, Serialize};

use crate::wilson::{UNDER_95, wilson};

/// Similarities at which a band ends.
const ENDS: [f32; BANDS - 1] = [0.96, 0.97, 0.98, 0.99];
const BANDS: usize = 5;

/// How often an answer was right, by how alike the questions were.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Evidence {
    bands: [Counts; BANDS],
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Counts {
    right: u16,
    wrong: u16,
}

fn band(similarity: f32) -> usize {
    ENDS.iter().filter(|end| similarity >= **end).count()
}

impl Evidence {
    /// Counts a comparison.
    pub fn count(&mut self, similarity: f32, right: bool) {
        let counts = &mut self.bands[band(similarity)];
        let counted = if right { &mut counts.right } else { &mut counts.wrong };
        *counted = counted.saturating_add(1);
    }

    /// Comparisons, and how many of them were wrong.
    #[must_use]
    pub fn totals(&self) -> (u64, u64) {
        let sum = |of: fn(&Counts) -> u16| self.bands.iter().map(|band| u64::from(of(band))).sum();
        let (right, wrong): (u64, u64) = (sum(|band| band.right), sum(|band| band.wrong));
        (right + wrong, wrong)
    }

    /// The most of questions as alike as that for which it is wrong, with a confidence of 95 %.
    #[must_use]
    pub fn most_wrong(&self, similarity: f32) -> f64 {
        let right: u64 = self.bands[..=band(similarity)].iter().map(|of| u64::from(of.right)).sum();
        let (_, wrong) = self.totals();
        wilson(wrong, right + wrong, UNDER_95).1
    }

    /// The least of them, with the same.
    #[must_use]
    pub fn least_wrong(&self, similarity: f32) -> f64 {
        let nearer = &self.bands[band(similarity)..];
        let wrong: u64 = nearer.iter().map(|of| u64::from(of.wrong)).sum();
        let right: u64 = nearer.iter().map(|of| u64::from(of.right)).sum();
        wilson(wrong, right + wrong, UNDER_95).0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn evidence(counts: &[(f32, bool, usize)]) -> Evidence {
        let mut evidence = Evidence::default();
        for (similarity, right, times) in counts {
            (0..*times).for_each(|_| evidence.count(*similarity, *right));
        }
        evidence
    }

    #[test]
    fn nothing_is_known_of_an_answer_that_was_never_compared() {
        let none = Evidence::default();
        assert_eq!((none.most_wrong(0.95), none.least_wrong(0.95)), (1.0, 0.0));
    }

    #[test]
    fn it_takes_some_hundred_right_ones_to_bound_an_error_at_two_in_a_hundred() {
        assert!(evidence(&[(0.955, true, 130)]).most_wrong(0.955) > 0.02);
        assert!(evidence(&[(0.955, true, 140)]).most_wrong(0.955) <= 0.02);
    }

    #[test]
    fn what_was_right_for_a_farther_question_speaks_for_a_nearer_one_alone() {
        assert!(evidence(&[(0.955, true, 140)]).most_wrong(0.985) <= 0.02);
        assert!(evidence(&[(0.985, true, 140)]).most_wrong(0.955) > 0.9);
    }

    #[test]
    fn what_was_wrong_for_a_nearer_question_speaks_against_a_farther_one() {
        let once = evidence(&[(0.985, false, 1)]);
        assert!(once.least_wrong(0.955) > 0.02 && once.least_wrong(0.985) > 0.02);
        assert!(once.least_wrong(0.995) < 0.02, "and not against one that is nearer still");
        let mixed = evidence(&[(0.955, true, 140), (0.985, false, 1)]);
        assert!(mixed.most_wrong(0.955) > 0.02);
    }
}
