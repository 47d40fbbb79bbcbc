//! The editors' shapes, as their sources send them.

use super::*;

fn fim(body: &str) -> CompletionRequest {
    CompletionRequest::parse(Endpoint::Fim, body.as_bytes()).unwrap()
}

fn infill(more: &str) -> CompletionRequest {
    let body = format!(r#"{{"input_prefix":"p","input_suffix":"s"{more}}}"#);
    CompletionRequest::parse(Endpoint::Infill, body.as_bytes()).unwrap()
}

fn tabby(body: &str) -> CompletionRequest {
    CompletionRequest::parse(Endpoint::Completions, body.as_bytes()).unwrap()
}

fn middle(prefix: &str, suffix: &str) -> Input {
    Input::Fim { prefix: prefix.into(), suffix: suffix.into() }
}

/// What llama.vim sends while somebody types.
const LLAMA_VIM: &str = r#"{"input_prefix":"fn main() {\n","input_suffix":"\n}\n","input_extra":[{"text":"pub fn a() {}\n","time":[1,2],"filename":"src/a.rs"}],"prompt":"    let x","n_predict":128,"n_indent":4,"top_k":40,"top_p":0.99,"stream":false,"samplers":["top_k","top_p","infill"],"cache_prompt":true,"t_max_prompt_ms":500,"t_max_predict_ms":1000,"response_fields":["content","timings/prompt_n","truncated","tokens_cached"]}"#;

#[test]
fn llama_vims_request_is_understood_to_the_last_field() {
    let request = CompletionRequest::parse(Endpoint::Infill, LLAMA_VIM.as_bytes()).unwrap();
    let prefix = "// Path: src/a.rs\npub fn a() {}\n\nfn main() {\n    let x";
    assert_eq!(request.input, middle(prefix, "\n}\n"));
    assert_eq!((request.endpoint, request.kind()), (Endpoint::Infill, Kind::Fim));
    assert_eq!(request.pod_path(), "/v1/completions");
    assert!(request.unknown.is_empty() && request.unsupported.is_empty());
    assert_eq!(request.model, None);
    assert_eq!(request.time_limit, Some(Duration::from_millis(1500)));
    assert_eq!(request.response_fields.len(), 4);
    assert!(!request.takes_full_body() && !request.warm_up);
    let Sampling { temperature, top_p, max_tokens, n, seed, stop, .. } = request.sampling;
    assert_eq!((temperature, top_p, max_tokens, n), (None, Some(0.99), Some(128), 1));
    assert_eq!((seed, stop.len()), (None, 0));
}

#[test]
fn nothing_to_predict_is_a_warm_up_without_a_time_limit() {
    // llama.vim's, which has 2 ms.
    let request = infill(r#","n_predict":0,"t_max_prompt_ms":1,"t_max_predict_ms":1"#);
    assert!(request.warm_up && request.time_limit.is_none());
    assert_eq!(request.sampling.max_tokens, Some(1));
    for default in ["", r#","n_predict":-1"#, r#","n_predict":null"#, r#","max_tokens":-1"#] {
        let request = infill(default);
        assert_eq!((request.warm_up, request.sampling.max_tokens), (false, None), "{default}");
    }
    assert_eq!(infill(r#","max_tokens":9"#).sampling.max_tokens, Some(9));
}

#[test]
fn time_limits_add_up_and_nothing_is_none() {
    let limit = |more: &str| infill(more).time_limit.map(|limit| limit.as_millis());
    assert_eq!(limit(r#","t_max_predict_ms":200"#), Some(200));
    assert_eq!(limit(r#","t_max_prompt_ms":-1,"t_max_predict_ms":200"#), Some(200));
    assert_eq!(limit(r#","t_max_prompt_ms":0,"t_max_predict_ms":-1"#), None);
    let most = i64::MAX;
    let both = format!(r#","t_max_prompt_ms":{most},"t_max_predict_ms":{most}"#);
    assert_eq!(limit(&both), Some(2 * u128::try_from(most).unwrap()));
}

#[test]
fn a_seed_may_be_random() {
    assert_eq!(infill(r#","seed":-1"#).sampling.seed, None);
    assert_eq!(infill(r#","seed":4294967295"#).sampling.seed, None);
    assert_eq!(infill(r#","seed":7"#).sampling.seed, Some(7));
    let seed = u64::MAX - 1;
    let request = tabby(&format!(r#"{{"segments":{{"prefix":"a"}},"seed":{seed}}}"#));
    assert_eq!(request.sampling.seed, Some(seed));
}

#[test]
fn advice_is_not_taken_and_demands_are_refused() {
    let advice = r#","top_k":40,"min_p":0.05,"samplers":[],"n_probs":5,"id_slot":3,"n_indent":4,"logit_bias":[[1,2]],"repeat_penalty":1.1,"mirostat":2,"cache_prompt":false"#;
    assert_eq!(infill(advice), infill(""));
    assert_eq!(infill(r#","lora":[],"grammar":"","n_cmpl":1"#), infill(""));
    assert_eq!(infill(r#","new_thing":1"#).unknown, ["new_thing"]);
}

#[test]
fn a_model_may_be_named_and_an_empty_name_is_none() {
    assert_eq!(infill(r#","model":"m""#).model.as_deref(), Some("m"));
    assert_eq!(infill(r#","model":"""#).model, None);
}

#[test]
fn mistrals_request_is_a_completion_with_other_names() {
    let request = fim(
        r#"{"model":"codestral-latest","prompt":"a","suffix":"b","max_tokens":8,"min_tokens":0,"temperature":0.2,"top_p":0.9,"stop":["\n"],"random_seed":3,"stream":true,"metadata":null}"#,
    );
    assert_eq!((request.input.clone(), request.endpoint), (middle("a", "b"), Endpoint::Fim));
    assert_eq!(request.model.as_deref(), Some("codestral-latest"));
    assert_eq!((request.sampling.seed, request.sampling.max_tokens), (Some(3), Some(8)));
    assert!(request.stream && request.takes_full_body() && request.unknown.is_empty());
    assert_eq!(fim(r#"{"model":"m","prompt":"a"}"#).kind(), Kind::Inline);
}

#[test]
fn segments_make_a_request_tabbys() {
    let body = r#"{"language":"rust","segments":{"prefix":"p","suffix":"s","filepath":"a.rs","git_url":"g","clipboard":"c","declarations":[{"filepath":"d.rs","body":"D"}],"relevant_snippets_from_changed_files":[{"filepath":"c.py","body":"C","score":0.5}],"relevant_snippets_from_recently_opened_files":[{"filepath":"o.lua","body":"O","score":0.1}]},"user":"u","temperature":0.1,"mode":"standard","debug_options":{"return_prompt":true}}"#;
    let request = tabby(body);
    assert_eq!(request.endpoint, Endpoint::Tabby);
    let snippets = "-- Path: o.lua\nO\n\n# Path: c.py\nC\n\n// Path: d.rs\nD\n\n";
    assert_eq!(request.input, middle(&format!("{snippets}p"), "s"));
    assert_eq!((request.model.clone(), request.stream), (None, false));
    assert!(request.unknown.is_empty() && request.takes_full_body());
    let bare = tabby(r#"{"model":"m","prompt":"ignored","segments":{"prefix":"p"}}"#);
    assert_eq!((bare.endpoint, bare.kind()), (Endpoint::Tabby, Kind::Inline));
    assert_eq!(bare.model.as_deref(), Some("m"));
    let null = tabby(r#"{"model":"m","prompt":"a","segments":null}"#);
    assert_eq!(null.endpoint, Endpoint::Completions);
}

#[test]
fn mistakes_name_the_field_in_every_shape() {
    let infills = [
        (r#"{"input_suffix":"s"}"#, "input_prefix"),
        (r#"{"input_prefix":"p"}"#, "input_suffix"),
        (r#"{"input_prefix":"p","input_suffix":"s","prompt":[1]}"#, "prompt"),
        (r#"{"input_prefix":"p","input_suffix":"s","input_extra":["x"]}"#, "input_extra"),
        (r#"{"input_prefix":"p","input_suffix":"s","n_predict":"all"}"#, "n_predict"),
        (r#"{"input_prefix":"p","input_suffix":"s","grammar":"root ::= x"}"#, "grammar"),
        (r#"{"input_prefix":"p","input_suffix":"s","json_schema":{}}"#, "json_schema"),
        (r#"{"input_prefix":"p","input_suffix":"s","lora":[{"id":0,"scale":1}]}"#, "lora"),
        (
            r#"{"input_prefix":"p","input_suffix":"s","response_fields":"content"}"#,
            "response_fields",
        ),
    ];
    for (body, param) in infills {
        check_error(Endpoint::Infill, body, param);
    }
    let fims = [
        (r#"{"prompt":"a"}"#, "model"),
        (r#"{"model":"m"}"#, "prompt"),
        (r#"{"model":"m","prompt":"a","min_tokens":3}"#, "min_tokens"),
        (r#"{"model":"m","prompt":"a","random_seed":"x"}"#, "random_seed"),
    ];
    for (body, param) in fims {
        check_error(Endpoint::Fim, body, param);
    }
    let tabbys = [
        (r#"{"segments":"x"}"#, "segments"),
        (r#"{"segments":{"suffix":"s"}}"#, "segments"),
        (r#"{"segments":{"prefix":"p","declarations":[{"body":"b"}]}}"#, "segments"),
        (r#"{"segments":{"prefix":"p"},"mode":"next_edit_suggestion"}"#, "mode"),
        (r#"{"segments":{"prefix":"p"},"debug_options":{"raw_prompt":"r"}}"#, "debug_options"),
        (r#"{"segments":{"prefix":"p"},"seed":1.5}"#, "seed"),
    ];
    for (body, param) in tabbys {
        check_error(Endpoint::Completions, body, param);
    }
}

#[test]
fn what_plug_ins_send_is_known_to_the_last_field() {
    let bodies = [
        // Continue, for a model it does not know: the stop strings of several models at once.
        (
            Endpoint::Fim,
            r#"{"model":"m","prompt":"p","suffix":"s","max_tokens":4096,"temperature":0.01,"stop":["<fim_prefix>","<fim_suffix>","<fim_middle>","<file_sep>","<|endoftext|>","</fim_middle>","</code>","\n\n","\r\n\r\n","/src/","\u0023- coding: utf-8","```"],"stream":true}"#,
        ),
        // Zed's Codestral provider.
        (
            Endpoint::Fim,
            r#"{"model":"m","prompt":"p","suffix":null,"max_tokens":350,"temperature":0.2,"top_p":1.0,"stream":false,"stop":null,"random_seed":null,"min_tokens":null}"#,
        ),
        // minuet-ai.nvim, by either of its ways.
        (
            Endpoint::Fim,
            r#"{"model":"m","prompt":"p","suffix":"s","stream":true,"max_tokens":256,"stop":["\n\n"]}"#,
        ),
        (
            Endpoint::Completions,
            r#"{"model":"m","prompt":"p","suffix":"s","stream":true,"max_tokens":256,"top_p":0.9}"#,
        ),
        // llama.vscode.
        (
            Endpoint::Infill,
            r#"{"input_prefix":"p","input_suffix":"s","input_extra":[{"text":"t","time":1,"filename":"f"}],"prompt":"x","n_predict":128,"top_k":40,"top_p":0.99,"stream":false,"samplers":["top_k","top_p","infill"],"cache_prompt":true,"n_indent":4,"t_max_prompt_ms":500,"t_max_predict_ms":500}"#,
        ),
        // cmp-ai's Tabby.
        (
            Endpoint::Completions,
            r#"{"language":"lua","segments":{"prefix":"p","suffix":"s","filepath":"/a.lua"},"user":"u","temperature":0.2}"#,
        ),
    ];
    for (endpoint, body) in bodies {
        let request = CompletionRequest::parse(endpoint, body.as_bytes()).unwrap();
        assert!(request.unknown.is_empty() && request.unsupported.is_empty(), "{body}");
    }
}

#[test]
fn over_sixty_four_snippets_are_refused() {
    let extra = vec![r#"{"text":"x"}"#; 65].join(",");
    let body = format!(r#"{{"input_prefix":"","input_suffix":"","input_extra":[{extra}]}}"#);
    check_error(Endpoint::Infill, &body, "input_extra");
}
