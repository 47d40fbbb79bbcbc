use super::*;
use crate::{
    Asked, Namer, Purge,
    testing::{answer, ask, model, tenant},
};

const SECOND: Duration = Duration::from_secs(1);
const ALL: Need = Need::Fresh([true; 4]);

struct Rig {
    memory: Memory,
    validity: Arc<Validity>,
}

impl Rig {
    fn new(bytes: usize) -> Self {
        let validity = Arc::new(Validity::new(10 * SECOND));
        Self { memory: Memory::new(bytes, Arc::clone(&validity)), validity }
    }

    fn put(&self, tenant_name: &str, prefix: &str, text: &str, now: Duration) -> Result<(), Skip> {
        let request = ask(prefix, "");
        let question = Question::of(&request, tenant(tenant_name), &model("1"), &Namer::default());
        let (places, asked) = Asked::of(&question, Around::of(&request))?;
        let generation = self.validity.generation();
        let entry = Entry::new(asked, &answer(text), (generation, question.tags), now)?;
        self.memory.put(&places, &Arc::new(entry), now)
    }

    fn find(&self, tenant_name: &str, prefix: &str, need: Need, now: Duration) -> Option<String> {
        let request = ask(prefix, "");
        let question = Question::of(&request, tenant(tenant_name), &model("1"), &Namer::default());
        let found = self.memory.find((&question, Around::of(&request)), need, now)?;
        Some(found.entry.text[found.fit.typed..].to_owned())
    }
}

#[test]
fn an_entry_is_fresh_for_its_time_and_stale_for_who_asks_for_anything() {
    let rig = Rig::new(1 << 20);
    rig.put("t", "a = ", "total", SECOND).unwrap();
    let find = |need, now| rig.find("t", "a = to", need, now * SECOND);
    assert_eq!(find(ALL, 10).as_deref(), Some("tal"));
    assert_eq!(find(ALL, 11), None);
    assert_eq!(find(Need::Anything(60 * SECOND), 11).as_deref(), Some("tal"));
    assert_eq!(find(Need::Anything(60 * SECOND), 62), None);
    assert_eq!(rig.find("other", "a = to", Need::Anything(60 * SECOND), SECOND), None);
}

#[test]
fn the_surest_rule_wins_and_then_the_newest() {
    let rig = Rig::new(1 << 20);
    rig.put("t", "a = ", "totals", SECOND).unwrap();
    rig.put("t", "a = to", "ken", SECOND).unwrap();
    let find = |prefix| rig.find("t", prefix, ALL, SECOND);
    assert_eq!(find("a = to").as_deref(), Some("ken"), "exact before type-ahead");
    assert_eq!(find("a = tot").as_deref(), Some("als"));
    rig.put("t", "a = t", "otally", SECOND).unwrap();
    assert_eq!(find("a = tot").as_deref(), Some("ally"), "the newest");
    rig.put("t", "a = t", "otaled", SECOND).unwrap();
    assert_eq!(find("a = tot").as_deref(), Some("aled"), "asked again, it replaces itself");
}

#[test]
fn many_texts_of_one_line_are_all_remembered() {
    let rig = Rig::new(1 << 20);
    let prefix = |n| format!("git ch {n}");
    for n in 0..200 {
        rig.put("t", &prefix(n), &format!(" {n} there"), SECOND).unwrap();
    }
    for n in 0..200 {
        let found = rig.find("t", &prefix(n), ALL, SECOND);
        assert_eq!(found, Some(format!(" {n} there")));
    }
}

#[test]
fn a_rule_that_is_off_serves_nothing() {
    let rig = Rig::new(1 << 20);
    rig.put("t", "a = ", "total", SECOND).unwrap();
    let exact_only = Need::Fresh([true, false, false, false]);
    assert_eq!(rig.find("t", "a = ", exact_only, SECOND).as_deref(), Some("total"));
    assert_eq!(rig.find("t", "a = t", exact_only, SECOND), None);
}

