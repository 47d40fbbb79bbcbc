//! Do two answers say the same? What their text alone can tell. Pure.

use super::veto::{Wording, veto};
use crate::digest::Digest;

/// Answers up to here are judged by their words: vectors of short texts hardly differ in a number.
const SHORT_BYTES: usize = 240;

/// What their text tells of two answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Same {
    /// They are equal, but for space.
    Text,
    /// They are short, and every word that matters agrees.
    Words,
    /// They are short, and some do not.
    Not,
}

/// Whether two answers say the same; `None` where only their vectors, or a reader, could tell.
#[must_use]
pub fn say_the_same(earlier: &str, fresh: &str) -> Option<Same> {
    if str::split_whitespace(earlier).eq(str::split_whitespace(fresh)) {
        return Some(Same::Text);
    }
    let short = earlier.len() <= SHORT_BYTES && fresh.len() <= SHORT_BYTES;
    short.then(|| match veto(&wording(earlier), &wording(fresh)) {
        Ok(()) => Same::Words,
        Err(_) => Same::Not,
    })
}

fn wording(text: &str) -> Wording {
    Wording::of(text, &|word| {
        let mut digest = Digest::new("word");
        digest.text(word);
        let short = digest.short();
        u32::from_le_bytes([short[0], short[1], short[2], short[3]])
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn space_means_nothing_and_words_of_short_answers_everything() {
        let check = |earlier: &str, fresh: &str, expected| {
            assert_eq!(say_the_same(earlier, fresh), expected, "{earlier:?} {fresh:?}");
        };
        check("Use `git reset`.\n", "Use  `git reset`.", Some(Same::Text));
        check("Please use git reset.", "Use git reset", Some(Same::Words));
        check("Use git reset --soft.", "Use git reset --hard.", Some(Same::Not));
        check("The limit is 10.", "The limit is 100.", Some(Same::Not));
        let long = "It depends on many things. ".repeat(12);
        check(&long, &format!("{long} Really."), None);
        check(&long, &long.replace(' ', "\n"), Some(Same::Text));
    }
}
