//! Queries byte by byte, with what the RFCs want said to each: RFC 7871 (the client's network),
//! RFC 8906 (what servers get wrong), RFC 6891 (EDNS).

use super::{
    tests::{Rig, rig},
    *,
};

/// complete.example.com, which is a service.
const NAME: &[u8] = b"\x08complete\x07example\x03com\x00";
/// An A record of class IN is asked for.
const A: [u8; 4] = [0, 1, 0, 1];
const RD: u16 = 0x0100;

fn question(name: &[u8], rest: [u8; 4]) -> Vec<u8> {
    [name, &rest].concat()
}

fn asked() -> Vec<u8> {
    question(NAME, A)
}

/// A message of these flags, questions and additional records.
fn message(flags: u16, questions: &[Vec<u8>], additional: &[Vec<u8>]) -> Vec<u8> {
    let count = |list: &[Vec<u8>]| u16::try_from(list.len()).unwrap().to_be_bytes();
    let (asked, added) = (count(questions), count(additional));
    let head = [[0x12, 0x67], flags.to_be_bytes(), asked, [0; 2], [0; 2], added].concat();
    [head, questions.concat(), additional.concat()].concat()
}

/// An OPT record with these options; `ttl` has the code's high bits, the version and the flags.
fn opt(ttl: u32, options: &[u8]) -> Vec<u8> {
    let length = u16::try_from(options.len()).unwrap().to_be_bytes();
    [&[0, 0, 41, 4, 208], ttl.to_be_bytes().as_slice(), &length, options].concat()
}

fn option(code: u16, data: &[u8]) -> Vec<u8> {
    let length = u16::try_from(data.len()).unwrap().to_be_bytes();
    [code.to_be_bytes().as_slice(), &length, data].concat()
}

/// A query with an ECS option of these bytes.
fn from(subnet: &[u8]) -> Vec<u8> {
    message(RD, &[asked()], &[opt(0, &option(8, subnet))])
}

/// What is said: a code, and what the OPT record has, if there is one.
#[derive(Debug, PartialEq, Eq)]
struct Said {
    code: u16,
    opt: Option<Told>,
    answers: usize,
}

#[derive(Debug, PartialEq, Eq)]
struct Told {
    dnssec_ok: bool,
    /// The bytes of the client's network.
    subnet: Option<Vec<u8>>,
}

fn say(rig: &Rig, query: &[u8], transport: Transport) -> Said {
    let bytes = rig.raw(query, transport).expect("every query gets an answer");
    assert_eq!(bytes[..2], query[..2], "its id");
    assert_eq!(bytes[2] & 0x80, 0x80, "it is a response");
    assert_eq!((bytes[2] ^ query[2]) & 0x79, 0, "opcode and RD come back");
    assert_eq!(bytes[3] & 0xf0, 0, "no RA, no bit that nobody knows, no AD, no CD");
    assert_eq!(bytes[2] & 2, 0, "whole");
    // One OPT record, if any, and it is the last: no name, no option of which was not asked.
    let message = Message::from_vec(&bytes).unwrap();
    let opt = message.edns.as_ref().map(|edns| {
        assert_eq!((edns.version(), edns.max_payload()), (0, 1232));
        assert_eq!(edns.flags().z & 0x7fff, 0, "flags that nobody knows");
        let subnet = edns.option(EdnsCode::Subnet).map(|_| {
            // Behind the record's name, type, class, TTL and length; no other option was asked for.
            let at = bytes.windows(5).rposition(|five| five == [0, 0, 41, 4, 208]).unwrap() + 11;
            assert_eq!(bytes[at..at + 3], [0, 8, 0]);
            bytes[at + 4..at + 4 + usize::from(bytes[at + 3])].to_vec()
        });
        Told { dnssec_ok: edns.flags().dnssec_ok, subnet }
    });
    Said { code: message.metadata.response_code.into(), opt, answers: message.answers.len() }
}

const FORMERR: u16 = 1;
const NOTIMP: u16 = 4;
const BADVERS: u16 = 16;

