//! Every way the edge says no: one place turns reasons into statuses and bodies.

use std::time::Duration;

use http::StatusCode;
use nearhop_admission::{Limited, NoPlace, What};
use nearhop_conf::Scope;
use nearhop_wire::{ApiError, ErrorKind, Kind};

/// Why a request gets no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Reject {
    /// The API key or token is missing or wrong.
    BadKey,
    /// It has expired.
    ExpiredKey,
    /// The credential's tenant is not among ours.
    UnknownTenant,
    /// The credential is not for requests of this kind.
    Scope { needed: Scope },
    /// The tenant's requests may not be answered in this region.
    Region,
    /// Whether the token holds cannot be known: its issuer's keys could not be had yet.
    IssuerUnavailable,
    /// A limit of the key or the tenant is used up.
    Limited(Limited),
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
    /// Too many requests are in progress; when it may be better.
    Overloaded { retry_after: Duration },
    /// Every pod that could answer is busy.
    AllBusy { retry_after: Duration },
    /// Nobody can be reached who could answer.
    NoPods,
    /// Every attempt failed.
    AllFailed,
    /// Time is up.
    Deadline,
}

impl From<NoPlace> for Reject {
    fn from(none: NoPlace) -> Self {
        match none {
            NoPlace::Full { retry_after } => Self::Overloaded { retry_after },
            NoPlace::Late => Self::Deadline,
        }
    }
}

/// When to come back where nothing better is known.
const SOON: Duration = Duration::from_secs(1);

impl Reject {
    /// Too much was asked at once, nobody knows for how long.
    pub(crate) const fn overloaded() -> Self {
        Self::Overloaded { retry_after: SOON }
    }

    /// Whether more was asked at once than can be done.
    pub(crate) fn is_shed(&self) -> bool {
        matches!(self, Self::Overloaded { .. } | Self::AllBusy { .. })
    }

    pub(crate) fn status(&self) -> StatusCode {
        match self {
            Self::BadKey | Self::ExpiredKey => StatusCode::UNAUTHORIZED,
            Self::UnknownTenant | Self::Scope { .. } | Self::Region => StatusCode::FORBIDDEN,
            Self::Limited(limited) if limited.what == What::Request => {
                StatusCode::PAYLOAD_TOO_LARGE
            }
            Self::Limited(_) => StatusCode::TOO_MANY_REQUESTS,
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
            Self::IssuerUnavailable
            | Self::Overloaded { .. }
            | Self::AllBusy { .. }
            | Self::NoPods
            | Self::AllFailed => StatusCode::SERVICE_UNAVAILABLE,
            Self::Deadline => StatusCode::GATEWAY_TIMEOUT,
        }
    }

