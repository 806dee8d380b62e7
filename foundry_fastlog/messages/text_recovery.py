"""Complete the text logs of killed processes from their log streams.

A kill takes what waited for the text writer: the end, in the order of each process. So a text log
lacks nothing but messages from its last line on, and a little before, as threads race. Those are
compared with its last lines: text by text, and where the stream cannot give the same text (it has
values as JSON has them) by level, logger and first line, or by the beginning that the stream has
of a long one. A line of the log stands for one message.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import os
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from foundry_fastlog.base.arguments import LEVELS
from foundry_fastlog.messages.text_files import TextFile, is_in_use, rotated, text_logs
from foundry_fastlog.messages.text_lines import BASE_FIELDS, Message, details_of, head_of, settled
from foundry_fastlog.reading.lines import restore_nonfinite
from foundry_fastlog.reading.preview import runs_with_rings
from foundry_fastlog.reading.run import Run, RunNotFoundError
from foundry_fastlog.run.files import PRIVATE_DIR
from foundry_fastlog.run.start_entries import has_begun, read_ends

if TYPE_CHECKING:
    from foundry_fastlog.reading.found_rings import RingReport

__all__ = ["TextReport", "complete_text_logs", "recover"]

_HEAD = re.compile(rb"^(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d) \[([^\]\n]*)\] ", re.MULTILINE)
_RACE_S = 2
_DEFAULT_MAX_MB = 100  # of LoggingConfig
_CUT = re.compile(r"\.\.\. \([0-9]+ characters\)$")
_TRACEBACK = ("error_type", "error_message", "traceback")


@dataclass(frozen=True)
class TextReport:
    """What was added to one text log, or would be.

    Attributes:
        path: The text log.
        added: How many messages.
    """

    path: Path
    added: int


def recover(path: str | os.PathLike[str]) -> list[RingReport]:
    """Write what killed processes left in their ring files to the files of their runs.

    Opening and closing a `Recorder` does this for its run, and readers show these records anyway.
    Call this for runs that will not be resumed, and before other programs read the files. It also
    completes the text logs of killed processes. Safe at any time, even while the run trains, and
    safe to repeat.

    Args:
        path: A run's directory, or a directory with runs somewhere below it.

    Returns:
        A report per ring found; see `foundry_fastlog.RingReport`. Its ``sound`` is False if
        something could not be recovered.

    Raises:
        RunNotFoundError: There is no run. The message says what to do.
    """
    from foundry_fastlog.recording.recovery import recover as recover_rings

    reports = recover_rings(path)
    complete_text_logs(path)
    return reports


def complete_text_logs(path: str | os.PathLike[str], *, dry_run: bool = False) -> list[TextReport]:
    """Add to text logs what their processes could not write any more.

    Only to ``main_<time>.log`` and ``debug_<time>.log`` of runs that are there, that nobody writes
    to, and whose process has not said how it ended. Done again, it adds nothing.

    Args:
        path: A run's directory, or a directory with runs below it.
        dry_run: Change nothing.

    Returns:
        A report for each log that lacked something.

    Raises:
        RunNotFoundError: There is no run.
    """
    runs = runs_with_rings(path)
    return [report for run in runs for report in _complete_run(run, dry_run=dry_run)]


def _complete_run(directory: Path, *, dry_run: bool) -> list[TextReport]:
    reports: list[TextReport] = []
    logs = [
        (path, match)
        for path, match, _ in text_logs(directory)
        if match["kind"] in ("main", "debug") and match["number"] is None
    ]
    if not logs:
        return reports
    with _locked(directory / PRIVATE_DIR), contextlib.suppress(RunNotFoundError, OSError):
        run = Run(directory)
        killed = _killed(run)
        for path, match in logs:
            starts = killed.get((match["stamp"], int((match["rank"] or "r0")[1:])))
            if starts and not is_in_use(path):
                texts = list(_missing(run, path, match, starts))
                if texts and (dry_run or _append(path, texts, _most_bytes(run, starts))):
                    reports.append(TextReport(path, len(texts)))
    return reports


@contextlib.contextmanager
def _locked(directory: Path) -> Iterator[None]:
    """Keep another recovery out; where there are no locks, go on without."""
    fd = -1
    try:
        with contextlib.suppress(OSError):
            fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        if fd >= 0:
            os.close(fd)


def _killed(run: Run) -> dict[tuple[str, int], set[int]]:
    """Return the starts whose text logs may lack something, by time in the name and rank."""
    found: dict[tuple[str, int], set[int]] = {}
    alive: set[tuple[str, int]] = set()
    starts = {start.number: start for start in run.report_starts()}
    ends = read_ends(run.path)
    unwritten = {ring.label for ring in run.rings if ring.outcome == "recoverable"}
    for writer in run.writers:
        start = starts[run.number_of(writer)]
        key = (writer.stamp or str(start.entry.get("stamp")), writer.rank)
        if writer.children:
            continue
        if start.state in ("running", "unknown"):
            alive.add(key)
            continue
        end = ends.get(start.number, {}).get(writer.label, {})
        # Of the others who was killed has a ring, or a note of recovery's; who closed has none.
        unsaid = "killed" if has_begun(writer, start.entry) else ""
        if end.get("how", unsaid) == "killed" or writer.label in unwritten:
            found.setdefault(key, set()).add(start.number)
    return {key: starts for key, starts in found.items() if key not in alive}


def _most_bytes(run: Run, starts: set[int]) -> int:
    """Return the size at which the log was rotated, as far as the start's configuration says."""
    for start in run.report_starts():
        logging = start.config.get("logging") if start.number in starts else None
        size = logging.get("max_log_size_mb") if isinstance(logging, dict) else None
        if type(size) is int:
            return size * 1_000_000
    return _DEFAULT_MAX_MB * 1_000_000


