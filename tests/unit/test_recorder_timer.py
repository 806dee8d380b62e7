"""timer(): nesting, recursion, decorators, generators, threads, and blocks that end badly."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import gc
import inspect
import threading
from collections.abc import AsyncGenerator, Callable, Generator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from recorded import in_child, in_threads, lines, written

from foundry_fastlog import Recorder, RecorderClosedError


def blocks(recorder: Recorder) -> list[tuple[str, int, str | None, int | None]]:
    """Close; return (name, depth, parent, step) of every block, in the order they ended."""
    found = written(recorder, "performance")
    return [(line["name"], line["depth"], line.get("parent"), line.get("step")) for line in found]


def errors(recorder: Recorder) -> list[str | None]:
    return [line.get("error") for line in written(recorder, "performance")]


def test_nesting(recorder: Recorder) -> None:
    """A block has the step of the nearest one around it that has a step."""
    with recorder.timer("step", step=3):
        with recorder.timer("forward"):
            with recorder.timer("attention"):
                pass
            with recorder.timer("mlp", step=99), recorder.timer("gate", step=None):
                pass
        with recorder.timer("backward"):
            pass
    with recorder.timer("data"):
        pass
    assert blocks(recorder) == [
        ("attention", 2, "forward", 3),
        ("gate", 3, "mlp", 99),
        ("mlp", 2, "forward", 99),
        ("forward", 1, "step", 3),
        ("backward", 1, "step", 3),
        ("step", 0, None, 3),
        ("data", 0, None, None),
    ]


def test_recursion_with_one_timer(recorder: Recorder) -> None:
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


def test_nesting_has_no_limit(recorder: Recorder) -> None:
    timer = recorder.timer("deep")
    for _ in range(5_000):
        timer.__enter__()
    for _ in range(5_000):
        timer.__exit__(None, None, None)
    assert [depth for _, depth, _, _ in blocks(recorder)] == list(reversed(range(5_000)))


def test_decorated_functions_and_methods(recorder: Recorder) -> None:
    """They keep their names, arguments, results and exceptions."""

    @recorder.timer("load", step=1)
    def load(a: int, *, b: int = 2) -> int:
        """Add."""
        return a // b

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

    assert (load(6), load(6, b=3)) == (3, 2)
    assert (load.__name__, load.__doc__) == ("load", "Add.")
    with pytest.raises(ZeroDivisionError):
        load(1, b=0)
    assert (Model().forward(), Model.static(), Model.named()) == ("Model", 1, "Model")
    names = [name for name, *_ in blocks(recorder)]
    assert names == ["load", "load", "load", "forward", "static", "class"]
    assert errors(recorder) == [None, None, "ZeroDivisionError", None, None, None]


def test_decorated_coroutine(recorder: Recorder) -> None:
    """It is timed while it runs, not while it is made."""

    @recorder.timer("fetch", step=2)
    async def fetch(value: int) -> int:
        await asyncio.sleep(0)
        with recorder.timer("inside"):
            return 10 // value

    assert inspect.iscoroutinefunction(fetch)
    assert asyncio.run(fetch(5)) == 2
    with pytest.raises(ZeroDivisionError):
        asyncio.run(fetch(0))
    assert blocks(recorder) == [("inside", 1, "fetch", 2), ("fetch", 0, None, 2)] * 2


def test_a_generator_function_is_refused(recorder: Recorder) -> None:
    """Its calls return before its code runs: microseconds would stand for milliseconds."""

    def batches() -> Generator[int, None, None]:
        yield 1

    async def later() -> AsyncGenerator[int, None]:
        yield 1

    class Batches:
        __call__ = staticmethod(batches)

    class Later:
        async def __call__(self) -> AsyncGenerator[int, None]:
            yield 1

    odd = (partial(batches), partial(Later()), staticmethod(batches))
    for function in (batches, later, Batches(), Later(), *odd):
        with pytest.raises(TypeError, match=r"is a generator function.*Put the block inside"):
            recorder.timer("load")(function)


def test_whatever_is_called_may_be_decorated(recorder: Recorder) -> None:
    """Methods also from above @staticmethod and @classmethod; objects, classes and partials."""

    class Model:
        @recorder.timer("static")
        @staticmethod
        def double(value: int) -> int:
            return 2 * value

        @recorder.timer("class")
        @classmethod
        def named(cls, value: int) -> str:
            return cls.__name__ * value

        async def __call__(self, value: int) -> int:
            await asyncio.sleep(0)
            return 3 * value

    model = Model()
    assert (model.double(2), Model.double(2), model.named(2)) == (4, 4, "ModelModel")
    triple = recorder.timer("object")(model)
    assert inspect.iscoroutinefunction(triple)
    assert asyncio.run(triple(2)) == 6
    assert recorder.timer("type")(int)("2") == 2
    assert recorder.timer("partial")(partial(pow, 2))(3) == 8
    names = [name for name, *_ in blocks(recorder)]
    assert names == ["static", "static", "class", "object", "type", "partial"]


@pytest.mark.parametrize("wrong", [5, None, "name"])
def test_only_functions_are_decorated(recorder: Recorder, wrong: Any) -> None:
    with pytest.raises(TypeError, match="function"):
        recorder.timer("t")(wrong)
    for call in (recorder.timer("t"), lambda: recorder.timer("t")(len, key=1)):  # type: ignore[call-arg]
        with pytest.raises(TypeError, match="one function"):
            call()


class CustomError(Exception):
    pass


@pytest.mark.parametrize(
    ("error", "name"),
    [
        *((ValueError("x"), "ValueError"), (CustomError(), "CustomError")),
        *((KeyboardInterrupt(), "KeyboardInterrupt"), (SystemExit(1), "SystemExit")),
        *((GeneratorExit(), "GeneratorExit"), (type("語" * 100, (Exception,), {})(), "語" * 42)),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else "",
)
def test_exceptions_are_told_and_go_on(recorder: Recorder, error: BaseException, name: str) -> None:
    """By their class; a long name is cut between characters."""
    with pytest.raises(type(error)) as caught, recorder.timer("block"):
        raise error
    assert caught.value is error
    assert errors(recorder) == [name]


def test_exit_without_enter(recorder: Recorder) -> None:
    """A RuntimeError, and no line. Called by hand, __exit__ needs no arguments and takes any."""
    timer = recorder.timer("t")
    for _ in range(2):
        with pytest.raises(RuntimeError, match="without having been entered"):
            timer.__exit__(None, None, None)
        with timer:
            pass
    for arguments in ((), (5, None, None)):
        timer.__enter__()
        assert timer.__exit__(*arguments) is False  # type: ignore[call-arg, arg-type]
    assert blocks(recorder) == [("t", 0, None, None)] * 4
    assert errors(recorder) == [None] * 4


def test_enter_returns_the_timer(recorder: Recorder) -> None:
    with recorder.timer("näme") as timer:
        assert timer.name == "näme"
        assert repr(timer) == "<Timer 'näme'>"
    with pytest.raises(AttributeError):
        timer.name = "other"  # type: ignore[misc]
    with pytest.raises(TypeError):
        type(timer)()


def test_tasks_have_stacks_of_their_own(recorder: Recorder) -> None:
    """Their blocks interleave on one thread; around all of them is what was around the loop."""

    async def work(name: str, step: int, go: asyncio.Event, done: asyncio.Event) -> None:
        with recorder.timer(name, step=step):
            done.set()
            await go.wait()
            with recorder.timer("inside"):
                await asyncio.sleep(0)

    async def main() -> None:
        go, first, second = asyncio.Event(), asyncio.Event(), asyncio.Event()
        tasks = [asyncio.create_task(work("a", 1, go, first))]
        await first.wait()
        tasks.append(asyncio.create_task(work("b", 2, go, second)))
        await second.wait()
        with recorder.timer("main"):  # in a task, too
            pass
        go.set()
        await asyncio.gather(*tasks)

    with recorder.timer("run", step=7):
        asyncio.run(main())
    with recorder.timer("after"):
        pass
    assert sorted(blocks(recorder)) == [
        ("a", 1, "run", 1),
        ("after", 0, None, None),
        ("b", 1, "run", 2),
        ("inside", 2, "a", 1),
        ("inside", 2, "b", 2),
        ("main", 1, "run", 7),
        ("run", 0, None, 7),
    ]


@pytest.mark.parametrize("variables", [False, True])
def test_a_task_inherits_the_block_it_was_started_in(recorder: Recorder, variables: bool) -> None:
    """Not one that has ended before, nor one of another thread or recorder."""
    if variables:
        contextvars.ContextVar[int]("anything").set(1)  # the thread has a context from now on
    timer = recorder.timer("child")

    async def child() -> None:
        with timer:
            await asyncio.sleep(0)

    async def main() -> None:
        with recorder.timer("before"):
            pass
        with recorder.timer("outer", step=5):
            early = asyncio.create_task(child())
            await asyncio.gather(child(), child())
            with other.timer("foreign"):
                await asyncio.create_task(child())
            await asyncio.to_thread(lambda: timer.__enter__().__exit__(None, None, None))
        await early
        await asyncio.create_task(child())

    with Recorder(recorder.path / "other") as other:
        asyncio.run(main())
    assert blocks(recorder) == [
        ("before", 0, None, None),
        *[("child", 1, "outer", 5)] * 4,
        ("child", 0, None, None),  # in its thread
        ("outer", 0, None, 5),
        ("child", 0, None, None),
    ]


@pytest.mark.parametrize("copied", [False, True])
def test_greenlets_do_not_mix_their_blocks(recorder: Recorder, copied: bool) -> None:
    """Bare ones have no context of their own; gevent's have a copy of their starter's."""
    greenlet = pytest.importorskip("greenlet", reason="greenlet is not installed")

    def work(name: str) -> None:
        with recorder.timer(name):
            greenlet.getcurrent().parent.switch()
            with recorder.timer("inside"):
                greenlet.getcurrent().parent.switch()

    with recorder.timer("around", step=3):
        workers = [greenlet.greenlet(work) for _ in range(3)]
        for number, worker in enumerate(workers):
            if copied:
                worker.gr_context = contextvars.copy_context()
            worker.switch(f"work{number}")
        with recorder.timer("own"):
            for worker in workers * 2:
                worker.switch()
    assert sorted(blocks(recorder)) == [
        ("around", 0, None, 3),
        *(("inside", 2, f"work{number}", 3) for number in range(3)),
        ("own", 1, "around", 3),
        *((f"work{number}", 1, "around", 3) for number in range(3)),
    ]


@pytest.mark.parametrize("around", [False, True])
def test_a_block_that_has_ended_is_no_parent(recorder: Recorder, around: bool) -> None:
    """A generator that a loop is left from is closed by asyncio, in a task of its own."""

    async def batches() -> AsyncGenerator[int, None]:
        with recorder.timer("load", step=7):
            yield 1
            yield 2

    async def child(name: str) -> None:
        with recorder.timer(name):
            await asyncio.sleep(0)

    async def run() -> None:
        for _ in range(2):
            async for _ in batches():
                early = asyncio.create_task(child("early"))
                break
            for _ in range(3):
                await asyncio.sleep(0)
            await early
            await child("own")
            await asyncio.create_task(child("task"))

    async def main() -> None:
        with recorder.timer("around", step=1) if around else contextlib.nullcontext():
            await run()

    asyncio.run(main())
    outside = (1, "around", 1) if around else (0, None, None)
    found = [block for block in blocks(recorder) if block[0] in ("own", "task")]
    assert found == [("own", *outside), ("task", *outside)] * 2


def test_one_coroutine_function_runs_twice_at_once(recorder: Recorder) -> None:
    """Each call's time is its own: 50 ms pass between the beginnings, and between the ends."""

    @recorder.timer("fetch")
    async def fetch(event: asyncio.Event) -> None:
        await event.wait()

    async def main() -> None:
        events = [asyncio.Event(), asyncio.Event()]
        tasks = []
        for event in events:
            tasks.append(asyncio.create_task(fetch(event)))
            await asyncio.sleep(0.05 if event is events[0] else 0)
        events[0].set()
        await tasks[0]
        await asyncio.sleep(0.05)
        events[1].set()
        await tasks[1]

    asyncio.run(main())
    durations = [line["duration_s"] for line in written(recorder, "performance")]
    assert min(durations) > 0.045


