//! What an attempt's end means: one exhaustive type, so that no error is retried, shown or held
//! against a pod by accident.

use std::time::Duration;

use http::StatusCode;
use nearhop_wire::ApiError;

/// How an attempt on a pod ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The answer is complete.
    Done,
    /// The client must change the request.
    ClientFault { status: StatusCode, error: ApiError },
    /// The pod refused before any work.
    Refused(Refused),
    /// We asked the wrong pod, or asked it wrongly.
    OurFault(OurFault),
    /// The pod failed.
    Failed(Failed),
    /// The client went away; says nothing of the pod.
    Abandoned,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Refused {
    /// 429 or 503: its queue is full, or it is stopping.
    Busy { retry_after: Duration },
    /// Nobody listens there.
    Connection,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OurFault {
    /// 401 or 403.
    Credentials,
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
    /// What came is not an answer.
    Garbage,
    /// The pod was ejected while this attempt waited.
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

/// What an attempt says of its pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Evidence {
    /// It works.
    Good,
    /// Nothing.
    Neutral,
    /// Out at once.
    Dead,
    /// Out when it repeats.
    Slow,
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

    pub(crate) fn evidence(&self) -> Evidence {
        match self {
            Self::Done => Evidence::Good,
            Self::ClientFault { .. } | Self::Abandoned => Evidence::Neutral,
            Self::Refused(Refused::Busy { .. }) => Evidence::Neutral,
            Self::Refused(Refused::Connection) => Evidence::Dead,
            Self::OurFault(_) => Evidence::Dead,
            Self::Failed(failed) => match failed {
                Failed::Reset => Evidence::Dead,
                Failed::ConnectTimeout | Failed::FirstByteTimeout | Failed::TokenTimeout => {
                    Evidence::Slow
                }
                Failed::ServerError | Failed::Garbage => Evidence::Slow,
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
            Self::OurFault(OurFault::Credentials) => "our_credentials",
            Self::OurFault(OurFault::UnknownModel) => "our_unknown_model",
            Self::Failed(Failed::ConnectTimeout) => "connect_timeout",
            Self::Failed(Failed::Reset) => "reset",
            Self::Failed(Failed::FirstByteTimeout) => "first_byte_timeout",
            Self::Failed(Failed::TokenTimeout) => "token_timeout",
            Self::Failed(Failed::ServerError) => "server_error",
            Self::Failed(Failed::Garbage) => "garbage",
            Self::Failed(Failed::Ejected) => "ejected",
            Self::Failed(Failed::OutOfTime) => "out_of_time",
            Self::Abandoned => "abandoned",
        }
    }

    /// What a pod's status other than 200 means. `error` is its body, where it is one of ours.
    pub(crate) fn of_status(
        status: StatusCode,
        error: Option<ApiError>,
        retry_after: Option<Duration>,
    ) -> Self {
        match status.as_u16() {
            429 | 503 => Self::Refused(Refused::Busy {
                retry_after: retry_after.unwrap_or(Duration::from_secs(1)),
            }),
            401 | 403 => Self::OurFault(OurFault::Credentials),
            404 | 405 => Self::OurFault(OurFault::UnknownModel),
            // The request's deadline, handed on to the pod, passed there first.
            504 => Self::Failed(Failed::OutOfTime),
            400..=499 => match error {
                Some(error) => Self::ClientFault { status, error },
                None => Self::Failed(Failed::Garbage),
            },
            _ => Self::Failed(Failed::ServerError),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(status: u16, then: Then, evidence: Evidence) {
        let error = ApiError::invalid("n", "n");
        let status = StatusCode::from_u16(status).unwrap();
        let outcome = Outcome::of_status(status, Some(error), None);
        assert_eq!((outcome.then(), outcome.evidence()), (then, evidence), "{status}");
    }

    #[test]
    fn the_outcome_table_of_the_design() {
        check(400, Then::Tell, Evidence::Neutral);
        check(413, Then::Tell, Evidence::Neutral);
        check(422, Then::Tell, Evidence::Neutral);
        check(429, Then::Next, Evidence::Neutral);
        check(503, Then::Next, Evidence::Neutral);
        check(401, Then::Next, Evidence::Dead);
        check(403, Then::Next, Evidence::Dead);
        check(404, Then::Next, Evidence::Dead);
        check(500, Then::Next, Evidence::Slow);
        check(502, Then::Next, Evidence::Slow);
        check(302, Then::Next, Evidence::Slow);
        check(504, Then::Next, Evidence::Neutral);
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
        let outcome = Outcome::of_status(StatusCode::BAD_REQUEST, None, None);
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
