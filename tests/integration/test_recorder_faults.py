"""Full disks and vanishing files, made with what every Unix has: no privileges, no preloading.

RLIMIT_FSIZE at the metrics file's size is a disk that is full for this process, and can be freed
again. Each scenario runs in a process of its own, with warnings as errors: nothing may be raised.
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from recorded import lines, parse, raw_lines, run_python, segments, steps

from foundry_fastlog import read_run, recover

HEAD = """
import json, logging, os, resource, shutil, sys, threading
from pathlib import Path
from foundry_fastlog import Recorder, RecorderClosedError
run = Path(sys.argv[1])
file = run / "metrics.jsonl"
hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
told = []
class Keep(logging.Handler):
    def emit(self, record):
        told.append(record.getMessage())
logging.getLogger("foundry_fastlog").addHandler(Keep())

def fill_disk():
    resource.setrlimit(resource.RLIMIT_FSIZE, (file.stat().st_size, hard))

def free_disk():
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))

def until(condition):
    while not condition():
        recorder.flush(0.05)
"""


def play(run: Path, body: str, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run a scenario with warnings as errors."""
    done = run_python(HEAD + body, run, options=["-W", "error"], timeout=100, **options)
    assert "Traceback" not in done.stderr, done.stderr
    return done


def check(run: Path, accepted: list[int], dropped: int, label: str = "") -> None:
    """The accepted steps are in the files once and in order, the dropped ones are marked."""
    assert steps(run, label) == accepted
    found = lines(run, label=label)
    assert sum(line["dropped"] for line in found if "dropped" in line) == dropped


@pytest.mark.parametrize("ring", ["file", "memory"])
def test_drop_policy_on_a_full_disk(tmp_path: Path, ring: str) -> None:
    """The ring fills up, records are dropped at once, counted, marked, and told once."""
    done = play(
        tmp_path,
        f"""
recorder = Recorder(run, ring_bytes=65536, back_pressure="drop", ring={ring!r})
recorder.record(0, x=1.0)
recorder.flush()
fill_disk()
answers = [recorder.record(step, x=1.0) for step in range(1, 5_000)]
until(lambda: recorder.stats()["errors"] > 0)
free_disk()
assert recorder.flush()
answers += [recorder.record(step, x=1.0) for step in range(5_000, 5_100)]
assert recorder.close()
stats = recorder.stats()
assert stats["calls"] == 5_100 == stats["accepted"] + stats["dropped"], stats
assert stats["accepted"] == stats["written"]
assert stats["blocked_s"] == 0, stats
assert len([text for text in told if "could not write" in text]) == 1, told
assert len([text for text in told if "records are being dropped" in text]) == 1, told
accepted = [0] + [step for step, answer in enumerate(answers, 1) if answer]
json.dump([accepted, stats["dropped"]], sys.stdout)
""",
    )
    accepted, dropped = parse_answer(done)
    assert dropped > 1_000
    assert accepted[-100:] == list(range(5_000, 5_100))
    check(tmp_path, accepted, dropped)


def parse_answer(done: subprocess.CompletedProcess[str]) -> Any:
    """Read what a scenario printed."""
    return json.loads(done.stdout)


def test_block_policy_on_a_full_disk(tmp_path: Path) -> None:
    """One wait in vain, then drops without waiting until the disk takes something again."""
    done = play(
        tmp_path,
        """
recorder = Recorder(run, ring_bytes=65536, back_pressure="block", block_timeout_s=0.2)
recorder.record(0, x=1.0)
recorder.flush()
fill_disk()
answers = [recorder.record(step, x=1.0) for step in range(1, 5_000)]
stats = recorder.stats()
# Had every dropped record waited, this would be hundreds of seconds.
assert 0.2 <= stats["blocked_s"] < 0.2 * stats["dropped"] / 10, stats
free_disk()
assert recorder.flush()
answers += [recorder.record(step, x=1.0) for step in range(5_000, 5_100)]
assert recorder.close()
stats = recorder.stats()
assert stats["accepted"] == stats["written"] == 5_100 - stats["dropped"], stats
accepted = [0] + [step for step, answer in enumerate(answers, 1) if answer]
json.dump([accepted, stats["dropped"]], sys.stdout)
""",
    )
    accepted, dropped = parse_answer(done)
    assert dropped > 1_000
    check(tmp_path, accepted, dropped)