def test_a_block_of_a_task_may_end_in_another(recorder: Recorder) -> None:
    """As an asynchronous generator's does that is closed from outside."""

    async def batches() -> AsyncGenerator[int, None]:
        with recorder.timer("batch", step=1):
            yield 1

    async def main() -> None:
        generator = batches()
        await asyncio.create_task(generator.__anext__())  # type: ignore[arg-type]
        await generator.aclose()

    asyncio.run(main())
    assert blocks(recorder) == [("batch", 0, None, 1)]


def test_generators(recorder: Recorder) -> None:
    """Blocks that end in another order keep parent and depth; a thrown-away one ends too."""

    def work(name: str, step: int | None = None) -> Generator[None, None, None]:
        with recorder.timer(name, step=step):
            yield

    first, second, third = work("first", step=1), work("second"), work("third")
    for generator in (first, second, first, third, second, third):
        next(generator, None)
    abandoned = work("abandoned")
    next(abandoned)
    del abandoned
    gc.collect()
    assert blocks(recorder) == [
        ("first", 0, None, 1),
        ("second", 1, "first", 1),
        ("third", 2, "second", 1),
        ("abandoned", 0, None, None),
    ]
    assert errors(recorder) == [None, None, None, "GeneratorExit"]


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

    in_threads(work, count)
    found = written(recorder, "performance")
    assert len(found) == 2 * count
    assert all(line["thread"] == ids[line["step"]] for line in found)
    inner = [line for line in found if line["name"] == "shared"]
    found_inner = {(line["parent"], line["step"], line["depth"]) for line in inner}
    assert found_inner == {(f"outer{number}", number, 1) for number in range(count)}


