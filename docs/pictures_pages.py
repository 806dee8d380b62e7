"""Pictures of pages, notebooks and the terminal: `python docs/pictures_pages.py`, with Chromium.

Records example runs, opens their pages in a browser without a window, and writes docs/pictures/.
Those of the notebook are of examples/notebook.ipynb, which is run for them: they need jupyter's
nbclient, ipykernel and nbconvert.
"""

from __future__ import annotations

import base64
import io
import math
import os
import random
import re
import subprocess
import sys
import tempfile
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from browser import Browser  # noqa: E402 - it is in tests/
from many_ranks import durations, write_ranks  # noqa: E402
from oracle import START, OracleWriter, write_run_json  # noqa: E402
from PIL import Image  # noqa: E402
from rich._export_format import CONSOLE_SVG_FORMAT  # noqa: E402
from rich.console import Console  # noqa: E402
from rich.text import Text  # noqa: E402

from foundry_fastlog import write_report  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Sequence

PICTURES = ROOT / "docs" / "pictures"
STEPS = 6000
RATES = {"lr-1e-3": 1e-3, "lr-3e-4": 3e-4, "lr-3e-3": 3e-3}


def record(run: Path, rate: float, seed: int) -> Path:
    """Record a training of a small model, as it would have gone with a learning rate."""
    chance = random.Random(seed)
    config = {
        "model": {"layers": 12, "width": 768, "heads": 12, "dropout": 0.1},
        "optimizer": {"name": "adamw", "lr": rate, "betas": [0.9, 0.95], "weight_decay": 0.1},
        "data": {"tokens": 3_000_000_000, "batch": 512},
        "seed": seed,
    }
    write_run_json(run, name=run.name, config=config, attempts=2)
    half = STEPS // 2
    first = OracleWriter(run, tick_s=0.05)
    train(first, range(half + 400), rate, chance)
    first.log("checkpoint saved", step=half, context={"path": f"checkpoints/{half}.pt"})
    first.error("loss is NaN", FloatingPointError("overflow in attention"), step=half + 390)
    later = OracleWriter(run, attempt=1, tick_s=0.05, start=START + timedelta(hours=2))
    train(later, range(half, STEPS), rate, chance)
    later.log("checkpoint saved", step=STEPS - 1, context={"path": f"checkpoints/{STEPS}.pt"})
    return run


