use proptest::prelude::*;

use super::*;

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

fn table(networks: &[(&str, Value)]) -> Table {
    let mut builder = Builder::new(0);
    for (network, value) in networks {
        builder.set(net(network), *value);
    }
    builder.build(|value| value)
}

fn check(table: &Table, address: &str, value: Value, bits: u8) {
    assert_eq!(table.find(address.parse().unwrap()), Found { value, bits }, "{address}");
}

#[test]
fn an_address_ends_in_the_largest_prefix_that_is_all_alike() {
    let table = table(&[("10.0.0.0/8", 1), ("11.0.0.0/8", 1), ("10.1.0.0/16", 2)]);
    check(&table, "10.1.2.3", 2, 16);
    check(&table, "10.0.0.1", 1, 16);
    check(&table, "10.200.0.1", 1, 9);
    check(&table, "11.9.9.9", 1, 8);
    check(&table, "9.1.1.1", 0, 7);
    check(&table, "192.0.2.1", 0, 1);
    check(&table, "2001:db8::1", 0, 0);
    check(&table, "::ffff:10.1.2.3", 2, 16);
}

#[test]
fn both_ends_of_the_space_may_be_set() {
    let table =
        table(&[("0.0.0.0/32", 1), ("255.255.255.255/32", 2), ("::/128", 3), ("ffff::/16", 4)]);
    check(&table, "0.0.0.0", 1, 32);
    check(&table, "255.255.255.255", 2, 32);
    check(&table, "0.0.0.1", 0, 32);
    check(&table, "::", 3, 128);
    check(&table, "ffff:ffff::", 4, 16);
    let everything = self::table(&[("0.0.0.0/0", 7), ("::/0", 8)]);
    check(&everything, "1.2.3.4", 7, 0);
    check(&everything, "::1", 8, 0);
}

#[test]
fn values_that_become_the_same_class_are_merged() {
    let mut builder = Builder::new(0);
    for (network, value) in [("10.0.0.0/10", 1), ("10.64.0.0/10", 2), ("10.128.0.0/9", 3)] {
        builder.set(net(network), value);
    }
    let merged = builder.build(|value| value.min(1));
    check(&merged, "10.99.1.1", 1, 8);
    assert_eq!(builder.at("10.99.1.1".parse().unwrap()), 2);
}

proptest! {
    #[test]
    fn the_table_says_what_the_last_network_said_and_its_leaves_cover_everything_once(
        networks in prop::collection::vec((any::<u32>(), 0u8..=32, 0u32..4), 0..40),
        asked in prop::collection::vec(any::<u32>(), 20),
    ) {
        let mut builder = Builder::new(9);
        let networks: Vec<(ipnet::Ipv4Net, Value)> = networks
            .into_iter()
            .map(|(address, bits, value)| (ipnet::Ipv4Net::new(address.into(), bits).unwrap().trunc(), value))
            .collect();
        for (network, value) in &networks {
            builder.set(IpNet::V4(*network), *value);
        }
        let table = builder.build(|value| value);
        let ends = networks.iter().flat_map(|(network, _)| [network.network(), network.broadcast()]);
        for address in asked.into_iter().map(std::net::Ipv4Addr::from).chain(ends) {
            let expected = networks.iter().rev().find(|(network, _)| network.contains(&address)).map_or(9, |(_, value)| *value);
            let found = table.find(IpAddr::V4(address));
            prop_assert_eq!(found.value, expected);
            // All of its leaf is alike.
            let leaf = ipnet::Ipv4Net::new(address, found.bits).unwrap();
            for other in [leaf.network(), leaf.broadcast()] {
                prop_assert_eq!(table.find(IpAddr::V4(other)), found);
            }
        }
        let mut next = 0u64;
        let mut before: Option<(u64, Found)> = None;
        for (address, found) in table.leaves() {
            let IpAddr::V4(address) = address else { continue };
            let start = u64::from(u32::from(address));
            prop_assert_eq!(start, next, "no gap and no overlap");
            next = start + (1 << (32 - found.bits));
            // Two halves of the same value would have been one.
            if let Some((sibling, other)) = before {
                let size = 1u64 << (32 - found.bits);
                let halves = other.bits == found.bits && sibling + size == start && sibling.is_multiple_of(2 * size);
                prop_assert!(!(halves && other.value == found.value));
            }
            before = Some((start, found));
        }
        prop_assert_eq!(next, 1 << 32);
    }
}
