//! The configuration file as a JSON Schema, for editors and for programs that write one.
//!
//! What is a field, and of which form, comes from the reader itself; what it is for, from the
//! comments of the default file.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use crate::{
    Config,
    defaults::DEFAULT_YAML,
    shape::{Form, Shape},
};

impl Shape {
    fn schema(&self) -> Map<String, Value> {
        let item = match (self.words.as_slice(), self.expected) {
            ([], "true or false") => json!({ "type": "boolean" }),
            ([], "a whole number such as 64496") => json!({ "type": "integer", "minimum": 0 }),
            ([], expected) if expected.starts_with("a whole number") => {
                json!({ "type": "integer", "minimum": 1 })
            }
            ([], "a number from 0 to 1") => json!({ "type": "number", "minimum": 0, "maximum": 1 }),
            ([], expected) if is_number(expected) => json!({ "type": "number" }),
            ([], _) => json!({ "type": "string" }),
            (words, _) => json!({ "type": "string", "enum": words }),
        };
        let schema = match self.form {
            Form::One => item,
            Form::List => json!({ "type": "array", "items": item }),
            Form::Map => json!({ "type": "object", "additionalProperties": item }),
        };
        match schema {
            Value::Object(map) => map,
            _ => Map::new(),
        }
    }
}

fn is_number(expected: &str) -> bool {
    ["a number", "degrees", "kilometres"].iter().any(|start| expected.starts_with(start))
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
    use crate::reader::parse_yaml;

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
        let providers = &schema["properties"]["edge"]["properties"]["providers"]["items"];
        let models = &providers["properties"]["models"];
        assert_eq!(models["additionalProperties"]["type"], "string", "{models}");
        let kinds = &providers["properties"]["kinds"]["items"];
        assert_eq!(kinds["enum"], json!(["inline", "fim", "chat", "agent"]));
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

    /// What in `value` the schema refuses: those of its rules that ours have.
    fn refused(schema: &Value, value: &Value, path: &str, out: &mut Vec<String>) {
        let fits = match schema["type"].as_str().unwrap() {
            "object" => value.is_object(),
            "array" => value.is_array(),
            "string" => value.is_string(),
            "boolean" => value.is_boolean(),
            "integer" => value.is_u64(),
            "number" => value.is_number(),
            other => panic!("{path}: {other} is no type"),
        };
        let least = schema["minimum"].as_f64().unwrap_or(f64::MIN);
        let most = schema["maximum"].as_f64().unwrap_or(f64::MAX);
        let within = value.as_f64().is_none_or(|number| (least..=most).contains(&number));
        let word = schema["enum"].as_array().is_none_or(|words| words.contains(value));
        if !(fits && within && word) {
            out.push(format!("{path}: {value}"));
        }
        for name in schema["required"].as_array().into_iter().flatten() {
            if value[name.as_str().unwrap()].is_null() {
                out.push(format!("{path}: without {name}"));
            }
        }
        for (name, below) in value.as_object().into_iter().flatten() {
            let known = &schema["properties"][name];
            let schema = if known.is_null() { &schema["additionalProperties"] } else { known };
            match schema.is_object() {
                true => refused(schema, below, &format!("{path}.{name}"), out),
                false => out.push(format!("{path}.{name}: unknown")),
            }
        }
        for below in value.as_array().into_iter().flatten() {
            refused(&schema["items"], below, &format!("{path}[]"), out);
        }
    }

    #[test]
    fn the_schema_takes_every_example_and_the_default_file() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
        let files = std::fs::read_dir(folder).unwrap();
        let mut texts: Vec<String> =
            files.map(|file| std::fs::read_to_string(file.unwrap().path()).unwrap()).collect();
        texts.push(DEFAULT_YAML.to_owned());
        let schema = schema();
        for text in texts {
            let mut out = Vec::new();
            refused(&schema, &parse_yaml(&text, "f").unwrap(), "", &mut out);
            assert!(out.is_empty(), "{out:?} of\n{text}");
        }
        let mut out = Vec::new();
        let bad = "edge: {listen: 1, providers: [{name: a, models: {a: 1}}], nothing: 1}\n";
        refused(&schema, &parse_yaml(bad, "f").unwrap(), "", &mut out);
        assert_eq!(
            out,
            [
                ".edge.listen: 1",
                ".edge.nothing: unknown",
                ".edge.providers[]: without \"url\"",
                ".edge.providers[].models.a: 1",
            ]
        );
    }
}
