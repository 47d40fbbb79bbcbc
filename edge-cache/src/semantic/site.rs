//! A question as far as the semantic tier goes: where it belongs, and which of its words matter.
//!
//! Whatever could change the answer, and whoever must not have it, is in the partition: two
//! partitions share nothing, whatever is near in them. What is remembered of a text are its vector
//! and keyed digests.

use nearhop_wire::{CompletionRequest, Input, ModelReport};

use super::{
    question::{self, Unsuited},
    routes::RouteId,
    veto::Wording,
};
use crate::{
    asker::Asker,
    digest::{Digest, Short},
    seal::Key,
    tags::Tags,
};

/// Who shares answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sharing {
    /// One API key.
    Key,
    /// The keys of one user; a key without one is alone.
    User,
    /// All of a tenant.
    Tenant,
}

/// What makes digests of questions, and seals answers.
#[derive(Debug, Clone)]
pub struct Secrets {
    partitions: Key,
    places: Key,
    words: Key,
    /// Sealed on disk.
    pub(super) snapshot: Key,
    answers: Key,
}

impl Secrets {
    /// Those that come from the operator's secret: edges that have the same understand each other.
    #[must_use]
    pub fn of(secret: &[u8]) -> Self {
        Self::from_root(&Key::of_secret(secret).derive("semantic"))
    }

    /// Those that nobody else has, and that end with the process; `None` where the system has no
    /// random bytes.
    #[must_use]
    pub fn random() -> Option<Self> {
        Key::random().map(|root| Self::from_root(&root))
    }

    fn from_root(root: &Key) -> Self {
        let key = |purpose| root.derive(purpose);
        Self {
            partitions: key("partitions"),
            places: key("places"),
            words: key("words"),
            snapshot: key("snapshot"),
            answers: key("answers"),
        }
    }

    /// What seals a tenant's answers.
    pub(super) fn of_tenant(&self, tenant: u64) -> Key {
        self.answers.derive(&format!("{tenant:016x}"))
    }

    fn word(&self, word: &str) -> u32 {
        let name = self.words.name(word.as_bytes());
        u32::from_le_bytes([name[0], name[1], name[2], name[3]])
    }
}

/// What shares nothing with any other.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize,
)]
pub struct Partition(pub Short);

/// A question.
#[derive(Debug, Clone, PartialEq)]
pub struct Site {
    /// Where it is looked up.
    pub partition: Partition,
    /// Where the very same question lies.
    pub(super) place: Short,
    /// The words that matter.
    pub wording: Wording,
    /// What an answer to it can be purged by.
    pub tags: Tags,
    /// Who asks: whom an answer belongs to.
    pub(super) owner: u64,
    /// Whether others than the owner may have it.
    pub(super) shared: bool,
    /// Whose vectors are compared: `name@revision`.
    pub embedder: String,
    /// By which rules it is judged: what was shown under others counts for nothing.
    rules: u64,
    /// What is embedded. Nothing of it is kept.
    pub text: String,
}

/// Why a question has no place here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoSite {
    /// It is no conversation that ends with a user's words, or asks for several answers.
    NotAQuestion,
    /// Its text is not one that means the same by itself.
    Unsuited(Unsuited),
}

impl NoSite {
    /// For metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::NotAQuestion => "not-a-question",
            Self::Unsuited(unsuited) => unsuited.name(),
        }
    }
}

/// What a question is asked of, and whose vectors are compared.
#[derive(Debug, Clone, Copy)]
pub struct Models<'a> {
    /// The model that would answer.
    pub model: &'a ModelReport,
    /// The embedder's `name@revision`.
    pub embedder: &'a str,
}

/// Changes whenever what is written below, or what a wording is made of, does.
const LAYOUT: &str = "nearhop semantic partition 1";

