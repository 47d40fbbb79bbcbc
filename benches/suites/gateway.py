"""The edge beside other gateways: CPU a request, added latency, streams without a stall, memory.

  L1 hit, streamed, typed into   a stored answer, or its rest; beside nginx's proxy_cache of the POST, keyed
                                 by its body, and LiteLLM's cache in memory
  miss, streamed                 a pod's stream passed on
  miss, assembled                the pod's stream as one JSON body, beside those that read JSON too, whose
                                 upstream answers with that body
  added latency                  at a fixed rate, counted from when a request was due, less what the upstream
                                 takes when it is asked directly
  streams without a stall        how many at once of 20 events, 50 ms apart, lose none and wait for none ten
                                 times as long
  resident                       after start, after load, and with streams that say nothing
"""

import contextlib
import json
import pathlib
import re
import statistics
import subprocess
import sys

import figures
import load
import peers
import process
from load import BadAnswers, good
from process import NotReady, check, fail
from report import Suite, say
from upstream import TEXT, Canned, Scripted, ask, text_of

TYPED = "return "  # what the user has typed of TEXT in the row of type-ahead
PATH = "/v1/completions"
PLAIN = {"content-type": "application/json", "authorization": f"Bearer {peers.KEY}"}
FRESH = {**PLAIN, "cache-control": "no-store"}
PROXIES = ("nginx", "haproxy", "envoy", "vllm-router", "sglang-router", "litellm")
CACHES = ("nginx-cache", "litellm-cache")
HITS = {"L1 hit": (False, ""), "L1 hit, streamed": (True, ""), "L1 hit, typed into": (False, TYPED)}
# Two that pass bytes on need not be asked twice.
ASSEMBLED = ("nginx", "vllm-router", "sglang-router", "litellm")

GOALS = {
    **{(row, "nginx-cache"): 0.5 for row in HITS},
    ("miss, streamed", "nginx"): 2.0, ("miss, assembled", "nginx"): 2.0,
    ("miss, streamed", "vllm-router"): 0.6, ("miss, assembled", "vllm-router"): 0.6,
    ("added latency, p99", "nginx"): 2.0,
}
STRETCH = {("miss, streamed", "nginx"): 1.5, ("miss, assembled", "nginx"): 1.5}
RATE = 500
# One that takes tens of milliseconds of CPU for a request cannot be asked as often, nor so much at once:
# its answers would come after the end.
SLOW = ("litellm", "litellm-cache")
SLOW_RATE, SLOW_CONNECTIONS = 10, 4

EVENTS, PACE_MS, STALL = 20, 50, 10
COUNTS = (16, 64, 256, 512, 1024)
TRIALS = 3
IDLE_STREAMS = 1000


def request_body(stream, typed=""):
    """About 2.6 kB, as an editor's fill-in-the-middle request is."""
    prefix = "".join(f"def helper_{n}(values):\n    return sum(values) / {n + 1}\n\n" for n in range(40))
    body = {"model": "bench", "prompt": prefix[:2000] + typed, "suffix": "\n\nif __name__ == '__main__':\n    main()\n" * 12,
            "max_tokens": 64, "temperature": 0, "stop": ["\n\n"], "stream": stream}
    return json.dumps(body)


def scripted_body(act, model="bench"):
    return json.dumps({"model": model, "prompt": "# {ID}\nbench {ID} " + act, "max_tokens": 64, "temperature": 0, "stream": True})


class Run:
    def __init__(self, arguments, folder):
        self.arguments, self.folder = arguments, folder
        self.suite = Suite("gateway", arguments)
        small = arguments.small
        self.rate = 100 if small else RATE
        self.counts, self.trials = ((16,), 1) if small else (COUNTS, TRIALS)
        self.idle = 50 if small else IDLE_STREAMS
        self.made = 0

    def start(self, name, port, stream=True):
        """A gateway in front of the upstream at that port, once it answers; `stream` is what that one can do."""
        self.made += 1
        folder = self.folder / f"{self.made}-{name}"
        folder.mkdir()
        gateway = peers.nearhop(folder, port, self.arguments.binary) if name == "nearhop" else peers.START[name](folder, port)
        gateway.child.wait_until(lambda: ask(gateway.port, PATH, probe(stream), FRESH)[0] == 200)
        return gateway

    def peers(self, names):
        """Those of them that are here; said of the others, once."""
        return [name for name in names if name.removesuffix("-cache") in self.suite.result["peers"]]

    def beside(self, name, *upstream):
        """A peer, or None where it does not start: said, and left out."""
        try:
            return self.start(name, *upstream)
        except NotReady as why:
            self.suite.skip(name, f"it does not start: {why}")
            return None

    @contextlib.contextmanager
    def leaving_out(self, what):
        """A peer whose answers are bad; what it has is kept."""
        try:
            yield
        except BadAnswers as why:
            self.suite.skip(what, why)

    def turns(self, sides):
        """All measured in turns; who is first changes, and the first turn warms up."""
        names, warm = list(sides), 0 if self.arguments.small else 1
        found = {name: [] for name in names}
        for turn in range(self.arguments.pairs + warm):
            for name in names[turn % len(names):] + names[:turn % len(names)]:
                try:
                    measured = sides[name]()
                except BadAnswers as why:
                    check(name == "theirs", f"{name}: {why}")
                    raise
                if turn >= warm:
                    found[name].append(measured)
        return found

    def cpu(self, row, name, ours, theirs):
        """Each side: a gateway, a body, headers."""
        at_once = SLOW_CONNECTIONS if name in SLOW else load.CONNECTIONS
        seconds = self.arguments.seconds * (2 if name in SLOW else 1)

        def measure(gateway, body, headers):
            return lambda: load.cpu_us(gateway.child, self.folder, gateway.port, PATH, body, headers, seconds, at_once)

        costs = self.turns({"ours": measure(*ours), "theirs": measure(*theirs)})
        more = {"stretch": STRETCH[row, name]} if (row, name) in STRETCH else {}
        self.suite.compare(row, name, "µs CPU", costs["ours"], costs["theirs"], goal=GOALS.get((row, name)), **more)


