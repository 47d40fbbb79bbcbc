//! The operator's routes over counting networks.

use axum::{
    body::{Body, to_bytes},
    http::Request,
};
use nearhop_admin::{Metrics, clock};
use nearhop_conf::OriginModel;
use tower_service::Service as _;

use super::*;
use crate::{
    prefix::Salt,
    queue::tests::job,
    registry::tests::{FakeOpener, copy, tiny},
};

struct Rig {
    router: Router,
    registry: Arc<Registry>,
    folder: tempfile::TempDir,
}

impl Rig {
    fn start() -> Self {
        let opener = FakeOpener::new(&Metrics::default());
        let models = [OriginModel { folder: tiny(), aliases: vec!["default".into()] }];
        let registry = Arc::new(Registry::start(Arc::new(opener), &models).unwrap());
        let router = router(Arc::clone(&registry));
        Self { router, registry, folder: tempfile::tempdir().unwrap() }
    }

    async fn call(&self, method: &str, path: &str, body: Value) -> (StatusCode, Value) {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("content-type", "application/json")
            .body(Body::from(body.to_string()))
            .unwrap();
        let response = self.router.clone().call(request).await.unwrap();
        let status = response.status();
        let body = to_bytes(response.into_body(), 1 << 20).await.unwrap();
        (status, serde_json::from_slice(&body).unwrap())
    }

    async fn post(&self, path: &str, body: Value) -> (StatusCode, Value) {
        self.call("POST", path, body).await
    }
}

/// `name@revision`, and whether it is active.
fn models(body: &Value) -> Vec<(String, bool)> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let models = body["models"].as_array().unwrap().iter();
    models
        .map(|model| {
            let name = format!("{}@{}", text(&model["name"]), text(&model["revision"]));
            (name, model["active"].as_bool().unwrap())
        })
        .collect()
}

#[tokio::test]
async fn a_rollout_and_its_way_back() {
    let rig = Rig::start();
    let second = copy(rig.folder.path(), "tiny", "2");
    let load = json!({"folder": second, "activate": false});
    let (status, body) = rig.post("/models", load).await;
    assert_eq!(status, StatusCode::OK, "{body}");
    assert_eq!(models(&body), [("tiny@1".into(), true), ("tiny@2".into(), false)]);
    let (_, body) = rig.post("/models/tiny/activate", json!({"revision": "2", "keep": true})).await;
    assert_eq!(models(&body), [("tiny@2".into(), true), ("tiny@1".into(), false)]);
    let (_, body) = rig.call("DELETE", "/models/tiny/revisions/1", json!({})).await;
    assert_eq!(models(&body), [("tiny@2".into(), true)]);
    let (status, body) = rig.post("/models/tiny/rollback", json!({})).await;
    assert_eq!((status, models(&body)), (StatusCode::OK, vec![("tiny@1".into(), true)]));
    assert_eq!(body["models"][0]["aliases"], json!(["default"]));
    assert_eq!(rig.call("GET", "/models", json!({})).await.1, body);
}

#[tokio::test]
async fn what_cannot_be_done_changes_nothing_and_says_why() {
    let rig = Rig::start();
    let check = async |method: &str, path: &str, body: Value, status: u16, word: &str| {
        let (got, body) = rig.call(method, path, body).await;
        let message = body["error"]["message"].as_str().unwrap().to_owned();
        assert_eq!(got.as_u16(), status, "{message}");
        assert!(message.contains(word), "`{word}` is not in: {message}");
    };
    check("POST", "/models", json!({"folder": "/nowhere"}), 422, "/nowhere").await;
    check("POST", "/models", json!({"fodler": "/nowhere"}), 400, "fodler").await;
    check("POST", "/models", json!({"folder": tiny()}), 409, "loaded already").await;
    check("POST", "/models/other/rollback", json!({}), 404, "`other`").await;
    check("POST", "/models/tiny/activate", json!({"revision": "9"}), 404, "there is 1").await;
    check("DELETE", "/models/tiny/revisions/1", json!({}), 409, "active").await;
    check("PUT", "/aliases/x", json!({"model": "other"}), 404, "`other`").await;
    assert_eq!(models(&rig.call("GET", "/models", json!({})).await.1), [("tiny@1".into(), true)]);
}

#[tokio::test]
async fn cached_prefixes_are_dropped_by_tenant_by_prompt_or_all() {
    let rig = Rig::start();
    let text = "fn main() { println!(\"one\"); }\n".repeat(6);
    let request = json!({"prompt": text, "max_tokens": 1});
    let served = rig.registry.table().find(None).unwrap();
    let Runner::Generate(engine) = &served.runner else { panic!("it generates") };
    let tokens = prompt(&served, request.clone()).unwrap();
    let blocks = tokens.len() / 16;
    let fill = async |tenant: &str| {
        let tenant: Arc<str> = tenant.into();
        let report = served.report();
        let salt = Salt::new(&tenant, &report.revision, &report.template);
        let job = crate::queue::Job { tenant, salt, ..job(&tokens, 1, 1) };
        let mut events = engine.entrance.submit(job, clock::now()).unwrap();
        while events.recv().await.is_some() {}
    };
    let purge = async |body: Value| {
        rig.post("/prefix-cache/purge", body).await.1["dropped_blocks"].as_u64().unwrap()
    };
    let blocks = blocks as u64;
    fill("a").await;
    fill("b").await;
    assert_eq!(purge(json!({"tenant": "c"})).await, 0);
    assert_eq!(purge(json!({"tenant": "a"})).await, blocks);
    assert_eq!(purge(json!({"tenant": "a", "request": request})).await, 0, "it is gone");
    assert_eq!(purge(json!({"tenant": "b", "request": request})).await, 1, "the last block");
    assert_eq!(purge(json!({"model": "tiny"})).await, blocks - 1);
    fill("a").await;
    fill("b").await;
    assert_eq!(purge(json!({"request": request})).await, 2, "the last block of each tenant");
    let mut other = request.clone();
    other["model"] = json!("other");
    let short = json!({"prompt": "fn", "max_tokens": 1});
    for (what, status, word) in [(other, 404, "other"), (short, 400, "blocks of 16")] {
        let (got, body) = rig.post("/prefix-cache/purge", json!({"request": what})).await;
        assert_eq!(got.as_u16(), status, "{body}");
        assert!(body.to_string().contains(word), "{body}");
    }
    assert_eq!(purge(json!({})).await, 2 * (blocks - 1), "the others stayed");
    let (status, _) = rig.post("/prefix-cache/purge", json!({"model": "other"})).await;
    assert_eq!(status, StatusCode::NOT_FOUND);
}
