//! The rules of reuse for code (`docs/caching.md`), written again as plainly as they can be: no
//! index, no hashes, one entry and one request. What an edge does is held against it.
//!
//! Not here: who asks. Whether the classes (snippets of other files are part of them, and not of
//! the prefix) and the API keys allow a rule is the caller's to know.

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

const NEWLINES: usize = 8;
const COMMON: usize = 256;
const MARKS: [&str; 3] = ["\"\"\"", "'''", "`"];

pub(crate) const ALL: &[Rule] = &[Rule::Exact, Rule::TypeAhead, Rule::Window, Rule::Normalised];

/// Those for what nobody has touched above the cursor's line, and those for files in which blank
/// lines mean something.
pub(crate) const BYTE_FOR_BYTE: &[Rule] = &[Rule::Exact, Rule::TypeAhead, Rule::Window];

/// The rules for files of these languages, or of this path.
pub(crate) fn of_file(language: &str, path: &str) -> &'static [Rule] {
    const LANGUAGES: &[&str] = &[
        "markdown",
        "md",
        "restructuredtext",
        "rst",
        "plaintext",
        "text",
        "yaml",
        "toml",
        "diff",
        "makefile",
        "make",
        "latex",
        "ini",
    ];
    const ENDINGS: &[&str] = &[
        ".md",
        ".markdown",
        ".mdx",
        ".rst",
        ".txt",
        ".yaml",
        ".yml",
        ".toml",
        ".diff",
        ".patch",
        ".tex",
        ".mk",
        ".ini",
    ];
    let path = path.to_lowercase();
    let prose = LANGUAGES.contains(&language.to_lowercase().as_str())
        || ENDINGS.iter().any(|ending| path.ends_with(ending))
        || path.rsplit(['/', '\\']).next() == Some("makefile");
    if prose { BYTE_FOR_BYTE } else { ALL }
}

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
                && newlines(typed) <= NEWLINES
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
    let whole = format!("{}{typed}", entry.prefix);
    let as_window = |lost: &str, before_now: &str| {
        !typed.is_empty() && before_now.len() >= COMMON && known(lost, (prefix, suffix), rest)
    };
    match rule {
        Rule::Exact => same_suffix && typed.is_empty() && entry.prefix == prefix,
        Rule::TypeAhead => same_suffix && !typed.is_empty() && whole == prefix,
        Rule::Window => {
            let slid = |lost: &str| {
                lost.chars().count() == typed.chars().count()
                    || (lost.ends_with('\n') && newlines(lost) == newlines(typed))
            };
            same_suffix
                && lost(&whole, prefix)
                    .is_some_and(|lost| slid(lost) && as_window(lost, &normalised(split(prefix).0)))
        }
        Rule::Normalised => {
            let (before, lead) = split(&whole);
            let (before_now, lead_now) = split(prefix);
            let (before, before_now) = (normalised(before), normalised(before_now));
            let slid =
                |lost: &str| lost.ends_with('\n') && newlines(&entry.prefix) == newlines(prefix);
            lead == lead_now
                && normalised_suffix(&entry.suffix) == normalised_suffix(suffix)
                && (before == before_now
                    || lost(&before, &before_now)
                        .is_some_and(|lost| slid(lost) && as_window(lost, &before_now)))
        }
    }
}

/// What of the front is not there any more.
fn lost<'a>(whole: &'a str, kept: &str) -> Option<&'a str> {
    whole.strip_suffix(kept).filter(|lost| !lost.is_empty())
}

fn newlines(text: &str) -> usize {
    text.matches('\n').count()
}

fn split(prefix: &str) -> (&str, &str) {
    prefix.split_at(prefix.rfind('\n').map_or(0, |at| at + 1))
}

/// What stands before the cursor's line, without blank lines and space at line ends; but not where
/// a text over several lines may be, nor right above the cursor's line.
fn normalised(before: &str) -> String {
    if may_end_in_text(before) {
        return before.to_owned();
    }
    let lines: Vec<&str> = before.split_inclusive('\n').collect();
    let kept = lines
        .iter()
        .rposition(|line| ends_in_backslash(line))
        .map(|at| at + 2)
        .max(lines.iter().rposition(|line| has_mark(line)).map(|at| at + 1))
        .map_or(0, |kept| kept.min(lines.len()));
    let above = lines.iter().rposition(|line| !is_blank(line)).map_or(0, |at| at + 1).max(kept);
    lines[..kept].concat() + &squeezed(&lines[kept..above]) + &lines[above..].concat()
}

/// The first line is as it is, and so is all from the first text over several lines on.
fn normalised_suffix(suffix: &str) -> String {
    let lines: Vec<&str> = suffix.split_inclusive('\n').collect();
    let first = lines.len().min(1);
    let is_text =
        |line: &&str| has_mark(line) || ends_in_backslash(line) || starts_here_document(line);
    let text = lines.iter().position(is_text).unwrap_or(lines.len()).max(first);
    let first_line = lines[..first].concat();
    let first_line = first_line.trim_end_matches('\n');
    format!("{first_line}\n{}{}", squeezed(&lines[first..text]), lines[text..].concat())
}

fn squeezed(lines: &[&str]) -> String {
    let kept = lines.iter().filter(|line| !is_blank(line));
    kept.flat_map(|line| [line.trim_end_matches([' ', '\t', '\n']), "\n"]).collect()
}

fn is_blank(line: &str) -> bool {
    line.trim_matches([' ', '\t', '\n']).is_empty()
}