def probe(stream):
    """One that the scripted upstream understands, and the canned one does not look at."""
    return json.dumps({"model": "bench", "prompt": "bench probe answer", "max_tokens": 16, "temperature": 0, "stream": stream})


def check_contract(port, headers, stream, source, typed=""):
    status, got, body = ask(port, PATH, request_body(stream, typed), headers)
    check(status == 200, f"the edge answers {status}: {body[:200]}")
    for name in ("x-request-id", "x-nearhop-region", "cache-status", "server-timing"):
        check(got.get(name), f"the edge's answer has no {name}")
    check(got.get("x-nearhop-source") == source, f"source {got.get('x-nearhop-source')}, expected {source}")
    check(text_of(body) == TEXT.removeprefix(typed), f"the edge's text is {text_of(body)!r}")


def check_answer(name, gateway, stream):
    status, _, body = ask(gateway.port, PATH, request_body(stream), PLAIN)
    good(status == 200 and text_of(body) == TEXT, f"{name} does not pass the answer on: {status} {body[:300]}")


def hits(run, canned, edge):
    # An answer is stored when its generation ends, which may be after its client has it.
    process.wait_for("the edge's cache", lambda: ask(edge.port, PATH, request_body(False), PLAIN)[1].get("x-nearhop-source") == "l1")
    check_contract(edge.port, PLAIN, False, "l1")
    check_contract(edge.port, PLAIN, True, "l1")
    check_contract(edge.port, PLAIN, False, "l1-typeahead", TYPED)
    for name in run.peers(CACHES):
        peer = run.beside(name, canned.ports["whole"], False)
        if not peer:
            continue
        with peer, run.leaving_out(name):
            check_answer(name, peer, False)
            good(is_hit(peer, name), f"{name} does not hit")
            for row, (stream, typed) in HITS.items():
                if name == "litellm-cache" and row != "L1 hit":
                    continue
                run.cpu(row, name, (edge, request_body(stream, typed), PLAIN), (peer, request_body(False), PLAIN))


def is_hit(peer, name):
    """Whether it answers from its cache, as it says itself."""
    _, got, _ = ask(peer.port, PATH, request_body(False), PLAIN)
    return got.get("x-cache-status") == "HIT" if name == "nginx-cache" else bool(got.get("x-litellm-cache-key"))


def misses(run, canned, edge):
    check_contract(edge.port, FRESH, False, "origin")
    check_contract(edge.port, FRESH, True, "origin")
    resident = {}
    for row, stream, port, names in (("miss, streamed", True, canned.ports["stream"], PROXIES), ("miss, assembled", False, canned.ports["whole"], ASSEMBLED)):
        for name in run.peers(names):
            peer = run.beside(name, port, stream)
            if not peer:
                continue
            with peer, run.leaving_out(f"{name}, {row}"):
                check_answer(name, peer, stream)
                run.cpu(row, name, (edge, request_body(stream), FRESH), (peer, request_body(stream), PLAIN))
                if stream:
                    resident[name] = peer.child.resident_bytes()
                    with run.leaving_out(f"{name}, added latency"):
                        latency(run, canned, edge, name, peer)
    for name, bytes_ in {"nearhop": edge.child.resident_bytes(), **resident}.items():
        run.suite.observe("resident after load", name, round(bytes_ / 1e6, 1), "MB")


def latency(run, canned, edge, name, peer):
    """At a rate that both can bear."""
    rate, seconds = SLOW_RATE if name in SLOW else run.rate, run.arguments.seconds * (2 if name in SLOW else 1)
    targets = {"direct": (canned.ports["stream"], PLAIN), "ours": (edge.port, FRESH), "theirs": (peer.port, PLAIN)}

    def measure(port, headers):
        return lambda: load.at_a_rate(run.folder, port, PATH, request_body(True), headers, rate, seconds)

    took = run.turns({target: measure(*where) for target, where in targets.items()})
    # Fewer answers say nothing of one in a hundred.
    for quantile in ("p50", "p99") if rate * seconds >= 100 else ("p50",):
        row = f"added latency, {quantile}"
        added = {target: [at[f"{quantile}_us"] - direct[f"{quantile}_us"] for at, direct in zip(took[target], took["direct"])]
                 for target in ("ours", "theirs")}
        # How late the load itself was, which is in what both took, and in what is taken off.
        late_us = round(statistics.median(at["late_p99_us"] for at in took["direct"]))
        run.suite.compare(row, name, f"µs, {rate}/s", added["ours"], added["theirs"], goal=GOALS.get((row, name)), ratio=figures.MEDIANS,
                          load_late_p99_us=late_us)


