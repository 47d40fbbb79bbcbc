//! Certificates of a test's own, made with the openssl command.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::{Value, json};

/// An authority, and what it signs, in files of a folder.
pub(crate) struct Authority {
    folder: PathBuf,
}

fn openssl(folder: &Path, arguments: &[&str]) {
    let output = Command::new("openssl").args(arguments).current_dir(folder).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

const KEY: [&str; 5] = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];

impl Authority {
    pub(crate) fn new(folder: &Path) -> Self {
        let mut arguments = vec!["req", "-x509", "-subj", "/CN=test", "-days", "2"];
        arguments.extend(KEY);
        arguments.extend(["-keyout", "ca-key.pem", "-out", "ca.pem"]);
        openssl(folder, &arguments);
        Self { folder: folder.to_owned() }
    }

    pub(crate) fn file(&self) -> PathBuf {
        self.folder.join("ca.pem")
    }

    /// `NAME.pem` and `NAME-key.pem` with these DNS names, replaced in one step where they were.
    pub(crate) fn issue(&self, name: &str, names: &[&str]) -> Value {
        let names: Vec<String> = names.iter().map(|name| format!("DNS:{name}")).collect();
        let alternative = format!("subjectAltName={},IP:127.0.0.1", names.join(","));
        let (new, new_key) = (format!("{name}.new"), format!("{name}-key.new"));
        let mut arguments = vec!["req", "-x509", "-subj", "/CN=leaf", "-days", "2"];
        arguments.extend(KEY);
        arguments.extend(["-CA", "ca.pem", "-CAkey", "ca-key.pem", "-addext", &alternative]);
        arguments.extend(["-addext", "basicConstraints=critical,CA:FALSE"]);
        arguments.extend(["-keyout", &new_key, "-out", &new]);
        openssl(&self.folder, &arguments);
        let (certificate, key) =
            (self.folder.join(format!("{name}.pem")), self.folder.join(format!("{name}-key.pem")));
        std::fs::rename(self.folder.join(new_key), &key).unwrap();
        std::fs::rename(self.folder.join(new), &certificate).unwrap();
        json!({"certificate": certificate, "key": key})
    }

    /// A section in which both sides show certificates.
    pub(crate) fn mutual(&self, name: &str, own: &[&str], other: &[&str]) -> Value {
        let mut section = self.issue(name, own);
        section["ca"] = json!(self.file());
        section["names"] = json!(other);
        section
    }
}
