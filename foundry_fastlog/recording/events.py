"""Records that are built as whole JSON lines: events, messages and epoch summaries.

One that is too large for the ring is truncated or split into several lines.
"""

from __future__ import annotations

import math
import os
import re
from collections import deque
from collections.abc import Iterator, Mapping
from sys import modules
from threading import get_native_id
from typing import Any

import orjson

from foundry_fastlog.base import caller_time
from foundry_fastlog.base.arguments import (
    INT64_MIN,
    check_number,
    check_type,
    level_name,
    step_number,
)
from foundry_fastlog.base.error_facts import error_facts
from foundry_fastlog.base.json_text import (
    cut,
    let_interrupts_through,
    nonfinite_fields,
    plain_context,
    render_members,
    simpler,
    text_of_value,
)
from foundry_fastlog.base.telemetry import TRACE, with_span
from foundry_fastlog.recording.extension import RecorderClosedError, core
from foundry_fastlog.recording.shortening import HUGE, SHORT, has_long_text, shortened
from foundry_fastlog.recording.values import metric_value, name_of

__all__ = ["EventRecorder"]

_METRICS = 0  # stream numbers of csrc/core/record.hpp
_PERFORMANCE = 1
_ERRORS = 2
_LOG = 3
_SYSTEM = 4
# Numbers beyond 53 bits are rejected and take the slow path, which checks their size.
_SIMPLE = orjson.OPT_STRICT_INTEGER
_NULL = re.compile(rb"null").search  # twice as fast as `in`, which is slow for these letters
_MOST_EPOCHS = 4096
_MOST_NAME = 300  # characters of a name that is too large for the ring by itself