def stalls(run, name, gateway, headers):
    """The largest number of a short list that it sustains in most trials: none stalled, no event lost."""
    template = load.stream_template(run.folder, gateway.port, PATH, scripted_body(f"paced {EVENTS} {PACE_MS}"), headers)
    limit_s = STALL * PACE_MS / 1000
    most = 0
    for count in run.counts:
        good, words = 0, []
        for _ in range(run.trials):
            found = load.streams(template, gateway.port, count, 1, EVENTS, EVENTS * PACE_MS / 1000 + limit_s + 5)
            gaps = found["longest_gaps_s"]
            stalled = sum(gap > limit_s for gap in gaps)
            good += found["whole"] == count and not stalled
            words.append(f"{found['whole']} whole, {stalled} stalled, longest gap {gaps[-1] * 1000 if gaps else 0:.0f} ms, {found['refused']} refused, "
                         f"{'/'.join(found['statuses'])}")
        say(f"    {name}, {count} streams: {'; '.join(words)}")
        if good <= run.trials // 2:
            break
        most = count
    return most


def streams_and_memory(run):
    """Behind each the same scripted upstream; itself asked directly first, for what this machine can do."""
    with Scripted(run.folder) as upstream:
        row = f"streams without a stall, of {run.counts[-1]:,}"
        most = stalls(run, "direct", upstream, PLAIN)
        check(most or run.arguments.small, "the scripted upstream does not sustain streams itself")
        run.suite.observe(row, "direct", most)
        for name in ["nearhop", *run.peers(PROXIES)]:
            gateway = run.start(name, upstream.port) if name == "nearhop" else run.beside(name, upstream.port)
            if not gateway:
                continue
            with gateway:
                run.suite.observe("resident after start", name, round(gateway.child.resident_bytes() / 1e6, 1), "MB")
                chat = {**FRESH, "x-nearhop-kind": "chat"} if name == "nearhop" else PLAIN
                template = load.stream_template(run.folder, gateway.port, PATH, scripted_body("held"), chat)
                with load.Held(template, gateway.port, run.idle, 30) as held:
                    whole = held.get("whole", 0)
                    bytes_ = gateway.child.resident_bytes()
                if whole == run.idle:
                    run.suite.observe(f"resident, {run.idle:,} idle streams", name, round(bytes_ / 1e6, 1), "MB")
                else:
                    run.suite.observe(f"resident, {run.idle:,} idle streams", name, f"{whole} began", kept=False)
            # A fresh one: what it had to clear away is not what is asked here.
            gateway = run.start(name, upstream.port) if name == "nearhop" else run.beside(name, upstream.port)
            if gateway:
                with gateway:
                    run.suite.observe(row, name, stalls(run, name, gateway, FRESH if name == "nearhop" else PLAIN))


def ten_thousand_idle(run):
    """As many as the goal is of, by a program of its own, which works out what this machine has no descriptors for."""
    program = pathlib.Path(__file__).parents[1] / "idle_streams.py"
    if run.arguments.small or not program.is_file():
        return
    done = subprocess.run([sys.executable, program, "--binary", run.arguments.binary], capture_output=True, text=True, check=False, timeout=600)
    found = re.search(r"([\d.]+) KiB each; (\d+) would be (\d+) MiB, goal (\d+)", done.stdout)
    check(done.returncode == 0 and found, f"idle_streams.py failed:\n{done.stdout[-1000:]}{done.stderr[-1000:]}")
    each, streams, whole, goal = found.groups()
    run.suite.observe(f"resident, {int(streams):,} idle streams", "nearhop", int(whole), "MiB", goal=int(goal))
    run.suite.observe("  each", "nearhop", float(each), "KiB")


def run(arguments, folder):
    for needed in ("nginx", "wrk", "taskset"):
        check(process.program(needed), f"{needed} is not installed: `make setup`")
    this = Run(arguments, folder)
    for name in dict.fromkeys(name.removesuffix("-cache") for name in (*PROXIES, *CACHES)):
        if arguments.peers and name not in arguments.peers:
            this.suite.skip(name, "not asked for")
        elif version := peers.version(name):
            this.suite.peer(name, version)
        else:
            this.suite.skip(name, "not installed: scripts/peers.sh")
    try:
        with Canned(folder) as canned, this.start("nearhop", canned.ports["stream"]) as edge:
            hits(this, canned, edge)
            misses(this, canned, edge)
        streams_and_memory(this)
        ten_thousand_idle(this)
    except NotReady as why:
        fail(why)
    return this.suite.result
