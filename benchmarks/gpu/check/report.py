"""What a part finds: a line of JSON each, written at once, so that a hang loses none before it."""

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
"""From what matters most to what matters least."""


def worst(verdicts: list[str]) -> str:
    """Return the verdict that stands for several; `BROKEN` for none at all."""
    return min(verdicts, key=VERDICTS.index, default=BROKEN)


def plain(value: Any) -> Any:
    """Return a value that strict JSON has: NaN and infinities become text, and so does the rest."""
    if isinstance(value, dict):
        return {str(key): plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [plain(each) for each in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value if isinstance(value, bool | int | float | str | None) else str(value)


class Report:
    """Where a part puts its findings."""

    def __init__(self, path: Path, *, rehearsal: bool = False) -> None:
        """Append to a file.

        Args:
            path: Of the lines.
            rehearsal: There is no GPU: times say nothing, and are not judged.
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
            name: What was looked at.
            verdict: One of `VERDICTS`.
            expects: What it should be, in words.
            shows: The key figures, in words.
            why: What is wrong, or missing.
            **figures: All figures, as JSON has them.
        """
        texts = {"name": name, "verdict": verdict, "expects": expects, "shows": shows, "why": why}
        found = {**texts, "figures": figures}
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(plain(found), allow_nan=False) + "\n")

    def judge(self, name: str, why: str, *, expects: str, shows: str = "", **figures: Any) -> None:
        """Write a finding that is as it should be where `why` is ""."""
        verdict = SHORT if why else OK
        self.add(name, verdict, expects=expects, shows=shows, why=why, **figures)

    def judge_times(
        self, name: str, why: str, *, expects: str, shows: str = "", **figures: Any
    ) -> None:
        """The same, about times of a device: in a rehearsal they are shown and not judged."""
        if self.rehearsal:
            self.needs_gpu(
                name, "times of the fake driver", expects=expects, shows=shows, **figures
            )
        else:
            self.judge(name, why, expects=expects, shows=shows, **figures)

    def needs_gpu(
        self, name: str, why: str, *, expects: str, shows: str = "", **figures: Any
    ) -> None:
        """Write that this cannot be said here."""
        self.add(name, NEEDS_GPU, expects=expects, shows=shows, why=why, **figures)

    def not_judged(
        self, name: str, why: str, *, expects: str, shows: str = "", **figures: Any
    ) -> None:
        """Write that this machine lacks what it takes to say so: a tool, a second GPU."""
        self.add(name, NOT_JUDGED, expects=expects, shows=shows, why=why, **figures)

    @contextlib.contextmanager
    def attempt(self, name: str, *, expects: str) -> Iterator[None]:
        """Write that an experiment is broken when it raises; those behind it go on."""
        try:
            yield
        except Exception as error:  # noqa: BLE001 - whatever it is, it is reported
            traceback.print_exc()
            self.add(name, BROKEN, expects=expects, why=f"{type(error).__name__}: {error}")


def read(path: Path) -> tuple[list[dict[str, Any]], int]:
    """Read a part's findings.

    Returns:
        Them, and how many lines are no findings.
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
