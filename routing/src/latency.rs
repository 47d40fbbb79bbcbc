//! How long first tokens take, with prompt length taken out.
//!
//! A long prompt takes longer to read than a short one, so times are compared as *ratios* to what a
//! prompt of that length was expected to take in the pool. A line
//! says what is expected: a constant and a time per byte, both over 0. It is learned in the logarithm,
//! one bounded step a sample, so it follows about the median, and a huge value moves it no more than
//! a large one. Buckets of lengths would have to learn each length anew.
//!
//! An attempt that was given up counts with the time that it had waited by then. Were it left out,
//! what is slow would vanish from the picture as soon as hedges hide it, and hedges would start ever
//! sooner.
//!
//! Absent on purpose: absolute limits. Where load rises everywhere, everything is slower, and taking
//! pods out for it makes the rest slower still. What a pod is measured by is its peers, what a
//! provider is measured by is its own past.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

/// Times that a pool's spread is read from: twenty of them are beyond its tail.
const RECENT: usize = 512;
/// Times between two readings: sorting on each would cost more than routing does.
const READ_EVERY: u64 = 16;
/// Times before anything is said of a spread or of an upstream.
const ENOUGH: u32 = 20;
/// The most of a sample's surprise (in the logarithm) that is believed.
const SURPRISE_MAX: f64 = 0.5;
/// Where the tail begins, per cent. One attempt in twenty may be a hedge: those that are later than
/// this are nearly all that may be asked twice, and a percentile that is read from few times errs. A
/// limit by the median (three times it, say) is passed by more than that where times spread widely;
/// then the hedges go to those that come first, and what is really late gets none.
const TAIL: usize = 96;
/// The smallest step of a pool's line: a change of load is learned within some fifty samples.
const POOL_STEP: f64 = 0.05;

/// What a first token is expected to take, by prompt length.
#[derive(Debug, Clone, Default)]
struct Line {
    /// Seconds, whatever the length.
    constant: f64,
    per_byte: f64,
    samples: u64,
}

impl Line {
    /// Seconds; `None` before the first sample.
    fn expected(&self, bytes: usize) -> Option<f64> {
        (self.samples > 0).then_some(self.constant + self.per_byte * bytes as f64)
    }

    /// How many times longer than expected; 1 where nothing is.
    fn ratio(&self, bytes: usize, took: f64) -> f64 {
        self.expected(bytes).map_or(1.0, |expected| took / expected)
    }

    /// Moves a `step` towards a sample: each part by its share in what was expected.
    fn learn(&mut self, bytes: usize, took: f64, step: f64) {
        self.samples += 1;
        if self.samples == 1 {
            // Half of each, until lengths that differ tell them apart.
            self.constant = took / 2.0;
            self.per_byte = took / 2.0 / bytes.max(1) as f64;
            return;
        }
        let by_length = self.per_byte * bytes as f64;
        let expected = self.constant + by_length;
        let surprise = (took / expected).ln().clamp(-SURPRISE_MAX, SURPRISE_MAX) * step;
        // Below a nanosecond and above a quarter of an hour, a part is not followed.
        let moved = |part: f64, share: f64| (part * (surprise * share).exp()).clamp(1e-12, 1e3);
        self.constant = moved(self.constant, self.constant / expected);
        self.per_byte = moved(self.per_byte, by_length / expected);
    }

    /// Large while it knows little: whatever came first is forgotten.
    fn step(&self) -> f64 {
        1.0 / (self.samples.max(1) as f64).sqrt()
    }
}

/// How long first tokens take in a pool, by prompt length.
#[derive(Debug, Clone, Default)]
pub struct Pace {
    line: Line,
    /// The latest: bytes and seconds.
    recent: VecDeque<(usize, f64)>,
    /// Where the recent ratios' tail begins.
    tail: Option<f64>,
}

