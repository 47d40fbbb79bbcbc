use nearhop_wire::CompletionRequest;
use proptest::prelude::*;

use super::*;
use crate::{
    Asker, Entry, Namer,
    testing::{answer, ask, model},
};

fn question<'a>(request: &'a CompletionRequest, key: &str) -> (Question, Around<'a>) {
    let asker = Asker { tenant: "t", key, user: None };
    let question = Question::of(request, asker, &model("1"), &Namer::default());
    (question, Around::of(request))
}

/// How the answer to one request, by key `k`, answers another.
fn between(old: &CompletionRequest, text: &str, new: &CompletionRequest, key: &str) -> Option<Fit> {
    let (asked, around) = question(old, "k");
    let (places, asked) = Asked::of(&asked, around).unwrap();
    let (question, around) = question(new, key);
    question.sites(around.prefix).find_map(|site| {
        places
            .contains(&site.place)
            .then(|| fit((&asked, text), (&question, around), &site).ok())
            .flatten()
    })
}

fn check(old: (&str, &str), text: &str, new: (&str, &str), expected: Option<(Rule, &str)>) {
    let found = between(&ask(old.0, old.1), text, &ask(new.0, new.1), "k");
    let shown = found.map(|fit| (fit.rule, &text[fit.typed..]));
    assert_eq!(shown, expected, "{old:?} {text:?} {new:?}");
}

const ABOVE: &str = "import os\n\ndef f(total, count):\n";

fn above(line: &str) -> String {
    format!("{ABOVE}{line}")
}

#[test]
fn the_same_again_is_served_whole() {
    let here = above("    return ");
    check((&here, "\n"), "total", (&here, "\n"), Some((Rule::Exact, "total")));
    check((&here, "\n"), "}", (&here, "\n"), Some((Rule::Exact, "}")));
    check(("", ""), "x = 1", ("", ""), Some((Rule::Exact, "x = 1")));
}

#[test]
fn typing_into_an_answer_is_served_its_rest() {
    let check = |text, typed: &str, expected| {
        let (old, new) = (above("    re"), above(&format!("    re{typed}")));
        check((&old, "\n"), text, (&new, "\n"), expected);
    };
    check("turn total", "turn", Some((Rule::TypeAhead, " total")));
    check("turn total\n\nprint()", "turn total\n", Some((Rule::TypeAhead, "\nprint()")));
    check("turn total", "turn x", None);
    check("turn total", "turn tota", None);
    check("turn total", "turn total", None);
    check("turn total", "turn total!", None);
    check("größe", "gr", Some((Rule::TypeAhead, "öße")));
}

#[test]
fn backspace_is_served_down_to_where_it_was_asked() {
    let check = |new: &str, expected| {
        check((&above("    return t"), ""), "otal", (&above(new), ""), expected);
    };
    check("    return to", Some((Rule::TypeAhead, "tal")));
    check("    return t", Some((Rule::Exact, "otal")));
    check("    return ", None);
}

#[test]
fn every_change_that_means_something_is_a_miss() {
    let old = above("    # ascending\n    return sorted(");
    let check = |new: &str, suffix: &str| check((&old, ")\n"), "total)", (new, suffix), None);
    check(&old.replace("ascending", "descending"), ")\n");
    check(&old.replace("count", "cound"), ")\n");
    check(&old.replace("import os\n", ""), ")\n");
    check(&format!("import re\n{old}"), ")\n");
    check(&old.replace("    return", "\treturn"), ")\n");
    check(&old, "\n");
    check(&old, ")\nx");
    check(&old.replace("sorted(", "sorted( "), ")\n");
}

#[test]
fn blank_lines_and_space_at_line_ends_mean_nothing() {
    let old = above("    return ");
    let check = |new: &str, suffix: &str, expected| {
        check((&old, ")\n\nx"), "total", (new, suffix), expected);
    };
    let normalised = Some((Rule::Normalised, "total"));
    check(&old.replace("\n\n", "\n"), ")\n\nx", normalised);
    check(&old.replace("os\n", "os  \n\n\n"), ")\n\nx", normalised);
    check(&old, ")\nx", normalised);
    check(&format!("{}to", old.replace("\n\n", "\n")), ")\nx", Some((Rule::Normalised, "tal")));
    check(&old.replace("return ", "return  "), ")\n\nx", None);
}

