//! External providers: what they are sent, how they are connected to, and what their answers'
//! headers say of their limits.
//!
//! A provider knows nothing of us: it gets the request's own fields, its name for the model and its
//! key, and no header of ours but the request's id. Where it may be found is the configuration's
//! word alone: names are resolved here, and private addresses refused where they were not allowed
//! (a name that points inward is how servers are made to ask themselves).

use std::{
    net::{IpAddr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::Duration,
};

use http::{HeaderMap, HeaderValue, Uri, header};
use nearhop_admin::tls::{TlsError, has_address, read_certificates};
use nearhop_conf::{ExternalProvider, RequestKind, is_private};
use nearhop_routing::Kinds;
use nearhop_wire::{Kind, ModelReport, PodReport};
use pingora::{protocols::tls::CaType, upstreams::peer::HttpPeer};

use super::connections::{H2_PING, believe};

/// A provider, ready to be asked.
#[derive(Debug)]
pub(crate) struct Provider {
    settings: ExternalProvider,
    /// As the `host` header has it.
    pub(crate) host: String,
    name: String,
    port: u16,
    tls: bool,
    /// In front of `/completions`.
    base: String,
    authorization: Option<HeaderValue>,
    /// Our names of models that it takes.
    pub(crate) models_taken: Arc<[String]>,
    pub(crate) connect: Duration,
    /// Whether nobody answered at its address since that was chosen.
    lost: AtomicBool,
    /// Answers of name servers, one after the other, that it has no address.
    nothing: AtomicU32,
}

/// Where a provider is found now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Follows {
    To(SocketAddr),
    /// Where it was.
    Stays,
    Nowhere,
}

/// So often a name server must say that a name has no address: one that is just starting says it too.
const NOTHING_MAX: u32 = 3;

impl Provider {
    /// `None` where the configuration's URL is none, which its reader has refused.
    pub(crate) fn new(settings: &ExternalProvider) -> Option<Self> {
        let url: Uri = settings.url.parse().ok()?;
        let authority = url.authority()?;
        let tls = url.scheme_str() == Some("https");
        let authorization = settings.key.as_ref().and_then(|key| {
            let mut value = HeaderValue::try_from(format!("Bearer {}", key.reveal())).ok()?;
            value.set_sensitive(true);
            Some(value)
        });
        Some(Self {
            host: authority.as_str().to_owned(),
            name: authority.host().trim_matches(['[', ']']).to_owned(),
            port: authority.port_u16().unwrap_or(if tls { 443 } else { 80 }),
            tls,
            base: url.path().trim_end_matches('/').to_owned(),
            authorization,
            models_taken: settings.models.keys().cloned().collect(),
            connect: settings.connect,
            lost: AtomicBool::new(false),
            nothing: AtomicU32::new(0),
            settings: settings.clone(),
        })
    }

    /// Lower is asked earlier.
    pub(crate) fn priority(&self) -> u32 {
        self.settings.priority
    }

    /// What it is asked.
    pub(crate) fn kinds(&self) -> Kinds {
        let kind = |taken: &RequestKind| match taken {
            RequestKind::Inline => Kind::Inline,
            RequestKind::Fim => Kind::Fim,
            RequestKind::Chat => Kind::Chat,
            RequestKind::Agent => Kind::Agent,
        };
        Kinds::of(&self.settings.kinds.iter().map(kind).collect::<Vec<_>>())
    }

    /// Its name for one of our models, which it may know by an alias.
    pub(crate) fn model<'a>(&'a self, ours: &'a ModelReport) -> &'a str {
        let names = std::iter::once(&ours.name).chain(&ours.aliases);
        let mut known = names.filter(|name| self.settings.models.contains_key(*name));
        let asked = known.next().unwrap_or(&ours.name);
        self.settings.model(asked).unwrap_or(asked)
    }

    /// The path for a request that a pod would take at `pod_path`.
    pub(crate) fn path(&self, pod_path: &str) -> String {
        format!("{}{}", self.base, pod_path.trim_start_matches("/v1"))
    }

    pub(crate) fn authorization(&self) -> Option<HeaderValue> {
        self.authorization.clone()
    }

