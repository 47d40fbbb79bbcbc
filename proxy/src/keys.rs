//! API keys: who is asking. The tenant comes from here and from nowhere else.

use std::{collections::HashMap, sync::Arc};

use nearhop_conf::ApiKey;
use sha2::{Digest as _, Sha256};

/// Whose request it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Caller {
    /// The key's name, for logs.
    pub(crate) key: String,
    pub(crate) tenant: String,
}

/// Every key, by its hash. Looking a hash up tells an attacker nothing by its timing: to steer it,
/// one would have to find keys with chosen SHA-256 prefixes.
#[derive(Debug)]
pub(crate) struct Keys(HashMap<[u8; 32], Arc<Caller>>);

impl Keys {
    pub(crate) fn new(keys: &[ApiKey]) -> Self {
        let callers = keys.iter().map(|key| {
            let caller = Caller { key: key.name.clone(), tenant: key.tenant.clone() };
            (key.sha256, Arc::new(caller))
        });
        Self(callers.collect())
    }

    /// The caller behind an `Authorization` header (RFC 6750, section 2.1).
    pub(crate) fn find(&self, authorization: Option<&[u8]>) -> Option<&Arc<Caller>> {
        let (scheme, key) = authorization?.split_at_checked(7)?;
        if !scheme.eq_ignore_ascii_case(b"bearer ") {
            return None;
        }
        let hash: [u8; 32] = Sha256::digest(key.trim_ascii()).into();
        self.0.get(&hash)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_right_key_is_found() {
        let sha256 = Sha256::digest("nh-dev").into();
        let keys = Keys::new(&[ApiKey { name: "dev".into(), tenant: "t".into(), sha256 }]);
        let find = |header: &[u8]| keys.find(Some(header)).map(|caller| caller.tenant.as_str());
        assert_eq!(find(b"Bearer nh-dev"), Some("t"));
        assert_eq!(find(b"bearer  nh-dev "), Some("t"));
        for wrong in [&b"Bearer nh-de"[..], b"Bearer", b"", b"Basic nh-dev", b"nh-dev", b"Bearer "]
        {
            assert_eq!(find(wrong), None);
        }
        assert!(keys.find(None).is_none());
    }
}
