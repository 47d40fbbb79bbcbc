//! Which rules of reuse are on.

use std::sync::atomic::{AtomicU8, Ordering};

use nearhop_conf::ReuseRule;
use nearhop_edge_cache::Rule;

/// The rules that may serve: those of the configuration, less those that switched themselves off.
#[derive(Debug)]
pub(crate) struct Rules {
    off: AtomicU8,
}

impl Rules {
    /// These, and no others.
    pub(crate) fn new(on: &[ReuseRule]) -> Self {
        let is_on = |rule: &Rule| on.iter().any(|on| of(*on) == *rule);
        let off = Rule::ALL.iter().filter(|rule| !is_on(rule));
        Self { off: AtomicU8::new(off.fold(0, |off, rule| off | bit(*rule))) }
    }

    /// For each rule whether it may serve.
    pub(crate) fn allowed(&self) -> [bool; Rule::ALL.len()] {
        let off = self.off.load(Ordering::Acquire);
        Rule::ALL.map(|rule| off & bit(rule) == 0)
    }

    /// Switches a rule off until the process ends; whether it was on.
    pub(crate) fn switch_off(&self, rule: Rule) -> bool {
        self.off.fetch_or(bit(rule), Ordering::AcqRel) & bit(rule) == 0
    }
}

const fn of(rule: ReuseRule) -> Rule {
    match rule {
        ReuseRule::Exact => Rule::Exact,
        ReuseRule::TypeAhead => Rule::TypeAhead,
        ReuseRule::Window => Rule::Window,
        ReuseRule::Normalised => Rule::Normalised,
    }
}

const fn bit(rule: Rule) -> u8 {
    1 << rule as u8
}
