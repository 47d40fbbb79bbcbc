use fastrand::Rng;

use super::*;
use crate::start;

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3600);

/// A breaker, a clock and what changed.
struct Bench {
    breaker: Breaker,
    now: Instant,
    changes: Vec<Change>,
}

impl Bench {
    fn new(settings: BreakerSettings) -> Self {
        Self { breaker: Breaker::new(settings), now: start(), changes: Vec::new() }
    }

    fn begin(&mut self) -> Option<Pass> {
        let (pass, change) = self.breaker.begin(self.now)?;
        self.changes.extend(change);
        Some(pass)
    }

    fn finish(&mut self, pass: Pass, evidence: Evidence, soft: bool) {
        let change = self.breaker.finish(pass, evidence, soft, self.now);
        self.changes.extend(change);
    }

    /// A request from its beginning to its end; one that is not let through says nothing.
    fn request(&mut self, evidence: Evidence) {
        if let Some(pass) = self.begin() {
            self.finish(pass, evidence, true);
        }
    }

    fn standing(&self) -> Standing {
        self.breaker.standing(self.now)
    }

    /// A passed check that began `before` now.
    fn check_passed(&mut self, before: Duration) {
        let change = self.breaker.check_passed(self.now - before, self.now);
        self.changes.extend(change);
    }

    /// Does what each word of a script says, as often as the number after it: requests that end `g`ood,
    /// `n`eutral, `d`ead, `f`ailing, `s`low or `m`isconfigured, `p`assed checks, `u`p and `v` down
    /// verdicts, late `l`atency, and `+` seconds.
    fn play(&mut self, script: &str) {
        script.split_whitespace().for_each(|word| self.word(word));
    }

    fn word(&mut self, word: &str) {
        let (what, count) = word.split_at(1);
        let count = count.parse().unwrap_or(1);
        if what == "+" {
            self.now += SECOND * count;
            return;
        }
        for _ in 0..count {
            match what {
                "g" => self.request(Evidence::Good),
                "n" => self.request(Evidence::Neutral),
                "d" => self.request(Evidence::Dead),
                "f" => self.request(Evidence::Failure),
                "s" => self.request(Evidence::Slow),
                "m" => self.request(Evidence::Misconfigured),
                "p" => self.check_passed(Duration::ZERO),
                "u" => self.changes.extend(self.breaker.checks(true, true, self.now)),
                "v" => self.changes.extend(self.breaker.checks(false, true, self.now)),
                "l" => self.changes.extend(self.breaker.too_slow(true, self.now)),
                _ => panic!("no such word: {word}"),
            }
        }
    }

    fn shown(&self) -> String {
        let names = self.changes.iter().map(|change| match change {
            Change::Opened(reason) => reason.name(),
            Change::HalfOpened => "half",
            Change::Closed => "closed",
        });
        names.collect::<Vec<_>>().join(" ")
    }
}

fn check(settings: BreakerSettings, script: &str, expected: &str) {
    let mut bench = Bench::new(settings);
    bench.play(script);
    assert_eq!(bench.shown(), expected, "{script}");
}

#[test]
fn the_specifications_transitions() {
    let check = |script, expected| check(BreakerSettings::PROVIDER, script, expected);
    // Closed to open: five failures, and no fewer.
    check("f4", "");
    check("f5", "failures");
    // It lets nothing through for thirty seconds.
    check("f5 +29 g9", "failures");
    // Then it is half-open, and closes after three successes.
    check("f5 +30 g", "failures half");
    check("f5 +30 g2 n9", "failures half");
    check("f5 +30 g3", "failures half closed");
    // One failure opens it again, and the count begins anew.
    check("f5 +30 f", "failures half failures");
    check("f5 +30 g2 f +29 g9", "failures half failures");
    check("f5 +30 g2 f +30 g2", "failures half failures half");
    check("f5 +30 s", "failures half slow");
    // Closed again, nothing of before counts.
    check("f5 +30 g3 f4", "failures half closed");
    check("f5 +30 g3 f5", "failures half closed failures");
}

