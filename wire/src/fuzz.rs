//! Bodies and streams that were once right, damaged at random: nothing panics, and what is refused
//! is refused as a client can use it.
//!
//! The random numbers start from a fixed seed and the number of cases is fixed, so that a failure
//! comes again; it names its case. `cargo test -p nearhop-wire fuzz -- --nocapture` prints the
//! counts. What fails once is added to the seeds.

use crate::{
    Answer, ApiError, Choice, Chunk, CompletionRequest, DONE, Endpoint, ErrorKind, EventWriter,
    Fields, Finish, Head, Input, PodReport, Receiver, SseReader, Usage, forward_body,
};

/// Damaged bodies, each read by its own endpoint and by the next one.
const BODIES: usize = 16_000;
/// Damaged streams, each read at once and in pieces.
const STREAMS: usize = 2_000;

const SEED: u64 = 0x6e65_6172_686f_7021;

/// What clients really send, and a few bodies that once made trouble elsewhere.
const SEEDS: [(Endpoint, &str); 12] = [
    (
        Endpoint::Completions,
        r#"{"model":"m","prompt":"def f(\n    é\u00e9\ud83d\ude00","suffix":"\n","max_tokens":64,"temperature":0.2,"top_p":0.95,"n":2,"seed":-7,"stop":["\n\n","\ndef "],"stream":true,"stream_options":{"include_usage":true},"user":"u"}"#,
    ),
    (
        Endpoint::Completions,
        r#"{"model":"m","prompt":["a"],"echo":false,"logit_bias":{},"min_p":0.1,"nearhop":{"x":[1]},"stop":"\n"}"#,
    ),
    (
        Endpoint::Chat,
        r#"{"model":"m","messages":[{"role":"system","content":"s"},{"role":"user","name":"n","content":[{"type":"text","text":"a"},{"type":"text","text":"b"}]},{"role":"assistant","content":null}],"max_completion_tokens":9,"tools":[{"type":"function","function":{"name":"f","parameters":{"type":"object"}}}]}"#,
    ),
    (
        Endpoint::Fim,
        r#"{"model":"codestral-latest","prompt":"fn main() {","suffix":"}","max_tokens":128,"min_tokens":null,"temperature":0.1,"top_p":1,"stop":["[PREFIX]","[SUFFIX]"],"random_seed":1,"stream":true,"metadata":{"a":"b"}}"#,
    ),
    (
        Endpoint::Infill,
        r#"{"input_prefix":"fn main() {\n","input_suffix":"\n}\n","input_extra":[{"text":"pub fn a() {}\n","time":[1,2],"filename":"src/a.rs"},{"text":"b"}],"prompt":"    let x","n_predict":128,"n_indent":4,"top_k":40,"top_p":0.99,"stream":false,"samplers":["top_k","top_p","infill"],"cache_prompt":true,"t_max_prompt_ms":500,"t_max_predict_ms":1000,"response_fields":["content","timings/prompt_n","truncated"]}"#,
    ),
    (
        Endpoint::Infill,
        r#"{"input_prefix":"","input_suffix":"","input_extra":[],"prompt":"","n_predict":0,"temperature":0.0,"stream":false,"samplers":[],"cache_prompt":true,"t_max_prompt_ms":1,"t_max_predict_ms":1,"response_fields":[""]}"#,
    ),
    (
        Endpoint::Completions,
        r#"{"language":"rust","segments":{"prefix":"p","suffix":"s","filepath":"a.rs","git_url":"g","declarations":[{"filepath":"d.rs","body":"D"}],"relevant_snippets_from_changed_files":[{"filepath":"c.py","body":"C","score":0.5}],"clipboard":"c"},"temperature":0.1,"mode":"standard","debug_options":{"return_prompt":true}}"#,
    ),
    (Endpoint::Completions, r#"{"model":"m","prompt":"\ud800"}"#),
    (Endpoint::Completions, r#"{"model":"m","prompt":"a","seed":-9223372036854775808}"#),
    (Endpoint::Completions, r#"{"model":"m","prompt":"a","temperature":1e400}"#),
    (Endpoint::Tabby, r#"{"segments":{"prefix":"p"},"seed":18446744073709551615}"#),
    (Endpoint::Infill, r#"{"input_prefix":"p","input_suffix":"","n_predict":-2,"seed":-1}"#),
];

/// xorshift64*: the same numbers on every machine.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// A number under `end`, which is over 0.
    fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() >> 33).unwrap() % end
    }

    fn pick<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.below(of.len())]
    }
}

