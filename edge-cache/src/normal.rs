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

/// What follows the cursor, likewise. The rest of the cursor's line stays as it is.
pub(crate) fn suffix(text: &str) -> impl Iterator<Item = &str> {
    let (plain, kept) = text.split_at(meaningful_suffix(text));
    let (rest, following) = plain.split_once('\n').unwrap_or((plain, ""));
    [rest, "\n"]
        .into_iter()
        .chain(lines(following).flat_map(|line| [line, "\n"]))
        .chain(std::iter::once(kept))
}

/// The coarse form of a suffix: equal ones have equal lines.
pub(crate) fn suffix_lines(text: &str) -> impl Iterator<Item = &str> {
    let (rest, following) = text.split_once('\n').unwrap_or((text, ""));
    std::iter::once(trimmed(rest)).chain(lines(following))
}

/// Whether the cursor may be in a text over several lines.
pub(crate) fn is_open(before: &str) -> bool {
    !before.is_empty() && meaningful_before(before) == before.len()
}

/// How far space may mean something in what stands before the cursor.
fn meaningful_before(text: &str) -> usize {
    let (mut at, mut end, mut open, mut continued) = (0, 0, 0, false);
    for line in text.split_inclusive('\n') {
        at += line.len();
        let marks = Marks::of(line);
        open ^= marks.odd;
        if marks.begins_document {
            // Where it ends, only its language knows.
            return text.len();
        }
        if marks.any || marks.continues || continued {
            end = at;
        }
        continued = marks.continues;
    }
    if open == 0 { end } else { text.len() }
}

/// From where on it may in what follows it.
fn meaningful_suffix(text: &str) -> usize {
    let (mut at, mut first, mut open) = (0, text.len(), 0);
    for line in text.split_inclusive('\n') {
        let marks = Marks::of(line);
        open ^= marks.odd;
        if marks.any || marks.continues || marks.begins_document {
            first = first.min(at);
        }
        at += line.len();
    }
    // Where a text ends that has not begun, the cursor may be in it.
    if open == 0 { first } else { 0 }
}

/// What in a line may begin, end or continue a text over several lines, in one of the languages that
/// have such texts.
#[derive(Debug, Clone, Copy, Default)]
struct Marks {
    /// A bit for each kind that the line has an odd number of.
    odd: u8,
    any: bool,
    /// Whether it ends in a backslash.
    continues: bool,
    /// Whether a here-document may begin, as shells, Ruby, Perl and PHP have it.
    begins_document: bool,
}

impl Marks {
    fn of(line: &str) -> Self {
        let bytes = line.as_bytes();
        let has = |byte| bytes.contains(&byte);
        let mut marks = Self::default();
        if has(b'"') {
            let triple = line.matches("\"\"\"").count();
            let single = bytes.iter().filter(|byte| **byte == b'"').count() - 3 * triple;
            marks.odd |= u8::from(triple % 2 == 1) | (u8::from(single % 2 == 1) << 1);
            marks.any |= triple > 0 || single % 2 == 1;
        }
        if has(b'\'') {
            let triple = line.matches("\'\'\'").count();
            marks.odd |= u8::from(triple % 2 == 1) << 2;
            marks.any |= triple > 0;
        }
        if has(b'`') {
            let ticks = bytes.iter().filter(|byte| **byte == b'`').count();
            marks.odd |= u8::from(ticks % 2 == 1) << 3;
            marks.any = true;
        }
        marks.continues = trimmed(line.trim_end_matches('\n')).ends_with('\\');
        marks.begins_document = has(b'<') && begins_document(line);
        marks
    }
}

fn begins_document(line: &str) -> bool {
    line.match_indices("<<").any(|(at, _)| {
        let next = line[at..].trim_start_matches('<');
        let next = next.trim_start_matches(['-', '~', ' ', '\t', '"', '\'', '\\']);
        next.starts_with(|c: char| c.is_alphabetic() || c == '_')
    })
}

/// Whether blank lines mean nothing in that language, or in a file of that name.
pub(crate) fn is_code(language: Option<&str>, file: Option<&str>) -> bool {
    const PROSE: [&str; 54] = [
        "adoc",
        "am",
        "asciidoc",
        "cfg",
        "commit",
        "conf",
        "csv",
        "diff",
        "dockerfile",
        "eml",
        "env",
        "git-commit",
        "git-rebase",
        "haml",
        "htm",
        "html",
        "http",
        "ini",
        "j2",
        "jinja",
        "jinja2",
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
        "po",
        "pot",
        "properties",
        "pug",
        "qmd",
        "quarto",
        "rest",
        "restructuredtext",
        "rmd",
        "rst",
        "slim",
        "svg",
        "tex",
        "text",
        "toml",
        "tsv",
        "txt",
        "typst",
        "whitespace",
        "xml",
        "yaml",
        "yml",
    ];
    let named = file.map(|file| file.rsplit(['/', '\\']).next().unwrap_or(file));
    let ending = named.map(|name| name.rsplit('.').next().unwrap_or(name));
    let prose = |word: &str| PROSE.iter().any(|known| word.eq_ignore_ascii_case(known));
    // A name without an ending is a README, a LICENSE or a Makefile.
    let nameless = |name: &str| !name.trim_start_matches('.').contains('.');
    !language.is_some_and(prose) && !ending.is_some_and(prose) && !named.is_some_and(nameless)
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
        check("a << 2\n\nc\n", "a << 2\nc\n");
        for document in ["cat << EOF", "x = <<<EOT", "x = <<<'EOT'", "x <<~ \"A\""] {
            let text = format!("{document}\n\na \n");
            check(&text, &text);
        }
        let mixed = "note = \"\"\"a ` is a mark\n\none \n";
        check(mixed, mixed);
        check("s = \"a\n\nb\"\n\nc\n", "s = \"a\n\nb\"\nc\n");
        check("s = \"a\n\nb\n", "s = \"a\n\nb\n");
    }

    #[test]
    fn the_rest_of_the_cursors_line_stays() {
        let suffix = |text| suffix(text).collect::<String>();
        assert_eq!(suffix("\n\nb "), "\nb\n");
        assert_eq!(suffix(") \nb "), ") \nb\n");
        assert_eq!(suffix(""), "\n");
        assert_eq!(suffix(")\n\nx\n\n'''a \n\n'''"), ")\nx\n'''a \n\n'''");
        assert_eq!(suffix("a \n\n'''\n\nb"), "\na \n\n'''\n\nb");
    }

    #[test]
    fn prose_is_not_code() {
        assert!(is_code(None, None) && is_code(Some("python"), Some("a/b.py")));
        assert!(!is_code(Some("Markdown"), None) && !is_code(None, Some("docs/a.md")));
        assert!(!is_code(None, Some("Makefile")) && is_code(None, Some("md/a.rs")));
        assert!(!is_code(None, Some("a/README")) && !is_code(None, Some(".env")));
        assert!(!is_code(Some("dockerfile"), None) && !is_code(None, Some("a.yml.j2")));
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
