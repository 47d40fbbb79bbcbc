//! Real inference on the small fixture, whose fp32 weights make equality exact.

use std::{fs, io::Write as _, path::PathBuf, sync::OnceLock};

use super::*;
use crate::sampler::argmax;

/// The library, or a loud skip; `NEARHOP_REQUIRE_ORT=1` (as `make test` sets it) makes the missing
/// library a failure.
pub(crate) fn runtime() -> Option<&'static Runtime> {
    static RUNTIME: OnceLock<Option<Runtime>> = OnceLock::new();
    RUNTIME
        .get_or_init(|| {
            let root =
                PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../.ort").join(library::FILE);
            let env = &nearhop_conf::source::process_env;
            let asked = env("ORT_DYLIB_PATH").is_some();
            match Runtime::load((!asked).then_some(root.as_path()), env) {
                Ok(runtime) => Some(runtime),
                Err(error) if env("NEARHOP_REQUIRE_ORT").is_some() => panic!("{error}"),
                Err(error) => {
                    // Said aloud: what `eprintln!` says is heard of failed tests only.
                    let _ = writeln!(
                        std::io::stderr(),
                        "\n*** SKIPPED: inference was NOT tested. {error} ***\n"
                    );
                    None
                }
            }
        })
        .as_ref()
}

pub(crate) fn tiny() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/tiny")
}

pub(crate) fn options(slots: usize) -> Options {
    Options {
        slots,
        threads: 1,
        chunk: 128,
        batch: 512,
        provider: Some(Provider::Cpu),
        cache: None,
    }
}

pub(crate) fn open(slots: usize) -> Option<Box<dyn Session>> {
    let model = Model::load(&tiny()).unwrap();
    Some(super::open(runtime()?, &model, &options(slots)).unwrap().session)
}

fn prompts() -> Vec<Vec<u32>> {
    [50u32, 17, 33, 64]
        .iter()
        .enumerate()
        .map(|(k, n)| {
            (0..*n).map(|i| (i * 79 + u32::try_from(k).unwrap() * 131 + 13) % 500 + 8).collect()
        })
        .collect()
}

/// The logits after the prompt and after each of `steps` greedy tokens, computed alone.
fn alone(session: &mut dyn Session, prompt: &[u32], steps: usize) -> Vec<Vec<f32>> {
    let mut logits = Vec::new();
    session.prefill(0, 0, prompt, &mut logits).unwrap();
    let mut all = vec![logits.clone()];
    for step in 0..steps {
        let token = argmax(&logits);
        session.decode(&[token], &[prompt.len() + step], &mut logits).unwrap();
        all.push(logits.clone());
    }
    all
}

#[test]
fn a_sequence_is_the_same_alone_and_in_a_ragged_batch() {
    let Some(mut session) = open(4) else { return };
    let prompts = prompts();
    // What each sequence computes alone, step by step.
    let mut expected: Vec<_> =
        prompts.iter().map(|prompt| alone(session.as_mut(), prompt, 5).into_iter()).collect();
    let mut logits = Vec::new();
    let mut last = Vec::new();
    for (slot, prompt) in prompts.iter().enumerate() {
        session.prefill(slot, 0, prompt, &mut logits).unwrap();
        assert_eq!(Some(&logits), expected[slot].next().as_ref(), "prefill of {slot}");
        last.push(logits.clone());
    }
    let mut lengths: Vec<usize> = prompts.iter().map(Vec::len).collect();
    for step in 1..=5 {
        let tokens: Vec<u32> = last.iter().map(|logits| argmax(logits)).collect();
        session.decode(&tokens, &lengths, &mut logits).unwrap();
        last = logits.chunks(session.vocabulary()).map(<[f32]>::to_vec).collect();
        for (slot, logits) in last.iter().enumerate() {
            assert_eq!(Some(logits), expected[slot].next().as_ref(), "step {step} of {slot}");
        }
        lengths.iter_mut().for_each(|length| *length += 1);
    }
}

