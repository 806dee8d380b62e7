"""Device scalars in training: a real loop, torch.compile, values that turn NaN."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
from gpu_support import flushed, metrics
from recorded import lines

from foundry_fastlog import Recorder

pytest.importorskip("torch")

import torch

from benchmarks.gpu.model import SHAPES, Training
from benchmarks.gpu.target import Target

# torch's own warnings differ from machine to machine: shown, no errors.
pytestmark = [pytest.mark.gpu, pytest.mark.filterwarnings("default")]


def test_a_training_loop_has_the_values_that_item_reads_afterwards(recorder: Recorder) -> None:
    """A GPT in bfloat16, fused AdamW, clipped gradients: four scalars a step, kept and compared."""
    training = Training(SHAPES["small"], 4, Target("cuda"))
    kept = []
    for step in range(200):
        scalars, lr = training.step()
        recorder.record(
            step,
            loss=scalars.loss,
            grad_norm=scalars.grad_norm,
            loss_max=scalars.loss_max,
            loss_std=scalars.loss_std,
            lr=lr,
        )
        kept.append((scalars, lr))
    found = metrics(recorder)
    assert list(found) == list(range(200))
    for step, (scalars, lr) in enumerate(kept):
        assert found[step] == {
            "loss": scalars.loss.item(),
            "grad_norm": scalars.grad_norm.item(),
            "loss_max": scalars.loss_max.item(),
            "loss_std": scalars.loss_std.item(),
            "lr": lr,
        }


@pytest.mark.parametrize("mode", ["default", "reduce-overhead"])
def test_a_compiled_step_with_the_record_outside_of_it(recorder: Recorder, mode: str) -> None:
    """With CUDA graphs, too, whose outputs the next step overwrites."""
    pytest.importorskip("triton")
    weight = torch.full((64,), 0.5, device="cuda")

    def loss(x: Any) -> Any:
        return (x * weight).sin().sum()

    step_function: Callable[[Any], Any] = torch.compile(loss, mode=mode)
    inputs = [torch.full((64,), i / 10, device="cuda") for i in range(20)]
    kept = []
    for step, x in enumerate(inputs):
        torch.compiler.cudagraph_mark_step_begin()
        value = step_function(x)
        recorder.record(step, loss=value)
        kept.append(value.clone())
    found = metrics(recorder)
    assert [values["loss"] for values in found.values()] == [value.item() for value in kept]
    torch.compiler.reset()


@pytest.mark.parametrize(
    ("value", "name"), [(math.nan, "nan"), (math.inf, "inf"), (-math.inf, "-inf")]
)
def test_a_value_that_turns_not_finite_is_an_event(
    recorder: Recorder, value: float, name: str
) -> None:
    """In the errors stream, with key, value and step, though nobody read the value."""
    fine = torch.ones((), device="cuda")
    for step in range(10):
        loss = fine * (value if step == 5 else 1.0)
        recorder.record(step, loss=loss, norm=fine, lr=0.1)
    flushed(recorder)
    events = [line for line in lines(recorder.path, "errors") if line.get("event") == "nonfinite"]
    (event,) = events
    assert (event["level"], event["step"]) == ("WARNING", 5)
    assert event["context"]["key"] == "loss"
    assert str(event["context"]["value"]) == name
    assert "loss" in event["message"]
    found = lines(recorder.path)
    assert found[5]["metrics"] == {"loss": None, "norm": 1.0, "lr": 0.1}
    assert [line["step"] for line in found] == list(range(10))
