"""All runs below a directory: what is found, kept, filtered, sorted and shown."""

from __future__ import annotations

import json
import math
import os
import pickle
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import orjson
import pytest
from oracle import START, OracleWriter, stamp_text, write_run_json
from recorded import start_python

from foundry_fastlog import Recorder, RunNotFoundError, WhereError, read_run, read_runs
from foundry_fastlog.analysis import run_summary, runs_cache
from foundry_fastlog.analysis import runs as runs_module
from foundry_fastlog.analysis.runs_cache import cache_file
from foundry_fastlog.analysis.where import ABSENT
from foundry_fastlog.run.tree import find_all_runs

Command = Callable[..., Any]
Patch = pytest.MonkeyPatch

OLD = time.time() - 3600


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: Patch) -> Path:
    """A cache directory of the test's own."""
    home = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("XDG_CACHE_HOME", str(home))
    return home


@pytest.fixture(autouse=True)
def ticking(monkeypatch: Patch) -> None:
    """Files count as old at once: a test does not wait until the clock has ticked."""
    monkeypatch.setattr(runs_module, "TICK_S", -3600.0)


def make_run(path: Path, *, how: str = "", config: Any = None, **metrics: list[float]) -> Path:
    """A run with metrics by step, and an entry of its start."""
    writer = OracleWriter(path)
    for step in range(max(map(len, metrics.values()), default=0)):
        row = {name: values[step] for name, values in metrics.items() if step < len(values)}
        writer.metrics(step, **row)
    write_run_json(path, name=path.name)
    (path / "starts").mkdir()
    entry = {"start": 0, "started": stamp_text(START), "config": config or {}, "host": "node1"}
    (path / "starts" / "000000.json").write_text(json.dumps({**entry, "git_hash": "abc"}))
    if how:
        error = {
            "exception": {"error_type": "OSError", "error_message": "disk full"},
            "signal": {"signal": "SIGTERM"},
        }
        end = {"start": 0, "label": "", "ended": "2026-01-30T14:33:15.123456Z", "how": how}
        end |= error.get(how, {})
        (path / "starts" / "000000.end.json").write_text(json.dumps(end))
    return path


