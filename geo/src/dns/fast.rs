//! The common query by a short way: the address of a service, by UDP, with at most a cookie and a
//! client's network. Pure.
//!
//! What could be answered is made beforehand, by asking the long way ([`super::answer()`]); a query
//! then costs a look-up and a copy. Everything that is not plainly such a query goes the long way,
//! which a test holds this one equal to, byte for byte.

use std::net::IpAddr;

use super::{
    Context, Transport,
    answer::{UDP_MAX, UDP_PLAIN, answer},
    cookie::Shown,
};
use crate::{
    AllDown, Health, Region, RegionId, Settings, State, World,
    decide::{Chosen, choose, seeds},
    hash::Seed,
};

const HEADER: usize = 12;
/// A, AAAA and HTTPS (RFC 1035, 3596, 9460).
const KINDS: [u16; 3] = [1, 28, 65];
const IN: [u8; 2] = [0, 1];
const OPT: [u8; 2] = [0, 41];
const SUBNET: u16 = 8;
const COOKIE: u16 = 10;
/// An OPT record without options.
const OPT_LENGTH: usize = 11;
/// The largest name, as it stands in a message (RFC 1035, section 2.3.4).
const NAME_MAX: usize = 255;

/// Answers that are made beforehand.
#[derive(Debug, Default)]
pub(super) struct Prepared {
    /// By services' names as they stand in a message, in small letters and in order.
    services: Vec<(Box<[u8]>, Service)>,
}

#[derive(Debug)]
struct Service {
    /// What its draws begin with, of each region.
    seeds: Vec<Seed>,
    /// By kind, plain and signed, and by whose addresses: each region's, the fallback's, nobody's.
    sections: [[Vec<Section>; 2]; KINDS.len()],
}

/// What stands behind the question.
#[derive(Debug)]
struct Section {
    /// Records in it: answers and authorities.
    counts: [u8; 4],
    /// Owners point at the question's name, so that it fits behind every spelling of it; what names
    /// the zone points into it, and fits behind small letters alone.
    only_small: bool,
    records: Vec<u8>,
}

impl Prepared {
    /// All that the zone can answer with regions. `context` is what it will be answered with.
    pub(super) fn new(context: &Context<'_>) -> Self {
        let services = context.zone.services();
        let mut services: Vec<_> = services.filter_map(|name| prepare(&name, context)).collect();
        services.sort_by(|(one, _), (other, _)| one.cmp(other));
        Self { services }
    }

    /// Writes the answer to a query behind what is in `out`, and says whether the client is proven to
    /// be where it says it is; `None`, with nothing written, where the long way is to be gone.
    pub(super) fn answer(
        &self,
        query: &[u8],
        peer: IpAddr,
        context: &Context<'_>,
        out: &mut Vec<u8>,
    ) -> Option<bool> {
        let asked = Asked::read(query)?;
        let mut small = [0; NAME_MAX];
        let name = small.get_mut(..asked.name.len())?;
        name.copy_from_slice(asked.name);
        name.make_ascii_lowercase();
        let found = self.services.binary_search_by(|(wire, _)| (**wire).cmp(name)).ok()?;
        let (_, service) = &self.services[found];
        let edns = asked.edns;
        let signed = usize::from(edns.is_some_and(|edns| edns.dnssec_ok));
        let subnet = edns.and_then(|edns| edns.subnet);
        let address = subnet.and_then(|subnet| subnet.address).unwrap_or(peer);
        let (chosen, scope) = choose(&service.seeds, address, context.world);
        let sections = &service.sections[asked.kind][signed];
        let section = sections.get(match chosen {
            Chosen::Region(at) => at,
            Chosen::Fallback => sections.len() - 2,
            Chosen::Nothing => sections.len() - 1,
        })?;
        if section.only_small && name != asked.name {
            return None;
        }
        let shown = edns.and_then(|edns| edns.cookie);
        let shown = shown.map(|cookie| context.secret.read(cookie, peer, context.now));
        let cookie = match shown {
            Some(Shown::Malformed) => return None,
            Some(Shown::Client(client) | Shown::Ours(client)) => Some(client),
            None => None,
        };
        let start = out.len();
        // The id, that it is a response with authority, and whether recursion was wished for.
        out.extend([query[0], query[1], 0x84 | query[2] & 1, 0, 0, 1]);
        out.extend(section.counts);
        out.extend([0, u8::from(edns.is_some())]);
        out.extend(&query[HEADER..asked.question_end]);
        out.extend(&section.records);
        if let Some(edns) = edns {
            let flags = if edns.dnssec_ok { 0x80 } else { 0 };
            let [high, low] = UDP_MAX.to_be_bytes();
            out.extend([0, OPT[0], OPT[1], high, low, 0, 0, flags, 0, 0, 0]);
            let options = out.len();
            if let Some(client) = cookie {
                put(out, COOKIE, &context.secret.bake(client, peer, context.now));
            }
            if let Some(subnet) = subnet {
                let scope = if subnet.address.is_some() { scope } else { 0 };
                put(out, SUBNET, subnet.option);
                let at = out.len() - subnet.option.len() + 3;
                out[at] = scope;
            }
            let length = u16::try_from(out.len() - options).unwrap_or(u16::MAX);
            out[options - 2..options].copy_from_slice(&length.to_be_bytes());
        }
        let limit = edns.map_or(UDP_PLAIN, |edns| edns.payload.clamp(UDP_PLAIN, UDP_MAX));
        if out.len() - start > usize::from(limit) {
            out.truncate(start);
            return None;
        }
        Some(matches!(shown, Some(Shown::Ours(_))))
    }
}

