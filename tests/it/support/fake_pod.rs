//! A pod that fails on command: a few lines of HTTP/1.1 over a socket, so that it can also break
//! the protocol.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, OnceLock, mpsc},
    time::Duration,
};

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    runtime::{Builder, Runtime},
    sync::{Semaphore, watch},
    task::JoinSet,
};

use super::client::LIMIT;

/// What it does with a completion request, after reading all of it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Act {
    /// Answers with this text, in pieces of a few bytes.
    Answer(&'static str),
    /// The same, with a pause before the last piece: a stream that cannot be sent as a whole.
    Slow(&'static str),
    /// This text, and its end when nobody waits for it any more.
    EndsLate(&'static str),
    /// So many pieces of a kilobyte.
    Long(usize),
    /// Another status, with an error of that code.
    Status(u16, &'static str),
    /// Closes without a word.
    Close,
    /// Says nothing until the other side closes.
    Hang,
    /// 200 and half an answer, then closes.
    DieMidway,
    /// 200 and half an answer, then nothing until the other side closes.
    StallMidway,
    /// Nothing until it is told to hang up; then answers with this text.
    StallThen(&'static str),
    /// Nothing until it is told to hang up; then closes.
    StallThenFail,
    /// 200 and something that is no stream.
    Garbage,
    /// 200, and a stream of one endless event.
    Endless,
    /// An error event after the first piece.
    ErrorEvent,
    /// Answers with this text, of weights that its report does not name.
    OtherRevision(&'static str),
    /// These events, and the proper end of a body.
    Events(&'static [&'static str]),
    /// These events, and then nothing until it is told to hang up.
    EventsThenStall(&'static [&'static str]),
    /// Answers by the request.
    Script(Script),
    /// Works for so long on each, on as many at once as it computes together; the others wait.
    Work(Duration),
    /// Answers a byte each so long.
    Drip(Duration),
    /// Answers with this text, after a while.
    Late(&'static str),
    /// Does what is right for the request.
    By(Choice),
}

/// What to do with a request, by its body.
#[derive(Clone)]
pub(crate) struct Choice(Arc<dyn Fn(&Value) -> Act + Send + Sync>);

impl Choice {
    pub(crate) fn new(choose: impl Fn(&Value) -> Act + Send + Sync + 'static) -> Self {
        Self(Arc::new(choose))
    }
}

impl std::fmt::Debug for Choice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Choice")
    }
}

impl PartialEq for Choice {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

/// What a scripted pod says to a request's head, in lower case, and body.
#[derive(Clone)]
pub(crate) struct Script(Arc<Answering>);

type Answering = dyn Fn(&str, &Value) -> Reply + Send + Sync;

/// A scripted answer, and why it ends there.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Reply {
    pub(crate) text: String,
    pub(crate) finish: &'static str,
}

impl Script {
    pub(crate) fn new(answer: impl Fn(&Value) -> Reply + Send + Sync + 'static) -> Self {
        Self::of_whole(move |_, body| answer(body))
    }

    /// The head counts as well.
    pub(crate) fn of_whole(answer: impl Fn(&str, &Value) -> Reply + Send + Sync + 'static) -> Self {
        Self(Arc::new(answer))
    }
}

impl std::fmt::Debug for Script {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Script")
    }
}

impl PartialEq for Script {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

/// One completion request that arrived.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    pub(crate) head: String,
    pub(crate) bytes: usize,
    pub(crate) sha256: Vec<u8>,
    pub(crate) body: Vec<u8>,
}

struct State {
    act: Mutex<Act>,
    seen: Mutex<Vec<Seen>>,
    /// Requests whose connection the other side closed before they were answered.
    cancelled: watch::Sender<usize>,
    connections: watch::Sender<usize>,
    /// Times that it was told to hang up on answers that it stalls.
    hung_up: watch::Sender<usize>,
    /// What it was told to drop of its prefix cache.
    purges: Mutex<Vec<String>>,
    probes_fail: Mutex<bool>,
    /// What it says it computes together; 0 is nothing said.
    slots: Mutex<usize>,
    /// What it computes together, where it works.
    workers: Arc<Semaphore>,
    /// Requests that it says wait for it.
    queued: Mutex<usize>,
}

/// Listens until dropped; then its listener and all its connections are closed.
pub(crate) struct FakePod {
    pub(crate) address: SocketAddr,
    state: Arc<State>,
    task: tokio::task::JoinHandle<()>,
    /// Ends when the task and every connection's task are gone.
    gone: mpsc::Receiver<()>,
}

impl Drop for FakePod {
    fn drop(&mut self) {
        self.task.abort();
        // Ending a task takes a moment on the threads that it lives on, in which it could still
        // answer: a dropped pod must be gone.
        let _ = self.gone.recv_timeout(LIMIT);
    }
}

/// Pods live on threads of their own, as real ones would: a test that blocks on an edge's start
/// must not keep them from answering it.
fn runtime() -> &'static Runtime {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    RUNTIME
        .get_or_init(|| Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap())
}

