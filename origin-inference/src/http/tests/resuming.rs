//! Going on with an answer that another pod began, and what else only pods are asked.

use nearhop_wire::Chunk;

use super::*;

fn body(more: Value) -> Value {
    let mut body = json!({
        "model": "tiny", "prompt": "def ", "max_tokens": 9,
        "stream": true, "stream_options": {"include_usage": true}, "return_token_ids": true,
    });
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    body
}

/// Text, token ids and completion tokens of a stream.
async fn stream(pod: &Pod, body: &Value) -> (String, Vec<u32>, usize) {
    let (status, bytes) = post(pod, "/v1/completions", body).await;
    assert_eq!(status, StatusCode::OK, "{bytes:?}");
    assert!(bytes.ends_with(DONE), "{bytes:?}");
    let mut reader = SseReader::new(4096);
    reader.push(&bytes);
    let (mut text, mut ids, mut tokens) = (String::new(), Vec::new(), 0);
    while let Some(data) = reader.next_event().unwrap() {
        let Ok(chunk) = serde_json::from_slice::<Chunk<'_>>(&data) else { continue };
        tokens = chunk.usage().map_or(tokens, |usage| usage.completion_tokens);
        for choice in chunk.choices {
            let delta = choice.into_delta();
            text += &delta.text;
            ids.extend(delta.token_ids);
        }
    }
    (text, ids, tokens)
}

#[tokio::test]
async fn a_resumed_answer_is_the_rest_of_the_whole() {
    let whole = stream(&pod(8), &body(json!({}))).await;
    assert_eq!((whole.1.len(), whole.2), (9, 9));
    for given in [0, 1, 4, 8] {
        let resume = json!({"resume": {"revision": "1", "token_ids": [whole.1[..given]]}});
        let (text, ids, tokens) = stream(&pod(8), &body(resume)).await;
        assert!(whole.0.ends_with(&text), "{text} of {}", whole.0);
        assert_eq!((ids.as_slice(), tokens), (&whole.1[given..], 9), "after {given}");
    }
}

#[tokio::test]
async fn a_full_answer_has_nothing_left_to_resume() {
    let whole = stream(&pod(8), &body(json!({}))).await;
    let resume = json!({"resume": {"revision": "1", "token_ids": [whole.1]}});
    let (text, ids, tokens) = stream(&pod(8), &body(resume)).await;
    assert!(whole.0.ends_with(&text), "what was held back at the end: {text}");
    assert_eq!((ids, tokens), (Vec::new(), 9));
}

#[tokio::test]
async fn a_resume_that_cannot_be_is_refused_with_the_reason() {
    let check = async |resume: Value, status: StatusCode, word: &str| {
        let pod = pod(8);
        let (got, body) = post(&pod, "/v1/completions", &body(json!({"resume": resume}))).await;
        let error = ApiError::parse(&body).unwrap();
        assert_eq!(got, status, "{error}");
        assert!(error.message.contains(word), "{error}");
    };
    let bad = StatusCode::BAD_REQUEST;
    let ids = json!([[4, 5]]);
    check(json!({"revision": "0", "token_ids": ids}), StatusCode::CONFLICT, "revision 0").await;
    check(json!({"revision": "1", "token_ids": [[1], [2]]}), bad, "for each").await;
    check(json!({"revision": "1", "token_ids": [null]}), bad, "nothing to resume").await;
    check(json!({"revision": "1", "token_ids": [[100_000]]}), bad, "does not know").await;
}

#[tokio::test]
async fn likelihoods_are_told_in_both_shapes() {
    let pod = pod(8);
    let ask = json!({"model": "tiny", "prompt": "def ", "max_tokens": 3, "logprobs": 2});
    let (_, body) = post(&pod, "/v1/completions", &ask).await;
    let body: Value = serde_json::from_slice(&body).unwrap();
    let logprobs = &body["choices"][0]["logprobs"];
    assert_eq!(logprobs["tokens"].as_array().unwrap().len(), 3, "{body}");
    assert_eq!(logprobs["top_logprobs"][0].as_object().unwrap().len(), 2, "{body}");
    let ask = json!({
        "model": "tiny", "messages": [{"role": "user", "content": "a"}],
        "max_tokens": 3, "logprobs": true, "top_logprobs": 1,
    });
    let (_, body) = post(&pod, "/v1/chat/completions", &ask).await;
    let body: Value = serde_json::from_slice(&body).unwrap();
    let content = body["choices"][0]["logprobs"]["content"].as_array().unwrap();
    assert_eq!((content.len(), content[0]["top_logprobs"].as_array().unwrap().len()), (3, 1));
}

#[tokio::test]
async fn a_prompt_that_was_computed_before_is_told_as_cached() {
    let pod = pod(8);
    let ask = json!({"model": "tiny", "prompt": "let value = 17;\n".repeat(12), "max_tokens": 2});
    let cached = async || {
        let (_, body) = post(&pod, "/v1/completions", &ask).await;
        let body: Value = serde_json::from_slice(&body).unwrap();
        body["usage"]["prompt_tokens_details"]["cached_tokens"].as_u64().unwrap()
    };
    assert_eq!(cached().await, 0);
    assert!(cached().await >= 32);
}
