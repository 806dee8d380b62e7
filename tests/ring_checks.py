"""Readers against recovery: what the one shows and what the other writes are the same bytes."""

from __future__ import annotations

import contextlib
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import golden
from rings import RingBuilder

from foundry_fastlog import _core
from foundry_fastlog.reading.found_rings import RingReport
from foundry_fastlog.reading.overlay import Overlay

OUTCOMES = {"recoverable": "recovered", "damaged": "quarantined"}

Files = dict[str, bytes]


def view(builder: RingBuilder) -> tuple[RingReport, list[bytes]]:
    """What readers show of a ring in a run without files: its report, and the lines by stream."""
    with tempfile.TemporaryDirectory() as name:
        run = Path(name)
        builder.put(run)
        before = snapshot(run)
        with unwritable(run):
            overlay = Overlay(run)
            (report,) = overlay.refresh()
            golden.compare(run, overlay)
            shown = seen(run)
        assert snapshot(run) == before
        return report, [
            line for content in shown.values() for line in content.splitlines(keepends=True)
        ]


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
            golden.compare(run, overlay)
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
