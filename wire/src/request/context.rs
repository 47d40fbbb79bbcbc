//! Snippets of other files, which editors send along, as text before the prefix.
//!
//! Pods take text, not special tokens, so each snippet is laid out as a person would paste it:
//!
//! ```text
//! // Path: src/lib.rs
//! pub fn parse() {}
//!
//! ```
//!
//! A comment with the path where it is known, the text, an empty line; snippets in the order in
//! which they were sent, then the prefix. The mark of the comment is that of the snippet's own
//! language. A pod's window keeps the prefix's end, so that snippets are the first to be left out.

use crate::ApiError;

/// Snippets of one request. llama.vim's manual goes up to 64.
pub(super) const SNIPPETS_MAX: usize = 64;

/// A piece of another file.
#[derive(Debug, Clone, Copy)]
pub(super) struct Snippet<'a> {
    pub(super) path: Option<&'a str>,
    pub(super) text: &'a str,
}

/// The snippets, then `parts`, as one text. Snippets without text are left out.
///
/// # Errors
/// Over [`SNIPPETS_MAX`] snippets, naming `param`.
pub(super) fn before(
    snippets: &[Snippet<'_>],
    parts: &[&str],
    param: &str,
) -> Result<String, ApiError> {
    if snippets.len() > SNIPPETS_MAX {
        let message = format!("{param} must have at most {SNIPPETS_MAX} snippets of other files");
        return Err(ApiError::invalid(param, message));
    }
    const AROUND: usize = "-- Path: \n\n\n".len();
    let bytes =
        |snippet: &Snippet<'_>| AROUND + snippet.path.map_or(0, str::len) + snippet.text.len();
    let room = snippets.iter().map(bytes).sum::<usize>()
        + parts.iter().map(|part| part.len()).sum::<usize>();
    let mut out = String::with_capacity(room);
    for snippet in snippets.iter().filter(|snippet| !snippet.text.trim().is_empty()) {
        // A path on several lines is none; its first line is as good as any.
        if let Some(path) = snippet.path.and_then(|path| path.lines().next()) {
            out.extend([comment_mark(path), " Path: ", path, "\n"]);
        }
        out.push_str(snippet.text);
        out.push_str(if snippet.text.ends_with('\n') { "\n" } else { "\n\n" });
    }
    out.extend(parts.iter().copied());
    Ok(out)
}

/// What begins a comment in the language of `path`; `//` where it is not known.
fn comment_mark(path: &str) -> &'static str {
    const HASH: [&str; 19] = [
        "py", "pyi", "rb", "sh", "bash", "zsh", "fish", "pl", "pm", "r", "jl", "ex", "exs", "yaml",
        "yml", "toml", "nix", "cmake", "tf",
    ];
    const DASHES: [&str; 6] = ["lua", "sql", "hs", "elm", "adb", "ads"];
    let extension = path.rsplit_once('.').map_or("", |(_, extension)| extension);
    let is = |known: &&str| extension.eq_ignore_ascii_case(known);
    match () {
        () if HASH.iter().any(is) => "#",
        () if DASHES.iter().any(is) => "--",
        () => "//",
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(snippets: &[(Option<&str>, &str)], expected: &str) {
        let snippets: Vec<_> =
            snippets.iter().map(|(path, text)| Snippet { path: *path, text }).collect();
        assert_eq!(before(&snippets, &["pre", "fix"], "x").unwrap(), expected);
    }

    #[test]
    fn snippets_stand_before_the_prefix_in_their_order() {
        check(&[], "prefix");
        check(
            &[(Some("b.rs"), "fn b() {}\n"), (Some("a.py"), "def a(): ..."), (None, "c\n")],
            "// Path: b.rs\nfn b() {}\n\n# Path: a.py\ndef a(): ...\n\nc\n\nprefix",
        );
    }

    #[test]
    fn what_has_no_text_is_left_out_and_a_path_is_one_line() {
        check(&[(Some("a.py"), ""), (Some("b.py"), " \n")], "prefix");
        check(
            &[(Some("a.lua\nevil"), "x")],
            "// Path: a.lua\nx\n\nprefix".replace("//", "--").as_str(),
        );
        check(&[(Some(""), "x")], "x\n\nprefix");
    }

    #[test]
    fn sixty_four_snippets_are_enough() {
        let one = Snippet { path: None, text: "x" };
        assert!(before(&[one; 64], &[], "input_extra").is_ok());
        let error = before(&[one; 65], &[], "input_extra").unwrap_err();
        assert_eq!(error.param.as_deref(), Some("input_extra"));
    }

    proptest! {
            #[test]
            fn every_text_and_the_prefix_survive_and_the_room_suffices(
                texts in prop::collection::vec("[a-z\n]{0,12}", 0..8), prefix in "[a-z\n]{0,12}",
            ) {
                let snippets: Vec<_> =
                    texts.iter().map(|text| Snippet { path: Some("dir/a.sql"), text }).collect();
                let out = before(&snippets, &[&prefix], "x").unwrap();
                prop_assert!(out.ends_with(&prefix));
                for text in texts.iter().filter(|text| !text.trim().is_empty()) {
    let laid_out = format!("-- Path: dir/a.sql\n{text}");
                    prop_assert!(out.contains(&laid_out));
                }
            }
        }
}
