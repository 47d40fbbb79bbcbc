//! What was used: by month, tenant and key; requests and tokens, generated and from a cache.
//!
//! Requests add to counts in memory. A thread of its own adds them to a SQLite file every second
//! and reads back what all processes have added there: the old and the new process of a hand-over
//! count into one budget. A file that cannot be written delays nobody: counts stay in memory, and
//! are added when it can.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
        mpsc::{self, RecvTimeoutError},
    },
    thread::JoinHandle,
    time::Duration,
};

use chrono::{DateTime, Datelike as _, Months, NaiveDate, Utc};
use nearhop_admin::clock;
use rusqlite::{Connection, params};

const EVERY: Duration = Duration::from_secs(1);
/// Tenants and keys that wait to be written; a file that cannot be written must not fill memory.
const WAITING_MAX: usize = 100_000;

/// Where an answer came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Served {
    /// A model generated it: its tokens count toward the budget.
    Generated,
    /// A cache had it: counted, and free.
    Cached,
}

impl Served {
    /// Its name in the accounts and in metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Generated => "generated",
            Self::Cached => "cached",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Line {
    month: i32,
    tenant: String,
    key: String,
    served: Served,
}

#[derive(Debug, Clone, Copy, Default)]
struct Sum {
    requests: u64,
    prompt_tokens: u64,
    completion_tokens: u64,
}

#[derive(Debug, Default)]
struct Counts {
    /// Not yet in the file.
    waiting: HashMap<Line, Sum>,
    /// Tokens generated this month by tenant, as the file has them.
    written: HashMap<String, u64>,
    /// The month of both sums.
    written_month: i32,
    /// The same, of `waiting`.
    fresh: HashMap<String, u64>,
}

impl Counts {
    /// A new month begins at nothing.
    fn turn_to(&mut self, month: i32) {
        if self.written_month != month {
            self.written_month = month;
            self.written.clear();
            self.fresh.clear();
        }
    }
}

/// The accounts.
#[derive(Debug)]
pub struct Usage {
    counts: Arc<Mutex<Counts>>,
    healthy: Arc<AtomicBool>,
    /// Whether there is a file.
    kept: bool,
    writer: Mutex<Option<(mpsc::Sender<()>, JoinHandle<()>)>>,
}

/// Why the accounts cannot be opened.
#[derive(Debug, thiserror::Error)]
#[error("the usage file {path} cannot be used: {source}. Check access.usage_file and its folder")]
pub struct UsageError {
    path: PathBuf,
    source: rusqlite::Error,
}

fn locked<R>(counts: &Mutex<Counts>, act: impl FnOnce(&mut Counts) -> R) -> R {
    // Nothing in here can panic half-way.
    act(&mut counts.lock().unwrap_or_else(PoisonError::into_inner))
}

/// The calendar month of a Unix time (UTC), as a number that grows by one a month.
fn month(now: Duration) -> i32 {
    let time = DateTime::from_timestamp(i64::try_from(now.as_secs()).unwrap_or(0), 0);
    let time = time.unwrap_or_default();
    time.year() * 12 + i32::try_from(time.month0()).unwrap_or(0)
}

/// From a Unix time to the first second of the next month (UTC).
fn until_next_month(now: Duration) -> Duration {
    let seconds = i64::try_from(now.as_secs()).unwrap_or(0);
    let time: DateTime<Utc> = DateTime::from_timestamp(seconds, 0).unwrap_or_default();
    let first = NaiveDate::from_ymd_opt(time.year(), time.month(), 1);
    let next = first.and_then(|first| first.checked_add_months(Months::new(1)));
    let next = next.and_then(|next| next.and_hms_opt(0, 0, 0)).map(|next| next.and_utc());
    let left = next.map_or(0, |next| next.timestamp() - seconds);
    Duration::from_secs(u64::try_from(left).unwrap_or(0))
}

impl Usage {
    /// Opens the accounts in `file`; in memory without one.
    ///
    /// # Errors
    /// [`UsageError`], where the file cannot be opened or is something else.
    pub fn open(file: Option<&Path>) -> Result<Self, UsageError> {
        let Some(path) = file else { return Ok(Self::memory()) };
        let counts: Arc<Mutex<Counts>> = Arc::default();
        let healthy = Arc::new(AtomicBool::new(true));
        let error = |source| UsageError { path: path.to_owned(), source };
        let opened = open(path).and_then(|connection| {
            read_back(&connection, &counts, clock::since_epoch())?;
            Ok(connection)
        });
        let mut connection = match opened {
            Ok(connection) => Some(connection),
            // Not a reason to serve nobody. What was used before is known when it can be opened.
            Err(source) if no_space(&source) => {
                tracing::error!(path = %path.display(), "no space for the usage file; usage is kept in memory");
                healthy.store(false, Ordering::Release);
                None
            }
            Err(source) => return Err(error(source)),
        };
        let (stop, stopped) = mpsc::channel();
        let (shared, health) = (Arc::clone(&counts), Arc::clone(&healthy));
        let file = path.to_owned();
        let write = move || {
            loop {
                let last = !matches!(stopped.recv_timeout(EVERY), Err(RecvTimeoutError::Timeout));
                let written = match &mut connection {
                    Some(connection) => write(connection, &shared, clock::since_epoch()),
                    none => open(&file).and_then(|opened| {
                        write(none.insert(opened), &shared, clock::since_epoch())
                    }),
                };
                if let Err(error) = &written
                    && health.load(Ordering::Acquire)
                {
                    tracing::error!(%error, "usage cannot be written; it is kept in memory");
                }
                health.store(written.is_ok(), Ordering::Release);
                if last {
                    return;
                }
            }
        };
        let thread = std::thread::Builder::new().name("nearhop-usage".to_owned());
        let thread =
            thread.spawn(write).map_err(|_no_thread| error(rusqlite::Error::InvalidQuery))?;
        Ok(Self { counts, healthy, kept: true, writer: Mutex::new(Some((stop, thread))) })
    }

