use std::path::PathBuf;

use hickory_proto::{op::Query as Question, rr::Name};
use nearhop_conf::Config;

use super::*;
use crate::{dns::ZoneKey, world_of};

const CONFIG: &str = r#"
regions:
  - {name: us-west, location: [37.4, -122.1], addresses: [192.0.2.10, "2001:db8:1::10"]}
  - {name: eu-west, location: [53.3, -6.3], addresses: [198.51.100.10, 198.51.100.11]}
  - {name: ap-south, location: [19.1, 72.9], addresses: [203.0.113.10]}
dns:
  listen: ["127.0.0.1:0"]
  admin: {listen: "127.0.0.1:0"}
  zone: complete.example.com
  name_servers: [ns1.example.com, ns2.example.com]
  services: ["@", api.v1]
  negative_ttl: 10s
  mmdb: MMDB
"#;

pub(in crate::dns) struct Rig {
    zone: Zone,
    pub(in crate::dns) world: World,
    /// Where the zone is signed.
    pub(in crate::dns) signer: Option<Signer>,
}

pub(in crate::dns) fn rig() -> Rig {
    of(CONFIG)
}

/// What a configuration gives; `MMDB` in it is the repository's small database.
pub(super) fn of(config: &str) -> Rig {
    let mmdb = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../conf/data/documentation.mmdb");
    let text = config.replace("MMDB", &mmdb.display().to_string());
    let config = Config::read(&text, "dns.yaml", &|_| None).unwrap();
    let dns = config.dns.unwrap();
    let (zone, world) = (Zone::new(&dns, 7).unwrap(), world_of(&config.regions, &dns).unwrap());
    Rig { zone, world, signer: None }
}

pub(super) fn query(name: &str, asked: RecordType) -> Message {
    let mut query = Message::new(4711, MessageType::Query, OpCode::Query);
    query.metadata.recursion_desired = true;
    query.add_query(Question::query(Name::from_ascii(name).unwrap(), asked));
    query
}

pub(super) fn subnet(mut query: Message, address: &str, source: u8) -> Message {
    let mut edns = Edns::new();
    edns.set_max_payload(1400);
    let subnet = ClientSubnet::new(address.parse().unwrap(), source, 0);
    edns.options_mut().insert(EdnsOption::Subnet(subnet));
    query.set_edns(edns);
    query
}

const PEER: &str = "127.0.0.53";

impl Rig {
    fn ask(&self, query: &Message) -> Message {
        let bytes = query.to_vec().unwrap();
        let answered = self.raw(&bytes, Transport::Udp).unwrap();
        let answer = Message::from_vec(&answered).unwrap();
        assert_eq!(answer.metadata.id, 4711);
        assert_eq!(answer.metadata.message_type, MessageType::Response);
        assert!(answer.metadata.recursion_desired && !answer.metadata.recursion_available);
        answer
    }

    pub(super) fn raw(&self, bytes: &[u8], transport: Transport) -> Option<Vec<u8>> {
        self.from(PEER, bytes, transport).map(|answer| answer.bytes)
    }

    fn from(&self, peer: &str, bytes: &[u8], transport: Transport) -> Option<Answer> {
        let secret = Secret::new([7; 16], Vec::new());
        answer(bytes, peer.parse().unwrap(), transport, &self.context(&secret))
    }

    /// The same, signed.
    pub(in crate::dns) fn signed(mut self) -> Self {
        let key = ZoneKey::from_pem(ZoneKey::generate().unwrap().as_bytes()).unwrap();
        self.signer = Some(Signer::new(vec![key], &self.zone, &self.world, 1000, 10).unwrap());
        self
    }

    pub(in crate::dns) fn context<'a>(&'a self, secret: &'a Secret) -> Context<'a> {
        Context {
            zone: &self.zone,
            world: &self.world,
            secret,
            signer: self.signer.as_ref(),
            now: 1000,
        }
    }
}

fn addresses(answer: &Message) -> Vec<String> {
    answer.answers.iter().map(|record| record.data.to_string()).collect()
}

