//! How much of a full region's clients go to the next one. Pure.
//!
//! A share of *hash space* moves, not a share of queries: a client prefix that was moved stays moved
//! until the region has room again, on every server alike.

use nearhop_conf::Spill;

/// The share of a region's clients to move from now on, 0 to 1, where it is `moved` and the region's
/// use (running and queued requests over capacity) is `used`.
#[must_use]
pub(crate) fn next(limits: &Spill, moved: f64, used: f64) -> f64 {
    // Where it would rest: those who stay are what is used now.
    let stay = 1.0 - moved;
    let rest_at = |goal: f64| 1.0 - stay * goal / used;
    let next = if used > limits.start {
        rest_at(limits.start).min(moved + limits.step)
    } else if used < limits.stop && moved > 0.0 {
        let middle = f64::midpoint(limits.start, limits.stop);
        // Nobody stays, or those who do ask nothing: what would come back is not known.
        let known = if stay > 0.0 && used > 0.0 { rest_at(middle) } else { 0.0 };
        known.max(moved - limits.step)
    } else {
        moved
    };
    // In ten-thousandths, so that what has come to rest stays the same number.
    (next.clamp(0.0, 1.0) * 1e4).round() / 1e4
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn it_moves_in_steps_and_rests_between_the_limits() {
        let limits = Spill::default();
        assert_eq!(next(&limits, 0.0, 0.5), 0.0);
        assert_eq!(next(&limits, 0.0, 2.0), 0.1, "a step at a time");
        assert!(next(&limits, 0.0, 0.82) < 0.03, "and no more than it takes");
        assert_eq!(next(&limits, 0.3, 0.7), 0.3);
        assert!((next(&limits, 0.3, 0.6) - 0.2).abs() < 0.05, "back to between the limits");
        assert!((0.99..=1.0).contains(&next(&limits, 0.95, 9.0)));
        assert_eq!((next(&limits, 0.05, 0.0), next(&limits, 1.0, 0.0)), (0.0, 0.9));
    }

    proptest! {
        #[test]
        fn a_steady_demand_comes_to_rest(demand in 0.0f64..3.0) {
            let limits = Spill::default();
            let mut moved = 0.0;
            for _ in 0..200 {
                moved = next(&limits, moved, demand * (1.0 - moved));
            }
            let next = next(&limits, moved, demand * (1.0 - moved));
            prop_assert!((next - moved).abs() < 1e-3, "{} then {}", moved, next);
            prop_assert!(demand * (1.0 - moved) <= limits.start + 1e-3);
        }
    }
}
