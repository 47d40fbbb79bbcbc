//! What is counted of each model. Names that scalers and dashboards of other servers already ask
//! for come first; Nearhop's own follow.

use nearhop_admin::Metrics;
use nearhop_conf::Provider;
use prometheus::{
    Gauge, GaugeVec, Histogram, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec,
};

use crate::Model;

const LABELS: [&str; 2] = ["model_name", "revision"];

/// All models' counters, by name and revision.
#[derive(Clone)]
pub(crate) struct Families {
    loaded: IntGaugeVec,
    waiting: [IntGaugeVec; 2],
    running: IntGaugeVec,
    kv_use: GaugeVec,
    prefix_queries: IntCounterVec,
    prefix_hits: IntCounterVec,
    prefix_bytes: IntGaugeVec,
    first_token_seconds: HistogramVec,
    inter_token_seconds: HistogramVec,
    prefill_seconds: HistogramVec,
    decode_seconds: HistogramVec,
    batch: HistogramVec,
    cancelled: IntCounterVec,
    failed: IntCounterVec,
}

/// A loaded model, in the metrics.
pub(crate) struct Loaded(IntGauge);

impl Drop for Loaded {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// One model's counters.
#[derive(Clone)]
pub(crate) struct Counters {
    /// Rise when a sequence comes and fall when it leaves, however it leaves.
    pub(crate) waiting: Vec<IntGauge>,
    pub(crate) running: IntGauge,
    pub(crate) kv_use: Gauge,
    pub(crate) prefix_queries: IntCounter,
    pub(crate) prefix_hits: IntCounter,
    pub(crate) prefix_bytes: IntGauge,
    pub(crate) first_token_seconds: Histogram,
    pub(crate) inter_token_seconds: Histogram,
    pub(crate) prefill_seconds: Histogram,
    pub(crate) decode_seconds: Histogram,
    pub(crate) batch: Histogram,
    pub(crate) cancelled: IntCounter,
    pub(crate) failed: IntCounter,
}

impl Families {
    pub(crate) fn new(metrics: &Metrics) -> Self {
        let seconds =
            |name, help| metrics.histograms(name, help, &LABELS, nearhop_admin::latency_buckets());
        let count = |name, help| metrics.counters(name, help, &LABELS);
        let waits = "Sequences that wait for a slot.";
        Self {
            loaded: metrics.gauges(
                "nearhop_model_loaded",
                "Whether a model is loaded, and what computes it.",
                &["model_name", "revision", "kind", "provider"],
            ),
            waiting: ["vllm:num_requests_waiting", "llm_inference_queue_length"]
                .map(|name| metrics.gauges(name, waits, &LABELS)),
            running: metrics.gauges(
                "vllm:num_requests_running",
                "Sequences that hold a slot.",
                &LABELS,
            ),
            kv_use: metrics.real_gauges(
                "vllm:kv_cache_usage_perc",
                "Tokens in the KV pool, of those it can hold, 0 to 1.",
                &LABELS,
            ),
            prefix_queries: count(
                "vllm:prefix_cache_queries_total",
                "Prompt tokens that were looked for in the prefix cache.",
            ),
            prefix_hits: count(
                "vllm:prefix_cache_hits_total",
                "Prompt tokens that were found in the prefix cache.",
            ),
            prefix_bytes: metrics.gauges(
                "nearhop_prefix_cache_bytes",
                "Memory of the prefix cache.",
                &LABELS,
            ),
            first_token_seconds: seconds(
                "gen_ai_server_time_to_first_token_seconds",
                "From a job's arrival to its first token.",
            ),
            inter_token_seconds: seconds(
                "gen_ai_server_time_per_output_token_seconds",
                "From one token of a sequence to its next.",
            ),
            prefill_seconds: seconds("nearhop_prefill_step_seconds", "Time of one prefill chunk."),
            decode_seconds: seconds("nearhop_decode_step_seconds", "Time of one decode step."),
            batch: metrics.histograms(
                "nearhop_decode_batch_sequences",
                "Sequences in one decode step.",
                &LABELS,
                vec![1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0],
            ),
            cancelled: count(
                "nearhop_sequences_cancelled_total",
                "Sequences that stopped because nobody waited for them any more.",
            ),
            failed: count("nearhop_sequences_failed_total", "Sequences that the engine gave up."),
        }
    }

    /// Shows that a model is loaded, until what is returned is dropped.
    pub(crate) fn show(&self, model: &Model, provider: Provider) -> Loaded {
        let (report, kind) = (model.report(), model.kind().name());
        let labels = [report.name.as_str(), report.revision.as_str(), kind, provider.name()];
        let gauge = self.loaded.with_label_values(&labels);
        gauge.inc();
        Loaded(gauge)
    }

    /// The counters of one model.
    pub(crate) fn of(&self, model: &str, revision: &str) -> Counters {
        let labels = &[model, revision];
        Counters {
            waiting: self.waiting.iter().map(|all| all.with_label_values(labels)).collect(),
            running: self.running.with_label_values(labels),
            kv_use: self.kv_use.with_label_values(labels),
            prefix_queries: self.prefix_queries.with_label_values(labels),
            prefix_hits: self.prefix_hits.with_label_values(labels),
            prefix_bytes: self.prefix_bytes.with_label_values(labels),
            first_token_seconds: self.first_token_seconds.with_label_values(labels),
            inter_token_seconds: self.inter_token_seconds.with_label_values(labels),
            prefill_seconds: self.prefill_seconds.with_label_values(labels),
            decode_seconds: self.decode_seconds.with_label_values(labels),
            batch: self.batch.with_label_values(labels),
            cancelled: self.cancelled.with_label_values(labels),
            failed: self.failed.with_label_values(labels),
        }
    }
}