def train(writer: OracleWriter, steps: Sequence[int], rate: float, chance: random.Random) -> None:
    """Write what a training records."""
    writer.log("training started", context={"step": steps[0], "device": "cuda:0", "ranks": 8})
    for step in steps:
        warm = min(1.0, (step + 1) / 300)
        decay = 0.5 * (1 + math.cos(math.pi * step / STEPS))
        floor = 2.4 + 0.25 * abs(math.log10(rate / 8e-4))
        loss = floor + 7.5 * math.exp(-step * rate * 1.5) + 2 / (1 + step / 150)
        loss += chance.gauss(0, 0.06) + (3 if step in (2011, 4407) else 0)
        values: dict[str, float] = {
            "loss": loss if step % 2917 or not step else math.nan,
            "train/accuracy": max(0.0, 1 - loss / 11),
            "train/grad_norm": abs(chance.lognormvariate(-0.4 if step > 300 else 0.8, 0.25)),
            "train/lr": rate * warm * max(decay, 0.1),
            "tokens": step * 524_288.0,
            "tokens_per_s": 412_000 * chance.uniform(0.96, 1.02) * (0.6 if step % 500 == 0 else 1),
        }
        for name, seconds in (("data", 0.021), ("forward", 0.081), ("backward", 0.163)):
            writer.timing(name, seconds * chance.lognormvariate(0, 0.08), step, 1, "step")
        writer.timing("attention", 0.046 * chance.lognormvariate(0, 0.1), step, 2, "forward")
        writer.timing("mlp", 0.027 * chance.lognormvariate(0, 0.1), step, 2, "forward")
        writer.timing("optimizer", 0.032 * chance.lognormvariate(0, 0.05), step, 1, "step")
        writer.timing("step", 0.31 * chance.lognormvariate(0, 0.05), step)
        writer.metrics(step, step // 1500, **values)
        if step % 250 == 0:
            writer.metrics(step, **{"val/loss": loss + 0.12, "val/perplexity": math.exp(loss)})
            writer.timing("validation", 4.1 * chance.lognormvariate(0, 0.1), step)
            writer.log("validated", step=step, context={"val_loss": round(loss + 0.12, 4)})
        if step % 40 == 0:
            used = 61 + chance.gauss(0, 0.4)
            power = 640 + chance.gauss(0, 12)
            writer.system(step, gpu0_memory_gb=used, gpu0_power_w=power)
        if step % 700 == 699:
            writer.log("data loader is slow", level="WARNING", step=step, logger="data")


def slowness(block: str, rank: int, step: int) -> float:
    """Say how much slower a block is: one rank from a step on, and all of them for a while."""
    if block == "forward" and rank == 21 and step >= 900:
        return 1.35
    return 1.6 if block == "data" and 1300 <= step < 1500 else 1.0


def picture(browser: Browser, path: Path) -> None:
    """Write what is seen."""
    browser.picture(path)
    shrink(path)


def shrink(path: Path) -> None:
    """Keep 256 colours, which is a third of the bytes."""
    Image.open(path).convert("RGB").quantize(256, dither=Image.Dither.NONE).save(
        path, optimize=True
    )


def live(home: Path, browser: Browser) -> None:
    """Show the directory of the runs as it is served."""
    command = [sys.executable, "-m", "foundry_fastlog", "ui", str(home), "--port", "0"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        address = process.stdout.readline().split(": ", 1)[1].strip()
        browser.driver.get(address)
        page = "const page = document.getElementById('app').page; "
        browser.wait(page + "return page?.grid.charts.get('loss')?.shown.length === 3")
        browser.wait("return !document.querySelector('.badge').hidden")  # all is there
        browser.settle()
        picture(browser, PICTURES / "live.png")
        process.terminate()


def terminal(home: Path, path: Path, *arguments: str, lines: int = 60, width: int = 92) -> None:
    """Run the command, and draw what a terminal shows of it; it asks for no font from anywhere."""
    shown = subprocess.run(
        [sys.executable, "-m", "foundry_fastlog", *arguments],
        cwd=home,
        env={**os.environ, "PYTHONPATH": str(ROOT), "FORCE_COLOR": "1", "COLUMNS": str(width)},
        capture_output=True,
        text=True,
        check=True,
    )
    console = Console(record=True, width=width, file=io.StringIO(), force_terminal=True)
    words = (f"'{word}'" if " " in word else word for word in arguments)
    console.print(Text(f"$ foundry-fastlog {' '.join(words)}", "bold"), soft_wrap=True)
    some = shown.stdout.rstrip("\n").splitlines()[:lines]
    console.print(Text.from_ansi("\n".join(some)), soft_wrap=True)
    form = re.sub(r"@font-face \{\{.*?\}\}", "", CONSOLE_SVG_FORMAT, flags=re.DOTALL)
    form = form.replace("Fira Code", "ui-monospace, Menlo, Consolas, DejaVu Sans Mono")
    console.save_svg(str(path), title="", code_format=form, unique_id=path.stem)


def notebook(home: Path, browser: Browser) -> None:
    """Run the example notebook, and show its cells as Jupyter does, in light and dark."""
    import nbformat
    from nbclient import NotebookClient
    from nbconvert import HTMLExporter

    book = nbformat.read(ROOT / "examples" / "notebook.ipynb", as_version=4)
    os.environ["PYTHONPATH"] = f"{ROOT}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
    NotebookClient(book, timeout=600, resources={"metadata": {"path": str(home)}}).execute()
    code = [n for n, cell in enumerate(book.cells) if cell.cell_type == "code"]
    (table,) = (n for n in code if "read_runs(" in book.cells[n].source)
    shown = {"card": (code[2], code[3]), "runs": (table, table)}
    browser.resize(940, 900)
    for theme in ("light", "dark"):
        page = home / f"notebook-{theme}.html"
        exporter = HTMLExporter(theme=theme, require_js_url="", mathjax_url="")
        page.write_text(exporter.from_notebook_node(book)[0], encoding="utf-8")
        browser.prefer(color_scheme=theme)
        browser.driver.get(page.as_uri())
        for name, (first, last) in shown.items():
            cells(browser, first, last, PICTURES / f"notebook-{name}-{theme}.png")


def cells(browser: Browser, first: int, last: int, path: Path) -> None:
    """Write the picture of some cells of a notebook's page, counted from 0."""
    place = browser.ask(
        """
        const cells = document.querySelectorAll(".jp-Cell");
        const [from, to] = [cells[arguments[0]], cells[arguments[1]]].map(
          (cell) => cell.getBoundingClientRect());
        return {x: 0, y: from.top + scrollY, width: innerWidth, height: to.bottom - from.top};
        """,
        *(first, last),
    )
    shot = browser.driver.execute_cdp_cmd(
        "Page.captureScreenshot", {"captureBeyondViewport": True, "clip": {**place, "scale": 1}}
    )
    path.write_bytes(base64.b64decode(shot["data"]))
    shrink(path)


def main() -> None:
    """Write all pictures."""
    PICTURES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        runs = [
            record(home / "runs" / name, rate, seed)
            for seed, (name, rate) in enumerate(RATES.items(), 1)
        ]
        ranks = home / "ranks.html"
        times = durations(32, 2000, slowness, jitter=0.03)
        write_ranks(home / "ranks" / "exp0", times)
        write_report(home / "ranks" / "exp0", ranks)
        one, several = home / "one.html", home / "several.html"
        write_report(runs[0], one)
        write_report(runs, several, title="learning rates")
        terminal(home, PICTURES / "reading.svg", "summary", "runs/lr-1e-3", lines=51)
        asked = ("--where", "min.loss < 3 and starts > 1", "--sort", "last.loss")
        terminal(home, PICTURES / "finding.svg", "runs", "runs", *asked, width=100)
        with Browser() as browser:
            notebook(home, browser)
        with Browser() as browser:
            live(home / "runs", browser)
            browser.open(one)
            picture(browser, PICTURES / "report-light.png")
            browser.open(several, "smooth=0.98&run=lr-1e-3&theme=dark")
            picture(browser, PICTURES / "report-dark.png")
            browser.open(one, "tab=timings")
            picture(browser, PICTURES / "report-timings.png")
            browser.open(ranks, "tab=ranks&side=0")
            browser.wait("return document.querySelector('canvas.ranks').height > 200")
            picture(browser, PICTURES / "report-ranks.png")
            browser.open(several, "tab=config")
            picture(browser, PICTURES / "report-config.png")
            browser.resize(390, 844)
            browser.open(several, "smooth=0.98")
            picture(browser, PICTURES / "report-phone.png")


if __name__ == "__main__":
    main()
