//! Edits of the text around the cursor.

use std::ops::Range;

use super::{Edit, text};
use crate::support::{dice::Dice, rules::may_end_in_text, scene::Scene};

pub(crate) const MUST_MISS: &[Edit] = &[
    text("a number", |_, then, dice| {
        let place =
            pick(&then.prefix, dice, |word| word.bytes().all(|byte| byte.is_ascii_digit()))?;
        let number: u64 = then.prefix[place.clone()].parse().ok()?;
        put(&mut then.prefix, place, &(number + 1).to_string())
    }),
    text("a string's content", |_, then, dice| {
        let quotes = [("'", "'"), ("\"", "\""), ("(\"", "\")")];
        let (open, close) = *dice.pick(&quotes)?;
        let start = then.prefix.find(open)? + open.len();
        let length = then.prefix[start..].find(close)?;
        put(&mut then.prefix, start..start + length, "something else")
    }),
    text("true and false", |_, then, dice| {
        let place = pick(&then.prefix, dice, |word| word == "True" || word == "False")?;
        let other = if &then.prefix[place.clone()] == "True" { "False" } else { "True" };
        put(&mut then.prefix, place, other)
    }),
    text("an operator", |_, then, dice| {
        const OPERATORS: [(&str, &str); 9] = [
            (" == ", " != "),
            (" != ", " == "),
            (" < ", " <= "),
            (" > ", " >= "),
            (" + ", " - "),
            (" - ", " + "),
            (" and ", " or "),
            (" in ", " not in "),
            (" = ", " += "),
        ];
        let there: Vec<_> =
            OPERATORS.iter().filter(|(from, _)| then.prefix.contains(from)).collect();
        let (from, to) = **dice.pick(&there)?;
        let at: Vec<usize> = then.prefix.match_indices(from).map(|(at, _)| at).collect();
        let at = *dice.pick(&at)?;
        put(&mut then.prefix, at..at + from.len(), to)
    }),
    text("an identifier renamed everywhere", |_, then, dice| {
        let place = pick(&then.prefix, dice, is_identifier)?;
        let name = then.prefix[place].to_owned();
        let places: Vec<_> =
            words(&then.prefix).filter(|place| then.prefix[place.clone()] == name).collect();
        for place in places.into_iter().rev() {
            put(&mut then.prefix, place, &format!("{name}_2"))?;
        }
        Some(())
    }),
    text("an identifier renamed once", |_, then, dice| {
        let place = pick(&then.prefix, dice, is_identifier)?;
        put(&mut then.prefix, place, "renamed")
    }),
    text("the identifier before the cursor", |_, then, _| {
        let last = words(&then.prefix)
            .filter(|place| is_identifier(&then.prefix[place.clone()]))
            .last()?;
        put(&mut then.prefix, last, "another")
    }),
    text("a letter's case", |_, then, dice| {
        let lower = |byte: &u8| byte.is_ascii_lowercase();
        let at = letter(&then.prefix, dice, lower)?;
        let upper = then.prefix[at..=at].to_uppercase();
        put(&mut then.prefix, at..at + 1, &upper)
    }),
    text("a word of a docstring", |_, then, dice| {
        let start = then.prefix.find("\"\"\"")?;
        let end = start + 3 + then.prefix[start + 3..].find("\"\"\"")?;
        let inside: Vec<_> =
            words(&then.prefix).filter(|place| place.start > start && place.end < end).collect();
        put(&mut then.prefix, dice.pick(&inside)?.clone(), "never")
    }),
    text("a word of a comment", |_, then, dice| {
        let lines = lines(&then.prefix, |line| line.trim_start().starts_with('#'));
        let line = dice.pick(&lines)?.clone();
        let inside: Vec<_> = words(&then.prefix)
            .filter(|place| line.start < place.start && place.end < line.end)
            .collect();
        put(&mut then.prefix, dice.pick(&inside)?.clone(), "never")
    }),
    text("a comment added", |_, then, dice| insert_line(then, dice, "# Not like this")),
    text("a comment added behind code", |_, then, dice| {
        let lines = lines(&then.prefix, |line| !line.trim().is_empty());
        let line = dice.pick(&lines)?.clone();
        put(&mut then.prefix, line.end - 1..line.end - 1, "  # twice")
    }),
    text("a comment deleted", |_, then, dice| {
        let lines = lines(&then.prefix, |line| line.trim_start().starts_with('#'));
        put(&mut then.prefix, dice.pick(&lines)?.clone(), "")
    }),
    text("a line deleted", |_, then, dice| {
        let lines = lines(&then.prefix, |line| !line.trim().is_empty());
        put(&mut then.prefix, dice.pick(&lines)?.clone(), "")
    }),
    text("a line twice", |_, then, dice| {
        let lines = lines(&then.prefix, |line| !line.trim().is_empty());
        let line = dice.pick(&lines)?.clone();
        let twice = then.prefix[line.clone()].repeat(2);
        put(&mut then.prefix, line, &twice)
    }),
    text("two lines swapped", |_, then, dice| {
        let lines = lines(&then.prefix, |line| !line.trim().is_empty());
        let pairs: Vec<_> = lines
            .windows(2)
            .filter(|pair| pair[0].end == pair[1].start)
            .filter(|pair| then.prefix[pair[0].clone()] != then.prefix[pair[1].clone()])
            .collect();
        let pair = dice.pick(&pairs)?;
        let swapped = format!("{}{}", &then.prefix[pair[1].clone()], &then.prefix[pair[0].clone()]);
        put(&mut then.prefix, pair[0].start..pair[1].end, &swapped)
    }),
    text("a line added at the top", |_, then, _| {
        then.top = "import os\n".to_owned();
        Some(())
    }),
    text("a line added", |_, then, dice| insert_line(then, dice, "total = 0")),
    text("a line added right above", |_, then, _| {
        let (at, indented) = cursor_line(&then.prefix);
        put(&mut then.prefix, at..at, &format!("{indented}total = 0\n"))
    }),
    text("a line's indentation", |_, then, dice| {
        let lines = lines(&then.prefix, |line| !line.trim().is_empty());
        let at = dice.pick(&lines)?.start;
        put(&mut then.prefix, at..at, " ")
    }),
    text("space inside a line", |_, then, dice| {
        let inside = |place: &Range<usize>| {
            let rest = &then.prefix[place.end..];
            rest.starts_with(' ') && !rest[..rest.find('\n').unwrap_or(0)].trim().is_empty()
        };
        let places: Vec<_> = words(&then.prefix).filter(inside).collect();
        let at = dice.pick(&places)?.end;
        put(&mut then.prefix, at..at, " ")
    }),
    text("the indentation of the cursor's line", |_, then, _| {
        let at = cursor_line(&then.prefix).0;
        put(&mut then.prefix, at..at, "  ")
    }),
    text("a tab in place of spaces", |_, then, dice| {
        let lines = lines(&then.prefix, |line| line.starts_with("    "));
        let at = dice.pick(&lines)?.start;
        put(&mut then.prefix, at..at + 4, "\t")
    }),
    text("an invisible character", |_, then, dice| {
        let at = letter(&then.prefix, dice, u8::is_ascii_alphabetic)?;
        put(&mut then.prefix, at..at, "\u{200b}")
    }),
    text("a letter that looks the same", |_, then, dice| {
        let at = letter(&then.prefix, dice, |&byte| byte == b'a')?;
        put(&mut then.prefix, at..at + 1, "\u{430}")
    }),
    text("a character of the suffix", |_, then, dice| {
        let suffix = then.suffix.as_mut()?;
        let at = letter(suffix, dice, u8::is_ascii_alphanumeric)?;
        put(suffix, at..at + 1, "_")
    }),
    text("a line of the suffix deleted", |_, then, dice| {
        let suffix = then.suffix.as_mut()?;
        let lines = lines(suffix, |line| !line.trim().is_empty());
        put(suffix, dice.pick(&lines)?.clone(), "")
    }),
    text("a line added to the suffix", |_, then, _| {
        then.suffix.as_mut()?.push_str("\nprint(1)\n");
        Some(())
    }),
    text("an indentation in the suffix", |_, then, dice| {
        let suffix = then.suffix.as_mut()?;
        let lines = lines(suffix, |line| !line.trim().is_empty());
        let at = dice.pick(&lines)?.start;
        put(suffix, at..at, "    ")
    }),
    text("the suffix's first line begins with space", |_, then, _| {
        let suffix = then.suffix.as_mut().filter(|suffix| !first_line(suffix).is_empty())?;
        suffix.insert(0, ' ');
        Some(())
    }),
    text("the suffix's first line goes one down", |_, then, _| {
        let suffix = then.suffix.as_mut().filter(|suffix| !first_line(suffix).is_empty())?;
        suffix.insert(0, '\n');
        Some(())
    }),
    text("the suffix emptied", |_, then, _| {
        let suffix = then.suffix.as_mut().filter(|suffix| !suffix.trim().is_empty())?;
        suffix.clear();
        Some(())
    }),
    text("line ends of another system", |_, then, _| {
        then.prefix = then.prefix.replace('\n', "\r\n");
        Some(())
    }),
    text("one line end of another system", |_, then, dice| {
        let at = dice.pick(&lines(&then.prefix, |_| true))?.end - 1;
        put(&mut then.prefix, at..at, "\r")
    }),
    text("a line of space of another kind added", |_, then, dice| {
        let space = *dice.pick(&OTHER_SPACE)?;
        let at = dice.pick(&free_lines(&then.prefix))?.start;
        put(&mut then.prefix, at..at, &format!("{space}\n"))
    }),
    text("space of another kind at a line's end", |_, then, dice| {
        let space = *dice.pick(&OTHER_SPACE)?;
        let at = dice.pick(&free_lines(&then.prefix))?.end - 1;
        put(&mut then.prefix, at..at, space)
    }),
    text("a blank line right above", |_, then, dice| {
        let blank = *dice.pick(&["\n", "\n\n", "    \n", "\t\n"])?;
        let at = cursor_line(&then.prefix).0;
        put(&mut then.prefix, at..at, blank)
    }),
    text("one blank line less right above", |first, then, dice| {
        let blank = *dice.pick(&["\n", "\n\n", "\n\n\n"])?;
        let at = cursor_line(&first.prefix).0;
        put(&mut first.prefix, at..at, blank)?;
        put(&mut then.prefix, at..at, &blank[1..])
    }),
    text("space in the blank line right above", |first, then, _| {
        let at = cursor_line(&first.prefix).0;
        put(&mut first.prefix, at..at, "\n")?;
        put(&mut then.prefix, at..at, "    \n")
    }),
    text("space added at the end of the suffix's first line", |_, then, _| {
        let suffix = then.suffix.as_mut()?;
        let at = suffix.find('\n')?;
        put(suffix, at..at, "  ")
    }),
];

