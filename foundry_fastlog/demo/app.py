"""The ``foundry-fastlog demo`` command: set up, train, show what was recorded."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import torch
from rich.console import Console

from foundry_fastlog import ExperimentLogging
from foundry_fastlog.base.arguments import expanded
from foundry_fastlog.config.yaml_file import ConfigError
from foundry_fastlog.demo import console as ui
from foundry_fastlog.demo.checkpoint import FOLDER, list_checkpoints, step_of
from foundry_fastlog.demo.config import ExperimentConfig, load_config
from foundry_fastlog.demo.data import Corpus, load_corpus
from foundry_fastlog.demo.device import pick_device
from foundry_fastlog.demo.progress import progress_view
from foundry_fastlog.demo.train import Trainer

OK, FAILED, USAGE, INTERRUPTED = 0, 1, 2, 130


def run_demo(
    config_path: Path | None = None,
    *,
    out: Path | None = None,
    steps: int | None = None,
    device: str | None = None,
) -> int:
    """Implement :func:`foundry_fastlog.demo.run`, which documents the arguments."""
    console = Console(highlight=False)
    try:
        config = load_config(config_path, steps=steps, device=device)
        chosen = pick_device(config.training.device)
        corpus = load_corpus(config.data, config.model.context)
        run = choose_run_directory(config, out)
        saved = list_checkpoints(run / FOLDER)
        if saved and step_of(saved[0]) >= config.training.steps:
            ui.show_finished(console, run, step_of(saved[0]))
            return OK
        if config.training.threads is not None:
            torch.set_num_threads(config.training.threads)
        with open_logging(run, config) as logs:
            code = train(console, Trainer(config, corpus, logs, chosen))
        ui.show_result(console, logs.recorder)
    except ConfigError as error:
        ui.show_error(str(error))
        return USAGE
    except FloatingPointError as error:
        ui.show_error(str(error))
        return FAILED
    return code


def choose_run_directory(config: ExperimentConfig, out: Path | None) -> Path:
    """Choose the run directory, and refuse one that is used for something else.

    Args:
        config: The experiment; its name becomes part of a new directory's name.
        out: The directory given by the user, if any.

    Returns:
        A directory that does not exist, is empty, or has a run to resume.

    Raises:
        ConfigError: ``out`` cannot be used.
    """
    if out is None:
        # Local time, for the person who will look for the run.
        stamp = datetime.now().astimezone().strftime("%Y-%m-%d_%H-%M-%S")
        base = expanded(config.logging.log_dir) / f"{config.experiment_name}-{stamp}"
        run, count = base, 1
        while run.exists():
            count += 1
            run = base.with_name(f"{base.name}-{count}")
        return run
    if not out.exists():
        return out
    if not out.is_dir():
        raise ConfigError(f"--out {out}: is a file. Choose a directory that does not exist yet.")
    if any(out.glob("metrics*.jsonl")):
        if not config.training.resume:
            raise ConfigError(
                f"--out {out}: already contains a run. Choose another directory, or set "
                "training.resume: true to resume that run.",
            )
    elif any(out.iterdir()):
        raise ConfigError(
            f"--out {out}: is not empty and contains no run. Choose an empty or new directory.",
        )
    return out


def open_logging(run: Path, config: ExperimentConfig) -> ExperimentLogging:
    """Open the logging of a run with the options of the ``logging`` section.

    Raises:
        ConfigError: The run directory cannot be created, or is in use.
    """
    try:
        # Logging itself would continue without a directory; the demo would have nothing to show.
        run.mkdir(parents=True, exist_ok=True)
        return ExperimentLogging(config, directory=run, stamped=False)
    except OSError as error:
        raise ConfigError(
            f"the run directory {run} cannot be created: {error}. Choose another with --out.",
        ) from error
    except ValueError as error:
        raise ConfigError(f"logging: {error}.") from error


def train(console: Console, trainer: Trainer) -> int:
    """Train to the end, show progress, and record the outcome.

    Args:
        console: Where to show it.
        trainer: A new trainer; it is resumed if its run has a checkpoint.

    Returns:
        ``OK``, ``FAILED`` if the restart drill failed, or ``INTERRUPTED``
        after Ctrl-C.
    """
    log, training = trainer.logs.logger("training.loop"), trainer.config.training
    try:
        resumed = trainer.resume()
        ui.show_setup(console, trainer, resumed)
        log.info(
            "Training started",
            step=trainer.step,
            device=str(trainer.device),
            parameters=trainer.model.size(),
            total_steps=training.steps,
            batch_size=training.batch_size,
            learning_rate=training.learning_rate,
            warmup_steps=training.warmup_steps,
        )
        ui.show_sample(console, trainer.step, sample(trainer))
        with progress_view(console, first=trainer.step, total=training.steps) as show:
            for progress in trainer.fit():
                show(progress)
        console.print()
        ui.show_sample(console, trainer.step, sample(trainer))
        survived = True
        if training.restart_drill:
            survived = trainer.restart_drill()
            ui.show_drill(console, trainer, survived=survived)
        log.info("Training finished", step=trainer.step)
    except KeyboardInterrupt:
        log.warning("Training interrupted", step=trainer.step)
        ui.show_interrupted(console, trainer)
        return INTERRUPTED
    finally:
        trainer.close()
    return OK if survived else FAILED


def sample(trainer: Trainer, length: int = 160) -> str:
    """Generate text with the model.

    Args:
        trainer: The trainer with the model.
        length: Characters to generate after the prompt.

    Returns:
        The prompt (``"The "`` if the text has these characters) and its continuation.
    """
    corpus: Corpus = trainer.corpus
    prompt = "The "
    known = set(prompt) <= set(corpus.characters)
    tokens = corpus.encode(prompt) if known else corpus.validation[:4]
    return corpus.decode(trainer.model.generate(tokens, length, seed=trainer.config.seed))
