//! What the worker does next. Pure.
//!
//! One prefill chunk and one decode step take turns: a long prompt then delays the others' tokens
//! by one chunk, and running answers delay a new prompt by one step each chunk. Grouped-query
//! attention on the CPU computes a prompt chunk alone (batch 1), so the two are never one step.
//!
//! Better classes do not wait for worse ones: a long prompt goes back into the line between two
//! chunks for one of a better rank, and the last free slot is kept for code at a cursor. Both end
//! for whoever has waited long enough ([`crate::line::PATIENCE`]).

use std::ops::Range;

/// The prompt being computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Prompt {
    /// Tokens done, tokens in all.
    pub(crate) done: usize,
    pub(crate) length: usize,
    /// How soon it is served, 0 first; see [`crate::line`].
    pub(crate) rank: u32,
}

/// What the worker has.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct View {
    /// The rank of the sequence that is next, where any waits for a slot.
    pub(crate) next: Option<u32>,
    pub(crate) prefilling: Option<Prompt>,
    /// Sequences that produce tokens.
    pub(crate) decoding: usize,
    /// Whether the last step was a prefill chunk.
    pub(crate) prefilled_last: bool,
    /// Seconds for a token of a chunk, and of a decode step; 0 before the first.
    pub(crate) chunk_token_seconds: f64,
    pub(crate) step_seconds: f64,
}

/// Limits of a step.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Sequences in the KV pool.
    pub(crate) slots: usize,
    /// Tokens of a prefill chunk, at least 2.
    pub(crate) chunk: usize,
    /// Whether every prompt is one chunk, because pieces would give another answer. `chunk` is then
    /// the context.
    pub(crate) whole: bool,
}

/// The next thing to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Step {
    /// Give the oldest waiting sequence a slot.
    Admit,
    /// Put the prompt being computed back into the line, for a better one that waits.
    Suspend,
    /// Compute these tokens of the prompt.
    Prefill(Range<usize>),
    /// Compute one token for every decoding sequence.
    Decode,
    /// Wait for a job.
    Wait,
}

pub(crate) fn next_step(view: &View, limits: Limits) -> Step {
    match (view.prefilling, view.next) {
        (None, Some(rank)) if has_slot(rank, view.decoding, limits) => Step::Admit,
        (Some(prompt), Some(rank)) if gives_way(prompt, rank, limits) => Step::Suspend,
        (Some(Prompt { done, length, .. }), _) if view.decoding == 0 || !view.prefilled_last => {
            Step::Prefill(chunk(done, length, budget(view, limits)))
        }
        _ if view.decoding > 0 => Step::Decode,
        _ => Step::Wait,
    }
}

/// From this rank on a sequence leaves the last slot free, for somebody who is typing. Whoever
/// waited long enough has a better rank.
const PATIENT: u32 = 2;

/// Whether a sequence of this rank gets a slot.
const fn has_slot(rank: u32, decoding: usize, limits: Limits) -> bool {
    let free = limits.slots.saturating_sub(decoding);
    free > 1 || (free == 1 && (rank < PATIENT || limits.slots == 1))
}

/// Whether the prompt being computed lets one of this rank go first: not for its last chunk, and
/// not where it cannot be computed in pieces.
const fn gives_way(prompt: Prompt, rank: u32, limits: Limits) -> bool {
    rank < prompt.rank && prompt.length - prompt.done > limits.chunk && !limits.whole
}

/// A chunk takes at most about this many decode steps' time while answers run, so that their tokens
/// come at most that much later.
const CHUNK_STEPS: f64 = 1.5;
/// Smaller chunks cost more than they spare: a step has a price of its own.
const CHUNK_MIN: usize = 4;

/// Tokens of the next chunk.
fn budget(view: &View, limits: Limits) -> usize {
    if limits.whole
        || view.decoding == 0
        || view.chunk_token_seconds <= 0.0
        || view.step_seconds <= 0.0
    {
        return limits.chunk;
    }
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a positive quotient; what is too large is cut next"
    )]
    let fitting = (CHUNK_STEPS * view.step_seconds / view.chunk_token_seconds) as usize;
    fitting.max(CHUNK_MIN).min(limits.chunk)
}

