"""A minimal GPT that predicts the next character."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from foundry_fastlog.demo.config import ModelConfig


class Block(nn.Module):
    """One layer: causal self-attention, then an MLP."""

    def __init__(self, config: ModelConfig) -> None:
        """Create the layer's weights."""
        super().__init__()
        width = config.width
        self.heads = config.heads
        self.dropout = config.dropout
        self.norm_attention = nn.LayerNorm(width)
        self.query_key_value = nn.Linear(width, 3 * width)
        self.project = nn.Linear(width, width)
        self.norm_mlp = nn.LayerNorm(width)
        self.mlp = nn.Sequential(
            nn.Linear(width, 4 * width),
            nn.GELU(),
            nn.Linear(4 * width, width),
            nn.Dropout(config.dropout),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map ``(batch, time, width)`` to the same shape."""
        batch, time, width = x.shape
        split = (batch, time, 3, self.heads, width // self.heads)
        query, key, value = (
            self.query_key_value(self.norm_attention(x)).view(split).permute(2, 0, 3, 1, 4)
        )
        attended = functional.scaled_dot_product_attention(
            query,
            key,
            value,
            is_causal=True,
            dropout_p=self.dropout if self.training else 0.0,
        )
        x = x + self.project(attended.transpose(1, 2).reshape(batch, time, width))
        update: torch.Tensor = self.mlp(self.norm_mlp(x))
        return x + update


class GPT(nn.Module):
    """A decoder-only transformer over characters."""

    def __init__(self, vocabulary: int, config: ModelConfig) -> None:
        """Create the weights from torch's global random state.

        Args:
            vocabulary: Number of distinct characters.
            config: The ``model`` section.
        """
        super().__init__()
        self.context = config.context
        self.token = nn.Embedding(vocabulary, config.width)
        self.position = nn.Embedding(config.context, config.width)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.layers))
        self.norm = nn.LayerNorm(config.width)
        for parameter in self.parameters():
            if parameter.dim() > 1:
                nn.init.normal_(parameter, std=0.02)

    def size(self) -> int:
        """Return the number of parameters."""
        return sum(parameter.numel() for parameter in self.parameters())

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Score the next character at each position.

        Args:
            tokens: int64, ``(batch, time)``, time at most ``context``.

        Returns:
            Logits, float32, ``(batch, time, vocabulary)``. Logits at one
            position depend on no later character.
        """
        x = self.token(tokens) + self.position.weight[: tokens.shape[1]]
        for block in self.blocks:
            x = block(x)
        # The output layer shares the weights of the input embedding.
        return functional.linear(self.norm(x), self.token.weight)

    def loss(self, inputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Return the mean cross-entropy in nats per character, a 0-dim tensor."""
        return functional.cross_entropy(self(inputs).flatten(0, 1), targets.flatten())

    @torch.no_grad()
    def generate(
        self,
        prompt: torch.Tensor,
        length: int,
        *,
        seed: int,
        temperature: float = 0.8,
    ) -> torch.Tensor:
        """Continue a prompt, one sampled character at a time.

        Args:
            prompt: int64, 1-D, at least one character.
            length: Characters to add.
            seed: Seeds the sampling; torch's global random state is not used.
            temperature: Values below 1 prefer likely characters.

        Returns:
            The prompt and its continuation, int64, 1-D, on the CPU.
        """
        was_training = self.training
        self.eval()
        generator = torch.Generator().manual_seed(seed)
        tokens = prompt.cpu()
        for _ in range(length):
            visible = tokens[-self.context :].to(self.token.weight.device)
            logits = self(visible[None])[0, -1].float().cpu()
            probabilities = (logits / temperature).softmax(dim=-1)
            tokens = torch.cat((tokens, torch.multinomial(probabilities, 1, generator=generator)))
        self.train(was_training)
        return tokens
