//! The same questions to gdnsd, which has answered by distance for more than a decade, and to this
//! server: the same database of a million networks, the same eight regions, the same answers.
//!
//! Of an answer its addresses and its scope, how far it holds, are compared, and both are the same on
//! all. For that gdnsd's lists of data centres are as long as there are any (`auto_dc_limit`: shorter
//! lists merge more, so that its scopes are wider), and regions are never alike (`alike_km: 0`), since
//! gdnsd knows no such thing. What no database locates is left out: gdnsd then has a fixed order,
//! where we spread. So are 6to4 and Teredo addresses, which gdnsd takes for the IPv4 address in them.

use std::{
    fmt::Write as _,
    io::Write as _,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket},
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use hickory_proto::{
    op::{Edns, Message, MessageType, OpCode, Query as Question},
    rr::{
        Name, RecordType,
        rdata::opt::{ClientSubnet, EdnsCode, EdnsOption},
    },
};
use ipnet::IpNet;
use nearhop_conf::{Loaded, source::process_env};

use super::Server;
use crate::{country, generated::database};

const ZONE: &str = "complete.example.com";
const REGIONS: [(&str, f64, f64); 8] = [
    ("us-west", 37.4, -122.1),
    ("us-east", 39.0, -77.5),
    ("sa-east", -23.5, -46.6),
    ("eu-west", 53.3, -6.3),
    ("eu-central", 50.1, 8.7),
    ("ap-south", 19.1, 72.9),
    ("ap-northeast", 35.7, 139.7),
    ("ap-southeast", -33.9, 151.2),
];
/// Of each family.
const ASKED: usize = 4000;

/// Tor's lists and gdnsd's program, or a loud skip.
fn have() -> Option<(String, String, &'static str)> {
    let list = |name: &str| std::fs::read_to_string(Path::new("/usr/share/tor").join(name)).ok();
    let programs = ["/usr/sbin/gdnsd", "/usr/local/sbin/gdnsd"];
    let program = programs.into_iter().find(|program| Path::new(program).is_file());
    let found = list("geoip").zip(list("geoip6")).zip(program);
    if found.is_none() {
        // Nobody has gdnsd for macOS.
        let possible = cfg!(target_os = "linux");
        let required = possible && process_env("NEARHOP_REQUIRE_CLIENTS").is_some();
        assert!(!required, "gdnsd or tor-geoipdb is missing: `make setup`");
        // Said aloud: what `eprintln!` says is heard of failed tests only.
        let what = "SKIPPED: gdnsd or tor-geoipdb is not here, DNS was NOT compared: `make setup`";
        let _ = writeln!(std::io::stderr(), "\n*** {what} ***\n");
    }
    found.map(|((v4, v6), program)| (v4, v6, program))
}

fn v4(region: usize) -> Ipv4Addr {
    Ipv4Addr::new(192, 0, 2, u8::try_from(region + 1).unwrap())
}

fn v6(region: usize) -> Ipv6Addr {
    format!("2001:db8::{}", region + 1).parse().unwrap()
}

/// gdnsd with a configuration of its own; gone with the test.
struct Gdnsd {
    child: Child,
    address: SocketAddr,
}

impl Drop for Gdnsd {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Nobody's by UDP and TCP, and below the ports that connections of others are given: it loads a
/// database before it listens.
fn free_address() -> SocketAddr {
    let is_free = |address: &SocketAddr| {
        UdpSocket::bind(address).is_ok() && TcpListener::bind(address).is_ok()
    };
    // Processes that start together begin at different ports.
    let first = 10_000 + u16::try_from(std::process::id() % 20_000).unwrap();
    let address = |port| SocketAddr::from(([127, 0, 0, 1], port));
    (first..32_000).map(address).find(is_free).unwrap()
}

impl Gdnsd {
    fn start(program: &str, folder: &Path, mmdb: &Path) -> Self {
        let address = free_address();
        let at = folder.display();
        let (mut names, mut places, mut addresses) = (String::new(), String::new(), String::new());
        for (index, (name, latitude, longitude)) in REGIONS.iter().enumerate() {
            let (v4, v6) = (v4(index), v6(index));
            write!(names, "{name}, ").unwrap();
            write!(places, "{name} => [{latitude}, {longitude}], ").unwrap();
            write!(addresses, "{name} => {{ addrs_v4 => [{v4}], addrs_v6 => [{v6}] }}, ").unwrap();
        }
        let config = format!(
            "options => {{ listen => {address}, run_dir => {at}/run, state_dir => {at}/state, udp_threads => 1, tcp_threads => 1 }}
plugins => {{ geoip => {{
  maps => {{ near => {{ geoip2_db => {}, datacenters => [{names}], auto_dc_coords => {{ {places} }}, auto_dc_limit => {} }} }},
  resources => {{ service => {{ map => near, service_types => up, dcmap => {{ {addresses} }} }} }}
}} }}\n",
            mmdb.display(),
            REGIONS.len(),
        );
        std::fs::write(folder.join("config"), config).unwrap();
        std::fs::create_dir(folder.join("zones")).unwrap();
        let zone = "@ SOA ns1.example.com. hostmaster.example.com. 1 7200 1800 259200 30\n@ NS ns1.example.com.\n@ 30 DYNA geoip!service\n";
        std::fs::write(folder.join("zones").join(ZONE), zone).unwrap();
        let log = std::fs::File::create(folder.join("log")).unwrap();
        let child = Command::new(program)
            .arg("-c")
            .arg(folder)
            .arg("start")
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        Self { child, address }
    }
}

/// A server that is asked.
struct Client {
    socket: UdpSocket,
    id: u16,
}

/// What is compared of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Said {
    addresses: Vec<IpAddr>,
    scope: u8,
}

