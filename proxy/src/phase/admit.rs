//! Who asks, for what, and whether it may be asked.

use std::{
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, header};
use nearhop_admission::{Caller, Denied, Jwks, credential};
use nearhop_conf::{Deadlines, Scope};
use nearhop_edge_cache::Asker;
use nearhop_geo::VOTES_PATH;
use nearhop_wire::{ApiError, CompletionRequest, Endpoint, Kind, ModelReport};

use super::record::Record;
use crate::{
    live::Live,
    reject::Reject,
    trace::hex,
    upstream::exchange::{HOP, VIEW_PATH},
};

/// What a request's head asks for.
#[derive(Debug)]
pub(crate) enum Target {
    /// `/health`: anybody may ask.
    Health,
    /// `/peer/v1/view`: other edges may ask.
    View,
    /// What this vantage point says of regions: others may ask.
    Votes,
    /// A browser asks whether its page may; with the answer's headers.
    Preflight(Vec<(HeaderName, HeaderValue)>),
    /// `/v1/models`.
    Models,
    /// `/v1/health`, as Tabby's plug-ins ask.
    TabbyHealth,
    /// A completion; its body comes next.
    Completion(Head),
    /// The same, that another region's edge passes on.
    Hop(Head),
}

/// The head of a completion request.
#[derive(Debug, Clone)]
pub(crate) struct Head {
    pub(crate) caller: Arc<Caller>,
    endpoint: Endpoint,
    pub(crate) no_store: bool,
    pub(crate) no_cache: bool,
    kind: Option<Kind>,
    timeout: Option<Duration>,
    /// The editor's session, where a header says so.
    session: Option<String>,
    /// How alike a question must be whose answer is taken.
    pub(crate) similarity: Option<f32>,
}

impl Head {
    /// Of a request that is only explained.
    pub(crate) fn explained(caller: Caller, endpoint: Endpoint) -> Self {
        let (caller, session) = (Arc::new(caller), None);
        Self {
            caller,
            endpoint,
            no_store: false,
            no_cache: false,
            kind: None,
            timeout: None,
            session,
            similarity: None,
        }
    }
}

/// A request that may be answered: read once, trusted after.
#[derive(Debug)]
pub(crate) struct Admitted {
    pub(crate) head: Head,
    pub(crate) request: CompletionRequest,
    /// As the client sent it; the pod gets its fields.
    pub(crate) body: Bytes,
    pub(crate) kind: Kind,
    pub(crate) deadline: Instant,
    /// Whether the client asked for less time than its kind has.
    pub(crate) hurried: bool,
    /// The model that was asked for, at the revision that will answer.
    pub(crate) model: Arc<ModelReport>,
    /// Where the client is.
    pub(crate) client: IpAddr,
}

impl Admitted {
    /// Whose question it is, as the caches tell them apart.
    pub(crate) fn asker(&self) -> Asker<'_> {
        let Caller { tenant, key, user, .. } = &*self.head.caller;
        Asker { tenant, key, user: user.as_deref() }
    }
}

impl Admitted {
    /// The same request, asked by nobody who waits for it.
    pub(crate) fn for_later(&self, now: Instant) -> Self {
        const TIME: Duration = Duration::from_secs(60);
        let (request, body) = (self.request.clone(), self.body.clone());
        let (head, model) = (self.head.clone(), Arc::clone(&self.model));
        let (kind, deadline, client) = (Kind::Agent, now + TIME, self.client);
        Self { head, request, body, kind, deadline, hurried: true, model, client }
    }

    /// Whether the client asked for this revision, and not only for the model.
    pub(crate) fn pinned(&self) -> bool {
        self.request.model.as_deref() == Some(self.model.fingerprint().as_str())
    }

    /// The model's name as a pod is to know it.
    pub(crate) fn name_at_pod(&self) -> String {
        if self.pinned() { self.model.fingerprint() } else { self.model.name.clone() }
    }
}

const REQUEST_ID_MAX: usize = 128;

