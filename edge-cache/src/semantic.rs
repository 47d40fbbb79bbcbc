//! The semantic tier (L3), for conversations alone: an answer to a question that was asked in other
//! words.
//!
//! | | |
//! |---|---|
//! | [`Site`] | where a question belongs, and which of its words matter; its text is not kept |
//! | [`Cache::exact`] | the very same question but for space and politeness |
//! | [`Cache::near`] | the nearest of its partition, and the [`Verdict`] whether one answers |
//! | [`Cache::judged`] | whether what would have served was right: for the answer, and for the route |
//! | [`Cache::keep`] | a complete answer enters |
//!
//! Being near proves nothing: what differs in a number, a name or a "not" is as near as what means
//! the same. So the words have a veto ([`Veto`]), what is not nearly equal needs evidence of its own
//! ([`Evidence`]), and no route serves before enough of what it would have served was compared with
//! what the model said ([`Trial`]).
//!
//! Absent on purpose: clocks, sockets, and the embedder: vectors come from whoever asks.

mod arena;
mod cache;
mod evidence;
mod question;
pub mod regional;
mod routes;
mod same;
mod secret;
mod site;
mod snapshot;
mod store;
#[cfg(test)]
mod testing;
mod travel;
mod trial;
mod vector;
mod verdict;
mod veto;

pub use arena::Arena;
pub use cache::{Age, Answered, Cache, Held, Judged, Near, Seen, Settings, Unkept};
pub use evidence::Evidence;
pub use question::Unsuited;
pub use routes::{How, Route};
pub use same::{Same, say_the_same};
pub use site::{Models, NoSite, Partition, Secrets, Sharing, Site};
pub use snapshot::Loaded;
pub use store::{Full, Room};
pub use trial::{Demand, Stage, Trial};
pub use vector::{NotAVector, Vector};
pub use verdict::{Because, Neighbour, Policy, Refused, Verdict, judge};
pub use veto::{Veto, Wording};
