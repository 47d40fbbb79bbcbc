//! Addresses to values, through prefixes that do not overlap. Pure.
//!
//! Networks of a database, with what an operator lays over them, become a partition of all
//! addresses into the largest prefixes whose addresses all have the same value. So a look-up is one
//! binary search, and the prefix it ends in is as far as its answer holds: an exact scope for
//! RFC 7871, section 7.2.1, where no scope may lie inside another.

use std::{collections::BTreeMap, net::IpAddr};

use ipnet::IpNet;

/// A value by address; the numbers are the caller's.
pub(crate) type Value = u32;

/// One family's addresses as numbers from 0.
type Number = u128;

/// A partition being made: where values change.
#[derive(Debug, Clone)]
struct Family {
    bits: u8,
    /// The value from each address on. Always one at 0.
    changes: BTreeMap<Number, Value>,
}

impl Family {
    fn new(bits: u8, value: Value) -> Self {
        Self { bits, changes: BTreeMap::from([(0, value)]) }
    }

    fn at(&self, address: Number) -> Value {
        self.changes.range(..=address).next_back().map_or(0, |(_, value)| *value)
    }

    fn set(&mut self, start: Number, bits: u8, value: Value) {
        let end = start | host_mask(self.bits, bits);
        let all = host_mask(self.bits, 0);
        if end < all {
            let after = self.at(end + 1);
            self.changes.insert(end + 1, after);
        }
        // In the order of a database this is rarely more than nothing.
        let inside: Vec<Number> = self.changes.range(start..=end).map(|(at, _)| *at).collect();
        for at in inside {
            self.changes.remove(&at);
        }
        self.changes.insert(start, value);
    }

    fn build(&self) -> Leaves {
        let mut leaves = Leaves { family_bits: self.bits, ..Leaves::default() };
        let all = host_mask(self.bits, 0);
        let mut changes = self.changes.iter().peekable();
        while let Some((start, value)) = changes.next() {
            // Equal neighbours are one.
            while changes.next_if(|(_, next)| *next == value).is_some() {}
            let end = changes.peek().map_or(all, |(next, _)| **next - 1);
            leaves.push_range(*start, end, *value);
        }
        leaves.make_index();
        leaves
    }
}

/// The bits that vary within a prefix of `bits` in a family of `family` bits.
fn host_mask(family: u8, bits: u8) -> Number {
    let rest = u32::from(family - bits);
    if rest == 128 { Number::MAX } else { (1 << rest) - 1 }
}

/// One family's finished partition.
#[derive(Debug, Clone, Default)]
struct Leaves {
    family_bits: u8,
    /// Where each leaf starts, rising.
    starts: Vec<Number>,
    /// Its prefix length and value.
    leaves: Vec<(u8, Value)>,
    /// By an address's first bits: how many leaves start before all addresses that have them. A
    /// look-up then searches a few leaves, not all.
    index: Vec<u32>,
}

/// Bits of an address that the index goes by.
const INDEX_BITS: u8 = 16;

impl Leaves {
    /// The fewest aligned prefixes that make up a range.
    fn push_range(&mut self, mut start: Number, end: Number, value: Value) {
        loop {
            let aligned = start.trailing_zeros().min(u32::from(self.family_bits));
            let mut host = aligned;
            // The largest block that starts here and does not pass the end.
            while host > 0
                && (if host == 128 { Number::MAX } else { (1 << host) - 1 }) > end - start
            {
                host -= 1;
            }
            let bits = self.family_bits - u8::try_from(host).unwrap_or(0);
            self.starts.push(start);
            self.leaves.push((bits, value));
            let last = start | host_mask(self.family_bits, bits);
            if last >= end {
                return;
            }
            start = last + 1;
        }
    }

    fn top(&self, address: Number) -> usize {
        usize::try_from(address >> (self.family_bits - INDEX_BITS)).unwrap_or(usize::MAX)
    }

