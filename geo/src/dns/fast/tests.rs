use nearhop_conf::source::process_env;
use proptest::{prelude::*, test_runner::Config as Runs};

use super::*;
use crate::dns::{
    Secret,
    answer::tests::{Rig, rig},
};

const NAMES: [&str; 4] = [
    "complete.example.com",
    "api.v1.complete.example.com",
    "no.complete.example.com",
    "example.com",
];
const PEERS: [&str; 3] = ["192.0.2.53", "2001:db8:3::53", "203.0.113.9"];
const NOW: u32 = 1000;

fn secret() -> Secret {
    Secret::new([7; 16], Vec::new())
}

/// Regions as they may be, and how close they count as near.
fn rigs() -> Vec<Rig> {
    let states = |moved: [f64; 3], down: [bool; 3]| -> Vec<State> {
        let state = |(moved, down)| State {
            health: if down { Health::Down } else { Health::Up },
            moved,
            ..State::default()
        };
        moved.into_iter().zip(down).map(state).collect()
    };
    let mut rigs = vec![rig(), rig(), rig(), rig(), rig()];
    rigs[1].world = rigs[1].world.with_states(states([0.5, 0.0, 0.3], [false; 3]));
    rigs[2].world = rigs[2].world.with_states(states([0.0; 3], [false, true, true]));
    rigs[3].world = rigs[3].world.with_states(states([0.9; 3], [true; 3]));
    let mut regions = rig().world.regions().to_vec();
    for region in &mut regions {
        region.addresses = (1..=60u8).map(|last| IpAddr::from([198, 51, 100, last])).collect();
    }
    let settings =
        Settings { alike_km: 20_000.0, all_down: AllDown::NoData, ..Settings::default() };
    rigs[4].world = World::new(regions, settings, None, None).unwrap();
    let mut signed = rig().signed();
    signed.world = rigs[1].world.clone();
    rigs.push(signed);
    rigs
}

fn option(code: u16, data: &[u8]) -> Vec<u8> {
    let mut option = Vec::new();
    put(&mut option, code, data);
    option
}

fn options() -> impl Strategy<Value = Vec<u8>> {
    let network = prop::sample::select(vec![[192, 0, 2, 0], [203, 0, 113, 7], [9, 9, 9, 9]]);
    let v4 = (network, 0u8..=33).prop_map(|(address, source)| {
        let source_bits = u32::MAX.checked_shl(32 - u32::from(source.min(32))).unwrap_or(0);
        let kept = (u32::from_be_bytes(address) & source_bits).to_be_bytes();
        let mut data = vec![0, 1, source, 0];
        data.extend(&kept[..usize::from(source).div_ceil(8).min(4)]);
        option(SUBNET, &data)
    });
    let v6 = (0u8..=7, any::<bool>()).prop_map(|(bytes, mapped)| {
        let address = if mapped { [0; 8] } else { [0x20, 1, 0x0d, 0xb8, 0, 3, 1, 0] };
        let mut data = vec![0, 2, bytes * 8, 0];
        data.extend(&address[..usize::from(bytes)]);
        option(SUBNET, &data)
    });
    let cookie = prop::sample::select(vec![
        option(COOKIE, &[3; 8]),
        option(COOKIE, &[3; 24]),
        option(COOKIE, &[3; 9]),
        option(COOKIE, &secret().bake([3; 8], PEERS[0].parse().unwrap(), NOW)),
    ]);
    let raw = prop::collection::vec(any::<u8>(), 0..12).prop_map(|data| option(SUBNET, &data));
    prop_oneof![
        8 => v4,
        4 => v6,
        6 => cookie,
        1 => raw,
        1 => Just(option(3, &[])),
        1 => Just(option(65_001, &[1, 2])),
    ]
}

fn edns() -> impl Strategy<Value = Vec<u8>> {
    let payload = prop::sample::select(vec![0u16, 512, 600, 1232, 4096]);
    let flags = prop::sample::select(vec![
        [0u8, 0],
        [0, 0],
        [0, 0],
        [0x80, 0],
        [0x80, 0],
        [0x40, 0],
        [0, 1],
    ]);
    let version = prop_oneof![19 => Just(0u8), 1 => Just(1)];
    let options = prop::collection::vec(options(), 0..3);
    (payload, flags, version, options).prop_map(|(payload, flags, version, options)| {
        let options = options.concat();
        let mut record = vec![0, 0, 41];
        record.extend(payload.to_be_bytes());
        record.extend([0, version, flags[0], flags[1]]);
        record.extend(u16::try_from(options.len()).unwrap().to_be_bytes());
        record.extend(options);
        record
    })
}

