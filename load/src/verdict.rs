//! Whether a scenario held: each bound and each criterion beside its figure. Pure.
//!
//! Latency is the time from when a request was *due* to its first token, for every kind; of an
//! answer that comes in one piece, to its end. An answer that the user did not wait for counts with
//! the time it was waited for, so that a slow service cannot hide behind impatient users.

use std::fmt;

use nearhop_conf::{Bounds, Criterion, RequestKind};
use serde::Serialize;

use crate::{
    canary::Purges,
    latency::millis,
    record::Outcome,
    tally::{Tally, share},
};

/// What is said of one figure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// It is within its bound.
    Met,
    /// It is not.
    Missed,
    /// There is no figure.
    NotMeasured,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Met => "met",
            Self::Missed => "MISSED",
            Self::NotMeasured => "not measured",
        })
    }
}

/// One row of the capacity table.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Row {
    /// What is measured.
    pub metric: &'static str,
    /// The figure, where there is one.
    pub value: Option<f64>,
    /// Of the figure and its bound.
    pub unit: &'static str,
    /// What it must be under; for throughput, over.
    pub bound: f64,
    /// Whether it is.
    pub verdict: Verdict,
    /// How it was measured, where that is not plain.
    pub note: String,
}

/// What the run has beside the tally.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Measured {
    /// Requests a second that were due, at the height.
    pub(crate) due_rate: f64,
    /// Shares of all processors and GPUs, where the target says so.
    pub(crate) cpu: Option<f64>,
    pub(crate) gpu: Option<f64>,
    /// Tokens that the edges counted.
    pub(crate) tokens: Option<f64>,
    pub(crate) purges: Purges,
    /// The level of every region after the load, where it was waited for.
    pub(crate) level_after: Option<u8>,
}

/// The rows of the capacity table.
pub(crate) fn rows(bounds: &Bounds, tally: &Tally, measured: &Measured) -> Vec<Row> {
    let first = |share| tally.all.first.quantile(share).map(millis);
    let under = |metric, value: Option<f64>, unit, bound: f64, note: &str| {
        let verdict = match value {
            None => Verdict::NotMeasured,
            Some(value) if value < bound => Verdict::Met,
            Some(_) => Verdict::Missed,
        };
        Row { metric, value, unit, bound, verdict, note: note.to_owned() }
    };
    let percent = |share: Option<f64>| share.map(|share| share * 100.0);
    let degraded =
        share(tally.all.outcomes.of(Outcome::Degraded), tally.all.outcomes.sum(Outcome::counts));
    let beside = format!("beside it {:.3} % degraded answers", degraded.unwrap_or(0.0) * 100.0);
    vec![
        under(
            "P50 latency",
            first(0.5),
            "ms",
            millis(bounds.p50_latency),
            "from due to first token",
        ),
        under(
            "P99 latency",
            first(0.99),
            "ms",
            millis(bounds.p99_latency),
            "from due to first token",
        ),
        under(
            "error rate",
            percent(tally.all.error_rate()),
            "%",
            bounds.error_rate * 100.0,
            &beside,
        ),
        throughput(bounds, tally, measured),
        under(
            "CPU use",
            percent(measured.cpu),
            "%",
            bounds.cpu * 100.0,
            "edges and pods, of all their cores",
        ),
        under("GPU use", percent(measured.gpu), "%", bounds.gpu * 100.0, ""),
    ]
}

/// Answers a second at the height, beside the questions that were due in the same seconds: a service
/// that answers what it is asked keeps up. What the user did not wait for is in neither. Whether it
/// can carry what the capacity table says only shows where that is asked.
fn throughput(bounds: &Bounds, tally: &Tally, measured: &Measured) -> Row {
    let seconds = &tally.seconds;
    // Behind the last question nothing is due; it may lie in the middle of its second.
    let asked = |second: &crate::tally::Second| second.outcomes.sum(|_| true) > 0;
    let end = seconds.iter().rposition(asked).unwrap_or(0);
    let height = seconds.get(seconds.len().min(end / 10)..end).unwrap_or(&[]);
    let of = |holds: fn(Outcome) -> bool| -> u64 {
        height.iter().map(|second| second.outcomes.sum(holds)).sum()
    };
    let length = u64::try_from(height.len()).unwrap_or(0);
    let value = share(of(|one| matches!(one, Outcome::Answered | Outcome::Degraded)), length);
    let due = share(of(Outcome::counts), length).unwrap_or(0.0);
    let bound = due * (1.0 - bounds.error_rate);
    let verdict = match value {
        Some(value) if due > 0.0 => holds(value >= bound),
        _ => Verdict::NotMeasured,
    };
    let waited = format!("{due:.1} requests/s were due and waited for");
    let note = match measured.due_rate < bounds.throughput {
        true => format!("{waited}; for {:.0} see the capacity model", bounds.throughput),
        false => waited,
    };
    Row { metric: "throughput", value, unit: "requests/s", bound, verdict, note }
}

