//! A trace of requests, sent to simulated pods by a policy: a test and the example run it.
//!
//! A pod computes prompts one after the other, slower the more answers it writes meanwhile, and keeps
//! the blocks of the prompts that it computed, the least recently used dropped first. The edge knows
//! what it sent and when first tokens and ends came back; what the pods have dropped it does not know.
//!
//! Absent: the network, requests that are cancelled, and the memory that running answers take.

use std::collections::{BTreeMap, HashMap, VecDeque};

use crate::{Affinity, Chain, Choosable, UpstreamId};

/// Tokens of one of the trace's blocks.
const BLOCK: usize = 512;
/// Prompt tokens that a pod computes in a second while it writes nothing.
const SPEED: f64 = 10_000.0;
/// How much of that each answer takes that is being written, and what at least is left.
const ANSWER: f64 = 0.01;
const LEFT: f64 = 0.2;
/// Seconds to write a token.
const TOKEN: f64 = 0.02;

/// A line of the trace.
pub(crate) struct Request {
    /// Seconds.
    pub(crate) at: f64,
    pub(crate) input: f64,
    pub(crate) output: f64,
    pub(crate) blocks: Vec<u64>,
}

impl Request {
    /// Prompt tokens behind its first `blocks` blocks.
    fn behind(&self, blocks: usize) -> f64 {
        (self.input - (blocks * BLOCK) as f64).max(0.0)
    }
}

/// Reads the trace's lines.
pub(crate) fn parse(lines: &str) -> Result<Vec<Request>, Box<dyn std::error::Error>> {
    let request = |line: &str| {
        let line: serde_json::Value = serde_json::from_str(line)?;
        let number = |name: &str| line[name].as_f64().ok_or("a number is missing");
        let blocks = line["hash_ids"].as_array().ok_or("blocks are missing")?;
        let (at, input, output) =
            (number("timestamp")? / 1000.0, number("input_length")?, number("output_length")?);
        let blocks = blocks.iter().filter_map(serde_json::Value::as_u64).collect();
        Ok(Request { at, input, output, blocks })
    };
    lines.lines().map(request).collect()
}

/// Blocks up to a limit, the least recently used dropped first: apart from the edge's, so that a
/// mistake there is not made twice.
struct Memory {
    uses: HashMap<u64, u64>,
    by_use: BTreeMap<u64, u64>,
    clock: u64,
    limit: usize,
}

impl Memory {
    fn new(limit: usize) -> Self {
        Self { uses: HashMap::new(), by_use: BTreeMap::new(), clock: 0, limit }
    }

    fn has(&self, blocks: &[u64]) -> usize {
        blocks.iter().take_while(|block| self.uses.contains_key(block)).count()
    }

    fn keep(&mut self, blocks: &[u64]) {
        for block in blocks.iter().rev() {
            self.clock += 1;
            if let Some(before) = self.uses.insert(*block, self.clock) {
                self.by_use.remove(&before);
            }
            self.by_use.insert(self.clock, *block);
            if self.uses.len() > self.limit
                && let Some((_, dropped)) = self.by_use.pop_first()
            {
                self.uses.remove(&dropped);
            }
        }
    }
}

/// The share of prompt tokens that a single pod of `memory` blocks finds.
fn single(trace: &[Request], memory: usize) -> f64 {
    let mut cache = Memory::new(memory);
    let (mut found, mut all) = (0.0, 0.0);
    for request in trace {
        found += request.input - request.behind(cache.has(&request.blocks));
        all += request.input;
        cache.keep(&request.blocks);
    }
    found / all
}

/// What a pod says.
enum Event {
    First { request: usize, waited: f64 },
    End { request: usize },
}

struct Pod {
    memory: Memory,
    waiting: VecDeque<usize>,
    /// What is computed, and how much of it is to do.
    computing: Option<(usize, f64)>,
    /// When answers end, in order.
    answers: BTreeMap<(u64, usize), f64>,
    clock: f64,
    found: f64,
    computed: f64,
    by_minute: Vec<f64>,
    /// Requests here, summed over seconds.
    present: f64,
    busy: f64,
    queueing: Vec<f64>,
}

impl Pod {
    fn new(memory: usize) -> Self {
        Self {
            memory: Memory::new(memory),
            waiting: VecDeque::new(),
            computing: None,
            answers: BTreeMap::new(),
            clock: 0.0,
            found: 0.0,
            computed: 0.0,
            by_minute: Vec::new(),
            present: 0.0,
            busy: 0.0,
            queueing: Vec::new(),
        }
    }