/// RFC 7871, sections 6, 7.1.2 and 7.2.1, and appendix A.
#[test]
fn a_clients_network_is_echoed_with_its_scope_or_refused_as_malformed() {
    let rig = rig();
    // What is sent, and the scope that is told; `None`: malformed, and an OPT record without it.
    let v6 = |bytes: &[u8]| [&[0x20, 0x01, 0x0d, 0xb8], bytes].concat();
    let cases: &[(&str, Vec<u8>, Option<u8>)] = &[
        ("a located /24", vec![0, 1, 24, 0, 192, 0, 2], Some(24)),
        ("a whole address in it", vec![0, 1, 32, 0, 192, 0, 2, 77], Some(24)),
        ("no multiple of 8", vec![0, 1, 25, 0, 192, 0, 2, 128], Some(24)),
        ("more than a located one", vec![0, 1, 16, 0, 192, 0], Some(24)),
        ("0 bits", vec![0, 1, 0, 0], Some(0)),
        ("0 bits of IPv6", vec![0, 2, 0, 0], Some(0)),
        ("a located /48", [vec![0, 2, 48, 0], v6(&[0, 1])].concat(), Some(48)),
        ("a /56 in it", [vec![0, 2, 56, 0], v6(&[0, 1, 7])].concat(), Some(48)),
        (
            "a whole address of IPv6",
            [vec![0, 2, 128, 0], v6(&[0, 1]), vec![9; 10]].concat(),
            Some(48),
        ),
        (
            "IPv4 in IPv6",
            [vec![0, 2, 120, 0], vec![0; 10], vec![255, 255, 192, 0, 2]].concat(),
            Some(120),
        ),
        ("a private network", vec![0, 1, 8, 0, 10], Some(24)),
        ("a loopback network, located", vec![0, 1, 8, 0, 127], Some(8)),
        ("a link's own", vec![0, 1, 16, 0, 169, 254], Some(24)),
        ("a unique local one", vec![0, 2, 8, 0, 0xfd], Some(56)),
        ("of no family", vec![0, 0, 0, 0], None),
        ("of no family, with an address", vec![0, 0, 24, 0, 192, 0, 2], None),
        ("of a family that nobody knows", vec![0, 3, 24, 0, 192, 0, 2], None),
        ("more than 32 bits", vec![0, 1, 33, 0, 192, 0, 2, 1, 128], None),
        ("more than 128 bits", [vec![0, 2, 129, 0], vec![1; 17]].concat(), None),
        ("255 bits", [vec![0, 1, 255, 0], vec![1; 32]].concat(), None),
        ("bits behind the prefix", vec![0, 1, 23, 0, 192, 0, 3], None),
        ("bits behind the prefix, IPv6", [vec![0, 2, 47, 0], v6(&[0, 1])].concat(), None),
        ("a scope", vec![0, 1, 24, 1, 192, 0, 2], None),
        ("a scope, IPv6", [vec![0, 2, 48, 48], v6(&[0, 1])].concat(), None),
        ("a scope and nothing else", vec![0, 1, 0, 24], None),
        ("an address too short", vec![0, 1, 24, 0, 192, 0], None),
        ("an address too long by zeros", vec![0, 1, 24, 0, 192, 0, 2, 0], None),
        ("an address too long", vec![0, 1, 16, 0, 192, 0, 2], None),
        ("0 bits and an address", vec![0, 1, 0, 0, 0], None),
        ("an IPv6 address too long", [vec![0, 2, 32, 0], v6(&[0])].concat(), None),
        ("nothing in it", vec![], None),
        ("half of it", vec![0, 1], None),
        ("all but its scope", vec![0, 1, 0], None),
    ];
    for (what, subnet, scope) in cases {
        for transport in [Transport::Udp, Transport::Tcp] {
            let said = say(&rig, &from(subnet), transport);
            let told = scope.map(|scope| {
                let mut told = subnet.clone();
                told[3] = scope;
                told
            });
            let code = if scope.is_some() { 0 } else { FORMERR };
            let opt = Some(Told { dnssec_ok: false, subnet: told });
            assert_eq!((said.code, said.opt), (code, opt), "{what}");
            assert_eq!(said.answers > 0, scope.is_some(), "{what}");
        }
    }
    let option = option(8, &[0, 1, 24, 0, 192, 0, 2]);
    let twice = message(RD, &[asked()], &[opt(0, &[option.clone(), option.clone()].concat())]);
    assert_eq!(say(&rig, &twice, Transport::Udp).code, FORMERR, "the same network twice");
    // What is the same for everybody has no scope, and is still told so.
    let elsewhere = |name: &[u8], rest| message(RD, &[question(name, rest)], &[opt(0, &option)]);
    let (mx, soa) = ([0, 15, 0, 1], [0, 6, 0, 1]);
    for (what, query, code) in [
        ("no such name", elsewhere(b"\x04nope\x08complete\x07example\x03com\x00", A), 3),
        ("no such type", elsewhere(NAME, mx), 0),
        ("the zone's SOA", elsewhere(NAME, soa), 0),
        ("another's name", elsewhere(b"\x07example\x00", A), 5),
    ] {
        let said = say(&rig, &query, Transport::Udp);
        let subnet = said.opt.unwrap().subnet;
        assert_eq!(
            (said.code, subnet.as_deref()),
            (code, Some(&[0, 1, 24, 0, 192, 0, 2][..])),
            "{what}"
        );
    }
}

