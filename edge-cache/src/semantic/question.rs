//! What of a chat question may be looked up by what it means. Pure.
//!
//! An answer is found for a question that says the same in other words; so the question has to say
//! all that the answer depends on. One that points at a file, at earlier turns or at the moment does
//! not, nor does code, where a character is the difference. `veto.rs` compares what is let in here.

mod courtesy;

use std::{collections::HashMap, sync::LazyLock};

pub(crate) use self::courtesy::normalised;
use super::secret::has_secret;

/// Why a question is not looked up, and its answer not stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unsuited {
    /// More than a question: most embedders read no more of it.
    TooLong,
    /// Too few words to tell what is meant.
    TooShort,
    /// It has code.
    Code,
    /// It points at something outside, or at the moment.
    Volatile,
    /// It has a secret or personal data.
    Secret,
    /// Control characters, or hardly any letters.
    NotText,
}

impl Unsuited {
    /// For metric labels.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::TooLong => "too-long",
            Self::TooShort => "too-short",
            Self::Code => "code",
            Self::Volatile => "volatile",
            Self::Secret => "secret",
            Self::NotText => "not-text",
        }
    }
}

/// A longer text is no question.
pub(crate) const QUESTION_BYTES_MAX: usize = 512;

/// A shorter one has too little in it.
pub(crate) const QUESTION_WORDS_MIN: usize = 3;

/// Whether a question may be looked up.
///
/// # Errors
/// Why it may not.
pub(crate) fn judge(text: &str) -> Result<(), Unsuited> {
    if text.len() > QUESTION_BYTES_MAX {
        return Err(Unsuited::TooLong);
    }
    if !is_text(text) {
        return Err(Unsuited::NotText);
    }
    if has_secret(text) {
        return Err(Unsuited::Secret);
    }
    if has_code(text) {
        return Err(Unsuited::Code);
    }
    let words = text.split_whitespace().filter(|word| word.contains(char::is_alphanumeric));
    if words.count() < QUESTION_WORDS_MIN {
        return Err(Unsuited::TooShort);
    }
    if is_volatile(text) { Err(Unsuited::Volatile) } else { Ok(()) }
}

/// Half of it letters, and nothing that does not show.
fn is_text(text: &str) -> bool {
    let hidden = |c: char| {
        (c.is_control() && !matches!(c, '\n' | '\r' | '\t'))
            || matches!(c, '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}')
            || matches!(c, '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffd}')
    };
    let shown = text.chars().filter(|c| !c.is_whitespace()).count();
    let letters = text.chars().filter(|c| c.is_alphabetic()).count();
    !text.contains(hidden) && letters * 2 >= shown
}

fn has_code(text: &str) -> bool {
    let symbols = |line: &str| {
        line.chars()
            .filter(|c| {
                matches!(
                    c,
                    '{' | '}' | ';' | '=' | '(' | ')' | '<' | '>' | '[' | ']' | '|' | '&' | '$'
                )
            })
            .count()
    };
    let long = |line: &str| line.len() >= 100 && symbols(line) * 8 >= line.len();
    // Several statements in one line.
    let statements = |line: &str| line.matches("; ").count() + line.matches(") {").count() >= 3;
    text.contains("```")
        || text.lines().filter(|line| is_code_line(line)).count() >= 2
        || text.lines().any(|line| long(line) || statements(line))
}

fn is_code_line(line: &str) -> bool {
    const STARTS: [&str; 34] = [
        "def ",
        "fn ",
        "pub ",
        "let ",
        "const ",
        "var ",
        "func ",
        "function ",
        "class ",
        "import ",
        "from ",
        "return ",
        "return;",
        "public ",
        "private ",
        "protected ",
        "static ",
        "#include",
        "#define",
        "package ",
        "using ",
        "namespace ",
        "struct ",
        "enum ",
        "impl ",
        "elif ",
        "else:",
        "except ",
        "} ",
        "@",
        "//",
        "$ ",
        ">>> ",
        "FROM ",
    ];
    let bare = line.trim();
    let indented = line.starts_with("    ") || line.starts_with('\t');
    let ends = bare.ends_with(['{', '}', ';', '\\'])
        || bare.ends_with("):")
        || bare.ends_with("=>")
        || bare.ends_with(");");
    let marks = bare.contains(['=', '(', '{', '<', ';', '"']);
    bare.contains(char::is_alphanumeric)
        && (ends
            || (indented && marks)
            || (marks && STARTS.iter().any(|start| bare.starts_with(start))))
        || matches!(bare, "{" | "}" | "};" | "})" | "});" | ");")
}

