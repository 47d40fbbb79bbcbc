"""The tiny decoder: one set of weights, in the forms that such models are published in.

A Llama in small: 2 layers, 0.14 M weights. They are random and come from a hash rather than from
numpy's generators, whose streams may change between versions.
"""

import dataclasses
import hashlib
import math

import numpy as np
import onnx
import tokenizers
from onnx import TensorProto

from graph import Graph, value
from tiny_tokenizer import SPECIAL, VOCABULARY

SEED = "nearhop tiny 1"
LAYERS = 2
WIDTH = 64
QUERY_HEADS, KV_HEADS, HEAD = 4, 2, 16
FEED_FORWARD = 128
CONTEXT = 256
POSITIONS = 2 * CONTEXT  # a key-value buffer may be larger than what is used of it
THETA = 10_000.0
EPSILON = 1e-5

PACKED_HEADS = (QUERY_HEADS + 2 * KV_HEADS) * HEAD
ONES = np.ones(WIDTH, np.float32)


@dataclasses.dataclass(frozen=True)
class Form:
    """What may differ between two files of the same weights.

    `exported` is a graph of standard operators that appends to its key-value tensors, as PyTorch's
    exporter writes it; otherwise attention is one operator on buffers of a fixed size. Element,
    bits and accuracy are the Graph's. A file whose weights are float16 may give its logits as
    float32 (`wide_logits`). After the token `nan_token` the logits are not numbers.
    """

    exported: bool = False
    element: type = np.float32
    bits: int | None = None
    accuracy_level: int = 4
    wide_logits: bool = False
    nan_token: int | None = None


def config() -> dict:
    """The sizes above, by the names that Transformers has for them."""
    return {
        "architectures": ["LlamaForCausalLM"],
        "attention_bias": False,
        "head_dim": HEAD,
        "hidden_act": "silu",
        "hidden_size": WIDTH,
        "intermediate_size": FEED_FORWARD,
        "max_position_embeddings": CONTEXT,
        "mlp_bias": False,
        "model_type": "llama",
        "num_attention_heads": QUERY_HEADS,
        "num_hidden_layers": LAYERS,
        "num_key_value_heads": KV_HEADS,
        "rms_norm_eps": EPSILON,
        "rope_theta": THETA,
        "tie_word_embeddings": False,
        "vocab_size": VOCABULARY,
    }


def weights(name: str, rows: int, columns: int, scale: float = 1.0) -> np.ndarray:
    """Uniform, with the variance that keeps a product's size: `scale`² / rows."""
    raw = hashlib.shake_256(f"{SEED}/{name}".encode()).digest(4 * rows * columns)
    unit = np.frombuffer(raw, "<u4").astype(np.float64) / 2.0**31 - 1.0
    return (unit * (scale * math.sqrt(3.0 / rows))).reshape(rows, columns).astype(np.float32)


