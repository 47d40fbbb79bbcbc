//! Who asks what. Pure: from a seed and a moment to requests with the moments they are due.
//!
//! A user opens a file at some place and types the line that is missing there. Every third character
//! the editor asks, and gives up the question before, as editors do; the file's first line is one of
//! its own, so that nothing but this user's earlier questions, and [`LoadProfile::repeats`] of
//! others', can answer from a cache. What is not typed stands alone: a place to fill in, a question
//! about a function.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use bytes::Bytes;
use fastrand::Rng;
use nearhop_conf::{LoadProfile, RequestKind, Target};
use serde_json::{Value, json};

use crate::{
    corpus::{self, Place},
    schedule::Start,
};

/// A request is sent after so many characters typed.
const STEP: usize = 3;
/// Typing three characters takes about so long.
const KEYSTROKES: Duration = Duration::from_millis(600);
/// Nobody types more of a line without taking a suggestion.
const TYPED_MAX: usize = 8;
/// Files that somebody else may have open too.
const OPEN_FILES: usize = 256;
/// About so many bytes make a token of code.
const TOKEN_BYTES: usize = 3;
const PROMPT_BYTES_MAX: usize = 256 << 10;
const TOKENS_MAX: u64 = 4096;

/// A request that is due.
#[derive(Debug, Clone)]
pub(crate) struct Ask {
    pub(crate) at: Duration,
    pub(crate) kind: RequestKind,
    pub(crate) body: Bytes,
    pub(crate) streamed: bool,
    /// The index of its key, of its region.
    pub(crate) key: usize,
    pub(crate) region: usize,
    /// Which line is being typed, and how many of its questions came before.
    pub(crate) typed: Option<(u64, u32)>,
}

impl Ask {
    pub(crate) const fn path(&self) -> &'static str {
        match self.kind {
            RequestKind::Inline | RequestKind::Fim => "/v1/completions",
            RequestKind::Chat | RequestKind::Agent => "/v1/chat/completions",
        }
    }
}

/// What a start may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Begun {
    Typed,
    Alone(RequestKind),
}

/// All users of one worker.
#[derive(Debug)]
pub(crate) struct Crowd {
    places: Arc<[Place]>,
    model: String,
    profile: LoadProfile,
    /// Each start with its weight, and the weights' sum.
    begun: Vec<(Begun, f64)>,
    keys: Vec<f64>,
    regions: Vec<f64>,
    /// Files that were opened lately: whose key, which file, which place.
    open: VecDeque<(usize, u64, usize)>,
    random: Rng,
    /// Of this run: files of an earlier one, with the same seed, are others.
    nonce: u64,
}

impl Crowd {
    pub(crate) fn new(profile: &LoadProfile, target: &Target, seed: u64, nonce: u64) -> Self {
        let places: Arc<[Place]> = corpus::places().into();
        let mut profile = profile.clone();
        if matches!(profile.arrivals, nearhop_conf::Arrivals::Trace(_)) {
            // A trace has every request's moment already.
            profile.typing = 0.0;
        }
        let begun = begun(&profile, &places);
        let weights = |all: &mut dyn Iterator<Item = f64>| all.collect();
        Self {
            places,
            model: target.model.clone(),
            begun,
            keys: weights(&mut target.keys.iter().map(|key| key.weight)),
            regions: weights(&mut target.regions.iter().map(|region| region.weight)),
            profile,
            open: VecDeque::new(),
            random: Rng::with_seed(seed),
            nonce,
        }
    }

    /// Starts a second that make `rate` requests a second.
    pub(crate) fn starts(&self, rate: f64) -> f64 {
        rate * self.begun.iter().map(|(_, weight)| weight).sum::<f64>()
    }

