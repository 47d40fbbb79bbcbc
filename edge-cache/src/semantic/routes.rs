//! Which routes may serve, and what they have shown. Shared between threads by reference.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use serde::{Deserialize, Serialize};

use super::trial::{Demand, Stage, Trial};

/// A tenant's requests for some weights.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Route {
    /// The tenant.
    pub tenant: String,
    /// `name@revision`.
    pub model: String,
    /// When it was last compared, as Unix time.
    latest: Duration,
    /// What was compared, of the very same question, and of those that mean the same: the first is
    /// nearly always right, and must not speak for the other.
    trials: [Trial; 2],
}

impl Route {
    /// The model's name, without its revision.
    #[must_use]
    pub fn model_name(&self) -> &str {
        self.model.split('@').next().unwrap_or_default()
    }

    /// What was compared.
    #[must_use]
    pub const fn trial(&self, how: How) -> &Trial {
        &self.trials[how as usize]
    }
}

/// By what an answer is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum How {
    /// The very same question, but for space and politeness.
    Exact,
    /// One that means the same.
    Similar,
}

impl How {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Exact, Self::Similar];

    /// For metrics, headers and people.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Exact => "exact",
            Self::Similar => "similar",
        }
    }
}

/// Names a route: its tenant's tag, its model's, and the rules by which it is judged.
pub(super) type RouteId = (u64, u64, u64);

/// Routes whose comparisons are remembered; of more, the one that was compared the longest ago goes.
const ROUTES_MAX: usize = 1000;

/// The routes of which anything was compared.
#[derive(Debug, Default)]
pub(super) struct Routes(Mutex<HashMap<RouteId, Route>>);

impl Routes {
    fn lock(&self) -> MutexGuard<'_, HashMap<RouteId, Route>> {
        // What is in it is whole at every moment.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a comparison; the route's stage where that changed.
    pub(super) fn count(
        &self,
        (id, tenant, model): (RouteId, &str, &str),
        (how, wrong): (How, bool),
        (demand, now): (Demand, Duration),
    ) -> Option<Stage> {
        let mut routes = self.lock();
        if routes.len() >= ROUTES_MAX && !routes.contains_key(&id) {
            let oldest = routes.iter().min_by_key(|(_, route)| route.latest).map(|(id, _)| *id);
            oldest.map(|oldest| routes.remove(&oldest));
        }
        let route = routes.entry(id).or_insert_with(|| Route {
            tenant: tenant.to_owned(),
            model: model.to_owned(),
            latest: now,
            trials: Default::default(),
        });
        route.latest = now;
        route.trials[how as usize].count(wrong, demand)
    }

    pub(super) fn stage(&self, id: RouteId, how: How) -> Stage {
        self.lock().get(&id).map(|route| route.trial(how).stage()).unwrap_or_default()
    }

    pub(super) fn get(&self, id: RouteId) -> Route {
        self.lock().get(&id).cloned().unwrap_or_default()
    }

    /// All of them, by name.
    pub(super) fn all(&self) -> Vec<(RouteId, Route)> {
        let mut all: Vec<_> = self.lock().iter().map(|(id, route)| (*id, route.clone())).collect();
        all.sort_by(|(_, a), (_, b)| (&a.tenant, &a.model).cmp(&(&b.tenant, &b.model)));
        all
    }

    /// Forgets what a tenant's routes for a model have shown, by its name or `name@revision`; which
    /// that were.
    pub(super) fn forget(&self, tenant: &str, model: &str) -> Vec<Route> {
        let is_meant = |route: &Route| {
            route.tenant == tenant && (route.model == model || route.model_name() == model)
        };
        let mut routes = self.lock();
        routes.extract_if(|_, route| is_meant(route)).map(|(_, route)| route).collect()
    }

    /// Takes what another process had seen.
    pub(super) fn take(&self, routes: Vec<(RouteId, Route)>) {
        self.lock().extend(routes);
    }
}
