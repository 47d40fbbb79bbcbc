//! May an earlier answer stand for what is asked now? Pure.

use super::{evidence::Evidence, veto::Veto};

/// When an answer may serve.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Policy {
    /// Questions less alike are never one.
    pub floor: f32,
    /// From here on they are taken to be, without evidence of their own.
    pub sure: f32,
    /// The most of what is served that may be wrong.
    pub wrong: f64,
}

impl Policy {
    /// The same for a request that wants its questions more alike; less alike it cannot have them.
    #[must_use]
    pub fn raised(self, similarity: Option<f32>) -> Self {
        let floor = similarity.map_or(self.floor, |asked| asked.max(self.floor));
        Self { floor, sure: self.sure.max(floor), ..self }
    }
}

/// An earlier question with its answer, beside what is asked now.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Neighbour {
    /// How alike they are, −1 to 1.
    pub similarity: f32,
    /// What in their words speaks against it.
    pub veto: Option<Veto>,
    /// Answers that say the same have the same.
    pub class: u64,
    /// Whether whoever asks may have it: it is theirs, or two others had the same.
    pub vouched: bool,
    /// What is known of the answer.
    pub evidence: Evidence,
}

/// Why an answer serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Because {
    /// The questions are as good as equal.
    Sure,
    /// The answer has proved itself.
    Evidence,
}

/// Why none does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// Nothing is as near as the floor.
    Far,
    /// What is near means something else.
    Vetoed(Veto),
    /// Near, not sure, and without evidence of its own.
    Unproven,
    /// It was wrong before.
    Discredited,
    /// The two nearest say different things.
    Disagree,
    /// Only one other has had it.
    Unvouched,
}

impl Refused {
    /// For metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Far => "far",
            Self::Vetoed(veto) => veto.name(),
            Self::Unproven => "unproven",
            Self::Discredited => "discredited",
            Self::Disagree => "disagree",
            Self::Unvouched => "unvouched",
        }
    }
}

/// What follows for a question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// That neighbour's answer serves.
    Serve(usize, Because),
    /// None does; the nearest that no word speaks against, where there is one.
    Refuse(Refused, Option<usize>),
}

/// Judges the neighbours of a question, the nearest first.
#[must_use]
pub fn judge(neighbours: &[Neighbour], policy: Policy) -> Verdict {
    let near = |of: &Neighbour| of.similarity >= policy.floor;
    let mut candidates =
        neighbours.iter().enumerate().filter(|(_, of)| near(of) && of.veto.is_none());
    let Some((at, nearest)) = candidates.next() else {
        let vetoed = neighbours.iter().find(|of| near(of)).and_then(|of| of.veto);
        return Verdict::Refuse(vetoed.map_or(Refused::Far, Refused::Vetoed), None);
    };
    let refuse = |why| Verdict::Refuse(why, Some(at));
    let Neighbour { similarity, evidence, .. } = nearest;
    if candidates.next().is_some_and(|(_, second)| second.class != nearest.class) {
        refuse(Refused::Disagree)
    } else if evidence.least_wrong(*similarity) > policy.wrong {
        refuse(Refused::Discredited)
    } else if !nearest.vouched {
        refuse(Refused::Unvouched)
    } else if *similarity >= policy.sure {
        Verdict::Serve(at, Because::Sure)
    } else if evidence.most_wrong(*similarity) <= policy.wrong {
        Verdict::Serve(at, Because::Evidence)
    } else {
        refuse(Refused::Unproven)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const POLICY: Policy = Policy { floor: 0.95, sure: 0.97, wrong: 0.02 };

    fn at(similarity: f32) -> Neighbour {
        let evidence = Evidence::default();
        Neighbour { similarity, veto: None, class: 1, vouched: true, evidence }
    }

    fn proven(similarity: f32, right: usize, wrong: usize) -> Neighbour {
        let mut evidence = Evidence::default();
        (0..right).for_each(|_| evidence.count(similarity, true));
        (0..wrong).for_each(|_| evidence.count(similarity, false));
        Neighbour { evidence, ..at(similarity) }
    }

    #[test]
    fn each_rule_in_its_turn() {
        let check = |neighbours: &[Neighbour], expected| {
            assert_eq!(judge(neighbours, POLICY), expected, "{neighbours:?}");
        };
        let refuse = |why, at| Verdict::Refuse(why, at);
        let vetoed = |of: Neighbour| Neighbour { veto: Some(Veto::Negation), ..of };
        let other = |of: Neighbour| Neighbour { class: 2, ..of };
        check(&[], refuse(Refused::Far, None));
        check(&[at(0.949)], refuse(Refused::Far, None));
        check(&[vetoed(at(0.99))], refuse(Refused::Vetoed(Veto::Negation), None));
        check(&[at(0.96)], refuse(Refused::Unproven, Some(0)));
        check(&[at(0.97)], Verdict::Serve(0, Because::Sure));
        check(&[vetoed(at(0.99)), at(0.98)], Verdict::Serve(1, Because::Sure));
        check(&[at(0.99), other(at(0.98))], refuse(Refused::Disagree, Some(0)));
        check(&[at(0.99), other(vetoed(at(0.98)))], Verdict::Serve(0, Because::Sure));
        check(&[at(0.99), other(at(0.94))], Verdict::Serve(0, Because::Sure));
        check(&[proven(0.955, 140, 0)], Verdict::Serve(0, Because::Evidence));
        check(&[proven(0.99, 0, 1)], refuse(Refused::Discredited, Some(0)));
        let alone = Neighbour { vouched: false, ..at(0.99) };
        check(&[alone], refuse(Refused::Unvouched, Some(0)));
    }

    #[test]
    fn a_request_can_only_ask_for_more() {
        assert_eq!(POLICY.raised(Some(0.5)), POLICY);
        let raised = POLICY.raised(Some(0.99));
        assert_eq!((raised.floor, raised.sure), (0.99, 0.99));
        assert_eq!(judge(&[at(0.98)], raised), Verdict::Refuse(Refused::Far, None));
    }

    proptest! {
        #[test]
        fn what_serves_is_near_unvetoed_and_vouched(
            neighbours in prop::collection::vec((0.9f32..1.0, any::<bool>(), 1u64..3, any::<bool>()), 0..6),
        ) {
            let neighbours: Vec<Neighbour> = neighbours
                .into_iter()
                .map(|(similarity, vetoed, class, vouched)| {
                    let veto = vetoed.then_some(Veto::Numbers);
                    Neighbour { veto, class, vouched, ..at(similarity) }
                })
                .collect();
            if let Verdict::Serve(serves, _) = judge(&neighbours, POLICY) {
                let of = neighbours[serves];
                prop_assert!(of.similarity >= 0.95 && of.veto.is_none() && of.vouched);
            }
        }
    }
}
