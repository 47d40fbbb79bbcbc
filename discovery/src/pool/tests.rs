use std::time::Duration;

use proptest::prelude::*;

use super::*;

const TTL: Duration = Duration::from_secs(5);

fn start() -> Instant {
    nearhop_admin::clock::now()
}

fn there<T>(records: Vec<T>) -> Said<T> {
    Said::There { records, ttl: TTL }
}

fn nothing<T>() -> Said<T> {
    Said::Nothing { ttl: Some(TTL) }
}

fn failed<T>() -> Said<T> {
    Said::Failed(Trouble::Silent("x.".to_owned()))
}

fn target(priority: u16, host: &str, port: u16) -> Target {
    Target { priority, host: host.to_owned(), port }
}

/// IPv4 addresses of a host; `!` where it fails, `-` where there are none.
fn host(name: &str, v4: &str) -> Heard {
    let v4 = match v4 {
        "!" => return Heard::Host(name.to_owned(), Families { v4: failed(), v6: failed() }),
        "-" => nothing(),
        ips => there(ips.split(' ').map(|ip| ip.parse().unwrap()).collect()),
    };
    Heard::Host(name.to_owned(), Families { v4, v6: nothing() })
}

/// What is found after a service's targets and their hosts were heard.
fn check(targets: &[Target], hosts: &[(&str, &str)], expected: Option<&[&str]>) {
    let now = start();
    let mut pool = Pool::services("_http._tcp.pods.", now);
    pool.hear(Heard::Service(there(targets.to_vec())), now);
    for (name, v4) in hosts {
        pool.hear(host(name, v4), now);
    }
    let found = pool.found().map(|all| all.iter().map(SocketAddr::to_string).collect::<Vec<_>>());
    let expected = expected.map(|all| all.iter().map(|&one| one.to_owned()).collect());
    assert_eq!(found, expected, "{targets:?} {hosts:?}");
}

#[test]
fn a_service_is_the_addresses_of_its_targets_with_their_ports() {
    let two = [target(0, "b.", 81), target(0, "a.", 80)];
    check(
        &two,
        &[("a.", "192.0.2.2 192.0.2.1"), ("b.", "192.0.2.1")],
        Some(&["192.0.2.1:80", "192.0.2.1:81", "192.0.2.2:80"]),
    );
    let ports = [target(0, "a.", 80), target(0, "a.", 81), target(0, "a.", 80)];
    check(&ports, &[("a.", "192.0.2.1")], Some(&["192.0.2.1:80", "192.0.2.1:81"]));
}

#[test]
fn targets_of_the_lowest_priority_are_used_while_there_are_any() {
    let all = [target(20, "c.", 80), target(10, "a.", 80), target(10, "b.", 80)];
    let check = |hosts: &[(&str, &str)], expected| check(&all, hosts, expected);
    check(
        &[("a.", "192.0.2.1"), ("b.", "192.0.2.2"), ("c.", "192.0.2.3")],
        Some(&["192.0.2.1:80", "192.0.2.2:80"]),
    );
    check(&[("a.", "-"), ("b.", "192.0.2.2"), ("c.", "192.0.2.3")], Some(&["192.0.2.2:80"]));
    check(&[("a.", "-"), ("b.", "!"), ("c.", "192.0.2.3")], Some(&["192.0.2.3:80"]));
    check(&[("a.", "-"), ("b.", "-"), ("c.", "-")], Some(&[]));
    check(&[("a.", "-"), ("b.", "!"), ("c.", "-")], None);
    check(&[], None);
}

#[test]
fn a_target_that_fails_keeps_its_addresses_and_one_that_goes_takes_them_along() {
    let now = start();
    let mut pool = Pool::services("_http._tcp.pods.", now);
    let both = vec![target(0, "a.", 80), target(0, "b.", 80)];
    pool.hear(Heard::Service(there(both)), now);
    pool.hear(host("a.", "192.0.2.1"), now);
    pool.hear(host("b.", "192.0.2.2"), now);
    let found =
        |pool: &Pool| pool.found().unwrap().iter().map(SocketAddr::to_string).collect::<Vec<_>>();
    let later = now + TTL;
    pool.hear(host("a.", "!"), later);
    assert!(pool.failing());
    assert_eq!(found(&pool), ["192.0.2.1:80", "192.0.2.2:80"]);
    pool.hear(Heard::Service(failed()), later);
    assert_eq!(found(&pool), ["192.0.2.1:80", "192.0.2.2:80"]);
    pool.hear(Heard::Service(there(vec![target(0, "b.", 80)])), later);
    pool.hear(host("a.", "192.0.2.1"), later);
    assert_eq!(found(&pool), ["192.0.2.2:80"]);
    assert!(!pool.failing());
}

