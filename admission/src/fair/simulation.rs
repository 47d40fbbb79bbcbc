//! What of a flood is answered in time: a gate before servers that sleep, in virtual time.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap},
    time::{Duration, Instant},
};

use nearhop_admin::clock;

use super::shares::{Asked, Next, Shares, Turn, Wish};

/// Ten places for a fifth of a second, a tenth of it more or less: fifty answers a second.
const PLACES: usize = 10;
const NEEDS: Duration = Duration::from_millis(200);
const CAPACITY: f64 = 50.0;
/// Of ten thousand: how often each class asks, and how long it waits for its answer.
const MIX: [(u64, Duration); 4] = [
    (7_000, Duration::from_secs(5)),
    (1_500, Duration::from_secs(10)),
    (1_000, Duration::from_secs(120)),
    (500, Duration::from_secs(120)),
];

/// Who asks how much, as a multiple of what can be answered, for how many seconds.
#[derive(Clone, Copy)]
struct Phase {
    flood: f64,
    modest: f64,
    seconds: u64,
}

/// How a request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum End {
    Answered,
    /// It had its place, and its answer came too late.
    Wasted,
    /// Told so when it asked.
    Refused,
    /// Told so when its turn was given up for others.
    Shed,
    /// Told so when its time was over.
    Late,
}

/// When it asked and was told, of which tenant and class, and what.
#[derive(Debug, Clone, Copy)]
struct Told {
    asked: Duration,
    told: Duration,
    modest: bool,
    class: usize,
    end: End,
    /// How long it waited for its place.
    waited: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Asks {
        modest: bool,
    },
    Done {
        request: usize,
    },
    /// The time until which it waits is over.
    Due {
        request: usize,
    },
}

struct Request {
    asked: Duration,
    modest: bool,
    class: usize,
    turn: Option<Turn>,
    deadline: Duration,
    entered: Duration,
}

struct World {
    shares: Shares<usize>,
    begin: Instant,
    now: Duration,
    random: u64,
    events: BinaryHeap<Reverse<(Duration, u64, Event)>>,
    requests: Vec<Request>,
    told: BTreeMap<usize, Told>,
    waiting_most: usize,
}

fn name(modest: bool) -> &'static str {
    if modest { "modest" } else { "flood" }
}

impl World {
    /// In 0..1 (splitmix64).
    fn random(&mut self) -> f64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.random;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((bits ^ (bits >> 31)) >> 11) as f64 / (1u64 << 53) as f64
    }

    fn at(&mut self, at: Duration, event: Event) {
        let order = self.random;
        self.random();
        self.events.push(Reverse((at, order, event)));
    }

    fn end(&mut self, request: usize, end: End) {
        let Request { asked, modest, class, entered, .. } = self.requests[request];
        let waited = entered.saturating_sub(asked);
        let told = Told { asked, told: self.now, modest, class, end, waited };
        assert!(self.told.insert(request, told).is_none(), "{request} was told twice");
    }

    fn enters(&mut self, request: usize) {
        self.requests[request].entered = self.now;
        let holds = NEEDS.mul_f64(0.9 + 0.2 * self.random());
        self.at(self.now + holds, Event::Done { request });
    }

    fn asks(&mut self, modest: bool) {
        let mut dice = self.random() * 10_000.0;
        let class = MIX.iter().position(|(part, _)| {
            dice -= *part as f64;
            dice < 0.0
        });
        let class = class.unwrap_or(0);
        let (request, deadline) = (self.requests.len(), self.now + MIX[class].1);
        let (asked, entered) = (self.now, self.now);
        self.requests.push(Request { asked, modest, class, turn: None, deadline, entered });
        let start_by = deadline - NEEDS;
        let wish = Wish { class: u8::try_from(class).unwrap(), start_by: self.begin + start_by };
        let now = self.begin + self.now;
        let (outcome, shed) = self.shares.ask(name(modest), wish, request, now);
        for (request, _) in shed {
            self.end(request, End::Shed);
        }
        match outcome {
            Asked::Entered => self.enters(request),
            Asked::Waits(turn) => {
                self.requests[request].turn = Some(turn);
                self.at(start_by, Event::Due { request });
            }
            Asked::Full(..) => self.end(request, End::Refused),
            Asked::Late(_) => self.end(request, End::Late),
        }
    }

    fn happens(&mut self, event: Event) {
        match event {
            Event::Asks { modest } => self.asks(modest),
            Event::Due { request } => {
                let Request { turn, modest, .. } = self.requests[request];
                let turn = turn.expect("who has a time to wait until waits");
                if self.shares.leave(name(modest), turn).is_some() {
                    self.end(request, End::Late);
                }
            }
            Event::Done { request } => {
                let Request { modest, deadline, .. } = self.requests[request];
                self.shares.release(name(modest), self.begin + self.now);
                let in_time = self.now <= deadline;
                self.end(request, if in_time { End::Answered } else { End::Wasted });
            }
        }
        while let Some(next) = self.shares.next(self.begin + self.now) {
            match next {
                Next::Enters(_, request) => self.enters(request),
                Next::Late(request) => self.end(request, End::Late),
            }
        }
        self.waiting_most = self.waiting_most.max(self.shares.waiting);
    }
}

