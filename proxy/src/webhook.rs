//! Events told to whoever the operator named: a POST of what happened, again with pauses while it is
//! not taken, and never in anybody's way.

use std::{sync::Arc, time::Duration};

use nearhop_admin::{Question, Trust, fetch};
use nearhop_conf::Events as Settings;
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::phase::Shared;

/// A whole POST.
const WITHIN: Duration = Duration::from_secs(5);
/// Events told at once; what comes meanwhile is told next.
const AT_ONCE: usize = 100;
const PAUSE_MIN: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(60);

/// Tells the webhook what happens, for ever; returns at once where there is none. What is not taken
/// for so long that the log of events has dropped it is lost, and counted.
pub(crate) async fn tell(shared: Arc<Shared>, settings: Settings) {
    let Some(url) = &settings.webhook else { return };
    let mut watch = shared.events.watch();
    let (mut told, mut pause) = (0, PAUSE_MIN);
    let count = |result| shared.metrics.webhooks.with_label_values(&[result]);
    loop {
        let mut events = shared.events.after(told);
        events.truncate(AT_ONCE);
        let (Some(first), Some(last)) = (events.first(), events.last()) else {
            if watch.changed().await.is_err() {
                return;
            }
            continue;
        };
        count("dropped").inc_by(first.number - told - 1);
        let last = last.number;
        let body = json!({
            "source": "nearhop",
            "region": shared.region.to_str().unwrap_or_default(),
            "events": events.iter().map(|event| event.to_json()).collect::<Vec<Value>>(),
        });
        let question = Question {
            url: url.reveal(),
            host: None,
            trust: settings.ca.as_deref().map_or(Trust::System, Trust::Authorities),
            body: Some(body.to_string().into()),
            bearer: settings.bearer.as_ref().map(|bearer| bearer.reveal()),
            limit: 64 << 10,
            within: WITHIN,
        };
        match fetch(question).await {
            Ok(_) => {
                count("taken").inc_by(events.len() as u64);
                (told, pause) = (last, PAUSE_MIN);
            }
            Err(error) => {
                count("refused").inc();
                tracing::warn!(%error, ?pause, "the webhook did not take events");
                sleep(pause).await;
                pause = (2 * pause).min(PAUSE_MAX);
            }
        }
    }
}
