//! The metrics registry: Prometheus text, names declared once by the part that counts.

use prometheus::{
    Encoder as _, Gauge, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter,
    IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, TextEncoder, core::Collector,
};

/// A role's metrics. Clones share the same registry.
#[derive(Clone, Default)]
pub struct Metrics(Registry);

/// Seconds from 0.5 ms (a cache hit) to two minutes (a long chat); 150, 200, 300 and 500 ms are
/// bounds that operators watch.
#[must_use]
pub fn latency_buckets() -> Vec<f64> {
    vec![
        0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.15, 0.2, 0.3, 0.5, 1.0, 2.5, 5.0,
        10.0, 30.0, 60.0, 120.0,
    ]
}

impl Metrics {
    fn register<C: Collector + Clone + 'static>(&self, metric: prometheus::Result<C>) -> C {
        let metric = metric.expect("metric names and labels are constants of ours");
        self.0.register(Box::new(metric.clone())).expect("each metric is declared once");
        metric
    }

    /// A count that only grows.
    pub fn counter(&self, name: &str, help: &str) -> IntCounter {
        self.register(IntCounter::new(name, help))
    }

    /// A count per label values.
    pub fn counters(&self, name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
        self.register(IntCounterVec::new(Opts::new(name, help), labels))
    }

    /// A whole number that goes up and down.
    pub fn gauge(&self, name: &str, help: &str) -> IntGauge {
        self.register(IntGauge::new(name, help))
    }

    /// A whole number per label values.
    pub fn gauges(&self, name: &str, help: &str, labels: &[&str]) -> IntGaugeVec {
        self.register(IntGaugeVec::new(Opts::new(name, help), labels))
    }

    /// A real number that goes up and down.
    pub fn real_gauge(&self, name: &str, help: &str) -> Gauge {
        self.register(Gauge::new(name, help))
    }

    /// A real number per label values.
    pub fn real_gauges(&self, name: &str, help: &str, labels: &[&str]) -> GaugeVec {
        self.register(GaugeVec::new(Opts::new(name, help), labels))
    }

    /// A distribution over `buckets`.
    pub fn histogram(&self, name: &str, help: &str, buckets: Vec<f64>) -> Histogram {
        self.register(Histogram::with_opts(HistogramOpts::new(name, help).buckets(buckets)))
    }

    /// A distribution per label values.
    pub fn histograms(
        &self,
        name: &str,
        help: &str,
        labels: &[&str],
        buckets: Vec<f64>,
    ) -> HistogramVec {
        self.register(HistogramVec::new(HistogramOpts::new(name, help).buckets(buckets), labels))
    }

    /// All of it and what the process uses, in Prometheus text format 0.0.4.
    #[must_use]
    pub fn render(&self) -> Vec<u8> {
        let mut out = crate::process::render().into_bytes();
        TextEncoder::new().encode(&self.0.gather(), &mut out).expect("a Vec takes every write");
        out
    }
}
