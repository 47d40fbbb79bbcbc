//! A query to its answer. Pure.
//!
//! Every query gets one: a mistake its code, what this server does not do `NOTIMP` or `REFUSED`.
//! Only what could make two servers answer each other for ever, a response, gets nothing.

mod proof;

use std::net::IpAddr;

use hickory_proto::{
    op::{Edns, Message, MessageType, OpCode, ResponseCode},
    rr::{
        DNSClass, LowerName, RData, Record, RecordType,
        rdata::{
            HINFO, HTTPS, SVCB,
            opt::{ClientSubnet, EdnsCode, EdnsOption},
            svcb::{Alpn, IpHint, SvcParamKey, SvcParamValue},
        },
    },
};

use super::{
    Zone,
    cookie::{Secret, Shown},
    dnssec::{Asker, NXNAME, Signer},
    opt::Opt,
};
use crate::{Query, Source, World, decide};
use proof::Proof;

/// How a query came, which limits its answer's size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// What does not fit into the size that the client names, or 1,232 bytes, is cut (RFC 9715).
    Udp,
    /// Up to 65,535 bytes.
    Tcp,
}

/// The largest UDP answer: it fits into one packet on every path.
pub(super) const UDP_MAX: u16 = 1232;
/// Where a client names no size (RFC 1035, section 4.2.1).
pub(super) const UDP_PLAIN: u16 = 512;
const HEADER: usize = 12;
/// The EDNS flag CO, compact answers OK (RFC 9824, section 5.1), among those beside DO.
const COMPACT_OK: u16 = 0x4000;
/// The EDNS option of extended errors (RFC 8914).
const EXTENDED_ERROR: u16 = 15;
/// "Invalid Query Type".
const INVALID_TYPE: (u16, &str) = (30, "");

/// What is answered with.
#[derive(Debug, Clone, Copy)]
pub struct Context<'a> {
    /// What is in the zone beside the regions.
    pub zone: &'a Zone,
    /// The regions.
    pub world: &'a World,
    /// For cookies.
    pub secret: &'a Secret,
    /// What signs the zone, where it is signed.
    pub signer: Option<&'a Signer>,
    /// Unix seconds; they wrap.
    pub now: u32,
}

/// An answer, and what is known of who gets it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// To send.
    pub bytes: Vec<u8>,
    /// Whether the client showed a cookie of ours: it is where it says it is.
    pub proven: bool,
}

/// The answer to the query in `bytes`, which came from `peer`; `None` where there must be none.
#[must_use]
pub fn answer(
    bytes: &[u8],
    peer: IpAddr,
    transport: Transport,
    context: &Context<'_>,
) -> Option<Answer> {
    // Without an id nothing can be answered, and a response must not be.
    if bytes.len() < HEADER || bytes[2] & 0x80 != 0 {
        return None;
    }
    let opt = Opt::find(bytes);
    let reply = match Message::from_vec(bytes) {
        Ok(query) if opt.is_none_or(|opt| opt.is_well_formed()) => {
            reply(&query, (peer, transport), context)
        }
        _undecodable => malformed(bytes, opt),
    };
    let proven = reply.proven;
    Some(Answer { bytes: encode(reply, transport)?, proven })
}

/// An answer, and the most bytes that the client takes by UDP.
struct Reply {
    message: Message,
    udp: u16,
    proven: bool,
}

/// What could not be read: the id, what was asked to do and whether there was an OPT record, which
/// the answer then has too (RFC 6891, section 7), are all that is known.
fn malformed(bytes: &[u8], opt: Option<Opt<'_>>) -> Reply {
    let id = u16::from_be_bytes([bytes[0], bytes[1]]);
    let op_code = OpCode::from_u8((bytes[2] >> 3) & 0xf);
    let code = match op_code {
        OpCode::Query if opt.is_some_and(|opt| opt.version != 0) => ResponseCode::BADVERS,
        OpCode::Query => ResponseCode::FormErr,
        _ => ResponseCode::NotImp,
    };
    let mut message = Message::error_msg(id, op_code, code);
    message.edns = opt.map(|opt| {
        let mut edns = Edns::new();
        edns.set_max_payload(UDP_MAX);
        edns.set_dnssec_ok(opt.dnssec_ok);
        edns.set_rcode_high(code.high());
        edns
    });
    message.metadata.recursion_desired = bytes[2] & 1 != 0;
    Reply { message, udp: UDP_PLAIN, proven: false }
}

