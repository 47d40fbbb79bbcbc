//! How answers change from one world to another, over all clients of which a database knows where they
//! are, or that an override names. Pure.

use std::{collections::BTreeMap, net::IpAddr};

use serde_json::{Value, json};

use crate::{
    RegionId, World,
    decide::{Chosen, choose, seeds},
    hash::Seed,
};

/// Clients that are answered with one region before and with another after.
#[derive(Debug, Clone, PartialEq)]
pub struct Change {
    /// Before; `None` where that was no region's address.
    pub from: Option<RegionId>,
    /// After.
    pub to: Option<RegionId>,
    /// How many /24.
    pub v4: f64,
    /// How many /56.
    pub v6: f64,
    /// One of them.
    pub example: IpAddr,
}

/// What changes for whom.
#[derive(Debug, Clone, PartialEq)]
pub struct Diff {
    /// All clients that are known: how many /24.
    pub v4: f64,
    /// How many /56.
    pub v6: f64,
    /// Those that are answered otherwise, the most first.
    pub changes: Vec<Change>,
}

/// Where clients of a stretch are spread, so many of them are asked.
const SAMPLES: u128 = 256;

/// Compares two worlds for a service.
#[must_use]
pub fn diff(service: &str, old: &World, new: &World) -> Diff {
    let (old_seeds, new_seeds) = (seeds(service, old), seeds(service, new));
    let mut all = [0.0; 2];
    let mut moved: BTreeMap<(Option<RegionId>, Option<RegionId>), Change> = BTreeMap::new();
    for v6 in [false, true] {
        let (bits, client) = if v6 { (128, 56) } else { (32, 24) };
        let last = if v6 { u128::MAX } else { u128::from(u32::MAX) };
        let mut starts: Vec<u128> = [old, new]
            .iter()
            .flat_map(|world| [world.map().classes.starts(v6), world.map().places.starts(v6)])
            .flatten()
            .copied()
            .collect();
        starts.sort_unstable();
        starts.dedup();
        let ends = starts.iter().skip(1).map(|next| next - 1).chain([last]);
        for (start, end) in starts.iter().zip(ends) {
            let known = |world: &World| is_known(world, address(*start, v6));
            if !(known(old) || known(new)) {
                continue;
            }
            let one = 1u128 << (bits - client);
            let spread = |seeds: &[Seed], world: &World| {
                let at = address(*start, v6);
                choose(seeds, at, world).1 != world.map().classes.find(at).bits
            };
            let samples = match spread(&old_seeds, old) || spread(&new_seeds, new) {
                true => ((end - start) / one + 1).min(SAMPLES),
                false => 1,
            };
            #[expect(clippy::cast_precision_loss, reason = "a count for people")]
            let each = ((end - start) as f64 + 1.0) / one as f64 / samples as f64;
            let step = (end - start) / samples;
            for sample in 0..samples {
                let at = address(start + sample * step, v6);
                all[usize::from(v6)] += each;
                let (from, to) = (region(&old_seeds, at, old), region(&new_seeds, at, new));
                if from == to {
                    continue;
                }
                let change = moved.entry((from.clone(), to.clone())).or_insert(Change {
                    from,
                    to,
                    v4: 0.0,
                    v6: 0.0,
                    example: at,
                });
                if v6 {
                    change.v6 += each;
                } else {
                    change.v4 += each;
                }
            }
        }
    }
    let mut changes: Vec<Change> = moved.into_values().collect();
    changes.sort_by(|a, b| b.v4.total_cmp(&a.v4).then(b.v6.total_cmp(&a.v6)));
    Diff { v4: all[0], v6: all[1], changes }
}

fn address(number: u128, v6: bool) -> IpAddr {
    match v6 {
        true => IpAddr::V6(number.into()),
        false => IpAddr::V4(u32::try_from(number).unwrap_or(u32::MAX).into()),
    }
}

fn is_known(world: &World, address: IpAddr) -> bool {
    let found = world.map().classes.find(address);
    let class = &world.map().class_list[found.value as usize];
    class.by_override.is_some() || world.place_of(address).is_some()
}

fn region(seeds: &[Seed], address: IpAddr, world: &World) -> Option<RegionId> {
    match choose(seeds, address, world).0 {
        Chosen::Region(at) => Some(world.regions()[at].id.clone()),
        Chosen::Fallback | Chosen::Nothing => None,
    }
}

