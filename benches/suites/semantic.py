"""The semantic cache: who is answered, and who wrongly, beside GPTCache; its scan; what it costs a request.

  replay      questions as developers ask them, in tests/data/questions, of which each is known to mean
              the same as others or to have an answer of its own; in our rules by `semantic_replay`, an
              example of tests/replay, in GPTCache, by plain similarity and by exact repetition
  scan        the nearest of so many vectors: the example `semantic_scan`
  an entry    its memory: `semantic_replay fill`
  a miss      a chat that no earlier answer serves, by an edge without `edge.l3`, in shadow, and with a route
              that has proved itself, which waits for the question's vector
"""

import contextlib
import itertools
import json
import math
import os
import pathlib
import random
import statistics
import subprocess
import time

import load
import minilm
import peers
import process
from load import BadAnswers
from machine import ROOT
from process import NotReady, check, fail
from report import Suite, say
from suites.inference import PYTHON, Side
from upstream import Canned, ask

QUESTIONS = ROOT / "tests/data/questions"
# Those of the first were written by people who had not seen the rules, and no rule was mended with them.
HALVES = {
    "unseen": ("unseen-a.txt", "unseen-b.txt", "unseen-c.txt", "unseen-d.txt"),
    "seen": ("first-a.txt", "first-b.txt", "second-a.txt", "second-b.txt"),
}
GPTCACHE = peers.PYTHON_PEERS / "gptcache"
# GPTCache's threshold is a share of its longest squared distance, 4: 0.8, its default, is a cosine of 0.6,
# 0.95 is one of 0.9, and plain similarity of 0.95, which is compared as well, would be 0.975.
THRESHOLDS = ("0.8", "0.95")
DRAWS, FEW_DRAWS = 4000, 200
NEAR = 0.3
WRONG_PERCENT = 2.0
CONFIDENCE = 1.645  # one-sided, 95 %

SCANS = 5
SCAN_US, RECALL = 500, 0.999
ENTRIES, FEW_ENTRIES = 20_000, 1000
LIMIT_S = 1800

PATH = "/v1/chat/completions"
HEADERS = {"content-type": "application/json", "authorization": f"Bearer {peers.KEY}"}
MODES = ("off", "shadow", "serve")
# Each takes two embeddings, of some milliseconds: nothing waits for another.
RATE, IDLE_S = 20, 5
NO_VECTOR = ("embedder-late", "embedder-busy", "embedder-open", "embedder-failed")


def intents(files):
    """Each: the ways to say it, and what only looks so, which have answers of their own."""
    found = []
    for line in "\n".join((QUESTIONS / file).read_text() for file in files).splitlines():
        kind, _, text = line.partition(" ")
        if kind == "#":
            found.append((text, [], []))
        elif kind == "=":
            found[-1][1].append(text)
        elif kind.startswith("!"):
            found[-1][2].append(text)
    return found


def drawn(found, count):
    """As `tests/it/questions.rs` draws: few intents often (Zipf, exponent 1), of each few ways to say it,
    and three of ten only look like another."""
    dice = random.Random(11)
    order = dice.sample(found, len(found))

    def zipf(of):
        return dice.choices(of, [1 / rank for rank in range(1, len(of) + 1)])[0]

    draws = []
    for _ in range(count):
        title, same, near = zipf(order)
        if dice.random() < NEAR:
            at = dice.randrange(len(near))
            draws.append((near[at], f"{title}, but {at}"))
        else:
            draws.append((zipf(same), title))
    return draws


def once(found):
    """Every text once, in any order: no exact repetition."""
    draws = [(text, title) for title, same, _ in found for text in same]
    draws += [(text, f"{title}, but {at}") for title, _, near in found for at, text in enumerate(near)]
    random.Random(11).shuffle(draws)
    return draws


def most_wrong(served, wrong):
    """The share that may be wrong with a confidence of 95 % (Wilson)."""
    share, z2 = wrong / served, CONFIDENCE**2
    spread = CONFIDENCE * math.sqrt(share * (1 - share) / served + z2 / (4 * served**2))
    return (share + z2 / (2 * served) + spread) / (1 + z2 / served)


def said(*command):
    """A program's JSON, on the load's core."""
    out = subprocess.run(["taskset", "-c", process.LOAD_CORE, *map(str, command)], capture_output=True, text=True, check=False, timeout=LIMIT_S)
    check(out.returncode == 0, f"{command[0]} failed:\n{out.stderr[-2000:]}")
    return json.loads(out.stdout)


