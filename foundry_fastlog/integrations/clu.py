"""Common Loop Utils, as Flax examples use them: `FastlogWriter`."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from foundry_fastlog.base.extras import extra
from foundry_fastlog.integrations.adapter import Adapter, Adapting
from foundry_fastlog.integrations.kept import size_of
from foundry_fastlog.integrations.notices import Notices
from foundry_fastlog.recording.recorder import Recorder

with extra("clu", "clu", "jax", "tensorflow"):
    import jax
    from clu.metric_writers.interface import MetricWriter

__all__ = ["FastlogWriter"]


class FastlogWriter(Adapting, MetricWriter):
    """Records what is written to a `MetricWriter`, alone or in a `MultiWriter` or `AsyncWriter`.

    Hyperparameters become the configuration, if they are written first, texts messages. Of images,
    histograms and the like the name and the size are recorded, with one warning each.

    Example:
        >>> with FastlogWriter("runs/exp0") as writer:  # doctest: +SKIP
        ...     writer.write_scalars(step, {"loss": loss})
    """

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
            all_ranks: Record in each process, not in that of `jax.process_index()` 0 alone.
            **options: Options for opening the run, see `Recorder`.

        Raises:
            TypeError: Neither, or both, of directory and recorder, or an option that is none.
            NotADirectoryError: The directory, or a part of it, is a file.
        """
        super().__init__()
        self._notices = Notices()
        self._adapter = Adapter(
            run_dir, recorder, logger="clu", all_ranks=all_ranks, options=options
        )

    def write_scalars(self, step: int, scalars: Mapping[str, Any]) -> None:
        """Record metrics of a step; arrays of JAX are waited for, as CLU's own writers do."""
        if self._open():
            self._adapter.log({name: _at_hand(value) for name, value in scalars.items()}, step)

    def write_texts(self, step: int, texts: Mapping[str, str]) -> None:
        """Leave a message for each text, with its name as ``tag``."""
        if self._open():
            for name, text in texts.items():
                self._adapter.say(str(text), {"tag": name}, step=step)

    def write_hparams(self, hparams: Mapping[str, Any]) -> None:
        """Record hyperparameters: as the run's configuration, or as a message if it is open."""
        self._open(hparams)

    def write_summaries(
        self, step: int, values: Mapping[str, Any], metadata: Mapping[str, Any] | None = None
    ) -> None:
        """Record names and sizes of tensors."""
        self._keep("summary", step, values)

    def write_images(self, step: int, images: Mapping[str, Any]) -> None:
        """Record names and sizes of images."""
        self._keep("images", step, images)

    def write_videos(self, step: int, videos: Mapping[str, Any]) -> None:
        """Record names and sizes of videos."""
        self._keep("videos", step, videos)

    def write_audios(self, step: int, audios: Mapping[str, Any], *, sample_rate: int) -> None:
        """Record names and sizes of sounds."""
        self._keep("audios", step, audios)

    def write_histograms(
        self, step: int, arrays: Mapping[str, Any], num_buckets: Mapping[str, int] | None = None
    ) -> None:
        """Record names and sizes of arrays."""
        self._keep("histogram", step, arrays)

    def flush(self) -> None:
        """Wait until all is in the files."""
        if self._adapter.recorder is not None:
            self._adapter.recorder.flush()

    def _keep(self, kind: str, step: int, values: Mapping[str, Any]) -> None:
        if not self._open():
            return
        texts = {name: f"{kind} of {size_of(value)}" for name, value in values.items()}
        for name, text in texts.items():
            self._notices.tell(name, "of %r only its class is recorded: %s", name, text)
        self._adapter.log(texts, step)

    def _open(self, config: Mapping[str, Any] | None = None) -> bool:
        return self._adapter.open(config, main=jax.process_index() == 0)


def _at_hand(value: Any) -> Any:  # noqa: ANN401 - whatever a trainer writes
    """Return what an array of JAX has, wherever it is."""
    if not isinstance(value, jax.Array):
        return value
    try:
        return jax.device_get(value)
    except Exception:  # noqa: BLE001 - deleted, or on other hosts: it is left out with a warning
        return value
