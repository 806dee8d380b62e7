"""The acked-counter oracle: what a run's files must hold after kills and recovery.

Slow, obvious, independent of the package: it knows the format from ``docs/format.md`` and the
records from the function that made them (``driver_record.cpp`` has the same one).
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

STREAMS = ("metrics", "performance", "errors", "log", "system")
_STREAM_OF = ("metrics",) * 3 + ("performance",) * 2 + ("errors", "log", "system")
_ALPHABET = 'abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789 {}[]:,"\\\n\t\x01'
_TEXT_CHARACTERS = 4096
#: Lost with its process, given up in time, or for room in the ring.
MISSING = [{"x": reason} for reason in ("lost", "timeout", "no_room")]
_MASK = (1 << 64) - 1
_NAME = re.compile(
    r"(?P<stream>metrics|performance|errors|log|system)"
    r"(?:\.(?P<label>[rapw][0-9apwx-]*))?(?:\.(?P<segment>[0-9]{6}))?\.jsonl"
)


def mix(x: int) -> int:
    x = (x + 0x9E3779B97F4A7C15) & _MASK
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & _MASK
    return x ^ (x >> 31)


TEXT = "".join(_ALPHABET[mix(i) % len(_ALPHABET)] for i in range(_TEXT_CHARACTERS))


@dataclass
class Life:
    """One process that recorded.

    Attributes:
        number: Which, unique in its run; every record carries it.
        threads: How many threads recorded.
        fill: Longest text in a record, in characters.
        keys: A new set of keys begins every so many records.
        segment: Most bytes of a segment.
        device: Numbers of metrics may have come from a device, and may not have arrived.
        moves: Its name was taken, so it goes on under another label.
        acked: Per thread the number of records that were accepted, once it is dead.
    """

    number: int
    threads: int = 1
    fill: int = 100
    keys: int = 64
    segment: int = 1 << 28
    device: bool = False
    moves: bool = False
    acked: list[int] = field(default_factory=list)

    def stream_of(self, thread: int, n: int) -> str:
        return _STREAM_OF[self._bits(thread, n) & 7]

    def _bits(self, thread: int, n: int) -> int:
        return mix((self.number << 44) ^ (thread << 36) ^ n)

    def parts(self, thread: int, n: int) -> tuple[str, str, float]:
        """What is drawn for the thread's n-th record: stream, text, number."""
        bits = self._bits(thread, n)
        begin = (bits >> 24) % (_TEXT_CHARACTERS - self.fill)
        fill = TEXT[begin : begin + (bits >> 8) % (self.fill + 1)] + "é"
        x = math.nan if bits >> 60 == 0 else (bits >> 11) * 2.0**-53 * 1000.0
        return _STREAM_OF[bits & 7], fill, x

    def line(self, thread: int, n: int) -> dict[str, Any]:
        """The line of the thread's n-th record without what only the clock knows."""
        stream, fill, x = self.parts(thread, n)
        origin = {"life": self.number, "thread": thread, "n": n}
        number = None if math.isnan(x) else x
        nonfinite = {"nonfinite": {"x": "nan"}} if number is None else {}
        if stream == "metrics":
            values = {**origin, "x": number, f"k{n // self.keys}": fill}
            return {"step": n, "metrics": values, **nonfinite}
        if stream == "performance":
            error = f"{self.number}:{thread}:{n}:{fill}"
            parent = f"life{self.number}"
            return {"name": "work", "step": n, "depth": thread, "parent": parent, "error": error}
        if stream == "system":
            return {"step": n, "system": {**origin, "x": number, "fill": fill}, **nonfinite}
        said = {"level": "INFO", "logger": "crash", "step": n, "message": fill}
        if stream == "errors":
            said |= {"error_type": "E", "error_message": "e", "traceback": ""}
        return {**said, "context": {**origin, "x": number}, **nonfinite}


def origin_of(stream: str, line: dict[str, Any]) -> tuple[int, int, int] | None:
    """Read (life, thread, n) from a line; None for a drop marker."""
    if "dropped" in line:
        return None
    if stream == "performance":
        life, thread, n, _ = line["error"].split(":", 3)
        return int(life), int(thread), int(n)
    values = line[stream] if stream in ("metrics", "system") else line["context"]
    return values["life"], values["thread"], values["n"]


