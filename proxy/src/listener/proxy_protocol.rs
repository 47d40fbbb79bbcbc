//! The PROXY protocol, version 2: a load balancer names the client before its first byte.
//!
//! Only connections of configured load balancers are read for it, and theirs must begin with it: a
//! header that were optional could be sent by a client through a balancer that sends none.
//! Version 1, text without a length before it, is not taken.

use std::{
    io::{self, ErrorKind},
    net::SocketAddr,
};

use ppp::v2::{Addresses, Command, Header};
use tokio::io::{AsyncRead, AsyncReadExt as _};

/// Signature, version, family and length.
const FIXED: usize = 16;
/// Addresses and type-length-values; some balancers send a TLS certificate's name along.
const REST_MAX: usize = 2048;

/// The client; `None` where the balancer speaks for itself, as in a health check.
pub(super) async fn read(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<SocketAddr>> {
    let mut header = vec![0; FIXED];
    stream.read_exact(&mut header).await?;
    let rest = usize::from(u16::from_be_bytes([header[14], header[15]]));
    if !header.starts_with(ppp::v2::PROTOCOL_PREFIX) || rest > REST_MAX {
        return Err(wrong());
    }
    header.resize(FIXED + rest, 0);
    stream.read_exact(&mut header[FIXED..]).await?;
    let header = Header::try_from(header.as_slice()).map_err(|_malformed| wrong())?;
    Ok(match (header.command, header.addresses) {
        (Command::Local, _) => None,
        (Command::Proxy, Addresses::IPv4(ip)) => {
            Some(SocketAddr::from((ip.source_address, ip.source_port)))
        }
        (Command::Proxy, Addresses::IPv6(ip)) => {
            Some(SocketAddr::from((ip.source_address, ip.source_port)))
        }
        // A client on a Unix socket has no address of its own.
        (Command::Proxy, Addresses::Unix(_) | Addresses::Unspecified) => None,
    })
}

fn wrong() -> io::Error {
    io::Error::new(ErrorKind::InvalidData, "no PROXY protocol header of version 2")
}

#[cfg(test)]
mod tests {
    use ppp::v2::{Builder, Protocol, Version};

    use super::*;

    async fn check(bytes: &[u8]) -> io::Result<(Option<SocketAddr>, Vec<u8>)> {
        let mut stream = bytes;
        let client = read(&mut stream).await?;
        Ok((client, stream.to_vec()))
    }

    fn header(command: Command) -> Vec<u8> {
        let addresses: (SocketAddr, SocketAddr) =
            ("192.0.2.1:4711".parse().unwrap(), "10.0.0.1:443".parse().unwrap());
        Builder::with_addresses(Version::Two | command, Protocol::Stream, addresses)
            .write_tlv(ppp::v2::Type::NoOp, b"padding")
            .unwrap()
            .build()
            .unwrap()
    }

    #[tokio::test]
    async fn the_client_is_named_and_what_follows_is_left() {
        let bytes = [header(Command::Proxy), b"GET / HTTP/1.1".to_vec()].concat();
        let (client, rest) = check(&bytes).await.unwrap();
        assert_eq!(client, Some("192.0.2.1:4711".parse().unwrap()));
        assert_eq!(rest, b"GET / HTTP/1.1");
        let (client, _) = check(&header(Command::Local)).await.unwrap();
        assert_eq!(client, None);
    }

    proptest::proptest! {
        /// Whatever comes, it is a header or not, and no more is read than it says.
        #[test]
        fn any_bytes_are_judged(mut bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..300), real in proptest::prelude::any::<bool>()) {
            if real {
                bytes.splice(0..bytes.len().min(12), ppp::v2::PROTOCOL_PREFIX.iter().copied());
            }
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let _ = runtime.block_on(check(&bytes));
        }
    }

    #[tokio::test]
    async fn anything_else_is_no_header() {
        let whole = header(Command::Proxy);
        let mut long = whole.clone();
        long[14] = 0xff;
        let mut version = whole.clone();
        version[12] = 0x31;
        for wrong in [
            &b"GET / HTTP/1.1\r\nhost: a\r\n\r\n"[..],
            b"PROXY TCP4 1.1.1.1 2.2.2.2 1 2\r\n",
            &long,
            &version,
            &whole[..20],
            b"",
        ] {
            assert!(check(wrong).await.is_err(), "{wrong:?}");
        }
    }
}
