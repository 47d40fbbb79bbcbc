//! A stream whose pod dies in the middle goes on elsewhere, from the tokens that its client has:
//! what was sent never changes, and the rest is what an undisturbed answer would have said.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use http::StatusCode;
use serde_json::{Value, json};

use crate::support::{
    client::{self, request, send},
    cutter::{At, Cut, Cutter, FINISH, How, USAGE},
    dice::Dice,
    eventually, now,
    process::{Edge, Origin, has_ort, metric, root, say, signal, soaking},
};

const LIMIT: Duration = Duration::from_secs(60);
/// Nothing of it is looked up or kept: every answer is generated.
const FRESH: [(&str, &str); 1] = [("cache-control", "no-store")];

/// An edge, and wires that break between it and real pods.
struct Scene {
    edge: Edge,
    cutter: Cutter,
    pods: Vec<Origin>,
    marks: AtomicUsize,
}

/// What is asked.
#[derive(Debug, Clone)]
struct Ask {
    path: &'static str,
    body: Value,
    mark: String,
}

/// What a client makes of a stream.
#[derive(Debug, Default, Clone, PartialEq)]
struct Told {
    /// By choice.
    texts: Vec<String>,
    finishes: Vec<Option<String>>,
    /// By choice, the tokens that are told with their likelihoods.
    tokens: Vec<Vec<Token>>,
    usage: Option<(u64, u64)>,
    /// By the last chunk.
    resumed: u64,
    ids: BTreeSet<String>,
    created: BTreeSet<u64>,
    done: usize,
    errors: usize,
    events: usize,
}

#[derive(Debug, Clone)]
struct Token {
    text: String,
    offset: u64,
    /// How much likelier, in the logarithm, the likeliest was than the next.
    gap: f64,
}

impl PartialEq for Token {
    fn eq(&self, other: &Self) -> bool {
        (&self.text, self.offset) == (&other.text, other.offset)
    }
}

impl Token {
    fn read((text, offset, top): (&Value, &Value, &Value)) -> Self {
        let mut top: Vec<f64> =
            top.as_object().unwrap().values().map(|logprob| logprob.as_f64().unwrap()).collect();
        top.sort_by(|a, b| b.total_cmp(a));
        Self {
            text: text.as_str().unwrap().to_owned(),
            offset: offset.as_u64().unwrap(),
            gap: top[0] - top.get(1).copied().unwrap_or(f64::NEG_INFINITY),
        }
    }
}

impl Told {
    fn read(stream: &str) -> Self {
        let mut told = Self {
            done: stream.matches("data: [DONE]\n\n").count(),
            errors: stream.matches("event: error\n").count(),
            ..Self::default()
        };
        for data in stream.lines().filter_map(|line| line.strip_prefix("data: ")) {
            let Ok(event) = serde_json::from_str::<Value>(data) else { continue };
            if event["error"].is_object() {
                continue;
            }
            told.events += 1;
            told.take(&event);
        }
        told
    }

    fn take(&mut self, event: &Value) {
        self.ids.extend(event["id"].as_str().map(str::to_owned));
        self.created.extend(event["created"].as_u64());
        self.resumed = event["nearhop"]["resumed"].as_u64().unwrap_or(self.resumed);
        let counts = [
            (&event["usage"]["prompt_tokens"], &event["usage"]["completion_tokens"]),
            (&event["tokens_evaluated"], &event["tokens_predicted"]),
        ];
        let mut counts = counts.into_iter().filter_map(|(a, b)| Some((a.as_u64()?, b.as_u64()?)));
        if let Some(usage) = counts.next() {
            assert_eq!(self.usage.replace(usage), None, "usage is told once");
        }
        if let Some(text) = event["content"].as_str() {
            let finish = event["stop_type"].as_str().map(str::to_owned);
            self.piece(0, text, finish);
        }
        for choice in event["choices"].as_array().into_iter().flatten() {
            let text = choice["text"].as_str().or(choice["delta"]["content"].as_str());
            let finish = choice["finish_reason"].as_str().map(str::to_owned);
            let at = usize::try_from(choice["index"].as_u64().unwrap()).unwrap();
            self.piece(at, text.unwrap_or_default(), finish);
            let list = |name: &str| choice["logprobs"][name].as_array().into_iter().flatten();
            let tokens = list("tokens").zip(list("text_offset")).zip(list("top_logprobs"));
            let tokens = tokens.map(|((text, offset), top)| Token::read((text, offset, top)));
            self.tokens[at].extend(tokens);
        }
    }

