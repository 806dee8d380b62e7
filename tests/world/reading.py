"""Readers of the world: every way to look at a run, and to recover it."""

from __future__ import annotations

import subprocess
import sys
import traceback
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

from world.records import content, origin

Fault = Callable[[str, str], None]


def ranges(numbers: list[int]) -> list[list[int]]:
    """Write sorted numbers as first and last of each stretch."""
    found: list[list[int]] = []
    for n in numbers:
        if found and n == found[-1][1] + 1:
            found[-1][1] = n
        else:
            found.append([n, n])
    return found


def read(path: str, how: str, fault: Fault) -> dict[str, Any]:
    """Read a run; say which records it shows and whether it calls them complete."""
    from foundry_fastlog.export.jsonl import ExportError
    from foundry_fastlog.run.files import RunNotFoundError

    try:
        return _read(path, how, fault)
    except (RunNotFoundError, ExportError, OSError) as error:
        return {"gone": str(error)}
    except Exception:  # noqa: BLE001 - readers raise nothing else
        fault("reader-raised", f"{how} {path}:\n{traceback.format_exc()}")
        return {"gone": "raised"}


def _read(path: str, how: str, fault: Fault) -> dict[str, Any]:
    from foundry_fastlog.reading.run import read_run

    if how == "export":
        from foundry_fastlog.export.jsonl import export_run

        export_run(read_run(path), f"{path}.export", force=True)
        Path(f"{path}.export").unlink()
    elif how == "tail":
        from foundry_fastlog import Cursor

        cursor = Cursor(path)
        cursor.last(10)
        cursor.poll()
    run = read_run(path)
    shown: dict[tuple[int, int], list[int]] = defaultdict(list)
    wrong: list[dict[str, Any]] = []
    for stream in run.streams:
        for line in run.lines(stream, starts="all"):
            writer, thread, n, *rest = origin(line)
            if tuple(rest) != content(writer, thread, n):
                wrong.append(line)
            shown[writer, thread].append(n)
    if wrong:
        fault("wrong-record", f"{how} {path}: {len(wrong)}, as {wrong[0]}")
    complete = all(check.complete for check in run.check()) and not run.problems
    if how == "summary":
        from foundry_fastlog.analysis.summarize import summarize

        summary = summarize(read_run(path), starts="all")
        summary.to_dict()
        complete = complete and summary.complete
    return {
        "shown": [[*key, ranges(sorted(numbers))] for key, numbers in shown.items()],
        "complete": complete,
        "problems": [f"{problem.kind}: {problem}" for problem in run.problems[:20]],
    }


def recover(path: str, how: str, fault: Fault) -> dict[str, Any]:
    """Recover a run, or the runs below a directory, by the function or the command."""
    if how == "command":
        command = [sys.executable, "-m", "foundry_fastlog", "recover", path]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if "Traceback" in done.stderr or done.returncode not in (0, 1, 2):
            fault("recover-raised", f"{done.returncode}: {done.stderr}")
        return {"status": done.returncode}
    from foundry_fastlog import recover as recover_run
    from foundry_fastlog.run.files import RunNotFoundError

    try:
        reports = recover_run(path)
    except (RunNotFoundError, OSError) as error:
        return {"gone": str(error)}
    except Exception:  # noqa: BLE001 - it raises nothing else
        fault("recover-raised", traceback.format_exc())
        return {"gone": "raised"}
    outcomes = [[report.outcome, report.ring, report.reason] for report in reports]
    return {"outcomes": outcomes}
