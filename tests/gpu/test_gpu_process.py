"""Processes: no context by importing, none on other devices, exit, fork, workers, SIGKILL."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from gpu_support import DRIVER
from recorded import lines, run_python

from foundry_fastlog import recover

torch: Any = pytest.importorskip("torch")

# torch's own warnings differ from machine to machine: shown, no errors.
pytestmark = [pytest.mark.gpu, pytest.mark.filterwarnings("default")]

SCRIPT = """
import os, signal, sys, time
import torch
from foundry_fastlog import Recorder
from gpu_support import keep_busy
"""


def test_importing_and_recording_floats_makes_no_context(tmp_path: Path) -> None:
    """With torch imported beside it; CUDA stays uninitialised, and no device has a context."""
    run_python(
        DRIVER
        + """
import sys
import torch
import foundry_fastlog
from foundry_fastlog import Recorder
with Recorder(sys.argv[1]) as recorder:
    with recorder.timer("block"):
        recorder.record(0, loss=1.0, cpu=torch.tensor(2.0))
    assert recorder.flush()
    recorder.stats()
    assert not torch.cuda.is_initialized()
    assert not any(has_context(index) for index in range(torch.cuda.device_count()))
assert not torch.cuda.is_initialized()
torch.ones((), device="cuda")
assert has_context(0), "the check sees none where there is one"
""",
        tmp_path / "run",
    )
    assert lines(tmp_path / "run")[0]["metrics"] == {"loss": 1.0, "cpu": 2.0}


def test_without_torch_the_driver_is_not_even_loaded(tmp_path: Path) -> None:
    """A run of floats maps no libcuda into the process."""
    run_python(
        """
import sys
from pathlib import Path
from foundry_fastlog import Recorder
with Recorder(sys.argv[1]) as recorder:
    recorder.record(0, loss=1.0)
assert "torch" not in sys.modules
assert "libcuda" not in Path("/proc/self/maps").read_text()
""",
        tmp_path / "run",
    )


@pytest.mark.usefixtures("second_device")
def test_recording_on_the_second_device_touches_the_first_one_not(tmp_path: Path) -> None:
    """No context, hence no memory, on device 0."""
    run_python(
        SCRIPT
        + DRIVER
        + """
torch.cuda.set_device(1)
with Recorder(sys.argv[1]) as recorder:
    value = torch.ones((), device="cuda:1")
    for step in range(100):
        with recorder.timer("block", device=True):
            value.add_(1)
        recorder.record(step, v=value)
    assert recorder.flush()
    assert has_context(1)
    assert not has_context(0)
""",
        tmp_path / "run",
    )
    assert [line["metrics"]["v"] for line in lines(tmp_path / "run")] == list(range(2, 102))


def test_values_that_are_on_their_way_at_exit_are_written(tmp_path: Path) -> None:
    """A script that ends without close(), the device still busy."""
    run_python(
        SCRIPT
        + """
recorder = Recorder(sys.argv[1])
value = torch.zeros((), device="cuda")
keep_busy(0.5)
for step in range(50):
    recorder.record(step, v=value.add_(1), lr=0.1)
""",
        tmp_path / "run",
    )
    found = lines(tmp_path / "run")
    assert [line["metrics"] for line in found] == [{"v": i + 1.0, "lr": 0.1} for i in range(50)]


def test_exit_does_not_wait_for_a_device_that_never_ends(tmp_path: Path) -> None:
    """close() gives up after its time: the value is null and named, the float is there."""
    run_python(
        SCRIPT
        + """
value = torch.zeros((), device="cuda")  # before the recorder, whose first value may wait else
recorder = Recorder(sys.argv[1], close_timeout_s=1.0, device_timeout_s=0.2)
keep_busy(6.0)
recorder.record(0, v=value, lr=0.1)
start = time.perf_counter()
assert recorder.close()
assert time.perf_counter() - start < 3.0
""",
        tmp_path / "run",
    )
    (line,) = lines(tmp_path / "run")
    assert line["metrics"] == {"v": None, "lr": 0.1}
    assert line["missing"] == {"v": "timeout"}


def test_a_forked_child_records_floats_while_the_parent_waits_for_values(tmp_path: Path) -> None:
    """The child touches no driver and inherits no waiting line; the parent's values arrive."""
    done = run_python(
        SCRIPT
        + """
recorder = Recorder(sys.argv[1])
value = torch.zeros((), device="cuda")
keep_busy(0.5)
for step in range(20):
    recorder.record(step, v=value.add_(1))
child = os.fork()
if child == 0:
    code = 1
    try:
        for step in range(100, 120):
            recorder.record(step, x=step / 4)
        code = 0 if recorder.close(timeout=30.0) else 2
    finally:
        os._exit(code)
for step in range(20, 40):
    recorder.record(step, v=value.add_(1))
_, status = os.waitpid(child, 0)
assert os.waitstatus_to_exitcode(status) == 0, status
assert recorder.close(timeout=30.0)
print(child)
""",
        tmp_path / "run",
    )
    found = lines(tmp_path / "run")
    assert [(line["step"], line["metrics"]) for line in found] == [
        (i, {"v": i + 1.0}) for i in range(40)
    ]
    (path,) = (tmp_path / "run").glob(f"metrics.*w{int(done.stdout)}*.jsonl")
    label = path.name.removeprefix("metrics.").removesuffix(".jsonl")
    child = lines(tmp_path / "run", label=label)
    assert [(line["step"], line["metrics"]) for line in child] == [
        (i, {"x": i / 4}) for i in range(100, 120)
    ]


def test_data_loader_workers_beside_device_scalars(tmp_path: Path) -> None:
    """Workers forked while values are on their way; batches from pinned memory."""
    run_python(
        SCRIPT
        + """
from torch.utils.data import DataLoader, Dataset

class Numbers(Dataset):
    def __len__(self):
        return 64
    def __getitem__(self, index):
        return torch.tensor(float(index))

with Recorder(sys.argv[1]) as recorder:
    step = 0
    for epoch in range(2):
        loader = DataLoader(
            Numbers(), batch_size=4, num_workers=2, pin_memory=True, multiprocessing_context="fork"
        )
        for batch in loader:
            recorder.record(step, total=batch.cuda(non_blocking=True).sum(), epoch=epoch)
            step += 1
""",
        tmp_path / "run",
    )
    found = lines(tmp_path / "run")
    totals = [float(sum(range(i * 4, i * 4 + 4))) for i in range(16)] * 2
    assert [line["metrics"]["total"] for line in found] == totals


def test_a_killed_process_leaves_its_floats_and_names_what_is_lost(tmp_path: Path) -> None:
    """SIGKILL behind a busy device: `recover` writes the line with the reason `lost`."""
    run_python(
        SCRIPT
        + """
recorder = Recorder(sys.argv[1])
value = torch.tensor(2.5, device="cuda")
recorder.record(0, loss=value, lr=0.1)
assert recorder.flush()
keep_busy(3.0)
recorder.record(1, loss=value, lr=0.2)
recorder.record(2, lr=0.3)
os.kill(os.getpid(), signal.SIGKILL)
""",
        tmp_path / "run",
        returncode=-9,
    )
    recover(tmp_path / "run")
    found = lines(tmp_path / "run")
    assert [line["metrics"] for line in found] == [
        {"loss": 2.5, "lr": 0.1},
        {"loss": None, "lr": 0.2},
        {"lr": 0.3},
    ]
    assert [line.get("missing") for line in found] == [None, {"loss": "lost"}, None]
