//! Requests and answers for the tests of this crate.

use nearhop_wire::{Answer, Choice, CompletionRequest, Endpoint, Finish, Head, ModelReport, Usage};

use crate::Asker;

pub(crate) fn ask(prefix: &str, suffix: &str) -> CompletionRequest {
    let body = serde_json::json!({ "model": "m", "prompt": prefix, "suffix": suffix });
    CompletionRequest::parse(Endpoint::Completions, body.to_string().as_bytes()).unwrap()
}

pub(crate) fn tenant(tenant: &str) -> Asker<'_> {
    Asker { tenant, key: "k", user: None }
}

pub(crate) fn model(revision: &str) -> ModelReport {
    ModelReport {
        name: "m".into(),
        revision: revision.into(),
        template: "t".into(),
        temperature: 0.0,
        max_tokens: 64,
        context_length: 1024,
        aliases: Vec::new(),
        suffix_first: false,
    }
}

pub(crate) fn answer(text: &str) -> Answer {
    let head = Head {
        id: "cmpl-1".into(),
        created: 7,
        model: "m".into(),
        fingerprint: "m@1".into(),
        endpoint: Endpoint::Completions,
    };
    let choices = vec![Choice { text: text.into(), finish: Finish::Stop, logprobs: Vec::new() }];
    Answer {
        head,
        choices,
        usage: Usage { prompt_tokens: 5, completion_tokens: 3, ..Usage::default() },
    }
}
