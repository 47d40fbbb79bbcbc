//! How regions are watched: who looks, how often, and whose word counts.

use std::{collections::HashSet, path::PathBuf, time::Duration};

use serde_json::Value;

use crate::{
    Region,
    address::{is_host, is_url, split_target},
    defaults,
    reader::{Field, Section},
    units::http_token,
};

/// How regions are watched.
#[derive(Debug, Clone, PartialEq)]
pub struct Health {
    /// Whose votes count; at least three, so that two are left when one is out.
    pub vantage_points: Vec<VantagePoint>,
    /// From one look at a region to the next.
    pub interval: Duration,
    /// A whole look.
    pub deadline: Duration,
    /// How often other vantage points are asked for their views.
    pub exchange: Duration,
    /// How long a vote counts.
    pub fresh: Duration,
    /// Failed looks in a row after which a vantage point says that a region is down.
    pub fall: u32,
    /// Good looks in a row after which it says that a region is up again.
    pub rise: u32,
    /// What a region that fell twice waits longer; doubles with each fall.
    pub hold: Duration,
    /// `host:port` that answers a TCP connection when this node's network works. When regions fail
    /// and all of these too, the node has no opinion.
    pub witnesses: Vec<String>,
    /// The name in TLS and in `Host`, where the URLs of `regions[].health` have addresses.
    pub host: Option<String>,
    /// Who signs the regions' certificates (PEM); the system's authorities where not given.
    pub ca: Option<PathBuf>,
    /// Where the last known state is kept for the next start.
    pub state_file: Option<PathBuf>,
    /// When a region that is full passes clients on.
    pub spill: Spill,
}

/// A node whose vote counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VantagePoint {
    /// Its name, as its own `peer.name` has it.
    pub name: String,
    /// Its peer listener: `https://host:port`.
    pub url: String,
}

/// Use of a region: running and queued requests over its capacity.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Spill {
    /// Above it more clients are passed on.
    pub start: f64,
    /// Below it they come back.
    pub stop: f64,
    /// The most that is passed on at once, a share of all clients.
    pub step: f64,
}

impl Default for Spill {
    fn default() -> Self {
        Self { start: 0.8, stop: 0.65, step: 0.1 }
    }
}

/// A share of what there is; over 1 where more is asked than there is.
struct Use(f64);

impl Field for Use {
    const EXPECTED: &'static str = "a number over 0, up to 10";
    fn parse(value: &Value) -> Option<Self> {
        value.as_f64().filter(|share| *share > 0.0 && *share <= 10.0).map(Self)
    }
}

impl Spill {
    fn from_section(mut section: Section<'_>) -> Self {
        let default = Self::default();
        let mut share = |name, default| section.optional(name).map_or(default, |Use(share)| share);
        let spill = Self {
            start: share("start", default.start),
            stop: share("stop", default.stop),
            step: share("step", default.step),
        };
        if spill.stop >= spill.start {
            let fix = "Write less than `start`: between the two nothing changes";
            section.problem("stop", "is not below `start`", fix);
        }
        section.finish();
        spill
    }
}

impl Health {
    pub(crate) fn from_section(mut section: Section<'_>, regions: &[Region]) -> Option<Self> {
        let vantage_points = read_points(&mut section);
        let interval = section.or("interval", defaults::HEALTH_INTERVAL);
        let deadline = section.or("deadline", defaults::HEALTH_DEADLINE);
        let exchange = section.or("exchange", defaults::HEALTH_EXCHANGE);
        let fresh = section.or("fresh", defaults::HEALTH_FRESH);
        if fresh < interval + 2 * deadline + exchange {
            // A look, that of the witnesses behind it, and the way to the others.
            let fix = "Write at least `interval`, twice `deadline` and `exchange` together: until then no newer one can be there";
            section.problem("fresh", "is over before the next vote", fix);
        }
        let mut count = |name, default: u32| {
            let given = section.or(name, default);
            if given == 0 {
                section.problem(name, "is 0", "Write a number from 1");
            }
            given
        };
        let fall = count("fall", defaults::HEALTH_FALL);
        let rise = count("rise", defaults::HEALTH_RISE);
        let hold = section.or("hold", defaults::HEALTH_HOLD);
        let witnesses: Vec<String> = section.optional("witnesses").unwrap_or_default();
        if let Some(bad) = witnesses.iter().find(|target| split_target(target).is_none()) {
            let fix =
                "Write host:port of something that does not fail with a region, such as a resolver";
            section.problem("witnesses", format!("has `{bad}`"), fix);
        }
        let host: Option<String> = section.optional("host");
        if host.as_deref().is_some_and(|host| !is_host(host)) {
            section.problem("host", "is no domain name", "Write one such as ide.example.com");
        }
        let ca = section.optional("ca");
        let state_file = section.optional("state_file");
        let spill = Spill::from_section(section.section("spill"));
        if let Some(blind) = regions.iter().find(|region| region.health.is_none()) {
            let what = format!("cannot be known of the region `{}`", blind.name);
            let fix = "Write `health: https://ADDRESS/health` at each of `regions`";
            section.problem("vantage_points", what, fix);
        }
        section.finish();
        Some(Self {
            vantage_points: vantage_points?,
            interval,
            deadline,
            exchange,
            fresh,
            fall,
            rise,
            hold,
            witnesses,
            host,
            ca,
            state_file,
            spill,
        })
    }
}

fn read_points(health: &mut Section<'_>) -> Option<Vec<VantagePoint>> {
    let mut names = HashSet::new();
    let points = health.sections("vantage_points").into_iter().map(|mut section| {
        let name: Option<String> = section.required("name");
        if let Some(name) = &name {
            if http_token(name).is_none() {
                section.problem("name", "is no name", "Use letters, digits, `-`, `_` and `.`");
            }
            if !names.insert(name.clone()) {
                section.problem("name", "is another one's", "Give each vantage point its own");
            }
        }
        let url: Option<String> = section.required("url");
        if url.as_ref().is_some_and(|url| !url.starts_with("https://") || !is_url(url)) {
            let fix = "Write its peer listener, such as https://10.1.0.5:8443";
            section.problem("url", "is no https URL", fix);
        }
        section.finish();
        Some(VantagePoint { name: name?, url: url? })
    });
    let points: Option<Vec<VantagePoint>> = points.collect();
    if points.as_ref().is_some_and(|points| points.len() < 3) {
        // When a region is down its own edge says nothing, and one that is left is no majority.
        let fix = "Name three or more: two regions need a third vantage point, such as a DNS server elsewhere";
        health.problem("vantage_points", "are fewer than three", fix);
    }
    points
}