#[test]
fn a_prompt_in_chunks_is_the_whole_prompt() {
    let Some(mut session) = open(1) else { return };
    let prompt = &prompts()[3];
    let whole = alone(session.as_mut(), prompt, 0).remove(0);
    for cut in [2, 16, 62] {
        let mut logits = Vec::new();
        session.prefill(0, 0, &prompt[..cut], &mut logits).unwrap();
        session.prefill(0, cut, &prompt[cut..], &mut logits).unwrap();
        assert_eq!(logits, whole, "cut at {cut}");
    }
}

#[test]
fn a_copied_slot_goes_on_like_the_original() {
    let Some(mut session) = open(3) else { return };
    let prompt = &prompts()[0];
    let expected = alone(session.as_mut(), prompt, 1);
    let mut logits = Vec::new();
    session.prefill(2, 0, prompt, &mut logits).unwrap();
    session.copy(2, 0, prompt.len());
    session.decode(&[argmax(&expected[0])], &[prompt.len()], &mut logits).unwrap();
    assert_eq!(logits, expected[1]);
}

fn folder_with(change: impl Fn(&Path)) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for file in ["model.onnx", "tokenizer.json", "nearhop.yaml"] {
        fs::copy(tiny().join(file), folder.path().join(file)).unwrap();
    }
    change(folder.path());
    folder
}

fn refusal(change: impl Fn(&Path)) -> Option<String> {
    let runtime = runtime()?;
    let folder = folder_with(change);
    let opened =
        Model::load(folder.path()).and_then(|m| super::open(runtime, &m, &options(1)).map(drop));
    Some(opened.unwrap_err().to_string())
}

fn check_refused(change: impl Fn(&Path), words: &[&str]) {
    let Some(error) = refusal(change) else { return };
    for word in words {
        assert!(error.contains(word), "`{word}` is not in: {error}");
    }
}

#[test]
fn a_truncated_model_is_refused_by_name() {
    check_refused(
        |folder| {
            let path = folder.join("model.onnx");
            let bytes = fs::read(&path).unwrap();
            fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
        },
        &["model.onnx", "Copy the model folder"],
    );
}

#[test]
fn a_missing_file_is_refused_by_name() {
    for file in ["model.onnx", "tokenizer.json"] {
        check_refused(|folder| fs::remove_file(folder.join(file)).unwrap(), &[file]);
    }
}

#[test]
fn a_model_that_is_no_model_is_refused() {
    check_refused(|folder| fs::write(folder.join("model.onnx"), "hello").unwrap(), &["model.onnx"]);
    check_refused(
        |folder| fs::write(folder.join("tokenizer.json"), "{}").unwrap(),
        &["tokenizer.json"],
    );
}

#[test]
fn a_manifest_that_does_not_fit_is_refused() {
    let change = |from: &'static str, to: &'static str| {
        move |folder: &Path| {
            let path = folder.join("nearhop.yaml");
            let text = fs::read_to_string(&path).unwrap();
            assert!(text.contains(from), "{text}");
            fs::write(&path, text.replace(from, to)).unwrap();
        }
    };
    check_refused(change("end_tokens: [0]", "end_tokens: [9999]"), &["nearhop.yaml", "9999"]);
    check_refused(change("name: tiny", "nmae: tiny"), &["nearhop.yaml", "nmae"]);
    check_refused(change("context_length: 256", "context_length: 100"), &["fim_window"]);
}

/// The same weights in a foreign layout; made at set-up. `None` skips, as without the library.
pub(crate) fn foreign(layout: &str) -> Option<PathBuf> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../.models").join(layout);
    if folder.is_dir() {
        return Some(folder);
    }
    let required = nearhop_conf::source::process_env("NEARHOP_REQUIRE_ORT").is_some();
    assert!(!required, "{} is missing: run make setup", folder.display());
    let _ =
        writeln!(std::io::stderr(), "\n*** SKIPPED: {layout} was NOT tested; run make setup ***\n");
    None
}

