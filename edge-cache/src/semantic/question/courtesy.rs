//! What of a question certainly means nothing: space, courtesies, the last mark. Pure.

/// Courtesies before a question.
const GREETINGS: [&str; 22] = [
    "please",
    "pls",
    "hi there",
    "hello there",
    "hey there",
    "hi",
    "hello",
    "hey",
    "thanks",
    "thank you",
    "good morning",
    "good evening",
    "can you please tell me",
    "could you please tell me",
    "can you tell me",
    "could you tell me",
    "can you please",
    "could you please",
    "would you please",
    "please tell me",
    "quick question",
    "question",
];

/// And after it.
const THANKS: [&str; 9] = [
    "please",
    "pls",
    "plz",
    "thanks in advance",
    "thank you in advance",
    "thank you very much",
    "thank you",
    "thanks",
    "thx",
];

/// First words whose capital means nothing.
const ORDINARY: [&str; 49] = [
    "a", "an", "and", "are", "at", "can", "could", "did", "do", "does", "explain", "for", "given",
    "has", "have", "how", "i'd", "i'm", "i've", "if", "in", "is", "my", "on", "should", "show",
    "tell", "the", "there", "to", "was", "we", "were", "what", "what's", "when", "where", "which",
    "who", "whose", "why", "will", "with", "would", "write", "describe", "give", "why's", "how's",
];

/// A question in a form that is equal only for such as certainly mean the same: less white space,
/// courtesies, the last mark, and what a word processor makes of quotes.
#[must_use]
pub(crate) fn normalised(text: &str) -> String {
    let plain = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let plain: String = plain
        .chars()
        .map(|c| match c {
            '‘' | '’' | '‛' => '\'',
            '“' | '”' | '„' => '"',
            '‐' | '‑' | '–' | '—' => '-',
            c => c,
        })
        .collect();
    let mut rest = unmarked(&plain);
    while let Some(shorter) = without_greeting(rest).or_else(|| without_thanks(rest)) {
        rest = shorter;
    }
    let first = rest.split(' ').next().unwrap_or_default();
    let lower = first.to_lowercase();
    if ORDINARY.contains(&&*lower) {
        format!("{lower}{}", &rest[first.len()..])
    } else {
        rest.into()
    }
}

/// Less the marks at its end, where they mark the end: `cd ..` has none.
fn unmarked(text: &str) -> &str {
    let text = text.trim();
    let bare = text.trim_end_matches(['?', '!', '.', ' ']);
    let marks = text[bare.len()..].trim();
    let word = bare.rsplit(' ').next().unwrap_or(bare);
    // `5!` is 120, and `?` alone is an operator.
    let ends =
        bare.ends_with(|c: char| c.is_alphanumeric() || matches!(c, '"' | '\'' | '`' | ')' | ']'));
    let factorial = marks.contains('!') && word.len() < 3;
    // `a?` and `a.` are expressions.
    let expression = word.chars().nth(1).is_none();
    let apart = text[bare.len()..].starts_with(' ') && marks != "?";
    if ends && !factorial && !expression && !apart { bare } else { text }
}

/// The rest after a courtesy, if one is there and something follows it.
fn without_greeting(text: &str) -> Option<&str> {
    GREETINGS.iter().find_map(|greeting| {
        let head = text.get(..greeting.len()).filter(|head| head.eq_ignore_ascii_case(greeting))?;
        let rest = &text[head.len()..];
        // A question of one word may be about that word.
        let marked = rest.trim_start_matches([',', '!', '.', ':']);
        let needs_mark = matches!(*greeting, "question" | "thanks" | "quick question");
        let apart = rest.starts_with(' ') && !needs_mark
            || marked.len() < rest.len() && marked.starts_with(' ');
        let rest = marked.trim_start_matches([',', '-', ' ']);
        (apart && rest.contains(' ')).then_some(rest)
    })
}

/// The rest before a courtesy.
fn without_thanks(text: &str) -> Option<&str> {
    THANKS.iter().find_map(|thanks| {
        let at = text.len().checked_sub(thanks.len())?;
        text.get(at..).filter(|tail| tail.eq_ignore_ascii_case(thanks))?;
        let rest = &text[..at];
        let bare = rest.trim_end_matches([',', '-', ' ', '.', '?', '!']);
        (rest.ends_with(' ') && bare.contains(' '))
            .then(|| unmarked(rest.trim_end_matches([',', '-', ' '])))
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_certainly_means_the_same_is_equal() {
        let check = |text, expected: &str| assert_eq!(normalised(text), expected, "{text}");
        check("  How  do I\nsort a list? ", "how do I sort a list");
        check("Hi, how do I sort a list?", "how do I sort a list");
        check("Hello! Please, how do I sort a list, thanks!", "how do I sort a list");
        check("How do I sort a list please", "how do I sort a list");
        check("How do I sort a list? Thank you.", "how do I sort a list");
        check("Could you tell me how to sort a list?", "how to sort a list");
        check("What’s a “closure”?", "what's a \"closure\"");
        check("how do I sort a list ?", "how do I sort a list");
    }

    #[test]
    fn nothing_else_is_touched() {
        let check = |text, expected: &str| assert_eq!(normalised(text), expected, "{text}");
        check("List of lists in Python", "List of lists in Python");
        check("useState is what?", "useState is what");
        check("How do I cd ..", "how do I cd ..");
        check("What is 5!", "what is 5!");
        check("What does JS do with ??", "what does JS do with ??");
        check("How do I match the regex a?", "how do I match the regex a?");
        check("Thanks giving app", "Thanks giving app");
        check("Hi", "Hi");
        check("please", "please");
        check("Can you run docker on Windows?", "can you run docker on Windows");
    }

    proptest! {
        #[test]
        fn normalising_twice_changes_nothing(text in "(Hi|hello|Please|thanks|how|What|C|a|\\.|\\?|!|,| |’|”){0,12}") {
            let once = normalised(&text);
            prop_assert_eq!(normalised(&once), once);
        }
    }
}
