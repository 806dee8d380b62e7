"""The threads that write text logs and the console, so that they never block training.

There is one of each per process. A logging call puts a message into the first one's queue; this
thread renders it and passes whole batches of lines to the outputs. The console has a thread of its
own, to which the first one passes its messages: a terminal that hangs holds up no file. The text
logs are a convenience copy: the crash-safe record of a run is its log stream.

Ownership: the queues are shared. `_thread`, `_stuck_at`, `_timed_out_at`, `_hung_at` and `dropped`
are written by callers without a lock (each write is independent); `_moves` and `_busy` by whichever
thread writes. A forked child replaces the whole state: queued messages are the parent's to write.

A message that cannot be rendered is written as well as it can be, and an output that raises costs
its own batch: no other message, and never the thread. If that ends all the same, the next message
starts another one.

Signal handlers, `__del__` and garbage-collector callbacks may also log, in any thread between any
two statements, so no caller waits for a lock that its own thread may already hold.
"""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
import sys
import threading
import time
from collections.abc import Sequence
from queue import Empty, SimpleQueue

from foundry_fastlog.messages.text_lines import Message, Output, sound, text_of

__all__ = ["MAX_QUEUED", "TextWriter", "ToConsole", "in_console_thread", "is_echo", "writer"]

MAX_QUEUED = 20_000
"""Queued messages at which callers start to wait for the thread."""

_BATCH = 1000
_GATHER_S = 0.002
_ERROR_S = 0.05
_WAIT_S = 1.0
_FLUSH_S = 5.0

_log = logging.getLogger("foundry_fastlog")


# A message with its outputs, a flush request, or None to end the thread.
_Item = tuple[tuple[Output, ...], Message] | threading.Event | None