/// Runs phases one after another, and then until nobody waits. Arrivals are those of many who know
/// nothing of each other, nor of what is answered.
fn run(phases: &[Phase], waiting_max: usize, seed: u64) -> World {
    let mut world = World {
        shares: Shares::new(PLACES, waiting_max),
        begin: clock::now(),
        now: Duration::ZERO,
        random: seed,
        events: BinaryHeap::new(),
        requests: Vec::new(),
        told: BTreeMap::new(),
        waiting_most: 0,
    };
    let mut begin = Duration::ZERO;
    for phase in phases {
        let end = begin + Duration::from_secs(phase.seconds);
        for (modest, load) in [(false, phase.flood), (true, phase.modest)] {
            let mut at = begin;
            loop {
                let gap = -(1.0 - world.random()).ln() / (load * CAPACITY);
                // Who asks for nothing never comes.
                at = at.saturating_add(Duration::try_from_secs_f64(gap).unwrap_or(Duration::MAX));
                if at >= end {
                    break;
                }
                world.at(at, Event::Asks { modest });
            }
        }
        begin = end;
    }
    while let Some(Reverse((at, _, event))) = world.events.pop() {
        world.now = at;
        world.happens(event);
    }
    assert_eq!(world.told.len(), world.requests.len(), "a waiter without an answer");
    assert!(world.shares.tenants.is_empty() && world.shares.held == 0);
    world
}

impl World {
    /// Those that asked in these seconds.
    fn asked(&self, seconds: std::ops::Range<u64>) -> impl Iterator<Item = &Told> {
        self.told.values().filter(move |told| seconds.contains(&told.asked.as_secs()))
    }

    /// Answers in time that were given in these seconds, a second, by class.
    fn goodput(&self, seconds: std::ops::Range<u64>) -> [f64; 4] {
        let mut answered = [0.0; 4];
        let length = (seconds.end - seconds.start) as f64;
        let told = self.told.values().filter(|told| seconds.contains(&told.told.as_secs()));
        for told in told.filter(|told| told.end == End::Answered) {
            answered[told.class] += 1.0 / length;
        }
        answered
    }
}

/// Part of those that were answered in time, by class.
fn answered<'a>(told: impl Iterator<Item = &'a Told>) -> [f64; 4] {
    let mut counts = [(0u32, 0u32); 4];
    for told in told {
        let (all, answered) = &mut counts[told.class];
        *all += 1;
        *answered += u32::from(told.end == End::Answered);
    }
    counts.map(|(all, answered)| f64::from(answered) / f64::from(all.max(1)))
}

/// A minute at each load, and how it was in the second half, when it had settled.
const LOADS: [f64; 5] = [1.0, 2.0, 4.0, 10.0, 0.5];
const MINUTE: u64 = 60;

fn flood(seed: u64) -> World {
    let phases = LOADS.map(|load| Phase { flood: load, modest: 0.0, seconds: MINUTE });
    run(&phases, 256, seed)
}

fn settled(phase: u64) -> std::ops::Range<u64> {
    phase * MINUTE + MINUTE / 2..(phase + 1) * MINUTE
}

