//! Every metric of the edge.

use nearhop_admin::{Metrics, latency_buckets};
use prometheus::{GaugeVec, HistogramVec, IntCounterVec, IntGauge, IntGaugeVec};

/// The edge's metrics. Labels take few values, all of them ours: never a prompt, key or path.
#[derive(Debug, Clone)]
pub(crate) struct EdgeMetrics {
    pub(crate) requests: IntCounterVec,
    pub(crate) duration_seconds: HistogramVec,
    pub(crate) first_token_seconds: HistogramVec,
    pub(crate) tokens: IntCounterVec,
    pub(crate) usage: IntCounterVec,
    pub(crate) limited: IntCounterVec,
    pub(crate) jwks: IntCounterVec,
    pub(crate) in_progress: IntGauge,
    pub(crate) buffered: IntGauge,
    pub(crate) connections: IntGauge,
    pub(crate) connections_refused: IntCounterVec,
    pub(crate) reloads: IntCounterVec,
    pub(crate) spans: IntCounterVec,
    pub(crate) queue_depth: IntGauge,
    pub(crate) warm_ups: IntCounterVec,
    pub(crate) lookups: IntCounterVec,
    pub(crate) bypasses: IntCounterVec,
    pub(crate) stores: IntCounterVec,
    pub(crate) audits: IntCounterVec,
    pub(crate) audit_bound: GaugeVec,
    pub(crate) rule_serves: IntGaugeVec,
    pub(crate) l1_bytes: IntGauge,
    pub(crate) l1_places: IntGauge,
    pub(crate) attempts: IntCounterVec,
    pub(crate) ejections: IntCounterVec,
    pub(crate) pod_ready: IntGaugeVec,
    pub(crate) pod_in_flight: IntGaugeVec,
    pub(crate) probe_seconds: GaugeVec,
    pub(crate) probes: IntCounterVec,
    pub(crate) local_ready: IntGauge,
    pub(crate) local_memory: IntGauge,
    pub(crate) local_ends: IntCounterVec,
}

impl EdgeMetrics {
    pub(crate) fn new(metrics: &Metrics) -> Self {
        Self {
            requests: metrics.counters(
                "nearhop_requests_total",
                "Requests by kind, by where the answer came from, and by status.",
                &["kind", "source", "status"],
            ),
            duration_seconds: metrics.histograms(
                "gen_ai_server_request_duration_seconds",
                "From a request's header to its answer's last byte.",
                &["kind", "source"],
                latency_buckets(),
            ),
            first_token_seconds: metrics.histograms(
                "gen_ai_server_time_to_first_token_seconds",
                "From a request's header to the first content of its answer.",
                &["kind", "source"],
                latency_buckets(),
            ),
            tokens: metrics.counters(
                "gen_ai_client_token_usage_total",
                "Tokens of generated answers by type; answers from a cache are not in it.",
                &["gen_ai_token_type"],
            ),
            usage: metrics.counters(
                "nearhop_usage_tokens_total",
                "Tokens by whom they were for; a token's subjects count as their issuer.",
                &["tenant", "key", "served", "type"],
            ),
            limited: metrics.counters(
                "nearhop_limited_total",
                "Requests that a limit of a key or tenant refused, by which.",
                &["limit", "of"],
            ),
            jwks: metrics.counters(
                "nearhop_jwks_fetches_total",
                "Fetches of issuers' keys by result.",
                &["result"],
            ),
            in_progress: metrics.gauge("nearhop_requests_in_progress", "Requests being answered."),
            buffered: metrics
                .gauge("nearhop_buffered_bytes", "Bytes of requests and answers held at once."),
            connections: metrics
                .gauge("nearhop_connections", "Open connections of clients and edges."),
            connections_refused: metrics.counters(
                "nearhop_connections_refused_total",
                "Connections that a limit or a handshake ended, by which.",
                &["reason"],
            ),
            reloads: metrics.counters(
                "nearhop_config_reloads_total",
                "Changed configuration files by whether they were taken.",
                &["result"],
            ),
            spans: metrics.counters(
                "nearhop_spans_total",
                "Spans of traces by whether the collector took them.",
                &["result"],
            ),
            queue_depth: metrics.gauge(
                "completion_queue_depth",
                "Requests admitted that wait for a pod's first content.",
            ),
            warm_ups: metrics.counters(
                "nearhop_warm_ups_total",
                "Prompts that pods were asked to read ahead, by result.",
                &["result"],
            ),
            lookups: metrics.counters(
                "nearhop_cache_lookups_total",
                "Cache look-ups by tier and result.",
                &["tier", "result"],
            ),
            bypasses: metrics.counters(
                "nearhop_cache_bypasses_total",
                "Requests that may not be answered from the cache, by reason.",
                &["reason"],
            ),
            stores: metrics.counters(
                "nearhop_cache_stores_total",
                "Complete answers by the tier they were to enter and what became of that.",
                &["tier", "result"],
            ),
            audits: metrics.counters(
                "nearhop_reuse_audits_total",
                "Served answers that were generated again, by rule and result.",
                &["rule", "result"],
            ),
            audit_bound: metrics.real_gauges(
                "nearhop_reuse_differing_bound",
                "The most, with a confidence of 95 %, of what a rule serves that differs from a fresh answer.",
                &["rule"],
            ),
            rule_serves: metrics.gauges(
                "nearhop_reuse_rule_serves",
                "Whether a rule of reuse may serve.",
                &["rule"],
            ),
            l1_bytes: metrics.gauge("nearhop_l1_bytes", "Bytes held by the in-process cache."),
            l1_places: metrics.gauge(
                "nearhop_l1_places",
                "Cursor lines for which the in-process cache has answers.",
            ),
            attempts: metrics.counters(
                "nearhop_attempts_total",
                "Attempts on pods by how they ended.",
                &["pod", "outcome"],
            ),
            ejections: metrics.counters(
                "nearhop_ejections_total",
                "Pods taken out of service, by reason.",
                &["pod", "reason"],
            ),
            pod_ready: metrics.gauges("nearhop_pod_ready", "Whether a pod gets traffic.", &["pod"]),
            pod_in_flight: metrics.gauges(
                "nearhop_pod_in_flight",
                "Requests in progress on a pod.",
                &["pod"],
            ),
            probes: metrics.counters(
                "nearhop_probes_total",
                "Checks of pods by result.",
                &["pod", "result"],
            ),
            local_ready: metrics.gauge(
                "nearhop_local_pod_ready",
                "Whether the edge's own pod serves; 0 where there is none.",
            ),
            local_memory: metrics
                .gauge("nearhop_local_pod_memory_bytes", "Resident memory of the edge's own pod."),
            local_ends: metrics.counters(
                "nearhop_local_pod_ends_total",
                "Ends of the edge's own pod, by reason; it is started again.",
                &["reason"],
            ),
            probe_seconds: metrics.real_gauges(
                "nearhop_probe_seconds",
                "Time of a pod's last successful check.",
                &["pod"],
            ),
        }
    }
}