class TextWriter:
    """The queue and its thread, which starts with the first message."""

    def __init__(
        self,
        name: str = "fastlog-text",
        gather_s: float = _GATHER_S,
        then: TextWriter | None = None,
    ) -> None:
        """Create an empty queue; the thread starts with the first message.

        Args:
            name: The thread's name.
            gather_s: How long to collect a burst before it is written, in seconds.
            then: The writer to which outputs pass messages on.
        """
        self.dropped = 0
        self._name = name
        self._gather_s = gather_s
        self._then = then
        self._begin()

    def _begin(self) -> None:
        self._queue: SimpleQueue[_Item] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._starting = threading.Lock()  # acquired only without blocking
        self._write_lock = threading.RLock()
        self._drainer = 0  # a thread that writes instead of the writer's thread
        self._hurry: SimpleQueue[None] = SimpleQueue()  # an Event's lock is not reentrant
        self._moves = 0  # batches that the outputs have accepted
        self._busy: Output | None = None
        self._stuck_at = -1
        self._timed_out_at = -1
        self._hung_at = -1
        self._ended = False
        self._fork_waits = False

    def put(self, outputs: tuple[Output, ...], message: Message) -> None:
        """Queue a message.

        If `MAX_QUEUED` messages are waiting, wait up to a second for room, then drop the message.
        While a disk blocks the thread, only one caller waits, until the thread makes progress. A
        message at ERROR or above is written on return, unless that takes more than 50 ms. What a
        console's own stream logs of what is written to it does not go to the console again.

        Args:
            outputs: Where to write it.
            message: The message.
        """
        if is_echo():
            outputs = tuple(one for one in outputs if not isinstance(one, ToConsole))
        queue = self._queue
        if queue.qsize() >= MAX_QUEUED and not self._room():
            self.dropped += 1
            return
        queue.put((outputs, message))
        if self._thread is None:
            self._start()
        if message[1] >= logging.ERROR:
            self._wait_briefly(_ERROR_S)

    def put_all(self, outputs: tuple[Output, ...], messages: Sequence[Message]) -> None:
        """Queue messages that have waited in a queue already; errors as in put()."""
        for message in messages:
            if self._queue.qsize() >= MAX_QUEUED and not self._room():
                self.dropped += 1
            else:
                self._queue.put((outputs, message))
        if self._thread is None:
            self._start()
        if any(message[1] >= logging.ERROR for message in messages):
            self._wait_briefly(_ERROR_S / 2)

    def _wait_briefly(self, timeout: float) -> None:
        if self._timed_out_at != self._moves:
            before = self._moves
            if not self.flush(timeout):
                self._timed_out_at = before  # until there is progress, nobody waits again

    def _room(self) -> bool:
        """Wait for the thread to catch up, which it does unless an output blocks."""
        if self._stuck_at == self._moves:
            return False
        deadline = time.monotonic() + _WAIT_S
        while self._queue.qsize() >= MAX_QUEUED:
            if time.monotonic() > deadline:
                self._stuck_at = self._moves
                return False
            time.sleep(0.001)
        return True

    def flush(self, timeout: float | None = None) -> bool:
        """Wait until all messages queued so far have been passed to their outputs.

        Args:
            timeout: The longest wait in seconds. Default: as long as the outputs make progress,
                plus five seconds without any. Until they make progress again, further calls do not
                wait.

        Returns:
            True when they have been.
        """
        done = self._flush(timeout)
        if self._then is None or timeout is not None:  # put_all() has waited for errors
            return done
        return self._then.flush(None if done else 0) and done

    def _flush(self, timeout: float | None) -> bool:
        thread = self._thread
        if thread is threading.current_thread():
            return False
        if thread is None or not thread.is_alive():  # not started, or the interpreter is exiting
            return self._drain()
        done = threading.Event()
        self._queue.put(done)
        self._hurry.put(None)
        if timeout is not None:
            return done.wait(timeout)
        moves = -1
        while moves != self._moves:
            moves = self._moves
            if done.wait(0 if moves == self._hung_at else _FLUSH_S):
                return True
        self._hung_at = moves
        return False

    def end(self) -> None:
        """Write what is queued; from now on the thread that logs a message writes it."""
        self.flush()
        self._end()
        if self._then is not None:
            self._then.end()

    def _end(self) -> None:
        self._ended = True
        thread = self._thread
        if thread is None:
            return
        left = self._queue.qsize()
        self._queue.put(None)
        self._hurry.put(None)
        thread.join(_WAIT_S)
        if not thread.is_alive():
            self._thread = None
            self._drain()
        elif (path := getattr(self._busy, "path", None)) is not None:
            # Says nothing about a console that hangs: the report could hang there, too.
            _log.warning(
                "the last messages (%d or more) are missing from %s and other text logs: writing "
                "there hangs. The run's own records are not affected.",
                left,
                path,
            )

    def _start(self) -> None:
        if self._ended:
            self._drain()
            return
        if not self._starting.acquire(blocking=False):
            return  # the holder handles this message, too; it may be this very thread
        try:
            if self._thread is None:
                self._start_thread()
        finally:
            self._starting.release()
        if self._thread is None:
            self._drain()

    def _start_thread(self) -> None:
        thread = threading.Thread(
            target=self._run, args=(self._queue, self._hurry), name=self._name, daemon=True
        )
        self._thread = thread  # set first: anything logged from here on waits in the queue
        try:
            thread.start()
        except RuntimeError:  # too late for threads, or no more of them
            self._thread = None
        else:
            _flush_at_worker_exit(self)

    def _run(self, queue: SimpleQueue[_Item], hurry: SimpleQueue[None]) -> None:
        batch: list[_Item] = []
        try:
            while not batch or batch[-1] is not None:
                batch = []
                first = queue.get()
                if isinstance(first, tuple) and queue.qsize() < _BATCH:
                    # Collect a burst before writing: waking this thread for each message would make
                    # the caller wait for the interpreter lock.
                    with contextlib.suppress(Empty):
                        hurry.get(timeout=self._gather_s)
                batch = self._take(queue, first)
                self._write(batch)
        except BaseException:  # out of memory, say: the next message starts another thread
            self.dropped += sum(isinstance(item, tuple) for item in batch)
            self._thread = None
            raise

    def _drain(self) -> bool:
        """Write what is queued, from the calling thread."""
        if self._drainer == threading.get_ident():
            return False  # logged by a signal handler or an output itself: it is written next
        while not self._queue.empty():
            with self._write_lock:
                self._drainer = threading.get_ident()
                try:
                    with contextlib.suppress(Empty):
                        self._write(self._take(self._queue, self._queue.get_nowait()))
                finally:
                    self._drainer = 0
        return True

    def _take(self, queue: SimpleQueue[_Item], first: _Item) -> list[_Item]:
        """Return queued items, up to a batch; stops at a flush request."""
        batch = [first]
        try:
            while isinstance(batch[-1], tuple) and len(batch) < _BATCH:
                batch.append(queue.get_nowait())
        except Empty:
            pass
        return batch

    def _write(self, batch: list[_Item]) -> None:
        """Write a batch's messages, then answer the flush request that may be its last item."""
        last = batch[-1]
        try:
            self._write_messages([item for item in batch if isinstance(item, tuple)])
        finally:
            if isinstance(last, threading.Event):
                with contextlib.suppress(Empty):  # taken in between
                    self._hurry.get_nowait()
                last.set()

    def _write_messages(self, batch: list[tuple[tuple[Output, ...], Message]]) -> None:
        by_output: dict[Output, tuple[list[Message], list[str]]] = {}
        outputs: tuple[Output, ...] = ()
        lists: list[tuple[list[Message], list[str]]] = []
        for targets, given in batch:
            if targets is not outputs:
                outputs = targets
                lists = [by_output.setdefault(output, ([], [])) for output in outputs]
            try:
                message, text = _rendered(given)  # once, for all outputs
            except BaseException as error:  # noqa: BLE001 - from a class of the program's
                _raise_signals(error)
                self.dropped += 1
                continue
            for messages, texts in lists:
                messages.append(message)
                texts.append(text)
        if self.dropped and outputs:
            lost, self.dropped = self.dropped, 0
            notice = f"{lost} messages were dropped here: they could not be written in time"
            warning: Message = (time.time(), logging.WARNING, "foundry_fastlog", notice, {}, "")
            for messages, texts in lists:
                messages.append(warning)
                texts.append(text_of(warning))
        with self._write_lock:
            for output, (messages, texts) in by_output.items():
                self._busy = output
                try:
                    output.write(messages, texts)
                except BaseException as error:  # noqa: BLE001 - such as a stream's SystemExit
                    _raise_signals(error)
                self._moves += 1
            self._busy = None

    def before_fork(self) -> None:
        """Wait until no batch is half written: a child would inherit its rest, or a held lock."""
        self._fork_waits = self._write_lock.acquire(timeout=_WAIT_S)
        if self._then is not None:
            self._then.before_fork()

    def after_fork_in_parent(self) -> None:
        """Go on."""
        if self._then is not None:
            self._then.after_fork_in_parent()
        if self._fork_waits:
            self._write_lock.release()

    def after_fork_in_child(self) -> None:
        """Start over: the thread and the queue are the parent's."""
        self.dropped = 0
        self._begin()
        if self._then is not None:
            self._then.after_fork_in_child()