/// The client's request id where it can be repeated in a header and a log, else a new one.
pub(crate) fn request_id(headers: &HeaderMap) -> String {
    let given = headers.get("x-request-id").and_then(|value| value.to_str().ok());
    let plain = |c: u8| c.is_ascii_alphanumeric() || b"-_.".contains(&c);
    match given {
        Some(id) if (1..=REQUEST_ID_MAX).contains(&id.len()) && id.bytes().all(plain) => {
            id.to_owned()
        }
        _ => new_request_id(),
    }
}

pub(crate) fn new_request_id() -> String {
    let mut text = [0; 32];
    hex(&mut text, &fastrand::u128(..).to_be_bytes());
    String::from_utf8_lossy(&text).into_owned()
}

/// A path as it may stand in a log: what a client invents must not fill it.
pub(crate) fn known_path(path: &str) -> &'static str {
    const KNOWN: [&str; 10] = [
        "/health",
        "/v1/health",
        "/v1/models",
        "/v1/completions",
        "/v1/chat/completions",
        "/v1/fim/completions",
        "/v1/infill",
        "/infill",
        VIEW_PATH,
        VOTES_PATH,
    ];
    KNOWN.into_iter().find(|known| *known == path).unwrap_or("other")
}

/// Judges what another edge asks for.
pub(crate) fn peer_target(
    method: &Method,
    path: &str,
    headers: &HeaderMap,
    live: &Live,
) -> Result<Target, Reject> {
    let takes = |allowed: Method, name: &'static str| match *method == allowed {
        true => Ok(()),
        false => Err(Reject::MethodNotAllowed { allowed: name }),
    };
    let endpoint = match path {
        VIEW_PATH => return takes(Method::GET, "GET").map(|()| Target::View),
        VOTES_PATH => return takes(Method::GET, "GET").map(|()| Target::Votes),
        "/v1/completions" => Endpoint::Completions,
        "/v1/chat/completions" => Endpoint::Chat,
        _ => return Err(Reject::NotFound),
    };
    takes(Method::POST, "POST")?;
    // Only on this listener, whose clients have shown certificates, are these believed.
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let tenant = text("x-nearhop-tenant").filter(|_| headers.contains_key(HOP));
    let tenant = tenant.ok_or(Reject::BadRequest)?;
    let caller = live.directory.on_behalf_of(tenant).ok_or(Reject::UnknownTenant)?;
    Ok(Target::Hop(Head {
        caller: Arc::new(caller),
        endpoint,
        no_store: true,
        no_cache: true,
        kind: asked_kind(headers),
        timeout: asked_timeout(headers)?,
        session: None,
        similarity: None,
    }))
}

/// Judges a request's head.
pub(crate) fn target(
    method: &Method,
    path: &str,
    headers: &HeaderMap,
    (live, jwks, now): (&Live, &Jwks, u64),
) -> Result<Target, Reject> {
    let limits = &live.limits;
    let caller = |headers| caller(headers, live, jwks, now);
    if headers.len() > limits.header_count {
        return Err(Reject::TooManyHeaders { limit: limits.header_count });
    }
    let bytes: usize = headers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
    if bytes > limits.headers.0 {
        return Err(Reject::HeadersTooLarge { limit: limits.headers.0 });
    }
    if *method == Method::OPTIONS
        && let Some(answer) = live.cors.preflight(headers)
    {
        return Ok(Target::Preflight(answer));
    }
    // What is said to a GET is said to a HEAD, less the body (RFC 9110, section 9.3.2).
    let meant = if *method == Method::HEAD { Method::GET } else { method.clone() };
    let takes = |allowed: Method, name: &'static str| match meant == allowed {
        true => Ok(()),
        false => Err(Reject::MethodNotAllowed { allowed: name }),
    };
    let endpoint = match path {
        "/health" => return takes(Method::GET, "GET").map(|()| Target::Health),
        "/v1/models" => {
            takes(Method::GET, "GET")?;
            caller(headers)?;
            return Ok(Target::Models);
        }
        "/v1/health" => {
            takes(Method::GET, "GET")?;
            caller(headers)?;
            return Ok(Target::TabbyHealth);
        }
        "/v1/completions" => Endpoint::Completions,
        "/v1/chat/completions" => Endpoint::Chat,
        "/v1/fim/completions" => Endpoint::Fim,
        "/infill" | "/v1/infill" => Endpoint::Infill,
        _ => return Err(Reject::NotFound),
    };
    takes(Method::POST, "POST")?;
    let caller = caller(headers)?;
    let (no_store, no_cache) = cache_directives(headers);
    Ok(Target::Completion(Head {
        caller,
        endpoint,
        no_store,
        no_cache,
        kind: asked_kind(headers),
        timeout: asked_timeout(headers)?,
        session: asked_session(headers)?,
        similarity: asked_similarity(headers)?,
    }))
}