#[test]
fn what_is_purged_is_gone_and_dropped() {
    let rig = Rig::new(1 << 20);
    for name in ["t", "u"] {
        rig.put(name, "a\na = ", "total", SECOND).unwrap();
        rig.put(name, "b\na = ", "total", SECOND).unwrap();
    }
    let purge = Purge::named(Some("t"), None, &Namer::default()).unwrap();
    rig.validity.purge(purge, SECOND);
    assert_eq!(rig.find("t", "a\na = ", Need::Anything(SECOND), SECOND), None, "before the sweep");
    assert_eq!(rig.memory.sweep(SECOND), 2);
    assert_eq!(rig.memory.places(), 2);
    assert_eq!(rig.find("u", "a\na = ", ALL, SECOND).as_deref(), Some("total"));
    rig.put("t", "a = ", "new", SECOND).unwrap();
    assert_eq!(rig.find("t", "a = ", ALL, SECOND).as_deref(), Some("new"), "asked for later");
}

#[test]
fn an_answer_that_was_under_way_during_a_purge_does_not_enter() {
    let rig = Rig::new(1 << 20);
    let request = ask("a = ", "");
    let question = Question::of(&request, tenant("t"), &model("1"), &Namer::default());
    let (places, asked) = Asked::of(&question, Around::of(&request)).unwrap();
    let before = rig.validity.generation();
    rig.validity.purge(Purge::All, SECOND);
    let entry = Entry::new(asked, &answer("x"), (before, question.tags), SECOND).unwrap();
    assert_eq!(rig.memory.put(&places, &Arc::new(entry), SECOND), Err(Skip::Purged));
}

#[test]
fn entries_of_an_idle_session_are_not_served() {
    let validity = Arc::new(Validity::new(24 * crate::SESSION_IDLE_MAX));
    let memory = Memory::new(1 << 20, Arc::clone(&validity));
    let mut request = ask("a = ", "");
    request.declared.session = Some("s".into());
    let question = Question::of(&request, tenant("t"), &model("1"), &Namer::default());
    let (places, asked) = Asked::of(&question, Around::of(&request)).unwrap();
    let entry = Entry::new(asked, &answer("x"), (0, question.tags), SECOND).unwrap();
    memory.put(&places, &Arc::new(entry), SECOND).unwrap();
    let found = |now| memory.find((&question, Around::of(&request)), ALL, now).is_some();
    let idle = crate::SESSION_IDLE_MAX;
    assert!(found(idle));
    assert!(!found(idle + 2 * SECOND));
    validity.heard_of(&question.tags, idle);
    assert!(found(idle + 2 * SECOND), "somebody works there still");
}

#[test]
fn the_bytes_stay_within_the_limit() {
    let rig = Rig::new(64 << 10);
    for n in 0..1000 {
        rig.put("t", &format!("{n} = "), &"x".repeat(500), SECOND).unwrap();
        assert!(rig.memory.bytes() <= 64 << 10);
    }
    assert!(rig.memory.places() > 8, "{}", rig.memory.places());
    for n in 0..1000 {
        rig.put("t", &"y".repeat(n % 50), "some text", SECOND).unwrap();
    }
    assert!(rig.memory.bytes() <= 64 << 10);
}

#[test]
fn empty_and_huge_answers_stay_out() {
    let rig = Rig::new(64 << 10);
    assert_eq!(rig.put("t", "a", "", SECOND), Err(Skip::Empty));
    assert_eq!(rig.put("t", "a", &"x".repeat(8 << 10), SECOND), Err(Skip::TooLarge));
    assert_eq!(rig.put("t", &"x".repeat(9 << 10), "a", SECOND), Err(Skip::TooLarge));
}

#[test]
fn all_entries_can_be_taken_along() {
    let rig = Rig::new(1 << 20);
    for (prefix, text) in [("a = ", "one two"), ("a = o", "ther"), ("b = ", "three")] {
        rig.put("t", prefix, text, SECOND).unwrap();
    }
    let successor = Rig::new(1 << 20);
    for (place, entry) in rig.memory.entries() {
        successor.memory.put(&[place], &entry, SECOND).unwrap();
    }
    for prefix in ["a = ", "a = o", "a = on", "b = th"] {
        let of = |rig: &Rig| rig.find("t", prefix, ALL, SECOND);
        assert_eq!(of(&successor), of(&rig), "{prefix}");
        assert!(of(&rig).is_some(), "{prefix}");
    }
}
