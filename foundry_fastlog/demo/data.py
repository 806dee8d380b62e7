"""The text, its characters as numbers, and batches of it."""

from __future__ import annotations

import hashlib
import platform
from dataclasses import dataclass
from pathlib import Path

import torch

from foundry_fastlog.config.yaml_file import ConfigError
from foundry_fastlog.demo.config import DataConfig


@dataclass(frozen=True)
class Corpus:
    """A text, split by position: the first part is for training, the rest for validation.

    Attributes:
        source: Where the text comes from, for display.
        characters: The distinct characters of the text, sorted; a
            character's number is its position here.
        train: Numbers of the first part, int64, 1-D.
        validation: Numbers of the rest, int64, 1-D.
        sha256: Digest of the text, to tell two texts apart on resume.
    """

    source: str
    characters: str
    train: torch.Tensor
    validation: torch.Tensor
    sha256: str

    def encode(self, text: str) -> torch.Tensor:
        """Turn text into numbers.

        Args:
            text: Characters that all occur in the corpus.

        Returns:
            An int64 tensor with one number per character.
        """
        number = {character: index for index, character in enumerate(self.characters)}
        return torch.tensor([number[character] for character in text], dtype=torch.int64)

    def decode(self, numbers: torch.Tensor) -> str:
        """Turn a 1-D tensor of numbers back into text."""
        return "".join(self.characters[number] for number in numbers.tolist())


def load_corpus(config: DataConfig, context: int) -> Corpus:
    """Read the text and split it.

    Args:
        config: The ``data`` section.
        context: Characters in one training example, to check that both parts
            of the text have at least one.

    Returns:
        The corpus.

    Raises:
        ConfigError: The file cannot be read, or a part is too short.
    """
    if config.file is None:
        text, source = _manual(), f"the manual in CPython {platform.python_version()}"
    else:
        try:
            text, source = Path(config.file).read_text(encoding="utf-8"), config.file
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(
                f"data.file: {config.file} cannot be read as UTF-8 text: {error}.",
            ) from error
    characters = "".join(sorted(set(text)))
    corpus = Corpus(source, characters, torch.empty(0), torch.empty(0), _digest(text))
    numbers = corpus.encode(text)
    cut = len(numbers) - int(len(numbers) * config.validation_fraction)
    train, validation = numbers[:cut], numbers[cut:]
    for name, part in (("training", train), ("validation", validation)):
        if len(part) < context + 1:
            raise ConfigError(
                f"data: the {name} part of {source} has {len(part)} characters, fewer than "
                f"model.context + 1 = {context + 1}. Use a longer text, a smaller "
                "model.context or another data.validation_fraction.",
            )
    return Corpus(source, characters, train, validation, corpus.sha256)


def _manual() -> str:
    """Join the manual pages that ``help()`` shows: real English on every machine."""
    from pydoc_data.topics import topics

    return "".join(topics[name] for name in sorted(topics))


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


class Batches:
    """Random windows of the training text; the same seed gives the same windows."""

    def __init__(
        self,
        numbers: torch.Tensor,
        *,
        batch_size: int,
        context: int,
        seed: int,
        device: torch.device,
    ) -> None:
        """Prepare to sample; ``seed`` determines all batches."""
        self._numbers = numbers.to(device)
        self._offsets = torch.arange(context + 1)
        self._batch_size = batch_size
        # The generator stays on the CPU, so that every device sees the same batches.
        self.generator = torch.Generator().manual_seed(seed)

    def next(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Sample one batch.

        Returns:
            ``(inputs, targets)``, int64, each of shape ``(batch, context)``;
            the targets are the inputs one character later.
        """
        starts = torch.randint(
            len(self._numbers) - len(self._offsets) + 1,
            (self._batch_size, 1),
            generator=self.generator,
        )
        windows = self._numbers[(starts + self._offsets).to(self._numbers.device)]
        return windows[:, :-1], windows[:, 1:]


def validation_batches(
    numbers: torch.Tensor,
    *,
    batches: int,
    batch_size: int,
    context: int,
    device: torch.device,
) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Cut fixed windows, spread evenly over the validation text.

    Args:
        numbers: The validation text.
        batches: Number of batches; every validation uses the same ones.
        batch_size: Windows in a batch.
        context: Characters in a window.
        device: Where to put them.

    Returns:
        ``(inputs, targets)`` for each batch.
    """
    count = min(batches * batch_size, len(numbers) - context)
    starts = torch.linspace(0, len(numbers) - context - 1, count, dtype=torch.float64).long()
    windows = numbers[starts[:, None] + torch.arange(context + 1)].to(device)
    return [(part[:, :-1], part[:, 1:]) for part in torch.split(windows, batch_size)]
