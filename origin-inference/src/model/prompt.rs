//! How a prompt is laid out: windows, the order of fill in the middle, chat templates. Pure.

use minijinja::{Environment, context};
use nearhop_wire::Message;

use super::manifest::{Fim, FimOrder, FimWindow};

/// What the model reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prompt {
    /// Never empty.
    pub tokens: Vec<u32>,
    /// Tokens of the request's text that the window left out.
    pub left_out: usize,
}

/// A prefix longer than its window is cut in steps of this many tokens: a keystroke then moves the
/// end alone, and the cut once in 64 tokens, so that cached blocks stay valid.
const CUT_STEP: usize = 64;

/// How many tokens to leave out in front so that at most `window` remain, in whole steps.
fn cut(length: usize, window: usize) -> usize {
    let over = length.saturating_sub(window);
    (over.div_ceil(CUT_STEP) * CUT_STEP).min(length)
}

/// Text to continue. `start` stands alone where there is no text.
pub(crate) fn inline(tokens: &[u32], window: usize, start: u32) -> Prompt {
    let left_out = cut(tokens.len(), window);
    match &tokens[left_out..] {
        [] => Prompt { tokens: vec![start], left_out },
        kept => Prompt { tokens: kept.to_vec(), left_out },
    }
}

/// The prefix's end and the suffix's start, in the order the model was trained on.
pub(crate) fn fill_in_the_middle(
    prefix: &[u32],
    suffix: &[u32],
    fim: &Fim,
    window: FimWindow,
) -> Prompt {
    let prefix_cut = cut(prefix.len(), window.prefix);
    let kept_prefix = &prefix[prefix_cut..];
    let kept_suffix = &suffix[..suffix.len().min(window.suffix)];
    let tokens = match fim.order {
        FimOrder::PrefixFirst => [
            &[fim.tokens.prefix],
            kept_prefix,
            &[fim.tokens.suffix],
            kept_suffix,
            &[fim.tokens.middle],
        ]
        .concat(),
        FimOrder::SuffixFirst => [
            &[fim.tokens.prefix, fim.tokens.suffix],
            kept_suffix,
            &[fim.tokens.middle],
            kept_prefix,
        ]
        .concat(),
    };
    Prompt { tokens, left_out: prefix_cut + suffix.len() - kept_suffix.len() }
}

/// Runs the model's chat template.
pub(crate) fn render_chat(
    template: &str,
    messages: &[Message],
) -> Result<String, minijinja::Error> {
    let messages: Vec<_> = messages
        .iter()
        .map(|message| {
            context! { role => message.role, content => message.content, name => message.name }
        })
        .collect();
    let mut environment = Environment::new();
    environment.set_fuel(Some(1_000_000));
    environment.set_trim_blocks(true);
    environment.set_lstrip_blocks(true);
    environment.render_str(template, context! { messages, add_generation_prompt => true })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::manifest::FimTokens;
    use super::*;

    const WINDOW: FimWindow = FimWindow { prefix: 128, suffix: 64 };

    fn fim(order: FimOrder) -> Fim {
        Fim { tokens: FimTokens { prefix: 1, suffix: 2, middle: 3 }, order }
    }

    #[test]
    fn both_orders_are_laid_out_as_trained() {
        let psm = fill_in_the_middle(&[10, 11], &[20], &fim(FimOrder::PrefixFirst), WINDOW);
        assert_eq!(psm.tokens, [1, 10, 11, 2, 20, 3]);
        let spm = fill_in_the_middle(&[10, 11], &[20], &fim(FimOrder::SuffixFirst), WINDOW);
        assert_eq!(spm.tokens, [1, 2, 20, 3, 10, 11]);
        assert_eq!((psm.left_out, spm.left_out), (0, 0));
    }

    #[test]
    fn a_long_text_keeps_what_is_near_the_cursor() {
        let text: Vec<u32> = (100..400).collect();
        let prompt = fill_in_the_middle(&text, &text, &fim(FimOrder::SuffixFirst), WINDOW);
        assert_eq!(prompt.tokens[2..66], text[..64]);
        assert_eq!(prompt.tokens[67..], text[192..]);
        assert_eq!(prompt.left_out, 192 + 236);
    }

    #[test]
    fn an_empty_prompt_starts_a_text() {
        assert_eq!(inline(&[], 10, 0), Prompt { tokens: vec![0], left_out: 0 });
    }

    #[test]
    fn a_template_sees_role_and_content() {
        let message = Message { role: "user".into(), content: "hi {{x}}".into(), name: None };
        let template = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}{% if add_generation_prompt %}!{% endif %}";
        assert_eq!(render_chat(template, &[message]).unwrap(), "<user>hi {{x}}!");
    }

    #[test]
    fn an_endless_template_is_stopped() {
        let template =
            "{% for a in range(10000) %}{% for b in range(10000) %}x{% endfor %}{% endfor %}";
        assert!(render_chat(template, &[]).is_err());
    }

    proptest! {
        #[test]
        fn a_keystroke_moves_the_cut_only_at_a_step(length in 0usize..2000, window in 1usize..500) {
            let (now, next) = (cut(length, window), cut(length + 1, window));
            prop_assert!(length - now <= window);
            prop_assert!(next == now || next == now + CUT_STEP || next == length + 1);
        }
    }
}