fn reply(query: &Message, (peer, transport): (IpAddr, Transport), context: &Context<'_>) -> Reply {
    let mut message = Message::response(query.metadata.id, query.metadata.op_code);
    message.metadata.recursion_desired = query.metadata.recursion_desired;
    message.queries.clone_from(&query.queries);
    let mut udp = UDP_PLAIN;
    let mut edns = query.edns.as_ref().map(|asked| {
        udp = asked.max_payload().clamp(UDP_PLAIN, UDP_MAX);
        let mut edns = Edns::new();
        edns.set_max_payload(UDP_MAX);
        edns.set_dnssec_ok(asked.flags().dnssec_ok);
        edns
    });
    let shown = query.edns.as_ref().and_then(|edns| match edns.option(EdnsCode::Cookie) {
        Some(EdnsOption::Unknown(_, cookie)) => {
            Some(context.secret.read(cookie, peer, context.now))
        }
        _ => None,
    });
    if let (Some(Shown::Client(client) | Shown::Ours(client)), Some(edns)) = (&shown, &mut edns) {
        let cookie = context.secret.bake(*client, peer, context.now);
        let code = EdnsCode::Cookie.into();
        edns.options_mut().insert(EdnsOption::Unknown(code, cookie));
    }
    let code = match judge(query) {
        _ if shown == Some(Shown::Malformed) => ResponseCode::FormErr,
        // RFC 7873, section 5.4: whoever asks nothing asks for a cookie.
        Err(ResponseCode::FormErr) if query.queries.is_empty() && shown.is_some() => {
            ResponseCode::NoError
        }
        Err(code) => code,
        Ok(subnet) => {
            let mut found = look_up(query, (peer, subnet), context);
            if let (Some(signer), Some(edns)) = (context.signer, &mut edns)
                && edns.flags().dnssec_ok
            {
                let asked = query.edns.as_ref().map_or(0, |edns| edns.flags().z);
                let compact_ok = asked & COMPACT_OK != 0;
                edns.flags_mut().z |= asked & COMPACT_OK;
                let asker = match (transport, &shown) {
                    (Transport::Tcp, _) | (_, Some(Shown::Ours(_))) => Asker::Proven,
                    _ => Asker::Unproven,
                };
                let proof = Proof { signer, transport, asker, compact_ok, now: context.now };
                found = proof.of(found, &query.queries[0]);
            }
            message.metadata.truncation = found.truncated;
            message.answers = found.answers;
            message.authorities = found.authorities;
            if let (Some(subnet), Some(edns)) = (subnet, &mut edns) {
                // RFC 7871, section 7.2.1: as it came, with how far the answer holds.
                let scope = if subnet.source_prefix() == 0 { 0 } else { found.scope };
                let told = ClientSubnet::new(subnet.addr(), subnet.source_prefix(), scope);
                edns.options_mut().insert(EdnsOption::Subnet(told));
            }
            if let (Some((code, why)), Some(edns)) = (found.extended, &mut edns) {
                let told = [code.to_be_bytes().as_slice(), why.as_bytes()].concat();
                edns.options_mut().insert(EdnsOption::Unknown(EXTENDED_ERROR, told));
            }
            message.metadata.authoritative =
                matches!(found.code, ResponseCode::NoError | ResponseCode::NXDomain);
            found.code
        }
    };
    message.metadata.response_code = code;
    if let Some(edns) = &mut edns {
        edns.set_rcode_high(code.high());
    }
    message.edns = edns;
    Reply { message, udp, proven: matches!(shown, Some(Shown::Ours(_))) }
}

