"""The Markdown page for a result."""

from __future__ import annotations

from typing import Any

from benchmarks.gpu import goals
from benchmarks.tables import number, table

LANES = {
    "record": "**foundry_fastlog** `record(step, a=tensor, ...)`",
    "bare": "bare `cuMemcpyDtoHAsync` in a C loop, one event record",
    "to": '`tensor.to("cpu", non_blocking=True)`',
    "item": "`tensor.item()`, idle device",
}
TITLES = {
    "none": "no logging",
    "none_again": "no logging, measured again (the noise)",
    "bare": "four bare `cuMemcpyDtoHAsync` and an event, in C (the floor)",
    "fastlog": "**foundry_fastlog**, tensors as they are",
    "fastlog_item": "foundry_fastlog, `.item()` each step",
    "wandb": "wandb offline, `.item()` each step",
    "tensorboard": "TensorBoard `SummaryWriter`, `.item()` each step",
}


def machine(result: dict[str, Any]) -> str:
    """Return the paragraph about machine and date."""
    host, gpu = result["machine"], result["gpu"]
    card = gpu["name"]
    if "memory_gib" in gpu:
        card += f", {gpu['memory_gib']:.0f} GiB, CUDA {gpu['cuda']}"
    if "driver_version" in gpu:
        card += f", driver {gpu['driver_version']}, power limit {gpu['power.limit']}"
    quick = " A quick run: fewer sizes and rounds." if result["quick"] else ""
    return (
        f"{host['date'][:10]}, commit {host['commit']}: {card}; torch {gpu['torch']}; "
        f"{host['cpu']}, {host['cores']} cores, {host['system']}; {host['python']}.{quick}"
    )


def spread(found: dict[str, float], digits: int = 2) -> str:
    """Return a median with its interval."""
    return f"{found['median']:.{digits}f} ({found['low']:.{digits}f} - {found['high']:.{digits}f})"


def scalars(section: dict[str, Any]) -> str:
    """Return the table of host time per call."""
    counts = section["counts"]
    rows = []
    for lane, title in LANES.items():
        row = [title]
        for found in counts.values():
            cell = f"{number(found['ns'][lane]['median'] / 1e3)} us"
            if lane in found["ratio"]:
                cell += f", {spread(found['ratio'][lane])}x"
            row.append(cell)
        rows.append(row)
    plural = [f"{count} scalar{'s' if count != '1' else ''}" for count in counts]
    return table(["the host's time for", *plural], rows)


def training(section: dict[str, Any]) -> str:
    """Return the table for one step time."""
    rows = []
    for arm, found in section["arms"].items():
        profile = found["profile"]
        rows.append(
            [
                TITLES[arm],
                ", ".join(f"{name} {version}" for name, version in found["versions"].items())
                or "-",
                f"{found['step_ms']['median']:.3f}",
                "1" if arm == goals.BASE else spread(found["throughput"], 4),
                f"{number(found['call_us']['median'])} us",
                f"{number(found['idle_call_us']['median'])} us" if found["idle_call_us"] else "-",
                f"{found['call_share']:.2%}",
                f"{profile['waits_per_step']:g}" if profile else "-",
                f"{found['verified']:,}" if found["verified"] else "-",
            ]
        )
    rows += [
        [TITLES[arm], f"cannot run here: {why}", *["-"] * 7]
        for arm, why in section["unavailable"].items()
    ]
    head = [
        f"steps of about {section['wanted_ms']:g} ms",
        "versions",
        "step, ms",
        "throughput, no logging = 1",
        "time in the call",
        "nothing queued",
        "share of the step",
        "waits per step",
        "steps verified",
    ]
    size = (
        f"{section['parameters'] / 1e6:.1f} million parameters ({section['shape']}), "
        f"{section['dtype']}, batch {section['batch']} x {section['sequence']} tokens; "
        f"{section['rounds']} rounds of {section['steps_per_block']} steps each."
    )
    return f"{size}\n\n{table(head, rows)}"


def render(result: dict[str, Any], plot: str) -> str:
    """Return the page.

    Args:
        result: The result as stored in the file.
        plot: Name of the plot's file, next to the page.
    """
    label = f"# Device scalars: {result['gpu']['name']}"
    notice = (
        "**Smoke, no GPU.** Tensors were on the CPU and sizes tiny: this page only shows that the "
        "scripts work. No figure here says anything about a GPU."
    )
    written = (
        "Written by `python -m benchmarks.gpu`. `benchmarks/gpu/README.md` explains what it "
        "measures and how to read it. Intervals are 95 %."
    )
    blocks = [
        label,
        *([notice] if result["smoke"] else []),
        machine(result),
        written,
        f"![Throughput and cost per call]({plot})",
        "## Goals",
        "\n".join(f"- {goals.line(each)}" for each in result["goals"]),
        "## What the host pays for a call",
        scalars(result["scalars"]),
        "## Training with and without logging",
        *(training(section) for section in result["training"]),
    ]
    return "\n\n".join(blocks) + "\n"
