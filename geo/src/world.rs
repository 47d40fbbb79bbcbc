//! What a decision depends on: regions, where addresses are, who is well and how busy. Never
//! changes; a new one replaces it whole.

use std::{collections::HashMap, net::IpAddr, sync::Arc};

use ipnet::IpNet;

use crate::{
    Place, RegionId, Tally,
    mmdb::{self, MmdbError},
    table::{Builder, Table, Value},
};

/// A region as configured.
#[derive(Debug, Clone, PartialEq)]
pub struct Region {
    /// Its name.
    pub id: RegionId,
    /// Where it is; without one it is as far from everybody.
    pub place: Option<Place>,
    /// What DNS answers with.
    pub addresses: Vec<IpAddr>,
    /// Its share among regions that are about as near; over 0.
    pub weight: f64,
    /// −99 to 99: per cent by which its distance shrinks, or grows where negative.
    pub bias: f64,
    /// Whether the operator took it out.
    pub drained: bool,
}

/// Whether a region is well, as far as is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Health {
    /// It was never looked at: used as if it were well.
    #[default]
    Unknown,
    /// It answers.
    Up,
    /// It does not, as a quorum sees it.
    Down,
}

/// What is known of a region at the moment.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct State {
    /// Whether it is well.
    pub health: Health,
    /// The share of its clients that goes elsewhere, 0 to 1; a share of hash space, not of queries.
    pub moved: f64,
    /// Its use, running and queued requests over its capacity, where that is known.
    pub used: Option<f64>,
    /// The votes on it, where there are vantage points.
    pub votes: Option<Tally>,
}

/// What is answered when every region is down or drained.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum AllDown {
    /// The regions in their usual order: perhaps it is the prober that is blind.
    #[default]
    Nearest,
    /// Nothing.
    NoData,
    /// These addresses.
    Fallback(Vec<IpAddr>),
}

/// Clients whose regions an operator names.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Override {
    /// Their networks. Of several overrides the longest prefix counts.
    pub networks: Vec<IpNet>,
    /// Their autonomous systems, where no network of an override is theirs.
    pub systems: Vec<u32>,
    /// Regions in the order to use; the others come behind them as usual.
    pub regions: Vec<RegionId>,
}

/// What is decided by.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// Regions that are no more than this much farther than the nearest are as near, kilometres.
    pub alike_km: f64,
    /// What is answered when every region is out.
    pub all_down: AllDown,
    /// Clients whose regions an operator names.
    pub overrides: Vec<Override>,
    /// Where addresses are of which no database says it: a proxy's clients are near its region.
    pub home: Option<Place>,
}

impl Default for Settings {
    fn default() -> Self {
        Self { alike_km: 300.0, all_down: AllDown::default(), overrides: Vec::new(), home: None }
    }
}

/// Why regions and databases do not make a world.
#[derive(Debug, thiserror::Error)]
pub enum WorldError {
    /// Nothing could be answered.
    #[error("there is no region")]
    NoRegion,
    /// A database cannot be used.
    #[error(transparent)]
    Mmdb(#[from] MmdbError),
    /// An override names a region that is not there.
    #[error("an override names the region `{0}`, which is not configured")]
    UnknownRegion(RegionId),
}

/// An order of regions, in tiers of about equal distance.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Class {
    /// Indexes of regions, and the tier of each, rising.
    pub(crate) order: Vec<(usize, usize)>,
    /// The override that it comes from.
    pub(crate) by_override: Option<usize>,
}

/// Everything that a decision depends on. A clone shares what is large.
#[derive(Debug, Clone)]
pub struct World {
    map: Arc<Map>,
    pub(crate) states: Vec<State>,
}

/// What a configuration and its databases say.
#[derive(Debug)]
pub(crate) struct Map {
    pub(crate) regions: Vec<Region>,
    pub(crate) settings: Settings,
    /// Addresses to classes, merged: what is answered, and how far that holds.
    pub(crate) classes: Table,
    pub(crate) class_list: Vec<Class>,
    /// Addresses to places, for explanations; 0 is where no database says.
    pub(crate) places: Table,
    pub(crate) place_list: Vec<Option<Place>>,
    /// Whether any database says where addresses are.
    pub(crate) located: bool,
}

impl World {
    /// A world of these regions, all of unknown health. `mmdb` says where addresses are, `systems`
    /// (a database of autonomous systems) is needed for overrides by system.
    ///
    /// # Errors
    /// [`WorldError`].
    pub fn new(
        regions: Vec<Region>,
        settings: Settings,
        mmdb: Option<&[u8]>,
        systems: Option<&[u8]>,
    ) -> Result<Self, WorldError> {
        if regions.is_empty() {
            return Err(WorldError::NoRegion);
        }
        let mut place_list = vec![settings.home];
        let mut builder = Builder::new(0);
        if let Some(file) = mmdb {
            let mut known: HashMap<(u64, u64), Value> = HashMap::new();
            mmdb::places(file, |network, place| {
                let Some(place) = place else { return };
                let key = (place.latitude.to_bits(), place.longitude.to_bits());
                let value = *known.entry(key).or_insert_with(|| {
                    place_list.push(Some(place));
                    value_of(place_list.len() - 1)
                });
                builder.set(network, value);
            })?;
        }
        let places = builder.build(|value| value);
        let mut classes = Classes::default();
        let by_place: Vec<Value> = place_list
            .iter()
            .map(|place| classes.intern(usual(&regions, *place, settings.alike_km)))
            .collect();
        let overridden = lay_over(&mut builder, &regions, &settings, systems, place_list.len())?;
        let by_override: Vec<Value> =
            overridden.into_iter().map(|class| classes.intern(class)).collect();
        let known = place_list.len();
        let class_of = |value: Value| match by_place.get(value as usize) {
            Some(class) => *class,
            None => by_override[value as usize - known],
        };
        let states = vec![State::default(); regions.len()];
        let map = Map {
            classes: builder.build(class_of),
            class_list: classes.list,
            places,
            place_list,
            located: mmdb.is_some(),
            regions,
            settings,
        };
        Ok(Self { map: Arc::new(map), states })
    }