    fn piece(&mut self, at: usize, text: &str, finish: Option<String>) {
        self.texts.resize(self.texts.len().max(at + 1), String::new());
        self.finishes.resize(self.texts.len(), None);
        self.tokens.resize(self.texts.len(), Vec::new());
        assert_eq!(self.finishes[at], None, "nothing comes after an end");
        self.texts[at].push_str(text);
        self.finishes[at] = finish;
    }
}

/// Pods of both models.
fn pod() -> Origin {
    Origin::with(|origin| {
        let folders =
            ["origin-inference/tests/fixtures/tiny", "origin-inference/models/nearhop-mini"];
        origin["models"] = folders.map(|folder| json!({"folder": root().join(folder)})).into();
    })
}

/// Deadlines that a busy machine does not meet by chance, and wires that are soon tried again.
fn patient(edge: &mut Value) {
    edge["deadlines"] = json!({"inline": "60s", "fim": "60s", "chat": "60s"});
    edge["retries"] = json!({"share": 1.0, "per_second": 1000});
    edge["breaker"] = json!({"successes": 1, "open": "1s"});
    edge["hedge"] = json!({"enabled": false});
}

impl Scene {
    fn start(pods: Vec<Origin>, wires: usize, change: impl FnOnce(&mut Value)) -> Self {
        let addresses: Vec<&str> = pods.iter().map(|pod| pod.address.as_str()).collect();
        let cutter = Cutter::start(&addresses, wires);
        let edge = Edge::start(&cutter.wires, |edge| {
            patient(edge);
            change(edge);
        });
        Self { edge, cutter, pods, marks: AtomicUsize::new(0) }
    }

    /// No other request here has it in its prompt; the same at every run, as what models say is.
    fn mark(&self) -> String {
        format!("case_{}_", self.marks.fetch_add(1, Ordering::Relaxed))
    }

    /// A question that the tiny model answers at length, in many events: there is always something
    /// to cut. A pod is asked which that is, and the edge knows of none.
    async fn tiny(&self, more: Value) -> Ask {
        for _ in 0..100 {
            let ask = tiny(self.mark(), &more);
            let answer = client::post(&self.pods[0].address, ask.path, &ask.body, &[]).await;
            assert_eq!(answer.status, StatusCode::OK, "{:?}", answer.body);
            let told = Told::read(std::str::from_utf8(&answer.body).unwrap());
            let many = ask.body["max_tokens"].as_u64().unwrap() / 2;
            let whole = told.finishes.iter().all(|finish| finish.as_deref() == Some("length"));
            if whole && told.events as u64 >= many {
                return ask;
            }
        }
        panic!("the tiny model answers none of them at length: {more}");
    }

    /// So many wires are whole, as far as the edge knows.
    async fn ready(&self, wires: usize) {
        eventually("wires are tried again", LIMIT, || async {
            let pods = self.edge.pods().await;
            let ready = pods.as_array().unwrap().iter().filter(|pod| pod["ready"] == true).count();
            (ready >= wires).then_some(())
        })
        .await;
    }

    async fn stream(&self, ask: &Ask) -> Told {
        let request = request(ask.path, &ask.body, &FRESH);
        let mut answer = send(&self.edge.address, request).await.unwrap();
        let status = answer.status;
        let mut bytes = Vec::new();
        while let Some(piece) = answer.piece().await.unwrap() {
            bytes.extend_from_slice(&piece);
            self.cutter.seen(&ask.mark);
        }
        let text = String::from_utf8(bytes).unwrap();
        assert_eq!(status, StatusCode::OK, "{text}");
        Told::read(&text)
    }

