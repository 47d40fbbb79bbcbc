"""CPU per answered query of the DNS server beside gdnsd, knot and PowerDNS.

  gdnsd, plain   no EDNS: by the resolver's own address
  gdnsd, ECS     every query names another client network, 120,000 of them
  knot           the same two; it chooses by country (module geoip, mode geodb): it knows no distance
  pdns           the same two; by country as well (backend geoip)
  unsigned       ours with a signed zone beside ours without, both asked for proofs (DO)

Behind them: ordinary queries for proofs while another program asks for names that are not there as
fast as it gets answers, each of which would have to be signed.

All have the same generated database (1.5 million networks, see geo/src/generated.rs) and eight
regions. gdnsd and we choose by distance; gdnsd's lists of data centres are as long as ours.

Answers are counted that are good: whole, without an error, with a record. The load never sleeps.

Ours limits the response rate and the peers do not. The limit works here as everywhere, but is set as
high as it goes, and queries come from 16 networks, so that none reaches it.
"""

import json
import pathlib
import re
import socket
import struct
import subprocess

import process
from process import Child, NotReady, check, fail, free_port
from report import Suite, say

ZONE = "complete.example.com"
REGIONS = [("us-west", 37.4, -122.1), ("us-east", 39.0, -77.5), ("sa-east", -23.5, -46.6), ("eu-west", 53.3, -6.3),
           ("eu-central", 50.1, 8.7), ("ap-south", 19.1, 72.9), ("ap-northeast", 35.7, 139.7), ("ap-southeast", -33.9, 151.2)]
GOALS = {"gdnsd": 1.1, "knot": 0.9, "unsigned": 2.0}
MODES = ("plain", "ECS")
# Queries on their way, of each of 16 sockets.
IN_FLIGHT = 8
GRACE_S = 60


def addresses(index):
    return f"192.0.2.{index + 1}", f"2001:db8::{index + 1}"


class Server:
    """A server of names that can be asked."""

    def __init__(self, name, command, port, folder, **options):
        self.name, self.port = name, port
        self.child = Child(name, command, process.SERVER_CORE, folder / f"{name}.log", **options)

    def __enter__(self):
        query = struct.pack(">6H", 7, 0, 1, 0, 0, 0)
        query += b"".join(bytes([len(label)]) + label.encode() for label in ZONE.split(".")) + b"\0\0\1\0\1"

        def answers():
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asker:
                asker.settimeout(0.2)
                asker.connect(("127.0.0.1", self.port))
                asker.send(query)
                return asker.recv(512)[7] > 0

        self.child.wait_until(answers)
        return self

    def __exit__(self, *_):
        self.child.stop()

    def cpu_ns(self):
        """Of all its threads, none of which ends; finer than the system's ticks."""
        tasks = pathlib.Path(f"/proc/{self.child.process.pid}/task").glob("*/schedstat")
        return sum(int(task.read_text().split()[0]) for task in tasks)


def ours(binary, folder, port, key=None):
    config = folder / f"dns-{port}.yaml"
    signed = {"dnssec": {"keys": [str(key)]}} if key else {}
    config.write_text(json.dumps({
        "regions": [{"name": name, "location": [north, east], "addresses": addresses(index)}
                    for index, (name, north, east) in enumerate(REGIONS)],
        "dns": {"listen": [f"127.0.0.1:{port}"], "admin": {"listen": "127.0.0.1:0"}, "zone": ZONE,
                "name_servers": ["ns1.example.com"], "alike_km": 0, "mmdb": str(folder / "places.mmdb"),
                "rate_limit": {"answers": 65536, "nothing": 65536}, **signed},
    }))
    return Server("nearhop", [binary, "dns", "-c", str(config)], port, folder)


def gdnsd(binary, folder, port):
    home = folder / "gdnsd"
    (home / "zones").mkdir(parents=True)
    names = ", ".join(name for name, _, _ in REGIONS)
    places = ", ".join(f"{name} => [{north}, {east}]" for name, north, east in REGIONS)
    dcmap = ", ".join("%s => { addrs_v4 => [%s], addrs_v6 => [%s] }" % (name, *addresses(index))
                      for index, (name, _, _) in enumerate(REGIONS))
    (home / "config").write_text(f"""
options => {{ listen => 127.0.0.1:{port}, run_dir => {home}/run, state_dir => {home}/state, udp_threads => 1, tcp_threads => 1 }}
plugins => {{ geoip => {{
  maps => {{ near => {{ geoip2_db => {folder}/places.mmdb, datacenters => [{names}], auto_dc_coords => {{ {places} }}, auto_dc_limit => {len(REGIONS)} }} }},
  resources => {{ service => {{ map => near, service_types => up, dcmap => {{ {dcmap} }} }} }}
}} }}
""")
    (home / "zones" / ZONE).write_text("@ SOA ns1.example.com. hostmaster.example.com. 1 7200 1800 259200 30\n"
                                       "@ NS ns1.example.com.\n@ 30 DYNA geoip!service\n")
    return Server("gdnsd", [binary, "-c", str(home), "start"], port, folder)


