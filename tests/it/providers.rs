//! External providers: who may be sent there, what they are sent, and what becomes of their answers.

use std::{path::Path, time::Duration};

use http::StatusCode;
use openssl::ssl::SslAcceptor;
use serde_json::{Value, json};
use tokio::net::UdpSocket;

use crate::support::{
    certificates::Authority,
    client::{Answer, LIMIT, Whole, request, send},
    eventually,
    fake_pod::{self, FakePod},
    neighbours::standing,
    now,
    process::{Edge, key, signal},
    provider::{Act, Asked, Do, HEAD, Provider, chunk, status, stream},
    unique,
};

pub(crate) const CHAT: &str = "/v1/chat/completions";
pub(crate) const CODE: &str = "/v1/completions";

/// An edge whose pod is out, with these providers; tenant `dev` may go to all of them, `none` to
/// none. Their names are looked up before the pod goes.
pub(crate) async fn edge(
    providers: &[Value],
    change: impl FnOnce(&mut Value, &Path),
) -> (FakePod, Edge) {
    let pod = FakePod::start(fake_pod::Act::Answer("pod"));
    let edge = Edge::with(&[pod.address], |config, folder| {
        let names: Vec<&Value> = providers.iter().map(|provider| &provider["name"]).collect();
        config["access"]["tenants"] =
            json!([{"name": "dev", "egress": {"providers": names}}, {"name": "none"}]);
        let keys = config["access"]["keys"].as_array_mut().unwrap();
        keys.push(key("none", "none", "nh-none"));
        config["edge"]["providers"] = json!(providers);
        // A chat that nobody answers is refused at every level.
        config["edge"]["tips"] = json!([]);
        change(config, folder);
    });
    eventually("providers' names are looked up", LIMIT, || async {
        let all = upstreams(&edge, "provider").await;
        all.iter().all(|one| one["address"].is_string()).then_some(())
    })
    .await;
    take_out(&edge, &pod).await;
    (pod, edge)
}

/// Its only pod breaks requests, and its checks fail.
pub(crate) async fn take_out(edge: &Edge, pod: &FakePod) {
    pod.act(fake_pod::Act::Close);
    pod.fail_probes(true);
    eventually("the pod is out", LIMIT, || async {
        ask(edge, "nh-none", CODE, &code()).await;
        (edge.pods().await[0]["ready"] == false).then_some(())
    })
    .await;
}

async fn upstreams(edge: &Edge, class: &str) -> Vec<Value> {
    let all = edge.admin("/upstreams").await;
    all.as_array().unwrap().iter().filter(|one| one["class"] == class).cloned().collect()
}

pub(crate) async fn breaker(edge: &Edge, name: &str) -> Value {
    let all = edge.admin("/breakers").await;
    all.as_array().unwrap().iter().find(|one| one["name"] == name).unwrap().clone()
}

/// Why a request of `dev` would not go to an upstream; `null` where it would.
async fn left_out(edge: &Edge, name: &str) -> Value {
    let asked = json!({"tenant": "dev", "path": CHAT, "request": chat()});
    let said = edge.order("/route/explain", &asked).await.json();
    let left_out = said["left_out"].as_array().unwrap();
    left_out
        .iter()
        .find(|one| one["name"] == name)
        .map_or(Value::Null, |one| one["because"].clone())
}

pub(crate) fn chat() -> Value {
    json!({"model": "fake", "messages": [{"role": "user", "content": unique()}]})
}

pub(crate) fn code() -> Value {
    json!({"model": "fake", "prompt": unique()})
}

async fn begin(edge: &Edge, key: &str, path: &str, body: &Value) -> Answer {
    let mut request = request(path, body, &[]);
    let key = format!("Bearer {key}").parse().unwrap();
    request.headers_mut().insert(http::header::AUTHORIZATION, key);
    send(&edge.address, request).await.unwrap()
}

pub(crate) async fn ask(edge: &Edge, key: &str, path: &str, body: &Value) -> Whole {
    begin(edge, key, path, body).await.whole().await.unwrap()
}

pub(crate) async fn ask_chat(edge: &Edge) -> Whole {
    ask(edge, "nh-dev", CHAT, &chat()).await
}

/// The text of a chat's answer that is a whole.
pub(crate) fn said(answer: &Whole) -> String {
    let json = answer.json();
    assert_eq!(answer.status, StatusCode::OK, "{json}");
    json["choices"][0]["message"]["content"].as_str().unwrap_or_else(|| panic!("{json}")).to_owned()
}

/// The text of a chat's stream, which must have ended well.
pub(crate) fn said_in_stream(answer: &Whole) -> String {
    let body = std::str::from_utf8(&answer.body).unwrap();
    assert!(body.ends_with("data: [DONE]\n\n"), "{body}");
    let chunks = body
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line.strip_prefix("data: ")?).ok());
    chunks
        .filter_map(|chunk| chunk["choices"][0]["delta"]["content"].as_str().map(str::to_owned))
        .collect()
}

