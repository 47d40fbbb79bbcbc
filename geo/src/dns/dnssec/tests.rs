mod delv;

use std::{collections::HashSet, net::IpAddr, path::PathBuf};

use hickory_proto::{
    dnssec::{
        Verifier as _,
        rdata::{DNSKEY, DNSSECRData},
    },
    op::{Edns, Message, MessageType, OpCode, Query as Question, ResponseCode},
    rr::{
        DNSClass, Name, RData, Record, RecordType,
        rdata::opt::{ClientSubnet, EdnsCode, EdnsOption},
    },
};
use nearhop_conf::Config;

use super::*;
use crate::{
    World,
    dns::{Context, Secret, Transport, Zone, answer},
    world_of,
};

/// A region without IPv6 and one without IPv4, a service in the zone and one at a name that has an
/// empty one above it.
const CONFIG: &str = r#"
regions:
  - {name: us-west, location: [37.4, -122.1], addresses: [192.0.2.10, "2001:db8:1::10"]}
  - {name: eu-west, location: [53.3, -6.3], addresses: [198.51.100.11, 198.51.100.10]}
  - {name: ap-south, location: [19.1, 72.9], addresses: ["2001:db8:3::10"]}
dns:
  listen: ["127.0.0.1:0"]
  admin: {listen: "127.0.0.1:0"}
  zone: Complete.example.com
  name_servers: [NS1.example.com, ns2.example.com]
  services: ["@", api.v1]
  negative_ttl: 10s
  all_down: fallback
  fallback: [203.0.113.99]
  mmdb: MMDB
"#;

const ZONE: &str = "complete.example.com.";
const API: &str = "api.v1.complete.example.com.";
const BETWEEN: &str = "v1.complete.example.com.";
const NOBODY: &str = "nobody.complete.example.com.";
const CLIENTS: [&str; 4] = ["192.0.2.0", "198.51.100.0", "203.0.113.0", "10.9.8.0"];
const NOW: u32 = 1_800_000_000;
/// As EDNS has it, beside DO.
const COMPACT_OK: u16 = 0x4000;

struct Rig {
    zone: Zone,
    world: World,
    signer: Signer,
}

fn keys(count: usize) -> Vec<ZoneKey> {
    let key = |_| ZoneKey::from_pem(ZoneKey::generate().unwrap().as_bytes()).unwrap();
    (0..count).map(key).collect()
}

fn rig_of(config: &str, keys: Vec<ZoneKey>, denials: u32) -> Rig {
    let mmdb = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../conf/data/documentation.mmdb");
    let text = config.replace("MMDB", &mmdb.display().to_string());
    let config = Config::read(&text, "dns.yaml", &|_| None).unwrap();
    let dns = config.dns.unwrap();
    let (zone, world) = (Zone::new(&dns, 7).unwrap(), world_of(&config.regions, &dns).unwrap());
    let signer = Signer::new(keys, &zone, &world, NOW, denials).unwrap();
    Rig { zone, world, signer }
}

fn rig() -> Rig {
    rig_of(CONFIG, keys(1), 8)
}

/// A query as a resolver that validates sends it.
fn query(name: &str, asked: RecordType, client: &str) -> Message {
    let mut query = Message::new(4711, MessageType::Query, OpCode::Query);
    query.add_query(Question::query(Name::from_ascii(name).unwrap(), asked));
    let mut edns = Edns::new();
    edns.set_max_payload(1232);
    edns.set_dnssec_ok(true);
    let subnet = ClientSubnet::new(client.parse().unwrap(), 24, 0);
    edns.options_mut().insert(EdnsOption::Subnet(subnet));
    query.set_edns(edns);
    query
}

impl Rig {
    /// Since this was last asked.
    fn live_signatures(&self) -> u64 {
        self.signer.take_counts().0
    }

    fn bytes(&self, query: &Message, transport: Transport, now: u32, signed: bool) -> Vec<u8> {
        let secret = Secret::new([7; 16], Vec::new());
        let signer = signed.then_some(&self.signer);
        let context =
            Context { zone: &self.zone, world: &self.world, secret: &secret, signer, now };
        let peer = IpAddr::from([127, 0, 0, 53]);
        answer(&query.to_vec().unwrap(), peer, transport, &context).unwrap().bytes
    }

