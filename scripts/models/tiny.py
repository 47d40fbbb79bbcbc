"""Writes the tests' models: 0.14 M random weights that decode, in every layout we know of.

    python3 -m venv .models/venv
    .models/venv/bin/pip install -r scripts/models/requirements.txt
    .models/venv/bin/python scripts/models/tiny.py              the committed one
    .models/venv/bin/python scripts/models/tiny.py --layouts    all others, into .models/

The committed one, origin-inference/tests/fixtures/tiny, has the graph, the tokenizer and the
manifest of origin-inference/models/nearhop-mini in small, in fp32, so that tests can ask for the
same tokens: alone and in a batch, with and without a cached prefix. Logits of two such runs are
equal or some 10⁻⁶ apart (a chunk of one token, a padded row), and the best token leads by far more.
It has learned nothing. What it says depends on every token it was given, which finds a wrong cache,
and is printable text, which a failing test can show. The same script and versions give the same
bytes.

The others are folders as they are published for other programs, with the same weights: a pod that
reads them rightly says the same. They are made where they are tested and not committed.
"""

import argparse
import hashlib
import logging
import pathlib
import shutil
import tempfile

import numpy as np
import onnx
from onnx import TensorProto, external_data_helper
from onnxruntime.quantization import quantize_dynamic

import as_genai
import check_layouts
import decoder
import published
from decoder import CONTEXT, Form
from graph import Graph, value
from tiny_tokenizer import VOCABULARY, tokenizer

ROOT = pathlib.Path(__file__).resolve().parents[2]
COMMITTED = ROOT / "origin-inference/tests/fixtures/tiny"
END = 0

CHAT = r"{% for m in messages %}# {{ m.role }}: {{ m.content }}\n{% endfor %}# assistant: "


def manifest(name: str) -> bytes:
    return f"""\
# A test's model: random weights, nothing learned. Made by scripts/models/tiny.py.
name: {name}
revision: "1"
context_length: {CONTEXT}          # tokens, prompt and answer together
fim_window: {{prefix: 128, suffix: 64}}
end_tokens: [{END}]
fim:
  tokens: {{prefix: 1, suffix: 2, middle: 3}}
  order: suffix_first
sampling: {{temperature: 0.0, top_p: 1.0, max_tokens: 16}}
chat_template: "{CHAT}"
""".encode()


def packed(model: onnx.ModelProto) -> bytes:
    return model.SerializeToString(deterministic=True)


class Folders:
    """The files of each layout, by name."""

    def __init__(self) -> None:
        self.made = tokenizer()
        self.tokens = (self.made.to_str(pretty=True) + "\n").encode()

    def native(self, name: str, form: Form = Form()) -> dict[str, bytes]:
        return {
            "model.onnx": packed(decoder.decoder(self.made, form)),
            "tokenizer.json": self.tokens,
            "nearhop.yaml": manifest(name),
        }

    def genai(self, form: Form) -> dict[str, bytes]:
        model = decoder.decoder(self.made, form)
        as_genai.lengths_from_mask(model)
        files = as_genai.side_files(model, self.tokens, CONTEXT, END)
        files["model.onnx.data"] = weights_apart(model, "model.onnx.data")
        return files | {"model.onnx": packed(model)}

    def hub(self, file: str, model: onnx.ModelProto | Form, **config: object) -> dict[str, bytes]:
        """A model as Optimum exports it, and as most of those on the hub are."""
        if isinstance(model, Form):
            model = decoder.decoder(self.made, model)
        about = published.config(decoder.config() | config, END)
        return {
            file: packed(model),
            "config.json": published.as_json(about),
            "generation_config.json": published.as_json(published.generation_config(END)),
            "tokenizer.json": self.tokens,
            "tokenizer_config.json": published.as_json(
                published.tokenizer_config(self.tokens, CONTEXT, END)
            ),
        }

    def all(self) -> dict[str, dict[str, bytes]]:
        exported = decoder.decoder(self.made, Form(exported=True))
        half = Form(exported=True, element=np.float16, wide_logits=True)
        # Level 1 computes in float32. At level 4 a difference in the last place moves an input to
        # its neighbouring 8-bit value, and a batch would say other things than its rows alone.
        four_bits = Form(exported=True, bits=4, accuracy_level=1)
        no_number = Form(nan_token=self.made.token_to_id(check_layouts.NO_NUMBER))
        big_code = {"model_type": "gpt_bigcode", "num_key_value_heads": 1}
        return {
            "genai": self.genai(Form()),
            "optimum": self.hub("model.onnx", exported),
            "community": self.hub("onnx/model_q4.onnx", four_bits),
            "q8": self.native("tiny-q8", Form(bits=8)),
            "f16": self.hub("onnx/model_fp16.onnx", half),
            "f16-gqa": self.genai(Form(element=np.float16)),
            "dynamic": self.hub("onnx/model_quantized.onnx", dynamic(exported)),
            "nan": self.native("tiny-nan", no_number),
            "old-merged": self.hub("decoder_model_merged.onnx", merged(exported)),
            "gpt-bigcode": self.hub("model.onnx", gpt_bigcode(), **big_code),
        }


