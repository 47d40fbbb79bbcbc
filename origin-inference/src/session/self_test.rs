//! Whether a graph computes the same however its work is cut, found out when it is loaded.
//!
//! Names and operators say how a graph should be fed; exporters differ, and so do providers. Eight
//! tokens through every way that the engine will use show whether it holds.

use super::{Encoder, Session, StepError};
use crate::model::Element;

/// How far a graph's results are apart, as a share of the range of its logits.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Verdict {
    /// A prompt in two pieces against the whole.
    pub(crate) split: f32,
    /// A token decoded against the same one at a prompt's end.
    pub(crate) decoded: f32,
    /// Rows of different length in one step against each alone; `None` with a single slot.
    pub(crate) together: Option<f32>,
}

/// How far they may be apart. A mistake in how a graph is fed changes logits by tens of per cent;
/// rounding does by less than these.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Allowed {
    /// The same operators on the same numbers, in pieces.
    pub(crate) split: f32,
    /// Other operators on the same numbers. Products of few bits round what goes into them to
    /// eight, where a last bit of float32 can tip a whole step: 1 % and more was seen.
    pub(crate) decoded: f32,
    pub(crate) together: f32,
}

impl Allowed {
    /// For keys and values of this type.
    pub(crate) const fn of(element: Element) -> Self {
        match element {
            Element::F16 => Self { split: 2e-2, decoded: 5e-2, together: 2e-2 },
            _ => Self { split: 5e-3, decoded: 5e-2, together: 1e-2 },
        }
    }
}

impl Verdict {
    /// Whether a prompt may be computed in pieces and gone on with.
    pub(crate) fn within(&self, allowed: Allowed) -> bool {
        self.split <= allowed.split && self.decoded <= allowed.decoded
    }
}

/// Why a graph cannot be used in this way.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SelfTestError {
    #[error(transparent)]
    Step(#[from] StepError),
    #[error("it computes numbers that are none (NaN or infinite) for ordinary tokens")]
    NotFinite,
    #[error(
        "it finds every token as likely as any other, as without weights: is a file beside it whole?"
    )]
    Flat,
}

/// A prompt is cut here: the engine's own chunks have at least two tokens too.
const CUT: usize = 5;
const LENGTH: usize = 8;

/// Runs the test in slots 0 and 1; `tokens` is the size of the tokenizer's vocabulary.
pub(crate) fn run(
    session: &mut dyn Session,
    slots: usize,
    tokens: usize,
) -> Result<Verdict, SelfTestError> {
    let token = |at: usize| u32::try_from((at * 37 + 11) % tokens).unwrap_or(0);
    let prompt: Vec<u32> = (0..LENGTH).map(token).collect();
    let mut logits = Vec::new();

    session.prefill(0, 0, &prompt, &mut logits)?;
    let whole = std::mem::take(&mut logits);
    if !whole.iter().all(|logit| logit.is_finite()) {
        return Err(SelfTestError::NotFinite);
    }
    if whole.iter().all(|logit| *logit == whole[0]) {
        return Err(SelfTestError::Flat);
    }
    session.prefill(0, 0, &prompt[..CUT], &mut logits)?;
    let start = std::mem::take(&mut logits);
    session.prefill(0, CUT, &prompt[CUT..], &mut logits)?;
    let split = distance(&whole, &logits);

    session.prefill(0, 0, &prompt[..LENGTH - 1], &mut logits)?;
    session.decode(&prompt[LENGTH - 1..], &[LENGTH - 1], &mut logits)?;
    let decoded = distance(&whole, &logits);

    let together = match slots {
        0 | 1 => None,
        _ => Some(ragged(session, &prompt, &start)?),
    };
    Ok(Verdict { split, decoded, together })
}