prop_compose! {
    /// Queries as they come, and some that are a little wrong.
    fn queries()(
        name in prop::sample::select([0, 0, 0, 0, 0, 1, 1, 2, 3].map(|at| NAMES[at]).to_vec()),
        shout in prop::bool::weighted(0.2),
        kind in prop::sample::select(vec![1u16, 1, 1, 28, 28, 28, 65, 65, 65, 2, 16]),
        flags in prop::sample::select(vec![[1u8, 0], [1, 0], [1, 0], [0, 0], [1, 0x20], [1, 0x20], [1, 0x10], [2, 0], [0x84, 0], [0x28, 0]]),
        edns in prop::option::weighted(0.8, edns()),
        damage in prop::option::weighted(0.2, (any::<prop::sample::Index>(), any::<u8>())),
    ) -> Vec<u8> {
        let mut query = vec![18, 52, flags[0], flags[1], 0, 1, 0, 0, 0, 0, 0, u8::from(edns.is_some())];
        let mut wire = wire_name(name).unwrap();
        if shout {
            wire.make_ascii_uppercase();
        }
        query.extend(&*wire);
        query.extend(kind.to_be_bytes());
        query.extend(IN);
        query.extend(edns.unwrap_or_default());
        if let Some((at, to)) = damage {
            let at = at.index(query.len());
            query[at] = to;
        }
        query
    }
}

/// Whatever goes the short way is answered as by the long one.
#[test]
fn the_short_way_is_the_long_ways_answer_byte_for_byte() {
    let rigs = rigs();
    let secret = secret();
    let contexts: Vec<Context<'_>> = rigs.iter().map(|rig| rig.context(&secret)).collect();
    let prepared: Vec<Prepared> = contexts.iter().map(Prepared::new).collect();
    let soaking = process_env("NEARHOP_SOAK").is_some();
    let cases = if soaking { 1_000_000 } else { 20_000 };
    let mut runner = prop::test_runner::TestRunner::new(Runs {
        cases,
        failure_persistence: None,
        ..Runs::default()
    });
    let short = std::cell::Cell::new(0);
    let given = (queries(), 0..rigs.len(), prop::sample::select(PEERS.to_vec()));
    runner
        .run(&given, |(query, at, peer)| {
            let peer = peer.parse().unwrap();
            let mut out = vec![1, 2, 3];
            let proven = prepared[at].answer(&query, peer, &contexts[at], &mut out);
            prop_assert_eq!(&out[..3], &[1, 2, 3], "what was there stays");
            let Some(proven) = proven else {
                prop_assert_eq!(out.len(), 3);
                return Ok(());
            };
            short.set(short.get() + 1);
            let long = answer(&query, peer, Transport::Udp, &contexts[at]).unwrap();
            prop_assert_eq!(&out[3..], &long.bytes);
            prop_assert_eq!(proven, long.proven);
            Ok(())
        })
        .unwrap();
    let short = short.get();
    assert!(short > cases / 10, "{short} of {cases} went the short way");
}

#[test]
fn the_common_queries_go_the_short_way() {
    let (rig, secret) = (rig(), secret());
    let context = rig.context(&secret);
    let prepared = Prepared::new(&context);
    let check = |query: &[u8], short: bool| {
        let mut out = Vec::new();
        let went = prepared.answer(query, PEERS[0].parse().unwrap(), &context, &mut out);
        assert_eq!(went.is_some(), short, "{query:?}");
    };
    for (at, name) in NAMES.iter().enumerate() {
        for kind in KINDS {
            check(&query(&wire_name(name).unwrap(), kind, false), at < 2);
            check(&query(&wire_name(name).unwrap(), kind, true), at < 2);
        }
    }
    let shouted = wire_name(&NAMES[0].to_uppercase()).unwrap().to_ascii_uppercase();
    check(&query(&shouted, 1, false), true);
    check(&query(&shouted, 16, false), false);
}
