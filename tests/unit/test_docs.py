"""Every Python block of the documentation is complete: it runs with only its own names.

A block that shows a part of a source file has `<!-- excerpt of PATH -->` above it: its lines must
be there. One that takes minutes has `<!-- run by PATH -->`: that test must use what it imports.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import textwrap
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import pytest

from foundry_fastlog import Recorder

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    path
    for pattern in ("*.md", "docs/**/*.md", "csrc/*.md", "benchmarks/**/*.md", "examples/*.md")
    for path in ROOT.glob(pattern)
)
_BLOCK = re.compile(
    r"(?:^<!-- (?P<mark>excerpt of|run by) (?P<target>\S+) -->\n+)?"
    r"^(?P<indent> *)```python[^\n]*\n(?P<code>.*?)^(?P=indent)```",
    re.MULTILINE | re.DOTALL,
)

# Packages that not everyone who runs the tests has, and what blocks have that need them.
OPTIONAL = {
    "torch": "import torch",
    "opentelemetry": "from opentelemetry",
    "distributed": "import Fleet",
}

# Runs the blocks of a page in turn, each in its own namespace; a traceback names page and line.
RUNNER = """
import sys
page, *blocks = sys.argv[1:]
for block in blocks:
    line, code = block.split(":", 1)
    exec(compile("\\n" * int(line) + code, page, "exec"), {"__name__": "__main__"})
"""


@dataclass(frozen=True)
class Block:
    """A fenced block of Python.

    Attributes:
        line: Lines of the page above its first line.
        code: Its text, without the indentation of the fence.
        mark: "", "excerpt of" or "run by".
        target: The file that the mark names.
    """

    line: int
    code: str
    mark: str
    target: str


def blocks_of(text: str) -> list[Block]:
    found = []
    for match in _BLOCK.finditer(text):
        above, code = text.count("\n", 0, match.start("code")), textwrap.dedent(match["code"])
        found.append(Block(above, code, match["mark"] or "", match["target"] or ""))
    return found


def run_blocks(page: str, blocks: list[Block], folder: Path) -> subprocess.CompletedProcess[str]:
    """Run blocks in a process of their own, in a folder of their own."""
    arguments = [f"{block.line}:{block.code}" for block in blocks]
    command = [sys.executable, "-c", RUNNER, page, *arguments]
    env = os.environ | {"WANDB_MODE": "offline", "WANDB_DATA_DIR": str(folder)}
    return subprocess.run(
        command, cwd=folder, env=env, capture_output=True, text=True, timeout=240, check=False
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the run that the pages speak of, made as they tell their readers to."""
    text = (ROOT / "docs" / "start.md").read_text(encoding="utf-8")
    made = blocks_of(text.partition("## A run to try")[2])[:1]
    done = run_blocks("start.md", made, tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "runs" / "exp0").is_dir()
    return tmp_path


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_who_pastes_from_the_top_of_a_page_has_its_run(page: Path) -> None:
    """A page says what runs/exp0 is before a block that needs it."""
    text = page.read_text(encoding="utf-8")
    fenced = re.search(
        r"^```(?:sh|python)\n(?:(?!^```).)*?runs/exp0", text, re.MULTILINE | re.DOTALL
    )
    if fenced is None or page.name == "start.md":
        return
    before = text[: fenced.start()]
    assert re.search(r"`runs/exp0`\s+is\s+a\s+run", before), f"{page.name} does not say what it is"


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_the_blocks_of_a_page_run(page: Path, folder: Path) -> None:
    blocks = [block for block in blocks_of(page.read_text(encoding="utf-8")) if not block.mark]
    for package, line in OPTIONAL.items():
        if find_spec(package) is None:
            blocks = [block for block in blocks if line not in block.code]
    if not blocks:  # a page of prose: nothing that could be wrong
        return
    done = run_blocks(page.name, blocks, folder)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_marked_blocks_are_what_they_say(page: Path) -> None:
    """Excerpts are in the file that they name; what is run elsewhere is used there."""
    for block in blocks_of(page.read_text(encoding="utf-8")):
        if not block.mark:
            continue
        source = (ROOT / block.target).read_text(encoding="utf-8")
        wanted = [line.strip() for line in block.code.splitlines()]
        if block.mark == "run by":
            wanted = re.findall(r"^from \S+ import (\w+)$", block.code, re.MULTILINE)
            assert wanted, f"{page.name}:{block.line} imports nothing by name"
        there = source if block.mark == "run by" else [line.strip() for line in source.splitlines()]
        missing = [line for line in wanted if line not in ("", "...") and line not in there]
        assert missing == [], f"{page.name}:{block.line} says what {block.target} does not"


def test_a_page_with_a_wrong_block_is_noticed(tmp_path: Path) -> None:
    """The blocks really run, each with only its own names, and a failure says where."""
    text = "# Page\n\n```python\nx = 1\n```\n\nand\n\n```python\nassert x == 1\n```\n"
    done = run_blocks("page.md", blocks_of(text), tmp_path)
    assert done.returncode == 1
    assert 'File "page.md", line 10' in done.stderr
    assert "NameError" in done.stderr


def test_lines_are_shown_as_they_are_written(tmp_path: Path) -> None:
    """The floats of a metrics line, to the digit."""
    shown = [
        number
        for page in PAGES
        for line in re.findall(
            r'^\{"timestamp":.*"metrics":\{(.*?)\}', page.read_text(), re.MULTILINE
        )
        for number in re.findall(r":(-?[0-9]+[.e][0-9e.+-]*)", line)
    ]
    assert len(shown) > 3
    with Recorder(tmp_path) as recorder:
        for step, number in enumerate(shown):
            recorder.record(step, x=float(number))
    written = re.findall(r'"x":(.*)\}\}', (tmp_path / "metrics.jsonl").read_text())
    assert written == shown


def test_the_readme_has_blocks() -> None:
    """The pattern finds blocks at all, marks included."""
    assert blocks_of((ROOT / "README.md").read_text(encoding="utf-8"))
    marked = "<!-- excerpt of a/b.py -->\n```python\nx\n```\n"
    assert blocks_of(marked) == [Block(2, "x\n", "excerpt of", "a/b.py")]