#[test]
fn failures_count_in_a_rolling_window_and_by_their_share() {
    let check = |script, expected| check(BreakerSettings::PROVIDER, script, expected);
    check("f4 +30 f4", "");
    check("f2 +10 f2 +10 f", "failures");
    // Five in a hundred and five are under a twentieth, and in ninety-nine over.
    check("g100 f g f g f g f g f", "");
    check("g90 f g f g f g f g f", "failures");
    // In a row they are an outage, however many succeeded before.
    check("g1000 f5", "failures");
    check("g1000 f4 g f4", "");
}

#[test]
fn time_outs_open_it_when_they_come_in_a_row() {
    let check = |script, expected| check(BreakerSettings::PROVIDER, script, expected);
    check("g100 s s", "slow");
    check("g100 s g s", "");
    check("g100 s n s", "slow");
    check("g100 s +30 s", "");
}

#[test]
fn a_time_out_beside_answers_is_no_silence() {
    let mut bench = Bench::new(BreakerSettings::POD);
    let passes: Vec<Pass> = (0..4).filter_map(|_| bench.begin()).collect();
    bench.breaker.answers();
    passes.into_iter().for_each(|pass| bench.finish(pass, Evidence::Slow, true));
    assert_eq!(bench.standing(), Standing::Ready, "four");
    // Those that began later met silence.
    bench.play("s");
    assert_eq!(bench.standing(), Standing::Out(Reason::Failures), "it is the fifth that failed");
    let mut bench = Bench::new(BreakerSettings::POD);
    bench.breaker.answers();
    bench.play("s2");
    assert_eq!(bench.shown(), "slow");
}

#[test]
fn the_last_one_is_doubted_while_its_checks_fail() {
    let mut bench = Bench::new(BreakerSettings::POD);
    let down = |bench: &mut Bench, soft| {
        bench.changes.extend(bench.breaker.checks(false, soft, bench.now));
        bench.breaker.is_doubted()
    };
    assert!(down(&mut bench, false));
    bench.play("n f");
    assert!(bench.breaker.is_doubted());
    bench.play("g");
    assert!(!bench.breaker.is_doubted(), "it answers");
    assert!(down(&mut bench, false));
    bench.play("u");
    assert!(!bench.breaker.is_doubted(), "a check passed");
    assert!(down(&mut bench, false));
    bench.breaker.force(Some(Forced::Closed), bench.now);
    assert!(!bench.breaker.is_doubted(), "the operator says that it serves");
    bench.breaker.force(None, bench.now);
    assert!(!down(&mut bench, true) && bench.shown() == "checks", "it is out, which is no doubt");
    assert!(!down(&mut bench, false));
}

/// A ladder that took this for a sign would climb down whenever a dead provider's time is over.
#[test]
fn that_its_time_is_over_says_nothing_of_one_that_was_out() {
    let check = |settings, script: &str, expected| {
        let mut bench = Bench::new(settings);
        bench.play(script);
        assert_eq!(bench.breaker.is_believed(bench.now), expected, "{script}");
    };
    check(BreakerSettings::PROVIDER, "", true);
    check(BreakerSettings::PROVIDER, "f5", false);
    check(BreakerSettings::PROVIDER, "f5 +30", false);
    check(BreakerSettings::PROVIDER, "f5 +30 n", false);
    check(BreakerSettings::PROVIDER, "f5 +30 g", true);
    check(BreakerSettings::PROVIDER, "f5 +30 g3", true);
    check(BreakerSettings::POD, "d +1", false);
    check(BreakerSettings::POD, "d +1 p", true);
}

#[test]
fn what_is_dead_or_misconfigured_opens_at_once() {
    let provider = BreakerSettings::PROVIDER;
    check(provider, "g100 d", "dead");
    check(provider, "d +30 g3", "dead half closed");
    check(provider, "g100 m +9000 g9", "misconfigured");
    check(BreakerSettings::POD, "m +1 p g3", "misconfigured half closed");
    check(provider, "l +30 g3", "latency half closed");
    // What was measured before it opened does not open it again.
    check(provider, "l +30 g l g2", "latency half closed");
}

