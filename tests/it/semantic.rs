//! The semantic cache, end to end: a real edge with its embedder, before a pod that answers as told.

use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Value, json};

use crate::support::{
    client::LIMIT,
    eventually,
    fake_pod::Act,
    process::{Edge, alive, has_models, signal},
    semantic::{Rig, body, commits, politely, source},
};

fn answer(question: &str) -> String {
    // What is asked of so many commits says so many.
    let number = question.split_whitespace().find_map(|word| word.parse::<u32>().ok());
    format!(
        "Reset the branch by {} commits and keep the changes in the index.",
        number.unwrap_or(1)
    )
}

fn drifting() -> impl Fn(&str) -> String + Send + 'static {
    let count = AtomicUsize::new(0);
    move |_| {
        format!(
            "This is version {} of what there is to say.",
            count.fetch_add(1, Ordering::Relaxed)
        )
    }
}

fn stage(stats: &Value, how: &str) -> String {
    stats["routes"][0][how]["stage"].as_str().unwrap_or("none").to_owned()
}

#[tokio::test]
async fn a_route_is_in_shadow_until_it_has_proved_itself_and_off_when_its_model_drifts() {
    if !has_models() {
        return;
    }
    // Half of what could be served is generated all the same: by that it is seen how the model drifts.
    let rig = Rig::start(answer, |l3| l3["explore"] = json!(0.5)).ready().await;
    rig.teach("dev", &commits(500)[0]).await;
    let before = rig.ask("dev", &commits(500)[1], &[]).await;
    assert_eq!(source(&before), "origin", "nothing is proven yet");
    rig.prove("dev").await;
    let mut numbers = 501..560;
    let (number, served) = loop {
        let number = numbers.next().expect("half of them are served");
        rig.teach("dev", &commits(number)[0]).await;
        let served = rig.ask("dev", &commits(number)[1], &[]).await;
        if source(&served) == "l3" {
            break (number, served);
        }
    };
    assert!(served.text().contains(&format!("by {number} commits")), "{}", served.text());
    let status = served.header("cache-status");
    assert!(
        status.starts_with("nearhop; hit; ttl=") && status.contains("\"l3 similar\""),
        "{status}"
    );
    let mut streamed = None;
    while streamed.is_none() {
        let number = numbers.next().expect("half of them are served");
        rig.teach("dev", &commits(number)[0]).await;
        let messages = body(&commits(number)[1])["messages"].clone();
        let asked = json!({"model": "fake", "stream": true, "messages": messages});
        let answer = rig.send("dev", &asked, &[]).await;
        streamed = (source(&answer) == "l3").then_some((number, answer));
    }
    let (number, streamed) = streamed.unwrap();
    let events = String::from_utf8(streamed.body.to_vec()).unwrap();
    let text = format!("by {number} commits");
    assert!(events.contains(&text) && events.ends_with("data: [DONE]\n\n"), "{events}");
    let serves = "nearhop_l3_serves{by=\"similar\",model=\"fake@1\",tenant=\"dev\"}";
    assert_eq!(rig.edge.metric(serves).await, 1.0);
    let other = rig.ask("dev", &commits(599)[1], &[]).await;
    assert_eq!(source(&other), "origin", "another number is another question");
    assert!(other.text().contains("by 599 commits"));

    // From now on every answer is another.
    rig.answers(drifting());
    let mut numbers = 600..660;
    while stage(&rig.stats().await, "similar") != "off" {
        let number = numbers.next().expect("half of them are compared");
        rig.teach("dev", &commits(number)[0]).await;
        rig.ask("dev", &commits(number)[1], &[]).await;
    }
    let number = numbers.next().expect("there are more");
    rig.teach("dev", &commits(number)[0]).await;
    for way in &commits(number)[1..] {
        assert_eq!(source(&rig.ask("dev", way, &[]).await), "origin", "it is off");
    }
    assert_eq!(rig.edge.metric(serves).await, -1.0);
    let events = rig.edge.admin("/events").await.to_string();
    assert!(events.contains("semantic_route") && events.contains("\"off\""), "{events}");

    // Until an operator begins its proof anew.
    let asked = json!({"tenant": "dev", "model": "fake"});
    assert_eq!(rig.edge.order("/cache/prove", &asked).await.json()["routes"], 1);
    assert!(rig.stats().await["routes"].as_array().unwrap().is_empty());
}

