//! A cluster in which nothing is wrong.

use std::collections::BTreeSet;

use nearhop_test_redis::{Options, start_or_skip};

use super::{
    super::{LogId, Trouble},
    *,
};

/// One cluster for all of them, since six servers need seconds to find each other.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_works_on_a_cluster_that_is_well() {
    let _turn = TURN.lock().await;
    let Some(redis) = start_or_skip(Options::default()) else { return };
    // Any one node is way in enough.
    let one = Settings { nodes: redis.nodes().split_off(5), ..settings(&redis) };
    let cluster = connected(&one).await;
    assert_eq!(cluster.shards().len(), 3);

    a_place_gives_back_what_was_put(&cluster).await;
    a_place_lives_as_long_as_the_last_put_says(&redis, &cluster).await;
    the_first_small_value_wins(&cluster).await;
    edges_share_a_count(&redis, &cluster).await;
    the_log_is_read_in_order_from_any_record(&redis, &cluster).await;
    every_edge_is_woken(&cluster, &one).await;
    a_sweep_takes_one_tenant_only(&cluster).await;
    what_the_server_refuses_is_no_fault_of_the_shard(&redis, &cluster).await;
}

async fn a_place_gives_back_what_was_put(cluster: &Cluster) {
    assert_eq!(cluster.bucket(&place(1)).await, Ok(vec![]));
    for number in 1..40 {
        for field in 0..3 {
            let value = bytes(format!("{number} {field}\0\r\n"));
            cluster.put(&place(number), field, value, TTL).await.unwrap();
        }
    }
    cluster.put(&place(7), 1, bytes("again"), TTL).await.unwrap();
    let found: BTreeSet<_> = cluster.bucket(&place(7)).await.unwrap().into_iter().collect();
    assert_eq!(found, [bytes("7 0\0\r\n"), bytes("again"), bytes("7 2\0\r\n")].into());
    let refused = cluster.put(&place(7), 8, bytes("x"), TTL).await;
    assert_eq!(refused.unwrap_err().name(), "failed");
    let other = Place { tenant: Tenant(*b"tenant-2"), ..place(7) };
    assert_eq!(cluster.bucket(&other).await, Ok(vec![]));
}

async fn a_place_lives_as_long_as_the_last_put_says(redis: &Redis, cluster: &Cluster) {
    let here = place(100);
    let master = redis.master_of(name(&here).as_bytes()).unwrap();
    let left =
        || -> u64 { redis.ask(master, &["PTTL", &name(&here)]).unwrap().trim().parse().unwrap() };
    cluster.put(&here, 0, bytes("a"), TTL).await.unwrap();
    assert!((1..=600_000).contains(&left()));
    cluster.put(&here, 1, bytes("b"), TTL * 2).await.unwrap();
    assert!((600_001..=1_200_000).contains(&left()));
    cluster.put(&here, 1, bytes("b"), Duration::ZERO).await.unwrap();
    eventually("it is gone", async || {
        cluster.bucket(&here).await.unwrap().is_empty().then_some(())
    })
    .await;
}

async fn the_first_small_value_wins(cluster: &Cluster) {
    assert_eq!(cluster.get("key").await, Ok(None));
    assert_eq!(cluster.set_if_absent("key", bytes("first")).await, Ok(bytes("first")));
    assert_eq!(cluster.set_if_absent("key", bytes("second")).await, Ok(bytes("first")));
    assert_eq!(cluster.get("key").await, Ok(Some(bytes("first"))));
    assert_eq!(cluster.delete("key").await, Ok(true));
    assert_eq!(cluster.delete("key").await, Ok(false));
    assert_eq!(cluster.set_if_absent("key", bytes("second")).await, Ok(bytes("second")));
}

async fn edges_share_a_count(redis: &Redis, cluster: &Cluster) {
    let other = connected(&settings(redis)).await;
    assert_eq!(cluster.count(b"k\x00", 3, TTL).await, Ok(3));
    assert_eq!(other.count(b"k\x00", 4, TTL).await, Ok(7));
    assert_eq!(cluster.count(b"k\x01", 0, TTL).await, Ok(0));
    assert_eq!(other.count(b"k\x00", 1, Duration::from_millis(1)).await, Ok(8));
    let anew =
        async || (other.count(b"k\x00", 0, Duration::from_millis(1)).await == Ok(0)).then_some(());
    eventually("the window ends", anew).await;
}

