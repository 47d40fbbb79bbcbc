//! Whether an HTTP/1 request can be read in one way only. Pure.
//!
//! Where two readers of one message can disagree about its end, a request can hide in another
//! (RFC 9112, section 11.2). Pingora resolves ambiguities as the RFC permits; this edge refuses
//! them, whatever stands before it: no client of ours sends any.

use http::{HeaderMap, Version, header};

/// Whether it is unambiguous; in words why not. `raw` is the whole header as it was sent.
pub(crate) fn judge(raw: &[u8], headers: &HeaderMap, version: Version) -> Result<(), &'static str> {
    let mut before = b'\n';
    for byte in raw {
        if *byte == b'\n' && before != b'\r' {
            return Err("a line ends without a carriage return");
        }
        before = *byte;
    }
    let hosts = headers.get_all(header::HOST).iter().count();
    if version == Version::HTTP_11 && hosts != 1 {
        return Err("HTTP/1.1 has one Host");
    }
    let mut codings = headers.get_all(header::TRANSFER_ENCODING).iter();
    let Some(coding) = codings.next() else { return Ok(()) };
    if codings.next().is_some() || !coding.as_bytes().eq_ignore_ascii_case(b"chunked") {
        return Err("the one transfer coding is `chunked`, named once");
    }
    // Pingora takes Content-Length out where both stand; the raw text still has it.
    match lines(raw).any(|line| names(line, b"content-length")) {
        true => Err("the length is said twice"),
        false => Ok(()),
    }
}

fn lines(raw: &[u8]) -> impl Iterator<Item = &[u8]> {
    raw.split(|byte| *byte == b'\n')
}

fn names(line: &[u8], name: &[u8]) -> bool {
    line.split(|byte| *byte == b':').next().is_some_and(|found| {
        found.trim_ascii().eq_ignore_ascii_case(name) && found.len() < line.len()
    })
}

#[cfg(test)]
mod tests {
    use http::HeaderName;

    use super::*;

    fn check(raw: &str, expected: bool) {
        let mut headers = HeaderMap::new();
        for line in raw.lines().skip(1) {
            if let Some((name, value)) = line.split_once(':') {
                let name = HeaderName::from_bytes(name.trim().to_lowercase().as_bytes()).unwrap();
                headers.append(name, value.trim().parse().unwrap());
            }
        }
        assert_eq!(judge(raw.as_bytes(), &headers, Version::HTTP_11).is_ok(), expected, "{raw:?}");
    }

    #[test]
    fn only_what_has_one_reading_is_read() {
        check("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\n", true);
        check("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: Chunked\r\n\r\n", true);
        check("POST / HTTP/1.1\r\nContent-Length: 1\r\n\r\n", false);
        check("POST / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", false);
        check("POST / HTTP/1.1\r\nHost: a\n\r\n", false);
        check("POST / HTTP/1.1\nHost: a\r\n\r\n", false);
        check("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: identity, chunked\r\n\r\n", false);
        check(
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
            false,
        );
        check(
            "POST / HTTP/1.1\r\nHost: a\r\ncontent-LENGTH: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
            false,
        );
        check(
            "POST / HTTP/1.1\r\nHost: a\r\nX-Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
            true,
        );
    }
}
