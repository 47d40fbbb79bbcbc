//! What is learned of an answer that was generated: whether an earlier one would have done, and the
//! answer itself. Beside requests: nobody waits for it.

use std::sync::Arc;

use futures_util::StreamExt as _;
use nearhop_admin::clock;
use nearhop_conf::L3Mode;
use nearhop_edge_cache::{
    Asked, Entry, Generation, Tags,
    semantic::{Age, Cache, How, Near, Site, Stage, Vector, Verdict},
};
use nearhop_routing::Level;
use nearhop_wire::{Answer, Input, Kind};
use serde_json::json;
use tokio::sync::mpsc;

use super::{NoPlace, Semantic, judge, mode};
use crate::{
    live::Live,
    phase::{Shared, admit::Admitted},
    trace::Trace,
};

/// An answer to learn from.
pub(crate) struct Lesson {
    pub(super) admitted: Arc<Admitted>,
    pub(super) live: Arc<Live>,
    pub(super) trace: Trace,
    asked: Asked,
    tags: Tags,
    generation: Generation,
    answer: Arc<Answer>,
}

/// Lessons that wait; more are not learned.
pub(super) const WAITING_MAX: usize = 256;
/// A longer request would hold much while it waits.
const BODY_BYTES_MAX: usize = 64 << 10;
/// Lessons at once.
const AT_ONCE: usize = 4;

impl Lesson {
    /// The model's answer.
    pub(super) fn text(&self) -> &str {
        self.answer.choices.first().map_or("", |choice| choice.text.as_str())
    }

    /// What it answers.
    pub(super) fn question(&self) -> &str {
        match &self.admitted.request.input {
            Input::Chat(messages) => messages.last().map_or("", |last| last.content.as_str()),
            Input::Prompt(_) | Input::Fim { .. } => "",
        }
    }
}

/// Has an answer learned from, where it is one that the tier is for.
pub(crate) fn teach(
    shared: &Shared,
    (admitted, live, trace): (&Arc<Admitted>, &Arc<Live>, &Trace),
    (asked, tags, generation): (&Asked, Tags, Generation),
    answer: &Arc<Answer>,
) {
    let Some(semantic) = &shared.l3 else { return };
    let meant = admitted.kind == Kind::Chat
        && semantic.mode(shared, admitted) != L3Mode::Off
        && shared.level() < Level::L1
        && admitted.body.len() <= BODY_BYTES_MAX
        && answer.choices.len() == 1
        && answer.head.fingerprint == admitted.model.fingerprint();
    if !meant {
        return;
    }
    let lesson = Lesson {
        admitted: Arc::clone(admitted),
        live: Arc::clone(live),
        trace: trace.clone(),
        asked: asked.clone(),
        tags,
        generation,
        answer: Arc::clone(answer),
    };
    if semantic.lessons.try_send(lesson).is_err() {
        shared.metrics.stores.with_label_values(&["l3", "dropped"]).inc();
    }
}

/// Learns for as long as anybody teaches.
pub(crate) async fn learn(shared: Arc<Shared>, lessons: mpsc::Receiver<Lesson>) {
    let lessons = futures_util::stream::unfold(lessons, |mut lessons| async move {
        let lesson = lessons.recv().await?;
        Some((lesson, lessons))
    });
    let each = lessons.for_each_concurrent(AT_ONCE, |lesson| {
        let shared = Arc::clone(&shared);
        async move {
            let Some(semantic) = &shared.l3 else { return };
            let result = semantic.take(&shared, lesson).await;
            shared.metrics.stores.with_label_values(&["l3", result]).inc();
            semantic.show(&shared);
        }
    });
    each.await;
}