    fn ask(&self, query: &Message) -> Message {
        let bytes = self.bytes(query, Transport::Udp, NOW, true);
        assert!(bytes.len() <= 1232, "{} bytes", bytes.len());
        Message::from_vec(&bytes).unwrap()
    }

    fn keys(&self) -> Vec<DNSKEY> {
        let key = |record: &Record| match &record.data {
            RData::DNSSEC(DNSSECRData::DNSKEY(key)) => key.clone(),
            other => panic!("{other}"),
        };
        self.signer.dnskeys().iter().map(key).collect()
    }

    /// Asserts that each set has signatures and that all are good; who made them, and over what.
    fn check(&self, section: &[Record]) -> Vec<(u16, RecordType)> {
        let mut made = Vec::new();
        let mut sets: HashSet<(String, RecordType)> = HashSet::new();
        for record in section {
            let RData::DNSSEC(DNSSECRData::RRSIG(signature)) = &record.data else {
                sets.insert((record.name.to_string(), record.record_type()));
                continue;
            };
            let input = signature.input();
            let set = section.iter().filter(|other| {
                other.name == record.name && other.record_type() == input.type_covered
            });
            let set: Vec<&Record> = set.collect();
            for other in &set {
                assert_eq!((other.ttl, record.ttl), (input.original_ttl, input.original_ttl));
                assert_eq!(other.name.to_string(), record.name.to_string(), "in the same case");
            }
            assert_eq!(input.sig_inception.get(), NOW - 3600);
            assert_eq!(input.sig_expiration.get(), NOW + 14 * 86_400);
            let keys = self.keys();
            let by = |key: &&DNSKEY| key.calculate_key_tag().unwrap() == input.key_tag;
            let key = keys.iter().find(by).unwrap();
            key.verify_rrsig(&record.name, DNSClass::IN, signature, set.iter().copied()).unwrap();
            made.push((input.key_tag, input.type_covered));
        }
        let covered = |(_, kind): &(String, RecordType)| made.iter().any(|(_, of)| of == kind);
        assert!(sets.iter().all(covered), "a set without a signature: {section:?}");
        made
    }
}

/// The types that an answer's NSEC says there are.
fn types(answer: &Message) -> Vec<RecordType> {
    let nsec = answer.authorities.iter().find_map(|record| match &record.data {
        RData::DNSSEC(DNSSECRData::NSEC(nsec)) => Some((record.name.clone(), nsec)),
        _ => None,
    });
    let (owner, nsec) = nsec.unwrap();
    let next = nsec.next_domain_name();
    assert_eq!(next.to_string(), format!("\\000.{}", owner.to_lowercase()));
    nsec.type_bit_maps().collect()
}

fn extended_error(answer: &Message) -> Option<u16> {
    match answer.edns.as_ref()?.option(EdnsCode::from(15))? {
        EdnsOption::Unknown(_, told) => Some(u16::from_be_bytes([told[0], told[1]])),
        _ => None,
    }
}

/// Everything that can be asked of names that exist, by clients of every region.
fn all_queries() -> impl Iterator<Item = (&'static str, RecordType, &'static str)> {
    const TYPES: [RecordType; 12] = [
        RecordType::A,
        RecordType::AAAA,
        RecordType::HTTPS,
        RecordType::SOA,
        RecordType::NS,
        RecordType::DNSKEY,
        RecordType::ANY,
        RecordType::NSEC,
        RecordType::DS,
        RecordType::HINFO,
        RecordType::TXT,
        RecordType::CNAME,
    ];
    let names = [ZONE, "ComPlete.exaMple.com.", API, "API.v1.complete.example.com.", BETWEEN];
    names.into_iter().flat_map(|name| {
        let of = move |kind| CLIENTS.into_iter().map(move |client| (name, kind, client));
        TYPES.into_iter().flat_map(of)
    })
}

