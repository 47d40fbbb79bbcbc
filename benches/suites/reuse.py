"""A look-up in a full cache, an entry's memory, and the shared cache over loopback: the cargo example
`reuse` of edge-cache. Nothing is compared; the clock says less than CPU time would, of a shared machine.
"""

import json
import subprocess

import process
from process import check
from report import Suite

ENTRIES, FEW = 1_000_000, 10_000
LIMIT_S = 900
GOALS_US = {"typed into": 50}


def run(arguments, folder):
    suite = Suite("reuse", arguments)
    example = f"{arguments.examples}/reuse"
    check(process.program(example), f"{example} is not there: `cargo build --release -p nearhop-edge-cache --example reuse`")
    entries = FEW if arguments.small else ENTRIES
    out = subprocess.run([example, str(entries)], capture_output=True, text=True, check=False, timeout=LIMIT_S,
                         cwd=folder)
    check(out.returncode == 0, f"reuse failed:\n{out.stderr[-2000:]}")
    said = json.loads(out.stdout)
    suite.observe(f"an entry, of {entries:,}: resident", "nearhop", said["bytes_resident"], "bytes")
    suite.observe("  as the cache counts it", "nearhop", said["bytes_counted"], "bytes")
    for row, field in (("exact", "exact_us"), ("typed into", "type_ahead_us"), ("nothing there", "miss_us"), ("the shared cache, over loopback", "l2_hit_us")):
        if said[field] is None:
            suite.skip("redis", "not installed: `make setup`")
            continue
        suite.observe(f"{row}: median", "nearhop", round(said[field][0], 1), "µs")
        suite.observe(f"{row}: 99 %", "nearhop", round(said[field][1], 1), "µs", goal=GOALS_US.get(row))
    return suite.result
