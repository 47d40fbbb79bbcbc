//! The semantic tier of one process: who is asked what is near, what is learned of an answer, and
//! which routes may serve.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use super::{
    evidence::Evidence,
    question, secret,
    site::{NoSite, Secrets, Sharing, Site},
    store::{Full, Kept, Room, Store},
    trial::{Demand, Stage, Trial},
    vector::Vector,
    verdict::{Neighbour, Policy, Verdict, judge},
    veto::{Wording, veto},
};
use crate::{
    entry::Entry,
    pack::{pack, unpack},
    validity::{Standing, Validity},
};

/// How the tier is set.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Settings {
    /// When an answer may serve.
    pub policy: Policy,
    /// What a route has to show before it does.
    pub demand: Demand,
    /// Who shares answers.
    pub sharing: Sharing,
    /// What may be held.
    pub room: Room,
    /// How long an answer may be served.
    pub ttl: Duration,
}

/// The tier. Shared between threads by reference.
#[derive(Debug)]
pub struct Cache {
    pub(super) settings: Settings,
    pub(super) secrets: Secrets,
    pub(super) validity: Arc<Validity>,
    store: Mutex<Store>,
    trials: Mutex<HashMap<(u64, u64), Route>>,
}

/// A tenant's requests for some weights.
#[derive(Debug, Clone, Default, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Route {
    /// The tenant.
    pub tenant: String,
    /// `name@revision`.
    pub model: String,
    /// What was compared, of the very same question, and of those that mean the same: the first is
    /// nearly always right, and must not speak for the other.
    trials: [Trial; 2],
}

impl Route {
    /// What was compared.
    #[must_use]
    pub const fn trial(&self, how: How) -> &Trial {
        &self.trials[how as usize]
    }
}

/// By what an answer is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum How {
    /// The very same question, but for space and politeness.
    Exact,
    /// One that means the same.
    Similar,
}

impl How {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Exact, Self::Similar];

    /// For metrics, headers and people.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Exact => "exact",
            Self::Similar => "similar",
        }
    }
}

/// Neighbours that are looked at.
const NEIGHBOURS: usize = 8;
/// Routes whose comparisons are remembered; more are not served.
const ROUTES_MAX: usize = 10_000;

/// How old an answer may be that serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Age {
    /// Within its time.
    Fresh,
    /// Any that was not purged: where nothing else answers.
    Any,
}

/// An answer that was asked for before.
#[derive(Debug, Clone)]
pub struct Answered {
    /// Its number.
    pub id: u64,
    /// The answer.
    pub entry: Entry,
    /// How old it is.
    pub standing: Standing,
}

/// What is near a question.
#[derive(Debug, Clone, PartialEq)]
pub struct Near {
    /// What follows.
    pub verdict: Verdict,
    /// The neighbours, the nearest first.
    pub neighbours: Vec<Neighbour>,
    /// Their numbers.
    pub ids: Vec<u64>,
}

impl Near {
    /// The number of the answer that serves, or would but for want of evidence, and how near it is.
    #[must_use]
    pub fn candidate(&self) -> Option<(u64, f32)> {
        match self.verdict {
            Verdict::Serve(at, _) | Verdict::Refuse(_, Some(at)) => {
                Some((self.ids[at], self.neighbours[at].similarity))
            }
            Verdict::Refuse(_, None) => None,
        }
    }
}

/// A neighbour as its owner may see it.
#[derive(Debug, Clone)]
pub struct Seen<'t> {
    /// What is known of it.
    pub neighbour: Neighbour,
    /// How old it is.
    pub standing: Standing,
    /// Words of the question that it has not.
    pub lacks: Vec<&'t str>,
    /// How many of its own the question has not.
    pub has_more: usize,
}

/// Why an answer was not kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unkept {
    /// It was cut off, or has no text.
    Incomplete,
    /// It is a refusal.
    Refusal,
    /// It has a secret in it.
    Secret,
    /// There is no room for it.
    Full(Full),
    /// What it could be purged by was purged meanwhile.
    Purged,
    /// It could not be sealed.
    Unsealed,
}

