"""Many runs at once: what workers find out about them, and what is not read again."""

from __future__ import annotations

import json
import math
import os
import shutil
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fleets import make_run, workers_here
from oracle import OracleWriter

from foundry_fastlog import Fleet, FleetError, Recorder, RunNotFoundError, WhereError, read_runs
from foundry_fastlog.analysis.runs_cache import cache_file
from foundry_fastlog.fleet import crew, rows
from foundry_fastlog.fleet.crew import Lost, Pace
from foundry_fastlog.run.tree import FoundRun, find_all_runs

pytest.importorskip("distributed")

Command = Callable[..., Any]
Patch = pytest.MonkeyPatch
pytestmark = pytest.mark.usefixtures("cache_home")


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Runs that ended, failed in two ways, and one that nobody knows."""
    root = tmp_path / "tree"
    for number in range(4):
        make_run(root / f"a{number}", config={"lr": number % 2}, loss=[3.0, 1.0 + number])
    failing = make_run(root / "b" / "noted", how="exception", loss=[0.5, math.nan], acc=[0.1])
    for _ in range(2):
        failing.error("saving", OSError("disk full"), step=1)
    failing.nonfinite("loss", "nan", 1)
    make_run(root / "b" / "only", how="exception", acc=[0.9, 0.7])
    OracleWriter(root / "c").metrics(0, loss=9.0)
    return root


def test_the_table_is_that_of_read_runs(tree: Path, client: Any) -> None:
    """Each run, with its state, settings and metrics; a cache that either wrote serves both."""
    found = Fleet(tree, client).runs()
    alone = read_runs(tree)
    assert [run.to_dict() for run in found] == [run.to_dict() for run in alone]
    assert found.to_polars().height == 7
    assert {run.run: run.state for run in found} == {
        **{f"a{number}": "ended" for number in range(4)},
        "b/noted": "failed",
        "b/only": "failed",
        "c": "unknown",
    }


def test_only_what_changed_is_read_again(tree: Path, client: Any) -> None:
    """By this object and by the next; what `read_runs` keeps has no errors, and is not enough."""
    read_runs(tree)
    fleet = Fleet(tree, client)
    assert fleet.look().read == 7
    assert fleet.look().read == 0
    with (tree / "a1" / "log.jsonl").open("ab") as file:
        file.write(b"{}\n")
    shutil.rmtree(tree / "a2")
    make_run(tree / "new", loss=[7.0])
    again = Fleet(tree, client)
    looked = again.look()
    assert looked.read == 2
    assert {row.found.name for row in looked.rows} >= {"new", "a1"}
    assert [run.run for run in again.runs() if run.run == "a2"] == []
    assert Fleet(tree, client).look().read == 0
    cache_file(tree, "errors").write_bytes(b"damaged")
    assert Fleet(tree, client).look().read == 7


def test_nobody_is_started_where_nothing_changed(tree: Path, client: Any) -> None:
    Fleet(tree, client).look()
    with Fleet(tree, "tcp://127.0.0.1:1") as fleet:
        assert len(fleet.runs()) == 7


def test_totals_are_of_all_runs_or_by_a_value(tree: Path, client: Any) -> None:
    fleet = Fleet(tree, client)
    (all_of_them,) = fleet.totals(metric="loss")
    assert (all_of_them.runs, all_of_them.states["ended"], all_of_them.steps) == (7, 4, 6)
    assert all_of_them.metric["count"] == 5  # without the last NaN
    assert all_of_them.metric["max"] == 9.0
    assert all_of_them.bytes == sum(run.bytes for run in fleet.runs())
    groups = {group.key: group for group in fleet.totals("config.lr", "loss")}
    assert {key: group.runs for key, group in groups.items()} == {0: 2, 1: 2, None: 3}
    assert groups[1].metric["mean"] == 3.0
    assert groups[0].to_dict()["states"] == {"ended": 2}
    assert fleet.totals()[0].metric == {}


def test_the_best_runs_by_the_direction_of_a_metric(tree: Path, client: Any) -> None:
    fleet = Fleet(tree, client)
    assert [run.run for run in fleet.best("loss", 3)] == ["b/noted", "a0", "a1"]
    assert [run.run for run in fleet.best("acc")] == ["b/only", "b/noted"]
    assert len(fleet.best("nothing")) == 0


def test_failures_are_together_by_fingerprint(tree: Path, client: Any) -> None:
    """What errors say, and with what runs ended that noted no error."""
    again = make_run(tree / "b" / "too", how="exception", acc=[0.2])
    again.error("saving", OSError("disk full"), level="CRITICAL")
    again.error("slow", TimeoutError("late"), level="WARNING", fingerprint="fe")
    noted, only, event = Fleet(tree, client).failures()
    assert (noted.fingerprint, noted.ended, noted.count) == ("0123456789abcdef", 2, 3)
    assert (noted.runs, noted.hosts) == (["b/noted", "b/too"], ["node1"])
    assert "disk full" in noted.traceback
    assert (only.fingerprint, only.error_type, only.message) == ("", "OSError", "disk full")
    assert (only.runs, only.ended, only.count) == (["b/only"], 1, 1)
    assert (event.event, event.ended, event.runs) == ("nonfinite", 0, ["b/noted"])
    assert noted.first <= noted.last
    assert noted.to_dict()["runs"] == ["b/noted", "b/too"]


def test_where_chooses_runs(tree: Path, client: Any) -> None:
    """For everything; a wrong expression is told as ever."""
    fleet = Fleet(tree, client, where="state == 'failed'")
    assert len(fleet.runs()) == 2
    assert fleet.totals()[0].runs == 2
    fleet = Fleet(tree, client, where="config.lr == 1")
    assert fleet.failures() == []
    with pytest.raises(WhereError, match="stat"):
        Fleet(tree, client, where="stat == 1").runs()


def test_a_live_run_is_read_each_time(tree: Path, client: Any) -> None:
    fleet = Fleet(tree, client)
    with Recorder(tree / "live") as recorder:
        recorder.record(0, loss=4.0)
        assert {run.run: run.state for run in fleet.runs()}["live"] == "running"
        recorder.record(1, loss=3.0)
        recorder.flush()
        assert fleet.look().read == 1
        assert next(run for run in fleet.runs() if run.run == "live").step == 1
        stalled = Fleet(tree, client, stalled_after_s=-1.0)
        assert {run.run: run.state for run in stalled.runs()}["live"] == "stalled"
    fleet.look()
    assert {run.run: run.state for run in fleet.runs()}["live"] == "ended"


def test_damaged_and_vanished_runs_are_rows_that_say_so(
    tree: Path, client: Any, monkeypatch: Patch
) -> None:
    """Never an exception of the whole, and never kept."""
    (tree / "a1" / "metrics.jsonl").write_bytes(b"\xff\xfe{{{\n" * 50)
    (tree / "a2" / "starts" / "000000.json").write_text("[")
    read = rows.read_run

    def shy(path: Path) -> Any:
        if path.name == "a0":
            shutil.rmtree(path)
        if path.name == "a3":
            raise RuntimeError("no such luck")
        if path.name == "only":
            raise PermissionError(13, "Permission denied")
        return read(path)

    monkeypatch.setattr(rows, "read_run", shy)
    fleet = Fleet(tree, client)
    found = {run.run: run for run in fleet.runs()}
    assert len(found) == 7
    assert (found["a0"].state, found["a0"].error) == (
        "unreadable",
        "is gone: it was removed meanwhile",
    )
    assert found["a3"].error == "cannot be read: RuntimeError: no such luck"
    assert found["b/only"].error == "cannot be read: Permission denied"
    assert found["a1"].metrics == {}
    monkeypatch.setattr(rows, "read_run", read)
    assert fleet.look().read == 2


def test_a_batch_that_fails_is_done_run_by_run(tree: Path, client: Any, monkeypatch: Patch) -> None:
    """One run that no worker survives costs no other one."""
    monkeypatch.setattr(Pace, "cut", lambda self, waiting, threads: _all_of(waiting))
    monkeypatch.setattr(crew, "_do", _fails_on_a1)
    seen: list[tuple[int, int]] = []
    fleet = Fleet(tree, client, progress=lambda done, total: seen.append((done, total)))
    states = {run.run: (run.state, run.error) for run in fleet.runs()}
    assert states.pop("a1") == ("unreadable", "MemoryError: too large")
    assert {state for state, _ in states.values()} == {"ended", "failed", "unknown"}
    assert seen[-1] == (7, 7)


def _all_of(waiting: deque[Any]) -> list[Any]:
    batch = list(waiting)
    waiting.clear()
    return batch


def _fails_on_a1(work: Callable[[FoundRun], Any], batch: list[FoundRun]) -> Any:
    if any(found.name == "a1" for found in batch):
        raise MemoryError("too large")
    return [work(found) for found in batch], 0.1


def test_a_scheduler_that_goes_away_is_told(tree: Path, monkeypatch: Patch) -> None:
    """Waiting for work that nobody does would never end."""
    with workers_here(1) as client:

        def cancelled(work: Any, batch: Any) -> Any:
            time.sleep(30)

        monkeypatch.setattr(crew, "_do", cancelled)
        submit = client.submit

        def gone(*args: Any, **options: Any) -> Any:
            future = submit(lambda: None)
            future.cancel()
            return future

        client.submit = gone
        with pytest.raises(FleetError, match="went away"):
            Fleet(tree, client).look()
        client.submit = submit


def test_batches_are_sized_by_what_was_measured() -> None:
    """A second's work each, shared between the threads, and at least one run."""

    def some(count: int, size: int = 0) -> deque[FoundRun]:
        return deque(FoundRun(Path(str(n)), str(n), "", 0, 0, size) for n in range(count))

    pace = Pace()
    waiting = some(1000)
    first = pace.cut(waiting, 2)
    assert 10 < len(first) < 30
    pace.learn(first, 0.01 * len(first))
    assert len(pace.cut(waiting, 2)) == pytest.approx(100, abs=2)
    pace.learn(first, 0.03 * len(first))
    assert len(pace.cut(waiting, 2)) == pytest.approx(50, abs=2)
    assert len(pace.cut(some(8), 2)) == 2
    assert len(pace.cut(some(3), 2)) == 1
    large = some(100, 10**12)
    assert len(pace.cut(large, 1)) == 1
    assert len(large) == 99


