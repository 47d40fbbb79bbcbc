//! The first steps of a network, before anybody waits for one.

use std::time::Duration;

use nearhop_admin::clock;

use super::{Encoder, Options, Session, StepError};
use crate::{Model, OriginError};

/// Computes what requests will: a full chunk, at the start and at the context's end, and a full
/// batch. Memory is then taken before the first request, a provider that compiles by shape has done
/// so, and a context that is longer than the graph's tables is found out. Returns about how long
/// its longest step takes.
pub(crate) fn decoder(
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

/// The same for an embedder: as many texts as long as the context as one step may have.
pub(crate) fn encoder(
    encoder: &mut dyn Encoder,
    model: &Model,
    options: &Options,
) -> Result<Duration, OriginError> {
    let context = model.context_length();
    let text: Vec<u32> = (1..).take(context).map(|at| at % 7 + 1).collect();
    encoder.encode(&[&text]).map_err(|error| too_long(model, &error))?;
    let texts = if encoder.together() { (options.batch / context).max(1) } else { 1 };
    let before = clock::now();
    let step = encoder.encode(&vec![text.as_slice(); texts]);
    step.map_err(|error| OriginError::System(std::io::Error::other(error)))?;
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
