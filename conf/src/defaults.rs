//! Every default, with its reason. `nearhop config default` prints the same values as a file, and
//! a test holds the two together.

use std::time::Duration;

use crate::{
    Affinity, Audit, Breaker, ByteSize, Deadlines, Ejection, Events, Hedge, L1, Ladder, Limits,
    Log, LogFormat, Probes, Protocol, RequestKind, Retries, Reuse, ReuseRule, Upstream,
};

/// The commented default file that `nearhop config default` prints.
pub const DEFAULT_YAML: &str = include_str!("../default.yaml");

pub(crate) const REGION: &str = "local";

/// Waiting jobs over this are told to come back: with eight slots, 64 waiting jobs are already
/// seconds away from their turn, longer than an inline completion may wait.
pub(crate) const QUEUE: usize = 64;

/// Thirty-two full prompts of a small model; on a slow machine that is already half a minute.
pub(crate) const QUEUE_TOKENS: usize = 32_768;

/// The states of some forty prompts of a thousand tokens, for the small model of this repository.
pub(crate) const PREFIX_CACHE: ByteSize = ByteSize::mib(256);

/// Sixteen texts of 256 tokens: more gains nothing on a CPU, and delays the first.
pub(crate) const EMBED_BATCH: usize = 4096;

/// Sequences decoded together. Eight gains what batching gives a small model on a CPU; memory is
/// `slots` × context × KV bytes a token.
pub(crate) const SLOTS: usize = 8;

/// Tokens of prompt computed between two decode steps: long enough to be efficient, short enough
/// that a long prompt does not stop the others' tokens.
pub(crate) const PREFILL_CHUNK: usize = 128;

/// ONNX Runtime's own threads. One leaves the other cores to other pods and to the proxy.
pub(crate) const ORT_THREADS: usize = 1;

/// Two small models with their slots and prefix caches fit twice.
pub(crate) const LOCAL_MEMORY: ByteSize = ByteSize::mib(2048);

/// Half of what a failover may take; shorter, and resolvers ask for nothing else.
pub(crate) const DNS_TTL: Duration = Duration::from_secs(30);

/// 300 km are 3 ms there and back, less than two paths through the net differ by.
pub(crate) const ALIKE_KM: f64 = 300.0;

/// Resolvers come by TCP when an answer was cut, which ours are not.
pub(crate) const DNS_TCP_CONNECTIONS: usize = 256;

/// Three looks, the last of which may time out, and the exchange of views: a region that fails is
/// out of the answers within 19 s, and out of resolvers a TTL later.
pub(crate) const HEALTH_INTERVAL: Duration = Duration::from_secs(5);
pub(crate) const HEALTH_FALL: u32 = 3;
pub(crate) const HEALTH_RISE: u32 = 3;

/// A region on the other side of the globe answers in a third of a second.
pub(crate) const HEALTH_DEADLINE: Duration = Duration::from_secs(2);

/// A view is a kilobyte, and each vantage point asks each other one.
pub(crate) const HEALTH_EXCHANGE: Duration = Duration::from_secs(2);

/// Two looks and what they may take: one that was missed does not make a vote old.
pub(crate) const HEALTH_FRESH: Duration = Duration::from_secs(15);

/// A region that falls again within ten minutes is not trusted at once.
pub(crate) const HEALTH_HOLD: Duration = Duration::from_secs(30);

/// Of 15 to 80 microseconds each, by the machine and its load: a twentieth of a core at the most.
pub(crate) const DNS_DENIALS: usize = 500;

/// No engine step takes this long on a machine that works; Kubernetes then replaces the pod.
pub(crate) const STALL_AFTER: Duration = Duration::from_secs(10);

pub(crate) const DRAIN: Duration = Duration::from_secs(10);

impl Default for Limits {
    fn default() -> Self {
        Self {
            // Repository context makes 1 MiB bodies ordinary; four times that is a mistake.
            body: ByteSize::mib(4),
            // Half the body: JSON escapes can double a prompt on the wire.
            prompt: ByteSize::mib(2),
            headers: ByteSize::kib(32),
            header_count: 100,
            header_read: Duration::from_secs(10),
            body_read: Duration::from_secs(10),
            client_write: Duration::from_secs(10),
            keepalive: Duration::from_secs(75),
            // What two cores hold without falling behind; more is shed with 503.
            requests: 2048,
            // An idle connection costs some 10 KiB; a TLS one 40 KiB.
            connections: 16_384,
            // An office behind one address has hundreds of editors with a few connections each.
            connections_per_address: 1024,
            // As many as an editor and all its plug-ins use, and Pingora's own default.
            h2_streams: 100,
            // Every keystroke may cancel a request: ten a second for a minute, by one editor.
            h2_resets: 600,
            // An eighth of a small machine; a request holds its body, its forwarded copy and its answer.
            buffered: ByteSize::mib(512),
        }
    }
}

