//! What all threads of the server share: what is answered with, and what is counted.

use std::sync::Arc;

use arc_swap::{ArcSwap, ArcSwapOption};
use nearhop_admin::{Metrics, clock};
use prometheus::IntCounterVec;

use super::{Context, Secret, Signer, Transport, Zone, fast::Prepared, rate::Verdict};
use crate::{Vantage, World};

/// What is answered with. Never changes; a new one replaces it.
#[derive(Clone)]
pub(super) struct State {
    pub(super) zone: Zone,
    pub(super) world: World,
    pub(super) secret: Secret,
    /// Where the zone is signed; over this zone and this world's regions.
    pub(super) signer: Option<Arc<Signer>>,
    pub(super) ttl_s: u64,
    /// Answers to the common query.
    pub(super) prepared: Arc<Prepared>,
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
    /// What knows how the regions are, where anything does.
    pub(super) vantage: ArcSwapOption<Vantage>,
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
            "Changed configurations and databases of addresses by whether they were taken.",
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
        let (state, vantage) = (ArcSwap::from_pointee(state), ArcSwapOption::empty());
        Self { state, vantage, answered, limited, reloads, signatures }
    }

    pub(super) fn replace(&self, state: State) {
        self.state.store(Arc::new(state));
    }

    /// Counts files that were taken up again, or not.
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

    pub(super) fn count(&self, transport: Transport, counted: &Counted) {
        let transport = match transport {
            Transport::Udp => "udp",
            Transport::Tcp => "tcp",
        };
        for (code, count) in CODES.iter().zip(counted.0) {
            if count > 0 {
                self.answered.with_label_values(&[transport, code]).inc_by(count);
            }
        }
    }
}

/// What became of queries, as the metrics name it.
const CODES: [&str; 7] = ["none", "noerror", "formerr", "nxdomain", "notimp", "refused", "other"];

/// Queries since the last count, by what became of them.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Counted([u64; CODES.len()]);

impl Counted {
    /// Counts a query by its answer.
    pub(super) fn answer(&mut self, answer: Option<&[u8]>) {
        let place = match answer.map(|answer| answer[3] & 0xf) {
            None => 0,
            Some(0) => 1,
            Some(1) => 2,
            Some(3) => 3,
            Some(4) => 4,
            Some(5) => 5,
            Some(_) => 6,
        };
        self.0[place] += 1;
    }
}