#[test]
fn all_that_is_answered_of_names_that_exist_was_signed_before_it_is_asked_for() {
    let rig = rig();
    let mut answered = HashSet::new();
    for (name, asked, client) in all_queries() {
        let answer = rig.ask(&query(name, asked, client));
        let what = format!("{name} {asked} {client}");
        assert_eq!(answer.metadata.response_code, ResponseCode::NoError, "{what}");
        assert!(!answer.metadata.truncation && answer.edns.as_ref().unwrap().flags().dnssec_ok);
        if answer.answers.is_empty() {
            let signed: Vec<RecordType> =
                rig.check(&answer.authorities).into_iter().map(|(_, kind)| kind).collect();
            assert_eq!(signed, [RecordType::SOA, RecordType::NSEC], "{what}");
            let there = types(&answer);
            assert!(!there.contains(&asked), "{what}: denied and there: {there:?}");
            assert_eq!(answer.authorities[2].name.to_string(), name, "{what}");
        } else {
            assert!(!rig.check(&answer.answers).is_empty(), "{what}");
            assert!(answer.authorities.is_empty());
            assert!(answer.answers.iter().all(|record| record.name.to_string() == name), "{what}");
            answered.insert((name.to_lowercase(), asked));
        }
    }
    for asked in [RecordType::A, RecordType::AAAA, RecordType::HTTPS, RecordType::ANY] {
        assert!(answered.contains(&(ZONE.to_owned(), asked)), "{asked}");
        assert!(answered.contains(&(API.to_owned(), asked)), "{asked}");
    }
    assert_eq!(rig.live_signatures(), 0);
}

#[test]
fn what_is_answered_when_every_region_is_out_is_signed_too() {
    let config = CONFIG.replace("addresses", "drained: true, addresses");
    let rig = rig_of(&config, keys(1), 8);
    let answer = rig.ask(&query(ZONE, RecordType::A, CLIENTS[0]));
    assert_eq!(answer.answers[0].data.to_string(), "203.0.113.99");
    assert_eq!(rig.check(&answer.answers).len(), 1);
    let nothing = config.replace("all_down: fallback", "all_down: nodata");
    let rig = rig_of(&nothing, keys(1), 8);
    for asked in [RecordType::A, RecordType::AAAA, RecordType::HTTPS] {
        let answer = rig.ask(&query(ZONE, asked, CLIENTS[0]));
        assert!(answer.answers.is_empty() && !types(&answer).contains(&asked));
        assert_eq!(rig.check(&answer.authorities).len(), 2);
    }
    assert_eq!(rig.live_signatures(), 0);
}

#[test]
fn only_the_type_that_is_asked_for_is_denied() {
    let rig = rig();
    let there = |name, asked, client| types(&rig.ask(&query(name, asked, client)));
    use RecordType::{A, AAAA, DNSKEY, HTTPS, NS, NSEC, RRSIG, SOA, TXT};
    assert_eq!(there(ZONE, TXT, CLIENTS[0]), [A, NS, SOA, AAAA, RRSIG, NSEC, DNSKEY, HTTPS]);
    assert_eq!(there(API, TXT, CLIENTS[1]), [A, AAAA, RRSIG, NSEC, HTTPS]);
    assert_eq!(there(API, AAAA, CLIENTS[1]), [A, RRSIG, NSEC, HTTPS], "of a region without IPv6");
    assert_eq!(there(BETWEEN, A, CLIENTS[0]), [RRSIG, NSEC], "an empty name exists");
}

#[test]
fn a_name_that_is_not_there_is_denied_at_that_name() {
    let rig = rig();
    let asked = query("noBody.complete.example.com.", RecordType::A, CLIENTS[0]);
    for _ in 0..20 {
        let answer = rig.ask(&asked);
        assert_eq!(answer.metadata.response_code, ResponseCode::NoError);
        assert_eq!(types(&answer), [RecordType::RRSIG, RecordType::NSEC, NXNAME]);
        assert_eq!(rig.check(&answer.authorities).len(), 2);
        assert_eq!(answer.authorities[2].name.to_string(), "noBody.complete.example.com.");
        assert_eq!(answer.authorities[2].ttl, 10);
    }
    assert_eq!(rig.live_signatures(), 1, "it is kept");
    let mut compact = asked.clone();
    compact.edns.as_mut().unwrap().flags_mut().z = COMPACT_OK;
    let answer = rig.ask(&compact);
    assert_eq!(answer.metadata.response_code, ResponseCode::NXDomain);
    assert_eq!(rig.check(&answer.authorities).len(), 2);
    assert_eq!(answer.edns.unwrap().flags().z, COMPACT_OK);
}

#[test]
fn the_type_of_names_that_are_not_there_cannot_be_asked_for() {
    let rig = rig();
    for name in [ZONE, NOBODY] {
        let answer = rig.ask(&query(name, NXNAME, CLIENTS[0]));
        assert_eq!(answer.metadata.response_code, ResponseCode::FormErr);
        assert_eq!(extended_error(&answer), Some(30));
        assert!(!answer.metadata.authoritative && answer.authorities.is_empty());
    }
}

