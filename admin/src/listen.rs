//! Opens listeners so that a port in use is told in words.

use std::{
    io,
    net::{SocketAddr, TcpListener},
};

/// Why a listener could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Somebody listens there already.
    #[error(
        "{what}: {address} is in use by another process. Stop it, or choose another port with {setting}"
    )]
    InUse {
        /// What wanted to listen.
        what: &'static str,
        /// Where.
        address: SocketAddr,
        /// The flag or field that changes it.
        setting: &'static str,
    },
    /// Anything else: no such address, no permission.
    #[error("{what}: cannot listen on {address}: {source}. Choose another address with {setting}")]
    Other {
        /// What wanted to listen.
        what: &'static str,
        /// Where.
        address: SocketAddr,
        /// The flag or field that changes it.
        setting: &'static str,
        /// What the operating system said.
        source: io::Error,
    },
}

impl BindError {
    fn new(
        what: &'static str,
        address: SocketAddr,
        setting: &'static str,
        source: io::Error,
    ) -> Self {
        match source.kind() {
            io::ErrorKind::AddrInUse => Self::InUse { what, address, setting },
            _ => Self::Other { what, address, setting, source },
        }
    }
}

/// Opens a non-blocking listener for `what` (its name in messages); `setting` is what changes the address.
///
/// # Errors
/// [`BindError`], in words an operator can act on.
pub fn bind(
    address: SocketAddr,
    what: &'static str,
    setting: &'static str,
) -> Result<TcpListener, BindError> {
    let error = |source| BindError::new(what, address, setting, source);
    let listener = TcpListener::bind(address).map_err(error)?;
    listener.set_nonblocking(true).map_err(error)?;
    Ok(listener)
}

/// Finds the address that a server which opens its own listener will use: checks that it is free
/// and, for port 0, which port it gets. The socket is closed again; in between, somebody else
/// could take the port, and then that server's own error tells.
///
/// # Errors
/// [`BindError`], as [`bind`].
pub fn reserve(
    address: SocketAddr,
    what: &'static str,
    setting: &'static str,
) -> Result<SocketAddr, BindError> {
    TcpListener::bind(address)
        .and_then(|listener| listener.local_addr())
        .map_err(|source| BindError::new(what, address, setting, source))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_in_use_names_the_setting() {
        let held = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = held.local_addr().unwrap();
        let error = reserve(address, "edge", "--edge-port").unwrap_err().to_string();
        assert!(error.contains(&address.to_string()) && error.contains("--edge-port"), "{error}");
    }

    #[test]
    fn port_zero_becomes_a_real_port() {
        let address = reserve("127.0.0.1:0".parse().unwrap(), "edge", "listen").unwrap();
        assert_ne!(address.port(), 0);
    }
}