/// Blank lines and space at line ends, where they are only for the eye.
pub(crate) const MAY_HIT: &[Edit] = &[
    text("a blank line added", |_, then, dice| add_blank_line(then, dice, "")),
    text("a line of space added", |_, then, dice| add_blank_line(then, dice, "        ")),
    text("space added at a line's end", |_, then, dice| add_space(then, dice)),
    text("a tab added at a line's end", |_, then, dice| {
        let at = dice.pick(&free_lines(&then.prefix))?.end - 1;
        put(&mut then.prefix, at..at, "\t")
    }),
    text("a blank line deleted", |first, _, dice| add_blank_line(first, dice, "")),
    text("a blank line added to the suffix", |_, then, _| {
        let suffix = then.suffix.as_mut()?;
        let line = suffix.find('\n')? + 1;
        put(suffix, line..line, "\n")
    }),
];

/// What is not blank to everybody.
const OTHER_SPACE: [&str; 6] = ["\u{c}", "\u{b}", "\u{a0}", "\u{2003}", "\u{85}", "\r"];

/// Something else in place of what is there.
pub(crate) fn put(text: &mut String, place: Range<usize>, with: &str) -> Option<()> {
    if text.get(place.clone())? == with {
        return None;
    }
    text.replace_range(place, with);
    Some(())
}

