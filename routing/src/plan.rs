//! Who may answer a request, in which order, and why not the others. Pure: a snapshot and a seed
//! give the same plan.
//!
//! The rungs, one below the other: own pods of the model's revision, other regions that serve it,
//! the backup model on either, providers, the edge's own small model. Within a rung those that are
//! ready come before those that are tried again; but for one request in sixteen, or nobody would
//! find out that those work: attempts take the first. What was lost may be tried again when all that
//! is fresh was used. A pod that is out is tried only where nothing else is left and nothing was
//! tried: otherwise a request would pay for a pod that is known to be dead.
//!
//! The plan is for explaining and for doing: the attempts ask again before each, with what was tried,
//! and take the first.
//!
//! Absent on purpose: budgets and deadlines. Whether there is an attempt more is not decided here.

mod reason;
#[cfg(test)]
mod tests;

use std::{cmp::Ordering, sync::Arc, time::Duration};

use nearhop_wire::{Kind, ModelReport, PodReport};

pub use reason::{LeftOut, Rung, Why};

use crate::{Choosable, Level, Pick, Reason, Standing, UpstreamId, pick};

/// What an upstream is to us.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    /// A pod of this region.
    Pod,
    /// Another region's edge.
    Region,
    /// Somebody else's service.
    Provider,
    /// The edge's own small model.
    Local,
}

impl Class {
    /// In metrics and for operators.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pod => "pod",
            Self::Region => "region",
            Self::Provider => "provider",
            Self::Local => "local",
        }
    }
}

/// What this request has seen of an upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Tried {
    /// Nothing.
    #[default]
    No,
    /// An attempt was lost there.
    Lost,
    /// It refused, and would again.
    Refused,
}

/// What an upstream serves.
#[derive(Debug, Clone)]
pub enum Offers {
    /// Models at their revisions, as it reports them.
    Report(Arc<PodReport>),
    /// A provider: names of models; `*` is any.
    Names(Arc<[String]>),
    /// It has not said yet.
    Unknown,
}

/// Which kinds of requests an upstream takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kinds([bool; 4]);

impl Kinds {
    /// Every kind.
    pub const ALL: Self = Self([true; 4]);

    /// Those of `kinds` alone.
    #[must_use]
    pub fn of(kinds: &[Kind]) -> Self {
        Self([Kind::Inline, Kind::Fim, Kind::Chat, Kind::Agent].map(|kind| kinds.contains(&kind)))
    }

    /// Whether `kind` is among them.
    #[must_use]
    pub const fn takes(self, kind: Kind) -> bool {
        let Self([inline, fim, chat, agent]) = self;
        match kind {
            Kind::Inline => inline,
            Kind::Fim => fim,
            Kind::Chat => chat,
            Kind::Agent => agent,
        }
    }
}

/// An upstream as it stands when a request is routed.
#[derive(Debug, Clone)]
pub struct View {
    /// Names it for feedback.
    pub id: UpstreamId,
    /// The pod's, the region's or the provider's name.
    pub name: Arc<str>,
    /// What it is to us.
    pub class: Class,
    /// Whether it gets requests.
    pub standing: Standing,
    /// What it serves.
    pub offers: Offers,
    /// What it takes: providers may not take code to fill in.
    pub kinds: Kinds,
    /// Attempts of ours in progress there.
    pub in_flight: usize,
    /// Requests that wait there, as it last said.
    pub queued: usize,
    /// Sequences that it computes together; 0 where it does not say.
    pub slots: usize,
    /// How many times slower than its pool.
    pub slowness: f64,
    /// Since it became ready; `None` where that is too long ago to matter.
    pub ready_for: Option<Duration>,
    /// Whether its checks fail, and it is there only because it is the last.
    pub doubted: bool,
    /// Of regions the place by distance, of providers the priority; the lowest first.
    pub order: u32,
    /// Whether a quorum sees this region down.
    pub region_down: bool,
    /// Whether its rate limit says to wait.
    pub paused: bool,
    /// The share of the prompt that it is believed to have computed already.
    pub matched: f64,
    /// What this request has seen of it.
    pub tried: Tried,
}

