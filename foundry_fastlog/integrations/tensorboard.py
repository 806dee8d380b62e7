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

from foundry_fastlog.base.arguments import check_type
from foundry_fastlog.integrations.kept import described, size_of, without_media
from foundry_fastlog.integrations.notices import Notices
from foundry_fastlog.recording.recorder import Recorder
from foundry_fastlog.recording.sharing import acquire, release

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["SummaryWriter"]

#: What is no scalar, by the name of its method: torch's arguments, in its order.
_KINDS = {
    "histogram": "tag values global_step bins walltime max_bins",
    "histogram_raw": (
        "tag min max num sum sum_squares bucket_limits bucket_counts global_step walltime"
    ),
    "image": "tag img_tensor global_step walltime dataformats",
    "images": "tag img_tensor global_step walltime dataformats",
    "image_with_boxes": (
        "tag img_tensor box_tensor global_step walltime rescale dataformats labels"
    ),
    "figure": "tag figure global_step close walltime",
    "video": "tag vid_tensor global_step fps walltime",
    "audio": "tag snd_tensor global_step sample_rate walltime",
    "tensor": "tag tensor global_step walltime",
    "embedding": "mat metadata label_img global_step tag metadata_header",
    "pr_curve": "tag labels predictions global_step num_thresholds weights walltime",
    "pr_curve_raw": (
        "tag true_positive_counts false_positive_counts true_negative_counts"
        " false_negative_counts precision recall global_step num_thresholds weights walltime"
    ),
    "mesh": "tag vertices colors faces config_dict global_step walltime",
}
#: What belongs to no step.
_STEPLESS = {
    "graph": "model input_to_model verbose use_strict_trace",
    "onnx_graph": "prototxt",
    "custom_scalars": "layout",
    "custom_scalars_multilinechart": "tags category title",
    "custom_scalars_marginchart": "tags category title",
}


class SummaryWriter:
    """Records what a `SummaryWriter` is given.

    Each call writes a line of its own. A value without a step has the step after the run's last one
    (TensorBoard has 0). Two writers of one directory share its run. As torch's, a writer that was
    closed opens again when it is given something; that is the run's next start.

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
        self.purge_step, self.max_queue, self.flush_secs = purge_step, max_queue, flush_secs
        self.filename_suffix = filename_suffix
        self._path = Path(log_dir).absolute()  # wherever the script goes
        self._options = options
        self._notices = Notices()
        self._recorder: Recorder | None = None
        if purge_step is not None:
            self.recorder.rewind(purge_step)
        else:
            self._open()

    @property
    def recorder(self) -> Recorder:
        """What it records with; opened again if the writer was closed."""
        recorder = self._recorder
        return self._open() if recorder is None or recorder.closed else recorder

    def _open(self) -> Recorder:
        self._recorder = acquire(self._path, **self._options)
        return self._recorder

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
        self._say(str(text_string), {"tag": tag}, _whole(global_step))

    def add_hparams(
        self,
        hparam_dict: Mapping[str, Any],
        metric_dict: Mapping[str, Any],
        hparam_domain_discrete: object = None,
        run_name: str | None = None,
        global_step: int | None = None,
    ) -> None:
        """Add hyperparameters to the configuration, and record the metrics beside them.

        A message has both, so that each set of several keeps its own.

        Raises:
            TypeError: They are no dicts.
        """
        check_type("hparam_dict", hparam_dict, Mapping, "a mapping")
        check_type("metric_dict", metric_dict, Mapping, "a mapping")
        settings = {name: _plain(value) for name, value in hparam_dict.items()}
        self.recorder.update_config(settings)
        last = self.recorder._last_step()  # noqa: SLF001 - as log() does
        step = max(0, last) if global_step is None else _whole(global_step)
        said = {"hparams": settings, "metrics": dict(metric_dict), "run_name": run_name}
        self._say("Hyperparameters", {key: one for key, one in said.items() if one}, step)
        if metric_dict:
            self._log(metric_dict, step, None)

    def flush(self) -> None:
        """Wait until all is in the files."""
        if self._recorder is not None:
            self._recorder.flush()

    def close(self) -> None:
        """Close the run, unless another writer has it open."""
        recorder, self._recorder = self._recorder, None
        if recorder is not None:
            release(recorder)

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
        if self._recorder is not None:
            self._recorder.ended_by(exc)
        self.close()

    def _log(self, values: Mapping[str, Any], step: int | None, walltime: float | None) -> None:
        self._check_time(walltime)
        kept: dict[str, str] = {}
        plain = without_media(values, kept)
        for tag, text in kept.items():
            self._tell(tag, text)
        self.recorder.log(plain, step=_whole(step))

    def _say(self, message: str, context: Mapping[str, Any], step: int | None = None) -> None:
        self.recorder.event(message, logger="tensorboard", step=step, context=context)

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


def _plain(value: Any) -> Any:  # noqa: ANN401 - a setting
    """Return a setting; a tensor or an array of one element as its number."""
    one = hasattr(value, "item") and described(value) is None
    return value.item() if one else value


def _described(kind: str, value: object) -> str:
    size = "" if isinstance(value, (str, os.PathLike)) else size_of(value)
    return f"{kind} of {size}" if size else kind


def _keeper(kind: str, names: list[str]) -> Callable[..., None]:
    def add(self: SummaryWriter, *arguments: Any, **options: Any) -> None:  # noqa: ANN401 - any
        given = {**dict(zip(names, arguments, strict=False)), **options}
        tag = str(given.get("tag", "default"))  # as torch's add_embedding
        text = _described(kind, given.get(next(name for name in names if name != "tag")))
        self._tell(tag, text)
        self._log({tag: text}, given.get("global_step"), given.get("walltime"))

    return _named(add, kind)


def _stepless(kind: str, names: list[str]) -> Callable[..., None]:
    def add(self: SummaryWriter, *arguments: Any, **options: Any) -> None:  # noqa: ANN401 - any
        given = {**dict(zip(names, arguments, strict=False)), **options}
        text = _described(kind, given.get(names[0]))
        self._tell(kind, text)
        self._say(text, {})

    return _named(add, kind)


def _named(add: Callable[..., None], kind: str) -> Callable[..., None]:
    add.__name__ = f"add_{kind}"
    add.__doc__ = f"Record the class of what torch's `add_{kind}` takes; a warning says so once."
    return add


for _kind, _names in _KINDS.items():
    setattr(SummaryWriter, f"add_{_kind}", _keeper(_kind, _names.split()))
for _kind, _names in _STEPLESS.items():
    setattr(SummaryWriter, f"add_{_kind}", _stepless(_kind, _names.split()))
