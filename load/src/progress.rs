//! How far a run is, on standard error: one line that is written over on a terminal, one every ten
//! seconds elsewhere.

use std::{
    io::{IsTerminal as _, Write as _},
    time::Duration,
};

use nearhop_conf::Scenario;

use crate::{latency::millis, record::Outcome, tally::Tally};

const LINE_EVERY: Duration = Duration::from_secs(10);

/// What is shown.
#[derive(Debug)]
pub(crate) struct Progress {
    name: String,
    duration: Duration,
    rate: f64,
    shown: bool,
    terminal: bool,
    last: Option<Duration>,
}

impl Progress {
    pub(crate) fn new(planned: &Scenario, rate: f64, shown: bool) -> Self {
        let terminal = std::io::stderr().is_terminal();
        let (name, duration) = (planned.name.clone(), planned.duration);
        Self { name, duration, rate, shown, terminal, last: None }
    }

    pub(crate) fn show(&mut self, at: Duration, tally: &Tally) {
        let due = self.terminal || self.last.is_none_or(|last| at >= last + LINE_EVERY);
        if !self.shown || !due {
            return;
        }
        self.last = Some(at);
        let line = self.line(at, tally);
        let mut out = std::io::stderr().lock();
        // Progress that cannot be shown is no reason to end.
        let _ = match self.terminal {
            true => write!(out, "\r{line}\x1b[K").and_then(|()| out.flush()),
            false => writeln!(out, "{line}"),
        };
    }

    pub(crate) fn end(&self) {
        if self.shown && self.terminal {
            let _ = writeln!(std::io::stderr());
        }
    }

    fn line(&self, at: Duration, tally: &Tally) -> String {
        let outcomes = &tally.all.outcomes;
        let first = |share| tally.all.first.quantile(share).map_or(0.0, millis);
        let rest = match at < self.duration {
            true => format!("{} of {} s", at.as_secs(), self.duration.as_secs()),
            false => "waiting for the last answers".to_owned(),
        };
        format!(
            "{}: {rest}, {:.0} requests/s due; {} answered, {} errors, {} degraded, {} given up; first token p50 {:.1} ms p99 {:.1} ms",
            self.name,
            self.rate,
            outcomes.of(Outcome::Answered),
            outcomes.sum(Outcome::is_error),
            outcomes.of(Outcome::Degraded),
            outcomes.of(Outcome::GivenUp) + outcomes.of(Outcome::Superseded),
            first(0.5),
            first(0.99),
        )
    }
}
