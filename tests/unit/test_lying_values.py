"""Values whose class is not what it says, or whose methods raise or have no end: mocks, proxies.

No call that logs raises, hangs, or loses the message and what is beside the value.
"""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Callable
from contextlib import redirect_stderr
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock, Mock

import numpy as np
import pytest

from foundry_fastlog import ExperimentLogging, read_run
from foundry_fastlog.base.unread import shows_unread


class Unbound:
    """As a LocalProxy of werkzeug outside of a request."""

    @property
    def __class__(self) -> Any:
        raise RuntimeError("unbound")


class NoFloat(float):
    def __float__(self) -> float:
        raise RuntimeError("no float")


class NoText(float):
    def __str__(self) -> str:
        raise RuntimeError("no text")

    __repr__ = __str__

    def __format__(self, spec: str) -> str:
        raise RuntimeError("no text")


class NumpysNoFloat(np.float64):
    def __float__(self) -> float:
        raise RuntimeError("no float")


class BadText(str):
    __slots__ = ()

    def __str__(self) -> str:
        raise RuntimeError("no text")

    __repr__ = __str__

    def __len__(self) -> int:
        raise RuntimeError("no length")


class BadInt(int):
    def __str__(self) -> str:
        raise RuntimeError("no text")

    __repr__ = __str__

    def __index__(self) -> int:
        raise RuntimeError("no number")

    __int__ = __index__


class BadDict(dict[str, int]):
    def __iter__(self) -> Any:
        raise RuntimeError("no keys")

    items = keys = values = __iter__  # type: ignore[assignment]


class Endless:
    """Each of its parts has parts, made when they are asked for."""

    def __getattr__(self, name: str) -> Any:
        return Endless()

    def __iter__(self) -> Any:
        return iter([Endless()])

    def __len__(self) -> int:
        return 1


class BadError(ValueError):
    def __getattribute__(self, name: str) -> Any:
        raise RuntimeError(name)


class NoTraceError(ValueError):
    @property
    def __traceback__(self) -> Any:  # type: ignore[override]
        raise RuntimeError("no traceback")


VALUES: dict[str, Callable[[], Any]] = {
    "a mock": MagicMock,
    **{
        f"a mock of {kind.__name__}": lambda kind=kind: Mock(spec=kind)
        for kind in (float, str, int, bool, dict, ValueError, np.ndarray)
    },
    "a mock of a list": lambda: MagicMock(spec=list),
    "a proxy": Unbound,
    "no float": lambda: NoFloat(1),
    "numpy's": lambda: NumpysNoFloat(1),
    "no text": lambda: NoText(1),
    "bad text": lambda: BadText("abc"),
    "bad int": lambda: BadInt(5),
    "bad dict": lambda: BadDict(a=1),
    "endless": Endless,
}


@pytest.fixture
def logs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    # pytest's own handler raises what a value's text does.
    monkeypatch.setattr("_pytest.logging.LogCaptureHandler.handleError", lambda *_: None)
    config = {"experiment_name": "e", "logging": {"system_metrics_every_s": 0}}
    with redirect_stderr(io.StringIO()), ExperimentLogging(config, log_dir=tmp_path) as opened:
        yield opened


@pytest.mark.parametrize("name", VALUES)
@pytest.mark.timeout(60)
def test_no_value_stops_a_training(
    logs: ExperimentLogging, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    value = VALUES[name]()
    log = logs.logger("train")
    logs.log_step(0, 0, {"odd": value, "lr": 1e-4})
    logs.log_epoch_summary(0, {"odd": value, "lr": 1e-4})
    log.info("a field", odd=value, fine=1)
    log.info("a nested one", odd={"a": [value]}, fine=1)
    log.bind(odd=value).info("bound", fine=1)
    log.error("an error", odd=value, fine=1)
    log.info(value)
    log.info("an argument %s", value)
    logs.recorder.event("an event", context={"odd": value, "fine": 1})
    logs.errors.log_error(ValueError("bad"), context={"odd": value, "fine": 1})
    logs.recorder.log({"odd": value, "lr": 1e-4})
    try:
        log.logger.info("a plain %s", value, extra={"fine": 1})
    except RuntimeError:  # the standard library looks at the arguments before any handler does
        assert name in ("a proxy", "bad dict")
    assert logs.recorder.flush()
    assert "Logging error" not in capsys.readouterr().err
    run = read_run(logs.directory)
    steps = [line for line in run.lines("metrics") if "metrics" in line]
    assert [line["metrics"]["lr"] for line in steps] == [1e-4, 1e-4]
    said = {line["message"]: line["context"] for line in run.lines("log")}
    for message in ("a field", "a nested one", "bound", "an error", "an event"):
        assert said[message]["fine"] == 1
    assert any(message.startswith("an argument ") for message in said)
    assert any(message.startswith("a plain ") for message in said) or name in (
        "a proxy",
        "bad dict",
    )
    assert len(list(run.lines("errors"))) >= 1


@pytest.mark.parametrize("kind", [BadError, NoTraceError, np.arange])
def test_no_exception_stops_a_training(
    logs: ExperimentLogging, kind: Callable[[int], Any], capsys: pytest.CaptureFixture[str]
) -> None:
    error = kind(3)
    log = logs.logger("train")
    log.error("with it", exc_info=error)
    if kind is not np.arange:
        log.error("as a field", error=error)
        logs.errors.log_error(error)
        logs.recorder.event("an event", error=error)
    assert "Logging error" not in capsys.readouterr().err
    assert logs.recorder.flush()
    run = read_run(logs.directory)
    assert "with it" in {line["message"] for line in run.lines("log")}


def test_parts_without_an_end_are_not_looked_at_for_ever() -> None:
    class Deeper(list[Any]):
        def __iter__(self) -> Any:
            return iter([Deeper()])

    assert shows_unread(Deeper())
    deep: list[Any] = []
    for _ in range(900):
        deep = [deep]
    assert not shows_unread(deep)


def test_each_logger_that_loses_its_handlers_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """One that loses them later, too."""
    options = {"capture": ["lib.a"], "root_logger": "losing", "system_metrics_every_s": 0}
    config = {"experiment_name": "e", "logging": {**options, "console": False}}
    with ExperimentLogging(config, log_dir=tmp_path) as logs:
        log = logs.logger("train")
        logging.getLogger("lib.a").handlers.clear()
        log.info("one")
        logs.logger("other").info("two")
        own = logging.getLogger("losing")
        kept = own.handlers[:]
        own.handlers.clear()
        logs.logger("third").info("three")
        own.handlers[:] = kept
    told = [r.getMessage() for r in caplog.records if "were taken off" in r.getMessage()]
    assert [text.split(":")[1].split(".")[0].strip() for text in told] == ["lib", "losing"]
    assert json.dumps(told).count("lib.a") == 1
