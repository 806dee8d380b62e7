"""The GPT that is trained, in plain torch, and one step of its training.

Nothing in a step waits for the device: the batches are already on it, clipping does not read the
norm, and the optimizer is the fused AdamW. So the waits that a logger adds become visible.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional

POOL = 8
"""Batches on the device, used in turn."""


@dataclass(frozen=True)
class Shape:
    """A model's size."""

    layers: int
    width: int
    heads: int
    vocabulary: int
    sequence: int


SHAPES = {
    "tiny": Shape(layers=1, width=16, heads=2, vocabulary=64, sequence=8),
    "small": Shape(layers=1, width=256, heads=4, vocabulary=2048, sequence=128),
    "medium": Shape(layers=4, width=512, heads=8, vocabulary=8192, sequence=512),
    # 12 layers of 12 width^2, and the embedding: 123 million parameters.
    "large": Shape(layers=12, width=896, heads=14, vocabulary=8192, sequence=1024),
}


class Block(nn.Module):
    """Attention and MLP, each with a norm before it and a residual path around it."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.heads = shape.heads
        self.norm_attention = nn.LayerNorm(shape.width)
        self.query_key_value = nn.Linear(shape.width, 3 * shape.width, bias=False)
        self.project = nn.Linear(shape.width, shape.width, bias=False)
        self.norm_mlp = nn.LayerNorm(shape.width)
        self.up = nn.Linear(shape.width, 4 * shape.width, bias=False)
        self.down = nn.Linear(4 * shape.width, shape.width, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map `(batch, time, width)` to the same shape."""
        batch, time, width = x.shape
        split = (batch, time, 3, self.heads, width // self.heads)
        qkv = self.query_key_value(self.norm_attention(x)).view(split).permute(2, 0, 3, 1, 4)
        attended = functional.scaled_dot_product_attention(qkv[0], qkv[1], qkv[2], is_causal=True)
        x = x + self.project(attended.transpose(1, 2).reshape(batch, time, width))
        thought: torch.Tensor = self.down(functional.gelu(self.up(self.norm_mlp(x))))
        return x + thought


class GPT(nn.Module):
    """A decoder-only transformer; the output layer shares the embedding's weights."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.token = nn.Embedding(shape.vocabulary, shape.width)
        self.position = nn.Parameter(torch.zeros(shape.sequence, shape.width))
        self.blocks = nn.ModuleList(Block(shape) for _ in range(shape.layers))
        self.norm = nn.LayerNorm(shape.width)
        for parameter in self.parameters():
            if parameter.dim() > 1:
                nn.init.normal_(parameter, std=0.02)

    def losses(self, tokens: torch.Tensor) -> torch.Tensor:
        """Return the cross-entropy of each next token in nats, float32, 1-D."""
        inputs, targets = tokens[:, :-1], tokens[:, 1:]
        x = self.token(inputs) + self.position
        for block in self.blocks:
            x = block(x)
        logits = functional.linear(self.norm(x), self.token.weight).float()
        return functional.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="none")


@dataclass(slots=True)
class Scalars:
    """The results of a step: four new 0-dim tensors on the device."""

    loss: torch.Tensor
    grad_norm: torch.Tensor
    loss_max: torch.Tensor
    loss_std: torch.Tensor


KEYS = ("loss", "grad_norm", "loss_max", "loss_std", "lr")


class Training:
    """A model in training."""

    def __init__(self, shape: Shape, batch: int, target: Any) -> None:
        """Create model, optimizer and batches.

        Args:
            shape: The model's size.
            batch: Sequences in a batch.
            target: A `benchmarks.gpu.target.Target`.
        """
        torch.manual_seed(1)
        self.shape = shape
        self.model = GPT(shape).to(target.device, target.dtype)
        self.parameters = list(self.model.parameters())
        self.optimizer = torch.optim.AdamW(self.parameters, lr=1e-4, fused=target.cuda)
        self.device = target.device
        self.done = 0
        self.set_batch(batch)

    def set_batch(self, batch: int) -> None:
        """Create batches of another size."""
        self.batch = batch
        size = (POOL, batch, self.shape.sequence + 1)
        self.pool = torch.randint(self.shape.vocabulary, size, device=self.device).unbind(0)

    def size(self) -> int:
        """Return the number of parameters."""
        return sum(parameter.numel() for parameter in self.parameters)

    def step(self) -> tuple[Scalars, float]:
        """Train one step.

        Returns:
            The values to log: four device scalars, and the learning rate, a float.
        """
        losses = self.model.losses(self.pool[self.done % POOL])
        loss = losses.mean()
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        grad_norm = nn.utils.clip_grad_norm_(self.parameters, 1.0)
        lr = 1e-5 * (1.0 + math.cos(self.done / 1000.0))
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.optimizer.step()
        self.done += 1
        losses = losses.detach()
        return Scalars(loss.detach(), grad_norm.detach(), losses.amax(), losses.std()), lr