/// What points outside the question: words in a row, each with its alternatives; `$` is the end.
const OUTSIDE: &str = "\
    today
    tonight
    yesterday
    tomorrow
    nowadays
    currently
    right now
    just now
    at the moment
    these days
    what|which is|are the latest|newest
    latest|newest version|versions|release|releases|stable|lts|news|update|updates|features|docs|model|models|python|node|rust|go|java|react|kubernetes|docker|ubuntu
    is|does|do|are now
    now is|are|supported|available|$
    most recent version|release
    up to date version|list
    what|which is the|my|our current
    current version|release|lts|price|status|weather|president|stable|time in
    as of
    so far
    this week|month|year|morning|evening|quarter
    this file|files|code|codebase|function|method|class|snippet|script|query|project|repo|repository|pr|diff|commit|branch|selection|line|lines|block|bug|log|logs|output|trace|stacktrace|document|doc|page|article|text|conversation|chat|thread|answer|issue|error|exception|test|tests|program|app|application|module|component|variable|loop|regex|expression|statement|schema|config|configuration|image|screenshot|picture|example|json|yaml|sql|url|link|website|folder|directory|api|endpoint|implementation|change|changes
    these files|functions|methods|classes|lines|changes|errors|tests|logs|commits|results
    those files|functions|methods|classes|lines|changes|errors|tests
    that file|code|snippet|query|error|answer|bug
    the|a file|code|function|method|class|snippet|example|error|query|text|table|list above|below
    above|below code|example|snippet|function|error|query|text|list|table|file
    see|shown|described|mentioned|listed|given|pasted|written above|below
    the above
    the below
    the following
    as follows
    following code|function|snippet|query|error|text|file|list
    here is|are my|the|a|an|some
    here's my|the|a|an|some
    heres my|the
    attached
    attachment
    pasted
    selected code|text|lines|function|file
    highlighted code|text|lines
    my|the|current selection
    open|opened file|editor|tab
    my|our code|codebase|project|repo|repository|diff|pr|implementation|logs
    our code|codebase|project|repo|repository|service|services|api|team|company|product|app|application|system|platform|database|schema|cluster|backend|frontend|website
    my cursor
    you said|mentioned|wrote|told|suggested|gave|just
    your answer|response|code|suggestion|example|solution|previous|last|explanation
    previous|last|earlier answer|question|message|response|reply
    try again
    tell me more
    more details|detail
    explain more|further|again
    say|explain|do|repeat that|it again
    same thing|question but|again
    like|as before
    as i|you said|mentioned
    the other one
    weather
    stock price
    exchange rate
    who are you
    are you
    my name|location|account";

/// What begins a question that goes on with another.
const CONTINUING: &str = "\
    and
    but
    also
    what about
    how about
    then
    or
    it
    they
    that
    those
    continue
    go on
    why does|did|doesn't it|this
    why is|isn't|was it|this not|so|slow|failing|broken|wrong|needed|$
    what does it|that|this do|mean $
    what is|are|does this|that|these|those
    what's this|that
    how does|do|can|should it|this
    how do|can|should|would|to i|we fix|use|do|run|test|change|improve|make it|this
    is|does|will|should it|this work|compile|run|correct|right
    fix|explain|refactor|rewrite|review|translate|summarize|summarise|improve|optimize|test|simplify|shorten it|this
    can|could you fix|explain|refactor|rewrite|review|translate|summarize|summarise|improve|optimize|test|simplify|shorten it|this
    again
    instead
    yes
    no
    ok";

type Phrases = HashMap<&'static str, Vec<Vec<Vec<&'static str>>>>;

fn phrases(table: &'static str) -> Phrases {
    let mut found = Phrases::new();
    for line in table.lines() {
        let words: Vec<Vec<&str>> =
            line.split_whitespace().map(|word| word.split('|').collect()).collect();
        for first in &words[0] {
            found.entry(first).or_default().push(words.clone());
        }
    }
    found
}

static OUTSIDE_PHRASES: LazyLock<Phrases> = LazyLock::new(|| phrases(OUTSIDE));
static CONTINUING_PHRASES: LazyLock<Phrases> = LazyLock::new(|| phrases(CONTINUING));

/// Whether the answer depends on more than the question.
fn is_volatile(text: &str) -> bool {
    // `now()` and `:latest` are code, so no words.
    let words = text.split_whitespace().map(|word| {
        let word = word
            .trim_matches([',', '.', '?', '!', ':', ';', '(', ')'])
            .to_lowercase()
            .replace('’', "'");
        word.strip_suffix("'s")
            .filter(|word| *word != "here" && *word != "what")
            .map_or(word.clone(), Into::into)
    });
    let words: Vec<String> = words.filter(|word| !word.is_empty()).collect();
    let begins = |phrases: &Phrases, words: &[String]| {
        let phrases = words.first().and_then(|first| phrases.get(&**first));
        phrases.into_iter().flatten().any(|phrase| {
            phrase.iter().enumerate().all(|(at, any)| match words.get(at) {
                Some(word) => any.contains(&&**word),
                None => at == words.len() && any.contains(&"$"),
            })
        })
    };
    let last = words.last().map_or("", String::as_str);
    matches!(last, "above" | "below" | "here")
        || begins(&CONTINUING_PHRASES, &words)
        || (0..words.len()).any(|at| begins(&OUTSIDE_PHRASES, &words[at..]))
}