/// One part of a criterion.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Part {
    /// What must hold.
    pub what: &'static str,
    /// The figures.
    pub figures: String,
    /// Whether it does.
    pub verdict: Verdict,
}

/// A criterion with its parts.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Judged {
    /// As scenarios name it.
    pub criterion: &'static str,
    /// Whether the scenario asks for it; it is computed anyhow.
    pub asked: bool,
    /// Missed where one part is, not measured where one could not be.
    pub verdict: Verdict,
    /// What it is made of.
    pub parts: Vec<Part>,
}

/// Both criteria.
pub(crate) fn criteria(asked: &[Criterion], tally: &Tally, measured: &Measured) -> Vec<Judged> {
    let judged = |criterion: Criterion, parts: Vec<Part>| {
        let worst = |one| parts.iter().any(|part| part.verdict == one);
        let verdict = match () {
            () if worst(Verdict::Missed) => Verdict::Missed,
            () if worst(Verdict::NotMeasured) => Verdict::NotMeasured,
            () => Verdict::Met,
        };
        Judged { criterion: criterion.name(), asked: asked.contains(&criterion), verdict, parts }
    };
    let graceful = vec![order(tally), no_collapse(tally), told_when(tally), level(tally, measured)];
    let no_loss = vec![whole_answers(tally), usage(tally, measured), purges(measured.purges)];
    vec![judged(Criterion::GracefulDegradation, graceful), judged(Criterion::NoDataLoss, no_loss)]
}

const fn holds(holds: bool) -> Verdict {
    if holds { Verdict::Met } else { Verdict::Missed }
}

/// Fewer requests of a kind say nothing.
const ENOUGH: u64 = 50;
/// Where fewer requests suffer than this share, there is nothing to be shed.
const SUFFERING: f64 = 0.01;

/// Of a more urgent kind no smaller share is answered than of a less urgent one, but by chance.
fn order(tally: &Tally) -> Part {
    let shares: Vec<(RequestKind, f64, f64)> = RequestKind::ALL
        .into_iter()
        .filter_map(|kind| {
            let (counted, answered) = tally.useful(kind);
            let share = share(answered, counted).filter(|_| counted >= ENOUGH)?;
            #[expect(clippy::cast_precision_loss, reason = "requests are far fewer than 2^52")]
            let chance = (share * (1.0 - share) / counted as f64).sqrt();
            Some((kind, share, chance))
        })
        .collect();
    let outcomes = &tally.all.outcomes;
    let suffer = outcomes.sum(|one| one.is_error() || one == Outcome::Degraded);
    let suffering = share(suffer, outcomes.sum(Outcome::counts)).unwrap_or(0.0);
    let kept = shares.windows(2).all(|pair| {
        let (urgent, other) = (pair[0], pair[1]);
        urgent.1 >= other.1 - 2.0 * (urgent.2.powi(2) + other.2.powi(2)).sqrt() - SUFFERING
    });
    let figures: Vec<String> = shares
        .iter()
        .map(|(kind, share, _)| format!("{} {:.1} %", kind.name(), share * 100.0))
        .collect();
    Part {
        what: "the more urgent a kind, the larger the share answered",
        figures: figures.join(", "),
        verdict: match shares.len() {
            0 | 1 => Verdict::NotMeasured,
            _ => holds(suffering < SUFFERING || kept),
        },
    }
}

