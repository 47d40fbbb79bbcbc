//! Questions that developers ask: what means the same, and what only looks so. `tests/data/questions`.

use super::process::root;

/// Something that is asked in several ways, with what is nearly it.
pub(crate) struct Intent {
    pub(crate) title: String,
    /// One answer serves all of these.
    pub(crate) same: Vec<String>,
    /// Each has an answer of its own; in what it differs.
    pub(crate) near: Vec<(String, String)>,
}

/// Those of some files.
pub(crate) fn read(files: &[&str]) -> Vec<Intent> {
    files.iter().flat_map(|file| parse(file)).collect()
}

fn parse(file: &str) -> Vec<Intent> {
    let path = root().join("tests/data/questions").join(file);
    let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let mut intents: Vec<Intent> = Vec::new();
    for line in text.lines().filter(|line| !line.trim().is_empty()) {
        if let Some(title) = line.strip_prefix("# ") {
            let title = title.to_owned();
            intents.push(Intent { title, same: Vec::new(), near: Vec::new() });
            continue;
        }
        let intent = intents.last_mut().expect("a title comes first");
        if let Some(same) = line.strip_prefix("= ") {
            intent.same.push(same.to_owned());
        } else if let Some((kind, near)) = line.strip_prefix('!').and_then(|l| l.split_once(' ')) {
            intent.near.push((kind.to_owned(), near.to_owned()));
        } else {
            panic!("{file}: {line}");
        }
    }
    intents
}
