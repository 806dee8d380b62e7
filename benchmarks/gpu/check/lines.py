"""Reads a recorder's output, using only the standard library."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from foundry_fastlog import Recorder

FLUSH_S = 30.0


def read_lines(run: Path, stream: str = "metrics") -> list[dict[str, Any]]:
    """Return all lines of the only writer's stream, in order."""
    files = [run / f"{stream}.jsonl", *sorted(run.glob(f"{stream}.[0-9]*.jsonl"))]
    return [
        json.loads(line)
        for path in files
        if path.exists()
        for line in path.read_text(encoding="utf-8").splitlines()
    ]


def flushed(recorder: Recorder, stream: str = "metrics") -> list[dict[str, Any]]:
    """Flush, and return the lines.

    Raises:
        RuntimeError: The values did not arrive in time.
    """
    if not recorder.flush(timeout=FLUSH_S):
        raise RuntimeError(f"flush() did not end within {FLUSH_S:g} s")
    return read_lines(recorder.path, stream)
