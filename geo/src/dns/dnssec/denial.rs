//! Proofs that something is not there (compact denial, RFC 9824), and how many may be made a second.
//!
//! An NSEC at the very name that was asked for says which types it has, and that the next name in the
//! zone is the one right behind it, so that nothing else is denied with it. For names that exist
//! those are signed ahead; for all others they are signed as they are asked for. That is work that
//! anybody can ask for: it has a budget, and what was signed lately is kept.

use std::{
    collections::hash_map::RandomState,
    hash::BuildHasher as _,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use hickory_proto::{
    dnssec::rdata::{DNSSECRData, NSEC, RRSIG},
    rr::{LowerName, Name, RData, Record, RecordType},
};

/// Stands in the types of a name that does not exist (RFC 9824, section 2).
pub(in crate::dns) const NXNAME: RecordType = RecordType::Unknown(128);

/// The NSEC at `owner`, whose name's types are `types`; `None` where the name is so long that none
/// comes right behind it.
pub(super) fn nsec(owner: &LowerName, types: &[RecordType], ttl: u32) -> Option<Record> {
    let owner: &Name = owner;
    let next = owner.prepend_label([0].as_slice()).ok()?;
    let nsec = NSEC::new_cover_self(next, types.iter().copied());
    Some(Record::from_rdata(owner.clone(), ttl, RData::DNSSEC(DNSSECRData::NSEC(nsec))))
}

/// Who a signature is made for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::dns) enum Asker {
    /// It may be anybody: it came by UDP without a cookie.
    Unproven,
    /// It is where it says it is.
    Proven,
}

/// Signatures that may be made in a second. Those that may be a flood's leave a quarter to those
/// who are really there, and whom the flood made come again by TCP.
#[derive(Debug)]
pub(super) struct Budget {
    each_second: u32,
    /// The second, and how many were made in it.
    spent: AtomicU64,
}

impl Budget {
    pub(super) fn new(each_second: u32) -> Self {
        Self { each_second, spent: AtomicU64::new(0) }
    }

    /// The same, of which nothing is spent.
    pub(super) fn renewed(&self) -> Self {
        Self::new(self.each_second)
    }

    /// Whether one may be made at `now`.
    pub(super) fn take(&self, now: u32, asker: Asker) -> bool {
        let limit = match asker {
            Asker::Proven => self.each_second,
            Asker::Unproven => self.each_second - self.each_second / 4,
        };
        let spend = |spent: u64| {
            let used = if spent >> 32 == u64::from(now) { spent & u64::from(u32::MAX) } else { 0 };
            (used < u64::from(limit)).then(|| u64::from(now) << 32 | (used + 1))
        };
        self.spent.fetch_update(Ordering::Relaxed, Ordering::Relaxed, spend).is_ok()
    }
}

/// Signatures of denials that were made lately, in a table of fixed size.
#[derive(Debug)]
pub(super) struct Kept {
    /// Nobody can choose names that share a place.
    places: RandomState,
    table: Mutex<Vec<Option<Made>>>,
}

#[derive(Debug, Clone)]
struct Made {
    owner: LowerName,
    at: u32,
    signature: RRSIG,
}

const PLACES: usize = 1024;
/// They are valid for longer by far.
const KEPT_S: u32 = 86_400;

impl Kept {
    pub(super) fn new() -> Self {
        Self { places: RandomState::new(), table: Mutex::new(vec![None; PLACES]) }
    }

    pub(super) fn get(&self, owner: &LowerName, now: u32) -> Option<RRSIG> {
        let table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        let made = table[self.place(owner)].as_ref()?;
        (made.owner == *owner && now.wrapping_sub(made.at) < KEPT_S).then(|| made.signature.clone())
    }

    pub(super) fn put(&self, owner: &LowerName, now: u32, signature: RRSIG) {
        let made = Made { owner: owner.clone(), at: now, signature };
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        table[self.place(owner)] = Some(made);
    }

    fn place(&self, owner: &LowerName) -> usize {
        usize::try_from(self.places.hash_one(owner) % PLACES as u64).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_has_its_budget_of_which_a_flood_leaves_a_quarter() {
        let budget = Budget::new(8);
        let taken = |now, asker| (0..20).filter(|_| budget.take(now, asker)).count();
        assert_eq!(taken(1, Asker::Unproven), 6);
        assert_eq!(taken(1, Asker::Proven), 2, "what is left");
        assert_eq!(taken(1, Asker::Proven), 0);
        assert_eq!(taken(2, Asker::Proven), 8, "another second");
        assert_eq!(taken(3, Asker::Unproven), 6);
        assert_eq!(taken(1, Asker::Unproven), 6, "a clock that was set back stops nothing");
        assert!(Budget::new(1).take(1, Asker::Unproven));
    }

    #[test]
    fn a_name_without_a_next_one_has_no_nsec() {
        let long = format!("{0}.{0}.{0}.{1}.", "a".repeat(63), "a".repeat(61));
        let name = |text: &str| LowerName::new(&Name::from_ascii(text).unwrap());
        assert!(nsec(&name(&long), &[], 1).is_none());
        let short = nsec(&name("b.example."), &[RecordType::A], 7).unwrap();
        assert!(short.to_string().contains("\\000.b.example."), "{short}");
    }
}
