//! llama.cpp's `/infill` (tools/server/README.md there), as llama.vim and llama.vscode send it.

use std::time::Duration;

use serde::Deserialize;

use super::{
    CompletionRequest, Input, Sampling,
    context::{self, Snippet},
    editor, required, sampling,
};
use crate::{ApiError, Endpoint, Fields, fields::Text};

/// Editors send their server's sampler settings with every request, whether they mean them or
/// not: those are advice, and not taken. A grammar, an adapter or a second answer is no advice.
const NAMES: editor::Names = editor::Names {
    read: &[
        "model",
        "input_prefix",
        "input_suffix",
        "input_extra",
        "prompt",
        "n_predict",
        "max_tokens",
        "temperature",
        "top_p",
        "stop",
        "seed",
        "stream",
        "response_fields",
        "t_max_prompt_ms",
        "t_max_predict_ms",
    ],
    ignored: &[
        "adaptive_decay",
        "adaptive_target",
        "cache_prompt",
        "dry_allowed_length",
        "dry_base",
        "dry_multiplier",
        "dry_penalty_last_n",
        "dry_sequence_breakers",
        "dynatemp_exponent",
        "dynatemp_range",
        "frequency_penalty",
        "id_slot",
        "ignore_eos",
        "logit_bias",
        "min_keep",
        "min_p",
        "mirostat",
        "mirostat_eta",
        "mirostat_tau",
        "n_cache_reuse",
        "n_discard",
        "n_indent",
        "n_keep",
        "n_probs",
        "post_sampling_probs",
        "presence_penalty",
        "repeat_last_n",
        "repeat_penalty",
        "return_progress",
        "return_tokens",
        "samplers",
        "speculative.n_max",
        "speculative.n_min",
        "speculative.p_min",
        "sse_ping_interval",
        "timings_per_token",
        "top_k",
        "top_n_sigma",
        "typical_p",
        "user",
        "xtc_probability",
        "xtc_threshold",
    ],
    refused: &[
        ("grammar", &[r#""""#]),
        ("json_schema", &[]),
        ("lora", &["[]"]),
        ("n_cmpl", &["1"]),
        ("n", &["1"]),
    ],
};

const RESPONSE_FIELDS_MAX: usize = 64;
const RESPONSE_FIELD_BYTES_MAX: usize = 128;

/// Seeds that ask for a random one: -1, and the same in the server's 32 bits.
const RANDOM_SEEDS: [i64; 2] = [-1, u32::MAX as i64];

#[derive(Deserialize)]
struct Extra<'a> {
    #[serde(borrow)]
    text: Text<'a>,
    #[serde(borrow, default)]
    filename: Option<Text<'a>>,
}

/// Reads a body.
pub(super) fn read(fields: &Fields<'_>) -> Result<CompletionRequest, ApiError> {
    let unknown = NAMES.unknown(fields)?;
    let length = read_length(fields)?;
    let (input, snippet_bytes) = read_input(fields)?;
    let seed = fields.get::<i64>("seed", "a whole number")?;
    Ok(CompletionRequest {
        model: editor::model(fields)?,
        sampling: Sampling {
            temperature: sampling::temperature(fields)?,
            top_p: sampling::top_p(fields)?,
            max_tokens: match length {
                Length::Default => None,
                Length::Tokens(tokens) => Some(tokens),
                Length::None => Some(1),
            },
            n: 1,
            seed: seed.filter(|seed| !RANDOM_SEEDS.contains(seed)).map(i64::cast_unsigned),
            stop: sampling::stop(fields)?,
            ..Sampling::default()
        },
        stream: fields.get("stream", "true or false")?.unwrap_or(false),
        unknown,
        time_limit: match length {
            // llama.vim gives a warm-up 2 ms, to which its own server does not hold it.
            Length::None => None,
            Length::Default | Length::Tokens(_) => read_time_limit(fields)?,
        },
        warm_up: length == Length::None,
        response_fields: read_response_fields(fields)?,
        snippet_bytes,
        ..CompletionRequest::of(Endpoint::Infill, input)
    })
}

/// `prompt` is what already stands of the line to complete. The server puts it after the token
/// that begins the middle; to a pod, which completes from there, it is the prefix's end. With the
/// bytes of snippets at the front.
fn read_input(fields: &Fields<'_>) -> Result<(Input, usize), ApiError> {
    let prefix = required(fields.text("input_prefix")?, "input_prefix")?;
    let suffix = required(fields.text("input_suffix")?, "input_suffix")?;
    let middle = fields.text("prompt")?.unwrap_or_default();
    let expected = "a list of {\"filename\": text, \"text\": text}";
    let extra: Vec<Extra<'_>> = fields.get("input_extra", expected)?.unwrap_or_default();
    let snippets: Vec<Snippet<'_>> = extra
        .iter()
        .map(|extra| Snippet {
            path: extra.filename.as_ref().map(|Text(path)| path.as_ref()),
            text: &extra.text.0,
        })
        .collect();
    let own = prefix.len() + middle.len();
    let prefix = context::before(&snippets, &[&prefix, &middle], "input_extra")?;
    let snippet_bytes = prefix.len() - own;
    Ok((Input::Fim { prefix, suffix: suffix.into_owned() }, snippet_bytes))
}

/// How long an answer may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Length {
    /// As the model has it.
    Default,
    /// So many tokens.
    Tokens(usize),
    /// None at all: a warm-up.
    None,
}

fn read_length(fields: &Fields<'_>) -> Result<Length, ApiError> {
    let name = if fields.raw("n_predict").is_some() { "n_predict" } else { "max_tokens" };
    let expected = "a whole number; -1 for the model's default, 0 to only read the prompt";
    Ok(match fields.get::<i64>(name, expected)? {
        None | Some(..0) => Length::Default,
        Some(0) => Length::None,
        Some(tokens) => Length::Tokens(usize::try_from(tokens).unwrap_or(usize::MAX)),
    })
}

fn read_time_limit(fields: &Fields<'_>) -> Result<Option<Duration>, ApiError> {
    let millis = |name| -> Result<u64, ApiError> {
        let millis: Option<i64> = fields.get(name, "a whole number of milliseconds")?;
        // Nothing and less is no limit, as it is in llama.cpp.
        Ok(millis.and_then(|millis| u64::try_from(millis).ok()).unwrap_or(0))
    };
    let total = millis("t_max_prompt_ms")?.saturating_add(millis("t_max_predict_ms")?);
    Ok((total > 0).then(|| Duration::from_millis(total)))
}

fn read_response_fields(fields: &Fields<'_>) -> Result<Vec<String>, ApiError> {
    let expected = format!(
        "a list of up to {RESPONSE_FIELDS_MAX} names of up to {RESPONSE_FIELD_BYTES_MAX} bytes"
    );
    let names: Vec<String> = fields.get("response_fields", &expected)?.unwrap_or_default();
    let fits = |name: &String| name.len() <= RESPONSE_FIELD_BYTES_MAX;
    match names.len() <= RESPONSE_FIELDS_MAX && names.iter().all(fits) {
        true => Ok(names),
        false => {
            let message = format!("response_fields must be {expected}");
            Err(ApiError::invalid("response_fields", message))
        }
    }
}
