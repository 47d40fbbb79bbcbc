//! The command line as a newcomer meets it.

use std::{
    io::Write as _,
    net::TcpListener,
    process::{Command, Output, Stdio},
    time::Duration,
};

use serde_json::{Value, json};

use crate::support::{
    client::{get, request, send},
    eventually,
    fake_pod::{Act, FakePod},
    now,
    process::{
        BINARY, Dev, Edge, KEY_SECRET, Origin, alive, has_models, has_ort, key, root, signal,
    },
};

const LIMIT: Duration = Duration::from_secs(60);

fn run(arguments: &[&str], input: &str) -> Output {
    let mut child = Command::new(BINARY)
        .args(arguments)
        .current_dir(root())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

fn words(output: &Output) -> String {
    String::from_utf8_lossy(&[output.stdout.clone(), output.stderr.clone()].concat()).into_owned()
}

#[test]
fn a_good_configuration_passes_the_check() {
    let default = run(&["config", "default"], "");
    assert!(default.status.success());
    let text = String::from_utf8(default.stdout).unwrap();
    let checked = run(&["check", "-c", "-"], &text);
    assert!(checked.status.success(), "{}", words(&checked));
}

/// As behind `head`; and what cannot be written at all is no success.
#[test]
fn whoever_stops_reading_has_enough() {
    let schema = |stdout: Stdio| {
        Command::new(BINARY).args(["config", "schema"]).stdout(stdout).output().unwrap()
    };
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let output = schema(writer.into());
    assert!(output.status.success() && output.stderr.is_empty(), "{}", words(&output));
    let output = schema(std::fs::File::create("/dev/full").unwrap().into());
    assert!(!output.status.success());
    assert!(words(&output).contains("standard output cannot be written"), "{}", words(&output));
}

#[test]
fn the_schema_knows_the_default_file() {
    let schema = run(&["config", "schema"], "");
    let schema: Value = serde_json::from_slice(&schema.stdout).unwrap();
    assert_eq!(schema["$schema"], "https://json-schema.org/draft/2020-12/schema");
    let limits = &schema["properties"]["edge"]["properties"]["limits"]["properties"];
    assert!(limits.as_object().unwrap().len() > 10, "{limits}");
    assert_eq!(schema["additionalProperties"], false);
}

#[test]
fn a_certificate_that_cannot_be_used_is_told_with_its_field() {
    let default = String::from_utf8(run(&["config", "default"], "").stdout).unwrap();
    let with = default.replacen(
        "  proxy_protocol: []",
        "  tls: {certificates: [{certificate: /nowhere.pem, key: /nowhere-key.pem}]}\n  proxy_protocol: []",
        1,
    );
    let output = run(&["check", "-c", "-"], &with);
    assert!(!output.status.success());
    let said = words(&output);
    assert!(said.contains("edge.tls") && said.contains("/nowhere.pem"), "{said}");
    assert!(run(&["check", "--file-only", "-c", "-"], &with).status.success());
}

#[test]
fn a_model_that_cannot_be_used_is_told_with_its_field() {
    let tiny = root().join("origin-inference/tests/fixtures/tiny");
    let check = |folder: &std::path::Path, expected: &str| {
        let config = json!({
            "access": {"key_secret": KEY_SECRET, "keys": [key("dev", "dev", "nh-dev")]},
            "edge": {
                "listen": "127.0.0.1:1", "admin": {"listen": "127.0.0.1:2"},
                "pods": [{"name": "p", "address": "127.0.0.1:3"}],
                "local": {"roles": ["embed"]},
                "l3": {"embedder": "embed", "routes": [{"mode": "shadow"}]},
            },
            "origin": {
                "listen": "127.0.0.1:4", "admin": {"listen": "127.0.0.1:5"},
                "models": [{"folder": folder, "aliases": ["embed"]}],
            },
        });
        let output = run(&["check", "-c", "-"], &config.to_string());
        let said = words(&output);
        assert!(!output.status.success() && said.contains(expected), "{said}");
        assert!(run(&["check", "--file-only", "-c", "-"], &config.to_string()).status.success());
    };
    check(&tiny, "edge.l3.embedder: `embed` is tiny@1, a model that is to ");
    check(std::path::Path::new("/nowhere"), "origin.models[0].folder: ");
}

#[test]
fn a_bad_configuration_is_exit_code_64_with_every_mistake() {
    let output = run(&["check", "-c", "-"], "edge: {listen: here}\nregion: a b\n");
    assert_eq!(output.status.code(), Some(64));
    let said = words(&output);
    for path in ["edge.listen", "region", "edge.pods", "access"] {
        assert!(said.contains(path), "{path} is not in {said}");
    }
    for role in ["edge", "origin"] {
        assert_eq!(run(&[role, "-c", "/nowhere.yaml"], "").status.code(), Some(64));
    }
}

#[test]
fn a_new_key_is_admitted_by_the_lines_it_comes_with() {
    let output = words(&run(&["key", "alice", "acme", "--user", "Alice B."], ""));
    let line = output.lines().last().unwrap();
    let secret = output.lines().find(|line| line.starts_with("key_secret: ")).unwrap();
    let config = format!(
        "access:\n  {secret}\n  keys:\n    {line}\nedge:\n  listen: 127.0.0.1:1\n  admin: {{listen: '127.0.0.1:2'}}\n  pods: [{{name: p, address: '127.0.0.1:3'}}]\n"
    );
    assert!(run(&["check", "-c", "-"], &config).status.success(), "{config}");
    assert!(line.contains("user: \"Alice B.\""), "{line}");
    assert_ne!(output, words(&run(&["key", "alice", "acme", "--user", "Alice B."], "")));
    // A second key under the secret of a file that has none yet, and is no whole configuration.
    let begun = format!("access:\n  {secret}\nedge: {{listen: '127.0.0.1:1'}}\n");
    let output = run(&["key", "bob", "acme", "-c", "-"], &begun);
    let said = words(&output);
    assert!(output.status.success() && !said.contains("key_secret"), "{said}");
    assert!(said.contains("hmac_sha256"), "{said}");
}

#[test]
fn a_port_in_use_is_named_with_the_flag_that_changes_it() {
    let held = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = held.local_addr().unwrap().port().to_string();
    for flag in ["--port", "--admin-port", "--pod-ports", "--dns-port"] {
        let ports =
            [("--port", "0"), ("--admin-port", "0"), ("--pod-ports", "0,0"), ("--dns-port", "0")];
        let mut arguments = vec!["dev"];
        for (name, free) in ports {
            arguments.extend([name, if name == flag { port.as_str() } else { free }]);
        }
        let output = run(&arguments, "");
        let said = words(&output);
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains(&port) && said.contains(flag), "{said}");
    }
}

