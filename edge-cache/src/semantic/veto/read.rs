//! From words to what they say: terms, and what kind of answer is asked for. Pure.

use super::{
    lex,
    stem::stem,
    word::{Case, Pause, Sort, Word},
    words::{self, Phrase},
};

/// What a question says.
#[derive(Debug)]
pub(super) struct Reading<'t> {
    pub(super) terms: Vec<Term<'t>>,
    pub(super) purpose: u16,
    /// Whether it is written with capitals: only then do they mean something.
    pub(super) cased: bool,
}

/// A word that means something, or that holds those that do together.
#[derive(Debug, Clone)]
pub(super) struct Term<'t> {
    /// The piece of the text.
    pub(super) text: &'t str,
    /// One form for all that mean the same.
    pub(super) form: String,
    pub(super) role: Role,
    /// Its capitals, if they may mean something.
    pub(super) case: Case,
    /// Which word of the text it is.
    pub(super) at: usize,
}

/// What a term does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// It must be in both questions.
    Content(Kind),
    /// Begins a clause of this sort.
    Clause(&'static str),
    /// Holds two operands together, where they are compared.
    And,
    /// Ends a clause.
    Comma,
    /// Ends a sentence.
    Stop,
}

/// What a content word is, the most telling first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(super) enum Kind {
    Number,
    Negation,
    Opposite,
    Identifier,
    Name,
    Word,
    /// `Map`, which is not `map`.
    Type,
}

impl Kind {
    pub(super) const ALL: [Self; 7] = [
        Self::Number,
        Self::Negation,
        Self::Opposite,
        Self::Identifier,
        Self::Name,
        Self::Word,
        Self::Type,
    ];
}

pub(super) const HOW: u16 = 1;
pub(super) const WHY: u16 = 1 << 1;
const WHAT: u16 = 1 << 2;
/// The difference between two things: their order means nothing.
pub(super) const DIFFERENCE: u16 = 1 << 3;
pub(super) const WHEN: u16 = 1 << 4;
pub(super) const WHICH: u16 = 1 << 5;
const WHERE: u16 = 1 << 6;
const WHO: u16 = 1 << 7;
const MANY: u16 = 1 << 8;
const SHOULD: u16 = 1 << 9;
const YES_OR_NO: u16 = 1 << 10;
const MECHANISM: u16 = 1 << 11;
const EXPLAIN: u16 = 1 << 12;
/// `what level should I use`, which is `which level`; but `what happens`.
const WHATEVER: u16 = 1 << 14;
/// `what does X mean`: then `mean` says nothing of its own.
const WHAT_DOES: u16 = 1 << 13;

/// The purpose that a cue speaks of; none for a courtesy.
fn purpose_of(cue: &str) -> u16 {
    match cue {
        // Whoever asks whether something can be done wants to know how.
        "@how" | "@possible" => HOW,
        "@why" => WHY,
        "@what" => WHAT,
        "@whatever" => WHATEVER,
        "@whatdoes" => WHAT | WHAT_DOES,
        "@difference" => DIFFERENCE,
        "@when" => WHEN,
        "@which" => WHICH,
        "@where" => WHERE,
        "@who" => WHO,
        "@many" => MANY,
        "@should" => SHOULD,
        "@yesno" => YES_OR_NO,
        "@mechanism" => MECHANISM,
        "@explain" => EXPLAIN,
        _ => 0,
    }
}

/// What kind of answer the cues of a text ask for.
fn purpose(cues: u16) -> u16 {
    let explain = cues & EXPLAIN != 0;
    let mut cues = cues & !(EXPLAIN | WHAT_DOES);
    if explain && cues & WHATEVER != 0 {
        // `explain what X does`.
        cues = cues & !WHATEVER | WHAT;
    }
    if cues & WHATEVER != 0 {
        cues = cues & !WHATEVER | if cues & (HOW | WHY | DIFFERENCE) == 0 { WHICH } else { 0 };
    }
    if cues & WHICH != 0 {
        return cues & (WHICH | WHEN | WHY);
    }
    if cues & DIFFERENCE != 0 {
        return cues & (DIFFERENCE | WHEN | WHY);
    }
    if cues & HOW != 0 {
        cues &= !MECHANISM;
    }
    match cues {
        0 if explain => WHAT,
        _ if cues & WHY != 0 => cues & !(WHAT | YES_OR_NO | MECHANISM),
        _ if cues & WHEN != 0 => cues & !(WHAT | SHOULD | HOW | YES_OR_NO),
        _ => cues,
    }
}

