//! OpenAI's `/v1/embeddings`.

use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde::{Deserialize, Serialize};

use crate::{ApiError, Fields};

/// A request for vectors.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EmbeddingRequest {
    /// The model's name or alias.
    pub model: Option<String>,
    /// 1 to 2,048 texts.
    pub input: Vec<String>,
    /// Whether vectors are sent as base64 of little-endian float32, as OpenAI's own clients ask.
    pub base64: bool,
    /// Values of a vector; only the model's own number is served.
    pub dimensions: Option<usize>,
    /// Whether a text over the model's limit is cut, rather than refused.
    pub truncate: bool,
}

const INPUTS_MAX: usize = 2048;

impl EmbeddingRequest {
    /// Reads a request's body.
    ///
    /// # Errors
    /// An [`ApiError`] that names the field and what to send instead.
    pub fn parse(body: &[u8]) -> Result<Self, ApiError> {
        let fields = Fields::parse(body)?;
        let wrong = || {
            let message = format!(
                "input must be text, or a list of 1 to {INPUTS_MAX} texts; token ids are not read"
            );
            ApiError::invalid("input", message)
        };
        let raw = fields.raw("input").ok_or_else(|| ApiError {
            code: Some("missing_field".to_owned()),
            ..ApiError::invalid("input", "input is missing")
        })?;
        let input: Vec<String> = match raw.starts_with('[') {
            true => serde_json::from_str(raw).map_err(|_not_texts| wrong())?,
            false => vec![serde_json::from_str(raw).map_err(|_not_text| wrong())?],
        };
        if input.is_empty() || input.len() > INPUTS_MAX {
            return Err(wrong());
        }
        let base64 = match fields.get::<String>("encoding_format", "float or base64")?.as_deref() {
            None | Some("float") => false,
            Some("base64") => true,
            Some(_) => {
                let message = "encoding_format must be float or base64";
                return Err(ApiError::invalid("encoding_format", message));
            }
        };
        Ok(Self {
            model: fields.get("model", "text")?,
            input,
            base64,
            dimensions: fields.get("dimensions", "a whole number")?,
            truncate: fields.get("truncate", "true or false")?.unwrap_or(false),
        })
    }

    /// The answer's body: `vectors` in the order of the input, which had `tokens` tokens.
    #[must_use]
    pub fn body(&self, model: &str, vectors: &[Vec<f32>], tokens: usize) -> Vec<u8> {
        let data = vectors.iter().enumerate().map(|(index, vector)| Item {
            object: "embedding",
            index,
            embedding: match self.base64 {
                true => Embedding::Base64(BASE64_STANDARD.encode(
                    vector.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>(),
                )),
                false => Embedding::Values(vector),
            },
        });
        let body = Body {
            object: "list",
            data: data.collect(),
            model,
            usage: Usage { prompt_tokens: tokens, total_tokens: tokens },
        };
        serde_json::to_vec(&body).expect("strings and numbers always serialise")
    }
}

/// The body of a request for the vectors of `texts`, which are told as base64; what is over the
/// model's limit is cut where `truncate` says so, and else refused.
#[must_use]
pub fn embedding_body(model: &str, texts: &[&str], truncate: bool) -> Vec<u8> {
    let body = serde_json::json!({
        "model": model, "input": texts, "encoding_format": "base64", "truncate": truncate,
    });
    body.to_string().into_bytes()
}

/// The vectors of an answer to [`embedding_body`], in the order of its texts, of which there were
/// `count`; `None` where it is no such answer. Values may be anything.
#[must_use]
pub fn embedding_vectors(body: &[u8], count: usize) -> Option<Vec<Vec<f32>>> {
    #[derive(Deserialize)]
    struct Body {
        data: Vec<Item>,
    }
    #[derive(Deserialize)]
    struct Item {
        index: usize,
        embedding: String,
    }
    let mut data = serde_json::from_slice::<Body>(body).ok()?.data;
    data.sort_by_key(|item| item.index);
    let in_order = data.iter().enumerate().all(|(at, item)| item.index == at);
    if data.len() != count || !in_order {
        return None;
    }
    let vectors = data.iter().map(|item| {
        let bytes = BASE64_STANDARD.decode(&item.embedding).ok()?;
        let values = bytes.as_chunks::<4>();
        values.1.is_empty().then(|| values.0.iter().map(|four| f32::from_le_bytes(*four)).collect())
    });
    vectors.collect()
}

