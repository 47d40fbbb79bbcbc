//! Text to tokens and back. The only file that imports `tokenizers`.

use std::{path::Path, sync::Arc};

use quick_cache::{Weighter, sync::Cache};
use sha2::{Digest as _, Sha256};

use super::fim;
use crate::OriginError;

/// A tokenizer that reads users' text as text: a special token's name in it is no special token.
/// It remembers texts that it read: while somebody types, what is behind the cursor and what a chat
/// began with are the same in every request.
pub(crate) struct Tokenizer {
    text: tokenizers::Tokenizer,
    /// The same tokenizer, reading special tokens: for what a chat template itself writes.
    template: tokenizers::Tokenizer,
    special: Vec<String>,
    /// The tokens of [`ANCHOR`].
    anchor: Vec<u32>,
    /// Whether it puts a space before a text's first word.
    leads_with_space: bool,
    /// One over the highest id.
    vocabulary: usize,
    longest: usize,
    digest: [u8; 32],
    read: Cache<Name, Arc<[u32]>, ByBytes>,
}

/// How a text is read.
#[derive(Debug, Clone, Copy)]
enum How {
    /// Users' text.
    Text,
    /// With the model's own first and last token.
    Whole,
    /// What a template wrote.
    Template,
}

/// Names a text and how it was read: 128 bits of SHA-256.
type Name = [u8; 16];

/// Memory for tokens of texts that were read.
const READ_BYTES: u64 = 16 << 20;
/// Shorter texts are read as fast as they are found.
const READ_MIN: usize = 64;

#[derive(Clone)]
struct ByBytes;

impl Weighter<Name, Arc<[u32]>> for ByBytes {
    fn weight(&self, _: &Name, tokens: &Arc<[u32]>) -> u64 {
        // With about what an entry costs beside its tokens.
        96 + size_of_val::<[u32]>(tokens) as u64
    }
}

impl std::fmt::Debug for Tokenizer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tokenizer").field("vocabulary", &self.vocabulary()).finish_non_exhaustive()
    }
}

/// Stands before a text of which only the rest is wanted: tokenizers put a space before a text's
/// first word, or take one away when they write it.
const ANCHOR: &str = "\u{263A}";

impl Tokenizer {
    pub(crate) fn load(path: &Path) -> Result<Self, OriginError> {
        let wrong = |what: String| OriginError::ModelFile {
            path: path.to_owned(),
            what,
            fix: "Copy tokenizer.json from where the model came from again",
        };
        let bytes = std::fs::read(path).map_err(|error| wrong(error.to_string()))?;
        let mut template = tokenizers::Tokenizer::from_bytes(&bytes)
            .map_err(|error| wrong(format!("not a tokenizer: {error}")))?;
        // Exports ship with padding and truncation meant for training.
        template.with_padding(None);
        template.with_truncation(None).map_err(|error| wrong(error.to_string()))?;
        let refused = |error: tokenizers::Error| wrong(error.to_string());
        mark_special(&mut template, fim::is_mark).map_err(refused)?;
        let mut text = template.clone();
        mark_special(&mut text, is_bracketed).map_err(refused)?;
        text.set_encode_special_tokens(true);
        let special = text
            .get_added_tokens_decoder()
            .into_values()
            .filter(|token| token.special)
            .map(|token| token.content)
            .collect();
        let words = template.get_vocab(true);
        let vocabulary = words.values().max().map_or(0, |highest| *highest as usize + 1);
        let longest = words.keys().map(String::len).max().unwrap_or(0);
        let anchor = encode(&text, ANCHOR, false);
        let alone = encode(&text, "a", false);
        let leads_with_space = !encode(&text, &format!("{ANCHOR}a"), false).ends_with(&alone);
        let digest = Sha256::digest(&bytes).into();
        let read = Cache::with_weighter(4096, READ_BYTES, ByBytes);
        Ok(Self {
            text,
            template,
            special,
            anchor,
            leads_with_space,
            vocabulary,
            longest,
            digest,
            read,
        })
    }

    /// One over the highest id that means something.
    pub(crate) fn vocabulary(&self) -> usize {
        self.vocabulary
    }

    /// Bytes of the longest token.
    pub(crate) fn longest(&self) -> usize {
        self.longest
    }

    /// The tokens of a text that may stand before any other.
    pub(crate) fn anchor(&self) -> &[u32] {
        &self.anchor
    }

    pub(crate) fn digest(&self) -> [u8; 32] {
        self.digest
    }

    /// The id of a token, by its text.
    pub(crate) fn id(&self, token: &str) -> Option<u32> {
        self.text.token_to_id(token)
    }

