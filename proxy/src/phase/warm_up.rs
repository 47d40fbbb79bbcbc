//! Prompts that pods read before they are asked about: llama.cpp's editors send them while the user
//! still types.

use std::{sync::Arc, time::Duration};

use nearhop_admin::clock;
use nearhop_admission::Served;
use tokio::sync::Semaphore;

use super::{
    admit::Admitted,
    leisure, limit,
    record::{self, Record},
};
use crate::{event::Event, reject::Reject};

/// Warm-ups in progress at once: they are a kindness to a later request, not a request.
const WARM_UPS_MAX: usize = 16;
/// How long one waits for a place; later it would come after the request that it is for.
const WARM_UP_WAIT: Duration = Duration::from_secs(1);

/// Places for them.
pub(crate) fn places() -> Arc<Semaphore> {
    Arc::new(Semaphore::new(WARM_UPS_MAX))
}

/// Has a pod read a prompt that will be asked about soon. Nobody waits for it: where too many run,
/// or every place is taken, it does not happen. What it uses is its caller's all the same.
pub(super) fn begin(record: &mut Record<'_>, admitted: Arc<Admitted>) {
    let Ok(place) = Arc::clone(&record.shared.warm_ups).try_acquire_owned() else { return };
    let (shared, live) = (Arc::clone(record.shared), Arc::clone(record.live));
    let (request_id, trace) = (record.request_id.clone(), record.trace.clone());
    let reservation = record.hand_on();
    tokio::spawn(async move {
        let mut used = None;
        let warmed = async {
            let soon = clock::now() + WARM_UP_WAIT;
            let asked = (request_id.as_str(), &trace);
            let begun = leisure::begin((&shared, &live), &admitted, asked, soon).await;
            let (_place, generation) = begun?;
            used = Some((limit::prompt_guess(&admitted), 1));
            // Its end, within the deadline that every piece has.
            let read = generation.read(|event| {
                if let Event::Usage(usage) = event {
                    used = Some(record::count(usage));
                }
            });
            read.await.map_err(|_outcome| Reject::AllFailed)?;
            Ok::<_, Reject>(())
        };
        let result = if warmed.await.is_ok() { "done" } else { "refused" };
        if let (Some(reservation), Some(tokens)) = (reservation, used) {
            let caller = &admitted.head.caller;
            limit::settle(&shared, caller, reservation, (Served::Generated, tokens));
        }
        shared.metrics.warm_ups.with_label_values(&[result]).inc();
        drop(place);
    });
}
