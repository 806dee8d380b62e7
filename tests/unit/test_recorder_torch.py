"""Tensors as values of record(): of one element, on the CPU."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from recorded import lines

from foundry_fastlog import Recorder

torch: Any = pytest.importorskip("torch")


@pytest.fixture
def recorder(tmp_path: Path) -> Iterator[Recorder]:
    """An open recorder."""
    with Recorder(tmp_path / "run") as opened:
        yield opened


@pytest.mark.parametrize(
    ("dtype", "value", "expected"),
    [
        ("float64", 0.1, 0.1),
        ("float32", 0.1, 0.10000000149011612),
        ("float16", 0.5, 0.5),
        ("bfloat16", 1.5, 1.5),
        ("bfloat16", math.inf, math.inf),
        ("int64", -(2**63), -(2**63)),
        ("int32", 5, 5),
        ("int16", 5, 5),
        ("int8", -5, -5),
        ("uint8", 255, 255),
        ("bool", True, True),
        ("bool", False, False),
    ],
)
@pytest.mark.parametrize("grad", [False, True])
def test_tensor(
    recorder: Recorder, dtype: str, value: float, expected: float, *, grad: bool
) -> None:
    """Tensors of every dtype, as leaves and as results with a graph behind them."""
    tensor = torch.tensor(value, dtype=getattr(torch, dtype))
    if grad and tensor.is_floating_point():
        tensor = tensor.requires_grad_() * 1
        assert tensor.requires_grad
    assert recorder.record(0, v=tensor)
    recorder.close()
    (line,) = lines(recorder.path)
    found = float(line["nonfinite"]["v"]) if "nonfinite" in line else line["metrics"]["v"]
    assert type(found) is type(expected)
    assert found == expected


def test_parameter_and_buffer(recorder: Recorder) -> None:
    """A Parameter, a loss that went through backward() and tensors of one element are values."""
    weight = torch.nn.Parameter(torch.tensor(2.0))
    loss = weight * 3
    loss.backward()
    assert recorder.record(
        0, weight=weight, loss=loss, grad=weight.grad, norm=weight.norm().reshape(1, 1)
    )
    recorder.close()
    assert lines(recorder.path)[0]["metrics"] == {
        "weight": 2.0,
        "loss": 6.0,
        "grad": 3.0,
        "norm": 2.0,
    }


@pytest.mark.parametrize(
    ("make", "kind"),
    [
        (lambda: torch.tensor([1.0, 2.0]), "Tensor"),
        (lambda: torch.zeros(2, 2), "Tensor"),
        (lambda: torch.tensor(1 + 2j), "Tensor"),
        (lambda: torch.tensor(1.0, device="meta"), "Tensor"),
        (lambda: torch.Tensor, "_TensorMeta"),
        (lambda: torch.float32, "dtype"),
        (lambda: torch.device("cpu"), "device"),
        (lambda: torch.Size([1]), "Size"),
    ],
)
def test_other_tensors_are_refused(recorder: Recorder, make: Any, kind: str) -> None:
    """Tensors with dimensions, complex ones and ones without data: TypeError with the key."""
    with pytest.raises(TypeError, match=rf"'v' has type [\w.]*{kind}"):
        recorder.record(0, v=make())
    recorder.close()
    assert lines(recorder.path) == []


def test_step_may_be_a_tensor(recorder: Recorder) -> None:
    """An integer tensor has __index__ and so is a step; a float one is none."""
    assert recorder.record(torch.tensor(5), x=1.0)
    with pytest.raises(TypeError):
        recorder.record(torch.tensor(5.0), x=1.0)
    recorder.close()
    assert lines(recorder.path)[0]["step"] == 5
