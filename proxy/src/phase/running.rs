//! An attempt in progress.

use std::sync::Arc;

use nearhop_admin::clock;
use nearhop_routing::Pass;

use crate::upstream::{
    member::{InFlight, Upstream},
    outcome::Outcome,
    pool::Upstreams,
};

/// An attempt in progress: counted on its upstream, and judged exactly once, however it ends.
pub(super) struct Running<'a> {
    upstreams: &'a Upstreams,
    upstream: Arc<Upstream>,
    tenant: String,
    running: Option<(Pass, InFlight)>,
}

impl<'a> Running<'a> {
    pub(super) fn new(
        upstreams: &'a Upstreams,
        upstream: &Arc<Upstream>,
        (pass, tenant): (Pass, &str),
    ) -> Self {
        let running = Some((pass, upstream.enter()));
        let upstream = Arc::clone(upstream);
        Self { upstreams, upstream, tenant: tenant.to_owned(), running }
    }

    /// It begins to answer.
    pub(super) fn begins(&mut self) {
        let Some((pass, in_flight)) = self.running.take() else { return };
        let now = clock::now();
        let (pass, change) = self.upstream.begins_to_answer(pass, now);
        self.running = Some((pass, in_flight));
        self.upstreams.changed(&self.upstream, change, now);
    }

    pub(super) fn end(&mut self, outcome: &Outcome) {
        if let Some((pass, in_flight)) = self.running.take() {
            drop(in_flight);
            let ended = (outcome, self.tenant.as_str());
            self.upstreams.ended(&self.upstream, pass, ended, clock::now());
        }
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.end(&Outcome::Abandoned);
    }
}
