use proptest::prelude::*;

use super::*;

const ALL: [Kind; 4] = [Kind::Inline, Kind::Fim, Kind::Chat, Kind::Agent];

fn model(name: &str, revision: &str) -> ModelReport {
    ModelReport {
        name: name.into(),
        revision: revision.into(),
        template: "t".into(),
        temperature: 0.0,
        max_tokens: 64,
        context_length: 1024,
        aliases: vec!["alias".into()],
        suffix_first: false,
    }
}

/// Serves `models`, and keeps `kept` for those who name the revision.
fn report(models: &[ModelReport], kept: &[ModelReport]) -> Offers {
    let report =
        PodReport { models: models.to_vec(), kept: kept.to_vec(), slots: 8, embedders: Vec::new() };
    Offers::Report(Arc::new(report))
}

/// A well upstream that serves the model at revision 1.
fn view(class: Class, name: &str) -> View {
    let offers = match class {
        Class::Pod | Class::Region => report(&[model("m", "1")], &[]),
        Class::Provider => Offers::Names(["*".into()].into()),
        Class::Local => Offers::Unknown,
    };
    View {
        id: UpstreamId(0),
        name: name.into(),
        class,
        standing: Standing::Ready,
        offers,
        kinds: Kinds::ALL,
        in_flight: 0,
        queued: 0,
        slots: 8,
        slowness: 1.0,
        ready_for: None,
        doubted: false,
        order: 0,
        region_down: false,
        paused: false,
        matched: 0.0,
        tried: Tried::No,
    }
}

fn pod(name: &str) -> View {
    view(Class::Pod, name)
}

fn region(name: &str, order: u32) -> View {
    View { order, ..view(Class::Region, name) }
}

fn provider(name: &str, order: u32) -> View {
    View { order, ..view(Class::Provider, name) }
}

fn local() -> View {
    view(Class::Local, "local")
}

fn out(view: View) -> View {
    View { standing: Standing::Out(Reason::Dead), ..view }
}

fn probing(view: View) -> View {
    View { standing: Standing::Probing, ..view }
}

/// Its checks fail, and it is the last.
fn doubted(view: View) -> View {
    View { doubted: true, ..view }
}

fn lost(view: View) -> View {
    View { tried: Tried::Lost, ..view }
}

fn refused(view: View) -> View {
    View { tried: Tried::Refused, ..view }
}

/// Serves the backup model alone.
fn spare(view: View) -> View {
    View { offers: report(&[model("b", "1")], &[]), ..view }
}

/// Asks for `model` from own pods and other regions.
fn plain(model: &ModelReport) -> Asking<'_> {
    Asking {
        model,
        pinned: false,
        backup: None,
        kind: Kind::Fim,
        shape: Kind::Fim,
        tools: false,
        regions: None,
        providers: &[],
        resuming: false,
        from_region: false,
        level: Level::L0,
    }
}

/// A seed that is no probe.
const SEED: u64 = 1;