    /// What a start leads to, in order of time.
    pub(crate) fn ask(&mut self, start: Start) -> Vec<Ask> {
        let weights: Vec<f64> = self.begun.iter().map(|(_, weight)| *weight).collect();
        let (begun, _) = self.begun[pick(&mut self.random, &weights)];
        let region = pick(&mut self.random, &self.regions);
        let (key, file, place) = self.open_file();
        let place = self.places[place].clone();
        let of = |at, kind, body: Value, streamed, typed| {
            let body = Bytes::from(body.to_string());
            Ask { at, kind, body, streamed, key, region, typed }
        };
        match begun {
            Begun::Typed => {
                let cuts = cuts(&place.line);
                let (mut at, mut asks) = (start.at, Vec::with_capacity(cuts.len()));
                let line = self.random.u64(..) ^ self.nonce;
                // As long as an editor is open.
                let user = self.random.u64(..self.profile.users);
                for (number, cut) in (0..).zip(cuts) {
                    let prompt = format!("# {file:016x}\n{}{}", place.before, &place.line[..cut]);
                    let streamed = self.random.f64() < self.profile.streamed;
                    let mut body = self.body(RequestKind::Inline, streamed, None);
                    body["prompt"] = prompt.into();
                    body["nearhop"] = json!({
                        "session": format!("user-{user}"), "document": format!("{file:016x}.py"),
                    });
                    asks.push(of(at, RequestKind::Inline, body, streamed, Some((line, number))));
                    at += KEYSTROKES.mul_f64(0.5 + self.random.f64());
                }
                asks
            }
            Begun::Alone(kind) => {
                let chat = matches!(kind, RequestKind::Chat | RequestKind::Agent);
                let streamed = chat || self.random.f64() < self.profile.streamed;
                let mut body = self.body(kind, streamed, start.tokens);
                let mut before = format!("# {file:016x}\n{}", place.before);
                if let Some((read, _)) = start.tokens {
                    before = self.long(&before, read as usize * TOKEN_BYTES);
                }
                if chat {
                    let question = format!("What does this do, and what is next?\n\n{before}");
                    body["messages"] = json!([
                        {"role": "system", "content": "You help with code."},
                        {"role": "user", "content": question},
                    ]);
                } else {
                    body["prompt"] = before.into();
                }
                if kind == RequestKind::Fim {
                    body["suffix"] = place.after.into();
                }
                vec![of(start.at, kind, body, streamed, None)]
            }
        }
    }

    fn body(&self, kind: RequestKind, streamed: bool, tokens: Option<(u32, u32)>) -> Value {
        let most = match tokens {
            Some((_, written)) => u64::from(written).clamp(1, TOKENS_MAX),
            None => self.profile.max_tokens[kind as usize],
        };
        let mut body = json!({"model": self.model, "max_tokens": most, "stream": streamed});
        if streamed {
            body["stream_options"] = json!({"include_usage": true});
        }
        body
    }

    /// One that was opened lately, or a new one, at some place.
    fn open_file(&mut self) -> (usize, u64, usize) {
        if !self.open.is_empty() && self.random.f64() < self.profile.repeats {
            return self.open[self.random.usize(..self.open.len())];
        }
        let key = if self.keys.is_empty() { 0 } else { pick(&mut self.random, &self.keys) };
        let file = self.random.u64(..) ^ self.nonce;
        let opened = (key, file, self.random.usize(..self.places.len()));
        if self.open.len() == OPEN_FILES {
            self.open.pop_front();
        }
        self.open.push_back(opened);
        opened
    }

    /// A text of about that many bytes that ends as `end` does, of other files before it.
    fn long(&mut self, end: &str, bytes: usize) -> String {
        let bytes = bytes.min(PROMPT_BYTES_MAX);
        let mut text = String::with_capacity(bytes + end.len());
        while text.len() + end.len() < bytes {
            let place = &self.places[self.random.usize(..self.places.len())];
            text.push_str(&place.before);
            text.push_str(&place.line);
            text.push_str("\n\n");
        }
        text.push_str(end);
        let from = text.len().saturating_sub(bytes.max(STEP));
        let from = (from..text.len()).find(|at| text.is_char_boundary(*at)).unwrap_or(0);
        text.split_off(from)
    }
}

/// What may begin, by how often. A typed line is one start, and several requests.
fn begun(profile: &LoadProfile, places: &[Place]) -> Vec<(Begun, f64)> {
    let real = |number: usize| f64::from(u32::try_from(number).unwrap_or(u32::MAX));
    let asked = real(places.iter().map(|place| cuts(&place.line).len()).sum());
    let a_line = asked / real(places.len());
    let [inline, fim, chat, agent] = profile.mix;
    vec![
        (Begun::Typed, inline * profile.typing / a_line),
        (Begun::Alone(RequestKind::Inline), inline * (1.0 - profile.typing)),
        (Begun::Alone(RequestKind::Fim), fim),
        (Begun::Alone(RequestKind::Chat), chat),
        (Begun::Alone(RequestKind::Agent), agent),
    ]
}

/// How much of a line has been typed at each question, bytes.
fn cuts(line: &str) -> Vec<usize> {
    line.char_indices().map(|(at, _)| at).step_by(STEP).take(TYPED_MAX).collect()
}

