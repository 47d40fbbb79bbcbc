//! When an upstream is out, and how it comes back. One state machine for both: the circuit breaker of
//! a provider, and the ejection of a pod by its checks.
//!
//! ```text
//!            dead, failing, slow, silent, checks down, latency
//!          ┌───────────────────────────────────────────────────┐
//!          │                                                   ▼
//!       closed ◀── three successes ── half-open ◀── time ──── open
//!                                         │                    ▲
//!                                         └── any failure ─────┘
//! ```
//!
//! Requests that were on their way when it opened say nothing of it later: sixty-four that die
//! together are one opening. What may be our own machine's slowness opens it only where the caller
//! allows that (`soft`), which is never for the last one of a kind. An upstream with checks is tried
//! again only after one of them passed; one without, as soon as the time is over.
//!
//! Each opening soon after the last one lasts twice as long, so that a pod which passes checks and
//! breaks requests does not flap; a pod that was closed for as long as the longest opening starts
//! anew. Closing alone forgives nothing: three requests in a row succeed on many a broken pod.
//!
//! Absent on purpose: what an answer means (the caller says it as evidence), what is late (the caller
//! compares), and who else is there.

use std::time::{Duration, Instant};

use crate::window::Counts;

/// Why an upstream gets nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// Its connection was refused or broke.
    Dead,
    /// It failed too often.
    Failures,
    /// Requests timed out on it, in a row.
    Slow,
    /// A check failed, and requests that wait on it heard nothing either.
    Silent,
    /// Checks in a row failed.
    Checks,
    /// It answers much later than it used to, or than its peers.
    Latency,
    /// It refuses our credentials, or does not know what we ask for.
    Misconfigured,
    /// The operator took it out.
    Forced,
}

impl Reason {
    /// In metrics and events.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Dead => "dead",
            Self::Failures => "failures",
            Self::Slow => "slow",
            Self::Silent => "silent",
            Self::Checks => "checks",
            Self::Latency => "latency",
            Self::Misconfigured => "misconfigured",
            Self::Forced => "forced",
        }
    }
}

/// Whether an upstream gets requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It does.
    Ready,
    /// It is tried again, with few requests at once, and there is room for one.
    Probing,
    /// It is tried again, and as many requests as may are under way.
    Full,
    /// It does not.
    Out(Reason),
}

/// When a breaker opens, for how long, and how it closes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BreakerSettings {
    /// Failures in the window that may open it.
    pub failures: u32,
    /// How long an outcome counts.
    pub window: Duration,
    /// They do where they are a greater share than this, or come in a row.
    pub rate: f64,
    /// Time-outs in a row that open it.
    pub slow: u32,
    /// Successes that close it when it is half-open.
    pub successes: u32,
    /// How long it is open the first time.
    pub open: Duration,
    /// And the longest.
    pub open_max: Duration,
    /// Requests under way when it is half-open, at most.
    pub half_open: u32,
    /// Whether checks say when it may be tried again.
    pub checked: bool,
}

impl BreakerSettings {
    /// For who has no checks: the specification's numbers.
    pub const PROVIDER: Self = Self {
        failures: 5,
        window: Duration::from_secs(30),
        rate: 0.05,
        slow: 2,
        successes: 3,
        open: Duration::from_secs(30),
        open_max: Duration::from_secs(30),
        half_open: 10,
        checked: false,
    };
    /// Checks find out within a second whether a pod is back.
    pub const POD: Self = Self { open: Duration::from_secs(1), checked: true, ..Self::PROVIDER };
}

/// What an attempt's end says of its upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Evidence {
    /// It works.
    Good,
    /// Nothing: the client's fault, the client gone, refused as busy.
    Neutral,
    /// Nobody is there: opens at once.
    Dead,
    /// It failed: opens when it repeats.
    Failure,
    /// It did not answer in time: opens sooner when it repeats.
    Slow,
    /// It refuses what it should serve: opens at once, and where there are no checks no time changes it.
    Misconfigured,
}

/// What an operator says whatever is seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Forced {
    /// It gets nothing.
    Open,
    /// It gets requests.
    Closed,
}

/// What to tell the operator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// It gets nothing from now on.
    Opened(Reason),
    /// It is tried again.
    HalfOpened,
    /// It is as any other again.
    Closed,
}

