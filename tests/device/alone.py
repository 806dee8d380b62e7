"""Tests with a process of their own: the core loads a driver once and keeps what it made with it.

A process that has imported everything and done nothing, the nursery, forks one for each test. That
takes some milliseconds, and the test finds a machine and a core that nobody has used. Such a test
is a function with `@alone`; a life whose end matters is a function that `nursery` runs.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import inspect
import json
import os
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from select import select
from typing import Any

from device import fakes
from recorded import PACKAGE_ROOT

TESTS = Path(__file__).parents[1]
#: What the process itself provides, by the name of the argument.
OWN = ("cuda", "hip", "fake_tensor")
PATIENCE_S = 60
Alone = Callable[..., None]


class Nursery:
    """Runs functions of test modules in fresh processes, one at a time."""

    def __init__(self) -> None:
        fakes.build_driver()
        fakes.build_driver(hip=True)
        fakes.build_exports()
        path = os.pathsep.join([str(PACKAGE_ROOT), str(TESTS)])
        ambient = ("FASTLOG_", "RANK", "WORLD_SIZE")
        hermetic = {name: v for name, v in os.environ.items() if not name.startswith(ambient)}
        self._process = subprocess.Popen(
            [sys.executable, "-X", "faulthandler", "-W", "error", __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**hermetic, "PYTHONPATH": path},
        )

    def __call__(
        self, function: Alone, output: Path, /, *, exit_status: int = 0, **arguments: Any
    ) -> str:
        """Run a function of a test module, in a process of its own; return what it printed.

        It takes `arguments`, which are paths and what JSON knows, and by name what OWN lists.
        `output` is a new file; the process has to end with `exit_status`, negative for a signal.
        """
        __tracebackhide__ = True
        module = Path(inspect.getfile(function)).stem
        given = {name: str(v) if isinstance(v, Path) else v for name, v in arguments.items()}
        job = [module, function.__qualname__, str(output), given]
        self._send(job)
        pid = int(self._receive(PATIENCE_S) or 0)
        answer = self._receive(PATIENCE_S)
        if answer is None:
            os.kill(pid, signal.SIGABRT)  # its stacks are printed
            self._receive(PATIENCE_S)
        text = output.read_text(errors="replace")
        assert answer is not None, f"it took more than {PATIENCE_S} s\n{text}"
        assert int(answer) == exit_status, f"exit status {answer}\n{text}"
        return text

    def _send(self, job: list[Any]) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(job) + "\n")
        self._process.stdin.flush()

    def _receive(self, seconds: float) -> str | None:
        assert self._process.stdout is not None
        ready, _, _ = select([self._process.stdout], [], [], seconds)
        return self._process.stdout.readline() if ready else None

    def close(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(PATIENCE_S)
        self._process.stdout.close()


def alone(function: Alone) -> Alone:
    """Let a test run in a process of its own.

    Its argument `run` is a directory to record in; those in OWN are made there, and others are
    parameters of the test, which JSON must know.
    """

    @functools.wraps(function)
    def test(nursery: Nursery, tmp_path: Path, **parameters: Any) -> None:
        if "run" in signature.parameters:
            parameters["run"] = tmp_path / "run"
        nursery(function, tmp_path / "output", **parameters)

    signature = inspect.signature(function)
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    fixtures = [inspect.Parameter(name, kind) for name in ("nursery", "tmp_path")]
    rest = [p for name, p in signature.parameters.items() if name not in (*OWN, "run")]
    test.__signature__ = signature.replace(parameters=[*fixtures, *rest])  # type: ignore[attr-defined]
    return test


@contextlib.contextmanager
def at_once(seconds: float = 1.0) -> Iterator[None]:
    """Fail when a block waits; generous, as the machine may be busy."""
    begin = time.monotonic()
    yield
    assert time.monotonic() - begin < seconds


# ---- in the forked process -----------------------------------------------------------------------


def own_machine(name: str) -> Any:
    """Make what a function asks for by the name of an argument."""
    if name == "fake_tensor":
        return fakes.load_tensors()
    driver = fakes.load_driver(hip=name == "hip")
    variable = "FASTLOG_HIP_LIBRARY" if name == "hip" else "FASTLOG_CUDA_LIBRARY"
    os.environ[variable] = str(driver.path)
    return driver


def live(module: str, name: str, output: str, arguments: dict[str, Any]) -> None:
    target = os.open(output, os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o600)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.dup2(target, 1)
    os.dup2(target, 2)
    try:
        function = getattr(importlib.import_module(f"device.{module}"), name)
        function = getattr(function, "__wrapped__", function)
        for wanted in inspect.signature(function).parameters:
            if wanted in OWN:
                arguments[wanted] = own_machine(wanted)
            elif wanted == "run":
                arguments[wanted] = Path(arguments[wanted])
        function(**arguments)
    except Exception as error:  # noqa: BLE001 - whatever it is, the test's reader wants all of it
        found = traceback.TracebackException.from_exception(error, capture_locals=True)
        sys.stderr.write("".join(found.format()))
        sys.exit(1)


def tell(number: int) -> None:
    sys.stdout.write(f"{number}\n")
    sys.stdout.flush()


def main() -> None:
    import pytest  # noqa: F401 - so that test modules are imported in no time
    import recorded  # noqa: F401

    import foundry_fastlog.components.metrics  # noqa: F401

    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            live(*json.loads(line))
            return
        tell(pid)
        _, status = os.waitpid(pid, 0)
        tell(os.waitstatus_to_exitcode(status))


if __name__ == "__main__":
    main()
