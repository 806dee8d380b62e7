"""Events for TensorBoard, OTLP and Prometheus, read back by their own parsers."""

from __future__ import annotations

import json
import math
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from oracle import START, OracleWriter, write_run_json

from foundry_fastlog import Recorder, export_runs, read_run

NAN, INF = math.nan, math.inf
HUGE = (1 << 53) + 1
needs_tensorboard = pytest.mark.skipif(not find_spec("tensorboard"), reason="needs tensorboard")


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run with something for each part of the formats."""
    path = tmp_path / "runs" / "one"
    config = {"lr": 0.1, "model": {"depth": 2, "tied": True, "sizes": [1, 2]}, "seed": 1 << 60}
    write_run_json(path, name="my run", config=config)
    writer = OracleWriter(path)
    writer.metrics(10, epoch=1, loss=0.25, n=HUGE, ok=True, note="hé", gone=None)
    writer.metrics_dict(11, {"loss": NAN, "big": 1e300, "late": None}, missing={"late": "lost"})
    writer.summary(1, loss=0.5)
    writer.timing("step", 0.5, device="cuda:0", device_duration_s=0.25)
    writer.log("hello\nthere", level="WARNING", context={"a": [1, None, {"b": 2.5}], "h": 1 << 63})
    writer.error("", ValueError("bad"), step=12)
    writer.nonfinite("loss", "nan", 11)
    writer.system(cpu=2.5)
    OracleWriter(path, rank=1).fill([5], loss=3.0)
    return path


# ---- TensorBoard ---------------------------------------------------------------------


def accumulated(directory: Path) -> Any:
    """What TensorBoard's own reader finds in a directory of events."""
    reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    found = reader.EventAccumulator(str(directory), size_guidance={"tensors": 0, "scalars": 0})
    return found.Reload()