class EventRecorder(core.RecorderCore):
    """The part of `Recorder` that renders JSON before it reaches the ring."""

    # Process, last step and epoch of each summary: a child's are its own.
    _epochs: deque[tuple[int, int, float]] | None = None

    def event(
        self,
        message: str,
        *,
        level: str | int | None = None,
        logger: str | None = None,
        error: BaseException | None = None,
        step: int | None = None,
        context: Mapping[str, Any] | None = None,
    ) -> bool:
        """Record a message, or an exception with its traceback.

        Args:
            message: What happened.
            level: DEBUG, INFO, WARNING, ERROR or CRITICAL, or a `logging` number. Default: ERROR
                with ``error``, INFO without.
            logger: Name of the subsystem. Default: ``foundry_fastlog``.
            error: An exception. The line goes to the errors stream with its type, message and
                traceback (chained exceptions included), and a fingerprint shared by equal errors.
                Without it, the line goes to the log stream.
            step: The training step.
            context: Additional fields. Values that JSON cannot represent are written as their
                ``str()``.

        Returns:
            True when the line was accepted, False when it was dropped.

        Raises:
            TypeError: ``message`` or ``logger`` is not a str, ``error`` is not an exception,
                ``step`` is not an int, or ``context`` is not a mapping.
            ValueError: An unknown level.
            OverflowError: A step beyond 64 bits.
            RecorderClosedError: The recorder has been closed.
        """
        begin = caller_time.begin()
        try:
            check_type("message", message, str, "a str")
            if error is not None:
                check_type("error", error, BaseException, "an exception")
            if context is not None:
                check_type("context", context, Mapping, "a mapping")
            if logger is not None:
                check_type("logger", logger, str, "a str")
            fields: dict[str, Any] = {
                "level": level_name(level, "INFO" if error is None else "ERROR"),
                "logger": logger or "foundry_fastlog",
            }
            if step is not None:
                fields["step"] = step_number(step)
            fields["message"] = message
            if error is not None:
                facts = error_facts(error)
                fields["error_type"] = facts.kind
                fields["error_message"] = facts.text
                fields["traceback"] = facts.traceback
                fields["fingerprint"] = facts.fingerprint
            context = {} if context is None else context
            fields["context"] = with_span(context) if TRACE in modules else context
            return self._event(_LOG if error is None else _ERRORS, fields)
        finally:
            caller_time.end(begin)

    def message(self, level: str, logger: str, message: str, context: Mapping[str, Any]) -> bool:
        """Record a message: a faster event() for handlers and others that log many messages.

        Args:
            level: The level's name; any text.
            logger: Name of the subsystem.
            message: What happened.
            context: Fields. Values that JSON cannot represent are written as their ``str()``.

        Returns:
            True when the line was accepted, False when it was dropped or the recorder is closed.
        """
        begin = caller_time.begin()
        if TRACE in modules:
            context = with_span(context)
        fields = {"level": level, "logger": logger, "message": message, "context": context}
        try:
            if len(message) > SHORT or (type(context) is dict and has_long_text(context)):
                return self._event(_LOG, fields)
            try:
                rendered = orjson.dumps(fields, simpler, _SIMPLE)
            except (TypeError, RecursionError) as error:
                let_interrupts_through(error)
                return self._event(_LOG, fields)
            # A null may stand for a non-finite number; a long text may not fit into the ring.
            if len(rendered) > SHORT or _NULL(rendered) is not None:
                return self._event(_LOG, fields)
            return self._fragment(_LOG, rendered[1:-1])
        except RecorderClosedError:
            return False
        finally:
            caller_time.end(begin)

    def _event(self, stream: int, fields: dict[str, Any]) -> bool:
        fields["context"] = plain_context(fields["context"])
        limit = self._largest_fragment
        if any(has_long_text(part, HUGE) for part in (fields, fields["context"])):
            fields = shortened(fields, limit)
        members = render_members(fields)
        if b"null" in members and (nonfinite := nonfinite_fields(fields["context"])):
            fields["nonfinite"] = nonfinite
            members = render_members(fields)
        if len(members) > limit:
            members = render_members(shortened(fields, limit))
        return self._fragment(stream, members)

    def epoch_summary(self, epoch: float, summary: Mapping[str, Any]) -> bool:
        """Record values of a whole epoch, which do not belong to any step.

        Args:
            epoch: The epoch; may be a fraction.
            summary: Values by name, of the types that ``record()`` takes, including GPU values: the
                line is written once they arrive. A summary larger than the ring is split into
                several lines.

        Returns:
            True when the summary was accepted, False when all or part of it was dropped.

        Raises:
            TypeError: ``epoch`` is not a number, ``summary`` is not a mapping, or a name or value
                cannot be recorded.
            OverflowError: An int beyond 64 bits.
            RuntimeError: A GPU value was passed while a stream is being captured into a graph.
            RecorderClosedError: The recorder has been closed.
        """
        return self._summary(epoch, summary)

    def _summary(self, epoch: float, summary: Mapping[Any, Any], *, tolerant: bool = False) -> bool:
        """Record a summary, as record() or, if `tolerant`, as log() does."""
        number = metric_value("epoch", epoch)
        if isinstance(number, (bool, str)) or number is None:
            raise TypeError(f"epoch must be an int or a float, got {type(epoch).__name__}")
        check_type("summary", summary, Mapping, "a mapping")
        if not tolerant:
            for name in summary:
                if not isinstance(name, str):
                    raise TypeError(f"names in a summary must be str, got {text_of_value(name)}")
        if math.isfinite(number):
            if self._epochs is None:
                self._epochs = deque(maxlen=_MOST_EPOCHS)
            self._epochs.append((os.getpid(), self._last_step(), number))
        return self._summary_in_parts(number, dict(summary), tolerant=tolerant)

    def _summary_in_parts(self, epoch: float, values: dict[Any, Any], *, tolerant: bool) -> bool:
        try:
            return self._summary_fitting(epoch, values, tolerant)
        except ValueError:  # too large for the ring: split in half
            if not values:
                raise
        items = list(values.items())
        if len(items) > 1:
            parts = [dict(items[: len(items) // 2]), dict(items[len(items) // 2 :])]
        else:
            ((key, value),) = items
            name = name_of(key)
            if not (type(value) is dict and len(name) < _MOST_NAME):
                value = cut(value, self._largest_fragment // 16) if type(value) is str else value
                return self._summary_fitting(epoch, {cut(name, _MOST_NAME): value}, tolerant)
            parts = [{f"{name}.{name_of(inner)}": v for inner, v in value.items()}]
        accepted = True
        for part in parts:
            accepted = self._summary_in_parts(epoch, part, tolerant=tolerant) and accepted
        return accepted

    def system(self, figures: Mapping[str, float], *, step: int | None = None) -> bool:
        """Record figures of the machine, such as its memory in use: a line of the system stream.

        They belong to a moment, not to a step; readers order them by time and never leave one out.

        Args:
            figures: Values by name, of the types that ``record()`` takes on the CPU.
            step: The training step at that moment, if one is going on.

        Returns:
            True when they were accepted, False when they, or a part of them, were dropped.

        Raises:
            TypeError: ``figures`` is no mapping, ``step`` no int, or a name or value cannot be
                recorded.
            OverflowError: An int beyond 64 bits.
            RecorderClosedError: The recorder has been closed.
        """
        check_type("figures", figures, Mapping, "a mapping")
        for name in figures:
            if not isinstance(name, str):
                raise TypeError(f"names of figures must be str, got {text_of_value(name)}")
        head = {} if step is None else {"step": step_number(step)}
        values = {name: metric_value(name, value) for name, value in figures.items()}
        accepted = True
        for members in _members(head, "system", values, self._largest_fragment):
            accepted = self._fragment(_SYSTEM, members) and accepted
        return accepted

    def timing(
        self, name: str, duration_s: float, step: int | None = None, parent: str | None = None
    ) -> bool:
        """Record a block that a trainer has timed and that ends now; `timer()` times one itself.

        Args:
            name: The block's name.
            duration_s: How long it took, in seconds.
            step: The training step.
            parent: Name of the outermost block around it, which is recorded after it.

        Returns:
            True when it was accepted, False when it was dropped.

        Raises:
            TypeError, ValueError, OverflowError: A duration or step that is none.
            RecorderClosedError: The recorder has been closed.
        """
        check_number("duration_s", duration_s, 0, 1e9)
        line: dict[str, Any] = {"name": name, "duration_s": float(duration_s)}
        line |= {} if step is None else {"step": step_number(step)}
        line |= {"depth": 0} if parent is None else {"depth": 1, "parent": parent}
        return self._fragment(_PERFORMANCE, render_members({**line, "thread": get_native_id()}))

    def rewind(self, step: int) -> bool:
        """Say that this process went back to a step: a checkpoint was restored within the program.

        What it recorded before for this step and later ones counts no longer: readers leave out
        those metrics and timings, as they do for a start that resumed there, and summaries of the
        epochs that it had finished since. ``log()`` goes on with this step.

        Args:
            step: The step that comes next.

        Returns:
            True when it was accepted, False when it was dropped.

        Raises:
            TypeError: ``step`` is no int.
            OverflowError: A step beyond 64 bits.
            RecorderClosedError: The recorder has been closed.
        """
        members = b'"rewind":%d' % step_number(step)
        ended = (self._epochs or deque()).copy()
        undone = [epoch for pid, at, epoch in ended if at >= step and pid == os.getpid()]
        self._epochs = deque((one for one in ended if one[1] < step), maxlen=_MOST_EPOCHS)
        # The first epoch whose summary counts no longer: summaries have no step.
        epoch = b',"epoch":' + orjson.dumps(min(undone)) if undone else b""
        accepted = [
            self._fragment(_METRICS, members + epoch),
            self._fragment(_PERFORMANCE, members),
        ]
        self._continue_from(max(step - 1, INT64_MIN))
        return all(accepted)


def _members(
    head: Mapping[str, Any], part: str, values: Mapping[str, Any], limit: int
) -> Iterator[bytes]:
    """Render values as the members of one line, or of several.

    Args:
        head: What each line begins with.
        part: The member that has the values.
        values: Values by name, as metric_value() returns them.
        limit: The largest size of one line's members in bytes.

    Yields:
        Members of at most that size, split in half until they fit.
    """
    fields: dict[str, Any] = {**head, part: values}
    if nonfinite := _nonfinite_values(head) | _nonfinite_values(values):
        fields["nonfinite"] = nonfinite
    members = render_members(fields)
    if len(members) <= limit:
        yield members
        return
    if len(values) > 1:
        items, half = list(values.items()), len(values) // 2
        yield from _members(head, part, dict(items[:half]), limit)
        yield from _members(head, part, dict(items[half:]), limit)
        return
    ((name, value),) = values.items()  # a single text or name that is larger than the limit
    room = limit // 16
    name = name if len(name) <= room else f"{name[:room]}... ({len(name)} characters)"
    if isinstance(value, str) and len(value) > room:
        value = f"{value[:room]}... ({len(value)} characters)"
    yield from _members(head, part, {name: value}, limit)


def _nonfinite_values(values: Mapping[str, Any]) -> dict[str, str]:
    """Return the non-finite values by key, as text. The values are not nested."""
    odd = {
        name: value
        for name, value in values.items()
        if isinstance(value, float) and not math.isfinite(value)
    }
    return nonfinite_fields(odd)
