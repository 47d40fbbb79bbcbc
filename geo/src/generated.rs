//! A database of more than a million networks, for tests and the benchmark: real prefixes at
//! made-up places.
//!
//! The prefixes are those of a list of ranges by country, as Tor distributes it (`tor-geoipdb`),
//! some of them halved further; each has one of some dozen places of its country. The same lists
//! give the same file. Nothing of it is committed, and nothing that is released uses it.

use std::{collections::HashMap, net::IpAddr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// A database and what is in it.
pub(crate) struct Generated {
    /// The file.
    pub(crate) bytes: Vec<u8>,
    /// Its networks, all of which have a place, as the lists have them.
    pub(crate) networks: Vec<IpNet>,
    /// How many places there are.
    #[cfg_attr(not(test), expect(dead_code, reason = "the benchmark does not ask"))]
    pub(crate) places: usize,
}

impl Generated {
    /// Client networks that resolvers might name, `count` of each family, each all inside one of
    /// the database's: mostly of the usual length, some single addresses, some as long as that is.
    pub(crate) fn prefixes(&self, count: usize) -> Vec<IpNet> {
        let (v4, v6): (Vec<IpNet>, Vec<IpNet>) =
            self.networks.iter().partition(|network| matches!(network, IpNet::V4(_)));
        let draw = |number: usize, part: u8| mixed(number as u128 | u128::from(part) << 64);
        let mut prefixes = Vec::new();
        for (family, whole, usual) in [(v4, 32, 24), (v6, 128, 56)] {
            for at in 0..count {
                let index = draw(at, whole) % family.len() as u64;
                let network = family[usize::try_from(index).expect("below a length")];
                let bits = match at % 8 {
                    0 => whole,
                    1 => network.prefix_len(),
                    _ => usual,
                };
                let host = u128::from(draw(at, 1)) << 64 | u128::from(draw(at, 2));
                let host = host.checked_shr(128 - u32::from(whole - network.prefix_len()));
                let host = host.unwrap_or(0);
                let address = match network.network() {
                    IpAddr::V4(v4) => {
                        let host = u32::try_from(host).expect("no more bits than the network has");
                        IpAddr::V4((u32::from(v4) | host).into())
                    }
                    IpAddr::V6(v6) => IpAddr::V6((u128::from(v6) | host).into()),
                };
                let bits = bits.max(network.prefix_len());
                let prefix = IpNet::new(address, bits).expect("no longer than its family");
                prefixes.push(prefix.trunc());
            }
        }
        prefixes
    }
}

/// Places of a country.
const SLOTS: u64 = 64;

/// The database of the networks of two lists, `place` being where a country's people live.
pub(crate) fn database(
    (v4, v6): (&str, &str),
    place: impl Fn(&str) -> Option<(f64, f64)>,
) -> Generated {
    let (mut tree, mut data, mut networks) = (Tree::default(), Vec::new(), Vec::new());
    let mut known = HashMap::new();
    let lines = v4.lines().chain(v6.lines()).filter(|line| !line.starts_with('#'));
    for line in lines {
        let fields: Vec<&str> = line.split(',').collect();
        let [first, last, country] = fields.as_slice() else { continue };
        let (Some(range), Some(middle)) = (Range::read(first, last), place(country)) else {
            continue;
        };
        range.networks(|first, bits, family| {
            let salt = first ^ u128::from(bits) << 120;
            let slot = mixed(salt) % SLOTS;
            let at = *known.entry(((*country).to_owned(), slot)).or_insert_with(|| {
                let at = data.len();
                data.extend(record(country, near(middle, country, slot)));
                at
            });
            tree.insert(first, bits + if family == 32 { 96 } else { 0 }, at);
            networks.push(network(first, bits, family));
        });
    }
    let bytes = tree.file(&data);
    Generated { bytes, networks, places: known.len() }
}

fn network(first: u128, bits: u8, family: u8) -> IpNet {
    match family {
        32 => {
            let first = u32::try_from(first).expect("of 32 bits");
            IpNet::V4(Ipv4Net::new_assert(first.into(), bits))
        }
        _ => IpNet::V6(Ipv6Net::new_assert(first.into(), bits)),
    }
}

/// A line's range.
struct Range {
    first: u128,
    last: u128,
    family: u8,
}

impl Range {
    fn read(first: &str, last: &str) -> Option<Self> {
        if let (Ok(first), Ok(last)) = (first.parse::<u32>(), last.parse::<u32>()) {
            return Some(Self { first: first.into(), last: last.into(), family: 32 });
        }
        let number = |text: &str| match text.parse() {
            Ok(IpAddr::V6(address)) => Some(u128::from(address)),
            _ => None,
        };
        let range = Self { first: number(first)?, last: number(last)?, family: 128 };
        // Teredo and 6to4: their addresses are ways to write IPv4 addresses.
        let written = |of: u128, bits: u32| range.first >> (128 - bits) == of;
        (!written(0x2001_0000, 32) && !written(0x2002, 16)).then_some(range)
    }

    /// The fewest prefixes that make it up, and those halved by chance: `each(first, bits, family)`.
    fn networks(&self, mut each: impl FnMut(u128, u8, u8)) {
        let mut start = self.first;
        loop {
            let mut host = start.trailing_zeros().min(u32::from(self.family));
            while host > 0 && (1u128 << host) - 1 > self.last - start {
                host -= 1;
            }
            let bits = self.family - u8::try_from(host).expect("at most the family's");
            halve(start, bits, self.family, &mut each);
            match start.checked_add(1 << host) {
                Some(next) if next <= self.last => start = next,
                _ => return,
            }
        }
    }
}

/// Large networks always, of others some: what providers hand on is of every size.
fn halve(start: u128, bits: u8, family: u8, each: &mut impl FnMut(u128, u8, u8)) {
    let (whole, small, chance) = if family == 32 { (16, 24, 45) } else { (20, 48, 25) };
    let draw = mixed(start.wrapping_mul(0x9e37) ^ u128::from(bits)) % 100;
    if bits < small && (bits < whole || draw < chance) {
        halve(start, bits + 1, family, each);
        halve(start | 1 << (family - bits - 1), bits + 1, family, each);
    } else {
        each(start, bits, family);
    }
}

/// A place some hundred kilometres around `middle`, as exact as such databases are.
fn near((latitude, longitude): (f64, f64), country: &str, slot: u64) -> (f64, f64) {
    let name = country.bytes().fold(slot, |sum, byte| sum << 8 | u64::from(byte));
    let draw = mixed(name.into());
    // −5 to 5 degrees, and twice that.
    let part = |bits: u64| f64::from(u16::try_from(bits & 0xffff).expect("16 bits")) / 6553.5 - 5.0;
    let exact = |degrees: f64| (degrees * 10_000.0).round() / 10_000.0;
    let north = (latitude + part(draw)).clamp(-89.0, 89.0);
    let east = (longitude + 2.0 * part(draw >> 16)).clamp(-179.0, 179.0);
    (exact(north), exact(east))
}

/// Numbers without a pattern, the same every time (the finish of `splitmix64`).
fn mixed(number: u128) -> u64 {
    let low = u64::try_from(number & u128::from(u64::MAX)).expect("64 bits");
    let high = u64::try_from(number >> 64).expect("64 bits");
    let mut z = low ^ high.rotate_left(23) ^ 0x9e37_79b9_7f4a_7c15;
    z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ z >> 31
}

/// `{location: {latitude, longitude}, country: {iso_code}}`, as MaxMind has it.
fn record(country: &str, (latitude, longitude): (f64, f64)) -> Vec<u8> {
    let location = [
        [text("latitude"), double(latitude)].concat(),
        [text("longitude"), double(longitude)].concat(),
    ];
    let country = [[text("iso_code"), text(country)].concat()];
    map(&[[text("location"), map(&location)].concat(), [text("country"), map(&country)].concat()])
}

fn short(length: usize) -> u8 {
    u8::try_from(length).ok().filter(|length| *length < 29).expect("no longer in such a file")
}

fn map(pairs: &[Vec<u8>]) -> Vec<u8> {
    [vec![7 << 5 | short(pairs.len())], pairs.concat()].concat()
}

fn text(text: &str) -> Vec<u8> {
    [&[2 << 5 | short(text.len())], text.as_bytes()].concat()
}

fn double(number: f64) -> Vec<u8> {
    [&[3 << 5 | 8], number.to_be_bytes().as_slice()].concat()
}

/// A number of up to 16 bits (kind 5) or 32 (6).
fn number(kind: u8, number: u32) -> Vec<u8> {
    let size = if kind == 5 { 2 } else { 4 };
    [&[kind << 5 | size], &number.to_be_bytes()[4 - usize::from(size)..]].concat()
}

/// A binary tree over 128 bits, IPv4 in ::/96.
struct Tree {
    /// Two sides each: nothing (0), another node, or data (`DATA` and its place).
    nodes: Vec<[u32; 2]>,
}

const DATA: u32 = 1 << 31;

impl Default for Tree {
    fn default() -> Self {
        Self { nodes: vec![[0, 0]] }
    }
}

impl Tree {
    /// `bits` of `first` from the left, of 128; an IPv4 address has its 96 zeros before it.
    fn insert(&mut self, first: u128, bits: u8, data: usize) {
        let mut node = 0;
        for depth in 0..bits {
            let side = usize::from(first >> (127 - depth) & 1 == 1);
            let next = self.nodes[node][side];
            if depth + 1 == bits {
                self.nodes[node][side] = DATA | u32::try_from(data).expect("far fewer");
            } else if next == 0 {
                self.nodes.push([0, 0]);
                let new = self.nodes.len() - 1;
                self.nodes[node][side] = u32::try_from(new).expect("far fewer");
                node = new;
            } else {
                assert!(next & DATA == 0, "two networks overlap");
                node = next as usize;
            }
        }
    }

    /// The file with records of 28 bits, as a large one has them.
    fn file(&self, data: &[u8]) -> Vec<u8> {
        let count = u32::try_from(self.nodes.len()).expect("far fewer");
        let record = |side: u32| match side {
            0 => count,
            data if data & DATA != 0 => count + 16 + (data & !DATA),
            node => node,
        };
        let mut file = Vec::new();
        for [left, right] in &self.nodes {
            let (left, right) = (record(*left).to_be_bytes(), record(*right).to_be_bytes());
            file.extend(&left[1..]);
            file.push(left[0] << 4 | right[0] & 0xf);
            file.extend(&right[1..]);
        }
        file.extend([0; 16]);
        file.extend(data);
        file.extend(b"\xab\xcd\xefMaxMind.com");
        // Types 9 (a number of 64 bits) and 11 (a list) are extended: 7 and 2, 7 and 4.
        let epoch = [&[8, 2], 1_795_000_000u64.to_be_bytes().as_slice()].concat();
        let languages = [vec![1, 4], text("en")].concat();
        file.extend(map(&[
            [text("binary_format_major_version"), number(5, 2)].concat(),
            [text("binary_format_minor_version"), number(5, 0)].concat(),
            [text("build_epoch"), epoch].concat(),
            [text("database_type"), text("GeoIP2-City")].concat(),
            [text("description"), map(&[[text("en"), text("made up, for tests")].concat()])]
                .concat(),
            [text("ip_version"), number(5, 6)].concat(),
            [text("languages"), languages].concat(),
            [text("node_count"), number(6, count)].concat(),
            [text("record_size"), number(5, 28)].concat(),
        ]));
        file
    }
}
