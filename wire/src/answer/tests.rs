use expect_test::{Expect, expect};

use super::*;

fn answer(endpoint: Endpoint) -> Answer {
    Answer {
        head: Head {
            id: "cmpl-1".into(),
            created: 7,
            model: "m".into(),
            fingerprint: "m@1".into(),
            endpoint,
        },
        choices: vec![Choice {
            text: "a\"é\n".into(), finish: Finish::Stop, logprobs: Vec::new()
        }],
        usage: Usage { prompt_tokens: 3, completion_tokens: 2, ..Usage::default() },
    }
}

/// A request whose answer has that shape, with `more` fields.
fn request(endpoint: Endpoint, more: &str) -> CompletionRequest {
    let body = match endpoint {
        Endpoint::Completions | Endpoint::Fim => r#"{"model":"m","prompt":"p"}"#,
        Endpoint::Chat => r#"{"model":"m","messages":[{"role":"user","content":"p"}]}"#,
        Endpoint::Infill => r#"{"input_prefix":"p","input_suffix":""}"#,
        Endpoint::Tabby => r#"{"segments":{"prefix":"p"}}"#,
    };
    let body = body.replacen('{', &format!("{{{more}"), 1);
    CompletionRequest::parse(endpoint, body.as_bytes()).unwrap()
}

const WITH_USAGE: &str = r#""stream_options":{"include_usage":true},"#;

fn check(bytes: &Bytes, expected: &Expect) {
    expected.assert_eq(std::str::from_utf8(bytes).unwrap());
}

#[test]
fn a_completion_has_openais_shape() {
    check(
        &answer(Endpoint::Completions).body(),
        &expect![[
            r#"{"id":"cmpl-1","object":"text_completion","created":7,"model":"m","system_fingerprint":"m@1","choices":[{"index":0,"text":"a\"é\n","logprobs":null,"finish_reason":"stop"}],"usage":{"prompt_tokens":3,"completion_tokens":2,"total_tokens":5,"prompt_tokens_details":{"cached_tokens":0,"truncated_tokens":0}}}"#
        ]],
    );
}

#[test]
fn a_chat_completion_has_openais_shape() {
    check(
        &answer(Endpoint::Chat).body(),
        &expect![[
            r#"{"id":"cmpl-1","object":"chat.completion","created":7,"model":"m","system_fingerprint":"m@1","choices":[{"index":0,"message":{"role":"assistant","content":"a\"é\n"},"logprobs":null,"finish_reason":"stop"}],"usage":{"prompt_tokens":3,"completion_tokens":2,"total_tokens":5,"prompt_tokens_details":{"cached_tokens":0,"truncated_tokens":0}}}"#
        ]],
    );
}

