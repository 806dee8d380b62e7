"""Sources that are damaged, odd, or of this package itself: what cannot be taken over is told."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from wandb_files import write_log

from foundry_fastlog import Recorder, SourceError, export_runs, import_runs, read_run

ODD = {"nan": float("nan"), "far": -float("inf"), "zero": -0.0, "big": 2**63 - 1, "text": 'a"\n'}


def take(source: Path, target: Path, **options: Any) -> tuple[dict[str, int], list[Any]]:
    """What was left out, and the lines."""
    (found,) = import_runs(source, target, **options)
    run = read_run(found.path)
    assert all(check.complete for check in run.check())
    return dict(+found.left_out), list(run.lines("metrics"))


def test_exported_lines_come_back(tmp_path: Path) -> None:
    """All streams of all starts and ranks, each with its time, and what no longer counts."""
    run = tmp_path / "run"
    for start in range(2):
        for rank in range(2):
            with Recorder(run, rank=rank) as recorder:
                for step in range(4 * start, 4 * start + 6):
                    with recorder.timer("step", step=step):
                        recorder.record_dict(step, {**ODD, "x": start + rank / 2})
                recorder.rewind(4 * start + 4)
                recorder.event("message", context={"a": [1, float("nan")]})
                recorder.event("failed", error=ValueError("no"))
                recorder.system({"cpu": 1.5})
    export_runs(run, tmp_path / "all.jsonl", starts="all")
    (found,) = import_runs(tmp_path / "all.jsonl", tmp_path / "runs")
    assert (found.starts, dict(+found.left_out)) == (2, {})
    again = read_run(found.path)
    assert all(check.complete for check in again.check())
    export_runs(again, tmp_path / "again.jsonl", starts="all")
    texts = [(tmp_path / name).read_text().splitlines() for name in ("all.jsonl", "again.jsonl")]
    first, second = ([json.loads(text) for text in each] for each in texts)
    assert [without_stamp(one) for one in first] == [without_stamp(one) for one in second]
    for name in ("x", *ODD):
        one, other = read_run(run).metric(name), again.metric(name)
        assert one.steps.tolist() == other.steps.tolist()
        assert np.array_equal(one.time, other.time)


def without_stamp(line: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in line.items() if key != "stamp"}


def test_exported_runs_come_back_as_runs(tmp_path: Path) -> None:
    for name in ("a", "b"):
        with Recorder(tmp_path / name) as recorder:
            recorder.record(0, loss=1.0)
    file = tmp_path / "both.jsonl"
    export_runs([tmp_path / "a", tmp_path / "b"], file)
    lines = [*file.read_text().splitlines(), '{"loss": 1}', '{"timestamp": "x", "seq": 1}']
    dropped = {"timestamp": "2026-01-01T00:00:00Z", "seq": 3, "dropped": 1, "run": "a"}
    odd = {"timestamp": "2026-01-01T00:00:00Z", "seq": 3, "metrics": {}, "run": "b", "label": "?!"}
    file.write_text("\n".join([*lines, json.dumps(dropped), json.dumps(odd)]))
    found = import_runs(file, tmp_path / "runs")
    assert [one.path.name for one in found] == ["both", "a", "b"]
    assert [dict(+one.left_out) for one in found] == [{"line": 2}, {"line": 1}, {}]
    assert [one.lines for one in found] == [{}, {"metrics": 1}, {"metrics": 2}]


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("indent", [None, 1])
def test_a_file_that_is_one_list(tmp_path: Path, packed: bool, indent: int | None) -> None:
    """As the states of Transformers' trainer."""
    rows = [{"step": 10, "epoch": 0.5, "loss": 2.0}, {"step": 20, "eval_loss": 1.0}]
    state = {"best_metric": None, "log_history": rows, "max_steps": 20}
    for name, content in (("trainer_state.json", state), ("rows.json", rows)):
        source = tmp_path / (f"{name}.gz" if packed else name)
        data = json.dumps(content, indent=indent).encode()
        source.write_bytes(gzip.compress(data) if packed else data)
        (found,) = import_runs(source, tmp_path / "runs")
        run = read_run(found.path)
        assert found.path.name == Path(name).stem
        assert [(line["step"], line["metrics"]) for line in run.lines("metrics")] == [
            *((10, {"loss": 2.0}), (20, {"eval_loss": 1.0}))
        ]
        beside = {"best_metric": None, "max_steps": 20} if content is state else {}
        assert run.report_starts()[0].config == beside


def test_lines_that_cannot_be_taken_over_are_counted(tmp_path: Path) -> None:
    source = tmp_path / "a.jsonl"
    source.write_bytes(b'\xef\xbb\xbf{"step": "0", "a": {"b": 1}, "a.b": 2}\r\n{"step": 1, "x"')
    left_out, lines = take(source, tmp_path / "cut")
    assert left_out == {"line": 1, "value of the same name": 1}
    assert [(line["step"], line["metrics"]) for line in lines] == [(0, {"a.b": 2})]
    source.write_text('{"step": 1e300, "x": 1}\n{"step": 9223372036854775808}\n{"step": 2, "x": 1}')
    left_out, lines = take(source, tmp_path / "huge")
    assert left_out == {"line without a step": 2}
    assert [line["step"] for line in lines] == [2]
    source.write_text('{"a.b": 2, "a": {"b": 1}}\n')
    assert take(source, tmp_path / "twice")[0] == {"value of the same name": 1}
    for option in ("step", "time"):
        with pytest.raises(SourceError, match="has a member 'other'"):
            import_runs(source, tmp_path / "none", **{option: "other"})
    source.write_text("{" + '"a":{' * 100_000)
    with pytest.raises(SourceError, match="no line that is a JSON object"):
        import_runs(source, tmp_path / "deep")


