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
        choices: vec![Choice { text: "a\"é\n".into(), finish: Finish::Stop }],
        usage: Usage { prompt_tokens: 3, completion_tokens: 2, ..Usage::default() },
    }
}

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
        &answer(Endpoint::Chat).stream(true),
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
        &answer(Endpoint::Completions).stream(false),
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