def rotary() -> tuple[np.ndarray, np.ndarray]:
    """The cosines and sines of the position embedding, [POSITIONS, HEAD / 2]."""
    angles = [[p / THETA ** (2 * i / HEAD) for i in range(HEAD // 2)] for p in range(POSITIONS)]
    cosines = [[math.cos(angle) for angle in row] for row in angles]
    sines = [[math.sin(angle) for angle in row] for row in angles]
    return np.array(cosines, np.float32), np.array(sines, np.float32)


def head(tokenizer: tokenizers.Tokenizer) -> np.ndarray:
    """From the last state to logits, [WIDTH, VOCABULARY].

    A column of zeros is a token that never wins: among hundreds of others one is always above zero.
    That is the lot of all specials but the end, of control characters but tab and line feed, and of
    what is part of a character only.
    """
    columns = weights("head", WIDTH, VOCABULARY)
    for token in range(1, VOCABULARY):
        text = tokenizer.decode([token], skip_special_tokens=False)
        shown = text.isascii() and all(c.isprintable() or c in "\t\n" for c in text)
        if token < len(SPECIAL) or not shown:
            columns[:, token] = 0.0
    return columns


class Fused:
    """ONNX Runtime's operators for norms and attention; keys and values stay in fixed buffers."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        cosines, sines = rotary()
        graph.weight("cosines", cosines)
        graph.weight("sines", sines)
        self.inputs = [
            value("input_ids", TensorProto.INT64, "batch", "seq"),
            value("seqlens_k", TensorProto.INT32, "batch"),
            value("total_sequence_length", TensorProto.INT32),
        ]
        self.past = self.present = ("batch", KV_HEADS, "max_len", HEAD)
        self.logits = ("batch", "seq", VOCABULARY)

    def norm(self, stream: str, name: str) -> str:
        scale = self.graph.weight(f"{name}.scale", ONES)
        return self.graph.node(
            "SimplifiedLayerNormalization", [stream, scale], name, axis=-1, epsilon=EPSILON
        )

    def add_and_norm(self, stream: str, change: str, name: str) -> tuple[str, str]:
        """The next norm's output, and the residual stream it was taken of."""
        scale = self.graph.weight(f"{name}.scale", ONES)
        self.graph.node(
            "SkipSimplifiedLayerNormalization",
            [stream, change, scale],
            name,
            "",
            "",
            f"{name}.stream",
            epsilon=EPSILON,
        )
        return name, f"{name}.stream"

    def attention(
        self, normed: str, name: str, qkv: np.ndarray, past: list[str], present: list[str]
    ) -> str:
        packed = self.graph.product(normed, f"{name}.qkv", qkv)
        return self.graph.node(
            "GroupQueryAttention",
            [packed, "", "", *past, "seqlens_k", "total_sequence_length", "cosines", "sines"],
            name,
            *present,
            num_heads=QUERY_HEADS,
            kv_num_heads=KV_HEADS,
            do_rotary=1,
            rotary_interleaved=0,
        )


class Exported:
    """Standard operators only: what a PyTorch model becomes when it is exported with its past."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        batch, sequence, total = "batch_size", "sequence_length", "total_sequence_length"
        self.inputs = [
            value("input_ids", TensorProto.INT64, batch, sequence),
            value("attention_mask", TensorProto.INT64, batch, total),
            value("position_ids", TensorProto.INT64, batch, sequence),
        ]
        self.past = (batch, KV_HEADS, "past_sequence_length", HEAD)
        self.present = (batch, KV_HEADS, total, HEAD)
        self.logits = (batch, sequence, VOCABULARY)
        for axis in (-1, 1, 2):
            graph.constant(f"axis.{axis}", np.array([axis], np.int64))
        self.rotary_from_position_ids()
        self.bias_from_attention_mask()
        graph.weight("attention.scale", np.float32(HEAD**-0.5))
        graph.constant("split.queries", np.array([0, 0, QUERY_HEADS, HEAD], np.int64))
        graph.constant("split.keys", np.array([0, 0, KV_HEADS, HEAD], np.int64))
        graph.constant("join.heads", np.array([0, 0, QUERY_HEADS * HEAD], np.int64))
        shared = QUERY_HEADS // KV_HEADS
        graph.constant("repeats", np.array([1, 1, shared, 1, 1], np.int64))
        graph.constant("repeated", np.array([0, QUERY_HEADS, -1, HEAD], np.int64))
        graph.constant("halves", np.array([HEAD // 2, HEAD // 2], np.int64))
        graph.weight("two", np.float32(2.0))
        graph.weight("epsilon", np.float32(EPSILON))

    def rotary_from_position_ids(self) -> None:
        """Cosines and sines, [batch, 1, sequence, HEAD]. Angles are float32 in every file."""
        node = self.graph.node
        frequencies = THETA ** (-np.arange(0, HEAD, 2) / HEAD)
        self.graph.constant("rotary.frequencies", frequencies.astype(np.float32))
        positions = node("Cast", ["position_ids"], "rotary.positions", to=TensorProto.FLOAT)
        column = node("Unsqueeze", [positions, "axis.-1"], "rotary.column")
        half = node("Mul", [column, "rotary.frequencies"], "rotary.half")
        angles = node("Concat", [half, half], "rotary.angles", axis=-1)
        for kind, name in (("Cos", "rotary.cosines"), ("Sin", "rotary.sines")):
            exact = node(kind, [angles], f"{name}.exact")
            narrow = node("Cast", [exact], f"{name}.cast", to=self.graph.kind)
            node("Unsqueeze", [narrow, "axis.1"], name)

    def bias_from_attention_mask(self) -> None:
        """[batch, 1, sequence, total]: 0 where a token may look, else the lowest number."""
        node, constant = self.graph.node, self.graph.constant
        constant("zero", np.int64(0))
        constant("one", np.int64(1))
        constant("axes.1.2", np.array([1, 2], np.int64))
        total = node("Shape", ["attention_mask"], "mask.total.shape", start=1, end=2)
        total = node("Squeeze", [total], "mask.total")
        sequence = node("Shape", ["input_ids"], "mask.sequence.shape", start=1, end=2)
        sequence = node("Squeeze", [sequence], "mask.sequence")
        past = node("Sub", [total, sequence], "mask.past")
        columns = node("Range", ["zero", total, "one"], "mask.columns")
        rows = node("Range", [past, total, "one"], "mask.rows.range")
        rows = node("Unsqueeze", [rows, "axis.1"], "mask.rows")
        causal = node("LessOrEqual", [columns, rows], "mask.causal")
        real = node("Cast", ["attention_mask"], "mask.real.cast", to=TensorProto.BOOL)
        real = node("Unsqueeze", [real, "axes.1.2"], "mask.real")
        seen = node("And", [causal, real], "mask.seen")
        open_ = self.graph.weight("mask.open", np.float32(0.0))
        shut = constant("mask.shut", np.array(np.finfo(self.graph.element).min))
        node("Where", [seen, open_, shut], "mask.bias")

    def norm(self, stream: str, name: str) -> str:
        node = self.graph.node
        square = node("Pow", [stream, "two"], f"{name}.square")
        mean = node("ReduceMean", [square], f"{name}.mean", axes=[-1])
        sum_ = node("Add", [mean, "epsilon"], f"{name}.sum")
        root = node("Sqrt", [sum_], f"{name}.root")
        unit = node("Div", [stream, root], f"{name}.unit")
        return node("Mul", [self.graph.weight(f"{name}.scale", ONES), unit], name)

    def add_and_norm(self, stream: str, change: str, name: str) -> tuple[str, str]:
        stream = self.graph.node("Add", [stream, change], f"{name}.stream")
        return self.norm(stream, name), stream

    def rotated(self, name: str) -> str:
        node = self.graph.node
        node("Split", [name, "halves"], f"{name}.first", f"{name}.second", axis=-1)
        negated = node("Neg", [f"{name}.second"], f"{name}.negated")
        turned = node("Concat", [negated, f"{name}.first"], f"{name}.turned", axis=-1)
        straight = node("Mul", [name, "rotary.cosines"], f"{name}.straight")
        across = node("Mul", [turned, "rotary.sines"], f"{name}.across")
        return node("Add", [straight, across], f"{name}.rotated")

    def attention(
        self, normed: str, name: str, qkv: np.ndarray, past: list[str], present: list[str]
    ) -> str:
        node = self.graph.node
        cuts = [QUERY_HEADS * HEAD, (QUERY_HEADS + KV_HEADS) * HEAD]
        heads = []
        for part, columns in zip(("queries", "keys", "values"), np.split(qkv, cuts, axis=1)):
            flat = self.graph.product(normed, f"{name}.{part}.product", columns)
            shape = "split.queries" if part == "queries" else "split.keys"
            split = node("Reshape", [flat, shape], f"{name}.{part}.split")
            heads.append(node("Transpose", [split], f"{name}.{part}", perm=[0, 2, 1, 3]))
        queries, keys, values = heads
        queries, keys = self.rotated(queries), self.rotated(keys)

        # Several query heads share a key-value head: it is repeated for each of them.
        for old, new, both in zip(past, (keys, values), present):
            node("Concat", [old, new], both, axis=2)
            wide = node("Unsqueeze", [both, "axis.2"], f"{both}.wide")
            expanded = node("Expand", [wide, "repeats"], f"{both}.expanded")
            node("Reshape", [expanded, "repeated"], f"{both}.repeated")
        key, values = (f"{both}.repeated" for both in present)

        turned = node("Transpose", [key], f"{name}.turned", perm=[0, 1, 3, 2])
        raw = node("MatMul", [queries, turned], f"{name}.scores.raw")
        scaled = node("Mul", [raw, "attention.scale"], f"{name}.scores.scaled")
        scores = node("Add", [scaled, "mask.bias"], f"{name}.scores")
        shares = node("Softmax", [scores], f"{name}.shares", axis=-1)
        mixed = node("MatMul", [shares, values], f"{name}.mixed")
        mixed = node("Transpose", [mixed], f"{name}.mixed.turned", perm=[0, 2, 1, 3])
        return node("Reshape", [mixed, "join.heads"], name)


def decoder(tokenizer: tokenizers.Tokenizer, form: Form = Form()) -> onnx.ModelProto:
    graph = Graph(form.element, form.bits, form.accuracy_level)
    style = Exported(graph) if form.exported else Fused(graph)
    inputs, outputs = list(style.inputs), []

    # Rows of unit size, as if the table had one row: a look-up adds nothing up.
    graph.weight("embedding", weights("embedding", VOCABULARY, WIDTH, math.sqrt(VOCABULARY)))
    stream = graph.node("Gather", ["embedding", "input_ids"], "embedded")
    normed = style.norm(stream, "0.attention.norm")
    for layer in range(LAYERS):
        past = [f"past_key_values.{layer}.{part}" for part in ("key", "value")]
        present = [f"present.{layer}.{part}" for part in ("key", "value")]
        inputs += [value(name, graph.kind, *style.past) for name in past]
        outputs += [value(name, graph.kind, *style.present) for name in present]

        # Larger than usual, so that attention chooses instead of averaging.
        qkv = weights(f"{layer}.attention.qkv", WIDTH, PACKED_HEADS, scale=1.6)
        mixed = style.attention(normed, f"{layer}.attention", qkv, past, present)
        out = weights(f"{layer}.attention.out", QUERY_HEADS * HEAD, WIDTH, scale=1.6)
        mixed = graph.product(mixed, f"{layer}.attention.out", out)
        normed, stream = style.add_and_norm(stream, mixed, f"{layer}.feed.norm")

        name = f"{layer}.feed"
        gate = graph.product(normed, f"{name}.gate", weights(f"{name}.gate", WIDTH, FEED_FORWARD))
        switch = graph.node("Sigmoid", [gate], f"{name}.sigmoid")
        opened = graph.node("Mul", [gate, switch], f"{name}.silu")
        up = graph.product(normed, f"{name}.up", weights(f"{name}.up", WIDTH, FEED_FORWARD))
        inner = graph.node("Mul", [opened, up], f"{name}.inner")
        down = weights(f"{name}.down", FEED_FORWARD, WIDTH, scale=1.6)
        change = graph.product(inner, f"{name}.down", down)
        after = "final.norm" if layer + 1 == LAYERS else f"{layer + 1}.attention.norm"
        normed, stream = style.add_and_norm(stream, change, after)

    logits(graph, form, normed, head(tokenizer))
    kind = TensorProto.FLOAT if form.wide_logits else graph.kind
    return graph.model("tiny", inputs, [value("logits", kind, *style.logits), *outputs])


def logits(graph: Graph, form: Form, normed: str, columns: np.ndarray) -> None:
    if form.nan_token is not None:
        plain = graph.product(normed, "head", columns, output="head.product")
        graph.constant("nan.token", np.int64(form.nan_token))
        graph.constant("nan.axis", np.array([-1], np.int64))
        graph.weight("nan", np.float32("nan"))
        hit = graph.node("Equal", ["input_ids", "nan.token"], "nan.hit")
        row = graph.node("Unsqueeze", [hit, "nan.axis"], "nan.row")
        graph.node("Where", [row, "nan", plain], "logits")
    elif form.wide_logits:
        narrow = graph.product(normed, "head", columns, output="head.product")
        graph.node("Cast", [narrow], "logits", to=TensorProto.FLOAT)
    else:
        graph.product(normed, "head", columns, output="logits")