impl FakePod {
    pub(crate) fn start(act: Act) -> Self {
        Self::start_at([127, 0, 0, 1].into(), act)
    }

    pub(crate) fn start_at(address: std::net::Ipv4Addr, act: Act) -> Self {
        let listener = std::net::TcpListener::bind((address, 0)).unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(State {
            act: Mutex::new(act),
            seen: Mutex::default(),
            cancelled: watch::Sender::new(0),
            connections: watch::Sender::new(0),
            hung_up: watch::Sender::new(0),
            purges: Mutex::default(),
            probes_fail: Mutex::new(false),
            slots: Mutex::new(0),
            workers: Arc::new(Semaphore::new(0)),
            queued: Mutex::new(0),
        });
        let shared = Arc::clone(&state);
        let (alive, gone) = mpsc::channel();
        let task = runtime().spawn(async move {
            let listener = TcpListener::from_std(listener).unwrap();
            // Ended with this task: a dropped pod leaves no connection behind.
            let mut connections = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                stream.set_nodelay(true).unwrap();
                shared.connections.send_modify(|count| *count += 1);
                let (alive, shared) = (alive.clone(), Arc::clone(&shared));
                connections.spawn(async move {
                    serve(stream, shared).await;
                    drop(alive);
                });
            }
        });
        Self { address, state, task, gone }
    }

    /// One that computes so many together, each for so long, and says nothing of it.
    pub(crate) fn working(slots: usize, each: Duration) -> Self {
        let pod = Self::start(Act::Work(each));
        pod.state.workers.add_permits(slots);
        pod
    }

    pub(crate) fn act(&self, act: Act) {
        *self.state.act.lock().unwrap() = act;
    }

    pub(crate) fn fail_probes(&self, fail: bool) {
        *self.state.probes_fail.lock().unwrap() = fail;
    }

    /// How many requests it says it computes together.
    pub(crate) fn set_slots(&self, slots: usize) {
        *self.state.slots.lock().unwrap() = slots;
    }

    /// How many requests it says wait for it.
    pub(crate) fn set_queued(&self, queued: usize) {
        *self.state.queued.lock().unwrap() = queued;
    }

    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.state.seen.lock().unwrap().clone()
    }

    /// What it was told to drop of its prefix cache.
    pub(crate) fn purges(&self) -> Vec<String> {
        self.state.purges.lock().unwrap().clone()
    }

    /// Counts requests that the other side gave up.
    pub(crate) fn cancelled(&self) -> watch::Receiver<usize> {
        self.state.cancelled.subscribe()
    }

    /// Closes the connections of answers that it stalls, and of those that it hangs.
    pub(crate) fn hang_up(&self) {
        self.state.hung_up.send_modify(|times| *times += 1);
    }

    /// Connections accepted so far.
    pub(crate) fn connections(&self) -> usize {
        *self.state.connections.borrow()
    }
}

async fn serve(mut stream: TcpStream, state: Arc<State>) {
    let mut buffer = Vec::new();
    // Each request on this connection; the end of the connection ends the loop.
    while let Some((head, body)) = read_request(&mut stream, &mut buffer).await {
        let kept = if head.starts_with("GET /readyz") {
            let fail = *state.probes_fail.lock().unwrap();
            let slots = *state.slots.lock().unwrap();
            probe(&mut stream, fail, slots).await
        } else if head.starts_with("POST /internal/v1/prefix-cache/purge") {
            state.purges.lock().unwrap().push(String::from_utf8_lossy(&body).into_owned());
            whole(&mut stream, "200 OK", &json!({"dropped_blocks": 7}).to_string()).await
        } else {
            let act = match state.act.lock().unwrap().clone() {
                Act::By(choice) => choice.0(&serde_json::from_slice(&body).unwrap()),
                act => act,
            };
            let sha256 = Sha256::digest(&body).to_vec();
            let reply = match &act {
                Act::Script(script) => {
                    Some(script.0(&head, &serde_json::from_slice(&body).unwrap()))
                }
                _ => None,
            };
            state.seen.lock().unwrap().push(Seen { head, bytes: body.len(), sha256, body });
            match reply {
                Some(reply) => say((&mut stream, &state), "1", &reply, Duration::ZERO).await,
                None => perform(&mut stream, &act, &state).await,
            }
        };
        if kept.is_none() {
            return;
        }
    }
}