def test_a_given_client_stays_and_its_workers_must_see_the_runs(
    tree: Path, client: Any, monkeypatch: Patch
) -> None:
    with Fleet(tree, client) as fleet:
        fleet.look()
    assert client.submit(int, 3).result() == 3
    monkeypatch.setattr(client, "run", lambda *args, **options: {"tcp://far:1": "does not see it"})
    cache_file(tree).unlink()
    with pytest.raises(FleetError, match=r"far:1 has to have foundry_fastlog .* does not see it"):
        Fleet(tree, client).look()
    monkeypatch.setattr(client, "wait_for_workers", _never)
    with pytest.raises(FleetError, match="has no workers"):
        Fleet(tree, client).look()


def _never(*args: Any, **options: Any) -> None:
    raise TimeoutError


def test_an_address_that_nobody_answers_is_told(tree: Path, monkeypatch: Patch) -> None:
    monkeypatch.setattr(crew, "_PATIENCE_S", 1.0)
    with (
        Fleet(tree, "tcp://127.0.0.1:1") as fleet,
        pytest.raises(FleetError, match=r"127\.0\.0\.1:1"),
    ):
        fleet.look()
    with pytest.raises(FleetError, match="no scheduler answers at nowhere"):
        Fleet(tree, "nowhere://x").look()


