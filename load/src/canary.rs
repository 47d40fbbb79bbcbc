//! Purges that were acknowledged, looked after: something is asked for so that it is cached, purged
//! by the hash of its file, and asked for again. What then comes from a cache was not purged.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use nearhop_admin::{Question, Trust, fetch};
use nearhop_conf::{RequestKind, Target};
use serde::Serialize;
use serde_json::{Value, json};

use crate::{
    crowd::Ask,
    exchange::{Client, Heard},
    places::{Places, host_of},
    record::Outcome,
};

const PATIENCE: Duration = Duration::from_secs(10);
const ANSWER_MAX: usize = 1 << 20;

/// What became of purges.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Purges {
    /// Acknowledged by an edge, after the answer was in its cache.
    pub acknowledged: u64,
    /// Of those, how many were answered from a cache afterwards.
    pub lost: u64,
    /// Rounds that came to nothing: no answer, nothing cached, or no acknowledgement.
    pub inconclusive: u64,
}

impl Purges {
    pub(crate) fn add(&mut self, held: Option<bool>) {
        self.acknowledged += u64::from(held.is_some());
        self.lost += u64::from(held == Some(false));
        self.inconclusive += u64::from(held.is_none());
    }
}

/// One round at one region: whether the purge held; nothing where there was none.
pub(crate) async fn round(
    client: &Client,
    target: &Target,
    places: &Places,
    region: usize,
) -> Option<bool> {
    // What DNS says now may lead to another region's edge, of which nothing is purged here.
    let own = host_of(&target.regions[region].url)
        .and_then(|(host, port)| Some(SocketAddr::new(host.parse().ok()?, port)));
    let addresses = own.map_or_else(|| places.of(region), |own| Arc::from([own]));
    ask_and_purge(client, target, &addresses, region).await
}

/// The first key of which the tenant is known, and that tenant.
pub(crate) fn whose(target: &Target) -> Option<(usize, &str)> {
    let known = target.keys.iter().enumerate();
    known.filter_map(|(at, key)| Some((at, key.tenant.as_deref()?))).next()
}

/// Whether a purge held.
async fn ask_and_purge(
    client: &Client,
    target: &Target,
    addresses: &[SocketAddr],
    region: usize,
) -> Option<bool> {
    let (key, tenant) = whose(target)?;
    let name = format!("{:016x}", fastrand::u64(..));
    let body = json!({
        "model": target.model,
        "prompt": format!("# canary {name}\ndef add(a, b):\n    return "),
        "max_tokens": 8,
        "nearhop": {"file": format!("{name}.py"), "file_hash": name},
    });
    let ask = Ask {
        at: Duration::ZERO,
        kind: RequestKind::Inline,
        body: body.to_string().into(),
        streamed: false,
        key,
        region,
        typed: None,
    };
    answered_from_cache(client, &ask, addresses).await?;
    // An answer without text is not cached; nor is one that the edge did not take.
    if !answered_from_cache(client, &ask, addresses).await? {
        return None;
    }
    let url = format!("http://{}/admin/v1/cache/purge", target.regions[region].admin.as_ref()?);
    let question = Question {
        url: &url,
        host: None,
        trust: Trust::System,
        body: Some(json!({"tenant": tenant, "file_hash": name}).to_string().into()),
        bearer: target.admin_token.as_ref().map(nearhop_conf::Secret::reveal),
        limit: ANSWER_MAX,
        within: PATIENCE,
    };
    let said: Value = serde_json::from_slice(&fetch(question).await.ok()?).ok()?;
    said.as_object()?;
    Some(!answered_from_cache(client, &ask, addresses).await?)
}

async fn answered_from_cache(client: &Client, ask: &Ask, addresses: &[SocketAddr]) -> Option<bool> {
    let mut heard = Heard::nothing();
    let asked = client.exchange(ask, addresses, &mut heard);
    tokio::time::timeout(PATIENCE, asked).await.ok()?;
    let cached = matches!(heard.source, "l1" | "l1-typeahead" | "l2" | "l3" | "cache_fallback");
    (heard.outcome == Outcome::Answered).then_some(cached)
}
