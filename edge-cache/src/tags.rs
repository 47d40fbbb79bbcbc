//! What entries can be purged by, and what was purged. Pure.
//!
//! A purge is one record: every entry that was asked for before it, and has its tag, is gone, at
//! once and whatever its size. An entry remembers the generation of the log at which it was asked
//! for, so that an answer which was under way during a purge does not survive it.

use std::{collections::HashMap, time::Duration};

use nearhop_wire::{Declared, ModelReport};
use serde::{Deserialize, Serialize};

use crate::{asker::Asker, digest::Digest};

/// Makes names of tags: 64 bits, keyed where the shared cache is, so that nobody who reads it can
/// try names.
#[derive(Clone, Default)]
pub struct Namer {
    secret: Vec<u8>,
}

impl std::fmt::Debug for Namer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Namer(…)")
    }
}

impl Namer {
    /// A namer with a secret; edges that share a cache share it.
    #[must_use]
    pub fn new(secret: &[u8]) -> Self {
        Self { secret: secret.to_vec() }
    }

    /// The name of `parts`, never 0.
    pub(crate) fn name(&self, kind: &str, parts: &[&str]) -> u64 {
        let mut digest = Digest::new("nearhop tag");
        digest.bytes(&self.secret);
        digest.text(kind);
        digest.list(parts.iter().copied());
        digest.first_u64().max(1)
    }
}

/// The tags of one entry, by name; 0 is none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tags {
    /// Whose it is.
    pub tenant: u64,
    /// The weights that answered.
    pub model: u64,
    /// The declared repository.
    pub repo: u64,
    /// The declared session.
    pub session: u64,
    /// The declared digest of the current file.
    pub file: u64,
    /// The API key that asked.
    pub key: u64,
    /// Whose that is, where it says.
    pub user: u64,
}

impl Tags {
    pub(crate) fn of(
        asker: Asker<'_>,
        declared: &Declared,
        model: &ModelReport,
        namer: &Namer,
    ) -> Self {
        let tenant = asker.tenant;
        let own =
            |kind, value: Option<&str>| value.map_or(0, |value| namer.name(kind, &[tenant, value]));
        Self {
            tenant: namer.name("tenant", &[tenant]),
            model: namer.name("model", &[&model.fingerprint()]),
            repo: own("repo", declared.repo.as_deref()),
            session: own("session", declared.session.as_deref()),
            file: own("file", declared.file_hash.as_deref()),
            key: own("key", Some(asker.key)),
            user: own("user", asker.user),
        }
    }
}

/// What to purge.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Purge {
    /// Everything of everybody.
    All,
    /// Everything of a tenant.
    Tenant(u64),
    /// What these weights answered.
    Model(u64),
    /// What was asked for in a repository of a tenant.
    Repo(u64),
    /// What was asked for in a session of a tenant.
    Session(u64),
    /// What was asked for while a tenant's file was in that state.
    File(u64),
    /// What was asked for with an API key of a tenant.
    Key(u64),
    /// What was asked for by a user of a tenant.
    User(u64),
}

impl Purge {
    /// What a tenant, or everybody, is asked to purge by, in words: `repo`, `session`, `file_hash`,
    /// `key`, `user` or `model` with its value; all of it without.
    ///
    /// # Errors
    /// Where only a tenant could have such a tag.
    pub fn named(
        tenant: Option<&str>,
        tag: Option<(TagKind, &str)>,
        namer: &Namer,
    ) -> Result<Self, TenantMissing> {
        let of = |kind: &str, value: &str| {
            tenant.map(|tenant| namer.name(kind, &[tenant, value])).ok_or(TenantMissing)
        };
        Ok(match (tag, tenant) {
            (None, None) => Self::All,
            (None, Some(tenant)) => Self::Tenant(namer.name("tenant", &[tenant])),
            (Some((TagKind::Model, value)), _) => Self::Model(namer.name("model", &[value])),
            (Some((TagKind::Repo, value)), _) => Self::Repo(of("repo", value)?),
            (Some((TagKind::Session, value)), _) => Self::Session(of("session", value)?),
            (Some((TagKind::FileHash, value)), _) => Self::File(of("file", value)?),
            (Some((TagKind::Key, value)), _) => Self::Key(of("key", value)?),
            (Some((TagKind::User, value)), _) => Self::User(of("user", value)?),
        })
    }
}

/// What a purge can name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TagKind {
    /// `model@revision`.
    Model,
    /// The declared repository.
    Repo,
    /// The declared session.
    Session,
    /// The declared digest of a file.
    FileHash,
    /// The name of an API key.
    Key,
    /// Who uses a key.
    User,
}

/// The tag belongs to a tenant, and none was named.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("name the tenant whose tag this is")]
pub struct TenantMissing;

/// A moment in the log of purges: later ones are greater.
pub type Generation = u64;

/// The purges that matter still.
#[derive(Debug, Default)]
pub struct Purges {
    /// The latest of each, and when it was taken.
    records: HashMap<Purge, (Generation, Duration)>,
    /// Entries asked for before this are gone: records of them were given up for want of room.
    floor: Generation,
    latest: Generation,
}

