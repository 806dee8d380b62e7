"""timer(): nesting, recursion, decorators, generators, threads, and blocks that end badly."""

from __future__ import annotations

import asyncio
import gc
import inspect
import sys
import threading
import time
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import pytest
from recorded import lines

from foundry_fastlog import Recorder, RecorderClosedError


@pytest.fixture
def recorder(tmp_path: Path) -> Iterator[Recorder]:
    """An open recorder."""
    with Recorder(tmp_path / "run") as opened:
        yield opened


def blocks(recorder: Recorder) -> list[tuple[str, int, str | None, int | None]]:
    """Close; return (name, depth, parent, step) of every block, in the order they ended."""
    recorder.close()
    return [
        (line["name"], line["depth"], line.get("parent"), line.get("step"))
        for line in lines(recorder.path, "performance")
    ]


def test_nesting(recorder: Recorder) -> None:
    """Depth, parent and step of three levels, and of two neighbours."""
    with recorder.timer("step", step=3):
        with recorder.timer("forward"):
            with recorder.timer("attention"):
                pass
            with recorder.timer("mlp", step=99):
                pass
        with recorder.timer("backward"):
            pass
    with recorder.timer("data"):
        pass
    assert blocks(recorder) == [
        ("attention", 2, "forward", 3),
        ("mlp", 2, "forward", 99),
        ("forward", 1, "step", 3),
        ("backward", 1, "step", 3),
        ("step", 0, None, 3),
        ("data", 0, None, None),
    ]


def test_step_is_inherited_from_the_nearest_block_that_has_one(recorder: Recorder) -> None:
    """A block without a step in between hands the outer step on."""
    with (
        recorder.timer("a", step=1),
        recorder.timer("b"),
        recorder.timer("c", step=2),
        recorder.timer("d", step=None),
    ):
        pass
    assert [(name, step) for name, _, _, step in blocks(recorder)] == [
        ("d", 2),
        ("c", 2),
        ("b", 1),
        ("a", 1),
    ]


def test_duration_is_in_seconds_and_inside_the_caller_s_own_clock(recorder: Recorder) -> None:
    """The duration lies between what a clock inside and a clock outside the block measured."""
    outside = time.perf_counter()
    with recorder.timer("block"):
        inside = time.perf_counter()
        while time.perf_counter() - inside < 0.02:
            pass
        inside = time.perf_counter() - inside
    outside = time.perf_counter() - outside
    recorder.close()
    (line,) = lines(recorder.path, "performance")
    assert inside * 0.5 <= line["duration_s"] <= outside * 2


def test_recursion_with_one_timer(recorder: Recorder) -> None:
    """One timer object may run inside itself."""
    timer = recorder.timer("fib")

    def fib(n: int) -> int:
        with timer:
            return n if n < 2 else fib(n - 1) + fib(n - 2)

    assert fib(4) == 3
    found = blocks(recorder)
    assert len(found) == 9
    assert found[-1] == ("fib", 0, None, None)
    assert {parent for _, depth, parent, _ in found if depth} == {"fib"}
    assert max(depth for _, depth, _, _ in found) == 3


def test_deep_recursion(recorder: Recorder) -> None:
    """Nesting is not limited by the recorder."""
    timer = recorder.timer("deep")
    for _ in range(5_000):
        timer.__enter__()
    for _ in range(5_000):
        timer.__exit__(None, None, None)
    assert [depth for _, depth, _, _ in blocks(recorder)] == list(reversed(range(5_000)))


def test_decorated_function(recorder: Recorder) -> None:
    """A decorated function keeps its name, arguments, result and exceptions."""

    @recorder.timer("load", step=1)
    def load(a: int, *, b: int = 2) -> int:
        """Add."""
        return a // b

    assert (load(6), load(6, b=3)) == (3, 2)
    assert (load.__name__, load.__doc__) == ("load", "Add.")
    with pytest.raises(ZeroDivisionError):
        load(1, b=0)
    recorder.close()
    assert [line.get("error") for line in lines(recorder.path, "performance")] == [
        None,
        None,
        "ZeroDivisionError",
    ]


