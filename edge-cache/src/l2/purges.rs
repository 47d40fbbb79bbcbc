//! Purges that reach every edge: a log in Redis, read whenever somebody says that it grew, whenever
//! an entry knows more of it than we do, and every second anyway. A message that is lost is healed
//! by the next look.

use std::{sync::Arc, time::Duration};

use tokio::time::{MissedTickBehavior, interval};

use super::{Shared, key_name};
use crate::{
    cluster::{LogId, Tenant, Trouble},
    tags::{Generation, Purge},
};

/// What became of a purge in the common log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Published {
    /// It is there, and so many replicas have it.
    Done {
        /// Where.
        generation: Generation,
        /// Replicas that have it for certain.
        replicas: u64,
    },
    /// Redis does not answer: it is tried again until it does, as long as this process lives.
    Pending,
    /// Too many are pending already.
    Refused,
}

/// What the log made this process take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Applied {
    /// A purge.
    Purge,
    /// The log lost records: everything older is gone.
    Gap,
}

/// How often the log is looked at.
const LOOK: Duration = Duration::from_secs(1);
/// Purges that wait for Redis.
const UNPUBLISHED_MAX: usize = 1024;
/// For dropping all entries of a tenant, which are noise already.
const SWEEP_MAX: Duration = Duration::from_secs(60);

impl Shared {
    /// Carries a purge out in Redis and puts it into the common log. This process has to take it by
    /// itself meanwhile.
    pub async fn publish(&self, purge: &Purge) -> Published {
        match self.carry_out(purge).await {
            Ok(done) => done,
            Err(_trouble) => self.unpublished(|waiting| {
                if waiting.len() >= UNPUBLISHED_MAX {
                    return Published::Refused;
                }
                waiting.push(purge.clone());
                Published::Pending
            }),
        }
    }

    /// A tenant's key goes before anybody is told: who is told asks for it anew. Without it the
    /// tenant's entries are noise; then the noise goes too.
    async fn carry_out(&self, purge: &Purge) -> Result<Published, Trouble> {
        let tenant = match purge {
            Purge::Tenant(tenant) => Some(Tenant(tenant.to_le_bytes())),
            _ => None,
        };
        if let Some(tenant) = tenant {
            self.cluster.delete(&key_name(tenant)).await?;
        }
        let record = postcard::to_allocvec(purge).expect("a purge is plain data");
        let appended = self.cluster.append(record.into()).await?;
        if let Some(tenant) = tenant {
            self.keys.remove(&tenant);
            let cluster = self.cluster.clone();
            tokio::spawn(async move { cluster.sweep(tenant, SWEEP_MAX).await });
        }
        let generation = appended.id.generation();
        Ok(Published::Done { generation, replicas: appended.replicas })
    }

    /// Follows the log for ever; `apply` is told of each purge that came in by it. `now` is Unix
    /// time.
    pub async fn follow(
        self: Arc<Self>,
        now: impl Fn() -> Duration + Send,
        apply: impl Fn(Applied) + Send,
    ) {
        let (mut wakeups, mut last) = (self.cluster.wakeups(), LogId::START);
        let mut tick = interval(LOOK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = tick.tick() => {}
                () = wakeups.next() => {}
                () = self.look.notified() => {}
            }
            self.publish_waiting().await;
            // Until there is no more, or no answer; the next look goes on from there.
            while let Ok(read) = self.cluster.read_after(last).await {
                if read.gap {
                    // Redis may have lost everything: the log begins anew, and so do the keys.
                    last = LogId::START;
                    self.keys.clear();
                    self.validity.purge(Purge::All, now());
                    apply(Applied::Gap);
                }
                let Some((newest, _)) = read.records.last() else { break };
                last = *newest;
                for (id, record) in &read.records {
                    // What newer code wrote may cover anything.
                    let purge = postcard::from_bytes(record).unwrap_or(Purge::All);
                    self.take(&purge, id.generation(), now());
                    apply(Applied::Purge);
                }
            }
        }
    }

    fn take(&self, purge: &Purge, generation: Generation, now: Duration) {
        self.validity.learn(purge.clone(), generation, now);
        if let Purge::Tenant(tenant) = purge {
            self.keys.remove(&Tenant(tenant.to_le_bytes()));
        }
    }

    async fn publish_waiting(&self) {
        while let Some(purge) = self.unpublished(|waiting| waiting.first().cloned()) {
            if self.carry_out(&purge).await.is_err() {
                return;
            }
            self.unpublished(|waiting| waiting.remove(0));
        }
    }

    /// Purges that are not in the common log yet.
    pub fn pending(&self) -> usize {
        self.unpublished(|waiting| waiting.len())
    }
}