    /// The stream of `ask`, cut so, and what it would have been.
    async fn cut(&self, ask: &Ask, cuts: &[Cut]) -> (Told, Told) {
        let whole = self.stream(ask).await;
        assert_eq!((whole.errors, whole.resumed), (0, 0), "{ask:?} {whole:?}");
        self.ready(self.cutter.wires.len().min(cuts.len() + 1)).await;
        self.cutter.plan(&ask.mark, cuts, true);
        (self.stream(ask).await, whole)
    }

    /// Cuts the stream of `ask`, which must be the same as if nothing had happened. How often it was
    /// gone on with, and whether it parted at a near-tie.
    async fn check(&self, ask: &Ask, cuts: &[Cut]) -> (u64, bool) {
        let before = self.edge.metric("nearhop_resumes_total").await;
        let (got, whole) = self.cut(ask, cuts).await;
        let after = self.edge.metric("nearhop_resumes_total").await;
        let made = self.cutter.made(&ask.mark);
        let shown = |told: &Told| Told { tokens: Vec::new(), ..told.clone() };
        let what = format!("{ask:?}\n{made:?}\n{:?}\n{:?}", shown(&got), shown(&whole));
        assert_eq!(got.errors, 0, "{what}");
        let parted = parted(&got, &whole);
        if !parted {
            assert_eq!((&got.texts, &got.finishes), (&whole.texts, &whole.finishes), "{what}");
            assert_eq!(got.usage, whole.usage, "{what}");
            assert!(got.tokens == whole.tokens, "{what}");
        }
        assert_eq!(got.done, whole.done, "{what}");
        assert!(got.ids.len() <= 1 && got.created.len() <= 1, "{what}");
        let goes_on = made.iter().filter(|made| made.goes_on).count() as u64;
        assert_eq!((got.resumed, after - before), (goes_on, goes_on as f64), "{what}");
        (goes_on, parted)
    }
}

/// With weights in 8-bit blocks, a token that is computed with others before it and one that is
/// computed alone differ by so much, in the logarithm of probability; measured: at most 0.042.
const ROUNDING: f64 = 0.1;

/// Whether two answers differ from a token on where another was within rounding of it.
fn parted(got: &Told, whole: &Told) -> bool {
    let mut choices = got.tokens.iter().zip(&whole.tokens);
    choices.any(|(got, whole)| {
        let first = got.iter().zip(whole).find(|(got, whole)| got != whole);
        first.is_some_and(|(_, whole)| whole.gap < ROUNDING)
    })
}

const fn cut(at: At) -> Cut {
    Cut { at, how: How::Reset }
}

fn tiny(mark: String, more: &Value) -> Ask {
    let mut body = json!({
        "model": "tiny", "prompt": format!("def {mark}"), "max_tokens": 24, "stream": true,
        "stream_options": {"include_usage": true},
    });
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    Ask { path: "/v1/completions", body, mark }
}

#[tokio::test]
async fn a_stream_goes_on_wherever_it_is_cut() {
    if !has_ort() {
        return;
    }
    let scene = Scene::start(vec![pod(), pod()], 8, |_| {});
    // What ended before is not asked for again, and counts.
    let two = json!({"n": 2});
    for (more, cuts) in [
        (&two, vec![cut(FINISH)]),
        (&two, vec![cut(At::Events(9))]),
        (&json!({"max_tokens": 1}), vec![cut(FINISH)]),
    ] {
        let ask = scene.tiny(more.clone()).await;
        scene.check(&ask, &cuts).await;
        assert_eq!(scene.cutter.made(&ask.mark).len(), cuts.len(), "{cuts:?}");
    }
    for cuts in [
        vec![cut(At::Events(1))],
        vec![Cut { at: At::Events(7), how: How::End }],
        vec![cut(At::Bytes(1000))],
        vec![Cut { at: At::Bytes(1500), how: How::End }],
        vec![cut(At::Character(2))],
        vec![cut(FINISH)],
        vec![Cut { at: USAGE, how: How::End }],
        vec![cut(At::Events(3)), cut(At::Events(5))],
        vec![cut(At::Events(2)), cut(FINISH)],
        vec![cut(At::Events(2)), cut(At::Events(0))],
    ] {
        let ask = scene.tiny(json!({})).await;
        scene.check(&ask, &cuts).await;
        // There may be no character of several bytes.
        if !cuts.iter().any(|cut| matches!(cut.at, At::Character(_))) {
            assert_eq!(scene.cutter.made(&ask.mark).len(), cuts.len(), "{cuts:?}");
        }
    }
}

