use std::time::Duration;

use openssl::{
    ec::{EcGroup, EcKey},
    ecdsa::EcdsaSig,
    hash::MessageDigest,
    nid::Nid,
    pkey::{PKey, Private},
    rsa::{Padding, Rsa},
    sign::{RsaPssSaltlen, Signer},
};
use serde_json::json;

use super::*;

const NOW: u64 = 1_000_000;
const ISSUER: &str = "https://login.test";

pub(crate) fn issuer(algorithms: &[Algorithm]) -> Issuer {
    Issuer {
        issuer: ISSUER.into(),
        audience: "nearhop".into(),
        jwks_url: "https://login.test/keys".into(),
        algorithms: algorithms.to_vec(),
        tenant_claim: "tenant".into(),
        user_claim: "sub".into(),
        refresh: Duration::from_secs(900),
        stale: Duration::from_secs(86_400),
        ca: None,
    }
}

const ALL: [Algorithm; 4] =
    [Algorithm::Rs256, Algorithm::Ps256, Algorithm::Es256, Algorithm::EdDsa];

struct Signing {
    key: PKey<Private>,
    algorithm: Algorithm,
    jwk: Value,
}

fn encode(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

fn signing(algorithm: Algorithm) -> Signing {
    let (key, mut jwk) = match algorithm {
        Algorithm::Rs256 | Algorithm::Ps256 => {
            let rsa = Rsa::generate(2048).unwrap();
            let jwk =
                json!({"kty": "RSA", "n": encode(rsa.n().to_vec()), "e": encode(rsa.e().to_vec())});
            (PKey::from_rsa(rsa).unwrap(), jwk)
        }
        Algorithm::Es256 => {
            let group = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1).unwrap();
            let key = EcKey::generate(&group).unwrap();
            let mut context = openssl::bn::BigNumContext::new().unwrap();
            let (mut x, mut y) =
                (openssl::bn::BigNum::new().unwrap(), openssl::bn::BigNum::new().unwrap());
            key.public_key().affine_coordinates(&group, &mut x, &mut y, &mut context).unwrap();
            let part = |n: &openssl::bn::BigNum| encode(n.to_vec_padded(32).unwrap());
            let jwk = json!({"kty": "EC", "crv": "P-256", "x": part(&x), "y": part(&y)});
            (PKey::from_ec_key(key).unwrap(), jwk)
        }
        Algorithm::EdDsa => {
            let key = PKey::generate_ed25519().unwrap();
            let x = encode(key.raw_public_key().unwrap());
            (key, json!({"kty": "OKP", "crv": "Ed25519", "x": x}))
        }
    };
    jwk["kid"] = json!(algorithm.name());
    Signing { key, algorithm, jwk }
}

impl Signing {
    fn sign(&self, header: &Value, payload: &Value) -> String {
        let signed = format!("{}.{}", encode(header.to_string()), encode(payload.to_string()));
        let bytes = signed.as_bytes();
        let signature = match self.algorithm {
            Algorithm::EdDsa => {
                Signer::new_without_digest(&self.key).unwrap().sign_oneshot_to_vec(bytes).unwrap()
            }
            algorithm => {
                let mut signer = Signer::new(MessageDigest::sha256(), &self.key).unwrap();
                if algorithm == Algorithm::Ps256 {
                    signer.set_rsa_padding(Padding::PKCS1_PSS).unwrap();
                    signer.set_rsa_pss_saltlen(RsaPssSaltlen::DIGEST_LENGTH).unwrap();
                }
                let signature = signer.sign_oneshot_to_vec(bytes).unwrap();
                match algorithm {
                    Algorithm::Es256 => {
                        let parts = EcdsaSig::from_der(&signature).unwrap();
                        let part = |n: &openssl::bn::BigNumRef| n.to_vec_padded(32).unwrap();
                        [part(parts.r()), part(parts.s())].concat()
                    }
                    _ => signature,
                }
            }
        };
        format!("{signed}.{}", encode(signature))
    }

    fn token(&self, change: impl FnOnce(&mut Value, &mut Value)) -> String {
        let mut header = json!({"alg": self.algorithm.name(), "kid": self.algorithm.name()});
        let mut payload = json!({
            "iss": ISSUER, "aud": "nearhop", "exp": NOW + 600, "iat": NOW, "sub": "alice", "tenant": "acme",
        });
        change(&mut header, &mut payload);
        self.sign(&header, &payload)
    }

