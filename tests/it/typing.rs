//! The share of requests that is answered without a model while users type, and that nothing wrong
//! is: lines of HumanEval-infilling, typed at a fixed seed over a pod that is right now and then.
//!
//! Four shares are printed: that of the model by which the goals were set (an answer is good until
//! it and what is typed part), that of the rules as they are written, what the edge served, and
//! what a cache of exact requests would have served.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    fmt,
    sync::{Arc, Mutex},
};

use serde_json::{Value, json};

use crate::support::{
    client::Whole,
    dice::Dice,
    fake_pod::{Act, FakePod, Reply, Script},
    keep_alive::KeepAlive,
    process::{Edge, say, soaking},
    rules::{BYTE_FOR_BYTE, Entry, serves},
    tasks::{Task, tasks},
    typist::{Moment, Suggest, Typist},
};

const SEED: u64 = 20_261_123;
/// So many tasks where not all are typed.
const FEW: usize = 50;
/// With one throw of the model's dice.
const RUNS: usize = 12;

/// What an editor sends of the text before the cursor.
#[derive(Debug, Clone, Copy, PartialEq)]
enum View {
    All,
    Characters(usize),
    Lines(usize),
}

const VIEWS: [View; 3] = [View::All, View::Characters(600), View::Lines(20)];

impl View {
    fn of(self, before: &str) -> String {
        match self {
            Self::All => before.to_owned(),
            Self::Characters(size) => {
                before.chars().skip(before.chars().count().saturating_sub(size)).collect()
            }
            Self::Lines(size) => {
                let lines: Vec<_> = before.split('\n').collect();
                lines[lines.len().saturating_sub(size)..].join("\n")
            }
        }
    }
}

/// What the pod writes: what the user wants so many times of a hundred, else something that parts
/// from it after a while. A prompt always gets the same answer.
struct Model {
    right: usize,
    lines: Vec<String>,
    /// What the user is about to type, by what is asked.
    wanted: Mutex<HashMap<Asked, String>>,
}

impl Model {
    fn new(right: usize, tasks: &[Task]) -> Self {
        let lines = tasks.iter().map(|task| task.line.clone()).collect();
        Self { right, lines, wanted: Mutex::default() }
    }

    fn want(&self, asked: &Asked, rest: &str) {
        self.wanted.lock().unwrap().entry(asked.clone()).or_insert_with(|| rest.to_owned());
    }

    fn answer(&self, asked: &Asked) -> Reply {
        let wanted = self.wanted.lock().unwrap()[asked].clone();
        let throw = (asked.run / RUNS).to_string();
        let mut dice = Dice::of(SEED, &[&throw, &asked.prompt, &asked.suffix]);
        let finish = if dice.percent(10) { "length" } else { "stop" };
        if dice.percent(self.right) {
            return Reply { text: wanted, finish };
        }
        let (same, parts) = wanted.split_at(dice.below(wanted.len()));
        let start = dice.below(self.lines.len());
        let mut others = self.lines.iter().cycle().skip(start);
        let other = others.find(|line| line.chars().next() != parts.chars().next()).unwrap();
        Reply { text: format!("{same}{other}"), finish }
    }
}

/// What a pod is asked, and in which run.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Asked {
    run: usize,
    prompt: String,
    suffix: String,
}

impl Asked {
    fn sent(body: &Value) -> Self {
        let text = |field: &str| body[field].as_str().unwrap_or_default().to_owned();
        let run = body["seed"].as_u64().and_then(|run| run.try_into().ok()).unwrap();
        Self { run, prompt: text("prompt"), suffix: text("suffix") }
    }
}

#[derive(Debug, Clone, Copy)]
struct Run {
    right: usize,
    step: usize,
    view: View,
    mixed: bool,
    /// In every request's class: runs do not serve each other.
    number: usize,
}

impl Run {
    fn asked(&self, moment: &Moment<'_>) -> Asked {
        let prompt = self.view.of(moment.before);
        Asked { run: self.number, prompt, suffix: moment.suffix.to_owned() }
    }

    fn has_goal(&self) -> bool {
        self.right == 20 && self.view == View::All && !self.mixed
    }

    fn typist<'a>(&self, tasks: &'a [Task]) -> Typist<'a> {
        Typist { tasks, step: self.step, mixed: self.mixed, seed: SEED }
    }
}

