"""TensorBoard: four `SummaryWriter.add_scalar` calls per step (torch.utils.tensorboard)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.utils.tensorboard import SummaryWriter

from benchmarks.peers.base import Loop, Peer, VerificationError
from benchmarks.workload import KEYS, PERIOD, VALUES, Row, float32


class TensorboardScalars(Peer):
    """One scalar per metric, as training scripts do."""

    name = "tensorboard_scalars"
    title = "TensorBoard `SummaryWriter`, four `add_scalar`"
    packages = ("tensorboard", "torch")

    def setup(self, directory: Path) -> Loop:
        """Open the event file."""
        self.writer = writer = SummaryWriter(str(directory))

        def loop(rows: Iterator[Row]) -> None:
            for step, (loss, lr, grad_norm, tokens_per_sec) in rows:
                writer.add_scalar("loss", loss, step)
                writer.add_scalar("lr", lr, step)
                writer.add_scalar("grad_norm", grad_norm, step)
                writer.add_scalar("tokens_per_sec", tokens_per_sec, step)

        return loop

    def settle(self) -> None:
        """Wait until the writer's thread has written its queue."""
        self.writer.flush()

    def finish(self) -> None:
        """Close the event file."""
        self.writer.close()

    def verify(self, directory: Path, count: int) -> None:
        """Read the event file back; TensorBoard keeps float32."""
        events = EventAccumulator(str(directory), size_guidance={"scalars": 0})
        events.Reload()
        for column, key in enumerate(KEYS):
            scalars = events.Scalars(key)
            if [event.step for event in scalars] != list(range(count)):
                raise VerificationError(f"{key}: {len(scalars)} of {count} steps, or not in order")
            for event in scalars:
                if event.value != float32(VALUES[event.step % PERIOD][column]):
                    raise VerificationError(f"{key} of step {event.step} is {event.value}")


PEER = TensorboardScalars
