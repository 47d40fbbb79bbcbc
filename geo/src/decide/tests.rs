use std::path::PathBuf;

use proptest::prelude::*;

use super::*;
use crate::{Override, Region, Settings, WorldError};

const LONDON: &str = "81.2.69.142";
const CHINA: &str = "175.16.199.1";
const SEATTLE_AREA: &str = "216.160.83.57";
const NOWHERE: &str = "192.0.2.1";

fn region(name: &str, latitude: f64, longitude: f64, last: u8) -> Region {
    Region {
        id: RegionId::new(name).unwrap(),
        place: Place::new(latitude, longitude),
        addresses: vec![IpAddr::from([203, 0, 113, last])],
        weight: 1.0,
        bias: 0.0,
        drained: false,
    }
}

fn regions() -> Vec<Region> {
    vec![
        region("us-west", 37.4, -122.1, 1),
        region("eu-west", 53.3, -6.3, 2),
        region("ap-south", 19.1, 72.9, 3),
    ]
}

fn city() -> Vec<u8> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data/GeoIP2-City-Test.mmdb");
    std::fs::read(path).unwrap()
}

fn world_of(regions: Vec<Region>, settings: Settings) -> World {
    World::new(regions, settings, Some(&city()), None).unwrap()
}

fn world() -> World {
    world_of(regions(), Settings::default())
}

fn ask(world: &World, address: &str) -> Decision {
    let address = address.parse().unwrap();
    decide(&Query { service: "complete", address, source: Source::ClientSubnet }, world)
}

fn names(decision: &Decision) -> Vec<(&str, Verdict)> {
    decision.candidates.iter().map(|candidate| (candidate.id.as_str(), candidate.verdict)).collect()
}

fn chosen<'a>(world: &World, decision: &'a Decision) -> &'a str {
    let region = decision.region().unwrap();
    assert_eq!(decision.answers, world.regions()[region.region].addresses);
    region.id.as_str()
}

fn with(world: &World, change: impl Fn(&mut State), region: usize) -> World {
    let mut states = world.states.clone();
    change(&mut states[region]);
    world.with_states(states)
}

#[test]
fn the_nearest_region_is_next() {
    let world = world();
    for (address, name) in [(LONDON, "eu-west"), (SEATTLE_AREA, "us-west"), (CHINA, "ap-south")] {
        let decision = ask(&world, address);
        assert_eq!(chosen(&world, &decision), name, "{address}: {decision:#?}");
    }
    let london = ask(&world, LONDON);
    assert!((london.candidates[0].distance_km.unwrap() - 465.0).abs() < 60.0);
    assert_eq!(london.candidates.iter().map(|c| c.tier).collect::<Vec<_>>(), [0, 1, 2]);
    let mapped = ask(&world, "::ffff:81.2.69.142");
    assert_eq!((mapped.answers, mapped.scope), (london.answers, london.scope));
}

#[test]
fn a_region_that_is_down_or_drained_is_out() {
    let world = world();
    let down = with(&world, |state| state.health = Health::Down, 1);
    let decision = ask(&down, LONDON);
    assert_eq!(names(&decision)[2], ("eu-west", Verdict::Down));
    assert_eq!(chosen(&down, &decision), "ap-south");
    let mut drained = regions();
    drained[1].drained = true;
    let drained = world_of(drained, Settings::default());
    let decision = ask(&drained, LONDON);
    assert_eq!(names(&decision)[2], ("eu-west", Verdict::Drained));
    assert_eq!(decision.scope, ask(&down, LONDON).scope, "one answer for the whole prefix");
}

#[test]
fn when_all_are_down_the_policy_answers() {
    let all_down = |policy: AllDown| {
        let world = world_of(regions(), Settings { all_down: policy, ..Settings::default() });
        let down = State { health: Health::Down, ..State::default() };
        world.with_states(vec![down; 3])
    };
    let nearest = all_down(AllDown::Nearest);
    let decision = ask(&nearest, LONDON);
    assert!(decision.all_down);
    assert_eq!(chosen(&nearest, &decision), "eu-west");
    let nothing = ask(&all_down(AllDown::NoData), LONDON);
    assert!(nothing.all_down && nothing.answers.is_empty() && nothing.region().is_none());
    let address = IpAddr::from([198, 51, 100, 9]);
    assert_eq!(ask(&all_down(AllDown::Fallback(vec![address])), LONDON).answers, [address]);
}

