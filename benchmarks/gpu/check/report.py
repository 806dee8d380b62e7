"""A part's findings, one JSON line each, written at once, so that a hang loses none of them."""

from __future__ import annotations

import contextlib
import json
import math
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

OK = "ok"
SHORT = "falls short"
NOT_JUDGED = "not judged"
NEEDS_GPU = "needs a GPU"
BROKEN = "broken"
VERDICTS = (BROKEN, SHORT, NOT_JUDGED, NEEDS_GPU, OK)
"""Most important first."""


def worst(verdicts: list[str]) -> str:
    """Return the most important of several verdicts; `BROKEN` if there is none."""
    return min(verdicts, key=VERDICTS.index, default=BROKEN)


def plain(value: Any) -> Any:
    """Return a value that strict JSON supports; everything else becomes text, like NaN."""
    if isinstance(value, dict):
        return {str(key): plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [plain(each) for each in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value if isinstance(value, bool | int | float | str | None) else str(value)


class Report:
    """Receives a part's findings."""

    def __init__(self, path: Path, *, rehearsal: bool = False) -> None:
        """Append to a file.

        Args:
            path: The file.
            rehearsal: There is no GPU, so times are meaningless and not judged.
        """
        self.path, self.rehearsal = path, rehearsal

    def add(
        self,
        name: str,
        verdict: str,
        *,
        expects: str,
        shows: str = "",
        why: str = "",
        **figures: Any,
    ) -> None:
        """Write a finding.

        Args:
            name: What was checked.
            verdict: One of `VERDICTS`.
            expects: The expectation, in words.
            shows: The key figures, in words.
            why: What is wrong or missing.
            **figures: All figures, JSON values.
        """
        texts = {"name": name, "verdict": verdict, "expects": expects, "shows": shows, "why": why}
        found = {**texts, "figures": figures}
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(plain(found), allow_nan=False) + "\n")

    def judge(self, name: str, why: str, *, expects: str, shows: str = "", **figures: Any) -> None:
        """Write a finding that is ok if `why` is ""."""
        verdict = SHORT if why else OK
        self.add(name, verdict, expects=expects, shows=shows, why=why, **figures)

    def judge_times(
        self, name: str, why: str, *, expects: str, shows: str = "", **figures: Any
    ) -> None:
        """Judge device times; in a rehearsal, they are shown but not judged."""
        if self.rehearsal:
            self.needs_gpu(
                name, "times of the fake driver", expects=expects, shows=shows, **figures
            )
        else:
            self.judge(name, why, expects=expects, shows=shows, **figures)

    def needs_gpu(
        self, name: str, why: str, *, expects: str, shows: str = "", **figures: Any
    ) -> None:
        """Write that this cannot be checked without a GPU."""
        self.add(name, NEEDS_GPU, expects=expects, shows=shows, why=why, **figures)

    def not_judged(
        self, name: str, why: str, *, expects: str, shows: str = "", **figures: Any
    ) -> None:
        """Write that this machine lacks a requirement: a tool, a second GPU."""
        self.add(name, NOT_JUDGED, expects=expects, shows=shows, why=why, **figures)

    @contextlib.contextmanager
    def attempt(self, name: str, *, expects: str) -> Iterator[None]:
        """Report an experiment as broken if it raises; later ones still run."""
        try:
            yield
        except Exception as error:  # noqa: BLE001 - every exception is reported
            traceback.print_exc()
            self.add(name, BROKEN, expects=expects, why=f"{type(error).__name__}: {error}")


def read(path: Path) -> tuple[list[dict[str, Any]], int]:
    """Read a part's findings.

    Returns:
        The findings, and the number of lines that are not findings.
    """
    found, garbage = [], 0
    try:
        raw = path.read_bytes()
    except OSError:
        return [], 0
    for line in raw.splitlines():
        try:
            each = json.loads(line)
        except ValueError:
            garbage += 1
            continue
        texts = ("name", "verdict", "expects", "shows", "why")
        if (
            isinstance(each, dict)
            and all(isinstance(each.get(key), str) for key in texts)
            and each["verdict"] in VERDICTS
            and isinstance(each.get("figures"), dict)
        ):
            found.append({key: plain(each[key]) for key in (*texts, "figures")})
        else:
            garbage += 1
    return found, garbage
