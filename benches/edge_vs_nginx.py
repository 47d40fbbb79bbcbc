#!/usr/bin/env python3
"""CPU per request of the edge beside nginx, in one run.

Five rows, each the edge against nginx doing the nearest thing it can:

  L1 hit             a stored answer as JSON      nginx: proxy_cache of a POST, keyed by its body
  L1 hit, streamed   the same as an event stream  nginx: the same
  L1 hit, typed into the rest of a stored answer  nginx: the same
  miss, streamed     a pod's stream passed on     nginx: proxy_pass of the same upstream
  miss, assembled    the stream as one JSON body  nginx: the same proxy_pass

What is compared is CPU time (user and system, all processes of a server) divided by requests:
wall-clock figures on a shared machine say more of its neighbours than of us. Servers run on core 0, load
and upstream on core 1, rounds are interleaved, medians are taken, and only ratios mean anything.
"""

import argparse
import contextlib
import hmac
import http.client
import json
import os
import pathlib
import re
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time

KEY = "nh-bench"
KEY_SECRET = "a-secret-of-this-bench"
TEXT = "return total / len(values)"
TYPED = "return "  # what the user has typed of TEXT in the row of type-ahead
GOALS = {"L1 hit": 0.6, "L1 hit, streamed": 0.6, "L1 hit, typed into": 0.6, "miss, streamed": 2.5, "miss, assembled": 2.5}
TICK = os.sysconf("SC_CLK_TCK")
SERVER_CORE, LOAD_CORE = "0", "1"
START_DEADLINE_S = 20


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def answer_json():
    """What a pod's whole answer looks like."""
    return json.dumps({
        "id": "cmpl-5f0c7d1f2a9b4e3c8d7e6f5a4b3c2d1e", "object": "text_completion", "created": 1795000000,
        "model": "bench", "system_fingerprint": "bench@1",
        "choices": [{"index": 0, "text": TEXT, "logprobs": None, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 700, "completion_tokens": 9, "total_tokens": 709,
                  "prompt_tokens_details": {"cached_tokens": 0, "truncated_tokens": 0}},
    }, separators=(",", ":"))


def answer_stream():
    """The same as our pods stream it: one piece, the usage, the terminator."""
    base = {"id": "cmpl-5f0c7d1f2a9b4e3c8d7e6f5a4b3c2d1e", "object": "text_completion",
            "created": 1795000000, "model": "bench", "system_fingerprint": "bench@1"}
    piece = {**base, "choices": [{"index": 0, "text": TEXT, "logprobs": None, "finish_reason": "stop",
                                  "token_ids": [11, 245, 1021, 9, 87, 33, 5, 77, 2]}]}
    usage = {**base, "choices": [], "usage": {"prompt_tokens": 700, "completion_tokens": 9, "total_tokens": 709}}
    events = [json.dumps(event, separators=(",", ":")) for event in (piece, usage)]
    return "".join(f"data: {event}\n\n" for event in [*events, "[DONE]"])


def request_body(stream, typed=""):
    """About 2.6 kB, as an editor's fill-in-the-middle request is."""
    prefix = "".join(f"def helper_{n}(values):\n    return sum(values) / {n + 1}\n\n" for n in range(40))
    body = {"model": "bench", "prompt": prefix[:2000] + typed, "suffix": "\n\nif __name__ == '__main__':\n    main()\n" * 12,
            "max_tokens": 64, "temperature": 0, "stop": ["\n\n"], "stream": stream}
    return json.dumps(body)


class Server:
    """A child process, pinned, ended with the run."""

    def __init__(self, name, command, core, **options):
        self.name = name
        self.process = subprocess.Popen(["taskset", "-c", core, *command], **options)

    def pids(self):
        found, todo = [], [self.process.pid]
        while todo:
            pid = todo.pop()
            found.append(pid)
            for task in pathlib.Path(f"/proc/{pid}/task").glob("*/children"):
                todo.extend(int(child) for child in task.read_text().split())
        return found

    def cpu_seconds(self):
        ticks = 0
        for pid in self.pids():
            fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
            ticks += int(fields[11]) + int(fields[12])
        return ticks / TICK

    def stop(self):
        self.process.terminate()
        try:
            self.process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(timeout=5)


def wait_for(what, ready):
    deadline = time.monotonic() + START_DEADLINE_S
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError, http.client.HTTPException):
            if ready():
                return
        time.sleep(0.05)
    sys.exit(f"bench: {what} is not ready after {START_DEADLINE_S} s")


def ask(port, path, body, headers, method="POST"):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request(method, path, body, headers)
    answer = connection.getresponse()
    data = answer.read()
    connection.close()
    return answer.status, {name.lower(): value for name, value in answer.getheaders()}, data


