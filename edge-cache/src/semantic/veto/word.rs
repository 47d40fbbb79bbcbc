//! A word of a question, as it is written.

/// One word. Several may be of one place of the text, as `don't` has two.
#[derive(Debug, Clone)]
pub(super) struct Word<'t> {
    /// The piece of the text.
    pub(super) text: &'t str,
    /// In lower case, but for what is case-sensitive.
    pub(super) form: String,
    pub(super) sort: Sort,
    /// Whether it stands in quotes or backticks, or is a word of some language in capitals.
    pub(super) literal: bool,
    /// Whether it stands in backticks.
    pub(super) ticked: bool,
    /// Its own marks, quotes and case with it, where the chunk is one word.
    pub(super) dressed: String,
    /// Its capitals, as far as they mean something.
    pub(super) case: Case,
    /// Whether it begins with a capital.
    pub(super) capital: bool,
    /// Whether a sentence begins with it.
    pub(super) begins: bool,
    /// What follows it.
    pub(super) pause: Pause,
}

/// What a word is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sort {
    /// Letters.
    Plain,
    /// Digits.
    Number,
    /// Anything else.
    Identifier,
}

/// What follows a word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Pause {
    /// The next word.
    None,
    /// A comma.
    Comma,
    /// The end of a sentence, or a colon.
    Stop,
}

/// The capitals of a word of code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(super) enum Case {
    /// None.
    Lower,
    /// Only the first letter.
    Capital,
    /// Others.
    Mixed,
    /// They may mean nothing.
    Unknown,
}

impl Case {
    pub(super) fn of(text: &str) -> Self {
        let mut letters = text.chars().filter(|c| c.is_alphabetic());
        match letters.next().map(char::is_uppercase) {
            None => Self::Unknown,
            first => match (first == Some(true), letters.any(char::is_uppercase)) {
                (false, false) => Self::Lower,
                (true, false) => Self::Capital,
                _ => Self::Mixed,
            },
        }
    }
}
