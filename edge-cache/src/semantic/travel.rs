//! Answers on their way to a store outside, and back: nothing of them can be read there.

use std::time::Duration;

use super::{
    cache::{Cache, class_of},
    evidence::Evidence,
    site::Site,
    store::Kept,
    vector::Vector,
    veto::Wording,
};
use crate::{
    entry::Entry,
    pack::{pack, unpack},
    validity::Standing,
};

/// An answer for another store: everything but the vector sealed for its tenant.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
struct Travelling {
    place: [u8; 16],
    wording: Wording,
    vector: Vector,
    packed: Vec<u8>,
    owner: u64,
}

impl Cache {
    /// An answer as it goes to a store outside: nothing of it can be read there.
    #[must_use]
    pub fn export(&self, (site, vector): (&Site, &Vector), entry: &Entry) -> Option<Vec<u8>> {
        let travelling = Travelling {
            place: site.place,
            wording: site.wording.clone(),
            vector: vector.clone(),
            packed: pack(entry),
            owner: site.owner,
        };
        let plain = postcard::to_allocvec(&travelling).ok()?;
        self.secrets.of_tenant(site.tags.tenant).seal(&plain, &site.partition.0)
    }

    /// Takes an answer of a store outside, near a question of the same partition; whether it was one.
    pub fn import(&self, site: &Site, sealed: &[u8], now: Duration) -> bool {
        let opened = self.secrets.of_tenant(site.tags.tenant).open(sealed, &site.partition.0);
        let read = opened.and_then(|plain| postcard::from_bytes::<Travelling>(&plain).ok());
        let Some(Travelling { place, wording, vector, packed, owner }) = read else {
            return false;
        };
        let Some(entry) = unpack(&packed) else { return false };
        let ours = entry.tags().tenant == site.tags.tenant && entry.tags().model == site.tags.model;
        if !ours {
            return false;
        }
        let Ok(sealed) = self.seal(site.tags.tenant, &packed, &place) else { return false };
        let mut store = self.store();
        let standing = self.validity.standing(&entry.born, self.settings.ttl, now);
        if !matches!(standing, Standing::Fresh(_)) {
            return false;
        }
        let (class, witness) = (class_of(&entry), 0);
        let born = entry.born;
        let (partition, evidence, used) = (site.partition, Evidence::default(), false);
        let kept =
            Kept { partition, place, wording, sealed, class, born, owner, witness, evidence, used };
        store.put(kept, &vector).is_ok()
    }

    /// The number of a question in a store outside: the same for the same.
    #[must_use]
    pub const fn point(site: &Site) -> u128 {
        u128::from_le_bytes(site.place)
    }
}
