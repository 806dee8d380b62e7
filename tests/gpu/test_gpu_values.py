"""Device scalars arrive as `.item()` has them: dtypes, views, gradients, ways in, refusals."""

from __future__ import annotations

import math
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest
from gpu_support import flushed, keep_busy, metrics, same
from recorded import lines, run_python

from foundry_fastlog import MetricsLogger, Recorder

torch: Any = pytest.importorskip("torch")

# torch's own warnings differ from machine to machine: shown, no errors.
pytestmark = [pytest.mark.gpu, pytest.mark.filterwarnings("default")]

VALUES = [
    ("float64", 0.1),
    ("float64", 1.7976931348623157e308),
    ("float64", 5e-324),
    ("float32", 0.1),
    ("float32", 1e-45),
    ("float16", 65504.0),
    ("float16", 6e-8),
    ("bfloat16", 3.3895e38),
    ("bfloat16", -1.5),
    ("float8_e4m3fn", 448.0),
    ("float8_e4m3fn", -0.0625),
    ("float8_e5m2", 57344.0),
    ("float8_e5m2", -0.75),
    ("int8", -128),
    ("int16", -32768),
    ("int32", -(2**31)),
    ("int64", -(2**63)),
    ("int64", 2**63 - 1),
    ("uint8", 255),
    ("bool", True),
    ("bool", False),
]


def made(dtype: str, value: float) -> Any:
    kind = getattr(torch, dtype)
    if dtype.startswith("float8"):
        return torch.tensor(value, dtype=torch.float32).to(kind).cuda()
    return torch.tensor(value, dtype=kind, device="cuda")


def item(tensor: Any) -> Any:
    """Return `.item()`, for float8 by way of float32, which holds each of its values."""
    return (tensor.float() if "float8" in str(tensor.dtype) else tensor).item()


@pytest.mark.parametrize(("dtype", "value"), VALUES)
def test_a_value_of_each_dtype_is_what_item_says(
    recorder: Recorder, dtype: str, value: float
) -> None:
    tensor = made(dtype, value)
    assert recorder.record(0, v=tensor)
    found = metrics(recorder)[0]["v"]
    assert same(found, item(tensor))
    assert type(found) is type(item(tensor))


@pytest.mark.parametrize("dtype", ["float8_e4m3fn", "float8_e5m2", "float16", "bfloat16"])
def test_bit_patterns_are_right(recorder: Recorder, dtype: str) -> None:
    """All of eight bits, of sixteen five hundred: subnormal, not finite, negative."""
    if dtype.startswith("float8"):
        bits = torch.arange(256, dtype=torch.int32).to(torch.uint8)
    else:
        bits = torch.arange(-32768, 32768, 131, dtype=torch.int32).to(torch.int16)
    patterns = bits.cuda().view(getattr(torch, dtype))
    for i in range(len(patterns)):
        recorder.record(i, v=patterns[i])
    expected = patterns.float().tolist()
    found = metrics(recorder)
    assert all(same(found[i]["v"], expected[i]) for i in range(len(patterns)))


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "bfloat16", "float8_e5m2"])
def test_a_value_that_is_not_finite_is_named(recorder: Recorder, dtype: str, value: float) -> None:
    """Null in the metrics and named in `nonfinite`, as for floats."""
    recorder.record(0, v=made(dtype, value), fine=made("float32", 1.0))
    flushed(recorder)
    (line,) = lines(recorder.path)
    assert line["metrics"] == {"v": None, "fine": 1.0}
    assert same(float(line["nonfinite"]["v"]), value)
    assert list(line["nonfinite"]) == ["v"]


VIEWS = {
    "an element": lambda x: x[3],
    "an element kept as one dimension": lambda x: x[3:4],
    "a sum": lambda x: x.sum(),
    "a reshaped sum": lambda x: x.sum().reshape(1),
    "two dimensions of one": lambda x: x[5].reshape(1, 1),
    "an element of a transposed matrix": lambda x: x.reshape(2, 8).t()[3, 1],
    "an expanded scalar": lambda x: x[2].expand(1),
    "an element of a strided view": lambda x: x[::3][2],
    "a selected minimum": lambda x: x.min(dim=0).values,
    "an index": lambda x: x.argmax(),
    "a comparison": lambda x: x[0] < x[1],
    "a negative view": lambda x: -x[4],
}


@pytest.mark.parametrize("view", VIEWS)
def test_one_element_views_are_values(recorder: Recorder, view: str) -> None:
    """Offset and strides are the view's, not the base's."""
    tensor = VIEWS[view](torch.arange(16, dtype=torch.float32, device="cuda") + 0.5)
    recorder.record(0, v=tensor)
    assert metrics(recorder)[0]["v"] == tensor.item()


def test_a_lazily_negated_view_is_right_or_refused(recorder: Recorder) -> None:
    """The bits in memory have the other sign: reading them as they are would be wrong."""
    tensor = torch.tensor([1 + 2j], device="cuda").conj().imag
    assert tensor.is_neg()
    try:
        recorder.record(0, v=tensor)
    except TypeError:
        flushed(recorder)
        assert lines(recorder.path) == []
    else:
        assert metrics(recorder)[0]["v"] == -2.0


