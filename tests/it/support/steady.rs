//! Clients that ask all the time, one request after the other, and what became of each.

use std::{
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use serde_json::json;
use tokio::task::JoinSet;

use super::{
    client::{Broken, request, send},
    now, unique,
};

/// A request that has ended.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    pub(crate) began: Instant,
    pub(crate) ended: Instant,
    /// The text of its answer, or what it got instead.
    pub(crate) answer: Result<String, String>,
    /// Whether it broke off after its first content was sent.
    pub(crate) broken: bool,
}

pub(crate) struct Steady {
    asked: Arc<Mutex<Vec<Asked>>>,
    _clients: JoinSet<()>,
}

impl Steady {
    /// So many clients of the edge at `address`; every third request streams.
    pub(crate) fn start(address: &str, clients: usize) -> Self {
        let asked = Arc::new(Mutex::new(Vec::new()));
        let mut all = JoinSet::new();
        for client in 0..clients {
            let (address, asked) = (address.to_owned(), Arc::clone(&asked));
            all.spawn(async move {
                // Not all of them stream at the same time.
                for number in client.. {
                    let began = now();
                    let (answer, broken) = match ask(&address, number % 3 == 0).await {
                        Ok(ended) => ended,
                        Err(Broken) => (Err("no answer".to_owned()), false),
                    };
                    asked.lock().unwrap().push(Asked { began, ended: now(), answer, broken });
                }
            });
        }
        Self { asked, _clients: all }
    }

    /// Those that have ended.
    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }

    /// When the first was answered with this text that began after `moment`.
    pub(crate) fn first(&self, text: &str, moment: Instant) -> Option<Instant> {
        let asked = self.asked.lock().unwrap();
        let is = |one: &&Asked| one.began > moment && one.answer.as_deref() == Ok(text);
        asked.iter().filter(is).map(|one| one.ended).min()
    }

    /// How many ended since then, and how long the longest of them took.
    pub(crate) fn since(&self, moment: Instant) -> (usize, Duration) {
        let asked = self.asked.lock().unwrap();
        let since = asked.iter().filter(|one| one.ended > moment);
        let longest = since.clone().map(|one| one.ended - one.began).max();
        (since.count(), longest.unwrap_or_default())
    }

    /// Requests that were to be answered and were not.
    pub(crate) fn failed(&self) -> Vec<Asked> {
        let asked = self.asked();
        asked.into_iter().filter(|one| one.answer.is_err() && !one.broken).collect()
    }
}

async fn ask(address: &str, stream: bool) -> Result<(Result<String, String>, bool), Broken> {
    let body = json!({"model": "fake", "prompt": unique(), "stream": stream});
    let answer = send(address, request("/v1/completions", &body, &[])).await?.whole().await?;
    let told =
        format!("{} {:?} {:?}", answer.status, answer.header("x-nearhop-source"), answer.body);
    if answer.status != 200 || answer.header("x-nearhop-source") == "degraded" {
        return Ok((Err(told), false));
    }
    if !stream {
        return Ok((Ok(answer.text()), false));
    }
    let (text, whole) = answer.streamed();
    let broken = !whole && !text.is_empty();
    Ok((if whole { Ok(text) } else { Err(told) }, broken))
}
