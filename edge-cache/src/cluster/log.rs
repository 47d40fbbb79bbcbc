//! The log of purges: one stream that every edge appends to and reads.
//!
//! `WAIT` holds up the connection it is sent on, so appending has one of its own.

use std::{fmt, str::FromStr, sync::Arc, time::Duration};

use bytes::Bytes;
use redis::{Pipeline, Value, cmd};
use tokio::time::{Instant, timeout_at};

use super::{
    Cluster, Inner, connect::Link, entries::bytes, node::Asked, route::unexpected,
    settings::Trouble, topology::Address,
};
use crate::breaker::Outcome;

/// Older records go, a few more than these stay.
const RECORDS: usize = 65_536;
/// How long an append waits for one replica.
const REPLICA_MS: u64 = 100;
/// For an append in all, its turn and a new connection included.
const APPEND_LIMIT: Duration = Duration::from_secs(1);
/// So many records are read at a time.
const READ: usize = 1_024;

/// A record's place in the log, in the order of appending.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct LogId {
    milliseconds: u64,
    sequence: u64,
}

impl LogId {
    /// Before every record.
    pub const START: Self = Self { milliseconds: 0, sequence: 0 };

    /// One number in the same order. What a process counts on by itself, where Redis is away, stays
    /// far below the next record's: there are four million numbers to a millisecond.
    #[must_use]
    pub fn generation(self) -> u64 {
        const WITHIN: u32 = 22;
        let within = (self.sequence << 2).min((1 << WITHIN) - 1);
        (self.milliseconds << WITHIN) | within
    }

    fn next(self) -> Self {
        match self.sequence.checked_add(1) {
            Some(sequence) => Self { sequence, ..self },
            None => Self { milliseconds: self.milliseconds.saturating_add(1), sequence: 0 },
        }
    }
}

impl fmt::Display for LogId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.milliseconds, self.sequence)
    }
}

impl FromStr for LogId {
    type Err = Trouble;

    fn from_str(text: &str) -> Result<Self, Trouble> {
        let numbers = text.split_once('-').and_then(|(milliseconds, sequence)| {
            Some((milliseconds.parse().ok()?, sequence.parse().ok()?))
        });
        let (milliseconds, sequence) = numbers.ok_or_else(unexpected)?;
        Ok(Self { milliseconds, sequence })
    }
}

/// What became of an append.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Appended {
    /// Where the record is.
    pub id: LogId,
    /// How many replicas have it for certain. With none, a master that is lost now takes it along.
    pub replicas: u64,
}

/// What is in the log after a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Records {
    /// The oldest of them, at most 1,024: when there are so many, read on.
    pub records: Vec<(LogId, Bytes)>,
    /// The record that was named is gone, so that others after it may be: the reader was away for too
    /// long, or the log was lost. Whoever purges by this log has to purge everything now.
    pub gap: bool,
}

/// The connection that appends, with the node it leads to.
pub(crate) type Appender = Option<(Address, Link)>;

impl Cluster {
    /// Appends a record, waits for up to 100 ms until a replica has it, and wakes the readers.
    ///
    /// # Errors
    ///
    /// No answer within a second: append it again. After [`Trouble::Late`] and [`Trouble::Failed`] it may
    /// then be in the log twice.
    pub async fn append(&self, record: Bytes) -> Result<Appended, Trouble> {
        let deadline = Instant::from_std(nearhop_admin::clock::now() + APPEND_LIMIT);
        let key = self.inner.log();
        let mut pipeline = Pipeline::new();
        pipeline.cmd("XADD").arg(&key).arg("MAXLEN").arg("~").arg(RECORDS);
        pipeline.arg("*").arg("r").arg(&record[..]);
        // Before the wait: readers may begin, the record is in the log.
        pipeline.cmd("PUBLISH").arg(&key).arg("");
        pipeline.cmd("WAIT").arg(1).arg(REPLICA_MS);

        let mut turn = timeout_at(deadline, self.inner.appender.lock())
            .await
            .map_err(|_elapsed| Trouble::Busy)?;
        let node = self.inner.owner(key.as_bytes())?;
        let asked = node.ask()?;
        let kept = turn.take().filter(|(to, link)| *to == node.address && !link.is_closed());
        let sent = timeout_at(deadline, async {
            let link = match kept {
                Some((_, link)) => link,
                None => {
                    let made = self.inner.login.link(&node.address, node.name.as_deref()).await;
                    made.map_err(Trouble::Away)?
                }
            };
            let answers = link.send(&pipeline).await.map_err(Trouble::Failed)?;
            Ok((link, answers))
        });
        let (link, answers) = match sent.await.unwrap_or(Err(Trouble::Late)) {
            Ok(sent) => sent,
            Err(trouble) => {
                asked.tell(Outcome::Failed);
                self.inner.nudge.notify_one();
                return Err(trouble);
            }
        };
        let appended = self.inner.appended(answers, asked)?;
        // Kept only after a good answer: a slot that moved, or a cut, is met with a new connection.
        *turn = Some((node.address.clone(), link));
        Ok(appended)
    }