def test_tensors_with_gradients_are_values(recorder: Recorder) -> None:
    """Leaves, results with a graph, parameters and gradients; backward() works afterwards."""
    weight = torch.nn.Parameter(torch.tensor(2.0, device="cuda"))
    loss = (weight * 3).square()
    recorder.record(0, weight=weight, loss=loss)
    loss.backward()
    recorder.record(1, grad=weight.grad, norm=weight.grad.norm(), element=weight.reshape(1))
    assert metrics(recorder) == {
        0: {"weight": 2.0, "loss": 36.0},
        1: {"grad": 36.0, "norm": 36.0, "element": 2.0},
    }


def test_recording_keeps_no_graph_and_no_memory(recorder: Recorder) -> None:
    """When the caller lets go of the loss, its graph is freed, flushed or not."""
    x = torch.randn(1 << 20, device="cuda", requires_grad=True)
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    keep_busy(0.2)
    loss = (x.exp() * 2).sum()
    assert torch.cuda.memory_allocated() > before
    recorder.record(0, loss=loss)
    expected = loss.detach().clone()
    del loss
    assert torch.cuda.memory_allocated() <= before + 4096
    assert metrics(recorder)[0]["loss"] == expected.item()


def test_every_way_in_takes_device_scalars(recorder: Recorder, tmp_path: Path) -> None:
    """record, record_dict, log and MetricsLogger.log_step; floats, ints and text beside them."""
    loss, norm = (torch.tensor(value, device="cuda") for value in (0.5, 2.25))
    values = {"lr": 0.1, "loss": loss, "tokens": 7, "norm": norm, "phase": "warm", "none": None}
    recorder.record(0, **values)
    recorder.record_dict(1, values)
    recorder.log(values, step=2)
    flushed(recorder)
    expected = {**values, "loss": 0.5, "norm": 2.25}
    for line in lines(recorder.path):
        assert line["metrics"] == expected
        assert list(line["metrics"]) == list(values)
    with MetricsLogger("exp", tmp_path / "metrics") as logger:
        logger.log_step(3, 1, {"loss": loss, "lr": 0.1})
        (entry,) = logger.get_metrics_history()
    assert entry["step"] == 3
    assert entry["metrics"] == {"loss": 0.5, "lr": 0.1}


def test_the_time_of_a_line_is_the_time_of_the_call(recorder: Recorder) -> None:
    keep_busy(0.5)
    value = torch.ones((), device="cuda")
    before = datetime.now(timezone.utc)
    recorder.record(0, v=value)
    after = datetime.now(timezone.utc)
    flushed(recorder)
    (line,) = lines(recorder.path)
    stamp = datetime.fromisoformat(line["timestamp"].replace("Z", "+00:00"))
    slack = 0.002
    assert -slack <= (stamp - before).total_seconds()
    assert (stamp - after).total_seconds() <= slack


def fake() -> Any:
    """Return a tensor without memory, as tracing makes them."""
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode():
        return torch.ones((), device="cuda")


def four_bits() -> Any:
    """Return two fp4 numbers in a byte."""
    if not hasattr(torch, "float4_e2m1fn_x2"):
        pytest.skip("this torch has no fp4")
    return torch.zeros(1, dtype=torch.uint8, device="cuda").view(torch.float4_e2m1fn_x2)


REFUSED = {
    "complex": lambda: torch.tensor(1 + 2j, device="cuda"),
    "two elements": lambda: torch.zeros(2, device="cuda"),
    "no element": lambda: torch.zeros(0, device="cuda"),
    "a matrix": lambda: torch.zeros(2, 2, device="cuda"),
    "fake": fake,
    "fp4": four_bits,
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_no_scalar_is_refused_with_key_and_type(recorder: Recorder, kind: str) -> None:
    """A TypeError; nothing of the record is written, and the next one is right."""
    tensor = REFUSED[kind]()
    fine = torch.tensor(1.0, device="cuda")
    with pytest.raises(TypeError, match=r"'bad'.*Tensor"):
        recorder.record(0, fine=fine, bad=tensor)
    recorder.record(1, fine=fine)
    assert metrics(recorder) == {1: {"fine": 1.0}}


def test_a_partial_dtensor_is_refused_and_a_replicated_one_is_a_value(tmp_path: Path) -> None:
    """Summing a partial one needs every rank: that is the caller's to do."""
    done = run_python(
        """
import sys
import torch
import torch.distributed as dist
if not dist.is_available() or not dist.is_nccl_available():
    print("no nccl")
    sys.exit(0)
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Partial, Replicate
from foundry_fastlog import Recorder

torch.cuda.set_device(0)
dist.init_process_group("nccl", store=dist.HashStore(), rank=0, world_size=1)
mesh = init_device_mesh("cuda", (1,))
local = torch.tensor(2.5, device="cuda")
with Recorder(sys.argv[1]) as recorder:
    recorder.record(0, v=DTensor.from_local(local, mesh, [Replicate()], run_check=False))
    try:
        recorder.record(1, v=DTensor.from_local(local, mesh, [Partial()], run_check=False))
    except TypeError as error:
        assert "'v'" in str(error) and "DTensor" in str(error), error
    else:
        raise AssertionError("a partial DTensor was recorded")
dist.destroy_process_group()
""",
        tmp_path / "run",
    )
    if "no nccl" in done.stdout:
        pytest.skip("this torch has no NCCL")
    (line,) = lines(tmp_path / "run")
    assert (line["step"], line["metrics"]) == (0, {"v": 2.5})
