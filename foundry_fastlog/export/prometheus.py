"""Write the last values of runs as node_exporter's textfile collector reads them."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from typing import BinaryIO

from foundry_fastlog.analysis.accumulate import stats_of
from foundry_fastlog.export.result import NamedRun, Tally

__all__ = ["write_prometheus"]

_NOT_A_NAME = re.compile(r"[^a-zA-Z0-9_]")
_ESCAPES = str.maketrans({"\\": r"\\", '"': r"\"", "\n": r"\n"})
_PREFIXES = {"metrics": "fastlog_metric", "system": "fastlog_system"}
_Labels = dict[str, str]


def write_prometheus(
    runs: Sequence[NamedRun], streams: Sequence[str], handle: BinaryIO, tally: Tally
) -> None:
    """Write a gauge for each metric, and one for the last step.

    Args:
        runs: The runs.
        streams: ``metrics``, ``system`` or both.
        handle: Receives the text.
        tally: Counts rows, and what is no number.
    """
    gauges: dict[str, list[tuple[_Labels, float]]] = {}
    for one in runs:
        for rank in one.run.ranks:
            labels = {"run": one.name, "rank": str(rank)}
            for gauge, more, value in _last(one, rank, streams, tally):
                gauges.setdefault(gauge, []).append(({**labels, **more}, value))
    lines = [line for gauge in sorted(gauges) for line in _lines(gauge, gauges[gauge])]
    handle.write("".join(f"{line}\n" for line in lines).encode())


def _last(
    one: NamedRun, rank: int, streams: Sequence[str], tally: Tally
) -> Iterator[tuple[str, _Labels, float]]:
    """Yield the last values of a rank: gauge, further labels, value."""
    for stream in streams:
        sums, checks = one.run.sums(stream, {}, starts=one.starts, ranks=rank)
        tally.checks += checks
        tally.take_left_out(one.run, [stream])
        if sums is None:
            continue
        named = [(found["name"], stats_of(found, "").last) for found in sums.metrics()]
        named += [
            (f"{found['name']} (epoch)", stats_of(found, "").last) for found in sums.summaries()
        ]
        for name, value in named:
            if isinstance(value, (bool, int, float)):
                tally.rows[stream] += 1
                # What is escaped alike is still told apart by the label.
                gauge = f"{_PREFIXES[stream]}_{_NOT_A_NAME.sub('_', name)}"
                yield gauge, {"name": name}, value
            else:
                tally.note("last values that are no numbers, left out")
        steps = [last for *_, last in sums.sources() if last is not None]
        if stream == "metrics" and steps:
            yield "fastlog_last_step", {}, max(steps)


def _lines(gauge: str, samples: list[tuple[_Labels, float]]) -> Iterator[str]:
    yield f"# TYPE {gauge} gauge"
    for labels, value in samples:
        shown = ",".join(f'{name}="{text.translate(_ESCAPES)}"' for name, text in labels.items())
        yield f"{gauge}{{{shown}}} {_number(value)}"


def _number(value: float) -> str:
    if math.isfinite(value):
        return repr(int(value) if isinstance(value, bool) else value)
    return "NaN" if math.isnan(value) else "+Inf" if value > 0 else "-Inf"
