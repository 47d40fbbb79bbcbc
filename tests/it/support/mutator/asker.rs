//! Who asks, for what, and what is declared.

use serde_json::{Value, json};

use super::{Edit, asker};
use crate::support::scene::{Scene, Shape};

pub(crate) const MUST_MISS: &[Edit] = &[
    asker("another tenant", |_, then, _| {
        then.key = "nh-other";
        Some(())
    }),
    asker("another tenant, the same repository", |first, then, _| {
        declare(first, &json!({"repo": "r"}));
        declare(then, &json!({"repo": "r"}));
        then.key = "nh-other";
        Some(())
    }),
    asker("another revision of the model", |_, then, _| {
        then.say("model", json!("fake@0"));
        Some(())
    }),
    asker("inline, not fill in the middle", |_, then, _| {
        then.suffix = None;
        Some(())
    }),
    asker("fill in the middle, not inline", |first, _, _| {
        first.suffix = None;
        Some(())
    }),
    asker("other stop", |first, then, _| {
        both(first, then, "stop", [json!(["\n\n"]), json!(["#"])])
    }),
    asker("a stop", |_, then, _| option(then, "stop", json!(["\n"]))),
    asker("other max_tokens", |_, then, _| option(then, "max_tokens", json!(8))),
    asker("other temperature", |_, then, _| option(then, "temperature", json!(0.2))),
    asker("high temperature", |_, then, _| option(then, "temperature", json!(0.9))),
    asker("other top_p", |_, then, _| option(then, "top_p", json!(0.5))),
    asker("a seed", |_, then, _| option(then, "seed", json!(7))),
    asker("other seed", |first, then, _| both(first, then, "seed", [json!(7), json!(8)])),
    asker("logprobs", |_, then, _| option(then, "logprobs", json!(1))),
    asker("a penalty", |_, then, _| option(then, "presence_penalty", json!(1.0))),
    asker("an unknown field", |_, then, _| option(then, "min_p", json!(0.1))),
    asker("other repository", |first, then, _| {
        declared(first, then, [json!({"repo": "r"}), json!({"repo": "s"})])
    }),
    asker("a repository declared", |_, then, _| {
        declare(then, &json!({"repo": "r"}));
        Some(())
    }),
    asker("no repository declared any more", |first, _, _| {
        declare(first, &json!({"repo": "r"}));
        Some(())
    }),
    asker("other hash of a context file", |first, then, _| {
        declared(first, then, [files(&[("b.py", "1")]), files(&[("b.py", "2")])])
    }),
    asker("other path of a context file", |first, then, _| {
        declared(first, then, [files(&[("b.py", "1")]), files(&[("c.py", "1")])])
    }),
    asker("one more context file", |first, then, _| {
        declared(first, then, [files(&[("b.py", "1")]), files(&[("b.py", "1"), ("c.py", "1")])])
    }),
    asker("hashes of context files exchanged", |first, then, _| {
        let one = files(&[("b.py", "1"), ("c.py", "2")]);
        declared(first, then, [one, files(&[("b.py", "2"), ("c.py", "1")])])
    }),
    asker("path and hash divided elsewhere", |first, then, _| {
        declared(first, then, [files(&[("b.py", "12")]), files(&[("b.py1", "2")])])
    }),
    asker("a context file declared", |_, then, _| {
        declare(then, &files(&[("b.py", "1")]));
        Some(())
    }),
    asker("no context file declared any more", |first, _, _| {
        declare(first, &files(&[("b.py", "1")]));
        Some(())
    }),
    asker("the repository's name is a context file's", |first, then, _| {
        declared(first, then, [json!({"repo": "b.py"}), files(&[("b.py", "1")])])
    }),
    asker("other text of a snippet", |first, then, _| {
        let extra = |text: &str| json!([{"filename": "b.py", "text": text}]);
        snippets(first, then, Shape::LlamaCpp, "input_extra", [extra("b = 1\n"), extra("b = 2\n")])
    }),
    asker("other file of a snippet", |first, then, _| {
        let extra = |name: &str| json!([{"filename": name, "text": "b = 1\n"}]);
        snippets(first, then, Shape::LlamaCpp, "input_extra", [extra("b.py"), extra("c.py")])
    }),
    asker("a snippet less", |first, then, _| {
        let extra = json!([{"filename": "b.py", "text": "b = 1\n"}]);
        snippets(first, then, Shape::LlamaCpp, "input_extra", [extra, json!([])])
    }),
    asker("a snippet less, as long as what was typed", |first, then, dice| {
        // Seen: to a pod snippets stand before the prefix, and a window loses text at its front.
        const FRAME: usize = "# Path: b.py\n\n\n".len();
        then.type_into(dice)?;
        // One without text would be left out.
        let length = then.typed.len().checked_sub(FRAME).filter(|&length| length > 0)?;
        let text = format!("{}\n", "#".repeat(length));
        let extra = json!([{"filename": "b.py", "text": text}]);
        snippets(first, then, Shape::LlamaCpp, "input_extra", [extra, json!([])])
    }),
    asker("a snippet more", |first, then, _| {
        let extra = json!([{"filename": "b.py", "text": "b = 1\n"}]);
        snippets(first, then, Shape::LlamaCpp, "input_extra", [json!([]), extra])
    }),
    asker("other declaration", |first, then, _| {
        let of = |body: &str| json!({"declarations": [{"filepath": "b.py", "body": body}]});
        snippets(first, then, Shape::Tabby, "segments", [of("def b(x): ..."), of("def b(y): ...")])
    }),
];

pub(crate) const MAY_HIT: &[Edit] = &[
    asker("an alias", |_, then, _| option(then, "model", json!("usual"))),
    asker("a colleague with the whole prompt", |_, then, _| {
        then.key = "nh-colleague";
        Some(())
    }),
    asker("context files in other order", |first, then, _| {
        let one = files(&[("b.py", "1"), ("c.py", "2")]);
        declared(first, then, [one, files(&[("c.py", "2"), ("b.py", "1")])])
    }),
    asker("other hash of the file itself", |first, then, _| {
        declared(first, then, [json!({"file_hash": "1"}), json!({"file_hash": "2"})])
    }),
    asker("the defaults said", |_, then, _| {
        option(then, "temperature", json!(0))?;
        option(then, "max_tokens", json!(16))
    }),
];

fn option(scene: &mut Scene, name: &str, value: Value) -> Option<()> {
    scene.say(name, value);
    Some(())
}

fn both(first: &mut Scene, then: &mut Scene, name: &str, [one, other]: [Value; 2]) -> Option<()> {
    option(first, name, one)?;
    option(then, name, other)
}

pub(crate) fn declare(scene: &mut Scene, what: &Value) {
    scene.say("nearhop", what.clone());
}

fn declared(first: &mut Scene, then: &mut Scene, [one, other]: [Value; 2]) -> Option<()> {
    declare(first, &one);
    declare(then, &other);
    Some(())
}

fn files(files: &[(&str, &str)]) -> Value {
    let file = |(path, hash): &(&str, &str)| json!({"path": path, "hash": hash});
    json!({"context_files": files.iter().map(file).collect::<Vec<_>>()})
}

fn snippets(
    first: &mut Scene,
    then: &mut Scene,
    shape: Shape,
    name: &str,
    [one, other]: [Value; 2],
) -> Option<()> {
    (first.shape, then.shape) = (shape, shape);
    both(first, then, name, [one, other])
}
