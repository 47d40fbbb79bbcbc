//! The credentials that are known: an immutable snapshot, made anew when the configuration changes.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use hmac::{Hmac, Mac as _};
use nearhop_conf::{Access, Egress, Plan, Scope, Secret};
use quick_cache::sync::Cache;
use sha2::{Digest as _, Sha256};

use crate::{
    Caller, Jwks,
    token::{self, Claims},
};

/// Why a request has no caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Denied {
    /// There is no credential.
    Missing,
    /// It is no key of ours, and no token of an issuer of ours that holds.
    Wrong,
    /// It was one of ours, until it expired.
    Expired,
    /// It names a tenant that is not listed.
    UnknownTenant,
    /// An issuer's keys were never fetched: nobody can say whether the token holds, and that is
    /// our fault.
    KeysUnavailable,
}

/// Verified tokens that are remembered, so that a signature is checked once a minute and not once
/// a keystroke.
const REMEMBERED: usize = 10_000;
/// For how long, seconds: an issuer's key that was withdrawn works no longer than this.
const REMEMBER: u64 = 60;

/// Every credential of the configuration.
pub struct Directory {
    /// HMAC with the secret already in it.
    hash: Option<Hmac<Sha256>>,
    keys: HashMap<[u8; 32], (Arc<Caller>, Option<u64>)>,
    tenants: HashMap<String, (Arc<Plan>, Arc<Egress>)>,
    issuers: Vec<nearhop_conf::Issuer>,
    verified: Cache<[u8; 32], Verified>,
}

#[derive(Clone)]
struct Verified {
    caller: Arc<Caller>,
    until: u64,
    /// Which fetched keys it was verified with.
    generation: u64,
}

impl std::fmt::Debug for Directory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Directory").field("keys", &self.keys.len()).finish_non_exhaustive()
    }
}

/// HMAC-SHA-256 (RFC 2104) of an API key: what is stored of it.
#[must_use]
pub fn hash_key(secret: &Secret, key: &[u8]) -> [u8; 32] {
    hash_with(keyed(secret), key)
}

fn keyed(secret: &Secret) -> Hmac<Sha256> {
    Hmac::new_from_slice(secret.reveal().as_bytes()).expect("HMAC takes keys of every length")
}

fn hash_with(mut hash: Hmac<Sha256>, key: &[u8]) -> [u8; 32] {
    hash.update(key);
    hash.finalize().into_bytes().into()
}

impl Directory {
    /// The directory of a configuration.
    #[must_use]
    pub fn new(access: &Access) -> Self {
        let plans: HashMap<&str, Arc<Plan>> =
            access.plans.iter().map(|plan| (plan.name.as_str(), Arc::new(plan.clone()))).collect();
        let unlimited = Arc::new(Plan::default());
        let tenants = access.tenants.iter().map(|tenant| {
            let plan = tenant.plan.as_deref().and_then(|plan| plans.get(plan));
            let plan = plan.unwrap_or(&unlimited);
            (tenant.name.clone(), (Arc::clone(plan), Arc::new(tenant.egress.clone())))
        });
        let mut directory = Self {
            hash: access.key_secret.as_ref().map(keyed),
            keys: HashMap::new(),
            tenants: tenants.collect(),
            issuers: access.issuers.clone(),
            verified: Cache::new(REMEMBERED),
        };
        for key in &access.keys {
            // The configuration was read with the tenants that its keys name.
            let Some((plan, egress)) = directory.tenant(&key.tenant) else { continue };
            let caller = Caller {
                key: key.name.clone(),
                label: key.name.clone(),
                tenant: key.tenant.clone(),
                user: key.user.clone(),
                scopes: key.scopes.clone(),
                plan,
                egress,
            };
            directory.keys.insert(key.hmac_sha256, (Arc::new(caller), key.expires));
        }
        directory
    }

    /// What a tenant may; `None` where tenants are listed and it is not among them.
    fn tenant(&self, name: &str) -> Option<(Arc<Plan>, Arc<Egress>)> {
        match self.tenants.get(name) {
            Some(known) => Some(known.clone()),
            None if self.tenants.is_empty() => Some(Default::default()),
            None => None,
        }
    }

    /// The tenant whose request another edge passes on, which has judged its credential and charges
    /// it; `None` where tenants are listed and it is not among them.
    #[must_use]
    pub fn on_behalf_of(&self, tenant: &str) -> Option<Caller> {
        let (_, egress) = self.tenant(tenant)?;
        Some(Caller {
            key: "another-region".to_owned(),
            label: "another-region".to_owned(),
            tenant: tenant.to_owned(),
            user: None,
            scopes: Scope::ALL.to_vec(),
            plan: Arc::default(),
            egress,
        })
    }

