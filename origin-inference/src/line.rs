//! Who is next: the order in which waiting jobs get a slot. Pure.
//!
//! Three rules, in this order. Classes: inline before fill in the middle before chat before agents,
//! but a job climbs one class for every [`PATIENCE`] it has waited, so that nobody waits for ever.
//! Tenants: of one class, the tenant that was given the fewest tokens (start-time fair queueing,
//! Goyal et al. 1996). A tenant's own jobs: the oldest.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::{Duration, Instant},
};

use nearhop_wire::Kind;

/// A job that waited this long counts as one class better.
pub(crate) const PATIENCE: Duration = Duration::from_secs(2);

/// Tenants whose share is remembered though they do not wait.
const REMEMBERED_MAX: usize = 4096;

/// What the order depends on.
#[derive(Debug, Clone)]
pub(crate) struct Standing {
    pub(crate) tenant: Arc<str>,
    pub(crate) class: Kind,
    /// Tokens it will cost: its prompt, and the longest answer it may have.
    pub(crate) cost: usize,
    pub(crate) since: Instant,
}

impl Standing {
    /// Its class after `now - since` of waiting; 0 is served first.
    pub(crate) fn rank(&self, now: Instant) -> u32 {
        let class = match self.class {
            Kind::Inline => 0,
            Kind::Fim => 1,
            Kind::Chat => 2,
            Kind::Agent => 3,
        };
        let waited = now.saturating_duration_since(self.since).as_millis();
        let climbed = u32::try_from(waited / PATIENCE.as_millis()).unwrap_or(u32::MAX);
        u32::saturating_sub(class, climbed)
    }
}

struct Waiting<T> {
    standing: Standing,
    item: T,
}

/// Jobs that wait for a slot.
pub(crate) struct Line<T> {
    waiting: Vec<Waiting<T>>,
    /// Tokens that each tenant was given, counted from where it came back into the line.
    given: HashMap<Arc<str>, u64>,
    /// How far the tenant served last has got: who comes anew starts here.
    level: u64,
}

impl<T> Line<T> {
    pub(crate) fn new() -> Self {
        Self { waiting: Vec::new(), given: HashMap::new(), level: 0 }
    }

    pub(crate) fn push(&mut self, item: T, standing: Standing) {
        let level = self.level;
        let waits = self.waiting.iter().any(|other| other.standing.tenant == standing.tenant);
        let given = self.given.entry(Arc::clone(&standing.tenant)).or_insert(level);
        if !waits {
            // Time away earns nothing.
            *given = (*given).max(level);
        }
        self.waiting.push(Waiting { standing, item });
    }

    /// Puts back what [`Line::next`] gave and what got nothing for it yet.
    pub(crate) fn put_back(&mut self, item: T, standing: Standing) {
        if let Some(given) = self.given.get_mut(&standing.tenant) {
            *given = given.saturating_sub(standing.cost as u64);
        }
        self.waiting.push(Waiting { standing, item });
    }

    /// The rank of who is next.
    pub(crate) fn next_rank(&self, now: Instant) -> Option<u32> {
        self.waiting.iter().map(|waiting| waiting.standing.rank(now)).min()
    }

    /// Takes out who is next.
    pub(crate) fn next(&mut self, now: Instant) -> Option<T> {
        let order = |at: &usize| {
            let standing = &self.waiting[*at].standing;
            let given = self.given.get(&standing.tenant).copied().unwrap_or(self.level);
            (standing.rank(now), given, standing.since, *at)
        };
        let at = (0..self.waiting.len()).min_by_key(order)?;
        // Order of arrival breaks ties, so that nothing may be moved.
        let Waiting { standing, item } = self.waiting.remove(at);
        if let Some(given) = self.given.get_mut(&standing.tenant) {
            self.level = self.level.max(*given);
            *given += standing.cost as u64;
        }
        self.forget();
        Some(item)
    }

    /// Takes out all that `keep` refuses, and returns how many.
    pub(crate) fn retain(&mut self, mut keep: impl FnMut(&T) -> bool) -> usize {
        let before = self.waiting.len();
        self.waiting.retain(|waiting| keep(&waiting.item));
        self.forget();
        before - self.waiting.len()
    }

