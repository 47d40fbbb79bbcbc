//! Who sends a packet to whom. Pure.

use std::net::Ipv4Addr;

/// The largest packet: of an Ethernet, as most of the world's links are.
pub(crate) const MTU: usize = 1500;

const HEADER: usize = 20;

/// Source and destination of an IPv4 packet; nothing for anything else.
pub(crate) fn addresses(packet: &[u8]) -> Option<(Ipv4Addr, Ipv4Addr)> {
    let header: &[u8; HEADER] = packet.first_chunk()?;
    if header[0] >> 4 != 4 {
        return None;
    }
    let address =
        |at: usize| Ipv4Addr::new(header[at], header[at + 1], header[at + 2], header[at + 3]);
    Some((address(12), address(16)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(version: u8, length: usize) -> Vec<u8> {
        let mut packet =
            vec![version << 4 | 5, 0, 0, 0, 0, 0, 0, 0, 64, 17, 0, 0, 10, 1, 2, 3, 10, 4, 5, 6];
        packet.resize(length, 0);
        packet
    }

    #[test]
    fn addresses_are_read_from_whole_ipv4_headers_only() {
        let expected = Some((Ipv4Addr::new(10, 1, 2, 3), Ipv4Addr::new(10, 4, 5, 6)));
        for (packet, expected) in [
            (packet(4, 20), expected),
            (packet(4, 1500), expected),
            (packet(4, 19), None),
            (packet(4, 0), None),
            (packet(6, 60), None),
        ] {
            assert_eq!(addresses(&packet), expected, "{packet:?}");
        }
    }
}
