use proptest::prelude::*;

use super::{
    Affinity, Chain, PODS, pick,
    replay::{Fleet, Load, Outcome, Request, Trace, parse, replay},
};
use crate::UpstreamId;

const POD: UpstreamId = UpstreamId(1);
const OTHER: UpstreamId = UpstreamId(2);

/// `bytes` of text, another for another `seed`, of which no two blocks are equal.
fn text(seed: u64, bytes: usize) -> String {
    let mut random = fastrand::Rng::with_seed(seed);
    std::iter::repeat_with(|| random.alphanumeric()).take(bytes).collect()
}

/// What is matched of `asked` where `sent` was sent, in hundredths.
fn check(sent: &[&str], asked: &[&str], expected: u32) {
    let mut affinity = Affinity::new(1_000_000);
    affinity.sent(&Chain::of(1, sent), POD);
    let matched = affinity.matched(&Chain::of(1, asked), POD);
    assert!((matched * 100.0 - f64::from(expected)).abs() < 0.51, "{matched}");
}

#[test]
fn as_much_matches_as_is_equal_from_the_beginning() {
    let file = text(1, 6400);
    check(&[&file], &[&file], 100);
    check(&[&file[..3200]], &[&file], 50);
    // A typed character: all of the chain but what is behind it.
    check(&[&file], &[&format!("{}x{}", &file[..4800], &file[4800..])], 75);
    check(&[&file], &[&text(2, 6400)], 0);
    // The window has slid.
    check(&[&file], &[&file[1..]], 0);
    check(&[&file[..63]], &[&file[..63]], 0);
}

#[test]
fn with_the_suffix_first_it_stays_while_somebody_types() {
    let (suffix, prefix) = (text(1, 3200), text(2, 3200));
    check(&[&suffix, &prefix], &[&suffix, &format!("{prefix}x")], 100);
    check(&[&prefix, &suffix], &[&format!("{prefix}x"), &suffix], 50);
}

#[test]
fn of_large_prompts_too_the_beginning_counts() {
    let file = text(1, 300_000);
    check(&[&file], &[&format!("{file}more")], 100);
    check(&[&file[..150_000]], &[&file], 49);
    check(&[&file], &[&format!("{}x{}", &file[..75_000], &file[75_000..])], 25);
}

#[test]
fn a_chain_of_any_prompt_is_short() {
    let blocks =
        [(0, 0), (63, 0), (64, 1), (8192, 128), (65_536, 240), (524_288, 352), (2 << 20, 352)];
    for (bytes, expected) in blocks {
        let chain = Chain::of(1, &[&text(1, bytes)]);
        assert_eq!((chain.blocks(), chain.is_empty()), (expected, expected == 0), "{bytes} bytes");
    }
    assert_eq!(Chain::from_blocks(1, 0..130).blocks(), 128);
}

#[test]
fn another_salt_is_another_prompt() {
    let (mut affinity, file) = (Affinity::new(1000), text(1, 6400));
    affinity.sent(&Chain::of(1, &[&file]), POD);
    assert!(affinity.matched(&Chain::of(2, &[&file]), POD) == 0.0);
    assert!(affinity.matched(&Chain::of(1, &[&file]), OTHER) == 0.0);
}

#[test]
fn a_pod_that_begins_anew_has_nothing() {
    let (mut affinity, chain) = (Affinity::new(1000), Chain::of(1, &[&text(1, 6400)]));
    affinity.sent(&chain, POD);
    affinity.sent(&chain, OTHER);
    affinity.forget(POD);
    assert!(affinity.matched(&chain, POD) == 0.0 && affinity.matched(&chain, OTHER) == 1.0);
}

#[test]
fn the_least_recently_used_end_is_dropped_first() {
    let mut affinity = Affinity::new(20);
    let [old, new] = [1, 2].map(|seed| Chain::of(1, &[&text(seed, 640)]));
    affinity.sent(&old, POD);
    affinity.sent(&new, POD);
    affinity.sent(&old, POD);
    affinity.sent(&Chain::of(1, &[&text(3, 256)]), POD);
    assert!(affinity.matched(&old, POD) == 1.0 && affinity.matched(&new, POD) == 0.6);
    // More than there is room for: its beginning stays.
    let long = Chain::of(1, &[&text(4, 2560)]);
    affinity.sent(&long, POD);
    assert!(affinity.matched(&long, POD) == 0.5 && affinity.matched(&old, POD) == 0.0);
}

#[test]
fn pods_that_nobody_declares_gone_are_forgotten_too() {
    let (mut affinity, chain) = (Affinity::new(1000), Chain::of(1, &[&text(1, 640)]));
    for pod in 0..=PODS as u64 {
        affinity.sent(&chain, UpstreamId(pod));
    }
    assert_eq!(affinity.pods.len(), PODS);
    assert!(affinity.matched(&chain, UpstreamId(0)) == 0.0);
    assert!(affinity.matched(&chain, UpstreamId(1)) == 1.0);
}

