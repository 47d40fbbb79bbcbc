//! What can be made to fail, as a scenario, a command line and a line on a socket write it.

use serde::{Deserialize, Serialize};

/// Something to be done to a world. `kill_llm_nodes` and its like choose nodes by a rule and never
/// by chance ([`crate::world::World::steps`]), so that a run can be repeated.
///
/// All variants have braces: only then is an unknown field of theirs refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "action", rename_all = "snake_case", deny_unknown_fields)]
pub enum Action {
    /// Inference pods end, as by a crash.
    KillLlmNodes {
        /// How many.
        #[serde(default = "one")]
        count: usize,
        /// Of this region alone; over all regions where not given.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        region: Option<String>,
    },
    /// A region's edge ends, as by a crash.
    KillEdge {
        /// Whose.
        region: String,
    },
    /// Inference pods stop as they are: their sockets stay open and answer nothing.
    PauseLlmNodes {
        /// How many.
        #[serde(default = "one")]
        count: usize,
        /// As in [`Self::KillLlmNodes`].
        #[serde(default, skip_serializing_if = "Option::is_none")]
        region: Option<String>,
    },
    /// Inference pods get a part of the time only.
    SlowLlmNodes {
        /// How many.
        #[serde(default = "one")]
        count: usize,
        /// As in [`Self::KillLlmNodes`].
        #[serde(default, skip_serializing_if = "Option::is_none")]
        region: Option<String>,
        /// They get one part in so many: 2 to 50.
        #[serde(default = "four")]
        times: u32,
    },
    /// Every packet from and to a region takes longer.
    SlowNetwork {
        /// Which.
        region: String,
        /// How much longer, each way: up to a minute. 0 is as fast as it was.
        delay_ms: u64,
    },
    /// A region is cut off from all other places, its clients' among them.
    NetworkPartition {
        /// Which.
        region: String,
    },
    /// Nothing more can be written where a region's edge keeps its files.
    FillDisk {
        /// Which.
        region: String,
    },
    /// Everything is put right, and whoever was killed runs again.
    Undo {},
    /// Nothing is done: who runs, and what is cut.
    State {},
}

const fn one() -> usize {
    1
}

const fn four() -> u32 {
    4
}

/// Every action with its fields; a question mark is one that may be left out.
pub const FORMS: &str = "kill_llm_nodes {count?, region?}, kill_edge {region}, \
     pause_llm_nodes {count?, region?}, slow_llm_nodes {count?, region?, times?}, \
     slow_network {region, delay_ms}, network_partition {region}, fill_disk {region}, undo, state";

/// Text that is no action.
#[derive(Debug, thiserror::Error)]
#[error("{0}. The actions are: {FORMS}")]
pub struct NoAction(String);

impl From<serde_json::Error> for NoAction {
    fn from(error: serde_json::Error) -> Self {
        // Its message is all of it: as a source it would be said twice.
        Self(error.to_string())
    }
}

impl Action {
    /// Reads one from JSON.
    ///
    /// # Errors
    /// [`NoAction`], with what is wrong and what there is.
    pub fn from_json(text: &str) -> Result<Self, NoAction> {
        Ok(serde_json::from_str(text)?)
    }

    /// Reads one as a command line has it: its name, and `field=value` for each field.
    ///
    /// # Errors
    /// [`NoAction`]; a word without `=` is taken for a field without a value.
    pub fn from_words(name: &str, fields: &[String]) -> Result<Self, NoAction> {
        let mut object = serde_json::Map::new();
        object.insert("action".to_owned(), name.into());
        for word in fields {
            let (field, value) = word.split_once('=').unwrap_or((word, ""));
            // A number is one, whatever else is text.
            let value = value.parse::<u64>().map_or_else(|_| value.into(), Into::into);
            object.insert(field.to_owned(), value);
        }
        Ok(serde_json::from_value(object.into())?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(json: &str, expected: &Action) {
        assert_eq!(&Action::from_json(json).unwrap(), expected);
        let written = serde_json::to_string(expected).unwrap();
        assert_eq!(&Action::from_json(&written).unwrap(), expected, "{written}");
    }

    #[test]
    fn actions_are_read_as_they_are_written() {
        let region = || "us-west".to_owned();
        check(
            r#"{"action": "kill_llm_nodes", "count": 3}"#,
            &Action::KillLlmNodes { count: 3, region: None },
        );
        check(
            r#"{"action": "pause_llm_nodes", "region": "us-west"}"#,
            &Action::PauseLlmNodes { count: 1, region: Some(region()) },
        );
        check(
            r#"{"action": "slow_network", "region": "us-west", "delay_ms": 200}"#,
            &Action::SlowNetwork { region: region(), delay_ms: 200 },
        );
        check(r#"{"action": "undo"}"#, &Action::Undo {});
    }

    #[test]
    fn a_mistake_is_named_and_so_is_what_there_is() {
        for (json, expected) in [
            (r#"{"action": "explode"}"#, "unknown variant `explode`"),
            (r#"{"action": "kill_edge"}"#, "missing field `region`"),
            (r#"{"action": "undo", "region": "us-west"}"#, "unknown field `region`"),
            (r#"{"action": "kill_llm_nodes", "count": -1}"#, "`-1`"),
            ("explode", "expected value"),
        ] {
            let error = Action::from_json(json).unwrap_err().to_string();
            assert!(error.contains(expected) && error.contains("fill_disk {region}"), "{error}");
        }
    }

    #[test]
    fn words_of_a_command_line_are_the_same_action() {
        let words = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect::<Vec<_>>();
        assert_eq!(
            Action::from_words("slow_network", &words(&["region=us-west", "delay_ms=200"]))
                .unwrap(),
            Action::SlowNetwork { region: "us-west".to_owned(), delay_ms: 200 }
        );
        let error = Action::from_words("kill_edge", &words(&["us-west"])).unwrap_err().to_string();
        assert!(error.contains("unknown field `us-west`"), "{error}");
    }

    #[test]
    fn the_list_of_forms_has_every_action() {
        let error = serde_json::from_str::<Action>(r#"{"action": "?"}"#).unwrap_err().to_string();
        let names: Vec<&str> = error.split('`').skip(3).step_by(2).collect();
        assert!(names.len() > 8 && names.contains(&"undo"), "{error}");
        let forms: Vec<&str> =
            FORMS.split(", ").map(|form| form.split(' ').next().unwrap()).collect();
        assert!(names.iter().all(|name| forms.contains(name)), "{names:?}");
    }
}