    fn memory() -> Self {
        let healthy = Arc::new(AtomicBool::new(true));
        Self { counts: Arc::default(), healthy, kept: false, writer: Mutex::default() }
    }

    /// Adds an answer that `key` of `tenant` was given at Unix time `now`.
    pub fn add(
        &self,
        (tenant, key): (&str, &str),
        served: Served,
        (prompt_tokens, completion_tokens): (u64, u64),
        now: Duration,
    ) {
        if !self.kept && served == Served::Cached {
            return;
        }
        let month = month(now);
        locked(&self.counts, |counts| {
            counts.turn_to(month);
            if served == Served::Generated {
                let tokens = prompt_tokens + completion_tokens;
                match counts.fresh.get_mut(tenant) {
                    Some(fresh) => *fresh += tokens,
                    None => drop(counts.fresh.insert(tenant.to_owned(), tokens)),
                }
            }
            if !self.kept {
                return;
            }
            let line = Line { month, tenant: tenant.to_owned(), key: key.to_owned(), served };
            if counts.waiting.len() < WAITING_MAX || counts.waiting.contains_key(&line) {
                let sum = counts.waiting.entry(line).or_default();
                sum.requests += 1;
                sum.prompt_tokens += prompt_tokens;
                sum.completion_tokens += completion_tokens;
            }
        });
    }

    /// What `tenant` has used of the month of `now`, and the time to the next.
    #[must_use]
    pub fn spent(&self, tenant: &str, now: Duration) -> (u64, Duration) {
        let spent = locked(&self.counts, |counts| {
            counts.turn_to(month(now));
            let written = counts.written.get(tenant).copied().unwrap_or(0);
            written + counts.fresh.get(tenant).copied().unwrap_or(0)
        });
        (spent, until_next_month(now))
    }

    /// Writes what waits, for the last time, within SQLite's own time-out.
    pub fn close(&self) {
        let writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some((stop, thread)) = writer {
            drop(stop);
            let _ = thread.join();
        }
    }

