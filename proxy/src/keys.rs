//! API keys: who is asking. The tenant comes from here and from nowhere else.

use std::{collections::HashMap, sync::Arc};

use nearhop_conf::Access;
use openssl::{hash::MessageDigest, pkey::PKey, sign::Signer};

/// Whose request it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Caller {
    /// The key's name, for logs.
    pub(crate) key: String,
    pub(crate) tenant: String,
}

#[derive(Debug)]
pub(crate) struct Keys {
    secret: Vec<u8>,
    keys: HashMap<[u8; 32], Arc<Caller>>,
}

pub fn hash(secret: &[u8], key: &[u8]) -> [u8; 32] {
    let secret = PKey::hmac(secret).unwrap();
    let mut signer = Signer::new(MessageDigest::sha256(), &secret).unwrap();
    signer.sign_oneshot_to_vec(key).unwrap().try_into().unwrap()
}

impl Keys {
    pub(crate) fn new(access: &Access) -> Self {
        let callers = access.keys.iter().map(|key| {
            let caller = Caller { key: key.name.clone(), tenant: key.tenant.clone() };
            (key.hmac_sha256, Arc::new(caller))
        });
        let secret =
            access.key_secret.as_ref().map(|s| s.reveal().as_bytes().to_vec()).unwrap_or_default();
        Self { secret, keys: callers.collect() }
    }

    /// The caller behind an `Authorization` header (RFC 6750, section 2.1).
    pub(crate) fn find(&self, authorization: Option<&[u8]>) -> Option<&Arc<Caller>> {
        let (scheme, key) = authorization?.split_at_checked(7)?;
        if !scheme.eq_ignore_ascii_case(b"bearer ") {
            return None;
        }
        self.keys.get(&hash(&self.secret, key.trim_ascii()))
    }
}