def weights_apart(model: onnx.ModelProto, file: str) -> bytes:
    """Takes the weights out of the model, which then names `file` as the place they are in."""
    apart = bytearray()
    for tensor in model.graph.initializer:
        if len(tensor.raw_data) < 1024:
            continue  # as exporters do: what shapes are computed from stays inside
        external_data_helper.set_external_data(tensor, file, len(apart), len(tensor.raw_data))
        apart += tensor.raw_data
        tensor.ClearField("raw_data")
    return bytes(apart)


def dynamic(model: onnx.ModelProto) -> onnx.ModelProto:
    """8 bits with one scale for a whole batch's activations, which makes rows depend on others."""
    copy = onnx.ModelProto.FromString(packed(model))
    logging.getLogger().setLevel(logging.ERROR)  # it recommends another tool of its own
    with tempfile.TemporaryDirectory() as scratch:
        out = pathlib.Path(scratch) / "model.onnx"
        quantize_dynamic(
            copy,
            out,
            op_types_to_quantize=["MatMul"],
            per_channel=True,
            # 7 bits: processors without VNNI add pairs of products in 16 bits, which 8 overflow.
            reduce_range=True,
            extra_options={"MatMulConstBOnly": True},
        )
        return onnx.load(out)


def merged(model: onnx.ModelProto) -> onnx.ModelProto:
    """With the input that once chose between two decoders in one file. Here they are the same."""
    copy = onnx.ModelProto.FromString(packed(model))
    copy.graph.input.append(value("use_cache_branch", TensorProto.BOOL, 1))
    return copy


def gpt_bigcode() -> onnx.ModelProto:
    """Keys and values in one tensor, as only this family has them: enough of it to be refused."""
    graph = Graph()
    batch, sequence, total = "batch_size", "sequence_length", "total_sequence_length"
    past, present = (f"{when}.0.key_value" for when in ("past_key_values", "present"))
    both = 2 * decoder.HEAD
    graph.weight("embedding", decoder.weights("bigcode", VOCABULARY, both))
    new = graph.node("Gather", ["embedding", "input_ids"], "embedded")
    graph.node("Concat", [past, new], present, axis=1)
    graph.product(new, "head", decoder.weights("bigcode.head", both, VOCABULARY), "logits")
    return graph.model(
        "gpt-bigcode",
        [
            value("input_ids", TensorProto.INT64, batch, sequence),
            value("attention_mask", TensorProto.INT64, batch, total),
            value("position_ids", TensorProto.INT64, batch, sequence),
            value(past, TensorProto.FLOAT, batch, "past_sequence_length", both),
        ],
        [
            value("logits", TensorProto.FLOAT, batch, sequence, VOCABULARY),
            value(present, TensorProto.FLOAT, batch, total, both),
        ],
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--layouts", type=pathlib.Path, nargs="?", const=ROOT / ".models")
    out = parser.parse_args().layouts

    folders = Folders()
    if out is None:
        files = folders.native("tiny")
        published.write(COMMITTED, files)
        for name, content in files.items():
            print(f"{name}: {len(content):,} bytes, sha256 {hashlib.sha256(content).hexdigest()}")
        return
    for name, files in folders.all().items():
        shutil.rmtree(out / name, ignore_errors=True)  # a file of an older script would be found
        published.write(out / name, files)
    check_layouts.check(COMMITTED, out)


if __name__ == "__main__":
    main()