fn long(lines: std::ops::Range<usize>) -> String {
    lines.map(|line| format!("value_{line} = compute({line})\n")).collect()
}

#[test]
fn windows_slide() {
    // A window of so many characters: what was typed pushed as much out at its front.
    let (old, new) = (format!("{}retu", long(0..20)), format!("{}return", long(0..20)));
    let check_chars = |lost, expected| {
        check((&old, ""), "rn total", (&new[lost..], ""), expected);
    };
    check_chars(2, Some((Rule::Window, " total")));
    check_chars(1, None);
    check_chars(3, None);
    // One of so many lines: a typed newline pushed out a line.
    let (old, text) = (format!("{}if x:", long(0..20)), "\n    y = 1\n    z = 2");
    let new = format!("{}if x:\n    y", long(1..20));
    check((&old, ""), text, (&new, ""), Some((Rule::Window, " = 1\n    z = 2")));
    let two = format!("{}if x:\n    y", long(2..20));
    check((&old, ""), text, (&two, ""), None);
}

#[test]
fn a_window_that_lost_text_without_typing_is_another_prompt() {
    let old = format!("{}x = ", long(0..20));
    check((&old, ""), "total", (&old[1..], ""), None);
    check((&old, ""), "total", (&format!("{}x = ", long(1..20)), ""), None);
    // Nor does more text at the front make an older answer fit.
    check((&format!("{}x = ", long(1..20)), ""), "total", (&old, ""), None);
}

#[test]
fn little_common_text_makes_no_window() {
    let (old, new) = (format!("{}retu", long(0..5)), format!("{}return", long(0..5)));
    check((&old, ""), "rn total", (&new[2..], ""), None);
}

#[test]
fn a_window_is_for_its_key_or_its_repository() {
    let (old, new) = (format!("{}retu", long(0..20)), format!("{}return", long(0..20)));
    let declared = |text: &str, repo: Option<&str>| {
        let mut request = ask(text, "");
        request.declared.repo = repo.map(str::to_owned);
        request
    };
    let check = |old_repo, new_repo, key, expected: bool| {
        let (old, new) = (declared(&old, old_repo), declared(&new[2..], new_repo));
        assert_eq!(between(&old, "rn total", &new, key).is_some(), expected, "{old_repo:?} {key}");
    };
    check(None, None, "k", true);
    check(None, None, "other", false);
    check(Some("r"), Some("r"), "other", true);
    check(Some("r"), Some("s"), "k", false);
    check(Some("r"), None, "k", false);
    // Whoever sends the whole prompt has it already.
    let (old, new) = (declared(&old, None), declared(&new, None));
    assert!(between(&old, "rn total", &new, "other").is_some());
}

#[test]
fn a_name_that_slid_out_of_a_window_is_not_offered() {
    let window = format!("secret_name = 1\n{}x = ", long(1..20));
    let check = |text: &str, typed: usize, expected| {
        let slid = format!("{window}{}", &text[..typed]);
        check((&window, ""), text, (&slid[typed..], ""), expected);
    };
    check("value_3 + value_4", 6, Some((Rule::Window, "3 + value_4")));
    check("count + secret_name", 6, None);
    check("count + secret", 6, Some((Rule::Window, "+ secret")));
    // Half typed, it is named all the same; typed whole, it is known.
    check("count + secret_name", 10, None);
    check("secret_name + count", 11, Some((Rule::Window, " + count")));
}

#[test]
fn prose_is_not_normalised() {
    let mut old = ask(&above("    return "), ")\n");
    let mut new = ask(&above("    return ").replace("\n\n", "\n"), ")\n");
    assert!(between(&old, "total", &new, "k").is_some());
    (old.declared.language, new.declared.language) =
        (Some("markdown".into()), Some("markdown".into()));
    assert!(between(&old, "total", &new, "k").is_none());
}

