"""Holds every layout of the tiny decoder against the committed one: the same weights, one story.

ONNX Runtime alone, without Nearhop: what a pod says of these folders is then the pod's doing.
"""

import pathlib

import numpy as np
import onnxruntime
import tokenizers

from decoder import CONTEXT, HEAD, KV_HEADS

PROMPTS = ("fn main() {", "def mean(numbers):\n    return ", "impl Iterator for Lines<'_> {\n")
STEPS = 24
NO_NUMBER = "~"  # what the layout `nan` chokes on

# The committed one's tokens, and logits that differ by rounding.
SAME = ("genai", "optimum", "nan", "old-merged")
# Fewer bits: logits that still point the same way. The least cosine that is right.
CLOSE = {"community": 0.95, "q8": 0.999, "f16": 0.9999, "f16-gqa": 0.9999, "dynamic": 0.999}


class Decoder:
    def __init__(self, model: pathlib.Path) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = 3
        self.session = onnxruntime.InferenceSession(model, options, ["CPUExecutionProvider"])
        self.inputs = self.session.get_inputs()

    def past(self) -> dict[str, np.ndarray]:
        """Nothing yet: no positions where they are appended, else a buffer that holds them all."""
        appended = any(given.name == "position_ids" for given in self.inputs)
        shape = (1, KV_HEADS, 0 if appended else CONTEXT, HEAD)
        kinds = {"tensor(float)": np.float32, "tensor(float16)": np.float16}
        return {
            given.name: np.zeros(shape, kinds[given.type])
            for given in self.inputs
            if given.name.startswith("past_key_values.")
        }

    def greedy(self, prompt: list[int]) -> tuple[list[int], np.ndarray]:
        """The best tokens one by one, and the logits after the prompt."""
        past, fresh, done = self.past(), prompt, 0
        told, first = [], None
        for _ in range(STEPS):
            total = done + len(fresh)
            known = {
                "input_ids": np.array([fresh]),
                "attention_mask": np.ones((1, total), np.int64),
                "position_ids": np.arange(done, total)[None],
                "seqlens_k": np.array([total - 1], np.int32),
                "total_sequence_length": np.array(total, np.int32),
                "use_cache_branch": np.array([done > 0]),
                **past,
            }
            fed = {given.name: known[given.name] for given in self.inputs}
            logits, *present = self.session.run(None, fed)
            past = dict(zip(past, present, strict=True))
            first = logits[0, -1].astype(np.float64) if first is None else first
            fresh, done = [int(logits[0, -1].argmax())], total
            told += fresh
        return told, first


def check(committed: pathlib.Path, layouts: pathlib.Path) -> None:
    tokenizer = tokenizers.Tokenizer.from_file(str(committed / "tokenizer.json"))
    prompts = [tokenizer.encode(prompt).ids for prompt in PROMPTS]
    native = Decoder(committed / "model.onnx")
    expected = [native.greedy(prompt) for prompt in prompts]

    for name in (*SAME, *CLOSE):
        [model] = (layouts / name).rglob("*.onnx")
        tried = Decoder(model)
        for prompt, (tokens, logits) in zip(prompts, expected):
            told, first = tried.greedy(prompt)
            cosine = first @ logits / np.linalg.norm(first) / np.linalg.norm(logits)
            if name in SAME:
                assert told == tokens, f"{name} says {told}, expected {tokens}"
            assert cosine >= CLOSE.get(name, 0.999999), f"{name}: cosine {cosine}"

    _, first = Decoder(layouts / "nan/model.onnx").greedy(tokenizer.encode(f"a {NO_NUMBER}").ids)
    assert np.isnan(first).all(), f"nan: {first}"