/// Whose request it is; `now` is Unix time in seconds.
fn caller(headers: &HeaderMap, live: &Live, jwks: &Jwks, now: u64) -> Result<Arc<Caller>, Reject> {
    let value = |name: &str| headers.get(name).map(HeaderValue::as_bytes);
    let given = credential(value("authorization"), value("x-api-key").or_else(|| value("api-key")));
    live.directory.identify(given, jwks, now).map_err(|denied| match denied {
        Denied::Missing | Denied::Wrong => Reject::BadKey,
        Denied::Expired => Reject::ExpiredKey,
        Denied::UnknownTenant => Reject::UnknownTenant,
        Denied::KeysUnavailable => Reject::IssuerUnavailable,
    })
}

/// `no-store` and `no-cache` of the request (RFC 9111, section 5.2.1).
fn cache_directives(headers: &HeaderMap) -> (bool, bool) {
    let values = headers.get_all(header::CACHE_CONTROL);
    let mut directives =
        values.iter().filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(','));
    directives.by_ref().fold((false, false), |(no_store, no_cache), directive| {
        let directive = directive.trim();
        (
            no_store || directive.eq_ignore_ascii_case("no-store"),
            no_cache || directive.eq_ignore_ascii_case("no-cache"),
        )
    })
}

fn asked_kind(headers: &HeaderMap) -> Option<Kind> {
    let asked = headers.get("x-nearhop-kind")?;
    let kinds = [Kind::Inline, Kind::Fim, Kind::Chat, Kind::Agent];
    kinds.into_iter().find(|kind| asked == kind.name())
}

fn asked_session(headers: &HeaderMap) -> Result<Option<String>, Reject> {
    const BYTES_MAX: usize = 256;
    let Some(asked) = headers.get("x-nearhop-session") else { return Ok(None) };
    let session = asked.to_str().ok().filter(|text| (1..=BYTES_MAX).contains(&text.len()));
    session.map(|session| Some(session.to_owned())).ok_or_else(|| {
        let message = format!("x-nearhop-session must be 1 to {BYTES_MAX} visible characters");
        Reject::Invalid(ApiError::invalid("x-nearhop-session", message))
    })
}

/// Over what the edge asks of itself; less is no error, and changes nothing.
fn asked_similarity(headers: &HeaderMap) -> Result<Option<f32>, Reject> {
    let Some(asked) = headers.get("x-nearhop-similarity") else { return Ok(None) };
    let similarity = asked.to_str().ok().and_then(|text| text.parse::<f32>().ok());
    similarity.filter(|value| (0.0..=1.0).contains(value)).map(Some).ok_or_else(|| {
        let message = "x-nearhop-similarity must be a number from 0 to 1";
        Reject::Invalid(ApiError::invalid("x-nearhop-similarity", message))
    })
}

fn asked_timeout(headers: &HeaderMap) -> Result<Option<Duration>, Reject> {
    let Some(asked) = headers.get("x-nearhop-timeout-ms") else { return Ok(None) };
    let millis = asked.to_str().ok().and_then(|text| text.parse().ok()).filter(|ms| *ms > 0);
    millis.map(Duration::from_millis).map(Some).ok_or_else(|| {
        let message = "x-nearhop-timeout-ms must be a whole number of milliseconds over 0";
        Reject::Invalid(ApiError::invalid("x-nearhop-timeout-ms", message))
    })
}

