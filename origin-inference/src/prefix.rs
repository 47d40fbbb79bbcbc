//! The prefix cache (L4): keys and values of prompts that were computed before, in blocks. Pure.
//!
//! A block is 16 tokens behind a given prefix, named by a chained hash of everything before it; the
//! chain begins with the tenant and the model's revision, so that nobody finds another's prompt.
//! Only what prefill wrote is here: a decoded token's state differs in its last bits and could tip
//! a close decision. Blocks lie outside the slots and go back into any of them.
//!
//! The layout is that of vLLM's automatic prefix caching (Kwon et al. 2023, "Efficient Memory
//! Management for Large Language Model Serving with PagedAttention", section 4.3), with the least
//! recently used leaf dropped first: a block is of no use without those before it.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    sync::Arc,
};

use sha2::{Digest as _, Sha256};

/// Tokens of a block.
pub(crate) const BLOCK: usize = 16;

/// A block's name: 128 bits of SHA-256 over its own tokens and the name of the block before it.
type Name = [u8; 16];

/// Whose blocks, of which weights.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Salt {
    tenant: Arc<str>,
    root: Name,
}

impl Salt {
    pub(crate) fn new(tenant: &Arc<str>, revision: &str, template: &str) -> Self {
        let mut digest = Sha256::new();
        for part in [tenant.as_ref(), revision, template] {
            digest.update((part.len() as u64).to_le_bytes());
            digest.update(part.as_bytes());
        }
        Self { tenant: Arc::clone(tenant), root: name(digest) }
    }
}

fn name(digest: Sha256) -> Name {
    let mut name = Name::default();
    name.copy_from_slice(&digest.finalize()[..16]);
    name
}

/// The names of all whole blocks of `tokens`.
fn names(salt: &Salt, tokens: &[u32]) -> Vec<Name> {
    let mut before = salt.root;
    let blocks = tokens.chunks_exact(BLOCK).map(|block| {
        let mut digest = Sha256::new();
        digest.update(before);
        block.iter().for_each(|token| digest.update(token.to_le_bytes()));
        before = name(digest);
        before
    });
    blocks.collect()
}

struct Entry<B> {
    block: B,
    bytes: usize,
    tenant: Arc<str>,
    before: Option<Name>,
    /// Blocks that follow this one.
    followers: usize,
    /// When it was last of use, in uses of the cache.
    used: u64,
}

/// Blocks up to a number of bytes.
pub(crate) struct PrefixCache<B> {
    entries: HashMap<Name, Entry<B>>,
    /// Those that no block follows, the least recently used first.
    leaves: BTreeSet<(u64, Name)>,
    bytes: usize,
    limit: usize,
    uses: u64,
}

