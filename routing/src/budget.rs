//! How many attempts more than requests there may be: retries and hedges share a budget.
//!
//! Every request deposits a fifth of an attempt and every second ten, and what is not drawn is kept
//! for ten seconds: enough for all that a dying pod had under way, while upstreams that fail for
//! everybody are asked a fifth more and not twice as much. It begins with one second's worth, so
//! that over any run from the start attempts − requests ≤ share × requests + per second × (seconds + 1). All of
//! it is whole numbers. No tenant draws more than half of it, or than its part of the requests if
//! that is more: one whose requests always fail leaves the rest to those whose pod just died.
//! Absent on purpose: who retries and when, which is the plan's.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use crate::window::Slots;

/// What is deposited, and how long it is kept.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BudgetSettings {
    /// Of an attempt, by each request.
    pub share: f64,
    /// Attempts, by each second: a retry must be possible where requests are few.
    pub per_second: u32,
    /// What is older is lost.
    pub keep: Duration,
    /// Hedges over requests, at most, within `keep`.
    pub hedges: f64,
}

impl Default for BudgetSettings {
    fn default() -> Self {
        Self { share: 0.2, per_second: 10, keep: Duration::from_secs(10), hedges: 0.05 }
    }
}

/// One attempt in parts; a nanosecond of a budget of one per second deposits one part.
const WHOLE: u64 = 1_000_000_000;

#[derive(Debug, Clone, Default)]
struct Slot {
    /// Deposited here and not drawn, in parts.
    left: u64,
    /// Drawn in this time, from whichever slot, in parts.
    drawn: u64,
    requests: u64,
    hedges: u64,
    tenants: HashMap<String, Own>,
}

/// What a tenant did in a slot.
#[derive(Debug, Clone, Default)]
struct Own {
    drawn: u64,
    requests: u64,
}

/// Tenants told apart in a slot; those beyond share one's part.
const TENANTS_MAX: usize = 1000;

impl Slot {
    fn own(&mut self, tenant: &str) -> &mut Own {
        let known = self.tenants.contains_key(tenant);
        let name = if known || self.tenants.len() < TENANTS_MAX { tenant } else { "" };
        if !self.tenants.contains_key(name) {
            self.tenants.insert(name.to_owned(), Own::default());
        }
        self.tenants.get_mut(name).expect("it was put there")
    }

    fn known(&self, tenant: &str) -> Option<&Own> {
        self.tenants.get(tenant).or_else(|| self.tenants.get(""))
    }
}

/// The budget of one edge.
#[derive(Debug, Clone)]
pub struct Budget {
    /// In parts, by each request.
    share: u64,
    per_second: u32,
    keep: Duration,
    /// In parts of a hedge, by each request.
    hedges: u64,
    slots: Slots<Slot>,
    /// Time until then is deposited.
    deposited: Instant,
}

impl Budget {
    /// One second's worth.
    #[must_use]
    pub fn new(settings: BudgetSettings, now: Instant) -> Self {
        let mut slots = Slots::<Slot>::new(settings.keep);
        slots.at(now).left = u64::from(settings.per_second) * WHOLE;
        Self {
            share: parts(settings.share),
            per_second: settings.per_second,
            keep: settings.keep,
            hedges: parts(settings.hedges),
            slots,
            deposited: now,
        }
    }

    /// A request of a tenant came.
    pub fn request(&mut self, tenant: &str, now: Instant) {
        self.deposit(now);
        let share = self.share;
        let slot = self.slots.at(now);
        slot.requests += 1;
        slot.left += share;
        slot.own(tenant).requests += 1;
    }

    /// Whether a tenant's request may be tried once more.
    #[must_use]
    pub fn allows(&mut self, tenant: &str, now: Instant) -> bool {
        self.deposit(now);
        let (mut left, mut drawn, mut requests) = (0, 0, 0);
        let mut own = Own::default();
        for slot in self.slots.live(now) {
            left += slot.left;
            drawn += slot.drawn;
            requests += slot.requests;
            if let Some(known) = slot.known(tenant) {
                own.drawn += known.drawn;
                own.requests += known.requests;
            }
        }
        let (all, then) = (u128::from(left + drawn), u128::from(own.drawn + WHOLE));
        let half = 2 * then <= all;
        let part =
            own.requests > 0 && then * u128::from(requests) <= all * u128::from(own.requests);
        left >= WHOLE && (half || part)
    }

