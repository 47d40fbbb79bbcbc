//! Conversations answered by what was asked alike (L3): when it is asked, and what becomes of it.
//!
//! ```text
//!  a miss ──▶ look: route proven? the same question ──▶ its vector (30 ms) ──▶ near? ──▶ region (8 ms)
//!  its answer ──▶ lessons, beside requests: was what would have served right? keep the new one
//! ```
//!
//! A request waits for a vector at most, and for that only where its route has proved itself. A share
//! of what could be served is generated all the same: by that, routes prove themselves for as long as
//! they serve.

mod embedder;
mod explain;
mod judge;
mod keeping;
mod lessons;
mod region;

use std::sync::{Arc, Mutex};

use nearhop_admin::clock;
use nearhop_conf::{L3, L3Mode, L3Scope};
use nearhop_edge_cache::{
    Tags, Validity,
    semantic::{
        Age, Answered, Cache, Demand, How, Models, NoSite, Policy, Refused, Room, Route, Secrets,
        Settings, Sharing, Site, Stage, Vector, Verdict,
    },
};
use nearhop_routing::Level;
use nearhop_wire::{Kind, ModelReport};
use tokio::sync::mpsc;

use self::{embedder::Embedder, region::Region};
pub(crate) use self::{
    explain::{explain, mode_name, trial},
    keeping::keep,
    lessons::{Lesson, Said, learn, teach},
    region::purge as purge_region,
};
use crate::{
    metrics::EdgeMetrics,
    phase::{Shared, admit::Admitted, lookup::Ticket},
    upstream::{exchange::Exchanges, pool::Upstreams},
};

/// The semantic tier of this edge.
pub(crate) struct Semantic {
    pub(crate) settings: L3,
    pub(crate) cache: Cache,
    embedder: Embedder,
    region: Option<Region>,
    lessons: mpsc::Sender<Lesson>,
    /// Held by who writes the snapshot; whether a new process writes it from now on.
    retired: Mutex<bool>,
}

/// Why there is no semantic tier, though one is configured.
#[derive(Debug, thiserror::Error)]
pub enum SemanticError {
    /// The operating system gives no random bytes.
    #[error("edge.l3: no random key can be had")]
    NoKey,
    /// The region's tier cannot be spoken to as it is configured.
    #[error("edge.l3.regional: {0}")]
    Regional(String),
}

impl Semantic {
    /// The tier, and what teaches it.
    pub(crate) fn new(
        settings: &L3,
        validity: &Arc<Validity>,
        (upstreams, exchanges): (&Arc<Upstreams>, &Arc<Exchanges>),
        metrics: &EdgeMetrics,
    ) -> Result<(Self, mpsc::Receiver<Lesson>), SemanticError> {
        let secrets = match &settings.secret {
            Some(secret) => Secrets::of(secret.reveal().as_bytes()),
            None => Secrets::random().ok_or(SemanticError::NoKey)?,
        };
        let cache = Cache::new(cache_settings(settings), secrets, Arc::clone(validity));
        let asked = (Arc::clone(upstreams), Arc::clone(exchanges));
        let embedder = Embedder::new(settings, asked, metrics.clone());
        let region = settings.regional.as_ref().map(Region::new).transpose();
        let region = region.map_err(SemanticError::Regional)?;
        let (lessons, taught) = mpsc::channel(lessons::WAITING_MAX);
        metrics.l3_limit.set(settings.wrong);
        let settings = settings.clone();
        let retired = Mutex::default();
        Ok((Self { settings, cache, embedder, region, lessons, retired }, taught))
    }

    /// Where a request belongs.
    fn site(&self, admitted: &Admitted, tags: Tags) -> Result<Site, NoPlace> {
        let embedder = self.embedder.fingerprint().ok_or(NoPlace::NoEmbedder)?;
        let models = Models { model: &admitted.model, embedder: &embedder };
        let site = self.cache.site(&admitted.request, admitted.asker(), models, tags);
        site.map_err(NoPlace::NoSite)
    }
}

/// What is done with a tenant's requests for a model, as the configuration is now.
pub(crate) fn mode(shared: &Shared, tenant: &str, model: &ModelReport) -> L3Mode {
    let live = shared.live.load();
    let names = || std::iter::once(&model.name).chain(&model.aliases).map(String::as_str);
    let route = live.l3_routes.iter().find(|route| route.is_of(tenant, names()));
    route.map_or(L3Mode::Off, |route| route.mode)
}

/// The same of a request.
fn mode_of(shared: &Shared, admitted: &Admitted) -> L3Mode {
    mode(shared, &admitted.head.caller.tenant, &admitted.model)
}

/// The same of a route, by its model's name; nothing is done where nobody serves it any more.
pub(crate) fn mode_of_route(shared: &Shared, route: &Route) -> L3Mode {
    let model = shared.upstreams.model(Some(route.model_name()));
    model.map_or(L3Mode::Off, |model| mode(shared, &route.tenant, &model))
}

/// Why a request has no place in the tier.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum NoPlace {
    /// No embedder was ever ready, so that nobody knows whose vectors are compared.
    NoEmbedder,
    NoSite(NoSite),
}

impl NoPlace {
    const fn name(self) -> &'static str {
        match self {
            Self::NoEmbedder => "no-embedder",
            Self::NoSite(none) => none.name(),
        }
    }
}

