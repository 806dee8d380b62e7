"""event(): messages and errors, and contexts that resist being written."""

from __future__ import annotations

import json
import logging
import threading
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from recorded import lines, raw_lines, written

from foundry_fastlog import Recorder
from foundry_fastlog.recording import events

RECORDER_OPTIONS = {"ring_bytes": 64 << 10}  # the smallest


def only_line(recorder: Recorder, stream: str = "log") -> dict[str, Any]:
    (line,) = written(recorder, stream)
    return line


@pytest.mark.parametrize(
    ("level", "name"),
    [
        *((None, "INFO"), ("debug", "DEBUG"), ("Info", "INFO"), ("WARN", "WARNING")),
        *(("WARNING", "WARNING"), ("FATAL", "CRITICAL")),
        *((getattr(logging, name), name) for name in ("DEBUG", "INFO", "WARNING", "ERROR")),
        (logging.CRITICAL, "CRITICAL"),
    ],
)
def test_levels(recorder: Recorder, level: str | int | None, name: str) -> None:
    """Names in any case and logging's numbers; INFO by default."""
    assert recorder.event("m", level=level)
    assert only_line(recorder)["level"] == name


@pytest.mark.parametrize("level", ["LOUD", "", 25, 0, True, object()])
def test_unknown_levels(recorder: Recorder, level: Any) -> None:
    with pytest.raises(ValueError, match="DEBUG, INFO, WARNING, ERROR, CRITICAL"):
        recorder.event("m", level=level)


def test_error_goes_to_its_own_stream(recorder: Recorder) -> None:
    """With an exception the level is ERROR unless another one is given."""
    assert recorder.event("a", error=ValueError("v"))
    assert recorder.event("b", error=ValueError("v"), level="critical")
    assert [line["level"] for line in written(recorder, "errors")] == ["ERROR", "CRITICAL"]
    assert not (recorder.path / "log.jsonl").exists()


@pytest.mark.parametrize(
    ("error", "message", "arguments"),
    [
        (TypeError, "message must be a str, got int", {"message": 5}),
        (TypeError, "message must be a str", {"message": b"m"}),
        (TypeError, "logger must be a str", {"logger": 5}),
        *((TypeError, "error must be an exception", {"error": e}) for e in ("failed", ValueError)),
        (TypeError, "context must be a mapping", {"context": [1]}),
        *((TypeError, "step must be an int", {"step": step}) for step in ("1", 1.0, True)),
        (OverflowError, "step", {"step": 2**63}),
    ],
)
def test_wrong_arguments(recorder: Recorder, arguments: Any, error: Any, message: str) -> None:
    with pytest.raises(error, match=message):
        recorder.event(**{"message": "m", **arguments})
    recorder.close()
    assert recorder.stats()["calls"] == 0


def test_nonfinite_context(recorder: Recorder) -> None:
    """Such numbers at any depth are null, and named by their dotted path; other nulls are not."""
    nan, inf = float("nan"), float("inf")
    context = {"a": nan, "b": {"c": [1.0, -inf]}, "d": np.float32("inf"), 5: "key"}
    assert recorder.event("m", context=types.MappingProxyType(context))
    assert recorder.event("null", context={"a": None, "b": "null"})
    line, null = written(recorder, "log")
    assert line["context"] == {"a": None, "b": {"c": [1.0, None]}, "d": None, "5": "key"}
    assert line["nonfinite"] == {"a": "nan", "b.c.1": "-inf", "d": "inf"}
    assert "nonfinite" not in null


def test_context_is_taken_at_the_call(recorder: Recorder) -> None:
    """And a step may be any index."""
    context = {"a": [1]}
    recorder.event("m", step=np.int64(-7), context=context)
    context["a"].append(2)
    context["b"] = [3]
    line = only_line(recorder)
    assert (line["step"], line["context"]) == (-7, {"a": [1]})


def test_context_may_record_itself(recorder: Recorder) -> None:
    class Chatty:
        def __str__(self) -> str:
            recorder.event("inner")
            return "chatty"

    assert recorder.event("outer", context={"c": Chatty()})
    assert [line["message"] for line in written(recorder, "log")] == ["inner", "outer"]


LONG = 1 << 20


def test_long_traceback_keeps_its_end(recorder: Recorder) -> None:
    def recurse(n: int, hint: str) -> int:
        if n == 0:
            raise ValueError(hint)
        names = {"recurse": recurse, "n": n, "hint": hint}
        exec(f"def f{n}(): recurse(n - 1, hint)\nf{n}()", names)
        return n

    with pytest.raises(ValueError, match="the end") as caught:
        recurse(150, "the end")
    assert recorder.event("deep", error=caught.value)
    line = only_line(recorder, "errors")
    assert line["traceback"].endswith("ValueError: the end\n")
    assert "characters) ..." in line["traceback"]
    assert line["message"] == "deep"


