"""A suite's rows, as a table for people and as JSON for machines.

The JSON of a suite, which stays as it is; fields may be added:

    {suite, date, commit, version, machine: {cpu, cores, kernel, load, load_after, python}, small, pairs, seconds,
     peers: {name: version}, skipped: {name: why}, rows: [...]}

A row compares, or it observes:

    {row, peer, unit, ours, theirs, ratio, low, high, pairs, goal, verdict}     ratio: ours over theirs
    {row, server, value, unit, verdict}                                         of `nearhop` and of peers

`verdict` is met, missed or unsettled (the goal is within the interval) where there is a goal, and
kept, broken or null of what was observed.

    python3 benches/report.py FILE...      recorded results as Markdown
"""

import json
import pathlib
import sys

import figures
import machine


def say(what):
    print(what, file=sys.stderr, flush=True)

# The end of a log says most.
WHY_LENGTH = 300


class Suite:
    def __init__(self, name, arguments):
        self.result = {"suite": name, "date": machine.date(), "commit": machine.commit(), "version": arguments.version,
                       "machine": machine.machine(), "small": arguments.small, "pairs": arguments.pairs,
                       "seconds": arguments.seconds, "peers": {}, "skipped": {}, "rows": []}

    def peer(self, name, version):
        self.result["peers"][name] = version

    def skip(self, name, why):
        """Loudly: a table without a row looks like a table in which it was not worth one."""
        why = " ".join(str(why).split())[-WHY_LENGTH:]
        say(f"\n*** SKIPPED: {name}, NOT compared with it: {why} ***\n")
        self.result["skipped"][name] = why

    def compare(self, row, peer, unit, ours, theirs, goal=None, ratio=figures.PAIRS, **more):
        found = figures.compare(ours, theirs, ratio)
        verdict = figures.verdict(found["low"], found["high"], goal)
        # JSON has no infinity: a ratio to nothing, as of an added latency that is lost in noise, is null.
        found = {name: None if value == float("inf") else round(value, 4) if isinstance(value, float) else value for name, value in found.items()}
        self.result["rows"].append({"row": row, "peer": peer, "unit": unit, **found, "goal": goal, "verdict": verdict, **more})
        say(f"    {line(self.result['rows'][-1])}")

    def observe(self, row, server, value, unit=None, kept=None, goal=None):
        verdict = {True: "kept", False: "broken", None: None}[kept]
        if goal is not None:
            verdict = "met" if value <= goal else "missed"
        self.result["rows"].append({"row": row, "server": server, "value": value, "unit": unit, "goal": goal, "verdict": verdict})
        say(f"    {row}: {server}: {value}{' ' + unit if unit else ''}{', ' + verdict if verdict else ''}")


def line(row, width=38):
    return (f"{row['row']:{width}} {row['peer']:16} {number(row['ours']):>10} {number(row['theirs']):>10} {row['unit']:12} "
            f"{ratio(row['ratio']):>8}  {ratio(row['low'])} to {ratio(row['high'])}   {goal(row)}").rstrip()


def ratio(value, digits=3):
    return "-" if value is None else f"{value:.{digits}f}"


def goal(row):
    if row["goal"] is None:
        return ""
    stretch = f", stretch {row['stretch']} {figures.verdict(row['low'], row['high'], row['stretch'])}" if "stretch" in row and row["high"] is not None else ""
    return f"goal {row['goal']} {row['verdict']}{stretch}"


def number(value):
    if not isinstance(value, float):
        return str(value)
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def table(result):
    compared = [row for row in result["rows"] if "peer" in row]
    observed = [row for row in result["rows"] if "server" in row]
    on = result["machine"]
    pairs = f", {result['pairs']} pairs of {result['seconds']:g} s" if compared else ""
    print(f"\n# {result['suite']}, {result['date']}, commit {result['commit']}{pairs}"
          f"{', SMALL: too short to say anything' if result['small'] else ''}")
    print(f"{on['cpu']}, {on['cores']} cores, load {on['load']} before, {on.get('load_after')} after; nearhop {result['version']}"
          + "".join(f", {name} {version}" for name, version in result["peers"].items()))
    for name, why in result["skipped"].items():
        print(f"SKIPPED, not compared: {name} ({why})")
    if compared:
        width = max(len(row["row"]) for row in compared)
        print(f"\n{'':{width}} {'beside':16} {'ours':>10} {'theirs':>10} {'':12} {'ratio':>8}  95 %")
        for row in compared:
            print(line(row, width))
    if observed:
        rows = grid(observed)
        widths = [max(len(words[at]) for words in rows) for at in range(len(rows[0]))]
        print()
        for words in rows:
            print("  ".join(word.ljust(width) for word, width in zip(words, widths)).rstrip())
        print("(! marks what a client or an operator would complain of)")
    sys.stdout.flush()


def grid(observed):
    """Rows by servers."""
    servers = list(dict.fromkeys(row["server"] for row in observed))
    cells = {(row["row"], row["server"]): row for row in observed}
    names = dict.fromkeys(row["row"] for row in observed)
    return [["", *servers], *([name, *(cell(cells.get((name, server))) for server in servers)] for name in names)]


def markdown(result):
    on = result["machine"]
    peers = "".join(f", {name} {version}" for name, version in result["peers"].items())
    compared = [row for row in result["rows"] if "peer" in row]
    pairs = f", {result['pairs']} pairs of {result['seconds']:g} s" if compared else ""
    print(f"{result['date'][:10]}, {on['cores']} cores of {on['cpu']}, load {on['load']} before, {on.get('load_after')} after{pairs}{peers}"
          + "".join(f"; {name} was not run" for name in result["skipped"]) + ":\n")
    if compared:
        print("| row | beside | ours | theirs | | ratio (95 %) | goal |\n|---|---|---|---|---|---|---|")
        for row in compared:
            digits = 3 if row["ratio"] is not None and row["ratio"] < 0.1 else 2
            print(f"| {row['row']} | {row['peer']} | {number(row['ours'])} | {number(row['theirs'])} | {row['unit']} "
                  f"| **{ratio(row['ratio'], digits)}** ({ratio(row['low'], digits)} to {ratio(row['high'], digits)}) | {goal(row).removeprefix('goal ')} |")
        print()
    observed = [row for row in result["rows"] if "server" in row]
    if observed:
        first, *rest = grid(observed)
        for words in (first, ["---"] * len(first), *rest):
            print(f"| {' | '.join(word.strip() for word in words)} |")
        print()


def cell(row):
    if row is None:
        return "not run"
    value = number(row["value"]) + (f" {row['unit']}" if row["unit"] else "")
    return f"! {value}" if row["verdict"] in ("broken", "missed") else value


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


if __name__ == "__main__":
    for file in sys.argv[1:]:
        found = json.loads(pathlib.Path(file).read_text())
        for result in found if isinstance(found, list) else [found]:
            markdown(result)
