//! Policies of routing beside each other, on a trace: `affinity PATH`, where PATH has Mooncake's lines,
//! unpacked.
//!
//! How much of the prompts the pods find, of that which one pod with all their memory would find; how
//! evenly they work; and how long prompts wait. At the end, what a chain costs.

#[path = "../src/affinity/replay.rs"]
mod replay;

use std::{error::Error, io::Write as _, time::Instant};

// What `replay` calls them.
use nearhop_routing::{Affinity, Chain, Choosable, UpstreamId, pick};
use replay::{Fleet, Load, Outcome, Request, Trace, parse, replay};

#[derive(Clone, Copy)]
enum Policy {
    Random,
    RoundRobin,
    TwoChoices,
    Soonest,
    Affinity,
}

const POLICIES: [(&str, Policy); 5] = [
    ("random", Policy::Random),
    ("round robin", Policy::RoundRobin),
    ("two choices", Policy::TwoChoices),
    ("soonest", Policy::Soonest),
    ("affinity", Policy::Affinity),
];

fn main() -> Result<(), Box<dyn Error>> {
    let path =
        std::env::args().nth(1).ok_or("see the first lines of routing/examples/affinity.rs")?;
    let requests = parse(&std::fs::read_to_string(path)?)?;
    table(&requests)?;
    worst(&requests)?;
    variants(&requests)?;
    chains()
}

const HEAD: &str = "| policy | pods | memory | busy | found | of single | work | minutes, median | worst | present | waits s | 1 % wait s |
|---|---|---|---|---|---|---|---|---|---|---|---|";

fn fleet(pods: usize, total: usize) -> Fleet {
    let memory = total / pods;
    Fleet { pods, memory, remembered: memory, load: Load::Uncomputed, edges: 1 }
}

/// Every policy, at a load of 60 %.
fn table(requests: &[Request]) -> Result<(), Box<dyn Error>> {
    writeln!(std::io::stdout(), "{HEAD}")?;
    for pods in [4, 8, 16] {
        for total in [12_000, 20_000, 50_000, 200_000] {
            for (name, policy) in POLICIES {
                line(name, requests, (fleet(pods, total), 0.6), policy)?;
            }
        }
    }
    Ok(())
}

/// The least found and the least even, over everything tried.
fn worst(requests: &[Request]) -> Result<(), Box<dyn Error>> {
    for (name, load) in [("uncomputed", Load::Uncomputed), ("in flight", Load::InFlight)] {
        for busy in [0.3, 0.5, 0.7, 0.8] {
            let (mut least, mut work, mut present) = (f64::INFINITY, 0.0_f64, 0.0_f64);
            for pods in [4, 8, 16] {
                for total in [12_000, 20_000, 50_000, 200_000] {
                    let fleet = Fleet { load, ..fleet(pods, total) };
                    let (trace, single) = Trace::that_keeps_busy(requests, fleet, busy);
                    let outcome = run(&trace, fleet, Policy::Affinity);
                    least = least.min(outcome.found / single);
                    work = work.max(outcome.work);
                    present = present.max(outcome.present);
                }
            }
            writeln!(
                std::io::stdout(),
                "load as {name}, busy {busy}: of single at least {least:.3}, work at most {work:.3}, present {present:.3}"
            )?;
        }
    }
    Ok(())
}

/// What it costs to guess the pods' memory wrongly, or to know only a part of what they are sent.
fn variants(requests: &[Request]) -> Result<(), Box<dyn Error>> {
    writeln!(std::io::stdout(), "{HEAD}")?;
    let usual = fleet(8, 20_000);
    let remembering = |remembered| Fleet { remembered, ..usual };
    let tried = [
        ("remembers a quarter", remembering(usual.memory / 4)),
        ("remembers half", remembering(usual.memory / 2)),
        ("as it is", usual),
        ("remembers double", remembering(usual.memory * 2)),
        ("remembers all", remembering(usual.memory * 100)),
        ("load in flight", Fleet { load: Load::InFlight, ..usual }),
        ("two edges in turn", Fleet { edges: 2, ..usual }),
        ("four edges in turn", Fleet { edges: 4, ..usual }),
    ];
    tried
        .into_iter()
        .try_for_each(|(name, fleet)| line(name, requests, (fleet, 0.6), Policy::Affinity))
}

