"""The schemas and docs/format.md: one contract for the oracle, the recorder and the page."""

from __future__ import annotations

import contextlib
import json
import math
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from contract import VALIDATORS, in_order, schema
from jsonschema import Draft202012Validator
from oracle import OracleWriter, write_run_json

from foundry_fastlog import Recorder, read_run
from foundry_fastlog.run.files import STREAMS, parse_name

PAGE = Path(__file__).parents[2] / "docs" / "format.md"
READING = PAGE.with_name("reading.md").read_text("utf-8")


def check_files(run: Path) -> dict[str, int]:
    """Validate every line of a run, key order included; count the lines per stream."""
    counts = dict.fromkeys(STREAMS, 0)
    for path in run.glob("*.jsonl"):
        name = parse_name(path.name)
        assert name is not None, path
        data = path.read_bytes()
        assert b"\r" not in data
        assert not data or data.endswith(b"\n")
        for raw in data.split(b"\n")[:-1]:
            line = json.loads(raw.decode("utf-8"))
            VALIDATORS[name.stream].validate(line)
            assert list(line) == in_order(name.stream, line)
            counts[name.stream] += 1
    return counts


def blocks(language: str, text: str = "") -> list[str]:
    """The code blocks of a language, of the page or of a part of it."""
    block = re.compile(rf"^```{language}\n(.*?)^```$", re.MULTILINE | re.DOTALL)
    return block.findall(text or PAGE.read_text("utf-8"))


@pytest.mark.parametrize("name", sorted(VALIDATORS))
def test_a_schema_is_a_schema(name: str) -> None:
    Draft202012Validator.check_schema(schema(name))
    assert schema(name)["$id"].endswith(f"/{name}.schema.json")


def test_the_oracle_keeps_the_contract(tmp_path: Path) -> None:
    writer = OracleWriter(tmp_path, segment_lines=2)
    writer.metrics(0, epoch=1, loss=math.nan, n=3, note="x", ok=True, none=None)
    writer.metrics(1, epoch=0.5)
    writer.metrics_dict(2, {"loss": None, "lr": math.nan}, missing={"loss": "timeout"})
    writer.summary(1, loss=math.inf)
    writer.timing("forward", 0.1, step=3, depth=1, parent="step", error="ValueError")
    writer.timing("step", 0.2)
    writer.timing("step", 0.2, device="cuda:0", device_duration_s=0.3)
    writer.timing("step", 0.2, error="E", device="mps:0", device_duration_s="driver_error_700")
    writer.nonfinite("loss", "-inf", 3)
    writer.error("boom", ValueError("x"), step=3, context={"x": -math.inf})
    writer.error("boom", ValueError("x"))
    writer.log("hello", step=1, context={"x": math.nan})
    writer.system(cpu=1.0, note="x", none=None)
    writer.system(step=3, cpu=math.nan)
    writer.rewind(2)
    for stream in STREAMS:
        writer.dropped(stream, 3)
    assert check_files(tmp_path) == {
        "metrics": 6,
        "performance": 6,
        "errors": 4,
        "log": 2,
        "system": 3,
    }
    VALIDATORS["run"].validate(write_run_json(tmp_path, attempts=2))
    VALIDATORS["run"].validate(write_run_json(tmp_path, ended=False))


def test_the_recorder_keeps_the_contract(tmp_path: Path) -> None:
    with Recorder(tmp_path, config={"lr": 0.1}, segment_bytes=4096) as recorder:
        for step in range(100):
            with recorder.timer("step", step=step), recorder.timer("forward"):
                recorder.record(step, epoch=step / 10, loss=1 / (step + 1), n=step, ok=True)
        recorder.record(100, loss=math.nan, up=math.inf, down=-math.inf, note='a"\n\u2028\udc80')
        recorder.record(101, epoch=math.nan, none=None)
        recorder.log({"a": {"b": 1.0}, "epoch": 3})
        with contextlib.suppress(KeyError), recorder.timer("fails"):
            raise KeyError
        recorder.event("boom", error=ValueError("bad"), step=7, context={"x": {"y": math.nan}})
        recorder.event("hello", level="WARNING", context={"x": math.inf})
        recorder.event("plain")
        recorder.system({"cpu": 1.5, "gpu": math.nan}, step=7)
        recorder.system({"cpu": 2})
    counts = check_files(tmp_path)
    assert counts == {"metrics": 103, "performance": 201, "errors": 1, "log": 2, "system": 2}
    VALIDATORS["run"].validate(json.loads((tmp_path / "run.json").read_text("utf-8")))
    run = read_run(tmp_path)
    assert all(check.complete for check in run.check())
    assert run.problems == []
    lines = list(run.lines("metrics"))
    assert [line["step"] for line in lines] == list(range(103))
    values = [*lines[100]["metrics"].values(), lines[101]["epoch"]]
    values += [error["context"]["x"]["y"] for error in run.lines("errors")]
    assert repr(values) == repr(
        [math.nan, math.inf, -math.inf, 'a"\n\u2028\\udc80', *[math.nan] * 2]
    )


