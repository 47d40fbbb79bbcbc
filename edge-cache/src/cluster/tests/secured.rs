//! TLS, and a user with no more rights than are documented.

use nearhop_test_redis::{Options, PASSWORD, USER, start_or_skip};

use super::{super::ClusterError, *};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tls_and_the_documented_rights_are_enough() {
    let _turn = TURN.lock().await;
    let options = Options { tls: true, users: true, ..Options::default() };
    let Some(redis) = start_or_skip(options) else { return };
    let good = Settings {
        username: Some(USER.to_owned()),
        password: Some(Password::new(PASSWORD)),
        ..settings(&redis)
    };
    let cluster = connected(&good).await;
    cluster.put(&place(1), 0, bytes("plainly-readable"), TTL).await.unwrap();
    cluster.bucket(&place(1)).await.unwrap();
    cluster.set_if_absent("key", bytes("value")).await.unwrap();
    cluster.get("key").await.unwrap();
    cluster.count(b"k", 1, TTL).await.unwrap();
    let id = appended(&cluster, &bytes("record")).await.id;
    cluster.read_after(id).await.unwrap();
    let mut wakeups = cluster.wakeups();
    eventually("a wake-up", async || {
        appended(&cluster, &bytes("x")).await;
        tokio::time::timeout(Duration::from_millis(200), wakeups.next()).await.ok()
    })
    .await;
    assert!(redis.dump().unwrap().windows(16).any(|window| window == b"plainly-readable"));
    let swept = cluster.sweep(place(1).tenant, LIMIT).await;
    assert_eq!((swept.removed, swept.unfinished), (1, None));
    cluster.delete("key").await.unwrap();

    for (what, wrong, expected) in [
        (
            "the password",
            Settings { password: Some(Password::new("wrong")), ..good.clone() },
            "check the configured username and password",
        ),
        (
            "no user",
            Settings { username: None, password: None, ..good.clone() },
            "check the configured username and password",
        ),
        (
            "an authority of somebody else",
            Settings { tls: Some(Tls { ca: None }), ..good.clone() },
            "see the `ca` setting",
        ),
        ("no TLS", Settings { tls: None, ..good.clone() }, "Redis at 127.0.0.1"),
    ] {
        let cluster = Cluster::new(&wrong).unwrap();
        let problem = eventually(what, async || {
            let problem = cluster.problem()?;
            assert!(!problem.contains("wrong\""), "{problem}");
            (!problem.contains("not connected yet")).then_some(problem)
        })
        .await;
        assert!(problem.contains(expected), "{what}: {problem}");
        let trouble = cluster.bucket(&place(1)).await.unwrap_err();
        assert_eq!(trouble.name(), "away", "{trouble}");
        assert!(trouble.to_string().contains(expected), "{what}: {trouble}");
    }

    // A key that the user has no right to is the configuration's fault, and said so.
    let elsewhere = connected(&Settings { prefix: "elsewhere".to_owned(), ..good }).await;
    let trouble = elsewhere.bucket(&place(1)).await.unwrap_err();
    assert!(trouble.to_string().contains("grant the user this right"), "{trouble}");
}

#[tokio::test]
async fn settings_that_can_never_work_are_refused() {
    let good = Settings { nodes: vec![("127.0.0.1".to_owned(), 1)], ..Settings::default() };
    assert!(Cluster::new(&good).is_ok());
    let refused = |settings: Settings| Cluster::new(&settings).err().unwrap();
    let none = refused(Settings { nodes: vec![], ..good.clone() });
    assert!(matches!(none, ClusterError::NoNodes));
    for prefix in ["", "a b", "a{b", "*", &"x".repeat(65)] {
        let odd = refused(Settings { prefix: prefix.to_owned(), ..good.clone() });
        assert!(matches!(odd, ClusterError::Prefix(_)), "{prefix}");
    }
    let missing = Some(Tls { ca: Some("/nowhere/ca.pem".into()) });
    let missing = refused(Settings { tls: missing, ..good });
    assert!(missing.to_string().contains("/nowhere/ca.pem"), "{missing}");
}
