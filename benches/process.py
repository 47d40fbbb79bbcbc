"""Child processes on a core of their own: started, counted, ended."""

import contextlib
import ctypes
import http.client
import os
import pathlib
import resource
import shutil
import signal
import socket
import subprocess
import sys
import time

# Servers share one core, so that what one takes is what it costs; load and upstream share the other.
CORES = sorted(os.sched_getaffinity(0))
SERVER_CORE, LOAD_CORE = str(CORES[0]), str(CORES[-1])
TICK_S = 1 / os.sysconf("SC_CLK_TCK")
START_DEADLINE_S = 90
STOP_DEADLINE_S = 5
PR_SET_PDEATHSIG = 1


def fail(what):
    sys.exit(f"bench: {what}")


def check(condition, what):
    if not condition:
        fail(what)


def program(name):
    """Where it is, or None; servers are not on everybody's PATH."""
    places = (f"/usr/sbin/{name}", f"/usr/local/sbin/{name}")
    return shutil.which(name) or next((place for place in places if os.path.exists(place)), None)


def free_port(kind=socket.SOCK_STREAM):
    with socket.socket(socket.AF_INET, kind) as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def allow_open_files():
    """Streams by the thousand are descriptors by the thousand, on both sides of a proxy."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def ends_with_us():
    """Between fork and exec: whoever kills this program ends its servers as well."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def cpu_ns(pid):
    """User and system time of a process with all its threads, those that ended too; finer than ticks."""
    # How Linux numbers the clock of another process: CPUCLOCK_SCHED.
    return time.clock_gettime_ns(~pid << 3 | 2)


def resident_bytes(pid):
    return int(pathlib.Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


class NotReady(Exception):
    """A peer that does not start is left out; ours fails the run."""


def wait_for(what, ready, child=None):
    """Until it is, or has ended, or the deadline."""
    deadline = time.monotonic() + START_DEADLINE_S
    while time.monotonic() < deadline and (child is None or child.poll() is None):
        # It refuses until it listens, and may fail until it is set up.
        with contextlib.suppress(OSError, http.client.HTTPException):
            if ready():
                return
        time.sleep(0.05)
    raise NotReady(f"{what} is not ready after {START_DEADLINE_S} s, or ended")


class Child:
    """A pinned process. `log` takes what it says, and is shown where it does not start."""

    def __init__(self, name, command, core, log=None, **options):
        self.name, self.log = name, log
        said = log.open("wb") if log else None
        if said:
            options = {"stdout": said, "stderr": said, **options}
        try:
            self.process = subprocess.Popen(["taskset", "-c", core, *map(str, command)], preexec_fn=ends_with_us, **options)
        finally:
            if said:
                said.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()

    def pids(self):
        found, todo = [], [self.process.pid]
        while todo:
            pid = todo.pop()
            found.append(pid)
            for task in pathlib.Path(f"/proc/{pid}/task").glob("*/children"):
                with contextlib.suppress(OSError):
                    todo.extend(int(child) for child in task.read_text().split())
        return found

    def cpu_seconds(self):
        """User and system time of all its processes, since they began."""
        ticks = 0
        for pid in self.pids():
            with contextlib.suppress(OSError):
                fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
                ticks += int(fields[11]) + int(fields[12])
        return ticks * TICK_S

    def resident_bytes(self):
        bytes_ = 0
        for pid in self.pids():
            with contextlib.suppress(OSError):
                bytes_ += resident_bytes(pid)
        return bytes_

    def wait_until(self, ready):
        try:
            wait_for(self.name, ready, self.process)
        except NotReady as why:
            last = self.log.read_text(errors="replace")[-3000:] if self.log else ""
            self.stop()
            raise NotReady(f"{why}:\n{last}") from None

    def stop(self):
        # Of its processes too, where the first one does not end its children.
        pids = self.pids()
        self.process.terminate()
        try:
            self.process.wait(timeout=STOP_DEADLINE_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(timeout=STOP_DEADLINE_S)
        for pid in pids[1:]:
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
