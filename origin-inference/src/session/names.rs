//! What graphs call their inputs and outputs. Pure.

use std::collections::BTreeMap;

/// The names of a graph, as its `genai_config.json` says them or as exporters usually do.
#[derive(Debug, Clone)]
pub(crate) struct Names {
    pub(crate) ids: String,
    pub(crate) mask: String,
    pub(crate) positions: String,
    pub(crate) logits: String,
    /// `[before, after]` the layer's number, for keys and for values.
    past: Vec<[Pattern; 2]>,
    present: Vec<[Pattern; 2]>,
}

/// A name around a layer's number.
#[derive(Debug, Clone)]
struct Pattern {
    before: String,
    after: String,
}

/// Which of a layer's two tensors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    Key,
    Value,
}

impl Pattern {
    /// From a name with `%d`.
    fn new(text: &str) -> Option<Self> {
        let (before, after) = text.split_once("%d")?;
        Some(Self { before: before.to_owned(), after: after.to_owned() })
    }

    fn layer(&self, name: &str) -> Option<usize> {
        name.strip_prefix(&self.before)?.strip_suffix(&self.after)?.parse().ok()
    }

    fn name(&self, layer: usize) -> String {
        format!("{}{layer}{}", self.before, self.after)
    }
}

fn pair(key: &str, value: &str) -> Option<[Pattern; 2]> {
    Some([Pattern::new(key)?, Pattern::new(value)?])
}

impl Default for Names {
    fn default() -> Self {
        let past = [
            pair("past_key_values.%d.key", "past_key_values.%d.value"),
            pair("past.%d.key", "past.%d.value"),
            pair("past_key_%d", "past_value_%d"),
        ];
        let present = [
            pair("present.%d.key", "present.%d.value"),
            pair("present_key_values.%d.key", "present_key_values.%d.value"),
            pair("present_key_%d", "present_value_%d"),
        ];
        Self {
            ids: "input_ids".to_owned(),
            mask: "attention_mask".to_owned(),
            positions: "position_ids".to_owned(),
            logits: "logits".to_owned(),
            past: past.into_iter().flatten().collect(),
            present: present.into_iter().flatten().collect(),
        }
    }
}

impl Names {
    /// The names that `genai_config.json` gives; the usual ones where it is silent.
    pub(crate) fn genai(
        inputs: &BTreeMap<String, String>,
        outputs: &BTreeMap<String, String>,
    ) -> Self {
        let mut names = Self::default();
        let said = |from: &BTreeMap<String, String>, field: &str, to: &mut String| {
            if let Some(name) = from.get(field) {
                to.clone_from(name);
            }
        };
        said(inputs, "input_ids", &mut names.ids);
        said(inputs, "attention_mask", &mut names.mask);
        said(inputs, "position_ids", &mut names.positions);
        said(outputs, "logits", &mut names.logits);
        let patterns = |from: &BTreeMap<String, String>, key: &str, value: &str| {
            pair(from.get(key)?, from.get(value)?)
        };
        let past = patterns(inputs, "past_key_names", "past_value_names");
        names.past.splice(0..0, past);
        let present = patterns(outputs, "present_key_names", "present_value_names");
        names.present.splice(0..0, present);
        names
    }

    /// The layer and part of an input that takes keys or values.
    pub(crate) fn past(&self, name: &str) -> Option<(usize, Part)> {
        self.past.iter().find_map(|[key, value]| {
            let key = key.layer(name).map(|layer| (layer, Part::Key));
            key.or_else(|| value.layer(name).map(|layer| (layer, Part::Value)))
        })
    }

    /// What the output of that layer and part may be called.
    pub(crate) fn present(&self, layer: usize, part: Part) -> Vec<String> {
        let pattern = |[key, value]: &[Pattern; 2]| match part {
            Part::Key => key.name(layer),
            Part::Value => value.name(layer),
        };
        self.present.iter().map(pattern).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn usual_names_are_known() {
        let names = Names::default();
        assert_eq!(names.past("past_key_values.11.value"), Some((11, Part::Value)));
        assert_eq!(names.past("past_key_3"), Some((3, Part::Key)));
        assert_eq!(names.past("past_key_values.x.key"), None);
        assert!(names.present(11, Part::Value).contains(&"present.11.value".to_owned()));
    }

    #[test]
    fn a_genai_config_may_name_its_own() {
        let map = |pairs: &[(&str, &str)]| {
            pairs.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect()
        };
        let inputs = map(&[
            ("input_ids", "tokens"),
            ("past_key_names", "k_%d_in"),
            ("past_value_names", "v_%d_in"),
        ]);
        let outputs =
            map(&[("present_key_names", "k_%d_out"), ("present_value_names", "v_%d_out")]);
        let names = Names::genai(&inputs, &outputs);
        assert_eq!((names.ids.as_str(), names.mask.as_str()), ("tokens", "attention_mask"));
        assert_eq!(names.past("v_2_in"), Some((2, Part::Value)));
        assert_eq!(names.present(2, Part::Value)[0], "v_2_out");
    }
}