fn told(answer: &Message) -> ClientSubnet {
    match answer.edns.as_ref().unwrap().option(EdnsCode::Subnet) {
        Some(EdnsOption::Subnet(subnet)) => *subnet,
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_nearest_regions_addresses_are_the_answer_with_an_exact_scope() {
    let rig = rig();
    let ask = |address, source| {
        rig.ask(&subnet(query("complete.example.com.", RecordType::A), address, source))
    };
    for (address, expected, scope) in [
        ("192.0.2.0", "192.0.2.10", 24),
        ("203.0.113.0", "203.0.113.10", 24),
        ("198.51.100.0", "198.51.100.10", 24),
    ] {
        let answer = ask(address, 24);
        assert_eq!(addresses(&answer)[0], expected);
        assert!(answer.metadata.authoritative);
        assert_eq!(answer.answers[0].ttl, 30);
        let told = told(&answer);
        assert_eq!((told.addr().to_string().as_str(), told.source_prefix()), (address, 24));
        assert_eq!(told.scope_prefix(), scope, "both halves of 192.0.2.0/24 are of one class");
    }
    assert_eq!(addresses(&ask("198.51.100.0", 24)).len(), 2, "all of a region's");
    let v6 = rig.ask(&subnet(query("complete.example.com.", RecordType::AAAA), "2001:db8:1::", 48));
    assert_eq!(addresses(&v6), ["2001:db8:1::10"]);
    let without = rig.ask(&query("complete.example.com.", RecordType::A));
    assert_eq!(addresses(&without)[0], "198.51.100.10", "where the resolver is: 127.0.0.0/8");
    assert!(without.edns.is_none());
    let opted_out = ask("0.0.0.0", 0);
    assert_eq!(
        (addresses(&opted_out)[0].as_str(), told(&opted_out).scope_prefix()),
        ("198.51.100.10", 0)
    );
}

#[test]
fn names_are_compared_without_case_and_come_back_as_they_were() {
    let answer = rig().ask(&query("CoMpLeTe.eXample.com.", RecordType::A));
    assert_eq!(answer.answers[0].name.to_string(), "CoMpLeTe.eXample.com.");
}

#[test]
fn what_is_not_there_is_denied_with_the_soa() {
    let rig = rig();
    for (name, asked, code) in [
        ("complete.example.com.", RecordType::MX, ResponseCode::NoError),
        ("complete.example.com.", RecordType::TXT, ResponseCode::NoError),
        ("v1.complete.example.com.", RecordType::A, ResponseCode::NoError),
        ("nobody.complete.example.com.", RecordType::A, ResponseCode::NXDomain),
    ] {
        let answer = rig.ask(&query(name, asked));
        assert_eq!((answer.metadata.response_code, answer.answers.len()), (code, 0), "{name}");
        let soa = &answer.authorities[0];
        assert_eq!((soa.record_type(), soa.ttl), (RecordType::SOA, 10), "{name}");
        assert!(answer.metadata.authoritative);
    }
    // A region without an address of that family has nothing to say for it.
    let answer =
        rig.ask(&subnet(query("complete.example.com.", RecordType::AAAA), "203.0.113.0", 24));
    assert!(answer.answers.is_empty() && !answer.authorities.is_empty());
    assert_eq!(told(&answer).scope_prefix(), 24, "it holds for them alone");
}

#[test]
fn the_zone_tells_of_itself() {
    let rig = rig();
    let servers = rig.ask(&query("complete.example.com.", RecordType::NS));
    assert_eq!(addresses(&servers), ["ns1.example.com.", "ns2.example.com."]);
    let soa = rig.ask(&query("complete.example.com.", RecordType::SOA));
    assert!(addresses(&soa)[0].starts_with("ns1.example.com. hostmaster.complete.example.com. 7 "));
    let any = rig.ask(&query("complete.example.com.", RecordType::ANY));
    assert_eq!(any.answers.len(), 1);
    assert_eq!(any.answers[0].record_type(), RecordType::HINFO);
    let https =
        rig.ask(&subnet(query("api.v1.complete.example.com.", RecordType::HTTPS), "192.0.2.0", 24));
    let text = addresses(&https).remove(0);
    for part in ["h2", "192.0.2.10", "2001:db8:1::10"] {
        assert!(text.contains(part), "{text}");
    }
}

#[test]
fn what_is_not_ours_is_refused() {
    let rig = rig();
    for (name, asked) in [
        ("example.org.", RecordType::A),
        (".", RecordType::NS),
        ("example.com.", RecordType::A),
        ("complete.example.com.", RecordType::AXFR),
        ("complete.example.com.", RecordType::IXFR),
    ] {
        let answer = rig.ask(&query(name, asked));
        assert_eq!(answer.metadata.response_code, ResponseCode::Refused, "{name} {asked}");
        assert!(!answer.metadata.authoritative && answer.answers.is_empty());
    }
    let mut chaos = query("complete.example.com.", RecordType::A);
    chaos.queries[0].set_query_class(DNSClass::CH);
    assert_eq!(rig.ask(&chaos).metadata.response_code, ResponseCode::Refused);
}

/// RFC 8906, and RFC 7871's rules for queries.
#[test]
fn odd_queries_get_the_code_that_they_should() {
    let rig = rig();
    let plain = || query("complete.example.com.", RecordType::A);
    for op_code in [OpCode::Status, OpCode::Notify, OpCode::Update] {
        let mut odd = plain();
        odd.metadata.op_code = op_code;
        let answered = rig.raw(&odd.to_vec().unwrap(), Transport::Udp).unwrap();
        assert_eq!(answered[3] & 0xf, 4, "NOTIMP for {op_code:?}");
    }
    let mut version = subnet(plain(), "192.0.2.0", 24);
    version.edns.as_mut().unwrap().set_version(1);
    let answer = rig.ask(&version);
    // 16 has two names.
    assert_eq!(u16::from(answer.metadata.response_code), 16);
    assert_eq!(answer.edns.unwrap().version(), 0);
    let mut two = plain();
    two.add_query(two.queries[0].clone());
    assert_eq!(rig.ask(&two).metadata.response_code, ResponseCode::FormErr);
    let mut none = plain();
    none.queries.clear();
    assert_eq!(rig.ask(&none).metadata.response_code, ResponseCode::FormErr);
    let mut unknown = subnet(plain(), "192.0.2.0", 24);
    unknown.edns.as_mut().unwrap().options_mut().insert(EdnsOption::Unknown(65_001, vec![1, 2]));
    let answer = rig.ask(&unknown);
    assert_eq!(addresses(&answer), ["192.0.2.10"], "an unknown option is no reason");
    assert!(answer.edns.unwrap().option(EdnsCode::from(65_001)).is_none(), "and is not echoed");
    let with = |subnets: &[(&str, u8, u8)]| {
        let mut odd = plain();
        odd.set_edns(Edns::new());
        for (address, source, scope) in subnets {
            let given = ClientSubnet::new(address.parse().unwrap(), *source, *scope);
            odd.edns.as_mut().unwrap().options_mut().insert(EdnsOption::Subnet(given));
        }
        rig.ask(&odd).metadata.response_code
    };
    assert_eq!(with(&[("192.0.2.0", 24, 0)]), ResponseCode::NoError);
    assert_eq!(with(&[("192.0.2.0", 24, 24)]), ResponseCode::FormErr, "a scope in a query");
    let two = [("192.0.2.0", 24, 0), ("203.0.113.0", 24, 0)];
    assert_eq!(with(&two), ResponseCode::FormErr, "two networks");
    // Bits behind the prefix, which an encoder would not write: 192.0.2.0/20.
    let mut bytes = subnet(plain(), "192.0.0.0", 20).to_vec().unwrap();
    let at = bytes.windows(7).position(|seven| seven == [0, 1, 20, 0, 192, 0, 0]).unwrap();
    bytes[at + 6] = 2;
    assert_eq!(rig.raw(&bytes, Transport::Udp).unwrap()[3] & 0xf, 1, "FORMERR");
}

#[test]
fn a_client_that_shows_our_cookie_is_proven_and_gets_another() {
    let rig = rig();
    let with = |cookie: &[u8]| {
        let mut query = subnet(query("complete.example.com.", RecordType::A), "192.0.2.0", 24);
        let cookie = EdnsOption::Unknown(EdnsCode::Cookie.into(), cookie.to_vec());
        query.edns.as_mut().unwrap().options_mut().insert(cookie);
        query.to_vec().unwrap()
    };
    let cookie = |answer: &Answer| match Message::from_vec(&answer.bytes)
        .unwrap()
        .edns
        .unwrap()
        .option(EdnsCode::Cookie)
    {
        Some(EdnsOption::Unknown(_, cookie)) => cookie.clone(),
        other => panic!("{other:?}"),
    };
    let first = rig.from(PEER, &with(&[3; 8]), Transport::Udp).unwrap();
    assert!(!first.proven);
    let baked = cookie(&first);
    assert_eq!((baked.len(), &baked[..8]), (24, &[3; 8][..]));
    let second = rig.from(PEER, &with(&baked), Transport::Udp).unwrap();
    assert!(second.proven);
    assert_eq!(addresses(&Message::from_vec(&second.bytes).unwrap()), ["192.0.2.10"]);
    assert!(!rig.from("127.0.0.54", &with(&baked), Transport::Udp).unwrap().proven, "another's");
    let bad = rig.from(PEER, &with(&[3; 5]), Transport::Udp).unwrap();
    assert_eq!(bad.bytes[3] & 0xf, 1, "FORMERR");
}

#[test]
fn a_cut_answer_is_its_question() {
    let rig = rig();
    let whole =
        rig.raw(&query("complete.example.com.", RecordType::A).to_vec().unwrap(), Transport::Udp);
    let cut = cut(&whole.unwrap()).unwrap();
    let message = Message::from_vec(&cut).unwrap();
    assert!(message.metadata.truncation && message.answers.is_empty());
    assert_eq!(message.queries.len(), 1);
}

#[test]
fn a_response_is_never_answered_and_what_cannot_be_read_is_told() {
    let rig = rig();
    let mut response = query("complete.example.com.", RecordType::A).to_vec().unwrap();
    response[2] |= 0x80;
    assert!(rig.raw(&response, Transport::Udp).is_none());
    assert!(rig.raw(&[0; 11], Transport::Udp).is_none());
    let good = query("complete.example.com.", RecordType::A).to_vec().unwrap();
    let cut = rig.raw(&good[..good.len() - 3], Transport::Udp).unwrap();
    assert_eq!((&cut[..2], cut[3] & 0xf, cut[2] & 0x80), (&good[..2], 1, 0x80));
}

#[test]
fn what_does_not_fit_is_cut_by_udp_and_whole_by_tcp() {
    let mut rig = rig();
    let many = (1..=200u8).map(|last| IpAddr::from([198, 51, 100, last])).collect();
    rig.world = {
        let mut regions = rig.world.regions().to_vec();
        regions[1].addresses = many;
        World::new(regions, crate::Settings::default(), None, None).unwrap()
    };
    // Without a database the resolver's prefix draws its region; one that draws this one.
    let peer = (0..=255u8)
        .map(|at| IpAddr::from([10, 0, at, 1]))
        .find(|peer| {
            let query = Query {
                service: "complete.example.com.",
                address: *peer,
                source: Source::Resolver,
            };
            decide(&query, &rig.world).region().unwrap().id.as_str() == "eu-west"
        })
        .unwrap();
    let bytes = query("complete.example.com.", RecordType::A).to_vec().unwrap();
    let ask = |transport| rig.from(&peer.to_string(), &bytes, transport).unwrap().bytes;
    let (udp, tcp) = (ask(Transport::Udp), ask(Transport::Tcp));
    assert!(udp.len() <= 512 && udp[2] & 2 != 0, "cut, and marked: {} bytes", udp.len());
    assert_eq!(Message::from_vec(&tcp).unwrap().answers.len(), 200);
    assert!(tcp[2] & 2 == 0);
}
