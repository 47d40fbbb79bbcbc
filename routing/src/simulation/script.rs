//! How an upstream is at a moment: what its checks find, and what becomes of a request there.

use crate::{Class, Evidence, Tried};

/// What an upstream is like.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Condition {
    Well,
    /// So many times slower; checks pass.
    Slow(f64),
    /// It takes connections and says nothing.
    Hanging,
    /// It says something all the time, and never what was asked for.
    Dripping,
    /// Nobody listens, and what ran is gone.
    Refusing,
    /// Every connection breaks.
    Resetting,
    /// This share of requests fails; checks pass.
    Failing(f64),
    /// It refuses all as busy.
    Busy,
    /// This share of requests is the client's fault.
    Storm(f64),
    /// It refuses our credentials.
    Misconfigured,
    /// It serves, and its checks fail.
    Deaf,
    /// Its checks pass, and requests hear nothing.
    Mute,
    /// Its checks pass, and requests break.
    Cutting,
}

/// What a check finds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Checked {
    Passes,
    Fails,
    TimesOut,
}

/// What becomes of a request.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Fate {
    /// It is answered, so many times slower.
    Answered(f64),
    Silent,
    Ends(End),
}

impl Condition {
    pub(super) const fn check(self) -> Checked {
        match self {
            Self::Refusing | Self::Resetting => Checked::Fails,
            Self::Hanging | Self::Dripping | Self::Deaf => Checked::TimesOut,
            _ => Checked::Passes,
        }
    }

    pub(super) fn fate(self, class: Class, dice: &mut fastrand::Rng) -> Fate {
        match self {
            Self::Well | Self::Deaf => Fate::Answered(1.0),
            Self::Slow(times) => Fate::Answered(times),
            Self::Hanging | Self::Dripping | Self::Mute => Fate::Silent,
            Self::Refusing => Fate::Ends(End::Connection),
            Self::Resetting | Self::Cutting => Fate::Ends(End::Reset),
            Self::Busy => Fate::Ends(End::Busy),
            Self::Misconfigured => Fate::Ends(End::Credentials),
            Self::Failing(share) if dice.f64() < share => Fate::Ends(End::ServerError),
            // What a provider refuses, our own may take.
            Self::Storm(share) if dice.f64() < share => match class {
                Class::Provider => Fate::Ends(End::Unfit),
                _ => Fate::Ends(End::ClientFault),
            },
            Self::Failing(_) | Self::Storm(_) => Fate::Answered(1.0),
        }
    }

    /// Whether a request that waits there hears something all the same.
    pub(super) const fn babbles(self) -> bool {
        matches!(self, Self::Dripping)
    }

    /// Whether it may say that nobody is there, or that we ask wrongly: that opens at once.
    pub(super) const fn is_hard(self) -> bool {
        matches!(self, Self::Refusing | Self::Resetting | Self::Cutting | Self::Misconfigured)
    }

    pub(super) fn any(dice: &mut fastrand::Rng) -> Self {
        match dice.u8(..14) {
            0 | 1 => Self::Well,
            2 => Self::Slow(1.5 + 18.0 * dice.f64()),
            3 => Self::Hanging,
            4 => Self::Dripping,
            5 => Self::Refusing,
            6 => Self::Resetting,
            7 => Self::Failing(dice.f64()),
            8 => Self::Busy,
            9 => Self::Storm(dice.f64()),
            10 => Self::Misconfigured,
            11 => Self::Deaf,
            12 => Self::Mute,
            _ => Self::Cutting,
        }
    }
}

/// How an attempt ends, as the proxy tells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    Done,
    ClientFault,
    Busy,
    Connection,
    /// Not for this request.
    Unfit,
    Credentials,
    Reset,
    /// No content in time, or content that stopped.
    TimedOut,
    ServerError,
    /// It was taken out meanwhile.
    Ejected,
    /// The request's own time was over.
    OutOfTime,
    /// Another was faster.
    Abandoned,
}

impl End {
    pub(super) const fn evidence(self) -> Evidence {
        match self {
            Self::Done => Evidence::Good,
            Self::Connection | Self::Reset => Evidence::Dead,
            Self::Credentials => Evidence::Misconfigured,
            Self::TimedOut => Evidence::Slow,
            Self::ServerError => Evidence::Failure,
            Self::ClientFault
            | Self::Busy
            | Self::Unfit
            | Self::Ejected
            | Self::OutOfTime
            | Self::Abandoned => Evidence::Neutral,
        }
    }

    pub(super) const fn tried(self) -> Tried {
        match self {
            Self::Busy | Self::Connection | Self::Unfit | Self::Credentials => Tried::Refused,
            _ => Tried::Lost,
        }
    }
}
