//! Why nothing is known.

/// Why a question has no answer. None of these says that there is nothing: that is an answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Trouble {
    /// Nobody can be asked for it.
    #[error("{0:?} is no domain name")]
    NotAName(String),
    /// In time.
    #[error("no name server answers for {0}")]
    Silent(String),
    /// SERVFAIL, REFUSED and their like.
    #[error("the name server says {code} for {name}")]
    Refused {
        /// What was asked for.
        name: String,
        /// The response code, in words.
        code: String,
    },
    /// There is no way to it, or it is not running.
    #[error("the name server cannot be asked for {name}: {reason}")]
    Unreachable {
        /// What was asked for.
        name: String,
        /// What the operating system said.
        reason: String,
    },
    /// More links than anybody needs, or a circle.
    #[error("{0} is an alias of an alias, and so on without an end")]
    Aliases(String),
}