impl Pace {
    /// One that knows nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds what an attempt took, or had waited when it was given up. Says how that relates to what
    /// was expected; 1 for the first.
    pub fn add(&mut self, bytes: usize, took: Duration) -> f64 {
        let took = seconds(took);
        let ratio = self.line.ratio(bytes, took);
        self.line.learn(bytes, took, self.line.step().max(POOL_STEP));
        if self.recent.len() == RECENT {
            self.recent.pop_front();
        }
        self.recent.push_back((bytes, took));
        let known = self.line.samples;
        if known >= u64::from(ENOUGH) && (self.tail.is_none() || known.is_multiple_of(READ_EVERY)) {
            self.tail = self.percentile(TAIL);
        }
        ratio
    }

    /// What a first token takes after a prompt of so many bytes.
    #[cfg(test)]
    pub(crate) fn expected(&self, bytes: usize) -> Option<Duration> {
        self.line.expected(bytes).map(duration)
    }

    /// When a first token is so late that another pod is asked too.
    #[must_use]
    pub fn hedge_after(&self, bytes: usize) -> Option<Duration> {
        Some(duration(self.line.expected(bytes)? * self.tail?))
    }

    /// Of the recent times, beside what the line says now.
    pub(crate) fn percentile(&self, percent: usize) -> Option<f64> {
        let ratio = |(bytes, took): &(usize, f64)| self.line.ratio(*bytes, *took);
        let mut ratios: Vec<f64> = self.recent.iter().map(ratio).collect();
        percentile(&mut ratios, percent)
    }
}

/// What one sample says of an upstream's slowness; the rest, what was known.
const SLOWNESS_WEIGHT: f64 = 0.05;
/// The most of a ratio that is believed, in the logarithm: a factor of 16.
const RATIO_MAX: f64 = 2.8;

/// How slow one upstream is beside its pool: the geometric mean of its latest ratios. The ordinary
/// mean would follow the few that are huge.
#[derive(Debug, Clone, Copy, Default)]
pub struct Slowness {
    logarithm: f64,
    samples: u32,
}

impl Slowness {
    /// Adds what [`Pace::add`] said.
    pub fn add(&mut self, ratio: f64) {
        self.samples = self.samples.saturating_add(1);
        let weight = (1.0 / f64::from(self.samples)).max(SLOWNESS_WEIGHT);
        let said = ratio.max(f64::MIN_POSITIVE).ln().clamp(-RATIO_MAX, RATIO_MAX);
        self.logarithm += (said - self.logarithm) * weight;
    }

    /// What was measured has had its consequence: the next sample stands in its place. Else a pod that
    /// is fast again would be taken out a few times more for what it was. Until then the old is the
    /// best guess.
    pub const fn forget(&mut self) {
        self.samples = 0;
    }

    /// How many times slower than its pool; 1 while nothing is known.
    #[must_use]
    pub fn ratio(&self) -> f64 {
        self.logarithm.exp()
    }

    /// How many times that was learned from.
    #[must_use]
    pub const fn samples(&self) -> u32 {
        self.samples
    }
}

/// How many times slower than its peers' median is too slow.
const OUTLIER: f64 = 3.0;
/// Of two pods nobody can say which is the slow one.
const PEERS_MIN: usize = 2;

/// Whether the one at `at` is much slower than the others, each given as its ratio and the samples
/// behind it. In doubt it is not: of an even number of others the slower half's best counts.
#[must_use]
pub fn outlier(all: &[(f64, u32)], at: usize) -> bool {
    let known = |(_, samples): &(f64, u32)| *samples >= ENOUGH;
    let Some((ratio, _)) = all.get(at).filter(|own| known(own)) else { return false };
    let others = all.iter().enumerate().filter(|(place, peer)| *place != at && known(peer));
    let mut others: Vec<f64> = others.map(|(_, (ratio, _))| *ratio).collect();
    others.len() >= PEERS_MIN
        && percentile(&mut others, 50).is_some_and(|median| *ratio > OUTLIER * median)
}

