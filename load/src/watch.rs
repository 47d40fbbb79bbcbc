//! What the target says of itself: processor time, GPUs, usage. Looked at again and again, since
//! what dies takes its numbers along.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use nearhop_admin::{Question, Trust, clock, fetch};
use nearhop_conf::Target;
use tokio::{sync::oneshot, time::timeout};

/// Between one look and the next.
const INTERVAL: Duration = Duration::from_secs(2);
const PATIENCE: Duration = Duration::from_secs(2);
const BYTES_MAX: usize = 16 << 20;

/// What part of a deployment a listener belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Role {
    Edge,
    Pod,
    Gpu,
}

/// The numbers of one listener's page.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Page {
    cpu_seconds: Option<f64>,
    cores: Option<f64>,
    /// Tokens that an edge has counted for anybody.
    tokens: Option<f64>,
    /// Shares from 0 to 1, of each GPU.
    gpus: Vec<f64>,
}

impl Page {
    pub(crate) fn read(text: &str) -> Self {
        let values = |name: &str| -> Vec<f64> {
            let value = |line: &str| {
                let rest = line.strip_prefix(name)?;
                let rest = match rest.strip_prefix('{') {
                    Some(labels) => labels.rsplit_once('}')?.1,
                    None => rest,
                };
                // Another metric's name may begin like this one.
                rest.starts_with(' ').then(|| rest.split_whitespace().next()?.parse().ok())?
            };
            text.lines().filter_map(value).collect()
        };
        let first = |name: &str| values(name).first().copied();
        let tokens = values("nearhop_usage_tokens_total");
        Self {
            cpu_seconds: first("process_cpu_seconds_total"),
            cores: first("nearhop_cpu_cores"),
            tokens: text.contains("nearhop_requests_in_progress").then(|| tokens.iter().sum()),
            gpus: values("DCGM_FI_DEV_GPU_UTIL").iter().map(|percent| percent / 100.0).collect(),
        }
    }
}

/// What has been seen of one listener.
#[derive(Debug, Clone, Default, PartialEq)]
struct Seen {
    last: Option<Page>,
    /// Whether it was there at the last look.
    present: bool,
    cpu_seconds: f64,
    tokens: f64,
    /// How often it was there, and was not.
    looks: u64,
    missed: u64,
    gpu_sum: f64,
    gpu_looks: u64,
}

impl Seen {
    /// A page that starts anew is that of another process, whose numbers begin at nothing.
    fn look(&mut self, page: Option<Page>) {
        self.present = page.is_some();
        let Some(page) = page else {
            self.missed += 1;
            return;
        };
        self.looks += 1;
        let more = |now: Option<f64>, before: Option<f64>| match (now, before) {
            (Some(now), Some(before)) if now >= before => now - before,
            (Some(now), Some(_)) => now,
            _ => 0.0,
        };
        if let Some(last) = &self.last {
            self.cpu_seconds += more(page.cpu_seconds, last.cpu_seconds);
            self.tokens += more(page.tokens, last.tokens);
        }
        for gpu in &page.gpus {
            self.gpu_sum += gpu;
            self.gpu_looks += 1;
        }
        self.last = Some(page);
    }
}

/// All listeners of a target.
#[derive(Debug)]
pub(crate) struct Watch {
    listeners: BTreeMap<(Role, String), Seen>,
    /// All on one machine, as an emulator's are.
    one_machine: bool,
    /// The first look.
    first: Option<Instant>,
    /// The share of all processors that was used while there was load.
    use_: Option<f64>,
    /// Processor seconds of edges and of pods while there was load.
    used: [Option<f64>; 2],
}

impl Watch {
    pub(crate) fn new(target: &Target) -> Self {
        let mut listeners = BTreeMap::new();
        for region in &target.regions {
            let of = |role, all: &[String]| -> Vec<_> {
                all.iter().map(|at| ((role, at.clone()), Seen::default())).collect()
            };
            listeners.extend(of(Role::Edge, region.admin.as_slice()));
            listeners.extend(of(Role::Pod, &region.pods));
            listeners.extend(of(Role::Gpu, &region.gpus));
        }
        Self {
            listeners,
            one_machine: target.control.is_some(),
            first: None,
            use_: None,
            used: [None; 2],
        }
    }

    /// Looks at all once.
    pub(crate) async fn look(&mut self) {
        self.first.get_or_insert_with(clock::now);
        let looks = self.listeners.iter_mut().map(|((_, at), seen)| async move {
            let url = format!("http://{at}/metrics");
            let question = Question {
                url: &url,
                host: None,
                trust: Trust::System,
                body: None,
                bearer: None,
                limit: BYTES_MAX,
                within: PATIENCE,
            };
            let page = fetch(question).await.ok();
            seen.look(page.map(|page| Page::read(&String::from_utf8_lossy(&page))));
        });
        futures_util::future::join_all(looks).await;
    }

