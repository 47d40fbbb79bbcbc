use hickory_proto::op::ResponseCode;
use tokio::time::Instant;

use super::*;
use crate::testing::{Machine, Server, Via, many, record, refuses, reply, silent, soon, zone};

fn told(answer: Result<Answer, Trouble>) -> String {
    match answer {
        Ok(answer) => {
            let found: Vec<String> = answer.found.iter().map(SocketAddr::to_string).collect();
            format!("{} for {}", found.join(" "), answer.ttl.as_secs())
        }
        Err(trouble) => trouble.to_string(),
    }
}

async fn check(text: &str, name: &str, expected: &str) {
    let server = Server::start(zone(text)).await;
    assert_eq!(told(soon(server.resolver().addresses(name, 80)).await), expected, "{name}");
}

async fn check_service(text: &str, expected: &str) {
    let server = Server::start(zone(text)).await;
    let answer = soon(server.resolver().services("_http._tcp.pods")).await;
    assert_eq!(told(answer), expected, "{text}");
}

#[tokio::test]
async fn a_name_has_addresses_of_both_families() {
    let both = "pods. 9 A 192.0.2.2\npods. 9 A 192.0.2.1\npods. 7 AAAA 2001:db8::1";
    check(both, "pods", "192.0.2.1:80 192.0.2.2:80 [2001:db8::1]:80 for 7").await;
    check("pods. 0 A 192.0.2.1", "PODS.", "192.0.2.1:80 for 1").await;
    check("pods. 86400 A 192.0.2.1\npods. 86400 AAAA ::2", "pods", "192.0.2.1:80 [::2]:80 for 60")
        .await;
    check("pods. 1 A 192.0.2.1", "gone", " for 1").await;
}

#[tokio::test]
async fn an_address_is_asked_of_nobody() {
    let server = Server::start(silent).await;
    for (name, expected) in [
        ("192.0.2.1", "192.0.2.1:80 for 60"),
        ("::1", "[::1]:80 for 60"),
        ("[::1]", "[::1]:80 for 60"),
    ] {
        assert_eq!(told(server.resolver().addresses(name, 80).await), expected);
    }
    assert!(server.asked().is_empty());
}

#[tokio::test]
async fn chains_of_aliases_are_followed_to_their_end() {
    let chain = "pods. 9 CNAME b.\nb. 5 CNAME c.\nc. 7 A 192.0.2.1\nc. 9 AAAA ::2";
    check(chain, "pods", "192.0.2.1:80 [::2]:80 for 5").await;
    let circle = "pods. 9 CNAME b.\nb. 5 CNAME pods.";
    let server = Server::start(zone(circle)).await;
    let answer = soon(server.resolver().addresses("pods", 80)).await;
    assert_eq!(answer, Err(Trouble::Aliases("pods.".to_owned())));
}

#[tokio::test]
async fn an_alias_that_the_server_does_not_follow_is_asked_for() {
    let server = Server::start(|question: &_, _| {
        let mut answer = reply(question);
        let owner = answer.queries[0].name().to_string();
        let line = match (owner.as_str(), answer.queries[0].query_type()) {
            ("pods.", _) => "pods. 5 CNAME b.",
            ("b.", _) => "b. 3 CNAME c.",
            (_, RecordType::A) => "c. 9 A 192.0.2.1",
            _ => "c. 9 AAAA ::2",
        };
        answer.add_answer(record(line));
        vec![answer.to_vec().unwrap()]
    })
    .await;
    let answer = soon(server.resolver().addresses("pods", 80)).await;
    assert_eq!(told(answer), "192.0.2.1:80 [::2]:80 for 3");
}

#[tokio::test]
async fn what_does_not_fit_a_datagram_comes_by_tcp() {
    let server = Server::start(zone(&many("pods.", 100))).await;
    let answer = soon(server.resolver().addresses("pods", 80)).await.unwrap();
    assert_eq!(answer.found.len(), 100);
    assert_eq!(server.asked().iter().filter(|asked| *asked == "pods. A").count(), 2);
}

