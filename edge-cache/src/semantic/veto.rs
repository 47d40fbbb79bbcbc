//! May the answer to an earlier question stand for another one that embeds nearly alike? Pure.
//!
//! An embedding tells what a question is about, and hardly whether it says `ascending` or
//! `descending`, 8080 or 8081, `from A to B` or `from B to A`. So two questions must also agree in
//! their words: in each number, negation, name, and any other word that says something, in what kind
//! of answer they ask for, and in their order where order means something. `veto/words.rs` has what
//! may be left out and what stands for what.
//!
//! Nothing here is a measure, and nothing is learned: a veto has a name that one can look up. When
//! unsure, it is a veto; that costs a hit. It knows no more than English and its tables.

mod dress;
mod lex;
mod order;
mod read;
mod stem;
mod word;
mod words;

use serde::{Deserialize, Serialize};

use read::{Kind, Reading, Role, Term};
use word::Case;

/// What of a question must agree with another's, without its text: keyed hashes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wording {
    /// The words that must be in both, in ascending order: a hash, less its low bits, which are the
    /// word's capitals, and its kind, which counts for the verdict's name only.
    words: Box<[u32]>,
    /// Whether it is written with capitals, or with code set off as such.
    cased: bool,
    /// What kind of answer is asked for.
    purpose: u16,
    /// A hash of all of them in their order.
    order: u32,
}

/// Words that count one by one; the others only in their order.
pub(crate) const WORDS_MAX: usize = 96;

/// The bits of a word's hash that are its kind.
const KIND: u32 = 0b111;

/// The bits that are its capitals, and how far to the left.
const CASE_SHIFT: u32 = 3;
const CASE: u32 = 0b11 << CASE_SHIFT;

/// In what two questions differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Veto {
    /// A number, a version, a size.
    Numbers,
    /// One denies what the other does not.
    Negation,
    /// `ascending` and `descending`.
    Opposites,
    /// Code, or something quoted.
    Identifiers,
    /// A language, a product, a name.
    Names,
    /// Any other word.
    Words,
    /// `why` and `how`.
    Purpose,
    /// `from A to B` and `from B to A`.
    Order,
}

impl Veto {
    /// For metric labels.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Numbers => "numbers",
            Self::Negation => "negation",
            Self::Opposites => "opposites",
            Self::Identifiers => "identifiers",
            Self::Names => "names",
            Self::Words => "words",
            Self::Purpose => "purpose",
            Self::Order => "order",
        }
    }

    const fn of(kind: Kind) -> Self {
        match kind {
            Kind::Number => Self::Numbers,
            Kind::Negation => Self::Negation,
            Kind::Opposite => Self::Opposites,
            Kind::Identifier => Self::Identifiers,
            Kind::Name | Kind::Type => Self::Names,
            Kind::Word => Self::Words,
        }
    }
}

impl Wording {
    /// Bytes that it has elsewhere.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.words.len() * size_of::<u32>()
    }

    /// The wording of `text`, under a keyed hash.
    #[must_use]
    pub fn of(text: &str, hash: &dyn Fn(&str) -> u32) -> Self {
        let reading = read::read(text);
        let mut words: Vec<u32> =
            counted(&reading).map(|(term, kind)| marked(term, kind, hash)).collect();
        words.truncate(WORDS_MAX);
        words.sort_unstable();
        let order = hash(&order::arrangement(&reading));
        Self { words: words.into(), cased: reading.cased, purpose: reading.purpose, order }
    }
}

