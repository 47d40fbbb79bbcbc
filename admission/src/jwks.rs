//! Issuers' public keys (JWKS, RFC 7517): when to fetch them, and how long to trust them.
//!
//! The fetching itself is the caller's: ask [`Jwks::due`], fetch, tell [`Jwks::fetched`]. Keys that
//! were fetched once stay usable while their URL cannot be reached, within the issuer's `stale`:
//! that an issuer is down must lock nobody out.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use nearhop_conf::{Algorithm, Issuer};
use openssl::{
    bn::BigNum,
    ec::{EcGroup, EcKey},
    ecdsa::EcdsaSig,
    error::ErrorStack,
    hash::MessageDigest,
    nid::Nid,
    pkey::{Id, PKey, Public},
    rsa::{Padding, Rsa},
    sign::{RsaPssSaltlen, Verifier},
};
use serde::Deserialize;

use crate::directory::Generation;

/// An issuer has a few keys; more are not read.
const KEYS_MAX: usize = 64;
/// Bytes of a key set that are read.
pub const KEY_SET_BYTES_MAX: usize = 256 << 10;
/// Between two attempts that failed, and between two that an unknown key asked for, seconds; less
/// where the issuer's keys are fetched more often anyway.
const AGAIN: u64 = 30;
/// NIST SP 800-131A.
const RSA_BITS_MIN: u32 = 2048;

/// One public key, of the kind of its algorithms.
#[derive(Debug)]
pub(crate) struct Key {
    id: Option<String>,
    kind: KeyKind,
    /// The one algorithm it is for, where the issuer says so.
    only: Option<String>,
    public: PKey<Public>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum KeyKind {
    Rsa,
    P256,
    Ed25519,
}

/// An issuer's keys.
#[derive(Debug, Default)]
pub struct KeySet(Vec<Key>);

#[derive(Deserialize)]
struct SetOnWire {
    keys: Vec<serde_json::Value>,
}

#[derive(Deserialize)]
struct KeyOnWire {
    kty: String,
    kid: Option<String>,
    alg: Option<String>,
    #[serde(rename = "use")]
    usage: Option<String>,
    crv: Option<String>,
    n: Option<String>,
    e: Option<String>,
    x: Option<String>,
    y: Option<String>,
}

impl KeySet {
    /// Reads a key set. Keys of kinds that are not used here are left out; one that is broken
    /// makes no other unusable.
    ///
    /// # Errors
    /// In words, where it is no key set or has no key that can be used.
    pub fn parse(body: &[u8]) -> Result<Self, String> {
        if body.len() > KEY_SET_BYTES_MAX {
            return Err(format!("the key set is over {KEY_SET_BYTES_MAX} bytes"));
        }
        let set: SetOnWire =
            serde_json::from_slice(body).map_err(|error| format!("it is no key set: {error}"))?;
        let keys = set.keys.into_iter().take(KEYS_MAX);
        let keys: Vec<Key> = keys
            .filter_map(|key| serde_json::from_value(key).ok())
            .filter_map(|key: KeyOnWire| read_key(&key).ok().flatten())
            .collect();
        match keys.is_empty() {
            true => Err("it has no key that can be used".to_owned()),
            false => Ok(Self(keys)),
        }
    }

    /// The keys that may have signed a token with this `kid` and algorithm.
    pub(crate) fn matching<'a>(
        &'a self,
        kid: Option<&'a str>,
        algorithm: Algorithm,
    ) -> impl Iterator<Item = &'a Key> {
        self.0.iter().filter(move |key| {
            let named = kid.is_none() || key.id.as_deref() == kid;
            let only = key.only.as_deref().is_none_or(|only| only == algorithm.name());
            named && only && key.kind == kind_of(algorithm)
        })
    }
}

fn kind_of(algorithm: Algorithm) -> KeyKind {
    match algorithm {
        Algorithm::Rs256 | Algorithm::Ps256 => KeyKind::Rsa,
        Algorithm::Es256 => KeyKind::P256,
        Algorithm::EdDsa => KeyKind::Ed25519,
    }
}

fn read_key(key: &KeyOnWire) -> Result<Option<Key>, ErrorStack> {
    if key.usage.as_deref().is_some_and(|usage| usage != "sig") {
        return Ok(None);
    }
    let number =
        |text: &Option<String>| text.as_ref().and_then(|text| URL_SAFE_NO_PAD.decode(text).ok());
    let (kind, public) = match (key.kty.as_str(), key.crv.as_deref()) {
        ("RSA", _) => {
            let (Some(n), Some(e)) = (number(&key.n), number(&key.e)) else { return Ok(None) };
            let rsa =
                Rsa::from_public_components(BigNum::from_slice(&n)?, BigNum::from_slice(&e)?)?;
            if rsa.size() * 8 < RSA_BITS_MIN {
                return Ok(None);
            }
            (KeyKind::Rsa, PKey::from_rsa(rsa)?)
        }
        ("EC", Some("P-256")) => {
            let (Some(x), Some(y)) = (number(&key.x), number(&key.y)) else { return Ok(None) };
            let group = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1)?;
            let (x, y) = (BigNum::from_slice(&x)?, BigNum::from_slice(&y)?);
            let point = EcKey::from_public_key_affine_coordinates(&group, &x, &y)?;
            (KeyKind::P256, PKey::from_ec_key(point)?)
        }
        ("OKP", Some("Ed25519")) => {
            let Some(x) = number(&key.x) else { return Ok(None) };
            (KeyKind::Ed25519, PKey::public_key_from_raw_bytes(&x, Id::ED25519)?)
        }
        _ => return Ok(None),
    };
    Ok(Some(Key { id: key.kid.clone(), kind, only: key.alg.clone(), public }))
}

