"""StructuredLogger: what a message holds, and which way it takes."""

from __future__ import annotations

import asyncio
import copy
import json
import logging
import pickle
import sys
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock, patch

import numpy as np
import pytest
from recorded import in_threads

from foundry_fastlog import LoggingConfig, StructuredLogger, log_context
from foundry_fastlog.messages.structured import LEVEL_MARK

Caplog = pytest.LogCaptureFixture
NUMBER = count()


@pytest.fixture
def name() -> Iterator[str]:
    name = f"structured{next(NUMBER)}"
    yield name
    logging.getLogger(name).handlers.clear()


@pytest.fixture
def logger(name: str) -> StructuredLogger:
    return StructuredLogger(name, "exp0")


def sent(logger: StructuredLogger, *args: Any, level: str = "info", **fields: Any) -> Any:
    with patch.object(logger.logger, "log") as log:
        getattr(logger, level)(*args, **fields)
    return log.call_args


def entry(logger: StructuredLogger, *args: Any, **fields: Any) -> dict[str, Any]:
    text = sent(logger, *args, **fields).args[1]
    found: dict[str, Any] = json.loads(text, parse_constant=pytest.fail)  # strict JSON
    return found


def context(logger: StructuredLogger, **fields: Any) -> dict[str, Any]:
    found = entry(logger, "m", **fields)["context"]
    return {k: v for k, v in found.items() if k not in ("experiment", "git_hash", "device")}


def test_a_level_may_be_a_name(logger: StructuredLogger) -> None:
    levels = {"DEBUG": 10, "warning": 30, logging.ERROR: 40, np.int64(20): 20}
    for level, number in levels.items():
        with patch.object(logger.logger, "log") as log:
            logger.log_structured(level, "m")
        assert log.call_args.args[0] == number
    for wrong in ("loud", None):
        with pytest.raises(ValueError, match=r"level must be a number or one of DEBUG, INFO.* got"):
            logger.log(wrong, "m")  # type: ignore[arg-type]


def test_a_message_has_the_standard_fields(logger: StructuredLogger, name: str) -> None:
    found = entry(logger, "Completed training step", step=1000, loss=2.456)
    assert list(found) == ["timestamp", "level", "logger", "message", "context"]
    assert found["timestamp"].endswith("Z")
    assert (found["level"], found["logger"]) == ("INFO", name)
    assert found["message"] == "Completed training step"
    assert list(found["context"]) == ["experiment", "git_hash", "device", "step", "loss"]
    assert found["context"]["experiment"] == "exp0"


@pytest.mark.parametrize(
    ("config", "wanted"),
    [
        ("exp1", "exp1"),
        ({"experiment_name": "exp1", "logging": {"use_structured_logging": True}}, "exp1"),
        (SimpleNamespace(experiment_name="exp1"), "exp1"),
        (None, "default"),
        *((bad, None) for bad in (3, {"name": "x"}, {"experiment_name": 3}, LoggingConfig())),
    ],
)
def test_an_experiment_is_given_in_several_ways(config: Any, wanted: str | None, name: str) -> None:
    """At set-up a mistake is an error that says what is wanted."""
    if wanted:
        assert StructuredLogger(name, config).context["experiment"] == wanted
    else:
        with pytest.raises(TypeError, match="experiment_name"):
            StructuredLogger(name, config)
        with pytest.raises(TypeError, match="name must be a str"):
            StructuredLogger(config, "exp0")


def test_levels_beside_the_plans(logger: StructuredLogger) -> None:
    call = sent(logger, "m", level="exception")
    assert (call.args[0], call.kwargs["exc_info"]) == (logging.ERROR, True)
    with patch.object(logger.logger, "log") as log:
        logger.log_structured(25, "m", step=1)
        logger.log(25, "m", step=1)
    assert [json.loads(c.args[1])["level"] for c in log.call_args_list] == ["Level 25"] * 2


class Odd:
    __str__ = Mock(side_effect=RuntimeError)


def test_a_level_that_is_off_costs_no_work(logger: StructuredLogger) -> None:
    """The check comes first: values are not even looked at."""
    logger.logger.setLevel(logging.CRITICAL + 1)
    with patch.object(logger, "_log") as log:
        for level in ("debug", "info", "warning", "error", "critical", "exception"):
            getattr(logger, level)("m", value=Odd())
        logger.log_structured(logging.ERROR, "m", value=Odd())
    log.assert_not_called()
    assert not logger.isEnabledFor(logging.CRITICAL)