impl fmt::Display for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let habits = if self.mixed { "all habits" } else { "plain typing" };
        write!(f, "{:?}, each {}, {habits}", self.view, self.step)
    }
}

#[derive(Debug, Default, Clone, Copy)]
struct Shares {
    asked: usize,
    served: usize,
    exact: usize,
    noted: usize,
}

impl Shares {
    fn add(&mut self, more: &Self) {
        self.asked += more.asked;
        self.served += more.served;
        self.exact += more.exact;
        self.noted += more.noted;
    }

    fn percent(&self, part: usize) -> f64 {
        let [part, asked] =
            [part, self.asked].map(|count| f64::from(u32::try_from(count).unwrap()));
        part * 100.0 / asked
    }
}

/// The rules as they are written, over a list of all answers.
struct Written<'a> {
    run: Run,
    model: &'a Model,
    entries: HashMap<String, Vec<Entry>>,
    /// The line's start, its last answer's, and how far that one is right.
    line: (String, usize),
    shares: Shares,
}

impl Suggest for Written<'_> {
    async fn suggest(&mut self, moment: Moment<'_>) -> String {
        let asked = self.run.asked(&moment);
        self.model.want(&asked, moment.rest);
        self.shares.asked += 1;
        self.note(&asked, &moment);
        let entries = self.entries.entry(asked.suffix.clone()).or_default();
        let asks = (asked.prompt.as_str(), asked.suffix.as_str());
        let served = entries.iter().filter_map(|entry| serves(BYTE_FOR_BYTE, entry, asks));
        if let Some(best) = served.min_by_key(|served| served.rule) {
            self.shares.served += 1;
            return best.text.to_owned();
        }
        let answer = self.model.answer(&asked).text;
        let Asked { prompt: prefix, suffix, .. } = asked;
        entries.push(Entry { prefix, suffix, answer: answer.clone() });
        answer
    }
}

impl Written<'_> {
    /// The model by which the goals were set: only of plain typing.
    fn note(&mut self, asked: &Asked, moment: &Moment<'_>) {
        let (suffix, right_until) = &self.line;
        if *suffix == moment.suffix && moment.before.len() < *right_until {
            self.shares.noted += 1;
            return;
        }
        let answer = self.model.answer(asked).text;
        let same = answer.bytes().zip(moment.rest.bytes()).take_while(|(one, other)| one == other);
        self.line = (moment.suffix.to_owned(), moment.before.len() + same.count());
    }
}

/// The edge, every answer of which is looked at.
struct Served<'a> {
    run: Run,
    model: &'a Model,
    client: KeepAlive,
    exact: HashSet<Asked>,
    /// All that the pod has answered, by suffix, with the whole text before the cursor.
    answered: HashMap<String, Vec<(String, Reply)>>,
    shares: Shares,
}

impl Suggest for Served<'_> {
    async fn suggest(&mut self, moment: Moment<'_>) -> String {
        let asked = self.run.asked(&moment);
        self.model.want(&asked, moment.rest);
        self.shares.asked += 1;
        self.shares.exact += usize::from(!self.exact.insert(asked.clone()));
        let Asked { prompt, suffix, .. } = &asked;
        let streamed = self.shares.asked.is_multiple_of(5);
        let body = json!({
            "model": "fake", "prompt": prompt, "suffix": suffix, "seed": self.run.number, "stream": streamed,
        });
        let whole = self.client.complete(&body).await.unwrap();
        assert_eq!(whole.status, 200, "{:?}", whole.body);
        let reply = reply(&whole, streamed);
        let answered = self.answered.entry(suffix.clone()).or_default();
        if whole.header("x-nearhop-source") == "origin" {
            assert_eq!(reply, self.model.answer(&asked), "{asked:?}");
            answered.push((moment.before.to_owned(), reply.clone()));
        } else {
            self.shares.served += 1;
            let from = answered.iter().any(|(before, answer)| {
                let typed = moment.before.strip_prefix(before.as_str());
                let rest = typed.and_then(|typed| answer.text.strip_prefix(typed));
                rest == Some(reply.text.as_str()) && answer.finish == reply.finish
            });
            assert!(from, "{reply:?} contradicts what was answered: {moment:?} {answered:?}");
        }
        reply.text
    }
}

