//! What an attempt's end means: one exhaustive type, so that no error is retried, shown or held
//! against an upstream by accident.

use std::time::Duration;

use http::StatusCode;
use nearhop_routing::{Class, Evidence};
use nearhop_wire::ApiError;

/// How an attempt on an upstream ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The answer is complete.
    Done,
    /// The client must change the request.
    ClientFault { status: StatusCode, error: ApiError },
    /// It refused before any work.
    Refused(Refused),
    /// We asked the wrong one, or asked it wrongly.
    OurFault(OurFault),
    /// It failed.
    Failed(Failed),
    /// Nobody waits for it any more: the client went away, or another attempt was faster. Says
    /// nothing of the upstream.
    Abandoned,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Refused {
    /// 429, or 503 that says when to come back: its queue is full, or it is stopping.
    Busy { retry_after: Duration },
    /// Nobody listens there.
    Connection,
    /// Not for this request: another region may not see its tenant's, or serves something else
    /// meanwhile; a provider does not take it as it is.
    Unfit,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OurFault {
    /// 401, 402 or 403.
    Credentials,
    /// Its certificate is not one that we believe, or ours none that it does.
    Certificate,
    /// 404: it does not serve that model, or not that path.
    UnknownModel,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Failed {
    /// The connection could not be opened in time.
    ConnectTimeout,
    /// The connection broke.
    Reset,
    /// No content in time.
    FirstByteTimeout,
    /// Content began and stopped.
    TokenTimeout,
    /// 5xx, or an error event in the stream.
    ServerError,
    /// A provider's 402 to 405.
    Forbidden,
    /// What came is not an answer.
    Garbage,
    /// It was taken out while this attempt waited.
    Ejected,
    /// The request's own time ran out, or was too short to blame anybody.
    OutOfTime,
}

/// What to do after an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Then {
    /// The request is answered, or nobody listens.
    Stop,
    /// Tell the client.
    Tell,
    /// Try the next candidate.
    Next,
}

impl Outcome {
    /// A time-out that the request's own deadline caused says nothing of the pod. `own` is whether
    /// it did.
    pub(crate) fn excused(self, own: bool) -> Self {
        match self {
            Self::Failed(
                Failed::ConnectTimeout | Failed::FirstByteTimeout | Failed::TokenTimeout,
            ) if own => Self::Failed(Failed::OutOfTime),
            outcome => outcome,
        }
    }

    pub(crate) fn then(&self) -> Then {
        match self {
            Self::Done | Self::Abandoned => Then::Stop,
            Self::ClientFault { .. } => Then::Tell,
            Self::Refused(_) | Self::OurFault(_) | Self::Failed(_) => Then::Next,
        }
    }

    /// What it says of its upstream.
    pub(crate) fn evidence(&self) -> Evidence {
        match self {
            Self::Done => Evidence::Good,
            Self::ClientFault { .. } | Self::Abandoned => Evidence::Neutral,
            Self::Refused(Refused::Busy { .. } | Refused::Unfit) => Evidence::Neutral,
            Self::Refused(Refused::Connection) => Evidence::Dead,
            Self::OurFault(_) => Evidence::Misconfigured,
            Self::Failed(failed) => match failed {
                Failed::Reset => Evidence::Dead,
                Failed::ConnectTimeout | Failed::FirstByteTimeout | Failed::TokenTimeout => {
                    Evidence::Slow
                }
                Failed::ServerError | Failed::Forbidden | Failed::Garbage => Evidence::Failure,
                // Whoever ejected it has said so already.
                Failed::Ejected => Evidence::Neutral,
                // Or a client could take pods out by asking for a millisecond.
                Failed::OutOfTime => Evidence::Neutral,
            },
        }
    }

    /// For metrics and logs.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::ClientFault { .. } => "client_fault",
            Self::Refused(Refused::Busy { .. }) => "busy",
            Self::Refused(Refused::Connection) => "refused",
            Self::Refused(Refused::Unfit) => "unfit",
            Self::OurFault(OurFault::Credentials) => "our_credentials",
            Self::OurFault(OurFault::Certificate) => "our_certificate",
            Self::OurFault(OurFault::UnknownModel) => "our_unknown_model",
            Self::Failed(Failed::ConnectTimeout) => "connect_timeout",
            Self::Failed(Failed::Reset) => "reset",
            Self::Failed(Failed::FirstByteTimeout) => "first_byte_timeout",
            Self::Failed(Failed::TokenTimeout) => "token_timeout",
            Self::Failed(Failed::ServerError) => "server_error",
            Self::Failed(Failed::Forbidden) => "forbidden",
            Self::Failed(Failed::Garbage) => "garbage",
            Self::Failed(Failed::Ejected) => "ejected",
            Self::Failed(Failed::OutOfTime) => "out_of_time",
            Self::Abandoned => "abandoned",
        }
    }

    /// What a status other than 200 of an upstream of that class means. `error` is its body, where
    /// it is an API's error.
    pub(crate) fn of_status(
        class: Class,
        status: StatusCode,
        error: Option<ApiError>,
        retry_after: Option<Duration>,
    ) -> Self {
        let busy = |retry_after| Self::Refused(Refused::Busy { retry_after });
        let code = error.as_ref().and_then(|error| error.code.as_deref());
        match (status.as_u16(), class) {
            // Its pods failed or are gone, which is no queue: who sends on is not to be told that all
            // are busy, nor to ask there again and again.
            (503, Class::Region) if matches!(code, Some("no_pods" | "upstream_failed")) => {
                Self::Failed(Failed::ServerError)
            }
            (429, _) => busy(retry_after.unwrap_or(Duration::from_secs(1))),
            (503, _) if retry_after.is_some() => busy(retry_after.unwrap_or_default()),
            (403, Class::Region)
                if matches!(code, Some("region_not_allowed" | "unknown_tenant")) =>
            {
                Self::Refused(Refused::Unfit)
            }
            (404 | 413, Class::Region) => Self::Refused(Refused::Unfit),
            // One request of many may be forbidden there, or be for a model that it names otherwise:
            // that is no reason never to ask it again.
            (402..=405, Class::Provider) => Self::Failed(Failed::Forbidden),
            (401..=403, _) => Self::OurFault(OurFault::Credentials),
            (404 | 405, _) => Self::OurFault(OurFault::UnknownModel),
            // The request's deadline, handed on, passed there first.
            (504, Class::Pod | Class::Region | Class::Local) => Self::Failed(Failed::OutOfTime),
            // What we sent did not arrive there.
            (408, _) => Self::Failed(Failed::ServerError),
            (400 | 413 | 422, Class::Pod | Class::Region | Class::Local) => match error {
                Some(error) => Self::ClientFault { status, error },
                None => Self::Failed(Failed::Garbage),
            },
            // A provider knows neither our bodies nor our limits: what it refuses, our own pods may
            // take. And a pod that cannot go on with an answer may give one.
            (400..=499, _) if error.is_some() || class == Class::Provider => {
                Self::Refused(Refused::Unfit)
            }
            (400..=499, _) => Self::Failed(Failed::Garbage),
            _ => Self::Failed(Failed::ServerError),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(class: Class, status: u16, then: Then, evidence: Evidence) {
        let error = ApiError::invalid("n", "n");
        let status = StatusCode::from_u16(status).unwrap();
        let later = (status == 503).then_some(Duration::from_secs(1));
        let outcome = Outcome::of_status(class, status, Some(error), later);
        assert_eq!((outcome.then(), outcome.evidence()), (then, evidence), "{class:?} {status}");
    }

    #[test]
    fn the_outcome_table_of_the_design() {
        for class in [Class::Pod, Class::Region, Class::Local] {
            check(class, 400, Then::Tell, Evidence::Neutral);
            check(class, 422, Then::Tell, Evidence::Neutral);
            check(class, 408, Then::Next, Evidence::Failure);
            check(class, 409, Then::Next, Evidence::Neutral);
            check(class, 504, Then::Next, Evidence::Neutral);
        }
        check(Class::Pod, 413, Then::Tell, Evidence::Neutral);
        check(Class::Region, 413, Then::Next, Evidence::Neutral);
        for class in [Class::Pod, Class::Region, Class::Provider, Class::Local] {
            check(class, 429, Then::Next, Evidence::Neutral);
            check(class, 503, Then::Next, Evidence::Neutral);
            check(class, 401, Then::Next, Evidence::Misconfigured);
            check(class, 500, Then::Next, Evidence::Failure);
            check(class, 502, Then::Next, Evidence::Failure);
            check(class, 302, Then::Next, Evidence::Failure);
        }
        check(Class::Pod, 403, Then::Next, Evidence::Misconfigured);
        check(Class::Pod, 404, Then::Next, Evidence::Misconfigured);
        for status in [402, 403, 404, 405] {
            check(Class::Provider, status, Then::Next, Evidence::Failure);
        }
        check(Class::Region, 404, Then::Next, Evidence::Neutral);
        check(Class::Provider, 504, Then::Next, Evidence::Failure);
        for status in [400, 413, 422] {
            check(Class::Provider, status, Then::Next, Evidence::Neutral);
        }
    }

    #[test]
    fn a_503_that_does_not_say_when_to_come_back_is_a_failure() {
        let outcome = Outcome::of_status(Class::Pod, StatusCode::SERVICE_UNAVAILABLE, None, None);
        assert_eq!(outcome.evidence(), Evidence::Failure);
    }

    #[test]
    fn a_region_that_may_not_see_a_tenant_is_well() {
        for code in ["region_not_allowed", "unknown_tenant"] {
            let error = ApiError::new(nearhop_wire::ErrorKind::Authentication, code, "no");
            let outcome =
                Outcome::of_status(Class::Region, StatusCode::FORBIDDEN, Some(error), None);
            assert_eq!((outcome.then(), outcome.evidence()), (Then::Next, Evidence::Neutral));
        }
    }

    #[test]
    fn a_region_whose_pods_fail_is_not_busy() {
        for (code, evidence) in [
            ("no_pods", Evidence::Failure),
            ("upstream_failed", Evidence::Failure),
            ("pods_busy", Evidence::Neutral),
            ("overloaded", Evidence::Neutral),
        ] {
            let error = ApiError::new(nearhop_wire::ErrorKind::Server, code, "no");
            let (status, later) = (StatusCode::SERVICE_UNAVAILABLE, Some(Duration::from_secs(1)));
            let outcome = Outcome::of_status(Class::Region, status, Some(error), later);
            assert_eq!((outcome.then(), outcome.evidence()), (Then::Next, evidence), "{code}");
        }
    }

    #[test]
    fn a_request_without_time_blames_nobody() {
        let late = Outcome::Failed(Failed::FirstByteTimeout);
        assert_eq!(late.clone().excused(true).evidence(), Evidence::Neutral);
        assert_eq!(late.excused(false).evidence(), Evidence::Slow);
        let reset = Outcome::Failed(Failed::Reset);
        assert_eq!(reset.clone().excused(true), reset);
    }

    #[test]
    fn a_4xx_that_is_not_ours_is_garbage_not_the_clients_fault() {
        let outcome = Outcome::of_status(Class::Pod, StatusCode::BAD_REQUEST, None, None);
        assert_eq!(outcome, Outcome::Failed(Failed::Garbage));
    }

    #[test]
    fn a_dead_connection_counts_at_once_and_the_client_never() {
        assert_eq!(Outcome::Refused(Refused::Connection).evidence(), Evidence::Dead);
        assert_eq!(Outcome::Failed(Failed::Reset).evidence(), Evidence::Dead);
        assert_eq!(Outcome::Failed(Failed::FirstByteTimeout).evidence(), Evidence::Slow);
        assert_eq!(Outcome::Abandoned.evidence(), Evidence::Neutral);
    }
}
