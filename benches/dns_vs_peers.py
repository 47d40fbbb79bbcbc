#!/usr/bin/env python3
"""CPU per answered query of the DNS server beside gdnsd and knot, in one run.

Rows, each ours against one peer:

  gdnsd, plain   no EDNS: by the resolver's own address
  gdnsd, ECS     every query names another client network, 120,000 of them
  knot, plain    the same two; knot chooses by country (module geoip, mode geodb): it knows no distance
  knot, ECS
  unsigned       ours with a signed zone beside ours without, both asked for proofs (DO)

Behind them: ordinary queries for proofs while another program asks for names that are not there as
fast as it gets answers, each of which would have to be signed.

All have the same generated database (1.5 million networks, see geo/src/generated.rs) and eight
regions. gdnsd and we choose by distance; gdnsd's lists of data centres are as long as ours.

What is compared is CPU time (all threads of a server, from schedstat) divided by good answers: whole,
without an error, with a record. Servers run on core 0, each with one thread for UDP, the load
on core 1, where it never sleeps; ours and the peer take turns, and who is first changes. Given are
the median of the pairs' ratios and its 95 % interval (percentile bootstrap).

Ours limits the response rate and the peers do not. The limit works here as everywhere, but is set as
high as it goes, and queries come from 16 networks, so that none reaches it.
"""

import argparse
import contextlib
import json
import os
import pathlib
import random
import shutil
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import time

ZONE = "complete.example.com"
REGIONS = [("us-west", 37.4, -122.1), ("us-east", 39.0, -77.5), ("sa-east", -23.5, -46.6), ("eu-west", 53.3, -6.3),
           ("eu-central", 50.1, 8.7), ("ap-south", 19.1, 72.9), ("ap-northeast", 35.7, 139.7), ("ap-southeast", -33.9, 151.2)]
GOALS = {"gdnsd": 1.1, "knot": 0.9, "unsigned": 2.0}
MODES = ("plain", "ECS")
SERVER_CORE, LOAD_CORE = "0", "1"
START_DEADLINE_S = 120


def addresses(index):
    return f"192.0.2.{index + 1}", f"2001:db8::{index + 1}"


def free_port():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def program(name):
    found = shutil.which(name) or next((path for path in (f"/usr/sbin/{name}", f"/usr/local/sbin/{name}") if os.path.exists(path)), None)
    if not found:
        print(f"\n*** SKIPPED: {name} is not here, NOT compared with it ***\n", file=sys.stderr)
    return found


class Server:
    """A child process, pinned, ended with the run."""

    def __init__(self, name, command, port, folder):
        self.name, self.port, self.log = name, port, folder / f"{name}.log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(["taskset", "-c", SERVER_CORE, *command], stdout=log, stderr=log)

    def cpu_ns(self):
        tasks = pathlib.Path(f"/proc/{self.process.pid}/task").glob("*/schedstat")
        return sum(int(task.read_text().split()[0]) for task in tasks)

    def wait(self):
        deadline = time.monotonic() + START_DEADLINE_S
        query = struct.pack(">6H", 7, 0, 1, 0, 0, 0)
        query += b"".join(bytes([len(label)]) + label.encode() for label in ZONE.split(".")) + b"\0\0\1\0\1"
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asker:
            asker.settimeout(0.2)
            asker.connect(("127.0.0.1", self.port))
            while time.monotonic() < deadline and self.process.poll() is None:
                # Refused until it listens.
                with contextlib.suppress(OSError):
                    asker.send(query)
                    if asker.recv(512)[7] > 0:
                        return
                time.sleep(0.05)
        sys.exit(f"bench: {self.name} does not answer:\n{self.log.read_text(errors='replace')[-2000:]}")

    def stop(self):
        self.process.terminate()
        try:
            self.process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


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


def knot(binary, folder, port):
    home = folder / "knot"
    home.mkdir()
    countries = set()
    for line in pathlib.Path("/usr/share/tor/geoip").read_text().splitlines():
        countries.add(line.rsplit(",", 1)[-1] if not line.startswith("#") else "??")
    entries = []
    for at, country in enumerate(sorted(countries - {"??"})):
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


def asking(arguments, server, what):
    return ["taskset", "-c", LOAD_CORE, arguments.load, "ask", f"127.0.0.1:{server.port}", ZONE + ".",
            str(arguments.seconds), str(arguments.in_flight), what]


def flood(arguments, server):
    """Ordinary queries alone, and beside queries for names that are not there."""
    def ask(what):
        return subprocess.Popen(asking(arguments, server, what), stdout=subprocess.PIPE, text=True)

    def said(process):
        return json.loads(process.communicate(timeout=arguments.seconds + 60)[0])

    alone = said(ask("signed"))
    flooding, asked = ask("nowhere"), ask("signed")
    beside, flooded = said(asked), said(flooding)
    answers = beside["good"] + beside["bad"] + flooded["good"] + flooded["bad"]
    print(f"\nnames that are not there: {(flooded['good'] + flooded['bad']) / flooded['seconds']:,.0f} answers/s to them; beside them "
          f"{beside['good'] / beside['seconds']:,.0f} ordinary answers/s, {beside['lost']} lost, {beside['bad']} bad "
          f"(alone {alone['good'] / alone['seconds']:,.0f}/s: the load shares a core); {answers:,} in all")


