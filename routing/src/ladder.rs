//! How far service is degraded, L0 to L4: one state machine for a region, told what is seen of it.
//!
//! The level is the worst whose condition holds, or held within the last minute: a level is entered at
//! once, since the evidence behind it has a hysteresis of its own, and left late. L4 alone ends with
//! the first thing that can generate, and falls to what holds then. Absent on purpose: what a level
//! switches off, which the phases know.

use std::time::{Duration, Instant};

use crate::window::{Counts, Quantiles};

/// How far service is degraded; more is worse.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Level {
    /// All is well.
    #[default]
    L0,
    /// First tokens come late.
    L1,
    /// No pod of this region serves the primary model.
    L2,
    /// Two or more of pods, regions and providers are out, and the last cannot carry the load.
    L3,
    /// Nothing can generate.
    L4,
}

impl Level {
    /// From the best to the worst.
    pub const ALL: [Self; 5] = [Self::L0, Self::L1, Self::L2, Self::L3, Self::L4];

    /// In headers, metrics and events.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::L0 => "L0",
            Self::L1 => "L1",
            Self::L2 => "L2",
            Self::L3 => "L3",
            Self::L4 => "L4",
        }
    }

    /// The level of that name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|level| level.name() == name)
    }
}

/// When levels are entered and left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LadderSettings {
    /// First tokens are late over this.
    pub slow: Duration,
    /// First tokens count that long.
    pub window: Duration,
    /// Fewer of them say nothing.
    pub samples: u64,
    /// A level is left when its condition has not held for so long.
    pub hold: Duration,
}

#[cfg(test)]
impl Default for LadderSettings {
    fn default() -> Self {
        Self {
            slow: Duration::from_millis(500),
            window: Duration::from_secs(30),
            samples: 100,
            hold: Duration::from_secs(60),
        }
    }
}

/// What can be said of all upstreams of a kind together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Component {
    /// There are none, by configuration.
    Absent,
    /// None of them serves.
    Out,
    /// Some serve, and cannot carry the load.
    Strained,
    /// They carry the load.
    Well,
}

impl Component {
    /// For operators.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Absent => "absent",
            Self::Out => "out",
            Self::Strained => "strained",
            Self::Well => "well",
        }
    }
}

/// What the region looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    /// This region's pods that serve the primary model.
    pub pods: Component,
    /// Other regions.
    pub regions: Component,
    /// External providers.
    pub providers: Component,
    /// Whether this edge has a small model of its own, and it answers.
    pub local: bool,
}

/// Why a level is what it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// Nothing holds any more, or yet.
    AllWell,
    /// The 99th percentile of first tokens is late.
    SlowFirstTokens,
    /// Nothing serves the primary model here.
    NoPrimary,
    /// Two or more kinds of upstream are out, and none is well.
    ComponentsOut,
    /// No upstream generates, nor does this edge.
    NothingGenerates,
    /// The operator said so.
    Forced,
}

impl Cause {
    /// In events.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::AllWell => "all_well",
            Self::SlowFirstTokens => "slow_first_tokens",
            Self::NoPrimary => "no_primary",
            Self::ComponentsOut => "components_out",
            Self::NothingGenerates => "nothing_generates",
            Self::Forced => "forced",
        }
    }

    const fn of(level: Level) -> Self {
        match level {
            Level::L0 => Self::AllWell,
            Level::L1 => Self::SlowFirstTokens,
            Level::L2 => Self::NoPrimary,
            Level::L3 => Self::ComponentsOut,
            Level::L4 => Self::NothingGenerates,
        }
    }
}

/// The level changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Step {
    /// What it was.
    pub from: Level,
    /// What it is.
    pub to: Level,
    /// Why it is that.
    pub cause: Cause,
}

/// A region's level.
#[derive(Debug, Clone)]
pub struct Ladder {
    settings: LadderSettings,
    tokens: Quantiles,
    /// First tokens in time and late ones: whether the 99th percentile is late is exact by these,
    /// and would be right to a tenth by the quantile.
    late: Counts,
    /// When the conditions of L1, L2 and L3 held last.
    held: [Option<Instant>; 3],
    /// Whether L4's did at the last step.
    nothing: bool,
    level: Level,
    forced: Option<Level>,
}

