//! What an editor says of the place that it asks about: the optional object `nearhop`, in every
//! shape. It steers reuse; pods never see it. Members that are not known here mean nothing.

use crate::{ApiError, Fields};

const TEXT_BYTES_MAX: usize = 256;
const CONTEXT_FILES_MAX: usize = 64;

/// Where the cursor is, as the editor declares it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Declared {
    /// The editor's session.
    pub session: Option<String>,
    /// The document within it.
    pub document: Option<String>,
    /// The repository.
    pub repo: Option<String>,
    /// The file's path.
    pub file: Option<String>,
    /// A digest of the file as it is now: a tag to purge by.
    pub file_hash: Option<String>,
    /// The language.
    pub language: Option<String>,
    /// Other files that the prompt was made with.
    pub context_files: Vec<ContextFile>,
}

/// Another file that a prompt was made with.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ContextFile {
    /// Its path.
    pub path: String,
    /// A digest of its content.
    pub hash: String,
}

/// Reads `nearhop` of a body.
pub(super) fn read(body: &Fields<'_>) -> Result<Declared, ApiError> {
    let Some(raw) = body.raw("nearhop") else { return Ok(Declared::default()) };
    let invalid = |expected: &str| {
        ApiError::invalid("nearhop", format!("nearhop must be an object {expected}"))
    };
    let fields = Fields::parse(raw.as_bytes())
        .map_err(|_no_object| invalid("such as {\"session\": \"a\", \"document\": \"b\"}"))?;
    let text = |name| text(&fields, name, &format!("nearhop.{name}"));
    Ok(Declared {
        session: text("session")?,
        document: text("document")?,
        repo: text("repo")?,
        file: text("file")?,
        file_hash: text("file_hash")?,
        language: text("language")?,
        context_files: context_files(&fields)?,
    })
}

fn text(fields: &Fields<'_>, name: &str, shown: &str) -> Result<Option<String>, ApiError> {
    let wrong = || {
        let message = format!("{shown} must be text of 1 to {TEXT_BYTES_MAX} bytes");
        ApiError::invalid(shown, message)
    };
    let Some(text) = fields.text(name).map_err(|_no_text| wrong())? else { return Ok(None) };
    match (1..=TEXT_BYTES_MAX).contains(&text.len()) {
        true => Ok(Some(text.into_owned())),
        false => Err(wrong()),
    }
}

/// In one order, whatever the editor's: the order of files changes no prompt.
fn context_files(fields: &Fields<'_>) -> Result<Vec<ContextFile>, ApiError> {
    const NAME: &str = "nearhop.context_files";
    let wrong = || {
        let message = format!(
            "{NAME} must be a list of up to {CONTEXT_FILES_MAX} {{\"path\", \"hash\"}}, texts of \
             1 to {TEXT_BYTES_MAX} bytes"
        );
        ApiError::invalid(NAME, message)
    };
    let raw: Option<Vec<&serde_json::value::RawValue>> =
        fields.get("context_files", "a list").map_err(|_no_list| wrong())?;
    let raw = raw.unwrap_or_default();
    if raw.len() > CONTEXT_FILES_MAX {
        return Err(wrong());
    }
    let read = |raw: &serde_json::value::RawValue| {
        let fields = Fields::parse(raw.get().as_bytes()).ok()?;
        let text = |name| text(&fields, name, NAME).ok().flatten();
        Some(ContextFile { path: text("path")?, hash: text("hash")? })
    };
    let files: Option<Vec<_>> = raw.into_iter().map(read).collect();
    let mut files = files.ok_or_else(wrong)?;
    files.sort_unstable();
    files.dedup();
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(nearhop: &str) -> Result<Declared, ApiError> {
        let body = format!(r#"{{"nearhop": {nearhop}}}"#);
        read(&Fields::parse(body.as_bytes()).unwrap())
    }

    #[test]
    fn what_is_declared_is_read_and_the_order_of_files_does_not_matter() {
        let declared = parse(
            r#"{"session": "s", "repo": "r", "file_hash": "h", "later": [1],
                "context_files": [{"path": "b", "hash": "2"}, {"path": "a", "hash": "1"}]}"#,
        )
        .unwrap();
        assert_eq!(declared.session.as_deref(), Some("s"));
        assert_eq!(declared.repo.as_deref(), Some("r"));
        assert_eq!(declared.document, None);
        let paths: Vec<_> = declared.context_files.iter().map(|file| file.path.as_str()).collect();
        assert_eq!(paths, ["a", "b"]);
        assert_eq!(parse("null").unwrap(), Declared::default());
    }

    #[test]
    fn mistakes_name_the_member() {
        let check = |nearhop: &str, name: &str| {
            assert_eq!(parse(nearhop).unwrap_err().param.as_deref(), Some(name), "{nearhop}");
        };
        check("7", "nearhop");
        check(r#"{"session": 7}"#, "nearhop.session");
        check(r#"{"repo": ""}"#, "nearhop.repo");
        check(&format!(r#"{{"file": "{}"}}"#, "x".repeat(257)), "nearhop.file");
        for files in ["7", "[7]", r#"[{"path": "a"}]"#, r#"[{"path": "a", "hash": 1}]"#] {
            check(&format!(r#"{{"context_files": {files}}}"#), "nearhop.context_files");
        }
        let many = vec![r#"{"path": "a", "hash": "b"}"#; 65].join(",");
        check(&format!(r#"{{"context_files": [{many}]}}"#), "nearhop.context_files");
    }
}
