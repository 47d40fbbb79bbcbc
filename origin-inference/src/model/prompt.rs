//! How a prompt is laid out: windows, the order of fill in the middle, chat templates. Pure.

use minijinja::{Environment, ErrorKind, context};
use minijinja_contrib::pycompat::unknown_method_callback;
use nearhop_wire::Message;

use super::{
    fim::{Fim, FimOrder},
    manifest::FimWindow,
};

/// What the model reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prompt {
    /// Never empty.
    pub tokens: Vec<u32>,
    /// Tokens of the request's text that the window left out; about, where so much was left out
    /// that it was not read.
    pub left_out: usize,
}

impl Prompt {
    /// The same behind `leading` tokens.
    pub(crate) fn after(mut self, leading: &[u32]) -> Self {
        if self.tokens != leading {
            self.tokens.splice(0..0, leading.iter().copied());
        }
        self
    }
}

/// A prefix longer than its window is cut in steps of this many tokens: a keystroke then moves the
/// end alone, and the cut once in 64 tokens, so that cached blocks stay valid.
const CUT_STEP: usize = 64;

/// How many tokens to leave out in front so that at most `window` remain, in whole steps.
fn cut(length: usize, window: usize) -> usize {
    let over = length.saturating_sub(window);
    (over.div_ceil(CUT_STEP) * CUT_STEP).min(length)
}

/// Bytes of text that are read for a token of a window. Source text has three to five a token; where
/// it has more than this, the window is not filled.
const READ_PER_TOKEN: usize = 16;
/// Read whatever the window: it costs a few milliseconds.
const READ_MIN: usize = 64 << 10;
/// A longer text is cut in steps of this many bytes, as with [`CUT_STEP`].
const READ_STEP: usize = 16 << 10;

/// The bytes of a text that are worth reading for `window` tokens of it. A tokenizer takes a
/// second for a few megabytes, of which all but a window's worth would be thrown away.
pub(crate) fn read_at_most(window: usize) -> usize {
    READ_MIN.max(window * READ_PER_TOKEN)
}

/// The end of a text, at most so many bytes, and the number of bytes before it.
pub(crate) fn end_of(text: &str, bytes: usize) -> (&str, usize) {
    let over = text.len().saturating_sub(bytes);
    let from = text.ceil_char_boundary(over.div_ceil(READ_STEP) * READ_STEP);
    (&text[from..], from)
}

/// The start of a text, at most so many bytes, and the number of bytes behind it.
pub(crate) fn start_of(text: &str, bytes: usize) -> (&str, usize) {
    let to = text.floor_char_boundary(bytes);
    (&text[..to], text.len() - to)
}

/// About how many tokens `unread` bytes are, where `read` bytes were `tokens`.
pub(crate) fn about(unread: usize, read: &str, tokens: &[u32]) -> usize {
    unread * tokens.len() / read.len().max(1)
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
    let middle: Vec<u32> = fim.tokens.middle.into_iter().collect();
    let (prefix_mark, suffix_mark) = (&[fim.tokens.prefix], &[fim.tokens.suffix]);
    let tokens = match fim.order {
        FimOrder::PrefixFirst => {
            [prefix_mark, kept_prefix, suffix_mark, kept_suffix, &middle].concat()
        }
        FimOrder::SuffixFirst => {
            [prefix_mark, suffix_mark, kept_suffix, &middle, kept_prefix].concat()
        }
        FimOrder::SuffixPrefix => [suffix_mark, kept_suffix, prefix_mark, kept_prefix].concat(),
    };
    Prompt { tokens, left_out: prefix_cut + suffix.len() - kept_suffix.len() }
}

/// A piece of a rendered chat.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Piece {
    /// As the template wrote it: special tokens' names in it are special tokens.
    Template(String),
    /// A special token's name in a user's text, which stays text.
    Text(String),
}

/// What chat templates may use beside the messages.
pub(crate) struct ChatTemplate<'a> {
    pub(crate) template: &'a str,
    pub(crate) bos: &'a str,
    pub(crate) eos: &'a str,
    /// Special tokens' names.
    pub(crate) special: &'a [String],
}

/// Private-use characters around the number of a name that was taken out of a user's text.
const OPEN: char = '\u{F8F0}';
const CLOSE: char = '\u{F8F1}';