    fn jwks(&self) -> Jwks {
        let jwks = Jwks::default();
        let issuers = [issuer(&ALL)];
        assert_eq!(jwks.due(&issuers, NOW).len(), 1);
        let set = json!({"keys": [{"kty": "oct", "k": "AA"}, self.jwk]}).to_string();
        jwks.fetched(ISSUER, Ok(set), NOW).unwrap();
        jwks
    }

    fn check(&self, token: &str, now: u64) -> Result<Claims, Denied> {
        verify(token.as_bytes(), &[issuer(&[self.algorithm])], &self.jwks(), now)
    }
}

#[test]
fn every_algorithm_of_the_list_is_verified() {
    for algorithm in ALL {
        let signing = signing(algorithm);
        let token = signing.token(|_, _| {});
        assert!(looks_like_one(token.as_bytes()));
        let claims = signing.check(&token, NOW).unwrap();
        assert_eq!((claims.tenant.as_str(), claims.subject.as_str()), ("acme", "login.test#alice"));
        assert_eq!(claims.scopes, Scope::ALL);
        let other = self::signing(algorithm);
        assert_eq!(other.check(&token, NOW), Err(Denied::Wrong), "another key {algorithm:?}");
        let mut bytes = token.clone().into_bytes();
        let at = token.find('.').unwrap() + 5;
        bytes[at] ^= 1;
        let changed = String::from_utf8(bytes).unwrap();
        assert!(signing.check(&changed, NOW).is_err(), "changed {algorithm:?}");
    }
}

type Change = fn(&mut Value, &mut Value);

#[test]
fn what_does_not_hold_is_refused() {
    let signing = signing(Algorithm::EdDsa);
    let cases: [(&str, Change, Denied); 17] = [
        ("no issuer", |_, payload| payload["iss"] = json!(null), Denied::Wrong),
        ("another issuer", |_, payload| payload["iss"] = json!("https://evil.test"), Denied::Wrong),
        ("another audience", |_, payload| payload["aud"] = json!("other"), Denied::Wrong),
        ("no audience", |_, payload| payload["aud"] = json!([]), Denied::Wrong),
        ("expired", |_, payload| payload["exp"] = json!(NOW - 60), Denied::Expired),
        ("no expiry", |_, payload| payload["exp"] = json!(null), Denied::Wrong),
        ("not yet", |_, payload| payload["nbf"] = json!(NOW + 61), Denied::Wrong),
        ("from the future", |_, payload| payload["iat"] = json!(NOW + 61), Denied::Wrong),
        ("no tenant", |_, payload| payload["tenant"] = json!(null), Denied::UnknownTenant),
        (
            "a tenant of another form",
            |_, payload| payload["tenant"] = json!("a b\r\nx: y"),
            Denied::UnknownTenant,
        ),
        ("no algorithm", |header, _| header["alg"] = json!("none"), Denied::Wrong),
        ("a secret's algorithm", |header, _| header["alg"] = json!("HS256"), Denied::Wrong),
        ("an algorithm not listed", |header, _| header["alg"] = json!("ES256"), Denied::Wrong),
        ("its own key", |header, _| header["jwk"] = json!({}), Denied::Wrong),
        (
            "its own key's place",
            |header, _| header["jku"] = json!("https://evil.test"),
            Denied::Wrong,
        ),
        ("something critical", |header, _| header["crit"] = json!(["b64"]), Denied::Wrong),
        ("an unknown key", |header, _| header["kid"] = json!("other"), Denied::Wrong),
    ];
    for (what, change, expected) in cases {
        assert_eq!(signing.check(&signing.token(change), NOW), Err(expected), "{what}");
    }
    let long = signing.token(|_, payload| payload["x"] = json!("x".repeat(9000)));
    assert_eq!(signing.check(&long, NOW), Err(Denied::Wrong), "a long one");
    let list = signing.token(|_, payload| payload["aud"] = json!(["other", "nearhop"]));
    assert!(signing.check(&list, NOW).is_ok());
    let edge = signing.token(|_, payload| payload["exp"] = json!(NOW - 59));
    assert!(signing.check(&edge, NOW).is_ok(), "clocks differ by less than a minute");
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(2000))]

    /// Whatever is sent as a token, it is judged, and nothing unsigned is ever good.
    #[test]
    fn nothing_unsigned_is_good(
        header in "[ -~]{0,80}",
        payload in "[ -~]{0,120}",
        signature in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..100),
        form in 0u8..3,
    ) {
        let jwks = Jwks::default();
        let text = match form {
            0 => format!("{header}.{payload}.{}", encode(&signature)),
            1 => format!("{}.{}.{}", encode(&header), encode(&payload), encode(&signature)),
            _ => {
                let header = json!({"alg": header, "kid": payload});
                let payload = json!({"iss": ISSUER, "exp": NOW + 1});
                format!("{}.{}.{}", encode(header.to_string()), encode(payload.to_string()), encode(&signature))
            }
        };
        proptest::prop_assert!(verify(text.as_bytes(), &[issuer(&ALL)], &jwks, NOW).is_err());
    }

    /// Whatever an issuer's URL answers, it is a key set or a reason.
    #[test]
    fn a_key_set_is_read_or_refused(body in "[{}\\[\\]\",:a-zA-Z0-9_-]{0,200}") {
        let _ = crate::KeySet::parse(body.as_bytes());
    }
}

