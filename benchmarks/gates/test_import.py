"""Time and weight of the import."""

from __future__ import annotations

from collections.abc import Callable

from benchmarks.child import spawn
from benchmarks.gates.trying import Outcome, Reading, until_passed

BOUND_MS = 60.0


def test_the_import_takes_less_than_60_ms(check: Callable[[str, Outcome], None]) -> None:
    """Median over fresh interpreters, as the difference to a bare one; nothing heavy is loaded."""

    def measure() -> Reading:
        found = spawn("imports", rounds=11)
        package, recorder = found["import"]["median"], found["recorder"]["median"]
        text = (
            f"{package:.1f} ms, with Recorder resolved {recorder:.1f} ms (bound {BOUND_MS:g} ms), "
            f"heavy packages loaded: {', '.join(found['heavy']) or 'none'}"
        )
        return Reading(max(package, recorder) < BOUND_MS and not found["heavy"], text)

    check("import foundry_fastlog", until_passed(measure))
