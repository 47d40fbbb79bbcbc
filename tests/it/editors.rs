//! Editors' own request shapes, as their plug-ins send them, over a pod that only knows OpenAI's.

use std::time::Duration;

use http::StatusCode;
use serde_json::{Value, json};

use crate::support::{
    client::{Whole, post},
    eventually,
    fake_pod::{Act, FakePod},
    process::Edge,
};

const FIM: &str = "/v1/fim/completions";
const INFILL: &str = "/infill";
const COMPLETIONS: &str = "/v1/completions";
const LIMIT: Duration = Duration::from_secs(60);

fn start() -> (FakePod, Edge) {
    let pod = FakePod::start(Act::Answer("let x = 1;\n"));
    let edge = Edge::start(&[pod.address], |_| {});
    (pod, edge)
}

async fn ask(edge: &Edge, path: &str, body: &Value) -> Whole {
    let answer = post(&edge.address, path, body, &[]).await;
    assert_eq!(answer.status, StatusCode::OK, "{path} {body}: {:?}", answer.body);
    answer
}

/// Asks twice; the second answer comes from the cache and is the same.
async fn ask_twice(edge: &Edge, path: &str, body: &Value) -> Value {
    let first = ask(edge, path, body).await;
    assert_eq!(first.header("x-nearhop-source"), "origin", "{path}");
    let second = ask(edge, path, body).await;
    assert_eq!(second.header("x-nearhop-source"), "l1", "{path}");
    assert_eq!(first.body, second.body, "{path}");
    first.json()
}

/// What the pod was sent last, and that it was sent to the path of completions.
fn sent(pod: &FakePod) -> Value {
    let seen = pod.seen().pop().unwrap();
    assert!(seen.head.starts_with("POST /v1/completions "), "{}", seen.head);
    serde_json::from_slice(&seen.body).unwrap()
}

/// The JSON of a stream's events, and whether it ended with `[DONE]`.
fn events(answer: &Whole) -> (Vec<Value>, bool) {
    assert_eq!(answer.header("content-type"), "text/event-stream; charset=utf-8");
    let body = std::str::from_utf8(&answer.body).unwrap();
    let events = body.split("\n\n").filter_map(|event| event.strip_prefix("data: "));
    let events = events.filter_map(|data| serde_json::from_str(data).ok());
    (events.collect(), body.ends_with("data: [DONE]\n\n"))
}

fn fim(stream: bool) -> Value {
    json!({
        "model": "fake", "prompt": "fn main() {\n    ", "suffix": "\n}\n", "max_tokens": 64,
        "min_tokens": null, "temperature": 0.1, "top_p": 1, "stop": ["[PREFIX]", "[SUFFIX]"],
        "random_seed": 7, "stream": stream, "metadata": {"file": "main.rs"},
    })
}

/// llama.vim's, with a snippet of another file.
fn infill(stream: bool) -> Value {
    json!({
        "input_prefix": "fn main() {\n", "input_suffix": "\n}\n", "prompt": "    ",
        "input_extra": [{"text": "pub fn a() {}\n", "time": [1, 2], "filename": "src/a.rs"}],
        "n_predict": 128, "n_indent": 4, "top_k": 40, "top_p": 0.99, "stream": stream,
        "samplers": ["top_k", "top_p", "infill"], "cache_prompt": true,
        "t_max_prompt_ms": 20_000, "t_max_predict_ms": 20_000,
    })
}

fn tabby() -> Value {
    json!({
        "language": "rust",
        "segments": {
            "prefix": "fn main() {\n    ", "suffix": "\n}\n", "filepath": "src/main.rs",
            "git_url": "https://example.org/a.git",
            "declarations": [{"filepath": "src/d.rs", "body": "struct D;"}],
            "relevant_snippets_from_changed_files":
                [{"filepath": "c.py", "body": "c = 1", "score": 0.5}],
        },
        "user": "u", "temperature": 0.1, "mode": "standard",
    })
}

#[tokio::test]
async fn mistrals_fim_is_answered_as_a_chat_and_asked_as_a_completion() {
    let (pod, edge) = start();
    let answer = ask_twice(&edge, FIM, &fim(false)).await;
    assert_eq!(answer["object"], "chat.completion");
    let choice = &answer["choices"][0];
    let message = json!({"role": "assistant", "content": "let x = 1;\n", "tool_calls": null});
    assert_eq!((&choice["message"], &choice["finish_reason"]), (&message, &json!("stop")));
    assert!(answer["usage"]["total_tokens"].is_u64(), "{answer}");
    assert_eq!(
        sent(&pod),
        json!({
            "model": "fake", "prompt": "fn main() {\n    ", "suffix": "\n}\n", "max_tokens": 64,
            "temperature": 0.1, "top_p": 1.0, "stop": ["[PREFIX]", "[SUFFIX]"], "seed": 7,
            "stream": true, "stream_options": {"include_usage": true}, "return_token_ids": true,
        })
    );
    assert_eq!(pod.seen().len(), 1);
}