/// How long what is "recent" of a provider lasts.
const BASELINE_RECENT: Duration = Duration::from_secs(60);
/// The most that is remembered of it.
const BASELINE_KEPT: usize = 128;
/// Times before a provider's baseline is one.
const BASELINE_ENOUGH: u64 = 50;
/// In such a time a baseline follows by at most [`SURPRISE_MAX`]: a provider that stays three times
/// slower is what is normal after about an hour.
const BASELINE_FOLLOWS: Duration = Duration::from_secs(30 * 60);
/// A night's silence does not make the first sample after it the new baseline.
const BASELINE_STEP_MAX: f64 = 0.01;
/// How many times slower than its baseline is too slow.
const HIGH: f64 = 2.0;
/// Seconds. What is late by less is as likely our own machine's doing: a provider that answers within
/// two milliseconds takes five whenever this edge is busy.
const NOISE: f64 = 0.02;

/// A provider's own baseline, and what it takes beside it now. Providers have no peers: each has
/// its own models and its own network between.
#[derive(Debug, Clone, Default)]
pub struct Baseline {
    /// Follows by time, not by samples: else a burst of slow answers would be normal by its end.
    line: Line,
    recent: VecDeque<(Instant, f64)>,
    last: Option<Instant>,
}

impl Baseline {
    /// One that knows nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds what a first token took.
    pub fn add(&mut self, bytes: usize, took: Duration, now: Instant) {
        let took = seconds(took);
        let is_noise = self.line.expected(bytes).is_some_and(|expected| took < expected + NOISE);
        let ratio = self.line.ratio(bytes, took).min(if is_noise { 1.0 } else { f64::INFINITY });
        let passed = self.last.map_or(Duration::ZERO, |last| now.saturating_duration_since(last));
        let step = if self.is_known() {
            (passed.as_secs_f64() / BASELINE_FOLLOWS.as_secs_f64()).min(BASELINE_STEP_MAX)
        } else {
            self.line.step()
        };
        // What is learned at once cannot be told from what is normal.
        if self.is_known() {
            if self.recent.len() == BASELINE_KEPT {
                self.recent.pop_front();
            }
            self.recent.push_back((now, ratio));
        }
        self.line.learn(bytes, took, step);
        self.last = Some(now);
    }

    fn is_known(&self) -> bool {
        self.line.samples >= BASELINE_ENOUGH
    }

    /// Whether it takes far longer than it used to, over enough requests of the last minute.
    #[must_use]
    pub fn is_high(&self, now: Instant) -> bool {
        let is_recent = |at: Instant| now.saturating_duration_since(at) < BASELINE_RECENT;
        let recent = self.recent.iter().filter(|(at, _)| is_recent(*at));
        let mut ratios: Vec<f64> = recent.map(|(_, ratio)| *ratio).collect();
        ratios.len() >= ENOUGH as usize
            && percentile(&mut ratios, 50).is_some_and(|median| median > HIGH)
    }

    /// What was recent has had its consequence: the next needs new evidence, or the same slow
    /// minute would take the provider out twice.
    pub fn forget_recent(&mut self) {
        self.recent.clear();
    }

    /// What a first token used to take after a prompt of so many bytes.
    #[cfg(test)]
    pub(crate) fn expected(&self, bytes: usize) -> Option<Duration> {
        self.line.expected(bytes).map(duration)
    }
}

/// Never 0, so that ratios have a logarithm.
fn seconds(took: Duration) -> f64 {
    took.as_secs_f64().max(1e-6)
}

/// Nothing is expected later than in an hour.
fn duration(seconds: f64) -> Duration {
    Duration::from_secs_f64(seconds.clamp(0.0, 3600.0))
}