#[tokio::test]
async fn a_route_in_shadow_is_judged_and_never_serves_until_the_file_says_so() {
    if !has_models() {
        return;
    }
    let mut rig = Rig::start(answer, |l3| l3["routes"] = json!([{"mode": "shadow"}])).ready().await;
    rig.prove("dev").await;
    rig.teach("dev", &commits(501)[0]).await;
    assert_eq!(source(&rig.ask("dev", &commits(501)[1], &[]).await), "origin");
    assert_eq!(rig.stats().await["routes"][0]["mode"], "shadow");
    rig.edge.configure(|config| {
        config["edge"]["l3"]["routes"] = json!([{"tenant": "dev", "mode": "serve"}])
    });
    eventually("the route serves", LIMIT, || async {
        (rig.stats().await["routes"][0]["mode"] == "serve").then_some(())
    })
    .await;
    assert_eq!(source(&rig.ask("dev", &commits(501)[2], &[]).await), "l3");
    assert_eq!(rig.edge.admin("/config").await["needs_new_process"], json!([]));
}

#[tokio::test]
async fn what_one_user_was_told_no_other_is_and_no_other_tenant() {
    if !has_models() {
        return;
    }
    let rig = Rig::start(answer, |_| {}).ready().await;
    for key in ["anna-1", "ben", "other"] {
        rig.prove(key).await;
    }
    rig.teach("anna-1", &commits(501)[0]).await;
    for key in ["ben", "other", "dev"] {
        let asked = rig.ask(key, &commits(501)[1], &[]).await;
        assert_ne!(source(&asked), "l3", "{key}: {} {}", asked.text(), rig.stats().await);
    }
    let own = rig.ask("anna-2", &commits(501)[2], &[]).await;
    assert_eq!(source(&own), "l3", "another key of the same user");
}

#[tokio::test]
async fn a_client_may_want_it_closer_or_not_at_all() {
    if !has_models() {
        return;
    }
    let rig = Rig::start(answer, |_| {}).ready().await;
    rig.prove("dev").await;
    rig.teach("dev", &commits(501)[0]).await;
    let asked = |headers: &'static [(&'static str, &'static str)]| {
        let rig = &rig;
        async move { rig.ask("dev", &commits(501)[1], headers).await }
    };
    for wrong in [("x-nearhop-similarity", "near"), ("x-nearhop-similarity", "1.5")] {
        let refused = rig.ask("dev", &commits(501)[1], &[wrong]).await;
        assert_eq!(
            (refused.status.as_u16(), &refused.json()["error"]["param"]),
            (400, &json!("x-nearhop-similarity"))
        );
    }
    assert_eq!(source(&asked(&[("x-nearhop-similarity", "0.9999")]).await), "origin");
    // Its answer is in L1 now: another way to say it.
    let lower = rig.ask("dev", &commits(501)[2], &[("x-nearhop-similarity", "0.2")]).await;
    assert_eq!(source(&lower), "l3", "it can only be raised, and less is no error");
    let fresh =
        rig.ask("dev", &format!("{}!", commits(501)[2]), &[("cache-control", "no-store")]).await;
    assert_eq!(source(&fresh), "origin");
}

#[tokio::test]
async fn whatever_becomes_of_the_embedder_requests_are_answered() {
    if !has_models() {
        return;
    }
    let rig = Rig::start(answer, |l3| l3["patience"] = json!("30ms")).ready().await;
    rig.prove("dev").await;
    let pid = || async { rig.edge.admin("/local").await["pid"].as_u64() };
    let hung = pid().await.unwrap();
    signal(hung, "STOP");
    for n in 700..712 {
        let answer = rig.ask("dev", &commits(n)[0], &[]).await;
        assert_eq!((answer.status.as_u16(), source(&answer).as_str()), (200, "origin"));
        assert!(answer.text().contains(&format!("by {n} commits")), "{}", answer.text());
    }
    let late =
        rig.edge.metric("nearhop_cache_lookups_total{result=\"embedder-late\",tier=\"l3\"}").await;
    let open =
        rig.edge.metric("nearhop_cache_lookups_total{result=\"embedder-open\",tier=\"l3\"}").await;
    assert!(late >= 3.0 && open >= 1.0, "{late} {open}");
    signal(hung, "KILL");
    let answer = rig.ask("dev", &commits(720)[0], &[]).await;
    assert_eq!(answer.status, 200);
    let again = eventually("another embedder is ready", LIMIT, || async {
        let local = rig.edge.admin("/local").await;
        (local["ready"] == true && local["pid"] != hung).then(|| local["pid"].as_u64().unwrap())
    })
    .await;
    assert!(alive(again));
    // The same question needs none.
    let mut number = 730;
    eventually("lessons are learned again", LIMIT, || {
        number += 1;
        let rig = &rig;
        async move {
            let before = rig.stats().await["entries"].clone();
            rig.teach("dev", &commits(number)[0]).await;
            (rig.stats().await["entries"] != before).then_some(())
        }
    })
    .await;
    rig.prove_exact("dev").await;
    signal(again, "STOP");
    let same = rig.ask("dev", &politely(number), &[]).await;
    assert_eq!(source(&same), "l3", "{}", rig.stats().await);
    signal(again, "CONT");
}

