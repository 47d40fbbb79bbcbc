//! Was this asked before, or is it being answered just now?

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use http::HeaderValue;
use nearhop_admin::clock;
use nearhop_edge_cache::{
    Around, Asked, Entry, Found, Generation, Need, Place, Question, Rule, Skip, Standing, Tags,
    Verdict,
    admission::{self, Facts},
    semantic::{Answered, How},
};
use nearhop_wire::{Answer, CompletionRequest, ModelReport};

use super::{Shared, admit::Admitted, record::Source};
use crate::{
    flight::{Asking, Flight, Reader, Terms},
    flights::Boarded,
    semantic,
};

/// What there is for a request.
pub(crate) enum Lookup {
    /// A stored answer.
    Hit(Hit),
    /// An answer that is being generated.
    Join(Reader, Arc<Ticket>),
    /// Nothing: it has to be generated, for this reader first.
    Miss(Reader, Arc<Ticket>),
}

/// A stored answer.
pub(crate) struct Hit {
    by: By,
    standing: Standing,
    answer: Answer,
}

/// By what it was found.
#[derive(Debug, Clone, Copy)]
enum By {
    Rule(Rule),
    Semantic(How),
}

impl Hit {
    fn new(found: Found, admitted: &Admitted) -> Self {
        let model = &admitted.model;
        let head = (admitted.request.endpoint, model.name.as_str(), model.fingerprint());
        let answer = found.entry.answer(found.fit.typed, head);
        Self { by: By::Rule(found.fit.rule), standing: found.standing, answer }
    }

    fn semantic((answered, how): (Answered, How), admitted: &Admitted) -> Self {
        let model = &admitted.model;
        let head = (admitted.request.endpoint, model.name.as_str(), model.fingerprint());
        let answer = answered.entry.answer(0, head);
        Self { by: By::Semantic(how), standing: answered.standing, answer }
    }

    pub(crate) fn answer(&self) -> &Answer {
        &self.answer
    }

    /// The rule of L1 or L2 that found it.
    pub(crate) const fn rule(&self) -> Option<Rule> {
        match self.by {
            By::Rule(rule) => Some(rule),
            By::Semantic(_) => None,
        }
    }

    /// Where it comes from, while others could have answered.
    pub(crate) const fn source(&self) -> Source {
        match self.by {
            By::Rule(rule) => Source::of_l1(rule),
            By::Semantic(_) => Source::L3,
        }
    }

    /// RFC 9211, section 2.
    pub(crate) fn cache_status(&self) -> HeaderValue {
        let detail = match self.by {
            By::Rule(rule) => rule.name().to_owned(),
            By::Semantic(how) => l3_detail(how),
        };
        let value = match self.standing {
            Standing::Fresh(left) => {
                format!("nearhop; hit; ttl={}; detail={detail}", left.as_secs())
            }
            Standing::Stale(age) => {
                format!("nearhop; hit; detail={detail}; stale={}", age.as_secs())
            }
            Standing::Gone => "nearhop; hit".to_owned(),
        };
        HeaderValue::try_from(value).expect("plain ASCII")
    }
}

/// RFC 9211, section 2, of what the shared cache had.
pub(crate) fn l2_status(rule: Rule) -> HeaderValue {
    let value = format!("nearhop; hit; detail=\"l2 {}\"", rule.name());
    HeaderValue::try_from(value).expect("plain ASCII")
}

/// RFC 9211, section 2, of what the semantic tier had.
pub(crate) fn l3_status(how: How, ttl: Duration) -> HeaderValue {
    let value = format!("nearhop; hit; ttl={}; detail={}", ttl.as_secs(), l3_detail(how));
    HeaderValue::try_from(value).expect("plain ASCII")
}

fn l3_detail(how: How) -> String {
    format!("\"l3 {}\"", how.name())
}

/// What happens to the answer that will be generated.
#[derive(Debug)]
pub(crate) struct Ticket {
    /// Where to store it; `None` keeps it out.
    place: Option<Stored>,
    why: Why,
}

