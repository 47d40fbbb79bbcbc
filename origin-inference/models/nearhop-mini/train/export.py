"""Writes a pod's model folder from trained weights: the graph in 8-bit blocks, manifest and card.

    python export.py RUN/weights.safetensors TOKENIZER CORPUS OUT

The layout is docs/model-folder.md's. The same weights give the same bytes; so export first,
evaluate, and export again with --figures for a card that has them.
"""

import argparse
import collections
import hashlib
import json
import pathlib
import shutil
import sys

import numpy as np
import onnx
from onnx import TensorProto

import shape as shapes
from shape import Shape
from tokenizer import END, MIDDLE, PREFIX, SUFFIX

REPOSITORY = pathlib.Path(__file__).resolve().parents[4]
sys.path.append(str(REPOSITORY / "scripts/models"))

from graph import Graph, value  # noqa: E402

MANIFEST = """\
# What a pod needs to know about this model folder; see MODEL_CARD.md.
name: {name}
revision: "{revision}"
context_length: {context}  # tokens, prompt and answer together
fim_window: {{prefix: {prefix}, suffix: {suffix}}}  # tokens kept of either side of the cursor
end_tokens: [{END}]
fim:
  tokens: {{prefix: {PREFIX}, suffix: {SUFFIX}, middle: {MIDDLE}}}
  order: suffix_first  # prefix_first was trained too
sampling: {{temperature: 0.0, top_p: 1.0, max_tokens: {answer}}}
# Not trained on chat: an echo of code comments, good enough to exercise the path.
chat_template: "{{% for m in messages %}}# {{{{ m.role }}}}: {{{{ m.content }}}}\\n{{% endfor %}}\
# assistant: "
"""

CARD = """\
# {name}

A fill-in-the-middle code model of {millions:.2f} M parameters: {shape}.
Weights in 8-bit blocks of 32, which the embedding and the head share. `train/` beside the model
that comes with Nearhop is its recipe. Weights: Apache-2.0. `corpus.json` lists the crates that it
was trained on with their licences; no file of them is shipped.
"""


def graph(shape: Shape, weights: dict[str, np.ndarray]) -> onnx.ModelProto:
    """The native grouped-query layout."""
    made = Graph(bits=8)
    cosines, sines = shape.rotary()
    made.weight("cosines", cosines)
    made.weight("sines", sines)
    cache = ("batch", shape.kv_heads, "max_len", shape.head)
    inputs = [
        value("input_ids", TensorProto.INT64, "batch", "seq"),
        value("seqlens_k", TensorProto.INT32, "batch"),
        value("total_sequence_length", TensorProto.INT32),
    ]
    outputs = [value("logits", TensorProto.FLOAT, "batch", "seq", shape.vocabulary)]

    def product(left: str, name: str, output: str | None = None) -> str:
        return made.product(left, name, weights[f"{name}.weight"].T, output)

    def add_and_norm(stream: str, change: str, name: str) -> tuple[str, str]:
        scale = made.weight(f"{name}.scale", weights[f"{name}.weight"])
        summed = f"{name}.stream"
        kind, epsilon = "SkipSimplifiedLayerNormalization", shape.epsilon
        made.node(kind, [stream, change, scale], name, "", "", summed, epsilon=epsilon)
        return name, summed

    stream = embedded(made, shape)
    scale = made.weight("first.scale", weights["layers.0.attention_norm.weight"])
    kind, epsilon = "SimplifiedLayerNormalization", shape.epsilon
    normed = made.node(kind, [stream, scale], "first", axis=-1, epsilon=epsilon)
    for layer in range(shape.layers):
        name = f"layers.{layer}"
        past = [f"past_key_values.{layer}.{part}" for part in ("key", "value")]
        present = [f"present.{layer}.{part}" for part in ("key", "value")]
        inputs += [value(each, TensorProto.FLOAT, *cache) for each in past]
        outputs += [value(each, TensorProto.FLOAT, *cache) for each in present]

        qkv = product(normed, f"{name}.qkv")
        lengths = ["seqlens_k", "total_sequence_length"]
        mixed = made.node(
            "GroupQueryAttention",
            [qkv, "", "", *past, *lengths, "cosines", "sines"],
            f"{name}.attention",
            *present,
            num_heads=shape.query_heads,
            kv_num_heads=shape.kv_heads,
            do_rotary=1,
            rotary_interleaved=0,
        )
        change = product(mixed, f"{name}.out")
        normed, stream = add_and_norm(stream, change, f"{name}.feed_norm")

        gate = product(normed, f"{name}.gate")
        switch = made.node("Sigmoid", [gate], f"{name}.sigmoid")
        opened = made.node("Mul", [gate, switch], f"{name}.silu")
        inner = made.node("Mul", [opened, product(normed, f"{name}.up")], f"{name}.inner")
        change = product(inner, f"{name}.down")
        last = layer + 1 == shape.layers
        after = "final_norm" if last else f"layers.{layer + 1}.attention_norm"
        normed, stream = add_and_norm(stream, change, after)
    product(normed, "embedding", "logits")
    return made.model("nearhop", inputs, outputs)


