"""Measure device scalars on a GPU: `python -m benchmarks.gpu`."""

from __future__ import annotations

import argparse
import json
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks import machine
from benchmarks.child import spawn
from benchmarks.gpu import goals, page, plot

RESULTS = machine.ROOT / "benchmarks" / "results"
SMOKE_OUT = machine.ROOT / "build" / "gpu-smoke"
ARMS = ("none", "none_again", "bare", "fastlog", "fastlog_item", "wandb", "tensorboard")
PARTIAL = "partial.json"
"""Results so far; left behind by a run that is cut off."""
PROFILED_STEPS = 10
IDLE_STEPS = 60
# Step time in ms, model, and measuring time in seconds.
SIZES = ((1.0, "small", 20.0), (5.0, "medium", 25.0), (20.0, "large", 35.0), (100.0, "large", 45.0))
QUICK = ((5.0, "medium", 10.0), (20.0, "large", 15.0))
SMOKE = ((5.0, "tiny", 0.5),)


def say(line: str) -> None:
    """Print one progress line immediately."""
    print(line, flush=True)


def measure(options: argparse.Namespace, keep: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    """Run each measure in a fresh process.

    Args:
        options: Command-line options.
        keep: Receives the results so far after each measure.

    Returns:
        The result as written to the file.
    """
    smoke = options.device == "cpu"
    sizes = SMOKE if smoke else QUICK if options.quick else SIZES
    idle_steps = 3 if smoke else IDLE_STEPS
    rounds = 5 if smoke else 60 if options.quick else 200
    say("cost of a call")
    scalars = spawn("gpu_scalars", device=options.device, rounds=rounds)
    result: dict[str, Any] = {
        "format": 1,
        "smoke": smoke,
        "quick": bool(options.quick),
        "machine": machine.facts(),
        "gpu": scalars.pop("gpu"),
        "scalars": scalars,
        "training": [],
    }
    keep(judged(result))
    for wanted_ms, shape, seconds in sizes:
        say(f"training, steps of about {wanted_ms:g} ms")
        section = spawn(
            "gpu_training",
            device=options.device,
            shape=shape,
            wanted_ms=wanted_ms,
            arms=options.arms,
            seconds=seconds,
            steps=options.steps or (3 if smoke else None),
            profiled_steps=PROFILED_STEPS if wanted_ms == goals.SHARE_AT_MS else 0,
            idle_steps=idle_steps if wanted_ms == goals.SHARE_AT_MS else 0,
        )
        result["training"].append(section)
        for arm, why in section["unavailable"].items():
            say(f"  {arm} cannot run here: {why}")
        keep(judged(result))
    return result


def judged(result: dict[str, Any]) -> dict[str, Any]:
    """Add the goals, as far as they can be judged yet."""
    result["goals"] = goals.judge(result)
    return result


def slug(result: dict[str, Any]) -> str:
    """Return the base name of a result's files: `gpu-nvidia-h100-80gb-hbm3` or `smoke-no-gpu`."""
    name = re.sub(r"[^a-z0-9]+", "-", result["gpu"]["name"].lower()).strip("-")
    return "smoke-no-gpu" if result["smoke"] else f"gpu-{name}"


def write(result: dict[str, Any], directory: Path, name: str) -> Path:
    """Write the page and the plot next to the result.

    Returns:
        The page.
    """
    drawing, text = directory / f"{name}.svg", directory / f"{name}.md"
    drawing.write_text(plot.svg(result), encoding="utf-8")
    text.write_text(page.render(result, drawing.name), encoding="utf-8")
    return text


def write_json(path: Path, result: dict[str, Any]) -> None:
    """Write figures atomically."""
    beside = path.with_name(path.name + ".new")
    beside.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    beside.replace(path)


def arguments(argv: list[str]) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu",
        description="Measure the cost of device scalars: a call against bare asynchronous copies, "
        "and training with and without logging. Verifies every output; writes JSON, page and plot.",
    )
    parser.add_argument("--quick", action="store_true", help="only two step times, fewer rounds")
    parser.add_argument(
        "--steps", type=int, metavar="N", help="steps per block (default: about 0.3 s)"
    )
    parser.add_argument("--out", type=Path, help="directory (benchmarks/results)")
    parser.add_argument(
        "--arms", nargs="+", choices=ARMS, default=list(ARMS), help="only these arms (default: all)"
    )
    parser.add_argument(
        "--device", choices=("cuda", "cpu"), default="cuda", help="cpu: a smoke run without figures"
    )
    parser.add_argument(
        "--render",
        type=Path,
        metavar="FILE",
        help="measure nothing; render this JSON again",
    )
    options = parser.parse_args(argv)
    if not {"none", "none_again", "fastlog"} <= set(options.arms):
        parser.error("--arms needs none, none_again and fastlog: the goals compare them")
    # The arm that the others are compared with comes first.
    options.arms = [arm for arm in ARMS if arm in options.arms]
    if options.steps is not None and options.steps < 1:
        parser.error("--steps must be at least 1")
    smoke = options.device == "cpu"
    options.out = options.out or (SMOKE_OUT if smoke else RESULTS)
    if smoke and options.out.resolve() == RESULTS and options.render is None:
        parser.error(f"a smoke run is no result: it is not written to {RESULTS.name}/")
    return options


def main(argv: list[str]) -> int:
    """Run the command line.

    Returns:
        The exit status.
    """
    options = arguments(argv)
    if options.render is not None:
        result = json.loads(options.render.read_text(encoding="utf-8"))
        result["goals"] = goals.judge(result)
        say(str(write(result, options.render.parent, options.render.stem)))
        return 0
    started = time.perf_counter()
    options.out.mkdir(parents=True, exist_ok=True)
    partial = options.out / PARTIAL
    result = measure(options, lambda known: write_json(partial, known))
    name = slug(result)
    write_json(options.out / f"{name}.json", result)
    partial.unlink()
    text = write(result, options.out, name)
    for each in result["goals"]:
        say(goals.line(each))
    say(f"{time.perf_counter() - started:.0f} s; {text}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
