//! What is remembered of a request, on every path: a guard that counts when it is dropped, writes
//! the access line and hands its spans to the exporter. Never a prompt, an answer or a key.

use std::{
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use nearhop_admin::clock;
use nearhop_admission::{Caller, Reservation, Served, Standing};
use nearhop_edge_cache::Rule;
use nearhop_routing::Class;
use nearhop_wire::{Kind, Usage};

use super::{
    Shared,
    admit::Admitted,
    tries::{Tried, Tries},
};
use crate::{
    buffer::Held,
    client::Client,
    export::{Exporter, Span, SpanKind},
    live::Live,
    reject::Reject,
    trace::{Draw, TRACEPARENT, Trace},
};

/// Where an answer came from: `x-nearhop-source`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Source {
    /// A pod of this region generated it.
    Origin,
    /// The in-process cache had it.
    L1,
    /// The same, for who typed into it or sees it through another window.
    L1TypeAhead,
    /// The cache that edges share had it.
    L2,
    /// A question that means the same was answered before.
    L3,
    /// Another request's generation was shared.
    Joined,
    /// A pod of another region generated it.
    Region,
    /// An external provider did.
    Secondary,
    /// The edge's own small model did.
    SelfHosted,
    /// Nothing else answered, and the cache had something like it.
    CacheFallback,
    /// A newer request of the same document has made it pointless; there is no text.
    Superseded,
    /// Nothing could answer, or not in time: there is no text, or a chat is told so.
    Degraded,
}

impl Source {
    /// The in-process cache's, by the rule that found it.
    pub(crate) const fn of_l1(rule: Rule) -> Self {
        match rule {
            Rule::Exact => Self::L1,
            Rule::TypeAhead | Rule::Window | Rule::Normalised => Self::L1TypeAhead,
        }
    }

    /// Of what an upstream of that class generated.
    pub(crate) const fn of_class(class: Class) -> Self {
        match class {
            Class::Pod => Self::Origin,
            Class::Region => Self::Region,
            Class::Provider => Self::Secondary,
            Class::Local => Self::SelfHosted,
        }
    }

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Origin => "origin",
            Self::L1 => "l1",
            Self::L1TypeAhead => "l1-typeahead",
            Self::L2 => "l2",
            Self::L3 => "l3",
            Self::Joined => "joined",
            Self::Region => "region",
            Self::Secondary => "secondary",
            Self::SelfHosted => "self_hosted",
            Self::CacheFallback => "cache_fallback",
            Self::Superseded => "superseded",
            Self::Degraded => "degraded",
        }
    }

    pub(crate) const fn header(self) -> HeaderValue {
        HeaderValue::from_static(self.name())
    }
}

/// How a request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// Nothing was sent yet.
    Open,
    Status(StatusCode),
    /// The stream broke after its head was sent.
    Broken,
    /// The client went away.
    Gone,
}

/// The record of one request.
pub(crate) struct Record<'a> {
    pub(crate) shared: &'a Arc<Shared>,
    pub(crate) live: &'a Arc<Live>,
    pub(crate) arrived: Instant,
    /// When all of its body was there.
    pub(crate) complete: Option<Instant>,
    /// What the answer says to a browser.
    pub(crate) page: Vec<(HeaderName, HeaderValue)>,
    pub(crate) request_id: String,
    pub(crate) trace: Trace,
    pub(crate) kind: Option<Kind>,
    /// Whom and what for, where it came so far.
    asked: Option<Asked>,
    /// Who was tried for it, in order.
    pub(crate) tried: Tries,
    usage: Option<Usage>,
    caller: Option<Arc<Caller>>,
    reservation: Option<Reservation>,
    /// What it holds of the common budget of bytes.
    pub(crate) held: Held,
    /// How the caller's limits stand, for the answer.
    pub(crate) standing: Standing,
    source: Option<Source>,
    first_content: Option<Instant>,
    /// Whether the head of a stream was sent: what follows can only be events of it.
    pub(crate) is_open: bool,
    end: End,
}

/// What the client says of itself.
struct Asked {
    client: IpAddr,
    protocol: &'static str,
    path: &'static str,
    /// The edge that asks, where one does.
    peer: Option<String>,
}

