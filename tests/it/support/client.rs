//! A small HTTP/1.1 client: one connection a request, closed when the answer is dropped.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::{net::TcpStream, task::JoinHandle, time::timeout};

/// No request of a test takes longer.
pub(crate) const LIMIT: Duration = Duration::from_secs(60);

/// An answer whose head has arrived.
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    body: Incoming,
    connection: JoinHandle<()>,
}

impl Drop for Answer {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

/// A whole answer.
#[derive(Debug)]
pub(crate) struct Whole {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

/// The connection broke, or took too long; how does not matter to any test.
#[derive(Debug)]
pub(crate) struct Broken;

impl<E: std::error::Error> From<E> for Broken {
    fn from(_: E) -> Self {
        Self
    }
}

impl Answer {
    /// The next piece of the body; `None` at its end.
    pub(crate) async fn piece(&mut self) -> Result<Option<Bytes>, Broken> {
        loop {
            let frame = timeout(LIMIT, self.body.frame()).await?;
            match frame {
                None => return Ok(None),
                Some(Err(_)) => return Err(Broken),
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        return Ok(Some(data));
                    }
                }
            }
        }
    }

    /// The body up to the first piece that has `text` in it.
    pub(crate) async fn until(&mut self, text: &str) -> Result<String, Broken> {
        let mut seen = String::new();
        while !seen.contains(text) {
            let piece = self.piece().await?.ok_or(Broken)?;
            seen.push_str(&String::from_utf8_lossy(&piece));
        }
        Ok(seen)
    }

    /// All of the body.
    pub(crate) async fn whole(mut self) -> Result<Whole, Broken> {
        let mut body = Vec::new();
        while let Some(piece) = self.piece().await? {
            body.extend_from_slice(&piece);
        }
        Ok(Whole { status: self.status, headers: self.headers.clone(), body: body.into() })
    }
}

impl Whole {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error}: {:?}", self.body))
    }

    pub(crate) fn text(&self) -> String {
        let json = self.json();
        let choice = &json["choices"][0];
        let text = choice["text"].as_str().or_else(|| choice["message"]["content"].as_str());
        text.unwrap_or_else(|| panic!("{json}")).to_owned()
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    /// The text of a stream, and whether it ended with `[DONE]`.
    pub(crate) fn streamed(&self) -> (String, bool) {
        let body = std::str::from_utf8(&self.body).unwrap();
        let text = body
            .lines()
            .filter_map(|line| serde_json::from_str::<Value>(line.strip_prefix("data: ")?).ok())
            .filter_map(|chunk| chunk["choices"][0]["text"].as_str().map(str::to_owned))
            .collect();
        (text, body.ends_with("data: [DONE]\n\n"))
    }
}

/// Code that nobody could answer gets an answer without text, and the label that says so.
pub(crate) fn assert_degraded(answer: &Whole) {
    assert_eq!(answer.status, StatusCode::OK, "{:?}", answer.body);
    assert_eq!((answer.header("x-nearhop-source"), answer.text().as_str()), ("degraded", ""));
}

/// Sends a request to `address` (`127.0.0.1:8080`) and waits for the head of its answer.
pub(crate) async fn send(address: &str, request: Request<Bytes>) -> Result<Answer, Broken> {
    let exchange = async {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        let connection = tokio::spawn(async move {
            let _ = connection.await;
        });
        let (parts, body) = request.into_parts();
        let request = Request::from_parts(parts, Full::new(body));
        let answer = sender.send_request(request).await?;
        let (parts, body) = answer.into_parts();
        Ok(Answer { status: parts.status, headers: parts.headers, body, connection })
    };
    timeout(LIMIT, exchange).await?
}

/// A request with the development key.
pub(crate) fn request(path: &str, body: &Value, headers: &[(&str, &str)]) -> Request<Bytes> {
    let mut request = Request::post(path)
        .header("host", "nearhop")
        .header("authorization", "Bearer nh-dev")
        .header("content-type", "application/json");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(Bytes::from(body.to_string())).unwrap()
}

pub(crate) async fn post(
    address: &str,
    path: &str,
    body: &Value,
    headers: &[(&str, &str)],
) -> Whole {
    send(address, request(path, body, headers)).await.unwrap().whole().await.unwrap()
}

pub(crate) async fn complete(address: &str, body: &Value) -> Whole {
    post(address, "/v1/completions", body, &[]).await
}

pub(crate) async fn get(
    address: &str,
    path: &str,
    headers: &[(&str, &str)],
) -> Result<Whole, Broken> {
    let mut request = Request::get(path).header("host", "nearhop");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    send(address, request.body(Bytes::new()).unwrap()).await?.whole().await
}
