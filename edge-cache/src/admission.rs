//! Which requests may be answered from the cache, and which answers may enter it.

/// Whether a request may be looked up and its answer stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Both.
    Reuse,
    /// The client asked for a new answer (`Cache-Control: no-cache`); the next one may have it.
    StoreOnly,
    /// Neither.
    Bypass(Skip),
}

/// Why a request or its answer stays out of the cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Skip {
    /// `Cache-Control: no-store`.
    NoStore,
    /// Warmer than the policy allows: the client wants variety.
    Temperature,
    /// The request has a field whose meaning we do not know.
    UnknownField,
    /// The answer did not end properly.
    Incomplete,
    /// The answer has no text; silence is not worth remembering.
    Empty,
    /// The answer alone would displace too much.
    TooLarge,
    /// What it could be purged by was purged while it was generated.
    Purged,
    /// The answer is of other weights than those it was asked of: a pod changed them meanwhile.
    OtherRevision,
}

impl Skip {
    /// For `Cache-Status: …; detail=` and metric labels.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::NoStore => "no-store",
            Self::Temperature => "temperature",
            Self::UnknownField => "unknown-field",
            Self::Incomplete => "incomplete",
            Self::Empty => "empty",
            Self::TooLarge => "too-large",
            Self::Purged => "purged",
            Self::OtherRevision => "other-revision",
        }
    }
}

/// What the verdict depends on.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Facts {
    /// `Cache-Control: no-store`.
    pub no_store: bool,
    /// `Cache-Control: no-cache`.
    pub no_cache: bool,
    /// Code (inline, fill in the middle) or conversation.
    pub code: bool,
    /// The temperature that will be used.
    pub temperature: f32,
    /// Whether every field is one we know.
    pub all_fields_known: bool,
}

/// Up to here, code completions are asked for as "the likely one".
pub const CODE_TEMPERATURE_MAX: f32 = 0.3;

/// May this request be answered from the cache?
#[must_use]
pub fn judge(facts: Facts) -> Verdict {
    let temperature_max = if facts.code { CODE_TEMPERATURE_MAX } else { 0.0 };
    if facts.no_store {
        Verdict::Bypass(Skip::NoStore)
    } else if !facts.all_fields_known {
        Verdict::Bypass(Skip::UnknownField)
    } else if facts.temperature > temperature_max {
        Verdict::Bypass(Skip::Temperature)
    } else if facts.no_cache {
        Verdict::StoreOnly
    } else {
        Verdict::Reuse
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(change: impl Fn(&mut Facts), expected: Verdict) {
        let mut facts = Facts {
            no_store: false,
            no_cache: false,
            code: true,
            temperature: 0.0,
            all_fields_known: true,
        };
        change(&mut facts);
        assert_eq!(judge(facts), expected, "{facts:?}");
    }

    #[test]
    fn a_plain_request_is_reused() {
        check(|_| {}, Verdict::Reuse);
    }

    #[test]
    fn code_is_reused_up_to_a_temperature() {
        check(|facts| facts.temperature = 0.3, Verdict::Reuse);
        check(|facts| facts.temperature = 0.31, Verdict::Bypass(Skip::Temperature));
    }

    #[test]
    fn chat_is_reused_at_zero_only() {
        check(|facts| facts.code = false, Verdict::Reuse);
        let warm = |facts: &mut Facts| (facts.code, facts.temperature) = (false, 0.1);
        check(warm, Verdict::Bypass(Skip::Temperature));
    }

    #[test]
    fn a_client_may_ask_for_a_new_answer_or_for_privacy() {
        check(|facts| facts.no_cache = true, Verdict::StoreOnly);
        check(|facts| facts.no_store = true, Verdict::Bypass(Skip::NoStore));
        let both = |facts: &mut Facts| (facts.no_store, facts.no_cache) = (true, true);
        check(both, Verdict::Bypass(Skip::NoStore));
    }

    #[test]
    fn an_unknown_field_may_mean_anything() {
        check(|facts| facts.all_fields_known = false, Verdict::Bypass(Skip::UnknownField));
    }
}
