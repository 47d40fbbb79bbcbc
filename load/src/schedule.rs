//! When requests are due. Pure: moments are durations from the start.
//!
//! The schedule is open: it does not know how earlier requests fared, as people in front of many
//! editors do not. A tool that waits for an answer before it asks again asks less of a slow server,
//! and measures least where it matters most.

use std::{sync::Arc, time::Duration};

use fastrand::Rng;
use nearhop_conf::Arrivals;

use crate::trace::Trace;

/// The rate over a scenario: from the base it rises to the height in the first tenth, and stays.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Rate {
    /// Starts a second at the height.
    pub(crate) height: f64,
    /// By what the height is more than the base.
    pub(crate) spike_factor: f64,
    /// How long it goes on.
    pub(crate) duration: Duration,
}

impl Rate {
    /// Starts a second at a moment.
    pub(crate) fn at(&self, moment: Duration) -> f64 {
        let base = self.height / self.spike_factor;
        let ramp = self.duration.as_secs_f64() / 10.0;
        let risen = if self.spike_factor > 1.0 { moment.as_secs_f64() / ramp } else { 1.0 };
        base + (self.height - base) * risen.min(1.0)
    }
}

/// One start: the beginning of a request, or of a line that somebody types.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Start {
    pub(crate) at: Duration,
    /// How much is read and written, where a trace says so.
    pub(crate) tokens: Option<(u32, u32)>,
}

/// The starts of one of several workers, which share them.
#[derive(Debug)]
pub(crate) struct Starts {
    rate: Rate,
    how: How,
    /// The last one, seconds.
    last: f64,
    random: Rng,
}

#[derive(Debug)]
enum How {
    Poisson,
    Even,
    Trace { trace: Arc<Trace>, next: usize, step: usize },
}

impl Starts {
    /// Those of worker `part.0` of `part.1`. `rate` is all workers' together.
    pub(crate) fn new(
        rate: Rate,
        arrivals: &Arrivals,
        trace: Option<Arc<Trace>>,
        part: (usize, usize),
        seed: u64,
    ) -> Self {
        let (part, parts) = part;
        let share = |number: usize| f64::from(u32::try_from(number).unwrap_or(u32::MAX));
        let own = Rate { height: rate.height / share(parts), ..rate };
        let (rate, how, last) = match (arrivals, trace) {
            (Arrivals::Even, _) => {
                // Of two workers, one begins half a step after the other.
                let ahead = 1.0 - share(part) / share(parts);
                (own, How::Even, -ahead / own.at(Duration::ZERO))
            }
            (Arrivals::Trace(_), Some(trace)) => {
                (rate, How::Trace { trace, next: part, step: parts }, 0.0)
            }
            _ => (own, How::Poisson, 0.0),
        };
        Self { rate, how, last, random: Rng::with_seed(seed) }
    }
}

impl Iterator for Starts {
    type Item = Start;

    fn next(&mut self) -> Option<Start> {
        let Self { rate, how, last, random } = self;
        let mut tokens = None;
        *last = match how {
            // Thinned from the height (Lewis and Shedler, 1979): exact for a rate that changes.
            How::Poisson => loop {
                *last -= (1.0 - random.f64()).ln() / rate.height;
                let at = Duration::try_from_secs_f64(*last).ok()?;
                if at >= rate.duration || random.f64() * rate.height < rate.at(at) {
                    break *last;
                }
            },
            How::Even => *last + 1.0 / rate.at(Duration::try_from_secs_f64(last.max(0.0)).ok()?),
            How::Trace { trace, next, step } => {
                let (at, of) = trace.arrival(*next);
                *next += *step;
                tokens = of;
                at * trace.rate() / rate.height
            }
        };
        let at = Duration::try_from_secs_f64(last.max(0.0)).ok()?;
        (at < rate.duration).then_some(Start { at, tokens })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(rate: Rate, arrivals: &Arrivals, parts: usize) -> Vec<Start> {
        let starts = (0..parts)
            .flat_map(|part| Starts::new(rate, arrivals, None, (part, parts), 7 + part as u64));
        let mut all: Vec<Start> = starts.collect();
        all.sort_by_key(|start| start.at);
        all
    }

    const MINUTE: Duration = Duration::from_secs(60);

    #[test]
    fn poisson_arrivals_have_the_rate_and_the_spread_of_independent_ones() {
        let rate = Rate { height: 200.0, spike_factor: 1.0, duration: MINUTE };
        for parts in [1, 3] {
            let all = count(rate, &Arrivals::Poisson, parts);
            assert!((11_500..12_500).contains(&all.len()), "{}", all.len());
            // Gaps of a Poisson process are spread as widely as they are long.
            let gaps: Vec<f64> =
                all.windows(2).map(|pair| (pair[1].at - pair[0].at).as_secs_f64()).collect();
            let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
            let variance =
                gaps.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>() / gaps.len() as f64;
            assert!((0.95..1.05).contains(&(variance.sqrt() / mean)), "{parts} parts");
        }
    }

    #[test]
    fn even_arrivals_are_the_same_time_apart_however_many_share_them() {
        let rate = Rate { height: 10.0, spike_factor: 1.0, duration: Duration::from_secs(3) };
        for parts in [1, 2, 5] {
            let all = count(rate, &Arrivals::Even, parts);
            assert_eq!(all.len(), 30, "{parts} parts");
            for pair in all.windows(2) {
                let gap = pair[1].at - pair[0].at;
                assert!(gap.abs_diff(Duration::from_millis(100)) < Duration::from_micros(10));
            }
        }
    }

    #[test]
    fn a_spike_is_reached_after_a_tenth_and_kept() {
        let rate = Rate { height: 400.0, spike_factor: 2.0, duration: Duration::from_secs(100) };
        let at = |seconds| rate.at(Duration::from_secs(seconds));
        assert_eq!([at(0), at(5), at(10), at(99)], [200.0, 300.0, 400.0, 400.0]);
        let all = count(rate, &Arrivals::Poisson, 1);
        let early = all.iter().filter(|start| start.at < Duration::from_secs(10)).count();
        let late = all.iter().filter(|start| start.at >= Duration::from_secs(90)).count();
        assert!((2800..3200).contains(&early) && (3800..4200).contains(&late), "{early} {late}");
    }

    #[test]
    fn a_trace_is_sped_up_to_the_rate_and_begun_again_at_its_end() {
        let text = "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:00:00.0,10,1\n2023-11-16 18:00:01.0,20,2\n2023-11-16 18:00:04.0,30,3\n";
        let trace = Arc::new(Trace::read(text.as_bytes()).unwrap());
        let rate = Rate {
            height: 2.0 * trace.rate(),
            spike_factor: 1.0,
            duration: Duration::from_secs(5),
        };
        let mut all: Vec<Start> = (0..2)
            .flat_map(|part| {
                let arrivals = Arrivals::Trace("x".into());
                Starts::new(rate, &arrivals, Some(Arc::clone(&trace)), (part, 2), 1)
            })
            .collect();
        all.sort_by_key(|start| start.at);
        let seen: Vec<_> =
            all.iter().map(|start| (start.at.as_millis(), start.tokens.unwrap().0)).collect();
        assert_eq!(seen[..4], [(0, 10), (500, 20), (2000, 30), (3000, 10)], "twice as fast");
    }
}
