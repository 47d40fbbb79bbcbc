//! The one error shape: `{"error":{"message","type","param","code"}}`.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// The `type` of an error, as OpenAI's SDKs know them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorKind {
    /// The client must change the request.
    #[serde(rename = "invalid_request_error")]
    InvalidRequest,
    /// The API key is missing, wrong or revoked.
    #[serde(rename = "authentication_error")]
    Authentication,
    /// The client asked too much at once.
    #[serde(rename = "rate_limit_error")]
    RateLimit,
    /// Too much for the service at the moment; the same request may succeed later.
    #[serde(rename = "overloaded_error")]
    Overloaded,
    /// Our fault.
    #[serde(rename = "server_error")]
    Server,
}

/// An error as it is sent to a client.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct ApiError {
    /// What is wrong and what to do; never anything internal.
    pub message: String,
    /// Its family.
    #[serde(rename = "type")]
    pub kind: ErrorKind,
    /// The request's field that it is about.
    pub param: Option<String>,
    /// A stable word for programs, such as `model_not_found`.
    pub code: Option<String>,
}

#[derive(Serialize)]
struct Envelope<'a> {
    error: &'a ApiError,
}

#[derive(Deserialize)]
struct OwnedEnvelope {
    error: ApiError,
}

impl ApiError {
    /// An error of that family and stable code.
    pub fn new(kind: ErrorKind, code: &str, message: impl Into<String>) -> Self {
        Self { message: message.into(), kind, param: None, code: Some(code.to_owned()) }
    }

    /// The client's mistake in the field `param`.
    pub fn invalid(param: &str, message: impl Into<String>) -> Self {
        Self::new(ErrorKind::InvalidRequest, "invalid_value", message).about(param)
    }

    /// Names the request's field that it is about.
    #[must_use]
    pub fn about(mut self, param: &str) -> Self {
        self.param = Some(param.to_owned());
        self
    }

    /// The JSON body.
    #[must_use]
    pub fn body(&self) -> Bytes {
        let envelope = Envelope { error: self };
        serde_json::to_vec(&envelope).expect("strings and enums always serialise").into()
    }

    /// An error body back to the error; `None` where it is not one.
    #[must_use]
    pub fn parse(body: &[u8]) -> Option<Self> {
        serde_json::from_slice::<OwnedEnvelope>(body).ok().map(|envelope| envelope.error)
    }

    /// The error as the last event of a stream. No `[DONE]` follows it.
    #[must_use]
    pub fn event(&self) -> Bytes {
        let body = self.body();
        [b"event: error\ndata: ", body.as_ref(), b"\n\n"].concat().into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_has_all_four_fields_and_reads_back() {
        let error = ApiError::invalid("temperature", "temperature must be between 0 and 2");
        let body = error.body();
        assert_eq!(
            std::str::from_utf8(&body).unwrap(),
            r#"{"error":{"message":"temperature must be between 0 and 2","type":"invalid_request_error","param":"temperature","code":"invalid_value"}}"#
        );
        assert_eq!(ApiError::parse(&body), Some(error));
        assert_eq!(ApiError::parse(b"<html>"), None);
    }
}
