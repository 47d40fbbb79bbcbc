//! TLS of listeners: certificates from files, chosen by the name a client asks for, and the other
//! side's certificate where one is demanded.
//!
//! An acceptor is built whole from its files or not at all; [`Files`] tells when to build a new
//! one. Mozilla's intermediate settings (guideline 5) decide the ciphers.

use std::{
    fs,
    net::IpAddr,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use arc_swap::ArcSwap;
use nearhop_conf::{Certificate, MutualTls, Tls, TlsVersion};
use openssl::{
    error::ErrorStack,
    pkey::{PKey, Private},
    ssl::{
        AlpnError, NameType, SniError, SslAcceptor, SslAcceptorBuilder, SslContext, SslMethod,
        SslRef, SslVerifyMode, SslVersion, select_next_proto,
    },
    x509::{X509, X509Ref, store::X509StoreBuilder},
};
use tokio::time::interval;

/// Why there is no acceptor.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("cannot read {path}: {source}. Check the path and its permissions")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// A file has no PEM of the kind that is needed.
    #[error("{path} holds no {what} in PEM that can be read")]
    NotPem {
        /// The file.
        path: PathBuf,
        /// What should be in it.
        what: &'static str,
    },
    /// The key is another certificate's.
    #[error("the key in {key} is not that of the certificate in {certificate}")]
    Mismatch {
        /// The certificate's file.
        certificate: PathBuf,
        /// The key's file.
        key: PathBuf,
    },
    /// Other regions' edges cannot be asked without a certificate of our own.
    #[error("edge.peer.tls is missing, and with it what this edge shows other regions")]
    NoIdentity,
    /// OpenSSL refuses.
    #[error("TLS cannot be set up: {0}")]
    OpenSsl(#[from] ErrorStack),
}

/// A chain and its key, read and found to belong together.
#[derive(Clone)]
pub struct Identity {
    /// The leaf first.
    pub chain: Vec<X509>,
    /// The leaf's.
    pub key: PKey<Private>,
}

impl Identity {
    /// Reads both files.
    ///
    /// # Errors
    /// [`TlsError`], which names the file.
    pub fn read(files: &Certificate) -> Result<Self, TlsError> {
        let chain = read_certificates(&files.certificate)?;
        let pem = read(&files.key)?;
        let key = PKey::private_key_from_pem(&pem).map_err(|_not_pem| TlsError::NotPem {
            path: files.key.clone(),
            what: "private key",
        })?;
        let same = chain[0].public_key()?.public_eq(&key);
        same.then_some(Self { chain, key }).ok_or_else(|| TlsError::Mismatch {
            certificate: files.certificate.clone(),
            key: files.key.clone(),
        })
    }

    fn install(&self, builder: &mut SslAcceptorBuilder) -> Result<(), TlsError> {
        builder.set_certificate(&self.chain[0])?;
        for issuer in &self.chain[1..] {
            builder.add_extra_chain_cert(issuer.clone())?;
        }
        builder.set_private_key(&self.key)?;
        Ok(builder.check_private_key()?)
    }
}

fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    fs::read(path).map_err(|source| TlsError::Unreadable { path: path.to_owned(), source })
}

/// All certificates in a PEM file, at least one.
///
/// # Errors
/// [`TlsError`], which names the file.
pub fn read_certificates(path: &Path) -> Result<Vec<X509>, TlsError> {
    let found = X509::stack_from_pem(&read(path)?).unwrap_or_default();
    match found.is_empty() {
        true => Err(TlsError::NotPem { path: path.to_owned(), what: "certificate" }),
        false => Ok(found),
    }
}

/// The acceptor of a listener for clients.
///
/// # Errors
/// [`TlsError`], which names the file.
pub fn acceptor(tls: &Tls) -> Result<SslAcceptor, TlsError> {
    let identities: Result<Vec<_>, _> = tls.certificates.iter().map(Identity::read).collect();
    let identities = identities?;
    let mut by_name: Vec<(Vec<String>, SslContext)> = Vec::new();
    for identity in &identities {
        let builder = acceptor_of(identity, tls.minimum)?;
        by_name.push((dns_names(&identity.chain[0]), builder.build().into_context()));
    }
    let mut builder = acceptor_of(&identities[0], tls.minimum)?;
    builder.set_servername_callback(move |ssl: &mut SslRef, _alert| {
        let Some(name) = ssl.servername(NameType::HOST_NAME) else { return Ok(()) };
        let named = by_name
            .iter()
            .find(|(names, _)| names.iter().any(|pattern| name_matches(pattern, name)))
            .map(|(_, context)| context);
        match named {
            Some(context) => {
                ssl.set_ssl_context(context).map_err(|_unusable| SniError::ALERT_FATAL)
            }
            // The first certificate, which the client may refuse: better than no reason.
            None => Ok(()),
        }
    });
    Ok(builder.build())
}

/// The acceptor of a listener on which both sides show certificates. Whose it was is for
/// [`peer_name`] to say.
///
/// # Errors
/// [`TlsError`], which names the file.
pub fn mutual_acceptor(tls: &MutualTls) -> Result<SslAcceptor, TlsError> {
    let mut builder = acceptor_of(&Identity::read(&tls.own)?, TlsVersion::V1_2)?;
    let mut store = X509StoreBuilder::new()?;
    for authority in read_certificates(&tls.ca)? {
        builder.add_client_ca(&authority)?;
        store.add_cert(authority)?;
    }
    builder.set_verify_cert_store(store.build())?;
    builder.set_verify(SslVerifyMode::PEER | SslVerifyMode::FAIL_IF_NO_PEER_CERT);
    // Sessions are resumed within this context only.
    builder.set_session_id_context(b"nearhop-mutual")?;
    Ok(builder.build())
}