#[tokio::test]
async fn mistrals_stream_ends_with_the_reason_the_usage_and_done() {
    let (_pod, edge) = start();
    // From the pod, then from the cache.
    for source in ["origin", "l1"] {
        let answer = ask(&edge, FIM, &fim(true)).await;
        assert_eq!(answer.header("x-nearhop-source"), source);
        let (events, done) = events(&answer);
        assert!(done);
        let text: String = events
            .iter()
            .filter_map(|event| event["choices"][0]["delta"]["content"].as_str())
            .collect();
        assert_eq!(text, "let x = 1;\n");
        assert!(events.iter().all(|event| event["object"] == "chat.completion.chunk"));
        let reasons: Vec<bool> =
            events.iter().map(|event| event["choices"][0]["finish_reason"] == "stop").collect();
        let usages: Vec<bool> = events.iter().map(|event| event["usage"].is_object()).collect();
        assert_eq!(reasons, usages);
        assert_eq!(reasons.iter().filter(|said| **said).count(), 1);
        assert_eq!(reasons.last(), Some(&true));
    }
}

#[tokio::test]
async fn llama_cpps_infill_names_no_model_and_is_answered_in_its_shape() {
    let (pod, edge) = start();
    let answer = ask_twice(&edge, INFILL, &infill(false)).await;
    assert_eq!((&answer["content"], &answer["stop"]), (&json!("let x = 1;\n"), &json!(true)));
    assert_eq!((&answer["model"], &answer["stop_type"]), (&json!("fake"), &json!("eos")));
    assert_eq!((&answer["has_new_line"], &answer["truncated"]), (&json!(true), &json!(false)));
    assert!(answer["timings"]["predicted_n"].is_u64(), "{answer}");
    assert!(answer["timings"]["predicted_ms"].is_null(), "nobody measured it: {answer}");
    assert_eq!(
        sent(&pod),
        json!({
            "model": "fake",
            "prompt": "// Path: src/a.rs\npub fn a() {}\n\nfn main() {\n    ",
            "suffix": "\n}\n", "max_tokens": 128, "top_p": 0.99,
            "stream": true, "stream_options": {"include_usage": true}, "return_token_ids": true,
        })
    );
    // The other path is the same question.
    let again = ask(&edge, "/v1/infill", &infill(false)).await;
    assert_eq!(again.header("x-nearhop-source"), "l1");
}

#[tokio::test]
async fn llama_cpps_stream_ends_with_stop_and_without_done() {
    let (_pod, edge) = start();
    for source in ["origin", "l1"] {
        let answer = ask(&edge, INFILL, &infill(true)).await;
        assert_eq!(answer.header("x-nearhop-source"), source);
        let (events, done) = events(&answer);
        assert!(!done, "{:?}", answer.body);
        let text: String = events.iter().filter_map(|event| event["content"].as_str()).collect();
        assert_eq!(text, "let x = 1;\n");
        let stops: Vec<&Value> = events.iter().filter(|event| event["stop"] == true).collect();
        assert_eq!(stops, [events.last().unwrap()]);
        assert_eq!(stops[0]["stop_type"], "eos");
    }
}

#[tokio::test]
async fn response_fields_are_chosen_from_the_same_stored_answer() {
    let (pod, edge) = start();
    let whole = ask(&edge, INFILL, &infill(false)).await.json();
    let mut chosen = infill(false);
    chosen["response_fields"] =
        json!(["content", "timings/prompt_n", "timings/prompt_ms", "truncated"]);
    let answer = ask(&edge, INFILL, &chosen).await;
    assert_eq!(answer.header("x-nearhop-source"), "l1");
    let expected = json!({
        "content": "let x = 1;\n", "truncated": false,
        "timings/prompt_n": whole["timings"]["prompt_n"],
    });
    assert_eq!(answer.json(), expected);
    assert_eq!(pod.seen().len(), 1);
}

#[tokio::test]
async fn a_warm_up_reads_the_prompt_and_shows_nothing() {
    let (pod, edge) = start();
    let body = json!({
        "input_prefix": "", "input_suffix": "", "prompt": "", "n_predict": 0, "temperature": 0.0,
        "input_extra": [{"text": "pub fn a() {}\n", "filename": "src/a.rs"}], "stream": false,
        "samplers": [], "cache_prompt": true, "t_max_prompt_ms": 1, "t_max_predict_ms": 1,
    });
    // Its 2 ms do not end it.
    let answer = ask(&edge, INFILL, &body).await.json();
    assert_eq!((&answer["content"], &answer["stop"]), (&json!(""), &json!(true)));
    // Nobody waits for the pod.
    eventually("the pod reads the prompt", LIMIT, || {
        let seen = pod.seen();
        async move { (!seen.is_empty()).then_some(()) }
    })
    .await;
    assert_eq!(sent(&pod)["max_tokens"], 1);
    assert_eq!(sent(&pod)["prompt"], "// Path: src/a.rs\npub fn a() {}\n\n");
    let mut nothing = body;
    nothing["response_fields"] = json!([""]);
    assert_eq!(ask(&edge, INFILL, &nothing).await.json(), json!({}));
}