#[test]
fn snippets_of_other_files_are_no_part_of_the_window() {
    let infill = |extra: &str, prefix: &str| {
        let body = format!(
            r#"{{"input_prefix": "{prefix}", "input_suffix": "", "input_extra": [{extra}]}}"#
        );
        CompletionRequest::parse(nearhop_wire::Endpoint::Infill, body.as_bytes()).unwrap()
    };
    let snippet = r#"{"filename": "b.py", "text": "b = 1\n"}"#;
    let above = long(0..20).replace('\n', "\\n");
    let typed = "01234567890123456789";
    let (old, text) = (infill(snippet, &above), format!("{typed} and more"));
    assert_eq!(old.snippet_bytes, typed.len());
    assert!(between(&old, &text, &infill("", &format!("{above}{typed}")), "k").is_none());
    assert!(between(&old, &text, &infill(snippet, &format!("{above}{typed}")), "k").is_some());
}

#[test]
fn several_choices_are_served_whole() {
    let several = |text: &str| {
        let mut request = ask(text, "");
        request.sampling.n = 2;
        request
    };
    let fits = |new| between(&several("a = "), "bcd", &several(new), "k").is_some();
    assert!(fits("a = "));
    assert!(!fits("a = b"));
}

#[test]
fn who_types_into_what_is_being_written_may_join() {
    let old = ask(&above("    re"), "");
    let (asked, around) = question(&old, "k");
    let (_, asked) = Asked::of(&asked, around).unwrap();
    let check = |so_far: &str, line: &str, expected: Option<(usize, Rule)>| {
        let new = ask(&above(line), "");
        let (question, around) = question(&new, "other");
        let (_, asking) = Asked::of(&question, around).unwrap();
        let joined = may_join((&asked, so_far), &asking).map(|(typed, rule)| (typed.len(), rule));
        assert_eq!(joined, expected, "{so_far:?} {line:?}");
    };
    check("", "    re", Some((0, Rule::Exact)));
    check("", "    retu", Some((2, Rule::TypeAhead)));
    check("turn to", "    retu", Some((2, Rule::TypeAhead)));
    check("t", "    retu", Some((2, Rule::TypeAhead)));
    check("x", "    retu", None);
    check("", "    r", None);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    /// Whatever is served, prompt and answer are what they were: nothing is lost, doubled or moved.
    #[test]
    fn what_was_typed_and_what_is_served_are_the_answer(
        prefix in "[ab \n]{0,30}", text in "[ab \n]{1,12}", typed in 0usize..12, other in "[ab \n]{0,3}",
    ) {
        let typed = &text[..typed.min(text.len())];
        let old = ask(&prefix, "");
        for new in [format!("{prefix}{typed}"), format!("{prefix}{other}"), format!("{other}{prefix}{typed}")] {
            let Some(fit) = between(&old, &text, &ask(&new, ""), "k") else { continue };
            let plain = |text: &str| normal::lines(text).collect::<Vec<_>>().join("\n");
            let whole = format!("{new}{}", &text[fit.typed..]);
            prop_assert_eq!(plain(&whole), plain(&format!("{prefix}{text}")));
            if fit.rule != Rule::Normalised {
                prop_assert_eq!(whole, format!("{prefix}{text}"));
            }
        }
        let fit = between(&old, &text, &old, "k");
        prop_assert_eq!(fit, Some(Fit { rule: Rule::Exact, typed: 0 }));
    }

    #[test]
    fn what_is_remembered_is_given_back(text in "[ab \n]{1,12}", typed in 0usize..12) {
        let old = ask("x = ", "");
        let (question, around) = question(&old, "k");
        let (_, asked) = Asked::of(&question, around).unwrap();
        let entry = Entry::new(asked, &answer(&text), (0, question.tags), std::time::Duration::ZERO).unwrap();
        let typed = typed.min(text.len());
        let head = answer(&text).head;
        let again = entry.answer(typed, (head.endpoint, "m", "m@1".into()));
        prop_assert_eq!(&again.choices[0].text, &text[typed..]);
        prop_assert_eq!((again.usage, again.head), (answer(&text).usage, head));
    }
}
