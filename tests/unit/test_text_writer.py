"""The background thread of text logs: order, bounds, forks and the end of the process."""

from __future__ import annotations

import logging
import math
import sys
import textwrap
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
from recorded import eventually, in_threads, run_python

from foundry_fastlog.messages import text_writer
from foundry_fastlog.messages.text_lines import Message
from foundry_fastlog.messages.text_writer import TextWriter, ToConsole

Caplog, Patch = pytest.LogCaptureFixture, pytest.MonkeyPatch


class Gate:
    """An output that can hang."""

    def __init__(self) -> None:
        self.open = threading.Event()
        self.open.set()
        self.entered = threading.Event()
        self.texts: list[str] = []
        self.threads: set[int] = set()

    def write(self, messages: Sequence[Message], texts: Sequence[str]) -> None:
        self.entered.set()
        assert self.open.wait(60)
        assert len(messages) == len(texts)
        self.threads.add(threading.get_ident())
        self.texts += [message[3] for message in messages]


def message(text: str, level: int = logging.INFO) -> Message:
    return (0.0, level, "x", text, {}, "")


@pytest.fixture
def gate() -> Iterator[Gate]:
    gate = Gate()
    yield gate
    gate.open.set()


@pytest.fixture
def writer(gate: Gate) -> Iterator[TextWriter]:
    """Give a writer, ended after the gate has been opened."""
    writer = TextWriter()
    yield writer
    gate.open.set()
    writer.end()


def test_messages_are_written_in_order_by_another_thread(gate: Gate, writer: TextWriter) -> None:
    """More than a batch, to two outputs; flush() says when they have them, at once if none is."""
    assert writer.flush()
    other = Gate()
    for n in range(2500):
        writer.put((gate, other) if n % 2 else (gate,), message(str(n)))
    assert writer.flush()
    assert gate.texts == [str(n) for n in range(2500)]
    assert other.texts == [str(n) for n in range(1, 2500, 2)]
    assert threading.get_ident() not in gate.threads
    writer.end()


def test_flush_waits_once_for_a_hang(gate: Gate, writer: TextWriter, monkeypatch: Patch) -> None:
    """Its many handlers are closed one after the other; once it moves it is waited for again."""
    gate.open.clear()
    writer.put((gate,), message("a"))
    assert not writer.flush(0.01)
    monkeypatch.setattr(text_writer, "_FLUSH_S", 0.01)
    assert not writer.flush()
    monkeypatch.setattr(text_writer, "_FLUSH_S", 3600.0)
    assert not writer.flush()
    gate.open.set()
    assert writer.flush(60)
    assert writer.flush()
    assert gate.texts == ["a"]


def test_flush_from_an_output_does_not_wait_for_itself(writer: TextWriter) -> None:
    """An output that logs and flushes would wait forever."""
    answers: list[bool] = []
    flushing = Mock(write=lambda messages, texts: answers.append(writer.flush()))
    writer.put((flushing,), message("a"))
    assert writer.flush()
    assert answers == [False]


