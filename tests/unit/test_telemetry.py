"""What a run takes over from OpenTelemetry: the active span, and the resource."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from oracle import OracleWriter
from recorded import run_python

from foundry_fastlog import (
    ExperimentLogging,
    Recorder,
    RecorderHandler,
    StructuredLogger,
    export_runs,
    read_run,
)
from foundry_fastlog.base import telemetry
from foundry_fastlog.base.telemetry import resource, with_span

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
IDS = {"trace_id": TRACE, "span_id": SPAN, "trace_flags": "01"}


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Without the variables of whoever runs the tests."""
    for name in ("OTEL_RESOURCE_ATTRIBUTES", "OTEL_SERVICE_NAME"):
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


@pytest.fixture
def logger() -> Iterator[logging.Logger]:
    """A logger without handlers, whose messages go nowhere else."""
    found = logging.getLogger("traced")
    found.setLevel("DEBUG")
    found.propagate = False
    yield found
    found.handlers.clear()
    found.filters.clear()


@pytest.fixture
def span(environment: pytest.MonkeyPatch) -> Iterator[Any]:
    """A span of the real API, active in this test."""
    pytest.importorskip("opentelemetry.trace")
    from opentelemetry import trace

    context = trace.SpanContext(
        int(TRACE, 16), int(SPAN, 16), is_remote=False, trace_flags=trace.TraceFlags(1)
    )
    with trace.use_span(trace.NonRecordingSpan(context)) as active:
        yield active


def messages(run: Path) -> list[dict[str, Any]]:
    return [line["context"] for line in read_run(run).lines("log")]


def entry(run: Path) -> Any:
    return json.loads((run / "starts" / "000000.json").read_text())


# ---- spans ---------------------------------------------------------------------------


def test_messages_and_errors_in_a_span_have_its_ids(
    span: Any, logger: logging.Logger, tmp_path: Path
) -> None:
    with Recorder(tmp_path) as recorder:
        logger.addHandler(RecorderHandler(recorder))
        logger.warning("by logging", extra={"step": 1})
        StructuredLogger("traced", "exp0").info("by fields", loss=2.0)
        recorder.event("by hand")
        recorder.event("failed", error=OSError("full"), context={"step": 2})
        recorder.record(0, loss=1.0)
    plain, fields, hand = messages(tmp_path)
    assert plain == {"step": 1, **IDS}
    assert fields["loss"] == 2.0
    assert fields.items() >= IDS.items()
    assert hand == IDS
    (error,) = read_run(tmp_path).lines("errors")
    assert error["context"] == {"step": 2, **IDS}
    assert TRACE not in (tmp_path / "metrics.jsonl").read_text()


