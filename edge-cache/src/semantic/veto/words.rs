//! The vocabulary of the veto: what may be left out of a question, what stands for what, and what
//! must never be taken for each other. Tables, and one look-up each.
//!
//! Written for questions of developers in English. A word that no table has is a content word: it
//! has to be in both questions. So a gap in these tables costs a hit, and a wrong line costs a wrong
//! answer: two words are synonyms here only where the answer would be the same.

mod phrases;
mod tables;

use std::{
    collections::{HashMap, HashSet},
    sync::LazyLock,
};

use super::stem::stem;
use phrases::{OPENERS, PHRASES};
use tables::{
    CONTRACTIONS, EXTRACTIONS, FUNCTION, LANGUAGES, NAMES, NEGATIONS, OPPOSITES, PREPOSITIONS,
    PRODUCTS, SYNONYMS, TYPES,
};

type Set = HashSet<&'static str>;
type Map = HashMap<&'static str, &'static str>;

fn set(table: &'static str) -> Set {
    table.split_whitespace().collect()
}

/// A line's words, for its first.
fn groups(table: &'static str) -> Map {
    let lines = table.lines().map(str::split_whitespace);
    lines
        .filter_map(|mut words| Some((words.next()?, words)))
        .flat_map(|(first, words)| words.map(move |word| (word, first)))
        .collect()
}

fn pairs(table: &'static str) -> Map {
    let lines = table.lines().filter_map(|line| line.trim().split_once(": "));
    lines.collect()
}

/// A phrase: its words, each with its alternatives, and what stands for it.
#[derive(Debug, Clone)]
pub(super) struct Phrase {
    pub(super) words: Vec<Vec<&'static str>>,
    pub(super) meaning: Vec<&'static str>,
}

/// Phrases by every first word, the longest first.
type Phrases = HashMap<&'static str, Vec<Phrase>>;

fn phrases_of(table: &'static str) -> Phrases {
    let mut found = Phrases::new();
    for (words, meaning) in table.lines().filter_map(|line| line.trim().split_once(" > ")) {
        let words = words.split(' ').map(|word| word.split('|').collect()).collect();
        let phrase = Phrase { words, meaning: meaning.split(' ').collect() };
        for first in &phrase.words[0] {
            found.entry(first).or_default().push(phrase.clone());
        }
    }
    for phrases in found.values_mut() {
        phrases.sort_by_key(|phrase| std::cmp::Reverse(phrase.words.len()));
    }
    found
}

static FUNCTION_WORDS: LazyLock<Set> = LazyLock::new(|| set(FUNCTION));
static NEGATION_WORDS: LazyLock<Set> = LazyLock::new(|| set(NEGATIONS));
static TYPE_WORDS: LazyLock<Set> = LazyLock::new(|| set(TYPES));
static EXTRACTION_WORDS: LazyLock<Set> = LazyLock::new(|| set(EXTRACTIONS));
static LANGUAGE_WORDS: LazyLock<Set> = LazyLock::new(|| set(LANGUAGES));
static PRODUCT_WORDS: LazyLock<Set> = LazyLock::new(|| set(PRODUCTS));
static CONTRACTED: LazyLock<Map> = LazyLock::new(|| pairs(CONTRACTIONS));
static NAME_GROUPS: LazyLock<Map> = LazyLock::new(|| groups(NAMES));
static PHRASE_RULES: LazyLock<Phrases> = LazyLock::new(|| phrases_of(PHRASES));
static OPENER_RULES: LazyLock<Phrases> = LazyLock::new(|| phrases_of(OPENERS));
/// By stem.
static SYNONYM_GROUPS: LazyLock<HashMap<String, String>> = LazyLock::new(|| {
    let groups = groups(SYNONYMS);
    groups.into_iter().map(|(word, first)| (stem(word), stem(first))).collect()
});
static OPPOSITE_WORDS: LazyLock<HashSet<String>> =
    LazyLock::new(|| OPPOSITES.split([' ', '/']).map(canonical).collect());
