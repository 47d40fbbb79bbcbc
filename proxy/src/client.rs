//! The client of a request, as the phases see it: a seam with Pingora on one side and tests on the
//! other.

use std::{future::Future, net::IpAddr, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};

use crate::buffer::Held;

/// The head of an answer. Its framing is the shell's affair.
#[derive(Debug, Clone)]
pub(crate) struct ResponseHead {
    pub(crate) status: StatusCode,
    pub(crate) headers: Vec<(HeaderName, HeaderValue)>,
    /// Bytes of the body where they are known; a stream has none.
    pub(crate) length: Option<usize>,
}

/// Which listener a connection came by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    /// Clients.
    Public,
    /// Other edges, whose certificate was seen.
    Peer,
}

/// The client does not listen any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Gone;

/// Why a request's body could not be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BodyError {
    /// Over the limit.
    TooLarge,
    /// It did not arrive in time.
    TooSlow,
    /// All requests together hold as much as they may.
    NoRoom,
    /// The client went away.
    Broken,
    /// Its framing is broken.
    Malformed,
}

/// One request's client.
pub(crate) trait Client: Send {
    fn method(&self) -> &Method;

    /// The path, without the query.
    fn path(&self) -> &str;

    fn headers(&self) -> &HeaderMap;

    /// Where it is; behind a trusted load balancer, as that says.
    fn address(&self) -> IpAddr;

    /// The listener that it came by.
    fn side(&self) -> Side;

    /// The name of the edge that asks, where its certificate says so.
    fn peer(&self) -> Option<&str>;

    /// As in an access log: `HTTP/1.1`.
    fn protocol(&self) -> &'static str;

    /// Reads the whole body, at most `limit` bytes within `deadline`, and holds as many.
    fn body(
        &mut self,
        limit: usize,
        deadline: Duration,
        held: &mut Held,
    ) -> impl Future<Output = Result<Bytes, BodyError>> + Send;

    /// Resolves when the client has gone away, and never otherwise. May be dropped and asked again.
    fn gone(&mut self) -> impl Future<Output = ()> + Send;

    fn send_head(&mut self, head: ResponseHead) -> impl Future<Output = Result<(), Gone>> + Send;

    /// Sends a piece of the body; `end` is whether it is the last.
    fn send_body(
        &mut self,
        bytes: Bytes,
        end: bool,
    ) -> impl Future<Output = Result<(), Gone>> + Send;

    /// Reads and throws away, within limits, what is left of a request that was answered before
    /// all of it came. Closing at once would reset the connection, and the client would lose the
    /// answer while it still sends.
    fn linger(&mut self) -> impl Future<Output = ()> + Send;
}