    /// What the client is told. Nothing of it is internal: no address, no cause.
    pub(crate) fn error(&self) -> ApiError {
        use ErrorKind::{Authentication, InvalidRequest, Overloaded, RateLimit, Server};
        match self {
            Self::ExpiredKey => ApiError::new(
                Authentication,
                "expired_api_key",
                "the API key or token has expired; ask your operator for another",
            ),
            Self::UnknownTenant => ApiError::new(
                Authentication,
                "unknown_tenant",
                "the credential is good, and its tenant is not served here",
            ),
            Self::Scope { needed } => ApiError::new(
                Authentication,
                "insufficient_scope",
                format!("the credential is not for this; it needs the scope `{}`", needed.name()),
            ),
            Self::Region => ApiError::new(
                Authentication,
                "region_not_allowed",
                "your tenant's requests may not be answered in this region",
            ),
            Self::IssuerUnavailable => ApiError::new(
                Server,
                "issuer_unavailable",
                "tokens cannot be checked at the moment; try again shortly",
            ),
            Self::Limited(limited) => {
                let whose = if limited.of_key { "this key" } else { "your tenant" };
                let (kind, code, what) = match limited.what {
                    What::Requests => (RateLimit, "rate_limit_exceeded", "requests a minute are"),
                    What::Tokens => (RateLimit, "rate_limit_exceeded", "tokens a minute are"),
                    What::Concurrency => (RateLimit, "rate_limit_exceeded", "requests at once are"),
                    What::Month => (RateLimit, "insufficient_quota", "tokens of the month are"),
                    What::Request => {
                        let message = format!(
                            "the request may use more tokens than {whose} has in a minute; send less context or a lower max_tokens"
                        );
                        return ApiError::new(InvalidRequest, "tokens_over_limit", message);
                    }
                };
                ApiError::new(kind, code, format!("the {what} used up for {whose}"))
            }
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
            Self::Overloaded { .. } => ApiError::new(
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
            Self::AllBusy { retry_after } | Self::Overloaded { retry_after } => {
                // Rounded up: a moment too early would be refused again.
                let seconds = retry_after.as_millis().div_ceil(1000);
                Some(u64::try_from(seconds).unwrap_or(u64::MAX).clamp(1, 3600))
            }
            Self::Limited(limited) if limited.what != What::Request => {
                // Rounded up: a moment too early would be refused again.
                Some(
                    limited
                        .retry_after
                        .as_millis()
                        .div_ceil(1000)
                        .try_into()
                        .unwrap_or(u64::MAX)
                        .max(1),
                )
            }
            Self::NoPods | Self::AllFailed | Self::IssuerUnavailable => Some(1),
            Self::ClientFault { status, .. } if *status == StatusCode::TOO_MANY_REQUESTS => Some(1),
            _ => None,
        }
    }
}

impl Reject {
    /// Whether a client that tries again by itself can only hurt: SDKs do so twice on every 429
    /// and 5xx, unless `x-should-retry` says no.
    pub(crate) fn retry_hurts(&self, kind: Option<Kind>) -> bool {
        match self {
            Self::Limited(limited) => matches!(limited.what, What::Month | What::Request),
            // Nobody waits any more for code that was not there in time.
            Self::Deadline => kind.is_some_and(Kind::is_code),
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use nearhop_admission::Standing;

    use super::*;

    fn limited(what: What) -> Reject {
        Reject::Limited(Limited {
            what,
            of_key: true,
            retry_after: Duration::from_millis(1500),
            standing: Standing::default(),
        })
    }

    fn all() -> Vec<Reject> {
        let second = Duration::from_secs(1);
        let error = ApiError::invalid("n", "n must be less");
        vec![
            Reject::BadKey,
            Reject::ExpiredKey,
            Reject::UnknownTenant,
            Reject::Scope { needed: Scope::Chat },
            Reject::Region,
            Reject::IssuerUnavailable,
            limited(What::Requests),
            limited(What::Tokens),
            limited(What::Concurrency),
            limited(What::Month),
            limited(What::Request),
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
            Reject::Overloaded { retry_after: second },
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
            let bad = matches!(reject, Reject::BadKey | Reject::ExpiredKey);
            assert_eq!(bad, reject.status() == StatusCode::UNAUTHORIZED, "{reject:?}");
        }
    }

    #[test]
    fn a_retry_is_asked_for_only_where_it_can_help() {
        assert_eq!(limited(What::Requests).retry_after(), Some(2), "rounded up");
        assert!(limited(What::Month).retry_hurts(None));
        assert!(!limited(What::Tokens).retry_hurts(None));
        assert!(Reject::Deadline.retry_hurts(Some(Kind::Fim)));
        assert!(!Reject::Deadline.retry_hurts(Some(Kind::Chat)));
        let shed = Reject::Overloaded { retry_after: Duration::from_millis(1200) };
        assert!(!shed.retry_hurts(Some(Kind::Fim)));
        assert_eq!(shed.retry_after(), Some(2));
    }

    #[test]
    fn an_unknown_model_is_404() {
        let reject = Reject::Invalid(ApiError::unknown_model("gpt", &["m"]));
        assert_eq!(reject.status(), StatusCode::NOT_FOUND);
        assert!(reject.error().message.contains('m'));
    }
}
