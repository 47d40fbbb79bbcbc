//! Wires between an edge and its pods that break on command, in the middle of an answer.
//!
//! Every wire is a pod to the edge, so that a few real pods are enough for many that die. An answer
//! is known by a mark in its request's prompt: whichever wire it comes over, its next cut is made
//! there. A cut waits until the client has seen what came before it, where there is anything to see:
//! what nobody has seen is begun again, and not gone on with.

use std::{
    collections::{HashMap, VecDeque},
    net::SocketAddr,
    sync::{Arc, Mutex, OnceLock},
};

use serde_json::Value;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    runtime::{Builder, Runtime},
    sync::watch,
    task::JoinSet,
    time::timeout,
};

use super::client::LIMIT;

/// Where in an answer's body, its framing included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum At {
    /// After so many bytes: within a chunk, an event, or a name.
    Bytes(usize),
    /// After so many events.
    Events(usize),
    /// Inside the first character of several bytes behind so many events.
    Character(usize),
    /// After the event that has this text in it.
    After(&'static str),
}

/// How a wire breaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum How {
    /// The connection is reset.
    Reset,
    /// It is closed, as if that were its end.
    End,
    /// Nothing comes any more, until the pod closes.
    Hold,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Cut {
    pub(crate) at: At,
    pub(crate) how: How,
}

/// The event that ends a choice, and the one that has the usage.
pub(crate) const FINISH: At = At::After("\"finish_reason\":\"");
pub(crate) const USAGE: At = At::After("\"usage\":{");

/// One answer's cuts.
struct Planned {
    cuts: VecDeque<Cut>,
    made: Vec<Made>,
    /// Whether a client watches it as it comes, and has seen something.
    seen: Option<watch::Sender<bool>>,
}

/// A cut that was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Made {
    pub(crate) cut: Cut,
    /// Whether an answer had begun on that wire, somebody had seen some of it, there or before, and
    /// more was to come: it can only be gone on with.
    pub(crate) goes_on: bool,
}

type Plans = Arc<Mutex<HashMap<String, Planned>>>;

/// Open until dropped.
pub(crate) struct Cutter {
    pub(crate) wires: Vec<SocketAddr>,
    plans: Plans,
    _tasks: JoinSet<()>,
}

/// A thread of their own, as pods have: a test that blocks on an edge's start must not hold them.
fn runtime() -> &'static Runtime {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    RUNTIME
        .get_or_init(|| Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap())
}

impl Cutter {
    /// So many wires, to these pods in turn.
    pub(crate) fn start(pods: &[&str], wires: usize) -> Self {
        let (plans, mut tasks) = (Plans::default(), JoinSet::new());
        let open = pods.iter().cycle().take(wires).map(|pod| {
            let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            listener.set_nonblocking(true).unwrap();
            let address = listener.local_addr().unwrap();
            let (pod, plans) = ((*pod).to_owned(), Arc::clone(&plans));
            let serving = async move {
                let listener = TcpListener::from_std(listener).unwrap();
                let mut connections = JoinSet::new();
                loop {
                    let (edge, _) = listener.accept().await.unwrap();
                    connections.spawn(relay(edge, pod.clone(), Arc::clone(&plans)));
                }
            };
            tasks.spawn_on(serving, runtime().handle());
            address
        });
        let wires = open.collect();
        Self { wires, plans, _tasks: tasks }
    }

    /// The answers to requests that have `mark` in them are cut so, one after the other. `watched`
    /// is whether a client sees them as they come, and says so.
    pub(crate) fn plan(&self, mark: &str, cuts: &[Cut], watched: bool) {
        let seen = watched.then(|| watch::Sender::new(false));
        let planned = Planned { cuts: cuts.iter().copied().collect(), made: Vec::new(), seen };
        self.plans.lock().unwrap().insert(mark.to_owned(), planned);
    }

    /// The client has seen some of the answer.
    pub(crate) fn seen(&self, mark: &str) {
        let plans = self.plans.lock().unwrap();
        if let Some(seen) = plans.get(mark).and_then(|planned| planned.seen.as_ref()) {
            seen.send_replace(true);
        }
    }

    /// The cuts that were made.
    pub(crate) fn made(&self, mark: &str) -> Vec<Made> {
        self.plans.lock().unwrap().get(mark).map_or_else(Vec::new, |planned| planned.made.clone())
    }
}

/// The cut that is next for the answer to `asked`, and whose it is.
fn next_cut(plans: &Plans, asked: &[u8]) -> Option<(String, Cut)> {
    let asked = String::from_utf8_lossy(asked);
    let mut plans = plans.lock().unwrap();
    let (mark, planned) = plans.iter_mut().find(|(mark, _)| asked.contains(mark.as_str()))?;
    Some((mark.clone(), planned.cuts.pop_front()?))
}

