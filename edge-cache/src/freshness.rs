//! How old an entry may be.

use std::time::Duration;

/// An entry's age against its time to live.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Freshness {
    /// Past its time.
    Expired,
    /// May be served for that much longer.
    Fresh(Duration),
}

/// Judges an entry stored at `stored`; both times count from the same start.
#[must_use]
pub fn judge(stored: Duration, ttl: Duration, now: Duration) -> Freshness {
    match ttl.checked_sub(now.saturating_sub(stored)) {
        Some(left) if !left.is_zero() => Freshness::Fresh(left),
        _ => Freshness::Expired,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn an_entry_expires_at_its_time_to_live() {
        assert_eq!(judge(SECOND, 2 * SECOND, 2 * SECOND), Freshness::Fresh(SECOND));
        assert_eq!(judge(SECOND, 2 * SECOND, 3 * SECOND), Freshness::Expired);
    }

    proptest! {
        #[test]
        fn freshness_never_improves_with_age(stored in 0u64..9, ttl in 0u64..9, now in 0u64..20, later in 0u64..20) {
            let at = |now| judge(Duration::from_secs(stored), Duration::from_secs(ttl), Duration::from_secs(now));
            prop_assert!(at(now + later) <= at(now));
        }
    }
}