def test_a_file_too_large_to_be_one_value_has_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("foundry_fastlog.importing.json_lines._WHOLE_BYTES", 10)
    source = tmp_path / "rows.json"
    source.write_text('[{"step": 1,\n"x": 1}]')
    with pytest.raises(SourceError, match="no line that is a JSON object"):
        import_runs(source, tmp_path / "runs")


def write_events(folder: Path, events: list[Any]) -> Path:
    from tensorboard.summary.writer.record_writer import RecordWriter

    folder.mkdir()
    path = folder / "events.out.tfevents.1000.host"
    with path.open("wb") as file:
        writer = RecordWriter(file)
        for event in events:
            writer.write(event.SerializeToString())
    return path


def test_event_files_that_are_cut_or_damaged_or_went_back(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.compat.proto.event_pb2 import Event, SessionLog
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.plugins.scalar import metadata
    from tensorboard.util.tensor_util import make_tensor_proto

    def scalar(step: int, value: float) -> Any:
        summary = Summary(value=[Summary.Value(tag="loss", simple_value=value)])
        return Event(wall_time=1e9 + step, step=step, summary=summary)

    start = SessionLog(status=SessionLog.START)
    events = [Event(session_log=start), *(scalar(step, step) for step in range(6))]
    again = [Event(step=3, session_log=start), scalar(3, -3.0)]
    write_events(tmp_path / "back", [*events, *again])
    (found,) = import_runs(tmp_path / "back", tmp_path / "runs")
    loss = read_run(found.path).metric("loss")
    assert [*zip(loss.steps.tolist(), loss.values.tolist(), strict=True)] == [
        *((0, 0.0), (1, 1.0), (2, 2.0), (3, -3.0))
    ]
    cut = write_events(tmp_path / "cut", events)
    size = cut.stat().st_size
    cut.write_bytes(cut.read_bytes()[:-5])
    left_out, lines = take(tmp_path / "cut", tmp_path / "runs")
    assert (len(lines), list(left_out)) == (5, ["byte behind the last whole record"])
    damaged = write_events(tmp_path / "damaged", events)
    data = bytearray(damaged.read_bytes())
    data[size // 2] ^= 255
    damaged.write_bytes(data)
    left_out, lines = take(tmp_path / "damaged", tmp_path / "runs")
    assert len(lines) < 5
    assert left_out["byte behind the last whole record"] > size // 3
    about = metadata.create_summary_metadata(display_name="", description="")
    odd = [np.array([1.0, 2.0]), np.array(["x"], dtype=object), np.complex128(1j)]
    values = [Summary.Value(tag="x", tensor=make_tensor_proto(o), metadata=about) for o in odd]
    write_events(tmp_path / "odd", [Event(step=1, summary=Summary(value=values))])
    assert take(tmp_path / "odd", tmp_path / "runs")[0] == {"array": 3}


def test_run_files_of_wandb_that_are_damaged(tmp_path: Path) -> None:
    pytest.importorskip("wandb")
    from wandb.proto import wandb_internal_pb2 as module

    proto: Any = module
    records = []
    for step in range(4):
        record = proto.Record()
        record.history.step.num = step
        record.history.item.add(key="loss", value_json=str(step))
        records.append(record)
    records[1].history.item.add(nested_key=["loss", "of"], value_json="7")
    records[2].history.item.add(key="_step", value_json='"two"')
    records[2].history.item.add(key="_timestamp", value_json='"then"')
    records[3].history.item.add(key="bad", value_json="{no json")
    broken = type("Broken", (), {"SerializeToString": lambda _: b"\xff" * 9})()
    source = tmp_path / "run-r.wandb"
    write_log(source, [*records[:2], broken, *records[2:]])
    source.write_bytes(source.read_bytes() + b"\1\2\3\4\x99\x99\1half")
    left_out, lines = take(source, tmp_path / "runs")
    assert left_out == {
        "record that is damaged": 1,
        "byte behind the last whole record": 11,
        "list": 1,
    }
    assert [(line["step"], line["metrics"]) for line in lines] == [
        *((0, {"loss": 0}), (1, {"loss.of": 7}), (2, {"loss": 2}), (3, {"loss": 3}))
    ]


def test_a_session_of_wandb_that_goes_on_without_a_name(tmp_path: Path) -> None:
    pytest.importorskip("wandb")
    from wandb.proto import wandb_internal_pb2 as module

    proto: Any = module
    for number, name in enumerate(("exp0", "")):
        record = proto.Record()
        record.run.run_id, record.run.project, record.run.display_name = "r", "p", name
        folder = tmp_path / "wandb" / f"offline-run-2026010{number + 1}_000000-r"
        folder.mkdir(parents=True)
        write_log(folder / "run-r.wandb", [record])
    (found,) = import_runs(tmp_path / "wandb", tmp_path / "runs")
    assert (found.path.name, found.starts) == ("exp0-r", 2)
    assert read_run(found.path).info["name"] == "exp0"