    /// What every tenant has used of the month of `now`, by name.
    #[must_use]
    pub fn all_spent(&self, now: Duration) -> Vec<(String, u64)> {
        let mut all = locked(&self.counts, |counts| {
            counts.turn_to(month(now));
            let mut all = counts.written.clone();
            for (tenant, tokens) in &counts.fresh {
                *all.entry(tenant.clone()).or_default() += tokens;
            }
            all.into_iter().collect::<Vec<_>>()
        });
        all.sort();
        all
    }

    /// Whether what is used is also written down.
    #[must_use]
    pub fn is_healthy(&self) -> bool {
        self.healthy.load(Ordering::Acquire)
    }
}

impl Drop for Usage {
    fn drop(&mut self) {
        self.close();
    }
}

/// SQLite says so itself, or that it could not enlarge one of the files beside its own.
fn no_space(error: &rusqlite::Error) -> bool {
    use rusqlite::ffi;
    error.sqlite_error().is_some_and(|error| {
        let [write, size] = [ffi::SQLITE_IOERR_WRITE, ffi::SQLITE_IOERR_SHMSIZE];
        error.code == ffi::ErrorCode::DiskFull || [write, size].contains(&error.extended_code)
    })
}

fn open(path: &Path) -> rusqlite::Result<Connection> {
    private(path);
    let connection = Connection::open(path)?;
    connection.busy_timeout(Duration::from_secs(2))?;
    // Readers and one writer at once, over processes; a crash loses at most the last second.
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "NORMAL")?;
    connection.execute_batch(
        "CREATE TABLE IF NOT EXISTS usage (
             month INTEGER NOT NULL,
             tenant TEXT NOT NULL,
             key TEXT NOT NULL,
             served TEXT NOT NULL,
             requests INTEGER NOT NULL,
             prompt_tokens INTEGER NOT NULL,
             completion_tokens INTEGER NOT NULL,
             PRIMARY KEY (month, tenant, key, served)
         ) WITHOUT ROWID",
    )?;
    Ok(connection)
}

/// Who uses how much is nobody else's affair. Where it cannot be made so, opening tells.
fn private(path: &Path) {
    use std::os::unix::fs::OpenOptionsExt as _;
    let _ = std::fs::OpenOptions::new().create_new(true).write(true).mode(0o600).open(path);
}

/// Adds what waits to the file, all of it or none, and reads back the month's sums.
fn write(
    connection: &mut Connection,
    counts: &Mutex<Counts>,
    now: Duration,
) -> rusqlite::Result<()> {
    let waiting = locked(counts, |counts| std::mem::take(&mut counts.waiting));
    let added = add_all(connection, &waiting);
    locked(counts, |counts| match &added {
        Ok(()) => {
            for (line, sum) in waiting.iter().filter(|(line, _)| line.served == Served::Generated) {
                let tokens = sum.prompt_tokens + sum.completion_tokens;
                if let Some(fresh) = counts.fresh.get_mut(&line.tenant) {
                    *fresh = fresh.saturating_sub(tokens);
                }
                *counts.written.entry(line.tenant.clone()).or_default() += tokens;
            }
            counts.fresh.retain(|_, tokens| *tokens > 0);
        }
        Err(_) => {
            // Back with what came meanwhile.
            for (line, sum) in waiting {
                let known = counts.waiting.entry(line).or_default();
                known.requests += sum.requests;
                known.prompt_tokens += sum.prompt_tokens;
                known.completion_tokens += sum.completion_tokens;
            }
        }
    });
    added?;
    read_back(connection, counts, now)
}

fn add_all(connection: &mut Connection, waiting: &HashMap<Line, Sum>) -> rusqlite::Result<()> {
    if waiting.is_empty() {
        return Ok(());
    }
    let transaction = connection.transaction()?;
    {
        let mut add = transaction.prepare(
            "INSERT INTO usage VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)
             ON CONFLICT (month, tenant, key, served) DO UPDATE SET
                 requests = requests + excluded.requests,
                 prompt_tokens = prompt_tokens + excluded.prompt_tokens,
                 completion_tokens = completion_tokens + excluded.completion_tokens",
        )?;
        for (line, sum) in waiting {
            let number = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
            add.execute(params![
                line.month,
                line.tenant,
                line.key,
                line.served.name(),
                number(sum.requests),
                number(sum.prompt_tokens),
                number(sum.completion_tokens),
            ])?;
        }
    }
    transaction.commit()
}