/// One attempt under way. Whoever has it gives it back to the breaker it came from, whatever
/// happens: the place that it may take is nobody else's until then.
#[must_use]
#[derive(Debug)]
pub struct Pass {
    /// What it says counts until the next one begins.
    generation: u64,
    /// Whether it takes a place of the half-open ones.
    place: bool,
    /// Answers that had begun before it.
    answers: u64,
}

/// For who looks at it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BreakerView {
    /// `closed`, `open` or `half_open`, whatever is forced.
    pub state: &'static str,
    /// Failures in the window.
    pub failures: u64,
    /// Outcomes in the window.
    pub total: u64,
    /// Of the half-open ones; so many more and it closes.
    pub successes: u32,
    /// Of the places of the half-open ones, those that are taken.
    pub running: u32,
    /// When it may be tried again; `None` where it is not open, or no time changes that.
    pub retry_at: Option<Instant>,
    /// Openings in short order.
    pub strikes: u32,
    /// What the operator said.
    pub forced: Option<Forced>,
}

#[derive(Debug, Clone, Copy)]
enum State {
    /// Since when, where it was open before.
    Closed { since: Option<Instant> },
    /// Until when; `None`: no time ends it.
    Open { reason: Reason, until: Option<Instant> },
    /// And what came of it.
    HalfOpen { successes: u32 },
}

/// The breaker of one upstream.
#[derive(Debug)]
pub struct Breaker {
    settings: BreakerSettings,
    state: State,
    forced: Option<Forced>,
    /// The verdict over checks: while it is down, the state is open unless something is forced.
    checks_down: bool,
    /// Whether it would be out for its checks, were it not the last.
    doubted: bool,
    /// Attempts that began to be answered.
    answers: u64,
    /// Another one begins when it opens, and when the operator says something.
    generation: u64,
    /// Openings since it was well for long.
    strikes: u32,
    outcomes: Counts,
    /// Failures since the last success.
    in_a_row: u32,
    /// Time-outs since the last success, and when the last one was: an hour apart they are not in a
    /// row.
    slow: Option<(u32, Instant)>,
    /// Places taken. Those of an earlier half-open time count too, or their requests and ten new
    /// ones would be under way.
    running: u32,
}

impl Breaker {
    /// Closed, with nothing against it.
    #[must_use]
    pub fn new(settings: BreakerSettings) -> Self {
        Self {
            settings,
            state: State::Closed { since: None },
            forced: None,
            checks_down: false,
            doubted: false,
            answers: 0,
            generation: 0,
            strikes: 0,
            outcomes: Counts::new(settings.window),
            in_a_row: 0,
            slow: None,
            running: 0,
        }
    }

    /// Whether it gets requests.
    #[must_use]
    pub fn standing(&self, now: Instant) -> Standing {
        let places = match self.forced {
            Some(Forced::Open) => return Standing::Out(Reason::Forced),
            Some(Forced::Closed) => return Standing::Ready,
            None if self.checks_down => return Standing::Out(Reason::Checks),
            None => self.settings.half_open.max(1),
        };
        match self.state {
            State::Closed { .. } => Standing::Ready,
            State::Open { reason, until } if !self.over(until, now) => Standing::Out(reason),
            State::Open { .. } | State::HalfOpen { .. } if self.running < places => {
                Standing::Probing
            }
            State::Open { .. } | State::HalfOpen { .. } => Standing::Full,
        }
    }

    /// Whether anything says that it works: it is closed, or a check or an attempt was good since it
    /// opened. That its time is over says nothing.
    #[must_use]
    pub fn is_believed(&self, now: Instant) -> bool {
        let tried = match self.state {
            State::HalfOpen { successes } => self.settings.checked || successes > 0,
            State::Closed { .. } | State::Open { .. } => false,
        };
        match self.standing(now) {
            Standing::Ready => true,
            Standing::Probing | Standing::Full => tried,
            Standing::Out(_) => false,
        }
    }

    /// Whether it gets requests only because nothing may take the last one out: its checks failed, and
    /// nothing good was seen since. Whoever else is well comes first.
    #[must_use]
    pub const fn is_doubted(&self) -> bool {
        self.doubted && self.forced.is_none()
    }

    /// Begins an attempt, where it gets one.
    pub fn begin(&mut self, now: Instant) -> Option<(Pass, Option<Change>)> {
        match self.standing(now) {
            Standing::Out(_) | Standing::Full => None,
            Standing::Ready => Some((self.insist(), None)),
            Standing::Probing => {
                let opened = matches!(self.state, State::Open { .. });
                let change = opened.then(|| self.half_open());
                self.running += 1;
                Some((Pass { place: true, ..self.insist() }, change))
            }
        }
    }