/// What answers that are none begin with.
const REFUSALS: [&str; 38] = [
    "i'm sorry",
    "i am sorry",
    "sorry",
    "i apologize",
    "i apologise",
    "apologies",
    "my apologies",
    "unfortunately",
    "as an ai",
    "as a language model",
    "as a large language model",
    "i cannot",
    "i can't",
    "i can not",
    "i'm not able to",
    "i am not able to",
    "i'm unable to",
    "i am unable to",
    "i won't",
    "i will not",
    "i must decline",
    "i have to decline",
    "i'm afraid",
    "i am afraid",
    "i don't have access",
    "i do not have access",
    "i don't have enough",
    "i do not have enough",
    "i don't know",
    "i do not know",
    "i'm not sure",
    "i am not sure",
    "i don't see",
    "i do not see",
    "could you please provide",
    "please provide",
    "could you provide",
    "it seems you",
];

/// Whether an answer is none: at its beginning it says so, or asks back.
#[must_use]
pub(crate) fn is_refusal(answer: &str) -> bool {
    let start = answer.trim_start().trim_start_matches(['*', '_', '"', '“', '>', '#', ' ']);
    let start: String = start.chars().take(48).map(|c| if c == '’' { '\'' } else { c }).collect();
    let start = start.to_lowercase();
    REFUSALS.iter().any(|refusal| {
        let rest = start.strip_prefix(refusal);
        rest.is_some_and(|rest| !rest.starts_with(|c: char| c.is_alphanumeric()))
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_question_that_says_all_may_be_looked_up() {
        for text in [
            "How do I sort a list of dicts by a key in Python?",
            "how do I print the current working directory in bash",
            "Why is `this` undefined in an arrow function?",
            "What does datetime.now() return?",
            "How do I get values above 10 from an array?",
            "How do I pull image:latest with Docker?",
            "how to undo my last commit",
            "Why does my loop never end in Go?",
            "Fix: TypeError: x is not a function",
            "Wie sortiere ich eine Liste in Python?",
        ] {
            assert_eq!(judge(text), Ok(()), "{text}");
        }
    }

    #[test]
    fn the_others_may_not() {
        let check = |text: &str, expected| assert_eq!(judge(text), Err(expected), "{text}");
        check(&"word ".repeat(103), Unsuited::TooLong);
        check("sort list", Unsuited::TooShort);
        check("?? ?? ??", Unsuited::NotText);
        check("", Unsuited::TooShort);
        check("what does ```x``` do here and there", Unsuited::Code);
        check("Explain:\nlet x = 1;\nlet y = x;\n", Unsuited::Code);
        check("why\n    x = f(1)\n    y = g(2)\nfails", Unsuited::Code);
        check(
            "for (let i = 0; i < n; i++) { a[i] = b[i]; c(i); } never ends, why?",
            Unsuited::Code,
        );
        check("what is the latest version of Rust?", Unsuited::Volatile);
        check("Which Node versions are currently supported?", Unsuited::Volatile);
        check("How do I refactor this function?", Unsuited::Volatile);
        check("What does the code above do?", Unsuited::Volatile);
        check("What is wrong with the following query?", Unsuited::Volatile);
        check("explain my selection in short", Unsuited::Volatile);
        check("why does it not compile?", Unsuited::Volatile);
        check("and how do I do that in Go?", Unsuited::Volatile);
        check("What about the other approach?", Unsuited::Volatile);
        check("what day is it today", Unsuited::Volatile);
        check("why does password=hunter2 fail", Unsuited::Secret);
        check("what is \u{1b}[31m this colour", Unsuited::NotText);
        check("what\u{202e} does this do", Unsuited::NotText);
        check("how much is 1234567890 * 9876543210 / 42", Unsuited::NotText);
    }

    #[test]
    fn a_refusal_is_no_answer() {
        for text in [
            "I'm sorry, but I can't help with that.",
            "I’m sorry, I cannot do this",
            "As an AI language model, I",
            "I cannot help with that.",
            "  Sorry, no.",
            "**Unfortunately**, that is not",
            "I don't have access to your files.",
            "Could you please provide the code?",
        ] {
            assert!(is_refusal(text), "{text}");
        }
        for text in [
            "Use `sorted`.",
            "I would use a map.",
            "Sorrym is a tool",
            "As an aid, use tmux",
            "You cannot do that in Go.",
        ] {
            assert!(!is_refusal(text), "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_judged(text in "(?s).{0,200}") {
            let _ = judge(&text);
            let _ = is_refusal(&text);
        }
    }
}
