//! A zone's key: read from its file's text, made anew, and told to the parent. Pure but for the
//! random numbers of a new key.
//!
//! One kind only, ECDSA P-256 (algorithm 13, RFC 6605): every validator knows it, and its signatures
//! are small. One key does all (a CSK): a zone that signs as it answers holds all its keys anyway.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use hickory_proto::{
    dnssec::{
        Algorithm, DigestType, PublicKey as _, SigningKey as _, TBS,
        crypto::EcdsaSigningKey,
        rdata::{DNSKEY, RRSIG, sig::SigInput},
    },
    rr::{DNSClass, Name, Record, SerialNumber},
};
use rustls_pki_types::{PrivatePkcs8KeyDer, pem::PemObject as _};

use crate::dns::{ZoneError, zone};

const ALGORITHM: Algorithm = Algorithm::ECDSAP256SHA256;
/// Since when a signature is valid, before it is made: clocks differ (RFC 6781, section 4.4.2).
pub(super) const BEFORE_S: u32 = 3600;
/// How long a signature is valid.
pub(super) const VALID_S: u32 = 14 * 86_400;
/// Characters of base64 in a line of PEM (RFC 7468).
const PEM_LINE: usize = 64;

/// Why a text is no key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// It has no such block, or a damaged one.
    #[error("is no PEM file with a PRIVATE KEY; make one with `nearhop dns keys generate`")]
    NotPem,
    /// There is a key, of another kind or damaged.
    #[error("holds no ECDSA P-256 key in PKCS#8; make one with `nearhop dns keys generate`")]
    NotP256,
    /// The system gave no random numbers, or the key could not be used.
    #[error("the key cannot be made or used")]
    Unusable,
}

/// A zone's key, both halves.
pub struct ZoneKey {
    private: EcdsaSigningKey,
    public: DNSKEY,
    tag: u16,
}

impl std::fmt::Debug for ZoneKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ZoneKey({})", self.tag)
    }
}

impl ZoneKey {
    /// A new key, as the text of its file.
    ///
    /// # Errors
    /// [`KeyError::Unusable`] where the system gives no random numbers.
    pub fn generate() -> Result<String, KeyError> {
        let der = EcdsaSigningKey::generate_pkcs8(ALGORITHM);
        let der = der.map_err(|_opaque| KeyError::Unusable)?;
        let mut text = STANDARD.encode(der.secret_pkcs8_der());
        let mut at = PEM_LINE;
        while at < text.len() {
            text.insert(at, '\n');
            at += PEM_LINE + 1;
        }
        Ok(format!("-----BEGIN PRIVATE KEY-----\n{text}\n-----END PRIVATE KEY-----\n"))
    }

    /// The key in a file's text: PKCS#8 in PEM.
    ///
    /// # Errors
    /// [`KeyError`].
    pub fn from_pem(text: &[u8]) -> Result<Self, KeyError> {
        let der = PrivatePkcs8KeyDer::from_pem_slice(text).map_err(|_which| KeyError::NotPem)?;
        let private = EcdsaSigningKey::from_pkcs8(&der, ALGORITHM);
        let private = private.map_err(|_opaque| KeyError::NotP256)?;
        let public = private.to_public_key().map_err(|_opaque| KeyError::Unusable)?;
        debug_assert_eq!(public.algorithm(), ALGORITHM);
        let public = DNSKEY::new(true, true, false, public);
        let tag = public.calculate_key_tag().map_err(|_opaque| KeyError::Unusable)?;
        Ok(Self { private, public, tag })
    }

    /// By what its signatures name it.
    #[must_use]
    pub fn tag(&self) -> u16 {
        self.tag
    }

