//! One request and its answer, as a client sees them.

use std::{
    net::SocketAddr,
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode, header};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use nearhop_admin::clock;
use nearhop_conf::{LoadKey, RequestKind, Target};
use nearhop_wire::SseReader;
use serde::Deserialize;

use crate::{
    connections::{Connections, Sender},
    crowd::Ask,
    pulse::Pulse,
    record::{Outcome, Source, UNNAMED, source},
};

/// An answer, or one event of it, is not larger.
const ANSWER_BYTES_MAX: usize = 8 << 20;

/// Kept connections that turn out to be closed, one after the other, before a request is given up.
const UNSENT_MAX: usize = 64;

/// What is known of a request while it goes on; a client that gives up keeps what there is.
#[derive(Debug, Clone)]
pub(crate) struct Heard {
    pub(crate) outcome: Outcome,
    /// 0 before there is an answer.
    pub(crate) status: u16,
    /// Why there is none; empty where there is one.
    pub(crate) why: String,
    pub(crate) first: Option<Instant>,
    last: Option<Instant>,
    pub(crate) gaps: Vec<Duration>,
    pub(crate) source: Source,
    pub(crate) level: Option<(Instant, u8)>,
    pub(crate) retry_after: bool,
    pub(crate) usage: Option<(u64, u64)>,
}

impl Heard {
    pub(crate) const fn nothing() -> Self {
        Self {
            outcome: Outcome::Unreachable,
            status: 0,
            why: String::new(),
            first: None,
            last: None,
            gaps: Vec::new(),
            source: UNNAMED,
            level: None,
            retry_after: false,
            usage: None,
        }
    }

    /// Of a request that was not sent.
    pub(crate) fn not_sent() -> Self {
        Self { outcome: Outcome::NotSent, ..Self::nothing() }
    }

    /// Content has come.
    fn content(&mut self, now: Instant) {
        match self.last.replace(now) {
            None => self.first = Some(now),
            Some(before) => self.gaps.push(now.saturating_duration_since(before)),
        }
    }

    fn head(&mut self, headers: &HeaderMap) {
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        self.source = source(text("x-nearhop-source"));
        let level = text("x-nearhop-level").and_then(|level| level.strip_prefix('L'));
        self.level = level.and_then(|level| Some((clock::now(), level.parse().ok()?)));
        self.retry_after = headers.contains_key(header::RETRY_AFTER);
    }

    /// How an answer that came whole ended.
    fn whole(&self) -> Outcome {
        match self.source {
            "degraded" => Outcome::Degraded,
            "superseded" => Outcome::Superseded,
            _ => Outcome::Answered,
        }
    }
}

/// Who asks: what all requests of a worker share.
#[derive(Debug)]
pub(crate) struct Client {
    /// What was heard of the target, of all clients.
    pub(crate) pulse: Arc<Pulse>,
    pub(crate) connections: Rc<Connections>,
    /// `Bearer …`, by the index of a key.
    pub(crate) credentials: Vec<header::HeaderValue>,
    /// The value of `host`, by the index of a region.
    pub(crate) hosts: Vec<String>,
}

impl Client {
    /// # Errors
    /// A key that cannot be sent, a certificate that cannot be read.
    pub(crate) fn new(target: &Target, pulse: &Arc<Pulse>) -> Result<Self, String> {
        let bearer = |key: &LoadKey| {
            let value = header::HeaderValue::from_str(&format!("Bearer {}", key.key.reveal()));
            let mut value = value.map_err(|error| format!("target.keys: {error}"))?;
            value.set_sensitive(true);
            Ok(value)
        };
        let authority =
            |url: &str| url.split_once("://").map_or(url, |(_, authority)| authority).to_owned();
        Ok(Self {
            pulse: Arc::clone(pulse),
            connections: Connections::new(target)?,
            credentials: target.keys.iter().map(bearer).collect::<Result<_, String>>()?,
            hosts: target.regions.iter().map(|region| authority(&region.url)).collect(),
        })
    }

    /// Asks, and writes down what is heard.
    pub(crate) async fn exchange(&self, ask: &Ask, addresses: &[SocketAddr], heard: &mut Heard) {
        for address in addresses {
            match self.answer(ask, *address).await {
                Ok((answer, sender)) => {
                    if self.read(answer, ask.streamed, heard).await {
                        self.connections.keep(ask.region, *address, sender);
                    }
                    return;
                }
                // The next address may take a connection; a question that was sent is not repeated.
                Err(Unanswered { why, sent }) => {
                    heard.why = why;
                    if sent {
                        break;
                    }
                }
            }
        }
        heard.outcome = Outcome::Unreachable;
    }

    /// The head of an answer. Where nothing was sent, because a kept connection was closed meanwhile,
    /// the request goes out on another. What was sent is never repeated: it is a POST (RFC 9110,
    /// section 9.2.2), and its failure is what is measured.
    async fn answer(
        &self,
        ask: &Ask,
        address: SocketAddr,
    ) -> Result<(http::Response<Incoming>, Sender), Unanswered> {
        let unsent = |why| Unanswered { why, sent: false };
        let mut unsent_before = 0;
        loop {
            let opened = self.connections.open(ask.region, address).await;
            let (mut sender, new) = opened.map_err(unsent)?;
            let request = self.request(ask).ok_or_else(|| unsent("no request".to_owned()))?;
            match sender.send(request).await {
                Ok(answer) => return Ok((answer, sender)),
                Err(error) if error.is_canceled() && !new && unsent_before < UNSENT_MAX => {
                    unsent_before += 1;
                }
                Err(error) => {
                    return Err(Unanswered { why: format!("{address}: {error}"), sent: true });
                }
            }
        }
    }

