//! What a run says: one value, from which the text, the JSON and the page are made.
//!
//! A fraction of a scenario is never called a pass of it: see [`Overall`].

mod html;
mod plot;
mod text;

use std::{collections::BTreeMap, time::Duration};

use nearhop_conf::{Arrivals, RequestKind, Scenario, Target};
use serde::Serialize;

use crate::{
    capacity::{self, Costs, Need, PathCosts},
    latency::{Summary, millis},
    record::Outcome,
    run::Options,
    tally::{Kind, Tally},
    verdict::{self, Judged, Measured, Row, Verdict},
};

/// Half of the 99th percentile of latency, or so many milliseconds: a generator that is later than
/// that measures itself.
const LAG_MAX_MS: f64 = 5.0;

/// What was to be run, and how that went.
pub(crate) struct Made<'a> {
    /// As it is written.
    pub(crate) scenario: &'a Scenario,
    /// As it was run.
    pub(crate) planned: &'a Scenario,
    pub(crate) options: &'a Options,
    pub(crate) target: &'a Target,
    pub(crate) began_unix: Duration,
    pub(crate) took: Duration,
    pub(crate) ended: Ended,
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Ended {
    /// After its duration.
    Finished,
    /// By its user; the figures are of what there was.
    Interrupted,
    /// Nothing was heard of the target any more, and why that is thought.
    TargetGone(String),
}

/// What is said of the whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Overall {
    /// The whole scenario was run, every bound and every criterion was measured, and all are met.
    Pass,
    /// One of them is missed.
    Fail,
    /// What was measured is met, but it was a fraction of the scenario.
    MetAtScale,
    /// What was measured is met, but something was not measured.
    Incomplete,
    /// The run was ended early, or the generator could not send what was due: no verdict.
    Invalid,
}

impl Overall {
    /// In words.
    #[must_use]
    pub const fn words(self) -> &'static str {
        match self {
            Self::Pass => "PASS",
            Self::Fail => "FAIL",
            Self::MetAtScale => "met at this scale, which is not a pass of the scenario",
            Self::Incomplete => "met as far as it was measured, which is not a pass",
            Self::Invalid => "INVALID: no verdict",
        }
    }
}

/// A run's report.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// The scenario's name.
    pub scenario: String,
    /// What it stands for.
    pub description: String,
    /// What it was run against: regions and their URLs.
    pub target: BTreeMap<String, String>,
    /// When it began, seconds since 1970.
    pub began_unix_s: u64,
    /// The version of this program.
    pub version: &'static str,
    /// How it ended.
    pub ended: Ended,
    /// The share of users that was there.
    pub scale: f64,
    /// By what durations were divided.
    pub shortened: f64,
    /// What choices by chance began with.
    pub seed: u64,
    /// How long it was to send, and how long all took.
    pub planned_s: f64,
    /// How long it took with the last answers.
    pub took_s: f64,
    /// Requests a second that were due at the height; the scenario's own.
    pub due_rate: f64,
    /// The scenario's own, unscaled.
    pub scenario_rate: f64,
    /// When requests came.
    pub arrivals: String,
    /// What is said of the whole.
    pub overall: Overall,
    /// The capacity table's rows.
    pub rows: Vec<Row>,
    /// The criteria.
    pub criteria: Vec<Judged>,
    /// All requests.
    pub all: KindReport,
    /// By kind.
    pub kinds: Vec<KindReport>,
    /// By where users are.
    pub regions: Vec<KindReport>,
    /// By kind and source.
    pub sources: Vec<SourceReport>,
    /// The generator's own part.
    pub generator: Generator,
    /// What was done, and what clients saw change.
    pub events: Vec<Event>,
    /// What requests cost, and what the planned rates would need.
    pub costs: Costs,
    /// The benchmarks' costs, where they were given.
    pub path_costs: Option<PathCosts>,
    /// What the planned rates would need.
    pub capacity: Vec<Need>,
    /// Second by second.
    pub seconds: Vec<SecondReport>,
    /// For plots: shares and milliseconds of the time to the first token, by kind.
    #[serde(skip)]
    pub(crate) curves: Vec<(String, Vec<(f64, f64)>)>,
}

