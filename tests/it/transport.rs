//! TLS, HTTP/2, the PROXY protocol, peers and browsers: with the clients people have.

use std::{process::Command, time::Duration};

use http::{Request, StatusCode};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpSocket, TcpStream},
    time::timeout,
};

use crate::support::{
    certificates::Authority,
    client::{complete, get, send},
    eventually,
    fake_pod::{Act, FakePod},
    process::{Dev, Edge, KEY, Origin, has_ort},
    unique,
};

const LIMIT: Duration = Duration::from_secs(30);

/// What a program says on standard output; it must succeed.
fn output(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments:?}: {errors}{said}");
    said
}

/// curl's answer to a completion, with its verdict on the protocol and status in the last line.
fn curl(url: &str, more: &[&str]) -> String {
    let body = format!(r#"{{"model":"fake","prompt":"{}"}}"#, unique());
    let authorization = format!("authorization: {KEY}");
    let mut arguments = vec!["-sS", "-m", "30", "-H", &authorization, "-d", &body];
    arguments.extend(["-w", "\n%{http_version} %{http_code}"]);
    arguments.extend(more);
    arguments.push(url);
    output("curl", &arguments)
}

/// An edge with two certificates, and the authority that signed them.
fn tls_edge(pod: &FakePod) -> (Edge, Authority) {
    let mut authority = None;
    let edge = Edge::with(&[pod.address], |config, folder| {
        let made = Authority::new(folder);
        let certificates =
            json!([made.issue("one", &["one.test"]), made.issue("two", &["*.two.test"])]);
        config["edge"]["tls"] = json!({ "certificates": certificates });
        authority = Some(made);
    });
    (edge, authority.unwrap())
}

fn port(address: &str) -> &str {
    address.rsplit(':').next().unwrap()
}

/// The certificate that is shown to a client which asks for `name`.
fn shown(edge: &Edge, name: &str, more: &[&str]) -> String {
    let mut arguments =
        vec!["s_client", "-connect", &edge.address, "-servername", name, "-showcerts"];
    arguments.extend(more);
    let output = Command::new("openssl")
        .args(&arguments)
        .stdin(std::process::Stdio::null())
        .output()
        .unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn leaf(shown: &str) -> &str {
    let begin = shown.find("-----BEGIN CERTIFICATE-----").unwrap_or_else(|| panic!("{shown}"));
    let end = shown[begin..].find("-----END CERTIFICATE-----").unwrap();
    &shown[begin..begin + end]
}

#[tokio::test]
async fn curl_speaks_both_versions_over_tls_and_without() {
    let pod = FakePod::start(Act::Answer("ok"));
    let (edge, authority) = tls_edge(&pod);
    let url = format!("https://one.test:{}/v1/completions", port(&edge.address));
    let resolve = format!("one.test:{}:127.0.0.1", port(&edge.address));
    let (file, trust) = (authority.file(), "--cacert");
    let tls = [trust, file.to_str().unwrap(), "--resolve", resolve.as_str()];
    for (version, expected) in [("--http1.1", "1.1 200"), ("--http2", "2 200")] {
        let said = curl(&url, &[&tls[..], &[version]].concat());
        assert!(said.contains("\"ok\"") && said.ends_with(expected), "{version}: {said}");
    }
    for (version, expected) in
        [("--tlsv1.3", "2 200"), ("--tls-max=1.2", "2 200")].map(|(v, e)| (v.replace('=', " "), e))
    {
        let version: Vec<&str> = version.split(' ').collect();
        assert!(curl(&url, &[&tls[..], &version].concat()).ends_with(expected));
    }
    let plain = Edge::start(&[pod.address], |_| {});
    let url = format!("http://{}/v1/completions", plain.address);
    for (version, expected) in
        [("--http1.1", "1.1 200"), ("--http2-prior-knowledge", "2 200"), ("--http1.0", "1.1 200")]
    {
        let said = curl(&url, &[version]);
        assert!(said.contains("\"ok\"") && said.ends_with(expected), "{version}: {said}");
    }
}

#[tokio::test]
async fn a_client_sees_the_certificate_of_the_name_it_asks_for() {
    let pod = FakePod::start(Act::Answer("ok"));
    let (edge, _authority) = tls_edge(&pod);
    let one = shown(&edge, "one.test", &[]);
    let two = shown(&edge, "a.two.test", &["-alpn", "h2,http/1.1"]);
    assert_ne!(leaf(&one), leaf(&two));
    assert_eq!(leaf(&shown(&edge, "nobody.test", &[])), leaf(&one), "the first is the default");
    assert!(two.contains("ALPN protocol: h2"), "{two}");
    let old = shown(&edge, "one.test", &["-tls1_1", "-cipher", "ALL:@SECLEVEL=0"]);
    assert!(old.contains("no peer certificate available"), "TLS 1.1 is not spoken: {old}");
}

#[tokio::test]
async fn a_new_certificate_is_seen_by_new_connections_and_a_broken_one_never() {
    let pod = FakePod::start(Act::Answer("ok"));
    let (edge, authority) = tls_edge(&pod);
    let first = shown(&edge, "one.test", &[]);
    let file = edge.folder().join("one.pem");
    std::fs::write(&file, "no certificate").unwrap();
    eventually("the broken file is told", LIMIT, || async {
        let told = edge.admin("/config").await["refused"].as_str().map(str::to_owned);
        told.filter(|told| told.contains("one.pem"))
    })
    .await;
    assert_eq!(leaf(&shown(&edge, "one.test", &[])), leaf(&first), "the old one stays");
    authority.issue("one", &["one.test"]);
    eventually("the new certificate is shown", LIMIT, || async {
        (leaf(&shown(&edge, "one.test", &[])) != leaf(&first)).then_some(())
    })
    .await;
    assert_eq!(edge.admin("/config").await["refused"], Value::Null);
}

#[tokio::test]
async fn h2load_and_nghttp_work_against_it() {
    let pod = FakePod::start(Act::Answer("ok"));
    let (edge, _authority) = tls_edge(&pod);
    let body = edge.folder().join("body.json");
    std::fs::write(&body, r#"{"model":"fake","prompt":"h2load"}"#).unwrap();
    let url = format!("https://{}/v1/completions", edge.address);
    let header = format!("authorization: {KEY}");
    let said = output(
        "h2load",
        &["-n", "400", "-c", "4", "-m", "20", "-d", body.to_str().unwrap(), "-H", &header, &url],
    );
    assert!(said.contains("400 succeeded, 0 failed, 0 errored, 0 timeout"), "{said}");
    assert!(said.contains("status codes: 400 2xx"), "{said}");
    let said = output("nghttp", &["-v", &format!("https://{}/health", edge.address)]);
    assert!(said.contains(":status: 200") && said.contains(r#"{"status":"ok"}"#), "{said}");
}

#[tokio::test]
async fn pods_and_edges_show_each_other_certificates() {
    if !has_ort() {
        return;
    }
    let dev = Dev::start(&["--tls"]);
    let authority = dev.ready()["authority"].as_str().unwrap().to_owned();
    let said = output(
        "curl",
        &[
            "-sS",
            "--cacert",
            &authority,
            "-H",
            &format!("authorization: {KEY}"),
            "-d",
            r#"{"model":"nearhop-mini","prompt":"def add(a, b):\n    return ","max_tokens":4}"#,
            &format!("https://{}/v1/completions", dev.edge()),
        ],
    );
    assert!(said.contains("text_completion"), "{said}");
    let pod = format!("https://{}/readyz", dev.pod_listen(0));
    let refused = Command::new("curl")
        .args(["-sS", "-m", "10", "--cacert", &authority, &pod])
        .output()
        .unwrap();
    assert!(!refused.status.success(), "a pod serves nobody without a certificate");
}

#[tokio::test]
async fn an_edge_believes_no_pod_with_anothers_name_and_no_pod_such_an_edge() {
    if !has_ort() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new(folder.path());
    let origin = Origin::with(|origin| {
        origin["tls"] = authority.mutual("pod", &["pods.test"], &["edge.test"]);
    });
    let address = origin.address.parse().unwrap();
    let try_with = |own: &str, expected: &str| {
        let tls = authority.mutual(&format!("edge-{}", unique()), &[own], &[expected]);
        Edge::unready(&[address], |edge| edge["upstream"] = json!({ "tls": tls }))
    };
    let right = try_with("edge.test", "pods.test");
    let ready = |edge: &Edge| {
        let admin = edge.admin.clone();
        async move { get(&admin, "/readyz", &[]).await.unwrap().status == StatusCode::OK }
    };
    eventually("the right names", LIMIT, || async { ready(&right).await.then_some(()) }).await;
    for (own, expected) in [("other.test", "pods.test"), ("edge.test", "other.test")] {
        let wrong = try_with(own, expected);
        eventually("two checks have failed", LIMIT, || async {
            let failed = wrong
                .metric("nearhop_probes_total{class=\"pod\",result=\"failed\",upstream=\"fake-0\"}")
                .await;
            (failed >= 2.0).then_some(())
        })
        .await;
        assert!(!ready(&wrong).await, "{own} {expected}");
    }
}

#[tokio::test]
async fn only_edges_reach_the_peer_listener() {
    let pod = FakePod::start(Act::Answer("ok"));
    let mut authority = None;
    let edge = Edge::with(&[pod.address], |config, folder| {
        let made = Authority::new(folder);
        let tls = made.mutual("edge", &["a.edges.test"], &["*.edges.test"]);
        config["edge"]["peer"] = json!({"listen": "127.0.0.1:0", "tls": tls});
        authority = Some(made);
    });
    let authority = authority.unwrap();
    let peer = edge.ready["peer"].as_str().unwrap().to_owned();
    let ask = |certificate: Option<&str>, path: &str| {
        let mut arguments =
            vec!["-sS".to_owned(), "-m".to_owned(), "10".to_owned(), "-k".to_owned()];
        if let Some(name) = certificate {
            let file = |end: &str| edge.folder().join(format!("{name}{end}")).display().to_string();
            arguments.extend([
                "--cert".to_owned(),
                file(".pem"),
                "--key".to_owned(),
                file("-key.pem"),
            ]);
        }
        arguments.push(format!("https://{peer}{path}"));
        let output = Command::new("curl").args(&arguments).output().unwrap();
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
    };
    authority.issue("b", &["b.edges.test"]);
    authority.issue("stranger", &["b.pods.test"]);
    let view = ask(Some("b"), "/peer/v1/view").unwrap();
    let view: Value = serde_json::from_str(&view).unwrap();
    assert_eq!(
        (&view["region"], &view["ready"], &view["pods_ready"]),
        (&json!("test"), &json!(true), &json!(1))
    );
    assert!(
        ask(Some("b"), "/v1/models").unwrap().contains("not_found"),
        "peers get what is theirs"
    );
    assert_eq!(ask(None, "/peer/v1/view"), None);
    assert_eq!(ask(Some("stranger"), "/peer/v1/view"), None);
    assert_eq!(
        get(&edge.address, "/peer/v1/view", &[]).await.unwrap().status,
        StatusCode::NOT_FOUND
    );
}

/// A PROXY header of version 2 for a client at 192.0.2.7:4711.
fn proxy_header() -> Vec<u8> {
    let mut header = b"\r\n\r\n\0\r\nQUIT\n".to_vec();
    header.extend([0x21, 0x11, 0, 12, 192, 0, 2, 7, 127, 0, 0, 1, 0x12, 0x67, 0x1f, 0x90]);
    header
}

#[tokio::test]
async fn a_trusted_balancer_names_the_client_and_nobody_else_may() {
    let pod = FakePod::start(Act::Answer("ok"));
    let edge = Edge::start(&[pod.address], |edge| {
        edge["proxy_protocol"] = json!(["127.0.0.0/30"]);
    });
    let request = b"GET /health HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    let ask = |from: &'static str, bytes: Vec<u8>| {
        let to = edge.address.parse().unwrap();
        async move {
            let socket = TcpSocket::new_v4().unwrap();
            socket.bind(from.parse().unwrap()).unwrap();
            let mut stream: TcpStream = socket.connect(to).await.unwrap();
            let _ = stream.write_all(&bytes).await;
            let mut answer = Vec::new();
            let _ = timeout(LIMIT, stream.read_to_end(&mut answer)).await.unwrap();
            String::from_utf8_lossy(&answer).into_owned()
        }
    };
    let named = [proxy_header(), request.to_vec()].concat();
    assert!(ask("127.0.0.1:0", named.clone()).await.starts_with("HTTP/1.1 200"));
    assert_eq!(ask("127.0.0.1:0", request.to_vec()).await, "", "a balancer must name its client");
    assert!(ask("127.0.0.9:0", request.to_vec()).await.starts_with("HTTP/1.1 200"));
    assert!(!ask("127.0.0.9:0", named).await.starts_with("HTTP/1.1 200"));
    eventually("it is counted", LIMIT, || async {
        let refused = "nearhop_connections_refused_total{reason=\"proxy_protocol\"}";
        (edge.metric(refused).await >= 1.0).then_some(())
    })
    .await;
    let told = |log: String| log.lines().any(|line| line.contains("192.0.2.7"));
    eventually("the access log names it", LIMIT, || async { told(edge.log()).then_some(()) }).await;
}

#[tokio::test]
async fn a_listed_page_may_ask_from_a_browser() {
    let pod = FakePod::start(Act::Answer("ok"));
    let edge = Edge::start(&[pod.address], |edge| {
        edge["cors"] = json!({"origins": ["https://ide.test"]});
    });
    let preflight = |origin: &str| {
        let request = Request::options("/v1/completions")
            .header("host", "x")
            .header("origin", origin)
            .header("access-control-request-method", "POST")
            .header("access-control-request-headers", "authorization,content-type")
            .body(bytes::Bytes::new())
            .unwrap();
        async { send(&edge.address, request).await.unwrap().whole().await.unwrap() }
    };
    let yes = preflight("https://ide.test").await;
    assert_eq!(yes.status, StatusCode::NO_CONTENT);
    assert_eq!(yes.header("access-control-allow-origin"), "https://ide.test");
    assert_eq!(yes.header("access-control-allow-headers"), "authorization,content-type");
    let no = preflight("https://evil.test").await;
    assert_eq!(no.header("access-control-allow-origin"), "");
    let body = json!({"model": "fake", "prompt": unique()});
    let answer = crate::support::client::post(
        &edge.address,
        "/v1/completions",
        &body,
        &[("origin", "https://ide.test")],
    )
    .await;
    assert_eq!(answer.header("access-control-allow-origin"), "https://ide.test");
    let plain = Edge::start(&[pod.address], |_| {});
    let answer = complete(&plain.address, &body).await;
    assert_eq!(answer.header("vary"), "", "without pages nothing is said of them");
}
