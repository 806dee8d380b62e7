"""Lines between the progress bars of tqdm and rich."""

from __future__ import annotations

import io
import logging
import os
import pty
import re
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator

import pytest
from recorded import in_threads

from foundry_fastlog import ConsoleHandler
from foundry_fastlog.messages.progress_bars import bars_aside
from foundry_fastlog.messages.text_console import ConsoleOutput

tqdm = pytest.importorskip("tqdm")
from tqdm.contrib.logging import logging_redirect_tqdm  # noqa: E402  # needs tqdm
from tqdm.std import TqdmDefaultWriteLock  # noqa: E402  # likewise

Patch = pytest.MonkeyPatch
MESSAGE = (0.0, logging.WARNING, "x", "hello", {"loss": 2.34567}, "")


class Screen(io.StringIO):
    """A terminal that shows what a carriage return leaves of its lines."""

    use: Callable[[], None]

    def isatty(self) -> bool:
        return True

    def rows(self) -> list[str]:
        """Return the rows without colours: of each, what was written last in each column."""
        rows = []
        for row in re.sub(r"\x1b\[[?\d;]*[a-zA-Z]", "", self.getvalue()).split("\n"):
            shown: list[str] = []
            for part in row.split("\r"):
                shown[: len(part)] = part
            rows.append("".join(shown).rstrip())
        return rows


@pytest.fixture
def screen(monkeypatch: Patch) -> Iterator[Screen]:
    screen = Screen()
    screen.use = lambda: monkeypatch.setattr(
        sys, "stderr", screen
    )  # pytest sets its own until then
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    yield screen
    for bar in list(tqdm.tqdm._instances):
        bar.close()


def test_a_line_does_not_stick_to_a_bar(screen: Screen) -> None:
    """Bars are cleared, and drawn again below; each line is whole, also with several threads."""
    screen.use()
    bars = [tqdm.tqdm(total=50, file=screen, ncols=60, position=n, mininterval=0) for n in range(2)]
    output = ConsoleOutput()

    def work(n: int) -> None:
        for _ in range(25):
            if n < 2:
                bars[n].update()
            else:
                output.write([MESSAGE], [""])

    in_threads(work, 3)
    said = [row for row in screen.rows() if "hello" in row]
    assert len(said) == 25
    assert all(re.fullmatch(r"\S{8} \[WARNING\] x: hello  loss=2.346", row) for row in said)
    assert "it/s" in screen.rows()[-2]


def test_a_lock_is_waited_for_briefly(screen: Screen) -> None:
    """A thread that holds it may itself wait for the line."""
    screen.use()
    bar = tqdm.tqdm(total=2, file=screen, ncols=60)
    bar.set_lock(lock := threading.RLock())
    try:
        with lock:
            in_threads(lambda _: ConsoleOutput().write([MESSAGE], [""]))
        assert "x: hello" in screen.getvalue()
        assert lock.acquire(timeout=0)
        lock.release()
    finally:
        bar.set_lock(TqdmDefaultWriteLock())


def test_a_bar_that_fails_and_streams_of_all_kinds(screen: Screen, monkeypatch: Patch) -> None:
    """The line is written in any case."""
    screen.use()

    def fails(**_: object) -> None:
        raise RuntimeError

    bar = tqdm.tqdm(total=2, file=screen, ncols=60)
    monkeypatch.setattr(tqdm.tqdm, "external_write_mode", fails)
    ConsoleOutput().write([MESSAGE], [""])
    assert "x: hello" in screen.getvalue()
    bar.close()


def test_a_terminal_that_accepts_nothing_leaves_the_lock_alone(screen: Screen) -> None:
    """Training needs it to go on."""
    screen.use()
    bar = tqdm.tqdm(total=2, file=screen, ncols=60)
    bar.set_lock(lock := threading.RLock())
    held: list[bool] = []
    master, slave = pty.openpty()
    try:
        with open(slave, "w") as terminal, bars_aside(terminal):  # noqa: PTH123 - a descriptor
            in_threads(lambda _: held.append(not lock.acquire(timeout=0) or bool(lock.release())))
            assert held == [True]
            os.set_blocking(slave, False)
            with pytest.raises(BlockingIOError):
                deque(iter(lambda: os.write(slave, b"x" * 1000), 0))
            with bars_aside(terminal):
                assert "hello" not in screen.getvalue()
    finally:
        os.close(master)
        bar.set_lock(TqdmDefaultWriteLock())


def test_redirected_logging_of_tqdm(screen: Screen) -> None:
    """It takes the console's place, once, and writes as the console does."""
    screen.use()
    logger = logging.Logger("redirected")  # noqa: LOG001 - this test's alone
    logger.addHandler(handler := ConsoleHandler())
    with logging_redirect_tqdm(loggers=[logger]):
        logger.warning("hello", extra={"loss": 2.34567})
    assert logger.handlers == [handler]
    (row,) = (row for row in screen.rows() if "hello" in row)
    assert re.fullmatch(r"\S{8} \[WARNING\] redirected: hello  loss=2.346", row)


def test_a_bar_of_rich(screen: Screen) -> None:
    """It puts itself in the stream's place, which is looked up at each write."""
    screen.use()
    console = pytest.importorskip("rich.console")
    progress = pytest.importorskip("rich.progress")
    shown = console.Console(file=screen, force_terminal=True, width=100)
    with progress.Progress(console=shown) as bars:
        bars.add_task("train", total=2)
        assert sys.stderr is not screen
        ConsoleOutput().write([MESSAGE], [""])
    rows = [row for row in screen.rows() if "hello" in row]
    assert len(rows) == 1
    assert re.match(r"\S{8} \[WARNING\] x: hello  loss=2.346", rows[0])
