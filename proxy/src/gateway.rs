//! The Pingora shell: one call a hook, and the client's side of a connection.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Method, Version, header};
use nearhop_admin::clock;
use pingora::{
    http::ResponseHeader,
    modules::http::HttpModules,
    proxy::{ProxyHttp, Session},
    upstreams::peer::HttpPeer,
};
use tokio::time::{timeout, timeout_at};

use crate::{
    client::{BodyError, Client, Gone, ResponseHead},
    phase::{self, Shared},
};

/// Answers every request in `request_filter`: nothing is left for Pingora's own proxying, which
/// static files will use.
pub(crate) struct Gateway(pub(crate) Arc<Shared>);

#[async_trait]
impl ProxyHttp for Gateway {
    type CTX = ();

    fn new_ctx(&self) {}

    /// No compression: answers are small, and a stream must not wait to fill a block.
    fn init_downstream_modules(&self, _modules: &mut HttpModules) {}

    async fn early_request_filter(
        &self,
        session: &mut Session,
        (): &mut (),
    ) -> pingora::Result<()> {
        prepare(session, &self.0);
        Ok(())
    }

    async fn request_filter(&self, session: &mut Session, (): &mut ()) -> pingora::Result<bool> {
        phase::run(&self.0, &mut Downstream { session }).await;
        Ok(true)
    }

    async fn upstream_peer(
        &self,
        _session: &mut Session,
        (): &mut (),
    ) -> pingora::Result<Box<HttpPeer>> {
        pingora::Error::e_explain(
            pingora::ErrorType::InternalError,
            "every request is answered above",
        )
    }
}

/// Sets what Pingora leaves open: idle connections live for ever, pipelined requests are dropped
/// and a byte after a body cancels the answer, reads and writes may take for ever.
fn prepare(session: &mut Session, shared: &Shared) {
    let limits = &shared.limits;
    let session = session.as_downstream_mut();
    session.set_pipelining_enabled(true);
    // Only where the client's version and `Connection` header left it on.
    if session.get_keepalive().is_some() {
        session.set_keepalive(Some(limits.keepalive.as_secs()));
    }
    session.set_read_timeout(Some(limits.body_read));
    session.set_write_timeout(Some(limits.client_write));
    session.set_total_drain_timeout(Some(LINGER));
}

/// How long, and for how many bytes, a client that still sends is listened to after its answer.
const LINGER: Duration = Duration::from_secs(2);
const LINGER_BYTES_MAX: usize = 32 << 20;

struct Downstream<'a> {
    session: &'a mut Session,
}

impl Downstream<'_> {
    async fn read_body(&mut self, limit: usize) -> Result<Bytes, BodyError> {
        let session = &mut self.session.downstream_session;
        let expects = session.req_header().headers.get(header::EXPECT);
        if expects.is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue")) {
            session.write_continue_response().await.map_err(|_gone| BodyError::Broken)?;
        }
        let mut first: Option<Bytes> = None;
        let mut all = BytesMut::new();
        while let Some(bytes) =
            session.read_request_body().await.map_err(|_gone| BodyError::Broken)?
        {
            let length = first.as_ref().map_or(0, Bytes::len) + all.len() + bytes.len();
            if length > limit {
                return Err(BodyError::TooLarge);
            }
            // A body mostly comes in one piece, which is then not copied.
            match &first {
                None if all.is_empty() => first = Some(bytes),
                _ => {
                    if let Some(first) = first.take() {
                        all.extend_from_slice(&first);
                    }
                    all.extend_from_slice(&bytes);
                }
            }
        }
        Ok(first.unwrap_or_else(|| all.freeze()))
    }
}

impl Client for Downstream<'_> {
    fn method(&self) -> &Method {
        &self.session.req_header().method
    }

    fn path(&self) -> &str {
        self.session.req_header().uri.path()
    }

    fn headers(&self) -> &HeaderMap {
        &self.session.req_header().headers
    }

    async fn body(&mut self, limit: usize, deadline: Duration) -> Result<Bytes, BodyError> {
        let until = clock::now() + deadline;
        let declared = self.headers().get(header::CONTENT_LENGTH);
        let declared = declared.and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
        // Told before it is read, a client that asked first need not send it at all.
        if declared.is_some_and(|length| length > limit as u64) {
            return Err(BodyError::TooLarge);
        }
        let read = timeout_at(until.into(), self.read_body(limit)).await;
        read.unwrap_or(Err(BodyError::TooSlow))
    }

    async fn gone(&mut self) {
        // Bytes of a pipelined request are kept by Pingora and are no reason to stop.
        while self.session.downstream_session.read_body_or_idle(true).await.is_ok() {}
    }

    async fn send_head(&mut self, head: ResponseHead) -> Result<(), Gone> {
        let session = &mut self.session.downstream_session;
        // HTTP/2 frames by itself; HTTP/1.0 knows no chunks, its stream ends with the connection.
        let chunked = session.req_header().version == Version::HTTP_11;
        let response = build(&head, chunked).map_err(|_invalid| Gone)?;
        session.write_response_header(Box::new(response)).await.map_err(|_gone| Gone)
    }

    async fn send_body(&mut self, bytes: Bytes, end: bool) -> Result<(), Gone> {
        if bytes.is_empty() && !end {
            // An empty chunk would be the end of a chunked body.
            return Ok(());
        }
        let session = &mut self.session.downstream_session;
        session.write_response_body(bytes, end).await.map_err(|_gone| Gone)
    }

    async fn linger(&mut self) {
        let session = &mut self.session.downstream_session;
        if session.is_body_done() {
            return;
        }
        let mut left = LINGER_BYTES_MAX;
        let rest = async {
            while let Ok(Some(bytes)) = session.read_request_body().await {
                match left.checked_sub(bytes.len()) {
                    Some(rest) => left = rest,
                    None => return,
                }
            }
        };
        // What is still coming after that is no client that listens.
        let _ = timeout(LINGER, rest).await;
    }
}

fn build(head: &ResponseHead, chunked: bool) -> pingora::Result<ResponseHeader> {
    // Headers of ours are lower case already: the case map would only cost.
    let mut response = ResponseHeader::build_no_case(head.status, Some(head.headers.len() + 4))?;
    for (name, value) in &head.headers {
        response.append_header(name.clone(), value.clone())?;
    }
    match head.length {
        Some(length) => response.insert_header(header::CONTENT_LENGTH, length)?,
        None if chunked => response.insert_header(header::TRANSFER_ENCODING, "chunked")?,
        None => {}
    }
    Ok(response)
}