def test_ids_are_in_no_text_log_and_on_no_console(
    span: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with ExperimentLogging("exp0", log_dir=tmp_path) as logs:
        logs.logger("train").info("hello", loss=2.0)
    (text,) = (tmp_path / "exp0").glob("main_*.log")
    for shown in (text.read_text(), capsys.readouterr().err):
        assert "hello" in shown
        assert TRACE not in shown
    assert any(found.get("trace_id") == TRACE for found in messages(tmp_path / "exp0"))


def test_fields_of_the_caller_stay(span: Any) -> None:
    own = {"trace_id": "mine"}
    assert with_span(own) is own
    assert with_span({"a": 1}) == {"a": 1, **IDS}


def test_no_span_and_no_real_opentelemetry(environment: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Outside of a span, half imported, or a span that raises: the message is as it is."""
    pytest.importorskip("opentelemetry.trace")
    assert with_span({"a": 1}) == {"a": 1}
    for module in (SimpleNamespace(), SimpleNamespace(get_current_span=lambda: 1 / 0)):
        environment.setitem(sys.modules, telemetry.TRACE, module)
        with Recorder(tmp_path) as recorder:
            recorder.message("INFO", "x", "hello", {"a": 1})
    assert messages(tmp_path) == [{"a": 1}, {"a": 1}]


def test_nothing_is_imported_for_it(tmp_path: Path) -> None:
    done = run_python(
        """
import sys
from foundry_fastlog import Recorder
with Recorder(sys.argv[1]) as recorder:
    recorder.event("hello")
print([name for name in sys.modules if name.startswith("opentelemetry")])
""",
        tmp_path,
        environment={"OTEL_RESOURCE_ATTRIBUTES": "", "OTEL_SERVICE_NAME": ""},
    )
    assert done.stdout.split() == ["[]"]
    assert "resource" not in entry(tmp_path)


def test_what_the_instrumentation_of_logging_notes(
    environment: pytest.MonkeyPatch, logger: logging.Logger, tmp_path: Path
) -> None:
    """Its own attributes are no fields: neither in the run nor in text logs, nor on a console."""
    pytest.importorskip("opentelemetry.sdk.trace")
    instrumentation = pytest.importorskip("opentelemetry.instrumentation.logging")
    from opentelemetry.sdk.trace import TracerProvider

    provider = TracerProvider()
    instrumentor = instrumentation.LoggingInstrumentor()
    instrumentor.instrument(
        tracer_provider=provider, inject_trace_context=True, enable_log_auto_instrumentation=False
    )
    try:
        with Recorder(tmp_path) as recorder:
            logger.addHandler(RecorderHandler(recorder))
            kept: list[logging.LogRecord] = []
            logger.addFilter(lambda record: kept.append(record) is None)
            logger.info("outside", extra={"a": 1})
            with provider.get_tracer("t").start_as_current_span("s") as active:
                logger.info("inside", extra={"a": 2})
                StructuredLogger("traced", "exp0").info("with fields", a=3)
            logger.handle(kept[1])  # as a queue's listener does, later
    finally:
        instrumentor.uninstrument()
    context = active.get_span_context()
    ids = {
        "trace_id": format(context.trace_id, "032x"),
        "span_id": format(context.span_id, "016x"),
        "trace_flags": "01",
    }
    outside, inside, fields, later = messages(tmp_path)
    assert outside == {"a": 1}
    assert inside == later == {"a": 2, **ids}
    assert {key: fields[key] for key in ("a", *ids)} == {"a": 3, **ids}
    assert not any(key.startswith("otel") for key in fields)


# ---- resources -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("attributes", "service", "wanted"),
    [
        ("", "", {}),
        (" ", "", {}),
        ("", "s", {"service.name": "s"}),
        ("a=1, b = two words ,", "", {"a": "1", "b": "two words"}),
        ("a=b%2Cc%3Dd%20%C3%A9,k%3D=v", "", {"a": "b,c=d é", "k=": "v"}),
        ("service.name=x,a=", "s", {"service.name": "s", "a": ""}),
    ],
)
def test_resources_of_the_environment(
    environment: pytest.MonkeyPatch, attributes: str, service: str, wanted: dict[str, str]
) -> None:
    environment.setenv("OTEL_RESOURCE_ATTRIBUTES", attributes)
    environment.setenv("OTEL_SERVICE_NAME", service)
    assert resource() == wanted


@pytest.mark.parametrize("wrong", ["a", "a=1,b", "=1", "a=%ff", "a=1,%e2%28=2"])
def test_a_wrong_variable_is_discarded_as_a_whole(
    environment: pytest.MonkeyPatch, wrong: str, caplog: pytest.LogCaptureFixture
) -> None:
    environment.setenv("OTEL_RESOURCE_ATTRIBUTES", wrong)
    environment.setenv("OTEL_SERVICE_NAME", "s")
    assert resource() == {"service.name": "s"}
    assert "OTEL_RESOURCE_ATTRIBUTES is left out of the run" in caplog.text


def test_the_environment_is_read_as_the_sdk_reads_it(environment: pytest.MonkeyPatch) -> None:
    sdk = pytest.importorskip("opentelemetry.sdk.resources")
    environment.setenv("OTEL_RESOURCE_ATTRIBUTES", "a=1,b=x%2Cy, c = d ,service.name=no")
    environment.setenv("OTEL_SERVICE_NAME", "yes")
    assert dict(sdk.OTELResourceDetector().detect().attributes) == resource()


def test_the_resource_of_a_provider_is_in_the_starts_entry_once(
    environment: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pytest.importorskip("opentelemetry.sdk.trace")
    done = run_python(
        """
import sys
from opentelemetry import trace
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from foundry_fastlog import Recorder
attributes = Resource.create({"service.name": "trainer", "gpus": 8, "zones": ["a", "b"]})
trace.set_tracer_provider(TracerProvider(resource=attributes))
with Recorder(sys.argv[1]) as recorder:
    recorder.event("hello")
    recorder.event("again")
""",
        tmp_path,
    )
    assert done.stderr == ""
    found = entry(tmp_path)["resource"]
    assert (found["service.name"], found["gpus"], found["zones"]) == ("trainer", 8, ["a", "b"])
    assert found["telemetry.sdk.language"] == "python"
    assert "trainer" not in (tmp_path / "log.jsonl").read_text()


@pytest.mark.parametrize("where", ["opentelemetry._logs", ""])
def test_other_providers(environment: pytest.MonkeyPatch, where: str) -> None:
    """The logger provider's where the tracer's is none; else the environment's."""
    known = SimpleNamespace(resource=SimpleNamespace(attributes={"service.name": "logs"}))
    environment.setenv("OTEL_SERVICE_NAME", "s")
    environment.setitem(sys.modules, "opentelemetry.sdk.resources", SimpleNamespace())
    environment.setitem(sys.modules, telemetry.TRACE, SimpleNamespace(get_tracer_provider=object))
    if where:
        environment.setitem(sys.modules, where, SimpleNamespace(get_logger_provider=lambda: known))
    assert resource() == {"service.name": "logs" if where else "s"}


# ---- OTLP ----------------------------------------------------------------------------


def exported(run: Path, out: Path) -> tuple[list[dict[str, Any]], dict[str, dict[str, Any]]]:
    """The log records of a run, and the resources of its processes by label."""
    export_runs(run, out, format="otlp", force=True)
    lines = [json.loads(line) for line in (out / "otlp_logs.jsonl").read_text().splitlines()]
    found = [one for line in lines for one in line["resourceLogs"]]
    resources = [
        {pair["key"]: next(iter(pair["value"].values())) for pair in one["resource"]["attributes"]}
        for one in found
    ]
    records = [record for one in found for s in one["scopeLogs"] for record in s["logRecords"]]
    return records, {one["label"]: one for one in resources}


def test_ids_are_fields_of_a_log_record(tmp_path: Path) -> None:
    """Any that are no ids stay where they are, as do those of a span whose trace is not known."""
    writer = OracleWriter(tmp_path / "run")
    odd = [{"trace_id": "0" * 32}, {"span_id": SPAN}, {"trace_id": TRACE.upper()}, {"trace_id": 7}]
    for context in ({**IDS, "a": 1}, {"trace_id": TRACE, "span_id": "x"}, *odd):
        writer.log("x", context=context)
    records, _ = exported(writer.run, tmp_path / "out")
    first, second, *rest = records
    assert (first["traceId"], first["spanId"], first["flags"]) == (TRACE, SPAN, 1)
    assert json.dumps(first).count(TRACE) == 1
    assert second["traceId"] == TRACE
    assert "spanId" not in second
    assert "span_id" in json.dumps(second["attributes"])
    assert not any({"traceId", "spanId", "flags"} & one.keys() for one in rest)
    assert all(key in json.dumps(one) for one, (key,) in zip(rest, odd, strict=True))


def test_resources_of_a_run(environment: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Other ranks have what is said of the service, and not of the first one's process."""
    environment.setenv("OTEL_RESOURCE_ATTRIBUTES", "team=vision,host.id=h,k8s.pod.name=p,run=x")
    environment.setenv("OTEL_SERVICE_NAME", "trainer")
    for rank in (0, 1):
        with Recorder(tmp_path / "run", rank=rank, launch="one") as recorder:
            recorder.event("hello")
    _, resources = exported(tmp_path / "run", tmp_path / "out")
    assert resources[""].items() >= {"host.id": "h", "k8s.pod.name": "p"}.items()
    assert not resources["r1"].keys() & {"host.id", "host.name", "k8s.pod.name"}
    for one in resources.values():
        assert (one["service.name"], one["team"], one["run"]) == ("trainer", "vision", "run")


def test_a_service_without_a_name_is_called_as_the_run(
    environment: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    environment.setenv("OTEL_SERVICE_NAME", "unknown_service:python")
    with Recorder(tmp_path / "exp0") as recorder:
        recorder.event("hello")
    _, resources = exported(tmp_path / "exp0", tmp_path / "out")
    assert resources[""]["service.name"] == "exp0"