    /// Does what it does until `until`.
    fn run(&mut self, until: f64, trace: &Trace<'_>, events: &mut Vec<Event>) {
        loop {
            if self.computing.is_none()
                && let Some(next) = self.waiting.pop_front()
            {
                self.begin(next, trace);
            }
            let speed = SPEED * (1.0 - ANSWER * self.answers.len() as f64).max(LEFT);
            let end = self.answers.first_key_value().map_or(f64::INFINITY, |(_, end)| *end);
            let done = self.computing.map_or(f64::INFINITY, |(_, left)| self.clock + left / speed);
            let next = end.min(done).min(until);
            let passed = next - self.clock;
            let here = self.waiting.len() + self.answers.len() + usize::from(done.is_finite());
            self.present += passed * here as f64;
            self.clock = next;
            if let Some((_, left)) = &mut self.computing {
                *left -= passed * speed;
                self.busy += passed;
            }
            if next >= until {
                return;
            }
            if end <= done {
                let ended = self.answers.pop_first();
                events.extend(ended.map(|((_, request), _)| Event::End { request }));
            } else if let Some((request, _)) = self.computing.take() {
                let Request { output, blocks, .. } = &trace.requests[request];
                self.memory.keep(blocks);
                let end = self.clock + output * TOKEN;
                self.answers.insert((end.to_bits(), request), end);
                events.push(Event::First { request, waited: self.clock - trace.at(request) });
            }
        }
    }

    fn begin(&mut self, request: usize, trace: &Trace<'_>) {
        let Request { input, blocks, .. } = &trace.requests[request];
        let left = trace.requests[request].behind(self.memory.has(blocks));
        self.found += input - left;
        self.computed += left;
        let minute = (1..).take_while(|minute| f64::from(*minute) * 60.0 <= self.clock).count();
        self.by_minute.resize(self.by_minute.len().max(minute + 1), 0.0);
        self.by_minute[minute] += left;
        self.queueing.push(self.clock - trace.at(request));
        self.computing = Some((request, left.max(1.0)));
    }
}

/// What comes, and how much faster than it came.
pub(crate) struct Trace<'a> {
    pub(crate) requests: &'a [Request],
    pub(crate) faster: f64,
}

impl<'a> Trace<'a> {
    /// So fast that `fleet` would compute for a share `busy` of the time if it found what a single pod
    /// with all its memory finds, and how much of the prompts that is.
    pub(crate) fn that_keeps_busy(requests: &'a [Request], fleet: Fleet, busy: f64) -> (Self, f64) {
        let single = single(requests, fleet.pods * fleet.memory);
        let tokens: f64 = requests.iter().map(|request| request.input).sum();
        let seconds = requests.last().map_or(1.0, |last| last.at);
        let faster = busy * fleet.pods as f64 * SPEED * seconds / (tokens * (1.0 - single));
        (Self { requests, faster }, single)
    }

    fn at(&self, request: usize) -> f64 {
        self.requests[request].at / self.faster
    }
}

/// How an edge estimates what a request would wait.
#[derive(Clone, Copy)]
pub(crate) enum Load {
    /// Requests in flight, with this one, times a moving mean of the time to the first token.
    InFlight,
    /// Tokens of prompts without a first token that are believed to be uncomputed, in seconds.
    Uncomputed,
}

/// Pods of `memory` blocks each, of which the edge remembers `remembered`.
#[derive(Clone, Copy)]
pub(crate) struct Fleet {
    pub(crate) pods: usize,
    pub(crate) memory: usize,
    pub(crate) remembered: usize,
    pub(crate) load: Load,
    /// Edges that take requests in turn and know nothing of each other.
    pub(crate) edges: usize,
}

/// What came of it.
pub(crate) struct Outcome {
    /// The share of prompt tokens found.
    pub(crate) found: f64,
    /// The busiest pod's computed tokens over the mean.
    pub(crate) work: f64,
    /// The same of requests present.
    pub(crate) present: f64,
    /// Of computed tokens in windows of a minute: the median and the worst.
    pub(crate) minutes: (f64, f64),
    /// Seconds before a prompt is begun: the mean and of 1 in 100.
    pub(crate) queueing: (f64, f64),
    /// The share of time in which pods compute prompts.
    pub(crate) busy: f64,
}

/// What an edge knows of a pod.
#[derive(Clone)]
struct Seen {
    in_flight: usize,
    uncomputed: f64,
    /// A moving mean of seconds to the first token.
    first: f64,
}

struct Edge {
    affinity: Affinity,
    seen: Vec<Seen>,
    /// Moving means over all pods.
    first: f64,
    input: f64,
    load: Load,
}

impl Edge {
    fn new(fleet: Fleet) -> Self {
        let seen = Seen { in_flight: 0, uncomputed: 0.0, first: 1.0 };
        let (affinity, seen) = (Affinity::new(fleet.remembered), vec![seen; fleet.pods]);
        Self { affinity, seen, first: 1.0, input: 10_000.0, load: fleet.load }
    }

