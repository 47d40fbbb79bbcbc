use super::*;
use crate::{
    semantic::testing::{ANNA, BEN, UNDO, Who, cache, chat, pose, pose_to, settings},
    testing::model,
};
use serde_json::{Value, json};

#[test]
fn a_question_ends_a_conversation_and_is_asked_once_and_without_tools() {
    let cache = cache(settings(Sharing::User));
    let check = |change: &dyn Fn(&mut Value), expected: Option<NoSite>| {
        let request = chat(UNDO, |body| change(body));
        let posed = pose_to(&cache, ANNA, &request, (&model("1"), "e@1"));
        assert_eq!(posed.err(), expected);
    };
    check(&|_| (), None);
    let said = |role: &str| json!([{ "role": role, "content": UNDO }]);
    check(&|body| body["messages"] = said("system"), Some(NoSite::NotAQuestion));
    check(&|body| body["messages"] = said("assistant"), Some(NoSite::NotAQuestion));
    check(&|body| body["n"] = json!(2), Some(NoSite::NotAQuestion));
    let tools = json!([{ "type": "function", "function": { "name": "f" } }]);
    check(&|body| body["tools"] = tools.clone(), Some(NoSite::NotAQuestion));
    check(&|body| body["functions"] = json!([{ "name": "f" }]), Some(NoSite::NotAQuestion));
    let long = json!([{ "role": "user", "content": format!("{UNDO} {}", "and then ".repeat(99)) }]);
    check(&|body| body["messages"] = long.clone(), Some(NoSite::Unsuited(Unsuited::TooLong)));
}

/// Whatever could change the answer, or must not be seen, is another partition: near or not, it
/// cannot be found.
#[test]
fn whatever_could_change_the_answer_is_in_the_partition() {
    let cache = cache(settings(Sharing::User));
    let plain = pose(&cache, ANNA, UNDO).site;
    let turns = |turns: &[(&str, &str)]| {
        let turn = |(role, content): &(&str, &str)| json!({ "role": role, "content": content });
        Value::Array(turns.iter().chain(&[("user", UNDO)]).map(turn).collect())
    };
    type Change = Box<dyn Fn(&mut Value)>;
    let changes: Vec<Change> = vec![
        Box::new(|body| body["max_tokens"] = json!(9)),
        Box::new(|body| body["temperature"] = json!(0.5)),
        Box::new(|body| body["top_p"] = json!(0.5)),
        Box::new(|body| body["seed"] = json!(5)),
        Box::new(|body| body["stop"] = json!(["x"])),
        Box::new(|body| body["messages"][0]["name"] = json!("anna")),
        Box::new(|body| body["nearhop"] = json!({ "repo": "r" })),
        Box::new(|body| body["nearhop"] = json!({ "file": "a.py" })),
        Box::new(|body| body["nearhop"] = json!({ "language": "python" })),
        Box::new(|body| {
            body["nearhop"] = json!({ "context_files": [{ "path": "a", "hash": "1" }] });
        }),
        Box::new(|body| {
            body["nearhop"] = json!({ "context_files": [{ "path": "a", "hash": "2" }] });
        }),
        Box::new(move |body| body["messages"] = turns(&[("system", "Be brief.")])),
        Box::new(move |body| body["messages"] = turns(&[("developer", "Be brief.")])),
        Box::new(move |body| body["messages"] = turns(&[("system", "Be brief."), ("user", "Hi")])),
        Box::new(move |body| body["messages"] = turns(&[("system", "Be brief.Hi")])),
        Box::new(move |body| {
            body["messages"] = turns(&[("user", "I use svn."), ("assistant", "Fine.")]);
        }),
    ];
    let mut partitions = vec![plain.partition];
    for change in &changes {
        let request = chat(UNDO, |body| change(body));
        partitions
            .push(pose_to(&cache, ANNA, &request, (&model("1"), "e@1")).unwrap().site.partition);
    }
    let request = chat(UNDO, |_| ());
    for (model, embedder) in [(model("2"), "e@1"), (model("1"), "e@2")] {
        partitions
            .push(pose_to(&cache, ANNA, &request, (&model, embedder)).unwrap().site.partition);
    }
    for who in [BEN, Who("u", "k1", Some("anna")), Who("t", "anna", None), Who("t", "k1", None)] {
        partitions.push(pose(&cache, who, UNDO).site.partition);
    }
    let all = partitions.len();
    partitions.sort();
    partitions.dedup();
    assert_eq!(partitions.len(), all);
}

#[test]
fn what_changes_no_answer_is_not() {
    let cache = cache(settings(Sharing::User));
    let plain = pose(&cache, ANNA, UNDO).site;
    for change in
        [json!({ "session": "s" }), json!({ "document": "d" }), json!({ "file_hash": "h" })]
    {
        let request = chat(UNDO, |body| body["nearhop"] = change);
        let other = pose_to(&cache, ANNA, &request, (&model("1"), "e@1")).unwrap().site;
        assert_eq!(other.partition, plain.partition);
    }
    let streamed = chat(UNDO, |body| body["stream"] = json!(true));
    let other = pose_to(&cache, ANNA, &streamed, (&model("1"), "e@1")).unwrap().site;
    assert_eq!((other.partition, other.place), (plain.partition, plain.place));
}

#[test]
fn who_shares_is_as_the_operator_wants() {
    let another_key = Who("t", "k9", Some("anna"));
    let check = |sharing, a: Who, b: Who, shared: bool| {
        let cache = cache(settings(sharing));
        let of = |who| pose(&cache, who, UNDO).site.partition;
        assert_eq!(of(a) == of(b), shared, "{sharing:?}");
    };
    check(Sharing::User, ANNA, another_key, true);
    check(Sharing::User, ANNA, BEN, false);
    check(Sharing::Key, ANNA, another_key, false);
    check(Sharing::Tenant, ANNA, BEN, true);
    check(Sharing::Tenant, ANNA, Who("u", "k1", Some("anna")), false);
}

#[test]
fn another_secret_has_other_names_for_everything() {
    let (one, other) = (Secrets::of(b"a"), Secrets::of(b"b"));
    let request = chat(UNDO, |_| ());
    let site = |secrets: &Secrets| {
        let (model, tags) = (model("1"), Tags::default());
        let models = Models { model: &model, embedder: "e@1" };
        Site::of(&request, (ANNA.asker(), Sharing::User, 0), models, (secrets, tags)).unwrap()
    };
    let (a, b) = (site(&one), site(&other));
    assert_ne!(a.partition, b.partition);
    assert_ne!(a.place, b.place);
    assert_ne!(a.wording, b.wording);
}

#[test]
fn nothing_that_is_kept_has_a_word_of_the_question() {
    let cache = cache(settings(Sharing::User));
    let site = pose(&cache, ANNA, "How do I configure the Frobnicator cluster?").site;
    let kept = postcard::to_allocvec(&(site.partition, site.place, &site.wording)).unwrap();
    let has = |word: &[u8]| kept.windows(word.len()).any(|w| w.eq_ignore_ascii_case(word));
    assert!(!has(b"frob") && !has(b"clus"));
}
