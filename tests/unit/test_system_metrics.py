"""System metrics: what is read of the machine, and the sampler beside the training."""

from __future__ import annotations

import inspect
import json
import logging
import os
import subprocess
import sys
import threading
import time
import types
from collections.abc import Callable
from itertools import chain, repeat
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
from fake_nvml import FakeNvml
from logging_support import run_processes
from recorded import eventually, lines, run_python

from foundry_fastlog import Recorder, SystemMetrics
from foundry_fastlog.machine import reader as system_reader
from foundry_fastlog.machine.reader import SystemReader, torch_memory

Patch, Caplog = pytest.MonkeyPatch, pytest.LogCaptureFixture
ALWAYS = {
    *("system/process_cpu_percent", "system/rss_gb", "system/memory_percent"),
    *("system/disk_used_gb", "system/disk_free_gb"),
}
GPU_KEYS = ["memory_used_gb", "memory_percent", "utilization_percent", "temperature_c", "power_w"]


@pytest.fixture(autouse=True)
def no_gpus(monkeypatch: Patch) -> None:
    """No GPU of this machine, unless a test brings its own."""
    monkeypatch.setitem(sys.modules, "pynvml", None)  # type: ignore[arg-type]
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


@pytest.mark.parametrize("source", ["psutil", "proc"])
def test_figures_of_the_machine(monkeypatch: Patch, tmp_path: Path, source: str) -> None:
    """With psutil and without it the same figures, which agree with other sources."""
    if source == "proc":
        if not Path("/proc/self/statm").exists():
            pytest.skip("no /proc here")
        monkeypatch.setitem(sys.modules, "psutil", None)  # type: ignore[arg-type]
    reader = SystemReader(tmp_path)
    # Busy, until the clocks, of 10 ms, have moved.
    while "system/cpu_percent" not in (figures := reader.read()):
        pass
    assert set(figures) == ALWAYS | {"system/cpu_percent"}
    assert all(isinstance(value, float) for value in figures.values())
    assert 0 <= figures["system/cpu_percent"] <= 100
    # One thread was busy; how much of a core it got in that moment is up to the machine.
    assert 0 < figures["system/process_cpu_percent"] < 150
    assert 0 < figures["system/memory_percent"] < 100
    size = os.statvfs(tmp_path)
    free = pytest.approx(size.f_bavail * size.f_frsize / 1e9, rel=0.05)
    assert figures["system/disk_free_gb"] == free


def test_the_resident_set_is_this_processes(tmp_path: Path) -> None:
    """With each source, in a process of its own: here, earlier tests' memory may be given back."""
    run_python(
        """
import mmap, os, sys
from foundry_fastlog.machine.reader import SystemReader
for source in ["psutil"] + ["proc"] * os.path.exists("/proc/self/statm"):
    if source == "proc":
        sys.modules["psutil"] = None
    reader = SystemReader(sys.argv[1])
    before = reader.read()["system/rss_gb"]
    with mmap.mmap(-1, 200_000_000) as held:
        for at in range(0, len(held), 4096):
            held[at] = 1
        assert 0.15 < reader.read()["system/rss_gb"] - before < 0.25, source
""",
        tmp_path,
    )


def test_both_sources_agree(monkeypatch: Patch) -> None:
    """Psutil and /proc give the same memory and, but for a tick, the same CPU clocks."""
    psutil = pytest.importorskip("psutil")
    if not Path("/proc/self/statm").exists():
        pytest.skip("no /proc here")
    theirs, ours = system_reader._PsutilProbe(psutil), system_reader._ProcProbe()
    assert ours.memory()[1] == theirs.memory()[1]
    ticks = os.sysconf("SC_CLK_TCK")
    ours_busy, ours_all = ours.cpu_seconds()
    theirs_busy, theirs_all = theirs.cpu_seconds()
    assert ours_all / ticks == pytest.approx(theirs_all, rel=1e-3)
    assert ours_busy / ticks == pytest.approx(theirs_busy, rel=1e-3)


def test_a_machine_with_neither_source(monkeypatch: Patch, tmp_path: Path) -> None:
    """Without psutil and /proc there is what Python itself knows; a lost disk is left out."""
    monkeypatch.setitem(sys.modules, "psutil", None)  # type: ignore[arg-type]
    monkeypatch.setattr(system_reader, "_PROC", tmp_path)
    reader = SystemReader(tmp_path / "absent")
    assert set(reader.read()) == {"system/process_cpu_percent"}
    monkeypatch.setattr(time, "monotonic", lambda: 5.0)
    reader.read()
    assert reader.read() == {}  # no time has passed: no percentage