/// RFC 8906, section 8, and RFC 6891, sections 6 and 7.
#[test]
fn what_nobody_knows_yet_is_answered_as_far_as_it_is_known() {
    let rig = rig();
    let plain = || [asked()];
    let with = |additional: &[Vec<u8>]| message(RD, &plain(), additional);
    // An A record for the root, a type that nobody knows, a signature by a key that nobody has.
    let address = || vec![0, 0, 1, 0, 1, 0, 0, 0, 0, 0, 4, 192, 0, 2, 1];
    let unknown = || vec![0, 255, 1, 0, 1, 0, 0, 0, 0, 0, 2, 1, 2];
    let ask = |kind: u16, class: u16| {
        let [a, b] = kind.to_be_bytes();
        let [c, d] = class.to_be_bytes();
        message(RD, &[question(NAME, [a, b, c, d])], &[])
    };
    // Without EDNS: the code.
    let without: &[(&str, Vec<u8>, u16)] = &[
        ("a plain query", message(0, &plain(), &[]), 0),
        ("recursion desired", message(RD, &plain(), &[]), 0),
        ("the bit that nobody knows", message(0x0040, &plain(), &[]), 0),
        ("AD", message(0x0020, &plain(), &[]), 0),
        ("CD", message(0x0010, &plain(), &[]), 0),
        ("AA and TC, which are a server's to set", message(0x0600, &plain(), &[]), 0),
        ("RA", message(0x0080, &plain(), &[]), 0),
        ("a code in a query", message(0x000f, &plain(), &[]), 0),
        ("a type that nobody knows", ask(1000, 1), 0),
        ("type 65535", ask(65535, 1), 0),
        ("type 0", ask(0, 1), 0),
        ("MAILB", ask(253, 1), 0),
        ("class 0", ask(1, 0), 5),
        ("any class", ask(1, 255), 5),
        ("a class that nobody knows", ask(1, 1000), 5),
        ("an address beside it", with(&[address()]), 0),
        ("a type that nobody knows beside it", with(&[unknown()]), 0),
        ("many beside it", with(&[address(), unknown(), address()]), 0),
        ("a question too few", message(RD, &[], &[]), FORMERR),
        ("a question cut off", message(RD, &[NAME.to_vec()], &[]), FORMERR),
        ("a name that points at itself", message(RD, &[question(&[0xc0, 12], A)], &[]), FORMERR),
        (
            "a label of a kind that nobody knows",
            message(RD, &[question(&[0x41, 0], A)], &[]),
            FORMERR,
        ),
        (
            "a record that is not there",
            {
                let mut query = with(&[]);
                query[11] = 1;
                query
            },
            FORMERR,
        ),
    ];
    for (what, query, code) in without {
        for transport in [Transport::Udp, Transport::Tcp] {
            let said = say(&rig, query, transport);
            assert_eq!((said.code, said.opt), (*code, None), "{what}");
        }
    }
    for op_code in [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15] {
        let query = message(op_code << 11, &plain(), &[]);
        assert_eq!(say(&rig, &query, Transport::Udp).code, NOTIMP, "opcode {op_code}");
        // As many servers are asked: nothing but a header.
        let query = message(op_code << 11, &[], &[]);
        assert_eq!(say(&rig, &query, Transport::Tcp).code, NOTIMP, "opcode {op_code}, bare");
    }
    // With EDNS: the code, and whether DO comes back.
    let (version, dnssec_ok, flag) = (1 << 16, 0x8000, 0x4000);
    let strange = option(65_002, &[1; 7]);
    let nsid = option(3, &[]);
    let torn = &option(65_002, &[1; 7])[..9];
    let mut longer = opt(0, &strange);
    longer[10] += 9;
    let with_edns: &[(&str, Vec<u8>, u16, bool)] = &[
        ("EDNS", with(&[opt(0, &[])]), 0, false),
        ("DO", with(&[opt(dnssec_ok, &[])]), 0, true),
        ("a flag that nobody knows", with(&[opt(flag, &[])]), 0, false),
        ("all of them", with(&[opt(0x7fff, &[])]), 0, false),
        ("the code's high bits", with(&[opt(0xff00_0000, &[])]), 0, false),
        ("an option that nobody knows", with(&[opt(0, &strange)]), 0, false),
        ("the same with DO and a flag", with(&[opt(dnssec_ok | flag, &strange)]), 0, true),
        ("NSID", with(&[opt(0, &nsid)]), 0, false),
        (
            "NSID, padding and more",
            with(&[opt(0, &[nsid, option(12, &[0; 40]), strange.clone()].concat())]),
            0,
            false,
        ),
        ("before another record", with(&[opt(0, &[]), address()]), 0, false),
        ("behind another record", with(&[address(), opt(0, &[])]), 0, false),
        ("version 1", with(&[opt(version, &[])]), BADVERS, false),
        (
            "version 1 and an option that nobody knows",
            with(&[opt(version, &strange)]),
            BADVERS,
            false,
        ),
        (
            "version 1 and a flag that nobody knows",
            with(&[opt(version | flag, &[])]),
            BADVERS,
            false,
        ),
        ("version 1 and DO", with(&[opt(version | dnssec_ok, &[])]), BADVERS, true),
        ("version 255", with(&[opt(255 << 16, &[])]), BADVERS, false),
        (
            "version 1 and what is malformed in 0",
            with(&[opt(version, &option(8, &[9]))]),
            BADVERS,
            false,
        ),
        ("twice", with(&[opt(0, &[]), opt(0, &[])]), FORMERR, false),
        ("an option cut off", with(&[opt(0, torn)]), FORMERR, false),
        ("an option's head cut off", with(&[opt(0, &[0, 8, 0])]), FORMERR, false),
        ("longer than the message", with(&[longer]), FORMERR, false),
        ("no question", message(RD, &[], &[opt(0, &[])]), FORMERR, false),
        ("an opcode that nobody knows", message(15 << 11, &plain(), &[opt(0, &[])]), NOTIMP, false),
        ("the same, malformed", message(15 << 11, &plain(), &[opt(0, torn)]), NOTIMP, false),
    ];
    for (what, query, code, dnssec_ok) in with_edns {
        for transport in [Transport::Udp, Transport::Tcp] {
            let said = say(&rig, query, transport);
            let opt = Some(Told { dnssec_ok: *dnssec_ok, subnet: None });
            assert_eq!((said.code, said.opt), (*code, opt), "{what}");
        }
    }
}

/// RFC 7873, section 5.4.
#[test]
fn whoever_asks_for_nothing_but_a_cookie_gets_one() {
    let rig = rig();
    let query = |cookie: &[u8]| message(0, &[], &[opt(0, &option(10, cookie))]);
    let bytes = rig.raw(&query(&[3; 8]), Transport::Udp).unwrap();
    let answer = Message::from_vec(&bytes).unwrap();
    assert_eq!(answer.metadata.response_code, ResponseCode::NoError);
    assert!(answer.answers.is_empty() && answer.queries.is_empty());
    let cookie = option(10, &[3; 8]);
    assert!(
        bytes.windows(14).any(|part| part[..4] == [0, 10, 0, 24] && part[4..12] == cookie[4..])
    );
    assert_eq!(say(&rig, &query(&[3; 7]), Transport::Udp).code, FORMERR);
}
