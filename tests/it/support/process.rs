//! The binary as a child process, ended with the test.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex, OnceLock},
};

use serde_json::{Value, json};

use super::{client, neighbours::own_address};

pub(crate) const BINARY: &str = env!("CARGO_BIN_EXE_nearhop");
pub(crate) const KEY: &str = "Bearer nh-dev";
pub(crate) const KEY_SECRET: &str = "test-key-secret-0123456789";
pub(crate) const ADMIN_TOKEN: &str = "test-admin-token-0123456789";

const QUIET: &str = "pingora=off,pingora_core=off,pingora_proxy=off,pingora_load_balancing=off";

pub(crate) fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Whether inference can be tested here; loudly if not. Under `NEARHOP_REQUIRE_ORT=1`, which
/// `make test` sets, a missing library fails.
pub(crate) fn has_ort() -> bool {
    let env = nearhop_conf::source::process_env;
    let found = env("ORT_DYLIB_PATH").is_some() || root().join(".ort").is_dir();
    assert!(found || env("NEARHOP_REQUIRE_ORT").is_none(), "no ONNX Runtime library: `make setup`");
    if !found {
        say("SKIPPED: no ONNX Runtime library, inference was NOT tested: `make setup`");
    }
    found
}

/// The same, of the models that `make setup` makes.
pub(crate) fn has_models() -> bool {
    let env = nearhop_conf::source::process_env;
    let found = root().join(".models/stamp").is_file();
    assert!(found || env("NEARHOP_REQUIRE_ORT").is_none(), "no models to test with: `make setup`");
    if !found {
        say("SKIPPED: no models to test with: `make setup`");
    }
    has_ort() && found
}

/// Whether the long tests run: `make soak`.
pub(crate) fn soaking() -> bool {
    nearhop_conf::source::process_env("NEARHOP_SOAK").is_some()
}

/// Said aloud: what `eprintln!` says is heard of failed tests only.
pub(crate) fn say(what: &str) {
    let _ = writeln!(std::io::stderr(), "\n*** {what} ***\n");
}

/// `nearhop dev`: an edge and two real pods.
pub(crate) struct Dev {
    child: Child,
    ready: Value,
}

/// A role that says when it is ready.
fn start(arguments: &[&str]) -> (Child, Value) {
    let mut child = spawn(arguments, None);
    let mut line = String::new();
    BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    let ready = serde_json::from_str(&line)
        .unwrap_or_else(|error| panic!("{arguments:?} is not ready: {error}: {line:?}"));
    (child, ready)
}

fn spawn(arguments: &[&str], manager: Option<&Path>) -> Child {
    let mut command = Command::new(BINARY);
    if let Some(socket) = manager {
        command.env("NOTIFY_SOCKET", socket);
    }
    command
        .args(arguments)
        .current_dir(root())
        // An edge's lines are kept by the test; those of others would only be in the way.
        .env(
            "RUST_LOG",
            format!("{},{QUIET}", if arguments[0] == "edge" { "info" } else { "warn" }),
        )
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(if arguments[0] == "edge" { Stdio::piped() } else { Stdio::inherit() })
        .spawn()
        .unwrap()
}

impl Dev {
    pub(crate) fn start(arguments: &[&str]) -> Self {
        let mut all = vec![
            "dev",
            "--ready-json",
            "--lifeline",
            "--port",
            "0",
            "--admin-port",
            "0",
            "--pod-ports",
            "0,0",
            "--dns-port",
            "0",
        ];
        all.extend(arguments);
        let (child, ready) = start(&all);
        Self { child, ready }
    }

