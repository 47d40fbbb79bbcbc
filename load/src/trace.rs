//! A recorded trace of arrivals: a CSV file with a column `TIMESTAMP`, and `ContextTokens` and
//! `GeneratedTokens` where it knows them, as Azure publishes its own (Splitwise, ISCA 2024).
//!
//! Absent on purpose: the requests' texts, which nobody publishes.

use std::{io::Read, path::Path};

/// More arrivals than any published trace of an hour has.
const ROWS_MAX: usize = 5_000_000;
const BYTES_MAX: u64 = 512 << 20;

/// Why a trace cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TraceError {
    /// The file cannot be read.
    #[error("the trace {path} cannot be read: {source}. Check `trace`")]
    Unreadable {
        /// As the scenario has it.
        path: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file is no trace.
    #[error("the trace is no CSV file of arrivals: {0}")]
    NoTrace(String),
}

/// When requests came, and how long they were.
#[derive(Debug)]
pub(crate) struct Trace {
    /// Seconds from the first, and tokens read and written.
    rows: Vec<(f64, Option<(u32, u32)>)>,
    /// From the first to where it begins again.
    length: f64,
}

impl Trace {
    /// Reads a file, packed (`.gz`) or not.
    pub(crate) fn open(path: &Path) -> Result<Self, TraceError> {
        let told = |source| TraceError::Unreadable { path: path.display().to_string(), source };
        let file = std::fs::File::open(path).map_err(told)?;
        let mut text = Vec::new();
        let packed = path.extension().is_some_and(|extension| extension == "gz");
        let read = if packed {
            flate2::read::GzDecoder::new(file).take(BYTES_MAX).read_to_end(&mut text)
        } else {
            file.take(BYTES_MAX).read_to_end(&mut text)
        };
        read.map_err(told)?;
        Self::read(&text)
    }

    pub(crate) fn read(text: &[u8]) -> Result<Self, TraceError> {
        let wrong = |what: String| TraceError::NoTrace(what);
        let text = std::str::from_utf8(text).map_err(|error| wrong(error.to_string()))?;
        let mut lines = text.lines();
        let names: Vec<&str> = lines.next().unwrap_or_default().split(',').map(str::trim).collect();
        let column = |name: &str| names.iter().position(|known| *known == name);
        let at = column("TIMESTAMP").ok_or_else(|| {
            wrong(format!("its first line has no TIMESTAMP: {}", names.join(", ")))
        })?;
        let sizes = column("ContextTokens").zip(column("GeneratedTokens"));
        let mut rows = Vec::new();
        for (number, line) in lines.enumerate().filter(|(_, line)| !line.trim().is_empty()) {
            let fields: Vec<&str> = line.split(',').map(str::trim).collect();
            let moment = fields.get(at).and_then(|text| seconds(text)).ok_or_else(|| {
                wrong(format!("line {} has no time in its column {}", number + 2, at + 1))
            })?;
            let size = |column: usize| fields.get(column)?.parse().ok();
            rows.push((moment, sizes.and_then(|(read, written)| size(read).zip(size(written)))));
            if rows.len() > ROWS_MAX {
                return Err(wrong(format!("it has over {ROWS_MAX} arrivals")));
            }
        }
        rows.sort_by(|one, other| one.0.total_cmp(&other.0));
        let (first, last) = match (rows.first(), rows.last()) {
            (Some((first, _)), Some((last, _))) if last > first => (*first, *last),
            _ => return Err(wrong("it needs two arrivals at different times".to_owned())),
        };
        for (moment, _) in &mut rows {
            *moment -= first;
        }
        // Its end is as far from its last arrival as arrivals are from each other.
        let gaps = f64::from(u32::try_from(rows.len() - 1).unwrap_or(u32::MAX));
        let length = (last - first) * (gaps + 1.0) / gaps;
        Ok(Self { rows, length })
    }

    /// Arrivals a second.
    pub(crate) fn rate(&self) -> f64 {
        f64::from(u32::try_from(self.rows.len()).unwrap_or(u32::MAX)) / self.length
    }

    /// One arrival: seconds from the first, and tokens. Behind the last it begins again.
    pub(crate) fn arrival(&self, number: usize) -> (f64, Option<(u32, u32)>) {
        let (turn, row) = (number / self.rows.len(), number % self.rows.len());
        let (at, tokens) = self.rows[row];
        (at + self.length * f64::from(u32::try_from(turn).unwrap_or(u32::MAX)), tokens)
    }
}

/// Seconds: a number, or a date and a time, of which only differences matter.
fn seconds(text: &str) -> Option<f64> {
    if let Ok(number) = text.parse::<f64>() {
        return number.is_finite().then_some(number);
    }
    let (date, time) = text.split_once([' ', 'T'])?;
    let time = time.trim_end_matches('Z').split('+').next()?;
    let mut date = date.splitn(3, '-').map(|part| part.parse::<u32>().ok());
    let (year, month, day) = (date.next()??, date.next()??, date.next()??);
    let mut time = time.splitn(3, ':').map(|part| part.parse::<f64>().ok());
    let (hours, minutes, seconds) = (time.next()??, time.next()??, time.next()??);
    let days = days(year, month, day)?;
    Some(days * 86_400.0 + hours * 3600.0 + minutes * 60.0 + seconds)
}

/// Days since a fixed one in the proleptic Gregorian calendar.
fn days(year: u32, month: u32, day: u32) -> Option<f64> {
    if !(1..=12).contains(&month) || !(1..=31).contains(&day) || year > 9999 {
        return None;
    }
    // March begins the year, so that the leap day is its last.
    let (year, month) =
        if month > 2 { (year, month - 3) } else { (year.checked_sub(1)?, month + 9) };
    Some(f64::from(year * 365 + year / 4 - year / 100 + year / 400 + (month * 153 + 2) / 5 + day))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_as_they_are_published() {
        let apart = |one: &str, other: &str| seconds(other).unwrap() - seconds(one).unwrap();
        let near = |gap: f64, expected: f64| (gap - expected).abs() < 1e-4;
        assert!(near(apart("2023-11-16 18:17:03.9799600", "2023-11-16 18:17:04.0319600"), 0.052));
        assert!(near(apart("2023-12-31T23:59:59Z", "2024-01-01T00:00:01+00:00"), 2.0));
        assert!(near(apart("2024-02-28 00:00:00", "2024-03-01 00:00:00"), 2.0 * 86_400.0));
        assert!(near(apart("1.5", "3"), 1.5));
        assert_eq!(seconds("noon"), None);
        assert_eq!(seconds("2024-13-01 00:00:00"), None);
    }

    #[test]
    fn what_is_no_trace_is_told() {
        for (text, what) in [
            ("", "no TIMESTAMP"),
            ("a,b\n1,2\n", "no TIMESTAMP"),
            ("TIMESTAMP\nx\n", "line 2 has no time"),
            ("TIMESTAMP\n1\n", "two arrivals"),
        ] {
            let told = Trace::read(text.as_bytes()).unwrap_err().to_string();
            assert!(told.contains(what), "{told}");
        }
        let told = Trace::open(Path::new("/nowhere.csv")).unwrap_err().to_string();
        assert!(told.contains("/nowhere.csv"), "{told}");
    }
}
