//! Which web pages may ask from a browser: the CORS protocol of the Fetch standard. Pure.
//!
//! The key is in a header, never in a cookie, so no credentials are allowed by it and `*` gives
//! nothing away.

use http::{HeaderMap, HeaderName, HeaderValue, header};
use nearhop_conf::Cors;

type Headers = Vec<(HeaderName, HeaderValue)>;

/// What a page may read of an answer beside its body.
const EXPOSED: &str = "x-request-id, retry-after, x-should-retry, server-timing, cache-status, \
     x-nearhop-source, x-nearhop-region, x-ratelimit-limit-requests, x-ratelimit-remaining-requests, \
     x-ratelimit-reset-requests, x-ratelimit-limit-tokens, x-ratelimit-remaining-tokens, \
     x-ratelimit-reset-tokens";

/// The pages that may ask.
#[derive(Debug, Default)]
pub(crate) struct Origins {
    any: bool,
    origins: Vec<String>,
    max_age: u64,
}

impl Origins {
    pub(crate) fn new(cors: Option<&Cors>) -> Self {
        let Some(cors) = cors else { return Self::default() };
        Self {
            any: cors.origins.iter().any(|origin| origin == "*"),
            origins: cors.origins.clone(),
            max_age: cors.max_age.as_secs(),
        }
    }

    fn allows(&self, origin: &HeaderValue) -> bool {
        self.any || self.origins.iter().any(|allowed| origin == allowed.as_str())
    }

    /// What every answer to a page that may ask says. Nothing where no page may ask.
    pub(crate) fn answer(&self, request: &HeaderMap) -> Headers {
        if !self.any && self.origins.is_empty() {
            return Headers::new();
        }
        // An answer for one page must not be another's, wherever it is kept.
        let mut headers = vec![(header::VARY, HeaderValue::from_static("origin"))];
        if let Some(origin) = request.get(header::ORIGIN).filter(|origin| self.allows(origin)) {
            headers.push((header::ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone()));
            let exposed = HeaderValue::from_static(EXPOSED);
            headers.push((header::ACCESS_CONTROL_EXPOSE_HEADERS, exposed));
        }
        headers
    }

    /// What the answer to a preflight says beside that; `None` where this is none, or its page may
    /// not ask.
    pub(crate) fn preflight(&self, request: &HeaderMap) -> Option<Headers> {
        let origin = request.get(header::ORIGIN)?;
        request.get(header::ACCESS_CONTROL_REQUEST_METHOD)?;
        if !self.allows(origin) {
            return None;
        }
        let wanted = request.get(header::ACCESS_CONTROL_REQUEST_HEADERS).cloned();
        Some(vec![
            (header::ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("GET, POST")),
            (
                header::ACCESS_CONTROL_ALLOW_HEADERS,
                wanted.unwrap_or(HeaderValue::from_static("authorization, content-type")),
            ),
            (header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from(self.max_age)),
        ])
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn origins(origins: &[&str]) -> Origins {
        let origins = origins.iter().map(|origin| (*origin).to_owned()).collect();
        Origins::new(Some(&Cors { origins, max_age: Duration::from_secs(60) }))
    }

    fn request(headers: &[(&'static str, &'static str)]) -> HeaderMap {
        headers
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
            .collect()
    }

    fn allowed(origins: &Origins, origin: &'static str) -> bool {
        let answer = origins.answer(&request(&[("origin", origin)]));
        answer.iter().any(|(name, _)| name == header::ACCESS_CONTROL_ALLOW_ORIGIN)
    }

    #[test]
    fn only_listed_pages_may_ask() {
        let some = origins(&["https://a.example"]);
        assert!(allowed(&some, "https://a.example"));
        assert!(!allowed(&some, "https://a.example.evil"));
        assert!(!allowed(&some, "null"));
        assert!(allowed(&origins(&["*"]), "https://b.example"));
        assert!(Origins::default().answer(&request(&[("origin", "https://a.example")])).is_empty());
    }

    #[test]
    fn a_preflight_is_one_only_with_its_method() {
        let some = origins(&["https://a.example"]);
        let preflight = |headers| some.preflight(&request(headers)).is_some();
        assert!(preflight(&[
            ("origin", "https://a.example"),
            ("access-control-request-method", "POST")
        ]));
        assert!(!preflight(&[("origin", "https://a.example")]));
        assert!(!preflight(&[
            ("origin", "https://b.example"),
            ("access-control-request-method", "POST")
        ]));
    }
}
