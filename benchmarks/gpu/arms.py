"""The arms of the A/B: ways to log a step with four device scalars and a float.

Each is written as its users would write it. After the clock has stopped, an arm's files are
compared with its input: every step, in order, with the device's value.
"""

from __future__ import annotations

import abc
import os
from collections.abc import Iterable, Iterator
from importlib import metadata
from pathlib import Path
from typing import Any, ClassVar

import torch

import foundry_fastlog
from benchmarks.gpu.bare import BareCopies
from benchmarks.gpu.model import KEYS, Scalars
from benchmarks.peers.base import VerificationError, json_lines
from benchmarks.peers.fastlog import check_accounting, metric_files
from benchmarks.workload import float32
from foundry_fastlog import Recorder

Row = tuple[float, ...]
"""The values of a step, in the order of `KEYS`."""


class Arm(abc.ABC):
    """One way to log; life cycle: `open`, any number of `log` and `settle`, `close`, `verify`."""

    name: ClassVar[str]
    title: ClassVar[str]
    packages: ClassVar[tuple[str, ...]] = ()
    """Distributions whose versions are reported."""

    def __init__(self) -> None:
        self.given: list[Row] = []
        """The device's values, in step order; filled off the clock."""
        self.step = 0
        self.inside_ns = 0.0
        """Time in the calls by the arm's own clock; 0: use the caller's clock."""

    @abc.abstractmethod
    def open(self, directory: Path) -> None:
        """Open the output under `directory`.

        Raises:
            ImportError: A dependency of the arm is not installed.
        """

    @abc.abstractmethod
    def log(self, step: int, scalars: Scalars, lr: float) -> None:
        """Log one step; this call is what is measured."""

    def settle(self) -> None:
        """Wait until the backlog is written, if the arm can tell; off the clock."""
        return

    @abc.abstractmethod
    def close(self) -> None:
        """Close the output; on return, every step is complete in it."""

    @abc.abstractmethod
    def verify(self, directory: Path) -> None:
        """Compare the output with `given`.

        Raises:
            VerificationError: A step is missing, out of place or has another value.
        """

    @classmethod
    def versions(cls) -> dict[str, str]:
        """Return the versions of this arm's distributions."""
        return {package: metadata.version(package) for package in cls.packages}


def check_rows(found: Iterable[tuple[int, Row]], given: list[Row]) -> None:
    """Check that `found` are steps 0.. in order with the values `given`.

    Raises:
        VerificationError: They are not.
    """
    count = 0
    for count, (step, row) in enumerate(found, start=1):
        if step != count - 1 or count > len(given):
            raise VerificationError(f"line {count - 1} is step {step} of {len(given)}")
        if row != given[step]:
            raise VerificationError(f"step {step} has {row}, the device had {given[step]}")
    if count != len(given):
        raise VerificationError(f"{count} of {len(given)} steps are in the output")


class Nothing(Arm):
    """No logging: the baseline."""

    name = "none"
    title = "no logging"

    def open(self, directory: Path) -> None:
        """Open nothing."""

    def log(self, step: int, scalars: Scalars, lr: float) -> None:
        """Log nothing."""

    def close(self) -> None:
        """Close nothing."""

    def verify(self, directory: Path) -> None:
        """Do nothing: there is no output."""


class NothingAgain(Nothing):
    """No logging, measured again: the difference from the first is the noise."""

    name = "none_again"
    title = "no logging, measured again (the noise)"


class Bare(Arm):
    """Four bare copies and an event record through the driver, in C: the floor in the same loop.

    Like every driver call, they may wait for room in its queue. They are timed in C, so that no
    Python is included.
    """

    name = "bare"
    title = "four bare `cuMemcpyDtoHAsync`, one event record"

    def open(self, directory: Path) -> None:
        """Store where to build the helper, which needs the context of the first step."""
        self.directory = directory
        self.copies: BareCopies | None = None
        self.last: Row = ()

    def log(self, step: int, scalars: Scalars, lr: float) -> None:
        """Start the copies."""
        self.tensors = (scalars.loss, scalars.grad_norm, scalars.loss_max, scalars.loss_std)
        if self.copies is None:
            cuda = scalars.loss.is_cuda
            self.copies = BareCopies(self.directory, driver=cuda)
            self.stream = torch.cuda.current_stream().cuda_stream if cuda else 0
        pointers = [tensor.data_ptr() for tensor in self.tensors]
        sizes = [tensor.element_size() for tensor in self.tensors]
        self.inside_ns += self.copies.time(pointers, sizes, self.stream, 1)

    def settle(self) -> None:
        """Read the last step's values; the device is idle."""
        if self.copies is not None:
            raw = self.copies.last(len(self.tensors))
            self.last = tuple(
                torch.frombuffer(bytearray(each), dtype=tensor.dtype)[0].item()
                for each, tensor in zip(raw, self.tensors, strict=True)
            )

    def close(self) -> None:
        """Do nothing: memory and events live as long as the process."""

    def verify(self, directory: Path) -> None:
        """Compare the last step; earlier ones were overwritten."""
        if self.given and self.last != self.given[-1][: len(self.last)]:
            raise VerificationError(f"the copies returned {self.last}, not {self.given[-1]}")