/// Whether one answer does for both. `python decorators` may be about what they are, or how to.
pub(super) fn agree(one: u16, other: u16) -> bool {
    one == other
        || (one == 0 && matches!(other, HOW | WHAT))
        || (other == 0 && matches!(one, HOW | WHAT))
}

/// What `text` says.
pub(super) fn read(text: &str) -> Reading<'_> {
    let words = lex::words(text);
    let cased = text.chars().find(|c| c.is_alphabetic()).is_some_and(char::is_uppercase)
        || text.contains('`');
    let mut reader =
        Reader { terms: Vec::new(), cues: 0, opening: true, at: 0, asker: false, ahead: false };
    while reader.at < words.len() {
        let behind = reader.at.checked_sub(1).and_then(|at| words.get(at));
        reader.asker = behind.is_some_and(|word| {
            matches!(&*word.form, "i" | "we" | "you" | "one" | "people" | "to" | "should" | "can")
        });
        reader.at += reader.next(&words[reader.at..]);
    }
    let mut reading = Reading { terms: reader.terms, purpose: purpose(reader.cues), cased };
    if reading.purpose == SHOULD && reading.terms.iter().any(|term| term.role == Role::Clause("or"))
    {
        reading.purpose = WHICH;
    }
    without_choice(&mut reading);
    without_repair(&mut reading);
    with_conversion(&mut reading);
    without_mean(&mut reading, reader.cues);
    reading
}

/// `how do I fix` an error asks for no more than the error does.
fn without_repair(reading: &mut Reading<'_>) {
    const ERRORS: [&str; 4] = ["error", "exception", "warning", "traceback"];
    const REPAIRS: [&str; 3] = ["fix", "solve", "resolve"];
    let is_content = |term: &Term<'_>| matches!(term.role, Role::Content(_));
    let error =
        |term: &Term<'_>| is_content(term) && ERRORS.iter().any(|error| term.form.ends_with(error));
    if matches!(reading.purpose, 0 | HOW) && reading.terms.iter().any(error) {
        reading.terms.retain(|term| !(is_content(term) && REPAIRS.contains(&&*term.form)));
    }
}

/// `which should I choose` is `which should I use`.
fn without_choice(reading: &mut Reading<'_>) {
    if reading.purpose & WHICH != 0 {
        let chosen = |term: &Term<'_>| ["choose", "prefer", "recommend"].contains(&&*term.form);
        reading.terms.retain(|term| !chosen(term));
    }
}

/// `turn X into Y` is `convert X to Y`.
fn with_conversion(reading: &mut Reading<'_>) {
    let into = |term: &Term<'_>| term.form == "into" && matches!(term.role, Role::Clause(_));
    if reading.terms.iter().any(into) {
        let turn = |term: &&mut Term<'_>| {
            ["turn", "modify", "transform"].contains(&&*term.form)
                && matches!(term.role, Role::Content(_))
        };
        if let Some(turn) = reading.terms.iter_mut().find(turn) {
            turn.form = words::canonical("convert");
        }
    }
}

fn without_mean(reading: &mut Reading<'_>, cues: u16) {
    if cues & WHAT_DOES != 0 {
        reading.terms.retain(|term| term.form != "mean");
    }
}

struct Reader<'t> {
    terms: Vec<Term<'t>>,
    cues: u16,
    /// Whether nothing was said yet in this sentence, except what it is about.
    opening: bool,
    /// How many words were read.
    at: usize,
    /// Whether the word behind is of whoever asks: `I`, `to`.
    asker: bool,
    /// Whether the word ahead ends an operand.
    ahead: bool,
}