async fn the_log_is_read_in_order_from_any_record(redis: &Redis, cluster: &Cluster) {
    let nothing = cluster.read_after(LogId::START).await.unwrap();
    assert!(nothing.records.is_empty() && !nothing.gap);
    let mut ids = vec![];
    for number in 0..5 {
        ids.push(appended(cluster, &bytes(number)).await.id);
    }
    assert!(ids.is_sorted());
    let mut all = cluster.read_after(LogId::START).await.unwrap();
    // One that was confirmed too late is there twice.
    all.records.retain(|(id, _)| ids.contains(id));
    let expected: Vec<_> = ids.iter().copied().zip((0..5).map(bytes)).collect();
    assert_eq!((all.records, all.gap), (expected.clone(), false));
    let mut rest = cluster.read_after(ids[2]).await.unwrap();
    rest.records.retain(|(id, _)| ids.contains(id));
    assert_eq!((rest.records, rest.gap), (expected[3..].to_vec(), false));
    let rest = cluster.read_after(ids[4]).await.unwrap();
    assert_eq!((rest.records, rest.gap), (vec![], false));
    let written = ids[4].to_string();
    assert_eq!(written.parse::<LogId>(), Ok(ids[4]));

    // The replica is well; on a busy machine it may need more than the hundred milliseconds.
    eventually("a replica's word", async || {
        let appended = cluster.append(bytes("x")).await.ok()?;
        (appended.replicas == 1).then_some(())
    })
    .await;

    // Somebody who was away while the log was cut has to know.
    let master = redis.master_of(b"nearhop:purges").unwrap();
    redis.ask(master, &["XTRIM", "nearhop:purges", "MINID", "=", &written]).unwrap();
    assert!(cluster.read_after(ids[2]).await.unwrap().gap);
    assert!(!cluster.read_after(ids[4]).await.unwrap().gap);
    redis.ask(master, &["DEL", "nearhop:purges"]).unwrap();
    assert!(cluster.read_after(ids[4]).await.unwrap().gap);
}

async fn every_edge_is_woken(cluster: &Cluster, settings: &Settings) {
    let others = [connected(settings).await, connected(settings).await];
    for other in &others {
        let mut wakeups = other.wakeups();
        // Some are lost until it listens.
        eventually("a wake-up", async || {
            appended(cluster, &bytes("x")).await;
            tokio::time::timeout(Duration::from_millis(200), wakeups.next()).await.ok()
        })
        .await;
    }
}

async fn a_sweep_takes_one_tenant_only(cluster: &Cluster) {
    let of = |tenant, number| Place { tenant: Tenant(tenant), ..place(number) };
    for number in 0..1500 {
        cluster.put(&of(*b"swept---", number), 0, bytes("x"), TTL).await.unwrap();
    }
    cluster.put(&of(*b"remains-", 1), 0, bytes("x"), TTL).await.unwrap();
    let late = cluster.sweep(Tenant(*b"swept---"), Duration::ZERO).await;
    assert_eq!((late.removed, late.unfinished), (0, Some(Trouble::Late)));
    let swept = cluster.sweep(Tenant(*b"swept---"), LIMIT).await;
    assert_eq!((swept.removed, swept.unfinished), (1500, None));
    assert_eq!(cluster.bucket(&of(*b"swept---", 3)).await, Ok(vec![]));
    assert_eq!(cluster.bucket(&of(*b"remains-", 1)).await, Ok(vec![bytes("x")]));
}

async fn what_the_server_refuses_is_no_fault_of_the_shard(redis: &Redis, cluster: &Cluster) {
    let here = place(200);
    let master = redis.master_of(name(&here).as_bytes()).unwrap();
    redis.ask(master, &["SET", &name(&here), "no hash"]).unwrap();
    for _ in 0..5 {
        let trouble = cluster.bucket(&here).await.unwrap_err();
        assert!(trouble.to_string().contains("WRONGTYPE"), "{trouble}");
        // The transaction says which of its commands failed.
        let trouble = cluster.put(&here, 0, bytes("x"), TTL).await.unwrap_err();
        assert!(trouble.to_string().contains("WRONGTYPE"), "{trouble}");
    }
    assert!(cluster.shards().iter().all(|shard| !shard.open));
}
