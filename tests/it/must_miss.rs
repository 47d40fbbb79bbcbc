//! Edits after which an earlier answer would be wrong, made up by the thousand: none of them may be
//! answered without a model. Beside them, as a control, edits after which it may be; and those that
//! the words of the rules allow although an answer may be wrong, which are only counted.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use http::StatusCode;
use serde_json::json;

use crate::support::{
    client::{LIMIT, request},
    dice::Dice,
    eventually,
    fake_pod::{Act, FakePod, Reply, Script},
    keep_alive::KeepAlive,
    mutator::{self, Case, Edit},
    process::{Edge, key, say, soaking},
    scene::{Scene, number},
    tasks::tasks,
};

const SEED: u64 = 20_261_202;
const CLIENTS: usize = 4;

/// How many cases were answered how.
#[derive(Default, Clone, Copy)]
struct Count {
    cases: usize,
    hits: usize,
    /// Of the first request, asked a third time: else a miss of the second proves nothing.
    again: usize,
}

/// An edge whose pod gives every case its own answer.
struct World {
    edge: Edge,
    pod: FakePod,
    answers: Arc<Mutex<BTreeMap<usize, String>>>,
}

impl World {
    fn start() -> Self {
        let answers = Arc::new(Mutex::new(BTreeMap::<usize, String>::new()));
        let known = Arc::clone(&answers);
        let pod = FakePod::start(Act::Script(Script::new(move |body| {
            let number = number(body["prompt"].as_str().unwrap()).unwrap();
            Reply { text: known.lock().unwrap()[&number].clone(), finish: "stop" }
        })));
        let edge = Edge::with(&[pod.address], |config, _| {
            config["access"]["keys"] = json!([
                key("dev", "dev", "nh-dev"),
                key("colleague", "dev", "nh-colleague"),
                key("other", "other", "nh-other"),
            ]);
        });
        Self { edge, pod, answers }
    }

    /// Asks both requests of each case, and the first again.
    async fn ask(&self, numbered: Vec<(usize, Case)>) -> BTreeMap<&'static str, Count> {
        let mut counts = BTreeMap::<_, Count>::new();
        let mut client = KeepAlive::new(&self.edge.address);
        for (at, case) in numbered {
            self.answers.lock().unwrap().insert(at, case.first.answer.clone());
            let streamed = at.is_multiple_of(3);
            let first = source(&mut client, &case.first, streamed).await;
            assert_eq!(first, "origin", "{}: cases are kept apart: {:?}", case.edit, case.first);
            let then = source(&mut client, &case.then, streamed).await;
            let again = source(&mut client, &case.first, !streamed).await;
            let count = counts.entry(case.edit).or_default();
            count.cases += 1;
            count.hits += usize::from(then != "origin");
            count.again += usize::from(again != "origin");
            if then != "origin" && mutator::must_miss().iter().any(|edit| edit.name == case.edit) {
                say(&format!("{}: {then}\n{:?}\n{:?}", case.edit, case.first, case.then));
            }
        }
        counts
    }

    /// `cases` of every edit, from a few clients side by side.
    async fn try_all(
        &self,
        edits: &[Edit],
        cases: usize,
        from: usize,
    ) -> BTreeMap<&'static str, Count> {
        let numbered = made(edits, cases, from);
        let mut shares: Vec<Vec<_>> = (0..CLIENTS).map(|_| Vec::new()).collect();
        for (at, case) in numbered {
            shares[at % CLIENTS].push((at, case));
        }
        let [one, two, three, four] = shares.try_into().ok().expect("as many as clients");
        let (one, two, three, four) =
            tokio::join!(self.ask(one), self.ask(two), self.ask(three), self.ask(four));
        let mut all = BTreeMap::<_, Count>::new();
        for (edit, count) in [one, two, three, four].into_iter().flatten() {
            let sum = all.entry(edit).or_default();
            sum.cases += count.cases;
            sum.hits += count.hits;
            sum.again += count.again;
        }
        all
    }
}

async fn source(client: &mut KeepAlive, scene: &Scene, streamed: bool) -> String {
    let answer = client.send(scene.request(streamed)).await.unwrap();
    assert_eq!(answer.status, StatusCode::OK, "{scene:?}: {:?}", answer.body);
    answer.header("x-nearhop-source").to_owned()
}

/// `cases` of every edit, each with a number of its own.
fn made(edits: &[Edit], cases: usize, from: usize) -> Vec<(usize, Case)> {
    let tasks = tasks();
    let mut all = Vec::new();
    for edit in edits {
        let mut dice = Dice::of(SEED, &[edit.name]);
        let numbers = (from + all.len()..).take(cases);
        for number in numbers {
            // An edit has no place everywhere.
            let case = (0..500).find_map(|_| edit.case(number, &tasks, &mut dice));
            let case = case.unwrap_or_else(|| panic!("{}: no task has a place for it", edit.name));
            all.push((number, case));
        }
    }
    all
}

