//! What is left where nobody could generate: something like it from the cache, an empty answer for
//! code, a word to a chat; and the label that says so.
//!
//! An editor inserts whatever text it gets, so code gets none; a person in a chat reads, and is told.
//! What was shed is always told as such: a client that comes back in time is served.

use super::{
    admit::Admitted,
    lookup,
    record::{Record, Source},
    respond,
};
use crate::{client::Client, reject::Reject};
use nearhop_routing::Level;

/// What follows the cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rung {
    /// An answer without text.
    Empty,
    /// A text that says that nothing can answer.
    Tip,
    /// No.
    Refuse,
}

/// What a request gets that nobody answers, and whether the cache is asked before. Pure.
fn choose(
    reject: &Reject,
    (code, has_named_a_time): (bool, bool),
    (level, tips): (Level, bool),
) -> (bool, Rung) {
    match reject {
        // The client named a time by which it takes what there is.
        Reject::Deadline if has_named_a_time => (true, Rung::Empty),
        Reject::Overloaded { .. } | Reject::AllBusy { .. } => (true, Rung::Refuse),
        Reject::NoPods | Reject::AllFailed | Reject::Deadline => match (code, level) {
            (true, _) => (true, Rung::Empty),
            (false, Level::L4) if tips => (true, Rung::Tip),
            (false, _) => (true, Rung::Refuse),
        },
        _ => (false, Rung::Refuse),
    }
}

/// Answers a request that nobody could generate for, or says why not.
pub(super) async fn answer(
    client: &mut impl Client,
    record: &mut Record<'_>,
    admitted: &Admitted,
    reject: Reject,
) -> Result<(), Reject> {
    let shared = record.shared;
    let tips = &record.live.tips;
    let request = (admitted.kind.is_code(), admitted.request.time_limit.is_some());
    let (look, rung) = choose(&reject, request, (shared.level(), !tips.is_empty()));
    if look && let Some(hit) = lookup::fallback(shared, admitted).await {
        return respond::hit(client, record, admitted, (&hit, Source::CacheFallback)).await;
    }
    match rung {
        Rung::Empty => respond::nothing(client, record, admitted, Some(Source::Degraded)).await,
        Rung::Tip => {
            let tip = tips[fastrand::usize(..tips.len())].as_str();
            respond::text(client, record, admitted, (tip, Some(Source::Degraded))).await
        }
        Rung::Refuse => Err(reject),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn code_gets_nothing_a_chat_is_told_and_what_was_shed_is_told_to_come_back() {
        let busy = Reject::AllBusy { retry_after: Duration::from_secs(1) };
        let check = |reject: &Reject, code, level, expected| {
            assert_eq!(choose(reject, (code, false), (level, true)), expected, "{reject:?}");
        };
        for failed in [Reject::NoPods, Reject::AllFailed, Reject::Deadline] {
            check(&failed, true, Level::L0, (true, Rung::Empty));
            check(&failed, true, Level::L4, (true, Rung::Empty));
            check(&failed, false, Level::L3, (true, Rung::Refuse));
            check(&failed, false, Level::L4, (true, Rung::Tip));
        }
        for shed in [Reject::overloaded(), busy] {
            check(&shed, true, Level::L4, (true, Rung::Refuse));
            check(&shed, false, Level::L4, (true, Rung::Refuse));
        }
        check(&Reject::BadKey, true, Level::L4, (false, Rung::Refuse));
        check(&Reject::Region, true, Level::L0, (false, Rung::Refuse));
        let untold = choose(&Reject::NoPods, (false, false), (Level::L4, false));
        assert_eq!(untold, (true, Rung::Refuse), "without tips chats are refused");
        let named = choose(&Reject::Deadline, (false, true), (Level::L0, true));
        assert_eq!(named, (true, Rung::Empty), "llama.cpp's time limits");
    }
}