#[tokio::test]
async fn of_too_many_addresses_the_same_are_used_each_time() {
    let server = Server::start(zone(&many("pods.", 1500))).await;
    let resolver = server.resolver();
    let first = soon(resolver.addresses("pods", 80)).await.unwrap().found;
    assert_eq!((first.len(), first[1023].to_string()), (PODS_MAX, "10.9.3.255:80".to_owned()));
    assert_eq!(soon(resolver.addresses("pods", 80)).await.unwrap().found, first);
}

#[tokio::test]
async fn an_answer_that_is_truncated_even_by_tcp_is_none() {
    let server =
        Server::start(|question: &_, _| vec![reply(question).truncate().to_vec().unwrap()]).await;
    let answer = soon(server.resolver().addresses("pods", 80)).await;
    assert!(matches!(answer, Err(Trouble::Unreachable { .. })), "{answer:?}");
}

#[tokio::test]
async fn what_is_no_answer_to_the_question_is_ignored() {
    let server = Server::start(|question: &_, _| {
        let forged = |change: &dyn Fn(&mut hickory_proto::op::Message)| {
            let mut answer = reply(question);
            answer.add_answer(record("pods. 9 A 203.0.113.66"));
            change(&mut answer);
            answer.to_vec().unwrap()
        };
        let mut datagrams = vec![
            b"garbage".to_vec(),
            Vec::new(),
            vec![0xff; 600],
            forged(&|answer| answer.metadata.id = !answer.metadata.id),
            forged(&|answer| {
                answer.queries[0].set_name("evil.".parse().unwrap());
            }),
        ];
        datagrams.extend(zone("pods. 9 A 192.0.2.1\npods. 9 AAAA ::2")(question, Via::Udp));
        datagrams
    })
    .await;
    let answer = soon(server.resolver().addresses("pods", 80)).await;
    assert_eq!(told(answer), "192.0.2.1:80 [::2]:80 for 9");
}

#[tokio::test]
async fn a_server_that_does_not_answer_is_given_up_in_time() {
    let server = Server::start(silent).await;
    let before = Instant::now();
    let answer = soon(server.resolver().addresses("pods", 80)).await;
    assert_eq!(answer, Err(Trouble::Silent("pods.".to_owned())));
    assert!(before.elapsed() >= TRY * 3, "it may be that datagrams were lost");
    assert!(server.asked().len() > 2, "A and AAAA, and again");
}

#[tokio::test]
async fn a_lost_datagram_is_sent_again() {
    let mut lost = std::collections::HashSet::new();
    let there = zone("pods. 9 A 192.0.2.1\npods. 9 AAAA ::2");
    let server = Server::start(move |question: &hickory_proto::op::Message, via| {
        match lost.insert(question.queries[0].query_type()) {
            true => Vec::new(),
            false => there(question, via),
        }
    })
    .await;
    let answer = soon(server.resolver().addresses("pods", 80)).await;
    assert_eq!(told(answer), "192.0.2.1:80 [::2]:80 for 9");
}