    /// How long its first token, and each that follows, is waited for.
    pub(crate) fn waits(&self) -> (Duration, Duration) {
        (self.settings.first_token, self.settings.next_token)
    }

    /// Models that it stands in for where no pod says what it serves. Nothing is known of them, so
    /// nothing of them is reused.
    pub(crate) fn report(&self) -> PodReport {
        let named = self.models_taken.iter().filter(|name| *name != "*");
        let models = named.map(|name| ModelReport {
            name: name.clone(),
            revision: "external".to_owned(),
            template: String::new(),
            temperature: 1.0,
            max_tokens: 256,
            context_length: 16 << 10,
            aliases: Vec::new(),
            suffix_first: false,
        });
        PodReport { models: models.collect(), kept: Vec::new(), slots: 0, embedders: Vec::new() }
    }

    pub(super) fn peer(&self, address: SocketAddr) -> Result<HttpPeer, TlsError> {
        // A final dot is for name servers alone.
        let sni = self.name.trim_end_matches('.').to_owned();
        let mut peer = HttpPeer::new(address, self.tls, sni);
        if let Some(ca) = &self.settings.ca {
            let authorities: CaType = read_certificates(ca)?.into_boxed_slice();
            peer.options.ca = Some(Arc::new(authorities));
        }
        if let (true, Ok(address)) = (self.tls, self.name.parse::<IpAddr>()) {
            // OpenSSL looks for a host's name among names alone.
            believe(&mut peer, move |ssl| has_address(ssl, address));
        }
        // Connections are never shared with whoever else is at that address.
        peer.group_key = fastrand::u64(..);
        match self.tls {
            true => {
                peer.options.set_http_version(2, 1);
                peer.options.h2_ping_interval = Some(H2_PING);
            }
            false => peer.options.set_http_version(1, 1),
        }
        Ok(peer)
    }

    /// Of the addresses of its name, the one to connect to: `current` while it is still among them
    /// and was not `lost` since.
    fn choose(
        &self,
        found: &[SocketAddr],
        current: Option<SocketAddr>,
        lost: bool,
    ) -> Option<SocketAddr> {
        let allowed = |address: &&SocketAddr| self.settings.private || !is_private(address.ip());
        let allowed: Vec<SocketAddr> = found.iter().filter(allowed).copied().collect();
        let at = current.and_then(|current| allowed.iter().position(|one| *one == current));
        match at {
            Some(at) if lost => allowed.get((at + 1) % allowed.len()).copied(),
            Some(at) => Some(allowed[at]),
            None => allowed.first().copied(),
        }
    }

    /// What follows from what a name server says of it.
    pub(super) fn follow(&self, found: &[SocketAddr], current: Option<SocketAddr>) -> Follows {
        if found.is_empty() {
            let times = self.nothing.fetch_add(1, Ordering::Relaxed) + 1;
            return if times < NOTHING_MAX { Follows::Stays } else { Follows::Nowhere };
        }
        self.nothing.store(0, Ordering::Relaxed);
        let chosen = self.choose(found, current, self.lost.swap(false, Ordering::Relaxed));
        chosen.map_or(Follows::Nowhere, Follows::To)
    }

    /// Its name and port.
    pub(super) fn place(&self) -> (&str, u16) {
        (&self.name, self.port)
    }

    /// Nobody answered at its address.
    pub(crate) fn lost(&self) {
        self.lost.store(true, Ordering::Relaxed);
    }
}

/// For how long an answer's headers ask not to be asked: `retry-after`, or what is left of a limit
/// (OpenAI's `x-ratelimit-*`).
pub(crate) fn pause(headers: &HeaderMap) -> Option<Duration> {
    const LONGEST: Duration = Duration::from_secs(3600);
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let used_up = |kind: &str| {
        let remaining = text(&format!("x-ratelimit-remaining-{kind}"))?;
        (remaining.trim() == "0").then_some(())?;
        reset(text(&format!("x-ratelimit-reset-{kind}"))?)
    };
    let told = retry_after(headers);
    [told, used_up("requests"), used_up("tokens")]
        .into_iter()
        .flatten()
        .max()
        .map(|it| it.min(LONGEST))
}