fn table(world: &World) -> String {
    use std::fmt::Write;
    let mut table = String::from(
        "load  goodput/s  inline fim chat agent /s      answered of class %      refused shed late wasted /s   told after ms p50 p99   waited ms p50 p99\n",
    );
    for (phase, load) in (0..).zip(LOADS) {
        let goodput = world.goodput(settled(phase));
        let part = answered(world.asked(settled(phase))).map(|part| part * 100.0);
        let of = |ends: &[End]| {
            let ended = world.asked(settled(phase)).filter(|told| ends.contains(&told.end));
            ended.copied().collect::<Vec<_>>()
        };
        let a_second = |end| of(&[end]).len() as f64 / (MINUTE / 2) as f64;
        let quantiles = |mut all: Vec<Duration>| {
            all.sort();
            let at = |part: usize| all.get(all.len() * part / 100).map_or(0, Duration::as_millis);
            (at(50), at(99))
        };
        let refused = of(&[End::Refused, End::Shed]);
        let refused = quantiles(refused.iter().map(|one| one.told - one.asked).collect());
        let waited = quantiles(of(&[End::Answered]).iter().map(|one| one.waited).collect());
        writeln!(
            table,
            "{load:>4}x {:>8.1}   {goodput:>5.1?}   {part:>5.1?}   {:.1} {:.1} {:.1} {:.1}   {refused:?}   {waited:?}",
            goodput.iter().sum::<f64>(),
            a_second(End::Refused),
            a_second(End::Shed),
            a_second(End::Late),
            a_second(End::Wasted),
        )
        .unwrap();
    }
    table
}

#[test]
fn a_flood_costs_no_goodput_and_its_first_classes_have_it() {
    for seed in 1..=3 {
        let world = flood(seed);
        let table = table(&world);
        println!("{table}most waiting {}", world.waiting_most);
        let goodput: Vec<[f64; 4]> = (0..5).map(|phase| world.goodput(settled(phase))).collect();
        let total: Vec<f64> = goodput.iter().map(|classes| classes.iter().sum()).collect();
        let peak = total.iter().copied().fold(0.0, f64::max);
        assert!(total[3] >= 0.9 * peak, "{table}");
        let inline = |phase: usize| goodput[phase][0] / total[phase];
        assert!(inline(0) < 0.8 && inline(1) > 0.98 && inline(3) > 0.98, "{table}");
        // In the order of classes, each is answered at least as well as those after it.
        for phase in 0..4 {
            let part = answered(world.asked(settled(phase)));
            assert!(part.is_sorted_by(|one, other| *one >= *other - 0.02), "{table}");
        }
        assert!(world.waiting_most <= 256);
        let wasted = world.told.values().filter(|told| told.end == End::Wasted).count();
        assert!(wasted * 1_000 < world.told.len(), "{wasted} places were wasted");
        assert!(
            world.told.values().all(|told| told.end != End::Refused || told.told == told.asked)
        );
    }
}

#[test]
fn after_a_flood_refusals_soon_end() {
    for seed in 1..=5 {
        let world = flood(seed);
        let end = 4 * MINUTE;
        let refused = |second: &u64| {
            let mut asked = world.asked(*second..second + 1);
            asked.any(|told| told.end != End::Answered)
        };
        let normal = (end..end + MINUTE).find(|second| !refused(second)).unwrap() - end;
        let last = (end..end + MINUTE).rev().find(refused).map_or(0, |second| second + 1 - end);
        println!(
            "seed {seed}: first second without a refusal {normal}, last with one before {last}"
        );
        assert!(normal <= 3, "{normal}");
        assert!(last <= 10, "{last}");
    }
}

#[test]
fn beside_a_flood_a_modest_tenant_is_served_as_if_alone() {
    let phases = [0.0, 10.0].map(|flood| Phase { flood, modest: 0.2, seconds: MINUTE });
    let world = run(&phases, 256, 7);
    let of = |phase| {
        let told: Vec<Told> =
            world.asked(settled(phase)).filter(|told| told.modest).copied().collect();
        let answered = told.iter().filter(|told| told.end == End::Answered).count();
        let waited = told.iter().map(|told| told.waited).max().unwrap_or_default();
        println!("{answered} of {}, waited at most {waited:?}", told.len());
        (answered as f64 / told.len() as f64, waited)
    };
    let ((alone, _), (beside, waited)) = (of(0), of(1));
    assert!(alone > 0.999 && beside > 0.999, "{alone} {beside}");
    assert!(waited < Duration::from_secs(1), "{waited:?}");
}