/// Values in place of values: wrong, huge, and now and then right.
const VALUES: [&str; 14] = [
    "-1",
    "0",
    "1",
    "1e999",
    "-0.0",
    "18446744073709551616",
    "99999999999999999999999",
    "1.5",
    "null",
    "true",
    "\"x\"",
    "[]",
    "[\"y\"]",
    "{}",
];
const SCRAPS: [&[u8]; 12] = [
    b"null",
    b"\"\"",
    b"[]",
    b"{}",
    b"{\"a\":",
    b"[[[[",
    b"\\u0000",
    b"\\ud800",
    b"\xff\xfe",
    b"\xc3",
    b"\"prompt\":",
    b",",
];

/// Damages `body` once; `other` is what may be spliced in.
fn damage(random: &mut Random, body: &mut Vec<u8>, other: &[u8]) {
    let at = random.below(body.len() + 1);
    let end = (at + random.below(24)).min(body.len());
    match random.below(9) {
        0 => body.truncate(at),
        1 if at < body.len() => body[at] ^= 1 << random.below(8),
        2 => drop(body.drain(at..end)),
        // Twice: often a field's name.
        3 => {
            let piece = body[at..end].to_vec();
            body.splice(at..at, piece);
        }
        4 => {
            let from = random.below(other.len());
            let to = (from + random.below(48)).min(other.len());
            body.splice(at..end, other[from..to].iter().copied());
        }
        5 => {
            let (open, close) = *random.pick(&[(b'[', b']'), (b'{', b'}')]);
            let levels = *random.pick(&[3, 63, 64, 200, 20_000]);
            let nest = [vec![open; levels], vec![close; random.below(levels + 1)]].concat();
            body.splice(at..at, nest);
        }
        // A value in place of a value, where one begins.
        6 | 7 => {
            let colons: Vec<usize> = (0..body.len()).filter(|index| body[*index] == b':').collect();
            if let Some(colon) = colons.get(random.below(colons.len().max(1))) {
                let rest = &body[colon + 1..];
                let length = rest.iter().position(|byte| b",}".contains(byte));
                let value = random.pick(&VALUES).bytes();
                body.splice(colon + 1..colon + 1 + length.unwrap_or(rest.len()), value);
            }
        }
        _ => {
            let scrap = random.pick(&SCRAPS).to_vec();
            body.splice(at..at, scrap);
        }
    }
}

fn damaged(random: &mut Random, seed: &[u8], other: &[u8]) -> Vec<u8> {
    let mut body = seed.to_vec();
    // Most often once: what is damaged thrice is seldom read at all.
    let times = if random.below(4) == 0 { 3 } else { 1 };
    for _ in 0..times {
        damage(random, &mut body, other);
    }
    body
}

/// How deep lists and objects stand in each other in valid JSON.
fn depth(body: &[u8]) -> usize {
    let (mut depth, mut deepest, mut text, mut escaped) = (0usize, 0, false, false);
    for byte in body {
        match (text, byte) {
            (true, _) if escaped => escaped = false,
            (true, b'\\') => escaped = true,
            (_, b'"') => text = !text,
            (false, b'[' | b'{') => depth += 1,
            (false, b']' | b'}') => depth -= 1,
            _ => {}
        }
        deepest = deepest.max(depth);
    }
    deepest
}

fn check_refusal(error: &ApiError) {
    assert_eq!(error.kind, ErrorKind::InvalidRequest);
    let code = error.code.as_deref().unwrap();
    assert!(["invalid_json", "invalid_value", "missing_field"].contains(&code), "{error}");
    assert!(error.param.as_deref().is_some_and(|param| !param.is_empty()));
    assert!((1..=512).contains(&error.message.len()), "{error}");
    assert_eq!(ApiError::parse(&error.body()).as_ref(), Some(error));
}

