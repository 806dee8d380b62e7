"""``foundry-fastlog recover`` and ``foundry_fastlog.recover``: what they do, say and exit with."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import rings
from rings import RingBuilder, ring_of

import foundry_fastlog
from foundry_fastlog import Recorder, RingReport, RunNotFoundError, read_run
from foundry_fastlog.cli.main import main
from foundry_fastlog.reading.preview import preview, runs_with_rings


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tree of runs of killed processes."""
    tree = tmp_path_factory.mktemp("killed")
    rings.make_killed_runs(tree, range(1, 4))
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
    """The content of all files."""
    return {str(p): p.read_bytes() for p in directory.rglob("*") if p.is_file()}


def run_json(*arguments: object) -> tuple[int, dict[str, object]]:
    """Run the command in a process of its own; its exit code and its JSON."""
    done = subprocess.run(
        [sys.executable, "-m", "foundry_fastlog", "recover", *map(str, arguments), "--json"],
        capture_output=True,
        check=False,
    )
    assert done.stderr == b""
    result: dict[str, object] = json.loads(done.stdout)
    return done.returncode, result


# ---- the command ---------------------------------------------------------------------


def test_a_tree_of_runs_is_recovered(tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Every run below is done and named; a second time there is nothing to do."""
    expected = sum(report.emitted for report in preview(tree))
    assert main(["recover", str(tree)]) == 0
    out = capsys.readouterr().out
    assert out.count("recovered") == 3
    assert "deep/er/3" in out
    assert f"3 rings, {expected:,} lines written" in out
    assert ".hidden" not in out
    for run in (tree / "1", tree / "2", tree / "deep" / "er" / "3"):
        assert list((run / ".fastlog").glob("*.ring")) == []
        assert all(check.complete for check in read_run(run).check())
    assert main(["recover", str(tree)]) == 0
    assert "nothing to recover" in capsys.readouterr().out


def test_one_run_is_recovered_and_counted(
    tree: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The table fits into 80 columns and has what was found, emitted and skipped."""
    monkeypatch.setenv("COLUMNS", "80")
    (report,) = preview(tree / "1")
    assert main(["recover", str(tree / "1")]) == 0
    out = capsys.readouterr().out
    columns = "run writer ring outcome found emitted skipped damaged holes cut"
    assert out.splitlines()[1].split() == columns.split()
    row = next(line for line in out.splitlines() if "recovered" in line).split()
    assert row[:2] == ["1", "r1"]
    assert row[3:] == ["recovered", str(report.found), str(report.emitted), "-", "-", "-", "-"]
    assert max(map(len, out.splitlines())) <= 80


def test_a_dry_run_changes_nothing(tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It says what would be done, and the real thing then does that."""
    before = states(tree)
    assert main(["recover", "--dry-run", str(tree)]) == 0
    out = capsys.readouterr().out
    assert out.count("recoverable") == 3
    assert "lines would be written" in out
    code, promised = run_json("--dry-run", tree)
    assert states(tree) == before
    done_code, done = run_json(tree)
    assert code == done_code == 0
    assert promised["dry_run"] is True
    assert done["dry_run"] is False
    assert isinstance(promised["rings"], list)
    assert isinstance(done["rings"], list)
    for ring in promised["rings"]:
        assert ring.pop("outcome") == "recoverable"
    for ring in done["rings"]:
        assert ring.pop("outcome") == "recovered"
    assert done["rings"] == promised["rings"]
    assert all(ring["found"] == ring["emitted"] > 0 for ring in done["rings"])


@pytest.mark.parametrize(("flags", "outcome"), [(["--dry-run"], "damaged"), ([], "quarantined")])
def test_a_damaged_ring_exits_with_1_and_says_why(
    flags: list[str], outcome: str, tree: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The others are recovered all the same; nothing of it is deleted."""
    ring = ring_of(tree / "1")
    content = b"\x1b[31m" + ring.read_bytes()[5:]
    ring.write_bytes(content)
    assert main(["recover", *flags, str(tree)]) == 1
    out = capsys.readouterr().out
    assert outcome in out
    assert "does not begin as a ring file" in out.replace("\n", " ")
    place = ring if flags else ring.parent / "quarantine" / ring.name
    assert place.read_bytes() == content
    # It stays a problem, by its reason, until somebody removes it.
    for again in (["recover", "--dry-run"], ["recover"], ["summary"]):
        assert main([*again, str(tree / "1" if again == ["summary"] else tree)]) == 1
        assert "does not begin as a ring file" in " ".join(capsys.readouterr().out.split())
    assert read_run(tree / "1").unread == 1
    (ring.parent / "quarantine" / ring.name).unlink(missing_ok=True)
    assert main(["recover", str(tree)]) == 0
    assert main(["summary", str(tree / "1")]) == 0


def test_records_that_cannot_be_rendered_exit_with_1(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The rest of their ring is recovered, and the count says how many are lost."""
    builder = RingBuilder()
    builder.fragment('"good":1')
    builder.record(99, 0, b"what is this")
    builder.put(tmp_path)
    (tmp_path / "metrics.jsonl").touch()
    assert main(["summary", str(tmp_path)]) == 1
    assert "1 records in it are damaged" in " ".join(capsys.readouterr().out.split())
    code, result = run_json("--dry-run", tmp_path)
    assert code == 1
    assert main(["recover", str(tmp_path)]) == 1
    row = next(line for line in capsys.readouterr().out.splitlines() if "recovered" in line)
    assert row.split()[3:] == ["recovered", "2", "1", "-", "1", "-", "-"]
    assert result["rings"][0]["damaged"] == 1  # type: ignore[index]


def test_a_live_run_is_left_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its process goes on, and the exit code says that all is well."""
    with Recorder(tmp_path / "run") as recorder:
        recorder.record(0, x=1)
        assert main(["recover", str(tmp_path / "run")]) == 0
        assert "live" in capsys.readouterr().out
        assert main(["recover", "--dry-run", str(tmp_path / "run")]) == 0
        recorder.record(1, x=1)
    assert [line["step"] for line in read_run(tmp_path / "run").lines("metrics")] == [0, 1]


def test_a_ring_on_another_host_exits_with_1(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its lines are not here, and the reason says what to do."""
    (tmp_path / ".fastlog").mkdir()
    (tmp_path / ".fastlog" / "x.ring-at").write_text("/nowhere/fastlog-x.ring\nnode2\nid\n")
    (tmp_path / "metrics.jsonl").touch()
    for flags in ([], ["--dry-run"]):
        assert main(["recover", *flags, str(tmp_path)]) == 1
        out = capsys.readouterr().out.replace("\n", " ")
        assert "elsewhere" in out
        assert "remove the pointer" in out


def test_a_summary_says_where_pending_lines_are(
    tree: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A person who looks at a killed run learns of the command."""
    (tree / "1" / ".fastlog" / "x.ring-at").write_text("/nowhere/x.ring\n")
    (report, _) = sorted(preview(tree / "1"), key=lambda one: one.outcome, reverse=True)
    main(["summary", str(tree / "1")])
    out = " ".join(capsys.readouterr().out.split())
    assert f"{report.emitted} lines of killed processes, from their rings" in out
    assert "foundry-fastlog recover" in out
    assert "complete NO: see the problems below" in out
    assert "the records of a process cannot be read: open /nowhere/x.ring" in out
    main(["summary", "--json", str(tree / "1")])
    outcomes = [ring["outcome"] for ring in json.loads(capsys.readouterr().out)["rings"]]
    assert sorted(outcomes) == ["elsewhere", "recoverable"]


def test_an_export_names_a_ring_that_it_cannot_read(
    tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What it holds is behind the last line: no gap in the numbers would show it."""
    target = tmp_path / "out.jsonl"
    assert main(["export", str(tree / "closed"), "--to", str(target)]) == 0
    assert "Problems" not in capsys.readouterr().err
    private = tree / "closed" / ".fastlog"
    private.mkdir(exist_ok=True)
    (private / "x.ring").write_bytes(b"no ring")
    assert main(["export", str(tree / "closed"), "--to", str(target), "--force"]) == 1
    err = " ".join(capsys.readouterr().err.split())
    assert "NOT complete" in err
    assert "What is missing" not in err  # no line is, as far as the files tell
    assert "the records of a killed process cannot be read" in err


@pytest.mark.parametrize("flags", [[], ["--dry-run"], ["--json"]])
@pytest.mark.parametrize("what", ["missing", "file", "empty"])
def test_no_run_exits_with_2(
    flags: list[str], what: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A wrong path is named, with what to give instead."""
    (tmp_path / "file").touch()
    (tmp_path / "empty").mkdir()
    assert main(["recover", *flags, str(tmp_path / what)]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("error: ")
    assert what in captured.err


def test_a_run_without_rings_has_nothing_to_recover(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Written by another program, or on a disk that no ring was on; also in a tree."""
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "metrics.jsonl").touch()
    for path in (tmp_path / "run", tmp_path):
        assert main(["recover", str(path)]) == 0
        assert "nothing to recover" in capsys.readouterr().out
        assert run_json("--dry-run", path) == (0, {"dry_run": True, "rings": []})


def test_help_says_what_happens_and_how_it_exits(capsys: pytest.CaptureFixture[str]) -> None:
    """An example, a way to look first, the exit codes."""
    assert main(["recover", "--help"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    for text in ("--dry-run", "--json", "quarantine", "Exit codes:", "recover runs/exp0"):
        assert text in out


def test_an_unknown_option_exits_with_2() -> None:
    """As for every command."""
    assert main(["recover", "--nonsense", "."]) == 2


def test_without_the_extension_readers_and_recovery_say_what_is_missing(tree: Path) -> None:
    """What is in the files is read; what is in the rings is a problem of the run."""
    code = f"""
        import sys

        class Blocker:
            def find_spec(self, name, path=None, target=None):
                if name == "foundry_fastlog._core":
                    raise ModuleNotFoundError("blocked by the test", name=name)

        sys.meta_path.insert(0, Blocker())
        from foundry_fastlog import read_run
        from foundry_fastlog.cli.main import main

        assert main(["recover", "--dry-run", {str(tree)!r}]) == 1
        assert main(["summary", {str(tree / "1")!r}]) == 1
        (problem,) = read_run({str(tree / "1")!r}).problems
        assert "native part of foundry_fastlog, which reads rings, is missing" in problem.message
        sys.exit(main(["recover", {str(tree)!r}]))
    """
    lines = [line[8:] for line in code.splitlines()]
    done = subprocess.run(
        [sys.executable, "-c", "\n".join(lines)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2, done.stderr
    message = done.stderr.replace("\n", " ")
    assert "pip install" in message
    assert done.stdout.count("which reads rings, is missing") >= 3


# ---- the functions -------------------------------------------------------------------


def test_recover_returns_a_report_per_ring(tree: Path) -> None:
    """For programs: what was found, in the same words as the command."""
    promised = preview(tree)
    reports = foundry_fastlog.recover(tree)
    assert [report.ring for report in reports] == [report.ring for report in promised]
    assert all(isinstance(report, RingReport) for report in reports)
    assert all(report.sound and report.outcome == "recovered" for report in reports)
    assert [report.run for report in reports] == [
        tree / "1",
        tree / "2",
        tree / "deep" / "er" / "3",
    ]
    assert foundry_fastlog.recover(str(tree)) == []
    with pytest.raises(RunNotFoundError):
        foundry_fastlog.recover(tree / "nothing")


def test_recover_tells_of_rings_that_it_may_not_list(
    tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Silence would mean that there is nothing."""
    monkeypatch.setattr("foundry_fastlog._core.recover_run", lambda path: [])
    listdir = os.listdir

    def fail(path: object) -> list[str]:
        if isinstance(path, int):
            raise PermissionError(13, "Permission denied")
        return listdir(path)  # type: ignore[call-overload, no-any-return]

    monkeypatch.setattr(os, "listdir", fail)
    (report,) = foundry_fastlog.recover(tree / "1")
    assert (report.outcome, report.sound) == ("failed", False)
    assert "Permission denied" in report.reason


@pytest.fixture
def odd_name(tmp_path: Path, killed: Path) -> Iterator[Path]:
    """A run whose name is no UTF-8 text."""
    run = Path(os.fsdecode(os.fsencode(tmp_path) + b"/r\xfcn"))
    shutil.copytree(killed / "1", run)
    yield run
    shutil.rmtree(run)


def test_any_directory_name_will_do(odd_name: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Names that no text encoding has are shown with escapes, in tables and in JSON."""
    assert main(["recover", "--dry-run", "--json", str(odd_name)]) == 0
    assert "udcfc" in json.loads(capsys.readouterr().out)["rings"][0]["run"]
    assert main(["recover", str(odd_name.parent)]) == 0
    assert "udcfc" in capsys.readouterr().out
    assert list((odd_name / ".fastlog").glob("*.ring")) == []


def test_directories_that_may_not_be_looked_into_are_named(
    tree: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without permission to list or enter a directory nobody knows what is in its rings."""
    scan, lstat, exists = os.scandir, Path.lstat, Path.exists

    # Root may read anything, so the refusal has to be staged.
    def refuse(path: object, where: str) -> None:
        if where in str(path):
            raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(os, "scandir", lambda path: refuse(path, "/deep/er") or scan(path))
    monkeypatch.setattr(Path, "lstat", lambda path: refuse(path, "/er/3/.") or lstat(path))
    monkeypatch.setattr(Path, "lstat", lambda path: refuse(path, "/er/.") or lstat(path))
    for command in ["recover", "--dry-run"], ["recover"]:
        assert main([*command, str(tree)]) == 1
        assert "Permission denied" in " ".join(capsys.readouterr().out.split())
    monkeypatch.setattr(
        Path, "exists", lambda path, **options: refuse(path, "/deep") or exists(path, **options)
    )
    monkeypatch.setattr(Path, "is_dir", lambda path: refuse(path, "/deep") or True)
    for command in ["summary"], ["tail"], ["recover"], ["recover", "--dry-run"]:
        assert main([*command, str(tree / "deep")]) == 2
        assert "Permission denied" in capsys.readouterr().err


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
