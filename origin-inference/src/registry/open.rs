//! Loads a folder and starts its engine.

use std::{path::Path, sync::Arc};

use nearhop_admin::clock;
use nearhop_conf::Origin;

use super::{Runner, Served};
use crate::{
    Model, ModelKind, OriginError,
    counters::Families,
    embed::{EmbedLimits, Embedder},
    queue::{Entrance, QueueLimits},
    scheduler::Limits,
    session::{self, Options, Runtime, Session},
    worker::{Engine, Setup},
};

/// A way to load a folder. Blocks for as long as the weights take.
pub(crate) trait Opener: Send + Sync {
    /// # Errors
    /// [`OriginError`], naming the file and the fix.
    fn open(&self, folder: &Path, model: Arc<Model>) -> Result<Served, OriginError>;
}

/// Loads on ONNX Runtime, as the configuration says.
pub(crate) struct OrtOpener {
    pub(crate) runtime: Runtime,
    pub(crate) origin: Origin,
    pub(crate) families: Families,
}

impl Opener for OrtOpener {
    fn open(&self, folder: &Path, model: Arc<Model>) -> Result<Served, OriginError> {
        let origin = &self.origin;
        let options = Options {
            slots: origin.slots,
            threads: origin.threads,
            chunk: origin.prefill_chunk,
            batch: origin.embed_batch,
            provider: origin.require_provider,
            cache: origin.engine_cache.clone(),
        };
        let mut findings = model.findings().to_vec();
        let (runner, slots, longest_step, provider, declined) = match model.kind() {
            ModelKind::Generate => {
                let opened = session::open(&self.runtime, &model, &options)?;
                findings.extend(opened.findings);
                let engine = start(opened.session, &model, origin, &self.families)?;
                let longest = opened.longest_step;
                (Runner::Generate(engine), origin.slots, longest, opened.provider, opened.declined)
            }
            ModelKind::Embed => {
                let opened = session::open_encoder(&self.runtime, &model, &options)?;
                findings.extend(opened.findings);
                let limits = EmbedLimits {
                    queue_tokens: origin.queue_tokens,
                    batch_tokens: origin.embed_batch,
                };
                let report = model.report();
                let counters = self.families.of(&report.name, &report.revision);
                let embedder = Embedder::start(opened.encoder, limits, counters)?;
                (Runner::Embed(embedder), 0, opened.longest_step, opened.provider, opened.declined)
            }
        };
        tracing::info!(
            model = model.fingerprint(),
            kind = model.kind().name(),
            %provider,
            slots,
            "model loaded"
        );
        for finding in &findings {
            tracing::info!(model = model.fingerprint(), "{finding}");
        }
        Ok(Served {
            _shown: self.families.show(&model, provider),
            model,
            runner,
            slots,
            provider,
            declined,
            findings,
            folder: folder.to_owned(),
            loaded: clock::since_epoch().as_secs(),
            longest_step,
        })
    }
}

/// Starts the engine of a model that generates.
pub(crate) fn start(
    session: Box<dyn Session>,
    model: &Arc<Model>,
    origin: &Origin,
    families: &Families,
) -> Result<Engine, OriginError> {
    let report = model.report();
    let counters = families.of(&report.name, &report.revision);
    let limits = QueueLimits {
        jobs: origin.queue,
        tokens: origin.queue_tokens,
        chunk: origin.prefill_chunk,
    };
    let entrance = Entrance::new(limits, counters.waiting.clone());
    let setup = Setup {
        session,
        model: Arc::clone(model),
        limits: Limits { slots: origin.slots, chunk: origin.prefill_chunk, whole: false },
        prefix_cache: origin.prefix_cache.0,
        counters,
    };
    Ok(Engine::start(setup, entrance)?)
}