fn check_request(endpoint: Endpoint, request: &CompletionRequest, body: &[u8]) {
    assert!(depth(body) <= 64);
    let segments = Fields::parse(body).unwrap().raw("segments").is_some();
    let tabby = endpoint == Endpoint::Completions && segments;
    assert_eq!(request.endpoint, if tabby { Endpoint::Tabby } else { endpoint });
    let sampling = &request.sampling;
    assert!(sampling.temperature.is_none_or(|t| (0.0..=2.0).contains(&t)));
    assert!(sampling.top_p.is_none_or(|p| p > 0.0 && p <= 1.0));
    assert!(sampling.max_tokens != Some(0) && (1..=8).contains(&sampling.n));
    assert!(sampling.stop.len() <= 32);
    assert!(sampling.stop.iter().all(|stop| (1..=256).contains(&stop.len())));
    assert!(request.time_limit.is_none_or(|limit| !limit.is_zero()));
    assert!(!request.warm_up || sampling.max_tokens == Some(1));
    // Fields without a model belong to shapes that have none.
    let named = matches!(endpoint, Endpoint::Infill) || request.endpoint == Endpoint::Tabby;
    assert!(named || request.model.is_some());

    let forwarded = forward_body(request, body, "served", Receiver::Pod { resume: None }).unwrap();
    let pod = match &request.input {
        Input::Chat(_) => Endpoint::Chat,
        Input::Prompt(_) | Input::Fim { .. } => Endpoint::Completions,
    };
    let seen = CompletionRequest::parse(pod, &forwarded).unwrap();
    assert_eq!((seen.input, seen.model.as_deref()), (request.input.clone(), Some("served")));
    assert_eq!(&seen.sampling, sampling);
    assert!(seen.stream && seen.include_usage && seen.return_token_ids);
    let own = matches!(endpoint, Endpoint::Completions | Endpoint::Chat) && !tabby;
    assert!(own || (seen.unknown.is_empty() && seen.unsupported.is_empty()));
}

#[test]
fn no_damaged_body_panics_and_every_refusal_can_be_used() {
    let all =
        [Endpoint::Completions, Endpoint::Chat, Endpoint::Fim, Endpoint::Infill, Endpoint::Tabby];
    let mut random = Random(SEED);
    let (mut read, mut refused) = (0, 0);
    for case in 0..BODIES {
        // The first cases are the seeds as they are.
        let (own, seed) = SEEDS[case % SEEDS.len()];
        let (_, other) = *random.pick(&SEEDS);
        let body = match case < SEEDS.len() {
            true => seed.as_bytes().to_vec(),
            false => damaged(&mut random, seed.as_bytes(), other.as_bytes()),
        };
        for endpoint in [own, *random.pick(&all)] {
            let outcome =
                std::panic::catch_unwind(|| match CompletionRequest::parse(endpoint, &body) {
                    Ok(request) => {
                        check_request(endpoint, &request, &body);
                        true
                    }
                    Err(error) => {
                        check_refusal(&error);
                        false
                    }
                });
            match outcome {
                Ok(true) => read += 1,
                Ok(false) => refused += 1,
                Err(_) => panic!("case {case}, {endpoint:?}: {}", String::from_utf8_lossy(&body)),
            }
        }
    }
    println!("{BODIES} bodies, read by two endpoints each: {read} read, {refused} refused");
    assert!(read > BODIES / 5, "the damage is too great to test anything: {read}");
}

/// A stream as a pod or an edge writes it.
fn stream(random: &mut Random) -> Vec<u8> {
    let endpoints = [Endpoint::Completions, Endpoint::Chat, Endpoint::Fim, Endpoint::Infill];
    let endpoint = *random.pick(&endpoints);
    let head = Head {
        id: "cmpl-1".into(),
        created: 7,
        model: "m".into(),
        fingerprint: "m@1".into(),
        endpoint,
    };
    let texts = ["let x = \"a\";\n", "é\u{1F600}", "", "data: [DONE]\n\n"];
    let choices = (0..=random.below(3)).map(|_| Choice {
        text: (*random.pick(&texts)).to_owned(),
        finish: *random.pick(&[Finish::Stop, Finish::Length]),
        logprobs: Vec::new(),
    });
    let usage = Usage { prompt_tokens: 9, completion_tokens: 4, ..Usage::default() };
    let answer = Answer { head, choices: choices.collect(), usage };
    let body = br#"{"model":"m","prompt":"p","n":4,"stream_options":{"include_usage":true}}"#;
    let request = CompletionRequest::parse(Endpoint::Completions, body).unwrap();
    let error = ApiError::new(ErrorKind::Server, "stream_broken", "it broke").event();
    match random.below(8) {
        0 => [b": waiting\n\n".as_slice(), &answer.stream(&request), &error].concat(),
        _ => answer.stream(&request).to_vec(),
    }
}

