//! A vantage point: looks at every region, tells the others what it saw, hears what they saw, and
//! knows what they say together.
//!
//! A shell: what a look means is `vote`'s to say, what votes mean `quorum`'s.

mod memory;
mod view;

use std::{
    collections::{BTreeMap, HashMap},
    future::Future,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use nearhop_admin::{FetchError, Metrics, Question, Trust, clock, fetch};
use nearhop_conf::{Health as Settings, MutualTls, Region, VantagePoint};
use prometheus::{GaugeVec, IntCounterVec, IntGaugeVec};
use tokio::{
    net::TcpStream,
    task::JoinSet,
    time::{MissedTickBehavior, interval, timeout},
};

use self::memory::Memory;
pub use self::view::VOTES_PATH;
use self::view::{Opinion, VIEW_BYTES_MAX, View, used};
use crate::{
    Health, State,
    quorum::{Ballot, Count, count},
    vote::{Look, Thresholds, Watched},
};

/// A region's `/health` is some hundred bytes.
const HEALTH_BYTES_MAX: usize = 64 << 10;

/// What a vantage point is made of.
#[derive(Debug, Clone, PartialEq)]
pub struct Post {
    /// How regions are watched.
    pub settings: Settings,
    /// The regions; those without a health URL are not watched.
    pub regions: Vec<Region>,
    /// This node's name among the vantage points; without one it looks at nothing and only listens.
    pub name: Option<String>,
    /// What it shows the others, and who they are.
    pub tls: MutualTls,
}

/// What others said last.
struct Heard {
    view: View,
    at: Instant,
}

/// What is counted of vantage points; declared once, however often one takes another's place.
#[derive(Clone)]
pub struct VantageMetrics {
    looks: IntCounterVec,
    exchanges: IntCounterVec,
    up: IntGaugeVec,
    votes: IntGaugeVec,
    moved: GaugeVec,
}

/// A vantage point; [`Vantage::run`] works it.
pub struct Vantage {
    post: Post,
    own: Mutex<BTreeMap<String, Watched>>,
    heard: Mutex<HashMap<String, Heard>>,
    states: ArcSwap<BTreeMap<String, State>>,
    memory: Memory,
    metrics: VantageMetrics,
}

impl VantageMetrics {
    /// Declares them.
    #[must_use]
    pub fn new(metrics: &Metrics) -> Self {
        Self {
            looks: metrics.counters(
                "nearhop_region_looks_total",
                "Looks at regions by what they showed.",
                &["region", "result"],
            ),
            exchanges: metrics.counters(
                "nearhop_vantage_exchanges_total",
                "Views asked of other vantage points by whether they came.",
                &["vantage_point", "result"],
            ),
            up: metrics.gauges(
                "nearhop_region_up",
                "Whether a region is held to be up; unknown ones are.",
                &["region"],
            ),
            votes: metrics.gauges(
                "nearhop_region_votes",
                "Vantage points by what they say of a region.",
                &["region", "vote"],
            ),
            moved: metrics.real_gauges(
                "nearhop_region_moved_ratio",
                "The share of a region's clients that is passed on.",
                &["region"],
            ),
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What is in it is whole at every moment.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Vantage {
    /// A vantage point that knows what its state file says.
    #[must_use]
    pub fn new(post: Post, metrics: &VantageMetrics) -> Self {
        let recalled = post.settings.state_file.as_deref().map(memory::recall).unwrap_or_default();
        Self::with(post, recalled, metrics.clone())
    }

    /// A successor for another configuration, which knows what this one knows.
    #[must_use]
    pub fn successor(&self, post: Post) -> Self {
        let new = Self::with(post, (**self.states.load()).clone(), self.metrics.clone());
        for gone in self.states.load().keys().filter(|name| !new.states.load().contains_key(*name))
        {
            // A region that is no more is not down.
            let _ = new.metrics.up.remove_label_values(&[gone]);
            let _ = new.metrics.moved.remove_label_values(&[gone]);
            for vote in ["up", "down", "none"] {
                let _ = new.metrics.votes.remove_label_values(&[gone.as_str(), vote]);
            }
        }
        for (name, watched) in lock(&self.own).iter() {
            if let Some(place) = lock(&new.own).get_mut(name) {
                *place = *watched;
            }
        }
        *lock(&new.heard) = std::mem::take(&mut *lock(&self.heard));
        new
    }

    fn with(post: Post, mut known: BTreeMap<String, State>, metrics: VantageMetrics) -> Self {
        let own = post.regions.iter().map(|region| {
            let moved = known.get(&region.name).map_or(0.0, |state| state.moved);
            (region.name.clone(), Watched::with_moved(moved))
        });
        let own: BTreeMap<String, Watched> = own.collect();
        known.retain(|name, _| own.contains_key(name));
        for name in own.keys() {
            known.entry(name.clone()).or_default();
        }
        let (own, states) = (Mutex::new(own), ArcSwap::from_pointee(known));
        let memory = Memory::new(post.settings.state_file.as_deref());
        Self { post, own, heard: Mutex::default(), states, memory, metrics }
    }

    /// What it is made of.
    #[must_use]
    pub fn post(&self) -> &Post {
        &self.post
    }

    /// What the vantage points say together of a region.
    #[must_use]
    pub fn state(&self, region: &str) -> State {
        self.states.load().get(region).copied().unwrap_or_default()
    }

    /// What it tells the others, as JSON; `None` where it has no vote.
    #[must_use]
    pub fn view(&self) -> Option<String> {
        let name = self.post.name.clone()?;
        serde_json::to_string(&View { name, regions: self.opinions(clock::now()) }).ok()
    }

    fn opinions(&self, now: Instant) -> BTreeMap<String, Opinion> {
        let own = lock(&self.own);
        let opinion = |(name, watched): (&String, &Watched)| {
            Opinion::of(watched, now).map(|opinion| (name.clone(), opinion))
        };
        own.iter().filter_map(opinion).collect()
    }

    /// Looks, exchanges and counts for ever; `changed` is called when any state is another.
    pub async fn run(self: Arc<Self>, changed: impl Fn() + Send + Sync) {
        let settings = &self.post.settings;
        let looking = every(settings.interval, || async {
            if self.post.name.is_some() {
                self.look().await;
                self.judge(&changed);
            }
        });
        let listening = every(settings.exchange, || async {
            self.exchange().await;
            self.judge(&changed);
        });
        tokio::join!(looking, listening);
    }

    /// One look at every region, all at once.
    async fn look(&self) {
        let settings = &self.post.settings;
        let mut looks = JoinSet::new();
        for region in &self.post.regions {
            let Some(url) = region.health.clone() else { continue };
            let (name, host) = (region.name.clone(), settings.host.clone());
            let (ca, within) = (settings.ca.clone(), settings.deadline);
            looks.spawn(async move {
                let trust = ca.as_deref().map_or(Trust::System, Trust::Authorities);
                let (url, host) = (url.as_str(), host.as_deref());
                let limit = HEALTH_BYTES_MAX;
                (
                    name,
                    fetch(Question { url, host, trust, body: None, bearer: None, limit, within })
                        .await,
                )
            });
        }
        let looks = looks.join_all().await;
        let blind = looks.iter().any(|(_, seen)| seen.is_err()) && !self.sees_witness().await;
        let (rise, fall, hold) = (settings.rise, settings.fall, settings.hold);
        let limits = Thresholds { fall, rise, hold, spill: settings.spill };
        let now = clock::now();
        let mut own = lock(&self.own);
        for (name, seen) in looks {
            let (look, result) = match (&seen, blind) {
                (Ok(body), _) => (Look::Well(used(body)), "well"),
                // What is wrong here says nothing of the region.
                (Err(FetchError::Ours(reason)), _) => {
                    tracing::error!(region = name, reason, "a region cannot be looked at");
                    (Look::Blind, "blind")
                }
                (Err(FetchError::Theirs(_)), true) => (Look::Blind, "blind"),
                (Err(FetchError::Theirs(_)), false) => (Look::Failed, "failed"),
            };
            self.metrics.looks.with_label_values(&[name.as_str(), result]).inc();
            let Some(watched) = own.get_mut(&name) else { continue };
            let before = watched.vote();
            watched.look(look, &limits, now);
            let vote = watched.vote();
            if vote != before {
                let reason = seen.err().map(|error| error.to_string()).unwrap_or_default();
                tracing::info!(region = name, ?vote, reason, "this vantage point says");
            }
        }
    }

    /// Whether this node's network works, as far as anybody can say.
    async fn sees_witness(&self) -> bool {
        let settings = &self.post.settings;
        if settings.witnesses.is_empty() {
            return true;
        }
        let mut looks = JoinSet::new();
        for witness in settings.witnesses.clone() {
            let within = settings.deadline;
            looks.spawn(async move {
                let connected = timeout(within, TcpStream::connect(witness)).await;
                matches!(connected, Ok(Ok(_)))
            });
        }
        looks.join_all().await.contains(&true)
    }

    /// Told once, when a vantage point has not been heard for as long as its votes count.
    fn silent(&self, name: &str, reason: &str) {
        let (now, fresh) = (clock::now(), self.post.settings.fresh);
        let mut heard = lock(&self.heard);
        let old = |heard: &Heard| now.saturating_duration_since(heard.at) > fresh;
        if heard.get(name).is_some_and(old) {
            heard.remove(name);
            tracing::warn!(
                vantage_point = name,
                reason,
                "a vantage point is silent; its votes are old"
            );
        }
    }

    fn others(&self) -> impl Iterator<Item = &VantagePoint> {
        let own = self.post.name.as_ref();
        self.post.settings.vantage_points.iter().filter(move |point| Some(&point.name) != own)
    }

    /// Asks every other vantage point for its view.
    async fn exchange(&self) {
        let mut asked = JoinSet::new();
        for point in self.others() {
            let url = format!("{}{VOTES_PATH}", point.url.trim_end_matches('/'));
            let (name, tls) = (point.name.clone(), self.post.tls.clone());
            let within = self.post.settings.deadline;
            asked.spawn(async move {
                let (trust, limit) = (Trust::Mutual(&tls), VIEW_BYTES_MAX);
                let question = Question {
                    url: &url,
                    host: None,
                    trust,
                    body: None,
                    bearer: None,
                    limit,
                    within,
                };
                let told = fetch(question).await.map_err(|error| error.to_string());
                (name, told, clock::now())
            });
        }
        for (name, told, at) in asked.join_all().await {
            let view = told.and_then(|bytes| {
                let view: View =
                    serde_json::from_slice(&bytes).map_err(|error| error.to_string())?;
                // Else two entries of the configuration would be one node with two votes.
                match view.name == name {
                    true => Ok(view),
                    false => Err(format!("it calls itself {}", view.name)),
                }
            });
            let result = match view {
                Ok(view) => {
                    lock(&self.heard).insert(name.clone(), Heard { view, at });
                    "taken"
                }
                Err(reason) => {
                    tracing::debug!(vantage_point = name, reason, "no view");
                    self.silent(&name, &reason);
                    "failed"
                }
            };
            self.metrics.exchanges.with_label_values(&[name.as_str(), result]).inc();
        }
    }

    /// Counts what is known, and tells where that is another state than before.
    fn judge(&self, changed: &impl Fn()) {
        let now = clock::now();
        let before = self.states.load();
        let mut after = BTreeMap::new();
        for (name, known) in before.iter() {
            let Count { tally, moved, used } = self.count(name, now);
            let health = tally.judge(known.health);
            let moved = moved.unwrap_or(known.moved);
            if health != known.health {
                tracing::warn!(region = name, ?health, ?tally, "the vantage points say");
            }
            self.metrics.up.with_label_values(&[name]).set((health != Health::Down).into());
            self.metrics.moved.with_label_values(&[name]).set(moved);
            for (vote, votes) in [("up", tally.up), ("down", tally.down), ("none", tally.silent)] {
                let votes = i64::try_from(votes).unwrap_or(i64::MAX);
                self.metrics.votes.with_label_values(&[name.as_str(), vote]).set(votes);
            }
            after.insert(name.clone(), State { health, moved, used, votes: Some(tally) });
        }
        self.memory.keep(&after);
        if after == **before {
            return;
        }
        self.states.store(Arc::new(after));
        changed();
    }

    fn count(&self, region: &str, now: Instant) -> Count {
        let heard = lock(&self.heard);
        let own = lock(&self.own);
        let ballot = |point: &VantagePoint| -> Option<Ballot> {
            if self.post.name.as_ref() == Some(&point.name) {
                return Opinion::of(own.get(region)?, now).map(|own| own.ballot(Duration::ZERO));
            }
            let heard = heard.get(&point.name)?;
            let since = now.saturating_duration_since(heard.at);
            Some(heard.view.regions.get(region)?.ballot(since))
        };
        let settings = &self.post.settings;
        count(settings.vantage_points.iter().map(ballot), settings.fresh)
    }
}

/// Does something again and again, never twice at once.
async fn every<F: Future<Output = ()>>(time: Duration, act: impl Fn() -> F) {
    let mut tick = interval(time);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        act().await;
    }
}
