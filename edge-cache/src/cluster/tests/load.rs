//! A steady load, and what became of each call.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

use super::{super::slot::slot, *};

/// So many places are written and read.
pub(super) const PLACES: u32 = 2_000;

pub(super) struct Call {
    pub(super) at: Instant,
    pub(super) slot: u16,
    pub(super) trouble: Option<&'static str>,
}

pub(super) struct Load {
    stop: Arc<AtomicBool>,
    calls: Arc<Mutex<Vec<Call>>>,
    /// The last value that each place was told to have, by writes that were confirmed.
    confirmed: Arc<Mutex<BTreeMap<u32, Bytes>>>,
    ended: tokio::task::JoinHandle<()>,
}

impl Load {
    /// A read and a write every five milliseconds. No place is written to by two at a time.
    pub(super) fn start(cluster: &Cluster) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let calls = Arc::new(Mutex::new(vec![]));
        let confirmed = Arc::new(Mutex::new(BTreeMap::new()));
        let (cluster, stopped) = (cluster.clone(), Arc::clone(&stop));
        let (noted, written) = (Arc::clone(&calls), Arc::clone(&confirmed));
        let ended = tokio::spawn(async move {
            let mut tick = tokio::time::interval(Duration::from_millis(5));
            let mut number = 0;
            let mut running = tokio::task::JoinSet::new();
            while !stopped.load(Ordering::Relaxed) {
                tick.tick().await;
                number += 1;
                let (cluster, noted, written) =
                    (cluster.clone(), Arc::clone(&noted), Arc::clone(&written));
                running.spawn(async move {
                    let note = |here: &Place, at, trouble| {
                        let slot = slot(name(here).as_bytes());
                        noted.lock().unwrap().push(Call { at, slot, trouble });
                    };
                    let here = place(fastrand::u32(..PLACES));
                    let at = nearhop_admin::clock::now();
                    let read = cluster.bucket(&here).await;
                    note(&here, at, read.err().map(|trouble| trouble.name()));

                    let chosen = number % PLACES;
                    let here = place(chosen);
                    let value = bytes(format!("{number:0400}"));
                    let at = nearhop_admin::clock::now();
                    let put = cluster.put(&here, 0, value.clone(), TTL).await;
                    let mut written = written.lock().unwrap();
                    // After a write that was not confirmed either value is right.
                    match &put {
                        Ok(()) => written.insert(chosen, value),
                        Err(_) => written.remove(&chosen),
                    };
                    note(&here, at, put.err().map(|trouble| trouble.name()));
                });
                while running.try_join_next().is_some() {}
            }
            running.join_all().await;
        });
        Self { stop, calls, confirmed, ended }
    }

    pub(super) fn confirmed(&self) -> BTreeMap<u32, Bytes> {
        self.confirmed.lock().unwrap().clone()
    }

    /// So many calls succeeded since then, in a slot of these.
    pub(super) fn answered(&self, since: Instant, slots: impl Fn(u16) -> bool) -> usize {
        let calls = self.calls.lock().unwrap();
        calls.iter().filter(|c| c.at >= since && c.trouble.is_none() && slots(c.slot)).count()
    }

    pub(super) async fn stop(self) -> Vec<Call> {
        self.stop.store(true, Ordering::Relaxed);
        self.ended.await.unwrap();
        std::mem::take(&mut *self.calls.lock().unwrap())
    }
}

/// How many troubles there were, by name, in a slot of these.
pub(super) fn troubles(
    calls: &[Call],
    slots: impl Fn(u16) -> bool,
) -> BTreeMap<&'static str, usize> {
    let mut counts = BTreeMap::new();
    for name in calls.iter().filter(|call| slots(call.slot)).filter_map(|call| call.trouble) {
        *counts.entry(name).or_default() += 1;
    }
    counts
}

/// Seconds from then to the last call that failed.
pub(super) fn last_trouble(
    calls: &[Call],
    since: Instant,
    slots: impl Fn(u16) -> bool,
) -> Option<f64> {
    let failed = calls.iter().filter(|call| call.trouble.is_some() && slots(call.slot));
    failed.map(|call| call.at.saturating_duration_since(since).as_secs_f64()).reduce(f64::max)
}
