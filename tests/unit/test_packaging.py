"""What is installed: a light import, public names, one version, types, complete package data."""

from __future__ import annotations

import ast
import importlib
import importlib.metadata
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
from oracle import OracleWriter
from recorded import run_python

import foundry_fastlog

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "foundry_fastlog"
STUB = PACKAGE / "_core.pyi"
# Each costs more than the whole package may (see the import gate in benchmarks/gates).
HEAVY = ("numpy", "polars", "pydantic", "rich", "torch", "typer", "wandb", "yaml")


def test_recording_loads_nothing_heavy(tmp_path: Path) -> None:
    """A script that records plain floats never pays for numpy, torch or pydantic."""
    run_python(
        f"""
import sys
before = set(sys.modules)
from foundry_fastlog import Recorder
with Recorder(sys.argv[1]) as recorder:
    recorder.record(0, loss=1.5)
assert not (set(sys.modules) - before) & {set(HEAVY)}
""",
        tmp_path,
    )
    assert '"loss":1.5' in (tmp_path / "metrics.jsonl").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", sorted(set(foundry_fastlog.__all__) - {"__version__"}))
def test_every_name_is_its_home_s(name: str) -> None:
    """A public name is the object of that name in its module, and stays the same object."""
    value = getattr(foundry_fastlog, name)
    home = importlib.import_module(foundry_fastlog._HOMES[name])
    assert getattr(home, name) is value
    assert getattr(foundry_fastlog, name) is value
    assert vars(foundry_fastlog)[name] is value


def test_errors_name_extras_that_there_are() -> None:
    """What is told of a missing package can be typed."""
    named = {
        call.args[0].value
        for path in PACKAGE.rglob("*.py")
        for call in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(call, ast.Call)
        and isinstance(call.func, ast.Name)
        and call.func.id == "extra"
        and isinstance(call.args[0], ast.Constant)
    }
    listed = (ROOT / "pyproject.toml").read_text("utf-8").partition("optional-dependencies]")[2]
    there = set(re.findall(r"^([a-z-]+) = \[", listed.partition("\n\n[")[0], re.MULTILINE))
    assert "mlflow" in named
    assert named <= there


@pytest.mark.parametrize(
    ("adapter", "needed"),
    [
        ("accelerate", ["accelerate"]),
        ("clu", ["clu", "jax"]),
        ("keras", ["keras"]),
        ("lightning", ["lightning", "pytorch_lightning", "lightning_utilities"]),
        ("ray", ["ray"]),
        ("torchtitan", ["torchtitan"]),
        ("transformers", ["transformers"]),
    ],
)
def test_an_adapter_without_its_trainer_says_how_to_get_it(
    monkeypatch: pytest.MonkeyPatch, adapter: str, needed: list[str]
) -> None:
    for name in [*sys.modules]:
        if name.partition(".")[0] in needed:
            monkeypatch.delitem(sys.modules, name)
    for name in needed:
        monkeypatch.setitem(sys.modules, name, None)
    module = f"foundry_fastlog.integrations.{adapter}"
    monkeypatch.delitem(sys.modules, module, raising=False)
    with pytest.raises(ImportError, match=rf"pip install 'foundry_fastlog\[{adapter}\]'"):
        importlib.import_module(module)


def test_what_needs_numpy_says_how_to_get_it(tmp_path: Path) -> None:
    OracleWriter(tmp_path).fill(range(3))
    run_python(
        f"""
import sys
sys.modules["numpy"] = None
import foundry_fastlog
run = foundry_fastlog.read_run({str(tmp_path)!r})
for call in (run.goodput, run.compare_ranks, lambda: foundry_fastlog.compare_ranks):
    try:
        call()
    except ImportError as error:
        assert "pip install 'foundry_fastlog[plot]'" in str(error), error
    else:
        raise AssertionError(call)
"""
    )


def test_dir_lists_the_public_names() -> None:
    assert dir(foundry_fastlog) == sorted(foundry_fastlog.__all__)
    assert set(foundry_fastlog._HOMES) | {"__version__"} == set(foundry_fastlog.__all__)


def test_unknown_name() -> None:
    with pytest.raises(AttributeError, match="module 'foundry_fastlog' has no attribute 'Logger'"):
        foundry_fastlog.Logger  # noqa: B018 - the access is what is tested
    with pytest.raises(ImportError):
        exec("from foundry_fastlog import Logger")


def test_modules_are_loaded_at_first_use() -> None:
    """Importing the package loads none of its modules; using a name loads only what it needs."""
    run_python(
        """
import sys
before = set(sys.modules)
import foundry_fastlog
assert not {"typing", "re", "logging"} & (set(sys.modules) - before)  # as long as all the rest

def loaded():
    return {name for name in sys.modules if name.startswith("foundry_fastlog.")}

assert loaded() == {"foundry_fastlog._version"}, loaded()
dir(foundry_fastlog)
assert loaded() == {"foundry_fastlog._version"}
foundry_fastlog.read_run
assert "foundry_fastlog.recording.recorder" not in loaded()
assert "foundry_fastlog._core" not in loaded()
foundry_fastlog.Recorder
assert "foundry_fastlog._core" in loaded()
assert "foundry_fastlog.config.models" not in loaded()
"""
    )


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
