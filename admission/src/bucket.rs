//! How much may pass: the generic cell rate algorithm (ITU-T I.371, annex A), as the leaky bucket
//! that it is equivalent to. Pure and exact.
//!
//! A bucket holds a minute's worth and leaks continuously. Everything is counted in whole units of
//! a token's sixty-thousand-millionth part, which is what leaks in a nanosecond at a limit of one
//! a minute: no rounding, so no drift. Of what was reserved, the unused rest can be given back, and
//! what was used beyond can be charged, which makes a debt: crates for rate limits can do neither.

use std::time::Duration;

/// Units of one token: nanoseconds of a minute.
const TOKEN: u128 = 60_000_000_000;

/// Why nothing was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// There is room after this time.
    Wait(Duration),
    /// It is more than the bucket ever holds.
    Never,
}

/// What is in a bucket. Times count from any fixed moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Bucket {
    /// Units, at `at`.
    used: u128,
    at: u128,
}

impl Bucket {
    fn leak(&mut self, per_minute: u64, now: Duration) {
        let now = now.as_nanos();
        // A clock that stands still, or a reader that is late, leaks nothing twice.
        let passed = now.saturating_sub(self.at);
        self.used = self.used.saturating_sub(passed.saturating_mul(u128::from(per_minute)));
        self.at = self.at.max(now);
    }

    /// Takes `n`, where `per_minute` leaves room.
    ///
    /// # Errors
    /// [`Refused`]; nothing was taken.
    pub fn take(&mut self, per_minute: u64, n: u64, now: Duration) -> Result<(), Refused> {
        self.leak(per_minute, now);
        let (size, n) = (units(per_minute), units(n));
        if n > size {
            return Err(Refused::Never);
        }
        let over = (self.used + n).saturating_sub(size);
        if over > 0 {
            return Err(Refused::Wait(time_for(over, per_minute)));
        }
        self.used += n;
        Ok(())
    }

    /// Gives back `n` that were taken and not used.
    pub fn give_back(&mut self, n: u64) {
        self.used = self.used.saturating_sub(units(n));
    }

    /// Charges `n` that were used without being taken: what is over the limit is a debt, which
    /// leaks away before anything can be taken again.
    pub fn charge(&mut self, n: u64) {
        self.used = self.used.saturating_add(units(n));
    }

    /// What may be taken now.
    pub fn remaining(&mut self, per_minute: u64, now: Duration) -> u64 {
        self.leak(per_minute, now);
        let left = units(per_minute).saturating_sub(self.used) / TOKEN;
        u64::try_from(left).unwrap_or(u64::MAX)
    }

    /// Until it is empty again.
    pub fn reset_after(&mut self, per_minute: u64, now: Duration) -> Duration {
        self.leak(per_minute, now);
        time_for(self.used, per_minute)
    }

    /// Whether there is nothing to remember, whatever its limit is.
    pub(crate) fn is_empty(&self, now: Duration) -> bool {
        let mut slowest = *self;
        slowest.leak(1, now);
        slowest.used == 0
    }
}

fn units(n: u64) -> u128 {
    u128::from(n) * TOKEN
}

/// The whole nanoseconds after which so many units have leaked.
fn time_for(units: u128, per_minute: u64) -> Duration {
    let nanos = units.div_ceil(u128::from(per_minute.max(1)));
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    proptest! {
        /// In any window, no more than the bucket's size and what leaks in it.
        #[test]
        fn never_over(
            per_minute in 1u64..1_000_000_000,
            steps in prop::collection::vec((0u64..90_000_000_000, 0u64..2_000_000_000), 1..60),
        ) {
            let mut bucket = Bucket::default();
            let mut now = Duration::ZERO;
            let mut taken: Vec<(Duration, u64)> = Vec::new();
            for (wait, n) in steps {
                now += Duration::from_nanos(wait);
                if bucket.take(per_minute, n, now).is_ok() {
                    taken.push((now, n));
                }
            }
            for (from, _) in &taken {
                let mut sum = 0u128;
                for (to, n) in taken.iter().filter(|(to, _)| to >= from) {
                    sum += u128::from(*n) * TOKEN;
                    let most = units(per_minute) + (*to - *from).as_nanos() * u128::from(per_minute);
                    prop_assert!(sum <= most, "{} over {}", sum, most);
                }
            }
        }

        /// What it says one must wait is enough, and a nanosecond less is not.
        #[test]
        fn the_wait_is_exact(per_minute in 1u64..1_000_000_000, first in 0u64..1_000_000_000, second in 1u64..1_000_000_000) {
            let mut bucket = Bucket::default();
            let _ = bucket.take(per_minute, first.min(per_minute), Duration::ZERO);
            match bucket.take(per_minute, second, Duration::ZERO) {
                Ok(()) => {}
                Err(Refused::Never) => prop_assert!(second > per_minute),
                Err(Refused::Wait(wait)) => {
                    let mut early = bucket;
                    prop_assert!(early.take(per_minute, second, wait - Duration::from_nanos(1)).is_err());
                    prop_assert_eq!(bucket.take(per_minute, second, wait), Ok(()));
                }
            }
        }

        #[test]
        fn what_is_given_back_was_never_taken(per_minute in 1u64..1_000_000, n in 0u64..1_000_000, at in 0u64..1_000_000_000) {
            let now = Duration::from_nanos(at);
            let mut bucket = Bucket::default();
            bucket.charge(7);
            let _ = bucket.remaining(per_minute, now);
            let before = bucket;
            if bucket.take(per_minute, n, now).is_ok() {
                bucket.give_back(n);
            }
            prop_assert_eq!(bucket, before);
        }
    }

    #[test]
    fn a_minute_fills_it_again_exactly() {
        for per_minute in [1, 7, 60, 999_999_937] {
            let mut bucket = Bucket::default();
            assert_eq!(bucket.take(per_minute, per_minute, Duration::ZERO), Ok(()));
            let early = MINUTE - Duration::from_nanos(1);
            assert!(bucket.take(per_minute, per_minute, early).is_err());
            assert_eq!(bucket.take(per_minute, per_minute, MINUTE), Ok(()), "{per_minute}");
        }
    }

    #[test]
    fn a_debt_is_waited_for() {
        let mut bucket = Bucket::default();
        bucket.charge(180);
        assert_eq!(
            bucket.take(60, 1, Duration::ZERO),
            Err(Refused::Wait(Duration::from_secs(121)))
        );
        assert_eq!(bucket.remaining(60, 2 * MINUTE), 0);
        assert_eq!(bucket.remaining(60, 3 * MINUTE), 60);
        assert_eq!(bucket.take(60, 61, 3 * MINUTE), Err(Refused::Never));
    }

    #[test]
    fn a_clock_that_steps_back_leaks_nothing_twice() {
        let mut bucket = Bucket::default();
        bucket.take(60, 60, MINUTE).unwrap();
        let mut early = bucket;
        assert!(early.take(60, 1, Duration::ZERO).is_err());
        assert_eq!(early.remaining(60, MINUTE), 0);
    }
}
