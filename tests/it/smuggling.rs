//! Requests that hide in others: a corpus over raw sockets, HTTP/1 and HTTP/2.
//!
//! Each case carries a second, valid and authorised request where a reader that errs about the end
//! of the first would find it. Whatever the edge answers, that one must never reach a pod, the
//! socket must not give more answers than the case has requests, and the edge must go on.

use std::{fmt::Write as _, time::Duration};

use http::StatusCode;
use serde_json::json;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

use crate::support::{
    client::complete,
    fake_pod::{Act, FakePod},
    frames::{DATA, END_HEADERS, END_STREAM, HEADERS, RESET, field, frame, open},
    process::{Edge, KEY, say},
    unique,
};

/// One case: what is sent, and how many answers it may have.
struct Case {
    name: &'static str,
    bytes: Vec<u8>,
    answers: usize,
}

/// The request that hides.
fn hidden(name: &str) -> String {
    let body = format!(r#"{{"model":"fake","prompt":"hidden {name}"}}"#);
    format!(
        "POST /v1/completions HTTP/1.1\r\nhost: x\r\nauthorization: {KEY}\r\ncache-control: no-store\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
}

fn visible(name: &str) -> String {
    format!(r#"{{"model":"fake","prompt":"visible {name}"}}"#)
}

fn chunked(body: &str) -> String {
    format!("{:x}\r\n{body}\r\n0\r\n\r\n", body.len())
}

fn post(headers: &str) -> String {
    format!("POST /v1/completions HTTP/1.1\r\nhost: x\r\nauthorization: {KEY}\r\n{headers}\r\n")
}

/// HTTP/1 cases.
fn http1() -> Vec<Case> {
    let mut cases = Vec::new();
    let mut add = |name: &'static str, answers: usize, build: &dyn Fn(&str, &str) -> String| {
        let bytes = build(&hidden(name), &visible(name)).into_bytes();
        cases.push(Case { name, bytes, answers });
    };
    // Two lengths.
    add("cl.te", 1, &|hidden, body| {
        let end = chunked(body);
        post(&format!(
            "content-length: {}\r\ntransfer-encoding: chunked\r\n",
            end.len() + hidden.len()
        )) + &end
            + hidden
    });
    add("te.cl", 1, &|hidden, _| {
        let inner = format!("{:x}\r\n{hidden}\r\n0\r\n\r\n", hidden.len());
        post("content-length: 4\r\ntransfer-encoding: chunked\r\n") + &inner
    });
    add("te.cl of zero", 1, &|hidden, _| {
        post("transfer-encoding: chunked\r\ncontent-length: 0\r\n") + "0\r\n\r\n" + hidden
    });
    // Transfer codings that one reader knows and another does not.
    const CODINGS: [(&str, &str); 20] = [
        ("te identity after", "transfer-encoding: chunked\r\ntransfer-encoding: identity\r\n"),
        ("te identity before", "transfer-encoding: identity\r\ntransfer-encoding: chunked\r\n"),
        ("te twice", "transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n"),
        ("te list", "transfer-encoding: identity, chunked\r\n"),
        ("te list reversed", "transfer-encoding: chunked, identity\r\n"),
        ("te gzip", "transfer-encoding: gzip, chunked\r\n"),
        ("te unknown", "transfer-encoding: xchunked\r\n"),
        ("te quoted", "transfer-encoding: \"chunked\"\r\n"),
        ("te comma before", "transfer-encoding: ,chunked\r\n"),
        ("te comma after", "transfer-encoding: chunked,\r\n"),
        ("te parameter", "transfer-encoding: chunked;q=1\r\n"),
        ("te space before colon", "transfer-encoding : chunked\r\n"),
        ("te tab before colon", "transfer-encoding\t: chunked\r\n"),
        ("te space before name", " transfer-encoding: chunked\r\n"),
        ("te folded", "transfer-encoding:\r\n chunked\r\n"),
        ("te vertical tab", "transfer-encoding: \u{b}chunked\r\n"),
        ("te nul", "transfer-encoding: chunked\u{0}\r\n"),
        ("te bare cr", "transfer-encoding: chu\rnked\r\n"),
        ("te in another", "x: y\rtransfer-encoding: chunked\r\n"),
        ("te underscore", "transfer_encoding: chunked\r\n"),
    ];
    for (name, coding) in CODINGS {
        // Read as chunked, the hidden one follows; read by its length, it is in the body.
        add(name, 1, &|hidden, _| {
            let body = format!("0\r\n\r\n{hidden}");
            post(&format!("{coding}content-length: {}\r\n", body.len())) + &body
        });
    }
    for (name, coding) in CODINGS.into_iter().take(11) {
        let name: &'static str = Box::leak(format!("{name} alone").into_boxed_str());
        add(name, 1, &|hidden, body| post(coding) + &chunked(body) + hidden);
    }
    // Content lengths that readers take apart.
    for (name, length) in [
        ("cl twice", "content-length: 0\r\ncontent-length: LEN\r\n"),
        ("cl twice reversed", "content-length: LEN\r\ncontent-length: 0\r\n"),
        ("cl list", "content-length: 0, LEN\r\n"),
        ("cl plus", "content-length: +0\r\n"),
        ("cl minus", "content-length: -1\r\n"),
        ("cl hexadecimal", "content-length: 0x0\r\n"),
        ("cl overflow", "content-length: 18446744073709551616\r\n"),
        ("cl overflow to zero", "content-length: 36893488147419103232\r\n"),
        ("cl broken", "content-length: 0.0\r\n"),
        ("cl empty", "content-length:\r\n"),
        ("cl space inside", "content-length: 0 0\r\n"),
        ("cl space before colon", "content-length : 0\r\n"),
        ("cl folded", "content-length:\r\n 0\r\n"),
        ("cl text", "content-length: zero\r\n"),
    ] {
        add(name, 1, &|hidden, _| post(&length.replace("LEN", &hidden.len().to_string())) + hidden);
    }
    // Chunks.
    for (name, chunk) in [
        ("chunk size overflow", "ffffffffffffffff1\r\n"),
        ("chunk size negative", "-1\r\n"),
        ("chunk size prefix", "0x0\r\n\r\n"),
        ("chunk size empty", "\r\n\r\n"),
        ("chunk size text", "zz\r\n"),
        ("chunk without end", "2\r\n{}XX"),
        ("chunk of another length", "5\r\n{}\r\n0\r\n\r\n"),
        ("chunk ends with lf", "0\n\n"),
        ("chunk extension with lf", "0;a\nb\r\n\r\n"),
        ("chunk size with space", "0 1\r\n\r\n"),
    ] {
        add(name, 1, &|hidden, _| post("transfer-encoding: chunked\r\n") + chunk + hidden);
    }
    add("trailer with a length", 1, &|_, body| {
        // The trailer is no framing: what follows is the next request, and here is none.
        format!(
            "{}{:x}\r\n{body}\r\n0\r\ncontent-length: 9999\r\ntransfer-encoding: identity\r\n\r\n",
            post("connection: close\r\ntransfer-encoding: chunked\r\n"),
            body.len()
        )
    });
    // Lines.
    add("bare lf", 1, &|hidden, _| {
        format!(
            "POST /v1/completions HTTP/1.1\nhost: x\nauthorization: {KEY}\ncontent-length: {}\n\n{hidden}",
            hidden.len()
        )
    });
    add("one bare lf", 1, &|hidden, _| post("x: y\ncontent-length: 0\r\n") + hidden);
    add("no host", 1, &|hidden, _| {
        format!(
            "POST /v1/completions HTTP/1.1\r\nauthorization: {KEY}\r\ncontent-length: 0\r\n\r\n{hidden}"
        )
    });
    add("two hosts", 1, &|hidden, _| post("host: y\r\ncontent-length: 0\r\n") + hidden);
    add("authority beside host", 1, &|hidden, _| {
        format!(
            "POST http://other/v1/completions HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{hidden}",
            hidden.len()
        )
    });
    add("name without colon", 1, &|hidden, _| post("content-length\r\n") + hidden);
    add("empty name", 1, &|hidden, _| post(": 0\r\n") + hidden);
    add("version 1.0 with te", 1, &|hidden, _| {
        format!(
            "POST /v1/completions HTTP/1.0\r\nauthorization: {KEY}\r\nconnection: keep-alive\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n{hidden}"
        )
    });
    add("version 0.9", 1, &|hidden, _| format!("GET /health\r\n{hidden}"));
    add("version 3", 1, &|hidden, _| format!("GET /health HTTP/3.0\r\nhost: x\r\n\r\n{hidden}"));
    // What stays unread.
    for (name, head) in [
        ("unread body of health", "GET /health HTTP/1.1\r\nhost: x\r\n"),
        (
            "unread body of a wrong key",
            "POST /v1/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer wrong\r\n",
        ),
        ("unread body of a wrong path", "POST /nowhere HTTP/1.1\r\nhost: x\r\n"),
        ("unread body of a wrong method", "PUT /v1/completions HTTP/1.1\r\nhost: x\r\n"),
        ("unread body of options", "OPTIONS * HTTP/1.1\r\nhost: x\r\n"),
        ("unread body of trace", "TRACE / HTTP/1.1\r\nhost: x\r\n"),
        ("unread body of head", "HEAD /health HTTP/1.1\r\nhost: x\r\n"),
        (
            "upgrade to websocket",
            "GET /health HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: websocket\r\n",
        ),
        (
            "upgrade to h2c",
            "GET /health HTTP/1.1\r\nhost: x\r\nconnection: upgrade, http2-settings\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABkAAQAAP__\r\n",
        ),
        ("connect", "CONNECT x:80 HTTP/1.1\r\nhost: x:80\r\n"),
        ("nominated length", "GET /health HTTP/1.1\r\nhost: x\r\nconnection: content-length\r\n"),
    ] {
        add(name, 1, &|hidden, _| {
            // By its length the body is all that follows.
            format!("{head}content-length: {}\r\n\r\n{hidden}", hidden.len())
        });
    }
    add("unread chunks", 1, &|hidden, _| {
        format!(
            "GET /health HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n{}",
            chunked(hidden)
        )
    });
    add("a continue that nobody waited for", 1, &|hidden, _| {
        post(&format!("expect: 100-continue\r\ncontent-length: {}\r\n", hidden.len())) + hidden
    });
    add("a body over the limit", 1, &|hidden, _| {
        post(&format!("content-length: {}\r\n", 200_000)) + &"x".repeat(100_000) + hidden
    });
    add("too many headers", 1, &|hidden, _| {
        let mut many = String::new();
        (0..101).for_each(|at| write!(many, "x-{at}: y\r\n").unwrap());
        post(&format!("{many}content-length: {}\r\n", hidden.len())) + hidden
    });
    add("json that ends early", 1, &|hidden, body| {
        post(&format!("content-length: {}\r\n", body.len() + hidden.len())) + body + hidden
    });
    cases
}

/// An HTTP/2 request on `stream`, with more or other fields than it should have.
fn request(stream: u32, more: &[(&str, &str)], body: &str) -> Vec<u8> {
    let mut fields = Vec::new();
    let usual = [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", "/v1/completions"),
        (":authority", "x"),
        ("authorization", KEY),
        ("cache-control", "no-store"),
    ];
    let given = |name: &str| more.iter().any(|(known, _)| *known == name);
    for (name, value) in usual.iter().filter(|(name, _)| !given(name)).chain(more) {
        fields.extend(field(name, value));
    }
    [frame(HEADERS, END_HEADERS, stream, &fields), frame(DATA, END_STREAM, stream, body.as_bytes())]
        .concat()
}

fn http2() -> Vec<Case> {
    let mut cases = Vec::new();
    let mut add = |name: &'static str, frames: Vec<u8>| {
        cases.push(Case { name, bytes: [open(), frames].concat(), answers: 0 });
    };
    let inner = |name: &str| visible(name) + &hidden(name);
    let with = |name: &str, more: &[(&str, &str)]| request(1, more, &inner(name));
    add("h2 control", request(1, &[], &visible("h2 control")));
    add("h2 cl too short", with("h2 cl too short", &[("content-length", "3")]));
    add("h2 cl too long", with("h2 cl too long", &[("content-length", "99999")]));
    add("h2 cl twice", with("h2 cl twice", &[("content-length", "3"), ("content-length", "9")]));
    add("h2 te", with("h2 te", &[("transfer-encoding", "chunked")]));
    add("h2 connection", with("h2 connection", &[("connection", "keep-alive")]));
    add("h2 upgrade", with("h2 upgrade", &[("upgrade", "websocket")]));
    add(
        "h2 crlf in a value",
        with("h2 crlf in a value", &[("x", "y\r\ntransfer-encoding: chunked")]),
    );
    add("h2 lf in a value", with("h2 lf in a value", &[("x", "y\nz: a")]));
    add(
        "h2 crlf in a name",
        with("h2 crlf in a name", &[("x: y\r\ntransfer-encoding", "chunked")]),
    );
    add("h2 colon in a name", with("h2 colon in a name", &[("x:y", "z")]));
    add("h2 upper case", with("h2 upper case", &[("Transfer-Encoding", "chunked")]));
    add(
        "h2 space in the path",
        with("h2 space in the path", &[(":path", "/v1/completions HTTP/1.1\r\nx: y")]),
    );
    add(
        "h2 path twice",
        with("h2 path twice", &[(":path", "/health"), (":path", "/v1/completions")]),
    );
    add("h2 no path", with("h2 no path", &[(":path", "")]));
    add("h2 unknown pseudo-header", with("h2 unknown pseudo-header", &[(":x", "y")]));
    add("h2 pseudo-header late", {
        let mut fields = field("x", "y");
        fields.extend(field(":method", "POST"));
        frame(HEADERS, END_HEADERS | END_STREAM, 1, &fields)
    });
    add(
        "h2 method with a space",
        with("h2 method with a space", &[(":method", "POST /v1/x HTTP/1.1\r\n\r\nGET")]),
    );
    add("h2 data after the end", {
        let mut bytes = request(1, &[], &visible("h2 data after the end"));
        bytes.extend(frame(DATA, END_STREAM, 1, hidden("h2 data after the end").as_bytes()));
        bytes
    });
    add("h2 data after a reset", {
        let mut bytes = frame(RESET, 0, 1, &8u32.to_be_bytes());
        bytes.extend(frame(DATA, END_STREAM, 1, hidden("h2 data after a reset").as_bytes()));
        bytes
    });
    add("h2 an even stream", request(2, &[], &inner("h2 an even stream")));
    add("h2 http/1 after the preface", hidden("h2 http/1 after the preface").into_bytes());
    cases
}

#[tokio::test]
async fn nothing_that_hides_in_a_request_is_one() {
    let pod = FakePod::start(Act::Answer("ok"));
    let edge = Edge::start(&[pod.address], |edge| {
        edge["limits"] = json!({
            "header_read": "500ms", "body_read": "500ms", "keepalive": "1s", "body": "64KiB", "prompt": "64KiB",
        });
    });
    let cases: Vec<Case> = http1().into_iter().chain(http2()).collect();
    let count = cases.len();
    assert!(count >= 70, "{count}");
    let mut running = tokio::task::JoinSet::new();
    for case in cases {
        let address = edge.address.clone();
        running.spawn(async move {
            let mut stream = TcpStream::connect(&address).await.unwrap();
            // A client that stops sending: what hides must be found in what is there.
            let _ = stream.write_all(&case.bytes).await;
            let mut answer = Vec::new();
            let read = timeout(Duration::from_secs(20), stream.read_to_end(&mut answer)).await;
            assert!(read.is_ok(), "{}: the connection is still open", case.name);
            (case, String::from_utf8_lossy(&answer).into_owned())
        });
    }
    while let Some(done) = running.join_next().await {
        let (case, answer) = done.unwrap();
        let heads = answer.matches("HTTP/1.1 ").count() - answer.matches("HTTP/1.1 100").count();
        assert!(heads <= case.answers, "{}: {heads} answers: {answer}", case.name);
        for line in answer.lines().filter(|line| line.starts_with("HTTP/1.1 4")) {
            assert!(answer.contains("\"error\""), "{}: {line} without its reason", case.name);
        }
    }
    // Else the corpus would prove nothing of HTTP/2.
    let control = |seen: &crate::support::fake_pod::Seen| {
        String::from_utf8_lossy(&seen.body).contains("visible h2 control")
    };
    assert!(pod.seen().iter().any(control), "a good request is one");
    for seen in pod.seen() {
        let body = String::from_utf8_lossy(&seen.body).into_owned();
        assert!(!body.contains("hidden "), "it reached the pod: {body}");
    }
    let body = json!({"model": "fake", "prompt": unique()});
    assert_eq!(complete(&edge.address, &body).await.status, StatusCode::OK);
    say(&format!("{count} requests with another one hidden in them: none found"));
}

#[tokio::test]
async fn hits_in_a_row_are_answered_in_order_and_once() {
    let pod = FakePod::start(Act::Answer("ok"));
    let edge = Edge::start(&[pod.address], |_| {});
    let body = json!({"model": "fake", "prompt": unique()}).to_string();
    let one = |id: usize, close: &str| {
        format!(
            "POST /v1/completions HTTP/1.1\r\nhost: x\r\nauthorization: {KEY}\r\nx-request-id: {id}\r\n{close}content-length: {}\r\n\r\n{body}",
            body.len()
        )
    };
    let all: String =
        (0..50).map(|id| one(id, if id == 49 { "connection: close\r\n" } else { "" })).collect();
    let mut stream = TcpStream::connect(&edge.address).await.unwrap();
    stream.write_all(all.as_bytes()).await.unwrap();
    let mut answers = Vec::new();
    timeout(Duration::from_secs(30), stream.read_to_end(&mut answers)).await.unwrap().unwrap();
    let answers = String::from_utf8(answers).unwrap();
    let ids: Vec<usize> = answers
        .lines()
        .filter_map(|line| line.strip_prefix("x-request-id: ")?.trim().parse().ok())
        .collect();
    assert_eq!(ids, (0..50).collect::<Vec<_>>());
    assert_eq!(answers.matches("HTTP/1.1 200").count(), 50);
    assert_eq!(answers.matches("x-nearhop-source: l1").count(), 49);
    assert_eq!(pod.seen().len(), 1);
}

/// All that comes back for these bytes, until the edge closes.
async fn answers(edge: &Edge, bytes: &str) -> String {
    let mut stream = TcpStream::connect(&edge.address).await.unwrap();
    let _ = stream.write_all(bytes.as_bytes()).await;
    let mut answer = Vec::new();
    let _ = timeout(Duration::from_secs(20), stream.read_to_end(&mut answer)).await.unwrap();
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test]
async fn what_follows_a_connect_or_a_broken_chunk_is_no_request() {
    let pod = FakePod::start(Act::Answer("ok"));
    let edge = Edge::start(&[pod.address], |edge| edge["limits"] = json!({"keepalive": "1s"}));
    let connect = format!("CONNECT x:80 HTTP/1.1\r\nhost: x:80\r\n\r\n{}", hidden("connect"));
    let answer = answers(&edge, &connect).await;
    assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "a tunnel's bytes: {answer}");
    for chunk in ["zz\r\n{}\r\n0\r\n\r\n", "2\r\n{}XX0\r\n\r\n"] {
        let broken = post("transfer-encoding: chunked\r\n") + chunk + &hidden("chunk");
        let answer = answers(&edge, &broken).await;
        assert!(answer.starts_with("HTTP/1.1 400"), "{chunk:?}: {answer:?}");
        assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{answer}");
    }
    assert!(pod.seen().is_empty(), "{:?}", pod.seen());
}

/// RFC 9110, section 10.1.1: a client of HTTP/1.0 knows no interim answers.
#[tokio::test]
async fn an_http_1_0_client_is_told_nothing_before_its_answer() {
    let pod = FakePod::start(Act::Answer("ok"));
    let edge = Edge::start(&[pod.address], |_| {});
    let body = visible("1.0");
    let asked = format!(
        "POST /v1/completions HTTP/1.0\r\nauthorization: {KEY}\r\nexpect: 100-continue\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    let answer = answers(&edge, &asked).await;
    assert!(!answer.contains(" 100 ") && answer.contains("\"ok\""), "{answer}");
}
