"""Reading by columns: what Arrow, polars, pandas and numpy are given is what the lines say."""

from __future__ import annotations

import json
import math
import pickle
import random
import signal
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from oracle import START, OracleWriter

from foundry_fastlog.reading import scan
from foundry_fastlog.reading.counting import Starts, is_marker
from foundry_fastlog.reading.cursor import Cursor
from foundry_fastlog.reading.lines import read_series, restore_nonfinite
from foundry_fastlog.reading.run import ReadProblemError, Run, read_run
from foundry_fastlog.run.checks import Problems, SeriesCheck

pl = pytest.importorskip("polars")
np = pytest.importorskip("numpy")

HOUR = timedelta(hours=1)
STREAMS = ("metrics", "performance", "errors", "log", "system")
FIELDS: dict[str, tuple[str, ...]] = {
    "metrics": ("step", "epoch"),
    "performance": (
        *("name", "duration_s", "step", "depth", "parent", "thread", "error"),
        *("device", "device_duration_s"),
    ),
    "errors": (
        *("level", "logger", "step", "message", "event"),
        *("error_type", "error_message", "traceback", "fingerprint", "context"),
    ),
    "log": ("level", "logger", "step", "message", "context"),
    "system": ("step",),
}


def moment(text: str) -> datetime | None:
    try:
        parsed = datetime.strptime(text, "%Y-%m-%dT%H:%M:%S.%fZ")  # noqa: DTZ007 - below
    except ValueError:
        return None
    return parsed.replace(tzinfo=timezone.utc) if len(text) == 27 else None


def one_type(values: list[Any]) -> list[Any]:
    """Integers; floats where one is, or one does not fit; text as in JSON for other mixes."""
    kinds = set(map(type, values)) - {type(None)}
    big = any(type(value) is int and not -(2**63) <= value < 2**63 for value in values)
    if bool in kinds and len(kinds) > 1 and kinds <= {bool, int, float}:
        kinds -= {bool}
        values = [int(value) if type(value) is bool else value for value in values]
    if (kinds <= {int, float} and float in kinds) or (kinds == {int} and big):
        return [None if value is None else float(value) for value in values]
    if len(kinds) > 1 or kinds & {dict, list}:
        return [v if v is None or type(v) is str else text_of(v) for v in values]
    return values


def text_of(value: Any) -> str:
    if isinstance(value, float) and not math.isfinite(value):
        return "nan" if value != value else "inf" if value > 0 else "-inf"
    return json.dumps(value, ensure_ascii=False)


def expected(run: Run, stream: str, **options: Any) -> dict[str, list[Any]]:
    """The columns of a stream, from its lines: slow and obvious."""
    rows: list[tuple[dict[str, Any], dict[str, Any]]] = []
    fixed = ("timestamp", "seq", *FIELDS[stream])
    for _, series, record, _ in run.entries([stream], **options):
        if is_marker(record):
            continue
        row = {name: record.get(name) for name in fixed}
        row["timestamp"] = moment(record["timestamp"])
        if "context" in row:
            row["context"] = json.dumps(record.get("context", {}))
        restore_nonfinite(record)
        row["epoch"] = record.get("epoch")
        if stream != "metrics":
            del row["epoch"]
        body = record.get("metrics") or record.get("summary") or record.get("system") or {}
        writer = series.writer
        row |= {"rank": writer.rank, "start": run.number_of(writer), "label": writer.label}
        rows.append((row, body if stream in ("metrics", "system") else {}))
    metrics = dict.fromkeys(key for _, body in rows for key in body)
    own = (*fixed, "rank", "start", "label")
    taken = {"", *own}
    plain = [key for key in metrics if key not in taken and "\0" not in key]
    names = {key: key for key in plain}
    for key in sorted(metrics.keys() - names, key=str.encode):
        name = key.replace("\0", "\\u0000")
        while name in taken or name in names.values():
            name = f"metrics.{name}"
        names[key] = name
    found = {name: [row.get(name) for row, _ in rows] for name in own}
    found |= {name: [body.get(key) for _, body in rows] for key, name in names.items()}
    return {name: one_type(values) for name, values in found.items()}


