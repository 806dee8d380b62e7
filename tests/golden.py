"""What readers make of each test's ring; of most as when they were a program of their own.

``golden/readers.json`` has it, per test: the reports, and what each file keeps and is followed by.
Rewrite it, where that is to change, with ``GOLDEN=write pytest tests/unit/test_overlay.py ...``.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
from pathlib import Path
from typing import Any

from foundry_fastlog.reading.overlay import Overlay

FILE = Path(__file__).parent / "golden" / "readers.json"
MODULES = {"test_overlay", "test_ring_device", "test_ring_image", "test_recovery_bounds"}
_MOST_TEXT = 500

_calls: dict[str, int] = {}


def compare(run: Path, overlay: Overlay) -> None:
    """Hold what an overlay shows of a run against what it showed at the same call of this test."""
    key = _key()
    if key.partition("::")[0] not in MODULES:
        return
    _calls[key] = number = _calls.get(key, 0) + 1
    key += f"#{number}" if number > 1 else ""
    found = json.loads(json.dumps(_describe(run, overlay)))
    if os.environ.get("GOLDEN") == "write":
        _write(key, found)
        return
    assert found == _read()[key]


def _key() -> str:
    module, _, test = os.environ["PYTEST_CURRENT_TEST"].partition("::")
    return f"{Path(module).stem}::{test.rpartition(' ')[0]}"


@functools.cache
def _read() -> dict[str, Any]:
    return json.loads(FILE.read_text(encoding="utf-8"))


def _write(key: str, value: object) -> None:
    known = _read() if FILE.exists() else {}
    known[key] = value
    texts = (f"{json.dumps(key)}:{json.dumps(known[key])}" for key in sorted(known))
    FILE.write_text("{\n" + ",\n".join(texts) + "\n}\n", encoding="utf-8")
    _read.cache_clear()


def _describe(run: Path, overlay: Overlay) -> object:
    def named(text: object) -> object:
        if not isinstance(text, str):
            return text
        return text.replace(str(run), "RUN").replace(str(run.parent), "TMP")

    reports = [
        {name: named(value) for name, value in report.to_dict().items() if value}
        for report in overlay.rings
    ]
    edits = {
        name: [edit.removed, edit.kept, _text(edit.pending)]
        for known in overlay._known.values()
        for name, edit in sorted(known.edits.items())
    }
    return {"reports": reports, "edits": edits}


def _text(content: bytes) -> str:
    if len(content) <= _MOST_TEXT:
        return content.decode("utf-8", "backslashreplace")
    return f"{len(content)} bytes, sha256 {hashlib.sha256(content).hexdigest()}"