/// Answers a second do not fall while the load stays: the last third beside the best one.
fn no_collapse(tally: &Tally) -> Part {
    let answered: Vec<u64> =
        tally.seconds.iter().map(|second| second.outcomes.of(Outcome::Answered)).collect();
    // Behind the last request nothing is asked.
    let end = tally.seconds.iter().rposition(|second| second.outcomes.sum(|_| true) > 0);
    let third = end.map_or(0, |end| (end + 1) / 3);
    let rates: Vec<f64> = (0..3)
        .filter_map(|at| answered.get(at * third..(at + 1) * third))
        .filter_map(|part| share(part.iter().sum(), u64::try_from(part.len()).ok()?))
        .collect();
    let best = rates.iter().copied().fold(0.0, f64::max);
    let (verdict, figures) = match rates.last() {
        Some(last) if rates.len() == 3 && answered.iter().sum::<u64>() >= 2 * ENOUGH => (
            holds(*last >= best * 0.8),
            format!("{last:.1} answers/s in the last third, {best:.1} in the best"),
        ),
        _ => (Verdict::NotMeasured, "too few answers".to_owned()),
    };
    Part { what: "useful answers go on, at least 0.8 of the best third", figures, verdict }
}

fn told_when(tally: &Tally) -> Part {
    let refused = tally.all.outcomes.sum(Outcome::is_refusal);
    let figures = format!("{} of {refused} refusals did not", tally.without_retry_after);
    let verdict = holds(tally.without_retry_after == 0);
    Part { what: "every refusal says when to come back", figures, verdict }
}

/// The levels that were seen, and that they were left again.
fn level(tally: &Tally, measured: &Measured) -> Part {
    let mut seen: Vec<u8> = Vec::new();
    for second in &tally.seconds {
        let Some(highest) = second.levels.values().max() else { continue };
        if seen.last() != Some(highest) {
            seen.push(*highest);
        }
    }
    let steps: Vec<String> = seen.iter().map(|level| format!("L{level}")).collect();
    let after = measured.level_after.map_or("unknown".to_owned(), |level| format!("L{level}"));
    let verdict = match (measured.level_after, seen.is_empty()) {
        (Some(level), false) => holds(level == 0),
        _ => Verdict::NotMeasured,
    };
    let figures = format!("seen {}; after the load {after}", steps.join(" "));
    Part { what: "the ladder of degradation is left again", figures, verdict }
}

fn whole_answers(tally: &Tally) -> Part {
    let outcomes = &tally.all.outcomes;
    let (broken, whole) = (outcomes.of(Outcome::BrokenOff), outcomes.of(Outcome::Answered));
    Part {
        what: "an answer that began ends",
        figures: format!("{broken} broke off, {whole} ended"),
        verdict: if broken + whole == 0 { Verdict::NotMeasured } else { holds(broken == 0) },
    }
}

/// What clients were told they used, the edges counted; they count more: what was given up, too.
fn usage(tally: &Tally, measured: &Measured) -> Part {
    let (read, written) = tally.usage;
    let told = read + written;
    #[expect(clippy::cast_precision_loss, reason = "tokens are far fewer than 2^52")]
    let (verdict, counted) = match measured.tokens {
        Some(counted) => (holds(counted >= told as f64), format!("{counted:.0}")),
        None => (Verdict::NotMeasured, "an unknown number".to_owned()),
    };
    let figures = format!("clients were told of {told} tokens, the edges counted {counted}");
    Part { what: "no usage is lost", figures, verdict }
}