impl Unkept {
    /// For metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Incomplete => "incomplete",
            Self::Refusal => "refusal",
            Self::Secret => "secret",
            Self::Full(Full::Quota) => "quota",
            Self::Full(Full::TooLarge) => "too-large",
            Self::Full(Full::OtherEmbedder) => "other-embedder",
            Self::Purged => "purged",
            Self::Unsealed => "unsealed",
        }
    }
}

/// What is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Held {
    /// Bytes, as they are counted against the limit.
    pub bytes: usize,
    /// Answers.
    pub entries: usize,
    /// Partitions that have any.
    pub partitions: usize,
}

/// An answer for another store: everything but the vector sealed for its tenant.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
struct Travelling {
    place: [u8; 16],
    wording: Wording,
    vector: Vector,
    packed: Vec<u8>,
    owner: u64,
    witness: u64,
}

impl Cache {
    /// An empty one.
    #[must_use]
    pub fn new(settings: Settings, secrets: Secrets, validity: Arc<Validity>) -> Self {
        let store = Mutex::new(Store::new(settings.room));
        Self { settings, secrets, validity, store, trials: Mutex::default() }
    }

    pub(super) fn store(&self) -> MutexGuard<'_, Store> {
        // What is in it is whole whenever nobody holds it: nothing in there can panic half-way.
        self.store.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn trials(&self) -> MutexGuard<'_, HashMap<(u64, u64), Route>> {
        self.trials.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How it is set.
    #[must_use]
    pub const fn settings(&self) -> &Settings {
        &self.settings
    }

    /// What makes its digests.
    #[must_use]
    pub const fn secrets(&self) -> &Secrets {
        &self.secrets
    }

    /// What may be done with an answer that is kept.
    fn standing(&self, kept: &Kept, now: Duration) -> Standing {
        self.validity.standing(&kept.born, self.settings.ttl, now)
    }

    fn serves(&self, kept: &Kept, age: Age, now: Duration) -> bool {
        match (self.standing(kept, now), age) {
            (Standing::Gone, _) | (Standing::Stale(_), Age::Fresh) => false,
            (Standing::Stale(_), Age::Any) | (Standing::Fresh(_), _) => true,
        }
    }

    /// The answer to the very same question.
    #[must_use]
    pub fn exact(&self, site: &Site, age: Age, now: Duration) -> Option<Answered> {
        let store = self.store();
        let id = store.at(site)?;
        let kept = store.get(id)?;
        let least = kept.evidence.least_wrong(1.0);
        let fits = kept.is_vouched_for(site) && least <= self.settings.policy.wrong;
        if !fits || !self.serves(kept, age, now) {
            return None;
        }
        drop(store);
        self.open(id, now)
    }

    /// What is near a question, and what follows by `policy`.
    #[must_use]
    pub fn near(
        &self,
        site: &Site,
        vector: &Vector,
        (policy, age): (Policy, Age),
        now: Duration,
    ) -> Near {
        let store = self.store();
        let (mut neighbours, mut ids) = (Vec::new(), Vec::new());
        for (id, similarity) in store.nearest(site.partition, vector, NEIGHBOURS) {
            if let Some(kept) = store.get(id).filter(|kept| self.serves(kept, age, now)) {
                neighbours.push(neighbour(site, kept, similarity));
                ids.push(id);
            }
        }
        drop(store);
        Near { verdict: judge(&neighbours, policy), neighbours, ids }
    }

