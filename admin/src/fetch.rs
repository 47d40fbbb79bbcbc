//! Small requests of our own to URLs of the configuration: keys of token issuers, traces, the
//! health of regions, the views of vantage points.
//!
//! One connection a request, nothing pooled, no redirects: who is asked is what the operator wrote.

use std::{net::IpAddr, path::Path, pin::Pin, sync::OnceLock, time::Duration};

use axum::body::Bytes;
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::{Method, Request, StatusCode, Uri, client::conn::http1, header};
use hyper_util::rt::TokioIo;
use nearhop_conf::MutualTls;
use nearhop_wire::ApiError;
use openssl::{
    error::ErrorStack,
    ssl::{Ssl, SslContext, SslMethod, SslVerifyMode, SslVersion},
    x509::store::{X509Store, X509StoreBuilder},
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::timeout,
};
use tokio_openssl::SslStream;

use crate::tls::{Identity, peer_name, read_certificates};

/// Who is believed to be the other side, over TLS.
#[derive(Debug, Clone, Copy)]
pub enum Trust<'a> {
    /// Whom the system's authorities vouch for, under the URL's name.
    System,
    /// Whom these authorities (PEM) vouch for, under the URL's name.
    Authorities(&'a Path),
    /// Who shows one of these names; and we show a certificate too.
    Mutual(&'a MutualTls),
}

/// What to ask.
#[derive(Debug)]
pub struct Question<'a> {
    /// `http://` or `https://`.
    pub url: &'a str,
    /// The name to ask for where the URL has an address.
    pub host: Option<&'a str>,
    /// Over TLS, who is believed.
    pub trust: Trust<'a>,
    /// A JSON body makes it a POST.
    pub body: Option<Bytes>,
    /// The token of an operator's listener.
    pub bearer: Option<&'a str>,
    /// Bytes of an answer that are taken.
    pub limit: usize,
    /// All of it: name, connection, answer.
    pub within: Duration,
}

/// Why there is no answer, in words for a log.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FetchError {
    /// The question cannot be asked: its URL or its certificates are wrong. Says nothing of the
    /// other side.
    #[error("{0}")]
    Ours(String),
    /// It was asked, and not answered with a 200.
    #[error("{0}")]
    Theirs(String),
}

/// The body of a 200.
///
/// # Errors
/// [`FetchError`].
pub async fn fetch(question: Question<'_>) -> Result<Bytes, FetchError> {
    let within = question.within;
    let late = |_| Err(FetchError::Theirs(format!("no answer within {} s", within.as_secs_f32())));
    timeout(within, ask(question)).await.unwrap_or_else(late)
}

async fn ask(question: Question<'_>) -> Result<Bytes, FetchError> {
    let ours = FetchError::Ours;
    let uri: Uri = question.url.parse().map_err(|error| ours(format!("no URL: {error}")))?;
    let tls = uri.scheme_str() == Some("https");
    let named = uri.host().ok_or_else(|| ours("the URL names no host".to_owned()))?;
    let request = request(&question, &uri).map_err(ours)?;
    let context = tls.then(|| context(question.trust)).transpose().map_err(ours)?;
    exchange(question, (&uri, named), request, context).await.map_err(FetchError::Theirs)
}

async fn exchange(
    question: Question<'_>,
    (uri, named): (&Uri, &str),
    request: Request<Full<Bytes>>,
    context: Option<SslContext>,
) -> Result<Bytes, String> {
    let bare = named.trim_matches(['[', ']']);
    let port = uri.port_u16().unwrap_or(if context.is_some() { 443 } else { 80 });
    let stream = TcpStream::connect((bare, port)).await.map_err(|error| error.to_string())?;
    // A small request must not wait for company.
    stream.set_nodelay(true).map_err(|error| error.to_string())?;
    let Some(context) = context else {
        return converse(stream, request, question.limit).await;
    };
    let host = question.host.unwrap_or(bare);
    let stream = secure(stream, host, (question.trust, context)).await?;
    converse(stream, request, question.limit).await
}

fn request(question: &Question<'_>, uri: &Uri) -> Result<Request<Full<Bytes>>, String> {
    let authority = uri.authority().map(hyper::http::uri::Authority::as_str);
    let host = question.host.or(authority).unwrap_or_default();
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let mut request = Request::builder()
        .uri(path)
        .header(header::HOST, host)
        .header(header::ACCEPT, "application/json")
        .header(header::CONNECTION, "close");
    if question.body.is_some() {
        request = request.method(Method::POST).header(header::CONTENT_TYPE, "application/json");
    }
    if let Some(token) = question.bearer {
        request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
    }
    let body = Full::new(question.body.clone().unwrap_or_default());
    request.body(body).map_err(|error| error.to_string())
}

