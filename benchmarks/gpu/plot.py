"""The plot of a result: an SVG written directly, so that it needs no plotting package."""

from __future__ import annotations

import math
from html import escape
from typing import Any

COLORS = {
    "none_again": "#8a8a8a",
    "fastlog": "#0072b2",
    "fastlog_item": "#e69f00",
    "wandb": "#d55e00",
    "tensorboard": "#009e73",
}
NAMES = {
    "none_again": "no logging, again",
    "fastlog": "foundry_fastlog",
    "fastlog_item": "the same, .item()",
    "wandb": "wandb offline, .item()",
    "tensorboard": "TensorBoard, .item()",
}
LANES = {
    "record": ("foundry_fastlog record()", "#0072b2"),
    "bare": ("bare async copies, C", "#8a8a8a"),
    "to": (".to(cpu, non_blocking)", "#cc79a7"),
    "item": (".item(), idle device", "#e69f00"),
}
WIDTH, HEIGHT = 960, 430
TOP, BOTTOM = 70, 330
STYLE = "font-family='sans-serif' font-size='12' fill='#222'"


def text(x: float, y: float, words: str, *, anchor: str = "middle", bold: bool = False) -> str:
    """Return a text element."""
    weight = " font-weight='bold'" if bold else ""
    return (
        f"<text x='{x:.1f}' y='{y:.1f}' text-anchor='{anchor}'{weight} {STYLE}>"
        f"{escape(words)}</text>"
    )


def rule(x1: float, y1: float, x2: float, y2: float, color: str = "#ccc", width: float = 1) -> str:
    """Return a straight line."""
    return (
        f"<line x1='{x1:.1f}' y1='{y1:.1f}' x2='{x2:.1f}' y2='{y2:.1f}' "
        f"stroke='{color}' stroke-width='{width}'/>"
    )


class Axis:
    """A vertical axis between `TOP` and `BOTTOM`."""

    def __init__(self, low: float, high: float, *, logarithmic: bool) -> None:
        self.logarithmic = logarithmic
        self.low, self.high = self.scaled(low), self.scaled(high)

    def scaled(self, value: float) -> float:
        """Return the value, or its logarithm."""
        return math.log10(max(value, 1e-9)) if self.logarithmic else value

    def y(self, value: float) -> float:
        """Return the position of a value."""
        part = (self.scaled(value) - self.low) / ((self.high - self.low) or 1.0)
        return BOTTOM - (BOTTOM - TOP) * min(1.0, max(0.0, part))


def percent_ticks(low: float) -> list[float]:
    """Return about five round ratios between `low` and 1."""
    for step in (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2):
        if (1.0 - low) / step <= 6:
            break
    count = math.ceil((1.0 - low) / step - 1e-9)
    return [1.0 - step * i for i in range(max(count, 1) + 1)]


def throughput(sections: list[dict[str, Any]], left: float, right: float) -> list[str]:
    """Draw the training throughput panel: points with intervals, by step time."""
    found = [
        (section, arm, section["arms"][arm]["throughput"])
        for section in sections
        for arm in COLORS
        if arm in section["arms"]
    ]
    ticks = percent_ticks(max(0.0, min(each["low"] for _, _, each in found)))
    top = max(1.0, *(each["high"] for _, _, each in found))
    axis = Axis(ticks[-1], min(top, 1.0 + (ticks[0] - ticks[-1]) / 2), logarithmic=False)
    parts = [text((left + right) / 2, TOP - 30, "throughput, no logging = 100 %", bold=True)]
    for tick in ticks:
        parts.append(rule(left, axis.y(tick), right, axis.y(tick)))
        parts.append(text(left - 6, axis.y(tick) + 4, f"{tick * 100:.4g} %", anchor="end"))
    parts.append(rule(left, axis.y(1.0), right, axis.y(1.0), "#222"))
    group = (right - left) / len(sections)
    for i, section in enumerate(sections):
        step_ms = section["arms"]["none"]["step_ms"]["median"]
        parts.append(text(left + group * (i + 0.5), BOTTOM + 20, f"{step_ms:.3g} ms steps"))
    order = list(COLORS)
    for section, arm, each in found:
        place = sections.index(section) + (order.index(arm) + 1) / (len(order) + 1)
        x, color = left + group * place, COLORS[arm]
        parts.append(rule(x, axis.y(each["low"]), x, axis.y(each["high"]), color, 2))
        parts.append(
            f"<circle cx='{x:.1f}' cy='{axis.y(each['median']):.1f}' r='4' fill='{color}'/>"
        )
    for i, arm in enumerate(order):
        x, y = left + (i % 3) * 165, BOTTOM + 52 + (i // 3) * 22
        parts.append(f"<circle cx='{x:.1f}' cy='{y - 4:.1f}' r='4' fill='{COLORS[arm]}'/>")
        parts.append(text(x + 9, y, NAMES[arm], anchor="start"))
    return parts


def calls(section: dict[str, Any], left: float, right: float) -> list[str]:
    """Draw the host cost panel: a line for each method, by number of scalars."""
    counts = section["counts"]
    lanes = {
        lane: [found["ns"][lane]["median"] / 1e3 for found in counts.values()] for lane in LANES
    }
    every = [value for lane in lanes.values() for value in lane]
    low, high = (10.0 ** math.floor(math.log10(min(every))), max(every) * 1.2)
    axis = Axis(low, high, logarithmic=True)
    parts = [text((left + right) / 2, TOP - 30, "host time for a call, us", bold=True)]
    tick = low
    while tick <= high:
        for value in (tick, tick * 2, tick * 5):
            if value <= high:
                parts.append(rule(left, axis.y(value), right, axis.y(value)))
                parts.append(text(left - 6, axis.y(value) + 4, f"{value:.4g}", anchor="end"))
        tick *= 10
    columns = [left + (right - left) * (i + 0.5) / len(counts) for i in range(len(counts))]
    for x, count in zip(columns, counts, strict=True):
        parts.append(text(x, BOTTOM + 20, f"{count}"))
    parts.append(text((left + right) / 2, BOTTOM + 36, "device scalars in a call"))
    for i, (lane, values) in enumerate(lanes.items()):
        name, color = LANES[lane]
        at = [(x, axis.y(value)) for x, value in zip(columns, values, strict=True)]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in at)
        parts.append(f"<polyline points='{path}' fill='none' stroke='{color}' stroke-width='2'/>")
        parts += [f"<circle cx='{x:.1f}' cy='{y:.1f}' r='3.5' fill='{color}'/>" for x, y in at]
        x, y = left - 20 + (i % 2) * 175, BOTTOM + 62 + (i // 2) * 22
        parts.append(rule(x, y - 4, x + 16, y - 4, color, 3))
        parts.append(text(x + 22, y, name, anchor="start"))
    return parts


def svg(result: dict[str, Any]) -> str:
    """Return the drawing."""
    gpu = result["gpu"]
    title = f"{gpu['name']}, torch {gpu['torch']}, {result['machine']['date'][:10]}"
    head = (
        f"<svg xmlns='http://www.w3.org/2000/svg' width='{WIDTH}' height='{HEIGHT}' "
        f"viewBox='0 0 {WIDTH} {HEIGHT}'>"
    )
    parts = [
        head,
        f"<rect width='{WIDTH}' height='{HEIGHT}' fill='white'/>",
        text(WIDTH / 2, 20, title, bold=True),
        *throughput(result["training"], 75, 560),
        *calls(result["scalars"], 640, 940),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"
