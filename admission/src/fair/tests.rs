use std::time::Duration;

use nearhop_admin::clock;
use proptest::prelude::*;

use super::*;

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3_600);

/// Asks for a place at any time: who waits, and who had to give up for it.
fn ask<W>(
    shares: &mut Shares<W>,
    (tenant, class): (&str, u8),
    waiter: W,
    now: Instant,
) -> (Asked<W>, Vec<W>) {
    ask_within(shares, (tenant, class, HOUR), waiter, now)
}

/// The same, where it must have its place within some time.
fn ask_within<W>(
    shares: &mut Shares<W>,
    (tenant, class, within): (&str, u8, Duration),
    waiter: W,
    now: Instant,
) -> (Asked<W>, Vec<W>) {
    let (asked, shed) = shares.ask(tenant, Wish { class, start_by: now + within }, waiter, now);
    (asked, shed.into_iter().map(|(waiter, _)| waiter).collect())
}

fn waits<W>((asked, shed): &(Asked<W>, Vec<W>)) -> bool {
    matches!(asked, Asked::Waits(_)) && shed.is_empty()
}

fn enters<W>(tenant: &str, waiter: W) -> Option<Next<W>> {
    Some(Next::Enters(tenant.to_owned(), waiter))
}

/// So many places that are all held by `flood` and were given back ten times a second each, for a
/// minute.
fn taken(places: usize, waiting_max: usize) -> (Shares<u32>, Instant) {
    let (mut shares, mut now) = (Shares::new(places, waiting_max), clock::now());
    for _ in 0..600 {
        (0..places).for_each(|_| {
            assert_eq!(ask(&mut shares, ("flood", 3), 0, now).0, Asked::Entered);
        });
        now += SECOND / 10;
        (0..places).for_each(|_| shares.release("flood", now));
    }
    now += HOUR;
    (0..places).for_each(|_| drop(ask(&mut shares, ("flood", 3), 0, now)));
    (shares, now)
}

#[test]
fn a_free_place_goes_to_the_tenant_that_holds_fewest() {
    let (mut shares, now) = (Shares::new(2, 100), clock::now());
    assert_eq!(ask(&mut shares, ("flood", 0), 1, now).0, Asked::Entered);
    assert_eq!(ask(&mut shares, ("flood", 0), 2, now).0, Asked::Entered);
    for waiter in 3..10 {
        assert!(waits(&ask(&mut shares, ("flood", 0), waiter, now)));
    }
    assert!(waits(&ask(&mut shares, ("small", 0), 99, now)));
    shares.release("flood", now);
    assert_eq!(shares.next(now), enters("small", 99));
    assert_eq!(shares.next(now), None, "no place is free");
    shares.release("small", now);
    assert_eq!(shares.next(now), enters("flood", 3));
}

#[test]
fn tenants_that_hold_as_many_take_turns() {
    let (mut shares, now) = (Shares::new(1, 100), clock::now());
    ask(&mut shares, ("a", 0), "a", now);
    for _ in 0..3 {
        ask(&mut shares, ("a", 0), "a", now);
    }
    for _ in 0..3 {
        ask(&mut shares, ("b", 3), "b", now);
    }
    let mut holds = "a";
    let order: Vec<&str> = std::iter::from_fn(|| {
        shares.release(holds, now);
        let Some(Next::Enters(_, waiter)) = shares.next(now) else { return None };
        holds = waiter;
        Some(waiter)
    })
    .collect();
    assert_eq!(order, ["a", "b", "a", "b", "a", "b"]);
}

#[test]
fn inside_a_tenant_the_earlier_class_goes_first() {
    let (mut shares, now) = (Shares::new(1, 100), clock::now());
    ask(&mut shares, ("a", 0), 0, now);
    for (class, waiter) in [(2, 1), (0, 2), (1, 3), (0, 4)] {
        ask(&mut shares, ("a", class), waiter, now);
    }
    let order: Vec<i32> = std::iter::from_fn(|| {
        shares.release("a", now);
        let Some(Next::Enters(_, waiter)) = shares.next(now) else { return None };
        Some(waiter)
    })
    .collect();
    assert_eq!(order, [2, 4, 3, 1]);
}