    /// Whether anybody may ask for this tenant: where none is listed, whoever has a key of it.
    #[must_use]
    pub fn knows_tenant(&self, name: &str) -> bool {
        match self.tenants.is_empty() {
            false => self.tenants.contains_key(name),
            true => self.takes_tokens() || self.callers(name).next().is_some(),
        }
    }

    /// Whose an API key is, by its name, expired or not; `None` for none of this tenant's keys.
    #[must_use]
    pub fn holder(&self, tenant: &str, key: &str) -> Option<&Caller> {
        self.callers(tenant).find(|caller| caller.key == key)
    }

    /// Whether a key of this tenant names this user; a token may name any.
    #[must_use]
    pub fn knows_user(&self, tenant: &str, user: &str) -> bool {
        self.takes_tokens()
            || self.callers(tenant).any(|caller| caller.user.as_deref() == Some(user))
    }

    /// Whether there are callers that no key names: the subjects of tokens.
    #[must_use]
    pub const fn takes_tokens(&self) -> bool {
        !self.issuers.is_empty()
    }

    fn callers(&self, tenant: &str) -> impl Iterator<Item = &Caller> {
        let all = self.keys.values().map(|(caller, _)| caller.as_ref());
        all.filter(move |caller| caller.tenant == tenant)
    }

    /// Who sent `credential`: an API key or a token. `jwks` are the issuers' keys, `now` is Unix
    /// time in seconds.
    ///
    /// # Errors
    /// [`Denied`].
    pub fn identify(
        &self,
        credential: Option<&[u8]>,
        jwks: &Jwks,
        now: u64,
    ) -> Result<Arc<Caller>, Denied> {
        let credential = credential.map(<[u8]>::trim_ascii).filter(|given| !given.is_empty());
        let credential = credential.ok_or(Denied::Missing)?;
        if !self.issuers.is_empty() && token::looks_like_one(credential) {
            return self.identify_token(credential, jwks, now);
        }
        let hash = self.hash.clone().ok_or(Denied::Wrong)?;
        // The time of this look-up tells nothing: who steers it would have to find keys with
        // chosen hashes under a secret.
        let (caller, expires) = self.keys.get(&hash_with(hash, credential)).ok_or(Denied::Wrong)?;
        match expires {
            Some(expires) if *expires <= now => Err(Denied::Expired),
            _ => Ok(Arc::clone(caller)),
        }
    }

    /// Whose keys must be fetched.
    #[must_use]
    pub fn issuers(&self) -> &[nearhop_conf::Issuer] {
        &self.issuers
    }

    fn identify_token(
        &self,
        credential: &[u8],
        jwks: &Jwks,
        now: u64,
    ) -> Result<Arc<Caller>, Denied> {
        let hash: [u8; 32] = Sha256::digest(credential).into();
        let generation = jwks.generation();
        if let Some(known) = self.verified.get(&hash)
            && known.until > now
            && known.generation == generation
        {
            return Ok(known.caller);
        }
        let claims = token::verify(credential, &self.issuers, jwks, now)?;
        let until = claims.expires.min(now + REMEMBER);
        let caller = Arc::new(self.caller_of(claims)?);
        self.verified.insert(hash, Verified { caller: Arc::clone(&caller), until, generation });
        Ok(caller)
    }

    fn caller_of(&self, claims: Claims) -> Result<Caller, Denied> {
        let (plan, egress) = self.tenant(&claims.tenant).ok_or(Denied::UnknownTenant)?;
        Ok(Caller {
            key: claims.subject,
            label: claims.host,
            tenant: claims.tenant,
            user: claims.user,
            scopes: claims.scopes,
            plan,
            egress,
        })
    }
}

/// What of a request's headers is the credential: `Authorization: Bearer` (RFC 6750, section 2.1),
/// else `x-api-key` or `api-key`, as other services' clients send it.
#[must_use]
pub fn credential<'a>(
    authorization: Option<&'a [u8]>,
    api_key: Option<&'a [u8]>,
) -> Option<&'a [u8]> {
    let Some(authorization) = authorization else { return api_key };
    let (scheme, key) = authorization.split_at_checked(7)?;
    scheme.eq_ignore_ascii_case(b"bearer ").then_some(key)
}

/// Counts swaps, for caches that must not outlive what they were made with.
#[derive(Debug, Default)]
pub(crate) struct Generation(AtomicU64);

impl Generation {
    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Acquire)
    }

    pub(crate) fn next(&self) {
        self.0.fetch_add(1, Ordering::AcqRel);
    }
}

