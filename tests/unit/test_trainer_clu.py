"""FastlogWriter records what CLU's writers are given."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import pytest
from adapters import THEIR_WARNINGS, complete, ends, library, messages, points, starts

from foundry_fastlog import read_run

jax = library("jax")
with suppress(RuntimeError):  # too late: another test has used it
    jax.config.update("jax_num_cpu_devices", 2)
library("tensorflow")  # clu.metric_writers imports it
writers = library("clu.metric_writers")
FastlogWriter = library("foundry_fastlog.integrations.clu").FastlogWriter

pytestmark = THEIR_WARNINGS


def test_a_training_is_recorded(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """As CLU's own loops use writers: through one that writes to several, in a thread."""
    run = tmp_path / "run"
    gradient = jax.value_and_grad(lambda w, x: ((w * x - 1.0) ** 2).mean())
    weight, data = jax.numpy.zeros(3), jax.numpy.ones((4, 3))
    losses = []
    with FastlogWriter(run, name="tiny") as ours:
        writer = writers.AsyncMultiWriter([ours, writers.LoggingWriter()])
        writer.write_hparams({"lr": 0.1, "width": 3})
        for step in range(10):
            loss, grads = gradient(weight, data)
            weight = weight - 0.1 * grads
            losses.append((step, float(loss)))
            writer.write_scalars(step, {"train/loss": loss})
        writer.write_texts(9, {"note": "done"})
        writer.write_images(9, {"picture": data.reshape(1, 2, 6, 1)})
        writer.write_histograms(9, {"weight": weight})
        ours.write_summaries(9, {"tensor": weight})
        ours.write_videos(9, {"video": data})
        ours.write_audios(9, {"sound": data}, sample_rate=8)
        ours.write_images(9, {"picture": data.reshape(1, 2, 6, 1)})
        writer.flush()
        writer.close()
    assert points(run, "train/loss") == losses
    assert starts(run)[0]["config"] == {"lr": 0.1, "width": 3}
    assert messages(run) == [("done", 9)]
    kept = {
        name: value
        for line in read_run(run).lines("metrics")
        for name, value in line["metrics"].items()
        if name != "train/loss"
    }
    assert kept == {
        "picture": "images of 1x2x6x1",
        "weight": "histogram of 3",
        "tensor": "summary of 3",
        "video": "videos of 4x3",
        "sound": "audios of 4x3",
    }
    assert caplog.text.count("of 'picture' only its class") == 1
    assert ends(run) == [("closed", None)]
    assert complete(run)


def test_arrays_that_are_not_on_one_cpu(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """They are read wherever they are; what cannot be read is left out, and told."""
    devices = jax.devices()
    mesh = jax.sharding.Mesh(devices, "all")
    everywhere = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
    gone = jax.numpy.ones(())
    gone.delete()
    with FastlogWriter(tmp_path / "run") as writer:
        loss = jax.device_put(jax.numpy.float32(2.5), everywhere)
        assert len(loss.devices()) == len(devices)
        writer.write_scalars(0, {"loss": loss, "gone": gone, "lr": 0.5})
    assert points(tmp_path / "run", "loss") == [(0, 2.5)]
    assert points(tmp_path / "run", "lr") == [(0, 0.5)]
    assert "gone" in caplog.text


def test_other_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the first one records, unless all are to."""
    monkeypatch.setattr(jax, "process_index", lambda: 1)
    for all_ranks in (False, True):
        run = tmp_path / str(all_ranks)
        with FastlogWriter(run, all_ranks=all_ranks, rank=1, world_size=2) as writer:
            writer.flush()
            writer.write_scalars(0, {"loss": 1.0})
            writer.write_texts(0, {"note": "x"})
            writer.write_images(0, {"picture": jax.numpy.zeros((1, 2, 2, 1))})
        assert run.exists() == all_ranks
