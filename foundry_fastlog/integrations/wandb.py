"""The interface of wandb: a script that changes its import line alone records into a run.

    import foundry_fastlog.integrations.wandb as wandb

    wandb.init(project="gpt", config={"lr": 1e-4})
    wandb.log({"loss": 2.5})

Nothing is sent, and no account is needed. The run is in ``DIR/PROJECT/ID``, where DIR is ``dir=``,
``WANDB_DIR`` or ``runs``; ``entity``, ``group``, ``tags``, ``notes`` and ``job_type`` are in its
configuration below ``_wandb``. Of media, artifacts and whatever else is no scalar, the name and the
class are recorded, and a warning says so once for each name. See docs/dropins.md.
"""

from __future__ import annotations

import os
import random
import re
import string
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from foundry_fastlog.integrations.wandb_run import Run
from foundry_fastlog.integrations.wandb_types import (
    MEDIA,
    AlertLevel,
    Artifact,
    CommError,
    Config,
    Error,
    Metric,
    Plots,
    Settings,
    Table,
    UsageError,
)
from foundry_fastlog.recording.recorder import Recorder
from foundry_fastlog.run.files import timestamp
from foundry_fastlog.run.info import plain_config

__all__ = [
    "AlertLevel",
    "Artifact",
    "CommError",
    "Config",
    "Error",
    "Run",
    "Settings",
    "Table",
    "UsageError",
    "alert",
    "define_metric",
    "finish",
    "init",
    "log",
    "log_artifact",
    "login",
    "plot",
    "save",
    "setup",
    "unwatch",
    "use_artifact",
    "util",
    "watch",
]

_RESUME = {True: "auto", False: "auto", None: "auto", "allow": "auto", "auto": "auto"}
_RESUME |= {"must": "must", "never": "never"}
_ODD = re.compile(r"[^\w.-]+")

plot = Plots()
_current: Run | None = None


def init(
    entity: str | None = None,
    project: str | None = None,
    dir: str | os.PathLike[str] | None = None,  # noqa: A002 - as wandb's
    id: str | None = None,  # noqa: A002 - as wandb's
    name: str | None = None,
    notes: str | None = None,
    tags: Sequence[str] | None = None,
    config: object = None,
    config_exclude_keys: Sequence[str] | None = None,
    config_include_keys: Sequence[str] | None = None,
    allow_val_change: bool | None = None,  # noqa: ARG001 - as wandb's
    group: str | None = None,
    job_type: str | None = None,
    mode: str | None = None,
    force: bool | None = None,  # noqa: ARG001 - as wandb's
    reinit: bool | str | None = None,
    resume: bool | str | None = None,
    **_: object,
) -> Run:
    """Begin a run, or return the one that is open.

    Args:
        entity: Kept in the configuration, as ``_wandb.entity``.
        project: A directory above the run's.
        dir: The directory above that. Default: ``WANDB_DIR``, or ``runs``.
        id: The run's directory. Default: ``WANDB_RUN_ID``, or the name with some letters.
        name: The run's name.
        notes: Kept in the configuration, as ``_wandb.notes``.
        tags: Likewise.
        config: A mapping, a namespace, or a configuration object.
        config_exclude_keys: Settings to leave out.
        config_include_keys: Settings to keep; others are left out.
        allow_val_change: Without an effect: values may always change.
        group: Kept in the configuration, as ``_wandb.group``.
        job_type: Likewise.
        mode: ``disabled`` records nothing; all others record here.
        force: Without an effect.
        reinit: True, ``finish_previous`` or ``create_new`` begins another run while one is open.
        resume: With an id: ``must`` or ``never``; all others go on if there is such a run.
        **_: Whatever else wandb's takes.

    Raises:
        FileExistsError: There is such a run, and resume is ``never``.
        FileNotFoundError: There is no such run, and resume is ``must``.
        TypeError: The configuration is none.
        ValueError: An unknown value of resume.
    """
    global _current  # noqa: PLW0603 - wandb has one run at a time
    if _current is not None:
        if reinit in (None, False, "default", "return_previous"):
            return _current
        if reinit != "create_new":
            _current.finish()
    environ = os.environ
    settings = _chosen(plain_config(config), config_include_keys, config_exclude_keys)
    project = project or environ.get("WANDB_PROJECT") or "uncategorized"
    name = name or environ.get("WANDB_NAME")
    given = id or environ.get("WANDB_RUN_ID")
    run_id = given or f"{name or 'run-' + timestamp()}-{util.generate_id(4)}"
    mode = mode or environ.get("WANDB_MODE")
    wanted = resume if resume is not None else environ.get("WANDB_RESUME") or None
    if wanted not in _RESUME:
        raise ValueError(f"resume must be allow, must, never, auto or a bool, got {wanted!r}")
    told = {"entity": entity, "group": group, "job_type": job_type, "notes": notes}
    told_and_tags: dict[str, Any] = {**told, "tags": list(tags or ())}
    about = {key: value for key, value in told_and_tags.items() if value}
    recorder = None
    if mode != "disabled":
        place = Path(dir or environ.get("WANDB_DIR") or "runs", _part(project), _part(run_id))
        recorder = Recorder(
            place,
            name=name or run_id,
            config={**settings, "_wandb": {"project": project, "id": run_id, **about}},
            resume=_RESUME[wanted],
        )
    _current = Run(recorder, project, run_id, name or run_id, settings, about, _forget)
    return _current


