//! Limits of keys and tenants: requests and tokens a minute, requests at once, tokens a month.
//!
//! A request takes what it may use before it is dispatched, from its key and its tenant, all or
//! nothing; when it ends, what it did not use is given back. [`Limiter::reserve`] and the
//! reservation are the whole interface, and synchronous on purpose: edges that share a limit tell
//! each other afterwards what was used ([`Limiter::tell`]), so that no request waits for it.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use nearhop_conf::Rates;

use crate::{Bucket, BucketRefused, Caller, Owner, Used};

/// Keys that are counted by themselves; the subjects of tokens are not ours to number. Beyond, the
/// rest of a tenant's share one count.
pub(crate) const OWNERS_MAX: usize = 65_536;

/// What there is too much of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    /// Requests a minute.
    Requests,
    /// Tokens a minute.
    Tokens,
    /// Requests at once.
    Concurrency,
    /// Tokens of the calendar month.
    Month,
    /// The request alone is over the limit of tokens a minute: it will never pass.
    Request,
}

impl What {
    /// Its name in errors and metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Requests => "requests",
            Self::Tokens => "tokens",
            Self::Concurrency => "concurrency",
            Self::Month => "month",
            Self::Request => "request",
        }
    }
}

/// Why a request may not go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limited {
    /// What there is too much of.
    pub what: What,
    /// Whether it is the key's own limit, and not its tenant's.
    pub of_key: bool,
    /// When it may pass.
    pub retry_after: Duration,
    /// How it stands.
    pub standing: Standing,
}

/// What is left of the tightest limits, as OpenAI's `x-ratelimit-*` headers say it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Standing {
    /// Of requests a minute.
    pub requests: Option<Left>,
    /// Of tokens a minute.
    pub tokens: Option<Left>,
}

/// What is left of one limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Left {
    /// A minute.
    pub limit: u64,
    /// Now.
    pub remaining: u64,
    /// Until all of it is there again.
    pub reset: Duration,
}

/// One key's, or one tenant's, counters.
#[derive(Debug, Default)]
struct Meter {
    requests: Bucket,
    tokens: Bucket,
    in_progress: usize,
    /// What other edges were not told of yet.
    untold: Used,
    /// Whether tokens and requests have a limit here, as it was last asked for.
    limited: (bool, bool),
}

/// The counters of this edge.
#[derive(Debug, Default)]
pub struct Limiter(Mutex<HashMap<Owner, Arc<Mutex<Meter>>>>);

type Shared = Arc<Mutex<Meter>>;

fn locked<R>(meter: &Shared, act: impl FnOnce(&mut Meter) -> R) -> R {
    // Nothing in here can panic half-way.
    act(&mut meter.lock().unwrap_or_else(PoisonError::into_inner))
}

impl Meter {
    /// Takes a request with so many tokens, or says why not; then nothing is taken.
    fn take(&mut self, rates: &Rates, tokens: u64, now: Duration) -> Result<(), (What, Duration)> {
        if rates.concurrent.is_some_and(|limit| self.in_progress >= limit) {
            // Nobody knows when one ends; requests of this kind take about this long.
            return Err((What::Concurrency, Duration::from_secs(1)));
        }
        let refused = |refused, what| match refused {
            BucketRefused::Wait(wait) => (what, wait),
            BucketRefused::Never => (What::Request, Duration::ZERO),
        };
        if let Some(limit) = rates.tokens_per_minute {
            self.tokens.take(limit, tokens, now).map_err(|why| refused(why, What::Tokens))?;
        }
        if let Some(limit) = rates.requests_per_minute
            && let Err(why) = self.requests.take(limit, 1, now)
        {
            self.tokens.give_back(tokens);
            return Err(refused(why, What::Requests));
        }
        self.in_progress += 1;
        self.untold.requests += 1;
        self.limited = (rates.tokens_per_minute.is_some(), rates.requests_per_minute.is_some());
        Ok(())
    }

    fn standing(&mut self, rates: &Rates, now: Duration) -> Standing {
        let left = |bucket: &mut Bucket, limit: Option<u64>| {
            limit.map(|limit| Left {
                limit,
                remaining: bucket.remaining(limit, now),
                reset: bucket.reset_after(limit, now),
            })
        };
        Standing {
            requests: left(&mut self.requests, rates.requests_per_minute),
            tokens: left(&mut self.tokens, rates.tokens_per_minute),
        }
    }

    fn is_idle(&self, now: Duration) -> bool {
        self.in_progress == 0 && self.requests.is_empty(now) && self.tokens.is_empty(now)
    }
}

impl Standing {
    fn tightest(self, other: Self) -> Self {
        let tighter = |a: Option<Left>, b: Option<Left>| match (a, b) {
            (Some(a), Some(b)) => Some(if b.remaining < a.remaining { b } else { a }),
            (a, b) => a.or(b),
        };
        Self {
            requests: tighter(self.requests, other.requests),
            tokens: tighter(self.tokens, other.tokens),
        }
    }
}