    /// Tenants that neither wait nor owe anything need not be remembered; of too many, neither need
    /// their debts.
    fn forget(&mut self) {
        if self.waiting.is_empty() {
            self.given.clear();
            self.level = 0;
        }
        if self.given.len() > self.waiting.len() + REMEMBERED_MAX {
            let waiting: HashSet<&Arc<str>> =
                self.waiting.iter().map(|waiting| &waiting.standing.tenant).collect();
            self.given.retain(|tenant, _| waiting.contains(tenant));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(now: Instant, jobs: &[(&str, Kind, usize, u64)]) -> Line<usize> {
        let mut line = Line::new();
        for (at, (tenant, class, cost, waited)) in jobs.iter().enumerate() {
            let since = now - Duration::from_secs(*waited);
            let tenant = Arc::from(*tenant);
            line.push(at, Standing { tenant, class: *class, cost: *cost, since });
        }
        line
    }

    fn order(now: Instant, jobs: &[(&str, Kind, usize, u64)]) -> Vec<usize> {
        let mut line = line(now, jobs);
        std::iter::from_fn(|| line.next(now)).collect()
    }

    fn now() -> Instant {
        nearhop_admin::clock::now() + Duration::from_secs(1000)
    }

    #[test]
    fn classes_go_before_arrival() {
        use Kind::{Agent, Chat, Fim, Inline};
        let jobs = [("a", Agent, 9, 1), ("a", Chat, 9, 1), ("a", Fim, 9, 1), ("a", Inline, 9, 0)];
        assert_eq!(order(now(), &jobs), [3, 2, 1, 0]);
    }

    #[test]
    fn who_waited_long_enough_goes_before_a_better_class() {
        use Kind::{Agent, Inline};
        let patient = [("a", Inline, 9, 0), ("a", Agent, 9, 6), ("a", Inline, 9, 1)];
        assert_eq!(order(now(), &patient), [1, 2, 0]);
        let impatient = [("a", Inline, 9, 0), ("a", Agent, 9, 5)];
        assert_eq!(order(now(), &impatient), [0, 1]);
    }

    #[test]
    fn a_tenant_that_floods_does_not_push_the_others_back() {
        let mut jobs = vec![("flood", Kind::Fim, 100, 1); 20];
        jobs.push(("quiet", Kind::Fim, 100, 0));
        assert_eq!(order(now(), &jobs).iter().position(|at| *at == 20), Some(1));
    }

    #[test]
    fn tokens_count_not_jobs() {
        let mut jobs = vec![("large", Kind::Fim, 400, 0); 3];
        jobs.extend(vec![("small", Kind::Fim, 100, 0); 6]);
        let served = order(now(), &jobs);
        let large = |first: usize| served[..first].iter().filter(|at| **at < 3).count();
        assert_eq!((large(5), large(9)), (1, 3), "{served:?}");
    }

    #[test]
    fn who_is_put_back_is_charged_once() {
        let now = now();
        let standing = |tenant: &str| Standing {
            tenant: tenant.into(),
            class: Kind::Chat,
            cost: 100,
            since: now,
        };
        let mut line = Line::new();
        line.push(0, standing("a"));
        line.push(1, standing("b"));
        line.push(2, standing("b"));
        assert_eq!((line.next(now), line.next_rank(now)), (Some(0), Some(2)));
        line.put_back(0, standing("a"));
        let served: Vec<_> = std::iter::from_fn(|| line.next(now)).collect();
        assert_eq!(served, [1, 0, 2], "as if it had never been taken out");
    }

    #[test]
    fn time_away_earns_nothing() {
        let now = now();
        let standing = |tenant: &str| Standing {
            tenant: tenant.into(),
            class: Kind::Fim,
            cost: 10,
            since: now,
        };
        let mut line = Line::new();
        (0..50).for_each(|job| line.push(job, standing("busy")));
        assert_eq!((0..40).filter_map(|_| line.next(now)).count(), 40);
        (100..110).for_each(|job| line.push(job, standing("back")));
        let served: Vec<i32> = (0..10).filter_map(|_| line.next(now)).collect();
        let back = served.iter().filter(|job| **job >= 100).count();
        assert!((4..=6).contains(&back), "{served:?}");
    }

    #[test]
    fn who_left_is_forgotten() {
        let now = now();
        let mut line = Line::new();
        let standing = |tenant: usize| Standing {
            tenant: Arc::from(tenant.to_string()),
            class: Kind::Fim,
            cost: 9,
            since: now,
        };
        line.push((), standing(0));
        for tenant in 1..10_000 {
            line.push((), standing(tenant));
            line.next(now);
        }
        assert!(line.given.len() <= REMEMBERED_MAX + 2, "{}", line.given.len());
        line.next(now);
        assert_eq!(line.given.len(), 0, "an empty line remembers nothing");
        let mut line = self::line(now, &[("a", Kind::Fim, 1, 0), ("b", Kind::Fim, 1, 0)]);
        assert_eq!((line.retain(|item| *item == 1), line.waiting.len()), (1, 1));
        assert_eq!(
            (line.retain(|_| false), line.given.len()),
            (1, 0),
            "nor does one that all left"
        );
    }
}