#[test]
fn a_bias_draws_clients() {
    let mut regions = regions();
    regions[0].bias = 97.0;
    let world = world_of(regions, Settings { alike_km: 0.0, ..Settings::default() });
    let decision = ask(&world, LONDON);
    assert_eq!(chosen(&world, &decision), "us-west");
    let first = &decision.candidates[0];
    assert!(first.biased_km.unwrap() < first.distance_km.unwrap() / 20.0);
}

#[test]
fn regions_that_are_as_near_share_by_weight_and_the_scope_says_so() {
    let mut regions = regions();
    regions.push(Region { weight: 3.0, ..region("eu-north", 53.5, -2.2, 4) });
    let world = world_of(regions, Settings::default());
    let decision = ask(&world, LONDON);
    assert_eq!(decision.candidates[0].tier, decision.candidates[1].tier);
    assert!(decision.scope >= 24, "{}", decision.scope);
    let share = |name: &str| {
        let asked =
            (0..4000u32).map(|at| ClientPrefix::of(IpAddr::V4((0x5102_0000 + (at << 8)).into())));
        let score = |prefix: ClientPrefix, region: &Region| {
            prefix.score(Seed::of("complete", region.id.as_str()), region.weight)
        };
        let won = asked.filter(|prefix| {
            let (old, new) =
                (score(*prefix, &world.regions()[1]), score(*prefix, &world.regions()[3]));
            (new > old) == (name == "eu-north")
        });
        won.count() as f64 / 4000.0
    };
    assert!((share("eu-north") - 0.75).abs() < 0.03);
}

#[test]
fn a_full_region_gives_a_share_of_its_prefixes_to_the_next() {
    let world = world_of(regions(), Settings { alike_km: 0.0, ..Settings::default() });
    let full = with(&world, |state| state.moved = 0.3, 1);
    let networks = (0..3000u32).map(|at| IpAddr::V4((0x5102_4500u32.wrapping_add(at << 8)).into()));
    let mut moved = 0;
    let mut all = 0;
    for address in networks {
        let query = Query { service: "complete", address, source: Source::ClientSubnet };
        let (before, after) = (decide(&query, &world), decide(&query, &full));
        if before.region().unwrap().id.as_str() != "eu-west" {
            continue;
        }
        all += 1;
        assert!(after.scope >= 24);
        let first = &after.candidates[0];
        if first.id.as_str() != "eu-west" {
            moved += 1;
            let spilled = after.candidates.last().unwrap();
            assert_eq!((spilled.id.as_str(), spilled.verdict), ("eu-west", Verdict::Spilled));
        }
    }
    // The test database knows few networks; those it does not know are spread by weight.
    assert!(all > 500, "{all}");
    let share = f64::from(moved) / f64::from(all);
    assert!((share - 0.3).abs() < 0.06, "{share}");
}

#[test]
fn overrides_go_before_distance_and_the_longest_prefix_before_shorter_ones() {
    let id = |name: &str| RegionId::new(name).unwrap();
    let over = |network: &str, regions: &[&str]| Override {
        networks: vec![network.parse().unwrap()],
        systems: Vec::new(),
        regions: regions.iter().map(|name| id(name)).collect(),
    };
    let overrides =
        vec![over("81.2.69.128/25", &["ap-south", "us-west"]), over("81.2.0.0/16", &["us-west"])];
    let settings = Settings { overrides, ..Settings::default() };
    let world = world_of(regions(), settings.clone());
    let decision = ask(&world, LONDON);
    assert_eq!(
        names(&decision).iter().map(|(name, _)| *name).collect::<Vec<_>>(),
        ["ap-south", "us-west", "eu-west"]
    );
    assert_eq!((decision.by_override, decision.scope), (Some(0), 25));
    assert_eq!(chosen(&world, &ask(&world, "81.2.7.7")), "us-west");
    let unknown = Settings { overrides: vec![over("10.0.0.0/8", &["mars"])], ..settings };
    let error = World::new(regions(), unknown, None, None).unwrap_err();
    assert!(matches!(error, WorldError::UnknownRegion(_)), "{error}");
}

#[test]
fn an_override_by_system_needs_its_database() {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data/GeoLite2-ASN-Test.mmdb");
    let systems = std::fs::read(path).unwrap();
    let given = Override {
        networks: vec!["1.128.0.0/24".parse().unwrap()],
        systems: vec![1221],
        regions: vec![RegionId::new("us-west").unwrap()],
    };
    let settings = Settings { overrides: vec![given], ..Settings::default() };
    let world = World::new(regions(), settings, Some(&city()), Some(&systems)).unwrap();
    assert_eq!(chosen(&world, &ask(&world, "1.130.0.1")), "us-west");
    assert!(ask(&world, "1.130.0.1").scope <= 11);
}

