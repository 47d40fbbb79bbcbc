//! DNS cookies: a client that shows ours again is where it says it is, and no flood is made with its
//! address. RFC 7873, with the server's cookie of RFC 9018, section 4. Pure.

use std::{hash::Hasher as _, net::IpAddr};

use siphasher::sip::SipHasher24;

/// The server's secrets; servers that share an address share them.
#[derive(Clone)]
pub struct Secret {
    first: [u8; 16],
    /// Those before it, or the next one, while they are being changed (RFC 9018, section 5).
    others: Vec<[u8; 16]>,
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// What a query's cookie is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Shown {
    /// The client's own part alone, or with a server's part that is not ours, or too old.
    Client([u8; 8]),
    /// With our part, made for this address lately.
    Ours([u8; 8]),
    /// Of a length that none has.
    Malformed,
}

const CLIENT: usize = 8;
/// Version, three reserved bytes, time, hash.
const SERVER: usize = 16;
const VERSION: u8 = 1;
/// RFC 9018, section 4.3: a cookie is good for an hour, and five minutes of clocks that differ.
const OLD_S: u32 = 3600;
const AHEAD_S: u32 = 300;

impl Secret {
    /// A secret of 128 random bits that makes cookies, and others whose cookies are taken too.
    #[must_use]
    pub const fn new(first: [u8; 16], others: Vec<[u8; 16]>) -> Self {
        Self { first, others }
    }

    /// The whole cookie for a client: its own part and ours. `now` is in Unix seconds, which wrap.
    pub(super) fn bake(&self, client: [u8; 8], address: IpAddr, now: u32) -> Vec<u8> {
        let mut cookie = client.to_vec();
        cookie.extend([VERSION, 0, 0, 0]);
        cookie.extend(now.to_be_bytes());
        cookie.extend(hash(&self.first, &cookie, address));
        cookie
    }

    pub(super) fn read(&self, option: &[u8], address: IpAddr, now: u32) -> Shown {
        let Some((client, server)) = option.split_first_chunk::<CLIENT>() else {
            return Shown::Malformed;
        };
        if server.is_empty() {
            return Shown::Client(*client);
        }
        // RFC 7873, section 4.2: a server's part has 8 to 32 bytes.
        if !(8..=32).contains(&server.len()) {
            return Shown::Malformed;
        }
        let ours = server.len() == SERVER && server[..4] == [VERSION, 0, 0, 0] && {
            let time = u32::from_be_bytes([server[4], server[5], server[6], server[7]]);
            // RFC 1982: times wrap, and one is before the other by the shorter way.
            let age = now.wrapping_sub(time);
            let recent = age <= OLD_S || age.wrapping_neg() <= AHEAD_S;
            let mut secrets = std::iter::once(&self.first).chain(&self.others);
            recent
                && secrets.any(|secret| hash(secret, &option[..CLIENT + 8], address) == server[8..])
        };
        if ours { Shown::Ours(*client) } else { Shown::Client(*client) }
    }
}

/// Over the client's part, version, reserved and time, and the client's address.
fn hash(secret: &[u8; 16], start: &[u8], address: IpAddr) -> [u8; 8] {
    let mut hasher = SipHasher24::new_with_key(secret);
    hasher.write(start);
    match address.to_canonical() {
        IpAddr::V4(v4) => hasher.write(&v4.octets()),
        IpAddr::V6(v6) => hasher.write(&v6.octets()),
    }
    hasher.finish().to_le_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes<const N: usize>(hex: &str) -> [u8; N] {
        let byte = |at: usize| u8::from_str_radix(&hex[2 * at..2 * at + 2], 16).unwrap();
        std::array::from_fn(byte)
    }

    /// RFC 9018, appendix A.1 and A.2.
    #[test]
    fn the_standards_own_examples() {
        let secret = Secret::new(bytes("e5e973e5a6b2a43f48e7dc849e37bfcf"), Vec::new());
        let client = bytes::<8>("2464c4abcf10c957");
        let address: IpAddr = "198.51.100.100".parse().unwrap();
        let baked = secret.bake(client, address, 1_559_731_985);
        assert_eq!(baked, bytes::<24>("2464c4abcf10c957010000005cf79f111f8130c3eee29480"));
        assert_eq!(secret.read(&baked, address, 1_559_731_985), Shown::Ours(client));
    }

    #[test]
    fn a_cookie_is_for_an_address_and_a_time() {
        let secret = Secret::new([7; 16], Vec::new());
        let (client, now) = ([1; 8], 1_000_000);
        let address: IpAddr = "192.0.2.1".parse().unwrap();
        let baked = secret.bake(client, address, now);
        let read = |address: IpAddr, now| secret.read(&baked, address, now);
        assert_eq!(read(address, now + OLD_S), Shown::Ours(client));
        assert_eq!(read(address, now - AHEAD_S), Shown::Ours(client), "a clock that is ahead");
        for (address, now) in [
            (address, now + OLD_S + 1),
            (address, now - AHEAD_S - 1),
            ("192.0.2.2".parse().unwrap(), now),
        ] {
            assert_eq!(read(address, now), Shown::Client(client), "{address} {now}");
        }
        for at in 0..baked.len() {
            let mut other = baked.clone();
            other[at] ^= 1;
            assert!(!matches!(secret.read(&other, address, now), Shown::Ours(_)), "byte {at}");
        }
        for length in [0, 7, 9, 15, 41] {
            assert_eq!(secret.read(&vec![0; length], address, now), Shown::Malformed, "{length}");
        }
        assert_eq!(secret.read(&client, address, now), Shown::Client(client));
        let renewed = Secret::new([8; 16], vec![[7; 16]]);
        assert_eq!(renewed.read(&baked, address, now), Shown::Ours(client), "of the one before");
        assert_ne!(renewed.bake(client, address, now), baked);
    }
}
