//! A cluster to which things happen, under load.

use std::collections::BTreeMap;

use nearhop_test_redis::{NODES, Options, start_or_skip};

use super::{
    super::{LogId, slot::slot},
    load::{Load, last_trouble, troubles},
    *,
};

/// Which slots a node owns, as we know it.
fn slots_of(redis: &Redis, cluster: &Cluster, index: usize) -> impl Fn(u16) -> bool + use<> {
    let port = redis.nodes()[index].1;
    let map = cluster.inner.map.load_full();
    move |slot| map.owner(slot).is_some_and(|node| node.address.port == port)
}

async fn loaded(redis: &Redis) -> (Cluster, Load) {
    // Four times the patience that is the default: a starved machine is not what is tested.
    let patience = Duration::from_millis(200);
    let cluster = connected(&Settings { patience, ..settings(redis) }).await;
    let load = Load::start(&cluster);
    let begin = nearhop_admin::clock::now();
    eventually("load", async || (load.answered(begin, |_| true) > 200).then_some(())).await;
    (cluster, load)
}

/// Waits until calls to these slots are answered again: a hundred of them.
async fn answered(load: &Load, slots: impl Fn(u16) -> bool) {
    let begin = nearhop_admin::clock::now();
    eventually("answers", async || (load.answered(begin, &slots) > 100).then_some(())).await;
}

/// What a place holds; asked again while the answer is late.
async fn found_at(cluster: &Cluster, number: u32) -> Vec<Bytes> {
    eventually("a read", async || cluster.bucket(&place(number)).await.ok()).await
}

/// Most calls that fail do so at once: few were in flight, or were probes.
fn few_late(troubles: &BTreeMap<&str, usize>) {
    let late = troubles.get("late").copied().unwrap_or_default();
    let all: usize = troubles.values().sum();
    assert!(late * 3 <= all.max(200), "{troubles:?}");
}

