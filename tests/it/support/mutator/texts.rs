//! Edits of blank lines and of space at line ends, where these are text: in texts over several
//! lines, and in files that are prose.

use serde_json::{Value, json};

use super::{
    Edit,
    asker::declare,
    text,
    text::{add_blank_line, add_space, cursor_line, free_lines, lines, outside_of_strings, put},
};
use crate::support::{
    dice::Dice,
    rules::may_end_in_text,
    scene::{Scene, Shape},
};

/// What a line changes to that is no line of code.
const CHANGES: [(&str, &str); 4] = [
    ("one\n\ntwo", "one\ntwo"),
    ("one\ntwo", "one\n\ntwo"),
    ("one\n", "one  \n"),
    ("one\n", "one\t\n"),
];

const HERE_DOCUMENTS: [&str; 9] = [
    "<<EOF",
    "<<-EOF",
    "<<~EOF",
    "<<'EOF'",
    "<<\"EOF\"",
    "<< EOF",
    "<<-'EOF'",
    "<<<EOF",
    "<<<'EOF'",
];

pub(crate) const MUST_MISS: &[Edit] = &[
    text("a blank line in a docstring", |_, then, _| {
        let start = then.prefix.find("\"\"\"")?;
        let at = start + then.prefix[start..].find('\n')? + 1;
        put(&mut then.prefix, at..at, "\n")
    }),
    text("space at a line's end in a docstring", |_, then, _| {
        let start = then.prefix.find("\"\"\"")?;
        let at = start + then.prefix[start..].find('\n')?;
        put(&mut then.prefix, at..at, "  ")
    }),
    text("a blank line above a docstring", |_, then, dice| {
        let mark = then.prefix.rfind("\"\"\"")?;
        let above: Vec<_> =
            lines(&then.prefix, |_| true).into_iter().filter(|line| line.end < mark).collect();
        let at = dice.pick(&above)?.start;
        put(&mut then.prefix, at..at, "\n")
    }),
    text("blank in a text over several lines", |first, then, dice| {
        let text = *dice.pick(&[
            "note = `one\n\ntwo`\n",
            "note = `one\ntwo`\n",
            "note = '''one\n\ntwo'''\n",
            "note = '''one\ntwo'''\n",
            "note = \"\"\"one\n\ntwo\"\"\"\n",
        ])?;
        anywhere(first, then, dice, text)
    }),
    text("blank in a text that has begun", |first, then, dice| {
        let mark = dice.pick(&["\"\"\"", "'''", "`"])?;
        let text = format!("note = {mark}one\n{}two\n", dice.pick(&["", "\n"])?);
        right_above(first, then, dice, &text)
    }),
    text("blank in a text that has begun, with another mark in it", |first, then, dice| {
        // As many marks as if it had ended.
        let text = *dice.pick(&[
            "note = \"\"\"a ` is a mark\none\n\ntwo\n",
            "note = '''a ` is a mark\none\ntwo\n",
            "note = \"\"\"''' are marks\none\n\ntwo\n",
            "note = `''' are marks\none\ntwo\n",
        ])?;
        right_above(first, then, dice, text)
    }),
    text("blank above a text that has begun", |first, then, dice| {
        let mark = dice.pick(&["\"\"\"", "'''", "`", "cat <<EOF\n"])?;
        right_above(first, then, dice, &format!("one\n\ntwo\nnote = {mark}three\nfour\n"))
    }),
    text("blank in a here-document", |first, then, dice| {
        let start = *dice.pick(&HERE_DOCUMENTS)?;
        let text = format!("cat {start}\none\n{}two\nEOF\n", dice.pick(&["", "\n"])?);
        anywhere(first, then, dice, &text)
    }),
    text("blank in a here-document that has begun", |first, then, dice| {
        let start = *dice.pick(&HERE_DOCUMENTS)?;
        let text = format!("cat {start}\none\n{}two\n", dice.pick(&["", "\n"])?);
        right_above(first, then, dice, &text)
    }),
    text("blank behind a here-document", |first, then, dice| {
        let start = *dice.pick(&HERE_DOCUMENTS)?;
        anywhere(first, then, dice, &format!("cat {start}\nthree\nEOF\none\n\ntwo\n"))
    }),
    text("space behind a backslash", |first, then, dice| {
        changed(first, then, dice, "one = 1 + \\\n    2\n", ("\\\n", "\\ \n"))
    }),
    text("a blank line behind a backslash", |first, then, dice| {
        changed(first, then, dice, "one = 1 + \\\n    2\n", ("\\\n", "\\\n\n"))
    }),
    text("space at the end of the line after a backslash", |first, then, dice| {
        changed(first, then, dice, "echo one \\\n    two\nthree\n", ("two\n", "two  \n"))
    }),
    text("a blank line less behind a backslash", |first, then, dice| {
        changed(first, then, dice, "#define ONE \\\n\nint two;\n", ("\\\n\n", "\\\n"))
    }),
    text("blank in a text of the suffix", |first, then, dice| {
        let text = *dice.pick(&[
            "NOTE = `one\n\ntwo`\n",
            "NOTE = '''one\ntwo'''\n",
            "NOTE = \"\"\"one\n\ntwo\"\"\"\n",
            "cat <<EOF\none\n\ntwo\nEOF\n",
            "cat <<-'EOF'\none\ntwo\nEOF\n",
            "NOTE = ``\none\n\ntwo\n",
        ])?;
        in_suffix(first, then, dice, text)
    }),
    text("blank behind a backslash in the suffix", |first, then, dice| {
        let change = *dice.pick(&[("\\\n", "\\ \n"), ("\\\n", "\\\n\n"), ("2\n", "2  \n")])?;
        let suffix = first.suffix.as_mut()?;
        *suffix += "\nTOTAL = 1 + \\\n    2\n";
        then.suffix = Some(suffix.replacen(change.0, change.1, 1));
        (then.suffix != first.suffix).then_some(())
    }),
    text("a blank line, where the language is prose", |first, then, dice| {
        both_say(first, then, &language(dice)?);
        add_blank_line(then, dice, "")
    }),
    text("space at a line's end, where the language is prose", |first, then, dice| {
        both_say(first, then, &language(dice)?);
        add_space(then, dice)
    }),
    text("a blank line, where the file is prose", |first, then, dice| {
        both_say(first, then, &file(dice)?);
        add_blank_line(then, dice, "")
    }),
    text("space at a line's end, where the file is prose", |first, then, dice| {
        both_say(first, then, &file(dice)?);
        add_space(then, dice)
    }),
    text("a blank line, where the file is prose and the language is not", |first, then, dice| {
        let mut said = file(dice)?;
        said["language"] = json!("python");
        both_say(first, then, &said);
        add_blank_line(then, dice, "")
    }),
    text("a blank line less, where only the first said prose", |first, then, dice| {
        let said = if dice.percent(50) { language(dice)? } else { file(dice)? };
        declare(first, &said);
        blank_more_or_less(first, then, dice)
    }),
    text("a blank line less, where only the second says prose", |first, then, dice| {
        let said = if dice.percent(50) { language(dice)? } else { file(dice)? };
        declare(then, &said);
        blank_more_or_less(first, then, dice)
    }),
    text("a blank line in the suffix, where the language is prose", |first, then, dice| {
        both_say(first, then, &language(dice)?);
        let suffix = then.suffix.as_mut()?;
        let at = suffix.find('\n')? + 1;
        put(suffix, at..at, "\n")
    }),
];