class Replays:
    """The streams, in files, with the vectors of what is embedded."""

    def __init__(self, suite, arguments, folder):
        self.suite, self.folder, self.program = suite, folder, example(arguments, "semantic_replay")
        self.streams = {}
        for half, files in HALVES.items():
            found = intents(files)
            check(len(found) >= 200, f"{half} has only {len(found)} intents")
            self.streams[f"{half}, drawn"] = drawn(found, FEW_DRAWS if arguments.small else DRAWS)
            if not arguments.small and half == "unseen":
                self.streams[f"{half}, each once"] = once(found)
        self.files = {}
        texts = {}
        for at, (stream, draws) in enumerate(self.streams.items()):
            self.files[stream] = folder / f"draws-{at}.json"
            self.files[stream].write_text(json.dumps(draws))
            texts[stream] = said(self.program, "texts", self.files[stream])
        self.texts = sorted(set(itertools.chain.from_iterable(texts.values())))
        (folder / "texts.json").write_text(json.dumps(self.texts))
        self.vectors = folder / "vectors.f32"
        took = said(PYTHON, pathlib.Path(minilm.__file__), folder / "texts.json", self.vectors)
        suite.observe("embedding a question: CPU, median", "MiniLM", round(took["cpu_us_p50"] / 1e3, 2), "ms")
        every, row_bytes = self.vectors.read_bytes(), minilm.DIMENSIONS * 4
        places = {text: at * row_bytes for at, text in enumerate(self.texts)}
        for stream, of in texts.items():
            rows = (every[places[text]:places[text] + row_bytes] for text in of)
            self.files[stream].with_suffix(".f32").write_bytes(b"".join(rows))

    def ours(self, stream):
        return said(self.program, "replay", self.files[stream], self.files[stream].with_suffix(".f32"))

    def show(self, stream, server, done, goal=None):
        served, wrong = done["served"], done["wrong"]
        self.suite.observe(f"{stream}: answered", server, round(100 * served / len(self.streams[stream]), 1), "%")
        if not served:
            return
        self.suite.observe(f"{stream}: wrong of that", server, round(100 * wrong / served, 2), "%", goal=goal)
        self.suite.observe(f"{stream}: at most, 95 %", server, round(100 * most_wrong(served, wrong), 2), "%")


def replays(suite, arguments, folder):
    these = Replays(suite, arguments, folder)
    ours = {}
    for stream in these.streams:
        found = ours[stream] = these.ours(stream)
        these.show(stream, "nearhop", found["rules"], WRONG_PERCENT)
        these.show(stream, "as users get it", found["users"], WRONG_PERCENT)
        these.show(stream, "cosine 0.95", found["cosine"])
        these.show(stream, "exact", found["exact"])
        beyond = found["beyond_exact"]
        suite.observe(f"{stream}: answered beyond exact repetition", "nearhop", beyond["served"])
        suite.observe(f"{stream}: wrong of those", "nearhop", beyond["wrong"])
        suite.observe(f"{stream}: proven after", "as users get it", found["proven_after"] or "never")
    version = peers.installed("gptcache", GPTCACHE)
    if arguments.small or arguments.peers and "gptcache" not in arguments.peers:
        suite.skip("gptcache", "not asked for")
    elif not version:
        suite.skip("gptcache", "not installed: scripts/peers.sh")
    else:
        suite.peer("gptcache", version)
        beside_gptcache(suite, these, ours)
    return these


def beside_gptcache(suite, these, ours):
    """Its look-up is beside ours in each stream: those are the pairs."""
    program = pathlib.Path(__file__).with_name("gptcached.py")
    theirs = {threshold: [] for threshold in THRESHOLDS}
    with Side("gptcache", [GPTCACHE / "bin/python", program]) as gptcache:
        for stream, threshold in itertools.product(these.streams, THRESHOLDS):
            folder = these.folder / f"{these.files[stream].stem}-{threshold}"
            folder.mkdir()
            found = gptcache.ask(f"replay {these.files[stream]} {threshold} {folder}")
            these.show(stream, f"gptcache {threshold}", found)
            theirs[threshold].append(found)
    of = theirs[THRESHOLDS[0]]
    for percent in (50, 99):
        field = f"cpu_us_p{percent}"
        suite.compare(f"a look-up, embedding apart, p{percent}", "gptcache", "µs CPU", [ours[stream][field] for stream in these.streams],
                      [one[field] for one in of], pairs_are="streams")
        whole = statistics.median(one[f"with_embedding_us_p{percent}"] for one in of)
        suite.observe(f"a look-up with its embedding, p{percent}", f"gptcache {THRESHOLDS[0]}", round(whole / 1e3, 2), "ms CPU")


