"""The background thread of text logs: order, bounds, forks and the end of the process."""

from __future__ import annotations

import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from foundry_fastlog import text_writer
from foundry_fastlog.text_lines import Message
from foundry_fastlog.text_writer import TextWriter


class Gate:
    """An output that can hang."""

    def __init__(self) -> None:
        """Start open."""
        self.open = threading.Event()
        self.open.set()
        self.entered = threading.Event()
        self.texts: list[str] = []
        self.threads: set[int] = set()

    def write(self, messages: Sequence[Message], texts: Sequence[str]) -> None:
        """Take texts once the gate is open."""
        self.entered.set()
        assert self.open.wait(60)
        assert len(messages) == len(texts)
        self.threads.add(threading.get_ident())
        self.texts += [message[3] for message in messages]


def message(text: str) -> Message:
    """Return a message."""
    return (0.0, 20, "x", text, {}, "")


@pytest.fixture
def gate() -> Iterator[Gate]:
    """Give an output, open again at the end."""
    gate = Gate()
    yield gate
    gate.open.set()


def test_messages_are_written_in_order_by_another_thread(gate: Gate) -> None:
    """More than a batch, to two outputs; flush() says when they have them."""
    writer, other = TextWriter(), Gate()
    for n in range(2500):
        writer.put((gate, other) if n % 2 else (gate,), message(str(n)))
    assert writer.flush()
    assert gate.texts == [str(n) for n in range(2500)]
    assert other.texts == [str(n) for n in range(1, 2500, 2)]
    assert threading.get_ident() not in gate.threads
    writer.end()


def test_flush_without_messages_returns_at_once() -> None:
    """There is no thread to wait for."""
    assert TextWriter().flush()


def test_flush_times_out_while_an_output_hangs(gate: Gate) -> None:
    """It says so, and works again afterwards."""
    writer = TextWriter()
    gate.open.clear()
    writer.put((gate,), message("a"))
    assert not writer.flush(0.01)
    gate.open.set()
    assert writer.flush()
    assert gate.texts == ["a"]
    writer.end()


def test_flush_from_an_output_does_not_wait_for_itself() -> None:
    """An output that logs and flushes would wait forever."""
    writer = TextWriter()
    answers: list[bool] = []

    class Flushing:
        def write(self, messages: Sequence[Message], texts: Sequence[str]) -> None:
            answers.append(writer.flush())

    writer.put((Flushing(),), message("a"))
    assert writer.flush()
    assert answers == [False]
    writer.end()


