//! Whether an entry answers a request, and by which rule. Pure; `docs/caching.md` has the rules.

use crate::{
    digest::of_pieces,
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
fn rule(
    (asked, typed): (&Asked, &str),
    (question, around): (&Question, Around<'_>),
    site: &Site<'_>,
    rest: &str,
) -> Result<Rule, Unfit> {
    let same_suffix = asked.suffix == question.suffix;
    if same_suffix && let Some(lost) = lost(asked, site) {
        let before = match lost {
            "" => site.digest(),
            lost => of_pieces([lost.as_bytes(), site.before.as_bytes()]),
        };
        if before == asked.before {
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
    let same_plain = || {
        let plain = of_pieces(normal::suffix(around.suffix).map(str::as_bytes));
        asked.plain_suffix == plain && !normal::is_open(site.before)
    };
    if !same_suffix && !same_plain() {
        return Err(Unfit::Before);
    }
    match site.plain() {
        Some(plain) if (plain.bytes, plain.digest) == (asked.plain_bytes, asked.plain) => {
            Ok(Rule::Normalised)
        }
        _ => Err(Unfit::Before),
    }
}

/// Whether what would be served names nothing that stood only in the lost text. A word that was
/// typed half stands in it as a whole, and so does one of which the window has lost the beginning;
/// what is left of that is no word.
fn names_stand(
    (lost, rest): (&str, &str),
    site: &Site<'_>,
    around: Around<'_>,
) -> Result<(), Unfit> {
    let served = format!("{}{rest}", words::last_part(site.typed));
    let cut = if lost.ends_with(words::is_part) { words::first_part(around.prefix) } else { "" };
    let lost = format!("{lost}{cut}");
    let kept = [&around.prefix[cut.len()..], around.suffix];
    match words::still_stand(&served, &lost, kept) {
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

/// Whether an answer that is still being written may come to answer a request at the same cursor's
/// line: what was typed is what came so far, or begins with it. What was typed and the rule, where it
/// may. Whole prompts only: what else the rules ask can only be asked when the text is there.
#[must_use]
pub fn may_join<'a>((asked, so_far): (&Asked, &str), asking: &'a Asked) -> Option<(&'a str, Rule)> {
    let around = |asked: &Asked| (asked.before, asked.before_bytes, asked.suffix);
    if around(asked) != around(asking) {
        return None;
    }
    let typed = asking.lead.strip_prefix(&*asked.lead)?;
    let agrees = so_far.starts_with(typed) || typed.starts_with(so_far);
    match (typed.is_empty(), agrees && asking.single) {
        (true, _) => Some((typed, Rule::Exact)),
        (false, true) => Some((typed, Rule::TypeAhead)),
        (false, false) => None,
    }
}

#[cfg(test)]
mod tests;