/// Whether a query is one that is answered; the client's network, where it names one.
fn judge(query: &Message) -> Result<Option<ClientSubnet>, ResponseCode> {
    if query.metadata.message_type != MessageType::Query || query.metadata.op_code != OpCode::Query
    {
        return Err(ResponseCode::NotImp);
    }
    if query.edns.as_ref().is_some_and(|edns| edns.version() != 0) {
        return Err(ResponseCode::BADVERS);
    }
    if query.queries.len() != 1 {
        return Err(ResponseCode::FormErr);
    }
    let Some(edns) = &query.edns else { return Ok(None) };
    let subnets: Vec<ClientSubnet> = edns
        .options()
        .get_all(EdnsCode::Subnet)
        .into_iter()
        .filter_map(|option| match option {
            EdnsOption::Subnet(subnet) => Some(*subnet),
            _ => None,
        })
        .collect();
    match subnets.as_slice() {
        [] => Ok(None),
        [subnet] if is_proper(subnet) => Ok(Some(*subnet)),
        // Of two networks neither is the client's.
        _ => Err(ResponseCode::FormErr),
    }
}

/// RFC 7871, sections 6 and 7.1.2: no scope in a query, no bits behind the prefix.
fn is_proper(subnet: &ClientSubnet) -> bool {
    let source = subnet.source_prefix();
    let nothing_behind = match subnet.addr() {
        IpAddr::V4(v4) => {
            source <= 32 && u32::from(v4).checked_shl(source.into()).unwrap_or(0) == 0
        }
        IpAddr::V6(v6) => {
            source <= 128 && u128::from(v6).checked_shl(source.into()).unwrap_or(0) == 0
        }
    };
    subnet.scope_prefix() == 0 && nothing_behind
}