/// The order of three that came a second after each other, of which nobody left.
#[test]
fn what_was_typed_longer_than_a_keystroke_ago_goes_last() {
    let check = |class: u8, apart: Duration, expected: [i32; 3]| {
        let (mut shares, mut now) = (Shares::new(1, 100), clock::now());
        ask(&mut shares, ("a", class), 0, now);
        for waiter in 1..=3 {
            ask(&mut shares, ("a", class), waiter, now);
            now += apart;
        }
        for expected in expected {
            // Not given back by use: how fast places become free is not the matter here.
            shares.vacate("a");
            assert_eq!(shares.next(now), enters("a", expected), "class {class}");
        }
    };
    for class in [0, 1] {
        check(class, SECOND / 100, [1, 2, 3]);
        check(class, SECOND, [3, 2, 1]);
    }
    for class in [2, 3] {
        check(class, SECOND, [1, 2, 3]);
    }
}

#[test]
fn newest_first_lasts_until_nobody_waits() {
    let (mut shares, now) = (Shares::new(1, 2), clock::now());
    let later = now + SECOND;
    ask(&mut shares, ("a", 0), 0, now);
    ask(&mut shares, ("a", 0), 1, now);
    ask(&mut shares, ("a", 0), 2, later);
    assert_eq!(ask(&mut shares, ("a", 0), 3, later).1, [1], "the oldest gives up");
    assert_eq!(ask(&mut shares, ("a", 0), 4, later).1, [2], "though it waits for no time");
    for expected in [4, 3] {
        shares.vacate("a");
        assert_eq!(shares.next(later), enters("a", expected));
    }
    (5..=6).for_each(|waiter| drop(ask(&mut shares, ("a", 0), waiter, later)));
    shares.vacate("a");
    assert_eq!(shares.next(later), enters("a", 5));
}

#[test]
fn a_full_queue_takes_its_last_from_the_longest() {
    let (mut shares, now) = (Shares::new(1, 3), clock::now());
    ask(&mut shares, ("flood", 0), 0, now);
    for waiter in 1..=3 {
        ask(&mut shares, ("flood", 0), waiter, now);
    }
    let (asked, shed) = ask(&mut shares, ("flood", 0), 4, now);
    assert!(matches!(asked, Asked::Full(4, _)) && shed.is_empty(), "its own last");
    let (asked, shed) = ask(&mut shares, ("small", 0), 9, now);
    assert!(matches!(asked, Asked::Waits(_)));
    assert_eq!(shed, [3]);
    assert_eq!(shares.waiting, 3);
}

#[test]
fn who_holds_every_place_gives_up_before_who_waits_for_one() {
    let (mut shares, now) = (Shares::new(4, 3), clock::now());
    (0..4).for_each(|waiter| drop(ask(&mut shares, ("flood", 0), waiter, now)));
    ask(&mut shares, ("flood", 0), 4, now);
    ask(&mut shares, ("small", 3), 5, now);
    ask(&mut shares, ("small", 3), 6, now);
    assert_eq!(ask(&mut shares, ("small", 3), 7, now).1, [4]);
}

#[test]
fn who_would_have_no_turn_in_time_is_refused_at_once() {
    // Twenty turns a second, for one tenant or for two.
    let (mut shares, now) = taken(2, 1_000);
    let rate = shares.rate(now).unwrap();
    assert!((rate - 20.0).abs() < 0.5, "{rate}");
    let within = |seconds: u64| ("flood", 2, Duration::from_secs(seconds));
    let first = ask_within(&mut shares, ("flood", 2, SECOND / 100), 1, now).0;
    assert_eq!(first, Asked::Full(1, SECOND), "not even the next turn");
    let waited = (0..1_000).take_while(|one| waits(&ask_within(&mut shares, within(5), *one, now)));
    assert!((95..=105).contains(&waited.count()));
    let (asked, _) = ask_within(&mut shares, within(5), 1, now);
    let Asked::Full(_, retry_after) = asked else { panic!("{asked:?}") };
    assert!((9..13).contains(&retry_after.as_secs()), "five seconds, and twice as many come");
    let quiet = shares.retry_after("small", 2, now);
    assert_eq!(quiet, SECOND, "another tenant's turn is soon");
    assert!(waits(&ask_within(&mut shares, within(9), 1, now)), "it has more time");
    assert!(waits(&ask_within(&mut shares, ("flood", 0, SECOND), 1, now)), "it goes before them");
    assert!(waits(&ask_within(&mut shares, ("small", 3, SECOND), 1, now)), "it has its own turns");
}