    /// Begins an attempt whatever is known: a last resort. It takes no place.
    pub const fn insist(&self) -> Pass {
        Pass { generation: self.generation, place: false, answers: self.answers }
    }

    /// An attempt begins to be answered. A half-open one has shown what it was tried for: it gives its
    /// place back, or ten long answers would keep everybody else out; its end is judged as well.
    pub fn begins(&mut self, pass: Pass, now: Instant) -> (Pass, Option<Change>) {
        self.answers();
        if !pass.place {
            return (pass, None);
        }
        let change = self.finish(pass, Evidence::Good, true, now);
        (self.insist(), change)
    }

    /// An attempt began to be answered: those that were under way then, and time out, met no silence.
    pub const fn answers(&mut self) {
        self.answers = self.answers.wrapping_add(1);
    }

    /// An attempt ended.
    pub fn finish(
        &mut self,
        pass: Pass,
        evidence: Evidence,
        soft: bool,
        now: Instant,
    ) -> Option<Change> {
        if pass.place {
            self.running = self.running.saturating_sub(1);
        }
        if pass.generation != self.generation || self.forced.is_some() {
            return None;
        }
        self.doubted &= evidence != Evidence::Good;
        match (self.state, evidence) {
            (_, Evidence::Neutral) | (State::Open { .. }, _) => None,
            (_, Evidence::Dead) => Some(self.open(Reason::Dead, now)),
            (_, Evidence::Misconfigured) => Some(self.open(Reason::Misconfigured, now)),
            (State::Closed { .. }, Evidence::Slow) if pass.answers != self.answers => {
                self.count(Evidence::Failure, soft, now)
            }
            (State::Closed { .. }, _) => self.count(evidence, soft, now),
            (State::HalfOpen { successes }, Evidence::Good) => self.succeeded(successes + 1, now),
            (State::HalfOpen { .. }, Evidence::Failure | Evidence::Slow) if !soft => {
                // The last one: it stays half-open, and begins anew.
                self.state = State::HalfOpen { successes: 0 };
                None
            }
            (State::HalfOpen { .. }, Evidence::Slow) => Some(self.open(Reason::Slow, now)),
            (State::HalfOpen { .. }, Evidence::Failure) => Some(self.open(Reason::Failures, now)),
        }
    }

    /// A check that began at `began` passed. Whether the verdict over checks is down still is told
    /// apart.
    pub fn check_passed(&mut self, began: Instant, now: Instant) -> Option<Change> {
        match self.state {
            State::Open { until: Some(until), .. }
                if self.settings.checked
                    && self.forced.is_none()
                    && !self.checks_down
                    && began.min(now) >= until =>
            {
                Some(self.half_open())
            }
            _ => None,
        }
    }

    /// A check failed. `silent` is whether requests wait on the upstream and none heard from it since
    /// the check began: then it is not the check's own failure.
    pub fn check_failed(&mut self, silent: bool, soft: bool, now: Instant) -> Option<Change> {
        self.softly(Reason::Silent, silent && soft, now)
    }

    /// The verdict over checks in a row. To be told after each check and not only when it changes: one
    /// that may not take the upstream out now is not kept for later.
    pub fn checks(&mut self, up: bool, soft: bool, now: Instant) -> Option<Change> {
        if up {
            self.doubted = false;
            let was_down = std::mem::replace(&mut self.checks_down, false);
            // Several passed: that is more than one which passed.
            return if was_down { self.check_passed(now, now) } else { None };
        }
        if self.is_open() {
            // It is out already: that it stays so takes nothing from anybody.
            self.checks_down = true;
            return None;
        }
        self.checks_down |= soft;
        self.doubted = !soft;
        self.softly(Reason::Checks, soft, now)
    }

    /// Its latency is an outlier. Says nothing of one that is tried again: what was measured is from
    /// before it opened, and would open it for ever.
    pub fn too_slow(&mut self, soft: bool, now: Instant) -> Option<Change> {
        let closed = matches!(self.state, State::Closed { .. });
        self.softly(Reason::Latency, soft && closed, now)
    }

