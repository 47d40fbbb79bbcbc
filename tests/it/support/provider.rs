//! An external provider that does on command what providers do: an API like OpenAI's over HTTP/1.1,
//! in pieces as they are given, so that it can also break the protocol.

use std::{
    net::SocketAddr,
    pin::Pin,
    sync::{Arc, Mutex},
    time::Duration,
};

use openssl::ssl::{Ssl, SslAcceptor};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::TcpListener,
    task::{JoinHandle, JoinSet},
};
use tokio_openssl::SslStream;

/// A piece of what it does with a request.
#[derive(Debug, Clone)]
pub(crate) enum Do {
    Say(String),
    Wait(Duration),
    /// Nothing until the other side closes.
    Hang,
    Close,
}

/// What it does with a request, after reading all of it.
#[derive(Debug, Clone)]
pub(crate) enum Act {
    /// Answers with this text as the path wants it.
    Answer(&'static str),
    /// Whatever this is.
    Do(Vec<Do>),
}

/// A status with headers and an error's body.
pub(crate) fn status(status: u16, headers: &[(&str, &str)]) -> Act {
    let error = json!({"error": {"message": "their words", "type": "their_type", "param": null, "code": "their_code"}});
    let body = error.to_string();
    let headers: String =
        headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    Act::Do(vec![Do::Say(format!(
        "HTTP/1.1 {status} No\r\ncontent-type: application/json\r\ncontent-length: {}\r\n{headers}\r\n{body}",
        body.len()
    ))])
}

/// The beginning of a stream; what follows ends with the connection.
pub(crate) const HEAD: &str =
    "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n";

/// A stream of this text, whatever it is, and the end of the connection.
pub(crate) fn stream(text: &str) -> Act {
    Act::Do(vec![Do::Say(format!("{HEAD}{text}")), Do::Close])
}

/// One request that arrived.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    pub(crate) method_and_path: String,
    /// In lower case, in order.
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Value,
}

struct State {
    act: Mutex<Act>,
    asked: Mutex<Vec<Asked>>,
}

/// Listens until dropped; then its listener and all its connections are closed.
pub(crate) struct Provider {
    pub(crate) address: SocketAddr,
    state: Arc<State>,
    task: JoinHandle<()>,
    scheme: &'static str,
}

impl Drop for Provider {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Provider {
    pub(crate) async fn start(act: Act) -> Self {
        Self::listen(act, None).await
    }

    /// One that speaks TLS.
    pub(crate) async fn secure(act: Act, tls: SslAcceptor) -> Self {
        Self::listen(act, Some(tls)).await
    }

    async fn listen(act: Act, tls: Option<SslAcceptor>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(State { act: Mutex::new(act), asked: Mutex::default() });
        let (shared, scheme) = (Arc::clone(&state), if tls.is_some() { "https" } else { "http" });
        let task = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                stream.set_nodelay(true).unwrap();
                let (state, tls) = (Arc::clone(&shared), tls.clone());
                connections.spawn(async move {
                    let Some(tls) = tls else { return serve(stream, state).await };
                    let ssl = Ssl::new(tls.context()).unwrap();
                    let mut stream = SslStream::new(ssl, stream).unwrap();
                    if Pin::new(&mut stream).accept().await.is_ok() {
                        serve(stream, state).await;
                    }
                });
            }
        });
        Self { address, state, task, scheme }
    }

    pub(crate) fn act(&self, act: Act) {
        *self.state.act.lock().unwrap() = act;
    }

    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.state.asked.lock().unwrap().clone()
    }

    /// Times that it was asked.
    pub(crate) fn times(&self) -> usize {
        self.state.asked.lock().unwrap().len()
    }

    /// Its entry in the configuration: it takes everything.
    pub(crate) fn entry(&self, name: &str) -> Value {
        json!({
            "name": name,
            "url": format!("{}://{}/base/v1", self.scheme, self.address),
            "key": format!("key-of-{name}"),
            "private": true,
            "models": {"fake": format!("{name}-model")},
            "kinds": ["inline", "fim", "chat", "agent"],
        })
    }
}

async fn serve(mut stream: impl AsyncRead + AsyncWrite + Unpin, state: Arc<State>) {
    let mut buffer = Vec::new();
    while let Some(asked) = read(&mut stream, &mut buffer).await {
        let act = state.act.lock().unwrap().clone();
        let chat = asked.method_and_path.ends_with("/chat/completions");
        state.asked.lock().unwrap().push(asked);
        let steps = match act {
            Act::Answer(text) => vec![Do::Say(answer(text, chat))],
            Act::Do(steps) => steps,
        };
        for step in steps {
            match step {
                Do::Say(text) => {
                    if stream.write_all(text.as_bytes()).await.is_err() {
                        return;
                    }
                    let _ = stream.flush().await;
                }
                Do::Wait(time) => tokio::time::sleep(time).await,
                Do::Hang => {
                    let mut byte = [0];
                    while matches!(stream.read(&mut byte).await, Ok(1..)) {}
                    return;
                }
                Do::Close => {
                    let _ = stream.shutdown().await;
                    return;
                }
            }
        }
    }
}

async fn read(stream: &mut (impl AsyncRead + Unpin), buffer: &mut Vec<u8>) -> Option<Asked> {
    let mut piece = vec![0; 16 << 10];
    loop {
        if let Some(asked) = whole(buffer) {
            return Some(asked);
        }
        match stream.read(&mut piece).await {
            Ok(0) | Err(_) => return None,
            Ok(read) => buffer.extend_from_slice(&piece[..read]),
        }
    }
}

fn whole(buffer: &mut Vec<u8>) -> Option<Asked> {
    let end = buffer.windows(4).position(|four| four == b"\r\n\r\n")?;
    let head = String::from_utf8_lossy(&buffer[..end]).into_owned();
    let mut lines = head.lines();
    let first = lines.next()?.trim_end_matches(" HTTP/1.1").to_owned();
    let headers: Vec<(String, String)> = lines
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_lowercase(), value.to_owned()))
        .collect();
    let length = headers.iter().find(|(name, _)| name == "content-length");
    let length = length.map_or(0, |(_, length)| length.parse().unwrap());
    let body = buffer.get(end + 4..end + 4 + length)?;
    let body = serde_json::from_slice(body).unwrap_or(Value::Null);
    buffer.drain(..end + 4 + length);
    Some(Asked { method_and_path: first, headers, body })
}

/// A chunk of a choice, as the endpoint has it.
pub(crate) fn chunk(chat: bool, text: &str, finish: Option<&str>) -> Value {
    let choice = match chat {
        true => json!({"index": 0, "delta": {"content": text}, "finish_reason": finish}),
        false => json!({"index": 0, "text": text, "finish_reason": finish}),
    };
    json!({
        "id": "theirs-1", "object": "their.chunk", "created": 7, "model": "their-own-name",
        "system_fingerprint": "fake@1", "choices": [choice],
    })
}

fn answer(text: &str, chat: bool) -> String {
    let characters: Vec<char> = text.chars().collect();
    let pieces =
        characters.chunks(3).map(|piece| chunk(chat, &piece.iter().collect::<String>(), None));
    let end = [
        chunk(chat, "", Some("stop")),
        json!({"id": "theirs-1", "created": 7, "choices": [], "usage":
            {"prompt_tokens": 11, "completion_tokens": 5, "total_tokens": 16}}),
    ];
    let events: String = pieces.chain(end).map(|event| format!("data: {event}\n\n")).collect();
    let events = format!("{events}data: [DONE]\n\n");
    format!(
        "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n{:x}\r\n{events}\r\n0\r\n\r\n",
        events.len()
    )
}
