#!/usr/bin/env python3
"""Trains a small model of characters, and says what it does by print.

    python train.py --epochs 3 --data text.txt
"""

from __future__ import annotations

import argparse
import json
import math
import random
import sys
import time
from collections import Counter
from pathlib import Path

from tqdm import tqdm
from foundry_fastlog import StructuredLogger, setup_logging

logger = StructuredLogger(__name__)

VERSION = "1.4.0"
LINE = "=" * 60


def human(count: float) -> str:
    """Shorten a count: 12.3K."""
    for unit in ("", "K", "M"):
        if count < 1000:
            return f"{count:.1f}{unit}" if unit else f"{count:.0f}"
        count /= 1000
    return f"{count:.1f}G"


class NonFiniteLoss(RuntimeError):
    """The loss is no number."""


class Dataset:
    """Characters of a text, in windows."""

    def __init__(self, path: Path | None, window: int, verbose: bool = False) -> None:
        self.window = window
        self.name = path.name if path else "built-in"
        logger.info("Loading data")
        text = self._read(path)
        logger.info("Loading data... done")
        self.vocabulary = sorted(set(text))
        self.codes = [self.vocabulary.index(char) for char in text]
        logger.info(
            "characters, symbols",
            name=self.name,
            num_characters=len(self.codes),
            num_symbols=len(self.vocabulary),
        )
        if verbose:
            self.show_counts(text)

    def _read(self, path: Path | None) -> str:
        if path is None:
            logger.warning("No --data given, falling back to the built-in text")
            return "to be or not to be, that is the question. " * 20
        try:
            return path.read_text("utf-8")
        except OSError as error:
            logger.error("could not read", path=path, error=str(error), exc_info=True)
            raise

    def show_counts(self, text: str) -> None:
        """Show how often each character occurs."""
        print("\nMost frequent characters:")
        for char, count in Counter(text).most_common(3):
            print(f"  {char!r:<6} {count:>6}")
        print()

    def __len__(self) -> int:
        return len(self.codes) - self.window

    def __repr__(self) -> str:
        print("(repr asked for)")
        return f"Dataset({self.name!r}, {len(self)} windows)"

    def batches(self, size: int, rng: random.Random):
        starts = list(range(len(self)))
        rng.shuffle(starts)
        for first in range(0, len(starts), size):
            yield [(self.codes[at], self.codes[at + 1]) for at in starts[first : first + size]]


class Model:
    """A table of logits: the next character after each one."""

    def __init__(self, symbols: int, seed: int) -> None:
        rng = random.Random(seed)
        self.table = [[rng.gauss(0, 0.1) for _ in range(symbols)] for _ in range(symbols)]
        n = symbols * symbols
        logger.info("Model: 1 layer, wide", symbols=symbols, num_parameters=human(n))

    def step(self, batch, lr: float) -> float:
        """Learn from a batch; return its mean loss."""
        total = 0.0
        for code, target in batch:
            row = self.table[code]
            exps = [math.exp(logit) for logit in row]
            scale = sum(exps)
            total -= math.log(exps[target] / scale)
            for index, value in enumerate(exps):
                row[index] -= lr * (value / scale - (index == target))
        return total / len(batch)

    def save(self, path: Path) -> None:
        path.write_text(json.dumps(self.table))
        logger.info("Saved checkpoint", path=path, st_size_kb=path.stat().st_size / 1024)


