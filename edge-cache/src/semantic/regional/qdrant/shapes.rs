//! The bodies of requests and answers, and what of an answer is believed. Pure.
//!
//! Digests are keywords of sixteen hexadecimal digits: the engine's integers are signed.

use std::collections::HashMap;

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json, value::RawValue};

use super::{
    super::{Neighbour, Owner, Partition, Point, Purged, SEALED_MAX, Wanted},
    settings::{Quantization, Settings},
};

/// Floating point on the other side may come out above 1 by this much.
const ROUNDING: f32 = 1e-3;

/// A point's fields, by which it is found, deleted and judged.
#[derive(Debug, Serialize, Deserialize)]
struct Payload {
    partition: String,
    tenant: String,
    scope: String,
    model: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    session: Option<String>,
    stored: u64,
    generation: u64,
    sealed: String,
}

impl Payload {
    fn of(point: &Point) -> Self {
        let Owner { tenant, scope, model, session } = point.owner;
        Self {
            partition: partition(point.partition),
            tenant: digest(tenant),
            scope: digest(scope),
            model: digest(model),
            session: (session != 0).then(|| digest(session)),
            stored: point.stored,
            generation: point.generation,
            sealed: BASE64.encode(&point.sealed),
        }
    }

    fn owner(&self) -> Option<Owner> {
        Some(Owner {
            tenant: digested(&self.tenant)?,
            scope: digested(&self.scope)?,
            model: digested(&self.model)?,
            session: self.session.as_ref().map_or(Some(0), |session| digested(session))?,
        })
    }
}

fn partition(Partition(bytes): Partition) -> String {
    format!("{:032x}", u128::from_be_bytes(bytes))
}

fn digest(number: u64) -> String {
    format!("{number:016x}")
}

fn digested(text: &str) -> Option<u64> {
    let fine = text.len() == 16 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    fine.then(|| u64::from_str_radix(text, 16).ok()).flatten()
}

/// An id as Qdrant has it.
fn uuid(id: u128) -> String {
    let hex = format!("{id:032x}");
    let [a, b, c, d, e] = [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]];
    format!("{a}-{b}-{c}-{d}-{e}")
}

fn id(uuid: &str) -> Option<u128> {
    let hex: String = uuid.chars().filter(|char| *char != '-').collect();
    let fine = hex.len() == 32 && hex.bytes().all(|byte| byte.is_ascii_hexdigit());
    fine.then(|| u128::from_str_radix(&hex, 16).ok()).flatten()
}

/// One condition on the fields; every filter has exactly one.
#[derive(Debug, PartialEq)]
pub(super) enum Cond {
    /// The field is this keyword.
    Is(&'static str, String),
    /// It was stored before this second, or at any time.
    Stored(Option<u64>),
}

impl Cond {
    pub(super) fn of(what: Purged) -> Self {
        match what {
            // Every point has it. An empty filter reads like a mistake, to people and to servers.
            Purged::All => Self::Stored(None),
            Purged::Before(second) => Self::Stored(Some(second)),
            Purged::Tenant(name) => Self::Is("tenant", digest(name)),
            Purged::Scope(name) => Self::Is("scope", digest(name)),
            Purged::Model(name) => Self::Is("model", digest(name)),
            Purged::Session(name) => Self::Is("session", digest(name)),
        }
    }

    fn filter(&self) -> Value {
        let condition = match self {
            Self::Is(key, value) => json!({ "key": key, "match": { "value": value } }),
            Self::Stored(None) => json!({ "key": "stored", "range": { "gte": 0 } }),
            Self::Stored(Some(second)) => json!({ "key": "stored", "range": { "lt": second } }),
        };
        json!({ "must": [condition] })
    }
}

/// A new collection.
pub(super) fn create(settings: &Settings) -> Bytes {
    let quantization = match settings.quantization {
        Quantization::Int8 => {
            json!({ "scalar": { "type": "int8", "quantile": 0.99, "always_ram": true } })
        }
        Quantization::Binary => json!({ "binary": { "always_ram": true } }),
    };
    let mut create = json!({
        "vectors": { "size": settings.dimensions, "distance": "Cosine", "on_disk": true },
        "on_disk_payload": true,
        "quantization_config": quantization,
        // No graph over everybody's points: one inside each partition that is large.
        "hnsw_config": { "m": 0, "payload_m": 16 },
        "replication_factor": settings.replication_factor,
        "write_consistency_factor": settings.write_consistency_factor,
    });
    if let Some(shards) = settings.shard_number {
        create["shard_number"] = shards.into();
    }
    create.to_string().into()
}

/// Every field that is filtered by. Only the partition's index is in memory and has graphs: the others are
/// for deletions, and one graph a tenant and a model would cost more than all partitions'.
pub(super) fn indexes() -> [(&'static str, Bytes); 6] {
    let index = |field: &str, schema: Value| -> Bytes {
        json!({ "field_name": field, "field_schema": schema }).to_string().into()
    };
    let rare = |field| {
        let schema = json!({ "type": "keyword", "on_disk": true, "enable_hnsw": false });
        (field, index(field, schema))
    };
    let partition = json!({ "type": "keyword", "is_tenant": true });
    let stored = json!({
        "type": "integer", "lookup": false, "range": true, "on_disk": true, "enable_hnsw": false,
    });
    [
        ("partition", index("partition", partition)),
        rare("tenant"),
        rare("scope"),
        rare("model"),
        rare("session"),
        ("stored", index("stored", stored)),
    ]
}

/// A point to be put.
pub(super) fn upsert(point: &Point) -> serde_json::Result<Vec<u8>> {
    #[derive(Serialize)]
    struct Upsert<'a> {
        points: [Put<'a>; 1],
    }
    #[derive(Serialize)]
    struct Put<'a> {
        id: String,
        vector: &'a [f32],
        payload: Payload,
    }
    let payload = Payload::of(point);
    let point = Put { id: uuid(point.id), vector: &point.vector, payload };
    serde_json::to_vec(&Upsert { points: [point] })
}

/// A look-up. There is none without its partition.
pub(super) fn query(wanted: &Wanted<'_>) -> serde_json::Result<Vec<u8>> {
    #[derive(Serialize)]
    struct Query<'a> {
        query: &'a [f32],
        filter: Value,
        score_threshold: f32,
        limit: usize,
        with_payload: bool,
        params: Value,
    }
    serde_json::to_vec(&Query {
        query: wanted.vector,
        filter: Cond::Is("partition", partition(wanted.partition)).filter(),
        score_threshold: wanted.floor,
        limit: wanted.most,
        with_payload: true,
        // Four candidates for each that is wanted; then their own vectors decide.
        params: json!({ "quantization": { "rescore": true, "oversampling": 4.0 } }),
    })
}