/// Comments that a model goes on with, in characters of several bytes.
const COMMENTS: [&str; 4] = [
    "# Größe der Fläche in m² (naïve Schätzung): π·r² ≈ 3,14",
    "# 日本語のコメント：値を返す。値を返す。",
    "# Значение по умолчанию — «пусто»",
    "# prices in €: ½ · ¾ – “fair” ✓ 🙂 🙂",
];

/// A request of some shape.
fn some(mark: String, dice: &mut Dice) -> Ask {
    let comment = dice.pick(&COMMENTS).unwrap();
    let prompt = format!("# {mark}\n{comment}\n{comment}\ndef area(r):\n    {comment}\n    ");
    let (path, model, mut body) = match dice.below(12) {
        0 | 1 => (
            "/v1/chat/completions",
            "tiny",
            json!({"messages": [{"role": "user", "content": prompt}]}),
        ),
        2 | 3 => ("/v1/fim/completions", "tiny", json!({"prompt": prompt, "suffix": "\n"})),
        4 => ("/infill", "tiny", json!({"input_prefix": prompt, "input_suffix": "\n"})),
        5 => ("/v1/completions", "tiny", json!({"prompt": prompt, "suffix": "\n", "n": 2})),
        6 | 7 => ("/v1/completions", "tiny", json!({"prompt": prompt, "n": 2, "logprobs": 1})),
        // It learned something, and is rounded more: its near-ties must be seen.
        8 => (
            "/v1/completions",
            "nearhop-mini",
            json!({"prompt": prompt, "suffix": "\n", "logprobs": 2}),
        ),
        _ => ("/v1/completions", "nearhop-mini", json!({"prompt": prompt, "logprobs": 2})),
    };
    let more = json!({"model": model, "stream": true, "max_tokens": 8 + dice.below(40)});
    let object = body.as_object_mut().unwrap();
    object.extend(more.as_object().unwrap().clone());
    // Every choice draws by dice of its own, and goes on drawing by them.
    let drawn = model == "tiny" && dice.percent(50);
    object.insert("temperature".into(), json!(if drawn { 0.9 } else { 0.0 }));
    if drawn {
        let name = if path == "/v1/fim/completions" { "random_seed" } else { "seed" };
        object.insert(name.into(), json!(dice.below(1000)));
    }
    if path != "/v1/fim/completions" && path != "/infill" {
        object.insert("stream_options".into(), json!({"include_usage": true}));
    }
    Ask { path, body, mark }
}

/// A string of two or three characters in the middle of a text, and one that only begins like it.
fn stops(text: &str, dice: &mut Dice) -> Option<Value> {
    let characters: Vec<char> = text.chars().collect();
    let at = characters.len() / 2;
    let stop: String = characters.get(at..)?.iter().take(2 + dice.below(2)).collect();
    let decoy = format!("{}\u{1}", characters.get(at / 2)?);
    (stop.chars().count() > 1).then(|| json!([stop, decoy]))
}

fn somewhere(events: usize, dice: &mut Dice) -> Cut {
    let at = match dice.below(6) {
        0 => FINISH,
        1 => USAGE,
        2 => At::Character(dice.below(1 + events / 3)),
        3 => At::Bytes(1 + dice.below(250 * events)),
        _ => At::Events(1 + dice.below(events)),
    };
    Cut { at, how: *dice.pick(&[How::Reset, How::End]).unwrap() }
}

