//! What the worker asks of a neural network: a seam with two sides, ONNX Runtime and a fake.
//!
//! A session owns the KV state of a fixed number of slots. Slots in use are kept together at the
//! front by the worker, so that a decode step reads one contiguous piece of memory.

mod encoder;
mod kv;
mod layout;
mod library;
mod names;
mod network;
pub(crate) mod ort;
mod provider;
mod self_test;
mod warm_up;

use std::ops::Range;

pub use self::{
    encoder::Encoder,
    kv::KvBlock,
    network::KvUse,
    ort::{Opened, OpenedEncoder, Options, Runtime, open, open_encoder},
    provider::Declined,
};

/// A step that the network could not compute.
#[derive(Debug, thiserror::Error)]
#[error("the model could not compute a step: {0}")]
pub struct StepError(pub String);

/// A network with KV state for several sequences.
pub trait Session: Send {
    /// Computes `tokens` of the sequence in `slot`, of which `done` tokens are there already.
    /// `logits` receives the last token's, one per token of the vocabulary.
    ///
    /// # Errors
    /// [`StepError`]; the slot's state is then undefined.
    fn prefill(
        &mut self,
        slot: usize,
        done: usize,
        tokens: &[u32],
        logits: &mut Vec<f32>,
    ) -> Result<(), StepError>;

    /// Computes one token each for the sequences in slots `0..tokens.len()`, which hold `lengths`
    /// tokens. `logits` receives a vocabulary's worth for each, in the order of slots.
    ///
    /// # Errors
    /// [`StepError`]; the state of all these slots is then undefined.
    fn decode(
        &mut self,
        tokens: &[u32],
        lengths: &[usize],
        logits: &mut Vec<f32>,
    ) -> Result<(), StepError>;

    /// Copies the first `length` tokens of the sequence in slot `from` to slot `to`.
    fn copy(&mut self, from: usize, to: usize, length: usize);

    /// A copy of the state of `tokens` of the sequence in `slot`.
    fn save(&self, slot: usize, tokens: Range<usize>) -> KvBlock;

    /// Puts the state of `tokens` back, into any slot of a session of the same model. The tokens
    /// before them must be there.
    fn restore(&mut self, slot: usize, tokens: Range<usize>, block: &KvBlock);

    /// Memory of one token's state, bytes.
    fn token_bytes(&self) -> usize;

    /// Whether a prompt may be computed in pieces, which reuse of a prefix needs too.
    fn splits(&self) -> bool;

    /// Tokens of the vocabulary.
    fn vocabulary(&self) -> usize;
}

#[cfg(test)]
pub(crate) mod fake {
    use std::{ops::Range, sync::mpsc};

    use super::{KvBlock, Session, StepError};

    /// A network whose first step takes until the test drops the other end.
    pub(crate) struct Stuck(mpsc::Receiver<()>);

    impl Stuck {
        pub(crate) fn new() -> (Self, mpsc::Sender<()>) {
            let (release, stuck) = mpsc::channel();
            (Self(stuck), release)
        }
    }

    impl Session for Stuck {
        fn prefill(
            &mut self,
            _: usize,
            _: usize,
            _: &[u32],
            _: &mut Vec<f32>,
        ) -> Result<(), StepError> {
            let _ = self.0.recv();
            Err(StepError("released".to_owned()))
        }

        fn decode(&mut self, _: &[u32], _: &[usize], _: &mut Vec<f32>) -> Result<(), StepError> {
            Err(StepError("never reached".to_owned()))
        }

        fn copy(&mut self, _: usize, _: usize, _: usize) {}

        fn save(&self, _: usize, _: Range<usize>) -> KvBlock {
            KvBlock::F32(Box::new([]))
        }

        fn restore(&mut self, _: usize, _: Range<usize>, _: &KvBlock) {}

        fn token_bytes(&self) -> usize {
            4
        }

        fn splits(&self) -> bool {
            true
        }

        fn vocabulary(&self) -> usize {
            512
        }
    }