impl Diff {
    /// As JSON: `v4` counts /24, `v6` /56.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let name = |region: &Option<RegionId>| region.as_ref().map(|id| id.as_str().to_owned());
        let changes: Vec<Value> = self
            .changes
            .iter()
            .map(|change| {
                json!({
                    "from": name(&change.from),
                    "to": name(&change.to),
                    "v4": change.v4.round(),
                    "v6": change.v6.round(),
                    "example": change.example,
                })
            })
            .collect();
        json!({"v4": self.v4.round(), "v6": self.v6.round(), "changes": changes})
    }

    /// For people.
    #[must_use]
    pub fn to_words(&self) -> String {
        let share = |part: f64, all: f64| if all > 0.0 { (100.0 * part / all).abs() } else { 0.0 };
        let name = |region: &Option<RegionId>| {
            region.as_ref().map_or("no region", |id| id.as_str()).to_owned()
        };
        let sum = |of: fn(&Change) -> f64| self.changes.iter().map(of).sum::<f64>();
        let mut out = format!(
            "of {:.0} known /24 about {:.1} % are answered otherwise, of {:.0} known /56 {:.1} %\n",
            self.v4,
            share(sum(|change| change.v4), self.v4),
            self.v6,
            share(sum(|change| change.v6), self.v6),
        );
        for change in &self.changes {
            out += &format!(
                "  {:<12} → {:<12} {:>10.0} /24 ({:>5.1} %) {:>14.0} /56 ({:>5.1} %)  such as {}\n",
                name(&change.from),
                name(&change.to),
                change.v4,
                share(change.v4, self.v4),
                change.v6,
                share(change.v6, self.v6),
                change.example,
            );
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{AllDown, Override, Place, Region, Settings};

    fn world(overrides: Vec<Override>, drained: bool) -> World {
        let region = |name: &str, north, east, drained| Region {
            id: RegionId::new(name).unwrap(),
            place: Place::new(north, east),
            addresses: vec![IpAddr::from([192, 0, 2, 1])],
            weight: 1.0,
            bias: 0.0,
            drained,
        };
        let regions = vec![region("near", 53.3, -6.3, drained), region("far", 19.1, 72.9, false)];
        let settings =
            Settings { alike_km: 300.0, all_down: AllDown::Nearest, overrides, home: None };
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../conf/data/documentation.mmdb");
        World::new(regions, settings, Some(&std::fs::read(file).unwrap()), None).unwrap()
    }

    fn to_far(network: &str) -> Vec<Override> {
        let regions = vec![RegionId::new("far").unwrap()];
        vec![Override { networks: vec![network.parse().unwrap()], systems: Vec::new(), regions }]
    }

    #[test]
    fn nothing_changes_between_a_world_and_itself() {
        let world = world(Vec::new(), false);
        let diff = diff("s", &world, &world);
        assert!(diff.changes.is_empty());
        // Three /24 and a /8 of this machine's own; three /48.
        assert_eq!((diff.v4, diff.v6), (65_539.0, 768.0));
    }

    #[test]
    fn what_an_override_moves_is_counted() {
        let diff = diff("s", &world(Vec::new(), false), &world(to_far("127.0.0.0/9"), false));
        let [change] = diff.changes.as_slice() else { panic!("{diff:?}") };
        let name = |region: &Option<RegionId>| region.as_ref().unwrap().as_str().to_owned();
        assert_eq!((name(&change.from), name(&change.to)), ("near".into(), "far".into()));
        assert_eq!((change.v4, change.v6), (32_768.0, 0.0));
        assert_eq!(change.example, IpAddr::from([127, 0, 0, 0]));
        assert!(diff.to_words().contains("50.0 %"), "{}", diff.to_words());
        assert_eq!(diff.to_json()["changes"][0]["to"], "far");
    }

    #[test]
    fn a_drained_region_gives_all_away() {
        let diff = diff("s", &world(Vec::new(), false), &world(Vec::new(), true));
        assert!(diff.changes.iter().all(|change| change.to == RegionId::new("far")));
        assert!(diff.changes.iter().map(|change| change.v4).sum::<f64>() >= 65_536.0);
    }
}
