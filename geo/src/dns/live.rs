//! What all threads of the server share: what is answered with, and what is counted.

use std::sync::Arc;

use arc_swap::ArcSwap;
use nearhop_admin::{Metrics, clock};
use prometheus::IntCounterVec;

use super::{Answer, Context, Secret, Signer, Transport, Zone, rate::Verdict};
use crate::World;

/// What is answered with. Never changes; a new one replaces it.
pub(super) struct State {
    pub(super) zone: Zone,
    pub(super) world: World,
    pub(super) secret: Secret,
    /// Where the zone is signed; over this zone and this world's regions.
    pub(super) signer: Option<Arc<Signer>>,
    pub(super) ttl_s: u64,
}

impl State {
    /// What is answered with now.
    pub(super) fn context(&self) -> Context<'_> {
        let signer = self.signer.as_deref();
        Context { zone: &self.zone, world: &self.world, secret: &self.secret, signer, now: now() }
    }

    /// Whether the zone is to be signed anew.
    pub(super) fn is_stale(&self, now: u32) -> bool {
        self.signer.as_ref().is_some_and(|signer| signer.is_stale(now))
    }
}

/// Seconds since 1970, which wrap in 2106, as cookies and signatures want them.
pub(super) fn now() -> u32 {
    (clock::since_epoch().as_secs() & u64::from(u32::MAX)).try_into().unwrap_or_default()
}

/// What all threads share.
pub(super) struct Live {
    state: ArcSwap<State>,
    answered: IntCounterVec,
    limited: IntCounterVec,
    reloads: IntCounterVec,
    signatures: IntCounterVec,
}

impl Live {
    pub(super) fn new(state: State, metrics: &Metrics) -> Self {
        let answered = metrics.counters(
            "nearhop_dns_queries_total",
            "Queries by how they came and by the answer's code.",
            &["transport", "code"],
        );
        let reloads = metrics.counters(
            "nearhop_dns_reloads_total",
            "Replaced databases of addresses by whether they were taken.",
            &["result"],
        );
        let limited = metrics.counters(
            "nearhop_dns_limited_total",
            "Answers by UDP that the limit of the response rate cut or dropped.",
            &["what"],
        );
        let signatures = metrics.counters(
            "nearhop_dns_signatures_total",
            "Signatures of denials that were made when asked for, or refused by their budget.",
            &["what"],
        );
        Self { state: ArcSwap::from_pointee(state), answered, limited, reloads, signatures }
    }

    pub(super) fn replace(&self, state: State) {
        self.state.store(Arc::new(state));
    }

    /// Counts databases that were taken up again, or not.
    pub(super) fn reloaded(&self, result: &str) {
        self.reloads.with_label_values(&[result]).inc();
    }

    /// Counts the signatures that were made or refused since it last did.
    pub(super) fn count_signatures(&self) {
        let state = self.state();
        let Some(signer) = &state.signer else { return };
        let (made, refused) = signer.take_counts();
        self.signatures.with_label_values(&["made"]).inc_by(made);
        self.signatures.with_label_values(&["refused"]).inc_by(refused);
    }

    pub(super) fn state(&self) -> arc_swap::Guard<Arc<State>> {
        self.state.load()
    }

    /// Counts what the limit of the response rate did.
    pub(super) fn limited(&self, verdict: Verdict) {
        let what = match verdict {
            Verdict::Send => return,
            Verdict::Slip => "slipped",
            Verdict::Drop => "dropped",
        };
        self.limited.with_label_values(&[what]).inc();
    }

    pub(super) fn count(&self, transport: Transport, answer: Option<&Answer>) {
        let transport = match transport {
            Transport::Udp => "udp",
            Transport::Tcp => "tcp",
        };
        let code = match answer.map(|answer| answer.bytes[3] & 0xf) {
            None => "none",
            Some(0) => "noerror",
            Some(1) => "formerr",
            Some(3) => "nxdomain",
            Some(4) => "notimp",
            Some(5) => "refused",
            Some(_) => "other",
        };
        self.answered.with_label_values(&[transport, code]).inc();
    }
}