#[test]
fn a_pod_is_tried_again_after_a_check_only() {
    let check = |script, expected| check(BreakerSettings::POD, script, expected);
    check("d +9000 g9", "dead");
    check("d p g9", "dead");
    check("d +1 p g3", "dead half closed");
    // Within the window still, and forgotten.
    check("f4 d +1 p g3 f4", "dead half closed");
    let mut bench = Bench::new(BreakerSettings::POD);
    bench.play("d +1");
    bench.check_passed(Duration::from_millis(1));
    assert_eq!(bench.standing(), Standing::Out(Reason::Dead), "that check began too early");
    bench.check_passed(Duration::ZERO);
    assert_eq!(bench.standing(), Standing::Probing);
}

#[test]
fn the_checks_verdict_takes_out_and_brings_back() {
    let check = |script, expected| check(BreakerSettings::POD, script, expected);
    check("v v v +1 u g3", "checks half closed");
    // A check that passes is not yet the verdict.
    check("v +9 p g9", "checks");
    // The verdict comes before the time is over: the next check does it.
    check("v u +1 g9", "checks");
    check("v u +1 p g3", "checks half closed");
    check("d v +9 p g9", "dead");
    check("d v +9 p u g3", "dead half closed");
    check("d +1 p v", "dead half checks");
    let mut bench = Bench::new(BreakerSettings::POD);
    bench.play("d v");
    assert_eq!(bench.standing(), Standing::Out(Reason::Checks));
}

#[test]
fn a_failed_check_of_a_silent_pod_ejects_without_a_second_check() {
    let mut breaker = Breaker::new(BreakerSettings::POD);
    let now = start();
    assert_eq!(breaker.check_failed(false, true, now), None);
    assert_eq!(breaker.check_failed(true, false, now), None, "the last pod");
    assert_eq!(breaker.check_failed(true, true, now), Some(Change::Opened(Reason::Silent)));
    assert_eq!(breaker.check_failed(true, true, now), None, "one ejection is one event");
}

#[test]
fn what_may_be_our_own_slowness_never_takes_out_the_last_pod() {
    let now = start();
    let after = |evidence| {
        let mut breaker = Breaker::new(BreakerSettings::POD);
        breaker.checks(false, false, now);
        breaker.check_failed(true, false, now);
        breaker.too_slow(false, now);
        for _ in 0..9 {
            let pass = breaker.insist();
            breaker.finish(pass, evidence, false, now);
        }
        breaker.standing(now)
    };
    assert_eq!(after(Evidence::Slow), Standing::Ready);
    assert_eq!(after(Evidence::Failure), Standing::Ready);
    assert_eq!(after(Evidence::Dead), Standing::Out(Reason::Dead));
    assert_eq!(after(Evidence::Misconfigured), Standing::Out(Reason::Misconfigured));

    let mut bench = Bench::new(BreakerSettings::POD);
    for soft in [false, false, true] {
        let pass = bench.begin().unwrap();
        bench.finish(pass, Evidence::Slow, soft);
    }
    assert_eq!(bench.shown(), "slow", "they count from when others are there");
}

#[test]
fn the_last_pod_stays_half_open_and_begins_anew() {
    let mut bench = Bench::new(BreakerSettings::POD);
    bench.play("d +1 p g2");
    let pass = bench.begin().unwrap();
    bench.finish(pass, Evidence::Slow, false);
    bench.play("g2");
    assert_eq!(bench.shown(), "dead half");
    bench.play("g");
    assert_eq!(bench.shown(), "dead half closed");
}

#[test]
fn requests_that_die_together_are_one_opening() {
    let mut bench = Bench::new(BreakerSettings::POD);
    let mut passes: Vec<_> = (0..64).map(|_| bench.begin().unwrap()).collect();
    let (late, good) = (passes.pop().unwrap(), passes.pop().unwrap());
    for pass in passes {
        bench.finish(pass, Evidence::Dead, true);
    }
    assert_eq!(bench.shown(), "dead");
    bench.play("+1 p g2");
    bench.finish(late, Evidence::Dead, true);
    bench.finish(good, Evidence::Good, true);
    assert_eq!(bench.shown(), "dead half", "neither opens it again nor closes it");
    bench.play("g");
    assert_eq!(bench.shown(), "dead half closed");
}

