//! A semantic cache as the edge has it by default, but for room; and questions as they are put to it.

use std::{sync::Arc, time::Duration};

use nearhop_edge_cache::{
    Around, Asked, Asker, Entry, Namer, Question, Validity,
    semantic::{Cache, Demand, Models, Policy, Room, Secrets, Settings, Sharing, Site, Vector},
};
use nearhop_wire::{Answer, Choice, CompletionRequest, Endpoint, Finish, Head, ModelReport, Usage};
use serde_json::json;

/// Values of a vector: all-MiniLM-L6-v2's.
pub const DIMENSIONS: usize = 384;
/// What passes between two questions.
pub const SECOND: Duration = Duration::from_secs(1);

const ASKER: Asker<'static> = Asker { tenant: "t", key: "k", user: None };

/// A semantic cache, and a model whose answers it holds.
#[derive(Debug)]
pub struct Tier {
    /// The cache.
    pub cache: Cache,
    model: ModelReport,
}

/// A question, as a request asks it.
#[derive(Debug)]
pub struct Chat {
    request: CompletionRequest,
    question: Question,
}

/// A question, as the cache sees it.
#[derive(Debug)]
pub struct Posed {
    /// Where it is looked for.
    pub site: Site,
    chat: Chat,
}

impl Default for Tier {
    fn default() -> Self {
        let settings = Settings {
            policy: Policy { floor: 0.95, sure: 0.97, wrong: 0.02 },
            demand: Demand { wrong: 0.02, judged: 300 },
            sharing: Sharing::User,
            room: Room {
                bytes: 1 << 30,
                tenant_bytes: 1 << 30,
                tenant_entries: 1_000_000,
                owner_entries: 1_000_000,
                owner_writes: 1_000_000,
            },
            ttl: 86_400 * SECOND,
            judge: 0,
        };
        let model = ModelReport {
            name: "m".into(),
            revision: "1".into(),
            template: "t".into(),
            temperature: 0.0,
            max_tokens: 64,
            context_length: 4096,
            aliases: Vec::new(),
            suffix_first: false,
        };
        let validity = Arc::new(Validity::new(3600 * SECOND));
        Self { cache: Cache::new(settings, Secrets::of(b"replay"), validity), model }
    }
}

impl Tier {
    /// A question.
    ///
    /// # Panics
    /// It is not one that a request can ask.
    #[must_use]
    pub fn chat(&self, text: &str) -> Chat {
        let body = json!({ "model": "m", "messages": [{ "role": "user", "content": text }] });
        let request = CompletionRequest::parse(Endpoint::Chat, body.to_string().as_bytes());
        let request = request.expect("it is a request of a chat");
        let question = Question::of(&request, ASKER, &self.model, &Namer::default());
        Chat { request, question }
    }

    /// Where it is looked for; `None` for what is never looked up.
    #[must_use]
    pub fn pose(&self, chat: Chat) -> Option<Posed> {
        let models = Models { model: &self.model, embedder: "e@1" };
        let site = self.cache.site(&chat.request, ASKER, models, chat.question.tags).ok()?;
        Some(Posed { site, chat })
    }

    /// Keeps an answer; `like` is the one that says the same.
    ///
    /// # Panics
    /// It is not kept, though there is room.
    pub fn keep(
        &self,
        (Posed { site, chat }, vector): (&Posed, &Vector),
        text: &str,
        like: Option<u64>,
        now: Duration,
    ) {
        let head = Head {
            id: "c".into(),
            created: 1,
            model: "m".into(),
            fingerprint: "m@1".into(),
            endpoint: Endpoint::Chat,
        };
        let choices =
            vec![Choice { text: text.into(), finish: Finish::Stop, logprobs: Vec::new() }];
        let answer = Answer { head, choices, usage: Usage::default() };
        let asked = Asked::of(&chat.question, Around::of(&chat.request));
        let (_, asked) = asked.expect("what is looked up has a place");
        let entry = Entry::new(asked, &answer, (0, chat.question.tags), now);
        let entry = entry.expect("it is a whole answer");
        self.cache.keep((site, vector), &entry, like, now).expect("there is room");
    }
}