    /// Whether a tenant's request may be tried once more; if so, that is drawn.
    #[must_use]
    pub fn retry(&mut self, tenant: &str, now: Instant) -> bool {
        if !self.allows(tenant, now) {
            return false;
        }
        let mut due = WHOLE;
        // The oldest first: it is lost soonest.
        for slot in self.slots.live_mut(now) {
            let drawn = due.min(slot.left);
            slot.left -= drawn;
            due -= drawn;
        }
        let slot = self.slots.at(now);
        slot.drawn += WHOLE;
        slot.own(tenant).drawn += WHOLE;
        true
    }

    /// Whether a tenant's request may be tried twice at once; if so, that is drawn.
    #[must_use]
    pub fn hedge(&mut self, tenant: &str, now: Instant) -> bool {
        let (requests, hedges) = self.slots.live(now).fold((0, 0), |(requests, hedges), slot| {
            (requests + slot.requests, hedges + slot.hedges)
        });
        if (hedges + 1) * WHOLE > requests * self.hedges || !self.retry(tenant, now) {
            return false;
        }
        self.slots.at(now).hedges += 1;
        true
    }

    /// Deposits the time that passed, each part of it where it belongs: in one slot, what passed in
    /// a quiet time would be kept twice as long.
    fn deposit(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.deposited).min(self.keep);
        let mut from = now.checked_sub(passed).unwrap_or(now);
        while from < now {
            let to = self.slots.end(from).min(now);
            let nanos = u64::try_from((to - from).as_nanos()).unwrap_or(u64::MAX);
            let deposit = nanos.saturating_mul(u64::from(self.per_second));
            let slot = self.slots.at(from);
            slot.left = slot.left.saturating_add(deposit);
            from = to;
        }
        self.deposited = self.deposited.max(now);
    }
}

