//! Sizes and durations as people write them: `256MiB`, `800ms`.

use std::{fmt, time::Duration};

/// Whether something may be the name, an alias or the revision of a model: up to 128 bytes of
/// printable characters without spaces, and without `@`, which stands between a name and a
/// revision.
#[must_use]
pub fn is_model_name(name: &str) -> bool {
    let fine = |c: char| c != '@' && !c.is_control() && !c.is_whitespace();
    (1..=128).contains(&name.len()) && name.chars().all(fine)
}

/// What is wrong with any other.
pub const NO_MODEL_NAME: &str = "no name of 1 to 128 bytes without spaces and `@`";

/// A number of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteSize(pub usize);

impl ByteSize {
    /// `n` times 1,024 bytes.
    #[must_use]
    pub const fn kib(n: usize) -> Self {
        Self(n * 1024)
    }

    /// `n` times 1,048,576 bytes.
    #[must_use]
    pub const fn mib(n: usize) -> Self {
        Self(n * 1024 * 1024)
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = [(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
        match units.iter().find(|(unit, _)| self.0 >= *unit && self.0.is_multiple_of(*unit)) {
            Some((unit, name)) => write!(f, "{}{name}", self.0 / unit),
            None => write!(f, "{}B", self.0),
        }
    }
}

/// `4MiB`, `512KiB`, `100B`. Decimal units (`MB`) are refused: they are read both ways.
pub(crate) fn byte_size(text: &str) -> Option<ByteSize> {
    let (number, unit) = split(text)?;
    let unit = match unit {
        "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return None,
    };
    number.checked_mul(unit).and_then(|bytes| usize::try_from(bytes).ok()).map(ByteSize)
}

/// `250ms`, `5s`, `10m`, `1h`.
pub(crate) fn duration(text: &str) -> Option<Duration> {
    let (number, unit) = split(text)?;
    let millis = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return None,
    };
    number.checked_mul(millis).map(Duration::from_millis)
}

/// Bytes as two hexadecimal digits each, exactly `N` of them.
pub(crate) fn hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let mut out = [0; N];
    if text.len() != 2 * N || !text.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return None;
    }
    for (at, byte) in out.iter_mut().enumerate() {
        *byte = u8::from_str_radix(text.get(2 * at..2 * at + 2)?, 16).ok()?;
    }
    Some(out)
}

/// A name that may stand in a header, a label and a path.
pub(crate) fn http_token(text: &str) -> Option<&str> {
    let fine = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    (!text.is_empty() && text.chars().all(fine)).then_some(text)
}

fn split(text: &str) -> Option<(u64, &str)> {
    let digits = text.find(|c: char| !c.is_ascii_digit())?;
    Some((text[..digits].parse().ok()?, text[digits..].trim_start()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn units_are_read_as_written() {
        assert_eq!(byte_size("256MiB"), Some(ByteSize::mib(256)));
        assert_eq!(byte_size("1 GiB"), Some(ByteSize::mib(1024)));
        assert_eq!(byte_size("256MB"), None);
        assert_eq!(byte_size("99999999999999999999GiB"), None);
        assert_eq!(duration("800ms"), Some(Duration::from_millis(800)));
        assert_eq!(duration("2m"), Some(Duration::from_secs(120)));
        assert_eq!(duration("5"), None);
        assert_eq!(duration("s"), None);
    }

    proptest! {
        #[test]
        fn a_printed_size_reads_back(bytes in 0usize..1 << 40) {
            prop_assert_eq!(byte_size(&ByteSize(bytes).to_string()), Some(ByteSize(bytes)));
        }
    }
}