#[test]
fn a_chat_stream_names_the_role_and_ends_with_usage_and_done() {
    check(
        &answer(Endpoint::Chat).stream(&request(Endpoint::Chat, WITH_USAGE)),
        &expect![[r#"
        data: {"id":"cmpl-1","object":"chat.completion.chunk","created":7,"model":"m","system_fingerprint":"m@1","choices":[{"index":0,"delta":{"role":"assistant","content":"a\"é\n"},"logprobs":null,"finish_reason":"stop"}]}

        data: {"id":"cmpl-1","object":"chat.completion.chunk","created":7,"model":"m","system_fingerprint":"m@1","choices":[],"usage":{"prompt_tokens":3,"completion_tokens":2,"total_tokens":5,"prompt_tokens_details":{"cached_tokens":0,"truncated_tokens":0}}}

        data: [DONE]

    "#]],
    );
}

#[test]
fn a_completion_stream_without_usage_has_none() {
    check(
        &answer(Endpoint::Completions).stream(&request(Endpoint::Completions, "")),
        &expect![[r#"
        data: {"id":"cmpl-1","object":"text_completion","created":7,"model":"m","system_fingerprint":"m@1","choices":[{"index":0,"text":"a\"é\n","logprobs":null,"finish_reason":"stop"}]}

        data: [DONE]

    "#]],
    );
}

#[test]
fn an_edge_reads_what_a_pod_wrote() {
    for endpoint in [Endpoint::Completions, Endpoint::Chat] {
        let head = answer(endpoint).head;
        let delta = Delta {
            index: 1,
            text: "x\u{1F600}".into(),
            token_ids: vec![5, 6],
            logprobs: vec![
                TokenLogprob {
                    token: "x".into(),
                    logprob: -0.5,
                    offset: if endpoint == Endpoint::Chat { 0 } else { 3 },
                    top: vec![("x".into(), -0.5), ("\"".into(), TokenLogprob::LOWEST)],
                },
                TokenLogprob { token: "\u{1F600}".into(), ..TokenLogprob::default() },
            ],
            finish: Some(Finish::Length),
        };
        let event = head.delta_event(&delta, false);
        let data = event.strip_prefix(b"data: ").unwrap();
        let mut chunk: Chunk<'_> = serde_json::from_slice(data).unwrap();
        assert_eq!(chunk.id, "cmpl-1");
        assert!(chunk.usage().is_none());
        assert_eq!(chunk.choices.remove(0).into_delta(), delta);
    }
}

#[test]
fn an_edge_reads_a_pods_usage() {
    let usage =
        Usage { prompt_tokens: 9, completion_tokens: 4, cached_tokens: 2, truncated_tokens: 64 };
    let event = answer(Endpoint::Chat).head.usage_event(usage);
    let chunk: Chunk<'_> = serde_json::from_slice(&event[6..]).unwrap();
    assert_eq!(chunk.usage(), Some(usage));
    assert!(chunk.choices.is_empty());
}

#[test]
fn mistrals_answer_is_a_chat_completion() {
    check(
        &answer(Endpoint::Fim).body(),
        &expect![[
            r#"{"id":"cmpl-1","object":"chat.completion","created":7,"model":"m","system_fingerprint":"m@1","choices":[{"index":0,"message":{"role":"assistant","content":"a\"é\n","tool_calls":null},"logprobs":null,"finish_reason":"stop"}],"usage":{"prompt_tokens":3,"completion_tokens":2,"total_tokens":5,"prompt_tokens_details":{"cached_tokens":0,"truncated_tokens":0}}}"#
        ]],
    );
}

#[test]
fn mistrals_stream_ends_with_the_reason_and_the_usage_in_one_chunk() {
    check(
        &answer(Endpoint::Fim).stream(&request(Endpoint::Fim, "")),
        &expect![[r#"
        data: {"id":"cmpl-1","object":"chat.completion.chunk","created":7,"model":"m","system_fingerprint":"m@1","choices":[{"index":0,"delta":{"role":"assistant","content":"a\"é\n"},"logprobs":null,"finish_reason":null}]}

        data: {"id":"cmpl-1","object":"chat.completion.chunk","created":7,"model":"m","system_fingerprint":"m@1","choices":[{"index":0,"delta":{"content":""},"logprobs":null,"finish_reason":"stop"}],"usage":{"prompt_tokens":3,"completion_tokens":2,"total_tokens":5,"prompt_tokens_details":{"cached_tokens":0,"truncated_tokens":0}}}

        data: [DONE]

    "#]],
    );
}

#[test]
fn tabbys_answer_is_an_id_and_texts() {
    check(
        &answer(Endpoint::Tabby).body(),
        &expect![[r#"{"id":"cmpl-1","choices":[{"index":0,"text":"a\"é\n"}]}"#]],
    );
}

#[test]
fn llama_cpps_answer_has_counts_and_no_times() {
    let mut answer = answer(Endpoint::Infill);
    answer.usage.cached_tokens = 1;
    check(
        &answer.body(),
        &expect![[
            r#"{"index":0,"content":"a\"é\n","tokens":[],"id_slot":0,"stop":true,"model":"m","tokens_predicted":2,"tokens_evaluated":3,"generation_settings":{},"prompt":"","has_new_line":true,"truncated":false,"stop_type":"eos","stopping_word":"","tokens_cached":1,"timings":{"cache_n":1,"prompt_n":2,"predicted_n":2}}"#
        ]],
    );
    assert_eq!(answer.body_for(&request(Endpoint::Infill, "")), answer.body());
}

#[test]
fn llama_cpps_stream_ends_without_done() {
    check(
        &answer(Endpoint::Infill).stream(&request(Endpoint::Infill, "")),
        &expect![[r#"
        data: {"index":0,"content":"a\"é\n","tokens":[],"stop":false}

        data: {"index":0,"content":"","tokens":[],"id_slot":0,"stop":true,"model":"m","tokens_predicted":2,"tokens_evaluated":3,"generation_settings":{},"prompt":"","has_new_line":true,"truncated":false,"stop_type":"eos","stopping_word":"","tokens_cached":0,"timings":{"cache_n":0,"prompt_n":3,"predicted_n":2}}

    "#]],
    );
}

#[test]
fn response_fields_choose_and_flatten_and_leave_out_what_is_not_there() {
    let fields = r#""response_fields":["content","timings/prompt_n","timings/prompt_ms","truncated","no/such",""],"#;
    let chosen = request(Endpoint::Infill, fields);
    assert!(!chosen.takes_full_body());
    check(
        &answer(Endpoint::Infill).body_for(&chosen),
        &expect![[r#"{"content":"a\"é\n","timings/prompt_n":3,"truncated":false}"#]],
    );
    // What llama.vim sends with a warm-up.
    let nothing = request(Endpoint::Infill, r#""response_fields":[""],"#);
    check(&answer(Endpoint::Infill).body_for(&nothing), &expect!["{}"]);
}

#[test]
fn a_warm_up_shows_no_text() {
    let warm_up = request(Endpoint::Infill, r#""n_predict":0,"#);
    assert!(!warm_up.takes_full_body());
    let body = answer(Endpoint::Infill).body_for(&warm_up);
    let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
    assert_eq!((&body["content"], &body["stop"]), (&"".into(), &true.into()));
    let stream = answer(Endpoint::Infill).stream(&warm_up);
    assert_eq!(stream.windows(6).filter(|six| *six == b"data: ").count(), 1);
}

#[test]
fn pieces_make_the_same_text_as_the_whole_in_every_shape() {
    let all = [Endpoint::Completions, Endpoint::Chat, Endpoint::Fim, Endpoint::Infill];
    for endpoint in all {
        let answer = answer(endpoint);
        let mut out = BytesMut::new();
        let mut writer = EventWriter::new(answer.head.clone(), &request(endpoint, ""));
        for text in ["a\"", "é", "", "\n"] {
            writer.delta(&Delta { text: text.into(), ..Delta::default() }, &mut out);
        }
        writer.delta(&Delta { finish: Some(Finish::Length), ..Delta::default() }, &mut out);
        writer.usage(answer.usage, &mut out);
        let unfinished = out.clone();
        writer.done(&mut out);
        let texts = |stream: &[u8]| -> String {
            let mut reader = crate::SseReader::new(4096);
            reader.push(stream);
            let events = std::iter::from_fn(|| reader.next_event().unwrap());
            events
                .filter_map(|data| serde_json::from_slice::<serde_json::Value>(&data).ok())
                .filter_map(|event| {
                    let choice = &event["choices"][0];
                    let texts = [&choice["text"], &choice["delta"]["content"], &event["content"]];
                    texts.into_iter().find_map(|text| text.as_str().map(str::to_owned))
                })
                .collect()
        };
        assert_eq!(texts(&out), "a\"é\n", "{endpoint:?}");
        assert_eq!(texts(&answer.stream(&request(endpoint, ""))), "a\"é\n", "{endpoint:?}");
        let unfinished = String::from_utf8(unfinished.to_vec()).unwrap();
        let ends = [r#""stop":true"#, "[DONE]"];
        assert!(!ends.iter().any(|end| unfinished.contains(end)), "{endpoint:?}: {unfinished}");
        let said_early = unfinished.contains(r#""finish_reason":"length""#);
        assert_eq!(said_early, matches!(endpoint, Endpoint::Completions | Endpoint::Chat));
    }
}

#[test]
fn tabbys_plug_ins_find_a_model_and_a_version() {
    let health: serde_json::Value = serde_json::from_slice(&tabby_health("m")).unwrap();
    assert_eq!(health["model"], "m");
    assert!(health["version"]["git_describe"].is_string());
}

#[test]
fn nothing_may_be_written_as_null_and_an_end_that_is_empty_is_none() {
    let check = |text: &str, expected: (&str, Option<Finish>)| {
        let mut chunk: Chunk<'_> = serde_json::from_str(text).unwrap();
        let delta = chunk.choices.remove(0).into_delta();
        assert_eq!((delta.text.as_str(), delta.finish), expected, "{text}");
    };
    check(
        r#"{"id":null,"created":null,"system_fingerprint":null,"usage":null,"choices":[{"delta":{"content":"a"},"token_ids":null,"logprobs":{"content":null}}]}"#,
        ("a", None),
    );
    check(r#"{"choices":[{"text":"a","finish_reason":""}]}"#, ("a", None));
    check(
        r#"{"choices":[{"text":null,"finish_reason":"content_filter"}]}"#,
        ("", Some(Finish::Stop)),
    );
    let usage = r#"{"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":2,"prompt_tokens_details":null}}"#;
    let usage = serde_json::from_str::<Chunk<'_>>(usage).unwrap().usage().unwrap();
    assert_eq!((usage.prompt_tokens, usage.completion_tokens, usage.cached_tokens), (3, 2, 0));
}
