//! Whether a failure speaks against an upstream, or against what was asked of it. Pure.
//!
//! A request that crashes or holds up whatever computes it must not take pod after pod from everybody:
//! what fails again and again for one tenant alone, where the same upstream serves others well, is
//! held against that tenant.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use nearhop_routing::{Counts, Evidence, UpstreamId};

/// How attempts went, by tenant and upstream.
#[derive(Debug, Default)]
pub(crate) struct Blame {
    tenants: HashMap<String, Tenant>,
    /// Everybody's, by upstream.
    all: HashMap<UpstreamId, Counts>,
}

#[derive(Debug)]
struct Tenant {
    /// Its failures, wherever.
    failures: Counts,
    on: HashMap<UpstreamId, Counts>,
    last: Instant,
}

const WINDOW: Duration = Duration::from_secs(60);
/// Failures of one tenant that are believed to be upstreams', wherever they were.
const BELIEVED: u64 = 4;
/// Attempts of others on the same upstream, all good, that make a tenant's failures its own.
const OTHERS_GOOD: u64 = 4;
/// Tenants remembered; beyond, those that were not seen for a window go first, and then all.
const TENANTS_MAX: usize = 4096;
/// Upstreams remembered: what ran on one that is no more ends after it was forgotten.
const UPSTREAMS_MAX: usize = 4096;

fn counts() -> Counts {
    Counts::new(WINDOW)
}

impl Blame {
    /// What an attempt's end says of an upstream, given who asked.
    pub(crate) fn weigh(
        &mut self,
        (tenant, upstream): (&str, UpstreamId),
        evidence: Evidence,
        now: Instant,
    ) -> Evidence {
        let bad = match evidence {
            Evidence::Good => false,
            Evidence::Dead | Evidence::Failure | Evidence::Slow => true,
            // Credentials are not a tenant's to break.
            Evidence::Neutral | Evidence::Misconfigured => return evidence,
        };
        self.make_room(now);
        let all = self.all.entry(upstream).or_insert_with(counts);
        let (all_good, all_bad) = all.totals(now);
        all.add(bad, now);
        if !self.tenants.contains_key(tenant) {
            let new = Tenant { failures: counts(), on: HashMap::new(), last: now };
            self.tenants.insert(tenant.to_owned(), new);
        }
        let Some(own) = self.tenants.get_mut(tenant) else { return evidence };
        own.last = now;
        let (_, failures) = own.failures.totals(now);
        if bad {
            own.failures.add(true, now);
        }
        let on = own.on.entry(upstream).or_insert_with(counts);
        let (own_good, own_bad) = on.totals(now);
        on.add(bad, now);
        let others = (all_good.saturating_sub(own_good), all_bad.saturating_sub(own_bad));
        match bad && failures >= BELIEVED && others.0 >= OTHERS_GOOD && others.1 == 0 {
            true => Evidence::Neutral,
            false => evidence,
        }
    }

    /// An upstream is no more.
    pub(crate) fn forget(&mut self, upstream: UpstreamId) {
        self.all.remove(&upstream);
        self.tenants.values_mut().for_each(|tenant| {
            tenant.on.remove(&upstream);
        });
    }

    fn make_room(&mut self, now: Instant) {
        if self.tenants.len() >= TENANTS_MAX {
            self.tenants.retain(|_, tenant| now.duration_since(tenant.last) < WINDOW);
        }
        if self.tenants.len() >= TENANTS_MAX || self.all.len() >= UPSTREAMS_MAX {
            self.tenants.clear();
            self.all.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STEP: Duration = Duration::from_millis(100);
    const ONE: UpstreamId = UpstreamId(1);
    const OTHER: UpstreamId = UpstreamId(2);

    /// What becomes of the last failure of `a` on one upstream, after so many of its own there and,
    /// before them, what others saw on `on`.
    fn last(own: usize, on: UpstreamId, others: &[Evidence]) -> Evidence {
        let (mut blame, mut now) = (Blame::default(), nearhop_admin::clock::now());
        let mut weighed = Evidence::Neutral;
        for other in others {
            blame.weigh(("b", on), *other, now);
            now += STEP;
        }
        for _ in 0..own {
            weighed = blame.weigh(("a", ONE), Evidence::Dead, now);
            now += STEP;
        }
        weighed
    }

    #[test]
    fn what_fails_for_one_tenant_alone_is_its_own() {
        const GOOD: Evidence = Evidence::Good;
        assert_eq!(last(4, ONE, &[GOOD; 9]), Evidence::Dead, "the first are believed");
        assert_eq!(last(5, ONE, &[GOOD; 9]), Evidence::Neutral);
        assert_eq!(last(50, ONE, &[]), Evidence::Dead, "nobody else to compare with");
        assert_eq!(last(50, ONE, &[GOOD, GOOD, GOOD]), Evidence::Dead, "too few others");
        let mixed = [GOOD, GOOD, GOOD, GOOD, GOOD, Evidence::Failure];
        assert_eq!(last(50, ONE, &mixed), Evidence::Dead, "others fail too");
        assert_eq!(last(50, OTHER, &[GOOD; 9]), Evidence::Dead, "others are served elsewhere");
    }

    #[test]
    fn time_forgets() {
        let (mut blame, now) = (Blame::default(), nearhop_admin::clock::now());
        (0..9).for_each(|_| {
            blame.weigh(("b", ONE), Evidence::Good, now);
            blame.weigh(("a", ONE), Evidence::Dead, now);
        });
        assert_eq!(blame.weigh(("a", ONE), Evidence::Dead, now), Evidence::Neutral);
        let later = now + 2 * WINDOW;
        assert_eq!(blame.weigh(("a", ONE), Evidence::Dead, later), Evidence::Dead);
    }

    #[test]
    fn tenants_without_end_are_forgotten() {
        let (mut blame, now) = (Blame::default(), nearhop_admin::clock::now());
        for tenant in 0..3 * TENANTS_MAX {
            blame.weigh((&tenant.to_string(), ONE), Evidence::Failure, now);
        }
        assert!(blame.tenants.len() <= TENANTS_MAX);
    }

    #[test]
    fn upstreams_that_are_gone_are_not_kept_for_ever() {
        let (mut blame, now) = (Blame::default(), nearhop_admin::clock::now());
        for id in 0..3 * UPSTREAMS_MAX as u64 {
            blame.forget(UpstreamId(id));
            blame.weigh(("a", UpstreamId(id)), Evidence::Dead, now);
        }
        assert!(blame.all.len() <= UPSTREAMS_MAX);
        assert!(blame.tenants["a"].on.len() <= UPSTREAMS_MAX);
    }
}
