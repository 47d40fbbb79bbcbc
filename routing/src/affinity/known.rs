//! The blocks that one pod is believed to have, up to a number of units, the least recently used
//! dropped first. Pure.
//!
//! A chain is used from its end to its beginning, so that a block is never older than those that
//! follow it: what is dropped is an end, as in the pod, and what is left of a chain is its beginning.

use std::{
    collections::HashMap,
    hash::{BuildHasherDefault, Hasher},
};

use super::Chain;

/// No slot.
const NONE: u32 = u32::MAX;

pub(super) struct Known {
    /// Blocks by name: their slot, and how many units they are.
    index: HashMap<u64, (u32, u32), BuildHasherDefault<AsItIs>>,
    slots: Vec<Slot>,
    free: Vec<u32>,
    oldest: u32,
    newest: u32,
    units: usize,
    limit: usize,
}

/// A place in the order of use.
struct Slot {
    name: u64,
    older: u32,
    newer: u32,
}

impl Known {
    pub(super) fn new(limit: usize) -> Self {
        let (index, slots, free) = (HashMap::default(), Vec::new(), Vec::new());
        Self { index, slots, free, oldest: NONE, newest: NONE, units: 0, limit }
    }

    pub(super) fn has(&self, name: u64) -> bool {
        self.index.contains_key(&name)
    }

    pub(super) fn use_chain(&mut self, chain: &Chain) {
        for (name, units) in chain.backwards() {
            self.use_block(name, units);
        }
    }

    fn use_block(&mut self, name: u64, units: u32) {
        if let Some((slot, _)) = self.index.get(&name).copied() {
            self.unlink(slot);
            self.link(slot);
            return;
        }
        let room = self.limit.checked_sub(units as usize);
        let Some(room) = room else { return };
        while self.units > room {
            self.drop_oldest();
        }
        let new = Slot { name, older: NONE, newer: NONE };
        let slot = match self.free.pop() {
            Some(slot) => {
                self.slots[slot as usize] = new;
                slot
            }
            None => {
                // 2³² blocks are 256 GiB of text: no pod has them.
                let Ok(slot) = u32::try_from(self.slots.len()) else { return };
                self.slots.push(new);
                slot
            }
        };
        self.link(slot);
        self.index.insert(name, (slot, units));
        self.units += units as usize;
    }

    fn drop_oldest(&mut self) {
        let slot = self.oldest;
        let name = self.slots[slot as usize].name;
        self.unlink(slot);
        self.free.push(slot);
        if let Some((_, units)) = self.index.remove(&name) {
            self.units -= units as usize;
        }
    }

    /// Puts a slot in as the newest.
    fn link(&mut self, slot: u32) {
        let older = std::mem::replace(&mut self.newest, slot);
        self.slots[slot as usize].older = older;
        self.slots[slot as usize].newer = NONE;
        match self.slots.get_mut(older as usize) {
            Some(older) => older.newer = slot,
            None => self.oldest = slot,
        }
    }

    fn unlink(&mut self, slot: u32) {
        let Slot { older, newer, .. } = self.slots[slot as usize];
        match self.slots.get_mut(older as usize) {
            Some(older) => older.newer = newer,
            None => self.oldest = newer,
        }
        match self.slots.get_mut(newer as usize) {
            Some(newer) => newer.older = older,
            None => self.newest = older,
        }
    }

    #[cfg(test)]
    pub(super) fn units(&self) -> usize {
        self.units
    }
}

/// Names are hashes already.
#[derive(Default)]
struct AsItIs(u64);

impl Hasher for AsItIs {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u64(&mut self, name: u64) {
        self.0 = name;
    }
}
