//! An edge with a semantic cache, before a pod that answers questions as it is told.

use std::{
    path::Path,
    sync::{Arc, Mutex},
};

use serde_json::{Value, json};

use super::{
    client::{LIMIT, Whole, request, send},
    eventually,
    fake_pod::{Act, FakePod, Reply, Script},
    process::{Edge, key, root},
};

type Answering = Box<dyn Fn(&str) -> String + Send>;

pub(crate) struct Rig {
    pub(crate) pod: FakePod,
    pub(crate) edge: Edge,
    answering: Arc<Mutex<Answering>>,
}

/// What comes after the tenant in a key's name: `nh-NAME` is its secret.
const KEYS: [(&str, &str, Option<&str>); 5] = [
    ("dev", "dev", None),
    ("anna-1", "dev", Some("anna")),
    ("anna-2", "dev", Some("anna")),
    ("ben", "dev", Some("ben")),
    ("other", "other", None),
];

impl Rig {
    /// The pod says `answer` to the last message of a conversation; `change` may alter `edge.l3`.
    pub(crate) fn start(
        answer: impl Fn(&str) -> String + Send + 'static,
        change: impl FnOnce(&mut Value),
    ) -> Self {
        Self::with(answer, |config, _| change(&mut config["edge"]["l3"]))
    }

    /// `change` may alter the whole file.
    pub(crate) fn with(
        answer: impl Fn(&str) -> String + Send + 'static,
        change: impl FnOnce(&mut Value, &Path),
    ) -> Self {
        let answering: Arc<Mutex<Answering>> = Arc::new(Mutex::new(Box::new(answer)));
        let says = Arc::clone(&answering);
        let pod = FakePod::start(Act::Script(Script::new(move |body| {
            let last = body["messages"].as_array().and_then(|messages| messages.last());
            let asked = last.and_then(|last| last["content"].as_str()).unwrap_or_default();
            Reply { text: says.lock().unwrap()(asked), finish: "stop" }
        })));
        let edge = Edge::with(&[pod.address], |config, folder| {
            configure(config);
            change(config, folder);
        });
        Self { pod, edge, answering }
    }

    /// What another edge of the same kind is configured with.
    pub(crate) fn configure(&self, config: &mut Value) {
        configure(config);
    }

    /// The pod says something else from now on.
    pub(crate) fn answers(&self, answer: impl Fn(&str) -> String + Send + 'static) {
        *self.answering.lock().unwrap() = Box::new(answer);
    }

    /// Where the edge's own pod listens, once it is ready.
    pub(crate) async fn embedder(&self) -> String {
        eventually("the embedder is ready", LIMIT, || async {
            let local = self.edge.admin("/local").await;
            (local["ready"] == true).then(|| local["listen"].as_str().unwrap().to_owned())
        })
        .await
    }

    /// Once the edge knows of its embedder.
    pub(crate) async fn ready(self) -> Self {
        self.embedder().await;
        let ask = json!({"tenant": "dev", "key": "dev", "path": "/v1/chat/completions", "request": body("Which embedder is known to the edge?")});
        eventually("the embedder is known", LIMIT, || async {
            let said = self.edge.order("/cache/explain", &ask).await;
            said.json()["l3"]["embedder"].is_string().then_some(())
        })
        .await;
        self
    }

    /// Asks, with that key and these headers.
    pub(crate) async fn ask(&self, key: &str, question: &str, headers: &[(&str, &str)]) -> Whole {
        self.send(key, &body(question), headers).await
    }

    pub(crate) async fn send(&self, key: &str, body: &Value, headers: &[(&str, &str)]) -> Whole {
        let mut request = request("/v1/chat/completions", body, headers);
        let bearer = format!("Bearer nh-{key}").parse().unwrap();
        request.headers_mut().insert("authorization", bearer);
        send(&self.edge.address, request).await.unwrap().whole().await.unwrap()
    }

