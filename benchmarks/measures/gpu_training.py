"""A training loop with each way of logging, in alternating blocks of steps.

All arms train the same model in one process: a block of steps with one, then a block with the next;
every round starts with a different arm. So slow changes of the machine (clocks, temperature, other
processes) affect all arms alike, and the figure is a median of ratios within rounds.
"""

from __future__ import annotations

import gc
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from benchmarks.gpu.arms import ARMS, Arm, Row
from benchmarks.gpu.model import SHAPES, Scalars, Training
from benchmarks.gpu.ratios import bootstrap, ratio
from benchmarks.gpu.syncs import copies_to_host, trace, waits
from benchmarks.gpu.target import Target
from benchmarks.summary import describe, median

LARGEST_BATCH = 1024
LEAST_ROUNDS = 8
"""Minimum number of rounds, even if the time is up: fewer give no meaningful interval."""


def step_seconds(training: Training, target: Target, steps: int = 8) -> float:
    """Return the time of a step without logging, after the same number of warm-up steps."""
    times = []
    for _ in range(2):
        target.synchronize()
        start = time.perf_counter()
        for _ in range(steps):
            training.step()
        target.synchronize()
        times.append((time.perf_counter() - start) / steps)
    return times[-1]


def calibrate(training: Training, target: Target, wanted_s: float) -> float:
    """Choose the batch whose step takes about `wanted_s`.

    The batch is one sequence if that already takes longer, and the largest that fits into the
    device's memory if that takes less.

    Returns:
        Seconds per step with the chosen batch.
    """
    found: dict[int, float] = {}

    def attempt(batch: int) -> bool:
        """Measure a batch; False if it does not fit."""
        try:
            training.set_batch(batch)
            found[batch] = step_seconds(training, target)
        except torch.cuda.OutOfMemoryError:
            training.optimizer.zero_grad(set_to_none=True)
            return False
        finally:
            if target.cuda:
                torch.cuda.empty_cache()
        return True

    batch = 1
    while attempt(batch) and found[batch] < wanted_s and batch < LARGEST_BATCH:
        batch *= 2
    if not found:
        raise RuntimeError("not even one sequence fits into the device's memory")
    largest = max(found)
    if found[largest] > wanted_s and largest > 1:
        # Interpolate between the last two.
        low, high = found[largest // 2], found[largest]
        part = min(1.0, max(0.0, (wanted_s - low) / max(high - low, 1e-9)))
        attempt(round(largest // 2 * (1.0 + part)))
    best = min(found, key=lambda each: abs(found[each] - wanted_s))
    training.set_batch(best)
    return step_seconds(training, target)


class Lane:
    """An arm in the rotation, with its measurements."""

    def __init__(self, arm: Arm, training: Training, target: Target) -> None:
        self.arm, self.training, self.target = arm, training, target
        self.block_s: list[float] = []
        self.call_s: list[float] = []

    def train(self, steps: int) -> tuple[list[tuple[Scalars, float]], float]:
        """Train and log some steps.

        Returns:
            What was logged, and the seconds spent in logging calls.
        """
        kept, spent, clock = [], 0, time.perf_counter_ns
        first, log, train = self.arm.step, self.arm.log, self.training.step
        for step in range(first, first + steps):
            scalars, lr = train()
            before = clock()
            log(step, scalars, lr)
            spent += clock() - before
            kept.append((scalars, lr))
        self.arm.step += steps
        return kept, spent / 1e9

    def block(self, steps: int) -> None:
        """Time a block of training steps, from an idle device to an idle device."""
        self.target.synchronize()
        start = time.perf_counter()
        kept, spent = self.train(steps)
        self.target.synchronize()
        self.block_s.append(time.perf_counter() - start)
        self.call_s.append(self.arm.inside_ns / 1e9 or spent)
        self.settle(kept)

    def settle(self, kept: list[tuple[Scalars, float]]) -> None:
        """Let the arm finish, and store what it was given; off the clock."""
        self.arm.inside_ns = 0.0
        self.arm.settle()
        self.arm.given += values(kept)

    def idle_calls(self, steps: int) -> list[float]:
        """Return the call's seconds in some more steps, each with nothing queued."""
        spent = []
        kept: list[tuple[Scalars, float]] = []
        for _ in range(steps):
            scalars, lr = self.training.step()
            self.target.synchronize()
            before = time.perf_counter_ns()
            self.arm.log(self.arm.step, scalars, lr)
            outside = time.perf_counter_ns() - before
            spent.append((self.arm.inside_ns or outside) / 1e9)
            self.arm.inside_ns = 0.0
            self.arm.step += 1
            kept.append((scalars, lr))
        self.target.synchronize()
        self.settle(kept)
        return spent

    def profile(self, steps: int) -> dict[str, Any]:
        """Count the waits of some more steps; off the clock."""
        kept: list[tuple[Scalars, float]] = []
        traced = trace(lambda: kept.extend(self.train(steps)[0]))
        self.settle(kept)
        found = waits(traced.events)
        return {
            "steps": steps,
            "waits": dict(found),
            "waits_per_step": found.total() / steps,
            "copies_to_host": dict(copies_to_host(traced.events)),
            "seen": traced.seen,
        }


def values(kept: list[tuple[Scalars, float]]) -> list[Row]:
    """Read everything that was kept on the device, at once."""
    columns = [
        [scalars.loss, scalars.grad_norm, scalars.loss_max, scalars.loss_std] for scalars, _ in kept
    ]
    flat = torch.stack([value.double() for row in columns for value in row]).reshape(-1, 4).tolist()
    return [(*row, lr) for row, (_, lr) in zip(flat, kept, strict=True)]


def open_arms(names: list[str], directory: Path) -> tuple[list[Arm], dict[str, str]]:
    """Open the arms that can run here.

    Returns:
        The arms, and why the others cannot run.
    """
    opened, unavailable = [], {}
    for name in names:
        arm = ARMS[name]()
        (directory / name).mkdir()
        try:
            arm.open(directory / name)
        except ImportError as error:
            unavailable[name] = str(error)
        else:
            opened.append(arm)
    return opened, unavailable


def run(
    device: str,
    shape: str,
    wanted_ms: float,
    arms: list[str],
    seconds: float,
    block_s: float = 0.3,
    steps: int | None = None,
    profiled_steps: int = 0,
    idle_steps: int = 0,
) -> dict[str, Any]:
    """Calibrate a step, then measure all arms.

    Args:
        device: "cuda", or "cpu" for the smoke mode.
        shape: One of `SHAPES`.
        wanted_ms: The target step time of the calibration.
        arms: Names of arms; the others are compared with the first.
        seconds: Limit for the rotation; at least `LEAST_ROUNDS` rounds are made.
        block_s: Duration of a block in seconds.
        steps: Steps per block, instead of `block_s`.
        profiled_steps: Additional steps of each arm in which to count waits; 0 for none.
        idle_steps: Additional steps of each arm in which to time the call with nothing queued.

    Returns:
        The sizes, `arms` with times, ratios and waits of each, and `unavailable`.

    Raises:
        VerificationError: An arm's output differs from the device's values.
    """
    target = Target(device)
    training = Training(SHAPES[shape], 1, target)
    calibrated_s = calibrate(training, target, wanted_ms / 1e3)
    steps = steps or max(4, round(block_s / calibrated_s))
    with tempfile.TemporaryDirectory(prefix="fastlog-bench-") as scratch:
        directory = Path(scratch)
        opened, unavailable = open_arms(arms, directory)
        lanes = [Lane(arm, training, target) for arm in opened]
        for lane in lanes:
            lane.block(steps)
            lane.block_s.clear()
            lane.call_s.clear()
        gc.collect()
        gc.freeze()
        deadline = time.perf_counter() + seconds
        number = 0
        while number < LEAST_ROUNDS or time.perf_counter() < deadline:
            first = number % len(lanes)
            for lane in lanes[first:] + lanes[:first]:
                lane.block(steps)
            number += 1
        profiles = {
            lane.arm.name: lane.profile(profiled_steps) if profiled_steps else None
            for lane in lanes
        }
        idle = {lane.arm.name: lane.idle_calls(idle_steps) for lane in lanes}
        for lane in lanes:
            lane.arm.close()
        for lane in lanes:
            lane.arm.verify(directory / lane.arm.name)
        base = lanes[0]
        found = {}
        for lane in lanes:
            step_ms = [each / steps * 1e3 for each in lane.block_s]
            found[lane.arm.name] = {
                "step_ms": describe(step_ms),
                "throughput": ratio(base.block_s, lane.block_s),
                "call_us": bootstrap([each / steps * 1e6 for each in lane.call_s]),
                "idle_call_us": (
                    bootstrap([each * 1e6 for each in idle[lane.arm.name]]) if idle_steps else None
                ),
                "call_share": median(lane.call_s) / median(lane.block_s),
                "profile": profiles[lane.arm.name],
                "verified": len(lane.arm.given) if lane is not base else 0,
                "versions": lane.arm.versions(),
            }
    return {
        "shape": shape,
        "parameters": training.size(),
        "batch": training.batch,
        "sequence": training.shape.sequence,
        "dtype": str(target.dtype).removeprefix("torch."),
        "wanted_ms": wanted_ms,
        "steps_per_block": steps,
        "rounds": number,
        "arms": found,
        "unavailable": unavailable,
        "gpu": target.facts(),
    }
