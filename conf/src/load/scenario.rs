//! One scenario: who asks how much for how long, and what fails meanwhile.

use std::{path::PathBuf, time::Duration};

use serde_json::Value;

use super::bounds::{self, Bounds, Criterion};
use crate::{
    RequestKind,
    reader::{Field, Section},
};

/// What is asked of a deployment, and what is done to it.
#[derive(Debug, Clone, PartialEq)]
pub struct Scenario {
    /// Its name; `baseline` is what others take from.
    pub name: String,
    /// What it stands for.
    pub description: String,
    /// How long requests are sent.
    pub duration: Duration,
    /// Who asks.
    pub profile: LoadProfile,
    /// What the figures must be within.
    pub bounds: Bounds,
    /// What must hold beside them.
    pub criteria: Vec<Criterion>,
    /// What fails, in order of time.
    pub chaos: Vec<ChaosEvent>,
}

/// Who asks, and how.
#[derive(Debug, Clone, PartialEq)]
pub struct LoadProfile {
    /// People with an editor open.
    pub users: u64,
    /// What each asks in an hour.
    pub requests_per_user_per_hour: f64,
    /// By how much more is asked at the height, at least 1: the rate rises to it in the first tenth
    /// of the duration, and stays.
    pub spike_factor: f64,
    /// The share of each kind, in the order of [`RequestKind::ALL`]; together 1.
    pub mix: [f64; 4],
    /// The most tokens that a request of each kind asks for, in the same order.
    pub max_tokens: [u64; 4],
    /// The share of inline requests that come from somebody typing a line; the rest stand alone.
    pub typing: f64,
    /// The share of places in files that somebody of the same key asked about lately.
    pub repeats: f64,
    /// The share of inline and fim requests that are streamed; chat and agent always are.
    pub streamed: f64,
    /// When requests come.
    pub arrivals: Arrivals,
    /// What a client waits for a whole answer.
    pub timeout: Duration,
}

/// When requests come; all but their moments is the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Arrivals {
    /// Each without regard to the others, as those of many people are (a Poisson process).
    Poisson,
    /// All the same time apart.
    Even,
    /// As they came in a recorded trace, sped up or slowed down to the scenario's rate: a CSV file,
    /// packed or not, with a column `TIMESTAMP`; with `ContextTokens` and `GeneratedTokens`,
    /// requests are as long as those.
    Trace(PathBuf),
}

/// Something that fails, or is mended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChaosEvent {
    /// After so long.
    pub at: Duration,
    /// What happens: an action of the emulator of regions, or one of the target's own.
    pub action: String,
    /// How many, where it says so.
    pub count: Option<u64>,
    /// Where, where it says so.
    pub region: Option<String>,
    /// For actions that slow something down.
    pub delay: Option<Duration>,
}

/// No service of this kind was ever asked more.
const RATE_MAX: f64 = 10_000_000.0;
const DURATION_MAX: Duration = Duration::from_secs(24 * 3600);
const EVENTS_MAX: usize = 256;

impl Scenario {
    /// A normal weekday, as the capacity table has it.
    #[must_use]
    pub fn baseline() -> Self {
        Self {
            name: "baseline".to_owned(),
            description: "Normal weekday traffic".to_owned(),
            duration: Duration::from_secs(30 * 60),
            profile: LoadProfile {
                users: 100_000,
                requests_per_user_per_hour: 200.0,
                spike_factor: 1.0,
                mix: [0.70, 0.15, 0.10, 0.05],
                max_tokens: [24, 48, 128, 128],
                typing: 1.0,
                repeats: 0.1,
                streamed: 0.5,
                arrivals: Arrivals::Poisson,
                timeout: Duration::from_secs(120),
            },
            bounds: Bounds::named("baseline"),
            criteria: Vec::new(),
            chaos: Vec::new(),
        }
    }
}

impl LoadProfile {
    /// Requests a second at its height.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "users are far fewer than 2^52")]
    pub fn rate(&self) -> f64 {
        self.users as f64 * self.requests_per_user_per_hour * self.spike_factor / 3600.0
    }
}

pub(super) fn read(mut section: Section<'_>, base: &Scenario) -> Scenario {
    let name: String = section.required("name").unwrap_or_default();
    let fine = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    if !name.chars().all(fine) || name.starts_with('.') {
        let fix = "Its report is a file of that name: use letters, digits, -, _ and .";
        section.problem("name", "cannot name a file", fix);
    }
    let description = section.or("description", String::new());
    let duration = section.or("duration", base.duration);
    if duration > DURATION_MAX {
        section.problem("duration", "is over a day", "Write at most 24h");
    }
    let profile = read_profile(section.section("profile"), &base.profile);
    let column = match name.as_str() {
        "peak" | "stress" => Bounds::named(&name),
        _ => base.bounds,
    };
    let (bounds, criteria) = bounds::read(&mut section, column);
    let chaos = read_chaos(&mut section, duration);
    section.finish();
    Scenario { name, description, duration, profile, bounds, criteria, chaos }
}

