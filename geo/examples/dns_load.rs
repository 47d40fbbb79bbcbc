//! Load for `benches/suites/dns.py`: what it asks with, and the asking.
//!
//! ```text
//! dns_load prepare FOLDER                              a database of places, and networks in it
//! dns_load ask ADDRESS NAME SECONDS IN_FLIGHT WHAT     asks, where WHAT is
//!     plain       without EDNS
//!     signed      with proofs (DO)
//!     nowhere     with proofs, for names below NAME that are not there, each another
//!     FILE        every query of another network of FILE
//! ```
//!
//! dnsperf has one client network for all queries, so that a server need look up only one. Here
//! they are as many as `FILE` has lines. Nothing is kept of an answer but whether it is a good one.

#[path = "../src/country.rs"]
mod country;
#[path = "../src/generated.rs"]
mod generated;

use std::{
    error::Error,
    io::{ErrorKind, Write as _},
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    path::Path,
    time::Duration,
};

use hickory_proto::{
    op::{Edns, Message, MessageType, OpCode, Query},
    rr::{
        Name, RecordType,
        rdata::opt::{ClientSubnet, EdnsOption},
    },
};
use ipnet::IpNet;
use nearhop_admin::clock;
// What `country` calls it.
use nearhop_geo::Place;

/// Of each family.
const NETWORKS: usize = 60_000;
/// That are not there; more than a server keeps denials of.
const NAMES: usize = 200_000;
/// As many networks ask, so that no limit of the response rate counts them together.
const SOURCES: u8 = 16;
/// What has not come by then does not come.
const LOST: Duration = Duration::from_millis(200);

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments.as_slice() {
        ["prepare", folder] => prepare(Path::new(folder)),
        ["ask", server, name, seconds, in_flight, what] => {
            let queries = match *what {
                "plain" => vec![query(7, name, None, false)?],
                "signed" => vec![query(7, name, None, true)?],
                "nowhere" => (0..NAMES)
                    .map(|at| query(at, &format!("n{at:07}.{name}"), None, true))
                    .collect::<Result<_, _>>()?,
                file => by_network(name, &std::fs::read_to_string(file)?)?,
            };
            ask(server.parse()?, queries, (seconds.parse()?, in_flight.parse()?))
        }
        _ => Err("see the first lines of geo/examples/dns_load.rs".into()),
    }
}

fn prepare(folder: &Path) -> Result<(), Box<dyn Error>> {
    let list = |name: &str| {
        let path = Path::new("/usr/share/tor").join(name);
        std::fs::read_to_string(path).map_err(|error| format!("tor-geoipdb is missing: {error}"))
    };
    let middle = |code: &str| {
        let Place { latitude, longitude } = country::place(code)?;
        Some((latitude, longitude))
    };
    let generated = generated::database((&list("geoip")?, &list("geoip6")?), middle);
    std::fs::write(folder.join("places.mmdb"), &generated.bytes)?;
    let networks: Vec<String> =
        generated.prefixes(NETWORKS).iter().map(|network| format!("{network}\n")).collect();
    std::fs::write(folder.join("networks"), networks.concat())?;
    let (all, asked) = (generated.networks.len(), networks.len());
    writeln!(std::io::stdout(), "{{\"networks\": {all}, \"asked\": {asked}}}")?;
    Ok(())
}

/// For the address type of the network's family.
fn query(
    at: usize,
    name: &str,
    network: Option<IpNet>,
    signed: bool,
) -> Result<Vec<u8>, Box<dyn Error>> {
    let id = u16::try_from(at & 0xffff)?;
    let mut query = Message::new(id, MessageType::Query, OpCode::Query);
    let v6 = network.is_some_and(|network| matches!(network, IpNet::V6(_)));
    let asked = if v6 { RecordType::AAAA } else { RecordType::A };
    query.add_query(Query::query(Name::from_ascii(name)?, asked));
    if signed || network.is_some() {
        let mut edns = Edns::new();
        edns.set_max_payload(1232);
        edns.set_dnssec_ok(signed);
        if let Some(network) = network {
            let subnet = ClientSubnet::new(network.addr(), network.prefix_len(), 0);
            edns.options_mut().insert(EdnsOption::Subnet(subnet));
        }
        query.set_edns(edns);
    }
    Ok(query.to_vec()?)
}

