use std::{
    cmp::Reverse,
    collections::{BinaryHeap, VecDeque},
};

use fastrand::Rng;

use super::*;
use crate::start;

/// Servers that compute so many at once and let the others wait, in the order they came.
struct Pod {
    slots: usize,
    computing: usize,
    waiting: VecDeque<usize>,
}

/// What happens next in a pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Arrival,
    First { request: usize },
    End { request: usize },
}

#[derive(Debug, Clone, Copy)]
struct Request {
    pod: usize,
    began: f64,
}

/// A pool in simulated time, fed through a limit.
struct Pool {
    limit: Limit,
    random: Rng,
    pods: Vec<Pod>,
    /// Seconds to compute one, and how much that varies: the deviation of its logarithm.
    service: f64,
    spread: f64,
    /// The share of it until the first token.
    first: f64,
    requests: Vec<Request>,
    /// By nanoseconds.
    events: BinaryHeap<Reverse<(u64, Event)>>,
    /// Behind the limit.
    queued: usize,
    in_flight: usize,
    now: f64,
    seen: Seen,
}

/// What came of a time.
#[derive(Debug, Default, Clone)]
struct Seen {
    limits: Vec<usize>,
    firsts: Vec<f64>,
    offered: usize,
    ended: usize,
}

impl Seen {
    fn limit(&mut self) -> usize {
        self.limits.sort_unstable();
        self.limits[self.limits.len() / 2]
    }

    /// What one first token in a hundred exceeds.
    fn late(&mut self) -> f64 {
        self.firsts.sort_by(f64::total_cmp);
        self.firsts[self.firsts.len() * 99 / 100]
    }
}

impl Pool {
    fn new(seed: u64, initial: usize, pods: usize, slots: usize) -> Self {
        let pods = (0..pods).map(|_| Pod { slots, computing: 0, waiting: VecDeque::new() });
        Self {
            limit: Limit::new(LimitSettings { initial, min: 1, max: 2048 }),
            random: Rng::with_seed(seed),
            pods: pods.collect(),
            service: 0.2,
            spread: 0.0,
            first: 1.0,
            requests: Vec::new(),
            events: BinaryHeap::from([Reverse((0, Event::Arrival))]),
            queued: 0,
            in_flight: 0,
            now: 0.0,
            seen: Seen::default(),
        }
    }

    fn slots(&self) -> usize {
        self.pods.iter().map(|pod| pod.slots).sum()
    }

    fn run(&mut self, seconds: f64, load: f64) -> Seen {
        let end = self.now + seconds;
        self.seen = Seen::default();
        while self.now < end {
            let Reverse((nanos, event)) = self.events.pop().unwrap();
            self.now = nanos as f64 / 1e9;
            match event {
                Event::Arrival => {
                    let rate = load * self.slots() as f64 / self.service;
                    let wait = -(1.0 - self.random.f64()).ln() / rate;
                    self.after(wait, Event::Arrival);
                    self.seen.offered += 1;
                    // Who finds more waiting than the pool computes is refused.
                    self.queued = (self.queued + 1).min(self.slots());
                    self.admit();
                }
                Event::First { request } => self.first(request),
                Event::End { request } => self.end(request),
            }
        }
        std::mem::take(&mut self.seen)
    }

    fn after(&mut self, seconds: f64, event: Event) {
        let at = Duration::from_secs_f64(self.now + seconds);
        self.events.push(Reverse((u64::try_from(at.as_nanos()).unwrap(), event)));
    }

    fn admit(&mut self) {
        while self.queued > 0 && self.in_flight < self.limit.limit() {
            self.queued -= 1;
            self.begin();
        }
    }

    fn begin(&mut self) {
        self.in_flight += 1;
        let load = |pod: &Pod| (pod.computing + pod.waiting.len()) as f64 / pod.slots as f64;
        let pod = (0..self.pods.len())
            .filter(|pod| self.pods[*pod].slots > 0)
            .min_by(|a, b| load(&self.pods[*a]).total_cmp(&load(&self.pods[*b])))
            .unwrap();
        let request = self.requests.len();
        self.requests.push(Request { pod, began: self.now });
        self.pods[pod].waiting.push_back(request);
        self.compute(pod);
    }

    fn compute(&mut self, pod: usize) {
        while self.pods[pod].computing < self.pods[pod].slots {
            let Some(request) = self.pods[pod].waiting.pop_front() else { return };
            self.pods[pod].computing += 1;
            let (u, v) = (1.0 - self.random.f64(), self.random.f64());
            let normal = (-2.0 * u.ln()).sqrt() * (std::f64::consts::TAU * v).cos();
            let takes =
                self.service * (self.spread * normal - self.spread * self.spread / 2.0).exp();
            self.after(self.first * takes, Event::First { request });
            self.after(takes, Event::End { request });
        }
    }

    fn first(&mut self, request: usize) {
        let took = self.now - self.requests[request].began;
        self.limit.sample(Duration::from_secs_f64(took), self.in_flight);
        self.seen.firsts.push(took);
        self.seen.limits.push(self.limit.limit());
    }

    fn end(&mut self, request: usize) {
        let pod = self.requests[request].pod;
        self.pods[pod].computing -= 1;
        self.compute(pod);
        self.in_flight -= 1;
        self.seen.ended += 1;
        self.admit();
    }
}

/// Under `load`: answers over what the pool could compute, or over what came where that is less.
fn look(pool: &mut Pool, seconds: f64, load: f64) -> (f64, Seen) {
    let seen = pool.run(seconds, load);
    let possible = (pool.slots() as f64 / pool.service * seconds).min(seen.offered as f64);
    (seen.ended as f64 / possible, seen)
}

