//! Which pod next, and why. Pure: a snapshot and a seed give the same choice.
//!
//! Power of two choices: of two pods drawn at random, the one with fewer requests in progress.
//! Mitzenmacher 2001, "The Power of Two Choices in Randomized Load Balancing". Always taking the
//! least loaded would send every edge's requests to the same pod at once.

use nearhop_wire::ModelReport;

use crate::upstream::{health::Standing, pods::PodView};

/// A pod to try.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Candidate {
    /// Its place in the snapshot.
    pub(crate) pod: usize,
    pub(crate) why: Why,
    /// Whether other pods could be tried after it.
    pub(crate) others: bool,
}

/// Why a pod was chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Why {
    /// The only one left that is ready.
    OnlyReady,
    /// The less loaded of two drawn.
    LessLoaded,
    /// None is left, and this one may do better the second time.
    Again,
    /// None is ready, and trying beats refusing.
    LastResort,
}

/// What this request has seen of a pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tried {
    /// Nothing.
    No,
    /// An attempt was lost there.
    Lost,
    /// It refused, and would again.
    Refused,
}

/// Chooses among the pods that serve `model` at its revision; `pinned` says that the request names
/// the revision.
pub(crate) fn choose(
    pods: &[PodView],
    tried: &[Tried],
    (model, pinned): (&ModelReport, bool),
    seed: u64,
) -> Option<Candidate> {
    let serves =
        |view: &PodView| view.report.as_ref().is_some_and(|report| report.serves(model, pinned));
    let of = |wanted: Tried, ready: bool| -> Vec<usize> {
        let fits = |at: &usize| {
            let is_ready = pods[*at].standing == Standing::Ready;
            tried[*at] == wanted && is_ready == ready && serves(&pods[*at])
        };
        (0..pods.len()).filter(fits).collect()
    };
    let fresh = of(Tried::No, true);
    let others = fresh.len() > 1;
    let choice = |pod: Option<usize>, why: Why| pod.map(|pod| Candidate { pod, why, others });
    match fresh.as_slice() {
        [only] => return choice(Some(*only), Why::OnlyReady),
        [] => {}
        fresh => return choice(draw(fresh, pods, seed), Why::LessLoaded),
    }
    let again = of(Tried::Lost, true);
    if !again.is_empty() {
        return choice(draw(&again, pods, seed), Why::Again);
    }
    // A pod that is out is tried only where no ready one was: otherwise a request would pay for a
    // pod that is known to be dead.
    if tried.iter().any(|tried| *tried != Tried::No) {
        return None;
    }
    let out = of(Tried::No, false);
    draw(&out, pods, seed).map(|pod| Candidate { pod, why: Why::LastResort, others: out.len() > 1 })
}

