//! What edges know of each other's use of a limit. Pure.
//!
//! Each edge adds what it settled to a counter that all of them share, one a minute, and charges
//! its own bucket with what the others added: no request waits for anybody, and together they may
//! be over a limit by what they use between two looks. Where the counter cannot be had, each edge
//! counts alone.

use std::collections::HashMap;

/// Whose limit it is: a tenant's, or that of one of its keys.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Owner {
    /// The tenant.
    pub tenant: String,
    /// The key; `None` is the tenant itself.
    pub key: Option<String>,
}

/// What was used.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Used {
    /// Tokens.
    pub tokens: u64,
    /// Requests.
    pub requests: u64,
}

impl Used {
    /// Whether that is nothing.
    #[must_use]
    pub const fn is_nothing(self) -> bool {
        self.tokens == 0 && self.requests == 0
    }

    fn less(self, other: Self) -> Self {
        Self {
            tokens: self.tokens.saturating_sub(other.tokens),
            requests: self.requests.saturating_sub(other.requests),
        }
    }

    fn plus(self, other: Self) -> Self {
        Self {
            tokens: self.tokens.saturating_add(other.tokens),
            requests: self.requests.saturating_add(other.requests),
        }
    }
}

/// What is known of the others, by owner.
#[derive(Debug, Default)]
pub struct Others {
    windows: HashMap<Owner, Window>,
}

/// One minute of one owner.
#[derive(Debug, Clone, Copy, Default)]
struct Window {
    minute: u64,
    own: Used,
    charged: Used,
}

impl Others {
    /// The counter of `minute` stands at `total` after this edge added `own`: what the others have
    /// used since it was last looked at.
    pub fn learn(&mut self, owner: &Owner, minute: u64, own: Used, total: Used) -> Used {
        if self.windows.len() > 2 * crate::limits::OWNERS_MAX {
            self.windows.clear();
        }
        self.lost(owner, minute, own);
        let window = self.windows.entry(owner.clone()).or_default();
        let others = total.less(window.own);
        let new = others.less(window.charged);
        window.charged = window.charged.plus(new);
        new
    }

    /// What this edge added, and may or may not have arrived: it must not come back as others' use.
    pub fn lost(&mut self, owner: &Owner, minute: u64, own: Used) {
        let window = self.windows.entry(owner.clone()).or_default();
        if window.minute != minute {
            *window = Window { minute, ..Window::default() };
        }
        window.own = window.own.plus(own);
    }

    /// Forgets minutes before this one.
    pub fn forget(&mut self, minute: u64) {
        self.windows.retain(|_, window| window.minute >= minute);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn owner() -> Owner {
        Owner { tenant: "t".into(), key: None }
    }

    fn tokens(tokens: u64) -> Used {
        Used { tokens, requests: 0 }
    }

    proptest! {
        /// Whoever looks, and when: what an edge has used itself and was charged with for the
        /// others is, at its last look, what all have used.
        #[test]
        fn nothing_is_charged_twice_or_never(steps in prop::collection::vec((0usize..3, 0u64..100), 1..60)) {
            let mut edges = [const { None }; 3].map(|_: Option<()>| (Others::default(), 0, 0));
            let mut total = 0;
            for (edge, used) in steps {
                total += used;
                let (others, own, charged) = &mut edges[edge];
                *own += used;
                *charged += others.learn(&owner(), 7, tokens(used), tokens(total)).tokens;
                prop_assert_eq!(*own + *charged, total);
            }
        }
    }

    #[test]
    fn a_new_minute_begins_at_nothing() {
        let mut others = Others::default();
        assert_eq!(others.learn(&owner(), 1, tokens(5), tokens(15)), tokens(10));
        assert_eq!(others.learn(&owner(), 2, tokens(1), tokens(4)), tokens(3));
        // The counter was lost: nothing is given back, and nothing charged twice.
        assert_eq!(others.learn(&owner(), 2, tokens(1), tokens(1)), tokens(0));
        others.forget(3);
        assert!(others.windows.is_empty());
    }
}
