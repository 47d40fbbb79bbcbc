//! Answers that nobody waits for: an audit's, a judge's, and the beginnings of prompts that will be
//! asked about.

use std::time::{Duration, Instant};

use nearhop_admission::Permit;
use nearhop_wire::Kind;

use super::{Shared, admit::Admitted, attempt::Attempts, generation::Generation, tries::Tries};
use crate::{live::Live, reject::Reject, trace::Trace};

/// Has a pod of this region begin an answer, behind all who wait for one. It takes a place at the
/// pods, by `soon` or not at all, which is to be held for as long as the answer is read.
pub(crate) async fn begin<'a>(
    (shared, live): (&'a Shared, &'a Live),
    admitted: &'a Admitted,
    asked: (&str, &Trace),
    soon: Instant,
) -> Result<(Permit, Generation<'a>), Reject> {
    let tenant = &admitted.head.caller.tenant;
    let place = shared.gate.enter(tenant, Kind::Agent as u8, soon, Duration::ZERO).await?;
    let attempts = Attempts::new(shared, live, admitted, asked, Tries::default());
    let generation = attempts.at_leisure().begin().await?;
    Ok((place, generation))
}