    /// The special tokens' texts.
    pub(crate) fn special(&self) -> &[String] {
        &self.special
    }

    /// The tokens that its own post-processor puts before a text.
    pub(crate) fn leading(&self) -> Vec<u32> {
        let plain = encode(&self.text, "a", false);
        let whole = encode(&self.text, "a", true);
        let at = whole.windows(plain.len().max(1)).position(|window| window == plain);
        whole[..at.unwrap_or(0)].to_vec()
    }

    /// The tokens of a user's text.
    pub(crate) fn encode(&self, text: &str) -> Vec<u32> {
        self.remembered(How::Text, text)
    }

    fn remembered(&self, how: How, text: &str) -> Vec<u32> {
        let read = || match how {
            How::Text => encode(&self.text, text, false),
            How::Whole => encode(&self.text, text, true),
            How::Template => encode(&self.template, text, false),
        };
        if text.len() < READ_MIN {
            return read();
        }
        let mut digest = Sha256::new();
        digest.update([how as u8]);
        digest.update(text);
        let mut name = Name::default();
        name.copy_from_slice(&digest.finalize()[..16]);
        if let Some(tokens) = self.read.get(&name) {
            return tokens.to_vec();
        }
        let tokens = read();
        self.read.insert(name, tokens.as_slice().into());
        tokens
    }

    /// The tokens of a text that goes on from another: without the space that some tokenizers put
    /// before a text's first word. Rozière et al. 2023, "Code Llama", appendix on infilling.
    pub(crate) fn encode_continued(&self, text: &str) -> Vec<u32> {
        if !self.leads_with_space {
            return self.encode(text);
        }
        let anchored = self.encode(&format!("{ANCHOR}{text}"));
        match anchored.strip_prefix(self.anchor.as_slice()) {
            Some(rest) => rest.to_vec(),
            None => self.encode(text),
        }
    }

    /// A text as an embedder reads it, with its own first and last token.
    pub(crate) fn encode_whole(&self, text: &str) -> Vec<u32> {
        self.remembered(How::Whole, text)
    }

    /// The tokens of a text in which special tokens' names are special tokens: what a chat
    /// template wrote.
    pub(crate) fn encode_template(&self, text: &str) -> Vec<u32> {
        self.remembered(How::Template, text)
    }

    /// The text of tokens, without special ones: what the publisher lists as such, and the marks
    /// around a gap. Bytes that are no whole character yet become U+FFFD.
    pub(crate) fn decode(&self, tokens: &[u32]) -> String {
        self.template.decode(tokens, true).unwrap_or_default()
    }

    /// One token's own text, special ones too, as it stands inside a text; for what lists
    /// candidates.
    pub(crate) fn piece(&self, token: u32) -> String {
        let decode = |tokens: &[u32]| self.text.decode(tokens, false).unwrap_or_default();
        let anchored = decode(&[self.anchor.as_slice(), &[token]].concat());
        let before = decode(&self.anchor).len();
        anchored.get(before..).map_or_else(|| decode(&[token]), str::to_owned)
    }
}

/// Makes added tokens special that are `marks`. Some publishers list the tokens around a gap, and
/// those of tools, as ordinary ones.
fn mark_special(
    tokenizer: &mut tokenizers::Tokenizer,
    marks: impl Fn(&str) -> bool,
) -> tokenizers::Result<()> {
    let added = tokenizer.get_added_tokens_decoder().into_values();
    let marks: Vec<_> = added
        .filter(|token| !token.special && marks(&token.content))
        .map(|token| tokenizers::AddedToken { special: true, ..token })
        .collect();
    if !marks.is_empty() {
        tokenizer.add_special_tokens(marks)?;
    }
    Ok(())
}

/// Whether a name looks like a mark, whatever its publisher says of it: users' text must not be
/// able to write it. Runs of spaces and single letters are added tokens too, and are text.
fn is_bracketed(name: &str) -> bool {
    let name = name.trim_start_matches(['\u{2581}', ' ']);
    let within = |open, close| name.starts_with(open) && name.ends_with(close);
    name.chars().count() > 2 && (within('<', '>') || within('[', ']'))
}

fn encode(tokenizer: &tokenizers::Tokenizer, text: &str, add_special: bool) -> Vec<u32> {
    match tokenizer.encode_fast(text, add_special) {
        Ok(encoding) => encoding.get_ids().to_vec(),
        Err(error) => {
            // Byte-level tokenizers have a token for every byte; others may refuse some text.
            tracing::warn!(%error, "the tokenizer refuses a text");
            Vec::new()
        }
    }
}
