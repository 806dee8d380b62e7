"""What a user of the demo sees and is told; the comparison with and without recording."""

from __future__ import annotations

import io
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

torch = pytest.importorskip("torch", reason="the demo trains with torch")

from demo_support import TINY, read, train_some, training_lines  # noqa: E402  # needs torch

from foundry_fastlog import demo  # noqa: E402
from foundry_fastlog.demo.ab import interleaved_ab  # noqa: E402
from foundry_fastlog.demo.config import load_config  # noqa: E402
from foundry_fastlog.demo.progress import progress_view  # noqa: E402
from foundry_fastlog.demo.train import Progress  # noqa: E402

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("one_thread")]


# ---- what a user sees --------------------------------------------------------------------


def test_the_output_of_a_pipe_is_plain(
    experiment: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without a terminal there are lines, not a bar, and no control characters."""
    run = tmp_path / "run"
    assert demo.run(experiment, out=run) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert "\x1b" not in out
    assert "\r" not in out
    progress = [line for line in out.splitlines() if line.endswith(" s") and "tok/s" in line]
    assert [line.split()[1] for line in progress] == ["4/12", "8/12", "12/12"]
    assert all("  loss " in line and "  val_loss " in line for line in progress)
    assert "what the model writes after 0 steps" in out
    assert "what the model writes after 12 steps" in out


def test_a_terminal_gets_a_bar() -> None:
    """On a terminal the bar is redrawn in place, with losses, speed and the step."""
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=100, _environ={"TERM": "xterm"})
    with progress_view(console, first=3, total=5) as show:
        show(Progress(4, loss=2.5, tokens_per_sec=12_345.0, val_loss=2.625))
        show(Progress(5, loss=2.25, tokens_per_sec=23_456.0))
    last = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", out.getvalue().split("\r")[-1])
    assert "training" in last
    assert "5/5 loss 2.250 val 2.625 23.5k tok/s" in last
    assert "\x1b[?25h" in out.getvalue()  # the cursor is back


def test_the_output_ends_with_cost_files_and_next_commands(
    experiment: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The report names every file that exists, and commands that can be copied."""
    monkeypatch.chdir(tmp_path)
    assert demo.run(experiment) == 0
    out = capsys.readouterr().out
    [run] = (tmp_path / "runs").iterdir()
    assert run.name.startswith("tiny-")
    where = f"runs/{run.name}"
    for path in run.rglob("*"):
        if path.is_file() and ".fastlog" not in path.parts:
            assert f"{where}/{path.relative_to(run)}" in out
    assert " % of the time" in out
    assert "0 dropped" in out
    for command in (f"summary {where}", f"tail {where}", f"export {where} --to"):
        assert f"foundry-fastlog {command}" in out


def test_an_unknown_key_stops_before_anything_is_made(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A wrong experiment file leaves no run directory, and exits with code 2."""
    monkeypatch.chdir(tmp_path)
    Path("bad.yaml").write_text("training:\n  step: 3\n")
    assert demo.run(Path("bad.yaml")) == 2
    out, err = capsys.readouterr()
    assert err == "error: bad.yaml:2: training.step: unknown key. Did you mean 'steps'?\n"
    assert out == ""
    assert [path.name for path in tmp_path.iterdir()] == ["bad.yaml"]


def test_a_directory_in_use_is_refused(
    experiment: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The demo writes neither over a file nor into a folder of other things."""
    (tmp_path / "file").write_text("mine")
    assert demo.run(experiment, out=tmp_path / "file") == 2
    assert "is a file" in capsys.readouterr().err
    assert demo.run(experiment, out=tmp_path) == 2
    assert "is not empty and holds no run" in capsys.readouterr().err
    assert (tmp_path / "file").read_text() == "mine"


def test_a_run_is_not_resumed_against_the_users_will(
    experiment: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With training.resume: false an existing run is an error, and stays as it is."""
    run = tmp_path / "run"
    train_some(experiment, run, steps=6)
    experiment.write_text(TINY + "  resume: false\n")
    assert demo.run(experiment, out=run) == 2
    assert "training.resume: true" in capsys.readouterr().err
    assert not list(run.glob("*.a1.jsonl"))


def test_another_model_is_not_loaded_from_the_checkpoint(
    experiment: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A changed shape is explained, recorded as an error, and exits with code 2."""
    run = tmp_path / "run"
    train_some(experiment, run, steps=6)
    experiment.write_text(TINY.replace("width: 16", "width: 32"))
    assert demo.run(experiment, out=run) == 2
    assert "was made with another shape of the model" in capsys.readouterr().err
    assert read(run, "errors.a1.jsonl")[-1]["error_type"] == "ConfigError"


def test_a_loss_that_explodes_stops_the_run(
    experiment: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A learning rate of 1e38 gives NaN: recorded, then stopped with a hint, code 1."""
    experiment.write_text(TINY + "  learning_rate: 1.0e+38\n")
    run = tmp_path / "run"
    assert demo.run(experiment, out=run) == 1
    assert "a smaller training.learning_rate may help" in capsys.readouterr().err
    last = training_lines(read(run, "metrics.jsonl"))[-1]
    assert last["metrics"]["loss"] is None
    assert last["nonfinite"]["loss"] == "nan"
    [error] = read(run, "errors.jsonl")
    assert error["error_type"] == "FloatingPointError"
    assert error["step"] == last["step"]


def test_without_torch_one_sentence_says_what_to_install(tmp_path: Path) -> None:
    """No traceback: the missing package and the pip command for this interpreter."""
    code = (
        "import sys; sys.modules['torch'] = None; from foundry_fastlog import demo; "
        "sys.exit(demo.run())"
    )
    root = Path(demo.__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(root)},
        check=False,
    )
    assert done.returncode == 1
    assert done.stdout == ""
    said = re.fullmatch(
        r"error: the demo needs torch, which is not installed\. Run: (.*) -m pip install torch\n",
        done.stderr,
    )
    assert said is not None, done.stderr
    assert Path(shlex.split(said[1])[0]).samefile(sys.executable)
    assert list(tmp_path.iterdir()) == []


# ---- recording on and off ------------------------------------------------------------------


def test_the_comparison_times_the_same_steps_on_both_sides(experiment: Path) -> None:
    """Each side has all its steps, and only the recorded side records."""
    result = interleaved_ab(3, 4, load_config(experiment))
    assert [len(block) for block in result["on_steps_s"]] == [3] * 4
    assert [len(block) for block in result["off_steps_s"]] == [3] * 4
    assert result["steps"] == 12
    assert result["stats"]["record_calls"] == 12
    assert result["stats"]["timer_calls"] == 12 * 5
    assert result["low"] <= result["ratio"] <= result["high"]
    assert result["block_low"] <= result["block_ratio"] <= result["block_high"]
    assert result["ratio"] == result["on_s"] / result["off_s"]
    assert 0.0 < result["logging_fraction"] < 1.0


@pytest.mark.parametrize(("steps", "blocks"), [(0, 4), (3, 1)])
def test_a_comparison_of_nothing_is_refused(steps: int, blocks: int) -> None:
    """Too few steps or blocks give no interval, so they are an error."""
    with pytest.raises(ValueError, match="at least"):
        interleaved_ab(steps, blocks)