#[test]
fn tenants_that_wait_share_the_turns_that_are_promised() {
    let wait = |others: usize, each: usize| {
        let (mut shares, now) = taken(2, 1_000);
        for other in 0..others {
            let tenant = other.to_string();
            (0..each).for_each(|_| drop(ask(&mut shares, (&tenant, 3), 0, now)));
        }
        let own = |_: &u32| waits(&ask_within(&mut shares, ("own", 3, SECOND * 2), 0, now));
        (0..1_000).take_while(own).count()
    };
    // Twenty turns a second, for two seconds.
    assert!((38..=40).contains(&wait(0, 0)));
    assert!((18..=21).contains(&wait(1, 100)), "half of them");
    assert!((28..=32).contains(&wait(1, 10)), "what the other leaves");
    assert!((8..=11).contains(&wait(3, 100)), "a quarter");
}

#[test]
fn an_earlier_class_that_takes_every_turn_leaves_none() {
    let (mut shares, mut now) = taken(2, 10);
    for one in 0..600 {
        now += SECOND / 100;
        if one % 5 == 0 {
            shares.release("flood", now);
            shares.next(now);
        }
        shares.ask("flood", Wish { class: 1, start_by: now + SECOND }, one, now);
    }
    let (demand, rate) = (shares.arrivals.a_second(now), shares.rate(now).unwrap());
    assert!((85.0..=100.0).contains(&demand) && rate <= 20.5, "{demand} {rate}");
    let minutes = Duration::from_secs(120);
    let (asked, _) = ask_within(&mut shares, ("flood", 2, minutes), 1, now);
    assert_eq!(asked, Asked::Full(1, Duration::from_secs(60)));
    assert!(waits(&ask_within(&mut shares, ("small", 2, minutes), 1, now)));
}

#[test]
fn a_turn_that_comes_too_late_is_not_taken() {
    let (mut shares, now) = (Shares::new(1, 10), clock::now());
    ask(&mut shares, ("a", 0), 0, now);
    ask_within(&mut shares, ("a", 2, SECOND), 1, now);
    ask_within(&mut shares, ("a", 2, HOUR), 2, now);
    assert!(waits(&ask_within(&mut shares, ("a", 2, SECOND / 2), 3, now + SECOND)));
    let later = now + SECOND * 2;
    let gone = Wish { class: 0, start_by: now };
    assert_eq!(shares.ask("b", gone, 4, later).0, Asked::Late(4));
    shares.release("a", later);
    assert_eq!(shares.next(later), Some(Next::Late(1)));
    assert_eq!(shares.next(later), enters("a", 2));
    shares.release("a", later);
    assert_eq!(shares.next(later), Some(Next::Late(3)));
    assert!(shares.tenants.is_empty());
    assert_eq!(shares.ask("b", gone, 5, later).0, Asked::Entered, "nobody else wants it");
}

#[test]
fn fewer_may_wait_at_once_and_places_shrink_as_they_are_given_back() {
    let (mut shares, now) = (Shares::new(4, 10), clock::now());
    (0..14).for_each(|waiter| drop(ask(&mut shares, ("a", 3), waiter, now)));
    let shed = shares.resize(2, 7, now);
    assert_eq!(shed.into_iter().map(|(waiter, _)| waiter).collect::<Vec<_>>(), [13, 12, 11]);
    for _ in 0..2 {
        shares.release("a", now);
        assert_eq!(shares.next(now), None, "more are held than there are places");
    }
    shares.release("a", now);
    assert_eq!(shares.next(now), enters("a", 4));
    assert_eq!(shares.next(now), None);
    assert!(shares.resize(3, 7, now).is_empty());
    assert_eq!(shares.next(now), enters("a", 5));
    assert_eq!((shares.held, shares.waiting), (3, 5));
}

