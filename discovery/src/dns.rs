//! Pods by a name in DNS: asks what is due, waits, and tells when they are others.

use std::time::Duration;

use async_trait::async_trait;
use futures_util::{StreamExt as _, stream::BoxStream};
use nearhop_admin::clock;
use tokio::time::{Instant, sleep_until, timeout_at};

use crate::{
    pool::{Heard, Pool},
    resolver::Resolver,
    source::{Found, PODS_MAX, Source},
};

/// Longer than the longest answer takes; where a list has hundreds of targets that nobody answers
/// for, the others are told then.
const ROUND: Duration = Duration::from_secs(5);

/// A name that is asked for again and again.
pub(crate) struct Dns {
    name: String,
    pool: Pool,
    resolver: Resolver,
    /// Answers on their way, and how long they are waited for. Kept, so that who waits for pods among
    /// other things, and gives up for one of those, does not send them back.
    round: Option<(BoxStream<'static, Heard>, Instant)>,
    /// What was told last.
    told: Option<Vec<Found>>,
    /// Logged once until no question fails.
    troubled: bool,
    /// Logged once until they fit.
    too_many: bool,
}

impl Dns {
    pub(crate) fn addresses(name: &str, port: u16, resolver: Resolver) -> Self {
        let pool = Pool::addresses(name, port, clock::now());
        Self::new(format!("{name}:{port}"), pool, resolver)
    }

    pub(crate) fn services(name: &str, resolver: Resolver) -> Self {
        Self::new(name.to_owned(), Pool::services(name, clock::now()), resolver)
    }

    const fn new(name: String, pool: Pool, resolver: Resolver) -> Self {
        Self { name, pool, resolver, round: None, told: None, troubled: false, too_many: false }
    }

    /// Asks what is due, or goes on with that, until all is answered or [`ROUND`] is over. Whether
    /// all is answered.
    async fn ask(&mut self) -> bool {
        let Self { pool, resolver, round, .. } = self;
        let (answers, until) = round.get_or_insert_with(|| {
            let answers = resolver.clone().ask_all(pool.questions(clock::now()));
            (answers.boxed(), Instant::from(clock::now()) + ROUND)
        });
        let whole = loop {
            match timeout_at(*until, answers.next()).await {
                Ok(Some(heard)) => {
                    if let Some(trouble) = heard.trouble()
                        && !self.troubled
                    {
                        self.troubled = true;
                        tracing::warn!(
                            name = self.name,
                            error = %trouble,
                            "pods cannot be looked up; those known stay"
                        );
                    }
                    pool.hear(heard, clock::now());
                }
                Ok(None) => break true,
                Err(_over) => break false,
            }
        };
        self.round = None;
        if self.troubled && !self.pool.failing() {
            self.troubled = false;
            tracing::info!(name = self.name, "pods can be looked up again");
        }
        whole
    }

    /// The pods, where they are others than when they were last told.
    fn news(&mut self) -> Option<Vec<Found>> {
        let mut found = self.pool.found()?;
        let too_many = found.len() > PODS_MAX;
        if too_many && !self.too_many {
            tracing::warn!(
                name = self.name,
                pods = found.len(),
                limit = PODS_MAX,
                "there are more pods than are used"
            );
        }
        self.too_many = too_many;
        found.truncate(PODS_MAX);
        let found: Vec<Found> =
            found.into_iter().map(|address| Found { name: address.to_string(), address }).collect();
        (self.told.as_ref() != Some(&found)).then(|| {
            self.told = Some(found.clone());
            found
        })
    }
}

#[async_trait]
impl Source for Dns {
    fn name(&self) -> &str {
        &self.name
    }

    async fn next(&mut self) -> Vec<Found> {
        loop {
            let whole = self.ask().await;
            // A list that has new targets is told with their addresses, not without them; but it does
            // not wait for hundreds that nobody answers for.
            let wait = whole && self.pool.unheard();
            if !wait && let Some(found) = self.news() {
                return found;
            }
            sleep_until(self.pool.due().into()).await;
        }
    }
}

#[cfg(test)]
mod tests;
