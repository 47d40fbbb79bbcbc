#!/usr/bin/env python3
"""Measures Nearhop beside others, in suites: `benches/run.py [SUITE...]`; see benches/README.md."""

import argparse
import importlib
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import time

import process
import report

# A run that takes longer is stuck.
LIMIT_S, SMALL_LIMIT_S = 4 * 3600, 300

SUITES = {
    "gateway": "the edge beside other gateways: CPU, added latency, streams, memory",
    "behaviour": "what the edge and other gateways do when something goes wrong",
    "dns": "the DNS server beside others: CPU an answer",
    "reuse": "a look-up in a full cache, an entry's memory, the shared cache over loopback",
    "inference": "the pod's decoder beside onnxruntime-genai",
    "load": "the load generator itself, beside wrk",
    "semantic": "the semantic cache: who is answered and who wrongly, beside GPTCache; its scan, and what it costs a miss",
    "pod": "a pod over HTTP: its prefix cache, and a stream beside 32 prompts",
}


def parsed():
    parser = argparse.ArgumentParser(description="Measures Nearhop beside others.",
                                     epilog="suites: " + "; ".join(f"{name}: {what}" for name, what in SUITES.items()))
    parser.add_argument("suites", nargs="*", metavar="SUITE", help="default: all")
    parser.add_argument("--binary", default="target/release/nearhop")
    parser.add_argument("--examples", default="target/release/examples", help="where cargo puts examples")
    parser.add_argument("--pairs", type=int, help="default: 10")
    parser.add_argument("--seconds", type=float, help="of one side of a pair; default: 2")
    parser.add_argument("--peers", help="only these, with commas between them; default: all that are installed")
    parser.add_argument("--small", action="store_true", help="seconds instead of minutes, and nginx alone: shows that it works, and no more")
    parser.add_argument("--json", type=pathlib.Path, metavar="FILE", help="a list of the suites' results")
    parser.add_argument("--results", type=pathlib.Path, metavar="FOLDER", help="a file there for each suite")
    arguments = parser.parse_args()
    for suite in arguments.suites:
        if suite not in SUITES:
            parser.error(f"there is no suite {suite}; there are {', '.join(SUITES)}")
    arguments.suites = arguments.suites or list(SUITES)
    arguments.pairs = arguments.pairs or (1 if arguments.small else 10)
    arguments.seconds = arguments.seconds or (1 if arguments.small else 2)
    arguments.peers = arguments.peers.split(",") if arguments.peers else ["nginx"] if arguments.small else None
    return arguments


def main():
    arguments = parsed()
    # Servers end on every way out.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    signal.signal(signal.SIGALRM, lambda *_: process.fail("this takes far too long"))
    signal.alarm(SMALL_LIMIT_S if arguments.small else LIMIT_S)
    arguments.binary, arguments.examples = os.path.abspath(arguments.binary), os.path.abspath(arguments.examples)
    process.check(os.path.isfile(arguments.binary), f"{arguments.binary} is not there; run `cargo build --release`, or `make bench`")
    said = subprocess.run([arguments.binary, "--version"], capture_output=True, text=True, check=True, timeout=60).stdout
    arguments.version = said.strip().removeprefix("nearhop ")
    process.allow_open_files()
    results = []
    for name in arguments.suites:
        began = time.monotonic()
        report.say(f"{name}: {SUITES[name]}")
        with tempfile.TemporaryDirectory(prefix="nearhop-bench-") as folder:
            result = importlib.import_module(f"suites.{name}").run(arguments, pathlib.Path(folder))
        result["took_s"] = round(time.monotonic() - began)
        # Ours is about two: with more, others were on the machine.
        result["machine"]["load_after"] = round(os.getloadavg()[0], 1)
        results.append(result)
        report.table(result)
        if arguments.results:
            report.write(arguments.results / f"{name}.json", result)
    if arguments.json:
        report.write(arguments.json, results)


if __name__ == "__main__":
    main()