#[tokio::test]
async fn streams_of_any_shape_that_are_cut_anywhere_are_those_that_were_not() {
    if !has_ort() {
        return;
    }
    let streams = if soaking() { 200 } else { 40 };
    let scene = Scene::start(vec![pod(), pod()], 12, |_| {});
    let mut dice = Dice::of(1, &["resuming"]);
    let (mut cuts, mut resumed, mut split, mut ties) = (0, 0, 0, 0);
    for at in 0..streams {
        let mut ask = some(scene.mark(), &mut dice);
        let whole = scene.stream(&ask).await;
        if at % 4 == 0
            && let Some(stop) = stops(&whole.texts[0], &mut dice)
        {
            ask.body["stop"] = stop;
        }
        let planned: Vec<Cut> =
            (0..1 + dice.below(2)).map(|_| somewhere(whole.events, &mut dice)).collect();
        let (times, parted) = scene.check(&ask, &planned).await;
        (resumed, ties) = (resumed + times, ties + usize::from(parted));
        let made = scene.cutter.made(&ask.mark);
        cuts += made.len();
        split += made.iter().filter(|made| matches!(made.cut.at, At::Character(_))).count();
    }
    say(&format!(
        "{streams} streams, {cuts} cuts, {split} of them within a character; gone on with {resumed} times, {ties} parted at a near-tie"
    ));
    assert!(resumed > 0 && split > 0 && ties * 10 <= streams, "{ties} near-ties");
}

/// So also where half a character, or what may be a stop string, is held back, and where the last
/// token is there and the end is not.
#[tokio::test]
async fn an_answer_can_be_cut_behind_each_of_its_events() {
    if !has_ort() {
        return;
    }
    let scene = Scene::start(vec![pod(), pod()], 8, |_| {});
    let prompt = "”\n".repeat(6) + "print(“a”)\n";
    let (mut resumed, mut ties) = (0, 0);
    let ask = |stop: &[String]| {
        let mark = "case_";
        let body = json!({
            "model": "nearhop-mini", "prompt": format!("# {mark}\n{prompt}"), "stream": true,
            "stop": stop, "max_tokens": 16, "logprobs": 2,
            "stream_options": {"include_usage": true},
        });
        Ask { path: "/v1/completions", body, mark: mark.to_owned() }
    };
    let whole = scene.stream(&ask(&[])).await;
    let middle: String = whole.texts[0].chars().skip(12).take(6).collect();
    let begins_alike = format!("{middle}\u{1}");
    for stop in [vec![], vec![begins_alike.clone()], vec![begins_alike, middle]] {
        let ask = ask(&stop);
        let whole = scene.stream(&ask).await;
        for at in 1..whole.events {
            let (times, parted) = scene.check(&ask, &[cut(At::Events(at))]).await;
            (resumed, ties) = (resumed + times, ties + usize::from(parted));
        }
    }
    say(&format!("cut behind each event: gone on with {resumed} times, {ties} near-ties"));
    assert!(resumed > 0);
}

#[tokio::test]
async fn a_whole_answer_is_begun_again_and_charged_once() {
    if !has_ort() {
        return;
    }
    let scene = Scene::start(vec![pod(), pod()], 6, |_| {});
    let spent = async || scene.edge.admin("/usage").await["month"]["dev"]["tokens"].as_u64();
    let mut expected = 0;
    for cuts in [vec![], vec![cut(At::Events(5))], vec![cut(At::Events(3)), cut(FINISH)]] {
        // Whole.
        let mut ask = scene.tiny(json!({})).await;
        ask.body["stream"] = json!(false);
        ask.body.as_object_mut().unwrap().remove("stream_options");
        let post = async || client::post(&scene.edge.address, ask.path, &ask.body, &FRESH).await;
        let before = post().await.json();
        scene.ready(cuts.len() + 1).await;
        scene.cutter.plan(&ask.mark, &cuts, false);
        let after = post().await.json();
        assert_eq!(scene.cutter.made(&ask.mark).len(), cuts.len());
        assert_eq!(after["choices"], before["choices"]);
        assert!(after["nearhop"].is_null(), "{after}");
        let total = |answer: &Value| answer["usage"]["total_tokens"].as_u64().unwrap();
        assert_eq!(total(&after), total(&before));
        expected += 2 * total(&before);
        // Streamed.
        let (got, whole) = scene.cut(&scene.tiny(json!({})).await, &cuts).await;
        assert_eq!((got.usage, got.errors), (whole.usage, 0));
        expected += 2 * whole.usage.map_or(0, |(prompt, answer)| prompt + answer);
        eventually("what was used is charged, once", LIMIT, || async {
            (spent().await == Some(expected)).then_some(())
        })
        .await;
    }
}