def _forget(run: Run) -> None:
    global _current  # noqa: PLW0603 - likewise
    if _current is run:
        _current = None


def _chosen(
    settings: dict[str, Any], include: Sequence[str] | None, exclude: Sequence[str] | None
) -> dict[str, Any]:
    return {
        name: value
        for name, value in settings.items()
        if (not include or name in include) and name not in (exclude or ())
    }


def _part(text: str) -> str:
    """Return a text as the name of a directory."""
    return _ODD.sub("-", text).lstrip(".-")[:120] or "run"


def _open_run(called: str) -> Run:
    if _current is None:
        raise UsageError(f"You must call wandb.init() before wandb.{called}()")
    return _current


def log(data: Mapping[str, Any], step: int | None = None, commit: bool | None = None) -> None:
    """Record values in the open run; see `Run.log`."""
    _open_run("log").log(data, step, commit)


def define_metric(name: str, *arguments: Any, **options: Any) -> Metric:  # noqa: ANN401 - as the method's
    """Note what a metric is; see `Run.define_metric`."""
    return _open_run("define_metric").define_metric(name, *arguments, **options)


def alert(title: str, text: str = "", level: str | AlertLevel | None = None, **_: object) -> None:
    """Record a message; see `Run.alert`."""
    _open_run("alert").alert(title, text, level)


def log_artifact(artifact_or_path: Any, *arguments: Any, **options: Any) -> Artifact:  # noqa: ANN401 - as the method's
    """Record an artifact; see `Run.log_artifact`."""
    return _open_run("log_artifact").log_artifact(artifact_or_path, *arguments, **options)


def use_artifact(artifact_or_name: Any, *_: object, **__: object) -> Artifact:  # noqa: ANN401 - as the method's
    """Record that an artifact was used; see `Run.use_artifact`."""
    return _open_run("use_artifact").use_artifact(artifact_or_name)


def save(glob_str: object = None, *_: object, **__: object) -> list[str]:
    """Record which files were to be kept; see `Run.save`."""
    return _open_run("save").save(glob_str)


def watch(*_: object, **__: object) -> None:
    """Say that gradients are not recorded by themselves; see `Run.watch`."""
    _open_run("watch").watch()


def unwatch(*_: object, **__: object) -> None:
    """Do nothing."""


def finish(exit_code: int | None = None, **_: object) -> None:
    """Close the open run, if there is one."""
    if _current is not None:
        _current.finish(exit_code)


def login(*_: object, **__: object) -> bool:
    """Do nothing: no account is needed."""
    return True


def setup(*_: object, **__: object) -> None:
    """Do nothing."""


require = teardown = setup


def _generate_id(length: int = 8) -> str:
    letters = string.ascii_lowercase + string.digits
    return "".join(random.SystemRandom().choices(letters, k=length))


util = SimpleNamespace(generate_id=_generate_id)

_OPEN = {"run", "config", "summary"}


def __getattr__(name: str) -> Any:  # noqa: ANN401 - of the open run, or a class
    """Return what belongs to the open run, or a class of media."""
    if name == "run":
        return _current
    if name in _OPEN:
        return getattr(_open_run(f"{name} is used; there is no run whose {name}"), name)
    if name in MEDIA:
        return MEDIA[name]
    raise AttributeError(
        f"foundry_fastlog's wandb has no {name!r}: it records what init, log, config, summary and "
        "the like are given. Use wandb itself for the rest."
    )
