"""What gateways do when something goes wrong, each in front of the same scripted upstream.

A client leaves: its upstream must stop. Fifteen requests are refused with 400, which is their own
fault: the next good one must be answered. JSON that is none, an upstream that is down: the error must
be one that clients can read, name no address, and say when to come back. Streams must keep their
pace; HTTP/2 without TLS must work; a request's id must come back.
"""

import contextlib
import http.client
import json
import socket
import statistics
import subprocess
import time

import peers
import process
from load import BadAnswers, good
from process import NotReady, check, fail
from report import Suite
from upstream import Scripted, ask

PATH, CHAT_PATH = "/v1/completions", "/v1/chat/completions"
HEADERS = {"content-type": "application/json", "authorization": f"Bearer {peers.KEY}", "cache-control": "no-store"}
SERVERS = ("nginx", "haproxy", "envoy", "vllm-router", "sglang-router", "litellm")
REFUSALS = 15
EVENTS, PACE_MS = 20, 50
# How long the upstream would go on for nobody, and when that counts as stopped. A small run is a test's, on
# a machine that may be busy with others: longer, so that only one that never stops is not seen to stop.
WORK_S, SMALL_WORK_S, STOPPED_S = 4, 20, 2
LOOK_S = 0.02


class Server:
    """A gateway under test, and the upstream behind it."""

    def __init__(self, name, gateway, upstream, work_s):
        self.name, self.gateway, self.upstream, self.work_s = name, gateway, upstream, work_s
        self.made = 0

    def body(self, act, stream=False, chat=False):
        """A request of its own, and its name."""
        self.made += 1
        name = f"{self.name}-{self.made}"
        line = f"# {name}\nbench {name} {act}"
        where = {"messages": [{"role": "user", "content": line}], "model": "bench-chat"} if chat else {"prompt": line, "model": "bench"}
        return name, json.dumps({**where, "max_tokens": 64, "temperature": 0, "stream": stream})

    def ask(self, body, chat=False, headers=None):
        return ask(self.gateway.port, CHAT_PATH if chat else PATH, body, {**HEADERS, **(headers or {})}, timeout=30)

    def sent(self, body):
        """A connection on which a request was sent."""
        connection = socket.create_connection(("127.0.0.1", self.gateway.port), timeout=15)
        head = "".join(f"{name}: {value}\r\n" for name, value in HEADERS.items())
        connection.sendall(f"POST {PATH} HTTP/1.1\r\nhost: bench\r\n{head}content-length: {len(body)}\r\n\r\n{body}".encode())
        return connection

    def when(self, name, *ends):
        """Waits until the upstream says that one of these came of a request; that, and when."""
        deadline = time.monotonic() + self.work_s + 5
        while time.monotonic() < deadline:
            seen = self.upstream.seen(name)
            for end in ends:
                if end in seen:
                    return end, seen[end]
            time.sleep(LOOK_S)
        return None, None


def client_gone(server, stream):
    """Seconds from the client's leaving to the end at the upstream, or None where it worked to its end."""
    act = f"paced {server.work_s * 20} 50" if stream else f"slow {server.work_s}"
    name, body = server.body(act, stream)
    with server.sent(body) as connection:
        came, _ = server.when(name, "came")
        good(came, f"{server.name}: the request did not come to the upstream")
        if stream:
            read = b""
            while read.count(b"data: ") < 5:
                data = connection.recv(65536)
                good(data, f"{server.name}: the stream ended after {read[-300:]}")
                read += data
        left = time.monotonic()
    end, at = server.when(name, "gone", "done")
    return max(0.0, at - left) if end == "gone" else None


def after_refusals(server):
    """Statuses of what follows, and of the refused."""
    refused = {server.ask(server.body("refuse")[1])[0] for _ in range(REFUSALS)}
    return server.ask(server.body("answer")[1])[0], refused


def is_openai_shaped(body):
    with contextlib.suppress(ValueError, AttributeError, TypeError):
        error = json.loads(body).get("error")
        return isinstance(error, dict) and isinstance(error.get("message"), str) and "type" in error and "code" in error
    return False


def names_upstream(server, body):
    return str(server.upstream.port).encode() in body


def shape(body):
    return "OpenAI's" if is_openai_shaped(body) else "JSON" if body[:1] == b"{" else "text" if body else "empty"


def pace(server):
    """Gaps between events as the client sees them, in milliseconds, and how many events there were."""
    _, body = server.body(f"paced {EVENTS} {PACE_MS}", True)
    times, events, tail = [], 0, b""
    with server.sent(body) as connection, contextlib.suppress(TimeoutError):
        while b"[DONE]" not in tail and (data := connection.recv(65536)):
            pieces = data.count(b'"text":"t') + data.count(b'"text": "t')
            if pieces:
                times.append(time.monotonic())
                events += pieces
            tail = (tail + data)[-200:]
    gaps = [(after - before) * 1000 for before, after in zip(times, times[1:])]
    return (statistics.median(gaps), max(gaps), events) if gaps else (0, 0, events)


