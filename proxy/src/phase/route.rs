//! Which upstream next: what is known of all of them now, given to the decision
//! ([`nearhop_routing::route`]), which is pure and says why.

use std::{net::IpAddr, sync::Arc, time::Instant};

use nearhop_conf::Region;
use nearhop_geo::{
    Health, Place, Query, RegionId, Settings, Source, State, Vantage, World, decide,
};
use nearhop_routing::{Asking, Chain, Class, Kinds, Plan, Tried, UpstreamId, View, route};
use nearhop_wire::{Input, ModelReport};

use super::{Shared, admit::Admitted};
use crate::upstream::member::{Role, Upstream};

/// The order of other regions.
pub(crate) struct Regions {
    world: World,
    here: String,
}

impl Regions {
    /// `None` where there are no other regions to ask.
    pub(crate) fn new(regions: &[Region], here: &str) -> Option<Self> {
        let place =
            |region: &Region| region.location.and_then(|(north, east)| Place::new(north, east));
        let all = regions.iter().filter_map(|region| {
            Some(nearhop_geo::Region {
                id: RegionId::new(&region.name)?,
                place: place(region),
                addresses: region.addresses.clone(),
                weight: region.weight,
                bias: region.bias,
                drained: region.drained,
            })
        });
        // Whoever asks this edge is near it, as far as is known here.
        let home = regions.iter().find(|region| region.name == here).and_then(place);
        let settings = Settings { home, ..Settings::default() };
        let world = World::new(all.collect(), settings, None, None).ok()?;
        Some(Self { world, here: here.to_owned() })
    }

    /// Every other region in the order to ask them in, and whether it is out.
    fn order(&self, vantage: Option<&Vantage>, client: IpAddr) -> Vec<(RegionId, bool)> {
        let regions = self.world.regions();
        let state = |id: &RegionId| vantage.map(|vantage| vantage.state(id.as_str()));
        let states: Vec<State> =
            regions.iter().map(|region| state(&region.id).unwrap_or_default()).collect();
        let world = self.world.with_states(states);
        let query = Query { service: "edge", address: client, source: Source::Client };
        let others = decide(&query, &world).candidates.into_iter();
        let drained = |at: usize| regions[at].drained;
        others
            .filter(|candidate| candidate.id.as_str() != self.here)
            .map(|candidate| {
                let out = candidate.state.health == Health::Down || drained(candidate.region);
                (candidate.id, out)
            })
            .collect()
    }
}

/// What a request asks of routing beside itself.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Constraints {
    /// It goes on with an answer: only the same weights will do.
    pub(crate) resuming: bool,
    /// Another region sent it here: it goes to a pod of this one, or nowhere.
    pub(crate) from_region: bool,
    /// It is nobody's request: it goes to a pod of this region, or nowhere.
    pub(crate) at_leisure: bool,
}

/// Everything that a decision was made by, and the decision.
pub(crate) struct Routed {
    pub(crate) upstreams: Arc<Vec<Arc<Upstream>>>,
    pub(crate) views: Vec<View>,
    pub(crate) plan: Plan,
}

impl Routed {
    /// Whether anything waits at a pod.
    pub(crate) fn queues(&self) -> bool {
        self.views.iter().any(|view| view.class == Class::Pod && view.queued > 0)
    }
}

/// The blocks of a request's prompt, in the order in which its model lays it out.
pub(crate) fn chain(shared: &Shared, admitted: &Admitted) -> Option<Chain> {
    shared.upstreams.has_affinity().then_some(())?;
    let salt = salt(&admitted.head.caller.tenant, &admitted.model);
    Some(match &admitted.request.input {
        Input::Fim { prefix, suffix } if admitted.model.suffix_first => {
            Chain::of(salt, &[suffix, prefix])
        }
        input => Chain::of(salt, &input.texts()),
    })
}

/// Prompts of two tenants, or of two models, have no block in common.
fn salt(tenant: &str, model: &ModelReport) -> u64 {
    use std::hash::{DefaultHasher, Hash as _, Hasher as _};
    let mut hasher = DefaultHasher::new();
    (tenant, &model.name, &model.revision, &model.template).hash(&mut hasher);
    hasher.finish()
}

