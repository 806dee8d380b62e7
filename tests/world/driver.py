"""Plays a schedule."""

from __future__ import annotations

import contextlib
import re
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from world.breaking import Breaker
from world.mishaps import foreign_bytes
from world.oracle import Oracle, Violation
from world.processes import DEADLINE_S, NURSE, READER, Process, Processes
from world.schedule import RUNS, Action, Schedule
from world.session import Session

_NAMESPACE = ("unshare", "--pid", "--fork", "--kill-child")
_SAID = re.compile(
    r"Traceback \(most|Fatal Python error|Sanitizer|runtime error:|Exception ignored"
)


@dataclass
class Result:
    """What came of a world."""

    violations: list[Violation]
    counts: Counter[str] = field(default_factory=Counter)

    @property
    def kinds(self) -> set[str]:
        return {violation.kind for violation in self.violations}


class World(Processes):
    def __init__(self, session: Session, schedule: Schedule) -> None:
        session.clear()
        self.schedule = schedule
        self.disk = session.disk(schedule.disk)
        oracle = Oracle(self.disk)
        super().__init__(session, oracle)
        self.ledger = oracle.ledger
        self.breaker = Breaker(self.disk, oracle.ledger, self.frozen)
        self.counts: Counter[str] = Counter()
        self.changed: Counter[str] = Counter()  # how often a directory was taken away
        self.full = False
        self.exits: dict[int, int] = {}  # who ended as a program does
        self.own: set[str] = set()  # directories in which something recorded

    def play(self) -> Result:
        begun = time.monotonic()
        try:
            self.start(NURSE)
            nurse = self.find(NURSE)
            assert nurse is not None, self.messages.read_text()
            self.expect(READER, NURSE)
            self.tell(nurse, "fork", child=READER, way="plain", threads=0, count=0)
            reader = self.find(READER)
            assert reader is not None, self.messages.read_text()
            self.happen()
            self.finish(reader)
        finally:
            self.end()
            self.ledger.close()
        self.counts["ms"] = int(1000 * (time.monotonic() - begun))
        self.counts["processes"] = len(self.known) - 2
        self.counts["stuck in a sanitizer"] = self.stuck
        return Result(self.oracle.violations, self.counts)

    def happen(self) -> None:
        for action in self.schedule.actions:
            self.do(dict(action))

    def do(self, action: Action) -> None:
        """Do one action, if there is anybody to do it."""
        name = action.pop("do")
        if (number := action.pop("who", None)) is None:
            done = getattr(self, "do_" + name)(**action)
        elif (process := self.find(number)) is None:
            return
        elif (own := getattr(self, "do_" + name, None)) is None:
            done = self.tell(process, name, **action)
        else:
            done = own(process, **action)
        self.counts["actions"] += done is not False

    # ---- processes -------------------------------------------------------------------------------

    def do_start(self, child: int, how: str, run: str, options: dict[str, Any]) -> None:
        nurse = self.known[NURSE]
        if how == "exec":
            self.start(child)
        elif how == "namespace" and self.session.root:
            self.start(child, _NAMESPACE)
        else:
            self.expect(child, NURSE)
            self.tell(nurse, "fork", child=child, way="plain", threads=0, count=0)
        if process := self.find(child):
            process.group = child
            if how == "namespace":
                process.namespace = child
                self.oracle.fates[child].killed = False
            self.do_open(process, run, options)

    def do_open(self, process: Process, run: str, options: dict[str, Any]) -> None:
        self.settle(process)
        if process.recording:
            return
        process.recording, process.run = True, run
        self.own.add(run)
        family = self.ledger.family(run)
        if self.full:
            self.oracle.unlisted.add(family)
        process.index += 1
        self.oracle.fates[process.number].run[process.index] = run
        self.tell(process, "open", path=str(self.disk / run), options=options)

    def _inherit(self, process: Process, child: int) -> None:
        self.expect(child, process.number)
        if process.recording and not process.closing:
            self.oracle.fates[child].run[0] = process.run

    def do_fork(self, process: Process, child: int, **how: Any) -> None:
        """Fork; the child records first, and answers when it has."""
        self.settle(process)
        self._inherit(process, child)
        self.tell(process, "fork", child=child, **how)
        born = self.find(child)
        self._born(process, born)

    def _born(self, process: Process, born: Process | None) -> None:
        if born is not None:
            born.recording, born.run = process.recording and not process.closing, process.run
            born.index += born.recording

    def do_spawn(self, process: Process, child: int) -> None:
        self.settle(process)
        self._inherit(process, child)
        self.tell(process, "spawn", child=child)
        self._born(process, self.find(child))

    def do_exec(self, process: Process, child: int) -> None:
        """Let another program take the process."""
        self.settle(process)
        self.expect(child, child)
        self.tell(process, "exec", child=child)
        born = self.find(child)
        if born is not None:
            born.group, born.namespace = process.group, process.namespace
            for other in self.known.values():  # it is their init as before
                if other.namespace == process.number:
                    other.namespace = child
            self.gone(process, killed=True)

    def do_exit(self, process: Process, how: str) -> None:
        self.ask(process, "exit", how=how)
        self.exits.update({process.pid: process.number} if how == "exit" else {})
        if process.alive:
            # Without room for the ring or for lines an exit saves no more than a kill does.
            self.wait(process, killed=how != "exit" or self.full or process.limited)

    def do_kill(self, process: Process, *, settled: bool = False) -> None:
        """SIGKILL, in the midst of what it does or behind it."""
        if settled:
            self.settle(process)
        if not process.alive:
            return
        self.counts["kills"] += 1
        if process.awaited is not None and process.awaited["do"] == "open":
            # It may have a mark that says "in memory" before it has said that it records.
            self.oracle.unlisted.add(self.ledger.family(process.run))
        self.kill(process)

    def do_kill_group(self, group: int) -> None:
        for process in self.living():
            if process.group == group and process.alive:
                self.do_kill(process)

    def do_pause(self, process: Process, ms: int) -> None:
        self.pause(process)
        time.sleep(ms / 1000)

    @contextlib.contextmanager
    def frozen(self) -> Iterator[None]:
        stopped = [p for p in [*self.living(), self.known[READER]] if p.alive and not p.paused]
        for process in stopped:
            self.pause(process)
        try:
            yield
        finally:
            for process in stopped:
                if process.alive:
                    self.resume(process)

    # ---- files -----------------------------------------------------------------------------------

    def do_copy(self, run: str, to: str) -> bool:
        """Copy a run, also over an older copy; not over one in which something recorded."""
        self.changed[to] += 1
        if to in self.own or not self.breaker.copy(run, to):
            return False
        self.ledger.family(to)
        self.oracle.note_copy(to)
        return True

    def do_move(self, run: str, to: str) -> bool:
        self.changed[run] += 1
        return self.breaker.move(run, to)

    def do_remove_run(self, run: str) -> None:
        self.changed[run] += 1
        self.breaker.remove_run(run)

    def do_own_file(self, run: str, size: int) -> bool:
        path = self.disk / run / f"notes-{len(self.oracle.own_files)}.txt"
        with contextlib.suppress(OSError):
            path.write_bytes(foreign_bytes(size))
            self.oracle.own_files.append((path, foreign_bytes(size)))
            return True
        return False

    def do_fill(self) -> bool:
        if self.disk.name != "tmpfs":
            return False
        self.breaker.fill()
        self.full = True
        self.oracle.unlisted |= set(self.ledger.families.values()) | set(RUNS)
        return True

    def do_limit(self, process: Process, kind: str, size: int) -> None:
        """Let a process have no descriptor, or no large file, more."""
        if process.recording and kind == "nofile":  # a fork then finds none to say that it begins
            self.oracle.unlisted.add(self.ledger.family(process.run))
        process.limited = True
        self.tell(process, "limit", kind=kind, size=size)

    def do_close_descriptors(self, process: Process) -> None:
        """Close files below a recorder, its directory among them."""
        if process.recording:
            self.oracle.adrift.add(self.ledger.family(process.run))
        self.tell(process, "close_descriptors")

    def do_relax(self, process: Process) -> None:
        process.limited = False
        self.tell(process, "relax")

    def do_free(self) -> None:
        self.breaker.free()
        self.full = False

    def __getattr__(self, name: str) -> Any:
        """What needs no process is the breaker's."""
        if name.startswith("do_"):
            return getattr(self.breaker, name[3:])
        raise AttributeError(name)

    # ---- looks -----------------------------------------------------------------------------------

    def do_sleep(self, ms: int) -> None:
        time.sleep(ms / 1000)

    def do_read(self, run: str, how: str) -> None:
        family = self.ledger.family(run) if run in self.ledger.families else None
        copied = run in self.oracle.copies and run not in self.own
        promised = self.oracle.copies[run] if copied else set()
        if family is not None and self.ledger.runs(family) == [run]:
            promised = promised | self.oracle.flushed(family)
        context = {"run": run, "promised": promised, "changed": self.changed[run]}
        self.tell(self.known[READER], "read", path=str(self.disk / run), how=how)
        self.reading = context

    def do_recover(self, run: str, how: str, times: int = 1) -> None:
        """Recover a run while it is written, many times in a row."""
        path = str(self.disk / run)
        self.tell(self.known[READER], "recover", path=path, how=how, times=times)

    def do_check(self) -> None:
        """Everybody's promises until now."""
        for process in self.living():
            self.settle(process)

    def answered(self, process: Process, command: dict[str, Any], answer: dict[str, Any]) -> None:
        """Hold a process to what it has just said."""
        if answer.get("flushed") or answer.get("closed"):
            self.oracle.check_flushed(process.number, command["do"])
        if command["do"] == "close":
            process.recording = process.closing = not answer.get("closed", True)
        if command["do"] == "read" and "shown" in answer:
            context = self.reading
            if context["changed"] == self.changed[context["run"]]:
                excused = self.ledger.excused(self.ledger.family(context["run"]))
                self.oracle.check_shown(context["run"], context["promised"] - excused, answer)

    # ---- the end ---------------------------------------------------------------------------------

    def finish(self, reader: Process) -> None:
        """Give the disk back, let all close and end, recover, read and judge."""
        self.do_free()
        self.settle(reader)
        living = self.living()
        for process in living:
            if process.alive:
                self.do_relax(process)
        for process in living:
            if process.alive and process.recording:
                self.tell(process, "close", timeout_s=15)
        for process in living:
            if process.alive:
                recording = process.recording
                answer = self.settle(process)
                if recording and answer.get("closed") is False and process.may_stick:
                    self.stuck += 1  # the flush thread alone
                elif recording and answer.get("closed") is False:
                    self.oracle.fail("close-failed", f"process {process.number}: no close()")
            if process.alive:
                self.do_exit(process, "exit")
        for pid, status in self.ask(self.known[NURSE], "ends").get("ends", []):
            if pid in self.exits and status:
                text = f"process {self.exits[pid]} ended with {status} instead of 0"
                self.oracle.fail("exit-status", text)
        runs = [run for run in self.ledger.families if (self.disk / run).is_dir()]
        for run in runs:
            self.ask(reader, "recover", path=str(self.disk / run), how="function")
        answers = {}
        for run in runs:
            self.reading = {"run": run, "promised": set(), "changed": -1}
            answers[run] = self.ask(reader, "read", path=str(self.disk / run), how="summary")
        if reader.alive:
            self.counts["acked"] = self.oracle.judge(answers)
        said = self.messages.read_text(errors="replace")
        if match := _SAID.search(said):
            self.oracle.fail("said", said[max(0, match.start() - 200) : match.start() + 800])


def play(session: Session, schedule: Schedule) -> Result:
    return World(session, schedule).play()


__all__ = ["DEADLINE_S", "Result", "World", "play"]
