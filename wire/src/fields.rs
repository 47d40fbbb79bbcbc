//! The top level of a JSON request: names and raw values, nothing copied, no name twice.
//!
//! Reading does not recurse, however deep a body nests: `serde_json` skips raw values with a list
//! of its own. Whoever reads such a value later does recurse, so that depth is limited here, once.

use std::{borrow::Cow, fmt::Display};

use serde::{
    Deserialize, Deserializer,
    de::{Error as _, MapAccess, Visitor},
};
use serde_json::value::RawValue;

use crate::ApiError;

/// A request has a dozen fields; hundreds are an attack on whoever compares them.
const FIELDS_MAX: usize = 64;

/// Lists and objects inside each other, the body's own object counted. Requests need 6.
pub(crate) const NESTING_MAX: usize = 64;

/// A JSON object's fields in the order they were sent.
#[derive(Debug)]
pub struct Fields<'a>(Vec<(Cow<'a, str>, &'a RawValue)>);

impl<'a> Fields<'a> {
    /// Reads the object in `body`. A name that stands twice is refused: two readers could take
    /// different ones. So is a value that nests deeper than 64 levels.
    ///
    /// # Errors
    /// An [`ApiError`] for the client.
    pub fn parse(body: &'a [u8]) -> Result<Self, ApiError> {
        let fields: Self = serde_json::from_slice(body).map_err(|error| {
            let message = format!("the body is not a JSON object that can be read: {error}");
            invalid_json(message)
        })?;
        let flat = fields.iter().all(|(_, value)| nests_within(value, NESTING_MAX - 1));
        match flat {
            true => Ok(fields),
            false => Err(invalid_json(format!("the body nests deeper than {NESTING_MAX} levels"))),
        }
    }

    /// All names with their values, as sent.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &'a str)> {
        self.0.iter().map(|(name, value)| (name.as_ref(), value.get()))
    }

    /// The raw value of a field; `null` counts as absent, as SDKs send it for "not set".
    #[must_use]
    pub fn raw(&self, name: &str) -> Option<&'a str> {
        let (_, value) = self.0.iter().find(|(known, _)| known == name)?;
        Some(value.get()).filter(|value| *value != "null")
    }

    /// A typed field. `expected` says what to send instead: `a number from 0 to 2`.
    ///
    /// # Errors
    /// An [`ApiError`] that names the field.
    pub fn get<T: Deserialize<'a>>(
        &self,
        name: &str,
        expected: impl Display,
    ) -> Result<Option<T>, ApiError> {
        let Some(raw) = self.raw(name) else { return Ok(None) };
        match serde_json::from_str(raw) {
            Ok(value) => Ok(Some(value)),
            Err(_) => Err(ApiError::invalid(name, format!("{name} must be {expected}"))),
        }
    }

    /// Text, borrowed from the body where it has no escapes.
    ///
    /// # Errors
    /// An [`ApiError`] that names the field.
    pub fn text(&self, name: &str) -> Result<Option<Cow<'a, str>>, ApiError> {
        Ok(self.get::<Text<'a>>(name, "text")?.map(|Text(text)| text))
    }
}

fn invalid_json(message: String) -> ApiError {
    ApiError { code: Some("invalid_json".to_owned()), ..ApiError::invalid("body", cut(message)) }
}

/// A message that may quote the body, at a length that is no second body.
pub(crate) fn cut(mut message: String) -> String {
    const BYTES_MAX: usize = 256;
    if message.len() > BYTES_MAX {
        message.truncate(message.floor_char_boundary(BYTES_MAX));
        message.push('…');
    }
    message
}

