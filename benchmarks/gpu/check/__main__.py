"""Everything about the device path that only a GPU can tell: `python -m benchmarks.gpu.check`."""

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

# Eight minutes, less what it takes to end a last part that hangs.
SECONDS = 465.0
LOGGED = 1 << 20  # bytes of a part's output in the log, its last ones
# Variables of launchers and of this package: what runs here is to be as on any machine.
AMBIENT = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "SLURM_PROCID")


def parts() -> tuple[Part, ...]:
    """Return the parts in their order: the machine, which each run has to know, comes first."""

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
    """Parse the command line; OUT and WHEELS of the environment are the defaults."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu.check",
        description="Prove the device path on a GPU in eight minutes, without a network: "
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
    names = [part.name for part in parts() if part.name != machine.NAME]
    parser.add_argument("--only", nargs="+", choices=names, metavar="PART", help=", ".join(names))
    parser.add_argument("--seconds", type=float, default=SECONDS, help=f"for all ({SECONDS:g})")
    return parser.parse_args(argv)


def environment(scratch: Path, out: Path, wheels: Path | None) -> dict[str, str]:
    """Return the variables of the parts: this checkout comes first, then what wheels bring."""
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
    """Return what the first part found out about the machine."""
    for part in results:
        for found in part["findings"]:
            if found["name"] == machine.NAME:
                figures: dict[str, Any] = found["figures"]
                return figures
    return {}


def heading(known: dict[str, Any]) -> str:
    """Return what kind of run this was, in a line."""
    if known.get("gpu"):
        return f"GPU check: {known['gpu']}, driver {known.get('driver')}, torch {known['torch']}"
    if not known and (path := machine.unused()):
        return f"GPU check: which GPU {path} is could not be found out; all was run as on one."
    why = known.get("why_none", "what machine this is could not be found out")
    return f"REHEARSAL, no GPU ({why}): no time in here says anything about a GPU."


class Check:
    """A run of the check: what it has come to, and what of it goes to OUT."""

    def __init__(self, wanted: list[Part], out: Path, scratch: Path, runner: Runner) -> None:
        """Nothing is known yet."""
        self.wanted, self.scratch, self.runner = wanted, scratch, runner
        self.files = Files(out)
        self.started = time.monotonic()
        self.result: dict[str, Any] = {"format": 1, "host": facts(), "machine": {}, "parts": []}
        self.files.attempt("gpu-check.log", lambda path: path.write_bytes(b""))

    def reported(self, part: dict[str, Any]) -> None:
        """Tell what a part came to, and write it down."""
        say(table.row(part))
        self.result["parts"].append(part)
        if part["part"] == machine.NAME:
            known = self.result["machine"] = machine_of([part])
            # Decided once: a part that finds no GPU on a GPU's run is broken, and no rehearsal. Nor
            # is it one where this part has said nothing, as on a disk that is slow to import torch.
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
        0 when nothing is broken, and on a GPU nothing falls short; 2 when OUT cannot be used; 128
        and its number after a signal.
    """
    options = arguments(argv)
    out = options.out.resolve()
    try:
        out.mkdir(parents=True, exist_ok=True)
        lock = locked(out / LOCK)
    except OSError as error:
        say(f"{out} cannot be written, name another folder as OUT: {error}")
        return 2
    if lock is None:
        say(f"another check is writing to {out}: wait for it, or name another folder as OUT")
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