def same(left: Any, right: Any) -> bool:
    """Whether two values are the same, type and NaN included; JSON texts by what they say."""
    if isinstance(left, float) and isinstance(right, float):
        return left == right or (math.isnan(left) and math.isnan(right))
    if isinstance(left, str) and isinstance(right, str) and left != right:
        try:
            return bool(json.loads(left) == json.loads(right))
        except ValueError:
            return False
    return type(left) is type(right) and left == right


def compare(path: Path, stream: str, **options: Any) -> None:
    """Hold the columns, problems and checks of the native reader against those of Python's."""
    slow, quick = read_run(path), read_run(path)
    want = expected(slow, stream, **options)
    frame = quick.arrow(stream, **options).to_polars()
    got = {name: frame[name].to_list() for name in frame.columns}
    assert set(got) == set(want)
    for name, values in want.items():
        if name in ("duration_s", "device_duration_s"):  # always floats
            values = [float(v) if isinstance(v, int) else v for v in values]
        assert len(values) == len(got[name]), name
        for left, right in zip(values, got[name], strict=True):
            assert same(left, right), (name, left, right)
    assert list(map(str, quick.problems)) == list(map(str, slow.problems))
    assert quick.left_out == slow.left_out


int64 = st.integers(-(2**63), 2**63 - 1)
text = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
value = st.one_of(st.floats(), int64, st.booleans(), st.none(), text)
KEYS = ["loss", "lr", "val_loss", "rank", "step", "", "a.b", "ü", "metrics.step", "metrics."]
keys = st.one_of(st.sampled_from(KEYS), text)


@st.composite
def runs(draw: st.DrawFn) -> list[tuple[Any, ...]]:
    """What some writers do, one after the other: (rank, attempt), action, arguments."""
    values = st.dictionaries(keys, value, max_size=5)
    actions = st.one_of(
        st.tuples(st.just("metrics_dict"), st.integers(0, 6), values),
        st.tuples(st.just("summary_dict"), st.integers(0, 2), values),
        st.tuples(st.just("dropped"), st.integers(1, 9)),
        st.tuples(st.just("raw"), st.just(b"[]") | st.binary(max_size=30)),
        st.tuples(st.just("timing"), st.sampled_from(["step", "forward"]), st.integers(0, 6)),
        st.tuples(st.just("log"), text, st.dictionaries(text, value, max_size=3)),
        st.tuples(st.just("back"), st.integers(1, 5000)),
        st.tuples(st.just("rewind"), st.integers(0, 6), st.none() | st.integers(0, 2)),
        st.tuples(st.just("system"), values),
    )
    writer = st.tuples(st.integers(0, 2), st.integers(0, 2))
    return draw(st.lists(st.tuples(writer, actions), max_size=25))


def play(path: Path, script: list[tuple[Any, ...]], segment_lines: int) -> None:
    writers: dict[tuple[int, int], OracleWriter] = {}
    for (rank, attempt), (action, *arguments) in script:
        writer = writers.get((rank, attempt))
        if writer is None:
            start = START + attempt * HOUR / 1000 + timedelta(milliseconds=rank)
            options = {"rank": rank, "attempt": attempt, "start": start}
            writer = OracleWriter(path, segment_lines=segment_lines, **options)
            writers[rank, attempt] = writer
        if action == "raw":
            writer.torn("metrics", arguments[0].replace(b"\n", b"") + b"\n")
        elif action == "back":
            writer.now -= timedelta(milliseconds=arguments[0])
        elif action == "summary_dict":
            writer.summary(arguments[0], **{k: v for k, v in arguments[1].items() if k != "epoch"})
        elif action == "timing":
            writer.timing(arguments[0], 0.25, step=arguments[1], device="cuda:0")
        elif action == "log":
            writer.log(arguments[0], context=arguments[1])
        elif action == "dropped":
            writer.dropped("metrics", arguments[0])
        elif action == "system":
            writer.system(None, **{k: v for k, v in arguments[0].items() if k != "step"})
        else:
            getattr(writer, action)(*arguments)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(runs(), st.sampled_from([2, 1000]), st.sampled_from(["latest", "all", 0, 1]))
def test_columns_are_what_the_lines_say(
    tmp_path_factory: pytest.TempPathFactory,
    script: list[tuple[Any, ...]],
    segment_lines: int,
    starts: Starts,
) -> None:
    """Over random runs of several writers: resumed, damaged, with drops and clocks set back."""
    path = tmp_path_factory.mktemp("run")
    OracleWriter(path).fill([0])
    play(path, script, segment_lines)
    if starts not in ("latest", "all", *read_run(path).starts):
        return
    for stream in STREAMS:
        compare(path, stream, starts=starts)
    compare_lines(path, starts)


