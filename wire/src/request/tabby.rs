//! Tabby's `/v1/completions`: `segments` in place of `prompt`.

use serde::{Deserialize, de::IgnoredAny};

use super::{
    CompletionRequest, Declared, Input, Sampling,
    context::{self, Snippet},
    editor, required, sampling,
};
use crate::{ApiError, Endpoint, Fields, fields::Text};

const NAMES: editor::Names = editor::Names {
    read: &["language", "segments", "model", "temperature", "seed", "mode", "debug_options"],
    // Tabby ignores `prompt` beside `segments` as well; its answers never stream.
    ignored: &["prompt", "stream", "user"],
    refused: &[],
};

const SEGMENT_NAMES: editor::Names = editor::Names {
    read: &[
        "prefix",
        "suffix",
        "declarations",
        "relevant_snippets_from_changed_files",
        "relevant_snippets_from_recently_opened_files",
    ],
    // `edit_history` is read in a mode that is refused.
    ignored: &["clipboard", "edit_history", "filepath", "git_url"],
    refused: &[],
};

/// The lists of snippets, in the order in which they stand before the prefix: the likeliest last,
/// next to the code.
const SNIPPETS: [&str; 3] = [
    "relevant_snippets_from_recently_opened_files",
    "relevant_snippets_from_changed_files",
    "declarations",
];

#[derive(Deserialize)]
struct Declaration<'a> {
    #[serde(borrow)]
    filepath: Text<'a>,
    #[serde(borrow)]
    body: Text<'a>,
}

#[derive(Deserialize)]
struct DebugOptions {
    raw_prompt: Option<IgnoredAny>,
}

/// Reads a body that has `segments`.
pub(super) fn read(fields: &Fields<'_>) -> Result<CompletionRequest, ApiError> {
    let mut unknown = NAMES.unknown(fields)?;
    let expected = "an object such as {\"prefix\": \"a\", \"suffix\": \"b\"}";
    let segments: Fields<'_> = required(fields.get("segments", expected)?, "segments")?;
    let in_segments = |error: ApiError| ApiError { param: Some("segments".to_owned()), ..error };
    unknown.extend(SEGMENT_NAMES.unknown(&segments).map_err(in_segments)?);
    let (input, snippet_bytes) = read_segments(&segments).map_err(in_segments)?;
    check_mode(fields)?;
    // Advice to others; here they say whether blank lines mean something.
    let said = |text: Option<std::borrow::Cow<'_, str>>| text.map(std::borrow::Cow::into_owned);
    let declared = Declared {
        language: said(fields.text("language")?),
        file: said(segments.text("filepath").map_err(in_segments)?),
        ..Declared::default()
    };
    Ok(CompletionRequest {
        model: editor::model(fields)?,
        sampling: Sampling {
            temperature: sampling::temperature(fields)?,
            n: 1,
            seed: read_seed(fields)?,
            ..Sampling::default()
        },
        unknown,
        snippet_bytes,
        declared,
        ..CompletionRequest::of(Endpoint::Tabby, input)
    })
}

/// With the bytes of snippets at the front of its prefix.
fn read_segments(segments: &Fields<'_>) -> Result<(Input, usize), ApiError> {
    let prefix = required(segments.text("prefix")?, "prefix")?;
    let suffix = segments.text("suffix")?;
    let mut lists: Vec<Vec<Declaration<'_>>> = Vec::with_capacity(SNIPPETS.len());
    for name in SNIPPETS {
        let expected = "a list of {\"filepath\": text, \"body\": text}";
        lists.push(segments.get(name, expected)?.unwrap_or_default());
    }
    let snippets: Vec<Snippet<'_>> = lists
        .iter()
        .flatten()
        .map(|one| Snippet { path: Some(&one.filepath.0), text: &one.body.0 })
        .collect();
    let own = prefix.len();
    let prefix = context::before(&snippets, &[&prefix], "segments")?;
    let snippet_bytes = prefix.len() - own;
    let input = match suffix {
        Some(suffix) => Input::Fim { prefix, suffix: suffix.into_owned() },
        None => Input::Prompt(prefix),
    };
    Ok((input, snippet_bytes))
}

fn check_mode(fields: &Fields<'_>) -> Result<(), ApiError> {
    match fields.text("mode")?.as_deref() {
        None | Some("standard") => {}
        Some(_) => return Err(ApiError::invalid("mode", "mode must be standard, or left out")),
    }
    let options: Option<DebugOptions> = fields.get("debug_options", "an object")?;
    match options.and_then(|options| options.raw_prompt) {
        None => Ok(()),
        Some(_) => {
            let message = "debug_options.raw_prompt is not supported here; send segments";
            Err(ApiError::invalid("debug_options", message))
        }
    }
}

/// Tabby's seeds have 64 bits and no sign.
fn read_seed(fields: &Fields<'_>) -> Result<Option<u64>, ApiError> {
    match sampling::seed(fields, "seed") {
        Ok(seed) => Ok(seed),
        Err(error) => fields.get::<u64>("seed", "a whole number").map_err(|_same| error),
    }
}