/// Decides, for a request that has tried so much.
pub(crate) fn plan(
    shared: &Shared,
    admitted: &Admitted,
    (chain, tried): (Option<&Chain>, &[(UpstreamId, Tried)]),
    constraints: Constraints,
    (now, seed): (Instant, u64),
) -> Routed {
    let upstreams = Arc::clone(&shared.upstreams.all());
    let any_region = upstreams.iter().any(|one| one.class() == Class::Region);
    let regions = shared.regions.as_ref().filter(|_| any_region);
    let vantage = shared.vantage.as_deref();
    let order = regions.map(|regions| regions.order(vantage, admitted.client)).unwrap_or_default();
    let mut views: Vec<View> = upstreams.iter().map(|one| view(one, &order, tried, now)).collect();
    if let Some(chain) = chain {
        shared.upstreams.matched(chain, &mut views);
    }
    let backup = shared.upstreams.model(Some(BACKUP));
    let egress = &admitted.head.caller.egress;
    let asking = Asking {
        model: &admitted.model,
        pinned: admitted.pinned(),
        backup: backup.as_deref().filter(|_| !admitted.pinned()),
        kind: admitted.kind,
        shape: admitted.request.kind(),
        tools: admitted.request.offers_tools(),
        regions: egress.regions.as_deref(),
        providers: &egress.providers,
        resuming: constraints.resuming,
        from_region: constraints.from_region || constraints.at_leisure,
        level: shared.level(),
    };
    let plan = route(&views, &asking, seed);
    Routed { upstreams, views, plan }
}

/// The alias of the model that stands in where nobody serves the one that was asked for.
pub(crate) const BACKUP: &str = "backup";

fn view(
    upstream: &Arc<Upstream>,
    order: &[(RegionId, bool)],
    tried: &[(UpstreamId, Tried)],
    now: Instant,
) -> View {
    let look = upstream.look(now);
    let is_tried = tried.iter().find(|(id, _)| *id == upstream.id);
    let slots = look.report.as_ref().map_or(0, |report| report.slots);
    let (order, region_down, kinds) = match &upstream.role {
        Role::Region(region) => {
            let at = order.iter().position(|(id, _)| id.as_str() == &**region);
            let down = at.is_none_or(|at| order[at].1);
            (at.map_or(u32::MAX, |at| u32::try_from(at).unwrap_or(u32::MAX)), down, Kinds::ALL)
        }
        Role::Provider(provider) => (provider.priority(), false, provider.kinds()),
        Role::Pod | Role::Local => (0, false, Kinds::ALL),
    };
    View {
        id: upstream.id,
        name: Arc::clone(&upstream.policy),
        class: upstream.class(),
        standing: look.standing,
        offers: upstream.offers(look.report.as_ref()),
        kinds,
        // Others send it requests too.
        in_flight: look.in_flight.max(look.running),
        queued: look.queued,
        slots,
        slowness: look.slowness,
        ready_for: look.ready_for,
        order,
        region_down,
        paused: look.paused,
        matched: 0.0,
        doubted: look.doubted,
        tried: is_tried.map_or(Tried::No, |(_, tried)| *tried),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn region(name: &str, location: (f64, f64), drained: bool) -> Region {
        Region {
            name: name.to_owned(),
            location: Some(location),
            addresses: vec![[192, 0, 2, 1].into()],
            weight: 1.0,
            bias: 0.0,
            drained,
            health: None,
            peers: Vec::new(),
        }
    }

    #[test]
    fn other_regions_come_by_their_distance_from_here_and_drained_ones_are_out() {
        let regions = [
            region("ap-south", (19.1, 72.9), false),
            region("us-west", (37.4, -122.1), false),
            region("eu-west", (53.3, -6.3), false),
            region("eu-north", (59.3, 18.1), true),
        ];
        let client = IpAddr::from([198, 51, 100, 7]);
        let order = |here: &str| -> Vec<(String, bool)> {
            let regions = Regions::new(&regions, here).unwrap();
            let order = regions.order(None, client).into_iter();
            order.map(|(id, out)| (id.to_string(), out)).collect()
        };
        let out = |name: &str, out| (name.to_owned(), out);
        assert_eq!(
            order("eu-west"),
            [out("ap-south", false), out("us-west", false), out("eu-north", true)]
        );
        assert_eq!(
            order("us-west"),
            [out("eu-west", false), out("ap-south", false), out("eu-north", true)]
        );
    }
}
