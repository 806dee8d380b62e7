"""A run as wandb's interface has it; see `wandb.py`."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from foundry_fastlog.integrations.kept import without_media
from foundry_fastlog.integrations.notices import Notices
from foundry_fastlog.integrations.wandb_types import (
    AlertLevel,
    Artifact,
    Config,
    Error,
    Metric,
    Settings,
    Summary,
)
from foundry_fastlog.machine.sampler import SystemMetrics

if TYPE_CHECKING:
    from typing_extensions import Self

    from foundry_fastlog.recording.recorder import Recorder

__all__ = ["Run"]

_SYSTEM_S = 15.0  # between figures of the machine, as wandb's

_notices = Notices()


class Run:
    """What `init` returns.

    Args:
        recorder: Where it records; None if it is disabled.
        project: Its project.
        run_id: Its id.
        name: Its name.
        config: Its configuration.
        about: What wandb says of a run beside it: ``entity``, ``group``, ``tags``, ``notes``,
            ``job_type``.
        closed: Called with it when it is closed.
    """

    def __init__(
        self,
        recorder: Recorder | None,
        project: str,
        run_id: str,
        name: str,
        config: Mapping[str, Any],
        about: Mapping[str, Any],
        closed: Callable[[Run], object],
    ) -> None:
        self._closed = closed
        self._recorder = recorder
        self.project, self.id, self.name = project, run_id, name
        self.entity, self.group = about.get("entity") or "", about.get("group")
        self.tags, self.notes = tuple(about.get("tags") or ()), about.get("notes")
        self.job_type = about.get("job_type")
        self.config = Config(config, self._configure)
        self.summary = Summary({}, self._summarise)
        self.url = self.sweep_id = self.project_url = None
        self.offline, self.disabled = True, recorder is None
        self.settings = Settings()
        self._step = self.starting_step = recorder._last_step() + 1 if recorder else 0  # noqa: SLF001 - as log() does
        self.resumed = self.starting_step > 0
        self._system: SystemMetrics | None = None
        if recorder is not None:
            with contextlib.suppress(ImportError):  # psutil is optional
                self._system = SystemMetrics(recorder, _SYSTEM_S, step=lambda: self._step)
                self._system.start()

    @property
    def step(self) -> int:
        """The step that the next call of `log` without one has."""
        return self._step

    @property
    def path(self) -> str:
        """Project and id."""
        return f"{self.entity}/{self.project}/{self.id}".lstrip("/")

    @property
    def dir(self) -> str:
        """A directory for files of the script's own."""
        if self._recorder is None:
            return os.devnull
        found = self._recorder.path / "files"
        found.mkdir(parents=True, exist_ok=True)
        return str(found)

    def log(
        self,
        data: Any,  # noqa: ANN401 - checked
        step: int | None = None,
        commit: bool | None = None,
        **_: object,
    ) -> None:
        """Record values.

        Args:
            data: Values by name, which may be nested (``outer.inner``).
            step: Their step. Default: the one after the last that was committed.
            commit: Whether the next call without a step has the next one. Default: whether `step`
                is not given.
            **_: Of earlier versions of wandb.
        """
        if self._recorder is None:
            return
        if not isinstance(data, Mapping):
            kind = type(data).__name__
            _notices.tell("data", "wandb.log takes a dict of values, got %s: it is ignored", kind)
            return
        at = self._step if step is None else int(step)
        if at < self._step:
            _notices.tell(
                "back",
                "step %d came after %d: wandb would drop it, here it is recorded",
                at,
                self._step,
            )
        kept: dict[str, str] = {}
        values = without_media(data, kept)
        for name, text in kept.items():
            _notices.tell((id(self), name), "of %r only its class is recorded: %s", name, text)
        self._recorder.log(values, step=at)
        self.summary.note(data)
        self._step = max(self._step, at)
        if commit if commit is not None else step is None:
            self._step = max(self._step, at + 1)

    def define_metric(
        self,
        name: str,
        step_metric: str | Metric | None = None,
        step_sync: bool | None = None,
        hidden: bool | None = None,
        summary: str | None = None,
        goal: str | None = None,
        **_: object,
    ) -> Metric:
        """Note which metric another one is drawn over; any metric can be an x axis here."""
        axis = step_metric.name if isinstance(step_metric, Metric) else step_metric
        asked = {"step_metric": axis, "summary": summary, "goal": goal}
        said = {key: value for key, value in asked.items() if value is not None}
        self._say("Metric defined", {"name": name, **said})
        return Metric(name, **{**asked, "step_sync": step_sync, "hidden": hidden})

    def alert(
        self, title: str, text: str = "", level: str | AlertLevel | None = None, **_: object
    ) -> None:
        """Record a message."""
        word = level.value if isinstance(level, AlertLevel) else str(level or "INFO").upper()
        known = {"WARN": "WARNING"}.get(word, word)
        self._say(title, {"text": text}, known if known in ("WARNING", "ERROR") else "INFO")

    def log_artifact(
        self,
        artifact_or_path: Artifact | str | os.PathLike[str],
        name: str | None = None,
        type: str | None = None,  # noqa: A002 - as wandb's
        **_: object,
    ) -> Artifact:
        """Record the name, the kind and the files of an artifact; the files stay where they are."""
        if isinstance(artifact_or_path, Artifact):
            artifact = artifact_or_path
        else:
            artifact = Artifact(name or Path(artifact_or_path).name, type or "unspecified")
            artifact.add_file(os.fspath(artifact_or_path))
        said = {"name": artifact.name, "type": artifact.type, "files": artifact.files}
        self._say("Artifact", {**said, "metadata": artifact.metadata})
        _notices.tell(
            (id(self), "artifact", artifact.name),
            "artifact %s: its files stay where they are, and are not copied into the run",
            artifact.name,
        )
        return artifact

    log_model = upsert_artifact = log_artifact

    def use_artifact(self, artifact_or_name: Artifact | str, *_: object, **__: object) -> Artifact:
        """Record that an artifact was used.

        Raises:
            Error: It is to be fetched by its name.
        """
        if not isinstance(artifact_or_name, Artifact):
            raise Error(f"artifact {artifact_or_name} cannot be fetched: nothing is asked of wandb")
        self._say("Artifact used", {"name": artifact_or_name.name, "type": artifact_or_name.type})
        return artifact_or_name

    def save(self, glob_str: object = None, *_: object, **__: object) -> list[str]:
        """Record which files were to be kept; they stay where they are."""
        self._say("Files to keep", {"files": str(glob_str)})
        return []

    def watch(self, *_: object, **__: object) -> None:
        """Say that gradients and parameters are not recorded by themselves."""
        _notices.tell("watch", "wandb.watch is not recorded: log the norms that you want to see")

    def unwatch(self, *_: object, **__: object) -> None:
        """Do nothing."""

    log_code = mark_preempting = display = unwatch

    def finish(self, exit_code: int | None = None, **_: object) -> None:
        """Close the run.

        Args:
            exit_code: Of the program; the run counts as failed if it is not 0.
            **_: Of earlier versions of wandb.
        """
        if self._system is not None:
            self._system.stop()
        if self._recorder is not None and not self._recorder.closed:
            if exit_code:
                self._recorder.ended_by(SystemExit(exit_code))
            self._recorder.close()
        self._closed(self)

    def __enter__(self) -> Self:
        """Return the run itself."""
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close the run; exceptions propagate."""
        if self._recorder is not None and not self._recorder.closed:
            self._recorder.ended_by(exc)
        self.finish()

    def _configure(self, added: dict[str, Any]) -> None:
        if self._recorder is not None:
            self._recorder.update_config(added)

    def _summarise(self, values: dict[str, Any]) -> None:
        """Record what is set beside the metrics as metrics of their own."""
        if self._recorder is not None:
            known = without_media({"summary": values}, {})
            self._recorder.log(known, step=max(0, self._step - 1))

    def _say(self, message: str, context: dict[str, Any], level: str = "INFO") -> None:
        if self._recorder is not None:
            self._recorder.event(
                message, level=level, logger="wandb", step=self._step, context=context
            )
