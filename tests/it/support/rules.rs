//! The rules of reuse for code (`docs/caching.md`), written again as plainly as they can be: no
//! index, no hashes, one entry and one request. What an edge does is held against it.
//!
//! Not here: who asks. Whether the classes and the API keys allow a rule is the caller's to know.

#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) prefix: String,
    pub(crate) suffix: String,
    pub(crate) answer: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Rule {
    Exact,
    TypeAhead,
    Window,
    Normalised,
}

/// Why an entry answers a request, and with what.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Served<'a> {
    pub(crate) rule: Rule,
    pub(crate) text: &'a str,
}

const LINES: usize = 8;
const COMMON: usize = 256;

pub(crate) const ALL: &[Rule] = &[Rule::Exact, Rule::TypeAhead, Rule::Window, Rule::Normalised];

/// Those for what nobody has touched above the cursor's line.
pub(crate) const BYTE_FOR_BYTE: &[Rule] = &[Rule::Exact, Rule::TypeAhead, Rule::Window];

/// The first of `rules` that holds.
pub(crate) fn serves<'a>(
    rules: &[Rule],
    entry: &'a Entry,
    (prefix, suffix): (&str, &str),
) -> Option<Served<'a>> {
    rules.iter().find_map(|&rule| {
        let mut cuts = entry.answer.char_indices().map(|(at, _)| at);
        let cut = cuts.find(|&cut| {
            let (typed, rest) = entry.answer.split_at(cut);
            holds(rule, entry, (typed, rest), (prefix, suffix))
                && typed.split('\n').count() <= LINES
                && rest.chars().filter(|character| !character.is_whitespace()).count() >= 2
        })?;
        Some(Served { rule, text: &entry.answer[cut..] })
    })
}

/// Whether the entry, with `typed` typed into it, is the request.
fn holds(
    rule: Rule,
    entry: &Entry,
    (typed, rest): (&str, &str),
    (prefix, suffix): (&str, &str),
) -> bool {
    let same_suffix = entry.suffix == suffix;
    match rule {
        Rule::Exact => same_suffix && typed.is_empty() && entry.prefix == prefix,
        Rule::TypeAhead => same_suffix && prefix.strip_prefix(&entry.prefix) == Some(typed),
        Rule::Window => {
            let kept = prefix.strip_suffix(typed);
            let lost = kept.and_then(|kept| lost(&entry.prefix, kept));
            same_suffix
                && enough(split(prefix).0)
                && lost.is_some_and(|lost| slid(&entry.prefix, prefix, lost))
        }
        Rule::Normalised => {
            let whole = format!("{}{typed}", entry.prefix);
            let (before, lead) = split(&whole);
            let (before_now, lead_now) = split(prefix);
            let (before, before_now) = (normalised(before), normalised(before_now));
            lead == lead_now
                && normalised_suffix(&entry.suffix) == normalised_suffix(suffix)
                && (before == before_now
                    || (enough(&before_now)
                        && lost(&before, &before_now)
                            .is_some_and(|lost| slid(&entry.prefix, prefix, lost))
                        && known(&before, (prefix, suffix), rest)))
        }
    }
}

/// As much text; or as many lines, and whole ones are lost: else it is the first line that was
/// edited.
fn slid(entry: &str, request: &str, lost: &str) -> bool {
    entry.chars().count() == request.chars().count()
        || (lost.ends_with('\n') && entry.split('\n').count() == request.split('\n').count())
}

/// What of the front is not there any more.
fn lost<'a>(whole: &'a str, kept: &str) -> Option<&'a str> {
    whole.strip_suffix(kept).filter(|lost| !lost.is_empty())
}

/// So much text stands before the cursor's line.
fn enough(before: &str) -> bool {
    before.len() >= COMMON
}

fn split(prefix: &str) -> (&str, &str) {
    prefix.split_at(prefix.rfind('\n').map_or(0, |at| at + 1))
}

/// Without blank lines and space at line ends.
fn normalised(text: &str) -> String {
    let lines = text.split('\n').map(str::trim_end).filter(|line| !line.is_empty());
    lines.flat_map(|line| [line, "\n"]).collect()
}

fn normalised_suffix(suffix: &str) -> String {
    let (first, rest) = suffix.split_once('\n').unwrap_or((suffix, ""));
    format!("{}\n{}", first.trim_end(), normalised(rest))
}

/// Every identifier of the answer that the window lost stands elsewhere in it.
fn known(before: &str, (prefix, suffix): (&str, &str), answer: &str) -> bool {
    identifiers(answer).all(|name| {
        let stands = |text: &str| identifiers(text).any(|other| other == name);
        stands(prefix) || stands(suffix) || !stands(before)
    })
}

fn identifiers(text: &str) -> impl Iterator<Item = &str> {
    text.split(|character: char| !(character.is_alphanumeric() || character == '_'))
        .filter(|word| word.chars().next().is_some_and(|first| !first.is_ascii_digit()))
}

#[test]
fn the_rules_are_read_as_they_are_written() {
    let check = |entry: [&str; 3], request: [&str; 2], expected: Option<(Rule, &str)>| {
        let [prefix, suffix, answer] = entry.map(str::to_owned);
        let entry = Entry { prefix, suffix, answer };
        let served = serves(ALL, &entry, (request[0], request[1]));
        assert_eq!(
            served.map(|served| (served.rule, served.text)),
            expected,
            "{entry:?} {request:?}"
        );
    };
    let entry = ["a = 1\nb", "\nc", " = 2\nd = 3"];
    check(entry, ["a = 1\nb", "\nc"], Some((Rule::Exact, " = 2\nd = 3")));
    check(entry, ["a = 1\nb = 2\nd", "\nc"], Some((Rule::TypeAhead, " = 3")));
    check(entry, ["a = 1\nb = 2\nd = ", "\nc"], None);
    check(entry, ["a = 1\nb", "c"], None);
    check(entry, ["a = 1 \n\nb =", "\n\nc "], Some((Rule::Normalised, " 2\nd = 3")));
    check(entry, ["a = 2\nb", "\nc"], None);
    check(entry, ["a = 1\n b", "\nc"], None);
    check(entry, ["a = 1\n", "\nc"], None);
    let long = format!("top_name\n{}\n", "x".repeat(300));
    let (whole, window) = (format!("{long}ab"), format!("{}ab", &long[4..]));
    check(
        [&whole, "", "name\ntop_name"],
        [&format!("{window}name"), ""],
        Some((Rule::Window, "\ntop_name")),
    );
    check([&whole, "", "name"], [&whole[9..], ""], None);
    check([&whole, "", "name"], [&whole[4..], ""], None);
}
