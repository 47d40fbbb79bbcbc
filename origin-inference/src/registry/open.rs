//! Loads a folder and starts its engine.

use std::{path::Path, sync::Arc, time::Duration};

use nearhop_admin::clock;
use nearhop_conf::Origin;

use super::{Runner, Served};
use crate::{
    Model, ModelKind, OriginError,
    counters::Families,
    embed::{EmbedLimits, Embedder},
    queue::{Entrance, QueueLimits},
    scheduler::Limits,
    session::{self, Encoder, Options, Runtime, Session, StepError},
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
            provider: origin.require_provider,
            cache: origin.engine_cache.clone(),
        };
        let mut findings = model.findings().to_vec();
        let (runner, slots, longest_step, provider, declined) = match model.kind() {
            ModelKind::Generate => {
                let mut opened = session::open(&self.runtime, &model, &options)?;
                let longest = warm_up(opened.session.as_mut(), &model, &options)?;
                findings.extend(opened.findings);
                let engine = start(opened.session, &model, origin, &self.families)?;
                (Runner::Generate(engine), origin.slots, longest, opened.provider, opened.declined)
            }
            ModelKind::Embed => {
                let mut opened = session::open_encoder(&self.runtime, &model, &options)?;
                let text = warm_up_encoder(opened.encoder.as_mut(), &model)?;
                let texts = (origin.embed_batch / model.context_length()).max(1);
                let longest = text.saturating_mul(u32::try_from(texts).unwrap_or(u32::MAX));
                findings.extend(opened.findings);
                let limits = EmbedLimits {
                    queue_tokens: origin.queue_tokens,
                    batch_tokens: origin.embed_batch,
                };
                let report = model.report();
                let counters = self.families.of(&report.name, &report.revision);
                let embedder = Embedder::start(opened.encoder, limits, counters)?;
                (Runner::Embed(embedder), 0, longest, opened.provider, opened.declined)
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

/// Computes what requests will: a full chunk, at the start and at the context's end, and a full
/// batch. Memory is then taken before the first request, a provider that compiles by shape has done
/// so, and a context that is longer than the graph's tables is found out. Returns about how long
/// its longest step takes.
fn warm_up(
    session: &mut dyn Session,
    model: &Model,
    options: &Options,
) -> Result<Duration, OriginError> {
    let (slots, context) = (options.slots, model.context_length());
    let chunk = options.chunk.min(context - 1);
    let failed = |error: StepError| OriginError::System(std::io::Error::other(error));
    let prompt: Vec<u32> = (1..).take(chunk).map(|at| at % 7 + 1).collect();
    let mut logits = Vec::new();
    session.prefill(0, 0, &prompt, &mut logits).map_err(failed)?;
    for slot in 0..slots {
        session.prefill(slot, 0, &prompt[..2], &mut logits).map_err(failed)?;
    }
    session.decode(&vec![1; slots], &vec![2; slots], &mut logits).map_err(failed)?;
    let before = clock::now();
    if session.splits() {
        // What lies before it does not matter: nobody reads the answer.
        let at_the_end = session.prefill(0, context - chunk, &prompt, &mut logits);
        at_the_end.map_err(|error| too_long(model, &error))?;
        return Ok(clock::now() - before);
    }
    session.prefill(0, 0, &prompt, &mut logits).map_err(failed)?;
    // A prompt is one step then, and attention grows with the square of its length.
    let times = u32::try_from(context.div_ceil(chunk)).unwrap_or(u32::MAX);
    Ok((clock::now() - before).saturating_mul(times).saturating_mul(times))
}

/// The same for an embedder: a text as long as the context.
fn warm_up_encoder(encoder: &mut dyn Encoder, model: &Model) -> Result<Duration, OriginError> {
    let text: Vec<u32> = (1..).take(model.context_length()).map(|at| at % 7 + 1).collect();
    let before = clock::now();
    encoder.encode(&[&text]).map_err(|error| too_long(model, &error))?;
    Ok(clock::now() - before)
}

fn too_long(model: &Model, error: &StepError) -> OriginError {
    OriginError::ModelFile {
        path: model.weights().to_owned(),
        what: format!(
            "it does not reach the end of a context of {} tokens: {error}",
            model.context_length()
        ),
        fix: "Set a shorter context_length in nearhop.yaml",
    }
}