/// A query for each network.
fn by_network(name: &str, networks: &str) -> Result<Vec<Vec<u8>>, Box<dyn Error>> {
    let mut queries = Vec::new();
    for (at, line) in networks.lines().enumerate() {
        queries.push(query(at, name, Some(line.parse()?), false)?);
    }
    // Families in turn, not one after the other.
    let half = queries.len() / 2;
    let (v4, v6) = queries.split_at(half);
    Ok(v4.iter().zip(v6).flat_map(|(v4, v6)| [v4.clone(), v6.clone()]).collect())
}

/// A socket, and how many of its queries are on their way.
struct Asker {
    socket: UdpSocket,
    waiting: usize,
    heard: std::time::Instant,
}

/// Asks for `seconds`, with at most `in_flight` queries of each socket on their way; never sleeps,
/// so that no server pays for waking it.
fn ask(
    server: SocketAddr,
    queries: Vec<Vec<u8>>,
    (seconds, in_flight): (f64, usize),
) -> Result<(), Box<dyn Error>> {
    let start = clock::now();
    let end = start + Duration::from_secs_f64(seconds);
    let mut askers = Vec::new();
    for source in 1..=SOURCES {
        let socket = UdpSocket::bind((Ipv4Addr::new(127, 0, source, 1), 0))?;
        socket.connect(server)?;
        socket.set_nonblocking(true)?;
        askers.push(Asker { socket, waiting: 0, heard: start });
    }
    // Where answers begin, behind the name's end, type and class.
    let name = queries.first().and_then(|query| query[12..].iter().position(|byte| *byte == 0));
    let behind = 12 + name.ok_or("there are no queries")? + 5;
    let mut queries = queries.iter().cycle();
    let mut regions = [false; 256];
    let (mut good, mut bad, mut lost) = (0u64, 0u64, 0u64);
    let mut buffer = [0; 2048];
    loop {
        let now = clock::now();
        for asker in &mut askers {
            loop {
                match asker.socket.recv(&mut buffer) {
                    Ok(length) => {
                        asker.waiting = asker.waiting.saturating_sub(1);
                        asker.heard = now;
                        match region(&buffer[..length], behind) {
                            Some(region) => {
                                good += 1;
                                regions[usize::from(region)] = true;
                            }
                            None => bad += 1,
                        }
                    }
                    Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                    Err(error) => return Err(error.into()),
                }
            }
            if now >= end {
                continue;
            }
            if now - asker.heard > LOST {
                lost += asker.waiting as u64;
                (asker.waiting, asker.heard) = (0, now);
            }
            while asker.waiting < in_flight {
                let query = queries.next().ok_or("there are no queries")?;
                match asker.socket.send(query) {
                    Ok(_) => asker.waiting += 1,
                    Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                    Err(error) => return Err(error.into()),
                }
            }
        }
        // What is on its way is waited for, so that all that was served is counted.
        if now >= end && (askers.iter().all(|asker| asker.waiting == 0) || now > end + LOST) {
            break;
        }
    }
    let seconds = (clock::now() - start).as_secs_f64();
    lost += askers.iter().map(|asker| asker.waiting as u64).sum::<u64>();
    let regions = regions.iter().filter(|seen| **seen).count();
    writeln!(
        std::io::stdout(),
        "{{\"good\": {good}, \"bad\": {bad}, \"lost\": {lost}, \"regions\": {regions}, \"seconds\": {seconds:.3}}}"
    )?;
    Ok(())
}

/// The last byte of the first address, which differs by region, of an answer that is whole and
/// without an error. Its records begin at `behind`, each with a name of two bytes.
fn region(answer: &[u8], behind: usize) -> Option<u8> {
    let good = answer.len() > 12 && answer[2] & 0x82 == 0x80 && answer[3] & 0xf == 0;
    let length = usize::from(*answer.get(behind + 11)?);
    (good && answer[6..8] != [0, 0]).then(|| answer.get(behind + 11 + length).copied())?
}
