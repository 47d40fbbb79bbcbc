//! How known model families were trained to fill in the middle.
//!
//! The tokens are found in the tokenizer by their text; a manifest overrides what is found.

use serde::Deserialize;

/// A model's layout of a prompt with a gap.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Fim {
    pub(crate) tokens: FimTokens,
    pub(crate) order: FimOrder,
}

/// The special tokens before each part.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct FimTokens {
    pub(crate) prefix: u32,
    pub(crate) suffix: u32,
    /// Not there in [`FimOrder::SuffixPrefix`].
    #[serde(default)]
    pub(crate) middle: Option<u32>,
}

/// The order of the parts. Bavarian et al. 2022, "Efficient Training of Language Models to Fill in
/// the Middle", section 3.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum FimOrder {
    /// PSM: prefix, suffix, middle.
    PrefixFirst,
    /// SPM in the form that is trained together with PSM: the prefix's and the suffix's token, the
    /// suffix, the middle's token, the prefix. A keystroke changes only the prompt's end.
    SuffixFirst,
    /// The suffix with its token, then the prefix with its own: no middle token.
    SuffixPrefix,
}

impl FimOrder {
    /// Its name, as in `nearhop.yaml`.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::PrefixFirst => "prefix_first",
            Self::SuffixFirst => "suffix_first",
            Self::SuffixPrefix => "suffix_prefix",
        }
    }

    /// Whether the suffix is laid out before the prefix.
    pub(crate) const fn suffix_first(self) -> bool {
        matches!(self, Self::SuffixFirst | Self::SuffixPrefix)
    }

    /// Tokens that this layout adds to the two texts.
    pub(crate) const fn marks(self) -> usize {
        match self {
            Self::PrefixFirst | Self::SuffixFirst => 3,
            Self::SuffixPrefix => 2,
        }
    }
}

/// What a family's models have in common.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Family {
    pub(crate) name: &'static str,
    prefix: &'static str,
    suffix: &'static str,
    middle: Option<&'static str>,
    order: FimOrder,
    /// Tokens that end a filled gap beside the text's own end token.
    pub(crate) ends: &'static [&'static str],
}

/// Families whose tokens differ. Suffix first only where a family's authors say that they trained
/// it, because that order keeps a suffix's KV state from keystroke to keystroke.
const FAMILIES: [Family; 5] = [
    // Hui et al. 2024, "Qwen2.5-Coder Technical Report", section 3.1. CodeGemma has the same.
    Family {
        name: "Qwen2.5-Coder",
        prefix: "<|fim_prefix|>",
        suffix: "<|fim_suffix|>",
        middle: Some("<|fim_middle|>"),
        order: FimOrder::PrefixFirst,
        ends: &["<|endoftext|>", "<|fim_pad|>", "<|repo_name|>", "<|file_sep|>", "<|im_end|>"],
    },
    // Lozhkov et al. 2024, "StarCoder 2 and The Stack v2": both orders, half and half, as in Li et
    // al. 2023, "StarCoder: may the source be with you!".
    Family {
        name: "StarCoder2",
        prefix: "<fim_prefix>",
        suffix: "<fim_suffix>",
        middle: Some("<fim_middle>"),
        order: FimOrder::SuffixFirst,
        ends: &["<|endoftext|>", "<fim_pad>", "<file_sep>", "<repo_name>"],
    },
    // Rozière et al. 2023, "Code Llama", section 2.3: both orders, half and half.
    Family {
        name: "CodeLlama",
        prefix: "▁<PRE>",
        suffix: "▁<SUF>",
        middle: Some("▁<MID>"),
        order: FimOrder::SuffixFirst,
        ends: &["▁<EOT>"],
    },
    // Guo et al. 2024, "DeepSeek-Coder", section 3.1: prefix first.
    Family {
        name: "DeepSeek-Coder",
        prefix: "<｜fim▁begin｜>",
        suffix: "<｜fim▁hole｜>",
        middle: Some("<｜fim▁end｜>"),
        order: FimOrder::PrefixFirst,
        ends: &["<｜end▁of▁sentence｜>", "<|EOT|>"],
    },
    // Mistral's tokenizer, `encode_fim`: `<s>[SUFFIX]…[PREFIX]…`.
    Family {
        name: "Codestral",
        prefix: "[PREFIX]",
        suffix: "[SUFFIX]",
        middle: None,
        order: FimOrder::SuffixPrefix,
        ends: &["</s>"],
    },
];

/// The family whose tokens a tokenizer has; `id` gives a token's id by its text.
pub(crate) fn find(id: impl Fn(&str) -> Option<u32>) -> Option<(Family, Fim)> {
    FAMILIES.into_iter().find_map(|family| {
        let middle = match family.middle {
            Some(text) => Some(id(text)?),
            None => None,
        };
        let tokens = FimTokens { prefix: id(family.prefix)?, suffix: id(family.suffix)?, middle };
        Some((family, Fim { tokens, order: family.order }))
    })
}

/// Whether a token of this name stands around a gap, or ends one, in any family.
pub(crate) fn is_mark(name: &str) -> bool {
    let of = |family: &Family| {
        let around = [Some(family.prefix), Some(family.suffix), family.middle];
        around.contains(&Some(name)) || family.ends.contains(&name)
    };
    FAMILIES.iter().any(of)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn family(tokens: &[&str]) -> Option<(&'static str, Fim)> {
        let id = |text: &str| {
            tokens.iter().position(|token| *token == text).and_then(|at| u32::try_from(at).ok())
        };
        find(id).map(|(family, fim)| (family.name, fim))
    }

    #[test]
    fn every_family_is_known_by_its_tokens() {
        for known in FAMILIES {
            let mut tokens = vec!["x", known.suffix, known.prefix];
            tokens.extend(known.middle);
            let (name, fim) = family(&tokens).unwrap();
            assert_eq!(name, known.name);
            assert_eq!((fim.tokens.suffix, fim.tokens.prefix), (1, 2));
            assert_eq!(fim.tokens.middle, known.middle.map(|_| 3));
        }
    }

    #[test]
    fn a_tokenizer_without_all_of_them_is_of_no_family() {
        assert!(family(&["<|fim_prefix|>", "<|fim_suffix|>"]).is_none());
        assert!(family(&[]).is_none());
    }
}
