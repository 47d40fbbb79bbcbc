//! The report as one page that needs nothing else: no script, no font, no network.

use std::fmt::Write as _;

use super::{
    Ended, Report,
    plot::{Line, Plot, escaped},
    text::number,
};

const STYLE: &str = "body{font:15px/1.5 system-ui,sans-serif;max-width:920px;margin:2em auto;padding:0 1em;color:#222}\
table{border-collapse:collapse;margin:1em 0}td,th{padding:.2em .8em;text-align:right;border-bottom:1px solid #ddd}\
td:first-child,th:first-child,td.left{text-align:left}.missed{color:#b00;font-weight:600}.met{color:#070}\
.not_measured{color:#777}.banner{padding:.6em 1em;background:#fff3cd;border-left:4px solid #e69f00}\
svg{width:100%;background:#fff}svg text{font-size:11px;fill:#444}polyline{fill:none;stroke-width:1.5}\
.grid{stroke:#eee}.mark{stroke:#b00;stroke-dasharray:4 3}";

impl Report {
    /// The page.
    #[must_use]
    pub fn html(&self) -> String {
        let title = escaped(&format!("{}: {}", self.scenario, self.overall.words()));
        let mut out = format!(
            "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>{title}</title><style>{STYLE}</style><h1>{title}</h1>"
        );
        let _ = write!(out, "<p>{}</p>", escaped(&self.description));
        if !self.is_whole() {
            let _ = write!(
                out,
                "<p class=\"banner\">A fraction: {} of the scenario's {:.0} requests/s, 1/{} of its time. It is no pass of the scenario.</p>",
                self.scale, self.scenario_rate, self.shortened
            );
        }
        if self.ended != Ended::Finished {
            let _ = write!(out, "<p class=\"banner\">Ended early, after {:.0} s</p>", self.took_s);
        }
        if let Some(complaint) = &self.generator.complaint {
            let _ = write!(out, "<p class=\"banner\">Not valid: {}</p>", escaped(complaint));
        }
        self.bounds(&mut out);
        self.plots(&mut out);
        self.tables(&mut out);
        // Everything in words once more, with what has no place above.
        let _ = write!(out, "<h2>In full</h2><pre>{}</pre></html>", escaped(&self.text()));
        out
    }

    fn bounds(&self, out: &mut String) {
        out.push_str("<table><tr><th><th>measured<th>bound<th>verdict<th>");
        for row in &self.rows {
            let value = row.value.map_or_else(|| "–".to_owned(), number);
            let class = format!("{:?}", row.verdict).to_lowercase();
            let class = if class == "notmeasured" { "not_measured" } else { &class };
            let _ = write!(
                out,
                "<tr><td>{}<td>{value} {unit}<td>{} {} {unit}<td class=\"{class}\">{}<td class=\"left\">{}",
                row.metric,
                if row.metric == "throughput" { "≥" } else { "&lt;" },
                number(row.bound),
                row.verdict,
                escaped(&row.note),
                unit = row.unit
            );
        }
        out.push_str("</table>");
    }

    fn plots(&self, out: &mut String) {
        let marks: Vec<(f64, String)> = self
            .events
            .iter()
            .map(|event| (event.at_s, format!("{}: {}", event.what, event.said)))
            .collect();
        let over_time = |name: &'static str, of: &dyn Fn(&super::SecondReport) -> Option<f64>| {
            let seconds = (0_u32..).map(f64::from).zip(&self.seconds);
            let points = seconds.filter_map(|(at, second)| Some((at, of(second)?))).collect();
            Line { name, points }
        };
        #[expect(clippy::cast_precision_loss, reason = "requests of one second are few")]
        let count = |number: u64| Some(number as f64);
        let plot = |lines, y, log_y| Plot {
            lines,
            x: "seconds",
            y,
            log_y,
            marks: marks.clone(),
            ticks: Vec::new(),
        };
        let requests = vec![
            over_time("due", &|second| count(second.due)),
            over_time("answered", &|second| count(second.answered)),
            over_time("429 and 503", &|second| count(second.refused)),
            over_time("degraded", &|second| count(second.degraded)),
            over_time("failed", &|second| count(second.failed)),
            over_time("given up", &|second| count(second.given_up)),
        ];
        let _ = write!(
            out,
            "<h2>Requests by the second in which they were due</h2>{}",
            plot(requests, "a second", false).svg()
        );
        let latency = vec![
            over_time("p50", &|second| second.p50_ms),
            over_time("p99", &|second| second.p99_ms),
        ];
        let _ =
            write!(out, "<h2>Time to the first token, ms</h2>{}", plot(latency, "ms", true).svg());
        let level = vec![over_time("level", &|second| second.level.map(f64::from))];
        let _ = write!(out, "<h2>Level of degradation</h2>{}", plot(level, "L", false).svg());
        // Nines lie as far from each other as tens.
        let nines = |share: f64| -(1.0 - share).max(1e-4).log10();
        let curves = self.curves.iter().map(|(name, points)| Line {
            name,
            points: points.iter().map(|(share, ms)| (nines(*share), *ms)).collect(),
        });
        let ticks = [0.0, 0.5, 0.9, 0.99, 0.999]
            .map(|share| (nines(share), format!("{} %", share * 100.0)));
        let distribution = Plot {
            lines: curves.collect(),
            x: "share of requests",
            y: "ms",
            log_y: true,
            marks: Vec::new(),
            ticks: ticks.to_vec(),
        };
        let _ = write!(out, "<h2>Time to the first token, by kind</h2>{}", distribution.svg());
    }

    fn tables(&self, out: &mut String) {
        out.push_str("<h2>Where answers came from</h2><table><tr><th>kind<th>source<th>answers<th>first token p50<th>p99 (ms)");
        for source in &self.sources {
            let of = |ms: Option<f64>| ms.map_or_else(|| "–".to_owned(), number);
            let _ = write!(
                out,
                "<tr><td>{}<td class=\"left\">{}<td>{}<td>{}<td>{}",
                source.kind,
                source.source,
                source.count,
                of(source.first_token.p50_ms),
                of(source.first_token.p99_ms)
            );
        }
        out.push_str("</table>");
    }
}