#[test]
fn a_pod_that_breaks_requests_and_passes_checks_is_held_longer_each_time() {
    let held = |well: u32| {
        let mut bench = Bench::new(BreakerSettings::POD);
        (0..8)
            .map(|_| {
                bench.play("d");
                let retry_at = bench.breaker.view(bench.now).retry_at.unwrap();
                let held = retry_at - bench.now;
                bench.now = retry_at;
                bench.play(&format!("p g3 +{well} g"));
                held.as_secs()
            })
            .collect::<Vec<_>>()
    };
    assert_eq!(held(0), [1, 2, 4, 8, 16, 30, 30, 30]);
    assert_eq!(held(29), [1, 2, 4, 8, 16, 30, 30, 30]);
    assert_eq!(held(30), [1; 8], "one that was well for a while starts anew");
}

#[test]
fn an_answer_that_begins_is_what_half_open_asks_for_and_gives_its_place_back() {
    let mut bench = Bench::new(BreakerSettings { half_open: 2, ..BreakerSettings::PROVIDER });
    bench.play("d +31");
    let [first, second] = [bench.begin().unwrap(), bench.begin().unwrap()];
    assert_eq!((bench.begin().is_none(), bench.standing()), (true, Standing::Full));
    // Long answers, which are under way for minutes.
    let (first, _) = bench.breaker.begins(first, bench.now);
    let (second, _) = bench.breaker.begins(second, bench.now);
    assert_eq!(bench.standing(), Standing::Probing);
    let third = bench.begin().unwrap();
    let (third, change) = bench.breaker.begins(third, bench.now);
    assert_eq!((change, bench.standing()), (Some(Change::Closed), Standing::Ready));
    // Their ends count as any other's.
    bench.finish(first, Evidence::Good, true);
    bench.finish(second, Evidence::Neutral, true);
    bench.finish(third, Evidence::Dead, true);
    assert_eq!(bench.standing(), Standing::Out(Reason::Dead));
}

#[test]
fn half_open_places_are_bounded_and_come_back() {
    let mut bench = Bench::new(BreakerSettings::PROVIDER);
    bench.play("d +30");
    assert_eq!(bench.standing(), Standing::Probing);
    let mut passes: Vec<_> = (0..10).map(|_| bench.begin().unwrap()).collect();
    assert_eq!(bench.standing(), Standing::Full);
    assert!(bench.begin().is_none());
    let last_resort = bench.breaker.insist();
    bench.finish(last_resort, Evidence::Neutral, true);
    assert_eq!(bench.standing(), Standing::Full, "it took no place");
    bench.finish(passes.pop().unwrap(), Evidence::Neutral, true);
    assert_eq!(bench.standing(), Standing::Probing);
    // Opened again while nine are under way: they keep their places.
    bench.finish(passes.pop().unwrap(), Evidence::Dead, true);
    bench.play("+30");
    passes.extend((0..2).map(|_| bench.begin().unwrap()));
    assert_eq!((bench.standing(), passes.len()), (Standing::Full, 10));
    for pass in passes {
        bench.finish(pass, Evidence::Good, true);
    }
    assert_eq!(bench.shown(), "dead half dead half", "of ten only two are of this time");
    bench.play("g");
    assert_eq!(bench.standing(), Standing::Ready);
    assert_eq!(bench.breaker.view(bench.now).running, 0);
}