impl Default for Deadlines {
    fn default() -> Self {
        Self {
            // An inline suggestion after five seconds is no suggestion.
            inline: Duration::from_secs(5),
            fim: Duration::from_secs(10),
            chat: Duration::from_secs(120),
            agent: Duration::from_secs(120),
        }
    }
}

impl Default for Upstream {
    fn default() -> Self {
        Self {
            // Less CPU a request than HTTP/2, and a pod in the same region is one round trip away.
            protocol: Protocol::Http1,
            tls: None,
            // A pod in the same region answers a SYN in microseconds.
            connect: Duration::from_millis(500),
            // The cap of a long chat deadline; for code half of what remains is always less.
            first_byte: Duration::from_secs(30),
            next_token: Duration::from_secs(10),
            attempts: 3,
            // At least the peak number of concurrent requests, or connections are made anew.
            idle_connections: 2048,
            idle_timeout: Duration::from_secs(60),
        }
    }
}

impl Default for Probes {
    fn default() -> Self {
        Self {
            interval: Duration::from_secs(1),
            // The whole check, connect to last byte: below the interval, so that checks never pile up.
            deadline: Duration::from_millis(800),
            // One lost probe is the network's; two are the pod's. Worst case 1 + 1 + 0.8 s.
            failures: 2,
        }
    }
}

impl Default for L1 {
    fn default() -> Self {
        Self {
            // The spec's size for the in-process cache.
            bytes: ByteSize::mib(256),
            // An editing session; the model revision in the key does the rest.
            ttl: Duration::from_secs(3600),
        }
    }
}

/// No answer is kept for longer than purges are remembered, which is a day more.
pub(crate) const KEPT_MAX: Duration = Duration::from_secs(7 * 24 * 3600);

/// The spec's threshold: less alike is another question.
pub(crate) const L3_FLOOR: f64 = 0.95;

/// With the veto 1.5 % of what is as alike as this was wrong, of a public collection of questions.
pub(crate) const L3_SURE: f64 = 0.97;

/// One wrong answer in fifty is what a reader of a chat puts up with.
pub(crate) const L3_WRONG: f64 = 0.02;

/// Of 300 judged answers two may be wrong, and the bound holds.
pub(crate) const L3_JUDGED: usize = 300;

/// Enough to see a model drift within some hundred answers.
pub(crate) const L3_EXPLORE: f64 = 0.05;

/// 60 % of the spec's 256 MB of a pod.
pub(crate) const L3_BYTES: ByteSize = ByteSize::mib(152);

/// Two kilobytes each are a quarter of what there is.
pub(crate) const L3_TENANT_ENTRIES: usize = 20_000;

/// More questions than anybody asks within the time that answers are kept.
pub(crate) const L3_USER_ENTRIES: usize = 2_000;

/// Two a minute, the whole hour.
pub(crate) const L3_USER_WRITES: usize = 120;

/// What was true yesterday may be asked again.
pub(crate) const L3_TTL: Duration = Duration::from_secs(24 * 3600);

/// The spec's latency of this tier.
pub(crate) const L3_PATIENCE: Duration = Duration::from_millis(30);

/// Answers of one model to questions that mean the same are more alike than this, mostly.
pub(crate) const L3_ANSWERS: f64 = 0.9;

impl Default for Reuse {
    fn default() -> Self {
        Self { rules: ReuseRule::ALL.to_vec(), audit: Audit::default() }
    }
}

impl Default for Audit {
    fn default() -> Self {
        Self {
            // Enough to know a busy rule within a day, too little to be felt by pods.
            share: 0.01,
            // Of the built-in model 60 % of what is served after typing differs from a fresh answer,
            // which begins in the middle of a word and is right less often. A rule of which nearly
            // all differs has lost its meaning.
            limit: 0.8,
        }
    }
}

