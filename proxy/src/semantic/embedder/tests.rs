use nearhop_admin::{Events, Metrics};
use nearhop_conf::Config;
use nearhop_edge_cache::semantic::NotAVector;
use nearhop_wire::{EmbeddingRequest, PodReport};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};

use super::*;
use crate::upstream::{
    links::Links,
    member::Role,
    pool::{Found, Source},
};

const DIMENSIONS: usize = 4;

/// What a pod says to a request for vectors.
#[derive(Debug, Clone, Copy)]
enum Says {
    Vector([f32; DIMENSIONS]),
    Shorter,
    Body(&'static str),
    Status(&'static str),
    Nothing,
    Closes,
}

async fn serve(listener: TcpListener, says: Says) {
    while let Ok((stream, _)) = listener.accept().await {
        tokio::spawn(answer(stream, says));
    }
}

async fn answer(mut stream: TcpStream, says: Says) {
    let mut read = Vec::new();
    loop {
        let mut some = [0; 4096];
        match stream.read(&mut some).await {
            Ok(0) | Err(_) => return,
            Ok(n) => read.extend_from_slice(&some[..n]),
        }
        let text = String::from_utf8_lossy(&read).to_string();
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let length = head.to_ascii_lowercase();
        let length = length.split("content-length: ").nth(1).unwrap().lines().next().unwrap();
        if body.len() < length.parse().unwrap() {
            continue;
        }
        let asked = EmbeddingRequest::parse(body.as_bytes()).unwrap();
        assert_eq!(asked.model.as_deref(), Some("mini@1"), "these weights and no others");
        let vectors =
            |vector: &[f32]| asked.body("mini", &vec![vector.to_vec(); asked.input.len()], 1);
        let (status, body) = match says {
            Says::Vector(vector) => ("200 OK", vectors(&vector)),
            Says::Shorter => ("200 OK", vectors(&[1.0, 0.0])),
            Says::Body(body) => ("200 OK", body.as_bytes().to_vec()),
            Says::Status(status) => (status, b"{}".to_vec()),
            Says::Nothing => std::future::pending().await,
            Says::Closes => return,
        };
        let head = format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n", body.len());
        stream.write_all(&[head.into_bytes(), body].concat()).await.unwrap();
        read.clear();
    }
}

const FILE: &str = "access: {key_secret: 0123456789abcdef, keys: [{name: k, tenant: t, hmac_sha256: 'e4a59481bcec7661fff058f05c96fcf30b6cb5e0f39f1df40fd605cd7985be3d'}]}
edge:
  listen: 127.0.0.1:0
  admin: {listen: '127.0.0.1:0'}
  pods: [{name: p, address: '127.0.0.1:1'}]
  local: {roles: [embed]}
  l3: {embedder: embed, routes: [{mode: serve}], patience: 40ms}
origin:
  listen: 127.0.0.1:1
  admin: {listen: '127.0.0.1:2'}
  models: [{folder: /x, aliases: [embed]}]
";

/// An embedder whose pod says that, within the file's patience where it says nothing.
async fn embedder(says: Says) -> Embedder {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(serve(listener, says));
    let config = Config::read(FILE, "test", &|_| None).unwrap();
    let edge = config.edge.as_ref().unwrap();
    let (metrics, now) = (EdgeMetrics::new(&Metrics::default()), clock::now());
    let links = Links::new(&edge.upstream, None);
    let upstreams = Upstreams::new(edge, links, (&metrics, &Events::new(9)), now);
    let found = Found { name: "local".to_owned(), address, role: Role::Local };
    upstreams.set(&Source::Local, vec![found], now);
    let pod = upstreams.of(Class::Local).remove(0);
    let embedder = EmbedderReport {
        name: "mini".to_owned(),
        revision: "1".to_owned(),
        aliases: vec!["embed".to_owned()],
        dimensions: DIMENSIONS,
    };
    let report =
        PodReport { models: Vec::new(), kept: Vec::new(), slots: 0, embedders: vec![embedder] };
    upstreams.check_passed(&pod, report, now, now);
    let asked = (Arc::new(upstreams), Arc::new(Exchanges::new(&edge.upstream)));
    let mut l3 = edge.l3.clone().unwrap();
    if !matches!(says, Says::Nothing) {
        l3.patience = Duration::from_secs(60);
    }
    Embedder::new(&l3, asked, metrics)
}

/// Asks for the vector of a question.
async fn ask(embedder: &Embedder) -> Result<Vector, &'static str> {
    let vectors = embedder.ask(&embedder.questions, &["How do I?"], Some("mini@1")).await;
    vectors.map(|mut vectors| vectors.remove(0))
}

async fn check(says: Says, expected: &str) {
    let embedder = embedder(says).await;
    let said = ask(&embedder).await;
    let word = said.as_ref().map_or_else(|why| *why, |_| "made");
    assert_eq!(word, expected, "{says:?}");
}

#[tokio::test]
async fn what_is_no_vector_of_that_length_is_none_and_nobody_waits_longer_than_they_want() {
    check(Says::Vector([1.0, 2.0, 3.0, 4.0]), "made").await;
    check(Says::Vector([f32::NAN, 2.0, 3.0, 4.0]), "embedder-failed").await;
    check(Says::Vector([f32::INFINITY, 2.0, 3.0, 4.0]), "embedder-failed").await;
    check(Says::Vector([0.0; DIMENSIONS]), "embedder-failed").await;
    check(Says::Shorter, "embedder-failed").await;
    check(Says::Body("{}"), "embedder-failed").await;
    check(Says::Body("no JSON"), "embedder-failed").await;
    check(Says::Body(r#"{"data":[{"index":0,"embedding":"AAAA"}]}"#), "embedder-failed").await;
    check(Says::Status("500 No"), "embedder-failed").await;
    check(Says::Status("429 Busy"), "embedder-failed").await;
    check(Says::Closes, "embedder-failed").await;
    check(Says::Nothing, "embedder-late").await;
    assert!(Vector::new(&[f32::NAN; 4], 4).is_err_and(|error| error == NotAVector::NotFinite));
}

#[tokio::test]
async fn one_that_fails_again_and_again_is_not_asked_for_a_while_and_lessons_go_on() {
    let embedder = embedder(Says::Nothing).await;
    for _ in 0..3 {
        assert_eq!(ask(&embedder).await.unwrap_err(), "embedder-late");
    }
    assert_eq!(ask(&embedder).await.unwrap_err(), "embedder-open");
    assert_eq!(embedder.fingerprint().as_deref(), Some("mini@1"));
    let other = embedder.ask(&embedder.lessons, &["How do I?"], Some("mini@2")).await;
    assert_eq!(other.unwrap_err(), "embedder-failed", "vectors of another are of no use");
}

#[tokio::test]
async fn more_questions_than_that_do_not_wait() {
    let embedder = Arc::new(embedder(Says::Nothing).await);
    let asked = (0..2 * QUESTIONS_MAX).map(|_| ask(&embedder));
    let said = futures_util::future::join_all(asked).await;
    let busy = said.iter().filter(|said| **said == Err("embedder-busy")).count();
    assert_eq!(busy, QUESTIONS_MAX);
}