#[derive(Debug)]
struct Stored {
    question: Question,
    places: Vec<Place>,
    asked: Asked,
    generation: Generation,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Why {
    /// Nothing was stored for it.
    Miss,
    /// The client asked for a new one.
    Asked,
    /// It may not be reused.
    Bypass(Skip),
}

impl Ticket {
    /// RFC 9211, section 2.2; `joined` says by which rule another's generation is shared.
    pub(crate) fn cache_status(&self, joined: Option<Rule>) -> HeaderValue {
        match (self.why, joined) {
            (_, Some(rule)) => {
                let value = format!("nearhop; fwd=uri-miss; collapsed; detail={}", rule.name());
                HeaderValue::try_from(value).expect("plain ASCII")
            }
            (Why::Miss, None) => HeaderValue::from_static("nearhop; fwd=uri-miss"),
            (Why::Asked, None) => HeaderValue::from_static("nearhop; fwd=request"),
            (Why::Bypass(skip), None) => {
                let value = format!("nearhop; fwd=bypass; detail={}", skip.name());
                HeaderValue::try_from(value).expect("plain ASCII")
            }
        }
    }

    /// Where it is stored, and joined.
    pub(crate) fn places(&self) -> &[Place] {
        self.place.as_ref().map_or(&[], |stored| &stored.places)
    }

    /// What may be looked for in the shared cache, where anything may.
    pub(crate) fn sought(&self) -> Option<&Question> {
        let stored = self.place.as_ref().filter(|_| self.why == Why::Miss)?;
        Some(&stored.question)
    }

    /// Whether an earlier answer was looked for, and none was there.
    pub(crate) fn is_miss(&self) -> bool {
        self.why == Why::Miss
    }

    /// What the semantic tier has to know of a request that may be reused: what its answer can be
    /// purged by, and how far the log of purges had come.
    pub(crate) fn semantic(&self) -> Option<(Tags, Generation)> {
        self.place.as_ref().map(|stored| (stored.question.tags, stored.generation))
    }

    /// What is remembered of the request.
    pub(crate) fn asked(&self) -> Option<&Asked> {
        self.place.as_ref().map(|stored| &stored.asked)
    }

    /// Stores what the shared cache had.
    pub(crate) fn keep(&self, shared: &Shared, entry: &Arc<Entry>) {
        if shared.l1.put(self.places(), entry, clock::since_epoch()).is_ok() {
            shared.metrics.stores.with_label_values(&["l1", "promoted"]).inc();
        }
    }

