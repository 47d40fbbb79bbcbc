//! What the editors' shapes have in common.
//!
//! Their bodies are not passed on: a pod gets a body made of what was understood. A field that is
//! known to be harmless, or that only advises, is therefore simply left out; one that the answer
//! would have to obey is refused here, since no pod will see it; and one that nobody knows keeps
//! the request out of the cache, as it does in OpenAI's shapes.

use crate::{ApiError, Fields};

/// The fields of a shape.
#[derive(Debug)]
pub(super) struct Names {
    /// Those that are read.
    pub(super) read: &'static [&'static str],
    /// Those that are left out without a word; the documentation lists them.
    pub(super) ignored: &'static [&'static str],
    /// Those that are refused, and the values at which they ask for nothing.
    pub(super) refused: &'static [(&'static str, &'static [&'static str])],
}

impl Names {
    /// The names nobody knows.
    ///
    /// # Errors
    /// A field that asks for what is not done here.
    pub(super) fn unknown(&self, fields: &Fields<'_>) -> Result<Vec<String>, ApiError> {
        let mut unknown = Vec::new();
        for (name, value) in fields.iter() {
            if self.read.contains(&name) || self.ignored.contains(&name) || name == "nearhop" {
                continue;
            }
            match self.refused.iter().find(|(refused, _)| *refused == name) {
                Some((_, values)) if value == "null" || values.contains(&value) => {}
                Some((name, _)) => return Err(not_done(name)),
                None => unknown.push(name.to_owned()),
            }
        }
        Ok(unknown)
    }
}

/// The error for a field that asks for what is not done here.
pub(super) fn not_done(name: &str) -> ApiError {
    ApiError::invalid(name, format!("{name} is not supported here; leave it out"))
}

/// `model`; an empty one names none.
pub(super) fn model(fields: &Fields<'_>) -> Result<Option<String>, ApiError> {
    Ok(fields.get::<String>("model", "text")?.filter(|model| !model.is_empty()))
}
