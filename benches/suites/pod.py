"""What the pod's prefix cache and scheduler are worth, over HTTP on one pod with nearhop-mini.

Three figures, each of two sides in one run:

* first-token time with nine tenths of the prompt cached, over that of the same prompt cold;
* a typing session: the pod's own compute time for a fill-in-the-middle request every third
  character of HumanEval's tasks, with the prefix cache and without it, each as the order of the model's layout says;
* the gaps between the tokens of a running stream while 32 long prompts arrive, over those of the
  same stream alone, as its client sees them.

For the first two the pod is pinned to core 0 and this client to core 1.
"""

import http.client
import json
import multiprocessing
import os
import statistics
import subprocess
import tempfile
import threading
import time

import process
from machine import ROOT
from report import Suite

MODEL = ROOT / "origin-inference/models/nearhop-mini"
TASKS = ROOT / "tests/data/human-eval-infilling-200.jsonl"
TASK_COUNT, FEW_TASKS, EVERY = 10, 1, 3
GOALS = {"first token": 0.15, "typing": 0.7, "longest": 3.0}


class Pod:
    def __init__(self, binary: str, cores: str, **settings: object) -> None:
        config = {
            "log": {"level": "error"},
            "origin": {
                "listen": "127.0.0.1:0",
                "admin": {"listen": "127.0.0.1:0"},
                "models": [{"folder": str(MODEL)}],
                **settings,
            },
        }
        self.scratch = tempfile.NamedTemporaryFile("w", suffix=".yaml")
        json.dump(config, self.scratch)
        self.scratch.flush()
        command = [binary, "origin", "--ready-json", "--lifeline", "-c", self.scratch.name]
        library = os.environ.get("ORT_DYLIB_PATH", str(ROOT / ".ort/libonnxruntime.so"))
        environment = {**os.environ, "ORT_DYLIB_PATH": library}
        self.process = subprocess.Popen(
            ["taskset", "-c", cores, *command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )
        ready = json.loads(self.process.stdout.readline() or "{}")
        process.check("listen" in ready, "the pod does not start: its last words are above")
        self.listen, self.admin = ready["listen"], ready["admin"]

    def stop(self) -> None:
        self.process.stdin.close()
        self.process.wait(10)

    def stream(self, body: dict, connection: http.client.HTTPConnection | None = None):
        """Yields the time at which each piece of text came, in seconds from the request."""
        own = connection or http.client.HTTPConnection(self.listen, timeout=120)
        began = time.perf_counter()
        body = {"model": "nearhop-mini", "stream": True, **body}
        own.request("POST", "/v1/completions", json.dumps(body))
        answer = own.getresponse()
        assert answer.status == 200, answer.read()
        for line in answer:
            if line.startswith(b"data: {"):
                yield time.perf_counter() - began
        if connection is None:
            own.close()

    def ask(self, body: dict) -> dict:
        connection = http.client.HTTPConnection(self.listen, timeout=120)
        connection.request("POST", "/v1/completions", json.dumps({"model": "nearhop-mini", **body}))
        answer = connection.getresponse()
        content = json.loads(answer.read())
        assert answer.status == 200, content
        connection.close()
        return content

    def metrics(self) -> dict[str, float]:
        connection = http.client.HTTPConnection(self.admin, timeout=10)
        connection.request("GET", "/metrics")
        found = {}
        for line in connection.getresponse().read().decode().splitlines():
            if not line.startswith("#"):
                name, value = line.rsplit(" ", 1)
                name = name.partition("{")[0]
                found[name] = found.get(name, 0.0) + float(value)
        connection.close()
        return found

    def computing(self) -> float:
        """Seconds of all steps so far."""
        now = self.metrics()
        return sum(now[f"nearhop_{kind}_step_seconds_sum"] for kind in ("prefill", "decode"))


def code(seed: int, lines: int) -> str:
    return "".join(f"    value_{seed}_{at} = compute({at}, {seed * at % 97})\n" for at in range(lines))


def first_token(suite: Suite, binary: str, pairs: int) -> None:
    pod = Pod(binary, process.SERVER_CORE)
    cold, cached, share = [], [], []
    for turn in range(pairs + 2):
        # About 900 tokens, of which the last tenth changes.
        start, ends = code(turn, 34), [code(1000 * turn + end, 4)[:120] for end in (1, 2)]
        times = []
        for end in ends:
            prompt = f"def f():\n{start}{end}"
            times.append(next(iter(pod.stream({"prompt": prompt, "max_tokens": 1}))))
        body = {"prompt": f"def f():\n{start}{code(7 * turn + 3, 4)[:120]}", "max_tokens": 1}
        usage = pod.ask(body)["usage"]
        if turn >= 2:
            cold.append(times[0])
            cached.append(times[1])
            share.append(usage["prompt_tokens_details"]["cached_tokens"] / usage["prompt_tokens"])
    pod.stop()
    row = f"first token, {statistics.median(share):.0%} of {usage['prompt_tokens']} tokens cached"
    in_ms = [[second * 1e3 for second in side] for side in (cached, cold)]
    suite.compare(row, "cold", "ms", *in_ms, goal=GOALS["first token"])


def typing(suite: Suite, binary: str, count: int) -> None:
    tasks = [json.loads(line) for line in TASKS.read_text().splitlines()]
    chosen = tasks[:: len(tasks) // count][:count]
    cores = process.SERVER_CORE
    with_cache, without = Pod(binary, cores), Pod(binary, cores, prefix_cache="0B")
    for pod in (with_cache, without):
        pod.before = pod.computing()
    requests = 0
    for task in chosen:
        solution = task["canonical_solution"]
        for typed in range(1, len(solution) + 1, EVERY):
            body = {
                "prompt": task["prompt"] + solution[:typed],
                "suffix": task["suffix"],
                "max_tokens": 16,
            }
            requests += 1
            for pod in (with_cache, without):
                pod.ask(body)
    took = {}
    for name, pod in (("with", with_cache), ("without", without)):
        took[name] = pod.computing() - pod.before
        seen = pod.metrics()
        if name == "with":
            hits = seen["vllm:prefix_cache_hits_total"] / seen["vllm:prefix_cache_queries_total"]
        pod.stop()
    row = f"typing, {requests} requests, {hits:.0%} of tokens cached"
    suite.compare(row, "without cache", "s of steps", [took["with"]], [took["without"]], goal=GOALS["typing"])


def ask_all(listen: str, turn: int) -> None:
    """Sends 32 long prompts at once; in a process of its own, so that it does not hold up who counts."""
    body = {"model": "nearhop-mini", "max_tokens": 1}

    def ask(at: int) -> None:
        connection = http.client.HTTPConnection(listen, timeout=120)
        prompt = code(100 * turn + at, 34)
        connection.request("POST", "/v1/completions", json.dumps({**body, "prompt": prompt}))
        connection.getresponse().read()
        connection.close()

    asks = [threading.Thread(target=ask, args=(at,)) for at in range(32)]
    for each in asks:
        each.start()
    for each in asks:
        each.join()


def gap(suite: Suite, binary: str, pairs: int, cores: set[int]) -> None:
    # As the system likes: reading 32 prompts on the engine's own core is another question.
    os.sched_setaffinity(0, cores)
    pod = Pod(binary, ",".join(map(str, cores)), queue=64)

    def gaps(noise: bool, turn: int) -> list[float]:
        times, asking = [], None
        body = {"prompt": "def ", "max_tokens": 900, "temperature": 1.0, "seed": turn}
        for at, came in enumerate(pod.stream(body)):
            times.append(came)
            if at == 20 and noise:
                asking = multiprocessing.Process(target=ask_all, args=(pod.listen, turn))
                asking.start()
        if asking:
            asking.join()
        return sorted(b - a for a, b in zip(times[21:], times[22:]))

    shares = {"median": 0.5, "p99": 0.99, "longest": 1.0}
    seen = {name: ([], []) for name in shares}
    for turn in range(pairs + 1):
        quiet, busy = gaps(False, turn), gaps(True, turn)
        for name, share in shares.items():
            for values, gap_s in zip(seen[name], (quiet, busy)):
                if turn:
                    values.append(gap_s[min(int(len(gap_s) * share), len(gap_s) - 1)])
    pod.stop()
    for name, (quiet, busy) in seen.items():
        in_ms = [[second * 1e3 for second in side] for side in (busy, quiet)]
        suite.compare(f"{name} gap of a stream beside 32 prompts", "alone", "ms", *in_ms, goal=GOALS.get(name))


def run(arguments, _folder) -> dict:
    suite = Suite("pod", arguments)
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {int(process.LOAD_CORE)})
    try:
        first_token(suite, arguments.binary, arguments.pairs)
        typing(suite, arguments.binary, FEW_TASKS if arguments.small else TASK_COUNT)
        gap(suite, arguments.binary, arguments.pairs, cores)
    finally:
        os.sched_setaffinity(0, cores)
    return suite.result
