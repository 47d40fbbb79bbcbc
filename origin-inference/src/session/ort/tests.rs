//! Real inference on the small fixture, whose fp32 weights make equality exact.

use std::{fs, io::Write as _, path::PathBuf, sync::OnceLock};

use super::*;

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

fn open(slots: usize) -> Option<OrtSession> {
    let model = Model::load(&tiny()).unwrap();
    Some(OrtSession::open(runtime()?, &model, slots, 1).unwrap())
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

fn argmax(logits: &[f32]) -> u32 {
    crate::sampler::Sampler::new(0.0, 1.0, 0).pick(logits)
}

/// The logits after the prompt and after each of `steps` greedy tokens, computed alone.
fn alone(session: &mut OrtSession, prompt: &[u32], steps: usize) -> Vec<Vec<f32>> {
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
        prompts.iter().map(|prompt| alone(&mut session, prompt, 5).into_iter()).collect();
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
    let whole = alone(&mut session, prompt, 0).remove(0);
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
    let expected = alone(&mut session, prompt, 1);
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
        Model::load(folder.path()).and_then(|m| OrtSession::open(runtime, &m, 1, 1).map(drop));
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
    for file in ["model.onnx", "tokenizer.json", "nearhop.yaml"] {
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