impl Default for Breaker {
    fn default() -> Self {
        Self {
            // The spec's numbers, but for the window: as the spec has it failures never fall, and
            // one an hour would take a pod out within five hours.
            failures: 5,
            // Long enough for a rate to mean something, short enough to forget a restart.
            window: Duration::from_secs(30),
            // Of a busy upstream five failures are nothing: they must be over this share as well,
            // or in a row.
            rate: 0.05,
            successes: 3,
            open: Duration::from_secs(30),
            half_open: 10,
        }
    }
}

impl Default for Ejection {
    fn default() -> Self {
        // When more than half are slow, it is the load: fewer pods would be slower still.
        Self { share: 0.5 }
    }
}

impl Default for Hedge {
    fn default() -> Self {
        // Second attempts begin at the 96th percentile: of requests without trouble one in
        // twenty-five is later, and this leaves room for what a percentile of few times errs.
        Self { enabled: true, share: 0.05 }
    }
}

impl Default for Retries {
    fn default() -> Self {
        Self {
            // When all pods fail, a fifth more load on what is left, and not twice or thrice as much.
            share: 0.2,
            // A team's edge has a request a second, a fifth of which would be nothing.
            per_second: 10,
        }
    }
}

impl Default for Ladder {
    fn default() -> Self {
        Self {
            // The spec's: a suggestion that begins later comes behind the next keystroke.
            slow: Duration::from_millis(500),
            window: Duration::from_secs(30),
            // Of fewer the slowest in a hundred is one request.
            samples: 100,
            // Two windows, so that a level is not left on the last answers of what was well.
            hold: Duration::from_secs(60),
        }
    }
}

impl Default for Affinity {
    fn default() -> Self {
        // A mebibyte of prompts, some quarter of a million tokens: what a pod on a large GPU keeps.
        // It costs the edge about as much.
        Self { enabled: true, blocks: 16_384 }
    }
}

impl Default for Events {
    fn default() -> Self {
        // A bad night's; some hundred KiB.
        Self { webhook: None, bearer: None, ca: None, keep: 1000 }
    }
}

/// What is true while nothing can generate, and of use to who asks.
pub(crate) const TIPS: [&str; 2] = [
    "No model can be reached at the moment. Nothing is wrong with your editor or your question; please ask again in a minute.",
    "No model can be reached at the moment. Code that was completed before is still completed from the cache.",
];

/// Between those that an operator puts before and after the rest.
pub(crate) const PROVIDER_PRIORITY: u32 = 100;

/// What every such API has: `/chat/completions`, with tools. Many have no `/completions`, and most
/// no suffix; one that answers 404 to code would be out for conversations as well.
pub(crate) const PROVIDER_KINDS: [RequestKind; 2] = [RequestKind::Chat, RequestKind::Agent];

/// Name, TCP and TLS on another continent take a second.
pub(crate) const PROVIDER_CONNECT: Duration = Duration::from_secs(2);

/// As of pods: the cap of a long chat deadline.
pub(crate) const PROVIDER_FIRST_TOKEN: Duration = Duration::from_secs(30);

/// Twice a pod's: models that think say nothing meanwhile.
pub(crate) const PROVIDER_NEXT_TOKEN: Duration = Duration::from_secs(20);

/// Pingora tells of every broken connection at `error`; what matters of them, our own lines say.
pub(crate) const LOG_LEVEL: &str = "info,pingora=off,pingora_core=off,pingora_proxy=off,pingora_load_balancing=off,ort=warn,hickory_proto=error";

impl Default for Log {
    fn default() -> Self {
        Self { level: LOG_LEVEL.to_owned(), access: true, format: LogFormat::Text }
    }
}

/// How long a browser may keep a preflight's answer; Chromium's own limit is two hours.
pub(crate) const CORS_MAX_AGE: Duration = Duration::from_secs(7200);

/// Issuers rotate keys by days; a quarter of an hour finds a new one early, and an unknown key id
/// asks at once.
pub(crate) const JWKS_REFRESH: Duration = Duration::from_secs(15 * 60);

/// An issuer that is down for a day must not lock anybody out.
pub(crate) const JWKS_STALE: Duration = Duration::from_secs(24 * 3600);

/// Most organisations have tens of requests without a trace a second: enough to see, cheap to keep.
pub(crate) const TRACE_SAMPLE: f64 = 0.01;