def test_a_forked_child_reads_its_own_process(tmp_path: Path) -> None:
    reader = SystemReader(tmp_path)
    reader.read()

    def work() -> None:
        held = bytearray(os.urandom(1)) * 300_000_000
        assert reader.read()["system/rss_gb"] > 0.3
        assert held
        reader.close()

    run_processes(work, ())


def test_the_child_s_part_in_this_process(monkeypatch: Patch, tmp_path: Path) -> None:
    """A reader of another process opens everything anew, and leaves the other's driver alone."""
    nvml = fake_nvml(monkeypatch)
    reader = SystemReader(tmp_path)
    reader.read()
    with monkeypatch.context() as patch:
        patch.setattr(os, "getpid", lambda: 1)
        reader.close()
        assert nvml.closed == 0
        reader.read()
        assert nvml.opened == 2
        reader.close()
        assert nvml.closed == 1


@pytest.mark.parametrize("initialized", [True, False])
def test_memory_of_torch(monkeypatch: Patch, initialized: bool) -> None:
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    assert torch_memory() == {}
    assert "torch" not in sys.modules
    cuda = types.SimpleNamespace(
        is_initialized=lambda: initialized,
        memory_allocated=lambda: 1_500_000_000,
        memory_reserved=lambda: 2_000_000_000,
    )
    monkeypatch.setitem(sys.modules, "torch", types.SimpleNamespace(cuda=cuda))  # type: ignore[arg-type]
    expected = {"system/gpu_memory_allocated": 1.5, "system/gpu_memory_reserved": 2.0}
    assert torch_memory() == (expected if initialized else {})


def fake_nvml(monkeypatch: Patch, **options: Any) -> FakeNvml:
    nvml = FakeNvml(**options)
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    return nvml


def gpu_figures(reader: SystemReader) -> dict[str, float]:
    prefix = "system/gpu"
    return {k.removeprefix(prefix): v for k, v in reader.read().items() if k.startswith(prefix)}


def test_the_fake_is_like_the_real_module(monkeypatch: Patch) -> None:
    """nvidia-ml-py has every name that the fake has, with the same parameters and fields."""
    monkeypatch.delitem(sys.modules, "pynvml")
    real = pytest.importorskip("pynvml")
    used = [name for name in vars(FakeNvml) if name.startswith("nvml")]
    assert len(used) == 9
    for name in used:
        ours = list(inspect.signature(getattr(FakeNvml, name)).parameters)[1:]
        assert list(inspect.signature(getattr(real, name)).parameters) == ours, name
    for name in (name for name in vars(FakeNvml) if name.startswith("NVML_")):
        assert getattr(real, name) == getattr(FakeNvml, name)
    assert str(real.NVMLError(FakeNvml.NVML_ERROR_NOT_SUPPORTED)) == "Not Supported"
    memory = dict(real.c_nvmlMemory_t._fields_)
    assert {"total", "free", "used"} <= set(memory)
    assert {"gpu", "memory"} <= set(dict(real.c_nvmlUtilization_t._fields_))


def test_figures_of_gpus(monkeypatch: Patch, tmp_path: Path) -> None:
    """Memory, utilisation, temperature and power of each GPU; close() lets go of the driver."""
    nvml = fake_nvml(monkeypatch)
    reader = SystemReader(tmp_path)
    figures = gpu_figures(reader)
    names = [f"{gpu}/{key}" for gpu in (0, 1) for key in GPU_KEYS]
    wanted = (20.0, 25.0, 93.0, 61.0, 412.5, 40.0, 50.0, 93.0, 61.0, 412.5)
    assert figures == dict(zip(names, wanted, strict=True))
    assert all(type(value) is float for value in figures.values())
    reader.close()
    reader.close()
    assert (nvml.opened, nvml.closed) == (1, 1)
    assert gpu_figures(reader) == {}


@pytest.mark.parametrize("lacking", ["memory", "utilization", "power", "index 0"])
def test_what_a_gpu_does_not_support(monkeypatch: Patch, tmp_path: Path, lacking: str) -> None:
    """A figure that a GPU does not give is left out, and a GPU without permission."""
    nvml = fake_nvml(monkeypatch)
    nvml.unsupported = {lacking, "nvmlShutdown"}
    reader = SystemReader(tmp_path)
    gpus = ("1",) if lacking == "index 0" else ("0", "1")
    keys = [key for key in GPU_KEYS if not key.startswith(lacking)]
    assert set(gpu_figures(reader)) == {f"{gpu}/{key}" for gpu in gpus for key in keys}
    reader.close()


