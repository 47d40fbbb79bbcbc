//! What the servers read.

use std::{fs, path::Path};

use nearhop_test_server::Error;

use crate::{Options, PASSWORD, USER};

/// The harness's own user, which may do everything.
pub(crate) const ADMIN: &str = "harness";
pub(crate) const ADMIN_PASSWORD: &str = "harness-password";

/// What Nearhop's user may do, as its documentation lists it.
const RIGHTS: &str = "~nearhop:* &nearhop:* +hvals +hset +get +set +del +unlink +incrby +pexpire +xadd \
                      +xrange +publish +subscribe +wait +scan +multi +exec +asking +ping +cluster|nodes";

/// A node's configuration, in its folder.
pub(crate) fn configuration(folder: &Path, port: u16, options: &Options) -> Result<(), Error> {
    let mut lines = vec![
        "bind 127.0.0.1".to_owned(),
        "cluster-enabled yes".to_owned(),
        "cluster-node-timeout 2000".to_owned(),
        // Or one lost master would stop the other two until its replica is promoted.
        "cluster-require-full-coverage no".to_owned(),
        "repl-diskless-sync-delay 0".to_owned(),
        "save \"\"".to_owned(),
        format!("appendonly {}", if options.kept { "yes" } else { "no" }),
        // A dump is searched for bytes that must not be in it.
        "rdbcompression no".to_owned(),
        "logfile log".to_owned(),
        format!("dir {}", folder.display()),
    ];
    if options.tls {
        let file = |name: &str| folder.with_file_name(name).display().to_string();
        lines.extend([
            "port 0".to_owned(),
            format!("tls-port {port}"),
            "tls-cluster yes".to_owned(),
            "tls-replication yes".to_owned(),
            "tls-auth-clients no".to_owned(),
            format!("tls-ca-cert-file {}", file("ca.pem")),
            format!("tls-cert-file {}", file("leaf.pem")),
            format!("tls-key-file {}", file("leaf-key.pem")),
        ]);
    } else {
        lines.push(format!("port {port}"));
    }
    if options.users {
        lines.extend([
            "user default off".to_owned(),
            format!("user {ADMIN} on >{ADMIN_PASSWORD} ~* &* +@all"),
            format!("user {USER} on >{PASSWORD} {RIGHTS}"),
            format!("masteruser {ADMIN}"),
            format!("masterauth {ADMIN_PASSWORD}"),
        ]);
    }
    lines.push(String::new());
    Ok(fs::write(folder.join("redis.conf"), lines.join("\n"))?)
}