def append(path: Path, data: bytes) -> None:
    with path.open("ab") as file:
        file.write(data)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A run of each kind, at several depths, and one within another."""
    root = tmp_path / "tree"
    make_run(root / "a", how="closed", config={"lr": 0.1, "o": {"b": 1}}, loss=[3.0, 1.0, 2.0])
    make_run(root / "a" / "inner", how="exception", config={"lr": 0.01}, loss=[5.0, math.nan])
    make_run(root / "x" / "y" / "z" / "w" / "deep", config={"lr": "auto"}, other=[1.0])
    make_run(root / "x" / "term", how="signal", loss=[0.5])
    (root / ".hidden").mkdir()
    make_run(root / ".hidden" / "no")
    return root


def names(runs: Any) -> list[str]:
    return [run.run for run in runs]


def test_each_run_is_found_once_at_any_depth_and_behind_links(tree: Path) -> None:
    """Loops of links, and a link to a run that was found, change nothing."""
    (tree / "loop").symlink_to(tree)
    (tree / "x" / "up").symlink_to("..")
    (tree / "again").symlink_to(tree / "a")
    (tree / "self").symlink_to("self")
    (tree / "broken").symlink_to(tree / "nothing")
    other = make_run(tree.parent / "other", loss=[1.0])
    (tree / "far").symlink_to(other)
    locked = tree / "locked"
    locked.mkdir()
    found = {one.name: one for one in find_all_runs(tree)}
    assert set(found) == {"a", "a/inner", "x/y/z/w/deep", "x/term", "far"}
    assert [one.name for one in find_all_runs(tree / "a")] == [".", "inner"]
    assert list(find_all_runs(tree / "nothing")) == []


@pytest.mark.parametrize(
    "change",
    [
        lambda run: append(run / "metrics.jsonl", b"x"),
        lambda run: os.utime(run / "metrics.jsonl", ns=(1, 1)),
        lambda run: (run / "run.json").write_text("{}"),
        lambda run: (run / "log.jsonl").touch(),
        lambda run: (run / "metrics.jsonl").unlink(),
        lambda run: (run / "starts" / "000001.json").write_text("{}"),
        lambda run: (run / ".fastlog" / "1.ring").write_text("{}"),
        lambda run: (run / ".fastlog" / "quarantine" / "1.ring").touch(),
        lambda run: (run / "metrics.r1.jsonl").symlink_to("nowhere"),
        lambda run: shutil.rmtree(run / "starts"),
    ],
)
def test_a_signature_sees_each_change(tree: Path, change: Callable[[Path], Any]) -> None:
    run = tree / "x" / "term"
    (run / ".fastlog" / "quarantine").mkdir(parents=True)
    (first,) = find_all_runs(run)
    (run / ".fastlog" / "cache").mkdir()
    (run / "checkpoints").mkdir()
    assert [one.signature for one in find_all_runs(run)] == [first.signature]
    change(run)
    assert [one.signature for one in find_all_runs(run)] != [first.signature]


def test_a_run_is_what_its_files_say(tree: Path) -> None:
    """By a summary of each, and by numbers that were made up here."""
    found = {run.run: run for run in read_runs(tree)}
    states = {name: (run.state, run.error) for name, run in found.items()}
    assert states == {
        "a": ("ended", ""),
        "a/inner": ("failed", "OSError: disk full"),
        "x/term": ("failed", "SIGTERM"),
        "x/y/z/w/deep": ("killed", ""),
    }
    one = found["a"]
    assert (one.path, one.name, one.starts, one.step, one.ranks) == (tree / "a", "a", 1, 2, 1)
    assert (one.host, one.git, one.config) == ("node1", "abc", {"lr": 0.1, "o": {"b": 1}})
    assert (one.started, one.ended) == (stamp_text(START), "2026-01-30T14:33:15.123456Z")
    assert one.duration_s == 60.0
    loss = one.metrics["loss"]
    assert (loss.first, loss.last, loss.min, loss.min_step, loss.max, loss.mean) == (
        3,
        2,
        1,
        1,
        3,
        2,
    )
    assert one.bytes == (tree / "a" / "metrics.jsonl").stat().st_size
    assert one.complete is None
    assert one.is_complete
    killed = found["x/y/z/w/deep"]
    assert killed.ended == read_run(killed.path).metric("other").time[-1].item().strftime(
        "%Y-%m-%dT%H:%M:%S.%fZ"
    )
    inner = found["a/inner"].metrics["loss"]
    assert math.isnan(inner.last)
    assert inner.nonfinite == 1
    assert inner.min == 5


def test_what_is_kept_is_what_was_read(tree: Path, monkeypatch: Patch) -> None:
    """The second look reads nothing, and says the same to the digit."""
    OracleWriter(tree / "x" / "term", attempt=1).metrics(1, loss=[1, {"a": "nan"}], text="inf")
    before = read_runs(tree, complete=True)
    assert cache_file(tree).exists()
    monkeypatch.setattr(runs_module, "read_summary", None)
    after = read_runs(tree, complete=True)
    assert [len(run.metrics) for run in after] == [len(run.metrics) for run in before]
    assert [run.to_dict() for run in after] == [run.to_dict() for run in before]
    assert [run.complete for run in read_runs(tree)] == [None] * 4
    assert pickle.loads(pickle.dumps(after))[0].metrics["loss"] == before[0].metrics["loss"]


def test_a_run_that_changed_is_read_anew_alone(tree: Path, monkeypatch: Patch) -> None:
    read_runs(tree)
    OracleWriter(tree / "a", attempt=1, start=START.replace(year=2027)).metrics(7, loss=9.0)
    shutil.rmtree(tree / "x" / "term")
    looked = []

    def read(path: Path, *arguments: Any, **options: Any) -> Any:
        looked.append(path)
        return run_summary.read_summary(path, *arguments, **options)

    monkeypatch.setattr(runs_module, "read_summary", read)
    found = {run.run: run for run in read_runs(tree)}
    assert looked == [tree / "a"]
    assert set(found) == {"a", "a/inner", "x/y/z/w/deep"}
    assert (found["a"].metrics["loss"].last, found["a"].starts) == (9.0, 2)
    looked.clear()
    read_runs(tree, complete=True)
    assert len(looked) == 3  # nobody looked before


def test_several_may_look_at_once(tree: Path) -> None:
    """Each says the same, and what they leave can be trusted."""
    with ThreadPoolExecutor(4) as pool:
        found = [[run.to_dict() for run in runs] for runs in pool.map(read_runs, [tree] * 8)]
    assert all(one == found[0] for one in found)
    assert len(runs_cache.read_kept(tree)) == 4
    assert len(list(cache_file(tree).parent.iterdir())) == 1


@pytest.mark.parametrize(
    "spoil",
    [
        lambda data: b"",
        lambda data: data[: len(data) // 2],
        lambda data: data[:-5] + b"xxxxx",
        lambda data: b"other" + data,
        lambda data: None,
    ],
)
def test_a_cache_that_cannot_be_trusted_is_written_anew(
    tree: Path, spoil: Callable[[bytes], bytes | None]
) -> None:
    before = names(read_runs(tree))
    path = cache_file(tree)
    data = path.read_bytes()
    spoilt = spoil(data)
    path.unlink() if spoilt is None else path.write_bytes(spoilt)
    assert names(read_runs(tree)) == before
    assert path.read_bytes() == data


def test_a_cache_of_another_machine_or_of_another_form_is_ignored(
    tree: Path, monkeypatch: Patch
) -> None:
    before = [run.to_dict() for run in read_runs(tree)]
    monkeypatch.setattr(runs_cache, "boot_id", lambda: "another")
    assert runs_cache.read_kept(tree) == {}
    read_runs(tree)
    kept = runs_cache.read_kept(tree)
    assert set(kept) == {"a", "a/inner", "x/term", "x/y/z/w/deep"}
    wrong = {name: (signature, b'{"a":1}') for name, (signature, _) in kept.items()}
    runs_cache.write_kept(tree, wrong)
    assert [run.to_dict() for run in read_runs(tree)] == before


def test_what_may_still_change_is_not_kept(tree: Path, monkeypatch: Patch) -> None:
    """Files that changed within a tick, and runs that record now."""
    monkeypatch.setattr(runs_module, "TICK_S", 2.5)
    read_runs(tree)
    assert not cache_file(tree).exists()
    monkeypatch.setattr(runs_module, "TICK_S", -3600.0)
    with Recorder(tree / "live") as recorder:
        recorder.record(1, loss=1.0)
        recorder.flush()
        assert read_runs(tree)[0].state == "running"
        assert "live" not in runs_cache.read_kept(tree)
        assert read_runs(tree, stalled_after_s=-1e9)[0].state == "stalled"
        # Figures of the machine and messages go on while training hangs.
        os.utime(tree / "live" / "metrics.jsonl", (OLD, OLD))
        recorder.system({"cpu_percent": 1.0})
        recorder.event("still here")
        recorder.flush()
        assert (tree / "live" / "system.jsonl").exists()
        assert read_runs(tree)[0].state == "stalled"
    assert read_runs(tree)[0].state == "ended"
    assert "live" in runs_cache.read_kept(tree)


def test_without_a_place_for_the_cache_all_is_read(
    tree: Path, monkeypatch: Patch, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert len(read_runs(tree)) == 4
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_file(tree).parent == tmp_path / ".cache" / "foundry_fastlog"


def test_what_does_not_fit_into_the_cache_is_read_each_time(tree: Path, monkeypatch: Patch) -> None:
    """A huge run, and one whose name is not UTF-8."""
    monkeypatch.setattr(runs_cache, "_MOST_BYTES", 700)
    make_run(tree / "many", **{f"m{n}": [1.0] for n in range(20)})
    odd = Path(os.fsdecode(os.fsencode(tree) + b"/\xff"))
    make_run(odd, loss=[1.0])
    assert len(read_runs(tree)) == 6
    assert {"many", odd.name}.isdisjoint(runs_cache.read_kept(tree))
    assert len(read_runs(tree)) == 6


def test_a_killed_run_is_read_from_its_ring_and_kept(tree: Path) -> None:
    """Until its records are recovered, which changes its files."""
    path = tree / "gone"
    script = """
