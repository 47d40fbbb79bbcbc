//! Entries, small values and counters: one key, one round trip.

use std::{fmt::Write as _, time::Duration};

use bytes::Bytes;
use redis::{Cmd, Value, cmd};

use super::{Cluster, route::unexpected, settings::Trouble};

/// So many values has a place at most; a field is below it.
pub const FIELDS: u8 = 8;

/// A tenant, as keys bear it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Tenant(pub [u8; 8]);

/// Where a tenant's entries are: all values of one place are in one slot, so one call reads them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Place {
    /// Whose.
    pub tenant: Tenant,
    /// Which.
    pub key: [u8; 32],
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn milliseconds(ttl: Duration) -> u64 {
    // Zero would delete, and Redis refuses what overflows its clock.
    u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX).clamp(1, 1 << 52)
}

fn expire(key: &str, ttl: Duration) -> Cmd {
    let mut command = cmd("PEXPIRE");
    command.arg(key).arg(milliseconds(ttl));
    command
}

/// A reply's bytes, without a copy.
pub(crate) fn bytes(value: Value) -> Result<Bytes, Trouble> {
    match value {
        Value::BulkString(bytes) => Ok(bytes.into()),
        _ => Err(unexpected()),
    }
}

impl Cluster {
    fn place(&self, place: &Place) -> String {
        format!("{}:{}:{{{}}}", self.inner.prefix, hex(&place.tenant.0), hex(&place.key))
    }

    fn value(&self, name: &str) -> String {
        format!("{}:value:{name}", self.inner.prefix)
    }

    /// All values of a place, in no order; none where there is no such place.
    ///
    /// # Errors
    ///
    /// No answer: go on without.
    pub async fn bucket(&self, place: &Place) -> Result<Vec<Bytes>, Trouble> {
        let key = self.place(place);
        let mut command = cmd("HVALS");
        command.arg(&key);
        match self.inner.one(key.as_bytes(), command, self.deadline()).await? {
            Value::Array(values) => values.into_iter().take(FIELDS.into()).map(bytes).collect(),
            _ => Err(unexpected()),
        }
    }

    /// Writes one value of a place, and lets the whole place live for `ttl` from now. Both happen, or
    /// neither; the exception is a slot that is being moved at this moment.
    ///
    /// # Errors
    ///
    /// No answer, and after [`Trouble::Late`] the value may still be written; or a field of eight and more.
    pub async fn put(
        &self,
        place: &Place,
        field: u8,
        value: Bytes,
        ttl: Duration,
    ) -> Result<(), Trouble> {
        if field >= FIELDS {
            return Err(Trouble::Failed(format!("a place has {FIELDS} fields, not one {field}")));
        }
        let key = self.place(place);
        let mut set = cmd("HSET");
        set.arg(&key).arg(field).arg(&value[..]);
        let commands = [set, expire(&key, ttl)];
        self.inner.call(key.as_bytes(), &commands, self.deadline()).await.map(drop)
    }

    /// A small value.
    ///
    /// # Errors
    ///
    /// No answer.
    pub async fn get(&self, name: &str) -> Result<Option<Bytes>, Trouble> {
        let key = self.value(name);
        let mut command = cmd("GET");
        command.arg(&key);
        match self.inner.one(key.as_bytes(), command, self.deadline()).await? {
            Value::Nil => Ok(None),
            value => bytes(value).map(Some),
        }
    }

    /// Sets a small value if it has none, and gives the value it has then: ours, or who came first.
    ///
    /// # Errors
    ///
    /// No answer, and after [`Trouble::Late`] nobody knows who won: ask again.
    pub async fn set_if_absent(&self, name: &str, value: Bytes) -> Result<Bytes, Trouble> {
        let key = self.value(name);
        let mut command = cmd("SET");
        command.arg(&key).arg(&value[..]).arg("NX").arg("GET");
        match self.inner.one(key.as_bytes(), command, self.deadline()).await? {
            Value::Nil => Ok(value),
            earlier => bytes(earlier),
        }
    }

    /// Deletes a small value. True if there was one.
    ///
    /// # Errors
    ///
    /// No answer, and after [`Trouble::Late`] it may still be deleted.
    pub async fn delete(&self, name: &str) -> Result<bool, Trouble> {
        let key = self.value(name);
        let mut command = cmd("DEL");
        command.arg(&key);
        match self.inner.one(key.as_bytes(), command, self.deadline()).await? {
            Value::Int(deleted) => Ok(deleted > 0),
            _ => Err(unexpected()),
        }
    }

    /// Adds to a counter that all edges share, and gives the new total. It ends `ttl` after it was last
    /// added to: name the window in the key.
    ///
    /// # Errors
    ///
    /// No answer, and after [`Trouble::Late`] it may still be added.
    pub async fn count(&self, key: &[u8], add: u64, ttl: Duration) -> Result<u64, Trouble> {
        let key = format!("{}:count:{}", self.inner.prefix, hex(key));
        let mut increment = cmd("INCRBY");
        increment.arg(&key).arg(i64::try_from(add).unwrap_or(i64::MAX));
        let commands = [increment, expire(&key, ttl)];
        let answers = self.inner.call(key.as_bytes(), &commands, self.deadline()).await?;
        match answers.first() {
            Some(Value::Int(total)) => u64::try_from(*total).map_err(|_negative| unexpected()),
            _ => Err(unexpected()),
        }
    }
}