#[derive(Default)]
struct Found {
    code: ResponseCode,
    answers: Vec<Record>,
    authorities: Vec<Record>,
    /// Bits of the client's address for which the same is answered.
    scope: u8,
    /// Whether the answer is by TCP only.
    truncated: bool,
    /// What is wrong, more exactly.
    extended: Option<(u16, &'static str)>,
}

fn look_up(
    query: &Message,
    (peer, subnet): (IpAddr, Option<ClientSubnet>),
    context: &Context<'_>,
) -> Found {
    let zone = context.zone;
    let question = &query.queries[0];
    let name = LowerName::new(question.name());
    let refused = Found { code: ResponseCode::Refused, ..Found::default() };
    if question.query_class() != DNSClass::IN || !zone.origin.zone_of(&name) {
        return refused;
    }
    let asked = question.query_type();
    if matches!(asked, RecordType::AXFR | RecordType::IXFR) {
        return refused;
    }
    if asked == NXNAME && context.signer.is_some() {
        // RFC 9824, section 3.5: it stands in denials, and is nowhere.
        let code = ResponseCode::FormErr;
        return Found { code, extended: Some(INVALID_TYPE), ..Found::default() };
    }
    let nothing = Found { authorities: vec![zone.soa.clone()], ..Found::default() };
    if !zone.exists(&name) {
        return Found { code: ResponseCode::NXDomain, ..nothing };
    }
    let owner = question.name();
    let record = |ttl, data| Record::from_rdata(owner.clone(), ttl, data);
    if asked == RecordType::ANY {
        // RFC 8482, section 4.2: something, and not everything.
        let answers = vec![record(zone.ttl, hint())];
        return Found { answers, ..Found::default() };
    }
    if name == zone.origin && asked == RecordType::SOA {
        return Found { answers: vec![zone.soa.clone()], ..Found::default() };
    }
    if name == zone.origin && asked == RecordType::NS {
        return Found { answers: zone.name_servers.clone(), ..Found::default() };
    }
    if let (true, RecordType::DNSKEY, Some(signer)) = (name == zone.origin, asked, context.signer) {
        return Found { answers: signer.dnskeys().to_vec(), ..Found::default() };
    }
    let by_region = matches!(asked, RecordType::A | RecordType::AAAA | RecordType::HTTPS);
    if !(by_region && zone.is_service(&name)) {
        return nothing;
    }
    let (address, source) = match subnet {
        Some(subnet) if subnet.source_prefix() > 0 => (subnet.addr(), Source::ClientSubnet),
        _ => (peer, Source::Resolver),
    };
    let service = name.to_string();
    let decision = decide(&Query { service: &service, address, source }, context.world);
    let answers = records(asked, &decision.answers).map(|data| record(zone.ttl, data));
    let answers: Vec<Record> = answers.collect();
    let authorities = if answers.is_empty() { vec![zone.soa.clone()] } else { Vec::new() };
    let scope = match address {
        // An IPv4 address that is written as one of IPv6 has 96 bits before it.
        IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some() => decision.scope + 96,
        _ => decision.scope,
    };
    Found { answers, authorities, scope, ..Found::default() }
}

/// What ANY is answered with.
pub(super) fn hint() -> RData {
    RData::HINFO(HINFO::new("RFC8482".to_owned(), String::new()))
}

/// What a region's addresses are as records of a type.
pub(super) fn records(asked: RecordType, addresses: &[IpAddr]) -> impl Iterator<Item = RData> {
    let https = (asked == RecordType::HTTPS && !addresses.is_empty()).then(|| https(addresses));
    let plain = addresses.iter().filter_map(move |address| match (asked, address) {
        (RecordType::A, IpAddr::V4(v4)) => Some(RData::A((*v4).into())),
        (RecordType::AAAA, IpAddr::V6(v6)) => Some(RData::AAAA((*v6).into())),
        _ => None,
    });
    plain.chain(https)
}

/// RFC 9460: the service speaks HTTP/2, and here is where, without another question.
fn https(addresses: &[IpAddr]) -> RData {
    let v4 = addresses.iter().filter_map(|address| match address {
        IpAddr::V4(v4) => Some((*v4).into()),
        IpAddr::V6(_) => None,
    });
    let v6 = addresses.iter().filter_map(|address| match address {
        IpAddr::V6(v6) => Some((*v6).into()),
        IpAddr::V4(_) => None,
    });
    let (v4, v6): (Vec<_>, Vec<_>) = (v4.collect(), v6.collect());
    let alpn = Alpn(vec!["h2".to_owned(), "http/1.1".to_owned()]);
    let mut parameters = vec![(SvcParamKey::Alpn, SvcParamValue::Alpn(alpn))];
    if !v4.is_empty() {
        parameters.push((SvcParamKey::Ipv4Hint, SvcParamValue::Ipv4Hint(IpHint(v4))));
    }
    if !v6.is_empty() {
        parameters.push((SvcParamKey::Ipv6Hint, SvcParamValue::Ipv6Hint(IpHint(v6))));
    }
    RData::HTTPS(HTTPS(SVCB::new(1, hickory_proto::rr::Name::root(), parameters)))
}

/// The bytes; cut, and marked as cut, where they are too many.
fn encode(reply: Reply, transport: Transport) -> Option<Vec<u8>> {
    let limit = match transport {
        Transport::Udp => usize::from(reply.udp),
        Transport::Tcp => usize::from(u16::MAX),
    };
    let bytes = reply.message.to_vec().ok()?;
    if bytes.len() <= limit {
        return Some(bytes);
    }
    reply.message.truncate().to_vec().ok().filter(|bytes| bytes.len() <= limit)
}

/// The same answer cut to its question, so that a client asks again by TCP.
pub(super) fn cut(bytes: &[u8]) -> Option<Vec<u8>> {
    Message::from_vec(bytes).ok()?.truncate().to_vec().ok()
}

#[cfg(test)]
mod matrix;
#[cfg(test)]
mod robust;
#[cfg(test)]
pub(super) mod tests;