import os, sys
from foundry_fastlog import Recorder
recorder = Recorder(sys.argv[1], flush_interval_s=60.0)
for step in range(50):
    recorder.record(step, loss=float(step))
print("ready", flush=True)
sys.stdin.read()
"""
    process = start_python(script, path, stdin=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    running = {run.run: run.state for run in read_runs(tree)}["gone"]
    process.send_signal(signal.SIGKILL)
    process.communicate()
    (found,) = read_runs(tree).where("run == 'gone'")
    assert (running, found.state, found.metrics["loss"].last) == ("running", "killed", 49.0)
    assert "gone" in runs_cache.read_kept(tree)
    from foundry_fastlog import recover

    recover(path)
    (after,) = read_runs(tree).where("run == 'gone'")
    assert (after.state, after.metrics["loss"].last, after.step) == ("killed", 49.0, 49)


def test_a_run_that_cannot_be_read_is_listed_as_that(tree: Path, monkeypatch: Patch) -> None:
    def refuse(path: Path) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(run_summary, "Run", refuse)
    found = read_runs(tree)
    assert {run.state for run in found} == {"unreadable"}
    assert found[0].error == "cannot be read: Permission denied"
    assert not found[0].is_complete
    assert not cache_file(tree).exists()


def test_damage_and_hostile_facts_are_no_reason_to_fail(tmp_path: Path) -> None:
    run = make_run(tmp_path / "odd", loss=[1.0, 2.0])
    (run / "run.json").write_text(json.dumps({"name": 3, "config": [1], "git_hash": {}, "x": 1}))
    (run / "starts" / "000000.json").write_text('{"started": "yesterday", "config": 3}')
    append(run / "metrics.jsonl", b"\0\0{torn")
    empty = tmp_path / "empty"
    empty.mkdir()
    (empty / "run.json").write_text('{"config": {"a": 1}, "host": "h", "name": "n"}')
    found = {run.run: run for run in read_runs(tmp_path, complete=True)}
    assert (found["odd"].name, found["odd"].config, found["odd"].complete) == ("odd", {}, False)
    assert (found["odd"].duration_s, found["odd"].git) == (0.001, "")
    one = found["empty"]
    assert (one.name, one.state, one.config, one.host) == ("n", "unknown", {"a": 1}, "h")
    assert (one.started, one.ended, one.step, one.duration_s) == ("", "", None, None)


def test_durations_are_of_the_starts_without_the_time_between(tmp_path: Path) -> None:
    """By the entries of those that ended, and to the last metrics of one that was killed."""
    run = make_run(tmp_path / "r", how="closed", config={"lr": 1}, loss=[1.0])
    OracleWriter(run, attempt=1, start=START.replace(year=2027), tick_s=1.0).fill(
        range(11), loss=2.0
    )
    (found,) = read_runs(tmp_path)
    assert found.duration_s == pytest.approx(60.0 + 10.0)
    assert (found.starts, found.config) == (2, {"lr": 1})


def test_where_and_sort(tree: Path) -> None:
    runs = read_runs(tree)
    assert names(runs.where("config.lr >= 0.01 and last.loss < 3")) == ["a"]
    assert names(runs.where('match(error, "disk")')) == ["a/inner"]
    assert names(runs.where("duration == 60 and complete and ranks == 1")) == [
        "a",
        "a/inner",
        "x/term",
    ]
    assert names(runs.where("isnan(last.loss) or count.other == 1")) == ["a/inner", "x/y/z/w/deep"]
    assert names(runs.where(f"path == '{tree / 'a'}' and min.loss == 1")) == ["a"]
    # NaN and what is absent stand last in both orders, and numbers before texts.
    assert names(runs.sort("last.loss"))[:2] == ["x/term", "a"]
    assert names(runs.sort(" -last.loss"))[:2] == ["a", "x/term"]
    assert names(runs.sort("config.lr")) == ["a/inner", "a", "x/y/z/w/deep", "x/term"]
    assert names(runs.sort("-run")) == ["x/y/z/w/deep", "x/term", "a/inner", "a"]
    assert names(runs.sort("max.loss - min.loss"))[-1] == "x/y/z/w/deep"
    with pytest.raises(WhereError, match=r"(?s)lats.loss is unknown.*Did you mean last.loss"):
        runs.where("lats.loss < 2")
    (note,) = runs.where("config.l == 1 and error == 'x'").notes
    assert "nothing here has config.l, at character 1" in note
    assert "Did you mean config.lr" in note
    assert runs[:0].where("config.l == 1").notes == ()
    assert (len(runs[1:]), repr(runs)) == (3, "Runs(4 runs)")
    assert names(runs[1:3]) == names(runs)[1:3]


def test_tags_and_epochs(tmp_path: Path) -> None:
    """Values of epochs go by their name where steps have no such metric."""
    run = make_run(tmp_path / "r", how="closed", config={"tags": ["x"]}, loss=[1.0])
    writer = OracleWriter(run, attempt=1)
    writer.summary(1, val_loss=7.0, loss=8.0, note="text")
    runs = read_runs(tmp_path)
    assert len(runs.where('"x" in tags and last.val_loss == 7 and last.loss == 1')) == 1
    assert len(runs.where("last.`loss (epoch)` == 8 and min.`val_loss (epoch)` == 7")) == 1
    assert runs.main_metrics() == ["loss", "val_loss (epoch)"]
    assert not runs.where('"y" in tags or has(min.note)')


def test_frames_have_a_row_a_run(tree: Path) -> None:
    polars = pytest.importorskip("polars")
    runs = read_runs(tree)
    make_run(tree / "lists", config={"lr": [1, 2], "o": {"b": 2.5}, "deep": {"a": {}}})
    runs = read_runs(tree).sort("run")
    frame = runs.to_polars()
    assert isinstance(frame, polars.DataFrame)
    assert frame["run"].to_list() == names(runs)
    assert frame["config.o.b"].to_list() == [1.0, None, 2.5, None, None]
    assert frame["config.lr"].to_list() == ["0.1", "0.01", "[1,2]", None, "auto"]
    assert frame["config.deep.a"].to_list() == [None, None, "{}", None, None]
    assert frame["min.loss"].to_list() == [1.0, 5.0, None, 0.5, None]
    assert frame["path"][0] == str(tree / "a")
    pandas = runs.to_pandas()
    assert list(pandas["run"]) == names(runs)
    assert list(pandas.columns) == frame.columns


@pytest.mark.parametrize("package", ["polars", "pandas"])
def test_a_missing_package_is_named(tree: Path, package: str, monkeypatch: Patch) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImportError, match=rf"pip install 'foundry_fastlog\[{package}\]'"):
        getattr(read_runs(tree), f"to_{package}")()


def test_a_notebook_shows_a_table_and_nothing_hostile(tmp_path: Path, monkeypatch: Patch) -> None:
    bad = "<script>alert(1)</script>"
    for n in range(3):
        run = make_run(tmp_path / f"<b>{n}", config={bad: f"{bad}{n}", "same": 1}, **{bad: [1.0]})
        assert run.exists()
    monkeypatch.setattr(runs_module, "_MOST_SHOWN", 2)
    text = read_runs(tmp_path)._repr_html_()
    assert "<script" not in text
    assert "<b>" not in text
    assert text.count("&lt;script&gt;") >= 4
    assert text.count("<tr>") == 3
    assert "... and 1 more" in text
    assert "same" not in text
    assert "<th style='text-align:left;padding:2px 8px;white-space:nowrap'>state</th>" in text
    assert "<th style='text-align:right;padding:2px 8px;white-space:nowrap'>step</th>" in text


def test_a_directory_that_is_not_there() -> None:
    with pytest.raises(RunNotFoundError, match="is not a directory"):
        read_runs("/nowhere/at/all")


@pytest.mark.parametrize(
    ("column", "value", "shown"),
    [
        ("config.x", ABSENT, "-"),
        ("duration", 90.0, "90 s"),
        ("started", "2026-01-30T14:32:15.123456Z", "2026-01-30 14:32"),
        ("run", "a" * 50, "a" * 50),
        ("config.x", {"a": [1]}, '{"a":[1]}'),
        ("config.x", True, "true"),
        ("last.x", 0.12345678, "0.1235"),
        ("name", "a\x1b[31m", "a\\x1b[31m"),
    ],
)
def test_cells(column: str, value: object, shown: str) -> None:
    assert runs_module.show_cell(column, value) == shown


def deep(levels: int) -> Any:
    value: Any = []
    for _ in range(levels):
        value = [value]
    return value


def test_values_that_json_cannot_show() -> None:
    assert runs_module.show_cell("config.x", deep(2000)) == "(nested too deeply to..."


# ---- the command ---------------------------------------------------------------------


def test_the_command_shows_filters_and_sorts(tree: Path, command: Command) -> None:
    shown = command("runs", tree).out
    for part in ("a/inner", "failed OSError", "killed", "x/term", "failed SIGTERM", "ended"):
        assert part in shown
    assert "4 runs: 2 failed, 1 ended, 1 killed" in shown
    lines = command("runs", tree, "--sort", "-last.loss", "-n", 1, "-m", "min:lo*").out.split("\n")
    assert lines[0].split() == [
        "run",
        "state",
        "time",
        "step",
        "min",
        "loss",
        "started",
        "(UTC)",
        "lr",
        "o.b",
    ]
    assert lines[2].split()[:2] == ["a", "ended"]
    assert lines[2].split()[-4:] == ["2026-01-30", "14:32", "0.1", "1"]
    assert "... and 3 more; --limit 0 shows all" in "\n".join(lines)
    written = command("runs", tree, "-w", "last.loss < 1", "--columns", "run,`name`,last['loss']")
    assert written.out.split("\n")[2].split() == ["x/term", "term", "0.5"]
    written = command("runs", tree, "--columns", "run,last", "--sort", "run", "-n", 1)
    assert written.out.split("\n")[2].split() == ["a", "loss"]
    assert len(read_runs(tree)[0].look_up("last")) == 1
    written = command("runs", tree, "--columns", "run,complete", "-m", "loss", "--sort", "run")
    assert written.out.split("\n")[2].split() == ["a", "true", "2"]


def test_the_command_prints_a_json_object_a_run(tree: Path, command: Command) -> None:
    written = command("runs", tree, "--json", "--complete", "--sort", "run")
    found = [json.loads(line) for line in written.out.splitlines()]
    assert [one["run"] for one in found] == ["a", "a/inner", "x/term", "x/y/z/w/deep"]
    assert found[1]["metrics"]["loss"]["last"] == "nan"
    assert all(one["complete"] for one in found)
    assert found[0] == orjson.loads(
        orjson.dumps(read_runs(tree, complete=True).sort("run")[0].to_dict())
    )
    assert len(command("runs", tree, "--json", "--limit", 2).out.splitlines()) == 2


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("-w", "lst.loss < 2"), "the name lst.loss is unknown"),
        (("--sort", "1 +"), "cannot be understood"),
        (("--columns", "run,foo"), "the name foo is unknown"),
        (("--stalled-after", "soon"), "a duration is written as"),
    ],
)
def test_wrong_options_are_told_with_their_place(
    tree: Path, command: Command, options: tuple[str, ...], says: str
) -> None:
    assert says in command("runs", tree, *options, code=2).err


def test_what_fits_nothing_is_told_with_what_there_is(
    tree: Path, command: Command, tmp_path: Path
) -> None:
    written = command("runs", tree, "-w", "config.rl > 0", "-m", "los")
    assert "note: nothing here has config.rl" in written.err
    assert "no run" in written.out
    assert "no metric fits los; there are: loss, other" in command("runs", tree, "-m", "los").err
    (tmp_path / "none").mkdir()
    assert "no run below" in command("runs", tmp_path / "none", code=2).err
    assert "is not a directory" in command("runs", tmp_path / "nowhere", code=2).err


def test_a_table_fits_its_screen(tmp_path: Path, command: Command, monkeypatch: Patch) -> None:
    """Configurations are left out and named, names are folded, and what is odd has a column."""
    for n in range(3):
        config = {f"a_setting_{k}": n for k in range(12)} | {"loss": n, "odd`": n}
        run = make_run(tmp_path / f"{'long_name/' * 5}{n}", config=config, loss=[1.0])
        (run / "run.json").write_text('{"name": "given"}')
    OracleWriter(run, attempt=1).metrics(3, loss=1.0)
    monkeypatch.setenv("COLUMNS", "80")
    shown = command("runs", tmp_path).out
    assert max(map(len, shown.split("\n")[:-3])) <= 80
    assert "given" in shown
    assert "not shown: started, starts, config.a_setting_0, " in shown
    assert " and 9 more (--columns)" in shown
    monkeypatch.setenv("COLUMNS", "60")
    narrow = command("runs", tmp_path, "-m", "*").out
    assert max(map(len, narrow.split("\n")[:-3])) <= 60
    monkeypatch.setenv("COLUMNS", "250")
    shown = command("runs", tmp_path, "--complete").out
    assert "config.loss" in shown
    assert "complete" in shown


def test_headings_are_no_markup(tmp_path: Path, command: Command) -> None:
    """Names of metrics and settings, and what queries call their columns."""
    for n in (1, 2):
        make_run(tmp_path / f"r{n}", config={"[/a]": n}, **{"[/loss]": [1.0]})
    shown = command("runs", tmp_path, "-m", "[[]/loss]").out
    assert {"[/loss]", "[/a]"} <= set(shown.split("\n")[0].split())
    shown = command("query", tmp_path / "r1", 'SELECT 1 AS "[/b]", 2 AS "[red]c"').out
    assert {"[/b]", "[red]c"} <= set(shown.split())
