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
    /// None is ready, and trying beats refusing.
    LastResort,
}

/// Chooses among the pods that serve `model` at its pinned revision and were not `tried` yet.
pub(crate) fn choose(
    pods: &[PodView],
    tried: &[bool],
    model: &ModelReport,
    seed: u64,
) -> Option<Candidate> {
    let serves = |view: &PodView| {
        view.report.as_ref().is_some_and(|report| {
            report.models.iter().any(|served| {
                (&served.name, &served.revision, &served.template)
                    == (&model.name, &model.revision, &model.template)
            })
        })
    };
    let untried = |at: &usize| !tried[*at] && serves(&pods[*at]);
    let left: Vec<usize> = (0..pods.len()).filter(untried).collect();
    let ready: Vec<usize> =
        left.iter().copied().filter(|at| pods[*at].standing == Standing::Ready).collect();
    let others = ready.len() > 1;
    match ready.as_slice() {
        // A pod that is out is tried only where no ready one was: otherwise a request would pay
        // for a pod that is known to be dead.
        [] if tried.iter().any(|tried| *tried) => None,
        [] => draw(&left, pods, seed).map(|pod| Candidate {
            pod,
            why: Why::LastResort,
            others: left.len() > 1,
        }),
        [only] => Some(Candidate { pod: *only, why: Why::OnlyReady, others }),
        ready => draw(ready, pods, seed).map(|pod| Candidate { pod, why: Why::LessLoaded, others }),
    }
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
        }
    }

    fn pod(ready: bool, in_flight: usize) -> PodView {
        let standing = if ready { Standing::Ready } else { Standing::Out(Reason::Dead) };
        let report = Some(Arc::new(PodReport { models: vec![model("1")] }));
        PodView { standing, report, in_flight }
    }

    fn chosen(pods: &[PodView], tried: &[bool]) -> Option<(usize, Why)> {
        choose(pods, tried, &model("1"), 7).map(|candidate| (candidate.pod, candidate.why))
    }

    #[test]
    fn a_pod_that_is_out_is_left_alone_while_another_is_ready() {
        let pods = [pod(false, 0), pod(true, 50)];
        assert_eq!(chosen(&pods, &[false, false]), Some((1, Why::OnlyReady)));
        assert_eq!(chosen(&pods, &[false, true]), None);
    }

    #[test]
    fn with_none_ready_one_is_tried_all_the_same() {
        let pods = [pod(false, 0)];
        assert_eq!(chosen(&pods, &[false]), Some((0, Why::LastResort)));
        assert_eq!(chosen(&pods, &[true]), None);
    }

    #[test]
    fn only_pods_with_the_pinned_revision_serve() {
        let mut other = pod(true, 0);
        other.report = Some(Arc::new(PodReport { models: vec![model("2")] }));
        let mut unknown = pod(true, 0);
        unknown.report = None;
        assert_eq!(chosen(&[other, unknown, pod(true, 9)], &[false; 3]), Some((2, Why::OnlyReady)));
    }

    #[test]
    fn the_less_loaded_pod_gets_more() {
        let pods = [pod(true, 9), pod(true, 1)];
        let first = (0..400)
            .filter(|seed| choose(&pods, &[false, false], &model("1"), *seed).unwrap().pod == 0);
        let share = first.count();
        assert!((60..140).contains(&share), "{share} of 400, expected a quarter");
    }

    proptest! {
        #[test]
        fn an_untried_serving_pod_is_found_and_a_ready_one_first(
            pods in prop::collection::vec((any::<bool>(), 0usize..5, any::<bool>()), 0..6), seed: u64,
        ) {
            let views: Vec<PodView> = pods.iter().map(|(ready, load, _)| pod(*ready, *load)).collect();
            let tried: Vec<bool> = pods.iter().map(|(_, _, tried)| *tried).collect();
            let ready_left = pods.iter().any(|(ready, _, tried)| *ready && !tried);
            let fresh = !tried.contains(&true) && !pods.is_empty();
            let choice = choose(&views, &tried, &model("1"), seed);
            prop_assert_eq!(choice.is_some(), ready_left || fresh);
            if let Some(choice) = choice {
                prop_assert!(!tried[choice.pod]);
                prop_assert!(!ready_left || pods[choice.pod].0);
            }
        }
    }
}
