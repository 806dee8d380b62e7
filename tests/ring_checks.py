"""Readers against recovery: what the one shows and what the other writes are the same bytes.

``golden/readers.json`` has, per test of the modules in GOLDEN, what readers make of its rings: the
reports, and what each file keeps and is followed by. Rewrite it, where that is to change, with
``GOLDEN=write pytest tests/unit/test_overlay.py ...``.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rings import RingBuilder

from foundry_fastlog import _core
from foundry_fastlog.reading.found_rings import RingReport
from foundry_fastlog.reading.overlay import Overlay

GOLDEN = {"test_overlay", "test_ring_device", "test_ring_image", "test_recovery_bounds"}
READERS = Path(__file__).parent / "golden" / "readers.json"
MOST_TEXT = 500
OUTCOMES = {"recoverable": "recovered", "damaged": "quarantined"}

Files = dict[str, bytes]

_calls: dict[str, int] = {}


def compare(run: Path, overlay: Overlay) -> None:
    """Hold what an overlay shows of a run against what it showed at the same call of this test."""
    module, _, test = os.environ["PYTEST_CURRENT_TEST"].partition("::")
    key = f"{(name := Path(module).stem)}::{test.rpartition(' ')[0]}"
    if name not in GOLDEN:
        return
    _calls[key] = number = _calls.get(key, 0) + 1
    key += f"#{number}" if number > 1 else ""
    found = json.loads(json.dumps(_describe(run, overlay)))
    if os.environ.get("GOLDEN") == "write":
        known = {**_read(), key: found}
        texts = (f"{json.dumps(key)}:{json.dumps(known[key])}" for key in sorted(known))
        READERS.write_text("{\n" + ",\n".join(texts) + "\n}\n", encoding="utf-8")
        _read.cache_clear()
    assert found == _read()[key]


@functools.cache
def _read() -> dict[str, Any]:
    return json.loads(READERS.read_text(encoding="utf-8"))


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
    if len(content) <= MOST_TEXT:
        return content.decode("utf-8", "backslashreplace")
    return f"{len(content)} bytes, sha256 {hashlib.sha256(content).hexdigest()}"


def view(builder: RingBuilder) -> tuple[RingReport, list[bytes]]:
    """What readers show of a ring in a run without files: its report, and the lines by stream."""
    with tempfile.TemporaryDirectory() as name:
        run = Path(name)
        builder.put(run)
        before = snapshot(run)
        with unwritable(run):
            overlay = Overlay(run)
            (report,) = overlay.refresh()
            compare(run, overlay)
            shown = seen(run)
        assert snapshot(run) == before
        return report, [x for text in shown.values() for x in text.splitlines(keepends=True)]


def lines(builder: RingBuilder) -> list[bytes]:
    """The lines of a ring, by stream."""
    return view(builder)[1]


def first_line(builder: RingBuilder) -> bytes:
    """The first of them; nothing where the records are damaged."""
    return next(iter(lines(builder)), b"")


def seen(run: Path) -> Files:
    """The stream files of a run as readers see them."""
    files: Files = {}
    for series in Overlay(run).list_series():
        for segment in series.segments:
            with segment.open() as file:
                files[segment.path.name] = file.read(file.size)
            assert len(files[segment.path.name]) == segment.size
    return files


def on_disk(run: Path) -> Files:
    """The stream files of a run as they are."""
    return {path.name: path.read_bytes() for path in run.glob("*.jsonl") if path.is_file()}


def snapshot(directory: Path) -> dict[str, object]:
    """All that can be seen of a directory from outside, but for times of access."""
    found: dict[str, object] = {}
    for path in sorted(directory.rglob("*")):
        status = path.lstat()
        content = path.read_bytes() if path.is_file() and not path.is_symlink() else b""
        found[str(path)] = (status.st_mode, status.st_ino, status.st_mtime_ns, content)
    return found


@contextlib.contextmanager
def unwritable(directory: Path) -> Iterator[None]:
    """Take the permission to write from a directory and all below; root has it anyway."""
    paths = [path for path in (directory, *directory.rglob("*")) if not path.is_symlink()]
    modes = {path: stat.S_IMODE(path.lstat().st_mode) for path in paths}
    for path in reversed(paths):
        path.chmod(modes[path] & 0o555)
    try:
        yield
    finally:
        for path in paths:
            path.chmod(modes[path])


def check_against_recovery(run: Path, *, same: bool = True) -> list[RingReport]:
    """Compare what readers show, and what is reported, with what recovery does.

    Where it is the same run at every call of this test, readers give what they always did.
    """
    before = snapshot(run)
    with unwritable(run):
        overlay = Overlay(run)
        reports = overlay.refresh()
        if same:
            compare(run, overlay)
        shown = seen(run)
    assert snapshot(run) == before
    native = _core.recover_run(str(run))
    # Where the system refuses in the middle, recovery has done a part, and goes on another time.
    assert shown == on_disk(run) or any(report.outcome == "failed" for report in reports)
    assert len(reports) == len(native)
    for ours, theirs in zip(reports, native, strict=True):
        fields = ours.to_dict()
        assert OUTCOMES.get(ours.outcome, ours.outcome) == theirs["outcome"]
        compared = theirs.keys() - {"outcome"}
        if ours.outcome == "failed":
            compared = {"ring", "label", "same_boot"}
        assert {name: theirs[name] for name in compared} == {  # type: ignore[literal-required]
            name: fields[name] for name in compared
        }
    return reports
