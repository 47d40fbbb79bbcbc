//! Who gets which client prefix: the same on every server, without any state between them. Pure.
//!
//! Weighted rendezvous hashing (Thaler and Ravishankar 1998; weights as in Schindelhauer and
//! Schomaker 2005): each region scores each prefix, the highest has it. When a region goes, only its
//! own prefixes move; when its weight falls, only some of its own do.

use std::{hash::Hasher as _, net::IpAddr};

use siphasher::{
    sip::SipHasher13,
    sip128::{self, Hasher128 as _},
};

/// Constants of ours: other values would send every client elsewhere, on a day of an update.
const KEY: (u64, u64) = (0x6e65_6172_686f_7021, 0x7265_6769_6f6e_7321);

/// Client addresses that are treated alike: a /24, or a /56.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ClientPrefix {
    /// With the other bits zero.
    pub address: IpAddr,
    /// Bits that count.
    pub bits: u8,
}

impl ClientPrefix {
    /// The prefix of an address. An IPv4 address mapped into IPv6 is an IPv4 address.
    #[must_use]
    pub fn of(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(v4) => {
                Self { address: IpAddr::V4((u32::from(v4) & !0xff).into()), bits: 24 }
            }
            IpAddr::V6(v6) => {
                let kept = u128::from(v6) & !(u128::MAX >> 56);
                Self { address: IpAddr::V6(kept.into()), bits: 56 }
            }
        }
    }

    /// A number from 0 to 1 that this prefix has with `seed`, for `purpose`.
    pub(crate) fn draw(self, seed: Seed, purpose: u8) -> f64 {
        // The bits that count are in one block; the lengths of the families differ.
        let block = match self.address {
            IpAddr::V4(v4) => {
                let [a, b, c, _] = v4.octets();
                [4, a, b, c, 0, 0, 0, purpose]
            }
            IpAddr::V6(v6) => {
                let [a, b, c, d, e, f, g, ..] = v6.octets();
                [a, b, c, d, e, f, g, purpose]
            }
        };
        let mut hasher = SipHasher13::new_with_keys(seed.0, seed.1);
        hasher.write(&block);
        // 53 bits, as a double has them.
        #[expect(clippy::cast_precision_loss, reason = "53 bits fit")]
        let number = (hasher.finish() >> 11) as f64;
        (number + 0.5) / (1u64 << 53) as f64
    }

    /// How much this prefix belongs to the region of `seed`; the highest has it.
    #[must_use]
    pub(crate) fn score(self, seed: Seed, weight: f64) -> f64 {
        weight / -self.draw(seed, 0).ln()
    }
}

/// What a region's draws for a service begin with: made once, so that a draw is short.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Seed(u64, u64);

impl Seed {
    /// Of a service and a region, by their names.
    pub(crate) fn of(service: &str, region: &str) -> Self {
        let mut hasher = sip128::SipHasher24::new_with_keys(KEY.0, KEY.1);
        for part in [service.as_bytes(), region.as_bytes()] {
            hasher.write(&(part.len() as u64).to_le_bytes());
            hasher.write(part);
        }
        let hash = hasher.finish128();
        Self(hash.h1, hash.h2)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prefixes() -> impl Iterator<Item = ClientPrefix> {
        (0u32..4000).map(|at| ClientPrefix::of(IpAddr::V4((0x0a00_0000 + (at << 8) + 7).into())))
    }

    fn winner(prefix: ClientPrefix, weights: &[(&'static str, f64)]) -> &'static str {
        let score =
            |(name, weight): &(&'static str, f64)| prefix.score(Seed::of("s", name), *weight);
        weights.iter().max_by(|a, b| score(a).total_cmp(&score(b))).unwrap().0
    }

    #[test]
    fn addresses_of_a_prefix_are_alike() {
        let prefix = |text: &str| ClientPrefix::of(text.parse().unwrap());
        assert_eq!(prefix("192.0.2.1"), prefix("192.0.2.255"));
        assert_eq!(prefix("::ffff:192.0.2.9"), prefix("192.0.2.1"));
        assert_ne!(prefix("192.0.2.1"), prefix("192.0.3.1"));
        assert_eq!(prefix("2001:db8:1:200::1"), prefix("2001:db8:1:2ff:9::"));
        assert_ne!(prefix("2001:db8:1:200::1"), prefix("2001:db8:1:300::1"));
    }

    #[test]
    fn shares_are_those_of_the_weights_and_little_moves() {
        let three = [("a", 1.0), ("b", 1.0), ("c", 2.0)];
        let all: Vec<_> = prefixes().map(|prefix| (prefix, winner(prefix, &three))).collect();
        let share = |name| all.iter().filter(|(_, won)| *won == name).count() as f64 / 4000.0;
        for (name, expected) in [("a", 0.25), ("b", 0.25), ("c", 0.5)] {
            assert!((share(name) - expected).abs() < 0.03, "{name}: {}", share(name));
        }
        for (prefix, before) in &all {
            let after = winner(*prefix, &three[1..]);
            assert!(after == *before || *before == "a", "only the lost region's prefixes move");
        }
    }

    #[test]
    fn the_hash_is_a_promise() {
        // Every server, of every version, must draw the same.
        let drawn =
            ClientPrefix::of("192.0.2.1".parse().unwrap()).draw(Seed::of("complete", "eu-west"), 0);
        assert!((drawn - EXPECTED).abs() < 1e-12, "{drawn}");
    }

    const EXPECTED: f64 = 0.317_129_658_486_668_9;
}
