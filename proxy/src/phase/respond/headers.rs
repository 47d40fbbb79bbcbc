//! The headers of answers: on all of them, on those that were generated or stored, and how the
//! caller's limits stand.

use std::time::Duration;

use http::{HeaderName, HeaderValue, header};
use nearhop_admin::clock;
use nearhop_admission::Standing;

use super::super::record::{Record, Source};

pub(super) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
pub(super) const SOURCE: HeaderName = HeaderName::from_static("x-nearhop-source");
pub(super) const REGION: HeaderName = HeaderName::from_static("x-nearhop-region");
pub(super) const LEVEL: HeaderName = HeaderName::from_static("x-nearhop-level");
pub(super) const SHOULD_RETRY: HeaderName = HeaderName::from_static("x-should-retry");
pub(super) const POD: HeaderName = HeaderName::from_static("x-nearhop-pod");
pub(super) const CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");
pub(super) const SERVER_TIMING: HeaderName = HeaderName::from_static("server-timing");
pub(super) const JSON: HeaderValue = HeaderValue::from_static("application/json");
pub(super) const SSE: HeaderValue = HeaderValue::from_static("text/event-stream; charset=utf-8");
/// Answers are somebody's code: no cache between here and the editor keeps them.
pub(super) const NO_STORE: HeaderValue = HeaderValue::from_static("no-store");

pub(super) type Headers = Vec<(HeaderName, HeaderValue)>;

/// On every answer, good or bad.
pub(super) fn common(record: &Record<'_>) -> Headers {
    let mut headers = Headers::with_capacity(11);
    let id = HeaderValue::try_from(record.request_id.as_str());
    headers.push((REQUEST_ID, id.expect("a request id is plain ASCII")));
    headers.push((REGION, record.shared.region.clone()));
    headers.push((LEVEL, HeaderValue::from_static(record.shared.level().name())));
    headers.push(record.trace_header());
    headers.extend(record.page.iter().cloned());
    headers
}

pub(super) fn answer_headers(
    record: &Record<'_>,
    source: Source,
    content_type: HeaderValue,
    cache_status: HeaderValue,
) -> Headers {
    let mut headers = common(record);
    headers.push((header::CONTENT_TYPE, content_type));
    headers.push((header::CACHE_CONTROL, NO_STORE));
    headers.push((SOURCE, source.header()));
    headers.push((CACHE_STATUS, cache_status));
    headers.extend(standing_headers(&record.standing));
    headers
}

/// How the caller's limits stand, in OpenAI's words.
pub(super) fn standing_headers(standing: &Standing) -> Headers {
    let mut headers = Headers::new();
    let names = [
        [
            "x-ratelimit-limit-requests",
            "x-ratelimit-remaining-requests",
            "x-ratelimit-reset-requests",
        ],
        ["x-ratelimit-limit-tokens", "x-ratelimit-remaining-tokens", "x-ratelimit-reset-tokens"],
    ];
    for (left, [limit, remaining, reset]) in [standing.requests, standing.tokens].iter().zip(names)
    {
        let Some(left) = left else { continue };
        headers.push((HeaderName::from_static(limit), HeaderValue::from(left.limit)));
        headers.push((HeaderName::from_static(remaining), HeaderValue::from(left.remaining)));
        let time = HeaderValue::try_from(short_time(left.reset)).expect("plain ASCII");
        headers.push((HeaderName::from_static(reset), time));
    }
    headers
}

/// `6m0s`, `1.5s` or `120ms`, as OpenAI writes times.
fn short_time(time: Duration) -> String {
    let millis = time.as_millis();
    match (millis / 60_000, millis % 60_000) {
        (0, millis) if millis < 1000 => format!("{millis}ms"),
        (0, millis) => format!("{}s", millis as f64 / 1e3),
        (minutes, millis) => format!("{minutes}m{}s", millis / 1000),
    }
}

/// The pod that generates.
pub(super) fn pod_header(pod: &str) -> Option<(HeaderName, HeaderValue)> {
    HeaderValue::try_from(pod).ok().map(|pod| (POD, pod))
}

/// Time since the request's header, under the name of what it was spent on (W3C Server Timing).
pub(super) fn timing(record: &Record<'_>, what: &str) -> (HeaderName, HeaderValue) {
    let micros = (clock::now() - record.arrived).as_micros();
    let value = HeaderValue::try_from(format!("{what};dur={}.{:03}", micros / 1000, micros % 1000));
    (SERVER_TIMING, value.expect("plain ASCII"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_openai_does() {
        let check =
            |millis, expected| assert_eq!(short_time(Duration::from_millis(millis)), expected);
        check(0, "0ms");
        check(120, "120ms");
        check(1500, "1.5s");
        check(60_000, "1m0s");
        check(366_500, "6m6s");
    }
}
