//! The regional tier against Qdrant's own engine. No test measures speed: what is waited for is an
//! outcome, with a deadline.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    Limited, Limits, Neighbour, Owner, Partition, Point, Purged, Regional, Trouble, Wanted,
    qdrant::{ApiKey, Qdrant, Quantization, Settings},
};
use nearhop_admin::clock;
use nearhop_test_qdrant::{Options, start_or_skip};

const DIMENSIONS: usize = 32;
const LIMIT: Duration = Duration::from_secs(60);
/// For what never comes; long enough for a slow machine where something does.
const PATIENT: Duration = Duration::from_millis(500);
const MINE: Partition = Partition(*b"partition-of-one");
const OTHERS: Partition = Partition(*b"partition-of-two");

type Engine = nearhop_test_qdrant::Qdrant;

fn settings(engine: &Engine) -> Settings {
    Settings {
        url: engine.url(),
        ca: engine.authority(),
        dimensions: DIMENSIONS,
        // A slow machine is no reason to fail.
        settle: LIMIT / 3,
        ..Settings::default()
    }
}

async fn prepared(engine: &Engine) -> Qdrant {
    let qdrant = Qdrant::new(settings(engine)).unwrap();
    qdrant.prepare().await.unwrap();
    qdrant
}

/// A unit vector at so many degrees from the first axis.
fn at(degrees: f32) -> Vec<f32> {
    let mut vector = vec![0.0; DIMENSIONS];
    (vector[1], vector[0]) = degrees.to_radians().sin_cos();
    vector
}

fn owner() -> Owner {
    Owner { tenant: 1, scope: 2, model: 3, session: 4 }
}

fn point(id: u128, partition: Partition, degrees: f32) -> Point {
    Point {
        id,
        partition,
        owner: owner(),
        vector: at(degrees),
        stored: 1000,
        generation: 7,
        sealed: format!("answer {id}").into_bytes(),
    }
}

async fn near(
    tier: &dyn Regional,
    partition: Partition,
    degrees: f32,
) -> Result<Vec<Neighbour>, Trouble> {
    tier.nearest(Wanted { partition, vector: &at(degrees), floor: 0.95, most: 4 }).await
}

async fn ids(tier: &dyn Regional, partition: Partition, degrees: f32) -> Vec<u128> {
    near(tier, partition, degrees).await.unwrap().iter().map(|found| found.id).collect()
}

async fn trouble(tier: &dyn Regional) -> &'static str {
    near(tier, MINE, 0.0).await.map_or_else(|trouble| trouble.name(), |_| "answered")
}

#[tokio::test]
async fn what_was_put_is_found_in_its_partition_and_in_no_other() {
    let Some(engine) = start_or_skip(Options::default()) else { return };
    let qdrant = prepared(&engine).await;
    qdrant.put(point(u128::MAX, MINE, 0.0)).await.unwrap();
    let found = near(&qdrant, MINE, 5.0).await.unwrap();
    assert_eq!(found.len(), 1);
    let Neighbour { id, similarity, owner: whose, stored, generation, sealed } = &found[0];
    assert_eq!((*id, *whose, *stored, *generation), (u128::MAX, owner(), 1000, 7));
    assert_eq!(sealed, format!("answer {}", u128::MAX).as_bytes());
    assert!((similarity - 5.0_f32.to_radians().cos()).abs() < 1e-4, "{similarity}");
    assert_eq!(ids(&qdrant, OTHERS, 0.0).await, []);
}

#[tokio::test]
async fn the_same_id_replaces_and_the_nearest_comes_first() {
    let Some(engine) = start_or_skip(Options::default()) else { return };
    let qdrant = prepared(&engine).await;
    for (id, degrees) in [(1, 0.0), (2, 3.0), (3, 6.0), (1, 9.0)] {
        qdrant.put(point(id, MINE, degrees)).await.unwrap();
    }
    assert_eq!(ids(&qdrant, MINE, 8.0).await, [1, 3, 2]);
}

#[tokio::test]
async fn nothing_below_the_floor_comes_back() {
    let Some(engine) = start_or_skip(Options::default()) else { return };
    let qdrant = prepared(&engine).await;
    qdrant.put(point(1, MINE, 0.0)).await.unwrap();
    // The cosine of 18 degrees is .951, of 19 degrees .946.
    assert_eq!(ids(&qdrant, MINE, 18.0).await, [1]);
    assert_eq!(ids(&qdrant, MINE, 19.0).await, []);
    assert_eq!(ids(&qdrant, MINE, 180.0).await, []);
}