/// Settles a pool of so many pods and slots, for a while that grows with how little it computes, and
/// looks at it for a minute: it must do `least` of what it could, its limit lie between its slots and
/// three times as many, and first tokens come within so many `services`.
fn check(mut pool: Pool, load: f64, (least, services): (f64, f64)) {
    let slots = pool.slots();
    pool.run(30.0 + 300.0 / slots as f64, load);
    let (throughput, mut seen) = look(&mut pool, 60.0, load);
    let (limit, p99) = (seen.limit(), seen.late() / pool.service);
    let case = format!(
        "{} pods of {}, spread {}, first token at {}, load {load}: throughput {throughput:.3}, limit {limit}, first tokens p99 {p99:.2}",
        pool.pods.len(),
        pool.pods[0].slots,
        pool.spread,
        pool.first
    );
    assert!(throughput >= least, "{case}");
    assert!(p99 <= services, "{case}");
    if load >= 1.0 {
        // One slot needs a few more: with one or two waiting, who comes a moment late leaves it idle.
        assert!((slots..=(3 * slots).max(6)).contains(&limit), "{case}");
    }
}

#[test]
fn it_settles_where_the_pool_is_busy_and_little_waits() {
    for seed in 0..3 {
        for initial in [4, 8, 64] {
            let one = || Pool::new(seed, initial, 1, 1);
            check(one(), 0.5, (0.95, 7.0));
            check(one(), 1.0, (0.85, 7.0));
            check(one(), 2.0, (0.95, 7.0));
            check(one(), 10.0, (0.95, 7.0));
            let ten = || Pool::new(seed, initial, 2, 5);
            check(ten(), 0.5, (0.98, 3.5));
            check(ten(), 1.0, (0.95, 3.5));
            check(ten(), 2.0, (0.95, 3.0));
            check(ten(), 10.0, (0.95, 3.0));
        }
        let many = || Pool::new(seed, 64, 4, 64);
        check(many(), 0.5, (0.98, 3.0));
        check(many(), 1.0, (0.95, 3.0));
        check(many(), 2.0, (0.95, 3.0));
        check(many(), 10.0, (0.95, 3.0));
    }
}

#[test]
fn it_does_not_collapse_where_service_times_vary() {
    for seed in 0..3 {
        let noisy = |spread, first| Pool { spread, first, ..Pool::new(seed, 8, 2, 5) };
        for load in [2.0, 10.0] {
            check(noisy(0.5, 1.0), load, (0.95, 5.0));
            check(noisy(1.0, 1.0), load, (0.9, 10.0));
            check(noisy(0.5, 0.2), load, (0.9, 3.0));
            check(noisy(1.0, 0.2), load, (0.75, 4.0));
        }
    }
}

#[test]
fn it_follows_a_pod_that_is_lost_or_added() {
    for seed in 0..3 {
        let mut pool = Pool::new(seed, 8, 2, 5);
        pool.run(60.0, 2.0);
        pool.pods[1].slots = 0;
        // Forty times what a request takes with one waiting for each that computes.
        pool.run(16.0, 2.0);
        let (throughput, mut seen) = look(&mut pool, 20.0, 2.0);
        assert!(throughput > 0.9 && (5..=15).contains(&seen.limit()), "{throughput}");

        pool.pods[1].slots = 5;
        pool.pods.push(Pod { slots: 5, computing: 0, waiting: VecDeque::new() });
        pool.run(16.0, 2.0);
        let (throughput, mut seen) = look(&mut pool, 20.0, 2.0);
        assert!(throughput > 0.9 && (15..=45).contains(&seen.limit()), "{throughput}");
    }
}

#[test]
fn it_learns_that_pods_became_slower_or_faster() {
    for service in [0.1, 0.4] {
        let mut pool = Pool::new(1, 8, 2, 5);
        pool.run(60.0, 2.0);
        pool.service = service;
        pool.run(120.0, 2.0);
        let (throughput, mut seen) = look(&mut pool, 60.0, 2.0);
        assert!(throughput > 0.9 && (10..=30).contains(&seen.limit()), "{throughput}");
    }
}

#[test]
fn a_quiet_time_changes_nothing() {
    for seed in 0..3 {
        let mut pool = Pool { spread: 0.5, ..Pool::new(seed, 8, 2, 5) };
        pool.run(60.0, 2.0);
        let before = pool.run(10.0, 2.0).limit();
        let quiet = pool.run(600.0, 0.1).limits.last().copied().unwrap();
        assert!(quiet >= 10 && quiet <= before * 3 / 2, "{before} before, {quiet} after");
        let (throughput, _) = look(&mut pool, 10.0, 2.0);
        assert!(throughput > 0.9, "{throughput}");
    }
}

#[test]
fn refusals_lower_it_once_a_round_trip() {
    let now = start();
    let mut limit = Limit::new(LimitSettings { initial: 100, min: 2, max: 1000 });
    for _ in 0..100 {
        limit.sample(Duration::from_secs(1), 10);
    }
    let before = limit.limit.round();
    (0..50).for_each(|_| limit.refused(now));
    assert_eq!(limit.limit.round(), (before * 0.8).round(), "they are of one moment");
    limit.refused(now + Duration::from_millis(1001));
    assert_eq!(limit.limit.round(), (before * 0.64).round());
    (0..100).for_each(|at| limit.refused(now + at * Duration::from_secs(2)));
    assert_eq!(limit.limit(), 2);
}

#[test]
fn it_stays_between_its_ends() {
    let check = |initial, min, max, expected| {
        assert_eq!(Limit::new(LimitSettings { initial, min, max }).limit(), expected);
    };
    check(8, 1, 100, 8);
    check(8, 10, 100, 10);
    check(8, 1, 4, 4);
    check(0, 0, 0, 1);
    check(8, 10, 4, 10);
}