def test_without_a_driver(monkeypatch: Patch, tmp_path: Path) -> None:
    """nvidia-ml-py on a machine without a driver: no figures, and no question asked again."""
    nvml = fake_nvml(monkeypatch)
    nvml.unsupported = {"nvmlInit"}
    reader = SystemReader(tmp_path)
    assert gpu_figures(reader) == {}
    nvml.unsupported = set()
    assert gpu_figures(reader) == {}
    assert set(reader.read()) >= ALWAYS
    reader.close()
    assert nvml.closed == 0


@pytest.mark.parametrize(
    ("visible", "local_rank", "expected"),
    [
        *((None, rank, {"0": 20.0, "1": 40.0}) for rank in (None, "x")),
        *((nothing, None, {}) for nothing in ("", "-1", "7")),
        ("1,0", None, {"0": 40.0, "1": 20.0}),
        *(("1", None, {"0": 40.0}), ("0,-1,1", None, {"0": 20.0})),
        ("GPU-bbbb, GPU-aaaa", None, {"0": 40.0, "1": 20.0}),
        ("GPU-gone,GPU-bbbb", None, {"1": 40.0}),
        *((None, "1", {"1": 40.0}), ("1,0", "1", {"1": 20.0}), ("1", "1", {"0": 40.0})),
    ],
)
def test_the_gpus_of_this_process(
    monkeypatch: Patch, tmp_path: Path, visible: Any, local_rank: Any, expected: dict[str, float]
) -> None:
    """GPUs are numbered as CUDA numbers them here; a rank has its own alone."""
    fake_nvml(monkeypatch)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    if local_rank is not None:
        monkeypatch.setenv("LOCAL_RANK", local_rank)
    figures = gpu_figures(SystemReader(tmp_path))
    found = {k.partition("/")[0]: v for k, v in figures.items() if k.endswith("memory_used_gb")}
    assert found == expected


