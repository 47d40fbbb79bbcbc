//! What no single section of the file can know.

use super::{Edge, LocalPod, Origin, Peer};
use crate::{Access, Health, L3, Region, reader::Section};

/// What an edge must know of the file around it.
#[derive(Clone, Copy)]
pub(super) struct Around<'a> {
    /// This region's name.
    pub(super) here: &'a str,
    /// The file's regions; `None` where they could not be read, so that nothing is said about them.
    pub(super) regions: Option<&'a [Region]>,
}

impl<'a> Around<'a> {
    /// Other regions whose edges may be asked.
    fn with_peers(self) -> impl Iterator<Item = &'a Region> {
        let others = self.regions.unwrap_or_default().iter();
        others.filter(move |region| region.name != self.here && !region.peers.is_empty())
    }
}

/// Tenants' requests go to regions and providers that the file has. A file without `regions` knows
/// of no other, and one list of tenants may serve edges of several.
pub(super) fn check_egress(root: &Section<'_>, access: &Access, edge: &Edge, around: Around<'_>) {
    let provider = |name: &String| edge.providers.iter().any(|known| known.name == *name);
    let regions = around.regions.unwrap_or_default();
    let region = |name: &String| {
        regions.is_empty() || name == around.here || regions.iter().any(|known| known.name == *name)
    };
    for tenant in &access.tenants {
        let egress = &tenant.egress;
        if let Some(name) = egress.providers.iter().find(|name| !provider(name)) {
            let what = format!("{} has the provider {name}, which is not there", tenant.name);
            root.problem("access.tenants", what, "Add it to `edge.providers`, or name another");
        }
        if let Some(name) = egress.regions.iter().flatten().find(|name| !region(name)) {
            let what = format!("{} has the region {name}, which is not there", tenant.name);
            root.problem("access.tenants", what, "Add it to `regions`, or name another");
        }
    }
}

/// Views are exchanged between peer listeners, under the names that vantage points have.
pub(super) fn check_peers(
    root: &Section<'_>,
    health: &Health,
    peers: [(&'static str, Option<&Peer>); 2],
) {
    let known = |name: &String| health.vantage_points.iter().any(|point| point.name == *name);
    for (field, peer) in peers {
        if let Some(name) = peer.and_then(|peer| peer.name.as_ref()).filter(|name| !known(name)) {
            let what = format!("has the name `{name}`, which is none of health.vantage_points");
            root.problem(field, what, "Write one of their names, or none where it has no vote");
        }
    }
    if peers.iter().all(|(_, peer)| peer.is_none()) {
        let fix = "Add `edge.peer` or `dns.peer` with {listen, name, tls}";
        root.problem("health", "needs a listener for the other vantage points", fix);
    }
}

/// The edge's own pod takes its models from the `origin` section.
pub(super) fn check_roles(root: &Section<'_>, local: &LocalPod, origin: Option<&Origin>) {
    let Some(origin) = origin else {
        let fix = "Add an `origin` section with `models`, each with its role as an alias";
        root.problem("edge.local", "needs the models of an `origin` section", fix);
        return;
    };
    if let Err(error) = origin.for_roles(&local.roles) {
        root.problem("edge.local.roles", error.to_string(), "Give that alias to a model");
    }
}

/// Questions are embedded beside the edge, and what is held is a part of its memory.
pub(super) fn check_embedder(root: &Section<'_>, l3: &L3, edge: &Edge) {
    let local = edge.local.as_ref();
    if !local.is_some_and(|local| local.roles.contains(&l3.embedder)) {
        let what = format!("`{}` is none of edge.local.roles", l3.embedder);
        let fix = "Add `edge.local` with that role, and the embedder to `origin.models`";
        root.problem("edge.l3.embedder", what, fix);
    }
    if l3.regional.is_some() && edge.l2.is_none() {
        let fix = "Add `edge.l2`: purges reach the other edges by its log";
        root.problem("edge.l3.regional", "needs `edge.l2`", fix);
    }
    if l3.bytes >= edge.l1.bytes {
        let what = format!(
            "is not under edge.l1.bytes, {} MiB, of which it is a part",
            edge.l1.bytes.0 >> 20
        );
        root.problem("edge.l3.bytes", what, "60 % of it leaves enough for completions");
    }
}

/// An edge that nothing could answer for is a mistake.
pub(super) fn check_answers(edge: &Section<'_>, around: Around<'_>) {
    if around.regions.is_some() && around.with_peers().next().is_none() {
        let fix = "Add `- {name, address}`, or `pods_from`; or other `regions` with `peers`";
        edge.problem("pods", "has no pod, so nothing could answer", fix);
    }
}

/// Other regions' edges let in who shows a certificate.
pub(super) fn check_certificate(edge: &Section<'_>, around: Around<'_>) {
    if let Some(region) = around.with_peers().next().filter(|_| !edge.has("peer")) {
        let what = format!("is missing, and edges of the region `{}` ask for it", region.name);
        edge.problem("peer.tls", what, "Add `peer` with {listen, tls}");
    }
}