def embedded(made: Graph, shape: Shape) -> str:
    """The tokens' rows of the head's own blocks, which are kept once: [outputs, blocks, block]."""
    made.constant("embedding.axis", np.array([-1], np.int64))
    made.constant("embedding.row", np.array([0, 0, shape.width], np.int64))
    made.constant("embedding.middle", np.float32(128))
    node = made.node
    codes = node("Gather", ["embedding.packed", "input_ids"], "embedding.codes")
    signed = node("Cast", [codes], "embedding.cast", to=TensorProto.FLOAT)
    signed = node("Sub", [signed, "embedding.middle"], "embedding.signed")
    scales = node("Gather", ["embedding.scales", "input_ids"], "embedding.scale")
    scales = node("Unsqueeze", [scales, "embedding.axis"], "embedding.column")
    blocks = node("Mul", [signed, scales], "embedding.blocks")
    return node("Reshape", [blocks, "embedding.row"], "embedded")


def facts(path: pathlib.Path) -> dict:
    return json.loads(path.read_text()) if path.exists() else {}


def card(given: argparse.Namespace, shape: Shape) -> str:
    corpus = facts(given.out / "corpus.json")
    licences = collections.Counter(crate["licence"] for crate in corpus.get("crates", {}).values())
    names = ("model.onnx", "tokenizer.json")
    digests = {name: hashlib.sha256((given.out / name).read_bytes()).hexdigest() for name in names}
    sections = {
        "Corpus": {"bytes": corpus.get("bytes"), "crates": dict(licences.most_common())},
        "Training": facts(given.weights.with_name("training.json")),
        "Measured": facts(given.figures) if given.figures else {},
        "sha256": digests,
    }
    text = CARD.format(name=given.name, millions=shape.parameters() / 1e6, shape=shape)
    for title, listed in sections.items():
        text += f"\n## {title}\n\n"
        text += "".join(f"* {name}: {fact}\n" for name, fact in listed.items()) or "Nothing.\n"
    return text


def export(given: argparse.Namespace) -> None:
    shape, weights = shapes.load(given.weights)
    given.out.mkdir(parents=True, exist_ok=True)
    model = graph(shape, weights).SerializeToString(deterministic=True)
    (given.out / "model.onnx").write_bytes(model)
    shutil.copy(given.tokenizer, given.out / "tokenizer.json")
    shutil.copy(given.corpus / "manifest.json", given.out / "corpus.json")
    part = shape.context // 16
    manifest = MANIFEST.format(
        name=given.name,
        revision=given.revision or hashlib.sha256(model).hexdigest()[:12],
        context=shape.context,
        prefix=11 * part,
        suffix=3 * part,
        answer=part,
        **{"END": END, "PREFIX": PREFIX, "SUFFIX": SUFFIX, "MIDDLE": MIDDLE},
    )
    (given.out / "nearhop.yaml").write_text(manifest)
    (given.out / "MODEL_CARD.md").write_text(card(given, shape))
    print(f"{given.out}: {len(model):,} bytes of model, {shape.parameters():,} parameters")


def arguments(words: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    for path in ("weights", "tokenizer", "corpus", "out"):
        parser.add_argument(path, type=pathlib.Path)
    parser.add_argument("--figures", type=pathlib.Path, help="evaluate.py's answer, for the card")
    parser.add_argument("--name", default="nearhop-mini")
    parser.add_argument("--revision", help="otherwise the model's sha256 begins it")
    return parser.parse_args(words)


if __name__ == "__main__":
    export(arguments())
