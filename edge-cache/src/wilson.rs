//! Within what a share lies that was seen in some of many (Wilson 1927, "Probable Inference, the Law
//! of Succession, and Statistical Inference"). Pure.

/// Standard deviations between which 95 % of a normal distribution lie.
pub(crate) const BETWEEN_95: f64 = 1.96;
/// Under which 95 % of it lie.
pub(crate) const UNDER_95: f64 = 1.645;
/// Under which 99.5 % of it lie.
pub(crate) const UNDER_99_5: f64 = 2.576;

/// The least and the most that the share may be, `z` standard deviations away, where `hits` of `n`
/// were seen.
pub(crate) fn wilson(hits: u64, n: u64, z: f64) -> (f64, f64) {
    if n == 0 {
        return (0.0, 1.0);
    }
    let n = n as f64;
    let share = hits as f64 / n;
    let square = z * z;
    let middle = share + square / (2.0 * n);
    let spread = z * (share * (1.0 - share) / n + square / (4.0 * n * n)).sqrt();
    let scale = 1.0 + square / n;
    (((middle - spread) / scale).max(0.0), ((middle + spread) / scale).min(1.0))
}