#[test]
fn scopes_are_ours_among_those_it_names() {
    let signing = signing(Algorithm::EdDsa);
    let scopes = |value: Value| {
        let token = signing.token(|_, payload| payload["scope"] = value);
        signing.check(&token, NOW).unwrap().scopes
    };
    assert_eq!(scopes(json!("openid nearhop:chat")), [Scope::Chat]);
    assert_eq!(scopes(json!(["nearhop:completions"])), [Scope::Completions]);
    assert_eq!(scopes(json!("openid")), Scope::ALL);
    assert_eq!(scopes(json!("nearhop:admin")), [], "ours, and none that we know");
}

#[test]
fn keys_are_trusted_for_a_while_when_their_issuer_is_gone() {
    let signing = signing(Algorithm::EdDsa);
    let issuers = [issuer(&[Algorithm::EdDsa])];
    let jwks = signing.jwks();
    let later = NOW + 3600;
    let token = signing.token(|_, payload| payload["exp"] = json!(NOW + 1_000_000));
    assert_eq!(jwks.due(&issuers, later).len(), 1);
    assert_eq!(jwks.due(&issuers, later).len(), 0, "given out once");
    assert!(jwks.fetched(ISSUER, Err::<Vec<u8>, _>("gone".to_owned()), later).is_err());
    assert!(jwks.fetched(ISSUER, Ok("{}"), later).is_err());
    assert!(verify(token.as_bytes(), &issuers, &jwks, later).is_ok());
    let stale = NOW + 86_400;
    assert_eq!(verify(token.as_bytes(), &issuers, &jwks, stale), Err(Denied::KeysUnavailable));
    assert_eq!(jwks.due(&issuers, later + 29).len(), 0);
    assert_eq!(jwks.due(&issuers, later + 30).len(), 1, "tried again");
}

#[test]
fn an_unknown_key_is_asked_for_early_and_not_often() {
    let signing = signing(Algorithm::EdDsa);
    let issuers = [issuer(&[Algorithm::EdDsa])];
    let jwks = signing.jwks();
    let strange = signing.token(|header, _| header["kid"] = json!("new"));
    assert_eq!(jwks.due(&issuers, NOW + 40).len(), 0, "they are fresh");
    for (now, expected) in [(NOW + 40, 1), (NOW + 41, 0), (NOW + 69, 0), (NOW + 70, 1)] {
        assert_eq!(verify(strange.as_bytes(), &issuers, &jwks, now), Err(Denied::Wrong));
        assert_eq!(jwks.due(&issuers, now).len(), expected, "{now}");
    }
}

#[test]
fn without_keys_it_is_our_fault() {
    let token = signing(Algorithm::EdDsa).token(|_, _| {});
    let issuers = [issuer(&ALL)];
    let denied = verify(token.as_bytes(), &issuers, &Jwks::default(), NOW);
    assert_eq!(denied, Err(Denied::KeysUnavailable));
}
