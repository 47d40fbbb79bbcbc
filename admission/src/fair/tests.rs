use std::time::Duration;

use nearhop_admin::clock;
use proptest::prelude::*;

use super::*;

#[test]
fn a_free_place_goes_to_the_tenant_that_holds_fewest() {
    let mut shares = Shares::new(2, 100);
    assert_eq!(shares.ask("flood", 0, 1), Asked::Entered);
    assert_eq!(shares.ask("flood", 0, 2), Asked::Entered);
    for waiter in 3..10 {
        assert!(matches!(shares.ask("flood", 0, waiter), Asked::Waits(_, None)));
    }
    assert!(matches!(shares.ask("small", 0, 99), Asked::Waits(_, None)));
    shares.release("flood");
    assert_eq!(shares.next(), Some(("small".to_owned(), 99)));
    assert_eq!(shares.next(), None, "no place is free");
    shares.release("small");
    assert_eq!(shares.next(), Some(("flood".to_owned(), 3)));
}

#[test]
fn inside_a_tenant_the_earlier_class_goes_first() {
    let mut shares = Shares::new(1, 100);
    shares.ask("a", 0, 0);
    for (class, waiter) in [(2, 1), (0, 2), (1, 3), (0, 4)] {
        shares.ask("a", class, waiter);
    }
    let order: Vec<i32> = std::iter::from_fn(|| {
        shares.release("a");
        shares.next().map(|(_, waiter)| waiter)
    })
    .collect();
    assert_eq!(order, [2, 4, 3, 1]);
}

#[test]
fn a_full_queue_takes_its_last_from_the_longest() {
    let mut shares = Shares::new(1, 3);
    shares.ask("flood", 0, 0);
    for waiter in 1..=3 {
        shares.ask("flood", 0, waiter);
    }
    assert_eq!(shares.ask("flood", 0, 4), Asked::Full(4), "its own last");
    assert!(matches!(shares.ask("small", 0, 9), Asked::Waits(_, Some(3))));
    assert_eq!(shares.waiting, 3);
}

/// A flood of one tenant beside a modest one, in simulated time: each request holds its place for
/// ten ticks, and gives up after a hundred.
#[test]
fn under_a_flood_the_other_tenant_keeps_its_goodput() {
    let goodput = |flood_per_tick: usize| {
        let mut shares: Shares<(bool, u32)> = Shares::new(10, 200);
        let mut running: Vec<(u32, String)> = Vec::new();
        let mut waiting: Vec<(bool, u32, Turn)> = Vec::new();
        let (mut modest_sent, mut modest_served) = (0, 0);
        for tick in 0..5_000u32 {
            let mut ask = |shares: &mut Shares<(bool, u32)>,
                           modest: bool,
                           running: &mut Vec<(u32, String)>| {
                let tenant = if modest { "modest" } else { "flood" };
                match shares.ask(tenant, 0, (modest, tick)) {
                    Asked::Entered => {
                        running.push((tick + 10, tenant.to_owned()));
                        return true;
                    }
                    Asked::Waits(turn, _) => waiting.push((modest, tick, turn)),
                    Asked::Full(_) => {}
                }
                false
            };
            for _ in 0..flood_per_tick {
                ask(&mut shares, false, &mut running);
            }
            if tick % 4 == 0 {
                modest_sent += 1;
                modest_served += usize::from(ask(&mut shares, true, &mut running));
            }
            waiting.retain(|(modest, asked, turn)| {
                let late = asked + 100 <= tick;
                if late {
                    shares.leave(if *modest { "modest" } else { "flood" }, *turn);
                }
                !late
            });
            let done: Vec<String> =
                running.extract_if(.., |(end, _)| *end <= tick).map(|(_, tenant)| tenant).collect();
            for tenant in done {
                shares.release(&tenant);
            }
            while let Some((tenant, (modest, _))) = shares.next() {
                modest_served += usize::from(modest);
                running.push((tick + 10, tenant));
            }
        }
        (modest_sent, modest_served)
    };
    let (sent, alone) = goodput(0);
    let (_, beside) = goodput(50);
    assert!(alone + 5 >= sent, "{alone} of {sent}");
    assert!(beside * 100 >= alone * 95, "{beside} of {alone}");
}

proptest! {
    /// Whatever happens, no place is given twice, nobody is lost and nothing is left over.
    #[test]
    fn places_and_waiters_are_conserved(steps in prop::collection::vec((0u8..4, 0usize..3, 0u8..4), 1..200)) {
        let names = ["a", "b", "c"];
        let mut shares: Shares<u32> = Shares::new(3, 8);
        let mut held = [0usize; 3];
        let mut waiting: Vec<(usize, Turn, u32)> = Vec::new();
        for (id, (step, tenant, class)) in steps.into_iter().enumerate() {
            let id = u32::try_from(id).unwrap();
            match step {
                0 | 1 => match shares.ask(names[tenant], class, id) {
                    Asked::Entered => held[tenant] += 1,
                    Asked::Waits(turn, gave_up) => {
                        waiting.push((tenant, turn, id));
                        waiting.retain(|(_, _, known)| Some(*known) != gave_up);
                    }
                    Asked::Full(own) => prop_assert_eq!(own, id),
                },
                2 if held[tenant] > 0 => {
                    shares.release(names[tenant]);
                    held[tenant] -= 1;
                }
                _ => if let Some((tenant, turn, _)) = waiting.pop() {
                    shares.leave(names[tenant], turn);
                },
            }
            while let Some((name, id)) = shares.next() {
                let at = waiting.iter().position(|(_, _, known)| *known == id);
                prop_assert!(at.is_some(), "{} was let in and did not wait", id);
                let (tenant, _, _) = waiting.swap_remove(at.unwrap());
                prop_assert_eq!(names[tenant], name.as_str());
                held[tenant] += 1;
            }
            prop_assert_eq!(shares.held, held.iter().sum::<usize>());
            prop_assert!(shares.held <= 3 && shares.waiting <= 8);
            prop_assert_eq!(shares.waiting, waiting.len());
        }
        for (tenant, turn, _) in waiting {
            shares.leave(names[tenant], turn);
        }
        for (tenant, count) in held.into_iter().enumerate() {
            (0..count).for_each(|_| shares.release(names[tenant]));
        }
        prop_assert!(shares.tenants.is_empty());
    }
}

#[tokio::test]
async fn who_waits_is_let_in_told_or_late_and_leaves_no_trace() {
    let gate = Gate::new(1, 1);
    let soon = || clock::now() + Duration::from_secs(30);
    let held = gate.enter("a", 0, soon()).await.unwrap();
    let waits = tokio::spawn({
        let gate = gate.clone();
        async move { gate.enter("a", 0, clock::now() + Duration::from_secs(30)).await.map(drop) }
    });
    while gate.waiting() == 0 {
        tokio::task::yield_now().await;
    }
    assert_eq!(gate.enter("a", 0, soon()).await.unwrap_err(), NoPlace::Full);
    drop(held);
    assert_eq!(waits.await.unwrap(), Ok(()));
    let held = gate.enter("a", 0, soon()).await.unwrap();
    assert_eq!(gate.enter("b", 0, clock::now()).await.unwrap_err(), NoPlace::Late);
    // A dropped waiter leaves.
    drop(tokio::time::timeout(Duration::from_millis(1), gate.enter("b", 0, soon())).await);
    assert_eq!(gate.waiting(), 0);
    drop(held);
    gate.resize(2, 1);
    let _two =
        (gate.enter("a", 0, soon()).await.unwrap(), gate.enter("b", 0, soon()).await.unwrap());
}
