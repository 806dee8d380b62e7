"""The thread that writes text logs and the console, so that neither ever holds up training.

One per process. A logging call puts a message into a queue; the thread renders it and hands whole
batches of lines to the outputs. The text logs are a convenience copy: the crash-safe record of a
run is its log stream.

Ownership: the queue is shared. `_thread`, `_stuck` and `dropped` are written by callers under no
lock (each write stands for itself); `_taken` is written by the thread only. A forked child replaces
the whole state: what is queued is the parent's to write.
"""

from __future__ import annotations

import atexit
import logging
import os
import sys
import threading
import time
from collections.abc import Sequence
from queue import Empty, SimpleQueue
from typing import Protocol

from foundry_fastlog.text_lines import Message, text_of

__all__ = ["MAX_QUEUED", "Output", "TextWriter", "writer"]

MAX_QUEUED = 20_000
"""Messages in the queue before callers wait for the thread."""

_BATCH = 1000
_GATHER_S = 0.05
_WAIT_S = 1.0
_FLUSH_S = 5.0


class Output(Protocol):
    """Where lines go: a file, the console."""

    def write(self, messages: Sequence[Message], texts: Sequence[str]) -> None:
        """Write messages, given as parts and as text; faults are its own to report. No raising."""


# A message with its outputs, a request to flush, or None: the end of the thread.
_Item = tuple[tuple[Output, ...], Message] | threading.Event | None


class TextWriter:
    """The queue and its thread, which starts with the first message."""

    def __init__(self) -> None:
        """Make an empty queue; the thread comes with the first message."""
        self.dropped = 0
        self._begin()

    def _begin(self) -> None:
        self._queue: SimpleQueue[_Item] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._start_lock = threading.Lock()
        self._write_lock = threading.RLock()
        self._hurry = threading.Event()
        self._taken = 0
        self._stuck_at = -1
        self._ended = False
        self._fork_waits = False

    def put(self, outputs: tuple[Output, ...], message: Message) -> None:
        """Have a message written.

        With `MAX_QUEUED` messages waiting, it first waits up to a second for room, then drops the
        message; a thread that a disk holds up is waited for only once until it moves again.

        Args:
            outputs: Where to.
            message: What.
        """
        queue = self._queue
        if queue.qsize() >= MAX_QUEUED and not self._room():
            self.dropped += 1
            return
        queue.put((outputs, message))
        if self._thread is None:
            self._start()

    def _room(self) -> bool:
        """Wait for the thread to catch up, which it does unless an output hangs."""
        if self._stuck_at == self._taken:
            return False
        deadline = time.monotonic() + _WAIT_S
        while self._queue.qsize() >= MAX_QUEUED:
            if time.monotonic() > deadline:
                self._stuck_at = self._taken
                return False
            time.sleep(0.001)
        return True

    def flush(self, timeout: float | None = None) -> bool:
        """Wait until all messages put so far have been handed to their outputs.

        Args:
            timeout: Seconds to wait at most, five by default.

        Returns:
            True when they have been.
        """
        thread = self._thread
        if thread is None or thread is threading.current_thread():
            return thread is None
        if not thread.is_alive():  # the interpreter is going down
            return self._drain()
        done = threading.Event()
        self._queue.put(done)
        self._hurry.set()
        return done.wait(_FLUSH_S if timeout is None else timeout)

    def end(self) -> None:
        """Write what is queued; from now on messages are written by the thread that logs them."""
        self.flush()
        self._ended = True
        thread = self._thread
        if thread is not None:
            self._queue.put(None)
            self._hurry.set()
            thread.join(_WAIT_S)
            if not thread.is_alive():
                self._thread = None
                self._drain()

    def _start(self) -> None:
        if self._ended:
            self._drain()
            return
        with self._start_lock:
            if self._thread is None:
                thread = threading.Thread(
                    target=self._run, args=(self._queue,), name="fastlog-text", daemon=True
                )
                try:
                    thread.start()
                except RuntimeError:  # too late for threads, or no more of them
                    self._drain()
                    return
                self._thread = thread
        _flush_at_worker_exit(self)

    def _run(self, queue: SimpleQueue[_Item]) -> None:
        batch: list[_Item] = [threading.Event()]
        while batch[-1] is not None:
            first = queue.get()
            if isinstance(first, tuple) and queue.qsize() < _BATCH:
                # A burst is gathered while nobody is disturbed: each message that woke this thread
                # would make the caller wait for the interpreter.
                self._hurry.wait(_GATHER_S)
            batch = self._take(queue, first)
            self._write(batch)

    def _drain(self) -> bool:
        """Write from the calling thread what is queued."""
        with self._write_lock:
            while True:
                try:
                    first = self._queue.get_nowait()
                except Empty:
                    return True
                self._write(self._take(self._queue, first))

    def _take(self, queue: SimpleQueue[_Item], first: _Item) -> list[_Item]:
        """Return what is queued, up to a batch; ends with a request to flush."""
        batch = [first]
        try:
            while isinstance(batch[-1], tuple) and len(batch) < _BATCH:
                batch.append(queue.get_nowait())
        except Empty:
            pass
        return batch

    def _write(self, batch: list[_Item]) -> None:
        by_output: dict[Output, tuple[list[Message], list[str]]] = {}
        done: threading.Event | None = None
        outputs: tuple[Output, ...] = ()
        lists: list[tuple[list[Message], list[str]]] = []
        for item in batch:
            if not isinstance(item, tuple):
                done = item
                continue
            if item[0] is not outputs:
                outputs = item[0]
                lists = [by_output.setdefault(output, ([], [])) for output in outputs]
            message = item[1]
            text = text_of(message)  # once, for all outputs
            for messages, texts in lists:
                messages.append(message)
                texts.append(text)
        if self.dropped and outputs:
            lost, self.dropped = self.dropped, 0
            notice = (
                f"{lost} messages were left out here: the text log could not be written in time"
            )
            warning: Message = (time.time(), logging.WARNING, "foundry_fastlog", notice, {}, "")
            for messages, texts in lists:
                messages.append(warning)
                texts.append(text_of(warning))
        with self._write_lock:
            for output, (messages, texts) in by_output.items():
                output.write(messages, texts)
        self._taken += len(batch)
        if done is not None:
            self._hurry.clear()
            done.set()

    def before_fork(self) -> None:
        """Wait until no batch is half written: a child would inherit the other half, or a lock."""
        self._fork_waits = self._write_lock.acquire(timeout=_WAIT_S)

    def after_fork_in_parent(self) -> None:
        """Go on."""
        if self._fork_waits:
            self._write_lock.release()

    def after_fork_in_child(self) -> None:
        """Begin anew: thread and queue are the parent's."""
        self.dropped = 0
        self._begin()


def _flush_at_worker_exit(text_writer: TextWriter) -> None:
    """Flush when a multiprocessing child ends: it leaves by os._exit(), without atexit."""
    util = sys.modules.get("multiprocessing.util")
    if util is not None:
        util.Finalize(None, text_writer.flush, exitpriority=50)


writer = TextWriter()
"""This process's writer."""

atexit.register(writer.end)
os.register_at_fork(
    before=writer.before_fork,
    after_in_parent=writer.after_fork_in_parent,
    after_in_child=writer.after_fork_in_child,
)