#[test]
fn a_flood_of_random_names_costs_no_more_signatures_than_there_may_be() {
    let rig = rig();
    let ask = |at: u32, transport, now| {
        let name = format!("r{at}.complete.example.com.");
        let query = query(&name, RecordType::A, CLIENTS[0]);
        Message::from_vec(&rig.bytes(&query, transport, now, true)).unwrap()
    };
    for at in 0..500 {
        let answer = ask(at, Transport::Udp, NOW);
        assert_eq!(answer.metadata.truncation, at >= 6, "three quarters of 8, then by TCP");
        assert_eq!(answer.metadata.response_code, ResponseCode::NoError);
        assert_eq!(answer.authorities.is_empty(), at >= 6);
    }
    assert_eq!(rig.live_signatures(), 6);
    for at in 500..600 {
        let answer = ask(at, Transport::Tcp, NOW);
        assert_eq!(answer.metadata.response_code == ResponseCode::ServFail, at >= 502);
        assert_eq!(extended_error(&answer), (at >= 502).then_some(0));
        assert!(!answer.metadata.truncation);
    }
    assert_eq!(rig.live_signatures(), 2);
    // Answers go on all the same, and in the next second denials do.
    rig.check(&rig.ask(&query(ZONE, RecordType::A, CLIENTS[0])).answers);
    assert!(!ask(600, Transport::Udp, NOW + 1).metadata.truncation);
    assert_eq!(rig.live_signatures(), 1);
}

#[test]
fn a_name_that_is_as_long_as_a_name_can_be_is_an_error_and_no_false_proof() {
    let rig = rig();
    let left = "a".repeat(63);
    let long = format!("{left}.{left}.{left}.{}.{ZONE}", "a".repeat(255 - 3 * 64 - 22 - 1));
    let query = query(&long, RecordType::A, CLIENTS[0]);
    let answer = Message::from_vec(&rig.bytes(&query, Transport::Tcp, NOW, true)).unwrap();
    assert_eq!(answer.metadata.response_code, ResponseCode::ServFail);
}

#[test]
fn who_does_not_ask_for_proofs_gets_what_an_unsigned_zone_gives() {
    let rig = rig();
    let others = [(NOBODY, RecordType::A, CLIENTS[0]), ("example.org.", RecordType::A, CLIENTS[0])];
    for (name, asked, client) in all_queries().chain(others) {
        let mut query = query(name, asked, client);
        for without_edns in [false, true] {
            if without_edns {
                query.edns = None;
            } else {
                let edns = query.edns.as_mut().unwrap();
                edns.set_dnssec_ok(false);
                edns.flags_mut().z = COMPACT_OK;
            }
            let signed = rig.bytes(&query, Transport::Udp, NOW, true);
            if asked == RecordType::DNSKEY && name.eq_ignore_ascii_case(ZONE) {
                let answer = Message::from_vec(&signed).unwrap();
                assert_eq!(answer.answers.len(), 1, "keys are there, without a signature");
            } else {
                let unsigned = rig.bytes(&query, Transport::Udp, NOW, false);
                assert_eq!(signed, unsigned, "{name} {asked}");
            }
        }
    }
    assert_eq!(rig.live_signatures(), 0);
}

#[test]
fn the_first_key_signs_and_every_key_vouches_for_all_of_them() {
    for count in 1..=4 {
        let rig = rig_of(CONFIG, keys(count), 8);
        let tags: Vec<u16> = rig.signer.keys.iter().map(ZoneKey::tag).collect();
        let answer = rig.ask(&query(ZONE, RecordType::DNSKEY, CLIENTS[0]));
        let by: Vec<u16> = rig.check(&answer.answers).into_iter().map(|(tag, _)| tag).collect();
        assert_eq!(by, tags, "whichever of them the parent names");
        for asked in [RecordType::A, RecordType::TXT] {
            let answer = rig.ask(&query(ZONE, asked, CLIENTS[0]));
            let signed = rig.check(&[answer.answers, answer.authorities].concat());
            assert!(signed.iter().all(|(tag, _)| *tag == tags[0]));
        }
    }
}