/// What is asked for, and what may be done for it.
#[derive(Debug, Clone, Copy)]
pub struct Asking<'a> {
    /// The model, at its revision.
    pub model: &'a ModelReport,
    /// Whether the request names the revision, and not only the model.
    pub pinned: bool,
    /// What stands in for the model where nobody serves it.
    pub backup: Option<&'a ModelReport>,
    /// What the request is for.
    pub kind: Kind,
    /// What its shape says it is for: whose path it goes to, whatever turn it takes.
    pub shape: Kind,
    /// Whether it has tools.
    pub tools: bool,
    /// The regions that may see it; `None` for all.
    pub regions: Option<&'a [String]>,
    /// The providers that may see it.
    pub providers: &'a [String],
    /// Whether a stream goes on that has begun: only the same revision writes the same text.
    pub resuming: bool,
    /// Whether another region sent it: one hop is all that is made.
    pub from_region: bool,
    /// How far service is degraded.
    pub level: Level,
}

/// An upstream to try.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Candidate {
    /// Names it for feedback.
    pub id: UpstreamId,
    /// Its place in the snapshot.
    pub at: usize,
    /// Where it stands.
    pub rung: Rung,
    /// Why there.
    pub why: Why,
}

/// What to try, in order, with all that spoke against the others.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// The first is next.
    pub candidates: Vec<Candidate>,
    /// The others, each by its place in the snapshot: every upstream is here or a candidate.
    pub left_out: Vec<(usize, LeftOut)>,
    /// Whether an upstream would take it as soon as one of its few requests has ended.
    pub full: bool,
}

/// Routes a request.
#[must_use]
pub fn route(snapshot: &[View], asking: &Asking<'_>, seed: u64) -> Plan {
    let mut plan = Plan::default();
    let mut places = Vec::with_capacity(snapshot.len());
    for (at, view) in snapshot.iter().enumerate() {
        match fits(view, asking).and_then(|rung| Ok((rung, turn(view, asking)?))) {
            Ok((rung, turn)) => places.push(Place::of(view, at, rung, turn)),
            Err(reason) => plan.left_out.push((at, reason)),
        }
    }
    plan.full = plan.left_out.iter().any(|(_, reason)| *reason == LeftOut::Full);
    let is_untouched = snapshot.iter().all(|view| view.tried == Tried::No);
    let is_desperate = is_untouched
        && !plan.full
        && places.iter().all(|place| matches!(place.turn, Turn::LastResort(_)));
    places.retain(|place| match place.turn {
        Turn::LastResort(reason) if !is_desperate => {
            plan.left_out.push((place.at, LeftOut::Out(reason)));
            false
        }
        _ => true,
    });
    let is_probe = may_probe(asking, seed);
    places.sort_unstable_by(|one, other| one.before(other, is_probe));
    plan.candidates.reserve(places.len());
    for (group, alike) in places.chunk_by_mut(Place::is_alike).enumerate() {
        let chosen = choose(alike, snapshot, asking.kind, seed.wrapping_add(group as u64));
        for (behind, place) in alike.iter().enumerate() {
            let chosen = chosen.filter(|_| behind == 0).unwrap_or(Why::Load);
            let why = place.why(chosen, snapshot);
            let id = snapshot[place.at].id;
            plan.candidates.push(Candidate { id, at: place.at, rung: place.rung, why });
        }
    }
    plan
}

/// Of so many requests one finds out whether what was out works again.
const PROBE_ONE_IN: u64 = 16;

/// Whether this request may find that out though others are ready. Not one that has no second
/// attempt, nor a stream that waits in the middle.
fn may_probe(asking: &Asking<'_>, seed: u64) -> bool {
    // Apart from the draw between pods, which begins with the seed itself.
    let mut random = fastrand::Rng::with_seed(!seed);
    !asking.from_region && !asking.resuming && random.u64(..PROBE_ONE_IN) == 0
}

