use proptest::prelude::*;

use super::*;
use crate::{
    Purge, TagKind,
    semantic::{
        Because, How, Refused, Stage,
        testing::{
            ANNA, BEN, CARL, Posed, ROOM, SECOND, UNDO, Who, cache, pose, purge, put, settings,
            turned,
        },
    },
};

const RIGHT: Judged = Judged { right: true, equal: true, of: None };
const WRONG: Judged = Judged { right: false, equal: false, of: None };

fn near(cache: &Cache, posed: &Posed, degrees: f32) -> Near {
    let policy = cache.settings().policy;
    cache.near(&posed.site, &turned(degrees), (policy, Age::Fresh), SECOND)
}

fn text(cache: &Cache, near: &Near) -> String {
    let (id, _) = near.candidate().unwrap();
    cache.open(id, SECOND).unwrap().entry.text().to_owned()
}

#[test]
fn the_same_question_is_found_without_a_vector_and_one_alike_with_it() {
    let cache = cache(settings(Sharing::User));
    put(&cache, ANNA, UNDO, 0.0, "git reset");
    let polite = pose(&cache, ANNA, "Please, how do I undo the last  commit in git");
    assert_eq!(cache.exact(&polite.site, Age::Fresh, SECOND).unwrap().entry.text(), "git reset");
    let alike = pose(&cache, ANNA, "how can i undo my last git commit");
    assert!(cache.exact(&alike.site, Age::Fresh, SECOND).is_none());
    let found = near(&cache, &alike, 5.0);
    assert_eq!(found.verdict, Verdict::Serve(0, Because::Sure));
    assert_eq!(text(&cache, &found), "git reset");
    let negated = pose(&cache, ANNA, "How do I not undo the last commit in git?");
    let Verdict::Refuse(Refused::Vetoed(_), None) = near(&cache, &negated, 1.0).verdict else {
        panic!("a word speaks against it")
    };
    assert_eq!(near(&cache, &alike, 30.0).verdict, Verdict::Refuse(Refused::Far, None));
}

#[test]
fn what_is_old_serves_only_where_nothing_else_answers() {
    let cache = cache(settings(Sharing::User));
    let posed = put(&cache, ANNA, UNDO, 0.0, "git reset");
    let late = SECOND * 4000;
    assert!(cache.exact(&posed.site, Age::Fresh, late).is_none());
    assert!(cache.exact(&posed.site, Age::Any, late).is_some());
    let policy = cache.settings().policy;
    let found = cache.near(&posed.site, &turned(0.0), (policy, Age::Fresh), late);
    assert_eq!(found.verdict, Verdict::Refuse(Refused::Far, None));
    assert_eq!(cache.sweep(SECOND * 60, late), 1, "and then goes");
}

#[test]
fn a_purge_hides_at_once_and_a_sweep_drops() {
    for (kind, value, covers) in [
        (TagKind::User, "anna", true),
        (TagKind::Key, "k1", true),
        (TagKind::User, "ben", false),
        (TagKind::Key, "k2", false),
    ] {
        let cache = cache(settings(Sharing::User));
        let posed = put(&cache, ANNA, UNDO, 0.0, "git reset");
        cache.validity.purge(purge(kind, value), SECOND);
        assert_eq!(cache.exact(&posed.site, Age::Any, SECOND).is_none(), covers, "{value}");
        assert_eq!(cache.sweep(Duration::MAX, SECOND), usize::from(covers));
        let entry = posed.entry("git reset", SECOND);
        let kept = cache.keep((&posed.site, &turned(0.0)), &entry, None, SECOND);
        assert_eq!(kept.is_err(), covers, "one that was under way meanwhile is not kept either");
    }
}

#[test]
fn the_write_gate() {
    let cache = cache(settings(Sharing::User));
    let posed = pose(&cache, ANNA, UNDO);
    let keep = |text: &str| {
        cache.keep((&posed.site, &turned(0.0)), &posed.entry(text, SECOND), None, SECOND)
    };
    assert_eq!(keep("I'm sorry, but I can't help with that."), Err(Unkept::Refusal));
    assert_eq!(keep("Use the key AKIAIOSFODNN7EXAMPLE."), Err(Unkept::Secret));
    assert_eq!(keep("git reset --soft HEAD~1"), Ok(()));
    assert_eq!(cache.held().entries, 1);
}

#[test]
fn a_user_writes_so_much_an_hour() {
    let room = Room { owner_writes: 3, ..ROOM };
    let cache = cache(Settings { room, ..settings(Sharing::User) });
    let write = |who, n: usize, now: Duration| {
        let posed = pose(&cache, who, &format!("How do I undo the last {n} commits in git?"));
        cache.keep((&posed.site, &turned(0.0)), &posed.entry("x", now), None, now)
    };
    for n in 10..13 {
        assert_eq!(write(ANNA, n, SECOND), Ok(()));
    }
    assert_eq!(write(ANNA, 13, SECOND), Err(Unkept::Full(Full::Quota)));
    assert_eq!(write(BEN, 13, SECOND), Ok(()), "others are not held up");
    assert_eq!(write(ANNA, 14, SECOND * 3601), Ok(()));
}