fn draw(among: &[usize], pods: &[PodView], seed: u64) -> Option<usize> {
    let mut random = fastrand::Rng::with_seed(seed);
    let first = *among.get(random.usize(..among.len().max(1)))?;
    let second = among[random.usize(..among.len())];
    let load = |at: usize| pods[at].in_flight;
    Some(if load(second) < load(first) { second } else { first })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use nearhop_wire::PodReport;
    use proptest::prelude::*;

    use super::*;
    use crate::upstream::health::Reason;

    fn model(revision: &str) -> ModelReport {
        ModelReport {
            name: "m".into(),
            revision: revision.into(),
            template: "t".into(),
            temperature: 0.0,
            max_tokens: 64,
            context_length: 1024,
            aliases: Vec::new(),
        }
    }

    fn pod(ready: bool, in_flight: usize) -> PodView {
        let standing = if ready { Standing::Ready } else { Standing::Out(Reason::Dead) };
        let report =
            Some(Arc::new(PodReport { models: vec![model("1")], kept: Vec::new(), slots: 8 }));
        PodView { standing, report, in_flight }
    }

    const NO: Tried = Tried::No;

    fn chosen(pods: &[PodView], tried: &[Tried]) -> Option<(usize, Why)> {
        choose(pods, tried, (&model("1"), false), 7).map(|candidate| (candidate.pod, candidate.why))
    }

    #[test]
    fn a_pod_that_is_out_is_left_alone_while_another_is_ready() {
        let pods = [pod(false, 0), pod(true, 50)];
        assert_eq!(chosen(&pods, &[NO, NO]), Some((1, Why::OnlyReady)));
        assert_eq!(chosen(&pods, &[NO, Tried::Refused]), None);
    }

    #[test]
    fn a_ready_pod_may_be_tried_again_when_no_other_is_left() {
        let pods = [pod(true, 0), pod(true, 0), pod(false, 0)];
        let lost = Tried::Lost;
        assert_eq!(chosen(&pods, &[lost, NO, NO]), Some((1, Why::OnlyReady)));
        assert_eq!(chosen(&pods, &[lost, Tried::Refused, NO]), Some((0, Why::Again)));
        assert_eq!(chosen(&pods, &[Tried::Refused, Tried::Refused, NO]), None);
    }

    #[test]
    fn with_none_ready_one_is_tried_all_the_same() {
        let pods = [pod(false, 0)];
        assert_eq!(chosen(&pods, &[NO]), Some((0, Why::LastResort)));
        assert_eq!(chosen(&pods, &[Tried::Lost]), None);
    }

    #[test]
    fn only_pods_with_the_pinned_revision_serve() {
        let mut other = pod(true, 0);
        other.report =
            Some(Arc::new(PodReport { models: vec![model("2")], kept: Vec::new(), slots: 8 }));
        let mut unknown = pod(true, 0);
        unknown.report = None;
        let mut keeps = other.clone();
        let report = PodReport { models: vec![model("2")], kept: vec![model("1")], slots: 8 };
        keeps.report = Some(Arc::new(report));
        let pinned = |pinned| {
            choose(&[keeps.clone()], &[NO], (&model("1"), pinned), 7).map(|found| found.why)
        };
        assert_eq!(pinned(true), Some(Why::OnlyReady));
        assert_eq!(pinned(false), None, "its name means another revision there");
        assert_eq!(chosen(&[other, unknown, pod(true, 9)], &[NO; 3]), Some((2, Why::OnlyReady)));
    }

    #[test]
    fn the_less_loaded_pod_gets_more() {
        let pods = [pod(true, 9), pod(true, 1)];
        let first = (0..400)
            .filter(|seed| choose(&pods, &[NO, NO], (&model("1"), false), *seed).unwrap().pod == 0);
        let share = first.count();
        assert!((60..140).contains(&share), "{share} of 400, expected a quarter");
    }

    proptest! {
        #[test]
        fn a_pod_is_found_while_one_is_worth_trying_and_fresh_ready_ones_first(
            pods in prop::collection::vec((any::<bool>(), 0usize..5, 0usize..3), 0..6), seed: u64,
        ) {
            let views: Vec<PodView> = pods.iter().map(|(ready, load, _)| pod(*ready, *load)).collect();
            let states = [Tried::No, Tried::Lost, Tried::Refused];
            let tried: Vec<Tried> = pods.iter().map(|(_, _, state)| states[*state]).collect();
            let any = |wanted: Tried| pods.iter().zip(&tried).any(|((ready, ..), tried)| *ready && *tried == wanted);
            let untouched = !pods.is_empty() && tried.iter().all(|tried| *tried == Tried::No);
            let choice = choose(&views, &tried, (&model("1"), false), seed);
            prop_assert_eq!(choice.is_some(), any(Tried::No) || any(Tried::Lost) || untouched);
            if let Some(choice) = choice {
                prop_assert!(tried[choice.pod] != Tried::Refused);
                prop_assert!(!any(Tried::No) || (pods[choice.pod].0 && tried[choice.pod] == Tried::No));
            }
        }
    }
}