/// The rung on which `view` could answer, if it were well: what it is and what is allowed.
fn fits(view: &View, asking: &Asking<'_>) -> Result<Rung, LeftOut> {
    if view.class != Class::Pod && asking.from_region {
        return Err(LeftOut::Hop);
    }
    if !is_allowed(view, asking) {
        return Err(LeftOut::NotAllowed);
    }
    if !view.kinds.takes(asking.kind) || !view.kinds.takes(asking.shape) {
        return Err(LeftOut::Kind);
    }
    let rung = match view.class {
        Class::Pod => by_revision(view, asking, Rung::Pods)?,
        Class::Region => by_revision(view, asking, Rung::Regions)?,
        Class::Provider => by_name(view, asking.model)?,
        // It is there for whatever nobody else answers, and its answers say so.
        Class::Local => Rung::Local,
    };
    if rung <= Rung::Regions {
        return Ok(rung);
    }
    if asking.from_region {
        return Err(LeftOut::Hop);
    }
    if asking.resuming {
        return Err(LeftOut::Resuming);
    }
    if asking.tools && rung >= Rung::Providers {
        return Err(LeftOut::Tools);
    }
    if rung == Rung::Local && asking.level >= Level::L3 && asking.kind >= Kind::Chat {
        return Err(LeftOut::Level);
    }
    Ok(rung)
}

/// Whether the request may be seen there.
fn is_allowed(view: &View, asking: &Asking<'_>) -> bool {
    let is_named = |names: &[String]| names.iter().any(|name| **name == *view.name);
    match view.class {
        Class::Pod | Class::Local => true,
        Class::Region => asking.regions.is_none_or(is_named),
        Class::Provider => is_named(asking.providers),
    }
}

/// `primary` where the model is served at its revision, the backup's rung where that is.
fn by_revision(view: &View, asking: &Asking<'_>, primary: Rung) -> Result<Rung, LeftOut> {
    let report = match &view.offers {
        Offers::Report(report) => report,
        Offers::Names(_) => return Err(LeftOut::OtherModel),
        Offers::Unknown => return Err(LeftOut::Unknown),
    };
    if report.serves(asking.model, asking.pinned) {
        return Ok(primary);
    }
    // The backup is what its name means: nobody pins it.
    match asking.backup {
        Some(backup) if report.serves(backup, false) => Ok(Rung::Backup),
        _ => Err(LeftOut::OtherModel),
    }
}

fn by_name(view: &View, model: &ModelReport) -> Result<Rung, LeftOut> {
    let names = match &view.offers {
        Offers::Names(names) => names,
        Offers::Report(_) => return Err(LeftOut::OtherModel),
        Offers::Unknown => return Err(LeftOut::Unknown),
    };
    let is_model = |name: &String| *name == "*" || *name == model.name;
    if names.iter().any(|name| is_model(name) || model.aliases.contains(name)) {
        Ok(Rung::Providers)
    } else {
        Err(LeftOut::OtherModel)
    }
}

/// When an upstream's turn comes; the first first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Turn {
    Ready,
    Probe,
    Again,
    /// Only where there is nothing else.
    LastResort(Reason),
}

/// When it is the turn of an upstream that fits, as it stands.
fn turn(view: &View, asking: &Asking<'_>) -> Result<Turn, LeftOut> {
    if view.tried == Tried::Refused {
        return Err(LeftOut::Refused);
    }
    if view.region_down {
        return Err(LeftOut::RegionDown);
    }
    if view.paused {
        return Err(LeftOut::RateLimited);
    }
    let is_pod = view.class == Class::Pod;
    match (view.standing, view.tried) {
        (Standing::Ready, Tried::No) => Ok(Turn::Ready),
        (Standing::Probing, Tried::No) => Ok(Turn::Probe),
        (Standing::Full, Tried::No) => Err(LeftOut::Full),
        // The region that sent it has others to ask.
        (Standing::Ready, _) if is_pod && !asking.from_region => Ok(Turn::Again),
        (Standing::Out(reason), Tried::No) if is_pod && !asking.from_region => match reason {
            // It would refuse, and the operator's word stands.
            Reason::Misconfigured | Reason::Forced => Err(LeftOut::Out(reason)),
            reason => Ok(Turn::LastResort(reason)),
        },
        (Standing::Out(reason), _) => Err(LeftOut::Out(reason)),
        (_, _) => Err(LeftOut::Lost),
    }
}

/// A candidate, with what it is sorted by.
#[derive(Debug, Clone, Copy)]
struct Place {
    at: usize,
    turn: Turn,
    rung: Rung,
    class: Class,
    doubted: bool,
    order: u32,
    load: f64,
}

impl Place {
    fn of(view: &View, at: usize, rung: Rung, turn: Turn) -> Self {
        let (order, load) = match view.class {
            Class::Pod => (0, load(view)),
            _ => (view.order, view.in_flight as f64),
        };
        Self { at, turn, rung, class: view.class, doubted: view.doubted, order, load }
    }