    /// One for all tests that break nothing.
    pub(crate) fn shared() -> &'static Self {
        static SHARED: OnceLock<Dev> = OnceLock::new();
        SHARED.get_or_init(|| Self::start(&[]))
    }

    fn address(&self, field: &str) -> String {
        let url = self.ready[field].as_str().unwrap();
        url.trim_start_matches("http://").trim_start_matches("https://").to_owned()
    }

    /// What it said when it was ready.
    pub(crate) fn ready(&self) -> &Value {
        &self.ready
    }

    /// `127.0.0.1:port` of the edge.
    pub(crate) fn edge(&self) -> String {
        self.address("edge")
    }

    pub(crate) fn pod_pid(&self, at: usize) -> u64 {
        self.ready["pods"][at]["pid"].as_u64().unwrap()
    }

    pub(crate) fn pod_listen(&self, at: usize) -> String {
        self.ready["pods"][at]["listen"].as_str().unwrap().to_owned()
    }

    pub(crate) fn pod_admin(&self, at: usize) -> String {
        self.ready["pods"][at]["admin"].as_str().unwrap().to_owned()
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn edge_pid(&self) -> u64 {
        self.ready["edge_pid"].as_u64().unwrap()
    }

    pub(crate) fn wait(&mut self) -> std::process::ExitStatus {
        self.child.wait().unwrap()
    }

    /// Whether the edge sends traffic to that pod.
    pub(crate) async fn pod_ready(&self, at: usize) -> bool {
        let token = format!("Bearer {}", self.ready["admin_token"].as_str().unwrap());
        let headers = [("authorization", token.as_str())];
        let pods = client::get(&self.address("admin"), "/admin/v1/pods", &headers).await;
        pods.unwrap().json()[at]["ready"].as_bool().unwrap()
    }
}