#[tokio::test]
async fn tabbys_segments_are_told_from_openais_prompt() {
    let (pod, edge) = start();
    let answer = ask_twice(&edge, COMPLETIONS, &tabby()).await;
    let choices = json!([{"index": 0, "text": "let x = 1;\n"}]);
    assert_eq!(answer["choices"], choices);
    assert!(answer["id"].is_string() && answer["usage"].is_null(), "{answer}");
    assert_eq!(
        sent(&pod),
        json!({
            "model": "fake",
            "prompt": "# Path: c.py\nc = 1\n\n// Path: src/d.rs\nstruct D;\n\nfn main() {\n    ",
            "suffix": "\n}\n", "temperature": 0.1,
            "stream": true, "stream_options": {"include_usage": true}, "return_token_ids": true,
        })
    );
    // The same path with a prompt is OpenAI's.
    let body = json!({"model": "fake", "prompt": "fn main() {\n    ", "suffix": "\n}\n"});
    assert_eq!(ask(&edge, COMPLETIONS, &body).await.json()["object"], "text_completion");
}

#[tokio::test]
async fn the_same_code_in_another_shape_is_the_same_question() {
    let (pod, edge) = start();
    let fim = json!({"model": "fake", "prompt": "a", "suffix": "b"});
    let infill = json!({"input_prefix": "a", "input_suffix": "b"});
    let tabby = json!({"segments": {"prefix": "a", "suffix": "b"}});
    let shapes = [(COMPLETIONS, &fim), (FIM, &fim), (INFILL, &infill), (COMPLETIONS, &tabby)];
    for (at, (path, body)) in shapes.into_iter().enumerate() {
        let answer = ask(&edge, path, body).await;
        let source = if at == 0 { "origin" } else { "l1" };
        assert_eq!(answer.header("x-nearhop-source"), source, "{path} {body}");
        let text = String::from_utf8(answer.body.to_vec()).unwrap();
        assert!(text.contains("let x = 1;"), "{path} {text}");
    }
    assert_eq!(pod.seen().len(), 1);
}

#[tokio::test]
async fn mistakes_are_told_in_the_contracts_shape_on_every_path() {
    let (pod, edge) = start();
    let deep = (0..64).fold(json!(0), |inner, _| json!([inner]));
    let cases = [
        (FIM, json!({"model": "fake", "prompt": "a", "min_tokens": 4}), "min_tokens"),
        (FIM, json!({"prompt": "a"}), "model"),
        (INFILL, json!({"input_suffix": ""}), "input_prefix"),
        (
            INFILL,
            json!({"input_prefix": "", "input_suffix": "", "grammar": "root ::= a"}),
            "grammar",
        ),
        (COMPLETIONS, json!({"segments": {}}), "segments"),
        (COMPLETIONS, json!({"segments": {"prefix": ""}, "mode": "next_edit_suggestion"}), "mode"),
        (COMPLETIONS, json!({"model": "fake", "prompt": "a", "x": deep}), "body"),
    ];
    for (path, body, param) in cases {
        let answer = post(&edge.address, path, &body, &[]).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{path} {body}");
        assert_eq!(answer.json()["error"]["param"], param, "{path} {body}");
    }
    assert!(pod.seen().is_empty());
}

#[tokio::test]
async fn a_field_nobody_knows_keeps_an_editors_request_out_of_the_cache() {
    let (pod, edge) = start();
    let body = json!({"input_prefix": "a", "input_suffix": "b", "brand_new": 1});
    for _ in 0..2 {
        let answer = ask(&edge, INFILL, &body).await;
        assert_eq!(answer.header("x-nearhop-source"), "origin");
    }
    assert!(sent(&pod)["brand_new"].is_null());
}

#[tokio::test]
async fn at_the_end_of_its_time_an_infill_has_what_there_is() {
    let pod = FakePod::start(Act::Hang);
    let edge = Edge::start(&[pod.address], |_| {});
    let mut body = infill(false);
    (body["t_max_prompt_ms"], body["t_max_predict_ms"]) = (json!(100), json!(100));
    let answer = ask(&edge, INFILL, &body).await;
    assert_eq!(answer.header("x-nearhop-source"), "degraded");
    assert_eq!(answer.json()["content"], "");
    pod.act(Act::Answer("x"));
    body["t_max_predict_ms"] = json!(30_000);
    eventually("nothing was stored", LIMIT, || async {
        let again = post(&edge.address, INFILL, &body, &[]).await;
        (again.status == StatusCode::OK && again.json()["content"] == "x").then_some(())
    })
    .await;
}

#[tokio::test]
async fn tabbys_plug_ins_find_a_model() {
    let (_pod, edge) = start();
    let headers = [("authorization", "Bearer nh-dev")];
    let health = crate::support::client::get(&edge.address, "/v1/health", &headers).await.unwrap();
    assert_eq!(health.json()["model"], "fake");
    assert!(health.json()["version"].is_object(), "{:?}", health.body);
    let nobody = crate::support::client::get(&edge.address, "/v1/health", &[]).await.unwrap();
    assert_eq!(nobody.status, StatusCode::UNAUTHORIZED);
}