    /// What is near a question, for its owner.
    #[must_use]
    pub fn explain<'s>(&self, site: &'s Site, vector: &Vector, now: Duration) -> Vec<Seen<'s>> {
        let store = self.store();
        let nearest = store.nearest(site.partition, vector, NEIGHBOURS);
        let seen = nearest.into_iter().filter_map(|(id, similarity)| {
            let kept = store.get(id)?;
            let (lacks, has_more) = site.differing(&self.secrets, &kept.wording);
            let neighbour = neighbour(site, kept, similarity);
            Some(Seen { neighbour, standing: self.standing(kept, now), lacks, has_more })
        });
        seen.collect()
    }

    /// Opens an answer that is kept, to be served.
    #[must_use]
    pub fn open(&self, id: u64, now: Duration) -> Option<Answered> {
        let (sealed, about, tenant, standing) = {
            let mut store = self.store();
            let kept = store.get_mut(id)?;
            kept.used = true;
            let standing = self.validity.standing(&kept.born, self.settings.ttl, now);
            (kept.sealed.clone(), kept.place, kept.born.tags.tenant, standing)
        };
        let entry = unpack(&self.secrets.of_tenant(tenant).open(&sealed, &about)?)?;
        Some(Answered { id, entry, standing })
    }

    /// Learns whether an answer was right for `site`: of the answer itself always, of its route where
    /// it would have served, by `serves`; the route's stage where that changed.
    pub fn judged(
        &self,
        (site, names): (&Site, (&str, &str)),
        (id, similarity): (u64, f32),
        (right, serves): (bool, Option<How>),
    ) -> Option<Stage> {
        if let Some(kept) = self.store().get_mut(id) {
            kept.evidence.count(similarity, right);
            if right && kept.owner != site.owner && kept.witness == 0 {
                kept.witness = site.owner;
            }
        }
        let how = serves?;
        let mut trials = self.trials();
        if trials.len() >= ROUTES_MAX && !trials.contains_key(&site.route()) {
            return None;
        }
        let route = trials.entry(site.route()).or_insert_with(|| Route {
            tenant: names.0.to_owned(),
            model: names.1.to_owned(),
            trials: Default::default(),
        });
        route.trials[how as usize].count(!right, self.settings.demand)
    }

    /// How far a question's route is.
    #[must_use]
    pub fn stage(&self, site: &Site, how: How) -> Stage {
        self.trials().get(&site.route()).map(|route| route.trial(how).stage()).unwrap_or_default()
    }

    /// What was compared on a question's route.
    #[must_use]
    pub fn route(&self, site: &Site) -> Route {
        self.trials().get(&site.route()).cloned().unwrap_or_default()
    }

    /// Every route of which anything was compared.
    #[must_use]
    pub fn routes(&self) -> Vec<Route> {
        let mut routes: Vec<Route> = self.trials().values().cloned().collect();
        routes.sort_by(|a, b| (&a.tenant, &a.model).cmp(&(&b.tenant, &b.model)));
        routes
    }

    /// Begins the proof of a tenant's routes for a model anew, by its name or `name@revision`; how
    /// many that were.
    pub fn prove_again(&self, tenant: &str, model: &str) -> usize {
        let is_meant = |route: &Route| {
            let name = route.model.split('@').next();
            route.tenant == tenant && (route.model == model || name == Some(model))
        };
        let mut trials = self.trials();
        let before = trials.len();
        trials.retain(|_, route| !is_meant(route));
        before - trials.len()
    }

    /// Keeps an answer. `like` is the number of an earlier one that says the same.
    ///
    /// # Errors
    /// Why it is not kept.
    pub fn keep(
        &self,
        (site, vector): (&Site, &Vector),
        entry: &Entry,
        like: Option<u64>,
        now: Duration,
    ) -> Result<(), Unkept> {
        if entry.is_cut() {
            return Err(Unkept::Incomplete);
        }
        if question::is_refusal(entry.text()) {
            return Err(Unkept::Refusal);
        }
        if secret::has_secret(entry.text()) {
            return Err(Unkept::Secret);
        }
        self.may_enter(entry, now)?;
        let sealed = self.seal(site.tags.tenant, &pack(entry), &site.place)?;
        let mut store = self.store();
        // The very same question with the same answer is the same answer: only younger.
        let same = store.at(site).filter(|at| like == Some(*at)).and_then(|at| store.get(at));
        let (evidence, witness) =
            same.map_or((Evidence::default(), 0), |same| (same.evidence, same.witness));
        let other =
            same.map_or(0, |same| if same.owner == site.owner { witness } else { same.owner });
        let class = like.and_then(|id| store.get(id)).map(|kept| kept.class);
        if same.is_none() {
            store.may_write(site, now.as_secs() / 3600).map_err(Unkept::Full)?;
        }
        let class = class.unwrap_or_else(|| store.new_class());
        let kept = Kept {
            partition: site.partition,
            place: site.place,
            wording: site.wording.clone(),
            sealed,
            class,
            born: entry.born,
            owner: site.owner,
            witness: other,
            evidence,
            used: false,
        };
        store.put(kept, vector).map(|_id| ()).map_err(Unkept::Full)
    }

    fn may_enter(&self, entry: &Entry, now: Duration) -> Result<(), Unkept> {
        match self.validity.standing(&entry.born, self.settings.ttl, now) {
            Standing::Gone => Err(Unkept::Purged),
            Standing::Fresh(_) | Standing::Stale(_) => Ok(()),
        }
    }

    fn seal(&self, tenant: u64, plain: &[u8], about: &[u8]) -> Result<Box<[u8]>, Unkept> {
        let sealed = self.secrets.of_tenant(tenant).seal(plain, about);
        sealed.map(Vec::into_boxed_slice).ok_or(Unkept::Unsealed)
    }

    /// An answer as it goes to a store outside: nothing of it can be read there.
    #[must_use]
    pub fn export(&self, (site, vector): (&Site, &Vector), entry: &Entry) -> Option<Vec<u8>> {
        let travelling = Travelling {
            place: site.place,
            wording: site.wording.clone(),
            vector: vector.clone(),
            packed: pack(entry),
            owner: site.owner,
            witness: 0,
        };
        let plain = postcard::to_allocvec(&travelling).ok()?;
        self.secrets.of_tenant(site.tags.tenant).seal(&plain, &site.partition.0)
    }

    /// Takes an answer of a store outside, near a question of the same partition; whether it was one.
    pub fn import(&self, site: &Site, sealed: &[u8], now: Duration) -> bool {
        let opened = self.secrets.of_tenant(site.tags.tenant).open(sealed, &site.partition.0);
        let read = opened.and_then(|plain| postcard::from_bytes::<Travelling>(&plain).ok());
        let Some(Travelling { place, wording, vector, packed, owner, witness }) = read else {
            return false;
        };
        let Some(entry) = unpack(&packed) else { return false };
        let ours = entry.tags().tenant == site.tags.tenant && entry.tags().model == site.tags.model;
        if !ours || self.may_enter(&entry, now).is_err() {
            return false;
        }
        let Ok(sealed) = self.seal(site.tags.tenant, &packed, &place) else { return false };
        let mut store = self.store();
        let class = store.new_class();
        let born = entry.born;
        let (partition, evidence, used) = (site.partition, Evidence::default(), false);
        let kept =
            Kept { partition, place, wording, sealed, class, born, owner, witness, evidence, used };
        store.put(kept, &vector).is_ok()
    }

    /// The number of a question in a store outside: the same for the same.
    #[must_use]
    pub const fn point(site: &Site) -> u128 {
        u128::from_le_bytes(site.place)
    }

    /// Drops what must not be served any more, and what is older than `kept`; how many.
    pub fn sweep(&self, kept: Duration, now: Duration) -> usize {
        self.store().sweep(|of| match self.standing(of, now) {
            Standing::Gone => true,
            Standing::Stale(age) => age > kept,
            Standing::Fresh(_) => false,
        })
    }

    /// What is held.
    #[must_use]
    pub fn held(&self) -> Held {
        let store = self.store();
        let (bytes, entries) = (store.bytes(), store.entries());
        Held { bytes, entries, partitions: store.partitions() }
    }

    /// Where `request` belongs, which has `tags`.
    ///
    /// # Errors
    /// Why it is not looked up at all.
    pub fn site(
        &self,
        request: &nearhop_wire::CompletionRequest,
        asker: crate::Asker<'_>,
        models: super::site::Models<'_>,
        tags: crate::Tags,
    ) -> Result<Site, NoSite> {
        Site::of(request, (asker, self.settings.sharing), models, (&self.secrets, tags))
    }
}

fn neighbour(site: &Site, kept: &Kept, similarity: f32) -> Neighbour {
    let Kept { class, evidence, .. } = *kept;
    let veto = veto(&site.wording, &kept.wording).err();
    Neighbour { similarity, veto, class, vouched: kept.is_vouched_for(site), evidence }
}

#[cfg(test)]
mod tests;
