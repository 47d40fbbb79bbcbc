//! Mistral's `/v1/fim/completions`.

use super::{CompletionRequest, Sampling, editor, openai, required, sampling};
use crate::{ApiError, Endpoint, Fields};

const NAMES: editor::Names = editor::Names {
    read: &[
        "model",
        "prompt",
        "suffix",
        "max_tokens",
        "temperature",
        "top_p",
        "stop",
        "random_seed",
        "stream",
    ],
    // The last chunk has the usage, asked for or not.
    ignored: &["metadata", "stream_options", "user"],
    refused: &[
        ("min_tokens", &["0"]),
        ("n", &["1"]),
        ("frequency_penalty", &["0", "0.0"]),
        ("presence_penalty", &["0", "0.0"]),
        ("tools", &["[]"]),
    ],
};

/// Reads a body.
pub(super) fn read(fields: &Fields<'_>) -> Result<CompletionRequest, ApiError> {
    let unknown = NAMES.unknown(fields)?;
    let input = openai::read_prompt(fields)?;
    Ok(CompletionRequest {
        model: Some(required(fields.get("model", "text")?, "model")?),
        sampling: Sampling {
            temperature: sampling::temperature(fields)?,
            top_p: sampling::top_p(fields)?,
            max_tokens: sampling::positive(fields, "max_tokens", usize::MAX)?,
            n: 1,
            seed: sampling::seed(fields, "random_seed")?,
            stop: sampling::stop(fields)?,
            ..Sampling::default()
        },
        stream: fields.get("stream", "true or false")?.unwrap_or(false),
        unknown,
        ..CompletionRequest::of(Endpoint::Fim, input)
    })
}