    /// Stores a complete answer of the weights that were asked. Nothing else ever enters: a pod may
    /// have changed its weights since it was last asked what it serves.
    pub(crate) fn store(&self, shared: &Shared, model: &ModelReport, answer: &Answer) {
        let Some(place) = &self.place else { return };
        let result = place.store(shared, model, answer);
        let result = result.map_or_else(Skip::name, |()| "stored");
        shared.metrics.stores.with_label_values(&["l1", result]).inc();
        shared.metrics.l1_bytes.set(i64::try_from(shared.l1.bytes()).unwrap_or(i64::MAX));
        shared.metrics.l1_places.set(i64::try_from(shared.l1.places()).unwrap_or(i64::MAX));
    }
}

impl Stored {
    fn store(&self, shared: &Shared, model: &ModelReport, answer: &Answer) -> Result<(), Skip> {
        if answer.head.fingerprint != model.fingerprint() {
            return Err(Skip::OtherRevision);
        }
        let born = (self.generation, self.question.tags);
        let now = clock::since_epoch();
        let entry = Arc::new(Entry::new(self.asked.clone(), answer, born, now)?);
        shared.l1.put(&self.places, &entry, now)?;
        if let Some(l2) = &shared.l2
            && !l2.put(&self.places, &entry)
        {
            shared.metrics.stores.with_label_values(&["l2", "dropped"]).inc();
        }
        Ok(())
    }
}

/// Looks a request up: in the cache, and among those that are being answered.
pub(crate) fn find(shared: &Shared, admitted: &Admitted) -> Lookup {
    let verdict = judge(admitted);
    let count = |tier, result| shared.metrics.lookups.with_label_values(&[tier, result]).inc();
    let terms = terms(admitted, clock::now());
    let bypass = |skip: Skip| {
        count("l1", "bypass");
        shared.metrics.bypasses.with_label_values(&[skip.name()]).inc();
        let ticket = Ticket { place: None, why: Why::Bypass(skip) };
        Lookup::Miss(Flight::alone(terms), Arc::new(ticket))
    };
    if let Verdict::Bypass(skip) = verdict {
        return bypass(skip);
    }
    let question =
        Question::of(&admitted.request, admitted.asker(), &admitted.model, &shared.namer);
    let around = Around::of(&admitted.request);
    shared.validity.heard_of(&question.tags, clock::since_epoch());
    let generation = shared.validity.generation();
    let hit = || {
        let need = Need::Fresh(shared.rules.allowed());
        let found = shared.l1.find((&question, around), need, clock::since_epoch())?;
        count("l1", found.fit.rule.name());
        Some(Lookup::Hit(Hit::new(found, admitted)))
    };
    let mut landed = Some(shared.flights.landed());
    if verdict == Verdict::Reuse
        && let Some(hit) = hit()
    {
        return hit;
    }
    let (places, asked) = match Asked::of(&question, around) {
        Ok(at) => at,
        Err(skip) => return bypass(skip),
    };
    let place = |why| {
        let (places, asked, question) = (places.clone(), asked.clone(), question.clone());
        Arc::new(Ticket { place: Some(Stored { question, places, asked, generation }), why })
    };
    if verdict == Verdict::StoreOnly {
        count("l1", "asked");
        // Nobody joins it, and it joins nobody: it is meant to be new.
        return Lookup::Miss(Flight::alone(terms), place(Why::Asked));
    }
    let asking = Asking { asked: &asked, terms, allowed: shared.rules.allowed() };
    loop {
        match shared.flights.board(&asking, &places, landed) {
            Boarded::LookAgain => {
                // Once: what lands now and then again is somebody else's.
                landed = None;
                if let Some(hit) = hit() {
                    return hit;
                }
            }
            Boarded::Joined(reader) => {
                count("joined", reader.joined().map_or("exact", Rule::name));
                return Lookup::Join(reader, place(Why::Miss));
            }
            Boarded::New(reader) => {
                count("l1", "miss");
                return Lookup::Miss(reader, place(Why::Miss));
            }
        }
    }
}

/// Under which terms a request has an answer generated, or joins one.
pub(crate) fn terms(admitted: &Admitted, now: Instant) -> Terms {
    let left = admitted.deadline.saturating_duration_since(now);
    // What is given up in half of its time would leave it too little for an answer of its own.
    Terms { kind: admitted.kind, deadline: admitted.deadline, patience: now + left / 2 }
}

fn judge(admitted: &Admitted) -> Verdict {
    let request = &admitted.request;
    admission::judge(Facts {
        no_store: admitted.head.no_store,
        no_cache: admitted.head.no_cache,
        code: admitted.kind.is_code(),
        temperature: request.sampling.temperature.unwrap_or(admitted.model.temperature),
        all_fields_known: all_fields_known(request),
    })
}

/// What is said of a request that may be answered from the cache.
pub(crate) const REUSABLE: &str = "reusable";

/// Whether a request may be answered from the cache at all, or why not; what its sender's headers
/// say is not known here.
pub(crate) fn reusable(request: &CompletionRequest, model: &ModelReport) -> &'static str {
    let verdict = admission::judge(Facts {
        no_store: false,
        no_cache: false,
        code: request.kind().is_code(),
        temperature: request.sampling.temperature.unwrap_or(model.temperature),
        all_fields_known: all_fields_known(request),
    });
    match verdict {
        Verdict::Bypass(skip) => skip.name(),
        Verdict::StoreOnly | Verdict::Reuse => REUSABLE,
    }
}

fn all_fields_known(request: &CompletionRequest) -> bool {
    request.unknown.is_empty() && request.unsupported.is_empty() && request.sampling.is_plain()
}

/// What may be served where nothing else answers: for code whatever the user types into, up to an
/// age; for a conversation the same question of any age, or one that means the same.
pub(crate) async fn fallback(shared: &Shared, admitted: &Admitted) -> Option<Hit> {
    if !matches!(judge(admitted), Verdict::Reuse) {
        return None;
    }
    let question =
        Question::of(&admitted.request, admitted.asker(), &admitted.model, &shared.namer);
    let asking = (&question, Around::of(&admitted.request));
    let age = if admitted.kind.is_code() { STALE_CODE_MAX } else { Duration::MAX };
    let (need, now) = (Need::Anything(age), clock::since_epoch());
    let found = match (shared.l1.find(asking, need, now), &shared.l2) {
        (Some(found), _) => Some(found),
        (None, Some(l2)) => l2.find(asking, need, now).await.ok().flatten(),
        (None, None) => None,
    };
    match found {
        Some(found) => Some(Hit::new(found, admitted)),
        None => {
            let similar = semantic::similar(shared, admitted, question.tags).await?;
            Some(Hit::semantic(similar, admitted))
        }
    }
}

/// Code that is older than a day was asked for by somebody else, or of other files.
const STALE_CODE_MAX: Duration = Duration::from_secs(24 * 3600);