fn load(folder: &Path, slots: usize) -> Option<Opened> {
    let model = Model::load(folder).unwrap();
    Some(super::open(runtime()?, &model, &options(slots)).unwrap())
}

/// Greedy tokens of every prompt, prefilled in two pieces and decoded together.
fn greedy(session: &mut dyn Session, steps: usize) -> Vec<Vec<u32>> {
    let prompts = prompts();
    let mut logits = Vec::new();
    let mut all: Vec<Vec<u32>> = Vec::new();
    for (slot, prompt) in prompts.iter().enumerate() {
        let cut = if session.splits() { prompt.len() / 2 } else { 0 };
        if cut > 0 {
            session.prefill(slot, 0, &prompt[..cut], &mut logits).unwrap();
        }
        session.prefill(slot, cut, &prompt[cut..], &mut logits).unwrap();
        all.push(vec![argmax(&logits)]);
    }
    let mut lengths: Vec<usize> = prompts.iter().map(Vec::len).collect();
    for _ in 1..steps {
        let tokens: Vec<u32> = all.iter().map(|tokens| tokens[tokens.len() - 1]).collect();
        session.decode(&tokens, &lengths, &mut logits).unwrap();
        for (tokens, row) in all.iter_mut().zip(logits.chunks(session.vocabulary())) {
            tokens.push(argmax(row));
        }
        lengths.iter_mut().for_each(|length| *length += 1);
    }
    all
}

/// Every layout of the same float32 weights says the same.
#[test]
fn all_layouts_compute_the_same_tokens() {
    let Some(mut native) = open(4) else { return };
    let expected = greedy(native.as_mut(), 12);
    for (layout, kv_use) in [("genai", KvUse::InPlace), ("optimum", KvUse::Gathered)] {
        let Some(folder) = foreign(layout) else { return };
        let mut opened = load(&folder, 4).unwrap();
        assert_eq!(opened.kv_use, kv_use, "{layout}: {:?}", opened.findings);
        let said = opened.findings.join("\n");
        assert!(said.contains("batching: on"), "{layout}: {said}");
        assert_eq!(greedy(opened.session.as_mut(), 12), expected, "{layout}");
    }
}

/// Where a graph cannot write into what it reads, the copy gives the same.
#[test]
fn copied_keys_and_values_compute_the_same_tokens() {
    let Some(mut native) = open(4) else { return };
    let model = Model::load(&tiny()).unwrap();
    let runtime = runtime().unwrap();
    let committed = commit_first(runtime, &model, &options(4), false).unwrap();
    let session = committed.session;
    let ports = |outlets: &[Outlet]| outlets.iter().map(port).collect::<Vec<_>>();
    let (inputs, outputs) = (ports(session.inputs()), ports(session.outputs()));
    let layout = Layout::read(&inputs, &outputs, &Names::default(), true).unwrap();
    let mut network = Network::<f32>::new(session, layout, (4, 256)).unwrap();
    assert!(network.fall_back_to_copies() && !network.fall_back_to_copies());
    assert_eq!(greedy(&mut network, 12), greedy(native.as_mut(), 12));
}

/// A block taken from one slot goes on in another as if it had been computed there.
#[test]
fn saved_state_goes_on_in_any_slot() {
    for layout in ["", "genai", "optimum", "f16"] {
        let folder = if layout.is_empty() { Some(tiny()) } else { foreign(layout) };
        let Some(mut opened) = folder.and_then(|folder| load(&folder, 3)) else { return };
        let session = opened.session.as_mut();
        let prompt = &prompts()[3];
        let mut whole = Vec::new();
        session.prefill(0, 0, prompt, &mut whole).unwrap();
        let blocks: Vec<_> = [0..16, 16..32].map(|tokens| session.save(0, tokens)).into();
        assert_eq!(blocks[0].bytes(), 16 * session.token_bytes());
        session.prefill(0, 0, &prompts()[0], &mut Vec::new()).unwrap();
        session.restore(2, 0..16, &blocks[0]);
        session.restore(2, 16..32, &blocks[1]);
        let mut logits = Vec::new();
        session.prefill(2, 32, &prompt[32..], &mut logits).unwrap();
        // Concatenated keys are added up in another order than a whole prompt's.
        let apart = whole.iter().zip(&logits).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        let allowed = match layout {
            "f16" => 2e-2,
            "optimum" => 1e-4,
            _ => 0.0,
        };
        assert!(apart <= allowed, "{layout}: {apart}");
    }
}

