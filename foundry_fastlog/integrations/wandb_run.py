"""A run as wandb's interface has it; see `wandb.py`."""

from __future__ import annotations

import contextlib
import os
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from threading import RLock
from types import TracebackType
from typing import TYPE_CHECKING, Any

from foundry_fastlog.base.json_text import safe_str
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
        self._lock = RLock()
        self.project, self.id = project, run_id
        self.entity, self.group = about.get("entity") or "", about.get("group")
        self.job_type = about.get("job_type")
        self._about: dict[str, Any] = {"name": name, "tags": tuple(about.get("tags") or ())}
        self._about["notes"] = about.get("notes")
        self.config = Config(config, self._configure)
        self.summary = Summary({}, self._summarise)
        self.url = self.sweep_id = self.project_url = None
        self.offline, self.disabled = True, recorder is None
        self.settings = Settings()
        self.start_time = time.time()
        self._files: str | None = None
        self._step = self.starting_step = recorder._last_step() + 1 if recorder else 0  # noqa: SLF001 - as log() does
        self.resumed = self.starting_step > 0
        self._system: SystemMetrics | None = None
        if recorder is not None:
            with contextlib.suppress(ImportError):  # psutil is optional
                self._system = SystemMetrics(recorder, _SYSTEM_S, step=lambda: self._step)
                self._system.start()

    def __getstate__(self) -> dict[str, Any]:
        """Pickle for a spawned process, which records beside this one."""
        return {**vars(self), "_lock": None, "_system": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Be the run in another process."""
        self.__dict__.update(state, _lock=RLock())
        self.config = Config(self.config, self._configure)
        self.summary = Summary(self.summary, self._summarise)

    def __copy__(self) -> Self:
        """Return the run itself, as it is one."""
        return self

    def __deepcopy__(self, memo: object) -> Self:
        """Return the run itself."""
        return self

    @property
    def name(self) -> str:
        """Its name, which may change."""
        return str(self._about["name"])

    @name.setter
    def name(self, name: str) -> None:
        self._tell_about("name", str(name))

    @property
    def tags(self) -> tuple[str, ...]:
        """Its tags, which may change."""
        return tuple(self._about["tags"])

    @tags.setter
    def tags(self, tags: Sequence[str]) -> None:
        self._tell_about("tags", (tags,) if isinstance(tags, str) else tuple(tags))

    @property
    def notes(self) -> str | None:
        """Its notes, which may change."""
        notes: str | None = self._about["notes"]
        return notes

    @notes.setter
    def notes(self, notes: str | None) -> None:
        self._tell_about("notes", notes)

    def _tell_about(self, what: str, value: object) -> None:
        """Add to what the configuration says of the run; the rest of it is as it was."""
        self._about[what] = value
        known = {key: one for key, one in self._about.items() if one}
        others = {"entity": self.entity, "group": self.group, "job_type": self.job_type}
        said = {"project": self.project, "id": self.id, **known}
        self._configure({"_wandb": {**said, **{key: one for key, one in others.items() if one}}})

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
        """A directory for files of the script's own: a temporary one, if need be, as wandb's."""
        if self._files is None and self._recorder is not None:
            with contextlib.suppress(OSError):  # told by the recorder
                found = self._recorder.path / "files"
                found.mkdir(parents=True, exist_ok=True)
                self._files = str(found)
        if self._files is None:
            self._files = tempfile.mkdtemp(prefix="wandb-")
        return self._files

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
        given = None if step is None else int(step)
        with self._lock:  # two threads have two steps, as with wandb
            self._log(data, given, commit if commit is not None else step is None)

    def _log(self, data: Mapping[str, Any], step: int | None, commit: bool) -> None:
        at = self._step if step is None else step
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
        if not self._attempt(lambda recorder: recorder.log(values, step=at)):
            return
        self.summary.note(values)
        self._step = max(self._step, at + 1 if commit else at)

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
        if summary is not None:
            self.summary.define(str(name), str(summary))
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

    upsert_artifact = finish_artifact = log_artifact

    def log_model(
        self,
        path: str | os.PathLike[str],
        name: str | None = None,
        aliases: object = None,
    ) -> Artifact:
        """Record a model's file, as `log_artifact` does."""
        return self.log_artifact(path, name, "model")

    link_model = log_model

    def link_artifact(self, artifact: Artifact, *_: object, **__: object) -> Artifact:
        """Record an artifact; there is no registry to link it to."""
        return self.log_artifact(artifact)

    def use_model(self, name: str) -> str:
        """Tell that a model cannot be fetched.

        Raises:
            Error: Always.
        """
        raise Error(f"model {name} cannot be fetched: nothing is asked of wandb")

    def restore(self, name: str, *_: object, **__: object) -> None:
        """Tell that a file cannot be fetched.

        Raises:
            Error: Always.
        """
        raise Error(f"file {name} cannot be fetched: nothing is asked of wandb")

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

    log_code = mark_preempting = display = pin_config_keys = write_logs = unwatch

    def status(self) -> Settings:
        """Return that nothing waits to be sent."""
        return Settings(sync_items_total=0, sync_items_pending=0, sync_time=None)

    def to_html(self, *_: object, **__: object) -> str:
        """Return nothing: there is no page of wandb's."""
        return ""

    def get_url(self) -> None:
        """Return None: the run is at no address."""

    get_project_url = get_sweep_url = get_url

    def project_name(self) -> str:
        """Return the project."""
        return self.project

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
        self._attempt(lambda recorder: recorder.update_config(added))

    def _summarise(self, values: dict[str, Any]) -> None:
        """Record what is set beside the metrics as metrics of their own."""
        known = without_media({"summary": values}, {})
        self._attempt(lambda recorder: recorder.log(known, step=max(0, self._step - 1)))

    def _say(self, message: object, context: dict[str, Any], level: str = "INFO") -> None:
        text = safe_str(message)
        self._attempt(
            lambda recorder: recorder.event(
                text, level=level, logger="wandb", step=self._step, context=context
            )
        )

    def _attempt(self, record: Callable[[Recorder], object]) -> bool:
        """Record, unless the run is disabled; what comes after its end is told."""
        if self._recorder is None:
            return False
        if self._recorder.closed:
            _notices.tell(
                (id(self), "finished"),
                "run %s is finished: what is logged to it is not recorded; call wandb.init(id=%r, "
                "project=%r) to go on with it",
                *(self.id, self.id, self.project),
            )
            return False
        record(self._recorder)
        return True
