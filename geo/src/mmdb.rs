//! Reads databases of where addresses are (MaxMind's format). No look-up is ever made in one: their
//! networks are walked once, when a file is loaded.
//!
//! Three schemas are in use, and told apart record by record: MaxMind's (`location.latitude`,
//! `country.iso_code`), flat ones (`latitude`, `country_code`), and those that name the country
//! alone, which becomes the place where its people live ([`super::country`]).

use std::net::IpAddr;

use ipnet::IpNet;
use maxminddb::{MaxMindDbError, Reader, WithinOptions};
use serde::Deserialize;

use crate::{Place, country};

/// Why a database cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum MmdbError {
    /// It is damaged, or none.
    #[error("it is no database of addresses, or damaged: {0}")]
    Damaged(#[from] MaxMindDbError),
    /// Its search tree is no tree: branches that are reached twice could be walked without an end.
    #[error("it has more networks than its {nodes} nodes can have; it is damaged, or made to harm")]
    Tangled {
        /// Nodes of its search tree.
        nodes: usize,
    },
    /// Nothing in it says where anything is.
    #[error(
        "none of its {networks} networks has a place or a country; it needs `location.latitude`, `latitude`, `country.iso_code` or `country_code`"
    )]
    NoPlaces {
        /// How many it has.
        networks: usize,
    },
    /// Nothing in it says whose anything is.
    #[error("none of its {networks} networks has an `autonomous_system_number`")]
    NoSystems {
        /// How many it has.
        networks: usize,
    },
}

/// What a database says of a network.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Record<'a> {
    location: Coordinates,
    latitude: Option<f64>,
    longitude: Option<f64>,
    #[serde(borrow)]
    country: Country<'a>,
    #[serde(borrow)]
    country_code: Option<&'a str>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Coordinates {
    latitude: Option<f64>,
    longitude: Option<f64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Country<'a> {
    #[serde(borrow)]
    iso_code: Option<&'a str>,
}

