use proptest::prelude::*;

use super::*;
use crate::{
    entry::Born,
    semantic::testing::{ROOM, SECOND, turned},
    tags::Tags,
};

fn kept(tenant: u64, owner: u64, place: u16, bytes: usize) -> Kept {
    let tags = Tags { tenant, ..Tags::default() };
    let mut at = [0; 16];
    at[..2].copy_from_slice(&place.to_le_bytes());
    at[2..10].copy_from_slice(&tenant.to_le_bytes());
    let (partition, place) = (Partition([u8::try_from(tenant).unwrap(); 16]), at);
    Kept {
        partition,
        place,
        wording: Wording::of("", &|_| 0),
        sealed: vec![0; bytes].into(),
        class: 1,
        born: Born { stored: SECOND, generation: 0, tags },
        owner,
        witness: 0,
        evidence: Evidence::default(),
        used: false,
    }
}

/// How many answers an owner has.
fn has(store: &Store, tenant: u64, owner: u64) -> usize {
    let of = |kept: &&Kept| (kept.born.tags.tenant, kept.owner) == (tenant, owner);
    store.kept.values().filter(of).count()
}

#[test]
fn who_writes_too_much_displaces_what_is_their_own() {
    let mut store = Store::new(Room { owner_entries: 10, ..ROOM });
    for place in 0..5 {
        store.put(kept(1, 1, place, 10), &turned(0.0)).unwrap();
    }
    for place in 100..200 {
        store.put(kept(1, 2, place, 10), &turned(0.0)).unwrap();
    }
    assert_eq!((has(&store, 1, 1), has(&store, 1, 2)), (5, 10));
}

#[test]
fn a_tenant_over_its_room_loses_its_largest_users_answers() {
    let mut store = Store::new(Room { tenant_bytes: 100_000, ..ROOM });
    for place in 0..5 {
        store.put(kept(1, 1, place, 1000), &turned(0.0)).unwrap();
        store.put(kept(2, 1, place, 1000), &turned(0.0)).unwrap();
    }
    for place in 100..400 {
        store.put(kept(1, 2, place, 2000), &turned(0.0)).unwrap();
    }
    assert_eq!((has(&store, 1, 1), has(&store, 2, 1)), (5, 5));
    assert!(store.tenants[&1].1 <= 100_000);
}

#[test]
fn when_all_is_full_the_largest_tenant_gives_way() {
    let room = Room { bytes: 200_000, tenant_bytes: 180_000, ..ROOM };
    let mut store = Store::new(room);
    for place in 0..10 {
        store.put(kept(1, 1, place, 1000), &turned(0.0)).unwrap();
    }
    for place in 0..500 {
        store.put(kept(2, 1, place, 1000), &turned(0.0)).unwrap();
    }
    assert!(store.bytes() <= 200_000);
    assert_eq!(has(&store, 1, 1), 10, "an attacker displaces nobody else");
}

#[test]
fn of_an_owners_answers_those_that_served_stay_longer() {
    let mut store = Store::new(Room { owner_entries: 4, ..ROOM });
    let ids: Vec<u64> =
        (0..4).map(|place| store.put(kept(1, 1, place, 10), &turned(0.0)).unwrap()).collect();
    store.get_mut(ids[0]).unwrap().used = true;
    store.put(kept(1, 1, 9, 10), &turned(0.0)).unwrap();
    assert!(store.get(ids[0]).is_some() && store.get(ids[1]).is_none());
}

#[test]
fn an_answer_that_would_displace_everything_does_not_enter() {
    let mut store = Store::new(ROOM);
    let large = kept(1, 1, 1, ROOM.tenant_bytes);
    assert_eq!(store.put(large, &turned(0.0)), Err(Full::TooLarge));
    assert_eq!(store.entries(), 0);
}

proptest! {
    /// However it is filled and emptied, the sums agree with what is there, and the limits hold.
    #[test]
    fn sums_agree(steps in prop::collection::vec((1u64..4, 1u64..4, 0u16..40, 1usize..4000, any::<bool>()), 1..300)) {
        let room = Room { bytes: 60_000, tenant_bytes: 50_000, tenant_entries: 30, owner_entries: 15, owner_writes: 9 };
        let mut store = Store::new(room);
        for (tenant, owner, place, bytes, drop) in steps {
            let put = store.put(kept(tenant, owner, place, bytes), &turned(f32::from(place)));
            if let (Ok(id), true) = (put, drop) {
                store.remove(id);
            }
            let own: usize = store.kept.values().map(Kept::bytes).sum();
            let arenas: usize = store.arenas.values().map(Arena::bytes).sum();
            prop_assert_eq!(own + arenas, store.bytes());
            let tenants: usize = store.tenants.values().map(|(_, bytes)| bytes).sum();
            prop_assert_eq!(tenants, store.bytes());
            prop_assert!(store.bytes() <= 60_000);
            prop_assert!(store.tenants.values().all(|(_, bytes)| *bytes <= 50_000));
            prop_assert_eq!(store.places.len(), store.entries());
            let rows: usize = store.arenas.values().map(Arena::len).sum();
            prop_assert_eq!(rows, store.entries());
            let owned: usize = store.owners.values().map(|of| of.entries).sum();
            prop_assert_eq!(owned, store.entries());
            for of in store.owners.values() {
                prop_assert!(of.entries <= 15 && of.order.len() <= 2 * of.entries + 17);
            }
        }
    }
}