EXCEPTION = dict.fromkeys(("message", "error_message", "traceback"), "")
GOOD: dict[str, dict[str, Any]] = {
    "metrics": {"step": 1, "metrics": {"x": 1.0}},
    "performance": {"name": "x", "duration_s": 0.1, "depth": 0, "thread": 1},
    "errors": {"level": "ERROR", "logger": "x", "error_type": "E", "context": {}, **EXCEPTION},
    "log": {"level": "INFO", "logger": "x", "message": "", "context": {}},
    "system": {"system": {"cpu": 1.5}},
}
START: dict[str, Any] = {"timestamp": "2026-01-30T14:32:15.123456Z", "seq": 0}


def check_refused(validator: Draft202012Validator, good: dict[str, Any], *bad: Any) -> None:
    """A line is valid as it is, and not with each of other fields."""
    assert validator.is_valid(good)
    for fields in bad:
        assert not validator.is_valid({**good, **fields}), fields


def check_needed(validator: Draft202012Validator, good: dict[str, Any]) -> None:
    """Each field has to be there, and to have its type."""
    for name in good:
        assert not validator.is_valid({key: good[key] for key in good if key != name}), name
    check_refused(validator, good, *({name: [value]} for name, value in good.items()))


@pytest.mark.parametrize("stream", STREAMS)
def test_the_schemas_refuse_what_breaks_the_contract(stream: str) -> None:
    good, validator = START | GOOD[stream], VALIDATORS[stream]
    check_needed(validator, good)
    times = ("2026-01-30 14:32:15.123456", "2026-01-30T14:32:15Z", "2026-13-30T14:32:15.123456Z")
    bad: list[dict[str, Any]] = [{"timestamp": time} for time in times]
    bad += [{"seq": -1}, {"seq": 1.5}, {"step": "1"}, {"step": 2**63}, {"unknown": 1}]
    bad += [{"dropped": 3}]
    if stream != "performance":
        bad += [{"nonfinite": {}}, {"nonfinite": {"x": "NaN"}}, {"nonfinite": ["x"]}]
    if stream == "metrics":
        bad += [{"metrics": {"x": [1]}}, {"metrics": {"x": {}}}, {"summary": {}}, {"epoch": "1"}]
        bad += [{"missing": value} for value in ({}, ["x"], {"x": "late"}, {"x": None})]
        bad += [{"missing": {"x": text}} for text in ("driver_error_", "driver_error_-1", "lost ")]
    if stream == "system":
        bad += [{"system": {"x": [1]}}, {"rewind": 3}]
    if stream == "performance":
        known = {"device": "cuda:0", "device_duration_s": 0.1}
        lost = {"device_duration_s": None, "missing": {"device_duration_s": "lost"}}
        assert validator.is_valid(good | known)
        assert validator.is_valid(good | known | lost)
        bad += [{"device": "cuda:0"}, {"device_duration_s": 0.1}, lost]
        bad += [known | {"device": name} for name in ("cuda", "cuda:", "tpu:0", "cuda:-1", 0)]
        bad += [known | {"device_duration_s": value} for value in (None, -0.1, "0.1")]
        bad += [known | {"missing": {"device_duration_s": "lost"}}]  # it is there
        for names in ({}, {"duration_s": "lost"}, {"device_duration_s": "x"}):
            bad += [known | lost | {"missing": names}]
    if stream == "errors":
        bad += [{"event": "nonfinite"}]  # an exception is none
    check_refused(validator, good, *bad)
    marker = {**START, "dropped": 17}
    check_refused(validator, marker, {"dropped": 0}, {"dropped": "17"}, {"step": 1})
    back = {**START, "rewind": -3}
    if stream in ("metrics", "performance"):
        check_refused(
            validator, back, {"rewind": 1.5}, {"rewind": "3"}, {"step": 1}, {"epoch": "1"}
        )
    else:
        assert not validator.is_valid(back)