/// By the words of the rules these are code, and yet a blank line in them is text.
pub(crate) const OPEN: &[Edit] = &[
    text("a blank line in a string that runs over lines", |first, then, dice| {
        let text = *dice.pick(&[
            "let note = \"one\n\ntwo\";\n",
            "let note = r#\"one\n\ntwo\"#;\n",
            "note = [[one\n\ntwo]]\n",
            "echo 'one\n\ntwo'\n",
        ])?;
        blank_goes(first, then, dice, text)
    }),
    text("a blank line in a text that has begun, and a mark in a comment", |first, then, _| {
        // Seen as well: `so quoted' in a docstring, and the cursor in a text of backticks.
        in_docstring(first, then, "# All begin with \"\"\"\n    note = \"\"\"One\n    one\n\ntwo\n")
    }),
    text("a blank line in a text, the window begins in another", |first, then, _| {
        // The window's front is the rest of a docstring; two marks, and the second is open.
        in_docstring(first, then, "and so on.\n\"\"\"\ndef f(x):\n    \"\"\"One\n    one\n\ntwo\n")
    }),
    text("a blank line below, in the text that the cursor is in", |first, then, _| {
        let at = cursor_line(&first.prefix).0;
        for scene in [&mut *first, &mut *then] {
            put(&mut scene.prefix, at..at, "note = '''One\n")?;
            scene.suffix = Some("\none\n\ntwo\n'''\n".to_owned());
        }
        then.suffix = Some("\none\ntwo\n'''\n".to_owned());
        Some(())
    }),
    text("a blank line, where Tabby says that the language is prose", |first, then, dice| {
        for scene in [&mut *first, &mut *then] {
            scene.shape = Shape::Tabby;
            scene.say("language", json!("markdown"));
        }
        add_blank_line(then, dice, "")
    }),
    text("a blank line, where Tabby says that the file is prose", |first, then, dice| {
        for scene in [&mut *first, &mut *then] {
            scene.shape = Shape::Tabby;
            scene.say("segments", json!({"filepath": "README.md"}));
        }
        add_blank_line(then, dice, "")
    }),
    text("a blank line, where the language is nearly prose", |first, then, dice| {
        let language = *dice.pick(&["git-commit", "html", "haml", "pug", "po", "jinja"])?;
        both_say(first, then, &json!({"language": language}));
        add_blank_line(then, dice, "")
    }),
    text("a blank line, where the file is nearly prose", |first, then, dice| {
        let file = *dice.pick(&[
            "README",
            "CHANGELOG",
            "COMMIT_EDITMSG",
            "GNUmakefile",
            "Makefile.am",
            "a.Rmd",
            "a.yml.j2",
            ".env",
            "a.html",
            "a.haml",
            "a.pug",
            "a.po",
            "a.cfg",
        ])?;
        both_say(first, then, &json!({"file": file}));
        add_blank_line(then, dice, "")
    }),
];

