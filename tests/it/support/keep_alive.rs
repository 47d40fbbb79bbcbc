//! A client that keeps its connection, as SDKs do, and opens another one only where the server
//! said that it would close.

use bytes::Bytes;
use http::{Request, header};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1::SendRequest;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::{net::TcpStream, time::timeout};

use super::client::{Broken, LIMIT, Whole, request};

pub(crate) struct KeepAlive {
    address: String,
    sender: Option<SendRequest<Full<Bytes>>>,
}

impl KeepAlive {
    pub(crate) fn new(address: &str) -> Self {
        Self { address: address.to_owned(), sender: None }
    }

    pub(crate) async fn complete(&mut self, body: &Value) -> Result<Whole, Broken> {
        self.send(request("/v1/completions", body, &[])).await
    }

    pub(crate) async fn send(&mut self, request: Request<Bytes>) -> Result<Whole, Broken> {
        timeout(LIMIT, self.exchange(request)).await?
    }

    async fn exchange(&mut self, request: Request<Bytes>) -> Result<Whole, Broken> {
        let mut sender = match self.sender.take() {
            Some(mut sender) => {
                // The connection's task may not have seen the last answer's end yet; a request
                // given to it now would be refused here, without a word from the server.
                sender.ready().await?;
                sender
            }
            None => {
                let stream = TcpStream::connect(&self.address).await?;
                stream.set_nodelay(true)?;
                let (sender, connection) =
                    hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
                tokio::spawn(connection);
                sender
            }
        };
        let (parts, body) = request.into_parts();
        let request = Request::from_parts(parts, Full::new(body));
        let (parts, body) = sender.send_request(request).await?.into_parts();
        let body = body.collect().await?.to_bytes();
        let closes = parts.headers.get(header::CONNECTION).is_some_and(|value| value == "close");
        if !closes {
            self.sender = Some(sender);
        }
        Ok(Whole { status: parts.status, headers: parts.headers, body })
    }
}