/// The value that `percent` of the others lie below; of two in the middle the higher.
fn percentile(values: &mut [f64], percent: usize) -> Option<f64> {
    let at = (values.len() * percent / 100).min(values.len().checked_sub(1)?);
    Some(*values.select_nth_unstable_by(at, f64::total_cmp).1)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::start;

    /// What a healthy pod takes.
    fn usual(bytes: usize) -> f64 {
        0.02 + 5e-6 * bytes as f64
    }

    fn secs(seconds: f64) -> Duration {
        Duration::from_secs_f64(seconds)
    }

    /// Lengths from 128 B to 32 KiB, times up to a fifth off.
    fn sample(dice: &mut fastrand::Rng) -> (usize, f64) {
        let bytes = 1 << dice.usize(7..15);
        let bytes = bytes + dice.usize(..bytes);
        (bytes, usual(bytes) * (0.8 + 0.4 * dice.f64()))
    }

    fn warm(samples: usize) -> Pace {
        let (mut pace, mut dice) = (Pace::new(), fastrand::Rng::with_seed(1));
        for _ in 0..samples {
            let (bytes, took) = sample(&mut dice);
            pace.add(bytes, secs(took));
        }
        pace
    }

    #[track_caller]
    fn near(pace: &Pace, bytes: usize, within: f64) {
        let ratio = pace.expected(bytes).unwrap().as_secs_f64() / usual(bytes);
        assert!((ratio - 1.0).abs() < within, "{bytes} bytes: {ratio} times the usual");
    }

    #[test]
    fn what_is_expected_follows_the_length() {
        let pace = warm(2000);
        for bytes in [100, 1_000, 10_000, 60_000] {
            near(&pace, bytes, 0.15);
        }
    }

    #[test]
    fn what_came_first_is_forgotten() {
        let (mut pace, mut dice) = (Pace::new(), fastrand::Rng::with_seed(2));
        assert_eq!(pace.expected(10), None);
        assert!((pace.add(4096, secs(30.0)) - 1.0).abs() < f64::EPSILON, "nothing was expected");
        for _ in 0..300 {
            let (bytes, took) = sample(&mut dice);
            pace.add(bytes, secs(took));
        }
        near(&pace, 1_000, 0.3);
        near(&pace, 20_000, 0.3);
    }

    #[test]
    fn one_huge_value_moves_nothing_much() {
        let mut pace = warm(1000);
        let before = pace.hedge_after(1000).unwrap();
        let ratio = pace.add(1000, secs(3000.0));
        assert!(ratio > 10_000.0, "{ratio}");
        near(&pace, 1000, 0.15);
        for _ in 0..READ_EVERY {
            pace.add(1000, secs(usual(1000)));
        }
        let after = pace.hedge_after(1000).unwrap();
        assert!(after < before.mul_f64(1.1), "{before:?} became {after:?}");

        let mut slowness = Slowness::default();
        (0..50).for_each(|_| slowness.add(1.0));
        slowness.add(1e9);
        assert!(slowness.ratio() < 1.2, "{}", slowness.ratio());
    }

    #[test]
    fn a_pod_that_was_slow_is_judged_anew() {
        let mut slowness = Slowness::default();
        (0..100).for_each(|_| slowness.add(10.0));
        slowness.forget();
        assert!(slowness.ratio() > 9.0, "the best guess until something is measured");
        assert!(!outlier(&[(slowness.ratio(), slowness.samples()), (1.0, 99), (1.0, 99)], 0));
        (0..ENOUGH).for_each(|_| slowness.add(1.0));
        assert!(!outlier(&[(slowness.ratio(), slowness.samples()), (1.0, 99), (1.0, 99)], 0));
        assert!((slowness.ratio() - 1.0).abs() < 1e-9, "{}", slowness.ratio());
    }

    #[test]
    fn hedging_waits_until_enough_is_known_and_for_long_prompts_longer() {
        assert_eq!(warm(19).hedge_after(1000), None);
        let pace = warm(400);
        let (short, long) = (pace.hedge_after(200).unwrap(), pace.hedge_after(20_000).unwrap());
        assert!(short > pace.expected(200).unwrap() && long > short.mul_f64(3.0));
        assert_eq!(warm(3000).recent.len(), RECENT);
    }

    /// Each pod's times are `factor(pod, step)` times the usual; the slow one gets short prompts only.
    /// The outliers of each step.
    fn outliers(
        pods: usize,
        short: Option<usize>,
        factor: fn(usize, usize) -> f64,
    ) -> Vec<Vec<usize>> {
        let (mut pace, mut dice) = (Pace::new(), fastrand::Rng::with_seed(3));
        let mut slowness = vec![Slowness::default(); pods];
        let mut step = |at: usize| {
            for (pod, slow) in slowness.iter_mut().enumerate() {
                let (mut bytes, mut took) = sample(&mut dice);
                if short == Some(pod) {
                    (bytes, took) = (200, usual(200));
                }
                slow.add(pace.add(bytes, secs(took * factor(pod, at))));
            }
            let all: Vec<_> = slowness.iter().map(|slow| (slow.ratio(), slow.samples())).collect();
            (0..pods).filter(|pod| outlier(&all, *pod)).collect()
        };
        (0..800).map(&mut step).collect()
    }

    #[test]
    fn load_that_rises_everywhere_makes_nobody_an_outlier() {
        let doubles = outliers(4, None, |_, step| if step < 400 { 1.0 } else { 2.0 });
        assert!(doubles.iter().all(Vec::is_empty));
        let hundredfold = outliers(4, None, |_, step| if step < 400 { 1.0 } else { 100.0 });
        assert!(hundredfold.iter().all(Vec::is_empty));
    }

    #[test]
    fn a_slow_pod_is_an_outlier_though_its_prompts_are_short() {
        let slow = |pod: usize, step: usize| if pod == 2 && step >= 200 { 4.0 } else { 1.0 };
        let found = outliers(4, Some(2), slow);
        assert!(found[..200].iter().all(Vec::is_empty));
        assert!(found[300..].iter().all(|outliers| outliers == &[2]));
        // Its short prompts take no longer than the others' long ones.
        assert!(4.0 * usual(200) < usual(20_000));
    }

    #[test]
    fn a_pod_whose_prompts_are_long_is_none() {
        let (mut pace, mut long) = (warm(500), Slowness::default());
        for _ in 0..100 {
            long.add(pace.add(30_000, secs(usual(30_000))));
            for bytes in [200, 300, 1000] {
                pace.add(bytes, secs(usual(bytes)));
            }
        }
        assert!(!outlier(&[(long.ratio(), 100), (1.0, 100), (1.0, 100)], 0), "{}", long.ratio());
        assert!(usual(30_000) > 6.0 * usual(1000), "though its times are");
    }

    #[test]
    fn an_outlier_has_two_peers_and_enough_samples() {
        let check =
            |all: &[(f64, u32)], at, expected| assert_eq!(outlier(all, at), expected, "{all:?}");
        check(&[(3.1, 20), (1.0, 20), (1.0, 20)], 0, true);
        check(&[(3.0, 20), (1.0, 20), (1.0, 20)], 0, false);
        check(&[(9.0, 19), (1.0, 20), (1.0, 20)], 0, false);
        check(&[(9.0, 20), (1.0, 20), (1.0, 19)], 0, false);
        check(&[(9.0, 20), (1.0, 20)], 0, false);
        check(&[(9.0, 20), (1.0, 20), (8.0, 20)], 0, false);
        check(&[(9.0, 20), (1.0, 20), (8.0, 20), (1.0, 20)], 0, true);
        check(&[(9.0, 20), (1.0, 20), (1.0, 20)], 1, false);
        check(&[], 0, false);
    }

    /// A provider with its usual times for an hour, and then `factor` times those, twice a second
    /// for so many seconds.
    fn provider(factor: f64, seconds: u64) -> (Baseline, Instant) {
        let (mut baseline, mut dice) = (Baseline::new(), fastrand::Rng::with_seed(5));
        let mut now = start();
        for step in 0..7200 + seconds * 2 {
            let (bytes, took) = sample(&mut dice);
            let factor = if step < 7200 { 1.0 } else { factor };
            baseline.add(bytes, secs(took * factor), now);
            now += Duration::from_millis(500);
        }
        (baseline, now)
    }

    #[test]
    fn a_provider_that_answers_at_once_is_not_high_for_some_milliseconds() {
        let mut now = start();
        let mut baseline = Baseline::new();
        for (took, times, expected) in [(0.002, 100, false), (0.015, 200, false), (0.05, 200, true)]
        {
            (0..times).for_each(|_| {
                now += secs(0.05);
                baseline.add(100, secs(took), now);
            });
            assert_eq!(baseline.is_high(now), expected, "{took} s");
        }
    }

    #[test]
    fn a_provider_is_high_when_it_is_over_twice_its_own_past() {
        let check = |factor, seconds, expected| {
            let (baseline, now) = provider(factor, seconds);
            assert_eq!(baseline.is_high(now), expected, "{factor} times for {seconds} s");
        };
        check(1.0, 60, false);
        check(1.5, 600, false);
        check(2.5, 60, true);
        check(2.5, 20, false); // Most of the last minute was as ever.
        check(10.0, 600, true);
        check(3.0, 3 * 3600, false); // By now that is what it takes.
    }

    #[test]
    fn what_is_old_or_little_makes_no_provider_high() {
        let (mut baseline, now) = provider(3.0, 60);
        assert!(baseline.is_high(now));
        assert!(!baseline.is_high(now + Duration::from_secs(55)));
        assert!(baseline.recent.len() <= BASELINE_KEPT);
        baseline.forget_recent();
        assert!(!baseline.is_high(now));
        for _ in 0..19 {
            baseline.add(1000, secs(usual(1000) * 3.0), now);
        }
        assert!(!baseline.is_high(now));
        baseline.add(1000, secs(usual(1000) * 3.0), now);
        assert!(baseline.is_high(now));
    }

    #[test]
    fn the_first_answer_after_a_night_is_not_the_new_baseline() {
        let (mut baseline, now) = provider(1.0, 0);
        let before = baseline.expected(1000).unwrap();
        baseline.add(1000, secs(usual(1000) * 50.0), now + Duration::from_secs(12 * 3600));
        let after = baseline.expected(1000).unwrap();
        assert!(after < before.mul_f64(1.01), "{before:?} became {after:?}");
    }

    #[test]
    fn a_provider_that_nobody_knows_is_not_high() {
        let (mut baseline, now) = (Baseline::new(), start());
        for step in 0..60 {
            baseline.add(1000, secs(if step < 30 { 0.1 } else { 10.0 }), now);
        }
        assert!(!baseline.is_high(now));
    }

    proptest! {
        #[test]
        fn whatever_comes_it_stays_finite_and_longer_prompts_are_never_expected_sooner(
            samples in prop::collection::vec((0usize..10_000_000, 0u64..u64::MAX), 1..200),
            shorter in 0usize..1_000_000, more in 0usize..1_000_000,
        ) {
            let (mut pace, mut slowness, mut baseline) = (Pace::new(), Slowness::default(), Baseline::new());
            for (bytes, took) in samples {
                let took = Duration::from_nanos(took);
                slowness.add(pace.add(bytes, took));
                baseline.add(bytes, took, start());
            }
            prop_assert!(slowness.ratio().is_finite() && slowness.ratio() > 0.0);
            prop_assert!(pace.expected(shorter) <= pace.expected(shorter + more));
            prop_assert!(pace.hedge_after(shorter) <= pace.hedge_after(shorter + more));
            prop_assert!(baseline.expected(shorter) <= baseline.expected(shorter + more));
        }
    }
}