def _rendered(message: Message) -> tuple[Message, str]:
    """Return a message and its text; of one that cannot be rendered, what can be."""
    try:
        return message, text_of(message)
    except BaseException as error:  # noqa: BLE001 - from a class of the program's
        _raise_signals(error)
    message = sound(message)
    return message, text_of(message)


def _raise_signals(error: BaseException) -> None:
    """Raise a Ctrl-C, which comes to the main thread alone."""
    if not isinstance(error, Exception) and threading.current_thread() is threading.main_thread():
        raise error


class ToConsole:
    """Passes messages on to the console's thread."""

    def __init__(self, output: Output) -> None:
        """Store where the lines go in the end."""
        self.output = output
        self._outputs = (output,)

    def write(self, messages: Sequence[Message], texts: Sequence[str]) -> None:  # noqa: ARG002 - as `Output`
        """Queue messages for the console's thread."""
        _console_writer.put_all(self._outputs, messages)


def in_console_thread() -> bool:
    """Return whether the caller is the console's own thread, which may wait as long as it takes."""
    return threading.current_thread() is _console_writer._thread  # noqa: SLF001 - of this module


def is_echo() -> bool:
    """Return whether what the caller logs comes from a console's stream that logs what it gets."""
    if _console_writer._busy is None:  # noqa: SLF001 - of this module, as below
        return False
    return in_console_thread() or _console_writer._drainer == threading.get_ident()  # noqa: SLF001


def _flush_at_worker_exit(text_writer: TextWriter) -> None:
    """Flush when a multiprocessing child ends: it exits with os._exit(), without atexit."""
    util = sys.modules.get("multiprocessing.util")
    if util is not None:
        util.Finalize(None, text_writer.flush, exitpriority=50)


_console_writer = TextWriter("fastlog-console", gather_s=0.0)

writer = TextWriter(then=_console_writer)
"""This process's writer."""

atexit.register(writer.end)
os.register_at_fork(
    before=writer.before_fork,
    after_in_parent=writer.after_fork_in_parent,
    after_in_child=writer.after_fork_in_child,
)
