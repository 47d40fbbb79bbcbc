//! Active checks: Pingora's discovery and health service with our own check.
//!
//! A check is a whole `GET`, connection to last byte, under one deadline: Pingora's own check limits
//! each read, so that a dripping server holds it for ever. What is answered is also how the edge
//! learns which models it serves. External providers are not checked: each check would be a
//! request that somebody pays for.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use nearhop_admin::clock;
use nearhop_conf::Probes;
use nearhop_routing::Class;
use nearhop_wire::PodReport;
use pingora::{
    Error, ErrorType,
    lb::{
        Backend, Backends, LoadBalancer, discovery::ServiceDiscovery, health_check::HealthCheck,
        selection::RoundRobin,
    },
};
use serde::Deserialize;

use super::{
    exchange::Exchanges,
    member::{Role, Upstream},
    pool::Upstreams,
};

/// The service that checks upstreams as they come and go. Its own choice among them is never asked
/// for: routing knows more.
pub(crate) fn service(
    upstreams: &Arc<Upstreams>,
    probes: &Probes,
    exchanges: &Arc<Exchanges>,
) -> LoadBalancer<RoundRobin> {
    let found = Box::new(Found(Arc::clone(upstreams)));
    let mut balancer = LoadBalancer::from_backends(Backends::new(found));
    let checker = Checker {
        upstreams: Arc::clone(upstreams),
        exchanges: Arc::clone(exchanges),
        deadline: probes.deadline,
        failures: probes.failures,
        far: Mutex::default(),
    };
    balancer.set_health_check(Box::new(Check(Arc::new(checker))));
    balancer.health_check_frequency = Some(probes.interval);
    // Whoever looks for pods does so elsewhere; here they are only read.
    balancer.update_frequency = Some(probes.interval.min(UPDATE));
    // One after another, a dead pod would delay the checks of all others.
    balancer.parallel_health_check = true;
    balancer
}

const UPDATE: Duration = Duration::from_millis(200);

struct Found(Arc<Upstreams>);

#[async_trait]
impl ServiceDiscovery for Found {
    async fn discover(&self) -> pingora::Result<(BTreeSet<Backend>, HashMap<u64, bool>)> {
        let all = self.0.all();
        let checked = all.iter().filter(|one| one.class() != Class::Provider);
        let backends = checked.filter_map(|one| Backend::new(&one.address.to_string()).ok());
        Ok((backends.collect(), HashMap::new()))
    }
}

/// The longest check of another region's edge, which may be half the earth away: a connection, its
/// handshake and the question are three round trips of up to 0.3 s, and one is kept from then on.
const FAR_DEADLINE: Duration = Duration::from_secs(3);

struct Check(Arc<Checker>);

struct Checker {
    upstreams: Arc<Upstreams>,
    exchanges: Arc<Exchanges>,
    deadline: Duration,
    failures: usize,
    /// Other regions' edges that are being checked: such a check may take longer than a round of all.
    far: Mutex<HashSet<SocketAddr>>,
}

/// What another region's edge says of itself.
#[derive(Deserialize)]
struct View {
    region: String,
    ready: bool,
    #[serde(flatten)]
    report: PodReport,
}

fn read(role: &Role, body: &[u8]) -> Result<PodReport, String> {
    let wrong =
        |error: serde_json::Error| format!("what it says of itself cannot be read: {error}");
    let Role::Region(region) = role else {
        return serde_json::from_slice(body).map_err(wrong);
    };
    let view: View = serde_json::from_slice(body).map_err(wrong)?;
    match view.ready {
        // What may go to one region may not go to another.
        _ if view.region != **region => Err(format!("it is an edge of {}", view.region)),
        true => Ok(view.report),
        false => Err("none of its pods is ready".to_owned()),
    }
}

impl Checker {
    /// Who is behind a backend now: another may have come to its address.
    fn of(&self, target: &Backend) -> Option<Arc<Upstream>> {
        self.upstreams.by_address(*target.addr.as_inet()?)
    }

    fn far(&self) -> MutexGuard<'_, HashSet<SocketAddr>> {
        // Nothing in here can panic half-way.
        self.far.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Checks another region's edge beside the round, which does not wait for it; one at a time.
    fn check_far(self: &Arc<Self>, upstream: Arc<Upstream>) {
        if !self.far().insert(upstream.address) {
            return;
        }
        let checker = Arc::clone(self);
        tokio::spawn(async move {
            let deadline = checker.deadline.max(FAR_DEADLINE);
            // Removed however the check ends, or that region were never checked again.
            let _checking = Checking(&checker, upstream.address);
            // How it ended is told to the upstreams.
            let _ = checker.check_one(&upstream, deadline).await;
        });
    }

    async fn check_one(&self, upstream: &Arc<Upstream>, deadline: Duration) -> pingora::Result<()> {
        let began = clock::now();
        let checked = tokio::time::timeout(deadline, self.exchanges.readyz(upstream)).await;
        let now = clock::now();
        let report = match checked {
            Ok(Ok(body)) => read(&upstream.role, &body),
            Ok(Err(reason)) => Err(reason),
            Err(_elapsed) => Err(format!("no answer within {} ms", deadline.as_millis())),
        };
        match report {
            Ok(report) => {
                self.upstreams.check_passed(upstream, report, began, now);
                Ok(())
            }
            Err(reason) => {
                tracing::debug!(upstream = upstream.name, reason, "check failed");
                self.upstreams.check_failed(upstream, self.failures, began, now);
                Error::e_explain(ErrorType::Custom("check failed"), reason)
            }
        }
    }
}

/// Another region's edge that is being checked.
struct Checking<'a>(&'a Checker, SocketAddr);

impl Drop for Checking<'_> {
    fn drop(&mut self) {
        self.0.far().remove(&self.1);
    }
}

#[async_trait]
impl HealthCheck for Check {
    async fn check(&self, target: &Backend) -> pingora::Result<()> {
        match self.0.of(target) {
            // It has just gone.
            None => Ok(()),
            Some(upstream) if upstream.class() == Class::Region => {
                self.0.check_far(upstream);
                Ok(())
            }
            Some(upstream) => self.0.check_one(&upstream, self.0.deadline).await,
        }
    }

    fn backend_summary(&self, target: &Backend) -> String {
        self.0.of(target).map(|upstream| upstream.name.clone()).unwrap_or_default()
    }

    /// Pingora's own verdict is not asked for: which checks take whom out is the breaker's affair.
    fn health_threshold(&self, _success: bool) -> usize {
        1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_edge_of_another_region_than_the_one_that_is_meant_is_not_asked() {
        let role = Role::Region("eu-west".into());
        let check = |region: &str, ready: bool, expected: bool| {
            let body = serde_json::json!({
                "region": region, "ready": ready, "pods": 1, "models": [], "kept": [], "slots": 8,
            });
            let read = read(&role, body.to_string().as_bytes());
            assert_eq!(read.is_ok(), expected, "{region} {ready}: {read:?}");
        };
        check("eu-west", true, true);
        check("eu-west", false, false);
        check("us-west", true, false);
    }
}