async fn secure(
    stream: TcpStream,
    host: &str,
    (trust, context): (Trust<'_>, SslContext),
) -> Result<SslStream<TcpStream>, String> {
    let told = |error: ErrorStack| error.to_string();
    let mut ssl = Ssl::new(&context).map_err(told)?;
    let address: Option<IpAddr> = host.parse().ok();
    if address.is_none() {
        ssl.set_hostname(host).map_err(told)?;
    }
    match (trust, address) {
        // Its certificate has one of our names, not that of the address it is reached at.
        (Trust::Mutual(_), _) => {}
        (_, Some(address)) => ssl.param_mut().set_ip(address).map_err(told)?,
        (_, None) => ssl.param_mut().set_host(host).map_err(told)?,
    }
    let mut stream = SslStream::new(ssl, stream).map_err(told)?;
    Pin::new(&mut stream).connect().await.map_err(|error| error.to_string())?;
    match trust {
        Trust::Mutual(tls) if peer_name(stream.ssl(), &tls.names).is_none() => {
            Err("its certificate has none of the names that may answer".to_owned())
        }
        _ => Ok(stream),
    }
}

/// What a connection is made with. The system's authorities are read once: they are hundreds.
fn context(trust: Trust<'_>) -> Result<SslContext, String> {
    static SYSTEM: OnceLock<SslContext> = OnceLock::new();
    let told = |error: ErrorStack| error.to_string();
    if let (Trust::System, Some(context)) = (trust, SYSTEM.get()) {
        return Ok(context.clone());
    }
    let mut builder = SslContext::builder(SslMethod::tls_client()).map_err(told)?;
    builder.set_min_proto_version(Some(SslVersion::TLS1_2)).map_err(told)?;
    builder.set_verify(SslVerifyMode::PEER);
    match trust {
        Trust::System => {
            builder.set_default_verify_paths().map_err(told)?;
            return Ok(SYSTEM.get_or_init(|| builder.build()).clone());
        }
        Trust::Authorities(file) => builder.set_cert_store(store(file)?),
        Trust::Mutual(tls) => {
            builder.set_cert_store(store(&tls.ca)?);
            let Identity { chain, key } =
                Identity::read(&tls.own).map_err(|error| error.to_string())?;
            builder.set_certificate(&chain[0]).map_err(told)?;
            for issuer in &chain[1..] {
                builder.add_extra_chain_cert(issuer.clone()).map_err(told)?;
            }
            builder.set_private_key(&key).map_err(told)?;
        }
    }
    Ok(builder.build())
}

fn store(file: &Path) -> Result<X509Store, String> {
    let told = |error: ErrorStack| error.to_string();
    let mut store = X509StoreBuilder::new().map_err(told)?;
    for authority in read_certificates(file).map_err(|error| error.to_string())? {
        store.add_cert(authority).map_err(told)?;
    }
    Ok(store.build())
}

async fn converse<S>(
    stream: S,
    request: Request<Full<Bytes>>,
    limit: usize,
) -> Result<Bytes, String>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let told = |error: hyper::Error| error.to_string();
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(told)?;
    let answered = async {
        let answer = sender.send_request(request).await.map_err(told)?;
        let status = answer.status();
        let body = Limited::new(answer.into_body(), limit).collect().await;
        let body = body.map(|body| body.to_bytes()).map_err(|error| {
            match error.is::<LengthLimitError>() {
                true => format!("the answer is over {limit} bytes"),
                false => error.to_string(),
            }
        });
        match (status, body) {
            (StatusCode::OK, body) => body,
            // Its own words, where it has some.
            (status, Ok(body)) => Err(match ApiError::parse(&body) {
                Some(error) => format!("it answered {status}: {}", error.message),
                None => format!("it answered {status}"),
            }),
            (status, Err(_)) => Err(format!("it answered {status}")),
        }
    };
    tokio::pin!(answered, connection);
    // The connection does the work; it may end just before the answer is looked at.
    tokio::select! {
        answer = &mut answered => answer,
        ended = &mut connection => match ended {
            Ok(()) => answered.await,
            Err(error) => Err(error.to_string()),
        },
    }
}
