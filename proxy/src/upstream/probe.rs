//! Active checks: Pingora's discovery and health service with our own check.
//!
//! A check is a whole `GET /readyz`, connection to last byte, under one deadline: Pingora's own
//! check limits each read, so that a dripping server holds it for ever. What a pod answers is also
//! how the edge learns which models it serves.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use async_trait::async_trait;
use nearhop_admin::clock;
use nearhop_conf::Probes;
use nearhop_wire::PodReport;
use pingora::{
    Error, ErrorType,
    lb::{
        Backend, Backends, LoadBalancer, discovery::Static, health_check::HealthCheck,
        selection::RoundRobin,
    },
};

use super::{
    exchange::Exchanges,
    pods::{Pod, Pods},
};

/// The service that checks `pods`. Its own choice among them is never asked for: routing knows
/// more.
pub(crate) fn service(
    pods: &Arc<Pods>,
    probes: &Probes,
    exchanges: &Arc<Exchanges>,
) -> LoadBalancer<RoundRobin> {
    let backends: BTreeSet<Backend> = pods.iter().map(backend).collect();
    let mut balancer = LoadBalancer::from_backends(Backends::new(Static::new(backends)));
    balancer.set_health_check(Box::new(Check {
        pods: Arc::clone(pods),
        exchanges: Arc::clone(exchanges),
        deadline: probes.deadline,
        failures: probes.failures,
    }));
    balancer.health_check_frequency = Some(probes.interval);
    // One after another, a dead pod would delay the checks of all others.
    balancer.parallel_health_check = true;
    balancer
}

fn backend(pod: &Arc<Pod>) -> Backend {
    let mut backend = Backend::new(&pod.address.to_string()).expect("an address is an address");
    backend.ext.insert(Arc::clone(pod));
    backend
}

struct Check {
    pods: Arc<Pods>,
    exchanges: Arc<Exchanges>,
    deadline: Duration,
    failures: usize,
}

#[async_trait]
impl HealthCheck for Check {
    async fn check(&self, target: &Backend) -> pingora::Result<()> {
        let pod = pod_of(target);
        let began = clock::now();
        let checked = tokio::time::timeout(self.deadline, self.exchanges.readyz(pod)).await;
        let now = clock::now();
        let report = match checked {
            Ok(Ok(body)) => serde_json::from_slice::<PodReport>(&body)
                .map_err(|error| format!("its /readyz is not a pod's: {error}")),
            Ok(Err(reason)) => Err(reason),
            Err(_elapsed) => Err(format!("no answer within {} ms", self.deadline.as_millis())),
        };
        match report {
            Ok(report) => {
                self.pods.probe_succeeded(pod, report, began, now);
                Ok(())
            }
            Err(reason) => {
                tracing::debug!(pod = pod.name, reason, "check failed");
                self.pods.probe_failed(pod, began, now);
                Error::e_explain(ErrorType::Custom("check failed"), reason)
            }
        }
    }

    async fn health_status_change(&self, target: &Backend, healthy: bool) {
        self.pods.probed(pod_of(target), healthy);
    }

    fn backend_summary(&self, target: &Backend) -> String {
        pod_of(target).name.clone()
    }

    fn health_threshold(&self, success: bool) -> usize {
        if success { 1 } else { self.failures }
    }
}

fn pod_of(target: &Backend) -> &Arc<Pod> {
    target.ext.get().expect("every backend was made from a pod")
}
