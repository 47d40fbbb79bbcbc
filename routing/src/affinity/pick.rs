//! Which of several ready pods: the one that has the prompt's beginning, unless too much waits there.
//! Pure.
//!
//! Two rules, each against a way in which routing by prefix fails. Nobody is sent more than a bound
//! over the mean load, as in consistent hashing with bounded loads (Mirrokni, Thorup and Zadimoghaddam
//! 2018), or the pod with the popular beginning drowns. And a match counts only by how much it is
//! longer than what a pod drawn by load has anyway, the better of two (Mitzenmacher 2001): a system
//! prompt that a few pods happened to get first would otherwise draw every new conversation to them,
//! while the memory of the others stays empty.
//!
//! Rejected: the pod where the first token is expected soonest (Preble, Srivatsa et al. 2024, has that
//! for prompts that match little). It gives up a conversation's memory for any shorter queue. On the
//! replayed trace (`examples/affinity.rs`) it finds 72 to 82 of 100 tokens that a single pod with all
//! the memory would find, where this finds 96 and more, and pods compute a tenth longer. It costs that
//! its queues are shorter as long as one edge sees every request, most of all because it looks at all
//! pods: the least loaded of all, drawn here, would halve the waiting among 16. With 16 edges that do
//! not see each other's requests it lengthens it, and a region may have as many.

use fastrand::Rng;

/// How much of the mean load may be waiting where a request goes.
const MEANS: f64 = 2.0;
/// And how many such prompts on top of it: without them, two requests on idle pods were a crowd.
const PROMPTS: f64 = 4.0;
/// The share of a prompt that is worth a detour. A sixteenth finds little more and lets small matches
/// gather load; a quarter forgets conversations that have grown fast.
const WORTH: f64 = 0.125;

/// What a choice between ready pods is made by.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Choosable {
    /// What a request would wait there, relative to the others: over 0.
    pub load: f64,
    /// What this prompt would add to `load` if nothing of it were there: over 0. Smaller, the less
    /// the request may wait for the sake of what is there.
    pub cost: f64,
    /// The share of the prompt that it is believed to have computed already, 0 to 1.
    pub matched: f64,
}

/// Why a pod was chosen among others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pick {
    /// It has more of the prompt's beginning than another.
    Prefix,
    /// The less loaded of two drawn.
    LessLoaded,
    /// There is no other.
    Only,
}

/// Which of `pods`; `None` where there is none.
#[must_use]
pub fn pick(pods: &[Choosable], seed: u64) -> Option<(usize, Pick)> {
    if pods.len() < 2 {
        return pods.first().map(|_| (0, Pick::Only));
    }
    let mut random = Rng::with_seed(seed);
    let mut within: Vec<usize> = (0..pods.len()).collect();
    within.retain(|at| pods[*at].load <= bound(pods, *at));
    if within.is_empty() {
        // What is not a number is within no bound.
        within.extend(0..pods.len());
    }
    let drawn = less_loaded(pods, &within, &mut random)?;
    let longest = within.iter().map(|at| pods[*at].matched).fold(f64::NEG_INFINITY, f64::max);
    let chosen = if longest > pods[drawn].matched + WORTH {
        within.retain(|at| pods[*at].matched >= longest);
        less_loaded(pods, &within, &mut random)?
    } else {
        drawn
    };
    let shortest = pods.iter().map(|pod| pod.matched).fold(1.0, f64::min);
    let has = pods[chosen].matched > shortest + WORTH;
    Some((chosen, if has { Pick::Prefix } else { Pick::LessLoaded }))
}

/// The load over which pod `at` is sent nothing while another is under its own.
fn bound(pods: &[Choosable], at: usize) -> f64 {
    let mean = pods.iter().map(|pod| pod.load).sum::<f64>() / pods.len() as f64;
    MEANS * mean + PROMPTS * pods[at].cost
}

/// Loads that differ by less are equal: else the pod that is a little faster, or was ready a moment
/// sooner, would get everything while there is little to do.
const ALIKE: f64 = 0.9;

