"""Recorders that components share: opened once, closed by the last, safe across forks."""

from __future__ import annotations

import gc
import logging
import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from recorded import in_threads

from foundry_fastlog import (
    ErrorTracker,
    LoggingConfig,
    MetricsLogger,
    Recorder,
    RecorderConfig,
    read_run,
)
from foundry_fastlog.base import fork_lock
from foundry_fastlog.base.fork_lock import ForkLock
from foundry_fastlog.recording.sharing import acquire, release


def test_the_last_release_closes(tmp_path: Path) -> None:
    """Two users have one recorder; a third acquire after the close opens another."""
    first, second = acquire(tmp_path), acquire(str(tmp_path), ring_bytes=1 << 20)
    assert first is second
    assert release(first)
    assert not first.closed
    assert release(first)
    assert first.closed
    assert release(first)  # once more does nothing
    third = acquire(tmp_path)
    assert third is not first
    assert third.attempt == 1
    assert release(third)


def test_a_recorder_that_was_open_stays_open_and_a_closed_one_is_not_shared(tmp_path: Path) -> None:
    """Whoever opened it closes it, be it behind the others' back: the next one gets a new one."""
    with Recorder(tmp_path) as mine:
        assert acquire(tmp_path) is mine
        assert release(mine)
        assert not mine.closed
    first = acquire(tmp_path)
    first.close()
    second = acquire(tmp_path)
    assert second is not first
    assert release(second)
    assert second.closed


def test_components_of_one_directory_share(tmp_path: Path) -> None:
    metrics = MetricsLogger("exp", tmp_path)
    tracker = ErrorTracker(logging.getLogger("test"), tmp_path)
    assert metrics.recorder is tracker.recorder
    metrics.log_step(1, 0, {"loss": 1.0})
    assert metrics.close()
    assert not tracker.recorder.closed
    assert metrics.close()  # twice releases once
    assert not tracker.recorder.closed
    tracker.log_error(ValueError("v"))
    assert tracker.close()
    assert tracker.recorder.closed
    run = read_run(tmp_path, strict=True)
    assert [writer.label for writer in run.writers] == [""]
    assert run.info["name"] == "exp"


def test_a_component_that_is_forgotten_gives_its_share_back(tmp_path: Path) -> None:
    """As the plan's own classes, which had nothing to close."""
    metrics = MetricsLogger("exp", tmp_path)
    metrics.log_step(1, 0, {"loss": 1.0})
    recorder = metrics.recorder
    del metrics
    gc.collect()
    assert recorder.closed
    assert [line["step"] for line in read_run(tmp_path).lines("metrics")] == [1]


def test_many_threads_that_ask_at_once_get_one(tmp_path: Path) -> None:
    """And the last of their releases closes it."""
    barrier = threading.Barrier(8)
    found = []

    def ask(_: int) -> None:
        barrier.wait()
        found.append(acquire(tmp_path))

    in_threads(ask, 8)
    assert (len(found), len(set(found))) == (8, 1)
    for left in range(7, -1, -1):
        release(found[0])
        assert found[0].closed is (left == 0)


def test_an_unwritable_place(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Training goes on; the file's name is where it would be."""
    place = tmp_path / "no"
    place.mkdir()
    place.chmod(0o500)
    if os.access(place, os.W_OK):  # root may write anywhere but here
        place = Path("/proc/no")
    config = LoggingConfig(recorder=RecorderConfig(close_timeout_s=0.1))
    with MetricsLogger("exp", place / "run", config=config) as metrics:
        assert metrics.log_step(1, 0, {"loss": 1.0})
        assert metrics.metrics_file == place / "run" / "metrics.jsonl"
        assert metrics.get_metrics_history() == []
    assert "could not create" in caplog.text


def child_takes(lock: ForkLock, leave: Callable[[], object] = lambda: None) -> None:
    """Fork; the child can take the lock, and the parent's own block is left before it is known."""
    child = os.fork()
    if child == 0:  # pragma: no cover - in the child, which leaves without a report
        leave()
        with lock:
            os._exit(7)
    leave()
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 7


def test_a_lock_is_free_in_a_forked_child_whoever_holds_it() -> None:
    """Another thread, or the one that forks: else the child would wait for ever."""
    lock = ForkLock()
    held, leave = threading.Event(), threading.Event()

    def hold() -> None:
        with lock:
            held.set()
            leave.wait(60)

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait(60)
    child_takes(lock)
    leave.set()
    thread.join()
    with lock, lock:  # reentrant, and free again
        pass
    lock.__enter__()
    child_takes(lock, lambda: lock.__exit__(None, None, None))


def test_what_a_fork_does_to_locks() -> None:
    """In this process: a lock that nobody will give back is free afterwards, its holder's too."""
    lock = ForkLock()
    in_threads(lambda _: lock.__enter__(), 1)
    fork_lock._renew_all()
    with lock:
        pass
    lock._pid = 0  # as if this process were the child of its holder
    with lock:
        fork_lock._renew_all()
    with lock:
        pass


def test_a_lock_that_is_given_back_twice_is_a_mistake() -> None:
    """Only a fork excuses it."""
    lock = ForkLock()
    with pytest.raises(RuntimeError, match="un-acquired"), lock:
        lock._lock.release()