#[tokio::test]
async fn a_purge_takes_what_it_names_and_nothing_else() {
    let Some(engine) = start_or_skip(Options::default()) else { return };
    let qdrant = prepared(&engine).await;
    let other = Owner { tenant: 11, scope: 12, model: 13, session: 0 };
    for (what, left) in [
        (Purged::Tenant(1), vec![2]),
        (Purged::Scope(12), vec![1]),
        (Purged::Model(u64::MAX), vec![1, 2]),
        (Purged::Model(3), vec![2]),
        (Purged::Session(4), vec![2]),
        (Purged::Before(2000), vec![2]),
        (Purged::Before(2001), vec![]),
        (Purged::All, vec![]),
    ] {
        qdrant.put(point(1, MINE, 0.0)).await.unwrap();
        qdrant.put(Point { owner: other, stored: 2000, ..point(2, MINE, 1.0) }).await.unwrap();
        qdrant.purge(what).await.unwrap();
        assert_eq!(ids(&qdrant, MINE, 0.0).await, left, "{what:?}");
    }
}

#[tokio::test]
async fn a_thousand_points_of_others_with_the_very_same_vector_never_come_back() {
    let Some(engine) = start_or_skip(Options::default()) else { return };
    let qdrant = Arc::new(prepared(&engine).await);
    let mut puts = tokio::task::JoinSet::new();
    for other in 0..8_u128 {
        let qdrant = Arc::clone(&qdrant);
        puts.spawn(async move {
            for number in 0..125 {
                let id = (other * 125 + number) << 8;
                // Most differ from mine in one bit only.
                let mut bytes = MINE.0;
                bytes[usize::try_from(number % 16).unwrap()] ^= 1 << other;
                qdrant.put(point(id, Partition(bytes), 0.0)).await.unwrap();
            }
        });
    }
    while let Some(done) = puts.join_next().await {
        done.unwrap();
    }
    assert_eq!(ids(qdrant.as_ref(), MINE, 0.0).await, []);
    qdrant.put(point(1, MINE, 10.0)).await.unwrap();
    assert_eq!(ids(qdrant.as_ref(), MINE, 0.0).await, [1], "a thousand nearer ones do not hide it");
}

