"""Tensors as values of record(): of one element, on the CPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from recorded import lines, run_python, written

from foundry_fastlog import Recorder

torch: Any = pytest.importorskip("torch")


def test_what_is_no_tensor_is_refused(recorder: Recorder) -> None:
    """But belongs to them. Tensors themselves are in tests/device/test_device_torch.py."""
    for value in (torch.Tensor, torch.float32, torch.device("cpu"), torch.Size([1])):
        kind = type(value).__name__
        with pytest.raises(TypeError, match=rf"'v' has type [\w.]*{kind}"):
            recorder.record(0, v=value)
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
    assert [line["missing"]["scalar"] for line in found] == ["unsupported"] * 3


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
    """Nor given to W&B: it is left out, and the value of all ranks recorded as itself."""
    pytest.importorskip("torch.distributed.tensor")
    if not torch.distributed.is_available():
        pytest.skip("this torch has no torch.distributed")
    done = run_python(PARTS, tmp_path / "run")
    assert all(text.startswith("DTensor(local_tensor=") for text in done.stdout.splitlines())
    found = [line.get("metrics", line.get("summary")) for line in lines(tmp_path / "run")]
    assert len(found) == 3
    for values in found:
        assert values["whole"] == 2.0
        assert values["part"] is values["shard"] is None