def test_odd_values_become_readable_text(logger: StructuredLogger) -> None:
    """A message is never lost because of a value; numbers that JSON has not are null and named."""
    circle: list[Any] = []
    circle.append(circle)
    odd = {"odd": Odd(), "path": Path("a"), "n": np.float32(2.5), "big": 1 << 70, "s": "\udc80"}
    found = context(logger, circle=circle, **odd)
    assert found.pop("circle")
    shown = {"path": "a", "n": 2.5, "big": str(1 << 70), "s": "\\udc80"}
    assert found == {"odd": "<Odd whose str() raised RuntimeError>", **shown}
    found = entry(logger, "m", loss=float("nan"), norm=float("-inf"), best=None)
    assert found["context"]["loss"] is None
    assert found["nonfinite"] == {"loss": "nan", "norm": "-inf"}
    assert "nonfinite" not in entry(logger, "m", best=None)


def test_placeholders_work_as_in_the_standard_library(logger: StructuredLogger) -> None:
    """Calls that were written for logging.Logger go on working; wrong ones are shown."""
    assert entry(logger, "n=%d of %s", 3, "x")["message"] == "n=3 of x"
    assert entry(logger, "n=%(n)d", {"n": 3})["message"] == "n=3"
    assert entry(logger, "100%")["message"] == "100%"
    assert entry(logger, "n=%d", "three")["message"] == "n=%d three"
    assert entry(logger, ValueError("bad"))["message"] == "bad"


def test_any_name_may_be_a_fields(logger: StructuredLogger) -> None:
    fields = {"message": "m", "level": 3, "self": 1, "args": 2, "name": "n", "msg": "x", "extra": 4}
    with patch.object(logger.logger, "log") as log:
        logger.info("m", **{**fields, "self": 1})
    found = json.loads(log.call_args.args[1])["context"]
    assert {name: found[name] for name in fields} == fields
    logger.logger.addHandler(logging.NullHandler())
    logger.info("m", **fields)  # through a real LogRecord


def test_several_fields_are_removed(logger: StructuredLogger) -> None:
    logger.update_context(step=1, epoch=2)
    logger.clear_context_field("step", "epoch", "absent")
    assert context(logger) == {}


def test_bound_loggers_are_children_with_a_context_of_their_own(logger: StructuredLogger) -> None:
    """What the child has, the parent has not, and the other way round."""
    logger.update_context(run=1)
    child = logger.bind(split="validation")
    grandchild = child.bind(worker=3)
    logger.update_context(late=True)
    assert child.logger is logger.logger
    assert context(child) == {"run": 1, "split": "validation"}
    assert context(grandchild) == {"run": 1, "split": "validation", "worker": 3}
    assert context(logger) == {"run": 1, "late": True}
    child.clear_context_field("split")
    with log_context(split="ambient"):
        assert context(child)["split"] == "ambient"
    logger.update_context(a="base", b="base", c="base", d="base")
    bound = logger.bind(c="bound", d="bound")
    with log_context(b="ambient", c="ambient", d="ambient"):
        found = context(bound, d="call")
    wanted = {"a": "base", "b": "ambient", "c": "bound", "d": "call"}  # each overrides the former
    assert {key: found[key] for key in wanted} == wanted
    assert repr(child) == f"<StructuredLogger {logger.name!r} experiment='exp0'>"


def test_ambient_fields_reach_all_loggers_or_one_family(logger: StructuredLogger) -> None:
    """log_context() is for all, context_fields() for one and those bound to it; inner wins."""
    other, child = StructuredLogger(logger.name, "exp1"), logger.bind(bound=1)
    with log_context(epoch=3, phase="train"):
        with logger.context_fields(phase="validate", batch=7) as same:
            assert same is logger
            assert context(logger) == {"epoch": 3, "phase": "validate", "batch": 7}
            assert context(child)["batch"] == 7
            assert context(other) == {"epoch": 3, "phase": "train"}
            with log_context(phase="inner"):
                assert context(logger)["phase"] == "inner"
        assert context(logger) == {"epoch": 3, "phase": "train"}
    assert context(logger) == {}
    with other.context_fields(x=1):
        assert context(logger) == {}
    with pytest.raises(ValueError, match="bad"), log_context(epoch=3):
        raise ValueError("bad")
    assert context(logger) == {}


