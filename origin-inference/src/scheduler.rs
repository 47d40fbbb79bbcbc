//! What the worker does next. Pure.
//!
//! One prefill chunk and one decode step take turns: a long prompt then delays the others' tokens
//! by one chunk, and running answers delay a new prompt by one step each chunk. Grouped-query
//! attention on the CPU computes a prompt chunk alone (batch 1), so the two are never one step.

use std::ops::Range;

/// What the worker has.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct View {
    /// Sequences that wait for a slot.
    pub(crate) waiting: usize,
    /// The prompt being computed: tokens done, tokens in all.
    pub(crate) prefilling: Option<(usize, usize)>,
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
}

/// The next thing to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Step {
    /// Give the oldest waiting sequence a slot.
    Admit,
    /// Compute these tokens of the prompt.
    Prefill(Range<usize>),
    /// Compute one token for every decoding sequence.
    Decode,
    /// Wait for a job.
    Wait,
}

pub(crate) fn next_step(view: &View, limits: Limits) -> Step {
    match view.prefilling {
        None if view.waiting > 0 && view.decoding < limits.slots => Step::Admit,
        Some((done, length)) if view.decoding == 0 || !view.prefilled_last => {
            Step::Prefill(chunk(done, length, budget(view, limits)))
        }
        _ if view.decoding > 0 => Step::Decode,
        _ => Step::Wait,
    }
}

/// A chunk takes at most about this many decode steps' time while answers run, so that their tokens
/// come at most that much later.
const CHUNK_STEPS: f64 = 1.5;
/// Smaller chunks cost more than they spare.
const CHUNK_MIN: usize = 16;

/// Tokens of the next chunk.
fn budget(view: &View, limits: Limits) -> usize {
    if view.decoding == 0 || view.chunk_token_seconds <= 0.0 || view.step_seconds <= 0.0 {
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

    const LIMITS: Limits = Limits { slots: 2, chunk: 128 };

    fn check(view: View, expected: Step) {
        assert_eq!(next_step(&view, LIMITS), expected, "{view:?}");
    }

    fn view(waiting: usize, prefilling: Option<(usize, usize)>, decoding: usize) -> View {
        View {
            waiting,
            prefilling,
            decoding,
            prefilled_last: false,
            chunk_token_seconds: 0.0,
            step_seconds: 0.0,
        }
    }

    #[test]
    fn nothing_to_do_is_a_wait() {
        check(view(0, None, 0), Step::Wait);
    }

    #[test]
    fn a_free_slot_admits() {
        check(view(1, None, 1), Step::Admit);
    }

    #[test]
    fn without_a_free_slot_a_job_waits() {
        check(view(1, None, 2), Step::Decode);
    }

    #[test]
    fn prompts_and_answers_take_turns() {
        check(view(0, Some((0, 300)), 1), Step::Prefill(0..128));
        check(View { prefilled_last: true, ..view(0, Some((128, 300)), 1) }, Step::Decode);
        check(
            View { prefilled_last: true, ..view(0, Some((128, 300)), 0) },
            Step::Prefill(128..256),
        );
    }

    #[test]
    fn a_chunk_takes_no_longer_than_running_answers_can_bear() {
        let timed = |decoding, step_seconds| View {
            chunk_token_seconds: 0.000_125,
            step_seconds,
            ..view(0, Some((0, 300)), decoding)
        };
        check(timed(1, 0.004), Step::Prefill(0..48));
        check(timed(1, 0.001), Step::Prefill(0..16));
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
        fn work_never_stands_still(waiting in 0usize..3, decoding in 0usize..3, done in 0usize..5, prefilling: bool, prefilled_last: bool) {
            let prefilling = (prefilling && decoding < 2).then_some((done, 5));
            let step = next_step(&View { prefilled_last, ..view(waiting, prefilling, decoding) }, LIMITS);
            let idle = waiting == 0 && prefilling.is_none() && decoding == 0;
            prop_assert_eq!(step == Step::Wait, idle);
        }
    }
}
