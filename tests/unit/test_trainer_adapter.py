"""What adapters share: who records, what opens the run, and calls that are wrong."""

from __future__ import annotations

import logging
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from adapters import ends, messages, points, starts
from recorded import run_python

from foundry_fastlog import Recorder, read_run
from foundry_fastlog.integrations import adapter as module
from foundry_fastlog.integrations.adapter import Adapter, Adapting
from foundry_fastlog.integrations.step_timing import StepTiming


def adapter(path: Path | None, recorder: Recorder | None = None, **options: Any) -> Adapter:
    return Adapter(path, recorder, logger="test", **options)


def test_wrong_calls(tmp_path: Path) -> None:
    """They are refused before anything is written, and say what to do."""
    with pytest.raises(TypeError, match="either run_dir=, or recorder="):
        adapter(None)
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError, match="choose another path"):
        adapter(tmp_path / "file" / "run")
    with Recorder(tmp_path / "run") as recorder:
        with pytest.raises(TypeError, match="either run_dir=, or recorder="):
            adapter(tmp_path, recorder)
        with pytest.raises(TypeError, match="takes no options, got fsync"):
            adapter(None, recorder, options={"fsync": "none"})
    with pytest.raises(FileNotFoundError, match="no run"):
        adapter(tmp_path / "other", options={"resume": "must"}).open()
    with pytest.raises(TypeError, match="no option colour"):
        adapter(tmp_path / "other", options={"colour": "red"})


def test_what_is_not_open_records_nothing(tmp_path: Path) -> None:
    """Another rank, or a training that did not begin."""
    silent = adapter(tmp_path / "run")
    assert not silent.open(main=False)
    silent.log({"x": 1}, 0)
    silent.summarize(0, {"x": 1})
    silent.say("m")
    silent.train_from(0)
    silent.recovered()
    silent.failed(ValueError("x"))
    assert silent.close()
    assert not (tmp_path / "run").exists()


