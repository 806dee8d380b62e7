"""The package's public names, loaded at their first use."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest
from recorded import run_python

import foundry_fastlog


@pytest.mark.parametrize("name", sorted(set(foundry_fastlog.__all__) - {"__version__"}))
def test_every_name_is_its_home_s(name: str) -> None:
    """A public name is the object of that name in its module, and stays the same object."""
    value = getattr(foundry_fastlog, name)
    home = importlib.import_module(foundry_fastlog._HOMES[name])
    assert getattr(home, name) is value
    assert getattr(foundry_fastlog, name) is value
    assert vars(foundry_fastlog)[name] is value


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


def test_without_the_native_part(tmp_path: Path) -> None:
    """A missing extension is an ImportError that says how to get it; reading works without."""
    run_python(
        """
import sys
sys.modules["foundry_fastlog._core"] = None
import foundry_fastlog
try:
    foundry_fastlog.Recorder
except ImportError as error:
    assert "pip install" in str(error), error
    assert "read_run" in str(error), error
else:
    raise AssertionError("imported without its native part")
run = foundry_fastlog.read_run(sys.argv[1])
assert run is not None
""",
        _made_run(tmp_path),
    )


def _made_run(tmp_path: Path) -> Path:
    with foundry_fastlog.Recorder(tmp_path / "run") as recorder:
        recorder.record(0, x=1.0)
    return tmp_path / "run"