#[test]
fn each_question_is_asked_by_its_own_ttl() {
    let now = start();
    let at = |seconds| now + Duration::from_secs(seconds);
    let mut pool = Pool::services("s.", now);
    assert_eq!(pool.questions(now), [Question::Service("s.".to_owned())]);
    let ttl = Duration::from_secs(30);
    let records = vec![target(0, "a.", 80)];
    pool.hear(Heard::Service(Said::There { records, ttl }), now);
    assert!(pool.unheard());
    assert_eq!(pool.questions(now), [Question::Host("a.".to_owned())]);
    pool.hear(host("a.", "192.0.2.1"), now);
    assert!(!pool.unheard());
    assert_eq!((pool.questions(at(4)), pool.due()), (vec![], at(5)));
    assert_eq!(pool.questions(at(5)), [Question::Host("a.".to_owned())]);
    assert_eq!(pool.questions(at(30)).len(), 2);
}

#[test]
fn where_only_one_family_is_answered_the_other_keeps_what_it_had() {
    let now = start();
    let mut pool = Pool::addresses("pods.", 80, now);
    assert_eq!(pool.found(), None);
    let said = |v4, v6| Heard::Host("pods.".to_owned(), Families { v4, v6 });
    let (four, six) = ("192.0.2.1".parse().unwrap(), "2001:db8::1".parse().unwrap());
    pool.hear(said(nothing(), failed()), now);
    assert_eq!(pool.found(), None, "there may be IPv6 addresses");
    pool.hear(said(there(vec![four]), there(vec![six])), now);
    assert_eq!(pool.found().unwrap().len(), 2);
    pool.hear(said(nothing(), failed()), now + TTL);
    pool.hear(said(failed(), nothing()), now + 2 * TTL);
    assert_eq!(pool.found().unwrap().len(), 2);
}

#[test]
fn targets_are_as_many_as_pods_those_of_the_lowest_priority_first() {
    let now = start();
    let mut pool = Pool::services("s.", now);
    let many = (0..1100).map(|at| target(1100 - at, &format!("h{at}."), 80)).collect();
    pool.hear(Heard::Service(there(many)), now);
    assert_eq!(pool.questions(now).len(), PODS_MAX);
    assert!(pool.questions(now).contains(&Question::Host("h1099.".to_owned())));
    assert!(!pool.questions(now).contains(&Question::Host("h0.".to_owned())));
}

fn anything() -> impl Strategy<Value = Heard> {
    let name = || prop::sample::select(vec!["a.", "b.", "c."]);
    let v4 = prop::sample::select(vec!["!", "-", "192.0.2.1", "192.0.2.2 192.0.2.3"]);
    let targets = prop::collection::vec((0..3_u16, name(), 80..82_u16), 1..5);
    prop_oneof![
        (name(), v4).prop_map(|(name, v4)| host(name, v4)),
        targets.prop_map(|all| {
            Heard::Service(there(all.into_iter().map(|(p, n, port)| target(p, n, port)).collect()))
        }),
        Just(Heard::Service(nothing())),
        Just(Heard::Service(failed())),
    ]
}

proptest! {
    #[test]
    fn found_pods_are_sorted_once_each_and_failures_change_none(
        story in prop::collection::vec((anything(), 0..9_u64), 1..40),
    ) {
        let mut now = start();
        let mut pool = Pool::services("s.", now);
        for (heard, later) in story {
            now += Duration::from_secs(later);
            let before = pool.found();
            let failure = heard.trouble().is_some();
            pool.hear(heard, now);
            if failure {
                prop_assert_eq!(pool.found(), before);
            }
            if let Some(found) = pool.found() {
                prop_assert!(found.is_sorted_by(|a, b| a < b));
            }
            prop_assert!(pool.due() <= now + Duration::from_secs(60));
        }
    }
}