#[derive(Serialize)]
struct Body<'a> {
    object: &'static str,
    data: Vec<Item<'a>>,
    model: &'a str,
    usage: Usage,
}

#[derive(Serialize)]
struct Item<'a> {
    object: &'static str,
    index: usize,
    embedding: Embedding<'a>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Embedding<'a> {
    Values(&'a [f32]),
    Base64(String),
}

#[derive(Serialize)]
struct Usage {
    prompt_tokens: usize,
    total_tokens: usize,
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    fn parse(body: &str) -> Result<EmbeddingRequest, ApiError> {
        EmbeddingRequest::parse(body.as_bytes())
    }

    #[test]
    fn one_text_or_several_are_read() {
        assert_eq!(parse(r#"{"model":"m","input":"a"}"#).unwrap().input, ["a"]);
        let several =
            parse(r#"{"input":["a","b"],"encoding_format":"base64","dimensions":384}"#).unwrap();
        assert_eq!(several.input, ["a", "b"]);
        assert!(several.base64 && several.model.is_none());
        assert_eq!(several.dimensions, Some(384));
    }

    #[test]
    fn what_is_asked_for_is_read_again() {
        let asked = EmbeddingRequest::parse(&embedding_body("m@1", &["a", "b"], true)).unwrap();
        assert_eq!(
            (&asked.input[..], asked.truncate),
            (&["a".to_owned(), "b".to_owned()][..], true)
        );
        let vectors = vec![vec![0.5, -1.0], vec![f32::NAN, 0.0]];
        let body = asked.body("m", &vectors, 4);
        let read = embedding_vectors(&body, 2).unwrap();
        assert_eq!(read[0], vectors[0]);
        assert!(read[1][0].is_nan());
        assert_eq!(embedding_vectors(&body, 3), None);
        for wrong in [
            r#"{}"#,
            r#"{"data":[{"index":1,"embedding":""}]}"#,
            r#"{"data":[{"index":0,"embedding":"AAA="}]}"#,
        ] {
            assert_eq!(embedding_vectors(wrong.as_bytes(), 1), None, "{wrong}");
        }
    }

    #[test]
    fn mistakes_name_the_field() {
        for (body, param) in [
            ("{}", "input"),
            (r#"{"input":[]}"#, "input"),
            (r#"{"input":[1,2]}"#, "input"),
            (r#"{"input":"a","encoding_format":"int8"}"#, "encoding_format"),
            (r#"{"input":"a","truncate":"END"}"#, "truncate"),
        ] {
            assert_eq!(parse(body).unwrap_err().param.as_deref(), Some(param), "{body}");
        }
    }

    #[test]
    fn answers_have_openais_shape() {
        let float = parse(r#"{"input":["a","b"]}"#).unwrap();
        let body = float.body("m", &[vec![0.5, -1.0], vec![1.0, 0.0]], 4);
        expect![[r#"{"object":"list","data":[{"object":"embedding","index":0,"embedding":[0.5,-1.0]},{"object":"embedding","index":1,"embedding":[1.0,0.0]}],"model":"m","usage":{"prompt_tokens":4,"total_tokens":4}}"#]]
            .assert_eq(std::str::from_utf8(&body).unwrap());
        let base64 = parse(r#"{"input":"a","encoding_format":"base64"}"#).unwrap();
        let body = base64.body("m", &[vec![0.5, -1.0]], 4);
        assert!(String::from_utf8(body).unwrap().contains(r#""embedding":"AAAAPwAAgL8=""#));
    }
}
