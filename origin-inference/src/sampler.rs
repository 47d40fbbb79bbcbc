//! Chooses the next token. Pure: the same logits, settings, seed and place give the same choice,
//! so that a generation that goes on elsewhere draws what it would have drawn here.

use std::{
    cmp::Ordering,
    collections::{HashMap, HashSet},
};

use nearhop_wire::Penalties;

/// How one choice's tokens are drawn.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Drawing {
    pub(crate) temperature: f32,
    pub(crate) top_p: f32,
    pub(crate) seed: u64,
    /// The choice's index: choices of one request differ.
    pub(crate) index: usize,
    pub(crate) penalties: Penalties,
}

/// One choice's sampler.
#[derive(Debug)]
pub(crate) struct Sampler {
    drawing: Drawing,
    /// Tokens of the answer, and how often.
    answered: HashMap<u32, u32>,
    /// Tokens of the prompt, where a repetition penalty asks.
    prompt: HashSet<u32>,
    /// How many tokens the answer has.
    place: u64,
    /// Kept between calls: logits after penalties, and a vocabulary's worth of candidates.
    penalised: Vec<f32>,
    candidates: Vec<(u32, f32)>,
}

/// The logits are no numbers: the network computed nothing that could be chosen from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NotFinite;

impl Sampler {
    pub(crate) fn new(drawing: Drawing, prompt: &[u32]) -> Self {
        let penalised = drawing.penalties.repetition != 1.0;
        let prompt = if penalised { prompt.iter().copied().collect() } else { HashSet::new() };
        Self {
            drawing,
            answered: HashMap::new(),
            prompt,
            place: 0,
            penalised: Vec::new(),
            candidates: Vec::new(),
        }
    }

    /// Notes that `token` is the answer's next, whoever chose it.
    pub(crate) fn accept(&mut self, token: u32) {
        self.place += 1;
        if self.drawing.penalties != Penalties::default() {
            *self.answered.entry(token).or_default() += 1;
        }
    }

    /// The next token for `logits` (one per token of the vocabulary, not empty).
    pub(crate) fn pick(&mut self, logits: &[f32]) -> Result<u32, NotFinite> {
        // −∞ is a token that must not come; anything else that is no number is a broken step.
        if logits.iter().any(|logit| logit.is_nan() || *logit == f32::INFINITY) {
            return Err(NotFinite);
        }
        let mut penalised = std::mem::take(&mut self.penalised);
        let logits = match self.drawing.penalties == Penalties::default() {
            true => logits,
            false => {
                penalised.clear();
                penalised.extend_from_slice(logits);
                self.penalise(&mut penalised);
                &penalised
            }
        };
        let token = self.draw(logits);
        self.penalised = penalised;
        Ok(token)
    }

    fn penalise(&self, logits: &mut [f32]) {
        let Penalties { frequency, presence, repetition } = self.drawing.penalties;
        for token in self
            .prompt
            .iter()
            .chain(self.answered.keys().filter(|token| !self.prompt.contains(token)))
        {
            if let Some(logit) = logits.get_mut(*token as usize) {
                *logit = if *logit > 0.0 { *logit / repetition } else { *logit * repetition };
            }
        }
        for (token, count) in &self.answered {
            if let Some(logit) = logits.get_mut(*token as usize) {
                #[expect(clippy::cast_precision_loss, reason = "a context's tokens")]
                let times = *count as f32;
                *logit -= frequency * times + presence;
            }
        }
    }

    fn draw(&mut self, logits: &[f32]) -> u32 {
        let Drawing { temperature, top_p, .. } = self.drawing;
        let likeliest = argmax(logits);
        if temperature <= 0.0 {
            return likeliest;
        }
        let peak = logits[likeliest as usize];
        self.candidates.clear();
        let weighted = logits
            .iter()
            .zip(0u32..)
            .map(|(logit, token)| (token, ((logit - peak) / temperature).exp()));
        // Below 1e-8 of the likeliest nothing is ever drawn; leaving it out keeps sorting cheap.
        self.candidates.extend(weighted.filter(|(_, weight)| *weight > 1e-8));
        let total: f32 = self.candidates.iter().map(|(_, weight)| weight).sum();
        if !total.is_finite() || total <= 0.0 {
            return likeliest;
        }
        let mut mass = total;
        if top_p < 1.0 {
            mass = self.keep_nucleus(total);
        }
        let mut left = self.random() * mass;
        for (token, weight) in &self.candidates {
            left -= weight;
            if left <= 0.0 {
                return *token;
            }
        }
        likeliest
    }