proptest! {
    /// Whatever happens, no place is given twice, nobody is lost and nothing is left over.
    #[test]
    fn places_and_waiters_are_conserved(
        steps in prop::collection::vec((0u8..7, 0usize..3, 0u8..5, 0u64..2_000), 1..300),
    ) {
        let names = ["a", "b", "c"];
        let (mut shares, mut now): (Shares<u32>, _) = (Shares::new(3, 8), clock::now());
        let mut waiting_max = 8;
        let mut held = [0usize; 3];
        let mut waiting: Vec<(usize, Turn, u32, Instant)> = Vec::new();
        for (id, (step, tenant, class, millis)) in steps.into_iter().enumerate() {
            let id = u32::try_from(id).unwrap();
            let start_by = now + Duration::from_millis(millis);
            let mut shed = Vec::new();
            match step {
                0..=2 => {
                    let most = shares.tenants.values().map(|share| share.held).sum::<usize>();
                    prop_assert_eq!(most, shares.held);
                    let asked = shares.ask(names[tenant], Wish { class, start_by }, id, now);
                    shed = asked.1;
                    match asked.0 {
                        Asked::Entered => held[tenant] += 1,
                        Asked::Waits(turn) => waiting.push((tenant, turn, id, start_by)),
                        Asked::Full(own, retry_after) => {
                            prop_assert_eq!(own, id);
                            prop_assert!((1..=60).contains(&retry_after.as_secs()));
                        }
                        Asked::Late(_) => prop_assert!(false, "it had time"),
                    }
                }
                3 | 4 if held[tenant] > 0 => {
                    if step == 3 {
                        shares.release(names[tenant], now);
                    } else {
                        shares.vacate(names[tenant]);
                    }
                    held[tenant] -= 1;
                }
                5 => {
                    waiting_max = usize::from(class) * 3;
                    shed = shares.resize(tenant * 2, waiting_max, now);
                }
                6 => now += Duration::from_millis(millis / 4),
                _ => if let Some((tenant, turn, id, _)) = waiting.pop() {
                    prop_assert_eq!(shares.leave(names[tenant], turn), Some(id));
                },
            }
            for (gave_up, retry_after) in shed {
                let at = waiting.iter().position(|(_, _, known, _)| *known == gave_up);
                prop_assert!(at.is_some(), "{} gave up and did not wait", gave_up);
                waiting.swap_remove(at.unwrap());
                prop_assert!((1..=60).contains(&retry_after.as_secs()));
            }
            while let Some(next) = shares.next(now) {
                let (Next::Enters(_, id) | Next::Late(id)) = next;
                let at = waiting.iter().position(|(_, _, known, _)| *known == id);
                prop_assert!(at.is_some(), "{} had its turn and did not wait", id);
                let (tenant, _, _, start_by) = waiting.swap_remove(at.unwrap());
                match next {
                    Next::Enters(name, _) => {
                        prop_assert_eq!(names[tenant], name.as_str());
                        prop_assert!(start_by >= now);
                        held[tenant] += 1;
                        prop_assert!(shares.held <= shares.places);
                    }
                    Next::Late(_) => prop_assert!(start_by < now),
                }
            }
            prop_assert_eq!(shares.held, held.iter().sum::<usize>());
            prop_assert!(shares.waiting <= waiting_max);
            prop_assert_eq!(shares.waiting, waiting.len());
            prop_assert!(waiting.is_empty() || shares.held >= shares.places, "a place lies idle");
        }
        for (tenant, turn, _, _) in waiting {
            shares.leave(names[tenant], turn);
        }
        for (tenant, count) in held.into_iter().enumerate() {
            (0..count).for_each(|_| shares.release(names[tenant], now));
        }
        prop_assert!(shares.tenants.is_empty());
        prop_assert_eq!((shares.held, shares.waiting), (0, 0));
    }

    /// However others flood, who has less than any of them is neither refused nor gives up.
    #[test]
    fn nobody_within_a_fair_share_is_shed_for_a_flood(
        steps in prop::collection::vec((0u8..8, 0u8..4, 0u64..30), 50..400),
    ) {
        let (mut shares, mut now) = taken(4, 8);
        let (mut held, mut small) = (4usize, None);
        for (step, class, millis) in steps {
            now += Duration::from_millis(millis);
            let shed = if step == 0 && small.is_none() {
                let minute = Duration::from_secs(60);
                let (asked, shed) = ask_within(&mut shares, ("small", class, minute), 1, now);
                prop_assert!(!matches!(asked, Asked::Full(..)));
                small = Some(matches!(asked, Asked::Entered));
                shed
            } else if step < 6 {
                let (asked, shed) = ask_within(&mut shares, ("flood", class, SECOND), 0, now);
                held += usize::from(matches!(asked, Asked::Entered));
                shed
            } else {
                if small == Some(true) {
                    small = None;
                    shares.release("small", now);
                } else if held > 0 {
                    held -= 1;
                    shares.release("flood", now);
                }
                while let Some(next) = shares.next(now) {
                    match next {
                        Next::Enters(_, 1) => small = Some(true),
                        Next::Enters(..) => held += 1,
                        Next::Late(1) => small = None,
                        Next::Late(_) => {}
                    }
                }
                continue;
            };
            prop_assert!(!shed.contains(&1), "it gave up for a flood");
        }
    }
}