def countries():
    """All that the generated database knows."""
    lines = pathlib.Path("/usr/share/tor/geoip").read_text().splitlines()
    return sorted({line.rsplit(",", 1)[-1] for line in lines if not line.startswith("#")} - {"??"})


def knot(binary, folder, port):
    home = folder / "knot"
    home.mkdir()
    entries = []
    for at, country in enumerate(countries()):
        v4, v6 = addresses(at % len(REGIONS))
        entries.append(f'  - geo: "{country}"\n    A: {v4}\n    AAAA: {v6}\n')
    (home / "geo.conf").write_text(f"{ZONE}.:\n" + "".join(entries))
    (home / "zone").write_text(f"$ORIGIN {ZONE}.\n$TTL 30\n@ SOA ns1.example.com. hostmaster.example.com. 1 7200 1800 259200 30\n"
                               "@ NS ns1.example.com.\n@ A 192.0.2.1\n@ AAAA 2001:db8::1\n")
    (home / "knot.conf").write_text(f"""
server:
    listen: 127.0.0.1@{port}
    rundir: {home}
    udp-workers: 1
    tcp-workers: 1
    background-workers: 1
    edns-client-subnet: on
log:
  - target: stderr
    any: warning
database:
    storage: {home}
mod-geoip:
  - id: near
    config-file: {home}/geo.conf
    ttl: 30
    mode: geodb
    geodb-file: {folder}/places.mmdb
    geodb-key: country/iso_code
zone:
  - domain: {ZONE}
    file: {home}/zone
    storage: {home}
    zonefile-load: whole
    module: mod-geoip/near
""")
    return Server("knot", [binary, "-c", str(home / "knot.conf")], port, folder)


def powerdns(binary, folder, port):
    home = folder / "pdns"
    home.mkdir()
    names = [f"{country}.by" for country in countries()]
    records = {}
    for at, name in enumerate(names):
        v4, v6 = addresses(at % len(REGIONS))
        records[f"{name}.{ZONE}"] = [{"a": v4}, {"aaaa": v6}]
    v4, v6 = addresses(0)
    records[f"unknown.by.{ZONE}"] = [{"a": v4}, {"aaaa": v6}]
    zones = {"domains": [{
        "domain": ZONE, "ttl": 30, "records": records,
        # %cc is the country's two letters.
        "services": {ZONE: [f"%cc.by.{ZONE}", f"unknown.by.{ZONE}"]},
    }]}
    records[ZONE] = [{"soa": "ns1.example.com hostmaster.example.com 1 7200 1800 259200 30"}, {"ns": "ns1.example.com"}]
    (home / "zones.yaml").write_text(json.dumps(zones))
    (home / "pdns.conf").write_text(f"""
launch=geoip
geoip-database-files=mmdb:{folder}/places.mmdb
geoip-zones-file={home}/zones.yaml
edns-subnet-processing=yes
local-address=127.0.0.1
local-port={port}
receiver-threads=1
distributor-threads=1
signing-threads=1
socket-dir={home}
daemon=no
guardian=no
loglevel=3
""")
    return Server("pdns", [binary, f"--config-dir={home}"], port, folder)


PEERS = {"gdnsd": ("gdnsd", gdnsd, ("gdnsd", "-V")), "knot": ("knotd", knot, ("knotd", "-V")),
         "pdns": ("pdns_server", powerdns, ("pdns_server", "--version"))}


def version(program, flag):
    said = subprocess.run([process.program(program), flag], capture_output=True, text=True, check=False, timeout=10)
    found = re.search(r"\d+\.\d+\.\d+", said.stdout + said.stderr)
    return found.group() if found else "unknown"


