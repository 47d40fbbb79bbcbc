"""The network, for training: RMSNorm, rotary grouped-query attention, SwiGLU, a tied embedding.

What runs it in a pod is the graph that export.py writes; smoke.py holds one against the other.
"""

import torch
from torch import nn
from torch.nn import functional

from shape import Shape


class Layer(nn.Module):
    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        queries, keys = shape.query_heads * shape.head, shape.kv_heads * shape.head
        self.cuts = [queries, keys, keys]
        self.attention_norm = nn.RMSNorm(shape.width, shape.epsilon)
        self.qkv = nn.Linear(shape.width, sum(self.cuts), bias=False)
        self.out = nn.Linear(queries, shape.width, bias=False)
        self.feed_norm = nn.RMSNorm(shape.width, shape.epsilon)
        self.gate = nn.Linear(shape.width, shape.feed_forward, bias=False)
        self.up = nn.Linear(shape.width, shape.feed_forward, bias=False)
        self.down = nn.Linear(shape.feed_forward, shape.width, bias=False)
        for product in (self.qkv, self.gate, self.up):
            nn.init.normal_(product.weight, std=shape.width**-0.5)
        # A layer that adds nothing yet: the first steps learn single tokens.
        for product in (self.out, self.down):
            nn.init.zeros_(product.weight)

    def attention(self, x: torch.Tensor, rotary: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
        batch, sequence, _ = x.shape
        parts = self.qkv(x).split(self.cuts, -1)
        q, k, v = (
            part.view(batch, sequence, -1, self.shape.head).transpose(1, 2) for part in parts
        )
        q, k = turned(q, *rotary), turned(k, *rotary)
        shared = self.shape.query_heads // self.shape.kv_heads
        k, v = (part.repeat_interleave(shared, 1) for part in (k, v))
        mixed = functional.scaled_dot_product_attention(q, k.to(v.dtype), v, is_causal=True)
        return self.out(mixed.transpose(1, 2).reshape(batch, sequence, -1))

    def forward(self, x: torch.Tensor, rotary: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
        x = x + self.attention(self.attention_norm(x), rotary)
        normed = self.feed_norm(x)
        return x + self.down(functional.silu(self.gate(normed)) * self.up(normed))


def turned(x: torch.Tensor, cosines: torch.Tensor, sines: torch.Tensor) -> torch.Tensor:
    first, second = x.float().chunk(2, -1)
    both = (first * cosines - second * sines, second * cosines + first * sines)
    return torch.cat(both, -1).to(x.dtype)


class Model(nn.Module):
    """Its state's names are those of `Shape.weights`."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.embedding = nn.Embedding(shape.vocabulary, shape.width)
        nn.init.normal_(self.embedding.weight, std=0.02)
        self.layers = nn.ModuleList(Layer(shape) for _ in range(shape.layers))
        self.final_norm = nn.RMSNorm(shape.width, shape.epsilon)
        cosines, sines = map(torch.from_numpy, shape.rotary())
        self.register_buffer("cosines", cosines, persistent=False)
        self.register_buffer("sines", sines, persistent=False)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        sequence = tokens.shape[1]
        rotary = self.cosines[:sequence], self.sines[:sequence]
        x = self.embedding(tokens)
        for layer in self.layers:
            x = layer(x, rotary)
        return functional.linear(self.final_norm(x), self.embedding.weight)