class Trainer:
    """Runs the epochs."""

    def __init__(self, model: Model, data: Dataset, args: argparse.Namespace) -> None:
        self.model, self.data, self.args = model, data, args
        self.best = math.inf
        self.history: list[tuple[int, float, float]] = []

    def lr_at(self, epoch: int) -> float:
        lr = self.args.lr * 0.5**epoch
        if lr < 1e-3:
            logger.warning("learning rate is very small", lr=lr)
        return lr

    def epoch(self, epoch: int) -> float:
        """Run one epoch; return its mean loss."""
        rng, losses = random.Random(epoch), []
        lr = self.lr_at(epoch)
        bar = tqdm(self.data.batches(self.args.batch_size, rng), desc=f"epoch {epoch}")
        for step, batch in enumerate(bar):
            loss = self.model.step(batch, lr)
            if not math.isfinite(loss):
                logger.error("NaN loss, aborting")
                raise NonFiniteLoss(f"step {step}")
            losses.append(loss)
            if step % self.args.log_every == 0:
                logger.info("step", step=step, loss=loss, lr=lr)
        return sum(losses) / len(losses)

    def run(self) -> float:
        """Run all epochs; return the best loss."""
        prefix = f"[{self.args.name}] "
        logger.info("Training epochs", args_name=self.args.name, epochs=self.args.epochs)
        for epoch in range(self.args.epochs):
            begin = time.perf_counter()
            loss = self.epoch(epoch)
            seconds = time.perf_counter() - begin
            self.history.append((epoch, loss, seconds))
            logger.info(
                "Epoch, took",
                epoch=epoch + 1,
                epochs=self.args.epochs,
                loss=loss,
                seconds=seconds,
            )
            logger.info("avg loss", prefix=prefix, avg_loss=round(loss, 4))
            if loss < self.best:
                self.best = loss
                logger.info("New best after epochs", loss=loss, epoch=epoch + 1)
        return self.best

    def summary(self) -> None:
        """Show a table of the epochs."""
        print()
        print(LINE)
        print("SUMMARY")
        print(LINE)
        print(f"{'epoch':>6} {'loss':>10} {'seconds':>8}")
        for epoch, loss, seconds in self.history:
            print(f"{epoch + 1:>6} {loss:>10.4f} {seconds:>8.2f}")
        print(f"{'best':>6} {self.best:>10.4f} {'':>8}")
        print(LINE)


def evaluate(model: Model, data: Dataset, limit: int = 50) -> dict[str, float]:
    """Count right guesses."""
    print("Evaluating", end="")
    right = 0
    for start in range(limit):
        row = model.table[data.codes[start]]
        right += row.index(max(row)) == data.codes[start + 1]
        if start % 10 == 0:
            print(".", end="", flush=True)
    print(" done")
    metrics = {"accuracy": right / limit, "perplexity": math.exp(1 - right / limit)}
    logger.info(
        "Evaluation finished",
        accuracy=metrics["accuracy"],
        perplexity=metrics['perplexity'],
    )
    logger.info("Compared windows", limit=limit, num_windows=len(data))
    return metrics


def print_version() -> None:
    print(f"train {VERSION}")
    print("Copyright: nobody")


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--lr", type=float, default=0.5)
    parser.add_argument("--log-every", type=int, default=5)
    parser.add_argument("--name", default="tiny")
    parser.add_argument("--out", type=Path, default=Path("model.json"))
    parser.add_argument("--verbose", action="store_true")
    parser.add_argument("--version", action="store_true")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    args = parse(argv)
    if args.version:
        print_version()
        return 0
    print("Arguments:")
    for key, value in sorted(vars(args).items()):
        print(f"  {key}: {value}")
    start = time.perf_counter()
    try:
        data = Dataset(args.data, window=8, verbose=args.verbose)
        model = Model(len(data.vocabulary), seed=0)
        trainer = Trainer(model, data, args)
        best = trainer.run()
    except OSError as exc:
        logger.error("Giving up", error=str(exc), exc_info=True)
        return 1
    except NonFiniteLoss as exc:
        logger.error("error", error=str(exc), exc_info=True)
        raise
    trainer.summary()
    metrics = evaluate(model, data)
    try:
        model.save(args.out)
    except OSError:
        logger.error("Saving failed, the model is lost", exc_info=True)
    logger.info("Finished, best loss", elapsed_s=time.perf_counter() - start, best=best)
    print(json.dumps(metrics))  # noqa: T201 - the result, for programs
    return 0


if __name__ == "__main__":
    setup_logging(__name__, experiment="train")
    sys.exit(main())
