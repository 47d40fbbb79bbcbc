//! The semantic cache, end to end: a real edge with its embedder, before a pod that answers as told.

use serde_json::json;

use crate::support::{
    client::LIMIT,
    eventually,
    fake_pod::Act,
    process::{has_models, signal},
    semantic::{Rig, body, source},
};

const UNDO: &str = "How do I undo the last commit in git?";
/// The same to a reader, and another text to every exact cache.
const UNDO_TOO: &str = "how can i undo my last git commit";

fn answer(question: &str) -> String {
    format!("This is what there is to say about it: {}", question.to_lowercase().contains("commit"))
}

#[tokio::test]
async fn a_route_is_in_shadow_until_it_has_proved_itself_and_off_when_its_model_drifts() {
    if !has_models() {
        return;
    }
    let rig = Rig::start(answer, |_| {}).ready().await;
    rig.teach("dev", UNDO).await;
    let before = rig.ask("dev", UNDO_TOO, &[]).await;
    assert_eq!(source(&before), "origin", "nothing is proven yet");
    rig.prove("dev").await;
    let served = rig.ask("dev", "please, how can i undo my last git commit", &[]).await;
    assert_eq!(source(&served), "l3", "{}", rig.stats().await);
    assert_eq!(served.text(), served.text());
    assert!(
        served.header("cache-status").starts_with("nearhop; hit; ttl="),
        "{}",
        served.header("cache-status")
    );
    assert!(rig.edge.metric("nearhop_l3_serves").await == 1.0);

    // From now on every answer is another.
    let count = std::sync::atomic::AtomicUsize::new(0);
    rig.answers(move |_| {
        format!("Version {} of it.", count.fetch_add(1, std::sync::atomic::Ordering::Relaxed))
    });
    for _ in 0..6 {
        rig.teach("dev", "What does HTTP status code 418 stand for?").await;
    }
    let stats = rig.stats().await;
    assert_eq!(stats["routes"][0]["stage"], "off", "{stats}");
    let after = rig.ask("dev", "please, how can i undo my last git commit!", &[]).await;
    assert_eq!(source(&after), "origin");
    assert_eq!(rig.edge.metric("nearhop_l3_serves").await, 0.0);
    let events = rig.edge.admin("/events").await.to_string();
    assert!(events.contains("semantic_route") && events.contains("\"off\""), "{events}");

    // Until an operator begins its proof anew.
    let asked = json!({"tenant": "dev", "model": "fake"});
    assert_eq!(rig.edge.order("/cache/prove", &asked).await.json()["routes"], 1);
    assert!(rig.stats().await["routes"].as_array().unwrap().is_empty());
}

#[tokio::test]
async fn a_route_in_shadow_is_judged_and_never_serves() {
    if !has_models() {
        return;
    }
    let rig = Rig::start(answer, |l3| l3["routes"] = json!([{"mode": "shadow"}])).ready().await;
    rig.teach("dev", UNDO).await;
    rig.prove("dev").await;
    let answer = rig.ask("dev", UNDO_TOO, &[]).await;
    assert_eq!(source(&answer), "origin");
    assert_eq!(rig.stats().await["routes"][0]["mode"], "shadow");
}
