//! What each kind of failure costs, in virtual time: printed, and held against the design's words.

use std::time::{Duration, Instant};

use nearhop_wire::Kind;

use super::{pool::Spec, script::Condition, served, setup, specs, world::World};
use crate::{Change, Class};

const SEEDS: u64 = 8;
const RATE: f64 = 20.0;
/// From when to when it fails, and how long it is looked at.
const FAILS: Duration = Duration::from_secs(10);
const ENDS: Duration = Duration::from_secs(25);
const LOOKS: Duration = Duration::from_secs(80);

/// Of the requests that came while it failed, and of its breaker; mean and worst over the seeds.
#[derive(Debug, Default)]
struct Row {
    served: f64,
    attempts: f64,
    detected: Vec<f64>,
    recovered: Vec<f64>,
}

fn row(specs: &[Spec], failing: &[usize], condition: Condition) -> Row {
    let mut row = Row::default();
    for seed in 0..SEEDS {
        let mut specs = specs.to_vec();
        for at in failing {
            specs[*at].script = vec![(FAILS, condition), (ENDS, Condition::Well)];
        }
        let mut setup = setup(seed, specs, RATE, LOOKS);
        // What has tools goes to no provider.
        setup.kind =
            setup.specs.iter().all(|spec| spec.class == Class::Provider).then_some(Kind::Fim);
        let world = super::run(setup);
        let during = |arrived: Instant| {
            let passed = arrived - world.origin;
            passed >= FAILS && passed < ENDS
        };
        row.served += served(&world, |request| during(request.arrived)) / SEEDS as f64;
        let counted = world.requests.iter().filter(|request| during(request.arrived));
        let (attempts, requests) = counted.fold((0, 0), |(attempts, requests), request| {
            (attempts + request.attempts, requests + 1)
        });
        row.attempts += attempts as f64 / f64::from(requests) / SEEDS as f64;
        let times = failing.iter().map(|at| times(&world, *at));
        for (detected, recovered) in times {
            row.detected.extend(detected);
            row.recovered.extend(recovered);
        }
    }
    row
}

/// From the failure to the first opening, and from its end to the last closing.
fn times(world: &World, failing: usize) -> (Option<f64>, Option<f64>) {
    let since = |when: Instant, from: Duration| (when - world.origin).saturating_sub(from);
    let of = world.pool.changes.iter().filter(|(_, at, _)| *at == failing);
    let opened = of.clone().find(|(when, _, change)| {
        matches!(change, Change::Opened(_)) && *when - world.origin >= FAILS
    });
    let closed = of.clone().rfind(|(_, _, change)| *change == Change::Closed);
    let seconds = |(when, _, _): &(Instant, usize, Change), from| since(*when, from).as_secs_f64();
    (opened.map(|change| seconds(change, FAILS)), closed.map(|change| seconds(change, ENDS)))
}

/// Mean and worst.
fn summary(times: &[f64]) -> (f64, f64) {
    let mean = times.iter().sum::<f64>() / times.len() as f64;
    (mean, times.iter().copied().fold(0.0, f64::max))
}

#[test]
fn each_kind_of_failure_costs_what_the_design_says() {
    let (near, foreign) = (specs(4, 1, 1, 0), specs(0, 0, 2, 0));
    let (far, one, all) = (specs(0, 2, 1, 0), [1].as_slice(), [0, 1, 2, 3].as_slice());
    let first = [0].as_slice();
    // The share served at least, and seconds until it is out and until it is back at most.
    let rows = [
        ("pod refuses", &near, one, Condition::Refusing, (0.99, 1.0, 8.0)),
        ("pod resets", &near, one, Condition::Resetting, (0.99, 1.0, 8.0)),
        ("pod hangs", &near, one, Condition::Hanging, (0.99, 3.0, 15.0)),
        ("pod drips", &near, one, Condition::Dripping, (0.99, 3.0, 15.0)),
        ("pod mute, checks pass", &near, one, Condition::Mute, (0.99, 12.0, 15.0)),
        ("pod cuts, checks pass", &near, one, Condition::Cutting, (0.99, 1.0, 20.0)),
        ("pod fails all", &near, one, Condition::Failing(1.0), (0.99, 2.0, 20.0)),
        ("pod fails half", &near, one, Condition::Failing(0.5), (0.99, 3.0, 20.0)),
        ("pod slow x10", &near, one, Condition::Slow(10.0), (0.99, 10.0, 15.0)),
        ("all pods refuse", &near, all, Condition::Refusing, (0.99, 1.0, 15.0)),
        ("all pods hang", &near, all, Condition::Hanging, (0.98, 20.0, 20.0)),
        ("provider fails", &foreign, first, Condition::Failing(1.0), (0.99, 2.0, 35.0)),
        ("provider slow x3", &foreign, first, Condition::Slow(3.0), (0.99, 8.0, 35.0)),
        ("region gone", &far, first, Condition::Hanging, (0.99, 3.0, 15.0)),
    ];
    println!("kind                  | served | attempts | out after (worst) | back after (worst)");
    for (name, specs, failing, condition, (least, soon, later)) in rows {
        let row = row(specs, failing, condition);
        let ((out, out_worst), (back, back_worst)) =
            (summary(&row.detected), summary(&row.recovered));
        println!(
            "{name:21} | {:.4} | {:8.3} | {out:6.2} s ({out_worst:5.2}) | {back:6.2} s ({back_worst:5.2})",
            row.served, row.attempts
        );
        assert!(row.served >= least, "{name}: {row:?}");
        assert!(!row.detected.is_empty(), "{name} is never out: {row:?}");
        assert!(out_worst <= soon && back_worst <= later, "{name}: {row:?}");
        assert_eq!(row.recovered.len(), row.detected.len(), "{name}: whoever was out is back");
    }
}
