//! The terms of a question in an order that does not depend on what may be said in any order. Pure.
//!
//! `In Python, how do I sort a list by age` and `sort a python list by age` are arranged alike;
//! `dict of lists` and `list of dicts` are not, nor `from A to B` and `from B to A`. What may move is
//! little: clauses behind what comes first, the language a question is set in, and the operands of a
//! comparison. Two texts that say the same in another order are not taken for the same; that costs
//! a hit.

use std::collections::BTreeSet;

use super::{
    read::{DIFFERENCE, HOW, Kind, Reading, Role, Term, WHEN, WHICH, WHY},
    words,
};

/// A clause: the sort of word it begins with, and its terms.
struct Clause<'a> {
    sort: &'static str,
    forms: Vec<&'a str>,
}

/// Whether things are compared: then their order means nothing.
pub(super) fn compares(reading: &Reading<'_>) -> bool {
    let has = |role| reading.terms.iter().any(|term| term.role == role);
    reading.purpose & DIFFERENCE != 0
        || reading.purpose & WHICH != 0 && (has(Role::Clause("or")) || has(Role::Clause("between")))
        || reading.purpose & WHEN != 0 && has(Role::And)
}

/// The arrangement of what was read.
pub(super) fn arrangement(reading: &Reading<'_>) -> String {
    let (terms, topics) = without_topics(&reading.terms);
    let compared = compares(reading);
    let clauses = if compared { compared_clauses(&terms) } else { clauses(&terms) };
    let extracts = clauses
        .first()
        .is_some_and(|head| head.forms.iter().any(|form| words::is_extraction(form)));
    let mut head = String::new();
    let mut others = Vec::new();
    for (at, clause) in clauses.iter().enumerate() {
        let mut forms = clause.forms.clone();
        if at == 0 && reading.purpose & WHY != 0 {
            // `why does X not` is `why doesn't X`.
            forms.sort_by_key(|form| *form != "not");
        }
        let text = forms.join(" ");
        let sort = match clause.sort {
            "from" if extracts => "in",
            "for" | "with" if compared || !matches!(reading.purpose, 0 | HOW) => "in",
            "but" if reading.purpose & WHY != 0 => "when",
            sort => sort,
        };
        if text.is_empty() {
            continue;
        } else if sort.is_empty() {
            head.push_str(&text);
            head.push(' ');
        } else {
            others.push((sort, text));
        }
    }
    // Those of one sort stay in their order: `by name, then by age`.
    others.sort_by_key(|(sort, _)| *sort);
    for (sort, text) in &others {
        head.push_str(&format!("\n{sort}: {text}"));
    }
    for topic in &topics {
        head.push('\n');
        head.push_str(topic);
    }
    head
}

/// The terms less the language that the question is set in, with its version.
fn without_topics<'a, 't>(terms: &'a [Term<'t>]) -> (Vec<&'a Term<'t>>, Vec<String>) {
    let name = |term: &Term<'_>| {
        term.role == Role::Content(Kind::Name) && words::name(&term.form).is_some()
    };
    let names: BTreeSet<&str> =
        terms.iter().filter(|term| name(term)).map(|term| &*term.form).collect();
    let alone = names.len() == 1;
    let (mut kept, mut topics): (Vec<&Term<'_>>, Vec<String>) = (Vec::new(), Vec::new());
    let mut at = 0;
    while at < terms.len() {
        let term = &terms[at];
        at += 1;
        if !name(term) {
            kept.push(term);
            continue;
        }
        let before = kept.last().map(|term| term.role);
        let setting = before == Some(Role::Clause("in")) && words::is_language(&term.form);
        let free = match before {
            Some(Role::Clause(sort)) => matches!(sort, "in" | "with" | "for" | "between"),
            _ => true,
        };
        // `from a Python list`: what it says of the list, it says of all.
        let describes = terms.get(at).is_some_and(|next| {
            next.at == term.at + 1
                && matches!(next.role, Role::Content(kind) if kind != Kind::Number)
        });
        let free = free || describes;
        if !(setting || alone && free) {
            kept.push(term);
            continue;
        }
        // `in Go`, but in `in a Go program` the clause goes on.
        if !describes && let Some(Role::Clause("in" | "with" | "for")) = before {
            kept.pop();
        }
        let mut topic = term.form.clone();
        if let Some(version) = terms.get(at).filter(|next| next.role == Role::Content(Kind::Number))
        {
            topic.push(' ');
            topic.push_str(&version.form);
            at += 1;
        }
        if !topics.contains(&topic) {
            topics.push(topic);
        }
    }
    topics.sort();
    (kept, topics)
}

/// The clauses, of which those without a sort come first.
fn clauses<'a>(terms: &[&'a Term<'_>]) -> Vec<Clause<'a>> {
    let mut found = vec![Clause { sort: "", forms: Vec::new() }];
    let mut leading = true;
    for term in terms {
        match term.role {
            Role::Content(_) => {
                if let Some(last) = found.last_mut() {
                    last.forms.push(&term.form);
                }
                leading &= found.len() > 1;
            }
            Role::Clause(sort) => found.push(Clause { sort, forms: Vec::new() }),
            // `In a Dockerfile, how do I …`: what follows is what comes first.
            Role::Comma if leading && found.len() > 1 => {
                found.push(Clause { sort: "", forms: Vec::new() });
                leading = false;
            }
            Role::Stop if found.len() > 1 => {
                found.push(Clause { sort: if leading { "" } else { "then" }, forms: Vec::new() });
                leading = false;
            }
            Role::And | Role::Comma | Role::Stop => {}
        }
    }
    found
}

/// The same where things are compared: operands in the order of their forms.
fn compared_clauses<'a>(terms: &[&'a Term<'_>]) -> Vec<Clause<'a>> {
    let mut operands: Vec<Vec<&'a str>> = vec![Vec::new()];
    let mut others: Vec<Clause<'a>> = Vec::new();
    let (mut inside, mut joined) = (true, false);
    let last = terms.iter().rposition(|term| matches!(term.role, Role::And | Role::Clause("or")));
    for (at, term) in terms.iter().enumerate() {
        match term.role {
            Role::Content(_) if inside => {
                if let Some(last) = operands.last_mut() {
                    last.push(&term.form);
                }
            }
            Role::Content(_) => {
                if let Some(last) = others.last_mut() {
                    last.forms.push(&term.form);
                }
            }
            Role::And | Role::Clause("or") => {
                operands.push(Vec::new());
                (inside, joined) = (true, true);
            }
            Role::Clause("between") => inside = true,
            // `X in A and Y in B`: it is of its operand.
            Role::Clause(sort)
                if inside
                    && operands.iter().any(|operand| !operand.is_empty())
                    && last.is_some_and(|last| at < last) =>
            {
                if let Some(last) = operands.last_mut() {
                    last.push(sort);
                }
            }
            Role::Clause("with" | "from" | "to" | "than" | "against")
                if !joined && operands.iter().any(|operand| !operand.is_empty()) =>
            {
                operands.push(Vec::new());
                (inside, joined) = (true, true);
            }
            Role::Clause(sort) => {
                others.push(Clause { sort, forms: Vec::new() });
                inside = false;
            }
            Role::Comma => {
                if inside {
                    operands.push(Vec::new());
                }
                inside |= !joined;
            }
            Role::Stop => {}
        }
    }
    operands.retain(|operand| !operand.is_empty());
    operands.sort();
    let mut found: Vec<_> = operands.into_iter().map(|forms| Clause { sort: "", forms }).collect();
    found.append(&mut others);
    found
}