impl Limiter {
    fn meter(&self, tenant: &str, key: Option<&str>, now: Duration) -> Shared {
        let owner =
            |key: Option<&str>| Owner { tenant: tenant.to_owned(), key: key.map(str::to_owned) };
        let mut meters = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let asked = owner(key);
        if let Some(meter) = meters.get(&asked) {
            return Arc::clone(meter);
        }
        if meters.len() >= OWNERS_MAX {
            meters.retain(|_, meter| {
                Arc::strong_count(meter) > 1 || !locked(meter, |meter| meter.is_idle(now))
            });
        }
        let asked = if meters.len() < OWNERS_MAX { asked } else { owner(key.map(|_| "")) };
        Arc::clone(meters.entry(asked).or_default())
    }

    /// What was used since the last call, for other edges. Given out once.
    pub fn tell(&self) -> Vec<(Owner, Used)> {
        let meters = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let told = meters.iter().filter_map(|(owner, meter)| {
            let used = locked(meter, |meter| std::mem::take(&mut meter.untold));
            (!used.is_nothing()).then(|| (owner.clone(), used))
        });
        told.collect()
    }

    /// Other edges have used so much of an owner's limits.
    pub fn charge(&self, owner: &Owner, used: Used) {
        let meters = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(meter) = meters.get(owner) {
            locked(meter, |meter| {
                let (tokens, requests) = meter.limited;
                meter.tokens.charge(if tokens { used.tokens } else { 0 });
                meter.requests.charge(if requests { used.requests } else { 0 });
            });
        }
    }

    /// Takes a request of `caller` that may use `tokens`. `spent` is what its tenant has used this
    /// month, `until_next` the time to the next one; `now` counts from any fixed moment.
    ///
    /// # Errors
    /// [`Limited`]; nothing was taken.
    pub fn reserve(
        &self,
        caller: &Caller,
        tokens: u64,
        (spent, until_next): (u64, Duration),
        now: Duration,
    ) -> Result<Reservation, Limited> {
        let plan = &caller.plan;
        if plan.tenant == Rates::default()
            && plan.key == Rates::default()
            && plan.tokens_per_month.is_none()
        {
            return Ok(Reservation { meters: None, tokens, standing: Standing::default() });
        }
        let tenant = self.meter(&caller.tenant, None, now);
        let key = self.meter(&caller.tenant, Some(&caller.key), now);
        let standing = || {
            let of_tenant = locked(&tenant, |meter| meter.standing(&plan.tenant, now));
            locked(&key, |meter| meter.standing(&plan.key, now)).tightest(of_tenant)
        };
        let limited = |(what, retry_after), of_key| Limited {
            what,
            of_key,
            retry_after,
            standing: standing(),
        };
        if plan.tokens_per_month.is_some_and(|month| spent.saturating_add(tokens) > month) {
            return Err(limited((What::Month, until_next), false));
        }
        locked(&key, |meter| meter.take(&plan.key, tokens, now))
            .map_err(|why| limited(why, true))?;
        let taken = locked(&tenant, |meter| meter.take(&plan.tenant, tokens, now));
        if let Err(why) = taken {
            locked(&key, |meter| {
                // As if it had never asked.
                meter.in_progress -= 1;
                meter.untold.requests = meter.untold.requests.saturating_sub(1);
                meter.tokens.give_back(if plan.key.tokens_per_minute.is_some() {
                    tokens
                } else {
                    0
                });
                meter.requests.give_back(u64::from(plan.key.requests_per_minute.is_some()));
            });
            return Err(limited(why, false));
        }
        let standing = standing();
        Ok(Reservation { meters: Some([(key, plan.key), (tenant, plan.tenant)]), tokens, standing })
    }
}

/// What a request has taken. Dropped without a word it used no tokens; that it asked stays counted.
#[derive(Debug)]
pub struct Reservation {
    /// The key's and the tenant's; `None` where nothing is limited.
    meters: Option<[(Shared, Rates); 2]>,
    tokens: u64,
    /// How its limits stood after it.
    pub standing: Standing,
}

impl Reservation {
    /// So many tokens were used: the rest is given back, or what is over charged.
    pub fn settle(mut self, used: u64) {
        for (meter, rates) in self.meters.iter().flatten() {
            locked(meter, |meter| {
                meter.untold.tokens += used;
                if rates.tokens_per_minute.is_some() {
                    match used.checked_sub(self.tokens) {
                        Some(over) => meter.tokens.charge(over),
                        None => meter.tokens.give_back(self.tokens - used),
                    }
                }
            });
        }
        self.tokens = 0;
    }
}

impl Reservation {
    /// As if it had never been asked for: its request does not count either.
    pub fn withdraw(self) {
        for (meter, rates) in self.meters.iter().flatten() {
            locked(meter, |meter| {
                meter.untold.requests = meter.untold.requests.saturating_sub(1);
                meter.requests.give_back(u64::from(rates.requests_per_minute.is_some()));
            });
        }
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        for (meter, rates) in self.meters.iter().flatten() {
            locked(meter, |meter| {
                meter.in_progress -= 1;
                if rates.tokens_per_minute.is_some() {
                    meter.tokens.give_back(self.tokens);
                }
            });
        }
    }
}

#[cfg(test)]
mod tests;
