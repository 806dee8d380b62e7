"""What the recorder's tests share: strict reading of its files, scripts in their own processes."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson

import foundry_fastlog

# The folder that holds the package under test: scripts import the same one.
PACKAGE_ROOT = Path(foundry_fastlog.__file__).parents[1]
TIMESTAMP = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z")
# First in the code of a child that is to get Ctrl-C, which those of background jobs ignore.
TAKES_CTRL_C = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
Play = Callable[..., "subprocess.CompletedProcess[str]"]
_SEGMENT = re.compile(r"\.(\d{6,})\.jsonl$")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    assert len(members) == len(pairs), f"a key comes twice: {pairs}"
    return members


def _refuse(constant: str) -> None:
    raise AssertionError(f"{constant} is no strict JSON")


def parse(line: bytes) -> dict[str, Any]:
    """Parse one line as strictly as two parsers can, and check that they agree."""
    parsed = json.loads(line.decode("utf-8"), object_pairs_hook=_unique, parse_constant=_refuse)
    assert isinstance(parsed, dict)
    assert orjson.loads(line) == parsed
    assert TIMESTAMP.fullmatch(parsed["timestamp"])
    return parsed


def raw_lines(path: Path) -> list[bytes]:
    """Return a finished file's lines; each must end with a newline."""
    content = path.read_bytes()
    assert not content or content.endswith(b"\n"), f"{path} has a torn last line"
    return content.split(b"\n")[:-1]


def segments(run: Path, stream: str = "metrics", label: str = "") -> list[Path]:
    """Return the files of one writer's stream in order of their numbers."""
    first = run / f"{stream}{'.' if label else ''}{label}.jsonl"
    numbered = run.glob(f"{first.stem}.[0-9][0-9][0-9][0-9][0-9][0-9]*.jsonl")
    found = [path for path in numbered if _SEGMENT.search(path.name)]
    return ([first] if first.exists() else []) + sorted(found)


def lines(run: Path, stream: str = "metrics", label: str = "") -> list[dict[str, Any]]:
    """Return all lines of one writer's stream; `seq` must count them from 0 without a gap."""
    parsed = [parse(line) for path in segments(run, stream, label) for line in raw_lines(path)]
    assert [line["seq"] for line in parsed] == list(range(len(parsed)))
    return parsed


def steps(run: Path, label: str = "") -> list[int]:
    """Return the steps of a writer's metrics in order of its lines, without drop markers."""
    return [line["step"] for line in lines(run, "metrics", label) if "step" in line]


def written(recorder: foundry_fastlog.Recorder, stream: str = "metrics") -> list[dict[str, Any]]:
    recorder.close()
    return lines(recorder.path, stream, recorder.label)


def without_clock(line: Mapping[str, Any]) -> dict[str, Any]:
    """Return a line without the fields that differ from run to run."""
    clock = ("timestamp", "duration_s", "thread")
    return {key: value for key, value in line.items() if key not in clock}


def in_threads(work: Callable[[int], object], count: int = 1) -> None:
    threads = [threading.Thread(target=work, args=(n,)) for n in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def eventually(condition: Callable[[], Any], seconds: float = 60.0) -> Any:
    """Wait until a condition holds; return what it gave."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.002)
    return found


def in_child(work: Callable[[], object]) -> int:
    """Fork and run a function there, which must end well; return the child's pid."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            work()
            status = 0
        except BaseException:  # noqa: BLE001 - the child has to end here
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0, "the child failed"
    return pid


def _environment() -> dict[str, str]:
    # What the caller's Python found by the variable, its scripts find as well.
    known = os.environ.get("PYTHONPATH", "")
    path = os.pathsep.join(filter(None, [str(PACKAGE_ROOT), str(Path(__file__).parent), known]))
    return {**os.environ, "PYTHONPATH": path}


def start_python(code: str, *arguments: object, **options: Any) -> subprocess.Popen[str]:
    """Start a script as run_python() does, with options of Popen; its output comes by a pipe."""
    command, pipe = [sys.executable, "-c", code, *map(str, arguments)], subprocess.PIPE
    return subprocess.Popen(command, env=_environment(), stdout=pipe, text=True, **options)


def run_python(
    code: str,
    *arguments: object,
    options: Sequence[str] = (),
    environment: Mapping[str, str] | None = None,
    returncode: int | None = 0,
    timeout: float = 120,
) -> subprocess.CompletedProcess[str]:
    """Run a script in a process of its own, with the package under test.

    Its `sys.argv[1:]` are the arguments; a `returncode` of None is left to the caller.
    """
    command = [sys.executable, "-X", "faulthandler", *options, "-c", code, *map(str, arguments)]
    env = {**_environment(), **(environment or {})}
    done = subprocess.run(
        command, env=env, capture_output=True, text=True, timeout=timeout, check=False
    )
    if returncode is not None:
        assert done.returncode == returncode, f"{done.returncode}\n{done.stdout}\n{done.stderr}"
    return done
