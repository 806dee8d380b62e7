"""The documentation site: its pages, its links, and that the API reference has every public name.

`make docs` builds it, strictly; what these tests see needs neither mkdocs nor a build.
"""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

import foundry_fastlog
from docs import hooks
from foundry_fastlog import MetricsLogger, PerformanceLogger, Recorder

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = sorted(
    path
    for pattern in ("*.md", "docs/**/*.md", "csrc/*.md", "benchmarks/**/*.md", "examples/*.md")
    for path in ROOT.glob(pattern)
)
_LINK = re.compile(r"\]\((?!\w+:)([^)\s]+)\)")
_FENCED = re.compile(r"^( *)(```+|~~~+).*?^\1\2", re.MULTILINE | re.DOTALL)
_NAMED = re.compile(r"^::: (\S+)$", re.MULTILINE)


class _Settings(yaml.SafeLoader):
    """Reads mkdocs.yml; what it tells mkdocs to import stays as it is written."""


_Settings.add_multi_constructor("tag:yaml.org,2002:python/", lambda *_: None)


def in_nav(entry: Any) -> Iterator[str]:
    """Yield the pages of a navigation, from the top down."""
    if isinstance(entry, str):
        yield entry
        return
    for part in entry.values() if isinstance(entry, dict) else entry:
        yield from in_nav(part)


def prose(page: Path) -> str:
    """Return a page without its blocks of code."""
    return _FENCED.sub("", page.read_text(encoding="utf-8"))


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as a forge and the site make them."""
    titles = re.findall(r"^#+ +(.+?) *$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_links_lead_to_what_is_there(page: Path) -> None:
    """To files and folders of the repository, and to headings of its pages."""
    for link in _LINK.findall(prose(page)):
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        if anchor:
            assert anchor in anchors(target), link


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_lists_are_read_alike_by_forge_and_site(page: Path) -> None:
    """A list in a list is indented by four, and one after a paragraph has a blank line above it."""
    text = prose(page)
    assert re.findall(r"^ {1,3}[-*] .*", text, re.MULTILINE) == []
    assert re.findall(r"^(?![-*] |\s|\d+\.).+\n[-*] .*", text, re.MULTILINE) == []


def test_every_page_is_in_the_navigation() -> None:
    """Once each, and nothing else is."""
    settings = yaml.load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"), _Settings)
    pages = Counter(in_nav(settings["nav"]))
    here = {path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md")}
    elsewhere = {hooks.uri_of(page) for page in PAGES if not page.is_relative_to(DOCS)}
    assert set(pages.values()) == {1}
    assert here <= set(pages)
    assert set(pages) - here <= elsewhere


def test_the_reference_has_every_public_name() -> None:
    """Once each, and every name in it is there."""
    pages = (DOCS / "api").glob("*.md")
    named = Counter(name for page in pages for name in _NAMED.findall(page.read_text("utf-8")))
    assert set(named.values()) == {1}
    ours = {name.removeprefix("foundry_fastlog.") for name in named}
    integrations = {name for name in ours if name.startswith("integrations.")}
    assert ours - integrations == set(foundry_fastlog.__all__)
    for name in integrations:
        assert (ROOT / "foundry_fastlog" / name.replace(".", "/")).with_suffix(".py").exists()


def test_every_integration_has_its_page_and_its_reference() -> None:
    """An adapter has a page of its own; wandb's interface and SummaryWriter share one."""
    modules = (ROOT / "foundry_fastlog" / "integrations").glob("*.py")
    adapters = {path.stem for path in modules if "\nclass Fastlog" in path.read_text("utf-8")}
    assert {path.stem for path in (DOCS / "integrations").glob("*.md")} == adapters
    reference = (DOCS / "api" / "integrations.md").read_text(encoding="utf-8")
    for name in (*adapters, "wandb", "tensorboard"):
        assert f"::: foundry_fastlog.integrations.{name}\n" in reference