def test_block_policy_waits_for_space(tmp_path: Path) -> None:
    """A disk that is freed while record() waits costs nothing but the wait."""
    play(
        tmp_path,
        """
recorder = Recorder(run, ring_bytes=65536, block_timeout_s=3600)
recorder.record(0, x=1.0)
recorder.flush()
fill_disk()
def work():
    for step in range(1, 5_000):
        assert recorder.record(step, x=1.0)
thread = threading.Thread(target=work)
thread.start()
until(lambda: recorder.stats()["errors"] > 1)
free_disk()
thread.join()
assert recorder.close()
stats = recorder.stats()
assert stats["dropped"] == 0, stats
assert stats["blocked_s"] > 0, stats
""",
    )
    check(tmp_path, list(range(5_000)), 0)


def test_every_stream_survives_a_full_disk(tmp_path: Path) -> None:
    """Metrics, timings, messages and errors of that time are all there afterwards."""
    play(
        tmp_path,
        """
recorder = Recorder(run, segment_bytes=20_000)
recorder.record(0, x=1.0)
recorder.flush()
fill_disk()
for step in range(1, 500):
    recorder.record(step, x=1.0)
    with recorder.timer("t", step=step):
        pass
    recorder.event("m", step=step)
    recorder.event("e", step=step, error=ValueError("v"))
until(lambda: recorder.stats()["errors"] > 0)
free_disk()
assert recorder.close()
assert len(told) == 1, told
""",
    )
    check(tmp_path, list(range(500)), 0)
    for stream in ("performance", "log", "errors"):
        assert [line["step"] for line in lines(tmp_path, stream)] == list(range(1, 500))


def test_close_on_a_full_disk(tmp_path: Path) -> None:
    """close() returns False in its time, refuses records, and finishes when called again.

    Until then the start has not ended.
    """
    play(
        tmp_path,
        """
recorder = Recorder(run)
ended = lambda: json.loads((run / "run.json").read_text())["attempts"][0]["ended"]
recorder.record(0, x=1.0)
recorder.flush()
fill_disk()
for step in range(1, 100):
    recorder.record(step, x=1.0)
assert not recorder.flush(0.05)
assert not recorder.close(0.05)
assert recorder.closed
try:
    recorder.record(100, x=1.0)
except RecorderClosedError:
    pass
else:
    raise AssertionError("accepted")
assert not recorder.close(0)
assert recorder.stats()["written"] == 1
free_disk()
assert ended() is None
assert recorder.close()
assert recorder.stats()["written"] == 100
assert ended() is not None
""",
    )
    check(tmp_path, list(range(100)), 0)


def test_close_with_closed_descriptors_and_none_free(tmp_path: Path) -> None:
    """Nothing can be synced until descriptors are free again; then close() finishes."""
    play(
        tmp_path,
        """
recorder = Recorder(run, flush_interval_s=0.01, fsync_interval_s=60)
recorder.record(0, x=1.0)
until(lambda: recorder.stats()["flush_cpu_s"] > 0)  # the first round syncs what it finds
for step in range(1, 100):
    recorder.record(step, x=1.0)
assert recorder.flush()
limits = resource.getrlimit(resource.RLIMIT_NOFILE)
os.closerange(3, 1 << 16)
resource.setrlimit(resource.RLIMIT_NOFILE, (3, limits[1]))
assert not recorder.close(0.3)
assert "Too many open files" in recorder.stats()["last_error"]
resource.setrlimit(resource.RLIMIT_NOFILE, limits)
assert recorder.close()
""",
    )
    check(tmp_path, list(range(100)), 0)
    assert [path.name for path in segments(tmp_path)] == ["metrics.jsonl"]
    assert read_run(tmp_path).problems == []


