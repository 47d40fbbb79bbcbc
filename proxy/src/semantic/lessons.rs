//! What is learned of an answer that was generated: whether an earlier one would have done, and the
//! answer itself. Beside requests: nobody waits for it.

use std::sync::Arc;

use nearhop_admin::clock;
use nearhop_conf::L3Mode;
use nearhop_edge_cache::{
    Asked, Entry, Generation, Tags,
    semantic::{Age, Cache, How, Judged, Near, Route, Site, Stage, Vector, Verdict},
};
use nearhop_routing::Level;
use nearhop_wire::{Answer, Input, Kind};
use serde_json::json;
use tokio::sync::{Semaphore, mpsc};

use super::{
    Embedded, Semantic,
    embedder::LESSONS_MAX,
    judge::{self, Told},
    mode_of, mode_of_route,
};
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
    /// Whether its client wanted a new answer whatever there was: what is asked over and over so proves
    /// nothing.
    forced: bool,
    /// The question's, where it was embedded already.
    vector: Option<Embedded>,
}

/// What was said to a question.
pub(crate) struct Said<'a> {
    pub(crate) answer: &'a Arc<Answer>,
    /// Whether its client wanted a new answer whatever there was.
    pub(crate) forced: bool,
    /// The question's, where it was embedded already.
    pub(crate) vector: Option<Embedded>,
}

/// Lessons that wait; more are not learned.
pub(super) const WAITING_MAX: usize = 256;
/// A longer request would hold much while it waits.
const BODY_BYTES_MAX: usize = 64 << 10;
/// Lessons at once.
const AT_ONCE: usize = LESSONS_MAX - 1;

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
    said: Said<'_>,
) {
    let Some(semantic) = &shared.l3 else { return };
    let Said { answer, forced, vector } = said;
    let meant = admitted.kind == Kind::Chat
        && mode_of(shared, admitted) != L3Mode::Off
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
        forced,
        vector,
    };
    if semantic.lessons.try_send(lesson).is_err() {
        shared.metrics.stores.with_label_values(&["l3", "dropped"]).inc();
    }
}

/// Learns for as long as anybody teaches.
pub(crate) async fn learn(shared: Arc<Shared>, mut lessons: mpsc::Receiver<Lesson>) {
    let places = Arc::new(Semaphore::new(AT_ONCE));
    while let Some(lesson) = lessons.recv().await {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        let shared = Arc::clone(&shared);
        tokio::spawn(async move {
            let Some(semantic) = &shared.l3 else { return };
            let result = semantic.take(&shared, lesson).await;
            shared.metrics.stores.with_label_values(&["l3", result]).inc();
            drop(place);
        });
    }
}