def scan(suite, arguments, vectors):
    program = example(arguments, "semantic_scan")
    runs = [said(program, vectors) for _ in range(SCANS)]
    for at, size in enumerate(runs[0]["sizes"]):
        def median(of):
            return statistics.median(of(run["sizes"][at]) for run in runs)

        n = size["n"]
        goal = SCAN_US if n == 100_000 else None
        suite.observe(f"scan of {n:,}: median", "nearhop", round(median(lambda of: of["cpu_us_p50"]), 1), "µs CPU")
        suite.observe(f"scan of {n:,}: 99 %", "nearhop", round(median(lambda of: of["cpu_us_p99"]), 1), "µs CPU", goal=goal)
        recall = median(lambda of: of["recall"]["at_1"])
        suite.observe(f"scan of {n:,}: recall@1", "nearhop", round(100 * recall, 2), "%", kept=recall >= RECALL if goal else None)
        within = median(lambda of: of["recall"]["within_0.001"])
        suite.observe(f"scan of {n:,}: found what is within 0.001 of the nearest", "nearhop", round(100 * within, 2), "%")
        near = median(lambda of: of["recall_near"]["at_1"])
        suite.observe(f"scan of {n:,}: recall@1 of what is near", "nearhop", round(100 * near, 2), "%")
        suite.observe(f"scan of {n:,}: a vector, resident", "nearhop", round(median(lambda of: of["resident_bytes_per_vector"])), "bytes")


def memory(suite, arguments):
    entries = FEW_ENTRIES if arguments.small else ENTRIES
    found = said(example(arguments, "semantic_replay"), "fill", entries)
    check(found["entries"] == entries, f"of {entries} entries {found['entries']} are held")
    row = f"an entry, of {entries:,}, its answer {found['answer_bytes']} bytes"
    suite.observe(f"{row}: resident", "nearhop", round(found["bytes_resident"]), "bytes")
    suite.observe(f"{row}: as it is counted", "nearhop", round(found["bytes_counted"]), "bytes")


class Edge:
    """One with the tier in a mode, warm, whose route has proved itself."""

    def __init__(self, mode, arguments, folder, upstream):
        self.mode, folder = mode, folder / f"edge-{mode}"
        folder.mkdir()
        self.gateway = peers.nearhop(folder, upstream, arguments.binary, self.configure)
        self.child, self.port, self.folder = self.gateway.child, self.gateway.port, folder
        self.edge_pid = self.child.process.pid

    def __enter__(self):
        self.child.wait_until(lambda: self.answers("How is this edge today, is it ready for work?", **{"cache-control": "no-cache"}) == 200)
        if self.mode != "off":
            self.prove()
        return self

    def __exit__(self, *_):
        self.child.stop()

    def configure(self, config):
        self.admin = int(config["edge"]["admin"]["listen"].rsplit(":", 1)[1])
        if self.mode == "off":
            return
        # The edge's own pod listens wherever it is given a port.
        config["origin"] = {"listen": "127.0.0.1:1", "admin": {"listen": "127.0.0.1:2"}, "models": [{"folder": str(minilm.MODEL), "aliases": ["embed"]}],
                            "ort_library": os.environ.get("ORT_DYLIB_PATH", str(ROOT / ".ort/libonnxruntime.so"))}
        config["edge"]["local"] = {"roles": ["embed"]}
        # A route that few questions prove; and one user asks what many would.
        config["edge"]["l3"] = {"embedder": "embed", "routes": [{"mode": self.mode}], "judged": 20, "wrong": 0.13, "explore": 0.000_001,
                                "user_writes": 65_536, "user_entries": 20_000}

    def answers(self, question, **headers):
        return ask(self.port, PATH, body(question), {**HEADERS, **headers})[0]

    def counted(self, metric, *labels):
        """The sum of what a metric counts under those labels."""
        page = ask(self.admin, "/metrics", None, {}, "GET")[2].decode()
        lines = (line for line in page.splitlines() if line.startswith(metric + "{") and all(label in line for label in labels))
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines)

    def teach(self, question):
        before = self.counted("nearhop_cache_stores_total", 'tier="l3"')
        check(self.answers(question) == 200, f"the edge does not answer {question!r}")
        process.wait_for("the lesson", lambda: self.counted("nearhop_cache_stores_total", 'tier="l3"') > before, self.child.process)

    def prove(self):
        """With questions that are asked once each: what is forced, or repeated, proves nothing."""
        numbers = itertools.count(1000)

        def stored():
            self.teach(f"How do I undo the last {next(numbers)} commits in git?")
            return self.counted("nearhop_cache_stores_total", 'tier="l3"', 'result="stored"') > 0

        process.wait_for("the embedder", stored, self.child.process)
        for commits in range(10, 35):
            if self.counted("nearhop_l3_serves", 'by="similar"') == 1:
                break
            for way in ("How do I", "How can I"):
                self.teach(f"{way} undo the last {commits} commits in git?")
        serves = self.counted("nearhop_l3_serves", 'by="similar"')
        check(serves == (self.mode == "serve"), f"the route {'has not proved itself' if self.mode == 'serve' else 'serves'}")

    def cpu_ns(self):
        """Of the edge, and of its embedder."""
        each = {pid: process.cpu_ns(pid) for pid in self.child.pids()}
        return each.pop(self.edge_pid), sum(each.values())

    def looks(self):
        return {result: self.counted("nearhop_cache_lookups_total", 'tier="l3"', f'result="{result}"')
                for result in ("exact", "similar", *NO_VECTOR)} | {"all": self.counted("nearhop_cache_lookups_total", 'tier="l3"')}

    def idle(self, seconds):
        """What it takes a second when nobody asks."""
        before = self.cpu_ns()
        time.sleep(seconds)
        self.idle_ns = [(after - was) / seconds for was, after in zip(before, self.cpu_ns())]

    def turn(self, bodies, seconds):
        before, began = self.cpu_ns(), time.monotonic()
        took = load.at_a_rate(self.folder, self.port, PATH, bodies, HEADERS, RATE, seconds)
        # Lessons come after answers.
        time.sleep(0.3)
        lasted_s = time.monotonic() - began
        spent = [after - was - idle * lasted_s for was, after, idle in zip(before, self.cpu_ns(), self.idle_ns)]
        return {"p50": took["first_p50_us"], "p99": took["first_p99_us"], "late": took["late_p99_us"],
                "edge": spent[0] / len(bodies) / 1e3, "embedder": spent[1] / len(bodies) / 1e3}


