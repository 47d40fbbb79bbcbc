//! Plots as SVG, for a page that needs nothing else.

use std::fmt::Write as _;

const WIDTH: f64 = 860.0;
const HEIGHT: f64 = 240.0;
/// Left, right, top and bottom of the frame.
const MARGIN: (f64, f64, f64, f64) = (64.0, 12.0, 12.0, 34.0);
/// Readable by those who see few colours (Okabe and Ito).
const COLOURS: [&str; 6] = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9"];

/// One line of a plot.
pub(super) struct Line<'a> {
    pub(super) name: &'a str,
    pub(super) points: Vec<(f64, f64)>,
}

/// A plot.
pub(super) struct Plot<'a> {
    pub(super) lines: Vec<Line<'a>>,
    pub(super) x: &'a str,
    pub(super) y: &'a str,
    /// Logarithmic, where values differ by more than they can be seen.
    pub(super) log_y: bool,
    /// Moments that are marked, with their names.
    pub(super) marks: Vec<(f64, String)>,
    /// What stands at places of the x axis; else numbers do.
    pub(super) ticks: Vec<(f64, String)>,
}

/// Where values lie.
struct Scale {
    from: f64,
    to: f64,
    log: bool,
}

impl Scale {
    fn of(values: impl Iterator<Item = f64>, log: bool) -> Self {
        let fine = |value: &f64| value.is_finite() && (!log || *value > 0.0);
        let (mut from, mut to) =
            values.filter(fine).fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| {
                (low.min(value), high.max(value))
            });
        if from > to {
            (from, to) = if log { (1.0, 10.0) } else { (0.0, 1.0) };
        }
        if log {
            from = 10_f64.powf(from.log10().floor());
            to = 10_f64.powf(to.log10().ceil());
        } else {
            from = from.min(0.0);
        }
        if to <= from {
            to = if log { from * 10.0 } else { from + 1.0 };
        }
        Self { from, to, log }
    }

    /// From 0 to 1.
    fn place(&self, value: f64) -> f64 {
        match self.log {
            true => (value.max(self.from) / self.from).log10() / (self.to / self.from).log10(),
            false => (value - self.from) / (self.to - self.from),
        }
    }

    fn ticks(&self) -> Vec<f64> {
        if self.log {
            let steps = std::iter::successors(Some(self.from), |tick| Some(tick * 10.0));
            return steps.take_while(|tick| *tick <= self.to * 1.001).collect();
        }
        let rough = (self.to - self.from) / 5.0;
        let size = 10_f64.powf(rough.log10().floor());
        let step = [1.0, 2.0, 5.0, 10.0].map(|of| of * size).into_iter().find(|one| *one >= rough);
        let step = step.unwrap_or(rough);
        let ticks = std::iter::successors(Some(self.from), |tick| Some(tick + step));
        ticks.take_while(|tick| *tick <= self.to * 1.001).take(20).collect()
    }
}

impl Plot<'_> {
    pub(super) fn svg(&self) -> String {
        let points = || self.lines.iter().flat_map(|line| line.points.iter());
        let x = Scale::of(points().map(|point| point.0), false);
        let y = Scale::of(points().map(|point| point.1), self.log_y);
        let (left, right, top, bottom) = MARGIN;
        let (wide, high) = (WIDTH - left - right, HEIGHT - top - bottom);
        let at =
            |(px, py): (f64, f64)| (left + wide * x.place(px), top + high * (1.0 - y.place(py)));
        let mut out = format!("<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\">");
        for tick in y.ticks() {
            let (_, line) = at((x.from, tick));
            let _ = write!(
                out,
                "<line class=\"grid\" x1=\"{left}\" x2=\"{:.1}\" y1=\"{line:.1}\" y2=\"{line:.1}\"/><text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
                left + wide,
                left - 6.0,
                line + 4.0,
                plain(tick)
            );
        }
        let numbers = || x.ticks().into_iter().map(|tick| (tick, plain(tick))).collect();
        let ticks: Vec<_> = if self.ticks.is_empty() { numbers() } else { self.ticks.clone() };
        for (tick, name) in ticks {
            let (place, _) = at((tick, y.from));
            let _ = write!(
                out,
                "<text x=\"{place:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
                top + high + 16.0,
                escaped(&name)
            );
        }
        let _ = write!(
            out,
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text><text x=\"{left}\" y=\"{:.1}\">{}</text>",
            left + wide,
            HEIGHT - 4.0,
            escaped(self.x),
            HEIGHT - 4.0,
            escaped(self.y)
        );
        for (moment, name) in &self.marks {
            let (place, _) = at((*moment, y.from));
            let _ = write!(
                out,
                "<line class=\"mark\" x1=\"{place:.1}\" x2=\"{place:.1}\" y1=\"{top}\" y2=\"{:.1}\"><title>{}</title></line>",
                top + high,
                escaped(name)
            );
        }
        for (line, colour) in self.lines.iter().zip(COLOURS.iter().cycle()) {
            let fine = line.points.iter().filter(|point| point.1.is_finite());
            let path: Vec<String> =
                fine.map(|point| at(*point)).map(|(px, py)| format!("{px:.1},{py:.1}")).collect();
            let _ = write!(
                out,
                "<polyline points=\"{}\" stroke=\"{colour}\"><title>{}</title></polyline>",
                path.join(" "),
                escaped(line.name)
            );
        }
        for ((number, line), colour) in (0_u32..).zip(&self.lines).zip(COLOURS.iter().cycle()) {
            let place = left + 12.0 + f64::from(number) * 120.0;
            let _ = write!(
                out,
                "<text x=\"{place:.1}\" y=\"{:.1}\" style=\"fill:{colour}\">{}</text>",
                top + 12.0,
                escaped(line.name)
            );
        }
        out.push_str("</svg>");
        out
    }
}

/// A tick's number, without what it does not need.
fn plain(value: f64) -> String {
    match value.abs() {
        size if size >= 1e6 => format!("{}M", value / 1e6),
        size if size >= 1e4 => format!("{}K", value / 1e3),
        _ => format!("{}", (value * 1e6).round() / 1e6),
    }
}

/// Text that is no markup, whoever wrote it.
pub(super) fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plot_of_anything_has_no_number_that_is_none_and_no_markup_of_others() {
        for points in [vec![], vec![(0.0, 0.0)], vec![(0.0, f64::NAN), (1.0, 5.0)]] {
            for log_y in [false, true] {
                let lines = vec![Line { name: "<b>", points: points.clone() }];
                let marks = vec![(0.5, "<i>".to_owned())];
                let plot = Plot { lines, x: "s", y: "ms", log_y, marks, ticks: Vec::new() };
                let svg = plot.svg();
                assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
                assert!(!svg.contains("<b>") && !svg.contains("<i>"));
            }
        }
    }

    #[test]
    fn axes_have_round_numbers() {
        let ticks = |values: &[f64], log| Scale::of(values.iter().copied(), log).ticks();
        assert_eq!(ticks(&[3.0, 97.0], false), [0.0, 20.0, 40.0, 60.0, 80.0]);
        assert_eq!(ticks(&[3.0, 970.0], true), [1.0, 10.0, 100.0, 1000.0]);
    }
}
