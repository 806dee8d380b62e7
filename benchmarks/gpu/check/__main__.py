"""Checks everything that needs a GPU: `python -m benchmarks.gpu.check`."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.gpu.check import machine, table
from benchmarks.gpu.check.files import LOCK, Files, locked, say
from benchmarks.gpu.check.machines import REHEARSAL
from benchmarks.gpu.check.report import BROKEN, SHORT
from benchmarks.gpu.check.runner import Guard, Part, Runner, Stop, tail
from benchmarks.machine import ROOT, facts

# Eight minutes, minus the time to end a last part that hangs.
SECONDS = 465.0
LOGGED = 1 << 20  # last bytes of a part's output kept in the log
# Variables of launchers and of this package, removed so that the check behaves the same everywhere.
AMBIENT = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "SLURM_PROCID")


def parts() -> tuple[Part, ...]:
    """Return the parts in order; `machine` comes first, because every run depends on it."""

    def part(name: str, limit_s: float, least_s: float = 8.0) -> Part:
        command = (sys.executable, "-X", "faulthandler", "-u", "-m", "benchmarks.gpu.check.child")
        return Part(name, (*command, name), limit_s, least_s)

    return (
        part(machine.NAME, 90.0),
        part("prepare", 240.0),
        part("basics", 45.0),
        part("micro", 40.0),
        part("captures", 40.0),
        part("heartbeat", 50.0),
        part("nosync", 45.0),
        part("lifetimes", 60.0),
        part("timers", 40.0),
        part("ends", 100.0),
        part("gpu_tests", 170.0, 60.0),
        part("bench", 150.0, 100.0),
    )


def arguments(argv: list[str]) -> argparse.Namespace:
    """Parse the command line; the defaults are OUT and WHEELS from the environment."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu.check",
        description="Check the device path on a GPU in eight minutes, without a network: "
        "experiments, tests/gpu, the quick benchmark. Without a GPU, everything is rehearsed on a "
        "fake driver. Writes gpu-check.json, .txt and .log, and the benchmark's page.",
    )
    out = os.environ.get("OUT") or ROOT / "build" / "gpu-check"
    parser.add_argument("--out", type=Path, default=out, help="directory (OUT; build/gpu-check)")
    parser.add_argument(
        "--wheels",
        type=Path,
        default=os.environ.get("WHEELS") or None,
        help="folder with wheels of orjson and pydantic, if Python lacks them (WHEELS)",
    )
    names = [part.name for part in parts() if part.name != machine.NAME]
    parser.add_argument("--only", nargs="+", choices=names, metavar="PART", help=", ".join(names))
    parser.add_argument(
        "--seconds", type=float, default=SECONDS, help=f"total time limit ({SECONDS:g})"
    )
    return parser.parse_args(argv)