def body(question):
    return json.dumps({"model": "bench", "messages": [{"role": "user", "content": question}]})


def misses(suite, arguments, folder, texts):
    seconds = 2 if arguments.small else 5 * arguments.seconds
    count, warm = round(RATE * seconds), 1
    number = itertools.count(1)
    with contextlib.ExitStack() as stack:
        canned = stack.enter_context(Canned(folder))
        edges = [stack.enter_context(Edge(mode, arguments, folder, canned.ports["stream"])) for mode in MODES]
        for edge in edges:
            edge.idle(1 if arguments.small else IDLE_S)
        before = {edge.mode: edge.looks() for edge in edges}
        found = {mode: [] for mode in MODES}
        for turn in range(arguments.pairs + warm):
            # No two alike, in a number at least, which is why none is served; the same for all.
            asked = [f"{texts[at % len(texts)]} in release {at}" for at in itertools.islice(number, count)]
            first = turn % len(edges)
            for edge in edges[first:] + edges[:first]:
                measured = edge.turn([body(question) for question in asked], seconds)
                if turn >= warm:
                    found[edge.mode].append(measured)
        for edge in edges:
            looks = {result: now - before[edge.mode][result] for result, now in edge.looks().items()}
            check(looks["exact"] + looks["similar"] == 0, f"{edge.mode}: what should be a miss was served: {looks}")
            if edge.mode == "serve":
                late = sum(looks[result] for result in NO_VECTOR)
                suite.observe("a miss: no vector within 30 ms", "serve", round(100 * late / max(1, looks["all"]), 2), "%")
        for edge in edges:
            for pid in edge.child.pids():
                name = "the edge" if pid == edge.edge_pid else "its embedder"
                suite.observe(f"resident after it: {name}", edge.mode, round(process.resident_bytes(pid) / 1e6, 1), "MB")

    def of(mode, figure):
        return [turn[figure] for turn in found[mode]]

    for mode in MODES[1:]:
        for quantile in ("p50", "p99"):
            suite.compare(f"a miss, {mode}: first byte, {quantile}", "off", f"µs, {RATE}/s", of(mode, quantile), of("off", quantile),
                          load_late_p99_us=round(statistics.median(of("off", "late"))))
        suite.compare(f"a miss, {mode}: the edge", "off", "µs CPU", of(mode, "edge"), of("off", "edge"))
        suite.observe("a miss: its embedder, CPU", mode, round(statistics.median(of(mode, "embedder"))), "µs CPU")


def example(arguments, name):
    path = f"{arguments.examples}/{name}"
    check(process.program(path), f"{path} is not there: `make bench` builds it")
    return path


def run(arguments, folder):
    suite = Suite("semantic", arguments)
    for needed in (PYTHON, minilm.MODEL / "model.onnx"):
        check(needed.exists(), f"{needed} is not there: `make setup`")
    these = replays(suite, arguments, folder)
    if not arguments.small:
        scan(suite, arguments, these.vectors)
    memory(suite, arguments)
    try:
        misses(suite, arguments, folder, these.texts)
    except (NotReady, BadAnswers) as why:
        fail(why)
    return suite.result
