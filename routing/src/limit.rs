//! How many requests at once a pool of pods is given that does not say what it can compute.
//!
//! By Little's law a pool that answers `x` a second after `t` seconds each has `x × t` under way. Once
//! all of its slots compute, more under way only wait: the first token comes later by just as much. So
//! the time without waiting, over the time it takes, is the share of what is under way that computes.
//! Each round the limit goes to half as much again as that, and a little more (its square root), by
//! which it finds out whether there is more room.
//!
//! The time without waiting is the hard part. Seen only under load it would be learnt too long, then
//! the limit be too high, and so on; the least time ever seen is wrong where times vary. So it is
//! measured by *probes*: now and then the limit is set under what computes, and what began since is
//! taken for the truth. A probe that shows much less than was held for true is repeated lower. Probes
//! are frequent while the limit is young, later one round in a hundred; they are all that is lost of
//! what the pool could do.
//!
//! Absent on purpose: a clock in its rounds, which are answers counted; a share for each pod, which the
//! choice between pods makes; what prompts cost: a mix of lengths that changes is learnt as a pool that
//! changes.

use std::time::{Duration, Instant};

/// Between what a limit moves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LimitSettings {
    /// Before anything is known.
    pub initial: usize,
    /// Never less.
    pub min: usize,
    /// Never more.
    pub max: usize,
}

/// Requests may take so many times as long as without waiting before the limit sinks: service times
/// vary, and a pool must have the next request when it is done with one.
const TOLERATED: f64 = 1.5;
/// Answers in a round, at least; fewer have no mean.
const ROUND: usize = 30;
/// Rounds between probes, in the end.
const ROUNDS_MAX: u32 = 100;
/// A probe's limit over what is held to compute; a probe that shows less time by as much is repeated.
const LOWERED: f64 = 0.75;
/// What a refusal leaves of the limit.
const REFUSED: f64 = 0.8;

#[derive(Debug, Clone, Copy)]
enum Phase {
    /// The limit is as it should be, for so many rounds.
    Steady { rounds: u32 },
    /// The limit is lowered; what was begun before that says nothing, and so many are left of it.
    Draining { to: f64, left: usize },
    /// The limit is lowered, and what ends was begun since.
    Probing { at: f64 },
}

/// Adds up one round.
#[derive(Debug, Clone, Copy, Default)]
struct Round {
    seconds: f64,
    count: usize,
    /// Of what was under way, the sum and the most.
    in_flight: usize,
    peak: usize,
}

/// The limit of one pool.
#[derive(Debug, Clone)]
pub struct Limit {
    settings: LimitSettings,
    /// Where it is outside of probes.
    limit: f64,
    phase: Phase,
    round: Round,
    /// Seconds to the first token without waiting; `None` before the first probe.
    unloaded: Option<f64>,
    /// Seconds to the first token in the last round.
    recent: f64,
    /// Rounds until the next probe.
    interval: u32,
    /// Whether the pool's end was met: until then the limit grows by its half.
    met: bool,
    refused: Option<Instant>,
}

impl Limit {
    /// Where the settings say.
    #[must_use]
    pub fn new(settings: LimitSettings) -> Self {
        let mut limit = Self {
            settings,
            limit: 0.0,
            phase: Phase::Steady { rounds: 0 },
            round: Round::default(),
            unloaded: None,
            recent: 0.0,
            interval: 1,
            met: false,
            refused: None,
        };
        limit.to(settings.initial as f64);
        limit
    }

    /// Requests that may be under way at once.
    #[must_use]
    pub fn limit(&self) -> usize {
        match self.phase {
            Phase::Steady { .. } => whole(self.limit),
            Phase::Draining { to: at, .. } | Phase::Probing { at } => whole(at.min(self.limit)),
        }
    }

