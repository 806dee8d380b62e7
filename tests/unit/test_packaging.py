"""What is installed: a light import, one version, type information, complete package data."""

from __future__ import annotations

import ast
import importlib
import importlib.metadata
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import foundry_fastlog

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "foundry_fastlog"
STUB = PACKAGE / "_core.pyi"
# Each costs more than the whole package may (see the import gate in benchmarks/gates).
HEAVY = ("numpy", "polars", "pydantic", "rich", "torch", "typer", "wandb", "yaml")


def modules_after(code: str) -> set[str]:
    """List the top-level modules loaded in a fresh interpreter after `code`."""
    probe = f"{code}\nimport json, sys\nprint(json.dumps(sorted(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", probe], capture_output=True, text=True, timeout=60, check=True
    )
    return {name.split(".")[0] for name in json.loads(done.stdout.splitlines()[-1])}


def test_recording_loads_nothing_heavy(tmp_path: Path) -> None:
    """A script that records plain floats never pays for numpy, torch or pydantic."""
    before = modules_after("pass")
    code = f"""
from foundry_fastlog import Recorder
with Recorder({str(tmp_path / "run")!r}) as recorder:
    recorder.record(0, loss=1.5)
"""
    loaded = modules_after(code) - before
    assert loaded.isdisjoint(HEAVY)
    assert '"loss":1.5' in (tmp_path / "run" / "metrics.jsonl").read_text(encoding="utf-8")


def test_version_is_stated_once() -> None:
    assert foundry_fastlog.__version__ == importlib.metadata.version("foundry_fastlog")


def test_the_command_is_installed() -> None:
    scripts = importlib.metadata.distribution("foundry_fastlog").entry_points
    (script,) = [entry for entry in scripts if entry.group == "console_scripts"]
    assert script.name == "foundry-fastlog"
    assert callable(script.load())


def test_a_wheel_ships_every_file_of_the_package(tmp_path: Path) -> None:
    """py.typed, stubs, schemas and demo configurations are in what a wheel copies."""
    subprocess.run(
        [sys.executable, "setup.py", "-q", "build_py", "--build-lib", str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        timeout=120,
        check=True,
    )

    def shipped_names(folder: Path) -> set[str]:
        return {
            path.relative_to(folder).as_posix()
            for path in folder.rglob("*")
            if path.is_file() and path.suffix not in (".so", ".pyc")
        }

    shipped = shipped_names(tmp_path / "foundry_fastlog")
    assert {"py.typed", "_core.pyi"} <= shipped
    assert any(name.startswith("run/schema/") and name.endswith(".json") for name in shipped)
    assert any(name.startswith("demo/") and name.endswith(".yaml") for name in shipped)
    assert shipped == shipped_names(PACKAGE)


def stub_names() -> dict[str, set[str]]:
    """Map each public top-level name of the stub to its public members (empty if no class).

    A TypedDict describes the shape of a dict for type checkers; the extension has no such class.
    """
    names: dict[str, set[str]] = {}
    for node in ast.parse(STUB.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ClassDef):
            if "TypedDict" in [base.id for base in node.bases if isinstance(base, ast.Name)]:
                continue
            names[node.name] = set(defined_names(node.body))
        else:
            names.update({name: set() for name in defined_names([node])})
    return {name: members for name, members in names.items() if not name.startswith("_")}


def defined_names(body: list[ast.stmt]) -> list[str]:
    """List the public names that statements define; imports define none."""
    names = []
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.append(node.name)
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            names.append(node.target.id)
        elif isinstance(node, ast.Assign):
            names += [target.id for target in node.targets if isinstance(target, ast.Name)]
    return [name for name in names if not name.startswith("_")]


def native_names(module: ModuleType) -> dict[str, set[str]]:
    """Map each public top-level name of the extension to its public members."""
    result = {}
    for name, value in vars(module).items():
        if name.startswith("_"):
            continue
        own = vars(value) if isinstance(value, type) else {}
        result[name] = {member for member in own if not member.startswith("_")}
    return result


def test_the_stub_covers_the_extension_exactly() -> None:
    native = native_names(importlib.import_module("foundry_fastlog._core"))
    assert native
    assert stub_names() == native