/// Whether lists and objects stand at most `max` deep inside each other in `value`, valid JSON.
/// Text and numbers are not looked at: the long fields of a completion cost nothing.
fn nests_within(value: &str, max: usize) -> bool {
    let bytes = value.as_bytes();
    if !matches!(bytes.first(), Some(b'[' | b'{')) {
        return true;
    }
    let (mut depth, mut at) = (0usize, 0);
    while let Some(byte) = bytes.get(at) {
        at += 1;
        match byte {
            b'"' => at = after_text(bytes, at),
            b'[' | b'{' if depth == max => return false,
            b'[' | b'{' => depth += 1,
            b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    true
}

/// The index after the quote that ends the text which began at `start`. A quote with an odd number
/// of backslashes before it is part of the text.
fn after_text(bytes: &[u8], start: usize) -> usize {
    let mut at = start;
    while let Some(quote) = next_quote(bytes, at) {
        let before = bytes[start..quote].iter().rev();
        at = quote + 1;
        if before.take_while(|byte| **byte == b'\\').count() % 2 == 0 {
            break;
        }
    }
    at
}

/// Most of a conversation is skipped here, so that it goes in blocks for which compilers have
/// instructions.
fn next_quote(bytes: &[u8], mut at: usize) -> Option<usize> {
    while let Some(block) = bytes.get(at..).and_then(<[u8]>::first_chunk::<32>) {
        if block.iter().fold(false, |found, byte| found | (*byte == b'"')) {
            break;
        }
        at += block.len();
    }
    let rest = bytes.get(at..)?;
    Some(at + rest.iter().position(|byte| *byte == b'"')?)
}

impl<'de: 'a, 'a> Deserialize<'de> for Fields<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object;
        impl<'de> Visitor<'de> for Object {
            type Value = Fields<'de>;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a JSON object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut fields: Vec<(Cow<'de, str>, &'de RawValue)> = Vec::with_capacity(8);
                while let Some(Text(name)) = map.next_key()? {
                    if fields.iter().any(|(known, _)| *known == name) {
                        let name = cut(name.into_owned());
                        return Err(A::Error::custom(format!("the field `{name}` stands twice")));
                    }
                    if fields.len() == FIELDS_MAX {
                        return Err(A::Error::custom(format!("over {FIELDS_MAX} fields")));
                    }
                    fields.push((name, map.next_value()?));
                }
                Ok(Fields(fields))
            }
        }
        deserializer.deserialize_map(Object)
    }
}

/// Text borrowed from the body where it has no escapes. (`Option<Cow<str>>` would always copy.)
#[derive(Debug, Deserialize)]
#[serde(transparent)]
pub(crate) struct Text<'a>(#[serde(borrow)] pub(crate) Cow<'a, str>);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn nested(levels: usize) -> String {
        format!(r#"{{"a":{}{}}}"#, "[".repeat(levels - 1), "]".repeat(levels - 1))
    }

    fn check_refused(body: &[u8], said: &str) {
        let error = Fields::parse(body).unwrap_err();
        assert_eq!(error.code.as_deref(), Some("invalid_json"));
        assert!(error.message.contains(said), "{error}");
        assert!(error.message.len() <= 300, "{error}");
    }

    #[test]
    fn sixty_four_levels_are_read_and_one_more_is_refused() {
        assert!(Fields::parse(nested(64).as_bytes()).is_ok());
        check_refused(nested(65).as_bytes(), "deeper than 64 levels");
    }

    #[test]
    fn a_tower_of_brackets_is_refused_without_a_tower_of_calls() {
        const LEVELS: usize = 200_000;
        check_refused(nested(LEVELS).as_bytes(), "deeper than 64 levels");
        check_refused("[".repeat(LEVELS).as_bytes(), "not a JSON object");
        check_refused(format!("{{\"a\":{}", "[".repeat(LEVELS)).as_bytes(), "EOF");
        check_refused("{\"a\":".repeat(LEVELS).as_bytes(), "EOF");
        let objects = format!("{}1{}", "{\"a\":".repeat(LEVELS), "}".repeat(LEVELS));
        check_refused(objects.as_bytes(), "deeper than 64 levels");
    }

    #[test]
    fn brackets_in_text_do_not_nest() {
        let brackets = "[{".repeat(500);
        let body = format!(
            r#"{{"prompt":"{brackets}","messages":[{{"content":"{brackets}\\\"{brackets}"}}]}}"#
        );
        assert!(Fields::parse(body.as_bytes()).is_ok());
    }

    #[test]
    fn an_error_quotes_little_of_the_body() {
        let long = "é".repeat(10_000);
        check_refused(format!("\"{long}\"").as_bytes(), "invalid type");
        check_refused(format!(r#"{{"{long}":1,"{long}":2}}"#).as_bytes(), "the field `é");
    }

    proptest! {
        #[test]
        fn depth_is_what_a_plain_count_says(texts in prop::collection::vec("[\\[\\]{}a\"\\\\]{0,20}", 1..6), levels in 1usize..5) {
            let mut value = serde_json::to_string(&texts).unwrap();
            for _ in 1..levels {
                value = format!("[{value},{{}}]");
            }
            // The innermost empty object stands one below the list that holds it.
            let deepest = if levels > 1 { levels.max(2) } else { 1 };
            prop_assert!(nests_within(&value, deepest));
            prop_assert!(!nests_within(&value, deepest - 1));
        }
    }
}