#[tokio::test]
async fn an_engine_that_forgets_the_filter_is_not_believed() {
    let Some(engine) = start_or_skip(Options::default()) else { return };
    let qdrant = prepared(&engine).await;
    qdrant.put(point(1, MINE, 0.0)).await.unwrap();
    qdrant.put(point(2, OTHERS, 0.0)).await.unwrap();
    engine.fault(r#"{"unfiltered": true}"#).unwrap();
    let said = near(&qdrant, MINE, 0.0).await;
    assert_eq!(said, Err(Trouble::Failed("a neighbour of another partition".to_owned())));
}

#[tokio::test]
async fn what_was_put_survives_a_crash_of_the_server_and_so_does_the_client() {
    let Some(engine) = start_or_skip(Options::default()) else { return };
    let qdrant = prepared(&engine).await;
    qdrant.put(point(1, MINE, 0.0)).await.unwrap();
    qdrant.put(point(2, OTHERS, 0.0)).await.unwrap();
    qdrant.purge(Purged::All).await.unwrap();
    qdrant.put(point(3, MINE, 0.0)).await.unwrap();
    engine.kill().unwrap();
    assert_eq!(trouble(&qdrant).await, "failed");
    engine.restart().unwrap();
    assert_eq!(ids(&qdrant, MINE, 0.0).await, [3]);
    qdrant.prepare().await.unwrap();
    assert_eq!(ids(&qdrant, OTHERS, 0.0).await, []);
}

#[tokio::test]
async fn a_connection_is_kept_and_a_dead_one_is_asked_for_once_more() {
    let Some(engine) = start_or_skip(Options::default()) else { return };
    let settings = Settings { idle: LIMIT, ..settings(&engine) };
    let qdrant = Qdrant::new(settings).unwrap();
    qdrant.prepare().await.unwrap();
    qdrant.put(point(1, MINE, 0.0)).await.unwrap();
    let before = engine.seen().unwrap();
    for _ in 0..20 {
        assert_eq!(ids(&qdrant, MINE, 0.0).await, [1]);
    }
    let after = engine.seen().unwrap();
    assert_eq!(after.connections - before.connections, 1, "the test's own");
    assert_eq!(after.requests - before.requests, 20);
    // The server takes the request, and closes the connection.
    engine.fault(r#"{"close": true, "times": 1}"#).unwrap();
    assert_eq!(ids(&qdrant, MINE, 0.0).await, [1], "a look-up is asked again");
    engine.fault(r#"{"close": true, "times": 1}"#).unwrap();
    let put = qdrant.put(point(2, MINE, 0.0)).await;
    assert!(matches!(put, Err(Trouble::Failed(_))), "a write that was sent is not");
    engine.fault(r#"{"close": true, "times": 1}"#).unwrap();
    assert_eq!(trouble(&qdrant).await, "failed", "nor is anything on a connection that was new");
}

#[tokio::test]
async fn every_fault_has_a_name() {
    let Some(engine) = start_or_skip(Options::default()) else { return };
    let patient = prepared(&engine).await;
    let hasty = Settings { settle: PATIENT, ..settings(&engine) };
    let hasty = Qdrant::new(hasty).unwrap();
    for (fault, expected) in [
        (r#"{"hang": true}"#, "late"),
        (r#"{"garbage": true}"#, "failed"),
        (r#"{"junk": true}"#, "failed"),
        (r#"{"huge": true}"#, "failed"),
        (r#"{"close": true}"#, "failed"),
        (r#"{"status": 500}"#, "failed"),
        (r#"{"status": 404}"#, "failed"),
        (r#"{"status": 302}"#, "failed"),
        (r#"{"status": 429}"#, "busy"),
    ] {
        engine.fault(fault).unwrap();
        let qdrant = if expected == "late" { &hasty } else { &patient };
        assert_eq!(trouble(qdrant).await, expected, "{fault}");
        let put = qdrant.put(point(1, MINE, 0.0)).await.unwrap_err();
        assert_eq!(put.name(), expected, "{fault}");
        let purge = qdrant.purge(Purged::All).await.unwrap_err();
        assert_eq!(purge.name(), expected, "{fault}");
        engine.fault("{}").unwrap();
        eventually("well again", async || trouble(qdrant).await == "answered").await;
    }
}

#[tokio::test]
async fn the_servers_words_are_kept_and_the_key_is_not_in_them() {
    let Some(engine) = start_or_skip(Options { api_key: Some("hunter2"), ..Options::default() })
    else {
        return;
    };
    let with = |key: Option<&str>| {
        let api_key = key.map(ApiKey::new);
        Qdrant::new(Settings { api_key, ..settings(&engine) }).unwrap()
    };
    with(Some("hunter2")).prepare().await.unwrap();
    for wrong in [with(None), with(Some("hunter3"))] {
        let said = near(&wrong, MINE, 0.0).await.unwrap_err().to_string();
        assert_eq!(said, "Qdrant answered 401 Unauthorized: check the API key's rights");
        assert!(matches!(wrong.prepare().await, Err(Trouble::Failed(_))));
    }
    engine.fault(r#"{"status": 500}"#).unwrap();
    let said = near(&with(Some("hunter2")), MINE, 0.0).await.unwrap_err().to_string();
    assert_eq!(said, "Qdrant answered 500 Internal Server Error: Service internal error: as told");
}

#[tokio::test]
async fn a_vector_of_another_length_is_refused_by_both_sides() {
    let Some(engine) = start_or_skip(Options::default()) else { return };
    let qdrant = prepared(&engine).await;
    let short = Point { vector: vec![1.0], ..point(1, MINE, 0.0) };
    let said = qdrant.put(short).await.unwrap_err().to_string();
    assert_eq!(said, "a vector of 1 dimensions, not 32");
    let odd = Point { vector: vec![f32::NAN; DIMENSIONS], ..point(1, MINE, 0.0) };
    assert_eq!(qdrant.put(odd).await.unwrap_err().name(), "failed");
    let other = Qdrant::new(Settings { dimensions: 8, ..settings(&engine) }).unwrap();
    let said = other.prepare().await.unwrap_err().to_string();
    assert!(said.starts_with("the collection holds 32 dimensions by Cosine"), "{said}");
    let vector = [1.0; 8];
    let wanted = Wanted { partition: MINE, vector: &vector, floor: 0.0, most: 1 };
    let said = other.nearest(wanted).await.unwrap_err().to_string();
    assert!(said.contains("expected dim: 32, got 8"), "{said}");
}

#[tokio::test]
async fn many_prepare_at_once_and_again() {
    let Some(engine) = start_or_skip(Options::default()) else { return };
    let clients: Vec<Qdrant> = (0..4).map(|_| Qdrant::new(settings(&engine)).unwrap()).collect();
    let all = clients.iter().map(|client| {
        let client = client.clone();
        tokio::spawn(async move { client.prepare().await })
    });
    for one in all.collect::<Vec<_>>() {
        one.await.unwrap().unwrap();
    }
    clients[0].put(point(1, MINE, 0.0)).await.unwrap();
    assert_eq!(ids(&clients[3], MINE, 0.0).await, [1]);
}

/// Vectors in all directions, the same ones each time.
fn directions() -> impl Iterator<Item = Vec<f32>> {
    let mut state = 7_u32;
    let mut number = move || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        f32::from(u16::try_from(state >> 16).unwrap()) / 32_768.0 - 1.0
    };
    std::iter::repeat_with(move || (0..DIMENSIONS).map(|_| number()).collect())
}

fn cosine(one: &[f32], other: &[f32]) -> f32 {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
    dot(one, other) / (dot(one, one) * dot(other, other)).sqrt()
}

#[tokio::test]
async fn an_indexed_collection_answers_with_the_vectors_own_cosine_from_one_partition() {
    for quantization in [Quantization::Int8, Quantization::Binary] {
        let options = Options { indexed: true, ..Options::default() };
        let Some(engine) = start_or_skip(options) else { return };
        let qdrant = Qdrant::new(Settings { quantization, ..settings(&engine) }).unwrap();
        qdrant.prepare().await.unwrap();
        let vectors: Vec<Vec<f32>> = directions().take(600).collect();
        for (id, vector) in (0..).zip(&vectors) {
            let partition = if id % 2 == 0 { MINE } else { OTHERS };
            let point = Point { vector: vector.clone(), ..point(id, partition, 0.0) };
            qdrant.put(point).await.unwrap();
        }
        assert_eq!(engine.optimize().unwrap(), 600, "codes and graphs are there");
        for (id, vector) in (0..60_u128).zip(&vectors) {
            let wanted = Wanted { partition: MINE, vector, floor: 0.3, most: 4 };
            let found = qdrant.nearest(wanted).await.unwrap();
            assert!(found.iter().all(|found| found.id % 2 == 0), "of another partition");
            assert_eq!(found.first().is_some_and(|found| found.id == id), id % 2 == 0);
            for Neighbour { id, similarity, .. } in found {
                let own = cosine(vector, &vectors[usize::try_from(id).unwrap()]);
                assert!((similarity - own).abs() < 1e-5, "{similarity} is not {own}");
            }
        }
        qdrant.purge(Purged::Tenant(1)).await.unwrap();
        let wanted = Wanted { partition: MINE, vector: &vectors[0], floor: -1.0, most: 4 };
        assert_eq!(qdrant.nearest(wanted).await.unwrap(), []);
    }
}

#[tokio::test]
async fn over_tls_only_its_own_authority_is_trusted() {
    let Some(engine) = start_or_skip(Options { tls: true, ..Options::default() }) else { return };
    let qdrant = prepared(&engine).await;
    qdrant.put(point(1, MINE, 0.0)).await.unwrap();
    assert_eq!(ids(&qdrant, MINE, 0.0).await, [1]);
    let stranger = Qdrant::new(Settings { ca: None, ..settings(&engine) }).unwrap();
    let said = near(&stranger, MINE, 0.0).await.unwrap_err().to_string();
    assert!(said.contains("see the `ca` setting"), "{said}");
    let by_name =
        Settings { url: engine.url().replace("127.0.0.1", "localhost"), ..settings(&engine) };
    let said = near(&Qdrant::new(by_name).unwrap(), MINE, 0.0).await.unwrap_err().to_string();
    assert!(said.contains("mismatch"), "{said}");
}

fn limited(engine: &Engine, settings: Settings, look_up: Duration) -> Limited {
    assert_eq!(settings.url, engine.url());
    let limits = Limits { look_up, write: LIMIT / 3, ..Limits::default() };
    Limited::new(Arc::new(Qdrant::new(settings).unwrap()), limits)
}

#[tokio::test]
async fn a_slow_engine_is_late_for_look_ups_and_not_for_writes() {
    let Some(engine) = start_or_skip(Options::default()) else { return };
    prepared(&engine).await;
    let tier = limited(&engine, settings(&engine), Limits::default().look_up);
    engine.fault(r#"{"delay_ms": 50}"#).unwrap();
    for _ in 0..3 {
        assert_eq!(trouble(&tier).await, "late");
    }
    eventually("open", async || trouble(&tier).await == "open").await;
    tier.put(point(1, MINE, 1.0)).await.unwrap();
    engine.fault("{}").unwrap();
    assert_eq!(ids(&prepared(&engine).await, MINE, 0.0).await, [1]);
}

#[tokio::test]
async fn whatever_goes_wrong_opens_the_breaker_which_closes_again() {
    let options = Options { api_key: Some("right"), ..Options::default() };
    let Some(engine) = start_or_skip(options) else { return };
    let right = Settings { api_key: Some(ApiKey::new("right")), ..settings(&engine) };
    Qdrant::new(right.clone()).unwrap().prepare().await.unwrap();
    let opens = async |tier: &Limited, expected: &str| {
        for _ in 0..3 {
            assert_eq!(trouble(tier).await, expected);
        }
        eventually("open", async || trouble(tier).await == "open").await;
        assert!(tier.is_open());
    };
    for (fault, expected) in [
        (r#"{"hang": true}"#, "late"),
        (r#"{"garbage": true}"#, "failed"),
        (r#"{"close": true}"#, "failed"),
        (r#"{"status": 500}"#, "failed"),
        (r#"{"junk": true}"#, "failed"),
    ] {
        let tier = limited(&engine, right.clone(), PATIENT);
        engine.fault(fault).unwrap();
        opens(&tier, expected).await;
        engine.fault("{}").unwrap();
        eventually("closed", async || trouble(&tier).await == "answered").await;
        assert!(!tier.is_open());
    }
    opens(&limited(&engine, settings(&engine), PATIENT), "failed").await;
}

#[tokio::test]
async fn hung_connections_are_bounded_and_come_back() {
    let Some(engine) = start_or_skip(Options::default()) else { return };
    prepared(&engine).await;
    let few = Settings { connections: 2, settle: Duration::from_millis(300), ..settings(&engine) };
    let qdrant = Qdrant::new(few).unwrap();
    engine.fault(r#"{"hang": true}"#).unwrap();
    let ask = || near(&qdrant, MINE, 0.0);
    let (one, two, three) = tokio::join!(ask(), ask(), ask());
    let mut said = [one, two, three].map(|said| said.unwrap_err().name());
    said.sort_unstable();
    assert_eq!(said, ["busy", "late", "late"]);
    engine.fault("{}").unwrap();
    eventually("well again", async || trouble(&qdrant).await == "answered").await;
}

#[tokio::test]
async fn what_somebody_gave_up_on_leaves_a_connection_for_the_next() {
    let Some(engine) = start_or_skip(Options::default()) else { return };
    prepared(&engine).await;
    let qdrant = Qdrant::new(Settings { connections: 1, ..settings(&engine) }).unwrap();
    engine.fault(r#"{"delay_ms": 50, "times": 1}"#).unwrap();
    let given_up = tokio::time::timeout(Duration::from_millis(1), near(&qdrant, MINE, 0.0)).await;
    assert!(given_up.is_err());
    // The only connection there may be: it was not lost.
    eventually("answered", async || trouble(&qdrant).await == "answered").await;
}

#[tokio::test]
async fn a_connection_that_came_too_late_is_there_for_the_next() {
    let Some(engine) = start_or_skip(Options::default()) else { return };
    prepared(&engine).await;
    let qdrant = Qdrant::new(Settings { connections: 1, ..settings(&engine) }).unwrap();
    let before = engine.seen().unwrap();
    let mut given_up = Box::pin(near(&qdrant, MINE, 0.0));
    std::future::poll_fn(|context| {
        assert!(given_up.as_mut().poll(context).is_pending());
        std::task::Poll::Ready(())
    })
    .await;
    drop(given_up);
    eventually("answered", async || trouble(&qdrant).await == "answered").await;
    let after = engine.seen().unwrap();
    assert_eq!(after.connections - before.connections, 2, "one, and the test's own");
    assert_eq!(after.requests - before.requests, 1, "what nobody waits for is not asked");
}

#[tokio::test]
async fn on_the_servers_disk_lies_nothing_that_could_be_read() {
    let Some(engine) = start_or_skip(Options::default()) else { return };
    let qdrant = prepared(&engine).await;
    // Stands for what was sealed; in base64 it is no word of anybody's.
    let sealed: Vec<u8> = (0..200_u8).map(|byte| byte.wrapping_mul(37)).collect();
    qdrant.put(Point { sealed, ..point(1, MINE, 0.0) }).await.unwrap();
    let dump = engine.dump().unwrap();
    let contains = |word: &[u8]| dump.windows(word.len()).any(|part| part == word);
    assert!(contains(b"0000000000000001"), "the tenant, by its digest");
    assert!(!contains(b"partition-of-one") && !contains(b"answer"));
}

async fn eventually(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let deadline: Instant = clock::now() + LIMIT;
    while !condition().await {
        assert!(clock::now() < deadline, "{what}: not within {LIMIT:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[test]
fn reasons_are_one_short_line() {
    let Trouble::Failed(why) = Trouble::failed("a\nb".repeat(400)) else { panic!() };
    assert!(why.chars().count() == 200 && !why.contains('\n'));
}