fn has_mark(line: &str) -> bool {
    MARKS.iter().any(|mark| line.contains(mark))
}

/// Also one that space hides.
fn ends_in_backslash(line: &str) -> bool {
    line.trim_end_matches([' ', '\t', '\n', '\r']).ends_with('\\')
}

/// A text over several lines may have begun and not ended.
pub(crate) fn may_end_in_text(before: &str) -> bool {
    let odd = |mark: &&str| !before.matches(*mark).count().is_multiple_of(2);
    MARKS.iter().any(odd) || starts_here_document(before)
}

/// `<<WORD`, `<<-WORD`, `<<~WORD`, `<<<WORD`, and so on; words may be quoted.
fn starts_here_document(text: &str) -> bool {
    text.match_indices("<<").any(|(at, _)| {
        let rest = text[at..].trim_start_matches(['<', '-', '~', ' ', '\t', '"', '\'', '\\']);
        rest.starts_with(|first: char| first.is_alphabetic() || first == '_')
    })
}

/// Every identifier of the answer that stood in what was lost still stands somewhere. Of a word
/// that the window's front cuts in two all was lost, and what is left of it is no identifier.
fn known(lost: &str, (prefix, suffix): (&str, &str), answer: &str) -> bool {
    let is_part = |character: char| character.is_alphanumeric() || character == '_';
    let word = prefix.find(|character| !is_part(character)).unwrap_or(prefix.len());
    let cut = if lost.ends_with(is_part) { word } else { 0 };
    let (lost, prefix) = (format!("{lost}{}", &prefix[..cut]), &prefix[cut..]);
    // What is typed of a name is part of it.
    let typed = prefix.len() - prefix.trim_end_matches(is_part).len();
    let answer = format!("{}{answer}", &prefix[prefix.len() - typed..]);
    identifiers(&answer).all(|name| {
        let stands = |text: &str| identifiers(text).any(|other| other == name);
        stands(prefix) || stands(suffix) || !stands(&lost)
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
    const NORMAL: Option<(Rule, &str)> = Some((Rule::Normalised, "(x)"));
    let entry = ["a = 1\nb", "\nc", " = 2\nd = 3"];
    check(entry, ["a = 1\nb", "\nc"], Some((Rule::Exact, " = 2\nd = 3")));
    check(entry, ["a = 1\nb = 2\nd", "\nc"], Some((Rule::TypeAhead, " = 3")));
    check(entry, ["a = 1\nb = 2\nd = ", "\nc"], None);
    check(entry, ["a = 1\nb", "c"], None);
    check(entry, ["a = 1 \nb =", "\n\nc "], Some((Rule::Normalised, " 2\nd = 3")));
    check(entry, ["a = 2\nb", "\nc"], None);
    check(entry, ["a = 1\n b", "\nc"], None);
    check(entry, ["a = 1\n", "\nc"], None);
    // Text over several lines, and what stands right above the cursor, is left alone.
    check(["a = 1\n\n\nb", "", "(x)"], ["a = 1\n\nb", ""], None);
    check(
        ["a\n\nb\nc = `\n\n`\nd\n\ne\nf", "", "(x)"],
        ["a\n\nb\nc = `\n\n`\nd\ne\nf", ""],
        NORMAL,
    );
    check(["a\n\nb\nc = `\n\n`\nd\ne\nf", "", "(x)"], ["a\nb\nc = `\n\n`\nd\ne\nf", ""], None);
    check(["a = \"\"\"\nb\n\nc\nd", "", "(x)"], ["a = \"\"\"\nb\nc\nd", ""], None);
    check(["cat <<EOF\nb\n\nc\nd", "", "(x)"], ["cat <<EOF\nb\nc\nd", ""], None);
    check(["a \\\nb\n\nc\nd", "", "(x)"], ["a \\\nb\nc\nd", ""], NORMAL);
    check(["a \\\n\nb\nc\nd", "", "(x)"], ["a \\\nb\nc\nd", ""], None);
    check(["a \\\nb\nc", "", "(x)"], ["a \\ \nb\nc", ""], None);
    check(["a\nb\r\nc\nd", "", "(x)"], ["a\nb\nc\nd", ""], None);
    check(["a", "\nb\n\nc\n`\n\nd`", "(x)"], ["a", "\nb\nc\n`\n\nd`"], NORMAL);
    check(["a", "\nb\nc\n`\n\nd`", "(x)"], ["a", "\nb\nc\n`\nd`"], None);
    check(["a", "b \nc", "(x)"], ["a", "b\nc"], None);
    // Windows.
    let long = format!("top_name\n{}\n", "x".repeat(300));
    let whole = format!("{long}ab");
    let check_window = |answer: &str, lost: usize, typed: &str, expected: Option<(Rule, &str)>| {
        let window = format!("{}{typed}", &whole[lost..]);
        check([&whole, "", answer], [&window, ""], expected);
    };
    check_window("abcdname", 4, "abcd", Some((Rule::Window, "name")));
    check_window("name\nzz_1", 4, "name", Some((Rule::Window, "\nzz_1")));
    // `top_name` was cut, and `name` is what is left of it.
    check_window("name\ntop_name", 4, "name", None);
    check_window("abcd = name", 4, "abcd", Some((Rule::Window, " = name")));
    check_window("c\nde = top_name", 9, "c\nde = top_na", None);
    check_window("a\nbc", 9, "a\nb", None);
    check_window("a\nbcd", 9, "a\nb", Some((Rule::Window, "cd")));
    check_window("name", 9, "", None);
    check_window("name", 4, "", None);
}
