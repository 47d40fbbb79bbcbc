use nearhop_wire::Endpoint;

use super::*;
use crate::testing::{ask, model, tenant};

fn class(change: impl Fn(&mut CompletionRequest)) -> [u8; 32] {
    let mut request = ask("fn main", ")\n");
    change(&mut request);
    Question::of(&request, tenant("acme"), &model("1"), &Namer::default()).class
}

#[test]
fn each_part_of_the_class_changes_it() {
    let of = |asker, model: &ModelReport| {
        Question::of(&ask("fn main", ")\n"), asker, model, &Namer::default()).class
    };
    let file = |path: &str, hash: &str| nearhop_wire::ContextFile {
        path: path.to_owned(),
        hash: hash.to_owned(),
    };
    let template = ModelReport { template: "u".to_owned(), ..model("1") };
    let named = ModelReport { name: "n".to_owned(), ..model("1") };
    let classes = [
        class(|_| {}),
        of(tenant("other"), &model("1")),
        of(tenant("acme"), &model("2")),
        of(tenant("acme"), &template),
        of(tenant("acme"), &named),
        class(|request| request.sampling.temperature = Some(0.2)),
        class(|request| request.sampling.top_p = Some(0.9)),
        class(|request| request.sampling.max_tokens = Some(0)),
        class(|request| request.sampling.max_tokens = Some(1)),
        class(|request| request.sampling.n = 2),
        class(|request| request.sampling.seed = Some(0)),
        class(|request| request.sampling.stop = vec!["a".into()]),
        class(|request| request.sampling.stop = vec!["a".into(), "b".into()]),
        class(|request| request.sampling.stop = vec!["ab".into()]),
        class(|request| request.declared.repo = Some("r".into())),
        class(|request| request.declared.context_files = vec![file("a", "1")]),
        class(|request| request.declared.context_files = vec![file("a", "2")]),
        class(|request| request.declared.context_files = vec![file("a1", "")]),
        class(|request| request.input = Input::Prompt("fn main".into())),
        class(|request| {
            request.input = Input::Fim { prefix: "fn main".into(), suffix: ")\nx".into() }
        }),
        class(|request| {
            request.input = Input::Fim { prefix: String::new(), suffix: String::new() }
        }),
        class(|request| {
            request.input = Input::Chat(vec![nearhop_wire::Message {
                role: "user".into(),
                content: "fn main".into(),
                name: None,
            }])
        }),
    ];
    let distinct: std::collections::HashSet<_> = classes.iter().collect();
    assert_eq!(distinct.len(), classes.len());
}

#[test]
fn what_means_nothing_is_in_no_class() {
    let same = |change: fn(&mut CompletionRequest)| assert_eq!(class(change), class(|_| {}));
    same(|request| request.stream = true);
    same(|request| request.endpoint = Endpoint::Infill);
    same(|request| request.sampling.temperature = Some(0.0));
    same(|request| request.sampling.top_p = Some(1.0));
    same(|request| request.declared.file_hash = Some("now".into()));
    same(|request| request.declared.session = Some("s".into()));
    same(|request| {
        request.input = Input::Fim { prefix: "fn other".into(), suffix: ") \n\n".into() }
    });
}

#[test]
fn the_class_is_the_same_in_every_process() {
    assert_eq!(class(|_| {})[..4], KNOWN, "raise LAYOUT when the layout changes");
}

const KNOWN: [u8; 4] = [111, 184, 0, 126];

#[test]
fn the_cursors_line_comes_first_and_the_top_of_the_text_last() {
    let question = Question::of(&ask("", ""), tenant("t"), &model("1"), &Namer::default());
    let check = |prefix: &str, expected: &[(&str, &str)]| {
        let sites: Vec<_> = question.sites(prefix).map(|site| (site.before, site.typed)).collect();
        assert_eq!(sites, expected, "{prefix:?}");
    };
    check("", &[("", ""), ("", "")]);
    check("ab", &[("", "ab"), ("", "ab")]);
    check("a\n", &[("a\n", ""), ("", "a\n")]);
    check("\nb", &[("\n", "b"), ("", "\nb")]);
    check("a\nb\nc", &[("a\nb\n", "c"), ("a\n", "b\nc"), ("", "a\nb\nc")]);
    let many = "x\n".repeat(20);
    assert_eq!(question.sites(&many).count(), 1 + LINES_TYPED_MAX);
}