fn language(dice: &mut Dice) -> Option<Value> {
    const LANGUAGES: [&str; 13] = [
        "markdown",
        "Markdown",
        "md",
        "rst",
        "latex",
        "make",
        "ini",
        "restructuredtext",
        "plaintext",
        "yaml",
        "toml",
        "diff",
        "makefile",
    ];
    Some(json!({"language": dice.pick(&LANGUAGES)?}))
}

fn file(dice: &mut Dice) -> Option<Value> {
    const FILES: [&str; 14] = [
        "README.md",
        "a.mdx",
        "a.tex",
        "a.mk",
        "a.ini",
        "docs/a.MD",
        "a.b.rst",
        "notes.txt",
        ".github/a.yml",
        "a.yaml",
        "Cargo.toml",
        "fix.diff",
        "fix.patch",
        "src/Makefile",
    ];
    Some(json!({"file": dice.pick(&FILES)?}))
}

fn both_say(first: &mut Scene, then: &mut Scene, what: &Value) {
    declare(first, what);
    declare(then, what);
}

fn blank_more_or_less(first: &mut Scene, then: &mut Scene, dice: &mut Dice) -> Option<()> {
    add_blank_line(if dice.percent(50) { first } else { then }, dice, "")
}

/// The text stands in both, and one of its lines changes.
fn anywhere(first: &mut Scene, then: &mut Scene, dice: &mut Dice, text: &str) -> Option<()> {
    let change = change(dice, text)?;
    changed(first, then, dice, text, change)
}

fn changed(
    first: &mut Scene,
    then: &mut Scene,
    dice: &mut Dice,
    text: &str,
    (from, to): (&str, &str),
) -> Option<()> {
    let lines = lines(&first.prefix, |_| true);
    let at = outside_of_strings(&first.prefix, &lines, dice)?.end;
    put(&mut first.prefix, at..at, text)?;
    put(&mut then.prefix, at..at, &text.replacen(from, to, 1))
}

fn right_above(first: &mut Scene, then: &mut Scene, dice: &mut Dice, text: &str) -> Option<()> {
    let (from, to) = change(dice, text)?;
    // Else this mark would seem to end what a lone one above has begun: that is one of `OPEN`.
    if may_end_in_text(&first.prefix) {
        return None;
    }
    let at = cursor_line(&first.prefix).0;
    put(&mut first.prefix, at..at, text)?;
    put(&mut then.prefix, at..at, &text.replacen(from, to, 1))
}

fn in_suffix(first: &mut Scene, then: &mut Scene, dice: &mut Dice, text: &str) -> Option<()> {
    let (from, to) = change(dice, text)?;
    first.suffix.as_mut()?.push_str(&format!("\n{text}"));
    then.suffix.as_mut()?.push_str(&format!("\n{}", text.replacen(from, to, 1)));
    Some(())
}

fn change(dice: &mut Dice, text: &str) -> Option<(&'static str, &'static str)> {
    let there: Vec<_> = CHANGES.iter().filter(|(from, _)| text.contains(from)).collect();
    dice.pick(&there).map(|change| **change)
}

/// The cursor is in what the text begins, and a blank line of that goes.
fn in_docstring(first: &mut Scene, then: &mut Scene, text: &str) -> Option<()> {
    let at = cursor_line(&first.prefix).0;
    if first.prefix.contains(['`', '\'']) {
        return None;
    }
    put(&mut first.prefix, 0..at, text)?;
    put(&mut then.prefix, 0..at, &text.replacen("one\n\n", "one\n", 1))
}

/// Behind all other texts.
fn blank_goes(first: &mut Scene, then: &mut Scene, dice: &mut Dice, text: &str) -> Option<()> {
    let at = dice.pick(&free_lines(&first.prefix))?.start;
    put(&mut first.prefix, at..at, text)?;
    put(&mut then.prefix, at..at, &text.replacen("\n\n", "\n", 1))
}
