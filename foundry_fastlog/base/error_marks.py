"""Remember which exceptions a recorder has recorded, on the exceptions themselves.

An exception is often seen more than once on its way up: logged, caught by a block, by a hook.
"""

from __future__ import annotations

import weakref

from foundry_fastlog.base.fingerprint import member

__all__ = ["is_recorded", "mark_recorded"]

_MARK = "_foundry_fastlog_recorded"
# Plain objects stand for the recorders: an exception may be pickled, a recorder lives no longer for
# it, and in another process nothing is recorded yet.
_tokens: weakref.WeakKeyDictionary[object, object] = weakref.WeakKeyDictionary()


def mark_recorded(error: BaseException, recorder: object) -> None:
    """Mark an exception, whatever its class does when it is changed."""
    attributes = member(error, "__dict__")
    token = _tokens.setdefault(recorder, object())
    attributes[_MARK] = (*attributes.get(_MARK, ()), token)


def is_recorded(error: BaseException, recorder: object) -> bool:
    """Whether an exception was marked for a recorder."""
    marks = member(error, "__dict__").get(_MARK)
    return marks is not None and _tokens.get(recorder) in marks