#[tokio::test]
async fn who_waits_is_let_in_told_or_late_and_leaves_no_trace() {
    let gate = Gate::new(1, 1);
    let soon = || clock::now() + HOUR;
    let held = gate.enter("a", 0, soon(), SECOND).await.unwrap();
    let waits = tokio::spawn({
        let gate = gate.clone();
        async move { gate.enter("a", 0, clock::now() + HOUR, SECOND).await.map(drop) }
    });
    while gate.waiting() == 0 {
        tokio::task::yield_now().await;
    }
    let full = gate.enter("a", 0, soon(), SECOND).await.unwrap_err();
    assert_eq!(full, NoPlace::Full { retry_after: SECOND });
    drop(held);
    assert_eq!(waits.await.unwrap(), Ok(()));
    assert!(gate.rate() > 0.0);
    let held = gate.enter("a", 0, soon(), SECOND).await.unwrap();
    let late = gate.enter("b", 0, soon(), HOUR * 2).await.unwrap_err();
    assert_eq!(late, NoPlace::Late, "it needs more time than it has");
    // A dropped waiter leaves.
    drop(tokio::time::timeout(SECOND / 1_000, gate.enter("b", 0, soon(), SECOND)).await);
    assert_eq!(gate.waiting(), 0);
    drop(held);
    gate.resize(2, 1);
    assert_eq!(gate.places(), 2);
    let _two = (
        gate.enter("a", 0, soon(), SECOND).await.unwrap(),
        gate.enter("b", 0, soon(), SECOND).await.unwrap(),
    );
}

#[tokio::test]
async fn who_has_gone_away_holds_nothing() {
    let gate = Gate::new(1, 100);
    let held = gate.enter("a", 2, clock::now() + HOUR, SECOND).await.unwrap();
    for _ in 0..50 {
        let (sender, gone) = oneshot::channel();
        drop(gone);
        let now = clock::now();
        let wish = Wish { class: 2, start_by: now + HOUR };
        assert!(matches!(
            gate.shares(|shares| shares.ask("a", wish, sender, now)).0,
            Asked::Waits(_)
        ));
    }
    drop(held);
    assert!(gate.shares(|shares| shares.held == 0 && shares.tenants.is_empty()));
}

#[tokio::test]
async fn places_that_are_given_back_while_they_are_fewer_come_again_with_more() {
    let gate = Gate::new(2, 10);
    let enter = || gate.enter("a", 2, clock::now() + HOUR, SECOND);
    let (one, two) = (enter().await.unwrap(), enter().await.unwrap());
    gate.resize(1, 10);
    let mut waits = std::pin::pin!(enter());
    let at_once = tokio::time::timeout(Duration::ZERO, &mut waits).await;
    assert!(at_once.is_err() && gate.waiting() == 1);
    drop(one);
    assert_eq!(gate.waiting(), 1, "one place, and it is held");
    gate.resize(2, 10);
    let three = waits.await.unwrap();
    gate.resize(3, 0);
    let four = enter().await.unwrap();
    assert!(matches!(enter().await, Err(NoPlace::Full { .. })));
    drop((two, three, four));
    assert!(gate.shares(|shares| shares.held == 0 && shares.tenants.is_empty()));
}