#[test]
fn what_the_operator_forces_wins() {
    let mut bench = Bench::new(BreakerSettings::PROVIDER);
    let force = |bench: &mut Bench, forced| {
        let change = bench.breaker.force(forced, bench.now);
        bench.changes.extend(change);
    };
    force(&mut bench, Some(Forced::Open));
    assert_eq!(bench.standing(), Standing::Out(Reason::Forced));
    bench.play("+9000");
    assert!(bench.begin().is_none());
    force(&mut bench, None);
    assert_eq!(bench.standing(), Standing::Probing);
    bench.play("m");
    force(&mut bench, Some(Forced::Closed));
    assert_eq!(bench.standing(), Standing::Ready);
    bench.play("d9");
    assert_eq!(bench.standing(), Standing::Ready);
    force(&mut bench, None);
    assert_eq!(bench.standing(), Standing::Ready, "misconfigured no more");
    assert_eq!(bench.shown(), "forced half misconfigured closed");

    let mut bench = Bench::new(BreakerSettings::PROVIDER);
    let of_before = bench.begin().unwrap();
    force(&mut bench, Some(Forced::Closed));
    force(&mut bench, None);
    bench.finish(of_before, Evidence::Misconfigured, true);
    assert_eq!(bench.shown(), "", "what was configured meanwhile is not held against it");

    let mut bench = Bench::new(BreakerSettings::POD);
    force(&mut bench, Some(Forced::Closed));
    bench.play("v");
    assert_eq!(bench.standing(), Standing::Ready);
    force(&mut bench, None);
    assert_eq!(bench.standing(), Standing::Out(Reason::Checks));
    bench.play("u");
    assert_eq!(bench.shown(), "checks half");
}

#[test]
fn an_admin_page_shows_it() {
    let mut bench = Bench::new(BreakerSettings::PROVIDER);
    bench.play("g5 f2");
    let view = bench.breaker.view(bench.now);
    assert_eq!((view.state, view.failures, view.total, view.retry_at), ("closed", 2, 7, None));
    bench.play("d");
    let view = bench.breaker.view(bench.now);
    assert_eq!((view.state, view.strikes), ("open", 1));
    assert_eq!(view.retry_at, Some(bench.now + 30 * SECOND));
    bench.play("+30 g2");
    let _pass = bench.begin().unwrap();
    let view = bench.breaker.view(bench.now);
    assert_eq!((view.state, view.successes, view.running), ("half_open", 2, 1));
}

#[test]
fn one_failure_an_hour_never_opens() {
    for settings in [BreakerSettings::PROVIDER, BreakerSettings::POD] {
        for evidence in [Evidence::Failure, Evidence::Slow] {
            for busy in [false, true] {
                let mut bench = Bench::new(settings);
                for _ in 0..1000 {
                    bench.request(evidence);
                    bench.now += HOUR;
                    if busy {
                        bench.request(Evidence::Good);
                    }
                }
                assert_eq!(bench.shown(), "");
            }
        }
    }
}

/// A schedule of random requests, checks, verdicts, overrides and waits, with as much evidence of
/// each kind as `evidence` has of it.
struct Schedule {
    bench: Bench,
    random: Rng,
    passes: Vec<Pass>,
    evidence: &'static [Evidence],
}

impl Schedule {
    fn new(seed: u64, evidence: &'static [Evidence]) -> Self {
        let mut random = Rng::with_seed(seed);
        let kind = if random.bool() { BreakerSettings::PROVIDER } else { BreakerSettings::POD };
        let half_open = random.u32(1..5);
        let bench = Bench::new(BreakerSettings { half_open, ..kind });
        Self { bench, random, passes: Vec::new(), evidence }
    }

    fn wait(&mut self) {
        let ms = if self.random.u8(..8) == 0 { 40_000 } else { 900 };
        self.bench.now += Duration::from_millis(self.random.u64(..ms));
    }

    fn begin(&mut self) {
        let lets = matches!(self.bench.standing(), Standing::Ready | Standing::Probing);
        let pass = self.bench.begin();
        assert_eq!(pass.is_some(), lets, "it lets through what it says");
        self.passes.extend(pass);
    }

    fn finish(&mut self) {
        if self.passes.is_empty() {
            return;
        }
        let pass = self.passes.swap_remove(self.random.usize(..self.passes.len()));
        let evidence = self.evidence[self.random.usize(..self.evidence.len())];
        self.bench.finish(pass, evidence, self.random.bool());
    }

