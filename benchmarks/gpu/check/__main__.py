"""Everything about the device path that only a GPU can tell: `python -m benchmarks.gpu.check`."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.gpu.check import table
from benchmarks.gpu.check.report import BROKEN, SHORT
from benchmarks.gpu.check.runner import Part, run_all, tail
from benchmarks.machine import ROOT, facts

# Eight minutes, less what it takes to end a last part that hangs.
SECONDS = 465.0
LOGGED = 1 << 20  # bytes of a part's output in the log, its last ones
# Variables of launchers and of this package: what runs here is to be as on any machine.
AMBIENT = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "SLURM_PROCID")


def parts() -> tuple[Part, ...]:
    """Return the parts in their order, the ten experiments first."""

    def part(name: str, limit_s: float, least_s: float = 8.0) -> Part:
        command = (sys.executable, "-X", "faulthandler", "-u", "-m", "benchmarks.gpu.check.child")
        return Part(name, (*command, name), limit_s, least_s)

    return (
        part("prepare", 240.0),
        part("basics", 45.0),
        part("micro", 40.0),
        part("captures", 40.0),
        part("heartbeat", 50.0),
        part("nosync", 45.0),
        part("lifetimes", 60.0),
        part("timers", 40.0),
        part("ends", 70.0),
        part("gpu_tests", 170.0, 60.0),
        part("bench", 150.0, 100.0),
    )


def arguments(argv: list[str]) -> argparse.Namespace:
    """Parse the command line; OUT and WHEELS of the environment are the defaults."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu.check",
        description="Prove the device path on a GPU in eight minutes, without a network: ten "
        "experiments, tests/gpu, the quick benchmark. Without a GPU all of it is rehearsed on a "
        "fake driver. Writes gpu-check.json, .txt and .log, and the benchmark's page.",
    )
    out = os.environ.get("OUT") or ROOT / "build" / "gpu-check"
    parser.add_argument("--out", type=Path, default=out, help="directory (OUT; build/gpu-check)")
    parser.add_argument(
        "--wheels",
        type=Path,
        default=os.environ.get("WHEELS") or None,
        help="folder with wheels of orjson and pydantic, where Python lacks them (WHEELS)",
    )
    names = [part.name for part in parts()]
    parser.add_argument("--only", nargs="+", choices=names, metavar="PART", help=", ".join(names))
    parser.add_argument("--seconds", type=float, default=SECONDS, help=f"for all ({SECONDS:g})")
    return parser.parse_args(argv)


def environment(scratch: Path, out: Path, wheels: Path | None) -> dict[str, str]:
    """Return the variables of the parts: this checkout comes first, then what wheels bring."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("FASTLOG_", "PYTEST_")) and name not in AMBIENT
    }
    site = scratch / "site"
    path = [str(site), str(ROOT), str(ROOT / "tests"), kept.get("PYTHONPATH", "")]
    return {
        **kept,
        "PYTHONPATH": os.pathsep.join(filter(None, path)),
        "GPU_CHECK_SITE": str(site),
        "GPU_CHECK_OUT": str(out),
        **({"GPU_CHECK_WHEELS": str(wheels)} if wheels else {}),
        "TMPDIR": str(scratch),
    }


def machine_of(results: list[dict[str, Any]]) -> dict[str, Any]:
    """Return what the first part found out about the machine."""
    for part in results:
        for found in part["findings"]:
            if found["name"] == "machine":
                figures: dict[str, Any] = found["figures"]
                return figures
    return {}


def heading(machine: dict[str, Any]) -> str:
    """Return what kind of run this was, in a line."""
    if machine.get("gpu"):
        return (
            f"GPU check: {machine['gpu']}, driver {machine.get('driver')}, torch {machine['torch']}"
        )
    why = machine.get("why_none", "what machine this is could not be found out")
    return f"REHEARSAL, no GPU ({why}): no time in here says anything about a GPU."


def main(argv: list[str]) -> int:
    """Run the command line.

    Returns:
        0 when nothing is broken, and on a GPU nothing falls short.
    """
    options = arguments(argv)
    out = options.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    wanted = [part for part in parts() if options.only is None or part.name in options.only]
    result: dict[str, Any] = {"format": 1, "host": facts(), "machine": {}, "parts": []}
    log = out / "gpu-check.log"
    log.write_bytes(b"")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="gpu-check-", ignore_cleanup_errors=True) as scratch:
        folder = Path(scratch)

        def reported(part: dict[str, Any]) -> None:
            result["parts"].append(part)
            result["machine"] = machine_of(result["parts"])
            result["seconds"] = round(time.monotonic() - started, 1)
            table.write(out / "gpu-check.json", result)
            print(table.row(part), flush=True)
            output = folder / f"{part['part']}.log"
            with log.open("ab") as file:
                file.write(f"\n==== {part['part']}: {part['verdict']}\n".encode())
                file.write(tail(output, LOGGED))

        wheels = options.wheels.resolve() if options.wheels else None
        try:
            run_all(
                wanted, folder, options.seconds, environment(folder, out, wheels), ROOT, reported
            )
        finally:
            text = table.table(result["parts"], heading(result["machine"]))
            (out / "gpu-check.txt").write_text(text, encoding="utf-8")
            print(f"\n{text}\nall figures: {out / 'gpu-check.json'}", flush=True)
    verdicts = {part["verdict"] for part in result["parts"]}
    bad = {BROKEN, SHORT} if result["machine"].get("gpu") else {BROKEN}
    return 1 if verdicts & bad else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
