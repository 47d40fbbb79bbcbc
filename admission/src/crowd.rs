//! Requests in progress, of whichever tenant: how many each may have of all there may be.
//!
//! The turns at pods ([`crate::Gate`]) come after a request's body, and a body may be slow. So that
//! no tenant takes every place by sending slowly, one that has its share gets no more once half of
//! the places are taken; an eighth is kept for those who have none yet.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use crate::Caller;

/// Who is in.
#[derive(Debug, Default)]
pub struct Crowd(Mutex<Inside>);

#[derive(Debug, Default)]
struct Inside {
    total: usize,
    tenants: HashMap<String, usize>,
}

/// Whether a tenant that has `mine` of `total` places may have another, of `limit`, where so many
/// tenants have one.
fn may_enter(mine: usize, total: usize, tenants: usize, limit: usize) -> bool {
    let tenants = tenants + usize::from(mine == 0);
    let share = ((limit - limit / 8) / tenants.max(1)).max(1);
    total < limit && (total < limit / 2 || mine < share)
}

/// A place among the requests in progress, given back when dropped.
#[derive(Debug)]
pub struct Seat {
    crowd: Arc<Crowd>,
    caller: Arc<Caller>,
}

impl Crowd {
    fn inside<R>(&self, act: impl FnOnce(&mut Inside) -> R) -> R {
        // Nothing in here can panic half-way.
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// A place for a request of `caller`, of `limit` for all; `None` where there is none.
    #[must_use]
    pub fn enter(self: &Arc<Self>, caller: &Arc<Caller>, limit: usize) -> Option<Seat> {
        let entered = self.inside(|inside| {
            let mine = inside.tenants.get(&caller.tenant).copied().unwrap_or(0);
            let may = may_enter(mine, inside.total, inside.tenants.len(), limit);
            if may {
                inside.total += 1;
                match inside.tenants.get_mut(&caller.tenant) {
                    Some(count) => *count += 1,
                    None => drop(inside.tenants.insert(caller.tenant.clone(), 1)),
                }
            }
            may
        });
        entered.then(|| Seat { crowd: Arc::clone(self), caller: Arc::clone(caller) })
    }

    /// Requests in progress.
    #[must_use]
    pub fn total(&self) -> usize {
        self.inside(|inside| inside.total)
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.crowd.inside(|inside| {
            inside.total -= 1;
            if let Some(count) = inside.tenants.get_mut(&self.caller.tenant) {
                *count -= 1;
                if *count == 0 {
                    inside.tenants.remove(&self.caller.tenant);
                }
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn caller(tenant: &str) -> Arc<Caller> {
        Arc::new(Caller {
            key: "k".into(),
            label: "k".into(),
            tenant: tenant.into(),
            user: None,
            scopes: Vec::new(),
            plan: Arc::default(),
            egress: Arc::default(),
        })
    }

    #[test]
    fn one_tenant_leaves_room_for_another() {
        let crowd = Arc::new(Crowd::default());
        let flood = caller("flood");
        let held: Vec<_> = std::iter::from_fn(|| crowd.enter(&flood, 80)).collect();
        assert_eq!(held.len(), 70, "an eighth is kept");
        let others: Vec<_> = std::iter::from_fn(|| crowd.enter(&caller("other"), 80)).collect();
        assert_eq!(others.len(), 10);
        drop(held);
        assert_eq!(crowd.total(), 10);
        drop(others);
        assert!(crowd.inside(|inside| inside.tenants.is_empty()));
    }

    #[test]
    fn even_few_places_are_places() {
        let crowd = Arc::new(Crowd::default());
        assert!(crowd.enter(&caller("a"), 1).is_some());
    }

    proptest! {
        /// Never over the limit, and who has nothing is let in while an eighth is free.
        #[test]
        fn a_newcomer_finds_a_place(limit in 8usize..500, total in 0usize..500, tenants in 0usize..50) {
            let total = total.min(limit);
            let may = may_enter(0, total, tenants, limit);
            prop_assert_eq!(may, total < limit);
            prop_assert!(!may_enter(total, total, 1, limit) || total < limit - limit / 8 || total < limit / 2);
        }
    }
}
