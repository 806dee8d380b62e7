"""Each value lands in its own step: mutation, reuse of memory, streams, devices, full slots."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
from gpu_support import busy, device_stats, flushed, keep_busy, metrics
from recorded import lines

from foundry_fastlog import Recorder

torch: Any = pytest.importorskip("torch")

# torch's own warnings differ from machine to machine: shown, no errors.
pytestmark = [pytest.mark.gpu, pytest.mark.filterwarnings("default")]


def test_ten_thousand_steps_have_their_own_values(recorder: Recorder) -> None:
    count = 10_000
    base = torch.arange(count, dtype=torch.float32, device="cuda")
    for step in range(count):
        recorder.record(step, v=base[step], twice=base[step] * 2, lr=step / 7)
    found = metrics(recorder)
    assert list(found) == list(range(count))
    assert all(
        values == {"v": float(step), "twice": 2.0 * step, "lr": step / 7}
        for step, values in found.items()
    )
    stats = device_stats(recorder)
    assert (stats["scalars"], stats["waiting"], stats["missing"]) == (2 * count, 0, 0)


def test_a_value_is_that_of_the_call_though_the_tensor_changes_at_once(recorder: Recorder) -> None:
    tensor = torch.zeros((), device="cuda")
    keep_busy(0.3)
    for step in range(100):
        recorder.record(step, v=tensor)
        tensor.add_(1)
    assert busy()
    assert [values["v"] for values in metrics(recorder).values()] == list(range(100))


def test_a_value_survives_the_tensor_and_the_next_owner_of_its_memory(recorder: Recorder) -> None:
    """Freed and allocated again at once, which the caching allocator does on one stream."""
    reused = 0
    keep_busy(0.3)
    for step in range(100):
        tensor = torch.full((), float(step), device="cuda")
        recorder.record(step, v=tensor)
        address = tensor.data_ptr()
        del tensor
        other = torch.full((), -1.0, device="cuda")
        reused += other.data_ptr() == address
    assert busy()
    assert reused > 0
    assert [values["v"] for values in metrics(recorder).values()] == list(range(100))


def test_values_survive_an_allocator_under_pressure(recorder: Recorder) -> None:
    """Big blocks come and go, the cache is emptied in between."""
    kept = []
    for step in range(50):
        block = torch.full((1 << 22,), float(step), device="cuda")
        mean = block.mean()
        recorder.record(step, v=block[-1], mean=mean)
        kept.append(mean)
        del block
        if step % 10 == 9:
            torch.cuda.empty_cache()
    expected = {step: {"v": float(step), "mean": mean.item()} for step, mean in enumerate(kept)}
    assert metrics(recorder) == expected


def test_a_side_stream_is_the_one_that_is_waited_for(recorder: Recorder) -> None:
    """A value made on a side stream and recorded there, while the main stream does nothing."""
    side = torch.cuda.Stream()
    tensor = torch.zeros((), device="cuda")
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for step in range(20):
            keep_busy(0.005)
            tensor.fill_(step)
            recorder.record(step, v=tensor)
    assert [values["v"] for values in metrics(recorder).values()] == list(range(20))


def test_streams_that_finish_out_of_order_misplace_nothing(recorder: Recorder) -> None:
    """Lines of a slow stream and of a quick one, in turns, both in one step, too."""
    slow, quick = torch.cuda.Stream(), torch.cuda.Stream()
    base = torch.arange(100, dtype=torch.float32, device="cuda")
    torch.cuda.synchronize()
    with torch.cuda.stream(slow):
        keep_busy(0.4)
    for step in range(50):
        with torch.cuda.stream(slow):
            recorder.record(step, slow=base[step])
        with torch.cuda.stream(quick):
            recorder.record(step, quick=base[step + 50])
    with torch.cuda.stream(slow):
        assert busy()
    found = metrics(recorder)
    assert found == {step: {"slow": float(step), "quick": step + 50.0} for step in range(50)}


def test_threads_with_streams_of_their_own_record_together(recorder: Recorder) -> None:
    """As hooks of DistributedDataParallel and pipeline stages do: four threads, one recorder."""
    count, failures = 200, []

    def work(number: int) -> None:
        try:
            stream = torch.cuda.Stream()
            with torch.cuda.stream(stream):
                tensor = torch.zeros((), device="cuda")
                for step in range(count):
                    tensor.fill_(number * 1000 + step)
                    recorder.record(step, **{f"t{number}": tensor})
        except BaseException as error:  # noqa: BLE001 - shown by the test
            failures.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    found = metrics(recorder)
    assert len(found) == count
    for step, values in found.items():
        assert values == {f"t{number}": number * 1000.0 + step for number in range(4)}


def test_two_devices_in_one_record(recorder: Recorder, second_device: str) -> None:
    bases = [
        torch.arange(100, dtype=torch.float32, device=device) + offset
        for device, offset in (("cuda:0", 0), (second_device, 1000))
    ]
    torch.cuda.synchronize("cuda:0")
    torch.cuda.synchronize(second_device)
    for step in range(100):
        with torch.cuda.device(step % 2):
            recorder.record(step, a=bases[0][step], b=bases[1][step])
    assert torch.cuda.current_device() == 0
    found = metrics(recorder)
    assert found == {step: {"a": float(step), "b": step + 1000.0} for step in range(100)}


def test_more_values_than_slots_are_counted_and_none_is_wrong(recorder: Recorder) -> None:
    """Behind a busy device: every line is there; a value is right, or null with its reason."""
    keys = [f"k{i}" for i in range(8)]
    base = torch.arange(500 * 8, dtype=torch.float32, device="cuda").reshape(500, 8)
    rows = [dict(zip(keys, row.unbind(), strict=True)) for row in base]
    torch.cuda.synchronize()
    keep_busy(0.5)
    for step, row in enumerate(rows):
        recorder.record(step, lr=0.1, **row)
    flushed(recorder)
    found = lines(recorder.path)
    assert [line["step"] for line in found] == list(range(500))
    missing = 0
    for line in found:
        reasons = line.get("missing", {})
        missing += len(reasons)
        assert set(reasons.values()) <= {"no_slot"}
        assert line["metrics"]["lr"] == 0.1
        for i, key in enumerate(keys):
            expected = None if key in reasons else line["step"] * 8.0 + i
            assert line["metrics"][key] == expected
    stats = device_stats(recorder)
    assert (stats["missing"], stats["waiting"]) == (missing, 0)


def test_a_value_that_does_not_arrive_in_time_is_null_with_the_reason(tmp_path: Path) -> None:
    """The floats of its line are written; a late arrival harms nobody's value."""
    tensor = torch.ones((), device="cuda")
    with Recorder(tmp_path / "run", flush_interval_s=0.01, device_timeout_s=0.2) as recorder:
        recorder.record(0, loss=tensor, lr=0.1)
        flushed(recorder)
        keep_busy(1.5)
        recorder.record(1, loss=tensor, lr=0.2)
        flushed(recorder)
        assert busy()
        assert device_stats(recorder)["missing"] == 1
        torch.cuda.synchronize()
        for step in range(2, 50):
            recorder.record(step, loss=tensor.fill_(step), lr=0.3)
        flushed(recorder)
        found = lines(recorder.path)
    assert found[0]["metrics"] == {"loss": 1.0, "lr": 0.1}
    assert found[1]["metrics"] == {"loss": None, "lr": 0.2}
    assert found[1]["missing"] == {"loss": "timeout"}
    assert [line["metrics"]["loss"] for line in found[2:]] == list(range(2, 50))
    assert all("missing" not in line for line in found[2:])


def test_stats_tell_how_many_values_are_on_their_way(recorder: Recorder) -> None:
    """`waiting` counts while the device is busy, and is 0 after flush()."""
    tensor = torch.ones((), device="cuda")
    keep_busy(0.4)
    recorder.record(0, a=tensor, b=tensor, lr=0.1)
    assert busy()
    during = device_stats(recorder)
    flushed(recorder)
    assert (during["scalars"], during["waiting"], during["missing"]) == (2, 2, 0)
    assert device_stats(recorder) == {"scalars": 2, "waiting": 0, "missing": 0, "error": None}
