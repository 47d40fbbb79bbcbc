//! Tokens back to text, piece by piece: whole characters only, and nothing past a stop string.

use crate::model::Tokenizer;

/// The text of a growing sequence of tokens.
///
/// A token can be half a character, so text is held back while it ends in one. Decoding starts a
/// few tokens before the new one, because some tokenizers write a token differently at the start
/// of a text than inside it; before the first stand those of a text that is never given out.
#[derive(Debug)]
pub(crate) struct Detokenizer {
    tokens: Vec<u32>,
    /// Where decoding starts.
    context: usize,
    /// Up to here, text has been given out.
    given: usize,
}

impl Detokenizer {
    pub(crate) fn new(tokenizer: &Tokenizer) -> Self {
        let tokens = tokenizer.anchor().to_vec();
        Self { context: 0, given: tokens.len(), tokens }
    }

    /// Adds a token; returns the text that is now certain, which may be empty.
    pub(crate) fn push(&mut self, token: u32, tokenizer: &Tokenizer) -> String {
        self.tokens.push(token);
        let before = tokenizer.decode(&self.tokens[self.context..self.given]);
        let now = tokenizer.decode(&self.tokens[self.context..]);
        if now.ends_with('\u{FFFD}') && self.tokens.len() - self.given < HELD_TOKENS_MAX {
            return String::new();
        }
        let text = now.get(before.len()..).unwrap_or_default().to_owned();
        self.context = self.given;
        self.given = self.tokens.len();
        text
    }

    /// What was held back, at the end.
    pub(crate) fn finish(&mut self, tokenizer: &Tokenizer) -> String {
        let before = tokenizer.decode(&self.tokens[self.context..self.given]);
        let now = tokenizer.decode(&self.tokens[self.context..]);
        self.given = self.tokens.len();
        now.get(before.len()..).unwrap_or_default().to_owned()
    }
}

/// A character has at most four bytes, so at most four tokens; more is a real U+FFFD.
const HELD_TOKENS_MAX: usize = 5;

/// Ends a text at the stop string that is complete first. It may arrive in pieces.
#[derive(Debug)]
pub(crate) struct StopStrings {
    stops: Vec<String>,
    /// Text that could be the beginning of a stop string.
    held: String,
}

/// What to give out after a piece of text.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Stopped {
    /// This text is certain; go on.
    No(String),
    /// This text came before the stop string; end here.
    Yes(String),
}

impl StopStrings {
    pub(crate) fn new(stops: Vec<String>) -> Self {
        Self { stops, held: String::new() }
    }

    pub(crate) fn push(&mut self, text: &str) -> Stopped {
        if self.stops.is_empty() {
            return Stopped::No(text.to_owned());
        }
        self.held.push_str(text);
        // The one that is complete first: which it is must not depend on the pieces.
        let found = self.stops.iter().filter_map(|stop| {
            let start = self.held.find(stop.as_str())?;
            Some((start + stop.len(), start))
        });
        if let Some((_, start)) = found.min() {
            self.held.truncate(start);
            return Stopped::Yes(std::mem::take(&mut self.held));
        }
        let certain = self.held.len() - self.possible_start();
        let rest = self.held.split_off(certain);
        Stopped::No(std::mem::replace(&mut self.held, rest))
    }

    /// What was held back, when the text ended without a stop string.
    pub(crate) fn finish(&mut self) -> String {
        std::mem::take(&mut self.held)
    }

    /// Bytes at the end of `held` that could begin a stop string.
    fn possible_start(&self) -> usize {
        let starts = |length: &usize| {
            let from = self.held.len() - length;
            self.held.is_char_boundary(from)
                && self.stops.iter().any(|stop| stop.starts_with(&self.held[from..]))
        };
        let longest = self.stops.iter().map(String::len).max().unwrap_or(0);
        (1..=longest.min(self.held.len())).rev().find(starts).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn run(stops: &[&str], pieces: &[&str]) -> (String, bool) {
        let mut filter = StopStrings::new(stops.iter().map(|stop| (*stop).to_owned()).collect());
        let mut out = String::new();
        for piece in pieces {
            match filter.push(piece) {
                Stopped::No(text) => out += &text,
                Stopped::Yes(text) => return (out + &text, true),
            }
        }
        (out + &filter.finish(), false)
    }

    #[test]
    fn a_stop_string_in_pieces_is_found_and_left_out() {
        assert_eq!(run(&["\n\n"], &["a\n", "\nb"]), ("a".into(), true));
        assert_eq!(run(&["end", "en"], &["x e", "n"]), ("x ".into(), true));
        assert_eq!(
            run(&["b", "abc"], &["abc"]),
            ("a".into(), true),
            "`b` is complete before `abc`"
        );
    }

    #[test]
    fn text_that_only_began_like_one_is_given_out() {
        assert_eq!(run(&["end"], &["x e", "n", "g"]), ("x eng".into(), false));
        assert_eq!(run(&["end"], &["x en"]), ("x en".into(), false));
        assert_eq!(run(&[], &["a", "b"]), ("ab".into(), false));
    }

    proptest! {
        #[test]
        fn pieces_do_not_matter(text in "[abé]{0,30}", stops in prop::collection::vec("[abé]{1,3}", 0..3), cut in 1usize..5) {
            let stops: Vec<&str> = stops.iter().map(String::as_str).collect();
            let chars: Vec<String> = text.chars().map(String::from).collect();
            let pieces: Vec<String> = chars.chunks(cut).map(|chunk| chunk.concat()).collect();
            let pieces: Vec<&str> = pieces.iter().map(String::as_str).collect();
            let found = stops.iter().filter_map(|stop| text.find(stop).map(|at| (at + stop.len(), at)));
            let first = found.min().map(|(_, start)| start);
            let (out, stopped) = run(&stops, &pieces);
            prop_assert_eq!(stopped, first.is_some());
            prop_assert_eq!(out.as_str(), &text[..first.unwrap_or(text.len())]);
        }
    }
}