/// A deletion.
pub(super) fn delete(what: &Cond) -> Bytes {
    json!({ "filter": what.filter() }).to_string().into()
}

#[derive(Deserialize)]
struct Answer<T> {
    result: T,
}

fn answer<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, String> {
    let parsed: Result<Answer<T>, _> = serde_json::from_slice(body);
    parsed.map(|answer| answer.result).map_err(|error| format!("no answer of Qdrant: {error}"))
}

/// What a server says of its refusal.
pub(super) fn error(body: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Refusal {
        status: Why,
    }
    #[derive(Deserialize)]
    struct Why {
        error: String,
    }
    serde_json::from_slice(body).ok().map(|refusal: Refusal| refusal.status.error)
}

/// Was it written?
pub(super) fn written(body: &[u8]) -> Result<(), String> {
    #[derive(Deserialize)]
    struct Update {
        status: String,
    }
    let update: Update = answer(body)?;
    match update.status.as_str() {
        // Acknowledged is in its log: it will be.
        "completed" | "acknowledged" => Ok(()),
        _ => Err("Qdrant did not write it".to_owned()),
    }
}

/// A collection that is there.
#[derive(Debug, Deserialize)]
pub(super) struct Collection {
    config: Config,
    payload_schema: HashMap<String, Box<RawValue>>,
}

#[derive(Debug, Deserialize)]
struct Config {
    params: Params,
}

#[derive(Debug, Deserialize)]
struct Params {
    vectors: Vectors,
}

#[derive(Debug, Deserialize)]
struct Vectors {
    size: usize,
    distance: String,
}

pub(super) fn collection(body: &[u8]) -> Result<Collection, String> {
    answer(body)
}

impl Collection {
    pub(super) fn check(&self, dimensions: usize) -> Result<(), String> {
        let Vectors { size, distance } = &self.config.params.vectors;
        if *size == dimensions && distance == "Cosine" {
            return Ok(());
        }
        Err(format!(
            "the collection holds {size} dimensions by {distance}, not {dimensions} by Cosine: name another"
        ))
    }

    pub(super) fn is_indexed(&self, field: &str) -> bool {
        self.payload_schema.contains_key(field)
    }
}

/// What an answer to a look-up comes to.
#[derive(Debug, PartialEq)]
pub(super) enum Judged {
    Believed(Vec<Neighbour>),
    /// Nothing of it: who gives one point of another partition may have given others wrongly too.
    Impossible(String),
}

/// The neighbours in an answer, each compared with what was asked for.
pub(super) fn neighbours(body: &[u8], wanted: &Wanted<'_>) -> Judged {
    #[derive(Deserialize)]
    struct Points<'a> {
        #[serde(borrow)]
        points: Vec<Scored<'a>>,
    }
    let found: Points<'_> = match answer(body) {
        Ok(found) => found,
        Err(why) => return Judged::Impossible(why),
    };
    if found.points.len() > wanted.most {
        return Judged::Impossible("more neighbours than were asked for".to_owned());
    }
    let asked = partition(wanted.partition);
    let judged = found.points.into_iter().map(|scored| scored.judged(&asked));
    let mut neighbours: Vec<Neighbour> = match judged.collect() {
        Ok(neighbours) => neighbours,
        Err(why) => return Judged::Impossible(why.to_owned()),
    };
    neighbours.retain(|neighbour| neighbour.similarity >= wanted.floor);
    neighbours.sort_by(|one, other| other.similarity.total_cmp(&one.similarity));
    Judged::Believed(neighbours)
}

#[derive(Deserialize)]
struct Scored<'a> {
    id: &'a str,
    score: f32,
    payload: Payload,
}

impl Scored<'_> {
    fn judged(self, asked: &str) -> Result<Neighbour, &'static str> {
        let Self { id: uuid, score, payload } = self;
        if payload.partition != asked {
            return Err("a neighbour of another partition");
        }
        if !(-1.0 - ROUNDING..=1.0 + ROUNDING).contains(&score) {
            return Err("a cosine that is none");
        }
        if payload.sealed.len() > SEALED_MAX.div_ceil(3) * 4 {
            return Err("a neighbour that is too large");
        }
        let owner = payload.owner().ok_or("a neighbour of nobody")?;
        let sealed = BASE64.decode(&payload.sealed).map_err(|_why| "a seal that is not base64")?;
        Ok(Neighbour {
            id: id(uuid).ok_or("an id that is none of ours")?,
            similarity: score.clamp(-1.0, 1.0),
            owner,
            stored: payload.stored,
            generation: payload.generation,
            sealed,
        })
    }
}

#[cfg(test)]
mod tests;
