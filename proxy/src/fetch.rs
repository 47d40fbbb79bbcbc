//! Small requests of the edge's own to URLs of the configuration: keys of token issuers, traces.
//!
//! One connection a request, nothing pooled, no redirects: who is asked is what the operator
//! wrote. Certificates are checked against the system's authorities, or those that are named.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{Method, StatusCode, Uri, Version, header};
use nearhop_admin::tls::read_certificates;
use pingora::{
    connectors::http::Connector, http::RequestHeader, protocols::tls::CaType,
    upstreams::peer::HttpPeer,
};
use tokio::{net::lookup_host, time::timeout};

/// What to ask.
pub(crate) struct Question<'a> {
    pub(crate) url: &'a str,
    /// Authorities that vouch for it, as PEM; the system's where not given.
    pub(crate) ca: Option<&'a std::path::Path>,
    /// A JSON body makes it a POST.
    pub(crate) body: Option<Bytes>,
    /// Bytes of an answer that are taken.
    pub(crate) limit: usize,
    /// All of it: name, connection, answer.
    pub(crate) within: Duration,
}

/// The body of a 200, or in words why there is none.
pub(crate) async fn fetch(question: Question<'_>) -> Result<Bytes, String> {
    let within = question.within;
    timeout(within, ask(question))
        .await
        .unwrap_or_else(|_| Err(format!("no answer within {} s", within.as_secs())))
}

async fn ask(question: Question<'_>) -> Result<Bytes, String> {
    let uri: Uri = question.url.parse().map_err(|error| format!("no URL: {error}"))?;
    let tls = uri.scheme_str() == Some("https");
    let host = uri.host().ok_or("the URL names no host")?;
    let port = uri.port_u16().unwrap_or(if tls { 443 } else { 80 });
    let bare = host.trim_matches(['[', ']']);
    let mut addresses = lookup_host((bare, port)).await.map_err(|error| error.to_string())?;
    let address = addresses.next().ok_or("the name has no address")?;
    let mut peer = HttpPeer::new(address, tls, bare.to_owned());
    if let Some(ca) = question.ca {
        let authorities: CaType =
            read_certificates(ca).map_err(|error| error.to_string())?.into_boxed_slice();
        peer.options.ca = Some(std::sync::Arc::new(authorities));
    }
    let connector = Connector::new(None);
    let told = |error: Box<pingora::Error>| error.to_string();
    let (mut session, _) = connector.get_http_session(&peer).await.map_err(told)?;
    let method = if question.body.is_some() { Method::POST } else { Method::GET };
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let mut request = RequestHeader::build(method, path.as_bytes(), Some(4)).map_err(told)?;
    request.set_version(Version::HTTP_11);
    let authority = uri.authority().map_or(host, |authority| authority.as_str());
    request.insert_header(header::HOST, authority).map_err(told)?;
    request.insert_header(header::ACCEPT, "application/json").map_err(told)?;
    if let Some(body) = &question.body {
        request.insert_header(header::CONTENT_TYPE, "application/json").map_err(told)?;
        request.insert_header(header::CONTENT_LENGTH, body.len()).map_err(told)?;
    }
    session.write_request_header(Box::new(request)).await.map_err(told)?;
    if let Some(body) = question.body {
        session.write_request_body(body, true).await.map_err(told)?;
    }
    session.finish_request_body().await.map_err(told)?;
    session.read_response_header().await.map_err(told)?;
    let status = session.response_header().map(|head| head.status);
    let mut all = BytesMut::new();
    while let Some(bytes) = session.read_response_body().await.map_err(told)? {
        if all.len() + bytes.len() > question.limit {
            return Err(format!("the answer is over {} bytes", question.limit));
        }
        all.extend_from_slice(&bytes);
    }
    match status {
        Some(StatusCode::OK) => Ok(all.freeze()),
        Some(status) => Err(format!("it answered {status}")),
        None => Err("it answered nothing".to_owned()),
    }
}