impl Semantic {
    /// Learns one lesson; in a word for metrics what became of its answer.
    async fn take(&self, shared: &Arc<Shared>, mut lesson: Lesson) -> &'static str {
        let site = match self.site(&lesson.admitted, lesson.tags) {
            Ok(site) => site,
            Err(none) => return none.name(),
        };
        let born = (lesson.generation, lesson.tags);
        let now = clock::since_epoch();
        let entry = match Entry::new(lesson.asked.clone(), &lesson.answer, born, now) {
            Ok(entry) => entry,
            Err(skip) => return skip.name(),
        };
        if let Err(unkept) = Cache::is_worth(&entry) {
            return unkept.name();
        }
        let embedded = lesson.vector.take().filter(|embedded| embedded.embedder == site.embedder);
        let vector = match embedded {
            Some(Embedded { vector, .. }) => vector,
            None => match self.embedder.lesson(&site).await {
                Ok(vector) => vector,
                Err(why) => return why,
            },
        };
        let like = match self.compare(shared, &lesson, (&site, &vector)).await {
            Compared::Like(id) => Some(id),
            Compared::Other => None,
            // Beside an answer that may say the same it would only be in its way.
            Compared::Untold => return "untold",
        };
        if let Err(unkept) = self.cache.keep((&site, &vector), &entry, like, now) {
            return unkept.name();
        }
        self.put_in_region(shared, (site, vector), entry);
        "stored"
    }

    /// Compares the answer with what would have served, or would have but for evidence.
    async fn compare(
        &self,
        shared: &Arc<Shared>,
        lesson: &Lesson,
        (site, vector): (&Site, &Vector),
    ) -> Compared {
        let Some((candidate, of)) = self.candidate(site, vector) else { return Compared::Other };
        let Some(earlier) = self.cache.open(candidate.0, clock::since_epoch()) else {
            return Compared::Other;
        };
        let told = judge::compare(shared, self, lesson, earlier.entry.text()).await;
        let result = match told {
            Told::Equal | Told::Right => "right",
            Told::Wrong => "wrong",
            Told::Nothing => "untold",
        };
        let by = of.map_or("unserved", How::name);
        let tenant = lesson.admitted.head.caller.tenant.as_str();
        let model = lesson.admitted.model.fingerprint();
        shared.metrics.l3_judged.with_label_values(&[tenant, &model, by, result]).inc();
        if told == Told::Nothing {
            return Compared::Untold;
        }
        let right = told != Told::Wrong;
        let of = of.filter(|_| !lesson.forced);
        let judged = Judged { right, equal: told == Told::Equal, of };
        let now = clock::since_epoch();
        let change = self.cache.judged((site, (tenant, &model)), candidate, judged, now);
        if let Some(stage) = change {
            self.tell(shared, (tenant, &model), (by, stage));
        }
        self.show_route(shared, &self.cache.route(site));
        if right { Compared::Like(candidate.0) } else { Compared::Other }
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

    /// Shows what is held, and how all routes are.
    pub(crate) fn show(&self, shared: &Shared) {
        let held = self.cache.held();
        let number = |number| i64::try_from(number).unwrap_or(i64::MAX);
        shared.metrics.l3_bytes.set(number(held.bytes));
        shared.metrics.l3_entries.set(number(held.entries));
        self.cache.routes().iter().for_each(|route| self.show_route(shared, route));
    }

    fn show_route(&self, shared: &Shared, route: &Route) {
        if route.model.is_empty() {
            // Nothing of it was counted.
            return;
        }
        let serves = mode_of_route(shared, route) == L3Mode::Serve;
        for how in How::ALL {
            let trial = route.trial(how);
            let labels = [route.tenant.as_str(), route.model.as_str(), how.name()];
            shared.metrics.l3_bound.with_label_values(&labels).set(trial.bound());
            let serves = match trial.stage() {
                Stage::Off => -1,
                Stage::Proven => i64::from(serves),
                Stage::Proving => 0,
            };
            shared.metrics.l3_serves.with_label_values(&labels).set(serves);
        }
    }

    /// Begins the proof of a tenant's routes for a model anew; how many that were.
    pub(crate) fn prove_again(&self, shared: &Shared, tenant: &str, model: &str) -> usize {
        let routes = self.cache.prove_again(tenant, model);
        for route in &routes {
            for how in How::ALL {
                let labels = [route.tenant.as_str(), route.model.as_str(), how.name()];
                // Where there is nothing to show, there is nothing to remove.
                let _ = shared.metrics.l3_bound.remove_label_values(&labels);
                let _ = shared.metrics.l3_serves.remove_label_values(&labels);
            }
        }
        if !routes.is_empty() {
            tracing::info!(tenant, model, "the proof of a route of the semantic cache begins anew");
        }
        routes.len()
    }

    /// Tells the operator that a route's stage is another.
    fn tell(
        &self,
        shared: &Arc<Shared>,
        (tenant, model): (&str, &str),
        (by, stage): (&'static str, Stage),
    ) {
        match stage {
            Stage::Proven => {
                tracing::info!(
                    tenant,
                    model,
                    by,
                    "a route of the semantic cache has proved itself"
                );
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
        // A process that ends now must not begin again with what this one knows to be wrong.
        let shared = Arc::clone(shared);
        tokio::task::spawn_blocking(move || shared.l3.as_ref().map(Self::save));
    }
}

/// What a comparison came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Compared {
    /// An earlier answer says the same: its number.
    Like(u64),
    /// None does.
    Other,
    /// Nobody could tell.
    Untold,
}