/// Whoever waits for the same answer gets it, and so does who comes later.
#[tokio::test]
async fn who_joined_goes_on_as_well_and_the_whole_is_kept() {
    if !has_ort() {
        return;
    }
    let scene = Scene::start(vec![pod(), pod()], 4, |_| {});
    let ask = scene.tiny(json!({})).await;
    let whole = scene.stream(&ask).await;
    scene.cutter.plan(&ask.mark, &[cut(At::Events(5))], true);
    let request = || request(ask.path, &ask.body, &[]);
    let mut leader = send(&scene.edge.address, request()).await.unwrap();
    let first = leader.piece().await.unwrap().unwrap();
    let follower = send(&scene.edge.address, request()).await.unwrap();
    assert_eq!(follower.headers["x-nearhop-source"], "joined");
    scene.cutter.seen(&ask.mark);
    let rest = leader.whole().await.unwrap();
    let leader = Told::read(&String::from_utf8([&first[..], &rest.body].concat()).unwrap());
    let follower = follower.whole().await.unwrap();
    let follower = Told::read(std::str::from_utf8(&follower.body).unwrap());
    let later = send(&scene.edge.address, request()).await.unwrap().whole().await.unwrap();
    assert_eq!(later.header("x-nearhop-source"), "l1");
    let later = Told::read(std::str::from_utf8(&later.body).unwrap());
    for (told, resumed) in [(&leader, 1), (&follower, 1), (&later, 0)] {
        assert_eq!((&told.texts, told.usage, told.done), (&whole.texts, whole.usage, 1));
        assert_eq!((told.resumed, told.errors), (resumed, 0));
    }
}

fn assert_broken(got: &Told, whole: &Told) {
    assert_eq!((got.errors, got.done, got.usage), (1, 0, None), "{got:?}");
    assert_eq!(got.finishes, [None]);
    assert!(whole.texts[0].starts_with(&got.texts[0]) && !got.texts[0].is_empty(), "{got:?}");
}

#[tokio::test]
async fn where_nobody_is_left_the_stream_says_that_it_broke() {
    if !has_ort() {
        return;
    }
    let scene = Scene::start(vec![pod()], 1, |_| {});
    let ask = scene.tiny(json!({})).await;
    let (got, whole) = scene.cut(&ask, &[cut(At::Events(4))]).await;
    assert_broken(&got, &whole);
    assert_eq!(scene.edge.metric("nearhop_resumes_total").await, 0.0);
    // Half an answer is not kept.
    scene.ready(1).await;
    let again = send(&scene.edge.address, request(ask.path, &ask.body, &[])).await.unwrap();
    assert_eq!(again.headers["x-nearhop-source"], "origin");
}

/// The tiny model under another revision's name.
fn other_revision() -> (Origin, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let tiny = root().join("origin-inference/tests/fixtures/tiny");
    for file in ["model.onnx", "tokenizer.json"] {
        std::fs::copy(tiny.join(file), folder.path().join(file)).unwrap();
    }
    let manifest = std::fs::read_to_string(tiny.join("nearhop.yaml")).unwrap();
    let changed = manifest.replace("revision: \"1\"", "revision: \"2\"");
    assert_ne!(changed, manifest);
    std::fs::write(folder.path().join("nearhop.yaml"), changed).unwrap();
    let pod = Origin::with(|origin| origin["models"] = json!([{"folder": folder.path()}]));
    (pod, folder)
}

#[tokio::test]
async fn another_revision_never_goes_on() {
    if !has_ort() {
        return;
    }
    let (other, _folder) = other_revision();
    // Two wires lead to the one revision, so that it is what the model's name means.
    let scene = Scene::start(vec![Origin::start(), other], 3, |_| {});
    let prompts =
        async |at: usize| metric(&scene.pods[at].admin, "vllm:prefix_cache_queries_total").await;
    let ask = scene.tiny(json!({})).await;
    let before = prompts(0).await;
    let (got, whole) = scene.cut(&ask, &[cut(At::Events(3)), cut(At::Events(4))]).await;
    assert_broken(&got, &whole);
    assert_eq!(scene.edge.metric("nearhop_resumes_total").await, 1.0, "on the other wire");
    assert!(prompts(0).await > before);
    assert_eq!(prompts(1).await, 0.0);
}

