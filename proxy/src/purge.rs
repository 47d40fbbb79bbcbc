//! Purges: from this edge's cache at once, and from its pods.

use std::{sync::Arc, time::Duration};

use nearhop_admin::clock;
use nearhop_admission::Directory;
use nearhop_edge_cache::{Purge, TagKind, l2::Published};
use nearhop_routing::Class;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use tokio::time::timeout;

use crate::{
    phase::Shared,
    semantic::{self, Semantic},
};

/// What an operator asks to purge: a tenant, what has one tag, or with `everything` all there is.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Wanted {
    pub(crate) tenant: Option<String>,
    repo: Option<String>,
    session: Option<String>,
    file_hash: Option<String>,
    key: Option<String>,
    user: Option<String>,
    model: Option<String>,
    #[serde(default)]
    everything: bool,
}

/// A pod that does not take a purge within that is told of, and asked no more.
const POD_WITHIN: Duration = Duration::from_secs(2);

impl Wanted {
    /// What that is, checked.
    ///
    /// # Errors
    /// What to send instead.
    pub(crate) fn purge(&self, shared: &Shared) -> Result<Purge, String> {
        let tags = [
            (TagKind::Repo, &self.repo),
            (TagKind::Session, &self.session),
            (TagKind::FileHash, &self.file_hash),
            (TagKind::Key, &self.key),
            (TagKind::User, &self.user),
            (TagKind::Model, &self.model),
        ];
        let mut tags = tags.iter().filter_map(|(kind, value)| Some((*kind, value.as_deref()?)));
        let tag = tags.next();
        if tags.next().is_some() {
            return Err(
                "name one of repo, session, file_hash, key, user and model; several are several \
                        purges"
                    .to_owned(),
            );
        }
        let tenant = self.tenant.as_deref();
        match (tenant.is_none() && tag.is_none(), self.everything) {
            (true, false) => {
                return Err("name a tenant, or a tenant with a repo, session, file_hash, key or user, or a \
                            model as name@revision; {\"everything\": true} purges all there is"
                    .to_owned());
            }
            (false, true) => return Err("everything stands alone".to_owned()),
            _ if tenant.is_some() && self.model.is_some() => {
                return Err("a model is everybody's: name no tenant beside it".to_owned());
            }
            _ => {}
        }
        Purge::named(tenant, tag, &shared.namer).map_err(|error| error.to_string())
    }

    /// The tenant, key or user that nobody here has by this name: data of a former one is purged
    /// so, and a slip of the pen looks the same.
    fn unknown(&self, directory: &Directory) -> Option<(&'static str, &str)> {
        let tenant = self.tenant.as_deref()?;
        if !directory.knows_tenant(tenant) {
            return Some(("tenant", tenant));
        }
        let knows_key =
            |key: &str| directory.takes_tokens() || directory.holder(tenant, key).is_some();
        let key = self.key.as_deref().filter(|key| !knows_key(key));
        let user = self.user.as_deref().filter(|user| !directory.knows_user(tenant, user));
        key.map(|key| ("key", key)).or(user.map(|user| ("user", user)))
    }

    /// What pods are told: they know tenants and models only, and drop rather too much.
    fn for_pods(&self) -> Value {
        let tenant = self.tenant.as_ref().map(|tenant| ("tenant", tenant.as_str()));
        let model = self.model.as_deref().map(|model| model.split('@').next().unwrap_or(model));
        let parts = tenant.into_iter().chain(model.map(|model| ("model", model)));
        Value::Object(parts.map(|(name, value)| (name.to_owned(), json!(value))).collect())
    }
}

/// Purges, and says what became of it where.
pub(crate) async fn purge(shared: &Arc<Shared>, wanted: &Wanted) -> Result<Value, String> {
    let purge = wanted.purge(shared)?;
    let published = match &shared.l2 {
        Some(l2) => Some(l2.publish(&purge).await),
        None => None,
    };
    let now = clock::since_epoch();
    let cluster = match published {
        Some(Published::Done { generation, replicas }) => {
            if generation <= shared.validity.generation() {
                // The log counts behind what this process has seen.
                shared.validity.purge(purge.clone(), now);
            }
            shared.validity.learn(purge.clone(), generation, now);
            json!({ "state": "done", "replicas": replicas })
        }
        other => {
            shared.validity.purge(purge.clone(), now);
            match other {
                None => Value::Null,
                Some(Published::Refused) => json!({ "state": "refused", "why": TOO_MANY }),
                Some(_) => json!({ "state": "pending", "why": PENDING }),
            }
        }
    };
    let dropped = sweep(shared).await;
    let pods = tell_pods(shared, &wanted.for_pods()).await;
    let region = semantic::purge_region(shared, &purge).await;
    tracing::info!(?purge, dropped.l1, dropped.l3, "purged");
    let live = shared.live.load();
    let unknown = wanted.unknown(&live.directory).map(|(kind, name)| json!({ kind: name }));
    Ok(json!({
        "l1_entries": dropped.l1, "l3_entries": dropped.l3, "cluster": cluster, "region": region,
        "pods": pods, "unknown": unknown,
    }))
}

const PENDING: &str =
    "Redis does not answer; what is there is dropped, and other edges learn of it, when it does";
const TOO_MANY: &str = "Redis does not answer, and too many purges wait for it already";

/// Entries that were dropped.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Swept {
    pub(crate) l1: usize,
    pub(crate) l3: usize,
}

/// Drops what was purged from this process. A sweep looks at every entry: not on a thread that
/// answers.
pub(crate) async fn sweep(shared: &Arc<Shared>) -> Swept {
    let shared = Arc::clone(shared);
    let swept = tokio::task::spawn_blocking(move || {
        let semantic = shared.l3.as_ref().map_or(0, Semantic::purge);
        if let Some(semantic) = &shared.l3 {
            semantic.show(&shared);
        }
        Swept { l1: shared.l1.sweep(clock::since_epoch()), l3: semantic }
    });
    swept.await.unwrap_or_default()
}

async fn tell_pods(shared: &Arc<Shared>, what: &Value) -> Map<String, Value> {
    let mut telling = tokio::task::JoinSet::new();
    // The edge's own pod has prompts as well.
    let of = |class| shared.upstreams.of(class).into_iter();
    for pod in of(Class::Pod).chain(of(Class::Local)) {
        let (shared, what) = (Arc::clone(shared), what.clone());
        telling.spawn(async move {
            let told = timeout(POD_WITHIN, shared.exchanges.purge(&pod, &what)).await;
            let late = |_elapsed| Err(format!("no answer within {} s", POD_WITHIN.as_secs()));
            let said = match told.unwrap_or_else(late) {
                Ok(body) => serde_json::from_slice(&body).unwrap_or(Value::Null),
                Err(error) => json!({ "error": error }),
            };
            (pod.name.clone(), said)
        });
    }
    telling.join_all().await.into_iter().collect()
}
