//! What one asker has caused to be stored reaches no other who may not have it: many tenants, keys
//! and tokens ask for each other's texts, whole and in windows, under each other's names.

mod poison;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use http::{HeaderName, Request, StatusCode};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tokio::task::JoinSet;

use crate::support::{
    client::{LIMIT, Whole, request, send},
    dice::Dice,
    eventually,
    fake_pod::{Act, FakePod, Reply, Script},
    issuer::Issuer,
    process::{Edge, key, say, soaking},
};

const SEED: u64 = 20_261_126;

const BEGINS: &str = "say(<";

/// Who asks: a key or a token.
#[derive(Debug, Clone, PartialEq)]
struct Asker {
    name: &'static str,
    tenant: &'static str,
    secret: String,
}

/// Names that are each other's fronts, so that joining them without care mixes them up.
const KEYS: [(&str, &str); 9] = [
    ("acme-one", "acme"),
    ("acme-two", "acme"),
    ("acme", "acme"),
    ("acm-one", "acm"),
    ("acm", "acm"),
    ("one", "acme.dev"),
    ("acme.dev-one", "acme.dev"),
    ("e-one", "e"),
    ("e", "e"),
];

/// Subjects of tokens; some are named as a key is, or a tenant.
const SUBJECTS: [(&str, &str); 4] =
    [("acme-one", "acme"), ("bob", "acme"), ("bob", "acm"), ("acme", "e")];

const REPOSITORIES: [Option<&str>; 22] = [
    None,
    None,
    None,
    Some("r"),
    Some("R"),
    Some("r "),
    Some(" r"),
    Some("r\n"),
    Some("r\u{0}"),
    Some(""),
    Some(" "),
    Some("\u{0}"),
    Some("none"),
    Some("null"),
    Some("acme"),
    Some("acme-one"),
    Some("e"),
    Some("e/r"),
    Some("/r"),
    Some("acme:r"),
    Some("caf\u{e9}"),
    Some("cafe\u{301}"),
];

/// A request, and all that decides what its answer may be made of.
#[derive(Debug, Clone)]
struct Ask {
    id: String,
    asker: Asker,
    repository: Option<&'static str>,
    prefix: String,
    suffix: Option<String>,
    streamed: bool,
    headers: Vec<(&'static str, String)>,
    declared: Value,
}

impl Ask {
    fn request(&self) -> Request<Bytes> {
        let mut body = json!({"model": "fake", "prompt": self.prefix, "stream": self.streamed});
        if let Some(suffix) = &self.suffix {
            body["suffix"] = json!(suffix);
        }
        let mut declared = self.declared.clone();
        if let Some(repository) = self.repository {
            declared["repo"] = json!(repository);
        }
        if declared != json!({}) {
            body["nearhop"] = declared;
        }
        let mut request = request("/v1/completions", &body, &[]);
        let headers = request.headers_mut();
        headers.insert("authorization", format!("Bearer {}", self.asker.secret).parse().unwrap());
        headers.insert("x-request-id", self.id.parse().unwrap());
        for (name, value) in &self.headers {
            headers.append(HeaderName::from_static(name), value.parse().unwrap());
        }
        request
    }

    /// Whether an answer to `made` may be given to this.
    fn may_have(&self, made: &Self) -> bool {
        let squashed = |text: &str| text.split_whitespace().collect::<String>();
        let suffix = |ask: &Self| ask.suffix.as_deref().map(squashed);
        self.asker.tenant == made.asker.tenant
            && self.repository == made.repository
            && suffix(self) == suffix(made)
            && (self.has_whole(made) || self.asker == made.asker || self.repository.is_some())
    }

