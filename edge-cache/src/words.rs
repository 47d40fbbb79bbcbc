//! Identifiers in code, whatever its language. Pure.

use std::collections::HashSet;

/// The identifiers of `text`: runs of letters, digits and `_` that begin with no digit.
pub(crate) fn identifiers(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c| !is_part(c))
        .filter(|word| word.starts_with(|c: char| c.is_alphabetic() || c == '_'))
}

/// Whether a character may stand in an identifier.
pub(crate) fn is_part(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// The word with which a text begins, or a part of one.
pub(crate) fn first_part(text: &str) -> &str {
    &text[..text.find(|c| !is_part(c)).unwrap_or(text.len())]
}

/// The word with which a text ends, or a part of one.
pub(crate) fn last_part(text: &str) -> &str {
    let end = text.char_indices().rev().take_while(|(_, c)| is_part(*c)).last();
    end.map_or("", |(at, _)| &text[at..])
}

/// Whether every identifier of `served` that stood in `lost` still stands in one of `kept`.
pub(crate) fn still_stand(served: &str, lost: &str, kept: [&str; 2]) -> bool {
    let lost: HashSet<&str> = identifiers(lost).collect();
    let mut named: HashSet<&str> = identifiers(served).filter(|word| lost.contains(word)).collect();
    for word in kept.iter().flat_map(|text| identifiers(text)) {
        if named.is_empty() {
            return true;
        }
        named.remove(word);
    }
    named.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifiers_are_found_in_any_language() {
        let found: Vec<_> = identifiers("let größe_2 = a.b(_c, 3x);").collect();
        assert_eq!(found, ["let", "größe_2", "a", "b", "_c"]);
    }

    #[test]
    fn what_the_window_lost_and_the_answer_names_must_stand_elsewhere() {
        let check = |served, lost, kept, expected| {
            assert_eq!(still_stand(served, lost, [kept, ""]), expected, "{served} {lost} {kept}");
        };
        check("total + x", "import numpy\n", "def f(total):\n", true);
        check("numpy.sum(x)", "import numpy\n", "def f(x):\n", false);
        check("numpy.sum(x)", "import numpy\n", "y = numpy.zeros(2)\n", true);
        check("num", "import numpy\n", "", true);
    }
}