/// An index, by weight.
fn pick(random: &mut Rng, weights: &[f64]) -> usize {
    let mut at = random.f64() * weights.iter().sum::<f64>();
    for (index, weight) in weights.iter().enumerate() {
        at -= weight;
        if at < 0.0 {
            return index;
        }
    }
    weights.iter().rposition(|weight| *weight > 0.0).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use nearhop_conf::Scenario;

    use super::*;

    fn target() -> Target {
        let text = "{model: m, keys: [{key: a}, {key: b, weight: 3}], regions: [{name: x, url: 'http://h'}, {name: z, url: 'http://i', weight: 2}]}";
        Target::read(text, "test", &|_| None).unwrap()
    }

    fn crowd(change: impl FnOnce(&mut LoadProfile)) -> Crowd {
        let mut profile = Scenario::baseline().profile;
        change(&mut profile);
        Crowd::new(&profile, &target(), 3, 0)
    }

    fn asked(crowd: &mut Crowd, starts: usize) -> Vec<Ask> {
        let start = Start { at: Duration::from_secs(1), tokens: None };
        (0..starts).flat_map(|_| crowd.ask(start)).collect()
    }

    fn body(ask: &Ask) -> Value {
        serde_json::from_slice(&ask.body).unwrap()
    }

    #[test]
    fn requests_have_the_mix_the_keys_and_the_regions_that_were_asked_for() {
        let mut crowd = crowd(|_| {});
        let starts = 20_000;
        let all = asked(&mut crowd, starts);
        let share = |holds: &dyn Fn(&Ask) -> bool| {
            all.iter().filter(|ask| holds(ask)).count() as f64 / all.len() as f64
        };
        for (kind, expected) in RequestKind::ALL.into_iter().zip([0.70, 0.15, 0.10, 0.05]) {
            let seen = share(&|ask| ask.kind == kind);
            assert!((seen - expected).abs() < 0.02, "{kind:?}: {seen}");
        }
        assert!((share(&|ask| ask.key == 1) - 0.75).abs() < 0.03);
        assert!((share(&|ask| ask.region == 1) - 0.67).abs() < 0.03);
        // As many as the rate promises.
        let promised = crowd.starts(1.0) * all.len() as f64;
        assert!((promised / starts as f64 - 1.0).abs() < 0.02, "{promised}");
    }

    #[test]
    fn a_line_is_typed_in_steps_and_each_question_goes_on_from_the_one_before() {
        let mut crowd = crowd(|profile| profile.mix = [1.0, 0.0, 0.0, 0.0]);
        let line = crowd.ask(Start { at: Duration::from_secs(9), tokens: None });
        assert!((2..=TYPED_MAX).contains(&line.len()));
        for (number, pair) in line.windows(2).enumerate() {
            let prompts =
                [&pair[0], &pair[1]].map(|ask| body(ask)["prompt"].as_str().unwrap().to_owned());
            assert!(prompts[1].starts_with(&prompts[0]) && prompts[1].len() > prompts[0].len());
            assert_eq!(body(&pair[0])["nearhop"], body(&pair[1])["nearhop"]);
            let gap = pair[1].at - pair[0].at;
            assert!((Duration::from_millis(300)..Duration::from_millis(900)).contains(&gap));
            assert_eq!(pair[0].typed.unwrap().1 as usize, number);
        }
    }

    #[test]
    fn files_are_new_but_for_those_that_are_open_elsewhere() {
        let distinct = |repeats: f64| {
            let mut crowd = crowd(|profile| {
                profile.mix = [0.0, 1.0, 0.0, 0.0];
                profile.repeats = repeats;
            });
            let all = asked(&mut crowd, 1000);
            let prompts: std::collections::HashSet<String> =
                all.iter().map(|ask| body(ask)["prompt"].to_string()).collect();
            prompts.len()
        };
        assert_eq!(distinct(0.0), 1000);
        assert!((400..600).contains(&distinct(0.5)), "{}", distinct(0.5));
    }

    #[test]
    fn a_traces_requests_are_as_long_as_it_says() {
        for kind in [1, 2] {
            let mut crowd = crowd(|profile| {
                profile.mix = [0.0; 4];
                profile.mix[kind] = 1.0;
            });
            let start = Start { at: Duration::ZERO, tokens: Some((2000, 77)) };
            let [ask] = crowd.ask(start).try_into().unwrap();
            assert_eq!(body(&ask)["max_tokens"], 77);
            assert!((6000..6800).contains(&ask.body.len().min(6700)), "{}", ask.body.len());
        }
    }

    #[test]
    fn the_same_seed_asks_the_same_of_other_files_in_another_run() {
        let all = |nonce| {
            let mut crowd = Crowd { nonce, ..crowd(|_| {}) };
            asked(&mut crowd, 50)
        };
        let bodies = |nonce| all(nonce).iter().map(body).collect::<Vec<_>>();
        let moments = |nonce| all(nonce).iter().map(|ask| (ask.at, ask.kind)).collect::<Vec<_>>();
        assert_eq!(bodies(0), bodies(0));
        assert_eq!(moments(0), moments(1));
        assert!(bodies(0).iter().zip(bodies(1)).all(|(one, other)| *one != other));
    }
}
