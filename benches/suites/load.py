"""The load generator itself, `nearhop load run`: whether it says what wrk says where wrk is right, what
it takes for a request, and how many it sends on one core.

Where wrk is right: at a server whose every answer takes the same time, which no question waits for
another one at. It asks again when it was answered; ours asks at the rate that wrk came to.
"""

import json
import pathlib
import re
import resource
import subprocess
import sys

import process
from process import Child, check, free_port, program
from report import Suite
from upstream import Canned, ask

DELAY_S = 0.02
CONNECTIONS = 8
# Within 5 %, as whole: not under either.
SAME = 1.05
STEADY_RATE = 2000
RATES, FEW_RATES = (2000, 4000, 8000, 12_000, 16_000, 24_000, 32_000), (500,)
LIMIT_S = 120


def spent(command):
    """What it says, and the CPU seconds it took."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    out = subprocess.run(["taskset", "-c", process.LOAD_CORE, *map(str, command)], capture_output=True, text=True, check=False, timeout=LIMIT_S)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return out, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def wrk(port, folder, seconds):
    """Its median and 99th percentile in ms, its requests a second, and its CPU a request in µs."""
    script = folder / "post.lua"
    script.write_text('wrk.method = "POST"\nwrk.headers["content-type"] = "application/json"\nwrk.body = [[{"model": "bench", "prompt": "x", "max_tokens": 24}]]\n')
    out, cpu_s = spent(["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{max(1, round(seconds))}s", "--latency", "-s", script, f"http://127.0.0.1:{port}/v1/completions"])
    check(out.returncode == 0 and "Non-2xx" not in out.stdout, f"wrk: {out.stdout}{out.stderr}")
    unit = {"us": 1e-3, "ms": 1.0, "s": 1e3}

    def at(percent):
        value, name = re.search(rf"{percent}%\s+([\d.]+)(us|ms|s)", out.stdout).groups()
        return float(value) * unit[name]

    requests = int(re.search(r"(\d+) requests in", out.stdout).group(1))
    rate = float(re.search(r"Requests/sec:\s+([\d.]+)", out.stdout).group(1))
    return at(50), at(99), rate, cpu_s / requests * 1e6


def ours(arguments, port, folder, rate, seconds):
    """The same of ours at a rate, and whether it could send at it."""
    plan = folder / "plan.yaml"
    plan.write_text(json.dumps({
        "scenarios": [{
            "name": "bench", "duration": f"{max(1, round(seconds))}s",
            "profile": {"users": round(rate), "requests_per_user_per_hour": 3600, "arrivals": "even", "typing": 0.0, "streamed": 0.0,
                        "completion_type_distribution": {"inline": 1.0}},
        }],
        "target": {"model": "bench", "regions": [{"name": "here", "url": f"http://127.0.0.1:{port}"}]},
    }))
    # Missed bounds are an exit code of their own: they are not what is looked at.
    out, cpu_s = spent([arguments.binary, "load", "run", "--quiet", "--out", folder, plan])
    file = pathlib.Path(folder / "bench.json")
    check(file.is_file(), f"nearhop load: {out.stdout}{out.stderr}")
    said = json.loads(file.read_text())
    file.unlink()
    first, answered = said["all"]["first_token"], said["all"]["outcomes"]["answered"]
    check(answered > 0, f"nearhop load: {out.stdout}{out.stderr}")
    return first["p50_ms"], first["p99_ms"], answered / said["planned_s"], cpu_s / answered * 1e6, said["generator"]["complaint"]


def run(arguments, folder):
    suite = Suite("load", arguments)
    check(program("wrk"), "wrk is not there: `make setup`")
    said = subprocess.run(["wrk", "-v"], capture_output=True, text=True, check=False, timeout=10).stdout.split()
    suite.peer("wrk", said[1] if len(said) > 1 else "?")
    port = free_port()
    server = pathlib.Path(__file__).parent.with_name("delayed.py")
    with Child("the delayed server", [sys.executable, server, port, DELAY_S], process.SERVER_CORE, folder / "delayed.log") as delayed:
        delayed.wait_until(lambda: ask(port, "/v1/completions", "{}", {})[0] == 200)
        figures = [[], []]
        for pair in range(arguments.pairs + 1):
            theirs = wrk(port, folder, arguments.seconds)
            our = ours(arguments, port, folder, theirs[2], arguments.seconds)
            if pair > 0:
                figures[0].append(our)
                figures[1].append(theirs)
        for at, row, unit in ((0, "p50 of answers of 20 ms", "ms"), (1, "p99 of answers of 20 ms", "ms"), (2, "answers a second", "1/s")):
            us, them = ([one[at] for one in side] for side in figures)
            suite.compare(row, "wrk", unit, us, them, SAME if at == 0 else None)
    with Canned(folder) as canned:
        figures = [[], []]
        for pair in range(arguments.pairs + 1):
            theirs = wrk(canned.ports["whole"], folder, arguments.seconds)
            our = ours(arguments, canned.ports["whole"], folder, STEADY_RATE, arguments.seconds)
            if pair > 0:
                figures[0].append(our[3])
                figures[1].append(theirs[3])
        suite.compare(f"the generator's own CPU a request, {STEADY_RATE}/s", "wrk", "µs CPU", *figures)
        most = 0
        for rate in FEW_RATES if arguments.small else RATES:
            if ours(arguments, canned.ports["whole"], folder, rate, arguments.seconds)[4] is None:
                most = rate
        suite.observe("the most it sends on time with one thread, its server on the same core", "nearhop", most, "requests/s")
    return suite.result
