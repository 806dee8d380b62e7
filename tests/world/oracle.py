"""Judges a world: acknowledged records against files. The rules are in __init__.py."""

from __future__ import annotations

import contextlib
import os
import re
import zlib
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson
from crash.acked import in_the_making

from foundry_fastlog.run.files import looks_like_stream_file, parse_name
from world.records import CLOSED, MEMORY, PER_PROCESS, UNKNOWN, Acks, Writer, content, origin

Key = tuple[int, int, int]  # writer, thread, number
# Straight out of the bytes, for looks in between; values of a record come in any order.
_KEY = re.compile(
    rb'"(?:metrics|context|system)":\{(?:"[a-z_]+":[0-9.e+-]+,)??"w":(\d+),"t":(\d+),"n":(\d+)[,}]'
)


@dataclass(frozen=True)
class Violation:
    """Something that must not be: a word for its kind, and what was seen."""

    kind: str
    text: str


@dataclass
class Lines:
    """The lines of one file.

    Attributes:
        keys: Records in their order.
        bad: Lines that are none.
        wrong: Records with another name or value than was recorded.
        torn: Bytes behind the last newline.
    """

    keys: list[tuple[Key, str]] = field(default_factory=list)
    bad: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    torn: bytes = b""


def parse(data: bytes) -> Lines:
    lines = Lines()
    *whole, lines.torn = data.split(b"\n")
    for raw in whole:
        try:
            line = orjson.loads(raw)
            if "dropped" in line:
                continue
            writer, thread, n, *rest = origin(line)
        except (ValueError, KeyError, TypeError):
            lines.bad.append(repr(raw[:200]))
            continue
        if tuple(rest) != content(writer, thread, n):
            lines.wrong.append(f"{content(writer, thread, n)} became {raw!r}")
        lines.keys.append(((writer, thread, n), rest[0]))
    return lines


def quick_keys(data: bytes) -> set[Key]:
    return {(int(w), int(t), int(n)) for w, t, n in _KEY.findall(data[: data.rfind(b"\n") + 1])}


def read_files(folder: Path) -> Iterator[tuple[Path, bytes]]:
    """Read all that could be taken for a stream's file."""
    with_names = sorted(folder.iterdir()) if folder.is_dir() else []
    for path in with_names:
        if looks_like_stream_file(path.name) and path.is_file():
            yield path, path.read_bytes()


def compressed_keys(folder: Path) -> set[Key]:
    """Records in compressed segments that count, whether or not a writer made the file again."""
    keys: set[Key] = set()
    for path in folder.glob("*.jsonl.gz"):
        unpacked = b""
        with contextlib.suppress(zlib.error):  # the disk was full: what can be had counts
            unpacked = zlib.decompressobj(zlib.MAX_WBITS | 16).decompress(path.read_bytes())
        plain = path.with_suffix("")
        lines = plain.read_bytes() if plain.exists() else b""
        if parse_name(path.stem) and lines.partition(b"\n")[0] != unpacked.partition(b"\n")[0]:
            keys |= quick_keys(unpacked)
    return keys


