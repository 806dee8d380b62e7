"""What a page says about runs, and how it is put together: bounded, escaped, without a network."""

from __future__ import annotations

import base64
import hashlib
import json
import math
import re
from importlib.resources import files
from pathlib import Path
from typing import Any

import orjson
import pytest
from oracle import START, OracleWriter, attempt, stamp_text, write_run_json

import foundry_fastlog.cli.report as report_command
from foundry_fastlog import Recorder, Run, read_run, write_report
from foundry_fastlog.export.jsonl import ExportError
from foundry_fastlog.pages import blocks, facts, happenings
from foundry_fastlog.pages.blocks import parents_of
from foundry_fastlog.pages.bundle import script_of
from foundry_fastlog.pages.facts import describe

Patch = pytest.MonkeyPatch
PAGES = files("foundry_fastlog.pages")


def data_of(page: Path) -> dict[str, Any]:
    """What the scripts of a page find in it."""
    text = page.read_text(encoding="utf-8")
    (data,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', text)
    found: dict[str, Any] = json.loads(data)
    return found


def described(run: Path, **options: Any) -> dict[str, Any]:
    found = describe(read_run(run), options.pop("starts", "latest"), **options)
    assert orjson.loads(orjson.dumps(found)) is not None
    return found


def test_what_is_vendored_is_what_was_published() -> None:
    known = json.loads((PAGES / "vendor/vendored.json").read_text())
    assert known["version"] in known["source"]
    assert "MIT" in (PAGES / "vendor/uPlot.LICENSE").read_text()
    there = {path.name for path in (PAGES / "vendor").iterdir()} - {"vendored.json"}
    assert there == set(known["sha256"])
    for name, digest in known["sha256"].items():
        assert hashlib.sha256((PAGES / "vendor" / name).read_bytes()).hexdigest() == digest
    assert f"v{known['version']}" in (PAGES / "vendor/uPlot.iife.min.js").read_text()[:200]


def test_every_script_is_in_a_page_once_after_those_that_it_uses() -> None:
    found = {path.stem for path in (PAGES / "assets").iterdir() if path.suffix == ".js"}
    used_by: dict[str, set[str]] = {}
    for entry in ("report", "live"):
        script = script_of(f"{entry}.js")
        order = re.findall(r"^const module_(\w+) = ", script, re.MULTILINE)
        used_by[entry] = set(order)
        assert order[-1] == entry
        assert len(order) == len(set(order))
        known: list[str] = []
        for made, used in re.findall(r"^const module_(\w+)|= module_(\w+);$", script, re.MULTILINE):
            known += [made] if made else []
            assert not used or used in known[:-1], used
        assert not re.search(r"^(import|export) ", script, re.MULTILINE)
    assert used_by["report"] | used_by["live"] == found
    assert used_by["report"] - used_by["live"] == {"report", "source"}


def test_a_page_is_one_file_that_asks_nobody(tmp_path: Path) -> None:
    """Its policy allows its own script and style, by their hashes, and nothing else."""
    OracleWriter(tmp_path / "run").fill(range(3))
    page = tmp_path / "report.html"
    found = write_report(tmp_path / "run", page)
    text = page.read_text(encoding="utf-8")
    assert (found.path, found.bytes) == (page, len(text.encode()))
    assert (found.runs, found.curves, found.complete) == (1, 1, True)
    policy = dict(
        part.split(" ", 1)
        for part in re.findall(r'Policy" content="(.*?)"', text)[0].split("; ")
        if part
    )
    assert policy["default-src"] == "'none'"
    for tag, rule in (("script", "script-src"), ("style", "style-src")):
        (inner,) = re.findall(rf"<{tag}>(.*?)</{tag}>", text, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(inner.encode()).digest()).decode()
        assert policy[rule] == f"'sha256-{digest}'"
    links = set(re.findall(r"(?:https?:)?//[\w.-]+\.[a-z]+[\w/.-]*", text))
    assert links <= {"https://github.com/leeoniya/uPlot", "http://www.w3.org/2000/svg"}
    assert not re.search(r"<(?:script|img|iframe|link)[^>]* (?:src|href)=\"(?!data:)", text)


def test_where_the_time_went_is_in_a_report(tmp_path: Path) -> None:
    """Of all starts, or of the one that was asked for; of a run without records, nothing."""
    writer = OracleWriter(tmp_path / "run", tick_s=0.5)
    for step in range(10):
        writer.timing("step", 0.5, step)
    attempt(tmp_path / "run", 1, tick_s=0.5).fill(range(10, 20))
    OracleWriter(tmp_path / "empty")
    page = tmp_path / "report.html"
    write_report([tmp_path / "run", tmp_path / "empty"], page)
    run, empty = data_of(page)["runs"]
    assert empty["goodput"] is None
    assert {part["name"] for part in run["goodput"]["parts"]} == {"step", "between starts"}
    assert run["goodput"]["wall_s"] == pytest.approx(3605.0)
    assert run["goodput"]["loss"].endswith("between starts, before start 1.")
    write_report(tmp_path / "run", page, starts=0)
    (run,) = data_of(page)["runs"]
    assert run["goodput"]["wall_s"] == pytest.approx(5.0)


def test_hostile_texts_stay_texts(tmp_path: Path) -> None:
    evil = "</script><script>alert(1)</script><!--<img src=x onerror=alert(2)>\u2028\0"
    run = tmp_path / "run<b>&"
    write_run_json(run, name=evil, config={evil: {evil: evil}})
    writer = OracleWriter(run)
    writer.metrics_dict(0, {evil: 1.0, "text": evil})
    writer.log(evil, logger=evil, context={evil: evil})
    writer.error(evil, ValueError(evil))
    writer.timing(evil, 0.5)
    page = tmp_path / "report.html"
    write_report(run, page, title=evil)
    text = page.read_text(encoding="utf-8")
    assert text.count("<script") == text.count("</script>") == 4
    assert "<img" not in text
    (shown,) = data_of(page)["runs"]
    assert [entry["name"] for entry in shown["curves"]] == [evil]
    assert shown["config"] == [[f"{evil}.{evil}", evil]]
    assert shown["messages"]["lines"][0][4] == evil
    assert shown["name"] == "run<b>&"


def test_a_run_is_described_as_it_is(tmp_path: Path) -> None:
    """Beside what a summary says: in small, what is in the files."""
    with Recorder(tmp_path, config={"lr": 0.1, "model": {"layers": 2, "on": True, "e": {}}}) as r:
        for step in range(4):
            with r.timer("step", step=step), r.timer("forward"):
                pass
            r.record(step, loss=float(4 - step), note="x")
        r.record(4, loss=math.nan)
        r.system({"cpu": 3.0})
    found = described(tmp_path)
    assert (found["state"], found["error"], found["complete"]) == ("ended", "", True)
    assert (found["steps"], found["ranks"]) == ([0, 4], [0])
    by_name = {row["name"]: row for row in found["metrics"]}
    assert set(by_name) == {"loss", "note", "cpu (system)"}
    loss = by_name["loss"]
    assert (loss["last"], loss["min"], loss["max_step"], loss["bad"]) == ("NaN", 1.0, 0, 1)
    assert (by_name["note"]["last"], by_name["note"]["mean"]) == ("x", None)
    blocks_found = {row["name"]: row["parent"] for row in found["timings"]}
    assert blocks_found == {"step": None, "forward": "step"}
    assert found["timing_base"][0] == "step"
    assert found["config"] == [
        ["lr", "0.1"],
        ["model.layers", "2"],
        ["model.on", "true"],
        ["model.e", "{}"],
    ]
    (start,) = found["starts"]
    assert (start["number"], start["state"], start["ranks"]) == (0, "ended", 1)
    assert found["cost"] == [start["logging_s"], start["wall_s"]]
    assert found["lines"] == sum(check["lines"] for check in found["checks"])
    assert (found["problems"], found["more_problems"], found["marks"]) == ([], 0, [])


def test_only_what_was_asked_for_is_described(tmp_path: Path) -> None:
    OracleWriter(tmp_path).fill(range(3), loss=1.0, lr=2.0)
    assert [row["name"] for row in described(tmp_path, patterns=["l*s"])["metrics"]] == ["loss"]


def test_starts_failures_and_checkpoints_are_marks(tmp_path: Path) -> None:
    writer = OracleWriter(tmp_path).fill(range(10))
    writer.log("Checkpoint saved", step=5)
    writer.log("no checkpoint found", step=6)
    writer.error("boom", ValueError("bad"), step=8, fingerprint="a" * 16)
    writer.nonfinite("loss", "nan", 9)
    attempt(tmp_path, 1).fill(range(5, 12))
    found = described(tmp_path)
    assert found["marks"] == [[5, "start 1"], [8, "ValueError"], [5, "checkpoint"]]
    assert found["left_out"] == {"metrics": 5}
    assert described(tmp_path, starts=1)["marks"] == []


def test_equal_errors_are_one_group(tmp_path: Path) -> None:
    writer = OracleWriter(tmp_path)
    times = [writer.error("boom", ValueError("bad"), step=step)["timestamp"] for step in (3, 7)]
    OracleWriter(tmp_path, rank=2).error("boom", ValueError("bad"), step=9, context={"a": [1, 2]})
    writer.error("other", KeyError("k"), fingerprint="b" * 16)
    writer.nonfinite("loss", "nan", 9)
    found = described(tmp_path)["errors"]
    assert [(one["type"], one["count"], one["ranks"]) for one in found["groups"]] == [
        ("ValueError", 3, (0, 2)),
        ("KeyError", 1, (0,)),
        ("nonfinite", 1, (0,)),
    ]
    first = found["groups"][0]
    assert first["first"] == {"time": stamp_text(START), "step": 3}
    assert (first["first"]["time"], first["last"]["step"]) == (times[0], 7)
    assert "ValueError: bad" in first["traceback"]


def test_what_a_page_has_no_room_for_is_named(tmp_path: Path, monkeypatch: Patch) -> None:
    monkeypatch.setattr(happenings, "_FIRST", 2)
    monkeypatch.setattr(happenings, "_LAST", 3)
    monkeypatch.setattr(happenings, "_MOST_GROUPS", 2)
    monkeypatch.setattr(facts, "_MOST_KEYS", 2)
    monkeypatch.setattr(facts, "_MOST_PROBLEMS", 1)
    write_run_json(tmp_path, config={"a": 1, "b": {"c": 2, "d": 3}, "e": 4})
    writer = OracleWriter(tmp_path)
    for number in range(9):
        writer.log(f"m{number}", level="INFO" if number else "DEBUG")
        writer.error("x", ValueError("y"), fingerprint=f"{number:016}")
        writer.dropped("metrics", 2)
    writer.dropped("log", 1)
    writer.torn("metrics", b"damaged\ndamaged\n")
    found = described(tmp_path)
    messages = found["messages"]
    assert [line[4] for line in messages["lines"]] == ["m0", "m1", "m6", "m7", "m8"]
    assert (messages["total"], messages["levels"]) == (9, {"INFO": 4, "DEBUG": 1})
    assert (len(found["errors"]["groups"]), found["errors"]["omitted"]) == (2, 7)
    assert found["config"] == [["a", "1"], ["b.c", "2"], ["...", "2 more"]]
    assert (len(found["problems"]), found["more_problems"]) == (1, 1)
    assert (found["complete"], found["dropped"]) == (False, {"metrics": 18, "log": 1})
    assert found["checks"][0]["damaged"] == 2


def test_what_is_nested_too_deeply_is_left_out(tmp_path: Path) -> None:
    deep: Any = 1
    for _ in range(400):
        deep = [deep]
    (tmp_path / "run.json").write_text(json.dumps({"config": {"deep": deep}}))
    line = '{"timestamp":"2026-01-30T14:32:15.000000Z","seq":0,"level":"INFO","logger":"x",'
    line += f'"message":"m","context":{{"deep":{json.dumps(deep)},"flat":1,"list":[1]}}}}\n'
    (tmp_path / "log.jsonl").write_text(line)
    (tmp_path / "metrics.jsonl").touch()
    found = described(tmp_path)
    assert found["config"] == [["deep", "..."]]
    assert found["messages"]["lines"][0][5] == [["deep", "..."], ["flat", "1"], ["list", "[1]"]]


def test_a_run_that_says_little_is_described(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").touch()
    found = described(tmp_path)
    assert (found["state"], found["config"], found["cost"]) == ("unknown", [], None)
    (tmp_path / "log.jsonl").write_text(
        '{"timestamp":"2026-01-30T14:32:15.000000Z","seq":0,"message":7,"context":[]}\n'
    )
    found = described(tmp_path)  # a message is a text
    assert (found["messages"]["total"], found["complete"]) == (0, False)


def test_nested_blocks_never_lead_back(tmp_path: Path, monkeypatch: Patch) -> None:
    writer = OracleWriter(tmp_path)
    for name, parent, seconds in (
        ("b", "a", 1.0),
        ("a", "b", 1.0),
        ("c", "a", 0.1),
        ("c", "b", 0.2),
        ("d", None, 1.0),
        ("self", "self", 1.0),
    ):
        writer.timing(name, seconds, parent=parent)
    writer.dropped("performance", 1)
    assert parents_of(Run(tmp_path), "latest") == {"b": "a", "c": "b"}
    monkeypatch.setattr(blocks, "SAMPLED", 1)
    assert parents_of(Run(tmp_path), "latest") == {"b": "a"}


def test_ranks_are_compared_by_their_medians(tmp_path: Path) -> None:
    for rank in range(3):
        writer = OracleWriter(tmp_path, rank=rank)
        for step, seconds in enumerate((0.1, 0.2, 0.9)):
            writer.timing("step", seconds * (rank + 1), step)
        if rank == 1:
            writer.timing("save", 2.0)
    OracleWriter(tmp_path, rank=7).metrics(0, loss=1.0)
    found = described(tmp_path)["by_rank"]
    assert found["ranks"] == [0, 1, 2, 7]
    assert found["medians"]["save"] == [None, 2.0, None, None]
    assert found["medians"]["step"][3] is None
    assert found["medians"]["step"][:3] == pytest.approx([0.2, 0.4, 0.6])
    OracleWriter(tmp_path / "one").timing("step", 1.0)
    assert described(tmp_path / "one")["by_rank"] == {}


def test_several_runs_of_one_name_are_told_apart(tmp_path: Path) -> None:
    for parent in "ab":
        OracleWriter(tmp_path / parent / "run").fill(range(3))
    page = tmp_path / "report.html"
    runs = [tmp_path / "a" / "run", read_run(tmp_path / "b" / "run")]
    assert write_report(runs, page, metrics="loss").curves == 2
    found = data_of(page)
    assert [run["name"] for run in found["runs"]] == ["run", "run (2)"]
    assert found["title"] == "run, run"


def test_a_report_replaces_a_report_alone(tmp_path: Path) -> None:
    OracleWriter(tmp_path / "run").fill(range(3))
    page = tmp_path / "report.html"
    write_report(tmp_path / "run", page)
    write_report(str(tmp_path / "run"), page)
    page.write_text("mine")
    with pytest.raises(ExportError, match="exists; use --force"):
        write_report(tmp_path / "run", page)
    write_report(tmp_path / "run", page, force=True)
    with pytest.raises(ValueError, match="there is no run"):
        write_report([], page)
    with pytest.raises(ValueError, match="no metric fits x; there are: loss"):
        write_report(tmp_path / "run", page, metrics=["x"])


def test_the_command_writes_a_page(tmp_path: Path, command: Any, monkeypatch: Patch) -> None:
    opened: list[str] = []
    monkeypatch.setattr(report_command.webbrowser, "open", opened.append)
    run, page = tmp_path / "run", tmp_path / "page.html"
    writer = OracleWriter(run).fill(range(3), loss=1.0, lr=2.0)
    said = command("report", run, run, "-o", page, "-m", "l*", "--open", "--title", "both")
    assert said.out.startswith(f"{page}: 2 runs, 4 curves, ")
    assert opened == [page.as_uri()]
    assert data_of(page)["title"] == "both"
    writer.torn("metrics", b"torn")
    printed = command("report", run, "-o", page, "--json", "--starts", "0", code=1)
    assert json.loads(printed.out)["complete"] is False
    for arguments, said_so in (
        (["-m", "x"], "no metric fits x"),
        (["--starts", "7"], "has no start 7"),
        (["-o", run / "metrics.jsonl"], "would look like a file of the run"),
    ):
        assert said_so in command("report", run, "-o", page, *arguments, code=2).err
    assert "does not exist" in command("report", tmp_path / "none", "-o", page, code=2).err