/// Requests of one kind, of one region, or all.
#[derive(Debug, Clone, Serialize)]
pub struct KindReport {
    /// The kind's name, the region's, or `all`.
    pub name: String,
    /// How many ended how.
    pub outcomes: BTreeMap<&'static str, u64>,
    /// Of those that count, the share without an answer.
    pub error_rate: Option<f64>,
    /// From when they were due to the first token.
    pub first_token: Summary,
    /// Between tokens, of streams.
    pub inter_token: Summary,
    /// From when they were due to the end.
    pub end_to_end: Summary,
}

/// Answers of one kind from one source.
#[derive(Debug, Clone, Serialize)]
pub struct SourceReport {
    /// The kind.
    pub kind: &'static str,
    /// As answers say it; `unnamed` where they do not.
    pub source: &'static str,
    /// How many.
    pub count: u64,
    /// From when they were due to the first token.
    pub first_token: Summary,
}

/// How well the generator did its own part.
#[derive(Debug, Clone, Serialize)]
pub struct Generator {
    /// Threads that sent.
    pub workers: usize,
    /// How much later than due requests were sent.
    pub lag: Summary,
    /// Requests that were not sent.
    pub not_sent: u64,
    /// Why its figures are not to be trusted; nothing where they are.
    pub complaint: Option<String>,
}

/// Something that happened beside the load.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Event {
    /// Seconds from the start.
    pub at_s: f64,
    /// What: an action, or `way` where DNS sent clients elsewhere.
    pub what: String,
    /// What was said of it.
    pub said: String,
    /// Whether it was not done.
    pub failed: bool,
}

/// Requests that were due in one second.
#[derive(Debug, Clone, Serialize)]
pub struct SecondReport {
    /// How many were due.
    pub due: u64,
    /// Whole answers.
    pub answered: u64,
    /// 429 and 503.
    pub refused: u64,
    /// Degraded answers.
    pub degraded: u64,
    /// Other errors.
    pub failed: u64,
    /// Given up or superseded.
    pub given_up: u64,
    /// The median time to the first token, milliseconds.
    pub p50_ms: Option<f64>,
    /// Its 99th percentile.
    pub p99_ms: Option<f64>,
    /// The highest level that an answer told.
    pub level: Option<u8>,
}

impl Report {
    pub(crate) fn make(
        made: &Made<'_>,
        tally: &Tally,
        (measured, costs): (&Measured, &Costs),
        mut events: Vec<Event>,
    ) -> Self {
        let Made { scenario, planned, options, .. } = made;
        let mut rows = verdict::rows(&planned.bounds, tally, measured);
        if made.ended != Ended::Finished {
            // Figures of a part of the time are shown, and not judged.
            rows.iter_mut().for_each(|row| row.verdict = Verdict::NotMeasured);
        }
        let criteria = verdict::criteria(&planned.criteria, tally, measured);
        let mut generator = generator(tally, options.workers);
        if generator.complaint.is_none() && made.ended == Ended::Finished {
            generator.complaint = undone(planned, &events, tally);
        }
        events.sort_by(|one, other| one.at_s.total_cmp(&other.at_s));
        let regions = made.target.regions.iter();
        let ways = regions.map(|region| (region.name.clone(), region.url.clone())).collect();
        Self {
            scenario: scenario.name.clone(),
            description: scenario.description.clone(),
            target: ways,
            began_unix_s: made.began_unix.as_secs(),
            version: env!("CARGO_PKG_VERSION"),
            overall: overall(made, &rows, &criteria, &generator),
            ended: made.ended.clone(),
            scale: options.scale,
            shortened: options.shorten,
            seed: options.seed,
            planned_s: planned.duration.as_secs_f64(),
            took_s: made.took.as_secs_f64(),
            due_rate: measured.due_rate,
            scenario_rate: scenario.profile.rate(),
            arrivals: match &planned.profile.arrivals {
                Arrivals::Poisson => "poisson".to_owned(),
                Arrivals::Even => "even".to_owned(),
                Arrivals::Trace(path) => format!("trace {}", path.display()),
            },
            rows,
            criteria,
            all: KindReport::of("all", &tally.all),
            kinds: RequestKind::ALL
                .into_iter()
                .map(|kind| KindReport::of(kind.name(), &tally.kinds[kind as usize]))
                .collect(),
            regions: tally
                .regions
                .iter()
                .map(|(at, region)| KindReport::of(&made.target.regions[*at].name, region))
                .collect(),
            sources: tally
                .sources
                .iter()
                .map(|((kind, source), (count, first))| SourceReport {
                    kind: RequestKind::ALL[*kind].name(),
                    source,
                    count: *count,
                    first_token: first.summary(),
                })
                .collect(),
            generator,
            events,
            costs: *costs,
            path_costs: options.costs,
            capacity: capacity::needs(costs, options.costs.as_ref()),
            seconds: seconds(tally),
            curves: RequestKind::ALL
                .into_iter()
                .map(|kind| (kind.name().to_owned(), tally.kinds[kind as usize].first.curve()))
                .collect(),
        }
    }

