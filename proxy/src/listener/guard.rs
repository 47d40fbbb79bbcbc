//! A client's stream with limits on what comes before a request: the time of a header and its
//! bytes.
//!
//! Pingora limits each read of a header, so that a byte every few seconds holds a connection for
//! ever, and buffers up to a megabyte of it. Here the whole header has one deadline, which starts
//! with the connection or with a later request's first byte, and one size. On HTTP/2 the first
//! request's header is meant; later ones have the session's idle time-out.
//!
//! Written is once an answer's piece: what is written while the connection is corked waits for what
//! follows it, so that a header and the first bytes of its body are one system call and one packet.

use std::{
    io::{self, ErrorKind},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use async_trait::async_trait;
use bytes::{Buf as _, BytesMut};
use nearhop_admin::clock;
use nearhop_conf::Limits;
use pingora::{
    http::ResponseHeader,
    protocols::{
        ALPN, GetProxyDigest, GetSocketDigest, GetTimingDigest, IO, Peek, Shutdown, SocketDigest,
        Ssl, TimingDigest, UniqueID, UniqueIDType,
        raw_connect::ProxyDigest,
        tls::{SslDigest, TlsRef},
    },
};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf},
    time::{Sleep, sleep_until},
};

use super::connection::{Connection, Phase};

/// RFC 9113, section 3.4.
const H2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Beside a header's own bytes: the request line, and a body that came with it.
const SLACK: usize = 128 << 10;
/// What is put together before it is written; longer pieces are not copied.
const TOGETHER_MAX: usize = 16 << 10;

/// A stream with limits.
#[derive(Debug)]
pub(super) struct Guarded<S> {
    inner: S,
    /// Read ahead, and given out before anything else.
    ahead: Vec<u8>,
    /// To be written, before anything else.
    together: BytesMut,
    /// Bytes of the header that is being read.
    sofar: usize,
    deadline: Pin<Box<Sleep>>,
    header_read: Duration,
    header_bytes: usize,
    connection: Arc<Connection>,
    digest: Arc<ProxyDigest>,
}

impl<S: IO> Guarded<S> {
    /// The first header must be there at `deadline`.
    pub(super) fn new(
        inner: S,
        connection: &Arc<Connection>,
        limits: &Limits,
        deadline: Instant,
    ) -> Self {
        // Pingora carries this through to each request's session.
        let nothing = ResponseHeader::build(200, None).expect("200 is a status");
        let user_data: Box<dyn std::any::Any + Send + Sync> = Box::new(Arc::clone(connection));
        Self {
            inner,
            ahead: Vec::new(),
            together: BytesMut::new(),
            sofar: 0,
            deadline: Box::pin(sleep_until(deadline.into())),
            header_read: limits.header_read,
            header_bytes: limits.headers.0 + SLACK,
            connection: Arc::clone(connection),
            digest: Arc::new(ProxyDigest::new(Box::new(nothing), Some(user_data))),
        }
    }

    fn broke(&self, why: &'static str) -> io::Error {
        self.connection.broke(why);
        io::Error::new(ErrorKind::TimedOut, why)
    }

    /// Whether `bytes` more wait to be written together with others.
    fn waits(&self, bytes: usize) -> bool {
        let more = self.connection.is_corked() || !self.together.is_empty();
        more && self.together.len() + bytes <= TOGETHER_MAX
    }

    fn poll_together(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.together.is_empty() {
            let written = ready!(Pin::new(&mut self.inner).poll_write(cx, &self.together))?;
            if written == 0 {
                return Poll::Ready(Err(ErrorKind::WriteZero.into()));
            }
            self.together.advance(written);
        }
        // A connection lies idle for longer than it is written to.
        self.together = BytesMut::new();
        Poll::Ready(Ok(()))
    }
}