    /// A request's first token came after `took`; `in_flight` were under
    /// way, it among them.
    pub fn sample(&mut self, took: Duration, in_flight: usize) {
        if let Phase::Draining { to, left } = self.phase {
            self.phase = match left {
                0 | 1 => Phase::Probing { at: to },
                _ => Phase::Draining { to, left: left - 1 },
            };
            return;
        }
        self.round.seconds += took.as_secs_f64();
        self.round.count += 1;
        self.round.in_flight += in_flight;
        self.round.peak = self.round.peak.max(in_flight);
        if self.round.count < self.limit().max(ROUND) {
            return;
        }
        let round = std::mem::take(&mut self.round);
        let seconds = (round.seconds / round.count as f64).max(1e-6);
        match self.phase {
            Phase::Steady { rounds } => self.steady(rounds + 1, seconds, round),
            Phase::Draining { .. } | Phase::Probing { .. } => self.probed(seconds),
        }
        if let Phase::Draining { left, .. } = &mut self.phase {
            *left = in_flight;
        }
    }

    /// A pod refused a request as busy. However many do, the limit sinks once a round trip: they are of
    /// one moment.
    pub fn refused(&mut self, now: Instant) {
        let trip = Duration::try_from_secs_f64(self.recent).unwrap_or(Duration::MAX);
        let again = self.refused.is_some_and(|last| now.saturating_duration_since(last) <= trip);
        if !again {
            self.refused = Some(now);
            self.to(self.limit * REFUSED);
        }
    }

    /// A round at the limit ended.
    fn steady(&mut self, rounds: u32, seconds: f64, round: Round) {
        self.recent = seconds;
        let unloaded = *self.unloaded.get_or_insert(seconds);
        let computing = (unloaded / seconds * TOLERATED).min(1.0);
        let (waiting, used) = (computing < 1.0, round.peak * 4 >= whole(self.limit) * 3);
        self.met |= waiting;
        let more = self.limit.sqrt().max(if self.met { 0.0 } else { self.limit / 2.0 });
        // Where few are under way and nothing waits, nothing is learnt of how many could be.
        let under_way = match (used, waiting) {
            (true, _) => Some(self.limit),
            (false, true) => Some(round.peak as f64),
            (false, false) => None,
        };
        if let Some(under_way) = under_way {
            self.to(f64::midpoint(self.limit, computing * under_way + more));
        }
        self.phase = Phase::Steady { rounds };
        if rounds >= self.interval {
            self.interval = (self.interval * 2).min(ROUNDS_MAX);
            // Under what computes, as far as is known: at the limit of a time with few requests nothing
            // is found out, and far under it they would wait for nothing.
            let usual = (round.in_flight as f64 / round.count as f64).min(self.limit);
            let computing = usual * (unloaded / seconds).min(1.0);
            self.probe((computing * LOWERED).max(self.limit / 4.0));
        }
    }

    /// A probe ended. Where it shows much less than was held for true, that was seen with requests
    /// waiting, and this may have been too.
    fn probed(&mut self, seconds: f64) {
        let before = self.unloaded.unwrap_or(seconds);
        match self.phase {
            Phase::Probing { at } if seconds < before * LOWERED && at > self.least() => {
                self.unloaded = Some(seconds);
                self.probe(at / 2.0);
            }
            _ => {
                self.unloaded = Some(f64::midpoint(before, seconds));
                self.phase = Phase::Steady { rounds: 0 };
            }
        }
    }

    fn probe(&mut self, at: f64) {
        self.phase = Phase::Draining { to: at.max(self.least()), left: 0 };
    }

    fn least(&self) -> f64 {
        self.settings.min.max(1) as f64
    }

    fn to(&mut self, limit: f64) {
        self.limit = limit.min(self.settings.max as f64).max(self.least());
    }
}

/// Whole requests of a limit.
fn whole(limit: f64) -> usize {
    #[expect(clippy::cast_possible_truncation, reason = "half a request is none")]
    let whole = limit as usize;
    whole
}

#[cfg(test)]
mod tests;
