//! A request as far as reuse goes: its class, and the places at which an answer is looked for.
//!
//! The class is everything but the text before the cursor, led by the tenant: whoever differs in it
//! shares nothing. A place is a class, and the last 256 bytes before the cursor's line: whole
//! prefixes do not fit in memory, and windows slide.

use std::cell::OnceCell;

use nearhop_wire::{CompletionRequest, Declared, Input, ModelReport};

use crate::{
    asker::Asker,
    digest::{Digest, Short, of_pieces},
    normal::{self, Anchor},
    tags::{Namer, Tags},
};

/// Where entries are found: 128 bits over class and anchor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Place(pub Short);

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// A request as far as reuse goes, less its text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    /// A digest of all that must be equal, and of the suffix's lines.
    class: [u8; 32],
    /// A digest of the suffix as it is.
    pub(crate) suffix: Short,
    /// Whether blank lines mean nothing in it.
    pub(crate) is_code: bool,
    /// Who may share windows: everybody of a declared repository, else one key.
    pub(crate) circle: u64,
    /// What an answer to it can be purged by.
    pub tags: Tags,
    /// Whether it is a conversation, which is in the class as a whole.
    conversation: bool,
    /// Whether one choice is asked for: several are served whole or not at all.
    pub(crate) single: bool,
}

/// The text around the cursor. A conversation has none: it is in the class, whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Around<'a> {
    /// Before the cursor.
    pub prefix: &'a str,
    /// After it.
    pub suffix: &'a str,
}

impl<'a> Around<'a> {
    /// The text around a request's cursor, without snippets of other files.
    #[must_use]
    pub fn of(request: &'a CompletionRequest) -> Self {
        let own = |prefix: &'a str| prefix.split_at(request.snippet_bytes).1;
        match &request.input {
            Input::Prompt(prefix) => Self { prefix: own(prefix), suffix: "" },
            Input::Fim { prefix, suffix } => Self { prefix: own(prefix), suffix },
            Input::Chat(_) => Self { prefix: "", suffix: "" },
        }
    }
}

/// A place seen from a request: the line that begins there may be the cursor's, or one above it.
#[derive(Debug, Clone)]
pub(crate) struct Site<'a> {
    pub(crate) place: Place,
    /// Text before the line.
    pub(crate) before: &'a str,
    /// From the line's start to the cursor.
    pub(crate) typed: &'a str,
    /// Whether the place says nothing of where the text begins.
    pub(crate) slides: bool,
    /// Many entries may lie there: these are computed once.
    digest: OnceCell<Short>,
    plain: OnceCell<Option<Plain>>,
}

/// A normalised text, in short.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Plain {
    pub(crate) bytes: u32,
    pub(crate) digest: Short,
}

/// Normalising more would cost more than it saves: windows are a hundredth of that.
const PLAIN_BYTES_MAX: usize = 64 << 10;

impl Plain {
    /// `before`, normalised; `None` where it is not worth it.
    pub(crate) fn of(before: &str) -> Option<Self> {
        if before.len() > PLAIN_BYTES_MAX {
            return None;
        }
        let bytes: usize = normal::before(before).map(str::len).sum();
        let digest = of_pieces(normal::before(before).map(str::as_bytes));
        Some(Self { bytes: u32::try_from(bytes).ok()?, digest })
    }
}

impl<'a> Site<'a> {
    fn new(place: Place, (before, typed): (&'a str, &'a str), slides: bool) -> Self {
        Self { place, before, typed, slides, digest: OnceCell::new(), plain: OnceCell::new() }
    }

    /// A digest of the text before the line.
    pub(crate) fn digest(&self) -> Short {
        *self.digest.get_or_init(|| of_pieces([self.before.as_bytes()]))
    }

    /// That text, normalised.
    pub(crate) fn plain(&self) -> Option<Plain> {
        *self.plain.get_or_init(|| Plain::of(self.before))
    }
}

/// Lines of an answer into which the user may have typed.
const LINES_TYPED_MAX: usize = 8;

/// Changes whenever what is written below does, so that old places mean nothing to new code.
const LAYOUT: &str = "nearhop completion class 4";

