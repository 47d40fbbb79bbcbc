//! How to choose tokens: what all shapes call alike.

use super::Penalties;
use crate::{ApiError, Endpoint, Fields};

/// Continue sends the special tokens of a dozen models with every request.
const STOP_MAX: usize = 32;
const STOP_BYTES_MAX: usize = 256;

/// `temperature`.
pub(super) fn temperature(fields: &Fields<'_>) -> Result<Option<f32>, ApiError> {
    ranged(fields, "temperature", "a number from 0 to 2", |t| (0.0..=2.0).contains(&t))
}

/// `top_p`.
pub(super) fn top_p(fields: &Fields<'_>) -> Result<Option<f32>, ApiError> {
    ranged(fields, "top_p", "a number over 0, up to 1", |p| p > 0.0 && p <= 1.0)
}

/// `frequency_penalty`, `presence_penalty`, and the `repetition_penalty` of open servers.
pub(super) fn penalties(fields: &Fields<'_>) -> Result<Penalties, ApiError> {
    let signed =
        |name| ranged(fields, name, "a number from -2 to 2", |p| (-2.0..=2.0).contains(&p));
    let repetition =
        ranged(fields, "repetition_penalty", "a number over 0, up to 2", |p| p > 0.0 && p <= 2.0);
    Ok(Penalties {
        frequency: signed("frequency_penalty")?.unwrap_or(0.0),
        presence: signed("presence_penalty")?.unwrap_or(0.0),
        repetition: repetition?.unwrap_or(1.0),
    })
}

const TOP_LOGPROBS_MAX: usize = 20;

/// `logprobs`: a number for completions; yes or no for chat, with `top_logprobs`.
pub(super) fn logprobs(endpoint: Endpoint, fields: &Fields<'_>) -> Result<Option<usize>, ApiError> {
    let number = |name| {
        // Written only where it is told.
        let expected = format_args!("a whole number from 0 to {TOP_LOGPROBS_MAX}");
        match fields.get::<usize>(name, expected)? {
            Some(top) if top > TOP_LOGPROBS_MAX => {
                Err(ApiError::invalid(name, format!("{name} must be {expected}")))
            }
            top => Ok(top),
        }
    };
    if endpoint != Endpoint::Chat {
        // Some clients send chat's `false` here.
        return match fields.raw("logprobs") {
            Some("false") => Ok(None),
            _ => number("logprobs"),
        };
    }
    let asked = fields.get::<bool>("logprobs", "true or false")?.unwrap_or(false);
    match (asked, number("top_logprobs")?) {
        (true, top) => Ok(Some(top.unwrap_or(0))),
        (false, None | Some(0)) => Ok(None),
        (false, Some(_)) => {
            let message = "top_logprobs needs logprobs to be true";
            Err(ApiError::invalid("top_logprobs", message))
        }
    }
}

/// A seed, whatever its name: a negative one stands for the unsigned number of the same bits.
pub(super) fn seed(fields: &Fields<'_>, name: &str) -> Result<Option<u64>, ApiError> {
    Ok(fields.get::<i64>(name, "a whole number")?.map(i64::cast_unsigned))
}

fn ranged(
    fields: &Fields<'_>,
    name: &str,
    expected: &str,
    fits: impl Fn(f32) -> bool,
) -> Result<Option<f32>, ApiError> {
    match fields.get::<f32>(name, expected)? {
        Some(value) if !fits(value) => {
            Err(ApiError::invalid(name, format!("{name} must be {expected}")))
        }
        value => Ok(value),
    }
}

/// A count from 1 to `max`.
pub(super) fn positive(
    fields: &Fields<'_>,
    name: &str,
    max: usize,
) -> Result<Option<usize>, ApiError> {
    let wrong = || {
        let expected = match max {
            usize::MAX => "a whole number of at least 1".to_owned(),
            max => format!("a whole number from 1 to {max}"),
        };
        ApiError::invalid(name, format!("{name} must be {expected}"))
    };
    match fields.get::<usize>(name, "a whole number").map_err(|_none| wrong())? {
        Some(value) if value == 0 || value > max => Err(wrong()),
        value => Ok(value),
    }
}

/// `stop`.
pub(super) fn stop(fields: &Fields<'_>) -> Result<Vec<String>, ApiError> {
    let expected =
        format_args!("text, or a list of up to {STOP_MAX} texts of 1 to {STOP_BYTES_MAX} bytes");
    let stop = match fields.raw("stop") {
        None => return Ok(Vec::new()),
        Some(raw) if raw.starts_with('"') => fields.get("stop", expected)?.into_iter().collect(),
        Some(_) => fields.get::<Vec<String>>("stop", expected)?.unwrap_or_default(),
    };
    let fits = |text: &String| (1..=STOP_BYTES_MAX).contains(&text.len());
    match stop.len() <= STOP_MAX && stop.iter().all(fits) {
        true => Ok(stop),
        false => Err(ApiError::invalid("stop", format!("stop must be {expected}"))),
    }
}