@dataclass
class Verdict:
    """What the oracle found."""

    violations: list[str] = field(default_factory=list)
    lines: int = 0
    acked: int = 0
    extra: int = 0  # in the files, and their acceptance was not counted any more
    drops: int = 0
    missing: Counter[str] = field(default_factory=Counter)  # numbers, by the line's reason

    def fail(self, sentence: str) -> None:
        if len(self.violations) < 20:
            self.violations.append(sentence)


def parse(raw: bytes) -> dict[str, Any]:
    """Parse one line with json and with orjson, which takes no NaN."""
    line = json.loads(raw)
    if line != orjson.loads(raw):
        raise ValueError("json and orjson read different things")
    if not isinstance(line, dict):
        raise ValueError("no object")  # noqa: TRY004 - one kind of error for all that is no line
    return line


def list_files(run: Path, verdict: Verdict) -> dict[tuple[str, str], dict[int, Path]]:
    """List the segments of each (label, stream); what does not belong there is a violation."""
    found: dict[tuple[str, str], dict[int, Path]] = {}
    # Who is killed while it writes run.json leaves its new file; the next start removes it.
    unfinished = list(run.glob(".run.json.*"))
    if len(unfinished) > 1:
        verdict.fail(f"nobody removed {unfinished[0].name}")
    for path in sorted(run.iterdir()):
        if path.name in (".fastlog", "run.json", "starts") or path in unfinished:
            continue
        match = _NAME.fullmatch(path.name)
        if match is None:
            verdict.fail(f"a file that nobody expects: {path.name}")
            continue
        series = found.setdefault((match["label"] or "", match["stream"]), {})
        series[int(match["segment"] or 0)] = path
    return found


def read_series(paths: dict[int, Path], verdict: Verdict) -> Iterator[tuple[str, dict[str, Any]]]:
    """Parse a series; yield each line with a name for messages."""
    if sorted(paths) != list(range(len(paths))):
        verdict.fail(f"segments are missing: {[path.name for path in paths.values()]}")
    for _, path in sorted(paths.items()):
        content = path.read_bytes()
        *whole, rest = content.split(b"\n")
        if rest:
            verdict.fail(f"{path.name}: torn last line {rest[:80]!r}")
        for number, raw in enumerate(whole, 1):
            verdict.lines += 1
            try:
                yield f"{path.name}:{number}", parse(raw)
            except ValueError as error:
                verdict.fail(f"{path.name}:{number}: {error}: {raw[:120]!r}")


def check_line(stream: str, where: str, line: dict[str, Any], lives: dict[int, Life]) -> str:
    """Compare a line with the record it must be; return what is wrong, or nothing."""
    origin = origin_of(stream, line)
    if origin is None:
        right = set(line) == {"timestamp", "seq", "dropped"} and line["dropped"] > 0
        return "" if right else f"{where}: no drop marker: {line}"
    number, thread, n = origin
    life = lives.get(number)
    if life is None or not 0 <= thread < life.threads or life.stream_of(thread, n) != stream:
        return f"{where}: nobody recorded this: {line}"
    given = {key: value for key, value in line.items() if key not in ("timestamp", "seq")}
    if stream == "performance" and not (
        given.pop("duration_s", -1.0) >= 0 and given.pop("thread", 0) > 0
    ):
        return f"{where}: a timing without its times: {line}"
    wanted = life.line(thread, n)
    if life.device and given.get("missing") in MISSING:
        wanted["metrics"]["x"] = None
        wanted["missing"] = given["missing"]
        wanted.pop("nonfinite", None)
    return "" if given == wanted else f"{where}: is {given}, not {wanted}"


