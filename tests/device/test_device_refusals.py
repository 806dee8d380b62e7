"""What is refused, in which words; and tensors that show no table that is known here."""

from __future__ import annotations

import gc
import re
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from device import fakes
from device.alone import alone, at_once
from device.driving import losses, one_line, working_stream
from device.fakes import FakeDriver as Cuda
from recorded import lines

from foundry_fastlog import Recorder
from foundry_fastlog.recording import device_tensors

KINDS = ["FakeTensor", "LegacyFakeTensor", "FutureFakeTensor", "OwningOnlyFakeTensor"]
BY_PYTHON = KINDS[1:]


def without_torch(cuda: Cuda, stream: int) -> None:
    """Answer what the way by Python asks torch for."""
    device_tensors._cuda_stream = lambda index: stream
    device_tensors._cuda_type = lambda: cuda.device_type


def refused(recorder: Recorder, value: Any, words: str) -> None:
    """Check that a value is refused, with its key, its type and what to do."""
    kind = type(value).__name__
    with pytest.raises(TypeError, match=rf"^value of 'loss' has type [\w.]*{kind}, which") as seen:
        recorder.record(0, lr=0.1, loss=value)
    assert re.search(words, str(seen.value)), str(seen.value)


@pytest.mark.parametrize("kind", KINDS)
@alone
def test_what_is_no_single_number_is_refused(
    cuda: Cuda, fake_tensor: ModuleType, run: Path, kind: str
) -> None:
    """Each with words of its own; nothing is written, copied or kept."""
    stream = working_stream(cuda)
    without_torch(cuda, stream)
    make = getattr(fake_tensor, kind)
    live = fake_tensor.live()
    with Recorder(run) as recorder:
        several = cuda.tensor(bytes(12), shape=(3,), kind=make)
        refused(recorder, several, r"more than one element: pass a scalar such as value.mean\(\)")
        empty = cuda.tensor(0.0, shape=(0,), kind=make)
        refused(recorder, empty, "no element")
        refused(recorder, cuda.tensor(1j, "complex64", kind=make), r"pass value.abs\(\)")
        refused(recorder, cuda.tensor(1, "fp4", kind=make), "not a single real number")
        address = cuda.malloc(0, 1.0)
        odd = [(99, 8, 1), (2, 128, 1), (0, 4, 1), (4, 32, 1), (10, 16, 1), (6, 32, 1)]
        for dtype in odd:
            refused(recorder, make(address, dtype, (fakes.CUDA, 0)), "not a single real number")
        refused(recorder, cuda.tensor(1.0, kind=make, null_data=True), "no value|no memory")
        # A view of a wrapper without memory: its address is what it begins at, behind null.
        for device in (fakes.CPU, fakes.CUDA):
            for offset in (4, 4092):
                refused(recorder, make(offset, (2, 32, 1), (device, 0)), "no value|no memory")
        if kind == "FakeTensor":  # lanes of DLPack, which torch does not have
            refused(
                recorder, make(address, (2, 16, 2), (fakes.CUDA, 0)), "not a single real number"
            )
        assert recorder.stats()["calls"] == 0
    assert lines(run) == []
    assert cuda.count("cuMemcpyDtoHAsync_v2") == cuda.count("cuEventRecord") == 0
    del several, empty
    gc.collect()
    assert fake_tensor.live() == live
    assert fake_tensor.item_calls() == 0


@alone
def test_an_exchange_that_raises_is_refused(cuda: Cuda, fake_tensor: ModuleType, run: Path) -> None:
    """But what is no Exception goes through as it is."""
    working_stream(cuda)

    class Sparse(fake_tensor.FakeTensor):  # type: ignore[misc, name-defined]
        """A tensor of another layout."""

    with Recorder(run) as recorder:
        for error in (BufferError, RuntimeError, NotImplementedError):
            value = cuda.tensor(1.0, kind=Sparse, raises=error)
            refused(recorder, value, r"no memory of its own .* pass value.item\(\)")
        with pytest.raises(KeyboardInterrupt):
            recorder.record(0, loss=cuda.tensor(1.0, raises=KeyboardInterrupt))
        recorder.record(1, loss=cuda.tensor(1.5))
    assert one_line(run)["metrics"] == {"loss": 1.5}


