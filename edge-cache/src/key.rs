//! The canonical key of a request: everything that could change its answer.
//!
//! Each part is written with its length before it, so that no two different requests can look
//! alike (`"ab" + "c"` is not `"a" + "bc"`), then hashed with SHA-256. The same request has the
//! same key in every process, whatever the order of its JSON fields.

use nearhop_wire::Endpoint;
use sha2::{Digest as _, Sha256};

/// Names one answer. Only equal requests of one tenant have equal keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Key([u8; 32]);

/// Everything that a key is made of.
#[derive(Debug, Clone, PartialEq)]
pub struct Parts<'a> {
    /// Whose request it is. Leads the key.
    pub tenant: &'a str,
    /// The model's name.
    pub model: &'a str,
    /// Its weights.
    pub revision: &'a str,
    /// How prompts are laid out for it.
    pub template: &'a str,
    /// The answer's shape.
    pub endpoint: Endpoint,
    /// The text: `[prompt]`, `[prefix, suffix]`, or role, name and content of every message.
    pub text: &'a [&'a str],
    /// Whether `text` is prefix and suffix: `["a", ""]` is not the prompt `"a"`.
    pub fill_in_the_middle: bool,
    /// Sampling temperature.
    pub temperature: f32,
    /// Nucleus sampling mass.
    pub top_p: f32,
    /// The most tokens an answer may have; `None` is the model's default.
    pub max_tokens: Option<usize>,
    /// The number of choices.
    pub n: usize,
    /// The sampler's seed, where the client gave one.
    pub seed: Option<u64>,
    /// Where the answer ends.
    pub stop: &'a [String],
}

/// Changes whenever the layout below does, so that old keys mean nothing to new code.
const LAYOUT: &[u8] = b"nearhop completion key 1";

impl Key {
    /// The key of a request.
    #[must_use]
    pub fn of(parts: &Parts<'_>) -> Self {
        let mut hash = Writer(Sha256::new());
        hash.bytes(LAYOUT);
        hash.bytes(parts.tenant.as_bytes());
        hash.bytes(parts.model.as_bytes());
        hash.bytes(parts.revision.as_bytes());
        hash.bytes(parts.template.as_bytes());
        hash.number(match parts.endpoint {
            Endpoint::Completions => u64::from(parts.fill_in_the_middle),
            Endpoint::Chat => 2,
            // Answers are stored as they are sent: the editors' shapes have answers of their own.
            Endpoint::Fim => 3 + u64::from(parts.fill_in_the_middle),
            Endpoint::Infill => 5,
            Endpoint::Tabby => 6 + u64::from(parts.fill_in_the_middle),
        });
        // Negative zero samples as zero does.
        hash.number(u64::from((parts.temperature + 0.0).to_bits()));
        hash.number(u64::from((parts.top_p + 0.0).to_bits()));
        hash.optional(parts.max_tokens.map(|tokens| tokens as u64));
        hash.number(parts.n as u64);
        hash.optional(parts.seed);
        hash.list(parts.stop.iter().map(String::as_str));
        hash.list(parts.text.iter().copied());
        Self(hash.0.finalize().into())
    }
}

struct Writer(Sha256);

impl Writer {
    fn number(&mut self, number: u64) {
        self.0.update(number.to_le_bytes());
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.number(bytes.len() as u64);
        self.0.update(bytes);
    }

    fn optional(&mut self, number: Option<u64>) {
        self.number(u64::from(number.is_some()));
        self.number(number.unwrap_or(0));
    }

    fn list<'a>(&mut self, items: impl ExactSizeIterator<Item = &'a str>) {
        self.number(items.len() as u64);
        for item in items {
            self.bytes(item.as_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parts<'a>(text: &'a [&'a str]) -> Parts<'a> {
        Parts {
            tenant: "acme",
            model: "m",
            revision: "1",
            template: "t",
            endpoint: Endpoint::Completions,
            text,
            fill_in_the_middle: false,
            temperature: 0.0,
            top_p: 1.0,
            max_tokens: None,
            n: 1,
            seed: None,
            stop: &[],
        }
    }

    #[test]
    fn each_part_changes_the_key() {
        let base = parts(&["fn main"]);
        let stop = ["\n".to_owned()];
        let others = [
            Parts { tenant: "other", ..base.clone() },
            Parts { model: "n", ..base.clone() },
            Parts { revision: "2", ..base.clone() },
            Parts { template: "u", ..base.clone() },
            Parts { endpoint: Endpoint::Chat, ..base.clone() },
            Parts { endpoint: Endpoint::Fim, ..base.clone() },
            Parts { endpoint: Endpoint::Fim, fill_in_the_middle: true, ..base.clone() },
            Parts { endpoint: Endpoint::Infill, ..base.clone() },
            Parts { endpoint: Endpoint::Tabby, ..base.clone() },
            Parts { endpoint: Endpoint::Tabby, fill_in_the_middle: true, ..base.clone() },
            Parts { text: &["fn main", ""], ..base.clone() },
            Parts { fill_in_the_middle: true, ..base.clone() },
            Parts { temperature: 0.2, ..base.clone() },
            Parts { top_p: 0.9, ..base.clone() },
            Parts { max_tokens: Some(0), ..base.clone() },
            Parts { n: 2, ..base.clone() },
            Parts { seed: Some(0), ..base.clone() },
            Parts { stop: &stop, ..base.clone() },
        ];
        let mut keys: Vec<Key> = others.iter().map(Key::of).collect();
        keys.push(Key::of(&base));
        let distinct: std::collections::HashSet<Key> = keys.iter().copied().collect();
        assert_eq!(distinct.len(), keys.len());
    }

    #[test]
    fn the_key_is_the_same_in_every_process() {
        let Key(bytes) = Key::of(&parts(&["fn main"]));
        assert_eq!(bytes[..4], KNOWN, "{bytes:02x?}: raise LAYOUT when the layout changes");
    }

    const KNOWN: [u8; 4] = [0x90, 0xb0, 0x8e, 0xe4];

    proptest! {
        #[test]
        fn moving_text_over_a_border_changes_the_key(a in ".{0,8}", b in ".{1,8}") {
            let joined = format!("{a}{b}");
            let (first, second) = ([a.as_str(), b.as_str()], [joined.as_str(), ""]);
            prop_assert_ne!(Key::of(&parts(&first)), Key::of(&parts(&second)));
        }
    }
}
