//! Where each region's clients go now: what DNS says, asked again when its answer is over, or the
//! host of a URL.
//!
//! A client asks the way its resolver would: with its network in the question (RFC 7871), one server
//! after the other.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex},
    time::Duration,
};

use hickory_proto::{
    op::{Message, MessageType, OpCode, Query},
    rr::{
        DNSClass, Name, RData, RecordType,
        rdata::opt::{ClientSubnet, EdnsOption},
    },
};
use http::Uri;
use nearhop_conf::{IpNet, Target, TargetDns};
use tokio::{net::UdpSocket, time::timeout};

/// What a resolver waits for one server.
const SERVER_PATIENCE: Duration = Duration::from_millis(500);
/// Answers are asked for again no sooner and no later.
const TTL: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));
/// The most that an answer over UDP has.
const MESSAGE_BYTES: u16 = 1232;

/// The way to one region.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Way {
    /// In the order in which they are tried.
    pub(crate) addresses: Vec<SocketAddr>,
    /// How long that is known.
    ttl: Duration,
}

/// The ways to all regions, as they are now.
#[derive(Debug)]
pub(crate) struct Places {
    regions: Vec<Mutex<Arc<[SocketAddr]>>>,
}

impl Places {
    /// Finds all ways once.
    ///
    /// # Errors
    /// What is wrong with the first that cannot be found.
    pub(crate) async fn find(target: &Target) -> Result<(Self, Vec<Duration>), String> {
        let (mut regions, mut ttls) = (Vec::new(), Vec::new());
        for region in 0..target.regions.len() {
            let way = find(target, region).await?;
            regions.push(Mutex::new(way.addresses.into()));
            ttls.push(way.ttl);
        }
        Ok((Self { regions }, ttls))
    }

    pub(crate) fn of(&self, region: usize) -> Arc<[SocketAddr]> {
        Arc::clone(&self.regions[region].lock().unwrap_or_else(std::sync::PoisonError::into_inner))
    }

    /// Keeps one region's way as DNS has it; tells where it leads elsewhere than before. What nobody
    /// answers stays as it is: that is what resolvers do.
    pub(crate) async fn keep(
        &self,
        target: &Target,
        region: usize,
        ttl: Duration,
        tell: impl Fn(String),
    ) {
        let mut ttl = ttl;
        loop {
            tokio::time::sleep(ttl.clamp(TTL.0, TTL.1)).await;
            let Ok(way) = find(target, region).await else { continue };
            ttl = way.ttl;
            let mut known =
                self.regions[region].lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            if known[..] != way.addresses[..] {
                let named = |all: &[SocketAddr]| {
                    all.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
                };
                let name = &target.regions[region].name;
                tell(format!(
                    "clients of {name} go to {} instead of {}",
                    named(&way.addresses),
                    named(&known)
                ));
                *known = way.addresses.into();
            }
        }
    }
}

/// Looks a region's way up.
async fn find(target: &Target, region: usize) -> Result<Way, String> {
    let region = &target.regions[region];
    let told = |what: String| format!("regions[{}]: {what}", region.name);
    match (&target.dns, region.clients) {
        (Some(dns), Some(clients)) => ask_all(dns, clients).await.map_err(told),
        _ => {
            let (host, port) =
                host_of(&region.url).ok_or_else(|| told("url has no host".into()))?;
            let found = tokio::net::lookup_host((host.as_str(), port)).await;
            let found = found.map_err(|error| told(format!("{host} is not found: {error}")))?;
            Ok(Way { addresses: found.collect(), ttl: TTL.1 })
        }
    }
}

/// The host and the port of a URL.
pub(crate) fn host_of(url: &str) -> Option<(String, u16)> {
    let url: Uri = url.parse().ok()?;
    let port = url.port_u16().unwrap_or(if url.scheme_str() == Some("https") { 443 } else { 80 });
    Some((url.host()?.trim_matches(['[', ']']).to_owned(), port))
}

