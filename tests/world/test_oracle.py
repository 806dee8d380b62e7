"""The oracle notices each thing that must not be, and nothing else."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from world.minimise import minimise
from world.mishaps import foreign_bytes
from world.oracle import Oracle
from world.records import Acks, content
from world.schedule import Schedule, draw

WRITER, THREAD = 2000, 1


def line(n: int, *, seq: int | None = None, writer: int = WRITER, name: str | None = None) -> str:
    stream, right, value = content(writer, THREAD, n)
    values = {"w": writer, "t": THREAD, "n": n, name or right: value}
    body: dict[str, Any] = {"seq": n if seq is None else seq, "step": n}
    if stream in ("metrics", "system"):
        body[stream] = values
    else:
        body |= {"context": values, **({"error_type": "E"} if stream == "errors" else {})}
    return json.dumps(body, separators=(",", ":")) + "\n"


class Run:
    """A run with one writer, all of whose records are there."""

    def __init__(self, folder: Path, count: int = 20) -> None:
        self.oracle = Oracle(folder)
        self.folder = folder / "run0"
        self.folder.mkdir()
        (folder / "acks").mkdir()
        self.oracle.acks[2] = acks = Acks(folder / "acks" / "2", 2, make=True)
        acks.begin(0)
        acks.place(0, "/dev/shm/fastlog-0.ring")
        acks.ack(0, THREAD, count)
        self.oracle.ledger.family("run0")
        self.oracle.fates[2].run[0] = "run0"
        self.file = self.folder / "metrics.jsonl"
        self.lines = [line(n) for n in range(count)]
        self.own = folder / "notes"
        self.own.write_bytes(foreign_bytes(50))
        self.oracle.own_files.append((self.own, foreign_bytes(50)))
        self.packed: list[str] = []  # lines that a reader has out of compressed files
        self.complete = True

    def kinds(self) -> set[str]:
        """What the oracle finds, with a reader that shows what is there."""
        self.file.write_text("".join(self.lines))
        shown = []
        for text in self.packed + self.lines:
            fields = json.loads(text) if text.startswith("{") and text.endswith("}\n") else {}
            values = fields.get("metrics") or fields.get("system") or fields.get("context")
            if values:
                shown.append([values["w"], values["t"], [[values["n"], values["n"]]]])
        answer = {"shown": shown, "complete": self.complete, "problems": ["gap"]}
        self.oracle.judge({"run0": answer})
        return {violation.kind for violation in self.oracle.violations}


def lose_one(run: Run) -> None:
    """A line in the middle is gone, and the reader says so."""
    del run.lines[7]
    run.complete = False


def compress(run: Run) -> None:
    """A closed segment was compressed by the world: the reader shows it, and is complete."""
    whole = "".join(run.lines[:7])
    run.oracle.ledger.take_bytes("run0", whole.encode())
    (run.folder / "metrics.000007.jsonl.gz").write_bytes(gzip.compress(whole.encode()))
    run.packed, run.lines = run.lines[:7], run.lines[7:]


def hide_compressed(run: Run) -> None:
    """The same, and the reader does not show it."""
    compress(run)
    run.packed = []


def copy_again(run: Run) -> None:
    """A line is there twice in a copy over which a later state was copied."""
    for _ in range(2):
        run.file.write_text("")
        run.oracle.note_copy("run0")
    run.lines.append(run.lines[-1])


def copy_again_told(run: Run) -> None:
    """The same, and the reader says so."""
    copy_again(run)
    run.complete = False


CASES: dict[str, Callable[[Run], object]] = {
    "": lambda run: None,
    "  ": compress,
    "hidden": hide_compressed,
    "lost false-alarm": lose_one,
    "false-complete": lambda run: run.oracle.ledger.take_bytes("run0", run.lines.pop(7).encode()),
    "duplicate": lambda run: run.lines.append(run.lines[-1]),
    " duplicate": copy_again,
    " ": copy_again_told,
    "order": lambda run: run.lines.reverse(),
    "bad-line": lambda run: run.lines.append("{}\n"),
    "torn": lambda run: run.lines.append('{"seq'),
    "wrong-record": lambda run: run.lines.__setitem__(3, line(3, name="other")),
    "invented": lambda run: run.lines.append(line(20)),
    "two-writers stranger": lambda run: run.lines.append(line(0, writer=3000)),
    "copy-cut": lambda run: run.oracle.copies.update(run0={(9000, 0, 0)}),
    "foreign-changed": lambda run: run.own.write_bytes(b"{}"),
    "false-alarm": lambda run: setattr(run, "complete", False),
}


@pytest.mark.parametrize("kinds", CASES)
def test_the_oracle_notices(tmp_path: Path, kinds: str) -> None:
    """Each kind of violation by itself."""
    run = Run(tmp_path)
    CASES[kinds](run)
    assert run.kinds() == set(kinds.split())


def test_a_schedule_is_a_function_of_its_seed() -> None:
    """The same seed gives the same actions, also through a script; another one gives others."""
    assert draw(3).dump() == draw(3).dump() == Schedule.load(draw(3).dump()).dump()
    assert draw(3).actions != draw(4).actions
    assert {action["do"] for action in draw(3, only=["fork"]).actions} <= {"start", "fork"}


def test_the_least_actions_are_found() -> None:
    """What the failure needs is left, and nothing else."""
    needed = [action for action in draw(5).actions if action["do"] != "sleep"][7:9]

    def fails(schedule: Schedule) -> bool:
        return all(action in schedule.actions for action in needed)

    assert minimise(draw(5), fails, 60).actions == needed
