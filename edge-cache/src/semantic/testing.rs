//! Caches and questions for the tests of this tier.

use std::{sync::Arc, time::Duration};

use nearhop_wire::{CompletionRequest, Endpoint, ModelReport};
use serde_json::{Value, json};

use super::{
    Cache, Demand, Models, NoSite, Policy, Room, Secrets, Settings, Sharing, Site, Vector,
};
use crate::{
    Asked, Asker, Entry, Namer, Purge, Question, TagKind, Validity,
    question::Around,
    testing::{answer, model},
};

pub(super) const SECOND: Duration = Duration::from_secs(1);
pub(super) const DIMENSIONS: usize = 64;
pub(super) const UNDO: &str = "How do I undo the last commit in git?";

pub(super) const ROOM: Room = Room {
    bytes: 1 << 20,
    tenant_bytes: 512 << 10,
    tenant_entries: 1000,
    owner_entries: 1000,
    owner_writes: 1000,
};

pub(super) fn settings(sharing: Sharing) -> Settings {
    Settings {
        policy: Policy { floor: 0.95, sure: 0.97, wrong: 0.02 },
        demand: Demand { wrong: 0.02, judged: 300 },
        sharing,
        room: ROOM,
        ttl: 3600 * SECOND,
        judge: 0,
    }
}

pub(super) fn cache(settings: Settings) -> Cache {
    Cache::new(settings, Secrets::of(b"secret"), Arc::new(Validity::new(60 * SECOND)))
}

/// Who asks.
#[derive(Clone, Copy)]
pub(super) struct Who(
    pub(super) &'static str,
    pub(super) &'static str,
    pub(super) Option<&'static str>,
);

pub(super) const ANNA: Who = Who("t", "k1", Some("anna"));
pub(super) const BEN: Who = Who("t", "k2", Some("ben"));
pub(super) const CARL: Who = Who("t", "k3", Some("carl"));

impl Who {
    pub(super) const fn asker(self) -> Asker<'static> {
        Asker { tenant: self.0, key: self.1, user: self.2 }
    }
}

/// A conversation of one question; `change` may alter its body.
pub(super) fn chat(question: &str, change: impl FnOnce(&mut Value)) -> CompletionRequest {
    let mut body = json!({ "model": "m", "messages": [{ "role": "user", "content": question }] });
    change(&mut body);
    CompletionRequest::parse(Endpoint::Chat, body.to_string().as_bytes()).unwrap()
}

/// All that is known of a request.
pub(super) struct Posed {
    pub(super) site: Site,
    asked: Asked,
    question: Question,
}

pub(super) fn pose_to(
    cache: &Cache,
    who: Who,
    request: &CompletionRequest,
    (model, embedder): (&ModelReport, &str),
) -> Result<Posed, NoSite> {
    let question = Question::of(request, who.asker(), model, &Namer::default());
    let (_, asked) = Asked::of(&question, Around::of(request)).unwrap();
    let site = cache.site(request, who.asker(), Models { model, embedder }, question.tags)?;
    Ok(Posed { site, asked, question })
}

pub(super) fn pose(cache: &Cache, who: Who, text: &str) -> Posed {
    pose_to(cache, who, &chat(text, |_| ()), (&model("1"), "e@1")).unwrap()
}

impl Posed {
    pub(super) fn entry(&self, text: &str, now: Duration) -> Entry {
        let generation = 0;
        let born = (generation, self.question.tags);
        Entry::new(self.asked.clone(), &answer(text), born, now).unwrap()
    }
}

/// A vector whose cosine to `turned(0.0)` is that of the angle.
pub(super) fn turned(degrees: f32) -> Vector {
    let mut values = vec![0.0; DIMENSIONS];
    (values[1], values[0]) = degrees.to_radians().sin_cos();
    Vector::new(&values, DIMENSIONS).unwrap()
}

/// Has `who` ask and get an answer, which is kept.
pub(super) fn put(cache: &Cache, who: Who, question: &str, degrees: f32, text: &str) -> Posed {
    let posed = pose(cache, who, question);
    let entry = posed.entry(text, SECOND);
    cache.keep((&posed.site, &turned(degrees)), &entry, None, SECOND).unwrap();
    posed
}

pub(super) fn purge(kind: TagKind, value: &str) -> Purge {
    Purge::named(Some("t"), Some((kind, value)), &Namer::default()).unwrap()
}