    type Watch = Box<dyn FnMut(&[u32]) + Send>;

    /// A network whose next token is the last one plus one, but which checks all it is told: that
    /// each slot holds what it should.
    pub(crate) struct Counting {
        pub(crate) slots: Vec<Vec<u32>>,
        pub(crate) vocabulary: usize,
        /// Takes any token, not only the one that it would count.
        pub(crate) loose: bool,
        /// Finds every token as likely as any other.
        pub(crate) flat: bool,
        /// Hears each piece of a prompt before it is computed.
        pub(crate) watch: Option<Watch>,
        /// Fails every step while set.
        pub(crate) broken: std::sync::Arc<std::sync::atomic::AtomicBool>,
    }

    impl Counting {
        pub(crate) fn new(slots: usize, vocabulary: usize) -> Self {
            Self {
                slots: vec![Vec::new(); slots],
                vocabulary,
                loose: false,
                flat: false,
                watch: None,
                broken: Default::default(),
            }
        }

        /// One that takes any token.
        pub(crate) fn loose(slots: usize, vocabulary: usize) -> Self {
            Self { loose: true, ..Self::new(slots, vocabulary) }
        }

        fn next(&self, slot: usize, logits: &mut Vec<f32>) {
            let next = (*self.slots[slot].last().unwrap() as usize + 1) % self.vocabulary;
            let from = logits.len();
            logits.resize(from + self.vocabulary, 0.0);
            if !self.flat {
                logits[from + next] = 1.0;
            }
        }

        fn check(&self) -> Result<(), StepError> {
            match self.broken.load(std::sync::atomic::Ordering::Relaxed) {
                true => Err(StepError("broken on purpose".to_owned())),
                false => Ok(()),
            }
        }
    }

    impl Session for Counting {
        fn prefill(
            &mut self,
            slot: usize,
            done: usize,
            tokens: &[u32],
            logits: &mut Vec<f32>,
        ) -> Result<(), StepError> {
            if let Some(watch) = &mut self.watch {
                watch(tokens);
            }
            self.check()?;
            assert!(done <= self.slots[slot].len(), "a gap in the prompt");
            self.slots[slot].truncate(done);
            self.slots[slot].extend(tokens);
            logits.clear();
            self.next(slot, logits);
            Ok(())
        }

        fn decode(
            &mut self,
            tokens: &[u32],
            lengths: &[usize],
            logits: &mut Vec<f32>,
        ) -> Result<(), StepError> {
            self.check()?;
            logits.clear();
            for (slot, (token, length)) in tokens.iter().zip(lengths).enumerate() {
                assert_eq!(self.slots[slot].len(), *length, "slot {slot} holds another sequence");
                let counted = self.slots[slot].last().unwrap() + 1;
                assert!(self.loose || counted == *token, "slot {slot} got another's token");
                self.slots[slot].push(*token);
                self.next(slot, logits);
            }
            Ok(())
        }

        fn copy(&mut self, from: usize, to: usize, length: usize) {
            self.slots[to] = self.slots[from][..length].to_vec();
        }

        fn save(&self, slot: usize, tokens: Range<usize>) -> KvBlock {
            KvBlock::F32(
                self.slots[slot][tokens].iter().map(|token| f32::from_bits(*token)).collect(),
            )
        }

        fn restore(&mut self, slot: usize, tokens: Range<usize>, block: &KvBlock) {
            let KvBlock::F32(values) = block else { panic!("a block of another network") };
            assert_eq!(values.len(), tokens.len());
            self.slots[slot].truncate(tokens.start);
            assert_eq!(self.slots[slot].len(), tokens.start, "a gap before the block");
            self.slots[slot].extend(values.iter().map(|value| value.to_bits()));
        }

        fn token_bytes(&self) -> usize {
            size_of::<f32>()
        }

        fn splits(&self) -> bool {
            true
        }

        fn vocabulary(&self) -> usize {
            self.vocabulary
        }
    }
}
