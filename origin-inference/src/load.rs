//! How busy the engine is, and how long a new job would wait. Measured by the worker, read by
//! everybody; the estimate is pure.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

/// A snapshot of the engine.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Load {
    pub(crate) slots: usize,
    /// Sequences that hold a slot.
    pub(crate) running: usize,
    /// Sequences that wait for one.
    pub(crate) waiting: usize,
    /// Prompt tokens of those that wait, and what is left of the prompt in work.
    pub(crate) prompt_tokens: usize,
    /// Tokens in the KV pool, and what it can hold.
    pub(crate) kv_tokens: usize,
    pub(crate) kv_capacity: usize,
    /// Seconds for a token of a prompt, cached ones included; 0 before the first.
    pub(crate) prompt_token_seconds: f64,
    /// Seconds of a decode step; 0 before the first.
    pub(crate) step_seconds: f64,
    /// Seconds that a sequence holds its slot.
    pub(crate) hold_seconds: f64,
    /// Seconds from a job's arrival to its first token.
    pub(crate) first_token_seconds: f64,
    /// Of the prompt tokens looked for in the prefix cache, those found.
    pub(crate) hit_rate: f64,
}

/// A snapshot that one thread writes and many read.
#[derive(Debug, Default)]
pub(crate) struct Board(Mutex<Load>);

impl Board {
    pub(crate) fn read(&self) -> Load {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn write(&self, load: Load) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = load;
    }
}

/// Seconds for a unit of work, measured over pieces of different size: a large one counts for more,
/// and each new piece takes a tenth from the weight of those before it.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Rate {
    seconds: f64,
    units: f64,
}

impl Rate {
    pub(crate) fn add(&mut self, seconds: f64, units: usize) {
        self.seconds = self.seconds * 0.9 + seconds;
        self.units = self.units * 0.9 + count(units);
    }

    /// 0 before the first.
    pub(crate) fn each(self) -> f64 {
        if self.units > 0.0 { self.seconds / self.units } else { 0.0 }
    }
}

/// A moving average: each new value counts a tenth.
pub(crate) fn average(before: f64, value: f64) -> f64 {
    match before {
        0.0 => value,
        before => before + (value - before) / 10.0,
    }
}

impl Load {
    /// How long a job of `prompt_tokens` would wait for its first token: the prompts before it,
    /// its own, a decode step between two chunks of `chunk` tokens, and its turn for a slot. What
    /// was not measured yet counts nothing, and an idle engine is always worth a try: after a bad
    /// measurement only work brings a better one.
    pub(crate) fn first_token_after(&self, prompt_tokens: usize, chunk: usize) -> Duration {
        if self.running == 0 && self.waiting == 0 {
            return Duration::ZERO;
        }
        let tokens = self.prompt_tokens + prompt_tokens;
        let steps = if self.running > 0 { tokens.div_ceil(chunk.max(1)) } else { 0 };
        let slots = self.slots.max(1);
        let turns = self.waiting / slots + usize::from(self.running >= slots);
        // Slots come free one after another: the first after its share of a sequence's time.
        let slot = match turns {
            0 => 0.0,
            turns => (count(turns - 1) + 1.0 / count(slots)) * self.hold_seconds,
        };
        let prompts = count(tokens) * self.prompt_token_seconds;
        let seconds = slot + prompts + count(steps) * self.step_seconds;
        Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX)
    }

    /// ORCA's `endpoint-load-metrics` in its text form:
    /// <https://github.com/cncf/xds/blob/main/xds/data/orca/v3/orca_load_report.proto>.
    pub(crate) fn orca(&self) -> String {
        let Self { waiting, running, hit_rate, .. } = self;
        let kv = share(self.kv_tokens, self.kv_capacity);
        let ttft = self.first_token_seconds * 1000.0;
        let busy = share(*running, self.slots);
        format!(
            "TEXT application_utilization={busy:.3}, named_metrics.queue_depth={waiting}, \
             named_metrics.running={running}, named_metrics.kv_cache_utilization={kv:.3}, \
             named_metrics.prefix_hit_rate={hit_rate:.3}, named_metrics.ttft_ms={ttft:.1}"
        )
    }
}

/// `part` of `whole`, from 0 to 1.
pub(crate) fn share(part: usize, whole: usize) -> f64 {
    count(part) / count(whole.max(1))
}

#[expect(clippy::cast_precision_loss, reason = "counts of tokens and sequences")]
fn count(number: usize) -> f64 {
    number as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    const MEASURED: Load = Load {
        slots: 4,
        running: 0,
        waiting: 0,
        prompt_tokens: 0,
        kv_tokens: 0,
        kv_capacity: 4096,
        prompt_token_seconds: 0.001,
        step_seconds: 0.01,
        hold_seconds: 2.0,
        first_token_seconds: 0.1,
        hit_rate: 0.5,
    };

    fn seconds(load: Load) -> f64 {
        load.first_token_after(200, 100).as_secs_f64()
    }

    #[test]
    fn a_wait_is_the_prompts_before_and_the_turn_for_a_slot() {
        assert_eq!(seconds(Load::default()), 0.0, "nothing is known yet");
        assert_eq!(seconds(MEASURED), 0.0, "an idle engine is worth a try");
        assert_eq!(seconds(Load { waiting: 1, ..MEASURED }), 0.2);
        assert_eq!(seconds(Load { running: 2, ..MEASURED }), 0.2 + 2.0 * 0.01);
        let queue = Load { prompt_tokens: 800, waiting: 2, running: 3, ..MEASURED };
        assert_eq!(seconds(queue), 1.0 + 10.0 * 0.01);
        let full = Load { running: 4, ..MEASURED };
        assert_eq!(seconds(full), 0.5 + 0.2 + 2.0 * 0.01);
        let line = Load { waiting: 8, ..full };
        assert_eq!(seconds(line), 2.0 * 2.0 + 0.5 + 0.2 + 2.0 * 0.01);
    }

    #[test]
    fn one_slow_token_does_not_make_long_prompts_slow() {
        let mut rate = Rate::default();
        assert_eq!(rate.each(), 0.0);
        rate.add(0.01, 1);
        assert_eq!(rate.each(), 0.01);
        rate.add(0.2, 1000);
        assert!(rate.each() < 0.000_22, "{rate:?}");
        // A pause of a minute is forgotten after some prompts.
        rate.add(60.0, 100);
        (0..60).for_each(|_| rate.add(0.02, 100));
        assert!(rate.each() < 0.001, "{rate:?}");
    }

    #[test]
    fn averages_follow_slowly_and_begin_at_once() {
        assert_eq!(average(0.0, 3.0), 3.0);
        assert_eq!(average(1.0, 2.0), 1.1);
    }

    #[test]
    fn the_report_is_orcas_text() {
        let load = Load { running: 2, waiting: 3, kv_tokens: 1024, ..MEASURED };
        assert_eq!(
            load.orca(),
            "TEXT application_utilization=0.500, named_metrics.queue_depth=3, \
             named_metrics.running=2, named_metrics.kv_cache_utilization=0.250, \
             named_metrics.prefix_hit_rate=0.500, named_metrics.ttft_ms=100.0"
        );
    }
}
