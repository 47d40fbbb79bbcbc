//! What the configurations of a world need beside its plan: keys, certificates, files.

use std::path::Path;

use nearhop_conf::Secret;
use nearhop_load::world::{Key, Material};

use crate::{
    built_in::{MMDB, ServedModel},
    certificates::Certificates,
    dev::ADMIN_TOKEN,
    key::{hash_hex, random_hex},
};

/// Tenants who share nothing; `nh-` in front is their key.
const TENANTS: [&str; 3] = ["dev", "team", "acme"];

/// Puts the files into `folder`.
pub(super) fn make(folder: &Path, model: &ServedModel) -> anyhow::Result<Material> {
    // A secret of this run's own; the keys are none.
    let key_secret = random_hex()?;
    let secret = Secret::new(key_secret.as_str());
    let key = |tenant: &str| {
        let key = format!("nh-{tenant}");
        Key { tenant: tenant.to_owned(), hash: hash_hex(&secret, &key), key }
    };
    let mmdb = folder.join("places.mmdb");
    std::fs::write(&mmdb, MMDB)?;
    Ok(Material {
        keys: TENANTS.map(key).to_vec(),
        key_secret,
        admin_token: ADMIN_TOKEN.to_owned(),
        tls: Certificates::of_nodes(folder)?,
        mmdb,
        model: model.folder.clone(),
        model_name: model.name.clone(),
    })
}
