//! Distributions of durations, to three digits.

use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

/// The longest that is told apart.
const LONGEST_MICROS: u64 = 3_600_000_000;

/// Durations, of which only the distribution is kept.
#[derive(Debug, Clone)]
pub(crate) struct Latencies(Histogram<u32>);

impl Latencies {
    pub(crate) fn new() -> Self {
        let made = Histogram::new_with_bounds(1, LONGEST_MICROS, 3);
        Self(made.expect("1 us to 1 h at 3 digits is a range that can be had"))
    }

    /// Of one digit: small, where there are thousands of them.
    pub(crate) fn coarse() -> Self {
        let made = Histogram::new_with_bounds(1, LONGEST_MICROS, 1);
        Self(made.expect("1 us to 1 h at 1 digit is a range that can be had"))
    }

    pub(crate) fn add(&mut self, duration: Duration) {
        let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        self.0.saturating_record(micros);
    }

    pub(crate) fn count(&self) -> u64 {
        self.0.len()
    }

    /// The duration under which that share of all is; nothing where there are none.
    pub(crate) fn quantile(&self, share: f64) -> Option<Duration> {
        (!self.0.is_empty()).then(|| Duration::from_micros(self.0.value_at_quantile(share)))
    }

    pub(crate) fn summary(&self) -> Summary {
        let at = |share| self.quantile(share).map(millis);
        Summary {
            count: self.count(),
            p50_ms: at(0.5),
            p90_ms: at(0.9),
            p95_ms: at(0.95),
            p99_ms: at(0.99),
            p999_ms: at(0.999),
            max_ms: at(1.0),
        }
    }

    /// Shares from 0 to 1 with their durations in milliseconds, for a plot.
    pub(crate) fn curve(&self) -> Vec<(f64, f64)> {
        let shares = (0..=60).map(|step| 1.0 - 10_f64.powf(-f64::from(step) / 20.0));
        shares.filter_map(|share| Some((share, millis(self.quantile(share)?)))).collect()
    }
}

/// A distribution in numbers, milliseconds.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Summary {
    /// How many durations.
    pub count: u64,
    /// The median.
    pub p50_ms: Option<f64>,
    /// The 90th percentile.
    pub p90_ms: Option<f64>,
    /// The 95th percentile.
    pub p95_ms: Option<f64>,
    /// The 99th percentile.
    pub p99_ms: Option<f64>,
    /// The 99.9th percentile.
    pub p999_ms: Option<f64>,
    /// The longest.
    pub max_ms: Option<f64>,
}

/// Milliseconds, to a thousandth.
pub(crate) fn millis(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e6).round() / 1e3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_those_of_what_was_added() {
        let mut all = Latencies::new();
        assert_eq!(all.summary().p50_ms, None);
        (1..=1000).for_each(|ms| all.add(Duration::from_millis(ms)));
        let near = |share: f64, expected: f64| {
            let seen = millis(all.quantile(share).unwrap());
            assert!((seen / expected - 1.0).abs() < 0.002, "{share}: {seen}");
        };
        near(0.5, 500.0);
        near(0.99, 990.0);
        near(1.0, 1000.0);
        assert!(all.curve().windows(2).all(|pair| pair[0].1 <= pair[1].1));
    }
}
