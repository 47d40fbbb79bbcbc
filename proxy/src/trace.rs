//! W3C Trace Context: which trace a request belongs to. Pure; random numbers are arguments.

use http::{HeaderMap, HeaderName, HeaderValue};

pub(crate) const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
pub(crate) const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// Other vendors' state is carried, up to what the recommendation asks for.
const TRACESTATE_MAX: usize = 512;

/// A request's place in a trace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Trace {
    pub(crate) trace: u128,
    /// The span that called us.
    pub(crate) parent: Option<u64>,
    /// This request's own.
    pub(crate) span: u64,
    /// Whether it is recorded.
    pub(crate) sampled: bool,
    state: Option<HeaderValue>,
}

/// Fresh numbers for a trace that nobody began before.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Draw {
    pub(crate) trace: u128,
    pub(crate) span: u64,
    /// From 0 to 1: under the sampled share, it is recorded.
    pub(crate) share: f64,
}

impl Draw {
    pub(crate) fn new() -> Self {
        Self { trace: fastrand::u128(1..), span: fastrand::u64(1..), share: fastrand::f64() }
    }
}

impl Trace {
    /// That of the request's headers, else a new one, of which `sample` is recorded.
    pub(crate) fn of(headers: &HeaderMap, draw: Draw, sample: f64) -> Self {
        // Several are as good as none (Trace Context, section 3.2.1).
        let mut given = headers.get_all(TRACEPARENT).iter();
        let parsed = given.next().and_then(parse).filter(|_| given.next().is_none());
        match parsed {
            Some((trace, parent, sampled)) => {
                let state = headers.get(TRACESTATE).filter(|state| state.len() <= TRACESTATE_MAX);
                let state = state.cloned();
                Self { trace, parent: Some(parent), span: draw.span, sampled, state }
            }
            None => Self {
                trace: draw.trace,
                parent: None,
                span: draw.span,
                sampled: draw.share < sample,
                state: None,
            },
        }
    }

    /// The header with this request's span as the parent.
    pub(crate) fn header(&self) -> HeaderValue {
        self.header_under(self.span)
    }

    /// The header with another span of this trace as the parent.
    pub(crate) fn header_under(&self, span: u64) -> HeaderValue {
        let mut text = *b"00-00000000000000000000000000000000-0000000000000000-00";
        hex(&mut text[3..35], &self.trace.to_be_bytes());
        hex(&mut text[36..52], &span.to_be_bytes());
        text[54] = if self.sampled { b'1' } else { b'0' };
        HeaderValue::from_bytes(&text).expect("plain ASCII")
    }

    /// What goes along with it.
    pub(crate) fn state(&self) -> Option<&HeaderValue> {
        self.state.as_ref()
    }
}

/// Two digits a byte. On every answer: formatting them would cost several times as much.
pub(crate) fn hex(out: &mut [u8], bytes: &[u8]) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    for (pair, byte) in out.chunks_exact_mut(2).zip(bytes) {
        pair[0] = DIGITS[usize::from(byte >> 4)];
        pair[1] = DIGITS[usize::from(byte & 15)];
    }
}

/// Trace, parent and whether it is sampled (Trace Context, section 3.2.2). Later versions may have
/// more fields, which are not ours to read.
fn parse(value: &HeaderValue) -> Option<(u128, u64, bool)> {
    let text = value.to_str().ok()?;
    let mut parts = text.splitn(5, '-');
    let (version, trace, parent, flags) =
        (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let lower = |part: &str, length| {
        part.len() == length
            && part.bytes().all(|c| c.is_ascii_digit() || (b'a'..=b'f').contains(&c))
    };
    let shaped = lower(version, 2) && lower(trace, 32) && lower(parent, 16) && lower(flags, 2);
    if !shaped || version == "ff" || (version == "00" && parts.next().is_some()) {
        return None;
    }
    let trace = u128::from_str_radix(trace, 16).ok().filter(|id| *id != 0)?;
    let parent = u64::from_str_radix(parent, 16).ok().filter(|id| *id != 0)?;
    let flags = u8::from_str_radix(flags, 16).ok()?;
    Some((trace, parent, flags & 1 == 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DRAW: Draw = Draw { trace: 7, span: 9, share: 0.5 };
    const GIVEN: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    fn of(values: &[&str]) -> Trace {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(TRACEPARENT, value.parse().unwrap());
        }
        Trace::of(&headers, DRAW, 0.1)
    }

    #[test]
    fn a_given_trace_goes_on_under_a_span_of_ours() {
        let trace = of(&[GIVEN]);
        assert_eq!(trace.parent, Some(0x00f0_67aa_0ba9_02b7));
        assert!(trace.sampled);
        assert_eq!(trace.header(), "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000009-01");
        assert!(
            of(&["01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00-more"]).parent.is_some()
        );
    }

    #[test]
    fn what_is_no_trace_begins_a_new_one() {
        let upper = GIVEN.to_uppercase();
        let zero = GIVEN.replace("4bf92f3577b34da6a3ce929d0e0e4736", &"0".repeat(32));
        let long = format!("{GIVEN}-x");
        for wrong in [
            &[][..],
            &["x"],
            &[&upper],
            &[&zero],
            &[&long],
            &["ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"],
            &[GIVEN, GIVEN],
        ] {
            assert_eq!(of(wrong).trace, DRAW.trace, "{wrong:?}");
        }
        assert!(!of(&[]).sampled, "0.5 is not under 0.1");
        assert!(Trace::of(&HeaderMap::new(), DRAW, 0.6).sampled);
    }
}
