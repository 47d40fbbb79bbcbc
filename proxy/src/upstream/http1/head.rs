//! The head of a pod's answer. Pure.

use http::{HeaderMap, StatusCode, header};

use super::{Broken, body::Body};

/// A longer head is none.
pub(super) const HEAD_BYTES_MAX: usize = 64 << 10;
const FIELDS_MAX: usize = 64;

/// What is asked of an answer's head.
#[derive(Debug)]
pub(in crate::upstream) struct Head {
    pub(in crate::upstream) status: StatusCode,
    /// Those that somebody reads; the others are not kept.
    pub(in crate::upstream) headers: HeaderMap,
    /// Whether another request may follow on the connection.
    pub(super) keeps_open: bool,
}

/// Reads the head at the front of `bytes`, how its body ends, and how long the head is; `None` until
/// all of it is there. Interim answers are passed over.
pub(super) fn parse(bytes: &[u8]) -> Result<Option<(Head, Body, usize)>, Broken> {
    let mut start = 0;
    loop {
        let mut fields = [httparse::EMPTY_HEADER; FIELDS_MAX];
        let mut response = httparse::Response::new(&mut fields);
        let parsed = response.parse(&bytes[start..]).map_err(|_malformed| Broken)?;
        let httparse::Status::Complete(length) = parsed else { return Ok(None) };
        start += length;
        let status = StatusCode::from_u16(response.code.ok_or(Broken)?);
        let status = status.map_err(|_no_status| Broken)?;
        // We never ask for another protocol.
        match status {
            StatusCode::SWITCHING_PROTOCOLS => return Err(Broken),
            status if status.is_informational() => continue,
            _ => {}
        }
        let is_http11 = response.version == Some(1);
        let (head, body) = judge(status, is_http11, response.headers)?;
        return Ok(Some((head, body, start)));
    }
}

/// RFC 9112, section 6.3; what it allows to be read in one of two ways is refused.
fn judge(
    status: StatusCode,
    is_http11: bool,
    fields: &[httparse::Header<'_>],
) -> Result<(Head, Body), Broken> {
    let (mut length, mut coded, mut closes) = (None, false, !is_http11);
    let mut headers = HeaderMap::with_capacity(4);
    for field in fields {
        let is = |name: &http::HeaderName| field.name.eq_ignore_ascii_case(name.as_str());
        if is(&header::CONTENT_LENGTH) {
            let said = number(field.value)?;
            if length.is_some_and(|length| length != said) {
                return Err(Broken);
            }
            length = Some(said);
        } else if is(&header::TRANSFER_ENCODING) {
            if coded || !field.value.trim_ascii().eq_ignore_ascii_case(b"chunked") {
                return Err(Broken);
            }
            coded = true;
        } else if is(&header::CONNECTION) {
            let mut words = field.value.split(|byte| *byte == b',');
            closes |= words.any(|word| word.trim_ascii().eq_ignore_ascii_case(b"close"));
        } else if let Some(name) = KEPT.iter().find(|name| is(name)) {
            let value = http::HeaderValue::from_bytes(field.value);
            headers.append(name, value.map_err(|_no_value| Broken)?);
        }
    }
    if coded && (length.is_some() || !is_http11) {
        return Err(Broken);
    }
    let none = matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    let body = match (coded, length) {
        _ if none => Body::of_length(0),
        (true, _) => Body::chunked(),
        (false, Some(length)) => Body::of_length(length),
        (false, None) => Body::until_close(),
    };
    let keeps_open = !closes && body.ends_by_itself();
    Ok((Head { status, headers, keeps_open }, body))
}

/// The headers that somebody reads.
static KEPT: [http::HeaderName; 3] = [
    header::CONTENT_TYPE,
    header::RETRY_AFTER,
    http::HeaderName::from_static("endpoint-load-metrics"),
];

fn number(value: &[u8]) -> Result<u64, Broken> {
    let digits = value.trim_ascii();
    let all = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
    let text = std::str::from_utf8(digits).ok().filter(|_| all).ok_or(Broken)?;
    text.parse().map_err(|_too_many| Broken)
}
