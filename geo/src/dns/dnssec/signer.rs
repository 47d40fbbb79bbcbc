//! Signs all that a zone can answer, and finds the signatures again. See [`super`].

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use hickory_proto::{
    dnssec::rdata::{DNSSECRData, RRSIG},
    rr::{LowerName, RData, Record, RecordType},
    serialize::binary::BinEncodable as _,
};

use super::{
    DnssecError, KeyError, ZoneKey,
    denial::{Asker, Budget, Kept, NXNAME, nsec},
    key::{BEFORE_S, VALID_S},
};
use crate::{
    AllDown, World,
    dns::{
        Zone,
        answer::{hint, records},
        zone::APEX_TTL,
    },
};

/// Signatures are made anew when they are this old: a week before they end.
const RENEW_S: u32 = VALID_S / 2;

/// A set of records: what a signature is over.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Set {
    owner: LowerName,
    kind: RecordType,
    /// In order, each once.
    data: Vec<Vec<u8>>,
}

impl Set {
    fn of(records: &[Record]) -> Option<Self> {
        let first = records.first()?;
        let data = records.iter().map(|record| record.data.to_bytes().ok());
        let mut data: Vec<Vec<u8>> = data.collect::<Option<_>>()?;
        data.sort();
        data.dedup();
        Some(Self { owner: LowerName::new(&first.name), kind: first.record_type(), data })
    }
}

#[derive(Debug, Default)]
struct Live {
    made: AtomicU64,
    refused: AtomicU64,
}

/// A zone's keys, and what they signed.
#[derive(Debug)]
pub struct Signer {
    /// The first signs; each signs the set of them, so that the parent may name any of them.
    pub(super) keys: Arc<[ZoneKey]>,
    origin: LowerName,
    dnskeys: Vec<Record>,
    signed: HashMap<Set, Vec<RRSIG>>,
    /// The types that names have which exist.
    types: HashMap<LowerName, Vec<RecordType>>,
    /// The NSEC's.
    negative_ttl: u32,
    made: u32,
    budget: Budget,
    kept: Kept,
    /// Signatures that somebody asked for: made, and refused, since they were last taken.
    live: Live,
}

impl Signer {
    /// Signs all that `zone` answers with the regions of `world`. `now` is in Unix seconds, which
    /// wrap; `denials` signatures a second may be made for names that are not there.
    ///
    /// # Errors
    /// [`DnssecError`].
    pub fn new(
        keys: Vec<ZoneKey>,
        zone: &Zone,
        world: &World,
        now: u32,
        denials: u32,
    ) -> Result<Self, DnssecError> {
        Self::with(keys.into(), zone, world, (now, Budget::new(denials)))
    }

    /// The same, signed anew, with the same keys whatever their files are by now.
    ///
    /// # Errors
    /// [`DnssecError`].
    pub(in crate::dns) fn renewed(
        &self,
        zone: &Zone,
        world: &World,
        now: u32,
    ) -> Result<Self, DnssecError> {
        Self::with(Arc::clone(&self.keys), zone, world, (now, self.budget.renewed()))
    }

    fn with(
        keys: Arc<[ZoneKey]>,
        zone: &Zone,
        world: &World,
        (now, budget): (u32, Budget),
    ) -> Result<Self, DnssecError> {
        if keys.is_empty() {
            return Err(DnssecError::NoKey);
        }
        for (at, key) in keys.iter().enumerate() {
            if keys[..at].iter().any(|other| other.tag() == key.tag()) {
                return Err(DnssecError::SameTag(key.tag()));
            }
        }
        let dnskey = |key: &ZoneKey| {
            let data = RData::DNSSEC(DNSSECRData::DNSKEY(key.public().clone()));
            Record::from_rdata(zone.origin.clone().into(), APEX_TTL, data)
        };
        let mut signer = Self {
            dnskeys: keys.iter().map(dnskey).collect(),
            keys,
            origin: zone.origin.clone(),
            signed: HashMap::new(),
            types: HashMap::new(),
            negative_ttl: zone.soa.ttl,
            made: now,
            budget,
            kept: Kept::new(),
            live: Live::default(),
        };
        signer.sign_the_zones_own(zone)?;
        for name in zone.names() {
            signer.sign_name(name, zone, world)?;
        }
        Ok(signer)
    }

    fn sign_the_zones_own(&mut self, zone: &Zone) -> Result<(), DnssecError> {
        self.keep(vec![zone.soa.clone()])?;
        self.keep(zone.name_servers.clone())?;
        self.keep(self.dnskeys.clone())
    }