fn acceptor_of(identity: &Identity, minimum: TlsVersion) -> Result<SslAcceptorBuilder, TlsError> {
    let mut builder = SslAcceptor::mozilla_intermediate_v5(SslMethod::tls_server())?;
    builder.set_min_proto_version(Some(match minimum {
        TlsVersion::V1_2 => SslVersion::TLS1_2,
        TlsVersion::V1_3 => SslVersion::TLS1_3,
    }))?;
    identity.install(&mut builder)?;
    builder.set_alpn_select_callback(|_ssl, offered| {
        select_next_proto(b"\x02h2\x08http/1.1", offered).ok_or(AlpnError::NOACK)
    });
    Ok(builder)
}

/// The DNS names (SAN) of the other side's certificate of which `names` has one: who it is.
/// `None` where it shows none, or none of these.
#[must_use]
pub fn peer_name(ssl: &SslRef, names: &[String]) -> Option<String> {
    let certificate = ssl.peer_certificate()?;
    dns_names(&certificate)
        .into_iter()
        .find(|name| names.iter().any(|pattern| name_matches(pattern, name)))
}

/// Whether the other side's certificate has this address (SAN).
#[must_use]
pub fn has_address(ssl: &SslRef, address: IpAddr) -> bool {
    let names = ssl.peer_certificate().and_then(|certificate| certificate.subject_alt_names());
    let octets = match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    };
    names.into_iter().flatten().any(|name| name.ipaddress() == Some(&octets))
}

fn dns_names(certificate: &X509Ref) -> Vec<String> {
    let names = certificate.subject_alt_names().into_iter().flatten();
    names.filter_map(|name| name.dnsname().map(str::to_ascii_lowercase)).collect()
}

/// RFC 6125, section 6.4.3: `*.` stands for exactly one label.
fn name_matches(pattern: &str, name: &str) -> bool {
    match pattern.strip_prefix("*.") {
        None => pattern.eq_ignore_ascii_case(name),
        Some(parent) => name
            .split_once('.')
            .is_some_and(|(label, rest)| !label.is_empty() && rest.eq_ignore_ascii_case(parent)),
    }
}

/// Files that are looked at now and then: whether they are other files than before.
#[derive(Debug, Default)]
pub struct Files {
    paths: Vec<PathBuf>,
    seen: Vec<Option<Stamp>>,
}

/// What changes when a file is replaced or written, symbolic links followed.
type Stamp = (u64, u64, i64, i64, u64);

impl Files {
    /// Watches `paths`, as they are now.
    #[must_use]
    pub fn new(paths: Vec<PathBuf>) -> Self {
        let seen = paths.iter().map(|path| stamp(path)).collect();
        Self { paths, seen }
    }

    /// Whether any is another than at the last call. A file that is being replaced may be away for
    /// a moment; that it is there again is a change.
    pub fn changed(&mut self) -> bool {
        let now: Vec<_> = self.paths.iter().map(|path| stamp(path)).collect();
        let changed = now != self.seen;
        self.seen = now;
        changed
    }
}

fn stamp(path: &Path) -> Option<Stamp> {
    let meta = fs::metadata(path).ok()?;
    Some((meta.dev(), meta.ino(), meta.mtime(), meta.mtime_nsec(), meta.size()))
}

/// The files of a [`MutualTls`].
#[must_use]
pub fn mutual_files(tls: &MutualTls) -> Vec<PathBuf> {
    vec![tls.own.certificate.clone(), tls.own.key.clone(), tls.ca.clone()]
}

/// Looks at `paths` every second and, where they changed, swaps in what `build` makes of them. What
/// cannot be built keeps the old one, and is told and tried again: a certificate and its key are
/// seldom replaced in the same instant. Never returns.
pub async fn keep_fresh<T>(
    paths: Vec<PathBuf>,
    current: Arc<ArcSwap<T>>,
    build: impl Fn() -> Result<T, TlsError>,
) {
    let mut files = Files::new(paths);
    let mut tick = interval(LOOK);
    let mut pending = false;
    loop {
        tick.tick().await;
        if !files.changed() && !pending {
            continue;
        }
        match build() {
            Ok(built) => {
                current.store(Arc::new(built));
                pending = false;
                tracing::info!("certificates read again");
            }
            Err(error) => {
                if !pending {
                    tracing::warn!(%error, "the new certificates cannot be used; the old ones stay");
                }
                pending = true;
            }
        }
    }
}

/// How often files are looked at.
const LOOK: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_one_label() {
        let check = |pattern, name, expected| assert_eq!(name_matches(pattern, name), expected);
        check("a.example.com", "A.example.com", true);
        check("*.example.com", "a.example.com", true);
        check("*.example.com", "a.b.example.com", false);
        check("*.example.com", "example.com", false);
        check("*.example.com", ".example.com", false);
        check("a.example.com", "b.example.com", false);
    }

    #[test]
    fn a_replaced_file_is_noticed_once() {
        let folder = std::env::temp_dir().join(format!("nearhop-files-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let (path, other) = (folder.join("a"), folder.join("b"));
        fs::write(&path, "1").unwrap();
        let mut files = Files::new(vec![path.clone()]);
        assert!(!files.changed());
        fs::write(&other, "2").unwrap();
        fs::rename(&other, &path).unwrap();
        assert!(files.changed() && !files.changed());
        fs::remove_dir_all(&folder).unwrap();
    }
}
