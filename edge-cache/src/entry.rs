//! An earlier request with its complete answer, as small as it can be.

use std::time::Duration;

use nearhop_wire::{Answer, Choice, Endpoint, Finish, Head, Usage};
use serde::{Deserialize, Serialize};

use crate::{
    admission::Skip,
    digest::{Short, of_pieces},
    normal,
    question::{Around, Place, Question},
    tags::{Generation, Tags},
};

/// An earlier request with its answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    pub(crate) asked: Asked,
    /// The first choice.
    pub(crate) text: Box<str>,
    pub(crate) finish: Finish,
    /// The choices after it.
    pub(crate) more: Box<[(Box<str>, Finish)]>,
    id: Box<str>,
    created: u64,
    usage: [u32; 4],
    pub(crate) born: Born,
}

/// Where it was asked: enough to say whether another request continues it, without its prompt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Asked {
    /// Digests of the text before the cursor's line, as it was and normalised, and of the suffix.
    pub(crate) before: Short,
    pub(crate) plain: Short,
    pub(crate) suffix: Short,
    pub(crate) plain_suffix: Short,
    /// Bytes of the text before the cursor's line.
    pub(crate) before_bytes: u32,
    /// The same, normalised.
    pub(crate) plain_bytes: u32,
    /// The front of the window, which may slide out of a later one.
    pub(crate) front: Box<str>,
    /// The cursor's line, up to the cursor.
    pub(crate) lead: Box<str>,
    pub(crate) circle: u64,
    /// Whether one choice was asked for.
    pub(crate) single: bool,
}

/// When and for whom it was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Born {
    /// Unix time at which it was stored.
    pub(crate) stored: Duration,
    /// The log of purges as it was when it was asked for.
    pub(crate) generation: Generation,
    pub(crate) tags: Tags,
}

/// Of a text that is not normalised: no text has so many bytes.
const NOT_PLAIN: Short = [0; 16];

/// A cursor's line longer than that is no line that somebody types.
const LEAD_BYTES_MAX: usize = 8 << 10;
/// What can slide out of a window while its answer is typed.
const FRONT_BYTES_MAX: usize = 512;
const FRONT_LINES_MAX: usize = 8;

impl Asked {
    /// What is remembered of a request, and where: one place, or two. It can be made before its
    /// answer is known.
    ///
    /// # Errors
    /// [`Skip::TooLarge`] where the cursor's line is no line.
    pub fn of(question: &Question, around: Around<'_>) -> Result<(Vec<Place>, Self), Skip> {
        let sites: Vec<_> = question.own_sites(around.prefix).collect();
        let site = sites.last().expect("every text has a last line");
        if site.typed.len() > LEAD_BYTES_MAX {
            return Err(Skip::TooLarge);
        }
        let short = |number| u32::try_from(number).map_err(|_too_long| Skip::TooLarge);
        let plain = question.is_code.then(|| site.plain()).flatten();
        // Without a whole anchor nothing slides.
        let front = if site.slides { front(site.before) } else { "" };
        Ok((
            sites.iter().map(|site| site.place).collect(),
            Self {
                before: site.digest(),
                plain: plain.map_or(NOT_PLAIN, |plain| plain.digest),
                suffix: question.suffix,
                plain_suffix: of_pieces(normal::suffix(around.suffix).map(str::as_bytes)),
                before_bytes: short(site.before.len())?,
                plain_bytes: plain.map_or(u32::MAX, |plain| plain.bytes),
                front: front.into(),
                lead: site.typed.into(),
                circle: question.circle,
                single: question.single,
            },
        ))
    }
}

/// The first lines of a window, as far as they can slide out.
fn front(before: &str) -> &str {
    let mut lines = before.match_indices('\n').map(|(at, _)| at + 1);
    let lines = lines.nth(FRONT_LINES_MAX - 1).unwrap_or(before.len());
    &before[..before.floor_char_boundary(lines.min(FRONT_BYTES_MAX))]
}

/// What of a window's front can slide out while `text` is typed: as many characters, or as many
/// lines.
fn needed<'a>(front: &'a str, text: &str) -> &'a str {
    let after = |(at, c): (usize, char)| at + c.len_utf8();
    let characters = front.char_indices().take(text.chars().count()).last().map_or(0, after);
    let newlines = text.bytes().filter(|byte| *byte == b'\n').count();
    let lines = front.match_indices('\n').take(newlines).last().map_or(0, |(at, _)| at + 1);
    &front[..characters.max(lines)]
}