@alone
def test_a_later_refusal_copies_nothing(cuda: Cuda, fake_tensor: ModuleType, run: Path) -> None:
    """All arguments are looked at before the first is put under way."""
    working_stream(cuda)
    working_stream(cuda, 1)
    good = {"a": cuda.tensor(1.0), "b": cuda.tensor(2.0, device=1)}
    bad: list[tuple[Any, type[Exception]]] = [
        (cuda.tensor(bytes(8), shape=(2,)), TypeError),
        ([1], TypeError),
        (2**70, OverflowError),
        (fake_tensor.FakeTensor(cuda.malloc(0, 1.0), (2, 32, 1), (fakes.CUDA, 99)), ValueError),
    ]
    with Recorder(run) as recorder:
        for value, error in bad:
            with pytest.raises(error):
                recorder.record_dict(0, {**good, "c": value})
        for epoch in (cuda.tensor(1.0), "x"):
            with pytest.raises(TypeError, match="epoch must be an int, a float or None"):
                recorder.record_dict(0, {**good, "epoch": epoch})
        with pytest.raises(TypeError):
            recorder.record(cuda.tensor(1.0), **good)
        nothing = {"scalars": 0, "waiting": 0, "missing": 0, "error": None}
        assert recorder.stats()["device"] == nothing
    assert lines(run) == []
    assert cuda.count("cuMemcpyDtoHAsync_v2") == cuda.count("cuEventRecord") == 0


# ---- wrappers ------------------------------------------------------------------------------------


def d_tensor(base: type, local: Any, *placements: str) -> Any:
    """Make a tensor that is called DTensor, whose memory is another's."""

    class DTensor(base):  # type: ignore[misc, valid-type]
        def to_local(self) -> Any:
            return local

    made = DTensor(0, (2, 32, 1), (fakes.CUDA, 0), null_data=True)
    made.placements = [
        SimpleNamespace(is_replicate=lambda name=name: name == "Replicate()") for name in placements
    ]
    return made


@pytest.mark.parametrize("kind", ["FakeTensor", "LegacyFakeTensor"])
@alone
def test_a_partial_dtensor_is_refused_and_a_replicated_one_is_local(
    cuda: Cuda, fake_tensor: ModuleType, run: Path, kind: str
) -> None:
    """To gather it, all ranks had to take part: a call that one rank makes would hang."""
    stream = working_stream(cuda)
    without_torch(cuda, stream)
    base = getattr(fake_tensor, kind)
    local = cuda.tensor(1.5, stream=stream)
    with Recorder(run) as recorder:
        for placements in (["Partial(sum)"], ["Shard(dim=0)"], ["Replicate()", "Partial(sum)"]):
            value = d_tensor(base, local, *placements)
            refused(recorder, value, r"DTensor with the placements .*value.full_tensor\(\)")
        assert recorder.record(1, loss=d_tensor(base, local, "Replicate()", "Replicate()"))
        inner = d_tensor(base, d_tensor(base, local, "Partial(sum)"), "Replicate()")
        with pytest.raises(TypeError, match=r"'loss' has type .*without memory|placements"):
            recorder.record(2, loss=inner)
    assert one_line(run)["metrics"] == {"loss": 1.5}
    assert fake_tensor.item_calls() == 0


@pytest.mark.parametrize("method", ["wait", "trigger_wait"])
@alone
def test_the_result_of_a_collective_is_the_tensor_behind_it(
    cuda: Cuda, fake_tensor: ModuleType, run: Path, method: str
) -> None:
    """Waiting there means that the stream waits, not the caller."""
    stream = working_stream(cuda)
    local = cuda.tensor(2.5, stream=stream)
    kind = type("AsyncCollectiveTensor", (fake_tensor.FakeTensor,), {method: lambda self: local})
    with Recorder(run) as recorder:
        recorder.record(0, loss=kind(0, (2, 32, 1), (fakes.CUDA, 0), null_data=True))
    assert one_line(run)["metrics"] == {"loss": 2.5}


