"""Full disks and vanishing files, made with what every Unix has: no privileges, no preloading.

RLIMIT_FSIZE at the metrics file's size is a disk that is full for this process, and can be freed
again. Each scenario runs in a process of its own, with warnings as errors: nothing may be raised.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

import pytest
from recorded import Play, lines, segments, steps

from foundry_fastlog import recover

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

def start(**options):
    global recorder
    recorder = Recorder(run, **options)
    recorder.record(0, x=1.0)
    assert recorder.flush()

def try_to_record(*span):
    return [step for step in range(*span) if recorder.record(step, x=1.0)]

def record(*span):
    assert try_to_record(*span) == list(range(*span))

def until(condition):
    while not condition():
        recorder.flush(0.05)

def failed():
    return recorder.stats()["errors"] > 0

def close(written):
    assert recorder.close()
    assert recorder.stats()["written"] == written, recorder.stats()
"""
STRICT = True


def check(run: Path, accepted: Iterable[int], dropped: int = 0) -> None:
    """The accepted steps are in the files once and in order, the dropped ones are marked."""
    assert steps(run) == list(accepted)
    assert sum(line["dropped"] for line in lines(run) if "dropped" in line) == dropped


@pytest.mark.parametrize("ring", ["file", "memory"])
def test_drop_policy_on_a_full_disk(tmp_path: Path, play: Play, ring: str) -> None:
    """The ring fills up, records are dropped at once, counted, marked, and told once."""
    done = play(f"""
start(ring_bytes=65536, back_pressure="drop", ring={ring!r})
fill_disk()
accepted = [0] + try_to_record(1, 5_000)
until(failed)
free_disk()
assert recorder.flush()
accepted += try_to_record(5_000, 5_100)
assert recorder.close()
stats = recorder.stats()
assert stats["calls"] == 5_100 == stats["accepted"] + stats["dropped"], stats
assert stats["accepted"] == stats["written"]
json.dump([accepted, stats["dropped"]], sys.stdout)
assert stats["blocked_s"] == 0, stats
assert len([text for text in told if "could not write" in text]) == 1, told
assert len([text for text in told if "records are being dropped" in text]) == 1, told
""")
    accepted, dropped = json.loads(done.stdout)
    assert dropped > 1_000
    assert accepted[-100:] == list(range(5_000, 5_100))
    check(tmp_path, accepted, dropped)


def test_close_on_a_full_disk(tmp_path: Path, play: Play) -> None:
    """close() returns False in its time, refuses records, and finishes when called again.

    Until then the start has not ended.
    """
    play("""
start()
ended = lambda: json.loads((run / "run.json").read_text())["attempts"][0]["ended"]
fill_disk()
record(1, 100)
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
close(100)
assert ended() is not None
""")
    check(tmp_path, range(100))


@pytest.mark.parametrize(
    "call",
    [
        *("record(2, x=1.0)", "record_dict(2, {'x': 1.0})", "log({'x': 1.0})", "event('m')"),
        *("timer('t').__enter__()", "stats()", "flush(0)", "close(0)"),
    ],
)
def test_the_error_is_told_by_whatever_call_comes_next(play: Play, call: str) -> None:
    """The flush thread cannot use Python, so the next call of any kind tells its error."""
    play(f"""
start(flush_interval_s=0.001)
fill_disk()
recorder.record(1, x=1.0)
assert told == []
while not any(str(file) in text for text in told):  # close() may tell of run.json first
    recorder.{call}
free_disk()
assert recorder.close()
assert len([text for text in told if str(file) in text]) == 1, told
""")


def test_a_run_that_cannot_be_made_at_first(tmp_path: Path, play: Play) -> None:
    """A place that does not exist yet (a mount to come) is waited for; the label is known then."""
    play("""
place, link, soon = run / "place", run / "link", run / "soon"
link.symlink_to(place)
recorder = Recorder(link / "run", flush_interval_s=0.001)
assert recorder.label == "" and recorder.files() == []
record(100)
assert not recorder.flush(0.1)
assert "No such file or directory" in recorder.stats()["first_error"], recorder.stats()
assert len(told) == 1, told
(soon / "run").mkdir(parents=True)
(soon / "run" / "metrics.jsonl").write_text("")  # another process was faster
soon.rename(place)
assert recorder.flush(60)
assert (recorder.label, recorder.attempt) == ("p1", 0)
assert recorder.close()
content = json.loads((place / "run" / "run.json").read_text())
assert [(a["attempt"], a["label"]) for a in content["attempts"]] == [(0, "p1")]
""")
    assert steps(tmp_path / "place" / "run", "p1") == list(range(100))


@pytest.mark.parametrize("end", ["assert not recorder.close()", ""], ids=["closed", "at exit"])
@pytest.mark.parametrize("place", ["nowhere", "full"])
def test_what_is_unwritten_is_told_once(tmp_path: Path, play: Play, place: str, end: str) -> None:
    """How much, why and what becomes of it; a place that never was there is not waited for."""
    done = play(f"""
logging.getLogger("foundry_fastlog").addHandler(logging.StreamHandler())
if {place == "nowhere"}:
    (run / "link").symlink_to(run / "place")
    recorder = Recorder(run / "link" / "run", close_timeout_s=3600)
    until(failed)
else:
    recorder = Recorder(run, close_timeout_s=0.2)
    fill_disk()
record(100)
{end}
""")
    (told,) = [row for row in done.stderr.splitlines() if "records are missing" in row]
    assert told.startswith("100 records are missing from the files of ")
    if place == "nowhere":
        assert "No such file or directory" in told
        assert told.endswith("They are lost when this process ends.")
    else:
        assert "File too large" in told
        assert ".ring: raise the limit of file sizes; then the next start" in told
        assert f"`foundry-fastlog recover {tmp_path}`" in told
        recover(tmp_path)
        check(tmp_path, range(100))


def test_segments_on_a_full_disk(tmp_path: Path, play: Play) -> None:
    """Rotation that fails and is tried again neither skips a number nor splits a line."""
    play("""
recorder = Recorder(run, segment_bytes=4096, flush_interval_s=0.001)
for n, limit in enumerate((100, 1_000, 2_500, 4_000, 4_096)):
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    for step in range(n * 200, n * 200 + 200):
        assert recorder.record(step, x=step / 3)
    errors = recorder.stats()["errors"]
    if limit < 4_000:
        until(lambda: recorder.stats()["errors"] > errors)
free_disk()
assert recorder.close()
""")
    check(tmp_path, range(1_000))
    found = segments(tmp_path)
    assert all(path.stat().st_size <= 4096 for path in found)
    names = [f"metrics.{number:06d}.jsonl" for number in range(1, len(found))]
    assert [path.name for path in found[1:]] == names
