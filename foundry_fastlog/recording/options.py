"""The options of a recorder: their limits, and their names in the core."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from foundry_fastlog.base.arguments import check_choice, check_number

__all__ = ["CHOICES", "LIMITS", "core_options"]

#: Minimum and maximum. Options in bytes are whole numbers.
LIMITS: dict[str, tuple[float, float]] = {
    "ring_bytes": (64 << 10, 64 << 20),
    "segment_bytes": (4 << 10, 1 << 50),
    "block_timeout_s": (0, 3600),
    "flush_interval_s": (0.001, 3600),
    "overhead_budget": (0, 1),
    "close_timeout_s": (0, 86400),
    "fsync_interval_s": (0.001, 3600),
    "device_timeout_s": (0.001, 86400),
}
CHOICES: dict[str, tuple[str, ...]] = {
    "back_pressure": ("block", "drop"),
    "ring": ("file", "shm", "memory"),
    "fsync": ("none", "interval", "every_flush"),
    "watch_nonfinite": ("none", "device", "all"),
    "on_bad_value": ("warn", "drop", "raise"),
}


def core_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Check options and return the core's, under the core's names.

    Args:
        options: All of `LIMITS` and `CHOICES`, named as in `Recorder`.

    Raises:
        TypeError: An option has the wrong type.
        ValueError: An option is out of range or not one of the choices. The message says what is
            allowed.
    """
    for name, (least, most) in LIMITS.items():
        check_number(name, options[name], least, most, whole=name.endswith("_bytes"))
    for name, choices in CHOICES.items():
        check_choice(name, options[name], choices)
    taken = {n: v if n.endswith("_bytes") or n in CHOICES else float(v) for n, v in options.items()}
    del taken["close_timeout_s"]
    taken["ring_bytes"] = 1 << (options["ring_bytes"] - 1).bit_length()
    taken["block"] = taken.pop("back_pressure") == "block"
    return taken