def test_native_methods_have_the_docstrings_of_their_stub() -> None:
    """Editors and the reference read the stub, `help()` the method."""
    stub = ast.parse((ROOT / "foundry_fastlog" / "_core.pyi").read_text(encoding="utf-8"))
    methods = {
        (item.name, method.name): ast.get_docstring(method)
        for item in stub.body
        if isinstance(item, ast.ClassDef)
        for method in item.body
        if isinstance(method, ast.FunctionDef)
    }
    public = {
        "RecorderCore": Recorder,
        "BlockTimer": PerformanceLogger,
        "StepLogger": MetricsLogger,
    }
    for (native, name), said in methods.items():
        if native in public and not name.startswith("_") and name != "closed":
            assert said is not None, f"{native}.{name} has no docstring in _core.pyi"
            assert said.split() == str(getattr(public[native], name).__doc__).split()


def test_links_out_of_docs_lead_to_pages_of_the_site() -> None:
    """Wherever they are, with their anchors; what is not there stays, for a strict build."""
    page = hooks.relinked(
        "[a](../csrc/core/ring_layout.hpp) [b](../README.md#install) [c](format.md#lines) "
        "[d](../benchmarks/README.md) [e](https://x.y/z.md) [f](../gone.md) "
        "![g](pictures/live.png)",
        DOCS / "design.md",
    )
    assert page == (
        "[a](repository/csrc/core/ring_layout.hpp.md) [b](index.md#install) [c](format.md#lines) "
        "[d](repository/benchmarks/README.md) [e](https://x.y/z.md) [f](../gone.md) "
        "![g](pictures/live.png)"
    )
    other = hooks.relinked("[a](results/) [b](../docs/faq.md)", ROOT / "benchmarks" / "README.md")
    assert other == "[a](results.md) [b](../../faq.md)"


def test_a_pipe_in_code_in_a_table_has_no_backslash() -> None:
    """Elsewhere in a table it has one, and so has whatever is no table."""
    text = "| `a\\|b` | c \\| d |\n`a\\|b`"
    assert hooks.pipes_in_tables(text) == "| `a|b` | c \\| d |\n`a\\|b`"


def test_whatever_is_linked_becomes_a_page() -> None:
    """Markdown as it is, a source as its lines, a folder as its files; the README is the first."""
    pytest.importorskip("mkdocs")
    pytest.importorskip("mkdocstrings")
    from mkdocs.config import load_config
    from mkdocs.structure.files import get_files
    from mkdocs.structure.pages import Page

    config = load_config(str(ROOT / "mkdocs.yml"))
    files = config.plugins.on_files(get_files(config), config=config)

    def shown(uri: str) -> str:
        file = files.get_file_from_path(uri)
        assert file is not None, uri
        page = Page(None, file, config)
        return hooks.on_page_markdown(file.content_string, page=page)

    assert shown("repository/CHANGELOG.md").startswith("# Changelog")
    assert "](../faq.md)" in shown("repository/CHANGELOG.md")
    assert "~~~~~~ cpp\n" in shown("repository/csrc/core/ring_layout.hpp.md")
    assert "- `driver.cpp`\n" in shown("repository/tests/crash.md")
    assert files.get_file_from_path("repository/benchmarks/floor/empty.c.md") is not None
    index = shown("index.md")
    assert index.startswith("# foundry_fastlog\n")
    assert index.index("Nanoseconds per step") < index.index("## Where to go")
    assert index.index("## Where to go") < index.index("## What you can record")
    assert "](device_scalars.md)" in index
    assert "docs/" not in "".join(_LINK.findall(index))


def test_the_reference_shows_fields_and_examples() -> None:
    """A field has its description and its default, and a doctest is code."""
    griffe = pytest.importorskip("griffe")
    from docs import docstrings

    path = ROOT / "foundry_fastlog" / "config" / "models.py"
    extensions = griffe.load_extensions(docstrings.Docstrings())
    models = griffe.visit("models", path, path.read_text("utf-8"), extensions=extensions)
    level, ring = models["LoggingConfig.console_level"], models["RecorderConfig.ring_bytes"]
    assert (level.docstring.value, str(level.value)) == ("Console log level", "'INFO'")
    assert ring.docstring.value == "Size of the ring, rounded to a power of two"
    assert str(ring.value) == "8 << 20"
    assert "Examples:\n" in models["RecorderConfig"].docstring.value
    assert models["LoggingConfig.wandb_enabled"].docstring.value.startswith("Whether W&B")