impl Site {
    /// Where `request` belongs, which has `tags`.
    ///
    /// # Errors
    /// Why it is not looked up at all.
    pub fn of(
        request: &CompletionRequest,
        (asker, sharing, rules): (Asker<'_>, Sharing, u64),
        models: Models<'_>,
        (secrets, tags): (&Secrets, Tags),
    ) -> Result<Self, NoSite> {
        let Input::Chat(messages) = &request.input else { return Err(NoSite::NotAQuestion) };
        let Some((last, before)) = messages.split_last() else { return Err(NoSite::NotAQuestion) };
        if last.role != "user" || request.sampling.n != 1 || request.offers_tools() {
            return Err(NoSite::NotAQuestion);
        }
        question::judge(&last.content).map_err(NoSite::Unsuited)?;
        let (circle, owner) = match (sharing, asker.user) {
            (Sharing::User, Some(_)) => (tags.user, tags.user),
            (Sharing::Tenant, Some(_)) => (0, tags.user),
            (Sharing::Tenant, None) => (0, tags.key),
            (Sharing::Key, _) | (Sharing::User, None) => (tags.key, tags.key),
        };
        let Models { model, embedder } = models;
        let (sampling, declared) = (&request.sampling, &request.declared);
        let mut partition = Digest::new(LAYOUT);
        partition.text(asker.tenant);
        // Under another secret of the names, what is kept could be purged by nothing.
        partition.number(tags.tenant);
        partition.number(circle);
        partition.text(embedder);
        partition.text(&model.name);
        partition.text(&model.revision);
        partition.text(&model.template);
        partition
            .number(u64::from((sampling.temperature.unwrap_or(model.temperature) + 0.0).to_bits()));
        partition.number(u64::from((sampling.top_p.unwrap_or(1.0) + 0.0).to_bits()));
        partition.number(sampling.max_tokens.unwrap_or(model.max_tokens) as u64);
        partition.optional(sampling.seed);
        partition.list(sampling.stop.iter().map(String::as_str));
        for declared in [&declared.repo, &declared.file, &declared.language] {
            partition.list(declared.as_deref().into_iter());
        }
        partition.number(declared.context_files.len() as u64);
        for file in &declared.context_files {
            partition.text(&file.path);
            partition.text(&file.hash);
        }
        partition.number(before.len() as u64);
        for message in before {
            partition.text(&message.role);
            partition.text(message.name.as_deref().unwrap_or_default());
            partition.text(&message.content);
        }
        partition.list(last.name.as_deref().into_iter());
        let partition = Partition(short(&secrets.partitions.name(&partition.finish())));
        let text = question::normalised(&last.content);
        let mut place = Digest::new("nearhop semantic place");
        place.bytes(&partition.0);
        place.text(&text);
        Ok(Self {
            partition,
            place: short(&secrets.places.name(&place.finish())),
            wording: Wording::of(&text, &|word| secrets.word(word)),
            tags,
            owner,
            shared: sharing == Sharing::Tenant,
            embedder: embedder.to_owned(),
            rules: rules_of(rules, embedder),
            text,
        })
    }

    /// Who asks: whom an answer to it belongs to.
    #[must_use]
    pub const fn owner(&self) -> u64 {
        self.owner
    }

    /// Whose answers it is about: a route's evidence is of one tenant, these weights and these rules.
    pub(super) const fn route(&self) -> RouteId {
        (self.tags.tenant, self.tags.model, self.rules)
    }

    /// The words that another question, which was asked before, has not; and how many of its words
    /// this one has not.
    #[must_use]
    pub fn differing(&self, secrets: &Secrets, other: &Wording) -> (Vec<&str>, usize) {
        let own = super::veto::differing_words(&self.text, &|word| secrets.word(word), other);
        (own, super::veto::entry_only(&self.wording, other))
    }
}

/// The rules of a process, with its embedder.
fn rules_of(rules: u64, embedder: &str) -> u64 {
    let mut digest = Digest::new(LAYOUT);
    digest.number(rules);
    digest.text(embedder);
    digest.first_u64()
}

fn short(long: &[u8; 32]) -> Short {
    let mut short = Short::default();
    short.copy_from_slice(&long[..16]);
    short
}

#[cfg(test)]
mod tests;