fn put(out: &mut Vec<u8>, code: u16, data: &[u8]) {
    out.extend(code.to_be_bytes());
    out.extend(u16::try_from(data.len()).unwrap_or(u16::MAX).to_be_bytes());
    out.extend(data);
}

/// A query that this way is for.
struct Asked<'a> {
    name: &'a [u8],
    /// Its place in [`KINDS`].
    kind: usize,
    question_end: usize,
    edns: Option<Edns<'a>>,
}

#[derive(Clone, Copy)]
struct Edns<'a> {
    payload: u16,
    dnssec_ok: bool,
    subnet: Option<Subnet<'a>>,
    cookie: Option<&'a [u8]>,
}

#[derive(Clone, Copy)]
struct Subnet<'a> {
    option: &'a [u8],
    /// `None` where the client would rather not be known (RFC 7871, section 7.1.2).
    address: Option<IpAddr>,
}

impl<'a> Asked<'a> {
    /// `None` for every query that is not plainly of this kind.
    fn read(query: &'a [u8]) -> Option<Self> {
        // A standard query, not cut, with one question and no record but, perhaps, an OPT.
        let plain = query.get(2)? & 0xfe == 0 && query.get(4..11)? == [0, 1, 0, 0, 0, 0, 0];
        let additional = *query.get(11)?;
        if !plain || additional > 1 {
            return None;
        }
        let mut at = HEADER;
        loop {
            match *query.get(at)? {
                0 => break,
                length @ 1..=63 => at += 1 + usize::from(length),
                _ => return None,
            }
        }
        at += 1;
        let name = query.get(HEADER..at)?;
        let [high, low] = *query.get(at..at + 2)?.first_chunk()?;
        let asked = u16::from_be_bytes([high, low]);
        let kind = KINDS.iter().position(|kind| *kind == asked)?;
        if query.get(at + 2..at + 4)? != IN {
            return None;
        }
        let question_end = at + 4;
        let rest = &query[question_end..];
        let edns = match additional {
            0 if rest.is_empty() => None,
            0 => return None,
            _ => Some(Edns::read(rest)?),
        };
        Some(Self { name, kind, question_end, edns })
    }
}

impl<'a> Edns<'a> {
    fn read(record: &'a [u8]) -> Option<Self> {
        let head: &[u8; OPT_LENGTH] = record.first_chunk()?;
        let mut rest = &record[OPT_LENGTH..];
        // The root's, without an extended code, of version 0, with no flag but DO.
        let plain = head[..3] == [0, OPT[0], OPT[1]]
            && head[5..7] == [0, 0]
            && head[7] & 0x7f == 0
            && head[8] == 0
            && usize::from(u16::from_be_bytes([head[9], head[10]])) == rest.len();
        if !plain {
            return None;
        }
        let payload = u16::from_be_bytes([head[3], head[4]]);
        let mut edns = Self { payload, dnssec_ok: head[7] != 0, subnet: None, cookie: None };
        while !rest.is_empty() {
            let [a, b, c, d] = *rest.first_chunk()?;
            let length = usize::from(u16::from_be_bytes([c, d]));
            let data = rest.get(4..4 + length)?;
            rest = &rest[4 + length..];
            match u16::from_be_bytes([a, b]) {
                SUBNET if edns.subnet.is_none() => edns.subnet = Some(Subnet::read(data)?),
                COOKIE if edns.cookie.is_none() => edns.cookie = Some(data),
                _ => return None,
            }
        }
        Some(edns)
    }
}