    /// Looks again and again until `done` is dropped, and once more then. What is used after `end` is
    /// waiting.
    pub(crate) async fn keep(mut self, end: Instant, mut done: oneshot::Receiver<()>) -> Self {
        let mut over = false;
        while clock::now() < end && !over {
            let wait = INTERVAL.min(end.saturating_duration_since(clock::now()));
            over = timeout(wait, &mut done).await.is_ok();
            self.look().await;
        }
        self.load_ends();
        if !over {
            // Nobody sends: it is dropped.
            let _ = done.await;
        }
        self.look().await;
        self
    }

    fn load_ends(&mut self) {
        self.used = [Role::Edge, Role::Pod].map(|role| self.cpu_seconds(role));
        let used = self.used.iter().flatten().copied().reduce(|one, other| one + other);
        let looked = self.first.map(|first| clock::now().saturating_duration_since(first));
        self.use_ = used
            .zip(self.cores())
            .zip(looked)
            .map(|((used, cores), looked)| used / cores / looked.as_secs_f64());
    }

    /// The share of all processors that was used while there was load.
    pub(crate) const fn cpu(&self) -> Option<f64> {
        self.use_
    }

    /// Processor seconds of the edges, and of the pods, while there was load.
    pub(crate) const fn used(&self) -> [Option<f64>; 2] {
        self.used
    }

    /// Processor seconds of a role; nothing where a listener did not say so, or was missed so often
    /// that its part is not known.
    fn cpu_seconds(&self, role: Role) -> Option<f64> {
        let all: Vec<&Seen> = self.of(role).collect();
        let says = |seen: &&Seen| {
            let known = seen.last.as_ref().is_some_and(|page| page.cpu_seconds.is_some());
            known && seen.missed * 10 <= seen.looks + seen.missed
        };
        (!all.is_empty() && all.iter().all(says))
            .then(|| all.iter().map(|seen| seen.cpu_seconds).sum())
    }

    /// Processors that edges and pods may use: a machine's are counted once.
    fn cores(&self) -> Option<f64> {
        let mut machines: BTreeMap<&str, f64> = BTreeMap::new();
        for ((_, at), seen) in &self.listeners {
            let Some(cores) = seen.last.as_ref().and_then(|page| page.cores) else { continue };
            let host = at.rsplit_once(':').map_or(at.as_str(), |(host, _)| host);
            let most = machines.entry(if self.one_machine { "" } else { host }).or_default();
            *most = most.max(cores);
        }
        (!machines.is_empty()).then(|| machines.values().sum())
    }

    /// The mean use of all GPUs, as a share.
    pub(crate) fn gpu(&self) -> Option<f64> {
        let looks: u64 = self.listeners.values().map(|seen| seen.gpu_looks).sum();
        let sum: f64 = self.listeners.values().map(|seen| seen.gpu_sum).sum();
        #[expect(clippy::cast_precision_loss, reason = "looks are few")]
        let mean = sum / looks as f64;
        (looks > 0).then_some(mean)
    }

    /// Tokens that the edges counted; nothing where one of them was never there, or is not now.
    pub(crate) fn tokens(&self) -> Option<f64> {
        let edges: Vec<&Seen> = self.of(Role::Edge).collect();
        let whole = |seen: &&Seen| {
            seen.present && seen.last.as_ref().is_some_and(|page| page.tokens.is_some())
        };
        (!edges.is_empty() && edges.iter().all(whole))
            .then(|| edges.iter().map(|seen| seen.tokens).sum())
    }

    fn of(&self, role: Role) -> impl Iterator<Item = &Seen> {
        self.listeners.iter().filter(move |((of, _), _)| *of == role).map(|(_, seen)| seen)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_are_read_and_counters_that_begin_anew_are_added() {
        let text = "# HELP process_cpu_seconds_total x\nprocess_cpu_seconds_total 1.5\nnearhop_cpu_cores 2\nnearhop_requests_in_progress 0\nnearhop_usage_tokens_total{tenant=\"a\",type=\"prompt\"} 10\nnearhop_usage_tokens_total{tenant=\"}b\",type=\"completion\"} 5\nnearhop_usage_tokens_total_more 7\n";
        let page = Page::read(text);
        assert_eq!((page.cpu_seconds, page.cores, page.tokens), (Some(1.5), Some(2.0), Some(15.0)));
        let gpu =
            Page::read("DCGM_FI_DEV_GPU_UTIL{gpu=\"0\"} 80\nDCGM_FI_DEV_GPU_UTIL{gpu=\"1\"} 40\n");
        assert_eq!((gpu.gpus.as_slice(), gpu.tokens), ([0.8, 0.4].as_slice(), None));
        let at = |seconds: f64| Some(Page { cpu_seconds: Some(seconds), ..page.clone() });
        let mut seen = Seen::default();
        for page in [at(1.0), at(3.0), None, at(0.5), at(1.0)] {
            seen.look(page);
        }
        assert!((seen.cpu_seconds - 3.0).abs() < 1e-9, "{seen:?}");
        assert_eq!((seen.looks, seen.missed), (4, 1));
    }
}
