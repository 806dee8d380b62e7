"""Shared by the peers of the message path: the message, its context, the verifiers."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks.peers.base import Loop, VerificationError, check_steps, json_lines
from benchmarks.workload import KEYS, Row

TEXT = "Training step completed"
LOGGER = "model_foundry.training.loop"
CONTEXT = {"experiment": "exp0_baseline", "git_hash": "e7607e6", "device": "cuda:0"}
"""Base context, written with every message; a peer binds it once if it can."""


def info_loop(log: Any) -> Loop:
    """Return the loop of a logger that takes fields as keywords."""

    def loop(rows: Iterator[Row]) -> None:
        for step, (loss, lr, grad_norm, tokens_per_sec) in rows:
            log.info(
                TEXT,
                step=step,
                loss=loss,
                lr=lr,
                grad_norm=grad_norm,
                tokens_per_sec=tokens_per_sec,
            )

    return loop


def check_messages(path: Path, count: int, fields: Sequence[str] = ("context",)) -> None:
    """Check that a JSON Lines file has the messages of steps 0..count-1, complete and in order.

    Args:
        path: The file.
        count: Number of messages logged.
        fields: Path to the object with context and fields; empty if it is the line itself.

    Raises:
        VerificationError: A message is missing, repeated, out of place or altered.
    """
    check_steps((_step(line, fields) for line in json_lines(path)), count)


def _step(line: dict[str, Any], fields: Sequence[str]) -> tuple[int, dict[str, float]]:
    found = line
    for name in fields:
        found = found[name]
    for name, value in CONTEXT.items():
        if found[name] != value:
            raise VerificationError(f"{name} is not {value!r} in {line}")
    return found["step"], {name: found[name] for name in KEYS}


def check_text(path: Path, count: int, prefix: str = "") -> None:
    """Check the same for a text log.

    Args:
        path: The file.
        count: Number of messages logged.
        prefix: The text before the logger's name.

    Raises:
        VerificationError: A message is missing, repeated, out of place or altered.
    """
    check_steps(_text_steps(path, f" [INFO] {prefix}{LOGGER}: {TEXT}\n"), count)


def _text_steps(path: Path, head: str) -> Iterator[tuple[int, dict[str, float]]]:
    with path.open(encoding="utf-8") as file:
        for line in file:
            if not line.endswith(head):
                raise VerificationError(f"not the first line of a message: {line!r}")
            found = dict(next(file).strip().split(": ") for _ in range(len(KEYS) + 1))
            yield int(found.pop("step")), {name: float(value) for name, value in found.items()}


def private_logger(name: str) -> logging.Logger:
    """Return a standard library logger, at INFO, without other handlers."""
    logger = logging.getLogger(name)
    logger.setLevel(logging.INFO)
    logger.propagate = False
    return logger