def test_a_run_that_cannot_be_opened(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is told once, and training goes on."""

    def refuse(*args: Any, **options: Any) -> None:
        raise MemoryError("no memory for the ring")

    monkeypatch.setattr(module, "acquire", refuse)
    refused = adapter(tmp_path / "run")
    with caplog.at_level(logging.WARNING, "foundry_fastlog"):
        assert not refused.open({"lr": 1})
        assert not refused.open({"lr": 1})
    (record,) = caplog.records
    assert "no memory for the ring" in record.getMessage()


def test_two_adapters_share_a_run(tmp_path: Path) -> None:
    """The first one's configuration is the run's; the last one closes it."""
    first, second = adapter(tmp_path / "run"), adapter(tmp_path / "run")
    assert first.open({"lr": 1})
    assert second.open({"lr": 2})
    first.log({"x": 1}, 1)
    assert first.close()
    second.log({"x": 2}, 2)
    assert second.close()
    assert points(tmp_path / "run", "x") == [(1, 1), (2, 2)]
    (start,) = starts(tmp_path / "run")
    assert start["config"] == {"lr": 1}
    (line,) = read_run(tmp_path / "run").lines("log")
    assert (line["message"], line["context"], line["logger"]) == (
        "Configuration",
        {"lr": 2},
        "test",
    )


def test_an_adapter_that_nobody_has_any_more_closes_its_run(tmp_path: Path) -> None:
    one = adapter(tmp_path / "run")
    one.open()
    recorder = one.recorder
    del one
    assert recorder is not None
    assert recorder.closed


def test_a_pickle_opens_its_own_part(tmp_path: Path) -> None:
    """As in a spawned process; that of an open recorder has a worker's, or here the same."""
    one = adapter(tmp_path / "run", options={"name": "n"}, all_ranks=True)
    one.open()
    other = pickle.loads(pickle.dumps(one))
    assert (other.run_dir, other.all_ranks, other.recorder) == (one.run_dir, True, None)
    assert other.open()
    assert other.recorder is one.recorder
    with Recorder(tmp_path / "given") as recorder:
        given = pickle.loads(pickle.dumps(adapter(None, recorder)))
        assert given.open()
        assert given.recorder is recorder
    one.close()
    other.close()


def test_interrupts_end_a_run_and_are_no_errors(tmp_path: Path) -> None:
    one = adapter(tmp_path / "run")
    one.open()
    one.failed(KeyboardInterrupt())
    one.close()
    one.failed(ValueError("too late"))
    assert ends(tmp_path / "run") == [("signal", None)]
    assert not list(read_run(tmp_path / "run").lines("errors"))


def test_the_owner_of_a_recorder_says_how_it_ends(tmp_path: Path) -> None:
    with Recorder(tmp_path / "run") as recorder:
        one = adapter(None, recorder)
        one.open()
        one.failed(ValueError("caught"))
    assert ends(tmp_path / "run") == [("closed", None)]
    assert len(list(read_run(tmp_path / "run").lines("errors"))) == 1


def test_a_program_that_ends_well(tmp_path: Path) -> None:
    """A run that is never closed is, at exit; an earlier exception is not its end."""
    run_python(
        """
import sys
from foundry_fastlog.integrations.adapter import Adapter, Adapting
one = Adapter(sys.argv[1], None, logger="test")
one.open()
one.log({"x": 1}, 1)
""",
        tmp_path / "run",
    )
    assert ends(tmp_path / "run") == [("closed", None)]
    assert messages(tmp_path / "run") == []


def test_timings_of_what_has_no_step() -> None:
    """Hooks that come outside of a step are not timed, and a model without hooks has none."""
    told: list[Any] = []
    timing = StepTiming(lambda *block: told.append(block))
    timing.begin(object(), hooked=True)
    timing.backward_end()
    timing.optimizer_end()
    timing.step_end()
    assert told == []


def test_a_configuration_among_the_options(tmp_path: Path) -> None:
    """The trainer's is added to it, also where a pickle opens the run."""
    first = adapter(tmp_path / "run", options={"config": {"seed": 1, "lr": 2}})
    one = pickle.loads(pickle.dumps(first))
    one.open({"lr": 3})
    one.close()
    assert starts(tmp_path / "run")[0]["config"] == {"seed": 1, "lr": 3}


@pytest.mark.parametrize("step", [3.0, 3.7, np.float32(3), np.int64(3), "3", np.array(3.0)])
def test_steps_that_are_no_ints(tmp_path: Path, step: Any) -> None:
    """Trainers have floats and arrays; a step that somebody logged is one."""
    one = adapter(tmp_path / "run")
    one.open()
    one.log({"x": 1.0}, step)
    one.say("m", step=step)
    one.timing("t", 0.5, step)
    assert one.step == 3
    one.close()
    run = tmp_path / "run"
    assert points(run, "x") == [(3, 1.0)]
    assert messages(run) == [("m", 3)]
    assert [line["step"] for line in read_run(run).lines("performance")] == [3]


def test_what_cannot_be_recorded_is_told_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever a trainer hands on, the training goes on, and what is beside it is recorded."""
    one = adapter(tmp_path / "run")
    one.open()
    one.log({"x": 1.0}, 5)
    for _ in range(2):
        one.log({"x": 2.0}, float("nan"))  # type: ignore[arg-type]
        one.log(None, 7)  # type: ignore[arg-type]
        one.log({"x": 3.0}, 2**70)
        one.summarize("bad", {"x": 1.0})  # type: ignore[arg-type]
        one.say("m", level="LOUD")
    one.close()
    assert points(tmp_path / "run", "x")[:2] == [(5, 1.0), (6, 2.0)]
    told = [record.getMessage() for record in caplog.records]
    assert sum("is no step" in text for text in told) == 1
    assert sum("TypeError" in text for text in told) == 1
    assert sum("OverflowError" in text for text in told) == 1
    assert sum("unknown level" in text for text in told) <= 1


def test_a_second_block_is_the_next_start(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    class Logger(Adapting):
        def __init__(self, one: Adapter) -> None:
            self._adapter = one

    logger = Logger(adapter(tmp_path / "run"))
    for step in range(2):
        with logger:
            logger._adapter.open({"try": step})
            logger._adapter.log({"x": step}, step)
        logger._adapter.log({"x": 9}, 9)
    assert points(tmp_path / "run", "x") == [(0, 0), (1, 1)]
    assert [start["config"] for start in starts(tmp_path / "run")] == [{"try": 0}, {"try": 1}]
    assert caplog.text.count("is closed. Close it after all") == 2