/// Judges a request's body.
pub(crate) fn request(
    head: Head,
    body: Bytes,
    record: &Record<'_>,
    client: IpAddr,
) -> Result<Admitted, Reject> {
    let (shared, live, arrived) = (record.shared, record.live, record.arrived);
    let mut request = CompletionRequest::parse(head.endpoint, &body).map_err(Reject::Invalid)?;
    if request.declared.session.is_none() {
        request.declared.session.clone_from(&head.session);
    }
    let (bytes, limit) = (request.input.bytes(), live.limits.prompt.0);
    if bytes > limit {
        return Err(Reject::PromptTooLarge { limit, bytes });
    }
    let Some(model) = shared.upstreams.model(request.model.as_deref()) else {
        let models = shared.upstreams.models();
        let known: Vec<&str> = models.iter().map(|model| model.name.as_str()).collect();
        return Err(match &request.model {
            Some(name) if !known.is_empty() => {
                Reject::Invalid(ApiError::unknown_model(name, &known))
            }
            // No pod has said yet what it serves: we cannot know that the name is wrong.
            _ => Reject::NoPods,
        });
    };
    let needed = if request.kind().is_code() { Scope::Completions } else { Scope::Chat };
    if !head.caller.may(needed) {
        return Err(Reject::Scope { needed });
    }
    let here =
        |regions: &Vec<String>| regions.iter().any(|region| shared.region == region.as_str());
    if !head.caller.egress.regions.as_ref().is_none_or(here) {
        return Err(Reject::Region);
    }
    let kind = clamp(request.kind(), head.kind);
    let own = total(&live.deadlines, kind, None);
    let asked = [head.timeout, request.time_limit].into_iter().flatten().min();
    let asked = total(&live.deadlines, kind, asked);
    let (deadline, hurried) = (arrived + asked, asked < own);
    Ok(Admitted { head, request, body, kind, deadline, hurried, model, client })
}

/// A client may ask to be served later than its request's shape says, never earlier: else
/// everybody would be inline.
fn clamp(shape: Kind, asked: Option<Kind>) -> Kind {
    asked.map_or(shape, |asked| asked.max(shape))
}