    /// All that the other sent, this sends too.
    fn has_whole(&self, made: &Self) -> bool {
        let squashed = |text: &str| text.split_whitespace().collect::<String>();
        squashed(&self.prefix).starts_with(&squashed(&made.prefix))
    }
}

/// What the pod has said, by its hash.
type Said = Arc<Mutex<HashMap<String, Told>>>;

#[derive(Debug)]
struct Told {
    /// As the pod saw it.
    tenant: String,
    /// Of the request that it was for.
    id: String,
    /// So many were said before.
    number: usize,
}

/// Every line of the answer names the tenant and what was asked, so that every rest of it does.
fn answer(said: &Said, head: &str, body: &Value) -> Reply {
    let header = |name: &str| {
        let mut lines = head.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
        lines.next().unwrap_or_default().to_owned()
    };
    let (tenant, id) = (header("x-nearhop-tenant"), header("x-request-id"));
    let mut said = said.lock().unwrap();
    let asked = format!("{tenant}\0{}\0{}\0{}", body["prompt"], body["suffix"], said.len());
    let hash = Sha256::digest(asked.as_bytes());
    let hash: String = hash.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    let text = format!("{BEGINS}{tenant}|{hash}>)\n").repeat(5);
    let number = said.len();
    said.insert(hash, Told { tenant, id, number });
    Reply { text, finish: "stop" }
}

/// The tenants and hashes of a text, without those that it begins or ends in.
fn named(text: &str) -> Vec<(&str, &str)> {
    let units = text.split('<').skip(1);
    units.filter_map(|unit| unit.split_once('>')?.0.split_once('|')).collect()
}

/// One who chooses what is asked next, from what was asked before and by whomever.
struct Attacker {
    askers: Vec<Asker>,
    bases: Vec<String>,
    dice: Dice,
    asked: usize,
    /// Requests that the pod answered, and its answers.
    made: Vec<(Ask, String)>,
}

impl Attacker {
    fn new(askers: Vec<Asker>) -> Self {
        let mut dice = Dice::of(SEED, &["leaks"]);
        let mut bases: Vec<String> = Vec::new();
        for number in 0..40 {
            let lines = 24 + dice.below(16);
            let mut text: String =
                (0..lines).map(|line| format!("value_{number}_{line} = {line}\n")).collect();
            // Some are others with something before, or behind.
            match (dice.below(3), bases.last()) {
                (0, Some(last)) => text = format!("{last}{text}"),
                (1, Some(last)) => text.push_str(last),
                _ => {}
            }
            bases.push(text);
        }
        Self { askers, bases, dice, asked: 0, made: Vec::new() }
    }

    /// Requests of different askers, to be made at the same time.
    fn batch(&mut self) -> Vec<Ask> {
        let mut left = self.askers.clone();
        let mut asks: Vec<Ask> = Vec::new();
        let same = self.dice.percent(40);
        for _ in 0..=self.dice.below(6) {
            let mut ask = self.next();
            if let (true, Some(first)) = (same, asks.first()) {
                (ask.prefix, ask.suffix) = (first.prefix.clone(), first.suffix.clone());
                ask.repository = first.repository;
                // So every answer begins, which lets one type into what is still under way.
                let typed = &BEGINS[..self.dice.below(BEGINS.len() + 1)];
                if self.dice.percent(50) {
                    ask.prefix.drain(..typed.len().min(ask.prefix.len()));
                }
                ask.prefix.push_str(typed);
            }
            // A key's own newer request would supersede its older one.
            if let Some(at) = left.iter().position(|asker| *asker == ask.asker) {
                left.remove(at);
                asks.push(ask);
            }
        }
        asks
    }

    fn next(&mut self) -> Ask {
        self.asked += 1;
        let dice = &mut self.dice;
        let base = dice.pick(&self.bases).unwrap().clone();
        let suffix = dice.pick(&[None, Some("\nend = 1\n"), Some("")]).unwrap();
        let mut ask = Ask {
            id: format!("leak-{}", self.asked),
            asker: dice.pick(&self.askers).unwrap().clone(),
            repository: *dice.pick(&REPOSITORIES).unwrap(),
            prefix: base,
            suffix: suffix.map(str::to_owned),
            streamed: dice.percent(50),
            headers: Vec::new(),
            declared: json!({}),
        };
        if let Some((made, text)) = recent(&self.made, dice).filter(|_| dice.percent(85)) {
            (ask.prefix, ask.suffix) = (made.prefix.clone(), made.suffix.clone());
            change(&mut ask, text, dice);
            if dice.percent(70) {
                ask.repository = made.repository;
            }
            let same: Vec<_> =
                self.askers.iter().filter(|asker| asker.tenant == made.asker.tenant).collect();
            match dice.below(3) {
                0 => ask.asker = made.asker.clone(),
                1 => ask.asker = (*dice.pick(&same).unwrap()).clone(),
                _ => {}
            }
        }
        pretend(&mut ask, &self.askers, dice);
        ask
    }
}

/// Mostly one of the last ones: purges take the others.
fn recent<'a>(made: &'a [(Ask, String)], dice: &mut Dice) -> Option<&'a (Ask, String)> {
    let from = made.len().saturating_sub(if dice.percent(80) { 15 } else { 150 });
    dice.pick(&made[from..])
}

