"""The extension, built in place by a compiler and pybind11: setuptools may be missing or old."""

from __future__ import annotations

import os
import shlex
import subprocess
import sysconfig
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from benchmarks.machine import ROOT, cores

# Those of a release in setup.py, without its warnings.
FLAGS = (
    *("-std=c++20", "-O3", "-DNDEBUG", "-fPIC", "-pthread", "-fno-math-errno"),
    *("-fvisibility=hidden", "-fvisibility-inlines-hidden"),
)


def target() -> Path:
    """Return the extension's file for this interpreter."""
    return ROOT / "foundry_fastlog" / f"_core{sysconfig.get_config_var('EXT_SUFFIX')}"


def is_current() -> bool:
    """Tell whether the extension is there, and no source is newer."""
    sources = [path for path in (ROOT / "csrc").rglob("*") if path.is_file()]
    built = target()
    return built.exists() and built.stat().st_mtime >= max(path.stat().st_mtime for path in sources)


def compiled(command: list[str]) -> None:
    """Run a compiler.

    Raises:
        RuntimeError: It failed; the message has the end of what it said.
    """
    done = subprocess.run(command, check=False, capture_output=True, text=True, cwd=ROOT)
    if done.returncode:
        print(shlex.join(command), done.stderr, sep="\n", flush=True)
        raise RuntimeError(f"the compiler failed: {done.stderr[-500:]}")


def build() -> None:
    """Compile all sources, on every core, and put the linked file in place."""
    import pybind11

    compiler = shlex.split(os.environ.get("CXX") or "g++")
    includes = ["-Icsrc", "-isystem", pybind11.get_include()]
    includes += ["-isystem", sysconfig.get_paths()["include"]]
    rooms = (ROOT / "csrc" / room for room in ("core", "device", "bindings"))
    sources = sorted(path for room in rooms for path in room.glob("*.cpp"))
    with tempfile.TemporaryDirectory() as scratch:
        objects = [Path(scratch) / f"{i}-{path.stem}.o" for i, path in enumerate(sources)]
        commands = [
            [*compiler, *FLAGS, *includes, "-c", str(source), "-o", str(made)]
            for source, made in zip(sources, objects, strict=True)
        ]
        with ThreadPoolExecutor(cores()) as pool:
            list(pool.map(compiled, commands))
        linked = Path(scratch) / target().name
        compiled([*compiler, "-shared", "-pthread", *map(str, objects), "-o", str(linked)])
        beside = target().with_name(target().name + ".new")
        beside.write_bytes(linked.read_bytes())
        beside.chmod(0o755)
        beside.replace(target())