impl Semantic {
    /// Learns one lesson; in a word for metrics what became of its answer.
    async fn take(&self, shared: &Arc<Shared>, lesson: Lesson) -> &'static str {
        let site = match self.site(&lesson.admitted, lesson.tags) {
            Ok(site) => site,
            Err(NoPlace::NoSite(why)) => return why.name(),
            Err(NoPlace::NoEmbedder) => return "no-embedder",
        };
        let vector = match self.embedder.lesson(&site.text).await {
            Ok(vector) => vector,
            Err(why) => return why,
        };
        let like = self.compare(shared, &lesson, (&site, &vector)).await;
        let now = clock::since_epoch();
        let born = (lesson.generation, lesson.tags);
        let entry = match Entry::new(lesson.asked.clone(), &lesson.answer, born, now) {
            Ok(entry) => entry,
            Err(skip) => return skip.name(),
        };
        match self.cache.keep((&site, &vector), &entry, like, now) {
            Ok(()) => {
                if let (Some(region), Some(embedder)) = (&self.region, self.embedder.known()) {
                    let put = region.put(&embedder, (&self.cache, &site, &vector), &entry).await;
                    shared.metrics.stores.with_label_values(&["l3-region", put]).inc();
                }
                "stored"
            }
            Err(unkept) => unkept.name(),
        }
    }

    /// Compares the answer with what would have served, or would have but for evidence; the number of
    /// the earlier answer where that says the same.
    async fn compare(
        &self,
        shared: &Arc<Shared>,
        lesson: &Lesson,
        (site, vector): (&Site, &Vector),
    ) -> Option<u64> {
        let (candidate, serves) = self.candidate(site, vector)?;
        let earlier = self.cache.open(candidate.0, clock::since_epoch())?;
        let right = judge::is_right(shared, self, lesson, earlier.entry.text()).await;
        let caller = &lesson.admitted.head.caller;
        let fingerprint = lesson.admitted.model.fingerprint();
        let result = match right {
            Some(true) => "right",
            Some(false) => "wrong",
            None => "untold",
        };
        let by = serves.map_or("unserved", How::name);
        let labels = [caller.tenant.as_str(), fingerprint.as_str(), by, result];
        shared.metrics.l3_judged.with_label_values(&labels).inc();
        let right = right?;
        let names = (caller.tenant.as_str(), fingerprint.as_str());
        let change = self.cache.judged((site, names), candidate, (right, serves));
        if let Some(stage) = change {
            tell(shared, names, (by, stage));
        }
        right.then_some(candidate.0)
    }

    /// The earlier answer that would serve, or would but for evidence, with how near it is; and by
    /// what it would, where it would.
    fn candidate(&self, site: &Site, vector: &Vector) -> Option<((u64, f32), Option<How>)> {
        let now = clock::since_epoch();
        if let Some(exact) = self.cache.exact(site, Age::Fresh, now) {
            return Some(((exact.id, 1.0), Some(How::Exact)));
        }
        let policy = self.cache.settings().policy;
        let near: Near = self.cache.near(site, vector, (policy, Age::Fresh), now);
        let serves = matches!(near.verdict, Verdict::Serve(..)).then_some(How::Similar);
        near.candidate().map(|candidate| (candidate, serves))
    }

    /// Shows what is held, and how routes are.
    pub(super) fn show(&self, shared: &Shared) {
        let (metrics, cache): (_, &Cache) = (&shared.metrics, &self.cache);
        let held = cache.held();
        metrics.l3_bytes.set(i64::try_from(held.bytes).unwrap_or(i64::MAX));
        metrics.l3_entries.set(i64::try_from(held.entries).unwrap_or(i64::MAX));
        for route in cache.routes() {
            let name = route.model.split('@').next().unwrap_or_default();
            let served = mode(shared, &route.tenant, name) == L3Mode::Serve;
            for how in How::ALL {
                let trial = route.trial(how);
                let labels = [route.tenant.as_str(), route.model.as_str(), how.name()];
                metrics.l3_bound.with_label_values(&labels).set(trial.bound());
                let serves = match trial.stage() {
                    Stage::Off => -1,
                    Stage::Proven => i64::from(served),
                    Stage::Proving => 0,
                };
                metrics.l3_serves.with_label_values(&labels).set(serves);
            }
        }
    }
}

/// Tells the operator that a route's stage is another.
fn tell(shared: &Shared, (tenant, model): (&str, &str), (by, stage): (&str, Stage)) {
    match stage {
        Stage::Proven => {
            tracing::info!(tenant, model, "a route of the semantic cache has proved itself")
        }
        Stage::Off => tracing::error!(
            tenant,
            model,
            by,
            "a route of the semantic cache was wrong too often and is off until its proof is begun anew"
        ),
        Stage::Proving => {}
    }
    let detail = json!({ "model": model, "by": by, "stage": stage.name() });
    shared.events.emit("semantic_route", tenant, detail);
}