/// Words and numbers.
fn words(text: &str) -> impl Iterator<Item = Range<usize>> {
    let mut at = 0;
    text.split(|character: char| !(character.is_alphanumeric() || character == '_'))
        .map(move |word| {
            // What ends a word is one byte here: the tasks are ASCII.
            let start = at;
            at += word.len() + 1;
            start..start + word.len()
        })
        .filter(|place| !place.is_empty())
}

fn pick(text: &str, dice: &mut Dice, wanted: impl Fn(&str) -> bool) -> Option<Range<usize>> {
    let places: Vec<_> = words(text).filter(|place| wanted(&text[place.clone()])).collect();
    dice.pick(&places).cloned()
}

fn is_identifier(word: &str) -> bool {
    const KEYWORDS: [&str; 12] =
        ["def", "if", "else", "elif", "for", "in", "not", "and", "or", "return", "while", "import"];
    !word.as_bytes()[0].is_ascii_digit() && !KEYWORDS.contains(&word)
}

fn letter(text: &str, dice: &mut Dice, wanted: impl Fn(&u8) -> bool) -> Option<usize> {
    let places: Vec<_> = (0..text.len()).filter(|&at| wanted(&text.as_bytes()[at])).collect();
    dice.pick(&places).copied()
}

/// Whole lines, with their ends; the cursor's line is none.
pub(crate) fn lines(text: &str, wanted: impl Fn(&str) -> bool) -> Vec<Range<usize>> {
    let mut at = 0;
    let lines = text.split_inclusive('\n').map(|line| {
        at += line.len();
        at - line.len()..at
    });
    lines.filter(|line| text[line.clone()].ends_with('\n') && wanted(&text[line.clone()])).collect()
}

