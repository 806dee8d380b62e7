"""Curves of metrics, cached, beside values that are counted one by one."""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
from hypothesis import given
from hypothesis import strategies as st
from oracle import OracleWriter
from recorded import in_child, in_threads

from foundry_fastlog import Recorder, Run, read_run
from foundry_fastlog.reading import curve_cache, curves
from foundry_fastlog.reading.curves import Curve, Curves, Limits

Patch = pytest.MonkeyPatch
Values = list[tuple[int, float]]

FIELDS = ("first_step", "first", "last_step", "last", "min_step", "min", "max_step", "max")
SMALL = Limits(size=0, most=8, least=8)


@pytest.fixture(autouse=True)
def home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: Patch) -> Path:
    """The user's caches."""
    path = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("XDG_CACHE_HOME", str(path))
    return path


@pytest.fixture
def written(monkeypatch: Patch) -> None:
    """Small runs have caches, too, and are read in parts."""
    monkeypatch.setattr(curves, "_READ_BYTES", 700)
    monkeypatch.setattr(curves, "is_worth_it", lambda new, read: new > 0)


def values_of(run: Run, name: str, starts: Any, ranks: Any) -> Values:
    """All values of a metric that count, line by line."""
    return [
        (line["step"], float(line["metrics"][name]))
        for rank in run.ranks
        if ranks is None or rank in ranks
        for line in run.lines("metrics", starts=starts, rank=rank)
        if type(line.get("metrics", {}).get(name)) in (bool, int, float)
    ]


def expected(values: Values, level: int, window: tuple[int, int]) -> list[tuple[Any, ...]]:
    """The oracle: the buckets of a window, by sorting."""
    found = []
    for index, group in groupby(sorted(values, key=lambda v: v[0]), lambda v: v[0] >> level):
        if not window[0] >> level <= index <= window[1] >> level:
            continue
        some = list(group)
        finite = sorted(v for v in some if math.isfinite(v[1]))
        ends: list[Any] = [0, math.nan] * 4
        if finite:
            least = min(finite, key=lambda v: (v[1], v[0]))
            most = max(finite, key=lambda v: (v[1], -v[0]))
            ends = [*finite[0], *finite[-1], *least, *most]
        found.append((index << level, *ends, len(finite), len(some) - len(finite)))
    return found


def rows(curve: Curve) -> list[tuple[Any, ...]]:
    arrays = [getattr(curve, name).tolist() for name in ("steps", *FIELDS, "count", "nonfinite")]
    return list(zip(*arrays, strict=True))


def check(curve: Curve, values: Values, points: int, window: tuple[int, int], most: int) -> None:
    """Hold a curve against all values: its buckets, and that no finer ones were to be had."""
    buckets = expected(values, curve.level, window)
    assert str(rows(curve)) == str(buckets)
    assert len(buckets) <= points or curve.level == 63
    if curve.level > 0 and len(buckets) <= points // 2:
        assert len(expected(values, curve.level - 1, window)) > points
    kept = len(expected(values, curve.level, (-(1 << 63), (1 << 63) - 1)))
    assert curve.level == 0 or kept <= most or len(buckets) <= points


def draw(run: Run, path: Path, held: dict[Any, Curves], question: Any) -> None:
    points, window, ranks, starts = question
    if starts not in ("latest", "all") and starts not in run.starts:
        return
    kept = held.get(starts)
    if kept is None:
        kept = held[starts] = curves_of(path, starts)
    for name in ("loss", "val"):
        curve = kept.draw(name, points, window, ranks)
        check(curve, values_of(run, name, starts, ranks), points, window, SMALL.most)


def curves_of(path: Path, starts: Any = "latest", limits: Limits = SMALL) -> Curves:
    return Curves(path, starts, lambda *what: read_run(path).exact_frame(*what, starts), limits)


NUMBERS = st.sampled_from([0.0, 1.0, -2.5, 7.0, 1e300, -1e300, math.nan, math.inf, -math.inf])
STEPS = st.integers(-40, 200)
APPEND = st.tuples(st.just("append"), st.integers(0, 3), STEPS, st.lists(NUMBERS, max_size=12))
REWIND = st.tuples(st.just("rewind"), st.integers(0, 3), STEPS)
LOSE = st.tuples(st.sampled_from(["begin", "forget"]))
DRAW = st.tuples(
    st.just("draw"),
    st.integers(2, 30),
    st.tuples(STEPS, STEPS).map(sorted).map(tuple),
    st.sampled_from([None, [0], [1], [0, 1], [5]]),
    st.sampled_from(["latest", "latest", "all", 0, 1]),
)


