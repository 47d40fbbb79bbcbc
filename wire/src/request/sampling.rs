//! How to choose tokens: what all shapes call alike.

use crate::{ApiError, Fields};

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
    let expected = match max {
        usize::MAX => "a whole number of at least 1".to_owned(),
        max => format!("a whole number from 1 to {max}"),
    };
    match fields.get::<usize>(name, &expected)? {
        Some(value) if value == 0 || value > max => {
            Err(ApiError::invalid(name, format!("{name} must be {expected}")))
        }
        value => Ok(value),
    }
}

/// `stop`.
pub(super) fn stop(fields: &Fields<'_>) -> Result<Vec<String>, ApiError> {
    let expected =
        format!("text, or a list of up to {STOP_MAX} texts of 1 to {STOP_BYTES_MAX} bytes");
    let stop = match fields.raw("stop") {
        None => return Ok(Vec::new()),
        Some(raw) if raw.starts_with('"') => fields.get("stop", &expected)?.into_iter().collect(),
        Some(_) => fields.get::<Vec<String>>("stop", &expected)?.unwrap_or_default(),
    };
    let fits = |text: &String| (1..=STOP_BYTES_MAX).contains(&text.len());
    match stop.len() <= STOP_MAX && stop.iter().all(fits) {
        true => Ok(stop),
        false => Err(ApiError::invalid("stop", format!("stop must be {expected}"))),
    }
}