#[test]
fn without_a_database_weights_decide_and_it_says_so() {
    let world = World::new(regions(), Settings::default(), None, None).unwrap();
    assert!(!world.is_located());
    let decision = ask(&world, NOWHERE);
    assert!(decision.place.is_none() && decision.candidates.iter().all(|c| c.tier == 0));
    assert_eq!(decision.scope, 24);
    let seen: std::collections::HashSet<String> = (0..64u8)
        .map(|at| chosen(&world, &ask(&world, &format!("10.0.{at}.1"))).to_owned())
        .collect();
    assert_eq!(seen.len(), 3, "{seen:?}");
    assert!(matches!(
        World::new(Vec::new(), Settings::default(), None, None),
        Err(WorldError::NoRegion)
    ));
}

fn states() -> impl Strategy<Value = Vec<State>> {
    let state = (0u8..3, 0.0f64..1.0).prop_map(|(health, moved)| State {
        health: [Health::Unknown, Health::Up, Health::Down][usize::from(health)],
        moved: if moved < 0.5 { 0.0 } else { moved },
        ..State::default()
    });
    prop::collection::vec(state, 3)
}

proptest! {
    #[test]
    fn no_region_that_is_out_is_chosen_while_another_is_not(
        states in states(), address in any::<u32>(), drained in prop::collection::vec(any::<bool>(), 3),
    ) {
        let mut regions = regions();
        regions.iter_mut().zip(&drained).for_each(|(region, drained)| region.drained = *drained);
        let world = world_of(regions, Settings::default()).with_states(states.clone());
        let address = IpAddr::V4(address.into());
        let decision = decide(&Query { service: "s", address, source: Source::Client }, &world);
        let out = |at: usize| drained[at] || states[at].health == Health::Down;
        let region = decision.region().unwrap().region;
        prop_assert!(!out(region) || (0..3).all(out));
        prop_assert_eq!(decision.all_down, (0..3).all(out));
        prop_assert_eq!(decision.candidates.len(), 3);
    }

    #[test]
    fn an_answer_holds_for_all_of_its_scope(states in states(), address in any::<u32>(), other in any::<u32>()) {
        let world = world().with_states(states);
        let ask = |address: u32| {
            let address = IpAddr::V4(address.into());
            decide(&Query { service: "s", address, source: Source::ClientSubnet }, &world)
        };
        let decision = ask(address);
        let host = u32::MAX.checked_shr(decision.scope.into()).unwrap_or(0);
        let neighbour = ask((address & !host) | (other & host));
        prop_assert_eq!(&neighbour.answers, &decision.answers);
        prop_assert_eq!(neighbour.scope, decision.scope, "no scope lies inside another");
    }

    /// The short way to an answer is the long one's.
    #[test]
    fn what_is_chosen_is_what_is_decided(
        states in states(), address in any::<u32>(), v6: bool, alike_km in prop::sample::select(vec![0.0, 9000.0, 20000.0]),
        drained in prop::collection::vec(prop::bool::weighted(0.2), 3), all_down in 0usize..3,
        heavy: bool,
    ) {
        let mut regions = regions();
        if heavy {
            regions[2].weight = 2.5;
        }
        regions.iter_mut().zip(&drained).for_each(|(region, drained)| region.drained = *drained);
        let fallback = vec![IpAddr::from([192, 0, 2, 99])];
        let all_down =
            [AllDown::Nearest, AllDown::NoData, AllDown::Fallback(fallback.clone())][all_down].clone();
        let settings = Settings { alike_km, all_down, ..Settings::default() };
        let world = world_of(regions, settings).with_states(states);
        let address = match v6 {
            true => IpAddr::V6((0x2001_0218u128 << 96 | u128::from(address) << 64).into()),
            false => IpAddr::V4(address.into()),
        };
        let decision = decide(&Query { service: "s", address, source: Source::Client }, &world);
        let (chosen, scope) = choose(&seeds("s", &world), address, &world);
        let answers = match chosen {
            Chosen::Region(at) => world.regions()[at].addresses.clone(),
            Chosen::Fallback => fallback,
            Chosen::Nothing => Vec::new(),
        };
        prop_assert_eq!((answers, scope), (decision.answers, decision.scope));
    }
}
