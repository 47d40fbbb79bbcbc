"""What the figures were taken on, and of."""

import datetime
import os
import pathlib
import platform
import subprocess

ROOT = pathlib.Path(__file__).resolve().parents[1]


def machine():
    cpu = platform.machine()
    for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            cpu = line.partition(":")[2].strip()
            break
    return {"cpu": cpu, "cores": os.cpu_count(), "kernel": platform.release(),
            "load": round(os.getloadavg()[0], 1), "python": platform.python_version()}


def date():
    return datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def commit():
    """The commit that is checked out; the binary is what `make bench` built of it."""
    def git(*words):
        done = subprocess.run(["git", "-C", ROOT, *words], capture_output=True, text=True, check=False)
        return done.stdout.strip()
    name = git("rev-parse", "--short=10", "HEAD")
    # Recorded results are no change of what is measured.
    changed = git("status", "--porcelain", "--untracked-files=no", "--", ".", ":!benches/results")
    return f"{name}+changes" if name and changed else name or "unknown"