static PREPOSITION_SORTS: LazyLock<Map> = LazyLock::new(|| {
    let lines = PREPOSITIONS.lines().filter_map(|line| line.trim().split_once(": "));
    lines.flat_map(|(sort, words)| words.split_whitespace().map(move |word| (word, sort))).collect()
});

/// Whether a word says nothing of its own.
pub(super) fn is_function(word: &str) -> bool {
    FUNCTION_WORDS.contains(word)
}

/// The sort of clause that a preposition or a conjunction begins.
pub(super) fn preposition(word: &str) -> Option<&'static str> {
    PREPOSITION_SORTS.get(word).copied()
}

pub(super) fn is_negation(word: &str) -> bool {
    NEGATION_WORDS.contains(word)
}

/// Whether a canonical word has an opposite.
pub(super) fn has_opposite(word: &str) -> bool {
    OPPOSITE_WORDS.contains(word)
}

/// Whether a word is a type if it has a capital.
pub(super) fn is_type(word: &str) -> bool {
    TYPE_WORDS.contains(word)
}

/// Whether a canonical verb takes something out.
pub(super) fn is_extraction(word: &str) -> bool {
    EXTRACTION_WORDS.contains(word)
}

pub(super) fn is_language(name: &str) -> bool {
    LANGUAGE_WORDS.contains(name)
}

/// The name of a language or a product, one for all ways of writing it.
pub(super) fn name(word: &str) -> Option<&'static str> {
    let one = |word| LANGUAGE_WORDS.get(word).or_else(|| PRODUCT_WORDS.get(word)).copied();
    NAME_GROUPS.get(word).copied().or_else(|| one(word))
}

/// What a contraction stands for.
pub(super) fn contraction(word: &str) -> Option<&'static str> {
    CONTRACTED.get(word).copied()
}

/// The phrases that may begin with a word.
pub(super) fn phrases_with(word: &str) -> &'static [Phrase] {
    PHRASE_RULES.get(word).map_or(&[], Vec::as_slice)
}

/// The cues that only count where a sentence begins.
pub(super) fn openers_with(word: &str) -> &'static [Phrase] {
    OPENER_RULES.get(word).map_or(&[], Vec::as_slice)
}

/// One word for all that mean the same: names as they are, else the stem's synonym.
pub(super) fn canonical(word: &str) -> String {
    if let Some(name) = name(word) {
        return name.into();
    }
    let stem = stem(word);
    SYNONYM_GROUPS.get(&stem).cloned().unwrap_or(stem)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_synonyms_are_opposites() {
        for pair in OPPOSITES.split_whitespace() {
            let (one, other) = pair.split_once('/').unwrap();
            assert_ne!(canonical(one), canonical(other), "{pair}");
        }
    }

    #[test]
    fn no_word_has_two_meanings() {
        let mut seen = HashSet::new();
        for word in SYNONYMS.split_whitespace() {
            assert!(seen.insert(stem(word)) || stem(word) != word, "{word}");
        }
    }

    #[test]
    fn words_for_one_thing_are_one() {
        let check = |one: &str, other: &str| assert_eq!(canonical(one), canonical(other));
        check("dictionaries", "dict");
        check("k8s", "kubernetes");
        check("repositories", "repo");
        check("postgresql", "postgres");
        check("removing", "deleted");
        check("behaviours", "behavior");
        check("serialise", "serializing");
    }

    #[test]
    fn what_looks_alike_is_not() {
        let check = |one: &str, other: &str| assert_ne!(canonical(one), canonical(other));
        check("list", "array");
        check("function", "method");
        check("delete", "drop");
        check("revert", "undo");
        check("pip", "pipe");
        check("strip", "stripe");
        check("plan", "plane");
        check("state", "stats");
        check("string", "stringify");
        check("sorted", "sort");
    }
}