#[test]
fn two_near_answers_that_differ_serve_nobody_and_two_that_agree_do() {
    let cache = cache(settings(Sharing::User));
    put(&cache, ANNA, UNDO, 0.0, "git reset");
    let second = pose(&cache, ANNA, "how can i undo my last git commit");
    let agreeing = near(&cache, &second, 3.0).candidate();
    let alike = |cache: &Cache, like| {
        let entry = second.entry("Use git reset.", SECOND);
        cache.keep((&second.site, &turned(3.0)), &entry, like, SECOND).unwrap();
        near(cache, &pose(cache, ANNA, "how to undo last commit in git"), 1.5).verdict
    };
    assert_eq!(alike(&cache, None), Verdict::Refuse(Refused::Disagree, Some(0)));
    let Verdict::Serve(..) = alike(&cache, agreeing.map(|(id, _)| id)) else { panic!() };
}

#[test]
fn a_shared_answer_serves_others_once_two_have_had_it() {
    let cache = cache(settings(Sharing::Tenant));
    put(&cache, ANNA, UNDO, 0.0, "poison");
    let ben = pose(&cache, BEN, UNDO);
    assert!(cache.exact(&ben.site, Age::Fresh, SECOND).is_none(), "one user's word is not enough");
    let found = near(&cache, &ben, 0.0);
    assert_eq!(found.verdict, Verdict::Refuse(Refused::Unvouched, Some(0)));
    // The model told Ben something else.
    cache.judged((&ben.site, ("t", "m@1")), found.candidate().unwrap(), WRONG, SECOND);
    assert!(cache.exact(&ben.site, Age::Fresh, SECOND).is_none());

    put(&cache, ANNA, "What does git bisect do?", 90.0, "It searches.");
    let ben = pose(&cache, BEN, "What does git bisect do?");
    let found = near(&cache, &ben, 90.0);
    cache.judged((&ben.site, ("t", "m@1")), found.candidate().unwrap(), RIGHT, SECOND);
    let carl = pose(&cache, CARL, "what does git bisect do");
    assert_eq!(near(&cache, &carl, 90.0).verdict, Verdict::Serve(0, Because::Sure));
}

#[test]
fn who_was_told_something_like_it_vouches_for_nothing() {
    let cache = cache(settings(Sharing::Tenant));
    put(&cache, ANNA, UNDO, 0.0, "git reset, and then some more");
    let ben = pose(&cache, BEN, UNDO);
    let alike = Judged { equal: false, ..RIGHT };
    cache.judged(
        (&ben.site, ("t", "m@1")),
        near(&cache, &ben, 0.0).candidate().unwrap(),
        alike,
        SECOND,
    );
    let carl = pose(&cache, CARL, UNDO);
    assert!(cache.exact(&carl.site, Age::Fresh, SECOND).is_none());
    // Ben's own text, which says the same, replaces Anna's; nobody has vouched for it.
    let id = cache.store().at(&ben.site);
    let own = ben.entry("git reset, and then something else", SECOND);
    cache.keep((&ben.site, &turned(0.0)), &own, id, SECOND).unwrap();
    assert!(cache.exact(&carl.site, Age::Fresh, SECOND).is_none());
}

#[test]
fn one_answer_cannot_prove_a_route_and_what_was_shown_under_other_rules_counts_for_nothing() {
    let cache = cache(settings(Sharing::User));
    let posed = put(&cache, ANNA, UNDO, 0.0, "git reset");
    let id = cache.exact(&posed.site, Age::Fresh, SECOND).unwrap().id;
    let right = Judged { of: Some(How::Exact), ..RIGHT };
    for _ in 0..1000 {
        cache.judged((&posed.site, ("t", "m@1")), (id, 1.0), right, SECOND);
    }
    assert_eq!(cache.stage(&posed.site, How::Exact), Stage::Proving);
    assert_eq!(cache.route(&posed.site).trial(How::Exact).totals(), (20 + 49, 0));
    let request = crate::semantic::testing::chat(UNDO, |_| ());
    let model = crate::testing::model("1");
    let other = crate::semantic::testing::pose_to(&cache, ANNA, &request, (&model, "e@2")).unwrap();
    assert_eq!(cache.route(&other.site).trial(How::Exact).totals(), (0, 0), "another embedder");
}

#[test]
fn evidence_of_an_answer_outlives_its_repetition() {
    let cache = cache(settings(Sharing::User));
    let posed = put(&cache, ANNA, UNDO, 0.0, "git reset");
    let alike = pose(&cache, ANNA, "how can i undo my last git commit");
    for _ in 0..140 {
        let found = near(&cache, &alike, 16.0);
        cache.judged((&alike.site, ("t", "m@1")), found.candidate().unwrap(), RIGHT, SECOND);
    }
    assert_eq!(near(&cache, &alike, 16.0).verdict, Verdict::Serve(0, Because::Evidence));
    let id = cache.exact(&posed.site, Age::Fresh, SECOND).unwrap().id;
    let again = posed.entry("git reset", SECOND * 2);
    cache.keep((&posed.site, &turned(0.0)), &again, Some(id), SECOND * 2).unwrap();
    assert_eq!(near(&cache, &alike, 16.0).verdict, Verdict::Serve(0, Because::Evidence));
    let other = posed.entry("git revert", SECOND * 3);
    cache.keep((&posed.site, &turned(0.0)), &other, None, SECOND * 3).unwrap();
    assert_eq!(near(&cache, &alike, 16.0).verdict, Verdict::Refuse(Refused::Unproven, Some(0)));
}

