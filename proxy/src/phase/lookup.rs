//! Was this asked before?

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use http::HeaderValue;
use nearhop_edge_cache::{
    Entry, Key, Parts, Skip, Verdict,
    admission::{self, Facts},
};
use nearhop_wire::{Answer, Input, ModelReport};

use super::{Shared, admit::Admitted};

/// What the cache says.
pub(crate) enum Lookup {
    Hit(Hit),
    Miss(Ticket),
}

/// A stored answer.
pub(crate) struct Hit {
    pub(crate) entry: Arc<Entry>,
    /// How long it may still be served.
    pub(crate) left: Duration,
}

impl Hit {
    /// RFC 9211, section 2.
    pub(crate) fn cache_status(&self) -> HeaderValue {
        let value = format!("nearhop; hit; ttl={}", self.left.as_secs());
        HeaderValue::try_from(value).expect("plain ASCII")
    }
}

/// What happens to the answer that will be generated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ticket {
    /// Where to store it; `None` keeps it out.
    key: Option<Key>,
    why: Why,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Why {
    /// Nothing was stored under its key.
    Miss,
    /// The client asked for a new one.
    Asked,
    /// It may not be reused.
    Bypass(Skip),
}

impl Ticket {
    /// RFC 9211, section 2.2.
    pub(crate) fn cache_status(self) -> HeaderValue {
        match self.why {
            Why::Miss => HeaderValue::from_static("nearhop; fwd=uri-miss"),
            Why::Asked => HeaderValue::from_static("nearhop; fwd=request"),
            Why::Bypass(skip) => {
                let value = format!("nearhop; fwd=bypass; detail={}", skip.name());
                HeaderValue::try_from(value).expect("plain ASCII")
            }
        }
    }

    /// Stores a complete answer of the weights that are in its key. Nothing else ever enters: a
    /// pod may have changed its weights since it was last asked what it serves.
    pub(crate) fn store(self, shared: &Shared, model: &ModelReport, answer: &Answer, now: Instant) {
        let Some(key) = self.key else { return };
        let stored = match answer.head.fingerprint == model.fingerprint() {
            true => shared.l1.put(key, answer.clone(), answer.body(), shared.age(now)),
            false => Err(Skip::OtherRevision),
        };
        let result = stored.map_or_else(Skip::name, |()| "stored");
        shared.metrics.lookups.with_label_values(&["l1", result]).inc();
        shared.metrics.l1_bytes.set(i64::try_from(shared.l1.bytes()).unwrap_or(i64::MAX));
        shared.metrics.l1_entries.set(i64::try_from(shared.l1.len()).unwrap_or(i64::MAX));
    }
}

/// Looks a request up.
pub(crate) fn find(shared: &Shared, admitted: &Admitted, now: Instant) -> Lookup {
    let request = &admitted.request;
    let temperature = request.sampling.temperature.unwrap_or(admitted.model.temperature);
    let verdict = admission::judge(Facts {
        no_store: admitted.head.no_store,
        no_cache: admitted.head.no_cache,
        code: admitted.kind.is_code(),
        temperature,
        all_fields_known: request.unknown.is_empty()
            && request.unsupported.is_empty()
            && request.sampling.is_plain(),
    });
    let count = |result| shared.metrics.lookups.with_label_values(&["l1", result]).inc();
    match verdict {
        Verdict::Bypass(skip) => {
            count("bypass");
            Lookup::Miss(Ticket { key: None, why: Why::Bypass(skip) })
        }
        Verdict::StoreOnly => {
            count("asked");
            Lookup::Miss(Ticket { key: Some(key(admitted, temperature)), why: Why::Asked })
        }
        Verdict::Reuse => {
            let key = key(admitted, temperature);
            match shared.l1.get(&key, shared.age(now)) {
                Some((entry, left)) => {
                    count("hit");
                    Lookup::Hit(Hit { entry, left })
                }
                None => {
                    count("miss");
                    Lookup::Miss(Ticket { key: Some(key), why: Why::Miss })
                }
            }
        }
    }
}

fn key(admitted: &Admitted, temperature: f32) -> Key {
    let (request, model) = (&admitted.request, &admitted.model);
    Key::of(&Parts {
        tenant: &admitted.head.caller.tenant,
        model: &model.name,
        revision: &model.revision,
        template: &model.template,
        endpoint: request.endpoint,
        text: &request.input.texts(),
        fill_in_the_middle: matches!(request.input, Input::Fim { .. }),
        temperature,
        top_p: request.sampling.top_p.unwrap_or(1.0),
        max_tokens: request.sampling.max_tokens,
        n: request.sampling.n,
        seed: request.sampling.seed,
        stop: &request.sampling.stop,
    })
}