def test_workers_that_cannot_start_are_told(tree: Path, monkeypatch: Patch) -> None:
    def refuse(*args: Any, **options: Any) -> Any:
        raise RuntimeError("no room")

    monkeypatch.setattr("distributed.deploy.subprocess.SubprocessCluster", refuse)
    with pytest.raises(FleetError, match="could be started here: no room"):
        Fleet(tree).look()


def test_without_dask_the_error_says_how_to_get_it(tree: Path, monkeypatch: Patch) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(ImportError, match=r"foundry_fastlog\[fleet\]"):
        Fleet(tree).look()


def test_no_directory_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(RunNotFoundError, match="not a directory"):
        Fleet(tmp_path / "nothing")


def test_a_row_is_pickled_as_its_line(tree: Path) -> None:
    """Or as it is where it cannot be kept."""
    import pickle

    for found in find_all_runs(tree):
        row = rows.read_row(600.0, found)
        copy = pickle.loads(pickle.dumps(row))
        assert (copy.found, copy.errors, copy.line) == (row.found, row.errors, row.line)
        assert copy.summary.to_dict() == row.summary.to_dict()
    lost = rows.unreadable(found, "x")
    assert pickle.loads(pickle.dumps(lost)) == lost


def test_a_lost_worker_is_named_as_such() -> None:
    from distributed.scheduler import KilledWorker

    assert "may need more memory" in crew._reason(KilledWorker("x", None, 3))
    assert crew._reason(ValueError("y")) == "ValueError: y"
    assert Lost(1, "z").reason == "z"


