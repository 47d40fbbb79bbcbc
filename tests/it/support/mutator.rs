//! Edits between two requests, by what the rules of reuse say of them: those that must miss, those
//! that may hit, and those where the rules leave open whether they should.
//!
//! An edit changes what is asked second, and sometimes both; `None` where it has no place to be.

pub(crate) mod asker;
pub(crate) mod text;
pub(crate) mod texts;
pub(crate) mod typing;
pub(crate) mod window;

use super::{
    dice::Dice,
    rules::{Entry, of_file, serves},
    scene::Scene,
    tasks::Task,
};

pub(crate) type Change = fn(&mut Scene, &mut Scene, &mut Dice) -> Option<()>;

/// Whether the user typed some of the answer meanwhile, which must not change the verdict.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AndTyped {
    Never,
    Sometimes,
}

#[derive(Clone, Copy)]
pub(crate) struct Edit {
    pub(crate) name: &'static str,
    change: Change,
    and_typed: AndTyped,
    /// The words of the rules on prefix, suffix and answer alone decide; else it is who asks, and
    /// for what.
    by_text: bool,
}

/// A request whose answer is stored, and the one after it.
pub(crate) struct Case {
    pub(crate) edit: &'static str,
    pub(crate) first: Scene,
    pub(crate) then: Scene,
}

/// Edits of text; typed or not.
pub(crate) const fn text(name: &'static str, change: Change) -> Edit {
    Edit { name, change, and_typed: AndTyped::Sometimes, by_text: true }
}

/// Edits at the cursor.
pub(crate) const fn cursor(name: &'static str, change: Change) -> Edit {
    Edit { name, change, and_typed: AndTyped::Never, by_text: true }
}

/// Another asker, or another question about the same text.
pub(crate) const fn asker(name: &'static str, change: Change) -> Edit {
    Edit { name, change, and_typed: AndTyped::Sometimes, by_text: false }
}

/// The same, of windows, which say themselves what is typed.
pub(crate) const fn window_of(name: &'static str, change: Change) -> Edit {
    Edit { name, change, and_typed: AndTyped::Never, by_text: false }
}

/// All edits that must miss.
pub(crate) fn must_miss() -> Vec<Edit> {
    [text::MUST_MISS, texts::MUST_MISS, typing::MUST_MISS, asker::MUST_MISS, window::MUST_MISS]
        .concat()
}

/// All edits that the rules allow to hit.
pub(crate) fn may_hit() -> Vec<Edit> {
    [typing::MAY_HIT, text::MAY_HIT, asker::MAY_HIT, window::MAY_HIT].concat()
}

/// Edits after which the words of the rules say hit, and a careful reader would not.
pub(crate) fn open() -> Vec<Edit> {
    [texts::OPEN, window::OPEN].concat()
}

impl Edit {
    /// A case of this edit, if it has a place in what the dice choose; never one that changes
    /// nothing.
    pub(crate) fn case(&self, number: usize, tasks: &[Task], dice: &mut Dice) -> Option<Case> {
        let mut first = Scene::new(number, tasks, dice);
        let mut then = first.clone();
        if self.and_typed == AndTyped::Sometimes && dice.percent(50) {
            then.type_into(dice)?;
        }
        (self.change)(&mut first, &mut then, dice)?;
        Some(Case { edit: self.name, first, then })
    }

    pub(crate) fn is_by_text(&self) -> bool {
        self.by_text
    }
}

impl Case {
    /// Whether the rules, as the plain reading of them goes, let the first's answer stand for the
    /// second.
    pub(crate) fn may_hit_by_text(&self) -> bool {
        let text = |suffix: &Option<String>| suffix.clone().unwrap_or_default();
        let entry = Entry {
            prefix: self.first.before(),
            suffix: text(&self.first.suffix),
            answer: self.first.answer.clone(),
        };
        let (before, suffix) = (self.then.before(), text(&self.then.suffix));
        // Where one of the two says that blank lines mean something, they do.
        let rules = [&self.first, &self.then].map(|scene| {
            let said =
                |field: &str| scene.more.get("nearhop").and_then(|said| said[field].as_str());
            of_file(said("language").unwrap_or_default(), said("file").unwrap_or_default())
        });
        let hits = |rules: &[_]| serves(rules, &entry, (&before, &suffix)).is_some();
        self.first.suffix.is_some() == self.then.suffix.is_some() && rules.into_iter().all(hits)
    }
}
