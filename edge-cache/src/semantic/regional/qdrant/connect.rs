//! A connection to the server that the URL names: TCP, TLS, HTTP/1.1.

use std::pin::Pin;

use bytes::Bytes;
use http_body_util::Full;
use hyper::{
    Uri,
    client::conn::http1::{SendRequest, handshake},
    header::HeaderValue,
};
use hyper_util::rt::TokioIo;
use openssl::{
    ssl::{SslConnector, SslMethod, SslVersion},
    x509::{X509VerifyResult, store::X509StoreBuilder},
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};
use tokio_openssl::SslStream;

use super::settings::{Settings, SettingsError};

/// The one who is asked.
pub(super) struct Target {
    /// Without the brackets that an address of IPv6 has in a URL.
    host: String,
    port: u16,
    tls: Option<SslConnector>,
    /// For the `Host` header.
    pub(super) authority: HeaderValue,
    /// The collection's path, which leads every other.
    pub(super) base: String,
    pub(super) api_key: Option<HeaderValue>,
}

impl Target {
    pub(super) fn new(settings: &Settings) -> Result<Self, SettingsError> {
        // What is wrong with a URL is not said with a password that may be in it.
        let url = || SettingsError::Url(settings.url.split('@').next_back().unwrap_or("").into());
        let uri: Uri = settings.url.parse().map_err(|_not_a_url| url())?;
        let secure = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err(url()),
        };
        let (Some(host), Some(authority)) = (uri.host(), uri.authority()) else {
            return Err(url());
        };
        if host.is_empty() || authority.as_str().contains('@') || uri.query().is_some() {
            return Err(url());
        }
        let api_key = settings.api_key.as_ref().map(|key| {
            let mut value = HeaderValue::from_str(key.reveal())
                .map_err(|_hides_what_it_was| SettingsError::ApiKey)?;
            value.set_sensitive(true);
            Ok::<_, SettingsError>(value)
        });
        Ok(Self {
            host: host.trim_matches(['[', ']']).to_owned(),
            port: uri.port_u16().unwrap_or(if secure { 443 } else { 80 }),
            tls: secure.then(|| connector(settings)).transpose()?,
            authority: HeaderValue::from_str(authority.as_str()).map_err(|_odd| url())?,
            base: format!(
                "{}/collections/{}",
                uri.path().trim_end_matches('/'),
                settings.collection
            ),
            api_key: api_key.transpose()?,
        })
    }

    /// Without a limit: the caller has one.
    pub(super) async fn connect(&self) -> Result<SendRequest<Full<Bytes>>, String> {
        let tcp = TcpStream::connect((self.host.as_str(), self.port)).await;
        let tcp = tcp.map_err(|error| format!("no connection: {error}"))?;
        // A small request must not wait for company.
        tcp.set_nodelay(true).map_err(|error| error.to_string())?;
        let Some(connector) = &self.tls else { return speak(tcp).await };
        let ssl = connector.configure().and_then(|configured| configured.into_ssl(&self.host));
        let stream = ssl.and_then(|ssl| SslStream::new(ssl, tcp));
        let mut stream = stream.map_err(|error| format!("TLS: {error}"))?;
        Pin::new(&mut stream).connect().await.map_err(|error| {
            let why = stream.ssl().verify_result();
            if why == X509VerifyResult::OK {
                format!("TLS: {error}")
            } else {
                format!(
                    "TLS: the server's certificate is not accepted: {why}; see the `ca` setting"
                )
            }
        })?;
        speak(stream).await
    }
}

fn connector(settings: &Settings) -> Result<SslConnector, SettingsError> {
    let mut builder = SslConnector::builder(SslMethod::tls_client())?;
    builder.set_min_proto_version(Some(SslVersion::TLS1_2))?;
    if let Some(path) = &settings.ca {
        // Only this one: a certificate from elsewhere has no business here.
        builder.set_cert_store(X509StoreBuilder::new()?.build());
        builder
            .set_ca_file(path)
            .map_err(|why| SettingsError::Authority { path: path.clone(), why })?;
    }
    Ok(builder.build())
}

async fn speak<S>(stream: S) -> Result<SendRequest<Full<Bytes>>, String>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (sender, connection) =
        handshake(TokioIo::new(stream)).await.map_err(|error| error.to_string())?;
    // It ends when the sender is dropped, or the server closes it.
    tokio::spawn(async move {
        let _ = connection.await;
    });
    Ok(sender)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::semantic::regional::qdrant::ApiKey;

    fn target(url: &str) -> Option<(String, u16, String)> {
        let target = Target::new(&Settings { url: url.to_owned(), ..Settings::default() });
        target.ok().map(|target| (target.host, target.port, target.base))
    }

    #[test]
    fn a_url_says_whom_to_ask() {
        let expect = |host: &str, port, base: &str| Some((host.to_owned(), port, base.to_owned()));
        assert_eq!(target("http://q:6333"), expect("q", 6333, "/collections/nearhop"));
        assert_eq!(target("https://q.example/"), expect("q.example", 443, "/collections/nearhop"));
        assert_eq!(
            target("https://[::1]:6333/vectors/"),
            expect("::1", 6333, "/vectors/collections/nearhop")
        );
        for wrong in ["", "q:6333", "ftp://q", "http://", "http://user:word@q", "http://q/?a=b"] {
            assert_eq!(target(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_refused_url_shows_no_password() {
        let settings = Settings { url: "http://user:hunter2@q".to_owned(), ..Settings::default() };
        let said = Target::new(&settings).err().unwrap().to_string();
        assert!(said.contains('q') && !said.contains("hunter2"), "{said}");
    }

    #[test]
    fn a_key_that_no_header_may_have_is_refused() {
        let settings = Settings { api_key: Some(ApiKey::new("a\nb")), ..Settings::default() };
        assert!(matches!(Target::new(&settings), Err(SettingsError::ApiKey)));
    }
}
