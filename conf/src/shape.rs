//! What a configuration file may have, as the reader asks for it.

use std::collections::BTreeMap;

/// What was asked for, by path: `edge.pods[].name`.
#[derive(Debug, Default)]
pub(crate) struct Shapes(pub(crate) BTreeMap<String, Shape>);

impl Shapes {
    pub(crate) fn insert(&mut self, path: String, shape: Shape) {
        self.0.entry(path).or_insert(shape);
    }
}

/// The form of one field.
#[derive(Debug)]
pub(crate) struct Shape {
    /// What to write, in the words of a mistake.
    pub(crate) expected: &'static str,
    pub(crate) form: Form,
    /// Where it is one of a few words, these.
    pub(crate) words: Vec<&'static str>,
    pub(crate) required: bool,
}

/// How many values a field has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// One.
    One,
    /// A list.
    List,
    /// A mapping, whose names the operator chooses.
    Map,
}