impl Ladder {
    /// At L0.
    #[must_use]
    pub fn new(settings: LadderSettings) -> Self {
        Self {
            settings,
            tokens: Quantiles::new(settings.window),
            late: Counts::new(settings.window),
            held: [None; 3],
            nothing: false,
            level: Level::L0,
            forced: None,
        }
    }

    /// An inline or FIM answer began after so long.
    pub fn first_token(&mut self, took: Duration, now: Instant) {
        self.tokens.add(took, now);
        self.late.add(took > self.settings.slow, now);
    }

    /// What is seen now. To be called about once a second, and not before everything was looked at
    /// once: it takes what it is told for true.
    pub fn step(&mut self, seen: &Seen, now: Instant) -> Option<Step> {
        let holds = [self.slow(now), no_primary(seen), components_out(seen)];
        let ended = std::mem::replace(&mut self.nothing, nothing_generates(seen)) && !self.nothing;
        for (held, holds) in self.held.iter_mut().zip(holds) {
            if holds {
                *held = Some(now);
            } else if ended {
                // It held because everything was out.
                *held = None;
            }
        }
        self.settle(now)
    }

    /// The level.
    #[must_use]
    pub const fn level(&self) -> Level {
        self.level
    }

    /// Why it is that.
    #[must_use]
    pub const fn cause(&self) -> Cause {
        match self.forced {
            Some(_) => Cause::Forced,
            None => Cause::of(self.level),
        }
    }

    /// Keeps the level where the operator wants it; with `None` it is what was seen meanwhile.
    pub fn force(&mut self, level: Option<Level>, now: Instant) -> Option<Step> {
        self.forced = level;
        self.settle(now)
    }

    /// What an operator forced.
    #[must_use]
    pub const fn forced(&self) -> Option<Level> {
        self.forced
    }

    /// The 99th percentile of first tokens.
    #[must_use]
    pub fn p99(&self, now: Instant) -> Option<Duration> {
        self.tokens.quantile(0.99, now)
    }

    fn settle(&mut self, now: Instant) -> Option<Step> {
        let from = self.level;
        self.level = self.forced.unwrap_or_else(|| self.due(now));
        let step = Step { from, to: self.level, cause: self.cause() };
        (from != self.level).then_some(step)
    }

    fn due(&self, now: Instant) -> Level {
        if self.nothing {
            return Level::L4;
        }
        let recent = |at: Instant| now.saturating_duration_since(at) < self.settings.hold;
        let levels = [Level::L1, Level::L2, Level::L3].into_iter().zip(self.held).rev();
        levels
            .into_iter()
            .find(|(_, held)| held.is_some_and(recent))
            .map_or(Level::L0, |(level, _)| level)
    }

    /// More than one first token in a hundred is late.
    fn slow(&self, now: Instant) -> bool {
        let (timely, late) = self.late.totals(now);
        let all = timely + late;
        all >= self.settings.samples && late * 100 > all
    }
}

/// Where there are no pods by configuration, other regions serve the primary model.
fn no_primary(seen: &Seen) -> bool {
    match seen.pods {
        Component::Absent => seen.regions == Component::Out,
        pods => pods == Component::Out,
    }
}

fn components_out(seen: &Seen) -> bool {
    let all = seen.kinds();
    let count = |what| all.into_iter().filter(|component| *component == what).count();
    let (out, absent) = (count(Component::Out), count(Component::Absent));
    out >= 1 && out + absent >= 2 && count(Component::Well) == 0
}

fn nothing_generates(seen: &Seen) -> bool {
    let generates = |component| matches!(component, Component::Well | Component::Strained);
    !seen.local && !seen.kinds().into_iter().any(generates)
}

impl Seen {
    const fn kinds(&self) -> [Component; 3] {
        [self.pods, self.regions, self.providers]
    }
}

#[cfg(test)]
mod tests;
