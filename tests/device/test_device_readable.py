"""Which tensor is read in place of one that is given, if there is one value at all."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from foundry_fastlog.recording.plain_tensors import readable_tensor
from foundry_fastlog.recording.values import metric_value


def placed(*kinds: str) -> list[Any]:
    return [SimpleNamespace(is_replicate=lambda kind=kind: kind == "all") for kind in kinds]


def a_kind_of(name: str, **members: Any) -> Any:
    """Make an object of a class that is derived from one of this name."""
    return type("Derived", (type(name, (), members),), {})()


def test_what_is_read_in_place_of_a_tensor() -> None:
    """Itself, or what is behind wrappers of any depth, where that is one value."""
    plain = SimpleNamespace(device=SimpleNamespace(type="cuda"))
    assert readable_tensor(plain) is plain
    assert readable_tensor(1.5) == 1.5
    collective = a_kind_of("AsyncCollectiveTensor", trigger_wait=lambda _: plain)
    assert readable_tensor(collective) is plain
    whole = a_kind_of("DTensor", placements=placed("all", "all"), to_local=lambda _: collective)
    assert readable_tensor(whole) is plain


def freed() -> Any:
    """Make a tensor of which less memory is there than its last element needs."""
    return SimpleNamespace(
        shape=(2, 3),
        stride=lambda: (3, 1),
        storage_offset=lambda: 2,
        element_size=lambda: 4,
        untyped_storage=lambda: SimpleNamespace(nbytes=lambda: 31),
    )


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (freed(), "whose memory was freed> no longer has a value"),
        (a_kind_of("DTensor", placements=placed("all", "part")), "each rank has only a part of it"),
        (
            a_kind_of(
                "DTensor",
                placements=placed("all"),
                to_local=lambda _: a_kind_of("DTensor", placements=placed("part")),
            ),
            "each rank has only a part of it",
        ),
        (SimpleNamespace(device=SimpleNamespace(type="meta")), "it has no value"),
        (type("FakeTensor", (), {"__module__": "torch._subclasses.fake_tensor"})(), "no value"),
    ],
)
def test_what_is_no_one_value_is_not_read(value: Any, words: str) -> None:
    """A part of a value, a value of a trace, and what is there no more."""
    with pytest.raises(TypeError, match=words):
        readable_tensor(value)
    with pytest.raises(TypeError):
        metric_value("name", value)


def test_a_device_that_cannot_be_told_is_none() -> None:
    class Hostile:
        def __getattr__(self, name: str) -> Any:
            raise LookupError(name)

    value = Hostile()
    assert readable_tensor(value) is value
