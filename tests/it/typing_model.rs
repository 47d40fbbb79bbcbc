//! Typing over the real model: what is served must be the rest of an earlier answer of the same
//! text, and beside that it is counted how often it is what the model would say if it was asked anew.

use http::StatusCode;
use serde_json::json;

use crate::support::{
    client::Whole,
    dice::Dice,
    keep_alive::KeepAlive,
    process::{Dev, has_ort, say, soaking},
    tasks::{Task, tasks},
    typist::{Moment, Suggest, Typist},
    unique,
};

const SEED: u64 = 20_261_124;
const STEP: usize = 3;

/// So many texts, and so many of them the same as a fresh run's.
#[derive(Debug, Default, Clone, Copy)]
struct Share {
    all: usize,
    same: usize,
}

impl Share {
    fn add(&mut self, same: bool) {
        self.all += 1;
        self.same += usize::from(same);
    }

    fn say(&self, what: &str) -> String {
        let [all, same] = [self.all, self.same].map(|count| u32::try_from(count).unwrap());
        let percent = f64::from(same) * 100.0 / f64::from(all.max(1));
        format!("{what}: {same} of {all} are what a fresh run says ({percent:.1} %)")
    }
}

/// A text, and whether it ended at its limit.
#[derive(Debug, Clone, PartialEq)]
struct Said {
    text: String,
    cut: bool,
}

impl Said {
    fn of(whole: &Whole) -> Self {
        assert_eq!(whole.status, StatusCode::OK, "{:?}", whole.body);
        let cut = whole.json()["choices"][0]["finish_reason"] == "length";
        Self { text: whole.text(), cut }
    }

    /// Where one was cut, as far as both go.
    fn is_like(&self, fresh: &Self) -> bool {
        let (one, other) = (self.text.as_str(), fresh.text.as_str());
        match (self.cut, fresh.cut) {
            (false, false) => one == other,
            (true, false) => other.starts_with(one),
            (false, true) => one.starts_with(other),
            (true, true) => one.starts_with(other) || other.starts_with(one),
        }
    }
}

/// An editor that doubts what it is served.
struct Doubter {
    client: KeepAlive,
    run: String,
    asked: usize,
    /// All that the model has said here, with the text before the cursor and behind it.
    answered: Vec<(String, String, Said)>,
    typed_ahead: Share,
    exact: Share,
    again: Share,
    /// Of the texts that were typed ahead, and of the fresh ones in their place: those that begin
    /// with what the user types next.
    right: [usize; 2],
}

impl Doubter {
    async fn ask(&mut self, moment: &Moment<'_>, control: Option<&str>) -> Whole {
        // Other tests ask the same model for the same lines.
        let prompt = format!("# {}\n{}", self.run, moment.before);
        let body = json!({
            "model": "nearhop-mini", "prompt": prompt, "suffix": moment.suffix, "max_tokens": 24,
            "temperature": 0,
        });
        let headers: Vec<_> =
            control.map(|control| ("cache-control", control)).into_iter().collect();
        let request = crate::support::client::request("/v1/completions", &body, &headers);
        self.client.send(request).await.unwrap()
    }

    /// What the model says if nothing is remembered; nor is this.
    async fn fresh(&mut self, moment: &Moment<'_>) -> Said {
        let whole = self.ask(moment, Some("no-cache, no-store")).await;
        assert_eq!(whole.header("x-nearhop-source"), "origin");
        Said::of(&whole)
    }
}

impl Suggest for Doubter {
    async fn suggest(&mut self, moment: Moment<'_>) -> String {
        let whole = self.ask(&moment, None).await;
        let said = Said::of(&whole);
        self.asked += 1;
        match whole.header("x-nearhop-source") {
            "origin" => {
                let Moment { before, suffix, .. } = moment;
                self.answered.push((before.to_owned(), suffix.to_owned(), said.clone()));
                if said.text.is_empty() {
                    return said.text;
                }
                // Once more, which is the same request to the byte.
                let again = self.ask(&moment, None).await;
                if again.header("x-nearhop-source") == "l1" {
                    assert_eq!(Said::of(&again), said);
                    let fresh = self.fresh(&moment).await;
                    self.exact.add(said == fresh);
                }
            }
            source => {
                let from = self.answered.iter().any(|(before, suffix, answer)| {
                    let typed = moment.before.strip_prefix(before.as_str());
                    let rest = typed.and_then(|typed| answer.text.strip_prefix(typed));
                    rest == Some(said.text.as_str())
                        && suffix == moment.suffix
                        && answer.cut == said.cut
                });
                assert!(from, "{said:?} contradicts what was answered: {moment:?}");
                let fresh = self.fresh(&moment).await;
                let next = &moment.rest[..moment.rest.len().min(STEP)];
                for (right, said) in self.right.iter_mut().zip([&said, &fresh]) {
                    *right += usize::from(said.text.starts_with(next));
                }
                let share = if source == "l1" { &mut self.again } else { &mut self.typed_ahead };
                share.add(said.is_like(&fresh));
            }
        }
        said.text
    }
}

/// So many, of all parts of the file.
fn some(tasks: Vec<Task>) -> Vec<Task> {
    let count = if soaking() { tasks.len() } else { 25 };
    let mut dice = Dice::of(SEED, &["tasks"]);
    let mut left = tasks;
    (0..count.min(left.len())).map(|_| left.swap_remove(dice.below(left.len()))).collect()
}

#[tokio::test]
async fn what_is_served_while_typing_is_what_the_real_model_said_before() {
    if !has_ort() {
        return;
    }
    let tasks = some(tasks());
    let mut doubter = Doubter {
        client: KeepAlive::new(&Dev::shared().edge()),
        run: unique(),
        asked: 0,
        answered: Vec::new(),
        typed_ahead: Share::default(),
        exact: Share::default(),
        again: Share::default(),
        right: [0; 2],
    };
    let typist = Typist { tasks: &tasks, step: STEP, mixed: false, seed: SEED };
    typist.type_all(&mut doubter).await;
    let Doubter { asked, answered, typed_ahead, exact, again, right, .. } = &doubter;
    say(&format!(
        "the real model: {} lines, {asked} requests, {} generated\n{}\n{}\n{}\nof {} served texts {} begin with what is typed next, of the fresh ones {}",
        tasks.len(),
        answered.len(),
        typed_ahead.say("typed ahead"),
        exact.say("asked again at once"),
        again.say("asked again later"),
        typed_ahead.all + again.all,
        right[0],
        right[1],
    ));
    assert!(typed_ahead.all > 0 && exact.all > 0, "nothing was served");
}
