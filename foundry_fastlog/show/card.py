"""What notebooks show of a run: a card of plain HTML, and a curve as SVG, without matplotlib.

The card needs no script, no font and no network, and follows the notebook's light or dark. What
stands in it comes from files that anyone may have written, so all text is escaped.
"""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Any

from foundry_fastlog.analysis.identity import code_of, label_runs
from foundry_fastlog.analysis.run_summary import state_of
from foundry_fastlog.base.formatting import format_number, format_value, printable
from foundry_fastlog.reading.cursor import Cursor
from foundry_fastlog.reading.lines import restore_nonfinite
from foundry_fastlog.show.axes import Scale, nice_ticks, short_number
from foundry_fastlog.show.palette import COLORS, styles_of

if TYPE_CHECKING:
    from foundry_fastlog.reading.curves import Curve
    from foundry_fastlog.reading.run import Run

__all__ = ["card"]

_MOST_METRICS = 12
_LAST_LINES = 200  # those that are searched for last values
_POINTS = 300  # buckets of the curve
_WIDTH, _HEIGHT = 460, 150  # of the picture, in pixels
_LEFT, _RIGHT, _TOP, _BOTTOM = 48, 12, 10, 22  # its margins
_IN_BAD = "style='fill:var(--bad);color:var(--bad)'"
_STATES = {"running": "run", "ended": "good", "unknown": "quiet"}  # all others are bad

# Names of a class of its own, so that nothing else in a notebook is touched.
_STYLE = """
.fastlog-card{--text:#1b1f24;--quiet:#5b6570;--line:#e3e6ea;--run:#2563eb;--good:#15803d;
--bad:#b91c1c;font:14px system-ui,sans-serif;color:var(--text);border:1px solid var(--line);
border-radius:6px;padding:12px 16px;max-width:720px;overflow-wrap:anywhere}
@media (prefers-color-scheme:dark){.fastlog-card{--text:#e6e9ed;--quiet:#9aa4af;--line:#2a3038;
--run:#6ea8fe;--good:#4ade80;--bad:#f87171}}
[data-jp-theme-light="false"] .fastlog-card,.vscode-dark .fastlog-card,
html[theme="dark"] .fastlog-card{--text:#e6e9ed;
--quiet:#9aa4af;--line:#2a3038;--run:#6ea8fe;--good:#4ade80;--bad:#f87171}
[data-jp-theme-light="true"] .fastlog-card,.vscode-light .fastlog-card{--text:#1b1f24;
--quiet:#5b6570;--line:#e3e6ea;--run:#2563eb;--good:#15803d;--bad:#b91c1c}
.fastlog-card b{font-weight:600}.fastlog-card .q{color:var(--quiet);font-size:12px}
.fastlog-card .r{display:flex;flex-wrap:wrap;gap:8px 24px;margin-top:8px;align-items:flex-start}
.fastlog-card svg{max-width:100%;height:auto}.fastlog-card text{fill:var(--quiet);font-size:11px}
.fastlog-card .g{stroke:var(--line)}
"""

# A notebook's own rules for tables (alignment, stripes, the mouse) are as strong as those
# of two classes and two elements: these are stronger.
_STYLE += """
.c table{border-collapse:collapse;border:none;margin:0;font-size:12px;
font-variant-numeric:tabular-nums}
.c tr{background:none}
.c td{padding:2px 12px 2px 0;border:none;text-align:left;color:var(--text);background:none}
.c td+td{padding-right:0;text-align:right}
""".replace(".c", ".fastlog-card" * 3)


def card(run: Run) -> str:
    """Return a run as HTML: its facts, how its starts did, its last values, and its loss.

    Only the last lines and the run's curves are read, which are kept: also a large run is shown
    at once when it is shown again. What cannot be read is said, never raised.
    """
    parts = [
        f"<b>{_text(label_runs([run])[0])}</b> {_states(run)}",
        f"<div class='q'>{_facts(run)}</div>",
    ]
    try:
        values, curve = _table(run), _picture(run)
    except (ImportError, OSError, ValueError) as error:  # no numpy; the run was removed
        parts.append(f"<div class='q'>{_text(str(error))}</div>")
    else:
        parts.append(f"<div class='r'>{curve}{values}</div>")
    if run.unread or run.problems:
        count = max(run.unread, len(run.problems))
        parts.append(f"<div style='color:var(--bad)'>{count:,} problems: see run.problems</div>")
    return f"<div class='fastlog-card'><style>{_STYLE}</style>{''.join(parts)}</div>"


def _text(text: str, most: int = 80) -> str:
    """Make any text safe for a page."""
    return escape(printable(text, most))


def _states(run: Run) -> str:
    """Say how the run is doing, and why the last start failed."""
    starts = run.report_starts()
    state = state_of(starts)
    color = _STATES.get(state, "bad")
    said = _text(state)
    if starts and starts[-1].error:
        said += f": {_text(starts[-1].error)}"
    more = f" <span class='q'>start {len(starts)} of {len(starts)}</span>" if starts[1:] else ""
    return f"<span style='color:var(--{color})'>&#9679; {said}</span>{more}"


