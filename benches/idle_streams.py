#!/usr/bin/env python3
"""What the edge holds in memory for streams that wait.

Clients ask for chat streams, each with its own prompt (of about 2.6 kB; `--prompt` says otherwise), so that
none joins another and each has a connection to the pod. The pod says one piece and then nothing (or with `--silent` nothing at all: the
client hears a comment now and then). When all of them wait, the edge's resident memory is read.

A process needs two descriptors a stream. Where the system allows fewer, fewer streams are opened, and what
10,000 would take is worked out from the memory of each.
"""

import argparse
import asyncio
import contextlib
import hmac
import json
import pathlib
import re
import resource
import subprocess
import sys
import tempfile
import time

from peers import KEY, KEY_SECRET
from process import check, free_port, wait_for
from upstream import ask

GOAL_STREAMS, GOAL_MIB = 10_000, 400
# Beside the streams': listeners, checks, files.
SPARE_DESCRIPTORS = 100
# So many of one address; the others come from the next one of loopback's.
PER_ADDRESS = 1000
# Opened at once: more would overflow the listener's queue.
AT_ONCE = 200
LONG = "30m"


class Pod(asyncio.Protocol):
    """Says that it is ready, and to everything else one piece, or nothing."""

    asked = 0

    def __init__(self, silent, streams):
        self.silent, self.streams, self.got = silent, streams, b""

    def connection_made(self, transport):
        self.transport = transport

    def data_received(self, data):
        self.got += data
        head, found, body = self.got.partition(b"\r\n\r\n")
        length = re.search(rb"content-length: *(\d+)", head, re.IGNORECASE)
        if not found or len(body) < int(length.group(1) if length else 0):
            return
        self.got = b""
        if head.startswith(b"GET /readyz"):
            return self.answer({"models": [{"name": "bench", "revision": "1", "template": "t", "temperature": 0.0,
                                            "max_tokens": 64, "context_length": 8192}], "slots": self.streams})
        if head.startswith(b"GET /asked"):
            return self.answer({"asked": Pod.asked})
        Pod.asked += 1
        if self.silent:
            return None
        piece = json.dumps({"id": "c", "object": "chat.completion.chunk", "created": 1795000000, "model": "bench",
                            "system_fingerprint": "bench@1",
                            "choices": [{"index": 0, "delta": {"role": "assistant", "content": "One piece"},
                                         "finish_reason": None, "token_ids": [11, 7]}]})
        event = f"data: {piece}\n\n"
        self.transport.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
                             + f"{len(event):x}\r\n{event}\r\n".encode())

    def answer(self, said):
        body = json.dumps(said).encode()
        self.transport.write(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%s"
                             % (len(body), body))


async def serve_pod(arguments):
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Pod(arguments.silent, arguments.streams), "127.0.0.1", arguments.serve_pod,
                                      backlog=4096)
    await server.serve_forever()


