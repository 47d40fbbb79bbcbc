//! The words of a question as they are written. Pure, in one pass over the text.
//!
//! Says nothing of what they mean (`read.rs`), except where one thing is written in several ways:
//! `10GB`, `utf-8`, `python3.8`, `"age"`, `foo()`, `don't`. What is code by its look keeps its marks:
//! `"0.1"`, `name:` inside a sentence, `\B`, `.env` (`dress.rs`).

use super::{
    dress,
    word::{Case, Pause, Sort, Word},
    words,
};

/// A quotation ends after so many words at the latest: an apostrophe may look like its beginning.
const QUOTED_MAX: usize = 12;

/// From so many words on, a quotation is prose.
const PROSE: usize = 3;

/// The words of `text`.
pub(super) fn words(text: &str) -> Vec<Word<'_>> {
    let shouted = !text.contains(char::is_lowercase);
    let mut lexer = Lexer { words: Vec::new(), shouted, quote: None, begins: true };
    let mut chunks = text.split_whitespace().peekable();
    while let Some(chunk) = chunks.next() {
        lexer.chunk(chunk, chunks.peek().copied());
    }
    dress::tell_apart(&mut lexer.words);
    lexer.words
}

struct Lexer<'t> {
    words: Vec<Word<'t>>,
    shouted: bool,
    /// What the quotation ends with, how many words it may still have, and where it began.
    quote: Option<(char, usize, usize)>,
    begins: bool,
}

/// What a quotation that begins with `c` ends with.
fn closing(c: char) -> Option<char> {
    match c {
        '"' | '\'' | '`' => Some(c),
        '“' | '„' => Some('”'),
        '‘' => Some('’'),
        '«' => Some('»'),
        _ => None,
    }
}

impl<'t> Lexer<'t> {
    fn chunk(&mut self, chunk: &'t str, next: Option<&str>) {
        if !chunk.contains(char::is_alphanumeric) {
            self.symbol(chunk, next);
            return;
        }
        let mut rest = chunk;
        while let Some(c) = rest.chars().next() {
            if let Some(closing) = closing(c) {
                self.quote = Some((closing, QUOTED_MAX, self.words.len()));
            } else if !matches!(c, '(' | ',' | ';' | '—' | '–' | '¿' | '¡') {
                break;
            }
            rest = &rest[c.len_utf8()..];
        }
        let quoted = self.quote.is_some();
        let ticked = self.quote.is_some_and(|(closing, ..)| closing == '`');
        let here = self.quote.is_some_and(|(.., from)| from == self.words.len());
        let mut ended: Option<(char, usize, usize)> = None;
        let mut pause = Pause::None;
        let mut bare = rest;
        while let Some(c) = bare.chars().next_back() {
            let closed = ended.filter(|_| here).map(|(closing, ..)| closing);
            match c {
                ':' | '?' | '!' | '.' if dress::belongs(bare, rest, closed, next) => break,
                ',' | '—' | '–' => pause = pause.max(Pause::Comma),
                '.' | '?' | '!' | ':' | ';' | '…' => pause = pause.max(Pause::Stop),
                ')' if bare.matches('(').count() >= bare.matches(')').count() => break,
                ')' => {}
                _ if self.quote.is_some_and(|(closing, ..)| closing == c) => {
                    ended = self.quote.take();
                }
                '"' | '\'' | '`' | '”' | '’' | '»' => {}
                _ => break,
            }
            bare = &bare[..bare.len() - c.len_utf8()];
        }
        self.quote = self.quote.and_then(|(c, left, from)| Some((c, left.checked_sub(1)?, from)));
        let before = self.words.len();
        let quotation = ended.filter(|_| here).map(|(closing, ..)| closing);
        let dressed = dress::dressed(bare, quotation);
        if dress::is_literal(bare, quotation) {
            self.push(bare, dressed.clone(), Sort::Identifier, true);
        } else {
            self.bare(bare, quoted);
        }
        for word in &mut self.words[before..] {
            (word.begins, self.begins) = (self.begins, false);
            word.ticked = quoted && ticked;
        }
        if self.words.len() == before + 1 {
            self.words[before].dressed = dressed;
        }
        if self.words.len() > before {
            let last = self.words.len() - 1;
            self.words[last].pause = pause;
            // `Go: sort a slice`.
            if pause == Pause::Stop && bare.eq_ignore_ascii_case("go") {
                self.words[last].form = "golang".into();
            }
        }
        self.begins |= pause == Pause::Stop;
        if let Some(('"' | '\'' | '”' | '’', _, from)) = ended {
            self.prose(from);
        }
    }

