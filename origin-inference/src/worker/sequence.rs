//! A sequence in a slot: what was said of it, and what comes next.

use std::time::Instant;

use nearhop_wire::{Delta, Finish, TokenLogprob};

use crate::{
    Model,
    queue::{Event, Failure, Generation},
    sampler::{Drawing, NotFinite, Sampler, logprobs},
    text::{Detokenizer, StopStrings, Stopped},
};

/// A sequence that holds a slot.
pub(super) struct Sequence {
    pub(super) generation: Generation,
    /// What prefill computes: the prompt, and what is resumed.
    pub(super) prompt: Vec<u32>,
    /// Tokens whose KV state is in the slot.
    pub(super) length: usize,
    /// The token to compute next.
    pub(super) next: u32,
    /// When it took its slot, and when it last got a token.
    pub(super) begun: Instant,
    pub(super) last_token: Option<Instant>,
    generated: usize,
    sampler: Sampler,
    detokenizer: Detokenizer,
    stop: StopStrings,
    /// Characters of text so far, held ones included.
    characters: usize,
    /// Tokens of which no text was given out yet, and how likely they were.
    pending: Vec<u32>,
    pending_logprobs: Vec<TokenLogprob>,
}

/// What a step did to a sequence.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Progress {
    Goes,
    Ended,
    /// Its logits were no numbers.
    Broken,
}

impl Sequence {
    pub(super) fn new(generation: Generation, model: &Model, now: Instant) -> Self {
        let settings = &generation.job.settings;
        let drawing = Drawing {
            temperature: settings.temperature,
            top_p: settings.top_p,
            seed: settings.seed,
            index: generation.index,
            penalties: settings.penalties,
        };
        let resumed = generation.resumed();
        let mut sequence = Self {
            length: 0,
            next: 0,
            begun: now,
            last_token: None,
            generated: 0,
            sampler: Sampler::new(drawing, &generation.job.tokens),
            detokenizer: Detokenizer::new(&model.tokenizer),
            stop: StopStrings::new(settings.stop.clone()),
            characters: 0,
            pending: Vec::new(),
            pending_logprobs: Vec::new(),
            prompt: [generation.job.tokens.as_slice(), resumed].concat(),
            generation,
        };
        // What the client has already goes the same way, and is not said again.
        for token in sequence.generation.resumed().to_vec() {
            sequence.sampler.accept(token);
            sequence.generated += 1;
            let text = sequence.detokenizer.push(token, &model.tokenizer);
            sequence.characters += text.chars().count();
            sequence.stop.push(&text);
        }
        sequence
    }

    /// Ends a resumed sequence that has nothing left to generate. Returns whether it did.
    pub(super) fn end_if_full(&mut self, model: &Model) -> bool {
        let full = self.prompt.len() >= model.context_length();
        let ends = self.generated >= self.generation.job.settings.max_tokens || full;
        if ends {
            self.end(Finish::Length, model);
        }
        ends
    }

    /// Takes the next token from `logits` and sends what text became certain.
    pub(super) fn advance(&mut self, logits: &[f32], model: &Model) -> Progress {
        // Graphs are padded to a round number of tokens; no text belongs to the rest.
        let logits = &logits[..model.vocabulary().min(logits.len())];
        let token = match self.sampler.pick(logits) {
            Ok(token) => token,
            Err(NotFinite) => return Progress::Broken,
        };
        if model.manifest.end_tokens.contains(&token) {
            return self.end(Finish::Stop, model);
        }
        self.sampler.accept(token);
        self.next = token;
        self.generated += 1;
        self.pending.push(token);
        if let Some(top) = self.generation.job.settings.logprobs {
            self.note_logprobs(logits, token, top, model);
        }
        let text = self.detokenizer.push(token, &model.tokenizer);
        self.characters += text.chars().count();
        match self.stop.push(&text) {
            Stopped::Yes(text) => return self.send(text, Some(Finish::Stop)),
            Stopped::No(text) if !text.is_empty() => {
                if self.send(text, None) == Progress::Ended {
                    return Progress::Ended;
                }
            }
            Stopped::No(_) => {}
        }
        let full = self.length + 1 >= model.context_length();
        if self.generated >= self.generation.job.settings.max_tokens || full {
            return self.end(Finish::Length, model);
        }
        Progress::Goes
    }

    fn note_logprobs(&mut self, logits: &[f32], token: u32, top: usize, model: &Model) {
        let (logprob, top) = logprobs(logits, token, top);
        let sayable = |logprob: f32| logprob.max(TokenLogprob::LOWEST);
        let text = |token| model.tokenizer.piece(token);
        self.pending_logprobs.push(TokenLogprob {
            token: text(token),
            logprob: sayable(logprob),
            offset: self.characters,
            top: top.into_iter().map(|(token, logprob)| (text(token), sayable(logprob))).collect(),
        });
    }

    fn end(&mut self, finish: Finish, model: &Model) -> Progress {
        let rest = self.detokenizer.finish(&model.tokenizer);
        match self.stop.push(&rest) {
            Stopped::Yes(text) => self.send(text, Some(Finish::Stop)),
            Stopped::No(text) => {
                let text = text + &self.stop.finish();
                self.send(text, Some(finish))
            }
        }
    }

    fn send(&mut self, text: String, finish: Option<Finish>) -> Progress {
        let delta = Delta {
            index: self.generation.index,
            text,
            token_ids: std::mem::take(&mut self.pending),
            logprobs: std::mem::take(&mut self.pending_logprobs),
            finish,
        };
        let sent = self.generation.events.try_send(Event::Delta(delta));
        match finish.is_some() || sent.is_err() {
            true => Progress::Ended,
            false => Progress::Goes,
        }
    }

    /// Says, once, that its prompt's first `cached` tokens need no computing. Returns whether it
    /// was the first time.
    pub(super) fn begin(&mut self, cached: usize) -> bool {
        let first = !std::mem::replace(&mut self.generation.begun, true);
        if first {
            // A reader that is gone is seen by the worker.
            let _ = self.generation.events.try_send(Event::Begun { cached });
        }
        first
    }

    /// Takes it out of its slot before it has had a token.
    pub(super) fn suspend(self) -> Generation {
        let mut generation = self.generation;
        generation.place.take_again();
        generation
    }

    pub(super) fn fail(self, failure: Failure) {
        let _ = self.generation.events.try_send(Event::Failed(failure));
    }
}
