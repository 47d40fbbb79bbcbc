//! The tier of the whole region, where one is configured: answers of other edges, and what outlives
//! this one. Nothing depends on it.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use nearhop_admin::clock;
use nearhop_conf::{L3Regional, L3Scope};
use nearhop_edge_cache::{
    Entry, Purge,
    semantic::{
        Cache, Site, Vector,
        regional::{
            Limited, Limits, Owner, Point, Purged, Regional as _, Trouble, Wanted,
            qdrant::{ApiKey, Qdrant, Settings},
        },
    },
};
use nearhop_wire::EmbedderReport;
use serde_json::{Value, json};

use super::Semantic;
use crate::phase::Shared;

/// The region's tier.
pub(super) struct Region {
    settings: L3Regional,
    opened: Mutex<Option<Arc<Opened>>>,
}

/// One collection: an embedder's, since vectors of two are not compared.
struct Opened {
    embedder: EmbedderReport,
    qdrant: Qdrant,
    tier: Limited,
    prepared: tokio::sync::Mutex<Prepared>,
}

/// Whether the collection is there.
#[derive(Debug, Clone, Copy)]
enum Prepared {
    Yes,
    /// Not yet; when it is tried again.
    No(Option<Instant>),
}

/// From one try to find or make the collection to the next.
const AGAIN: Duration = Duration::from_secs(30);

/// Neighbours that are asked for.
const NEIGHBOURS: usize = 4;

impl Region {
    /// # Errors
    /// Settings that can never work, in words.
    pub(super) fn new(settings: &L3Regional) -> Result<Self, String> {
        // What is wrong with them must show at the start, not with the first question.
        qdrant(settings, "check", 1)?;
        Ok(Self { settings: settings.clone(), opened: Mutex::default() })
    }

    fn open(&self, embedder: &EmbedderReport) -> Option<Arc<Opened>> {
        // What is in it is whole at every moment.
        let mut opened = self.opened.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(opened) = opened.as_ref().filter(|opened| opened.embedder == *embedder) {
            return Some(Arc::clone(opened));
        }
        let qdrant = qdrant(&self.settings, &embedder.revision, embedder.dimensions).ok()?;
        let limits = Limits { look_up: self.settings.patience, ..Limits::default() };
        let tier = Limited::new(Arc::new(qdrant.clone()), limits);
        let prepared = tokio::sync::Mutex::new(Prepared::No(None));
        let embedder = embedder.clone();
        let new = Arc::new(Opened { embedder, qdrant, tier, prepared });
        *opened = Some(Arc::clone(&new));
        Some(new)
    }

    /// What is near a question: sealed answers.
    pub(super) async fn nearest(
        &self,
        embedder: &EmbedderReport,
        (site, vector): (&Site, &Vector),
        floor: f32,
    ) -> Result<Vec<Vec<u8>>, Trouble> {
        let Some(opened) = self.open(embedder) else { return Ok(Vec::new()) };
        let vector = vector.values();
        let wanted = Wanted { partition: site.partition, vector: &vector, floor, most: NEIGHBOURS };
        let found = opened.tier.nearest(wanted).await?;
        Ok(found.into_iter().map(|neighbour| neighbour.sealed).collect())
    }

    /// Writes an answer; in a word what became of it.
    pub(super) async fn put(
        &self,
        embedder: &EmbedderReport,
        cache: &Cache,
        (site, vector, entry): (&Site, &Vector, &Entry),
    ) -> &'static str {
        let Some(opened) = self.open(embedder) else { return "failed" };
        if let Err(trouble) = opened.prepare().await {
            return trouble;
        }
        let Some(sealed) = cache.export((site, vector), entry) else { return "unsealed" };
        let tags = &site.tags;
        let point = Point {
            id: Cache::point(site),
            partition: site.partition,
            owner: Owner {
                tenant: tags.tenant,
                scope: site.owner(),
                model: tags.model,
                session: tags.session,
            },
            vector: vector.values(),
            stored: entry.stored().as_secs(),
            generation: entry.generation(),
            sealed,
        };
        opened.tier.put(point).await.map_or_else(|trouble| trouble.name(), |()| "stored")
    }

    async fn purge(&self, embedder: &EmbedderReport, what: Purged) -> Result<(), Trouble> {
        match self.open(embedder) {
            Some(opened) => opened.tier.purge(what).await,
            None => Ok(()),
        }
    }
}