    /// The records after this one. Reads the slot's master, as appending does.
    ///
    /// # Errors
    ///
    /// No answer.
    pub async fn read_after(&self, last: LogId) -> Result<Records, Trouble> {
        let key = self.inner.log();
        let mut command = cmd("XRANGE");
        // From the last one on: that it is still there shows that nothing after it is gone.
        let from = if last == LogId::START { last.next() } else { last };
        command.arg(&key).arg(from.to_string()).arg("+").arg("COUNT").arg(READ + 1);
        let answer = self.inner.one(key.as_bytes(), command, self.deadline()).await?;
        let Value::Array(entries) = answer else { return Err(unexpected()) };
        let mut records = entries.into_iter().map(record).collect::<Result<Vec<_>, _>>()?;
        let found = records.first().is_some_and(|(id, _)| *id == last);
        if found {
            records.remove(0);
        }
        records.truncate(READ);
        Ok(Records { records, gap: !found && last != LogId::START })
    }
}

impl Inner {
    pub(crate) fn log(&self) -> String {
        format!("{}:purges", self.prefix)
    }

    fn appended(&self, answers: Vec<Value>, asked: Asked) -> Result<Appended, Trouble> {
        let mut answers = self.judge(answers, asked)?.into_iter();
        let id = String::from_utf8_lossy(&bytes(answers.next().unwrap_or_default())?).parse()?;
        let replicas = match answers.nth(1) {
            Some(Value::Int(replicas)) => u64::try_from(replicas).unwrap_or(0),
            _ => 0,
        };
        Ok(Appended { id, replicas })
    }
}

/// `[id, [field, value]]`
fn record(entry: Value) -> Result<(LogId, Bytes), Trouble> {
    let Value::Array(parts) = entry else { return Err(unexpected()) };
    let mut parts = parts.into_iter();
    let id = String::from_utf8_lossy(&bytes(parts.next().unwrap_or_default())?).parse()?;
    let Some(Value::Array(fields)) = parts.next() else { return Err(unexpected()) };
    Ok((id, bytes(fields.into_iter().nth(1).unwrap_or_default())?))
}

/// Learns of appended records; some are lost, so its users also look by themselves.
#[derive(Debug, Clone)]
pub struct Wakeups(pub(crate) tokio::sync::watch::Receiver<()>);

impl Wakeups {
    /// Returns when records may have been appended since the last return. Several appends may be one
    /// return, and a return may be about nothing. Once the cluster is dropped it does not return.
    pub async fn next(&mut self) {
        if self.0.changed().await.is_err() {
            std::future::pending().await
        }
    }
}

/// Between two looks at whether the listening connection still lives.
const ALIVE: Duration = Duration::from_secs(5);

impl Cluster {
    /// The wake-ups from now on.
    #[must_use]
    pub fn wakeups(&self) -> Wakeups {
        Wakeups(self.inner.wake.subscribe())
    }
}

/// The background task that listens, on any node: the cluster tells all of them.
pub(crate) async fn listen(inner: Arc<Inner>) {
    loop {
        let linked: Vec<_> =
            inner.map.load().nodes.iter().filter(|node| node.link().is_some()).cloned().collect();
        if let Some(node) = fastrand::choice(&linked)
            && let Ok(mut listener) =
                inner.login.listener(&node.address, node.name.as_deref()).await
        {
            hear(&inner, &mut listener).await;
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

/// Until the connection ends, or does not answer.
async fn hear(inner: &Inner, listener: &mut redis::aio::PubSub) {
    use futures_util::StreamExt;

    let channel = inner.log();
    let mut first = true;
    loop {
        // Subscribing again is the question whether somebody is there.
        let subscribed = tokio::time::timeout(ALIVE, listener.subscribe(&channel)).await;
        if !matches!(subscribed, Ok(Ok(()))) {
            return;
        }
        if std::mem::take(&mut first) {
            // What was published while nobody listened is unknown.
            inner.wake.send_replace(());
        }
        let mut messages = listener.on_message();
        let heard = tokio::time::timeout(ALIVE, async {
            while messages.next().await.is_some() {
                inner.wake.send_replace(());
            }
        });
        if heard.await.is_ok() {
            return;
        }
    }
}
