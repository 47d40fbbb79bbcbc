//! A prompt as a chain of blocks. Pure.
//!
//! Each block's name hashes everything before it, so that a name stands for a beginning. A pod's
//! blocks are 16 tokens, about 64 bytes of code; as fine as that are only the first ones here. Behind
//! them a block is at most an eighth of what lies before it: a match that ends inside one is short by
//! that much and no more, while a prompt of any size is a few hundred names.
//!
//! A window that slides changes its own beginning, and with it every name: nothing of it is in a pod
//! either. For a hole to be filled, the parts come in the order in which the pod lays them out; where
//! the suffix comes first, it stays matched while somebody types before it.
//!
//! Absent on purpose: secrecy. Who can make two prompts collide has sent both himself, and all that
//! comes of it is a pod that must compute what it was thought to have.

/// Bytes of the finest block.
const UNIT: usize = 64;
/// Units up to which each is a block.
const FINE: u32 = 128;
/// Units up to which eight are a block; behind that, 64 are.
const MIDDLE: u32 = 8 * FINE;
/// Units that are looked at, 512 KiB of text: more than any context that our pods serve.
const MOST: u32 = 8 * MIDDLE;
/// Between two parts. No UTF-8 has this byte, so parts that differ in where they meet differ.
const MEETING: &[u8] = &[0xff];
/// 2⁶⁴ over the golden ratio: odd, and with bits everywhere.
const MULTIPLIER: u64 = 0x9e37_79b9_7f4a_7c15;

/// Chained hashes of a prompt's blocks: equal up to one of them, the texts are equal up to there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chain {
    names: Vec<u64>,
}

impl Chain {
    /// Of `parts`, in the order in which the pod lays them out, for what `salt` says: whose they are
    /// and for which model.
    #[must_use]
    pub fn of(salt: u64, parts: &[&str]) -> Self {
        let mut links = Links::new(salt);
        let mut begun = Begun { unit: [0; UNIT], length: 0 };
        for (at, part) in parts.iter().enumerate() {
            if at > 0 {
                begun.follow(MEETING, &mut links);
            }
            begun.follow(part.as_bytes(), &mut links);
        }
        Self { names: links.names }
    }

    /// Of blocks that somebody else has told apart, each taken for as much as the finest of ours.
    #[must_use]
    pub fn from_blocks(salt: u64, blocks: impl IntoIterator<Item = u64>) -> Self {
        let mut links = Links::new(salt);
        for block in blocks.into_iter().take(MOST as usize) {
            links.add(&[block]);
        }
        Self { names: links.names }
    }

    /// Whether there is not one whole block.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    /// How many blocks there are.
    #[must_use]
    pub fn blocks(&self) -> usize {
        self.names.len()
    }

    /// The blocks' names and how many units each is, the last one first.
    pub(super) fn backwards(&self) -> impl Iterator<Item = (u64, u32)> {
        let units = |at| units_of(at + 1) - units_of(at);
        self.names.iter().enumerate().rev().map(move |(at, name)| (*name, units(at)))
    }

    /// The share of it that lies before the first block for which `known` is false. No block may be
    /// known whose predecessor is not.
    pub(super) fn share(&self, known: impl Fn(u64) -> bool) -> f64 {
        if self.is_empty() {
            return 0.0;
        }
        let blocks = self.names.partition_point(|name| known(*name));
        f64::from(units_of(blocks)) / f64::from(units_of(self.names.len()))
    }
}

/// Units of a chain's first `blocks` blocks.
fn units_of(blocks: usize) -> u32 {
    // No chain is longer, and what is asked of one fits.
    let blocks = u32::try_from(blocks).unwrap_or(u32::MAX);
    let middle = FINE + (MIDDLE - FINE) / 8;
    match blocks {
        fine if fine <= FINE => fine,
        some if some <= middle => FINE + (some - FINE) * 8,
        many => MIDDLE + (many - middle).min(MOST) * 64,
    }
}

/// A chain as it grows by units.
struct Links {
    names: Vec<u64>,
    state: u64,
    units: u32,
}

impl Links {
    fn new(salt: u64) -> Self {
        Self { names: Vec::new(), state: mix(salt, MULTIPLIER), units: 0 }
    }

    fn is_full(&self) -> bool {
        self.units == MOST
    }

    fn add(&mut self, words: &[u64]) {
        self.state = words.iter().fold(self.state, |state, word| mix(state, *word));
        self.units += 1;
        let block = match self.units {
            units if units <= FINE => 1,
            units if units <= MIDDLE => 8,
            _ => 64,
        };
        if self.units.is_multiple_of(block) {
            // Mixed once more: in a state itself the last word would still show.
            self.names.push(mix(self.state, MULTIPLIER));
        }
    }
}

/// A unit that is not whole yet.
struct Begun {
    unit: [u8; UNIT],
    length: usize,
}

impl Begun {
    fn follow(&mut self, mut bytes: &[u8], links: &mut Links) {
        while !bytes.is_empty() && !links.is_full() {
            if self.length == 0
                && let Some((unit, rest)) = bytes.split_first_chunk::<UNIT>()
            {
                links.add(&words(unit));
                bytes = rest;
                continue;
            }
            let (now, rest) = bytes.split_at(bytes.len().min(UNIT - self.length));
            self.unit[self.length..][..now.len()].copy_from_slice(now);
            self.length += now.len();
            bytes = rest;
            if self.length == UNIT {
                links.add(&words(&self.unit));
                self.length = 0;
            }
        }
    }
}

fn words(unit: &[u8; UNIT]) -> [u64; UNIT / 8] {
    let (words, _) = unit.as_chunks::<8>();
    std::array::from_fn(|at| u64::from_le_bytes(words[at]))
}

/// Both halves of a product folded together, as wyhash does (Wang Yi 2019): every bit of the sum
/// reaches every bit of the result, in two instructions.
fn mix(state: u64, word: u64) -> u64 {
    let (low, high) = (state ^ word).carrying_mul(MULTIPLIER, 0);
    low ^ high
}