/// `retry-after` in seconds, or `retry-after-ms`, as some send it.
pub(crate) fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let number = |name: &str| -> Option<f64> {
        let text = headers.get(name)?.to_str().ok()?;
        text.trim().parse().ok().filter(|number| (0.0..1e9).contains(number))
    };
    let millis = number("retry-after-ms").map(|millis| millis / 1000.0);
    millis.or_else(|| number(header::RETRY_AFTER.as_str())).map(Duration::from_secs_f64)
}

/// `1s`, `6m0s`, `20ms`, `1h2m3.5s`, or seconds alone.
fn reset(text: &str) -> Option<Duration> {
    let mut rest = text.trim();
    if let Ok(seconds) = rest.parse::<f64>() {
        return (0.0..1e9).contains(&seconds).then(|| Duration::from_secs_f64(seconds));
    }
    let mut total = 0.0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..digits].parse().ok()?;
        let unit = rest[digits..].find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len() - digits);
        total += number
            * match &rest[digits..digits + unit] {
                "ms" => 0.001,
                "s" => 1.0,
                "m" => 60.0,
                "h" => 3600.0,
                _ => return None,
            };
        rest = &rest[digits + unit..];
    }
    (0.0..1e9).contains(&total).then(|| Duration::from_secs_f64(total))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_kept_while_it_answers_and_nothing_is_believed_the_third_time() {
        let second = Duration::from_secs(1);
        let settings = ExternalProvider {
            name: "x".to_owned(),
            url: "https://x.example.com/v1".to_owned(),
            key: None,
            priority: 1,
            models: [("*".to_owned(), "m".to_owned())].into(),
            kinds: vec![RequestKind::Chat],
            private: false,
            ca: None,
            connect: second,
            first_token: second,
            next_token: second,
        };
        let provider = Provider::new(&settings).unwrap();
        let [one, two, inward]: [SocketAddr; 3] =
            ["192.0.9.1:443", "192.0.9.2:443", "10.0.0.1:443"].map(|text| text.parse().unwrap());
        assert_eq!(provider.follow(&[inward, one, two], None), Follows::To(one));
        assert_eq!(provider.follow(&[two, one], Some(one)), Follows::To(one));
        provider.lost();
        assert_eq!(provider.follow(&[one, two], Some(one)), Follows::To(two));
        assert_eq!(provider.follow(&[one, two], Some(two)), Follows::To(two), "it answers");
        assert_eq!(provider.follow(&[], Some(two)), Follows::Stays);
        assert_eq!(provider.follow(&[], Some(two)), Follows::Stays);
        assert_eq!(provider.follow(&[], Some(two)), Follows::Nowhere);
        assert_eq!(provider.follow(&[inward], Some(two)), Follows::Nowhere, "it points inward");
    }

    #[test]
    fn the_times_of_limits_are_read_as_providers_write_them() {
        let check = |text: &str, millis: Option<u64>| {
            assert_eq!(reset(text), millis.map(Duration::from_millis), "{text}");
        };
        check("1s", Some(1000));
        check("6m0s", Some(360_000));
        check("20ms", Some(20));
        check("1h2m3.5s", Some(3_723_500));
        check("12", Some(12_000));
        for bad in ["", "s", "1x", "-1s", "1e99", "1s2", "é1s"] {
            // Nothing at all is no time either.
            check(bad, (bad.is_empty()).then_some(0));
        }
    }

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect()
    }

    #[test]
    fn a_provider_is_left_alone_for_as_long_as_it_asks() {
        let check = |pairs: &[(&'static str, &'static str)], seconds: Option<u64>| {
            assert_eq!(pause(&headers(pairs)), seconds.map(Duration::from_secs), "{pairs:?}");
        };
        check(&[], None);
        check(&[("retry-after", "7")], Some(7));
        check(&[("retry-after-ms", "2000"), ("retry-after", "7")], Some(2));
        check(&[("retry-after", "Wed, 21 Oct 2026 07:28:00 GMT")], None);
        check(
            &[("x-ratelimit-remaining-requests", "0"), ("x-ratelimit-reset-requests", "3s")],
            Some(3),
        );
        check(&[("x-ratelimit-remaining-tokens", "5"), ("x-ratelimit-reset-tokens", "3s")], None);
        check(&[("retry-after", "99999999")], Some(3600));
    }
}
