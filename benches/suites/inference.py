"""The pod's decoder beside onnxruntime-genai: the same weights, one thread each, on one core, in turns.

Our side is origin-inference's bench `decoder`, without queue and HTTP; the other is `genai.py`. Then both
say what comes after 50 prompts of HumanEval, and where they part must be a near-tie.
"""

import json
import os
import pathlib
import statistics
import subprocess

import process
from machine import ROOT
from process import Child, check, fail
from report import Suite

MODEL = ROOT / "origin-inference/models/nearhop-mini"
PROMPTS = ROOT / "tests/data/human-eval-infilling-200.jsonl"
PYTHON = ROOT / ".models/venv/bin/python"
ROWS = {
    "prefill 512": ("prefill 512", 512),
    **{f"decode B={batch}, context {context}": (f"decode {batch} {context} 256", batch * 256) for context in (128, 512) for batch in (1, 4, 8)},
}
STEPS, LAST_TOKENS, PROMPT_COUNT, NEAR_TIE = 64, 800, 50, 1e-3


class Side:
    """A process that answers commands, a line each."""

    def __init__(self, name, command):
        environment = {**os.environ, "ORT_DYLIB_PATH": os.environ.get("ORT_DYLIB_PATH", str(ROOT / ".ort/libonnxruntime.so"))}
        self.child = Child(name, command, process.LOAD_CORE, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.child.stop()

    def ask(self, command):
        self.child.process.stdin.write(command + "\n")
        self.child.process.stdin.flush()
        line = self.child.process.stdout.readline()
        check(line, f"{self.child.name} ended; its last words are above")
        answer = json.loads(line)
        check("error" not in answer, f"{self.child.name}: {answer.get('error')}")
        return answer


def built():
    """The path of our side, built if it must be."""
    command = "cargo bench --locked -p nearhop-origin-inference --bench decoder --no-run --message-format=json".split()
    done = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True)
    for line in done.stdout.splitlines():
        message = json.loads(line)
        if message.get("target", {}).get("name") == "decoder" and message.get("executable"):
            return message["executable"]
    return fail("cargo names no benchmark `decoder`")


def as_genai(folder):
    """The same weights in a folder that onnxruntime-genai reads, with one thread."""
    subprocess.run([PYTHON, ROOT / "scripts/models/as_genai.py", MODEL, folder], check=True, timeout=300)
    path = folder / "genai_config.json"
    config = json.loads(path.read_text())
    config["model"]["decoder"]["session_options"].update(intra_op_num_threads=1, inter_op_num_threads=1)
    path.write_text(json.dumps(config))
    return folder


def speed(suite, ours, theirs, pairs):
    seen = {row: {"ours": [], "theirs": [], "clock": []} for row in ROWS}
    for turn in range(pairs + 1):
        for row, (command, tokens) in ROWS.items():
            order = [(ours, "ours"), (theirs, "theirs")]
            took = {name: side.ask(command) for side, name in (order if turn % 2 else order[::-1])}
            if turn == 0:
                continue  # both warm up
            for name, clocks in took.items():
                seen[row][name].append(clocks["cpu"] / tokens * 1e6)
            seen[row]["clock"].append(took["ours"]["wall"] / took["theirs"]["wall"])
    for row, found in seen.items():
        suite.compare(row, "genai", "µs CPU/token", found["ours"], found["theirs"], ratio_by_clock=round(statistics.median(found["clock"]), 4))


def tokens(suite, ours, theirs):
    prompts = [json.loads(line)["prompt"] for line in PROMPTS.read_text().splitlines()]
    prompts = prompts[:: max(1, len(prompts) // PROMPT_COUNT)][:PROMPT_COUNT]
    same, ties, other = 0, 0, 0
    for prompt in prompts:
        ids = theirs.ask(f"encode {json.dumps(prompt)}")["ids"][-LAST_TOKENS:]
        command = f"tokens {STEPS} {' '.join(map(str, ids))}"
        mine, their = ours.ask(command), theirs.ask(command)["tokens"]
        apart = [at for at, (a, b) in enumerate(zip(mine["tokens"], their)) if a != b]
        if not apart:
            same += 1
        elif mine["gaps"][apart[0]] < NEAR_TIE:
            ties += 1
        else:
            other += 1
    for row, value in ((f"prompts of {len(prompts)} that both go on with alike, {STEPS} tokens", same), ("  part at a near-tie", ties), ("  differ", other)):
        suite.observe(row, "nearhop", value, kept=other == 0)


def run(arguments, folder):
    suite = Suite("inference", arguments)
    asked = subprocess.run([PYTHON, "-c", "import onnxruntime_genai as g; print(g.__version__)"], capture_output=True, text=True,
                           check=False, timeout=60) if PYTHON.exists() else None
    if arguments.peers and "genai" not in arguments.peers:
        suite.skip("genai", "not asked for")
    elif asked is None or asked.returncode:
        suite.skip("genai", "onnxruntime-genai is not in .models/venv: `make setup`, then scripts/peers.sh")
    else:
        suite.peer("genai", asked.stdout.strip())
        command = [PYTHON, pathlib.Path(__file__).with_name("genai.py"), as_genai(folder), MODEL / "tokenizer.json"]
        with Side("genai", command) as theirs, Side("decoder", [built(), MODEL]) as ours:
            speed(suite, ours, theirs, arguments.pairs)
            tokens(suite, ours, theirs)
    return suite.result