def load(arguments, server, mode, folder):
    command = asking(arguments, server, str(folder / "networks") if mode == "ECS" else mode)
    before = server.cpu_ns()
    out = subprocess.run(command, capture_output=True, text=True, check=True, timeout=arguments.seconds + 60).stdout
    said = json.loads(out)
    if said["bad"] or not said["good"]:
        sys.exit(f"bench: {server.name}, {mode}: bad answers under load: {out}")
    if mode == "ECS" and said["regions"] != len(REGIONS):
        sys.exit(f"bench: {server.name} answers with {said['regions']} of {len(REGIONS)} regions: it does not look at the client's network")
    return (server.cpu_ns() - before) / said["good"] / 1000, said["good"] / said["seconds"], said["lost"]


def interval(ratios, resamples=10_000):
    """The 95 % interval of the median, by resampling the pairs."""
    draw = random.Random(7)
    medians = sorted(statistics.median(draw.choices(ratios, k=len(ratios))) for _ in range(resamples))
    return medians[int(0.025 * resamples)], medians[int(0.975 * resamples) - 1]


def compare(arguments, we, peer, mode, folder):
    costs, lost = ([], []), [0, 0]
    rates = ([], [])
    for pair in range(arguments.pairs + 1):
        order = (0, 1) if pair % 2 else (1, 0)
        for side in order:
            cost, rate, gone = load(arguments, (we, peer)[side], mode, folder)
            lost[side] += gone
            # The first pair warms up.
            if pair:
                costs[side].append(cost)
                rates[side].append(rate)
    ratios = [us / them for us, them in zip(*costs)]
    low, high = interval(ratios)
    return {"ours_us": statistics.median(costs[0]), "peer_us": statistics.median(costs[1]), "ratio": statistics.median(ratios),
            "low": low, "high": high, "ours_qps": statistics.median(rates[0]), "peer_qps": statistics.median(rates[1]),
            "lost": lost, "ratios": ratios}


def run(arguments, folder):
    made = subprocess.run([arguments.load, "prepare", str(folder)], capture_output=True, text=True, check=False)
    if made.returncode:
        sys.exit(f"bench: the database could not be made: {made.stderr.strip()}")
    made = json.loads(made.stdout)
    print(f"{made['networks']:,} networks, {made['asked']:,} client networks asked, {arguments.pairs} pairs of {arguments.seconds:g} s")
    found = {name: program(binary) for name, binary in (("gdnsd", "gdnsd"), ("knot", "knotd"))}
    start = {"gdnsd": gdnsd, "knot": knot}
    summary = {}
    print(f"{'':14} {'ours µs':>9} {'peer µs':>9} {'ratio':>7}  {'95 %':14} goal       lost (ours, peer)   answers/s (ours, peer)")
    with contextlib.ExitStack() as ends:
        we = ours(arguments.binary, folder, free_port())
        ends.callback(we.stop)
        we.wait()
        for name, binary in found.items():
            if not binary:
                continue
            peer = start[name](binary, folder, free_port())
            try:
                peer.wait()
                for mode in MODES:
                    row = compare(arguments, we, peer, mode, folder)
                    show(summary, f"{name}, {mode}", row, GOALS[name])
            finally:
                peer.stop()
        key = folder / "zone.key"
        subprocess.run([arguments.binary, "dns", "keys", "generate", "--zone", ZONE, "--out", str(key)], check=True, stdout=subprocess.DEVNULL)
        signed = ours(arguments.binary, folder, free_port(), key)
        ends.callback(signed.stop)
        signed.wait()
        show(summary, "unsigned", compare(arguments, signed, we, "signed", folder), GOALS["unsigned"])
        flood(arguments, signed)
    return summary


def show(summary, name, row, goal):
    # The whole interval must be below it.
    met = "met" if row["high"] <= goal else "missed"
    summary[name] = {**row, "goal": goal}
    print(f"{name:14} {row['ours_us']:9.2f} {row['peer_us']:9.2f} {row['ratio']:7.3f}  "
          f"{row['low']:.3f} to {row['high']:.3f} {goal} {met:7} {row['lost']}   "
          f"{row['ours_qps']:,.0f} {row['peer_qps']:,.0f}", flush=True)


def main():
    parser = argparse.ArgumentParser(description="CPU per answered query beside gdnsd and knot")
    parser.add_argument("--binary", default=os.environ.get("NEARHOP_BIN", "target/release/nearhop"))
    parser.add_argument("--load", default="target/release/examples/dns_load")
    parser.add_argument("--pairs", type=int, default=12)
    parser.add_argument("--seconds", type=float, default=2)
    parser.add_argument("--in-flight", type=int, default=8, help="queries on their way, of each of 16 sockets")
    parser.add_argument("--json", metavar="FILE")
    arguments = parser.parse_args()
    for path in (arguments.binary, arguments.load):
        if not pathlib.Path(path).is_file():
            sys.exit(f"bench: {path} is not there; run `make bench`, or `cargo build --release` and "
                     "`cargo build --release -p nearhop-geo --example dns_load`")
    with tempfile.TemporaryDirectory(prefix="nearhop-bench-") as folder:
        summary = run(arguments, pathlib.Path(folder))
    if arguments.json:
        pathlib.Path(arguments.json).write_text(json.dumps(summary, indent=1))


if __name__ == "__main__":
    main()
