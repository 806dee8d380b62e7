"""Fingerprints: equal for the same error elsewhere, different for another one."""

from __future__ import annotations

import string
from collections.abc import Callable
from unittest.mock import Mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from foundry_fastlog.base.fingerprint import fingerprint, normalised


def caught(make: Callable[[], object]) -> BaseException:
    """Run; return what it raised."""
    with pytest.raises(BaseException) as info:  # noqa: PT011 - any
        make()
    return info.value


def fail(text: str, kind: type[Exception] = ValueError) -> None:
    raise kind(text)


def fail_elsewhere(text: str) -> None:
    raise ValueError(text)


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        *(("step 17 of 1,000", "step <n> of <n>"), ("loss 1.5e-07, -2", "loss <n>, -<n>")),
        ("[Errno 2] No such file: '/data/a b.txt'", "[Errno <n>] No such file: '<path> b.txt'"),
        *((f"in {path}", "in <path>") for path in ("ckpt/5000.pt", r"C:\data\x.txt")),
        *(("object at 0x7f3a2c", "object at <hex>"), ("commit e7607e6d", "commit <hex>")),
        ("id 123e4567-e89b-12d3-a456-426614174000!", "id <uuid>!"),
        *((text, text) for text in ("defaced but no digits", "")),
    ],
)
def test_what_varies_is_masked(message: str, expected: str) -> None:
    assert normalised(message) == expected


def test_the_same_error_at_other_places_of_a_run() -> None:
    """Another step, file and address; the text says what is equal."""
    texts = (f"step {i}: cannot open /tmp/{i}.pt at {hex(i)}" for i in (1, 20, 300))
    found = {fingerprint(caught(lambda text=text: fail(text))) for text in texts}
    assert len(found) == 1
    assert all(len(one) == 16 and set(one) <= set(string.hexdigits.lower()) for one in found)


def test_other_errors_differ() -> None:
    makers = (lambda: fail("a"), lambda: fail("b"), lambda: fail("a", TypeError))
    errors = [caught(make) for make in (*makers, lambda: fail_elsewhere("a"), makers[0])]
    errors[-1].__cause__ = KeyError("k")
    assert len({fingerprint(error) for error in (*errors, ValueError("a"))}) == 6


def test_causes_and_contexts_count_as_they_are_shown() -> None:
    """A suppressed context is not shown, and does not count."""

    def chained(kind: type[Exception], *, suppress: bool) -> BaseException:
        def make() -> None:
            try:
                fail("inner", kind)
            except kind:
                if suppress:
                    raise RuntimeError("outer") from None
                raise RuntimeError("outer")  # noqa: B904 - the context is what is tested

        return caught(make)

    shown = [fingerprint(chained(kind, suppress=False)) for kind in (KeyError, OSError)]
    hidden = [fingerprint(chained(kind, suppress=True)) for kind in (KeyError, OSError)]
    assert shown[0] != shown[1]
    assert hidden[0] == hidden[1]


def test_circles_and_endless_chains_end() -> None:
    """A chain may lead back to itself, or be very long."""
    one, two = ValueError("1"), ValueError("2")
    one.__cause__, two.__cause__ = two, one
    assert fingerprint(one) != fingerprint(ValueError("1"))
    chain = ValueError("0")
    for _ in range(10_000):
        outer = ValueError("0")
        outer.__context__ = chain
        chain = outer
    assert fingerprint(chain)


def test_the_depth_of_a_recursion_does_not_count() -> None:
    """Nor does where in it the stack was full."""

    def descend(depth: int) -> None:
        if depth == 0:
            raise ValueError("bottom")
        descend(depth - 1)

    assert fingerprint(caught(lambda: descend(3))) == fingerprint(caught(lambda: descend(30)))


@given(st.text())
def test_any_text_has_a_fingerprint(text: str) -> None:
    """Also lone surrogates and very long ones; equal texts have equal ones."""
    assert fingerprint(ValueError(text)) == fingerprint(ValueError(text))
    assert fingerprint(ValueError("\udc80" + text * 500))


def test_an_error_without_a_text() -> None:
    mute = type("MuteError", (Exception,), {"__str__": Mock(side_effect=LookupError)})
    assert fingerprint(mute())
