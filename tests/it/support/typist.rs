//! A user who types a line into a file, and what is asked meanwhile. Whom is asked is the caller's:
//! the edge, or a plain list of what was answered.

use super::{dice::Dice, tasks::Task};

/// What the user does beside typing the line from its start to its end.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Habit {
    Plain,
    /// Takes a suggestion that is what they want.
    Accept,
    /// Changes their mind in the middle of the line.
    Diverge,
    /// Goes back three to six characters, now and then.
    Backspace,
    /// Asks again where nothing has changed.
    Pause,
    /// Goes on with another line.
    TwoLines,
}

const HABITS: [Habit; 6] =
    [Habit::Plain, Habit::Accept, Habit::Diverge, Habit::Backspace, Habit::Pause, Habit::TwoLines];

/// What stands in the file, and what the user is about to type there.
#[derive(Debug)]
pub(crate) struct Moment<'a> {
    pub(crate) before: &'a str,
    pub(crate) suffix: &'a str,
    pub(crate) rest: &'a str,
}

/// Who suggests.
pub(crate) trait Suggest {
    async fn suggest(&mut self, moment: Moment<'_>) -> String;
}

pub(crate) struct Typist<'a> {
    pub(crate) tasks: &'a [Task],
    /// A request after so many characters.
    pub(crate) step: usize,
    /// Habits by chance; else all is plain.
    pub(crate) mixed: bool,
    pub(crate) seed: u64,
}

impl Typist<'_> {
    /// Types the lines of all tasks.
    pub(crate) async fn type_all(&self, suggest: &mut impl Suggest) {
        for task in self.tasks {
            let mut dice = Dice::of(self.seed, &[&task.prompt, &task.suffix, "typist"]);
            let habit = if self.mixed { *dice.pick(&HABITS).unwrap() } else { Habit::Plain };
            self.type_one(task, habit, &mut dice, suggest).await;
        }
    }

    async fn type_one(
        &self,
        task: &Task,
        habit: Habit,
        dice: &mut Dice,
        suggest: &mut impl Suggest,
    ) {
        let other = &dice.pick(self.tasks).unwrap().line;
        let mut line = task.line.clone();
        if habit == Habit::TwoLines {
            let at = task.prompt.rfind('\n').map_or(0, |at| at + 1);
            line = format!("{line}\n{}{other}", &task.prompt[at..]);
        }
        let (mut at, mut changed_mind, mut back) = (0, false, 0);
        while at < line.len() {
            let before = format!("{}{}", task.prompt, &line[..at]);
            let moment = || Moment { before: &before, suffix: &task.suffix, rest: &line[at..] };
            let suggested = suggest.suggest(moment()).await;
            match habit {
                Habit::Accept if suggested == line[at..] => return,
                Habit::Pause if dice.percent(25) => {
                    suggest.suggest(moment()).await;
                }
                Habit::Diverge if !changed_mind && at >= line.len() / 2 => {
                    changed_mind = true;
                    line.truncate(at);
                    line.push_str(other);
                }
                Habit::Backspace if back < 2 && at > 6 && dice.percent(25) => {
                    back += 1;
                    at -= 3 + dice.below(4);
                    continue;
                }
                _ => {}
            }
            at += self.step;
        }
    }
}
