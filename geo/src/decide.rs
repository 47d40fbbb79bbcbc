//! Which region is next for a client, and why. Pure.
//!
//! In this order: an override or the distance gives the tiers; regions that are down or drained are
//! out; of a region that is full, a share of its prefixes goes on to the next; within a tier weighted
//! rendezvous hashing gives each client prefix its region, the same on every server.

use std::net::IpAddr;

use crate::{
    AllDown, ClientPrefix, Health, Place, RegionId, State, World,
    hash::Seed,
    world::{Class, biased_km},
};

/// Whose address it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// The client's network, as its resolver tells it (EDNS Client Subnet, RFC 7871).
    ClientSubnet,
    /// The resolver's own: the client may be elsewhere.
    Resolver,
    /// The client's own, as a proxy sees it.
    Client,
}

impl Source {
    /// Its name in explanations.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::ClientSubnet => "client subnet",
            Self::Resolver => "resolver",
            Self::Client => "client",
        }
    }
}

/// What is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Query<'a> {
    /// The service's name: services are spread independently.
    pub service: &'a str,
    /// The address to be near to.
    pub address: IpAddr,
    /// Whose it is.
    pub source: Source,
}

/// What is made of a region.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It is the answer.
    Chosen,
    /// It would be, if those before it were not there.
    Next,
    /// It is full, and this prefix is among those that go on; behind those that are not.
    Spilled,
    /// It is down, as a quorum sees it.
    Down,
    /// The operator took it out.
    Drained,
}

impl Verdict {
    /// Its name in explanations.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Chosen => "chosen",
            Self::Next => "next",
            Self::Spilled => "spilled",
            Self::Down => "down",
            Self::Drained => "drained",
        }
    }

    /// Whether it may be used.
    const fn is_usable(self) -> bool {
        matches!(self, Self::Chosen | Self::Next | Self::Spilled)
    }
}

/// A region, with all that spoke for and against it.
#[derive(Debug, Clone, PartialEq)]
pub struct Candidate {
    /// Its place in [`World::regions`].
    pub region: usize,
    /// Its name.
    pub id: RegionId,
    /// Regions of a tier are about as near; 0 is the nearest.
    pub tier: usize,
    /// Great-circle distance, kilometres, where both places are known.
    pub distance_km: Option<f64>,
    /// The same with the region's bias: what counts.
    pub biased_km: Option<f64>,
    /// How much this client prefix belongs to it; the highest of a tier has it.
    pub score: f64,
    /// What is known of it.
    pub state: State,
    /// What is made of it.
    pub verdict: Verdict,
}

/// A decision, with its reasons.
#[derive(Debug, Clone, PartialEq)]
pub struct Decision {
    /// Who is spread together: a /24 or a /56.
    pub prefix: ClientPrefix,
    /// Where the client is, as far as a database says.
    pub place: Option<Place>,
    /// The override that named the order, by its place in the settings.
    pub by_override: Option<usize>,
    /// All regions, the first usable one first, those that are out last.
    pub candidates: Vec<Candidate>,
    /// The addresses to answer with; none where nothing is to be answered.
    pub answers: Vec<IpAddr>,
    /// Whether no region is usable, so that the policy for that was followed.
    pub all_down: bool,
    /// For how many bits of the address the same is decided.
    pub scope: u8,
}

impl Decision {
    /// The region that is the answer.
    #[must_use]
    pub fn region(&self) -> Option<&Candidate> {
        self.candidates.iter().find(|candidate| candidate.verdict == Verdict::Chosen)
    }
}

/// Decides which region is next.
#[must_use]
pub fn decide(query: &Query<'_>, world: &World) -> Decision {
    let address = query.address.to_canonical();
    let prefix = ClientPrefix::of(address);
    let place = world.place_of(address);
    let found = world.map().classes.find(address);
    let class = &world.map().class_list[found.value as usize];
    let mut candidates: Vec<Candidate> = class
        .order
        .iter()
        .map(|(region, tier)| candidate(query, world, (prefix, place), (*region, *tier)))
        .collect();
    // Usable before out; full ones behind those that are not; then as near, and by score.
    let rank = |candidate: &Candidate| match candidate.verdict {
        Verdict::Chosen | Verdict::Next => 0,
        Verdict::Spilled => 1,
        Verdict::Down | Verdict::Drained => 2,
    };
    candidates.sort_by(|a, b| {
        (rank(a), a.tier).cmp(&(rank(b), b.tier)).then(b.score.total_cmp(&a.score))
    });
    let all_down = !candidates[0].verdict.is_usable();
    let answers = match (&world.settings().all_down, all_down) {
        (_, false) | (AllDown::Nearest, true) => {
            if all_down {
                // As if all were well.
                candidates.sort_by(|a, b| a.tier.cmp(&b.tier).then(b.score.total_cmp(&a.score)));
            }
            candidates[0].verdict = Verdict::Chosen;
            world.regions()[candidates[0].region].addresses.clone()
        }
        (AllDown::NoData, true) => Vec::new(),
        (AllDown::Fallback(addresses), true) => addresses.clone(),
    };
    let scope = match depends_on_prefix(class, world) {
        true => found.bits.max(prefix.bits),
        false => found.bits,
    };
    let by_override = class.by_override;
    Decision { prefix, place, by_override, candidates, answers, all_down, scope }
}

