//! Editors that send only the last part of what stands before the cursor.

use serde_json::json;

use super::{
    Edit,
    asker::declare,
    cursor,
    text::{add_blank_line, add_space},
    window_of,
};
use crate::support::{dice::Dice, rules::may_end_in_text, scene::Scene};

const LOST: &str =
    "class Ledger:\n    limit = 12\n    # Who may read it\n    readers = ['a', 'b']\n\n";
const SIZES: [usize; 3] = [400, 500, 600];

pub(crate) const MUST_MISS: &[Edit] = &[
    cursor("a window of another size", |first, then, dice| {
        let size = slide(first, then, dice)?;
        let smaller = *dice.pick(&[5, 40, 90])?;
        resize(then, size - smaller);
        Some(())
    }),
    cursor("a window of another size, typed", |first, then, dice| {
        let size = slide(first, then, dice)?;
        then.type_into(dice)?;
        let smaller = *dice.pick(&[5, 40, 90])?;
        resize(then, size - smaller);
        (lines(first) != lines(then)).then_some(())
    }),
    cursor("a wider window", |first, then, dice| {
        slide(first, then, dice)?;
        then.lost = then.lost.checked_sub(1 + dice.below(20))?;
        let more = &then.top[then.lost..first.lost];
        (!more.trim().is_empty()).then_some(())
    }),
    cursor("less than 256 bytes in common", |first, then, dice| {
        let at = first.prefix.rfind('\n')? + 1;
        let size = first.prefix.len() - at + 150 + dice.below(100);
        // The mark at the top is lost, and cases must stay apart.
        first.prefix.insert_str(at, &format!("    {}\n", first.mark));
        pad(first);
        *then = first.clone();
        then.type_into(dice)?;
        resize(first, size);
        resize(then, size);
        Some(())
    }),
    window_of("a colleague's window", |first, then, dice| {
        slid(first, then, dice)?;
        then.key = "nh-colleague";
        Some(())
    }),
    window_of("a colleague's window, one repository declared", |first, then, dice| {
        slid(first, then, dice)?;
        then.key = "nh-colleague";
        declare(if dice.percent(50) { first } else { then }, &json!({"repo": "r"}));
        Some(())
    }),
    window_of("a colleague's window of other repository", |first, then, dice| {
        slid(first, then, dice)?;
        then.key = "nh-colleague";
        declare(first, &json!({"repo": "r"}));
        declare(then, &json!({"repo": "s"}));
        Some(())
    }),
    window_of("another tenant's window, the same repository", |first, then, dice| {
        slid(first, then, dice)?;
        then.key = "nh-other";
        declare(first, &json!({"repo": "r"}));
        declare(then, &json!({"repo": "r"}));
        Some(())
    }),
    cursor("a window slid over something else", |first, then, dice| {
        slid(first, then, dice)?;
        then.typed.pop();
        then.typed.push('\u{7e}');
        Some(())
    }),
    cursor("a window slid, a number changed", |first, then, dice| {
        slid(first, then, dice)?;
        then.prefix = then.prefix.replacen('1', "2", 1);
        (then.before() != first.before() && then.prefix != first.prefix).then_some(())
    }),
    cursor("a window slid, a comment changed", |first, then, dice| {
        slid(first, then, dice)?;
        let at = then.prefix.rfind("# ")? + 2;
        then.prefix.insert_str(at, "Not: ");
        then.lost += "Not: ".len();
        Some(())
    }),
    cursor("a window slid, other suffix", |first, then, dice| {
        slid(first, then, dice)?;
        then.suffix.as_mut()?.push_str("\nprint(1)\n");
        Some(())
    }),
    cursor("other text at the window's front", |first, then, dice| {
        slid(first, then, dice)?;
        then.top = then.top.to_uppercase();
        (then.lost + 20 < then.top.len()).then_some(())
    }),
    cursor("the window has not slid with what was typed", |first, then, dice| {
        slid(first, then, dice)?;
        then.lost = first.lost + then.typed.chars().count() + 60;
        (lines(first) != lines(then)).then_some(())
    }),
    cursor("space added, and a window that lost the name that is served", |first, then, dice| {
        lose_the_name(first, then)?;
        add_space(then, dice)
    }),
    cursor("a window that lost the name that is served", |first, then, _| {
        lose_the_name(first, then)
    }),
    cursor("a window that lost the name that is half typed", |first, then, _| {
        lose_the_name(first, then)?;
        then.typed += "print(led";
        Some(())
    }),
    cursor("the window's front cuts the name that is served", |first, then, dice| {
        let cut = 1 + dice.below("ledger_limit".len() - 1);
        let filler = " ".repeat(TYPED.len() - cut);
        first.top = format!("{filler}{LINE}{}", LOST.repeat(8));
        serve_the_name(first, then, "ledger_limit");
        then.lost = TYPED.len();
        Some(())
    }),
    cursor("the name that is served stands only as the rest of a word", |first, then, _| {
        const FRONT: &str = "quota = 1; # o stock_";
        assert_eq!(FRONT.len(), TYPED.len());
        first.top = format!("{FRONT}quota = 12\n{}", LOST.repeat(8));
        serve_the_name(first, then, "quota");
        then.lost = TYPED.len();
        Some(())
    }),
    cursor("as many bytes lost as were typed, and fewer characters", |first, then, dice| {
        first.top = "\u{fc}".repeat(300);
        *then = first.clone();
        then.type_into(dice)?;
        then.lost = then.typed.len() / 2;
        then.typed.len().is_multiple_of(2).then_some(())
    }),
    cursor("256 bytes in common, and most of them blank", |first, then, dice| {
        let at = first.prefix.rfind('\n')? + 1;
        let blank = dice.pick(&["\n", " \n", "\t\n"])?.repeat(300);
        let above = format!("# {}\n{blank}    x = 1\n", first.mark);
        first.prefix.replace_range(..at, &above);
        pad(first);
        *then = first.clone();
        then.type_into(dice)?;
        let size = blank.len() + 100;
        resize(first, size);
        resize(then, size);
        Some(())
    }),
    cursor("a line lost, and none typed", |first, then, dice| {
        pad(first);
        *then = first.clone();
        then.type_into(dice)?;
        then.lost = first.top.find('\n')? + 1;
        (then.lost != then.typed.chars().count()).then_some(())
    }),
    cursor("more lines lost than typed", |first, then, _| {
        slide_lines(first, then)?;
        then.lost += then.top[then.lost..].find('\n')? + 1;
        (then.lost - first.lost != then.typed.chars().count()).then_some(())
    }),
    cursor("a line typed, and half of one lost", |first, then, dice| {
        slide_lines(first, then)?;
        then.lost -= 1 + dice.below(3);
        (then.lost - first.lost != then.typed.chars().count()).then_some(())
    }),
    cursor("a line typed, and one and a half lost", |first, then, dice| {
        slide_lines(first, then)?;
        then.lost += 1 + dice.below(3);
        (then.lost - first.lost != then.typed.chars().count()).then_some(())
    }),
    cursor("space added, and a window of characters slid", |first, then, dice| {
        slid(first, then, dice)?;
        add_space(then, dice)
    }),
    window_of("space added, a colleague's window", |first, then, dice| {
        slide_lines(first, then)?;
        then.key = "nh-colleague";
        add_space(then, dice)
    }),
    // As many lines, and text lost at the front; and yet it is the first line that was edited.
    cursor("the first line loses its first word", |first, then, _| {
        first.top = format!("not {LOST}");
        then.top = LOST.to_owned();
        Some(())
    }),
    cursor("the first line is no comment any more", |first, then, _| {
        first.top = format!("# {LOST}");
        then.top = LOST.to_owned();
        Some(())
    }),
    cursor("a window that cuts its first line elsewhere", |first, then, dice| {
        slide(first, then, dice)?;
        then.lost += 3;
        (lines(first) == lines(then)).then_some(())
    }),
];