    fn make_index(&mut self) {
        let mut index = vec![0; (1 << INDEX_BITS) + 1];
        for start in &self.starts {
            index[self.top(*start) + 1] += 1;
        }
        let mut before = 0;
        for count in &mut index {
            before += *count;
            *count = before;
        }
        self.index = index;
    }

    fn find(&self, address: Number) -> (u8, Value) {
        let top = self.top(address);
        let (from, to) = (self.index[top] as usize, self.index[top + 1] as usize);
        let within = self.starts[from..to].partition_point(|start| *start <= address);
        self.leaves[from + within - 1]
    }
}

/// A table being made.
#[derive(Debug, Clone)]
pub(crate) struct Builder {
    v4: Family,
    v6: Family,
}

impl Builder {
    /// A table in which every address has `value`.
    #[must_use]
    pub(crate) fn new(value: Value) -> Self {
        Self { v4: Family::new(32, value), v6: Family::new(128, value) }
    }

    /// Gives all addresses of `network` this value, whatever they had. Lay more specific networks
    /// over less specific ones, not the other way round.
    pub(crate) fn set(&mut self, network: IpNet, value: Value) {
        match network {
            IpNet::V4(v4) => {
                let start = Number::from(u32::from(v4.network()));
                self.v4.set(start, v4.prefix_len(), value);
            }
            IpNet::V6(v6) => self.v6.set(u128::from(v6.network()), v6.prefix_len(), value),
        }
    }

    /// The value that an address has so far.
    #[cfg(test)]
    pub(crate) fn at(&self, address: IpAddr) -> Value {
        match address.to_canonical() {
            IpAddr::V4(v4) => self.v4.at(u32::from(v4).into()),
            IpAddr::V6(v6) => self.v6.at(v6.into()),
        }
    }

    /// The finished table, with each value replaced by what `class` says of it.
    #[must_use]
    pub(crate) fn build(&self, class: impl Fn(Value) -> Value) -> Table {
        let mapped = |family: &Family| {
            let changes = family.changes.iter().map(|(at, value)| (*at, class(*value))).collect();
            Family { bits: family.bits, changes }.build()
        };
        Table { v4: mapped(&self.v4), v6: mapped(&self.v6) }
    }
}

/// Values by address.
#[derive(Debug, Clone)]
pub(crate) struct Table {
    v4: Leaves,
    v6: Leaves,
}

/// What a look-up found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Found {
    /// What the address has.
    pub(crate) value: Value,
    /// The prefix length of the addresses around it that have the same; of its own family.
    pub(crate) bits: u8,
}

impl Table {
    /// The value of an address. An IPv4 address mapped into IPv6 is an IPv4 address.
    #[must_use]
    pub(crate) fn find(&self, address: IpAddr) -> Found {
        let (bits, value) = match address.to_canonical() {
            IpAddr::V4(v4) => self.v4.find(u32::from(v4).into()),
            IpAddr::V6(v6) => self.v6.find(v6.into()),
        };
        Found { value, bits }
    }

    /// Where prefixes start, as numbers, in rising order: of IPv6, or of IPv4.
    pub(crate) fn starts(&self, v6: bool) -> &[u128] {
        if v6 { &self.v6.starts } else { &self.v4.starts }
    }

    /// Every leaf: its first address, its prefix length and its value.
    #[cfg(test)]
    pub(crate) fn leaves(&self) -> impl Iterator<Item = (IpAddr, Found)> {
        let v4 = self.v4.starts.iter().zip(&self.v4.leaves).map(|(start, (bits, value))| {
            let address = u32::try_from(*start).unwrap_or(u32::MAX);
            (IpAddr::V4(address.into()), Found { value: *value, bits: *bits })
        });
        let v6 = self.v6.starts.iter().zip(&self.v6.leaves).map(|(start, (bits, value))| {
            (IpAddr::V6((*start).into()), Found { value: *value, bits: *bits })
        });
        v4.chain(v6)
    }
}

#[cfg(test)]
mod tests;