impl Record<'_> {
    fn place(&self) -> Option<Place> {
        let exact = self.location.latitude.or(self.latitude);
        let exact = exact.zip(self.location.longitude.or(self.longitude));
        let exact = exact.and_then(|(latitude, longitude)| Place::new(latitude, longitude));
        exact.or_else(|| country::place(self.country.iso_code.or(self.country_code)?))
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct System {
    autonomous_system_number: Option<u32>,
}

/// Walks the networks of a database and tells where each is; `None` where it does not say.
///
/// # Errors
/// [`MmdbError`]; what was told before is then of no use.
pub(crate) fn places(
    file: &[u8],
    mut tell: impl FnMut(IpNet, Option<Place>),
) -> Result<(), MmdbError> {
    let (mut networks, mut located) = (0, 0);
    // Many networks share a record.
    let mut known = std::collections::HashMap::new();
    walk(file, |network, record| {
        let offset = record.offset();
        let place = match offset.and_then(|offset| known.get(&offset)) {
            Some(place) => *place,
            None => {
                let place = record.decode::<Record<'_>>()?.and_then(|record| record.place());
                known.extend(offset.map(|offset| (offset, place)));
                place
            }
        };
        networks += 1;
        located += usize::from(place.is_some());
        tell(network, place);
        Ok(())
    })?;
    if located == 0 { Err(MmdbError::NoPlaces { networks }) } else { Ok(()) }
}

/// Walks the networks of a database and tells the autonomous system of each that has one.
///
/// # Errors
/// [`MmdbError`].
pub(crate) fn systems(file: &[u8], mut tell: impl FnMut(IpNet, u32)) -> Result<(), MmdbError> {
    let (mut networks, mut known) = (0, 0);
    walk(file, |network, record| {
        networks += 1;
        let system = record.decode::<System>()?.and_then(|system| system.autonomous_system_number);
        if let Some(system) = system {
            known += 1;
            tell(network, system);
        }
        Ok(())
    })?;
    if known == 0 { Err(MmdbError::NoSystems { networks }) } else { Ok(()) }
}

type Looked<'de> = maxminddb::LookupResult<'de, &'de [u8]>;

fn walk(
    file: &[u8],
    mut each: impl FnMut(IpNet, &Looked<'_>) -> Result<(), MaxMindDbError>,
) -> Result<(), MmdbError> {
    let reader = Reader::from_source(file)?;
    // Every network, also those of which nothing is known: a binary tree has one more than nodes.
    let all = WithinOptions::default().include_networks_without_data();
    let nodes = usize::try_from(reader.metadata().node_count).unwrap_or(usize::MAX);
    for (at, found) in reader.networks(all)?.enumerate() {
        if at > nodes {
            return Err(MmdbError::Tangled { nodes });
        }
        let found = found?;
        if !found.has_data() {
            continue;
        }
        let network = found.network()?;
        let address: IpAddr = network.ip();
        // The crate's own type of network is another's; lengths are its own.
        if let Ok(network) = IpNet::new(address, network.prefix()) {
            each(network, &found)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    fn file(name: &str) -> Vec<u8> {
        let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name);
        std::fs::read(path).unwrap()
    }

    fn find(name: &str, address: &str) -> Option<Place> {
        let (address, mut place): (IpAddr, _) = (address.parse().unwrap(), None);
        places(&file(name), |network, at| {
            if network.contains(&address) {
                place = at;
            }
        })
        .unwrap();
        place
    }

    #[test]
    fn a_city_has_its_own_place_and_a_country_its_peoples() {
        let london = find("GeoIP2-City-Test.mmdb", "81.2.69.142").unwrap();
        assert!((london.latitude - 51.5).abs() < 0.1 && london.longitude.abs() < 0.2, "{london:?}");
        let britain = find("GeoIP2-Country-Test.mmdb", "81.2.69.142").unwrap();
        assert_eq!(Some(britain), country::place("GB"));
        assert!(find("GeoIP2-City-Test.mmdb", "2001:218::1").is_some());
        assert!(find("GeoIP2-City-Test.mmdb", "192.0.2.1").is_none());
    }

    /// A tree of which every node's two branches are the next node: 2¹²⁷ networks in 128 nodes.
    #[test]
    fn a_tree_whose_branches_are_shared_is_refused_and_not_walked() {
        let mut tangled = Vec::new();
        for node in 0..128u32 {
            // Behind the last there is nothing: the number of nodes says so.
            let next = node + 1;
            tangled.extend([&next.to_be_bytes()[1..], &next.to_be_bytes()[1..]].concat());
        }
        tangled.extend([0; 16]);
        let whole = file("GeoIP2-City-Test.mmdb");
        let marker = b"\xab\xcd\xefMaxMind.com";
        let at = whole.windows(marker.len()).rposition(|part| part == marker).unwrap();
        let mut metadata = whole[at..].to_vec();
        let mut put = |name: &[u8], value: &[u8]| {
            let at = metadata.windows(name.len()).position(|part| part == name).unwrap();
            let old = usize::from(metadata[at + name.len()] & 0x1f);
            let (from, to) = (at + name.len(), at + name.len() + 1 + old);
            metadata.splice(from..to, value.iter().copied());
        };
        put(b"node_count", &[0xc2, 0, 128]);
        put(b"record_size", &[0xa1, 24]);
        tangled.extend(metadata);
        let error = places(&tangled, |_, _| {}).unwrap_err();
        assert!(matches!(error, MmdbError::Tangled { nodes: 128 }), "{error}");
    }

    #[test]
    fn systems_are_told() {
        let mut found = Vec::new();
        systems(&file("GeoLite2-ASN-Test.mmdb"), |network, system| found.push((network, system)))
            .unwrap();
        let network = "1.128.0.0/11".parse().unwrap();
        assert!(found.contains(&(network, 1221)), "{} networks", found.len());
        let error = systems(&file("GeoIP2-Country-Test.mmdb"), |_, _| {}).unwrap_err();
        assert!(error.to_string().contains("autonomous_system_number"), "{error}");
    }

    #[test]
    fn broken_databases_are_refused_and_never_a_panic() {
        for name in [
            "GeoIP2-City-Test-Broken-Double-Format.mmdb",
            "GeoIP2-City-Test-Invalid-Node-Count.mmdb",
        ] {
            assert!(places(&file(name), |_, _| {}).is_err(), "{name}");
        }
        // Another's records, which are text.
        assert!(places(&file("MaxMind-DB-no-ipv4-search-tree.mmdb"), |_, _| {}).is_err());
    }

    #[test]
    fn a_database_that_is_cut_off_or_damaged_is_never_a_panic_or_without_an_end() {
        assert!(places(b"", |_, _| {}).is_err());
        for name in ["GeoIP2-City-Test.mmdb", "GeoIP2-Country-Test.mmdb", "GeoLite2-ASN-Test.mmdb"]
        {
            let whole = file(name);
            for cut in (0..whole.len()).step_by(211) {
                // What says how to read it is its end.
                assert!(places(&whole[..cut], |_, _| {}).is_err(), "{name} at {cut}");
                assert!(systems(&whole[..cut], |_, _| {}).is_err(), "{name} at {cut}");
            }
            let mut state = 7u64;
            let mut random = |limit: usize| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                usize::try_from(state >> 33).unwrap() % limit
            };
            for _ in 0..300 {
                let mut damaged = whole.clone();
                for _ in 0..=random(8) {
                    let at = random(damaged.len());
                    damaged[at] = random(256).to_le_bytes()[0];
                }
                let _ = places(&damaged, |_, _| {});
                let _ = systems(&damaged, |_, _| {});
            }
        }
    }

    #[test]
    fn a_tree_that_leads_back_to_itself_is_damaged() {
        let whole = file("GeoIP2-City-Test.mmdb");
        for (from, to) in [(0, 6), (0, 600), (60, 66), (6, 7000)] {
            let mut damaged = whole.clone();
            damaged[from..to].fill(0);
            let error = places(&damaged, |_, _| {}).unwrap_err();
            assert!(matches!(error, MmdbError::Damaged(_)), "{error}");
        }
    }
}
