//! Code less what means nothing: blank lines, and spaces and tabs at line ends. Pure.
//!
//! Nothing else is taken away, and nothing where it could mean something: comments stay, since the
//! comment above the cursor is the instruction; so does what lies inside a text over several lines,
//! what a backslash continues, and the blank lines right above the cursor. `docs/caching.md` has the
//! rule.

/// The lines of `text` that are not blank, less the space at their ends; from both ends. Coarser
/// than what follows: equal texts have equal lines, and some others have too.
pub(crate) fn lines(text: &str) -> impl DoubleEndedIterator<Item = &str> {
    text.split('\n').map(trimmed).filter(|line| !line.is_empty())
}

fn trimmed(line: &str) -> &str {
    line.trim_end_matches([' ', '\t'])
}

/// What stands before the cursor's line, in pieces: two texts with the same pieces, one after the
/// other, mean the same. A text is empty, or ends with a newline.
pub(crate) fn before(text: &str) -> impl Iterator<Item = &str> {
    let bare = text.trim_end_matches(['\n', ' ', '\t']);
    // With the newline that ends its last line; the blank lines stay as they are.
    let end = text[bare.len()..].find('\n').map_or(0, |newline| newline + 1);
    let (text, blank) = text.split_at(if bare.is_empty() { 0 } else { bare.len() + end });
    let (kept, plain) = text.split_at(meaningful_before(text));
    let plain = lines(plain).flat_map(|line| [line, "\n"]);
    std::iter::once(kept).chain(plain).chain(std::iter::once(blank))
}

/// What follows the cursor, likewise. The rest of the cursor's line stays even where it is empty.
pub(crate) fn suffix(text: &str) -> impl Iterator<Item = &str> {
    let (plain, kept) = text.split_at(meaningful_suffix(text));
    let (rest, following) = plain.split_once('\n').unwrap_or((plain, ""));
    [trimmed(rest), "\n"]
        .into_iter()
        .chain(lines(following).flat_map(|line| [line, "\n"]))
        .chain(std::iter::once(kept))
}

/// The coarse form of a suffix: equal ones have equal lines.
pub(crate) fn suffix_lines(text: &str) -> impl Iterator<Item = &str> {
    let (rest, following) = text.split_once('\n').unwrap_or((text, ""));
    std::iter::once(trimmed(rest)).chain(lines(following))
}

/// How far space may mean something in what stands before the cursor.
fn meaningful_before(text: &str) -> usize {
    let (mut at, mut end, mut marks, mut continued) = (0, 0, 0, false);
    for line in text.split_inclusive('\n') {
        at += line.len();
        let here = marks_in(line);
        marks += here;
        let continues = trimmed(line.trim_end_matches('\n')).ends_with('\\');
        if begins_document(line) {
            // Where it ends, only its language knows.
            return text.len();
        }
        if here > 0 || continues || continued {
            end = at;
        }
        continued = continues;
    }
    if marks % 2 == 1 { text.len() } else { end }
}

/// From where on it may in what follows it.
fn meaningful_suffix(text: &str) -> usize {
    let mut at = 0;
    for line in text.split_inclusive('\n') {
        let continues = trimmed(line.trim_end_matches('\n')).ends_with('\\');
        if marks_in(line) > 0 || continues || begins_document(line) {
            return at;
        }
        at += line.len();
    }
    at
}

/// What begins or ends a text over several lines, in one of the languages that have such texts.
fn marks_in(line: &str) -> usize {
    let of = |mark| line.matches(mark).count();
    of("\"\"\"") + of("'''") + of("`")
}

/// Whether a here-document may begin in that line, as shells, Ruby, Perl and PHP have it.
fn begins_document(line: &str) -> bool {
    line.match_indices("<<").any(|(at, _)| {
        let next = line[at + 2..].chars().next();
        next.is_some_and(|c| c.is_alphabetic() || "_-~'\"\\".contains(c))
    })
}

/// Whether blank lines mean nothing in that language, or in a file of that name.
pub(crate) fn is_code(language: Option<&str>, file: Option<&str>) -> bool {
    const PROSE: [&str; 33] = [
        "adoc",
        "asciidoc",
        "csv",
        "diff",
        "eml",
        "http",
        "ini",
        "latex",
        "make",
        "makefile",
        "markdown",
        "md",
        "mdx",
        "mk",
        "org",
        "patch",
        "plain",
        "plaintext",
        "properties",
        "rest",
        "restructuredtext",
        "rst",
        "tex",
        "text",
        "toml",
        "tsv",
        "txt",
        "typst",
        "whitespace",
        "yaml",
        "yml",
        "quarto",
        "qmd",
    ];
    let named = file.map(|file| file.rsplit(['/', '\\']).next().unwrap_or(file));
    let ending = named.map(|name| name.rsplit('.').next().unwrap_or(name));
    let prose = |word: &str| PROSE.iter().any(|known| word.eq_ignore_ascii_case(known));
    !language.is_some_and(prose) && !ending.is_some_and(prose)
}