/// Whether a caller may ask for what needs `scope`.
impl Caller {
    /// Whether it may.
    #[must_use]
    pub fn may(&self, scope: Scope) -> bool {
        self.scopes.contains(&scope)
    }
}

#[cfg(test)]
mod tests {
    use nearhop_conf::{ApiKey, Tenant};

    use super::*;

    const SECRET: &str = "a-secret-of-the-test";
    const KEY: &[u8] = b"nh-key";

    fn access() -> Access {
        let secret = Secret::new(SECRET);
        let key = ApiKey {
            name: "alice".into(),
            tenant: "acme".into(),
            user: None,
            scopes: Scope::ALL.to_vec(),
            expires: Some(100),
            hmac_sha256: hash_key(&secret, KEY),
        };
        Access { key_secret: Some(secret), keys: vec![key], ..Access::default() }
    }

    fn identify(access: &Access, credential: Option<&[u8]>, now: u64) -> Result<String, Denied> {
        let caller = Directory::new(access).identify(credential, &Jwks::default(), now)?;
        Ok(caller.tenant.clone())
    }

    #[test]
    fn only_the_right_key_is_somebody_and_only_until_it_expires() {
        let access = access();
        assert_eq!(identify(&access, Some(b" nh-key "), 99), Ok("acme".to_owned()));
        assert_eq!(identify(&access, Some(KEY), 100), Err(Denied::Expired));
        for wrong in [&b"nh-ke"[..], b"nh-keyy", SECRET.as_bytes()] {
            assert_eq!(identify(&access, Some(wrong), 0), Err(Denied::Wrong));
        }
        assert_eq!(identify(&access, Some(b"  "), 0), Err(Denied::Missing));
        assert_eq!(identify(&access, None, 0), Err(Denied::Missing));
    }

    #[test]
    fn a_listed_tenant_has_its_plan() {
        let mut access = access();
        access.plans =
            vec![Plan { name: "p".into(), tokens_per_month: Some(7), ..Plan::default() }];
        access.tenants =
            vec![Tenant { name: "acme".into(), plan: Some("p".into()), egress: Egress::default() }];
        let caller = Directory::new(&access).identify(Some(KEY), &Jwks::default(), 0).unwrap();
        assert_eq!(caller.plan.tokens_per_month, Some(7));
        access.tenants[0].name = "other".into();
        assert_eq!(identify(&access, Some(KEY), 0), Err(Denied::Wrong));
    }

    #[test]
    fn names_are_known_from_keys_and_where_there_are_tokens_any_may_be() {
        let mut access = access();
        access.keys[0].user = Some("anna".into());
        let names = |access: &Access| {
            let directory = Directory::new(access);
            let tenants = ["acme", "emca"].map(|name| directory.knows_tenant(name));
            let users = ["anna", "ben"].map(|name| directory.knows_user("acme", name));
            (tenants, users)
        };
        assert_eq!(names(&access), ([true, false], [true, false]));
        let directory = Directory::new(&access);
        let user = |tenant, key| directory.holder(tenant, key).map(|holder| holder.user.as_deref());
        assert_eq!(user("acme", "alice"), Some(Some("anna")), "expired or not");
        assert_eq!((user("emca", "alice"), user("acme", "bob")), (None, None));
        access.issuers = vec![token::tests::issuer(&[])];
        assert_eq!(names(&access), ([true, true], [true, true]));
        let listed = Tenant { name: "acme".into(), plan: None, egress: Egress::default() };
        access.tenants = vec![listed];
        assert_eq!(names(&access), ([true, false], [true, true]));
    }

    #[test]
    fn the_credential_is_found_in_the_headers_that_clients_use() {
        assert_eq!(credential(Some(b"Bearer a"), Some(b"b")), Some(&b"a"[..]));
        assert_eq!(credential(Some(b"bEARER  a"), None), Some(&b" a"[..]));
        assert_eq!(credential(None, Some(b"b")), Some(&b"b"[..]));
        assert_eq!(credential(Some(b"Basic a"), Some(b"b")), None, "not what was said first");
        assert_eq!(credential(Some(b"Bearer"), None), None);
    }

    #[test]
    fn nothing_that_is_printed_has_a_secret_in_it() {
        let access = access();
        let directory = Directory::new(&access);
        let caller = directory.identify(Some(KEY), &Jwks::default(), 0).unwrap();
        let printed = format!("{access:?} {directory:?} {caller:?}");
        assert!(!printed.contains(SECRET) && !printed.contains("nh-key"), "{printed}");
    }
}