async fn relay(mut edge: TcpStream, pod: String, plans: Plans) {
    let Ok(mut pod) = TcpStream::connect(pod).await else { return };
    edge.set_nodelay(true).unwrap();
    pod.set_nodelay(true).unwrap();
    let (mut up, mut down) = (vec![0; 64 << 10], vec![0; 64 << 10]);
    let (mut asked, mut answer, mut cut) = (Vec::new(), Vec::new(), None);
    loop {
        tokio::select! {
            read = edge.read(&mut up) => {
                let Ok(read @ 1..) = read else { return };
                if !answer.is_empty() {
                    asked.clear();
                    answer.clear();
                }
                asked.extend_from_slice(&up[..read]);
                if pod.write_all(&up[..read]).await.is_err() {
                    return;
                }
            }
            read = pod.read(&mut down) => {
                let Ok(read @ 1..) = read else { return };
                if answer.is_empty() {
                    cut = next_cut(&plans, &asked);
                }
                let before = answer.len();
                answer.extend_from_slice(&down[..read]);
                let at = cut.as_ref().and_then(|(_, cut)| place(&answer, cut.at));
                let until = at.map_or(answer.len(), |at| at.max(before));
                if edge.write_all(&answer[before..until]).await.is_err() {
                    return;
                }
                if let (Some(_), Some((mark, cut))) = (at, cut.take_if(|_| at.is_some())) {
                    make((edge, pod), &plans, (&mark, cut), &answer[..until]).await;
                    return;
                }
            }
        }
    }
}

/// Where to cut what came so far; `None` where it goes on.
fn place(answer: &[u8], at: At) -> Option<usize> {
    let find = |from: usize, text: &[u8]| {
        answer
            .get(from..)?
            .windows(text.len())
            .position(|window| window == text)
            .map(|at| from + at)
    };
    let body = find(0, b"\r\n\r\n")? + 4;
    let event = |from: usize| find(from, b"\n\n").map(|at| at + 2);
    let events = |count: usize| (0..count).try_fold(body, |from, _| event(from));
    match at {
        At::Bytes(bytes) => (body + bytes <= answer.len()).then_some(body + bytes),
        At::Events(count) => events(count),
        At::Character(count) => {
            let from = events(count)?;
            let lead = answer[from..].iter().position(|byte| *byte >= 0xc0)?;
            Some(from + lead + 1)
        }
        At::After(text) => event(find(body, text.as_bytes())?),
    }
}

/// Whether an answer has begun, whether there is anything for a client to see, and whether it is
/// complete.
fn told(sent: &[u8]) -> (bool, bool, bool) {
    let sent = String::from_utf8_lossy(sent);
    let whole = sent.rfind("\n\n").map_or("", |end| &sent[..end]);
    let events = whole.lines().filter_map(|line| line.strip_prefix("data: "));
    let (mut begun, mut visible, mut complete) = (false, false, false);
    for event in events.filter_map(|data| serde_json::from_str::<Value>(data).ok()) {
        complete |= event["usage"].is_object();
        for choice in event["choices"].as_array().into_iter().flatten() {
            let text = choice["text"].as_str().or(choice["delta"]["content"].as_str());
            let (text, ends) =
                (!text.unwrap_or_default().is_empty(), choice["finish_reason"].is_string());
            begun |= text || ends;
            visible |= text && !ends;
        }
    }
    (begun, visible, complete)
}

async fn make(
    (mut edge, mut pod): (TcpStream, TcpStream),
    plans: &Plans,
    (mark, cut): (&str, Cut),
    sent: &[u8],
) {
    let (begun, visible, complete) = told(sent);
    let seen = {
        let plans = plans.lock().unwrap();
        plans.get(mark).and_then(|planned| planned.seen.as_ref()).map(watch::Sender::subscribe)
    };
    let seen = match seen {
        Some(mut seen) if visible => {
            timeout(LIMIT, seen.wait_for(|seen| *seen)).await.expect("the client sees it").is_ok()
        }
        Some(seen) => *seen.borrow(),
        None => false,
    };
    let made = Made { cut, goes_on: begun && seen && !complete };
    if let Some(planned) = plans.lock().unwrap().get_mut(mark) {
        planned.made.push(made);
    }
    match cut.how {
        How::Reset => edge.set_zero_linger().unwrap(),
        How::End => {}
        How::Hold => {
            // Until either side goes.
            let (mut up, mut down) = ([0], [0; 1024]);
            loop {
                let read = tokio::select! {
                    read = edge.read(&mut up) => read,
                    read = pod.read(&mut down) => read,
                };
                if !matches!(read, Ok(1..)) {
                    return;
                }
            }
        }
    }
}
