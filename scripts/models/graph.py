"""Writing ONNX graphs node by node, with weights as they are or in blocks of few bits."""

import numpy as np
import onnx
from onnx import helper, numpy_helper

BLOCK = 32  # weights that share a scale

# ONNX Runtime's own operators; all others are ONNX's.
CONTRIBUTED = {
    "BiasGelu",
    "GroupQueryAttention",
    "MatMulNBits",
    "MultiHeadAttention",
    "SkipLayerNormalization",
    "SkipSimplifiedLayerNormalization",
}


def value(name: str, kind: int, *shape: int | str) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, shape)


class Graph:
    """An ONNX graph being written.

    `element` is what floating point weights are stored and computed in. `bits` is 4 or 8 to keep
    the weights of products in blocks (MatMulNBits), None to keep them whole. `accuracy_level` 4
    lets those products round their inputs to 8 bits, block by block, for speed.
    """

    def __init__(
        self, element: type = np.float32, bits: int | None = None, accuracy_level: int = 4
    ) -> None:
        self.element = np.dtype(element)
        self.bits = bits
        self.accuracy_level = accuracy_level
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    @property
    def kind(self) -> int:
        """The element as ONNX numbers it."""
        return helper.np_dtype_to_tensor_dtype(self.element)

    def constant(self, name: str, content: np.ndarray) -> str:
        # Not ascontiguousarray, which makes a scalar a vector of one.
        self.constants.append(numpy_helper.from_array(np.asarray(content, order="C"), name))
        return name

    def weight(self, name: str, content: np.ndarray) -> str:
        return self.constant(name, content.astype(self.element))

    def node(self, kind: str, inputs: list[str], output: str, *more: str, **attributes) -> str:
        """Adds a node and gives the name of its first output, which is also the node's."""
        domain = "com.microsoft" if kind in CONTRIBUTED else ""
        outputs = [output, *more]
        self.nodes.append(
            helper.make_node(kind, inputs, outputs, name=output, domain=domain, **attributes)
        )
        return output

    def product(self, left: str, name: str, right: np.ndarray, output: str | None = None) -> str:
        """`left` times the weights `right`, [inputs, outputs]."""
        output = output or name
        if self.bits is None:
            return self.node("MatMul", [left, self.weight(f"{name}.weight", right)], output)
        packed, scales = in_blocks(right, self.bits)
        weights = [self.constant(f"{name}.packed", packed), self.weight(f"{name}.scales", scales)]
        return self.node(
            "MatMulNBits",
            [left, *weights],
            output,
            K=right.shape[0],
            N=right.shape[1],
            bits=self.bits,
            block_size=BLOCK,
            accuracy_level=self.accuracy_level,
        )

    def model(
        self, name: str, inputs: list[onnx.ValueInfoProto], outputs: list[onnx.ValueInfoProto]
    ) -> onnx.ModelProto:
        operators = [helper.make_opsetid("", 17)]
        if any(node.domain for node in self.nodes):
            operators.append(helper.make_opsetid("com.microsoft", 1))
        graph = helper.make_graph(self.nodes, name, inputs, outputs, self.constants)
        return helper.make_model(graph, ir_version=9, opset_imports=operators)


def in_blocks(right: np.ndarray, bits: int) -> tuple[np.ndarray, np.ndarray]:
    """MatMulNBits' weights, [outputs, blocks, bytes], and its scales, [outputs, blocks].

    ONNX Runtime has a quantiser. This one is as short as a call to it, gives the same with every
    version, and needs no further packages. Codes are unsigned around 2^(bits-1). A block's largest
    weight gets the lowest code, which has no positive counterpart.
    """
    inputs, outputs = right.shape
    assert inputs % BLOCK == 0, f"{inputs} inputs are not whole blocks of {BLOCK}"
    blocks = right.T.reshape(outputs, inputs // BLOCK, BLOCK)
    middle = 2 ** (bits - 1)
    largest = np.take_along_axis(blocks, np.abs(blocks).argmax(2, keepdims=True), axis=2)
    scales = np.where(largest == 0.0, 1.0, largest / -middle)
    codes = np.clip(np.rint(blocks / scales) + middle, 0, 2 * middle - 1).astype(np.uint8)
    if bits == 4:
        codes = codes[:, :, 0::2] | codes[:, :, 1::2] << 4
    return codes, scales[:, :, 0].astype(np.float32)
