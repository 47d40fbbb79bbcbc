//! The emulator with real processes. No test measures speed: a time is only ever long enough, and waits
//! are for conditions.

use std::{
    io::{BufRead, BufReader, Write},
    net::{Ipv4Addr, UdpSocket},
    process::{Child, ChildStdin, Command, Stdio},
    sync::mpsc::{self, Receiver},
    thread,
    time::Duration,
};

use crate::{Counts, Disk, Emulator, Error, HOST, Site, clock, process};

/// For conditions that hold at once, on a machine that has much else to do.
const PATIENCE: Duration = Duration::from_secs(60);

/// An emulator, or nothing and a loud word where this machine cannot run one.
fn start(sites: &[&str]) -> Option<Emulator> {
    match Emulator::start(sites) {
        Ok(wan) => Some(wan),
        Err(error @ Error::Missing(_)) => {
            assert!(!required(), "NEARHOP_REQUIRE_CLIENTS is set, and {error}");
            eprintln!("SKIPPED: {error}");
            None
        }
        Err(error) => panic!("{error}"),
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "the emulator stands below `conf`; this is its one look at the environment"
)]
fn required() -> bool {
    std::env::var_os("NEARHOP_REQUIRE_CLIENTS").is_some()
}

/// A UDP socket in a site. It prints what it hears, answers "ask TEXT" with "answer TEXT", and sends
/// what it is told to on its standard input, with whose end it ends.
const PEER: &str = r#"
import socket, sys, threading
udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
udp.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
udp.bind((sys.argv[1], 7000))
print("up", flush=True)
def hear():
    while True:
        data, peer = udp.recvfrom(2048)
        print(data.decode(), flush=True)
        if data.startswith(b"ask "):
            udp.sendto(b"answer " + data[4:], peer)
threading.Thread(target=hear, daemon=True).start()
for line in sys.stdin:
    address, text = line.rstrip("\n").split(" ", 1)
    udp.sendto(text.encode(), (address, 7000))
"#;

struct Peer {
    child: Child,
    tell: ChildStdin,
    heard: Receiver<String>,
}

