//! Vectors of texts, from the edge's own pod.
//!
//! Whatever it does, a request is not harmed: it waits so long and no longer, few wait at once, and
//! one that fails again and again is not asked for a while. What it says is believed only where it is
//! a vector of the right length.

use std::{sync::Arc, time::Duration};

use arc_swap::ArcSwapOption;
use bytes::Bytes;
use nearhop_admin::clock;
use nearhop_conf::L3;
use nearhop_edge_cache::semantic::{
    Site, Vector,
    regional::{Gate, Trouble},
};
use nearhop_routing::Class;
use nearhop_wire::{EmbedderReport, embedding_body, embedding_vectors};

use crate::{
    metrics::EdgeMetrics,
    upstream::{exchange::Exchanges, member::Upstream, pool::Upstreams},
};

/// Asks the edge's own pod for vectors.
pub(super) struct Embedder {
    alias: String,
    upstreams: Arc<Upstreams>,
    exchanges: Arc<Exchanges>,
    /// For requests, which wait.
    questions: Gate,
    /// For lessons, for which nobody waits.
    lessons: Gate,
    /// What it was when it was last seen: while it is started again, its vectors mean the same.
    known: ArcSwapOption<EmbedderReport>,
    metrics: EdgeMetrics,
}

/// Questions that wait at once.
const QUESTIONS_MAX: usize = 8;
/// Lessons at once, beside questions, and one explanation.
pub(super) const LESSONS_MAX: usize = 5;
/// How long a lesson waits.
const LESSON_WITHIN: Duration = Duration::from_secs(5);
/// Bytes of an answer that are embedded: more the model would not read.
const ANSWER_BYTES_MAX: usize = 1024;

impl Embedder {
    pub(super) fn new(
        settings: &L3,
        (upstreams, exchanges): (Arc<Upstreams>, Arc<Exchanges>),
        metrics: EdgeMetrics,
    ) -> Self {
        Self {
            alias: settings.embedder.clone(),
            upstreams,
            exchanges,
            questions: Gate::new(settings.patience, QUESTIONS_MAX),
            lessons: Gate::new(LESSON_WITHIN, LESSONS_MAX),
            known: ArcSwapOption::empty(),
            metrics,
        }
    }

    /// Its `name@revision`; `None` where none was ever ready.
    pub(super) fn fingerprint(&self) -> Option<String> {
        self.known().map(|known| known.fingerprint())
    }

    /// What it is, or was when it was last ready.
    pub(super) fn known(&self) -> Option<Arc<EmbedderReport>> {
        self.find();
        self.known.load_full()
    }

    /// The edge's own pod, where it is ready and has the embedder.
    fn find(&self) -> Option<(Arc<Upstream>, EmbedderReport)> {
        let pod = self.upstreams.of(Class::Local).into_iter().next()?;
        let report = pod.look(clock::now()).report?;
        let is_ours =
            |one: &&EmbedderReport| one.name == self.alias || one.aliases.contains(&self.alias);
        let found = report.embedders.iter().find(is_ours)?.clone();
        if self.known.load().as_ref().is_none_or(|known| **known != found) {
            self.known.store(Some(Arc::new(found.clone())));
        }
        Some((pod, found))
    }

    /// The vector of a question, which somebody waits for; or in a word for metrics why there is
    /// none.
    pub(super) async fn question(&self, site: &Site) -> Result<Vector, &'static str> {
        self.one(&self.questions, site).await
    }

    /// The same for a lesson.
    pub(super) async fn lesson(&self, site: &Site) -> Result<Vector, &'static str> {
        self.one(&self.lessons, site).await
    }

    async fn one(&self, gate: &Gate, site: &Site) -> Result<Vector, &'static str> {
        let mut vectors = self.ask(gate, &[&site.text], Some(&site.embedder)).await?;
        vectors.pop().ok_or("embedder-failed")
    }

    /// How alike two answers are, by their beginnings.
    pub(super) async fn alike(&self, earlier: &str, fresh: &str) -> Option<f32> {
        let front = |text: &'_ str| text.floor_char_boundary(ANSWER_BYTES_MAX);
        let texts = [&earlier[..front(earlier)], &fresh[..front(fresh)]];
        let vectors = self.ask(&self.lessons, &texts, None).await.ok()?;
        Some(vectors.first()?.similarity(vectors.get(1)?))
    }

    async fn ask(
        &self,
        gate: &Gate,
        texts: &[&str],
        of: Option<&str>,
    ) -> Result<Vec<Vector>, &'static str> {
        let began = clock::now();
        let asked = gate.pass(|| Box::pin(self.vectors(texts, of))).await;
        let result = match &asked {
            Ok(_) => "made",
            Err(Trouble::Late) => "embedder-late",
            Err(Trouble::Busy) => "embedder-busy",
            Err(Trouble::Open) => "embedder-open",
            Err(Trouble::Failed(_)) => "embedder-failed",
        };
        if let Err(Trouble::Failed(why)) = &asked {
            tracing::debug!(why, "no vector can be had");
        }
        self.metrics.embeddings.with_label_values(&[result]).inc();
        self.metrics.embedding_seconds.observe((clock::now() - began).as_secs_f64());
        asked.map_err(|_told| result)
    }

    /// Those of one embedder, where it matters of which.
    async fn vectors(&self, texts: &[&str], of: Option<&str>) -> Result<Vec<Vector>, Trouble> {
        let (pod, report) = self.find().ok_or_else(|| failed("the edge's own pod is not ready"))?;
        let fingerprint = report.fingerprint();
        if of.is_some_and(|of| of != fingerprint) {
            return Err(failed("the edge's own pod has another embedder now"));
        }
        // What is longer than it reads is cut: of a question every word has to agree besides.
        let body = Bytes::from(embedding_body(&fingerprint, texts, true));
        let said = self.exchanges.post(&pod, "/v1/embeddings", &body).await.map_err(failed)?;
        let values = embedding_vectors(&said, texts.len());
        let values = values.ok_or_else(|| failed("it answered no vectors"))?;
        let vectors = values.iter().map(|values| Vector::new(values, report.dimensions));
        vectors.collect::<Result<_, _>>().map_err(|error| failed(error.to_string()))
    }
}

fn failed(why: impl Into<String>) -> Trouble {
    Trouble::Failed(why.into())
}

#[cfg(test)]
mod tests;
