//! Whether an entry answers a request, and by which rule. Pure; `docs/caching.md` has the rules.

use crate::{
    digest::{Short, of_pieces},
    entry::Asked,
    normal,
    question::{Around, Question, Site},
    words,
};

/// By which rule an entry answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Rule {
    /// The same text around the cursor.
    Exact,
    /// The user typed into the answer.
    TypeAhead,
    /// The same, seen through a window that slid on.
    Window,
    /// The same but for blank lines and space at line ends.
    Normalised,
}

impl Rule {
    /// In their order: the surest first.
    pub const ALL: [Self; 4] = [Self::Exact, Self::TypeAhead, Self::Window, Self::Normalised];

    /// Its name in headers, metrics and the configuration.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Exact => "exact",
            Self::TypeAhead => "type_ahead",
            Self::Window => "window",
            Self::Normalised => "normalised",
        }
    }
}

/// How an entry answers a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fit {
    /// Why it may.
    pub rule: Rule,
    /// Bytes of its answer that the user has typed.
    pub typed: usize,
}

/// Why an entry does not answer a request that looks where it lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unfit {
    /// The cursor's line does not begin as the entry's did.
    Line,
    /// Something else was typed than the answer.
    Typed,
    /// What is left of the answer is nothing to show.
    Rest,
    /// The text before the cursor's line is another.
    Before,
    /// The window has lost what this asker may not learn of.
    Circle,
    /// The window lost text that was not pushed out by typing.
    Front,
    /// The answer names what only the lost text had.
    Names,
}

impl Unfit {
    /// In words.
    #[must_use]
    pub const fn reason(self) -> &'static str {
        match self {
            Self::Line => "the cursor's line does not begin as it did then",
            Self::Typed => "something else was typed than the answer",
            Self::Rest => "less than two visible characters are left of the answer",
            Self::Before => "the text before the cursor's line is another",
            Self::Circle => {
                "the request's window is another, and neither the API key nor a declared repository is the same"
            }
            Self::Front => "the request's window lost text that typing did not push out",
            Self::Names => "the answer names what stood only in text that the window has lost",
        }
    }
}

/// Fewer visible characters are no suggestion.
const VISIBLE_MIN: usize = 2;

/// Whether `rest` is worth showing to somebody who has typed what came before it.
#[must_use]
pub fn is_suggestion(rest: &str) -> bool {
    rest.chars().filter(|c| !c.is_whitespace() && !c.is_control()).nth(VISIBLE_MIN - 1).is_some()
}