async fn a_lost_master_costs_its_own_shard_only(pause: bool) {
    let _turn = TURN.lock().await;
    let Some(redis) = start_or_skip(Options::default()) else { return };
    let (cluster, load) = loaded(&redis).await;
    let first = place(1);
    let master = redis.master_of(name(&first).as_bytes()).unwrap();
    let its = slots_of(&redis, &cluster, master);
    let before = load.confirmed();

    let fault = nearhop_admin::clock::now();
    if pause { redis.pause(master) } else { redis.kill(master) }.unwrap();
    eventually("the replica serves", async || {
        let now = redis.master_of(name(&first).as_bytes());
        now.is_ok_and(|now| now != master).then_some(())
    })
    .await;
    let promoted = fault.elapsed();
    answered(&load, &its).await;
    eventually("no call fails", async || {
        tokio::time::timeout(Duration::from_secs(1), answered(&load, &its)).await.ok()
    })
    .await;

    eventually("a write", async || {
        cluster.put(&first, 7, bytes("after the failover"), TTL).await.ok()
    })
    .await;
    if pause { redis.resume(master) } else { redis.restart(master) }.unwrap();
    // It comes back with what it knew; nobody may be told that.
    let since = nearhop_admin::clock::now();
    while since.elapsed() < Duration::from_secs(5) || !whole(&cluster) {
        if let Ok(found) = cluster.bucket(&first).await {
            assert!(found.contains(&bytes("after the failover")), "an old answer");
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
        assert!(since.elapsed() < LIMIT, "{:?} {:?}", cluster.shards(), cluster.problem());
    }
    redis.until_well().unwrap();

    let calls = load.stop().await;
    let (troubled, others) = (troubles(&calls, &its), troubles(&calls, |slot| !its(slot)));
    eprintln!(
        "promoted after {promoted:?}; the last failure {:?} s after the fault; of {}: {troubled:?}; \
         elsewhere: {others:?}",
        last_trouble(&calls, fault, &its),
        calls.len()
    );
    assert!(!troubled.is_empty());
    few_late(&troubled);
    let open = troubled.get("open").copied().unwrap_or_default();
    assert!(open > 0, "the breaker opened: {troubled:?}");
    let elsewhere: usize = others.values().sum();
    assert!(elsewhere * 10 <= calls.len(), "the others go on: {others:?} of {}", calls.len());
    // What was confirmed well before the fault was with the replica.
    let (mut kept, mut lost) = (0, 0);
    for (number, value) in
        before.iter().filter(|(number, _)| its(slot(name(&place(**number)).as_bytes())))
    {
        let found = found_at(&cluster, *number).await;
        if found.contains(value) || !found.is_empty() { kept += 1 } else { lost += 1 }
    }
    assert!(kept > 0 && lost <= 5, "{kept} kept, {lost} lost");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_master_fails_at_once_and_then_its_replica_serves() {
    a_lost_master_costs_its_own_shard_only(false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_paused_master_is_given_up_and_then_its_replica_serves() {
    a_lost_master_costs_its_own_shard_only(true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slots_move_under_load_and_what_was_confirmed_is_there() {
    let _turn = TURN.lock().await;
    let Some(redis) = start_or_skip(Options::default()) else { return };
    let (cluster, load) = loaded(&redis).await;
    let from = redis.master_of(name(&place(1)).as_bytes()).unwrap();
    let others = |index: &usize| {
        *index != from && redis.ask(*index, &["ROLE"]).unwrap().starts_with("master")
    };
    let to = (0..NODES).find(others).unwrap();
    let begin = nearhop_admin::clock::now();
    let redis = tokio::task::spawn_blocking(move || {
        redis.reshard(900, from, to).unwrap();
        redis
    })
    .await
    .unwrap();
    let moved = nearhop_admin::clock::now();
    let resharded = moved - begin;
    redis.until_well().unwrap();
    answered(&load, |_| true).await;
    let confirmed = load.confirmed();
    let calls = load.stop().await;
    eprintln!("moved within {resharded:?}; of {}: {:?}", calls.len(), troubles(&calls, |_| true));
    few_late(&troubles(&calls, |_| true));
    let mut read = 0;
    for (number, value) in &confirmed {
        // The load went on after this was noted: another write is as good.
        let found = found_at(&cluster, *number).await;
        assert_eq!(found.len(), 1, "place {number} had {value:?}");
        read += 1;
    }
    assert!(read > 200);
    let slots = |cluster: &Cluster| {
        let port = redis.nodes()[from].1.to_string();
        let shards = cluster.shards();
        shards.iter().find(|shard| shard.address.ends_with(&port)).map(|shard| shard.slots)
    };
    eventually("the map knows", async || slots(&cluster).is_some_and(|n| n < 4_700).then_some(()))
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_are_gone_and_come_back() {
    let _turn = TURN.lock().await;
    let Some(redis) = start_or_skip(Options { kept: true, ..Options::default() }) else { return };
    let (cluster, load) = loaded(&redis).await;
    let last = appended(&cluster, &bytes("before")).await.id;
    redis.stop_all().unwrap();
    let gone = nearhop_admin::clock::now();
    // Somebody who starts now is no worse off.
    let newcomer = Cluster::new(&settings(&redis)).unwrap();
    let trouble = newcomer.bucket(&place(1)).await.unwrap_err();
    assert_eq!(trouble.name(), "away", "{trouble}");
    eventually("the reason", async || newcomer.problem()?.contains("refused").then_some(())).await;
    assert!(cluster.append(bytes("x")).await.is_err());
    assert!(cluster.sweep(Tenant(*b"tenant-1"), LIMIT).await.unfinished.is_some());
    tokio::time::sleep_until((gone + Duration::from_secs(3)).into()).await;

    redis.start_all().unwrap();
    let back = nearhop_admin::clock::now();
    eventually("both are back", async || {
        let one = cluster.put(&place(1), 3, bytes("back"), TTL).await;
        let other = newcomer.bucket(&place(1)).await;
        (one.is_ok() && other.is_ok() && whole(&cluster) && whole(&newcomer)).then_some(())
    })
    .await;
    let took = back.elapsed();
    answered(&load, |_| true).await;
    appended(&cluster, &bytes("after")).await;
    let read = eventually("a read", async || cluster.read_after(last).await.ok()).await;
    // A replica whose file was not written yet may have become the master. Then its readers are told.
    if !read.gap {
        assert_eq!(read.records.last().map(|(_, record)| record.clone()), Some(bytes("after")));
    }
    let read = eventually("a read", async || cluster.read_after(LogId::START).await.ok()).await;
    assert_eq!(read.records.last().map(|(_, record)| record.clone()), Some(bytes("after")));
    let calls = load.stop().await;
    let during: Vec<_> = calls.into_iter().filter(|call| call.at >= gone).collect();
    eprintln!(
        "both whole {took:?} after the servers; the last failure {:?} s after; {:?}",
        last_trouble(&during, back, |_| true),
        troubles(&during, |_| true)
    );
    few_late(&troubles(&during, |_| true));
}