/// The terms that must be in both, with their kind; a name counts once.
fn counted<'a, 't>(reading: &'a Reading<'t>) -> impl Iterator<Item = (&'a Term<'t>, Kind)> {
    let mut names: Vec<&str> = Vec::new();
    reading.terms.iter().filter_map(move |term| match term.role {
        Role::Content(Kind::Name) if names.contains(&&*term.form) => None,
        Role::Content(kind) => {
            if kind == Kind::Name && names.len() < WORDS_MAX {
                names.push(&term.form);
            }
            Some((term, kind))
        }
        Role::Clause("without" | "unless" | "except" | "instead") => Some((term, Kind::Negation)),
        // These are in the order only.
        Role::Clause(
            "in" | "with" | "for" | "to" | "from" | "by" | "when" | "because" | "but" | "so"
            | "between" | "per" | "like" | "as",
        ) => None,
        Role::Clause("or") if order::compares(reading) => None,
        Role::Clause(_) => Some((term, Kind::Opposite)),
        Role::And | Role::Comma | Role::Stop => None,
    })
}

fn marked(term: &Term<'_>, kind: Kind, hash: &dyn Fn(&str) -> u32) -> u32 {
    let form = match term.role {
        Role::Clause(sort) => sort,
        _ => &term.form,
    };
    hash(form) & !(KIND | CASE) | (term.case as u32) << CASE_SHIFT | kind as u32
}

/// What only one has of two ascending lists, as often as it has it more than the other; and whether
/// something has other capitals in only one.
fn unmatched(ours: &[u32], theirs: &[u32]) -> ([Vec<u32>; 2], bool) {
    const WORD: u32 = !(KIND | CASE);
    const UNKNOWN: u32 = (Case::Unknown as u32) << CASE_SHIFT;
    let (mut left, mut right, mut cases) = (Vec::new(), Vec::new(), false);
    let case = |word: u32| Some(word & CASE).filter(|case| *case != UNKNOWN);
    let (mut ours, mut theirs) = (ours.iter().peekable(), theirs.iter().peekable());
    loop {
        match (ours.peek(), theirs.peek()) {
            (None, None) => return ([left, right], cases),
            (Some(our), Some(their)) if **our & WORD == **their & WORD => {
                cases |= case(**our).zip(case(**their)).is_some_and(|(our, their)| our != their);
                ours.next();
                theirs.next();
            }
            (Some(our), their) if their.is_none_or(|their| our < their) => {
                left.push(**our);
                ours.next();
            }
            _ => right.extend(theirs.next()),
        }
    }
}

/// Whether one's answer may stand for the other. Symmetric, and never against oneself.
///
/// # Errors
/// In what they differ; where that is several things, the most telling one.
pub(crate) fn veto(asked: &Wording, entry: &Wording) -> Result<(), Veto> {
    let ([left, right], cases) = unmatched(&asked.words, &entry.words);
    let kinds = left.iter().chain(&right).map(|word| word & KIND);
    if let Some(kind) = kinds.min().and_then(|kind| Kind::ALL.get(kind as usize)) {
        return Err(Veto::of(*kind));
    }
    if cases && asked.cased && entry.cased {
        Err(Veto::Names)
    } else if !read::agree(asked.purpose, entry.purpose) {
        Err(Veto::Purpose)
    } else if asked.order != entry.order {
        Err(Veto::Order)
    } else {
        Ok(())
    }
}

/// The words of the asked text that the entry lacks, in their order: to tell the asker why.
#[must_use]
pub(crate) fn differing_words<'t>(
    text: &'t str,
    hash: &dyn Fn(&str) -> u32,
    entry: &Wording,
) -> Vec<&'t str> {
    let asked = Wording::of(text, hash);
    let ([mut missing, _], _) = unmatched(&asked.words, &entry.words);
    let reading = read::read(text);
    let found = counted(&reading).filter_map(|(term, kind)| {
        let word = marked(term, kind, hash);
        let at = missing.iter().position(|missing| *missing == word)?;
        missing.swap_remove(at);
        Some(term.text)
    });
    let mut found: Vec<_> = found.collect();
    found.dedup();
    found
}

/// How many words the entry has and the asked text lacks.
#[must_use]
pub(crate) fn entry_only(asked: &Wording, entry: &Wording) -> usize {
    unmatched(&asked.words, &entry.words).0[1].len()
}

#[cfg(test)]
mod tests;

#[cfg(test)]
mod adversary;