@needs_tensorboard
def test_tensorboard_reads_scalars_with_their_times_and_steps(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "events"
    result = export_runs([run], out, format="tensorboard")
    assert sorted(path.name for path in (out / "one").iterdir()) == ["rank0", "rank1"]
    found = accumulated(out / "one" / "rank0")
    start = START.timestamp()
    loss = found.Scalars("loss")
    assert [(e.step, e.value if e.value == e.value else "nan") for e in loss] == [
        (10, 0.25),
        (11, "nan"),
    ]
    assert [e.wall_time for e in loss] == pytest.approx([start, start + 0.001], abs=1e-6)
    values = {
        tag: [(e.step, e.value) for e in found.Scalars(tag)] for tag in found.Tags()["scalars"]
    }
    del values["loss"]
    assert values == {
        "n": [(10, 2.0**53)],
        "ok": [(10, 1.0)],
        "big": [(11, INF)],
        "loss (epoch)": [(1, 0.5)],
        "timing/step": [(11, 0.5)],
        "timing/step (cuda:0)": [(11, 0.25)],
        "system/cpu": [(11, 2.5)],
    }
    assert [(e.step, e.value) for e in accumulated(out / "one" / "rank1").Scalars("loss")] == [
        (5, 3.0)
    ]
    assert result.rows == {"metrics": 4, "performance": 1, "errors": 2, "log": 1, "system": 1}
    assert set(result.notes) == {
        "integers rounded to 32-bit floats: 1",
        "floats beyond 32-bit floats, infinite there: 1",
        "values that are null or never arrived, left out: 2",
        "TensorBoard's scalars are 32-bit floats",
    }


@needs_tensorboard
def test_tensorboard_reads_texts_and_the_configuration(run: Path, tmp_path: Path) -> None:
    export_runs(
        run, tmp_path / "events", format="tensorboard", streams=["metrics", "log", "errors"]
    )
    found = accumulated(tmp_path / "events" / "one" / "rank0")

    def texts(tag: str) -> list[tuple[int, str]]:
        return [(e.step, e.tensor_proto.string_val[0].decode()) for e in found.Tensors(tag)]

    assert found.summary_metadata["note"].plugin_data.plugin_name == "text"
    assert texts("note") == [(10, "hé")]
    context = '{"a":[1,null,{"b":2.5}],"h":9223372036854775808}'
    assert texts("log") == [(11, f"**WARNING** train: hello\nthere\n\n    {context}")]
    (_, error), (step, event) = texts("errors")
    assert error.startswith("**ERROR** train: ")
    assert "\n    ValueError: bad" in error
    assert (step, event.split(":")[0]) == (11, "**WARNING** foundry_fastlog")
    plugin = pytest.importorskip("tensorboard.plugins.hparams.plugin_data_pb2")
    content = found.summary_metadata["_hparams_/session_start_info"].plugin_data.content
    started = plugin.HParamsPluginData.FromString(content).session_start_info
    values = {key: getattr(v, v.WhichOneof("kind")) for key, v in started.hparams.items()}
    assert values == {
        "lr": 0.1,
        "model.depth": 2.0,
        "model.tied": True,
        "model.sizes": "[1,2]",
        "seed": str(1 << 60),
    }
    assert started.group_name == "one"


@needs_tensorboard
def test_epochs_between_steps_are_told(tmp_path: Path) -> None:
    writer = OracleWriter(tmp_path / "run")
    writer.summary(1.5, loss=0.5)
    result = export_runs(writer.run, tmp_path / "out", format="tensorboard")
    writer.metrics(1, nothing=None)
    export_runs(writer.run, tmp_path / "out", format="tensorboard", force=True)
    scalars = accumulated(tmp_path / "out" / "run" / "rank0").Scalars("loss (epoch)")
    assert [e.step for e in scalars] == [1]
    assert "epochs that are no integers, rounded down to steps: 1" in result.notes


@needs_tensorboard
def test_long_event_files_are_written_in_parts(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr("foundry_fastlog.export.tensorboard._PENDING_BYTES", 100)
    run = OracleWriter(tmp_path / "run").fill(range(50)).run
    export_runs(run, tmp_path / "out", format="tensorboard")
    found = accumulated(tmp_path / "out" / "run" / "rank0")
    assert [e.step for e in found.Scalars("loss")] == list(range(50))


# ---- OTLP ----------------------------------------------------------------------------


def otlp(directory: Path, name: str) -> list[Any]:
    """Parse a file by OpenTelemetry's own messages; 64-bit integers must be texts."""
    form = pytest.importorskip("google.protobuf.json_format")
    kinds = {
        "metrics": ("metrics.v1.metrics_pb2", "MetricsData"),
        "logs": ("logs.v1.logs_pb2", "LogsData"),
        "traces": ("trace.v1.trace_pb2", "TracesData"),
    }
    module, kind = kinds[name]
    message = getattr(pytest.importorskip(f"opentelemetry.proto.{module}"), kind)
    lines = (directory / f"otlp_{name}.jsonl").read_text(encoding="utf-8").splitlines()
    return [form.Parse(line, message()) for line in lines]


def plain(value: Any) -> Any:
    """An AnyValue as Python has it."""
    kind = value.WhichOneof("value")
    if kind == "kvlist_value":
        return attributes(value.kvlist_value.values)
    if kind == "array_value":
        return [plain(item) for item in value.array_value.values]
    return None if kind is None else getattr(value, kind)


def attributes(pairs: Any) -> dict[str, Any]:
    return {pair.key: plain(pair.value) for pair in pairs}


def test_otlp_metrics(run: Path, tmp_path: Path) -> None:
    result = export_runs(run, tmp_path / "out", format="otlp")
    first, second = (data.resource_metrics[0] for data in otlp(tmp_path / "out", "metrics"))
    assert attributes(first.resource.attributes) == {
        "service.name": "my run",
        "host.name": "node1",
        "run": "one",
        "rank": 0,
        "start": 0,
        "label": "",
    }
    assert attributes(second.resource.attributes)["label"] == "r1"
    assert "host.name" not in attributes(second.resource.attributes)
    assert first.scope_metrics[0].scope.name == "foundry_fastlog"
    gauges = {metric.name: metric.gauge.data_points for metric in first.scope_metrics[0].metrics}
    assert list(gauges) == ["loss", "n", "ok", "gone", "big", "late", "loss (epoch)", "system.cpu"]
    time = round(START.timestamp() * 1e6) * 1000
    assert (gauges["loss"][0].time_unix_nano, gauges["loss"][0].as_double) == (time, 0.25)
    assert attributes(gauges["loss"][0].attributes) == {"step": 10, "epoch": 1}
    assert math.isnan(gauges["loss"][1].as_double)
    assert (gauges["n"][0].as_int, gauges["ok"][0].as_int) == (HUGE, 1)
    assert [gauges[name][0].flags for name in ("gone", "late", "n")] == [1, 1, 0]
    assert gauges["late"][0].WhichOneof("value") is None
    assert set(result.notes) == {
        "texts of metrics, written as log records: 1",
        "values that are null or never arrived, points without a value: 2",
    }
    raw = json.loads((tmp_path / "out" / "otlp_metrics.jsonl").read_text().splitlines()[0])
    point = raw["resourceMetrics"][0]["scopeMetrics"][0]["metrics"][1]["gauge"]["dataPoints"][0]
    assert (point["asInt"], point["timeUnixNano"]) == (str(HUGE), str(time))


def test_otlp_logs(run: Path, tmp_path: Path) -> None:
    export_runs(run, tmp_path / "out", format="otlp", streams=["metrics", "log", "errors"])
    assert not (tmp_path / "out" / "otlp_traces.jsonl").exists()
    (data,) = otlp(tmp_path / "out", "logs")
    scopes = {
        (scope.scope.name, bool(scope.scope.version)): scope.log_records
        for scope in data.resource_logs[0].scope_logs
    }
    (text,) = scopes["foundry_fastlog", True]
    assert (plain(text.body), attributes(text.attributes)) == (
        "hé",
        {"metric": "note", "step": 10, "epoch": 1},
    )
    hello, error = scopes["train", False]
    assert attributes(scopes["foundry_fastlog", False][0].attributes)["event.name"] == "nonfinite"
    assert (hello.severity_text, hello.severity_number) == ("WARNING", 13)
    assert plain(hello.body) == "hello\nthere"
    context = {"a": [1, None, {"b": 2.5}], "h": str(1 << 63)}
    assert attributes(hello.attributes) == {"context": context}
    facts = attributes(error.attributes)
    assert (error.severity_number, facts["step"]) == (17, 12)
    assert (facts["exception.type"], facts["exception.message"]) == ("ValueError", "bad")
    assert "ValueError: bad" in facts["exception.stacktrace"]


def test_otlp_logs_of_other_levels(tmp_path: Path) -> None:
    writer = OracleWriter(tmp_path / "run")
    writer.log("x", level="NOTICE", context={"b": True})
    export_runs(writer.run, tmp_path / "out", format="otlp")
    (record,) = otlp(tmp_path / "out", "logs")[0].resource_logs[0].scope_logs[0].log_records
    assert (record.severity_text, record.severity_number) == ("NOTICE", 0)
    assert attributes(record.attributes) == {"context": {"b": True}}


def test_otlp_traces(tmp_path: Path) -> None:
    """A trace for each outermost block; parents are named before they are there."""
    with Recorder(tmp_path / "run") as recorder:
        for step in range(2):
            with recorder.timer("step", step=step):
                with recorder.timer("forward"):
                    with recorder.timer("layer"):
                        pass
                    with recorder.timer("layer"):
                        pass
                with pytest.raises(OSError, match="full"), recorder.timer("save"):
                    raise OSError("full")
    export_runs(recorder.path, tmp_path / "out", format="otlp", streams="performance")
    (data,) = otlp(tmp_path / "out", "traces")
    spans = data.resource_spans[0].scope_spans[0].spans
    raw = json.loads((tmp_path / "out" / "otlp_traces.jsonl").read_text())
    ids = [
        (span["traceId"], span["spanId"])
        for span in raw["resourceSpans"][0]["scopeSpans"][0]["spans"]
    ]
    assert {(len(trace), len(span)) for trace, span in ids} == {(32, 16)}
    assert (len(set(ids)), len({trace for trace, _ in ids})) == (10, 2)
    names = {span.span_id: span.name for span in spans}
    above = [(span.name, names.get(span.parent_span_id)) for span in spans]
    assert above[:5] == [
        *[("layer", "forward"), ("layer", "forward"), ("forward", "step")],
        *[("save", "step"), ("step", None)],
    ]
    by_id = {span.span_id: span for span in spans}
    for span in spans:
        assert span.end_time_unix_nano >= span.start_time_unix_nano
        if span.parent_span_id:
            assert by_id[span.parent_span_id].trace_id == span.trace_id
    assert (spans[3].status.code, spans[3].status.message, spans[3].kind) == (2, "OSError", 1)
    assert attributes(spans[4].attributes)["step"] == 0
    export_runs(recorder.path, tmp_path / "again", format="otlp", streams="performance")
    name = "otlp_traces.jsonl"
    assert (tmp_path / "again" / name).read_bytes() == (tmp_path / "out" / name).read_bytes()


def test_otlp_is_written_in_parts(run: Path, tmp_path: Path, monkeypatch: Any) -> None:
    export_runs(run, tmp_path / "whole", format="otlp")
    monkeypatch.setattr("foundry_fastlog.export.otlp._PENDING", 2)
    export_runs(
        [run, OracleWriter(tmp_path / "runs" / "b").fill([1], x=-INF).run],
        tmp_path / "parts",
        format="otlp",
    )

    def count(directory: Path) -> int:
        return sum(
            len(metric.gauge.data_points)
            for data in otlp(directory, "metrics")
            for metric in data.resource_metrics[0].scope_metrics[0].metrics
        )

    assert len(otlp(tmp_path / "parts", "metrics")) > 2
    assert count(tmp_path / "parts") == count(tmp_path / "whole") + 1
    last = otlp(tmp_path / "parts", "metrics")[-1].resource_metrics[0]
    assert attributes(last.resource.attributes)["run"] == "b"
    assert last.scope_metrics[0].metrics[0].gauge.data_points[0].as_double == -INF


# ---- Prometheus ----------------------------------------------------------------------


def samples(text: str) -> dict[tuple[str, ...], float]:
    parser = pytest.importorskip("prometheus_client.parser")
    return {
        (
            sample.name,
            *(sample.labels.get(key, "") for key in ("run", "rank", "name")),
        ): float(sample.value)
        for family in parser.text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_prometheus_has_the_last_values(run: Path, tmp_path: Path) -> None:
    OracleWriter(tmp_path / "runs" / 'b"\\').metrics_dict(
        7, {"val/x": INF, "val.x": -INF, "t": NAN}
    )
    result = export_runs([run, tmp_path / "runs" / 'b"\\'], tmp_path / "x.prom")
    found = samples((tmp_path / "x.prom").read_text())
    other = 'b"\\'
    assert {key: value for key, value in found.items() if value == value} == {
        ("fastlog_last_step", "one", "0", ""): 11,
        ("fastlog_last_step", "one", "1", ""): 5,
        ("fastlog_last_step", other, "0", ""): 7,
        ("fastlog_metric_n", "one", "0", "n"): 2.0**53,
        ("fastlog_metric_ok", "one", "0", "ok"): 1,
        ("fastlog_metric_big", "one", "0", "big"): 1e300,
        ("fastlog_metric_loss__epoch_", "one", "0", "loss (epoch)"): 0.5,
        ("fastlog_metric_loss", "one", "1", "loss"): 3,
        ("fastlog_metric_val_x", other, "0", "val/x"): INF,
        ("fastlog_metric_val_x", other, "0", "val.x"): -INF,
        ("fastlog_system_cpu", "one", "0", "cpu"): 2.5,
    }
    assert {key[0] for key, value in found.items() if value != value} == {
        "fastlog_metric_loss",
        "fastlog_metric_t",
    }
    assert result.notes == ("last values that are no numbers, left out: 3",)
    assert result.complete


def test_prometheus_takes_numbers_alone(run: Path, capfdbinary: Any) -> None:
    with pytest.raises(
        ValueError, match="prometheus has no place for log, but for metrics, system"
    ):
        export_runs(run, "x.prom", streams=["log", "metrics"])
    export_runs(run, "-", format="prometheus", streams="system")
    text = capfdbinary.readouterr().out.decode()
    assert samples(text) == {("fastlog_system_cpu", "one", "0", "cpu"): 2.5}


@pytest.mark.parametrize(
    ("form", "package"),
    [
        *[("tensorboard", "tensorboard"), ("perfetto", "perfetto"), ("perfetto", "google")],
        *[("parquet", "pyarrow"), ("arrow", "pyarrow")],
    ],
)
def test_a_missing_package_is_told(
    form: str, package: str, run: Path, tmp_path: Path, monkeypatch: Any
) -> None:
    """With the extra that brings it, and nothing is left behind."""
    for name in [name for name in sys.modules if name.split(".")[0] in (form, package)]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImportError, match=r"pip install 'foundry_fastlog\[export\]'"):
        export_runs(read_run(run), tmp_path / "out", format=form)
    assert [path.name for path in tmp_path.iterdir()] == ["runs"]