impl Client {
    /// Waits until the server answers at all.
    fn of(server: SocketAddr) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.connect(server).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        Self { socket, id: 0 }
    }

    fn ask(&mut self, network: IpNet, tries: usize) -> Option<Said> {
        let asked = match network {
            IpNet::V4(_) => RecordType::A,
            IpNet::V6(_) => RecordType::AAAA,
        };
        self.id = self.id.wrapping_add(1);
        let mut query = Message::new(self.id, MessageType::Query, OpCode::Query);
        query.add_query(Question::query(Name::from_ascii(ZONE).unwrap(), asked));
        let mut edns = Edns::new();
        edns.set_max_payload(1232);
        let subnet = ClientSubnet::new(network.addr(), network.prefix_len(), 0);
        edns.options_mut().insert(EdnsOption::Subnet(subnet));
        query.set_edns(edns);
        let query = query.to_vec().unwrap();
        let mut buffer = [0; 1500];
        for _ in 0..tries {
            // An error is of an ICMP message: it is not there yet.
            let _ = self.socket.send(&query);
            while let Ok(length) = self.socket.recv(&mut buffer) {
                if buffer[..2] == self.id.to_be_bytes() {
                    return Some(said(&buffer[..length], network));
                }
            }
        }
        None
    }
}

fn said(bytes: &[u8], network: IpNet) -> Said {
    let answer = Message::from_vec(bytes).unwrap();
    let addresses = answer.answers.iter().filter_map(|record| record.data.ip_addr()).collect();
    let Some(EdnsOption::Subnet(told)) = answer.edns.unwrap().option(EdnsCode::Subnet).cloned()
    else {
        panic!("no scope for {network}")
    };
    assert_eq!((told.addr(), told.source_prefix()), (network.addr(), network.prefix_len()));
    Said { addresses, scope: told.scope_prefix() }
}

/// Our configuration of the same.
fn config(folder: &Path, mmdb: &Path) -> Loaded {
    let mut text = String::from("regions:\n");
    for (index, (name, latitude, longitude)) in REGIONS.iter().enumerate() {
        let (v4, v6) = (v4(index), v6(index));
        writeln!(
            text,
            "  - {{name: {name}, location: [{latitude}, {longitude}], addresses: [{v4}, \"{v6}\"]}}"
        )
        .unwrap();
    }
    write!(
        text,
        "dns:
  listen: [\"127.0.0.1:0\"]
  admin: {{listen: \"127.0.0.1:0\"}}
  zone: {ZONE}
  name_servers: [ns1.example.com]
  alike_km: 0
  rate_limit: {{answers: 65536, nothing: 65536}}
  mmdb: {}
",
        mmdb.display()
    )
    .unwrap();
    let path = folder.join("dns.yaml");
    std::fs::write(&path, text).unwrap();
    Loaded::read(&path, &|_| None).unwrap()
}

#[test]
fn the_same_database_and_regions_give_what_gdnsd_answers() {
    let Some((list_v4, list_v6, program)) = have() else { return };
    let folder = tempfile::tempdir().unwrap();
    let mmdb = folder.path().join("places.mmdb");
    let middle = |code: &str| country::place(code).map(|at| (at.latitude, at.longitude));
    let generated = database((&list_v4, &list_v6), middle);
    let (networks, places) = (generated.networks.len(), generated.places);
    assert!(networks > 1_000_000 && places > 10_000, "{networks} networks at {places} places");
    std::fs::write(&mmdb, &generated.bytes).unwrap();

    let gdnsd = Gdnsd::start(program, folder.path(), &mmdb);
    let server = Server::new(config(folder.path(), &mmdb)).unwrap();
    let listens = server.ready().listen[0];
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let running = runtime.spawn(server.run(async { drop(stopped.await) }));

    let (mut ours, mut theirs) = (Client::of(listens), Client::of(gdnsd.address));
    let asked = generated.prefixes(ASKED);
    let log = || std::fs::read_to_string(folder.path().join("log")).unwrap();
    // It loads the database first.
    assert!(theirs.ask(asked[0], 600).is_some(), "gdnsd does not answer: {}", log());
    let mut differ = Vec::new();
    for network in &asked {
        let said = [&mut ours, &mut theirs].map(|server| server.ask(*network, 20).unwrap());
        if said[0] != said[1] {
            differ.push((network, said));
        }
    }
    let (count, of) = (differ.len(), asked.len());
    assert!(differ.is_empty(), "{count} of {of} differ: {:#?}", &differ[..count.min(9)]);
    println!(
        "{of} prefixes of {networks} networks at {places} places: the same addresses and scopes"
    );
    drop(stop);
    runtime.block_on(running).unwrap().unwrap();
}