def _append(path: Path, texts: list[str], most_bytes: int) -> bool:
    file = TextFile(path, max_bytes=most_bytes)
    file.write([(0.0, 0, "", "", {}, "")] * len(texts), texts)
    file.close()
    return not file.errors


class _Entry(NamedTuple):
    """A message of a text log."""

    second: int
    level: str
    text: str  # without time and level

    def whole(self) -> tuple[str, str]:
        return self.level, self.text

    def first_line(self) -> tuple[str, str]:
        return self.level, self.text.partition("\n")[0]

    def is_cut_from(self, other: _Entry) -> bool:
        """Whether the stream's text is the marked beginning of another one."""
        level, line = self.first_line()
        cut = _CUT.search(line)
        if cut is None or level != other.level:
            return False
        return other.text.startswith(line[: cut.start()])


def _missing(run: Run, path: Path, name: re.Match[str], starts: set[int]) -> Iterator[str]:
    """Yield the texts that a log lacks, in order."""
    known, torn = _read_end(path)
    if known is None:
        return
    first, since = (known[0].second, known[-1].second - _RACE_S) if known else (0, 0)
    rank = int((name["rank"] or "r0")[1:])
    silent: set[str] = set()
    lines: list[tuple[_Entry, str]] = []
    for moment, series, record, _ in run.entries(["log"], starts="all", rank=rank):
        writer = series.writer
        own = run.number_of(writer) in starts and writer.stamp in ("", name["stamp"])
        if own and "message" in record:
            if moment[:19] >= _utc(since - 1):
                lines.append(_read_line(record))
            elif moment[:19] >= _utc(first):
                silent.add(record["level"])
    names = _names_of_levels(known, lines)
    known = [entry._replace(level=names.get(entry.level, entry.level)) for entry in known]
    levels = {entry.level for entry in known}
    known = [entry for entry in known if entry.second >= since - 1]
    if known and not _agree(known, lines):  # the log's times are another zone's
        return
    wanted = _without(known, lines)
    # Only the end is lost: what a level has said before that is not there, the log does not take.
    ends = {id(line) for line in wanted}
    last = max((at for at, line in enumerate(lines) if id(line) not in ends), default=0)
    silent |= {line[0].level for line in lines[:last] if id(line) in ends}
    silent -= levels
    if name["kind"] == "main":
        silent.add("DEBUG")
    shown = {level: name for name, level in names.items()}
    for entry, stamp in wanted:
        if entry.second >= since and entry.level not in silent:
            text = f"{stamp} [{shown.get(entry.level, entry.level)}] {entry.text}"
            yield f"\n{text}" if torn else text
            torn = False