pub(crate) const MAY_HIT: &[Edit] = &[
    cursor("a window of characters slid", |first, then, dice| {
        slid(first, then, dice)?;
        // What the front has left of a word may be a name of the answer.
        let before = first.before();
        let front = before.split(|character: char| !character.is_alphanumeric()).next()?;
        (front.is_empty() || !first.answer.contains(front)).then_some(())
    }),
    cursor("a window of wide characters slid", |first, then, dice| {
        first.top = "\u{fc}".repeat(300);
        *then = first.clone();
        then.type_into(dice)?;
        then.lost = then.typed.chars().count();
        Some(())
    }),
    cursor("a window of lines slid", |first, then, _| slide_lines(first, then)),
    cursor("space added, and a window of lines slid", |first, then, dice| {
        slide_lines(first, then)?;
        add_space(then, dice)
    }),
    window_of("space added, a colleague's window of the same repository", |first, then, dice| {
        slide_lines(first, then)?;
        then.key = "nh-colleague";
        declare(first, &json!({"repo": "r"}));
        declare(then, &json!({"repo": "r"}));
        add_space(then, dice)
    }),
    window_of("a colleague's window of the same repository", |first, then, _| {
        slide_lines(first, then)?;
        then.key = "nh-colleague";
        declare(first, &json!({"repo": "r"}));
        declare(then, &json!({"repo": "r"}));
        Some(())
    }),
    cursor("space added, and the name that is served stands elsewhere", |first, then, dice| {
        for scene in [&mut *first, &mut *then] {
            scene.suffix.as_mut()?.push_str("\nprint(ledger_limit)\n");
        }
        lose_the_name(first, then)?;
        add_space(then, dice)
    }),
    cursor("the same window again", |first, then, dice| slide(first, then, dice).map(|_| ())),
];