impl<'t> Reader<'t> {
    /// Takes one phrase, or one word; how many words those were.
    fn next(&mut self, words: &[Word<'t>]) -> usize {
        let first = &words[0];
        self.opening |= first.begins;
        self.ahead = words.get(1).is_some_and(|next| matches!(&*next.form, "and" | "or" | "in"));
        let taken = match longest(words, self.opening).filter(|_| !is_versus(words)) {
            Some(phrase) => {
                self.phrase(phrase, words);
                phrase.words.len()
            }
            None if first.sort == Sort::Plain
                && (is_versus(words) || self.says(first, words.get(1))) =>
            {
                let form = if first.form == "just" { "only" } else { &first.form };
                let canonical = words::canonical(form);
                let kind = self.kind(&canonical, form, Kind::Word);
                self.content(first.text, &canonical, kind);
                1
            }
            None => {
                self.word(first);
                1
            }
        };
        match words[taken - 1].pause {
            Pause::None => {}
            Pause::Comma => self.push(words[taken - 1].text, "", Role::Comma),
            Pause::Stop => self.push(words[taken - 1].text, "", Role::Stop),
        }
        taken
    }

    /// Whether a word that is mostly left out says something here.
    fn says(&self, word: &Word<'_>, next: Option<&Word<'_>>) -> bool {
        let last = next.is_none() || word.pause == Pause::Stop;
        let before = |words: &[&str]| next.is_some_and(|next| words.contains(&&*next.form));
        let numbered = next.is_some_and(|next| {
            next.sort == Sort::Number
                || words::canonical(&next.form).starts_with(|c: char| c.is_ascii_digit())
        });
        match &*word.form {
            // `exactly 3`; but `what exactly`.
            "exactly" | "about" | "around" if numbered => true,
            // `log in`; but `log in Go`.
            "in" | "on" if last && self.is_after(&["log", "sign", "opt", "zoom", "check"]) => true,
            // `retry once`; but `once it is done`.
            "once" if last || before(&["per", "every", "each"]) => true,
            "just" => before(&["the", "these", "those"]),
            _ if self.opening => self.is_operand(word, last),
            "hello" | "hi" | "hey" => true,
            // `what does X need`; but `I need`.
            "need" | "needs" | "have" | "has" | "use" | "uses" | "want" | "wants" if last => {
                !self.asker
            }
            "was" | "were" => next.is_some_and(|next| next.form.ends_with("ing")),
            "will" => self.terms.last().is_some_and(|term| matches!(term.role, Role::Content(_))),
            _ => self.is_operand(word, last),
        }
    }

    fn is_after(&self, words: &[&str]) -> bool {
        self.terms.last().is_some_and(|term| words.contains(&&*term.form))
    }

    /// `let` in `let vs also`, and `is` in `the difference between is and ==`.
    fn is_operand(&self, word: &Word<'_>, last: bool) -> bool {
        is_minor(word) && self.joined() && (last || self.ahead)
    }

    /// Whether the word before holds operands together.
    fn joined(&self) -> bool {
        self.terms.last().is_some_and(|term| match term.role {
            Role::Clause("or") => true,
            Role::And | Role::Clause("between") => self.cues & (DIFFERENCE | WHEN | WHICH) != 0,
            _ => false,
        })
    }

    fn push(&mut self, text: &'t str, form: impl Into<String>, role: Role) {
        self.terms.push(Term { text, form: form.into(), role, case: Case::Unknown, at: self.at });
    }

    fn phrase(&mut self, phrase: &Phrase, words: &[Word<'t>]) {
        for meaning in &phrase.meaning {
            if let Some(number) = meaning.strip_prefix('=') {
                let kept = number.parse::<usize>().ok().and_then(|number| number.checked_sub(1));
                if let Some(word) = kept.and_then(|kept| words.get(kept)) {
                    self.word(word);
                }
            } else if *meaning == "@and" {
                self.push(words[0].text, "", Role::And);
            } else if meaning.starts_with('@') {
                let cue = purpose_of(meaning);
                self.cues |= cue;
                self.opening &= cue & !EXPLAIN == 0;
                if *meaning == "@difference" {
                    self.push(words[0].text, "", Role::Clause("between"));
                }
            } else {
                self.plain(words[0].text, meaning, false);
            }
        }
    }

    fn word(&mut self, word: &Word<'t>) {
        let before = self.terms.len();
        let is_type = word.sort == Sort::Plain && words::is_type(&word.form);
        match word.sort {
            Sort::Number => self.content(word.text, &words::canonical(&word.form), Kind::Number),
            Sort::Identifier => self.content(word.text, &word.form, Kind::Identifier),
            Sort::Plain if word.capital && is_type => {
                self.content(word.text, &words::canonical(&word.form), Kind::Type);
            }
            Sort::Plain if word.literal => self.literal(word),
            Sort::Plain => self.plain(word.text, &word.form, word.capital && !word.begins),
        }
        let code = (word.sort == Sort::Identifier && !word.form.chars().all(char::is_alphanumeric))
            || (word.ticked && word.form.chars().nth(1).is_some())
            || is_type;
        let case = match word.case {
            _ if !code || words::name(&word.form).is_some() => Case::Unknown,
            _ if word.begins && !word.ticked => Case::Unknown,
            Case::Mixed if is_type && !word.ticked => Case::Capital,
            case => case,
        };
        for term in &mut self.terms[before..] {
            term.case = case;
        }
    }

    /// A quoted word says something even where others like it say nothing.
    fn literal(&mut self, word: &Word<'t>) {
        let form = words::canonical(&word.form);
        let kind = self.kind(&form, &word.form, Kind::Identifier);
        self.content(word.text, &form, kind);
    }

    fn plain(&mut self, text: &'t str, form: &str, capital: bool) {
        if form == "and" {
            self.push(text, "", Role::And);
        } else if let Some(sort) = words::preposition(form) {
            self.push(text, form, Role::Clause(sort));
        } else if !words::is_function(form) {
            let canonical = words::canonical(form);
            let kind = self.kind(&canonical, form, if capital { Kind::Name } else { Kind::Word });
            self.content(text, &canonical, kind);
        }
    }

    fn kind(&self, canonical: &str, form: &str, otherwise: Kind) -> Kind {
        if words::name(form).is_some() {
            Kind::Name
        } else if canonical.starts_with(|c: char| c.is_ascii_digit()) {
            Kind::Number
        } else if words::is_negation(form) {
            Kind::Negation
        } else if words::has_opposite(canonical) {
            Kind::Opposite
        } else {
            otherwise
        }
    }

    fn content(&mut self, text: &'t str, form: &str, kind: Kind) {
        self.opening &= kind == Kind::Name;
        self.push(text, form, Role::Content(kind));
    }
}

/// The longest phrase that `words` begin with.
fn longest(words: &[Word<'_>], opening: bool) -> Option<&'static Phrase> {
    let first = words.first().filter(|word| is_plain(word))?;
    let stem = stem(&first.form);
    let by_stem = if stem == first.form { &[] } else { words::phrases_with(&stem) };
    let openers = if opening { words::openers_with(&first.form) } else { &[] };
    let phrases = words::phrases_with(&first.form).iter().chain(by_stem).chain(openers);
    phrases.filter(|phrase| matches(phrase, words)).max_by_key(|phrase| phrase.words.len())
}

/// Whether a word is mostly left out, or begins a clause.
fn is_minor(word: &Word<'_>) -> bool {
    words::is_function(&word.form) || words::preposition(&word.form).is_some()
}

/// `let` in `let vs also`; but not `on save in VS Code`.
fn is_versus(words: &[Word<'_>]) -> bool {
    let is = |at: usize, any: &[&str]| {
        words.get(at).is_some_and(|word: &Word<'_>| any.contains(&&*word.form))
    };
    is(1, &["vs", "versus"])
        && !is(2, &["code"])
        && words.first().is_some_and(|word| word.sort == Sort::Plain && is_minor(word))
}

fn is_plain(word: &Word<'_>) -> bool {
    word.sort == Sort::Plain && !(word.literal && words::is_function(&word.form))
}

fn matches(phrase: &Phrase, words: &[Word<'_>]) -> bool {
    let length = phrase.words.len();
    let Some(words) = words.get(..length) else { return false };
    let together = words[..length - 1].iter().all(|word| word.pause == Pause::None);
    together
        && phrase.words.iter().zip(words).all(|(any, word)| {
            is_plain(word) && (any.contains(&&*word.form) || any.contains(&&*stem(&word.form)))
        })
}
