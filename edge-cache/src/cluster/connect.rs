//! A connection to one node: TCP, TLS, the login.
//!
//! The library that speaks the protocol is used for one connection at a time. Its own cluster client was
//! measured and not taken: a paused master held its shard for as long as the pause lasted.

use std::{pin::Pin, time::Duration};

use openssl::ssl::{SslConnector, SslConnectorBuilder, SslMethod};
use redis::{
    AsyncConnectionConfig, ErrorKind, Pipeline, RedisConnectionInfo, RedisError, Value,
    aio::{MultiplexedConnection, PubSub},
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    task::AbortHandle,
};
use tokio_openssl::SslStream;

use super::{
    settings::{ClusterError, Settings, bounded},
    topology::Address,
};

/// TCP, TLS and the login together.
pub(crate) const CONNECT_LIMIT: Duration = Duration::from_secs(2);

/// How a node is logged into.
pub(crate) struct Login {
    user: RedisConnectionInfo,
    tls: Option<SslConnector>,
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

impl Login {
    pub(crate) fn new(settings: &Settings) -> Result<Self, ClusterError> {
        // No CLIENT SETINFO: servers before 7.2 do not have it, and it would be one more right to grant.
        let mut user = RedisConnectionInfo::default().set_skip_set_lib_name();
        if let Some(name) = &settings.username {
            user = user.set_username(name);
        }
        if let Some(password) = &settings.password {
            user = user.set_password(password.reveal());
        }
        let tls = match &settings.tls {
            None => None,
            Some(tls) => {
                let mut builder: SslConnectorBuilder =
                    SslConnector::builder(SslMethod::tls_client())?;
                if let Some(path) = &tls.ca {
                    // Only this one: a certificate from elsewhere has no business here.
                    let store = openssl::x509::store::X509StoreBuilder::new()?.build();
                    builder.set_cert_store(store);
                    builder
                        .set_ca_file(path)
                        .map_err(|why| ClusterError::Authority { path: path.clone(), why })?;
                }
                Some(builder.build())
            }
        };
        Ok(Self { user, tls })
    }

    /// A connection for many calls at a time.
    pub(crate) async fn link(&self, address: &Address, name: Option<&str>) -> Result<Link, String> {
        within(address, async {
            let stream = self.stream(address, name).await?;
            // No limit of the library's own: every call brings one, and abandoning a call is safe.
            let config = AsyncConnectionConfig::new().set_response_timeout(None);
            let made = MultiplexedConnection::new_with_config(&self.user, stream, config);
            let (connection, driver) = made.await.map_err(refused)?;
            let link = Link { connection, driver: tokio::spawn(driver).abort_handle() };
            // Without a login nobody has answered yet: a paused server's kernel accepts connections.
            let mut ping = Pipeline::new();
            ping.cmd("PING");
            match link.send(&ping).await?.first() {
                Some(Value::ServerError(error)) => Err(refused(error.clone().into())),
                _ => Ok(link),
            }
        })
        .await
    }

    /// A connection that only listens.
    pub(crate) async fn listener(
        &self,
        address: &Address,
        name: Option<&str>,
    ) -> Result<PubSub, String> {
        within(address, async {
            PubSub::new(&self.user, self.stream(address, name).await?).await.map_err(refused)
        })
        .await
    }

    async fn stream(
        &self,
        address: &Address,
        name: Option<&str>,
    ) -> Result<Box<dyn Stream>, String> {
        let tcp = TcpStream::connect((address.host.as_str(), address.port)).await;
        let tcp = tcp.map_err(|error| error.to_string())?;
        tcp.set_nodelay(true).map_err(|error| error.to_string())?;
        let Some(connector) = &self.tls else { return Ok(Box::new(tcp)) };
        let name = name.unwrap_or(&address.host);
        let ssl = connector.configure().and_then(|configured| configured.into_ssl(name));
        let mut stream = ssl
            .and_then(|ssl| SslStream::new(ssl, tcp))
            .map_err(|error| format!("TLS: {error}"))?;
        Pin::new(&mut stream).connect().await.map_err(|error| {
            let why = stream.ssl().verify_result();
            if why == openssl::x509::X509VerifyResult::OK {
                format!("TLS: {error}")
            } else {
                format!(
                    "TLS: the certificate of {name} is not accepted: {why}; see the `ca` setting"
                )
            }
        })?;
        Ok(Box::new(stream))
    }
}

async fn within<T>(
    address: &Address,
    connecting: impl Future<Output = Result<T, String>>,
) -> Result<T, String> {
    let answer = tokio::time::timeout(CONNECT_LIMIT, connecting).await;
    let answer = answer.unwrap_or_else(|_| Err(format!("no connection within {CONNECT_LIMIT:?}")));
    answer.map_err(|why| bounded(format!("Redis at {address}: {why}")))
}

/// A refused login names its fix, whatever the server's version calls it.
fn refused(error: RedisError) -> String {
    let text = error.to_string();
    let login = error.kind() == ErrorKind::AuthenticationFailed
        || ["WRONGPASS", "NOAUTH", "NOPERM"].iter().any(|code| text.contains(code));
    if login {
        format!(
            "{text}; check the configured username and password against ACL LIST on the servers"
        )
    } else {
        text
    }
}

/// An open connection; closed when nobody holds it.
pub(crate) struct Link {
    connection: MultiplexedConnection,
    driver: AbortHandle,
}

impl Link {
    /// Sends these commands in one write, and gives each one's answer. Without a limit: the caller has
    /// one. The future may be dropped at any time.
    pub(crate) async fn send(&self, commands: &Pipeline) -> Result<Vec<Value>, String> {
        let mut connection = self.connection.clone();
        let answers = connection.send_packed_commands(commands, 0, commands.len()).await;
        answers.map_err(bounded)
    }

    /// Did the other side, or the network, end it?
    pub(crate) fn is_closed(&self) -> bool {
        self.driver.is_finished()
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.driver.abort();
    }
}
