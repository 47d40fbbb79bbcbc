//! What became of all requests, together: by kind, by source, by second. Pure.

use std::{collections::BTreeMap, time::Duration};

use nearhop_conf::RequestKind;

use crate::{
    latency::Latencies,
    record::{Outcome, Record, Source},
};

/// How many of each outcome.
#[derive(Debug, Clone, Default)]
pub(crate) struct Outcomes([u64; Outcome::ALL.len()]);

impl Outcomes {
    fn add(&mut self, outcome: Outcome) {
        self.0[outcome as usize] += 1;
    }

    pub(crate) const fn of(&self, outcome: Outcome) -> u64 {
        self.0[outcome as usize]
    }

    pub(crate) fn sum(&self, holds: impl Fn(Outcome) -> bool) -> u64 {
        Outcome::ALL.into_iter().filter(|one| holds(*one)).map(|one| self.of(one)).sum()
    }
}

/// One kind's requests, or all.
#[derive(Debug, Clone)]
pub(crate) struct Kind {
    pub(crate) outcomes: Outcomes,
    /// To the first token, of answers and of those that were given up (at least so long).
    pub(crate) first: Latencies,
    /// To the end, of answers.
    pub(crate) total: Latencies,
    /// Between tokens.
    pub(crate) gaps: Latencies,
}

impl Kind {
    fn new() -> Self {
        let [first, total, gaps] = [(); 3].map(|()| Latencies::new());
        Self { outcomes: Outcomes::default(), first, total, gaps }
    }

    fn add(&mut self, record: &Record) {
        self.outcomes.add(record.outcome);
        if let Some(first) = record.first {
            self.first.add(first);
        }
        if record.outcome == Outcome::Answered {
            self.total.add(record.total);
        }
        record.gaps.iter().for_each(|gap| self.gaps.add(*gap));
    }

    /// Of requests that count, the share without an answer.
    pub(crate) fn error_rate(&self) -> Option<f64> {
        share(self.outcomes.sum(Outcome::is_error), self.outcomes.sum(Outcome::counts))
    }
}

/// A share of something that there is.
#[expect(clippy::cast_precision_loss, reason = "requests are far fewer than 2^52")]
pub(crate) fn share(part: u64, whole: u64) -> Option<f64> {
    (whole > 0).then(|| part as f64 / whole as f64)
}

/// Requests that were due in one second.
#[derive(Debug, Clone)]
pub(crate) struct Second {
    pub(crate) outcomes: Outcomes,
    /// By kind: those that count, and those of them that were answered.
    pub(crate) kinds: [(u64, u64); 4],
    pub(crate) first: Latencies,
    /// The highest level that an answer of this second told, by region.
    pub(crate) levels: BTreeMap<usize, u8>,
}

impl Second {
    fn new() -> Self {
        Self {
            outcomes: Outcomes::default(),
            kinds: [(0, 0); 4],
            first: Latencies::coarse(),
            levels: BTreeMap::new(),
        }
    }
}

/// All of a run.
#[derive(Debug)]
pub(crate) struct Tally {
    pub(crate) all: Kind,
    pub(crate) kinds: [Kind; 4],
    /// By where users are.
    pub(crate) regions: BTreeMap<usize, Kind>,
    /// By kind and source: how many, and the time to the first token.
    pub(crate) sources: BTreeMap<(usize, Source), (u64, Latencies)>,
    pub(crate) seconds: Vec<Second>,
    /// How much later than due requests were sent.
    pub(crate) lag: Latencies,
    /// Tokens read and written by answers that said so, and answers that did not.
    pub(crate) usage: (u64, u64),
    pub(crate) answers_without_usage: u64,
    /// Refusals that do not say when to come back.
    pub(crate) without_retry_after: u64,
}

impl Tally {
    pub(crate) fn new() -> Self {
        Self {
            all: Kind::new(),
            kinds: std::array::from_fn(|_| Kind::new()),
            regions: BTreeMap::new(),
            sources: BTreeMap::new(),
            seconds: Vec::new(),
            lag: Latencies::new(),
            usage: (0, 0),
            answers_without_usage: 0,
            without_retry_after: 0,
        }
    }

