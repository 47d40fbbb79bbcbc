//! Clients that send slowly, largely, or too much. Small here; `make soak` runs the sizes in full.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use http::StatusCode;
use serde_json::json;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpSocket, TcpStream},
    task::JoinSet,
    time::{sleep, timeout},
};

use crate::support::{
    certificates::Authority,
    client::{complete, request, send},
    eventually,
    fake_pod::{Act, FakePod},
    frames::{
        CONTINUATION, DATA, END_HEADERS, HEADERS, PING, RESET, SETTINGS, WINDOW_UPDATE, field,
        frame, open,
    },
    keep_alive::KeepAlive,
    now,
    process::{Edge, KEY, say, soaking},
    unique,
};

const LIMIT: Duration = Duration::from_secs(120);

/// A socket from one of many loopback addresses, that takes little before it is read.
async fn connect(edge: &Edge, at: usize) -> TcpStream {
    let last = u8::try_from(at % 100 + 2).unwrap();
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    socket.bind(SocketAddr::new(IpAddr::V4(Ipv4Addr::new(127, 0, 1, last)), 0)).unwrap();
    socket.connect(edge.address.parse().unwrap()).await.unwrap()
}

/// Resident memory, bytes.
fn memory(edge: &Edge) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{}/status", edge.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() * 1024
}

/// Sends good requests over four connections; the 99th percentile of their times.
async fn good_traffic(edge: &Edge, each: usize) -> Duration {
    let mut clients = JoinSet::new();
    for _ in 0..4 {
        let address = edge.address.clone();
        clients.spawn(async move {
            let mut client = KeepAlive::new(&address);
            let mut times = Vec::new();
            for _ in 0..each {
                let began = now();
                let body = json!({"model": "fake", "prompt": unique()});
                let answer = client.complete(&body).await.unwrap();
                assert_eq!(answer.status, StatusCode::OK, "{:?}", answer.body);
                times.push(now() - began);
            }
            times
        });
    }
    let mut times = Vec::new();
    while let Some(some) = clients.join_next().await {
        times.extend(some.unwrap());
    }
    times.sort();
    times[times.len() * 99 / 100]
}

async fn refused(edge: &Edge, reason: &str) -> f64 {
    edge.metric(&format!("nearhop_connections_refused_total{{reason=\"{reason}\"}}")).await
}