def test_the_schema_of_an_event_refuses_what_breaks_the_contract() -> None:
    """A line of errors without an exception is the one that is described, or none."""
    good = {**START, "level": "WARNING", "logger": "x", "message": "", "event": "nonfinite"}
    good |= {"step": 1, "context": {"key": "loss", "value": "nan"}}
    check_needed(VALIDATORS["errors"], good)
    bad: list[dict[str, Any]] = [{"event": "other"}, {"error_type": "E"}, {"unknown": 1}]
    bad += [{"context": context} for context in ({}, {"key": "x"}, {"key": "x", "value": "NaN"})]
    check_refused(VALIDATORS["errors"], good, *bad)


def test_the_schema_of_run_json_refuses_what_breaks_the_contract(tmp_path: Path) -> None:
    good = write_run_json(tmp_path)
    for name in good:
        facts = {key: good[key] for key in good if key != name}
        assert not VALIDATORS["run"].is_valid(facts), name
    assert VALIDATORS["run"].is_valid({**good, "format": 2})
    assert not VALIDATORS["run"].is_valid({**good, "format": 3})
    (attempt,) = good["attempts"]
    bad = ({"attempts": [{**attempt, name: [1]}]} for name in attempt)
    check_refused(VALIDATORS["run"], good, *bad)


@pytest.fixture
def documented(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A place with the page's runs/exp0, written by the recorder, and its command on PATH."""
    with Recorder(tmp_path / "runs" / "exp0", rank=0, segment_bytes=4096) as recorder:
        for step in range(100):
            with recorder.timer("step", step=step):
                recorder.record(step, loss=1 / (step + 1), lr=1e-4)
        recorder.record(100, loss=math.nan)
    with Recorder(tmp_path / "runs" / "exp0", rank=1) as recorder:
        recorder.record(0, loss=0.5)
    (tmp_path / "bin").mkdir()
    script = tmp_path / "bin" / "foundry-fastlog"
    script.write_text(f'#!/bin/sh\nexec {sys.executable} -m foundry_fastlog "$@"\n')
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    "code",
    [code for code in blocks("sh", READING) if shutil.which("jq") or not code.startswith("jq")],
    ids=lambda code: code.split()[0],
)
def test_the_pages_commands_run(code: str, documented: Path) -> None:
    done = subprocess.run(["sh", "-e", "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout
    if "> metrics.jsonl" in code:
        assert len((documented / "metrics.jsonl").read_text().splitlines()) == 102


def test_the_pages_examples_are_valid_lines() -> None:
    headings = re.split(r"^### (.*)$", PAGE.read_text("utf-8"), flags=re.MULTILINE)
    sections = dict(zip(headings[1::2], headings[2::2], strict=True))
    for stream in (*STREAMS, "drop markers", "rewind"):
        texts = blocks("json", sections[stream])
        texts = [text for text in texts if text.startswith('{"timestamp"')]
        assert texts
        for raw in "".join(texts).splitlines():
            line = json.loads(raw)
            validator = VALIDATORS[stream if stream in STREAMS else "metrics"]
            validator.validate(line)
            assert list(line) == in_order(stream, line)
    facts = [json.loads(text) for text in blocks("json") if not text.startswith('{"timestamp"')]
    marks = {"how": "end", "attempts": "run", "argv": "start", "host": "host"}
    kinds = [next(kind for mark, kind in marks.items() if mark in fact) for fact in facts]
    assert sorted(kinds) == ["end", "host", "run", "start"]
    for kind, fact in zip(kinds, facts, strict=True):
        VALIDATORS[kind].validate(fact)
        assert list(fact) == [name for name in schema(kind)["properties"] if name in fact]


def test_the_page_names_every_field_and_file() -> None:
    text = PAGE.read_text("utf-8")
    for name in VALIDATORS:
        assert f"`{name}`" in text
        shape = schema(name)
        for field in (field for one in shape.get("oneOf", [shape]) for field in one["properties"]):
            assert f"`{field}`" in text or f'"{field}"' in text, field
    for name in re.findall(r"[├└]── (\S+\.jsonl)", text):
        assert parse_name(name) is not None, name