    pub(crate) fn add(&mut self, record: &Record) {
        let kind = record.kind as usize;
        self.all.add(record);
        self.kinds[kind].add(record);
        self.regions.entry(record.region).or_insert_with(Kind::new).add(record);
        if record.outcome != Outcome::NotSent {
            self.lag.add(record.lag);
        }
        if matches!(record.outcome, Outcome::Answered | Outcome::Degraded | Outcome::Superseded) {
            let source = self.sources.entry((kind, record.source));
            let (count, first) = source.or_insert_with(|| (0, Latencies::new()));
            *count += 1;
            first.add(record.first.unwrap_or(record.total));
        }
        match record.usage {
            Some((read, written)) => {
                self.usage = (self.usage.0 + read, self.usage.1 + written);
            }
            None if record.outcome == Outcome::Answered => self.answers_without_usage += 1,
            None => {}
        }
        if record.outcome.is_refusal() && !record.retry_after {
            self.without_retry_after += 1;
        }
        let second = self.second(record.due);
        second.outcomes.add(record.outcome);
        second.kinds[kind].0 += u64::from(record.outcome.counts());
        second.kinds[kind].1 += u64::from(record.outcome == Outcome::Answered);
        if let Some(first) = record.first {
            second.first.add(first);
        }
        if let Some((at, level)) = record.level {
            let known = self.second(at).levels.entry(record.region).or_default();
            *known = level.max(*known);
        }
    }

    fn second(&mut self, at: Duration) -> &mut Second {
        let at = usize::try_from(at.as_secs()).unwrap_or(usize::MAX).min(SECONDS_MAX);
        if self.seconds.len() <= at {
            self.seconds.resize_with(at + 1, Second::new);
        }
        &mut self.seconds[at]
    }

    /// Requests of a kind, of those that count and those of them that were answered.
    pub(crate) fn useful(&self, kind: RequestKind) -> (u64, u64) {
        let outcomes = &self.kinds[kind as usize].outcomes;
        (outcomes.sum(Outcome::counts), outcomes.of(Outcome::Answered))
    }
}

/// The longest run, and what is waited for after it.
const SECONDS_MAX: usize = 25 * 3600;

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn record(kind: RequestKind, due_s: u64, outcome: Outcome) -> Record {
        let first = matches!(outcome, Outcome::Answered).then_some(Duration::from_millis(20));
        Record {
            kind,
            region: 0,
            due: Duration::from_secs(due_s),
            lag: Duration::from_micros(50),
            first,
            total: Duration::from_millis(30),
            gaps: vec![Duration::from_millis(5); 2],
            outcome,
            source: "origin",
            level: None,
            retry_after: false,
            usage: Some((10, 2)),
        }
    }

    #[test]
    fn every_request_is_counted_once_and_errors_are_what_had_no_answer() {
        let mut tally = Tally::new();
        for outcome in Outcome::ALL {
            tally.add(&record(RequestKind::Fim, 3, outcome));
        }
        let all = &tally.all.outcomes;
        assert_eq!(all.sum(|_| true), Outcome::ALL.len() as u64);
        // Degraded and answered are no errors; superseded, given up, unfinished, not sent do not count.
        assert_eq!((all.sum(Outcome::is_error), all.sum(Outcome::counts)), (8, 10));
        assert_eq!(tally.all.error_rate(), Some(0.8));
        assert_eq!(tally.useful(RequestKind::Fim), (10, 1));
        assert_eq!(tally.kinds[RequestKind::Chat as usize].error_rate(), None);
        assert_eq!(tally.without_retry_after, 2);
        assert_eq!((tally.seconds.len(), tally.seconds[3].kinds[1]), (4, (10, 1)));
        assert_eq!(tally.usage, (140, 28));
    }

    #[test]
    fn levels_are_those_of_the_second_in_which_they_were_told() {
        let mut tally = Tally::new();
        for (due, told, level) in [(0, 5, 0), (1, 1, 2), (1, 1, 1)] {
            let mut record = record(RequestKind::Inline, due, Outcome::Answered);
            record.level = Some((Duration::from_secs(told), level));
            tally.add(&record);
        }
        assert_eq!(tally.seconds[1].levels[&0], 2);
        assert_eq!(tally.seconds[5].levels[&0], 0);
    }
}
