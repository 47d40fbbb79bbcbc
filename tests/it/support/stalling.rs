//! A server that answers every completion at once, but for the times in which it stands still.

use std::{convert::Infallible, net::SocketAddr};

use bytes::Bytes;
use http::{Request, Response, header};
use http_body_util::{BodyExt as _, Full};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{
    net::TcpListener,
    sync::watch,
    task::{AbortHandle, JoinSet},
};

const ANSWER: &str = r#"{"id":"c","object":"text_completion","created":1,"model":"m","choices":[{"index":0,"text":"ok","finish_reason":"stop"}],"usage":{"prompt_tokens":3,"completion_tokens":1,"total_tokens":4}}"#;

pub(crate) struct Stalling {
    pub(crate) address: SocketAddr,
    stalled: watch::Sender<bool>,
    answered: watch::Sender<u64>,
    accepting: AbortHandle,
}

impl Drop for Stalling {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl Stalling {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stalled, answered) = (watch::channel(false).0, watch::channel(0).0);
        let (gate, counted) = (stalled.clone(), answered.clone());
        let accepting = tokio::spawn(async move {
            // Dropped with this task, and every connection with it.
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let (gate, counted) = (gate.clone(), counted.clone());
                let answer = service_fn(move |request: Request<Incoming>| {
                    let (mut gate, counted) = (gate.subscribe(), counted.clone());
                    async move {
                        let _ = request.into_body().collect().await;
                        let _ = gate.wait_for(|stalled| !stalled).await;
                        counted.send_modify(|count| *count += 1);
                        let answer =
                            Response::builder().header(header::CONTENT_TYPE, "application/json");
                        Ok::<_, Infallible>(answer.body(Full::new(Bytes::from(ANSWER))).unwrap())
                    }
                });
                let io = TokioIo::new(stream);
                connections.spawn(http1::Builder::new().serve_connection(io, answer));
            }
        });
        let accepting = accepting.abort_handle();
        Self { address, stalled, answered, accepting }
    }

    /// Answers nothing from here on, or goes on.
    pub(crate) fn stall(&self, stalled: bool) {
        self.stalled.send_replace(stalled);
    }

    /// Ends, as a killed process does.
    pub(crate) fn end(&self) {
        self.accepting.abort();
    }

    pub(crate) fn answered(&self) -> u64 {
        *self.answered.borrow()
    }

    /// Returns when so many were answered.
    pub(crate) async fn until_answered(&self, count: u64) {
        self.answered.subscribe().wait_for(|answered| *answered >= count).await.unwrap();
    }
}