def test_the_first_error_is_told_once(tmp_path: Path) -> None:
    """One warning with the file, the reason and what to do; the figures have first and last."""
    play(
        tmp_path,
        """
recorder = Recorder(run, flush_interval_s=0.001)
assert recorder.stats()["first_error"] is None
recorder.record(0, x=1.0)
recorder.flush()
fill_disk()
recorder.record(1, x=1.0)
until(lambda: recorder.stats()["errors"] >= 3)
for _ in range(50):
    recorder.record(2, x=1.0)
stats = recorder.stats()
for key in ("first_error", "last_error"):
    assert str(file) in stats[key] and "File too large (errno 27)" in stats[key], stats
(text,) = told
assert str(file) in text and "File too large" in text, text
assert "Training goes on" in text and "last_error" in text, text
free_disk()
assert recorder.close()
assert recorder.stats()["first_error"] is not None
assert len(told) == 1
""",
    )


@pytest.mark.parametrize(
    "call",
    [
        "recorder.record(2, x=1.0)",
        "recorder.record_dict(2, {'x': 1.0})",
        "recorder.log({'x': 1.0})",
        "recorder.timer('t').__enter__()",
        "recorder.event('m')",
        "recorder.stats()",
        "recorder.flush(0)",
        "recorder.close(0)",
    ],
)
def test_the_error_is_told_by_whatever_call_comes_next(tmp_path: Path, call: str) -> None:
    """The flush thread cannot use Python, so the next call of any kind tells its error."""
    play(
        tmp_path,
        f"""
recorder = Recorder(run, flush_interval_s=0.001)
recorder.record(0, x=1.0)
recorder.flush()
fill_disk()
recorder.record(1, x=1.0)
assert told == []
while not any(str(file) in text for text in told):  # close() may tell of run.json first
    {call}
free_disk()
assert recorder.close()
assert len([text for text in told if str(file) in text]) == 1, told
""",
    )


def test_removed_file(tmp_path: Path) -> None:
    """A file that is removed while it is open is made anew; `seq` shows what went with it."""
    play(
        tmp_path,
        """
recorder = Recorder(run)
for step in range(10):
    recorder.record(step, x=1.0)
    recorder.event("m", step=step)
assert recorder.flush()
file.unlink()
for step in range(10, 20):
    recorder.record(step, x=1.0)
    recorder.event("m", step=step)
assert recorder.close()
(text,) = told
assert str(file) in text and "removed" in text, text
assert recorder.stats()["errors"] == 1
assert recorder.stats()["written"] == 40
""",
    )
    found = [parse(line) for line in raw_lines(tmp_path / "metrics.jsonl")]
    assert [(line["seq"], line["step"]) for line in found] == [(n, n) for n in range(10, 20)]
    assert len(lines(tmp_path, "log")) == 20


def test_removed_directory(tmp_path: Path) -> None:
    """A run directory that is removed is made anew, with files for what comes."""
    play(
        tmp_path / "run",
        """
recorder = Recorder(run)
recorder.record(0, x=1.0)
recorder.event("m")
assert recorder.flush()
shutil.rmtree(run)
recorder.record(1, x=1.0)
recorder.event("m")
assert recorder.close()
assert recorder.stats()["written"] == 4
assert any("removed" in text for text in told), told
""",
    )
    for stream in ("metrics", "log"):
        (line,) = (parse(line) for line in raw_lines(tmp_path / "run" / f"{stream}.jsonl"))
        assert line["seq"] == 1


def test_directory_replaced_by_a_file(tmp_path: Path) -> None:
    """A file in the directory's place is waited out: all is written when it goes."""
    play(
        tmp_path / "run",
        """
recorder = Recorder(run)
recorder.record(0, x=1.0)
assert recorder.flush()
shutil.rmtree(run)
run.write_text("in the way")
for step in range(1, 100):
    recorder.record(step, x=1.0)
assert not recorder.flush(0.2)
assert not recorder.close(0.05)
assert "Not a directory" in recorder.stats()["last_error"], recorder.stats()
run.unlink()
assert recorder.close()
assert recorder.stats()["written"] == 100
""",
    )
    found = [parse(line) for line in raw_lines(tmp_path / "run" / "metrics.jsonl")]
    assert [line["step"] for line in found] == list(range(1, 100))


