use std::sync::Arc;

use nearhop_conf::Plan;
use proptest::prelude::*;

use super::*;

fn caller(key: &str, tenant: &str, plan: &Plan) -> Caller {
    Caller {
        key: key.to_owned(),
        label: key.to_owned(),
        tenant: tenant.to_owned(),
        user: None,
        scopes: Vec::new(),
        plan: Arc::new(plan.clone()),
        egress: Arc::default(),
    }
}

fn plan(tenant: Rates, key: Rates) -> Plan {
    Plan { name: "p".into(), tenant, key, tokens_per_month: None }
}

const NONE: Rates = Rates { requests_per_minute: None, tokens_per_minute: None, concurrent: None };
const FRESH: (u64, Duration) = (0, Duration::from_secs(1000));

fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

#[test]
fn a_minutes_requests_may_come_at_once_and_no_more() {
    let limiter = Limiter::default();
    let plan = plan(NONE, Rates { requests_per_minute: Some(60), ..NONE });
    let alice = caller("alice", "acme", &plan);
    for _ in 0..60 {
        drop(limiter.reserve(&alice, 0, FRESH, seconds(0)).unwrap());
    }
    let limited = limiter.reserve(&alice, 0, FRESH, seconds(0)).unwrap_err();
    assert_eq!(
        (limited.what, limited.of_key, limited.retry_after),
        (What::Requests, true, seconds(1))
    );
    let left = limited.standing.requests.unwrap();
    assert_eq!((left.limit, left.remaining, left.reset), (60, 0, seconds(60)));
    assert!(limiter.reserve(&alice, 0, FRESH, seconds(1)).is_ok());
    assert!(limiter.reserve(&caller("bob", "acme", &plan), 0, FRESH, seconds(0)).is_ok());
}

#[test]
fn two_keys_share_what_their_tenant_has() {
    let limiter = Limiter::default();
    let plan = plan(
        Rates { tokens_per_minute: Some(1000), ..NONE },
        Rates { tokens_per_minute: Some(800), ..NONE },
    );
    let (alice, bob) = (caller("alice", "acme", &plan), caller("bob", "acme", &plan));
    let held = limiter.reserve(&alice, 700, FRESH, seconds(0)).unwrap();
    let limited = limiter.reserve(&bob, 400, FRESH, seconds(0)).unwrap_err();
    assert_eq!((limited.what, limited.of_key), (What::Tokens, false));
    assert_eq!(limited.retry_after, seconds(6), "100 tokens at 1,000 a minute");
    // What was refused by the tenant is not taken from the key.
    assert!(limiter.reserve(&bob, 300, FRESH, seconds(0)).is_ok());
    held.settle(100);
    assert!(limiter.reserve(&bob, 500, FRESH, seconds(0)).is_ok());
    assert!(limiter.reserve(&caller("x", "other", &plan), 800, FRESH, seconds(0)).is_ok());
}

#[test]
fn unused_tokens_come_back_and_an_overrun_is_a_debt() {
    let limiter = Limiter::default();
    let plan = plan(NONE, Rates { tokens_per_minute: Some(600), ..NONE });
    let alice = caller("alice", "acme", &plan);
    drop(limiter.reserve(&alice, 600, FRESH, seconds(0)).unwrap());
    let all = limiter.reserve(&alice, 600, FRESH, seconds(0)).expect("a failed request used none");
    all.settle(1200);
    let limited = limiter.reserve(&alice, 600, FRESH, seconds(60)).unwrap_err();
    assert_eq!(limited.retry_after, seconds(60));
    assert!(limiter.reserve(&alice, 600, FRESH, seconds(120)).is_ok());
    let never = limiter.reserve(&alice, 601, FRESH, seconds(9999)).unwrap_err();
    assert_eq!(never.what, What::Request);
}

#[test]
fn places_at_once_are_given_back_however_a_request_ends() {
    let limiter = Limiter::default();
    let plan = plan(NONE, Rates { concurrent: Some(2), ..NONE });
    let alice = caller("alice", "acme", &plan);
    let first = limiter.reserve(&alice, 0, FRESH, seconds(0)).unwrap();
    let second = limiter.reserve(&alice, 0, FRESH, seconds(0)).unwrap();
    assert_eq!(limiter.reserve(&alice, 0, FRESH, seconds(0)).unwrap_err().what, What::Concurrency);
    drop(first);
    let third = limiter.reserve(&alice, 0, FRESH, seconds(0)).unwrap();
    second.settle(5);
    third.settle(5);
    assert!(limiter.reserve(&alice, 0, FRESH, seconds(0)).is_ok());
}