@functools.cache
def _utc(second: int) -> str:
    """Return a second as lines have it."""
    return datetime.fromtimestamp(max(second, 0), timezone.utc).isoformat()[:19]


def _agree(known: list[_Entry], lines: list[tuple[_Entry, str]]) -> bool:
    """Whether a log's last messages are the stream's of the same time."""
    said = {(entry.second + late, entry.first_line()) for entry, _ in lines for late in (0, 1)}
    return any((entry.second, entry.first_line()) in said for entry in known)


def _names_of_levels(known: list[_Entry], lines: list[tuple[_Entry, str]]) -> dict[str, str]:
    """Return the levels by the names that a log has for them: programs may rename them."""
    said = {entry.first_line()[1]: entry.level for entry, _ in lines}
    pairs = Counter(
        (entry.level, level)
        for entry in known
        if entry.level not in LEVELS and (level := said.get(entry.first_line()[1]))
    )
    return dict(pair for pair, _ in reversed(pairs.most_common()))


def _without(known: list[_Entry], wanted: list[tuple[_Entry, str]]) -> list[tuple[_Entry, str]]:
    """Return what is wanted and not known: by the whole text first, then by less and less of it."""
    for text_of in (_Entry.whole, _Entry.first_line):
        there = Counter(map(text_of, known))
        left = [line for line in wanted if not _taken(there, text_of(line[0]))]
        known = [entry for entry in reversed(known) if _taken(there, text_of(entry))]
        wanted = left
    left = []
    for line in wanted:
        whole = next((entry for entry in known if line[0].is_cut_from(entry)), None)
        if whole is None:
            left.append(line)
        else:
            known.remove(whole)
    return left


def _taken(there: Counter[tuple[str, str]], text: tuple[str, str]) -> bool:
    there[text] -= 1
    return there[text] >= 0


def _read_end(path: Path) -> tuple[list[_Entry] | None, bool]:
    """Read the last messages of a log, at least those of its last seconds.

    Returns:
        The messages, None if they are in no format that is known; and whether a torn line follows.
    """
    entries: list[_Entry] = []
    torn = False
    for file in rotated(path):
        whole = file.read_bytes()
        data = whole[: whole.rfind(b"\n") + 1]
        torn = torn or (file == path and data != whole)
        heads = list(_HEAD.finditer(data))
        if data and not heads:
            return None, False
        ends = [*(head.start() for head in heads[1:]), len(data)][: len(heads)]
        try:
            seconds = [int(datetime.fromisoformat(head[1].decode()).timestamp()) for head in heads]
        except ValueError:  # no date: somebody else's text
            return None, False
        found = [
            _Entry(
                second,
                head[2].decode("utf-8", "replace"),
                data[head.end() : end].decode("utf-8", "replace"),
            )
            for second, head, end in zip(seconds, heads, ends, strict=True)
        ]
        entries = found + entries
        if entries and entries[0].second < entries[-1].second - _RACE_S - 1:
            break
    return entries, torn


def _read_line(record: dict[str, Any]) -> tuple[_Entry, str]:
    """Return a line of the log stream as a text log has it."""
    restore_nonfinite(record)
    shown = {key: value for key, value in record["context"].items() if key not in BASE_FIELDS}
    exception = ""
    if all(isinstance(shown.get(key), str) for key in _TRACEBACK):
        exception = [shown.pop(key) for key in _TRACEBACK][-1]
    created = datetime.fromisoformat(record["timestamp"].replace("Z", "+00:00")).timestamp()
    message: Message = (
        *(created, 0, record["logger"], record["message"]),
        *(settled(shown), exception),
    )
    stamp, _, rest = head_of(message)
    text = f"{rest}\n{details_of(message)}"
    in_file = text.encode("utf-8", "backslashreplace").decode()
    return _Entry(int(created), record["level"], in_file), stamp