#[tokio::test]
async fn when_nobody_answers_the_nearest_of_the_partition_does_and_says_so() {
    if !has_models() {
        return;
    }
    let rig = Rig::start(answer, |_| {}).ready().await;
    rig.teach("dev", &commits(501)[0]).await;
    rig.pod.act(Act::Status(500, "no"));
    let other = rig.ask("dev", &commits(502)[1], &[]).await;
    assert_ne!(other.status, 200, "another question has no answer");
    let similar = rig.ask("dev", &commits(501)[1], &[]).await;
    assert_eq!((similar.status.as_u16(), source(&similar).as_str()), (200, "cache_fallback"));
    assert!(similar.text().contains("by 501 commits"));
    let elsewhere = rig.ask("ben", &commits(501)[1], &[]).await;
    assert_ne!(elsewhere.status, 200);
}

#[tokio::test]
async fn at_the_first_level_of_degradation_nothing_is_looked_up() {
    if !has_models() {
        return;
    }
    let rig = Rig::start(answer, |_| {}).ready().await;
    rig.prove("dev").await;
    rig.teach("dev", &commits(501)[0]).await;
    let forced = rig.edge.put("/ladder", r#"{"level": "L1"}"#).await;
    assert_eq!(forced.status, 200, "{}", forced.text());
    eventually("the level is L1", LIMIT, || async {
        (rig.edge.metric("nearhop_level").await == 1.0).then_some(())
    })
    .await;
    let asked = rig.ask("dev", &commits(501)[1], &[]).await;
    assert_eq!(source(&asked), "origin");
    assert_eq!(
        rig.edge.metric("nearhop_cache_lookups_total{result=\"level\",tier=\"l3\"}").await,
        1.0
    );
}

#[tokio::test]
async fn a_users_answers_are_dropped_by_name_and_do_not_come_back_with_the_next_process() {
    if !has_models() {
        return;
    }
    let rig = Rig::with(answer, |config, folder| {
        config["edge"]["l3"]["snapshot"] = json!(folder.join("l3.snapshot"));
        config["edge"]["l3"]["secret"] = json!("0123456789abcdef0123456789abcdef");
    })
    .ready()
    .await;
    rig.prove("anna-1").await;
    rig.teach("anna-1", &commits(501)[0]).await;
    rig.teach("ben", &commits(502)[0]).await;
    let entries = rig.stats().await["entries"].as_u64().unwrap();
    let purged =
        rig.edge.order("/cache/purge", &json!({"tenant": "dev", "user": "anna"})).await.json();
    assert_eq!(purged["l3_entries"].as_u64().unwrap(), entries - 1, "{purged}");
    assert_eq!(rig.stats().await["entries"], 1);
    let (pod, answering) = (&rig.pod, &rig.edge);
    let snapshot = answering.folder().join("l3.snapshot");
    // A crash: nothing is written any more.
    signal(answering.pid(), "KILL");
    let next = Edge::with(&[pod.address], |config, _| {
        rig.configure(config);
        config["edge"]["l3"]["snapshot"] = json!(snapshot);
        config["edge"]["l3"]["secret"] = json!("0123456789abcdef0123456789abcdef");
    });
    let l3 = next.admin("/cache").await["l3"].clone();
    assert_eq!(l3["entries"], 1, "Ben's is there, Anna's is not: {l3}");
    assert_eq!(stage(&l3, "similar"), "proven", "and what the route has shown: {l3}");
}

#[tokio::test]
async fn an_owner_is_told_what_is_near_and_which_word_speaks_against_it() {
    if !has_models() {
        return;
    }
    let rig = Rig::start(answer, |_| {}).ready().await;
    rig.prove("anna-1").await;
    rig.teach("anna-1", &commits(501)[0]).await;
    let ask = async |key: &str, user: Value, question: &str| {
        let asked = json!({
            "tenant": "dev", "key": key, "user": user,
            "path": "/v1/chat/completions", "request": body(question),
        });
        rig.edge.order("/cache/explain", &asked).await.json()
    };
    // Whose the key is stands in the file.
    let explain =
        async |question: String| ask("anna-1", Value::Null, &question).await["l3"].clone();
    let near = explain(commits(501)[1].clone()).await;
    assert_eq!(near["verdict"], "the nearest answers", "{near}");
    let first = &near["neighbours"][0];
    assert!(first["similarity"].as_f64().unwrap() >= 0.97 && first["veto"].is_null(), "{near}");
    let other = explain(commits(502)[0].clone()).await;
    let first = &other["neighbours"][0];
    assert_eq!((&first["veto"], &first["lacks"]), (&json!("numbers"), &json!(["502"])), "{other}");
    let ben = ask("anna-1", json!("ben"), &commits(501)[1]).await["l3"].clone();
    assert_eq!(ben["neighbours"], json!([]), "{ben}");
    let nobody = ask("ann-1", Value::Null, &commits(501)[1]).await["error"].clone();
    assert_eq!(nobody["param"], "key", "{nobody}");
    let proving = explain(politely(501)).await;
    assert_eq!(proving["verdict"], "the same question was answered, but the route is proving");
    let no_question = explain("What does it print now?".to_owned()).await;
    assert_eq!(no_question["verdict"], "volatile", "{no_question}");
}

#[tokio::test]
async fn the_same_question_and_one_alike_prove_themselves_apart() {
    if !has_models() {
        return;
    }
    let rig = Rig::start(answer, |_| {}).ready().await;
    rig.prove("dev").await;
    rig.teach("dev", &commits(501)[0]).await;
    assert_eq!(source(&rig.ask("dev", &commits(501)[1], &[]).await), "l3");
    assert_eq!(source(&rig.ask("dev", &politely(501), &[]).await), "origin", "not proven yet");
    rig.prove_exact("dev").await;
    rig.teach("dev", &commits(502)[0]).await;
    assert_eq!(source(&rig.ask("dev", &politely(502), &[]).await), "l3");
}

#[tokio::test]
async fn what_is_forced_or_asked_over_and_over_proves_nothing() {
    if !has_models() {
        return;
    }
    let rig = Rig::start(answer, |_| {}).ready().await;
    rig.teach("dev", &commits(501)[0]).await;
    for _ in 0..40 {
        let forced = rig.ask("dev", &commits(501)[1], &[("cache-control", "no-cache")]).await;
        assert_eq!(forced.status, 200);
    }
    eventually("all is learned", LIMIT, || async {
        let judged = rig.edge.metric("nearhop_l3_judged_total").await;
        (judged >= 35.0).then_some(())
    })
    .await;
    assert_eq!(rig.stats().await["routes"], json!([]), "no route was shown anything");
}

/// With a judge, what looks alike is left to it; and what it is asked is not learned from.
#[tokio::test]
async fn a_judge_decides_where_texts_differ() {
    if !has_models() {
        return;
    }
    let says = |question: &str| match question.starts_with('{') {
        true => "NO".to_owned(),
        false => {
            format!("{} {}", answer(question), "Mind what you do. ".repeat(20 + question.len() % 2))
        }
    };
    let rig = Rig::start(says, |l3| l3["judge"] = json!({"model": "fake"})).ready().await;
    assert_eq!(rig.stats().await["problem"], Value::Null);
    rig.teach("dev", &commits(501)[0]).await;
    rig.teach("dev", &commits(501)[1]).await;
    let judged =
        "nearhop_l3_judged_total{by=\"similar\",model=\"fake@1\",result=\"wrong\",tenant=\"dev\"}";
    assert_eq!(rig.edge.metric(judged).await, 1.0);
    assert_eq!(rig.stats().await["entries"], 2, "what the judge was asked is not kept");
}

#[tokio::test]
async fn a_judge_that_nobody_serves_is_told_and_nothing_that_differs_is_kept() {
    if !has_models() {
        return;
    }
    let rig = Rig::start(answer, |l3| l3["judge"] = json!({"model": "fak"})).ready().await;
    rig.teach("dev", &commits(501)[0]).await;
    // The same answer needs no judge.
    rig.teach("dev", &commits(501)[1]).await;
    rig.answers(|_| "Something else.".to_owned());
    rig.teach("dev", &commits(501)[2]).await;
    let stats = rig.stats().await;
    assert_eq!((&stats["entries"], &stats["untold"]), (&json!(2), &json!(1)), "{stats}");
    assert_eq!(stats["problem"], "no pod of this region serves fak, edge.l3.judge.model");
}

#[tokio::test]
async fn what_a_conversation_was_about_is_part_of_its_question() {
    if !has_models() {
        return;
    }
    let rig = Rig::start(answer, |_| {}).ready().await;
    rig.prove("dev").await;
    rig.teach("dev", &commits(501)[0]).await;
    let turns = json!([
        {"role": "user", "content": "We use Mercurial here."},
        {"role": "assistant", "content": "Fine."},
        {"role": "user", "content": commits(501)[1]},
    ]);
    let asked = rig.send("dev", &json!({"model": "fake", "messages": turns}), &[]).await;
    assert_eq!(source(&asked), "origin");
    let system = json!([{"role": "system", "content": "Answer in verse."}, {"role": "user", "content": commits(501)[1]}]);
    let asked = rig.send("dev", &json!({"model": "fake", "messages": system}), &[]).await;
    assert_eq!(source(&asked), "origin");
    let tools = json!([{"type": "function", "function": {"name": "f"}}]);
    let with_tools =
        json!({"model": "fake", "messages": body(&commits(501)[1])["messages"], "tools": tools});
    let asked = rig.send("dev", &with_tools, &[]).await;
    assert_eq!(source(&asked), "origin");
}
