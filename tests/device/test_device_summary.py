"""Values of devices in the summary of an epoch: they go the way of those of a step."""

from __future__ import annotations

import math
import os
import signal
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from device.alone import Nursery, alone
from device.driving import working_stream
from device.fakes import FakeDriver as Cuda
from recorded import lines
from ring_checks import check_against_recovery

from foundry_fastlog import MetricsLogger, Recorder


@alone
def test_a_summary_waits_for_no_device(cuda: Cuda, fake_tensor: ModuleType, run: Path) -> None:
    """Its line is written when the values are there; what is on the CPU stands beside them."""
    stream = working_stream(cuda)
    with MetricsLogger("exp", run) as metrics:
        with cuda.hanging(stream):
            loss = cuda.tensor(1.5, stream=stream)
            odd = cuda.tensor(1j, "complex64")
            values = {"loss": loss, "n": 3, "epoch": 7, "note": "x", "list": [loss], "odd": odd}
            assert metrics.log_epoch_summary(2, values)
            assert metrics.log_epoch_summary(2.5, {"loss": loss, "nan": cuda.tensor(math.nan)})
            assert metrics.log_epoch_summary(math.inf, {"loss": loss, "lr": math.nan})
        assert metrics.log_epoch_summary(4, {"lr": 0.5})
        assert metrics.flush()
        first, second, third, last = metrics.get_epoch_summaries()
    assert first["epoch"] == 2
    assert first["summary"] == {
        "loss": 1.5,
        "n": 3,
        "epoch": 7,
        "note": "x",
        "list": None,
        "odd": None,
    }
    assert first["missing"] == {"list": "unsupported", "odd": "unsupported"}
    assert (second["epoch"], second["nonfinite"]) == (2.5, {"nan": "nan"})
    assert third["nonfinite"] == {"epoch": "inf", "lr": "nan"}
    assert (last["epoch"], last["summary"]) == (4, {"lr": 0.5})
    assert fake_tensor.item_calls() == 0
    assert cuda.count("synchronisations") == 0
    assert lines(run, "errors") == []  # events are of steps


@alone
def test_a_summary_names_what_did_not_come(cuda: Cuda, run: Path) -> None:
    """And log()'s next step is not changed by it."""
    stream = working_stream(cuda)
    with Recorder(run, device_timeout_s=0.1, flush_interval_s=0.01) as recorder:
        recorder.log({"lr": 0.5}, step=8)
        with cuda.hanging(stream):
            recorder.epoch_summary(3, {"loss": cuda.tensor(1.5, stream=stream), "lr": 0.5})
            assert recorder.flush(20)
        recorder.log({"lr": 0.5})
        assert recorder.flush(20)
        assert recorder.stats()["device"]["missing"] == 1
    first, line, last = lines(run)
    assert (first["step"], last["step"]) == (8, 9)
    assert list(line)[2:] == ["epoch", "summary", "missing"]
    assert (line["epoch"], line["summary"]) == (3, {"loss": None, "lr": 0.5})
    assert line["missing"] == {"loss": "timeout"}


@alone
def test_a_large_summary_becomes_several_lines(cuda: Cuda, run: Path) -> None:
    working_stream(cuda)
    loss = cuda.tensor(1.5)
    values: dict[str, Any] = {f"v{n}": loss for n in range(3000)}
    values |= {"text": "x" * 5000, "k" * 20_000: loss}
    with Recorder(run, ring_bytes=64 << 10) as recorder:
        assert recorder.epoch_summary(1, values)
        assert recorder.flush(20)
    found: dict[str, Any] = {}
    reasons: set[str] = set()
    for line in lines(run):
        found |= line["summary"]
        reasons |= {why for name, why in line.get("missing", {}).items() if name[0] == "v"}
    # Values that arrive late may be given up: what waits must not keep half of so small a ring.
    assert reasons <= {"no_room"}
    assert found.pop("text").startswith("x")
    (long,) = [name for name in found if name.startswith("k")]
    assert len(long) < 400
    assert found.pop(long) is None  # no_key_space
    assert list(found) == [f"v{n}" for n in range(3000)]
    assert set(found.values()) <= ({1.5, None} if reasons else {1.5})


@alone
def test_a_summary_is_refused_as_a_record_is(cuda: Cuda, run: Path) -> None:
    """By its values' types, its epoch, its names."""
    working_stream(cuda)
    loss = cuda.tensor(1.5)
    with Recorder(run) as recorder:
        with pytest.raises(TypeError, match=r"'z'.*FakeTensor"):
            recorder.epoch_summary(1, {"loss": loss, "z": cuda.tensor(1j, "complex64")})
        with pytest.raises(TypeError, match="names in a summary"):
            recorder.epoch_summary(1, {3: loss})  # type: ignore[dict-item]
        with pytest.raises(TypeError, match="epoch must be"):
            recorder.epoch_summary("1", {"loss": loss})  # type: ignore[arg-type]
        with pytest.raises(TypeError):
            recorder._summary_fitting("1", {"loss": loss})  # type: ignore[arg-type]
        with pytest.raises(TypeError):
            recorder._summary_fitting(1)  # type: ignore[call-arg]
    with pytest.raises(RuntimeError, match="closed"):
        recorder.epoch_summary(1, {"loss": loss})
    assert lines(run) == []


def dies_with_a_summary_under_way(cuda: Cuda, run: Path) -> None:
    stream = working_stream(cuda)
    recorder = Recorder(run)
    cuda.hang(stream)
    loss = cuda.tensor(1.5, stream=stream)
    recorder.epoch_summary(2, {"loss": loss, "epoch": loss, "lr": math.nan})
    recorder.epoch_summary(-math.inf, {"loss": loss, "lr": 0.5})
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_kill_loses_only_the_values_on_the_device(nursery: Nursery, tmp_path: Path) -> None:
    run = tmp_path / "run"
    killed = -signal.SIGKILL
    nursery(dies_with_a_summary_under_way, tmp_path / "output", exit_status=killed, run=run)
    check_against_recovery(run)
    first, second = lines(run)
    assert first["epoch"] == 2
    assert first["summary"] == {"loss": None, "epoch": None, "lr": None}
    assert first["missing"] == {"loss": "lost", "epoch": "lost"}
    assert first["nonfinite"] == {"lr": "nan"}
    assert second["epoch"] is None
    assert second["nonfinite"] == {"epoch": "-inf"}
    assert second["summary"] == {"loss": None, "lr": 0.5}