def _facts(run: Run) -> str:
    facts = [str(run.path)]
    starts = [start.started for start in run.report_starts() if start.started]
    if starts:
        facts.append(starts[0][:19].replace("T", " ") + " UTC")
    if len(run.ranks) > 1:
        facts.append(f"{len(run.ranks):,} ranks")
    if code := code_of(run):
        facts.append(f"code {code[:7]}")
    return " · ".join(_text(fact, 160) for fact in facts)


def _table(run: Run) -> str:
    """Return a table of the last values of metrics."""
    found: dict[str, Any] = {}
    last = Cursor(run.path, ["metrics"]).last(_LAST_LINES)
    for _, _, record, _ in last.lines:
        values = restore_nonfinite(record)
        found |= values.get("summary") or {}
        found |= values.get("metrics") or {}
    rows = [
        f"<tr><td>{_text(name, 40)}</td><td>{_text(format_value(value))}</td></tr>"
        for name, value in list(found.items())[:_MOST_METRICS]
    ]
    if len(found) > _MOST_METRICS:
        rows.append(f"<tr><td class='q'>and {len(found) - _MOST_METRICS:,} more</td><td></td></tr>")
    return f"<table>{''.join(rows)}</table>" if rows else "<span class='q'>no metrics yet</span>"


def _picture(run: Run) -> str:
    """Return the curve of the loss, or of the first metric that has numbers."""
    from foundry_fastlog.analysis.series import LOSSES, OTHER_LOSSES

    names = run.names()
    losses = [name for name in (*LOSSES, *OTHER_LOSSES) if name in names]
    for name in [*losses, *names][:_MOST_METRICS]:
        curve = run.curve(name, points=_POINTS)
        if (curve.count > 0).sum() and len(curve) > 1:
            ((color, _),) = styles_of(label_runs([run])).values()
            return _svg(name, curve, COLORS[color])
    return ""


def _svg(name: str, curve: Curve, color: str) -> str:
    """Draw a curve: a line through the last value of each bucket, in a band of its extremes."""
    some = curve.count > 0
    steps = curve.last_step[some].tolist()
    lows, highs = curve.min[some].tolist(), curve.max[some].tolist()
    odd = curve.steps[curve.nonfinite > 0].tolist()
    ends = min([*steps, *odd]), max([*steps, *odd])
    wide, tall = _WIDTH - _LEFT - _RIGHT, _HEIGHT - _TOP - _BOTTOM
    across, up = Scale(*ends, wide), Scale(min(lows), max(highs), tall)

    def x(step: float) -> str:
        return f"{_LEFT + across.share(step) * wide:.1f}"

    def y(value: float) -> str:
        return f"{_HEIGHT - _BOTTOM - up.share(value) * tall:.1f}"

    def path(values: list[float], places: list[int]) -> str:
        return " ".join(f"{x(step)},{y(v)}" for step, v in zip(places, values, strict=True))

    drawn = []
    for tick in nice_ticks(min(lows), max(highs), 4):
        at, end = y(tick), _WIDTH - _RIGHT
        drawn.append(f"<line class='g' x1='{_LEFT}' x2='{end}' y1='{at}' y2='{at}'/>")
        drawn.append(_label(_LEFT - 6, at, short_number(tick), "end", "dy='.35em'"))
    below = _HEIGHT - 6
    drawn += [_label(x(s), below, short_number(s), "middle") for s in nice_ticks(*ends, 5)]
    band = f"{path(highs, steps)} {path(lows[::-1], steps[::-1])}"
    drawn.append(f"<polygon points='{band}' fill='{color}' opacity='.45' stroke='{color}'/>")
    line = path(curve.last[some].tolist(), steps)
    drawn.append(f"<polyline points='{line}' fill='none' stroke='{color}' stroke-width='1.6'/>")
    drawn += [_label(x(one), _TOP + 4, "&#215;", "middle", _IN_BAD) for one in odd]
    words = f"{_text(name, 40)}: {format_number(curve.last[some][-1])} at step {steps[-1]:,}"
    bad = f" <span {_IN_BAD}>{int(curve.nonfinite.sum()):,} NaN or infinite</span>"
    return (
        f"<div><div class='q'>{words}{bad if odd else ''}</div>"
        f"<svg width='{_WIDTH}' height='{_HEIGHT}' viewBox='0 0 {_WIDTH} {_HEIGHT}' role='img' "
        f"aria-label='{words}'>{''.join(drawn)}</svg></div>"
    )


def _label(x: object, y: object, words: str, anchor: str, more: str = "") -> str:
    return f"<text x='{x}' y='{y}' text-anchor='{anchor}' {more}>{words}</text>"
