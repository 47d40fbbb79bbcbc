//! What is code by its look, and the marks that belong to it. Pure.
//!
//! A mark at a word's end is nearly always the sentence's, and quotes around a word are emphasis. But
//! `"0.1"` is not `0.1`, `name:` is not `:name`, and `\b` is not `\B`. A mark is the word's own where no
//! sentence would have it; and where one text has a word in two dresses (`foo` and `foo()`), the dress
//! is what it is about.

use std::collections::{HashMap, HashSet};

use super::{
    word::{Case, Sort, Word},
    words,
};

/// After these, or before those, a mark that stands alone is an operator.
const BEFORE_OPERATOR: [&str; 11] =
    ["the", "do", "does", "did", "is", "are", "between", "and", "or", "vs", "versus"];
const AFTER_OPERATOR: [&str; 20] = [
    "operator",
    "operators",
    "mean",
    "means",
    "in",
    "do",
    "does",
    "and",
    "or",
    "vs",
    "versus",
    "character",
    "characters",
    "sign",
    "symbol",
    "at",
    "method",
    "prefix",
    "suffix",
    "instead",
];

/// Words before which no sentence ends.
const WITHIN: [&str; 16] = [
    "mean", "means", "in", "do", "does", "and", "or", "vs", "versus", "operator", "method",
    "methods", "return", "returns", "instead", "differ",
];

/// These are not the same in quotes.
const LITERALS: [&str; 8] = ["true", "false", "null", "none", "nil", "undefined", "nan", "void"];

fn is_one_of(words: &[&str], next: Option<&str>) -> bool {
    next.is_some_and(|next| words.contains(&next.trim_end_matches(['?', '.', ',', ':', '!'])))
}

/// Whether a mark that stands between this word and the next is an operator.
pub(super) fn names_operator(last: &Word<'_>, next: Option<&str>) -> bool {
    let number = |text: &str| text.starts_with(|c: char| c.is_ascii_digit());
    let (computed, last) = (last.sort == Sort::Number, &*last.form);
    last == "the"
        || (BEFORE_OPERATOR.contains(&last) && next.is_some())
        || is_one_of(&AFTER_OPERATOR, next)
        || (computed && next.is_some_and(number))
}

/// Whether the mark at the end of `bare` is its own. `whole` is what follows it too, and `closed` the
/// quote behind it, if that began with the word.
pub(super) fn belongs(bare: &str, whole: &str, closed: Option<char>, next: Option<&str>) -> bool {
    if closed == Some('`') {
        return true;
    }
    let marked = whole.len() > bare.len();
    let within = !marked && is_one_of(&WITHIN, next);
    match bare.chars().next_back() {
        // No sentence has `::`, `:?` or `":"` behind a word; nor a colon before `in`, but for `Go: in`.
        Some(':') => {
            let word = bare.trim_end_matches(':');
            bare.ends_with("::")
                || ((marked || within) && words::name(&word.to_lowercase()).is_none())
        }
        Some('?' | '!') => within,
        _ => false,
    }
}

/// Whether a question ends in a mark: no sentence has `,?`.
pub(super) fn is_asked(chunk: &str) -> bool {
    chunk
        .strip_suffix('?')
        .is_some_and(|mark| matches!(mark, "," | ";" | ":" | "." | "/" | "|" | "-"))
}

/// An operator less the quotes around it, and the sentence's end.
pub(super) fn operator(chunk: &str, last: bool) -> &str {
    const QUOTES: [char; 7] = ['"', '\'', '`', '“', '”', '‘', '’'];
    let bare = chunk.trim_end_matches([',', ';']);
    let unmarked = bare.trim_end_matches(['?', '.', ':', '!']);
    let bare = if unmarked.ends_with(QUOTES) { unmarked } else { bare };
    let asked = bare.strip_suffix('?').filter(|asked| last && !matches!(*asked, "" | "?"));
    let bare = asked.unwrap_or(bare);
    // `""` and `'` are themselves.
    let inside = bare.strip_prefix(QUOTES).and_then(|bare| bare.strip_suffix(QUOTES));
    match inside {
        Some("") | None => bare.strip_prefix('`').unwrap_or(bare),
        Some(inside) => inside,
    }
}

/// A word as it stands there, with the quotes around it; backticks are none.
pub(super) fn dressed(bare: &str, quotation: Option<char>) -> String {
    match quotation {
        None | Some('`') => bare.into(),
        Some('\'' | '’') => format!("'{bare}'"),
        Some(_) => format!("\"{bare}\""),
    }
}