/// Routes a completion that may go anywhere, after `change`.
fn routed(views: &[View], change: impl Fn(&mut Asking<'_>)) -> Plan {
    let (model, backup) = (model("m", "1"), model("b", "1"));
    let providers = ["x".to_owned(), "y".to_owned()];
    let mut asking = Asking { backup: Some(&backup), providers: &providers, ..plain(&model) };
    change(&mut asking);
    assert!(!may_probe(&plain(&model), SEED));
    route(views, &asking, SEED)
}

/// `name: why` of the candidates, `name! why not` of the others.
fn told(views: &[View], plan: &Plan) -> String {
    let name = |at: usize| &views[at].name;
    let candidates = plan
        .candidates
        .iter()
        .map(|candidate| format!("{}: {}", name(candidate.at), candidate.why.name()));
    let left_out = plan.left_out.iter().map(|(at, why)| format!("{}! {}", name(*at), why.name()));
    candidates.chain(left_out).collect::<Vec<_>>().join(", ")
}

#[track_caller]
fn check(views: &[View], expected: &str) {
    check_for(|_| (), views, expected);
}

#[track_caller]
fn check_for(change: impl Fn(&mut Asking<'_>), views: &[View], expected: &str) {
    assert_eq!(told(views, &routed(views, change)), expected);
}

#[test]
fn the_rungs_are_in_order_whatever_the_snapshots() {
    let views =
        [local(), provider("x", 0), spare(pod("s")), region("far", 2), region("near", 1), pod("a")];
    let expected = "a: only ready, near: nearest, far: next nearest, s: only ready, x: priority, \
                    local: local";
    check(&views, expected);
    let rungs =
        routed(&views, |_| ()).candidates.iter().map(|found| found.rung.name()).collect::<Vec<_>>();
    assert_eq!(rungs, ["pods", "regions", "regions", "backup", "providers", "local"]);
}

#[test]
fn a_pod_that_is_out_is_left_alone_while_anybody_else_could_answer() {
    check(&[out(pod("a")), pod("b")], "b: only ready, a! out");
    check(&[out(pod("a")), region("r", 0)], "r: nearest, a! out");
    check(&[out(pod("a")), local()], "local: local, a! out");
    check(&[out(pod("a")), refused(pod("b"))], "b! refused, a! out");
}

/// Where every pod hangs, each request would lose half of its time on the one that may not be out.
#[test]
fn the_last_pod_comes_after_whoever_is_well_while_its_checks_fail() {
    let views = [local(), provider("x", 0), spare(pod("s")), region("r", 0), doubted(pod("a"))];
    check(&views, "r: nearest, s: only ready, x: priority, a: only ready, local: local");
    check(&[doubted(pod("a")), pod("b")], "b: only ready, a: only ready");
    check(&[doubted(pod("a")), lost(pod("b"))], "a: only ready, b: again");
    check_for(
        |asking| asking.from_region = true,
        &[region("r", 0), doubted(pod("a"))],
        "a: only ready, r! hop",
    );
}

#[test]
fn with_none_ready_one_is_tried_all_the_same() {
    check(&[out(pod("a"))], "a: last resort");
    check(&[out(spare(pod("s"))), out(pod("a"))], "a: last resort, s: last resort");
    check(&[lost(out(pod("a")))], "a! out");
    check(&[out(region("r", 0))], "r! out");
    check(&[out(provider("x", 0))], "x! out");
    for reason in [Reason::Forced, Reason::Misconfigured] {
        check(&[View { standing: Standing::Out(reason), ..pod("a") }], "a! out");
    }
}

#[test]
fn a_ready_pod_may_be_tried_again_when_all_that_is_fresh_was() {
    check(&[lost(pod("a")), pod("b")], "b: only ready, a: again");
    check(&[lost(pod("a")), local()], "local: local, a: again");
    check(&[lost(pod("a")), refused(pod("b")), out(pod("c"))], "a: again, b! refused, c! out");
    check(&[lost(probing(pod("a")))], "a! lost");
    check(
        &[lost(region("r", 0)), lost(provider("x", 0)), lost(local())],
        "r! lost, x! lost, local! lost",
    );
}

#[test]
fn what_is_tried_again_comes_behind_what_is_ready_in_its_rung() {
    check(&[probing(pod("a")), pod("b"), region("r", 0)], "b: only ready, a: probe, r: nearest");
    check(&[probing(region("r", 0)), region("s", 1)], "s: next nearest, r: probe");
    let full = View { standing: Standing::Full, ..pod("a") };
    check(&[full.clone(), region("r", 0)], "r: nearest, a! full");
    let plan = routed(&[full, out(pod("b"))], |_| ());
    assert!(plan.full && plan.candidates.is_empty(), "it can wait for one that lives: {plan:?}");
    assert!(!routed(&[pod("a")], |_| ()).full);
}

#[test]
fn one_request_in_sixteen_finds_out_whether_what_was_out_works() {
    let model = model("m", "1");
    let views = [probing(pod("a")), pod("b"), pod("c")];
    let probes = |asking: &Asking<'_>| {
        (0..3200).filter(|seed| route(&views, asking, *seed).candidates[0].at == 0).count()
    };
    let found = probes(&plain(&model));
    assert!((150..250).contains(&found), "{found} of 3200, expected 200");
    assert_eq!(probes(&Asking { from_region: true, ..plain(&model) }), 0, "it has one attempt");
    assert_eq!(probes(&Asking { resuming: true, ..plain(&model) }), 0, "its reader waits");
}

#[test]
fn only_the_revision_that_was_pinned_serves() {
    let other = View { offers: report(&[model("m", "2")], &[]), ..pod("a") };
    let keeps = View { offers: report(&[model("m", "2")], &[model("m", "1")]), ..pod("k") };
    let unknown = View { offers: Offers::Unknown, ..pod("u") };
    let views = [other, keeps, unknown, pod("b")];
    // A kept revision answers to `name@revision` alone.
    check(&views, "b: only ready, a! other model, k! other model, u! unknown");
    let plan = routed(&views, |asking| asking.pinned = true);
    assert_eq!(plan.left_out, [(0, LeftOut::OtherModel), (2, LeftOut::Unknown)]);
}

#[test]
fn the_backup_stands_in_behind_all_that_serve_the_model() {
    let views = [spare(region("r", 1)), spare(pod("s")), region("far", 9)];
    check(&views, "far: next nearest, s: only ready, r: nearest");
    check_for(
        |asking| asking.backup = None,
        &views,
        "far: next nearest, r! other model, s! other model",
    );
    let keeps = View { offers: report(&[model("b", "2")], &[model("b", "1")]), ..pod("k") };
    check_for(|asking| asking.pinned = true, &[keeps], "k! other model");
}

#[test]
fn providers_go_by_priority_and_then_by_what_is_in_flight() {
    let busy = View { in_flight: 3, ..provider("x", 1) };
    check(&[busy, provider("y", 1)], "y: priority, x: priority");
    check(&[provider("x", 2), provider("y", 1)], "y: priority, x: priority");
    check(&[provider("z", 0)], "z! not allowed");
    let paused = View { paused: true, ..provider("x", 0) };
    check(&[paused, provider("y", 1)], "y: priority, x! rate limited");
    let chats = View { kinds: Kinds::of(&[Kind::Chat, Kind::Agent]), ..provider("x", 0) };
    check(&[chats], "x! kind");
    let names = |name: &str| {
        let offers = Offers::Names([name.into()].into());
        [View { offers, ..provider("x", 0) }]
    };
    check(&names("m"), "x: priority");
    check(&names("alias"), "x: priority");
    check(&names("b"), "x! other model");
}

#[test]
fn nothing_leaves_without_leave() {
    let near = ["near".to_owned()];
    let views = [region("near", 0), region("far", 1), provider("x", 0), local()];
    let model = model("m", "1");
    let plan = route(&views, &Asking { regions: Some(&near), ..plain(&model) }, SEED);
    assert_eq!(
        told(&views, &plan),
        "near: nearest, local: local, far! not allowed, x! not allowed"
    );
    let plan = route(&views, &Asking { regions: Some(&[]), ..plain(&model) }, SEED);
    assert_eq!(plan.candidates.len(), 1, "its own model: {plan:?}");
}

#[test]
fn regions_that_are_down_are_out() {
    let down = View { region_down: true, ..region("r", 0) };
    check(&[down, region("t", 2)], "t: next nearest, r! region down");
}

#[test]
fn a_stream_goes_on_with_its_revision_or_not_at_all() {
    let views = [spare(pod("s")), provider("x", 0), local(), pod("a"), region("r", 0)];
    let expected = "a: only ready, r: nearest, s! resuming, x! resuming, local! resuming";
    check_for(|asking| asking.resuming = true, &views, expected);
}

#[test]
fn one_hop_is_all() {
    let hop = |asking: &mut Asking<'_>| asking.from_region = true;
    let views =
        [spare(pod("s")), provider("x", 0), local(), pod("a"), region("r", 0), lost(pod("l"))];
    check_for(hop, &views, "a: only ready, s! hop, x! hop, local! hop, r! hop, l! lost");
    check_for(hop, &[out(pod("a"))], "a! out");
}

#[test]
fn chat_is_shed_first_and_tools_stay_with_our_own() {
    let check = |kind, level, tools, expected: &str| {
        check_for(
            |asking| (asking.kind, asking.level, asking.tools) = (kind, level, tools),
            &[local(), provider("x", 0)],
            expected,
        );
    };
    let both = "x: priority, local: local";
    check(Kind::Chat, Level::L2, false, both);
    check(Kind::Chat, Level::L3, false, "x: priority, local! level");
    check(Kind::Agent, Level::L4, false, "x: priority, local! level");
    check(Kind::Inline, Level::L4, false, both);
    check(Kind::Fim, Level::L3, false, both);
    check(Kind::Agent, Level::L0, true, "local! tools, x! tools");
}

/// How often of 400 the first is drawn.
fn share_of_first(views: &[View]) -> usize {
    let model = model("m", "1");
    let asking = plain(&model);
    (0..400).filter(|seed| route(views, &asking, *seed).candidates[0].at == 0).count()
}

#[test]
fn the_less_loaded_pod_gets_more() {
    let more = |first: View, second: View| {
        let (first, second) =
            (share_of_first(&[first.clone(), second.clone()]), share_of_first(&[second, first]));
        assert!(first < 160 && second > 240, "{first} and {second} of 400");
    };
    more(View { in_flight: 9, ..pod("a") }, View { in_flight: 1, ..pod("b") });
    more(View { queued: 9, ..pod("a") }, View { in_flight: 1, ..pod("b") });
    more(View { slots: 2, ..pod("a") }, pod("b"));
    more(View { slowness: 2.5, ..pod("a") }, pod("b"));
    more(View { ready_for: Some(Duration::from_secs(5)), ..pod("a") }, pod("b"));
}

#[test]
fn a_fresh_pod_begins_with_a_tenth_and_has_its_share_after_half_a_minute() {
    let check = |seconds: Option<u64>, expected: f64| {
        let found = share(seconds.map(Duration::from_secs));
        assert!((found - expected).abs() < 1e-9, "{seconds:?}: {found}");
    };
    check(Some(0), 0.1);
    check(Some(15), 0.55);
    check(Some(30), 1.0);
    check(Some(3000), 1.0);
    check(None, 1.0);
}

#[test]
fn the_others_follow_by_load() {
    let busy = |name, in_flight| View { in_flight, ..pod(name) };
    let plan = routed(&[busy("a", 8), busy("b", 2), busy("c", 5), busy("d", 3)], |_| ());
    let rest: Vec<usize> = plan.candidates[1..].iter().map(|found| found.at).collect();
    let by_load: Vec<usize> =
        [1, 3, 2, 0].into_iter().filter(|at| *at != plan.candidates[0].at).collect();
    assert_eq!(rest, by_load);
    assert!(plan.candidates[1..].iter().all(|found| found.why == Why::Load));
}

/// What a property may ask of a request, owned.
#[derive(Debug, Clone)]
struct Wish {
    pinned: bool,
    backup: bool,
    kind: Kind,
    tools: bool,
    regions: Option<Vec<String>>,
    providers: Vec<String>,
    resuming: bool,
    from_region: bool,
    level: Level,
}

fn names() -> impl Strategy<Value = Vec<String>> {
    prop::sample::subsequence(vec!["p".to_owned(), "q".to_owned(), "r".to_owned()], 0..=3)
}

fn wish() -> impl Strategy<Value = Wish> {
    let level = prop::sample::select(vec![Level::L0, Level::L2, Level::L3, Level::L4]);
    let flags = (
        any::<bool>(),
        any::<bool>(),
        any::<bool>(),
        prop::bool::weighted(0.2),
        prop::bool::weighted(0.2),
    );
    (flags, prop::sample::select(ALL.to_vec()), prop::option::of(names()), names(), level).prop_map(
        |((pinned, backup, tools, resuming, from_region), kind, regions, providers, level)| Wish {
            pinned,
            backup,
            kind,
            tools,
            regions,
            providers,
            resuming,
            from_region,
            level,
        },
    )
}

fn views() -> impl Strategy<Value = Vec<View>> {
    let class = prop::sample::select(vec![
        Class::Pod,
        Class::Pod,
        Class::Region,
        Class::Provider,
        Class::Local,
    ]);
    let standing = prop::sample::select(vec![
        Standing::Ready,
        Standing::Ready,
        Standing::Probing,
        Standing::Full,
        Standing::Out(Reason::Dead),
        Standing::Out(Reason::Forced),
    ]);
    let offers = prop::sample::select(vec![
        report(&[model("m", "1")], &[]),
        report(&[model("m", "1"), model("b", "1")], &[]),
        report(&[model("m", "2")], &[model("m", "1")]),
        report(&[model("b", "1")], &[]),
        Offers::Names(["*".into()].into()),
        Offers::Names(["m".into()].into()),
        Offers::Names(["b".into()].into()),
        Offers::Unknown,
    ]);
    let tried = prop::sample::select(vec![Tried::No, Tried::No, Tried::Lost, Tried::Refused]);
    let name = prop::sample::select(vec!["p", "q", "r"]);
    let loads =
        (0usize..6, 0usize..6, 0usize..9, 0.1f64..9.0, prop::option::of(0u64..60), 0.0f64..1.0);
    let flags = (
        prop::bool::weighted(0.1),
        prop::bool::weighted(0.1),
        prop::bool::weighted(0.9),
        prop::bool::weighted(0.2),
    );
    let one = (class, standing, offers, tried, name, loads, flags, 0u32..3).prop_map(
        |(class, standing, offers, tried, name, loads, flags, order)| {
            let (in_flight, queued, slots, slowness, ready_for, matched) = loads;
            let (region_down, paused, fim, doubted) = flags;
            let kinds = if fim { Kinds::ALL } else { Kinds::of(&[Kind::Chat, Kind::Agent]) };
            let ready_for = ready_for.map(Duration::from_secs);
            View {
                id: UpstreamId(0),
                name: name.into(),
                class,
                standing,
                offers,
                kinds,
                in_flight,
                queued,
                slots,
                slowness,
                ready_for,
                doubted,
                order,
                region_down,
                paused,
                matched,
                tried,
            }
        },
    );
    (prop::collection::vec(one, 0..8), prop::bool::weighted(0.4)).prop_map(
        |(mut views, untouched)| {
            for (view, id) in views.iter_mut().zip(100..) {
                view.id = UpstreamId(id);
                view.tried = if untouched { Tried::No } else { view.tried };
            }
            views
        },
    )
}

fn has(view: &View, wanted: &ModelReport, pinned: bool) -> bool {
    match &view.offers {
        Offers::Report(report) => {
            let found = |models: &[ModelReport]| models.contains(wanted);
            found(&report.models) || (pinned && found(&report.kept))
        }
        Offers::Names(_) | Offers::Unknown => false,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20_000))]
    #[test]
    fn a_plan_keeps_its_promises(views in views(), wish in wish(), seed: u64) {
        let (model, backup) = (model("m", "1"), model("b", "1"));
        let asking = Asking {
            model: &model,
            pinned: wish.pinned,
            backup: wish.backup.then_some(&backup),
            kind: wish.kind,
            shape: wish.kind,
            tools: wish.tools,
            regions: wish.regions.as_deref(),
            providers: &wish.providers,
            resuming: wish.resuming,
            from_region: wish.from_region,
            level: wish.level,
        };
        let plan = route(&views, &asking, seed);
        prop_assert_eq!(&plan, &route(&views, &asking, seed), "the same seed gives the same plan");

        let mut places: Vec<usize> = plan.candidates.iter().map(|found| found.at).collect();
        places.extend(plan.left_out.iter().map(|(at, _)| *at));
        places.sort_unstable();
        prop_assert_eq!(places, (0..views.len()).collect::<Vec<_>>(), "each upstream once");

        let of = |found: &Candidate| &views[found.at];
        let is_out = |view: &View| matches!(view.standing, Standing::Out(_));
        let out = plan.candidates.iter().filter(|found| is_out(of(found))).count();
        prop_assert!(out == 0 || out == plan.candidates.len(), "never one that is out beside one that is not");
        prop_assert!(out == 0 || views.iter().all(|view| view.tried == Tried::No));
        let fresh = plan.candidates.iter().take_while(|found| of(found).tried == Tried::No).count();
        prop_assert!(plan.candidates[fresh..].iter().all(|found| of(found).tried == Tried::Lost && found.why == Why::Again));
        let place = |found: &Candidate| {
            (of(found).doubted || found.rung == Rung::Local, found.rung)
        };
        prop_assert!(plan.candidates[..fresh].is_sorted_by_key(place), "rung by rung");
        for pair in plan.candidates[..fresh].windows(2).filter(|pair| place(&pair[0]) == place(&pair[1])) {
            let probes = [Standing::Probing, Standing::Ready];
            let is_early = pair.iter().map(of).map(|view| view.standing).eq(probes);
            prop_assert!(!is_early || (seed_probes(seed) && !wish.resuming && !wish.from_region));
        }

        for found in &plan.candidates {
            let view = of(found);
            prop_assert_eq!(found.id, view.id);
            prop_assert!(view.tried != Tried::Refused && view.standing != Standing::Full);
            prop_assert!(!view.region_down && !view.paused && view.kinds.takes(wish.kind));
            let named = |names: &[String]| names.iter().any(|name| **name == *view.name);
            let is_allowed = match view.class {
                Class::Pod | Class::Local => true,
                Class::Region => wish.regions.as_deref().is_none_or(named),
                Class::Provider => named(&wish.providers),
            };
            prop_assert!(is_allowed, "outside the egress policy: {:?}", view);
            match found.rung {
                Rung::Pods | Rung::Regions => prop_assert!(has(view, &model, wish.pinned)),
                Rung::Backup => prop_assert!(wish.backup && has(view, &backup, false)),
                Rung::Providers => prop_assert_eq!(view.class, Class::Provider),
                Rung::Local => prop_assert_eq!(view.class, Class::Local),
            }
            prop_assert!(!wish.resuming || found.rung <= Rung::Regions);
            prop_assert!(!wish.from_region || found.rung == Rung::Pods);
            prop_assert!(!wish.tools || found.rung <= Rung::Backup);
            let shed = wish.kind >= Kind::Chat && wish.level >= Level::L3;
            prop_assert!(!shed || found.rung != Rung::Local);
        }

        // A pod that is worth trying is found, and comes first while it is fresh.
        let usable = |view: &&View| {
            view.class == Class::Pod && has(view, &model, wish.pinned) && view.kinds.takes(wish.kind)
                && !view.region_down && !view.paused
        };
        let pods = || views.iter().filter(usable);
        let lives = |view: &View| matches!(view.standing, Standing::Ready | Standing::Probing);
        if pods().any(|view| lives(view) && view.tried == Tried::No && !view.doubted) {
            prop_assert_eq!(plan.candidates[0].rung, Rung::Pods);
        }
        if !wish.from_region {
            let untouched = views.iter().all(|view| view.tried == Tried::No);
            let again = pods().any(|view| view.standing == Standing::Ready && view.tried == Tried::Lost);
            let dead = pods().any(|view| view.standing == Standing::Out(Reason::Dead));
            prop_assert!(!again || !plan.candidates.is_empty());
            prop_assert!(!(dead && untouched) || plan.full || !plan.candidates.is_empty());
        }
    }
}

fn seed_probes(seed: u64) -> bool {
    fastrand::Rng::with_seed(!seed).u64(..PROBE_ONE_IN) == 0
}