def environment(scratch: Path, out: Path, wheels: Path | None) -> dict[str, str]:
    """Return the parts' environment: this checkout comes first, then the installed wheels."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("FASTLOG_", "PYTEST_", "GPU_CHECK_")) and name not in AMBIENT
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
    """Return what the first part found about the machine."""
    for part in results:
        for found in part["findings"]:
            if found["name"] == machine.NAME:
                figures: dict[str, Any] = found["figures"]
                return figures
    return {}


def heading(known: dict[str, Any]) -> str:
    """Return a line that says what kind of run this was."""
    if known.get("gpu"):
        return f"GPU check: {known['gpu']}, driver {known.get('driver')}, torch {known['torch']}"
    if not known and (path := machine.unused()):
        return f"GPU check: which GPU {path} is could not be determined; ran as on a GPU."
    why = known.get("why_none", "what machine this is could not be determined")
    return f"REHEARSAL, no GPU ({why}): no time in it says anything about a GPU."


class Check:
    """A run of the check: its results, and the files written to OUT."""

    def __init__(self, wanted: list[Part], out: Path, scratch: Path, runner: Runner) -> None:
        """Start without results."""
        self.wanted, self.scratch, self.runner = wanted, scratch, runner
        self.files = Files(out)
        self.started = time.monotonic()
        self.result: dict[str, Any] = {"format": 1, "host": facts(), "machine": {}, "parts": []}
        self.files.attempt("gpu-check.log", lambda path: path.write_bytes(b""))

    def reported(self, part: dict[str, Any]) -> None:
        """Print a part's result, and write it to the files."""
        say(table.row(part))
        self.result["parts"].append(part)
        if part["part"] == machine.NAME:
            known = self.result["machine"] = machine_of([part])
            # Decided once: a part that finds no GPU on a GPU run is broken, not a rehearsal. Nor is
            # it a rehearsal if this part reported nothing, as when importing torch is slow.
            rehearsal = "" if known.get("gpu") or (not known and machine.unused()) else "1"
            self.runner.environment = {**self.runner.environment, REHEARSAL: rehearsal}
        self.result["seconds"] = round(time.monotonic() - self.started, 1)
        self.files.attempt("gpu-check.json", lambda path: table.write(path, self.result))
        self.files.attempt("gpu-check.log", lambda path: self.log(path, part))

    def log(self, path: Path, part: dict[str, Any]) -> None:
        """Append a part's output."""
        with path.open("ab") as file:
            file.write(f"\n==== {part['part']}: {part['verdict']}\n".encode())
            file.write(tail(self.scratch / f"{part['part']}.log", LOGGED))

    def ended(self) -> None:
        """Print the table, then write it."""
        text = heading(self.result["machine"])
        if self.runner.stop.number:
            run = {part["part"] for part in self.result["parts"]}
            rest = ", ".join(part.name for part in self.wanted if part.name not in run)
            self.result["interrupted"] = self.runner.stop.name()
            text += f"\nINTERRUPTED by {self.runner.stop.name()}; not run: {rest or 'nothing'}"
        text = table.table(self.result["parts"], text)
        say(f"\n{text}")
        self.files.attempt("gpu-check.json", lambda path: table.write(path, self.result))
        self.files.attempt(
            "gpu-check.txt", lambda path: path.write_text(text, "utf-8", "backslashreplace")
        )
        if not self.files.lost:
            say(f"all figures: {self.files.folder / 'gpu-check.json'}")

    def status(self) -> int:
        """Return the exit status."""
        if self.runner.stop.number:
            return 128 + self.runner.stop.number
        verdicts = {part["verdict"] for part in self.result["parts"]}
        rehearsed = self.runner.environment.get(REHEARSAL)
        bad = {BROKEN} if rehearsed else {BROKEN, SHORT}
        return 1 if verdicts & bad or self.files.lost else 0


def main(argv: list[str]) -> int:
    """Run the command line.

    Returns:
        0 if nothing is broken and, on a GPU, nothing falls short; 2 if OUT cannot be used; 128 plus
        its number after a signal.
    """
    options = arguments(argv)
    out = options.out.resolve()
    try:
        out.mkdir(parents=True, exist_ok=True)
        lock = locked(out / LOCK)
    except OSError as error:
        say(f"{out} cannot be written, choose another folder with OUT: {error}")
        return 2
    if lock is None:
        say(f"another check is writing to {out}: wait for it, or choose another folder with OUT")
        return 2
    stop = Stop()
    names = {machine.NAME, *(options.only or ())}
    wanted = [part for part in parts() if options.only is None or part.name in names]
    wheels = options.wheels.resolve() if options.wheels else None
    with (
        lock,
        stop.listening(),
        contextlib.closing(Guard()) as guard,
        tempfile.TemporaryDirectory(prefix="gpu-check-", ignore_cleanup_errors=True) as scratch,
    ):
        folder = Path(scratch)
        runner = Runner(folder, environment(folder, out, wheels), ROOT, stop, guard)
        check = Check(wanted, out, folder, runner)
        try:
            runner.run_all(wanted, options.seconds, check.reported)
        finally:
            check.ended()
    return check.status()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