/// Something that the answer might be given to: typed into, slid, edited, divided elsewhere.
fn change(ask: &mut Ask, answer: &str, dice: &mut Dice) {
    let typed = &answer[..dice.below(answer.len() / 2)];
    let lines: String = answer.split_inclusive('\n').take(1 + dice.below(2)).collect();
    let front = |text: &str, lines: usize| -> usize {
        text.split_inclusive('\n').take(lines).map(str::len).sum()
    };
    match dice.below(14) {
        0 | 1 => {}
        2 => ask.prefix.push_str(typed),
        3 | 4 => {
            ask.prefix.drain(..typed.len().min(ask.prefix.len()));
            ask.prefix.push_str(typed);
        }
        5 | 6 => {
            ask.prefix.drain(..front(&ask.prefix, lines.matches('\n').count()));
            ask.prefix.push_str(&lines);
        }
        7 => {
            ask.prefix.drain(..front(&ask.prefix, 1 + dice.below(12)));
        }
        8 => {
            ask.prefix.drain(..front(&ask.prefix, 1 + dice.below(12)));
            ask.prefix.push_str(typed);
        }
        9 => {
            ask.prefix = ask.prefix.replacen('\n', "\n\n", 1);
            ask.prefix.push_str(typed);
        }
        10 => {
            ask.prefix.drain(..front(&ask.prefix, lines.matches('\n').count()));
            ask.prefix = ask.prefix.replacen('\n', "  \n", 1);
            ask.prefix.push_str(&lines);
        }
        11 => {
            let at = front(&ask.prefix, 5);
            let rest = ask.prefix.split_off(at);
            ask.suffix = Some(rest + ask.suffix.as_deref().unwrap_or_default());
        }
        12 => {
            ask.suffix = match ask.suffix.take() {
                None => Some(String::new()),
                Some(suffix) if suffix.is_empty() => None,
                Some(suffix) => {
                    ask.prefix.push_str(&suffix);
                    None
                }
            };
        }
        _ => ask.prefix.push_str("other = 2\n"),
    }
}

/// Says of itself what is not so, and that it is in the others' session.
fn pretend(ask: &mut Ask, askers: &[Asker], dice: &mut Dice) {
    let other = dice.pick(askers).unwrap();
    let mut say = |name, value: &str| ask.headers.push((name, value.to_owned()));
    match dice.below(8) {
        0 => {
            say("x-nearhop-tenant", other.tenant);
            say("x-nearhop-key", other.name);
            say("x-nearhop-repo", "r");
        }
        1 => say("x-nearhop-session", "s"),
        2 => say("x-api-key", &other.secret),
        3 => say("api-key", &other.secret),
        4 => {
            say("x-nearhop-hop", "1");
            say("x-nearhop-peer", "1");
            say("x-nearhop-region", "test");
            say("x-nearhop-source", "l1");
            say("forwarded", "for=127.0.0.1");
        }
        5 => say("openai-organization", other.tenant),
        6 => say("cookie", &format!("key={}", other.secret)),
        _ => {}
    }
    match dice.below(4) {
        0 => ask.declared = json!({"session": "s", "document": "d"}),
        1 => ask.declared = json!({"session": other.tenant, "document": other.name}),
        _ => {}
    }
}

#[derive(Debug, Default)]
struct Count {
    asked: usize,
    served: usize,
    /// Generated while two waited for it.
    joined: usize,
    /// Made for another asker, who sent nothing that this one has not.
    shared: usize,
    /// By what is left of a window.
    slid: usize,
    /// Of a colleague's window.
    slid_shared: usize,
    refused: usize,
}

/// A purge, and how much the pod had said by then.
#[derive(Debug)]
struct Purge {
    tenant: &'static str,
    tag: Option<(&'static str, &'static str)>,
    said: usize,
}

impl Purge {
    fn drops(&self, made: &Ask) -> bool {
        self.tenant == made.asker.tenant
            && match self.tag {
                None => true,
                Some(("repo", repository)) => made.repository == Some(repository),
                Some((tag, value)) => made.declared[tag] == value,
            }
    }

    fn order(&self) -> Value {
        let mut what = json!({"tenant": self.tenant});
        if let Some((tag, value)) = self.tag {
            what[tag] = json!(value);
        }
        what
    }
}

struct World {
    edge: Edge,
    _pod: FakePod,
    _issuer: Issuer,
    said: Said,
    askers: Vec<Asker>,
    purged: Vec<Purge>,
}

impl World {
    async fn start() -> Self {
        let said = Said::default();
        let known = Arc::clone(&said);
        let script = Script::of_whole(move |head, body| answer(&known, head, body));
        let pod = FakePod::start(Act::Script(script));
        let issuer = Issuer::start().await;
        let secret = |name: &str, tenant: &str| format!("nh-{tenant}-{name}");
        let edge = Edge::with(&[pod.address], |config, _| {
            let keys = KEYS.map(|(name, tenant)| key(name, tenant, &secret(name, tenant)));
            config["access"]["keys"] = json!(keys);
            config["access"]["issuers"] = json!([issuer.entry()]);
        });
        let by_key =
            KEYS.map(|(name, tenant)| Asker { name, tenant, secret: secret(name, tenant) });
        let by_token = SUBJECTS.map(|(name, tenant)| {
            let secret = issuer.token(&json!({"tenant": tenant, "sub": name}));
            Asker { name, tenant, secret }
        });
        let token = by_token[0].secret.clone();
        eventually("the issuer's keys are there", LIMIT, || async {
            let body = json!({"model": "fake", "prompt": "a"});
            let mut request = request("/v1/completions", &body, &[("x-request-id", "none")]);
            let headers = request.headers_mut();
            headers.insert("authorization", format!("Bearer {token}").parse().unwrap());
            let answer = send(&edge.address, request).await.unwrap().whole().await.unwrap();
            (answer.status == StatusCode::OK).then_some(())
        })
        .await;
        let askers = by_key.into_iter().chain(by_token).collect();
        Self { edge, _pod: pod, _issuer: issuer, said, askers, purged: Vec::new() }
    }

