//! Tokens: JSON Web Tokens (RFC 7519) signed by an issuer that the configuration names.
//!
//! The signature is OpenSSL's to check; around it stand RFC 8725's rules: the issuer decides the
//! algorithms and never the token, a key is only ever used for the algorithm of its kind, and
//! headers that point at other keys are refused. A library for this would bring a second
//! implementation of RSA and elliptic curves, or change how all JSON of this process is ordered.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use nearhop_conf::{Algorithm, Issuer, Scope};
use serde_json::{Map, Value};

use crate::{Denied, Jwks};

/// A token is a few hundred bytes; some carry groups.
const BYTES_MAX: usize = 8 << 10;
/// Clocks differ.
const LEEWAY: u64 = 60;
const NAME_MAX: usize = 128;

/// What a token says, after everything about it held.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Claims {
    /// `host#sub`: who it is, in logs and limits.
    pub(crate) subject: String,
    /// The issuer's.
    pub(crate) host: String,
    pub(crate) tenant: String,
    pub(crate) user: Option<String>,
    pub(crate) scopes: Vec<Scope>,
    /// Unix seconds.
    pub(crate) expires: u64,
}

/// Whether a credential is meant as a token: three parts, the first a JSON object.
pub(crate) fn looks_like_one(credential: &[u8]) -> bool {
    // `{"` in base64url begins with `eyJ`, or with `ey` and white space.
    credential.starts_with(b"ey") && credential.iter().filter(|byte| **byte == b'.').count() == 2
}

/// Verifies a token at `now`, Unix seconds.
pub(crate) fn verify(
    credential: &[u8],
    issuers: &[Issuer],
    jwks: &Jwks,
    now: u64,
) -> Result<Claims, Denied> {
    if credential.len() > BYTES_MAX {
        return Err(Denied::Wrong);
    }
    let text = std::str::from_utf8(credential).map_err(|_malformed| Denied::Wrong)?;
    let (signed, signature) = text.rsplit_once('.').ok_or(Denied::Wrong)?;
    let (header, payload) = signed.split_once('.').ok_or(Denied::Wrong)?;
    let (header, payload) = (object(header)?, object(payload)?);
    // Who it says it is from chooses whose rules it must keep; nothing else of it is believed yet.
    let issuer = text_of(&payload, "iss").ok_or(Denied::Wrong)?;
    let at = issuers.iter().position(|known| known.issuer == issuer).ok_or(Denied::Wrong)?;
    let issuer = &issuers[at];
    let algorithm = text_of(&header, "alg").ok_or(Denied::Wrong)?;
    let algorithm = issuer.algorithms.iter().find(|known| known.name() == algorithm);
    let algorithm = *algorithm.ok_or(Denied::Wrong)?;
    if ["jwk", "jku", "x5c", "x5u", "crit"].iter().any(|name| header.contains_key(*name)) {
        return Err(Denied::Wrong);
    }
    let signature = URL_SAFE_NO_PAD.decode(signature).map_err(|_malformed| Denied::Wrong)?;
    check_signature(
        &issuer.issuer,
        (algorithm, text_of(&header, "kid")),
        (signed.as_bytes(), &signature),
        (jwks, now),
    )?;
    judge(issuer, &payload, now)
}

fn check_signature(
    issuer: &str,
    (algorithm, kid): (Algorithm, Option<&str>),
    (signed, signature): (&[u8], &[u8]),
    (jwks, now): (&Jwks, u64),
) -> Result<(), Denied> {
    let keys = jwks.usable(issuer, now).ok_or(Denied::KeysUnavailable)?;
    let mut any = false;
    for key in keys.matching(kid, algorithm) {
        any = true;
        if key.verifies(algorithm, signed, signature) {
            return Ok(());
        }
    }
    if !any {
        // Perhaps it has been rotated: ask sooner.
        jwks.unknown_key(issuer, now);
    }
    Err(Denied::Wrong)
}

fn object(part: &str) -> Result<Map<String, Value>, Denied> {
    let bytes = URL_SAFE_NO_PAD.decode(part).map_err(|_malformed| Denied::Wrong)?;
    serde_json::from_slice(&bytes).map_err(|_malformed| Denied::Wrong)
}

fn text_of<'a>(object: &'a Map<String, Value>, name: &str) -> Option<&'a str> {
    object.get(name)?.as_str()
}

/// Times are whole or broken seconds (RFC 7519, section 2).
fn seconds(payload: &Map<String, Value>, name: &str) -> Result<Option<u64>, Denied> {
    match payload.get(name) {
        None => Ok(None),
        Some(value) => {
            let whole = value.as_u64().or_else(|| {
                let broken = value.as_f64().filter(|time| (0.0..1e15).contains(time))?;
                #[expect(
                    clippy::cast_possible_truncation,
                    clippy::cast_sign_loss,
                    reason = "in range"
                )]
                Some(broken as u64)
            });
            whole.map(Some).ok_or(Denied::Wrong)
        }
    }
}

fn judge(issuer: &Issuer, payload: &Map<String, Value>, now: u64) -> Result<Claims, Denied> {
    let meant_for_us = match payload.get("aud") {
        Some(Value::String(audience)) => *audience == issuer.audience,
        Some(Value::Array(all)) => all.iter().any(|audience| *audience == *issuer.audience),
        _ => false,
    };
    let expires = seconds(payload, "exp")?.ok_or(Denied::Wrong)?;
    let early = |time: Option<u64>| time.is_some_and(|time| time > now + LEEWAY);
    if !meant_for_us || early(seconds(payload, "nbf")?) || early(seconds(payload, "iat")?) {
        return Err(Denied::Wrong);
    }
    if expires.saturating_add(LEEWAY) <= now {
        return Err(Denied::Expired);
    }
    let tenant = text_of(payload, &issuer.tenant_claim).filter(|name| plain(name));
    let subject = text_of(payload, "sub").unwrap_or_default();
    let host = issuer.issuer.split("//").last().unwrap_or_default();
    let subject: String = format!("{host}#{subject}").chars().take(NAME_MAX).collect();
    let user = text_of(payload, &issuer.user_claim);
    Ok(Claims {
        subject,
        host: host.to_owned(),
        tenant: tenant.ok_or(Denied::UnknownTenant)?.to_owned(),
        user: user.map(|user| user.chars().take(NAME_MAX).collect()),
        scopes: scopes(payload),
        expires: expires.saturating_add(LEEWAY),
    })
}

/// A tenant's name stands in headers and labels.
fn plain(name: &str) -> bool {
    let fine = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    (1..=NAME_MAX).contains(&name.len()) && name.chars().all(fine)
}

/// Ours among its scopes (RFC 8693, section 4.2: one text; others write a list); all where it
/// names none of ours.
fn scopes(payload: &Map<String, Value>) -> Vec<Scope> {
    let named: Vec<&str> = match payload.get("scope").or_else(|| payload.get("scp")) {
        Some(Value::String(text)) => text.split(' ').collect(),
        Some(Value::Array(all)) => all.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    };
    let named = named.iter().filter_map(|name| name.strip_prefix("nearhop:")).collect::<Vec<_>>();
    match named.is_empty() {
        true => Scope::ALL.to_vec(),
        false => Scope::ALL.into_iter().filter(|scope| named.contains(&scope.name())).collect(),
    }
}

#[cfg(test)]
pub(crate) mod tests;
