//! What became of one request.

use std::time::Duration;

use nearhop_conf::RequestKind;

/// How a request ended. Exactly one of them is true of each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Outcome {
    /// A whole answer.
    Answered,
    /// A 200 that says that nobody could answer (`x-nearhop-source: degraded`).
    Degraded,
    /// A 200 that says that a newer question of the same document made this one pointless.
    Superseded,
    /// The user typed on before the answer was there, and the editor gave it up.
    GivenUp,
    /// 429: a limit of the key or the tenant.
    Limited,
    /// 503: refused for now.
    Shed,
    /// Any other 4xx: something is wrong with the question, or the service thinks so.
    Refused,
    /// Any other status.
    Failed,
    /// No connection, or none that lived until the answer's header.
    Unreachable,
    /// No whole answer within the client's patience.
    TimedOut,
    /// An answer that began and did not end: the connection broke, an event said so, or nothing more
    /// came in time.
    BrokenOff,
    /// Bytes that are no answer.
    Garbled,
    /// Still in progress when the run was ended.
    Unfinished,
    /// Not sent: too many were in progress, or it was too late: the generator itself was the limit.
    NotSent,
}

impl Outcome {
    pub(crate) const ALL: [Self; 14] = [
        Self::Answered,
        Self::Degraded,
        Self::Superseded,
        Self::GivenUp,
        Self::Limited,
        Self::Shed,
        Self::Refused,
        Self::Failed,
        Self::Unreachable,
        Self::TimedOut,
        Self::BrokenOff,
        Self::Garbled,
        Self::Unfinished,
        Self::NotSent,
    ];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Answered => "answered",
            Self::Degraded => "degraded",
            Self::Superseded => "superseded",
            Self::GivenUp => "given_up",
            Self::Limited => "limited_429",
            Self::Shed => "shed_503",
            Self::Refused => "refused_4xx",
            Self::Failed => "failed_5xx",
            Self::Unreachable => "unreachable",
            Self::TimedOut => "timed_out",
            Self::BrokenOff => "broken_off",
            Self::Garbled => "garbled",
            Self::Unfinished => "unfinished",
            Self::NotSent => "not_sent",
        }
    }

    /// Whether the request counts: who types on does not want an answer any more.
    pub(crate) const fn counts(self) -> bool {
        !matches!(self, Self::Superseded | Self::GivenUp | Self::Unfinished | Self::NotSent)
    }

    /// Whether the client got no answer, of those that count. `Degraded` is one: it says what it is,
    /// and is counted beside.
    pub(crate) const fn is_error(self) -> bool {
        self.counts() && !matches!(self, Self::Answered | Self::Degraded)
    }

    /// Whether the service said no, in order: it must then say when to come back.
    pub(crate) const fn is_refusal(self) -> bool {
        matches!(self, Self::Limited | Self::Shed)
    }
}

/// Where an answer came from, as it says itself.
pub(crate) type Source = &'static str;

/// Sources that are counted apart; an answer of another kind of service names none.
const SOURCES: [Source; 13] = [
    "origin",
    "l1",
    "l1-typeahead",
    "joined",
    "l2",
    "l3",
    "region",
    "secondary",
    "self_hosted",
    "cache_fallback",
    "degraded",
    "superseded",
    UNNAMED,
];

/// The source of an answer that names none.
pub(crate) const UNNAMED: Source = "unnamed";

/// The known source of that name.
pub(crate) fn source(name: Option<&str>) -> Source {
    let known = |name| SOURCES.into_iter().find(|known| *known == name);
    name.and_then(known).unwrap_or(UNNAMED)
}

/// One request.
#[derive(Debug, Clone)]
pub(crate) struct Record {
    pub(crate) kind: RequestKind,
    pub(crate) region: usize,
    /// When it was due, from the start.
    pub(crate) due: Duration,
    /// How much later it was sent: the generator's own part.
    pub(crate) lag: Duration,
    /// From when it was due to its first content. Of who gave up, at least that long.
    pub(crate) first: Option<Duration>,
    /// From when it was due to its end.
    pub(crate) total: Duration,
    /// Between one piece of content and the next.
    pub(crate) gaps: Vec<Duration>,
    pub(crate) outcome: Outcome,
    pub(crate) source: Source,
    /// How far service was degraded, 0 to 4, where the answer says so; and when, from the start.
    pub(crate) level: Option<(Duration, u8)>,
    /// Whether a refusal says when to come back.
    pub(crate) retry_after: bool,
    /// Tokens read and written, as the answer says.
    pub(crate) usage: Option<(u64, u64)>,
}
