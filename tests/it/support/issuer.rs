//! An issuer of tokens: signs them, and serves its public keys until it is told not to.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use openssl::{
    pkey::{PKey, Private},
    sign::Signer,
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};

pub(crate) struct Issuer {
    key: PKey<Private>,
    pub(crate) url: String,
    away: Arc<AtomicBool>,
    asked: Arc<AtomicUsize>,
}

impl Issuer {
    pub(crate) async fn start() -> Self {
        let key = PKey::generate_ed25519().unwrap();
        let x = URL_SAFE_NO_PAD.encode(key.raw_public_key().unwrap());
        let keys = json!({"keys": [{"kty": "OKP", "crv": "Ed25519", "kid": "1", "x": x}]});
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/keys", listener.local_addr().unwrap());
        let (away, asked) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let (gone, count) = (Arc::clone(&away), Arc::clone(&asked));
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                count.fetch_add(1, Ordering::Relaxed);
                if gone.load(Ordering::Relaxed) {
                    continue;
                }
                let mut request = [0; 4096];
                let _ = stream.read(&mut request).await;
                let body = keys.to_string();
                let head = format!(
                    "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
                    body.len()
                );
                let _ = stream.write_all(format!("{head}{body}").as_bytes()).await;
            }
        });
        Self { key, url, away, asked }
    }

    /// Its entry in the configuration.
    pub(crate) fn entry(&self) -> Value {
        json!({
            "issuer": "https://login.test",
            "audience": "nearhop",
            "jwks_url": self.url,
            "algorithms": ["EdDSA"],
            "refresh": "1s",
        })
    }

    /// Closes every connection from now on.
    pub(crate) fn go_away(&self) {
        self.away.store(true, Ordering::Relaxed);
    }

    /// How often its keys were asked for.
    pub(crate) fn asked(&self) -> usize {
        self.asked.load(Ordering::Relaxed)
    }

    /// A token with these claims beside its own.
    pub(crate) fn token(&self, claims: &Value) -> String {
        let now = nearhop_admin::clock::since_epoch().as_secs();
        let mut payload = json!({
            "iss": "https://login.test", "aud": "nearhop", "exp": now + 600, "sub": "alice",
        });
        for (name, value) in claims.as_object().unwrap() {
            payload[name] = value.clone();
        }
        let header = json!({"alg": "EdDSA", "kid": "1"});
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let signed = format!("{}.{}", part(&header), part(&payload));
        let mut signer = Signer::new_without_digest(&self.key).unwrap();
        let signature = signer.sign_oneshot_to_vec(signed.as_bytes()).unwrap();
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
    }
}