fn read_profile(mut read: Section<'_>, base: &LoadProfile) -> LoadProfile {
    let profile = LoadProfile {
        users: read.or("users", Count(base.users)).0,
        requests_per_user_per_hour: read
            .or("requests_per_user_per_hour", Above(base.requests_per_user_per_hour))
            .0,
        spike_factor: read.or("spike_factor", Above(base.spike_factor)).0,
        mix: read_mix(&mut read, base.mix),
        max_tokens: read_tokens(read.section("max_tokens"), base.max_tokens),
        typing: read.or("typing", base.typing),
        repeats: read.or("repeats", base.repeats),
        streamed: read.or("streamed", base.streamed),
        arrivals: read_arrivals(&mut read, &base.arrivals),
        timeout: read.or("timeout", base.timeout),
    };
    if profile.spike_factor < 1.0 {
        read.problem("spike_factor", "is under 1", "Write by how much more is asked, such as 2.0");
    }
    let rate = profile.rate();
    if rate > RATE_MAX {
        let what = format!("makes {rate:.0} requests a second");
        read.problem("users", what, format!("Nothing is asked more than {RATE_MAX:.0}: lower it"));
    }
    read.finish();
    profile
}

fn read_mix(profile: &mut Section<'_>, base: [f64; 4]) -> [f64; 4] {
    const NAME: &str = "completion_type_distribution";
    let given = profile.has(NAME);
    let mut read = profile.section(NAME);
    let mix = RequestKind::ALL.map(|kind| read.or(kind.name(), 0.0));
    read.finish();
    let sum: f64 = mix.iter().sum();
    if given && (sum - 1.0).abs() > 0.001 {
        profile.problem(NAME, format!("adds up to {sum}"), "Write shares that add up to 1");
    }
    if given { mix } else { base }
}

fn read_tokens(mut read: Section<'_>, base: [u64; 4]) -> [u64; 4] {
    let mut most = base;
    for (kind, most) in RequestKind::ALL.into_iter().zip(&mut most) {
        *most = read.or(kind.name(), *most);
    }
    read.finish();
    most
}

fn read_arrivals(profile: &mut Section<'_>, base: &Arrivals) -> Arrivals {
    let how: Option<How> = profile.optional("arrivals");
    let trace: Option<PathBuf> = profile.optional("trace");
    match (how, trace) {
        (None, None) => return base.clone(),
        (None | Some(How::Trace), Some(path)) => return Arrivals::Trace(path),
        (Some(How::Poisson), None) => return Arrivals::Poisson,
        (Some(How::Even), None) => return Arrivals::Even,
        (Some(How::Trace), None) => {
            profile.problem("trace", "is missing", "Name the CSV file with the arrivals");
        }
        (Some(_), Some(_)) => {
            let fix = "Write `arrivals: trace`, or leave `trace` out";
            profile.problem("trace", "stands beside other arrivals", fix);
        }
    }
    base.clone()
}

fn read_chaos(section: &mut Section<'_>, duration: Duration) -> Vec<ChaosEvent> {
    let sections = section.sections("chaos_events");
    if sections.len() > EVENTS_MAX {
        let what = format!("has {} events", sections.len());
        section.problem("chaos_events", what, format!("List at most {EVENTS_MAX}"));
        return Vec::new();
    }
    let mut events = Vec::new();
    for mut read in sections {
        let (at, action) = (read.required::<Duration>("time"), read.required::<String>("action"));
        let (count, region, delay) =
            (read.optional("count"), read.optional("region"), read.optional("delay"));
        if at.is_some_and(|at| at >= duration) {
            read.problem("time", "is after the end", "Write a time before the scenario's duration");
        }
        read.finish();
        if let (Some(at), Some(action)) = (at, action) {
            events.push(ChaosEvent { at, action, count, region, delay });
        }
    }
    events.sort_by_key(|event| event.at);
    events
}

/// A word for when requests come.
#[derive(Debug, Clone, Copy)]
enum How {
    Poisson,
    Even,
    Trace,
}

impl Field for How {
    const EXPECTED: &'static str = "poisson, even or trace";
    fn words() -> Vec<&'static str> {
        vec!["poisson", "even", "trace"]
    }
    fn parse(value: &Value) -> Option<Self> {
        match value.as_str()? {
            "poisson" => Some(Self::Poisson),
            "even" => Some(Self::Even),
            "trace" => Some(Self::Trace),
            _ => None,
        }
    }
}

/// A whole number of at least 1, as people write it: `100,000`.
struct Count(u64);

impl Field for Count {
    const EXPECTED: &'static str = "a whole number of at least 1 such as 100000 or 100,000";
    fn parse(value: &Value) -> Option<Self> {
        let number = match value {
            Value::String(text) => grouped(text.trim())?,
            other => other.as_u64()?,
        };
        (number > 0).then_some(Self(number))
    }
}

/// `100,000`, `1_000_000`: groups of three behind the first.
fn grouped(text: &str) -> Option<u64> {
    let (first, rest) = match text.split_once([',', '_']) {
        Some((first, rest)) => (first, rest.split([',', '_']).collect()),
        None => (text, Vec::new()),
    };
    let groups = rest.is_empty() || (1..=3).contains(&first.len());
    let fine = groups && rest.iter().all(|group| group.len() == 3);
    let digits = [first, &rest.concat()].concat();
    (fine && digits.bytes().all(|byte| byte.is_ascii_digit())).then(|| digits.parse().ok())?
}

/// A number over 0.
#[derive(Debug, Clone, Copy)]
pub(super) struct Above(pub(super) f64);

impl Field for Above {
    const EXPECTED: &'static str = "a number over 0";
    fn parse(value: &Value) -> Option<Self> {
        value.as_f64().filter(|number| *number > 0.0 && number.is_finite()).map(Self)
    }
}