/// More distinct purges than that within an entry's life, and older entries go altogether.
const RECORDS_MAX: usize = 65_536;

impl Purges {
    /// The generation of an entry that is asked for now.
    #[must_use]
    pub const fn latest(&self) -> Generation {
        self.latest
    }

    /// Takes a purge, which happened at `generation`.
    pub fn take(&mut self, purge: Purge, generation: Generation, now: Duration) {
        self.latest = self.latest.max(generation);
        if self.records.len() >= RECORDS_MAX && !self.records.contains_key(&purge) {
            self.floor = self.latest;
            self.records.clear();
        }
        let record = self.records.entry(purge).or_insert((generation, now));
        record.0 = record.0.max(generation);
        record.1 = now;
    }

    /// Takes a purge of this process's own, after everything that it knows of.
    pub fn take_own(&mut self, purge: Purge, now: Duration) -> Generation {
        let generation = self.latest + 1;
        self.take(purge, generation, now);
        generation
    }

    /// Learns that the log has come so far.
    pub fn reached(&mut self, generation: Generation) {
        self.latest = self.latest.max(generation);
    }

    /// Forgets purges older than any entry that could be left.
    pub fn forget(&mut self, older_than: Duration, now: Duration) {
        self.records.retain(|_, (_, at)| now.saturating_sub(*at) <= older_than);
    }

    /// Whether an entry with these tags, asked for at `asked`, was purged.
    #[must_use]
    pub fn cover(&self, tags: &Tags, asked: Generation) -> bool {
        if asked < self.floor {
            return true;
        }
        if self.records.is_empty() {
            return false;
        }
        let Tags { tenant, model, repo, session, file, key, user } = *tags;
        let possible = [
            Purge::All,
            Purge::Tenant(tenant),
            Purge::Model(model),
            Purge::Repo(repo),
            Purge::Session(session),
            Purge::File(file),
            Purge::Key(key),
            Purge::User(user),
        ];
        possible.iter().any(|purge| self.records.get(purge).is_some_and(|(at, _)| asked < *at))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_purge_covers_what_was_asked_for_before_it_and_has_its_tag() {
        let namer = Namer::default();
        let name = |kind, value| namer.name(kind, &["t", value]);
        let tags = Tags {
            tenant: namer.name("tenant", &["t"]),
            repo: name("repo", "r"),
            ..Tags::default()
        };
        let check = |tenant, tag, expected| {
            let mut purges = Purges::default();
            let purge = Purge::named(tenant, tag, &namer).unwrap();
            let generation = purges.take_own(purge, SECOND);
            assert_eq!(purges.cover(&tags, generation - 1), expected, "{tenant:?} {tag:?}");
            assert!(!purges.cover(&tags, generation), "asked for afterwards");
        };
        check(None, None, true);
        check(Some("t"), None, true);
        check(Some("u"), None, false);
        check(Some("t"), Some((TagKind::Repo, "r")), true);
        check(Some("t"), Some((TagKind::Repo, "s")), false);
        check(Some("u"), Some((TagKind::Repo, "r")), false);
        check(Some("t"), Some((TagKind::Session, "r")), false);
        check(None, Some((TagKind::Model, "m@1")), false);
        assert_eq!(Purge::named(None, Some((TagKind::Repo, "r")), &namer), Err(TenantMissing));
    }

    #[test]
    fn a_tag_that_an_entry_lacks_is_never_meant() {
        let mut purges = Purges::default();
        let repo = Purge::named(Some("t"), Some((TagKind::Repo, "r")), &Namer::default()).unwrap();
        purges.take_own(repo, SECOND);
        assert!(!purges.cover(&Tags::default(), 0));
    }

    #[test]
    fn too_many_purges_purge_everything_older_and_the_map_stays_bounded() {
        let mut purges = Purges::default();
        for name in 1..=RECORDS_MAX as u64 + 1 {
            purges.take_own(Purge::Session(name), SECOND);
        }
        assert!(purges.records.len() <= RECORDS_MAX);
        assert!(purges.cover(&Tags::default(), 1), "it may have been meant");
        assert!(!purges.cover(&Tags::default(), purges.latest()));
    }

    proptest! {
        #[test]
        fn the_order_of_arrival_does_not_matter(mut log in prop::collection::vec((1u64..4, 1u64..9), 1..12)) {
            let cover = |log: &[(u64, u64)]| {
                let mut purges = Purges::default();
                for (name, generation) in log {
                    purges.take(Purge::Session(*name), *generation, SECOND);
                }
                let tags = |session| Tags { session, ..Tags::default() };
                (0..9).flat_map(|asked| (1..4).map(move |name| (name, asked)))
                    .map(|(name, asked)| purges.cover(&tags(name), asked)).collect::<Vec<_>>()
            };
            let first = cover(&log);
            log.reverse();
            prop_assert_eq!(first, cover(&log));
        }
    }
}