def compare_lines(path: Path, starts: Starts) -> None:
    """Hold the lines of the native merge against those of Python's, to the byte.

    A line that is left out keeps its place in the native one: it matters if a clock goes back.
    """
    slow, quick = read_run(path), read_run(path)
    checks: tuple[list[SeriesCheck], list[SeriesCheck]] = ([], [])
    want = [
        (s.stream, s.writer, raw) for _, s, _, raw in slow.entries(starts=starts, checks=checks[0])
    ]
    got = [(s.stream, s.writer, raw) for s, raw in quick.raw_lines(starts=starts, checks=checks[1])]
    if starts != "all":
        got, want = (sorted(lines, key=lambda line: str(line[:2])) for lines in (got, want))
    assert got == want
    assert checks[0] == checks[1]
    assert quick.left_out == slow.left_out
    assert list(map(str, quick.problems)) == list(map(str, slow.problems))
    python = [SeriesCheck(series, unread=slow.unread) for series in slow.series]
    for check in python:
        for _ in read_series(check.series, check, Problems()):
            pass
    assert quick.check() == python


BASE = [
    line.encode()
    for line in """\
{"timestamp":"2026-01-30T14:32:15.123456Z","seq":%d,"step":1,"epoch":2,"metrics":{"loss":2.456,\
"lr":1e-04,"ok":true,"z":null},"nonfinite":{"z":"nan"}}
{"timestamp":"2026-01-30T14:32:15.323456Z","seq":%d,"epoch":2,"summary":{"loss":2.5}}
{"timestamp":"2026-01-30T14:32:15.423456Z","seq":%d,"dropped":17}
{"timestamp":"2026-01-30T14:32:15.423456Z","seq":%d,"rewind":1}
{"timestamp":"2026-01-30T14:32:15.523456Z","seq":%d,"system":{"cpu":0.5,"gpu":null}}
{"timestamp":"2026-01-30T14:32:15.623456Z","seq":%d,"name":"forward","duration_s":0.02,"step":1,\
"depth":1,"device":"cuda:0","device_duration_s":null,"level":"INFO","message":"ü","context":\
{"path":["x",{"y":null}]},"metrics":{"n":12345678901234567890,"l":[1,{"a":"b"}]}}""".splitlines()
]
PIECES = (
    *(b'"', b"\\", b"\\u", b"\\ud83d", b"{", b"}", b"[", b"]", b",", b":"),
    *(b"null", b"1e", b"0", b"-"),
    *(b".5", b"e+5", b"9" * 20, b"\xc3\xa9", b"\xff", b"\xed\xa0\x80", b"\0", b" ", b"\t", b"\r"),
    *(b'"step":', b'"seq":', b'"loss":', b"true", b"1.0", b"NaN", b"1e400", b"-0", b"\xef\xbb\xbf"),
)


def mutate(rng: random.Random, line: bytes) -> bytes:
    for _ in range(rng.randrange(3)):
        at = rng.randrange(len(line) + 1)
        kind = rng.randrange(4)
        if kind == 0:
            line = line[:at] + rng.choice(PIECES) + line[at:]
        elif kind == 1:
            line = line[:at] + line[at + rng.randrange(9) :]
        elif kind == 2:
            line = line[:at] + bytes([rng.randrange(256)]) + line[at + 1 :]
        else:
            begin = rng.randrange(len(line) + 1)
            line = line[:at] + line[begin : begin + rng.randrange(30)] + line[at:]
    return line.replace(b"\n", b" ")


