//! The report as lines for a terminal.

use std::fmt::Write as _;

use super::{Ended, KindReport, Report};
use crate::{capacity::Need, latency::Summary, verdict::Verdict};

impl Report {
    /// The report in words and tables.
    #[must_use]
    pub fn text(&self) -> String {
        let mut out = String::new();
        self.heading(&mut out);
        self.table(&mut out);
        self.kinds_and_sources(&mut out);
        self.criteria_and_events(&mut out);
        self.needs(&mut out);
        let rows = self.rows.iter().filter(|row| row.verdict == Verdict::NotMeasured);
        let asked = self.criteria.iter().filter(|one| one.asked);
        let criteria = asked.filter(|one| one.verdict == Verdict::NotMeasured);
        let unknown: Vec<&str> =
            rows.map(|row| row.metric).chain(criteria.map(|one| one.criterion)).collect();
        let unknown = match unknown.is_empty() {
            true => String::new(),
            false => format!(" (not measured: {})", unknown.join(", ")),
        };
        let _ = writeln!(out, "\n{}: {}{unknown}", self.scenario, self.overall.words());
        out
    }

    fn heading(&self, out: &mut String) {
        let _ = writeln!(
            out,
            "{}{}{}: {:.1} requests/s due for {:.0} s ({} arrivals, seed {})",
            self.scenario,
            if self.description.is_empty() { "" } else { ", " },
            self.description,
            self.due_rate,
            self.planned_s,
            self.arrivals,
            self.seed
        );
        let target: Vec<String> =
            self.target.iter().map(|(name, url)| format!("{name} {url}")).collect();
        let _ = writeln!(
            out,
            "nearhop {} against {}, begun {} s after 1970",
            self.version,
            target.join(", "),
            self.began_unix_s
        );
        if !self.is_whole() {
            let _ = writeln!(
                out,
                "A FRACTION: {} of the scenario's {:.0} requests/s, 1/{} of its time",
                self.scale, self.scenario_rate, self.shortened
            );
        }
        match &self.ended {
            Ended::Finished => {}
            Ended::Interrupted => {
                let _ = writeln!(out, "ENDED EARLY by its user, after {:.0} s", self.took_s);
            }
            Ended::TargetGone(why) => {
                let _ = writeln!(out, "ENDED EARLY, after {:.0} s: {why}", self.took_s);
            }
        }
        if let Some(complaint) = &self.generator.complaint {
            let _ = writeln!(out, "NOT VALID: {complaint}");
        }
    }

    fn table(&self, out: &mut String) {
        let _ =
            writeln!(out, "\n{:14} {:>14} {:>18}   {:12} note", "", "measured", "bound", "verdict");
        for row in &self.rows {
            let value = row
                .value
                .map_or_else(|| "-".to_owned(), |value| format!("{} {}", number(value), row.unit));
            let sign = if row.metric == "throughput" { "≥" } else { "<" };
            let bound = format!("{sign} {} {}", number(row.bound), row.unit);
            let _ = writeln!(
                out,
                "{:14} {value:>14} {bound:>18}   {:12} {}",
                row.metric, row.verdict, row.note
            );
        }
    }