/// A whole request, or `None` at the end of the connection.
async fn read_request(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> Option<(String, Vec<u8>)> {
    let mut piece = vec![0; 64 << 10];
    loop {
        if let Some(end) = buffer.windows(4).position(|four| four == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&buffer[..end]).to_lowercase();
            let head = head.replacen("get ", "GET ", 1).replacen("post ", "POST ", 1);
            let length = head
                .lines()
                .find_map(|line| line.strip_prefix("content-length:")?.trim().parse().ok())
                .unwrap_or(0usize);
            if buffer.len() >= end + 4 + length {
                let body = buffer[end + 4..end + 4 + length].to_vec();
                buffer.drain(..end + 4 + length);
                return Some((head, body));
            }
        }
        match stream.read(&mut piece).await {
            Ok(0) | Err(_) => return None,
            Ok(read) => buffer.extend_from_slice(&piece[..read]),
        }
    }
}

async fn probe(stream: &mut TcpStream, fail: bool, slots: usize) -> Option<()> {
    let model = |revision| {
        json!({
            "name": "fake", "revision": revision, "template": "t", "temperature": 0.0,
            "max_tokens": 16, "context_length": 1024, "aliases": ["usual"],
        })
    };
    let report = json!({"models": [model("1")], "kept": [model("0")], "slots": slots});
    let status = if fail { "503 Service Unavailable" } else { "200 OK" };
    whole(stream, status, &report.to_string()).await
}

