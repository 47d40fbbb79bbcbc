//! What is remembered of a request, on every path: a guard that counts when it is dropped.

use std::{sync::Arc, time::Instant};

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use nearhop_admin::clock;
use nearhop_wire::{Kind, Usage};

use super::Shared;
use crate::live::Live;

/// Where an answer came from: `x-nearhop-source`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Source {
    /// A pod of this region generated it.
    Origin,
    /// The in-process cache had it.
    L1,
}

impl Source {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Origin => "origin",
            Self::L1 => "l1",
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
    /// What the answer says to a browser.
    pub(crate) page: Vec<(HeaderName, HeaderValue)>,
    pub(crate) request_id: String,
    pub(crate) kind: Option<Kind>,
    caller: Option<Arc<crate::keys::Caller>>,
    source: Option<Source>,
    first_content: Option<Instant>,
    end: End,
}

impl<'a> Record<'a> {
    pub(crate) fn new(shared: &'a Arc<Shared>, live: &'a Arc<Live>, arrived: Instant) -> Self {
        Self {
            shared,
            live,
            arrived,
            page: Vec::new(),
            request_id: String::new(),
            kind: None,
            caller: None,
            source: None,
            first_content: None,
            end: End::Open,
        }
    }

    /// Judges the page that a browser asks for, if it does.
    pub(crate) fn allow_page(&mut self, headers: &HeaderMap) {
        self.page = self.live.cors.answer(headers);
    }

    pub(crate) fn caller(&mut self, caller: &Arc<crate::keys::Caller>) {
        self.caller = Some(Arc::clone(caller));
    }

    /// The head of the answer is about to be sent.
    pub(crate) fn answered(&mut self, status: StatusCode) {
        self.end = End::Status(status);
    }

    /// The first content is about to be sent.
    pub(crate) fn content(&mut self, source: Source, now: Instant) {
        self.source = Some(source);
        self.first_content = Some(now);
    }

    /// Tokens were generated for it.
    pub(crate) fn generated(&self, usage: Usage) {
        let tokens = &self.shared.metrics.tokens;
        tokens.with_label_values(&["input"]).inc_by(usage.prompt_tokens as u64);
        tokens.with_label_values(&["output"]).inc_by(usage.completion_tokens as u64);
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
        if let (Some(source), Some(first)) = (self.source, self.first_content) {
            let labels = [kind, source.name()];
            let first = (first - self.arrived).as_secs_f64();
            metrics.first_token_seconds.with_label_values(&labels).observe(first);
            metrics.duration_seconds.with_label_values(&labels).observe(took.as_secs_f64());
        }
        tracing::debug!(
            target: "nearhop::access",
            request_id = self.request_id,
            key = self.caller.as_ref().map(|caller| caller.key.as_str()),
            tenant = self.caller.as_ref().map(|caller| caller.tenant.as_str()),
            kind,
            source,
            status,
            took_ms = took.as_secs_f64() * 1e3,
            "request"
        );
    }
}
