//! Damaged queries, and how much larger than its question an answer may be.

use nearhop_conf::source::process_env;

use super::{
    tests::{Rig, of, query, rig, subnet},
    *,
};
use crate::{Settings, World};

/// Of which all damage is done.
fn good() -> Vec<Vec<u8>> {
    let with = |mut query: Message, code: u16, data: &[u8]| {
        let option = EdnsOption::Unknown(code, data.to_vec());
        query.edns.get_or_insert_with(Edns::new).options_mut().insert(option);
        query
    };
    let plain = |asked| query("complete.example.com.", asked);
    let mut update = plain(RecordType::SOA);
    update.metadata.op_code = OpCode::Update;
    let mut twice = plain(RecordType::A);
    twice.add_query(twice.queries[0].clone());
    let mut beside = subnet(plain(RecordType::A), "192.0.2.0", 24);
    let mut record = Record::from_rdata(
        plain(RecordType::A).queries[0].name().clone(),
        1,
        RData::A(std::net::Ipv4Addr::LOCALHOST.into()),
    );
    record.dns_class = DNSClass::IN;
    beside.additionals.push(record);
    [
        plain(RecordType::A),
        plain(RecordType::ANY),
        query("nobody.complete.example.com.", RecordType::AAAA),
        subnet(query("api.v1.complete.example.com.", RecordType::HTTPS), "192.0.2.0", 24),
        subnet(plain(RecordType::AAAA), "2001:db8:1::", 48),
        with(subnet(plain(RecordType::A), "198.51.100.0", 24), 10, &[3; 24]),
        with(plain(RecordType::NS), 65_001, &[5; 9]),
        update,
        twice,
        beside,
    ]
    .iter()
    .map(|query| query.to_vec().unwrap())
    .collect()
}

/// An answer that may be sent, or none.
fn check(rig: &Rig, bytes: &[u8]) {
    // What the client takes, as far as it can be read at all.
    let takes = Message::from_vec(bytes).ok().and_then(|query| query.edns);
    let takes = takes.map_or(UDP_PLAIN, |edns| edns.max_payload().clamp(UDP_PLAIN, UDP_MAX));
    for (transport, most) in [(Transport::Udp, takes), (Transport::Tcp, u16::MAX)] {
        let Some(answered) = rig.raw(bytes, transport) else { continue };
        assert!(answered.len() <= usize::from(most), "{} bytes for {bytes:?}", answered.len());
        assert_eq!((&answered[..2], answered[2] & 0x80), (&bytes[..2], 0x80));
        assert!(Message::from_vec(&answered).is_ok(), "{answered:?} to {bytes:?}");
        // As far as the response rate is limited; a cookie of ours and an OPT record are added.
        let cut = cut(&answered).unwrap();
        assert!(cut.len() <= bytes.len() + 27, "{} bytes cut for {bytes:?}", cut.len());
    }
}

fn rigs() -> [Rig; 2] {
    // The second has answers that are too long for UDP.
    let mut many = rig();
    let mut regions = many.world.regions().to_vec();
    for region in &mut regions {
        region.addresses = (1..=200u8).map(|last| IpAddr::from([198, 51, 100, last])).collect();
    }
    many.world = World::new(regions, Settings::default(), None, None).unwrap();
    [rig(), many]
}

#[test]
fn a_query_that_is_cut_off_anywhere_is_answered_or_not() {
    for rig in rigs() {
        for good in good() {
            for length in 0..=good.len() {
                check(&rig, &good[..length]);
            }
        }
    }
}

#[test]
fn no_damage_to_a_query_is_a_panic_or_a_larger_answer_than_there_may_be() {
    let times = if process_env("NEARHOP_SOAK").is_some() { 1_000_000 } else { 50_000 };
    let (good, rigs, mut random) = (good(), rigs(), Random(42));
    for at in 0..times {
        let mut bytes = good[random.below(good.len())].clone();
        for _ in 0..=random.below(6) {
            let place = random.below(bytes.len());
            let byte = random.next().to_le_bytes()[0];
            match random.below(8) {
                0 => bytes[place] ^= 1 << (byte & 7),
                1 => bytes[place] = [0, 1, 41, 0x3f, 0x7f, 0x80, 0xc0, 0xff][usize::from(byte & 7)],
                2 => bytes.insert(place, byte),
                3 => drop(bytes.remove(place)),
                4 => bytes.truncate(place),
                5 => {
                    // A part of another.
                    let other = &good[random.below(good.len())];
                    let from = random.below(other.len());
                    let to = (from + random.below(24)).min(other.len());
                    bytes.splice(place..place, other[from..to].iter().copied());
                }
                _ => bytes[place] = byte,
            }
            if bytes.is_empty() {
                bytes.push(byte);
            }
        }
        check(&rigs[at % 2], &bytes);
    }
}

/// Repeatable numbers (a linear congruential generator, its high bits).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u32 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as u32
    }

    fn below(&mut self, limit: usize) -> usize {
        self.next() as usize % limit
    }
}

/// Whoever floods a victim with answers pays for the questions. `docs/dns.md` has these bounds.
#[test]
fn an_unsigned_answer_is_at_most_five_times_as_large_as_its_question() {
    // As short as a zone's name can be had, which is worst, and as long as ours.
    const CONFIG: &str = r#"
regions:
  - {name: a, location: [53.3, -6.3], addresses: [192.0.2.10, 192.0.2.11, "2001:db8:1::10", "2001:db8:1::11"]}
dns:
  listen: ["127.0.0.1:0"]
  admin: {listen: "127.0.0.1:0"}
  zone: ZONE
  name_servers: [ns1.ZONE, ns2.ZONE]
  services: ["@", v1]
  mmdb: MMDB
"#;
    let (mut ratio, mut more) = (0f64, 0);
    for zone in ["a.io", "complete.example.com"] {
        let rig = of(&CONFIG.replace("ZONE", zone));
        for name in [format!("{zone}."), format!("v1.{zone}."), format!("x.{zone}."), "a.".into()] {
            for kind in 0..=260 {
                let plain = query(&name, kind.into());
                let edns = subnet(plain.clone(), "192.0.2.0", 24);
                let mut all = subnet(plain.clone(), "192.0.2.0", 24);
                let cookie = EdnsOption::Unknown(EdnsCode::Cookie.into(), vec![3; 8]);
                all.edns.as_mut().unwrap().options_mut().insert(cookie);
                for asked in [plain, edns, all] {
                    let question = asked.to_vec().unwrap();
                    let answered = rig.raw(&question, Transport::Udp).unwrap().len();
                    let times = answered as f64 / question.len() as f64;
                    ratio = ratio.max(times);
                    more = more.max(answered - question.len());
                }
            }
        }
    }
    println!("{ratio:.2} times, {more} bytes more");
    assert!(ratio <= 5.0 && more <= 95, "{ratio} times, {more} bytes more");
}