    /// The DS record that the parent of `zone` publishes: its digest is SHA-256.
    ///
    /// # Errors
    /// [`ZoneError`] where `zone` is no domain name.
    pub fn ds(&self, zone: &str) -> Result<String, ZoneError> {
        let name = zone::parse("zone", zone)?.to_lowercase();
        let digest = self.public.to_digest(&name, DigestType::SHA256);
        let digest = digest.map_err(|error| ZoneError::new("zone", zone, &error))?;
        let hex: String = digest.as_ref().iter().map(|byte| format!("{byte:02X}")).collect();
        Ok(format!("{name} IN DS {} {} 2 {hex}", self.tag, u8::from(ALGORITHM)))
    }

    /// The DNSKEY record that `zone` publishes.
    ///
    /// # Errors
    /// [`ZoneError`] where `zone` is no domain name.
    pub fn dnskey(&self, zone: &str) -> Result<String, ZoneError> {
        let name = zone::parse("zone", zone)?.to_lowercase();
        let key = STANDARD.encode(self.public.public_key().public_bytes());
        Ok(format!("{name} IN DNSKEY {} 3 {} {key}", self.public.flags(), u8::from(ALGORITHM)))
    }

    pub(super) fn public(&self) -> &DNSKEY {
        &self.public
    }

    /// The signature of a set: records of one owner in lower case, of one type and TTL, each once.
    pub(super) fn sign(&self, set: &[Record], origin: &Name, now: u32) -> Result<RRSIG, KeyError> {
        let first = set.first().ok_or(KeyError::Unusable)?;
        let input = SigInput {
            type_covered: first.record_type(),
            algorithm: ALGORITHM,
            num_labels: first.name.num_labels(),
            original_ttl: first.ttl,
            // They wrap, and are compared as RFC 1982 says.
            sig_expiration: SerialNumber::new(now.wrapping_add(VALID_S)),
            sig_inception: SerialNumber::new(now.wrapping_sub(BEFORE_S)),
            key_tag: self.tag,
            signer_name: origin.clone(),
        };
        let signed = TBS::from_input(&first.name, DNSClass::IN, &input, set.iter());
        let signed = signed.map_err(|_opaque| KeyError::Unusable)?;
        let signature = self.private.sign(&signed).map_err(|_opaque| KeyError::Unusable)?;
        Ok(RRSIG::from_sig(input, signature))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_key_is_read_back_and_tells_the_parent() {
        let text = ZoneKey::generate().unwrap();
        assert!(text.lines().all(|line| line.len() <= PEM_LINE), "{text}");
        let key = ZoneKey::from_pem(text.as_bytes()).unwrap();
        let again = ZoneKey::from_pem(text.as_bytes()).unwrap();
        assert_eq!(key.tag(), again.tag());
        let ds = key.ds("Complete.example.COM").unwrap();
        let start = format!("complete.example.com. IN DS {} 13 2 ", key.tag());
        assert_eq!(ds.strip_prefix(&start).unwrap().len(), 64, "{ds}");
        let dnskey = key.dnskey("complete.example.com.").unwrap();
        assert!(dnskey.starts_with("complete.example.com. IN DNSKEY 257 3 13 "), "{dnskey}");
        assert!(key.ds("a..b").unwrap_err().to_string().starts_with("zone: `a..b`"));
        assert!(!format!("{key:?}").contains("private"), "a log must not have it");
    }

    #[test]
    fn what_is_no_key_is_said_to_be_none() {
        let text = ZoneKey::generate().unwrap();
        assert_eq!(ZoneKey::from_pem(b"").unwrap_err(), KeyError::NotPem);
        assert_eq!(ZoneKey::from_pem(&text.as_bytes()[..100]).unwrap_err(), KeyError::NotPem);
        let public = text.replace("PRIVATE", "PUBLIC");
        assert_eq!(ZoneKey::from_pem(public.as_bytes()).unwrap_err(), KeyError::NotPem);
        let short = text.lines().filter(|line| line.len() != PEM_LINE).collect::<Vec<_>>();
        assert_eq!(ZoneKey::from_pem(short.join("\n").as_bytes()).unwrap_err(), KeyError::NotP256);
    }
}
