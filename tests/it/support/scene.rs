//! A place in a file where an editor asks, and everything that it says when it asks.

use bytes::Bytes;
use http::Request;
use serde_json::{Map, Value, json};

use super::{client::request, dice::Dice, tasks::Task};

/// How an editor's request looks.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Shape {
    OpenAi,
    LlamaCpp,
    Tabby,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Scene {
    /// Stands before `mark`; a window loses it.
    pub(crate) top: String,
    /// A comment that no other case has. No edit touches it.
    pub(crate) mark: String,
    pub(crate) prefix: String,
    /// What the user has typed since.
    pub(crate) typed: String,
    pub(crate) suffix: Option<String>,
    /// What the model would write at `prefix`.
    pub(crate) answer: String,
    /// So many characters at the front were not sent.
    pub(crate) lost: usize,
    pub(crate) key: &'static str,
    pub(crate) shape: Shape,
    pub(crate) more: Map<String, Value>,
}

const COMMENTS: [&str; 6] = [
    "# Skip the empty ones",
    "# Count from zero, not from one",
    "# The smallest comes first",
    "# Must not change its argument",
    "# Upper case stays upper case",
    "# Return all of them, in order",
];

impl Scene {
    /// A place in `task`: at its line's start or in it, with a comment or two above.
    pub(crate) fn new(number: usize, tasks: &[Task], dice: &mut Dice) -> Self {
        let task = dice.pick(tasks).unwrap();
        let other = &dice.pick(tasks).unwrap().line;
        let at = if dice.percent(50) { 0 } else { dice.below(task.line.len() / 2) };
        let at = (at..).find(|&at| task.line.is_char_boundary(at)).unwrap();
        let (lead, rest) = task.line.split_at(at);
        let (above, indented) = task.prompt.split_at(task.prompt.rfind('\n').unwrap() + 1);
        let comment = dice.pick(&COMMENTS).unwrap();
        let prefix = format!("{above}{indented}{comment}\n{indented}{lead}");
        let answer = match dice.percent(50) {
            true => format!("{rest}\n{indented}{other}"),
            false => rest.to_owned(),
        };
        let suffix =
            if dice.percent(50) { format!("\n{}", task.suffix) } else { task.suffix.clone() };
        Self {
            top: String::new(),
            mark: mark(number),
            prefix,
            typed: String::new(),
            suffix: Some(suffix),
            answer,
            lost: 0,
            key: "nh-dev",
            shape: Shape::OpenAi,
            more: Map::new(),
        }
    }

    /// All before the cursor, as it is sent.
    pub(crate) fn before(&self) -> String {
        let whole = format!("{}{}\n{}{}", self.top, self.mark, self.prefix, self.typed);
        whole.chars().skip(self.lost).collect()
    }

    pub(crate) fn request(&self, streamed: bool) -> Request<Bytes> {
        let (before, suffix) = (self.before(), &self.suffix);
        let (path, mut body) = match self.shape {
            Shape::OpenAi => {
                ("/v1/completions", json!({"model": "fake", "prompt": before, "suffix": suffix}))
            }
            Shape::LlamaCpp => (
                "/infill",
                json!({"model": "fake", "input_prefix": before, "input_suffix": suffix}),
            ),
            Shape::Tabby => {
                ("/v1/completions", json!({"segments": {"prefix": before, "suffix": suffix}}))
            }
        };
        if self.shape != Shape::Tabby {
            body["stream"] = json!(streamed);
        }
        for (name, value) in &self.more {
            match (body.get_mut(name), value) {
                (Some(Value::Object(inside)), Value::Object(more)) => inside.extend(more.clone()),
                _ => body[name] = value.clone(),
            }
        }
        let mut request = request(path, &body, &[]);
        let key = format!("Bearer {}", self.key).parse().unwrap();
        request.headers_mut().insert(http::header::AUTHORIZATION, key);
        request
    }

    /// Says something more; an object is added to what is said under that name already.
    pub(crate) fn say(&mut self, name: &str, value: Value) {
        self.more.insert(name.to_owned(), value);
    }

    /// The user types some of the answer, but leaves two visible characters of its first line.
    pub(crate) fn type_into(&mut self, dice: &mut Dice) -> Option<()> {
        let first = self.answer.split('\n').next().unwrap();
        let ends: Vec<usize> = first
            .char_indices()
            .map(|(at, _)| at)
            .filter(|&at| at > 0 && visible(&first[at..]) >= 2)
            .collect();
        self.typed = self.answer[..*dice.pick(&ends)?].to_owned();
        Some(())
    }
}

pub(crate) fn visible(text: &str) -> usize {
    text.chars().filter(|character| !character.is_whitespace()).count()
}

const MARK: &str = "# case ";

fn mark(number: usize) -> String {
    format!("{MARK}{number:08}")
}

/// The number of the case that a prompt belongs to.
pub(crate) fn number(prompt: &str) -> Option<usize> {
    let at = prompt.find(MARK)? + MARK.len();
    prompt.get(at..at + 8)?.parse().ok()
}