impl<'a> Subnet<'a> {
    /// RFC 7871, section 6; `None` where anything is wrong with it.
    fn read(option: &'a [u8]) -> Option<Self> {
        let (head, given) = option.split_first_chunk::<4>()?;
        let [0, family, source, 0] = *head else { return None };
        let mut bytes = [0; 16];
        let bits = match family {
            1 => 32,
            2 => 128,
            _ => return None,
        };
        if source > bits || given.len() != usize::from(source).div_ceil(8) {
            return None;
        }
        bytes[..given.len()].copy_from_slice(given);
        let behind = usize::from(source % 8);
        if behind != 0 && given.last()? << behind != 0 {
            return None;
        }
        let [a, b, c, d, ..] = bytes;
        let address = match family {
            1 => IpAddr::from([a, b, c, d]),
            _ => IpAddr::from(bytes),
        };
        // An IPv4 address in IPv6 has a scope of its own.
        if address.to_canonical() != address {
            return None;
        }
        Some(Self { option, address: (source > 0).then_some(address) })
    }
}

/// A service's name as it stands in a message, and all that it can be answered with.
fn prepare(name: &str, context: &Context<'_>) -> Option<(Box<[u8]>, Service)> {
    let wire = wire_name(name)?;
    let section = |kind, signed, addresses: &[IpAddr]| -> Option<Section> {
        let query = query(&wire, kind, signed);
        let world = single(addresses);
        let alone = Context { world: &world, ..*context };
        let told = answer(&query, IpAddr::from([0, 0, 0, 0]), Transport::Tcp, &alone)?.bytes;
        let end = told.len() - if signed { OPT_LENGTH } else { 0 };
        let records = told.get(HEADER + wire.len() + 4..end)?.to_vec();
        let counts = *told.get(6..10)?.first_chunk()?;
        Some(Section { counts, only_small: counts[2..] != [0, 0], records })
    };
    let world = context.world;
    let fallback = match &world.settings().all_down {
        AllDown::Fallback(addresses) => addresses.as_slice(),
        AllDown::Nearest | AllDown::NoData => &[],
    };
    let mut sections: [[Vec<Section>; 2]; KINDS.len()] = Default::default();
    for (kind, sections) in KINDS.into_iter().zip(&mut sections) {
        for (signed, sections) in [false, true].into_iter().zip(sections) {
            for region in world.regions() {
                sections.push(section(kind, signed, &region.addresses)?);
            }
            sections.push(section(kind, signed, fallback)?);
            sections.push(section(kind, signed, &[])?);
        }
    }
    Some((wire, Service { seeds: seeds(name, world), sections }))
}

/// A world in which these addresses are the answer.
fn single(addresses: &[IpAddr]) -> World {
    let region = Region {
        id: RegionId::new("only").expect("letters"),
        place: None,
        addresses: addresses.to_vec(),
        weight: 1.0,
        bias: 0.0,
        drained: false,
    };
    let settings =
        Settings { alike_km: 0.0, all_down: AllDown::Nearest, overrides: Vec::new(), home: None };
    let world = World::new(vec![region], settings, None, None);
    world
        .expect("one region, no override")
        .with_states(vec![State { health: Health::Up, ..State::default() }])
}

/// Labels, each behind its length; `None` where it is no name.
fn wire_name(name: &str) -> Option<Box<[u8]>> {
    let mut wire = Vec::new();
    for label in name.trim_end_matches('.').split('.') {
        wire.push(u8::try_from(label.len()).ok().filter(|length| (1..=63).contains(length))?);
        wire.extend(label.bytes().map(|byte| byte.to_ascii_lowercase()));
    }
    wire.push(0);
    (wire.len() <= NAME_MAX).then(|| wire.into())
}

fn query(name: &[u8], kind: u16, signed: bool) -> Vec<u8> {
    let mut query = vec![0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, u8::from(signed)];
    query.extend(name);
    query.extend(kind.to_be_bytes());
    query.extend(IN);
    if signed {
        query.extend([0, OPT[0], OPT[1], 255, 255, 0, 0, 0x80, 0, 0, 0]);
    }
    query
}

#[cfg(test)]
mod tests;