    /// The same world with other states, one for each region in their order.
    #[must_use]
    pub fn with_states(&self, states: Vec<State>) -> Self {
        assert_eq!(states.len(), self.map.regions.len(), "a state for each region");
        Self { states, map: Arc::clone(&self.map) }
    }

    /// The regions, in the order of the configuration.
    #[must_use]
    pub fn regions(&self) -> &[Region] {
        &self.map.regions
    }

    /// What is known of each region, in the same order.
    #[must_use]
    pub fn states(&self) -> &[State] {
        &self.states
    }

    pub(crate) fn map(&self) -> &Map {
        &self.map
    }

    /// What is decided by.
    #[must_use]
    pub fn settings(&self) -> &Settings {
        &self.map.settings
    }

    /// Whether it knows where addresses are. Without, weights and overrides decide.
    #[must_use]
    pub fn is_located(&self) -> bool {
        self.map.located
    }

    /// Where an address is, as far as a database says.
    #[must_use]
    pub fn place_of(&self, address: IpAddr) -> Option<Place> {
        self.map.place_list[self.map.places.find(address).value as usize]
    }
}

fn value_of(index: usize) -> Value {
    Value::try_from(index).expect("fewer places than addresses")
}

#[derive(Default)]
struct Classes {
    list: Vec<Class>,
    known: HashMap<Class, Value>,
}

impl Classes {
    fn intern(&mut self, class: Class) -> Value {
        *self.known.entry(class).or_insert_with_key(|class| {
            self.list.push(class.clone());
            value_of(self.list.len() - 1)
        })
    }
}

/// A region's distance as it counts: with its bias.
pub(crate) fn biased_km(region: &Region, place: Option<Place>) -> Option<f64> {
    let distance = place?.distance_km(region.place?);
    Some(distance * (1.0 - region.bias / 100.0))
}

/// The order for clients at a place: near ones first, in tiers.
fn usual(regions: &[Region], place: Option<Place>, alike_km: f64) -> Class {
    // What has no place is behind all that has one, and all of it is as near.
    let far = |region: &Region| biased_km(region, place).unwrap_or(f64::INFINITY);
    let mut order: Vec<(usize, f64)> = regions.iter().map(far).enumerate().collect();
    order.sort_by(|a, b| a.1.total_cmp(&b.1).then(a.0.cmp(&b.0)));
    let (mut tier, mut first) = (0, order[0].1);
    let tiers = order.into_iter().map(|(region, distance)| {
        // In a tier all are about as far as its nearest.
        if distance > first + alike_km {
            (tier, first) = (tier + 1, distance);
        }
        (region, tier)
    });
    Class { order: tiers.collect(), by_override: None }
}

/// Lays the overrides over the table; the classes of their values, which begin at `from`.
fn lay_over(
    builder: &mut Builder,
    regions: &[Region],
    settings: &Settings,
    systems: Option<&[u8]>,
    from: usize,
) -> Result<Vec<Class>, WorldError> {
    let mut classes = Vec::new();
    for (at, given) in settings.overrides.iter().enumerate() {
        classes.push(named(regions, given, at)?);
    }
    let value = |at: usize| value_of(from + at);
    if let Some(file) = systems {
        mmdb::systems(file, |network, system| {
            let whose = settings.overrides.iter().position(|given| given.systems.contains(&system));
            if let Some(at) = whose {
                builder.set(network, value(at));
            }
        })?;
    }
    let mut networks: Vec<(IpNet, usize)> = settings
        .overrides
        .iter()
        .enumerate()
        .flat_map(|(at, given)| given.networks.iter().map(move |network| (network.trunc(), at)))
        .collect();
    networks.sort_by_key(|(network, _)| network.prefix_len());
    for (network, at) in networks {
        builder.set(network, value(at));
    }
    Ok(classes)
}

/// The regions that an override names, a tier each, and the others in one behind them.
fn named(regions: &[Region], given: &Override, at: usize) -> Result<Class, WorldError> {
    let mut order = Vec::new();
    for id in &given.regions {
        let region = regions.iter().position(|region| region.id == *id);
        let region = region.ok_or_else(|| WorldError::UnknownRegion(id.clone()))?;
        if !order.iter().any(|(known, _)| *known == region) {
            order.push((region, order.len()));
        }
    }
    let last = order.len();
    for region in 0..regions.len() {
        if !order.iter().any(|(known, _)| *known == region) {
            order.push((region, last));
        }
    }
    Ok(Class { order, by_override: Some(at) })
}
