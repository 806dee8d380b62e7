"""Copies of device scalars by their framework's own means, without waiting for the device."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from foundry_fastlog.values import device_of

__all__ = ["HostCopies", "is_device_scalar"]


def is_device_scalar(value: object) -> bool:
    """Tell whether a value is a tensor of one element that lies on a device."""
    return device_of(value) is not None and all(n == 1 for n in getattr(value, "shape", (0,)))


class HostCopies:
    """Copies of some scalars to the host, under way behind what is on their current streams.

    Attributes:
        tensors: The copies, in order; to be read once `arrived` says so.
    """

    def __init__(self, scalars: Sequence[Any]) -> None:
        """Begin to copy.

        Args:
            scalars: Tensors of torch, of one element each.

        Raises:
            Exception: What torch raises.
        """
        torch = sys.modules["torch"]
        self.tensors = [scalar.detach().to("cpu", non_blocking=True) for scalar in scalars]
        self._events = []
        for device in dict.fromkeys(scalar.device for scalar in scalars):
            # torch.Event came after torch 2.4; before, each kind of device has a module of its own.
            make = getattr(torch, "Event", None)
            event = getattr(torch, device.type).Event() if make is None else make(device)
            if device.type == "cuda":
                event.record(torch.cuda.current_stream(device))
            else:
                event.record()
            self._events.append(event)

    def arrived(self) -> bool:
        """Tell whether all of them are there; asks the devices, and does not wait.

        Raises:
            Exception: What torch raises when a device has failed.
        """
        while self._events and self._events[-1].query():
            self._events.pop()
        return not self._events