proptest! {
    /// Parts of few letters, so that beginnings meet often.
    #[test]
    fn names_are_equal_exactly_as_far_as_the_text_is(
        one in prop::collection::vec("[ab]{0,200}", 1..4),
        cut in 0..600usize,
        other in prop::collection::vec("[ab]{0,200}", 1..4),
    ) {
        let joined = |parts: &[String]| parts.join("\u{0}");
        // The other begins as the first does, for a while.
        let mut other = other;
        other[0].insert_str(0, &one[0][..cut.min(one[0].len())]);
        let chains = [&one, &other].map(|parts| {
            let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
            Chain::of(1, &parts)
        });
        let mut affinity = Affinity::new(1000);
        affinity.sent(&chains[0], POD);
        let (one, other) = (joined(&one), joined(&other));
        let equal = one.bytes().zip(other.bytes()).take_while(|(one, other)| one == other).count();
        let blocks = chains[1].blocks();
        prop_assert_eq!(blocks, other.len() / 64);
        let expected = if blocks == 0 { 0.0 } else { (equal / 64) as f64 / blocks as f64 };
        prop_assert_eq!(affinity.matched(&chains[1], POD), expected);
    }

    /// Beside a list that is searched, of chains that branch.
    #[test]
    fn it_remembers_what_a_plain_list_does(
        limit in 1..40usize,
        sent in prop::collection::vec((0..4u64, 0..4u64, 1..30u64), 1..40),
    ) {
        let mut affinity = Affinity::new(limit);
        let mut plain: Vec<Vec<u64>> = Vec::new();
        for (root, branch, length) in sent {
            let blocks: Vec<u64> =
                (0..length).map(|at| if at < 5 { root } else { 10 + branch }).collect();
            let chain = Chain::from_blocks(1, blocks.iter().copied());
            let known = (1..=blocks.len()).take_while(|end| plain.contains(&blocks[..*end].to_vec()));
            let expected = known.count() as f64 / blocks.len() as f64;
            prop_assert_eq!(affinity.matched(&chain, POD), expected);
            affinity.sent(&chain, POD);
            for end in (1..=blocks.len()).rev() {
                plain.retain(|beginning| *beginning != blocks[..end]);
                plain.push(blocks[..end].to_vec());
            }
            plain.drain(..plain.len().saturating_sub(limit));
            prop_assert_eq!(affinity.pods[&POD].known.units(), plain.len());
        }
    }

    #[test]
    fn memory_is_bounded_whatever_comes(
        limit in 0..3000usize,
        sizes in prop::collection::vec(0..200_000usize, 1..10),
    ) {
        let mut affinity = Affinity::new(limit);
        for (seed, bytes) in sizes.into_iter().enumerate() {
            affinity.sent(&Chain::of(seed as u64, &[&text(1, bytes)]), POD);
            prop_assert!(affinity.pods[&POD].known.units() <= limit);
        }
    }
}

fn requests() -> Vec<Request> {
    parse(include_str!("../../tests/data/mooncake-conversation-1500.jsonl")).unwrap()
}

fn affinity(trace: &Trace<'_>, fleet: Fleet) -> Outcome {
    replay(trace, fleet, |pods, seed| pick(pods, seed).unwrap().0)
}

/// The goals: prompt tokens found, of those that one pod with all the memory finds, and work.
#[test]
fn on_real_conversations_it_finds_what_one_pod_would_and_stays_even() {
    let requests = requests();
    for (pods, memory) in [(4, 3000), (4, 12_500), (8, 1500), (8, 6250)] {
        for (load, busy) in
            [(Load::Uncomputed, 0.3), (Load::Uncomputed, 0.7), (Load::InFlight, 0.7)]
        {
            let fleet = Fleet { pods, memory, remembered: memory, load, edges: 1 };
            let (trace, single) = Trace::that_keeps_busy(&requests, fleet, busy);
            let Outcome { found, work, present, minutes, queueing, busy } = affinity(&trace, fleet);
            let share = found / single;
            assert!(
                share >= 0.95 && work <= 1.25,
                "{pods} pods of {memory} blocks, busy {busy}: {share} found, work {work}, present \
                 {present}, by minutes {minutes:?}, waits {queueing:?}"
            );
        }
    }
}

/// What is found by chance: the goals are none that any policy meets.
#[test]
fn on_real_conversations_load_alone_finds_less_than_half() {
    let requests = requests();
    let fleet = Fleet { pods: 8, memory: 6250, remembered: 6250, load: Load::Uncomputed, edges: 1 };
    let (trace, single) = Trace::that_keeps_busy(&requests, fleet, 0.5);
    let by_load = replay(&trace, fleet, |pods, seed| {
        let alike: Vec<_> =
            pods.iter().map(|pod| super::Choosable { matched: 0.0, ..*pod }).collect();
        pick(&alike, seed).unwrap().0
    });
    assert!(by_load.found < single / 2.0, "{} of {single}", by_load.found);
}

/// Edges do not tell each other what they sent: a client that comes by another edge is a stranger.
#[test]
fn edges_that_know_a_part_find_less_than_one_that_knows_all() {
    let requests = requests();
    let found = |edges| {
        let load = Load::Uncomputed;
        let fleet = Fleet { pods: 8, memory: 2500, remembered: 2500, load, edges };
        let (trace, _) = Trace::that_keeps_busy(&requests, fleet, 0.5);
        affinity(&trace, fleet).found
    };
    assert!(found(1) > 1.2 * found(4));
}