impl Drop for Dev {
    fn drop(&mut self) {
        // The children's lifelines end with it, however it ends.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// An edge in front of pods of the test's own.
pub(crate) struct Edge {
    child: Child,
    pub(crate) address: String,
    pub(crate) admin: String,
    /// What it said when it was ready.
    pub(crate) ready: Value,
    folder: tempfile::TempDir,
    config: Value,
    log: Arc<Mutex<String>>,
}

/// An API key as the configuration has it.
pub(crate) fn key(name: &str, tenant: &str, key: &str) -> Value {
    let secret = openssl::pkey::PKey::hmac(KEY_SECRET.as_bytes()).unwrap();
    let digest = openssl::hash::MessageDigest::sha256();
    let mut signer = openssl::sign::Signer::new(digest, &secret).unwrap();
    let hash = signer.sign_oneshot_to_vec(key.as_bytes()).unwrap();
    let hash: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
    json!({"name": name, "tenant": tenant, "hmac_sha256": hash})
}

impl Edge {
    /// `change` may alter the `edge` section.
    pub(crate) fn start(pods: &[SocketAddr], change: impl FnOnce(&mut Value)) -> Self {
        Self::with(pods, |config, _folder| change(&mut config["edge"]))
    }

    /// `change` may alter the whole file, and put others beside it.
    pub(crate) fn with(pods: &[SocketAddr], change: impl FnOnce(&mut Value, &Path)) -> Self {
        Self::launch(pods, change, (true, None))
    }

    /// One that tells a service manager which listens at `socket`.
    pub(crate) fn notifying(pods: &[SocketAddr], socket: &Path) -> Self {
        Self::launch(pods, |_, _| {}, (true, Some(socket)))
    }

    /// One that may never be ready; its listeners are open when this returns.
    pub(crate) fn unready(pods: &[SocketAddr], change: impl FnOnce(&mut Value)) -> Self {
        let [listen, admin] = [8080, 8081].map(|port| own_address(port).to_string());
        let change = |config: &mut Value, _: &Path| {
            config["edge"]["listen"] = json!(listen);
            config["edge"]["admin"]["listen"] = json!(admin);
            change(&mut config["edge"]);
        };
        let edge = Self::launch(pods, change, (false, None));
        let deadline = super::now() + std::time::Duration::from_secs(30);
        while std::net::TcpStream::connect(&edge.admin).is_err() {
            assert!(super::now() < deadline, "the edge does not listen");
            std::thread::yield_now();
        }
        edge
    }

    fn launch(
        pods: &[SocketAddr],
        change: impl FnOnce(&mut Value, &Path),
        (wait, manager): (bool, Option<&Path>),
    ) -> Self {
        let pods: Vec<Value> = pods
            .iter()
            .enumerate()
            .map(|(at, address)| json!({"name": format!("fake-{at}"), "address": address}))
            .collect();
        let mut config = json!({
            "region": "test",
            "access": {"key_secret": KEY_SECRET, "keys": [key("dev", "dev", "nh-dev")]},
            "edge": {
                "listen": "127.0.0.1:0",
                "admin": {"listen": "127.0.0.1:0", "token": ADMIN_TOKEN},
                "threads": 1,
                "pods": pods,
                // Tests count what pods are asked.
                "reuse": {"audit": {"share": 0.0}},
            },
        });
        let folder = tempfile::tempdir().unwrap();
        change(&mut config, folder.path());
        let path = folder.path().join("edge.yaml");
        std::fs::write(&path, config.to_string()).unwrap();
        let mut child =
            spawn(&["edge", "--ready-json", "--lifeline", "-c", path.to_str().unwrap()], manager);
        let log = Arc::new(Mutex::new(String::new()));
        let (lines, kept) = (child.stderr.take().unwrap(), Arc::clone(&log));
        // Ends with the process, and with its successors, which have the same standard error.
        std::thread::spawn(move || {
            for line in BufReader::new(lines).lines().map_while(Result::ok) {
                let mut kept = kept.lock().unwrap();
                kept.push_str(&line);
                kept.push('\n');
            }
        });
        let mut edge = Self {
            child,
            address: config["edge"]["listen"].as_str().unwrap().to_owned(),
            admin: config["edge"]["admin"]["listen"].as_str().unwrap().to_owned(),
            ready: Value::Null,
            folder,
            config,
            log,
        };
        if wait {
            edge.ready = edge.next_ready();
            edge.address = edge.ready["listen"].as_str().unwrap().to_owned();
            edge.admin = edge.ready["admin"].as_str().unwrap().to_owned();
        }
        edge
    }

    /// The folder of its configuration.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Writes another configuration, in one step as a careful tool would.
    pub(crate) fn configure(&mut self, change: impl FnOnce(&mut Value)) {
        change(&mut self.config);
        self.write(&self.config.to_string());
    }

    /// Writes any text as its configuration.
    pub(crate) fn write(&self, text: &str) {
        let new = self.folder().join("edge.yaml.new");
        std::fs::write(&new, text).unwrap();
        std::fs::rename(new, self.folder().join("edge.yaml")).unwrap();
    }

    /// What it has logged so far.
    pub(crate) fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    /// What the operator is told at a path below `/admin/v1`.
    pub(crate) async fn admin(&self, path: &str) -> Value {
        let token = format!("Bearer {ADMIN_TOKEN}");
        let path = format!("/admin/v1{path}");
        client::get(&self.admin, &path, &[("authorization", &token)]).await.unwrap().json()
    }

    /// The next line it, or its successor, says when it is ready.
    pub(crate) fn next_ready(&mut self) -> Value {
        let mut line = String::new();
        // A byte at a time: what a later process says must not be read with it.
        let mut byte = [0];
        while !line.ends_with('\n') {
            if self.child.stdout.as_mut().unwrap().read_exact(&mut byte).is_err() {
                break;
            }
            line.push(char::from(byte[0]));
        }
        serde_json::from_str(&line).unwrap_or_else(|error| {
            panic!("the edge is not ready: {error}: {line:?}\n{}", self.log())
        })
    }

    pub(crate) fn wait(&mut self) -> std::process::ExitStatus {
        // Waiting would close it, which is a lifeline's end.
        let lifeline = self.child.stdin.take();
        let status = self.child.wait().unwrap();
        drop(lifeline);
        status
    }

    pub(crate) fn pid(&self) -> u64 {
        self.child.id().into()
    }

    pub(crate) async fn pods(&self) -> Value {
        self.admin("/pods").await
    }

    /// Sets something below `/admin/v1`.
    /// Asks below `/admin/v1` with a body.
    pub(crate) async fn order(&self, path: &str, body: &Value) -> client::Whole {
        let token = format!("Bearer {ADMIN_TOKEN}");
        let mut request = client::request(&format!("/admin/v1{path}"), body, &[]);
        request.headers_mut().insert("authorization", token.parse().unwrap());
        client::send(&self.admin, request).await.unwrap().whole().await.unwrap()
    }

    pub(crate) async fn put(&self, path: &str, text: &str) -> client::Whole {
        let request = http::Request::put(format!("/admin/v1{path}"))
            .header("host", "nearhop")
            .header("authorization", format!("Bearer {ADMIN_TOKEN}"))
            .body(bytes::Bytes::copy_from_slice(text.as_bytes()))
            .unwrap();
        client::send(&self.admin, request).await.unwrap().whole().await.unwrap()
    }

    /// The value of a metric, by its whole name with labels.
    pub(crate) async fn metric(&self, name: &str) -> f64 {
        metric(&self.admin, name).await
    }
}

/// One real pod with the tiny model.
pub(crate) struct Origin {
    child: Child,
    pub(crate) address: String,
    pub(crate) admin: String,
    _config: tempfile::TempDir,
}

impl Origin {
    pub(crate) fn start() -> Self {
        Self::with(|_| {})
    }

    /// `change` may alter the `origin` section.
    pub(crate) fn with(change: impl FnOnce(&mut Value)) -> Self {
        let mut config = json!({"origin": {
            "listen": "127.0.0.1:0",
            "admin": {"listen": "127.0.0.1:0"},
            "models": [{"folder": root().join("origin-inference/tests/fixtures/tiny")}],
        }});
        change(&mut config["origin"]);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("origin.yaml");
        std::fs::write(&path, config.to_string()).unwrap();
        let (child, ready) =
            start(&["origin", "--ready-json", "--lifeline", "-c", path.to_str().unwrap()]);
        let text = |field: &str| ready[field].as_str().unwrap().to_owned();
        let (address, admin) = (text("listen"), text("admin"));
        Self { child, address, admin, _config: folder }
    }

    pub(crate) fn pid(&self) -> u64 {
        self.child.id().into()
    }

    /// Memory it holds, KiB.
    pub(crate) fn memory(&self) -> usize {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A DNS server with a configuration of the test's own.
pub(crate) struct Dns {
    child: Child,
    pub(crate) address: String,
    pub(crate) admin: String,
    folder: tempfile::TempDir,
}

impl Dns {
    pub(crate) fn start(config: &Value) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("dns.yaml");
        std::fs::write(&path, config.to_string()).unwrap();
        let (child, ready) =
            start(&["dns", "--ready-json", "--lifeline", "-c", path.to_str().unwrap()]);
        let text = |field: &str| ready[field].as_str().unwrap().to_owned();
        let (address, admin) = (text("listen"), text("admin"));
        Self { child, address, admin, folder }
    }

    /// Writes another configuration, in one step as a careful tool would.
    pub(crate) fn configure(&self, config: &Value) {
        let new = self.folder.path().join("new");
        std::fs::write(&new, config.to_string()).unwrap();
        std::fs::rename(new, self.folder.path().join("dns.yaml")).unwrap();
    }
}

impl Drop for Dns {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Attempts of an edge on upstreams of a class, whoever they were and however they ended.
pub(crate) async fn attempts(edge: &Edge, class: &str) -> f64 {
    let page = client::get(&edge.admin, "/metrics", &[]).await.unwrap();
    let page = String::from_utf8(page.body.to_vec()).unwrap();
    let of = |line: &&str| {
        line.starts_with("nearhop_attempts_total{") && line.contains(&format!("class=\"{class}\""))
    };
    page.lines()
        .filter(of)
        .map(|line| line.rsplit_once(' ').unwrap().1.parse::<f64>().unwrap())
        .sum()
}

/// A metric's value, added up over all labels where `name` has none.
pub(crate) async fn metric(admin: &str, name: &str) -> f64 {
    assert!(!name.contains('{') || name.ends_with('}'), "{name}: all labels or none");
    let page = client::get(admin, "/metrics", &[]).await.unwrap();
    let page = String::from_utf8(page.body.to_vec()).unwrap();
    let value = |line: &str| -> Option<f64> {
        let rest = line.strip_prefix(name)?;
        let (labels, value) = rest.rsplit_once(' ')?;
        (labels.is_empty() || labels.starts_with('{')).then(|| value.parse().ok())?
    };
    page.lines().filter_map(value).sum()
}

impl Drop for Edge {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Sends a signal by name: `STOP`, `CONT`, `KILL`, `INT`, `TERM`.
pub(crate) fn signal(pid: u64, name: &str) {
    let status = Command::new("kill").args([&format!("-{name}"), &pid.to_string()]).status();
    assert!(status.unwrap().success(), "kill -{name} {pid}");
}

/// Whether a process is there and not a zombie.
pub(crate) fn alive(pid: u64) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(')')
        .next()
        .is_some_and(|rest| !rest.is_empty() && !rest.trim_start().starts_with('Z'))
}
