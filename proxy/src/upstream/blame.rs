//! Whether a failure speaks against an upstream, or against what was asked of it. Pure.
//!
//! A request that crashes whatever computes it must not take pod after pod from everybody: what
//! fails for one tenant alone, while the others are served, is held against that tenant. And where
//! most pods are late at once, none of them is to blame.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use nearhop_routing::{Counts, Evidence};

/// How attempts went, by tenant.
#[derive(Debug)]
pub(crate) struct Blame {
    tenants: HashMap<String, Tenant>,
    all: Counts,
}

#[derive(Debug)]
struct Tenant {
    counts: Counts,
    last: Instant,
}

const WINDOW: Duration = Duration::from_secs(60);
/// Failures of one tenant alone that are believed to be the upstream's.
const BELIEVED: u64 = 4;
/// Attempts of others, all good, that make a tenant's failures its own.
const OTHERS_GOOD: u64 = 4;
/// Tenants remembered; beyond, those that were not seen for a window go first, and then all.
const TENANTS_MAX: usize = 4096;

impl Default for Blame {
    fn default() -> Self {
        Self { tenants: HashMap::new(), all: Counts::new(WINDOW) }
    }
}

impl Blame {
    /// What an attempt's end says, given who asked.
    pub(crate) fn weigh(&mut self, tenant: &str, evidence: Evidence, now: Instant) -> Evidence {
        let bad = match evidence {
            Evidence::Good => false,
            Evidence::Dead | Evidence::Failure => true,
            // Time and credentials are not a tenant's to break.
            Evidence::Neutral | Evidence::Slow | Evidence::Misconfigured => return evidence,
        };
        self.make_room(now);
        let (all_good, all_bad) = self.all.totals(now);
        self.all.add(bad, now);
        let fresh = || Tenant { counts: Counts::new(WINDOW), last: now };
        if !self.tenants.contains_key(tenant) {
            self.tenants.insert(tenant.to_owned(), fresh());
        }
        let Some(own) = self.tenants.get_mut(tenant) else { return evidence };
        let (own_good, own_bad) = own.counts.totals(now);
        own.counts.add(bad, now);
        own.last = now;
        let others = (all_good.saturating_sub(own_good), all_bad.saturating_sub(own_bad));
        match bad && own_bad >= BELIEVED && others.0 >= OTHERS_GOOD && others.1 == 0 {
            true => Evidence::Neutral,
            false => evidence,
        }
    }

    fn make_room(&mut self, now: Instant) {
        if self.tenants.len() < TENANTS_MAX {
            return;
        }
        self.tenants.retain(|_, tenant| now.duration_since(tenant.last) < WINDOW);
        if self.tenants.len() >= TENANTS_MAX {
            self.tenants.clear();
            self.all.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STEP: Duration = Duration::from_millis(100);

    /// What becomes of the last failure of `a`, after so many of its own and, between them, what
    /// others saw.
    fn last(own: usize, others: &[Evidence]) -> Evidence {
        let (mut blame, mut now) = (Blame::default(), nearhop_admin::clock::now());
        let mut weighed = Evidence::Neutral;
        for other in others {
            blame.weigh("b", *other, now);
            now += STEP;
        }
        for _ in 0..own {
            weighed = blame.weigh("a", Evidence::Dead, now);
            now += STEP;
        }
        weighed
    }

    #[test]
    fn what_fails_for_one_tenant_alone_is_its_own() {
        const GOOD: Evidence = Evidence::Good;
        assert_eq!(last(4, &[GOOD; 9]), Evidence::Dead, "the first are believed");
        assert_eq!(last(5, &[GOOD; 9]), Evidence::Neutral);
        assert_eq!(last(50, &[]), Evidence::Dead, "nobody else to compare with");
        assert_eq!(last(50, &[GOOD, GOOD, GOOD]), Evidence::Dead, "too few others");
        let mixed = [GOOD, GOOD, GOOD, GOOD, GOOD, Evidence::Failure];
        assert_eq!(last(50, &mixed), Evidence::Dead, "others fail too");
    }

    #[test]
    fn time_forgets() {
        let (mut blame, now) = (Blame::default(), nearhop_admin::clock::now());
        (0..9).for_each(|_| {
            blame.weigh("b", Evidence::Good, now);
            blame.weigh("a", Evidence::Dead, now);
        });
        assert_eq!(blame.weigh("a", Evidence::Dead, now), Evidence::Neutral);
        let later = now + 2 * WINDOW;
        assert_eq!(blame.weigh("a", Evidence::Dead, later), Evidence::Dead);
    }

    #[test]
    fn tenants_without_end_are_forgotten() {
        let (mut blame, now) = (Blame::default(), nearhop_admin::clock::now());
        for tenant in 0..3 * TENANTS_MAX {
            blame.weigh(&tenant.to_string(), Evidence::Failure, now);
        }
        assert!(blame.tenants.len() <= TENANTS_MAX);
    }
}