/// Whose addresses are answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Chosen {
    /// Those of a region, by its place in [`World::regions`].
    Region(usize),
    /// Those of the policy for the day when all are out.
    Fallback,
    /// Nobody's.
    Nothing,
}

/// What the draws for a service begin with, of each region.
pub(crate) fn seeds(service: &str, world: &World) -> Vec<Seed> {
    world.regions().iter().map(|region| Seed::of(service, region.id.as_str())).collect()
}

/// What [`decide`] decides, without its reasons and in a tenth of its time; and the scope. `seeds`
/// are those of the service.
pub(crate) fn choose(seeds: &[Seed], address: IpAddr, world: &World) -> (Chosen, u8) {
    let address = address.to_canonical();
    let prefix = ClientPrefix::of(address);
    let found = world.map().classes.find(address);
    let class = &world.map().class_list[found.value as usize];
    let scope = match depends_on_prefix(class, world) {
        true => found.bits.max(prefix.bits),
        false => found.bits,
    };
    let any = class.order.iter().any(|(at, _)| is_well(world, *at));
    if !any {
        match world.settings().all_down {
            AllDown::Nearest => {}
            AllDown::NoData => return (Chosen::Nothing, scope),
            AllDown::Fallback(_) => return (Chosen::Fallback, scope),
        }
    }
    let spilled = |at: usize| {
        let moved = world.states[at].moved;
        any && moved > 0.0 && prefix.draw(seeds[at], 1) < moved
    };
    // Behind those that are not full are those that are; then as near; in a tier by score.
    let mut best: Option<((bool, usize), usize)> = None;
    // Where all weigh the same, who draws more scores more, and no logarithm is needed.
    let weight = world.regions()[0].weight;
    let alike = world.regions().iter().all(|region| region.weight.total_cmp(&weight).is_eq());
    let mut best_score = None;
    let score = |at: usize| match alike {
        true => prefix.draw(seeds[at], 0),
        false => prefix.score(seeds[at], world.regions()[at].weight),
    };
    for (at, tier) in class.order.iter().filter(|(at, _)| !any || is_well(world, *at)) {
        if let Some(((false, found), _)) = best
            && found < *tier
        {
            break;
        }
        let rank = (spilled(*at), *tier);
        match best {
            Some((least, _)) if rank > least => {}
            Some((least, first)) if rank == least => {
                let before = best_score.unwrap_or_else(|| score(first));
                let this = score(*at);
                // Of equal scores the first stays, as a stable sort has it.
                let better = this > before;
                best_score = Some(if better { this } else { before });
                best = Some((rank, if better { *at } else { first }));
            }
            _ => (best, best_score) = (Some((rank, *at)), None),
        }
    }
    (best.map_or(Chosen::Nothing, |(_, at)| Chosen::Region(at)), scope)
}

fn is_well(world: &World, at: usize) -> bool {
    !world.regions()[at].drained && world.states[at].health != Health::Down
}

fn candidate(
    query: &Query<'_>,
    world: &World,
    (prefix, place): (ClientPrefix, Option<Place>),
    (at, tier): (usize, usize),
) -> Candidate {
    let (region, state) = (&world.regions()[at], world.states[at]);
    let seed = Seed::of(query.service, region.id.as_str());
    let moved = state.moved > 0.0 && prefix.draw(seed, 1) < state.moved;
    let verdict = match (region.drained, state.health, moved) {
        (true, _, _) => Verdict::Drained,
        (_, Health::Down, _) => Verdict::Down,
        (_, _, true) => Verdict::Spilled,
        _ => Verdict::Next,
    };
    Candidate {
        region: at,
        id: region.id.clone(),
        tier,
        distance_km: place.zip(region.place).map(|(here, there)| here.distance_km(there)),
        biased_km: biased_km(region, place),
        score: prefix.score(seed, region.weight),
        state,
        verdict,
    }
}

/// Whether clients of one class may get different answers by their prefix: where the nearest usable
/// region has others beside it, or is full.
fn depends_on_prefix(class: &Class, world: &World) -> bool {
    let well = |at: usize| is_well(world, at);
    let any = class.order.iter().any(|(at, _)| well(*at));
    let mut usable = class.order.iter().filter(|(at, _)| !any || well(*at));
    let Some((first, tier)) = usable.next() else { return false };
    let beside = usable.next().is_some_and(|(_, next)| next == tier);
    beside || (any && world.states[*first].moved > 0.0)
}

#[cfg(test)]
mod tests;