@pytest.mark.parametrize("ended", [False, True])
def test_a_block_may_end_in_another_thread(recorder: Recorder, ended: bool) -> None:
    """A generator that is handed on: the block is its first thread's, which may have ended."""

    def batches() -> Generator[int, None, None]:
        with recorder.timer("load", step=7), recorder.timer("inner"):
            yield threading.get_native_id()

    def begin(_: int = 0) -> None:
        if ended:
            first.extend([generator := batches(), next(generator)])
            return
        with recorder.timer("around"):
            first.extend([generator := batches(), next(generator)])
            in_threads(rest, 1)
            with recorder.timer("after"):
                pass

    def rest(_: int) -> None:
        with recorder.timer("own"):
            assert list(first[0]) == []

    first: list[Any] = []
    if ended:
        in_threads(begin, 1)
        in_threads(rest, 1)
    else:
        begin()
    outer = None if ended else "around"
    assert blocks(recorder) == [
        ("inner", 2 - ended, "load", 7),
        ("load", 1 - ended, outer, 7),
        ("own", 0, None, None),
        *([] if ended else [("after", 1, "around", None), ("around", 0, None, None)]),
    ]
    found = written(recorder, "performance")
    assert [line["thread"] == first[1] for line in found][:3] == [True, True, False]


def test_one_timer_ended_in_other_threads(recorder: Recorder) -> None:
    """Its blocks in several threads at once: each exit ends one, and none raises."""
    timer = recorder.timer("shared")
    count = 4
    barrier = threading.Barrier(count)
    generators: list[Generator[None, None, None]] = []

    def suspended() -> Generator[None, None, None]:
        with timer, timer:
            yield

    def work(number: int) -> None:
        for _ in range(50):
            generator = suspended()
            next(generator)
            generators.append(generator)
        barrier.wait()
        for generator in generators[(number + 1) % count :: count]:
            with timer:
                generator.close()

    in_threads(work, count)
    with recorder.timer("alone"):
        pass
    found = blocks(recorder)
    assert len(found) == count * 50 * 3 + 1
    assert found[-1] == ("alone", 0, None, None)


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_forked_child_ends_a_block_of_another_thread(recorder: Recorder) -> None:
    """As a garbage collection there does; the parent ends it, too."""
    generators: list[Generator[None, None, None]] = []
    go = threading.Event()

    def suspended() -> Generator[None, None, None]:
        with recorder.timer("load"):
            yield

    def begin() -> None:
        generators.append(suspended())
        next(generators[0])
        begun.set()
        go.wait(60)

    begun = threading.Event()
    thread = threading.Thread(target=begin)
    thread.start()
    assert begun.wait(60)
    in_child(lambda: (generators[0].close(), recorder.close()))
    generators[0].close()
    go.set()
    thread.join()
    recorder.close()
    texts = [path.read_text() for path in recorder.path.glob("performance*.jsonl")]
    assert [text.count('"load"') for text in texts] == [1, 1]