    /// What the operator says; `None` takes it back. What was forced closed is closed then, with
    /// nothing against it, which is how a misconfigured provider comes back; what was forced open is
    /// half-open, as nothing is known of it.
    pub fn force(&mut self, forced: Option<Forced>, now: Instant) -> Option<Change> {
        if forced == self.forced {
            return None;
        }
        let before = self.standing(now);
        // Nothing that is under way says anything of what comes now.
        self.generation += 1;
        match (std::mem::replace(&mut self.forced, forced), forced) {
            (_, Some(Forced::Closed)) => {
                self.strikes = 0;
                self.close(None);
            }
            (Some(Forced::Open), None) => {
                self.half_open();
            }
            _ => {}
        }
        if self.checks_down && forced.is_none() {
            self.state = State::Open { reason: Reason::Checks, until: Some(now) };
        }
        let after = self.standing(now);
        match after {
            after if after == before => None,
            Standing::Out(reason) => Some(Change::Opened(reason)),
            Standing::Probing | Standing::Full => Some(Change::HalfOpened),
            Standing::Ready => Some(Change::Closed),
        }
    }

    /// For who looks at it.
    #[must_use]
    pub fn view(&self, now: Instant) -> BreakerView {
        let (good, failures) = self.outcomes.totals(now);
        let (state, successes, retry_at) = match self.state {
            State::Closed { .. } => ("closed", 0, None),
            State::Open { until, .. } => ("open", 0, until),
            State::HalfOpen { successes } => ("half_open", successes, None),
        };
        BreakerView {
            state,
            failures,
            total: good + failures,
            successes,
            running: self.running,
            retry_at,
            strikes: self.strikes,
            forced: self.forced,
        }
    }

    const fn is_open(&self) -> bool {
        matches!(self.state, State::Open { .. })
    }

    /// Whether time alone lets it be tried again, and did.
    fn over(&self, until: Option<Instant>, now: Instant) -> bool {
        !self.settings.checked && until.is_some_and(|until| now >= until)
    }

    /// One more outcome while it is closed.
    fn count(&mut self, evidence: Evidence, soft: bool, now: Instant) -> Option<Change> {
        let bad = evidence != Evidence::Good;
        self.outcomes.add(bad, now);
        if !bad {
            (self.in_a_row, self.slow) = (0, None);
            return None;
        }
        self.in_a_row = self.in_a_row.saturating_add(1);
        if evidence == Evidence::Slow {
            let recent = |(_, last): &(u32, Instant)| {
                now.saturating_duration_since(*last) < self.settings.window
            };
            let before = self.slow.filter(recent).map_or(0, |(count, _)| count);
            let slow = before.saturating_add(1);
            self.slow = Some((slow, now));
            if slow >= self.settings.slow {
                return self.softly(Reason::Slow, soft, now);
            }
        }
        self.softly(Reason::Failures, soft && self.failing(now), now)
    }

    /// Whether it failed too often of late.
    fn failing(&self, now: Instant) -> bool {
        let (good, failures) = self.outcomes.totals(now);
        let frequent = failures as f64 > self.settings.rate * (good + failures) as f64;
        failures >= u64::from(self.settings.failures)
            && (frequent || self.in_a_row >= self.settings.failures)
    }

    /// Opens it where that is allowed, and says something.
    fn softly(&mut self, reason: Reason, allowed: bool, now: Instant) -> Option<Change> {
        let opens = allowed && self.forced.is_none() && !self.is_open();
        opens.then(|| self.open(reason, now))
    }

    fn open(&mut self, reason: Reason, now: Instant) -> Change {
        if let State::Closed { since: Some(since) } = self.state
            && now.saturating_duration_since(since) >= self.settings.open_max
        {
            self.strikes = 0;
        }
        let doubled = 1u32.checked_shl(self.strikes).unwrap_or(u32::MAX);
        let lasts = self.settings.open.saturating_mul(doubled).min(self.settings.open_max);
        let endless = reason == Reason::Misconfigured && !self.settings.checked;
        self.state = State::Open { reason, until: (!endless).then(|| now + lasts) };
        self.strikes = self.strikes.saturating_add(1);
        self.generation += 1;
        self.doubted = false;
        Change::Opened(reason)
    }

    fn half_open(&mut self) -> Change {
        self.state = State::HalfOpen { successes: 0 };
        Change::HalfOpened
    }

    fn succeeded(&mut self, successes: u32, now: Instant) -> Option<Change> {
        self.state = State::HalfOpen { successes };
        (successes >= self.settings.successes).then(|| self.close(Some(now)))
    }

    fn close(&mut self, since: Option<Instant>) -> Change {
        self.state = State::Closed { since };
        self.outcomes.clear();
        (self.in_a_row, self.slow) = (0, None);
        Change::Closed
    }
}

#[cfg(test)]
mod tests;
