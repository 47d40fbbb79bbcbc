use proptest::prelude::*;

use super::*;

/// A second's worth of events: `+N` there is the number N, with a TTL of `/S` seconds; `-` nothing;
/// `!` a failure. Each comes when the memory is due.
fn check(events: &[&str], expected: &[(&str, u64)]) {
    let mut memory = Memory::new(clock());
    let mut told = Vec::new();
    for event in events {
        let now = memory.due();
        memory.hear(said(event), now);
        told.push((format!("{:?}", memory.known()), (memory.due() - now).as_secs()));
    }
    let expected: Vec<_> =
        expected.iter().map(|(known, wait)| ((*known).to_owned(), *wait)).collect();
    assert_eq!(told, expected, "{events:?}");
}

fn said(event: &str) -> Said<u32> {
    let (what, ttl) = event.split_once('/').unwrap_or((event, ""));
    let ttl = ttl.parse().ok().map(Duration::from_secs);
    match what.strip_prefix('+') {
        Some(numbers) => Said::There {
            records: numbers.split(',').map(|number| number.parse().unwrap()).collect(),
            ttl: ttl.unwrap_or_default(),
        },
        None if what == "-" => Said::Nothing { ttl },
        None => Said::Failed(Trouble::Silent("pods.".to_owned())),
    }
}

fn clock() -> Instant {
    nearhop_admin::clock::now()
}

#[test]
fn records_replace_what_was_known_and_are_asked_for_by_their_ttl() {
    check(&["+1/5", "+3,2,3/30"], &[("[1]", 5), ("[2, 3]", 30)]);
}

#[test]
fn a_ttl_is_a_second_at_least_and_a_minute_at_most() {
    check(
        &["+1/0", "+1/1", "+1/60", "+1/61", "+1/4294967295"],
        &[("[1]", 1), ("[1]", 1), ("[1]", 60), ("[1]", 60), ("[1]", 60)],
    );
    check(&["-/0", "-/86400", "-"], &[("[]", 1), ("[]", 60), ("[]", 5)]);
}

#[test]
fn failures_keep_what_was_known_for_ever_and_are_asked_again_ever_more_seldom() {
    let kept = |wait| ("[1]", wait);
    check(
        &["+1/5", "!", "!", "!", "!", "!", "!", "!", "+2/5", "!"],
        &[
            kept(5),
            kept(1),
            kept(2),
            kept(4),
            kept(8),
            kept(16),
            kept(30),
            kept(30),
            ("[2]", 5),
            ("[2]", 1),
        ],
    );
}

#[test]
fn nothing_is_believed_at_the_third_time_in_a_row() {
    check(&["+1/5", "-/2", "-/2", "-/2"], &[("[1]", 5), ("[1]", 2), ("[1]", 2), ("[]", 2)]);
    check(
        &["+1/5", "-/2", "-/2", "+1/5", "-/2", "-/2", "-/2"],
        &[("[1]", 5), ("[1]", 2), ("[1]", 2), ("[1]", 5), ("[1]", 2), ("[1]", 2), ("[]", 2)],
    );
    check(
        &["+1/5", "-/2", "-/2", "!", "-/2", "-/2", "-/2"],
        &[("[1]", 5), ("[1]", 2), ("[1]", 2), ("[1]", 1), ("[1]", 2), ("[1]", 2), ("[]", 2)],
    );
}

#[test]
fn nothing_out_of_a_cache_is_said_once() {
    let start = clock();
    let mut memory = Memory::new(start);
    memory.hear(said("+1/5"), start);
    let first = memory.due();
    for _ in 0..10 {
        memory.hear(said("-/60"), first);
    }
    assert_eq!(memory.known(), [1]);
    assert_eq!(memory.due(), first + Duration::from_secs(60));
}

#[test]
fn that_nothing_was_ever_there_is_an_answer_and_a_failure_is_none() {
    let start = clock();
    let mut memory = Memory::new(start);
    assert!(!memory.heard());
    memory.hear(said("!"), start);
    assert!(memory.heard() && memory.failing() && !memory.answered());
    memory.hear(said("-"), memory.due());
    assert!(memory.answered() && !memory.failing());
}

fn anything() -> impl Strategy<Value = Said<u32>> {
    let ttl = || any::<u32>().prop_map(|ttl| Duration::from_secs(ttl.into()));
    prop_oneof![
        (prop::collection::vec(0..9_u32, 1..5), ttl())
            .prop_map(|(records, ttl)| Said::There { records, ttl }),
        prop::option::of(ttl()).prop_map(|ttl| Said::Nothing { ttl }),
        Just(Said::Failed(Trouble::Silent("pods.".to_owned()))),
    ]
}

proptest! {
    #[test]
    fn it_is_asked_again_within_a_second_to_a_minute(
        story in prop::collection::vec((anything(), 0..90_000_u64), 1..40),
    ) {
        let mut now = clock();
        let mut memory = Memory::new(now);
        for (said, later) in story {
            now += Duration::from_millis(later);
            memory.hear(said, now);
            prop_assert!(memory.due() > now, "never at once");
            prop_assert!(memory.due() <= now + Duration::from_secs(60));
        }
    }

    #[test]
    fn what_is_known_goes_only_for_something_else_or_after_three_nothings(
        story in prop::collection::vec((anything(), 0..90_000_u64), 1..40),
    ) {
        let mut now = clock();
        let mut memory = Memory::new(now);
        let mut nothings = 0;
        for (said, later) in story {
            now += Duration::from_millis(later);
            let before = memory.known().to_vec();
            nothings = match said { Said::Nothing { .. } => nothings + 1, _ => 0 };
            let there = matches!(said, Said::There { .. });
            memory.hear(said, now);
            prop_assert!(memory.known().is_sorted_by(|a, b| a < b));
            if !there && memory.known() != before {
                prop_assert!(memory.known().is_empty() && nothings >= 3);
            }
            if there {
                prop_assert!(!memory.known().is_empty());
            }
        }
    }
}