def test_decorated_methods(recorder: Recorder) -> None:
    """Methods, static and class methods are functions too."""

    class Model:
        @recorder.timer("forward")
        def forward(self) -> str:
            return type(self).__name__

        @staticmethod
        @recorder.timer("static")
        def static() -> int:
            return 1

        @classmethod
        @recorder.timer("class")
        def named(cls) -> str:
            return cls.__name__

    assert (Model().forward(), Model.static(), Model.named()) == ("Model", 1, "Model")
    assert [name for name, *_ in blocks(recorder)] == ["forward", "static", "class"]


def test_decorated_coroutine(recorder: Recorder) -> None:
    """A coroutine is timed while it runs, not while it is made."""

    @recorder.timer("fetch", step=2)
    async def fetch(value: int) -> int:
        await asyncio.sleep(0)
        with recorder.timer("inside"):
            return 10 // value

    assert inspect.iscoroutinefunction(fetch)
    assert asyncio.run(fetch(5)) == 2
    with pytest.raises(ZeroDivisionError):
        asyncio.run(fetch(0))
    assert blocks(recorder) == [
        ("inside", 1, "fetch", 2),
        ("fetch", 0, None, 2),
        ("inside", 1, "fetch", 2),
        ("fetch", 0, None, 2),
    ]


@pytest.mark.parametrize("wrong", [5, None, "name"])
def test_only_functions_are_decorated(recorder: Recorder, wrong: Any) -> None:
    """Decorating something else is a TypeError at once."""
    with pytest.raises(TypeError, match="function"):
        recorder.timer("t")(wrong)
    for call in (recorder.timer("t"), lambda: recorder.timer("t")(len, key=1)):  # type: ignore[call-arg]
        with pytest.raises(TypeError, match="one function"):
            call()


class CustomError(Exception):
    """An exception of a program."""


