//! Active checks: Pingora's discovery and health service with our own check.
//!
//! A check is a whole `GET`, connection to last byte, under one deadline: Pingora's own check limits
//! each read, so that a dripping server holds it for ever. What is answered is also how the edge
//! learns which models it serves. External providers are not checked: each check would be a
//! request that somebody pays for.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
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
    balancer.set_health_check(Box::new(Check {
        upstreams: Arc::clone(upstreams),
        exchanges: Arc::clone(exchanges),
        deadline: probes.deadline,
        failures: probes.failures,
    }));
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

struct Check {
    upstreams: Arc<Upstreams>,
    exchanges: Arc<Exchanges>,
    deadline: Duration,
    failures: usize,
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

impl Check {
    /// Who is behind a backend now: another may have come to its address.
    fn of(&self, target: &Backend) -> Option<Arc<Upstream>> {
        self.upstreams.by_address(*target.addr.as_inet()?)
    }
}

#[async_trait]
impl HealthCheck for Check {
    async fn check(&self, target: &Backend) -> pingora::Result<()> {
        // It has just gone.
        let Some(upstream) = self.of(target) else { return Ok(()) };
        let began = clock::now();
        let checked = tokio::time::timeout(self.deadline, self.exchanges.readyz(&upstream)).await;
        let now = clock::now();
        let report = match checked {
            Ok(Ok(body)) => read(&upstream.role, &body),
            Ok(Err(reason)) => Err(reason),
            Err(_elapsed) => Err(format!("no answer within {} ms", self.deadline.as_millis())),
        };
        match report {
            Ok(report) => {
                self.upstreams.check_passed(&upstream, report, began, now);
                Ok(())
            }
            Err(reason) => {
                tracing::debug!(upstream = upstream.name, reason, "check failed");
                self.upstreams.check_failed(&upstream, self.failures, began, now);
                Error::e_explain(ErrorType::Custom("check failed"), reason)
            }
        }
    }

    fn backend_summary(&self, target: &Backend) -> String {
        self.of(target).map(|upstream| upstream.name.clone()).unwrap_or_default()
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
