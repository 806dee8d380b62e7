"""Values of devices in lines: every type, every way in, each in its own line."""

from __future__ import annotations

import json
import logging
import math
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from device import fakes
from device.alone import alone, at_once
from device.driving import losses, one_line, working_stream
from device.fakes import FakeDriver as Cuda
from recorded import lines

from foundry_fastlog import MetricsLogger, Recorder

# ---- types ---------------------------------------------------------------------------------------

#: Values that each type holds exactly, its least and largest among them.
EXACT: dict[str, list[Any]] = {
    "fp64": [0.1, -1e308, 5e-324, -0.0],
    "fp32": [1.5, 0.10000000149011612, 3.4028234663852886e38, 1.401298464324817e-45],
    "fp16": [0.5, 65504.0, 5.960464477539063e-08, -2.0],
    "bf16": [1.5, 3.3895313892515355e38, -0.0078125, 9.183549615799121e-41],
    "i8": [-128, 127, 0],
    "i16": [-32768, 32767],
    "i32": [-(2**31), 2**31 - 1],
    "i64": [-(2**63), 2**63 - 1],
    "u8": [0, 255],
    "u16": [65535],
    "u32": [2**32 - 1],
    "u64": [2**63 - 1, 7, 2.0**63, 2.0**64],  # beyond an int64, rounded as float() does
    "bool": [True, False],
}


EIGHT_BIT = [name for name in fakes.DTYPES if name.startswith("fp8")]


@alone
def test_every_type_arrives_exactly(cuda: Cuda, run: Path) -> None:
    stream = working_stream(cuda)
    given = {f"{dtype}.{i}": (v, dtype) for dtype, vs in EXACT.items() for i, v in enumerate(vs)}
    with Recorder(run) as recorder:
        for key, (value, dtype) in given.items():
            number = min(int(value), 2**64 - 1) if dtype == "u64" else value
            assert recorder.record_dict(0, {key: cuda.tensor(number, dtype, stream=stream)})
    found = {key: v for line in lines(run) for key, v in line["metrics"].items()}
    assert list(map(repr, found.values())) == [repr(value) for value, _ in given.values()]
    assert list(found) == list(given)


@pytest.mark.parametrize("dtype", EIGHT_BIT)
@alone
def test_codes_of_eight_bit_floats_are_read_as_defined(cuda: Cuda, run: Path, dtype: str) -> None:
    """On a device and on the CPU; another test compares the definition with torch."""
    working_stream(cuda)
    with Recorder(run) as recorder:
        for code in range(256):
            raw = bytes([code])
            values = {"v": cuda.tensor(raw, dtype), "cpu": fakes.host_tensor(raw, dtype)}
            assert recorder.record(code, **values)
    expected = [repr(fakes.value_of_byte(code, dtype)) for code in range(256)]
    for key in ("v", "cpu"):
        read = [line.get("nonfinite", {}).get(key, line["metrics"][key]) for line in lines(run)]
        assert [repr(float(value)) for value in read] == expected


@alone
def test_nan_and_infinities_are_named(cuda: Cuda, run: Path) -> None:
    """Null in the metrics, as for floats of the CPU."""
    working_stream(cuda)
    given = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}
    dtypes = ["fp64", "fp32", "fp16", "bf16", "fp8_e5m2"]
    with Recorder(run) as recorder:
        for dtype in dtypes:
            recorder.record_dict(0, {key: cuda.tensor(v, dtype) for key, v in given.items()})
    for line in lines(run):
        assert line["metrics"] == dict.fromkeys(given)
        assert line["nonfinite"] == {key: key for key in given}
        assert "missing" not in line
    assert len(lines(run)) == len(dtypes)


@alone
def test_one_element_of_any_shape_is_a_scalar(cuda: Cuda, run: Path) -> None:
    """On a device, and behind an offset. Managed memory is copied, and pinned memory is read."""
    stream = working_stream(cuda)
    make = fakes.load_tensors().FakeTensor
    address = cuda.allocate(0, 16)
    cuda.store_now(address + 8, 3.5)
    with Recorder(run) as recorder:
        for shape in ((1,), (1, 1), (1,) * 8):
            recorder.record(0, loss=cuda.tensor(2.5, shape=shape))
            moved = make(address, (2, 32, 1), (fakes.CUDA, 0), shape, byte_offset=8)
            recorder.record(1, loss=moved)
        recorder.record(2, loss=make(cuda.malloc(0, 1.25), (2, 32, 1), (13, 0)))
        assert cuda.count("cuMemcpyDtoHAsync_v2") == 7
        with cuda.hanging(stream):
            recorder.record(3, loss=fakes.host_tensor(2.25, device=(3, 0)))
            assert recorder.flush(20)
    assert losses(run) == [2.5, 3.5] * 3 + [1.25, 2.25]


# ---- mixed records, all ways in ------------------------------------------------------------------