#[test]
fn weights_of_few_bits_load_and_batch() {
    for layout in ["q8", "community", "f16", "nan"] {
        let Some(opened) = foreign(layout).and_then(|folder| load(&folder, 2)) else { return };
        assert!(opened.findings.join("\n").contains("batching: on"), "{:?}", opened.findings);
    }
}

#[test]
fn a_graph_that_rounds_by_the_tensor_is_not_batched_and_says_why() {
    let Some(mut opened) = foreign("dynamic").and_then(|folder| load(&folder, 4)) else { return };
    let said = opened.findings.join("\n");
    assert!(said.contains("batching: off") && said.contains("DynamicQuantizeLinear"), "{said}");
    assert!(!opened.session.splits());
    // Each row alone in its step: what the others hold does not matter.
    let four = greedy(opened.session.as_mut(), 6);
    let mut alone = load(&foreign("dynamic").unwrap(), 1).unwrap();
    for (prompt, tokens) in prompts().iter().zip(four) {
        let steps = self::alone(alone.session.as_mut(), prompt, 5);
        let expected: Vec<u32> = steps.iter().map(|logits| argmax(logits)).collect();
        assert_eq!(tokens, expected);
    }
}

#[test]
fn old_exports_are_refused_with_the_reason() {
    let check = |layout: &str, words: &[&str]| {
        let Some(folder) = foreign(layout) else { return };
        let error = Model::load(&folder).unwrap_err().to_string();
        for word in words {
            assert!(error.contains(word), "{layout}: `{word}` is not in: {error}");
        }
    };
    check("old-merged", &["use_cache_branch", "text-generation-with-past"]);
    check("gpt-bigcode", &["key_value", "StarCoder2"]);
}

#[test]
fn missing_external_weights_and_several_models_are_named() {
    let Some(genai) = foreign("genai") else { return };
    let folder = tempfile::tempdir().unwrap();
    for file in ["model.onnx", "tokenizer.json", "tokenizer_config.json", "genai_config.json"] {
        fs::copy(genai.join(file), folder.path().join(file)).unwrap();
    }
    let error = || Model::load(folder.path()).unwrap_err().to_string();
    assert!(error().contains("`model.onnx.data` beside it, which is missing"), "{}", error());
    fs::remove_file(folder.path().join("genai_config.json")).unwrap();
    fs::rename(folder.path().join("model.onnx"), folder.path().join("model_q4.onnx")).unwrap();
    fs::copy(folder.path().join("model_q4.onnx"), folder.path().join("model_fp16.onnx")).unwrap();
    let said = error();
    assert!(said.contains("model_fp16.onnx, model_q4.onnx") && said.contains("weights:"), "{said}");
}

#[test]
fn a_provider_that_is_not_there_is_refused_with_its_reason_and_the_next_is_taken() {
    let Some(runtime) = runtime() else { return };
    let model = Model::load(&tiny()).unwrap();
    let any = Options { provider: None, ..options(2) };
    let opened = super::open(runtime, &model, &any).unwrap();
    assert_eq!(opened.provider, Provider::Cpu);
    assert_eq!(opened.declined.len(), 1, "{:?}", opened.declined);
    assert_eq!(opened.declined[0].provider, Provider::Cuda);
    assert!(!opened.declined[0].reason.is_empty());
    for provider in [Provider::TensorRt, Provider::Cuda] {
        let only = Options { provider: Some(provider), ..options(2) };
        let error = super::open(runtime, &model, &only).err().unwrap().to_string();
        assert!(error.contains(provider.name()) && error.contains("require_provider"), "{error}");
    }
}
