//! What clients, edges and pods say to each other: OpenAI-compatible errors, answers and streams.
//!
//! An edge speaks these shapes to clients and hears them from pods; a pod speaks them to both. They
//! are written once, here, so that an answer looks the same whoever gave it.
//!
//! Requests are read here too, by one parser: what an edge lets through, a pod understands. Editors
//! that speak Mistral's, llama.cpp's or Tabby's shapes are understood as well; pods never see those.
//!
//! Absent on purpose: HTTP. This crate knows bodies, not connections.

mod answer;
mod embedding;
mod error;
mod fields;
#[cfg(test)]
mod fuzz;
mod report;
mod request;
mod sse;

pub use answer::{
    Answer, Choice, Chunk, ChunkChoice, Delta, Endpoint, EventWriter, Finish, Head, TokenLogprob,
    Usage, tabby_health,
};
pub use embedding::{EmbeddingRequest, embedding_body, embedding_vectors};
pub use error::{ApiError, ErrorKind};
pub use fields::Fields;
pub use report::{EmbedderReport, ModelReport, PREFIX_CACHE_PURGE_PATH, PodReport};
pub use request::{
    CompletionRequest, ContextFile, Declared, Input, Kind, Message, Penalties, Receiver, Resume,
    Sampling, forward_body,
};
pub use sse::{DONE, EventTooLong, SseReader, event};
