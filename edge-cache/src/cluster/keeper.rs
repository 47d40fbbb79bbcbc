//! The background task: keeps a connection to every node, and the map of who owns which slot.
//!
//! Every second, sooner when something looks wrong, each connected node is asked for its view of the
//! cluster. That one question does three jobs: it finds promoted masters before a call is redirected to
//! one, it notices a node that is paused or cut off (its TCP connection would look well for minutes), and
//! it keeps idle connections open. A node that does not answer loses its connection, so that calls to it
//! fail at once instead of waiting.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use futures_util::future::join_all;
use redis::{Pipeline, Value};
use tokio::{
    task::JoinSet,
    time::{sleep, timeout},
};

use super::{
    Inner,
    node::Node,
    slot::SLOTS,
    topology::{Address, Line, Topology, merge, parse},
};

/// Between rounds while all is well.
const ROUND: Duration = Duration::from_secs(1);
/// Between rounds while something is not, and the least between any two.
const HASTE: Duration = Duration::from_millis(100);
/// After so many hasty rounds it is no news any more.
const HASTY: u32 = 100;
/// For a view of the cluster: longer than a call waits, since one lost packet costs 200 ms.
const VIEW_LIMIT: Duration = Duration::from_millis(500);
/// The longest rest after a failed connection.
const RETRY_MAX: Duration = Duration::from_secs(2);
/// A cluster has at most a thousand nodes; one that claims more is not believed.
const NODES_MAX: usize = 1024;

/// The map that calls read.
#[derive(Default)]
pub(crate) struct Map {
    pub(crate) nodes: Vec<Arc<Node>>,
    owners: Vec<Option<u16>>,
}

impl Map {
    /// Who owns the slot.
    pub(crate) fn owner(&self, slot: u16) -> Option<&Arc<Node>> {
        self.nodes.get(usize::from((*self.owners.get(usize::from(slot))?)?))
    }

    pub(crate) fn node(&self, address: &Address) -> Option<&Arc<Node>> {
        self.nodes.iter().find(|node| node.address == *address)
    }

    /// The nodes that own slots, with how many.
    pub(crate) fn masters(&self) -> Vec<(&Arc<Node>, usize)> {
        let mut counts = vec![0; self.nodes.len()];
        for owner in self.owners.iter().flatten() {
            counts[usize::from(*owner)] += 1;
        }
        self.nodes.iter().zip(counts).filter(|(_, count)| *count > 0).collect()
    }

    /// Have the slots the same owners in both?
    pub(crate) fn same_owners(&self, other: &Self) -> bool {
        let addresses = |map: &Self| map.nodes.iter().map(|node| node.address.clone()).collect();
        let (ours, theirs): (Vec<Address>, Vec<Address>) = (addresses(self), addresses(other));
        ours == theirs && self.owners == other.owners
    }

    fn is_whole(&self) -> bool {
        self.owners.len() == usize::from(SLOTS) && self.owners.iter().all(Option::is_some)
    }
}

/// Runs until the cluster is dropped.
pub(crate) async fn keep(inner: Arc<Inner>) {
    let mut connecting = JoinSet::new();
    let mut busy: BTreeSet<Address> = BTreeSet::new();
    let mut hasty = 0_u32;
    loop {
        let map = inner.map.load_full();
        let known: Vec<&Arc<Node>> = map.nodes.iter().collect();
        let lost = known.iter().all(|node| node.link().is_none());
        let candidates = known.into_iter().chain(inner.seeds.iter().filter(|_| lost));
        let mut well = map.is_whole();
        let mut linked = vec![];
        let mut tended = BTreeSet::new();
        for node in candidates {
            if !tended.insert(node.address.clone()) {
                continue;
            }
            if node.link().is_some() {
                linked.push(Arc::clone(node));
            } else {
                well = false;
                if busy.insert(node.address.clone()) {
                    connecting.spawn(reconnect(Arc::clone(&inner), Arc::clone(node)));
                }
            }
        }

        let views = join_all(linked.iter().map(view)).await;
        well &= views.iter().all(Option::is_some);
        let views: Vec<Vec<Line>> = views.into_iter().flatten().collect();
        if !views.is_empty() {
            let known = map.nodes.iter().chain(&linked);
            inner.map.store(Arc::new(adopt(merge(&views), known)));
        }
        if !lost {
            // The connections of aliases end here; when they are needed again they are made anew.
            let map = inner.map.load();
            for seed in &inner.seeds {
                if map.node(&seed.address).is_none_or(|node| !Arc::ptr_eq(node, seed)) {
                    seed.link().inspect(|link| seed.disconnect(link, "not in use"));
                }
            }
        }

        hasty = if well { 0 } else { hasty.saturating_add(1) };
        let next = async {
            sleep(HASTE).await;
            let rest = if well || hasty > HASTY { ROUND } else { HASTE };
            tokio::select! {
                () = sleep(rest) => {}
                () = inner.nudge.notified() => {}
            }
        };
        tokio::pin!(next);
        loop {
            tokio::select! {
                () = &mut next => break,
                Some(done) = connecting.join_next() => {
                    let Ok((address, connected)) = done else { continue };
                    busy.remove(&address);
                    if connected {
                        inner.nudge.notify_one();
                    }
                }
            }
        }
    }
}

/// One attempt, and after a failed one the rest before the next: of a node that nobody reaches there is
/// one attempt in one to two seconds, spread so that edges do not come all at once.
async fn reconnect(inner: Arc<Inner>, node: Arc<Node>) -> (Address, bool) {
    let connected = node.connect(&inner.login).await;
    if !connected {
        let spread = RETRY_MAX / 2 + (RETRY_MAX / 2).mul_f64(fastrand::f64());
        let rest = if inner.map.load().nodes.is_empty() { HASTE * 5 } else { spread };
        sleep(rest).await;
    }
    (node.address.clone(), connected)
}

/// A node's view, or the end of its connection.
async fn view(node: &Arc<Node>) -> Option<Vec<Line>> {
    let link = node.link()?;
    let mut question = Pipeline::new();
    question.cmd("CLUSTER").arg("NODES");
    let answer = timeout(VIEW_LIMIT, link.send(&question)).await;
    let why = match answer {
        Ok(Ok(answers)) => match answers.into_iter().next() {
            Some(Value::BulkString(text)) => {
                return Some(parse(&String::from_utf8_lossy(&text), &node.address.host));
            }
            Some(Value::ServerError(error)) => super::settings::bounded(format!(
                "{} {}; the user needs the right to CLUSTER NODES",
                error.code(),
                error.details().unwrap_or_default()
            )),
            _ => "an answer that is no view of a cluster".to_owned(),
        },
        Ok(Err(why)) => why,
        Err(_) => format!("no answer within {VIEW_LIMIT:?}"),
    };
    node.disconnect(&link, &why);
    None
}

/// The new map, with the nodes we have: connections and breakers stay with their address.
fn adopt<'a>(topology: Topology, known: impl Iterator<Item = &'a Arc<Node>>) -> Map {
    let known: BTreeMap<&Address, &Arc<Node>> = known.map(|node| (&node.address, node)).collect();
    let nodes = topology
        .nodes
        .into_iter()
        .take(NODES_MAX)
        .map(|(address, name)| match known.get(&address) {
            Some(node) if node.name == name => Arc::clone(node),
            _ => Arc::new(Node::new(address, name)),
        })
        .collect();
    Map { nodes, owners: topology.owners }
}