@pytest.mark.parametrize("seed", range(6))
def test_the_native_reader_takes_and_refuses_what_orjson_does(seed: int, tmp_path: Path) -> None:
    """Thousands of mutated lines: the same are damaged, for the same reason."""
    rng = random.Random(seed)
    for stream in STREAMS:
        lines = [mutate(rng, rng.choice(BASE) % number) for number in range(400)]
        (tmp_path / f"{stream}.jsonl").write_bytes(b"\n".join(lines) + b"\n")
    for stream in STREAMS:
        slow, quick = read_run(tmp_path), read_run(tmp_path)
        assert quick.arrow(stream).rows == sum(1 for _ in slow.lines(stream))
        count = sum(1 for _ in slow.lines(stream, starts="all"))
        assert quick.arrow(stream, starts="all").rows == count > 10
        assert list(map(str, quick.problems)) == list(map(str, slow.problems))
        assert quick.problems_omitted == slow.problems_omitted


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Two ranks, 100 steps each, a value every tenth step, a summary, and a resume from step 90."""
    for rank in range(2):
        writer = OracleWriter(tmp_path, rank=rank, start=START + timedelta(microseconds=rank))
        for step in range(100):
            more = {"val_loss": step / 2} if step % 10 == 0 else {}
            writer.metrics(step, loss=math.nan if step == 7 else float(step), n=step, **more)
            writer.timing("forward", 0.25, step=step)
        writer.summary(1, loss=0.5)
    again = OracleWriter(tmp_path, attempt=1, start=START + HOUR)
    again.fill(range(90, 95), loss=-1.0)
    again.metrics_dict(95, {"loss": None}, missing={"loss": "lost"})
    return read_run(tmp_path)


def test_one_metric_is_read_without_gaps(run: Run) -> None:
    """NaN is a value, what never arrived is none, and a summary is of no step."""
    loss = run.metric("loss", ranks=0)
    assert loss.steps.tolist() == list(range(95))
    assert math.isnan(loss.values[7])
    assert loss.values.tolist()[-5:] == [-1.0] * 5
    assert loss.start.tolist() == [0] * 90 + [1] * 5
    assert (repr(loss), str(loss.time.dtype)) == ("Metric('loss', 95 values)", "datetime64[us]")
    assert run.left_out["metrics"] == {"loss": 10}
    assert loss.time[0] == np.datetime64(START.replace(tzinfo=None))
    rare = run.metric("val_loss", steps=(15, 40))
    assert rare.steps.tolist() == [20, 20, 30, 30, 40, 40]
    assert rare.rank.tolist() == [0, 1] * 3
    assert run.metric("n", ranks=[1]).values.dtype == np.int64
    for nothing in (run.metric("los*"), run.metric("loss", steps=(500, None)), run.metric("rank")):
        assert [len(getattr(nothing, name)) for name in ("steps", "values", "time")] == [0, 0, 0]
    assert run.problems == []


def test_names_and_steps_are_listed(run: Run) -> None:
    assert run.names() == ["loss", "n", "val_loss"]
    assert run.names("performance") == ["forward"]
    assert run.steps().tolist() == list(range(100))
    assert run.steps(ranks=7).tolist() == run.steps("errors").tolist() == []
    with pytest.raises(ValueError, match="names are of metrics, performance, system; log has none"):
        run.names("log")
    with pytest.raises(ValueError, match="'latest', 'all' or one of 0, 1, got 'first'"):
        run.arrow("metrics", starts="first")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="errors has none"):
        run.arrow("errors", names="x")


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (lambda run: run.arrow("metrics", steps=5), "steps must be the first and the last step"),
        (lambda run: run.arrow("metrics", steps=(1, 2, 3)), "steps must be the first and the"),
        (lambda run: run.curve("loss", steps=(1.5, None)), "steps must be an int, got float"),
        (lambda run: run.arrow("metrics", names=[5]), "names must be a str or several, got int"),
        (lambda run: run.arrow("metrics", names=5), "names must be a str or several, got int"),
        (lambda run: run.arrow("metrics", names=b"x"), "names must be a str or several, got bytes"),
        (lambda run: run.metric(5), "names must be a str or several, got int"),
        (lambda run: run.metric("loss", ranks="0"), "ranks must be an int, got str"),
        (lambda run: run.metric("loss", ranks=1.0), "ranks must be an int, got float"),
        (lambda run: run.curve("loss", points=2.5), "points must be an int, got float"),
        (lambda run: run.curve("loss", ranks=[0.5]), "ranks must be an int, got float"),
        (lambda run: run.names(ranks=[None]), "ranks must be an int, got NoneType"),
        (lambda run: run.arrow("metrics", starts=True), "starts must be 'latest'"),
    ],
)
def test_a_wrong_argument_is_told(run: Run, call: Callable[[Run], Any], error: str) -> None:
    with pytest.raises((TypeError, ValueError), match=error):
        call(run)


def test_one_stream_is_as_good_as_several(run: Run) -> None:
    assert {check.series.stream for check in run.check("performance")} == {"performance"}
    assert {s.stream for _, s, _, _ in run.entries("performance")} == {"performance"}
    polled = Cursor(run.path, "performance").poll()
    assert {series.stream for _, series, _, _ in polled.lines} == {"performance"}


def test_a_run_can_be_sent_to_another_process(run: Run) -> None:
    run.curve("loss")
    again = pickle.loads(pickle.dumps(run))
    for name in ("loss", "absent"):
        metric = run.metric(name)
        copy = pickle.loads(pickle.dumps(metric))
        assert repr(copy) == repr(metric)
        for array in ("steps", "values", "time", "rank", "start"):
            assert str(getattr(copy, array).tolist()) == str(getattr(metric, array).tolist())
    assert again.curve("loss").count.sum() == run.curve("loss").count.sum() > 0
    assert again.to_polars("metrics").equals(run.to_polars("metrics"))


def test_only_what_is_asked_for_is_there(run: Run) -> None:
    huge = run.arrow("metrics", steps=(-(2**70), 2**70))
    assert huge.rows == run.to_pandas("metrics", steps=(None, None)).shape[0]
    chosen = run.to_polars("metrics", names="val_*", steps=(10, 30), ranks=0)
    assert chosen["val_loss"].len() == 3
    few = run.arrow("metrics", names=["val_*", "nothing"], steps=(10, 30), ranks=[0]).to_polars()
    names = ["timestamp", "seq", "step", "epoch", "val_loss", "rank", "start", "label"]
    assert few.columns == names
    assert few["step"].to_list() == [10, 20, 30]
    assert run.arrow("performance", names="for*", ranks=1).rows == 100
    assert run.arrow("performance", names="step").rows == 0
    assert run.arrow("metrics", starts="all").rows == len(list(run.lines("metrics", starts="all")))
    assert "206 rows" not in repr(run.arrow("metrics"))
    assert len(run.arrow("metrics", starts="all")) == 208


def test_whoever_knows_arrow_takes_a_table_as_it_is(run: Run) -> None:
    """More than once, and after the run is gone."""
    duckdb = pytest.importorskip("duckdb")
    table = lines = run.arrow("metrics")
    del run
    for _ in range(2):
        frame = pl.DataFrame(table)
        assert frame.height == len(table) == lines.rows
        assert str(frame.schema["timestamp"]) == "Datetime(time_unit='us', time_zone='UTC')"
    found = duckdb.sql("SELECT count(val_loss), max(step), sum(n) FROM lines").fetchall()
    assert found == [(20, 99, 2 * sum(range(100)))]
    # A capsule that nobody takes is released by itself.
    assert "arrow_schema" in repr(table.__arrow_c_schema__())
    assert "arrow_array_stream" in repr(table.__arrow_c_stream__())


def test_pyarrow_takes_a_table_as_it_is(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the interface; where it is not installed, something stands for it that counts batches."""
    try:
        assert run.to_arrow("metrics").num_rows == run.arrow("metrics").rows
    except ImportError:
        stand_in = SimpleNamespace(table=lambda table: pl.DataFrame(table).height)
        monkeypatch.setitem(__import__("sys").modules, "pyarrow", stand_in)
        assert run.to_arrow("metrics") == run.arrow("metrics").rows


