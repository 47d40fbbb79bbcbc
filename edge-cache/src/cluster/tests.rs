//! The cluster against a real one. No test measures speed: waits are for conditions, with deadlines.

mod faults;
mod load;
mod secured;
mod well;

use std::time::Duration;

use bytes::Bytes;
use nearhop_test_redis::Redis;
use tokio::sync::Mutex;

use super::{Appended, Cluster, Password, Place, Settings, Tenant, Tls};

/// Six servers at a time are enough for a small machine.
pub(crate) static TURN: Mutex<()> = Mutex::const_new(());

/// For what happens in seconds, on a machine that has much else to do.
const LIMIT: Duration = Duration::from_secs(60);
const TTL: Duration = Duration::from_secs(600);

fn settings(redis: &Redis) -> Settings {
    Settings {
        nodes: redis.nodes(),
        username: None,
        password: None,
        tls: redis.authority().map(|ca| Tls { ca: Some(ca) }),
        // Where nothing is wrong, a slow machine is no reason to fail.
        patience: LIMIT / 3,
        ..Settings::default()
    }
}

async fn eventually<T>(what: &str, mut condition: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = nearhop_admin::clock::now() + LIMIT;
    loop {
        if let Some(found) = condition().await {
            return found;
        }
        assert!(nearhop_admin::clock::now() < deadline, "{what}: not within {LIMIT:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// A cluster that has found everybody.
async fn connected(settings: &Settings) -> Cluster {
    let cluster = Cluster::new(settings).unwrap();
    eventually("connected", async || whole(&cluster).then_some(())).await;
    cluster
}

fn whole(cluster: &Cluster) -> bool {
    let shards = cluster.shards();
    let slots: usize = shards.iter().map(|shard| shard.slots).sum();
    slots == 16_384
        && shards.iter().all(|shard| shard.connected && !shard.open)
        && cluster.problem().is_none()
}

/// Appends, again if it was not confirmed.
async fn appended(cluster: &Cluster, record: &Bytes) -> Appended {
    eventually("an append", async || cluster.append(record.clone()).await.ok()).await
}

fn place(number: u32) -> Place {
    let mut key = [0; 32];
    key[..4].copy_from_slice(&number.to_be_bytes());
    Place { tenant: Tenant(*b"tenant-1"), key }
}

/// What the servers call it.
fn name(place: &Place) -> String {
    format!(
        "nearhop:{}:{{{}}}",
        super::entries::hex(&place.tenant.0),
        super::entries::hex(&place.key)
    )
}

fn bytes(text: impl std::fmt::Display) -> Bytes {
    Bytes::from(text.to_string())
}
