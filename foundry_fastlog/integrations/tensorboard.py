"""The interface of `torch.utils.tensorboard.SummaryWriter`, recording into a run of this package.

    from foundry_fastlog.integrations.tensorboard import SummaryWriter

    writer = SummaryWriter("runs/exp0")
    writer.add_scalar("train/loss", loss, step)

The run is the directory that TensorBoard would read. Scalars keep all their digits (an event file
has 32 bits of each), texts are messages, and hyperparameters belong to the configuration. Of
images, histograms and whatever else is no scalar, the tag and the class are recorded, and a warning
says so once for each tag. See docs/dropins.md.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from foundry_fastlog.integrations.kept import size_of, without_media
from foundry_fastlog.integrations.notices import Notices
from foundry_fastlog.recording.recorder import Recorder

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["SummaryWriter"]

#: What is no scalar, by the name of its method, and where among its arguments the step is.
_KINDS: dict[str, int | None] = {
    **dict.fromkeys(("histogram", "image", "images", "figure", "video", "audio", "tensor"), 2),
    **dict.fromkeys(("image_with_boxes", "pr_curve", "embedding"), 3),
    "mesh": 5,
    "pr_curve_raw": 7,
    "histogram_raw": 8,
    **dict.fromkeys(("graph", "onnx_graph", "custom_scalars"), None),
    **dict.fromkeys(("custom_scalars_multilinechart", "custom_scalars_marginchart"), None),
}


class SummaryWriter:
    """Records what a `SummaryWriter` is given.

    Each call writes a line of its own. A value without a step has the step after the run's last one
    (TensorBoard has 0).

    Args:
        log_dir: The run's directory. Default: ``runs/DATE_HOST`` and the comment.
        comment: Ends the default directory's name.
        purge_step: The step at which a program goes on that was stopped. Of each metric, what was
            recorded before no longer counts from the first step at which it is recorded again.
        max_queue: Without an effect: a killed process loses nothing.
        flush_secs: Likewise.
        filename_suffix: Likewise.
        **options: For `Recorder`, such as ``config``.

    Attributes:
        log_dir: The run's directory.
        recorder: What it records with.
    """

    def __init__(
        self,
        log_dir: str | os.PathLike[str] | None = None,
        comment: str = "",
        purge_step: int | None = None,
        max_queue: int = 10,
        flush_secs: int = 120,
        filename_suffix: str = "",
        **options: Any,  # noqa: ANN401 - the recorder's
    ) -> None:
        if not log_dir:
            now = datetime.now().strftime("%b%d_%H-%M-%S")  # noqa: DTZ005 - as torch's
            log_dir = Path("runs", f"{now}_{socket.gethostname()}{comment}")
        self.log_dir = os.fspath(log_dir)
        self.recorder = Recorder(log_dir, **options)
        self._notices = Notices()
        if purge_step is not None:
            self.recorder.rewind(purge_step)

    def get_logdir(self) -> str:
        """Return the run's directory."""
        return self.log_dir

    def add_scalar(
        self,
        tag: str,
        scalar_value: Any,  # noqa: ANN401 - whatever log() takes
        global_step: int | None = None,
        walltime: float | None = None,
        new_style: bool = False,
        double_precision: bool = False,
    ) -> None:
        """Record a value.

        Args:
            tag: Its name.
            scalar_value: A number, or a tensor or array of one element. A value on a GPU is not
                waited for.
            global_step: Its step.
            walltime: Without an effect: lines have the time at which they are recorded.
            new_style: Without an effect.
            double_precision: Without an effect: all digits are kept.
        """
        self._log({tag: scalar_value}, global_step, walltime)

    def add_scalars(
        self,
        main_tag: str,
        tag_scalar_dict: Mapping[str, Any],
        global_step: int | None = None,
        walltime: float | None = None,
    ) -> None:
        """Record several values, as ``main_tag/tag``."""
        values = {f"{main_tag}/{tag}": value for tag, value in tag_scalar_dict.items()}
        self._log(values, global_step, walltime)

    def add_text(
        self,
        tag: str,
        text_string: str,
        global_step: int | None = None,
        walltime: float | None = None,
    ) -> None:
        """Record a message; the tag is among its fields."""
        self._check_time(walltime)
        self.recorder.event(
            str(text_string), logger="tensorboard", step=_whole(global_step), context={"tag": tag}
        )

    def add_hparams(
        self,
        hparam_dict: Mapping[str, Any],
        metric_dict: Mapping[str, Any],
        hparam_domain_discrete: object = None,
        run_name: str | None = None,
        global_step: int | None = None,
    ) -> None:
        """Add hyperparameters to the configuration, and record the metrics beside them."""
        self.recorder.update_config(dict(hparam_dict))
        if metric_dict:
            last = self.recorder._last_step()  # noqa: SLF001 - as log() does
            self._log(metric_dict, max(0, last) if global_step is None else global_step, None)

    def flush(self) -> None:
        """Wait until all is in the files."""
        self.recorder.flush()

    def close(self) -> None:
        """Close the run."""
        self.recorder.close()

    def __enter__(self) -> Self:
        """Return the writer itself."""
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close the run; exceptions propagate."""
        self.recorder.ended_by(exc)
        self.close()

    def _log(self, values: Mapping[str, Any], step: int | None, walltime: float | None) -> None:
        self._check_time(walltime)
        kept: dict[str, str] = {}
        plain = without_media(values, kept)
        for tag, text in kept.items():
            self._tell(tag, text)
        self.recorder.log(plain, step=_whole(step))

    def _keep(self, kind: str, tag: str, value: object, step: int | None) -> None:
        """Record the class of a value that is no scalar."""
        size = size_of(value)
        text = f"{kind} of {size}" if size else kind
        self._tell(tag, text)
        self.recorder.log({tag: text}, step=_whole(step))

    def _tell(self, tag: str, text: str) -> None:
        self._notices.tell(tag, "of %r only its class is recorded: %s", tag, text)

    def _check_time(self, walltime: float | None) -> None:
        if walltime is not None:
            self._notices.tell(
                "walltime", "walltime is not kept: lines have the time at which they are recorded"
            )


def _whole(step: object) -> int | None:
    """Return a step as an int: arrays and tensors of one element are taken, too."""
    return None if step is None else int(step)  # type: ignore[call-overload]


def _keeper(kind: str, place: int | None) -> Callable[..., None]:
    def add(self: SummaryWriter, *arguments: Any, **options: Any) -> None:  # noqa: ANN401 - any
        texts = [one for one in (options.get("tag"), *arguments[:1]) if isinstance(one, str)]
        values = [one for one in (*arguments[:2], *options.values()) if size_of(one)]
        step = options.get("global_step")
        if step is None and place is not None and len(arguments) > place:
            step = arguments[place]
        value = next((one for one in values if not isinstance(one, str)), None)
        self._keep(kind, texts[0] if texts else kind, value, step)

    add.__name__ = f"add_{kind}"
    add.__doc__ = f"Record the tag of what torch's `add_{kind}` takes; a warning says so once."
    return add


for _kind, _place in _KINDS.items():
    setattr(SummaryWriter, f"add_{_kind}", _keeper(_kind, _place))
