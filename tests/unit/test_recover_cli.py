"""``foundry-fastlog recover`` and ``foundry_fastlog.recover``: what they do, say and exit with."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import rings
from recorded import run_python
from rings import RingBuilder, ring_of

import foundry_fastlog
from foundry_fastlog import Recorder, RingReport, RunNotFoundError, read_run
from foundry_fastlog.reading.preview import preview, runs_with_rings
from foundry_fastlog.reading.run import ReadProblemError

Command = Callable[..., Any]
Patch = pytest.MonkeyPatch


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    tree = tmp_path_factory.mktemp("killed")
    for run in rings.unpack_killed_runs(tmp_path_factory.mktemp("all"))[1:4]:
        rings.copy_run(run, tree / run.name)
    return tree


@pytest.fixture
def tree(killed: Path, tmp_path: Path) -> Path:
    """A copy of it, a run that was closed beside them, and what is no run."""
    tree = tmp_path / "runs"
    shutil.copytree(killed, tree)
    (tree / "deep" / "er").mkdir(parents=True)
    (tree / "3").rename(tree / "deep" / "er" / "3")
    with Recorder(tree / "closed") as recorder:
        recorder.record(0, x=1)
    (tree / ".hidden").mkdir()
    shutil.copytree(tree / "1", tree / ".hidden" / "run")
    return tree


def states(directory: Path) -> dict[str, object]:
    return {str(p): p.read_bytes() for p in directory.rglob("*") if p.is_file()}


def in_json(command: Command, *arguments: object, code: int = 0) -> dict[str, Any]:
    captured = command("recover", *arguments, "--json", code=code)
    assert captured.err == ""
    found: dict[str, Any] = json.loads(captured.out)
    return found


def words(text: str) -> str:
    return " ".join(text.split())


def recovered_row(text: str) -> list[str]:
    return next(line for line in text.splitlines() if "recovered" in line).split()


def test_a_tree_of_runs_is_recovered(tree: Path, command: Command) -> None:
    expected = sum(report.emitted for report in preview(tree))
    out = command("recover", tree).out
    assert out.count("recovered") == 3
    assert "deep/er/3" in out
    assert f"3 rings, {expected:,} lines written" in out
    assert ".hidden" not in out
    for run in (tree / "1", tree / "2", tree / "deep" / "er" / "3"):
        assert list((run / ".fastlog").glob("*.ring")) == []
        assert all(check.complete for check in read_run(run).check())
    assert "nothing to recover" in command("recover", tree).out


def test_titles_and_heads_are_whole_in_80_columns(
    tree: Path, monkeypatch: Patch, command: Command
) -> None:
    """A title that is wider than its table is not folded, and no head of a column is."""
    monkeypatch.setenv("COLUMNS", "80")
    with Recorder(tree / "said") as recorder:
        recorder.event("x")
    assert "Errors and messages" in command("summary", tree / "said").out.splitlines()
    long = tree / "a-long-experiment-name_with" / "parts_2026-01-30"
    long.parent.mkdir()
    (tree / "1").rename(long)
    lines = command("recover", "--dry-run", tree).out.splitlines()
    assert lines[:2] == ["", "Rings"]
    columns = "run writer ring outcome found emitted skipped damaged holes cut"
    assert lines[2].split() == columns.split()


def test_one_run_is_recovered_and_counted(tree: Path, monkeypatch: Patch, command: Command) -> None:
    """The table fits into 80 columns and has what was found, emitted and skipped."""
    monkeypatch.setenv("COLUMNS", "80")
    (report,) = preview(tree / "1")
    out = command("recover", tree / "1").out
    columns = "run writer ring outcome found emitted skipped damaged holes cut"
    assert out.splitlines()[2].split() == columns.split()
    row = recovered_row(out)
    assert row[:2] == ["1", "r1"]
    assert row[3:] == ["recovered", str(report.found), str(report.emitted), "-", "-", "-", "-"]
    assert max(map(len, out.splitlines())) <= 80


def test_a_dry_run_changes_nothing(tree: Path, command: Command) -> None:
    """It says what would be done, and the real thing then does that."""
    before = states(tree)
    out = command("recover", "--dry-run", tree).out
    assert out.count("recoverable") == 3
    assert "lines would be written" in out
    promised = in_json(command, "--dry-run", tree)
    assert states(tree) == before
    done = in_json(command, tree)
    assert (promised["dry_run"], done["dry_run"]) == (True, False)
    for said, outcome in ((promised, "recoverable"), (done, "recovered")):
        assert {ring.pop("outcome") for ring in said["rings"]} == {outcome}
    assert done["rings"] == promised["rings"]
    assert all(ring["found"] == ring["emitted"] > 0 for ring in done["rings"])


@pytest.mark.parametrize(("flags", "outcome"), [(["--dry-run"], "damaged"), ([], "quarantined")])
def test_a_damaged_ring_exits_with_1_and_says_why(
    flags: list[str], outcome: str, tree: Path, command: Command
) -> None:
    """The others are recovered all the same; nothing of it is deleted."""
    ring = ring_of(tree / "1")
    content = b"\x1b[31m" + ring.read_bytes()[5:]
    ring.write_bytes(content)
    out = command("recover", *flags, tree, code=1).out
    assert outcome in out
    assert "does not start like a ring file" in out.replace("\n", " ")
    place = ring if flags else ring.parent / "quarantine" / ring.name
    assert place.read_bytes() == content
    # It stays a problem, by its reason, until somebody removes it.
    for again in (["recover", "--dry-run", tree], ["recover", tree], ["summary", tree / "1"]):
        assert "does not start like a ring file" in words(command(*again, code=1).out)
    assert read_run(tree / "1").unread == 1
    with pytest.raises(ReadProblemError, match="does not start like a ring file"):
        read_run(tree / "1", strict=True)
    (ring.parent / "quarantine" / ring.name).unlink(missing_ok=True)
    command("recover", tree)
    command("summary", tree / "1")


def test_records_that_cannot_be_rendered_exit_with_1(tmp_path: Path, command: Command) -> None:
    """The rest of their ring is recovered, and the count says how many are lost."""
    builder = RingBuilder()
    builder.fragment('"good":1')
    builder.record(99, 0, b"what is this")
    builder.put(tmp_path)
    (tmp_path / "metrics.jsonl").touch()
    out = command("summary", tmp_path, code=1).out
    assert "1 records in it are damaged" in words(out)
    (ring,) = in_json(command, "--dry-run", tmp_path, code=1)["rings"]
    assert ring["damaged"] == 1
    row = recovered_row(command("recover", tmp_path, code=1).out)
    assert row[3:] == ["recovered", "2", "1", "-", "1", "-", "-"]


def test_a_summary_says_where_pending_lines_are(tree: Path, command: Command) -> None:
    """A person who looks at a killed run learns of the command."""
    (tree / "1" / ".fastlog" / "x.ring-at").write_text("/nowhere/x.ring\n")
    (report, _) = sorted(preview(tree / "1"), key=lambda one: one.outcome, reverse=True)
    out = words(command("summary", tree / "1", code=1).out)
    for text in (
        f"{report.emitted} lines in the rings of killed processes",
        "foundry-fastlog recover",
        "complete NO: see the problems below",
        "the records of a process cannot be read: open /nowhere/x.ring",
    ):
        assert text in out
    said = json.loads(command("summary", "--json", tree / "1", code=1).out)
    assert sorted(ring["outcome"] for ring in said["rings"]) == ["elsewhere", "recoverable"]
    for command_line in (["recover", "--dry-run"], ["recover"]):
        out = words(command(*command_line, tree / "1", code=1).out)
        assert "elsewhere" in out
        assert "remove the pointer" in out


def test_an_export_names_unreadable_rings(tree: Path, tmp_path: Path, command: Command) -> None:
    """What it holds is behind the last line: no gap in the numbers would show it."""
    export = ["export", tree / "closed", "--to", tmp_path / "out.jsonl"]
    assert "Problems" not in command(*export).err
    private = tree / "closed" / ".fastlog"
    private.mkdir(exist_ok=True)
    (private / "x.ring").write_bytes(b"no ring")
    err = words(command(*export, "--force", code=1).err)
    assert "NOT complete" in err
    assert "What is missing" not in err  # no line is, as far as the files tell
    assert "the records of a killed process cannot be read" in err


@pytest.mark.parametrize("what", ["missing", "file", "empty"])
def test_no_run_exits_with_2(what: str, tmp_path: Path, command: Command) -> None:
    """A wrong path is named, with what to give instead."""
    (tmp_path / "file").touch()
    (tmp_path / "empty").mkdir()
    for flags in ([], ["--dry-run"], ["--json"]):
        captured = command("recover", *flags, tmp_path / what, code=2)
        assert captured.out == ""
        assert captured.err.startswith("error: ")
        assert what in captured.err


def test_a_run_without_rings_has_nothing_to_recover(tmp_path: Path, command: Command) -> None:
    """Written by another program, or on a disk that no ring was on; also in a tree."""
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "metrics.jsonl").touch()
    for path in (tmp_path / "run", tmp_path):
        assert "nothing to recover" in command("recover", path).out
        assert in_json(command, "--dry-run", path) == {
            "dry_run": True,
            "rings": [],
            "text_logs": [],
        }


def test_without_the_extension_readers_and_recovery_say_what_is_missing(tree: Path) -> None:
    """What is in the files is read; what is in the rings is a problem of the run."""
    code = """
