"""Real tensors of torch, on the CPU: each value as item() gives it, by the table and by Python."""

from __future__ import annotations

import gc
import math
import weakref
from typing import Any

import pytest
from recorded import lines

from foundry_fastlog import Recorder
from foundry_fastlog.recording import device_tensors

torch: Any = pytest.importorskip("torch")


class OldTensor(torch.Tensor):  # type: ignore[misc]
    """A tensor without the table: as all were before torch 2.10."""

    __dlpack_c_exchange_api__ = None


@pytest.fixture(params=["table", "python"])
def prepared(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Any:
    """What makes a tensor one of the way under test, and checks that it is taken."""
    asked: list[Any] = []
    real = device_tensors.describe_tensor

    def describe(value: Any) -> Any:
        asked.append(type(value))
        return real(value)

    monkeypatch.setattr(device_tensors, "describe_tensor", describe)
    by_python = request.param == "python"

    def prepare(tensor: Any) -> Any:
        return tensor.as_subclass(OldTensor) if by_python else tensor

    yield prepare
    if hasattr(torch.Tensor, "__dlpack_c_exchange_api__"):
        assert bool(asked) == by_python


def recorded_value(recorder: Recorder, value: Any) -> Any:
    """Record a value; return what is in its line, NaN and infinities as floats."""
    assert recorder.record(0, v=value)
    assert recorder.flush(20)
    line = lines(recorder.path)[-1]
    return float(line["nonfinite"]["v"]) if "nonfinite" in line else line["metrics"]["v"]


def same(found: Any, expected: Any) -> bool:
    """Compare type and value; zeros have a sign, and all NaNs are one."""
    return type(found) is type(expected) and repr(found) == repr(expected)


DTYPES = [
    *("float64", "float32", "float16", "bfloat16", "bool"),
    *("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"),
    *("float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz", "float8_e8m0fnu"),
]


@pytest.mark.parametrize("dtype", DTYPES)
def test_each_type_is_what_item_gives(recorder: Recorder, prepared: Any, dtype: str) -> None:
    """Of no dimension and of one element, in the middle of a tensor."""
    kind = getattr(torch, dtype, None)
    if kind is None:
        pytest.skip("this torch has no such type")
    values = torch.tensor([0.0, 1.0, 2.0, 4.0, 0.5, 96.0]).to(kind)
    for i in range(len(values)):
        expected = values[i].item()
        assert same(recorded_value(recorder, prepared(values[i])), expected)
        assert same(recorded_value(recorder, prepared(values[i : i + 1])), expected)
        assert same(recorded_value(recorder, prepared(values[i].reshape(1, 1, 1))), expected)


def test_special_floats(recorder: Recorder, prepared: Any) -> None:
    for value in (math.nan, math.inf, -math.inf, -0.0, 5e-324, 1e308):
        for kind in (torch.float64, torch.float32, torch.float16, torch.bfloat16):
            tensor = torch.tensor(value, dtype=torch.float64).to(kind)
            assert same(recorded_value(recorder, prepared(tensor)), tensor.item())


def test_tensors_of_a_graph_are_detached(recorder: Recorder, prepared: Any) -> None:
    """Parameters, leaves, results, gradients; the graph goes on."""
    weight = torch.nn.Parameter(torch.tensor(2.0))
    loss = prepared(weight * 3)
    assert loss.requires_grad
    assert recorded_value(recorder, loss) == 6.0
    loss.backward()
    assert recorded_value(recorder, prepared(weight)) == 2.0
    assert recorded_value(recorder, prepared(weight.grad)) == 3.0
    with torch.inference_mode():
        assert recorded_value(recorder, prepared(torch.tensor(1.5) * 2)) == 3.0
    # Classes of its own, and those that a program derives.
    kind = type("Wrapped", (torch.Tensor,), {})
    made = [torch.nn.Parameter, torch.nn.Buffer, lambda tensor: tensor.as_subclass(kind)]
    for number, make in enumerate(made):
        assert recorded_value(recorder, make(torch.tensor(number + 0.5))) == number + 0.5


def test_views_are_read_where_they_lie(recorder: Recorder, prepared: Any) -> None:
    """Slices, transposed, expanded, with steps and in reverse order of memory."""
    base = torch.arange(24, dtype=torch.float32).reshape(2, 3, 4)
    for view in (
        base[1, 2, 3],
        base.permute(2, 1, 0)[3:4, 1:2, 0:1],
        base[:, ::2][1, 1, 1],
        base.diagonal()[3, 1],
    ):
        assert same(recorded_value(recorder, prepared(view)), view.item())
    expanded = torch.tensor(7.5).expand(1, 1)
    assert recorded_value(recorder, prepared(expanded)) == 7.5


def test_the_sign_of_a_conjugated_part_is_right(recorder: Recorder, prepared: Any) -> None:
    """`conj().imag` has the other sign in memory; its real part and copies have not."""
    import numpy as np

    for kind in (torch.complex64, torch.complex128):
        for z in torch.tensor([1 + 2j, -3 - 4j, 0.5j], dtype=kind):
            part = z.conj().imag
            assert part.is_neg()
            assert same(recorded_value(recorder, prepared(part)), part.item())
            assert same(recorded_value(recorder, prepared(part.detach())), part.item())
            assert same(recorded_value(recorder, prepared(part.reshape(1))), part.item())
            assert same(recorded_value(recorder, prepared(part.clone())), part.item())
            assert same(recorded_value(recorder, prepared(z.conj().real)), z.real.item())
            assert same(recorded_value(recorder, prepared(z.imag)), z.imag.item())
    # A complex number that lies at half of its size, as in a packed record of numpy's.
    rows = np.zeros(2, dtype=[("a", "f4"), ("z", "c8"), ("b", "f4")])
    rows["z"] = [1 + 2j, 3 + 4j]
    part = torch.from_numpy(rows["z"])[1].conj().imag
    assert part.is_neg()
    assert recorded_value(recorder, prepared(part)) == part.item() == -4.0


def test_a_zero_tensor_is_zero(recorder: Recorder, prepared: Any) -> None:
    zero = torch._efficientzerotensor((), dtype=torch.float32)
    assert zero._is_zerotensor()
    assert same(recorded_value(recorder, prepared(zero)), 0.0)
    zero = torch._efficientzerotensor((1,), dtype=torch.int64)
    assert same(recorded_value(recorder, prepared(zero)), 0)


def refused_tensors() -> dict[str, tuple[Any, str]]:
    """Return tensors that are no single number that could be read, with words of the message."""
    indices, value = torch.tensor([[0], [0]]), torch.tensor([1.0])
    made = {
        "several": (torch.zeros(2), "more than one element"),
        "none": (torch.zeros(0), "no element"),
        "complex": (torch.tensor(1j), "not a single real number|not a single real"),
        "meta": (torch.tensor(1.0, device="meta"), "no value"),
        "sparse": (torch.sparse_coo_tensor(indices, value, (1, 1)), "no memory"),
        "csr": (torch.eye(1).to_sparse_csr(), "no memory"),
        "quantized": (torch.quantize_per_tensor(torch.tensor(1.0), 0.1, 0, torch.qint8), ""),
        "nested": (torch.nested.nested_tensor([torch.zeros(1)]), "no memory|reading it failed"),
    }
    if hasattr(torch, "float4_e2m1fn_x2"):
        packed = torch.zeros(1, dtype=torch.uint8).view(torch.float4_e2m1fn_x2)
        made["fp4"] = (packed, "not a single real number|no memory|not a single real")
    return made


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")
def test_other_tensors_are_refused(recorder: Recorder) -> None:
    for value, words in refused_tensors().values():
        with pytest.raises(TypeError, match=rf"'v' has type [\w.]*Tensor, which.*({words})"):
            recorder.record(0, v=value)
    recorder.close()
    assert lines(recorder.path) == []


def test_a_tensor_of_a_trace_is_refused(recorder: Recorder) -> None:
    """FakeTensor, as within torch.compile and torch.export."""
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode() as mode:
        for value in (torch.tensor(1.0), mode.from_tensor(torch.ones(1))):
            with pytest.raises(TypeError, match=r"'v' has type .*FakeTensor.*no value: record"):
                recorder.record(0, v=value)


def test_a_tensor_inside_vmap_is_refused(recorder: Recorder) -> None:
    """It stands for many. So are those of torch.func.grad, which would keep a level alive."""
    refused: list[str] = []

    def loss(x: Any) -> Any:
        try:
            recorder.record(0, v=x.sum())
        except TypeError as error:
            refused.append(str(error))
        return x.sum()

    torch.vmap(loss)(torch.ones(3, 2))
    assert len(refused) == 1
    assert "torch.func" in refused[0]
    torch.func.grad(loss)(torch.ones(2))
    recorder.close()
    values = [line["metrics"]["v"] for line in lines(recorder.path)]
    assert len(refused) + len(values) == 2
    assert values in ([], [2.0])


def test_a_functional_tensor_is_refused_or_right(recorder: Recorder) -> None:
    """As within AOT autograd's tracing."""
    value = torch._to_functional_tensor(torch.tensor(2.5))
    try:
        found = recorded_value(recorder, value)
    except TypeError as error:
        assert "'v' has type" in str(error)  # noqa: PT017 - either is right
    else:
        assert found == 2.5


def test_nothing_of_a_tensor_is_kept(recorder: Recorder, prepared: Any) -> None:
    value = prepared(torch.ones(10, requires_grad=True).sum())
    gone = weakref.ref(value)
    recorder.record(0, v=value)
    del value
    gc.collect()
    assert gone() is None


@pytest.mark.filterwarnings("ignore")
def test_a_call_in_a_compiled_region_breaks_the_graph(recorder: Recorder) -> None:
    """And records what was computed, each time."""

    def step(number: int, x: Any) -> Any:
        loss = (x * 2).sum()
        recorder.record(number, v=loss)
        return loss + 1

    compiled = torch.compile(step, backend="eager", dynamic=True)
    for number in range(3):
        assert compiled(number, torch.full((4,), float(number))).item() == 8 * number + 1
    recorder.close()
    found = [(line["step"], line["metrics"]["v"]) for line in lines(recorder.path)]
    assert found == [(0, 0.0), (1, 8.0), (2, 16.0)]


def test_a_value_is_that_of_the_call(recorder: Recorder, prepared: Any) -> None:
    value = prepared(torch.tensor(1.0))
    for step in range(100):
        value.fill_(float(step))
        recorder.record(step, v=value)
        value.zero_()
    recorder.close()
    assert [line["metrics"]["v"] for line in lines(recorder.path)] == list(map(float, range(100)))
