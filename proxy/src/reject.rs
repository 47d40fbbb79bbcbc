//! Every way the edge says no: one place turns reasons into statuses and bodies.

use std::time::Duration;

use http::StatusCode;
use nearhop_wire::{ApiError, ErrorKind};

/// Why a request gets no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Reject {
    /// The API key is missing or wrong.
    BadKey,
    /// Nothing is at that path.
    NotFound,
    /// The path takes another method.
    MethodNotAllowed { allowed: &'static str },
    /// It is no request of HTTP, or an ambiguous one.
    BadRequest,
    /// There are more headers than the limit.
    TooManyHeaders { limit: usize },
    /// The headers are over the limit, bytes.
    HeadersTooLarge { limit: usize },
    /// The body is over the limit.
    BodyTooLarge { limit: usize },
    /// The text of the request is over the limit.
    PromptTooLarge { limit: usize, bytes: usize },
    /// The body came too slowly.
    BodyTimeout { seconds: u64 },
    /// The body is not a request, or the pod said the same.
    Invalid(ApiError),
    /// The pod refused the request as the client's fault, with this status.
    ClientFault { status: StatusCode, error: ApiError },
    /// Too many requests are in progress.
    Overloaded,
    /// Every pod that could answer is busy.
    AllBusy { retry_after: Duration },
    /// No pod can be reached.
    NoPods,
    /// Every attempt failed.
    AllFailed,
    /// Time is up.
    Deadline,
}

impl Reject {
    pub(crate) fn status(&self) -> StatusCode {
        match self {
            Self::BadKey => StatusCode::UNAUTHORIZED,
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::MethodNotAllowed { .. } => StatusCode::METHOD_NOT_ALLOWED,
            Self::HeadersTooLarge { .. } | Self::TooManyHeaders { .. } => {
                StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE
            }
            Self::BodyTooLarge { .. } | Self::PromptTooLarge { .. } => {
                StatusCode::PAYLOAD_TOO_LARGE
            }
            Self::BodyTimeout { .. } => StatusCode::REQUEST_TIMEOUT,
            Self::Invalid(error) if error.code.as_deref() == Some("model_not_found") => {
                StatusCode::NOT_FOUND
            }
            Self::Invalid(_) | Self::BadRequest => StatusCode::BAD_REQUEST,
            Self::ClientFault { status, .. } => *status,
            Self::Overloaded | Self::AllBusy { .. } | Self::NoPods => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            Self::AllFailed => StatusCode::BAD_GATEWAY,
            Self::Deadline => StatusCode::GATEWAY_TIMEOUT,
        }
    }

    /// What the client is told. Nothing of it is internal: no address, no cause.
    pub(crate) fn error(&self) -> ApiError {
        use ErrorKind::{Authentication, InvalidRequest, Overloaded, Server};
        match self {
            Self::BadKey => ApiError::new(
                Authentication,
                "invalid_api_key",
                "the API key is missing or wrong; send it as `Authorization: Bearer KEY`",
            ),
            Self::NotFound => ApiError::new(
                InvalidRequest,
                "not_found",
                "no such path; /v1/completions, /v1/chat/completions and /v1/models are here",
            ),
            Self::MethodNotAllowed { allowed } => ApiError::new(
                InvalidRequest,
                "method_not_allowed",
                format!("this path takes {allowed}"),
            ),
            Self::BadRequest => ApiError::new(
                InvalidRequest,
                "bad_request",
                "this is no HTTP request that can be read in one way only; the connection is closed",
            ),
            Self::TooManyHeaders { limit } => ApiError::new(
                InvalidRequest,
                "headers_too_many",
                format!("there are over {limit} headers"),
            ),
            Self::HeadersTooLarge { limit } => ApiError::new(
                InvalidRequest,
                "headers_too_large",
                format!("the headers are over {limit} bytes"),
            ),
            Self::BodyTooLarge { limit } => ApiError::new(
                InvalidRequest,
                "body_too_large",
                format!("the body is over {limit} bytes; send less context"),
            ),
            Self::PromptTooLarge { limit, bytes } => ApiError::new(
                InvalidRequest,
                "prompt_too_large",
                format!("the request's text has {bytes} bytes, over {limit}; send less context"),
            )
            .about("prompt"),
            Self::BodyTimeout { seconds } => ApiError::new(
                InvalidRequest,
                "body_timeout",
                format!("the body did not arrive within {seconds} s"),
            ),
            Self::Invalid(error) | Self::ClientFault { error, .. } => error.clone(),
            Self::Overloaded => ApiError::new(
                Overloaded,
                "overloaded",
                "too many requests are in progress; try again shortly",
            ),
            Self::AllBusy { .. } => ApiError::new(
                Overloaded,
                "pods_busy",
                "every inference pod is busy; try again shortly",
            ),
            Self::NoPods => ApiError::new(
                Server,
                "no_pods",
                "no inference pod can be reached at the moment; try again shortly",
            ),
            Self::AllFailed => ApiError::new(
                Server,
                "upstream_failed",
                "no inference pod could finish this request",
            ),
            Self::Deadline => ApiError::new(
                Server,
                "deadline_exceeded",
                "the answer was not there within the request's deadline",
            ),
        }
    }

    /// When to come back, whole seconds: with every 429 and 503.
    pub(crate) fn retry_after(&self) -> Option<u64> {
        match self {
            Self::AllBusy { retry_after } => Some(retry_after.as_secs().max(1)),
            Self::Overloaded | Self::NoPods => Some(1),
            Self::ClientFault { status, .. } if *status == StatusCode::TOO_MANY_REQUESTS => Some(1),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all() -> Vec<Reject> {
        let second = Duration::from_secs(1);
        let error = ApiError::invalid("n", "n must be less");
        vec![
            Reject::BadKey,
            Reject::NotFound,
            Reject::MethodNotAllowed { allowed: "POST" },
            Reject::BadRequest,
            Reject::TooManyHeaders { limit: 1 },
            Reject::HeadersTooLarge { limit: 1 },
            Reject::BodyTooLarge { limit: 1 },
            Reject::PromptTooLarge { limit: 1, bytes: 2 },
            Reject::BodyTimeout { seconds: 1 },
            Reject::Invalid(error.clone()),
            Reject::Invalid(ApiError::unknown_model("x", &["m"])),
            Reject::ClientFault { status: StatusCode::TOO_MANY_REQUESTS, error },
            Reject::Overloaded,
            Reject::AllBusy { retry_after: second },
            Reject::NoPods,
            Reject::AllFailed,
            Reject::Deadline,
        ]
    }

    #[test]
    fn each_429_and_503_says_when_to_come_back() {
        for reject in all() {
            let busy = [StatusCode::TOO_MANY_REQUESTS, StatusCode::SERVICE_UNAVAILABLE];
            assert_eq!(
                busy.contains(&reject.status()),
                reject.retry_after().is_some(),
                "{reject:?}"
            );
        }
    }

    #[test]
    fn only_a_bad_key_is_401() {
        for reject in all() {
            assert_eq!(reject == Reject::BadKey, reject.status() == StatusCode::UNAUTHORIZED);
        }
    }

    #[test]
    fn an_unknown_model_is_404() {
        let reject = Reject::Invalid(ApiError::unknown_model("gpt", &["m"]));
        assert_eq!(reject.status(), StatusCode::NOT_FOUND);
        assert!(reject.error().message.contains('m'));
    }
}