fn cache_settings(settings: &L3) -> Settings {
    let L3 { floor, sure, wrong, judged, .. } = *settings;
    #[expect(
        clippy::cast_possible_truncation,
        reason = "cosines are told apart by far less digits"
    )]
    let policy = Policy { floor: floor as f32, sure: sure as f32, wrong };
    Settings {
        policy,
        demand: Demand { wrong, judged },
        sharing: match settings.scope {
            L3Scope::Key => Sharing::Key,
            L3Scope::User => Sharing::User,
            L3Scope::Tenant => Sharing::Tenant,
        },
        room: Room {
            bytes: settings.bytes.0,
            tenant_bytes: settings.tenant_bytes.0,
            tenant_entries: settings.tenant_entries,
            owner_entries: settings.user_entries,
            owner_writes: settings.user_writes,
        },
        ttl: settings.ttl,
        judge: judge::name(&settings.judge),
    }
}

/// A question's vector, and whose it is.
pub(crate) struct Embedded {
    embedder: String,
    vector: Vector,
}

/// An earlier answer that serves a request that misses, where there is one. Where it was embedded for
/// that, `vector` is its question's.
pub(crate) async fn look(
    shared: &Shared,
    admitted: &Admitted,
    ticket: &Ticket,
    vector: &mut Option<Embedded>,
) -> Option<(Answered, How)> {
    let semantic = shared.l3.as_ref()?;
    let (tags, _) = ticket.semantic().filter(|_| ticket.is_miss())?;
    if mode_of(shared, admitted) == L3Mode::Off {
        return None;
    }
    let found = semantic.find(shared, (admitted, tags), vector).await;
    let result = match &found {
        Ok((_, how)) => how.name(),
        Err(why) => why,
    };
    shared.metrics.lookups.with_label_values(&["l3", result]).inc();
    found.ok()
}

impl Semantic {
    async fn find(
        &self,
        shared: &Shared,
        (admitted, tags): (&Admitted, Tags),
        embedded: &mut Option<Embedded>,
    ) -> Result<(Answered, How), &'static str> {
        if mode_of(shared, admitted) == L3Mode::Shadow {
            return Err("shadow");
        }
        if shared.level() >= Level::L1 {
            return Err("level");
        }
        let site = self.site(admitted, tags).map_err(NoPlace::name)?;
        let [exact, similar] = How::ALL.map(|how| self.cache.stage(&site, how));
        if exact != Stage::Proven && similar != Stage::Proven {
            return Err(exact.max(similar).name());
        }
        let policy = self.cache.settings().policy.raised(admitted.head.similarity);
        let now = clock::since_epoch();
        let found = match self.cache.exact(&site, Age::Fresh, now) {
            Some(answered) if exact == Stage::Proven => (answered, How::Exact),
            // Near it lies nothing nearer than itself.
            Some(_) => return Err(exact.name()),
            None if similar != Stage::Proven => return Err(similar.name()),
            None if policy.floor >= 1.0 => return Err(Refused::Far.name()),
            None => {
                let vector = self.embedder.question(&site).await?;
                let embedder = site.embedder.clone();
                let Embedded { vector, .. } = embedded.insert(Embedded { embedder, vector });
                let answered = self.near(&site, vector, policy).await?;
                (answered, How::Similar)
            }
        };
        // Drawn last, so that the share is one of what could be served.
        if fastrand::f64() < self.settings.explore { Err("explored") } else { Ok(found) }
    }

    /// The nearest that serves, here or else in the region.
    async fn near(
        &self,
        site: &Site,
        vector: &Vector,
        policy: Policy,
    ) -> Result<Answered, &'static str> {
        let near = || {
            let now = clock::since_epoch();
            let near = self.cache.near(site, vector, (policy, Age::Fresh), now);
            match near.verdict {
                Verdict::Serve(at, _) => self.cache.open(near.ids[at], now).ok_or("unsealed"),
                Verdict::Refuse(why, _) => Err(why.name()),
            }
        };
        let here = near();
        let is_far = here.as_ref().err() == Some(&Refused::Far.name());
        if is_far && self.fetch(site, vector, policy.floor).await { near() } else { here }
    }

    /// What may be said where nobody answers: the nearest of the partition that no word speaks
    /// against, of any age.
    async fn similar(&self, admitted: &Admitted, tags: Tags) -> Option<(Answered, How)> {
        let site = self.site(admitted, tags).ok()?;
        let is_off = |how| self.cache.stage(&site, how) == Stage::Off;
        let now = clock::since_epoch();
        if let Some(answered) = self.cache.exact(&site, Age::Any, now) {
            return (!is_off(How::Exact)).then_some((answered, How::Exact));
        }
        if is_off(How::Similar) {
            return None;
        }
        let vector = self.embedder.question(&site).await.ok()?;
        let policy = self.cache.settings().policy.raised(admitted.head.similarity);
        let policy = Policy { sure: policy.floor, ..policy };
        let near = self.cache.near(&site, &vector, (policy, Age::Any), now);
        let Verdict::Serve(at, _) = near.verdict else { return None };
        Some((self.cache.open(near.ids[at], now)?, How::Similar))
    }
}

/// What may be said where nobody answers.
pub(crate) async fn similar(
    shared: &Shared,
    admitted: &Admitted,
    tags: Tags,
) -> Option<(Answered, How)> {
    let semantic = shared.l3.as_ref()?;
    if admitted.kind != Kind::Chat || mode_of(shared, admitted) != L3Mode::Serve {
        return None;
    }
    let found = semantic.similar(admitted, tags).await;
    let result = if found.is_some() { "fallback" } else { "fallback-miss" };
    shared.metrics.lookups.with_label_values(&["l3", result]).inc();
    found
}