def nginx(folder, name, core, http_block):
    folder = folder / name
    folder.mkdir()
    temp = "\n".join(f"{kind}_temp_path {folder}/{kind};"
                     for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
    config = folder / "nginx.conf"
    config.write_text(
        # The folder is ours alone: a worker that gives root up could not reach its own cache.
        f"{'user root; ' if os.geteuid() == 0 else ''}worker_processes 1; daemon off; pid {folder}/pid; error_log {folder}/error.log warn;\n"
        "events { worker_connections 4096; }\n"
        "http { access_log off; tcp_nodelay on; keepalive_requests 1000000000; keepalive_timeout 600s;\n"
        f"{temp}\n{http_block}\n}}\n")
    binary = shutil.which("nginx") or "/usr/sbin/nginx"
    return Server(name, [binary, "-p", str(folder), "-e", str(folder / "error.log"), "-c", str(config)], core)


def upstream_block(port):
    report = json.dumps({"models": [{"name": "bench", "revision": "1", "template": "t", "temperature": 0.0,
                                     "max_tokens": 64, "context_length": 1024}]})
    quote = lambda text: "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
    return f"""server {{
      listen 127.0.0.1:{port};
      location = /readyz {{ default_type application/json; return 200 {quote(report)}; }}
      location = /v1/completions {{ default_type text/event-stream; return 200 {quote(answer_stream())}; }}
      location = /json {{ default_type application/json; return 200 {quote(answer_json())}; }}
    }}"""


def peer_block(folder, port, upstream):
    return f"""
    proxy_cache_path {folder}/cache levels=1:2 keys_zone=answers:16m max_size=256m inactive=1h;
    upstream pod {{ server 127.0.0.1:{upstream}; keepalive 256; }}
    server {{
      listen 127.0.0.1:{port};
      client_body_buffer_size 64k;
      proxy_http_version 1.1; proxy_set_header Connection "";
      location = /hit {{
        proxy_pass http://pod/json;
        proxy_cache answers; proxy_cache_methods POST; proxy_cache_key "$request_uri|$request_body";
        proxy_cache_valid 200 1h;
        add_header X-Cache-Status $upstream_cache_status;
      }}
      location = /v1/completions {{ proxy_pass http://pod; }}
    }}"""


def edge_config(path, listen, admin, upstream):
    path.write_text(json.dumps({
        "region": "bench",
        # As nginx's, which is off as well.
        "log": {"access": False},
        "access": {
            "key_secret": KEY_SECRET,
            "keys": [{"name": "bench", "tenant": "bench", "hmac_sha256": hmac.digest(KEY_SECRET.encode(), KEY.encode(), "sha256").hex()}],
        },
        "edge": {"listen": f"127.0.0.1:{listen}", "admin": {"listen": f"127.0.0.1:{admin}"}, "threads": 1,
                 "pods": [{"name": "pod", "address": f"127.0.0.1:{upstream}"}]},
    }))


def text_of(body):
    """An answer's text, whole or streamed."""
    if not body.startswith(b"data:"):
        return json.loads(body)["choices"][0]["text"]
    events = [line[6:] for line in body.decode().splitlines() if line.startswith("data: {")]
    return "".join(choice["text"] for event in events for choice in json.loads(event)["choices"])


def check(condition, what):
    if not condition:
        sys.exit(f"bench: {what}")


def check_contract(port, headers, stream, source, typed=""):
    status, got, body = ask(port, "/v1/completions", request_body(stream, typed), headers)
    check(status == 200, f"the edge answers {status}: {body[:200]}")
    for name in ("x-request-id", "x-nearhop-region", "cache-status", "server-timing"):
        check(got.get(name), f"the edge's answer has no {name}")
    check(got.get("x-nearhop-source") == source, f"source {got.get('x-nearhop-source')}, expected {source}")
    check(text_of(body) == TEXT.removeprefix(typed), f"the edge's text is {text_of(body)!r}")


def load(folder, port, path, body, headers, arguments):
    """Requests answered and requests a second; fails on any bad answer."""
    script = folder / "post.lua"
    lines = [f"wrk.headers[{json.dumps(name)}] = {json.dumps(value)}" for name, value in headers.items()]
    body_file = folder / "body.json"
    body_file.write_text(body)
    script.write_text("wrk.method = \"POST\"\nlocal file = io.open(%s)\nwrk.body = file:read(\"*a\")\n%s\n"
                      % (json.dumps(str(body_file)), "\n".join(lines)))
    out = subprocess.run(
        ["taskset", "-c", LOAD_CORE, "wrk", "-t1", f"-c{arguments.connections}", f"-d{arguments.seconds}s",
         "--timeout", "10s", "-s", str(script), f"http://127.0.0.1:{port}{path}"],
        capture_output=True, text=True, timeout=arguments.seconds + 30, check=True).stdout
    check("Non-2xx" not in out and "Socket errors" not in out, f"bad answers under load:\n{out}")
    return int(re.search(r"(\d+) requests in", out).group(1)), float(re.search(r"Requests/sec:\s+([\d.]+)", out).group(1))


def measure(server, *load_arguments):
    before = server.cpu_seconds()
    requests, rate = load(*load_arguments)
    return (server.cpu_seconds() - before) / requests * 1e6, rate


def run(arguments, folder):
    upstream_port, peer_port, edge_port, admin_port = (free_port() for _ in range(4))
    servers = []
    try:
        upstream = nginx(folder, "upstream", LOAD_CORE, upstream_block(upstream_port))
        servers.append(upstream)
        peer = nginx(folder, "peer", SERVER_CORE, peer_block(folder, peer_port, upstream_port))
        servers.append(peer)
        edge_config(folder / "edge.yaml", edge_port, admin_port, upstream_port)
        edge = Server("edge", [arguments.binary, "edge", "-c", str(folder / "edge.yaml")], SERVER_CORE,
                      stderr=subprocess.DEVNULL)
        servers.append(edge)
        wait_for("the upstream", lambda: ask(upstream_port, "/readyz", None, {}, "GET")[0] == 200)
        wait_for("nginx", lambda: ask(peer_port, "/v1/completions", "{}", {})[0] == 200)
        wait_for("the edge", lambda: ask(admin_port, "/readyz", None, {}, "GET")[0] == 200)
        return rows(arguments, folder, peer, peer_port, edge, edge_port)
    finally:
        for server in servers:
            server.stop()


def rows(arguments, folder, peer, peer_port, edge, edge_port):
    plain = {"content-type": "application/json", "authorization": f"Bearer {KEY}"}
    fresh = {**plain, "cache-control": "no-store"}
    ask(edge_port, "/v1/completions", request_body(False), plain)
    check_contract(edge_port, plain, False, "l1")
    check_contract(edge_port, plain, True, "l1")
    check_contract(edge_port, plain, False, "l1-typeahead", TYPED)
    check_contract(edge_port, fresh, False, "origin")
    check_contract(edge_port, fresh, True, "origin")
    ask(peer_port, "/hit", request_body(False), plain)
    status, got, body = ask(peer_port, "/hit", request_body(False), plain)
    check((status, got.get("x-cache-status")) == (200, "HIT"), f"nginx does not hit: {status} {got}")
    check(text_of(body) == TEXT, "nginx's text differs")
    status, _, body = ask(peer_port, "/v1/completions", request_body(True), plain)
    check(status == 200 and text_of(body) == TEXT, "nginx does not pass the stream on")

    hit = (peer, folder, peer_port, "/hit", request_body(False), plain, arguments)
    miss = (peer, folder, peer_port, "/v1/completions", request_body(True), plain, arguments)

    def ours(stream, headers, typed=""):
        return (edge, folder, edge_port, "/v1/completions", request_body(stream, typed), headers, arguments)

    pairs = {
        "L1 hit": (ours(False, plain), hit),
        "L1 hit, streamed": (ours(True, plain), hit),
        "L1 hit, typed into": (ours(False, plain, TYPED), hit),
        "miss, streamed": (ours(True, fresh), miss),
        "miss, assembled": (ours(False, fresh), miss),
    }
    results = {name: ([], []) for name in pairs}
    for round_number in range(arguments.rounds + 1):
        for name, pair in pairs.items():
            measured = [measure(*side) for side in pair]
            # The first round warms caches, pools and the allocator.
            if round_number > 0:
                for side, figures in zip(results[name], measured):
                    side.append(figures)
        print(f"round {round_number} of {arguments.rounds} (0 is not counted)", file=sys.stderr)
    return results


def report(results, arguments):
    version = subprocess.run([shutil.which("nginx") or "/usr/sbin/nginx", "-v"], capture_output=True, text=True, check=True)
    print(f"\n{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, {version.stderr.strip()}, "
          f"{arguments.rounds} rounds of {arguments.seconds} s, {arguments.connections} connections\n")
    print(f"{'':18} {'edge µs CPU':>12} {'nginx µs CPU':>13} {'edge req/s':>11} {'nginx req/s':>12}   ratio (rounds)")
    summary = {}
    for name, (ours, theirs) in results.items():
        cpu = [statistics.median(figure[0] for figure in side) for side in (ours, theirs)]
        rate = [statistics.median(figure[1] for figure in side) for side in (ours, theirs)]
        ratios = sorted(a[0] / b[0] for a, b in zip(ours, theirs))
        ratio = cpu[0] / cpu[1]
        verdict = "met" if ratio <= GOALS[name] else "missed"
        print(f"{name:18} {cpu[0]:12.1f} {cpu[1]:13.1f} {rate[0]:11.0f} {rate[1]:12.0f}   "
              f"{ratio:.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f}), goal {GOALS[name]}: {verdict}")
        summary[name] = {"edge_cpu_us": cpu[0], "nginx_cpu_us": cpu[1], "ratio": ratio, "goal": GOALS[name],
                         "edge_rps": rate[0], "nginx_rps": rate[1], "round_ratios": ratios}
    if arguments.json:
        pathlib.Path(arguments.json).write_text(json.dumps(summary, indent=1))


def main():
    parser = argparse.ArgumentParser(description="CPU per request of the edge beside nginx")
    parser.add_argument("--binary", default="target/release/nearhop")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=3)
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--json", metavar="FILE")
    arguments = parser.parse_args()
    if not pathlib.Path(arguments.binary).is_file():
        sys.exit(f"bench: {arguments.binary} is not there; run `cargo build --release`, or `make bench`")
    with tempfile.TemporaryDirectory(prefix="nearhop-bench-") as folder:
        report(run(arguments, pathlib.Path(folder)), arguments)


if __name__ == "__main__":
    main()
