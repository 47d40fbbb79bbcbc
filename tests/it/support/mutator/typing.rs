//! What a user does at the cursor.

use super::{Edit, cursor, text::put};
use crate::support::scene::{Scene, visible};

pub(crate) const MUST_MISS: &[Edit] = &[
    cursor("something else is typed", |_, then, dice| {
        then.type_into(dice)?;
        then.typed.push('\u{7e}');
        Some(())
    }),
    cursor("the answer is typed in another case", |_, then, dice| {
        then.type_into(dice)?;
        let upper = then.typed.to_uppercase();
        let all = 0..then.typed.len();
        put(&mut then.typed, all, &upper)
    }),
    cursor("the answer is typed with other space", |_, then, dice| {
        then.type_into(dice)?;
        let at = then.typed.trim_end().rfind(' ')?;
        put(&mut then.typed, at..at, " ")
    }),
    cursor("the answer is typed with a line between", |_, then, dice| {
        then.type_into(dice)?;
        let at = then.typed.rfind(' ').filter(|&at| visible(&then.typed[..at]) > 0)?;
        put(&mut then.typed, at..at, "\n")
    }),
    cursor("a later part of the answer is typed", |_, then, dice| {
        then.type_into(dice)?;
        let typed = then.typed.clone();
        let rest = then.answer.strip_prefix(&typed)?.get(..2)?;
        then.typed = rest.to_owned();
        (!then.answer.starts_with(rest)).then_some(())
    }),
    cursor("all of the answer is typed", |_, then, _| {
        then.typed.clone_from(&then.answer);
        Some(())
    }),
    cursor("the answer and more is typed", |_, then, dice| {
        then.typed = format!("{}{}", then.answer, dice.pick(&["x", "\n", " ", ")"])?);
        Some(())
    }),
    cursor("one visible character is left", |_, then, _| {
        let last = then.answer.trim_end().char_indices().last()?.0;
        then.typed = then.answer[..last].to_owned();
        Some(())
    }),
    cursor("space is typed that the answer has not", |_, then, _| {
        then.typed = " ".to_owned();
        (!then.answer.starts_with(' ')).then_some(())
    }),
    cursor("a line's end is typed", |_, then, _| {
        let lead = then.prefix.rsplit('\n').next()?;
        then.typed = if lead.trim().is_empty() { "x\n" } else { "\n" }.to_owned();
        (!then.answer.starts_with(&then.typed)).then_some(())
    }),
    cursor("the cursor further left", |_, then, dice| {
        let lead = then.prefix.rsplit('\n').next()?.len();
        let by = 1 + dice.below(lead.checked_sub(2)? + 1);
        let moved = then.prefix.split_off(then.prefix.len() - by);
        then.suffix.as_mut()?.insert_str(0, &moved);
        Some(())
    }),
    cursor("the cursor further right", |_, then, dice| {
        let suffix = then.suffix.as_mut().filter(|suffix| !suffix.is_empty())?;
        let at = 1 + dice.below(suffix.len().min(12));
        let rest = suffix.split_off(at);
        then.typed.clone_from(suffix);
        *suffix = rest;
        Some(())
    }),
    cursor("the answer stands behind the cursor", |_, then, _| {
        then.suffix.as_mut()?.insert_str(0, &then.answer);
        Some(())
    }),
    cursor("more is taken back than was typed", |_, then, dice| {
        let lead = then.prefix.rsplit('\n').next()?;
        let visible = lead.trim_start().len();
        let by = 1 + dice.below(visible.checked_sub(2)? + 1);
        then.prefix.truncate(then.prefix.len() - by);
        Some(())
    }),
    cursor("the line is taken back", |_, then, _| {
        let at = then.prefix.trim_end().rfind('\n')?;
        then.prefix.truncate(at + 1);
        Some(())
    }),
    cursor("nine lines are typed", |first, then, _| type_lines(first, then, 9)),
];

pub(crate) const MAY_HIT: &[Edit] = &[
    cursor("the same again", |_, _, _| Some(())),
    cursor("typed into", |_, then, dice| then.type_into(dice)),
    cursor("typed over the line's end", |_, then, _| {
        let (line, rest) = then.answer.split_once('\n')?;
        let into = rest.len() - rest.trim_start().len() + 1;
        then.typed = format!("{line}\n{}", rest.get(..into)?);
        (visible(&rest[into..]) >= 2).then_some(())
    }),
    cursor("eight lines are typed", |first, then, _| type_lines(first, then, 8)),
];

fn type_lines(first: &mut Scene, then: &mut Scene, typed: usize) -> Option<()> {
    let line = |number: usize| format!("value_{number} = {number}\n");
    first.answer = (0..12).map(line).collect();
    then.answer.clone_from(&first.answer);
    then.typed = (0..typed).map(line).collect();
    Some(())
}