def h2c(server):
    """The protocol and status of a request by HTTP/2 with prior knowledge; None without a client for it."""
    if not process.program("curl"):
        return None
    headers = [word for name, value in HEADERS.items() for word in ("-H", f"{name}: {value}")]
    done = subprocess.run(["curl", "-s", "-o", "/dev/null", "--max-time", "10", "--http2-prior-knowledge", "-w", "%{http_version} %{http_code}", *headers,
                           "-d", server.body("answer")[1], f"http://127.0.0.1:{server.gateway.h2c_port}{PATH}"],
                          capture_output=True, text=True, timeout=30, check=False)
    return done.stdout


def when_clients_leave(server, say):
    for row, stream in (("client gone, whole answer: stopped after", False), ("client gone, stream: stopped after", True)):
        took_s = client_gone(server, stream)
        say(row, "never" if took_s is None else round(took_s, 3), None if took_s is None else "s", took_s is not None and took_s < STOPPED_S)


def when_all_is_well(server, say):
    median, longest, events = pace(server)
    kept = events == EVENTS and PACE_MS * 0.8 < median < PACE_MS * 1.2 and longest < 10 * PACE_MS
    say(f"{EVENTS} events, {PACE_MS} ms apart: how many", events, kept=events == EVENTS)
    say("  median gap", round(median), "ms", kept)
    say("  longest gap", round(longest), "ms", kept)

    said = h2c(server)
    say("HTTP/2 without TLS", "no client here" if said is None else "yes" if said == "2 200" else "no", kept=None if said is None else said == "2 200")

    _, headers, _ = server.ask(server.body("answer")[1], headers={"x-request-id": "bench-request-1"})
    named = headers.get("x-request-id")
    say("x-request-id comes back", "yes" if named == "bench-request-1" else "another" if named else "no", kept=named == "bench-request-1")


def when_json_is_none(server, say):
    status, _, body = server.ask("{\"model\": \"bench\", \"prompt\": ")
    whose = ", the upstream's" if b"scripted upstream" in body else ""
    say("malformed JSON: status", status, kept=400 <= status < 500)
    say("malformed JSON: shape", shape(body) + whose, kept=is_openai_shaped(body))


def when_requests_are_refused(server, say):
    status, refused = after_refusals(server)
    good(400 in refused, f"{server.name}: refusals came as {refused}")
    say(f"after {REFUSALS} x 400, a good request", status, kept=status == 200)
    say("  the refused saw", " and ".join(map(str, sorted(refused))), kept=refused == {400})


def when_the_upstream_is_down(server, say):
    server.upstream.child.stop()
    for what, chat in (("a completion", False), ("a chat", True)):
        # Twice: a breaker may answer the second in words of its own.
        answers = [server.ask(server.body("answer", chat=chat)[1], chat) for _ in range(2)]
        status, headers, body = answers[-1]
        labelled = headers.get("x-nearhop-source") == "degraded"
        readable = all(got[0] == 200 or is_openai_shaped(got[2]) for got in answers)
        named = any(names_upstream(server, got[2]) for got in answers)
        say(f"upstream down, {what}: status", f"{status}, labelled degraded" if labelled else status, kept=status >= 500 or labelled)
        say(f"upstream down, {what}: shape", "an empty answer" if labelled else shape(body), kept=readable)
        say(f"upstream down, {what}: names its address", "yes" if named else "no", kept=not named)
        say(f"upstream down, {what}: retry-after", headers.get("retry-after", "none"), kept="retry-after" in headers if status in (429, 503) else None)


# A gateway of its own for each list: a breaker that opened would be in what follows.
STAGES = ((when_clients_leave, when_all_is_well, when_json_is_none), (when_requests_are_refused,), (when_the_upstream_is_down,))


def observe(suite, name, folder, arguments):
    def say(row, value, unit=None, kept=None):
        suite.observe(row, name, value, unit, kept)

    for at, stage in enumerate(STAGES):
        home = folder / f"{name}-{at}"
        home.mkdir()
        with Scripted(home) as upstream, start(name, home, upstream.port, arguments) as gateway:
            server = Server(f"{name}-{at}", gateway, upstream, SMALL_WORK_S if arguments.small else WORK_S)
            for look in stage:
                try:
                    look(server, say)
                except (BadAnswers, OSError, http.client.HTTPException) as why:
                    check(name != "nearhop", f"{look.__name__}: {why!r}")
                    suite.skip(f"{name}, {look.__name__.replace('_', ' ')}", repr(why))


def start(name, folder, port, arguments):
    # An error is compared with errors: no tips for chats.
    no_tips = lambda config: config["edge"].update(tips=[])
    gateway = peers.nearhop(folder, port, arguments.binary, no_tips) if name == "nearhop" else peers.START[name](folder, port)
    ready = json.dumps({"model": "bench", "prompt": "bench probe answer", "max_tokens": 16, "temperature": 0})
    gateway.child.wait_until(lambda: ask(gateway.port, PATH, ready, HEADERS)[0] == 200)
    return gateway


def run(arguments, folder):
    suite = Suite("behaviour", arguments)
    for name in ("nearhop", *SERVERS):
        if name != "nearhop":
            if arguments.peers and name not in arguments.peers:
                suite.skip(name, "not asked for")
                continue
            version = peers.version(name)
            if not version:
                suite.skip(name, "not installed: scripts/peers.sh")
                continue
            suite.peer(name, version)
        try:
            observe(suite, name, folder, arguments)
        except NotReady as why:
            if name == "nearhop":
                fail(why)
            suite.skip(name, f"it does not start: {why}")
    return suite.result
