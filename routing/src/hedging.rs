//! What hedging brings: requests on pods, in virtual time. Tests only.
//!
//! Requests arrive whatever the pods do. First tokens take a lognormal time by prompt length and by
//! how busy the pod is; 3 % are 20 to 50 times slower, for no reason. At most 5 % of the requests
//! are hedged: the other attempt goes to another pod, the first answer wins, the loser is given up.

use std::{cmp::Reverse, collections::BinaryHeap, time::Duration};

use crate::latency::Pace;

const REQUESTS: usize = 40_000;
const PODS: usize = 10;
/// Attempts in progress that make a pod twice as slow.
const SLOTS: f64 = 16.0;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Arrives,
    IsLate(usize),
    Answers(usize, usize),
}

struct Request {
    bytes: usize,
    /// Pod and beginning, nanoseconds; the second is the hedge.
    attempts: Vec<(usize, u64)>,
    done: bool,
}

/// When to hedge, given what is known and the prompt's length.
type Rule = fn(&Pace, usize) -> Option<Duration>;

struct World {
    now: u64,
    events: BinaryHeap<Reverse<(u64, Event)>>,
    requests: Vec<Request>,
    in_flight: [usize; PODS],
    pace: Pace,
    spread: f64,
    hedges: usize,
    took: Vec<u64>,
}

/// Of one run: seconds, and the share of requests that had a second attempt.
#[derive(Debug, Clone, Copy)]
struct Measured {
    p50: f64,
    p99: f64,
    extra: f64,
}

fn nanos(seconds: f64) -> u64 {
    Duration::from_secs_f64(seconds).as_nanos().try_into().unwrap()
}

/// The same for the same attempt in every run, so that runs differ by their rule alone.
fn dice(request: usize, attempt: usize) -> fastrand::Rng {
    let mut mixed = fastrand::Rng::with_seed((request * 2 + attempt) as u64);
    fastrand::Rng::with_seed(mixed.u64(..))
}

fn normal(dice: &mut fastrand::Rng) -> f64 {
    let (length, turn) = (1.0 - dice.f64(), dice.f64());
    (-2.0 * length.ln()).sqrt() * (std::f64::consts::TAU * turn).cos()
}

impl World {
    fn at(&mut self, seconds: f64, event: Event) {
        self.events.push(Reverse((self.now + nanos(seconds), event)));
    }

    /// The less busy of two pods, none of which was asked before.
    fn attempt(&mut self, request: usize) {
        let attempt = self.requests[request].attempts.len();
        let mut dice = dice(request, attempt);
        let tried = self.requests[request].attempts.first().map(|(pod, _)| *pod);
        let mut draw = || {
            let pod = dice.usize(..PODS);
            if Some(pod) == tried { (pod + 1) % PODS } else { pod }
        };
        let (first, second) = (draw(), draw());
        let pod = if self.in_flight[second] < self.in_flight[first] { second } else { first };
        let bytes = self.requests[request].bytes;
        let base = (0.03 + 5e-6 * bytes as f64) * (1.0 + self.in_flight[pod] as f64 / SLOTS);
        let straggles = if dice.f64() < 0.03 { 20.0 + 30.0 * dice.f64() } else { 1.0 };
        self.at(
            base * (self.spread * normal(&mut dice)).exp() * straggles,
            Event::Answers(request, attempt),
        );
        self.in_flight[pod] += 1;
        self.requests[request].attempts.push((pod, self.now));
    }

    fn happens(&mut self, event: Event, rule: Rule) {
        match event {
            Event::Arrives => {
                let request = self.requests.len();
                let mut dice = dice(request, 1 << 32);
                let bytes = 1 << dice.usize(7..15);
                let bytes = bytes + dice.usize(..bytes);
                self.requests.push(Request { bytes, attempts: Vec::new(), done: false });
                self.attempt(request);
                if let Some(late) = rule(&self.pace, bytes) {
                    self.at(late.as_secs_f64(), Event::IsLate(request));
                }
                if request + 1 < REQUESTS {
                    self.at(-(1.0 - dice.f64()).ln() / 200.0, Event::Arrives);
                }
            }
            Event::IsLate(request) => {
                let within = (self.hedges + 1) * 20 <= self.requests.len();
                if within && !self.requests[request].done {
                    self.hedges += 1;
                    self.attempt(request);
                }
            }
            Event::Answers(request, _) if self.requests[request].done => {}
            Event::Answers(request, _) => {
                let ended = &mut self.requests[request];
                ended.done = true;
                self.took.push(self.now - ended.attempts[0].1);
                for (pod, began) in &ended.attempts {
                    self.in_flight[*pod] -= 1;
                    self.pace.add(ended.bytes, Duration::from_nanos(self.now - began));
                }
            }
        }
    }
}

fn run(spread: f64, rule: Rule) -> Measured {
    let mut world = World {
        now: 0,
        events: BinaryHeap::new(),
        requests: Vec::new(),
        in_flight: [0; PODS],
        pace: Pace::new(),
        spread,
        hedges: 0,
        took: Vec::new(),
    };
    world.at(0.0, Event::Arrives);
    while let Some(Reverse((now, event))) = world.events.pop() {
        world.now = now;
        world.happens(event, rule);
    }
    assert_eq!(world.took.len(), REQUESTS, "every request is answered once");
    world.took.sort_unstable();
    let at = |percent: usize| world.took[REQUESTS * percent / 100] as f64 / 1e9;
    Measured { p50: at(50), p99: at(99), extra: world.hedges as f64 / REQUESTS as f64 }
}

const NEVER: Rule = |_, _| None;
const OURS: Rule = Pace::hedge_after;
/// What was rejected: the 95th percentile or three times the median, whichever is sooner.
const BY_MEDIAN: Rule = |pace, bytes| {
    let limit = pace.percentile(95)?.min(3.0 * pace.percentile(50)?);
    Some(pace.expected(bytes)?.mul_f64(limit))
};

#[test]
fn hedging_halves_the_99th_percentile_with_one_attempt_more_in_twenty() {
    for spread in [0.1, 0.3, 0.5, 0.7, 0.9, 1.2, 1.5] {
        let (without, with) = (run(spread, NEVER), run(spread, OURS));
        println!("spread {spread}: {without:?} becomes {with:?}");
        assert!(with.p99 <= 0.5 * without.p99, "spread {spread}: {without:?}, {with:?}");
        assert!(with.p50 <= without.p50, "spread {spread}: {without:?}, {with:?}");
        assert!(0.0 < with.extra && with.extra <= 0.05, "spread {spread}: {with:?}");
    }
}

/// Three times the median is an ordinary time where times spread widely.
#[test]
fn a_limit_by_the_median_would_spend_the_budget_on_what_is_not_late() {
    let (without, with) = (run(0.9, NEVER), run(0.9, BY_MEDIAN));
    assert!(with.p99 > 0.5 * without.p99, "{without:?}, {with:?}");
}
