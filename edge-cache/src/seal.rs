//! What the shared tier holds is somebody's source code: each value is sealed with its tenant's own
//! key, and the key itself with the operator's secret.
//!
//! AES-256-GCM (NIST SP 800-38D) with random nonces: under one key two of four thousand million
//! values have the same one with a chance of two in a thousand million. A lost Redis tells which
//! tenants (by a keyed digest) have how many entries of which size, and nothing else. Without its
//! data key a tenant's entries are noise: dropping it deletes them.

use hmac::{Hmac, Mac as _};
use openssl::symm::{Cipher, decrypt_aead, encrypt_aead};
use sha2::Sha256;

const NONCE: usize = 12;
const TAG: usize = 16;

/// A key that no log shows.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Key([u8; 32]);

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Key(…)")
    }
}

impl Key {
    /// The operator's secret as a key.
    pub(crate) fn of_secret(secret: &[u8]) -> Self {
        Self(mac(secret, "nearhop shared tier: wrapping key", &[]))
    }

    /// A new one, at random.
    pub(crate) fn random() -> Option<Self> {
        let mut key = [0; 32];
        getrandom::fill(&mut key).ok().map(|()| Self(key))
    }

    /// A key for one purpose.
    pub(crate) fn derive(&self, purpose: &str) -> Self {
        Self(mac(&self.0, purpose, &[]))
    }

    /// A name that only who has the key could have made.
    pub(crate) fn name(&self, what: &[u8]) -> [u8; 32] {
        mac(&self.0, "name", what)
    }

    /// This key, sealed with another.
    pub(crate) fn wrap(&self, with: &Self, about: &[u8]) -> Option<Vec<u8>> {
        with.seal(&self.0, about)
    }

    /// The key that was wrapped.
    pub(crate) fn unwrap(wrapped: &[u8], with: &Self, about: &[u8]) -> Option<Self> {
        with.open(wrapped, about)?.try_into().ok().map(Self)
    }

    /// Seals `plain`, which belongs to `about` and nowhere else.
    pub(crate) fn seal(&self, plain: &[u8], about: &[u8]) -> Option<Vec<u8>> {
        let mut nonce = [0; NONCE];
        getrandom::fill(&mut nonce).ok()?;
        let mut tag = [0; TAG];
        let cipher = Cipher::aes_256_gcm();
        let sealed = encrypt_aead(cipher, &self.0, Some(&nonce), about, plain, &mut tag).ok()?;
        Some([&nonce[..], &tag[..], &sealed[..]].concat())
    }

    /// What was sealed; `None` where it was sealed with another key, for something else, or changed.
    pub(crate) fn open(&self, sealed: &[u8], about: &[u8]) -> Option<Vec<u8>> {
        let (nonce, rest) = sealed.split_at_checked(NONCE)?;
        let (tag, sealed) = rest.split_at_checked(TAG)?;
        decrypt_aead(Cipher::aes_256_gcm(), &self.0, Some(nonce), about, sealed, tag).ok()
    }
}

fn mac(key: &[u8], purpose: &str, what: &[u8]) -> [u8; 32] {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes keys of any length");
    mac.update(&(purpose.len() as u64).to_le_bytes());
    mac.update(purpose.as_bytes());
    mac.update(what);
    mac.finalize().into_bytes().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sealed_opens_with_its_key_at_its_place_and_unchanged() {
        let (key, other) = (Key::random().unwrap(), Key::random().unwrap());
        let sealed = key.seal(b"return total", b"here").unwrap();
        assert!(!sealed.windows(6).any(|six| six == b"return"));
        assert_eq!(key.open(&sealed, b"here").as_deref(), Some(&b"return total"[..]));
        assert_eq!(key.open(&sealed, b"there"), None);
        assert_eq!(other.open(&sealed, b"here"), None);
        for at in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[at] ^= 1;
            assert_eq!(key.open(&changed, b"here"), None, "{at}");
            assert_eq!(key.open(&sealed[..at], b"here"), None, "{at}");
        }
        assert_ne!(sealed, key.seal(b"return total", b"here").unwrap(), "never the same twice");
    }

    #[test]
    fn a_wrapped_key_is_of_no_use_without_the_secret() {
        let (secret, other) = (Key::of_secret(b"a"), Key::of_secret(b"b"));
        let key = Key::random().unwrap();
        let wrapped = key.wrap(&secret, b"tenant").unwrap();
        assert_eq!(Key::unwrap(&wrapped, &secret, b"tenant"), Some(key));
        assert_eq!(Key::unwrap(&wrapped, &other, b"tenant"), None);
        assert_eq!(Key::unwrap(&wrapped, &secret, b"another tenant"), None);
    }
}