    /// What is not a request.
    fn other(&mut self) {
        let (now, soft) = (self.bench.now, self.random.u8(..4) > 0);
        let breaker = &mut self.bench.breaker;
        let checked = breaker.settings.checked;
        let change = match self.random.u8(..12) {
            0 => {
                self.passes.push(breaker.insist());
                None
            }
            1..=4 if checked => breaker.check_passed(now - SECOND * self.random.u32(..2), now),
            5 if checked => breaker.check_failed(self.random.bool(), soft, now),
            6 if checked => breaker.checks(false, soft, now),
            7..=9 if checked => breaker.checks(true, soft, now),
            10 => breaker.too_slow(soft, now),
            11 if self.random.u8(..4) == 0 => {
                let forced = [None, None, Some(Forced::Open), Some(Forced::Closed)];
                breaker.force(forced[self.random.usize(..4)], now)
            }
            _ => None,
        };
        self.bench.changes.extend(change);
    }

    fn holds(&self) {
        let (breaker, now) = (&self.bench.breaker, self.bench.now);
        let places = self.passes.iter().filter(|pass| pass.place).count();
        assert!(places <= breaker.settings.half_open as usize, "half-open is bounded");
        assert_eq!(places, breaker.running as usize);
        // Whoever heard of the changes knows how it stands; of one without checks, that it may be
        // tried again is told with the first request.
        match (breaker.standing(now), self.bench.changes.last()) {
            (Standing::Ready, None | Some(Change::Closed))
            | (Standing::Out(_), Some(Change::Opened(_)))
            | (Standing::Probing | Standing::Full, Some(Change::HalfOpened)) => {}
            (Standing::Probing | Standing::Full, Some(Change::Opened(_))) => {
                assert!(!breaker.settings.checked);
            }
            mismatch => panic!("{mismatch:?}"),
        }
    }

    /// From now on all is well; it must come back.
    fn turns_good(mut self) {
        let endless = matches!(self.bench.breaker.state, State::Open { until: None, .. });
        self.bench.changes.extend(self.bench.breaker.force(None, self.bench.now));
        for pass in std::mem::take(&mut self.passes) {
            self.bench.finish(pass, Evidence::Neutral, true);
        }
        for _ in 0..=31 {
            let (now, breaker) = (self.bench.now, &mut self.bench.breaker);
            if breaker.settings.checked {
                let changes = [breaker.check_passed(now, now), breaker.checks(true, true, now)];
                self.bench.changes.extend(changes.into_iter().flatten());
            }
            self.begin();
            for pass in std::mem::take(&mut self.passes) {
                self.bench.finish(pass, Evidence::Good, true);
            }
            self.holds();
            self.bench.now += SECOND;
        }
        for _ in 0..3 {
            self.bench.request(Evidence::Good);
        }
        let misconfigured = Standing::Out(Reason::Misconfigured);
        assert!(
            self.bench.standing() == Standing::Ready
                || endless && self.bench.standing() == misconfigured
        );
    }
}

const ALL: &[Evidence] = {
    use Evidence::{Dead, Failure, Good, Misconfigured, Neutral, Slow};
    &[Good, Good, Good, Good, Good, Good, Good, Good, Neutral, Dead, Failure, Slow, Misconfigured]
};

#[test]
fn half_open_is_bounded_and_it_always_comes_back() {
    let mut seen = [0; 3];
    for seed in 0..20_000 {
        let mut schedule = Schedule::new(seed, ALL);
        for _ in 0..100 {
            match schedule.random.u8(..10) {
                0..4 => schedule.begin(),
                4..8 => schedule.finish(),
                8 => schedule.wait(),
                _ => schedule.other(),
            }
            schedule.holds();
        }
        for change in &schedule.bench.changes {
            seen[match change {
                Change::Opened(_) => 0,
                Change::HalfOpened => 1,
                Change::Closed => 2,
            }] += 1;
        }
        schedule.turns_good();
    }
    assert!(seen.into_iter().all(|count| count > 2_000), "the schedules go everywhere: {seen:?}");
}

#[test]
fn storms_of_4xx_and_of_busy_answers_open_nothing() {
    for seed in 0..10_000 {
        let mut schedule = Schedule::new(seed, &[Evidence::Neutral]);
        for _ in 0..100 {
            match schedule.random.u8(..4) {
                0..2 => schedule.begin(),
                2 => schedule.finish(),
                _ => schedule.wait(),
            }
        }
        assert_eq!(schedule.bench.changes, [], "seed {seed}");
    }
}
