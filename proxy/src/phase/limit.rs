//! What a key and its tenant may use: reserved before a request is dispatched, settled when it ends.

use nearhop_admin::clock;
use nearhop_admission::{Caller, Reservation, Served};

use super::{Shared, admit::Admitted};
use crate::reject::Reject;

/// The most tokens that a request can use, without a tokenizer: no token is shorter than a byte.
pub(crate) fn tokens_at_most(admitted: &Admitted) -> u64 {
    let sampling = &admitted.request.sampling;
    let answer = sampling.max_tokens.unwrap_or(admitted.model.max_tokens);
    // Prompt and answer share the model's window, however much text was sent.
    let answer = answer.min(admitted.model.context_length).saturating_mul(sampling.n);
    let prompt = admitted.request.input.bytes().min(admitted.model.context_length);
    (prompt as u64).saturating_add(answer as u64)
}

/// The tokens of a prompt whose request is given up before its pod tells: code has about four
/// bytes a token.
pub(crate) fn prompt_guess(admitted: &Admitted) -> u64 {
    const BYTES_A_TOKEN: usize = 4;
    let prompt = admitted.request.input.bytes() / BYTES_A_TOKEN;
    prompt.clamp(1, admitted.model.context_length.max(1)) as u64
}

/// Takes a request with so many tokens from its caller's limits.
pub(crate) fn reserve(
    shared: &Shared,
    admitted: &Admitted,
    tokens: u64,
) -> Result<Reservation, Reject> {
    let caller = &admitted.head.caller;
    let spent = match caller.plan.tokens_per_month {
        Some(_) => shared.usage.spent(&caller.tenant, clock::since_epoch()),
        None => Default::default(),
    };
    let now = shared.age(clock::now());
    shared.limiter.reserve(caller, tokens, spent, now).map_err(|limited| {
        let whose = if limited.of_key { "key" } else { "tenant" };
        let what = limited.what.name();
        shared.metrics.limited.with_label_values(&[what, whose]).inc();
        Reject::Limited(limited)
    })
}

/// Gives back what was reserved and not used, and writes what was into the accounts: tokens of the
/// prompt and of the answer.
pub(crate) fn settle(
    shared: &Shared,
    caller: &Caller,
    reservation: Reservation,
    (served, (prompt, answer)): (Served, (u64, u64)),
) {
    reservation.settle(if served == Served::Cached { 0 } else { prompt + answer });
    let owner = (caller.tenant.as_str(), caller.key.as_str());
    shared.usage.add(owner, served, (prompt, answer), clock::since_epoch());
    let by = |kind| {
        let labels = [&caller.tenant, &caller.label, served.name(), kind];
        shared.metrics.usage.with_label_values(&labels)
    };
    by("input").inc_by(prompt);
    by("output").inc_by(answer);
}
