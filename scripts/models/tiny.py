"""Writes the tests' model, origin-inference/tests/fixtures/tiny: 0.14 M random weights that decode.

    python3 -m venv /tmp/tiny
    /tmp/tiny/bin/pip install numpy==2.4.6 onnx==1.23.2 tokenizers==0.23.3
    /tmp/tiny/bin/python scripts/models/tiny.py

It has the graph, the tokenizer and the manifest of origin-inference/models/nearhop-mini in small,
in fp32, so that tests can ask for the same tokens: alone and in a batch, with and without a cached
prefix. Logits of two such runs are equal or some 10⁻⁶ apart (a chunk of one token, a padded row),
and the best token leads by far more. It has learned nothing. What it says depends on every token it
was given, which finds a wrong cache, and is printable text, which a failing test can show.

Made once and committed: the same script and versions give the same bytes. Weights come from a hash
rather than from numpy's generators, whose streams may change between versions.
"""

import hashlib
import math
import pathlib

import numpy as np
import onnx
import tokenizers
from onnx import TensorProto, helper, numpy_helper

OUT = pathlib.Path(__file__).resolve().parents[2] / "origin-inference/tests/fixtures/tiny"

SEED = "nearhop tiny 1"
LAYERS = 2
WIDTH = 64
QUERY_HEADS, KV_HEADS, HEAD = 4, 2, 16
FEED_FORWARD = 128
VOCABULARY = 512
CONTEXT = 256
POSITIONS = 2 * CONTEXT  # a key-value buffer may be larger than what is used of it
THETA = 10_000.0
EPSILON = 1e-5

SPECIAL = [
    "<|endoftext|>",
    "<|fim_prefix|>",
    "<|fim_suffix|>",
    "<|fim_middle|>",
    "<|fim_pad|>",
    "<|repo_name|>",
    "<|file_sep|>",
    "<|reserved|>",
]

# Words, digits one by one, punctuation with its line end, line breaks with their indentation.
PIECES = r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"

# What the tokenizer's merges are learned from. Changing it changes the fixture.
CORPUS = '''
pub struct Counter { name: String, value: u64, limit: Option<u64> }

impl Counter {
    pub fn new(name: &str) -> Self {
        Self { name: name.to_string(), value: 0, limit: None }
    }

    pub fn with_limit(mut self, limit: u64) -> Self {
        self.limit = Some(limit);
        self
    }

    pub fn increment(&mut self, by: u64) -> Result<u64, Error> {
        let next = self.value.checked_add(by).ok_or(Error::Overflow)?;
        match self.limit {
            Some(limit) if next > limit => Err(Error::Limit { value: next, limit }),
            _ => {
                self.value = next;
                Ok(next)
            }
        }
    }
}

impl Iterator for Lines<'_> {
    type Item = String;

    fn next(&mut self) -> Option<Self::Item> {
        let mut line = String::new();
        while let Some(byte) = self.bytes.next() {
            if byte == b'\\n' {
                return Some(line);
            }
            line.push(char::from(byte));
        }
        if line.is_empty() { None } else { Some(line) }
    }
}

fn main() {
    let mut values = vec![1, 2, 3];
    for value in values.iter_mut() {
        *value += 1;
    }
    let total: u64 = values.iter().map(|value| value * 2).filter(|value| value % 3 == 0).sum();
    println!("total = {total}, first = {:?}", values.first());
}

def read_numbers(path, limit=None):
    """Return the numbers in the file, one on each line, at most `limit` of them."""
    numbers = []
    with open(path) as lines:
        for line in lines:
            line = line.strip()
            if not line or line.startswith("#"):
                continue
            numbers.append(float(line))
            if limit is not None and len(numbers) >= limit:
                break
    return numbers

class Stack:
    def __init__(self, items=None):
        self.items = list(items or [])

    def push(self, item):
        self.items.append(item)
        return self

    def pop(self):
        if not self.items:
            raise IndexError("pop from an empty stack")
        return self.items.pop()

    def __len__(self):
        return len(self.items)

def mean(numbers):
    return sum(numbers) / len(numbers) if numbers else 0.0

def is_prime(number: int) -> bool:
    if number < 2:
        return False
    for divisor in range(2, int(number ** 0.5) + 1):
        if number % divisor == 0:
            return False
    return True

if __name__ == "__main__":
    print([number for number in range(20) if is_prime(number)])
    print(mean(read_numbers("numbers.txt", limit=10)))
'''

