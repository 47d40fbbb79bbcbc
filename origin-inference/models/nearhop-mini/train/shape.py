"""What a network of this family is made of: sizes, and each weight's name and form.

Knows neither PyTorch nor ONNX, so that exporting does not need what training needs.
"""

import dataclasses
import json
import pathlib

import numpy as np
import safetensors.numpy


@dataclasses.dataclass(frozen=True)
class Shape:
    """A Llama-like decoder; the embedding is also the head."""

    layers: int
    width: int
    query_heads: int
    kv_heads: int
    feed_forward: int
    vocabulary: int = 4096
    head: int = 32
    context: int = 1024  # tokens a pod allows, prompt and answer together
    positions: int = 2048  # rotary positions; a key-value buffer may be larger than the context
    theta: float = 10_000.0
    epsilon: float = 1e-5

    def weights(self) -> dict[str, tuple[int, ...]]:
        """Matrices are [outputs, inputs]. Queries, keys, values lie one after the other in qkv."""
        queries, packed = self.query_heads * self.head, self.query_heads + 2 * self.kv_heads
        weights = {"embedding.weight": (self.vocabulary, self.width)}
        for layer in range(self.layers):
            weights |= {
                f"layers.{layer}.attention_norm.weight": (self.width,),
                f"layers.{layer}.qkv.weight": (packed * self.head, self.width),
                f"layers.{layer}.out.weight": (self.width, queries),
                f"layers.{layer}.feed_norm.weight": (self.width,),
                f"layers.{layer}.gate.weight": (self.feed_forward, self.width),
                f"layers.{layer}.up.weight": (self.feed_forward, self.width),
                f"layers.{layer}.down.weight": (self.width, self.feed_forward),
            }
        return weights | {"final_norm.weight": (self.width,)}

    def parameters(self) -> int:
        return sum(int(np.prod(form)) for form in self.weights().values())

    def rotary(self) -> tuple[np.ndarray, np.ndarray]:
        """Cosines and sines, [positions, head / 2]."""
        frequencies = self.theta ** (-np.arange(0, self.head, 2) / self.head)
        angles = np.outer(np.arange(self.positions), frequencies)
        return np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)


SHAPES = {
    # The shipped model: 3.15 M parameters.
    "mini": Shape(layers=6, width=192, query_heads=6, kv_heads=2, feed_forward=512),
    # For a GPU: 11.3 M parameters, 13 MB at 8 bits. Never trained.
    "midi": Shape(layers=9, width=320, query_heads=10, kv_heads=2, feed_forward=896),
    # For smoke.py, with room for the 256 bytes, the specials and a few merges.
    "smoke": Shape(
        layers=2, width=64, query_heads=2, kv_heads=1, feed_forward=128, vocabulary=512, context=256
    ),
}


def random_weights(shape: Shape, seed: int = 0) -> dict[str, np.ndarray]:
    """Weights that keep a product's size: enough to exercise an export, not to complete code."""
    random = np.random.default_rng(seed)
    return {
        name: (random.standard_normal(form) * form[-1] ** -0.5).astype(np.float32)
        if len(form) == 2
        else np.ones(form, np.float32)
        for name, form in shape.weights().items()
    }


def save(path: pathlib.Path, shape: Shape, weights: dict[str, np.ndarray]) -> None:
    metadata = {"shape": json.dumps(dataclasses.asdict(shape))}
    safetensors.numpy.save_file(weights, path, metadata)


def load(path: pathlib.Path) -> tuple[Shape, dict[str, np.ndarray]]:
    with safetensors.safe_open(path, "numpy") as file:
        shape = Shape(**json.loads(file.metadata()["shape"]))
        weights = {name: file.get_tensor(name) for name in file.keys()}
    forms = {name: content.shape for name, content in weights.items()}
    if forms != shape.weights():
        raise SystemExit(f"{path}: the weights do not have the forms of {shape}")
    return shape, weights