impl Key {
    /// Whether `signature` is this key's over `signed`.
    pub(crate) fn verifies(&self, algorithm: Algorithm, signed: &[u8], signature: &[u8]) -> bool {
        self.check(algorithm, signed, signature).unwrap_or(false)
    }

    fn check(
        &self,
        algorithm: Algorithm,
        signed: &[u8],
        signature: &[u8],
    ) -> Result<bool, ErrorStack> {
        match algorithm {
            Algorithm::EdDsa => {
                Verifier::new_without_digest(&self.public)?.verify_oneshot(signature, signed)
            }
            Algorithm::Es256 => {
                // Two numbers of 32 bytes (RFC 7518, section 3.4); OpenSSL wants them in ASN.1.
                let Some((r, s)) = signature.split_at_checked(32).filter(|(_, s)| s.len() == 32)
                else {
                    return Ok(false);
                };
                let (r, s) = (BigNum::from_slice(r)?, BigNum::from_slice(s)?);
                let signature = EcdsaSig::from_private_components(r, s)?.to_der()?;
                let mut verifier = Verifier::new(MessageDigest::sha256(), &self.public)?;
                verifier.verify_oneshot(&signature, signed)
            }
            Algorithm::Rs256 => {
                let mut verifier = Verifier::new(MessageDigest::sha256(), &self.public)?;
                verifier.set_rsa_padding(Padding::PKCS1)?;
                verifier.verify_oneshot(signature, signed)
            }
            Algorithm::Ps256 => {
                let mut verifier = Verifier::new(MessageDigest::sha256(), &self.public)?;
                verifier.set_rsa_padding(Padding::PKCS1_PSS)?;
                verifier.set_rsa_mgf1_md(MessageDigest::sha256())?;
                verifier.set_rsa_pss_saltlen(RsaPssSaltlen::DIGEST_LENGTH)?;
                verifier.verify_oneshot(signature, signed)
            }
        }
    }
}

/// All issuers' keys. They outlive a change of the configuration.
#[derive(Debug, Default)]
pub struct Jwks {
    issuers: Mutex<HashMap<String, Held>>,
    generation: Generation,
}

#[derive(Debug, Default)]
struct Held {
    keys: Option<Arc<KeySet>>,
    /// Unix seconds of the last success, and of the last attempt.
    fetched: u64,
    tried: u64,
    stale: u64,
    wanted: bool,
}

impl Jwks {
    fn issuers<R>(&self, act: impl FnOnce(&mut HashMap<String, Held>) -> R) -> R {
        // What is in it is whole at every moment.
        act(&mut self.issuers.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Which of `issuers` to fetch now. Each is given out once: report with [`Jwks::fetched`].
    pub fn due<'a>(&self, issuers: &'a [Issuer], now: u64) -> Vec<&'a Issuer> {
        self.issuers(|held| {
            held.retain(|known, _| issuers.iter().any(|issuer| issuer.issuer == *known));
            let due = |issuer: &&'a Issuer| {
                let held = held.entry(issuer.issuer.clone()).or_default();
                held.stale = issuer.stale.as_secs();
                let refresh = issuer.refresh.as_secs();
                let again = now >= held.tried.saturating_add(AGAIN.min(refresh)) || held.tried == 0;
                let old = now >= held.fetched.saturating_add(refresh);
                let due = (held.keys.is_none() || old || held.wanted) && again;
                if due {
                    held.tried = now;
                    held.wanted = false;
                }
                due
            };
            issuers.iter().filter(due).collect()
        })
    }

    /// What came of fetching `issuer`'s keys.
    ///
    /// # Errors
    /// In words, where they could not be had or used; the old ones stay.
    pub fn fetched(
        &self,
        issuer: &str,
        result: Result<impl AsRef<[u8]>, String>,
        now: u64,
    ) -> Result<(), String> {
        let keys = KeySet::parse(result?.as_ref())?;
        self.issuers(|held| {
            let held = held.entry(issuer.to_owned()).or_default();
            held.keys = Some(Arc::new(keys));
            held.fetched = now;
        });
        self.generation.next();
        Ok(())
    }

    /// The keys of `issuer` that may be trusted at `now`.
    pub(crate) fn usable(&self, issuer: &str, now: u64) -> Option<Arc<KeySet>> {
        self.issuers(|held| {
            let held = held.get(issuer)?;
            let trusted = now < held.fetched.saturating_add(held.stale);
            held.keys.clone().filter(|_| trusted)
        })
    }

    /// A token names a key of `issuer` that is not there.
    pub(crate) fn unknown_key(&self, issuer: &str, _now: u64) {
        self.issuers(|held| {
            if let Some(held) = held.get_mut(issuer) {
                held.wanted = true;
            }
        });
    }

    /// Changes with every set of keys.
    pub(crate) fn generation(&self) -> u64 {
        self.generation.get()
    }
}