#[tokio::test]
async fn no_request_goes_where_its_tenant_may_not() {
    let provider = Provider::start(Act::Answer("theirs")).await;
    let (pod, edge) = edge(&[provider.entry("first")], |_, _| {}).await;
    let refused = ask(&edge, "nh-none", CHAT, &chat()).await;
    assert_eq!(refused.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(ask(&edge, "nh-none", CODE, &code()).await.header("x-nearhop-source"), "degraded");
    assert_eq!(provider.times(), 0, "{:?}", provider.asked());
    assert_eq!(said(&ask_chat(&edge).await), "theirs");
    assert_eq!(provider.times(), 1);

    // Nor where its pod does it.
    pod.act(fake_pod::Act::Answer("ours"));
    pod.fail_probes(false);
    eventually("the pod answers", LIMIT, || async {
        let answer = ask(&edge, "nh-dev", CODE, &code()).await;
        (answer.text() == "ours").then_some(())
    })
    .await;
    let times = provider.times();
    for _ in 0..10 {
        ask(&edge, "nh-dev", CODE, &code()).await;
    }
    assert_eq!(provider.times(), times);
}

#[tokio::test]
async fn the_first_that_takes_it_answers_under_its_own_name_and_nothing_is_kept() {
    let (first, second) = (
        Provider::start(Act::Answer("from the first")).await,
        Provider::start(Act::Answer("from the second")).await,
    );
    let mut entries = [second.entry("second"), first.entry("first")];
    entries[0]["priority"] = json!(20);
    entries[0]["models"] = json!({"*": "*"});
    entries[1]["priority"] = json!(10);
    entries[1]["kinds"] = json!(["chat", "agent"]);
    let (pod, edge) = edge(&entries, |_, _| {}).await;

    let question = chat();
    for round in 1..=2 {
        let answer = ask(&edge, "nh-dev", CHAT, &question).await;
        assert_eq!(said(&answer), "from the first");
        let json = answer.json();
        assert_eq!(json["model"], "first-model");
        assert_eq!(json["system_fingerprint"], "first/first-model");
        assert_eq!(json["usage"]["prompt_tokens"], 11);
        assert_eq!(answer.header("x-nearhop-source"), "secondary");
        assert_eq!(first.times(), round, "it is asked again");
    }
    assert_eq!((first.asked()[0].body["model"].as_str(), second.times()), (Some("first-model"), 0));

    let mut prompt = code();
    prompt["temperature"] = json!(0);
    for round in 1..=2 {
        let answer = ask(&edge, "nh-dev", CODE, &prompt).await;
        assert_eq!(answer.text(), "from the second", "the first takes no code");
        let json = answer.json();
        assert_eq!(json["model"], "fake", "its name there is ours");
        assert_eq!(json["system_fingerprint"], "second/fake");
        assert_eq!(second.times(), round, "it is asked again");
    }
    drop((first, second));
    let answer = ask(&edge, "nh-dev", CODE, &prompt).await;
    assert_eq!(answer.header("x-nearhop-source"), "degraded", "not even as a fallback");
    pod.act(fake_pod::Act::Answer("ours"));
    pod.fail_probes(false);
    eventually("the pod is back", LIMIT, || async {
        (edge.pods().await[0]["ready"] == true).then_some(())
    })
    .await;
    assert_eq!(ask(&edge, "nh-dev", CODE, &prompt).await.text(), "ours");
}

/// What a provider is sent for a request, and in which headers.
async fn check_sent(path: &str, body: &Value, (sent_path, sent): (&str, Value)) {
    let provider = Provider::start(Act::Answer("theirs")).await;
    let (_pod, edge) = edge(&[provider.entry("first")], |_, _| {}).await;
    let more = [
        ("x-nearhop-session", "s"),
        ("x-nearhop-timeout-ms", "20000"),
        ("traceparent", "00-11111111111111111111111111111111-2222222222222222-01"),
        ("tracestate", "a=b"),
        ("user-agent", "editor"),
        ("cookie", "secret=1"),
        ("openai-organization", "org"),
        ("x-forwarded-for", "198.51.100.1"),
        ("x-request-id", "mine"),
        ("accept-language", "de"),
    ];
    let answer = send(&edge.address, request(path, body, &more)).await.unwrap();
    let answer = answer.whole().await.unwrap();
    assert_eq!(answer.status, StatusCode::OK, "{:?}", answer.body);
    let asked = provider.asked();
    let [Asked { method_and_path, headers, body: got }] = &asked[..] else { panic!("{asked:?}") };
    assert_eq!(*method_and_path, format!("POST /base/v1{sent_path}"));
    assert_eq!(*got, sent);
    let mut names: Vec<&str> = headers.iter().map(|(name, _)| name.as_str()).collect();
    names.sort_unstable();
    let expected =
        ["accept", "authorization", "content-length", "content-type", "host", "x-request-id"];
    assert_eq!(names, expected);
    let value = |name| headers.iter().find(|(this, _)| this == name).unwrap().1.as_str();
    assert_eq!(value("authorization"), "Bearer key-of-first");
    assert_eq!(value("host"), provider.address.to_string());
    assert_eq!(value("x-request-id"), "mine");
}

#[tokio::test]
async fn a_provider_is_sent_the_request_its_key_and_nothing_of_ours() {
    let options = json!({"include_usage": true});
    let declared = json!({"session": "s", "document": "d", "repo": "r", "file": "f.rs"});
    let messages = json!([{"role": "user", "content": "hello"}]);
    let asked = json!({
        "model": "fake", "messages": messages, "temperature": 0.7, "max_tokens": 9, "nearhop": declared,
        "their_extension": {"a": [1, 2]},
    });
    let sent = json!({
        "model": "first-model", "messages": messages, "temperature": 0.7, "max_tokens": 9,
        "their_extension": {"a": [1, 2]}, "stream": true, "stream_options": options,
    });
    check_sent(CHAT, &asked, ("/chat/completions", sent)).await;

    let asked = json!({"model": "usual", "prompt": "a", "suffix": "b", "stop": ["\n"], "nearhop": declared});
    let sent = json!({
        "model": "first-model", "prompt": "a", "suffix": "b", "stop": ["\n"], "stream": true,
        "stream_options": options,
    });
    check_sent(CODE, &asked, ("/completions", sent.clone())).await;
    check_sent("/v1/fim/completions", &asked, ("/completions", sent)).await;

    let asked = json!({"input_prefix": "a", "input_suffix": "b", "n_predict": 5});
    let sent = json!({
        "model": "first-model", "prompt": "a", "suffix": "b", "max_tokens": 5, "stream": true,
        "stream_options": options,
    });
    check_sent("/infill", &asked, ("/completions", sent)).await;
}

#[tokio::test]
async fn it_takes_the_kinds_that_it_is_configured_for_and_never_tools() {
    let provider = Provider::start(Act::Answer("theirs")).await;
    let mut entry = provider.entry("first");
    entry["kinds"] = json!(["inline", "chat", "agent"]);
    let (_pod, edge) = edge(&[entry], |_, _| {}).await;
    let mut streamed = chat();
    streamed["stream"] = json!(true);
    assert_eq!(said_in_stream(&ask(&edge, "nh-dev", CHAT, &streamed).await), "theirs");
    assert_eq!(said(&ask_chat(&edge).await), "theirs");
    assert_eq!(ask(&edge, "nh-dev", CODE, &code()).await.text(), "theirs");
    let mut streamed = code();
    streamed["stream"] = json!(true);
    let answer = ask(&edge, "nh-dev", CODE, &streamed).await;
    assert_eq!(answer.streamed(), ("theirs".to_owned(), true));
    assert_eq!(answer.header("x-nearhop-source"), "secondary");

    let times = provider.times();
    let fim = json!({"model": "fake", "prompt": unique(), "suffix": "x"});
    let degraded = ask(&edge, "nh-dev", CODE, &fim).await;
    assert_eq!(degraded.header("x-nearhop-source"), "degraded");
    let mut tools = chat();
    tools["tools"] = json!([{"type": "function", "function": {"name": "f", "parameters": {}}}]);
    let refused = ask(&edge, "nh-dev", CHAT, &tools).await;
    assert_eq!(refused.status, StatusCode::SERVICE_UNAVAILABLE, "{:?}", refused.body);
    assert_eq!(provider.times(), times, "{:?}", provider.asked().last());
}

/// A stream that a provider may well send; what the client gets is whole and well-formed.
async fn check_stream(
    edge: &Edge,
    provider: &Provider,
    text: String,
    (expected, finish): (&str, &str),
) {
    provider.act(stream(&text));
    let mut body = chat();
    let whole = ask(edge, "nh-dev", CHAT, &body).await;
    assert_eq!(said(&whole), expected, "{text}");
    let json = whole.json();
    assert_eq!(json["choices"][0]["finish_reason"], finish, "{text}");
    assert!(json["id"].as_str().is_some_and(|id| !id.is_empty()), "{json}");
    assert!(json["created"].as_u64().is_some_and(|created| created > 0), "{json}");
    let usage = &json["usage"];
    let [prompt, completion, total] = ["prompt_tokens", "completion_tokens", "total_tokens"]
        .map(|name| usage[name].as_u64().unwrap());
    assert!(prompt > 0 && completion > 0 && total == prompt + completion, "{json}");
    body["stream"] = json!(true);
    body["stream_options"] = json!({"include_usage": true});
    let streamed = ask(edge, "nh-dev", CHAT, &body).await;
    assert_eq!(said_in_stream(&streamed), expected, "{text}");
    let body = String::from_utf8(streamed.body.to_vec()).unwrap();
    let reasons = body.matches("\"finish_reason\":\"").count();
    assert_eq!(reasons, 1, "one end: {body}");
    assert_eq!(body.matches("\"prompt_tokens\":").count(), 1, "one usage: {body}");
}

#[tokio::test]
async fn streams_that_differ_from_ours_are_read_all_the_same() {
    let provider = Provider::start(Act::Answer("theirs")).await;
    let (_pod, edge) = edge(&[provider.entry("first")], |_, _| {}).await;
    let event = |data: &Value| format!("data: {data}\n\n");
    let piece = |text: &str| event(&chunk(true, text, None));
    let done = "data: [DONE]\n\n";
    let end = |reason: &str| event(&chunk(true, "", Some(reason)));
    let plain = |more: Value| {
        let mut all = json!({"choices": [{"delta": {"content": "ab"}}]});
        all.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        event(&all)
    };
    let usage = |usage: Value| event(&json!({"choices": [], "usage": usage}));
    let streams = [
        ("no usage", format!("{}{}{}{done}", piece("a"), piece("b"), end("stop")), "stop"),
        ("a long answer", format!("{}{}{done}", piece("ab"), end("length")), "length"),
        ("a reason of theirs", format!("{}{}{done}", piece("ab"), end("content_filter")), "stop"),
        (
            "comments and CRLF",
            format!(": keepalive\n\n{}: keepalive\n\n{}{done}", piece("ab"), end("stop"))
                .replace('\n', "\r\n"),
            "stop",
        ),
        (
            "null content first",
            format!(
                "{}{}{}{done}",
                event(
                    &json!({"choices": [{"index": 0, "delta": {"role": "assistant", "content": null}, "finish_reason": null}]})
                ),
                piece("ab"),
                end("stop"),
            ),
            "stop",
        ),
        ("no id nor time", format!("{}{}{done}", plain(json!({})), end("stop")), "stop"),
        (
            "null where nothing is",
            format!(
                "{}{}{}{done}",
                plain(
                    json!({"id": null, "created": null, "system_fingerprint": null, "usage": null})
                ),
                end("stop"),
                usage(json!({"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5,
                    "prompt_tokens_details": null, "completion_tokens_details": null})),
            ),
            "stop",
        ),
        (
            "a usage without a total",
            format!(
                "{}{}{}{done}",
                piece("ab"),
                end("stop"),
                usage(json!({"prompt_tokens": 3, "completion_tokens": 2,
                    "prompt_tokens_details": {"cached_tokens": null}})),
            ),
            "stop",
        ),
        (
            "an empty reason on the way",
            format!(
                "{}{}{done}",
                event(
                    &json!({"choices": [{"delta": {"content": "ab"}, "finish_reason": "", "logprobs": {"content": null}}]})
                ),
                end("stop"),
            ),
            "stop",
        ),
        (
            "something after its end",
            format!(
                "{}{}{}{done}",
                piece("ab"),
                end("stop"),
                event(
                    &json!({"choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}, "finish_reason": null}],
                    "usage": {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}})
                ),
            ),
            "stop",
        ),
        ("its end twice", format!("{}{}{}{done}", piece("ab"), end("stop"), end("stop")), "stop"),
        (
            "its usage again and again",
            format!(
                "{}{}{}{done}",
                plain(
                    json!({"usage": {"prompt_tokens": 3, "completion_tokens": 1, "total_tokens": 4}})
                ),
                end("stop"),
                usage(json!({"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5})),
            ),
            "stop",
        ),
    ];
    for (_, text, finish) in streams {
        check_stream(&edge, &provider, text, ("ab", finish)).await;
    }
    assert_eq!(breaker(&edge, "first").await["failures"], 0);
}

#[tokio::test]
async fn what_a_provider_refuses_is_for_the_next_and_never_for_the_client() {
    let (first, second) = (
        Provider::start(Act::Answer("from the first")).await,
        Provider::start(Act::Answer("from the second")).await,
    );
    let entries = [first.entry("first"), second.entry("second")];
    let (_pod, edge) = edge(&entries, |_, _| {}).await;
    for refused in [400, 409, 413, 422] {
        first.act(status(refused, &[]));
        let times = first.times();
        assert_eq!(said(&ask_chat(&edge).await), "from the second", "{refused}");
        assert_eq!(first.times(), times + 1, "it says nothing of the provider");
    }
    drop(second);
    first.act(status(400, &[]));
    let answer = ask_chat(&edge).await;
    let text = String::from_utf8(answer.body.to_vec()).unwrap();
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE, "{text}");
    assert!(!text.contains("their") && answer.header("retry-after") == "1", "{text}");
    assert_eq!(standing(&edge, "first").await["ready"], true);
}

#[tokio::test]
async fn what_one_forbids_may_be_one_requests_affair() {
    for forbidden in [402, 403, 404, 405] {
        let (first, second) = (
            Provider::start(status(forbidden, &[])).await,
            Provider::start(Act::Answer("from the second")).await,
        );
        let entries = [first.entry("first"), second.entry("second")];
        let (_pod, edge) = edge(&entries, |_, _| {}).await;
        for _ in 0..2 {
            assert_eq!(said(&ask_chat(&edge).await), "from the second", "{forbidden}");
        }
        assert_eq!(standing(&edge, "first").await["ready"], true, "{forbidden}");
        first.act(Act::Answer("from the first"));
        assert_eq!(said(&ask_chat(&edge).await), "from the first", "{forbidden}");
    }
}

#[tokio::test]
async fn one_that_refuses_our_key_is_out_until_that_is_changed() {
    let refused = 401;
    let (first, second) = (
        Provider::start(status(refused, &[])).await,
        Provider::start(Act::Answer("from the second")).await,
    );
    let entries = [first.entry("first"), second.entry("second")];
    let (_pod, edge) = edge(&entries, |config, _| {
        config["edge"]["breaker"] = json!({"open": "1s"});
    })
    .await;
    for _ in 0..4 {
        assert_eq!(said(&ask_chat(&edge).await), "from the second", "{refused}");
    }
    assert_eq!(first.times(), 1, "{refused}");
    assert_eq!(standing(&edge, "first").await["out_because"], "misconfigured");
    assert_eq!(breaker(&edge, "first").await["retry_in_seconds"], Value::Null);
    let events = edge.admin("/events").await;
    let told = events.as_array().unwrap().iter().any(|event| {
        event["kind"] == "upstream_out"
            && event["subject"] == "first"
            && event["detail"]["reason"] == "misconfigured"
    });
    assert!(told, "{events}");
    let log = edge.log();
    assert!(log.contains("refuses our credentials") && !log.contains("key-of-first"), "{log}");

    // The operator has spoken with them.
    first.act(Act::Answer("from the first"));
    assert_eq!(edge.put("/breakers/first", r#"{"forced": "closed"}"#).await.status, 200);
    assert_eq!(edge.put("/breakers/first", r#"{"forced": null}"#).await.status, 200);
    assert_eq!(said(&ask_chat(&edge).await), "from the first");
}

#[tokio::test]
async fn a_changed_key_takes_a_new_process_which_begins_anew() {
    let provider = Provider::start(status(401, &[])).await;
    let (_pod, mut edge) = edge(&[provider.entry("first")], |_, _| {}).await;
    assert_eq!(ask_chat(&edge).await.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(standing(&edge, "first").await["out_because"], "misconfigured");
    provider.act(Act::Answer("theirs"));
    edge.configure(|config| config["edge"]["providers"][0]["key"] = json!("another"));
    edge.order("/config/reload", &json!({})).await;
    let told = edge.admin("/config").await.to_string();
    assert!(told.contains("edge.providers") && !told.contains("another"), "{told}");
    signal(edge.pid(), "USR2");
    let successor = edge.next_ready();
    edge.address = successor["listen"].as_str().unwrap().to_owned();
    edge.admin = successor["admin"].as_str().unwrap().to_owned();
    eventually("its successor asks", LIMIT, || async {
        let answer = ask_chat(&edge).await;
        (answer.status == StatusCode::OK).then_some(())
    })
    .await;
    let last = provider.asked().pop().unwrap();
    assert!(last.headers.contains(&("authorization".to_owned(), "Bearer another".to_owned())));
}

#[tokio::test]
async fn one_that_asks_not_to_be_asked_is_left_alone_for_so_long() {
    let (first, second) = (
        Provider::start(Act::Answer("from the first")).await,
        Provider::start(Act::Answer("from the second")).await,
    );
    let entries = [first.entry("first"), second.entry("second")];
    let (_pod, edge) = edge(&entries, |_, _| {}).await;
    let used_up =
        [("x-ratelimit-remaining-requests", "0"), ("x-ratelimit-reset-requests", "900ms")];
    let headers: [&[(&str, &str)]; 4] =
        [&[("retry-after", "1")], &[("retry-after-ms", "900")], &used_up, &[]];
    for headers in headers {
        first.act(status(429, headers));
        let times = first.times();
        let began = now();
        for _ in 0..4 {
            assert_eq!(said(&ask_chat(&edge).await), "from the second");
        }
        // A slow machine may take longer than the pause for four requests.
        if now() - began < Duration::from_millis(800) {
            assert_eq!(first.times(), times + 1, "{headers:?}");
            assert_eq!(left_out(&edge, "first").await, "rate limited", "{headers:?}");
            assert_eq!(standing(&edge, "first").await["paused"], true);
        }
        first.act(Act::Answer("from the first"));
        eventually("it is asked again", LIMIT, || async {
            (said(&ask_chat(&edge).await) == "from the first").then_some(())
        })
        .await;
        let waited = now() - began;
        assert!(waited >= Duration::from_millis(800), "{headers:?}: {waited:?}");
    }
    // An answer may say so as well: it was the last one for now.
    let Act::Do(steps) = stream(&format!(
        "data: {}\n\ndata: {}\n\ndata: [DONE]\n\n",
        chunk(true, "the last", None),
        chunk(true, "", Some("stop"))
    )) else {
        unreachable!()
    };
    let last: Vec<Do> = steps
        .into_iter()
        .map(|step| match step {
            Do::Say(text) => Do::Say(text.replacen(
                "\r\n",
                "\r\nx-ratelimit-remaining-tokens: 0\r\nx-ratelimit-reset-tokens: 1m0s\r\n",
                1,
            )),
            step => step,
        })
        .collect();
    first.act(Act::Do(last));
    assert_eq!(said(&ask_chat(&edge).await), "the last");
    assert_eq!(said(&ask_chat(&edge).await), "from the second");
    assert_eq!(left_out(&edge, "first").await, "rate limited");
    assert_eq!(breaker(&edge, "first").await["failures"], 0, "being busy is no failure");
}

#[tokio::test]
async fn one_that_fails_too_often_is_out_for_a_while_and_comes_back_after_three_answers() {
    let (first, second) = (
        Provider::start(Act::Answer("from the first")).await,
        Provider::start(Act::Answer("from the second")).await,
    );
    let entries = [first.entry("first"), second.entry("second")];
    let (_pod, edge) = edge(&entries, |config, _| {
        config["edge"]["breaker"] = json!({"open": "1s", "failures": 2});
        config["edge"]["retries"] = json!({"per_second": 1000});
    })
    .await;
    for _ in 0..10 {
        assert_eq!(said(&ask_chat(&edge).await), "from the first");
    }
    first.act(status(500, &[]));
    assert_eq!(said(&ask_chat(&edge).await), "from the second");
    assert_eq!(standing(&edge, "first").await["ready"], true, "once is chance");
    first.act(Act::Answer("from the first"));
    assert_eq!(said(&ask_chat(&edge).await), "from the first", "not in a row");
    first.act(status(502, &[]));
    assert_eq!(said(&ask_chat(&edge).await), "from the second");
    // Two of thirteen: over 5 %.
    let out = standing(&edge, "first").await;
    assert_eq!((&out["ready"], &out["out_because"]), (&json!(false), &json!("failures")), "{out}");
    assert_eq!(left_out(&edge, "first").await, "out: failures");
    let times = first.times();
    assert_eq!(said(&ask_chat(&edge).await), "from the second");
    assert_eq!(first.times(), times);

    // Tried again while it still fails: out again.
    eventually("it is tried again", LIMIT, || async {
        assert_eq!(said(&ask_chat(&edge).await), "from the second");
        (first.times() > times).then_some(())
    })
    .await;
    assert_eq!(breaker(&edge, "first").await["state"], "open");

    first.act(Act::Answer("from the first"));
    eventually("it is back", LIMIT, || async {
        ask_chat(&edge).await;
        (breaker(&edge, "first").await["state"] == "closed").then_some(())
    })
    .await;
    let events = edge.admin("/events").await;
    let told: Vec<&str> = events
        .as_array()
        .unwrap()
        .iter()
        .filter(|event| event["subject"] == "first")
        .map(|event| event["kind"].as_str().unwrap())
        .collect();
    let expected = [
        "upstream_found",
        "upstream_out",
        "upstream_probing",
        "upstream_out",
        "upstream_probing",
        "upstream_back",
    ];
    assert_eq!(told, expected);
    let answered = edge
        .metric("nearhop_attempts_total{class=\"provider\",outcome=\"done\",upstream=\"first\"}")
        .await;
    // The third that closes it may have only begun.
    assert!(answered >= 13.0, "eleven before, and three to close it: {answered}");
}

#[tokio::test]
async fn whatever_a_provider_does_instead_of_answering_the_next_one_answers() {
    let second = Provider::start(Act::Answer("from the second")).await;
    let pieces = format!("data: {}\n\n", chunk(true, "", None));
    let drip = std::iter::repeat_n(
        [Do::Say(": wait\n\n".to_owned()), Do::Wait(Duration::from_millis(50))],
        600,
    );
    let drip = [Do::Say(HEAD.to_owned())].into_iter().chain(drip.flatten()).collect();
    let page = "<html>hello</html>";
    let ok = |kind: &str, body: &str| {
        let length = body.len();
        let text = format!(
            "HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\ncontent-length: {length}\r\n\r\n{body}"
        );
        Act::Do(vec![Do::Say(text)])
    };
    let elsewhere = format!("http://{}/base/v1/chat/completions", second.address);
    let error = json!({"error": {"message": "their words", "code": 502}});
    let acts = [
        ("closes", Act::Do(vec![Do::Close]), "reset"),
        ("hangs", Act::Do(vec![Do::Hang]), "first_byte_timeout"),
        (
            "begins and hangs",
            Act::Do(vec![Do::Say(format!("{HEAD}{pieces}")), Do::Hang]),
            "first_byte_timeout",
        ),
        ("drips", Act::Do(drip), "first_byte_timeout"),
        (
            "says no HTTP",
            Act::Do(vec![Do::Say("SSH-2.0-OpenSSH_9.6\r\n\r\n".to_owned()), Do::Close]),
            "reset",
        ),
        ("a page", ok("text/html", page), "garbage"),
        ("an answer that is no stream", ok("application/json", "{\"choices\":[]}"), "garbage"),
        ("a stream of something else", stream("data: hello\n\n"), "garbage"),
        ("a stream that ends at once", stream(""), "reset"),
        ("an error in a stream", stream(&format!("data: {error}\n\n")), "server_error"),
        ("an endless event", stream(&format!("data: {}", "x".repeat(2 << 20))), "garbage"),
        ("moved", status(302, &[("location", &elsewhere)]), "server_error"),
        ("moved for good", status(308, &[("location", &elsewhere)]), "server_error"),
        ("503 without a time", status(503, &[]), "server_error"),
        ("504", status(504, &[]), "server_error"),
    ];
    for (what, act, outcome) in acts {
        let first = Provider::start(act).await;
        let mut entry = first.entry("first");
        if outcome == "first_byte_timeout" {
            entry["first_token"] = json!("500ms");
        }
        let (_pod, edge) = edge(&[entry, second.entry("second")], |_, _| {}).await;
        let times = second.times();
        assert_eq!(said(&ask_chat(&edge).await), "from the second", "{what}");
        assert_eq!((first.times(), second.times()), (1, times + 1), "{what}: each once");
        let name = format!(
            "nearhop_attempts_total{{class=\"provider\",outcome=\"{outcome}\",upstream=\"first\"}}"
        );
        assert_eq!(edge.metric(&name).await, 1.0, "{what}");
    }
    // Nobody is there at all.
    let gone = Provider::start(Act::Answer("x")).await;
    let entry = gone.entry("first");
    drop(gone);
    let (_pod, edge) = edge(&[entry, second.entry("second")], |_, _| {}).await;
    assert_eq!(said(&ask_chat(&edge).await), "from the second");
    assert_eq!(standing(&edge, "first").await["out_because"], "dead");
}

#[tokio::test]
async fn a_stream_of_a_provider_that_breaks_is_told_and_never_gone_on_with() {
    let second = Provider::start(Act::Answer("from the second")).await;
    let half = format!("{HEAD}data: {}\n\n", chunk(true, "half", None));
    for breaks in ["closes", "hangs"] {
        let first = Provider::start(Act::Do(vec![Do::Say(half.clone()), Do::Hang])).await;
        let mut entry = first.entry("first");
        entry["next_token"] = json!(if breaks == "hangs" { "500ms" } else { "1m" });
        let (_pod, edge) = edge(&[entry, second.entry("second")], |_, _| {}).await;
        let mut body = chat();
        body["stream"] = json!(true);
        let times = second.times();
        let mut answer = begin(&edge, "nh-dev", CHAT, &body).await;
        assert_eq!(answer.status, StatusCode::OK);
        answer.until("\"half\"").await.unwrap();
        let first = (breaks == "hangs").then_some(first);
        let text = String::from_utf8(answer.whole().await.unwrap().body.to_vec()).unwrap();
        assert!(text.contains("event: error"), "{breaks}: {text}");
        assert!(text.contains("stream_broken") && !text.contains("[DONE]"), "{breaks}: {text}");
        assert_eq!(second.times(), times, "{breaks}");
        // What nobody was sent yet can be had elsewhere.
        assert_eq!(said(&ask_chat(&edge).await), "from the second", "{breaks}");
        assert_eq!(second.times(), times + 1, "{breaks}");
        drop(first);
    }
}

fn acceptor(folder: &Path, names: &[&str]) -> (Authority, SslAcceptor) {
    let authority = Authority::new(folder);
    let files = authority.issue("provider", names);
    let path = |name: &str| files[name].as_str().unwrap().to_owned();
    let method = openssl::ssl::SslMethod::tls();
    let mut acceptor = SslAcceptor::mozilla_intermediate_v5(method).unwrap();
    acceptor.set_certificate_chain_file(path("certificate")).unwrap();
    acceptor.set_private_key_file(path("key"), openssl::ssl::SslFiletype::PEM).unwrap();
    (authority, acceptor.build())
}

#[tokio::test]
async fn only_a_certificate_of_its_name_and_of_whom_we_believe_is_good() {
    let folder = tempfile::tempdir().unwrap();
    let stranger = tempfile::tempdir().unwrap();
    let (authority, tls) = acceptor(folder.path(), &["localhost"]);
    let other = Authority::new(stranger.path());
    let another = tempfile::tempdir().unwrap();
    let (elsewhere, other_name) = acceptor(another.path(), &["elsewhere.test"]);
    let check =
        async |tls: &SslAcceptor, host: &str, ca: Option<std::path::PathBuf>, good: bool| {
            let provider = Provider::secure(Act::Answer("theirs"), tls.clone()).await;
            let mut entry = provider.entry("first");
            entry["url"] = json!(format!("https://{host}:{}/v1", provider.address.port()));
            if let Some(ca) = &ca {
                entry["ca"] = json!(ca);
            }
            let (_pod, edge) = edge(&[entry], |_, _| {}).await;
            let answer = ask_chat(&edge).await;
            let out = standing(&edge, "first").await["out_because"].clone();
            let what = format!("{host} {ca:?}");
            match good {
                true => {
                    assert_eq!(said(&answer), "theirs", "{what}");
                    assert_eq!(said(&ask_chat(&edge).await), "theirs", "{what}: again");
                    assert_eq!(out, Value::Null, "{what}");
                }
                false => {
                    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE, "{what}");
                    assert_eq!(provider.times(), 0, "{what}: it was told a request");
                    assert_eq!(out, "misconfigured", "{what}");
                }
            }
        };
    check(&tls, "localhost", Some(authority.file()), true).await;
    check(&tls, "127.0.0.1", Some(authority.file()), true).await;
    check(&tls, "localhost", Some(other.file()), false).await;
    check(&tls, "localhost", None, false).await;
    check(&other_name, "localhost", Some(elsewhere.file()), false).await;
}

#[tokio::test]
async fn a_handshake_that_breaks_off_is_no_fault_of_ours() {
    let folder = tempfile::tempdir().unwrap();
    let (authority, _) = acceptor(folder.path(), &["localhost"]);
    // Closes every connection as soon as something comes.
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let closing = tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut some = [0; 16];
            let _ = tokio::io::AsyncReadExt::read(&mut stream, &mut some).await;
        }
    });
    let entry = json!({
        "name": "first", "url": format!("https://localhost:{port}/v1"), "key": "k", "private": true,
        "models": {"*": "*"}, "ca": authority.file(),
    });
    let (_pod, edge) = edge(&[entry], |_, _| {}).await;
    assert_eq!(ask_chat(&edge).await.status, StatusCode::SERVICE_UNAVAILABLE);
    let out = standing(&edge, "first").await;
    assert_eq!(out["out_because"], "dead", "a restart of theirs must not take it out for ever");
    closing.abort();
}

/// A name server that gives every name this address.
async fn name_server(address: [u8; 4]) -> std::net::SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let at = socket.local_addr().unwrap();
    tokio::spawn(async move {
        let mut query = [0; 512];
        loop {
            let (length, from) = socket.recv_from(&mut query).await.unwrap();
            // Behind the header, a name and then its type.
            let name_end = 12 + query[12..].iter().position(|byte| *byte == 0).unwrap();
            let is_a = query[name_end + 1..name_end + 3] == [0, 1];
            let mut answer = query[..(name_end + 5).min(length)].to_vec();
            answer[2..12].copy_from_slice(&[0x81, 0x80, 0, 1, 0, u8::from(is_a), 0, 0, 0, 0]);
            if is_a {
                answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4]);
                answer.extend(address);
            }
            let _ = socket.send_to(&answer, from).await;
        }
    });
    at
}

#[tokio::test]
async fn a_name_that_points_inward_is_not_followed() {
    let provider = Provider::start(Act::Answer("theirs")).await;
    let server = name_server([127, 0, 0, 1]).await;
    let port = provider.address.port();
    for private in [true, false] {
        let pod = FakePod::start(fake_pod::Act::Answer("pod"));
        let mut entry = provider.entry("first");
        entry["private"] = json!(private);
        let scheme = if private { "http" } else { "https" };
        entry["url"] = json!(format!("{scheme}://api.example.com:{port}/v1"));
        let edge = Edge::with(&[pod.address], |config, _| {
            config["access"]["tenants"] =
                json!([{"name": "dev", "egress": {"providers": ["first"]}}, {"name": "none"}]);
            let keys = config["access"]["keys"].as_array_mut().unwrap();
            keys.push(key("none", "none", "nh-none"));
            config["edge"]["providers"] = json!([entry]);
            config["edge"]["resolver"] = json!(server);
            config["edge"]["tips"] = json!([]);
        });
        take_out(&edge, &pod).await;
        if private {
            eventually("it is looked up", LIMIT, || async {
                standing(&edge, "first").await["address"].is_string().then_some(())
            })
            .await;
            assert_eq!(said(&ask_chat(&edge).await), "theirs");
            continue;
        }
        eventually("it is looked up", LIMIT, || async {
            edge.log().contains("private: true").then_some(())
        })
        .await;
        // Before any request has found out.
        let known = standing(&edge, "first").await;
        assert_eq!((&known["ready"], &known["address"]), (&json!(false), &Value::Null), "{known}");
        assert_eq!(edge.admin("/ladder").await["providers"], "out", "it cannot be asked");
        assert_eq!(ask_chat(&edge).await.status, StatusCode::SERVICE_UNAVAILABLE);
    }
    assert_eq!(provider.times(), 1);
}
