//! A question goes to one name server and its answer comes back: by UDP, and by TCP where it does
//! not fit.
//!
//! Each question has a socket of its own, connected: the system picks a port that nobody can guess
//! and drops what comes from anybody else. Whoever answers for the server must guess the port and the
//! id, and repeat the question. Absent on purpose: a deadline (the caller's), and TCP connections that
//! are kept: answers that long are rare.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpStream, UdpSocket},
};

use crate::message::{Heard, Question, Reply};

/// No datagram is longer.
const DATAGRAM_MAX: usize = 65_535;

/// What `server` knows, or in its words why it does not.
///
/// # Errors
/// There is no way to it.
pub(crate) async fn exchange(
    server: SocketAddr,
    question: &Question,
) -> io::Result<Result<Reply, String>> {
    let bytes = question.bytes().ok_or_else(|| io::Error::other("it cannot be asked"))?;
    let heard = match by_udp(server, question, &bytes).await? {
        Heard::Truncated => by_tcp(server, question, &bytes).await?,
        heard => heard,
    };
    match heard {
        Heard::Reply(reply) => Ok(Ok(reply)),
        Heard::Refused(code) => Ok(Err(code)),
        Heard::Truncated => Err(io::Error::other("its answer is too long even for TCP")),
    }
}

async fn by_udp(server: SocketAddr, question: &Question, bytes: &[u8]) -> io::Result<Heard> {
    let any: IpAddr = match server {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0)).await?;
    socket.connect(server).await?;
    socket.send(bytes).await?;
    let mut buffer = vec![0; DATAGRAM_MAX];
    loop {
        let length = socket.recv(&mut buffer).await?;
        if let Some(heard) = question.hear(&buffer[..length]) {
            return Ok(heard);
        }
    }
}

async fn by_tcp(server: SocketAddr, question: &Question, bytes: &[u8]) -> io::Result<Heard> {
    let mut stream = TcpStream::connect(server).await?;
    let length = u16::try_from(bytes.len()).map_err(io::Error::other)?;
    let mut framed = length.to_be_bytes().to_vec();
    framed.extend_from_slice(bytes);
    stream.write_all(&framed).await?;
    let mut answer = vec![0; usize::from(stream.read_u16().await?)];
    stream.read_exact(&mut answer).await?;
    question.hear(&answer).ok_or_else(|| io::Error::other("it answers something else by TCP"))
}
