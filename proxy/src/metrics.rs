//! Every metric of the edge.

use nearhop_admin::{Metrics, latency_buckets};
use prometheus::{
    Gauge, GaugeVec, Histogram, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec,
};

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
    pub(crate) tasks: IntGauge,
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
    pub(crate) l3_judged: IntCounterVec,
    pub(crate) l3_bound: GaugeVec,
    pub(crate) l3_limit: Gauge,
    pub(crate) l3_serves: IntGaugeVec,
    pub(crate) l3_bytes: IntGauge,
    pub(crate) l3_entries: IntGauge,
    pub(crate) embeddings: IntCounterVec,
    pub(crate) embedding_seconds: Histogram,
    pub(crate) l1_bytes: IntGauge,
    pub(crate) l1_places: IntGauge,
    pub(crate) attempts: IntCounterVec,
    pub(crate) ejections: IntCounterVec,
    pub(crate) upstream_ready: IntGaugeVec,
    pub(crate) upstream_in_flight: IntGaugeVec,
    pub(crate) breaker_state: IntGaugeVec,
    pub(crate) retries_denied: IntCounter,
    pub(crate) hedges: IntCounter,
    pub(crate) resumes: IntCounter,
    pub(crate) level: IntGauge,
    pub(crate) level_changes: IntCounterVec,
    pub(crate) concurrency_limit: IntGauge,
    pub(crate) shed: IntCounterVec,
    pub(crate) webhooks: IntCounterVec,
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
            tasks: metrics.gauge("nearhop_tasks", "Tasks of the runtimes that have not ended."),
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
            l3_judged: metrics.counters(
                "nearhop_l3_judged_total",
                "Answers that the semantic cache would have served, or did not for want of evidence, by what the model said.",
                &["tenant", "model", "by", "result"],
            ),
            l3_bound: metrics.real_gauges(
                "nearhop_l3_wrong_bound",
                "The most, with a confidence of 95 %, of what the semantic cache serves that is wrong.",
                &["tenant", "model", "by"],
            ),
            l3_limit: metrics.real_gauge(
                "nearhop_l3_wrong_limit",
                "The most that may be; over twice that a route goes off.",
            ),
            l3_serves: metrics.gauges(
                "nearhop_l3_serves",
                "Whether a route of the semantic cache serves: 1; 0 where not, or not yet; -1 where it was wrong too often and is off.",
                &["tenant", "model", "by"],
            ),
            l3_bytes: metrics.gauge("nearhop_l3_bytes", "Bytes held by the semantic cache."),
            l3_entries: metrics.gauge("nearhop_l3_entries", "Answers held by the semantic cache."),
            embeddings: metrics.counters(
                "nearhop_embeddings_total",
                "Vectors of questions and answers that were asked for, by result.",
                &["result"],
            ),
            embedding_seconds: metrics.histogram(
                "nearhop_embedding_seconds",
                "From asking for a vector to having it, or to giving up.",
                latency_buckets(),
            ),
            l1_bytes: metrics.gauge("nearhop_l1_bytes", "Bytes held by the in-process cache."),
            l1_places: metrics.gauge(
                "nearhop_l1_places",
                "Cursor lines for which the in-process cache has answers.",
            ),
            attempts: metrics.counters(
                "nearhop_attempts_total",
                "Attempts on upstreams by how they ended.",
                &["upstream", "class", "outcome"],
            ),
            ejections: metrics.counters(
                "nearhop_ejections_total",
                "Upstreams taken out of service, by reason.",
                &["upstream", "class", "reason"],
            ),
            upstream_ready: metrics.gauges(
                "nearhop_upstream_ready",
                "Whether an upstream gets traffic.",
                &["upstream", "class"],
            ),
            upstream_in_flight: metrics.gauges(
                "nearhop_upstream_in_flight",
                "Requests in progress on an upstream.",
                &["upstream", "class"],
            ),
            breaker_state: metrics.gauges(
                "nearhop_breaker_state",
                "An upstream's breaker: 0 closed, 1 half-open, 2 open.",
                &["upstream", "class"],
            ),
            retries_denied: metrics.counter(
                "nearhop_retries_denied_total",
                "Further attempts that were not made: the budget of all requests was used up.",
            ),
            hedges: metrics.counter(
                "nearhop_hedges_total",
                "Second attempts that were made beside late ones.",
            ),
            resumes: metrics.counter(
                "nearhop_resumes_total",
                "Answers that broke off and were gone on with elsewhere.",
            ),
            level: metrics.gauge(
                "nearhop_level",
                "How far service is degraded: 0, nothing is, to 4, nothing can generate.",
            ),
            level_changes: metrics.counters(
                "nearhop_level_changes_total",
                "Changes of the level by what caused them.",
                &["to", "cause"],
            ),
            concurrency_limit: metrics.gauge(
                "nearhop_concurrency_limit",
                "Requests that pods may work on at once, for this edge.",
            ),
            shed: metrics.counters(
                "nearhop_shed_total",
                "Requests refused because too much was asked at once, by kind.",
                &["kind"],
            ),
            webhooks: metrics.counters(
                "nearhop_webhooks_total",
                "Events told to the webhook by whether it took them.",
                &["result"],
            ),
            probes: metrics.counters(
                "nearhop_probes_total",
                "Checks of upstreams by result.",
                &["upstream", "class", "result"],
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
                "Time of an upstream's last successful check.",
                &["upstream", "class"],
            ),
        }
    }
}