class Fastlog(Arm):
    """This package with device scalars as they are and default settings."""

    name = "fastlog"
    title = "**foundry_fastlog** `record(step, loss=loss, ...)`"
    packages = ("foundry-fastlog",)

    def open(self, directory: Path) -> None:
        """Open a run."""
        self.recorder = Recorder(directory / "run")
        self.record = self.recorder.record

    def log(self, step: int, scalars: Scalars, lr: float) -> None:
        """Record the tensors."""
        self.record(
            step,
            loss=scalars.loss,
            grad_norm=scalars.grad_norm,
            loss_max=scalars.loss_max,
            loss_std=scalars.loss_std,
            lr=lr,
        )

    def settle(self) -> None:
        """Flush."""
        if not self.recorder.flush(timeout=60.0):
            raise VerificationError("flush() timed out")

    def close(self) -> None:
        """Close the run."""
        if not self.recorder.close(timeout=60.0):
            raise VerificationError("close() timed out")
        self.stats: dict[str, Any] = {**self.recorder.stats()}

    def verify(self, directory: Path) -> None:
        """Check counters and lines."""
        check_accounting(self.stats, len(self.given))
        check_rows(self._rows(directory / "run"), self.given)

    @staticmethod
    def _rows(run: Path) -> Iterator[tuple[int, Row]]:
        """Yield step and values of each line; check that nothing is missing."""
        for path in metric_files(run):
            for line in json_lines(path):
                if "missing" in line or "nonfinite" in line:
                    raise VerificationError(f"a line without a value: {line}")
                yield line["step"], tuple(line["metrics"][key] for key in KEYS)

    @classmethod
    def versions(cls) -> dict[str, str]:
        """Return the version of the imported package."""
        return {"foundry-fastlog": foundry_fastlog.__version__}


class FastlogItem(Fastlog):
    """This package, given floats: `.item()` waits for the device at each value."""

    name = "fastlog_item"
    title = "foundry_fastlog, `.item()` each step"

    def log(self, step: int, scalars: Scalars, lr: float) -> None:
        """Read the values, then record them."""
        self.record(
            step,
            loss=scalars.loss.item(),
            grad_norm=scalars.grad_norm.item(),
            loss_max=scalars.loss_max.item(),
            loss_std=scalars.loss_std.item(),
            lr=lr,
        )


class Wandb(Arm):
    """wandb in offline mode, without system statistics, console capture and git look-up."""

    name = "wandb"
    title = "wandb offline, `.item()` each step"
    packages = ("wandb",)

    def open(self, directory: Path) -> None:
        """Start a run and its service process."""
        os.environ.update(WANDB_MODE="offline", WANDB_SILENT="true", WANDB_DISABLE_GIT="true")
        import wandb

        settings = wandb.Settings(x_disable_stats=True, x_disable_meta=True, console="off")
        self.run = wandb.init(
            project="bench", dir=str(directory), mode="offline", settings=settings
        )

    def log(self, step: int, scalars: Scalars, lr: float) -> None:
        """Read the values, then log them."""
        self.run.log(
            {
                "loss": scalars.loss.item(),
                "grad_norm": scalars.grad_norm.item(),
                "loss_max": scalars.loss_max.item(),
                "loss_std": scalars.loss_std.item(),
                "lr": lr,
            },
            step=step,
        )

    def close(self) -> None:
        """Finish the run; the service has then written its file."""
        self.run.finish()

    def verify(self, directory: Path) -> None:
        """Decode the run file."""
        from benchmarks.peers.wandb_offline import finished, history

        (path,) = directory.glob("wandb/offline-run-*/*.wandb")
        found = history(finished(path))
        check_rows(((step, tuple(row[key] for key in KEYS)) for step, row in found), self.given)


class Tensorboard(Arm):
    """Five `SummaryWriter.add_scalar` calls per step."""

    name = "tensorboard"
    title = "TensorBoard `SummaryWriter`, `.item()` each step"
    packages = ("tensorboard",)

    def open(self, directory: Path) -> None:
        """Open the event file."""
        from torch.utils.tensorboard import SummaryWriter

        self.writer = SummaryWriter(str(directory))

    def log(self, step: int, scalars: Scalars, lr: float) -> None:
        """Read and write value by value."""
        writer = self.writer
        writer.add_scalar("loss", scalars.loss.item(), step)
        writer.add_scalar("grad_norm", scalars.grad_norm.item(), step)
        writer.add_scalar("loss_max", scalars.loss_max.item(), step)
        writer.add_scalar("loss_std", scalars.loss_std.item(), step)
        writer.add_scalar("lr", lr, step)

    def settle(self) -> None:
        """Wait until the writer's thread has written its queue."""
        self.writer.flush()

    def close(self) -> None:
        """Close the event file."""
        self.writer.close()

    def verify(self, directory: Path) -> None:
        """Read the event file back; TensorBoard keeps float32."""
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

        events = EventAccumulator(str(directory), size_guidance={"scalars": 0})
        events.Reload()
        columns = [events.Scalars(key) for key in KEYS]
        steps = [[event.step for event in column] for column in columns]
        if any(column != steps[0] for column in steps):
            raise VerificationError("the keys have different steps")
        rows = zip(*([event.value for event in column] for column in columns), strict=True)
        given = [tuple(float32(value) for value in row) for row in self.given]
        check_rows(zip(steps[0], rows, strict=True), given)


ARMS: dict[str, type[Arm]] = {
    arm.name: arm for arm in (Nothing, NothingAgain, Bare, Fastlog, FastlogItem, Wandb, Tensorboard)
}