impl<'a> Record<'a> {
    pub(crate) fn new(shared: &'a Arc<Shared>, live: &'a Arc<Live>, arrived: Instant) -> Self {
        Self {
            shared,
            live,
            arrived,
            complete: None,
            page: Vec::new(),
            request_id: String::new(),
            trace: Trace::of(&HeaderMap::new(), Draw::new(), 0.0),
            kind: None,
            asked: None,
            tried: Tries::default(),
            usage: None,
            caller: None,
            reservation: None,
            held: Held::new(&shared.buffered, live.limits.buffered.0),
            standing: Standing::default(),
            source: None,
            first_content: None,
            is_open: false,
            end: End::Open,
        }
    }

    /// Whose request it is and what it belongs to, as its head says.
    pub(crate) fn asked(&mut self, client: &impl Client) {
        let sample = self.shared.exporter.as_ref().map_or(0.0, |exporter| exporter.sample);
        self.trace = Trace::of(client.headers(), Draw::new(), sample);
        self.asked = Some(Asked {
            client: client.address(),
            protocol: client.protocol(),
            path: super::admit::known_path(client.path()),
            peer: client.peer().map(str::to_owned),
        });
        self.allow_page(client.headers());
    }

    /// Judges the page that a browser asks for, if it does.
    fn allow_page(&mut self, headers: &HeaderMap) {
        self.page = self.live.cors.answer(headers);
    }

    pub(crate) fn caller(&mut self, caller: &Arc<Caller>) {
        self.caller = Some(Arc::clone(caller));
    }

    /// Takes what it may use from its caller's limits, instead of what it took before.
    pub(crate) fn reserve(&mut self, admitted: &Admitted, tokens: u64) -> Result<(), Reject> {
        if let Some(before) = self.reservation.take() {
            before.withdraw();
        }
        let reservation = super::limit::reserve(self.shared, admitted, tokens)?;
        self.standing = reservation.standing;
        self.reservation = Some(reservation);
        Ok(())
    }

    /// What was reserved is settled by somebody else.
    pub(crate) fn hand_on(&mut self) -> Option<Reservation> {
        self.reservation.take()
    }

    /// The usage of its answer. Who had it generated settles it; a stored one costs nothing.
    pub(crate) fn used(&mut self, usage: Usage) {
        self.usage = Some(usage);
    }

    /// The head of the answer is about to be sent.
    pub(crate) fn answered(&mut self, status: StatusCode) {
        self.end = End::Status(status);
    }

    /// The first content is about to be sent.
    pub(crate) fn content(&mut self, source: Source, now: Instant) {
        let told = !matches!(source, Source::Superseded | Source::Degraded);
        if told && self.kind.is_some_and(Kind::is_code) {
            // From what the client had to do: one that sends slowly is no slow service.
            let since = self.complete.unwrap_or(self.arrived);
            self.shared.ladder(|ladder| ladder.first_token(now - since, now));
        }
        self.source = Some(source);
        self.first_content = Some(now);
    }

    pub(crate) fn broken(&mut self) {
        self.end = End::Broken;
    }

    pub(crate) fn client_gone(&mut self) {
        self.end = End::Gone;
    }
}

impl Drop for Record<'_> {
    fn drop(&mut self) {
        self.settle();
        let kind = self.kind.map_or("none", Kind::name);
        let source = self.source.map_or("none", Source::name);
        let status = match &self.end {
            End::Open => "dropped",
            End::Status(status) => status.as_str(),
            End::Broken => "broken",
            End::Gone => "gone",
        };
        let metrics = &self.shared.metrics;
        metrics.requests.with_label_values(&[kind, source, status]).inc();
        let took = clock::now() - self.arrived;
        let first = self.first_content.map(|first| first - self.arrived);
        if let (Some(source), Some(first)) = (self.source, first) {
            let labels = [kind, source.name()];
            metrics.first_token_seconds.with_label_values(&labels).observe(first.as_secs_f64());
            metrics.duration_seconds.with_label_values(&labels).observe(took.as_secs_f64());
        }
        if self.live.access_log {
            self.write_line([kind, source, status], took, first);
        }
        if self.trace.sampled
            && let Some(exporter) = &self.shared.exporter
        {
            self.export(exporter, [kind, source, status], took);
        }
    }
}

