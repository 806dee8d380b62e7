"""Forked, spawned and dying processes: each records to files of its own, and nothing is lost.

The scenarios run in processes of their own, since they fork, are killed or end without clean-up.
What they had acknowledged is passed back as an exit code or a file, never through the recorder.
"""

from __future__ import annotations

import os
import subprocess
import textwrap
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from recorded import Play, lines, run_python

from foundry_fastlog import _core, read_run

PREAMBLE = """
import glob, multiprocessing, os, signal, sys, threading, time
from foundry_fastlog import Recorder, open_run
RUN = sys.argv[-1]
"""


def lines_by_writer(run: Path, stream: str = "metrics") -> dict[str, list[dict[str, Any]]]:
    """Read a stream's lines per label; each writer's seq must count from 0 without a gap."""
    found: dict[str, list[dict[str, Any]]] = {}
    for path in sorted(run.glob(f"{stream}*.jsonl")):
        label = path.name.removeprefix(stream).removesuffix(".jsonl").removeprefix(".")
        found[label] = lines(run, stream, label)
    return found


def steps(run: Path) -> Counter[int]:
    return Counter(
        line["step"] for found in lines_by_writer(run).values() for line in found if "step" in line
    )


def assert_whole(run: Path, expected: Iterable[int]) -> None:
    """The steps are there, each as often as it is expected, and no ring file stays behind."""
    assert steps(run) == Counter(expected)
    assert list((run / ".fastlog").glob("*.ring*")) == []


@pytest.fixture
def play(run: Path) -> Play:
    """Runs a scenario in a fresh process, which is killed where its last line says so."""

    def start(body: str) -> subprocess.CompletedProcess[str]:
        script = run.parent / "scenario.py"  # a file, which spawned children import
        script.write_text(PREAMBLE + textwrap.dedent(body))
        killed = body.rstrip().endswith("os.kill(os.getpid(), signal.SIGKILL)")
        # Python 3.12 warns of every fork of a process with threads: what these tests are about.
        options = ["-W", "ignore::DeprecationWarning", str(script)]
        return run_python("", run, options=options, returncode=-9 if killed else 0)

    return start


@pytest.mark.parametrize("ending", ["os._exit(0)", "os.kill(os.getpid(), signal.SIGKILL)"])
def test_children_that_end_without_closing_lose_nothing(run: Path, play: Play, ending: str) -> None:
    """os._exit() or SIGKILL in a child: the parent's close collects what its ring still held."""
    play(f"""
        recorder = Recorder(RUN, flush_interval_s=60)
        recorder.record(0, who="parent")
        child = os.fork()
        if child == 0:
            for step in range(1, 500):
                recorder.record(step, who="child")
            {ending}
        os.waitpid(child, 0)
        recorder.close()
    """)
    assert_whole(run, range(500))


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_multiprocessing_workers_record(run: Path, play: Play, method: str) -> None:
    play(f"""
        def work(recorder, first):
            for step in range(first, first + 50):
                recorder.record(step, pid=os.getpid())

        if __name__ == "__main__":
            context = multiprocessing.get_context("{method}")
            with Recorder(RUN) as recorder:
                recorder.record(0, pid=os.getpid())
                firsts = [(recorder, 50 * n + 1) for n in range(3)]
                workers = [context.Process(target=work, args=args) for args in firsts]
                for worker in workers: worker.start()
                for worker in workers:
                    worker.join()
                    assert worker.exitcode == 0
    """)
    assert len(lines_by_writer(run)) == 4
    assert_whole(run, range(151))


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
@pytest.mark.parametrize("inherited", [False, True])
def test_a_recorder_that_a_worker_opens_is_closed_at_its_end(
    run: Path, play: Play, method: str, inherited: bool
) -> None:
    """Also one that is still referred to then, with its ring in memory."""
    play(f"""
        def work(handed):
            global kept  # until the process is gone
            if handed is not None:
                handed.close()
            options = dict(ring="memory", flush_interval_s=60)
            kept = [Recorder(f"{{RUN}}/{{n}}", **options) for n in range(2)]
            for recorder in kept:
                recorder.record(1, loss=0.5)
            sys.exit(0)

        if __name__ == "__main__":
            recorder = Recorder(f"{{RUN}}/main") if {inherited} else None
            worker = multiprocessing.get_context("{method}").Process(target=work, args=(recorder,))
            worker.start()
            worker.join()
            assert worker.exitcode == 0
    """)
    for n in range(2):
        assert_whole(run / str(n), [1])


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
@pytest.mark.parametrize("passed", ["Process", "ProcessPoolExecutor"])
def test_a_recorder_that_is_passed_to_a_worker_is_closed_at_its_end(
    run: Path, play: Play, method: str, passed: str
) -> None:
    """With its ring in memory; a worker is one from the first: nothing is said of it."""
    done = play(f"""
        def keep(recorder):
            global kept
            kept = recorder

        def work(recorder):
            for step in range(1000):
                recorder.record(step, x=0.5)

        def use(_):
            work(kept)

        if __name__ == "__main__":
            context = multiprocessing.get_context("{method}")
            recorder = Recorder(RUN, ring="memory", flush_interval_s=60, overhead_budget=1)
            if "{passed}" == "Process":
                worker = context.Process(target=work, args=(recorder,))
                worker.start()
                worker.join()
                assert worker.exitcode == 0
            else:
                from concurrent.futures import ProcessPoolExecutor
                with ProcessPoolExecutor(1, context, keep, (recorder,)) as pool:
                    list(pool.map(use, [0]))
            (written,) = glob.glob(RUN + "/metrics.w*.jsonl")
            assert len(open(written).readlines()) == 1000
    """)
    assert done.stderr == ""
    assert_whole(run, range(1000))


