"""The extension, built in place by a compiler and pybind11: setuptools may be missing or old."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shlex
import subprocess
import sysconfig
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from benchmarks.machine import ROOT, cores

# The release flags of setup.py, without its warnings.
FLAGS = (
    *("-std=c++20", "-O3", "-DNDEBUG", "-fPIC", "-pthread", "-fno-math-errno"),
    *("-fvisibility=hidden", "-fvisibility-inlines-hidden"),
)


def target() -> Path:
    """Return the extension's file for this interpreter."""
    return ROOT / "foundry_fastlog" / f"_core{sysconfig.get_config_var('EXT_SUFFIX')}"


def is_current(built: Path | None = None) -> bool:
    """Return whether a file (default: the extension) exists and no source is newer."""
    sources = [path for path in (ROOT / "csrc").rglob("*") if path.is_file()]
    built = built or target()
    return built.exists() and built.stat().st_mtime >= max(path.stat().st_mtime for path in sources)


def made(command: list[str], to: Path) -> None:
    """Run a compiler; its output gets its name only once it is complete.

    Raises:
        RuntimeError: It failed; the message has the end of its output.
    """
    beside = to.with_name(to.name + ".new")
    command = [*command, "-o", str(beside)]
    done = subprocess.run(command, check=False, capture_output=True, text=True, cwd=ROOT)
    if done.returncode:
        print(shlex.join(command), done.stderr, sep="\n", flush=True)
        raise RuntimeError(f"the compiler failed: {done.stderr[-500:]}")
    beside.replace(to)


@contextlib.contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Hold the build lock of a folder; wait for another build."""
    with (folder / ".lock").open("a", encoding="utf-8") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("another process is building: waiting for it", flush=True)
            fcntl.flock(lock, fcntl.LOCK_EX)
        except OSError as error:
            print(f"cannot lock, so make sure that nothing else builds: {error}", flush=True)
        yield


def build() -> None:
    """Compile all sources, on all cores, and move the linked file into place."""
    # Objects are kept, so that a build that timed out continues where it stopped.
    folder = ROOT / "build" / f"gpu-check-ext{sysconfig.get_config_var('EXT_SUFFIX')}"
    folder.mkdir(parents=True, exist_ok=True)
    with alone(folder):
        if not is_current():  # another build may have made it current
            compile_all(folder)


def compile_all(folder: Path) -> None:
    """Compile and link; objects are written to the folder."""
    import pybind11

    compiler = shlex.split(os.environ.get("CXX") or "g++")
    includes = ["-Icsrc", "-isystem", pybind11.get_include()]
    includes += ["-isystem", sysconfig.get_paths()["include"]]
    rooms = (ROOT / "csrc" / room for room in ("core", "device", "bindings"))
    sources = sorted(path for room in rooms for path in room.glob("*.cpp"))

    def one(source: Path) -> Path:
        result = folder / f"{source.parent.name}-{source.stem}.o"
        if not is_current(result):
            made([*compiler, *FLAGS, *includes, "-c", str(source)], result)
        return result

    with ThreadPoolExecutor(cores()) as pool:
        objects = [str(path) for path in pool.map(one, sources)]
    made([*compiler, "-shared", "-pthread", *objects], target())
