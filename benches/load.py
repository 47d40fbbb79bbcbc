"""Load on one server from the other core: as much as it takes, at a fixed rate, or as many streams."""

import json
import pathlib
import re
import subprocess
import sys

import process

HERE = pathlib.Path(__file__).parent
CONNECTIONS = 32
GRACE_S = 60


class BadAnswers(Exception):
    """A peer that gives them is left out; ours fails the run."""


def good(condition, what):
    if not condition:
        raise BadAnswers(what)


def as_much_as_it_takes(folder, port, path, body, headers, seconds, connections=CONNECTIONS):
    """Requests answered; none may be a bad answer."""
    script, body_file = folder / "post.lua", folder / "body.json"
    body_file.write_text(body)
    lines = [f"wrk.headers[{json.dumps(name)}] = {json.dumps(value)}" for name, value in headers.items()]
    script.write_text("wrk.method = \"POST\"\nlocal file = io.open(%s)\nwrk.body = file:read(\"*a\")\n%s\n"
                      % (json.dumps(str(body_file)), "\n".join(lines)))
    out = subprocess.run(
        ["taskset", "-c", process.LOAD_CORE, "wrk", "-t1", f"-c{connections}", f"-d{max(1, round(seconds))}s",
         "--timeout", "10s", "-s", script, f"http://127.0.0.1:{port}{path}"],
        capture_output=True, text=True, timeout=seconds + GRACE_S, check=True).stdout
    good("Non-2xx" not in out and "Socket errors" not in out, f"bad answers under load:\n{out}")
    requests = int(re.search(r"(\d+) requests in", out).group(1))
    good(requests, f"no answers under load:\n{out}")
    return requests


def cpu_us(child, *load):
    """Its CPU time for a request under such load, in microseconds."""
    before = child.cpu_seconds()
    requests = as_much_as_it_takes(*load)
    return (child.cpu_seconds() - before) / requests * 1e6


def request_file(folder, port, path, body, headers):
    """A whole request, as the two programs below send it."""
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    file = folder / "request.http"
    file.write_bytes(f"POST {path} HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\n{lines}content-length: {len(body)}\r\n\r\n{body}".encode())
    return file


def at_a_rate(folder, port, path, body, headers, rate, seconds):
    """`body` is one, or a list of those that are sent in turn."""
    bodies = [body] if isinstance(body, str) else body
    files = [request_file(folder, port, path, body, headers).read_bytes() for body in bodies]
    file = folder / "requests.http"
    file.write_bytes(b"\0".join(files))
    out = subprocess.run(["taskset", "-c", process.LOAD_CORE, sys.executable, HERE / "open_loop.py", str(port), file, str(rate), str(seconds)],
                         capture_output=True, text=True, timeout=seconds + GRACE_S, check=False)
    good(out.returncode == 0, f"the load at a fixed rate failed:\n{out.stderr[-2000:]}")
    found = json.loads(out.stdout)
    good(found["bad"] == 0, f"bad answers at {rate}/s: {found}")
    return found


def stream_template(folder, port, path, body, headers):
    """A request with places for a stream's name and the body's length; see streams.py."""
    lines = "".join(f"\n{name}: {value}" for name, value in headers.items())
    file = folder / "stream.http"
    file.write_text(f"POST {path} HTTP/1.1\nhost: 127.0.0.1:{port}{lines}\ncontent-length: {{LENGTH}}\n\n{body}")
    return file


def streams(template, port, count, starting_s, events, limit_s):
    out = subprocess.run(["taskset", "-c", process.LOAD_CORE, sys.executable, HERE / "streams.py", str(port), template, str(count), str(starting_s),
                          str(events), str(limit_s)], capture_output=True, text=True, timeout=starting_s + limit_s + GRACE_S, check=False)
    process.check(out.returncode == 0, f"the streams failed:\n{out.stderr[-2000:]}")
    return json.loads(out.stdout)


class Held:
    """Streams that have begun and say nothing more, until this is left."""

    def __init__(self, template, port, count, limit_s):
        self.process = subprocess.Popen(
            ["taskset", "-c", process.LOAD_CORE, sys.executable, HERE / "streams.py", str(port), template, str(count), "1", "held", str(limit_s)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, preexec_fn=process.ends_with_us)

    def __enter__(self):
        # It gives up at its limit by itself.
        return json.loads(self.process.stdout.readline() or "{}")

    def __exit__(self, *_):
        self.process.stdin.close()
        self.process.wait(timeout=GRACE_S)