def test_a_full_queue_drops_and_says_how_many(gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    """The caller waits once in vain, then never again until the thread has moved."""
    monkeypatch.setattr(text_writer, "MAX_QUEUED", 4)
    monkeypatch.setattr(text_writer, "_WAIT_S", 0.01)
    writer = TextWriter()
    gate.open.clear()
    writer.put((gate,), message("first"))
    assert gate.entered.wait(60)
    for n in range(6):
        writer.put((gate,), message(str(n)))
    assert writer.dropped == 2
    gate.open.set()
    assert writer.flush()
    assert gate.texts[:5] == ["first", "0", "1", "2", "3"]
    assert "2 messages were left out" in gate.texts[5]
    assert writer.dropped == 0
    writer.end()


def test_a_full_queue_that_moves_loses_nothing(gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    """A caller that is faster than the thread waits for it."""
    monkeypatch.setattr(text_writer, "MAX_QUEUED", 3)
    monkeypatch.setattr(text_writer, "_WAIT_S", 60.0)
    writer = TextWriter()
    for n in range(200):
        writer.put((gate,), message(str(n)))
    assert writer.flush()
    assert gate.texts == [str(n) for n in range(200)]
    writer.end()


def test_after_the_end_the_caller_writes(gate: Gate) -> None:
    """What is logged while the process ends, by an atexit function say, is not lost."""
    writer = TextWriter()
    writer.put((gate,), message("a"))
    writer.end()
    assert gate.texts == ["a"]
    gate.threads.clear()
    writer.put((gate,), message("b"))
    assert gate.texts == ["a", "b"]
    assert gate.threads == {threading.get_ident()}
    writer.end()


def test_the_end_does_not_wait_for_an_output_that_hangs(
    gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A dead network drive must not keep the process."""
    monkeypatch.setattr(text_writer, "_WAIT_S", 0.01)
    monkeypatch.setattr(text_writer, "_FLUSH_S", 0.01)
    writer = TextWriter()
    gate.open.clear()
    writer.put((gate,), message("a"))
    writer.end()
    gate.open.set()


def test_without_threads_the_caller_writes(gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    """A system that gives no more threads costs speed, no messages."""

    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    writer = TextWriter()
    writer.put((gate,), message("a"))
    assert gate.texts == ["a"]


def test_a_thread_that_is_gone_is_replaced_by_the_caller(gate: Gate) -> None:
    """Daemon threads end before the interpreter does."""
    writer = TextWriter()
    writer.put((gate,), message("a"))
    writer.end()
    ended = threading.Thread(target=int)
    ended.start()
    ended.join()
    writer._thread = ended
    writer._ended = False
    writer.put((gate,), message("b"))
    assert writer.flush()
    assert gate.texts == ["a", "b"]


def test_two_threads_start_one_writer(gate: Gate) -> None:
    """The first messages may come at the same time."""
    writer = TextWriter()
    with writer._start_lock:
        callers = [
            threading.Thread(target=writer.put, args=((gate,), message("a"))) for _ in range(2)
        ]
        for caller in callers:
            caller.start()
    for caller in callers:
        caller.join()
    assert writer.flush()
    assert gate.texts == ["a", "a"]
    assert len(gate.threads) == 1
    writer.end()


def test_a_fork_waits_for_a_batch_but_not_forever(monkeypatch: pytest.MonkeyPatch) -> None:
    """The lock is released only if it was taken."""
    monkeypatch.setattr(text_writer, "_WAIT_S", 0.01)
    writer = TextWriter()
    writer.before_fork()
    taken: list[bool] = []
    other = threading.Thread(target=lambda: taken.append(writer._write_lock.acquire(timeout=0.01)))
    other.start()
    other.join()
    assert taken == [False]
    thread = threading.Thread(target=writer.before_fork)
    thread.start()
    thread.join()
    assert not writer._fork_waits
    writer.after_fork_in_parent()
    writer._write_lock.release()
    writer.after_fork_in_child()
    assert writer._write_lock.acquire(timeout=0)


CHILD_SCRIPT = """
    import logging, multiprocessing, os, sys
    from foundry_fastlog import TextFileHandler

    log = logging.getLogger("forked")
    log.setLevel(logging.INFO)
    log.propagate = False
    log.addHandler(TextFileHandler(sys.argv[1]))

    def work(n):
        for i in range(50):
            log.info("child %d %d", n, i)

    for i in range(300):
        log.info("parent %d", i)
    fork = multiprocessing.get_context("fork")
    workers = [fork.Process(target=work, args=(n,)) for n in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
        assert worker.exitcode == 0
    logging.getLogger("forked").info("last")
"""


def test_forked_children_write_their_own_messages_and_nothing_twice(tmp_path: Path) -> None:
    """Each message of parent and children is in the file once, also those at the exit."""
    path = tmp_path / "x_2025-09-30_14-30-00.log"
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", textwrap.dedent(CHILD_SCRIPT), str(path)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    rows = [row.split("forked: ")[1] for row in path.read_text().splitlines()]
    wanted = [f"parent {i}" for i in range(300)] + ["last"]
    wanted += [f"child {n} {i}" for n in range(3) for i in range(50)]
    assert sorted(rows) == sorted(wanted)
    for n in range(3):
        own = [row for row in rows if row.startswith(f"child {n} ")]
        assert own == [f"child {n} {i}" for i in range(50)]


def test_a_worker_of_multiprocessing_flushes_at_its_exit(monkeypatch: pytest.MonkeyPatch) -> None:
    """It leaves without atexit, so the writer asks multiprocessing to be called."""
    calls: list[object] = []
    monkeypatch.setattr(
        "multiprocessing.util.Finalize", lambda *args, **options: calls.append(args[1])
    )
    writer = TextWriter()
    writer.put((Gate(),), message("a"))
    writer.end()
    assert calls == [writer.flush]
    monkeypatch.delitem(sys.modules, "multiprocessing.util")
    text_writer._flush_at_worker_exit(writer)
    assert len(calls) == 1