def test_packages_that_are_missing_are_named(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    for package in ("pyarrow", "numpy", "pandas", "polars"):
        monkeypatch.setitem(__import__("sys").modules, package, None)
    for call in (run.to_arrow, run.to_pandas, run.to_polars):
        with pytest.raises(ImportError, match="is not installed"):
            call("metrics")
    with pytest.raises(ImportError, match="numpy is not installed"):
        run.metric("loss")


def test_a_package_that_is_broken_is_not_called_missing(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for package in ("pandas", "polars"):
        (tmp_path / f"{package}.py").write_text("import half_of_it\n")
        monkeypatch.delitem(__import__("sys").modules, package, raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    for call in (run.to_pandas, run.to_polars):
        with pytest.raises(ImportError, match="cannot be imported: No module named 'half_of_it'"):
            call("metrics")


def test_ten_thousand_names_take_no_memory_for_rows_without_them(tmp_path: Path) -> None:
    writer = OracleWriter(tmp_path)
    for step in range(1000):
        writer.metrics_dict(step, {f"layer.{(step * 10 + i) % 10_000}": 1.5 for i in range(10)})
    opened = read_run(tmp_path)
    assert len(opened.names()) == 10_000
    table = opened.arrow("metrics")
    assert len(table.names) == 10_000 + 7
    frame = table.to_polars()
    assert frame["layer.9999"].to_list()[-1] == 1.5
    assert frame["layer.9999"].null_count() == 999


def read_for_ever(path: Path) -> None:
    while True:
        read_run(path).arrow("metrics")


def test_a_scan_that_is_interrupted_ends(tmp_path: Path) -> None:
    """A signal's exception comes through, and nothing is left running."""
    line = '{"timestamp":"2026-01-30T14:32:15.123456Z","seq":%d,"step":%d,"metrics":{"x":1.5}}\n'
    (tmp_path / "metrics.jsonl").write_text("".join(line % (n, n) for n in range(300_000)))

    def read_until_the_alarm() -> None:  # which may come before anything else is called
        signal.setitimer(signal.ITIMER_REAL, 0.001)
        read_for_ever(tmp_path)

    before = signal.signal(signal.SIGALRM, lambda *_: 1 / 0)
    try:
        with pytest.raises(ZeroDivisionError):
            read_until_the_alarm()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize("damage", ["torn", "gone", "strict"])
def test_what_is_wrong_is_told_as_for_lines(damage: str, tmp_path: Path) -> None:
    writer = OracleWriter(tmp_path, segment_lines=3).fill(range(7))
    writer.torn("metrics", b'{"torn')
    opened = read_run(tmp_path, strict=damage == "strict")
    if damage == "gone":
        (tmp_path / "metrics.000001.jsonl").unlink()
    if damage == "strict":
        with pytest.raises(ReadProblemError, match="is torn"):
            opened.arrow("metrics")
        return
    kept = [n for n in range(7) if damage == "torn" or n not in (3, 4, 5)]
    assert opened.arrow("metrics").to_polars()["step"].to_list() == kept
    again = read_run(tmp_path)
    list(again.lines("metrics"))
    kinds = {problem.kind for problem in opened.problems}
    assert kinds == ({"torn"} if damage == "torn" else {"torn", "gap", "unreadable"})


def test_a_line_that_changes_later_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The words for damage come from a second look, which may find something else, or nothing."""
    OracleWriter(tmp_path).fill([0])
    path = tmp_path / "metrics.jsonl"
    sound = path.read_bytes()
    path.write_bytes(b"x" * (len(sound) - 1) + b"\n")
    real = scan._reason

    def change(*arguments: Any) -> str:
        path.write_bytes(sound)
        first = real(*arguments)
        path.unlink()
        return f"{first}, {real(*arguments)}, {real(*arguments[:3], 65 << 20)}"

    monkeypatch.setattr(scan, "_reason", change)
    opened = read_run(tmp_path)
    opened.arrow("metrics")
    told = str(opened.problems[0])
    assert "it was changed meanwhile" in told
    assert "No such file" in told
    assert "longer than 64 MiB" in told


def test_without_the_extension_it_is_named(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    import foundry_fastlog

    monkeypatch.setitem(__import__("sys").modules, "foundry_fastlog._core", None)
    monkeypatch.delattr(foundry_fastlog, "_core", raising=False)
    with pytest.raises(ImportError, match=r"which reads whole streams, is missing"):
        run.arrow("metrics")
    assert len(list(run.lines("metrics"))) > 100


def test_numbers_are_had_without_numpy(run: Run, tmp_path: Path) -> None:
    """Where a metric has nothing else: no absent one, no text, none of a summary."""
    again = OracleWriter(tmp_path / "plain")
    again.metrics(0, f=1.5, i=1, mixed=1)
    again.metrics(1, f=math.inf, i=2, mixed="x")
    plain = read_run(tmp_path / "plain")
    assert list(plain.numbers("f") or ()) == [1.5, math.inf]
    assert list(plain.numbers("i") or ()) == [1.0, 2.0]
    assert plain.numbers("mixed") is plain.numbers("nothing") is run.numbers("loss") is None
