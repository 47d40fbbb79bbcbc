//! HTTP/1.1 toward pods: a request in one write, the head of its answer, the body as it comes.
//!
//! Connecting and TLS are Pingora's. Its client session is not used: it takes a buffer of 64 KiB to
//! read a body, which every stream that waits would hold, asks the kernel who is at the other end
//! before each request, and gives each idle connection a task. Here nothing is held while nothing
//! comes, and who waits in a pool is looked at when it is taken ([`idle`]).
//!
//! A pod is ours, and its framing is believed no further than a client's: what could be read in two
//! ways is no answer, and nothing that came behind an answer is the next one's.

mod body;
mod head;
pub(super) mod idle;

use std::{
    future::poll_fn,
    io,
    mem::MaybeUninit,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Bytes, BytesMut};
use http::{HeaderName, HeaderValue, Method};
use pingora::protocols::Stream;
use tokio::io::{AsyncRead as _, AsyncWriteExt as _, ReadBuf};

pub(super) use self::head::Head;
use self::{
    body::Body,
    head::{HEAD_BYTES_MAX, parse},
};

/// What is read at once.
const READ: usize = 8 << 10;
/// A longer body is not copied behind its header.
const ONE_WRITE_MAX: usize = 64 << 10;

/// The connection broke, or what came is no HTTP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the exchange broke off")]
pub(super) struct Broken;

impl From<io::Error> for Broken {
    fn from(_: io::Error) -> Self {
        Self
    }
}

/// A request was sent, and the head of its answer is there.
pub(super) struct Session {
    stream: Stream,
    head: Head,
    body: Body,
    /// What came with the head and was not read yet.
    ahead: Bytes,
}

/// Sends a request and reads the head of its answer.
pub(super) async fn send(
    mut stream: Stream,
    (method, path): (&Method, &str),
    headers: &[(HeaderName, HeaderValue)],
    body: &[u8],
) -> Result<Session, Broken> {
    let mut wire = write_head((method, path), headers, body.len());
    if body.len() <= ONE_WRITE_MAX {
        wire.extend_from_slice(body);
        stream.write_all(&wire).await?;
    } else {
        stream.write_all(&wire).await?;
        stream.write_all(body).await?;
    }
    // Nobody needs it while the answer is waited for.
    drop(wire);
    stream.flush().await?;
    let mut came = BytesMut::new();
    loop {
        let more = |bytes: &[u8]| came.extend_from_slice(bytes);
        if poll_some(&mut stream, more).await? == 0 {
            return Err(Broken);
        }
        if let Some((head, body, length)) = parse(&came)? {
            let ahead = came.split_off(length).freeze();
            // A body of no bytes has ended.
            return Ok(Session { stream, head, body, ahead });
        }
        if came.len() > HEAD_BYTES_MAX {
            return Err(Broken);
        }
    }
}

fn write_head(
    (method, path): (&Method, &str),
    headers: &[(HeaderName, HeaderValue)],
    length: usize,
) -> Vec<u8> {
    let together = if length <= ONE_WRITE_MAX { length } else { 0 };
    let mut wire = Vec::with_capacity(512 + together);
    for part in [method.as_str(), " ", path, " HTTP/1.1\r\n"] {
        wire.extend_from_slice(part.as_bytes());
    }
    for (name, value) in headers {
        for part in [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"] {
            wire.extend_from_slice(part);
        }
    }
    wire.extend_from_slice(b"\r\n");
    wire
}

impl Session {
    pub(super) const fn head(&self) -> &Head {
        &self.head
    }

    /// Gives more of the body to `take`; `false` at its end, where nothing was given.
    pub(super) async fn read(&mut self, mut take: impl FnMut(&[u8])) -> Result<bool, Broken> {
        let mut given = false;
        loop {
            if !self.ahead.is_empty() {
                let ahead = std::mem::take(&mut self.ahead);
                let read = self.body.read(&ahead, |piece| {
                    given = true;
                    take(piece);
                })?;
                self.ahead = ahead.slice(read..);
            }
            if given || self.body.has_ended() {
                return Ok(given);
            }
            let (body, ahead) = (&mut self.body, &mut self.ahead);
            let mut malformed = None;
            let came = poll_some(&mut self.stream, |bytes| {
                let read = body.read(bytes, |piece| {
                    given = true;
                    take(piece);
                });
                match read {
                    Ok(read) => *ahead = Bytes::copy_from_slice(&bytes[read..]),
                    Err(broken) => malformed = Some(broken),
                }
            });
            match (came.await?, malformed) {
                (_, Some(broken)) => return Err(broken),
                (0, None) => self.body.closed()?,
                _ => {}
            }
        }
    }

    /// Whether all of the answer was read.
    pub(super) fn has_ended(&self) -> bool {
        self.body.has_ended()
    }

    /// The connection, for another request; `None` where its answer did not end well, or said that
    /// it is the last, or more came than it.
    pub(super) fn into_stream(self) -> Option<Stream> {
        let again = self.has_ended() && self.head.keeps_open && self.ahead.is_empty();
        again.then_some(self.stream)
    }
}

/// Waits until something comes, and gives it to `take`; how much it was, and nothing at the end.
/// What is read into lies on the stack: nothing is held while nothing comes.
async fn poll_some(stream: &mut Stream, mut take: impl FnMut(&[u8])) -> io::Result<usize> {
    poll_fn(|cx| read_some(stream, cx, &mut take)).await
}

fn read_some(
    stream: &mut Stream,
    cx: &mut Context<'_>,
    take: &mut impl FnMut(&[u8]),
) -> Poll<io::Result<usize>> {
    let mut space = [const { MaybeUninit::uninit() }; READ];
    let mut came = ReadBuf::uninit(&mut space);
    ready!(Pin::new(stream).poll_read(cx, &mut came))?;
    if !came.filled().is_empty() {
        take(came.filled());
    }
    Poll::Ready(Ok(came.filled().len()))
}

#[cfg(test)]
mod tests;