def test_truncated_file(tmp_path: Path) -> None:
    """A file that somebody empties is gone on with at its end: no hole of NULs, no half line."""
    play(
        tmp_path,
        """
recorder = Recorder(run)
for step in range(10):
    recorder.record(step, x=1.0)
assert recorder.flush()
os.truncate(file, 0)
for step in range(10, 20):
    recorder.record(step, x=1.0)
assert recorder.flush()
size = file.stat().st_size
os.truncate(file, size - 5)
for step in range(20, 30):
    recorder.record(step, x=1.0)
assert recorder.close()
assert len(told) == 1 and "truncated" in told[0], told
""",
    )
    content = (tmp_path / "metrics.jsonl").read_bytes()
    assert b"\0" not in content
    found = [parse(line) for line in raw_lines(tmp_path / "metrics.jsonl")]
    assert [line["step"] for line in found] == [*range(10, 19), *range(20, 30)]


def test_a_run_that_cannot_be_made_at_first(tmp_path: Path) -> None:
    """A place that does not exist yet (a mount to come) is waited for; the label is known then."""
    play(
        tmp_path,
        """
place = run / "place"
link = run / "link"
link.symlink_to(place)
recorder = Recorder(link / "run", flush_interval_s=0.001)
assert recorder.label == "" and recorder.files() == []
for step in range(100):
    assert recorder.record(step, x=1.0)
assert not recorder.flush(0.1)
assert "No such file or directory" in recorder.stats()["first_error"], recorder.stats()
assert len(told) == 1, told
soon = run / "soon"
(soon / "run").mkdir(parents=True)
(soon / "run" / "metrics.jsonl").write_text("")  # another attempt was faster
soon.rename(place)
assert recorder.flush(60)
assert (recorder.label, recorder.attempt) == ("a1", 1)
assert recorder.close()
content = json.loads((place / "run" / "run.json").read_text())
assert [(a["attempt"], a["label"]) for a in content["attempts"]] == [(1, "a1")]
""",
    )
    assert steps(tmp_path / "place" / "run", "a1") == list(range(100))


@pytest.mark.parametrize("end", ["assert not recorder.close()", ""], ids=["closed", "at exit"])
@pytest.mark.parametrize("place", ["nowhere", "full"])
def test_what_could_not_be_written_is_told_once(tmp_path: Path, place: str, end: str) -> None:
    """How much, why and what becomes of it; a place that never was there is not waited for."""
    done = play(
        tmp_path,
        f"""
logging.getLogger("foundry_fastlog").addHandler(logging.StreamHandler())
if {place == "nowhere"}:
    (run / "link").symlink_to(run / "place")
    recorder = Recorder(run / "link" / "run", close_timeout_s=3600)
    until(lambda: recorder.stats()["errors"])
else:
    recorder = Recorder(run, close_timeout_s=0.2)
    fill_disk()
for step in range(100):
    assert recorder.record(step, x=1.0)
{end}
""",
    )
    (told,) = [row for row in done.stderr.splitlines() if "records are missing" in row]
    assert told.startswith("100 records are missing in the files of ")
    if place == "nowhere":
        assert "No such file or directory" in told
        assert told.endswith("They are lost when this process ends.")
    else:
        assert "File too large" in told
        assert ".ring: raise the limit of file sizes; then the next start" in told
        assert f"`foundry-fastlog recover {tmp_path}`" in told
        recover(tmp_path)
        check(tmp_path, list(range(100)), 0)


def test_segments_on_a_full_disk(tmp_path: Path) -> None:
    """Rotation that fails and is tried again neither skips a number nor splits a line."""
    play(
        tmp_path,
        """
recorder = Recorder(run, segment_bytes=4096, flush_interval_s=0.001)
step = 0
for limit in (100, 1_000, 2_500, 4_000, 4_096):
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    for _ in range(200):
        assert recorder.record(step, x=step / 3)
        step += 1
    errors = recorder.stats()["errors"]
    if limit < 4_000:
        until(lambda: recorder.stats()["errors"] > errors)
free_disk()
assert recorder.close()
""",
    )
    check(tmp_path, list(range(1_000)), 0)
    found = segments(tmp_path)
    assert all(path.stat().st_size <= 4096 for path in found)
    assert [path.name for path in found[1:]] == [
        f"metrics.{number:06d}.jsonl" for number in range(1, len(found))
    ]
