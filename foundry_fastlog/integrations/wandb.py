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

import logging
import os
import random
import re
import string
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from foundry_fastlog.base.extras import extra
from foundry_fastlog.integrations.notices import Notices
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
    "__version__",
    "alert",
    "data_types",
    "define_metric",
    "errors",
    "finish",
    "init",
    "log",
    "log_artifact",
    "login",
    "plot",
    "plot_table",
    "save",
    "setup",
    "termerror",
    "termlog",
    "termwarn",
    "unwatch",
    "use_artifact",
    "util",
    "watch",
]

_RESUME = {True: "auto", False: "auto", None: "auto", "allow": "auto", "auto": "auto"}
_RESUME |= {"must": "must", "never": "never"}
_ODD = re.compile(r"[^\w.-]+")
# What init() takes and what means nothing here.
_IDLE = frozenset(
    (
        *("anonymous", "magic", "monitor_gym", "save_code", "settings", "tensorboard"),
        *("config_static", "disable_git", "job_name", "sync_tensorboard", "fork_from"),
        "resume_from",
    )
)

#: Of the wandb whose interface this is; scripts ask for it.
__version__ = "0.31.0"

_log = logging.getLogger("foundry_fastlog")
_notices = Notices()
plot = Plots()
plot_table = plot.plot_table
errors = SimpleNamespace(CommError=CommError, Error=Error, UsageError=UsageError)
data_types = SimpleNamespace(**MEDIA)
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
    **others: object,
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
        config: A mapping, a namespace, a configuration object, or the path of a YAML file.
        config_exclude_keys: Settings to leave out.
        config_include_keys: Settings to keep; others are left out.
        allow_val_change: Without an effect: values may always change.
        group: Kept in the configuration, as ``_wandb.group``.
        job_type: Likewise.
        mode: ``disabled`` records nothing; all others record here.
        force: Without an effect.
        reinit: True, ``finish_previous`` or ``create_new`` begins another run while one is open.
        resume: With an id: ``must`` or ``never``; all others go on if there is such a run.
        **others: Whatever else wandb's takes; one that it does not take is told.

    Raises:
        Error: `fork_from` or `resume_from`: there is no run of wandb's to go on with.
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
    _check(others)
    environ = os.environ
    settings = _chosen(_settings(config), config_include_keys, config_exclude_keys)
    project = str(project or environ.get("WANDB_PROJECT") or "uncategorized")
    name = str(name) if name else environ.get("WANDB_NAME")
    given = str(id) if id else environ.get("WANDB_RUN_ID")
    run_id = given or f"{name or 'run-' + timestamp()}-{util.generate_id(4)}"
    asked = others.get("settings") or {}
    asked = asked if isinstance(asked, Mapping) else vars(asked)
    mode = mode or asked.get("mode") or environ.get("WANDB_MODE")
    wanted = resume if resume is not None else environ.get("WANDB_RESUME") or None
    if wanted not in _RESUME:
        raise ValueError(f"resume must be allow, must, never, auto or a bool, got {wanted!r}")
    told = {"entity": entity, "group": group, "job_type": job_type, "notes": notes}
    listed = [tags] if isinstance(tags, str) else list(tags or ())
    told_and_tags: dict[str, Any] = {**told, "tags": listed}
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


def _check(others: Mapping[str, object]) -> None:
    """Tell of arguments that do not do here what they do in wandb."""
    if others.get("fork_from") or others.get("resume_from"):
        raise Error("fork_from and resume_from need wandb itself: nothing is asked of it")
    if others.get("sync_tensorboard") or others.get("tensorboard"):
        _notices.tell(
            "tensorboard",
            "sync_tensorboard is without effect: change the import line of the SummaryWriter, too "
            "(foundry_fastlog.integrations.tensorboard); it records in its own directory",
        )
    if unknown := sorted(set(others) - _IDLE):
        _notices.tell(tuple(unknown), "wandb.init does not know %s: ignored", ", ".join(unknown))


def _settings(config: object) -> dict[str, Any]:
    """Return a configuration as a dict; that of a YAML file may be in wandb's form."""
    if not isinstance(config, (str, os.PathLike)):
        return plain_config(config)
    with extra("yaml", "yaml"):
        import yaml
    found = plain_config(yaml.safe_load(Path(config).read_text("utf-8")))
    found.pop("wandb_version", None)
    return {
        name: one["value"] if isinstance(one, dict) and "value" in one else one
        for name, one in found.items()
    }


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
        raise UsageError(f"You must call wandb.init() before wandb.{called}")
    return _current


def log(
    data: Mapping[str, Any], step: int | None = None, commit: bool | None = None, **_: object
) -> None:
    """Record values in the open run; see `Run.log`."""
    _open_run("log()").log(data, step, commit)


def define_metric(name: str, *arguments: Any, **options: Any) -> Metric:  # noqa: ANN401 - as the method's
    """Note what a metric is; see `Run.define_metric`."""
    return _open_run("define_metric()").define_metric(name, *arguments, **options)


def alert(title: str, text: str = "", level: str | AlertLevel | None = None, **_: object) -> None:
    """Record a message; see `Run.alert`."""
    _open_run("alert()").alert(title, text, level)


def log_artifact(artifact_or_path: Any, *arguments: Any, **options: Any) -> Artifact:  # noqa: ANN401 - as the method's
    """Record an artifact; see `Run.log_artifact`."""
    return _open_run("log_artifact()").log_artifact(artifact_or_path, *arguments, **options)


def use_artifact(artifact_or_name: Any, *_: object, **__: object) -> Artifact:  # noqa: ANN401 - as the method's
    """Record that an artifact was used; see `Run.use_artifact`."""
    return _open_run("use_artifact()").use_artifact(artifact_or_name)


def save(glob_str: object = None, *_: object, **__: object) -> list[str]:
    """Record which files were to be kept; see `Run.save`."""
    return _open_run("save()").save(glob_str)


def watch(*_: object, **__: object) -> None:
    """Say that gradients are not recorded by themselves; see `Run.watch`."""
    _open_run("watch()").watch()


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


def termlog(string: object = "", *_: object, **__: object) -> None:
    """Log a text."""
    _log.info("%s", string)


def termwarn(string: object = "", *_: object, **__: object) -> None:
    """Log a warning."""
    _log.warning("%s", string)


def termerror(string: object = "", *_: object, **__: object) -> None:
    """Log an error."""
    _log.error("%s", string)


# What belongs to the open run.
_OPEN = frozenset(
    (
        *("config", "summary", "log_model", "link_model", "use_model", "mark_preempting"),
        *("pin_config_keys", "restore"),
    )
)


def __getattr__(name: str) -> Any:  # noqa: ANN401 - of the open run, or a class
    """Return what belongs to the open run, or a class of media."""
    if name == "run":
        return _current
    if name in _OPEN:
        return getattr(_open_run(name), name)
    if name in MEDIA:
        return MEDIA[name]
    raise AttributeError(
        f"foundry_fastlog's wandb has no {name!r}: it records what init, log, config, summary and "
        "the like are given. Use wandb itself for the rest."
    )