CHAT = r"{% for m in messages %}# {{ m.role }}: {{ m.content }}\n{% endfor %}# assistant: "

MANIFEST = f"""\
# A test's model: random weights, nothing learned. Made by scripts/models/tiny.py.
name: tiny
revision: "1"
context_length: {CONTEXT}          # tokens, prompt and answer together
fim_window: {{prefix: 128, suffix: 64}}
end_tokens: [0]
fim:
  tokens: {{prefix: 1, suffix: 2, middle: 3}}
  order: suffix_first
sampling: {{temperature: 0.0, top_p: 1.0, max_tokens: 16}}
chat_template: "{CHAT}"
"""


def tokenizer() -> tokenizers.Tokenizer:
    """Byte-level BPE: the specials, all 256 bytes, then merges until the vocabulary is full."""
    made = tokenizers.Tokenizer(tokenizers.models.BPE())
    made.pre_tokenizer = tokenizers.pre_tokenizers.Sequence(
        [
            tokenizers.pre_tokenizers.Split(tokenizers.Regex(PIECES), behavior="isolated"),
            tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    made.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=SPECIAL,
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    made.train_from_iterator([CORPUS], trainer)
    size = made.get_vocab_size()
    assert size == VOCABULARY, f"the corpus gives {size} tokens: too short for {VOCABULARY}"
    return made


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


def head(made: tokenizers.Tokenizer) -> np.ndarray:
    """From the last state to logits, [WIDTH, VOCABULARY].

    A column of zeros is a token that never wins: among hundreds of others one is always above zero.
    That is the lot of all specials but the end, of control characters but tab and line feed, and of
    what is part of a character only.
    """
    columns = weights("head", WIDTH, VOCABULARY)
    for token in range(1, VOCABULARY):
        text = made.decode([token], skip_special_tokens=False)
        shown = text.isascii() and all(c.isprintable() or c in "\t\n" for c in text)
        if token < len(SPECIAL) or not shown:
            columns[:, token] = 0.0
    return columns


class Graph:
    """An ONNX graph being written, node by node."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def constant(self, name: str, value: np.ndarray) -> str:
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name

    def node(self, kind: str, inputs: list[str], output: str, *more: str, **attributes) -> str:
        """Adds a node and gives the name of its first output, which is also the node's."""
        domain = "com.microsoft" if kind in CONTRIBUTED else ""
        outputs = [output, *more]
        self.nodes.append(
            helper.make_node(kind, inputs, outputs, name=output, domain=domain, **attributes)
        )
        return output


CONTRIBUTED = {"GroupQueryAttention", "SkipSimplifiedLayerNormalization"}


def model(made: tokenizers.Tokenizer) -> onnx.ModelProto:
    graph = Graph()
    cosines, sines = rotary()
    graph.constant("cosines", cosines)
    graph.constant("sines", sines)
    ones = np.ones(WIDTH, np.float32)

    def value(name: str, kind: int, *shape: int | str) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(name, kind, shape)

    inputs = [
        value("input_ids", TensorProto.INT64, "batch", "seq"),
        value("seqlens_k", TensorProto.INT32, "batch"),
        value("total_sequence_length", TensorProto.INT32),
    ]
    outputs = [value("logits", TensorProto.FLOAT, "batch", "seq", VOCABULARY)]

    def product(left: str, name: str, rows: int, columns: int, scale: float = 1.0) -> str:
        right = graph.constant(f"{name}.weight", weights(name, rows, columns, scale))
        return graph.node("MatMul", [left, right], name)

    def add_and_norm(stream: str, change: str, name: str) -> tuple[str, str]:
        """The next norm's output, and the residual stream it was taken of."""
        scale = graph.constant(f"{name}.scale", ones)
        graph.node(
            "SkipSimplifiedLayerNormalization",
            [stream, change, scale],
            name,
            "",
            "",
            f"{name}.stream",
            epsilon=EPSILON,
        )
        return name, f"{name}.stream"

    # Rows of unit size, as if the table had one row: a look-up adds nothing up.
    graph.constant("embedding", weights("embedding", VOCABULARY, WIDTH, math.sqrt(VOCABULARY)))
    stream = graph.node("Gather", ["embedding", "input_ids"], "embedded")
    normed = graph.node(
        "SimplifiedLayerNormalization",
        [stream, graph.constant("0.attention.norm.scale", ones)],
        "0.attention.norm",
        axis=-1,
        epsilon=EPSILON,
    )
    for layer in range(LAYERS):
        past = [f"past_key_values.{layer}.{part}" for part in ("key", "value")]
        present = [f"present.{layer}.{part}" for part in ("key", "value")]
        cache = ("batch", KV_HEADS, "max_len", HEAD)
        inputs += [value(name, TensorProto.FLOAT, *cache) for name in past]
        outputs += [value(name, TensorProto.FLOAT, *cache) for name in present]

        # Larger than usual, so that attention chooses instead of averaging.
        heads = (QUERY_HEADS + 2 * KV_HEADS) * HEAD
        packed = product(normed, f"{layer}.attention.qkv", WIDTH, heads, scale=1.6)
        mixed = graph.node(
            "GroupQueryAttention",
            [packed, "", "", *past, "seqlens_k", "total_sequence_length", "cosines", "sines"],
            f"{layer}.attention",
            *present,
            num_heads=QUERY_HEADS,
            kv_num_heads=KV_HEADS,
            do_rotary=1,
            rotary_interleaved=0,
        )
        mixed = product(mixed, f"{layer}.attention.out", QUERY_HEADS * HEAD, WIDTH, scale=1.6)
        normed, stream = add_and_norm(stream, mixed, f"{layer}.feed.norm")

        gate = product(normed, f"{layer}.feed.gate", WIDTH, FEED_FORWARD)
        switch = graph.node("Sigmoid", [gate], f"{layer}.feed.sigmoid")
        opened = graph.node("Mul", [gate, switch], f"{layer}.feed.silu")
        up = product(normed, f"{layer}.feed.up", WIDTH, FEED_FORWARD)
        inner = graph.node("Mul", [opened, up], f"{layer}.feed.inner")
        change = product(inner, f"{layer}.feed.down", FEED_FORWARD, WIDTH, scale=1.6)
        after = "final.norm" if layer + 1 == LAYERS else f"{layer + 1}.attention.norm"
        normed, stream = add_and_norm(stream, change, after)

    graph.node("MatMul", [normed, graph.constant("head.weight", head(made))], "logits")
    return helper.make_model(
        helper.make_graph(graph.nodes, "tiny", inputs, outputs, graph.constants),
        ir_version=9,
        opset_imports=[helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)],
    )


def main() -> None:
    made = tokenizer()
    files = {
        "model.onnx": model(made).SerializeToString(deterministic=True),
        "tokenizer.json": (made.to_str(pretty=True) + "\n").encode(),
        "nearhop.yaml": MANIFEST.encode(),
    }
    OUT.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (OUT / name).write_bytes(content)
        print(f"{name}: {len(content):,} bytes, sha256 {hashlib.sha256(content).hexdigest()}")


if __name__ == "__main__":
    main()