impl<B> PrefixCache<B> {
    /// A cache of at most `limit` bytes; 0 keeps nothing.
    pub(crate) fn new(limit: usize) -> Self {
        Self { entries: HashMap::new(), leaves: BTreeSet::new(), bytes: 0, limit, uses: 0 }
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// The blocks at the start of `tokens` that are here, in order.
    pub(crate) fn find(&mut self, salt: &Salt, tokens: &[u32]) -> Vec<&B> {
        if self.entries.is_empty() {
            return Vec::new();
        }
        self.uses += 1;
        let names = names(salt, tokens);
        let known = names.iter().take_while(|name| self.entries.contains_key(*name)).count();
        for name in &names[..known] {
            self.touch(name);
        }
        names[..known].iter().filter_map(|name| Some(&self.entries.get(name)?.block)).collect()
    }

    /// Puts in the blocks of `tokens` that are missing; `save` gives the one that begins at a
    /// token, and how many bytes it has.
    pub(crate) fn insert(
        &mut self,
        salt: &Salt,
        tokens: &[u32],
        mut save: impl FnMut(usize) -> (B, usize),
    ) {
        if self.limit == 0 {
            return;
        }
        self.uses += 1;
        let mut before = None;
        for (at, name) in names(salt, tokens).into_iter().enumerate() {
            if self.entries.contains_key(&name) {
                self.touch(&name);
            } else {
                let (block, bytes) = save(at * BLOCK);
                // The chain itself must not be dropped to make room for its own end.
                if !self.make_room(bytes) {
                    return;
                }
                self.add(name, before, (block, bytes), salt);
            }
            before = Some(name);
        }
    }

    fn add(&mut self, name: Name, before: Option<Name>, (block, bytes): (B, usize), salt: &Salt) {
        if let Some(before) = before
            && let Some(entry) = self.entries.get_mut(&before)
        {
            self.leaves.remove(&(entry.used, before));
            entry.followers += 1;
        }
        self.bytes += bytes;
        self.leaves.insert((self.uses, name));
        let tenant = Arc::clone(&salt.tenant);
        let entry = Entry { block, bytes, tenant, before, followers: 0, used: self.uses };
        self.entries.insert(name, entry);
    }

    fn touch(&mut self, name: &Name) {
        let Some(entry) = self.entries.get_mut(name) else { return };
        if entry.followers == 0 {
            self.leaves.remove(&(entry.used, *name));
            self.leaves.insert((self.uses, *name));
        }
        entry.used = self.uses;
    }

    /// Drops leaves until `bytes` fit; false where only what was just used is left.
    fn make_room(&mut self, bytes: usize) -> bool {
        while self.bytes + bytes > self.limit {
            let Some((used, name)) = self.leaves.first().copied() else { return false };
            if used == self.uses {
                return false;
            }
            self.remove(&name);
        }
        true
    }

    /// Removes a leaf.
    fn remove(&mut self, name: &Name) {
        let Some(entry) = self.entries.remove(name) else { return };
        self.leaves.remove(&(entry.used, *name));
        self.bytes -= entry.bytes;
        if let Some(before) = entry.before
            && let Some(previous) = self.entries.get_mut(&before)
        {
            previous.followers -= 1;
            if previous.followers == 0 {
                self.leaves.insert((previous.used, before));
            }
        }
    }

    /// Drops everything; returns how many blocks it was.
    pub(crate) fn clear(&mut self) -> usize {
        let dropped = self.entries.len();
        self.entries.clear();
        self.leaves.clear();
        self.bytes = 0;
        dropped
    }

    /// Drops what belongs to `tenant`.
    pub(crate) fn clear_tenant(&mut self, tenant: &str) -> usize {
        let gone = self.entries.iter().filter(|(_, entry)| entry.tenant.as_ref() == tenant);
        let gone: HashSet<Name> = gone.map(|(name, _)| *name).collect();
        self.remove_all(&gone)
    }

    /// Who has blocks here.
    pub(crate) fn tenants(&self) -> HashSet<Arc<str>> {
        self.entries.values().map(|entry| Arc::clone(&entry.tenant)).collect()
    }

    /// Drops the last whole block of `tokens` and everything that follows it; nothing where that is
    /// less than a block.
    pub(crate) fn clear_prefix(&mut self, salt: &Salt, tokens: &[u32]) -> usize {
        let Some(first) = names(salt, tokens).last().copied() else { return 0 };
        if !self.entries.contains_key(&first) {
            return 0;
        }
        let mut followers: HashMap<Name, Vec<Name>> = HashMap::new();
        for (name, entry) in &self.entries {
            if let Some(before) = entry.before {
                followers.entry(before).or_default().push(*name);
            }
        }
        let (mut gone, mut next) = (HashSet::new(), vec![first]);
        while let Some(name) = next.pop() {
            next.extend(followers.remove(&name).unwrap_or_default());
            gone.insert(name);
        }
        self.remove_all(&gone)
    }

    /// Removes a set that holds the followers of all it holds: its leaves first, and then what
    /// becomes one.
    fn remove_all(&mut self, gone: &HashSet<Name>) -> usize {
        let follows = |entry: Option<&Entry<B>>| entry.is_some_and(|entry| entry.followers > 0);
        let leaves = gone.iter().filter(|name| !follows(self.entries.get(*name)));
        let mut next: Vec<Name> = leaves.copied().collect();
        while let Some(name) = next.pop() {
            let before = self.entries.get(&name).and_then(|entry| entry.before);
            self.remove(&name);
            next.extend(
                before.filter(|before| gone.contains(before) && !follows(self.entries.get(before))),
            );
        }
        gone.len()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn salt(tenant: &str, revision: &str) -> Salt {
        Salt::new(&Arc::from(tenant), revision, "t")
    }

    fn put(cache: &mut PrefixCache<usize>, salt: &Salt, tokens: &[u32]) {
        cache.insert(salt, tokens, |at| (at, 10));
    }

    fn found(cache: &mut PrefixCache<usize>, salt: &Salt, tokens: &[u32]) -> Vec<usize> {
        cache.find(salt, tokens).into_iter().copied().collect()
    }

    fn text(from: u32, length: usize) -> Vec<u32> {
        (from..).take(length).collect()
    }

    #[test]
    fn a_shared_start_is_found_and_no_more() {
        let mut cache = PrefixCache::new(1000);
        let (ours, tokens) = (salt("a", "1"), text(0, 50));
        put(&mut cache, &ours, &tokens);
        assert_eq!(cache.entries.len(), 3, "the last two tokens are no block");
        assert_eq!(found(&mut cache, &ours, &tokens), [0, 16, 32]);
        assert_eq!(found(&mut cache, &ours, &tokens[..40]), [0, 16]);
        let other = [&tokens[..20], &text(900, 30)].concat();
        assert_eq!(found(&mut cache, &ours, &other), [0]);
        assert_eq!(found(&mut cache, &ours, &tokens[1..]), [] as [usize; 0]);
    }

    #[test]
    fn tenants_and_revisions_never_meet() {
        let mut cache = PrefixCache::new(1000);
        let tokens = text(0, 32);
        put(&mut cache, &salt("a", "1"), &tokens);
        assert!(found(&mut cache, &salt("b", "1"), &tokens).is_empty());
        assert!(found(&mut cache, &salt("a", "2"), &tokens).is_empty());
        assert!(found(&mut cache, &salt("a1", ""), &tokens).is_empty(), "lengths are told apart");
    }

    #[test]
    fn the_least_recently_used_end_goes_first() {
        let mut cache = PrefixCache::new(60);
        let ours = salt("a", "1");
        let (first, second, third) = (text(0, 48), text(100, 48), text(200, 16));
        put(&mut cache, &ours, &first);
        put(&mut cache, &ours, &second);
        assert_eq!(found(&mut cache, &ours, &first).len(), 3);
        put(&mut cache, &ours, &third);
        assert_eq!(found(&mut cache, &ours, &second).len(), 2, "its end is gone");
        assert_eq!(found(&mut cache, &ours, &first).len(), 3);
        assert_eq!(cache.bytes(), 60);
    }

    #[test]
    fn a_prompt_larger_than_the_cache_keeps_its_start() {
        let mut cache = PrefixCache::new(25);
        let ours = salt("a", "1");
        put(&mut cache, &ours, &text(0, 64));
        assert_eq!(found(&mut cache, &ours, &text(0, 64)), [0, 16]);
        let mut none = PrefixCache::new(0);
        put(&mut none, &ours, &text(0, 64));
        assert_eq!(none.entries.len(), 0);
    }

    #[test]
    fn what_is_purged_is_gone_with_what_follows_it() {
        let mut cache = PrefixCache::new(10_000);
        let (ours, theirs) = (salt("a", "1"), salt("b", "1"));
        let start = text(0, 32);
        let (left, right) =
            ([start.clone(), text(500, 32)].concat(), [start, text(700, 32)].concat());
        for whose in [&ours, &theirs] {
            put(&mut cache, whose, &left);
            put(&mut cache, whose, &right);
        }
        assert_eq!(cache.entries.len(), 12);
        assert_eq!(cache.clear_prefix(&ours, &left[..48]), 2);
        assert_eq!(found(&mut cache, &ours, &left).len(), 2);
        assert_eq!(found(&mut cache, &ours, &right).len(), 4);
        assert_eq!(cache.clear_prefix(&ours, &left[..16]), 4, "both ends");
        assert_eq!(cache.clear_prefix(&theirs, &left[..3]), 0, "less than a block has no name");
        assert_eq!(cache.clear_tenant("b"), 6);
        put(&mut cache, &theirs, &left);
        assert_eq!(cache.clear_tenant("b"), 4);
        assert_eq!((cache.entries.len(), cache.bytes(), cache.leaves.len()), (0, 0, 0));
        put(&mut cache, &ours, &left);
        assert_eq!((cache.clear(), cache.bytes()), (4, 0));
    }

    proptest! {
        #[test]
        fn the_books_balance(
            steps in prop::collection::vec((0u32..4, 1usize..90, 0u8..4), 1..60),
        ) {
            let mut cache = PrefixCache::new(120);
            for (from, length, step) in steps {
                let (ours, tokens) = (salt(if from % 2 == 0 { "a" } else { "b" }, "1"), text(from * 40, length));
                match step {
                    0 => { cache.clear_prefix(&ours, &tokens); }
                    1 => { cache.clear_tenant("a"); }
                    2 => { found(&mut cache, &ours, &tokens); }
                    _ => {
                        put(&mut cache, &ours, &tokens);
                        let kept = found(&mut cache, &ours, &tokens);
                        prop_assert!(kept.iter().enumerate().all(|(at, block)| *block == at * BLOCK));
                    }
                }
                prop_assert!(cache.bytes() <= 120);
                prop_assert_eq!(cache.bytes(), cache.entries.len() * 10);
                let leaves = cache.entries.values().filter(|entry| entry.followers == 0).count();
                prop_assert_eq!(cache.leaves.len(), leaves);
                let followers: usize = cache.entries.values().map(|entry| entry.followers).sum();
                let chained = cache.entries.values().filter(|entry| entry.before.is_some()).count();
                prop_assert_eq!(followers, chained, "no block is kept without the one before it");
            }
        }
    }
}