def test_ambient_fields_follow_asyncio_tasks_and_not_threads(logger: StructuredLogger) -> None:
    """Two tasks that take turns keep their own."""

    async def work(n: int) -> dict[str, Any]:
        with log_context(task=n):
            await asyncio.sleep(0)
            return await asyncio.create_task(inner())

    async def inner() -> dict[str, Any]:
        await asyncio.sleep(0)
        return context(logger)

    async def main() -> list[dict[str, Any]]:
        with log_context(run=1):
            return await asyncio.gather(work(1), work(2))

    assert asyncio.run(main()) == [{"run": 1, "task": 1}, {"run": 1, "task": 2}]
    seen: list[dict[str, Any]] = []
    with log_context(run=1):
        in_threads(lambda _: seen.append(context(logger)))
    inherits = getattr(sys.flags, "thread_inherit_context", False)  # Python 3.14 without a GIL
    assert seen == [{"run": 1} if inherits else {}]


def test_handlers_name_the_line_of_the_call(logger: StructuredLogger, caplog: Caplog) -> None:
    """For every method, and with stacklevel for the caller's caller."""

    def helper() -> None:
        logger.info("m", stacklevel=2)

    with caplog.at_level(logging.DEBUG):
        logger.debug("m")
        logger.log_structured(logging.INFO, "m")
        logger.bind(a=1).exception("m", exc_info=ValueError("bad"))
        helper()
    functions = [(record.filename, record.funcName) for record in caplog.records]
    own = "test_handlers_name_the_line_of_the_call"
    assert functions == [("test_structured.py", own)] * 4
    assert caplog.records[2].exc_info is not None
    lines = [record.lineno for record in caplog.records]
    assert lines == sorted(set(lines))


def test_messages_can_be_plain_text(name: str) -> None:
    """use_structured_logging: false; the base context is left out, the fields follow a bar."""
    config = {"experiment_name": "exp0", "logging": {"use_structured_logging": False}}
    logger = StructuredLogger(name, config)
    assert sent(logger, "Loaded", size=3, path="a b").args[1] == "Loaded | size=3, path=a b"
    assert sent(logger, "Loaded").args[1] == "Loaded"
    assert sent(logger, "m", device="cuda:9").args[1] == "m | device=cuda:9"
    logger.context.clear()
    assert sent(logger, "m", step=1).args[1] == "m | step=1"

    class Raising(str):
        __slots__ = ()

        def __format__(self, spec: str) -> str:
            raise ValueError(spec)

    assert sent(logger, "m", **{Raising("step"): 1}).args[1] == "m | step=1"


def test_the_level_is_the_configurations_where_only_the_root_has_one(name: str) -> None:
    """A level of the logger itself, or of one above it, stays."""
    config = SimpleNamespace(
        experiment_name="x", logging=LoggingConfig(console_level="ERROR", file_level="INFO")
    )
    assert StructuredLogger(name, config).logger.level == logging.INFO
    assert StructuredLogger(f"{name}.low", "x").logger.level == logging.NOTSET
    assert getattr(logging.getLogger(name), LEVEL_MARK) == logging.INFO
    logging.getLogger(name).setLevel(logging.ERROR)
    assert StructuredLogger(name, config).logger.level == logging.ERROR
    odd = {"experiment_name": "x", "logging": {"console_level": "odd", "file_level": "odd"}}
    assert StructuredLogger(f"other-{name}", odd).logger.level == logging.DEBUG
    before = logging.getLogger().level
    assert StructuredLogger("root", "x").logger.level == before


def test_loggers_travel_to_other_processes(logger: StructuredLogger) -> None:
    """A DataLoader's dataset may hold one; copies have contexts of their own."""
    logger.update_context(step=1)
    logger.info("m")
    for other in (pickle.loads(pickle.dumps(logger)), copy.deepcopy(logger)):
        assert other.logger is logger.logger
        other.update_context(step=2)
        assert context(other) == {"step": 2}
    assert context(logger) == {"step": 1}
