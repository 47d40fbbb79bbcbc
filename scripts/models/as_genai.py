"""Makes a folder for onnxruntime-genai of one of our own: the same weights, the same nodes.

    python scripts/models/as_genai.py origin-inference/models/nearhop-mini OUT

Our models are told the lengths of a batch's rows; genai's derive them from the attention mask.
Those few nodes are put in front, and nothing else changes, so that both can be measured on the same
file. Needs onnx (scripts/models/requirements.txt).
"""

import argparse
import pathlib
import re

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

import published
from graph import value


def lengths_from_mask(model: onnx.ModelProto) -> None:
    """Replaces the inputs `seqlens_k` and `total_sequence_length` by `attention_mask`."""
    graph = model.graph
    lengths = {"seqlens_k", "total_sequence_length"}
    kept = [given for given in graph.input if given.name not in lengths]
    if len(kept) + 2 != len(graph.input):
        raise SystemExit("as_genai: this model does not have our inputs")
    mask = value("attention_mask", TensorProto.INT64, "batch_size", "total_sequence_length")
    del graph.input[:]
    graph.input.extend([kept[0], mask, *kept[1:]])

    numbers = {"row": np.array([1], np.int64), "one": np.int64(1), "second": np.int64(1)}
    graph.initializer.extend(
        numpy_helper.from_array(np.asarray(number), f"attention_mask.{name}")
        for name, number in numbers.items()
    )

    def node(kind: str, inputs: list[str], output: str, **attributes) -> onnx.NodeProto:
        inputs = [f"attention_mask{name}" for name in inputs]
        return helper.make_node(kind, inputs, [output], name=output, **attributes)

    front = [
        node("ReduceSum", ["", ".row"], "attention_mask.sum", keepdims=0),
        node("Sub", [".sum", ".one"], "attention_mask.last"),
        node("Cast", [".last"], "seqlens_k", to=TensorProto.INT32),
        node("Shape", [""], "attention_mask.shape"),
        node("Gather", [".shape", ".second"], "attention_mask.total", axis=0),
        node("Cast", [".total"], "total_sequence_length", to=TensorProto.INT32),
    ]
    nodes = list(graph.node)
    del graph.node[:]
    graph.node.extend(front + nodes)

    # genai knows a cache's length by these names only in its own files, but readers know them too.
    for given in (*graph.input, *graph.output):
        if given.name.startswith(("past_key_values.", "present.")):
            past = given.name.startswith("past")
            dimensions = given.type.tensor_type.shape.dim
            dimensions[2].dim_param = "past_sequence_length" if past else "total_sequence_length"
        for dimension in given.type.tensor_type.shape.dim:
            renamed = {"batch": "batch_size", "seq": "sequence_length"}
            if dimension.dim_param in renamed:
                dimension.dim_param = renamed[dimension.dim_param]


def sizes(model: onnx.ModelProto) -> dict:
    """What genai_config.json says of the graph, read from the graph."""
    attentions = [node for node in model.graph.node if node.op_type == "GroupQueryAttention"]
    attributes = {attribute.name: attribute.i for attribute in attentions[0].attribute}
    shape = {
        given.name: given.type.tensor_type.shape.dim
        for given in (*model.graph.input, *model.graph.output)
    }
    head = shape["past_key_values.0.key"][3].dim_value
    return {
        "head_size": head,
        "hidden_size": head * attributes["num_heads"],
        "num_attention_heads": attributes["num_heads"],
        "num_hidden_layers": len(attentions),
        "num_key_value_heads": attributes["kv_num_heads"],
        "vocab_size": shape["logits"][2].dim_value,
    }


def side_files(model: onnx.ModelProto, tokenizer: bytes, context: int, end: int) -> dict:
    """All of the folder but the model."""
    return {
        "genai_config.json": published.as_json(published.genai_config(sizes(model), context, end)),
        "tokenizer.json": tokenizer,
        "tokenizer_config.json": published.as_json(
            published.tokenizer_config(tokenizer, context, end)
        ),
    }


def manifest_numbers(manifest: str) -> tuple[int, int]:
    """nearhop.yaml's context length and first end token; not worth a YAML reader."""
    context = re.search(r"^context_length: *(\d+)", manifest, re.MULTILINE)
    end = re.search(r"^end_tokens: *\[ *(\d+)", manifest, re.MULTILINE)
    if not context or not end:
        raise SystemExit("as_genai: nearhop.yaml lacks context_length or end_tokens")
    return int(context[1]), int(end[1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("source", type=pathlib.Path, help="a folder with our own nearhop.yaml")
    parser.add_argument("out", type=pathlib.Path)
    given = parser.parse_args()

    model = onnx.load(given.source / "model.onnx")
    tokenizer = (given.source / "tokenizer.json").read_bytes()
    context, end = manifest_numbers((given.source / "nearhop.yaml").read_text())
    lengths_from_mask(model)
    files = side_files(model, tokenizer, context, end)
    files["model.onnx"] = model.SerializeToString(deterministic=True)
    published.write(given.out, files)


if __name__ == "__main__":
    main()