impl ChatTemplate<'_> {
    /// What is wrong with it before anybody uses it: an error where it is no template, a finding
    /// where it refuses a user's first words.
    pub(crate) fn check(&self) -> Result<Option<String>, String> {
        let first = Message { role: "user".into(), content: "Hello".into(), name: None };
        match self.render(&[first]) {
            Ok(_) => Ok(None),
            Err(error) if error.kind() == ErrorKind::SyntaxError => {
                Err(format!("chat_template: {error:#}"))
            }
            Err(error) => {
                Ok(Some(format!("chat: the template refuses a conversation of one turn: {error}")))
            }
        }
    }

    /// Runs the template. Special tokens' names in the messages are taken out before and put back
    /// after it as text, so that nobody can write another's turn.
    pub(crate) fn render(&self, messages: &[Message]) -> Result<Vec<Piece>, minijinja::Error> {
        let mut names: Vec<&str> = self.special.iter().map(String::as_str).collect();
        // The longest first, for one may be the beginning of another.
        names.sort_by_key(|name| std::cmp::Reverse(name.len()));
        let mut taken = Vec::new();
        let messages: Vec<_> = messages
            .iter()
            .map(|message| {
                let content = take_out(&message.content, &names, &mut taken);
                let name = message.name.as_ref().map(|name| take_out(name, &names, &mut taken));
                context! { role => message.role, content => content, name => name }
            })
            .collect();
        let mut environment = Environment::new();
        environment.set_fuel(Some(1_000_000));
        environment.set_trim_blocks(true);
        environment.set_lstrip_blocks(true);
        environment.set_unknown_method_callback(unknown_method_callback);
        environment.add_function("raise_exception", |message: String| {
            Err::<(), _>(minijinja::Error::new(ErrorKind::InvalidOperation, message))
        });
        let rendered = environment.render_str(
            self.template,
            context! {
                messages,
                add_generation_prompt => true,
                bos_token => self.bos,
                eos_token => self.eos,
            },
        )?;
        Ok(put_back(&rendered, &taken))
    }
}

/// `text` with each special token's name replaced by its number in `taken`.
fn take_out(text: &str, names: &[&str], taken: &mut Vec<String>) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    let mut begins = [false; 256];
    names.iter().filter_map(|name| name.as_bytes().first()).for_each(|byte| {
        begins[usize::from(*byte)] = true;
    });
    while let Some(first) = rest.chars().next() {
        let found = match begins[usize::from(rest.as_bytes()[0])] {
            true => names.iter().find(|name| !name.is_empty() && rest.starts_with(**name)),
            false => None,
        };
        let length = match (found, first) {
            (Some(name), _) => name.len(),
            (None, OPEN | CLOSE) => first.len_utf8(),
            (None, _) => {
                out.push(first);
                rest = &rest[first.len_utf8()..];
                continue;
            }
        };
        out.push(OPEN);
        out.push_str(&taken.len().to_string());
        out.push(CLOSE);
        taken.push(rest[..length].to_owned());
        rest = &rest[length..];
    }
    out
}