/// Whether the answer `text`, asked for at `asked`, answers a request as seen from `site`. It
/// is complete; [`may_join`] is for one that still grows.
pub(crate) fn fit(
    (asked, text): (&Asked, &str),
    (question, around): (&Question, Around<'_>),
    site: &Site<'_>,
) -> Result<Fit, Unfit> {
    let typed = site.typed.strip_prefix(&*asked.lead).ok_or(Unfit::Line)?;
    let rest = text.strip_prefix(typed).ok_or(Unfit::Typed)?;
    let whole = typed.is_empty();
    if !whole && (!question.single || !is_suggestion(rest)) {
        return Err(Unfit::Rest);
    }
    let rule = rule((asked, typed), (question, around), site, rest)?;
    Ok(Fit { rule, typed: typed.len() })
}

/// The rule by which what stands around `site` is what stood around `asked`, where `typed` was typed
/// since and `rest` would be served.
pub(crate) fn rule(
    (asked, typed): (&Asked, &str),
    (question, around): (&Question, Around<'_>),
    site: &Site<'_>,
    rest: &str,
) -> Result<Rule, Unfit> {
    let same_suffix = asked.suffix == question.suffix;
    if same_suffix && let Some(lost) = lost(asked, site) {
        let before = [lost.as_bytes(), site.before.as_bytes()];
        if of_pieces(before) == asked.before {
            return match (lost.is_empty(), typed.is_empty()) {
                (true, true) => Ok(Rule::Exact),
                (true, false) => Ok(Rule::TypeAhead),
                (false, _) if !slid(lost, typed) => Err(Unfit::Front),
                (false, _) => {
                    may_slide(asked, question, site)?;
                    names_stand((lost, rest), site, around).map(|()| Rule::Window)
                }
            };
        }
    }
    if !question.is_code {
        return Err(Unfit::Before);
    }
    let plain_suffix = || of_pieces(normal::suffix(around.suffix).map(str::as_bytes));
    if !same_suffix && asked.plain_suffix != plain_suffix() {
        return Err(Unfit::Before);
    }
    if plain_bytes(site.before) == asked.plain_bytes as usize && plain(site.before) == asked.plain {
        return Ok(Rule::Normalised);
    }
    let lost = lost_lines(asked, around.prefix, site).ok_or(Unfit::Before)?;
    may_slide(asked, question, site)?;
    names_stand((lost, rest), site, around).map(|()| Rule::Normalised)
}

/// Whether what would be served names nothing that stood only in the lost text. A word of which
/// the window has lost the beginning stood there as a whole.
fn names_stand(
    (lost, rest): (&str, &str),
    site: &Site<'_>,
    around: Around<'_>,
) -> Result<(), Unfit> {
    let word = site.before.find(|c: char| !words::is_part(c)).unwrap_or(site.before.len());
    let lost = format!("{lost}{}", &site.before[..word]);
    match words::still_stand(rest, &lost, [around.prefix, around.suffix]) {
        true => Ok(()),
        false => Err(Unfit::Names),
    }
}

/// What the entry's window had at its front and the request's has not, as far as lengths tell.
fn lost<'a>(asked: &'a Asked, site: &Site<'_>) -> Option<&'a str> {
    let bytes = (asked.before_bytes as usize).checked_sub(site.before.len())?;
    asked.front.get(..bytes)
}

/// Whether a window that lost `lost` while `typed` was typed kept its size: in characters, or in
/// lines.
fn slid(lost: &str, typed: &str) -> bool {
    let newlines = |text: &str| text.bytes().filter(|byte| *byte == b'\n').count();
    lost.chars().count() == typed.chars().count()
        || (lost.ends_with('\n') && newlines(lost) == newlines(typed))
}

/// Whether the asker may learn what stood at the front of the window, and enough is there to know
/// the window by.
fn may_slide(asked: &Asked, question: &Question, site: &Site<'_>) -> Result<(), Unfit> {
    match (site.slides, asked.circle == question.circle) {
        (false, _) => Err(Unfit::Before),
        (true, false) => Err(Unfit::Circle),
        (true, true) => Ok(()),
    }
}

/// The whole lines at its front that a window of as many lines has lost, where all else means the
/// same.
fn lost_lines<'a>(asked: &'a Asked, prefix: &str, site: &Site<'_>) -> Option<&'a str> {
    let lines = prefix.bytes().filter(|byte| *byte == b'\n').count();
    if lines != asked.lines as usize || !site.slides {
        return None;
    }
    let fronts = asked.front.match_indices('\n').map(|(at, _)| &asked.front[..=at]);
    fronts.into_iter().find(|front| {
        let whole = format!("{front}{}", site.before);
        plain_bytes(&whole) == asked.plain_bytes as usize && plain(&whole) == asked.plain
    })
}

fn plain(before: &str) -> Short {
    of_pieces(normal::before(before).map(str::as_bytes))
}

/// Bytes of a normalised text.
pub(crate) fn plain_bytes(before: &str) -> usize {
    normal::before(before).map(str::len).sum()
}

/// Whether an answer that is still being written may come to answer a request: what was typed is
/// what came so far, or begins with it. The bytes that were typed and the rule, where it may.
#[must_use]
pub fn may_join(
    (asked, so_far): (&Asked, &str),
    (question, around): (&Question, Around<'_>),
) -> Option<(usize, Rule)> {
    question.sites(around.prefix).find_map(|site| {
        let typed = site.typed.strip_prefix(&*asked.lead)?;
        let agrees = so_far.starts_with(typed) || typed.starts_with(so_far);
        let single = typed.is_empty() || question.single;
        // What the other rules ask of the text can only be asked when it is there.
        let rule = (agrees && single)
            .then(|| rule((asked, typed), (question, around), &site, "").ok())
            .flatten()
            .filter(|rule| matches!(rule, Rule::Exact | Rule::TypeAhead))?;
        Some((typed.len(), rule))
    })
}

#[cfg(test)]
mod tests;
