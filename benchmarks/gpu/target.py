"""The tensors' device: a CUDA device, or the CPU for the smoke run."""

from __future__ import annotations

import shutil
import subprocess
from typing import Any

import torch

SMOKE = "smoke, no GPU"


class Target:
    """The device of a measurement; the CPU if there is no GPU."""

    def __init__(self, kind: str) -> None:
        """Use the current CUDA device, or the CPU.

        Args:
            kind: "cuda" or "cpu".

        Raises:
            RuntimeError: There is no CUDA device.
        """
        if kind not in ("cuda", "cpu"):
            raise ValueError(f"kind must be 'cuda' or 'cpu', not {kind!r}")
        self.cuda = kind == "cuda"
        if self.cuda and not torch.cuda.is_available():
            raise RuntimeError(
                f"torch {torch.__version__} sees no CUDA device; `--device cpu` runs the smoke mode"
            )
        self.device = torch.device("cuda", torch.cuda.current_device()) if self.cuda else "cpu"
        # Models are bfloat16 on the GPU; the smoke run uses a type that is fast on every CPU.
        self.dtype = torch.bfloat16 if self.cuda else torch.float32
        if not self.cuda:
            torch.set_num_threads(1)

    def synchronize(self) -> None:
        """Wait until the device is idle."""
        if self.cuda:
            torch.cuda.synchronize()

    def stream(self) -> int:
        """Return the handle of the current stream, 0 for the default one."""
        return int(torch.cuda.current_stream().cuda_stream) if self.cuda else 0

    def facts(self) -> dict[str, Any]:
        """Return name, memory, driver and versions."""
        if not self.cuda:
            return {"name": SMOKE, "torch": torch.__version__}
        properties = torch.cuda.get_device_properties(self.device)
        return {
            "name": properties.name,
            "memory_gib": round(properties.total_memory / 2**30, 1),
            "capability": f"{properties.major}.{properties.minor}",
            "multiprocessors": properties.multi_processor_count,
            "torch": torch.__version__,
            "cuda": torch.version.cuda,
            **_driver_facts(getattr(properties, "uuid", None)),
        }


def _driver_facts(uuid: object) -> dict[str, str]:
    """Query nvidia-smi for the driver, the clock and the power limit; {} if it cannot tell.

    Args:
        uuid: The card's UUID from torch (2.4 and later). An index could mean another card if
            CUDA_VISIBLE_DEVICES is set.
    """
    command = shutil.which("nvidia-smi")
    if command is None or uuid is None:
        return {}
    fields = ("driver_version", "clocks.max.sm", "power.limit")
    card = f"GPU-{str(uuid).removeprefix('GPU-')}"
    ask = [command, f"--query-gpu={','.join(fields)}", "--format=csv,noheader", f"--id={card}"]
    try:
        done = subprocess.run(ask, check=False, capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return {}
    values = [value.strip() for value in done.stdout.strip().split(",")]
    return dict(zip(fields, values, strict=True)) if len(values) == len(fields) else {}