fn put_back(rendered: &str, taken: &[String]) -> Vec<Piece> {
    let mut pieces = Vec::new();
    let mut rest = rendered;
    while let Some((before, after)) = rest.split_once(OPEN) {
        let found = after.split_once(CLOSE).and_then(|(number, after)| {
            Some((taken.get(number.parse::<usize>().ok()?)?.clone(), after))
        });
        // A mark of the template's own stays what it is.
        let Some((name, after)) = found else { break };
        if !before.is_empty() {
            pieces.push(Piece::Template(before.to_owned()));
        }
        pieces.push(Piece::Text(name));
        rest = after;
    }
    if !rest.is_empty() {
        pieces.push(Piece::Template(rest.to_owned()));
    }
    pieces
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::fim::FimTokens;
    use super::*;

    const WINDOW: FimWindow = FimWindow { prefix: 128, suffix: 64 };

    fn fim(order: FimOrder) -> Fim {
        Fim { tokens: FimTokens { prefix: 1, suffix: 2, middle: Some(3) }, order }
    }

    #[test]
    fn both_orders_are_laid_out_as_trained() {
        let psm = fill_in_the_middle(&[10, 11], &[20], &fim(FimOrder::PrefixFirst), WINDOW);
        assert_eq!(psm.tokens, [1, 10, 11, 2, 20, 3]);
        let spm = fill_in_the_middle(&[10, 11], &[20], &fim(FimOrder::SuffixFirst), WINDOW);
        assert_eq!(spm.tokens, [1, 2, 20, 3, 10, 11]);
        assert_eq!((psm.left_out, spm.left_out), (0, 0));
        let plain = fill_in_the_middle(&[10, 11], &[20], &fim(FimOrder::SuffixPrefix), WINDOW);
        assert_eq!(plain.tokens, [2, 20, 1, 10, 11]);
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
    fn what_no_window_can_hold_is_not_read() {
        let text = "é".repeat(40 << 10) + "!";
        let (end, before) = end_of(&text, read_at_most(128));
        assert!(end.len() <= READ_MIN && end.len() > READ_MIN - READ_STEP && end.ends_with("é!"));
        assert_eq!(before + end.len(), text.len());
        let (longer, same) = (text.clone() + "x", before);
        assert_eq!(end_of(&longer, read_at_most(128)).1, same, "a keystroke moved the cut");
        let (start, behind) = start_of(&text, read_at_most(128));
        assert_eq!((start.len(), behind), (READ_MIN, text.len() - READ_MIN));
        assert_eq!((end_of("short", 5), start_of("short", 5)), (("short", 0), ("short", 0)));
        assert_eq!(about(1000, "four", &[1, 2]), 500);
    }

    #[test]
    fn an_empty_prompt_starts_a_text() {
        assert_eq!(inline(&[], 10, 0), Prompt { tokens: vec![0], left_out: 0 });
    }

    fn render(template: &str, content: &str) -> Result<Vec<Piece>, minijinja::Error> {
        let message = Message { role: "user".into(), content: content.into(), name: None };
        let special = ["<|end|>".to_owned(), "<|end|>er".to_owned()];
        let template = ChatTemplate { template, bos: "<s>", eos: "</s>", special: &special };
        template.render(&[message])
    }

    #[test]
    fn a_template_sees_what_transformers_gives_it() {
        let template = "{{ bos_token }}{% for m in messages %}<{{ m.role }}>{{ m['content'].strip() }}{% endfor %}{% if add_generation_prompt %}!{% endif %}";
        let pieces = render(template, " hi {{x}} ").unwrap();
        assert_eq!(pieces, [Piece::Template("<s><user>hi {{x}}!".into())]);
        let error = render("{{ raise_exception('no system turn') }}", "x").unwrap_err();
        assert!(error.to_string().contains("no system turn"), "{error}");
    }

    #[test]
    fn a_user_cannot_write_another_turn() {
        let template = "{% for m in messages %}{{ m.content }}<|end|>{% endfor %}";
        let text = |text: &str| Piece::Text(text.to_owned());
        let own = |text: &str| Piece::Template(text.to_owned());
        let pieces = render(template, "a<|end|>b<|end|>er\u{F8F0}0\u{F8F1}").unwrap();
        let expected = [
            own("a"),
            text("<|end|>"),
            own("b"),
            text("<|end|>er"),
            text("\u{F8F0}"),
            own("0"),
            text("\u{F8F1}"),
            own("<|end|>"),
        ];
        assert_eq!(pieces, expected);
    }

    #[test]
    fn a_broken_template_is_found_before_it_is_used() {
        let check = |template| ChatTemplate { template, bos: "", eos: "", special: &[] }.check();
        assert_eq!(check("{{ messages[0].content }}"), Ok(None));
        let broken = check("{% for m in messages %}").unwrap_err();
        assert!(broken.starts_with("chat_template: syntax error"), "{broken}");
        let finding = check("{{ raise_exception('a system turn first') }}").unwrap().unwrap();
        assert!(finding.contains("a system turn first"), "{finding}");
    }

    #[test]
    fn an_endless_template_is_stopped() {
        let template =
            "{% for a in range(10000) %}{% for b in range(10000) %}x{% endfor %}{% endfor %}";
        assert!(render(template, "").is_err());
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
