//! What a scenario must hold to: its column of the capacity table, and its criteria.
//!
//! Both may be written as the table has them: `<150ms`, `<0.1%`, `50K QPS`.

use std::time::Duration;

use serde_json::Value;

use crate::{
    reader::{Field, Section},
    units,
};

/// A scenario's column of the capacity table.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bounds {
    /// The median time to the first token must be under this.
    pub p50_latency: Duration,
    /// Its 99th percentile, under this.
    pub p99_latency: Duration,
    /// The share of requests without an answer must be under this.
    pub error_rate: f64,
    /// Requests a second that the whole service must be able to carry.
    pub throughput: f64,
    /// The use of the edges' and pods' processors must be under this share.
    pub cpu: f64,
    /// That of their GPUs.
    pub gpu: f64,
}

impl Bounds {
    /// The capacity table's column of that name; baseline's for every other name.
    #[must_use]
    pub fn named(name: &str) -> Self {
        let column = |latency_ms: [u64; 2], error_rate, throughput, [cpu, gpu]: [f64; 2]| {
            let [p50_latency, p99_latency] = latency_ms.map(Duration::from_millis);
            Self { p50_latency, p99_latency, error_rate, throughput, cpu, gpu }
        };
        match name {
            "peak" => column([200, 500], 0.005, 100_000.0, [0.80, 0.85]),
            "stress" => column([500, 2000], 0.05, 150_000.0, [0.95, 0.95]),
            _ => column([150, 300], 0.001, 50_000.0, [0.60, 0.70]),
        }
    }

    /// What a section says of them, the rest as they are.
    fn read(&mut self, read: &mut Section<'_>) {
        self.p50_latency = read.or("p50_latency", Under(self.p50_latency)).0;
        self.p99_latency = read.or("p99_latency", Under(self.p99_latency)).0;
        self.error_rate = read.or("error_rate", Share(self.error_rate)).0;
        self.throughput = read.or("throughput", Rate(self.throughput)).0;
        self.cpu = read.or("cpu_utilization", Share(self.cpu)).0;
        self.gpu = read.or("gpu_utilization", Share(self.gpu)).0;
    }
}

/// What must hold beside the bounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Criterion {
    /// The less urgent suffer first, useful answers go on, and the ladder of degradation is left
    /// again.
    GracefulDegradation,
    /// No answer that began is cut off, no usage and no purge is lost.
    NoDataLoss,
}

impl Criterion {
    /// Its name in a scenario.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::GracefulDegradation => "graceful_degradation",
            Self::NoDataLoss => "no_data_loss",
        }
    }
}

/// `bounds`, and `success_criteria`: a list of one-field mappings, of which some may be bounds.
pub(super) fn read(scenario: &mut Section<'_>, base: Bounds) -> (Bounds, Vec<Criterion>) {
    let (mut bounds, mut criteria) = (base, Vec::new());
    let mut read = scenario.section("bounds");
    bounds.read(&mut read);
    read.finish();
    for mut read in scenario.sections("success_criteria") {
        for criterion in [Criterion::GracefulDegradation, Criterion::NoDataLoss] {
            if read.or(criterion.name(), false) && !criteria.contains(&criterion) {
                criteria.push(criterion);
            }
        }
        bounds.read(&mut read);
        read.finish();
    }
    if bounds.p99_latency < bounds.p50_latency {
        let fix = "No 99th percentile is under the median: raise p99_latency, or lower p50_latency";
        scenario.problem("bounds", "have a p99_latency under p50_latency", fix);
    }
    (bounds, criteria)
}

/// The text behind an optional `<`.
fn bare(text: &str) -> &str {
    text.trim().trim_start_matches('<').trim()
}

/// A duration, alone or behind `<`.
struct Under(Duration);

impl Field for Under {
    const EXPECTED: &'static str = "a duration over zero such as 150ms or \"<150ms\"";
    fn parse(value: &Value) -> Option<Self> {
        let duration = units::duration(bare(value.as_str()?))?;
        (!duration.is_zero()).then_some(Self(duration))
    }
}

/// A share from 0 to 1, or per cent.
struct Share(f64);

impl Field for Share {
    const EXPECTED: &'static str = "a share over 0 and at most 1 such as 0.001, or \"<0.1%\"";
    fn parse(value: &Value) -> Option<Self> {
        let share = match value {
            Value::String(text) => {
                bare(text).strip_suffix('%')?.trim().parse::<f64>().ok()? / 100.0
            }
            other => other.as_f64()?,
        };
        (share > 0.0 && share <= 1.0).then_some(Self(share))
    }
}

/// Requests a second.
struct Rate(f64);

impl Field for Rate {
    const EXPECTED: &'static str = "requests a second such as 50000, 50,000 or 50K QPS";
    fn parse(value: &Value) -> Option<Self> {
        let rate = match value {
            Value::String(text) => {
                let text = text.trim().trim_end_matches("QPS").trim().replace(',', "");
                match text.strip_suffix('K') {
                    Some(thousands) => thousands.parse::<f64>().ok()? * 1000.0,
                    None => text.parse().ok()?,
                }
            }
            other => other.as_f64()?,
        };
        (rate > 0.0 && rate <= 1e9).then_some(Self(rate))
    }
}