fn report(title: &str, counts: &BTreeMap<&'static str, Count>) -> Count {
    let mut all = Count::default();
    let mut lines = vec![format!("{title}: cases, hits, first request answered again")];
    for (edit, count) in counts {
        lines.push(format!("{:6} {:6} {:6}  {edit}", count.cases, count.hits, count.again));
        all.cases += count.cases;
        all.hits += count.hits;
        all.again += count.again;
    }
    lines.push(format!("{:6} {:6} {:6}  all", all.cases, all.hits, all.again));
    say(&lines.join("\n"));
    all
}

/// The mutator's own check: edits are what they are called, by the plain reading of the rules.
#[test]
fn the_plain_reading_of_the_rules_agrees_with_the_names_of_the_edits() {
    let check = |edits: Vec<Edit>, expected: bool| {
        let edits: Vec<_> = edits.into_iter().filter(Edit::is_by_text).collect();
        for (_, case) in made(&edits, if soaking() { 60 } else { 20 }, 0) {
            let [first, then] = [&case.first, &case.then];
            assert_eq!(case.may_hit_by_text(), expected, "{}: {first:?} {then:?}", case.edit);
        }
    };
    check(mutator::must_miss(), false);
    check(mutator::may_hit(), true);
    check(mutator::open(), true);
}

#[tokio::test]
async fn no_edit_that_must_miss_is_answered_from_the_cache() {
    let world = World::start();
    let edits = mutator::must_miss();
    let least: usize = if soaking() { 10_000 } else { 1500 };
    let counts = world.try_all(&edits, least.div_ceil(edits.len()), 0).await;
    let all = report("must miss", &counts);
    assert!(all.cases >= least);
    assert_eq!(all.hits, 0, "wrong answers");
    assert_eq!(all.again, all.cases, "a first request that is not stored proves nothing");
}

#[tokio::test]
async fn edits_that_change_nothing_that_counts_are_answered_from_the_cache() {
    let world = World::start();
    let cases = if soaking() { 200 } else { 15 };
    let counts = world.try_all(&mutator::may_hit(), cases, 0).await;
    report("may hit", &counts);
    for always in ["the same again", "the same window again", "typed into"] {
        assert_eq!(counts[always].hits, cases, "{always}");
    }
    let open = world.try_all(&mutator::open(), cases, 1_000_000).await;
    report("left open", &open);
}

/// A window joins nothing: what its rule asks of names can only be known at the answer's end.
#[tokio::test]
async fn a_window_joins_nothing_that_is_under_way() {
    const LOST: &str = "ledger_limit = 12\n";
    const TYPED: &str = "value_of_it = 20\n    ";
    const ANSWER: &str = "value_of_it = 20\n    print(ledger_limit)";
    let rest = "class Ledger:\n    # Who may read it\n    readers = ['a', 'b']\n".repeat(8);
    let check = async |key: &str, suffix: &str| {
        let world = World::start();
        let pod = &world.pod;
        pod.act(Act::StallThen(ANSWER));
        let ask = |key: &str, prompt: String| {
            let body = json!({"model": "fake", "prompt": prompt, "suffix": suffix});
            let mut request = request("/v1/completions", &body, &[]);
            let key = format!("Bearer {key}").parse().unwrap();
            request.headers_mut().insert(http::header::AUTHORIZATION, key);
            let mut client = KeepAlive::new(&world.edge.address);
            tokio::spawn(async move { client.send(request).await.unwrap() })
        };
        let first = ask("nh-dev", format!("{LOST}{rest}"));
        eventually("the pod is asked", LIMIT, || async { (pod.seen().len() == 1).then_some(()) })
            .await;
        let then = ask(key, format!("{rest}{TYPED}"));
        eventually("both wait", LIMIT, || async {
            let waiting = world.edge.metric("nearhop_requests_in_progress").await;
            (waiting >= 2.0).then_some(())
        })
        .await;
        pod.act(Act::Answer("another answer"));
        eventually("they are answered", LIMIT, || async {
            pod.hang_up();
            (first.is_finished() && then.is_finished()).then_some(())
        })
        .await;
        assert_eq!(first.await.unwrap().text(), ANSWER);
        let then = then.await.unwrap();
        let told = (then.header("x-nearhop-source").to_owned(), then.text());
        // Asked before the pod had anything else to say, it has the whole answer again.
        let own = told.0 == "origin" && ["another answer", ANSWER].contains(&told.1.as_str());
        assert!(own, "{key} {suffix:?} {told:?}");
    };
    for key in ["nh-dev", "nh-colleague", "nh-other"] {
        check(key, "\nprint(ledger_limit)\n").await;
        check(key, "\n").await;
    }
}
