"""WandBLogger where wandb is off, absent, silent, without a login, or loses its service.

Each in a process of its own: wandb reads the environment once.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from recorded import run_python
from wandb_files import only_run, run_files

pytest.importorskip("wandb")

# Any import of wandb fails the script.
BLOCK = """
import logging, sys
sys.modules["wandb"] = None
logging.basicConfig(format="%(levelname)s %(message)s")
"""
CALLS = """
from foundry_fastlog import WandBLogger
logger = WandBLogger(*arguments, **options)
assert not logger.enabled and logger.run is None
assert not logger.log_metrics(1, {"loss": 1.0})
assert not logger.log_system_metrics()
assert not logger.log_artifact(".")
class Model:
    def named_parameters(self): ...
assert not logger.watch_model(Model())
logger.finish()
assert logger.stats() == {"enabled": False, "sent": 0, "refused": 0, "errors": 0,
                          "first_error": None, "last_error": None}
"""
LOG_ONE = """
from foundry_fastlog import WandBLogger
logger = WandBLogger(name="exp0")
assert logger.enabled
assert logger.log_metrics(1, {"loss": 1.0})
logger.finish()
"""
OFFLINE = {"WANDB_MODE": "offline"}
SILENT = {"WANDB_MODE": "offline", "WANDB_SILENT": "true"}


@pytest.fixture(autouse=True)
def no_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No login and none of the user's settings, and tmp_path as the working directory."""
    for name in list(os.environ):
        if name.startswith("WANDB_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("NETRC", str(tmp_path / "home" / "netrc"))
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    ("arguments", "options", "mode"),
    [
        ("(None, False)", "{}", "online"),
        ("()", "{'enabled': False, 'config': object}", "offline"),
        ("()", "{}", "disabled"),
        ("()", "{'mode': 'offline'}", " Disabled "),
        ("()", "{'mode': 'disabled'}", "online"),
    ],
)
def test_off(tmp_path: Path, arguments: str, options: str, mode: str) -> None:
    """enabled=False and WANDB_MODE=disabled touch nothing: not even wandb is imported."""
    script = f"{BLOCK}\narguments, options = {arguments}, {options}\n{CALLS}"
    done = run_python(script, environment={"WANDB_MODE": mode})
    assert done.stderr == ""
    assert list(tmp_path.iterdir()) == []


BROKEN = """
import logging, sys
class Broken:
    def find_spec(self, name, path=None, target=None):
        if name == "wandb":
            raise TypeError("Descriptors cannot be created directly.")
sys.meta_path.insert(0, Broken())
logging.basicConfig(format="%(levelname)s %(message)s")
"""


@pytest.mark.parametrize(
    ("before", "reason"),
    [
        (BLOCK, ""),
        # A folder wandb/ of old runs is importable, and is not taken for wandb.
        (BLOCK.replace("None", "type(sys)('wandb')"), "a folder named wandb shadows it"),
        (BROKEN, "Descriptors cannot be created directly."),
    ],
    ids=["absent", "a folder", "a broken installation"],
)
def test_absent(before: str, reason: str) -> None:
    """Without wandb there is one message that says what to install, and nothing else happens."""
    done = run_python(f"{before}\narguments, options = (), {{'project': 'p'}}\n{CALLS}")
    (line,) = done.stderr.splitlines()
    assert line.startswith("WARNING W&B is enabled, but the package wandb cannot be imported")
    for words in (reason, "pip install 'foundry_fastlog[wandb]'", "WANDB_MODE=disabled"):
        assert words in line


def test_silent(tmp_path: Path) -> None:
    silent = run_python(LOG_ONE, environment=SILENT)
    assert silent.stdout + silent.stderr == ""
    assert only_run(tmp_path).values("loss") == {1: 1.0}
    assert "wandb: Tracking run" in run_python(LOG_ONE, environment=OFFLINE).stderr
    assert len(run_files(tmp_path)) == 2


def test_without_a_login(tmp_path: Path) -> None:
    """Online without an API key: recorded offline, with one warning of ours."""
    script = "import logging; logging.basicConfig(format='%(levelname)s %(message)s')" + LOG_ONE
    done = run_python(script, environment=SILENT | {"WANDB_MODE": "online"})
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("WARNING W&B")]
    assert "UsageError" in line  # wandb's words for it change from version to version
    assert "recorded offline" in line
    assert only_run(tmp_path).values("loss") == {1: 1.0}


def test_finished_at_exit(tmp_path: Path) -> None:
    run_python(LOG_ONE.replace("logger.finish()", ""), environment=SILENT)
    assert only_run(tmp_path).values("loss") == {1: 1.0}


def test_the_service_dies(tmp_path: Path) -> None:
    """Killing wandb's service process costs W&B's data, neither the training nor its exit."""
    script = """
import os, signal, sys, pathlib
before = {p for p in os.listdir("/proc") if p.isdecimal()}
from foundry_fastlog import WandBLogger
logger = WandBLogger(name="exp0")
def parent(pid):
    try:
        return int(pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 0
children = [int(p) for p in os.listdir("/proc") if p.isdecimal() and parent(p) == os.getpid()]
assert children, "no service found"
logger.log_metrics(0, {"loss": 1.0})
for pid in children:
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
trained = 0
while logger.stats()["errors"] < 3:
    trained += 1
    logger.log_metrics(trained, {"loss": 1.0})
assert logger.enabled
logger.finish()
assert not logger.enabled
again = WandBLogger(name="exp1")
again.log_metrics(0, {"loss": 1.0})
again.finish()
print("trained", trained >= 3)
"""
    if not Path("/proc/self/stat").exists():
        pytest.skip("finds the service by /proc")
    begun = time.monotonic()
    done = run_python(script, environment=SILENT)
    assert done.stdout == "trained True\n", f"after {time.monotonic() - begun:.0f} s"
    assert len(run_files(tmp_path)) >= 1