@pytest.mark.gpu
def test_a_real_gpu(monkeypatch: Patch, tmp_path: Path) -> None:
    monkeypatch.undo()
    pytest.importorskip("pynvml")
    figures = gpu_figures(SystemReader(tmp_path))
    smi = subprocess.run(
        ["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits", "--id=0"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert figures["0/memory_used_gb"] == pytest.approx(int(smi.stdout) * 2**20 / 1e9, abs=0.8)
    assert 0 <= figures["0/utilization_percent"] <= 100


def test_samples_say_the_step(recorder: Recorder) -> None:
    with SystemMetrics(recorder, 0.01, step=lambda: 42) as system:
        assert system.running
        recorder.record(42, loss=1.0)
        eventually(lambda: system.samples >= 3)
    assert not system.running
    recorder.close()
    found = lines(recorder.path, "system")
    assert len(found) == system.samples
    assert {line["step"] for line in found} == {42}
    assert set(found[-1]["system"]) >= ALWAYS
    assert [line["metrics"] for line in lines(recorder.path)] == [{"loss": 1.0}]
    assert system.errors == 0


@pytest.mark.parametrize("step", [None, lambda: None])
def test_samples_without_a_step(recorder: Recorder, step: Callable[[], int | None] | None) -> None:
    """Figures of a moment need none, and Recorder.log() counts its steps undisturbed."""
    recorder.log({"loss": 1.0})
    with SystemMetrics(recorder, 0.01, step=step) as system:
        eventually(lambda: system.samples >= 2)
    recorder.log({"loss": 2.0})
    recorder.close()
    assert [line["step"] for line in lines(recorder.path)] == [0, 1]
    found = lines(recorder.path, "system")
    assert len(found) == system.samples
    assert "step" not in found[0]
    assert set(found[0]["system"]) >= ALWAYS


def test_start_and_stop_may_be_repeated(recorder: Recorder) -> None:
    """One thread at most; after stop() it may be started again."""
    system = SystemMetrics(recorder, 0.01)
    system.stop()
    assert not system.running
    before = threading.active_count()
    assert system.start().start() is system
    assert threading.active_count() == before + 1
    system.stop()
    system.stop()
    assert threading.active_count() == before
    taken = system.samples
    system.start()
    eventually(lambda: system.samples > taken)
    system.stop()


def test_the_first_sample_comes_early(recorder: Recorder, monkeypatch: Patch) -> None:
    monkeypatch.setattr("foundry_fastlog.machine.sampler._FIRST_S", 0.01)
    with SystemMetrics(recorder, 3600) as system:
        eventually(lambda: system.samples == 1)


def test_read_once_records_nothing(recorder: Recorder) -> None:
    system = SystemMetrics(recorder)
    assert ALWAYS - {"system/process_cpu_percent"} <= set(system.read_once())
    assert set(system.read_once()) >= ALWAYS
    recorder.close()
    assert lines(recorder.path) == []
    assert system.samples == 0


def warnings(caplog: Caplog) -> list[str]:
    return [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]


def test_a_sample_that_fails(recorder: Recorder, caplog: Caplog) -> None:
    """It is told once and counted, and sampling goes on."""
    step = Mock(side_effect=chain([5, 10, ZeroDivisionError], repeat(5)))
    with SystemMetrics(recorder, 0.01, step=step) as system:
        eventually(lambda: system.samples >= 3)
    assert system.errors == 1
    with SystemMetrics(recorder, 0.01, step=lambda: "x") as system:  # type: ignore[arg-type, return-value]
        eventually(lambda: system.errors >= 3)
    assert system.samples == 0
    for message in (told := warnings(caplog)):
        assert "Training is not affected" in message
    assert len(told) == 2
    assert "ZeroDivisionError" in told[0]


def test_a_closed_recorder_ends_the_sampler(recorder: Recorder, caplog: Caplog) -> None:
    """Closing the recorder first is no error: the thread ends by itself."""
    system = SystemMetrics(recorder, 0.01).start()
    eventually(lambda: system.samples >= 1)
    recorder.close()
    eventually(lambda: not system.running)
    assert system.errors == 0
    assert warnings(caplog) == []
    system.stop()


def test_stop_from_within_a_sample(recorder: Recorder) -> None:
    system = SystemMetrics(recorder, 0.01, step=lambda: [system.stop(), 1][1])
    system.start()
    eventually(lambda: not system.running)
    assert system.samples == 1


def test_a_forked_child(recorder: Recorder) -> None:
    """A forked child has no sampler; it may start one, which writes to the child's files."""
    system = SystemMetrics(recorder, 0.01, step=lambda: 1).start()
    eventually(lambda: system.samples >= 1)

    def work() -> None:
        assert not system.running
        system.stop()
        before = system.samples
        system.start()
        eventually(lambda: system.samples >= before + 2)
        system.stop()
        recorder.close()

    (child,) = run_processes(work, ())
    assert system.running
    system.stop()
    recorder.close()
    (own,) = recorder.path.glob(f"system.w{child}*.jsonl")
    samples = [json.loads(line) for line in own.read_text().splitlines()]
    assert len(samples) >= 2
    assert all("system/rss_gb" in sample["system"] for sample in samples)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"interval_s": "10"}, TypeError, "interval_s must be a number, got str"),
        ({"interval_s": True}, TypeError, "interval_s must be a number, got bool"),
        ({"interval_s": 0}, ValueError, "interval_s must be between 0.01 and 86400, got 0"),
        ({"interval_s": float("nan")}, ValueError, "interval_s must be between"),
        ({"step": 5}, TypeError, "step must be a function or None, got int"),
    ],
)
def test_wrong_arguments(recorder: Recorder, options: Any, error: Any, message: str) -> None:
    with pytest.raises(error, match=message):
        SystemMetrics(recorder, **options)


def test_figures_that_cannot_be_recorded(recorder: Recorder) -> None:
    for figures, message in (
        (5, "figures must be a mapping, got int"),
        ({1: 2.0}, "names of figures must be str, got 1"),
        ({"x": [1]}, "x"),
    ):
        with pytest.raises(TypeError, match=message):
            recorder.system(figures)  # type: ignore[arg-type]
    with pytest.raises(OverflowError):
        recorder.system({"x": 1.0}, step=1 << 63)
    with pytest.raises(TypeError):
        recorder.rewind("3")  # type: ignore[arg-type]
    assert recorder.system({str(n): "x" * 5000 for n in range(500)})  # of several lines
    assert recorder.rewind(-(1 << 63))
    assert recorder.log({"loss": 1.0})
    recorder.close()
    found = lines(recorder.path, "system")
    assert len(found) > 1
    assert sum(len(line["system"]) for line in found) == 500


def test_importing_loads_neither_psutil_nor_pynvml() -> None:
    """The module costs nothing until a reader is made."""
    code = "import sys, foundry_fastlog.machine.sampler as m\nassert m.SystemMetrics\n"
    run_python(code + "assert not {'psutil', 'pynvml', 'torch'} & set(sys.modules)")