/// Every event, and whether the end was an event over the limit.
fn events(pieces: &[&[u8]]) -> (Vec<Vec<u8>>, bool) {
    let mut reader = SseReader::new(512);
    let mut events = Vec::new();
    for piece in pieces {
        reader.push(piece);
        loop {
            match reader.next_event() {
                Ok(Some(data)) => events.push(data.to_vec()),
                Ok(None) => break,
                Err(_) => return (events, true),
            }
        }
    }
    (events, false)
}

#[test]
fn no_damaged_stream_panics_and_its_cuts_change_nothing() {
    let mut random = Random(SEED);
    let (mut chunks, mut others, mut too_long) = (0, 0, 0);
    for case in 0..STREAMS {
        let (whole, other) = (stream(&mut random), stream(&mut random));
        let bytes = if case % 8 == 0 { whole } else { damaged(&mut random, &whole, &other) };
        let mut cuts: Vec<usize> =
            (0..random.below(9)).map(|_| random.below(bytes.len() + 1)).collect();
        cuts.extend([0, bytes.len()]);
        cuts.sort_unstable();
        let pieces: Vec<&[u8]> = cuts.windows(2).map(|pair| &bytes[pair[0]..pair[1]]).collect();
        let at_once = events(&[&bytes]);
        assert_eq!(events(&pieces), at_once, "case {case}: {}", String::from_utf8_lossy(&bytes));
        too_long += usize::from(at_once.1);
        for data in at_once.0 {
            let _ = ApiError::parse(&data);
            let _ = serde_json::from_slice::<PodReport>(&data);
            match serde_json::from_slice::<Chunk<'_>>(&data) {
                Ok(chunk) => {
                    let _ = chunk.usage();
                    for choice in chunk.choices {
                        let _ = choice.into_delta();
                        chunks += 1;
                    }
                }
                Err(_) => others += usize::from(data != b"[DONE]"),
            }
        }
    }
    println!("{STREAMS} streams: {chunks} pieces, {others} other events, {too_long} too long");
    assert!(chunks > STREAMS / 2 && others > 0 && too_long > 0);
}

#[test]
fn a_deep_event_is_read_without_a_tower_of_calls() {
    let deep = format!(r#"{{"id":"1","created":1,"choices":[],"x":{}"#, "[".repeat(200_000));
    assert!(serde_json::from_slice::<Chunk<'_>>(deep.as_bytes()).is_err());
    assert!(ApiError::parse(deep.as_bytes()).is_none());
    assert!(serde_json::from_slice::<PodReport>(deep.as_bytes()).is_err());
    let deep_error = format!(r#"{{"error":{}"#, "[".repeat(200_000));
    assert!(ApiError::parse(deep_error.as_bytes()).is_none());
}

#[test]
fn an_unread_end_is_only_written_when_done() {
    // Whatever pieces come, a writer's bytes before `done` hold no terminator.
    let mut random = Random(SEED);
    for endpoint in [Endpoint::Fim, Endpoint::Infill] {
        let head = Head {
            id: "1".into(),
            created: 1,
            model: "m".into(),
            fingerprint: "f".into(),
            endpoint,
        };
        let request =
            CompletionRequest::parse(Endpoint::Completions, br#"{"model":"m","prompt":"p"}"#);
        let mut writer = EventWriter::new(head, &request.unwrap());
        let mut out = bytes::BytesMut::new();
        for _ in 0..50 {
            let delta = crate::Delta {
                index: random.below(3),
                text: (*random.pick(&["a", "", "\n"])).to_owned(),
                token_ids: vec![1],
                logprobs: Vec::new(),
                finish: *random.pick(&[None, Some(Finish::Stop)]),
            };
            writer.delta(&delta, &mut out);
        }
        assert!(!out.windows(DONE.len()).any(|window| window == DONE));
        assert!(!out.windows(11).any(|window| window == b"\"stop\":true"));
    }
}