    /// Several quoted words are a message rather than names: they are read as any others.
    fn prose(&mut self, from: usize) {
        let quoted = self.words.get_mut(from..).unwrap_or_default();
        if quoted.len() >= PROSE {
            quoted
                .iter_mut()
                .filter(|word| word.sort == Sort::Plain)
                .for_each(|word| word.literal = false);
        }
    }

    /// A piece without a letter or a digit: an operator, or punctuation.
    fn symbol(&mut self, chunk: &'t str, next: Option<&str>) {
        // `the ? operator`.
        let named = self.words.last().is_some_and(|last| dress::names_operator(last, next));
        let quoted = named
            || chunk.chars().next().and_then(closing).is_some()
            || chunk == "."
            || (next.is_none() && dress::is_asked(chunk))
            || self.quote.is_some_and(|(closing, ..)| closing == '`');
        let bare = dress::operator(chunk, next.is_none());
        let marks =
            ["-", "–", "—", "|", ":", "/", "•", "...", "…", "?", "!", ".", ",", ";", "(", ")"];
        if bare.is_empty()
            || (!quoted && (marks.contains(&bare) || bare.chars().all(char::is_control)))
        {
            if let Some(last) = self.words.last_mut() {
                let stop = [":", "?", "!", ".", "|"].contains(&bare);
                last.pause = last.pause.max(if stop { Pause::Stop } else { Pause::Comma });
                self.begins |= stop;
            }
        } else if bare == "&" && !quoted {
            self.push(chunk, "and".into(), Sort::Plain, false);
        } else {
            self.push(chunk, bare.into(), Sort::Identifier, true);
        }
    }

    fn push(&mut self, text: &'t str, form: String, sort: Sort, literal: bool) {
        let capital = text.starts_with(char::is_uppercase);
        self.words.push(Word {
            text,
            form,
            sort,
            literal,
            ticked: false,
            dressed: String::new(),
            case: Case::of(text),
            capital,
            begins: false,
            pause: Pause::None,
        });
    }

    fn bare(&mut self, bare: &'t str, quoted: bool) {
        let lower = bare.to_lowercase().replace(['’', '‘'], "'");
        if let Some(expanded) = words::contraction(&lower)
            .filter(|_| self.quote.is_none_or(|(closing, ..)| closing != '`'))
        {
            expanded.split(' ').for_each(|word| self.push(bare, word.into(), Sort::Plain, false));
        } else if bare.is_empty() {
        } else if lower == "go" && self.is_language(bare) {
            self.push(bare, "golang".into(), Sort::Plain, quoted);
        } else if let Some(name) = words::name(&lower) {
            self.push(bare, name.into(), Sort::Plain, quoted);
        } else if bare.chars().all(|c| c.is_alphabetic() || c == '\'' || c == '’') {
            self.letters(bare, &lower, quoted);
        } else if let Some(letter) = lower.strip_suffix("-th").filter(|letter| letter.len() == 1) {
            self.push(bare, format!("{letter}th"), Sort::Plain, quoted);
        } else if let Some(parts) = plain_parts(bare) {
            parts.for_each(|part| self.bare(part, quoted));
        } else if bare.contains(|c: char| c.is_ascii_digit()) {
            self.digits(bare, &lower, quoted);
        } else {
            self.identifier(bare, quoted);
        }
    }

    /// Whether `go` is the language: it has a capital inside a sentence, or something is in it.
    fn is_language(&self, go: &str) -> bool {
        let inside =
            self.words.last().is_some_and(|last| ["in", "with", "using"].contains(&&*last.form));
        inside || (go == "Go" && !self.begins)
    }

    fn letters(&mut self, bare: &'t str, lower: &str, quoted: bool) {
        let form = lower.strip_suffix("'s").or_else(|| lower.strip_suffix('\'')).unwrap_or(lower);
        let long = form.chars().nth(1).is_some();
        let capitals = long && lower != "ok" && !self.shouted && !bare.contains(char::is_lowercase);
        // `AND` is the operator; `C` is not `c`.
        let article = match bare {
            "I" => true,
            "A" => self.begins || self.shouted,
            _ => words::is_function(form),
        };
        let form =
            if !long && (quoted || !article) { bare.to_owned() } else { form.replace('\'', "") };
        self.push(bare, form, Sort::Plain, quoted || capitals);
    }

