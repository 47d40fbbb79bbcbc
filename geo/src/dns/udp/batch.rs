//! Many datagrams a system call: under load the kernel's way in and out costs more than an answer.

use std::{
    io::{self, IoSlice, IoSliceMut},
    net::{SocketAddr, UdpSocket},
    ops::Range,
    os::fd::AsRawFd as _,
};

use nix::sys::socket::{MsgFlags, MultiHeaders, SockaddrStorage, recvmmsg, sendmmsg};

use super::QUERY_MAX;

/// Datagrams a call. What waits longer than this takes is no query of a patient client.
const BATCH: usize = 32;
/// From one query's place to the next. Were it a power of two, the beginnings of all would share a
/// few lines of the processor's cache.
const STRIDE: usize = QUERY_MAX + 192;

/// Queries that came, and answers to go.
pub(super) struct Batch {
    incoming: MultiHeaders<SockaddrStorage>,
    outgoing: MultiHeaders<SockaddrStorage>,
    buffers: Vec<u8>,
    queries: Vec<(usize, Option<SockaddrStorage>)>,
    /// The answers' bytes, one behind the other.
    bytes: Vec<u8>,
    answers: Vec<Range<usize>>,
    to: Vec<Option<SockaddrStorage>>,
}

impl Batch {
    pub(super) fn new() -> Self {
        Self {
            incoming: MultiHeaders::preallocate(BATCH, None),
            outgoing: MultiHeaders::preallocate(BATCH, None),
            buffers: vec![0; BATCH * STRIDE],
            queries: Vec::with_capacity(BATCH),
            bytes: Vec::new(),
            answers: Vec::with_capacity(BATCH),
            to: Vec::with_capacity(BATCH),
        }
    }

    /// Waits for a query, as long as the socket says, and takes those that are there too.
    pub(super) fn receive(&mut self, socket: &UdpSocket) -> io::Result<usize> {
        self.queries.clear();
        self.bytes.clear();
        self.answers.clear();
        self.to.clear();
        let places = self.buffers.chunks_mut(STRIDE).map(|place| &mut place[..QUERY_MAX]);
        let mut slices: Vec<[IoSliceMut<'_>; 1]> =
            places.map(|place| [IoSliceMut::new(place)]).collect();
        let (headers, flags) = (&mut self.incoming, MsgFlags::MSG_WAITFORONE);
        let came = recvmmsg(socket.as_raw_fd(), headers, slices.iter_mut(), flags, None)?;
        let came = came.map(|message| (message.bytes, message.address));
        self.queries.extend(came);
        Ok(self.queries.len())
    }

    /// A query, from whom, and where its answer is to be written.
    pub(super) fn query(&mut self, at: usize) -> Option<(&[u8], SocketAddr, &mut Vec<u8>)> {
        let (length, from) = self.queries[at];
        let query = self.buffers.get(at * STRIDE..at * STRIDE + length)?;
        Some((query, address(&from?)?, &mut self.bytes))
    }

    /// Sends all that was written since `start` to whom query `at` came from.
    pub(super) fn answer(&mut self, at: usize, start: usize) {
        self.answers.push(start..self.bytes.len());
        self.to.push(self.queries[at].1);
    }

    /// Sends the answers.
    pub(super) fn send(&mut self, socket: &UdpSocket) {
        let mut sent = 0;
        while sent < self.answers.len() {
            let slices: Vec<[IoSlice<'_>; 1]> = self.answers[sent..]
                .iter()
                .map(|range| [IoSlice::new(&self.bytes[range.clone()])])
                .collect();
            let (headers, to) = (&mut self.outgoing, &self.to[sent..]);
            let fd = socket.as_raw_fd();
            let gone = sendmmsg(fd, headers, &slices, to, [], MsgFlags::empty());
            // A client that cannot be reached asks again, or not; the next one may be.
            sent += gone.map_or(0, Iterator::count).max(1);
        }
    }
}

fn address(storage: &SockaddrStorage) -> Option<SocketAddr> {
    let v4 = storage.as_sockaddr_in().map(|v4| SocketAddr::from((v4.ip(), v4.port())));
    v4.or_else(|| storage.as_sockaddr_in6().map(|v6| SocketAddr::from((v6.ip(), v6.port()))))
}
