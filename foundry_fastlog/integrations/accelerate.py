"""Hugging Face Accelerate: `FastlogTracker`."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from foundry_fastlog.base.extras import extra
from foundry_fastlog.integrations.adapter import Adapter, Adapting
from foundry_fastlog.recording.recorder import Recorder

with extra("accelerate", "accelerate"):
    from accelerate.state import PartialState
    from accelerate.tracking import GeneralTracker

__all__ = ["FastlogTracker"]


class FastlogTracker(Adapting, GeneralTracker):
    """Records what an `Accelerator` logs: pass it as ``log_with=``.

    The configuration of ``init_trackers()`` is the run's; ``end_training()`` closes the run.

    Attributes:
        main_process_only: Whether the main process alone records.

    Example:
        >>> accelerator = Accelerator(log_with=FastlogTracker("runs/exp0"))  # doctest: +SKIP
        >>> accelerator.init_trackers("exp0", config={"lr": 1e-3})  # doctest: +SKIP
    """

    name = "fastlog"
    requires_logging_directory = False

    def __init__(
        self,
        run_dir: str | os.PathLike[str] | None = None,
        *,
        recorder: Recorder | None = None,
        all_ranks: bool = False,
        **options: Any,  # noqa: ANN401 - Recorder's, which types them
    ) -> None:
        """Note what to record; the run is opened at the first use.

        Args:
            run_dir: The run's directory, unless a recorder is given.
            recorder: The recorder to use; whoever opened it closes it.
            all_ranks: Record in each process, not in the main one alone. Where Accelerate calls
                its trackers in the main one alone, call this one's log() and finish() yourself.
            **options: Options for opening the run, see `Recorder`.

        Raises:
            TypeError: Neither, or both, of directory and recorder.
            NotADirectoryError: The directory, or a part of it, is a file.
        """
        super().__init__()
        self.main_process_only = not all_ranks
        self._adapter = Adapter(
            run_dir, recorder, logger="accelerate", all_ranks=all_ranks, options=options
        )

    @property
    def tracker(self) -> Recorder | None:
        """The run's recorder, as ``get_tracker("fastlog", unwrap=True)`` returns it."""
        return self._adapter.recorder

    def start(self) -> None:
        """Begin the run's next start, if it was closed; it is opened with its configuration."""
        self._adapter.renew()

    def store_init_configuration(self, values: Mapping[str, Any]) -> None:
        """Open the run with its configuration."""
        self._open(values)

    def log(self, values: Mapping[str, Any], step: int | None = None, **kwargs: object) -> None:
        """Record metrics of a step; without one, of the step behind the last."""
        if self._open():
            self._adapter.log(values, step)

    def finish(self) -> None:
        """Close the run."""
        self.close()

    def _open(self, config: Mapping[str, Any] | None = None) -> bool:
        return self._adapter.open(config, main=PartialState().is_main_process)