async fn whole(stream: &mut TcpStream, status: &str, body: &str) -> Option<()> {
    let head = format!(
        "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(format!("{head}{body}").as_bytes()).await.ok()
}

async fn perform(stream: &mut TcpStream, act: &Act, state: &State) -> Option<()> {
    match act {
        Act::Answer(text) | Act::Slow(text) | Act::EndsLate(text) | Act::OtherRevision(text) => {
            let revision = if matches!(act, Act::OtherRevision(_)) { "2" } else { "1" };
            let pause = Duration::from_millis(match act {
                Act::Slow(_) => 100,
                Act::EndsLate(_) => 30_000,
                _ => 0,
            });
            let reply = Reply { text: (*text).to_owned(), finish: "stop" };
            say((stream, state), revision, &reply, pause).await
        }
        Act::Events(events) => {
            begin(stream, state).await?;
            for data in *events {
                event(stream, data).await?;
            }
            chunk(stream, "").await
        }
        Act::EventsThenStall(events) => {
            begin(stream, state).await?;
            for data in *events {
                event(stream, data).await?;
            }
            give_up(stream, state).await
        }
        Act::Work(each) => {
            let workers = Arc::clone(&state.workers);
            let mut byte = [0];
            // Who goes away gives its turn back, working or not.
            tokio::select! {
                () = async {
                    let _turn = workers.acquire().await;
                    tokio::time::sleep(*each).await;
                } => {}
                _ = stream.read(&mut byte) => {
                    state.cancelled.send_modify(|count| *count += 1);
                    return None;
                }
            }
            Box::pin(perform(stream, &Act::Answer("fine"), state)).await
        }
        Act::Drip(each) => loop {
            tokio::time::sleep(*each).await;
            stream.write_all(b"H").await.ok()?;
        },
        Act::Script(_) | Act::By(_) => unreachable!("it is known by now what they come to"),
        Act::Late(text) => {
            let mut byte = [0];
            tokio::select! {
                () = tokio::time::sleep(LATE) => {}
                _ = stream.read(&mut byte) => {
                    state.cancelled.send_modify(|count| *count += 1);
                    return None;
                }
            }
            Box::pin(perform(stream, &Act::Answer(text), state)).await
        }
        Act::Long(pieces) => {
            begin(stream, state).await?;
            let kilobyte = "x".repeat(1024);
            for _ in 0..*pieces {
                event(stream, &piece(&kilobyte, None)).await?;
            }
            event(stream, &piece("", Some("stop"))).await?;
            let usage = json!({"id": "f", "created": 1, "choices": [], "usage":
                {"prompt_tokens": 1, "completion_tokens": pieces, "total_tokens": pieces + 1}});
            event(stream, &usage.to_string()).await?;
            event(stream, "[DONE]").await?;
            chunk(stream, "").await
        }
        Act::Status(status, code) => {
            let error = json!({"error": {"message": "no", "type": "invalid_request_error", "param": null, "code": code}});
            whole(stream, &format!("{status} No"), &error.to_string()).await
        }
        Act::Close => None,
        Act::Hang => give_up(stream, state).await,
        Act::DieMidway => {
            begin(stream, state).await?;
            event(stream, &piece("half", None)).await?;
            None
        }
        Act::StallMidway => {
            begin(stream, state).await?;
            event(stream, &piece("half", None)).await?;
            give_up(stream, state).await
        }
        Act::StallThen(text) => {
            let mut hung_up = state.hung_up.subscribe();
            let mut byte = [0];
            tokio::select! {
                _ = hung_up.changed() => {}
                _ = stream.read(&mut byte) => {
                    state.cancelled.send_modify(|count| *count += 1);
                    return None;
                }
            }
            Box::pin(perform(stream, &Act::Answer(text), state)).await
        }
        Act::StallThenFail => give_up(stream, state).await,
        Act::Garbage => whole(stream, "200 OK", "<html>hello</html>").await,
        Act::Endless => {
            begin(stream, state).await?;
            loop {
                chunk(stream, &"x".repeat(60 << 10)).await?;
            }
        }
        Act::ErrorEvent => {
            begin(stream, state).await?;
            let error = json!({"error": {"message": "no", "type": "server_error", "param": null, "code": "engine_failed"}});
            chunk(stream, &format!("event: error\ndata: {error}\n\n")).await?;
            chunk(stream, "").await
        }
    }
}

/// A whole answer in pieces of three characters, with a pause before the last piece.
async fn say(
    (stream, state): (&mut TcpStream, &State),
    revision: &str,
    reply: &Reply,
    pause: Duration,
) -> Option<()> {
    begin(stream, state).await?;
    let characters: Vec<char> = reply.text.chars().collect();
    let groups: Vec<String> = characters.chunks(3).map(|group| group.iter().collect()).collect();
    for group in &groups {
        event(stream, &piece_of(revision, group, None)).await?;
    }
    if !pause.is_zero() {
        tokio::time::sleep(pause).await;
    }
    event(stream, &piece("", Some(reply.finish))).await?;
    let usage = json!({"id": "f", "created": 1, "choices": [], "usage":
        {"prompt_tokens": 1, "completion_tokens": groups.len(), "total_tokens": groups.len() + 1}});
    event(stream, &usage.to_string()).await?;
    event(stream, "[DONE]").await?;
    chunk(stream, "").await
}

/// Waits for the other side to close, and counts it.
async fn give_up(stream: &mut TcpStream, state: &State) -> Option<()> {
    let (mut byte, mut hung_up) = ([0], state.hung_up.subscribe());
    let closed = async { while matches!(stream.read(&mut byte).await, Ok(1..)) {} };
    tokio::select! {
        () = closed => {}
        _ = hung_up.changed() => return None,
    }
    state.cancelled.send_modify(|count| *count += 1);
    None
}

fn piece(text: &str, finish: Option<&str>) -> String {
    piece_of("1", text, finish)
}

fn piece_of(revision: &str, text: &str, finish: Option<&str>) -> String {
    let fingerprint = format!("fake@{revision}");
    let choice = json!({"index": 0, "text": text, "finish_reason": finish});
    json!({"id": "f", "created": 1, "system_fingerprint": fingerprint, "choices": [choice]})
        .to_string()
}

/// Far over what a fake pod takes otherwise.
const LATE: Duration = Duration::from_millis(200);

async fn begin(stream: &mut TcpStream, state: &State) -> Option<()> {
    const HEAD: &str =
        "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n";
    let load = match *state.queued.lock().unwrap() {
        0 => String::new(),
        queued => format!(
            "endpoint-load-metrics: TEXT named_metrics.running=1,named_metrics.queue_depth={queued}\r\n"
        ),
    };
    stream.write_all(format!("{HEAD}{load}\r\n").as_bytes()).await.ok()
}

async fn event(stream: &mut TcpStream, data: &str) -> Option<()> {
    chunk(stream, &format!("data: {data}\n\n")).await
}

async fn chunk(stream: &mut TcpStream, data: &str) -> Option<()> {
    stream.write_all(format!("{:x}\r\n{data}\r\n", data.len()).as_bytes()).await.ok()
}
