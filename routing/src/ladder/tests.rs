use fastrand::Rng;
use proptest::prelude::*;

use super::*;
use crate::start;

const SECOND: Duration = Duration::from_secs(1);
const HOLD: Duration = Duration::from_secs(60);
const WINDOW: Duration = Duration::from_secs(30);
const WELL: Seen = Seen {
    pods: Component::Well,
    regions: Component::Well,
    providers: Component::Well,
    local: false,
};

/// Pods, regions, providers (`-` absent, `o` out, `s` strained, `w` well), and `l` for the local
/// model.
fn seen(short: &str) -> Seen {
    let component = |at: usize| match short.as_bytes()[at] {
        b'-' => Component::Absent,
        b'o' => Component::Out,
        b's' => Component::Strained,
        _ => Component::Well,
    };
    Seen {
        pods: component(0),
        regions: component(1),
        providers: component(2),
        local: short.ends_with('l'),
    }
}

fn ladder() -> (Ladder, Instant) {
    (Ladder::new(LadderSettings::default()), start())
}

fn check(short: &str, expected: Level) {
    let (mut ladder, now) = ladder();
    let step = ladder.step(&seen(short), now);
    assert_eq!(ladder.level(), expected, "{short}");
    assert_eq!(step.map(|step| step.to), Some(expected).filter(|level| *level != Level::L0));
}

#[test]
fn what_is_seen_is_a_level() {
    check("www", Level::L0);
    check("sss", Level::L0);
    check("woo", Level::L0);
    check("w--", Level::L0);
    check("oww", Level::L2);
    check("oss", Level::L2);
    // Two out, and the third carries the load.
    check("oow", Level::L2);
    check("oos", Level::L3);
    check("o-s", Level::L3);
    check("s-o", Level::L3);
    check("soo", Level::L3);
    check("ooo l", Level::L3);
    check("o-- l", Level::L3);
    check("ooo", Level::L4);
    check("o--", Level::L4);
    check("--o", Level::L4);
    // A point of presence: other regions stand for pods.
    check("-ww", Level::L0);
    check("-ow", Level::L2);
    check("-os", Level::L3);
    // Providers only.
    check("--w", Level::L0);
    check("--s", Level::L0);
    check("--- l", Level::L0);
    check("---", Level::L4);
}

#[test]
fn late_first_tokens_are_l1_when_they_are_over_one_in_a_hundred_of_enough() {
    let check = |timely: usize, late: usize, expected| {
        let (mut ladder, now) = ladder();
        for _ in 0..timely {
            ladder.first_token(Duration::from_millis(500), now);
        }
        for _ in 0..late {
            ladder.first_token(Duration::from_millis(501), now);
        }
        ladder.step(&WELL, now);
        assert_eq!(ladder.level(), expected, "{timely} in time, {late} late");
    };
    check(1000, 0, Level::L0);
    check(0, 99, Level::L0);
    check(0, 100, Level::L1);
    check(99, 1, Level::L0);
    check(98, 2, Level::L1);
    check(198, 2, Level::L0);
    check(197, 3, Level::L1);
}

#[test]
fn the_percentile_that_is_shown_is_that_of_the_window() {
    let (mut ladder, now) = ladder();
    assert_eq!(ladder.p99(now), None);
    for took in 1..=100 {
        ladder.first_token(Duration::from_millis(10 * took), now);
    }
    let shown = ladder.p99(now).unwrap();
    assert!(shown.abs_diff(Duration::from_millis(990)) < Duration::from_millis(99), "{shown:?}");
    assert_eq!(ladder.p99(now + WINDOW), None);
}

#[test]
fn a_level_is_left_when_it_has_not_held_for_a_minute() {
    let (mut ladder, now) = ladder();
    let to = |step: Option<Step>| step.map(|step| (step.from, step.to, step.cause));
    assert_eq!(
        to(ladder.step(&seen("oos"), now)),
        Some((Level::L0, Level::L3, Cause::ComponentsOut))
    );
    assert_eq!(ladder.step(&seen("oww"), now + SECOND), None, "L3 lingers");
    assert_eq!(
        to(ladder.step(&seen("oww"), now + HOLD)),
        Some((Level::L3, Level::L2, Cause::NoPrimary))
    );
    assert_eq!(ladder.step(&WELL, now + HOLD * 2 - SECOND), None);
    assert_eq!(
        to(ladder.step(&WELL, now + HOLD * 2)),
        Some((Level::L2, Level::L0, Cause::AllWell))
    );
}

#[test]
fn l4_ends_with_the_first_thing_that_generates() {
    let check = |then: &str, expected| {
        let (mut ladder, now) = ladder();
        ladder.step(&seen("ooo"), now);
        ladder.step(&seen(then), now + SECOND);
        assert_eq!(ladder.level(), expected, "{then}");
    };
    check("oow", Level::L2);
    check("oos", Level::L3);
    check("woo", Level::L0);
    check("ooo l", Level::L3);
}

#[test]
fn what_the_operator_forces_wins_and_what_was_seen_meanwhile_comes_after() {
    let (mut ladder, now) = ladder();
    let forced = ladder.force(Some(Level::L3), now).unwrap();
    assert_eq!((forced.to, forced.cause), (Level::L3, Cause::Forced));
    assert_eq!(ladder.force(Some(Level::L3), now), None);
    assert_eq!(ladder.step(&seen("oww"), now), None);
    assert_eq!((ladder.level(), ladder.cause()), (Level::L3, Cause::Forced));
    let lifted = ladder.force(None, now).unwrap();
    assert_eq!((lifted.to, lifted.cause), (Level::L2, Cause::NoPrimary));
    ladder.force(Some(Level::L0), now);
    ladder.step(&seen("ooo"), now);
    assert_eq!(ladder.level(), Level::L0);
    assert_eq!(ladder.force(None, now).unwrap().to, Level::L4);
}