class Client(asyncio.Protocol):
    """One that asks and listens."""

    def __init__(self, number, prompt):
        self.number, self.prompt, self.got = number, prompt, b""
        self.content = asyncio.get_running_loop().create_future()
        # Where nobody waits for it, its end is that of the run.
        self.content.add_done_callback(lambda content: content.exception())

    def connection_made(self, transport):
        self.transport = transport
        lines = "".join(f"def helper_{n}(values):\n    return sum(values) / {n + 1}\n\n" for n in range(self.prompt // 40))
        text = f"# {self.number}\n{lines}"[:self.prompt]
        body = json.dumps({"model": "bench", "stream": True, "max_tokens": 64, "messages": [{"role": "user", "content": text}]})
        transport.write((f"POST /v1/chat/completions HTTP/1.1\r\nhost: bench\r\nauthorization: Bearer {KEY}\r\n"
                         f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n{body}").encode())

    def data_received(self, data):
        self.got += data
        if b"One piece" in self.got and not self.content.done():
            self.content.set_result(None)

    def connection_lost(self, _):
        if not self.content.done():
            self.content.set_exception(ConnectionError(f"stream {self.number} ended: {self.got[:300]}"))


async def open_streams(arguments, port, pod_port):
    """Opens them all and comes back when each has its piece, or the pod has all requests."""
    loop = asyncio.get_running_loop()
    clients = []
    for first in range(0, arguments.streams, AT_ONCE):
        numbers = range(first, min(first + AT_ONCE, arguments.streams))
        opened = await asyncio.gather(*(
            loop.create_connection(lambda number=number: Client(number, arguments.prompt), "127.0.0.1", port,
                                   local_addr=(f"127.0.1.{1 + number // PER_ADDRESS}", 0))
            for number in numbers))
        clients.extend(client for _, client in opened)
        if not arguments.silent:
            await asyncio.wait_for(asyncio.gather(*(client.content for _, client in opened)), 60)
    deadline = time.monotonic() + 60
    while json.loads(ask(pod_port, "/asked", None, {}, "GET")[2])["asked"] < arguments.streams:
        check(time.monotonic() < deadline, "the pod was not asked for all streams")
        await asyncio.sleep(0.2)
    return clients


def resident_mib(pid):
    return int(re.search(r"VmRSS:\s+(\d+)", pathlib.Path(f"/proc/{pid}/status").read_text()).group(1)) / 1024


def edge_config(path, arguments, listen, admin, pod):
    path.write_text(json.dumps({
        "region": "bench", "log": {"access": False},
        "access": {"key_secret": KEY_SECRET, "keys": [
            {"name": "bench", "tenant": "bench", "hmac_sha256": hmac.digest(KEY_SECRET.encode(), KEY.encode(), "sha256").hex()}]},
        "edge": {
            "listen": f"127.0.0.1:{listen}", "admin": {"listen": f"127.0.0.1:{admin}"}, "threads": 1,
            "limits": {"requests": 4 * arguments.streams, "connections": 4 * arguments.streams},
            "deadlines": {"chat": LONG},
            "upstream": {"first_byte": LONG, "next_token": LONG, "idle_connections": arguments.streams},
            "pods": [{"name": "pod", "address": f"127.0.0.1:{pod}"}],
        },
    }))


async def measure(arguments, folder):
    port, admin_port, pod_port = (free_port() for _ in range(3))
    edge_config(folder / "edge.yaml", arguments, port, admin_port, pod_port)
    own = [sys.executable, __file__, "--serve-pod", str(pod_port), "--streams", str(arguments.streams)]
    processes = [subprocess.Popen(own + ["--silent"] * arguments.silent)]
    try:
        wait_for("the pod", lambda: ask(pod_port, "/readyz", None, {}, "GET")[0] == 200)
        edge = subprocess.Popen([arguments.binary, "edge", "-c", str(folder / "edge.yaml")], stderr=subprocess.DEVNULL)
        processes.append(edge)
        wait_for("the edge", lambda: ask(admin_port, "/readyz", None, {}, "GET")[0] == 200)
        before = resident_mib(edge.pid)
        clients = await open_streams(arguments, port, pod_port)
        figures = []
        for _ in range(2):
            await asyncio.sleep(arguments.wait)
            figures.append(resident_mib(edge.pid))
        broken = [client for client in clients if client.transport.is_closing()]
        check(not broken, f"{len(broken)} streams ended")
        each = (max(figures) - before) / arguments.streams
        all_of_them = before + each * GOAL_STREAMS
        print(f"{arguments.streams} streams, {'nothing' if arguments.silent else 'one piece'} said: resident "
              f"{before:.0f} MiB before, {max(figures):.0f} with them, {each * 1024:.1f} KiB each; "
              f"{GOAL_STREAMS} would be {all_of_them:.0f} MiB, goal {GOAL_MIB}: {'met' if all_of_them <= GOAL_MIB else 'missed'}")
    finally:
        for process in processes:
            process.kill()
            process.wait()


def main():
    parser = argparse.ArgumentParser(description="Memory of the edge for streams that wait")
    parser.add_argument("--binary", default="target/release/nearhop")
    parser.add_argument("--streams", type=int, default=GOAL_STREAMS)
    parser.add_argument("--prompt", type=int, default=2600, help="bytes of each prompt")
    parser.add_argument("--silent", action="store_true", help="the pod says nothing at all")
    parser.add_argument("--wait", type=float, default=6, help="seconds before memory is read, twice")
    parser.add_argument("--serve-pod", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if arguments.serve_pod is not None:
        asyncio.run(serve_pod(arguments))
        return
    room = (resource.getrlimit(resource.RLIMIT_NOFILE)[0] - SPARE_DESCRIPTORS) // 2
    if room < arguments.streams:
        print(f"bench: descriptors for {room} streams only", file=sys.stderr)
        arguments.streams = room
    with tempfile.TemporaryDirectory(prefix="nearhop-bench-") as folder:
        asyncio.run(measure(arguments, pathlib.Path(folder)))


if __name__ == "__main__":
    main()