/// By the words of the rules these are windows that slid.
pub(crate) const OPEN: &[Edit] = &[
    cursor("the first lines are blank now", |first, then, dice| {
        first.top = format!("debug_mode = 1\nlimit = 12\n{LOST}");
        // A docstring keeps what is above it from being normalised.
        first.prefix = first.prefix.replace("\"\"\"", "# ").replace("'''", "# ");
        if may_end_in_text(&first.prefix) {
            return None;
        }
        *then = first.clone();
        then.type_into(dice)?;
        let lines = 1 + dice.below(2);
        let end: usize = first.top.split_inclusive('\n').take(lines).map(str::len).sum();
        then.top.replace_range(..end, &"\n".repeat(lines));
        Some(())
    }),
    cursor("the first lines deleted, and as many blank ones added", |first, then, dice| {
        first.top = format!("debug_mode = 1\n{LOST}");
        *then = first.clone();
        then.type_into(dice)?;
        then.top = LOST.to_owned();
        add_blank_line(then, dice, "")
    }),
    cursor("a line typed, and a longer first line deleted", |first, then, _| {
        slide_lines(first, then)?;
        first.lost = 0;
        then.lost = 0;
        first.top = format!("debug_mode = 1  # And whatever else makes this line long\n{LOST}");
        then.top = LOST.to_owned();
        (then.top.len() + then.typed.len() != first.top.len()).then_some(())
    }),
    cursor(
        "a window that lost the name that is served, its parts stand elsewhere",
        |first, then, _| {
            const LOSES: &str = "(defvar ledger-limit 12)\n";
            first.top = format!("{LOSES}; The ledger has no limit\n{}", LOST.repeat(8));
            serve_the_name(first, then, "ledger-limit");
            then.lost = LOSES.len();
            Some(())
        },
    ),
];

/// Enough text in front that a window loses some of it, and keeps the mark.
fn pad(scene: &mut Scene) {
    scene.top = LOST.repeat(8);
}

/// The same window twice; its size.
fn slide(first: &mut Scene, then: &mut Scene, dice: &mut Dice) -> Option<usize> {
    let least = first.before().chars().count() + 150;
    let size = (*dice.pick(&SIZES)?).max(least);
    pad(first);
    pad(then);
    resize(first, size);
    resize(then, size);
    Some(size)
}

/// The same window, and what was typed has moved it.
fn slid(first: &mut Scene, then: &mut Scene, dice: &mut Dice) -> Option<()> {
    let size = slide(first, then, dice)?;
    then.type_into(dice)?;
    resize(then, size);
    Some(())
}

fn resize(scene: &mut Scene, size: usize) {
    scene.lost = 0;
    scene.lost = scene.before().chars().count().saturating_sub(size);
}

fn lines(scene: &Scene) -> usize {
    scene.before().split('\n').count()
}

/// A line is typed, and one has left the window.
fn slide_lines(first: &mut Scene, then: &mut Scene) -> Option<()> {
    pad(first);
    let (line, rest) = first.answer.split_once('\n')?;
    let typed = format!("{line}\n{}", &rest[..rest.len() - rest.trim_start().len()]);
    *then = Scene { typed, ..first.clone() };
    // Both begin where a line does.
    first.lost = first.top[..first.top[..40].rfind('\n')? + 1].len();
    then.lost = first.lost + first.top[first.lost..].find('\n')? + 1;
    Some(())
}

const LINE: &str = "ledger_limit = 12\n";
const TYPED: &str = "value_of_it = 20\n    ";

/// The answer ends with a name that has left the window, in the line that it lost.
fn lose_the_name(first: &mut Scene, then: &mut Scene) -> Option<()> {
    first.top = format!("{LINE}{}", LOST.repeat(8));
    serve_the_name(first, then, "ledger_limit");
    then.lost = LINE.len();
    Some(())
}

fn serve_the_name(first: &mut Scene, then: &mut Scene, name: &str) {
    first.answer = format!("{TYPED}print({name})");
    then.top.clone_from(&first.top);
    then.answer.clone_from(&first.answer);
    TYPED.clone_into(&mut then.typed);
}
