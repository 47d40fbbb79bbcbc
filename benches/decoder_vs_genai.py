"""The pod's decoder beside onnxruntime-genai: the same weights, one thread each, interleaved.

    .models/venv/bin/python benches/decoder_vs_genai.py [--pairs 12]      (part of make bench)

Both sides run as processes of their own on one core, in turns; a row is the median of the pairs'
ratios, ours over theirs in tokens a second, by CPU time and by the clock. With --tokens it compares
what both say instead, on prompts of HumanEval, and counts where they part at a near-tie.
"""

import argparse
import gzip
import json
import os
import pathlib
import statistics
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parents[1]
MODEL = ROOT / "origin-inference/models/nearhop-mini"
SLOTS = 8


def genai(folder: str) -> None:
    """The other side: the same commands, answered by onnxruntime-genai."""
    import numpy as np
    import onnxruntime_genai as og

    model = og.Model(folder)

    def generator(batch: int, length: int):
        parameters = og.GeneratorParams(model)
        parameters.set_search_options(max_length=length, batch_size=batch, do_sample=False)
        return og.Generator(model, parameters)

    def prompt(slot: int, length: int) -> list[int]:
        return [(at * 31 + slot) % 4000 + 16 for at in range(length)]

    def timed(work) -> dict:
        cpu, wall = time.process_time(), time.perf_counter()
        work()
        return {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}

    for line in sys.stdin:
        command, *words = line.split()
        numbers = [int(word) for word in words]
        if command == "prefill":
            (tokens,) = numbers
            made = generator(1, 1024)
            answer = timed(lambda: made.append_tokens(np.array(prompt(0, tokens), np.int32)))
        elif command == "decode":
            batch, context, steps = numbers
            made = generator(batch, 1024)
            rows = [prompt(slot, context) for slot in range(batch)]
            made.append_tokens(np.array(rows if batch > 1 else rows[0], np.int32))

            def decode() -> None:
                for _ in range(steps):
                    made.generate_next_token()

            answer = timed(decode)
        else:
            steps, *ids = numbers
            made = generator(1, 1024)
            made.append_tokens(np.array(ids, np.int32))
            # It stops at its own end token; ours is asked for as many steps.
            for _ in range(steps):
                if made.is_done():
                    break
                made.generate_next_token()
            answer = {"tokens": [int(token) for token in made.get_sequence(0)[len(ids) :]]}
        print(json.dumps(answer), flush=True)


class Side:
    """A process that answers commands."""

    def __init__(self, command: list[str], core: int) -> None:
        environment = {**os.environ, "ORT_DYLIB_PATH": str(ROOT / ".ort/libonnxruntime.so")}
        self.process = subprocess.Popen(
            ["taskset", "-c", str(core), *command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )

    def ask(self, command: str) -> dict:
        self.process.stdin.write(command + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit("decoder_vs_genai: one side ended; its last words are above")
        answer = json.loads(line)
        if "error" in answer:
            raise SystemExit(f"decoder_vs_genai: {answer['error']}")
        return answer


def built() -> str:
    """The path of our side, built if it must be."""
    command = "cargo bench --locked -p nearhop-origin-inference --bench decoder --no-run".split()
    done = subprocess.run(
        [*command, "--message-format=json"], cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True
    )
    for line in done.stdout.splitlines():
        message = json.loads(line)
        if message.get("target", {}).get("name") == "decoder" and message.get("executable"):
            return message["executable"]
    raise SystemExit("decoder_vs_genai: cargo names no benchmark")


def genai_folder(scratch: pathlib.Path) -> str:
    """The same weights in a folder that onnxruntime-genai reads, with one thread."""
    script = ROOT / "scripts/models/as_genai.py"
    subprocess.run([sys.executable, script, MODEL, scratch], check=True)
    path = scratch / "genai_config.json"
    config = json.loads(path.read_text())
    options = config["model"]["decoder"]["session_options"]
    options.update(intra_op_num_threads=1, inter_op_num_threads=1)
    path.write_text(json.dumps(config))
    return str(scratch)


def speed(ours: Side, theirs: Side, pairs: int) -> None:
    rows = {
        "prefill 512": ("prefill 512", 512),
        **{f"decode B={b}, context 128": (f"decode {b} 128 256", b * 256) for b in (1, 4, 8)},
        **{f"decode B={b}, context 512": (f"decode {b} 512 256", b * 256) for b in (1, 4, 8)},
    }
    seen = {row: {"cpu": [], "wall": [], "ours": [], "theirs": []} for row in rows}
    for turn in range(pairs + 1):
        for row, (command, tokens) in rows.items():
            order = [(ours, "ours"), (theirs, "theirs")]
            took = {name: side.ask(command) for side, name in (order if turn % 2 else order[::-1])}
            if turn == 0:
                continue  # both warm up
            for clock in ("cpu", "wall"):
                seen[row][clock].append(took["theirs"][clock] / took["ours"][clock])
            for name in took:
                seen[row][name].append(tokens / took[name]["cpu"])
    print(f"| row | ours, tokens/CPU s | genai | ratio by CPU | by the clock |\n|---|---|---|---|---|")
    for row, figures in seen.items():
        median = {name: statistics.median(values) for name, values in figures.items()}
        low, high = min(figures["cpu"]), max(figures["cpu"])
        print(
            f"| {row} | {median['ours']:.0f} | {median['theirs']:.0f} "
            f"| **{median['cpu']:.2f}** ({low:.2f} to {high:.2f}) | {median['wall']:.2f} |"
        )


def tokens(ours: Side, theirs: Side, data: pathlib.Path) -> None:
    import tokenizers

    tokenizer = tokenizers.Tokenizer.from_file(str(MODEL / "tokenizer.json"))
    opened = gzip.open if data.suffix == ".gz" else open
    with opened(data, "rt") as lines:
        prompts = [json.loads(line)["prompt"] for line in lines]
    prompts = prompts[:: max(1, len(prompts) // 50)][:50]
    same, ties, other = 0, 0, []
    for at, prompt in enumerate(prompts):
        ids = tokenizer.encode(prompt).ids[-800:]
        command = f"tokens 64 {' '.join(map(str, ids))}"
        mine, their = ours.ask(command), theirs.ask(command)["tokens"]
        apart = [k for k, (a, b) in enumerate(zip(mine["tokens"], their)) if a != b]
        if not apart:
            same += 1
        elif mine["gaps"][apart[0]] < 1e-3:
            ties += 1
        else:
            other.append((at, apart[0], mine["gaps"][apart[0]]))
    print(f"{len(prompts)} prompts: {same} the same, {ties} part at a near-tie, {len(other)} differ")
    if other:
        raise SystemExit(f"prompt, place, gap: {other}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--pairs", type=int, default=12)
    parser.add_argument("--core", type=int, default=1)
    parser.add_argument("--tokens", type=pathlib.Path, help="HumanEval infilling, .jsonl or .jsonl.gz")
    parser.add_argument("--genai", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.genai:
        genai(given.genai)
        return
    import tempfile

    with tempfile.TemporaryDirectory() as scratch:
        folder = genai_folder(pathlib.Path(scratch))
        theirs = Side([sys.executable, __file__, "--genai", folder], given.core)
        ours = Side([built(), str(MODEL)], given.core)
        if given.tokens:
            tokens(ours, theirs, given.tokens)
        else:
            speed(ours, theirs, given.pairs)


if __name__ == "__main__":
    main()
