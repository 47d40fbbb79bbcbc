//! A world is ready when its DNS servers know that all regions are up: while nodes start, those that
//! run already see that others do not.

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

pub(super) async fn all_regions_are_up(running: &Running) -> anyhow::Result<()> {
    let token = &running.material().admin_token;
    let deadline = clock::now() + PATIENCE;
    for admin in running.world().dns_admins() {
        while !knows_all_up(&admin, token).await {
            if clock::now() > deadline {
                bail!(
                    "{admin} does not see all regions up after {PATIENCE:?}; is this machine too busy?"
                );
            }
            sleep(PAUSE).await;
        }
    }
    Ok(())
}

async fn knows_all_up(admin: &str, token: &str) -> bool {
    let url = format!("http://{admin}/admin/v1/regions");
    let question = Question {
        url: &url,
        host: None,
        trust: Trust::System,
        body: None,
        bearer: Some(token),
        limit: ANSWER_MAX,
        within: ANSWER,
    };
    let Ok(answer) = fetch(question).await else { return false };
    let regions: Vec<Value> = serde_json::from_slice(&answer).unwrap_or_default();
    !regions.is_empty() && regions.iter().all(|region| region["health"] == "up")
}