    /// All at the same time.
    async fn ask(&self, asks: Vec<Ask>) -> Vec<(Ask, Whole)> {
        let mut all = JoinSet::new();
        for ask in asks {
            let address = self.edge.address.clone();
            all.spawn(async move {
                let answer = send(&address, ask.request()).await.unwrap();
                (ask, answer.whole().await.unwrap())
            });
        }
        all.join_all().await
    }

    /// Looks at one answer; the request, if it is the one that the pod answered.
    fn check(
        &self,
        (ask, whole): (Ask, &Whole),
        asks: &HashMap<String, Ask>,
        count: &mut Count,
    ) -> Option<(Ask, String)> {
        count.asked += 1;
        if whole.status != StatusCode::OK {
            // An empty name is none, and two credentials need not be taken.
            let two = ask.headers.iter().any(|(name, _)| name.ends_with("api-key"));
            assert!(
                (two || ask.repository == Some("")) && whole.status.is_client_error(),
                "{ask:?} {whole:?}"
            );
            count.refused += 1;
            return None;
        }
        let text = if ask.streamed { whole.streamed().0 } else { whole.text() };
        let named = named(&text);
        assert!(!named.is_empty(), "{text:?} {ask:?}");
        let said = self.said.lock().unwrap();
        let mut made_for = None;
        for (tenant, hash) in named {
            let told = &said[hash];
            let made = &asks[&told.id];
            assert_eq!([&told.tenant, tenant], [ask.asker.tenant; 2], "{ask:?}");
            let purged = self.purged.iter().filter(|purge| purge.drops(made));
            assert!(
                purged.max_by_key(|purge| purge.said).is_none_or(|purge| purge.said <= told.number),
                "{ask:?} {made:?}"
            );
            assert!(ask.may_have(made), "{text:?} was made for\n{made:?}, not for\n{ask:?}");
            made_for = Some(made);
        }
        let made = made_for?;
        let is_another = made.asker != ask.asker;
        if ask.has_whole(made) {
            count.shared += usize::from(is_another);
        } else {
            count.slid += 1;
            count.slid_shared += usize::from(is_another);
        }
        let served = whole.header("x-nearhop-source").starts_with("l1");
        count.served += usize::from(served);
        count.joined += usize::from(!served && made.id != ask.id);
        (made.id == ask.id).then_some((ask, text))
    }

    /// What is asked later is answered with nothing from before.
    async fn purge(&mut self, dice: &mut Dice) {
        const TAGS: [Option<(&str, &str)>; 7] = [
            None,
            Some(("session", "s")),
            Some(("session", "acme")),
            Some(("repo", "r")),
            Some(("repo", "r ")),
            Some(("repo", "acme")),
            Some(("repo", "e/r")),
        ];
        let tenant = dice.pick(&self.askers).unwrap().tenant;
        let said = self.said.lock().unwrap().len();
        let purge = Purge { tenant, tag: *dice.pick(&TAGS).unwrap(), said };
        let told = self.edge.order("/cache/purge", &purge.order()).await;
        assert_eq!(told.status, StatusCode::OK, "{purge:?} {told:?}");
        self.purged.push(purge);
    }
}

#[tokio::test]
async fn no_text_reaches_one_whom_it_was_not_made_for() {
    let mut world = World::start().await;
    let mut attacker = Attacker::new(world.askers.clone());
    let (mut asks, mut count) = (HashMap::new(), Count::default());
    let least = if soaking() { 10_000 } else { 600 };
    let mut dice = Dice::of(SEED, &["purges"]);
    while count.asked < least {
        let batch = attacker.batch();
        asks.extend(batch.iter().map(|ask| (ask.id.clone(), ask.clone())));
        for (ask, whole) in world.ask(batch).await {
            attacker.made.extend(world.check((ask, &whole), &asks, &mut count));
        }
        if dice.percent(10) {
            world.purge(&mut dice).await;
        }
    }
    say(&format!("leaks: none; {count:?}"));
    assert!(count.served * 10 > count.asked, "nothing is proved where little is served");
    assert!(count.shared > 0 && count.slid > 0 && count.slid_shared > 0);
}
