//! The names of what a plan says. Closed sets: a new reason is a new line here, and in every match.

use crate::Reason;

/// A step of what is tried, the best first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Rung {
    /// Own pods.
    Pods,
    /// Other regions.
    Regions,
    /// The backup model, on own pods or in other regions.
    Backup,
    /// Providers.
    Providers,
    /// The edge's own small model.
    Local,
}

impl Rung {
    /// Its name in explanations.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pods => "pods",
            Self::Regions => "regions",
            Self::Backup => "backup",
            Self::Providers => "providers",
            Self::Local => "local",
        }
    }
}

/// Why an upstream stands where it does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// The only pod left that is ready.
    OnlyReady,
    /// The less loaded of two drawn.
    LessLoaded,
    /// It has the prompt's beginning.
    Prefix,
    /// Behind the pod that was chosen, by load.
    Load,
    /// It was out, and a request finds out whether it still is.
    Probe,
    /// The nearest region.
    Nearest,
    /// The nearest of those left.
    NextNearest,
    /// Providers' priority.
    Priority,
    /// The edge's own model, when nobody else is left.
    Local,
    /// None is left, and this one may do better the second time.
    Again,
    /// None is ready, and trying beats refusing.
    LastResort,
}

impl Why {
    /// Its name in explanations.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::OnlyReady => "only ready",
            Self::LessLoaded => "less loaded",
            Self::Prefix => "prefix",
            Self::Load => "load",
            Self::Probe => "probe",
            Self::Nearest => "nearest",
            Self::NextNearest => "next nearest",
            Self::Priority => "priority",
            Self::Local => "local",
            Self::Again => "again",
            Self::LastResort => "last resort",
        }
    }
}

/// Why an upstream is not in the plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LeftOut {
    /// It is out.
    Out(Reason),
    /// It is tried again, by as many as may.
    Full,
    /// The request may not go there.
    NotAllowed,
    /// It serves other models, or this one at another revision.
    OtherModel,
    /// What it serves is not known yet.
    Unknown,
    /// It does not take this kind of request.
    Kind,
    /// It is given no tools.
    Tools,
    /// A quorum sees that region down.
    RegionDown,
    /// Its rate limit says to wait.
    RateLimited,
    /// An attempt was lost there.
    Lost,
    /// It refused this request.
    Refused,
    /// Service is so far degraded that this kind is shed.
    Level,
    /// The request came from another region, and goes no further.
    Hop,
    /// A stream that has begun goes on with the same revision or not at all.
    Resuming,
}

impl LeftOut {
    /// Its name in explanations.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Out(_) => "out",
            Self::Full => "full",
            Self::NotAllowed => "not allowed",
            Self::OtherModel => "other model",
            Self::Unknown => "unknown",
            Self::Kind => "kind",
            Self::Tools => "tools",
            Self::RegionDown => "region down",
            Self::RateLimited => "rate limited",
            Self::Lost => "lost",
            Self::Refused => "refused",
            Self::Level => "level",
            Self::Hop => "hop",
            Self::Resuming => "resuming",
        }
    }
}
