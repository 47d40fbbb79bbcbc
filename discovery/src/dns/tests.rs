use hickory_proto::op::ResponseCode;

use super::*;
use crate::testing::{Server, many, refuses, silent, soon, zone};

fn pods(server: &Server) -> Dns {
    Dns::addresses("pods", 80, server.resolver())
}

/// The names of the pods that are told next.
async fn told(source: &mut Dns) -> Vec<String> {
    let pods = soon(source.next()).await;
    assert!(pods.iter().all(|pod| pod.name == pod.address.to_string()));
    pods.into_iter().map(|pod| pod.name).collect()
}

/// Waits until `questions` more came.
async fn asked(server: &Server, source: &mut Dns, questions: usize) {
    server.asked();
    let mut so_far = 0;
    while so_far < questions {
        // A waiter that gives up for other things, as an edge does.
        let news = tokio::time::timeout(Duration::from_millis(20), source.next()).await;
        assert!(news.is_err(), "{news:?}");
        so_far += server.asked().len();
    }
}

const ONE: &str = "pods. 1 A 192.0.2.1\npods. 1 AAAA ::2";
const TWO: &str = "pods. 0 A 192.0.2.9\npods. 0 AAAA ::2";

#[tokio::test]
async fn pods_change_when_the_ttl_is_over_and_are_named_by_their_addresses() {
    let server = Server::start(zone(ONE)).await;
    let mut source = pods(&server);
    assert_eq!(source.name(), "pods:80");
    assert_eq!(told(&mut source).await, ["192.0.2.1:80", "[::2]:80"]);
    asked(&server, &mut source, 2).await;
    server.says(zone(TWO));
    assert_eq!(told(&mut source).await, ["192.0.2.9:80", "[::2]:80"]);
    server.says(zone(ONE));
    assert_eq!(told(&mut source).await, ["192.0.2.1:80", "[::2]:80"]);
}

#[tokio::test]
async fn a_ttl_of_nothing_is_a_second() {
    let server = Server::start(zone(TWO)).await;
    let mut source = pods(&server);
    told(&mut source).await;
    let before = Instant::now();
    asked(&server, &mut source, 4).await;
    assert!(before.elapsed() >= Duration::from_secs(1), "a server is not asked without a pause");
}

#[tokio::test]
async fn a_name_server_that_fails_changes_nothing() {
    let server = Server::start(zone(ONE)).await;
    let mut source = pods(&server);
    told(&mut source).await;
    server.says(refuses(ResponseCode::ServFail));
    asked(&server, &mut source, 4).await;
    assert!(source.troubled);
    server.says(zone(TWO));
    assert_eq!(told(&mut source).await, ["192.0.2.9:80", "[::2]:80"]);
    assert!(!source.troubled);
}

#[tokio::test]
async fn a_name_server_that_is_silent_changes_nothing() {
    let server = Server::start(zone(ONE)).await;
    let mut source = pods(&server);
    told(&mut source).await;
    server.says(silent);
    asked(&server, &mut source, 8).await;
    assert!(source.troubled);
    server.says(zone(TWO));
    assert_eq!(told(&mut source).await, ["192.0.2.9:80", "[::2]:80"]);
}

#[tokio::test]
async fn a_pool_is_empty_when_that_was_said_three_times() {
    let server = Server::start(zone(ONE)).await;
    let mut source = pods(&server);
    told(&mut source).await;
    server.says(zone(""));
    server.asked();
    assert!(told(&mut source).await.is_empty());
    assert!(server.asked().iter().filter(|asked| *asked == "pods. A").count() >= 3);
    server.says(zone(ONE));
    assert_eq!(told(&mut source).await, ["192.0.2.1:80", "[::2]:80"]);
}

#[tokio::test]
async fn nothing_at_the_start_is_told_and_trouble_is_waited_out() {
    let server = Server::start(refuses(ResponseCode::Refused)).await;
    let mut source = pods(&server);
    asked(&server, &mut source, 2).await;
    server.says(zone(""));
    assert!(told(&mut source).await.is_empty());
}

#[tokio::test]
async fn of_too_many_pods_the_same_are_used_each_time() {
    let server = Server::start(zone(&many("pods.", 1100))).await;
    let mut source = pods(&server);
    let first = told(&mut source).await;
    assert_eq!(first.len(), PODS_MAX);
    assert!(source.too_many);
    asked(&server, &mut source, 4).await;
}

#[tokio::test]
async fn a_service_whose_targets_are_all_new_is_never_told_empty() {
    let at = |name: &str| {
        format!("_http._tcp.pods. 1 SRV 0 0 80 {name}.\n{name}. 1 A 192.0.2.1\n{name}. 1 AAAA ::1")
    };
    let server = Server::start(zone(&at("a"))).await;
    let mut source = Dns::services("_http._tcp.pods", server.resolver());
    assert_eq!(told(&mut source).await, ["192.0.2.1:80", "[::1]:80"]);
    server.says(zone(&at("b").replace("192.0.2.1", "192.0.2.2")));
    assert_eq!(told(&mut source).await, ["192.0.2.2:80", "[::1]:80"]);
}

#[tokio::test]
async fn a_new_target_is_told_with_its_addresses_and_those_that_stay() {
    let both = |other: &str| {
        format!(
            "_http._tcp.pods. 1 SRV 0 0 80 a.\n_http._tcp.pods. 1 SRV 0 0 80 {other}.\n\
             a. 1 A 192.0.2.1\nb. 1 A 192.0.2.2\nc. 1 A 192.0.2.3"
        )
    };
    let server = Server::start(zone(&both("b"))).await;
    let mut source = Dns::services("_http._tcp.pods", server.resolver());
    assert_eq!(told(&mut source).await, ["192.0.2.1:80", "192.0.2.2:80"]);
    server.says(zone(&both("c")));
    assert_eq!(told(&mut source).await, ["192.0.2.1:80", "192.0.2.3:80"]);
}