fn origin_config(model: &str, library: Option<&str>) -> String {
    let library = library.map(|path| format!("\n  ort_library: {path}")).unwrap_or_default();
    format!(
        "origin:\n  listen: 127.0.0.1:0\n  admin: {{listen: '127.0.0.1:0'}}\n  models: [{{folder: {model}}}]{library}\n"
    )
}

fn check_origin_fails(config: &str, words_expected: &[&str]) {
    let output = run(&["origin", "-c", "-"], config);
    let said = words(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(!said.contains("panicked"), "{said}");
    for word in words_expected {
        assert!(said.contains(word), "`{word}` is not in {said}");
    }
}

#[test]
fn a_missing_or_wrong_library_is_told_with_its_path_and_the_fix() {
    let model = "origin-inference/tests/fixtures/tiny";
    check_origin_fails(
        &origin_config(model, Some("/nowhere/lib.so")),
        &["/nowhere/lib.so", "make setup"],
    );
    let no_library = root().join("Cargo.toml");
    let no_library = no_library.to_str().unwrap();
    check_origin_fails(&origin_config(model, Some(no_library)), &[no_library, "make setup"]);
}

#[test]
fn a_missing_model_is_told_with_its_path() {
    check_origin_fails(
        &origin_config("/nowhere/model", None),
        &["/nowhere/model", "no such folder"],
    );
}

#[test]
fn a_model_folder_is_looked_into() {
    if !has_models() {
        return;
    }
    let check = |folder: &str, expected: &[&str]| {
        let output = run(&["model", "check", folder], "");
        let said = words(&output);
        assert!(output.status.success(), "{folder}: {said}");
        for word in expected {
            assert!(said.contains(word), "`{word}` is not in {said}");
        }
    };
    let batched = "batching: on";
    check("origin-inference/models/nearhop-mini", &["in place", batched, "fill in the middle: "]);
    check(".models/genai", &["onnxruntime-genai", "in place", batched]);
    check(".models/optimum", &["Optimum", "gathered", batched]);
    check(".models/dynamic", &["batching: off", "DynamicQuantizeLinear"]);
    check(".models/all-minilm-l6-v2", &["embed", "384 values", batched]);
    for (folder, reason) in [
        (".models/old-merged", "use_cache_branch"),
        (".models/gpt-bigcode", "key_value"),
        ("/nowhere", "no such folder"),
    ] {
        let output = run(&["model", "check", folder], "");
        let said = words(&output);
        assert!(!output.status.success() && said.contains(reason), "{folder}: {said}");
    }
}

#[tokio::test]
async fn dev_serves_a_folder_as_it_was_published() {
    if !has_models() {
        return;
    }
    let dev = Dev::start(&["--model", ".models/optimum", "--pod-ports", "0"]);
    assert_eq!(dev.ready()["model"], "optimum");
    let output = run(&["dev", "--model", ".models/all-minilm-l6-v2"], "");
    assert!(words(&output).contains("embeds texts"), "{}", words(&output));
}

fn children(dev: &Dev) -> Vec<u64> {
    vec![dev.edge_pid(), dev.pod_pid(0), dev.pod_pid(1)]
}

async fn all_end(pids: Vec<u64>) {
    eventually("every child has ended", LIMIT, || {
        let left = pids.iter().any(|pid| alive(*pid));
        async move { (!left).then_some(()) }
    })
    .await;
}

#[tokio::test]
async fn ctrl_c_stops_everything_even_a_stopped_pod() {
    if !has_ort() {
        return;
    }
    let mut dev = Dev::start(&[]);
    let pids = children(&dev);
    signal(dev.pod_pid(0), "STOP");
    let began = now();
    signal(dev.pid().into(), "INT");
    assert!(dev.wait().success());
    eprintln!("stopped after {} ms", began.elapsed().as_millis());
    all_end(pids).await;
}

/// Reads a stream to its end, sending SIGTERM to `pid` at its first piece.
async fn stream_through_sigterm(address: &str, pid: u64, body: &Value) {
    let request = request("/v1/completions", body, &[]);
    let mut answer = send(address, request).await.unwrap();
    let mut text = String::new();
    while let Some(piece) = answer.piece().await.unwrap() {
        if text.is_empty() {
            signal(pid, "TERM");
        }
        text.push_str(std::str::from_utf8(&piece).unwrap());
    }
    assert!(text.ends_with("data: [DONE]\n\n"), "{text}");
    drop(answer);
    all_end(vec![pid]).await;
}

#[tokio::test]
async fn a_terminated_edge_finishes_what_runs() {
    let pod = FakePod::start(Act::Slow("hello there"));
    let edge = Edge::start(&[pod.address], |_| {});
    let body = json!({"model": "fake", "prompt": "a", "stream": true});
    stream_through_sigterm(&edge.address, edge.pid(), &body).await;
}

#[tokio::test]
async fn a_terminated_pod_finishes_what_runs() {
    if !has_ort() {
        return;
    }
    let pod = Origin::start();
    let body = json!({
        "model": "tiny", "prompt": "a", "stream": true, "max_tokens": 200, "temperature": 1.5, "seed": 5,
    });
    stream_through_sigterm(&pod.address, pod.pid(), &body).await;
}

#[tokio::test]
async fn children_die_with_a_killed_parent() {
    if !has_ort() {
        return;
    }
    let mut dev = Dev::start(&[]);
    let pids = children(&dev);
    signal(dev.pid().into(), "KILL");
    dev.wait();
    all_end(pids).await;
}

#[tokio::test]
async fn a_dead_pod_stays_dead() {
    if !has_ort() {
        return;
    }
    let dev = Dev::start(&[]);
    signal(dev.pod_pid(0), "KILL");
    eventually("the edge notices", LIMIT, || async { (!dev.pod_ready(0).await).then_some(()) })
        .await;
    assert!(dev.pod_ready(1).await);
}

#[tokio::test]
async fn with_restart_a_dead_pod_comes_back_where_it_was() {
    if !has_ort() {
        return;
    }
    let dev = Dev::start(&["--restart"]);
    signal(dev.pod_pid(0), "KILL");
    all_end(vec![dev.pod_pid(0)]).await;
    let listen = dev.pod_listen(0);
    eventually("the pod is back", LIMIT, || async {
        get(&listen, "/readyz", &[]).await.ok().filter(|answer| answer.status == 200)
    })
    .await;
}