impl Question {
    /// What `request` asks of `model`, at a temperature.
    #[must_use]
    pub fn of(
        request: &CompletionRequest,
        asker: Asker<'_>,
        model: &ModelReport,
        namer: &Namer,
    ) -> Self {
        let (sampling, declared) = (&request.sampling, &request.declared);
        let around = Around::of(request);
        let mut class = Digest::new(LAYOUT);
        class.text(asker.tenant);
        class.list(declared.repo.as_deref().into_iter());
        class.text(&model.name);
        class.text(&model.revision);
        class.text(&model.template);
        class.number(u64::from(sampling.temperature.unwrap_or(model.temperature).to_bits()));
        // Negative zero samples as zero does.
        class.number(u64::from((sampling.top_p.unwrap_or(1.0) + 0.0).to_bits()));
        class.number(sampling.max_tokens.unwrap_or(model.max_tokens) as u64);
        class.number(sampling.n as u64);
        class.optional(sampling.seed);
        class.list(sampling.stop.iter().map(String::as_str));
        write_files(&mut class, declared);
        let is_code = normal::is_code(declared.language.as_deref(), declared.file.as_deref());
        class.number(u64::from(is_code));
        match &request.input {
            Input::Prompt(prefix) => {
                class.number(0);
                class.text(&prefix[..request.snippet_bytes]);
            }
            Input::Fim { prefix, suffix } => {
                class.number(1);
                class.text(&prefix[..request.snippet_bytes]);
                // Coarse, so that all that may mean the same lies at one place.
                normal::suffix_lines(suffix).for_each(|line| class.text(line));
            }
            Input::Chat(_) => {
                class.number(2);
                class.list(request.input.texts().into_iter());
            }
        }
        let circle = match &declared.repo {
            Some(_) => 0,
            None => namer.name("circle", &[asker.tenant, asker.key]),
        };
        Self {
            class: class.finish(),
            suffix: of_pieces([around.suffix.as_bytes()]),
            is_code,
            circle,
            tags: Tags::of(asker, declared, model, namer),
            conversation: matches!(request.input, Input::Chat(_)),
            single: sampling.n == 1,
        }
    }

    /// The places of the cursor's line and of those above it, as far as they are in `prefix`.
    pub(crate) fn sites<'a>(&self, prefix: &'a str) -> impl Iterator<Item = Site<'a>> {
        let starts = prefix.rmatch_indices('\n').map(|(at, _)| at + 1);
        let starts = starts.chain(std::iter::once(0)).take(1 + LINES_TYPED_MAX);
        // All texts of one line have one place, which has few entries: each has its own as well.
        let alone = (!self.conversation && !prefix.contains('\n')).then(|| {
            let place = self.place(Some(prefix), &Anchor::of(""));
            Site::new(place, ("", prefix), false)
        });
        alone.into_iter().chain(starts.map(|start| {
            let around = prefix.split_at(start);
            let anchor = Anchor::of(around.0);
            Site::new(self.place(None, &anchor), around, anchor.is_whole())
        }))
    }

    /// The sites at which the answer to a request is remembered: that of the cursor's line, and its
    /// own where there is no other line.
    pub(crate) fn own_sites<'a>(&self, prefix: &'a str) -> impl Iterator<Item = Site<'a>> {
        let alone = !self.conversation && !prefix.contains('\n');
        self.sites(prefix).take(if alone { 2 } else { 1 })
    }

    /// The places at which an answer to a request, or one under way, is looked for.
    pub fn places<'a>(&'a self, around: Around<'a>) -> impl Iterator<Item = Place> + 'a {
        self.sites(around.prefix).map(|site| site.place)
    }

    fn place(&self, alone: Option<&str>, anchor: &Anchor) -> Place {
        let mut place = Digest::new("nearhop place");
        place.bytes(&self.class);
        place.list(alone.into_iter());
        place.number(u64::from(anchor.is_whole()));
        place.bytes(anchor.bytes());
        Place(place.short())
    }
}

fn write_files(class: &mut Digest, declared: &Declared) {
    class.number(declared.context_files.len() as u64);
    for file in &declared.context_files {
        class.text(&file.path);
        class.text(&file.hash);
    }
}

#[cfg(test)]
mod tests;