/// The last bytes of what stands before the cursor's line: where an entry is looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Anchor {
    bytes: [u8; ANCHOR],
    length: usize,
}

/// Bytes of a whole anchor.
pub(crate) const ANCHOR: usize = 256;

impl Anchor {
    /// The end of the lines of `before`.
    pub(crate) fn of(before: &str) -> Self {
        let mut anchor = Self { bytes: [0; ANCHOR], length: 0 };
        for line in lines(before).rev() {
            if !(anchor.push(b"\n") && anchor.push(line.as_bytes())) {
                break;
            }
        }
        anchor
    }

    /// Puts `text` before what is there, as far as there is room; whether there was.
    fn push(&mut self, text: &[u8]) -> bool {
        let room = ANCHOR - self.length;
        let kept = &text[text.len().saturating_sub(room)..];
        let start = room - kept.len();
        self.bytes[start..room].copy_from_slice(kept);
        self.length += kept.len();
        kept.len() == text.len()
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes[ANCHOR - self.length..]
    }

    /// Whether it says nothing of where the text begins.
    pub(crate) fn is_whole(&self) -> bool {
        self.length == ANCHOR
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(text: &str, expected: &str) {
        assert_eq!(before(text).collect::<String>(), expected, "{text:?}");
    }

    #[test]
    fn blank_lines_and_space_at_line_ends_go_and_nothing_else() {
        check("", "");
        check("a  \n\n \t\n  b\t\n", "a\n  b\n");
        check("# why\nx = \" \"\n", "# why\nx = \" \"\n");
        check("a\r\n\r\nb \r\n", "a\r\n\r\nb \r\n");
    }

    #[test]
    fn blank_lines_right_above_the_cursor_stay() {
        check("a\n\nb\n\n\n", "a\nb\n\n\n");
        check("a\n \n", "a\n \n");
        check("\n\n", "\n\n");
    }

    #[test]
    fn what_lies_in_a_text_over_several_lines_stays() {
        check("x\n\ny\n\"\"\"a\n\n b \n\"\"\"\n\nz\n", "x\n\ny\n\"\"\"a\n\n b \n\"\"\"\nz\n");
        check("x = `a\n\n", "x = `a\n\n");
        check("t = '''a \n\nb\n", "t = '''a \n\nb\n");
        check("cat <<EOF\n\na\n\nb\n", "cat <<EOF\n\na\n\nb\n");
        check("x = 1 + \\\n\ny\n\nz\n", "x = 1 + \\\n\ny\nz\n");
        check("x = 1 + \\ \ny\n", "x = 1 + \\ \ny\n");
        check("a << b\n\nc\n", "a << b\nc\n");
    }

    #[test]
    fn the_rest_of_the_cursors_line_stays() {
        let suffix = |text| suffix(text).collect::<String>();
        assert_eq!(suffix("\n\nb "), "\nb\n");
        assert_eq!(suffix(") \nb"), ")\nb\n");
        assert_eq!(suffix(""), "\n");
        assert_eq!(suffix(")\n\nx\n\n'''a \n\n'''"), ")\nx\n'''a \n\n'''");
    }

    #[test]
    fn prose_is_not_code() {
        assert!(is_code(None, None) && is_code(Some("python"), Some("a/b.py")));
        assert!(!is_code(Some("Markdown"), None) && !is_code(None, Some("docs/a.md")));
        assert!(!is_code(None, Some("Makefile")) && is_code(None, Some("md/a.rs")));
    }

    #[test]
    fn an_anchor_is_the_end() {
        let anchor = Anchor::of("a \n\nb\n");
        assert_eq!((anchor.bytes(), anchor.is_whole()), (b"a\nb\n".as_slice(), false));
        let long = format!("{}\n{}\n", "x".repeat(300), "y".repeat(100));
        let anchor = Anchor::of(&long);
        assert!(anchor.is_whole());
        assert_eq!(anchor.bytes(), &long.as_bytes()[long.len() - ANCHOR..]);
    }

    proptest! {
        #[test]
        fn an_anchor_does_not_know_what_stands_far_above(
            above in "[a-z \n]{0,40}", text in "[a-z]{100}\n[a-z]{100}\n[a-z]{100}\n",
        ) {
            prop_assert_eq!(Anchor::of(&text), Anchor::of(&format!("{above}\n{text}")));
        }

        #[test]
        fn what_means_the_same_lies_at_one_place(a in "([ab \\\\`\n]{0,20}\n)?", b in "([ab \\\\`\n]{0,20}\n)?") {
            if before(&a).collect::<String>() == before(&b).collect::<String>() {
                prop_assert_eq!(Anchor::of(&a), Anchor::of(&b));
            }
        }
    }
}
