"""Tensors as values of record(): of one element, on the CPU."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from recorded import lines, run_python, written

from foundry_fastlog import Recorder

torch: Any = pytest.importorskip("torch")


@pytest.mark.parametrize(
    ("dtype", "value", "expected"),
    [
        *(("float64", 0.1, 0.1), ("float32", 0.1, 0.10000000149011612), ("float16", 0.5, 0.5)),
        *(("bfloat16", 1.5, 1.5), ("bfloat16", math.inf, math.inf)),
        *(("int64", -(2**63), -(2**63)), ("int32", 5, 5), ("int16", 5, 5), ("int8", -5, -5)),
        *(("uint8", 255, 255), ("bool", True, True), ("bool", False, False)),
    ],
)
@pytest.mark.parametrize("grad", [False, True])
def test_tensor(
    recorder: Recorder, dtype: str, value: float, expected: float, *, grad: bool
) -> None:
    tensor = torch.tensor(value, dtype=getattr(torch, dtype))
    if grad and tensor.is_floating_point():
        tensor = tensor.requires_grad_() * 1
        assert tensor.requires_grad
    assert recorder.record(0, v=tensor)
    (line,) = written(recorder)
    found = float(line["nonfinite"]["v"]) if "nonfinite" in line else line["metrics"]["v"]
    assert type(found) is type(expected)
    assert found == expected


def test_parameter_and_buffer(recorder: Recorder) -> None:
    """A Parameter, a loss that went through backward() and tensors of one element are values."""
    weight = torch.nn.Parameter(torch.tensor(2.0))
    loss = weight * 3
    loss.backward()
    values = {"weight": weight, "loss": loss, "grad": weight.grad}
    assert recorder.record(0, **values, norm=weight.norm().reshape(1, 1))
    expected = {"weight": 2.0, "loss": 6.0, "grad": 3.0, "norm": 2.0}
    assert written(recorder)[0]["metrics"] == expected


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
    with pytest.raises(TypeError, match=rf"'v' has type [\w.]*{kind}"):
        recorder.record(0, v=make())
    assert written(recorder) == []


@pytest.mark.parametrize("name", [f"{sign}int{bits}" for sign in ("", "u") for bits in range(1, 8)])
def test_integers_that_are_parts_of_bytes_are_refused(recorder: Recorder, name: str) -> None:
    """DLPack shows them as those of eight bits, and their bits may be others."""
    if not hasattr(torch, name):
        pytest.skip(f"this torch has no {name}")
    bits = torch.tensor(3, dtype=torch.uint8)
    for _ in range(2):  # types that are known are asked, too
        with pytest.raises(
            TypeError, match=r"'a' has type .*Tensor.*(smaller than a byte|its type)"
        ):
            recorder.record(0, a=bits.view(getattr(torch, name)))
        assert recorder.record(0, a=bits, b=bits.view(torch.int8))
    assert [line["metrics"] for line in written(recorder)] == [{"a": 3, "b": 3}] * 2


def test_a_tensor_whose_memory_was_freed_is_described(tmp_path: Path) -> None:
    """Everywhere: torch's own text of one ends the process."""
    code = """
import logging, sys
import torch
from foundry_fastlog import ErrorTracker, MetricsLogger, Recorder
from foundry_fastlog.base.json_text import safe_str
from foundry_fastlog.sinks.wandb_values import flat

logging.basicConfig(level=logging.INFO)
scalar, several, view = torch.tensor(1.5), torch.ones(2000), torch.ones(4)[2:]
for tensor, left in ((scalar, 0), (several, 4000), (view, 8)):
    tensor.untyped_storage().resize_(left)
metrics = {"scalar": scalar, "several": several, "view": view, "all": [scalar]}
with Recorder(sys.argv[1]) as recorder:
    logger = MetricsLogger("e", sys.argv[1], recorder=recorder)
    for call in (recorder.record, lambda step, **given: recorder.epoch_summary(step, given)):
        try:
            call(0, scalar=scalar)
        except TypeError:
            continue
        raise SystemExit("it was taken")
    recorder.log(metrics, step=1)
    logger.log_step(2, None, metrics)
    logger.log_epoch_summary(3, metrics)
    recorder.event("an event", error=ValueError(several), context=metrics)
print(flat(metrics)["scalar"], safe_str(view), sep="\\n")
"""
    done = run_python(code, tmp_path / "run")
    said = "<Tensor of torch.float32, shape (), on cpu, whose memory was freed>"
    assert done.stdout.splitlines() == [said, said.replace("()", "(2,)")]
    found = lines(tmp_path / "run")
    assert [line.get("metrics", line.get("summary"))["scalar"] for line in found] == [said] * 3


PARTS = """
import sys
import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Partial, Replicate, Shard
from torch.testing._internal.distributed.fake_pg import FakeStore
from foundry_fastlog import MetricsLogger, Recorder
from foundry_fastlog.recording.host_copies import checked
from foundry_fastlog.sinks.wandb_values import flat

dist.init_process_group("fake", rank=0, world_size=2, store=FakeStore())
mesh = init_device_mesh("cpu", (2,))
part = DTensor.from_local(torch.tensor(1.0), mesh, [Partial()])
shard = DTensor.from_local(torch.ones(1), mesh, [Shard(0)])
whole = DTensor.from_local(torch.tensor(2.0), mesh, [Replicate()])
metrics = {"part": part, "shard": shard, "whole": whole, "odd": object}
row = flat(metrics)
assert row["whole"] == 2.0
print(row["part"], row["shard"], sep="\\n")
for copied in (part, shard):
    try:
        checked([copied])
    except TypeError:
        continue
    raise SystemExit("it was taken")
with Recorder(sys.argv[1]) as recorder:
    logger = MetricsLogger("e", sys.argv[1], recorder=recorder)
    logger.log_step(0, None, metrics)
    logger.log_epoch_summary(0, metrics)
    recorder.log(metrics, step=1)
"""


def test_a_ranks_part_of_a_value_is_never_taken_for_it(tmp_path: Path) -> None:
    """Nor given to W&B: it is recorded as a text, and the value of all ranks as itself."""
    pytest.importorskip("torch.distributed.tensor")
    if not torch.distributed.is_available():
        pytest.skip("this torch has no torch.distributed")
    done = run_python(PARTS, tmp_path / "run")
    assert all(text.startswith("DTensor(local_tensor=") for text in done.stdout.splitlines())
    found = [line.get("metrics", line.get("summary")) for line in lines(tmp_path / "run")]
    assert len(found) == 3
    for values in found:
        assert values["whole"] == 2.0
        assert all("DTensor(local_tensor=" in values[name] for name in ("part", "shard"))
