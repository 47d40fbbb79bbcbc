//! Code less what means nothing: blank lines, and space at line ends. Pure.
//!
//! Nothing else is taken away. Comments stay: the comment above the cursor is the instruction.

/// The lines of `text` that are not blank, less the space at their ends; from both ends.
pub(crate) fn lines(text: &str) -> impl DoubleEndedIterator<Item = &str> {
    text.split('\n').map(str::trim_ascii_end).filter(|line| !line.is_empty())
}

/// A suffix: the rest of the cursor's line, which stays even where it is empty, and the lines that
/// follow.
pub(crate) fn suffix(text: &str) -> impl Iterator<Item = &str> {
    let (rest, following) = text.split_once('\n').unwrap_or((text, ""));
    std::iter::once(rest.trim_ascii_end()).chain(lines(following))
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
    /// The end of `before`, normalised.
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

    fn check(text: &str, expected: &[&str]) {
        assert_eq!(lines(text).collect::<Vec<_>>(), expected);
    }

    #[test]
    fn blank_lines_and_space_at_line_ends_go_and_nothing_else() {
        check("", &[]);
        check("a  \n\n \t\n  b\t\r\n", &["a", "  b"]);
        check("# why\nx = \" \"\n", &["# why", "x = \" \""]);
    }

    #[test]
    fn the_rest_of_the_cursors_line_stays() {
        assert_eq!(suffix("\n\nb ").collect::<Vec<_>>(), ["", "b"]);
        assert_eq!(suffix(") \nb").collect::<Vec<_>>(), [")", "b"]);
        assert_eq!(suffix("").collect::<Vec<_>>(), [""]);
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
    }
}