#[tokio::test]
async fn nobody_there_and_failures_are_told_for_what_they_are() {
    let server = Server::start(refuses(ResponseCode::ServFail)).await;
    let resolver = server.resolver();
    let answer = soon(resolver.addresses("pods", 80)).await;
    assert_eq!(told(answer), "the name server says Server Failure for pods.");
    let answer = soon(resolver.services("_http._tcp.pods")).await;
    assert_eq!(told(answer), "the name server says Server Failure for _http._tcp.pods.");
    drop(server);
    let answer = soon(resolver.addresses("pods", 80)).await;
    assert!(matches!(answer, Err(Trouble::Unreachable { .. } | Trouble::Silent(_))), "{answer:?}");
    assert_eq!(told(resolver.addresses("a b..c", 80).await), r#""a b..c" is no domain name"#);
}

#[tokio::test]
async fn where_one_server_fails_the_next_is_asked() {
    let good = Server::start(zone("pods. 9 A 192.0.2.1\npods. 9 AAAA ::2")).await;
    let machine = Machine::new("nameserver 127.0.0.2\nnameserver 127.0.0.1", "");
    let resolver = machine.resolver(good.address.port());
    let bad = Server::beside(&good, "127.0.0.2", refuses(ResponseCode::ServFail)).await;
    let answer = || async { told(soon(resolver.addresses("pods", 80)).await) };
    assert_eq!(answer().await, "192.0.2.1:80 [::2]:80 for 9");
    bad.says(silent);
    assert_eq!(answer().await, "192.0.2.1:80 [::2]:80 for 9");
    drop(bad);
    assert_eq!(answer().await, "192.0.2.1:80 [::2]:80 for 9");
}

#[tokio::test]
async fn a_search_goes_on_after_nothing_and_stops_at_a_failure() {
    let text = "pods.b. 9 A 192.0.2.2\npods.b. 9 AAAA ::2\npods.c. 9 A 192.0.2.3";
    let server = Server::start(zone(text)).await;
    let machine = Machine::new("nameserver 127.0.0.1\nsearch a b c", "");
    let resolver = machine.resolver(server.address.port());
    let answer = || async { told(soon(resolver.addresses("pods", 80)).await) };
    assert_eq!(answer().await, "192.0.2.2:80 [::2]:80 for 9");
    let there = zone(text);
    server.says(move |question, via| match question.queries[0].name().to_string() == "pods.a." {
        true => refuses(ResponseCode::ServFail)(question, via),
        false => there(question, via),
    });
    assert_eq!(answer().await, "the name server says Server Failure for pods.a.");
}

#[tokio::test]
async fn the_files_of_the_machine_come_first_and_are_read_again() {
    let server = Server::start(zone("pods. 9 A 192.0.2.1\npods. 9 AAAA ::2")).await;
    let machine = Machine::new("nameserver 127.0.0.1", "192.0.2.7 pods\n");
    let resolver = machine.resolver(server.address.port());
    let answer = || async { told(soon(resolver.addresses("pods", 80)).await) };
    assert_eq!(answer().await, "192.0.2.7:80 for 1");
    assert_eq!(told(resolver.addresses("localhost", 80).await), "127.0.0.1:80 [::1]:80 for 1");
    assert!(server.asked().is_empty());
    machine.write("hosts", "192.0.2.8 other\n");
    assert_eq!(answer().await, "192.0.2.1:80 [::2]:80 for 9");
    machine.write("resolv.conf", "nameserver 127.0.0.1\nsearch a");
    assert_eq!(answer().await, "192.0.2.1:80 [::2]:80 for 9");
    assert!(server.asked().contains(&"pods.a. A".to_owned()));
}

#[tokio::test]
async fn a_service_is_its_targets_addresses_with_their_ports() {
    let hosts = "a. 9 A 192.0.2.1\na. 9 AAAA ::1\nb. 9 A 192.0.2.2\nb. 9 AAAA ::2\n";
    let check = |text: &'static str, expected| async move {
        check_service(&format!("{hosts}{text}"), expected).await;
    };
    check(
        "_http._tcp.pods. 5 SRV 0 10 80 a.\n_http._tcp.pods. 5 SRV 0 90 81 B.",
        "192.0.2.1:80 192.0.2.2:81 [::1]:80 [::2]:81 for 5",
    )
    .await;
    check(
        "_http._tcp.pods. 5 SRV 2 0 80 a.\n_http._tcp.pods. 5 SRV 1 0 80 b.",
        "192.0.2.2:80 [::2]:80 for 5",
    )
    .await;
    check(
        "_http._tcp.pods. 5 SRV 2 0 80 a.\n_http._tcp.pods. 5 SRV 1 0 80 gone.",
        "192.0.2.1:80 [::1]:80 for 1",
    )
    .await;
    check("_http._tcp.pods. 5 CNAME other.\nother. 5 SRV 0 0 80 a.", "192.0.2.1:80 [::1]:80 for 5")
        .await;
    check("_http._tcp.pods. 5 SRV 0 0 0 .", " for 5").await;
    check("", " for 1").await;
}

#[tokio::test]
async fn hundreds_of_targets_are_asked_for_some_at_a_time() {
    use std::fmt::Write as _;
    let text = (0..300).fold(String::new(), |mut text, at| {
        writeln!(text, "_http._tcp.pods. 60 SRV 0 0 {} h{at}.", 8000 + at).unwrap();
        writeln!(text, "h{at}. 60 A 192.0.2.1").unwrap();
        text
    });
    let server = Server::start(zone(&text)).await;
    let answer = soon(server.resolver().services("_http._tcp.pods")).await.unwrap();
    assert_eq!(answer.found.len(), 300);
}