fn reply(whole: &Whole, streamed: bool) -> Reply {
    let (text, reason) = if streamed {
        let (text, done) = whole.streamed();
        assert!(done, "{whole:?}");
        let body = String::from_utf8_lossy(&whole.body);
        (text, if body.contains("\"length\"") { "length" } else { "stop" }.to_owned())
    } else {
        let reason = whole.json()["choices"][0]["finish_reason"].as_str().unwrap().to_owned();
        (whole.text(), reason)
    };
    Reply { text, finish: if reason == "length" { "length" } else { "stop" } }
}

/// What the rules as written would serve, and what the edge does.
async fn perform(run: Run, tasks: &[Task], edge: &Edge, model: &Model) -> (Shares, Shares) {
    let line = (String::new(), 0);
    let shares = Shares::default();
    let mut written = Written { run, model, entries: HashMap::new(), line, shares };
    run.typist(tasks).type_all(&mut written).await;
    let client = KeepAlive::new(&edge.address);
    let (exact, answered) = (HashSet::new(), HashMap::new());
    let mut served = Served { run, model, client, exact, answered, shares };
    run.typist(tasks).type_all(&mut served).await;
    (written.shares, served.shares)
}

/// All runs at one share of right answers; returns what missed its goal.
async fn all_runs(right: usize, tasks: &[Task]) -> Vec<String> {
    let model = Arc::new(Model::new(right, tasks));
    let asked = Arc::clone(&model);
    let script = Script::new(move |body| asked.answer(&Asked::sent(body)));
    let pod = FakePod::start(Act::Script(script));
    let edge = Edge::start(&[pod.address], |_| {});
    let (mut missed, mut table) = (Vec::new(), Vec::new());
    let mut goals: BTreeMap<usize, Shares> = BTreeMap::new();
    let mut misses = 0;
    for run in runs(right) {
        // The goals are of all tasks; beside them a part will do.
        let few = if soaking() || run.has_goal() { tasks.len() } else { FEW };
        let (written, served) = perform(run, &tasks[..few], &edge, &model).await;
        misses += served.asked - served.served;
        if run.has_goal() {
            goals.entry(run.step).or_default().add(&served);
        }
        let noted = if run.mixed { f64::NAN } else { written.percent(written.noted) };
        let by_rules = written.percent(written.served);
        let (by_edge, exact) = (served.percent(served.served), served.percent(served.exact));
        table.push(format!(
            "{:5} {noted:5.1} {by_rules:5.1} {by_edge:5.1} {exact:5.1}  {run}",
            served.asked
        ));
        let least = exact.max(by_rules - 1.0);
        if by_edge < least {
            missed.push(format!("{right} %, {run}: {by_edge:.1} %, not {least:.1} %"));
        }
    }
    assert_eq!(pod.seen().len(), misses, "every miss is one generation");
    for (step, shares) in goals {
        let (share, goal) = (shares.percent(shares.served), goal(step));
        table.push(format!("a request each {step}: {share:.1} %, the goal is {goal:.1} %"));
        if share < goal {
            missed.push(format!("a request each {step}: {share:.1} %, not {goal:.1} %"));
        }
    }
    say(&format!("right {right} %: asked, noted, written, served, exact\n{}", table.join("\n")));
    missed
}

/// Every view, step and way of typing; those that have a goal again with other dice.
fn runs(right: usize) -> impl Iterator<Item = Run> {
    let run = move |number| {
        let at: usize = number % RUNS;
        Run { right, step: [3, 6][at % 2], mixed: at % 4 >= 2, view: VIEWS[at / 4], number }
    };
    let throws = if soaking() { 10 } else { 1 };
    (0..RUNS * throws).map(run).filter(|run| run.number < RUNS || run.has_goal())
}

/// The share of requests that must be served where the model is right one time in five, %. By the
/// rules it is 68.2 and 50.5; one throw of the dice over all tasks strays from that by 0.9 and 1.4
/// (standard deviations), so that only the long test can hold it against the goal itself.
fn goal(step: usize) -> f64 {
    let goal = if step == 3 { 65.0 } else { 50.0 };
    if soaking() { goal } else { goal - 1.0 }
}

#[tokio::test]
async fn most_of_what_is_asked_while_typing_is_served_and_none_of_it_wrong() {
    let tasks = tasks();
    let rights: &[usize] = if soaking() { &[5, 20, 35, 50] } else { &[20] };
    let mut missed = Vec::new();
    for right in rights {
        missed.extend(all_runs(*right, &tasks).await);
    }
    assert!(missed.is_empty(), "{}", missed.join("\n"));
}