class Run:
    def __init__(self, arguments, folder):
        self.arguments, self.folder = arguments, folder
        self.suite = Suite("dns", arguments)
        self.load = f"{arguments.examples}/dns_load"
        check(process.program(self.load), f"{self.load} is not there: `cargo build --release -p nearhop-geo --example dns_load`")

    def asking(self, server, what):
        return ["taskset", "-c", process.LOAD_CORE, self.load, "ask", f"127.0.0.1:{server.port}", ZONE + ".", str(self.arguments.seconds),
                str(IN_FLIGHT), what]

    def one(self, server, mode):
        """Microseconds of CPU for a good answer, and how many queries were lost."""
        command = self.asking(server, str(self.folder / "networks") if mode == "ECS" else mode)
        before = server.cpu_ns()
        out = subprocess.run(command, capture_output=True, text=True, check=True, timeout=self.arguments.seconds + GRACE_S).stdout
        said = json.loads(out)
        check(said["good"] and not said["bad"], f"{server.name}, {mode}: bad answers under load: {out}")
        check(mode != "ECS" or said["regions"] == len(REGIONS),
              f"{server.name} answers with {said['regions']} of {len(REGIONS)} regions: it does not look at the client's network")
        return (server.cpu_ns() - before) / said["good"] / 1000, said["lost"], said["good"] / said["seconds"]

    def compare(self, row, name, we, peer, mode):
        costs, lost, rates = ([], []), [0, 0], ([], [])
        for pair in range(self.arguments.pairs + 1):
            for side in ((0, 1) if pair % 2 else (1, 0)):
                cost, gone, rate = self.one((we, peer)[side], mode)
                lost[side] += gone
                # The first pair warms up.
                if pair:
                    costs[side].append(cost)
                    rates[side].append(rate)
        self.suite.compare(row, name, "µs CPU", *costs, goal=GOALS.get(name), lost=lost, answers_per_second=[round(max(rate)) for rate in rates])

    def flood(self, server):
        """Ordinary queries alone, and beside queries for names that are not there."""
        def ask(what):
            return subprocess.Popen(self.asking(server, what), stdout=subprocess.PIPE, text=True)

        def said(asking):
            return json.loads(asking.communicate(timeout=self.arguments.seconds + GRACE_S)[0])

        alone = said(ask("signed"))
        flooding, asked = ask("nowhere"), ask("signed")
        beside, flooded = said(asked), said(flooding)
        # The two loads share a core.
        for row, value in (("signed answers, alone", alone["good"] / alone["seconds"]),
                           ("signed answers, in a flood of denials", beside["good"] / beside["seconds"]),
                           ("  denials meanwhile", (flooded["good"] + flooded["bad"]) / flooded["seconds"])):
            self.suite.observe(row, "nearhop", round(value), "a second")
        for row, count in (("  ordinary answers lost meanwhile", beside["lost"]), ("  ordinary answers wrong meanwhile", beside["bad"])):
            self.suite.observe(row, "nearhop", count, kept=count == 0)


def run(arguments, folder):
    this = Run(arguments, folder)
    made = subprocess.run([this.load, "prepare", str(folder)], capture_output=True, text=True, check=False, timeout=300)
    check(made.returncode == 0, f"the database could not be made: {made.stderr.strip()}")
    made = json.loads(made.stdout)
    say(f"{made['networks']:,} networks, {made['asked']:,} client networks asked")
    try:
        with ours(arguments.binary, folder, free_port(socket.SOCK_DGRAM)) as we:
            for name, (program, start, asked) in PEERS.items():
                if arguments.peers and name not in arguments.peers:
                    this.suite.skip(name, "not asked for")
                    continue
                if not process.program(program):
                    this.suite.skip(name, "not installed: scripts/peers.sh")
                    continue
                this.suite.peer(name, version(*asked))
                try:
                    with start(process.program(program), folder, free_port(socket.SOCK_DGRAM)) as peer:
                        for mode in MODES:
                            this.compare(mode, name, we, peer, mode)
                except NotReady as why:
                    this.suite.skip(name, f"it does not start: {why}")
            key = folder / "zone.key"
            subprocess.run([arguments.binary, "dns", "keys", "generate", "--zone", ZONE, "--out", str(key)], check=True, stdout=subprocess.DEVNULL,
                           timeout=60)
            with ours(arguments.binary, folder, free_port(socket.SOCK_DGRAM), key) as signed:
                this.compare("signed zone", "unsigned", signed, we, "signed")
                this.flood(signed)
    except NotReady as why:
        fail(why)
    return this.suite.result
