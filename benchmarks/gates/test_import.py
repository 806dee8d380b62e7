"""Time and dependencies of the import."""

from __future__ import annotations

from collections.abc import Callable

from benchmarks.child import spawn
from benchmarks.gates.trying import Outcome, Reading, until_passed

BOUND = 2.5  # 60 ms if a bare interpreter starts in 24 ms, as on the machine of the tables


def test_the_import_takes_less_than_two_and_a_half_bare_starts(
    check: Callable[[str, Outcome], None],
) -> None:
    """The import's share of start-up, alternating with a bare start; nothing heavy is loaded."""

    def measure() -> Reading:
        found = spawn("imports", rounds=11)
        bare = found["bare"]["median"]
        package, recorder = found["import"]["median"], found["recorder"]["median"]
        text = (
            f"{package / bare:.2f}x a bare start ({package:.1f} ms to {bare:.1f} ms), with "
            f"Recorder resolved {recorder / bare:.2f}x ({recorder:.1f} ms; bound {BOUND:g}x), "
            f"heavy packages loaded: {', '.join(found['heavy']) or 'none'}"
        )
        return Reading(max(package, recorder) < BOUND * bare and not found["heavy"], text)

    check("import foundry_fastlog", until_passed(measure))
