//! A datagram a system call, where the system knows no other way.

use std::{
    io,
    net::{SocketAddr, UdpSocket},
};

use super::QUERY_MAX;

/// A query that came, and its answer.
pub(super) struct Batch {
    buffer: Vec<u8>,
    length: usize,
    from: Option<SocketAddr>,
    bytes: Vec<u8>,
    answered: bool,
}

impl Batch {
    pub(super) fn new() -> Self {
        let (buffer, bytes) = (vec![0; QUERY_MAX], Vec::new());
        Self { buffer, length: 0, from: None, bytes, answered: false }
    }

    pub(super) fn receive(&mut self, socket: &UdpSocket) -> io::Result<usize> {
        self.bytes.clear();
        self.answered = false;
        let (length, from) = socket.recv_from(&mut self.buffer)?;
        (self.length, self.from) = (length, Some(from));
        Ok(1)
    }

    pub(super) fn query(&mut self, _at: usize) -> Option<(&[u8], SocketAddr, &mut Vec<u8>)> {
        Some((&self.buffer[..self.length], self.from?, &mut self.bytes))
    }

    pub(super) fn answer(&mut self, _at: usize, _start: usize) {
        self.answered = true;
    }

    pub(super) fn send(&mut self, socket: &UdpSocket) {
        if let (true, Some(from)) = (self.answered, self.from) {
            // A client that cannot be reached asks again, or not.
            let _ = socket.send_to(&self.bytes, from);
        }
    }
}