/// The less loaded of two of `among`; of equals the first drawn, so that they take turns.
fn less_loaded(pods: &[Choosable], among: &[usize], random: &mut Rng) -> Option<usize> {
    let first = random.usize(..among.len().max(1));
    let apart = 1 + random.usize(..among.len().saturating_sub(1).max(1));
    let first = *among.get(first)?;
    let second = *among.iter().cycle().skip_while(|at| **at != first).nth(apart)?;
    Some(if pods[second].load < ALIKE * pods[first].load { second } else { first })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn pods_that_are_about_as_loaded_take_turns() {
        check(&[(1.0, 0.0), (1.05, 0.0)], |chosen, _| chosen.iter().all(|times| *times > 400));
        check(&[(1.0, 0.0), (1.2, 0.0)], |chosen, _| chosen == [1000, 0]);
    }

    fn pod(load: f64, matched: f64) -> Choosable {
        Choosable { load, cost: 1.0, matched }
    }

    /// How often each of `pods` is chosen, of 1,000, and for its prefix.
    fn check(pods: &[(f64, f64)], expected: impl Fn(&[usize], usize) -> bool) {
        let pods: Vec<Choosable> =
            pods.iter().map(|(load, matched)| pod(*load, *matched)).collect();
        let (mut chosen, mut for_prefix) = (vec![0; pods.len()], 0);
        for seed in 0..1000 {
            let (at, why) = pick(&pods, seed).unwrap();
            chosen[at] += 1;
            for_prefix += usize::from(why == Pick::Prefix);
        }
        assert!(expected(&chosen, for_prefix), "{chosen:?}, {for_prefix} for their prefix");
    }

    #[test]
    fn the_longest_match_wins_within_the_bound() {
        check(&[(1.0, 0.0), (5.0, 0.9), (1.0, 0.5)], |chosen, prefix| {
            chosen == [0, 1000, 0] && prefix == 1000
        });
    }

    #[test]
    fn over_the_bound_the_next_best_has_it() {
        check(&[(1.0, 0.0), (20.0, 0.9), (1.0, 0.5)], |chosen, _| chosen == [0, 0, 1000]);
        check(&[(1.0, 0.0), (20.0, 0.9), (1.0, 0.0)], |chosen, prefix| {
            chosen[1] == 0 && chosen[0] > 300 && chosen[2] > 300 && prefix == 0
        });
    }

    #[test]
    fn what_all_have_is_spread_by_load() {
        check(&[(3.0, 0.8), (1.0, 0.8), (2.0, 0.8)], |chosen, prefix| {
            chosen[0] == 0 && chosen[1] > chosen[2] && prefix == 0
        });
        check(&[(1.0, 0.8); 4], |chosen, _| chosen.iter().all(|times| *times > 150));
    }

    #[test]
    fn two_that_have_it_share_what_comes() {
        check(&[(1.0, 0.8), (1.0, 0.8), (1.0, 0.0), (1.0, 0.0)], |chosen, prefix| {
            chosen[0] > 350 && chosen[1] > 350 && chosen[2] + chosen[3] == 0 && prefix == 1000
        });
    }

    #[test]
    fn a_little_of_a_prompt_draws_nothing() {
        check(&[(1.0, 0.1), (1.0, 0.0), (1.0, 0.0)], |chosen, prefix| {
            chosen.iter().all(|times| *times > 250) && prefix == 0
        });
    }

    #[test]
    fn one_is_chosen_whatever_waits_there() {
        assert_eq!(pick(&[pod(1e9, 0.0)], 7), Some((0, Pick::Only)));
        assert_eq!(pick(&[], 7), None);
    }

    fn pods() -> impl Strategy<Value = Vec<Choosable>> {
        let load = prop_oneof![Just(0.0), 0.0..1.0, 0.0..1000.0];
        let matched = prop_oneof![Just(0.0), Just(1.0), 0.0..1.0];
        let pod = (load, 0.0..10.0, matched);
        let pod = pod.prop_map(|(load, cost, matched)| Choosable { load, cost, matched });
        prop::collection::vec(pod, 1..20)
    }

    proptest! {
        #[test]
        fn there_is_always_one_and_never_one_over_the_bound(pods in pods(), seed: u64) {
            let (chosen, _) = pick(&pods, seed).unwrap();
            let is_under = |at: usize| pods[at].load <= bound(&pods, at);
            prop_assert!(pods.len() == 1 || is_under(chosen));
            prop_assert_eq!(pick(&pods, seed), Some((chosen, pick(&pods, seed).unwrap().1)));
        }

        #[test]
        fn what_is_no_number_is_no_panic(loads in prop::collection::vec(any::<f64>(), 1..6), seed: u64) {
            let pods: Vec<_> =
                loads.iter().map(|odd| Choosable { load: *odd, cost: *odd, matched: *odd }).collect();
            prop_assert!(pick(&pods, seed).is_some_and(|(at, _)| at < pods.len()));
        }

        #[test]
        fn an_idle_pod_is_not_starved(mut pods in pods(), seed: u32) {
            // Nobody has a part of the new prompt that is worth a detour.
            pods.iter_mut().for_each(|pod| pod.matched *= WORTH);
            pods.push(Choosable { load: 0.0, cost: 1.0, matched: 0.0 });
            let idle = pods.len() - 1;
            let seeds = u64::from(seed)..u64::from(seed) + 500;
            prop_assert!(seeds.into_iter().any(|seed| pick(&pods, seed).unwrap().0 == idle));
        }

        #[test]
        fn a_longer_match_is_never_passed_by_without_cause(pods in pods(), seed: u64) {
            let (chosen, _) = pick(&pods, seed).unwrap();
            let under = (0..pods.len()).filter(|at| pods[*at].load <= bound(&pods, *at));
            let longest = under.map(|at| pods[at].matched).fold(0.0, f64::max);
            prop_assert!(pods[chosen].matched >= longest - WORTH || pods.len() == 1);
        }
    }
}