def test_large_context_is_cut(recorder: Recorder) -> None:
    """Its long values keep their beginning, the others stay; many of them become one text."""
    nested = {"list": ["z" * LONG, 1], "n": float("nan")}
    assert recorder.event("m", context={"big": "y" * LONG, "step": 7, "nested": nested})
    assert recorder.event("m", context={f"k{n}": n for n in range(LONG // 16)})
    first, second = written(recorder, "log")
    big, step, nested = first["context"].values()
    assert big.startswith("yyy")
    assert big.endswith(f"... ({LONG} characters)")
    assert step == 7
    assert nested["list"][0].endswith(f"... ({LONG} characters)")
    assert nested["list"][1] == 1
    assert first["nonfinite"] == {"nested.n": "nan"}
    assert set(second["context"]) == {"truncated", "bytes"}
    assert second["context"]["truncated"].startswith('"k0":0,"k1":1')
    assert "nonfinite" not in second


def test_a_message_is_cut_and_names_numbers_like_an_event(recorder: Recorder) -> None:
    assert recorder.message("INFO", "m", "m", {"a": float("nan")})
    assert recorder.message("INFO", "m", "m", {f"k{n}": n for n in range(LONG // 16)})
    first, second = written(recorder, "log")
    assert first["nonfinite"] == {"a": "nan"}
    assert set(second["context"]) == {"truncated", "bytes"}


def test_nonfinite_stays_with_a_context_that_stays(recorder: Recorder) -> None:
    """A long message does not cost a small context its `nonfinite`; a huge one goes."""
    small = {"a": float("nan")}
    assert recorder.event("x" * LONG, context=small)
    nested: Any = [float("inf")] * 40
    for _ in range(8):
        nested = {"k" * 12: nested}
    assert recorder.event("x" * LONG, context=nested)
    first, second = written(recorder, "log")
    assert first["nonfinite"] == {"a": "nan"}
    assert "nonfinite" not in second
    assert second["context"] == json.loads(json.dumps(nested).replace("Infinity", "null"))


@pytest.mark.parametrize("ring_bytes", [64 << 10, 128 << 10, 1 << 20])
@pytest.mark.parametrize("letter", ["x", "\0", "é", "😀", '"', "\udc80"])
def test_everything_too_long_at_once(tmp_path: Path, ring_bytes: int, letter: str) -> None:
    """However the texts are escaped, the shortened line fits the ring."""
    text = letter * 20_000 if ring_bytes < 1 << 20 else letter * 200_000
    error = type("É" * 10_000, (Exception,), {})(text)
    with Recorder(tmp_path, ring_bytes=ring_bytes) as recorder:
        for size in (0, ring_bytes // 500, ring_bytes // 74, ring_bytes // 72 - 20, len(text)):
            context = {"c": letter * size, "n": float("nan")}
            assert recorder.event(text, logger=text, error=error, step=-(2**63), context=context)
    assert recorder.stats()["dropped"] == 0
    assert len(lines(tmp_path, "errors")) == 5
    assert max(map(len, raw_lines(tmp_path / "errors.jsonl"))) <= ring_bytes // 8 + 100


def test_huge_texts_are_rendered_cut(recorder: Recorder, monkeypatch: pytest.MonkeyPatch) -> None:
    """To render them takes several times their size, and orjson ends a process without memory."""
    rendered: list[int] = []
    really = events.render_members

    def render(fields: Any) -> bytes:
        members = really(fields)
        rendered.append(len(members))
        return members

    monkeypatch.setattr(events, "render_members", render)
    huge = "y" * (9 << 20)
    assert recorder.event(huge, error=ValueError(huge), context={"big": huge, "step": 7})
    assert recorder.message("INFO", "m", huge, {})
    assert recorder.message("INFO", "m", "m", {"big": huge})
    assert max(rendered) < 1 << 20
    (error,) = written(recorder, "errors")
    assert error["context"]["step"] == 7
    told = [error["message"], error["error_message"], error["context"]["big"]]
    told += [
        line["message"] if n == 0 else line["context"]["big"]
        for n, line in enumerate(written(recorder, "log"))
    ]
    assert all(text.endswith(f"... ({len(huge)} characters)") for text in told)
    assert str(9 << 20) in error["traceback"] or "characters) ..." in error["traceback"]


def test_a_block_that_somebody_else_timed(recorder: Recorder) -> None:
    """It is a line as that of a timer: within another block, or by itself."""
    assert recorder.timing("forward", 0.25, 7, parent="step")
    assert recorder.timing("step", 1, 7)
    for wrong in (-1.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="duration_s"):
            recorder.timing("step", wrong, 7)
    with pytest.raises(TypeError, match="duration_s must be a number"):
        recorder.timing("step", "1", 7)  # type: ignore[arg-type]
    inner, outer = written(recorder, "performance")
    assert inner["thread"] == outer["thread"] == threading.get_native_id()
    facts = ("name", "duration_s", "step", "depth", "parent")
    assert [inner.get(fact) for fact in facts] == ["forward", 0.25, 7, 1, "step"]
    assert [outer.get(fact) for fact in facts] == ["step", 1.0, 7, 0, None]