#[test]
fn what_travels_is_taken_in_its_own_partition_alone() {
    let (here, there) = (cache(settings(Sharing::User)), cache(settings(Sharing::User)));
    let posed = pose(&here, ANNA, UNDO);
    let entry = posed.entry("git reset", SECOND);
    let sealed = here.export((&posed.site, &turned(0.0)), &entry).unwrap();
    assert!(!sealed.windows(9).any(|nine| nine == b"git reset"));
    for who in [BEN, Who("u", "k1", Some("anna"))] {
        assert!(!there.import(&pose(&there, who, UNDO).site, &sealed, SECOND));
    }
    let alike = pose(&there, ANNA, "how can i undo my last git commit");
    assert!(there.import(&alike.site, &sealed, SECOND));
    assert_eq!(text(&there, &near(&there, &alike, 5.0)), "git reset");
    let others = Cache::new(*here.settings(), Secrets::of(b"other"), Arc::clone(&here.validity));
    assert!(!others.import(&pose(&others, ANNA, UNDO).site, &sealed, SECOND));
    for cut in [0, 20, sealed.len() - 1] {
        assert!(!there.import(&alike.site, &sealed[..cut], SECOND));
    }
    there.validity.purge(Purge::All, SECOND);
    assert!(!there.import(&alike.site, &sealed, SECOND), "what was purged does not come back");
}

/// A thousand askers in as many other circumstances, each with the very vector and the very words:
/// the strongest collision there can be (the fuzzy hashes of arXiv 2601.23088 are weaker).
#[test]
fn no_collision_reaches_another_tenant_user_or_context() {
    for sharing in [Sharing::User, Sharing::Key, Sharing::Tenant] {
        let cache = cache(settings(sharing));
        put(&cache, ANNA, UNDO, 0.0, "the secret of anna");
        let (mut crafted, mut leaks) = (0, 0);
        let mut try_one = |who: Who, change: &dyn Fn(&mut serde_json::Value)| {
            let request = crate::semantic::testing::chat(UNDO, |body| change(body));
            let model = crate::testing::model("1");
            let Ok(posed) =
                crate::semantic::testing::pose_to(&cache, who, &request, (&model, "e@1"))
            else {
                return;
            };
            crafted += 1;
            let exact = cache.exact(&posed.site, Age::Any, SECOND).is_some();
            let policy = Policy { floor: 0.95, sure: 0.95, wrong: 1.0 };
            let found = cache.near(&posed.site, &turned(0.0), (policy, Age::Any), SECOND);
            leaks += usize::from(exact || matches!(found.verdict, Verdict::Serve(..)));
        };
        for n in 0..400u32 {
            // Names that would run together were they only written one after the other.
            let leak = |text: String| -> &'static str { Box::leak(text.into_boxed_str()) };
            let tenant =
                leak(format!("t{}", "k1".repeat(n as usize % 7)) + &"x".repeat(n as usize / 7));
            if tenant != "t" {
                try_one(Who(tenant, "k1", Some("anna")), &|_| ());
            }
            let name = leak(format!("anna{n}"));
            try_one(Who("t", name, Some(name)), &|_| ());
            try_one(Who("t", "anna", None), &|body| {
                body["messages"] = serde_json::json!([
                    { "role": "system", "content": format!("{n}") },
                    { "role": "user", "content": UNDO },
                ]);
            });
        }
        assert!(crafted >= 1000, "{crafted}");
        assert_eq!(leaks, 0, "{sharing:?}");
    }
}

proptest! {
    /// Whatever others put, and however near it is, nobody finds what is not theirs.
    #[test]
    fn nobody_finds_what_is_not_theirs(
        puts in prop::collection::vec((0usize..3, 0u16..6, 0.0f32..20.0), 1..40),
        asks in prop::collection::vec((0usize..3, 0u16..6, 0.0f32..20.0), 1..20),
    ) {
        let cache = cache(settings(Sharing::User));
        let people = [ANNA, BEN, Who("u", "k1", Some("anna"))];
        for (who, n, degrees) in puts {
            let question = format!("How do I undo the last {n} commits in git?");
            put(&cache, people[who], &question, degrees, &format!("of {who}"));
        }
        for (who, n, degrees) in asks {
            let posed = pose(&cache, people[who], &format!("How do I undo the last {n} commits in git?"));
            for id in near(&cache, &posed, degrees).ids {
                let answer = cache.open(id, SECOND).unwrap();
                prop_assert_eq!(answer.entry.text(), format!("of {who}"));
            }
        }
    }
}
