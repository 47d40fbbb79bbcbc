"""Holds the embedder's file against its published weights, computed without ONNX Runtime."""

import itertools
import math

import numpy as np
import onnxruntime
import tokenizers

HEADS = 12
LAYERS = 6
EPSILON = 1e-12

TEXTS = (
    "That is a happy person",
    "That is a happy dog",
    "That is a very happy person",
    "Today is a sunny day",
    "How do I reverse a string in Rust?",
    "What is the fastest way to sort a list of dictionaries by a key in Python?",
    'fn main() { println!("hello"); }',
    "def mean(numbers):\n    return sum(numbers) / len(numbers) if numbers else 0.0",
    "TypeError: unsupported operand type(s) for +: 'int' and 'str'",
    "Ein Satz auf Deutsch, mit Umlauten: schöne Grüße aus Köln.",
)
# The first text beside the three after it, before anything is rounded.
SIMILARITIES = (0.695, 0.943, 0.257)


def norm(x: np.ndarray, weights: dict, name: str) -> np.ndarray:
    x = x - x.mean(-1, keepdims=True)
    x = x / np.sqrt((x * x).mean(-1, keepdims=True) + EPSILON)
    return x * weights[f"{name}.weight"] + weights[f"{name}.bias"]


def bert(weights: dict[str, np.ndarray], tokens: list[int]) -> np.ndarray:
    """The embedding of one text, of the published weights."""

    def linear(x: np.ndarray, name: str) -> np.ndarray:
        return x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]

    def heads(x: np.ndarray) -> np.ndarray:
        return x.reshape(len(tokens), HEADS, -1).transpose(1, 0, 2)

    table = {part: weights[f"embeddings.{part}_embeddings.weight"] for part in ("word", "position")}
    x = table["word"][tokens] + table["position"][: len(tokens)]
    x = norm(
        x + weights["embeddings.token_type_embeddings.weight"][0], weights, "embeddings.LayerNorm"
    )
    erf = np.vectorize(math.erf, otypes=[np.float32])
    for layer in range(LAYERS):
        of = f"encoder.layer.{layer}"
        query, key, values = (
            heads(linear(x, f"{of}.attention.self.{part}")) for part in ("query", "key", "value")
        )
        scores = query @ key.transpose(0, 2, 1) / math.sqrt(query.shape[-1])
        shares = np.exp(scores - scores.max(-1, keepdims=True))
        shares /= shares.sum(-1, keepdims=True)
        mixed = (shares @ values).transpose(1, 0, 2).reshape(x.shape)
        x = x + linear(mixed, f"{of}.attention.output.dense")
        x = norm(x, weights, f"{of}.attention.output.LayerNorm")
        wide = linear(x, f"{of}.intermediate.dense")
        wide = wide * (1 + erf(wide / math.sqrt(2))) / 2
        x = norm(x + linear(wide, f"{of}.output.dense"), weights, f"{of}.output.LayerNorm")
    mean = x.mean(0)
    return mean / np.linalg.norm(mean)


def check(weights: dict[str, np.ndarray], model: bytes, tokenizer: bytes) -> None:
    texts = tokenizers.Tokenizer.from_buffer(tokenizer)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model, options, ["CPUExecutionProvider"])

    def embed(rows: list[list[int]]) -> np.ndarray:
        padded = np.array(list(itertools.zip_longest(*rows, fillvalue=0))).T
        mask = np.array([[1] * len(row) + [0] * (padded.shape[1] - len(row)) for row in rows])
        [embeddings] = session.run(None, {"input_ids": padded, "attention_mask": mask})
        return embeddings

    rows = [texts.encode(text).ids for text in TEXTS]
    together = embed(rows)
    alone = np.concatenate([embed([row]) for row in rows])
    exact = np.array([bert(weights, row) for row in rows])

    cosines = (together * exact).sum(1)
    assert cosines.min() >= 0.998, f"minilm: not the published model's embeddings: {cosines}"
    apart = np.abs(together - alone).max()
    assert apart <= 1e-6, f"minilm: a text's embedding depends on its batch: {apart}"
    for embedded, least in ((exact, 0.001), (together, 0.01)):
        similar = embedded[0] @ embedded[1:4].T
        assert np.abs(similar - SIMILARITIES).max() <= least, f"minilm: similarities {similar}"