#[test]
fn a_month_that_is_used_up_is_told_with_the_next() {
    let limiter = Limiter::default();
    let plan = Plan { tokens_per_month: Some(1000), ..plan(NONE, NONE) };
    let alice = caller("alice", "acme", &plan);
    assert!(limiter.reserve(&alice, 100, (900, seconds(5)), seconds(0)).is_ok());
    let limited = limiter.reserve(&alice, 101, (900, seconds(5)), seconds(0)).unwrap_err();
    assert_eq!((limited.what, limited.retry_after), (What::Month, seconds(5)));
}

proptest! {
    /// Whatever is asked, settled and dropped, in the end nothing is held and no limit was passed.
    #[test]
    fn nothing_leaks(
        steps in prop::collection::vec((0usize..3, 0u64..400, 0u64..800, any::<bool>(), 0u64..20_000), 1..80),
    ) {
        let limiter = Limiter::default();
        let rates = Rates { requests_per_minute: Some(50), tokens_per_minute: Some(1000), concurrent: Some(4) };
        let plan = plan(rates, rates);
        let callers: Vec<Caller> = ["a", "b", "c"].map(|key| caller(key, "t", &plan)).into();
        let mut now = Duration::ZERO;
        let mut held: Vec<(Reservation, u64, bool)> = Vec::new();
        for (at, tokens, used, settle, wait) in steps {
            now += Duration::from_millis(wait);
            if let Ok(reservation) = limiter.reserve(&callers[at], tokens, FRESH, now) {
                held.push((reservation, used, settle));
            }
            prop_assert!(held.len() <= 4, "the tenant has four places");
            let ends = (held.len() == 4 || used % 3 == 0).then(|| held.pop()).flatten();
            if let Some((reservation, used, settle)) = ends {
                if settle { reservation.settle(used) } else { drop(reservation) }
            }
        }
        drop(held);
        // A day later everything is as new.
        now += Duration::from_secs(86_400);
        for caller in &callers {
            prop_assert!(limiter.reserve(caller, 1000, FRESH, now).is_ok());
            now += Duration::from_secs(60);
        }
    }
}

#[test]
fn what_other_edges_use_counts_here_and_is_told_once() {
    let (here, there) = (Limiter::default(), Limiter::default());
    let limits = Rates { tokens_per_minute: Some(1000), requests_per_minute: Some(10), ..NONE };
    let plan = plan(limits, NONE);
    let alice = caller("alice", "acme", &plan);
    for limiter in [&here, &there] {
        limiter.reserve(&alice, 400, FRESH, seconds(0)).unwrap().settle(300);
    }
    let told = there.tell();
    assert!(there.tell().is_empty());
    let used = Used { tokens: 300, requests: 1 };
    assert!(told.iter().all(|(_, told)| *told == used) && told.len() == 2, "{told:?}");
    for (owner, used) in &told {
        here.charge(owner, *used);
    }
    let standing = here.reserve(&alice, 400, FRESH, seconds(0)).unwrap().standing;
    assert_eq!(standing.tokens.unwrap().remaining, 0);
    assert_eq!(standing.requests.unwrap().remaining, 7);
    let limited = here.reserve(&alice, 1, FRESH, seconds(0));
    assert!(limited.is_ok(), "the last reservation was given back");
    // Nobody is charged where nobody asked.
    there.charge(&Owner { tenant: "other".into(), key: None }, used);
    assert!(there.tell().is_empty());
}

#[test]
fn what_is_withdrawn_was_never_asked_for() {
    let limiter = Limiter::default();
    let rates =
        Rates { requests_per_minute: Some(1), tokens_per_minute: Some(10), concurrent: Some(1) };
    let alice = caller("alice", "acme", &plan(rates, rates));
    limiter.reserve(&alice, 10, FRESH, seconds(0)).unwrap().withdraw();
    assert!(limiter.tell().is_empty());
    assert!(limiter.reserve(&alice, 10, FRESH, seconds(0)).is_ok());
}
