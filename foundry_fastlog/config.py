"""Configuration models (pydantic), for experiment files and programs that validate theirs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

if TYPE_CHECKING:
    from foundry_fastlog.recorder import Recorder


class RecorderConfig(BaseModel):
    """The options of a `Recorder`, with its defaults and limits.

    Example:
        >>> RecorderConfig(back_pressure="drop").back_pressure
        'drop'
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    ring_bytes: int = Field(
        default=8 << 20,
        ge=64 << 10,
        le=64 << 20,
        description="Size of the ring in bytes, rounded up to a power of two",
    )
    back_pressure: Literal["block", "drop"] = Field(
        default="block", description="What to do when the ring is full"
    )
    block_timeout_s: float = Field(
        default=1.0, ge=0, le=3600, description="Longest wait for room in the ring, in seconds"
    )
    flush_interval_s: float = Field(
        default=0.1, ge=0.001, le=3600, description="How often the flush thread wakes, in seconds"
    )
    segment_bytes: int = Field(
        default=256 << 20, ge=4096, le=1 << 50, description="Largest size of one JSONL file"
    )
    overhead_budget: float = Field(
        default=0.01, ge=0, le=1, description="Fraction of wall time before one warning"
    )
    close_timeout_s: float = Field(
        default=10.0, ge=0, le=86400, description="Default timeout of flush() and close(), seconds"
    )

    ring: Literal["file", "shm", "memory"] = Field(
        default="file", description="Where the ring lies: a mapped file survives a kill"
    )
    fsync: Literal["none", "interval", "every_flush"] = Field(
        default="interval", description="When lines are forced to the disk, against a power loss"
    )
    fsync_interval_s: float = Field(
        default=1.0, ge=0.001, le=3600, description="Seconds between two of them"
    )

    def open(
        self,
        path: str | Path,
        **facts: Any,  # noqa: ANN401 - handed on to Recorder, which types them
    ) -> Recorder:
        """Open a recorder with these options.

        Args:
            path: The run's directory.
            **facts: ``rank``, ``world_size``, ``config`` and ``name`` of the run, see `Recorder`.

        Returns:
            The open recorder.
        """
        from foundry_fastlog.recorder import Recorder  # the native part only when it is needed

        return Recorder(path, **self.model_dump(), **facts)