async fn connections(edge: &Edge) -> f64 {
    edge.metric("nearhop_connections").await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_headers_are_ended_and_hold_up_nobody() {
    let (sockets, each) = if soaking() { (5_000, 500) } else { (300, 100) };
    let pod = FakePod::start(Act::Answer("ok"));
    let edge = Edge::start(&[pod.address], |edge| {
        edge["limits"] = json!({"header_read": if soaking() { "30s" } else { "5s" }});
    });
    let alone = good_traffic(&edge, each).await;
    let before = memory(&edge);
    let mut dripping = JoinSet::new();
    for at in 0..sockets {
        let mut stream = connect(&edge, at).await;
        dripping.spawn(async move {
            let _ = stream.write_all(b"POST /v1/completions HTTP/1.1\r\nx: ").await;
            let mut answer = [0; 1];
            // A byte now and then, until the edge has had enough.
            loop {
                if timeout(Duration::from_millis(250), stream.read(&mut answer)).await.is_ok() {
                    return;
                }
                if stream.write_all(b"y").await.is_err() {
                    return;
                }
            }
        });
    }
    eventually("all are open", LIMIT, || async {
        (connections(&edge).await >= sockets as f64 * 0.9).then_some(())
    })
    .await;
    let beside = good_traffic(&edge, each).await;
    let held = memory(&edge).saturating_sub(before);
    timeout(LIMIT, async { while dripping.join_next().await.is_some() {} }).await.unwrap();
    eventually("they are counted", LIMIT, || async {
        (refused(&edge, "slow_header").await >= sockets as f64 * 0.9).then_some(())
    })
    .await;
    say(&format!(
        "{sockets} slow headers: p99 of good traffic {beside:?}, {:.2} of {alone:?} alone; {} KiB a socket",
        beside.as_secs_f64() / alone.as_secs_f64(),
        held / sockets / 1024
    ));
    assert!(held / sockets < 64 << 10, "{held} bytes for {sockets} sockets");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_readers_are_ended_and_hold_up_nobody() {
    let (sockets, each) = if soaking() { (1_000, 500) } else { (60, 100) };
    let slow = FakePod::start(Act::Long(1024));
    let edge = Edge::start(&[slow.address], |edge| {
        edge["limits"] = json!({"client_write": "3s", "requests": 8192});
    });
    // As pods say it: what they compute together is not to be found out first.
    slow.set_slots(256);
    slow.act(Act::Answer("ok"));
    let alone = good_traffic(&edge, each).await;
    let before = memory(&edge);
    slow.act(Act::Long(1024));
    let mut reading = JoinSet::new();
    for at in 0..sockets {
        let mut stream = connect(&edge, at).await;
        let body = json!({"model": "fake", "prompt": unique(), "stream": true}).to_string();
        let head = format!(
            "POST /v1/completions HTTP/1.1\r\nhost: x\r\nauthorization: {KEY}\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        reading.spawn(async move {
            // Never reads more than this.
            let mut first = [0; 64];
            let _ = timeout(LIMIT, stream.read(&mut first)).await;
            stream
        });
    }
    let mut open = Vec::new();
    while let Some(stream) = reading.join_next().await {
        open.push(stream.unwrap());
    }
    slow.act(Act::Answer("ok"));
    let beside = good_traffic(&edge, each).await;
    let held = memory(&edge).saturating_sub(before);
    eventually("they are ended", LIMIT, || async {
        (edge.metric("nearhop_requests_in_progress").await < 1.0).then_some(())
    })
    .await;
    eventually("and what was held is free", LIMIT, || async {
        (edge.metric("nearhop_buffered_bytes").await < 1.0).then_some(())
    })
    .await;
    drop(open);
    say(&format!(
        "{sockets} slow readers: p99 of good traffic {beside:?}, {:.2} of {alone:?} alone; {} KiB a socket",
        beside.as_secs_f64() / alone.as_secs_f64(),
        held / sockets / 1024
    ));
    // An answer of a megabyte, for those who join, for the cache, and on its way out; each grows by
    // doubling while it comes.
    assert!(held / sockets < 6 << 20, "{held} bytes for {sockets} sockets");
}

#[tokio::test]
async fn an_address_has_so_many_connections() {
    let pod = FakePod::start(Act::Answer("ok"));
    let edge = Edge::start(&[pod.address], |edge| {
        edge["limits"] = json!({"connections_per_address": 20});
    });
    let mut open = Vec::new();
    for _ in 0..20 {
        open.push(connect(&edge, 0).await);
    }
    eventually("they are open", LIMIT, || async {
        (connections(&edge).await >= 20.0).then_some(())
    })
    .await;
    let mut over = connect(&edge, 0).await;
    let mut answer = Vec::new();
    let _ = timeout(LIMIT, over.read_to_end(&mut answer)).await.unwrap();
    assert!(answer.is_empty());
    eventually("it is counted", LIMIT, || async {
        (refused(&edge, "address_limit").await >= 1.0).then_some(())
    })
    .await;
    let body = json!({"model": "fake", "prompt": unique()});
    assert_eq!(
        complete(&edge.address, &body).await.status,
        StatusCode::OK,
        "other addresses go on"
    );
    open.pop();
    eventually("its place is free again", LIMIT, || async {
        let mut stream = connect(&edge, 0).await;
        stream
            .write_all(b"GET /health HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
            .await
            .ok()?;
        let mut answer = String::new();
        timeout(LIMIT, stream.read_to_string(&mut answer)).await.ok()?.ok()?;
        answer.starts_with("HTTP/1.1 200").then_some(())
    })
    .await;
}

#[tokio::test]
async fn large_headers_are_told_and_far_larger_ones_ended() {
    let pod = FakePod::start(Act::Answer("ok"));
    let edge = Edge::start(&[pod.address], |_| {});
    let before = memory(&edge);
    let large = format!("GET /health HTTP/1.1\r\nhost: x\r\nx: {}\r\n\r\n", "y".repeat(40 << 10));
    let mut stream = connect(&edge, 0).await;
    stream.write_all(large.as_bytes()).await.unwrap();
    let mut answer = [0; 12];
    timeout(LIMIT, stream.read_exact(&mut answer)).await.unwrap().unwrap();
    assert_eq!(&answer, b"HTTP/1.1 431");
    let mut ended = JoinSet::new();
    for at in 0..50 {
        let mut stream = connect(&edge, at).await;
        ended.spawn(async move {
            let piece = "x".repeat(16 << 10);
            let _ = stream.write_all(b"GET /health HTTP/1.1\r\nx: ").await;
            // A megabyte is what the parser alone would keep.
            for _ in 0..64 {
                if stream.write_all(piece.as_bytes()).await.is_err() {
                    return;
                }
            }
            let mut rest = Vec::new();
            let _ = timeout(LIMIT, stream.read_to_end(&mut rest)).await.unwrap();
        });
    }
    timeout(LIMIT, async { while ended.join_next().await.is_some() {} }).await.unwrap();
    eventually("they are counted", LIMIT, || async {
        (refused(&edge, "large_header").await >= 50.0).then_some(())
    })
    .await;
    let held = memory(&edge).saturating_sub(before);
    assert!(held < 32 << 20, "{held} bytes");
}

#[tokio::test]
async fn all_requests_together_hold_so_many_bytes() {
    let pod = FakePod::start(Act::Answer("ok"));
    let edge = Edge::start(&[pod.address], |edge| {
        edge["limits"] = json!({"buffered": "1MiB", "body": "256KiB", "prompt": "256KiB"});
    });
    let large = json!({"model": "fake", "prompt": "x".repeat(200 << 10)}).to_string();
    let head = format!(
        "POST /v1/completions HTTP/1.1\r\nhost: x\r\nauthorization: {KEY}\r\ncontent-length: {}\r\n\r\n",
        large.len()
    );
    // All but the last byte: each holds twice its size, so two fit and a third does not.
    let mut half_sent = Vec::new();
    for _ in 0..2 {
        let mut stream = connect(&edge, 0).await;
        stream.write_all(head.as_bytes()).await.unwrap();
        stream.write_all(&large.as_bytes()[..large.len() - 1]).await.unwrap();
        half_sent.push(stream);
    }
    eventually("they are held", LIMIT, || async {
        (edge.metric("nearhop_buffered_bytes").await > 800e3).then_some(())
    })
    .await;
    let body = json!({"model": "fake", "prompt": "x".repeat(200 << 10)});
    let refused = send(&edge.address, request("/v1/completions", &body, &[])).await.unwrap();
    assert_eq!(refused.status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(refused.headers.contains_key("retry-after"));
    let small = json!({"model": "fake", "prompt": unique()});
    assert_eq!(complete(&edge.address, &small).await.status, StatusCode::OK, "small ones fit");
    drop(half_sent);
    eventually("all is free", LIMIT, || async {
        (edge.metric("nearhop_buffered_bytes").await < 1.0).then_some(())
    })
    .await;
    assert_eq!(complete(&edge.address, &body).await.status, StatusCode::OK);
}

fn head_of(stream: u32, flags: u8) -> Vec<u8> {
    let fields = [
        field(":method", "POST"),
        field(":scheme", "http"),
        field(":path", "/v1/completions"),
        field(":authority", "x"),
        field("authorization", KEY),
        field("content-length", "100"),
    ];
    frame(HEADERS, flags, stream, &fields.concat())
}

/// What the edge has decided arrives shortly, once it has read all.
const SHORTLY: Duration = Duration::from_secs(1);

/// Sends what `next` gives until the edge ends the connection or there is no more, and for so long
/// after that; whether the edge did.
async fn flood(
    edge: &Edge,
    (at, patience): (usize, Duration),
    mut next: impl FnMut(u32) -> Option<Vec<u8>>,
) -> bool {
    let mut stream = connect(edge, at).await;
    stream.write_all(&open()).await.unwrap();
    let (mut reader, mut writer) = stream.into_split();
    let ended = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&ended);
    // What comes back is read, or the edge could not even say that it ends.
    let reading = tokio::spawn(async move {
        let mut piece = vec![0; 64 << 10];
        while matches!(reader.read(&mut piece).await, Ok(read) if read > 0) {}
        seen.store(true, Ordering::Release);
    });
    let mut round = 0;
    while let Some(bytes) = next(round) {
        let written = timeout(Duration::from_secs(20), writer.write_all(&bytes)).await;
        if !matches!(written, Ok(Ok(()))) || ended.load(Ordering::Acquire) {
            break;
        }
        round += 1;
    }
    let until = now() + patience;
    while !ended.load(Ordering::Acquire) && now() < until {
        sleep(Duration::from_millis(10)).await;
    }
    reading.abort();
    ended.load(Ordering::Acquire)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn floods_over_http2_are_bounded() {
    let rounds: u32 = if soaking() { 200_000 } else { 5_000 };
    let pod = FakePod::start(Act::Answer("ok"));
    let edge = Edge::start(&[pod.address], |edge| edge["limits"] = json!({"h2_resets": 200}));
    good_traffic(&edge, 20).await;
    let before = memory(&edge);
    let rapid_reset = flood(&edge, (1, LIMIT), |round| {
        let stream = 2 * round + 1;
        let reset = frame(RESET, 0, stream, &8u32.to_be_bytes());
        (round < rounds).then(|| [head_of(stream, END_HEADERS), reset].concat())
    })
    .await;
    let continuation = flood(&edge, (2, LIMIT), |round| {
        let more = field("x", &"y".repeat(100)).repeat(100);
        (round < rounds).then(|| match round {
            0 => head_of(1, 0),
            _ => frame(CONTINUATION, 0, 1, &more),
        })
    })
    .await;
    let mut bomb = vec![0x40];
    bomb.extend([1, b'x', 100]);
    bomb.extend([b'y'; 100]);
    // Indexed once, then named by a byte each: a few kilobytes that mean megabytes.
    let bomb: Vec<u8> = [bomb, vec![0xbe; 15_000]].concat();
    let hpack = flood(&edge, (3, SHORTLY), |round| {
        (round < 200).then(|| frame(HEADERS, END_HEADERS, 2 * round + 1, &bomb))
    })
    .await;
    let _pings =
        flood(&edge, (4, SHORTLY), |round| (round < rounds).then(|| frame(PING, 0, 0, &[0; 8])))
            .await;
    let _settings = flood(&edge, (5, SHORTLY), |round| {
        (round < rounds).then(|| frame(SETTINGS, 0, 0, &[0, 3, 0, 0, 0, 100]))
    })
    .await;
    let _empty = flood(&edge, (6, SHORTLY), |round| {
        (round < rounds)
            .then(|| if round == 0 { head_of(1, END_HEADERS) } else { frame(DATA, 0, 1, &[]) })
    })
    .await;
    let _streams = flood(&edge, (7, SHORTLY), |round| {
        (round < rounds).then(|| head_of(2 * round + 1, END_HEADERS))
    })
    .await;
    good_traffic(&edge, 20).await;
    let held = memory(&edge).saturating_sub(before);
    say(&format!(
        "HTTP/2 floods of {rounds}: connection ended by rapid resets {rapid_reset}, by CONTINUATION {continuation}, by a header bomb {hpack}; {} MiB more",
        held >> 20
    ));
    assert!(rapid_reset && continuation, "the edge ends what only costs");
    assert!(held < 64 << 20, "{held} bytes");
    assert!(pod.seen().len() < 1000, "a given-up request without a body reaches no pod");
}

#[tokio::test]
async fn connections_that_say_nothing_are_ended() {
    let pod = FakePod::start(Act::Answer("ok"));
    let limits = json!({"header_read": "500ms", "body_read": "500ms"});
    let plain = Edge::start(&[pod.address], |edge| edge["limits"] = limits.clone());
    let secure = Edge::with(&[pod.address], |config, folder| {
        let certificates = json!([Authority::new(folder).issue("one", &["one.test"])]);
        config["edge"]["limits"] = limits.clone();
        config["edge"]["tls"] = json!({ "certificates": certificates });
    });
    let balanced = Edge::start(&[pod.address], |edge| {
        edge["limits"] = limits.clone();
        edge["proxy_protocol"] = json!(["127.0.0.0/8"]);
    });
    let head = head_of(1, END_HEADERS);
    let cases: [(&str, &Edge, Vec<u8>); 8] = [
        ("nothing", &plain, Vec::new()),
        ("a piece of HTTP/2's preface", &plain, b"PRI * HT".to_vec()),
        ("the preface alone", &plain, open()),
        ("a header that goes on", &plain, [open(), head_of(1, 0)].concat()),
        ("a body that does not come", &plain, [open(), head].concat()),
        ("nothing, with TLS", &secure, Vec::new()),
        ("a piece of a handshake", &secure, vec![0x16, 3, 1, 2, 0, 1, 0]),
        ("a piece of a PROXY header", &balanced, b"\r\n\r\n\0\r\nQUIT\n\x21".to_vec()),
    ];
    for (what, edge, bytes) in cases {
        let mut stream = connect(edge, 0).await;
        stream.write_all(&bytes).await.unwrap();
        let mut answer = Vec::new();
        // What is told before does not matter; that it ends, does. A body's connection may stay.
        if what != "a body that does not come" {
            let ended = timeout(Duration::from_secs(20), stream.read_to_end(&mut answer)).await;
            assert!(ended.is_ok(), "{what}: still open");
            continue;
        }
        let status = StatusCode::REQUEST_TIMEOUT;
        eventually("the body is given up", LIMIT, || async {
            let name = format!(
                "nearhop_requests_total{{kind=\"none\",source=\"none\",status=\"{}\"}}",
                status.as_u16()
            );
            (edge.metric(&name).await > 0.0).then_some(())
        })
        .await;
    }
    for edge in [&secure, &balanced] {
        eventually("it is counted", LIMIT, || async {
            (refused(edge, "slow_handshake").await >= 1.0).then_some(())
        })
        .await;
    }
    let body = json!({"model": "fake", "prompt": unique()});
    assert_eq!(complete(&plain.address, &body).await.status, StatusCode::OK);
}

#[tokio::test]
async fn an_http2_client_without_a_window_is_given_up() {
    let pod = FakePod::start(Act::Long(512));
    let edge =
        Edge::start(&[pod.address], |edge| edge["limits"] = json!({"client_write": "500ms"}));
    let body = json!({"model": "fake", "prompt": unique(), "stream": true}).to_string();
    let fields = [
        field(":method", "POST"),
        field(":scheme", "http"),
        field(":path", "/v1/completions"),
        field(":authority", "x"),
        field("authorization", KEY),
    ];
    // SETTINGS_INITIAL_WINDOW_SIZE of nothing (RFC 9113, section 6.5.2).
    let bytes = [
        open(),
        frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0]),
        frame(HEADERS, END_HEADERS, 1, &fields.concat()),
        frame(DATA, 1, 1, body.as_bytes()),
    ];
    let mut stream = connect(&edge, 0).await;
    stream.write_all(&bytes.concat()).await.unwrap();
    eventually("it runs", LIMIT, || async { (!pod.seen().is_empty()).then_some(()) }).await;
    eventually("it is given up", LIMIT, || async {
        (edge.metric("nearhop_requests_in_progress").await < 1.0).then_some(())
    })
    .await;
    eventually("and nothing is held", LIMIT, || async {
        (edge.metric("nearhop_buffered_bytes").await < 1.0).then_some(())
    })
    .await;
    // With a window at last: what was cut off must not look whole.
    let update = frame(WINDOW_UPDATE, 0, 1, &65_535u32.to_be_bytes());
    let _ = stream.write_all(&update).await;
    let mut frames = Vec::new();
    while frames_of(&frames).all(|(kind, flags)| kind != RESET && (kind != DATA || flags & 1 == 0))
    {
        let mut piece = vec![0; 16 << 10];
        let read = timeout(LIMIT, stream.read(&mut piece)).await.unwrap().unwrap();
        assert!(read > 0, "the edge said neither");
        frames.extend_from_slice(&piece[..read]);
    }
    assert!(frames_of(&frames).any(|(kind, _)| kind == RESET), "it looked whole");
}

/// The kinds and flags of whole frames.
fn frames_of(mut bytes: &[u8]) -> impl Iterator<Item = (u8, u8)> {
    std::iter::from_fn(move || {
        let head = bytes.get(..9)?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        let (kind, flags) = (head[3], head[4]);
        bytes = bytes.get(9 + length..)?;
        Some((kind, flags))
    })
}

/// Slower than a rapid reset, so that each request is seen before it is reset.
#[tokio::test]
async fn resets_are_counted_also_before_the_body() {
    let pod = FakePod::start(Act::Answer("ok"));
    let edge = Edge::start(&[pod.address], |edge| edge["limits"] = json!({"h2_resets": 50}));
    let mut stream = connect(&edge, 0).await;
    stream.write_all(&open()).await.unwrap();
    let mut piece = vec![0; 16 << 10];
    let mut rounds = 0;
    while rounds < 2_000 {
        let id = 2 * rounds + 1;
        let asked = [head_of(id, END_HEADERS), frame(PING, 0, 0, &[1; 8])].concat();
        if stream.write_all(&asked).await.is_err() {
            break;
        }
        // The acknowledgement: what came before it was read.
        match timeout(LIMIT, stream.read(&mut piece)).await.unwrap() {
            Ok(read) if read > 0 => {}
            _ => break,
        }
        if stream.write_all(&frame(RESET, 0, id, &8u32.to_be_bytes())).await.is_err() {
            break;
        }
        rounds += 1;
    }
    assert!(rounds < 2_000, "nothing ended the connection");
    eventually("it is counted", LIMIT, || async {
        (refused(&edge, "h2_resets").await >= 1.0).then_some(())
    })
    .await;
}