/// What only decorators are called, with their mark or without it.
pub(super) fn decorator(name: &str) -> Option<&str> {
    const DECORATORS: [&str; 3] = ["classmethod", "staticmethod", "dataclass"];
    name.strip_prefix('@').filter(|name| DECORATORS.contains(name))
}

/// Whether what is quoted is another value than what is not: `"1"`, `'a'`, `"null"`.
pub(super) fn is_literal(bare: &str, quotation: Option<char>) -> bool {
    quotation.is_some_and(|closing| closing != '`')
        && (bare.chars().nth(1).is_none()
            || bare.chars().all(|c| c.is_ascii_digit() || matches!(c, '.' | ',' | '-' | '_'))
            || LITERALS.contains(&&*bare.to_lowercase()))
}

/// Whether capitals tell identifiers apart whoever writes them: flags, escapes, `:w`; but not `N+1`.
pub(super) fn is_exact(name: &str) -> bool {
    name.starts_with('-')
        || name.contains(['\\', '%'])
        || (!name.starts_with(char::is_alphanumeric)
            && name.chars().filter(|c| c.is_alphabetic()).nth(1).is_none())
}

/// Gives the words that stand in several dresses their dress for a form.
pub(super) fn tell_apart(found: &mut [Word<'_>]) {
    let common = |word: &Word<'_>| {
        let lower = word.dressed.to_lowercase();
        (word.sort == Sort::Plain && word.begins && word.capital)
            || words::is_function(&lower)
            || words::is_negation(&lower)
            || words::preposition(&lower).is_some()
            || words::name(&word.form).is_some()
            || word.form == "and"
    };
    let mut dresses: HashMap<String, HashSet<String>> = HashMap::new();
    for word in found.iter().filter(|word| !word.dressed.is_empty() && !common(word)) {
        // `UTF-8` and `utf8` are one.
        let spelled = word.dressed.contains(|c: char| c.is_ascii_digit());
        let dress = word.dressed.replace(['-', '’'], "").replace("(s)", "");
        let dress = if spelled { dress.to_lowercase() } else { dress };
        dresses.entry(word.form.clone()).or_default().insert(dress);
    }
    dresses.retain(|_, dresses| dresses.len() > 1);
    for word in found.iter_mut().filter(|word| !word.dressed.is_empty()) {
        if dresses.contains_key(&word.form) && !common(word) {
            word.form.clone_from(&word.dressed);
            word.sort = Sort::Identifier;
            word.case = Case::Unknown;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::lex;
    use super::*;

    fn check(text: &str, expected: &str) {
        let found: Vec<_> = lex::words(text).into_iter().map(|word| word.form).collect();
        assert_eq!(found.join(" "), expected, "{text}");
    }

    #[test]
    fn a_mark_is_kept_where_no_sentence_has_it() {
        check("name: in Ruby", "name: in ruby");
        check("is it :name or name:?", "is it :name or name:");
        check("save! in Rails, save!", "save! in rails save");
        check("does std:: nest", "does std:: nest");
        check("what is `empty?`", "what is empty?");
        check("$1 -1 ~1.2 n-1", "$1 -1 ~1.2 n-1");
        check(".env @foo #foo", ".env @foo #foo");
    }

    #[test]
    fn the_marks_of_a_sentence_are_not() {
        check("Docker: in a container", "docker in a container");
        check("the list? In Go.", "the list in golang");
        check("(see \"hello\"), 'that'!", "see hello that");
    }

    #[test]
    fn values_keep_their_quotes() {
        check("\"0.1\" 'a' “null” \"age\"", "\"0.1\" 'a' \"null\" age");
        check("'' or \"\" or '", "'' or \"\" or '");
    }

    #[test]
    fn one_word_in_two_dresses_keeps_them() {
        check("foo or foo()", "foo or foo()");
        check("use Map or map", "use Map or map");
        check("UTF-8 or utf8", "utf8 or utf8");
    }

    #[test]
    fn capitals_are_kept_where_they_always_mean_something() {
        check("\\B or \\b, -V, %M, :W", "\\B or \\b -V %M :W");
        assert_eq!(Case::of("`fooBar`"), Case::Mixed);
        assert_eq!(Case::of("Foo.bar"), Case::Capital);
        assert_eq!(Case::of("1.2"), Case::Unknown);
    }
}