class Ledger:
    """What the world itself took away, by family of directories.

    Attributes:
        families: Directory to family: a run keeps its family when it is moved.
        rings: Rings that were removed.
        broken: Families in which files were removed, renamed, cut or moved.
        removed: Families of which a directory was removed, and with it what knew of its writers.
        cut: Files that were truncated, by inode.
    """

    def __init__(self) -> None:
        self.families: dict[str, str] = {}
        self.rings: set[str] = set()
        self.broken: set[str] = set()
        self.removed: set[str] = set()
        self.cut: set[int] = set()
        self._taken: dict[str, list[tuple[int, int]]] = defaultdict(list)
        self._bytes: dict[str, list[bytes]] = defaultdict(list)

    def family(self, run: str) -> str:
        return self.families.setdefault(run, run)

    def runs(self, family: str) -> list[str]:
        """The directories of a family."""
        return [run for run, found in self.families.items() if found == family]

    def take(self, run: str, fd: int) -> None:
        """Note a file that has just lost its name: what it holds now is excused, no later bytes."""
        self.broken.add(self.family(run))
        self._taken[self.family(run)].append((fd, os.fstat(fd).st_size))

    def take_bytes(self, run: str, data: bytes) -> None:
        self.broken.add(self.family(run))
        self._bytes[self.family(run)].append(data)

    def excused(self, family: str) -> set[Key]:
        """Records that lay in what was taken, when it was."""
        keys: set[Key] = set()
        for data in self._bytes[family]:
            keys |= quick_keys(data + b"\n" if data.endswith(b"}") else data)
        for fd, size in self._taken[family]:
            keys |= quick_keys(os.pread(fd, size, 0))
        return keys

    def late(self, family: str) -> set[Key]:
        """Records that were written into a file after it had lost its name."""
        keys: set[Key] = set()
        for fd, _ in self._taken[family]:
            keys |= quick_keys(os.pread(fd, os.fstat(fd).st_size, 0))
        return keys - self.excused(family)

    def close(self) -> None:
        for taken in self._taken.values():
            for fd, _ in taken:
                os.close(fd)
        self._taken.clear()


@dataclass
class Fate:
    """How a process ended.

    Attributes:
        run: Where its writers record, by index; the last one is that of all later ones.
        killed: It did not end by itself.
        alive: It has not ended.
    """

    run: dict[int, str] = field(default_factory=dict)
    killed: bool = False
    alive: bool = True