    /// All that is fresh, rung by rung, then what was lost; in a rung what is ready, then what is
    /// tried again, or the other way round. What is doubted comes after all but the edge's own model:
    /// where every pod hangs at once, the last may not be taken out, and nobody is to wait for it.
    fn before(&self, other: &Self, is_probe: bool) -> Ordering {
        let key = |place: &Self| {
            let round = match place.turn {
                Turn::Ready | Turn::Probe => 0,
                Turn::Again => 1,
                Turn::LastResort(_) => 2,
            };
            let is_later = (place.turn == Turn::Probe) != is_probe;
            let behind = place.doubted || place.rung == Rung::Local;
            (round, behind, place.rung, is_later, place.class, place.order)
        };
        let by_load = || self.load.total_cmp(&other.load);
        key(self).cmp(&key(other)).then_with(by_load).then(self.at.cmp(&other.at))
    }

    /// Whether nothing but load tells them apart. Why a pod is out does not: of those that are one
    /// is drawn, so that not every edge tries the same.
    fn is_alike(&self, other: &Self) -> bool {
        let turn = |place: &Self| std::mem::discriminant(&place.turn);
        let key = |place: &Self| (turn(place), place.doubted, place.rung, place.class);
        key(self) == key(other)
    }

    fn why(&self, chosen: Why, snapshot: &[View]) -> Why {
        match (self.turn, self.class) {
            (Turn::Again, _) => Why::Again,
            (Turn::LastResort(_), _) => Why::LastResort,
            (Turn::Probe, _) => Why::Probe,
            (Turn::Ready, Class::Pod) => chosen,
            (Turn::Ready, Class::Region) => {
                let regions = snapshot.iter().filter(|view| view.class == Class::Region);
                let is_first = regions.map(|view| view.order).min() == Some(self.order);
                if is_first { Why::Nearest } else { Why::NextNearest }
            }
            (Turn::Ready, Class::Provider) => Why::Priority,
            (Turn::Ready, Class::Local) => Why::Local,
        }
    }
}

/// Puts one of these first, the others stay in order; of pods alone, the rest has an order of its own.
fn choose(alike: &mut [Place], snapshot: &[View], kind: Kind, seed: u64) -> Option<Why> {
    if alike.first()?.class != Class::Pod {
        return None;
    }
    let choosable = |place: &Place| {
        let view = &snapshot[place.at];
        Choosable { load: place.load, cost: unit(view) * patience(kind), matched: view.matched }
    };
    let choosable: Vec<Choosable> = alike.iter().map(choosable).collect();
    let (chosen, pick) = pick(&choosable, seed)?;
    alike[..=chosen].rotate_right(1);
    Some(match pick {
        Pick::Prefix => Why::Prefix,
        Pick::LessLoaded => Why::LessLoaded,
        Pick::Only => Why::OnlyReady,
    })
}

/// How long a pod that became ready gets less than its share: its caches are empty, and a herd
/// would find it slow.
const SLOW_START: Duration = Duration::from_secs(30);
/// The share that it begins with.
const FIRST_SHARE: f64 = 0.1;

/// What one more request would wait at a pod, relative to the others.
fn load(view: &View) -> f64 {
    (view.in_flight + view.queued + 1) as f64 * unit(view)
}

/// What each request there adds to that.
fn unit(view: &View) -> f64 {
    let slowness = if view.slowness < NOTABLE { 1.0 } else { view.slowness.min(1000.0) };
    slowness / share(view.ready_for) / view.slots.max(1) as f64
}

/// Less than so much slower than its peers is chance. Without it, whoever was a little faster by
/// chance would get everything while there is little to do.
const NOTABLE: f64 = 1.25;

/// How much longer than elsewhere a request waits for a pod that has its prompt's beginning: whoever
/// types has no time for that.
const fn patience(kind: Kind) -> f64 {
    match kind {
        Kind::Inline | Kind::Fim => 0.25,
        Kind::Chat | Kind::Agent => 1.0,
    }
}

/// Of what it could carry, in its first half minute.
fn share(ready_for: Option<Duration>) -> f64 {
    let passed = ready_for.map_or(1.0, |time| time.as_secs_f64() / SLOW_START.as_secs_f64());
    FIRST_SHARE + (1.0 - FIRST_SHARE) * passed.min(1.0)
}
