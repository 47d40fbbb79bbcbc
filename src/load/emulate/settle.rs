//! A world is ready when everybody sees everybody: while nodes start, those that run already see that
//! others do not.

use std::time::Duration;

use anyhow::bail;
use nearhop_admin::{Question, Trust, clock, fetch};
use serde_json::Value;
use tokio::time::sleep;

use super::running::Running;

const PATIENCE: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(100);
const ANSWER: Duration = Duration::from_secs(2);
const ANSWER_MAX: usize = 1 << 20;

/// Waits until DNS servers know that all regions are up, and edges that their pods and each other are.
pub(super) async fn everybody_sees_everybody(running: &Running) -> anyhow::Result<()> {
    let (world, token) = (running.world(), &running.material().admin_token);
    let regions_up =
        |known: &[Value]| !known.is_empty() && known.iter().all(|region| region["health"] == "up");
    let (edges, upstreams) = world.edge_admins();
    let upstreams_ready = |known: &[Value]| {
        known.len() == upstreams && known.iter().all(|upstream| upstream["ready"] == true)
    };
    for admin in world.dns_admins() {
        until(&format!("http://{admin}/admin/v1/regions"), token, regions_up).await?;
    }
    for admin in edges {
        until(&format!("http://{admin}/admin/v1/upstreams"), token, upstreams_ready).await?;
    }
    Ok(())
}

async fn until(url: &str, token: &str, holds: impl Fn(&[Value]) -> bool) -> anyhow::Result<()> {
    let deadline = clock::now() + PATIENCE;
    while !holds(&list(url, token).await) {
        if clock::now() > deadline {
            bail!("after {PATIENCE:?} not all is well by {url}; is this machine too busy?");
        }
        sleep(PAUSE).await;
    }
    Ok(())
}

/// What is said there; nothing, where nothing is.
async fn list(url: &str, token: &str) -> Vec<Value> {
    let question = Question {
        url,
        host: None,
        trust: Trust::System,
        body: None,
        bearer: Some(token),
        limit: ANSWER_MAX,
        within: ANSWER,
    };
    let answer = fetch(question).await;
    answer.ok().and_then(|answer| serde_json::from_slice(&answer).ok()).unwrap_or_default()
}