    /// All that is answered at a name: with each region's addresses, to ANY, and for no answer.
    fn sign_name(
        &mut self,
        name: &LowerName,
        zone: &Zone,
        world: &World,
    ) -> Result<(), DnssecError> {
        let record = |data| Record::from_rdata(name.clone().into(), zone.ttl, data);
        self.keep(vec![record(hint())])?;
        let mut types = Vec::new();
        if *name == zone.origin {
            types.extend([RecordType::SOA, RecordType::NS, RecordType::DNSKEY]);
        }
        if zone.is_service(name) {
            let regions = world.regions().iter().map(|region| region.addresses.as_slice());
            let fallback = match &world.settings().all_down {
                AllDown::Fallback(addresses) => Some(addresses.as_slice()),
                AllDown::Nearest | AllDown::NoData => None,
            };
            let all: Vec<&[IpAddr]> = regions.chain(fallback).collect();
            for kind in [RecordType::A, RecordType::AAAA, RecordType::HTTPS] {
                for addresses in &all {
                    let set: Vec<Record> = records(kind, addresses).map(record).collect();
                    if !set.is_empty() {
                        self.keep(set)?;
                        types.push(kind);
                    }
                }
            }
            types.dedup();
        }
        // Where a region lacks an address family, or is answered with nothing, a type is denied
        // that others have: the NSEC says so of that type alone, whatever else there is.
        for denied in [None, Some(RecordType::A), Some(RecordType::AAAA), Some(RecordType::HTTPS)] {
            let others = without(&types, denied);
            let nsec = nsec(name, &others, self.negative_ttl);
            self.keep(vec![nsec.ok_or_else(|| DnssecError::Name(name.to_string()))?])?;
        }
        self.types.insert(name.clone(), types);
        Ok(())
    }

    /// Signs a set, where it is not signed yet.
    fn keep(&mut self, mut records: Vec<Record>) -> Result<(), DnssecError> {
        for record in &mut records {
            record.name = record.name.to_lowercase();
        }
        let Some(set) = Set::of(&records) else { return Ok(()) };
        if !self.signed.contains_key(&set) {
            let signatures = self.sign(records, self.made)?;
            self.signed.insert(set, signatures);
        }
        Ok(())
    }

    fn sign(&self, mut set: Vec<Record>, now: u32) -> Result<Vec<RRSIG>, KeyError> {
        let by = match set.first().map(Record::record_type) {
            Some(RecordType::DNSKEY) => &self.keys[..],
            _ => &self.keys[..1],
        };
        // RFC 4034, section 6.3: a record that is there twice is signed once.
        set.sort();
        set.dedup();
        by.iter().map(|key| key.sign(&set, &self.origin, now)).collect()
    }

    /// Whether all is to be signed anew: it is old, or was made by a clock that was wrong.
    pub(in crate::dns) fn is_stale(&self, now: u32) -> bool {
        let age = now.wrapping_sub(self.made);
        // A clock that is a little behind the one before is none that was wrong.
        age >= RENEW_S && age.wrapping_neg() > BEFORE_S
    }

    /// How many signatures were made because somebody asked, and how many were refused, since this
    /// was last asked.
    pub(in crate::dns) fn take_counts(&self) -> (u64, u64) {
        (self.live.made.swap(0, Ordering::Relaxed), self.live.refused.swap(0, Ordering::Relaxed))
    }

    /// The keys, as the zone publishes them.
    pub(in crate::dns) fn dnskeys(&self) -> &[Record] {
        &self.dnskeys
    }

    /// The signatures of records that are answered; `None` where they would cost more than there is.
    pub(in crate::dns) fn signatures(
        &self,
        records: &[Record],
        now: u32,
        asker: Asker,
    ) -> Option<Vec<Record>> {
        let set = Set::of(records)?;
        let signatures = match self.signed.get(&set) {
            Some(signatures) => signatures.clone(),
            // Nothing comes here while the regions are those that were signed.
            None => self.sign_live(records, now, asker)?,
        };
        Some(signatures.into_iter().map(|signature| record_of(&records[0], signature)).collect())
    }

    /// The NSEC that says of a name that exists that it has no such type; `None` where it does not.
    pub(in crate::dns) fn no_data(&self, name: &LowerName, asked: RecordType) -> Option<Record> {
        let denied = matches!(asked, RecordType::A | RecordType::AAAA | RecordType::HTTPS);
        let types = without(self.types.get(name)?, denied.then_some(asked));
        nsec(name, &types, self.negative_ttl)
    }

    /// The NSEC that says that there is no such name, and its signature; `None` where the budget has
    /// no more.
    pub(in crate::dns) fn no_name(
        &self,
        name: &LowerName,
        now: u32,
        asker: Asker,
    ) -> Option<(Record, Record)> {
        let nsec = nsec(name, &[NXNAME], self.negative_ttl)?;
        let signature = match self.kept.get(name, now) {
            Some(signature) => signature,
            None => {
                let made = self.sign_live(std::slice::from_ref(&nsec), now, asker)?.pop()?;
                self.kept.put(name, now, made.clone());
                made
            }
        };
        let signature = record_of(&nsec, signature);
        Some((nsec, signature))
    }

    fn sign_live(&self, records: &[Record], now: u32, asker: Asker) -> Option<Vec<RRSIG>> {
        if !self.budget.take(now, asker) {
            self.live.refused.fetch_add(1, Ordering::Relaxed);
            return None;
        }
        self.live.made.fetch_add(1, Ordering::Relaxed);
        let lower = |record: &Record| {
            let mut record = record.clone();
            record.name = record.name.to_lowercase();
            record
        };
        self.sign(records.iter().map(lower).collect(), now).ok()
    }
}

fn without(types: &[RecordType], denied: Option<RecordType>) -> Vec<RecordType> {
    types.iter().copied().filter(|kind| Some(*kind) != denied).collect()
}

/// A signature as a record beside the first of those that it is over.
fn record_of(signed: &Record, signature: RRSIG) -> Record {
    let data = RData::DNSSEC(DNSSECRData::RRSIG(signature));
    Record::from_rdata(signed.name.clone(), signed.ttl, data)
}