    fn choosable(&mut self, request: &Request, chain: &Chain) -> Vec<Choosable> {
        self.input += (request.input - self.input) * 0.01;
        let of = |(seen, id): (&Seen, u64)| {
            let matched = self.affinity.matched(chain, UpstreamId(id));
            let (load, cost) = match self.load {
                Load::InFlight => {
                    let cost = request.input / self.input * self.first;
                    ((seen.in_flight + 1) as f64 * seen.first, cost)
                }
                Load::Uncomputed => (seen.uncomputed / SPEED, request.input / SPEED),
            };
            Choosable { load, cost, matched }
        };
        self.seen.iter().zip(0..).map(of).collect()
    }

    fn sent(&mut self, chain: &Chain, pod: usize, uncomputed: f64) {
        self.affinity.sent(chain, UpstreamId(pod as u64));
        self.seen[pod].in_flight += 1;
        self.seen[pod].uncomputed += uncomputed;
    }
}

/// Sends what `trace` has to where `choose` says.
pub(crate) fn replay(
    trace: &Trace<'_>,
    fleet: Fleet,
    mut choose: impl FnMut(&[Choosable], u64) -> usize,
) -> Outcome {
    let mut pods: Vec<Pod> = (0..fleet.pods).map(|_| Pod::new(fleet.memory)).collect();
    let mut edges: Vec<Edge> = (0..fleet.edges).map(|_| Edge::new(fleet)).collect();
    let mut uncomputed: Vec<f64> = Vec::new();
    let mut events = Vec::new();
    for (at, request) in trace.requests.iter().enumerate() {
        for (id, pod) in pods.iter_mut().enumerate() {
            pod.run(trace.at(at), trace, &mut events);
            for event in events.drain(..) {
                match event {
                    Event::First { request, waited } => {
                        let edge = &mut edges[request % fleet.edges];
                        edge.first += (waited - edge.first) * 0.02;
                        let seen = &mut edge.seen[id];
                        seen.first += (waited - seen.first) * 0.1;
                        seen.uncomputed = (seen.uncomputed - uncomputed[request]).max(0.0);
                    }
                    Event::End { request } => edges[request % fleet.edges].seen[id].in_flight -= 1,
                }
            }
        }
        let edge = &mut edges[at % fleet.edges];
        let chain = Chain::from_blocks(0, request.blocks.iter().copied());
        let choosable = edge.choosable(request, &chain);
        let chosen = choose(&choosable, at as u64);
        uncomputed.push(request.input * (1.0 - choosable[chosen].matched));
        edge.sent(&chain, chosen, uncomputed[at]);
        pods[chosen].waiting.push_back(at);
    }
    let arrived = trace.at(trace.requests.len() - 1);
    for pod in &mut pods {
        // Long enough for any queue to end.
        pod.run(arrived * 100.0, trace, &mut events);
    }
    outcome(&pods, arrived)
}

fn outcome(pods: &[Pod], arrived: f64) -> Outcome {
    let sum = |of: fn(&Pod) -> f64| pods.iter().map(of).sum::<f64>();
    let mut queueing: Vec<f64> = pods.iter().flat_map(|pod| pod.queueing.clone()).collect();
    queueing.sort_by(f64::total_cmp);
    let minutes = pods.iter().map(|pod| pod.by_minute.len()).max().unwrap_or(0);
    let of = |minute| pods.iter().map(move |pod| pod.by_minute.get(minute).copied().unwrap_or(0.0));
    let mut windows: Vec<f64> = (0..minutes)
        .filter(|minute| (*minute as f64 + 1.0) * 60.0 <= arrived)
        .map(|minute| imbalance(of(minute)))
        .collect();
    windows.sort_by(f64::total_cmp);
    Outcome {
        found: sum(|pod| pod.found) / sum(|pod| pod.found + pod.computed),
        work: imbalance(pods.iter().map(|pod| pod.computed)),
        present: imbalance(pods.iter().map(|pod| pod.present)),
        minutes: (windows[windows.len() / 2], windows[windows.len() - 1]),
        queueing: (
            queueing.iter().sum::<f64>() / queueing.len() as f64,
            queueing[queueing.len() * 99 / 100],
        ),
        busy: sum(|pod| pod.busy) / arrived / pods.len() as f64,
    }
}

/// The largest over the mean; 1 where there is nothing.
fn imbalance(of: impl Iterator<Item = f64> + Clone) -> f64 {
    let mean = of.clone().sum::<f64>() / of.clone().count() as f64;
    if mean > 0.0 { of.fold(0.0, f64::max) / mean } else { 1.0 }
}
