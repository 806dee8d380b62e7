"""Tokens per second, and the share of the devices' peak that a model's operations take."""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from foundry_fastlog.analysis.identity import nearest
from foundry_fastlog.base.arguments import check_number, whole_number
from foundry_fastlog.base.formatting import format_number, printable

if TYPE_CHECKING:
    from foundry_fastlog.reading.run import Run

__all__ = ["Throughput", "read_throughput"]

_Array = np.ndarray[Any, Any]

_RATE = re.compile(r"per[_ ]?s(?:ec(?:ond)?)?\b|/s(?:ec)?\b|\btps\b|throughput", re.IGNORECASE)
_GIVEN, _PER_STEP = "as given", "as tokens per step"
_USUAL = ("tokens_per_sec", "tokens_per_second", "tokens")


@dataclass(frozen=True)
class Throughput:
    """How many tokens a run trained on.

    Attributes:
        tokens_per_step: Tokens of a step, of all devices.
        source: Where that is from, in words.
        ideal_tokens_per_s: Tokens per second in ideal steps.
        tokens_per_s: Those of steps that were trained first, per second of wall time.
        devices: How many devices there are.
        ideal_mfu: Model FLOPs utilisation in ideal steps, as in PaLM (arXiv 2204.02311) and
            torchtitan: floating-point operations that the model needs for these tokens / those that
            the devices could do in the time, 0 to 1. None where neither is given.
        mfu: The same, over the wall time.
    """

    tokens_per_step: float
    source: str
    ideal_tokens_per_s: float
    tokens_per_s: float
    devices: int
    ideal_mfu: float | None = None
    mfu: float | None = None

    @property
    def by_step(self) -> bool:
        """Whether what is known are the tokens of a step, not of a time or so far."""
        return self.source == _GIVEN or self.source.endswith(_PER_STEP)


def read_throughput(
    run: Run,
    rank: int,
    ideal_s: float | None,
    goodput: float | None,
    *,
    tokens: float | str | None = None,
    flops_per_token: float | None = None,
    peak_flops: float | None = None,
    devices: int | None = None,
) -> Throughput | None:
    """Work out tokens per second.

    Args:
        run: The run.
        rank: The rank whose metric is read.
        ideal_s: Seconds of an ideal step.
        goodput: The share of wall time that ideal steps would take; above 1 where they are longer.
        tokens: Tokens of a step, or the name of a metric; None for a usual name, if there is one.
        flops_per_token: Floating-point operations of the model for a token, forth and back.
        peak_flops: What a device can do in a second.
        devices: How many there are. Default: as many as ranks recorded.

    Returns:
        None where nothing is known of tokens, or there are no steps.

    Raises:
        LookupError: There is no such metric, or it has no numbers, or none above 0.
        TypeError, ValueError: A figure is none, or not above 0.
    """
    for name, value in (("flops_per_token", flops_per_token), ("peak_flops", peak_flops)):
        _check_above_zero(name, value)
    if (flops_per_token is None) is not (peak_flops is None):
        raise ValueError("flops_per_token and peak_flops are only of use together")
    count = max(1, len(run.ranks)) if devices is None else whole_number("devices", devices)
    if count < 1:
        raise ValueError(f"devices must be 1 or more, got {count}")
    source = _GIVEN
    if tokens is None:
        names = run.names() if "metrics" in run.streams else []
        for name in (one for one in _USUAL if one in names):
            with suppress(LookupError):  # nobody has asked for this one
                tokens, source = _read_tokens(run, rank, name, ideal_s)
                break
    elif isinstance(tokens, str):
        tokens, source = _read_tokens(run, rank, tokens, ideal_s)
    else:
        _check_above_zero("tokens", tokens)
    if tokens is None and flops_per_token is not None:
        raise ValueError("for MFU, say how many tokens a step has, or in which metric they are")
    if tokens is None or ideal_s is None or goodput is None or not ideal_s:
        return None
    ideal = tokens / ideal_s
    share = None
    if flops_per_token is not None and peak_flops is not None:
        share = flops_per_token * ideal / (peak_flops * count)
    overall = None if share is None else share * goodput
    return Throughput(tokens, source, ideal, ideal * goodput, count, share, overall)


def _check_above_zero(name: str, value: float | None) -> None:
    if value is not None:
        check_number(name, value, 0, 1e300)
        if not value:
            raise ValueError(f"{name} must be above 0")


def _read_tokens(run: Run, rank: int, name: str, ideal_s: float | None) -> tuple[float, str]:
    """Return the tokens of a step by a metric, and how it was understood."""
    known = run.names() if "metrics" in run.streams else []
    if name not in known:
        near = ", ".join(printable(one, 60) for one in nearest(name, known)[:8]) or "none"
        raise LookupError(f"there is no metric {printable(name)}; there are: {near}")
    metric = run.metric(name, ranks=rank, starts="all")
    values = metric.values if metric.values.dtype.kind in "if" else np.empty(0)
    finite = np.isfinite(values)
    steps, starts, values = metric.steps[finite], metric.start[finite], values[finite]
    shown = printable(name, 40)
    if not len(values):
        raise LookupError(f"the metric {shown} has no numbers of rank {rank}")
    if _RATE.search(name):
        rate = float(np.median(values))
        if rate <= 0:
            raise LookupError(f"the metric {shown} is no rate: its median is {format_number(rate)}")
        return rate * (ideal_s or 0.0), f"{shown}, as tokens per second"
    grown, apart = np.diff(values), np.diff(steps)
    same = (apart > 0) & (np.diff(starts) == 0)
    if same.sum() > 1 and (grown[same] > 0).all():
        each = float(grown[same].sum() / apart[same].sum())
        return each, f"{shown}, as tokens so far"
    mean = float(values.mean())
    if mean <= 0:
        raise LookupError(f"the metric {shown} counts no tokens: its mean is {format_number(mean)}")
    return mean, f"{shown}, {_PER_STEP}"