impl Opened {
    /// Finds or makes the collection, one at a time and not too often; in a word why it is not there.
    async fn prepare(&self) -> Result<(), &'static str> {
        let Ok(mut prepared) = self.prepared.try_lock() else { return Err("busy") };
        match *prepared {
            Prepared::Yes => return Ok(()),
            Prepared::No(Some(next)) if clock::now() < next => return Err("open"),
            Prepared::No(_) => {}
        }
        let within = Limits::default().write;
        let made = tokio::time::timeout(within, self.qdrant.prepare()).await;
        let trouble = match made.unwrap_or(Err(Trouble::Late)) {
            Ok(()) => {
                *prepared = Prepared::Yes;
                return Ok(());
            }
            Err(trouble) => trouble,
        };
        *prepared = Prepared::No(Some(clock::now() + AGAIN));
        tracing::warn!(%trouble, "the region's semantic cache cannot be used");
        Err(trouble.name())
    }
}

/// A revision's name in a collection's: short, and of characters that may stand there.
fn short(revision: &str) -> String {
    openssl::sha::sha256(revision.as_bytes())[..6]
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

fn qdrant(settings: &L3Regional, revision: &str, dimensions: usize) -> Result<Qdrant, String> {
    let revision = short(revision);
    let copies = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
    let made = Qdrant::new(Settings {
        url: settings.url.clone(),
        api_key: settings.api_key.as_ref().map(|key| ApiKey::new(key.reveal())),
        ca: settings.ca.clone(),
        collection: format!("{}-{revision}", settings.collection),
        dimensions,
        shard_number: Some(copies(settings.shards)),
        replication_factor: copies(settings.replicas),
        ..Settings::default()
    });
    made.map_err(|error| error.to_string())
}

const HIDDEN: &str = "not all of its points say that they are meant";

/// Deletes in the region what was purged, as far as its points say what they are; in words for whoever
/// purges. What is left is never served: whoever reads it knows of the purge.
pub(crate) async fn purge(shared: &Shared, purge: &Purge) -> Value {
    let Some(semantic) = &shared.l3 else { return Value::Null };
    let Some(region) = &semantic.region else { return Value::Null };
    let (what, all) = match purge {
        Purge::All => (Purged::All, true),
        Purge::Tenant(tenant) => (Purged::Tenant(*tenant), true),
        Purge::Model(model) => (Purged::Model(*model), true),
        Purge::Session(session) => (Purged::Session(*session), true),
        // Points say whose they are: a user's, or a key's that names none.
        Purge::User(owner) => (Purged::Scope(*owner), semantic.settings.scope != L3Scope::Key),
        Purge::Key(owner) => (Purged::Scope(*owner), false),
        // And not which repository and file they are of.
        Purge::Repo(_) | Purge::File(_) => return json!({ "state": "hidden", "why": HIDDEN }),
    };
    let Some(embedder) = semantic.embedder.known() else {
        return json!({ "state": "pending", "why": "no embedder was ready yet" });
    };
    match region.purge(&embedder, what).await {
        Ok(()) if all => json!({ "state": "done" }),
        Ok(()) => json!({ "state": "hidden", "why": HIDDEN }),
        Err(trouble) => json!({ "state": "hidden", "why": trouble.to_string() }),
    }
}

impl Semantic {
    /// What is near a question in the region, taken in; whether anything was.
    pub(super) async fn fetch(&self, site: &Site, vector: &Vector, floor: f32) -> bool {
        let Some(region) = &self.region else { return false };
        let Some(embedder) = self.embedder.known() else { return false };
        let found = match region.nearest(&embedder, (site, vector), floor).await {
            Ok(found) => found,
            Err(trouble) => {
                tracing::debug!(%trouble, "the region's answers were not asked");
                return false;
            }
        };
        let now = clock::since_epoch();
        found.iter().filter(|sealed| self.cache.import(site, sealed, now)).count() > 0
    }

    /// Has an answer written, beside everything.
    pub(super) fn put_in_region(
        &self,
        shared: &Arc<Shared>,
        (site, vector): (Site, Vector),
        entry: Entry,
    ) {
        if self.region.is_none() {
            return;
        }
        let shared = Arc::clone(shared);
        tokio::spawn(async move {
            let Some(semantic) = &shared.l3 else { return };
            let (Some(region), Some(embedder)) = (&semantic.region, semantic.embedder.known())
            else {
                return;
            };
            let put = region.put(&embedder, &semantic.cache, (&site, &vector, &entry)).await;
            shared.metrics.stores.with_label_values(&["l3-region", put]).inc();
        });
    }

    /// Deletes what is older than `kept` in the region.
    pub(super) async fn forget_in_region(&self, kept: Duration) {
        let (Some(region), Some(embedder)) = (&self.region, self.embedder.known()) else { return };
        let before = clock::since_epoch().saturating_sub(kept).as_secs();
        if let Err(trouble) = region.purge(&embedder, Purged::Before(before)).await {
            tracing::debug!(%trouble, "what is old was not deleted in the region's semantic cache");
        }
    }
}