class Oracle:
    """Knows what was acknowledged, and looks.

    Args:
        disk: The folder with the runs.
    """

    def __init__(self, disk: Path) -> None:
        self.disk = disk
        self.ledger = Ledger()
        self.acks: dict[int, Acks] = {}
        self.fates: dict[int, Fate] = defaultdict(Fate)
        self.copies: dict[str, set[Key]] = {}
        self.overlaid: set[str] = set()  # copies over which a later state was copied
        self.own_files: list[tuple[Path, bytes]] = []
        self.violations: list[Violation] = []
        self.adrift: set[str] = set()  # families with writers that do not find a run that was moved
        self.unlisted: set[str] = set()  # families with writers that could not say that they are

    def fail(self, kind: str, text: str) -> None:
        self.violations.append(Violation(kind, text))

    def writers(self, family: str) -> Iterator[tuple[Writer, Fate]]:
        """All that recorded in a family of directories."""
        for process, acks in self.acks.items():
            fate = self.fates[process]
            for writer in acks.writers():
                run = fate.run.get(writer.number % PER_PROCESS)
                if run is not None and self.ledger.family(run) == family:
                    yield writer, fate

    # ---- while the world goes on -----------------------------------------------------------------

    def flushed(self, family: str) -> set[Key]:
        return {
            (writer.number, thread, n)
            for writer, _ in self.writers(family)
            for thread, count in enumerate(writer.flushed)
            for n in range(count)
        }

    def check_flushed(self, process: int, what: str) -> None:
        """What flush() or close() of a process has just promised is so."""
        for writer in self.acks[process].writers():
            run = self.fates[process].run.get(writer.number % PER_PROCESS)
            if run is None:
                continue
            family = self.ledger.family(run)
            promised = {
                (writer.number, thread, n)
                for thread, count in enumerate(writer.flushed)
                for n in range(count)
            }
            missing = promised - self.in_files(family)
            if missing and (missing := missing - self.ledger.excused(family)):
                late = missing & self.ledger.late(family)
                self.fail("late" if missing == late else f"{what}-false", describe(missing))

    def in_files(self, family: str) -> set[Key]:
        keys: set[Key] = set()
        for run in self.ledger.runs(family):
            for _, data in read_files(self.disk / run):
                keys |= quick_keys(data)
        return keys

    def note_copy(self, name: str) -> None:
        """Note what a copy holds: it is not to lose it."""
        if name in self.copies:
            self.overlaid.add(name)
        self.copies[name] = set()
        for _, data in read_files(self.disk / name):
            self.copies[name] |= quick_keys(data)

    def check_shown(self, run: str, promised: set[Key], answer: dict[str, Any]) -> None:
        """A reader shows what is promised: by flush() before, and not taken away since."""
        shown = {
            (writer, thread, n)
            for writer, thread, stretches in answer["shown"]
            for first, last in stretches
            for n in range(first, last + 1)
        }
        if missing := promised - shown:
            said = "complete" if answer["complete"] else answer["problems"][:3]
            self.fail("hidden", f"{run}: a reader does not show {describe(missing)}: {said}")

    # ---- at the end ------------------------------------------------------------------------------

    def judge(self, answers: dict[str, dict[str, Any]]) -> int:
        """Judge all runs, which are recovered, and what readers said; return records acked."""
        acked = 0
        for family in sorted(set(self.ledger.families.values())):
            acked += self._judge_family(family, answers)
        for path, data in self.own_files:
            if path.exists() and path.read_bytes() != data:
                self.fail("foreign-changed", f"somebody wrote to {path}")
        return acked

    def _judge_family(self, family: str, answers: dict[str, dict[str, Any]]) -> int:
        copy = family in self.copies
        count: dict[Key, int] = defaultdict(int)
        of_run: dict[str, set[Key]] = {}
        within: set[Key] = set()  # twice in one directory
        writers = {writer.number: (writer, fate) for writer, fate in self.writers(family)}
        careless = any(
            fate.killed and (writer.ring != 1 or writer.ring_name in self.ledger.rings)
            for writer, fate in writers.values()
        )
        for run in self.ledger.runs(family):
            of_run[run] = set()
            for path, data in read_files(self.disk / run):
                lines = parse(data)
                self._judge_file(path, lines, careless=careless)
                for key, _ in lines.keys:
                    if key in of_run[run]:
                        within.add(key)
                    count[key] += 1
                    of_run[run].add(key)
            lost_sight = family in self.adrift and self.ledger.runs(family) != [run]
            self._judge_private(self.disk / run / ".fastlog", copy=copy or lost_sight)
        twice = {key for key, times in count.items() if times > 1}
        if family in self.adrift:  # a batch that is half written goes to the new run whole
            twice &= within
        # Recovery wrote into the older copy what the later one brings along, without a ring.
        told = family in self.overlaid and not answers.get(family, {}).get("complete", True)
        if twice and not told:
            self.fail("duplicate", f"{family}: {describe(twice)}")
        if copy and (cut := self.copies[family] - count.keys()):
            self.fail("copy-cut", f"{family}: lines are gone that the copy had: {describe(cut)}")
        if not copy:
            strangers = [k for k in count if k[0] not in writers]
            if strangers:
                self.fail("stranger", f"{family}: nobody recorded {describe(strangers)} here")
        acked = self._judge_writers(family, writers, count)
        for run, keys in of_run.items():
            if run in answers:
                keys |= compressed_keys(self.disk / run)
                self._judge_answer(run, keys, writers, answers[run], careless=careless)
        return acked

    def _judge_file(self, path: Path, lines: Lines, *, careless: bool) -> None:
        cut = path.stat().st_ino in self.ledger.cut
        if lines.bad and not cut:
            self.fail("bad-line", f"{path}: {len(lines.bad)}, as {lines.bad[0]}")
        if lines.torn and not cut and not careless and path.parent.name not in self.copies:
            self.fail("torn", f"{path}: {lines.torn[:200]!r}")
        if lines.wrong:
            self.fail("wrong-record", f"{path}: {lines.wrong[0]}")
        writers = {key[0] for key, _ in lines.keys}
        if len(writers) > 1:
            self.fail("two-writers", f"{path}: {sorted(writers)}")
        order: dict[int, dict[int, int]] = defaultdict(dict)
        for (writer, thread, n), _ in lines.keys:
            if n < order[writer].get(thread, -1):
                self.fail("order", f"{path}: {n} of thread {thread} behind a later one")
                break
            order[writer][thread] = n

    def _judge_private(self, folder: Path, *, copy: bool) -> None:
        rings = folder.glob("*.ring*") if folder.is_dir() else []
        left = [path.name for path in rings if not in_the_making(path)]
        if left and not copy:
            self.fail("ring-left", f"{folder}: {left[:3]}")
        moved = [path.name for path in (folder / "quarantine").glob("*")]
        if moved and not copy:
            reasons = [path.read_text() for path in (folder / "quarantine").glob("*.reason*")]
            self.fail("quarantined", f"{folder}: {moved[:3]} {reasons[:1]}")

    def _judge_writers(
        self, family: str, writers: dict[int, tuple[Writer, Fate]], count: dict[Key, int]
    ) -> int:
        excused: set[Key] | None = None
        acked = 0
        lost: list[Key] = []
        for number, (writer, fate) in writers.items():
            acked += sum(writer.acked)
            # Unknown: it was killed before it could say where its ring is.
            ringless = writer.ring in (MEMORY, UNKNOWN) or writer.ring_name in self.ledger.rings
            for thread, n_acked in enumerate(writer.acked):
                safe = writer.flushed[thread] if fate.killed and ringless else n_acked
                lost += [
                    (number, thread, n) for n in range(safe) if (number, thread, n) not in count
                ]
        if lost:
            excused = self.ledger.excused(family)
            lost = [key for key in lost if key not in excused]
        late = self.ledger.late(family) if lost else set()
        if found := [key for key in lost if key in late]:
            self.fail("late", f"{family}: written into a file that was gone: {describe(found)}")
        if found := [key for key in lost if key not in late]:
            closed = [k for k in found if writers[k[0]][0].ended == CLOSED]
            kind = "lost-closed" if closed else "lost"
            self.fail(kind, f"{family}: {describe(found)} of {acked} acknowledged")
        for writer_number, thread, n in count:
            if writer_number not in writers:
                continue
            writer, fate = writers[writer_number]
            # The last one may be there whose record() did not return.
            if n >= writer.acked[thread] + fate.killed:
                self.fail("invented", f"{family}: {(writer_number, thread, n)}")
                break
        return acked

    def _judge_answer(
        self,
        run: str,
        keys: set[Key],
        writers: dict[int, tuple[Writer, Fate]],
        answer: dict[str, Any],
        *,
        careless: bool,
    ) -> None:
        if "shown" not in answer and not keys:
            return  # its first process found no room for a file
        if "shown" not in answer:
            self.fail("unreadable", f"{run}: {answer}")
            return
        self.check_shown(run, keys, answer)
        if not answer["complete"]:
            # Who has no descriptor free cannot say that it begins or ends.
            whole = self.ledger.family(run) not in self.ledger.broken | self.unlisted
            whole = whole and not careless
            if whole and run not in self.copies:
                self.fail("false-alarm", f"{run}: {answer['problems'][:3]}")
            return
        last: dict[tuple[int, int, str], int] = {}
        for writer, thread, n in keys:
            place = (writer, thread, content(writer, thread, n)[0])
            last[place] = max(n, last.get(place, -1))
        known = [
            (number, thread, n)
            for number, (writer, _) in writers.items()
            for thread, count in enumerate(writer.acked)
            for n in range(count)
            if (number, thread, n) not in keys
            and n < last.get((number, thread, content(number, thread, n)[0]), -1)
        ]
        family = self.ledger.family(run)
        if self.ledger.runs(family) == [run] and family not in self.ledger.removed | self.unlisted:
            known += self._lost_tails(family, writers, keys)
        if known:
            self.fail("false-complete", f"{run}: complete, but without {describe(known)}")

    def _lost_tails(
        self, family: str, writers: dict[int, tuple[Writer, Fate]], keys: set[Key]
    ) -> set[Key]:
        """What the world took with the rings of writers that were killed, and with nothing else."""
        lost = {
            (number, thread, n)
            for number, (writer, fate) in writers.items()
            if fate.killed and writer.ended != CLOSED
            for thread, count in enumerate(writer.acked)
            for n in range(count)
        }
        return lost - keys - self.ledger.excused(family)


def describe(keys: Iterable[Key]) -> str:
    found = sorted(keys)
    return f"{len(found)} records, as (writer, thread, number) {found[:3]} to {found[-1]}"
