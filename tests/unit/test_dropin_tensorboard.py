"""SummaryWriter's interface, recording into a run."""

from __future__ import annotations

import contextlib
import inspect
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from foundry_fastlog import Run, read_run
from foundry_fastlog.integrations import tensorboard as module
from foundry_fastlog.integrations.tensorboard import SummaryWriter


def lines(run: Run) -> list[tuple[int, dict[str, Any]]]:
    return [(line["step"], line["metrics"]) for line in run.lines("metrics")]


def test_scalars_texts_and_hyperparameters(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with SummaryWriter(tmp_path, max_queue=1, config={"seed": 1}) as writer:
        assert (writer.log_dir, writer.get_logdir()) == (str(tmp_path), str(tmp_path))
        writer.add_scalar("loss", 0.1, 5)
        writer.add_scalar("loss", np.float64(0.2), np.int64(6), walltime=1.0)
        writer.add_scalar("loss", 0.3, walltime=2.0)
        writer.add_scalars("group", {"a": 1, "b": np.ones(1)}, 7)
        writer.add_text("note", "hello", 7)
        writer.add_hparams({"lr": 1.0}, {"best": 0.1})
        writer.add_hparams({"lr": 2.0}, {}, run_name="x")
        writer.add_hparams({}, {"best": 0.2}, global_step=3)
        writer.flush()
    run = read_run(tmp_path)
    assert lines(run) == [
        *((5, {"loss": 0.1}), (6, {"loss": 0.2}), (7, {"loss": 0.3})),
        *((7, {"group/a": 1, "group/b": 1.0}), (7, {"best": 0.1}), (3, {"best": 0.2})),
    ]
    assert caplog.text.count("walltime is not kept") == 1
    said = [(line["message"], line["step"], line["context"]) for line in run.lines("log")]
    assert said == [
        ("hello", 7, {"tag": "note"}),
        ("Hyperparameters", 7, {"hparams": {"lr": 1.0}, "metrics": {"best": 0.1}}),
        ("Hyperparameters", 7, {"hparams": {"lr": 2.0}, "run_name": "x"}),
        ("Hyperparameters", 3, {"metrics": {"best": 0.2}}),
    ]
    assert run.report_starts()[-1].config == {"seed": 1, "lr": 2.0}


def test_what_is_no_scalar_is_kept_by_tag_and_class(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    image = np.zeros((3, 4, 5))
    with SummaryWriter(tmp_path) as writer:
        assert writer.add_image.__doc__
        writer.add_image("picture", image, 1)
        writer.add_image("picture", image, global_step=2)
        writer.add_histogram(tag="weights", values=np.zeros(9), global_step=3)
        writer.add_pr_curve("curve", np.zeros(2), np.ones(2), 4)
        writer.add_embedding(np.zeros((2, 3)), global_step=5, tag="points")
        writer.add_embedding(np.zeros((2, 3)), None, None, 5)
        writer.add_graph(object())
        writer.add_custom_scalars({"a": {}})
        writer.add_onnx_graph("model.onnx")
        writer.add_mesh("mesh", np.zeros((1, 2, 3)), None, None, None, 6)
        writer.add_scalar("list", [1, 2], 7)
        writer.add_figure("figure", object(), 8)
    found = dict(lines(read_run(tmp_path)))
    assert found[1] == {"picture": "image of 3x4x5"}
    assert found[2] == {"picture": "image of 3x4x5"}
    assert found[3] == {"weights": "histogram of 9"}
    assert found[4] == {"curve": "pr_curve of 2"}
    assert found[6] == {"mesh": "mesh of 1x2x3"}
    assert found[7] == {"list": "list of 2"}
    assert found[8] == {"figure": "figure"}
    values = [metrics for _, metrics in lines(read_run(tmp_path))]
    assert {"points": "embedding of 2x3"} in values
    assert {"default": "embedding of 2x3"} in values
    said = [(line["message"], line.get("step")) for line in read_run(tmp_path).lines("log")]
    assert said == [("graph", None), ("custom_scalars of 1", None), ("onnx_graph", None)]
    assert caplog.text.count("of 'picture' only its class") == 1


def test_a_program_that_was_stopped_goes_on(tmp_path: Path) -> None:
    with SummaryWriter(tmp_path) as writer:
        for step in range(10):
            writer.add_scalar("loss", 1.0, step)
    with SummaryWriter(tmp_path, purge_step=6) as writer:
        writer.add_scalar("other", 2.0)
        writer.add_scalar("loss", 2.0, 6)
    run = read_run(tmp_path)
    assert run.metric("loss").values.tolist() == [1.0] * 6 + [2.0]
    assert run.metric("other").steps.tolist() == [6]


def test_an_exception_is_how_it_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with contextlib.suppress(ZeroDivisionError), SummaryWriter(comment="_x") as writer:
        writer.add_scalar("loss", 1.0, 0)
        _ = 1 / 0
    (folder,) = (tmp_path / "runs").iterdir()
    assert folder.name.endswith("_x")
    assert read_run(folder).report_starts()[-1].error.startswith("ZeroDivisionError")


def test_the_methods_are_torchs() -> None:
    """Each of them, and its arguments in the same order."""
    pytest.importorskip("torch")
    pytest.importorskip("tensorboard")
    from torch.utils.tensorboard import SummaryWriter as Original

    methods = dict(inspect.getmembers(Original, inspect.isfunction))
    for name in (name for name in methods if not name.startswith("_")):
        known = list(inspect.signature(methods[name]).parameters)[1:]
        ours = {**module._KINDS, **module._STEPLESS}.get(name.removeprefix("add_"))
        if ours is None:
            assert list(inspect.signature(getattr(SummaryWriter, name)).parameters)[1:] == known
        else:
            assert ours.split() == known, name


def test_a_writer_that_was_closed_opens_again(tmp_path: Path) -> None:
    """As torch's does: nothing that comes late ends a training or is lost."""
    writer = SummaryWriter(tmp_path, flush_secs=5)
    writer.add_scalar("loss", 1.0, 0)
    writer.close()
    writer.close()
    writer.flush()
    writer.add_scalar("loss", 2.0, 1)
    writer.recorder.close()  # by somebody else
    writer.add_scalar("loss", 3.0, 2)
    with writer:
        writer.close()
    run = read_run(tmp_path)
    assert run.metric("loss").values.tolist() == [1.0, 2.0, 3.0]
    assert [start.state for start in run.report_starts()] == ["closed"] * 3
    assert writer.flush_secs == 5


def test_two_writers_of_a_directory_share_its_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    first, second = SummaryWriter("run"), SummaryWriter("run")
    first.add_scalar("a", 1.0, 0)
    first.close()
    monkeypatch.chdir("/")
    second.add_scalar("b", 2.0, 0)
    second.close()
    first.add_scalar("a", 3.0, 1)
    first.close()
    run = read_run(tmp_path / "run")
    assert run.metric("a").values.tolist() == [1.0, 3.0]
    assert run.metric("b").values.tolist() == [2.0]


def test_hyperparameters_of_other_types(tmp_path: Path) -> None:
    with SummaryWriter(tmp_path) as writer:
        writer.add_hparams({"lr": np.ones(1), "size": np.float32(2), "many": np.zeros(3)}, {})
        for wrong in (([1], {}), ({}, None)):
            with pytest.raises(TypeError, match="must be a mapping"):
                writer.add_hparams(*wrong)  # type: ignore[arg-type]
    config = read_run(tmp_path).report_starts()[-1].config
    assert (config["lr"], config["size"]) == (1.0, 2.0)
