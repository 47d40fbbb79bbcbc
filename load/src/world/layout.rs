//! Which regions there are, where, and how far from each other.

use std::{collections::BTreeMap, time::Duration};

use nearhop_emulator::HOST;

/// A part of the world.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Place {
    pub(super) name: &'static str,
    /// Degrees north and degrees east.
    pub(super) location: [f64; 2],
    /// Where its clients are: documentation networks (RFC 5737), which the database of places
    /// that comes with the repository has near it. Nothing for DNS servers.
    pub(super) clients: &'static str,
}

const fn place(name: &'static str, location: [f64; 2], clients: &'static str) -> Place {
    Place { name, location, clients }
}

/// The order is that of [`Asked::regions`] where that is a number.
const REGIONS: [Place; 3] = [
    place("us-west", [37.4, -122.1], "192.0.2.0/24"),
    place("eu-west", [53.3, -6.3], "198.51.100.0/24"),
    place("ap-south", [19.1, 72.9], "203.0.113.0/24"),
];

/// DNS servers at none of the regions' places, so that none fails with one.
const SERVERS: [Place; 3] = [
    place("dns-1", [39.0, -77.5], ""),
    place("dns-2", [50.1, 8.7], ""),
    place("dns-3", [1.3, 103.8], ""),
];

const PODS_MAX: usize = 50;
/// Half a second there and back: nobody on Earth is farther away.
const SCALE_MAX: f64 = 2.0;

/// Light in fibre: kilometres a millisecond.
const KM_PER_MS: f64 = 200.0;
/// How much longer than the great circle cables are, with what their equipment takes.
const DETOUR: f64 = 1.7;
/// From clients, who are all on the host, to everything; milliseconds one way.
const LAST_MILE_MS: f64 = 2.0;
/// Of the delay.
const JITTER: f64 = 0.05;

/// What the user wants.
#[derive(Debug, Clone)]
pub struct Asked {
    /// Names with commas between them, or how many.
    pub regions: String,
    /// Inference pods of each region.
    pub pods: usize,
    /// DNS servers.
    pub servers: usize,
    /// By how much delays between regions are multiplied.
    pub scale: f64,
}

/// What cannot be had.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct LayoutError(String);

/// What there is.
#[derive(Debug, Clone)]
pub struct Layout {
    pub(super) regions: Vec<Place>,
    pub(super) servers: Vec<Place>,
    pub(super) pods: usize,
    scale: f64,
}

/// Both directions between two places.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// One end.
    pub one: String,
    /// The other.
    pub other: String,
    /// How long a packet takes.
    pub delay: Duration,
    /// How much longer it may take.
    pub jitter: Duration,
}

impl Layout {
    /// Makes sure that it can be had.
    ///
    /// # Errors
    /// [`LayoutError`], which names the option and the fix.
    pub fn new(asked: &Asked) -> Result<Self, LayoutError> {
        let regions = regions(&asked.regions)?;
        let refuse = |what: String| Err(LayoutError(what));
        if !(1..=PODS_MAX).contains(&asked.pods) {
            return refuse(format!("--pods is {}; write 1 to {PODS_MAX}", asked.pods));
        }
        if !(1..=SERVERS.len()).contains(&asked.servers) {
            let most = SERVERS.len();
            return refuse(format!("--dns-servers is {}; write 1 to {most}", asked.servers));
        }
        if regions.len() + asked.servers < 3 {
            return refuse(
                "one region and one DNS server: whether a region is down is decided by three \
                 nodes or more. Write --dns-servers 2, or more --regions"
                    .to_owned(),
            );
        }
        if !(0.0..=SCALE_MAX).contains(&asked.scale) {
            return refuse(format!("--delay-scale is {}; write 0 to {SCALE_MAX}", asked.scale));
        }
        let servers = SERVERS[..asked.servers].to_vec();
        Ok(Self { regions, servers, pods: asked.pods, scale: asked.scale })
    }

    /// Places with processes: regions, then DNS servers. Each has an address of its own.
    #[must_use]
    pub fn sites(&self) -> Vec<&str> {
        self.regions.iter().chain(&self.servers).map(|place| place.name).collect()
    }

    pub(super) fn places(&self) -> Vec<&str> {
        let mut places = self.sites();
        places.push(HOST);
        places
    }

    /// The regions' names.
    pub(super) fn region_names(&self) -> Vec<&str> {
        self.regions.iter().map(|region| region.name).collect()
    }

    /// The longest delay one way, of a world that nobody has slowed.
    pub(super) fn longest(&self) -> Duration {
        let links = self.links(&BTreeMap::new());
        links.iter().map(|link| link.delay + link.jitter).max().unwrap_or_default()
    }

    /// Every two places, where packets of some regions take so many milliseconds longer.
    pub(super) fn links(&self, slowed: &BTreeMap<String, u64>) -> Vec<Link> {
        let sites: Vec<&Place> = self.regions.iter().chain(&self.servers).collect();
        let more = |name: &str| slowed.get(name).copied().unwrap_or(0);
        let link = |one: &str, other: &str, ms: f64| Link {
            one: one.to_owned(),
            other: other.to_owned(),
            delay: Duration::from_secs_f64(ms * self.scale / 1000.0)
                + Duration::from_millis(more(one) + more(other)),
            jitter: Duration::from_secs_f64(ms * self.scale * JITTER / 1000.0),
        };
        let mut links = Vec::new();
        for (at, one) in sites.iter().enumerate() {
            for other in &sites[at + 1..] {
                let ms = distance_km(one.location, other.location) * DETOUR / KM_PER_MS;
                links.push(link(one.name, other.name, ms));
            }
            links.push(link(one.name, HOST, LAST_MILE_MS));
        }
        links
    }
}

fn regions(asked: &str) -> Result<Vec<Place>, LayoutError> {
    let known = REGIONS.map(|region| region.name).join(", ");
    let fix = format!("write some of {known}, or how many: 1 to {}", REGIONS.len());
    if let Ok(count) = asked.parse::<usize>() {
        return match count {
            1.. if count <= REGIONS.len() => Ok(REGIONS[..count].to_vec()),
            _ => Err(LayoutError(format!("--regions is {count}; {fix}"))),
        };
    }
    let mut regions: Vec<Place> = Vec::new();
    for name in asked.split(',').map(str::trim) {
        let Some(place) = REGIONS.iter().find(|place| place.name == name) else {
            return Err(LayoutError(format!("--regions has `{name}`; {fix}")));
        };
        if regions.contains(place) {
            return Err(LayoutError(format!("--regions has `{name}` twice")));
        }
        regions.push(*place);
    }
    Ok(regions)
}

/// The great circle between two places (the haversine formula).
fn distance_km([north, east]: [f64; 2], [other_north, other_east]: [f64; 2]) -> f64 {
    const EARTH_KM: f64 = 6371.0;
    let half = |one: f64, other: f64| ((other - one).to_radians() / 2.0).sin().powi(2);
    let across = north.to_radians().cos() * other_north.to_radians().cos();
    let part = half(north, other_north) + across * half(east, other_east);
    2.0 * EARTH_KM * part.sqrt().min(1.0).asin()
}