    /// Whether it is the whole scenario.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.scale >= 1.0 && self.shortened <= 1.0
    }

    /// Bounds and criteria that were asked for and are missed.
    #[must_use]
    pub fn missed(&self) -> Vec<&'static str> {
        let rows = self.rows.iter().filter(|row| row.verdict == Verdict::Missed);
        let criteria =
            self.criteria.iter().filter(|one| one.asked && one.verdict == Verdict::Missed);
        rows.map(|row| row.metric).chain(criteria.map(|one| one.criterion)).collect()
    }
}

impl KindReport {
    fn of(name: &str, kind: &Kind) -> Self {
        let outcomes = Outcome::ALL.into_iter().map(|one| (one.name(), kind.outcomes.of(one)));
        Self {
            name: name.to_owned(),
            outcomes: outcomes.collect(),
            error_rate: kind.error_rate(),
            first_token: kind.first.summary(),
            inter_token: kind.gaps.summary(),
            end_to_end: kind.total.summary(),
        }
    }
}

fn generator(tally: &Tally, workers: usize) -> Generator {
    let lag = tally.lag.summary();
    let not_sent = tally.all.outcomes.of(Outcome::NotSent);
    let allowed = tally
        .all
        .first
        .quantile(0.99)
        .map_or(LAG_MAX_MS, |p99| (millis(p99) / 2.0).max(LAG_MAX_MS));
    let complaint = match lag.p99_ms {
        _ if not_sent > 0 => Some(format!(
            "{not_sent} requests were not sent: too many were in progress. Lower the rate, or send from more machines"
        )),
        Some(late) if late > allowed => Some(format!(
            "requests were sent up to {late:.1} ms late (p99): this machine is too busy to send at this rate"
        )),
        _ => None,
    };
    Generator { workers, lag, not_sent, complaint }
}

/// What of the scenario did not happen.
fn undone(planned: &Scenario, events: &[Event], tally: &Tally) -> Option<String> {
    if tally.all.outcomes.sum(Outcome::counts) == 0 {
        return Some("no request was waited for to its end: there is nothing to judge".to_owned());
    }
    let happened =
        |name: &str| events.iter().filter(|event| event.what == name && !event.failed).count();
    let asked = |name: &str| planned.chaos.iter().filter(|event| event.action == name).count();
    let missing = planned.chaos.iter().find(|event| happened(&event.action) < asked(&event.action));
    missing
        .map(|event| format!("{} did not happen as it was planned: see the events", event.action))
}

fn overall(made: &Made<'_>, rows: &[Row], criteria: &[Judged], generator: &Generator) -> Overall {
    let verdicts: Vec<Verdict> = rows
        .iter()
        .map(|row| row.verdict)
        .chain(criteria.iter().filter(|one| one.asked).map(|one| one.verdict))
        .collect();
    let whole = made.options.scale >= 1.0 && made.options.shorten <= 1.0;
    match () {
        () if made.ended != Ended::Finished || generator.complaint.is_some() => Overall::Invalid,
        () if verdicts.contains(&Verdict::Missed) => Overall::Fail,
        () if !whole => Overall::MetAtScale,
        () if verdicts.contains(&Verdict::NotMeasured) => Overall::Incomplete,
        () => Overall::Pass,
    }
}

fn seconds(tally: &Tally) -> Vec<SecondReport> {
    let of = |second: &crate::tally::Second| {
        let sum = |holds: fn(Outcome) -> bool| second.outcomes.sum(holds);
        let refused = sum(Outcome::is_refusal);
        let at = |share| second.first.quantile(share).map(millis);
        SecondReport {
            due: sum(|_| true),
            answered: second.outcomes.of(Outcome::Answered),
            refused,
            degraded: second.outcomes.of(Outcome::Degraded),
            failed: sum(Outcome::is_error) - refused,
            given_up: sum(|one| matches!(one, Outcome::GivenUp | Outcome::Superseded)),
            p50_ms: at(0.5),
            p99_ms: at(0.99),
            level: second.levels.values().max().copied(),
        }
    };
    tally.seconds.iter().map(of).collect()
}
