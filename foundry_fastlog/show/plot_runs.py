"""Plot runs from Python: ``Run.plot`` and ``plot_runs``."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from foundry_fastlog.base.arguments import names_of, ranks_of
from foundry_fastlog.base.extras import extra
from foundry_fastlog.reading.counting import Starts
from foundry_fastlog.reading.run import Run, read_run

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["plot_runs"]

_POINTS = 2000  # buckets of a curve by steps, each with up to four points


def plot_runs(
    runs: Run | str | os.PathLike[str] | Sequence[Run | str | os.PathLike[str]],
    metrics: str | Iterable[str] | None = None,
    *,
    x: str = "step",
    steps: tuple[int | None, int | None] | None = None,
    ranks: int | Iterable[int] | str | None = None,
    starts: Starts = "latest",
    smooth: float = 0.0,
    group_by: str | Iterable[str] = (),
    checkpoints: bool = False,
    overlay: bool | None = None,
    log_x: bool = False,
    log_y: bool = False,
    title: str | None = None,
) -> Figure:
    """Plot metrics of one or several runs.

    Args:
        runs: The runs, or their directories.
        metrics: Names or patterns of metrics such as ``val_*``. Default: the training and the
            validation loss, or the first metric that has numbers.
        x: ``step``, ``epoch``, ``time`` (UTC), ``relative`` (since the run's first record, pauses
            between starts among it), or a metric, whose values are joined by step, rank and start.
        steps: The first and the last step, both included; None for no bound.
        ranks: One rank or several, a curve each; ``"all"`` for one of each rank. Default: the
            lowest rank that recorded the metric.
        starts: As for ``Run.lines``.
        smooth: Weight of the exponential moving average, 0 (none) to 1, without the bias of its
            beginning; behind it are the values themselves.
        group_by: Settings such as ``config.lr``: runs that agree in all of them are drawn as their
            mean and its standard error.
        checkpoints: Whether checkpoints are marked: blocks timed under such a name, or messages
            that say so.
        overlay: Whether all metrics share their axes. Default: only where none is named.
        log_x: Whether the x axis is logarithmic.
        log_y: Whether the y axis is.
        title: The title. Default: the run's name, or what the runs differ in.

    Returns:
        A matplotlib figure of its own, which notebooks show; ``figure.savefig(path)`` writes it.
        Neither the backend nor ``rcParams`` are touched.

    Raises:
        ImportError: matplotlib or numpy is not installed; the message says how to get them.
        LookupError: Nothing fits a pattern, or there is no such metric or setting.
        RunNotFoundError: A directory is not a run.
        ValueError: The smoothing is not between 0 and 1, or there is nothing to draw.
    """
    with extra("plot", "matplotlib", "numpy"):
        from foundry_fastlog.analysis.points import Asked
        from foundry_fastlog.analysis.series import read_charts
        from foundry_fastlog.show.figure import draw_figure
    given = [runs] if isinstance(runs, (Run, str, os.PathLike)) else list(runs)
    opened = [one if isinstance(one, Run) else read_run(one) for one in given]
    chosen = ranks if ranks is None or ranks == "all" else ranks_of(ranks)  # type: ignore[arg-type]  # no other text
    asked = Asked(x, steps, chosen, starts, None if log_x else _POINTS)
    charts = read_charts(
        opened,
        metrics,
        asked,
        weight=smooth,
        group_by=names_of(group_by),
        checkpoints=checkpoints,
        overlay=overlay,
    )
    if not charts:
        raise ValueError("nothing to plot: no metric of these runs has a number")
    return draw_figure(opened, charts, log_x=log_x, log_y=log_y, weight=smooth, title=title)