    /// Asks what was not asked before, and waits until that was learned from.
    pub(crate) async fn teach(&self, key: &str, question: &str) -> Whole {
        let before = self.learned().await;
        let answer = self.ask(key, question, &[]).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        eventually("the answer is learned from", LIMIT, || async {
            (self.learned().await > before).then_some(())
        })
        .await;
        answer
    }

    async fn learned(&self) -> f64 {
        let page = super::client::get(&self.edge.admin, "/metrics", &[]).await.unwrap();
        let page = String::from_utf8(page.body.to_vec()).unwrap();
        let of = |line: &&str| {
            line.starts_with("nearhop_cache_stores_total{") && line.contains("tier=\"l3\"")
        };
        page.lines().filter(of).map(|l| l.rsplit_once(' ').unwrap().1.parse::<f64>().unwrap()).sum()
    }

    /// Proves the route of a key's tenant, with questions that are always answered alike.
    pub(crate) async fn prove(&self, key: &str) {
        self.prove_with(key, 10).await;
    }

    /// The same with others, from that number on: where edges share answers, each has to be asked its own.
    pub(crate) async fn prove_with(&self, key: &str, first: u32) {
        let mut numbers = first..first + 50;
        while !self.is_proven(key, "similar").await {
            let n = numbers.next().expect("it is proven by now");
            self.teach(key, &commits(n)[0]).await;
            self.teach(key, &commits(n)[1]).await;
        }
    }

    /// Proves that the same questions, politely, have the same answers; after [`Self::prove`].
    pub(crate) async fn prove_exact(&self, key: &str) {
        let mut numbers = 10..60;
        while !self.is_proven(key, "exact").await {
            self.teach(key, &politely(numbers.next().expect("it is proven by now"))).await;
        }
    }

    async fn is_proven(&self, key: &str, how: &str) -> bool {
        let (_, tenant, _) = KEYS.iter().find(|(name, ..)| *name == key).unwrap();
        let stats = self.stats().await;
        let routes = stats["routes"].as_array().unwrap();
        routes.iter().any(|of| of["tenant"] == *tenant && of[how]["stage"] == "proven")
    }

    /// What the cache says of the tier.
    pub(crate) async fn stats(&self) -> Value {
        self.edge.admin("/cache").await["l3"].clone()
    }
}

fn configure(config: &mut Value) {
    config["access"]["keys"] = KEYS
        .iter()
        .map(|(name, tenant, user)| {
            let mut key = key(name, tenant, &format!("nh-{name}"));
            if let Some(user) = user {
                key["user"] = json!(user);
            }
            key
        })
        .collect();
    config["origin"] = json!({
        "listen": "127.0.0.1:1",
        "admin": {"listen": "127.0.0.1:2"},
        "models": [{"folder": root().join(".models/all-minilm-l6-v2"), "aliases": ["embed"]}],
    });
    config["edge"]["local"] = json!({"roles": ["embed"]});
    config["edge"]["l3"] = json!({
        "embedder": "embed",
        "routes": [{"mode": "serve"}],
        // Tests do not depend on speed, and prove a route with few questions.
        "patience": "1s", "judged": 20, "wrong": 0.13, "explore": 0.000_001,
    });
}

/// A question in three ways that embed nearly alike and mean the same, and that the same number alone
/// answers.
pub(crate) fn commits(number: u32) -> [String; 3] {
    [
        format!("How do I undo the last {number} commits in git?"),
        format!("How can I undo the last {number} commits in git?"),
        format!("how to undo the last {number} commits in Git"),
    ]
}

/// The first of them, with courtesy: the same question.
pub(crate) fn politely(number: u32) -> String {
    format!("Please, how do I undo the last {number} commits in git")
}

pub(crate) fn body(question: &str) -> Value {
    json!({"model": "fake", "messages": [{"role": "user", "content": question}]})
}

/// Where an answer came from.
pub(crate) fn source(answer: &Whole) -> String {
    answer.header("x-nearhop-source").to_owned()
}
