"""What a user of the demo sees and is told; the comparison with and without recording."""

from __future__ import annotations

import io
import re
import shlex
import sys
from pathlib import Path

import pytest
from recorded import run_python
from rich.console import Console

torch = pytest.importorskip("torch", reason="the demo trains with torch")

from demo_support import TINY, read, train_some, training_lines  # noqa: E402  # needs torch

from foundry_fastlog import demo  # noqa: E402
from foundry_fastlog.demo.ab import interleaved_ab  # noqa: E402
from foundry_fastlog.demo.config import load_config  # noqa: E402
from foundry_fastlog.demo.progress import progress_view  # noqa: E402
from foundry_fastlog.demo.train import Progress  # noqa: E402

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("one_thread")]
Capsys = pytest.CaptureFixture[str]


@pytest.fixture
def in_tmp_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_the_output_of_a_pipe_is_plain(experiment: Path, tmp_path: Path, capsys: Capsys) -> None:
    """Without a terminal there are lines, not a bar, and no control characters."""
    assert demo.run(experiment, out=tmp_path / "run") == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert not {"\x1b", "\r"} & set(out)
    progress = [line for line in out.splitlines() if line.endswith(" s") and "tok/s" in line]
    assert [line.split()[1] for line in progress] == ["4/12", "8/12", "12/12"]
    assert all("  loss " in line and "  val_loss " in line for line in progress)
    assert all(f"the model's output after {steps} steps" in out for steps in (0, 12))


def test_a_terminal_gets_a_bar() -> None:
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=100, _environ={"TERM": "xterm"})
    with progress_view(console, first=3, total=5) as show:
        show(Progress(4, loss=2.5, tokens_per_sec=12_345.0, val_loss=2.625))
        show(Progress(5, loss=2.25, tokens_per_sec=23_456.0))
    last = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", out.getvalue().split("\r")[-1])
    assert "training" in last
    assert "5/5 loss 2.250 val 2.625 23.5k tok/s" in last
    assert "\x1b[?25h" in out.getvalue()  # the cursor is back


@pytest.mark.usefixtures("in_tmp_path")
def test_the_output_ends_with_advice(experiment: Path, tmp_path: Path, capsys: Capsys) -> None:
    """The report names every file that exists, and commands that can be copied."""
    assert demo.run(experiment) == 0
    out = capsys.readouterr().out
    run, report = sorted((tmp_path / "runs").iterdir())
    assert run.name.startswith("tiny-")
    where = f"runs/{run.name}"
    assert report.name == f"{run.name}.html"
    assert f"open {where}.html in a browser" in out
    for path in run.rglob("*"):
        if path.is_file() and ".fastlog" not in path.parts:
            assert f"{where}/{path.relative_to(run)}" in out
    assert " % of the time" in out
    assert "0 dropped" in out
    for command in (f"summary {where}", f"tail {where}", f"export {where} --to"):
        assert f"foundry-fastlog {command}" in out


@pytest.mark.usefixtures("in_tmp_path")
def test_an_unknown_key_stops_before_anything_is_made(tmp_path: Path, capsys: Capsys) -> None:
    """A wrong experiment file leaves no run directory, and exits with code 2."""
    Path("bad.yaml").write_text("training:\n  step: 3\n")
    assert demo.run(Path("bad.yaml")) == 2
    said = "error: bad.yaml:2: training.step: unknown key. Did you mean 'steps'?\n"
    assert capsys.readouterr() == ("", said)
    assert [path.name for path in tmp_path.iterdir()] == ["bad.yaml"]


def test_a_directory_in_use_is_refused(experiment: Path, tmp_path: Path, capsys: Capsys) -> None:
    (tmp_path / "file").write_text("mine")
    for out, said in (("file", "is a file"), (".", "is not empty and contains no run")):
        assert demo.run(experiment, out=tmp_path / out) == 2
        assert said in capsys.readouterr().err
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize(
    ("change", "message", "recorded"),
    [
        (("steps: 12", "steps: 12\n  resume: false"), "training.resume: true", ""),
        (("width: 16", "width: 32"), "was made with another model shape", "ConfigError"),
    ],
    ids=["against the user's will", "another model"],
)
def test_what_is_not_resumed(
    experiment: Path, tmp_path: Path, capsys: Capsys, change: list[str], message: str, recorded: str
) -> None:
    """An explanation and code 2; the run stays as it is, but for the error of another attempt."""
    run = tmp_path / "run"
    train_some(experiment, run, steps=6)
    experiment.write_text(TINY.replace(*change))
    assert demo.run(experiment, out=run) == 2
    assert message in capsys.readouterr().err
    assert bool(list(run.glob("*.a1.jsonl"))) == bool(recorded)
    if recorded:
        assert read(run, "errors.a1.jsonl")[-1]["error_type"] == recorded


def test_a_loss_that_explodes_stops_the_run(
    experiment: Path, tmp_path: Path, capsys: Capsys
) -> None:
    """A learning rate of 1e38 gives NaN: recorded, then stopped with a hint, code 1."""
    experiment.write_text(TINY + "  learning_rate: 1.0e+38\n")
    run = tmp_path / "run"
    assert demo.run(experiment, out=run) == 1
    assert "a smaller training.learning_rate may help" in capsys.readouterr().err
    last = training_lines(read(run, "metrics.jsonl"))[-1]
    assert (last["metrics"]["loss"], last["nonfinite"]["loss"]) == (None, "nan")
    [error] = read(run, "errors.jsonl")
    assert (error["error_type"], error["step"]) == ("FloatingPointError", last["step"])


@pytest.mark.usefixtures("in_tmp_path")
def test_without_torch_one_sentence_says_what_to_install(tmp_path: Path) -> None:
    """No traceback: the missing package and the pip command for this interpreter."""
    code = "import sys; sys.modules['torch'] = None; from foundry_fastlog import demo; "
    done = run_python(code + "sys.exit(demo.run())", returncode=1)
    assert done.stdout == ""
    said = re.fullmatch(
        r"error: the demo needs torch, which is not installed\. Run: (.*) -m pip install torch\n",
        done.stderr,
    )
    assert said is not None, done.stderr
    assert Path(shlex.split(said[1])[0]).samefile(sys.executable)
    assert list(tmp_path.iterdir()) == []


def test_the_comparison_times_the_same_steps_on_both_sides(experiment: Path) -> None:
    """Each side has all its steps, and only the recorded side records."""
    result = interleaved_ab(3, 4, load_config(experiment))
    for side in ("on_steps_s", "off_steps_s"):
        assert [len(block) for block in result[side]] == [3] * 4
    assert result["steps"] == result["stats"]["record_calls"] == 12
    assert result["stats"]["timer_calls"] == 12 * 5
    assert result["low"] <= result["ratio"] <= result["high"]
    assert result["block_low"] <= result["block_ratio"] <= result["block_high"]
    assert result["ratio"] == result["on_s"] / result["off_s"]
    assert 0.0 < result["logging_fraction"] < 1.0


@pytest.mark.parametrize(("steps", "blocks"), [(0, 4), (3, 1)])
def test_a_comparison_of_nothing_is_refused(steps: int, blocks: int) -> None:
    with pytest.raises(ValueError, match="at least"):
        interleaved_ab(steps, blocks)
