//! Chooses the next token. Pure: the same logits, settings and seed give the same choices.

use std::cmp::Ordering;

/// One choice's sampler.
#[derive(Debug)]
pub(crate) struct Sampler {
    temperature: f32,
    top_p: f32,
    random: fastrand::Rng,
    /// Kept between calls: a vocabulary's worth of candidates.
    candidates: Vec<(u32, f32)>,
}

impl Sampler {
    pub(crate) fn new(temperature: f32, top_p: f32, seed: u64) -> Self {
        Self { temperature, top_p, random: fastrand::Rng::with_seed(seed), candidates: Vec::new() }
    }

    /// The next token for `logits` (one per token of the vocabulary, not empty).
    pub(crate) fn pick(&mut self, logits: &[f32]) -> u32 {
        let likeliest = argmax(logits);
        if self.temperature <= 0.0 {
            return likeliest;
        }
        let peak = logits[likeliest as usize];
        self.candidates.clear();
        let weighted = logits
            .iter()
            .zip(0u32..)
            .map(|(logit, token)| (token, ((logit - peak) / self.temperature).exp()));
        // Below 1e-8 of the likeliest nothing is ever drawn; leaving it out keeps sorting cheap.
        self.candidates.extend(weighted.filter(|(_, weight)| *weight > 1e-8));
        let total: f32 = self.candidates.iter().map(|(_, weight)| weight).sum();
        if !total.is_finite() || total <= 0.0 {
            return likeliest;
        }
        let mut mass = total;
        if self.top_p < 1.0 {
            mass = self.keep_nucleus(total);
        }
        let mut left = self.random.f32() * mass;
        for (token, weight) in &self.candidates {
            left -= weight;
            if left <= 0.0 {
                return *token;
            }
        }
        likeliest
    }

    /// Keeps the smallest set of likeliest tokens whose share reaches `top_p`; returns its weight.
    /// Holtzman et al. 2020, "The Curious Case of Neural Text Degeneration", section 3.1.
    fn keep_nucleus(&mut self, total: f32) -> f32 {
        let descending = |a: &(u32, f32), b: &(u32, f32)| match b.1.total_cmp(&a.1) {
            Ordering::Equal => a.0.cmp(&b.0),
            order => order,
        };
        self.candidates.sort_unstable_by(descending);
        let mut mass = 0.0;
        let within = self.candidates.iter().position(|(_, weight)| {
            mass += weight;
            mass >= self.top_p * total
        });
        self.candidates.truncate(within.map_or(usize::MAX, |last| last + 1));
        mass
    }
}

/// The likeliest token; the first of equals, and never one whose logit is not a number.
fn argmax(logits: &[f32]) -> u32 {
    let mut best = (0u32, f32::NEG_INFINITY);
    for (logit, token) in logits.iter().zip(0u32..) {
        if *logit > best.1 {
            best = (token, *logit);
        }
    }
    best.0
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn zero_temperature_takes_the_likeliest_and_the_first_of_equals() {
        assert_eq!(Sampler::new(0.0, 1.0, 1).pick(&[0.0, 3.0, 3.0, 1.0]), 1);
        assert_eq!(Sampler::new(0.0, 1.0, 1).pick(&[f32::NAN, 1.0]), 1);
    }

    #[test]
    fn the_same_seed_draws_the_same_tokens() {
        let logits: Vec<f32> = (0u8..50).map(|n| f32::from(n % 7)).collect();
        let draw = |seed| {
            let mut sampler = Sampler::new(1.0, 0.9, seed);
            (0..20).map(|_| sampler.pick(&logits)).collect::<Vec<_>>()
        };
        assert_eq!(draw(7), draw(7));
        assert_ne!(draw(7), draw(8));
    }

    #[test]
    fn draws_follow_the_probabilities() {
        let mut sampler = Sampler::new(1.0, 1.0, 3);
        let logits = [0.0, 3f32.ln()];
        let ones = (0..4000).filter(|_| sampler.pick(&logits) == 1).count();
        assert!((2800..3200).contains(&ones), "{ones} of 4000, expected 3000");
    }

    #[test]
    fn the_nucleus_leaves_the_tail_out() {
        let mut sampler = Sampler::new(1.0, 0.5, 3);
        assert!((0..200).all(|_| sampler.pick(&[1.0, 0.0, 0.5, -1.0]) != 3));
    }

    proptest! {
        #[test]
        fn every_pick_is_a_token(
            logits in prop::collection::vec(prop_oneof![any::<f32>(), -5f32..5.0], 1..40),
            temperature in 0f32..2.0, top_p in 0.01f32..1.0, seed: u64,
        ) {
            let mut sampler = Sampler::new(temperature, top_p, seed);
            prop_assert!((sampler.pick(&logits) as usize) < logits.len());
        }
    }
}
