"""Readers against recovery: what the one shows and what the other writes are the same bytes."""

from __future__ import annotations

from pathlib import Path

from rings import RingBuilder

from foundry_fastlog import _core
from foundry_fastlog.reading.found_rings import RingReport
from foundry_fastlog.reading.overlay import Overlay
from foundry_fastlog.reading.ring_image import RingImage
from foundry_fastlog.reading.ring_lines import LineRenderer

OUTCOMES = {"recoverable": "recovered", "damaged": "quarantined"}

Files = dict[str, bytes]


def image(builder: RingBuilder) -> RingImage:
    """The image of a ring."""
    return RingImage(builder.build())


def lines(builder: RingBuilder) -> list[bytes | None]:
    """The lines of the records in a ring, numbered from 0 through all streams."""
    read = image(builder)
    renderer = LineRenderer(read)
    texts: list[bytes | None] = []
    for seq, record in enumerate(read.records(trust_tail=True)):
        members = renderer.members(record)
        texts.append(None if members is None else renderer.opening(record.ticks, seq) + members)
    return texts


def first_line(builder: RingBuilder) -> bytes | None:
    """The line of the first record in a ring."""
    return lines(builder)[0]


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


def check_against_recovery(run: Path) -> list[RingReport]:
    """Compare what readers show, and what is reported, with what recovery does."""
    before = snapshot(run)
    reports = Overlay(run).refresh()
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