fn purges(purges: Purges) -> Part {
    let Purges { acknowledged, lost, inconclusive } = purges;
    Part {
        what: "no acknowledged purge is lost",
        figures: format!("{lost} of {acknowledged} came back, {inconclusive} rounds inconclusive"),
        verdict: if acknowledged == 0 { Verdict::NotMeasured } else { holds(lost == 0) },
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::tally::tests::record;

    fn measured() -> Measured {
        let purges = Purges { acknowledged: 3, lost: 0, inconclusive: 1 };
        Measured {
            due_rate: 4.0,
            cpu: Some(0.3),
            gpu: None,
            tokens: Some(1e6),
            purges,
            level_after: Some(0),
        }
    }

    /// Four requests a second for a minute, of which these fail.
    fn tally(fails: impl Fn(u64, RequestKind) -> Option<Outcome>) -> Tally {
        let mut tally = Tally::new();
        for second in 0..60 {
            use RequestKind::{Chat, Inline};
            for kind in [Inline, Chat, Inline, Chat] {
                let outcome = fails(second, kind).unwrap_or(Outcome::Answered);
                let mut record = record(kind, second, outcome);
                record.retry_after = true;
                record.level = Some((Duration::from_secs(second), u8::from(second == 30)));
                tally.add(&record);
            }
        }
        tally
    }

    fn verdicts(tally: &Tally, measured: &Measured) -> Vec<Vec<Verdict>> {
        let judged = criteria(&[Criterion::NoDataLoss], tally, measured);
        judged.iter().map(|one| one.parts.iter().map(|part| part.verdict).collect()).collect()
    }

    #[test]
    fn the_table_has_each_figure_beside_its_bound() {
        let rows = rows(&Bounds::named("baseline"), &tally(|_, _| None), &measured());
        let said: Vec<(&str, Verdict)> = rows.iter().map(|row| (row.metric, row.verdict)).collect();
        assert_eq!(
            said,
            [
                ("P50 latency", Verdict::Met),
                ("P99 latency", Verdict::Met),
                ("error rate", Verdict::Met),
                ("throughput", Verdict::Met),
                ("CPU use", Verdict::Met),
                ("GPU use", Verdict::NotMeasured),
            ]
        );
        assert!(rows[3].note.contains("for 50000 see the capacity model"), "{}", rows[3].note);
        let failing = tally(|second, _| second.is_multiple_of(2).then_some(Outcome::Failed));
        let rows = self::rows(&Bounds::named("baseline"), &failing, &measured());
        assert_eq!((rows[2].verdict, rows[3].verdict), (Verdict::Missed, Verdict::Missed));
        assert_eq!(rows[2].value, Some(50.0));
    }

    #[test]
    fn a_sound_run_meets_both_criteria() {
        let judged = criteria(&[Criterion::NoDataLoss], &tally(|_, _| None), &measured());
        assert!(judged.iter().all(|one| one.verdict == Verdict::Met), "{judged:#?}");
        assert_eq!([judged[0].asked, judged[1].asked], [false, true]);
        assert_eq!(judged[0].parts[3].figures, "seen L0 L1 L0; after the load L0");
    }

    #[test]
    fn each_part_sees_what_breaks_it() {
        use Verdict::{Met, Missed, NotMeasured};
        let shed = |kind| move |_, of| (of == kind).then_some(Outcome::Shed);
        // The urgent ones suffer while the others are served.
        let upside_down = tally(shed(RequestKind::Inline));
        assert_eq!(verdicts(&upside_down, &measured())[0], [Missed, Met, Met, Met]);
        let right = tally(shed(RequestKind::Chat));
        assert_eq!(verdicts(&right, &measured())[0], [Met, Met, Met, Met]);
        let collapsed = tally(|second, _| (second >= 40).then_some(Outcome::TimedOut));
        assert_eq!(verdicts(&collapsed, &measured())[0][1], Missed);
        let mut silent = record(RequestKind::Chat, 1, Outcome::Limited);
        silent.retry_after = false;
        let mut untold = tally(|_, _| None);
        untold.add(&silent);
        assert_eq!(verdicts(&untold, &measured())[0][2], Missed);
        let stuck = Measured { level_after: Some(2), ..measured() };
        assert_eq!(verdicts(&tally(|_, _| None), &stuck)[0][3], Missed);

        let cut = tally(|second, _| (second == 7).then_some(Outcome::BrokenOff));
        assert_eq!(verdicts(&cut, &measured())[1], [Missed, Met, Met]);
        let lost = Measured { tokens: Some(100.0), ..measured() };
        assert_eq!(verdicts(&tally(|_, _| None), &lost)[1], [Met, Missed, Met]);
        let purges = Purges { lost: 1, ..measured().purges };
        let lost = Measured { purges, ..measured() };
        assert_eq!(verdicts(&tally(|_, _| None), &lost)[1], [Met, Met, Missed]);
        let unknown =
            Measured { tokens: None, purges: Purges::default(), level_after: None, ..measured() };
        assert_eq!(verdicts(&tally(|_, _| None), &unknown)[1], [Met, NotMeasured, NotMeasured]);
    }
}