@pytest.mark.parametrize("kind", ["FakeTensor", "LegacyFakeTensor"])
@alone
def test_a_lazy_sign_is_applied(cuda: Cuda, fake_tensor: ModuleType, run: Path, kind: str) -> None:
    """As in `z.conj().imag`: the memory has the other sign."""
    stream = working_stream(cuda)
    without_torch(cuda, stream)
    address = cuda.allocate(0, 8)
    cuda.store_now(address, 1 - 2.5j, "complex64")

    class Imaginary(getattr(fake_tensor, kind)):  # type: ignore[misc]
        layout = "strided"

        def _is_zerotensor(self) -> bool:
            return False

        def resolve_neg(self) -> Any:
            return cuda.tensor(2.5, stream=stream)

    sys.modules["torch"] = SimpleNamespace(  # type: ignore[assignment]
        Tensor=fake_tensor.FakeTensor if kind == "FakeTensor" else Imaginary, strided="strided"
    )
    with Recorder(run) as recorder:
        where = (address + 4, (2, 32, 1), (fakes.CUDA, 0))
        first = (address, *where[1:])  # as a view of a whole tensor, which lies where memory begins
        neg, plain = Imaginary(*where, is_neg=True), Imaginary(*where)
        recorder.record(0, neg=neg, plain=plain, first=Imaginary(*first, is_neg=True))
    assert one_line(run)["metrics"] == {"neg": 2.5, "plain": -2.5, "first": 2.5}


# ---- the way by Python: torch 2.4 to 2.9, and tables of other versions ---------------------------


@pytest.mark.parametrize("kind", BY_PYTHON)
@alone
def test_tensors_without_a_usable_table_take_the_same_way(
    cuda: Cuda, fake_tensor: ModuleType, run: Path, kind: str
) -> None:
    """Only the questions about them are asked in Python: snapshots and no waiting, too."""
    stream = working_stream(cuda)
    without_torch(cuda, stream)
    make = getattr(fake_tensor, kind)
    with Recorder(run) as recorder, cuda.hanging(stream), at_once(2.0):
        for step in range(100):
            loss = cuda.tensor(step / 2, "bf16", stream=stream, kind=make, requires_grad=True)
            flag = cuda.tensor(step % 2 == 0, "bool", stream=stream, kind=make)
            recorder.record(step, loss=loss, ok=flag, cpu=fakes.host_tensor(step, kind=make))
            cuda.store(stream, loss.data_ptr(), -1.0, "bf16")
    assert [line["metrics"] for line in lines(run)] == [
        {"loss": step / 2, "ok": step % 2 == 0, "cpu": float(step)} for step in range(100)
    ]
    assert cuda.count("synchronisations") == cuda.count("pageable_copies") == 0
    assert fake_tensor.item_calls() == 0


@alone
def test_a_newer_table_may_hide_an_older(cuda: Cuda, fake_tensor: ModuleType, run: Path) -> None:
    """Which is used, and Python is asked nothing."""
    stream = working_stream(cuda)
    device_tensors.describe_tensor = None  # type: ignore[assignment]
    with Recorder(run) as recorder:
        recorder.record(0, loss=cuda.tensor(1.5, stream=stream, kind=fake_tensor.ChainedFakeTensor))
        with pytest.raises(TypeError, match="'loss' has type FutureFakeTensor"):
            recorder.record(1, loss=cuda.tensor(1.5, kind=fake_tensor.FutureFakeTensor))
    assert one_line(run)["metrics"] == {"loss": 1.5}


@alone
def test_answers_without_sense_are_refusals(cuda: Cuda, fake_tensor: ModuleType, run: Path) -> None:
    """With the key, and the fault as its cause."""
    working_stream(cuda)
    answers: list[Any] = [None, (1, 2, 3), ("x",) * 6]
    device_tensors.describe_tensor = lambda value: answers.pop()
    with Recorder(run) as recorder:
        for _ in range(3):
            refused(recorder, cuda.tensor(1.5, kind=fake_tensor.LegacyFakeTensor), "")
    assert (answers, lines(run)) == ([], [])


@alone
def test_hundreds_of_types_are_told_apart(cuda: Cuda, fake_tensor: ModuleType, run: Path) -> None:
    """More than are remembered; types that come and go are not taken for one another."""
    working_stream(cuda)
    with Recorder(run) as recorder:
        for i in range(600):
            kind = type(f"T{i}", (fake_tensor.FakeTensor,), {})
            assert recorder.record(i, loss=cuda.tensor(float(i), kind=kind))
            with pytest.raises(TypeError, match=rf"has type P{i}"):
                recorder.record(i, loss=type(f"P{i}", (), {})())
    assert losses(run) == [float(i) for i in range(600)]
