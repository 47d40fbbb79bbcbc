//! Deleting everything of a tenant, node by node, in small batches.

use std::{sync::Arc, time::Duration};

use redis::{Pipeline, Value};
use tokio::time::Instant;

use super::{
    Cluster,
    entries::{Tenant, bytes, hex},
    node::Node,
    route::unexpected,
    settings::Trouble,
};

/// Keys that a node looks at in one go: well under a millisecond of its time.
const LOOKED_AT: usize = 512;
/// For one batch: sweeping is no request's work.
const BATCH_LIMIT: Duration = Duration::from_millis(500);

/// What a sweep did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Swept {
    /// So many places are gone.
    pub removed: u64,
    /// Why some may be left: sweep again. None if everything was looked at.
    pub unfinished: Option<Trouble>,
}

impl Cluster {
    /// Deletes a tenant's entries on every master, for at most `limit`. What is written meanwhile may stay.
    pub async fn sweep(&self, tenant: Tenant, limit: Duration) -> Swept {
        let deadline = Instant::from_std(nearhop_admin::clock::now() + limit);
        let pattern = format!("{}:{}:*", self.inner.prefix, hex(&tenant.0));
        let before = self.inner.map.load_full();
        let masters: Vec<Arc<Node>> =
            before.masters().into_iter().map(|(node, _)| Arc::clone(node)).collect();
        let mut swept = Swept { removed: 0, unfinished: None };
        if masters.is_empty() {
            swept.unfinished =
                Some(self.inner.owner(pattern.as_bytes()).err().unwrap_or(Trouble::Late));
        }
        for node in masters {
            // One that fails does not keep the others from being swept.
            if let Err(trouble) =
                self.sweep_node(&node, &pattern, deadline, &mut swept.removed).await
            {
                swept.unfinished.get_or_insert(trouble);
            }
        }
        if !before.same_owners(&self.inner.map.load()) {
            let moved = "slots moved meanwhile".to_owned();
            swept.unfinished.get_or_insert(Trouble::Failed(moved));
        }
        swept
    }

    async fn sweep_node(
        &self,
        node: &Arc<Node>,
        pattern: &str,
        deadline: Instant,
        removed: &mut u64,
    ) -> Result<(), Trouble> {
        let mut cursor = b"0".to_vec();
        loop {
            let mut scan = Pipeline::new();
            scan.cmd("SCAN").arg(&cursor).arg("MATCH").arg(pattern).arg("COUNT").arg(LOOKED_AT);
            let answers = self.ask_node(node, &scan, deadline).await?;
            let Some(Value::Array(parts)) = answers.into_iter().next() else {
                return Err(unexpected());
            };
            let mut parts = parts.into_iter();
            cursor = bytes(parts.next().unwrap_or_default())?.to_vec();
            let Some(Value::Array(keys)) = parts.next() else { return Err(unexpected()) };
            if !keys.is_empty() {
                // One command a key: they are in different slots.
                let mut unlink = Pipeline::new();
                for key in keys {
                    unlink.cmd("UNLINK").arg(&bytes(key)?[..]);
                }
                for answer in self.ask_node(node, &unlink, deadline).await? {
                    if let Value::Int(gone) = answer {
                        *removed += u64::try_from(gone).unwrap_or(0);
                    }
                }
            }
            if cursor == b"0" {
                return Ok(());
            }
        }
    }

    async fn ask_node(
        &self,
        node: &Arc<Node>,
        commands: &Pipeline,
        deadline: Instant,
    ) -> Result<Vec<Value>, Trouble> {
        let now = Instant::from_std(nearhop_admin::clock::now());
        if now >= deadline {
            return Err(Trouble::Late);
        }
        let (answers, asked) = node.send(commands, deadline.min(now + BATCH_LIMIT)).await?;
        self.inner.judge(answers, asked)
    }
}
