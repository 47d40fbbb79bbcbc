//! Certificates for `nearhop dev --tls` and the nodes of an emulated world: an authority of this run's
//! own, whose key is gone when it has signed, and what the roles show.

use std::{
    fs,
    path::{Path, PathBuf},
};

use openssl::{
    asn1::{Asn1Integer, Asn1Time},
    bn::{BigNum, MsbOption},
    ec::{EcGroup, EcKey},
    error::ErrorStack,
    hash::MessageDigest,
    nid::Nid,
    pkey::{PKey, Private},
    x509::{
        X509, X509NameBuilder,
        extension::{BasicConstraints, ExtendedKeyUsage, KeyUsage, SubjectAlternativeName},
    },
};
use serde_json::{Value, json};

/// The names in them; `.test` is nobody's (RFC 6761).
const EDGE: &str = "edge.nearhop.test";
const PODS: &str = "pods.nearhop.test";
const NODES: &str = "nodes.nearhop.test";
/// Longer than anybody leaves a development run alone.
const DAYS: u32 = 30;

/// The files of a run.
pub(crate) struct Certificates {
    folder: PathBuf,
}

impl Certificates {
    /// Makes them below `folder`.
    pub(crate) fn make(folder: &Path) -> anyhow::Result<Self> {
        Self::issue(folder, &[("edge", &["localhost", EDGE]), ("pod", &[PODS])])
    }

    /// A `tls` section, with files below `folder`, for nodes that all show each other the same one.
    pub(crate) fn of_nodes(folder: &Path) -> anyhow::Result<Value> {
        Ok(Self::issue(folder, &[("node", &[NODES])])?.mutual("node", NODES))
    }

    /// A certificate and a key for each name of a file, with the names that stand in it.
    fn issue(folder: &Path, wanted: &[(&str, &[&str])]) -> anyhow::Result<Self> {
        let made = Self { folder: folder.to_owned() };
        let authority = Issuer::new()?;
        fs::write(made.authority(), authority.certificate.to_pem()?)?;
        for (file, names) in wanted {
            let (certificate, key) = authority.issue(names)?;
            fs::write(folder.join(format!("{file}.pem")), certificate.to_pem()?)?;
            fs::write(folder.join(format!("{file}-key.pem")), key.private_key_to_pem_pkcs8()?)?;
        }
        Ok(made)
    }

    /// Whom clients must trust.
    pub(crate) fn authority(&self) -> PathBuf {
        self.folder.join("ca.pem")
    }

    fn pair(&self, name: &str) -> Value {
        json!({
            "certificate": self.folder.join(format!("{name}.pem")),
            "key": self.folder.join(format!("{name}-key.pem")),
        })
    }

    fn mutual(&self, own: &str, other: &str) -> Value {
        let mut mutual = self.pair(own);
        mutual["ca"] = json!(self.authority());
        mutual["names"] = json!([other]);
        mutual
    }

    /// `edge.tls`.
    pub(crate) fn public(&self) -> Value {
        json!({ "certificates": [self.pair("edge")] })
    }

    /// `edge.upstream.tls`.
    pub(crate) fn toward_pods(&self) -> Value {
        self.mutual("edge", PODS)
    }

    /// `origin.tls`.
    pub(crate) fn of_pods(&self) -> Value {
        self.mutual("pod", EDGE)
    }
}

struct Issuer {
    certificate: X509,
    key: PKey<Private>,
}

impl Issuer {
    fn new() -> Result<Self, ErrorStack> {
        let key = new_key()?;
        let mut builder = begin("nearhop dev", &key)?;
        let name = name("nearhop dev")?;
        builder.set_issuer_name(&name)?;
        builder.append_extension(BasicConstraints::new().critical().ca().build()?)?;
        builder.append_extension(KeyUsage::new().critical().key_cert_sign().crl_sign().build()?)?;
        builder.sign(&key, MessageDigest::sha256())?;
        Ok(Self { certificate: builder.build(), key })
    }

    fn issue(&self, names: &[&str]) -> Result<(X509, PKey<Private>), ErrorStack> {
        let key = new_key()?;
        let mut builder = begin(names[0], &key)?;
        builder.set_issuer_name(self.certificate.subject_name())?;
        let mut alternative = SubjectAlternativeName::new();
        for name in names {
            alternative.dns(name);
        }
        alternative.ip("127.0.0.1").ip("::1");
        let alternative =
            alternative.build(&builder.x509v3_context(Some(&self.certificate), None))?;
        builder.append_extension(alternative)?;
        builder.append_extension(KeyUsage::new().critical().digital_signature().build()?)?;
        builder.append_extension(ExtendedKeyUsage::new().server_auth().client_auth().build()?)?;
        builder.sign(&self.key, MessageDigest::sha256())?;
        Ok((builder.build(), key))
    }
}

fn new_key() -> Result<PKey<Private>, ErrorStack> {
    let group = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1)?;
    PKey::from_ec_key(EcKey::generate(&group)?)
}

fn name(common: &str) -> Result<openssl::x509::X509Name, ErrorStack> {
    let mut builder = X509NameBuilder::new()?;
    builder.append_entry_by_nid(Nid::COMMONNAME, common)?;
    Ok(builder.build())
}

fn begin(common: &str, key: &PKey<Private>) -> Result<openssl::x509::X509Builder, ErrorStack> {
    let mut serial = BigNum::new()?;
    serial.rand(127, MsbOption::MAYBE_ZERO, false)?;
    let serial = Asn1Integer::from_bn(&serial)?;
    let (from, to) = (Asn1Time::days_from_now(0)?, Asn1Time::days_from_now(DAYS)?);
    let name = name(common)?;
    let mut builder = X509::builder()?;
    builder.set_version(2)?;
    builder.set_serial_number(&serial)?;
    builder.set_subject_name(&name)?;
    builder.set_not_before(&from)?;
    builder.set_not_after(&to)?;
    builder.set_pubkey(key)?;
    Ok(builder)
}