def test_thousands_of_leftover_rings_are_collected_while_training(run: Path, play: Play) -> None:
    """Workers that leave by os._exit(), epoch after epoch: their rings do not pile up.

    That of a rank that was killed stays for who can note how it ended.
    """
    play("""
        began, begin = os.pipe()
        if (rank := os.fork()) == 0:
            os.read(began, 1)
            second = Recorder(RUN, rank=1, launch="job")
            second.record(100, loss=1.0)
            os.kill(os.getpid(), signal.SIGKILL)
        recorder = Recorder(RUN, rank=0, launch="job", flush_interval_s=0.01)
        os.write(begin, b"x")
        os.waitpid(rank, 0)
        for epoch in range(100):
            child = os.fork()
            if child == 0:
                recorder.record(epoch, loss=1.0)
                os._exit(0)
            os.waitpid(child, 0)
        deadline = time.monotonic() + 60
        private = os.path.join(RUN, ".fastlog")
        while len([n for n in os.listdir(private) if n.endswith(".ring")]) > 2:
            assert time.monotonic() < deadline, "the flush thread does not collect"
            time.sleep(0.05)
        recorder.close()
    """)
    assert steps(run) == Counter(range(101))
    assert [report.state for report in read_run(run).report_starts()] == ["killed"]


def test_recovery_follows_no_symbolic_link(run: Path, play: Play) -> None:
    """A link in place of a ring, of the private directory or of a stream's file is not followed."""
    play("""
        recorder = Recorder(RUN, flush_interval_s=60)
        for step in range(10):
            recorder.record(step, loss=1.0)
        os.kill(os.getpid(), signal.SIGKILL)
    """)
    outside = run.parent / "outside"
    outside.write_text("precious\n")
    (run / "metrics.jsonl").unlink()
    (run / "metrics.jsonl").symlink_to(outside)
    (run / ".fastlog/x.ring").symlink_to(outside)
    (report, link) = _core.recover_run(str(run))
    assert (report["outcome"], link["outcome"]) == ("recovered", "failed")
    assert outside.read_text() == "precious\n"
    assert (run / "metrics.jsonl").is_symlink()
    (run / "metrics.jsonl").unlink()
    (run / ".fastlog/x.ring").unlink()
    assert [path.name for path in run.glob("*.jsonl")] == ["metrics.000001.jsonl"]
    assert steps(run) == Counter(range(10))
    private = run / ".fastlog"
    private.rmdir()
    elsewhere = run.parent / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "y.ring").write_bytes(os.urandom(9000))
    private.symlink_to(elsewhere)
    assert _core.recover_run(str(run)) == []
    assert (elsewhere / "y.ring").exists()