    fn kinds_and_sources(&self, out: &mut String) {
        let _ = writeln!(
            out,
            "\n{:8} {:>9} {:>8} {:>8} {:>9} {:>8} {:>8} {:>9}   first token p50/p99   between p50/p99   to the end p50/p99 (ms)",
            "kind", "answered", "429", "503", "degraded", "failed", "given up", "errors"
        );
        let several = if self.regions.len() > 1 { self.regions.as_slice() } else { &[] };
        for kind in self.kinds.iter().chain([&self.all]).chain(several) {
            let of = |name| kind.outcomes.get(name).copied().unwrap_or(0);
            let failed = kind.other_failures();
            let errors = kind
                .error_rate
                .map_or_else(|| "-".to_owned(), |rate| format!("{:.3} %", rate * 100.0));
            let _ = writeln!(
                out,
                "{:8} {:>9} {:>8} {:>8} {:>9} {failed:>8} {:>8} {errors:>9}   {:>19}   {:>15}   {:>18}",
                kind.name,
                of("answered"),
                of("limited_429"),
                of("shed_503"),
                of("degraded"),
                of("given_up") + of("superseded"),
                pair(&kind.first_token),
                pair(&kind.inter_token),
                pair(&kind.end_to_end)
            );
        }
        let _ = writeln!(
            out,
            "\n{:8} {:15} {:>9}   first token p50/p99 (ms)",
            "kind", "source", "answers"
        );
        for source in &self.sources {
            let _ = writeln!(
                out,
                "{:8} {:15} {:>9}   {:>19}",
                source.kind,
                source.source,
                source.count,
                pair(&source.first_token)
            );
        }
        let _ = writeln!(
            out,
            "\nThe generator: {} threads, {} ms late (p50/p99), {} not sent",
            self.generator.workers,
            pair(&self.generator.lag),
            self.generator.not_sent
        );
    }

    fn criteria_and_events(&self, out: &mut String) {
        for criterion in &self.criteria {
            let asked = if criterion.asked { "" } else { " (not asked for)" };
            let _ = writeln!(out, "\n{}{asked}: {}", criterion.criterion, criterion.verdict);
            for part in &criterion.parts {
                let _ = writeln!(out, "  {:12} {}: {}", part.verdict, part.what, part.figures);
            }
        }
        if !self.events.is_empty() {
            let _ = writeln!(out);
        }
        for event in &self.events {
            let _ = writeln!(out, "{:>7.1} s  {}: {}", event.at_s, event.what, event.said);
        }
    }

    fn needs(&self, out: &mut String) {
        let cost = |seconds: Option<f64>, unit: f64| {
            seconds.map_or_else(|| "not measured".to_owned(), |seconds| number(seconds * unit))
        };
        let _ = writeln!(
            out,
            "\nCapacity, calculated: edge CPU a request {} µs, pod CPU a generated answer {} ms, generated {} %",
            cost(self.costs.edge_cpu_s, 1e6),
            cost(self.costs.pod_cpu_s, 1e3),
            cost(self.costs.generated, 100.0)
        );
        if self.due_rate < 100.0 {
            let _ = writeln!(
                out,
                "  Most of that is what the processes do anyway: at {:.0} requests/s a request's own cost does not show",
                self.due_rate
            );
        }
        for need in &self.capacity {
            let Need { rate, planned_use, .. } = need;
            let cores = |cores: Option<f64>| {
                cores.map_or_else(|| "-".to_owned(), |cores| format!("{:.0}", cores.ceil()))
            };
            let by_path = match self.path_costs {
                Some(_) => {
                    format!(" ({} by the benchmarks' costs)", cores(need.edge_cores_by_path))
                }
                None => String::new(),
            };
            let _ = writeln!(
                out,
                "  {rate:>7.0} requests/s at {:.0} % use: {} edge cores{by_path}, {} pod cores like these",
                planned_use * 100.0,
                cores(need.edge_cores),
                cores(need.pod_cores)
            );
        }
    }
}

impl KindReport {
    /// Errors that are neither a 429 nor a 503.
    pub(super) fn other_failures(&self) -> u64 {
        ["refused_4xx", "failed_5xx", "unreachable", "timed_out", "broken_off", "garbled"]
            .into_iter()
            .filter_map(|name| self.outcomes.get(name))
            .sum()
    }
}

/// Median and 99th percentile.
fn pair(summary: &Summary) -> String {
    let [p50, p99] =
        [summary.p50_ms, summary.p99_ms].map(|ms| ms.map_or_else(|| "-".to_owned(), number));
    format!("{p50} / {p99}")
}

/// Three digits, and no more than that.
pub(super) fn number(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        size if size >= 1.0 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}