def test_two_recorders_do_not_nest_in_each_other(tmp_path: Path) -> None:
    with Recorder(tmp_path / "a") as a, Recorder(tmp_path / "b") as b:
        with a.timer("a1", step=1), b.timer("b1"), a.timer("a2"), b.timer("b2"):
            pass
        assert blocks(a) == [("a2", 1, "a1", 1), ("a1", 0, None, 1)]
        assert blocks(b) == [("b2", 1, "b1", None), ("b1", 0, None, None)]


def test_closed_in_the_middle(recorder: Recorder) -> None:
    """The block ends quietly, or with its own exception; the next one is refused."""

    def close_within(error: Exception | None) -> None:
        with recorder.timer("outer"):
            with recorder.timer("inner"):
                pass
            recorder.close()
            if error is not None:
                raise error

    with pytest.raises(KeyError, match="own"):
        close_within(KeyError("own"))
    with pytest.raises(RecorderClosedError), recorder.timer("refused"):
        pytest.fail("the block must not run")
    assert [name for name, *_ in blocks(recorder)] == ["inner"]
    with Recorder(recorder.path) as recorder:
        close_within(None)
    assert [name for name, *_ in blocks(recorder)] == ["inner"]


def test_timer_keeps_its_recorder(tmp_path: Path) -> None:
    """A timer, and a function decorated with it, work after the last other reference is gone."""

    def make() -> Callable[[], int]:
        @Recorder(tmp_path / "run").timer("kept")
        def answer() -> int:
            return 42

        return answer

    answer = make()
    gc.collect()
    assert answer() == 42
    del answer
    gc.collect()
    assert [line["name"] for line in lines(tmp_path / "run", "performance")] == ["kept"]
