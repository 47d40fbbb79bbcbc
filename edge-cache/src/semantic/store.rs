//! What the semantic tier holds: partitions with a flat index each, answers sealed, everything
//! within limits. No clock and no lock.
//!
//! Whoever writes much displaces what is their own: the user over their number, the tenant's largest
//! user where the tenant is over its own, the largest tenant's where all of it is full.

use std::collections::{HashMap, VecDeque, hash_map::Entry};

use serde::{Deserialize, Serialize};

use super::{
    arena::Arena,
    evidence::Evidence,
    site::{Partition, Site},
    vector::Vector,
    veto::Wording,
};
use crate::{digest::Short, entry::Born};

/// What may be held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    /// Bytes of everybody.
    pub bytes: usize,
    /// Bytes of one tenant.
    pub tenant_bytes: usize,
    /// Answers of one tenant.
    pub tenant_entries: usize,
    /// Answers of one owner.
    pub owner_entries: usize,
    /// Answers of one owner that enter within an hour.
    pub owner_writes: usize,
}

/// An answer, and what is remembered of its question.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Kept {
    pub(super) partition: Partition,
    pub(super) place: Short,
    pub(super) wording: Wording,
    /// The packed entry, sealed for its tenant.
    pub(super) sealed: Box<[u8]>,
    /// Answers that say the same have the same.
    pub(super) class: u64,
    pub(super) born: Born,
    /// Who asked.
    pub(super) owner: u64,
    /// Another, whose own answer said the same; 0 is nobody.
    pub(super) witness: u64,
    pub(super) evidence: Evidence,
    /// Whether it served since it was last looked at for what may go.
    pub(super) used: bool,
}

impl Kept {
    /// Whether whoever asks `site` may have it.
    pub(super) const fn is_vouched_for(&self, site: &Site) -> bool {
        !site.shared || self.owner == site.owner || self.witness != 0
    }

    /// Its own bytes; the vector's are its arena's.
    fn bytes(&self) -> usize {
        // Slots of two maps and of the queue, with the room that they keep.
        const AROUND: usize = 200;
        size_of::<Self>() + AROUND + self.wording.bytes() + self.sealed.len()
    }
}

/// Why an answer was not kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Full {
    /// Its owner wrote as much as may be within an hour.
    Quota,
    /// It alone would displace too much.
    TooLarge,
    /// Its vector has another length than its partition's.
    OtherEmbedder,
}

/// One owner's answers.
#[derive(Debug, Default)]
struct Owner {
    /// Their numbers, the oldest first; some may be gone.
    order: VecDeque<u64>,
    entries: usize,
    bytes: usize,
}

/// What an owner wrote in an hour.
#[derive(Debug, Clone, Copy, Default)]
struct Written {
    hour: u64,
    answers: usize,
}

/// An arena that has no row.
const ARENA_BYTES: usize = 128;

/// Owners whose writes are counted; over that all count anew.
const WRITERS_MAX: usize = 65_536;

/// Everything that is held.
#[derive(Debug)]
pub(super) struct Store {
    room: Room,
    arenas: HashMap<Partition, Arena>,
    kept: HashMap<u64, Kept>,
    places: HashMap<Short, u64>,
    owners: HashMap<(u64, u64), Owner>,
    tenants: HashMap<u64, (usize, usize)>,
    written: HashMap<(u64, u64), Written>,
    bytes: usize,
    next: u64,
}

impl Store {
    pub(super) fn new(room: Room) -> Self {
        Self {
            room,
            arenas: HashMap::new(),
            kept: HashMap::new(),
            places: HashMap::new(),
            owners: HashMap::new(),
            tenants: HashMap::new(),
            written: HashMap::new(),
            bytes: 0,
            next: 1,
        }
    }

    /// The number of the very same question.
    pub(super) fn at(&self, site: &Site) -> Option<u64> {
        self.places.get(&site.place).copied()
    }

    pub(super) fn get(&self, id: u64) -> Option<&Kept> {
        self.kept.get(&id)
    }

    pub(super) fn get_mut(&mut self, id: u64) -> Option<&mut Kept> {
        self.kept.get_mut(&id)
    }

    /// The nearest of a partition, and how near they are.
    pub(super) fn nearest(
        &self,
        partition: Partition,
        vector: &Vector,
        k: usize,
    ) -> Vec<(u64, f32)> {
        self.arenas.get(&partition).map_or_else(Vec::new, |arena| arena.nearest(vector, k))
    }

    /// Whether an owner may write one more, which counts if so. `hour` is the hours since whenever.
    pub(super) fn may_write(&mut self, site: &Site, hour: u64) -> Result<(), Full> {
        let owner = (site.tags.tenant, site.owner);
        if self.written.len() >= WRITERS_MAX && !self.written.contains_key(&owner) {
            self.written.clear();
        }
        let written = self.written.entry(owner).or_default();
        if written.hour != hour {
            *written = Written { hour, answers: 0 };
        }
        if written.answers >= self.room.owner_writes {
            return Err(Full::Quota);
        }
        written.answers += 1;
        Ok(())
    }

