"""The driver's end of the workers: what they are told, what they answer, how they end."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import struct
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from world.oracle import Oracle
from world.records import Acks
from world.session import Session

WORKER = Path(__file__).with_name("worker.py")
#: Seconds that a command may take. Sanitizers and a busy machine are slow, a hang is for ever.
DEADLINE_S = float(os.environ.get("WORLD_DEADLINE_S", "60"))
#: GCC 12's sanitizer lets a forked child inherit its allocator's locks, held forever by a thread
#: that is not there, such as the flush thread. A child that stops there is ended, and counted.
SANITIZED = "asan" in os.environ.get("LD_PRELOAD", "")
STUCK_S = 20.0
NURSE, READER = 0, 1  # has no recorder, and forks fresh processes; reads and recovers


def readable(source: int | socket.socket, timeout_s: float) -> bool:
    """Wait until there is something to read, for so long at most."""
    waiting = select.poll()  # select() takes no descriptors beyond 1023
    waiting.register(source, select.POLLIN)
    return bool(waiting.poll(max(0, timeout_s) * 1000))


class Process:
    def __init__(self, number: int, connection: socket.socket, buffer: bytes) -> None:
        credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
        self.number = number
        self.pid = struct.unpack("3i", credentials)[0]  # ours, also of one in another namespace
        self.handle = os.pidfd_open(self.pid)
        self.connection = connection
        self.buffer = buffer
        self.group = number
        self.namespace: int | None = None
        self.alive = True
        self.recording = False
        self.closing = False  # its recorder is closed, but not all is written yet
        self.paused = False
        self.limited = False  # has no descriptor or no large file more
        self.may_stick = False  # forked under a sanitizer, from a process with a flush thread
        self.index = -1  # of its newest writer
        self.run = ""
        self.awaited: dict[str, Any] | None = None

    def signal(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.handle, number)

    def ended(self, timeout_s: float = 0) -> bool:
        return readable(self.handle, timeout_s)


class Processes:
    def __init__(self, session: Session, oracle: Oracle) -> None:
        self.session = session
        self.oracle = oracle
        self.known: dict[int, Process] = {}
        self.awaited: dict[int, int] = {}  # a child to come, and its parent
        self.stuck = 0
        self._direct: list[subprocess.Popen[bytes]] = []
        self.door = socket.socket(socket.AF_UNIX)
        path = session.folder / "door"
        path.unlink(missing_ok=True)
        self.door.bind(str(path))
        self.door.listen(64)
        self.messages = session.folder / "messages"
        self.messages.write_bytes(b"")

    # ---- starting --------------------------------------------------------------------------------

    def expect(self, number: int, parent: int) -> None:
        """A process will come; its counters are there before it is."""
        self.oracle.acks[number] = Acks(
            self.session.folder / "acks" / str(number), number, make=True
        )
        self.awaited[number] = parent

    def start(self, number: int, prefix: tuple[str, ...] = ()) -> None:
        self.expect(number, number)
        command = [
            *self._room(),
            *prefix,
            sys.executable,
            "-W",
            "ignore::DeprecationWarning",
            str(WORKER),
        ]
        command += [str(self.session.folder), str(number), *([] if prefix else ["direct"])]
        with self.messages.open("ab") as messages:
            self._direct.append(
                subprocess.Popen(
                    command, stderr=messages, stdout=messages, env=self.session.environment()
                )
            )

    def _room(self) -> list[str]:
        """What gives processes a /dev/shm of their own: rings that nobody finds go with it."""
        if not self.session.root:
            return []
        if nurse := self.known.get(NURSE):
            return ["nsenter", "--mount", "--target", str(nurse.pid)]
        script = 'mount -t tmpfs none /dev/shm && exec "$@"'
        return ["unshare", "--mount", "sh", "-c", script, "sh"]

    def find(self, number: int) -> Process | None:
        """Return a living process, waiting for it to be there; None when there is none."""
        parent = self.awaited.get(number)
        if parent is not None and parent != number:
            giver = self.known[parent]
            self.settle(giver)
        end = time.monotonic() + (STUCK_S if self.may_stick(number, parent) else DEADLINE_S)
        while number in self.awaited:
            orphaned = parent != number and not self.known[self.awaited[number]].alive
            if not self._accept(1.0 if orphaned else 5.0):
                if orphaned:
                    del self.awaited[number]
                elif time.monotonic() > end:
                    del self.awaited[number]
                    if self.may_stick(number, parent):
                        self.stuck += 1
                    else:
                        self.oracle.fail("hang", f"process {number} does not come")
        process = self.known.get(number)
        return process if process is not None and process.alive else None

    def may_stick(self, number: int, parent: int | None) -> bool:
        return SANITIZED and parent not in {None, number, NURSE}

    def _accept(self, timeout_s: float) -> bool:
        if not readable(self.door, timeout_s):
            return False
        connection, _ = self.door.accept()
        connection.settimeout(DEADLINE_S)
        try:
            data = b""
            while b"\n" not in data:
                more = connection.recv(65536)
                if not more:
                    raise ConnectionError("killed as it came")
                data += more
            line, _, rest = data.partition(b"\n")
            hello = json.loads(line)
            number = hello["process"]
            process = Process(number, connection, rest)
            if hello["busy"]:  # a second answer follows when it has done what it was born for
                process.awaited = {"do": "record first"}
            parent = self.awaited.pop(number, number)
            process.may_stick = self.may_stick(number, parent)
            if parent != number:
                giver = self.known[parent]
                process.group, process.namespace = giver.group, giver.namespace
            self.known[number] = process
        except (OSError, ValueError):  # killed, or gone meanwhile
            connection.close()
        return True

    # ---- commands --------------------------------------------------------------------------------

    def tell(self, process: Process, do: str, **details: Any) -> None:
        """Give a command, when the one before is answered; its answer is awaited later."""
        self.settle(process)
        if not process.alive:
            return
        self.resume(process)
        process.awaited = {"do": do, **details}
        with contextlib.suppress(OSError):  # it is dead: the answer will show it
            process.connection.sendall(json.dumps(process.awaited).encode() + b"\n")

    def ask(self, process: Process, do: str, **details: Any) -> dict[str, Any]:
        self.tell(process, do, **details)
        return self.settle(process)

    def settle(self, process: Process) -> dict[str, Any]:
        command, process.awaited = process.awaited, None
        if command is None or not process.alive:
            return {}
        self.resume(process)
        end = time.monotonic() + (STUCK_S if process.may_stick else DEADLINE_S)
        while b"\n" not in process.buffer:
            if not readable(process.connection, end - time.monotonic()):
                self._hangs(process, command)
                return {}
            try:
                more = process.connection.recv(1 << 20)
            except ConnectionResetError:
                more = b""
            if not more:
                self._died(process, command)
                return {}
            process.buffer += more
        line, _, process.buffer = process.buffer.partition(b"\n")
        answer: dict[str, Any] = json.loads(line)
        for kind, text in answer.get("faults", []):
            self.oracle.fail(kind, text)
        self.answered(process, command, answer)
        return answer

    def answered(self, process: Process, command: dict[str, Any], answer: dict[str, Any]) -> None:
        """Look at an answer; the world does."""

    def _hangs(self, process: Process, command: dict[str, Any]) -> None:
        if process.may_stick:
            self.stuck += 1
            self.kill(process)
            return
        before = self.messages.stat().st_size
        process.signal(signal.SIGUSR1)
        time.sleep(1)  # the dump is written by a signal handler, and nobody tells its end
        stacks = self.messages.read_bytes()[before:].decode(errors="replace")
        threads = []
        for task in sorted(Path(f"/proc/{process.pid}/task").glob("*")):
            with contextlib.suppress(OSError):
                name = (task / "comm").read_text().strip()
                threads.append(f"{name}: {(task / 'wchan').read_text()}")
        text = f"process {process.number} does not end {command}\n{stacks}{threads}"
        self.oracle.fail("hang", text)
        self.kill(process)

    def _died(self, process: Process, command: dict[str, Any]) -> None:
        self.gone(process, killed=True)
        said = self.messages.read_text(errors="replace")[-2000:]
        self.oracle.fail("died", f"process {process.number} died in {command}: {said}")

    # ---- ends ------------------------------------------------------------------------------------

    def gone(self, process: Process, *, killed: bool) -> None:
        process.alive = False
        fate = self.oracle.fates[process.number]
        fate.alive, fate.killed = False, killed
        process.connection.close()
        os.close(process.handle)
        for other in list(self.known.values()):
            if other.alive and other.namespace == process.number:  # whose init it was
                other.ended(DEADLINE_S)
                self.gone(other, killed=True)
        for direct in self._direct:
            direct.poll()

    def kill(self, process: Process) -> None:
        process.signal(signal.SIGKILL)
        if not process.ended(DEADLINE_S):
            self.oracle.fail("hang", f"process {process.number} does not die")
        self.gone(process, killed=True)

    def wait(self, process: Process, *, killed: bool) -> None:
        if not process.ended(DEADLINE_S):
            self._hangs(process, {"do": "end"})
            return
        self.gone(process, killed=killed)

    def pause(self, process: Process) -> None:
        """Stop a process, and wait until all of its threads stand."""
        process.signal(signal.SIGSTOP)
        process.paused = True
        end = time.monotonic() + 5
        while time.monotonic() < end and not process.ended():
            with contextlib.suppress(OSError):
                tasks = Path(f"/proc/{process.pid}/task").glob("*/stat")
                if all(task.read_text().rpartition(")")[2].split()[0] in "TZX" for task in tasks):
                    return
            time.sleep(0.001)

    def resume(self, process: Process) -> None:
        if process.paused:
            process.signal(signal.SIGCONT)
            process.paused = False

    def living(self) -> list[Process]:
        """All that live, but nurse and reader."""
        for number in list(self.awaited):
            self.find(number)
        return [p for n, p in self.known.items() if p.alive and n not in (NURSE, READER)]

    def end(self) -> None:
        """Kill what is left; also what was never told of."""
        for process in self.known.values():
            if process.alive:
                process.alive = False
                process.connection.close()
                os.close(process.handle)
        self.door.close()
        deadline = time.monotonic() + 20
        while (left := self.session.left()) and time.monotonic() < deadline:
            for pid in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            for direct in self._direct:
                direct.poll()
            time.sleep(0.005)
        for direct in self._direct:
            direct.wait(20)
