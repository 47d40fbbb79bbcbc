//! Traces to a collector: OTLP over HTTP in its JSON form (OpenTelemetry protocol, section
//! "OTLP/HTTP"). Optional, beside the requests' path, and lossy before it is ever slow.
//!
//! Our own few lines: what is sent is one document a second. The SDK would bring a second HTTP
//! client and its own threads.

use std::time::Duration;

use bytes::Bytes;
use nearhop_admin::{Question, Trust, fetch};
use prometheus::IntCounterVec;
use serde_json::{Value, json};
use tokio::{
    sync::mpsc,
    time::{MissedTickBehavior, interval},
};

/// Spans that wait; more are dropped and counted.
const WAITING_MAX: usize = 4096;
/// Spans of one document.
const BATCH_MAX: usize = 512;
const EVERY: Duration = Duration::from_secs(1);
const WITHIN: Duration = Duration::from_secs(5);

/// One span, in OTLP's words.
#[derive(Debug, Clone)]
pub(crate) struct Span {
    pub(crate) trace: u128,
    pub(crate) span: u64,
    pub(crate) parent: Option<u64>,
    pub(crate) name: &'static str,
    pub(crate) kind: SpanKind,
    /// Nanoseconds of Unix time.
    pub(crate) start: u128,
    pub(crate) end: u128,
    pub(crate) failed: bool,
    pub(crate) attributes: Vec<(&'static str, String)>,
}

/// `SpanKind` of OTLP.
#[derive(Debug, Clone, Copy)]
pub(crate) enum SpanKind {
    Server = 2,
    Client = 3,
}

/// Where finished spans go.
#[derive(Debug, Clone)]
pub(crate) struct Exporter {
    waiting: mpsc::Sender<Span>,
    spans: IntCounterVec,
    /// The share of new traces that are recorded.
    pub(crate) sample: f64,
}

impl Exporter {
    /// An exporter, and what sends its spans until all exporters are gone.
    pub(crate) fn new(
        endpoint: String,
        sample: f64,
        region: String,
        spans: IntCounterVec,
    ) -> (Self, impl Future<Output = ()> + Send) {
        let (waiting, spans_waiting) = mpsc::channel(WAITING_MAX);
        let sending = send_all(spans_waiting, endpoint, region, spans.clone());
        (Self { waiting, spans, sample }, sending)
    }

    /// Takes a span, where there is room.
    pub(crate) fn take(&self, span: Span) {
        if self.waiting.try_send(span).is_err() {
            self.spans.with_label_values(&["dropped"]).inc();
        }
    }
}

async fn send_all(
    mut waiting: mpsc::Receiver<Span>,
    endpoint: String,
    region: String,
    spans: IntCounterVec,
) {
    let mut tick = interval(EVERY);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut open = true;
    while open {
        tick.tick().await;
        let mut batch = Vec::new();
        while batch.len() < BATCH_MAX {
            match waiting.try_recv() {
                Ok(span) => batch.push(span),
                Err(mpsc::error::TryRecvError::Empty) => break,
                Err(mpsc::error::TryRecvError::Disconnected) => {
                    open = false;
                    break;
                }
            }
        }
        if batch.is_empty() {
            continue;
        }
        let body = Bytes::from(document(&batch, &region).to_string());
        let question = Question {
            url: &endpoint,
            host: None,
            trust: Trust::System,
            body: Some(body),
            bearer: None,
            limit: 64 << 10,
            within: WITHIN,
        };
        let result = match fetch(question).await {
            Ok(_) => "sent",
            Err(error) => {
                tracing::debug!(%error, "traces were not taken");
                "failed"
            }
        };
        spans.with_label_values(&[result]).inc_by(batch.len() as u64);
    }
}

/// `ExportTraceServiceRequest` in the JSON form of protocol buffers.
fn document(spans: &[Span], region: &str) -> Value {
    let text = |key: &str, value: &str| json!({"key": key, "value": {"stringValue": value}});
    let spans: Vec<Value> = spans
        .iter()
        .map(|span| {
            let attributes: Vec<Value> =
                span.attributes.iter().map(|(key, value)| text(key, value)).collect();
            let mut written = json!({
                "traceId": format!("{:032x}", span.trace),
                "spanId": format!("{:016x}", span.span),
                "name": span.name,
                "kind": span.kind as u8,
                "startTimeUnixNano": span.start.to_string(),
                "endTimeUnixNano": span.end.to_string(),
                "attributes": attributes,
                "status": { "code": if span.failed { 2 } else { 0 } },
            });
            if let Some(parent) = span.parent {
                written["parentSpanId"] = json!(format!("{parent:016x}"));
            }
            written
        })
        .collect();
    json!({"resourceSpans": [{
        "resource": {"attributes": [
            text("service.name", "nearhop-edge"),
            text("service.version", env!("CARGO_PKG_VERSION")),
            text("cloud.region", region),
        ]},
        "scopeSpans": [{"scope": {"name": "nearhop"}, "spans": spans}],
    }]})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_is_written_as_otlp_has_it() {
        let span = Span {
            trace: 1,
            span: 2,
            parent: Some(3),
            name: "completion",
            kind: SpanKind::Server,
            start: 10,
            end: 20,
            failed: true,
            attributes: vec![("nearhop.kind", "fim".to_owned())],
        };
        let written = document(&[span], "eu");
        let span = &written["resourceSpans"][0]["scopeSpans"][0]["spans"][0];
        assert_eq!(span["traceId"], "00000000000000000000000000000001");
        assert_eq!(
            (&span["spanId"], &span["parentSpanId"]),
            (&json!("0000000000000002"), &json!("0000000000000003"))
        );
        assert_eq!((&span["startTimeUnixNano"], &span["kind"]), (&json!("10"), &json!(2)));
        assert_eq!(span["attributes"][0]["value"]["stringValue"], "fim");
        assert_eq!(span["status"]["code"], 2);
    }
}