/// Whoever asked did not wait for the next token as long as it may take: the pod was taken out.
#[tokio::test]
async fn a_stream_leaves_a_pod_that_stands_still() {
    if !has_ort() {
        return;
    }
    let scene = Scene::start(vec![pod(), pod()], 2, |edge| {
        edge["upstream"] = json!({"next_token": "50s"});
    });
    let ask = scene.tiny(json!({})).await;
    let whole = scene.stream(&ask).await;
    scene.ready(2).await;
    scene.cutter.plan(&ask.mark, &[Cut { at: At::Events(5), how: How::Hold }], true);
    let mut answer = send(&scene.edge.address, request(ask.path, &ask.body, &FRESH)).await.unwrap();
    let first = answer.piece().await.unwrap().unwrap();
    let pod = if answer.headers["x-nearhop-pod"] == "fake-0" { 0 } else { 1 };
    signal(scene.pods[pod].pid(), "STOP");
    let stopped = now();
    scene.cutter.seen(&ask.mark);
    let rest = answer.whole().await;
    let took = now() - stopped;
    signal(scene.pods[pod].pid(), "CONT");
    let got = Told::read(&String::from_utf8([&first[..], &rest.unwrap().body].concat()).unwrap());
    assert_eq!((&got.texts, got.usage, got.done), (&whole.texts, whole.usage, 1));
    assert_eq!((got.resumed, got.errors), (1, 0));
    let attempts = async |outcome: &str| {
        let name = format!(
            "nearhop_attempts_total{{class=\"pod\",outcome=\"{outcome}\",upstream=\"fake-{pod}\"}}"
        );
        scene.edge.metric(&name).await
    };
    assert_eq!((attempts("ejected").await, attempts("token_timeout").await), (1.0, 0.0));
    say(&format!("a pod stands still in the middle of a stream: all of it after {took:?}"));
}

/// With what further attempts may cost by default.
#[tokio::test]
async fn all_that_a_killed_pod_had_under_way_goes_on() {
    const STREAMS: usize = 12;
    if !has_ort() {
        return;
    }
    let scene = Arc::new(Scene::start(vec![pod(), pod()], 2, |edge| {
        edge.as_object_mut().unwrap().remove("retries");
    }));
    let (mut asks, mut whole) = (Vec::new(), Vec::new());
    for _ in 0..STREAMS {
        let ask = scene.tiny(json!({})).await;
        whole.push(scene.stream(&ask).await);
        scene.cutter.plan(&ask.mark, &[Cut { at: At::Events(4), how: How::Hold }], true);
        asks.push(ask);
    }
    // All of them on the one pod.
    let hold = async |forced: Value| {
        let body = json!({"forced": forced}).to_string();
        assert_eq!(scene.edge.put("/breakers/fake-1", &body).await.status, StatusCode::OK);
    };
    hold(json!("open")).await;
    let stream = |ask: &Ask| {
        let (scene, ask) = (Arc::clone(&scene), ask.clone());
        tokio::spawn(async move { scene.stream(&ask).await })
    };
    let streams: Vec<_> = asks.iter().map(stream).collect();
    eventually("all are held", LIMIT, || async {
        let held = |ask: &Ask| scene.cutter.made(&ask.mark).len();
        (asks.iter().map(held).sum::<usize>() == STREAMS).then_some(())
    })
    .await;
    hold(Value::Null).await;
    scene.ready(2).await;
    signal(scene.pods[0].pid(), "KILL");
    let mut resumed = 0;
    for (stream, whole) in streams.into_iter().zip(&whole) {
        let got = stream.await.unwrap();
        assert_eq!((&got.texts, got.usage, got.done), (&whole.texts, whole.usage, 1), "{got:?}");
        // Of whom nothing had been sent yet began again.
        assert!(got.resumed <= 1 && got.errors == 0, "{got:?}");
        resumed += got.resumed;
    }
    assert!(resumed > 0, "some had begun");
}
