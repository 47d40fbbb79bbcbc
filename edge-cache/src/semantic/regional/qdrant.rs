//! Qdrant, by its REST API: one collection a region, a payload field for the partition.
//!
//! ```text
//!   nearest, put, purge: what is asked, and what of the answer is believed  (shapes)
//!        │
//!      pool: an idle connection, or a new one; an exchange outlives whoever gave up on it
//!        │
//!      connect: TCP, TLS
//! ```
//!
//! It needs Qdrant 1.17 or later and a key that may write the collection. [`Qdrant::prepare`] makes the
//! collection where there is none: vectors and payloads on disk, small codes of the vectors in memory, and
//! a graph only inside partitions that are too large to scan. A code finds candidates; their cosine is
//! computed from the vectors themselves, or the floor would mean nothing.
//!
//! REST and not gRPC: that would bring a second HTTP stack and a code generator, for a body of five
//! kilobytes.

mod connect;
mod pool;
mod settings;
mod shapes;

use std::sync::Arc;

use bytes::Bytes;
use hyper::{Method, StatusCode};

pub use self::settings::{ApiKey, Quantization, Settings, SettingsError};
use self::{
    pool::{Again, Call, Pool, Reply},
    shapes::{Cond, Judged},
};
use super::{
    Doing, NEIGHBOURS_MAX, Neighbour, Point, Purged, Regional, SEALED_MAX, Trouble, Wanted,
};

/// What answers other than neighbours may have.
const SMALL_ANSWER: usize = 256 * 1024;
/// A neighbour: what was sealed, in base64, and the fields around it.
const NEIGHBOUR_BYTES: usize = SEALED_MAX.div_ceil(3) * 4 + 1024;

/// A Qdrant server or cluster. Clones are the same one.
#[derive(Clone)]
pub struct Qdrant {
    pool: Arc<Pool>,
    settings: Arc<Settings>,
}

impl std::fmt::Debug for Qdrant {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Qdrant").field("settings", &self.settings).finish_non_exhaustive()
    }
}

impl Qdrant {
    /// Connects to nobody yet. Its calls need a tokio runtime.
    ///
    /// # Errors
    /// Settings that can never work. That Qdrant is away is not among the reasons.
    pub fn new(settings: Settings) -> Result<Self, SettingsError> {
        settings.check()?;
        let pool = Pool::new(&settings)?;
        Ok(Self { pool: Arc::new(pool), settings: Arc::new(settings) })
    }

    /// Makes the collection and its indexes where they are not there yet; many may at once. Also has a
    /// connection ready for the first look-up.
    ///
    /// # Errors
    /// No answer; or the collection is there, and holds vectors of another kind.
    pub async fn prepare(&self) -> Result<(), Trouble> {
        let there = match self.collection().await? {
            Some(there) => there,
            None => {
                // Somebody else may be faster, so that a refusal says nothing: what is there counts.
                let create = change(Method::PUT, "", shapes::create(&self.settings));
                let made = self.exchange(create).await.and_then(accepted);
                match self.collection().await? {
                    Some(there) => there,
                    None => return Err(made.err().unwrap_or_else(|| absent(&self.settings))),
                }
            }
        };
        there.check(self.settings.dimensions).map_err(Trouble::failed)?;
        for (field, index) in shapes::indexes() {
            if !there.is_indexed(field) {
                self.write(change(Method::PUT, "/index?wait=true", index)).await?;
            }
        }
        Ok(())
    }

    async fn collection(&self) -> Result<Option<shapes::Collection>, Trouble> {
        let reply = self.exchange(read(Method::GET, "", None, SMALL_ANSWER)).await?;
        if reply.status == StatusCode::NOT_FOUND {
            return Ok(None);
        }
        shapes::collection(&accepted(reply)?).map(Some).map_err(Trouble::failed)
    }

