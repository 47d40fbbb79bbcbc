use std::{net::SocketAddr, time::Duration};
pub struct Found {
    pub name: String,
    pub address: SocketAddr,
}
pub struct Resolver;
pub struct Answer {
    pub found: Vec<SocketAddr>,
    pub ttl: Duration,
}
impl Resolver {
    pub fn new(_s: Option<SocketAddr>) -> Self {
        Self
    }
    pub async fn addresses(&self, _n: &str, _p: u16) -> Result<Answer, String> {
        Err(String::new())
    }
}
pub struct S;
impl S {
    pub async fn next(&mut self) -> Vec<Found> {
        Vec::new()
    }
}
pub fn source(_f: &nearhop_conf::PodSource, _r: &Resolver) -> S {
    S
}
