# ruff: noqa: F401 - the listings use what is imported
"""Every listing of the logging plan, executed as the plan wrote it; `plan.md` has them.

A name in a listing is this package's; where the plan left something out, GAPS says what is there.
What it left open altogether has tests of its own, in `tests/unit`.
"""

from __future__ import annotations

import ast
import hashlib
import inspect
import json
import logging
import re
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from types import CodeType, ModuleType, SimpleNamespace
from typing import Any, NamedTuple
from unittest.mock import patch

import pytest
from logging_support import ExperimentConfig
from pydantic import BaseModel, Field, ValidationError
from recorded import lines, run_python
from wandb_files import only_run

import foundry_fastlog
from foundry_fastlog import (
    HIERARCHY,
    ErrorTracker,
    ExperimentLogging,
    LoggingConfig,
    MetricsLogger,
    PerformanceLogger,
    StructuredLogger,
)
from foundry_fastlog.messages.text_lines import text_of

torch = pytest.importorskip("torch", reason="the plan's listings train with torch")

from tiny_training import Trainer, tiny_experiment  # noqa: E402  # needs torch

PLAN = Path(__file__).with_name("plan.md")
GAPS = {
    "# ... setup and run training ...": "train_until(trainer, KeyboardInterrupt())",
    "# ... code to trigger error ...": (
        "train_until(Trainer(tiny_config, temp_workspace), OSError())"
    ),
    "(self, ...)": "(self, model, state, checkpoint_dir, global_step, epoch, total_time)",
}
# How many listings there are of a kind, and what they begin with.
KINDS = {
    "hierarchy": (1, r"model_foundry \(root\)"),
    "message": (3, "{"),
    "tests": (6, "class Test"),
    "class": (6, "class |@dataclass"),
    "folder": (1, "logs/"),
    "text log": (3, "2025-"),
    "experiment file": (1, "# config/experiment.yaml"),
    "variables": (2, "# Disable WandB|export "),
    "commands": (4, "# Interactive login|wandb |python "),  # of other programs, not run here
    "use of W&B": (1, "from model_foundry"),
    "use": (9, ""),
}


class Listing(NamedTuple):
    """A listing, and how many lines of the file are above it."""

    above: int
    text: str

    @property
    def kind(self) -> str:
        return next(kind for kind, (_, begin) in KINDS.items() if re.match(begin, self.text))

    def code(self) -> CodeType:
        """Compile it so that a traceback shows its line in the plan."""
        text = self.text
        for gap, code in GAPS.items():
            text = text.replace(gap, code)
        return compile("\n" * self.above + text, PLAN, "exec", dont_inherit=True)


FENCES = re.finditer(r"^```\w*\n(.*?)^```$", PLAN.read_text("utf-8"), re.MULTILINE | re.DOTALL)
LISTINGS = [Listing(found.string.count("\n", 0, found.start(1)), found[1]) for found in FENCES]


def listings(kind: str) -> list[Listing]:
    return [listing for listing in LISTINGS if listing.kind == kind]


def listing(kind: str) -> Listing:
    (found,) = listings(kind)
    return found


def test_no_listing_is_missing_or_changed() -> None:
    """All of the plan's are here, to the byte, and each is of a kind that is executed below."""
    counts = {kind: count for kind, (count, _) in KINDS.items()}
    assert Counter(listing.kind for listing in LISTINGS) == counts
    text = "".join(listing.text for listing in LISTINGS)
    assert hashlib.sha256(text.encode()).hexdigest()[:16] == "353aa2c5dc94f4be"


# ---- the test classes, which pytest finds among this module's names ------------------------


@pytest.fixture
def tiny_config() -> ExperimentConfig:
    """The plan's fixture: a small experiment."""
    return tiny_experiment()


@pytest.fixture
def temp_workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The plan's fixture: a folder, whose trainers are closed at the end."""
    made = []

    def make(*given: Any, real: type[Trainer] = Trainer) -> Trainer:
        made.append(real(*given))
        return made[-1]

    monkeypatch.setitem(globals(), "Trainer", make)
    yield tmp_path
    for trainer in made:
        trainer.logs.close()


@pytest.fixture
def mock_tokenizer() -> None:
    """The plan's fixture; the trainer here reads no text."""


def train_until(trainer: Trainer, error: BaseException) -> None:
    """Train some steps of the first epoch, which then ends with an error."""

    def fail(step: int, loss: float) -> float:
        if step == 5:
            raise error
        return loss

    with pytest.raises(type(error)):
        trainer.train(fail)


for one in listings("tests"):
    exec(one.code(), globals())


# ---- everything else ------------------------------------------------------------------------