def check_segment_sizes(paths: dict[int, Path], segment: int, verdict: Verdict) -> None:
    """No segment is larger than allowed, unless it holds one line or ends in a last drop marker."""
    for path in paths.values():
        content = path.read_bytes()
        *_, last = content.rstrip(b"\n").split(b"\n")
        whole = len(content) - (len(last) + 1 if b',"dropped":' in last else 0)
        if whole > segment and content.count(b"\n") > 1:
            verdict.fail(f"{path.name} has {len(content)} bytes, more than {segment}")


def in_the_making(path: Path) -> bool:
    """Tell whether nobody can know that a file is a dead process's: such stay for ten minutes.

    Who makes a ring locks it while it is empty; a pointer in the making is never locked.
    """
    if path.name.endswith(".ring.tmp"):
        return path.stat().st_size == 0
    return path.name.endswith(".ring-at.tmp")


def check_leftovers(run: Path, verdict: Verdict) -> None:
    """After recovery the private directory holds nothing."""
    private = run / ".fastlog"
    paths = private.rglob("*") if private.is_dir() else []
    if left := sorted(path.name for path in paths if not in_the_making(path)):
        verdict.fail(f"left in .fastlog: {left}")


def check_run(run: Path, lives: list[Life], *, leftovers: bool = True) -> Verdict:
    """Check a recovered run against what its lives counted.

    Every acked record is in the files exactly once, with at most one more per thread; nothing else
    is; every line parses; seq is gapless per writer and stream; each thread's order is kept.
    """
    verdict = Verdict()
    by_number = {life.number: life for life in lives}
    writer_of: dict[int, str] = {}
    seen: dict[tuple[int, int], Counter[int]] = {}
    last: dict[tuple[int, int, str], int] = {}
    for (label, stream), paths in sorted(list_files(run, verdict).items()):
        seq = -1
        numbers = set()
        for where, line in read_series(paths, verdict):
            seq += 1
            if line.get("seq") != seq:
                verdict.fail(f"{where}: seq {line.get('seq')} where {seq} belongs")
                seq = int(line.get("seq", seq))
            try:
                wrong = check_line(stream, where, line, by_number)
                origin = origin_of(stream, line)
            except (KeyError, ValueError, AttributeError, IndexError, TypeError):
                verdict.fail(f"{where}: no record of ours: {line}")
                continue
            if wrong:
                verdict.fail(wrong)
            if origin is None:
                verdict.drops += 1
                continue
            verdict.missing.update(line.get("missing", {}).values())
            number, thread, n = origin
            numbers.add(number)
            seen.setdefault((number, thread), Counter())[n] += 1
            if last.get((number, thread, stream), -1) >= n:
                verdict.fail(f"{where}: thread {thread} of life {number}: {n} out of order")
            last[number, thread, stream] = n
        for number in numbers:
            moves = number in by_number and by_number[number].moves
            if writer_of.setdefault(number, label) != label and not moves:
                verdict.fail(f"life {number} wrote as {writer_of[number]!r} and as {label!r}")
        if len(numbers) == 1 and (life := by_number.get(*numbers)):
            check_segment_sizes(paths, life.segment, verdict)
        elif len(numbers) > 1:
            verdict.fail(f"lives {sorted(numbers)} share the writer {label!r}")
    for life in lives:
        for thread, acked in enumerate(life.acked):
            check_thread(life, thread, acked, seen.get((life.number, thread), Counter()), verdict)
    if leftovers:
        check_leftovers(run, verdict)
    return verdict


def check_thread(life: Life, thread: int, acked: int, seen: Counter[int], verdict: Verdict) -> None:
    """Acked records are there once, at most one more is, and none twice."""
    who = f"thread {thread} of life {life.number}"
    if missing := [n for n in range(acked) if n not in seen]:
        verdict.fail(f"{who}: {len(missing)} of {acked} acked records are lost: {missing[:5]}...")
    if twice := [n for n, count in seen.items() if count > 1]:
        verdict.fail(f"{who}: {len(twice)} records are there twice: {twice[:5]}...")
    beyond = sorted(n for n in seen if n >= acked)
    if beyond not in ([], [acked]):
        verdict.fail(f"{who}: beyond the {acked} acked records: {beyond[:5]}...")
    verdict.acked += acked
    verdict.extra += len(beyond)