@alone
def test_device_values_stand_beside_others(cuda: Cuda, fake_tensor: ModuleType, run: Path) -> None:
    """In the order of the call; `epoch` is a field of its own."""
    import numpy as np

    stream = working_stream(cuda)
    with Recorder(run) as recorder:
        values = {"a": 1.5, "loss": cuda.tensor(0.25, stream=stream), "n": 3, "text": "x"}
        values |= {"nothing": None, "ok": True, "np": np.float32(2.5), "array": np.array(3.5)}
        values |= {"cpu": fakes.host_tensor(4.5), "grad": cuda.tensor(8, "i64", stream=stream)}
        recorder.record(7, **values, epoch=2)
    line = one_line(run)
    assert (line["step"], line["epoch"]) == (7, 2)
    assert json.dumps(line["metrics"]) == json.dumps(
        {"a": 1.5, "loss": 0.25, "n": 3, "text": "x", "nothing": None, "ok": True}
        | {"np": 2.5, "array": 3.5, "cpu": 4.5, "grad": 8}
    )
    assert fake_tensor.item_calls() == 0


@alone
def test_every_way_in_takes_device_values(cuda: Cuda, fake_tensor: ModuleType, run: Path) -> None:
    """record, record_dict, log with nested dicts, log_step: none reads the device."""
    stream = working_stream(cuda)
    with Recorder(run) as recorder, MetricsLogger("exp", run, recorder=recorder) as metrics:
        recorder.record(step=0, loss=cuda.tensor(1.0, stream=stream))
        recorder.record_dict(1, {"loss/train": cuda.tensor(2.0, stream=stream)})
        recorder.log({"train": {"loss": cuda.tensor(3.0, stream=stream)}, "lr": 0.1})
        metrics.log_step(3, 1, {"loss": cuda.tensor(4.0, stream=stream), "lr": 0.1})
        metrics.log_detailed(4, None, lambda: {"loss": cuda.tensor(5.0, stream=stream)})
    assert [(line["step"], line["metrics"]) for line in lines(run)] == [
        (0, {"loss": 1.0}),
        (1, {"loss/train": 2.0}),
        (2, {"train.loss": 3.0, "lr": 0.1}),
        (3, {"loss": 4.0, "lr": 0.1}),
        (4, {"loss": 5.0}),
    ]
    assert fake_tensor.item_calls() == 0
    assert cuda.count("synchronisations") == 0


def shown_tensor(kind: type) -> type:
    """Return a class of tensors that show themselves as torch's do: by item()."""

    class Shown(kind):  # type: ignore[misc, valid-type]
        def __format__(self, spec: str) -> str:
            return format(self.item(), spec)

        def __repr__(self) -> str:
            return f"tensor({self.item()})"

    return Shown


@alone
def test_a_steps_echo_reads_no_device(cuda: Cuda, fake_tensor: ModuleType, run: Path) -> None:
    """It shows where the value is; the one on the CPU is shown."""
    stream = working_stream(cuda)
    kind = shown_tensor(fake_tensor.FakeTensor)
    shown: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: shown.append(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger("echo")
    logger.setLevel(logging.INFO)
    logger.addHandler(handler)
    with MetricsLogger("exp", run, logger=logger) as metrics, cuda.hanging(stream), at_once():
        loss = cuda.tensor(1.5, stream=stream, kind=kind)
        metrics.log_step(5, 1, {"loss": loss, "lr": 0.5})
    assert shown == [f"Step 5: loss=<on {loss.device}>, lr=0.5000"]
    assert fake_tensor.item_calls() == 0
    assert one_line(run)["metrics"] == {"loss": 1.5, "lr": 0.5}


class Broken:
    @property
    def device(self) -> Any:
        raise RuntimeError("no device")

    def __repr__(self) -> str:
        return "broken"


@alone
def test_an_odd_metric_beside_a_value_of_a_device_does_not_read_the_device(
    cuda: Cuda, fake_tensor: ModuleType, run: Path
) -> None:
    """A list and a tensor with dimensions are left out; the loss arrives."""
    stream = working_stream(cuda)
    kind = shown_tensor(fake_tensor.FakeTensor)
    odd = {
        "list": [1, 2],
        "complex": cuda.tensor(1j, "complex64", kind=kind),
        "many": cuda.tensor(bytes(8), shape=(2,), kind=kind),
        "broken": Broken(),
    }
    with MetricsLogger("exp", run) as metrics:
        loss = cuda.tensor(1.5, stream=stream, kind=kind)
        metrics.log_step(5, 1, {"loss": loss, "lr": 0.5, **odd})
    line = one_line(run)
    assert line["metrics"] == {"loss": 1.5, "lr": 0.5, **dict.fromkeys(odd)}
    assert line["missing"] == dict.fromkeys(odd, "unsupported")
    assert fake_tensor.item_calls() == 0
    assert cuda.count("synchronisations") == 0