/// A share in parts of a whole.
fn parts(share: f64) -> u64 {
    #[expect(clippy::cast_possible_truncation, reason = "a share from 0 to 1 of what fits")]
    let parts = (share.clamp(0.0, 1.0) * WHOLE as f64).round() as u64;
    parts
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;
    use crate::start;

    const SECOND: Duration = Duration::from_secs(1);

    /// How many retries in a row are granted, to one tenant alone.
    fn granted(budget: &mut Budget, now: Instant) -> usize {
        granted_to("t", budget, now)
    }

    fn granted_to(tenant: &str, budget: &mut Budget, now: Instant) -> usize {
        (0..10_000).take_while(|_| budget.retry(tenant, now)).count()
    }

    #[test]
    fn it_begins_with_a_seconds_worth_and_keeps_ten() {
        let check = |waited: u32, expected: usize| {
            let begin = start();
            let mut budget = Budget::new(BudgetSettings::default(), begin);
            let now = begin + waited * SECOND;
            budget.request("t", now);
            assert_eq!(granted(&mut budget, now), expected, "after {waited} s");
        };
        check(0, 10);
        check(1, 20);
        check(9, 100);
        // What it began with is lost.
        check(10, 90);
        check(3600, 90);
    }

    #[test]
    fn what_a_dying_pod_had_under_way_is_covered() {
        let mut now = start();
        let mut budget = Budget::new(BudgetSettings::default(), now);
        for _ in 0..400 {
            now += SECOND / 40;
            budget.request("t", now);
        }
        assert!((0..60).all(|_| budget.retry("t", now)), "a burst of sixty");
    }

    #[test]
    fn hedges_are_a_twentieth_of_requests_and_share_the_budget() {
        let now = start();
        let mut budget = Budget::new(BudgetSettings::default(), now);
        assert!(!budget.hedge("t", now), "no requests yet");
        (0..40).for_each(|_| budget.request("t", now));
        let hedges =
            |budget: &mut Budget, now| (0..100).take_while(|_| budget.hedge("t", now)).count();
        assert_eq!(hedges(&mut budget, now), 2);
        assert_eq!(granted(&mut budget, now), 16, "ten and a fifth of forty, less two");
        (0..19).for_each(|_| budget.request("t", now));
        assert_eq!(hedges(&mut budget, now), 0, "fifty-nine");
        budget.request("t", now);
        assert_eq!(hedges(&mut budget, now), 1, "sixty");
        (0..400).for_each(|_| budget.request("t", now));
        assert!(granted(&mut budget, now) > 0);
        assert!(!budget.hedge("t", now), "nothing is left to share");
        assert_eq!(hedges(&mut budget, now + 20 * SECOND), 0, "requests of long ago");
    }

    #[test]
    fn a_tenant_leaves_half_or_what_is_the_others_part() {
        let check = |own: usize, others: usize, expected: (usize, usize)| {
            let now = start();
            let mut budget = Budget::new(BudgetSettings::default(), now);
            (0..own).for_each(|_| budget.request("greedy", now));
            (0..others).for_each(|_| budget.request("other", now));
            let greedy = granted_to("greedy", &mut budget, now);
            let left = granted_to("other", &mut budget, now);
            assert_eq!((greedy, left), expected, "{own} beside {others}");
        };
        // Ten, and a fifth of all.
        check(100, 0, (30, 0));
        check(10, 90, (15, 15));
        check(80, 20, (24, 6));
        check(50, 50, (15, 15));
        // Of a third tenant that made none.
        check(0, 100, (15, 15));
    }

    #[test]
    fn what_a_tenant_drew_is_forgotten_with_what_it_drew_from() {
        let now = start();
        let mut budget = Budget::new(BudgetSettings::default(), now);
        budget.request("other", now);
        assert_eq!(granted_to("greedy", &mut budget, now), 5);
        assert_eq!(granted_to("greedy", &mut budget, now + SECOND), 5, "half of ten more");
        assert_eq!(granted_to("greedy", &mut budget, now + 60 * SECOND), 45);
    }

    #[test]
    fn tenants_without_number_are_held_within_bounds() {
        let now = start();
        let mut budget = Budget::new(BudgetSettings::default(), now);
        for tenant in 0..5000 {
            budget.request(&tenant.to_string(), now);
        }
        assert!(budget.slots.live(now).all(|slot| slot.tenants.len() <= TENANTS_MAX + 1));
        assert!(budget.retry("4999", now), "one of those beyond");
    }

    #[derive(Debug, Clone, Copy)]
    enum Event {
        Wait(u64),
        Requests(u32),
        Retries(u32),
        Hedges(u32),
    }

    fn events() -> impl Strategy<Value = Vec<Event>> {
        let event = prop_oneof![
            (0..2_000_000_000u64).prop_map(Event::Wait),
            (0..30_000_000_000u64).prop_map(Event::Wait),
            (0..200u32).prop_map(Event::Requests),
            (0..200u32).prop_map(Event::Retries),
            (0..20u32).prop_map(Event::Hedges),
        ];
        vec(event, 1..60)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn extra_attempts_stay_within_the_promise(events in events()) {
            let begin = start();
            let mut now = begin;
            let mut budget = Budget::new(BudgetSettings::default(), now);
            let (mut requests, mut extra, mut hedges) = (0u128, 0u128, 0u128);
            for event in events {
                match event {
                    Event::Wait(nanos) => now += Duration::from_nanos(nanos),
                    Event::Requests(count) => for _ in 0..count {
                        budget.request("t", now);
                        requests += 1;
                    },
                    Event::Retries(count) => for _ in 0..count {
                        let allowed = budget.allows("t", now);
                        let granted = budget.retry("t", now);
                        prop_assert_eq!(granted, allowed);
                        extra += u128::from(granted);
                    },
                    Event::Hedges(count) => for _ in 0..count {
                        let granted = budget.hedge("t", now);
                        extra += u128::from(granted);
                        hedges += u128::from(granted);
                    },
                }
                // In fifths of a nano-attempt, so that it is exact.
                let promised = requests * 1_000_000_000
                    + 50 * (now - begin).as_nanos() + 50 * 1_000_000_000;
                prop_assert!(extra * 5_000_000_000 <= promised);
                prop_assert!(hedges * 20 <= requests);
            }
        }
    }
}