async fn ask_all(dns: &TargetDns, clients: IpNet) -> Result<Way, String> {
    let mut last = String::new();
    for server in &dns.servers {
        let asked = timeout(SERVER_PATIENCE, ask(*server, dns, clients)).await;
        match asked.map_err(|_late| "no answer in time".to_owned()).and_then(|said| said) {
            Ok(way) => return Ok(way),
            Err(error) => last = format!("the DNS server {server}: {error}"),
        }
    }
    Err(last)
}

async fn ask(server: SocketAddr, dns: &TargetDns, clients: IpNet) -> Result<Way, String> {
    let told = |error: io::Error| error.to_string();
    let any: SocketAddr =
        if server.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0_u16; 8], 0).into() };
    let socket = UdpSocket::bind(any).await.map_err(told)?;
    socket.connect(server).await.map_err(told)?;
    let id = fastrand::u16(..);
    socket.send(&question(id, &dns.name, clients)?).await.map_err(told)?;
    let mut buffer = [0; MESSAGE_BYTES as usize];
    loop {
        let length = socket.recv(&mut buffer).await.map_err(told)?;
        // Somebody else's answer, or an old one: ours may still come.
        if let Some(way) = read(&buffer[..length], id, dns.port) {
            return way;
        }
    }
}

fn question(id: u16, name: &str, clients: IpNet) -> Result<Vec<u8>, String> {
    let told = |error: hickory_proto::ProtoError| error.to_string();
    let kind = if clients.addr().is_ipv4() { RecordType::A } else { RecordType::AAAA };
    let mut name = Name::from_ascii(name).map_err(told)?;
    name.set_fqdn(true);
    let mut query = Query::query(name, kind);
    query.set_query_class(DNSClass::IN);
    let mut message = Message::new(id, MessageType::Query, OpCode::Query);
    message.add_query(query);
    let subnet = ClientSubnet::new(clients.network(), clients.prefix_len(), 0);
    let edns = message.edns.get_or_insert_default();
    edns.set_max_payload(MESSAGE_BYTES);
    edns.options_mut().insert(EdnsOption::Subnet(subnet));
    message.to_vec().map_err(told)
}

/// What an answer says; nothing where it is not the one to that question.
fn read(bytes: &[u8], id: u16, port: u16) -> Option<Result<Way, String>> {
    let message = Message::from_vec(bytes).ok().filter(|message| message.metadata.id == id)?;
    let mut ttl = TTL.1;
    let mut addresses = Vec::new();
    for record in &message.answers {
        let address: IpAddr = match &record.data {
            RData::A(address) => address.0.into(),
            RData::AAAA(address) => address.0.into(),
            _ => continue,
        };
        ttl = ttl.min(Duration::from_secs(record.ttl.into()));
        addresses.push(SocketAddr::new(address, port));
    }
    Some(match addresses.is_empty() {
        true => Err(format!("no address ({})", message.metadata.response_code)),
        false => Ok(Way { addresses, ttl }),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_has_the_clients_network_and_an_answer_its_addresses() {
        let asked = question(7, "complete.example.com", "192.0.2.0/24".parse().unwrap()).unwrap();
        let message = Message::from_vec(&asked).unwrap();
        assert_eq!(message.queries[0].name().to_string(), "complete.example.com.");
        // RFC 7871, section 6: family 1, 24 bits, and three bytes of the network.
        let subnet = [0, 8, 0, 7, 0, 1, 24, 0, 192, 0, 2];
        assert!(asked.windows(subnet.len()).any(|bytes| bytes == subnet), "{asked:?}");
        assert!(read(&asked, 8, 80).is_none(), "another question's");
        assert!(read(&asked, 7, 80).unwrap().unwrap_err().contains("no address"));
        assert!(read(b"garbage", 7, 80).is_none());
    }

    #[test]
    fn hosts_are_those_of_urls() {
        assert_eq!(host_of("http://[::1]:8080"), Some(("::1".to_owned(), 8080)));
        assert_eq!(
            host_of("https://complete.example.com"),
            Some(("complete.example.com".to_owned(), 443))
        );
    }
}
