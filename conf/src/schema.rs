//! The configuration file as a JSON Schema, for editors and for programs that write one.
//!
//! What is a field, and of which form, comes from the reader itself; what it is for, from the
//! comments of the default file.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use crate::{Config, defaults::DEFAULT_YAML, shape::Shape};

impl Shape {
    fn schema(&self) -> Map<String, Value> {
        let item = match (self.words.as_slice(), self.expected) {
            ([], "true or false") => json!({ "type": "boolean" }),
            ([], expected) if expected.starts_with("a whole number") => {
                json!({ "type": "integer", "minimum": 1 })
            }
            ([], expected) if expected.starts_with("a number") => {
                json!({ "type": "number", "minimum": 0, "maximum": 1 })
            }
            ([], _) => json!({ "type": "string" }),
            (words, _) => json!({ "type": "string", "enum": words }),
        };
        let schema = if self.list { json!({ "type": "array", "items": item }) } else { item };
        match schema {
            Value::Object(map) => map,
            _ => Map::new(),
        }
    }
}

/// The JSON Schema (draft 2020-12) of a configuration file.
#[must_use]
pub fn schema() -> Value {
    let comments = comments(DEFAULT_YAML);
    let mut root = object();
    for (path, shape) in &Config::shapes().0 {
        insert(&mut root, path, shape, &comments);
    }
    let mut schema = json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Nearhop's configuration",
    });
    if let (Value::Object(schema), Value::Object(root)) = (&mut schema, root) {
        schema.extend(root);
    }
    schema
}

fn object() -> Value {
    json!({ "type": "object", "additionalProperties": false, "properties": {} })
}

/// Puts a field at its place below `node`, with the mappings and lists on its way.
fn insert(root: &mut Value, path: &str, shape: &Shape, comments: &BTreeMap<String, String>) {
    let mut node = root;
    let mut walked = String::new();
    let mut parts = path.split('.').peekable();
    while let Some(part) = parts.next() {
        let (name, list) = part.strip_suffix("[]").map_or((part, false), |name| (name, true));
        if !walked.is_empty() {
            walked.push('.');
        }
        walked.push_str(name);
        let comment = comments.get(&walked);
        if parts.peek().is_none() {
            let mut schema = shape.schema();
            let says = comment.map_or_else(
                || shape.expected.to_owned(),
                |comment| format!("{comment} ({})", shape.expected),
            );
            schema.insert("description".to_owned(), Value::String(says));
            if shape.required {
                require(node, name);
            }
            node["properties"][name] = Value::Object(schema);
            return;
        }
        let below = &mut node["properties"][name];
        if below.is_null() {
            *below = if list { json!({ "type": "array", "items": object() }) } else { object() };
            if let Some(comment) = comment {
                below["description"] = Value::String(comment.clone());
            }
        }
        node = if list { &mut below["items"] } else { below };
        if list {
            walked.push_str("[]");
        }
    }
}

fn require(node: &mut Value, name: &str) {
    if let Value::Object(node) = node {
        let required = node.entry("required").or_insert_with(|| json!([]));
        if let Value::Array(required) = required {
            required.push(Value::String(name.to_owned()));
        }
    }
}

/// The comments of the default file, by path. A field that is commented out counts as well.
fn comments(yaml: &str) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let mut path: Vec<(usize, String)> = Vec::new();
    for line in yaml.lines() {
        let bare = line.replacen("# ", "", usize::from(line.trim_start().starts_with("# ")));
        let text = bare.trim_start();
        let item = text.starts_with("- ");
        let text = text.trim_start_matches("- ");
        let indent = bare.len() - text.len();
        let Some((name, rest)) = text.split_once(':') else { continue };
        if name.is_empty()
            || !name.chars().all(|c| c.is_ascii_lowercase() || "_0123456789".contains(c))
        {
            continue;
        }
        path.retain(|(depth, _)| *depth < indent);
        if item
            && let Some((_, parent)) = path.last_mut()
            && !parent.ends_with("[]")
        {
            parent.push_str("[]");
        }
        path.push((indent, name.to_owned()));
        if let Some((_, comment)) = rest.split_once(" # ") {
            let full: Vec<&str> = path.iter().map(|(_, name)| name.as_str()).collect();
            found.entry(full.join(".")).or_insert_with(|| comment.trim().to_owned());
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_have_their_form_their_place_and_their_comment() {
        let schema = schema();
        let limits = &schema["properties"]["edge"]["properties"]["limits"]["properties"];
        assert_eq!(limits["requests"]["type"], "integer");
        assert!(limits["requests"]["description"].as_str().unwrap().contains("shed"), "{limits}");
        let pods = &schema["properties"]["edge"]["properties"]["pods"]["items"];
        assert_eq!(pods["required"], json!(["address", "name"]));
        assert_eq!(pods["additionalProperties"], false);
        let protocol =
            &schema["properties"]["edge"]["properties"]["upstream"]["properties"]["protocol"];
        assert_eq!(protocol["enum"], json!(["http1", "h2"]));
    }

    #[test]
    fn every_field_of_the_default_file_is_in_the_schema() {
        let mut paths: Vec<String> = comments(DEFAULT_YAML).into_keys().collect();
        paths.retain(|path| !path.is_empty());
        let schema = schema();
        for path in paths {
            let mut node = &schema;
            for part in path.split('.') {
                let (name, list) =
                    part.strip_suffix("[]").map_or((part, false), |name| (name, true));
                node = &node["properties"][name];
                assert!(!node.is_null(), "{path} is in the default file and not in the schema");
                node = if list { &node["items"] } else { node };
            }
        }
    }
}
