"""The pictures of the documentation: `python docs/pictures.py` records runs and draws them anew.

Each function below draws one, into the file of docs/pictures/ that has its name. To add a picture,
write a function that takes the directory of the runs and the file to write, decorated with
`picture`.
"""

from __future__ import annotations

import math
import random
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from PIL import Image

from foundry_fastlog import Recorder, plot_runs, read_run

HERE = Path(__file__).parent / "pictures"
Draw = Callable[[Path, Path], None]
PICTURES: dict[str, Draw] = {}


def picture(suffix: str) -> Callable[[Draw], Draw]:
    """Register a picture, with the suffix of its file."""

    def register(draw: Draw) -> Draw:
        PICTURES[f"{draw.__name__}{suffix}"] = draw
        return draw

    return register


def steps(recorder: Recorder, lr: float, seed: int, count: range) -> Iterator[tuple[int, float]]:
    """Train nothing: yield steps with a loss as a small language model has it."""
    chance = random.Random(seed)
    for step in count:
        with recorder.timer("step", step=step):
            fall = 7.3 * math.exp(-((step * lr * 40) ** 0.7) / 9)
            yield step, 2.9 + fall + 0.25 * lr * 100 + chance.gauss(0, 0.12)


def record(runs: Path) -> None:
    """Record the runs that the pictures show."""
    for lr in (0.001, 0.003):
        for seed in (0, 1, 2):
            config = {"model": {"layers": 12, "width": 768}, "lr": lr, "seed": seed}
            path = runs / f"lr{lr}-seed{seed}"
            with Recorder(path, config=config) as recorder:
                for step, loss in steps(recorder, lr, seed, range(2000)):
                    recorder.record(step, loss=loss + seed * 0.25, lr=lr)
                    if step % 100 == 99:
                        recorder.record(step, val_loss=loss + 0.15, val_accuracy=0.6 - loss / 12)
    config = {"model": {"layers": 12, "width": 768}, "lr": 0.002, "seed": 7}
    for begin, end in ((0, 1200), (900, 2000)):  # the second start resumes from a checkpoint
        with Recorder(runs / "resumed", config=config) as recorder:
            for step, loss in steps(recorder, 0.002, begin, range(begin, end)):
                value = math.nan if 1500 <= step < 1503 else loss + (4.0 if step == 1350 else 0.0)
                recorder.record(step, loss=value, grad_norm=abs(value) / 3)
                if step % 300 == 0 and step > begin:
                    with recorder.timer("checkpoint", step=step):
                        pass


@picture(".png")
def run(runs: Path, file: Path) -> None:
    """Draw one run: the losses on the same axes."""
    read_run(runs / "lr0.003-seed0").plot(smooth=0.9).savefig(file)


@picture(".png")
def resumed(runs: Path, file: Path) -> None:
    """Draw a spike of a single step, NaN, and a second start."""
    read_run(runs / "resumed").plot("loss", checkpoints=True).savefig(file)


@picture(".png")
def seeds(runs: Path, file: Path) -> None:
    """Draw the mean over seeds, with its standard error."""
    paths = sorted(runs.glob("lr*"))
    plot_runs(paths, "loss", group_by="config.lr", smooth=0.8, log_y=True).savefig(file)


@picture(".png")
def several(runs: Path, file: Path) -> None:
    """Draw several runs and metrics, a panel each."""
    paths = sorted(runs.glob("lr*-seed[01]"))
    plot_runs(paths, ["loss", "val_*"], smooth=0.9).savefig(file)


def main(names: list[str]) -> None:
    """Draw the pictures of these names, or all."""
    HERE.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        runs = Path(folder) / "runs"
        record(runs)
        for name, draw in PICTURES.items():
            if not names or Path(name).stem in names:
                draw(runs, HERE / name)
                if name.endswith(".png"):  # curves and their shades have few colours
                    Image.open(HERE / name).quantize(96).save(HERE / name, optimize=True)


if __name__ == "__main__":
    main(sys.argv[1:])