def test_the_command_shows_totals_failures_and_the_best(
    tree: Path, command: Command, client: Any
) -> None:
    """On workers of its own where it has to read, here from what is kept."""
    Fleet(tree, client).look()
    said = command("fleet", tree, "-m", "loss", "--by", "config.lr", "-n", 2).out
    assert "7 runs: 4 ended, 2 failed, 1 unknown" in said
    assert "OSError: disk full" in said
    assert "By config.lr, with the last loss" in said
    assert "Best loss" in said
    assert "b/noted" in said
    assert "a2" not in said
    found = json.loads(command("fleet", tree, "-m", "acc", "--by", "state", "--json").out)
    assert found["totals"]["states"] == {"ended": 4, "failed": 2, "unknown": 1}
    assert [run["run"] for run in found["best"]] == ["b/only", "b/noted"]
    assert [group["key"] for group in found["by"]] == ["ended", "failed", "unknown"]
    assert [failure["ended"] for failure in found["failures"]] == [1, 1, 0]
    assert found["unreadable"] == {}
    plain = json.loads(command("fleet", tree, "--json", "-w", "state == 'ended'").out)
    assert set(plain) == {"totals", "failures", "unreadable"}
    assert "Failures" not in command("fleet", tree, "-w", "state == 'ended'").out


def test_the_command_reads_by_a_scheduler_and_names_what_it_cannot_read(
    tree: Path, command: Command, monkeypatch: Patch
) -> None:
    monkeypatch.setattr(rows, "read_run", _no_a1(rows.read_run))
    with workers_here(1) as client:
        at = client.scheduler.address
        said = command("fleet", tree, "--scheduler", at, "-w", "las.loss < 3", code=2).err
        assert "las" in said
        said = command("fleet", tree, "--scheduler", at, "-w", "not config.ls == 1", code=1)
        assert "a1: cannot be read" in said.out
        assert "config.ls" in said.err
        found = json.loads(command("fleet", tree, "--scheduler", at, "--json", code=1).out)
        assert list(found["unreadable"]) == ["a1"]
        said = command("fleet", tree, "--scheduler", at, "-m", "los", code=1)
        assert "no run has numbers of los; there are: loss" in said.err


def _no_a1(read: Callable[..., Any]) -> Callable[..., Any]:
    def maybe(path: Path) -> Any:
        if path.name == "a1":
            raise OSError("no")
        return read(path)

    return maybe


def test_the_command_tells_wrong_options(tree: Path, tmp_path: Path, command: Command) -> None:
    (tmp_path / "empty").mkdir()
    assert "no run below" in command("fleet", tmp_path / "empty", code=2).err
    assert "not a directory" in command("fleet", tmp_path / "nothing", code=2).err
    assert "--compact" in command("fleet", tree, "-s", "log", code=2).err
    assert "--compact" in command("fleet", tree, "--unknown", code=2).err


def test_a_script_without_a_guard_starts_workers_of_its_own(tree: Path, tmp_path: Path) -> None:
    """Whose processes do not run the script again; nothing is left of them."""
    script = tmp_path / "script.py"
    script.write_text(
        "import sys\n"
        "from foundry_fastlog import Fleet\n"
        f"with Fleet({str(tree)!r}, workers=1) as fleet:\n"
        "    print('runs', len(fleet.runs()))\n"
    )
    env = {**os.environ, "XDG_CACHE_HOME": str(tmp_path / "other")}
    done = subprocess.run(
        [sys.executable, script], env=env, capture_output=True, text=True, timeout=120, check=True
    )
    assert done.stdout == "runs 7\n"