pub(crate) fn outside_of_strings(
    text: &str,
    lines: &[Range<usize>],
    dice: &mut Dice,
) -> Option<Range<usize>> {
    let outside = |at: usize| text[..at].matches("\"\"\"").count().is_multiple_of(2);
    let lines: Vec<_> = lines.iter().filter(|line| outside(line.end)).collect();
    dice.pick(&lines).copied().cloned()
}

/// Where the cursor's line starts, and its indentation.
pub(crate) fn cursor_line(prefix: &str) -> (usize, String) {
    let at = prefix.rfind('\n').map_or(0, |at| at + 1);
    let line = &prefix[at..];
    (at, line[..line.len() - line.trim_start().len()].to_owned())
}

/// Lines of what is normalised: behind the last text over several lines, if none may be open.
pub(crate) fn free_lines(prefix: &str) -> Vec<Range<usize>> {
    if may_end_in_text(prefix) {
        return Vec::new();
    }
    let text = |line: &str| {
        ["\"\"\"", "'''", "`"].iter().any(|mark| line.contains(mark))
            || line.trim_end().ends_with('\\')
    };
    let all = lines(prefix, |_| true);
    let end = lines(prefix, text).last().map_or(0, |line| line.end);
    let free = all.into_iter().filter(|line| line.start >= end);
    let last = lines(prefix, |line| !line.trim().is_empty()).last().map_or(0, |line| line.end);
    free.filter(|line| line.end <= last).collect()
}

/// Not right above the cursor's line.
pub(crate) fn add_blank_line(scene: &mut Scene, dice: &mut Dice, blank: &str) -> Option<()> {
    let at = dice.pick(&free_lines(&scene.prefix))?.start;
    put(&mut scene.prefix, at..at, &format!("{blank}\n"))
}

pub(crate) fn insert_line(scene: &mut Scene, dice: &mut Dice, line: &str) -> Option<()> {
    let lines = lines(&scene.prefix, |_| true);
    let at = outside_of_strings(&scene.prefix, &lines, dice)?.end;
    put(&mut scene.prefix, at..at, &format!("{line}\n"))
}

/// At a line's end.
pub(crate) fn add_space(scene: &mut Scene, dice: &mut Dice) -> Option<()> {
    let at = dice.pick(&free_lines(&scene.prefix))?.end - 1;
    put(&mut scene.prefix, at..at, "  ")
}

fn first_line(suffix: &str) -> &str {
    suffix.split('\n').next().unwrap_or_default()
}