impl Peer {
    fn start(site: &Site) -> Self {
        let mut command = site.command("python3");
        command
            .args(["-c", PEER, &site.address().to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let (send, heard) = mpsc::channel();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        thread::spawn(move || lines.map_while(Result::ok).try_for_each(|line| send.send(line)));
        let peer = Self { tell: child.stdin.take().unwrap(), child, heard };
        peer.hears("up");
        peer
    }

    fn send(&mut self, to: &Site, text: &str) {
        writeln!(self.tell, "{} {text}", to.address()).unwrap();
    }

    /// The next thing it hears is this.
    #[track_caller]
    fn hears(&self, text: &str) {
        assert_eq!(self.heard.recv_timeout(PATIENCE).as_deref(), Ok(text));
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[track_caller]
fn until(what: &str, condition: impl Fn() -> bool) {
    let deadline = clock::now() + PATIENCE;
    while !condition() {
        assert!(clock::now() < deadline, "{what}: never");
        thread::park_timeout(Duration::from_millis(2));
    }
}

fn dropped(wan: &Emulator, from: &str, to: &str) -> u64 {
    wan.counts(from, to).dropped
}

#[test]
fn udp_goes_there_and_back_between_sites() {
    let Some(wan) = start(&["us", "eu"]) else { return };
    let (mut us, eu) = (Peer::start(wan.site("us")), Peer::start(wan.site("eu")));
    for text in ["one", "two"] {
        us.send(wan.site("eu"), &format!("ask {text}"));
        eu.hears(&format!("ask {text}"));
        us.hears(&format!("answer {text}"));
    }
    assert_eq!(wan.counts("us", "eu"), Counts { forwarded: 2, dropped: 0 });
    assert_eq!(wan.counts("eu", "us"), Counts { forwarded: 2, dropped: 0 });
    assert_eq!(wan.counts("us", HOST), Counts::default(), "nobody else hears of it");
}

#[test]
fn the_test_itself_is_a_place_too() {
    let Some(wan) = start(&["us"]) else { return };
    let us = Peer::start(wan.site("us"));
    let socket = UdpSocket::bind((wan.host_address(), 0)).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket.send_to(b"ask me", (wan.site("us").address(), 7000)).unwrap();
    us.hears("ask me");
    let mut buffer = [0; 64];
    let (length, from) = socket.recv_from(&mut buffer).unwrap();
    assert_eq!(
        (&buffer[..length], from.ip()),
        (&b"answer me"[..], wan.site("us").address().into())
    );
}

const TCP_SERVER: &str = r#"
import hashlib, socket, sys
server = socket.create_server((sys.argv[1], 7001))
print("up", flush=True)
peer, _ = server.accept()
digest = hashlib.sha256()
while data := peer.recv(65536):
    digest.update(data)
peer.sendall(digest.hexdigest().encode())
"#;

const TCP_CLIENT: &str = r#"
import hashlib, random, socket, sys
data = random.Random(7).randbytes(2 << 20)
peer = socket.create_connection((sys.argv[1], 7001), timeout=60)
peer.sendall(data)
peer.shutdown(socket.SHUT_WR)
assert peer.recv(64, socket.MSG_WAITALL).decode() == hashlib.sha256(data).hexdigest()
"#;

#[test]
fn tcp_carries_megabytes_over_a_link_with_delay_jitter_and_loss() {
    let Some(wan) = start(&["us", "eu"]) else { return };
    let ms = Duration::from_millis(1);
    wan.link("us", "eu").delay(3 * ms).jitter(2 * ms).loss(0.005);
    let python = |site: &Site, script: &str, address: Ipv4Addr| {
        let mut command = site.command("python3");
        command.args(["-c", script, &address.to_string()]);
        command
    };
    let eu = wan.site("eu");
    let mut server = python(eu, TCP_SERVER, eu.address()).stdout(Stdio::piped()).spawn().unwrap();
    let mut up = String::new();
    BufReader::new(server.stdout.take().unwrap()).read_line(&mut up).unwrap();
    assert_eq!(up, "up\n");
    let client = python(wan.site("us"), TCP_CLIENT, eu.address()).output().unwrap();
    let _ = server.kill();
    server.wait().unwrap();
    assert!(client.status.success(), "{client:?}");
}

#[test]
fn a_one_way_cut_stops_one_direction_until_it_is_healed() {
    let Some(wan) = start(&["us", "eu"]) else { return };
    let (mut us, eu) = (Peer::start(wan.site("us")), Peer::start(wan.site("eu")));
    wan.cut_one_way("eu", "us");
    us.send(wan.site("eu"), "ask during");
    eu.hears("ask during");
    until("the answer is dropped", || dropped(&wan, "eu", "us") == 1);
    assert_eq!(wan.counts("us", "eu"), Counts { forwarded: 1, dropped: 0 });

    wan.heal_one_way("eu", "us");
    us.send(wan.site("eu"), "ask after");
    eu.hears("ask after");
    us.hears("answer after");
    assert_eq!(wan.counts("eu", "us"), Counts { forwarded: 1, dropped: 1 });
}

#[test]
fn a_cut_stops_both_directions_until_it_is_healed() {
    let Some(wan) = start(&["us", "eu"]) else { return };
    let (mut us, mut eu) = (Peer::start(wan.site("us")), Peer::start(wan.site("eu")));
    wan.cut("us", "eu");
    us.send(wan.site("eu"), "lost");
    eu.send(wan.site("us"), "lost");
    until("both are dropped", || dropped(&wan, "us", "eu") == 1 && dropped(&wan, "eu", "us") == 1);
    wan.heal("eu", "us");
    us.send(wan.site("eu"), "ask");
    us.send(wan.site("eu"), "ask again");
    eu.hears("ask");
    eu.hears("ask again");
    us.hears("answer again");
}

#[test]
fn what_is_on_its_way_at_a_cut_is_lost_even_if_it_heals() {
    let Some(wan) = start(&["us", "eu"]) else { return };
    let (mut us, eu) = (Peer::start(wan.site("us")), Peer::start(wan.site("eu")));
    wan.link("us", "eu").delay(Duration::from_secs(3600));
    us.send(wan.site("eu"), "too late");
    us.send(wan.site(HOST), "marker");
    until("what was sent before it is on its way", || wan.counts("us", HOST).forwarded == 1);
    wan.cut("us", "eu");
    assert_eq!(wan.counts("us", "eu"), Counts { forwarded: 0, dropped: 1 });
    wan.heal("us", "eu");
    wan.link("us", "eu").delay(Duration::ZERO);
    us.send(wan.site("eu"), "in time");
    eu.hears("in time");
}

#[test]
fn an_isolated_site_still_hears_the_test_until_that_is_cut_too() {
    let Some(wan) = start(&["us", "eu", "ap"]) else { return };
    let (mut us, eu, ap) =
        (Peer::start(wan.site("us")), Peer::start(wan.site("eu")), Peer::start(wan.site("ap")));
    let socket = UdpSocket::bind((wan.host_address(), 0)).unwrap();
    let host_sends =
        |text: &str| socket.send_to(text.as_bytes(), (wan.site("ap").address(), 7000)).unwrap();

    wan.isolate("ap");
    us.send(wan.site("ap"), "from us");
    us.send(wan.site("eu"), "from us");
    eu.hears("from us");
    until("us to ap is dropped", || dropped(&wan, "us", "ap") == 1);
    host_sends("from the test");
    ap.hears("from the test");

    wan.cut("ap", HOST);
    host_sends("lost");
    until("the test to ap is dropped", || dropped(&wan, HOST, "ap") == 1);

    wan.rejoin("ap");
    us.send(wan.site("ap"), "from us again");
    ap.hears("from us again");
    host_sends("from the test again");
    ap.hears("from the test again");
}

const ROUND_TRIP: &str = r#"
import socket, sys, time
udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
udp.settimeout(60)
before = time.monotonic_ns()
udp.sendto(b"ask ", (sys.argv[1], 7000))
udp.recv(64)
print((time.monotonic_ns() - before) // 1000)
"#;

#[test]
fn a_round_trip_takes_no_less_than_both_delays() {
    let Some(wan) = start(&["us", "eu"]) else { return };
    let _eu = Peer::start(wan.site("eu"));
    wan.link_one_way("us", "eu").delay(Duration::from_millis(120));
    wan.link_one_way("eu", "us").delay(Duration::from_millis(30));
    let mut python = wan.site("us").command("python3");
    let output =
        python.args(["-c", ROUND_TRIP, &wan.site("eu").address().to_string()]).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let micros: u64 = String::from_utf8(output.stdout).unwrap().trim().parse().unwrap();
    assert!(micros >= 150_000, "{micros} µs");
}

#[test]
fn loss_loses_its_part_and_full_loss_everything() {
    const PACKETS: u64 = 400;
    let Some(wan) = start(&["us", "eu"]) else { return };
    let (mut us, eu) = (Peer::start(wan.site("us")), Peer::start(wan.site("eu")));
    let counts = || wan.counts("us", "eu");
    wan.link_one_way("us", "eu").loss(0.3);
    (0..PACKETS).for_each(|_| us.send(wan.site("eu"), "maybe"));
    until("each has passed or not", || counts().forwarded + counts().dropped == PACKETS);
    let part = counts().dropped;
    assert!((1..PACKETS).contains(&part), "{:?}", counts());

    wan.link("us", "eu").loss(1.0);
    (0..PACKETS).for_each(|_| us.send(wan.site("eu"), "never"));
    until("none has passed", || counts().dropped == part + PACKETS);

    wan.link("us", "eu").loss(0.0);
    us.send(wan.site("eu"), "last");
    assert!(eu.heard.iter().take_while(|text| text != "last").all(|text| text == "maybe"));
}

#[test]
fn two_emulators_in_one_process_do_not_meet() {
    let Some(one) = start(&["us", "eu"]) else { return };
    let Some(other) = start(&["us", "eu"]) else { return };
    assert_ne!(one.site("eu").address(), other.site("eu").address());
    let (mut us, eu) = (Peer::start(one.site("us")), Peer::start(one.site("eu")));
    let (mut other_us, other_eu) = (Peer::start(other.site("us")), Peer::start(other.site("eu")));
    us.send(other.site("eu"), "astray");
    us.send(one.site("eu"), "one");
    other_us.send(other.site("eu"), "other");
    eu.hears("one");
    other_eu.hears("other");
    assert_eq!(one.counts("us", "eu").forwarded, 1, "the one that went astray is nobody's");
    drop(one);
    other_us.send(other.site("eu"), "still here");
    other_eu.hears("still here");
}

fn says(arguments: &[&str]) -> String {
    String::from_utf8(Command::new("ip").args(arguments).output().unwrap().stdout).unwrap()
}

fn is_there(name: &str) -> bool {
    says(&["netns", "list"]).split_whitespace().any(|word| word == name)
        || says(&["-o", "link"]).contains(&format!(": {name}:"))
}

#[test]
fn nothing_stays_of_an_emulator_that_was_dropped() {
    let Some(wan) = start(&["us", "eu"]) else { return };
    let address = wan.host_address().to_string();
    let inside = String::from_utf8(
        wan.site("us").command("ip").args(["-o", "link"]).output().unwrap().stdout,
    )
    .unwrap();
    let name = inside.split(": ").find(|word| word.starts_with("nh")).unwrap().to_owned();
    let host =
        says(&["-o", "addr", "show", "to", &address]).split_whitespace().nth(1).unwrap().to_owned();
    assert!(is_there(&name) && is_there(&host));
    // A process that its owner forgot keeps nothing from going.
    let peer = Peer::start(wan.site("us"));
    drop(wan);
    assert!(!is_there(&name) && !is_there(&host));
    assert_eq!(says(&["-o", "addr", "show", "to", &address]), "");
    drop(peer);
}

#[test]
fn a_start_removes_what_killed_processes_left_behind() {
    let Some(_wan) = start(&[]) else { return };
    let mut ended = Command::new("true").spawn().unwrap();
    ended.wait().unwrap();
    let orphan = format!("nh{}-0", ended.id());
    assert!(Command::new("ip").args(["netns", "add", &orphan]).status().unwrap().success());
    let running = format!("nh{}-0", std::os::unix::process::parent_id());
    assert!(Command::new("ip").args(["netns", "add", &running]).status().unwrap().success());
    let started = start(&["us"]);
    let left = (is_there(&orphan), is_there(&running));
    assert!(Command::new("ip").args(["netns", "del", &running]).status().unwrap().success());
    assert!(started.is_some());
    assert_eq!(left, (false, true));
}

#[test]
fn a_paused_process_hears_nothing_until_it_is_resumed() {
    let Some(wan) = start(&["us", "eu"]) else { return };
    let (mut us, mut eu) = (Peer::start(wan.site("us")), Peer::start(wan.site("eu")));
    process::pause(eu.child.id()).unwrap();
    us.send(wan.site("eu"), "ask");
    until("it is in the socket's queue", || wan.counts("us", "eu").forwarded == 1);
    assert_eq!(eu.heard.try_recv().ok(), None);
    process::resume(eu.child.id()).unwrap();
    eu.hears("ask");
    process::kill(eu.child.id()).unwrap();
    assert!(!eu.child.wait().unwrap().success());
    assert!(process::pause(0).is_err(), "never a group");
}

#[test]
fn names_of_sites_are_their_own() {
    if start(&[]).is_none() {
        return;
    }
    for sites in [&["us", "us"][..], &["us", HOST]] {
        assert!(matches!(Emulator::start(sites), Err(Error::Sites(_))), "{sites:?}");
    }
}

#[test]
fn a_disk_that_is_full_refuses_what_others_write_until_it_is_cleared() {
    let folder = std::env::temp_dir().join(format!("nearhop-disk-test-{}", std::process::id()));
    let disk = match Disk::mount(&folder, 1 << 20) {
        Ok(disk) => disk,
        Err(error @ Error::Missing(_)) => {
            assert!(!required(), "NEARHOP_REQUIRE_CLIENTS is set, and {error}");
            eprintln!("SKIPPED: {error}");
            return;
        }
        Err(error) => panic!("{error}"),
    };
    let file = disk.path().join("state");
    std::fs::write(&file, "before").unwrap();
    for _ in 0..2 {
        disk.fill().unwrap();
        let error = std::fs::write(disk.path().join("more"), "x").unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::StorageFull);
    }
    // As a child has it until it runs another program.
    let held = std::fs::File::open(disk.path().join("filler")).unwrap();
    for _ in 0..2 {
        disk.clear().unwrap();
        std::fs::write(disk.path().join("more"), "x").unwrap();
    }
    drop(held);
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "before");
    drop(disk);
    assert!(!file.exists(), "it is unmounted");
    std::fs::remove_dir(&folder).unwrap();
}