fn line(
    name: &str,
    requests: &[Request],
    (fleet, busy): (Fleet, f64),
    policy: Policy,
) -> Result<(), Box<dyn Error>> {
    let (trace, single) = Trace::that_keeps_busy(requests, fleet, busy);
    let Outcome { found, work, present, minutes, queueing, busy } = run(&trace, fleet, policy);
    let (pods, memory, of_single) = (fleet.pods, fleet.memory, found / single);
    writeln!(
        std::io::stdout(),
        "| {name} | {pods} | {memory} | {busy:.2} | {found:.3} | {of_single:.3} | {work:.3} | {:.2} | {:.2} | {present:.3} | {:.2} | {:.1} |",
        minutes.0,
        minutes.1,
        queueing.0,
        queueing.1
    )?;
    Ok(())
}

fn run(trace: &Trace<'_>, fleet: Fleet, policy: Policy) -> Outcome {
    let at_random = |pods: &[Choosable], seed| fastrand::Rng::with_seed(seed).usize(..pods.len());
    replay(trace, fleet, |pods, seed| match policy {
        Policy::Random => at_random(pods, seed),
        Policy::RoundRobin => usize::try_from(seed).map_or(0, |turn| turn % pods.len()),
        Policy::TwoChoices => {
            let (one, other) = (at_random(pods, seed), at_random(pods, !seed));
            if pods[other].load < pods[one].load { other } else { one }
        }
        Policy::Soonest => {
            let first = |at: &usize| pods[*at].load + (1.0 - pods[*at].matched) * pods[*at].cost;
            (0..pods.len()).min_by(|one, other| first(one).total_cmp(&first(other))).unwrap_or(0)
        }
        Policy::Affinity => pick(pods, seed).map_or(0, |(at, _)| at),
    })
}

/// What a chain costs, and looking it up in 16 pods that have other prompts.
fn chains() -> Result<(), Box<dyn Error>> {
    let text: String = (0..400_000).map(|at| format!("let name_{at} = {at};\n")).collect();
    let mut affinity = Affinity::new(100_000);
    for pod in 0..16 {
        for prompt in 0..1000 {
            let start = text.ceil_char_boundary(prompt * 5_000);
            affinity.sent(&Chain::of(pod, &[&text[start..start + 20_000]]), UpstreamId(pod));
        }
    }
    for kilobytes in [1, 8, 64, 512, 2048] {
        let prompt = &text[..kilobytes * 1024];
        let chain = Chain::of(1, &[prompt]);
        let made = microseconds(|| Chain::of(1, &[prompt]).blocks());
        let matched = microseconds(|| {
            (0..16).filter(|pod| affinity.matched(&chain, UpstreamId(*pod)) > 0.5).count()
        });
        let sent = microseconds(|| {
            affinity.sent(&chain, UpstreamId(3));
            0
        });
        writeln!(
            std::io::stdout(),
            "prompt of {kilobytes} KiB: {} blocks, made in {made:.2} µs, looked up in 16 pods in {matched:.2} µs, noted in {sent:.2} µs",
            chain.blocks()
        )?;
    }
    Ok(())
}

/// The least of some runs.
#[expect(clippy::disallowed_methods, reason = "an example measures")]
fn microseconds(mut of: impl FnMut() -> usize) -> f64 {
    let runs = (0..200).map(|_| {
        let start = Instant::now();
        std::hint::black_box(of());
        start.elapsed().as_secs_f64() * 1e6
    });
    runs.fold(f64::INFINITY, f64::min)
}
