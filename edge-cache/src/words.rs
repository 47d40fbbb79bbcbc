//! Identifiers in code, whatever its language. Pure.

/// The identifiers of `text`: runs of letters, digits and `_` that begin with no digit.
pub(crate) fn identifiers(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c| !is_part(c))
        .filter(|word| word.starts_with(|c: char| c.is_alphabetic() || c == '_'))
}

/// Whether a character may stand in an identifier.
pub(crate) fn is_part(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// Whether every identifier of `served` that stood in `lost` still stands in one of `kept`.
pub(crate) fn still_stand(served: &str, lost: &str, kept: [&str; 2]) -> bool {
    let stands = |text: &str, word: &str| identifiers(text).any(|known| known == word);
    identifiers(served)
        .filter(|word| stands(lost, word))
        .all(|word| kept.iter().any(|text| stands(text, word)))
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