@pytest.mark.usefixtures("written")
@given(st.lists(st.one_of(APPEND, APPEND, REWIND, LOSE, DRAW, DRAW), max_size=25))
def test_a_curve_has_the_values_that_count(
    tmp_path_factory: pytest.TempPathFactory, calls: list[tuple[Any, ...]]
) -> None:
    """Whatever was counted and cached before: starts, rewinds, ranks, NaN, readers that go on."""
    path = tmp_path_factory.mktemp("run")
    writers: dict[int, OracleWriter] = {}
    held: dict[Any, Curves] = {}
    last = ("draw", 10, (-(1 << 62), 1 << 62), None, "latest")
    for what, *rest in [("append", 0, 0, [1.0]), *calls, last, ("begin",), last]:
        if what in ("append", "rewind"):
            number, step = rest[:2]
            writer = writers.get(number)
            if writer is None:
                writer = OracleWriter(path, rank=number % 2, attempt=number // 2, segment_lines=9)
                writers[number] = writer
            if what == "rewind":
                writer.rewind(step)
            for place, value in enumerate(rest[2] if what == "append" else ()):
                name = "val" if place % 5 == 4 else "loss"
                writer.metrics_dict(step + place, {name: value, "text": "x", "on": True})
        elif what == "draw":
            draw(read_run(path), path, held, rest)
        else:
            held.clear()
            if what == "forget":
                shutil.rmtree(os.environ["XDG_CACHE_HOME"], ignore_errors=True)


def test_threads_share_a_run(tmp_path: Path) -> None:
    OracleWriter(tmp_path).fill(range(20_000))
    run = read_run(tmp_path)
    counts: list[int] = []
    in_threads(lambda _: counts.append(run.curve("loss").count.sum()), 4)
    assert counts == [20_000] * 4
    assert read_run(tmp_path).curve("loss").count.sum() == 20_000


@pytest.mark.parametrize("kind", ["interrupted", "forked"])
def test_what_was_read_by_halves_is_read_again(
    tmp_path: Path, monkeypatch: Patch, kind: str
) -> None:
    """Values that a cursor gave, and that got into no curve."""
    writer = OracleWriter(tmp_path).fill(range(3000))
    run = read_run(tmp_path)
    run.curve("loss")
    writer.fill(range(3000, 6000))
    if kind == "interrupted":
        with monkeypatch.context() as patched:
            patched.setattr(Curves, "_take", Mock(side_effect=KeyboardInterrupt))
            with pytest.raises(KeyboardInterrupt):
                run.curve("loss")
    else:  # while another thread had polled
        (drawn,) = run._curves.values()
        assert drawn._cursor is not None
        assert len(drawn._cursor.poll().lines) == 3000
        drawn._pid = -1
    assert run.curve("loss").count.sum() == 6000


def test_a_run_draws_a_metric(tmp_path: Path) -> None:
    """All of it in few points, a part of it step by step, and what is written meanwhile."""
    writer = OracleWriter(tmp_path)
    for step in range(3000):
        writer.metrics(step, loss=float(step % 100), n=7)
    run = read_run(tmp_path)
    curve = run.curve("loss", points=100)
    assert (curve.level, len(curve)) == (5, 94)
    assert repr(curve) == "Curve('loss', 94 buckets of 32 steps)"
    assert (curve.max.max(), curve.count.sum()) == (99.0, 3000)
    near = run.curve("loss", points=100, steps=(1000, 1090))
    assert (near.level, near.steps.tolist()) == (0, [*range(1000, 1091)])
    writer.fill([3000], loss=1e9)
    assert run.curve("loss").max.max() == 1e9
    assert run.curve("loss", ranks=0).count.sum() == 3001
    assert [len(run.curve("loss", ranks=[3])), len(run.curve("none"))] == [0, 0]
    with pytest.raises(ValueError, match="points must be 2 or more, got 1"):
        run.curve("loss", points=1)
    with pytest.raises(ValueError, match="starts must be"):
        run.curve("loss", starts=4)
    with pytest.raises(TypeError, match="name must be a str, got int"):
        run.curve(5)  # type: ignore[arg-type]
    assert run.curve("loss", points=2**70).count.sum() == 3001


def test_a_kept_run_draws_a_start_that_came_later(tmp_path: Path) -> None:
    """A curve is of the run as it is now, so is the list of starts that it may be of."""
    for number in range(2):
        with Recorder(tmp_path, resume="auto") as recorder:
            for step in range(10 * number, 10 * number + 20):
                recorder.record(step, loss=float(number))
        if not number:
            kept = read_run(tmp_path)
            assert len(kept.curve("loss")) == 20
    assert kept.curve("loss", starts=1).count.sum() == 20
    assert kept.curve("loss").count.sum() == 30
    with pytest.raises(ValueError, match="one of 0, 1"):
        kept.curve("loss", starts=2)


@pytest.mark.parametrize("segment", range(3))
def test_a_segment_that_may_not_be_read_is_left_out(tmp_path: Path, segment: int) -> None:
    """As other readers do it; once it may be read, its values are there."""
    OracleWriter(tmp_path, segment_lines=10).fill(range(30))
    path = sorted(tmp_path.glob("metrics*"), key=lambda path: (len(path.name), path))[segment]
    path.chmod(0)
    tmp_path.chmod(0o755)

    def look() -> None:
        os.chdir(tmp_path)
        if os.geteuid() == 0:  # whom no permission stops
            os.seteuid(65534)
        kept = read_run(".")
        for ranks in (None, 0):
            curve = kept.curve("loss", ranks=ranks)
            assert curve.first_step.tolist() == [s for s in range(30) if s // 10 != segment]
            assert kept.curve("loss", ranks=ranks, points=2).count.sum() == 20
        os.seteuid(os.getuid())
        path.chmod(0o600)
        assert kept.curve("loss").first_step.tolist() == [*range(30)]

    in_child(look)


def test_a_run_that_was_begun_again_is_another_one(tmp_path: Path, written: None) -> None:
    """Under its name, beside the cache of the one that was removed; alive, and shorter."""
    del written
    run = tmp_path / "run"

    def record(count: int, value: float) -> Recorder:
        recorder = Recorder(run, ring="file", segment_bytes=4096)
        for step in range(count):
            recorder.record(step, loss=value)
        recorder.flush()
        return recorder

    record(300, 1.0).close()
    kept = read_run(run)
    assert kept.curve("loss").count.sum() == 300
    shutil.rmtree(run / "starts")
    for path in (*run.glob("*.jsonl"), run / "run.json"):
        path.unlink()
    recorder = record(100, 2.0)
    for opened in (kept, read_run(run)):
        curve = opened.curve("loss")
        assert (curve.count.sum(), curve.min.min(), curve.max.max()) == (100, 2.0, 2.0)
    recorder.close()


def test_a_flag_is_drawn_as_zeros_and_ones(tmp_path: Path) -> None:
    OracleWriter(tmp_path).fill(range(7), skipped=False).fill(range(7, 10), skipped=True)
    curve = read_run(tmp_path).curve("skipped")
    assert (curve.first.tolist(), curve.count.sum()) == ([0.0] * 7 + [1.0] * 3, 10)


def counted(monkeypatch: Patch) -> list[int]:
    """How many bytes are taken in from now on, by call."""
    taken: list[int] = []
    real = Curves._take

    def take(self: Curves, polled: Any, pyramids: Any) -> None:
        taken.append(sum(series.size for series in polled.series))
        real(self, polled, pyramids)

    monkeypatch.setattr(Curves, "_take", take)
    return taken


PLACES = ("private", "home", "none")


@pytest.mark.usefixtures("written")
@pytest.mark.parametrize("place", PLACES)
def test_another_reader_goes_on_where_one_stopped(
    place: str, tmp_path: Path, home: Path, monkeypatch: Patch
) -> None:
    """Only what is new is parsed; where no cache can be, it works without one."""
    run = tmp_path / "run"
    writer = OracleWriter(run).fill(range(100))
    if place == "private":
        (run / ".fastlog").mkdir()
    if place == "none":
        shutil.rmtree(home)
        home.touch()
    assert curves_of(run).draw("loss", 50, None, None).count.sum() == 100
    found = [path for top in (run, home) for path in top.rglob("curves-*")]
    assert [path.name for path in found] == ["curves-latest"] * (place != "none")
    assert [path.is_relative_to(run) for path in found] == [place == "private"] * len(found)
    assert not list(run.rglob("*.tmp"))
    writer.fill(range(100, 102))
    taken = counted(monkeypatch)
    size = (run / "metrics.jsonl").stat().st_size
    assert curves_of(run).draw("loss", 50, None, None).count.sum() == 102
    assert sum(taken) == size if place == "none" else 0 < sum(taken) < size / 20


@pytest.mark.usefixtures("written")
def test_a_full_or_foreign_place_is_skipped(tmp_path: Path, home: Path, monkeypatch: Patch) -> None:
    OracleWriter(tmp_path).fill(range(10))
    (tmp_path / ".fastlog").mkdir()
    replace = Path.replace

    def refuse(self: Path, target: Path) -> Path:
        if target.is_relative_to(tmp_path):
            raise OSError(28, "No space left on device")
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", refuse)
    curves_of(tmp_path).draw("loss", 50, None, None)
    assert not [path for path in tmp_path.rglob("*") if path.suffix == ".tmp"]
    assert len([*home.rglob("curves-latest")]) == 1


def damaged(path: Path) -> Iterator[bytes]:
    """A cache that was damaged, in each of many ways, and other files."""
    good = path.read_bytes()
    for at in range(0, len(good), 97):
        yield good[:at] + bytes([good[at] ^ 4]) + good[at + 1 :]
    for end in (0, 5, 20, len(good) // 2, len(good) - 1):
        yield good[:end]
    cached = curve_cache.Cached.parse(good)
    for key in cached.facts:
        facts = {name: value for name, value in cached.facts.items() if name != key}
        yield curve_cache.Cached(facts, cached.places, cached.content).render()
    for wrong in ({"position": {}}, {"limits": [1, 2, 3]}, {"read": "x"}, {"starts": "all"}):
        facts = {**cached.facts, **wrong}
        yield curve_cache.Cached(facts, cached.places, cached.content).render()
    for places in ([[0, "loss", 99, 88]], [[0, "loss", 1, 87]], [[0, "loss", 1]], 3):
        yield curve_cache.Cached(cached.facts, places, cached.content).render()  # type: ignore[arg-type]


@pytest.mark.usefixtures("written")
def test_a_damaged_cache_is_written_anew(tmp_path: Path, home: Path) -> None:
    OracleWriter(tmp_path).fill(range(40))
    whole = rows(curves_of(tmp_path).draw("loss", 50, None, None))
    (cache,) = home.rglob("curves-latest")
    good = cache.read_bytes()
    for content in damaged(cache):
        cache.write_bytes(content)
        assert rows(curves_of(tmp_path).draw("loss", 50, None, None)) == whole
        assert cache.read_bytes() == good
    cache.unlink()
    cache.symlink_to("/dev/zero")
    assert rows(curves_of(tmp_path).draw("loss", 50, None, None)) == whole


@pytest.mark.usefixtures("written")
@pytest.mark.parametrize("how", ["replaced", "another run", "second rank"])
def test_what_is_no_longer_so_is_counted_again(how: str, tmp_path: Path) -> None:
    path = tmp_path / "run"
    OracleWriter(path).fill(range(50), loss=1.0)
    kept = curves_of(path)
    assert kept.draw("loss", 10, None, None).max.max() == 1.0
    if how == "second rank":
        OracleWriter(path, rank=1).fill(range(3), loss=2.0)
    else:
        OracleWriter(tmp_path / "other").fill(range(60), loss=2.0)
        if how == "replaced":
            (tmp_path / "other" / "metrics.jsonl").replace(path / "metrics.jsonl")
        else:
            path.rename(tmp_path / "away")
            (tmp_path / "other").rename(path)
    for one in (kept, curves_of(path)):
        curve = one.draw("loss", 10, None, None)
        assert curve.count.sum() == (53 if how == "second rank" else 60)
        assert curve.max.max() == 2.0
        # Those of several ranks are together once more.
        assert (-1 in {rank for rank, *_ in one._update().dump()}) == (how == "second rank")


def test_a_file_that_lost_all_its_lines_has_no_curve(tmp_path: Path) -> None:
    OracleWriter(tmp_path).fill(range(50))
    assert curves_of(tmp_path).draw("loss", 10, None, None).count.sum() == 50
    (tmp_path / "metrics.jsonl").rename(tmp_path / "metrics.jsonl.gz")
    (tmp_path / "metrics.jsonl.gz").write_bytes(b"")
    assert curves_of(tmp_path).draw("loss", 10, None, None).count.sum() == 0


def test_only_large_news_are_written() -> None:
    """A page that looks each second does not write each second."""
    mib = 1 << 20
    pairs = [(mib, mib), (mib - 1, mib), (10 * mib, 80 * mib), (9 * mib, 80 * mib)]
    assert [curves.is_worth_it(new, read) for new, read in pairs] == [True, False, True, False]
