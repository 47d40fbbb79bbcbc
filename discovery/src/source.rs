//! What knows where pods are.

use std::net::SocketAddr;

use async_trait::async_trait;
use nearhop_conf::PodSource;

use crate::{dns::Dns, file::File, resolver::Resolver};

/// Pods of one source; as many as a list in a file may have.
pub const PODS_MAX: usize = 1024;

/// One pod that a source knows.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Found {
    /// Its name in headers, metrics and logs. DNS has none for it: there it is `address:port`, with
    /// an IPv6 address in brackets.
    pub name: String,
    /// Its serving listener.
    pub address: SocketAddr,
}

/// Something that knows where pods are.
#[async_trait]
pub trait Source: Send {
    /// For logs: a path or a domain name.
    fn name(&self) -> &str;

    /// Waits until the pods are others than when they were last told, then gives all there are now.
    ///
    /// The first call waits until anything is known; a source in trouble may never know anything,
    /// so nobody should start by waiting for it. A call may be given up at any time: the next one
    /// goes on where it was.
    async fn next(&mut self) -> Vec<Found>;
}

/// What is configured, ready to be asked.
#[must_use]
pub fn source(from: &PodSource, resolver: &Resolver) -> Box<dyn Source> {
    match from {
        PodSource::File(path) => Box::new(File::new(path.clone())),
        PodSource::Addresses { name, port } => {
            Box::new(Dns::addresses(name, *port, resolver.clone()))
        }
        PodSource::Services(name) => Box::new(Dns::services(name, resolver.clone())),
    }
}
