//! Questions whose right answers are known, put to the semantic cache one after the other: whom it
//! answers, and whom wrongly; beside plain similarity and exact repetition on the very same stream.
//!
//! Embedding is left to whoever replays, so that others can be given the same vectors.

mod done;
mod tier;

use std::{
    collections::{BTreeSet, HashMap},
    time::Duration,
};

use fastrand::Rng;
use nearhop_edge_cache::semantic::{Age, Arena, How, Judged, Stage, Vector, Verdict};
use serde::{Deserialize, Serialize};

pub use self::{
    done::Done,
    tier::{Chat, DIMENSIONS, Posed, SECOND, Tier},
};

/// What plain similarity takes for the same.
const COSINE: f32 = 0.95;
/// Of what could be served, generated all the same: the default of `edge.l3.explore`.
const EXPLORE: f64 = 0.05;

/// A question of a stream.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Draw {
    /// What is asked.
    pub text: String,
    /// The one answer that is right.
    pub answer: String,
}

/// What all policies did on one stream.
#[derive(Debug, Default, Serialize)]
pub struct Figures {
    /// The same text again.
    pub exact: Done,
    /// The nearest at a cosine of 0.95 or more.
    pub cosine: Done,
    /// Our rules alone, as if the route had been proven from the start.
    pub rules: Done,
    /// What users get: after the proof, and less what is generated all the same.
    pub users: Done,
    /// Of `rules`, what exact repetition would not have served.
    pub beyond_exact: Done,
    /// Questions until a route was proven.
    pub proven_after: Option<usize>,
    /// Questions that are never looked up.
    pub unsuited: usize,
    /// What each look-up took, by the caller's clock.
    #[serde(skip)]
    pub took_ns: Vec<u64>,
}

/// What is embedded of a stream.
#[must_use]
pub fn texts(draws: &[Draw]) -> BTreeSet<String> {
    let tier = Tier::default();
    draws.iter().filter_map(|draw| Some(tier.pose(tier.chat(&draw.text))?.site.text)).collect()
}

/// Whom each policy answers, a question a second. `vectors` are those of [`texts`]; `clock_ns` is
/// read around each look-up.
///
/// # Panics
/// A text has no vector.
#[must_use]
pub fn replay(
    draws: &[Draw],
    vectors: &HashMap<String, Vec<f32>>,
    clock_ns: impl Fn() -> u64,
) -> Figures {
    let mut figures = Figures::default();
    let (tier, mut dice) = (Tier::default(), Rng::with_seed(7));
    let mut repeated: HashMap<&str, &str> = HashMap::new();
    let mut plain = Plain::default();
    for (at, Draw { text, answer }) in draws.iter().enumerate() {
        let now = SECOND * u32::try_from(at).expect("a stream is short");
        let seen = repeated.get(text.as_str()).copied();
        match seen {
            Some(earlier) => figures.exact.count(earlier == answer),
            None => drop(repeated.insert(text, answer)),
        }
        let chat = tier.chat(text);
        let start = clock_ns();
        let Some(posed) = tier.pose(chat) else {
            figures.unsuited += 1;
            continue;
        };
        let vector = Vector::new(&vectors[&posed.site.text], DIMENSIONS).expect("a direction");
        let (candidate, serves) = candidate(&tier, &posed, &vector, now);
        let earlier = candidate.and_then(|(id, _)| tier.cache.open(id, now));
        figures.took_ns.push(clock_ns() - start);
        if let Some(earlier) = plain.ask(&vector, answer) {
            figures.cosine.count(earlier == answer);
        }

        let right = earlier.is_some_and(|earlier| earlier.entry.text() == answer);
        let proven = serves.is_some_and(|how| tier.cache.stage(&posed.site, how) == Stage::Proven);
        if serves.is_some() {
            figures.rules.count(right);
            if seen.is_none() {
                figures.beyond_exact.count(right);
            }
        }
        if proven && dice.f64() >= EXPLORE {
            figures.users.count(right);
            continue;
        }
        // The model answers, and that is learned.
        if let Some(candidate) = candidate {
            let judged = Judged { right, equal: right, of: serves };
            let route = (&posed.site, ("t", "m@1"));
            if tier.cache.judged(route, candidate, judged, now) == Some(Stage::Proven) {
                figures.proven_after.get_or_insert(at + 1);
            }
        }
        let like = candidate.filter(|_| right).map(|(id, _)| id);
        tier.keep((&posed, &vector), answer, like, now);
    }
    figures
}

/// The earlier answer that would serve, or would but for evidence; and by what it would.
fn candidate(
    tier: &Tier,
    posed: &Posed,
    vector: &Vector,
    now: Duration,
) -> (Option<(u64, f32)>, Option<How>) {
    if let Some(found) = tier.cache.exact(&posed.site, Age::Fresh, now) {
        return (Some((found.id, 1.0)), Some(How::Exact));
    }
    let policy = tier.cache.settings().policy;
    let near = tier.cache.near(&posed.site, vector, (policy, Age::Fresh), now);
    let serves = matches!(near.verdict, Verdict::Serve(..));
    (near.candidate(), serves.then_some(How::Similar))
}

/// Plain similarity: the nearest, where it is near enough, and nothing else is asked of it.
struct Plain<'a> {
    arena: Arena,
    answers: Vec<&'a str>,
}

impl Default for Plain<'_> {
    fn default() -> Self {
        Self { arena: Arena::new(DIMENSIONS), answers: Vec::new() }
    }
}

impl<'a> Plain<'a> {
    /// The earlier answer that it gives; else it keeps this one.
    fn ask(&mut self, vector: &Vector, answer: &'a str) -> Option<&'a str> {
        let nearest = self.arena.nearest(vector, 1).into_iter().next();
        if let Some((at, _)) = nearest.filter(|(_, similarity)| *similarity >= COSINE) {
            return usize::try_from(at).ok().map(|at| self.answers[at]);
        }
        self.arena.insert(self.answers.len() as u64, vector).expect("all have these dimensions");
        self.answers.push(answer);
        None
    }
}