    /// Keeps an answer, instead of the one to the very same question.
    pub(super) fn put(&mut self, kept: Kept, vector: &Vector) -> Result<u64, Full> {
        let (own, owner) = (kept.bytes(), (kept.born.tags.tenant, kept.owner));
        // What a row makes an arena grow by, but where it takes room for rows to come.
        let bytes = own + 2 * vector.dimensions() + ARENA_BYTES;
        if bytes > self.room.tenant_bytes / 16 {
            return Err(Full::TooLarge);
        }
        if let Some(before) = self.places.get(&kept.place).copied() {
            self.remove(before);
        }
        self.make_room(owner, bytes);
        let id = self.next;
        self.next += 1;
        let arena = self.arenas.entry(kept.partition);
        let (before, arena) = match arena {
            Entry::Occupied(arena) => (arena.get().bytes(), arena.into_mut()),
            Entry::Vacant(none) => (0, none.insert(Arena::new(vector.dimensions()))),
        };
        arena.insert(id, vector).map_err(|_dimensions| Full::OtherEmbedder)?;
        let grown = own + arena.bytes();
        self.places.insert(kept.place, id);
        let of = self.owners.entry(owner).or_default();
        of.order.push_back(id);
        of.entries += 1;
        of.bytes += own;
        let tenant = self.tenants.entry(owner.0).or_default();
        tenant.0 += 1;
        tenant.1 = tenant.1 + grown - before;
        self.bytes = self.bytes + grown - before;
        self.kept.insert(id, kept);
        // An arena may have grown by more than a row.
        self.make_bytes(owner.0, 0);
        Ok(id)
    }

    fn make_room(&mut self, owner: (u64, u64), bytes: usize) {
        let Room { tenant_entries, owner_entries, .. } = self.room;
        while self.owners.get(&owner).is_some_and(|of| of.entries >= owner_entries) {
            self.give_up_one(owner);
        }
        while self.tenants.get(&owner.0).is_some_and(|(entries, _)| *entries >= tenant_entries) {
            match self.largest_owner(owner.0) {
                Some(largest) => self.give_up_one(largest),
                None => return,
            }
        }
        self.make_bytes(owner.0, bytes);
    }

    /// Gives up answers until there is room for so many bytes of this tenant.
    fn make_bytes(&mut self, tenant: u64, bytes: usize) {
        let Room { bytes: all, tenant_bytes, .. } = self.room;
        while self.tenants.get(&tenant).is_some_and(|(_, held)| held + bytes > tenant_bytes) {
            match self.largest_owner(tenant) {
                Some(largest) => self.give_up_one(largest),
                None => return,
            }
        }
        while self.bytes + bytes > all {
            let largest = self.tenants.iter().max_by_key(|(_, (_, bytes))| *bytes);
            match largest.and_then(|(tenant, _)| self.largest_owner(*tenant)) {
                Some(largest) => self.give_up_one(largest),
                None => return,
            }
        }
    }

    fn largest_owner(&self, tenant: u64) -> Option<(u64, u64)> {
        let of = self.owners.iter().filter(|((of, _), _)| *of == tenant);
        of.max_by_key(|(_, owner)| owner.bytes).map(|(owner, _)| *owner)
    }

    /// The oldest of an owner's goes that did not serve since it was last looked at.
    fn give_up_one(&mut self, owner: (u64, u64)) {
        while let Some(of) = self.owners.get_mut(&owner) {
            let Some(id) = of.order.pop_front() else {
                self.owners.remove(&owner);
                return;
            };
            match self.kept.get_mut(&id) {
                None => {}
                Some(kept) if kept.used => {
                    kept.used = false;
                    of.order.push_back(id);
                }
                Some(_) => {
                    self.remove(id);
                    return;
                }
            }
        }
    }

    pub(super) fn remove(&mut self, id: u64) {
        let Some(kept) = self.kept.remove(&id) else { return };
        let arena = self.arenas.get_mut(&kept.partition).expect("what is kept lies in an arena");
        let before = arena.bytes();
        arena.remove(id);
        let mut after = arena.bytes();
        if arena.is_empty() {
            self.arenas.remove(&kept.partition);
            after = 0;
        }
        if self.places.get(&kept.place) == Some(&id) {
            self.places.remove(&kept.place);
        }
        let own = kept.bytes();
        let owner = (kept.born.tags.tenant, kept.owner);
        if let Some(of) = self.owners.get_mut(&owner) {
            of.entries -= 1;
            of.bytes -= own;
            if of.entries == 0 {
                self.owners.remove(&owner);
            } else if of.order.len() > 2 * of.entries + 16 {
                let kept = &self.kept;
                of.order.retain(|id| kept.contains_key(id));
            }
        }
        if let Some(tenant) = self.tenants.get_mut(&owner.0) {
            tenant.0 -= 1;
            tenant.1 = tenant.1 + after - own - before;
            if tenant.0 == 0 {
                self.tenants.remove(&owner.0);
            }
        }
        self.bytes = self.bytes + after - own - before;
    }

    /// Drops what `goes` says; how many.
    pub(super) fn sweep(&mut self, goes: impl Fn(&Kept) -> bool) -> usize {
        let gone: Vec<u64> =
            self.kept.iter().filter(|(_, kept)| goes(kept)).map(|(id, _)| *id).collect();
        gone.iter().for_each(|id| self.remove(*id));
        gone.len()
    }

    /// The numbers of everything, the oldest first.
    pub(super) fn ids(&self) -> Vec<u64> {
        let mut ids: Vec<u64> = self.kept.keys().copied().collect();
        ids.sort_unstable();
        ids
    }

    /// Copies of those that are still there, with their vectors.
    pub(super) fn copies(&self, ids: &[u64]) -> Vec<(Kept, Vector)> {
        let copy = |id: &u64| {
            let kept = self.kept.get(id)?;
            Some((kept.clone(), self.arenas.get(&kept.partition)?.get(*id)?))
        };
        ids.iter().filter_map(copy).collect()
    }

    pub(super) const fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn entries(&self) -> usize {
        self.kept.len()
    }

    pub(super) fn partitions(&self) -> usize {
        self.arenas.len()
    }
}

#[cfg(test)]
mod tests;