#[test]
fn levels_are_read_as_they_are_written() {
    for level in Level::ALL {
        assert_eq!(Level::parse(level.name()), Some(level));
    }
    assert_eq!(Level::parse("l1"), None);
    assert!(Level::ALL.is_sorted());
}

fn component() -> impl Strategy<Value = Component> {
    prop_oneof![
        1 => Just(Component::Absent),
        1 => Just(Component::Out),
        1 => Just(Component::Strained),
        3 => Just(Component::Well),
    ]
}

fn any_seen() -> impl Strategy<Value = Seen> {
    (component(), component(), component(), any::<bool>())
        .prop_map(|(pods, regions, providers, local)| Seen { pods, regions, providers, local })
}

/// Schedules of scenes: each a wait, first tokens that are late or not, and what is seen then. By
/// seeds and not by proptest, of which ten thousand would take a minute.
fn schedules(mut check: impl FnMut(u64, &mut Rng)) {
    for seed in 0..10_000 {
        check(seed, &mut Rng::with_seed(seed));
    }
}

/// With a tenth of the first tokens, or the schedules would mostly be counting.
fn quick() -> (Ladder, Instant) {
    (Ladder::new(LadderSettings { samples: 10, ..LadderSettings::default() }), start())
}

/// One scene: what was seen, and what that changed.
fn play(ladder: &mut Ladder, random: &mut Rng, now: &mut Instant) -> (Seen, Option<Step>) {
    *now += SECOND * if random.u8(..5) == 0 { random.u32(..90) } else { random.u32(..3) };
    if random.u8(..3) == 0 {
        let took = Duration::from_millis(if random.bool() { 900 } else { 90 });
        (0..12).for_each(|_| ladder.first_token(took, *now));
    }
    let mut seen = WELL;
    seen.local = random.bool();
    for component in [&mut seen.pods, &mut seen.regions, &mut seen.providers] {
        *component = match random.u8(..6) {
            0 => Component::Absent,
            1 => Component::Out,
            2 => Component::Strained,
            _ => Component::Well,
        };
    }
    (seen, ladder.step(&seen, *now))
}

#[test]
fn it_is_never_stuck() {
    schedules(|seed, random| {
        let (mut ladder, mut now) = quick();
        for _ in 0..random.u8(1..40) {
            play(&mut ladder, random, &mut now);
        }
        for _ in 0..=(HOLD + WINDOW).as_secs() / 5 {
            ladder.step(&WELL, now);
            now += 5 * SECOND;
        }
        assert_eq!((ladder.level(), ladder.cause()), (Level::L0, Cause::AllWell), "seed {seed}");
    });
}

/// A level is entered when its condition holds, and left for a better one when it has not held for as
/// long as it must; L4 is left for what holds.
#[test]
fn it_never_flaps() {
    schedules(|seed, random| {
        let (mut ladder, mut now) = quick();
        let mut held = [None; 3];
        for _ in 0..random.u8(1..40) {
            let (seen, step) = play(&mut ladder, random, &mut now);
            let holds = [ladder.slow(now), no_primary(&seen), components_out(&seen)];
            let nothing = nothing_generates(&seen);
            for (at, held) in held.iter_mut().enumerate().filter(|(at, _)| holds[*at]) {
                *held = Some(now);
                assert!(ladder.level() >= Level::ALL[at + 1], "seed {seed}");
            }
            assert_eq!(ladder.level() == Level::L4, nothing, "seed {seed}");
            let Some(Step { from, to, .. }) = step else { continue };
            let best = (0..3).rev().find(|at| holds[*at]).map_or(0, |at| at + 1);
            let best = if nothing { Level::L4 } else { Level::ALL[best] };
            if from == Level::L4 || to > from {
                assert_eq!(to, best, "seed {seed}");
            } else {
                let last = held[from as usize - 1].expect("it was entered because it held");
                assert!(now - last >= HOLD, "seed {seed}");
            }
        }
    });
}

/// As bad or worse, kind by kind.
fn worse(better: Component, by: u8) -> Component {
    match (better, by) {
        (Component::Absent, _) => Component::Absent,
        (better, 0) => better,
        (Component::Well, 1) => Component::Strained,
        _ => Component::Out,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(10_000))]

    #[test]
    fn worse_is_no_better(
        seen in any_seen(), by in [0..3u8, 0..3u8, 0..3u8], loses: bool, late in 0..5usize, later in 0..5usize,
    ) {
        let level = |seen: &Seen, late: usize| {
            let (mut ladder, now) = ladder();
            for at in 0..150 {
                ladder.first_token(if at < late { SECOND } else { Duration::ZERO }, now);
            }
            ladder.step(seen, now);
            ladder.level()
        };
        let then = Seen {
            pods: worse(seen.pods, by[0]),
            regions: worse(seen.regions, by[1]),
            providers: worse(seen.providers, by[2]),
            local: seen.local && !loses,
        };
        prop_assert!(level(&seen, late) <= level(&then, late + later), "{:?} to {:?}", seen, then);
    }
}
