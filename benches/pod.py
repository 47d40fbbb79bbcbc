"""What the pod's prefix cache and scheduler are worth, over HTTP on one pod with nearhop-mini.

    .models/venv/bin/python benches/pod.py --infilling HumanEval-SingleLineInfilling.jsonl[.gz]

Three figures, each of two sides in one run:

* first-token time with nine tenths of the prompt cached, over that of the same prompt cold;
* a typing session: the pod's own compute time for a fill-in-the-middle request every few
  characters, with the prefix cache and without it, each as the order of the model's layout says;
* the gaps between the tokens of a running stream while 32 long prompts arrive, over those of the
  same stream alone, as its client sees them.

For the first two the pod is pinned to core 0 and this client to core 1.
"""

import argparse
import gzip
import http.client
import json
import multiprocessing
import os
import pathlib
import statistics
import subprocess
import tempfile
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parents[1]
MODEL = ROOT / "origin-inference/models/nearhop-mini"


class Pod:
    def __init__(self, cores: str, **settings: object) -> None:
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
        binary = ROOT / "target/release/nearhop"
        command = [binary, "origin", "--ready-json", "--lifeline", "-c", self.scratch.name]
        environment = {**os.environ, "ORT_DYLIB_PATH": str(ROOT / ".ort/libonnxruntime.so")}
        self.process = subprocess.Popen(
            ["taskset", "-c", cores, *command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )
        ready = json.loads(self.process.stdout.readline())
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


def first_token(pairs: int) -> None:
    pod = Pod("0")
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
    ratio = statistics.median(b / a for a, b in zip(cold, cached))
    print(
        f"| first token, {statistics.median(share):.0%} of {usage['prompt_tokens']} tokens cached | "
        f"{statistics.median(cached) * 1e3:.1f} ms | {statistics.median(cold) * 1e3:.1f} ms cold "
        f"| {ratio:.2f} |"
    )


def typing(data: pathlib.Path, tasks: int, every: int) -> None:
    opened = gzip.open if data.suffix == ".gz" else open
    with opened(data, "rt") as lines:
        chosen = [json.loads(line) for line in lines][:: max(1, 1000 // tasks)][:tasks]
    with_cache, without = Pod("0"), Pod("0", prefix_cache="0B")
    for pod in (with_cache, without):
        pod.before = pod.computing()
    requests = 0
    for task in chosen:
        solution = task["canonical_solution"]
        for typed in range(1, len(solution) + 1, every):
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
    print(
        f"| typing, {requests} requests, {hits:.0%} of prompt tokens cached | {took['with']:.2f} s of steps "
        f"| {took['without']:.2f} s without the cache | {took['with'] / took['without']:.2f} |"
    )


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


def gap(pairs: int) -> None:
    # As the system likes: reading 32 prompts on the engine's own core is another question.
    os.sched_setaffinity(0, {0, 1})
    pod = Pod("0,1", queue=64)

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
        ratio = statistics.median(b / a for a, b in zip(quiet, busy))
        print(
            f"| {name} gap of a stream while 32 prompts arrive | {statistics.median(busy) * 1e3:.2f} ms "
            f"| {statistics.median(quiet) * 1e3:.2f} ms alone | {ratio:.2f} |"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--pairs", type=int, default=12)
    parser.add_argument("--infilling", type=pathlib.Path, help="HumanEval infilling, .jsonl or .jsonl.gz")
    parser.add_argument("--tasks", type=int, default=10)
    parser.add_argument("--every", type=int, default=3, help="characters between two requests")
    given = parser.parse_args()
    os.sched_setaffinity(0, {1})
    print("| figure | ours | against | ratio |\n|---|---|---|---|")
    first_token(given.pairs)
    if given.infilling:
        typing(given.infilling, given.tasks, given.every)
    gap(given.pairs)


if __name__ == "__main__":
    main()