    fn request(&self, ask: &Ask) -> Option<Request<Full<Bytes>>> {
        let host = &self.hosts[ask.region];
        // HTTP/2 has scheme and authority apart from the path.
        let request = match self.connections.is_http2() {
            true => Request::post(format!(
                "{}://{host}{}",
                self.connections.scheme(ask.region),
                ask.path()
            )),
            false => Request::post(ask.path()).header(header::HOST, host),
        };
        let mut request = request.header(header::CONTENT_TYPE, "application/json");
        if let Some(credential) = self.credentials.get(ask.key) {
            request = request.header(header::AUTHORIZATION, credential);
        }
        if ask.kind == RequestKind::Agent {
            request = request.header("x-nearhop-kind", ask.kind.name());
        }
        request.body(Full::new(ask.body.clone())).ok()
    }

    /// Whether the answer was read to its end, so that the connection can be used again.
    async fn read(
        &self,
        answer: http::Response<Incoming>,
        streamed: bool,
        heard: &mut Heard,
    ) -> bool {
        self.pulse.beat(clock::now());
        heard.head(answer.headers());
        let status = answer.status();
        heard.status = status.as_u16();
        let events = answer.headers().get(header::CONTENT_TYPE).is_some_and(|kind| {
            kind.to_str().is_ok_and(|kind| kind.starts_with("text/event-stream"))
        });
        let body = answer.into_body();
        if status != StatusCode::OK {
            heard.outcome = match status.as_u16() {
                429 => Outcome::Limited,
                503 => Outcome::Shed,
                400..500 => Outcome::Refused,
                _ => Outcome::Failed,
            };
            return whole(body).await.is_some();
        }
        // Until it has ended, it is broken.
        heard.outcome = Outcome::BrokenOff;
        if streamed && events {
            return stream(body, &self.pulse, heard).await;
        }
        let Some(text) = whole(body).await else { return false };
        heard.content(clock::now());
        heard.outcome = match serde_json::from_slice::<Piece<'_>>(&text) {
            Ok(piece) if !piece.choices.is_empty() => {
                heard.usage = piece.usage.map(Usage::pair);
                heard.whole()
            }
            _ => Outcome::Garbled,
        };
        true
    }
}

/// There is no answer, and whether the question was sent.
struct Unanswered {
    why: String,
    sent: bool,
}

/// A whole body; nothing where it broke off or is too large.
async fn whole(mut body: Incoming) -> Option<Vec<u8>> {
    let mut text = Vec::new();
    while let Some(frame) = body.frame().await {
        if let Ok(data) = frame.ok()?.into_data() {
            text.extend_from_slice(&data);
        }
        if text.len() > ANSWER_BYTES_MAX {
            return None;
        }
    }
    Some(text)
}

/// Reads events to the terminator, and what is behind it. Whether the body ended well.
async fn stream(mut body: Incoming, pulse: &Pulse, heard: &mut Heard) -> bool {
    let mut reader = SseReader::new(ANSWER_BYTES_MAX);
    let mut ended = false;
    while let Some(frame) = body.frame().await {
        let Ok(frame) = frame else { return false };
        let Ok(data) = frame.into_data() else { continue };
        reader.push(&data);
        let now = clock::now();
        pulse.beat(now);
        loop {
            match reader.next_event() {
                Ok(None) => break,
                Ok(Some(_)) if ended => heard.outcome = Outcome::Garbled,
                Ok(Some(event)) if event == "[DONE]" => {
                    heard.outcome = heard.whole();
                    ended = true;
                }
                Ok(Some(event)) => match serde_json::from_slice::<Piece<'_>>(&event) {
                    // The stream says that it breaks off; without any content, that there is none.
                    Ok(piece) if piece.error.is_some() => {
                        if heard.first.is_none() {
                            heard.outcome = Outcome::Failed;
                        }
                        return false;
                    }
                    Ok(piece) => {
                        if piece.choices.iter().any(PieceChoice::says_something) {
                            heard.content(now);
                        }
                        heard.usage = piece.usage.map(Usage::pair).or(heard.usage);
                    }
                    Err(_) => {
                        heard.outcome = Outcome::Garbled;
                        return false;
                    }
                },
                Err(_too_long) => {
                    heard.outcome = Outcome::Garbled;
                    return false;
                }
            }
        }
    }
    // An answer without a word is one too; it came with its end.
    if ended && heard.first.is_none() {
        heard.first = heard.last.or_else(|| Some(clock::now()));
    }
    ended
}

/// What there is to know of an answer, whole or one event of it.
#[derive(Deserialize)]
struct Piece<'a> {
    #[serde(default)]
    choices: Vec<PieceChoice>,
    usage: Option<Usage>,
    #[serde(borrow)]
    error: Option<&'a serde_json::value::RawValue>,
}

#[derive(Deserialize)]
struct PieceChoice {
    text: Option<String>,
    delta: Option<Delta>,
    finish_reason: Option<String>,
}

#[derive(Deserialize)]
struct Delta {
    content: Option<String>,
}

#[derive(Deserialize)]
struct Usage {
    prompt_tokens: u64,
    completion_tokens: u64,
}

impl PieceChoice {
    fn says_something(&self) -> bool {
        let text = self.text.as_deref().or_else(|| self.delta.as_ref()?.content.as_deref());
        text.is_some_and(|text| !text.is_empty()) || self.finish_reason.is_some()
    }
}

impl Usage {
    fn pair(self) -> (u64, u64) {
        (self.prompt_tokens, self.completion_tokens)
    }
}