/// The next chunk. A chunk of exactly one token would be computed as a decode step, which rounds
/// differently (by about 1e-6), so that the last two tokens are never split.
fn chunk(done: usize, length: usize, max: usize) -> Range<usize> {
    let rest = length - done;
    let size = match rest {
        rest if rest <= max => rest,
        rest if rest == max + 1 && max > 2 => max - 1,
        _ => max,
    };
    done..done + size
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LIMITS: Limits = Limits { slots: 2, chunk: 128, whole: false };

    fn check(view: View, expected: Step) {
        assert_eq!(next_step(&view, LIMITS), expected, "{view:?}");
    }

    /// `next` is the rank of who waits; `prefilling` the tokens done and in all, of rank 1.
    fn view(next: Option<u32>, prefilling: Option<(usize, usize)>, decoding: usize) -> View {
        View {
            next,
            prefilling: prefilling.map(|(done, length)| Prompt { done, length, rank: 1 }),
            decoding,
            prefilled_last: false,
            chunk_token_seconds: 0.0,
            step_seconds: 0.0,
        }
    }

    #[test]
    fn nothing_to_do_is_a_wait() {
        check(view(None, None, 0), Step::Wait);
    }

    #[test]
    fn a_free_slot_admits() {
        check(view(Some(0), None, 1), Step::Admit);
        check(view(Some(3), None, 0), Step::Admit);
    }

    #[test]
    fn without_a_free_slot_a_job_waits() {
        check(view(Some(0), None, 2), Step::Decode);
    }

    #[test]
    fn the_last_slot_is_for_somebody_who_is_typing() {
        check(view(Some(2), None, 1), Step::Decode);
        check(view(Some(1), None, 1), Step::Admit);
        let alone = Limits { slots: 1, ..LIMITS };
        assert_eq!(next_step(&view(Some(3), None, 0), alone), Step::Admit, "there is no other");
    }

    #[test]
    fn a_long_prompt_gives_way_to_a_better_class() {
        check(view(Some(0), Some((0, 300)), 1), Step::Suspend);
        check(view(Some(1), Some((0, 300)), 0), Step::Prefill(0..128));
        check(view(Some(0), Some((256, 300)), 0), Step::Prefill(256..300));
        let whole = Limits { chunk: 1024, whole: true, ..LIMITS };
        assert_eq!(next_step(&view(Some(0), Some((0, 300)), 0), whole), Step::Prefill(0..300));
    }

    #[test]
    fn what_must_stay_whole_stays_whole_beside_running_answers() {
        let whole = Limits { chunk: 1024, whole: true, ..LIMITS };
        let timed = View {
            chunk_token_seconds: 0.001,
            step_seconds: 0.001,
            ..view(None, Some((0, 300)), 1)
        };
        assert_eq!(next_step(&timed, whole), Step::Prefill(0..300));
    }

    #[test]
    fn prompts_and_answers_take_turns() {
        check(view(None, Some((0, 300)), 1), Step::Prefill(0..128));
        check(View { prefilled_last: true, ..view(None, Some((128, 300)), 1) }, Step::Decode);
        check(
            View { prefilled_last: true, ..view(None, Some((128, 300)), 0) },
            Step::Prefill(128..256),
        );
    }

    #[test]
    fn a_chunk_takes_no_longer_than_running_answers_can_bear() {
        let timed = |decoding, step_seconds| View {
            chunk_token_seconds: 0.000_125,
            step_seconds,
            ..view(None, Some((0, 300)), decoding)
        };
        check(timed(1, 0.004), Step::Prefill(0..48));
        check(timed(1, 0.001), Step::Prefill(0..12));
        check(timed(1, 0.000_1), Step::Prefill(0..4));
        check(timed(1, 0.1), Step::Prefill(0..128));
        check(timed(0, 0.001), Step::Prefill(0..128));
    }

    proptest! {
        #[test]
        fn chunks_cover_the_prompt_once_and_none_is_a_single_token(length in 1usize..2000, max in 3usize..300) {
            let mut done = 0;
            while done < length {
                let next = chunk(done, length, max);
                prop_assert_eq!(next.start, done);
                prop_assert!(next.len() <= max && next.end <= length);
                prop_assert!(next.len() >= 2 || length == 1);
                done = next.end;
            }
        }

        #[test]
        fn work_never_stands_still(next in prop::option::of(0u32..4), decoding in 0usize..3, done in 0usize..5, prefilling: bool, prefilled_last: bool) {
            let prefilling = (prefilling && decoding < 2).then_some((done, 5));
            let step = next_step(&View { prefilled_last, ..view(next, prefilling, decoding) }, LIMITS);
            let idle = next.is_none() && prefilling.is_none() && decoding == 0;
            prop_assert_eq!(step == Step::Wait, idle);
        }
    }
}
