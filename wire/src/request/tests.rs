use proptest::prelude::*;

use super::*;

mod editors;

fn completion(body: &str) -> CompletionRequest {
    CompletionRequest::parse(Endpoint::Completions, body.as_bytes()).unwrap()
}

fn chat(body: &str) -> CompletionRequest {
    CompletionRequest::parse(Endpoint::Chat, body.as_bytes()).unwrap()
}

fn check_error(endpoint: Endpoint, body: &str, param: &str) {
    let error = CompletionRequest::parse(endpoint, body.as_bytes()).unwrap_err();
    assert_eq!(error.param.as_deref(), Some(param), "{body}: {error}");
}

#[test]
fn a_prompt_is_inline_and_a_suffix_makes_it_fim() {
    let inline = completion(r#"{"model":"m","prompt":"a\u00e9"}"#);
    assert_eq!((inline.kind(), &inline.input), (Kind::Inline, &Input::Prompt("aé".into())));
    let fim = completion(r#"{"model":"m","prompt":["a"],"suffix":"b"}"#);
    assert_eq!(fim.kind(), Kind::Fim);
    assert_eq!(fim.input.texts(), ["a", "b"]);
    let empty = completion(r#"{"model":"m","prompt":"a","suffix":""}"#);
    assert_eq!(empty.kind(), Kind::Fim, "an empty suffix says that nothing follows");
}

#[test]
fn chat_takes_text_parts_and_tools_make_an_agent() {
    let body = r#"{"model":"m","messages":[{"role":"system","content":"s"},{"role":"user","content":[{"type":"text","text":"a"},{"type":"text","text":"b"}]}]}"#;
    let request = chat(body);
    assert_eq!(request.kind(), Kind::Chat);
    assert_eq!(request.input.texts(), ["system", "", "s", "user", "", "ab"]);
    let tools = body.replace("\"model\"", r#""tools":[{"type":"function"}],"model""#);
    assert_eq!(chat(&tools).kind(), Kind::Agent);
}

#[test]
fn null_is_absent_and_neutral_values_change_nothing() {
    let request = completion(
        r#"{"model":"m","prompt":"a","suffix":null,"temperature":null,"echo":false,"frequency_penalty":0,"logit_bias":null,"stop":null,"n":null}"#,
    );
    assert_eq!(request.kind(), Kind::Inline);
    assert_eq!(request.sampling, Sampling { n: 1, ..Sampling::default() });
    assert!(request.unknown.is_empty() && request.unsupported.is_empty());
}

#[test]
fn other_fields_are_told_apart() {
    let request = completion(r#"{"model":"m","prompt":"a","echo":true,"min_p":0.1,"user":"u"}"#);
    assert_eq!(request.unsupported, ["echo"]);
    assert_eq!(request.unknown, ["min_p"]);
}

#[test]
fn sampling_is_read() {
    let request = completion(
        r#"{"model":"m","prompt":"a","temperature":0.5,"top_p":0.9,"max_tokens":5,"n":2,"seed":-1,"stop":["a","b"],"stream":true,"stream_options":{"include_usage":true}}"#,
    );
    assert_eq!(
        request.sampling,
        Sampling {
            temperature: Some(0.5),
            top_p: Some(0.9),
            max_tokens: Some(5),
            n: 2,
            seed: Some(u64::MAX),
            stop: vec!["a".into(), "b".into()],
            ..Sampling::default()
        }
    );
    assert!(request.stream && request.include_usage);
}

#[test]
fn penalties_and_logprobs_are_read() {
    let request = completion(
        r#"{"model":"m","prompt":"a","frequency_penalty":-1,"presence_penalty":0.5,"repetition_penalty":1.1,"logprobs":3,"resume":{"revision":"1","token_ids":[[4,5],null]}}"#,
    );
    let penalties = Penalties { frequency: -1.0, presence: 0.5, repetition: 1.1 };
    assert_eq!((request.sampling.penalties, request.sampling.logprobs), (penalties, Some(3)));
    assert!(!request.sampling.is_plain() && request.unsupported.is_empty());
    let resume = Resume { revision: "1".into(), token_ids: vec![Some(vec![4, 5]), None] };
    assert_eq!(request.resume, Some(resume));
    assert_eq!(
        completion(r#"{"model":"m","prompt":"a","logprobs":false}"#).sampling.logprobs,
        None
    );
    let body = |more: &str| {
        format!(r#"{{"model":"m","messages":[{{"role":"user","content":"a"}}]{more}}}"#)
    };
    let logprobs = |more: &str| chat(&body(more)).sampling.logprobs;
    assert_eq!(logprobs(""), None);
    assert_eq!(logprobs(r#","logprobs":true"#), Some(0));
    assert_eq!(logprobs(r#","logprobs":true,"top_logprobs":2"#), Some(2));
    assert_eq!(logprobs(r#","logprobs":false,"top_logprobs":0"#), None);
}

#[test]
fn mistakes_name_the_field() {
    let completions = [
        ("[]", "body"),
        ("", "body"),
        (r#"{"model":"m","prompt":"a","prompt":"b"}"#, "body"),
        (r#"{"prompt":"a"}"#, "model"),
        (r#"{"model":"m"}"#, "prompt"),
        (r#"{"model":"m","prompt":[1,2]}"#, "prompt"),
        (r#"{"model":"m","prompt":["a","b"]}"#, "prompt"),
        (r#"{"model":"m","prompt":"a","suffix":1}"#, "suffix"),
        (r#"{"model":"m","prompt":"a","temperature":9}"#, "temperature"),
        (r#"{"model":"m","prompt":"a","temperature":"hot"}"#, "temperature"),
        (r#"{"model":"m","prompt":"a","top_p":0}"#, "top_p"),
        (r#"{"model":"m","prompt":"a","max_tokens":0}"#, "max_tokens"),
        (r#"{"model":"m","prompt":"a","max_tokens":-1}"#, "max_tokens"),
        (r#"{"model":"m","prompt":"a","n":9}"#, "n"),
        (r#"{"model":"m","prompt":"a","stop":[""]}"#, "stop"),
        (r#"{"model":"m","prompt":"a","stop":5}"#, "stop"),
        (r#"{"model":"m","prompt":"a","logprobs":21}"#, "logprobs"),
        (r#"{"model":"m","prompt":"a","frequency_penalty":2.5}"#, "frequency_penalty"),
        (r#"{"model":"m","prompt":"a","repetition_penalty":0}"#, "repetition_penalty"),
        (r#"{"model":"m","prompt":"a","resume":{"revision":"1"}}"#, "resume"),
        (r#"{"model":"m","prompt":"a","stream":"yes"}"#, "stream"),
    ];
    for (body, param) in completions {
        check_error(Endpoint::Completions, body, param);
    }
    let chats = [
        (r#"{"model":"m","messages":[]}"#, "messages"),
        (r#"{"model":"m","messages":"hi"}"#, "messages"),
        (r#"{"model":"m","messages":[{"role":"king","content":"a"}]}"#, "messages"),
        (
            r#"{"model":"m","messages":[{"role":"user","content":[{"type":"image_url"}]}]}"#,
            "messages",
        ),
        (r#"{"model":"m","messages":[{"role":"user","content":5}]}"#, "messages"),
        (
            r#"{"model":"m","messages":[{"role":"user","content":"a"}],"top_logprobs":2}"#,
            "top_logprobs",
        ),
    ];
    for (body, param) in chats {
        check_error(Endpoint::Chat, body, param);
    }
}

fn check_forwarded(endpoint: Endpoint, body: &str, expected: &str) {
    let request = CompletionRequest::parse(endpoint, body.as_bytes()).unwrap();
    let forwarded =
        forward_body(&request, body.as_bytes(), "m", Receiver::Pod { resume: None }).unwrap();
    let decided =
        r#""stream":true,"stream_options":{"include_usage":true},"return_token_ids":true}"#;
    assert_eq!(String::from_utf8(forwarded).unwrap(), format!("{expected}{decided}"));
}

#[test]
fn a_forwarded_body_keeps_unknown_fields_verbatim() {
    check_forwarded(
        Endpoint::Completions,
        r#"{"model":"alias","prompt":"a\u00e9","min_p":0.10,"stream":false,"nearhop":{"session":"s"}}"#,
        r#"{"model":"m","prompt":"a\u00e9","min_p":0.10,"#,
    );
}

#[test]
fn an_editors_shape_is_written_anew_for_the_pod() {
    check_forwarded(
        Endpoint::Fim,
        r#"{"model":"codestral","prompt":"a","suffix":"b","max_tokens":8,"temperature":0.1,"top_p":1,"stop":"\n","random_seed":7,"stream":true,"min_tokens":0,"metadata":{"x":1}}"#,
        r#"{"model":"m","prompt":"a","suffix":"b","max_tokens":8,"temperature":0.1,"top_p":1.0,"stop":["\n"],"seed":7,"#,
    );
    check_forwarded(
        Endpoint::Infill,
        r#"{"input_prefix":"a\n","input_suffix":"c","prompt":"b","n_predict":16,"top_k":40,"seed":-1}"#,
        r#"{"model":"m","prompt":"a\nb","suffix":"c","max_tokens":16,"#,
    );
    check_forwarded(
        Endpoint::Completions,
        r#"{"language":"python","segments":{"prefix":"a"},"user":"u"}"#,
        r#"{"model":"m","prompt":"a","#,
    );
}

proptest! {
    #[test]
    fn the_order_of_fields_does_not_matter(order in Just(vec![0usize, 1, 2, 3, 4]).prop_shuffle()) {
        let fields = [r#""model":"m""#, r#""prompt":"p""#, r#""suffix":"s""#, r#""temperature":0.2"#, r#""n":2"#];
        let body = format!("{{{}}}", order.iter().map(|at| fields[*at]).collect::<Vec<_>>().join(","));
        let sorted = format!("{{{}}}", fields.join(","));
        prop_assert_eq!(completion(&body), completion(&sorted));
    }

    #[test]
    fn no_body_panics(body in prop::collection::vec(any::<u8>(), 0..80), text in "[\\[\\]{}\",:a-z0-9\\\\]{0,60}") {
        for endpoint in [Endpoint::Completions, Endpoint::Chat, Endpoint::Fim, Endpoint::Infill] {
            let _ = CompletionRequest::parse(endpoint, &body);
            let _ = CompletionRequest::parse(endpoint, text.as_bytes());
        }
    }
}