#[test]
fn keys_that_cannot_be_used_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let text = ZoneKey::generate().unwrap();
    let read = |name: &str, text: Option<&str>| {
        let path = folder.path().join(name);
        if let Some(text) = text {
            std::fs::write(&path, text).unwrap();
        }
        let error = read_keys(&Dnssec { keys: vec![path], denials: 1 }).unwrap_err().to_string();
        assert!(error.starts_with("dns.dnssec.keys: ") && error.contains(name), "{error}");
        error
    };
    assert!(read("missing.key", None).contains("cannot be read"));
    assert!(read("cut.key", Some(&text[..90])).contains("no PEM file"));
    assert!(read("empty.key", Some("")).contains("nearhop dns keys generate"));
    let damaged = text.replacen("MIG", "AAA", 1);
    assert!(read("damaged.key", Some(&damaged)).contains("P-256"));
    let Rig { zone, world, .. } = rig();
    let same = || ZoneKey::from_pem(text.as_bytes()).unwrap();
    let refused = |keys| Signer::new(keys, &zone, &world, NOW, 1).unwrap_err().to_string();
    assert!(refused(vec![same(), same()]).contains("two keys have the tag"));
    assert!(refused(Vec::new()).contains("there is no key"));
}

#[test]
fn signatures_are_renewed_a_week_before_they_end_and_when_a_clock_was_wrong() {
    let signer = rig().signer;
    let week = 7 * 86_400;
    for (now, stale) in [
        (NOW, false),
        (NOW + week - 1, false),
        (NOW + week, true),
        (NOW + 100 * week, true),
        (NOW - 3600, false),
        (NOW - 3601, true),
        (1000, true),
    ] {
        assert_eq!(signer.is_stale(now), stale, "{now}");
    }
}

/// With the keys it has: their files may be gone by then.
#[test]
fn what_is_signed_anew_is_as_good_as_new_and_nothing_is_signed_for_a_query() {
    let mut rig = rig();
    let later = NOW + 8 * 86_400;
    assert!(rig.signer.is_stale(later));
    rig.signer = rig.signer.renewed(&rig.zone, &rig.world, later).unwrap();
    assert!(!rig.signer.is_stale(later));
    let asked = query(API, RecordType::A, CLIENTS[0]);
    let answer = rig.bytes(&asked, Transport::Udp, later, true);
    let answer = Message::from_vec(&answer).unwrap();
    assert!(answer.answers.iter().any(|record| record.record_type() == RecordType::RRSIG));
    assert_eq!(rig.live_signatures(), 0);
}

#[test]
fn no_damage_to_a_query_is_a_panic_or_a_larger_answer_than_there_may_be() {
    let rig = rig();
    let good = query(API, RecordType::HTTPS, CLIENTS[0]).to_vec().unwrap();
    let context = Context {
        zone: &rig.zone,
        world: &rig.world,
        secret: &Secret::new([7; 16], Vec::new()),
        signer: Some(&rig.signer),
        now: NOW,
    };
    // Repeatable numbers: a linear congruential generator, its high bits.
    let mut seed = 42u64;
    let mut random = || {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) as usize
    };
    for _ in 0..10_000 {
        let mut bytes = good.clone();
        for _ in 0..1 + random() % 6 {
            let at = random() % bytes.len();
            bytes[at] = random().to_le_bytes()[0];
        }
        let peer = IpAddr::from([127, 0, 0, 53]);
        if let Some(answered) = answer(&bytes, peer, Transport::Udp, &context) {
            assert!(answered.bytes.len() <= 1232 && answered.bytes[..2] == bytes[..2]);
        }
    }
    assert!(rig.live_signatures() <= 6, "of one second");
}

/// What docs/dns.md says of how much larger than its question an answer is.
#[test]
fn an_answer_is_a_few_times_as_large_as_its_question() {
    let rig = rig_of(&CONFIG.replace("Complete", "complete"), keys(1), 8);
    let mut lines = Vec::new();
    for (name, asked) in [
        (ZONE, RecordType::A),
        (ZONE, RecordType::HTTPS),
        (ZONE, RecordType::DNSKEY),
        (ZONE, RecordType::TXT),
        (NOBODY, RecordType::A),
    ] {
        let mut query = query(name, asked, CLIENTS[0]);
        query.edns.as_mut().unwrap().options_mut().remove(EdnsCode::Subnet);
        let question = query.to_vec().unwrap().len();
        let answer = rig.bytes(&query, Transport::Udp, NOW, true).len();
        lines.push(format!("{name} {asked}: {question} to {answer}"));
        assert!(answer <= question * 9, "{lines:?}");
    }
    eprintln!("{}", lines.join("\n"));
}