    fn digits(&mut self, bare: &'t str, lower: &str, quoted: bool) {
        let start = lower.find(|c: char| c.is_ascii_digit()).unwrap_or(0);
        let (lead, number) = lower.split_at(start);
        let end = number
            .find(|c: char| !matches!(c, '0'..='9' | '.' | ',' | '_'))
            .unwrap_or(number.len());
        let (number, unit) = number.split_at(end);
        // `utf-8`, but `-1` and `n-1`.
        let lead = Some(lead.trim_end_matches('-'))
            .filter(|name| name.chars().nth(1).is_some())
            .unwrap_or(lead);
        let number =
            if is_grouped(number) { number.replace([',', '_'], "") } else { number.to_owned() };
        if lead == "-" && unit.is_empty() {
            self.push(bare, format!("-{number}"), Sort::Number, quoted);
        } else if lead.is_empty() || lead == "v" {
            if unit.is_empty() || unit == ".x" || unit == "x" {
                self.push(bare, number, Sort::Number, quoted);
            } else if matches!(unit, "st" | "nd" | "rd" | "th") {
                self.push(bare, format!("{number}{unit}"), Sort::Number, quoted);
            } else if unit.chars().all(|c| c.is_alphabetic() || c == '%')
                && lead.is_empty()
                && start == 0
                && number != "0"
            {
                self.push(bare, number, Sort::Number, quoted);
                self.push(bare, unit.into(), Sort::Plain, true);
            } else {
                self.push(bare, lower.into(), Sort::Number, quoted);
            }
        } else if let Some(name) = words::name(lead).filter(|_| unit.is_empty()) {
            self.push(bare, name.into(), Sort::Plain, quoted);
            self.push(bare, number, Sort::Number, quoted);
        } else if lead.chars().all(char::is_alphabetic) && unit.is_empty() && !number.contains('.')
        {
            // `utf-8` and `utf8`, `sha-256` and `sha256`.
            self.push(bare, format!("{lead}{number}"), Sort::Identifier, quoted);
        } else {
            self.identifier(bare, quoted);
        }
    }

    fn identifier(&mut self, bare: &'t str, quoted: bool) {
        let name = bare.strip_suffix("()").unwrap_or(bare);
        let name = name.strip_suffix("(s)").unwrap_or(name);
        let name = dress::decorator(name).unwrap_or(name);
        if name != bare && name.chars().all(char::is_alphanumeric) {
            self.bare(name, quoted);
        } else if dress::is_exact(name) {
            self.push(bare, name.into(), Sort::Identifier, quoted);
        } else {
            self.push(bare, name.to_lowercase(), Sort::Identifier, quoted);
        }
    }
}

/// Whether the commas of a number part its thousands.
fn is_grouped(number: &str) -> bool {
    let mut groups = number.split([',', '_']);
    groups.next().is_some_and(|first| first.len() <= 3 || !number.contains(','))
        && groups.all(|group| group.split('.').next().is_some_and(|group| group.len() == 3))
}

/// The parts of `read/write`, `key-value` and `a,b`, if all are plain words.
fn plain_parts(bare: &str) -> Option<impl Iterator<Item = &str>> {
    const SEPARATORS: [char; 6] = ['-', '‐', '‑', '/', ',', '–'];
    let plain =
        |part: &str| !part.is_empty() && part.chars().all(|c| c.is_alphabetic() || c == '\'');
    let named = |part: &str| words::name(&part.to_lowercase()).is_some();
    let parts = bare.split(SEPARATORS);
    parts.clone().all(|part| plain(part) || named(part)).then_some(parts)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: &str) {
        let found: Vec<_> = words(text).into_iter().map(|word| word.form).collect();
        assert_eq!(found.join(" "), expected, "{text}");
    }

    #[test]
    fn one_thing_is_one_however_it_is_written() {
        check("What’s “age”?", "what is age");
        check("don't, can't; won't", "do not can not will not");
        check("a 10GB file, 10 GB", "a 10 gb file 10 gb");
        check("UTF-8 utf8 sha-256", "utf8 utf8 sha256");
        check("python3.8 Python 3.8", "python 3.8 python 3.8");
        check("read/write key-value", "read write key value");
        check("foo() @property foo.bar()", "foo @property foo.bar");
        check("In Go, go on. Go: golang", "in golang go on golang golang");
        check("Node.js nodejs C++ cpp", "node node c++ c++");
        check("the dog's users'", "the dog users");
        check("v1.2 1,000 8080:80", "1.2 1000 8080:80");
    }

    #[test]
    fn operators_and_flags_stay() {
        check("`is` and `==`?", "is and ==");
        check("-v or -V --no-ff", "-v or -V --no-ff");
        check("a - b: c", "a b c");
    }

    #[test]
    fn what_is_quoted_or_in_capitals_is_literal() {
        let literal = |text| words(text).into_iter().filter(|word| word.literal).count();
        assert_eq!(literal("use `is not` here"), 2);
        assert_eq!(literal("use IN or EXISTS"), 2);
        assert_eq!(literal("HOW DO I DO THIS"), 0);
        assert_eq!(literal("I have A plan"), 0);
    }
}