@pytest.mark.parametrize(
    ("error", "name"),
    [
        (ValueError("x"), "ValueError"),
        (CustomError(), "CustomError"),
        (KeyboardInterrupt(), "KeyboardInterrupt"),
        (SystemExit(1), "SystemExit"),
        (GeneratorExit(), "GeneratorExit"),
        (type("語" * 100, (Exception,), {})(), "語" * 42),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else "",
)
def test_exceptions_are_noted_and_go_on(
    recorder: Recorder, error: BaseException, name: str
) -> None:
    """A block that raises has the class in its line; a long name is cut between characters."""
    with pytest.raises(type(error)) as caught, recorder.timer("block"):
        raise error
    assert caught.value is error
    recorder.close()
    assert [line["error"] for line in lines(recorder.path, "performance")] == [name]


def test_exit_with_odd_arguments(recorder: Recorder) -> None:
    """Called by hand, __exit__ needs no arguments and takes any."""
    timer = recorder.timer("t")
    for arguments in ((), (None, None, None), (5, None, None)):
        timer.__enter__()
        assert timer.__exit__(*arguments) is False  # type: ignore[call-arg, arg-type]
    recorder.close()
    assert not any("error" in line for line in lines(recorder.path, "performance"))


def test_exit_without_enter(recorder: Recorder) -> None:
    """Leaving a block that was not entered here is a RuntimeError, and no line."""
    timer = recorder.timer("t")
    with pytest.raises(RuntimeError, match="without having been entered"):
        timer.__exit__(None, None, None)
    with timer:
        pass
    with pytest.raises(RuntimeError, match="without having been entered"):
        timer.__exit__(None, None, None)
    assert blocks(recorder) == [("t", 0, None, None)]


def test_enter_returns_the_timer(recorder: Recorder) -> None:
    """`as` gives the timer, with its name; its repr shows that."""
    with recorder.timer("näme") as timer:
        assert timer.name == "näme"
        assert repr(timer) == "<Timer 'näme'>"
    with pytest.raises(AttributeError):
        timer.name = "other"  # type: ignore[misc]
    with pytest.raises(TypeError):
        type(timer)()


def test_interleaved_generators(recorder: Recorder) -> None:
    """Blocks that end in another order keep the parent and depth that they began with."""

    def work(name: str, step: int | None = None) -> Generator[None, None, None]:
        with recorder.timer(name, step=step):
            yield

    first, second, third = work("first", step=1), work("second"), work("third")
    next(first)
    next(second)
    next(first, None)
    next(third)
    next(second, None)
    next(third, None)
    assert blocks(recorder) == [
        ("first", 0, None, 1),
        ("second", 1, "first", 1),
        ("third", 2, "second", 1),
    ]


def test_abandoned_generator(recorder: Recorder) -> None:
    """A generator that is thrown away in the middle ends its block with GeneratorExit."""

    def work() -> Generator[None, None, None]:
        with recorder.timer("abandoned"):
            yield

    generator = work()
    next(generator)
    del generator
    gc.collect()
    recorder.close()
    (line,) = lines(recorder.path, "performance")
    assert line["error"] == "GeneratorExit"


def test_threads_have_stacks_of_their_own(recorder: Recorder) -> None:
    """One timer object in several threads at once: blocks nest within their thread only."""
    timer = recorder.timer("shared")
    count = 4
    barrier = threading.Barrier(count)
    ids: dict[int, int] = {}

    def work(number: int) -> None:
        ids[number] = threading.get_native_id()
        with recorder.timer(f"outer{number}", step=number):
            barrier.wait()
            with timer:
                barrier.wait()
            barrier.wait()

    threads = [threading.Thread(target=work, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    recorder.close()
    found = lines(recorder.path, "performance")
    assert len(found) == 2 * count
    for line in found:
        assert line["thread"] == ids[line["step"]]
    inner = [line for line in found if line["name"] == "shared"]
    assert {(line["parent"], line["step"], line["depth"]) for line in inner} == {
        (f"outer{number}", number, 1) for number in range(count)
    }


def test_exit_in_another_thread(recorder: Recorder) -> None:
    """A block cannot be left in a thread that has not entered it; its own thread still can."""
    timer = recorder.timer("t")
    failures: list[BaseException] = []

    def leave() -> None:
        try:
            timer.__exit__(None, None, None)
        except RuntimeError as error:
            failures.append(error)

    with timer:
        thread = threading.Thread(target=leave)
        thread.start()
        thread.join()
    assert len(failures) == 1
    assert blocks(recorder) == [("t", 0, None, None)]


def test_two_recorders_do_not_nest_in_each_other(tmp_path: Path) -> None:
    """Depth and parent count the blocks of the same recorder only."""
    with Recorder(tmp_path / "a") as a, Recorder(tmp_path / "b") as b:
        with a.timer("a1", step=1), b.timer("b1"), a.timer("a2"), b.timer("b2"):
            pass
        assert blocks(a) == [("a2", 1, "a1", 1), ("a1", 0, None, 1)]
        assert blocks(b) == [("b2", 1, "b1", None), ("b1", 0, None, None)]


def test_closed_in_the_middle(recorder: Recorder) -> None:
    """A block during which the recorder is closed ends quietly; the next one is refused."""
    with recorder.timer("outer"):
        with recorder.timer("inner"):
            pass
        recorder.close()
    with pytest.raises(RecorderClosedError), recorder.timer("refused"):
        pytest.fail("the block must not run")
    assert [name for name, *_ in blocks(recorder)] == ["inner"]


def test_exception_while_closed_is_not_replaced(recorder: Recorder) -> None:
    """The exception of a block whose recorder was closed meanwhile goes on."""

    def close_and_raise() -> None:
        with recorder.timer("outer"):
            recorder.close()
            raise KeyError("own")

    with pytest.raises(KeyError, match="own"):
        close_and_raise()


def test_timer_keeps_its_recorder(tmp_path: Path) -> None:
    """A timer, and a function decorated with it, work after the last other reference is gone."""

    def make() -> Callable[[], int]:
        recorder = Recorder(tmp_path / "run")

        @recorder.timer("kept")
        def answer() -> int:
            return 42

        return answer

    answer = make()
    gc.collect()
    assert answer() == 42
    del answer
    gc.collect()
    assert [line["name"] for line in lines(tmp_path / "run", "performance")] == ["kept"]


def test_references_are_given_back(recorder: Recorder) -> None:
    """Entering and leaving changes no reference count, also when a block raises."""
    name = "".join(("a", " fresh name"))
    timer = recorder.timer(name)
    with timer, timer:
        pass
    names, timers = sys.getrefcount(name), sys.getrefcount(timer)
    for _ in range(1_000):
        with pytest.raises(ValueError, match="x"), timer, timer:
            raise ValueError("x")
        with timer:
            pass
    assert (sys.getrefcount(name), sys.getrefcount(timer)) == (names, timers)