def test_the_hierarchy() -> None:
    path: list[str] = []
    found = []
    for line in listing("hierarchy").text.splitlines():
        depth, name = re.match(r"([│ ├└─]*)([\w.]+)", line).groups()
        path[len(depth) // 4 :] = [name.rpartition(".")[2]]
        found.append(".".join(path))
    assert tuple(found) == HIERARCHY


@pytest.mark.parametrize("shown", [ast.literal_eval(one.text) for one in listings("message")])
def test_messages(shown: dict[str, Any]) -> None:
    """The fields and their order are those of the plan."""
    context = dict(shown["context"])
    logger = StructuredLogger(shown["logger"], context["experiment"])
    with patch.object(logger.logger, "log") as log:
        logger.log_structured(getattr(logging, shown["level"]), shown["message"], **context)
    found = json.loads(log.call_args.args[1])
    assert list(found) == list(shown)
    assert {**found, "timestamp": "", "context": ""} == {**shown, "timestamp": "", "context": ""}
    assert {**found["context"], **context} == found["context"]


@pytest.mark.parametrize("one", listings("class"), ids=lambda one: one.text.split("\n")[0])
def test_classes(one: Listing) -> None:
    """Each method can be called as the plan's; each option has the plan's default."""
    names = {**globals(), "ExperimentConfig": object}
    (name,) = re.findall(r"^class (\w+)", one.text, re.MULTILINE)
    exec(one.code(), names)
    planned, ours = names[name], getattr(foundry_fastlog, name)
    for method, function in vars(planned).items():
        if not inspect.isfunction(function) or method.startswith(("_build", "__repr", "__eq")):
            continue
        found = inspect.signature(getattr(ours, method))
        wanted = inspect.signature(function).parameters.values()
        plain = [p.name for p in wanted if p.default is p.empty and p.kind != p.VAR_KEYWORD]
        options = {p.name: p.default for p in wanted if p.default is not p.empty}
        if not issubclass(ours, BaseModel):
            found.bind(*plain, **options)
            assert {key: found.parameters[key].default for key in options} == options
    defaults = {k: info.default for k, info in getattr(planned, "model_fields", {}).items()}
    assert {key: ours.model_fields[key].default for key in defaults} == defaults
    assert bool(defaults) == (name == "LoggingConfig")


def test_the_folder(tmp_path: Path) -> None:
    """An experiment's files have the names of the plan."""
    config = tiny_experiment("exp0_baseline")
    with ExperimentLogging(config, log_dir=tmp_path / "logs") as logs:
        logs.log_step(1, 0, {"loss": 1.0})
        logs.errors.log_error(ValueError("bad"))
        with logs.performance.time_block("step"):
            pass
    wanted = re.findall(r"(\w+_)2025-\d\d-\d\d_\d\d-\d\d-\d\d(\.\w+)", listing("folder").text)
    assert len(wanted) == 5
    names = [path.name for path in (tmp_path / "logs" / "exp0_baseline").iterdir()]
    stamp = r"\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d"
    for kind, end in wanted:
        assert [n for n in names if re.fullmatch(f"{kind}{stamp}{re.escape(end)}", n)], kind


@pytest.mark.parametrize("one", listings("text log"))
def test_text_logs(one: Listing) -> None:
    """Each message of the plan's appendix, letter by letter."""
    entry = r"^(\S+ \S+) \[(\w+)\] (\S+): (.*)\n((?:  .*\n)*)"
    shown = re.finditer(entry, one.text, re.MULTILINE)
    written = []
    for moment, level, logger, message, rows in (found.groups() for found in shown):
        fields = dict(row.strip().split(": ", 1) for row in rows.splitlines())
        at = time.mktime(time.strptime(moment, "%Y-%m-%d %H:%M:%S"))
        written.append(text_of((at, getattr(logging, level), logger, message, fields, "")))
    assert "".join(written) == one.text.replace("\n\n", "\n")


def test_the_experiment_file(tmp_path: Path) -> None:
    (tmp_path / "experiment.yaml").write_text(listing("experiment file").text)
    config = LoggingConfig.from_yaml(tmp_path / "experiment.yaml")
    shown = config.use_wandb, config.wandb_project, config.log_metrics_every_n_steps
    assert shown == (True, "model-foundry-experiments", 10)


def test_the_variables() -> None:
    """WANDB_SILENT is for wandb itself."""
    text = "".join(one.text for one in listings("variables"))
    for name, value in (given := re.findall(r"^export (\w+)=(\S+)$", text, re.MULTILINE)):
        config = LoggingConfig(use_wandb=True).with_environment({name: value})
        project = value if name == "WANDB_PROJECT" else None
        assert (config.wandb_enabled, config.wandb_project) == (value != "disabled", project)
    assert len(given) == 5


def test_the_uses(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One after the other, in a trainer that has what they take for granted."""
    data = type("Data", (list,), {"column_names": ["input_ids"]})("ab")
    sizes = {"epochs": 1, "train_steps": 12, "gradient_accumulation_steps": 1}
    rates = {"learning_rate": 1e-3, "warmup_steps": 2}
    settings = {"data": {"batch_size": 4}, "training": sizes | rates}
    model = SimpleNamespace(save_pretrained=lambda folder: (folder / "model.pt").write_bytes(b"w"))
    with ExperimentLogging(tiny_experiment(), directory=tmp_path, stamped=False) as logs:
        trainer = SimpleNamespace(
            config=SimpleNamespace(**{k: SimpleNamespace(**v) for k, v in settings.items()}),
            logger=logs.logger("trainer"),
            perf_logger=logs.performance,
            metrics_logger=logs.metrics,
            error_tracker=logs.errors,
            model=lambda **inputs: inputs,
            lr_scheduler=SimpleNamespace(get_last_lr=lambda: [0.05]),
            global_step=7,
            epoch=1,
        )
        names = {"self": trainer, "train_dataset": data, "dataset": data, "inputs": {"a": 1}}
        names |= {"loss": torch.tensor(2.5), "grad_norm": 1.23, "tokens_per_sec": 8500.0}
        names |= {"torch": torch, "risky_operation": lambda: 1 / 0}
        for one in listings("use"):
            again = pytest.raises(ZeroDivisionError) if "raise " in one.text else patch.dict({})
            with again:
                exec(one.code(), names)
        (tmp_path / "checkpoint").mkdir()
        names["save_checkpoint"](trainer, model, {}, tmp_path / "checkpoint", 7, 1, 0.5)
    assert "    - Training size: 2 examples\n" in capsys.readouterr().out
    (step,) = lines(tmp_path)
    values = {"loss": 2.5, "learning_rate": 0.05, "gradient_norm": 1.23, "tokens_per_second": 8500}
    assert (step["step"], step["epoch"], step["metrics"]) == (7, 1, values)
    blocks = [line["name"] for line in lines(tmp_path, "performance")]
    assert blocks == ["forward_pass", "save_model", "save_optimizer"]
    (error,) = lines(tmp_path, "errors")
    assert (error["context"]["operation"], error["step"]) == ("risky_operation", 7)
    told = {line["message"]: line["context"] for line in lines(tmp_path, "log")}
    assert told["Starting training loop"]["learning_rate"] == 1e-3
    assert told["Dataset loaded"]["columns"] == ["input_ids"]
    assert told["Checkpoint saved successfully"]["checkpoint_size_gb"] > 0
    assert {"Training dataset loaded successfully", "Saving checkpoint"} <= set(told)


def test_the_use_of_wandb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All that it sends is in wandb's own file; in a process that wandb finds as it wants it."""
    (tmp_path / "output" / "checkpoint-1000").mkdir(parents=True)
    (tmp_path / "output" / "checkpoint-1000" / "model.pt").write_bytes(b"weights")
    monkeypatch.chdir(tmp_path)
    script = (
        "import sys, types, torch, foundry_fastlog; from logging_support import ExperimentConfig\n"
        "sys.modules['model_foundry'] = types.ModuleType('model_foundry')\n"
        "sys.modules['model_foundry.logging_components'] = foundry_fastlog\n"
        "config, model = ExperimentConfig(), torch.nn.Linear(3, 2)\n"
        f"{listing('use of W&B').text}"
        "assert wandb_logger.stats()['errors'] == 0, wandb_logger.stats()\n"
    )
    places = {f"WANDB_{kind}_DIR": str(tmp_path / kind) for kind in ("CACHE", "CONFIG", "DATA")}
    run_python(script, environment={"WANDB_MODE": "offline", "WANDB_SILENT": "true", **places})
    run = only_run(tmp_path)
    shown = (run.project, run.name, run.tags, run.exit_code)
    assert shown == ("model-foundry", "exp0_baseline", ["baseline", "gpt2"], 0)
    metrics = {"train/loss": 2.5, "train/lr": 0.001, "train/grad_norm": 1.23}
    (row,) = run.rows
    assert {key: row[key] for key in ("_step", *metrics)} == {"_step": 100, **metrics}
    assert row["system/rss_gb"] > 0
    assert run.config["training"]["epochs"] == 1
    assert run.artifacts == [("checkpoint-1000", "model", ["model.pt"])]