    /// A number from 0 to 1 that belongs to this seed, choice and place.
    fn random(&self) -> f32 {
        let Drawing { seed, index, .. } = self.drawing;
        // Odd constants of SplitMix64 (Steele et al. 2014) keep the three apart.
        let mixed = seed
            .wrapping_add((index as u64).wrapping_mul(0xbf58_476d_1ce4_e5b9))
            .wrapping_add(self.place.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        fastrand::Rng::with_seed(mixed).f32()
    }

    /// Keeps the smallest set of likeliest tokens whose share reaches `top_p`; returns its weight.
    /// Holtzman et al. 2020, "The Curious Case of Neural Text Degeneration", section 3.1.
    fn keep_nucleus(&mut self, total: f32) -> f32 {
        self.candidates.sort_unstable_by(descending);
        let mut mass = 0.0;
        let within = self.candidates.iter().position(|(_, weight)| {
            mass += weight;
            mass >= self.drawing.top_p * total
        });
        self.candidates.truncate(within.map_or(usize::MAX, |last| last + 1));
        mass
    }
}

fn descending(a: &(u32, f32), b: &(u32, f32)) -> Ordering {
    match b.1.total_cmp(&a.1) {
        Ordering::Equal => a.0.cmp(&b.0),
        order => order,
    }
}

/// The likeliest token; the first of equals.
pub(crate) fn argmax(logits: &[f32]) -> u32 {
    let mut best = (0u32, f32::NEG_INFINITY);
    for (logit, token) in logits.iter().zip(0u32..) {
        if *logit > best.1 {
            best = (token, *logit);
        }
    }
    best.0
}

/// The natural logarithms of probability, as the network gave them: of `token`, and of the `top`
/// likeliest.
pub(crate) fn logprobs(logits: &[f32], token: u32, top: usize) -> (f32, Vec<(u32, f32)>) {
    let peak = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let total: f64 = logits.iter().map(|logit| f64::from(logit - peak).exp()).sum();
    #[expect(clippy::cast_possible_truncation, reason = "a logarithm of at most a vocabulary")]
    let log_total = total.ln() as f32;
    let of = |token: u32| logits[token as usize] - peak - log_total;
    let mut best: Vec<(u32, f32)> = Vec::new();
    if top > 0 {
        best.extend(logits.iter().zip(0u32..).map(|(logit, token)| (token, *logit)));
        let top = top.min(best.len());
        best.select_nth_unstable_by(top - 1, descending);
        best.truncate(top);
        best.sort_unstable_by(descending);
        best.iter_mut().for_each(|(token, logit)| *logit = of(*token));
    }
    (of(token), best)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sampler(temperature: f32, top_p: f32, seed: u64) -> Sampler {
        let penalties = Penalties::default();
        Sampler::new(Drawing { temperature, top_p, seed, index: 0, penalties }, &[])
    }

    /// Draws `count` tokens, each the answer's next.
    fn draw(sampler: &mut Sampler, logits: &[f32], count: usize) -> Vec<u32> {
        let mut next = || {
            let token = sampler.pick(logits).unwrap();
            sampler.accept(token);
            token
        };
        (0..count).map(|_| next()).collect()
    }

    #[test]
    fn zero_temperature_takes_the_likeliest_and_the_first_of_equals() {
        assert_eq!(sampler(0.0, 1.0, 1).pick(&[0.0, 3.0, 3.0, 1.0]), Ok(1));
    }

    #[test]
    fn logits_that_are_no_numbers_are_no_choice() {
        assert_eq!(sampler(0.0, 1.0, 1).pick(&[f32::NAN, 1.0]), Err(NotFinite));
        assert_eq!(sampler(0.7, 1.0, 1).pick(&[f32::INFINITY, 1.0]), Err(NotFinite));
        assert_eq!(sampler(0.7, 1.0, 1).pick(&[f32::NEG_INFINITY, 1.0]), Ok(1));
    }

    #[test]
    fn the_same_seed_draws_the_same_tokens_also_from_the_middle_on() {
        let logits: Vec<f32> = (0u8..50).map(|n| f32::from(n % 7)).collect();
        let whole = draw(&mut sampler(1.0, 0.9, 7), &logits, 20);
        assert_eq!(whole, draw(&mut sampler(1.0, 0.9, 7), &logits, 20));
        assert_ne!(whole, draw(&mut sampler(1.0, 0.9, 8), &logits, 20));
        let mut resumed = sampler(1.0, 0.9, 7);
        whole[..12].iter().for_each(|token| resumed.accept(*token));
        assert_eq!(draw(&mut resumed, &logits, 8), whole[12..]);
    }

    #[test]
    fn choices_of_one_request_differ() {
        let logits: Vec<f32> = (0u8..50).map(|n| f32::from(n % 7)).collect();
        let mut second = sampler(1.0, 0.9, 7);
        second.drawing.index = 1;
        assert_ne!(draw(&mut second, &logits, 20), draw(&mut sampler(1.0, 0.9, 7), &logits, 20));
    }

    #[test]
    fn draws_follow_the_probabilities() {
        let ones = draw(&mut sampler(1.0, 1.0, 3), &[0.0, 3f32.ln()], 4000);
        let ones = ones.iter().filter(|token| **token == 1).count();
        assert!((2800..3200).contains(&ones), "{ones} of 4000, expected 3000");
    }

    #[test]
    fn the_nucleus_leaves_the_tail_out() {
        let drawn = draw(&mut sampler(1.0, 0.5, 3), &[1.0, 0.0, 0.5, -1.0], 200);
        assert!(!drawn.contains(&3));
    }

    #[test]
    fn penalties_make_a_token_less_likely() {
        let with = |penalties, prompt: &[u32]| {
            let drawing = Drawing { temperature: 0.0, top_p: 1.0, seed: 1, index: 0, penalties };
            let mut sampler = Sampler::new(drawing, prompt);
            draw(&mut sampler, &[2.0, 1.5, -1.0], 4)
        };
        let none = Penalties::default();
        assert_eq!(with(none, &[]), [0, 0, 0, 0]);
        assert_eq!(with(Penalties { presence: 0.6, ..none }, &[]), [0, 1, 0, 0]);
        assert_eq!(with(Penalties { frequency: 0.3, ..none }, &[]), [0, 0, 1, 0]);
        assert_eq!(with(Penalties { repetition: 1.5, ..none }, &[0]), [1, 0, 0, 0]);
    }

    #[test]
    fn logprobs_are_logarithms_of_shares() {
        let (one, top) = logprobs(&[0.0, 3f32.ln(), f32::NEG_INFINITY], 0, 2);
        assert!((one - 0.25f32.ln()).abs() < 1e-6, "{one}");
        assert_eq!((top[0].0, top[1].0), (1, 0));
        assert!((top[0].1 - 0.75f32.ln()).abs() < 1e-6, "{top:?}");
        assert!(logprobs(&[0.0, 1.0], 1, 0).1.is_empty());
        assert_eq!(logprobs(&[0.0, 1.0], 1, 20).1.len(), 2);
    }

    proptest! {
        #[test]
        fn every_pick_is_a_token(
            logits in prop::collection::vec(prop_oneof![-1e30f32..1e30, -5f32..5.0], 1..40),
            temperature in 0f32..2.0, top_p in 0.01f32..1.0, seed: u64,
        ) {
            let token = sampler(temperature, top_p, seed).pick(&logits).unwrap();
            prop_assert!((token as usize) < logits.len());
        }
    }
}