    async fn find(&self, wanted: Wanted<'_>) -> Result<Vec<Neighbour>, Trouble> {
        self.check(wanted.vector)?;
        let most = wanted.most.min(NEIGHBOURS_MAX);
        if most == 0 {
            return Ok(vec![]);
        }
        let wanted = Wanted { most, ..wanted };
        let body = shapes::query(&wanted).map_err(Trouble::failed)?;
        let limit = most * NEIGHBOUR_BYTES + 1024;
        let call = read(Method::POST, "/points/query?timeout=1", Some(body.into()), limit);
        let reply = self.exchange(call).await?;
        match shapes::neighbours(&accepted(reply)?, &wanted) {
            Judged::Believed(neighbours) => Ok(neighbours),
            Judged::Impossible(why) => Err(Trouble::failed(why)),
        }
    }

    async fn upsert(&self, point: Point) -> Result<(), Trouble> {
        self.check(&point.vector)?;
        if point.sealed.len() > SEALED_MAX {
            return Err(Trouble::failed(format!("over {SEALED_MAX} bytes are no answer")));
        }
        let body = shapes::upsert(&point).map_err(Trouble::failed)?;
        // An error of the write itself is told only to who waits for it.
        self.write(change(Method::PUT, "/points?wait=true", body.into())).await
    }

    async fn delete(&self, what: Purged) -> Result<(), Trouble> {
        let body = shapes::delete(&Cond::of(what));
        self.write(change(Method::POST, "/points/delete?wait=true", body)).await
    }

    async fn write(&self, call: Call) -> Result<(), Trouble> {
        shapes::written(&accepted(self.exchange(call).await?)?).map_err(Trouble::failed)
    }

    async fn exchange(&self, call: Call) -> Result<Reply, Trouble> {
        Arc::clone(&self.pool).exchange(call).await
    }

    /// Another length would be refused by the server, and a NaN is no JSON.
    fn check(&self, vector: &[f32]) -> Result<(), Trouble> {
        let wanted = self.settings.dimensions;
        if vector.len() != wanted {
            let len = vector.len();
            return Err(Trouble::failed(format!("a vector of {len} dimensions, not {wanted}")));
        }
        if !vector.iter().all(|number| number.is_finite()) {
            return Err(Trouble::failed("a vector with a number that is none"));
        }
        Ok(())
    }
}

impl Regional for Qdrant {
    fn nearest<'a>(&'a self, wanted: Wanted<'a>) -> Doing<'a, Vec<Neighbour>> {
        Box::pin(self.find(wanted))
    }

    fn put(&self, point: Point) -> Doing<'_, ()> {
        Box::pin(self.upsert(point))
    }

    fn purge(&self, what: Purged) -> Doing<'_, ()> {
        Box::pin(self.delete(what))
    }
}

/// Changes nothing: asking twice is the same as asking once.
fn read(method: Method, path: &'static str, body: Option<Bytes>, limit: usize) -> Call {
    Call { method, path, body, again: Again::Always, limit }
}

fn change(method: Method, path: &'static str, body: Bytes) -> Call {
    Call { method, path, body: Some(body), again: Again::IfUnsent, limit: SMALL_ANSWER }
}

fn absent(settings: &Settings) -> Trouble {
    Trouble::failed(format!("the collection {} was made and is not there", settings.collection))
}

/// The body of a 200; a refusal in the server's own words, where it has some.
fn accepted(reply: Reply) -> Result<Bytes, Trouble> {
    let Reply { status, body } = reply;
    match status {
        StatusCode::OK => Ok(body),
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
            Err(Trouble::failed(format!("Qdrant answered {status}: check the API key's rights")))
        }
        StatusCode::TOO_MANY_REQUESTS => Err(Trouble::Busy),
        _ => Err(Trouble::failed(match shapes::error(&body) {
            Some(why) => format!("Qdrant answered {status}: {why}"),
            None => format!("Qdrant answered {status}"),
        })),
    }
}
