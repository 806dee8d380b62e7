"""The final table, and the file with all figures."""

from __future__ import annotations

import json
import textwrap
from collections import Counter
from pathlib import Path
from typing import Any

from benchmarks.gpu.check.report import NEEDS_GPU, OK, VERDICTS, plain

WIDTH = 110


def tally(findings: list[dict[str, Any]]) -> str:
    """Count findings by verdict: "3 ok, 1 falls short"."""
    counts = Counter(each["verdict"] for each in findings)
    return ", ".join(f"{counts[each]} {each}" for each in reversed(VERDICTS) if counts[each])


def row(part: dict[str, Any]) -> str:
    """Return a part's line with its key figures, and a line per finding that is not ok."""
    shown = [each["shows"] for each in part["findings"] if each["verdict"] == OK and each["shows"]]
    head = f"{part['part']:<11} {part['verdict']:<11} {part['seconds']:6.1f}  "
    first = "; ".join([*filter(None, [part["why"], tally(part["findings"])]), *shown])
    lines = textwrap.wrap(
        head + (first or "-"), WIDTH, subsequent_indent=" " * 32, break_long_words=False
    )
    for each in part["findings"]:
        if each["verdict"] == OK:
            continue
        told = [each["why"], each["shows"]]
        if each["verdict"] != NEEDS_GPU:
            told.append(f"expected: {each['expects']}")
        text = f"{each['verdict']}: {each['name']}: {'; '.join(filter(None, told))}"
        lines += textwrap.wrap(
            text, WIDTH, initial_indent=" " * 24, subsequent_indent=" " * 32, break_long_words=False
        )
    return "\n".join(lines)


def table(parts: list[dict[str, Any]], heading: str) -> str:
    """Return the table of all parts."""
    head = f"{'part':<11} {'verdict':<11} {'s':>6}  key figures"
    seconds = sum(part["seconds"] for part in parts)
    total = f"{len(parts)} parts in {seconds:.0f} s: {tally(parts)}"
    return "\n".join([heading, "", head, "-" * WIDTH, *map(row, parts), "-" * WIDTH, total, ""])


def write(path: Path, result: dict[str, Any]) -> None:
    """Write the result atomically as strict JSON."""
    beside = path.with_name(path.name + ".new")
    beside.write_text(json.dumps(plain(result), indent=1, allow_nan=False) + "\n", encoding="utf-8")
    beside.replace(path)