fn read_back(
    connection: &Connection,
    counts: &Mutex<Counts>,
    now: Duration,
) -> rusqlite::Result<()> {
    let this = month(now);
    let mut sums = connection.prepare(
        "SELECT tenant, SUM(prompt_tokens + completion_tokens) FROM usage
         WHERE month = ?1 AND served = 'generated' GROUP BY tenant",
    )?;
    let rows = sums.query_map([this], |row| {
        Ok((row.get::<_, String>(0)?, u64::try_from(row.get::<_, i64>(1)?).unwrap_or(0)))
    })?;
    let written: HashMap<String, u64> = rows.collect::<rusqlite::Result<_>>()?;
    locked(counts, |counts| {
        counts.written = written;
        counts.written_month = this;
    });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2026-11-23T00:00:00Z.
    const NOW: Duration = Duration::from_secs(1_795_392_000);

    fn add(usage: &Usage, tokens: u64, now: Duration) {
        usage.add(("acme", "alice"), Served::Generated, (tokens, 0), now);
    }

    #[test]
    fn months_are_those_of_the_calendar() {
        let day = Duration::from_secs(86_400);
        assert_eq!(month(NOW), 2026 * 12 + 10);
        assert_eq!(until_next_month(NOW), 8 * day);
        assert_eq!(month(NOW + 8 * day), 2026 * 12 + 11);
        assert_eq!(month(NOW + 8 * day - Duration::from_secs(1)), 2026 * 12 + 10);
        assert_eq!(until_next_month(NOW + 8 * day), 31 * day);
    }

    #[test]
    fn a_new_month_begins_at_nothing() {
        let usage = Usage::open(None).unwrap();
        assert_eq!(usage.spent("acme", NOW).0, 0);
        add(&usage, 7, NOW);
        usage.add(("acme", "alice"), Served::Cached, (100, 100), NOW);
        usage.add(("other", "bob"), Served::Generated, (5, 5), NOW);
        assert_eq!(usage.spent("acme", NOW).0, 7, "caches are free, and others are others");
        assert_eq!(usage.spent("acme", NOW + Duration::from_secs(9 * 86_400)).0, 0);
    }

    #[test]
    fn usage_survives_a_restart_and_is_shared_by_two_processes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("usage.db");
        let now = clock::since_epoch();
        let first = Usage::open(Some(&path)).unwrap();
        add(&first, 10, now);
        let second = Usage::open(Some(&path)).unwrap();
        add(&second, 5, now);
        assert_eq!(second.spent("acme", now).0, 5);
        drop(first);
        drop(second);
        let third = Usage::open(Some(&path)).unwrap();
        assert_eq!(third.spent("acme", now).0, 15);
        let mode = std::os::unix::fs::PermissionsExt::mode(&path.metadata().unwrap().permissions());
        assert_eq!(mode & 0o077, 0, "others cannot read it");
    }

    #[test]
    fn what_cannot_be_written_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let mut connection = open(&folder.path().join("usage.db")).unwrap();
        let mut usage = Usage::memory();
        usage.kept = true;
        add(&usage, 10, NOW);
        connection.execute_batch("ALTER TABLE usage RENAME TO away").unwrap();
        assert!(write(&mut connection, &usage.counts, NOW).is_err());
        assert_eq!(usage.spent("acme", NOW).0, 10);
        connection.execute_batch("ALTER TABLE away RENAME TO usage").unwrap();
        write(&mut connection, &usage.counts, NOW).unwrap();
        assert_eq!(usage.spent("acme", NOW).0, 10);
        write(&mut connection, &usage.counts, NOW).unwrap();
        assert_eq!(usage.spent("acme", NOW).0, 10, "and added once");
    }

    #[test]
    fn a_file_that_is_something_else_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("usage.db");
        std::fs::write(&path, "x".repeat(5000)).unwrap();
        let error = Usage::open(Some(&path)).unwrap_err().to_string();
        assert!(error.contains("usage.db") && error.contains("access.usage_file"), "{error}");
    }
}
