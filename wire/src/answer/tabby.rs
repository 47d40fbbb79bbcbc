//! Tabby's answer: an id, and the text of each choice. Why a choice ended is not said. And the
//! state of its server, without which its plug-ins ask for nothing.

use bytes::Bytes;
use serde::Serialize;

use super::Answer;

#[derive(Serialize)]
struct Written<'a> {
    id: &'a str,
    choices: Vec<WrittenChoice<'a>>,
}

#[derive(Serialize)]
struct WrittenChoice<'a> {
    index: usize,
    text: &'a str,
}

/// The whole answer. There is no stream in this shape.
pub(super) fn body(answer: &Answer) -> Vec<u8> {
    let choices = answer.choices.iter().enumerate();
    let choices = choices.map(|(index, choice)| WrittenChoice { index, text: &choice.text });
    let written = Written { id: &answer.head.id, choices: choices.collect() };
    serde_json::to_vec(&written).expect("strings and numbers always serialise")
}

#[derive(Serialize)]
struct Health<'a> {
    model: &'a str,
    device: &'static str,
    arch: &'static str,
    cpu_info: &'static str,
    cpu_count: usize,
    cuda_devices: [&'static str; 0],
    version: Version,
}

#[derive(Serialize)]
struct Version {
    build_date: &'static str,
    build_timestamp: &'static str,
    git_sha: &'static str,
    git_describe: &'static str,
}

/// The body of Tabby's `/v1/health`: `model` completes code. Tabby's plug-ins ask it before
/// anything else and send no completion where `model` or `version` is missing. What else Tabby
/// says there (its device, its processors, its build) is empty or 0: that is nobody's business.
#[must_use]
pub fn tabby_health(model: &str) -> Bytes {
    let git_describe = env!("CARGO_PKG_VERSION");
    let health = Health {
        model,
        device: "",
        arch: "",
        cpu_info: "",
        cpu_count: 0,
        cuda_devices: [],
        version: Version { build_date: "", build_timestamp: "", git_sha: "", git_describe },
    };
    serde_json::to_vec(&health).expect("strings and numbers always serialise").into()
}