/// Two rows of different length, two decode steps, against each row alone.
fn ragged(session: &mut dyn Session, prompt: &[u32], start: &[f32]) -> Result<f32, SelfTestError> {
    let rows = [&prompt[..CUT], prompt];
    let mut logits = Vec::new();
    let mut alone = Vec::new();
    for row in rows {
        session.prefill(0, 0, row, &mut logits)?;
        let mut steps = Vec::new();
        for (step, token) in prompt[..2].iter().enumerate() {
            session.decode(&[*token], &[row.len() + step], &mut logits)?;
            steps.push(logits.clone());
        }
        alone.push(steps);
    }
    let mut worst: f32 = 0.0;
    for (slot, row) in rows.iter().enumerate() {
        session.prefill(slot, 0, row, &mut logits)?;
        if slot == 0 {
            worst = worst.max(distance(start, &logits));
        }
    }
    for (step, token) in prompt[..2].iter().enumerate() {
        let lengths = rows.map(|row| row.len() + step);
        session.decode(&[*token, *token], &lengths, &mut logits)?;
        let vocabulary = session.vocabulary();
        for (row, logits) in logits.chunks_exact(vocabulary).enumerate() {
            worst = worst.max(distance(&alone[row][step], logits));
        }
    }
    Ok(worst)
}

/// The largest difference of an embedder's vectors, two rows together against each alone.
pub(crate) fn rows_apart(encoder: &mut dyn Encoder, tokens: usize) -> Result<f32, StepError> {
    let token = |at: usize| u32::try_from((at * 37 + 11) % tokens).unwrap_or(0);
    let long: Vec<u32> = (0..12).map(token).collect();
    let rows = [&long[..5], &long];
    let together = encoder.encode(&rows)?;
    let mut worst: f32 = 0.0;
    for (row, together) in rows.iter().zip(together) {
        let alone = encoder.encode(&[row])?.remove(0);
        let apart = alone.iter().zip(&together).map(|(a, b)| (a - b).abs());
        worst = apart.fold(worst, f32::max);
    }
    Ok(worst)
}

/// The largest difference as a share of the range; infinite where a number is none, or missing.
fn distance(expected: &[f32], found: &[f32]) -> f32 {
    if expected.len() != found.len() || expected.is_empty() {
        return f32::INFINITY;
    }
    let (mut low, mut high) = (f32::INFINITY, f32::NEG_INFINITY);
    let mut worst: f32 = 0.0;
    for (expected, found) in expected.iter().zip(found) {
        low = low.min(*expected);
        high = high.max(*expected);
        let apart = (expected - found).abs();
        worst = worst.max(if apart.is_finite() { apart } else { f32::INFINITY });
    }
    match worst {
        0.0 => 0.0,
        worst => worst / (high - low).max(f32::MIN_POSITIVE),
    }
}

#[cfg(test)]
mod tests {
    use super::{super::fake::Counting, *};

    #[test]
    fn a_sound_network_is_the_same_in_every_way() {
        let mut session = Counting::loose(2, 64);
        let verdict = run(&mut session, 2, 64).unwrap();
        assert_eq!(verdict, Verdict { split: 0.0, decoded: 0.0, together: Some(0.0) });
        assert_eq!(run(&mut session, 1, 64).unwrap().together, None);
    }

    #[test]
    fn rounding_is_allowed_and_a_mistake_is_not() {
        let allowed = Allowed::of(Element::F32);
        let verdict = |split, decoded| Verdict { split, decoded, together: None };
        assert!(verdict(0.0, 0.012).within(allowed), "as with products of 8 bits");
        assert!(!verdict(0.0, 0.2).within(allowed));
        assert!(!verdict(0.012, 0.0).within(allowed), "pieces go through the same operators");
        assert!(verdict(0.012, 0.03).within(Allowed::of(Element::F16)));
    }

    #[test]
    fn a_network_without_weights_is_found_out() {
        let mut session = Counting { flat: true, ..Counting::loose(2, 64) };
        let found = run(&mut session, 2, 64);
        assert!(matches!(found, Err(SelfTestError::Flat)), "{found:?}");
    }

    #[test]
    fn distances_are_shares_of_the_range_and_nan_is_far() {
        assert_eq!(distance(&[0.0, 10.0], &[0.0, 10.0]), 0.0);
        assert_eq!(distance(&[0.0, 10.0], &[1.0, 10.0]), 0.1);
        assert_eq!(distance(&[0.0, 10.0], &[f32::NAN, 10.0]), f32::INFINITY);
        assert_eq!(distance(&[0.0, 10.0], &[0.0]), f32::INFINITY);
        assert_eq!(distance(&[], &[]), f32::INFINITY);
    }
}
