//! How upstreams are judged, what is tried again, and how far service degrades.
//!
//! Absent on purpose: the decisions themselves, which are `nearhop-routing`'s.

use std::{fmt::Display, time::Duration};

use serde_json::Value;

use crate::reader::{Field, Section};

/// When an upstream is out, and how it comes back; of every pod, region and provider.
#[derive(Debug, Clone, PartialEq)]
pub struct Breaker {
    /// Failures within the window that take it out, where they are in a row or over `rate`.
    pub failures: u32,
    /// How far back failures and answers count.
    pub window: Duration,
    /// The share of its answers within the window that may be failures, 0 to 1.
    pub rate: f64,
    /// Answers in a row, while it is tried again, that bring it back.
    pub successes: u32,
    /// The longest that a pod is out between two tries, and how long a provider is.
    pub open: Duration,
    /// Requests in progress on it while it is tried again.
    pub half_open: u32,
}

/// What evidence that proves nothing may do: being slow, failing now and then.
#[derive(Debug, Clone, PartialEq)]
pub struct Ejection {
    /// The share of pods that may be out at once by such evidence, 0 to 1.
    pub share: f64,
}

/// A second attempt beside a first one that is late.
#[derive(Debug, Clone, PartialEq)]
pub struct Hedge {
    /// Whether there are any.
    pub enabled: bool,
    /// The share of requests that may have one, 0 to 1.
    pub share: f64,
}

/// What further attempts, second ones beside late ones among them, may cost.
#[derive(Debug, Clone, PartialEq)]
pub struct Retries {
    /// Of requests, 0 to 1.
    pub share: f64,
    /// And so many a second, so that an edge with few requests may try again as well.
    pub per_second: u32,
}

/// When service degrades, and when it is whole again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ladder {
    /// First tokens of code are late when one in a hundred takes longer.
    pub slow: Duration,
    /// How far back they count.
    pub window: Duration,
    /// Fewer within the window say nothing.
    pub samples: u64,
    /// How long the opposite must hold before a level is left.
    pub hold: Duration,
}

/// Prompts go where their beginnings have been computed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Affinity {
    /// Whether they do.
    pub enabled: bool,
    /// Blocks of prompts, of 64 bytes, remembered of each pod: the latest.
    pub blocks: usize,
}

/// What is counted over less than a second is chance; over more than ten minutes, history.
const MOMENT: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(600));

/// A duration within bounds, both included.
fn within(
    section: &mut Section<'_>,
    name: &'static str,
    default: Duration,
    (least, most): (Duration, Duration),
) -> Duration {
    let given = section.or(name, default);
    if !(least..=most).contains(&given) {
        let what = format!("is not within {} and {}", written(least), written(most));
        section.problem(name, what, format!("{} suits most", written(default)));
    }
    given
}

/// Whole seconds as the file has them.
fn written(duration: Duration) -> String {
    match duration.as_secs() {
        seconds if seconds >= 3600 && seconds.is_multiple_of(3600) => {
            format!("{}h", seconds / 3600)
        }
        seconds if seconds > 60 && seconds.is_multiple_of(60) => format!("{}m", seconds / 60),
        seconds => format!("{seconds}s"),
    }
}

/// A whole number from 1 to `most`.
pub(crate) fn count<T: TryFrom<u64> + Display>(
    section: &mut Section<'_>,
    name: &'static str,
    default: T,
    most: u64,
) -> T {
    let Some(given) = section.optional::<u64>(name) else { return default };
    match T::try_from(given) {
        Ok(fitting) if given <= most => fitting,
        _ => {
            section.problem(name, format!("is over {most}"), format!("{default} suits most"));
            default
        }
    }
}

/// A text for people to read.
struct Tip(String);

impl Field for Tip {
    const EXPECTED: &'static str = "a text of 1 to 500 characters";
    fn parse(value: &Value) -> Option<Self> {
        let text = value.as_str()?.trim();
        (1..=500).contains(&text.chars().count()).then(|| Self(text.to_owned()))
    }
}

/// 75 MiB a pod.
const BLOCKS_MAX: u64 = 1 << 20;

/// One is drawn for each chat; more than a handful nobody maintains.
const TIPS_MAX: usize = 16;

/// What chats are shown when nothing can generate.
pub(crate) fn read_tips(edge: &mut Section<'_>, default: Vec<String>) -> Vec<String> {
    let Some(tips) = edge.optional::<Vec<Tip>>("tips") else { return default };
    if tips.len() > TIPS_MAX {
        let what = format!("has {} texts", tips.len());
        edge.problem("tips", what, format!("Write at most {TIPS_MAX}"));
    }
    tips.into_iter().map(|Tip(text)| text).collect()
}

impl Breaker {
    pub(crate) fn from_section(mut section: Section<'_>) -> Self {
        let default = Self::default();
        let breaker = Self {
            failures: count(&mut section, "failures", default.failures, 1000),
            window: within(&mut section, "window", default.window, MOMENT),
            rate: section.or("rate", default.rate),
            successes: count(&mut section, "successes", default.successes, 1000),
            open: within(&mut section, "open", default.open, MOMENT),
            half_open: count(&mut section, "half_open", default.half_open, 1000),
        };
        section.finish();
        breaker
    }
}

impl Ejection {
    pub(crate) fn from_section(mut section: Section<'_>) -> Self {
        let share = section.or("share", Self::default().share);
        section.finish();
        Self { share }
    }
}

impl Hedge {
    pub(crate) fn from_section(mut section: Section<'_>) -> Self {
        let default = Self::default();
        let hedge = Self {
            enabled: section.or("enabled", default.enabled),
            share: section.or("share", default.share),
        };
        section.finish();
        hedge
    }
}

impl Retries {
    pub(crate) fn from_section(mut section: Section<'_>) -> Self {
        let default = Self::default();
        let retries = Self {
            share: section.or("share", default.share),
            per_second: count(&mut section, "per_second", default.per_second, 65_536),
        };
        section.finish();
        retries
    }
}

impl Ladder {
    pub(crate) fn from_section(mut section: Section<'_>) -> Self {
        let default = Self::default();
        let hour = Duration::from_secs(3600);
        let ladder = Self {
            slow: section.or("slow", default.slow),
            window: within(&mut section, "window", default.window, MOMENT),
            samples: count(&mut section, "samples", default.samples, 65_536),
            hold: within(&mut section, "hold", default.hold, (MOMENT.0, hour)),
        };
        section.finish();
        ladder
    }
}

impl Affinity {
    pub(crate) fn from_section(mut section: Section<'_>) -> Self {
        let default = Self::default();
        let affinity = Self {
            enabled: section.or("enabled", default.enabled),
            blocks: count(&mut section, "blocks", default.blocks, BLOCKS_MAX),
        };
        section.finish();
        affinity
    }
}
