//! The shared tier over a real cluster: what one edge stores another finds, and nobody else.

use nearhop_test_redis::{Options, Redis, start_or_skip};

use super::*;
use crate::{
    Asked, Entry, Namer,
    cluster::Settings,
    testing::{answer, ask, model, tenant},
};

const SECOND: Duration = Duration::from_secs(1);
const ALL: Need = Need::Fresh([true; 4]);
const SECRET: &[u8] = b"a secret of both";

/// An edge's view of the cluster.
struct Edge {
    tier: Arc<Shared>,
    validity: Arc<Validity>,
}

fn edge(redis: &Redis, secret: &[u8]) -> Edge {
    let settings = Settings { nodes: redis.nodes(), patience: 2 * SECOND, ..Settings::default() };
    let validity = Arc::new(Validity::new(3600 * SECOND));
    let cluster = Cluster::new(&settings).unwrap();
    let (tier, writes) = Shared::new(cluster, secret, 60 * SECOND, Arc::clone(&validity));
    let tier = Arc::new(tier);
    let writing = Arc::clone(&tier);
    tokio::spawn(async move { writing.write_behind(writes, |_| {}).await });
    tokio::spawn(Arc::clone(&tier).follow(|| SECOND, |_| {}));
    Edge { tier, validity }
}

fn put(edge: &Edge, tenant_name: &str, prefix: &str, text: &str) {
    let request = ask(prefix, "");
    let question = Question::of(&request, tenant(tenant_name), &model("1"), &Namer::new(SECRET));
    let (places, asked) = Asked::of(&question, Around::of(&request)).unwrap();
    let born = (edge.validity.generation(), question.tags);
    let entry = Arc::new(Entry::new(asked, &answer(text), born, SECOND).unwrap());
    assert!(edge.tier.put(&places, &entry));
}

async fn find(edge: &Edge, tenant_name: &str, prefix: &str) -> Option<String> {
    let request = ask(prefix, "");
    let question = Question::of(&request, tenant(tenant_name), &model("1"), &Namer::new(SECRET));
    let found = edge.tier.find((&question, Around::of(&request)), ALL, SECOND).await;
    let found = found.ok().flatten()?;
    Some(found.entry.text()[found.fit.typed..].to_owned())
}

async fn eventually<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let until = tokio::time::Instant::now() + 60 * SECOND;
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(tokio::time::Instant::now() < until, "{what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_one_edge_stores_another_with_its_secret_finds_and_purges_reach_both() {
    let _turn = cluster::tests::TURN.lock().await;
    let Some(redis) = start_or_skip(Options::default()) else { return };
    let (here, there) = (edge(&redis, SECRET), edge(&redis, SECRET));
    let stranger = edge(&redis, b"another secret");
    eventually("the other edge finds it", async || {
        put(&here, "t", "x = 1\ny = ", "x + 1");
        find(&there, "t", "x = 1\ny = x").await
    })
    .await;
    assert_eq!(find(&there, "t", "x = 1\ny = x").await.as_deref(), Some(" + 1"));
    assert_eq!(find(&there, "t", "x = 1\ny = ").await.as_deref(), Some("x + 1"));
    assert_eq!(find(&there, "t", "x = 2\ny = ").await, None);
    assert_eq!(find(&there, "u", "x = 1\ny = ").await, None);
    assert_eq!(find(&stranger, "t", "x = 1\ny = ").await, None);
    // One line is a place of its own, and one with all others.
    put(&here, "t", "git ch", "eckout");
    eventually("one line is found", async || find(&there, "t", "git chec").await).await;

    let purge = Purge::named(Some("t"), None, &Namer::new(SECRET)).unwrap();
    let before = here.validity.generation();
    eventually("the log takes it", async || {
        matches!(here.tier.publish(&purge).await, Published::Done { .. }).then_some(())
    })
    .await;
    for edge in [&here, &there] {
        eventually("everybody knows", async || (edge.validity.generation() > before).then_some(()))
            .await;
        assert_eq!(find(edge, "t", "x = 1\ny = ").await, None);
    }
    put(&here, "t", "x = 1\ny = ", "newer");
    eventually("what is asked later stays", async || find(&there, "t", "x = 1\ny = ").await).await;

    // With the purge of a tenant its key goes: an edge that knows of no purge finds nothing either.
    eventually("it is purged again", async || {
        matches!(here.tier.publish(&purge).await, Published::Done { .. }).then_some(())
    })
    .await;
    let Purge::Tenant(name) = purge else { panic!("{purge:?}") };
    let key = key_name(Tenant(name.to_le_bytes()));
    eventually("there is no key", async || {
        here.tier.cluster.get(&key).await.ok().filter(Option::is_none)
    })
    .await;
    assert_eq!(find(&here, "t", "x = 1\ny = ").await, None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_changed_in_redis_is_no_entry() {
    let _turn = cluster::tests::TURN.lock().await;
    let Some(redis) = start_or_skip(Options::default()) else { return };
    let edge = edge(&redis, SECRET);
    eventually("it is stored", async || {
        put(&edge, "t", "x = 1\ny = ", "x + 1");
        find(&edge, "t", "x = 1\ny = ").await
    })
    .await;
    let request = ask("x = 1\ny = ", "");
    let question = Question::of(&request, tenant("t"), &model("1"), &Namer::new(SECRET));
    let whose = super::tenant(&question);
    let keys = edge.tier.keys(whose, Create::No).await.unwrap().unwrap();
    let site = question.own_sites("x = 1\ny = ").next().unwrap();
    let place = keys.place(whose, site.place);
    let sealed = edge.tier.cluster.bucket(&place).await.unwrap().remove(0);
    // Somebody who writes to Redis copies it to another place, cuts it, or changes it.
    let other = keys.place(whose, Place([7; 16]));
    assert!(keys.open(&sealed, &place).is_some() && keys.open(&sealed, &other).is_none());
    for field in 0..cluster::FIELDS {
        let mut changed = sealed.to_vec();
        let at = usize::from(field) * changed.len() / usize::from(cluster::FIELDS);
        changed[at] ^= 1;
        edge.tier.cluster.put(&place, field, changed.into(), 60 * SECOND).await.unwrap();
    }
    assert_eq!(find(&edge, "t", "x = 1\ny = ").await, None);
}