fn total(deadlines: &Deadlines, kind: Kind, asked: Option<Duration>) -> Duration {
    let own = match kind {
        Kind::Inline => deadlines.inline,
        Kind::Fim => deadlines.fim,
        Kind::Chat => deadlines.chat,
        Kind::Agent => deadlines.agent,
    };
    asked.map_or(own, |asked| asked.min(own))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn live() -> Live {
        let secret = nearhop_conf::Secret::new("0123456789abcdef");
        let hash = nearhop_admission::hash_key(&secret, b"k");
        let hash: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
        let yaml = format!(
            "access: {{key_secret: 0123456789abcdef, keys: [{{name: k, tenant: t, hmac_sha256: '{hash}'}}]}}\nedge: {{listen: '127.0.0.1:0', admin: {{listen: '127.0.0.1:0'}}, pods: [{{name: p, address: '127.0.0.1:1'}}]}}"
        );
        let config = nearhop_conf::Config::read(&yaml, "test", &|_| None).unwrap();
        Live::new(&config, config.edge.as_ref().unwrap())
    }

    fn judge(
        method: Method,
        path: &str,
        headers: &[(&'static str, &str)],
    ) -> Result<Target, Reject> {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, value.parse().unwrap());
        }
        target(&method, path, &map, (&live(), &Jwks::default(), 0))
    }

    const KEY: (&str, &str) = ("authorization", "Bearer k");

    fn head(headers: &[(&'static str, &str)]) -> Head {
        let headers: Vec<_> = [KEY].iter().chain(headers).copied().collect();
        match judge(Method::POST, "/v1/completions", &headers).unwrap() {
            Target::Completion(head) => head,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn paths_methods_and_keys_are_judged_in_this_order() {
        let check = |method, path, headers: &[(&'static str, &str)], expected| {
            assert_eq!(judge(method, path, headers).unwrap_err(), expected);
        };
        check(Method::GET, "/", &[], Reject::NotFound);
        check(Method::GET, "/v1/completions/", &[KEY], Reject::NotFound);
        check(Method::GET, "/v1/completions", &[KEY], Reject::MethodNotAllowed { allowed: "POST" });
        check(Method::POST, "/v1/models", &[KEY], Reject::MethodNotAllowed { allowed: "GET" });
        check(Method::POST, "/v1/completions", &[], Reject::BadKey);
        check(Method::GET, "/v1/models", &[("authorization", "Bearer x")], Reject::BadKey);
        assert!(matches!(judge(Method::GET, "/health", &[]), Ok(Target::Health)));
        assert!(matches!(judge(Method::GET, "/v1/models", &[KEY]), Ok(Target::Models)));
    }

    proptest::proptest! {
        #![proptest_config(proptest::prelude::ProptestConfig::with_cases(2000))]

        /// Whatever the head of a request says, it is judged; and without the key nothing is let in.
        #[test]
        fn any_head_is_judged(
            path in "/(v1/)?[a-z/]{0,20}",
            names in proptest::collection::vec("(x-[a-z-]{1,12}|authorization|cache-control|traceparent|origin|x-nearhop-[a-z-]{1,12}|access-control-request-method)", 0..8),
            values in proptest::collection::vec("[ -~]{0,60}", 8),
            post in proptest::prelude::any::<bool>(),
        ) {
            let mut headers = HeaderMap::new();
            for (name, value) in names.iter().zip(&values) {
                let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
                headers.append(name, value.parse().unwrap());
            }
            let method = if post { Method::POST } else { Method::OPTIONS };
            let judged = target(&method, &path, &headers, (&live(), &Jwks::default(), 0));
            proptest::prop_assert!(!matches!(judged, Ok(Target::Completion(_) | Target::Models)));
            let id = request_id(&headers);
            proptest::prop_assert!(HeaderValue::try_from(id).is_ok());
            let trace = crate::trace::Trace::of(&headers, crate::trace::Draw::new(), 0.5);
            proptest::prop_assert_eq!(trace.header().len(), 55);
        }
    }

    #[test]
    fn headers_have_a_limit() {
        let long = "x".repeat(33 << 10);
        let reject = judge(Method::POST, "/v1/completions", &[KEY, ("x-long", &long)]).unwrap_err();
        assert_eq!(reject, Reject::HeadersTooLarge { limit: 32 << 10 });
    }

    #[test]
    fn cache_directives_are_read() {
        let directives = |value: &str| {
            let head = head(&[("cache-control", value)]);
            (head.no_store, head.no_cache)
        };
        assert_eq!(directives("max-age=0"), (false, false));
        assert_eq!(directives("No-Store"), (true, false));
        assert_eq!(directives("max-age=0, no-cache ,no-store"), (true, true));
    }

    #[test]
    fn a_client_may_ask_for_less_time_and_a_later_turn_only() {
        let deadlines = Deadlines::default();
        let second = Duration::from_secs(1);
        assert_eq!(total(&deadlines, Kind::Inline, Some(second)), second);
        assert_eq!(total(&deadlines, Kind::Inline, Some(60 * second)), deadlines.inline);
        assert_eq!(clamp(Kind::Fim, head(&[("x-nearhop-kind", "agent")]).kind), Kind::Agent);
        assert_eq!(clamp(Kind::Chat, head(&[("x-nearhop-kind", "inline")]).kind), Kind::Chat);
        assert_eq!(clamp(Kind::Chat, head(&[("x-nearhop-kind", "king")]).kind), Kind::Chat);
    }

    #[test]
    fn a_senseless_timeout_is_a_mistake() {
        for wrong in ["0", "-1", "soon", "1.5"] {
            let headers = [KEY, ("x-nearhop-timeout-ms", wrong)];
            let reject = judge(Method::POST, "/v1/completions", &headers).unwrap_err();
            assert_eq!(reject.error().param.as_deref(), Some("x-nearhop-timeout-ms"));
        }
    }

    #[test]
    fn a_request_id_is_kept_where_it_is_harmless() {
        let id = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert("x-request-id", value.parse().unwrap());
            request_id(&headers)
        };
        assert_eq!(id("req-1.a_B"), "req-1.a_B");
        assert_eq!(id("a b").len(), 32);
        assert_eq!(id(&"x".repeat(129)).len(), 32);
        assert_ne!(request_id(&HeaderMap::new()), request_id(&HeaderMap::new()));
    }
}