@pytest.mark.parametrize("moves", [True, False])
def test_flush_goes_on_while_something_moves(
    gate: Gate, writer: TextWriter, moves: bool, monkeypatch: Patch
) -> None:
    """A slow disk with a long queue is no disk that hangs."""
    writer.put((gate,), message("a"))
    waits: list[float | None] = []

    class Impatient(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            waits.append(timeout)
            writer._moves += moves
            return len(waits) > 3 and super().wait(60)

    with monkeypatch.context() as patch:
        patch.setattr(threading, "Event", Impatient)
        assert writer.flush() is moves
    assert set(waits) == {text_writer._FLUSH_S}


def test_an_error_is_written_at_once(gate: Gate, writer: TextWriter, monkeypatch: Patch) -> None:
    """It and all before it; while an output hangs the caller waits once, and briefly."""
    monkeypatch.setattr(text_writer, "_ERROR_S", 60.0)
    for n, level in enumerate((logging.INFO, logging.ERROR, logging.CRITICAL)):
        writer.put((gate,), message(str(n), level))
        assert level < logging.ERROR or gate.texts == [str(i) for i in range(n + 1)]
    monkeypatch.setattr(text_writer, "_ERROR_S", 0.01)
    gate.open.clear()
    flush = Mock(side_effect=writer.flush)
    monkeypatch.setattr(writer, "flush", flush)
    for n in range(3, 6):
        writer.put((gate,), message(str(n), logging.ERROR))
    flush.assert_called_once_with(0.01)
    gate.open.set()
    assert flush()
    assert gate.texts == [str(n) for n in range(6)]


def test_an_error_is_in_file_and_console_when_the_process_is_gone(tmp_path: Path) -> None:
    """os._exit() runs nothing of Python's any more, as a kill does not."""
    script = """
        import logging, os, sys
        from foundry_fastlog import ConsoleHandler, TextFileHandler
        from foundry_fastlog.messages import text_writer

        text_writer._ERROR_S = 60
        log = logging.getLogger("gone")
        log.addHandler(TextFileHandler(sys.argv[1]))
        log.addHandler(ConsoleHandler())
        log.warning("before")
        log.error("the end")
        os._exit(3)
    """
    done = run_python(textwrap.dedent(script), tmp_path / "x.log", returncode=3)
    for text in ((tmp_path / "x.log").read_text(), done.stderr):
        assert [row.split(" ", 2)[2] for row in text.splitlines()] == [
            "[WARNING] gone: before",
            "[ERROR] gone: the end",
        ]


def test_a_full_queue_drops_some(gate: Gate, writer: TextWriter, monkeypatch: Patch) -> None:
    """The caller waits once in vain, then never again until the thread has moved."""
    monkeypatch.setattr(text_writer, "MAX_QUEUED", 4)
    monkeypatch.setattr(text_writer, "_WAIT_S", 0.01)
    gate.open.clear()
    writer.put((gate,), message("first"))
    assert gate.entered.wait(60)
    for n in range(6):
        writer.put((gate,), message(str(n)))
    assert writer.dropped == 2
    gate.open.set()
    assert writer.flush()
    assert gate.texts[:5] == ["first", "0", "1", "2", "3"]
    assert "2 messages were dropped" in gate.texts[5]
    assert writer.dropped == 0


def test_a_full_queue_that_moves(gate: Gate, writer: TextWriter, monkeypatch: Patch) -> None:
    monkeypatch.setattr(text_writer, "MAX_QUEUED", 3)
    monkeypatch.setattr(text_writer, "_WAIT_S", 60.0)
    for n in range(200):
        writer.put((gate,), message(str(n)))
    assert writer.flush()
    assert gate.texts == [str(n) for n in range(200)]


def test_after_the_end_the_caller_writes(gate: Gate, writer: TextWriter) -> None:
    """What is logged while the process ends, by an atexit function say, is not lost."""
    writer.put((gate,), message("a"))
    writer.end()
    assert gate.texts == ["a"]
    gate.threads.clear()
    writer.put((gate,), message("b"))
    assert gate.texts == ["a", "b"]
    assert gate.threads == {threading.get_ident()}


@pytest.mark.parametrize("path", [None, Path("/dead/main.log")])
def test_the_end_does_not_wait_for_an_output_that_hangs(
    gate: Gate, writer: TextWriter, path: Path | None, monkeypatch: Patch, caplog: Caplog
) -> None:
    """A dead network drive must not keep the process; it is told, a console that hangs is not."""
    monkeypatch.setattr(text_writer, "_WAIT_S", 0.01)
    monkeypatch.setattr(text_writer, "_FLUSH_S", 0.01)
    if path is not None:
        vars(gate)["path"] = path
    gate.open.clear()
    writer.put((gate,), message("a"))
    assert gate.entered.wait(60)
    writer.end()
    gate.open.set()
    assert ("missing from /dead/main.log" in caplog.text) == (path is not None)


def test_without_threads(gate: Gate, writer: TextWriter, monkeypatch: Patch) -> None:
    """A system that gives no more threads costs speed, no messages."""
    refuse = Mock(side_effect=RuntimeError("can't start new thread"))
    monkeypatch.setattr(threading.Thread, "start", refuse)
    writer.put((gate,), message("a"))
    assert gate.texts == ["a"]


def test_a_thread_that_is_gone_is_replaced_by_the_caller(gate: Gate, writer: TextWriter) -> None:
    """Daemon threads end before the interpreter does."""
    gone: list[threading.Thread] = []
    writer.put((gate,), message("a"))
    writer.end()
    in_threads(lambda _: gone.append(threading.current_thread()))
    writer._thread = gone[0]
    writer._ended = False
    writer.put((gate,), message("b"))
    assert writer.flush()
    assert gate.texts == ["a", "b"]


def test_two_threads_start_one_writer(gate: Gate, writer: TextWriter) -> None:
    """The first messages may come at the same time: who comes second does not wait."""
    with writer._starting:
        writer.put((gate,), message("a"))
    assert gate.texts == []
    writer.put((gate,), message("b"))
    writer._start()
    assert writer.flush()
    assert gate.texts == ["a", "b"]
    assert len(gate.threads) == 1


def test_a_signal_handler_may_log_while_the_first_message_starts_the_thread() -> None:
    """Whenever the signal comes: nothing waits for ever, and every message is written once."""
    script = """
        import signal
        from foundry_fastlog.messages.text_writer import TextWriter, ToConsole

        class Out(list):
            __hash__ = object.__hash__
            def write(self, messages, texts):
                self += [message[3] for message in messages]

        def message(text):
            return (0.0, 40 if text == "signal" else 20, "x", text, {}, "")

        def log(*_):
            writer.put((out,), message("signal"))
            came.append(True)

        signal.signal(signal.SIGALRM, log)
        for us in range(40, 400):
            writer, out, came = TextWriter(), Out(), []
            signal.setitimer(signal.ITIMER_REAL, us / 1e6)
            for n in range(3):
                writer.put((out,), message(str(n)))
            while not came:
                pass
            writer.end()
            assert sorted(out) == ["0", "1", "2", "signal"], (us, out)
    """
    run_python(textwrap.dedent(script), timeout=60)


def test_an_output_that_logs_while_the_caller_writes(gate: Gate, writer: TextWriter) -> None:
    """Its message is the next one, and not written in the middle of another."""
    writer.end()
    gate.write = lambda messages, texts: (  # type: ignore[method-assign]
        gate.texts.append(f"begin {messages[0][3]}"),
        writer.put((gate,), message("inner")) if messages[0][3] == "outer" else None,
        gate.texts.append("end"),
    )
    writer.put((gate,), message("outer"))
    assert gate.texts == ["begin outer", "end", "begin inner", "end"]


def test_a_fork_waits_for_a_batch_but_not_forever(monkeypatch: Patch) -> None:
    """The lock is released only if it was taken."""
    monkeypatch.setattr(text_writer, "_WAIT_S", 0.01)
    writer = TextWriter()
    writer.before_fork()
    taken: list[bool] = []
    in_threads(lambda _: taken.append(writer._write_lock.acquire(timeout=0.01)))
    assert taken == [False]
    in_threads(lambda _: writer.before_fork())
    assert not writer._fork_waits
    writer.after_fork_in_parent()
    writer._write_lock.release()
    writer.after_fork_in_child()
    assert writer._write_lock.acquire(timeout=0)


class Raising(str):
    """A text whose methods raise what they are told."""

    __slots__ = ()
    error: type[BaseException] = ValueError

    def __str__(self) -> str:
        raise self.error

    def __format__(self, spec: str) -> str:
        raise self.error


class Exiting(Raising):
    __slots__ = ()
    error = SystemExit


class ExitingKey:
    def __str__(self) -> str:
        raise SystemExit


@pytest.mark.parametrize(
    ("odd", "shown"),
    [
        ((0.0, 20, "x", Raising("odd"), {}, ""), "x: odd"),
        ((0.0, 20, "x", "odd", {Exiting("key"): 1}, ""), "odd\n  key: 1"),
        ((0.0, 20, Exiting("x"), "odd", {}, 5), "x: odd\n  5"),
        *(((time, 20, "x", "odd", {}, ""), "x: odd") for time in (math.nan, 1e20, None)),
        ((0.0, 20, "x", "odd", {ExitingKey(): 1}, ""), "1 messages were dropped"),
    ],
)
def test_a_message_that_cannot_be_rendered_costs_no_other(
    writer: TextWriter, odd: Any, shown: str
) -> None:
    """It is written as well as it can be, and the thread lives on."""
    texts: list[str] = []
    output = Mock(write=lambda _, given: texts.extend(given))
    for one in (message("before"), odd, message("after")):
        writer.put((output,), one)
    thread = writer._thread
    assert writer.flush(60)
    writer.put((output,), message("later"))
    assert writer.flush(60)
    assert writer._thread is thread
    whole = "".join(texts)
    assert [text in whole for text in ("before", shown, "after", "later")] == [True] * 4


def test_an_output_that_raises_costs_no_other(gate: Gate, writer: TextWriter) -> None:
    """Also what is no Exception; in the main thread that may be a Ctrl-C, and goes on."""
    broken = Mock(write=Mock(side_effect=KeyboardInterrupt))
    for n in range(3):
        writer.put((broken, gate), message(str(n)))
        assert writer.flush(60)
    assert gate.texts == ["0", "1", "2"]
    writer.end()
    with pytest.raises(KeyboardInterrupt):
        writer.put((broken,), message("main"))


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_thread_that_ended_is_started_again(
    gate: Gate, writer: TextWriter, monkeypatch: Patch
) -> None:
    """Without memory, say: what it had in hand is counted, and the next message finds another."""
    ended: list[threading.Thread] = []

    def fail(_: object) -> None:
        ended.append(threading.current_thread())
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr(writer, "_write_messages", fail)
        writer.put((gate,), message("lost"))
        assert writer.flush(60)
        assert eventually(lambda: ended and not any(thread.is_alive() for thread in ended))
    assert writer.dropped == 1
    writer.put((gate,), message("found"))
    assert writer.flush(60)
    assert writer._thread not in (None, *ended)
    assert gate.texts[0] == "found"
    assert "1 messages were dropped" in gate.texts[1]


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
    run_python(textwrap.dedent(CHILD_SCRIPT), path, options=["-W", "ignore"])
    rows = [row.split("forked: ")[1] for row in path.read_text().splitlines()]
    wanted = [f"parent {i}" for i in range(300)] + ["last"]
    wanted += [f"child {n} {i}" for n in range(3) for i in range(50)]
    assert sorted(rows) == sorted(wanted)
    for n in range(3):
        own = [row for row in rows if row.startswith(f"child {n} ")]
        assert own == [f"child {n} {i}" for i in range(50)]


def test_a_worker_flushes_at_its_exit(writer: TextWriter, monkeypatch: Patch) -> None:
    """It leaves without atexit, so the writer asks multiprocessing to be called."""
    finalize = Mock()
    monkeypatch.setattr("multiprocessing.util.Finalize", finalize)
    writer.put((Gate(),), message("a"))
    writer.end()
    assert finalize.call_args.args[1] == writer.flush
    monkeypatch.delitem(sys.modules, "multiprocessing.util")
    text_writer._flush_at_worker_exit(writer)
    finalize.assert_called_once()


@pytest.fixture
def console(monkeypatch: Patch) -> Iterator[TextWriter]:
    """Give the console's writer, ended after its gate has been opened."""
    console = TextWriter("console", gather_s=0.0)
    monkeypatch.setattr(text_writer, "_console_writer", console)
    yield console
    console.end()


def test_a_console_that_hangs_holds_up_no_file(
    gate: Gate, console: TextWriter, monkeypatch: Patch
) -> None:
    """Its messages wait, then are dropped and counted; an error waits for it once, and briefly."""
    writer, screen = TextWriter(then=console), Gate()
    monkeypatch.setattr(text_writer, "_ERROR_S", 0.01)
    outputs = (gate, ToConsole(screen))
    writer.put(outputs, message("first", logging.ERROR))
    screen.open.clear()
    for n in range(6):
        writer.put(outputs, message(str(n), logging.ERROR if n == 3 else logging.INFO))
    assert writer._flush(60)
    assert gate.texts == ["first", *map(str, range(6))]
    monkeypatch.setattr(text_writer, "MAX_QUEUED", 4)
    monkeypatch.setattr(text_writer, "_WAIT_S", 0.01)
    for n in range(6, 12):
        writer.put((ToConsole(screen),), message(str(n)))
        assert writer._flush(60)
    monkeypatch.setattr(text_writer, "_FLUSH_S", 0.01)
    assert not writer.flush()
    assert console.dropped > 0
    screen.open.set()
    assert console.flush(60)
    assert "messages were dropped here" in screen.texts[-1]
    writer.put(outputs, message("last"))
    writer.end()
    assert (gate.texts[-1], screen.texts[-1]) == ("last", "last")


def test_a_file_that_hangs_is_not_waited_for_twice(
    gate: Gate, console: TextWriter, monkeypatch: Patch
) -> None:
    """Its messages for the console cannot have come there."""
    writer = TextWriter(then=console)
    monkeypatch.setattr(text_writer, "_FLUSH_S", 0.01)
    gate.open.clear()
    waits: list[float | None] = []
    monkeypatch.setattr(console, "flush", lambda timeout=None: waits.append(timeout) or True)
    writer.put((gate,), message("a"))
    assert not writer.flush()
    gate.open.set()
    assert writer.flush(60)
    assert writer.flush()
    assert waits == [0, None]
    monkeypatch.undo()
    writer.end()


def test_ctrl_c_in_a_console_ends_what_is_an_echo(monkeypatch: Patch) -> None:
    """What this thread logs afterwards goes to the console again."""
    console = TextWriter()
    console.end()
    monkeypatch.setattr(text_writer, "_console_writer", console)
    echoes: list[bool] = []

    def write(*_: object) -> None:
        echoes.append(text_writer.is_echo())
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ToConsole(Mock(write=write)).write([message("a")], [""])
    assert (echoes, text_writer.is_echo()) == ([True], False)


def test_a_fork_with_a_console(console: TextWriter) -> None:
    """Both are held, and both start over in the child."""
    writer = TextWriter(then=console)
    writer.before_fork()
    held: list[bool] = []
    in_threads(lambda _: held.append(console._write_lock.acquire(timeout=0.01)))
    writer.after_fork_in_parent()
    in_threads(lambda _: held.append(console._write_lock.acquire(timeout=60)))
    assert held == [False, True]
    console.dropped = 3
    writer.after_fork_in_child()
    assert console.dropped == 0
    assert console._write_lock.acquire(timeout=0)
