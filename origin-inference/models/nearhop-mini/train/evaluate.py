"""Measures a model folder with ONNX Runtime, as a pod would run it.

    python evaluate.py FOLDER --texts CORPUS/held_out.jsonl
    python evaluate.py FOLDER --infilling HumanEval-SingleLineInfilling.jsonl.gz

Bits per byte of the texts, in windows of 512 tokens; how often the best tokens, one by one, are
exactly the missing line. The figures go to stdout, as JSON.
"""

import argparse
import gzip
import json
import math
import pathlib

import numpy as np
import onnxruntime
import yaml

import tokenizer

WINDOW = 512
LINE_TOKENS_MAX = 32


class Decoder:
    def __init__(self, folder: pathlib.Path, threads: int = 1) -> None:
        self.manifest = yaml.safe_load((folder / "nearhop.yaml").read_text())
        self.tokenizer = tokenizer.load(folder / "tokenizer.json")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        path = folder / "model.onnx"
        self.session = onnxruntime.InferenceSession(path, options, ["CPUExecutionProvider"])
        given = {each.name: each.shape for each in self.session.get_inputs()}
        self.past = {name: form for name, form in given.items() if name.startswith("past_key")}

    def encode(self, text: str) -> list[int]:
        return self.tokenizer.encode(text, add_special_tokens=False).ids

    def empty(self, length: int) -> dict[str, np.ndarray]:
        """A cache with room for `length` tokens."""
        forms = {name: (1, form[1], length, form[3]) for name, form in self.past.items()}
        return {name: np.zeros(form, np.float32) for name, form in forms.items()}

    def step(
        self, tokens: list[int], cache: dict[str, np.ndarray], before: int = 0
    ) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """The logits after each token, and the cache with them in it."""
        total = before + len(tokens)
        logits, *present = self.session.run(
            None,
            {
                "input_ids": np.array([tokens]),
                "seqlens_k": np.array([total - 1], np.int32),
                "total_sequence_length": np.array(total, np.int32),
                **cache,
            },
        )
        return logits[0], dict(zip(cache, present, strict=True))

    def line(self, prompt: list[int]) -> str:
        """The best tokens one by one, until a line has ended, stripped."""
        cache, told, text = self.empty(len(prompt) + LINE_TOKENS_MAX), [], ""
        logits, cache = self.step(prompt, cache)
        while len(told) < LINE_TOKENS_MAX and "\n" not in text.lstrip():
            best = int(logits[-1].argmax())
            if best in self.manifest["end_tokens"]:
                break
            logits, cache = self.step([best], cache, before=len(prompt) + len(told))
            told.append(best)
            text = self.tokenizer.decode(told)
        return text.strip().partition("\n")[0].strip()

    def bits(self, text: str) -> float:
        """What the text costs. Each window begins anew, so its first tokens cost more."""
        tokens = [*self.manifest["end_tokens"][:1], *self.encode(text)]
        cost = 0.0
        for start in range(0, len(tokens) - 1, WINDOW):
            seen, follow = tokens[start : start + WINDOW], tokens[start + 1 : start + WINDOW + 1]
            logits, _ = self.step(seen[: len(follow)], self.empty(WINDOW))
            logits = logits.astype(np.float64)
            highest = logits.max(-1)
            wholes = highest + np.log(np.exp(logits - highest[:, None]).sum(-1))
            cost += (wholes - logits[np.arange(len(follow)), follow]).sum()
        return cost / math.log(2)


def bits_per_byte(decoder: Decoder, texts: list[str]) -> float:
    return sum(map(decoder.bits, texts)) / sum(len(text.encode()) for text in texts)


def exact_lines(decoder: Decoder, tasks: list[dict]) -> dict[str, int]:
    """How many tasks' lines are found, prompted in both orders."""
    window, order = decoder.manifest["fim_window"], decoder.manifest["fim"]["tokens"]
    before, after, middle = order["prefix"], order["suffix"], order["middle"]
    found = {"suffix_first": 0, "prefix_first": 0}
    for task in tasks:
        prefix = decoder.encode(task["prompt"])[-window["prefix"] :]
        suffix = decoder.encode(task["suffix"])[: window["suffix"]]
        line = task["canonical_solution"].strip().partition("\n")[0].strip()
        prompts = {
            "suffix_first": [before, after, *suffix, middle, *prefix],
            "prefix_first": [before, *prefix, after, *suffix, middle],
        }
        for name, prompt in prompts.items():
            found[name] += decoder.line(prompt) == line
    return found


def rows(path: pathlib.Path) -> list[dict]:
    with gzip.open(path, "rt") if path.suffix == ".gz" else path.open() as lines:
        return [json.loads(line) for line in lines]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument(
        "--texts", type=pathlib.Path, help="jsonl with text, as corpus.py writes it"
    )
    parser.add_argument("--infilling", type=pathlib.Path, help="jsonl of HumanEval's infilling")
    parser.add_argument("--every", type=int, default=1, help="take each n-th text and task only")
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    decoder, figures = Decoder(given.folder, given.threads), {}
    if given.texts:
        texts = [row["text"] for row in rows(given.texts)][:: given.every]
        figures["texts"] = len(texts)
        figures["bits_per_byte"] = round(bits_per_byte(decoder, texts), 3)
    if given.infilling:
        tasks = rows(given.infilling)[:: given.every]
        figures["tasks"] = len(tasks)
        figures |= {f"exact_{name}": n for name, n in exact_lines(decoder, tasks).items()}
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