impl<S: IO> AsyncRead for Guarded<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.ahead.is_empty() {
            let length = self.ahead.len().min(buf.remaining());
            buf.put_slice(&self.ahead[..length]);
            self.ahead.drain(..length);
            return Poll::Ready(Ok(()));
        }
        let before = buf.filled().len();
        let read = Pin::new(&mut self.inner).poll_read(cx, buf);
        let phase = self.connection.phase();
        if phase == Phase::Open {
            return read;
        }
        if read.is_pending() {
            if phase == Phase::Header && self.deadline.as_mut().poll(cx).is_ready() {
                return Poll::Ready(Err(self.broke("slow_header")));
            }
            return Poll::Pending;
        }
        ready!(read)?;
        let came = buf.filled().len() - before;
        if phase == Phase::Idle && came > 0 {
            self.connection.set_phase(Phase::Header);
            self.sofar = 0;
            let until = clock::now() + self.header_read;
            self.deadline.as_mut().reset(until.into());
        }
        self.sofar += came;
        if self.sofar > self.header_bytes {
            return Poll::Ready(Err(self.broke("large_header")));
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: IO> AsyncWrite for Guarded<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.waits(bytes.len()) {
            self.together.extend_from_slice(bytes);
            return Poll::Ready(Ok(bytes.len()));
        }
        ready!(self.poll_together(cx))?;
        Pin::new(&mut self.inner).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.connection.is_corked() {
            return Poll::Ready(Ok(()));
        }
        ready!(self.poll_together(cx))?;
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_together(cx))?;
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let bytes = slices.iter().map(|slice| slice.len()).sum();
        if self.waits(bytes) {
            slices.iter().for_each(|slice| self.together.extend_from_slice(slice));
            return Poll::Ready(Ok(bytes));
        }
        ready!(self.poll_together(cx))?;
        Pin::new(&mut self.inner).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }
}

#[async_trait]
impl<S: IO> Peek for Guarded<S> {
    /// As far as the bytes are those of HTTP/2's preface: a short HTTP/1.0 request is shorter than
    /// it, and would be waited on for ever.
    async fn try_peek(&mut self, buf: &mut [u8]) -> io::Result<bool> {
        let mut seen = Vec::with_capacity(buf.len());
        let mut piece = [0; H2_PREFACE.len()];
        while seen.len() < buf.len() && H2_PREFACE.starts_with(&seen) {
            let wanted = (buf.len() - seen.len()).min(piece.len());
            let came = self.read(&mut piece[..wanted]).await?;
            if came == 0 {
                break;
            }
            seen.extend_from_slice(&piece[..came]);
        }
        buf[..seen.len()].copy_from_slice(&seen);
        self.ahead = seen;
        Ok(true)
    }
}

#[async_trait]
impl<S: IO> Shutdown for Guarded<S> {
    async fn shutdown(&mut self) {
        Shutdown::shutdown(&mut self.inner).await;
    }
}

impl<S: IO> UniqueID for Guarded<S> {
    fn id(&self) -> UniqueIDType {
        self.inner.id()
    }
}

impl<S: IO> Ssl for Guarded<S> {
    fn get_ssl(&self) -> Option<&TlsRef> {
        self.inner.get_ssl()
    }

    fn get_ssl_digest(&self) -> Option<Arc<SslDigest>> {
        self.inner.get_ssl_digest()
    }

    fn selected_alpn_proto(&self) -> Option<ALPN> {
        self.inner.selected_alpn_proto()
    }
}

impl<S: IO> GetTimingDigest for Guarded<S> {
    fn get_timing_digest(&self) -> Vec<Option<TimingDigest>> {
        // Nobody asks, and it would be a Vec a request.
        Vec::new()
    }
}

impl<S: IO> GetProxyDigest for Guarded<S> {
    fn get_proxy_digest(&self) -> Option<Arc<ProxyDigest>> {
        Some(Arc::clone(&self.digest))
    }
}

impl<S: IO> GetSocketDigest for Guarded<S> {
    fn get_socket_digest(&self) -> Option<Arc<SocketDigest>> {
        None
    }
}
