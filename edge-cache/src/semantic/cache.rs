//! The semantic tier of one process: who is asked what is near, what is learned of an answer, and
//! which routes may serve.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use super::{
    evidence::Evidence,
    question,
    routes::{How, Route, Routes},
    secret,
    site::{NoSite, Secrets, Sharing, Site},
    store::{Full, Kept, Room, Store},
    trial::{Demand, Stage},
    vector::Vector,
    verdict::{Neighbour, Policy, Verdict, judge},
    veto::veto,
};
use crate::{
    digest::Digest,
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
    /// Names how answers are judged: what a route has shown to one judge it has not to another.
    pub judge: u64,
}

impl Settings {
    /// Names all that a route's proof rests on.
    fn rules(&self) -> u64 {
        let Policy { floor, sure, wrong } = self.policy;
        let mut rules = Digest::new("nearhop semantic rules");
        rules.number(self.sharing as u64);
        rules.number(u64::from(floor.to_bits()));
        rules.number(u64::from(sure.to_bits()));
        rules.number(wrong.to_bits());
        rules.number(self.judge);
        rules.first_u64()
    }
}

/// The tier. Shared between threads by reference.
#[derive(Debug)]
pub struct Cache {
    pub(super) settings: Settings,
    pub(super) secrets: Secrets,
    pub(super) validity: Arc<Validity>,
    rules: u64,
    store: Mutex<Store>,
    pub(super) routes: Routes,
}

/// What a comparison came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Judged {
    /// Whether the earlier answer was right.
    pub right: bool,
    /// Whether both are the same text.
    pub equal: bool,
    /// By what it would have served; `None` where it would not, or where that is to speak for nobody.
    pub of: Option<How>,
}

/// Comparisons of one answer that speak for its route; then each so many-th.
const OF_ONE_MAX: u64 = 20;
/// Neighbours that are looked at.
const NEIGHBOURS: usize = 8;

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

impl Cache {
    /// An empty one.
    #[must_use]
    pub fn new(settings: Settings, secrets: Secrets, validity: Arc<Validity>) -> Self {
        let store = Mutex::new(Store::new(settings.room));
        let rules = settings.rules();
        Self { settings, secrets, validity, rules, store, routes: Routes::default() }
    }

    pub(super) fn store(&self) -> MutexGuard<'_, Store> {
        // What is in it is whole whenever nobody holds it: nothing in there can panic half-way.
        self.store.lock().unwrap_or_else(PoisonError::into_inner)
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
    /// that counts; the route's stage where that changed.
    ///
    /// One answer speaks for its route a few times, and then one time in so many: what is asked over
    /// and over would prove nothing but itself.
    pub fn judged(
        &self,
        (site, names): (&Site, (&str, &str)),
        (id, similarity): (u64, f32),
        judged: Judged,
        now: Duration,
    ) -> Option<Stage> {
        let Judged { right, equal, of } = judged;
        let spoken = {
            let mut store = self.store();
            let kept = store.get_mut(id)?;
            let spoken = kept.evidence.totals().0;
            kept.evidence.count(similarity, right);
            // What only says something like it may say something else besides.
            if equal && kept.owner != site.owner && kept.witness == 0 {
                kept.witness = site.owner;
            }
            spoken
        };
        if spoken >= OF_ONE_MAX && !spoken.is_multiple_of(OF_ONE_MAX) {
            return None;
        }
        let (tenant, model) = names;
        let demand = (self.settings.demand, now);
        self.routes.count((site.route(), tenant, model), (of?, !right), demand)
    }

    /// How far a question's route is.
    #[must_use]
    pub fn stage(&self, site: &Site, how: How) -> Stage {
        self.routes.stage(site.route(), how)
    }

    /// What was compared on a question's route.
    #[must_use]
    pub fn route(&self, site: &Site) -> Route {
        self.routes.get(site.route())
    }

    /// Every route of which anything was compared.
    #[must_use]
    pub fn routes(&self) -> Vec<Route> {
        self.routes.all().into_iter().map(|(_, route)| route).collect()
    }

    /// Begins the proof of a tenant's routes for a model anew, by its name or `name@revision`;
    /// which that were.
    pub fn prove_again(&self, tenant: &str, model: &str) -> Vec<Route> {
        self.routes.forget(tenant, model)
    }

    /// Whether an answer is one to be kept, whatever it answers.
    ///
    /// # Errors
    /// Why it is not.
    pub fn is_worth(entry: &Entry) -> Result<(), Unkept> {
        if entry.is_cut() {
            Err(Unkept::Incomplete)
        } else if question::is_refusal(entry.text()) {
            Err(Unkept::Refusal)
        } else if secret::has_secret(entry.text()) {
            Err(Unkept::Secret)
        } else {
            Ok(())
        }
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
        Self::is_worth(entry)?;
        let sealed = self.seal(site.tags.tenant, &pack(entry), &site.place)?;
        let mut store = self.store();
        // Under the lock: a purge sweeps after it was written down.
        self.may_enter(entry, now)?;
        // The very same question with the same answer is the same answer: only younger.
        let same = store.at(site).filter(|at| like == Some(*at)).and_then(|at| store.get(at));
        let (evidence, witness) = match same {
            Some(same) if same.owner == site.owner => (same.evidence, same.witness),
            // A witness only where the text is the same.
            Some(same) if same.class == class_of(entry) => (same.evidence, same.owner),
            Some(same) => (same.evidence, 0),
            None => (Evidence::default(), 0),
        };
        let class = like.and_then(|id| store.get(id)).map(|kept| kept.class);
        if same.is_none() {
            store.may_write(site, now.as_secs() / 3600).map_err(Unkept::Full)?;
        }
        let kept = Kept {
            partition: site.partition,
            place: site.place,
            wording: site.wording.clone(),
            sealed,
            class: class.unwrap_or_else(|| class_of(entry)),
            born: entry.born,
            owner: site.owner,
            witness,
            evidence,
            used: false,
        };
        store.put(kept, vector).map(|_id| ()).map_err(Unkept::Full)
    }

    pub(super) fn may_enter(&self, entry: &Entry, now: Duration) -> Result<(), Unkept> {
        match self.validity.standing(&entry.born, self.settings.ttl, now) {
            Standing::Gone => Err(Unkept::Purged),
            Standing::Fresh(_) | Standing::Stale(_) => Ok(()),
        }
    }

    pub(super) fn seal(
        &self,
        tenant: u64,
        plain: &[u8],
        about: &[u8],
    ) -> Result<Box<[u8]>, Unkept> {
        let sealed = self.secrets.of_tenant(tenant).seal(plain, about);
        sealed.map(Vec::into_boxed_slice).ok_or(Unkept::Unsealed)
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
        let sharing = self.settings.sharing;
        Site::of(request, (asker, sharing, self.rules), models, (&self.secrets, tags))
    }
}

/// Names what an answer says, by its text: the same on every edge.
pub(super) fn class_of(entry: &Entry) -> u64 {
    let mut class = Digest::new("nearhop semantic class");
    entry.text().split_whitespace().for_each(|word| class.text(word));
    class.first_u64()
}

fn neighbour(site: &Site, kept: &Kept, similarity: f32) -> Neighbour {
    let Kept { class, evidence, .. } = *kept;
    let veto = veto(&site.wording, &kept.wording).err();
    Neighbour { similarity, veto, class, vouched: kept.is_vouched_for(site), evidence }
}

#[cfg(test)]
mod tests;