import sys
sys.modules["foundry_fastlog._core"] = None
from foundry_fastlog import read_run
from foundry_fastlog.cli.main import main

tree, run = sys.argv[1:]
assert main(["recover", "--dry-run", tree]) == 1
assert main(["summary", run]) == 2
(problem,) = read_run(run).problems
assert "native part of foundry_fastlog, which reads rings, is missing" in problem.message
sys.exit(main(["recover", tree]))
"""
    done = run_python(code, tree, tree / "1", returncode=2)
    assert "pip install" in done.stderr.replace("\n", " ")
    assert done.stdout.count("which reads rings, is missing") >= 3


def test_recover_returns_a_report_per_ring(tree: Path) -> None:
    promised = preview(tree)
    reports = foundry_fastlog.recover(tree)
    assert [report.ring for report in reports] == [report.ring for report in promised]
    assert all(isinstance(report, RingReport) for report in reports)
    assert all(report.sound and report.outcome == "recovered" for report in reports)
    assert [str(report.run.relative_to(tree)) for report in reports] == ["1", "2", "deep/er/3"]
    assert foundry_fastlog.recover(str(tree)) == []
    with pytest.raises(RunNotFoundError):
        foundry_fastlog.recover(tree / "nothing")


def test_recover_tells_of_rings_that_it_may_not_list(tree: Path, monkeypatch: Patch) -> None:
    """Silence would mean that there is nothing."""
    monkeypatch.setattr("foundry_fastlog._core.recover_run", lambda *_: [])
    listdir = os.listdir

    def fail(path: object) -> list[str]:
        if isinstance(path, int):
            raise PermissionError(13, "Permission denied")
        return listdir(path)  # type: ignore[call-overload, no-any-return]

    monkeypatch.setattr(os, "listdir", fail)
    (report,) = foundry_fastlog.recover(tree / "1")
    assert (report.outcome, report.sound) == ("failed", False)
    assert "Permission denied" in report.reason
    assert "Permission denied" in read_run(tree / "1").problems[0].message


def test_any_directory_name_will_do(killed: Path, tmp_path: Path, command: Command) -> None:
    """Names that no text encoding has are shown with escapes, in tables and in JSON."""
    run = Path(os.fsdecode(os.fsencode(tmp_path) + b"/r\xfcn"))
    shutil.copytree(killed / "1", run)
    (ring,) = in_json(command, "--dry-run", run)["rings"]
    assert "udcfc" in ring["run"]
    assert "udcfc" in command("recover", tmp_path).out
    assert list((run / ".fastlog").glob("*.ring")) == []
    shutil.rmtree(run)


def test_unreadable_directories_are_named(tree: Path, monkeypatch: Patch, command: Command) -> None:
    """Without permission to list or enter a directory nobody knows what is in its rings."""
    scan, lstat, exists = os.scandir, Path.lstat, Path.exists

    # Root may read anything, so the refusal has to be staged.
    def refuse(path: object, where: str) -> None:
        if where in str(path):
            raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(os, "scandir", lambda path: refuse(path, "/deep/er") or scan(path))
    monkeypatch.setattr(Path, "lstat", lambda path: refuse(path, "/er/.") or lstat(path))
    for arguments in ["recover", "--dry-run"], ["recover"]:
        assert "Permission denied" in words(command(*arguments, tree, code=1).out)
    monkeypatch.setattr(
        Path, "exists", lambda path, **options: refuse(path, "/deep") or exists(path, **options)
    )
    monkeypatch.setattr(Path, "is_dir", lambda path: refuse(path, "/deep") or True)
    for arguments in ["summary"], ["tail"], ["recover"], ["recover", "--dry-run"]:
        assert "Permission denied" in command(*arguments, tree / "deep", code=2).err


def test_links_are_not_walked(tree: Path, tmp_path: Path) -> None:
    """Neither out of the tree nor into a private directory of another run."""
    outside = tmp_path / "outside"
    (outside / "link").parent.mkdir()
    (outside / "link").symlink_to(tree / "1")
    (outside / "run").mkdir()
    (outside / "run" / "metrics.jsonl").touch()
    (outside / "run" / ".fastlog").symlink_to(tree / "1" / ".fastlog")
    assert [report.outcome for report in preview(outside)] == ["failed"]
    (outside / "run" / ".fastlog").unlink()
    assert runs_with_rings(outside) == []
    assert runs_with_rings(outside / "link") == [outside / "link"]  # given by name