impl Entry {
    /// Remembers a complete answer.
    ///
    /// # Errors
    /// Why it must not be remembered.
    pub fn new(
        asked: Asked,
        answer: &Answer,
        born: (Generation, Tags),
        now: Duration,
    ) -> Result<Self, Skip> {
        let [first, more @ ..] = &answer.choices[..] else { return Err(Skip::Incomplete) };
        if answer.choices.iter().all(|choice| choice.text.is_empty()) {
            return Err(Skip::Empty);
        }
        let short = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
        let Usage { prompt_tokens, completion_tokens, cached_tokens, truncated_tokens } =
            answer.usage;
        let asked = Asked { front: needed(&asked.front, &first.text).into(), ..asked };
        Ok(Self {
            asked,
            text: first.text.as_str().into(),
            finish: first.finish,
            more: more.iter().map(|choice| (choice.text.as_str().into(), choice.finish)).collect(),
            id: answer.head.id.as_str().into(),
            created: answer.head.created,
            usage: [prompt_tokens, completion_tokens, cached_tokens, truncated_tokens].map(short),
            born: Born { stored: now, generation: born.0, tags: born.1 },
        })
    }

    /// The answer, less its first `typed` bytes, which the user has typed meanwhile. Its usage,
    /// `id` and `created` are those of the generation that it comes from.
    #[must_use]
    pub fn answer(
        &self,
        typed: usize,
        (endpoint, model, fingerprint): (Endpoint, &str, String),
    ) -> Answer {
        let head = Head {
            id: self.id.to_string(),
            created: self.created,
            model: model.to_owned(),
            fingerprint,
            endpoint,
        };
        let choice =
            |text: &str, finish| Choice { text: text.to_owned(), finish, logprobs: Vec::new() };
        let first = choice(self.text.get(typed..).unwrap_or_default(), self.finish);
        let more = self.more.iter().map(|(text, finish)| choice(text, *finish));
        let [prompt_tokens, completion_tokens, cached_tokens, truncated_tokens] =
            self.usage.map(|number| number as usize);
        let usage = Usage { prompt_tokens, completion_tokens, cached_tokens, truncated_tokens };
        Answer { head, choices: std::iter::once(first).chain(more).collect(), usage }
    }

    /// Bytes of memory, allocations and their headers counted.
    #[must_use]
    pub fn bytes(&self) -> usize {
        const ALLOCATION: usize = 16;
        let texts = [&self.asked.front, &self.asked.lead, &self.text, &self.id];
        let texts: usize = texts.iter().map(|text| text.len() + ALLOCATION).sum();
        let more: usize = self
            .more
            .iter()
            .map(|(text, _)| text.len() + ALLOCATION + size_of::<(Box<str>, Finish)>())
            .sum();
        size_of::<Self>() + 2 * ALLOCATION + texts + more
    }

    /// Whether it was cut off at a limit.
    #[must_use]
    pub fn is_cut(&self) -> bool {
        self.finish == Finish::Length
    }

    /// Its first choice.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// What it can be purged by.
    #[must_use]
    pub const fn tags(&self) -> &Tags {
        &self.born.tags
    }

    /// When it was stored, as Unix time.
    #[must_use]
    pub const fn stored(&self) -> Duration {
        self.born.stored
    }

    /// The log of purges as it was when this was asked for.
    #[must_use]
    pub const fn generation(&self) -> Generation {
        self.born.generation
    }

    /// Whether both were asked at one cursor: the newer one replaces the older.
    pub(crate) fn is_of(&self, asked: &Asked) -> bool {
        let of = |asked: &Asked| (asked.before, asked.suffix, asked.circle);
        self.asked.lead == asked.lead && of(&self.asked) == of(asked)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_windows_front_is_kept_what_can_slide_out() {
        let check = |text, expected| assert_eq!(needed("aé\nb\nc\n", text), expected, "{text:?}");
        check("", "");
        check("xy", "aé");
        check("\n", "aé\n");
        check("\n\n", "aé\nb\n");
        check("much longer than it", "aé\nb\nc\n");
    }
}
