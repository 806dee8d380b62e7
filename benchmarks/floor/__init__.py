"""Build and import the empty C functions used as the floor of the call benchmarks."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import shlex
import subprocess
import sys
import sysconfig
from pathlib import Path
from types import ModuleType

SOURCE = Path(__file__).with_name("empty.c")
CACHE = Path(__file__).resolve().parent.parent / ".build"
MODULE = "fastlog_bench_floor"


def compiler() -> list[str]:
    """Return the command that compiles one extension file here (`CC` overrides it)."""
    command = shlex.split(os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc")
    flags = ["-O2", "-fPIC", "-Wall", "-Wextra", "-I", sysconfig.get_path("include")]
    if sys.platform == "darwin":
        return [*command, *flags, "-bundle", "-undefined", "dynamic_lookup"]
    return [*command, *flags, "-shared"]


def build() -> Path:
    """Compile the extension unless it is already built from the same source and command.

    Returns:
        The shared object, in a cache directory ignored by git.

    Raises:
        RuntimeError: The compiler failed; the message has its output.
    """
    command = compiler()
    suffix = sysconfig.get_config_var("EXT_SUFFIX")
    key = hashlib.sha256(SOURCE.read_bytes() + repr((command, sys.version)).encode()).hexdigest()[
        :12
    ]
    target = CACHE / key / f"{MODULE}{suffix}"
    if target.exists():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    scratch = target.with_name(f"{target.name}.{os.getpid()}")
    done = subprocess.run(
        [*command, str(SOURCE), "-o", str(scratch)], check=False, capture_output=True, text=True
    )
    if done.returncode:
        raise RuntimeError(f"{shlex.join(command)} failed:\n{done.stderr}")
    scratch.replace(target)
    return target


def load() -> ModuleType:
    """Return the module with the function `empty` and the type `Floor` with a method `empty`.

    Raises:
        RuntimeError: It cannot be compiled.
        ImportError: It cannot be loaded.
    """
    spec = importlib.util.spec_from_file_location(MODULE, build())
    if spec is None or spec.loader is None:
        raise ImportError(f"{MODULE} cannot be loaded")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