/// Tokens of the prompt, and of the answer.
pub(super) fn count(usage: Usage) -> (u64, u64) {
    (usage.prompt_tokens as u64, usage.completion_tokens as u64)
}

fn millis(duration: Duration) -> f64 {
    // Whole microseconds: more digits would only be noise.
    (duration.as_secs_f64() * 1e6).round() / 1e3
}

impl Record<'_> {
    /// Writes what was served from the cache, or with others, into the accounts. What was reserved
    /// is given back.
    fn settle(&mut self) {
        let (Some(reservation), Some(usage)) = (self.reservation.take(), self.usage) else {
            return;
        };
        let Some(caller) = self.caller.as_deref() else { return };
        super::limit::settle(self.shared, caller, reservation, (Served::Cached, count(usage)));
    }

    fn write_line(
        &self,
        [kind, source, status]: [&str; 3],
        took: Duration,
        first: Option<Duration>,
    ) {
        let asked = self.asked.as_ref();
        let caller = self.caller.as_deref();
        let (upstream, attempts) = self
            .tried
            .with(|tried| (tried.last().map(|tried| tried.upstream.name.clone()), tried.len()));
        tracing::info!(
            target: "nearhop::access",
            request_id = self.request_id,
            trace_id = %format_args!("{:032x}", self.trace.trace),
            client = asked.map(|asked| tracing::field::display(asked.client)),
            protocol = asked.map(|asked| asked.protocol),
            path = asked.map(|asked| asked.path),
            peer = asked.and_then(|asked| asked.peer.as_deref()),
            tenant = caller.map(|caller| caller.tenant.as_str()),
            key = caller.map(|caller| caller.key.as_str()),
            user = caller.and_then(|caller| caller.user.as_deref()),
            kind,
            source,
            status,
            upstream,
            attempts,
            prompt_tokens = self.usage.map(|usage| usage.prompt_tokens),
            completion_tokens = self.usage.map(|usage| usage.completion_tokens),
            first_ms = first.map(millis),
            took_ms = millis(took),
            "request"
        );
    }

    fn export(&self, exporter: &Exporter, [kind, source, status]: [&str; 3], took: Duration) {
        // Wall time is read once; the rest is counted from it, so that spans nest.
        let end = clock::since_epoch();
        let at = |moment: Instant| {
            (end - took + moment.saturating_duration_since(self.arrived)).as_nanos()
        };
        let path = self.asked.as_ref().map_or("", |asked| asked.path);
        let text = str::to_owned;
        exporter.take(Span {
            trace: self.trace.trace,
            span: self.trace.span,
            parent: self.trace.parent,
            name: "completion",
            kind: SpanKind::Server,
            start: at(self.arrived),
            end: end.as_nanos(),
            failed: status.starts_with('5') || self.end == End::Broken,
            attributes: vec![
                ("http.route", text(path)),
                ("http.response.status_code", text(status)),
                ("nearhop.request_id", self.request_id.clone()),
                ("nearhop.kind", text(kind)),
                ("nearhop.source", text(source)),
            ],
        });
        let spans = self.tried.with(|tried| {
            let span = |tried: &Tried| Span {
                trace: self.trace.trace,
                span: tried.span,
                parent: Some(self.trace.span),
                name: "attempt",
                kind: SpanKind::Client,
                start: at(tried.began),
                end: at(tried.ended),
                failed: tried.outcome != "begun",
                attributes: vec![
                    ("nearhop.upstream", tried.upstream.name.clone()),
                    ("nearhop.outcome", text(tried.outcome)),
                ],
            };
            tried.iter().map(span).collect::<Vec<_>>()
        });
        spans.into_iter().for_each(|span| exporter.take(span));
    }

    /// The header that tells the client its trace.
    pub(crate) fn trace_header(&self) -> (HeaderName, HeaderValue) {
        (TRACEPARENT, self.trace.header())
    }
}
